#pragma once

/*
 * Standard base64 with padding (RFC 4648 section 4), strict. Pure functions, any thread.
 */
#include <stddef.h>
#include <stdint.h>

struct bly_err;

/* Length of the text for `n` bytes, without a NUL. */
static inline size_t bly_base64_len(size_t n)
{
    return (n + 2) / 3 * 4;
}

/*
 * Encodes into `text`, which has room for bly_base64_len(n) bytes; no NUL is written. Works in
 * place when `data` is the tail of the text buffer: data + n == text + bly_base64_len(n), or
 * further back.
 */
void bly_base64_encode(const void *data, size_t n, char *text);

enum bly_base64_fault {
    BLY_BASE64_SYMBOL = 1, /* "Invalid symbol BYTE, offset OFFSET." (with the full stop) */
    BLY_BASE64_PADDING,    /* "Invalid padding" */
    BLY_BASE64_LENGTH,     /* "Invalid input length: OFFSET" one symbol left over */
    BLY_BASE64_LAST,       /* "Invalid last symbol BYTE, offset OFFSET." trailing bits not zero */
};

struct bly_base64_error {
    enum bly_base64_fault fault;
    unsigned byte;
    size_t offset;
};

/*
 * Decodes strictly: padding required, no white space, trailing bits zero. `data` needs room for
 * len / 4 * 3 bytes and may be the text itself. Returns 0 and sets *ret_n; -EINVAL with *ret_error
 * (may be NULL) saying what upstream's decoder says (the faults above, same order of checks).
 */
int bly_base64_decode(const char *text, size_t len, void *data, size_t *ret_n,
                      struct bly_base64_error *ret_error);

/* The words the protocol uses, into `text`; see the enum. */
void bly_base64_error_text(const struct bly_base64_error *error, char *text, size_t size);
