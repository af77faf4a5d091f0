#include "proto/proto.h"

#include "base/base64.h"
#include "base/buf.h"
#include "base/json.h"
#include "process/process.h"
#include "process/ring.h"
#include "proto/encode.h"

enum {
    CHUNK_ROOM = 96,   /* bytes of a chunk's JSON around its base64, at most */
    TAIL_ROOM = 256,   /* bytes behind the last chunk, the end of the envelope included, at most */
    CHUNK_VALUES = 4,  /* JSON values of a chunk */
    OTHER_VALUES = 16, /* ... and of the rest of the answer, at most */
    CHUNKS_MAX = (BLY_JSON_MAX_VALUES - OTHER_VALUES) / CHUNK_VALUES,
};

static int add_stream(struct bly_buf *buf, int stream)
{
    static const char *const names[] = {
        [BLY_STDOUT] = "\"stdout\"", [BLY_STDERR] = "\"stderr\"", [BLY_PTY] = "\"pty\""};

    return bly_buf_add_str(buf, names[stream]);
}

int bly_proto_encode_start(const char *process_id, size_t len, bool walled, struct bly_buf *buf)
{
    BLY_ADD(buf, "{\"processId\":");
    bly_json_add_str(buf, process_id, len);
    if (walled)
        return BLY_ADD(buf, ",\"sandboxType\":\"linuxSeccomp\"}");
    return BLY_ADD(buf, ",\"sandboxType\":\"none\"}");
}

/* ---- process/read ---- */

/* What has gone into an answer so far. */
struct page {
    size_t n_chunks;
    uint64_t bytes, last_seq;
    bool cut; /* the answer became too large for one more, whatever the client's own limit was */
};

/* Whether one more chunk may go in. The first always does, or a reader would never get on. */
static bool has_room(struct page *page, const struct bly_buf *buf, size_t chunk_len,
                     uint64_t max_bytes, size_t max_message_bytes)
{
    if (page->n_chunks == 0)
        return true;

    page->cut = page->n_chunks >= CHUNKS_MAX ||
                buf->len + bly_base64_len(chunk_len) + CHUNK_ROOM + TAIL_ROOM > max_message_bytes;
    return !page->cut && page->bytes + chunk_len <= max_bytes;
}

static void add_chunk(struct page *page, const struct bly_chunk *chunk, struct bly_buf *buf)
{
    if (page->n_chunks > 0)
        BLY_ADD(buf, ",");
    BLY_ADD(buf, "{\"seq\":");
    bly_json_add_u64(buf, chunk->seq);
    BLY_ADD(buf, ",\"stream\":");
    add_stream(buf, chunk->stream);
    BLY_ADD(buf, ",\"chunk\":");
    bly_encode_base64(buf, chunk->data, chunk->len);
    BLY_ADD(buf, "}");

    page->n_chunks++;
    page->bytes += chunk->len;
    page->last_seq = chunk->seq;
}

/*
 * A client that pages, with maxBytes, goes on behind what it got. An answer without a limit is
 * complete, and its cursor covers exit and close as well. One we had to cut is a page too.
 */
static uint64_t next_seq(const struct page *page, const struct bly_process_state *state,
                         bool has_max_bytes)
{
    bool paged = page->cut || (has_max_bytes && page->n_chunks > 0);

    return paged ? page->last_seq + 1 : state->next_seq;
}

int bly_proto_encode_read(const struct bly_ring *ring, const struct bly_process_state *state,
                          uint64_t after_seq, uint64_t max_bytes, bool has_max_bytes,
                          size_t max_message_bytes, struct bly_buf *buf)
{
    struct page page = {.last_seq = after_seq};
    struct bly_chunk chunk;

    BLY_ADD(buf, "{\"chunks\":[");
    while (bly_ring_next(ring, page.last_seq, &chunk) == 0 &&
           has_room(&page, buf, chunk.len, max_bytes, max_message_bytes))
        add_chunk(&page, &chunk, buf);

    BLY_ADD(buf, "],\"nextSeq\":");
    bly_json_add_u64(buf, next_seq(&page, state, has_max_bytes));
    BLY_ADD(buf, ",\"exited\":");
    bly_encode_bool(buf, state->exited);
    BLY_ADD(buf, ",\"exitCode\":");
    if (state->exited)
        bly_json_add_i64(buf, state->exit_code);
    else
        BLY_ADD(buf, "null");
    BLY_ADD(buf, ",\"closed\":");
    bly_encode_bool(buf, state->closed);
    BLY_ADD(buf, ",\"failure\":null,\"sandboxDenied\":");
    bly_encode_bool(buf, state->sandbox_denied);
    return BLY_ADD(buf, "}");
}

/* ---- notifications ---- */

int bly_proto_add_output(struct bly_buf *buf, const char *process_id, size_t len, uint64_t seq,
                         int stream, const uint8_t *data, size_t n)
{
    /* Growing once is enough, unless the id has to be escaped. */
    bly_buf_reserve(buf, len + bly_base64_len(n) + (size_t)2 * CHUNK_ROOM);
    BLY_ADD(buf, "{\"method\":\"process/output\",\"params\":{\"processId\":");
    bly_json_add_str(buf, process_id, len);
    BLY_ADD(buf, ",\"seq\":");
    bly_json_add_u64(buf, seq);
    BLY_ADD(buf, ",\"stream\":");
    add_stream(buf, stream);
    BLY_ADD(buf, ",\"chunk\":");
    bly_encode_base64(buf, data, n);
    return BLY_ADD(buf, "}}");
}

int bly_proto_add_exited(struct bly_buf *buf, const char *process_id, size_t len, uint64_t seq,
                         int exit_code, bool sandbox_denied)
{
    BLY_ADD(buf, "{\"method\":\"process/exited\",\"params\":{\"processId\":");
    bly_json_add_str(buf, process_id, len);
    BLY_ADD(buf, ",\"seq\":");
    bly_json_add_u64(buf, seq);
    BLY_ADD(buf, ",\"exitCode\":");
    bly_json_add_i64(buf, exit_code);
    BLY_ADD(buf, ",\"sandboxDenied\":");
    bly_encode_bool(buf, sandbox_denied);
    return BLY_ADD(buf, "}}");
}

int bly_proto_add_closed(struct bly_buf *buf, const char *process_id, size_t len, uint64_t seq)
{
    BLY_ADD(buf, "{\"method\":\"process/closed\",\"params\":{\"processId\":");
    bly_json_add_str(buf, process_id, len);
    BLY_ADD(buf, ",\"seq\":");
    bly_json_add_u64(buf, seq);
    return BLY_ADD(buf, "}}");
}
