#include "transport/lines.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { FIRST_CAP = 4096 };

void bly_line_receiver_init(struct bly_line_receiver *r, uint64_t max_bytes)
{
    *r = (struct bly_line_receiver){.max_bytes = max_bytes};
}

void bly_line_receiver_deinit(struct bly_line_receiver *r)
{
    free(r->text);
    *r = (struct bly_line_receiver){.max_bytes = r->max_bytes};
}

static int make_room(struct bly_line_receiver *r, size_t more)
{
    size_t need = r->len + more + BLY_JSON_PADDING;
    size_t cap = r->cap > 0 ? r->cap : FIRST_CAP;
    char *text;

    if (need <= r->cap)
        return 0;
    while (cap < need)
        cap *= 2;
    text = realloc(r->text, cap);
    if (!text)
        return -ENOMEM;
    r->text = text;
    r->cap = cap;
    return 0;
}

/* How many of `n` bytes fit: up to the limit, and one more when that is the CR of the line's end.
 */
static size_t fitting(const struct bly_line_receiver *r, const uint8_t *data, size_t n)
{
    uint64_t room = r->len < r->max_bytes ? r->max_bytes - r->len : 0;

    if (n <= room)
        return n;
    return (size_t)room + (r->len <= r->max_bytes && data[room] == '\r');
}

static int append(struct bly_line_receiver *r, const uint8_t *data, size_t n)
{
    size_t fits = fitting(r, data, n);

    /* The first fault in the line decides, however its bytes arrive. */
    if (!bly_utf8_feed(&r->utf8, data, fits))
        return -EILSEQ;
    if (fits < n)
        return -EMSGSIZE;
    if (make_room(r, n) < 0)
        return -ENOMEM;
    if (n > 0)
        memcpy(r->text + r->len, data, n);
    r->len += n;
    return 0;
}

static size_t without_cr(const struct bly_line_receiver *r)
{
    return r->len > 0 && r->text[r->len - 1] == '\r' ? r->len - 1 : r->len;
}

static bool is_blank(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    return true;
}

/* Hands the line over, unless it is blank. */
static int end_line(struct bly_line_receiver *r, struct bly_line *line)
{
    size_t len = without_cr(r);

    if (r->utf8.left > 0)
        return -EILSEQ;
    if (len > r->max_bytes)
        return -EMSGSIZE;
    if (!is_blank(r->text, len)) {
        memset(r->text + len, 0, BLY_JSON_PADDING);
        *line = (struct bly_line){.text = r->text, .len = len};
        r->text = NULL;
        r->cap = 0;
    }
    r->len = 0;
    return 0;
}

int bly_line_receive(struct bly_line_receiver *r, const uint8_t *data, size_t len, size_t *ret_used,
                     struct bly_line *ret_line)
{
    struct bly_line line = {0};
    size_t at = 0;

    *ret_used = 0;
    while (at < len && !line.text) {
        const uint8_t *end = memchr(data + at, '\n', len - at);
        size_t n = end ? (size_t)(end - data) - at : len - at;
        int err = append(r, data + at, n);

        if (err == 0 && end)
            err = end_line(r, &line);
        if (err < 0)
            return err;
        at += end ? n + 1 : n;
    }
    *ret_used = at;
    *ret_line = line;
    return 0;
}

int bly_line_finish(struct bly_line_receiver *r, struct bly_line *ret_line)
{
    *ret_line = (struct bly_line){0};
    return r->len > 0 || r->utf8.left > 0 ? end_line(r, ret_line) : 0;
}

const char *bly_line_error_text(int r)
{
    return r == -EMSGSIZE ? "line is longer than this server accepts"
           : r == -EILSEQ ? "line is not valid UTF-8"
                          : "out of memory";
}
