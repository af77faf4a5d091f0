#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "floorserve/floor.h"
#include "support.h"
#include "transport/ws.h"

enum {
    EVENTS = 64,
    BACKLOG = 512,
    IN_BYTES = 1 << 20,
    RECEIVE_MAX = 512 << 10, /* stays in the cache until it is unmasked */
    ANSWER_MAX = 1024,       /* characters of a small answer */
    KEY_MAX = 64,
    HEAD_MIN = 6, /* of a masked frame */
};

static int epoll = -EBADF;
static struct source *dead;
static struct conn *conns;

/* ---- the loop ---- */

void floor_watch(struct source *source, int fd, void (*on_readable)(struct source *source))
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};

    source->fd = fd;
    source->on_readable = on_readable;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        bench_die("cannot watch a descriptor: %s", strerrordesc_np(errno));
}

void floor_unwatch(struct source *source)
{
    if (source->fd < 0)
        return;
    (void)epoll_ctl(epoll, EPOLL_CTL_DEL, source->fd, NULL);
    source->fd = bly_close(source->fd);
}

void floor_free_later(struct source *source)
{
    source->next_dead = dead;
    dead = source;
}

static void free_dead(void)
{
    while (dead) {
        struct source *next = dead->next_dead;

        free(dead);
        dead = next;
    }
}

static _Noreturn void run_loop(void)
{
    struct epoll_event events[EVENTS];

    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            struct source *source = events[i].data.ptr;

            if (source->fd >= 0)
                source->on_readable(source);
        }
        free_dead();
    }
}

/* ---- out ---- */

void conn_add_head(struct conn *conn, size_t len)
{
    uint8_t head[BLY_WS_HEAD_MAX];

    (void)bly_buf_add(&conn->out, head, bly_ws_put_header(head, BLY_WS_TEXT, true, len, NULL));
}

void conn_answer(struct conn *conn, const char *fmt, ...)
{
    char text[ANSWER_MAX];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(text))
        bench_die("an answer is longer than ANSWER_MAX");
    conn_add_head(conn, (size_t)n);
    (void)bly_buf_add(&conn->out, text, (size_t)n);
}

void conn_fail(struct conn *conn, long id, int error)
{
    conn_answer(conn, "{\"id\":%ld,\"error\":{\"code\":-32603,\"message\":\"%s\"}}", id,
                strerrordesc_np(error));
}

void conn_flush(struct conn *conn)
{
    size_t sent = 0;

    while (sent < conn->out.len) {
        ssize_t n =
            send(conn->source.fd, conn->out.data + sent, conn->out.len - sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break; /* reading will tell that the client has gone */
        sent += (size_t)n;
    }
    bench_empty(&conn->out);
}

/* ---- in ---- */

static void free_conn(struct conn *conn)
{
    programs_free(conn);
    *conn->link = conn->next;
    if (conn->next)
        conn->next->link = conn->link;
    floor_unwatch(&conn->source);
    bly_buf_deinit(&conn->out);
    bly_buf_deinit(&conn->write.around);
    bly_buf_deinit(&conn->write.decoded);
    free(conn->in);
    floor_free_later(&conn->source);
}

struct conn *conn_next(struct conn *conn)
{
    return conn ? conn->next : conns;
}

/* Answers the upgrade once all of it is here. */
static void upgrade(struct conn *conn)
{
    static const char name[] = "sec-websocket-key:";
    char *text = (char *)conn->in, *end = memmem(conn->in, conn->end, "\r\n\r\n", 4), *key;
    char accept[BLY_WS_ACCEPT_LEN + 1];

    if (!end)
        return;
    *end = '\0';
    key = strcasestr(text, name);
    if (!key)
        bench_die("an upgrade without a key");
    key += strlen(name);
    key += strspn(key, " ");
    bly_ws_accept(key, strcspn(key, "\r\n "), accept);
    (void)bly_buf_printf(&conn->out,
                         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                         accept);
    conn->at = (size_t)(end - text) + 4;
    conn->is_upgraded = true;
}

/* More payload of a large frame: unmasked, decoded, forgotten. */
static void take_large(struct conn *conn)
{
    uint8_t *data = conn->in + conn->at;
    size_t n = conn->end - conn->at;

    if (n > conn->left)
        n = conn->left;
    bly_ws_mask(data, data, n, conn->mask, conn->done);
    request_feed_large(conn, data, n);
    conn->at += n;
    conn->done += n;
    conn->left -= n;
    if (conn->left > 0 || !conn->is_last)
        return;
    request_end_large(conn);
    conn->is_large = false;
}

static size_t head_len(const uint8_t *head)
{
    size_t len = head[1] & 127;

    return HEAD_MIN + (len == 126 ? 2 : len == 127 ? 8 : 0);
}

static uint64_t payload_len(const uint8_t *head)
{
    uint64_t len = 0;

    if ((head[1] & 127) < 126)
        return head[1] & 127;
    for (size_t i = 2; i < head_len(head) - 4; i++)
        len = len << 8 | head[i];
    return len;
}

/* The next frame, or the next part of a large one. False: more has to arrive first. */
static bool take_frame(struct conn *conn)
{
    uint8_t *head = conn->in + conn->at;
    size_t have = conn->end - conn->at, skip;
    uint64_t len;

    if (have < HEAD_MIN || have < head_len(head))
        return false;
    skip = head_len(head);
    len = payload_len(head);
    if (len > FLOOR_PIECE || conn->is_large) {
        memcpy(conn->mask, head + skip - 4, 4);
        conn->is_large = true;
        conn->is_last = head[0] & 0x80;
        conn->left = len;
        conn->done = 0;
        conn->at += skip;
        return true;
    }
    if (have < skip + len)
        return false;
    conn->at += skip + len;
    bly_ws_mask(head + skip, head + skip, len, head + skip - 4, 0);
    if ((head[0] & 0x0f) == BLY_WS_TEXT)
        request_take(conn, (struct span){(char *)head + skip, (char *)head + skip + len});
    return true;
}

static void take_all(struct conn *conn)
{
    if (!conn->is_upgraded)
        upgrade(conn);
    while (conn->is_upgraded && conn->at < conn->end) {
        if (conn->left > 0)
            take_large(conn);
        else if (!take_frame(conn))
            break;
    }
}

static void make_room(struct conn *conn)
{
    memmove(conn->in, conn->in + conn->at, conn->end - conn->at);
    conn->end -= conn->at;
    conn->at = 0;
}

static void on_bytes(struct source *source)
{
    struct conn *conn = (struct conn *)source;

    for (;;) {
        size_t room;
        ssize_t n;

        if (conn->at == conn->end || conn->cap - conn->end < (size_t)FLOOR_PIECE * 2)
            make_room(conn);
        room = conn->cap - conn->end;
        if (room > RECEIVE_MAX)
            room = RECEIVE_MAX;
        n = recv(source->fd, conn->in + conn->end, room, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            free_conn(conn);
            return;
        }
        if (n < 0)
            break;
        conn->end += (size_t)n;
        take_all(conn);
        if ((size_t)n < room)
            break;
    }
    conn_flush(conn);
}

static void on_connection(struct source *source)
{
    const int on = 1;
    int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);
    struct conn *conn;

    if (fd < 0)
        return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    conn = bench_alloc(1, sizeof(*conn));
    conn->cap = IN_BYTES;
    conn->in = bench_alloc(1, conn->cap);
    bly_buf_init(&conn->out, BENCH_BUF_MAX);
    bly_buf_init(&conn->write.around, BENCH_BUF_MAX);
    bly_buf_init(&conn->write.decoded, BENCH_BUF_MAX);
    conn->next = conns;
    conn->link = &conns;
    if (conns)
        conns->link = &conn->next;
    conns = conn;
    floor_watch(&conn->source, fd, on_bytes);
}

static int listen_at(const char *port)
{
    const int on = 1;
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, BACKLOG) < 0)
        bench_die("cannot listen: %s", strerrordesc_np(errno));
    return fd;
}

int main(int argc, char **argv)
{
    static const char prefix[] = "ws://127.0.0.1:";
    struct source listener;

    if (argc != 3 || strcmp(argv[1], "--listen") != 0 ||
        strncmp(argv[2], prefix, strlen(prefix)) != 0) {
        (void)fprintf(stderr, "usage: floorserve --listen ws://127.0.0.1:PORT\n"
                              "a lower bound for execbench; never use it for anything else\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    floor_watch(&listener, listen_at(argv[2] + strlen(prefix)), on_connection);
    run_loop();
}
