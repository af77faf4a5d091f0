#include "launcher/spawner_main.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "launcher/child.h"
#include "launcher/report.h"
#include "launcher/request.h"
#include "launcher/stdio.h"
#include "launcher/tree.h"
#include "launcher/wire.h"
#include "sandbox/enforce/wall.h"
#include "sandbox/plan/plan.h"

enum { END_MS = 5000, MAX_EVENTS = 64, MAX_PACKETS = 64, FIRST_CHILD_FD = 7 };

enum kind { DIRECT, WALLED, HELPER };

/* A child from its fork until it is reaped. */
struct child {
    LIST_ENTRY(child) entry;
    uint64_t id;
    pid_t pid;
    enum kind kind;
    unsigned rung;        /* enum bly_rung */
    uint64_t cgroup;      /* its number; 0: none */
    bool started, failed; /* reported to the server */
    bool killed;          /* by the server's wish */
    bool status_known;    /* walled: pid 1 said how the program ended */
    int status;
    bool refused; /* walled: pid 1 said that it has refused something */
    struct spawner *spawner;
    int report_fd; /* -EBADF once it has ended */
    int fds[3];    /* the server's ends until it gets them: in, out, err */
};

struct spawner {
    struct bly_origin *origin;
    int epoll_fd, signal_fd;
    LIST_HEAD(, child) children;
    uint64_t last_cgroup;
    bool unswept; /* there are cgroups in which something was still dying */
    bool ending;
};

/* Waits while the server's queue is full. When the server is gone its socket's end says so. */
static void tell(enum bly_wire_type type, const struct bly_buf *buf, const int *fds, size_t n_fds)
{
    int r = bly_wire_send(BLY_SOCKET_FD, type, buf, fds, n_fds, true);

    if (r < 0 && r != -EPIPE && r != -ECONNRESET)
        bly_log(BLY_LOG_ERROR, "spawner-send-failed", "error=\"%s\"", strerrordesc_np(-r));
}

static void tell_failed(uint64_t id, const struct bly_err *err)
{
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, BLY_WIRE_INLINE_MAX);
    (void)bly_buf_put_u64(&buf, id);
    (void)bly_buf_put_u32(&buf, (uint32_t)err->kind);
    (void)bly_buf_put_u32(&buf, (uint32_t)err->sys);
    (void)bly_buf_put_str(&buf, err->text);
    tell(BLY_WIRE_FAILED, &buf, NULL, 0);
}

static void close_fds(struct child *child)
{
    for (size_t i = 0; i < BLY_LEN(child->fds); i++)
        child->fds[i] = bly_close(child->fds[i]);
}

static void started(struct child *child)
{
    bly_autobuf struct bly_buf buf;
    int fds[BLY_LEN(child->fds)];
    size_t n = 0;
    unsigned mask = 0;

    for (unsigned i = 0; i < BLY_LEN(child->fds); i++) {
        if (child->fds[i] < 0)
            continue;
        fds[n++] = child->fds[i];
        mask |= 1U << i;
    }
    bly_buf_init(&buf, BLY_WIRE_INLINE_MAX);
    (void)bly_buf_put_u64(&buf, child->id);
    (void)bly_buf_put_u32(&buf, (uint32_t)child->pid);
    (void)bly_buf_put_u8(&buf, (uint8_t)mask);
    (void)bly_buf_put_u8(&buf, (uint8_t)child->rung);
    tell(BLY_WIRE_STARTED, &buf, fds, n);
    child->started = true;
    close_fds(child);
}

static void failed(struct child *child, const struct bly_err *err)
{
    tell_failed(child->id, err);
    child->failed = true;
    close_fds(child);
}

static void exited(struct child *child)
{
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, BLY_WIRE_INLINE_MAX);
    (void)bly_buf_put_u64(&buf, child->id);
    (void)bly_buf_put_u32(&buf, (uint32_t)child->status);
    (void)bly_buf_put_u8(&buf, child->refused);
    tell(BLY_WIRE_EXITED, &buf, NULL, 0);
}

/*
 * Out of the epoll set first: closing does not do it while a child that was just forked still has
 * its copy, and the event would name a child that is gone.
 */
static void close_report(struct child *child)
{
    if (child->report_fd >= 0)
        (void)epoll_ctl(child->spawner->epoll_fd, EPOLL_CTL_DEL, child->report_fd, NULL);
    child->report_fd = bly_close(child->report_fd);
}

/* Takes in one report. False: there is nothing more to come for now. */
static bool take_report(struct child *child)
{
    struct bly_report report;
    bly_autofd int fd = -EBADF;
    int r = bly_report_read(child->report_fd, &report, &fd);

    if (r == -EAGAIN)
        return false;
    if (r != 0) {
        close_report(child);
        if (r == BLY_REPORT_END && child->kind == DIRECT && !child->started && !child->failed)
            started(child);
        return false;
    }

    if (report.type == BLY_REPORT_FAILED && !child->started && !child->failed)
        failed(child, &report.err);
    else if (report.type == BLY_REPORT_STARTED && !child->started && !child->failed)
        started(child);
    else if (report.type == BLY_REPORT_TERMINAL && child->kind == WALLED && !child->started)
        child->fds[1] = bly_take_fd(&fd);
    else if (report.type == BLY_REPORT_EXITED && child->kind == WALLED) {
        child->status = report.status;
        child->refused = report.refused;
        child->status_known = true;
    }
    return true;
}

static void take_reports(struct child *child)
{
    while (child->report_fd >= 0 && take_report(child))
        ;
}

/* What the program's status is, given how its process, or pid 1 of its wall, has ended. */
static int final_status(const struct child *child, int status)
{
    if (child->kind != WALLED)
        return status;
    if (child->status_known)
        return child->status;
    return WIFSIGNALED(status) ? status : SIGKILL; /* Pid 1 gave up, which killed the program. */
}

/* A wall or helper that ended without a word. */
static void failed_silently(struct child *child)
{
    struct bly_err err = {0};

    if (child->killed)
        (void)bly_fail(&err, BLY_ERR_SPAWN, 0, "the process was killed before it had started");
    else
        (void)bly_fail(&err, BLY_ERR_UNSUPPORTED, 0,
                       "sandbox unavailable: the process ended while its wall was built");
    failed(child, &err);
}

static void remove_cgroup(struct spawner *spawner, uint64_t n)
{
    if (n > 0 && bly_cgroup_remove(spawner->origin->bounding.cgroup.fd, n) == -EBUSY)
        spawner->unswept = true;
}

static bool is_not_ours(void *arg, pid_t owner)
{
    (void)arg;
    return owner != getpid();
}

/* Only what is empty goes: walls that live are in no danger. */
static void sweep(struct spawner *spawner)
{
    if (spawner->unswept)
        spawner->unswept = bly_cgroup_sweep(spawner->origin->bounding.cgroup.fd, is_not_ours, NULL);
}

static void reaped(void *arg, pid_t pid, int status)
{
    struct spawner *spawner = arg;
    struct child *child;

    LIST_FOREACH(child, &spawner->children, entry)
    if (child->pid == pid)
        break;
    if (child == NULL)
        return; /* an orphan */

    take_reports(child); /* What it said before it died comes first. */
    if (!child->started && !child->failed)
        failed_silently(child);
    child->status = final_status(child, status);
    if (!child->failed)
        exited(child);
    LIST_REMOVE(child, entry);
    close_report(child);
    remove_cgroup(spawner, child->cgroup);
    free(child);
}

static void on_signal(struct spawner *spawner)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    while (read(spawner->signal_fd, &info, sizeof(info)) == sizeof(info))
        if (info.ssi_signo == SIGTERM)
            spawner->ending = true;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        reaped(spawner, pid, status);
    sweep(spawner);
}

/*
 * A child in its own namespaces. Not clone3 where there is no cgroup to be born in: container
 * runtimes forbid it more often.
 */
static pid_t clone_child(uint64_t flags, int cgroup_fd)
{
    if (cgroup_fd >= 0)
        return bly_cgroup_clone(cgroup_fd, flags);
    return (pid_t)syscall(SYS_clone, (unsigned long)flags | SIGCHLD, 0UL, 0UL, 0UL, 0UL);
}

/*
 * Supplementary groups stay effective in a new user namespace and cannot be dropped in there, so a
 * privileged server drops them around the clone. Without the privilege they stay (sandbox.md 6.1).
 */
static pid_t clone_walled(uint64_t flags, int cgroup_fd)
{
    int n = getgroups(0, NULL);
    bly_autofree gid_t *groups = n > 0 ? calloc((size_t)n, sizeof(*groups)) : NULL;
    bool dropped = groups != NULL && getgroups(n, groups) == n && setgroups(0, NULL) == 0;
    pid_t pid = clone_child(flags, cgroup_fd);
    int saved = errno;

    if (pid != 0 && dropped && setgroups((size_t)n, groups) < 0)
        _exit(1); /* Nothing may be started with other groups than the server's. */
    errno = saved;
    return pid;
}

/* Read here and inherited by the child, which builds the wall from it. */
static int read_plan(const struct bly_request *request, struct bly_plan **ret_plan,
                     struct bly_err *err)
{
    struct bly_reader reader = bly_reader_of(request->plan, request->plan_len);
    int r = bly_plan_unpack(&reader, ret_plan);

    return r < 0 ? bly_fail(err, BLY_ERR_UNSUPPORTED, -r, "the plan is malformed") : 0;
}

/* Which wall this plan gets, and what its first process must be born with. */
static int choose_wall(const struct spawner *spawner, struct bly_child_setup *setup,
                       uint64_t *ret_flags, struct bly_err *err)
{
    int r = bly_rung_choose(&spawner->origin->features, setup->plan, err);

    if (r > 0)
        setup->rung = (unsigned)r;
    *ret_flags = r == BLY_RUNG_NAMESPACES ? bly_wall_clone_flags(setup->plan) : 0;
    return r < 0 ? r : 0;
}

/* A program's wall gets its bounds; a helper starts nothing, and has its limits from its seal. */
static int bound(struct spawner *spawner, struct bly_child_setup *setup, uint64_t flags,
                 struct child *child, int *ret_cgroup_fd, struct bly_err *err)
{
    const struct bly_bounding *bounding = &spawner->origin->bounding;
    enum bly_bound by;
    int r;

    if (child->kind == HELPER)
        return 0;
    r = bly_bounding_choose(bounding, flags, &by, err);
    if (r < 0)
        return r;
    if (by == BLY_BOUND_NAMESPACE)
        setup->max_tasks = bounding->max.tasks;
    if (by != BLY_BOUND_CGROUP)
        return 0;
    r = bly_cgroup_add(bounding->cgroup.fd, spawner->last_cgroup + 1, &bounding->max, ret_cgroup_fd,
                       err);
    if (r == 0)
        child->cgroup = ++spawner->last_cgroup;
    if (r == 0 || bounding->must_hold)
        return r;
    bly_log(BLY_LOG_WARN, "unbounded", "reason=\"%s\"", err->text);
    bly_err_clear(err);
    return 0;
}

static int fork_walled(struct spawner *spawner, struct bly_child_setup *setup, struct child *child,
                       struct bly_err *err)
{
    bly_autofd int cgroup_fd = -EBADF;
    struct bly_plan *plan = NULL;
    uint64_t flags = 0;
    int r = bly_origin_prepare(spawner->origin, err);

    if (r == 0)
        r = read_plan(setup->request, &plan, err);
    setup->plan = plan;
    if (r == 0)
        r = choose_wall(spawner, setup, &flags, err);
    if (r == 0)
        r = bound(spawner, setup, flags, child, &cgroup_fd, err);
    if (r < 0)
        goto fail;

    child->pid = clone_walled(flags, cgroup_fd);
    if (child->pid == 0 && child->kind == HELPER)
        bly_child_helper(setup);
    if (child->pid == 0)
        bly_child_walled(setup);
    if (child->pid > 0) {
        (void)bly_plan_free(plan);
        return 0;
    }
    r = bly_fail_sys(err, errno, "the kernel refuses new namespaces");
    remove_cgroup(spawner, child->cgroup);

fail:
    (void)bly_plan_free(plan);
    if (err->kind == BLY_ERR_NONE)
        (void)bly_fail(err, BLY_ERR_UNSUPPORTED, -r, "%s", strerrordesc_np(-r));
    err->kind = BLY_ERR_UNSUPPORTED;
    return bly_because(err, r, "sandbox unavailable");
}

static int fork_child(struct spawner *spawner, struct bly_child_setup *setup, struct child *child,
                      struct bly_err *err)
{
    if (child->kind != DIRECT)
        return fork_walled(spawner, setup, child, err);

    child->pid = fork();
    if (child->pid == 0)
        bly_child_direct(setup);
    return child->pid > 0 ? 0 : bly_fail(err, BLY_ERR_SPAWN, errno, "cannot fork");
}

/* Non-blocking for the server only: a helper waits in read. */
static int open_helper_socket(struct bly_stdio *stdio)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    *stdio =
        (struct bly_stdio){.child = {pair[0], -EBADF, -EBADF}, .server = {-EBADF, pair[1], -EBADF}};
    if (fcntl(pair[1], F_SETFL, O_NONBLOCK) < 0) {
        int r = -errno;

        bly_stdio_close(stdio);
        return r;
    }
    return 0;
}

static int open_channels(const struct bly_request *request, struct bly_stdio *ret_stdio,
                         int report[2])
{
    int r;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) < 0)
        return -errno;
    if (request->helper)
        r = open_helper_socket(ret_stdio);
    else if (request->tty && request->plan_len > 0)
        r = bly_stdio_none(ret_stdio); /* Pid 1 opens it in the view and sends the master. */
    else
        r = bly_stdio_open(request->tty, request->pipe_stdin, ret_stdio);
    if (r < 0) {
        report[0] = bly_close(report[0]);
        report[1] = bly_close(report[1]);
    }
    return r;
}

static int watch(int epoll_fd, int fd, void *what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};

    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static void setup_init(struct bly_child_setup *setup, const struct spawner *spawner,
                       const struct bly_request *request, const struct bly_stdio *stdio,
                       int report_fd)
{
    *setup = (struct bly_child_setup){.request = request,
                                      .helper_main = spawner->origin->helper_main,
                                      .parent = getpid(),
                                      .nofile = spawner->origin->nofile,
                                      .report_fd = report_fd,
                                      .helper_fd = stdio->child[0]};
    memcpy(setup->stdio, stdio->child, sizeof(setup->stdio));
}

/* `child` is in the list on success. */
static int launch(struct spawner *spawner, const struct bly_request *request, struct child *child,
                  struct bly_err *err)
{
    struct bly_stdio stdio;
    struct bly_child_setup setup;
    int report[2];
    int r = open_channels(request, &stdio, report);

    if (r < 0)
        return bly_fail(err, BLY_ERR_SPAWN, -r, "cannot open pipes or terminal");

    r = watch(spawner->epoll_fd, report[0], child);
    if (r < 0)
        (void)bly_fail(err, BLY_ERR_SPAWN, -r, "cannot watch one more process");
    if (r == 0) {
        setup_init(&setup, spawner, request, &stdio, report[1]);
        r = fork_child(spawner, &setup, child, err);
        child->rung = setup.rung;
    }
    (void)bly_close(report[1]);
    bly_stdio_close_child(&stdio);
    child->report_fd = report[0];
    if (r < 0) {
        close_report(child);
        bly_stdio_close(&stdio);
        return r;
    }
    memcpy(child->fds, stdio.server, sizeof(child->fds));
    LIST_INSERT_HEAD(&spawner->children, child, entry);
    return 0;
}

/* False: the request is malformed. */
static bool on_start(struct spawner *spawner, const struct bly_packet *packet)
{
    struct bly_request request;
    struct bly_err err = {0};
    struct child *child;
    int r = bly_request_unpack(packet, &request);

    if (r == -EBADMSG)
        return false;
    child = r < 0 ? NULL : calloc(1, sizeof(*child));
    if (child == NULL)
        return false; /* Without memory there is not even an answer. */

    child->spawner = spawner;
    child->id = request.id;
    child->kind = request.helper ? HELPER : request.plan_len > 0 ? WALLED : DIRECT;
    if (launch(spawner, &request, child, &err) < 0) {
        tell_failed(request.id, &err);
        free(child);
    }
    bly_request_deinit(&request);
    return true;
}

static void deliver(struct child *child, int sig)
{
    const struct bly_order order = {.sig = sig};

    if (sig == SIGKILL)
        child->killed = true;
    /* Without a pid namespace its tree does not die with it: it has to end that first. */
    if (sig == SIGKILL && child->kind == WALLED && child->rung == BLY_RUNG_LANDLOCK &&
        child->started && child->report_fd >= 0) {
        (void)send(child->report_fd, &order, sizeof(order), MSG_NOSIGNAL | MSG_DONTWAIT);
    } else if (sig == SIGKILL || child->kind == HELPER) {
        /* Before the program runs there may be no group yet; a wall dies with its pid 1. */
        if (child->kind != DIRECT || !child->started || kill(-child->pid, sig) < 0)
            (void)kill(child->pid, sig);
    } else if (child->started && child->kind == DIRECT) {
        (void)kill(-child->pid, sig);
    } else if (child->started && child->report_fd >= 0) {
        (void)send(child->report_fd, &order, sizeof(order), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

static bool on_signal_request(struct spawner *spawner, const struct bly_packet *packet)
{
    struct bly_reader reader = bly_reader_of(packet->payload, packet->len);
    uint64_t id = bly_get_u64(&reader);
    uint32_t sig = bly_get_u32(&reader);
    struct child *child;

    if (reader.bad || sig == 0 || sig >= NSIG)
        return false;
    /* One that is not in the list has been reaped: its number may be somebody else's by now. */
    LIST_FOREACH(child, &spawner->children, entry)
    if (child->id == id)
        deliver(child, (int)sig);
    return true;
}

/* One packet. False: nothing more for now; sets `ending` when there never will be. */
static bool serve(struct spawner *spawner)
{
    bly_autopacket struct bly_packet packet = {0};
    int r = bly_wire_recv(BLY_SOCKET_FD, &packet);
    bool sound = false;

    if (r == -EAGAIN)
        return false;
    if (r == 0 && (packet.type == BLY_WIRE_START || packet.type == BLY_WIRE_HELPER))
        sound = on_start(spawner, &packet);
    else if (r == 0 && packet.type == BLY_WIRE_SIGNAL)
        sound = on_signal_request(spawner, &packet);

    if (!sound)
        spawner->ending = true;
    return sound;
}

static void loop(struct spawner *spawner)
{
    while (!spawner->ending) {
        struct epoll_event events[MAX_EVENTS];
        int n = epoll_wait(spawner->epoll_fd, events, MAX_EVENTS, -1);
        bool signalled = false, asked = false;

        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &spawner->signal_fd)
                signalled = true;
            else if (events[i].data.ptr == spawner)
                asked = true;
            else
                take_reports(events[i].data.ptr);
        }
        /* Last: reaping frees children that other events of this round may speak of. */
        if (signalled)
            on_signal(spawner);
        for (int i = 0; asked && i < MAX_PACKETS && serve(spawner); i++)
            ;
    }
}

static int spawner_init(struct spawner *spawner)
{
    int r;

    LIST_INIT(&spawner->children);
    spawner->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    spawner->signal_fd = bly_caretaker_init("bailey-spawner");
    if (spawner->epoll_fd < 0 || spawner->signal_fd < 0)
        return spawner->epoll_fd < 0 ? -errno : spawner->signal_fd;

    /* Children count on it that everything meant for them is above what they use (child.c). */
    for (int fd = BLY_SOCKET_FD + 1; fd < FIRST_CHILD_FD; fd++)
        if (fcntl(fd, F_GETFD) < 0 && dup3(STDIN_FILENO, fd, O_CLOEXEC) < 0)
            return -errno;

    r = watch(spawner->epoll_fd, spawner->signal_fd, &spawner->signal_fd);
    return r < 0 ? r : watch(spawner->epoll_fd, BLY_SOCKET_FD, spawner);
}

void bly_spawner_main(struct bly_origin *origin, pid_t launcher)
{
    struct spawner spawner = {.origin = origin};
    int r = spawner_init(&spawner);

    if (r < 0) {
        bly_log(BLY_LOG_ERROR, "spawner-failed", "error=\"%s\"", strerrordesc_np(-r));
        _exit(1);
    }
    if (getppid() != launcher) /* It died before it could be watched. */
        _exit(1);

    loop(&spawner);
    if (bly_tree_end(END_MS, reaped, &spawner) < 0)
        bly_log(BLY_LOG_WARN, "processes-left", "reason=\"they could not be killed\"");
    sweep(&spawner);
    _exit(0);
}
