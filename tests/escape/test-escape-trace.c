/*
 * No trace: protecting names that do not exist leaves nothing in the user's tree, neither
 * afterwards (names, modes, times, inodes, extended attributes) nor for a moment (inotify), however
 * requests, programs, clients and the server end. And protection on roots that are not plain
 * directories: read-only, overlaid, symlinked, and repositories whose .git is elsewhere.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "escape/door.h"
#include "escape/yard.h"
#include "support/mounts.h"
#include "support/rows.h"
#include "support/server.h"
#include "support/tree.h"

enum {
    SEEN = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_MODIFY |
           IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR,
};

static struct yard *yard;
static struct server *server;

/* ---- watching ---- */

static const char *const watched[] = {"",         "ws",      "ws/sub",     "ws/.git", "ws/ro",
                                      "ws/ro/rw", "ws/deny", "ws/deny/rw", "lib",     "out"};

static int watch(void)
{
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

    assert_true(fd >= 0);
    for (size_t i = 0; i < BLY_LEN(watched); i++)
        assert_true(inotify_add_watch(fd, yard_path(yard, watched[i]), SEEN) >= 0);
    return fd;
}

/* How many events came; they are shown. */
static size_t count_events(int fd)
{
    _Alignas(struct inotify_event) char events[8192];
    size_t count = 0;
    ssize_t n;

    while ((n = read(fd, events, sizeof(events))) > 0) {
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *event = (const void *)(events + at);

            print_message("event %#x %s\n", event->mask, event->len ? event->name : "");
            at += (ssize_t)(sizeof(*event) + event->len);
            count++;
        }
    }
    return count;
}

/* ---- things to do that change nothing ---- */

static void run(enum wall wall, const char *command)
{
    const char *argv[] = {"/bin/sh", "-c", command, NULL};
    const char *envp[] = {"PATH=/usr/bin:/bin", NULL};
    const struct bly_client_run how = {
        .argv = argv, .envp = envp, .cwd = yard->ws, .sandbox_json = yard->sandbox[wall]};
    struct bly_client_exit result;
    struct bly_client_error error;

    if (bly_client_run(server->client, &how, &result, &error) < 0)
        fail_msg("%s: %s", command, error.message);
}

static void ask_files(enum wall wall)
{
    static const struct {
        const char *method, *params;
    } calls[] = {
        {"fs/readFile", "\"path\":\"%s/a.txt\""},
        {"fs/readDirectory", "\"path\":\"%s\""},
        {"fs/getMetadata", "\"path\":\"%s/.codex\""},
        {"fs/canonicalize", "\"path\":\"%s/inlink\""},
        {"fs/walk", "\"path\":\"%s\",\"options\":{\"maxDepth\":8,\"maxDirectories\":100,"
                    "\"maxEntries\":1000,\"followDirectorySymlinks\":true}"},
        {"fs/writeFile", "\"path\":\"%s/.codex\",\"dataBase64\":\"eA==\""},
        {"fs/createDirectory", "\"path\":\"%s/.agents/x\""},
        {"fs/writeFile", "\"path\":\"%s/.git/x\",\"dataBase64\":\"eA==\""},
        {"fs/remove", "\"path\":\"%s/ro\""},
        {"fs/open", "\"handleId\":\"h\",\"mode\":\"replace\",\"path\":\"%s/.aws\""},
    };

    for (size_t i = 0; i < BLY_LEN(calls); i++) {
        bly_autofree char *inner = NULL, *params = NULL, *result = NULL;
        struct bly_client_error error;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        assert_true(asprintf(&inner, calls[i].params, yard->ws) > 0);
#pragma GCC diagnostic pop
        assert_true(asprintf(&params, "{%s,\"sandbox\":%s}", inner, yard->sandbox[wall]) > 0);
        (void)bly_client_call(server->client, calls[i].method, params, &result, &error);
    }
}

static void start(struct bly_client *client, enum wall wall, const char *id, const char *command)
{
    bly_autofree char *params = NULL, *result = NULL;
    struct bly_client_error error;

    assert_true(asprintf(&params,
                         "{\"processId\":\"%s\",\"argv\":[\"/bin/sh\",\"-c\",\"%s\"],\"cwd\":"
                         "\"%s\",\"env\":{\"PATH\":\"/usr/bin:/bin\"},\"tty\":false,"
                         "\"sandbox\":%s}",
                         id, command, yard->ws, yard->sandbox[wall]) > 0);
    if (bly_client_call(client, "process/start", params, &result, &error) < 0)
        fail_msg("%s", error.message);
}

static void await(struct bly_client *client, const char *want)
{
    for (;;) {
        bly_autofree char *method = NULL, *params = NULL;

        assert_int_equal(bly_client_next_notification(client, 30000, &method, &params), 0);
        if (strcmp(method, want) == 0)
            return;
    }
}

static const char busy[] = "mkdir .codex; echo up; sleep 1000";

static void normal_ends(void)
{
    for (enum wall wall = RESTRICTED; wall < N_WALLS; wall++) {
        ask_files(wall);
        run(wall, "cat a.txt; mkdir .codex; echo x > .agents; ln -s x .aws; mv sub .codex; true");
        run(wall, "exit 3");
        run(wall, "kill -9 $$");
    }
}

static void terminated(void)
{
    bly_autofree char *result = NULL;
    struct bly_client_error error;

    start(server->client, FULL_READ, "t", busy);
    await(server->client, "process/output");
    assert_int_equal(bly_client_call(server->client, "process/terminate", "{\"processId\":\"t\"}",
                                     &result, &error),
                     0);
    await(server->client, "process/closed");
}

/* A client goes in the middle of requests and of a process. */
static void client_vanished(void)
{
    struct bly_client_error error;
    struct bly_client *client = bly_client_connect(server->url, NULL, 30000, &error);

    assert_non_null(client);
    start(client, RESTRICTED, "v", busy);
    await(client, "process/output");
    for (int i = 0; i < 20; i++) {
        bly_autofree char *text = NULL;

        assert_true(asprintf(&text,
                             "{\"id\":%d,\"method\":\"fs/createDirectory\",\"params\":{\"path\":"
                             "\"%s/.codex/x\",\"sandbox\":%s}}",
                             100 + i, yard->ws, yard->sandbox[i % 2 ? RESTRICTED : FULL_READ]) > 0);
        assert_int_equal(bly_client_send_raw(client, text, strlen(text)), 0);
    }
    bly_client_free(client);
    ask_files(RESTRICTED); /* whatever was before it has been dealt with, or given up */
}

/* Nobody tidies up after this one. */
static void server_killed(void)
{
    start(server->client, FULL_READ, "k", busy);
    await(server->client, "process/output");
    ask_files(FULL_READ);
    assert_int_equal(kill(server->pid, SIGKILL), 0);
    assert_int_equal(waitpid(server->pid, NULL, 0), server->pid);
    server_forget(server);
    server = server_start(NULL);
    run(FULL_READ, "true");
}

/* The twin: that the watcher and the list would notice. */
static void noticed(void)
{
    run(NO_WALL, "mkdir .codex; rmdir .codex");
}

static const struct ending {
    const char *name;
    void (*act)(void);
    bool leaves_trace;
} endings[] = {
    {"requests and programs that end leave no trace", normal_ends, false},
    {"a terminated program leaves no trace", terminated, false},
    {"a client that vanishes leaves no trace", client_vanished, false},
    {"a server that is killed leaves no trace", server_killed, false},
    {"without a wall the trace is noticed", noticed, true},
};

static void leave_no_trace(void **state)
{
    const struct ending *ending = *state;
    bly_autofree char *before = NULL, *after = NULL, *difference = NULL;
    bly_autofd int fd = -EBADF;
    size_t n;

    yard_reset(yard);
    before = tree_list(yard->dir, TREE_EXACT);
    fd = watch();
    ending->act();
    n = count_events(fd);
    after = tree_list(yard->dir, TREE_EXACT);
    difference = tree_difference(before, after);
    if (ending->leaves_trace) {
        assert_true(n > 0 && difference);
        return;
    }
    if (difference)
        fail_msg("%s", difference);
    assert_int_equal(n, 0);
}

/* ---- roots that are not plain directories ---- */

/* A sandbox that reads everything and writes these, separated by blanks and below the yard. */
static char *sandbox_of(const char *roots)
{
    bly_autofree char *copy = strdup(roots);
    char *text = NULL, *rest = copy, *root;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    (void)fprintf(out, "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":"
                       "\"restricted\",\"entries\":[{\"path\":{\"type\":\"special\",\"value\":{"
                       "\"kind\":\"root\"}},\"access\":\"read\"}");
    while ((root = strsep(&rest, " ")))
        (void)fprintf(out,
                      ",{\"path\":{\"type\":\"path\",\"path\":\"file://%s\"},\"access\":\"write\"}",
                      yard_path(yard, root));
    (void)fprintf(out,
                  "]},\"network\":\"restricted\"},\"cwd\":\"file://%s\",\"windowsSandboxLevel\":"
                  "\"disabled\"}",
                  yard->ws);
    assert_int_equal(fclose(out), 0);
    return text;
}

static int run_in(const char *sandbox, const char *cwd, const char *command)
{
    const char *argv[] = {"/bin/sh", "-c", command, NULL};
    const char *envp[] = {"PATH=/usr/bin:/bin", "HOME=/nonexistent", NULL};
    const struct bly_client_run how = {
        .argv = argv, .envp = envp, .cwd = yard_path(yard, cwd), .sandbox_json = sandbox};
    struct bly_client_exit result;
    struct bly_client_error error;

    if (bly_client_run(server->client, &how, &result, &error) < 0)
        fail_msg("%s: %s", command, error.message);
    return result.exit_code;
}

static int write_in(const char *sandbox, const char *name)
{
    struct bly_client_error error = {0};

    (void)bly_client_write_file(server->client, yard_path(yard, name), "x", 1, sandbox, &error);
    return error.code;
}

static void shell(const char *command)
{
    bly_autofree char *whole = NULL;

    assert_true(
        asprintf(&whole, "set -e; export HOME=/nonexistent; cd '%s'; %s", yard->dir, command) > 0);
    if (system(whole) != 0)
        fail_msg("%s", command);
}

/*
 * Each row: what makes it (a shell command in the yard), the writable roots, what may be written
 * (NULL: nothing), and what may not, with a program and with a request. Without a wall it may.
 */
static const struct root_case {
    const char *name;
    const char *make, *unmake;
    const char *roots, *cwd, *may;
    const char *may_not[6];
    bool as_root;
    bool no_wall; /* the wall cannot be built, and the answer says why */
} root_cases[] = {
    {"a symlinked root",
     "ln -s ws link",
     "rm link",
     "link",
     "link",
     "link/sub/new",
     {"link/.codex", "link/.git/new", "ws/.codex", "ws/.git/config"}},
    {"an overlaid root",
     "mkdir up work ov; mount -t overlay -o lowerdir=ws,upperdir=up,workdir=work overlay ov",
     "umount ov; rm -rf up work ov",
     "ov",
     "ov",
     "ov/sub/new",
     {"ov/.codex", "ov/.git/new", "ov/.git/config", "ov/.agents"},
     .as_root = true},
    /* A grant that cannot be given is said at once, to requests and programs, and nothing runs. */
    {"a read-only root",
     "mkdir bound; mount --bind ws bound; mount -o remount,bind,ro bound",
     "umount bound; rmdir bound",
     "bound",
     "bound",
     NULL,
     {"bound/.codex", "bound/.git/new", "bound/sub/new"},
     .as_root = true,
     .no_wall = true},
    {"a root on tmpfs, with odd characters in its name",
     "mkdir 'a b'; mount -t tmpfs none 'a b'; mkdir -p 'a b/r/.git'",
     "umount 'a b'; rmdir 'a b'",
     "a%20b/r",
     "a b/r",
     "a b/r/new",
     {"a b/r/.codex", "a b/r/.git/new"},
     .as_root = true},
    {"a repository with a separate git directory",
     "mkdir ws/store; git init -q --separate-git-dir=ws/store/gd ws/proj",
     "rm -rf ws/store ws/proj",
     "ws/proj ws/store",
     "ws/proj",
     "ws/store/new",
     {"ws/proj/.git", "ws/store/gd/config", "ws/store/gd/hooks/pre-commit", "ws/store/gd/new"}},
    {"a linked worktree",
     "git init -q ws/store/main; cd ws/store/main; git -c user.name=a -c user.email=a@b commit -q "
     "--allow-empty -m one; git worktree add -q ../../proj",
     "rm -rf ws/store ws/proj",
     "ws/proj ws/store",
     "ws/proj",
     "ws/store/main/new",
     {"ws/proj/.git", "ws/store/main/.git/worktrees/proj/HEAD", "ws/store/main/.git/config",
      "ws/store/main/.git/hooks/pre-commit", "ws/store/main/.git/new"}},
    {"a repository with a submodule",
     "git init -q ws/other; cd ws/other; git -c user.name=a -c user.email=a@b commit -q "
     "--allow-empty -m one; cd ..; git init -q super; cd super; git -c protocol.file.allow=always "
     "submodule --quiet add ../other sub",
     "rm -rf ws/other ws/super",
     "ws/super",
     "ws/super",
     "ws/super/new",
     {"ws/super/.git/config", "ws/super/.git/modules/sub/config",
      "ws/super/.git/modules/sub/hooks/post-checkout"}},
    {"a submodule and its super-project as two roots",
     "git init -q ws/other; cd ws/other; git -c user.name=a -c user.email=a@b commit -q "
     "--allow-empty -m one; cd ..; git init -q d/super; cd d/super; git -c "
     "protocol.file.allow=always submodule --quiet add ../../other sub",
     "rm -rf ws/other ws/d",
     "ws/d ws/d/super/sub",
     "ws/d/super/sub",
     "ws/d/super/sub/new",
     {"ws/d/super/sub/.git", "ws/d/super/.git/modules/sub/config",
      "ws/d/super/.git/modules/sub/hooks/post-checkout"}},
};

static void assert_no_wall(const char *sandbox, const char *name)
{
    const char *argv[] = {"/bin/sh", "-c", "exit 0", NULL};
    const struct bly_client_run how = {.argv = argv, .cwd = yard->ws, .sandbox_json = sandbox};
    struct bly_client_exit result;
    struct bly_client_error error = {0};

    assert_int_equal(bly_client_run(server->client, &how, &result, &error), -EREMOTEIO);
    assert_int_equal(error.code, -32603);
    assert_non_null(strstr(error.message, "sandbox unavailable"));
    assert_non_null(strstr(error.message, "mounted read-only"));
    assert_int_equal(write_in(sandbox, name), -32603);
}

static void assert_refused(const struct root_case *c, const char *sandbox, const char *name)
{
    bly_autofree char *command = NULL, *before = tree_list(yard->dir, 0), *after = NULL;

    assert_true(asprintf(&command, "echo x > '%s'", yard_path(yard, name)) > 0);
    if (c->no_wall) {
        assert_no_wall(sandbox, name);
    } else {
        if (run_in(sandbox, c->cwd, command) == 0)
            fail_msg("a program wrote %s", name);
        assert_int_equal(write_in(sandbox, name), -32600);
    }
    after = tree_list(yard->dir, 0);
    assert_string_equal(before, after);
}

static void protect_root(void **state)
{
    const struct root_case *c = *state;
    bly_autofree char *sandbox = sandbox_of(c->roots);

    yard_reset(yard);
    if (c->as_root && geteuid() != 0) {
        print_message("only root can mount\n");
        return;
    }
    shell(c->make);
    for (size_t i = 0; i < BLY_LEN(c->may_not) && c->may_not[i]; i++)
        assert_refused(c, sandbox, c->may_not[i]);
    if (c->may) {
        bly_autofree char *command = NULL;

        assert_true(asprintf(&command, "echo x > '%s'", yard_path(yard, c->may)) > 0);
        assert_int_equal(run_in(sandbox, c->cwd, command), 0);
        assert_int_equal(write_in(sandbox, c->may), 0);
        assert_true(disk_exists(yard_path(yard, c->may)));
    }
    /* The twin. */
    if (!c->no_wall)
        for (size_t i = 0; i < BLY_LEN(c->may_not) && c->may_not[i]; i++)
            assert_int_equal(write_in(NULL, c->may_not[i]), 0);
}

static int unmake_root(void **state)
{
    const struct root_case *c = *state;
    bly_autofree char *command = NULL;

    assert_true(asprintf(&command, "cd '%s' && { %s; } 2>/dev/null", yard->dir, c->unmake) > 0);
    return system(command) == -1 ? -1 : 0;
}

/* Mounts of the tests are nobody else's. */
static int open_all(void **state)
{
    (void)state;
    if (geteuid() == 0 && have_own_mounts() < 0)
        return -1;
    yard = yard_new();
    server = server_start(NULL);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    server_stop(server);
    yard_free(yard);
    return 0;
}

int main(void)
{
    static struct CMUnitTest tests[BLY_LEN(endings) + BLY_LEN(root_cases)];
    size_t n = 0;

    door_begin();
    ADD_ROWS(tests, n, endings, leave_no_trace);
    for (size_t i = 0; i < BLY_LEN(root_cases); i++)
        tests[n++] = (struct CMUnitTest){.name = root_cases[i].name,
                                         .test_func = protect_root,
                                         .teardown_func = unmake_root,
                                         .initial_state = (void *)(uintptr_t)&root_cases[i]};
    return _cmocka_run_group_tests("escape-trace", tests, n, open_all, close_all);
}
