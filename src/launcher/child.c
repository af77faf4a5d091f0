#include "launcher/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd_pass.h"
#include "launcher/exec.h"
#include "launcher/init.h"
#include "launcher/report.h"
#include "launcher/request.h"
#include "launcher/stdio.h"
#include "sandbox/enforce/rung.h"
#include "sandbox/enforce/wall.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"

/*
 * The spawner keeps 0 to 6 occupied, so what it opened for a child is above all numbers used here,
 * and moving a descriptor down never hits another one.
 */
enum { NULL_FD = 0, REPORT_FD = 3, FIRST_FD = 4 };

static void move_fd(int from, int to)
{
    int r = from == to ? fcntl(from, F_SETFD, FD_CLOEXEC) : dup3(from, to, O_CLOEXEC);

    if (r < 0)
        _exit(BLY_CHILD_FAILED);
}

static void inherit_fd(int from, int to)
{
    if (from != to && dup2(from, to) < 0)
        _exit(BLY_CHILD_FAILED);
}

static void close_from(unsigned first)
{
    if (close_range(first, ~0U, 0) < 0)
        _exit(BLY_CHILD_FAILED);
}

static void die_with_parent(void)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        _exit(BLY_CHILD_FAILED);
}

/*
 * The launcher made every disposition the default one; only the mask is left. It goes last, so that
 * nothing interrupts what comes before.
 */
static void unblock_signals(void)
{
    sigset_t none;

    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL); /* one thread: NOLINT(concurrency-mt-unsafe) */
}

static int enter_session(const struct bly_request *request, struct bly_err *err)
{
    if (setsid() < 0)
        return bly_fail(err, BLY_ERR_SPAWN, errno, "cannot start a session");
    /* The terminal's foreground group is then the caller's. */
    if (request->tty && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0)
        return bly_fail(err, BLY_ERR_SPAWN, errno, "cannot take the terminal");
    if (chdir(request->cwd) < 0)
        return bly_fail(err, BLY_ERR_SPAWN, errno, "cannot change to %s", request->cwd);
    return 0;
}

static int execute(const struct bly_child_setup *setup, struct bly_err *err)
{
    const struct bly_request *request = setup->request;
    const char *program = request->argv[0];
    int r;

    (void)setrlimit(RLIMIT_NOFILE, &setup->nofile);
    unblock_signals();
    request->argv[0] = request->arg0;
    r = bly_exec(program, request->argv, request->envp);
    return bly_fail(err, BLY_ERR_SPAWN, -r, "cannot execute %s", program);
}

void bly_child_direct(const struct bly_child_setup *setup)
{
    struct bly_err err = {0};

    die_with_parent();
    if (getppid() != setup->parent)
        _exit(BLY_CHILD_FAILED);
    for (int i = 0; i < 3; i++)
        inherit_fd(setup->stdio[i], i);
    move_fd(setup->report_fd, REPORT_FD);
    close_from(FIRST_FD);

    if (enter_session(setup->request, &err) == 0)
        (void)execute(setup, &err);
    bly_report_failure(REPORT_FD, &err);
}

/* Builds the wall around this process, which is pid 1 in it. */
static void build_wall(const struct bly_child_setup *setup)
{
    const struct rlimit none = {0};
    struct bly_err err = {0};
    int r;

    if (setup->rung == BLY_RUNG_LANDLOCK)
        return; /* That wall goes up in the process that stays inside. */
    /* The id maps in /proc belong to root while we are not dumpable. */
    (void)prctl(PR_SET_DUMPABLE, 1);
    r = bly_wall_enter(setup->plan, &err);
    (void)prctl(PR_SET_DUMPABLE, 0);
    if (r < 0)
        bly_report_wall_failure(REPORT_FD, r, &err);

    die_with_parent(); /* Once more: a change of credentials forgets it. */
    (void)setrlimit(RLIMIT_CORE, &none);
}

/* In the process that will run inside; no way back. */
static int seal(const struct bly_child_setup *setup, enum bly_filter filter, int *ret_listener_fd,
                struct bly_err *err)
{
    int r;

    if (setup->rung != BLY_RUNG_LANDLOCK)
        return bly_wall_seal(setup->plan, filter, ret_listener_fd, err);
    r = bly_wall_enter_locked(setup->plan, err);
    return r < 0 ? r : bly_wall_seal_locked(setup->plan, filter, err);
}

enum { SYNC_FD = 3 }; /* of the program's process, to pid 1; pid 1's end is BLY_INIT_SYNC_FD */

static void send_ready(int listener_fd)
{
    char ready = 1;
    struct iovec iov = {&ready, 1};

    if (bly_fd_pass_send(SYNC_FD, &iov, 1, &listener_fd, listener_fd >= 0 ? 1 : 0, 0) != 1)
        _exit(BLY_CHILD_FAILED);
}

/* The program's own process, a child of pid 1. */
static _Noreturn void run_program(const struct bly_child_setup *setup, int sync_fd)
{
    struct bly_err err = {0};
    int listener_fd = -EBADF;
    char go;
    int r;

    die_with_parent();
    for (int i = 0; i < 3; i++)
        inherit_fd(BLY_INIT_STDIO_FD + i, i);
    move_fd(sync_fd, SYNC_FD);
    close_from(SYNC_FD + 1);

    if (enter_session(setup->request, &err) < 0)
        bly_report_failure(SYNC_FD, &err);
    r = bly_wall_bound_tasks(setup->max_tasks, &err);
    if (r == 0)
        r = seal(setup, bly_wall_process_filter(setup->plan), &listener_fd, &err);
    if (r < 0)
        bly_report_wall_failure(SYNC_FD, r, &err);

    /* Nothing is executed before pid 1 has sealed itself and holds the listener. */
    send_ready(listener_fd);
    if (read(SYNC_FD, &go, 1) != 1)
        _exit(BLY_CHILD_FAILED);
    listener_fd = bly_close(listener_fd);
    (void)execute(setup, &err);
    bly_report_failure(SYNC_FD, &err);
}

/*
 * The terminal comes from the view's own devpts, so that it has a name in there (ttyname(3)) and
 * can be opened by it.
 */
static void open_terminal_inside(void)
{
    struct bly_stdio stdio;
    struct bly_err err = {0};
    int r = bly_stdio_open(true, false, &stdio);

    if (r < 0) {
        (void)bly_fail(&err, BLY_ERR_SPAWN, -r, "cannot open a terminal inside the wall");
        bly_report_failure(REPORT_FD, &err);
    }
    for (int i = 0; i < 3; i++)
        move_fd(stdio.child[i], BLY_INIT_STDIO_FD + i);
    bly_report_terminal(REPORT_FD, stdio.server[1]);
    bly_stdio_close(&stdio);
}

void bly_child_walled(const struct bly_child_setup *setup)
{
    bool is_pid_1 = setup->rung != BLY_RUNG_LANDLOCK;
    int sync[2];
    pid_t pid;

    die_with_parent();
    move_fd(setup->report_fd, REPORT_FD);
    for (int i = 0; i < 3; i++)
        move_fd(setup->request->tty ? NULL_FD : setup->stdio[i], BLY_INIT_STDIO_FD + i);
    inherit_fd(NULL_FD, STDOUT_FILENO);
    inherit_fd(NULL_FD, STDERR_FILENO);
    close_from(BLY_INIT_STDIO_FD + 3);
    (void)prctl(PR_SET_NAME, "bailey-init");

    build_wall(setup);
    /* Then nothing would end what is inside if this process were killed along with its parent. The
     * end of its socket tells it the same, and it cleans up first. */
    if (!is_pid_1 && (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 || prctl(PR_SET_PDEATHSIG, 0) < 0))
        _exit(BLY_CHILD_FAILED);
    if (setup->request->tty)
        open_terminal_inside();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sync) < 0)
        _exit(BLY_CHILD_FAILED);
    pid = fork();
    if (pid < 0) {
        struct bly_err err = {0};

        (void)bly_fail(&err, BLY_ERR_SPAWN, errno, "cannot fork inside the wall");
        bly_report_failure(REPORT_FD, &err);
    }
    if (pid == 0)
        run_program(setup, sync[1]);

    /* The program's output must end when the program closes it: no copies here. */
    sync[1] = bly_close(sync[1]);
    move_fd(sync[0], BLY_INIT_SYNC_FD);
    close_from(BLY_INIT_SYNC_FD + 1);
    bly_init_run(setup->plan, is_pid_1, pid);
}

void bly_child_helper(const struct bly_child_setup *setup)
{
    enum { SOCKET_FD = FIRST_FD };
    const struct bly_policy *policy = bly_plan_policy(setup->plan), *folded;
    struct bly_err err = {0};
    int r;

    die_with_parent();
    move_fd(setup->report_fd, REPORT_FD);
    move_fd(setup->helper_fd, SOCKET_FD);
    inherit_fd(NULL_FD, STDOUT_FILENO);
    inherit_fd(NULL_FD, STDERR_FILENO);
    close_from(SOCKET_FD + 1);
    (void)prctl(PR_SET_NAME, "bailey-helper");

    build_wall(setup);
    folded = bly_policy_casefold(policy); /* NULL: it refuses more */
    unblock_signals();
    r = seal(setup, BLY_FILTER_HELPER, NULL, &err);
    if (r < 0)
        bly_report_wall_failure(REPORT_FD, r, &err);

    bly_report_started(REPORT_FD);
    (void)close(REPORT_FD);
    _exit(setup->helper_main(SOCKET_FD, policy, folded));
}
