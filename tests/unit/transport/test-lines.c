#include "transport/lines.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/json.h"

enum { MAX = 8 };

#define BYTES(text) text, sizeof(text) - 1

static const struct row {
    const char *name;
    const char *bytes;
    size_t len;
    const char *lines; /* each followed by '|' */
    int result;
} rows[] = {
    {"LF ends a line", BYTES("one\ntwo\n"), "one|two|", 0},
    {"CR LF ends a line", BYTES("one\r\ntwo\r\n"), "one|two|", 0},
    {"a CR inside belongs to the line", BYTES("a\rb\n"), "a\rb|", 0},
    {"empty lines are skipped", BYTES("\n\r\n\na\n\n"), "a|", 0},
    {"blank lines are skipped", BYTES("  \n\t\r\na\n"), "a|", 0},
    {"blanks around text stay", BYTES(" a \n"), " a |", 0},
    {"the last line may lack its end", BYTES("one\ntwo"), "one|two|", 0},
    {"the last line may end with a CR", BYTES("one\ntwo\r"), "one|two|", 0},
    {"nothing is no line", BYTES(""), "", 0},
    {"as long as the limit", BYTES("12345678\n"), "12345678|", 0},
    {"as long as the limit, with CR LF", BYTES("12345678\r\n"), "12345678|", 0},
    {"as long as the limit, without an end", BYTES("12345678"), "12345678|", 0},
    {"one byte more", BYTES("123456789\n"), "", -EMSGSIZE},
    {"one byte more, with CR LF", BYTES("123456789\r\n"), "", -EMSGSIZE},
    {"one byte more, without an end", BYTES("123456789"), "", -EMSGSIZE},
    {"a CR at the limit that ends nothing", BYTES("12345678\rx\n"), "", -EMSGSIZE},
    {"long blank lines have the same limit", BYTES("         \n"), "", -EMSGSIZE},
    {"what came before a failure is delivered", BYTES("a\n123456789\n"), "a|", -EMSGSIZE},
    {"characters of several bytes", BYTES("\xe2\x82\xac\xf0\x9f\x8f\xb0\n"),
     "\xe2\x82\xac\xf0\x9f\x8f\xb0|", 0},
    {"a byte that begins nothing", BYTES("a\xff\n"), "", -EILSEQ},
    {"a character cut off by LF", BYTES("\xe2\x82\n"), "", -EILSEQ},
    {"a character cut off by the end", BYTES("\xe2\x82"), "", -EILSEQ},
    {"a surrogate", BYTES("\xed\xa0\x80\n"), "", -EILSEQ},
    {"an overlong form", BYTES("\xc0\x8a"), "", -EILSEQ},
    {"NUL is a character like others", BYTES("\0\n"), "\0|", 0},
};

struct collected {
    char text[256];
    size_t len;
    int result;
};

static void collect(struct collected *all, int r, struct bly_line *line)
{
    static const char zeros[BLY_JSON_PADDING];

    all->result = r;
    if (r < 0 || !line->text)
        return;
    assert_memory_equal(line->text + line->len, zeros, sizeof(zeros));
    assert_true(all->len + line->len < sizeof(all->text) - 1);
    memcpy(all->text + all->len, line->text, line->len);
    all->len += line->len;
    all->text[all->len++] = '|';
    free(line->text);
}

static void feed(struct bly_line_receiver *r, const char *data, size_t len, struct collected *all)
{
    for (size_t at = 0; at < len && all->result == 0;) {
        struct bly_line line = {0};
        size_t used = 0;

        collect(all, bly_line_receive(r, (const uint8_t *)data + at, len - at, &used, &line),
                &line);
        at += used;
    }
}

/* In pieces of every size: how the bytes arrive makes no difference. */
static void check_row(void **state)
{
    const struct row *row = *state;

    for (size_t piece = 1; piece <= row->len + 1; piece++) {
        struct bly_line_receiver r;
        struct collected all = {0};
        struct bly_line line = {0};

        bly_line_receiver_init(&r, MAX);
        for (size_t at = 0; at < row->len && all.result == 0; at += piece)
            feed(&r, row->bytes + at, row->len - at < piece ? row->len - at : piece, &all);
        if (all.result == 0)
            collect(&all, bly_line_finish(&r, &line), &line);
        bly_line_receiver_deinit(&r);

        assert_int_equal(all.result, row->result);
        all.text[all.len] = '\0';
        assert_string_equal(all.text, row->lines);
    }
}

static void a_long_line_arrives_whole(void **state)
{
    enum { SIZE = 3 << 20, PIECE = 65536 };
    bly_autofree char *text = malloc(SIZE + 1);
    struct bly_line_receiver r;
    struct bly_line line = {0};

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < SIZE; i++)
        text[i] = (char)('a' + i % 23);
    text[SIZE] = '\n';
    bly_line_receiver_init(&r, SIZE);
    for (size_t at = 0; at < SIZE + 1; at += PIECE) {
        size_t used, n = SIZE + 1 - at < PIECE ? SIZE + 1 - at : PIECE;

        assert_null(line.text);
        assert_int_equal(bly_line_receive(&r, (uint8_t *)text + at, n, &used, &line), 0);
        assert_int_equal(used, n);
    }
    assert_non_null(line.text);
    assert_int_equal(line.len, SIZE);
    assert_memory_equal(line.text, text, SIZE);
    free(line.text);
    bly_line_receiver_deinit(&r);
}

static void failures_have_words(void **state)
{
    (void)state;
    assert_string_equal(bly_line_error_text(-EMSGSIZE), "line is longer than this server accepts");
    assert_string_equal(bly_line_error_text(-EILSEQ), "line is not valid UTF-8");
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(rows) + 2] = {cmocka_unit_test(a_long_line_arrives_whole),
                                                  cmocka_unit_test(failures_have_words)};

    for (size_t i = 0; i < BLY_LEN(rows); i++)
        tests[i + 2] = (struct CMUnitTest){.name = rows[i].name,
                                           .test_func = check_row,
                                           .initial_state = (void *)(uintptr_t)&rows[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
