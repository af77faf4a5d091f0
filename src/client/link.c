#include "client/link.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "client/connect.h"
#include "transport/lines.h"
#include "transport/ws.h"

enum {
    /* What the real clients accept (spec 1.3). */
    MESSAGE_MAX = 64 << 20,
    /* Messages kept while we are sending. */
    INBOX_MAX = 256 << 20,
    HEAD_MAX = 8192,
    PIECE = 64 << 10,
    END_MS = 30000, /* for a child to end when nobody said how long it may take */
};

struct letter {
    struct letter *next;
    char *text;
    size_t len;
};

struct bly_link {
    int fd;
    pid_t child; /* the server, started by us and spoken to in lines; 0: none */
    int status;  /* of the child, once it is reaped */
    struct bly_ws_receiver ws;
    struct bly_line_receiver lines;
    struct letter *first, *last;
    size_t inbox_bytes;
    bool is_broken; /* a frame went out in part, or the end has come */
    char why[200];  /* the end's reason */
    uint8_t piece[PIECE];
};

uint64_t bly_link_now_ms(void)
{
    return bly_connect_now_ms();
}

/* Bytes */

static int broken(struct bly_link *link, struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_SYSTEM, EPIPE, "the connection has ended: %s", link->why);
}

static int break_link(struct bly_link *link, const char *why, struct bly_err *err)
{
    if (!link->is_broken)
        snprintf(link->why, sizeof(link->why), "%s", why);
    link->is_broken = true;
    return broken(link, err);
}

/* Reads what is there; *ret_n is 0 when that is nothing. */
static int read_some(struct bly_link *link, void *data, size_t len, size_t *ret_n,
                     struct bly_err *err)
{
    ssize_t n = recv(link->fd, data, len, 0);

    *ret_n = 0;
    if (n == 0)
        return break_link(link, "end of file", err);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return break_link(link, strerrordesc_np(errno), err);
    if (n > 0)
        *ret_n = (size_t)n;
    return 0;
}

static int take_in(struct bly_link *link, struct bly_err *err);

static int write_all(struct bly_link *link, const uint8_t *data, size_t len, uint64_t deadline_ms,
                     struct bly_err *err)
{
    while (len > 0) {
        ssize_t n = send(link->fd, data, len, MSG_NOSIGNAL);
        int r;

        if (n > 0) {
            data += n;
            len -= (size_t)n;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            return break_link(link, strerrordesc_np(errno), err);

        r = bly_connect_wait(link->fd, POLLOUT | POLLIN, deadline_ms, err);
        if (r < 0) {
            /* Half a frame is out: nothing that follows would be understood. */
            break_link(link, "a message could not be sent in time", NULL);
            return r;
        }
        if (r & POLLIN) {
            r = take_in(link, err);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* The header goes out with the payload: by itself it would only wake up the server. */
static int send_frame(struct bly_link *link, enum bly_ws_opcode opcode, const void *data,
                      size_t len, uint64_t deadline_ms, struct bly_err *err)
{
    size_t most = len < PIECE - BLY_WS_HEAD_MAX ? len + BLY_WS_HEAD_MAX : PIECE;
    bly_autofree uint8_t *piece = malloc(most);
    uint8_t mask[4];
    size_t fill, at = 0;
    int r;

    if (!piece)
        return bly_fail_sys(err, ENOMEM, "cannot send");
    if (getrandom(mask, sizeof(mask), 0) != sizeof(mask))
        return bly_fail_sys(err, errno, "no random bytes");

    fill = bly_ws_put_header(piece, opcode, true, len, mask);
    do {
        size_t n = len - at < most - fill ? len - at : most - fill;

        bly_ws_mask(piece + fill, (const uint8_t *)data + at, n, mask, at);
        r = write_all(link, piece, fill + n, deadline_ms, err);
        at += n;
        fill = 0;
    } while (r == 0 && at < len);
    return r;
}

/* Messages */

static int put_letter(struct bly_link *link, char *text, size_t len, struct bly_err *err)
{
    struct letter *letter = malloc(sizeof(*letter));

    if (!letter || link->inbox_bytes > INBOX_MAX - len) {
        free(letter);
        free(text);
        return break_link(link, "more messages than there is room for", err);
    }
    *letter = (struct letter){.text = text, .len = len};
    if (link->last)
        link->last->next = letter;
    else
        link->first = letter;
    link->last = letter;
    link->inbox_bytes += len;
    return 0;
}

/* Control frames are answered when the socket has room for them, which it nearly always has. */
static void answer(struct bly_link *link, enum bly_ws_opcode opcode, const void *data, size_t len)
{
    uint8_t frame[BLY_WS_HEAD_MAX + BLY_WS_CONTROL_MAX], mask[4];
    ssize_t sent;
    size_t n;

    if (getrandom(mask, sizeof(mask), 0) != sizeof(mask))
        return;
    n = bly_ws_put_header(frame, opcode, true, len, mask);
    bly_ws_mask(frame + n, data, len, mask, 0);
    sent = send(link->fd, frame, n + len, MSG_NOSIGNAL);
    if (sent > 0 && (size_t)sent < n + len)
        break_link(link, "half a control frame went out", NULL);
}

static int on_close(struct bly_link *link, const struct bly_ws_event *event, struct bly_err *err)
{
    uint8_t code[2] = {(uint8_t)(event->code >> 8), (uint8_t)event->code};
    char why[64];

    answer(link, BLY_WS_CLOSE, code, event->code == BLY_WS_NO_STATUS ? 0 : sizeof(code));
    snprintf(why, sizeof(why), "closed by the server with code %u", event->code);
    return break_link(link, why, err);
}

static int on_event(struct bly_link *link, const struct bly_ws_event *event, bool sending,
                    struct bly_err *err)
{
    switch (event->type) {
    case BLY_WS_EVENT_MESSAGE:
        return put_letter(link, event->text, event->len, err);
    case BLY_WS_EVENT_PING:
        /* Not into the middle of a frame of ours. */
        if (!sending)
            answer(link, BLY_WS_PONG, event->payload, event->payload_len);
        return 0;
    case BLY_WS_EVENT_CLOSE:
        return on_close(link, event, err);
    case BLY_WS_EVENT_PONG:
    case BLY_WS_MORE:
        return 0;
    }
    return 0;
}

static int take_bytes(struct bly_link *link, uint8_t *data, size_t len, bool sending,
                      struct bly_err *err)
{
    size_t at = 0;

    while (at < len) {
        struct bly_ws_event event;
        size_t used;
        int r = bly_ws_receive(&link->ws, data + at, len - at, &used, &event);

        if (r < 0)
            return break_link(link, event.reason, err);
        at += used;
        r = on_event(link, &event, sending, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int take_lines(struct bly_link *link, const uint8_t *data, size_t len, struct bly_err *err)
{
    size_t at = 0;

    while (at < len) {
        struct bly_line line;
        size_t used;
        int r = bly_line_receive(&link->lines, data + at, len - at, &used, &line);

        if (r < 0)
            return break_link(link, bly_line_error_text(r), err);
        at += used;
        if (line.text)
            r = put_letter(link, line.text, line.len, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Reads once, whatever is there. */
static int take_once(struct bly_link *link, bool sending, struct bly_err *err)
{
    size_t room = sizeof(link->piece), n;
    uint8_t *to = bly_ws_receiver_tail(&link->ws, &room);
    int r;

    if (!to) {
        to = link->piece;
        room = sizeof(link->piece);
    }
    r = read_some(link, to, room, &n, err);
    if (r == 0 && link->child > 0)
        return take_lines(link, to, n, err);
    return r < 0 || n == 0 ? r : take_bytes(link, to, n, sending, err);
}

static int take_in(struct bly_link *link, struct bly_err *err)
{
    return take_once(link, true, err);
}

/* A line feed in JSON is nothing but a blank between two tokens. */
static int send_line(struct bly_link *link, const char *text, size_t len, uint64_t deadline_ms,
                     struct bly_err *err)
{
    bly_autofree uint8_t *piece = malloc(PIECE);
    int r = 0;

    if (!piece)
        return bly_fail_sys(err, ENOMEM, "cannot send");
    for (size_t at = 0; r == 0 && at <= len;) {
        size_t n = len - at < PIECE - 1 ? len - at : PIECE - 1;

        memcpy(piece, text + at, n);
        for (uint8_t *feed = piece; (feed = memchr(feed, '\n', (size_t)(piece + n - feed)));)
            *feed = ' ';
        at += n;
        if (at == len) {
            piece[n++] = '\n';
            at++;
        }
        r = write_all(link, piece, n, deadline_ms, err);
    }
    return r;
}

int bly_link_send(struct bly_link *link, const char *text, size_t len, uint64_t deadline_ms,
                  struct bly_err *err)
{
    if (link->is_broken)
        return broken(link, err);
    if (link->child > 0)
        return send_line(link, text, len, deadline_ms, err);
    return send_frame(link, BLY_WS_TEXT, text, len, deadline_ms, err);
}

int bly_link_receive(struct bly_link *link, uint64_t deadline_ms, char **ret_text, size_t *ret_len,
                     struct bly_err *err)
{
    struct letter *letter;

    while (!link->first) {
        int r = link->is_broken ? broken(link, err)
                                : bly_connect_wait(link->fd, POLLIN, deadline_ms, err);

        if (r >= 0)
            r = take_once(link, false, err);
        /* What came before the end is still delivered. */
        if (r < 0 && !link->first)
            return r;
    }

    letter = link->first;
    link->first = letter->next;
    if (!link->first)
        link->last = NULL;
    link->inbox_bytes -= letter->len;
    *ret_text = letter->text;
    *ret_len = letter->len;
    free(letter);
    return 0;
}

/* The upgrade */

static int send_upgrade(struct bly_link *link, const struct bly_target *target, const char *key,
                        uint64_t deadline_ms, struct bly_err *err)
{
    bool is_v6 = strchr(target->host, ':') != NULL;
    char text[2048];
    int len =
        snprintf(text, sizeof(text),
                 "GET %s HTTP/1.1\r\n"
                 "Host: %s%s%s:%s\r\n"
                 "Connection: Upgrade\r\n"
                 "Upgrade: websocket\r\n"
                 "Sec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Key: %s\r\n\r\n",
                 target->path, is_v6 ? "[" : "", target->host, is_v6 ? "]" : "", target->port, key);

    return write_all(link, (uint8_t *)text, (size_t)len, deadline_ms, err);
}

/* Reads the answer's head; `*ret_used` is its length, the rest of `*len` bytes are frames. */
static int read_head(struct bly_link *link, uint64_t deadline_ms, size_t *len, size_t *ret_used,
                     struct bly_err *err)
{
    const char *end = NULL;

    *len = 0;
    while (!end) {
        size_t n;
        int r = bly_connect_wait(link->fd, POLLIN, deadline_ms, err);

        if (*len >= HEAD_MAX)
            return bly_fail(err, BLY_ERR_INVALID, EPROTO, "the server's HTTP answer is too long");
        if (r >= 0)
            r = read_some(link, link->piece + *len, HEAD_MAX - *len, &n, err);
        if (r < 0)
            return r;
        *len += n;
        end = memmem(link->piece, *len, "\r\n\r\n", 4);
    }
    *ret_used = (size_t)(end - (char *)link->piece) + 4;
    return 0;
}

static int check_head(char *head, const char *key, struct bly_err *err)
{
    char want[BLY_WS_ACCEPT_LEN + 1];
    char *rest = NULL, *line = strtok_r(head, "\r\n", &rest);

    if (!line || strncmp(line, "HTTP/1.1 101 ", 13) != 0)
        return bly_fail(err, BLY_ERR_INVALID, EPROTO, "the server does not upgrade: %.100s",
                        line ? line : "");

    bly_ws_accept(key, strlen(key), want);
    while ((line = strtok_r(NULL, "\r\n", &rest))) {
        static const char name[] = "Sec-WebSocket-Accept:";
        const char *value = line + sizeof(name) - 1;

        if (strncasecmp(line, name, sizeof(name) - 1) != 0)
            continue;
        value += strspn(value, " \t");
        if (strncmp(value, want, BLY_WS_ACCEPT_LEN) == 0)
            return 0;
    }
    return bly_fail(err, BLY_ERR_INVALID, EPROTO, "the server's upgrade answer does not fit");
}

static int upgrade(struct bly_link *link, const struct bly_target *target, uint64_t deadline_ms,
                   struct bly_err *err)
{
    uint8_t nonce[16];
    char key[32] = "", head[HEAD_MAX + 1];
    size_t len = 0, used = 0;
    int r;

    if (getrandom(nonce, sizeof(nonce), 0) != sizeof(nonce))
        return bly_fail_sys(err, errno, "no random bytes");
    bly_base64_encode(nonce, sizeof(nonce), key);

    r = send_upgrade(link, target, key, deadline_ms, err);
    if (r == 0)
        r = read_head(link, deadline_ms, &len, &used, err);
    if (r < 0)
        return r;

    memcpy(head, link->piece, used);
    head[used] = '\0';
    r = check_head(head, key, err);
    return r < 0 ? r : take_bytes(link, link->piece + used, len - used, false, err);
}

static struct bly_link *link_new(struct bly_err *err)
{
    struct bly_link *link = calloc(1, sizeof(*link));

    if (!link) {
        (void)bly_fail_sys(err, ENOMEM, "cannot connect");
        return NULL;
    }
    link->fd = -EBADF;
    bly_ws_receiver_init(&link->ws, BLY_WS_CLIENT, MESSAGE_MAX);
    bly_line_receiver_init(&link->lines, MESSAGE_MAX);
    return link;
}

int bly_link_open(const char *url, uint64_t deadline_ms, struct bly_link **ret_link,
                  struct bly_err *err)
{
    struct bly_link *link = link_new(err);
    struct bly_target target;
    int r;

    if (!link)
        return -ENOMEM;
    r = bly_connect_url(url, deadline_ms, &target, &link->fd, err);
    if (r == 0)
        r = upgrade(link, &target, deadline_ms, err);
    if (r < 0) {
        bly_link_free(link);
        return bly_because(err, r, "%s", url);
    }
    *ret_link = link;
    return 0;
}

int bly_link_spawn(const char *const *argv, struct bly_link **ret_link, struct bly_err *err)
{
    struct bly_link *link = link_new(err);
    int r;

    if (!link)
        return -ENOMEM;
    r = bly_connect_child(argv, &link->fd, &link->child, err);
    if (r < 0) {
        link->child = 0;
        bly_link_free(link);
        return r;
    }
    *ret_link = link;
    return 0;
}

int bly_link_end(struct bly_link *link, uint64_t timeout_ms)
{
    link->fd = bly_close(link->fd);
    if (link->child > 0)
        link->status = bly_connect_reap(link->child, timeout_ms);
    link->child = 0;
    if (!link->is_broken)
        break_link(link, "ended", NULL);
    return link->status;
}

struct bly_link *bly_link_free(struct bly_link *link)
{
    if (!link)
        return NULL;
    (void)bly_link_end(link, END_MS);
    while (link->first) {
        struct letter *next = link->first->next;

        free(link->first->text);
        free(link->first);
        link->first = next;
    }
    bly_ws_receiver_deinit(&link->ws);
    bly_line_receiver_deinit(&link->lines);
    free(link);
    return NULL;
}
