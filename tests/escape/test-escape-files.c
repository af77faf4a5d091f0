/*
 * Escapes by file requests. Every row is tried three times: without a wall, where it must succeed
 * (else the row proves nothing), and behind two policies, where it must not, and nothing outside
 * may have changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "escape/yard.h"

typedef bool (*attempt_fn)(struct yard *yard, const char *sandbox);

/* ---- what a reply gives away ---- */

/* `more`: further members of params, each followed by a comma. */
static bool call_reveals(struct yard *yard, const char *method, const char *more,
                         const char *sandbox, const char *needle, const char *path)
{
    struct bly_client_error error;
    bly_autofree char *params = NULL, *result = NULL;

    assert_true(asprintf(&params, "{%s\"path\":\"%s\",\"sandbox\":%s}", more, path,
                         sandbox ? sandbox : "null") > 0);
    if (bly_client_call(yard->server->client, method, params, &result, &error) < 0)
        return false;
    return strstr(result, needle) != NULL;
}

static bool read_reveals(struct yard *yard, const char *sandbox, const char *path)
{
    struct bly_client_error error;
    bly_autofree uint8_t *data = NULL;
    size_t len = 0;

    if (bly_client_read_file(yard->server->client, path, sandbox, &data, &len, &error) < 0)
        return false;
    return len == strlen(YARD_SECRET) && memcmp(data, YARD_SECRET, len) == 0;
}

static bool read_plainly(struct yard *yard, const char *sandbox)
{
    return read_reveals(yard, sandbox, server_path(yard->server, "out/secret"));
}

static bool read_through_leaf(struct yard *yard, const char *sandbox)
{
    return read_reveals(yard, sandbox, server_path(yard->server, "ws/leaf"));
}

static bool read_through_parent(struct yard *yard, const char *sandbox)
{
    return read_reveals(yard, sandbox, server_path(yard->server, "ws/parent/secret"));
}

static bool read_through_proc_root(struct yard *yard, const char *sandbox)
{
    bly_autofree char *path = NULL;

    assert_true(asprintf(&path, "/proc/self/root%s/secret", yard->out) > 0);
    return read_reveals(yard, sandbox, path);
}

static bool read_through_proc_link(struct yard *yard, const char *sandbox)
{
    bly_autofree char *target = NULL;

    assert_true(asprintf(&target, "/proc/self/root%s/secret", yard->out) > 0);
    disk_symlink(target, server_path(yard->server, "ws/magic"));
    return read_reveals(yard, sandbox, server_path(yard->server, "ws/magic"));
}

static bool look_at_metadata(struct yard *yard, const char *sandbox)
{
    struct bly_client_metadata metadata;
    struct bly_client_error error;

    return bly_client_metadata(yard->server->client, server_path(yard->server, "out/secret"),
                               sandbox, &metadata, &error) == 0;
}

static bool list_through_parent(struct yard *yard, const char *sandbox)
{
    return call_reveals(yard, "fs/readDirectory", "", sandbox, "victim",
                        server_path(yard->server, "ws/parent"));
}

static bool canonicalize_link(struct yard *yard, const char *sandbox)
{
    return call_reveals(yard, "fs/canonicalize", "", sandbox, "out/secret",
                        server_path(yard->server, "ws/leaf"));
}

static bool walk_through_parent(struct yard *yard, const char *sandbox)
{
    return call_reveals(yard, "fs/walk",
                        "\"options\":{\"maxDepth\":4,\"maxDirectories\":100,\"maxEntries\":100,"
                        "\"followDirectorySymlinks\":true},",
                        sandbox, "victim", yard->ws);
}

static bool open_handle(struct yard *yard, const char *sandbox)
{
    return call_reveals(yard, "fs/open", "\"handleId\":\"h\",", sandbox, "h",
                        server_path(yard->server, "ws/parent/secret"));
}

static bool copy_in(struct yard *yard, const char *sandbox)
{
    struct bly_client_error error;
    const char *copy = server_path(yard->server, "ws/stolen");
    bly_autofree char *text = NULL;

    (void)bly_client_copy(yard->server->client, server_path(yard->server, "out/secret"), copy,
                          false, sandbox, &error);
    text = disk_read(copy);
    return text && strcmp(text, YARD_SECRET) == 0;
}

static bool copy_tree_in(struct yard *yard, const char *sandbox)
{
    struct bly_client_error error;

    (void)bly_client_copy(yard->server->client, server_path(yard->server, "ws/parent/victim"),
                          server_path(yard->server, "ws/stolen"), true, sandbox, &error);
    return disk_exists(server_path(yard->server, "ws/stolen/file"));
}

/* ---- what changes on disk ---- */

static bool write_makes(struct yard *yard, const char *sandbox, const char *path,
                        const char *appears)
{
    struct bly_client_error error;
    bly_autofree char *text = NULL;

    (void)bly_client_write_file(yard->server->client, path, "attacked\n", 9, sandbox, &error);
    text = disk_read(appears);
    return text && strcmp(text, "attacked\n") == 0;
}

static bool write_outside(struct yard *yard, const char *sandbox)
{
    const char *path = server_path(yard->server, "out/new");

    return write_makes(yard, sandbox, path, path);
}

static bool overwrite_outside(struct yard *yard, const char *sandbox)
{
    const char *path = server_path(yard->server, "out/secret");

    return write_makes(yard, sandbox, path, path);
}

static bool write_through_leaf(struct yard *yard, const char *sandbox)
{
    return write_makes(yard, sandbox, server_path(yard->server, "ws/leaf"),
                       server_path(yard->server, "out/secret"));
}

static bool write_through_dangling(struct yard *yard, const char *sandbox)
{
    return write_makes(yard, sandbox, server_path(yard->server, "ws/dangling"),
                       server_path(yard->server, "out/planted"));
}

static bool write_through_parent(struct yard *yard, const char *sandbox)
{
    return write_makes(yard, sandbox, server_path(yard->server, "ws/parent/new"),
                       server_path(yard->server, "out/new"));
}

static bool write_git_config(struct yard *yard, const char *sandbox)
{
    const char *path = server_path(yard->server, "ws/.git/config");

    return write_makes(yard, sandbox, path, path);
}

static bool plant_git_hook(struct yard *yard, const char *sandbox)
{
    const char *path = server_path(yard->server, "ws/.git/x");

    return write_makes(yard, sandbox, path, path);
}

static bool write_git_through_link(struct yard *yard, const char *sandbox)
{
    disk_symlink(".git", server_path(yard->server, "ws/alias"));
    return write_makes(yard, sandbox, server_path(yard->server, "ws/alias/config"),
                       server_path(yard->server, "ws/.git/config"));
}

static bool replace_outside(struct yard *yard, const char *sandbox)
{
    bly_autofree char *text = NULL;

    (void)call_reveals(yard, "fs/open", "\"handleId\":\"r\",\"mode\":\"replace\",", sandbox, "r",
                       server_path(yard->server, "ws/leaf"));
    text = disk_read(server_path(yard->server, "out/secret"));
    return !text || strcmp(text, YARD_SECRET) != 0;
}

static bool make_directory(struct yard *yard, const char *sandbox, const char *path,
                           const char *appears)
{
    struct bly_client_error error;

    (void)bly_client_create_directory(yard->server->client, path, true, sandbox, &error);
    return disk_exists(appears);
}

static bool make_directory_outside(struct yard *yard, const char *sandbox)
{
    const char *path = server_path(yard->server, "out/new");

    return make_directory(yard, sandbox, path, path);
}

static bool make_directory_through_parent(struct yard *yard, const char *sandbox)
{
    return make_directory(yard, sandbox, server_path(yard->server, "ws/parent/new/deep"),
                          server_path(yard->server, "out/new"));
}

static bool make_missing_codex(struct yard *yard, const char *sandbox)
{
    const char *path = server_path(yard->server, "ws/.codex");

    return make_directory(yard, sandbox, path, path);
}

static bool write_missing_codex(struct yard *yard, const char *sandbox)
{
    const char *path = server_path(yard->server, "ws/.codex");

    return write_makes(yard, sandbox, path, path);
}

static bool copy_to(struct yard *yard, const char *sandbox, const char *from, const char *to,
                    const char *appears)
{
    struct bly_client_error error;

    (void)bly_client_copy(yard->server->client, server_path(yard->server, "%s", from),
                          server_path(yard->server, "%s", to), true, sandbox, &error);
    return disk_exists(server_path(yard->server, "%s", appears));
}

static bool copy_out(struct yard *yard, const char *sandbox)
{
    return copy_to(yard, sandbox, "ws/a.txt", "out/copy", "out/copy");
}

static bool copy_out_through_dangling(struct yard *yard, const char *sandbox)
{
    return copy_to(yard, sandbox, "ws/a.txt", "ws/dangling", "out/planted");
}

static bool copy_link_to_missing_codex(struct yard *yard, const char *sandbox)
{
    return copy_to(yard, sandbox, "ws/leaf", "ws/.codex", "ws/.codex");
}

static bool copy_tree_with_git(struct yard *yard, const char *sandbox)
{
    disk_write(server_path(yard->server, "ws/sub/.codex/config.toml"), "evil\n");
    return copy_to(yard, sandbox, "ws/sub/.codex", "ws/.codex", "ws/.codex");
}

static bool remove_gone(struct yard *yard, const char *sandbox, const char *path, const char *gone)
{
    struct bly_client_error error;

    (void)bly_client_remove(yard->server->client, server_path(yard->server, "%s", path), true, true,
                            sandbox, &error);
    return !disk_exists(server_path(yard->server, "%s", gone));
}

static bool remove_outside(struct yard *yard, const char *sandbox)
{
    return remove_gone(yard, sandbox, "out/secret", "out/secret");
}

static bool remove_tree_through_parent(struct yard *yard, const char *sandbox)
{
    return remove_gone(yard, sandbox, "ws/parent/victim", "out/victim/file");
}

static bool remove_git(struct yard *yard, const char *sandbox)
{
    return remove_gone(yard, sandbox, "ws/.git", "ws/.git/config");
}

static bool remove_workspace(struct yard *yard, const char *sandbox)
{
    return remove_gone(yard, sandbox, "ws", "ws/a.txt");
}

static const struct row {
    const char *name;
    attempt_fn attempt;
    bool reads; /* nothing to deny where everything may be read */
} rows[] = {
    {"read a secret outside", read_plainly, true},
    {"read through a symlink", read_through_leaf, true},
    {"read through a symlinked parent", read_through_parent, true},
    {"read through /proc/self/root", read_through_proc_root, true},
    {"read through a planted link into /proc", read_through_proc_link, true},
    {"look at metadata outside", look_at_metadata, true},
    {"list through a symlinked parent", list_through_parent, true},
    {"canonicalize a link to the outside", canonicalize_link, true},
    {"walk through a symlinked directory", walk_through_parent, true},
    {"open a handle through a symlinked parent", open_handle, true},
    {"copy a file in from outside", copy_in, true},
    {"copy a tree in through a symlinked parent", copy_tree_in, true},
    {"write a new file outside", write_outside, false},
    {"overwrite a file outside", overwrite_outside, false},
    {"write through a symlink", write_through_leaf, false},
    {"write through a dangling symlink", write_through_dangling, false},
    {"write through a symlinked parent", write_through_parent, false},
    {"overwrite .git/config", write_git_config, false},
    {"plant a file in .git", plant_git_hook, false},
    {"overwrite .git/config through a link", write_git_through_link, false},
    {"truncate through a replace handle", replace_outside, false},
    {"create a directory outside", make_directory_outside, false},
    {"create a directory through a symlinked parent", make_directory_through_parent, false},
    {"create the missing .codex as a directory", make_missing_codex, false},
    {"create the missing .codex as a file", write_missing_codex, false},
    {"copy a file out", copy_out, false},
    {"copy a file out through a dangling symlink", copy_out_through_dangling, false},
    {"copy a link onto the missing .codex", copy_link_to_missing_codex, false},
    {"copy a tree onto the missing .codex", copy_tree_with_git, false},
    {"remove a file outside", remove_outside, false},
    {"remove a tree through a symlinked parent", remove_tree_through_parent, false},
    {"remove .git", remove_git, false},
    {"remove the workspace with .git in it", remove_workspace, false},
};

enum wall { NO_WALL, RESTRICTED, FULL_READ };

struct trial {
    char name[128];
    const struct row *row;
    enum wall wall;
    struct yard *yard;
};

static int trial_setup(void **state)
{
    struct trial *trial = *state;

    return yard_setup((void **)&trial->yard);
}

static int trial_teardown(void **state)
{
    struct trial *trial = *state;

    return yard_teardown((void **)&trial->yard);
}

static void run_trial(void **state)
{
    struct trial *trial = *state;
    struct yard *yard = trial->yard;

    if (trial->wall == NO_WALL) {
        assert_true(trial->row->attempt(yard, NULL));
        return;
    }
    assert_false(
        trial->row->attempt(yard, trial->wall == RESTRICTED ? yard->restricted : yard->full_read));
    yard_assert_untouched(yard);
    assert_true(disk_exists(server_path(yard->server, "ws/a.txt")));
}

/* "Everything refused" would be a perfect score: what is allowed must work. */
static void allowed_work_succeeds(void **state)
{
    struct trial *trial = *state;
    struct yard *yard = trial->yard;
    struct bly_client *client = yard->server->client;
    const char *const sandboxes[] = {yard->restricted, yard->full_read};
    struct bly_client_error error;

    for (size_t i = 0; i < BLY_LEN(sandboxes); i++) {
        const char *dir = server_path(yard->server, "ws/deep/%zu", i);
        const char *file = server_path(yard->server, "ws/deep/%zu/f", i);
        const char *copy = server_path(yard->server, "ws/deep/%zu/g", i);
        bly_autofree uint8_t *data = NULL;
        size_t len;

        assert_int_equal(bly_client_create_directory(client, dir, true, sandboxes[i], &error), 0);
        assert_int_equal(bly_client_write_file(client, file, "hello", 5, sandboxes[i], &error), 0);
        assert_int_equal(bly_client_copy(client, file, copy, false, sandboxes[i], &error), 0);
        assert_int_equal(bly_client_read_file(client, copy, sandboxes[i], &data, &len, &error), 0);
        assert_int_equal(len, 5);
        assert_int_equal(bly_client_remove(client, copy, false, false, sandboxes[i], &error), 0);
        assert_false(disk_exists(copy));
        /* A link goes, its target stays. */
        assert_int_equal(bly_client_remove(client,
                                           server_path(yard->server, i ? "ws/parent" : "ws/leaf"),
                                           true, true, sandboxes[i], &error),
                         0);
    }
    yard_assert_untouched(yard);
}

int main(void)
{
    static const struct {
        enum wall wall;
        const char *suffix;
    } walls[] = {{NO_WALL, "succeeds without a wall"},
                 {RESTRICTED, "is refused, restricted reading"},
                 {FULL_READ, "is refused, full reading"}};
    static struct trial trials[BLY_LEN(rows) * BLY_LEN(walls) + 1];
    static struct CMUnitTest tests[BLY_LEN(trials)];
    size_t n = 0;

    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        for (size_t j = 0; j < BLY_LEN(walls); j++) {
            struct trial *trial = &trials[n];

            if (rows[i].reads && walls[j].wall == FULL_READ)
                continue;
            (void)snprintf(trial->name, sizeof(trial->name), "%s: %s", rows[i].name,
                           walls[j].suffix);
            trial->row = &rows[i];
            trial->wall = walls[j].wall;
            tests[n++] = (struct CMUnitTest){.name = trial->name,
                                             .test_func = run_trial,
                                             .setup_func = trial_setup,
                                             .teardown_func = trial_teardown,
                                             .initial_state = trial};
        }
    }
    tests[n] = (struct CMUnitTest){.name = "allowed work succeeds",
                                   .test_func = allowed_work_succeeds,
                                   .setup_func = trial_setup,
                                   .teardown_func = trial_teardown,
                                   .initial_state = &trials[n]};
    n++;
    return _cmocka_run_group_tests("escape-files", tests, n, NULL, NULL);
}
