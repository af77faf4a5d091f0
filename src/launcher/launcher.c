#include "launcher/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "launcher/bounds.h"
#include "launcher/launcher_internal.h"
#include "launcher/probe.h"
#include "launcher/spawner_main.h"

enum { CLOSE_MS = 15000 }; /* the launcher itself gives up on what it cannot kill before this */

struct bly_launcher {
    uv_loop_t *loop;
    pid_t pid;
    int life_fd; /* its other end is the launcher's alone: it closes with its death */
    int sock;    /* -EBADF once closed */
    uv_poll_t death_poll, sock_poll;
    uv_timer_t kill_timer;
    unsigned n_open; /* handles */
    struct bly_wire_queue outbox;
    uint64_t last_id;
    bool reaped, closing;
    void (*on_death)(void *arg);
    void *on_death_arg;
    void (*learnt)(void *arg, const struct bly_features *features); /* NULL: nobody waits for it */
    void *learnt_arg;
    void (*done)(void *arg);
    void *done_arg;
};

static _Noreturn void exec_launcher(const char *self_exe, int sock, int life_fd)
{
    char *argv[] = {(char[]){"bailey"}, (char[]){BLY_LAUNCHER_ARG}, NULL};
    char *envp[] = {NULL};
    int null_fd = open("/dev/null", O_RDWR); /* stays open: NOLINT(android-cloexec-open) */

    /* Both were opened by a program whose 0 to 2 are taken, and are moved out of each other's way.
     */
    sock = fcntl(sock, F_DUPFD_CLOEXEC, BLY_LIFE_FD + 1);
    life_fd = fcntl(life_fd, F_DUPFD_CLOEXEC, BLY_LIFE_FD + 1);
    if (null_fd < 0 || sock < 0 || life_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 ||
        dup2(null_fd, STDOUT_FILENO) < 0 || dup2(sock, BLY_SOCKET_FD) < 0 ||
        dup2(life_fd, BLY_LIFE_FD) < 0 || close_range(BLY_LIFE_FD + 1, ~0U, 0) < 0)
        _exit(1);
    (void)execve(self_exe, argv, envp);
    bly_log(BLY_LOG_ERROR, "launcher-exec-failed", "program=\"%s\" error=\"%s\"", self_exe,
            strerrordesc_np(errno));
    _exit(127);
}

static int fork_launcher(struct bly_launcher *launcher, const char *self_exe, struct bly_err *err)
{
    bly_autofd int theirs = -EBADF, life_end = -EBADF;
    int pair[2], life[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return bly_fail_sys(err, errno, "cannot open a socket for the launcher");
    launcher->sock = pair[0];
    theirs = pair[1];
    if (pipe2(life, O_CLOEXEC) < 0)
        return bly_fail_sys(err, errno, "cannot open a pipe for the launcher");
    launcher->life_fd = life[0];
    life_end = life[1];
    launcher->pid = fork();
    if (launcher->pid == 0)
        exec_launcher(self_exe, theirs, life_end);
    return launcher->pid < 0 ? bly_fail_sys(err, errno, "cannot fork the launcher") : 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct bly_launcher *launcher = handle->data;

    if (--launcher->n_open > 0)
        return;
    bly_wire_queue_deinit(&launcher->outbox);
    (void)bly_close(launcher->life_fd);
    if (launcher->done != NULL)
        launcher->done(launcher->done_arg);
    free(launcher);
}

/* The handle before its descriptor: libuv takes the number out of the epoll set. */
static void close_sock(struct bly_launcher *launcher)
{
    uv_close((uv_handle_t *)&launcher->sock_poll, on_handle_closed);
    launcher->sock = bly_close(launcher->sock);
}

static void finish(struct bly_launcher *launcher)
{
    uv_close((uv_handle_t *)&launcher->death_poll, on_handle_closed);
    uv_close((uv_handle_t *)&launcher->kill_timer, on_handle_closed);
}

static void on_dead(uv_poll_t *poll, int status, int events)
{
    struct bly_launcher *launcher = poll->data;

    (void)status;
    (void)events;
    if (waitpid(launcher->pid, NULL, WNOHANG) == 0)
        return; /* Its descriptors are closed a little before it can be reaped: once more, at once.
                 */
    launcher->reaped = true;
    (void)uv_poll_stop(poll);
    if (launcher->closing)
        finish(launcher);
    else if (launcher->on_death != NULL)
        launcher->on_death(launcher->on_death_arg);
}

static void watch_sock(struct bly_launcher *launcher);

/* The only thing it ever says. Whatever else comes is dropped: it is this program. */
static void take_features(struct bly_launcher *launcher)
{
    bly_autopacket struct bly_packet packet = {0};
    struct bly_features features;
    struct bly_reader reader;
    int r = bly_wire_recv(launcher->sock, &packet);

    if (r == -EAGAIN)
        return;
    reader = bly_reader_of(packet.payload, packet.len);
    if (r != 0 || packet.type != BLY_WIRE_FEATURES || bly_features_unpack(&reader, &features) < 0)
        r = -EBADMSG;
    if (r == 0)
        launcher->learnt(launcher->learnt_arg, &features);
    launcher->learnt = NULL;
}

static void on_sock(uv_poll_t *poll, int status, int events)
{
    struct bly_launcher *launcher = poll->data;

    (void)events;
    if (launcher->learnt != NULL)
        take_features(launcher);
    /* An error needs no answer here: the launcher is dead then, and its pipe says so. */
    if (status < 0 || bly_wire_queue_flush(&launcher->outbox, launcher->sock) < 0)
        (void)uv_poll_stop(poll);
    else
        watch_sock(launcher);
}

static void watch_sock(struct bly_launcher *launcher)
{
    int events = (launcher->learnt != NULL ? UV_READABLE : 0) |
                 (bly_wire_queue_is_empty(&launcher->outbox) ? 0 : UV_WRITABLE);

    if (events == 0)
        (void)uv_poll_stop(&launcher->sock_poll);
    else
        (void)uv_poll_start(&launcher->sock_poll, events, on_sock);
}

static void on_kill_timer(uv_timer_t *timer)
{
    struct bly_launcher *launcher = timer->data;

    if (!launcher->reaped)
        (void)kill(launcher->pid, SIGKILL);
}

/* Cannot fail half-way: each uv init below only fails for a bad descriptor, and these are ours. */
static int watch(struct bly_launcher *launcher, struct bly_err *err)
{
    int r = uv_poll_init(launcher->loop, &launcher->death_poll, launcher->life_fd);

    if (r == 0)
        r = uv_poll_start(&launcher->death_poll, UV_READABLE, on_dead);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot watch the launcher");
    if (uv_poll_init(launcher->loop, &launcher->sock_poll, launcher->sock) < 0 ||
        uv_timer_init(launcher->loop, &launcher->kill_timer) < 0)
        abort();
    launcher->death_poll.data = launcher;
    launcher->sock_poll.data = launcher;
    launcher->kill_timer.data = launcher;
    launcher->n_open = 3;
    return 0;
}

/* The first packet, into an empty socket. */
static int send_bounds(struct bly_launcher *launcher, const struct bly_bounds *bounds,
                       struct bly_err *err)
{
    static const struct bly_bounds none;
    bly_autobuf struct bly_buf buf;
    int r;

    bly_buf_init(&buf, BLY_WIRE_INLINE_MAX);
    r = bly_bounds_pack(bounds != NULL ? bounds : &none, &buf);
    if (r == 0)
        r = bly_wire_send(launcher->sock, BLY_WIRE_BOUNDS, &buf, NULL, 0, false);
    return r < 0 ? bly_fail_sys(err, -r, "cannot tell the launcher its bounds") : 0;
}

int bly_launcher_start(uv_loop_t *loop, const struct bly_runtime_paths *paths,
                       const struct bly_bounds *bounds, void (*on_death)(void *arg), void *arg,
                       struct bly_launcher **ret_launcher, struct bly_err *err)
{
    struct bly_launcher *launcher = calloc(1, sizeof(*launcher));
    int r;

    if (launcher == NULL)
        return -ENOMEM;
    launcher->loop = loop;
    launcher->sock = launcher->life_fd = -EBADF;
    launcher->on_death = on_death;
    launcher->on_death_arg = arg;
    bly_wire_queue_init(&launcher->outbox);

    /* A program may close its stdin at any time; that must be an error of write(2), not our end. */
    (void)signal(SIGPIPE, SIG_IGN);

    r = fork_launcher(launcher, paths->self_exe, err);
    if (r == 0)
        r = send_bounds(launcher, bounds, err);
    if (r == 0)
        r = watch(launcher, err);
    if (r < 0) {
        (void)bly_close(launcher->sock);
        (void)bly_close(launcher->life_fd);
        if (launcher->pid > 0)
            (void)waitpid(launcher->pid, NULL, 0); /* Its socket is closed: it ends. */
        free(launcher);
        return r;
    }
    *ret_launcher = launcher;
    return 0;
}

void bly_launcher_close(struct bly_launcher *launcher, void (*done)(void *arg), void *arg)
{
    launcher->closing = true;
    launcher->done = done;
    launcher->done_arg = arg;
    close_sock(launcher); /* This is what tells it to end. */
    if (launcher->reaped)
        finish(launcher);
    else
        (void)uv_timer_start(&launcher->kill_timer, on_kill_timer, CLOSE_MS, 0);
}

uv_loop_t *bly_launcher_loop(const struct bly_launcher *launcher)
{
    return launcher->loop;
}

static int tell(struct bly_launcher *launcher, enum bly_wire_type type, uint64_t id, int fd)
{
    bly_autobuf struct bly_buf buf;
    int r;

    bly_buf_init(&buf, sizeof(id));
    if (launcher->sock < 0 || launcher->reaped) {
        (void)bly_close(fd);
        return -EPIPE;
    }
    (void)bly_buf_put_u64(&buf, id);
    r = bly_wire_queue_send(&launcher->outbox, launcher->sock, type, &buf, fd);
    if (r == 0 && !bly_wire_queue_is_empty(&launcher->outbox))
        watch_sock(launcher);
    return r;
}

int bly_launcher_add_spawner(struct bly_launcher *launcher, int socket_fd, uint64_t *ret_id)
{
    int r = tell(launcher, BLY_WIRE_SPAWNER, launcher->last_id + 1, socket_fd);

    if (r == 0)
        *ret_id = ++launcher->last_id;
    return r;
}

int bly_launcher_allow(struct bly_launcher *launcher, unsigned allowances)
{
    return tell(launcher, BLY_WIRE_ALLOW, allowances, -EBADF);
}

void bly_launcher_learn(struct bly_launcher *launcher,
                        void (*learnt)(void *arg, const struct bly_features *features), void *arg)
{
    launcher->learnt = learnt;
    launcher->learnt_arg = arg;
    watch_sock(launcher);
}

void bly_launcher_kill_spawner(struct bly_launcher *launcher, uint64_t id)
{
    (void)tell(launcher, BLY_WIRE_KILL, id, -EBADF);
}
