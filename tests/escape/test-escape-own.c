/*
 * Our own processes as the target: server, launcher, spawner, a warm helper and pid 1 of a wall,
 * all alive. File requests for their entries in /proc behind policies that read everything;
 * tracing, reading and signalling them from a program inside a wall, from one without, and from one
 * of another user. Without a wall root gets at all of it, which shows that there is something to
 * get at.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "escape/door.h"
#include "escape/yard.h"
#include "support/server.h"

enum { OTHER_USER = 65533 };

/* In the server's environment, as credentials would be. */
static char marker[] = "BAILEY_TEST_MARKER=" YARD_SECRET "-of-the-server";

static struct yard *yard;
static struct door door;
static struct server *server; /* behind the door */

/* ---- who is there ---- */

enum role { SERVER, LAUNCHER, SPAWNER, HELPER, PID_1, N_ROLES };

static const struct {
    const char *name;
    const char *comm; /* NULL: known otherwise */
} roles[N_ROLES] = {[SERVER] = {"the server", NULL},
                    [LAUNCHER] = {"the launcher", "bailey-launcher"},
                    [SPAWNER] = {"a spawner", "bailey-spawner"},
                    [HELPER] = {"a helper", "bailey-helper"},
                    [PID_1] = {"a wall's pid 1", "bailey-init"}};

static pid_t pids[N_ROLES];

/* Parent and name of a process; 0 when it has gone. */
static pid_t look_at(pid_t pid, char comm[static 32])
{
    char path[64];
    bly_autofree char *text = NULL;
    const char *open, *close;
    int parent = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    text = disk_read(path);
    open = text ? strchr(text, '(') : NULL;
    close = open ? strrchr(open, ')') : NULL;
    if (!close || sscanf(close, ") %*c %d", &parent) != 1)
        return 0;
    (void)snprintf(comm, 32, "%.*s", (int)(close - open - 1), open + 1);
    return parent;
}

static bool descends_from(pid_t pid, pid_t ancestor)
{
    char comm[32];

    while (pid > 1 && pid != ancestor)
        pid = look_at(pid, comm);
    return pid == ancestor;
}

static pid_t find_role(const char *want)
{
    DIR *proc = opendir("/proc");
    pid_t found = 0;

    assert_non_null(proc);
    for (struct dirent *entry; !found && (entry = readdir(proc));) {
        pid_t pid = isdigit((unsigned char)entry->d_name[0]) ? (pid_t)atoi(entry->d_name) : 0;
        char comm[32];

        if (pid > 0 && look_at(pid, comm) > 0 && strcmp(comm, want) == 0 &&
            descends_from(pid, server->pid))
            found = pid;
    }
    (void)closedir(proc);
    return found;
}

/* A helper that has answered, and a program that sleeps in a wall. */
static void bring_to_life(void)
{
    const struct question question = {
        .kind = ASK_METADATA, .path = yard->ws, .sandbox = yard->plain[FULL_READ]};
    bly_autofree char *params = NULL, *result = NULL;
    struct bly_client_error error;
    auto_answer struct answer answer = {0};

    door.ask(&door, &question, &answer);
    if (answer.code != 0)
        fail_msg("no helper: %s", answer.message);
    assert_true(asprintf(&params,
                         "{\"processId\":\"sleeper\",\"argv\":[\"/bin/sleep\",\"1000\"],\"cwd\":"
                         "\"/\",\"env\":{},\"tty\":false,\"sandbox\":%s}",
                         yard->plain[FULL_READ]) > 0);
    if (bly_client_call(server->client, "process/start", params, &result, &error) < 0)
        fail_msg("no program: %s", error.message);

    pids[SERVER] = server->pid;
    for (int i = 0; i < N_ROLES; i++) {
        if (roles[i].comm)
            pids[i] = find_role(roles[i].comm);
        if (pids[i] == 0)
            fail_msg("%s is not there", roles[i].name);
    }
}

static void assert_all_alive(void)
{
    char comm[32];

    for (int i = 0; i < N_ROLES; i++)
        if (look_at(pids[i], comm) == 0 || (roles[i].comm && strcmp(comm, roles[i].comm) != 0))
            fail_msg("%s did not survive", roles[i].name);
}

/* ---- file requests ---- */

enum {
    FOR_ALL = 1, /* what everybody may read about every process, as the twin shows */
    NO_TWIN = 2, /* nothing comes of it without a wall either */
};

static const struct entry {
    const char *name, *file;
    enum question_kind kind;
    unsigned flags;
} entries[] = {
    {"status", "status", ASK_READ, FOR_ALL},
    {"arguments", "cmdline", ASK_READ, FOR_ALL},
    {"environment", "environ", ASK_READ, 0},
    {"map", "maps", ASK_READ, 0},
    {"map, by blocks", "maps", ASK_READ_BLOCK, NO_TWIN},
    {"memory", "mem", ASK_READ, NO_TWIN},
    {"memory, by blocks", "mem", ASK_READ_BLOCK, NO_TWIN},
    {"descriptors", "fd", ASK_LIST, 0},
    {"first descriptor", "fd/3", ASK_READ, NO_TWIN},
    {"root", "root", ASK_LIST, 0},
    {"working directory", "cwd", ASK_LIST, 0},
    {"root, deeper", "root/proc/self/environ", ASK_READ, NO_TWIN},
};

static const struct {
    enum wall wall;
    const char *name;
} walls[] = {{NO_WALL, "no wall"}, {RESTRICTED, "restricted"}, {FULL_READ, "full reading"}};

struct trial {
    char name[128];
    enum role role;
    const struct entry *entry;
    enum wall wall;
};

static void ask(const char *path, enum question_kind kind, enum wall wall, struct answer *answer)
{
    const struct question question = {.kind = kind, .path = path, .sandbox = yard->plain[wall]};

    door.ask(&door, &question, answer);
}

/* As an ordinary user even we cannot look at our own: they are not dumpable. But the server is
 * itself when it is asked about itself. */
static void check_twin(const struct trial *trial, const struct answer *answer)
{
    if (geteuid() == 0 || (trial->entry->flags & FOR_ALL)) {
        if (answer->code != 0)
            fail_msg("without a wall: %d %s", answer->code, answer->message);
    } else if (trial->role != SERVER) {
        assert_int_not_equal(answer->code, 0);
    }
    if (geteuid() == 0 && trial->role == SERVER && strcmp(trial->entry->file, "environ") == 0)
        assert_true(answer_reveals(answer, marker));
}

static void ask_about_our_own(void **state)
{
    const struct trial *trial = *state;
    auto_answer struct answer answer = {0};
    char path[128];

    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pids[trial->role], trial->entry->file);
    ask(path, trial->entry->kind, trial->wall, &answer);
    if (trial->wall == NO_WALL) {
        check_twin(trial, &answer);
    } else {
        assert_int_not_equal(answer.code, 0);
        assert_false(answer_reveals(&answer, YARD_SECRET));
    }
    assert_all_alive();
}

/* Whoever answers is "self" to /proc: a helper, of which nothing is shown. */
static void ask_about_self(void **state)
{
    static const char *const selves[] = {"self", "thread-self", "1", "self/task/1"};
    static const char *const files[] = {"environ", "maps",    "smaps", "auxv", "mem",
                                        "fd/4",    "cmdline", "stat",  "none"};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(selves) * BLY_LEN(files) * 4; i++) {
        const char *file = files[i / 4 / BLY_LEN(selves)];
        const enum question_kind kind = i % 2 ? ASK_READ : ASK_READ_BLOCK;
        const enum wall wall = i / 2 % 2 ? FULL_READ : RESTRICTED;
        auto_answer struct answer answer = {0};
        char path[128];

        (void)snprintf(path, sizeof(path), "/proc/%s/%s", selves[i / 4 % BLY_LEN(selves)], file);
        ask(path, kind, wall, &answer);
        if (answer_reveals(&answer, YARD_SECRET) || answer_reveals(&answer, "exec-server"))
            fail_msg("%s: %s", path, answer.data);
        if (answer.code == 0)
            fail_msg("%s can be read", path);
    }
    assert_all_alive();
}

/* The twin: without a wall it is the server that answers. */
static void without_a_wall_self_is_the_server(void **state)
{
    auto_answer struct answer answer = {0};

    (void)state;
    ask("/proc/self/cmdline", ASK_READ, NO_WALL, &answer);
    assert_int_equal(answer.code, 0);
    assert_true(answer_reveals(&answer, "exec-server"));
}

/* ---- programs ---- */

static const char *const verbs[] = {"kill", "pidfd-signal", "ptrace", "process-vm"};

enum { N_SIGNALS = 2 }; /* of the verbs; the others look inside */

/* The attacker's exit status: 0 got through, 1 was refused. */
static int attack_through_server(const char *verb, pid_t pid, enum wall wall)
{
    char number[16];
    const char *argv[] = {yard_path(yard, "ws/attacker"), verb, number, NULL};
    const char *envp[] = {NULL};
    const struct bly_client_run run = {
        .argv = argv, .envp = envp, .cwd = yard->ws, .sandbox_json = yard->sandbox[wall]};
    struct bly_client_exit result;
    struct bly_client_error error;

    (void)snprintf(number, sizeof(number), "%d", (int)pid);
    if (bly_client_run(server->client, &run, &result, &error) < 0)
        fail_msg("%s: %s", verb, error.message);
    return result.exit_code;
}

static void programs_behind_a_wall(void **state)
{
    (void)state;
    for (int role = 0; role < N_ROLES; role++)
        for (size_t i = 0; i < BLY_LEN(verbs); i++)
            for (enum wall wall = RESTRICTED; wall < N_WALLS; wall++)
                if (attack_through_server(verbs[i], pids[role], wall) != 1)
                    fail_msg("%s %s", verbs[i], roles[role].name);
    assert_all_alive();
}

/* The twin. A user's own programs may send signals to the user's processes, but look into none. */
static void programs_without_a_wall(void **state)
{
    (void)state;
    for (int role = 0; role < N_ROLES; role++)
        for (size_t i = 0; i < BLY_LEN(verbs); i++) {
            bool allowed = geteuid() == 0 || i < N_SIGNALS;

            if (attack_through_server(verbs[i], pids[role], NO_WALL) != (allowed ? 0 : 1))
                fail_msg("%s %s is %s", verbs[i], roles[role].name,
                         allowed ? "refused" : "allowed");
        }
    assert_all_alive();
}

static _Noreturn void attack_as(uid_t uid, const char *verb, pid_t pid)
{
    int fd = open(yard_path(yard, "ws/attacker"), O_RDONLY | O_CLOEXEC);
    char number[16], name[32];
    char *argv[] = {name, name, number, NULL};
    char *envp[] = {NULL};

    (void)snprintf(name, sizeof(name), "%s", verb);
    (void)snprintf(number, sizeof(number), "%d", (int)pid);
    if (fd < 0 || setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 ||
        setresuid(uid, uid, uid) < 0)
        _exit(120);
    (void)fexecve(fd, argv, envp);
    _exit(121);
}

static void programs_of_another_user(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("only root can become another user\n");
        return;
    }
    for (int role = 0; role < N_ROLES; role++)
        for (size_t i = 0; i < BLY_LEN(verbs); i++) {
            pid_t pid = fork();
            int status;

            if (pid == 0)
                attack_as(OTHER_USER, verbs[i], pids[role]);
            assert_int_equal(waitpid(pid, &status, 0), pid);
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 1)
                fail_msg("%s %s: status %#x", verbs[i], roles[role].name, status);
        }
    assert_all_alive();
}

/* ---- all of them ---- */

static int open_all(void **state)
{
    (void)state;
    if (putenv(marker) != 0)
        return -1;
    yard = yard_new();
    yard_reset(yard);
    yard_bring_program(yard, getenv("ATTACKER"), "ws/attacker", 0755);
    door = door_remote;
    door.open(&door);
    server = door.self;
    bring_to_life();
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    door.close(&door);
    yard_free(yard);
    return 0;
}

static const struct CMUnitTest others[] = {
    cmocka_unit_test(ask_about_self),           cmocka_unit_test(without_a_wall_self_is_the_server),
    cmocka_unit_test(programs_behind_a_wall),   cmocka_unit_test(programs_without_a_wall),
    cmocka_unit_test(programs_of_another_user),
};

int main(void)
{
    static struct trial trials[N_ROLES * BLY_LEN(entries) * BLY_LEN(walls)];
    static struct CMUnitTest tests[BLY_LEN(trials) + BLY_LEN(others)];
    size_t n = 0;

    door_begin();
    for (size_t i = 0; i < BLY_LEN(trials); i++) {
        const enum role role = (enum role)(i / BLY_LEN(walls) / BLY_LEN(entries));
        const struct entry *entry = &entries[i / BLY_LEN(walls) % BLY_LEN(entries)];
        const enum wall wall = walls[i % BLY_LEN(walls)].wall;

        if (wall == NO_WALL && (entry->flags & NO_TWIN))
            continue;
        trials[n] = (struct trial){.role = role, .entry = entry, .wall = wall};
        (void)snprintf(trials[n].name, sizeof(trials[n].name), "%s of %s: %s", entry->name,
                       roles[role].name, walls[i % BLY_LEN(walls)].name);
        tests[n] = (struct CMUnitTest){
            .name = trials[n].name, .test_func = ask_about_our_own, .initial_state = &trials[n]};
        n++;
    }
    for (size_t i = 0; i < BLY_LEN(others); i++)
        tests[n++] = others[i];
    return _cmocka_run_group_tests("escape-own", tests, n, open_all, close_all);
}
