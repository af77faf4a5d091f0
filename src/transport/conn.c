#include "transport/conn_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/limits.h"

enum {
    READ_MAX = 256 << 10, /* bytes per read into a large message: stays in the cache */
    /* Connections above the limit that still get a proper 503. */
    TURNED_AWAY_MAX = 64,
    TRY_AGAIN_LATER = 1013,
};

static bool counts(enum bly_conn_state state)
{
    return state == BLY_CONN_BEGINNING || state == BLY_CONN_OPEN;
}

static void set_state(struct bly_conn *conn, enum bly_conn_state state)
{
    if (counts(conn->state) && !counts(state))
        conn->endpoint->n_welcome--;
    conn->state = state;
}

/* The end */

void bly_conn_tell_closed(struct bly_conn *conn)
{
    const struct bly_endpoint *endpoint = conn->endpoint;

    bly_conn_forget_probes(conn);
    if (!conn->owes_close)
        return;
    conn->owes_close = false;
    endpoint->ops.closed(conn->user, conn, conn->reason);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct bly_conn *conn = handle->data;

    if (--conn->n_handles > 0)
        return;

    bly_close(conn->hangup_fd);
    bly_conn_tell_closed(conn);
    bly_outbox_deinit(&conn->out);
    conn->framing->deinit(conn);
    free(conn->head);
    conn->endpoint->n_all--;
    bly_endpoint_unref(conn->endpoint);
    free(conn);
}

static void close_handle(uv_handle_t *handle)
{
    uv_close(handle, on_handle_closed);
}

void bly_conn_gone(struct bly_conn *conn, const char *reason)
{
    if (conn->state == BLY_CONN_GONE)
        return;
    if (!conn->reason)
        conn->reason = reason;
    set_state(conn, BLY_CONN_GONE);
    close_handle(&conn->io.handle);
    close_handle((uv_handle_t *)&conn->timer);
    if (conn->has_hangup)
        close_handle((uv_handle_t *)&conn->hangup);
}

void bly_conn_drop(struct bly_conn *conn)
{
    bly_conn_gone(conn, "dropped");
}

/* Sending */

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct bly_conn *conn = request->data;

    if (status < 0)
        bly_conn_gone(conn, "cannot shut down");
    else if (!conn->framing->is_remote)
        bly_conn_gone(conn, "end of file");
}

/* ENDING: when the last byte is out the peer learns that nothing more comes. */
static void say_goodbye(struct bly_conn *conn)
{
    if (conn->state != BLY_CONN_ENDING || conn->said_all || !bly_outbox_is_empty(&conn->out))
        return;
    conn->said_all = true;
    if (uv_shutdown(&conn->shutdown, &conn->io.stream, on_shutdown) < 0)
        bly_conn_gone(conn, "cannot shut down");
}

static void on_progress(void *arg)
{
    struct bly_conn *conn = arg;
    uint64_t limit = conn->endpoint->limits->output_queue_bytes;

    if (conn->state == BLY_CONN_GONE)
        return;
    if (conn->out.error < 0) {
        bly_conn_gone(conn, uv_strerror(conn->out.error));
        return;
    }
    /* A pipe that is still being read may take its time. */
    if (conn->state == BLY_CONN_ENDING && !conn->framing->is_remote)
        conn->deadline_ms = bly_conn_now_ms(conn) + BLY_CONN_LINGER_MS;
    if (conn->state == BLY_CONN_OPEN && conn->was_full &&
        bly_outbox_bytes(&conn->out) < limit / 2) {
        conn->was_full = false;
        conn->endpoint->ops.drained(conn->user, conn);
    }
    say_goodbye(conn);
}

int bly_conn_after_send(struct bly_conn *conn, int r)
{
    if (r < 0 && conn->out.error < 0)
        bly_conn_gone(conn, uv_strerror(conn->out.error));
    else if (bly_outbox_bytes(&conn->out) > conn->endpoint->limits->output_queue_bytes)
        conn->was_full = true;
    return r;
}

int bly_conn_send(struct bly_conn *conn, void *mem, size_t off, size_t len)
{
    if (conn->state != BLY_CONN_OPEN) {
        free(mem);
        return -EPIPE;
    }
    return bly_conn_after_send(conn, bly_outbox_message(&conn->out, mem, off, len));
}

size_t bly_conn_queued_bytes(const struct bly_conn *conn)
{
    return bly_outbox_bytes(&conn->out);
}

/* Receiving */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct bly_conn *conn = handle->data;
    size_t room = 0;
    uint8_t *tail = NULL;

    (void)suggested;
    if (conn->state == BLY_CONN_OPEN)
        tail = conn->framing->tail(conn, &room);
    if (tail)
        *buf = uv_buf_init((char *)tail, (unsigned)(room < READ_MAX ? room : READ_MAX));
    else
        *buf = uv_buf_init((char *)conn->endpoint->scratch, sizeof(conn->endpoint->scratch));
}

static void on_read_end(struct bly_conn *conn, int error)
{
    if (error != UV_EOF)
        bly_conn_gone(conn, uv_strerror(error));
    else if (conn->state == BLY_CONN_OPEN)
        conn->framing->end_of_file(conn);
    else if (conn->framing->is_remote)
        bly_conn_gone(conn, "end of file");
    else
        uv_read_stop(&conn->io.stream); /* what we have to say still goes out */
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct bly_conn *conn = stream->data;

    if (n < 0) {
        on_read_end(conn, (int)n);
        return;
    }
    if (n == 0)
        return;

    bly_conn_heard(conn);
    if (conn->state == BLY_CONN_BEGINNING)
        bly_conn_take_head(conn, (uint8_t *)buf->base, (size_t)n);
    else if (conn->state == BLY_CONN_OPEN)
        conn->framing->take(conn, (uint8_t *)buf->base, (size_t)n);
}

static void start_reading(struct bly_conn *conn)
{
    if (conn->has_hangup)
        uv_poll_stop(&conn->hangup);
    if (uv_read_start(&conn->io.stream, on_alloc, on_read) < 0)
        bly_conn_gone(conn, "cannot read");
}

void bly_conn_open(struct bly_conn *conn)
{
    const struct bly_endpoint *endpoint = conn->endpoint;

    set_state(conn, BLY_CONN_OPEN);
    conn->ping_ms = bly_conn_now_ms(conn) + endpoint->limits->ping_ms;
    conn->framing->init(conn);
    bly_conn_arm(conn);

    conn->owes_close = true;
    if (endpoint->ops.opened(endpoint->arg, conn, &conn->user) < 0) {
        conn->owes_close = false;
        bly_conn_close(conn, TRY_AGAIN_LATER, "the server cannot take this connection");
    }
}

/* Pausing */

static void on_hangup(uv_poll_t *poll, int status, int events)
{
    struct bly_conn *conn = poll->data;

    (void)status;
    (void)events;
    if (conn->framing->is_remote) {
        bly_conn_gone(conn, "hang-up");
        return;
    }
    /* What a pipe still holds was sent in good order and counts. It is not much. */
    conn->paused = false;
    start_reading(conn);
}

/* Without a descriptor to spare the end is noticed later: by silence, or when reading goes on. */
static void watch_hangup(struct bly_conn *conn)
{
    uv_os_fd_t fd;

    if (!conn->has_hangup) {
        if (uv_fileno(&conn->io.handle, &fd) < 0)
            return;
        conn->hangup_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (conn->hangup_fd < 0)
            return;
        if (uv_poll_init(conn->endpoint->loop, &conn->hangup, conn->hangup_fd) < 0) {
            conn->hangup_fd = bly_close(conn->hangup_fd);
            return;
        }
        conn->hangup.data = conn;
        conn->has_hangup = true;
        conn->n_handles++;
    }
    uv_poll_start(&conn->hangup, UV_DISCONNECT, on_hangup);
}

void bly_conn_pause(struct bly_conn *conn, bool paused)
{
    if (conn->state != BLY_CONN_OPEN || conn->deaf || conn->paused == paused)
        return;

    if (paused) {
        uv_read_stop(&conn->io.stream);
        watch_hangup(conn);
        conn->paused = true;
    } else {
        /* The silence was ours. */
        conn->heard_ms = bly_conn_now_ms(conn);
        conn->paused = false;
        start_reading(conn);
    }
}

/* Ending in order */

void bly_conn_begin_end(struct bly_conn *conn, const char *reason)
{
    if (!counts(conn->state))
        return;
    if (conn->out.error < 0) {
        bly_conn_gone(conn, uv_strerror(conn->out.error));
        return;
    }
    conn->reason = reason;
    set_state(conn, BLY_CONN_ENDING);
    conn->deadline_ms = bly_conn_now_ms(conn) + BLY_CONN_LINGER_MS;
    if (conn->paused) {
        conn->paused = false;
        start_reading(conn);
    }
    say_goodbye(conn);
    bly_conn_arm(conn);
}

void bly_conn_close(struct bly_conn *conn, uint16_t code, const char *reason)
{
    if (conn->state != BLY_CONN_OPEN)
        return;
    snprintf(conn->reason_text, sizeof(conn->reason_text), "closed with code %u: %s", code, reason);
    conn->framing->say_close(conn, code, reason);
    bly_conn_begin_end(conn, conn->reason_text);
}

const char *bly_conn_peer(const struct bly_conn *conn)
{
    return conn->peer;
}

bool bly_conn_is_stdio(const struct bly_conn *conn)
{
    return conn->framing == &bly_framing_lines;
}

/* The beginning */

static int name_tcp_peer(struct bly_conn *conn)
{
    struct sockaddr_storage address;
    char ip[INET6_ADDRSTRLEN];
    int len = sizeof(address);
    int r = uv_tcp_getpeername(&conn->io.tcp, (struct sockaddr *)&address, &len);

    if (r < 0)
        return r;
    if (address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address;

        inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip));
        snprintf(conn->peer, sizeof(conn->peer), "websocket [%s]:%u", ip, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)&address;

        inet_ntop(AF_INET, &in4->sin_addr, ip, sizeof(ip));
        snprintf(conn->peer, sizeof(conn->peer), "websocket %s:%u", ip, ntohs(in4->sin_port));
    }
    return 0;
}

static int begin_tcp(struct bly_conn *conn)
{
    /* Without it the second of two answers waits 40 ms for an acknowledgement. */
    int r = uv_tcp_nodelay(&conn->io.tcp, 1);

    return r < 0 ? r : name_tcp_peer(conn);
}

/* Whoever may connect to the socket file, only our own user and root are listened to. */
static int begin_unix(struct bly_conn *conn)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    uv_os_fd_t fd;
    int r = uv_fileno(&conn->io.handle, &fd);

    if (r < 0)
        return r;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return -errno;
    if (peer.uid != 0 && peer.uid != geteuid())
        return -EACCES;
    snprintf(conn->peer, sizeof(conn->peer), "websocket unix pid %d uid %u", (int)peer.pid,
             peer.uid);
    return 0;
}

static int begin(struct bly_conn *conn, uv_stream_t *server)
{
    const struct bly_endpoint *endpoint = conn->endpoint;
    int r = uv_accept(server, &conn->io.stream);

    if (r == 0)
        r = conn->io.handle.type == UV_TCP ? begin_tcp(conn) : begin_unix(conn);
    if (r < 0)
        return r;
    if (endpoint->n_all > endpoint->limits->connections + TURNED_AWAY_MAX)
        return -EMFILE;
    return uv_read_start(&conn->io.stream, on_alloc, on_read);
}

static struct bly_conn *conn_new(struct bly_endpoint *endpoint, const struct bly_framing *framing,
                                 uv_handle_type type)
{
    struct bly_conn *conn = calloc(1, sizeof(*conn));
    enum bly_out_framing out = framing->is_remote ? BLY_OUT_WS : BLY_OUT_LINES;

    if (!conn)
        return NULL;

    conn->endpoint = bly_endpoint_ref(endpoint);
    conn->framing = framing;
    conn->hangup_fd = -EBADF;
    conn->heard_ms = uv_now(endpoint->loop);
    conn->shutdown.data = conn;
    endpoint->n_all++;
    endpoint->n_welcome++;

    /* None of these can fail: no descriptor is involved yet. */
    if (type == UV_TCP)
        uv_tcp_init(endpoint->loop, &conn->io.tcp);
    else
        uv_pipe_init(endpoint->loop, &conn->io.pipe, 0);
    uv_timer_init(endpoint->loop, &conn->timer);
    conn->io.handle.data = conn->timer.data = conn;
    conn->n_handles = 2;
    bly_outbox_init(&conn->out, out, &conn->io.stream, on_progress, conn);
    return conn;
}

int bly_conn_accept(struct bly_endpoint *endpoint, uv_stream_t *server)
{
    struct bly_conn *conn = conn_new(endpoint, &bly_framing_ws, server->type);
    int r;

    if (!conn)
        return -ENOMEM;
    conn->deadline_ms = conn->heard_ms + endpoint->limits->handshake_ms;
    r = begin(conn, server);
    if (r < 0)
        bly_conn_gone(conn, uv_strerror(r));
    bly_conn_arm(conn);
    return r;
}

int bly_conn_begin_lines(struct bly_endpoint *endpoint, int fd)
{
    struct bly_conn *conn = conn_new(endpoint, &bly_framing_lines, UV_NAMED_PIPE);
    int r;

    if (!conn) {
        bly_close(fd);
        return -ENOMEM;
    }
    snprintf(conn->peer, sizeof(conn->peer), "stdio");
    r = uv_pipe_open(&conn->io.pipe, fd);
    if (r < 0)
        bly_close(fd);
    if (r == 0)
        r = uv_read_start(&conn->io.stream, on_alloc, on_read);
    if (r < 0)
        bly_conn_gone(conn, uv_strerror(r));
    bly_conn_arm(conn); /* it opens with the next turn of the loop */
    return r;
}
