#pragma once

/*
 * Byte buffer that grows up to a ceiling it was made with. After the first failure it stays failed
 * and ignores further appends, so a writer may check once at the end. Also the reader half, used to
 * unpack the internal wire formats. Any thread; one owner at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_buf {
    uint8_t *data; /* owned; NULL while empty */
    size_t len;
    size_t cap;
    size_t max;
    int error; /* 0, -ENOMEM or -EMSGSIZE (would exceed max) */
};

void bly_buf_init(struct bly_buf *buf, size_t max_bytes);
void bly_buf_deinit(struct bly_buf *buf);
#define bly_autobuf __attribute__((cleanup(bly_buf_deinit)))

/* Each returns buf->error. */
int bly_buf_reserve(struct bly_buf *buf, size_t more); /* room for `more` bytes past len */
int bly_buf_add(struct bly_buf *buf, const void *data, size_t len);
int bly_buf_add_str(struct bly_buf *buf, const char *str); /* without its NUL */
int bly_buf_add_char(struct bly_buf *buf, char c);
int bly_buf_printf(struct bly_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Wire helpers, native byte order (both ends are the same binary). Strings: u32 length, bytes. */
int bly_buf_put_u8(struct bly_buf *buf, uint8_t v);
int bly_buf_put_u32(struct bly_buf *buf, uint32_t v);
int bly_buf_put_u64(struct bly_buf *buf, uint64_t v);
int bly_buf_put_bytes(struct bly_buf *buf, const void *data, size_t len);
int bly_buf_put_str(struct bly_buf *buf, const char *str); /* NULL is kept as NULL */

/* Hands the memory over (malloc'ed, NUL-terminated past len); the buffer is empty afterwards. */
uint8_t *bly_buf_take(struct bly_buf *buf, size_t *ret_len);

/* Reader over borrowed bytes. After the first short or malformed read `bad` stays true. */
struct bly_reader {
    const uint8_t *data;
    size_t len;
    size_t pos;
    bool bad;
};

struct bly_reader bly_reader_of(const void *data, size_t len);
uint8_t bly_get_u8(struct bly_reader *r);
uint32_t bly_get_u32(struct bly_reader *r);
uint64_t bly_get_u64(struct bly_reader *r);
const uint8_t *bly_get_bytes(struct bly_reader *r, size_t *ret_len); /* borrowed from the input */
char *bly_get_str(struct bly_reader *r); /* malloc'ed; NULL for a NULL string, or when bad */
