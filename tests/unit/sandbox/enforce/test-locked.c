/*
 * Walls on the second rung, Landlock and a filter without namespaces, built for real and attacked
 * directly: no decision of a helper is in the way here. Every attempt has a twin without a wall.
 * Runs as whoever runs the test, and for root once more as an ordinary user.
 */
#include "yard.h"

#include <sched.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/xattr.h>

enum {
    H = BLY_FOR_HELPER,
    P = BLY_FOR_PROCESS,
    ROOT_ONLY = 1,   /* the twin needs root */
    NO_TWIN = 2,     /* a control, or a look that only makes sense inside */
    NO_MOUNTS = 210, /* a result: nothing can be mounted here */
    NEEDS_ABI = 6,
};

/* ---- attempts: 0 or errno ---- */

static int result(long r)
{
    return r < 0 ? errno : 0;
}

static int list_outside(void)
{
    return try_open(yard_path("out"), O_RDONLY | O_DIRECTORY);
}
static int list_root(void)
{
    return try_open("/", O_RDONLY | O_DIRECTORY);
}
static int read_inside(void)
{
    return try_open(yard_path("w/file"), O_RDONLY);
}
static int write_inside(void)
{
    return try_open(yard_path("w/file"), O_WRONLY);
}
static int read_by_link(void)
{
    return try_open(yard_path("w/link/secret"), O_RDONLY);
}
static int remove_outside(void)
{
    return result(unlinkat(AT_FDCWD, yard_path("out/secret"), 0));
}
static int make_outside(void)
{
    return result(mkdirat(AT_FDCWD, yard_path("out/new"), 0755));
}
static int read_own_status(void)
{
    return try_open("/proc/self/status", O_RDONLY);
}
static int read_foreign_process(void)
{
    return try_open(yard_path("out/dir/1/cmdline"), O_RDONLY);
}
static int read_foreign_self(void)
{
    return try_open(yard_path("out/dir/self/status"), O_RDONLY);
}
static int list_foreign(void)
{
    return try_open(yard_path("out/dir"), O_RDONLY | O_DIRECTORY);
}
static int read_zero(void)
{
    return try_open("/dev/zero", O_RDONLY);
}
static int use_null(void)
{
    return try_open("/dev/null", O_WRONLY);
}
static int read_kernel_log(void)
{
    return try_open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
}
static int kernel_object(void)
{
    return try_open("/sys/module/kernel/parameters/panic", O_WRONLY);
}
static int change_mode(void)
{
    return result(chmod(yard_path("out/secret"), 0600));
}
static int change_times(void)
{
    return result(utimensat(AT_FDCWD, yard_path("out/secret"), NULL, 0));
}
static int change_owner(void)
{
    return result(chown(yard_path("out/secret"), getuid(), getgid()));
}
static int cut_short(void)
{
    return result(truncate(yard_path("out/secret"), 1));
}
static int set_attribute(void)
{
    int r = result(setxattr(yard_path("out/secret"), "user.bly", "x", 1, 0));

    return r == ENOTSUP ? 0 : r; /* a file system without them */
}
static int link_in(void)
{
    char old[512];

    (void)snprintf(old, sizeof(old), "%s", yard_path("out/secret"));
    return result(link(old, yard_path("w/hard")));
}
static int signal_bystander(void)
{
    return result(kill(yard_bystander, 0));
}
static int read_bystander(void)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/environ", yard_bystander);
    return try_open(path, O_RDONLY);
}
static int limit_bystander(void)
{
    struct rlimit limit;

    return result(prlimit(yard_bystander, RLIMIT_CORE, NULL, &limit));
}
static int shared_memory(void)
{
    int id = shmget(IPC_PRIVATE, 4096, 0600);

    return id < 0 ? errno : result(shmctl(id, IPC_RMID, NULL));
}
static int do_ptrace(void)
{
    return result(ptrace(PTRACE_TRACEME, 0, 0, 0));
}
static int do_unshare(void)
{
    return result(unshare(CLONE_NEWUSER));
}
static int inet_socket(void)
{
    return result(socket(AF_INET, SOCK_STREAM, 0));
}
static int datagram_socket(void)
{
    return result(socket(AF_UNIX, SOCK_DGRAM, 0));
}
static int pass_descriptors(void)
{
    int pair[2];

    return result(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
}
static int fork_and_exec(void)
{
    pid_t pid = fork();
    int status = 1;

    if (pid == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(errno);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : YARD_STUCK;
}
static int has_no_privilege(void)
{
    static const char *const lines[] = {"CapInh:\t0000000000000000\n",
                                        "CapPrm:\t0000000000000000\n",
                                        "CapEff:\t0000000000000000\n",
                                        "CapAmb:\t0000000000000000\n",
                                        "NoNewPrivs:\t1\n",
                                        "Seccomp:\t2\n"};
    static char status[8192];
    bly_autofd int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, status, sizeof(status) - 1);

    status[n < 0 ? 0 : n] = '\0';
    for (size_t i = 0; i < BLY_LEN(lines); i++)
        if (!strstr(status, lines[i]))
            return 1 + (int)i;
    return 0;
}

static const struct locked_case {
    const char *name;
    yard_attempt attempt;
    int purpose;
    const char *policy;
    int expected;
    int flags;
} cases[] = {
    {"a helper reads what is granted", read_inside, H, "read @w", 0},
    {"a helper reads everything", read_secret, H, "read /", 0},
    {"a helper lists the root", list_root, H, "read /", 0},
    {"a helper with a workspace writes there", create_inside, H, "read /; write @w", 0},
    {"helper: reading outside", read_secret, H, "read @w", EACCES},
    {"helper: reading outside by a link", read_by_link, H, "read @w", EACCES},
    {"helper: listing outside", list_outside, H, "read @w", EACCES},
    {"helper: listing the root", list_root, H, "read @w", EACCES},
    {"helper: writing what may be read", write_inside, H, "read @w", EACCES},
    {"helper: creating where may be read", create_inside, H, "read /", EACCES},
    {"helper: writing outside", write_secret, H, "read /; write @w", EACCES},
    {"helper: creating outside", create_outside, H, "read /; write @w", EACCES},
    {"helper: removing outside", remove_outside, H, "read /; write @w", EACCES},
    {"helper: making a directory outside", make_outside, H, "read /; write @w", EACCES},
    {"helper: /proc is nobody's", read_own_status, H, "read /", EACCES},
    {"helper: devices", read_zero, H, "read /", EACCES},
    {"helper: kernel settings", kernel_setting, H, "read /; write @w", EACCES, ROOT_ONLY},
    {"helper: kernel objects, with everything writable", kernel_object, H, "write /; deny @w/p",
     EACCES, ROOT_ONLY},
    {"helper: kernel settings, with everything writable", kernel_setting, H, "write /; deny @w/p",
     EACCES, ROOT_ONLY},
    {"a helper with everything writable writes", write_secret, H, "write /; deny @w/p", 0},
    {"helper: changing times", change_times, H, "read /", YARD_KILLED},
    {"helper: sockets", inet_socket, H, "read /", YARD_KILLED},
    {"helper: executing", do_exec, H, "read /", YARD_KILLED, NO_TWIN},

    {"a program reads everything", read_secret, P, "read /", 0},
    {"a program executes", fork_and_exec, P, "read /", 0},
    {"a program reads about itself", read_own_status, P, "read /", 0},
    {"a program uses /dev/null", use_null, P, "read /", 0},
    {"a program talks to itself", pass_descriptors, P, "read /", 0},
    {"program: no privilege is left", has_no_privilege, P, "read /", 0, NO_TWIN},
    {"program: writing", write_secret, P, "read /", EACCES},
    {"program: creating", create_outside, P, "read /", EACCES},
    {"program: removing", remove_outside, P, "read /", EACCES},
    {"program: cutting a file short", cut_short, P, "read /", EACCES},
    {"program: linking", link_in, P, "read /", EACCES},
    {"program: changing a mode", change_mode, P, "read /", EPERM},
    {"program: changing an owner", change_owner, P, "read /", EPERM},
    {"program: changing times", change_times, P, "read /", EPERM},
    {"program: extended attributes", set_attribute, P, "read /", EPERM},
    {"program: other devices", read_kernel_log, P, "read /", EACCES, ROOT_ONLY},
    {"program: kernel settings", kernel_setting, P, "read /", EACCES, ROOT_ONLY},
    {"program: signalling", signal_bystander, P, "read /", EPERM},
    {"program: another's environment", read_bystander, P, "read /", EACCES},
    {"program: another's limits", limit_bystander, P, "read /", EPERM},
    {"program: shared memory", shared_memory, P, "read /", EPERM},
    {"program: ptrace", do_ptrace, P, "read /", EPERM},
    {"program: namespaces", do_unshare, P, "read /", EPERM},
    {"program: a TCP socket", inet_socket, P, "read /", EPERM},
    {"program: a datagram socket", datagram_socket, P, "read /", EPERM},
    {"program with the network: a TCP socket", inet_socket, P, "online; read /", 0},
    {"program with the network: signalling", signal_bystander, P, "online; read /", EPERM},
};

/* The host has a second procfs, at out/dir. */
static const struct locked_case beside_a_procfs[] = {
    {"helper: processes through a second procfs", read_foreign_process, H, "read /", EACCES},
    {"helper: itself through a second procfs", read_foreign_self, H, "read /", EACCES},
    {"helper: listing a second procfs in what is granted", list_foreign, H, "read @out", EACCES},
    /* The root may be listed, and with it, for Landlock, everything: so it is with the first one.
     */
    {"helper: listing a second procfs", list_foreign, H, "read /", 0},
    {"helper: a second procfs in what is granted", read_foreign_self, H, "read @out", EACCES},
    {"helper: a second procfs that is granted", read_foreign_self, H, "read @out/dir", EACCES},
    {"a helper reads beside a second procfs", read_secret, H, "read /", 0},
    {"a helper reads beside it in what is granted", read_secret, H, "read @out", 0},
    {"a helper reads elsewhere", read_inside, H, "read /", 0},
    {"a helper writes around it", create_outside, H, "read /; write @out", 0},
    /* What holds there is the helper's decision alone, as for all that is held back. */
    {"a helper that may write around it", read_foreign_self, H, "read /; write @out", 0},
    {"program: a second procfs is as the first", read_foreign_self, P, "read /", 0},
};

/* ---- running them ---- */

static _Noreturn void inside(const struct bly_plan *plan, enum bly_filter filter,
                             yard_attempt attempt)
{
    struct bly_err err = {0};

    if (bly_wall_enter_locked(plan, &err) < 0 || bly_wall_seal_locked(plan, filter, &err) < 0)
        yard_no_wall(&err);
    yard_exit(attempt());
}

static int run_locked(const struct bly_plan *plan, enum bly_purpose purpose, yard_attempt attempt)
{
    pid_t pid = fork();

    if (pid == 0)
        inside(plan, purpose == BLY_FOR_HELPER ? BLY_FILTER_HELPER : bly_wall_process_filter(plan),
               attempt);
    return yard_wait(pid);
}

static int run_walled(const void *arg)
{
    const struct locked_case *c = arg;
    struct bly_plan *plan = yard_plan(c->policy, (enum bly_purpose)c->purpose);
    int r;

    if (!plan)
        return YARD_NO_PLAN;
    r = run_locked(plan, (enum bly_purpose)c->purpose, c->attempt);
    bly_plan_free(plan);
    return r;
}

static int run_free(const void *arg)
{
    const struct locked_case *c = arg;

    return yard_run_free(c->attempt);
}

static void check_as(uid_t uid, const struct locked_case *c)
{
    int got = yard_run_as(uid, run_walled, c);

    if (got != c->expected)
        fail_msg("as uid %u: %d instead of %d, %s", uid, got, c->expected, yard_error);
    yard_remove();
    if ((c->flags & NO_TWIN) || ((c->flags & ROOT_ONLY) && uid != 0))
        return;
    got = yard_run_as(uid, run_free, c);
    if (got != 0)
        fail_msg("the twin without a wall, as uid %u: %d", uid, got);
    yard_remove();
}

static void check_case(void **state)
{
    check_as(getuid(), *state);
    if (getuid() == 0)
        check_as(YARD_NOBODY, *state);
}

/* A mount that is there for this child alone. */
static void mount_a_procfs(void)
{
    if (have_own_mounts() < 0 || mount("proc", yard_path("out/dir"), "proc", 0, NULL) < 0)
        yard_exit(NO_MOUNTS);
}

static void check_beside_a_procfs(void **state)
{
    const struct locked_case *c = *state;
    static const uid_t uids[] = {0, YARD_NOBODY};

    if (getuid() != 0)
        skip();
    for (size_t i = 0; i < BLY_LEN(uids); i++) {
        int got = yard_run_prepared(uids[i], mount_a_procfs, run_walled, c);

        yard_remove();
        if (got == NO_MOUNTS)
            skip();
        if (got != c->expected)
            fail_msg("as uid %u: %d instead of %d, %s", uids[i], got, c->expected, yard_error);
        got = yard_run_prepared(uids[i], mount_a_procfs, run_free, c);
        yard_remove();
        if (got != 0)
            fail_msg("the twin without a wall, as uid %u: %d", uids[i], got);
    }
}

/* A procfs far below: refused before something is granted that should not be. */
static int run_with_a_deep_procfs(const void *arg)
{
    char path[512];

    (void)snprintf(path, sizeof(path), "%s", yard_path("out/dir"));
    for (int i = 0; i < 16; i++) {
        (void)strcat(path, "/d");
        if (mkdir(path, 0755) < 0)
            return NO_MOUNTS;
    }
    if (have_own_mounts() < 0 || mount("proc", path, "proc", 0, NULL) < 0)
        return NO_MOUNTS;
    return run_walled(arg);
}

static void too_deep_is_refused(void **state)
{
    static const struct locked_case c = {"", read_secret, H, "read /", YARD_NO_WALL};
    int got;

    (void)state;
    if (getuid() != 0)
        skip();
    got = yard_run_as(0, run_with_a_deep_procfs, &c);
    yard_remove();
    if (got == NO_MOUNTS)
        skip();
    assert_int_equal(got, YARD_NO_WALL);
    assert_non_null(strstr(yard_error, "another procfs?"));
}

static void exchanged_root_is_refused(void **state)
{
    struct bly_plan *plan;
    char old[512];

    (void)state;
    yard_make();
    plan = yard_plan("read @w", BLY_FOR_HELPER);
    assert_non_null(plan);
    assert_int_equal(run_locked(plan, BLY_FOR_HELPER, read_inside), 0);
    (void)snprintf(old, sizeof(old), "%s", yard_path("w"));
    assert_int_equal(rename(old, yard_path("w2")), 0);
    assert_int_equal(symlink("out", yard_path("w")), 0);
    assert_int_equal(run_locked(plan, BLY_FOR_HELPER, read_inside), YARD_NO_WALL);
    bly_plan_free(plan);
    yard_remove();
}

/* A wall around the network alone is not one Landlock can be. */
static void network_only_is_refused(void **state)
{
    struct bly_plan *plan;

    (void)state;
    yard_make();
    plan = yard_plan("unrestricted", BLY_FOR_PROCESS);
    assert_non_null(plan);
    assert_int_equal(run_locked(plan, BLY_FOR_PROCESS, read_inside), YARD_NO_WALL);
    bly_plan_free(plan);
    yard_remove();
}

#ifdef BLY_FAULTS
/* Breaks each step once: the wall must say so and nothing may run behind it. */
static void each_step_is_needed(const char *policy, enum bly_purpose purpose, unsigned at_least)
{
    struct bly_plan *plan;
    unsigned step = 1;

    yard_make();
    plan = yard_plan(policy, purpose);
    assert_non_null(plan);
    for (;; step++) {
        bly_wall_fail_at(step);
        yard_error[0] = '\0';
        if (run_locked(plan, purpose, read_inside) == 0)
            break;
        assert_non_null(strstr(yard_error, "injected failure"));
    }
    bly_wall_fail_at(0);
    assert_true(step > at_least);
    bly_plan_free(plan);
    yard_remove();
}

static void each_step_of_a_helper_is_needed(void **state)
{
    (void)state;
    each_step_is_needed("read /; write @w", BLY_FOR_HELPER, 9);
}

static void each_step_of_a_process_is_needed(void **state)
{
    (void)state;
    each_step_is_needed("read /", BLY_FOR_PROCESS, 9);
}
#endif

static void add_rows(struct CMUnitTest *tests, const struct locked_case *rows, size_t n,
                     void (*check)(void **state))
{
    for (size_t i = 0; i < n; i++) {
        union {
            const void *in;
            void *out;
        } state = {&rows[i]};

        tests[i] = (struct CMUnitTest){
            .name = rows[i].name, .test_func = check, .initial_state = state.out};
    }
}

int main(void)
{
    const struct CMUnitTest others[] = {
#ifdef BLY_FAULTS
        cmocka_unit_test(each_step_of_a_helper_is_needed),
        cmocka_unit_test(each_step_of_a_process_is_needed),
#endif
        cmocka_unit_test(exchanged_root_is_refused),
        cmocka_unit_test(too_deep_is_refused),
        cmocka_unit_test(network_only_is_refused),
    };
    struct CMUnitTest tests[BLY_LEN(cases) + BLY_LEN(beside_a_procfs) + BLY_LEN(others)] = {0};
    int r = yard_prepare();

    if (r != 0)
        return r;
    if (bly_wall_landlock_abi() < NEEDS_ABI) {
        fprintf(stderr, "this kernel's Landlock has ABI %d, the test needs %d\n",
                bly_wall_landlock_abi(), NEEDS_ABI);
        return yard_code_of_a_skip();
    }
    add_rows(tests, cases, BLY_LEN(cases), check_case);
    add_rows(tests + BLY_LEN(cases), beside_a_procfs, BLY_LEN(beside_a_procfs),
             check_beside_a_procfs);
    memcpy(tests + BLY_LEN(cases) + BLY_LEN(beside_a_procfs), others, sizeof(others));
#ifdef BLY_FAULTS
    cmocka_set_test_filter("each_step_*"); /* the rest runs in the build without injection */
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
