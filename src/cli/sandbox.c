#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "cli/cli.h"
#include "launcher/child.h"
#include "launcher/exec.h"
#include "launcher/report.h"
#include "launcher/request.h"
#include "sandbox/enforce/wall.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"
#include "sandbox/policy/wrapper.h"
#include "server/environment.h"

/*
 * The program under the name bailey-linux-sandbox: puts itself between its caller and one command,
 * builds the wall the arguments describe, and passes signals and the exit status along. Whatever
 * goes wrong before the command runs is an error here: it is never run with less.
 */
enum {
    EXIT_NO_WALL = 125, /* as env(1): our own failure */
    EXIT_NOT_RUNNABLE = 126,
    EXIT_NOT_FOUND = 127,
    FIRST_FREE_FD = 16, /* above the numbers launcher/child.c moves things to */
    PLAN_BYTES_MAX = 64 << 20,
};

static int fail(const struct bly_err *err)
{
    if (err->kind != BLY_ERR_SPAWN) {
        (void)fprintf(stderr, "bailey-linux-sandbox: %s\n", err->text);
        return EXIT_NO_WALL;
    }
    (void)fprintf(stderr, "bailey-linux-sandbox: %s: %s\n", err->text, bly_errno_text(err->sys));
    return err->sys == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUNNABLE;
}

static void block_signals(sigset_t *ret_before)
{
    sigset_t all;

    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, ret_before);
    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL); /* ignored ones survive an exec */
}

static int run_without_wall(char **command, const char *cwd, struct bly_err *err)
{
    sigset_t none;
    int r;

    block_signals(&none);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (chdir(cwd) < 0)
        return bly_fail_sys(err, errno, "cannot change to %s", cwd);
    r = bly_exec(command[0], command, environ);
    return bly_fail(err, BLY_ERR_SPAWN, -r, "cannot execute %s", command[0]);
}

static int move_up(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);

    return moved < 0 ? -errno : moved;
}

/* What the child expects to find where, see launcher/child.c. */
static int arrange_fds(struct bly_child_setup *setup, int *ret_report_fd, struct bly_err *err)
{
    bly_autofd int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    bly_autofd int ours = -EBADF, theirs = -EBADF;
    int pair[2];

    if (null_fd < 0)
        return bly_fail_sys(err, errno, "cannot open /dev/null");
    for (int i = 0; i < 3; i++) {
        setup->stdio[i] = move_up(fcntl(i, F_GETFD) < 0 ? null_fd : i);
        if (setup->stdio[i] < 0)
            return bly_fail_sys(err, -setup->stdio[i], "cannot pass on descriptor %d", i);
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return bly_fail_sys(err, errno, "cannot make a socket pair");
    ours = pair[0];
    theirs = pair[1];
    *ret_report_fd = move_up(ours);
    setup->report_fd = move_up(theirs);
    if (*ret_report_fd < 0 || setup->report_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0)
        return bly_fail_sys(err, EMFILE, "cannot arrange descriptors");
    return 0;
}

static pid_t clone_child(const struct bly_plan *plan, const struct bly_child_setup *setup)
{
    pid_t pid;

    /* They stay effective in a new user namespace and cannot be dropped in there. */
    (void)setgroups(0, NULL);
    pid = (pid_t)syscall(SYS_clone, (unsigned long)bly_wall_clone_flags(plan) | SIGCHLD, 0UL, 0UL,
                         0UL, 0UL);
    if (pid == 0)
        bly_child_walled(setup);
    return pid;
}

static int exit_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void pass_signals(int signal_fd, int report_fd)
{
    struct signalfd_siginfo info;

    while (read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
        const struct bly_order order = {.sig = (int)info.ssi_signo};

        (void)send(report_fd, &order, sizeof(order), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

/* Until the command has ended; its exit status. */
static int supervise(int report_fd, int signal_fd, struct bly_err *err)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = report_fd, .events = POLLIN},
                               {.fd = signal_fd, .events = POLLIN}};
        bly_autofd int fd = -EBADF; /* Only programs with a terminal of their own send one. */
        struct bly_report report = {0};
        int r;

        (void)poll(fds, BLY_LEN(fds), -1);
        pass_signals(signal_fd, report_fd);
        r = bly_report_read(report_fd, &report, &fd);
        if (r == -EAGAIN || (r == 0 && report.type == BLY_REPORT_STARTED))
            continue;
        if (r == 0 && report.type == BLY_REPORT_EXITED)
            return exit_status(report.status);
        if (r == 0)
            *err = report.err;
        else
            (void)bly_fail(err, BLY_ERR_UNSUPPORTED, EPIPE,
                           "the sandbox ended before its command did");
        return -EPIPE;
    }
}

static int open_signals(void)
{
    static const int passed[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
    sigset_t set;

    (void)sigemptyset(&set);
    for (size_t i = 0; i < BLY_LEN(passed); i++)
        (void)sigaddset(&set, passed[i]);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int run_with_plan(const struct bly_plan *plan, char **command, char *cwd,
                         struct bly_err *err)
{
    bly_autobuf struct bly_buf packed;
    struct bly_request request = {.argv = command, .arg0 = command[0], .envp = environ, .cwd = cwd};
    struct bly_child_setup setup = {.request = &request, .parent = getpid(), .helper_fd = -EBADF};
    int report_fd = -EBADF, signal_fd, r;
    sigset_t before;

    bly_buf_init(&packed, PLAN_BYTES_MAX);
    r = bly_plan_pack(plan, &packed);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot pack the plan");
    request.plan = packed.data;
    request.plan_len = packed.len;
    if (getrlimit(RLIMIT_NOFILE, &setup.nofile) < 0)
        return bly_fail_sys(err, errno, "cannot read limits");

    block_signals(&before);
    signal_fd = open_signals();
    if (signal_fd < 0)
        return bly_fail_sys(err, errno, "no signalfd");
    r = arrange_fds(&setup, &report_fd, err);
    if (r == 0)
        r = bly_wall_prepare(err);
    if (r < 0)
        return r;
    if (clone_child(plan, &setup) < 0)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, errno,
                        "sandbox unavailable: the kernel refuses new namespaces: %s",
                        bly_errno_text(errno));
    (void)close(setup.report_fd);
    return supervise(report_fd, signal_fd, err);
}

static int run(const struct bly_wrapper *wrapper, char **command, char *cwd, struct bly_err *err)
{
    struct bly_plan *plan;
    int r;

    if (!wrapper->policy->wall && wrapper->policy->network)
        return run_without_wall(command, cwd, err);
    r = bly_plan_make(wrapper->policy, BLY_FOR_PROCESS, &bly_probe_disk, NULL, 0, &plan, err);
    if (r < 0)
        return r;
    r = run_with_plan(plan, command, cwd, err);
    bly_plan_free(plan);
    return r;
}

int bly_cli_sandbox(int argc, char **argv)
{
    struct bly_environment_facts facts;
    struct bly_wrapper wrapper;
    struct bly_err err;
    int r;

    bly_err_clear(&err);
    if (bly_environment_facts_init(&facts, &err) < 0)
        return fail(&err);
    r = bly_wrapper_parse(argv, (size_t)argc, &facts.policy_env, &wrapper, &err);
    if (r == 0) {
        r = run(&wrapper, argv + wrapper.command_index,
                wrapper.command_cwd ? wrapper.command_cwd : facts.cwd, &err);
        bly_wrapper_deinit(&wrapper);
    }
    bly_environment_facts_deinit(&facts);
    return r < 0 ? fail(&err) : r;
}
