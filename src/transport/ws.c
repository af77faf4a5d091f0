#include "transport/ws.h"

#include <errno.h>
#include <nettle/sha1.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/json.h"

enum { GROW_FREELY = 1 << 20 }; /* bytes reserved on the word of a frame header alone */

bool bly_utf8_feed(struct bly_utf8 *utf8, const uint8_t *data, size_t len)
{
    size_t i = 0;

    while (i < len) {
        uint8_t c;

        if (utf8->left == 0) {
            uint64_t word;

            while (i + sizeof(word) <= len) {
                memcpy(&word, data + i, sizeof(word));
                if (word & 0x8080808080808080u)
                    break;
                i += sizeof(word);
            }
            if (i == len)
                break;
        }

        c = data[i++];
        if (utf8->left > 0) {
            if (c < utf8->low || c > utf8->top)
                return false;
            utf8->left--;
            utf8->low = 0x80;
            utf8->top = 0xbf;
            continue;
        }
        if (c < 0x80)
            continue;
        if (c < 0xc2 || c > 0xf4)
            return false;

        /* The second byte's range keeps out overlong forms, surrogates and what is past U+10FFFF.
         */
        utf8->left = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        utf8->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
        utf8->top = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    }
    return true;
}

/* Sixteen bytes at a time, in one pass: a large message is little else than this. */
typedef uint64_t words __attribute__((vector_size(16)));

bool bly_ws_mask(uint8_t *to, const uint8_t *from, size_t len, const uint8_t mask[4], uint64_t at)
{
    uint8_t turned[8], byte = 0;
    uint64_t key;
    words seen = {0};
    size_t i;

    for (i = 0; i < sizeof(turned); i++)
        turned[i] = mask[(at + i) % 4];
    memcpy(&key, turned, sizeof(key));

    for (i = 0; i + sizeof(words) <= len; i += sizeof(words)) {
        words block;

        memcpy(&block, from + i, sizeof(block));
        block ^= (words){key, key};
        seen |= block;
        memcpy(to + i, &block, sizeof(block));
    }
    for (; i < len; i++) {
        to[i] = from[i] ^ turned[i % 4];
        byte |= to[i];
    }
    return ((seen[0] | seen[1]) & 0x8080808080808080u) == 0 && byte < 0x80;
}

size_t bly_ws_put_header(uint8_t head[BLY_WS_HEAD_MAX], enum bly_ws_opcode opcode, bool fin,
                         uint64_t len, const uint8_t *mask)
{
    size_t n = 2, n_len = len < 126 ? 0 : len < 65536 ? 2 : 8;

    head[0] = (uint8_t)((fin ? 0x80 : 0) | opcode);
    head[1] = (uint8_t)(n_len == 0 ? len : n_len == 2 ? 126 : 127);
    while (n_len > 0)
        head[n++] = (uint8_t)(len >> (8 * --n_len));
    if (mask) {
        head[1] |= 0x80;
        memcpy(head + n, mask, 4);
        n += 4;
    }
    return n;
}

void bly_ws_accept(const char *key, size_t key_len, char ret_accept[BLY_WS_ACCEPT_LEN + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t digest[SHA1_DIGEST_SIZE];
    struct sha1_ctx ctx;

    sha1_init(&ctx);
    sha1_update(&ctx, key_len, (const uint8_t *)key);
    sha1_update(&ctx, sizeof(guid) - 1, (const uint8_t *)guid);
    sha1_digest(&ctx, sizeof(digest), digest);
    bly_base64_encode(digest, sizeof(digest), ret_accept);
    ret_accept[BLY_WS_ACCEPT_LEN] = '\0';
}

void bly_ws_receiver_init(struct bly_ws_receiver *r, enum bly_ws_role role, uint64_t max_bytes)
{
    *r = (struct bly_ws_receiver){.role = role, .max_bytes = max_bytes};
}

void bly_ws_receiver_deinit(struct bly_ws_receiver *r)
{
    free(r->text);
    r->text = NULL;
    r->len = r->cap = 0;
}

static bool is_control(const struct bly_ws_receiver *r)
{
    return r->opcode & 0x8;
}

static int refuse(struct bly_ws_event *event, int r, uint16_t code, const char *reason)
{
    event->code = code;
    event->reason = reason;
    return r;
}

static int broken(struct bly_ws_event *event, const char *reason)
{
    return refuse(event, -EPROTO, BLY_WS_PROTOCOL_ERROR, reason);
}

/* Room for more of the current frame: at least one byte of it, and at most what it announced. */
static int grow(struct bly_ws_receiver *r)
{
    size_t used = r->len + BLY_JSON_PADDING;
    uint64_t wanted = used + (r->payload_len - r->at);
    uint64_t trusted = r->len < GROW_FREELY / 2 ? GROW_FREELY : 2 * (uint64_t)r->len;
    size_t cap = (size_t)(wanted < trusted ? wanted : trusted);
    char *text;

    /* Many small frames: grow by a factor, or each of them would move the whole message. */
    if (r->cap > 0 && cap < r->cap + r->cap / 2 && !(r->fin && cap == wanted))
        cap = r->cap + r->cap / 2;

    text = realloc(r->text, cap);
    if (!text)
        return -ENOMEM;
    r->text = text;
    r->cap = cap;
    return 0;
}

static int ensure_room(struct bly_ws_receiver *r, struct bly_ws_event *event)
{
    if (r->len + BLY_JSON_PADDING < r->cap)
        return 0;
    if (grow(r) < 0)
        return refuse(event, -ENOMEM, BLY_WS_INTERNAL, "out of memory");
    return 0;
}

uint8_t *bly_ws_receiver_tail(struct bly_ws_receiver *r, size_t *ret_room)
{
    struct bly_ws_event event;
    uint64_t left;
    size_t room;

    if (!r->in_payload || is_control(r))
        return NULL;
    if (ensure_room(r, &event) < 0)
        return NULL;

    room = r->cap - BLY_JSON_PADDING - r->len;
    left = r->payload_len - r->at;
    *ret_room = left < room ? (size_t)left : room;
    return (uint8_t *)r->text + r->len;
}

static size_t header_size(const uint8_t head[2])
{
    size_t n = head[1] & 0x7f;

    return 2u + (n == 126 ? 2 : n == 127 ? 8 : 0) + (head[1] & 0x80 ? 4 : 0);
}

static int check_kind(const struct bly_ws_receiver *r, struct bly_ws_event *event)
{
    bool masked = r->head[1] & 0x80;

    if (r->head[0] & 0x70)
        return broken(event, "reserved bits are set");
    if (masked != (r->role == BLY_WS_SERVER))
        return broken(event, masked ? "frame is masked" : "frame is not masked");

    switch (r->opcode) {
    case BLY_WS_CLOSE:
    case BLY_WS_PING:
    case BLY_WS_PONG:
        if (!r->fin || (r->head[1] & 0x7f) > BLY_WS_CONTROL_MAX)
            return broken(event, "control frame is fragmented or too long");
        return 0;
    case BLY_WS_TEXT:
    case BLY_WS_BINARY:
        return r->in_message ? broken(event, "message inside a message") : 0;
    case BLY_WS_CONTINUATION:
        return r->in_message ? 0 : broken(event, "continuation of nothing");
    default:
        return broken(event, "unknown opcode");
    }
}

static int parse_length(struct bly_ws_receiver *r, struct bly_ws_event *event)
{
    uint64_t len = r->head[1] & 0x7f;
    size_t n = len == 126 ? 2 : len == 127 ? 8 : 0;

    if (n > 0)
        len = 0;
    for (size_t i = 0; i < n; i++)
        len = len << 8 | r->head[2 + i];
    if ((n == 2 && len < 126) || (n == 8 && (len < 65536 || len >> 63)))
        return broken(event, "malformed frame length");
    if (r->head[1] & 0x80)
        memcpy(r->mask, r->head + 2 + n, sizeof(r->mask));
    r->payload_len = len;
    return 0;
}

/* The header is whole: what follows is payload. */
static int begin_payload(struct bly_ws_receiver *r, struct bly_ws_event *event)
{
    int err = parse_length(r, event);

    if (err < 0)
        return err;

    r->head_len = 0;
    r->in_payload = true;
    r->at = 0;
    if (is_control(r))
        return 0;

    if (!r->in_message) {
        r->in_message = true;
        r->is_text = r->opcode == BLY_WS_TEXT;
        r->utf8 = (struct bly_utf8){0};
    }
    if (r->payload_len > r->max_bytes || r->len > r->max_bytes - r->payload_len)
        return refuse(event, -EMSGSIZE, BLY_WS_TOO_BIG,
                      "message is larger than this server accepts");
    return 0;
}

static int take_header(struct bly_ws_receiver *r, const uint8_t *data, size_t len, size_t *used,
                       struct bly_ws_event *event)
{
    while (*used < len) {
        r->head[r->head_len++] = data[(*used)++];
        if (r->head_len == 2) {
            int err;

            r->fin = r->head[0] & 0x80;
            r->opcode = r->head[0] & 0x0f;
            err = check_kind(r, event);
            if (err < 0)
                return err;
        }
        if (r->head_len >= 2 && r->head_len == header_size(r->head))
            return begin_payload(r, event);
    }
    return 0;
}

/* Takes `n` bytes of the payload. A server sends them as they are: its mask is zero. */
static bool take_piece(struct bly_ws_receiver *r, const uint8_t *data, size_t n)
{
    uint8_t *to = (uint8_t *)r->text + r->len;
    bool is_ascii = bly_ws_mask(to, data, n, r->mask, r->at);

    r->len += n;
    r->at += n;
    return !r->is_text || (is_ascii && r->utf8.left == 0) || bly_utf8_feed(&r->utf8, to, n);
}

static int take_data(struct bly_ws_receiver *r, const uint8_t *data, size_t len, size_t *used,
                     struct bly_ws_event *event)
{
    while (r->at < r->payload_len && *used < len) {
        uint64_t left = r->payload_len - r->at;
        size_t n;
        int err = ensure_room(r, event);

        if (err < 0)
            return err;

        n = r->cap - BLY_JSON_PADDING - r->len;
        n = len - *used < n ? len - *used : n;
        n = left < n ? (size_t)left : n;
        if (!take_piece(r, data + *used, n))
            return refuse(event, -EILSEQ, BLY_WS_BAD_TEXT, "text is not valid UTF-8");
        *used += n;
    }
    return 0;
}

static void take_control(struct bly_ws_receiver *r, const uint8_t *data, size_t len, size_t *used)
{
    size_t left = (size_t)(r->payload_len - r->at);
    size_t n = len - *used < left ? len - *used : left;

    bly_ws_mask(r->control + r->at, data + *used, n, r->mask, r->at);
    r->at += n;
    *used += n;
}

static int end_message(struct bly_ws_receiver *r, struct bly_ws_event *event)
{
    if (r->is_text && r->utf8.left > 0)
        return refuse(event, -EILSEQ, BLY_WS_BAD_TEXT, "text ends inside a character");
    if (!r->text && grow(r) < 0)
        return refuse(event, -ENOMEM, BLY_WS_INTERNAL, "out of memory");

    memset(r->text + r->len, 0, BLY_JSON_PADDING);
    event->type = BLY_WS_EVENT_MESSAGE;
    event->text = r->text;
    event->len = r->len;
    r->text = NULL;
    r->len = r->cap = 0;
    r->in_message = false;
    return 0;
}

static bool is_close_code(unsigned code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

static int end_close(struct bly_ws_receiver *r, struct bly_ws_event *event)
{
    struct bly_utf8 utf8 = {0};
    size_t len = (size_t)r->payload_len;
    unsigned code = len >= 2 ? r->control[0] << 8 | r->control[1] : BLY_WS_NO_STATUS;

    if (len == 1 || (len >= 2 && !is_close_code(code)))
        return broken(event, "malformed close frame");
    if (len > 2 && (!bly_utf8_feed(&utf8, r->control + 2, len - 2) || utf8.left > 0))
        return refuse(event, -EILSEQ, BLY_WS_BAD_TEXT, "close reason is not valid UTF-8");

    event->type = BLY_WS_EVENT_CLOSE;
    event->code = (uint16_t)code;
    return 0;
}

static int end_frame(struct bly_ws_receiver *r, struct bly_ws_event *event)
{
    r->in_payload = false;
    if (r->opcode == BLY_WS_CLOSE)
        return end_close(r, event);
    if (is_control(r)) {
        event->type = r->opcode == BLY_WS_PING ? BLY_WS_EVENT_PING : BLY_WS_EVENT_PONG;
        event->payload = r->control;
        event->payload_len = (size_t)r->payload_len;
        return 0;
    }
    return r->fin ? end_message(r, event) : 0;
}

int bly_ws_receive(struct bly_ws_receiver *r, uint8_t *data, size_t len, size_t *ret_used,
                   struct bly_ws_event *ret_event)
{
    *ret_event = (struct bly_ws_event){.type = BLY_WS_MORE};
    *ret_used = 0;

    while (*ret_used < len && ret_event->type == BLY_WS_MORE) {
        int err = r->in_payload ? 0 : take_header(r, data, len, ret_used, ret_event);

        if (err == 0 && r->in_payload && is_control(r))
            take_control(r, data, len, ret_used);
        else if (err == 0 && r->in_payload)
            err = take_data(r, data, len, ret_used, ret_event);
        if (err == 0 && r->in_payload && r->at == r->payload_len)
            err = end_frame(r, ret_event);
        if (err < 0)
            return err;
    }
    return 0;
}
