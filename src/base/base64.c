#include "base/base64.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/base64_wide.h"

static const char symbols[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum { NO_SYMBOL = 255 };

/* clang-format off */
static const uint8_t values[256] = {
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,  62, 255, 255, 255,  63,
     52,  53,  54,  55,  56,  57,  58,  59,  60,  61, 255, 255, 255, 255, 255, 255,
    255,   0,   1,   2,   3,   4,   5,   6,   7,   8,   9,  10,  11,  12,  13,  14,
     15,  16,  17,  18,  19,  20,  21,  22,  23,  24,  25, 255, 255, 255, 255, 255,
    255,  26,  27,  28,  29,  30,  31,  32,  33,  34,  35,  36,  37,  38,  39,  40,
     41,  42,  43,  44,  45,  46,  47,  48,  49,  50,  51, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
};
/* clang-format on */

/* ---- encoding ---- */

static void encode_three(const uint8_t *in, char *out)
{
    uint32_t v = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
    char text[4] = {symbols[v >> 18], symbols[v >> 12 & 63], symbols[v >> 6 & 63], symbols[v & 63]};

    memcpy(out, text, sizeof(text));
}

static void encode_last(const uint8_t *in, size_t n, char *out)
{
    uint8_t block[3] = {in[0], n > 1 ? in[1] : 0, 0};

    encode_three(block, out);
    out[3] = '=';
    if (n == 1)
        out[2] = '=';
}

/* Six bytes a step, read as eight; the load comes before the store, see the header on overlap. */
static size_t encode_steps(const uint8_t *in, size_t n, char *out)
{
    size_t i = 0;

    for (; n - i >= 8; i += 6) {
        uint64_t v;

        memcpy(&v, in + i, sizeof(v));
        v = be64toh(v);

        char text[8] = {symbols[v >> 58],      symbols[v >> 52 & 63], symbols[v >> 46 & 63],
                        symbols[v >> 40 & 63], symbols[v >> 34 & 63], symbols[v >> 28 & 63],
                        symbols[v >> 22 & 63], symbols[v >> 16 & 63]};

        memcpy(out + i / 3 * 4, text, sizeof(text));
    }
    return i;
}

void bly_base64_encode_scalar(const void *data, size_t n, char *text)
{
    const uint8_t *in = data;
    size_t i = encode_steps(in, n, text);

    for (; n - i >= 3; i += 3)
        encode_three(in + i, text + i / 3 * 4);
    if (n > i)
        encode_last(in + i, n - i, text + i / 3 * 4);
}

void bly_base64_encode(const void *data, size_t n, char *text)
{
    const uint8_t *in = data;
    size_t done = bly_base64_encode_wide(in, n, text);

    bly_base64_encode_scalar(in + done, n - done, text + done / 3 * 4);
}

/* ---- decoding ---- */

static int fault_at(struct bly_base64_error *ret_error, enum bly_base64_fault fault, unsigned byte,
                    size_t offset)
{
    if (ret_error)
        *ret_error = (struct bly_base64_error){.fault = fault, .byte = byte, .offset = offset};
    return -EINVAL;
}

/* Four symbols to three bytes; false when one of them is none. */
static bool decode_four(const uint8_t *in, uint8_t *out)
{
    uint8_t a = values[in[0]];
    uint8_t b = values[in[1]];
    uint8_t c = values[in[2]];
    uint8_t d = values[in[3]];

    if ((a | b | c | d) & 0x80)
        return false;
    out[0] = (uint8_t)(a << 2 | b >> 4);
    out[1] = (uint8_t)(b << 4 | c >> 2);
    out[2] = (uint8_t)(c << 6 | d);
    return true;
}

/* Whole groups of four without padding; returns how many symbols were good, a multiple of four. */
static size_t decode_groups(const uint8_t *in, size_t len, uint8_t *out)
{
    size_t i = 0;

    while (i < len && decode_four(in + i, out + i / 4 * 3))
        i += 4;
    return i;
}

static int first_bad_symbol(const uint8_t *in, size_t i, struct bly_base64_error *ret_error)
{
    while (values[in[i]] != NO_SYMBOL)
        i++;
    return fault_at(ret_error, BLY_BASE64_SYMBOL, in[i], i);
}

/*
 * The last one to four symbols, at `in + at`: the only place for padding. Order of the checks as in
 * the decoder the protocol quotes.
 */
static int decode_last(const uint8_t *in, size_t at, size_t n, uint8_t *out, size_t *ret_n,
                       struct bly_base64_error *ret_error)
{
    uint32_t bits = 0;
    size_t n_symbols = 0;
    size_t n_pads = 0;

    for (size_t i = 0; i < n; i++) {
        uint8_t c = in[at + i];

        if (c == '=' && i < 2)
            return fault_at(ret_error, BLY_BASE64_SYMBOL, c, at + i);
        if (c == '=') {
            n_pads++;
            continue;
        }
        if (n_pads > 0)
            return fault_at(ret_error, BLY_BASE64_SYMBOL, '=', at + n_symbols);
        if (values[c] == NO_SYMBOL)
            return fault_at(ret_error, BLY_BASE64_SYMBOL, c, at + i);
        bits |= (uint32_t)values[c] << (26 - 6 * i);
        n_symbols++;
    }

    size_t n_bytes = n_symbols * 6 / 8;

    if (n_symbols < 2)
        return fault_at(ret_error, BLY_BASE64_LENGTH, 0, at + n_symbols);
    if (n_symbols + n_pads != 4)
        return fault_at(ret_error, BLY_BASE64_PADDING, 0, 0);
    if (n_bytes < 3 && bits << 8 * n_bytes)
        return fault_at(ret_error, BLY_BASE64_LAST, in[at + n_symbols - 1], at + n_symbols - 1);
    for (size_t i = 0; i < n_bytes; i++)
        out[i] = (uint8_t)(bits >> (24 - 8 * i));
    *ret_n = n_bytes;
    return 0;
}

static int decode(const char *text, size_t len, void *data, bool wide, size_t *ret_n,
                  struct bly_base64_error *ret_error)
{
    const uint8_t *in = (const uint8_t *)text;
    uint8_t *out = data;
    size_t tail = 0;

    if (len == 0) {
        *ret_n = 0;
        return 0;
    }
    /* A stray last byte, such as a line break, is named before anything else is looked at. */
    if (len % 4 == 1 && in[len - 1] != '=' && values[in[len - 1]] == NO_SYMBOL)
        return fault_at(ret_error, BLY_BASE64_SYMBOL, in[len - 1], len - 1);

    size_t body = (len - 1) / 4 * 4; /* everything before the last, perhaps padded, group */
    size_t done = wide ? bly_base64_decode_wide(in, body, out) : 0;

    done += decode_groups(in + done, body - done, out + done / 4 * 3);
    if (done < body)
        return first_bad_symbol(in, done, ret_error);

    int r = decode_last(in, body, len - body, out + body / 4 * 3, &tail, ret_error);

    if (r < 0)
        return r;
    *ret_n = body / 4 * 3 + tail;
    return 0;
}

int bly_base64_decode(const char *text, size_t len, void *data, size_t *ret_n,
                      struct bly_base64_error *ret_error)
{
    return decode(text, len, data, true, ret_n, ret_error);
}

int bly_base64_decode_scalar(const char *text, size_t len, void *data, size_t *ret_n,
                             struct bly_base64_error *ret_error)
{
    return decode(text, len, data, false, ret_n, ret_error);
}

void bly_base64_error_text(const struct bly_base64_error *error, char *text, size_t size)
{
    switch (error->fault) {
    case BLY_BASE64_SYMBOL:
        (void)snprintf(text, size, "Invalid symbol %u, offset %zu.", error->byte, error->offset);
        break;
    case BLY_BASE64_PADDING:
        (void)snprintf(text, size, "Invalid padding");
        break;
    case BLY_BASE64_LENGTH:
        (void)snprintf(text, size, "Invalid input length: %zu", error->offset);
        break;
    case BLY_BASE64_LAST:
        (void)snprintf(text, size, "Invalid last symbol %u, offset %zu.", error->byte,
                       error->offset);
        break;
    }
}
