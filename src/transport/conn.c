#include "transport/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "transport/http.h"
#include "transport/outbox.h"
#include "transport/ws.h"

enum {
    /* After our last word the peer may finish reading it: closing a socket with unread bytes in it
     * resets the connection and can take away what we said. */
    LINGER_MS = 2000,
    READ_MAX = 256 << 10, /* bytes per read into a large message: stays in the cache */
    /* Connections above the limit that still get a proper 503. */
    TURNED_AWAY_MAX = 64,
    TRY_AGAIN_LATER = 1013,
    REQUEST_TIMEOUT = 408,
    STALL_MS = 5000, /* a timer that comes later than this says that the whole loop stood still */
};

enum conn_state {
    CONN_HANDSHAKE,
    CONN_OPEN,
    CONN_ENDING, /* the last bytes go out, then the socket ends; what arrives is dropped */
    CONN_GONE,   /* the handles are closing */
};

struct probe {
    struct probe *next;
    uint64_t since_ms, timeout_ms;
    void (*done)(void *arg, bool alive);
    void *arg;
    bool alive;
};

struct bly_conn {
    struct bly_endpoint *endpoint;
    enum conn_state state;
    /* Of one stream type or another; only accept_stream() knows which. */
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
    } io;
    uv_timer_t timer;
    uv_shutdown_t shutdown;
    /* While reading is paused libuv does not watch the socket at all. A second descriptor for it,
     * watched for nothing but the peer's end, does. Made at the first pause. */
    uv_poll_t hangup;
    int hangup_fd;
    bool has_hangup;
    unsigned n_handles;

    char *head; /* handshake: what has arrived of it, when it did not come at once */
    size_t head_len;
    struct bly_ws_receiver in;
    struct bly_outbox out;
    bool was_full;   /* a drained() is owed */
    bool said_all;   /* ENDING: the queue is out, the sending side is shut down */
    bool paused;     /* by the user */
    bool owes_close; /* the user has had opened() and not yet closed() */
    void *user;
    const char *reason; /* why it ended */
    char reason_text[160];

    uint64_t deadline_ms; /* HANDSHAKE, ENDING: when patience ends */
    uint64_t heard_ms, ping_ms, due_ms;
    struct probe *probes;
    char peer[80];
};

struct bly_endpoint *bly_endpoint_ref(struct bly_endpoint *endpoint)
{
    endpoint->refs++;
    return endpoint;
}

struct bly_endpoint *bly_endpoint_unref(struct bly_endpoint *endpoint)
{
    if (endpoint && --endpoint->refs == 0)
        free(endpoint);
    return NULL;
}

static uint64_t now_ms(const struct bly_conn *conn)
{
    return uv_now(conn->endpoint->loop);
}

static bool counts(enum conn_state state)
{
    return state == CONN_HANDSHAKE || state == CONN_OPEN;
}

static void set_state(struct bly_conn *conn, enum conn_state state)
{
    if (counts(conn->state) && !counts(state))
        conn->endpoint->n_welcome--;
    conn->state = state;
}

/* The end */

static void forget_probes(struct bly_conn *conn)
{
    while (conn->probes) {
        struct probe *next = conn->probes->next;

        free(conn->probes);
        conn->probes = next;
    }
}

static void tell_closed(struct bly_conn *conn)
{
    const struct bly_endpoint *endpoint = conn->endpoint;

    forget_probes(conn);
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
    tell_closed(conn);
    bly_outbox_deinit(&conn->out);
    bly_ws_receiver_deinit(&conn->in);
    free(conn->head);
    conn->endpoint->n_all--;
    bly_endpoint_unref(conn->endpoint);
    free(conn);
}

static void close_handle(uv_handle_t *handle)
{
    uv_close(handle, on_handle_closed);
}

/* Ends it without another word. The callback comes from the loop, never from here. */
static void conn_gone(struct bly_conn *conn, const char *reason)
{
    if (conn->state == CONN_GONE)
        return;
    if (!conn->reason)
        conn->reason = reason;
    set_state(conn, CONN_GONE);
    close_handle(&conn->io.handle);
    close_handle((uv_handle_t *)&conn->timer);
    if (conn->has_hangup)
        close_handle((uv_handle_t *)&conn->hangup);
}

static void tell_refused(const struct bly_conn *conn, int status)
{
    const struct bly_endpoint *endpoint = conn->endpoint;

    if (endpoint->ops.refused)
        endpoint->ops.refused(endpoint->arg, conn->peer, status);
}

/* Time */

static void on_timer(uv_timer_t *timer);

static uint64_t next_deadline(const struct bly_conn *conn)
{
    const struct bly_limits *limits = conn->endpoint->limits;
    uint64_t next, silent;

    if (conn->state != CONN_OPEN)
        return conn->owes_close ? 0 : conn->deadline_ms;

    next = conn->ping_ms;
    silent = conn->heard_ms + limits->silence_ms;
    if (silent < next)
        next = silent;
    for (const struct probe *p = conn->probes; p; p = p->next) {
        if (p->since_ms + p->timeout_ms < next)
            next = p->since_ms + p->timeout_ms;
    }
    return next;
}

static void arm(struct bly_conn *conn)
{
    uint64_t now = now_ms(conn), next;

    if (conn->state == CONN_GONE)
        return;
    next = next_deadline(conn);
    conn->due_ms = next > now ? next : now;
    uv_timer_start(&conn->timer, on_timer, conn->due_ms - now, 0);
}

/*
 * When the peer last gave a sign of life. While we do not read, pongs cannot reach us; then the
 * kernel's word for it counts that the other side still acknowledges what it is sent.
 */
static uint64_t last_heard(const struct bly_conn *conn)
{
    uint64_t heard_ms = conn->heard_ms, now = now_ms(conn);
    struct tcp_info info;
    socklen_t len = sizeof(info);
    uv_os_fd_t fd;

    if (!conn->paused || uv_fileno(&conn->io.handle, &fd) < 0)
        return heard_ms;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
        return heard_ms;
    if (info.tcpi_last_ack_recv <= now && now - info.tcpi_last_ack_recv > heard_ms)
        heard_ms = now - info.tcpi_last_ack_recv;
    return heard_ms;
}

/* Takes the probes out of the list that can be answered now; all of them when something came. */
static struct probe *due_probes(struct bly_conn *conn, bool heard)
{
    struct probe **link = &conn->probes, *due = NULL;

    while (*link) {
        struct probe *p = *link;

        p->alive = heard || (conn->paused && last_heard(conn) > p->since_ms);
        if (!p->alive && now_ms(conn) < p->since_ms + p->timeout_ms) {
            link = &p->next;
            continue;
        }
        *link = p->next;
        p->next = due;
        due = p;
    }
    return due;
}

static void answer_probes(struct bly_conn *conn, bool heard)
{
    struct probe *due = due_probes(conn, heard);

    while (due) {
        struct probe *p = due;

        due = p->next;
        p->done(p->arg, p->alive);
        free(p);
    }
}

static void check_life(struct bly_conn *conn)
{
    const struct bly_limits *limits = conn->endpoint->limits;
    uint64_t now = now_ms(conn);

    conn->heard_ms = last_heard(conn);
    if (now - conn->heard_ms >= limits->silence_ms) {
        snprintf(conn->reason_text, sizeof(conn->reason_text), "silent for %llu ms",
                 (unsigned long long)limits->silence_ms);
        conn_gone(conn, conn->reason_text);
        return;
    }
    if (now >= conn->ping_ms) {
        conn->ping_ms = now + limits->ping_ms;
        if (bly_outbox_ping(&conn->out) < 0)
            conn_gone(conn, "cannot send");
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct bly_conn *conn = timer->data;

    /* A stopped or suspended server: it was us who did not listen, not the peer who was silent. */
    if (now_ms(conn) > conn->due_ms + STALL_MS)
        conn->heard_ms = now_ms(conn);

    if (conn->state == CONN_OPEN) {
        answer_probes(conn, false);
        if (conn->state == CONN_OPEN)
            check_life(conn);
    } else if (conn->state == CONN_ENDING && conn->owes_close) {
        tell_closed(conn);
    } else if (conn->state != CONN_GONE && now_ms(conn) >= conn->deadline_ms) {
        if (conn->state == CONN_HANDSHAKE)
            tell_refused(conn, REQUEST_TIMEOUT);
        conn_gone(conn, "out of time");
    }
    arm(conn);
}

/* Sending */

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct bly_conn *conn = request->data;

    if (status < 0)
        conn_gone(conn, "cannot shut down");
}

/* ENDING: when the last byte is out the peer learns that nothing more comes. */
static void say_goodbye(struct bly_conn *conn)
{
    if (conn->state != CONN_ENDING || conn->said_all || !bly_outbox_is_empty(&conn->out))
        return;
    conn->said_all = true;
    if (uv_shutdown(&conn->shutdown, &conn->io.stream, on_shutdown) < 0)
        conn_gone(conn, "cannot shut down");
}

static void on_progress(void *arg)
{
    struct bly_conn *conn = arg;
    uint64_t limit = conn->endpoint->limits->output_queue_bytes;

    if (conn->state == CONN_GONE)
        return;
    if (conn->out.error < 0) {
        conn_gone(conn, uv_strerror(conn->out.error));
        return;
    }
    if (conn->state == CONN_OPEN && conn->was_full && bly_outbox_bytes(&conn->out) < limit / 2) {
        conn->was_full = false;
        conn->endpoint->ops.drained(conn->user, conn);
    }
    say_goodbye(conn);
}

static int after_send(struct bly_conn *conn, int r)
{
    if (r < 0 && conn->out.error < 0)
        conn_gone(conn, uv_strerror(conn->out.error));
    else if (bly_outbox_bytes(&conn->out) > conn->endpoint->limits->output_queue_bytes)
        conn->was_full = true;
    return r;
}

int bly_conn_send(struct bly_conn *conn, void *mem, size_t off, size_t len)
{
    if (conn->state != CONN_OPEN) {
        free(mem);
        return -EPIPE;
    }
    return after_send(conn, bly_outbox_message(&conn->out, mem, off, len));
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
    if (conn->state == CONN_OPEN)
        tail = bly_ws_receiver_tail(&conn->in, &room);
    if (tail)
        *buf = uv_buf_init((char *)tail, (unsigned)(room < READ_MAX ? room : READ_MAX));
    else
        *buf = uv_buf_init((char *)conn->endpoint->scratch, sizeof(conn->endpoint->scratch));
}

static void begin_end(struct bly_conn *conn, const char *reason);

static void on_peer_close(struct bly_conn *conn, uint16_t code)
{
    snprintf(conn->reason_text, sizeof(conn->reason_text), "closed by the client, code %u", code);
    bly_outbox_close(&conn->out, code, "");
    begin_end(conn, conn->reason_text);
}

static void on_event(struct bly_conn *conn, const struct bly_ws_event *event)
{
    switch (event->type) {
    case BLY_WS_EVENT_MESSAGE:
        conn->endpoint->ops.message(conn->user, conn, event->text, event->len);
        break;
    case BLY_WS_EVENT_PING:
        if (bly_outbox_pong(&conn->out, event->payload, event->payload_len) < 0)
            conn_gone(conn, "cannot send");
        break;
    case BLY_WS_EVENT_CLOSE:
        on_peer_close(conn, event->code);
        break;
    case BLY_WS_EVENT_PONG:
    case BLY_WS_MORE:
        break;
    }
}

static void take_frames(struct bly_conn *conn, uint8_t *data, size_t len)
{
    size_t at = 0;

    while (at < len && conn->state == CONN_OPEN) {
        struct bly_ws_event event;
        size_t used;

        if (bly_ws_receive(&conn->in, data + at, len - at, &used, &event) < 0) {
            bly_conn_close(conn, event.code, event.reason);
            return;
        }
        at += used;
        on_event(conn, &event);
    }
}

static void conn_open(struct bly_conn *conn)
{
    const struct bly_endpoint *endpoint = conn->endpoint;

    set_state(conn, CONN_OPEN);
    conn->ping_ms = now_ms(conn) + endpoint->limits->ping_ms;
    bly_ws_receiver_init(&conn->in, BLY_WS_SERVER, endpoint->limits->message_bytes);
    arm(conn);

    conn->owes_close = true;
    if (endpoint->ops.opened(endpoint->arg, conn, &conn->user) < 0) {
        conn->owes_close = false;
        bly_conn_close(conn, TRY_AGAIN_LATER, "the server cannot take this connection");
    }
}

/* Whether there is room, and the owner says so. */
static bool is_welcome(const struct bly_endpoint *endpoint, bool (*ask)(void *arg))
{
    return endpoint->n_welcome <= endpoint->limits->connections && (!ask || ask(endpoint->arg));
}

static const struct bly_http_verdict *judge_http(const struct bly_endpoint *endpoint, int parsed,
                                                 const char *head,
                                                 const struct bly_http_request *request)
{
    const struct bly_http_terms terms = {
        .ready = is_welcome(endpoint, endpoint->ops.ready),
        .welcome = is_welcome(endpoint, endpoint->ops.welcome),
        .metrics = endpoint->ops.metrics != NULL,
        .auth = endpoint->ops.auth,
        .now_s = time(NULL),
    };

    return bly_http_judge(parsed, head, request, &terms);
}

static int send_http(struct bly_conn *conn, const struct bly_http_verdict *verdict,
                     const struct bly_http_request *request)
{
    const struct bly_endpoint *endpoint = conn->endpoint;
    bly_autobuf struct bly_buf metrics, answer;
    int r;

    bly_buf_init(&metrics, BLY_HTTP_ANSWER_MAX);
    bly_buf_init(&answer, BLY_HTTP_ANSWER_MAX);
    if (!verdict->body)
        endpoint->ops.metrics(endpoint->arg, &metrics);
    r = metrics.error ? metrics.error : bly_http_answer(verdict, request, &metrics, &answer);
    return r < 0 ? r : bly_outbox_raw(&conn->out, answer.data, answer.len);
}

static void answer_http(struct bly_conn *conn, int parsed, const char *head,
                        const struct bly_http_request *request)
{
    const struct bly_http_verdict *verdict = judge_http(conn->endpoint, parsed, head, request);

    /* That the server is not ready is news about the server. */
    if (verdict->status >= 400 && request->path != BLY_HTTP_READYZ)
        tell_refused(conn, verdict->status);
    if (send_http(conn, verdict, request) < 0)
        conn_gone(conn, "cannot send");
    else if (verdict->status == 101)
        conn_open(conn);
    else
        begin_end(conn, verdict->phrase);
}

/* Keeps what has come of an incomplete head. */
static int keep_head(struct bly_conn *conn, const uint8_t *data, size_t len)
{
    char *head = realloc(conn->head, conn->head_len + len);

    if (!head)
        return -ENOMEM;
    memcpy(head + conn->head_len, data, len);
    conn->head = head;
    conn->head_len += len;
    return 0;
}

static void take_head(struct bly_conn *conn, uint8_t *data, size_t len)
{
    struct bly_http_request request = {0};
    bly_autofree uint8_t *kept = NULL;
    size_t used = 0;
    int r;

    if (conn->head_len > 0) {
        if (keep_head(conn, data, len) < 0) {
            conn_gone(conn, "out of memory");
            return;
        }
        data = (uint8_t *)conn->head;
        len = conn->head_len;
    }

    r = bly_http_parse((const char *)data, len, &request, &used);
    if (r == -EAGAIN) {
        if (conn->head_len == 0 && keep_head(conn, data, len) < 0)
            conn_gone(conn, "out of memory");
        return;
    }

    kept = (uint8_t *)bly_take_ptr(&conn->head);
    conn->head_len = 0;
    answer_http(conn, r, (const char *)data, &request);
    take_frames(conn, data + used, len - used);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct bly_conn *conn = stream->data;

    if (n < 0) {
        conn_gone(conn, n == UV_EOF ? "end of file" : uv_strerror((int)n));
        return;
    }
    if (n == 0)
        return;

    conn->heard_ms = now_ms(conn);
    if (conn->probes)
        answer_probes(conn, true);
    if (conn->state == CONN_HANDSHAKE)
        take_head(conn, (uint8_t *)buf->base, (size_t)n);
    else if (conn->state == CONN_OPEN)
        take_frames(conn, (uint8_t *)buf->base, (size_t)n);
}

/* Pausing */

static void on_hangup(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    conn_gone(poll->data, "hang-up");
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

static void start_reading(struct bly_conn *conn)
{
    if (conn->has_hangup)
        uv_poll_stop(&conn->hangup);
    if (uv_read_start(&conn->io.stream, on_alloc, on_read) < 0)
        conn_gone(conn, "cannot read");
}

void bly_conn_pause(struct bly_conn *conn, bool paused)
{
    if (conn->state != CONN_OPEN || conn->paused == paused)
        return;

    if (paused) {
        uv_read_stop(&conn->io.stream);
        watch_hangup(conn);
        conn->paused = true;
    } else {
        /* The silence was ours. */
        conn->heard_ms = now_ms(conn);
        conn->paused = false;
        start_reading(conn);
    }
}

/* Ending in order */

/* Sends what is queued, then ends; the user is told from the loop, without waiting for the peer. */
static void begin_end(struct bly_conn *conn, const char *reason)
{
    if (!counts(conn->state))
        return;
    if (conn->out.error < 0) {
        conn_gone(conn, uv_strerror(conn->out.error));
        return;
    }
    conn->reason = reason;
    set_state(conn, CONN_ENDING);
    conn->deadline_ms = now_ms(conn) + LINGER_MS;
    if (conn->paused) {
        conn->paused = false;
        start_reading(conn);
    }
    say_goodbye(conn);
    arm(conn);
}

void bly_conn_close(struct bly_conn *conn, uint16_t code, const char *reason)
{
    if (conn->state != CONN_OPEN)
        return;
    snprintf(conn->reason_text, sizeof(conn->reason_text), "closed with code %u: %s", code, reason);
    bly_outbox_close(&conn->out, code, reason);
    begin_end(conn, conn->reason_text);
}

void bly_conn_drop(struct bly_conn *conn)
{
    conn_gone(conn, "dropped");
}

int bly_conn_probe(struct bly_conn *conn, uint64_t timeout_ms, void (*done)(void *arg, bool alive),
                   void *arg)
{
    struct probe *p = malloc(sizeof(*p));

    if (!p)
        return -ENOMEM;
    *p = (struct probe){.next = conn->probes,
                        .since_ms = now_ms(conn),
                        .timeout_ms = timeout_ms,
                        .done = done,
                        .arg = arg};
    conn->probes = p;
    /* A socket that cannot be written to has its end coming; then nobody is called. */
    if (conn->state == CONN_OPEN)
        after_send(conn, bly_outbox_ping(&conn->out));
    arm(conn);
    return 0;
}

const char *bly_conn_peer(const struct bly_conn *conn)
{
    return conn->peer;
}

/* The beginning */

static int name_peer(struct bly_conn *conn)
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

static int accept_stream(struct bly_conn *conn, uv_stream_t *server)
{
    int r = uv_accept(server, &conn->io.stream);

    if (r < 0)
        return r;
    /* Without it the second of two answers waits 40 ms for an acknowledgement. */
    r = uv_tcp_nodelay(&conn->io.tcp, 1);
    return r < 0 ? r : name_peer(conn);
}

static int begin(struct bly_conn *conn, uv_stream_t *server)
{
    const struct bly_endpoint *endpoint = conn->endpoint;
    int r = accept_stream(conn, server);

    if (r < 0)
        return r;
    if (endpoint->n_all > endpoint->limits->connections + TURNED_AWAY_MAX)
        return -EMFILE;
    return uv_read_start(&conn->io.stream, on_alloc, on_read);
}

int bly_conn_accept(struct bly_endpoint *endpoint, uv_stream_t *server)
{
    struct bly_conn *conn = calloc(1, sizeof(*conn));
    int r;

    if (!conn)
        return -ENOMEM;

    conn->endpoint = bly_endpoint_ref(endpoint);
    conn->hangup_fd = -EBADF;
    conn->heard_ms = uv_now(endpoint->loop);
    conn->deadline_ms = conn->heard_ms + endpoint->limits->handshake_ms;
    conn->shutdown.data = conn;
    endpoint->n_all++;
    endpoint->n_welcome++;

    /* Neither can fail: no descriptor is involved yet. */
    uv_tcp_init(endpoint->loop, &conn->io.tcp);
    uv_timer_init(endpoint->loop, &conn->timer);
    conn->io.handle.data = conn->timer.data = conn;
    conn->n_handles = 2;
    bly_outbox_init(&conn->out, &conn->io.stream, on_progress, conn);

    r = begin(conn, server);
    if (r < 0)
        conn_gone(conn, uv_strerror(r));
    arm(conn);
    return r;
}
