#include "transport/outbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct bly_out_item {
    struct bly_out_item *next;
    enum bly_ws_opcode opcode;
    bool raw;       /* bytes as they are */
    bool ends_line; /* and LF behind them */
    void *mem;      /* owned; NULL: the payload is in `own` */
    const uint8_t *data;
    size_t len, at; /* `at` bytes are in frames already */
    uint8_t own[];
};

static struct bly_out_item *item_free(struct bly_out_item *item)
{
    if (item)
        free(item->mem);
    free(item);
    return NULL;
}

static struct bly_out_item *item_new(enum bly_ws_opcode opcode, void *mem, size_t off, size_t len)
{
    struct bly_out_item *item = malloc(sizeof(*item));

    if (!item) {
        free(mem);
        return NULL;
    }
    *item = (struct bly_out_item){
        .opcode = opcode, .mem = mem, .data = (uint8_t *)mem + off, .len = len};
    return item;
}

static struct bly_out_item *item_copy(enum bly_ws_opcode opcode, const void *data, size_t len)
{
    struct bly_out_item *item = malloc(sizeof(*item) + len);

    if (!item)
        return NULL;
    *item = (struct bly_out_item){.opcode = opcode, .data = item->own, .len = len};
    if (len > 0)
        memcpy(item->own, data, len);
    return item;
}

void bly_outbox_init(struct bly_outbox *out, enum bly_out_framing framing, uv_stream_t *stream,
                     void (*progress)(void *arg), void *arg)
{
    *out =
        (struct bly_outbox){.framing = framing, .stream = stream, .progress = progress, .arg = arg};
    out->request.data = out;
}

static void end_batch(struct bly_outbox *out)
{
    for (size_t i = 0; i < out->n_batch; i++)
        item_free(out->batch[i].last_of);
    out->n_batch = 0;
}

void bly_outbox_deinit(struct bly_outbox *out)
{
    end_batch(out);
    while (out->first) {
        struct bly_out_item *next = out->first->next;

        item_free(out->first);
        out->first = next;
    }
    out->last = NULL;
    out->waiting = 0;
    out->ping = item_free(out->ping);
    out->pong = item_free(out->pong);
}

/* Puts the item's next frame into the batch. Returns true when that was its last. */
static bool batch_frame(struct bly_outbox *out, struct bly_out_item *item)
{
    struct bly_out_frame *frame = &out->batch[out->n_batch++];
    size_t left = item->len - item->at;
    bool fin = item->raw || left <= BLY_WS_FRAME_MAX;

    frame->len = fin ? left : BLY_WS_FRAME_MAX;
    frame->data = item->data + item->at;
    frame->last_of = fin ? item : NULL;
    frame->ends_line = item->ends_line;
    frame->head_len =
        item->raw
            ? 0
            : bly_ws_put_header(frame->head, item->at > 0 ? BLY_WS_CONTINUATION : item->opcode, fin,
                                frame->len, NULL);
    item->at += frame->len;
    return fin;
}

static void batch_control(struct bly_outbox *out, struct bly_out_item **item)
{
    if (*item)
        batch_frame(out, bly_take_ptr(item));
}

/* Fills the batch: control frames first, then data up to about one large frame. */
static void make_batch(struct bly_outbox *out)
{
    size_t bytes = 0;

    batch_control(out, &out->pong);
    batch_control(out, &out->ping);

    while (out->first && out->n_batch < BLY_OUT_BATCH && bytes < BLY_WS_FRAME_MAX) {
        struct bly_out_item *item = out->first;

        if (batch_frame(out, item)) {
            out->first = item->next;
            if (!out->first)
                out->last = NULL;
        }
        bytes += out->batch[out->n_batch - 1].len;
    }
    out->waiting -= bytes;
}

enum { PARTS = 3 }; /* of a frame: what is in front, the payload, what is behind */

static uv_buf_t frame_part(const struct bly_out_frame *frame, size_t part)
{
    static const char line_end[] = "\n";
    const struct {
        const void *data;
        size_t len;
    } parts[PARTS] = {
        {frame->head, frame->head_len}, {frame->data, frame->len}, {line_end, frame->ends_line}};

    /* uv_buf_t has no const; libuv only reads what it writes out. */
    return (uv_buf_t){.base = (char *)(uintptr_t)parts[part].data, .len = parts[part].len};
}

/* The parts of the batch past its first `done` bytes. */
static unsigned batch_bufs(struct bly_outbox *out, size_t done,
                           uv_buf_t bufs[PARTS * BLY_OUT_BATCH], size_t *ret_bytes)
{
    unsigned n = 0;

    *ret_bytes = 0;
    for (size_t i = 0; i < PARTS * out->n_batch; i++) {
        uv_buf_t part = frame_part(&out->batch[i / PARTS], i % PARTS);
        size_t skipped = done < part.len ? done : part.len;

        done -= skipped;
        if (skipped == part.len)
            continue;
        bufs[n++] = (uv_buf_t){.base = part.base + skipped, .len = part.len - skipped};
        *ret_bytes += part.len - skipped;
    }
    return n;
}

static void on_written(uv_write_t *request, int status);

/* Writes the batch as far as the socket takes it and leaves the rest to libuv. */
static int write_batch(struct bly_outbox *out)
{
    uv_buf_t bufs[PARTS * BLY_OUT_BATCH];
    size_t bytes;
    unsigned n = batch_bufs(out, 0, bufs, &bytes);
    int r = uv_try_write(out->stream, bufs, n);

    if (r == UV_EAGAIN)
        r = 0;
    if (r < 0)
        return r;
    if ((size_t)r == bytes) {
        end_batch(out);
        return 0;
    }

    n = batch_bufs(out, (size_t)r, bufs, &bytes);
    r = uv_write(&out->request, out->stream, bufs, n, on_written);
    if (r == 0)
        out->writing = true;
    return r;
}

static int pump(struct bly_outbox *out)
{
    while (!out->writing && out->error == 0) {
        make_batch(out);
        if (out->n_batch == 0)
            break;
        out->error = write_batch(out);
    }
    return out->error;
}

static void on_written(uv_write_t *request, int status)
{
    struct bly_outbox *out = request->data;

    out->writing = false;
    end_batch(out);
    if (status < 0)
        out->error = status;
    else
        pump(out);
    out->progress(out->arg);
}

static int append(struct bly_outbox *out, struct bly_out_item *item)
{
    if (!item)
        return -ENOMEM;
    if (out->last)
        out->last->next = item;
    else
        out->first = item;
    out->last = item;
    out->waiting += item->len;
    return pump(out);
}

int bly_outbox_message(struct bly_outbox *out, void *mem, size_t off, size_t len)
{
    struct bly_out_item *item;

    if (out->closing || out->error < 0) {
        free(mem);
        return out->error < 0 ? out->error : -EPIPE;
    }
    item = item_new(BLY_WS_TEXT, mem, off, len);
    if (item)
        item->raw = item->ends_line = out->framing == BLY_OUT_LINES;
    return append(out, item);
}

int bly_outbox_raw(struct bly_outbox *out, const void *data, size_t len)
{
    struct bly_out_item *item = item_copy(BLY_WS_TEXT, data, len);

    if (item)
        item->raw = true;
    return append(out, item);
}

static int put_control(struct bly_outbox *out, struct bly_out_item **slot,
                       struct bly_out_item *item)
{
    if (!item)
        return -ENOMEM;
    if (out->closing) {
        item_free(item);
        return -EPIPE;
    }
    item_free(*slot);
    *slot = item;
    return pump(out);
}

int bly_outbox_ping(struct bly_outbox *out)
{
    return put_control(out, &out->ping, item_copy(BLY_WS_PING, NULL, 0));
}

int bly_outbox_pong(struct bly_outbox *out, const uint8_t *payload, size_t len)
{
    return put_control(out, &out->pong, item_copy(BLY_WS_PONG, payload, len));
}

static size_t cut_reason(const char *reason, size_t max)
{
    size_t len = strnlen(reason, max + 1);

    if (len <= max)
        return len;
    for (len = max; len > 0 && ((uint8_t)reason[len] & 0xc0) == 0x80;)
        len--;
    return len;
}

int bly_outbox_close(struct bly_outbox *out, uint16_t code, const char *reason)
{
    uint8_t payload[BLY_WS_CONTROL_MAX] = {(uint8_t)(code >> 8), (uint8_t)code};
    size_t len = cut_reason(reason, sizeof(payload) - 2);

    if (out->closing)
        return -EPIPE;
    out->closing = true;
    memcpy(payload + 2, reason, len);
    return append(out, item_copy(BLY_WS_CLOSE, payload, code == BLY_WS_NO_STATUS ? 0 : len + 2));
}

size_t bly_outbox_bytes(const struct bly_outbox *out)
{
    return out->waiting + (out->writing ? uv_stream_get_write_queue_size(out->stream) : 0);
}

bool bly_outbox_is_empty(const struct bly_outbox *out)
{
    return !out->writing && !out->first && !out->ping && !out->pong;
}
