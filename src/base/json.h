#pragma once

/*
 * JSON glue over yyjson: strict reading with the protocol's limits, and writing straight into a
 * buffer. Any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

struct bly_buf;
struct bly_err;

enum {
    BLY_JSON_PADDING = 4, /* zero bytes past the text that bly_json_read() needs (yyjson in situ) */
    BLY_JSON_MAX_DEPTH = 127,     /* spec 2.2 */
    BLY_JSON_MAX_VALUES = 262144, /* spec 2.2; keys do not count */
};

/*
 * Parses `text` (len bytes and BLY_JSON_PADDING writable bytes behind them) in situ: the document
 * borrows `text` and changes it. Refuses with -EBADMSG and a text in `err` (kind BLY_ERR_INVALID):
 * syntax errors (text ends in "at line L column C"), "recursion limit exceeded", "JSON-RPC message
 * exceeds the limit of 262144 JSON values", "duplicate JSON object key `k`". -ENOMEM.
 */
int bly_json_read(char *text, size_t len, yyjson_doc **ret_doc, struct bly_err *err);

/* Like bly_json_read() for text that must stay as it is (copied). */
int bly_json_read_copy(const char *text, size_t len, yyjson_doc **ret_doc, struct bly_err *err);

/* True when a JSON string can carry `str` byte by byte: it is valid UTF-8. */
bool bly_json_is_text(const char *str);

/*
 * The length of the longest beginning of `str` that is valid UTF-8. When that is not all of it,
 * `*ret_bad` is the number of bytes behind it that belong together; 0: the text ends too early.
 */
size_t bly_json_utf8_len(const char *str, size_t len, size_t *ret_bad);

/* Append a JSON value. Strings: bytes that are not valid UTF-8 become U+FFFD. Return buf->error. */
int bly_json_add_str(struct bly_buf *buf, const char *str, size_t len); /* with the quotes */
int bly_json_add_cstr(struct bly_buf *buf, const char *str);
int bly_json_add_u64(struct bly_buf *buf, uint64_t v);
int bly_json_add_i64(struct bly_buf *buf, int64_t v);
