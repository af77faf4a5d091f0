#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_CAP = 128,
    NULL_STRING = UINT32_MAX, /* the length that stands for a NULL string on the wire */
};

void bly_buf_init(struct bly_buf *buf, size_t max_bytes)
{
    *buf = (struct bly_buf){.max = max_bytes};
}

void bly_buf_deinit(struct bly_buf *buf)
{
    free(buf->data);
    *buf = (struct bly_buf){0};
}

/* Doubles, so that many small appends cost linear time; never past the ceiling. */
static size_t next_cap(const struct bly_buf *buf, size_t needed)
{
    size_t cap = buf->cap ? buf->cap : FIRST_CAP;

    while (cap < needed && cap <= buf->max / 2)
        cap *= 2;
    if (cap < needed)
        cap = needed;
    return cap < buf->max ? cap : buf->max;
}

int bly_buf_reserve(struct bly_buf *buf, size_t more)
{
    if (buf->error)
        return buf->error;
    if (more > buf->max - buf->len)
        return buf->error = -EMSGSIZE;
    if (more <= buf->cap - buf->len && buf->data)
        return 0;

    size_t cap = next_cap(buf, buf->len + more);
    uint8_t *data = realloc(buf->data, cap + 1); /* one for the NUL of bly_buf_take() */

    if (!data)
        return buf->error = -ENOMEM;
    buf->data = data;
    buf->cap = cap;
    return 0;
}

int bly_buf_add(struct bly_buf *buf, const void *data, size_t len)
{
    int r = bly_buf_reserve(buf, len);

    if (r < 0)
        return r;
    if (len > 0)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    return 0;
}

int bly_buf_add_str(struct bly_buf *buf, const char *str)
{
    return bly_buf_add(buf, str, strlen(str));
}

int bly_buf_add_char(struct bly_buf *buf, char c)
{
    return bly_buf_add(buf, &c, 1);
}

int bly_buf_printf(struct bly_buf *buf, const char *fmt, ...)
{
    va_list args;
    int r = bly_buf_reserve(buf, 0);

    if (r < 0)
        return r;

    va_start(args, fmt);
    int n = vsnprintf((char *)buf->data + buf->len, buf->cap - buf->len + 1, fmt, args);
    va_end(args);
    if (n < 0)
        return buf->error = -EMSGSIZE;

    if ((size_t)n > buf->cap - buf->len) {
        r = bly_buf_reserve(buf, (size_t)n);
        if (r < 0)
            return r;
        va_start(args, fmt);
        (void)vsnprintf((char *)buf->data + buf->len, (size_t)n + 1, fmt, args);
        va_end(args);
    }
    buf->len += (size_t)n;
    return 0;
}

int bly_buf_put_u8(struct bly_buf *buf, uint8_t v)
{
    return bly_buf_add(buf, &v, sizeof(v));
}

int bly_buf_put_u32(struct bly_buf *buf, uint32_t v)
{
    return bly_buf_add(buf, &v, sizeof(v));
}

int bly_buf_put_u64(struct bly_buf *buf, uint64_t v)
{
    return bly_buf_add(buf, &v, sizeof(v));
}

int bly_buf_put_bytes(struct bly_buf *buf, const void *data, size_t len)
{
    if (buf->error)
        return buf->error;
    if (len >= NULL_STRING)
        return buf->error = -EMSGSIZE;

    int r = bly_buf_put_u32(buf, (uint32_t)len);

    return r < 0 ? r : bly_buf_add(buf, data, len);
}

int bly_buf_put_str(struct bly_buf *buf, const char *str)
{
    if (!str)
        return bly_buf_put_u32(buf, NULL_STRING);
    return bly_buf_put_bytes(buf, str, strlen(str));
}

uint8_t *bly_buf_take(struct bly_buf *buf, size_t *ret_len)
{
    if (bly_buf_reserve(buf, 0) < 0)
        return NULL;

    uint8_t *data = buf->data;

    data[buf->len] = '\0';
    if (ret_len)
        *ret_len = buf->len;
    *buf = (struct bly_buf){.max = buf->max};
    return data;
}

struct bly_reader bly_reader_of(const void *data, size_t len)
{
    return (struct bly_reader){.data = data, .len = len};
}

/* The next `n` bytes, or NULL. */
static const uint8_t *advance(struct bly_reader *r, size_t n)
{
    if (r->bad || n > r->len - r->pos) {
        r->bad = true;
        return NULL;
    }
    r->pos += n;
    return r->data + (r->pos - n);
}

uint8_t bly_get_u8(struct bly_reader *r)
{
    const uint8_t *p = advance(r, 1);

    return p ? *p : 0;
}

uint32_t bly_get_u32(struct bly_reader *r)
{
    uint32_t v = 0;
    const uint8_t *p = advance(r, sizeof(v));

    if (p)
        memcpy(&v, p, sizeof(v));
    return v;
}

uint64_t bly_get_u64(struct bly_reader *r)
{
    uint64_t v = 0;
    const uint8_t *p = advance(r, sizeof(v));

    if (p)
        memcpy(&v, p, sizeof(v));
    return v;
}

const uint8_t *bly_get_bytes(struct bly_reader *r, size_t *ret_len)
{
    uint32_t len = bly_get_u32(r);
    const uint8_t *p = advance(r, len);

    *ret_len = p ? len : 0;
    return p;
}

char *bly_get_str(struct bly_reader *r)
{
    uint32_t len = bly_get_u32(r);

    if (r->bad || len == NULL_STRING)
        return NULL;

    const uint8_t *p = advance(r, len);

    if (!p)
        return NULL;
    /* A NUL inside would make two different wire texts the same string. */
    char *str = memchr(p, '\0', len) ? NULL : strndup((const char *)p, len);

    if (!str)
        r->bad = true;
    return str;
}
