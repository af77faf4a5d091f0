#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/base64_wide.h"
#include "base/cleanup.h"

static const struct text_case {
    const char *name;
    const char *text;
    const char *bytes; /* NULL: refused */
    const char *fault;
} text_cases[] = {
    {"nothing", "", "", NULL},
    {"one byte", "YQ==", "a", NULL},
    {"two bytes", "YWI=", "ab", NULL},
    {"three bytes", "YWJj", "abc", NULL},
    {"four bytes", "YWJjZA==", "abcd", NULL},
    {"both odd symbols", "+/+/", "\xfb\xff\xbf", NULL},
    {"not in the alphabet", "***", NULL, "Invalid symbol 42, offset 0."},
    {"the URL alphabet", "_-8=", NULL, "Invalid symbol 95, offset 0."},
    {"padding is missing", "YQ", NULL, "Invalid padding"},
    {"half the padding is missing", "YQ=", NULL, "Invalid padding"},
    {"padding is missing in a later group", "YWJjYWI", NULL, "Invalid padding"},
    {"a line break at the end", "YQ==\n", NULL, "Invalid symbol 10, offset 4."},
    {"a line break at the end wins over an earlier fault", "Y*==\n", NULL,
     "Invalid symbol 10, offset 4."},
    {"a line break inside", "YWJj\nYWI=", NULL, "Invalid symbol 10, offset 4."},
    {"a blank in front", " YWJj", NULL, "Invalid symbol 32, offset 0."},
    {"bits left over after one byte", "YR==", NULL, "Invalid last symbol 82, offset 1."},
    {"bits left over after two bytes", "YWJjYWJ=", NULL, "Invalid last symbol 74, offset 6."},
    {"one symbol left over", "YWJjY", NULL, "Invalid input length: 5"},
    {"only padding", "====", NULL, "Invalid symbol 61, offset 0."},
    {"padding after one symbol", "Y===", NULL, "Invalid symbol 61, offset 1."},
    {"padding in the middle", "Y=Q=", NULL, "Invalid symbol 61, offset 1."},
    {"padding before the last group", "YQ==YQ==", NULL, "Invalid symbol 61, offset 2."},
    {"a symbol after padding", "YW=j", NULL, "Invalid symbol 61, offset 2."},
    {"too much padding", "YQ===", NULL, "Invalid symbol 61, offset 2."},
};

static void check_text(void **state)
{
    const struct text_case *c = *state;
    size_t len = strlen(c->text);
    size_t n = SIZE_MAX;
    struct bly_base64_error error = {0};
    char text[64];
    char back[64];
    uint8_t *bytes = malloc(len / 4 * 3 + 1); /* a heap block: the sanitizer sees an overrun */

    assert_non_null(bytes);

    int r = bly_base64_decode(c->text, len, bytes, &n, &error);

    if (c->bytes) {
        assert_int_equal(r, 0);
        assert_int_equal(n, strlen(c->bytes));
        assert_memory_equal(bytes, c->bytes, n);
        assert_int_equal(bly_base64_len(n), len);
        bly_base64_encode(bytes, n, back);
        assert_memory_equal(back, c->text, len);
    } else {
        assert_int_equal(r, -EINVAL);
        assert_int_equal(n, SIZE_MAX);
        bly_base64_error_text(&error, text, sizeof(text));
        assert_string_equal(text, c->fault);
        assert_int_equal(bly_base64_decode(c->text, len, bytes, &n, NULL), -EINVAL);
    }
    free(bytes);
}

/* ---- the vector loops against their twins ---- */

enum { LONGEST = 400 };

static uint8_t *random_bytes(size_t n)
{
    static uint32_t seed = 12345;
    uint8_t *bytes = malloc(n + 1);

    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(seed >> 24);
    }
    return bytes;
}

static void every_length_round_trips(void **state)
{
    (void)state;

    for (size_t n = 0; n <= LONGEST; n++) {
        size_t len = bly_base64_len(n);
        size_t got = 0;
        uint8_t *bytes = random_bytes(n);
        char *wide = malloc(len + 1);
        char *scalar = malloc(len + 1);
        uint8_t *back = malloc(len / 4 * 3 + 1);

        bly_base64_encode(bytes, n, wide);
        bly_base64_encode_scalar(bytes, n, scalar);
        assert_memory_equal(wide, scalar, len);

        assert_int_equal(bly_base64_decode(wide, len, back, &got, NULL), 0);
        assert_int_equal(got, n);
        assert_memory_equal(back, bytes, n);
        got = 0;
        assert_int_equal(bly_base64_decode_scalar(wide, len, back, &got, NULL), 0);
        assert_int_equal(got, n);
        assert_memory_equal(back, bytes, n);

        free(back);
        free(scalar);
        free(wide);
        free(bytes);
    }
}

static void every_length_works_in_place(void **state)
{
    (void)state;

    for (size_t n = 0; n <= LONGEST; n++) {
        size_t len = bly_base64_len(n);
        size_t got = 0;
        uint8_t *bytes = random_bytes(n);
        char *want = malloc(len + 1);
        char *text = malloc(len + 1);

        bly_base64_encode_scalar(bytes, n, want);
        memcpy(text + len - n, bytes, n);
        bly_base64_encode(text + len - n, n, text);
        assert_memory_equal(text, want, len);

        assert_int_equal(bly_base64_decode(text, len, text, &got, NULL), 0);
        assert_int_equal(got, n);
        assert_memory_equal(text, bytes, n);

        free(text);
        free(want);
        free(bytes);
    }
}

/* Every byte value at every place of a long text: same answer, same fault, same place. */
static void every_symbol_is_judged_alike(void **state)
{
    (void)state;
    enum { BYTES = 96, LEN = 128 };
    uint8_t *bytes = random_bytes(BYTES);
    char text[LEN];
    uint8_t wide[BYTES], scalar[BYTES];

    bly_base64_encode(bytes, BYTES, text);
    free(bytes);
    for (size_t at = 0; at < LEN; at++) {
        char kept = text[at];

        for (int c = 0; c < 256; c++) {
            struct bly_base64_error wide_error = {0};
            struct bly_base64_error scalar_error = {0};
            size_t n_wide = 0, n_scalar = 0;

            text[at] = (char)c;

            int r = bly_base64_decode(text, LEN, wide, &n_wide, &wide_error);

            assert_int_equal(r,
                             bly_base64_decode_scalar(text, LEN, scalar, &n_scalar, &scalar_error));
            assert_int_equal(n_wide, n_scalar);
            assert_int_equal(wide_error.fault, scalar_error.fault);
            assert_int_equal(wide_error.byte, scalar_error.byte);
            assert_int_equal(wide_error.offset, scalar_error.offset);
            if (r == 0)
                assert_memory_equal(wide, scalar, n_wide);
        }
        text[at] = kept;
    }
}

static void the_alphabet_is_the_standard_one(void **state)
{
    (void)state;
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t bytes[48];
    char text[64];
    size_t n = 0;

    assert_int_equal(bly_base64_decode_scalar(alphabet, 64, bytes, &n, NULL), 0);
    assert_int_equal(n, 48);
    for (unsigned i = 0; i < 64; i++) {
        unsigned bit = i * 6;
        unsigned word = (unsigned)bytes[bit / 8] << 8 | (bit / 8 + 1 < 48 ? bytes[bit / 8 + 1] : 0);

        assert_int_equal(word >> (10 - bit % 8) & 63, i);
    }
    bly_base64_encode(bytes, n, text);
    assert_memory_equal(text, alphabet, 64);
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(text_cases) + 4] = {0};
    size_t n = 0;

    for (; n < BLY_LEN(text_cases); n++)
        tests[n] = (struct CMUnitTest){.name = text_cases[n].name,
                                       .test_func = check_text,
                                       .initial_state = (void *)(uintptr_t)&text_cases[n]};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_length_round_trips);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_length_works_in_place);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_symbol_is_judged_alike);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(the_alphabet_is_the_standard_one);
    return _cmocka_run_group_tests("base64", tests, n, NULL, NULL);
}
