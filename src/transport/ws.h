#pragma once

/*
 * WebSocket frames (RFC 6455 section 5), both directions and both roles, without any input or
 * output of its own: bytes go in, events come out. Messages are assembled in the memory they are
 * delivered in, and the caller may read from its socket straight into that memory, so a large
 * message is never copied. No extensions. Pure; any thread, one at a time per receiver.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum bly_ws_opcode {
    BLY_WS_CONTINUATION = 0x0,
    BLY_WS_TEXT = 0x1,
    BLY_WS_BINARY = 0x2,
    BLY_WS_CLOSE = 0x8,
    BLY_WS_PING = 0x9,
    BLY_WS_PONG = 0xa,
};

enum bly_ws_role {
    BLY_WS_SERVER, /* what arrives must be masked */
    BLY_WS_CLIENT, /* what arrives must not be masked */
};

enum {
    BLY_WS_HEAD_MAX = 14,
    BLY_WS_CONTROL_MAX = 125,
    BLY_WS_FRAME_MAX = 8 << 20, /* payload of a frame we send (spec 1.3) */
    BLY_WS_ACCEPT_LEN = 28,
};

enum bly_ws_code {
    BLY_WS_NORMAL = 1000,
    BLY_WS_GOING_AWAY = 1001,
    BLY_WS_PROTOCOL_ERROR = 1002,
    BLY_WS_NO_STATUS = 1005, /* never sent: a close frame without a code */
    BLY_WS_BAD_TEXT = 1007,
    BLY_WS_POLICY = 1008,
    BLY_WS_TOO_BIG = 1009,
    BLY_WS_INTERNAL = 1011,
};

/* Position in a UTF-8 text that arrives in pieces; zero is the start. */
struct bly_utf8 {
    uint8_t left;     /* continuation bytes the current character still needs */
    uint8_t low, top; /* range of the next one */
};

/* False as soon as `data` cannot continue valid UTF-8. The text may end when utf8->left is 0. */
bool bly_utf8_feed(struct bly_utf8 *utf8, const uint8_t *data, size_t len);

/*
 * Copies `len` bytes, XORed with `mask`; `at` is the position of from[0] in the frame's payload.
 * `to` may be `from`, but must not overlap it otherwise. Whether what it wrote is all ASCII.
 */
bool bly_ws_mask(uint8_t *to, const uint8_t *from, size_t len, const uint8_t mask[4], uint64_t at);

/* Writes a frame's header (first two bytes, length, `mask` unless NULL); returns its size. */
size_t bly_ws_put_header(uint8_t head[BLY_WS_HEAD_MAX], enum bly_ws_opcode opcode, bool fin,
                         uint64_t len, const uint8_t *mask);

/* The Sec-WebSocket-Accept that belongs to a key. NUL-terminated. */
void bly_ws_accept(const char *key, size_t key_len, char ret_accept[BLY_WS_ACCEPT_LEN + 1]);

struct bly_ws_receiver {
    enum bly_ws_role role;
    uint64_t max_bytes;

    uint8_t head[BLY_WS_HEAD_MAX]; /* of the current frame */
    size_t head_len;
    bool in_payload, fin;
    enum bly_ws_opcode opcode;
    uint8_t mask[4];
    uint64_t at, payload_len;

    uint8_t control[BLY_WS_CONTROL_MAX];

    char *text; /* the message so far; owned */
    size_t len, cap;
    bool in_message, is_text;
    struct bly_utf8 utf8;
};

enum bly_ws_event_type {
    BLY_WS_MORE, /* everything was used, nothing is complete */
    BLY_WS_EVENT_MESSAGE,
    BLY_WS_EVENT_PING,
    BLY_WS_EVENT_PONG,
    BLY_WS_EVENT_CLOSE,
};

struct bly_ws_event {
    enum bly_ws_event_type type;
    char *text; /* MESSAGE: the caller's (free), BLY_JSON_PADDING zero bytes behind it */
    size_t len;
    const uint8_t *payload; /* PING, PONG: borrowed until the next call */
    size_t payload_len;
    uint16_t code;      /* CLOSE: the peer's code, or BLY_WS_NO_STATUS. Failure: what to send */
    const char *reason; /* failure: a static text for the close frame */
};

/* `max_bytes` bounds a message over all its frames. */
void bly_ws_receiver_init(struct bly_ws_receiver *r, enum bly_ws_role role, uint64_t max_bytes);
void bly_ws_receiver_deinit(struct bly_ws_receiver *r);

/*
 * Where the coming payload bytes will be stored: the caller may read up to *ret_room bytes there
 * and pass that pointer to bly_ws_receive(). NULL: not inside the payload of a data frame, or no
 * memory; read into a buffer of your own. Never asks for more memory than the message has grown to
 * so far, beyond one MiB: what a peer announces costs nothing.
 */
uint8_t *bly_ws_receiver_tail(struct bly_ws_receiver *r, size_t *ret_room);

/*
 * Takes bytes up to the next event; *ret_used says how many. `data` is changed (unmasked in place).
 * Returns 0 with *ret_event; -EPROTO, -EILSEQ (invalid UTF-8), -EMSGSIZE or -ENOMEM with the code
 * and reason to close with in *ret_event. After a failure the receiver is of no further use.
 */
int bly_ws_receive(struct bly_ws_receiver *r, uint8_t *data, size_t len, size_t *ret_used,
                   struct bly_ws_event *ret_event);
