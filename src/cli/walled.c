#include "cli/walled.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "cli/terminal.h"
#include "launcher/child.h"
#include "launcher/exec.h"
#include "launcher/probe.h"
#include "launcher/report.h"
#include "launcher/request.h"
#include "sandbox/enforce/wall.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"

enum {
    FIRST_FREE_FD = 16, /* above the numbers launcher/child.c moves things to */
};

/* Of a command under way. */
struct run {
    const struct bly_walled *walled;
    struct bly_child_setup setup;
    int report_fd, signal_fd;
    struct bly_terminal terminal;
};

int bly_walled_fail(const char *name, const struct bly_err *err)
{
    /* A working directory that cannot be entered is of the same kind, and not the command's. */
    bool command = err->kind == BLY_ERR_SPAWN && strncmp(err->text, "cannot execute", 14) == 0;

    if (err->kind != BLY_ERR_SPAWN || err->sys == 0) {
        (void)fprintf(stderr, "%s: %s\n", name, err->text);
        return BLY_EXIT_NO_WALL;
    }
    (void)fprintf(stderr, "%s: %s: %s\n", name, err->text, bly_errno_text(err->sys));
    if (!command)
        return BLY_EXIT_NO_WALL;
    return err->sys == ENOENT ? BLY_EXIT_NOT_FOUND : BLY_EXIT_NOT_RUNNABLE;
}

static void block_signals(void)
{
    sigset_t all;

    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL); /* ignored ones survive an exec */
}

static int run_without_wall(const struct bly_walled *walled, struct bly_err *err)
{
    sigset_t none;
    int r;

    block_signals();
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (chdir(walled->cwd) < 0)
        return bly_fail_sys(err, errno, "cannot change to %s", walled->cwd);
    r = bly_exec(walled->command[0], walled->command, environ);
    return bly_fail(err, BLY_ERR_SPAWN, -r, "cannot execute %s", walled->command[0]);
}

static int move_up(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);

    return moved < 0 ? -errno : moved;
}

/* What the child expects to find where, see launcher/child.c. */
static int arrange_fds(struct run *run, struct bly_err *err)
{
    struct bly_child_setup *setup = &run->setup;
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
    run->report_fd = move_up(ours);
    setup->report_fd = move_up(theirs);
    if (run->report_fd < 0 || setup->report_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0)
        return bly_fail_sys(err, EMFILE, "cannot arrange descriptors");
    return 0;
}

static pid_t clone_child(const struct run *run, uint64_t flags)
{
    pid_t pid;

    /* They stay effective in a new user namespace and cannot be dropped in there. */
    (void)setgroups(0, NULL);
    pid = (pid_t)syscall(SYS_clone, (unsigned long)flags | SIGCHLD, 0UL, 0UL, 0UL, 0UL);
    if (pid == 0)
        bly_child_walled(&run->setup);
    return pid;
}

static int exit_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- while it runs ---- */

static void order(const struct run *run, int sig)
{
    const struct bly_order order = {.sig = sig};

    (void)send(run->report_fd, &order, sizeof(order), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* The command has a session of its own, where ^Z from outside would be lost: it is stopped, and
 * goes on when we do. */
static void stop(const struct run *run)
{
    order(run, SIGSTOP);
    (void)raise(SIGSTOP);
    order(run, SIGCONT);
}

static void pass_signals(struct run *run)
{
    struct signalfd_siginfo info;

    while (read(run->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        int sig = (int)info.ssi_signo;

        if (sig == SIGWINCH && run->setup.request->tty)
            bly_terminal_resize(&run->terminal);
        else if (sig == SIGTSTP)
            stop(run);
        else
            order(run, sig);
    }
}

static int open_signals(void)
{
    static const int passed[] = {SIGHUP,  SIGINT,  SIGQUIT,  SIGTERM,
                                 SIGUSR1, SIGUSR2, SIGWINCH, SIGTSTP};
    sigset_t set;

    (void)sigemptyset(&set);
    for (size_t i = 0; i < BLY_LEN(passed); i++)
        (void)sigaddset(&set, passed[i]);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int begin_terminal(struct run *run, int *master_fd, struct bly_err *err)
{
    int r = bly_terminal_begin(&run->terminal, run->setup.stdio[0], run->setup.stdio[1],
                               bly_take_fd(master_fd));

    return r < 0 ? bly_fail_sys(err, -r, "cannot use this terminal") : 0;
}

/* What is to be done about a wall that cannot be built. */
static void add_fix(struct bly_err *err)
{
    size_t len = strlen(err->text);
    char fix[BLY_FIX_MAX];

    if (err->kind != BLY_ERR_UNSUPPORTED)
        return;
    bly_probe_fix(fix);
    (void)snprintf(err->text + len, sizeof(err->text) - len, ": %s",
                   fix[0] != '\0' ? fix : "see `bailey doctor`");
}

static int refused(struct bly_err *err, int sys)
{
    int r =
        bly_fail(err, BLY_ERR_UNSUPPORTED, sys,
                 "sandbox unavailable: the kernel refuses new namespaces: %s", bly_errno_text(sys));

    add_fix(err);
    return r;
}

enum { MORE = 256 }; /* outcome of take_report(): no exit status */

static int take_report(struct run *run, struct bly_err *err)
{
    bly_autofd int fd = -EBADF;
    struct bly_report report = {0};
    int r = bly_report_read(run->report_fd, &report, &fd);

    if (r == -EAGAIN)
        return MORE;
    if (r != 0)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, EPIPE,
                        "the sandbox ended before its command did");
    if (report.type == BLY_REPORT_EXITED)
        return exit_status(report.status);
    if (report.type == BLY_REPORT_TERMINAL && run->setup.request->tty) {
        r = begin_terminal(run, &fd, err);
        return r < 0 ? r : MORE;
    }
    if (report.type == BLY_REPORT_STARTED)
        return MORE;
    *err = report.err;
    add_fix(err);
    return -EPIPE;
}

/* Until the command has ended; its exit status. */
static int supervise(struct run *run, struct bly_err *err)
{
    int r;

    do {
        struct pollfd fds[2 + BLY_TERMINAL_FDS] = {{.fd = run->report_fd, .events = POLLIN},
                                                   {.fd = run->signal_fd, .events = POLLIN}};
        int timeout_ms = bly_terminal_prepare(&run->terminal, fds + 2);

        if (poll(fds, BLY_LEN(fds), timeout_ms) < 0)
            return bly_fail_sys(err, errno, "cannot wait for the command");
        pass_signals(run);
        bly_terminal_pump(&run->terminal, fds + 2);
        r = take_report(run, err);
    } while (r == MORE);
    bly_terminal_end(&run->terminal);
    return r;
}

/* ---- starting it ---- */

/* The kind of wall, and what its first process must be born with. */
static int choose_wall(struct run *run, const struct bly_plan *plan, uint64_t *ret_flags,
                       struct bly_err *err)
{
    struct bly_features features;
    int r = BLY_RUNG_NAMESPACES;

    /* Without a choice there is nothing to find out: it works or it fails. */
    if (run->walled->allow_landlock) {
        bly_probe_features(&features);
        features.allow_processes = true;
        r = bly_rung_choose(&features, plan, err);
    }
    if (r < 0)
        return bly_because(err, r, "sandbox unavailable");
    run->setup.rung = (unsigned)r;
    *ret_flags = r == BLY_RUNG_NAMESPACES ? bly_wall_clone_flags(plan) : 0;
    return 0;
}

static int start(struct run *run, const struct bly_plan *plan, struct bly_err *err)
{
    uint64_t flags = 0;
    int r;

    block_signals();
    run->signal_fd = open_signals();
    if (run->signal_fd < 0 || getrlimit(RLIMIT_NOFILE, &run->setup.nofile) < 0)
        return bly_fail_sys(err, errno, "cannot watch signals");
    r = arrange_fds(run, err);
    if (r == 0)
        r = bly_wall_prepare(err);
    if (r == 0)
        r = choose_wall(run, plan, &flags, err);
    if (r < 0)
        return r;
    if (clone_child(run, flags) < 0)
        return refused(err, errno);
    run->setup.report_fd = bly_close(run->setup.report_fd);
    return 0;
}

static bool is_terminal(void)
{
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && isatty(STDERR_FILENO);
}

static int run_with_plan(const struct bly_walled *walled, const struct bly_plan *plan,
                         struct bly_err *err)
{
    struct bly_request request = {.argv = walled->command,
                                  .arg0 = walled->command[0],
                                  .envp = environ,
                                  .cwd = walled->cwd,
                                  .tty = walled->own_terminal && is_terminal()};
    struct run run = {
        .walled = walled,
        .setup = {.request = &request, .plan = plan, .parent = getpid(), .helper_fd = -EBADF}};
    int r;

    bly_terminal_init(&run.terminal);
    r = start(&run, plan, err);
    return r < 0 ? r : supervise(&run, err);
}

int bly_walled_run(const struct bly_walled *walled, struct bly_err *err)
{
    struct bly_plan *plan;
    int r;

    if (!walled->policy->wall && walled->policy->network)
        return run_without_wall(walled, err);
    r = bly_plan_make(walled->policy, BLY_FOR_PROCESS, &bly_probe_disk, NULL, 0, &plan, err);
    if (r < 0)
        return r;
    r = run_with_plan(walled, plan, err);
    (void)bly_plan_free(plan);
    return r;
}
