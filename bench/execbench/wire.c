#include "execbench/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "support.h"
#include "transport/ws.h"

enum {
    IN_BYTES = 256 << 10,
    GROW_BYTES = 1 << 20,  /* room beyond what is asked for */
    LEAST_ROOM = 4096,     /* for one recv() */
    FRAME_MAX = 15 << 20,  /* larger messages are split, */
    PIECE_MAX = 8 << 20,   /* into frames of this size */
    ANSWER_MAX = 64 << 10, /* bytes of an answer to the upgrade */
    KEY_BYTES = 16,
};

struct wire {
    int fd;
    uint8_t *in; /* in[at..end) has been received and not been handed out */
    size_t cap, at, end;
    struct bly_buf joined; /* a message of several frames */
    struct bly_buf out;
    bool is_dead;
};

struct frame {
    enum bly_ws_opcode opcode;
    bool fin;
    const uint8_t *data; /* borrowed from `in` */
    size_t len;
};

static int broken(struct wire *wire, struct bly_err *err, const char *why)
{
    wire->is_dead = true;
    return bly_fail(err, BLY_ERR_REMOTE, EPIPE, "%s", why);
}

/* ---- out ---- */

/* Masks need not be hard to guess here, only different. */
static void make_mask(uint8_t mask[4])
{
    static uint32_t seed = 0x9e3779b9;

    seed = seed * 1664525 + 1013904223;
    memcpy(mask, &seed, 4);
}

static void put_frame(struct wire *wire, enum bly_ws_opcode opcode, bool fin, const void *data,
                      size_t len)
{
    uint8_t head[BLY_WS_HEAD_MAX], mask[4];

    make_mask(mask);
    (void)bly_buf_add(&wire->out, head, bly_ws_put_header(head, opcode, fin, len, mask));
    if (bly_buf_reserve(&wire->out, len) < 0)
        bench_die("a message of %zu bytes is more than can be sent", len);
    bly_ws_mask(wire->out.data + wire->out.len, data, len, mask, 0);
    wire->out.len += len;
}

void wire_put(struct wire *wire, const void *text, size_t len)
{
    const uint8_t *from = text;
    size_t piece = len > FRAME_MAX ? PIECE_MAX : len, at = 0;

    do {
        size_t n = len - at < piece ? len - at : piece;

        put_frame(wire, at == 0 ? BLY_WS_TEXT : BLY_WS_CONTINUATION, at + n == len, from + at, n);
        at += n;
    } while (at < len);
}

int wire_flush(struct wire *wire, struct bly_err *err)
{
    size_t sent = 0;

    while (sent < wire->out.len) {
        ssize_t n = send(wire->fd, wire->out.data + sent, wire->out.len - sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return broken(wire, err, "the server cut the connection while a request was sent");
        sent += (size_t)n;
    }
    bench_empty(&wire->out);
    return 0;
}

/* ---- in ---- */

static void make_room(struct wire *wire, size_t want)
{
    if (wire->at == wire->end)
        wire->at = wire->end = 0;
    if (wire->at + want <= wire->cap && wire->cap - wire->end >= LEAST_ROOM)
        return;
    memmove(wire->in, wire->in + wire->at, wire->end - wire->at);
    wire->end -= wire->at;
    wire->at = 0;
    if (want + LEAST_ROOM <= wire->cap)
        return;
    wire->cap = want + GROW_BYTES;
    wire->in = realloc(wire->in, wire->cap);
    if (!wire->in)
        bench_die("out of memory");
}

/* Receives until `want` bytes are there. */
static int receive(struct wire *wire, size_t want, struct bly_err *err)
{
    while (wire->end - wire->at < want) {
        ssize_t n;

        make_room(wire, want);
        n = recv(wire->fd, wire->in + wire->end, wire->cap - wire->end, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return broken(wire, err, "no (further) message came in time");
        if (n <= 0)
            return broken(wire, err, "the server closed the connection");
        wire->end += (size_t)n;
    }
    return 0;
}

static size_t head_len(const uint8_t *head)
{
    return head[1] == 127 ? 10 : head[1] == 126 ? 4 : 2;
}

static uint64_t payload_len(const uint8_t *head)
{
    uint64_t len = 0;

    if (head[1] < 126)
        return head[1];
    for (size_t i = 2; i < head_len(head); i++)
        len = len << 8 | head[i];
    return len;
}

static int next_frame(struct wire *wire, struct frame *ret_frame, struct bly_err *err)
{
    size_t head;
    uint64_t len;
    int r = receive(wire, 2, err);

    if (r < 0)
        return r;
    if ((wire->in[wire->at] & 0x70) || (wire->in[wire->at + 1] & 0x80))
        return broken(wire, err, "a frame of the server has a mask or reserved bits");
    head = head_len(wire->in + wire->at);
    r = receive(wire, head, err);
    if (r < 0)
        return r;
    len = payload_len(wire->in + wire->at);
    if (len > BENCH_BUF_MAX)
        return broken(wire, err, "a frame of the server is too large");
    r = receive(wire, head + len, err);
    if (r < 0)
        return r;
    ret_frame->opcode = wire->in[wire->at] & 0x0f;
    ret_frame->fin = wire->in[wire->at] & 0x80;
    ret_frame->data = wire->in + wire->at + head;
    ret_frame->len = len;
    wire->at += head + len;
    return 0;
}

static int on_control(struct wire *wire, const struct frame *frame, struct bly_err *err)
{
    char why[128];

    if (frame->opcode == BLY_WS_PING) {
        put_frame(wire, BLY_WS_PONG, true, frame->data, frame->len);
        return wire_flush(wire, err);
    }
    if (frame->opcode == BLY_WS_PONG)
        return 0;
    (void)snprintf(why, sizeof(why), "the server closed: %.*s",
                   frame->len > 2 ? (int)frame->len - 2 : 0, (const char *)frame->data + 2);
    return broken(wire, err, why);
}

int wire_next(struct wire *wire, struct span *ret_message, struct bly_err *err)
{
    struct frame frame = {0};
    bool joins = false;

    bench_empty(&wire->joined);
    for (;;) {
        int r = next_frame(wire, &frame, err);

        if (r == 0 && frame.opcode >= BLY_WS_CLOSE)
            r = on_control(wire, &frame, err);
        if (r < 0)
            return r;
        if (frame.opcode >= BLY_WS_CLOSE)
            continue;
        if ((frame.opcode == BLY_WS_CONTINUATION) != joins)
            return broken(wire, err, "a message of the server has frames out of order");
        if (frame.fin && !joins)
            break;
        joins = true;
        if (bly_buf_add(&wire->joined, frame.data, frame.len) < 0)
            return broken(wire, err, "a message of the server is too large");
        if (frame.fin) {
            frame.data = wire->joined.data;
            frame.len = wire->joined.len;
            break;
        }
    }
    ret_message->at = (const char *)frame.data;
    ret_message->end = ret_message->at + frame.len;
    return 0;
}

bool wire_has_next(const struct wire *wire)
{
    const uint8_t *head = wire->in + wire->at;
    size_t have = wire->end - wire->at;

    return have >= 2 && have >= head_len(head) && have >= head_len(head) + payload_len(head);
}

/* ---- opening ---- */

/* Nothing but the system calls, because servers that start are polled with it. */
static int connect_to(unsigned port)
{
    const struct timeval limit = {.tv_sec = WIRE_TIMEOUT_S};
    const int on = 1;
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bly_autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
        return -errno;
    return bly_take_fd(&fd);
}

bool wire_can_connect(unsigned port)
{
    bly_autofd int fd = connect_to(port);

    return fd >= 0;
}

static void ask_upgrade(struct wire *wire, const char *key)
{
    (void)bly_buf_printf(&wire->out,
                         "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
                         "Sec-WebSocket-Version: 13\r\n\r\n",
                         key);
}

/* Takes the answer to the upgrade in; *ret_len is its length with the empty line. */
static int receive_answer(struct wire *wire, size_t *ret_len, struct bly_err *err)
{
    for (size_t want = 1; want <= ANSWER_MAX; want = wire->end + 1) {
        const uint8_t *end;
        int r = receive(wire, want, err);

        if (r < 0)
            return r;
        end = memmem(wire->in, wire->end, "\r\n\r\n", 4);
        if (end) {
            *ret_len = (size_t)(end - wire->in) + 4;
            return 0;
        }
    }
    return broken(wire, err, "the answer to the upgrade does not end");
}

/* `answer` is a string. */
static bool accepts(const char *answer, const char *accept)
{
    static const char name[] = "\r\nsec-websocket-accept:";
    const char *header = strcasestr(answer, name);

    if (strncmp(answer, "HTTP/1.1 101", 12) != 0 || !header)
        return false;
    header += strlen(name);
    header += strspn(header, " ");
    return strncmp(header, accept, BLY_WS_ACCEPT_LEN) == 0;
}

static int upgrade(struct wire *wire, struct bly_err *err)
{
    uint8_t random[KEY_BYTES];
    char key[32] = "", accept[BLY_WS_ACCEPT_LEN + 1];
    size_t len = 0;
    int r;

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return bly_fail_sys(err, EIO, "no random bytes");
    bly_base64_encode(random, sizeof(random), key);
    bly_ws_accept(key, bly_base64_len(sizeof(random)), accept);
    ask_upgrade(wire, key);
    r = wire_flush(wire, err);
    if (r == 0)
        r = receive_answer(wire, &len, err);
    if (r < 0)
        return r;
    wire->in[len - 2] = '\0';
    wire->at = len;
    return accepts((const char *)wire->in, accept) ? 0
                                                   : broken(wire, err, "the upgrade was refused");
}

int wire_open(unsigned port, struct wire **ret_wire, struct bly_err *err)
{
    int fd = connect_to(port);
    struct wire *wire;
    int r;

    if (fd < 0)
        return bly_fail_sys(err, -fd, "cannot connect");
    wire = bench_alloc(1, sizeof(*wire));
    wire->fd = fd;
    wire->cap = IN_BYTES;
    wire->in = bench_alloc(1, wire->cap);
    bly_buf_init(&wire->out, BENCH_BUF_MAX);
    bly_buf_init(&wire->joined, BENCH_BUF_MAX);
    r = upgrade(wire, err);
    if (r < 0)
        wire_free(wire);
    else
        *ret_wire = wire;
    return r;
}

void wire_free(struct wire *wire)
{
    if (!wire)
        return;
    (void)bly_close(wire->fd);
    bly_buf_deinit(&wire->out);
    bly_buf_deinit(&wire->joined);
    free(wire->in);
    free(wire);
}

int wire_fd(const struct wire *wire)
{
    return wire->fd;
}

bool wire_is_dead(const struct wire *wire)
{
    return wire->is_dead;
}
