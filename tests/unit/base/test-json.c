#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "support/rows.h"

#define TEXT(literal) (literal), sizeof(literal) - 1

static const struct read_case {
    const char *name;
    const char *text;
    size_t len;
    const char *fault; /* contained in the error; NULL: accepted */
} read_cases[] = {
    {"an object", TEXT("{\"id\":1,\"method\":\"x\"}"), NULL},
    {"white space around it", TEXT(" \r\n\t{ } \n"), NULL},
    {"a scalar", TEXT("5"), NULL},
    {"escapes", TEXT("\"\\u00fc\\ud83d\\ude00\\n\""), NULL},
    {"a NUL as an escape", TEXT("{\"a\\u0000b\":1}"), NULL},
    {"big integers and fractions", TEXT("[18446744073709551615,-9223372036854775808,1e300]"), NULL},
    {"nothing", TEXT(""), "line 1 column 1"},
    {"only blanks", TEXT("  "), "line 1 column"},
    {"truncated", TEXT("{\"id\":1"), "line 1 column 8"},
    {"truncated string", TEXT("\"abc"), "line 1 column"},
    {"trailing text", TEXT("{} x"), "line 1 column 4"},
    {"trailing comma", TEXT("[1,]"), "line 1 column 3"},
    {"leading zero", TEXT("[01]"), "line 1 column"},
    {"NaN", TEXT("[NaN]"), "line 1 column 2"},
    {"comment", TEXT("[1 /* x */]"), "line 1 column 4"},
    {"raw control character", TEXT("\"a\nb\""), "line 1 column 3"},
    {"NUL in the text", TEXT("[1\0]"), "line 1 column 3"},
    {"lone surrogate", TEXT("\"\\ud800\""), "line 1 column"},
    {"not UTF-8", TEXT("\"\xff\""), "line 1 column"},
    {"overlong UTF-8", TEXT("\"\xc0\x80\""), "line 1 column"},
    {"byte order mark", TEXT("\xef\xbb\xbf{}"), "line 1 column 1"},
    {"number outside a double", TEXT("1e400"), "line 1 column 1"},
    {"a fault on a later line", TEXT("{\n \"a\": 1,\n \"b\": x}"), "line 3 column 7"},
    {"duplicate key", TEXT("{\"id\":1,\"id\":2}"), "duplicate JSON object key `id`"},
    {"duplicate key further down", TEXT("{\"p\":[{\"a\":1,\"b\":{},\"a\":1}]}"),
     "duplicate JSON object key `a`"},
    {"duplicate key spelled differently", TEXT("{\"a\":1,\"\\u0061\":2}"),
     "duplicate JSON object key `a`"},
    {"duplicate empty key", TEXT("{\"\":1,\"\":2}"), "duplicate JSON object key ``"},
    {"same key in different objects", TEXT("[{\"a\":1},{\"a\":{\"a\":1}}]"), NULL},
    {"keys that differ behind a NUL", TEXT("{\"a\\u0000b\":1,\"a\\u0000c\":2}"), NULL},
    {"keys that differ in length", TEXT("{\"a\":1,\"aa\":2,\"\":3}"), NULL},
};

static char *padded(const char *text, size_t len)
{
    char *copy = calloc(1, len + BLY_JSON_PADDING);

    assert_non_null(copy);
    memcpy(copy, text, len);
    return copy;
}

static void check_read(void **state)
{
    const struct read_case *c = *state;
    yyjson_doc *doc = NULL;
    struct bly_err err = {0};
    char *text = padded(c->text, c->len);

    int r = bly_json_read(text, c->len, &doc, &err);

    assert_int_equal(r, c->fault ? -EBADMSG : 0);
    if (c->fault) {
        assert_null(doc);
        assert_int_equal(err.kind, BLY_ERR_INVALID);
        assert_non_null(strstr(err.text, c->fault));
    }
    yyjson_doc_free(doc);
    free(text);

    doc = NULL;
    assert_int_equal(bly_json_read_copy(c->text, c->len, &doc, NULL), r);
    yyjson_doc_free(doc);
}

/* ---- limits ---- */

static int read_nested(int depth, struct bly_err *err)
{
    char text[1024];
    yyjson_doc *doc = NULL;

    memset(text, '[', depth);
    memset(text + depth, ']', depth);

    int r = bly_json_read_copy(text, 2 * (size_t)depth, &doc, err);

    yyjson_doc_free(doc);
    return r;
}

static void nesting_127_is_accepted_128_is_not(void **state)
{
    (void)state;
    struct bly_err err = {0};

    assert_int_equal(read_nested(127, &err), 0);
    assert_int_equal(read_nested(128, &err), -EBADMSG);
    assert_string_equal(err.text, "recursion limit exceeded");
}

/* HEAD, `n` times "ITEM" with commas between, TAIL. */
static int read_many(const char *head, const char *item, size_t n, const char *tail,
                     struct bly_err *err)
{
    bly_autobuf struct bly_buf buf;
    yyjson_doc *doc = NULL;

    bly_buf_init(&buf, 64 << 20);
    bly_buf_add_str(&buf, head);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            bly_buf_add_char(&buf, ',');
        bly_buf_add_str(&buf, item);
    }
    bly_buf_add_str(&buf, tail);
    assert_int_equal(buf.error, 0);

    int r = bly_json_read_copy((const char *)buf.data, buf.len, &doc, err);

    if (doc)
        assert_true(yyjson_doc_get_val_count(doc) >= n);
    yyjson_doc_free(doc);
    return r;
}

static const struct count_case {
    const char *name;
    const char *head, *item, *tail;
    size_t most; /* so many items are accepted, one more is not */
} count_cases[] = {
    {"values of an array", "[", "1", "]", BLY_JSON_MAX_VALUES - 1},
    {"values of a request", "{\"id\":1,\"method\":\"nope\",\"params\":[", "0", "]}",
     BLY_JSON_MAX_VALUES - 4},
    {"empty containers are one value each", "[", "[ ]", "]", BLY_JSON_MAX_VALUES - 1},
    {"brackets and commas in strings do not count", "[", "\"[,{\\\"[,\\\\\"", "]",
     BLY_JSON_MAX_VALUES - 1},
    {"keys do not count", "[", "{\"k\":1}", "]", (BLY_JSON_MAX_VALUES - 1) / 2},
    {"white space does not count", " [ ", " 1 ", "\n]\n", BLY_JSON_MAX_VALUES - 1},
};

static void check_count(void **state)
{
    const struct count_case *c = *state;
    struct bly_err err = {0};

    assert_int_equal(read_many(c->head, c->item, c->most, c->tail, &err), 0);
    assert_int_equal(read_many(c->head, c->item, c->most + 1, c->tail, &err), -EBADMSG);
    assert_string_equal(err.text, "JSON-RPC message exceeds the limit of 262144 JSON values");
}

/* ---- duplicate keys in big objects ---- */

static int read_object(size_t n, const char *key_format, long repeat, struct bly_err *err)
{
    bly_autobuf struct bly_buf buf;
    yyjson_doc *doc = NULL;

    bly_buf_init(&buf, 64 << 20);
    bly_buf_add_char(&buf, '{');
    for (size_t i = 0; i < n; i++) {
        long number = repeat >= 0 && i == n - 1 ? repeat : (long)i;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        bly_buf_printf(&buf, key_format, number);
#pragma GCC diagnostic pop
        bly_buf_add_str(&buf, i + 1 < n ? ":0," : ":0}");
    }
    assert_int_equal(buf.error, 0);

    int r = bly_json_read_copy((const char *)buf.data, buf.len, &doc, err);

    yyjson_doc_free(doc);
    return r;
}

static void duplicates_are_found_at_every_size(void **state)
{
    (void)state;
    struct bly_err err = {0};

    for (size_t n = 2; n < 40; n++) {
        assert_int_equal(read_object(n, "\"k%03ld\"", -1, &err), 0);
        assert_int_equal(read_object(n, "\"a long common beginning %03ld\"", -1, &err), 0);
        for (long at = 0; at < (long)n - 1; at++) {
            assert_int_equal(read_object(n, "\"k%03ld\"", at, &err), -EBADMSG);
            assert_int_equal(read_object(n, "\"a long common beginning %03ld\"", at, &err),
                             -EBADMSG);
        }
    }
    assert_string_equal(err.text, "duplicate JSON object key `a long common beginning 037`");
}

static void a_huge_object_takes_no_quadratic_time(void **state)
{
    (void)state;
    struct bly_err err = {0};
    clock_t start = clock();

    assert_int_equal(read_object(200000, "\"key number %06ld\"", -1, &err), 0);
    assert_int_equal(read_object(200000, "\"key number %06ld\"", 0, &err), -EBADMSG);
    /* 40 billion comparisons would take half a minute at the least. */
    assert_true(clock() - start < 15 * CLOCKS_PER_SEC);
}

/* ---- writing ---- */

static const struct write_case {
    const char *name;
    const char *text;
    size_t len;
    const char *json;
} write_cases[] = {
    {"write: nothing", TEXT(""), "\"\""},
    {"write: plain", TEXT("a/b c~\x7f"), "\"a/b c~\x7f\""},
    {"write: quotes and backslashes", TEXT("\"\\"), "\"\\\"\\\\\""},
    {"write: named escapes", TEXT("\b\f\n\r\t"), "\"\\b\\f\\n\\r\\t\""},
    {"write: other controls", TEXT("\0\x01\x1f"), "\"\\u0000\\u0001\\u001f\""},
    {"write: UTF-8 of every length", TEXT("\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80"),
     "\"\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\""},
    {"write: a stray byte",
     TEXT("a\xff"
          "b"),
     "\"a\xef\xbf\xbd"
     "b\""},
    {"write: each stray byte", TEXT("\x80\xbf"), "\"\xef\xbf\xbd\xef\xbf\xbd\""},
    {"write: overlong", TEXT("\xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\""},
    {"write: a surrogate", TEXT("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    {"write: beyond Unicode", TEXT("\xf4\x90\x80\x80"),
     "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    {"write: a character cut short is one mark", TEXT("\xf0\x9f\x98"), "\"\xef\xbf\xbd\""},
    {"write: a character interrupted",
     TEXT("\xe2\x82"
          "a"),
     "\"\xef\xbf\xbd"
     "a\""},
};

static void check_write(void **state)
{
    const struct write_case *c = *state;
    bly_autobuf struct bly_buf buf;
    yyjson_doc *doc = NULL;
    char *text = malloc(c->len ? c->len : 1);

    memcpy(text, c->text, c->len);
    bly_buf_init(&buf, 1000);
    assert_int_equal(bly_json_add_str(&buf, text, c->len), 0);
    free(text);
    assert_int_equal(buf.len, strlen(c->json));
    assert_memory_equal(buf.data, c->json, buf.len);
    /* Whatever went in, what comes out is JSON. */
    assert_int_equal(bly_json_read_copy((const char *)buf.data, buf.len, &doc, NULL), 0);
    yyjson_doc_free(doc);
}

static void every_pair_of_bytes_writes_as_valid_json(void **state)
{
    (void)state;
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, 100);
    for (unsigned i = 0; i < 65536; i++) {
        char pair[2] = {(char)(i >> 8), (char)i};
        yyjson_doc *doc = NULL;

        buf.len = 0;
        assert_int_equal(bly_json_add_str(&buf, pair, 2), 0);
        assert_int_equal(bly_json_read_copy((const char *)buf.data, buf.len, &doc, NULL), 0);
        yyjson_doc_free(doc);
    }
}

static void numbers(void **state)
{
    (void)state;
    struct bly_buf buf;
    static const char want[] = "0 7 18446744073709551615 0 -1 -9223372036854775808 "
                               "9223372036854775807 ";

    bly_buf_init(&buf, 1000);
    bly_json_add_u64(&buf, 0);
    bly_buf_add_char(&buf, ' ');
    bly_json_add_u64(&buf, 7);
    bly_buf_add_char(&buf, ' ');
    bly_json_add_u64(&buf, UINT64_MAX);
    bly_buf_add_char(&buf, ' ');
    bly_json_add_i64(&buf, 0);
    bly_buf_add_char(&buf, ' ');
    bly_json_add_i64(&buf, -1);
    bly_buf_add_char(&buf, ' ');
    bly_json_add_i64(&buf, INT64_MIN);
    bly_buf_add_char(&buf, ' ');
    bly_json_add_i64(&buf, INT64_MAX);
    bly_buf_add_char(&buf, ' ');
    assert_int_equal(buf.error, 0);
    assert_int_equal(buf.len, sizeof(want) - 1);
    assert_memory_equal(buf.data, want, buf.len);
    bly_buf_deinit(&buf);
}

static void a_full_buffer_is_reported(void **state)
{
    (void)state;
    struct bly_buf buf;

    bly_buf_init(&buf, 5);
    assert_int_equal(bly_json_add_cstr(&buf, "abcd"), -EMSGSIZE);
    bly_buf_deinit(&buf);
}

/* ---- how far a text is UTF-8 ---- */

static const struct {
    const char *text;
    size_t len, valid, bad; /* len 0: all of it */
} utf8_cases[] = {
    {"", 0, 0, 0},
    {"abc", 0, 3, 0},
    {"a\xc3\xbc\xe2\x82\xac\xf0\x9f\x92\xa9z", 0, 11, 0},
    {"a\0b", 3, 3, 0},
    {"ab\xff", 0, 2, 1},
    {"\x80", 0, 0, 1},
    {"a\xc0\x80", 0, 1, 1},         /* overlong */
    {"a\xed\xa0\x80", 0, 1, 1},     /* a surrogate */
    {"a\xf4\x90\x80\x80", 0, 1, 1}, /* above U+10FFFF */
    {"abc\xe2\x82z", 0, 3, 2},
    {"abc\xf0\x9f\x92z", 0, 3, 3},
    {"abc\xc3", 0, 3, 0}, /* the end comes too early */
    {"abc\xe2\x82", 0, 3, 0},
    {"\xf0\x9f\x92", 0, 0, 0},
    {"\xe2\xff", 0, 0, 1},
};

static void utf8_ends_somewhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < BLY_LEN(utf8_cases); i++) {
        size_t len = utf8_cases[i].len ? utf8_cases[i].len : strlen(utf8_cases[i].text);
        size_t bad = 99;

        assert_int_equal(bly_json_utf8_len(utf8_cases[i].text, len, &bad), utf8_cases[i].valid);
        assert_int_equal(bad, utf8_cases[i].bad);
    }
}

int main(void)
{
    static struct CMUnitTest
        tests[BLY_LEN(read_cases) + BLY_LEN(count_cases) + BLY_LEN(write_cases) + 7];
    size_t n = 0;

    ADD_ROWS(tests, n, read_cases, check_read);
    ADD_ROWS(tests, n, count_cases, check_count);
    ADD_ROWS(tests, n, write_cases, check_write);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(nesting_127_is_accepted_128_is_not);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(duplicates_are_found_at_every_size);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(a_huge_object_takes_no_quadratic_time);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_pair_of_bytes_writes_as_valid_json);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(numbers);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(a_full_buffer_is_reported);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(utf8_ends_somewhere);
    return _cmocka_run_group_tests("json", tests, n, NULL, NULL);
}
