/*
 * Walls, built for real. Every attempt has a twin: the same code without a wall must succeed, or
 * the test would not notice an attempt that never works. Runs as whoever runs the test, and for
 * root once more as an ordinary user.
 */
#include "yard.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

enum {
    H = BLY_FOR_HELPER,
    P = BLY_FOR_PROCESS,
    DENIED = 250,  /* EACCES, EPERM or EROFS */
    ROOT_ONLY = 1, /* the twin needs root */
    NO_TWIN = 2,   /* a control, or a look that only makes sense inside */
};

/* ---- attempts: 0 or errno ---- */

static int read_secret_by_link(void)
{
    return try_open(yard_path("w/link/secret"), O_RDONLY);
}
static int create_beside(void)
{
    return try_open(yard_path("new"), O_CREAT | O_WRONLY);
}
static int create_by_link(void)
{
    return try_open(yard_path("w/link/new"), O_CREAT | O_WRONLY);
}
static int create_at_root(void)
{
    int r = try_open("/bly-test-zz", O_CREAT | O_WRONLY);

    if (r == 0)
        (void)unlink("/bly-test-zz");
    return r;
}
static int write_file_root(void)
{
    return try_open(yard_path("w/file"), O_WRONLY | O_TRUNC);
}
static int write_git(void)
{
    return try_open(yard_path("w/.git/config"), O_WRONLY);
}
static int create_hook(void)
{
    return try_open(yard_path("w/.git/hook"), O_CREAT | O_WRONLY);
}
static int read_git(void)
{
    return try_open(yard_path("w/.git/config"), O_RDONLY);
}
static int unlink_git(void)
{
    return unlink(yard_path("w/.git/config")) < 0 ? errno : 0;
}
static int chmod_git(void)
{
    return chmod(yard_path("w/.git/config"), 0600) < 0 ? errno : 0;
}
static int read_denied(void)
{
    return try_open(yard_path("w/p/hidden"), O_RDONLY);
}
static int list_denied(void)
{
    return try_open(yard_path("w/p"), O_RDONLY | O_DIRECTORY);
}
static int write_island(void)
{
    return try_open(yard_path("w/p/open/x"), O_CREAT | O_WRONLY);
}
static int create_in_mask(void)
{
    return try_open(yard_path("w/p/x"), O_CREAT | O_WRONLY);
}
static int read_denied_file(void)
{
    return try_open(yard_path("w/file"), O_RDONLY);
}
static int write_docs(void)
{
    return try_open(yard_path("w/docs/page"), O_WRONLY);
}
static int read_docs(void)
{
    return try_open(yard_path("w/docs/page"), O_RDONLY);
}

static int rename_in_yard(const char *from, const char *to)
{
    char old[512];

    (void)snprintf(old, sizeof(old), "%s", yard_path(from));
    return rename(old, yard_path(to)) < 0 ? errno : 0;
}

static int rename_git(void)
{
    return rename_in_yard("w/.git", "w/x");
}
static int rename_ancestor(void)
{
    return rename_in_yard("w/a", "w/z");
}
static int rename_workspace(void)
{
    return rename_in_yard("w", "z");
}
static int replace_link(void)
{
    return unlink(yard_path("w/link")) < 0 ? errno : 0;
}

static int hard_link_out(void)
{
    char old[512];

    (void)snprintf(old, sizeof(old), "%s", yard_path("out/secret"));
    return link(old, yard_path("w/hard")) < 0 ? errno : 0;
}

static int by_proc_root(void)
{
    char path[600];

    (void)snprintf(path, sizeof(path), "/proc/self/root%s", yard_path("out/secret"));
    return try_open(path, O_RDONLY);
}

/* What is mounted over the root shows to those who go up from there. */
static int above_root(void)
{
    char path[600];

    (void)snprintf(path, sizeof(path), "/..%s", yard_path("out/secret"));
    return try_open(path, O_RDONLY);
}

static int see_bystander(void)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/environ", yard_bystander);
    return try_open(path, O_RDONLY);
}

static int signal_bystander(void)
{
    return kill(yard_bystander, 0) < 0 ? errno : 0;
}
/* Its mount is writable: only the second wall is in the way. */
static int proc_of_its_own(void)
{
    /* Kernels without the Landlock that is needed have just the first wall. */
    if (bly_wall_landlock_abi() < 2 && getpid() <= 2)
        return EACCES;
    return try_open("/proc/self/comm", O_WRONLY);
}
static int device_dir(void)
{
    int r = try_open("/dev/bly-test", O_CREAT | O_WRONLY);

    if (r == 0)
        (void)unlink("/dev/bly-test");
    return r;
}
static int use_null(void)
{
    return try_open("/dev/null", O_WRONLY | O_TRUNC);
}
static int use_shm(void)
{
    return try_open("/dev/shm/bly-x", O_CREAT | O_WRONLY);
}

static int do_mount(void)
{
    int r = mount("none", yard_path("w/docs"), "tmpfs", 0, NULL) < 0 ? errno : 0;

    if (r == 0)
        (void)umount2(yard_path("w/docs"), MNT_DETACH);
    return r;
}

static int do_unshare(void)
{
    return unshare(CLONE_NEWUSER) < 0 ? errno : 0;
}
static int do_ptrace(void)
{
    return ptrace(PTRACE_TRACEME, 0, 0, 0) < 0 ? errno : 0;
}
static int inet_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0;
}
static int datagram_socket(void)
{
    return socket(AF_UNIX, SOCK_DGRAM, 0) < 0 ? errno : 0;
}
static int fork_and_exec(void)
{
    pid_t pid = fork();
    int status = 1;

    if (pid == 0)
        _exit(do_exec());
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : YARD_STUCK;
}

static int pass_descriptors(void)
{
    int pair[2];

    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 ? errno : 0;
}

/* ---- looks at oneself: 0 when all is as it should be ---- */

static bool status_has(const char *line)
{
    static char status[8192];
    bly_autofd int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, status, sizeof(status) - 1);

    if (n < 0)
        return false;
    status[n] = '\0';
    return strstr(status, line) != NULL;
}

static int has_no_privilege(void)
{
    static const char *const lines[] = {"CapInh:\t0000000000000000\n",
                                        "CapPrm:\t0000000000000000\n",
                                        "CapEff:\t0000000000000000\n",
                                        "CapBnd:\t0000000000000000\n",
                                        "CapAmb:\t0000000000000000\n",
                                        "NoNewPrivs:\t1\n",
                                        "Seccomp:\t2\n"};

    for (size_t i = 0; i < BLY_LEN(lines); i++)
        if (!status_has(lines[i]))
            return 1 + (int)i;
    if (prctl(PR_GET_SECUREBITS) != 0xef)
        return 99;
    return 0;
}

static int sees_few_processes(void)
{
    DIR *dir = opendir("/proc");
    const struct dirent *entry;
    int n = 0;

    if (!dir)
        return errno;
    while ((entry = readdir(dir)) != NULL) /* NOLINT(concurrency-mt-unsafe) */
        n += entry->d_name[0] >= '0' && entry->d_name[0] <= '9';
    (void)closedir(dir);
    return n <= 2 ? 0 : n;
}

/* Every mount of a restricted view is one that was asked for, and the private ones are read-only.
 */
static int mounts_are_ours(void)
{
    static const char *const ours[] = {"/dev", "/proc", "/usr", "/etc", "/bin", "/sbin", "/lib"};
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[1024], point[512], options[128];
    int r = file ? 0 : errno;

    while (r == 0 && fgets(line, sizeof(line), file)) {
        bool known = false;

        if (sscanf(line, "%*s %*s %*s %*s %511s %127s", point, options) != 2)
            r = 1;
        for (size_t i = 0; i < BLY_LEN(ours); i++)
            known = known || strncmp(point, ours[i], strlen(ours[i])) == 0;
        bool workspace = bly_path_is_within(point, yard_path("w"));

        if (!known && !workspace && strcmp(point, "/") != 0)
            r = 2;
        /* The workspace itself may be on a tmpfs: Debian 13 has one at /tmp. */
        if (strstr(line, " - tmpfs ") && strcmp(point, "/dev/shm") != 0 && !workspace &&
            strncmp(options, "ro,", 3) != 0)
            r = 3;
        if (!strstr(options, "nosuid"))
            r = 4;
    }
    if (file)
        (void)fclose(file);
    return r;
}

static int holds_no_descriptors(void)
{
    for (int fd = 3; fd < 256; fd++)
        if (fcntl(fd, F_GETFD) >= 0 && fcntl(fd, F_GETFD) != FD_CLOEXEC)
            return fd;
    return 0;
}

#define FULL   "read /; write @w"
#define NARROW "minimal; write @w"
#define PARTS \
    "read /; write @w; deny @w/p; write @w/p/open; read @w/docs; read @w/a/b/c; deny @w/file"

static const struct wall_case {
    const char *name;
    yard_attempt attempt;
    int purpose;
    const char *policy;
    int expected;
    int flags;
} cases[] = {
    {"a process writes into the workspace", create_inside, P, FULL, 0},
    {"a process reads what is outside, if it may", read_secret, P, FULL, 0},
    {"a process reads .git", read_git, P, FULL, 0},
    {"a process executes", fork_and_exec, P, FULL, 0},
    {"a process executes under restricted reading", fork_and_exec, P, NARROW, 0},
    {"a process uses /dev/null", use_null, P, NARROW, 0},
    {"a process uses shared memory", use_shm, P, NARROW, 0, NO_TWIN},
    {"a process talks to itself", pass_descriptors, P, NARROW, 0},
    {"a process writes an island in a denied directory", write_island, P, PARTS, 0},
    {"a process writes a single granted file", write_file_root, P, "minimal; write @w/file", 0},

    {"reading outside", read_secret, P, NARROW, ENOENT},
    {"reading outside through a planted link", read_secret_by_link, P, NARROW, ENOENT},
    {"reading outside through /proc/self/root", by_proc_root, P, NARROW, ENOENT},
    {"reading outside above the root", above_root, P, NARROW, ENOENT},
    {"writing outside", write_secret, P, FULL, EROFS},
    {"writing outside, hidden", write_secret, P, NARROW, ENOENT},
    {"creating outside", create_outside, P, FULL, EROFS},
    {"creating outside through a planted link", create_by_link, P, FULL, EROFS},
    {"creating beside the workspace", create_beside, P, NARROW, EROFS},
    {"creating at the root", create_at_root, P, NARROW, EROFS, ROOT_ONLY},
    {"writing .git/config", write_git, P, FULL, EROFS},
    {"planting a hook", create_hook, P, FULL, EROFS},
    {"changing the mode of .git/config", chmod_git, P, FULL, EROFS},
    {"removing .git/config", unlink_git, P, FULL, EROFS},
    {"moving .git away", rename_git, P, FULL, EBUSY},
    {"moving the workspace away", rename_workspace, P, FULL, DENIED},
    {"linking something from outside", hard_link_out, P, FULL, EXDEV},
    {"reading in a denied directory", read_denied, P, PARTS, ENOENT},
    {"listing a denied directory", list_denied, P, PARTS, EACCES},
    {"creating in a denied directory", create_in_mask, P, PARTS, EROFS},
    {"reading a denied file", read_denied_file, P, PARTS, EACCES},
    {"writing a read-only part", write_docs, P, PARTS, EROFS},
    {"moving an ancestor of a read-only part", rename_ancestor, P, PARTS, EBUSY},
    {"seeing another process", see_bystander, P, FULL, ENOENT},
    {"signalling another process", signal_bystander, P, FULL, ESRCH},
    {"changing a kernel setting", kernel_setting, P, FULL, DENIED, ROOT_ONLY},
    {"writing below /proc, where mounts allow it", proc_of_its_own, P, FULL, EACCES},
    {"creating in /dev", device_dir, P, FULL, DENIED, ROOT_ONLY},
    {"mounting", do_mount, P, FULL, EPERM, ROOT_ONLY},
    {"a nested user namespace", do_unshare, P, FULL, EPERM},
    {"ptrace", do_ptrace, P, FULL, EPERM},
    {"a TCP socket", inet_socket, P, FULL, EPERM},
    {"a UNIX datagram socket", datagram_socket, P, FULL, EPERM},
    {"a TCP socket with the network on", inet_socket, P, "online; " FULL, 0},
    {"ptrace with the network on", do_ptrace, P, "online; " FULL, EPERM},

    {"no privilege is left", has_no_privilege, P, FULL, 0, NO_TWIN},
    {"the own processes are all there are", sees_few_processes, P, FULL, 0, NO_TWIN},
    {"the mounts of a restricted view", mounts_are_ours, P, NARROW, 0, NO_TWIN},
    {"the wall leaves no descriptor behind", holds_no_descriptors, P, FULL, 0, NO_TWIN},

    {"network only: everything else works", create_outside, P, "unrestricted", 0},
    {"network only: sockets", inet_socket, P, "unrestricted", EPERM},
    {"network only: another process", see_bystander, P, "unrestricted", ENOENT},
    {"network only: ptrace", do_ptrace, P, "unrestricted", EPERM},
    {"network only: mounting", do_mount, P, "unrestricted", EPERM, ROOT_ONLY},
    {"network only: kernel settings", kernel_setting, P, "unrestricted", DENIED, ROOT_ONLY},
    {"network only: above the root", above_root, P, "unrestricted", 0},

    {"a helper writes into the workspace", create_inside, H, FULL, 0},
    {"a helper reads what is outside, if it may", read_secret, H, FULL, 0},
    {"a helper writes a single granted file", write_file_root, H, "write @w/file", 0},
    {"helper: reading outside", read_secret, H, NARROW, ENOENT},
    {"helper: reading through a planted link", read_secret_by_link, H, NARROW, ENOENT},
    {"helper: reading above the root", above_root, H, NARROW, ENOENT},
    {"helper: writing outside", write_secret, H, FULL, EROFS},
    {"helper: creating beside the workspace", create_beside, H, NARROW, EROFS},
    {"helper: writing .git/config", write_git, H, FULL, EROFS},
    {"helper: writing a read-only part", write_docs, H, PARTS, EROFS},
    {"helper: reading a read-only part", read_docs, H, PARTS, 0},
    {"helper: reading a denied file", read_denied_file, H, PARTS, EACCES},
    {"helper: another process", see_bystander, H, FULL, ENOENT},
    {"helper: kernel settings", kernel_setting, H, FULL, DENIED, ROOT_ONLY},
    {"helper: sockets", inet_socket, H, FULL, YARD_KILLED},
    {"helper: executing", do_exec, H, FULL, YARD_KILLED},
    {"helper: ptrace", do_ptrace, H, FULL, YARD_KILLED},
};

static bool is_as_expected(int got, int expected)
{
    if (expected == DENIED)
        return got == EACCES || got == EPERM || got == EROFS || got == EBUSY;
    return got == expected;
}

static int run_walled(const void *arg)
{
    const struct wall_case *c = arg;

    return yard_run_policy(c->policy, (enum bly_purpose)c->purpose, c->attempt);
}

static int run_free(const void *arg)
{
    const struct wall_case *c = arg;

    return yard_run_free(c->attempt);
}

static void check_as(uid_t uid, const struct wall_case *c)
{
    int got = yard_run_as(uid, run_walled, c);

    if (!is_as_expected(got, c->expected))
        fail_msg("as uid %u: %d instead of %d, %s", uid, got, c->expected, yard_error);
    yard_remove();
    if ((c->flags & NO_TWIN) || ((c->flags & ROOT_ONLY) && uid != 0))
        return;
    got = yard_run_as(uid, run_free, c);
    if (got != 0 && c->attempt != do_exec)
        fail_msg("the twin without a wall, as uid %u: %d", uid, got);
    yard_remove();
}

static void check_case(void **state)
{
    check_as(getuid(), *state);
    if (getuid() == 0 && yard_user_may_try())
        check_as(YARD_NOBODY, *state);
}

/* ---- the disk changes between plan and wall ---- */

static void exchanged_root_is_refused(void **state)
{
    struct bly_plan *plan;

    (void)state;
    yard_make();
    plan = yard_plan(FULL, BLY_FOR_HELPER);
    assert_non_null(plan);
    assert_int_equal(yard_run(plan, BLY_FOR_HELPER, yard_nothing), 0);
    assert_int_equal(rename_in_yard("w", "w2"), 0);
    assert_int_equal(symlink("out", yard_path("w")), 0);
    assert_int_equal(yard_run(plan, BLY_FOR_HELPER, yard_nothing), YARD_NO_WALL);
    assert_int_equal(unlink(yard_path("w")), 0);
    assert_int_equal(mkdir(yard_path("w"), 0755), 0);
    assert_int_equal(yard_run(plan, BLY_FOR_HELPER, yard_nothing), YARD_NO_WALL);
    assert_non_null(strstr(yard_error, "replaced by something else"));
    assert_int_equal(bly_plan_fits(plan, &bly_probe_disk), BLY_PLAN_STALE);
    bly_plan_free(plan);
    yard_remove();
}

static void exchanged_ancestor_is_refused(void **state)
{
    struct bly_plan *plan;

    (void)state;
    yard_make();
    plan = yard_plan("read /; write @w/a/b", BLY_FOR_HELPER);
    assert_non_null(plan);
    assert_int_equal(rename_in_yard("w/a", "w/z"), 0);
    assert_int_equal(symlink("z", yard_path("w/a")), 0);
    assert_int_equal(yard_run(plan, BLY_FOR_HELPER, yard_nothing), YARD_NO_WALL);
    bly_plan_free(plan);
    yard_remove();
}

/* Root, a writable one, and a read-only mount in it: set-user-id files and devices mean nothing. */
static int lacks_nosuid_or_nodev(void)
{
    static const char *const names[] = {"", "w", "w/.git"};

    for (size_t i = 0; i < BLY_LEN(names); i++) {
        struct statvfs fs;

        if (statvfs(names[i][0] ? yard_path(names[i]) : "/", &fs) < 0)
            return errno;
        if (!(fs.f_flag & ST_NOSUID) || !(fs.f_flag & ST_NODEV))
            return YARD_STUCK;
    }
    return 0;
}

static void all_mounts_are_quiet(void **state)
{
    (void)state;
    yard_make();
    if (yard_run_free(lacks_nosuid_or_nodev) == 0) { /* so is the host already */
        yard_remove();
        skip();
    }
    assert_int_equal(yard_run_policy(FULL, BLY_FOR_HELPER, lacks_nosuid_or_nodev), 0);
    assert_int_equal(yard_run_policy(NARROW, BLY_FOR_HELPER, lacks_nosuid_or_nodev), 0);
    assert_int_equal(yard_run_policy(FULL, BLY_FOR_PROCESS, lacks_nosuid_or_nodev), 0);
    yard_remove();
}

static void symlinked_git_is_pinned(void **state)
{
    struct bly_plan *plan;

    (void)state;
    yard_make();
    assert_int_equal(rename_in_yard("w/.git", "w/real"), 0);
    assert_int_equal(unlink(yard_path("w/link")), 0);
    assert_int_equal(symlink("real", yard_path("w/.git")), 0);
    assert_int_equal(symlink("real", yard_path("w/link")), 0);
    plan = yard_plan(FULL, BLY_FOR_PROCESS);
    assert_non_null(plan);
    assert_int_equal(yard_run(plan, BLY_FOR_PROCESS, read_git), 0);
    assert_int_equal(yard_run(plan, BLY_FOR_PROCESS, write_git), EROFS);
    assert_int_equal(yard_run(plan, BLY_FOR_PROCESS, rename_git), EBUSY);
    assert_int_equal(yard_run(plan, BLY_FOR_PROCESS, replace_link),
                     0); /* an ordinary link is not */
    bly_plan_free(plan);
    yard_remove();
}

static int read_only_mount(void)
{
    struct bly_plan *plan;
    int r;

    if (have_own_mounts() < 0 || mount("none", yard_path("w"), "tmpfs", MS_RDONLY, NULL) < 0)
        return YARD_STUCK;
    plan = yard_plan(FULL, BLY_FOR_HELPER);
    r = plan ? yard_run(plan, BLY_FOR_HELPER, yard_nothing) : YARD_NO_PLAN;
    bly_plan_free(plan);
    return r;
}

static void read_only_mounts_cannot_be_granted(void **state)
{
    (void)state;
    if (getuid() != 0)
        skip();
    yard_make();
    assert_int_equal(yard_run_free(read_only_mount), YARD_NO_WALL);
    assert_non_null(strstr(yard_error, "mounted read-only on the host"));
    yard_remove();
}

static int write_second_git(void)
{
    return try_open(yard_path("out/dir/.git/config"), O_WRONLY);
}

/* A bind mount of the workspace must not be a way around its read-only parts. */
static int second_mount_git(void)
{
    char old[512];
    struct bly_plan *plan;
    int r;

    (void)snprintf(old, sizeof(old), "%s", yard_path("w"));
    if (have_own_mounts() < 0 || mount(old, yard_path("out/dir"), NULL, MS_BIND, NULL) < 0)
        return YARD_STUCK;
    if (write_second_git() != 0)
        return YARD_STUCK;
    plan = yard_plan("read /; write @w; write @out", BLY_FOR_HELPER);
    r = plan ? yard_run(plan, BLY_FOR_HELPER, write_second_git) : YARD_NO_PLAN;
    bly_plan_free(plan);
    return r;
}

static void second_mounts_are_restricted(void **state)
{
    (void)state;
    if (getuid() != 0)
        skip();
    yard_make();
    assert_int_equal(yard_run_free(second_mount_git), EROFS);
    yard_remove();
}

#ifdef BLY_FAULTS
/* Breaks each step once: the wall must say so and nothing may run behind it. */
static void each_step_is_needed(const char *policy, enum bly_purpose purpose, unsigned at_least)
{
    struct bly_plan *plan;
    unsigned step = 1;
    int r;

    yard_make();
    plan = yard_plan(policy, purpose);
    assert_non_null(plan);
    for (;; step++) {
        bly_wall_fail_at(step);
        yard_error[0] = '\0';
        r = yard_run(plan, purpose, create_inside);
        if (r == 0)
            break;
        assert_int_equal(r, YARD_NO_WALL);
        assert_non_null(strstr(yard_error, "injected failure"));
        assert_int_equal(access(yard_path("w/new"), F_OK), -1);
    }
    bly_wall_fail_at(0);
    assert_true(step > at_least);
    bly_plan_free(plan);
    yard_remove();
}

static void each_step_of_a_helper_is_needed(void **state)
{
    (void)state;
    each_step_is_needed(FULL, BLY_FOR_HELPER, 9);
}

static void each_step_of_a_process_is_needed(void **state)
{
    (void)state;
    each_step_is_needed(NARROW, BLY_FOR_PROCESS, 15);
}
#endif

int main(void)
{
    const struct CMUnitTest others[] = {
#ifdef BLY_FAULTS
        cmocka_unit_test(each_step_of_a_helper_is_needed),
        cmocka_unit_test(each_step_of_a_process_is_needed),
#endif
        cmocka_unit_test(exchanged_root_is_refused),
        cmocka_unit_test(exchanged_ancestor_is_refused),
        cmocka_unit_test(all_mounts_are_quiet),
        cmocka_unit_test(symlinked_git_is_pinned),
        cmocka_unit_test(read_only_mounts_cannot_be_granted),
        cmocka_unit_test(second_mounts_are_restricted),
    };
    struct CMUnitTest tests[BLY_LEN(cases) + BLY_LEN(others)] = {0};
    int r = yard_begin(FULL);

    if (r != 0)
        return r;
    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        union {
            const void *in;
            void *out;
        } state = {&cases[i]};

        tests[i] = (struct CMUnitTest){
            .name = cases[i].name, .test_func = check_case, .initial_state = state.out};
    }
    memcpy(tests + BLY_LEN(cases), others, sizeof(others));
#ifdef BLY_FAULTS
    cmocka_set_test_filter("each_step_*"); /* the rest runs in the build without injection */
#endif
    return yard_end(cmocka_run_group_tests(tests, NULL, NULL));
}
