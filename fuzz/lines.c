/*
 * JSON lines: however the bytes are cut into pieces, the same lines come out, none of them with a
 * line feed, too long or not UTF-8. The first byte of the input chooses the longest line.
 */
#include "transport/lines.h"

#include "base/cleanup.h"
#include "fuzz.h"

enum feed { WHOLE, BY_BYTE, BY_SEVEN, N_FEEDS };

static const size_t pieces[N_FEEDS] = {SIZE_MAX, 1, 7};

static void check_line(const struct bly_line *line, uint64_t max_bytes)
{
    static const char zeros[BLY_JSON_PADDING];
    struct bly_utf8 utf8 = {0};

    FUZZ_MUST(line->len > 0 && line->len <= max_bytes);
    FUZZ_MUST(memcmp(line->text + line->len, zeros, sizeof(zeros)) == 0);
    FUZZ_MUST(!memchr(line->text, '\n', line->len));
    FUZZ_MUST(bly_utf8_feed(&utf8, (const uint8_t *)line->text, line->len) && utf8.left == 0);
}

/* Returns false when nothing more is to be fed. */
static bool note(struct bly_buf *trace, uint64_t max_bytes, int r, struct bly_line *line)
{
    if (r < 0) {
        FUZZ_MUST(bly_line_error_text(r)[0]);
        bly_buf_put_u32(trace, (uint32_t)-r);
        return false;
    }
    if (line->text) {
        check_line(line, max_bytes);
        bly_buf_put_bytes(trace, line->text, line->len);
        free(line->text);
    }
    return true;
}

static bool feed_piece(struct bly_line_receiver *r, struct bly_buf *trace, const uint8_t *data,
                       size_t len)
{
    for (size_t at = 0; at < len;) {
        struct bly_line line = {0};
        size_t used = 0;
        int error = bly_line_receive(r, data + at, len - at, &used, &line);

        FUZZ_MUST(error < 0 || (used > 0 && used <= len - at));
        if (!note(trace, r->max_bytes, error, &line))
            return false;
        at += used;
    }
    return true;
}

static void run(size_t piece, uint64_t max_bytes, const uint8_t *data, size_t size,
                struct bly_buf *ret_trace)
{
    struct bly_line_receiver r;
    struct bly_line line = {0};
    bool going = true;

    bly_buf_init(ret_trace, FUZZ_OUTPUT_MAX);
    bly_line_receiver_init(&r, max_bytes);
    for (size_t at = 0; at < size && going;) {
        size_t n = size - at < piece ? size - at : piece;

        going = feed_piece(&r, ret_trace, data + at, n);
        at += n;
    }
    if (going)
        note(ret_trace, max_bytes, bly_line_finish(&r, &line), &line);
    bly_line_receiver_deinit(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bly_buf traces[N_FEEDS];
    uint64_t max_bytes;

    if (size == 0)
        return 0;
    max_bytes = data[0] & 1 ? 16 : 1 << 20;
    for (unsigned how = 0; how < N_FEEDS; how++)
        run(pieces[how], max_bytes, data + 1, size - 1, &traces[how]);
    for (unsigned how = 1; how < N_FEEDS; how++)
        fuzz_check_same(&traces[0], &traces[how]);
    for (unsigned how = 0; how < N_FEEDS; how++)
        bly_buf_deinit(&traces[how]);
    return 0;
}
