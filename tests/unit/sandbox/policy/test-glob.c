#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sandbox/policy/glob.h"

/* The matcher on simple patterns; how patterns are compiled shows in test-policy.c. */

static const struct glob_case {
    const char *pattern;
    const char *path;
    bool matches;
} cases[] = {
    {"/w/a", "/w/a", true},
    {"/w/a", "/w/ab", false},
    {"/w/a", "/w/a/b", false},
    {"/w/*", "/w/a", true},
    {"/w/*", "/w/.hidden", true},
    {"/w/*", "/w", false},
    {"/w/*", "/w/a/b", false},
    {"/w/*.env", "/w/.env", true},
    {"/w/*.env", "/w/a.env.env", true},
    {"/w/*.env", "/w/a.envx", false},
    {"/w/*.env", "/w/d/a.env", false},
    {"/w/*a*b*", "/w/xaxbx", true},
    {"/w/*a*b*", "/w/xbxax", false},
    {"/w/*/c", "/w/ab/c", true},
    {"/w/*/c", "/w/a/b/c", false},
    {"/w/?", "/w/a", true},
    {"/w/?", "/w/ab", false},
    {"/w/?", "/w/\xc3\xa9", true}, /* one character, two bytes */
    {"/w/?", "/w/\xff", true},
    {"/w/??", "/w/\xc3\xa9", false},
    {"/w?a", "/w/a", false},
    {"/w/**", "/w/a", true},
    {"/w/**", "/w/a/b/c", true},
    {"/w/**", "/w", false},
    {"/w/**", "/wa", false},
    {"/**", "/a/b", true},
    {"/w/**/a", "/w/a", true},
    {"/w/**/a", "/w/x/a", true},
    {"/w/**/a", "/w/x/y/a", true},
    {"/w/**/a", "/w/xa", false},
    {"/w/**/a", "/wa", false},
    {"/w/**/*.env", "/w/.env", true},
    {"/w/**/*.env", "/w/a/b/c.env", true},
    {"/w/**/b/**/d", "/w/b/d", true},
    {"/w/**/b/**/d", "/w/a/b/c/b/d", true},
    {"/w/**/b/**/d", "/w/a/c/d", false},
    {"/w/**/a*c/x", "/w/abd/abc/x", true},
    {"/w/**/a*c/x", "/w/abc/y/abd/x", false},
    {"/w/**.env", "/w/a/b.env", true}, /* a double star crosses slashes wherever it stands */
    {"/w/a**z", "/w/a/b/z", true},
    {"/w/***/a", "/w/x/a", true},
    {"/w/[abc]", "/w/b", true},
    {"/w/[abc]", "/w/d", false},
    {"/w/[a-c]x", "/w/bx", true},
    {"/w/[a-c]x", "/w/dx", false},
    {"/w/[!a-c]", "/w/d", true},
    {"/w/[^a-c]", "/w/b", false},
    {"/w/[]a]", "/w/]", true},
    {"/w/[a-]", "/w/-", true},
    {"/w/[\xc3\xa0-\xc3\xbf]", "/w/\xc3\xa9", true},
    {"/w[!a]x", "/w/x", false}, /* no class is a slash */
    {"/w/[ab", "/w/[ab", true}, /* never closed: a literal */
    {"/w/[ab", "/w/a", false},
    {"/w/[a/b]", "/w/[a/b]", true}, /* a class ends with its component */
    {"/w/\\*", "/w/*", true},
    {"/w/\\*", "/w/a", false},
    {"/w/\\[a]", "/w/[a]", true},
    {"", "", true},
    {"*", "a", true},
    {"**", "a/b", true},
};

static void check_case(void **state)
{
    const struct glob_case *c = *state;

    assert_int_equal(bly_glob_match(c->pattern, c->path), c->matches);
}

/* Patterns that take for ever in a matcher which tries every way to share a text among stars. */
static void nothing_is_exponential(void **state)
{
    static const char *const units[] = {"*a", "**a", "**/", "*/", "**/a*", "?*", "[a-z]*"};
    clock_t start = clock();
    (void)state;

    for (size_t i = 0; i < BLY_LEN(units); i++) {
        char pattern[1024] = "/";
        char path[4096] = "/";

        while (strlen(pattern) + 16 < sizeof(pattern))
            strcat(pattern, units[i]);
        strcat(pattern, "b");
        for (size_t n = 1; n < sizeof(path) - 1; n++)
            path[n] = i % 2 && n % 5 == 0 ? '/' : 'a';
        path[sizeof(path) - 1] = '\0';
        assert_false(bly_glob_match(pattern, path));
    }
    assert_true(clock() - start < 5 * CLOCKS_PER_SEC);
}

/* The matcher against one that tries everything, on all short texts over a small alphabet. */
static bool slow_match(const char *p, const char *t)
{
    if (*p == '\0')
        return *t == '\0';
    if (p[0] == '*' && p[1] == '*') {
        for (const char *u = t;; u++) {
            if (slow_match(p + 2, u))
                return true;
            if (*u == '\0')
                return false;
        }
    }
    if (*p == '*') {
        for (const char *u = t;; u++) {
            if (slow_match(p + 1, u))
                return true;
            if (*u == '\0' || *u == '/')
                return false;
        }
    }
    if (*p == '?')
        return *t != '\0' && *t != '/' && slow_match(p + 1, t + 1);
    return *p == *t && slow_match(p + 1, t + 1);
}

static void spell(char *out, const char *alphabet, unsigned number, unsigned len)
{
    size_t base = strlen(alphabet);

    for (unsigned i = 0; i < len; i++) {
        out[i] = alphabet[number % base];
        number /= (unsigned)base;
    }
    out[len] = '\0';
}

static void agrees_with_trying_everything(void **state)
{
    (void)state;

    /* "**" behind a slash and in front of one takes whole components; that is tested above. */
    for (unsigned p = 0; p < 15625; p++) {
        char pattern[8];

        spell(pattern, "ab*?/", p, 6);
        if (strstr(pattern, "**/") || strstr(pattern, "***"))
            continue;
        for (unsigned t = 0; t < 243; t++) {
            char text[8];

            spell(text, "ab/", t, 5);
            if (bly_glob_match(pattern, text) != slow_match(pattern, text))
                fail_msg("%s on %s", pattern, text);
        }
    }
}

static void the_base_is_the_directory_before_the_first_wildcard(void **state)
{
    static const struct {
        const char *pattern;
        const char *base;
        size_t len;
    } rows[] = {
        {"/w/a/*.env", "/w/a", 4}, {"/w/a?/b", "/w", 2},
        {"/w/**", "/w", 2},        {"/*", "", 0},
        {"/**/x", "", 0},          {"/w/[ab]/c", "/w", 2},
        {"/w/[a/b*", "/w/[a", 5},  {"/w \\[1\\]/\\{a\\}/*.x", "/w [1]/{a}", 14},
        {"/w/\\*/*", "/w/*", 5},
    };
    (void)state;

    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        size_t len = 99;
        char *base = bly_glob_base(rows[i].pattern, &len);

        assert_string_equal(base, rows[i].base);
        assert_int_equal(len, rows[i].len);
        free(base);
    }
}

int main(void)
{
    static const struct CMUnitTest plain[] = {
        cmocka_unit_test(the_base_is_the_directory_before_the_first_wildcard),
        cmocka_unit_test(nothing_is_exponential),
        cmocka_unit_test(agrees_with_trying_everything),
    };
    struct CMUnitTest tests[BLY_LEN(cases)] = {0};
    char names[BLY_LEN(cases)][64];

    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        (void)snprintf(names[i], sizeof(names[i]), "%s %s %s", cases[i].pattern,
                       cases[i].matches ? "matches" : "does not match", cases[i].path);
        tests[i] = (struct CMUnitTest){.name = names[i],
                                       .test_func = check_case,
                                       .initial_state = (void *)(uintptr_t)&cases[i]};
    }
    return cmocka_run_group_tests_name("match", tests, NULL, NULL) +
           cmocka_run_group_tests_name("cost", plain, NULL, NULL);
}
