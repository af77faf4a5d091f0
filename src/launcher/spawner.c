#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "launcher/launcher.h"
#include "launcher/launcher_internal.h"
#include "launcher/request.h"
#include "sandbox/enforce/rung.h"

enum { CLOSE_MS = 2000, MAX_PACKETS = 64, KILLED = SIGKILL /* as a wait status */ };

/* The connection to one spawner process. A spawner makes a new one when the process has died. */
struct link {
    struct bly_spawner *spawner; /* NULL once the link is dead */
    uint64_t id;                 /* of the process, for the launcher */
    int sock;
    uv_poll_t poll;
    int events; /* watched; libuv makes two system calls even of a start that changes nothing */
    struct bly_wire_queue outbox;
    LIST_HEAD(, bly_child) children;
};

struct bly_child {
    LIST_ENTRY(bly_child) entry;
    struct link *link;
    uint64_t id;
    bool started;
    unsigned rung;
    bool refused;
    const struct bly_child_ops *ops;
    void *arg;
};

struct bly_spawner {
    struct bly_launcher *launcher;
    struct link *link; /* NULL: no process, none was needed yet or it died */
    uint64_t last_id;
    uv_timer_t timer; /* limits a close, and carries its end */
    bool closing;
    void (*done)(void *arg);
    void *done_arg;
};

static void on_timer_closed(uv_handle_t *handle)
{
    struct bly_spawner *spawner = handle->data;

    if (spawner->done != NULL)
        spawner->done(spawner->done_arg);
    free(spawner);
}

static void finish_close(struct bly_spawner *spawner)
{
    uv_close((uv_handle_t *)&spawner->timer, on_timer_closed);
}

static void on_link_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;

    bly_wire_queue_deinit(&link->outbox);
    free(link);
}

static void report_failed(struct bly_child *child, const struct bly_err *err)
{
    LIST_REMOVE(child, entry);
    child->ops->started(child->arg, 0, -EBADF, -EBADF, -EBADF, err);
    free(child);
}

static void report_exited(struct bly_child *child, int status)
{
    LIST_REMOVE(child, entry);
    child->ops->exited(child->arg, status);
    free(child);
}

/* The process is gone, or no longer to be trusted: so are its children. */
static void link_die(struct link *link)
{
    struct bly_spawner *spawner = link->spawner;
    bool closing = spawner->closing; /* A close from a callback below finishes by itself. */

    spawner->link = NULL;
    link->spawner = NULL;
    /* Before its descriptor: libuv takes the number out of the epoll set, whoever has it by then.
     */
    uv_close((uv_handle_t *)&link->poll, on_link_closed);
    link->sock = bly_close(link->sock);

    while (!LIST_EMPTY(&link->children)) {
        struct bly_child *child = LIST_FIRST(&link->children);
        struct bly_err err;

        if (child->started) {
            report_exited(child, KILLED);
            continue;
        }
        (void)bly_fail(&err, BLY_ERR_SPAWN, 0, "the process that starts programs has ended");
        report_failed(child, &err);
    }
    if (closing)
        finish_close(spawner);
}

static void link_watch(struct link *link);

static struct bly_child *find(const struct link *link, uint64_t id)
{
    struct bly_child *child;

    LIST_FOREACH(child, &link->children, entry)
    if (child->id == id)
        return child;
    return NULL;
}

static void on_descriptors_lost(struct bly_child *child)
{
    struct bly_err err;

    bly_child_signal(child, SIGKILL);
    (void)bly_fail(&err, BLY_ERR_SPAWN, EMFILE, "cannot open more descriptors");
    report_failed(child, &err);
}

static int on_started(const struct link *link, struct bly_packet *packet, struct bly_reader *reader)
{
    struct bly_child *child = find(link, bly_get_u64(reader));
    pid_t pid = (pid_t)bly_get_u32(reader);
    unsigned mask = bly_get_u8(reader);
    unsigned rung = bly_get_u8(reader);
    int fds[BLY_WIRE_MAX_FDS] = {-EBADF, -EBADF, -EBADF};
    size_t n = 0;

    if (reader->bad || mask >= 1U << BLY_WIRE_MAX_FDS || rung > BLY_RUNG_LANDLOCK)
        return -EBADMSG;
    if (!packet->fds_lost && packet->n_fds != (size_t)__builtin_popcount(mask))
        return -EBADMSG;
    if (child == NULL)
        return 0; /* one whose descriptors were lost; these are closed with the packet */
    if (child->started)
        return -EBADMSG;
    if (packet->fds_lost) {
        on_descriptors_lost(child);
        return 0;
    }

    for (unsigned i = 0; i < BLY_WIRE_MAX_FDS; i++)
        if (mask & (1U << i))
            fds[i] = bly_take_fd(&packet->fds[n++]);
    child->started = true;
    child->rung = rung;
    child->ops->started(child->arg, pid, fds[0], fds[1], fds[2], NULL);
    return 0;
}

static int on_failed(const struct link *link, struct bly_reader *reader)
{
    struct bly_child *child = find(link, bly_get_u64(reader));
    uint32_t kind = bly_get_u32(reader);
    int sys = (int)bly_get_u32(reader);
    bly_autofree char *text = bly_get_str(reader);
    struct bly_err err;

    if (reader->bad || text == NULL || kind == BLY_ERR_NONE || kind > BLY_ERR_BUG || sys < 0)
        return -EBADMSG;
    if (child == NULL)
        return 0;
    if (child->started)
        return -EBADMSG;
    (void)bly_fail(&err, (enum bly_err_kind)kind, sys, "%s", text);
    report_failed(child, &err);
    return 0;
}

static int on_exited(const struct link *link, struct bly_reader *reader)
{
    struct bly_child *child = find(link, bly_get_u64(reader));
    int status = (int)bly_get_u32(reader);
    unsigned refused = bly_get_u8(reader);

    if (reader->bad || refused > 1 || (child != NULL && !child->started))
        return -EBADMSG;
    if (child == NULL)
        return 0;
    child->refused = refused;
    report_exited(child, status);
    return 0;
}

static int dispatch(const struct link *link, struct bly_packet *packet)
{
    struct bly_reader reader = bly_reader_of(packet->payload, packet->len);

    if (packet->type == BLY_WIRE_STARTED)
        return on_started(link, packet, &reader);
    if (packet->type == BLY_WIRE_FAILED)
        return on_failed(link, &reader);
    if (packet->type == BLY_WIRE_EXITED)
        return on_exited(link, &reader);
    return -EBADMSG;
}

/* 0 when there may be more, -EAGAIN when there is nothing, else the link is done for. */
static int receive(struct link *link)
{
    bly_autopacket struct bly_packet packet = {0};
    int r = bly_wire_recv(link->sock, &packet);

    if (r == BLY_WIRE_END)
        return -EPIPE;
    return r < 0 ? r : dispatch(link, &packet);
}

static void on_link_event(uv_poll_t *poll, int status, int events)
{
    struct link *link = poll->data;
    int r = 0;

    (void)events;
    /* With an error pending, reading says whether there is anything left to come. */
    if (status == 0)
        r = bly_wire_queue_flush(&link->outbox, link->sock);
    for (int i = 0; i < MAX_PACKETS && (r == 0 || r == -EPIPE); i++) {
        int received = receive(link);

        if (received != 0) {
            r = received == -EAGAIN ? r : received;
            break;
        }
    }
    if (r < 0) {
        if (r == -EBADMSG)
            bly_log(BLY_LOG_ERROR, "spawner-malformed", "spawner=%" PRIu64, link->id);
        link_die(link);
        return;
    }
    link_watch(link);
}

static void link_watch(struct link *link)
{
    int events = UV_READABLE | (bly_wire_queue_is_empty(&link->outbox) ? 0 : UV_WRITABLE);

    if (events == link->events)
        return;
    link->events = events;
    (void)uv_poll_start(&link->poll, events, on_link_event);
}

static int link_new(struct bly_spawner *spawner, struct link **ret_link)
{
    bly_autofree struct link *link = calloc(1, sizeof(*link));
    bly_autofd int sock = -EBADF;
    int pair[2];
    int r;

    if (link == NULL)
        return -ENOMEM;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    sock = pair[0];
    r = bly_launcher_add_spawner(spawner->launcher, pair[1], &link->id);
    if (r == 0)
        r = uv_poll_init(bly_launcher_loop(spawner->launcher), &link->poll, sock);
    if (r < 0)
        return r;

    link->poll.data = link;
    link->spawner = spawner;
    link->sock = bly_take_fd(&sock);
    bly_wire_queue_init(&link->outbox);
    LIST_INIT(&link->children);
    link_watch(link);
    *ret_link = bly_take_ptr(&link);
    return 0;
}

int bly_spawner_new(struct bly_launcher *launcher, struct bly_spawner **ret_spawner)
{
    struct bly_spawner *spawner = calloc(1, sizeof(*spawner));
    int r;

    if (spawner == NULL)
        return -ENOMEM;
    spawner->launcher = launcher;
    r = uv_timer_init(bly_launcher_loop(launcher), &spawner->timer);
    if (r < 0) {
        free(spawner);
        return r;
    }
    spawner->timer.data = spawner;
    *ret_spawner = spawner;
    return 0;
}

static void on_close_limit(uv_timer_t *timer)
{
    struct bly_spawner *spawner = timer->data;

    bly_log(BLY_LOG_WARN, "spawner-stuck", "spawner=%" PRIu64, spawner->link->id);
    bly_launcher_kill_spawner(spawner->launcher, spawner->link->id);
    link_die(spawner->link);
}

void bly_spawner_close(struct bly_spawner *spawner, void (*done)(void *arg), void *arg)
{
    spawner->closing = true;
    spawner->done = done;
    spawner->done_arg = arg;
    if (spawner->link == NULL) {
        finish_close(spawner);
        return;
    }
    /* Half-closed, so that the exits still come; the other end's close is the last word. */
    bly_wire_queue_deinit(&spawner->link->outbox);
    (void)shutdown(spawner->link->sock, SHUT_WR);
    (void)uv_timer_start(&spawner->timer, on_close_limit, CLOSE_MS, 0);
}

/* Sends `buf` over the link, which is made first if there is none. */
static int post(struct bly_spawner *spawner, enum bly_wire_type type, struct bly_buf *buf)
{
    int r = 0;

    if (spawner->closing)
        return -EPIPE;
    if (spawner->link == NULL)
        r = link_new(spawner, &spawner->link);
    if (r == 0)
        r = bly_wire_queue_send(&spawner->link->outbox, spawner->link->sock, type, buf, -EBADF);
    if (r == 0 && !bly_wire_queue_is_empty(&spawner->link->outbox))
        link_watch(spawner->link);
    return r;
}

static int start(struct bly_spawner *spawner, enum bly_wire_type type, struct bly_buf *buf,
                 uint64_t id, const struct bly_child_ops *ops, void *arg,
                 struct bly_child **ret_child)
{
    struct bly_child *child = calloc(1, sizeof(*child));
    int r;

    if (child == NULL)
        return -ENOMEM;
    r = post(spawner, type, buf);
    if (r < 0) {
        free(child);
        return r;
    }
    child->link = spawner->link;
    child->id = id;
    child->ops = ops;
    child->arg = arg;
    LIST_INSERT_HEAD(&spawner->link->children, child, entry);
    spawner->last_id = id;
    *ret_child = child;
    return 0;
}

int bly_spawner_start(struct bly_spawner *spawner, const struct bly_spawn *spawn,
                      const struct bly_child_ops *ops, void *arg, struct bly_child **ret_child,
                      struct bly_err *err)
{
    uint64_t id = spawner->last_id + 1;
    bly_autobuf struct bly_buf buf;
    int r;

    bly_buf_init(&buf, BLY_WIRE_MAX);
    r = bly_request_pack_start(&buf, id, spawn);
    if (r == -EMSGSIZE)
        r = -E2BIG; /* Far above what any kernel takes. */
    if (r == 0)
        r = start(spawner, BLY_WIRE_START, &buf, id, ops, arg, ret_child);
    return r < 0 ? bly_fail(err, BLY_ERR_SPAWN, -r, "cannot ask for a process") : 0;
}

int bly_spawner_helper(struct bly_spawner *spawner, const struct bly_plan *plan,
                       const struct bly_child_ops *ops, void *arg, struct bly_child **ret_child,
                       struct bly_err *err)
{
    uint64_t id = spawner->last_id + 1;
    bly_autobuf struct bly_buf buf;
    int r;

    bly_buf_init(&buf, BLY_WIRE_MAX);
    r = bly_request_pack_helper(&buf, id, plan);
    if (r == 0)
        r = start(spawner, BLY_WIRE_HELPER, &buf, id, ops, arg, ret_child);
    return r < 0 ? bly_fail(err, BLY_ERR_SPAWN, -r, "cannot ask for a helper") : 0;
}

unsigned bly_child_rung(const struct bly_child *child)
{
    return child->rung;
}

bool bly_child_was_refused(const struct bly_child *child)
{
    return child->refused;
}

void bly_child_signal(struct bly_child *child, int sig)
{
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, 64);
    if (child->link->spawner == NULL)
        return; /* Its end is being reported. */
    (void)bly_buf_put_u64(&buf, child->id);
    (void)bly_buf_put_u32(&buf, (uint32_t)sig);
    (void)post(child->link->spawner, BLY_WIRE_SIGNAL, &buf);
}
