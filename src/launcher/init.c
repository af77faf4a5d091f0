#include "launcher/init.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd_pass.h"
#include "launcher/report.h"
#include "launcher/tree.h"
#include "sandbox/enforce/supervise.h"
#include "sandbox/enforce/wall.h"

enum { END_MS = 5000 };

struct init {
    const struct bly_plan *plan;
    bool is_pid_1;
    pid_t program;
    int sync_fd; /* -EBADF once the program has been executed */
    int signal_fd;
    int listener_fd;                   /* -EBADF: no supervision */
    struct bly_supervisor *supervisor; /* NULL: none needed */
};

static _Noreturn void fail(int sys, const char *text)
{
    struct bly_err err = {0};

    (void)bly_fail(&err, BLY_ERR_UNSUPPORTED, sys, "sandbox unavailable: %s", text);
    bly_report_failure(BLY_INIT_REPORT_FD, &err);
}

/* Waits until the program's process has sealed itself; its listener comes along. */
static void receive_ready(struct init *init)
{
    struct bly_report report;
    struct iovec iov = {&report, sizeof(report)};
    struct bly_passed passed;
    ssize_t n;

    n = bly_fd_pass_recv(init->sync_fd, &iov, 1, 0, &passed);
    if (n == (ssize_t)sizeof(report))
        bly_report_failure(BLY_INIT_REPORT_FD, &report.err);
    if (n != 1)
        fail(EPIPE, "the program's process ended early");

    init->listener_fd = bly_passed_take_one(&passed);
    if (init->supervisor && init->listener_fd < 0)
        fail(EBADF, "there is nothing to supervise creation with");
}

/* The program was executed, or says why it could not be. */
static void on_sync(struct init *init)
{
    struct bly_report report;
    bly_autofd int fd = -EBADF; /* The program's process sends none. */
    int r = bly_report_read(init->sync_fd, &report, &fd);

    if (r == -EAGAIN)
        return;
    if (r == 0)
        bly_report_failure(BLY_INIT_REPORT_FD, &report.err);
    init->sync_fd = bly_close(init->sync_fd);
    bly_report_started(BLY_INIT_REPORT_FD);
}

static void forget(void *arg, pid_t pid, int status)
{
    (void)arg;
    (void)pid;
    (void)status;
}

/* The program has ended, or is to: with it goes everything it started. */
static _Noreturn void end(const struct init *init, int status)
{
    if (!init->is_pid_1)
        (void)bly_tree_end(END_MS, forget, NULL);
    bly_report_exited(BLY_INIT_REPORT_FD, status,
                      init->supervisor != NULL && bly_supervisor_has_refused(init->supervisor));
    _exit(0);
}

static void on_signal(struct init *init)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    while (read(init->signal_fd, &info, sizeof(info)) > 0)
        ; /* Several deaths may come as one signal: the loop below asks for all. */
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != init->program)
            continue;
        if (init->sync_fd >= 0)
            on_sync(init);
        end(init, status);
    }
}

static void on_order(const struct init *init)
{
    struct bly_order order = {0};
    ssize_t n = recv(BLY_INIT_REPORT_FD, &order, sizeof(order), MSG_DONTWAIT);

    if (n == 0 && init->is_pid_1)
        _exit(BLY_CHILD_FAILED); /* The spawner is gone. */
    if (n == 0 || (n == (ssize_t)sizeof(order) && order.sig == SIGKILL))
        end(init, SIGKILL);
    if (n == (ssize_t)sizeof(order))
        (void)kill(-init->program, order.sig); /* Unreaped, or we would not be here. */
}

static void on_listener(struct init *init, short events)
{
    int r = (events & POLLIN) ? bly_supervisor_serve(init->supervisor, init->listener_fd)
                              : BLY_SUPERVISE_OVER;

    if (r < 0)
        _exit(BLY_CHILD_FAILED);
    if (r == BLY_SUPERVISE_OVER)
        init->listener_fd = bly_close(init->listener_fd);
}

static _Noreturn void loop(struct init *init)
{
    for (;;) {
        struct pollfd fds[] = {
            {.fd = init->sync_fd, .events = POLLIN},
            {.fd = init->listener_fd, .events = POLLIN},
            {.fd = init->signal_fd, .events = POLLIN},
            {.fd = BLY_INIT_REPORT_FD, .events = POLLIN},
        };

        if (poll(fds, BLY_LEN(fds), -1) < 0)
            continue;
        if (fds[0].revents != 0)
            on_sync(init);
        if (fds[1].revents != 0)
            on_listener(init, fds[1].revents);
        if (fds[2].revents != 0)
            on_signal(init);
        if (fds[3].revents != 0)
            on_order(init);
    }
}

void bly_init_run(const struct bly_plan *plan, bool is_pid_1, pid_t program)
{
    struct init init = {.plan = plan,
                        .is_pid_1 = is_pid_1,
                        .program = program,
                        .sync_fd = BLY_INIT_SYNC_FD,
                        .listener_fd = -EBADF};
    struct bly_err err = {0};
    const char go = 1;
    sigset_t set;
    int r;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    init.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (init.signal_fd < 0)
        fail(errno, "no signalfd");
    r = is_pid_1 ? bly_wall_seal_init(plan, &err) : bly_wall_seal_init_locked(&err);
    if (r == 0 && bly_supervise_needed(plan))
        r = bly_supervisor_new(plan, &init.supervisor, &err);
    if (r < 0)
        bly_report_wall_failure(BLY_INIT_REPORT_FD, r, &err);

    receive_ready(&init);
    if (write(init.sync_fd, &go, 1) != 1)
        fail(errno, "the program's process ended early");
    loop(&init);
}
