/*
 * WebSocket frames: however the bytes are cut into pieces, the same events come out. The first byte
 * of the input says which role, and the largest message.
 */
#include "transport/ws.h"

#include <errno.h>

#include "base/cleanup.h"
#include "fuzz.h"

enum feed { WHOLE, BY_BYTE, INTO_TAIL, N_FEEDS };

struct receiver {
    struct bly_ws_receiver ws;
    struct bly_buf trace; /* the events, as bytes */
    bool failed;
};

static void check_text(const struct bly_ws_event *event)
{
    static const char zeros[BLY_JSON_PADDING];

    FUZZ_MUST(event->text);
    FUZZ_MUST(memcmp(event->text + event->len, zeros, sizeof(zeros)) == 0);
}

static void note_event(struct receiver *r, struct bly_ws_event *event)
{
    struct bly_buf *trace = &r->trace;

    if (event->type == BLY_WS_MORE)
        return;
    bly_buf_put_u8(trace, (uint8_t)event->type);
    switch (event->type) {
    case BLY_WS_EVENT_MESSAGE:
        check_text(event);
        FUZZ_MUST(event->len <= r->ws.max_bytes);
        bly_buf_put_bytes(trace, event->text, event->len);
        free(event->text);
        break;
    case BLY_WS_EVENT_PING:
    case BLY_WS_EVENT_PONG:
        FUZZ_MUST(event->payload_len <= BLY_WS_CONTROL_MAX);
        bly_buf_put_bytes(trace, event->payload, event->payload_len);
        break;
    case BLY_WS_EVENT_CLOSE:
        bly_buf_put_u32(trace, event->code);
        break;
    case BLY_WS_MORE:
        break;
    }
}

static void feed_piece(struct receiver *r, uint8_t *data, size_t len)
{
    for (size_t at = 0; at < len && !r->failed;) {
        struct bly_ws_event event;
        size_t used = 0;
        int error = bly_ws_receive(&r->ws, data + at, len - at, &used, &event);

        FUZZ_MUST(used <= len - at);
        at += used;
        if (error < 0) {
            FUZZ_MUST(event.code >= 1002 && event.reason && strlen(event.reason) <= 123);
            bly_buf_put_u32(&r->trace, event.code);
            r->failed = true;
            return;
        }
        FUZZ_MUST(used > 0);
        note_event(r, &event);
    }
}

static void feed(struct receiver *r, enum feed how, uint8_t *data, size_t size)
{
    size_t at = 0;

    while (at < size && !r->failed) {
        size_t room = 0, n = how == BY_BYTE ? 1 : size - at;
        uint8_t *tail = how == INTO_TAIL ? bly_ws_receiver_tail(&r->ws, &room) : NULL;

        if (tail) {
            FUZZ_MUST(room > 0);
            n = room < n ? room : n;
            memcpy(tail, data + at, n);
            feed_piece(r, tail, n);
        } else {
            n = how == INTO_TAIL ? 1 : n; /* byte by byte up to the payload */
            feed_piece(r, data + at, n);
        }
        at += n;
    }
}

static void run(enum feed how, unsigned choice, const uint8_t *data, size_t size,
                struct bly_buf *ret_trace)
{
    bly_autofree uint8_t *copy = (uint8_t *)fuzz_string(data, size);
    struct receiver r = {0};

    bly_buf_init(&r.trace, FUZZ_OUTPUT_MAX);
    bly_ws_receiver_init(&r.ws, choice & 1 ? BLY_WS_CLIENT : BLY_WS_SERVER,
                         choice & 2 ? 64 : 1 << 20);
    feed(&r, how, copy, size);
    bly_ws_receiver_deinit(&r.ws);
    *ret_trace = r.trace;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bly_buf traces[N_FEEDS];

    if (size == 0)
        return 0;
    for (unsigned how = 0; how < N_FEEDS; how++)
        run(how, data[0], data + 1, size - 1, &traces[how]);
    for (unsigned how = 1; how < N_FEEDS; how++)
        fuzz_check_same(&traces[0], &traces[how]);
    for (unsigned how = 0; how < N_FEEDS; how++)
        bly_buf_deinit(&traces[how]);
    return 0;
}
