/* Names as directories that fold case compare them: pairs that are the same there, and pairs that
 * are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "base/casefold.h"
#include "base/cleanup.h"

static const struct pair {
    const char *name, *a, *b;
    bool same;
} pairs[] = {
    {"letters", ".GIT", ".git", true},
    {"all letters", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", true},
    {"signs next to letters", "@[`{", "@[`{", true},
    {"signs are no letters", "[", "{", false},
    {"a name that begins like it", ".gitx", ".git", false},
    {"zero width joiner", ".g\u200dit", ".git", true},
    {"soft hyphen at the end", ".git\u00ad", ".git", true},
    {"byte order mark in front", "\ufeff.git", ".git", true},
    {"a tag, of four bytes", ".gi\U000e0074t", ".git", true},
    {"the last that is ignored", ".git\U000e0fff", ".git", true},
    {"the one behind it", ".git\U000e1000", ".git", false},
    {"long s", ".aw\u017f", ".aws", true},
    {"kelvin", "\u212aey", "key", true},
    {"sharp s", "stra\u00dfe", "STRASSE", true},
    {"capital sharp s", "STRA\u1e9eE", "strasse", true},
    {"ligatures", "\ufb03\ufb06", "ffist", true},
    {"composed", "caf\u00e9", "cafe\u0301", true},
    {"composed, an ignored character between", "caf\u00e9", "cafe\u200d\u0301", true},
    {"a mark on a long s", "\u1e9b", "s\u0307", true},
    {"n with an apostrophe", "\u65e5\u0149", "\u65e5\u02bcN", true},
    {"iota below is a letter", "a\u0345", "a\u03b9", true},
    {"not equal", "a\u2260", "a=\u0338", true},
    {"a letter and none", "caf\u00e9", "caf", false},
    {"a mark takes its letter", "cafe\u0301", "cafe", false},
    {"marks in another order", "ab\u0483\u0327", "ab\u0327\u0483", true},
    {"more behind what is not ASCII", "\u65e5ab", "\u65e5ac", false},
    {"slashes stay", "/A/b", "/a/B", true},
    {"slashes separate", "/a/b", "/ab", false},
    {"an ignored component is one", "/a/\u200d/b", "/a/b", false},
    {"at the end as well", "/a/\u200d", "/a/", false},
    {"no UTF-8", ".git\xc3", ".git", false},
    {"a letter in two bytes", ".g\xc1\xa9t", ".git", false},
    {"a NUL in two bytes", "a\xc0\x80/B", "a\xc0\x80/b", true},
    {"a cut character", ".git\xe2\x80", ".git", false},
    {"the root", "/", "/", true},
    {"nothing", "", "", true},
};

static void check_pair(void **state)
{
    const struct pair *pair = *state;
    char a[64], b[64];

    bly_casefold(pair->a, strlen(pair->a), a);
    bly_casefold(pair->b, strlen(pair->b), b);
    assert_int_equal(strcmp(a, b) == 0, pair->same);
}

/* Whatever comes: a key is never longer, ends, and is its own key. */
static void any_bytes(void **state)
{
    uint32_t random = 1;

    (void)state;
    for (int round = 0; round < 200000; round++) {
        char text[12], key[13], again[13];
        size_t len = (size_t)round % sizeof(text) + 1;

        for (size_t i = 0; i < len; i++) {
            random = random * 1664525 + 1013904223;
            text[i] = (char)(random >> 24 ? random >> 24 : 'x');
        }
        memset(key, 'x', sizeof(key));
        bly_casefold(text, len, key);
        assert_non_null(memchr(key, '\0', len + 1));
        bly_casefold(key, strlen(key), again);
        assert_string_equal(key, again);
    }
}

int main(void)
{
    static const struct CMUnitTest others[] = {cmocka_unit_test(any_bytes)};
    struct CMUnitTest tests[BLY_LEN(pairs)] = {0};

    for (size_t i = 0; i < BLY_LEN(pairs); i++)
        tests[i] = (struct CMUnitTest){.name = pairs[i].name,
                                       .test_func = check_pair,
                                       .initial_state = (void *)(uintptr_t)&pairs[i]};
    return cmocka_run_group_tests_name("pairs", tests, NULL, NULL) +
           cmocka_run_group_tests_name("others", others, NULL, NULL);
}
