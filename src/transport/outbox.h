#pragma once

/*
 * The sending half of a connection: messages become frames or lines and go out in order, payloads
 * are never copied, control frames slip in between data frames. What the socket does not take at
 * once waits here, counted in bytes. Loop thread only; no callback is made from inside a call.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "transport/ws.h"

struct bly_out_item;

enum bly_out_framing {
    BLY_OUT_WS,
    BLY_OUT_LINES, /* messages end with LF; there are no control frames */
};

/* Frames handed to the kernel in one go. */
enum { BLY_OUT_BATCH = 16 };

struct bly_out_frame {
    uint8_t head[BLY_WS_HEAD_MAX];
    size_t head_len;
    const uint8_t *data;
    size_t len;
    bool ends_line;               /* LF follows */
    struct bly_out_item *last_of; /* freed when this frame is out */
};

struct bly_outbox {
    enum bly_out_framing framing;
    uv_stream_t *stream;
    void (*progress)(void *arg); /* from the loop: something went out, or `error` was set */
    void *arg;

    struct bly_out_item *first, *last; /* data, then at most one close frame */
    size_t waiting;                    /* bytes in that list */
    struct bly_out_item *ping, *pong;  /* waiting control frames: one of each kind at most */

    struct bly_out_frame batch[BLY_OUT_BATCH];
    size_t n_batch;
    uv_write_t request;
    bool writing; /* the batch belongs to libuv until its callback */
    bool closing; /* the close frame is in the list or out: nothing may follow it */
    int error;    /* negative errno: the socket is broken */
};

void bly_outbox_init(struct bly_outbox *out, enum bly_out_framing framing, uv_stream_t *stream,
                     void (*progress)(void *arg), void *arg);
/* Only when the stream is closed. */
void bly_outbox_deinit(struct bly_outbox *out);

/* Each queues and writes what the socket takes at once. 0; -ENOMEM; -EPIPE after a close frame;
 * the socket's error. `mem` is consumed, also on failure. */
int bly_outbox_message(struct bly_outbox *out, void *mem, size_t off, size_t len);
int bly_outbox_raw(struct bly_outbox *out, const void *data, size_t len); /* copied, no framing */
int bly_outbox_ping(struct bly_outbox *out);
/* A pong that could not go out yet is replaced: only the latest ping wants an answer. */
int bly_outbox_pong(struct bly_outbox *out, const uint8_t *payload, size_t len);
/* `code` BLY_WS_NO_STATUS: a close frame without one. A longer reason is cut. */
int bly_outbox_close(struct bly_outbox *out, uint16_t code, const char *reason);

/* Payload bytes the kernel has not taken. */
size_t bly_outbox_bytes(const struct bly_outbox *out);
bool bly_outbox_is_empty(const struct bly_outbox *out);
