#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"

#define TEXT(literal) (literal), sizeof(literal) - 1

static const struct wire_case {
    const char *name;
    const char *text;
    size_t len;
    const char *path;       /* NULL: refused */
    enum bly_err_kind kind; /* when refused */
    const char *message;    /* the error begins with it; NULL: any */
} wire_cases[] = {
    /* raw paths */
    {"raw: the root", TEXT("/"), "/", 0, NULL},
    {"raw: plain", TEXT("/w/f"), "/w/f", 0, NULL},
    {"raw: dot segments vanish", TEXT("/./w/./f/."), "/w/f", 0, NULL},
    {"raw: dot-dot takes the segment before it", TEXT("/w/x/../f"), "/w/f", 0, NULL},
    {"raw: dot-dot at the root vanishes", TEXT("/../../f"), "/f", 0, NULL},
    {"raw: dot-dot alone is the root", TEXT("/a/.."), "/", 0, NULL},
    {"raw: double slashes", TEXT("//w///f"), "/w/f", 0, NULL},
    {"raw: trailing slash", TEXT("/w/f/"), "/w/f", 0, NULL},
    {"raw: an empty segment does not count for dot-dot", TEXT("/w/real//../f"), "/w/f", 0, NULL},
    {"raw: three dots are a name", TEXT("/w/.../f"), "/w/.../f", 0, NULL},
    {"raw: names that begin with dots", TEXT("/.a/..b/c.."), "/.a/..b/c..", 0, NULL},
    {"raw: escapes, queries and backslashes mean nothing", TEXT("/a%20b?c#d\\e"), "/a%20b?c#d\\e",
     0, NULL},
    {"raw: a drive letter is a name", TEXT("/C:/x"), "/C:/x", 0, NULL},
    {"raw: blanks stay", TEXT("/ a "), "/ a ", 0, NULL},
    {"raw: NUL", TEXT("/w/a\0b"), NULL, BLY_ERR_INVALID,
     "file name contained an unexpected NUL byte"},
    {"raw: NUL at the end", TEXT("/w/a\0"), NULL, BLY_ERR_INVALID, NULL},

    /* neither */
    {"empty", TEXT(""), NULL, BLY_ERR_PARAMS, "invalid URI: relative URL without a base"},
    {"relative", TEXT("tmp/x"), NULL, BLY_ERR_PARAMS, "invalid URI: relative URL without a base"},
    {"relative with a dot", TEXT("./a"), NULL, BLY_ERR_PARAMS, NULL},
    {"relative with a colon in a later segment", TEXT("a/b:c"), NULL, BLY_ERR_PARAMS,
     "invalid URI: relative URL without a base"},
    {"home", TEXT("~/x"), NULL, BLY_ERR_PARAMS, NULL},
    {"a blank before a raw path", TEXT(" /x"), NULL, BLY_ERR_PARAMS, NULL},
    {"a NUL first", TEXT("\0/x"), NULL, BLY_ERR_PARAMS, NULL},
    {"only blanks", TEXT("  \n"), NULL, BLY_ERR_PARAMS, "invalid URI: relative URL without a base"},
    {"another scheme", TEXT("http://x/y"), NULL, BLY_ERR_PARAMS,
     "unsupported path URI scheme `http`"},
    {"a scheme that begins like file", TEXT("files:///x"), NULL, BLY_ERR_PARAMS,
     "unsupported path URI scheme `files`"},
    {"a Windows path", TEXT("C:\\x"), NULL, BLY_ERR_PARAMS, "unsupported path URI scheme `C`"},
    {"a scheme may not begin with a digit", TEXT("1file:/x"), NULL, BLY_ERR_PARAMS,
     "invalid URI: relative URL without a base"},

    /* URIs that name a local file */
    {"URI: three slashes", TEXT("file:///w/a"), "/w/a", 0, NULL},
    {"URI: one slash", TEXT("file:/w/a"), "/w/a", 0, NULL},
    {"URI: no slash", TEXT("file:w/a"), "/w/a", 0, NULL},
    {"URI: scheme alone", TEXT("file:"), "/", 0, NULL},
    {"URI: two slashes and nothing", TEXT("file://"), "/", 0, NULL},
    {"URI: many slashes", TEXT("file://///w//a"), "/w/a", 0, NULL},
    {"URI: upper case scheme", TEXT("FiLe:///w/a"), "/w/a", 0, NULL},
    {"URI: localhost", TEXT("file://localhost/w/a"), "/w/a", 0, NULL},
    {"URI: localhost in upper case", TEXT("file://LOCALHOST/w/a"), "/w/a", 0, NULL},
    {"URI: localhost and no path", TEXT("file://localhost"), "/", 0, NULL},
    {"URI: blanks and controls around it",
     TEXT("\x01 \x1f"
          "file:///w/a \0\x02"),
     "/w/a", 0, NULL},
    {"URI: tabs and line breaks anywhere", TEXT("fi\tle:\n//\r/w/\ta"), "/w/a", 0, NULL},
    {"URI: backslashes are slashes", TEXT("file:\\\\\\w\\a"), "/w/a", 0, NULL},
    {"URI: a blank inside", TEXT("file:///w/sp ace"), "/w/sp ace", 0, NULL},
    {"URI: characters that should have been escaped", TEXT("file:///w/<\"`{}^|>"), "/w/<\"`{}^|>",
     0, NULL},
    {"URI: an escape is decoded", TEXT("file:///w/%61%2e"), "/w/a.", 0, NULL},
    {"URI: an escape is decoded once", TEXT("file:///w/%2561"), "/w/%61", 0, NULL},
    {"URI: an escape does not join what follows", TEXT("file:///w/%2525"), "/w/%25", 0, NULL},
    {"URI: an escaped slash is a slash", TEXT("file:///w%2Fa"), "/w/a", 0, NULL},
    {"URI: dot segments that appear by decoding are resolved", TEXT("file:///w/x%2F..%2Fa"), "/w/a",
     0, NULL},
    {"URI: a bad escape stays", TEXT("file:///w/p%zz%4"), "/w/p%zz%4", 0, NULL},
    {"URI: a percent sign at the end stays", TEXT("file:///w/p%"), "/w/p%", 0, NULL},
    {"URI: an escaped backslash is a name", TEXT("file:///w/a%5Cb"), "/w/a\\b", 0, NULL},
    {"URI: an escaped line break is a name", TEXT("file:///w/a%0Ab"), "/w/a\nb", 0, NULL},
    {"URI: an escaped query mark", TEXT("file:///w/q%3Fm%23"), "/w/q?m#", 0, NULL},
    {"URI: UTF-8", TEXT("file:///w/\xc3\xbc"), "/w/\xc3\xbc", 0, NULL},
    {"URI: escaped UTF-8", TEXT("file:///w/%C3%bc"), "/w/\xc3\xbc", 0, NULL},
    {"URI: not UTF-8", TEXT("file:///w/%FF"), "/w/\xff", 0, NULL},
    {"URI: dot segments", TEXT("file:///./w/x/.././a/."), "/w/a", 0, NULL},
    {"URI: escaped dot segments", TEXT("file:///w/x/%2e%2E/%2e/a"), "/w/a", 0, NULL},
    {"URI: half escaped dot-dot", TEXT("file:///w/x/.%2e/y/%2E./a"), "/w/a", 0, NULL},
    {"URI: dot-dot at the root", TEXT("file:///../../a"), "/a", 0, NULL},
    {"URI: dot-dot at the end", TEXT("file:///w/x/.."), "/w", 0, NULL},
    {"URI: three escaped dots are a name", TEXT("file:///w/%2e%2e%2e"), "/w/...", 0, NULL},
    {"URI: an empty segment counts for dot-dot", TEXT("file:///w/real//../f"), "/w/real/f", 0,
     NULL},
    {"URI: trailing slash", TEXT("file:///w/a/"), "/w/a", 0, NULL},
    {"URI: an escaped colon makes no drive", TEXT("file:///C%3A/x"), "/C:/x", 0, NULL},
    {"URI: a colon in a longer name", TEXT("file:///Cc:/C:x"), "/Cc:/C:x", 0, NULL},
    {"URI: a drive letter further down", TEXT("file:///w/C:/x"), "/w/C:/x", 0, NULL},

    /* URIs that are refused */
    {"URI: a query", TEXT("file:///w/a?x"), NULL, BLY_ERR_PARAMS,
     "query parameters are not allowed in path URIs"},
    {"URI: an empty query", TEXT("file:///w/a?"), NULL, BLY_ERR_PARAMS,
     "query parameters are not allowed in path URIs"},
    {"URI: a fragment", TEXT("file:///w/a#x?y"), NULL, BLY_ERR_PARAMS,
     "fragments are not allowed in path URIs"},
    {"URI: an empty fragment", TEXT("file:///w/a#"), NULL, BLY_ERR_PARAMS,
     "fragments are not allowed in path URIs"},
    {"URI: a user", TEXT("file://me@localhost/w"), NULL, BLY_ERR_PARAMS, NULL},
    {"URI: a password", TEXT("file://me:pw@localhost/w"), NULL, BLY_ERR_PARAMS, NULL},
    {"URI: a port", TEXT("file://localhost:80/w"), NULL, BLY_ERR_PARAMS, NULL},
    {"URI: another host", TEXT("file://host/w/a"), NULL, BLY_ERR_INVALID,
     "'file://host/w/a' is invalid on 'linux'"},
    {"URI: a host that begins like localhost", TEXT("file://localhost.evil/w"), NULL,
     BLY_ERR_INVALID, "'file://localhost.evil/w' is invalid on 'linux'"},
    {"URI: an address as host", TEXT("file://[::1]/w"), NULL, BLY_ERR_INVALID, NULL},
    {"URI: a drive letter", TEXT("file:///C:/x"), NULL, BLY_ERR_INVALID,
     "'file:///C:/x' is invalid on 'linux'"},
    {"URI: a drive letter with a bar", TEXT("file:///c|/x"), NULL, BLY_ERR_INVALID, NULL},
    {"URI: a drive letter as host", TEXT("file://C:/x"), NULL, BLY_ERR_INVALID, NULL},
    {"URI: a drive letter after dot-dot", TEXT("file:///a/../C:/x"), NULL, BLY_ERR_INVALID, NULL},
    {"URI: a path that has no URI", TEXT("file:///%00/bad/path/L3g"), NULL, BLY_ERR_INVALID,
     "'file:///%00/bad/path/L3g' is invalid on 'linux'"},
    {"URI: an escaped NUL", TEXT("file:///w/a%00b"), NULL, BLY_ERR_PARAMS,
     "'file:///w/a%00b' is invalid on 'linux'"},
    {"URI: a NUL inside", TEXT("file:///w/a\0b"), NULL, BLY_ERR_PARAMS, NULL},
};

static void check_wire(void **state)
{
    const struct wire_case *c = *state;
    char *path = NULL;
    struct bly_err err = {0};
    /* An exact heap copy, so that the sanitizer sees a read past the end. */
    char *text = malloc(c->len ? c->len : 1);

    assert_non_null(text);
    memcpy(text, c->text, c->len);

    int r = bly_path_from_wire(text, c->len, &path, &err);

    free(text);
    if (c->path) {
        assert_int_equal(r, 0);
        assert_string_equal(path, c->path);
    } else {
        assert_int_equal(r, -EINVAL);
        assert_null(path);
        assert_int_equal(err.kind, c->kind);
        if (c->message)
            assert_string_equal(err.text, c->message);
    }
    free(path);
}

static void too_long_is_the_kernels_answer(void **state)
{
    (void)state;
    size_t len = BLY_PATH_MAX + 16;
    char *text = malloc(len);
    char *path = NULL;
    struct bly_err err = {0};

    assert_non_null(text);
    memset(text, 'a', len);
    text[0] = '/';
    assert_int_equal(bly_path_from_wire(text, len, &path, &err), -ENAMETOOLONG);
    assert_int_equal(err.kind, BLY_ERR_SYSTEM);
    assert_int_equal(err.sys, ENAMETOOLONG);

    memcpy(text, "file:/", 6);
    assert_int_equal(bly_path_from_wire(text, len, &path, &err), -ENAMETOOLONG);
    assert_int_equal(err.sys, ENAMETOOLONG);
    assert_null(path);

    text[0] = '/';
    assert_int_equal(bly_path_from_wire(text, BLY_PATH_MAX, &path, &err), 0);
    free(path);
    free(text);
}

static void normalise_refuses_relative_and_nul(void **state)
{
    (void)state;
    char *path = NULL;

    assert_int_equal(bly_path_normalise("a", 1, &path), -EINVAL);
    assert_int_equal(bly_path_normalise("", 0, &path), -EINVAL);
    assert_int_equal(bly_path_normalise("/a\0b", 4, &path), -EINVAL);
    assert_null(path);
}

static const struct uri_case {
    const char *name;
    const char *path;
    const char *uri;
} uri_cases[] = {
    {"to URI: the root", "/", "file:///"},
    {"to URI: plain", "/w/a.c", "file:///w/a.c"},
    {"to URI: what is escaped", "/ \"#%<>?\\`{}", "file:///%20%22%23%25%3C%3E%3F%5C%60%7B%7D"},
    {"to URI: what is not", "/^|[];&=~+:@!$'()*,-._", "file:///^|[];&=~+:@!$'()*,-._"},
    {"to URI: what looks like a drive", "/C:/x", "file:///C%3A/x"},
    {"to URI: the other spelling of a drive", "/c|", "file:///c%7C"},
    {"to URI: no drive further down", "/w/C:", "file:///w/C:"},
    {"to URI: controls and DEL", "/\n\t\x01\x7f", "file:///%0A%09%01%7F"},
    {"to URI: bytes above ASCII", "/\xc3\xbc\xff", "file:///%C3%BC%FF"},
};

static void check_uri(void **state)
{
    const struct uri_case *c = *state;
    bly_autobuf struct bly_buf buf;
    char *path = NULL;

    bly_buf_init(&buf, 4096);
    assert_int_equal(bly_path_to_uri(&buf, c->path), 0);
    assert_int_equal(buf.len, strlen(c->uri));
    assert_memory_equal(buf.data, c->uri, buf.len);

    /* And back. */
    assert_int_equal(bly_path_from_wire((char *)buf.data, buf.len, &path, NULL), 0);
    assert_string_equal(path, c->path);
    free(path);
}

static void every_byte_survives_a_round_trip(void **state)
{
    (void)state;

    for (int c = 1; c < 256; c++) {
        char name[] = {'/', 'x', (char)c, 'y', '\0'};
        bly_autobuf struct bly_buf buf;
        char *path = NULL;

        if (c == '/')
            continue;
        bly_buf_init(&buf, 64);
        assert_int_equal(bly_path_to_uri(&buf, name), 0);
        assert_int_equal(bly_path_from_wire((char *)buf.data, buf.len, &path, NULL), 0);
        assert_string_equal(path, name);
        free(path);
    }
}

static void neighbours_are_sorted_behind_what_is_below(void **state)
{
    static const char *const sorted[] = {"/", "/a", "/a/b", "/a/b/c", "/a/b.c", "/a-", "/ab", "/b"};
    (void)state;

    for (int i = 0; i < (int)BLY_LEN(sorted); i++)
        for (int j = 0; j < (int)BLY_LEN(sorted); j++) {
            int order = bly_path_compare(sorted[i], sorted[j]);

            if ((order > 0) - (order < 0) != (i > j) - (i < j))
                fail_msg("%s and %s: %d", sorted[i], sorted[j], order);
        }
}

static void the_holder_of_a_path_is_found(void **state)
{
    static const char *const roots[] = {"/a/b", "/a-", "/ab", "/c/d", "/c/d.e"};
    static const char *const root[] = {"/"};
    static const struct {
        const char *path, *holder;
    } rows[] = {
        {"/", NULL},      {"/a", NULL},       {"/a/b", "/a/b"},     {"/a/b/x/y", "/a/b"},
        {"/a/bc", NULL},  {"/a/b-", NULL},    {"/a-/x", "/a-"},     {"/a-b", NULL},
        {"/ab/x", "/ab"}, {"/c/d/e", "/c/d"}, {"/c/d.e", "/c/d.e"}, {"/c/d.e/f", "/c/d.e"},
        {"/c/d.", NULL},  {"/z", NULL},
    };
    (void)state;

    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        const char *holder = bly_path_holder(roots, BLY_LEN(roots), rows[i].path);

        if (holder != rows[i].holder &&
            (!holder || !rows[i].holder || strcmp(holder, rows[i].holder)))
            fail_msg("%s is held by %s", rows[i].path, holder ? holder : "nobody");
    }
    assert_ptr_equal(bly_path_holder(root, 1, "/x"), root[0]);
    assert_null(bly_path_holder(NULL, 0, "/x"));
}

static const struct within_case {
    const char *name;
    const char *path;
    const char *dir;
    bool within;
} within_cases[] = {
    {"within: itself", "/w", "/w", true},
    {"within: below", "/w/a/b", "/w", true},
    {"within: a longer name is a neighbour", "/wide", "/w", false},
    {"within: a shorter name is a neighbour", "/w", "/wide", false},
    {"within: not above", "/w", "/w/a", false},
    {"within: everything is in the root", "/w", "/", true},
    {"within: the root is in the root", "/", "/", true},
    {"within: the root is in nothing else", "/", "/w", false},
};

static void check_within(void **state)
{
    const struct within_case *c = *state;

    assert_int_equal(bly_path_is_within(c->path, c->dir), c->within);
}

static const struct join_case {
    const char *name;
    const char *dir;
    const char *rest;
    const char *path;
} join_cases[] = {
    {"join: plain", "/w", "a/b", "/w/a/b"},
    {"join: at the root", "/", "a", "/a"},
    {"join: nothing", "/w", "", "/w"},
    {"join: nothing at the root", "/", ".", "/"},
    {"join: dot-dot", "/w/x", "../a//./b", "/w/a/b"},
    {"join: more dot-dots than there are levels", "/w", "../../../a", "/a"},
};

static void check_join(void **state)
{
    const struct join_case *c = *state;
    char *path = bly_path_join(c->dir, c->rest);

    assert_non_null(path);
    assert_string_equal(path, c->path);
    free(path);
}

static void depth_and_base(void **state)
{
    (void)state;
    assert_int_equal(bly_path_depth("/"), 0);
    assert_int_equal(bly_path_depth("/a"), 1);
    assert_int_equal(bly_path_depth("/a/b/c"), 3);
    assert_string_equal(bly_path_base("/"), "");
    assert_string_equal(bly_path_base("/a"), "a");
    assert_string_equal(bly_path_base("/a/b.c"), "b.c");
}

static void normal_or_not(void **state)
{
    static const struct {
        const char *path;
        bool is_normal;
    } cases[] = {
        {"/", true},      {"/a", true},     {"/a/b.c", true},  {"/...", true},  {"/.a/..b", true},
        {"/a.", true},    {"", false},      {"a", false},      {"//", false},   {"/a/", false},
        {"/a//b", false}, {"/.", false},    {"/..", false},    {"/a/.", false}, {"/a/..", false},
        {"/./a", false},  {"/../a", false}, {"/a/./b", false}, {"//a", false},  {"/a/../b", false},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        bly_autofree char *normal = NULL;
        size_t len = strlen(cases[i].path);
        bool same = bly_path_normalise(cases[i].path, len, &normal) == 0 &&
                    strcmp(normal, cases[i].path) == 0;

        assert_int_equal(bly_path_is_normal(cases[i].path, len), cases[i].is_normal);
        assert_int_equal(same, cases[i].is_normal);
    }
    assert_false(bly_path_is_normal("/a\0b", 4));
}

static void parents(void **state)
{
    static const char *const cases[][2] = {
        {"/", "/"}, {"/a", "/"}, {"/a/b.c", "/a"}, {"/a/b/c", "/a/b"}};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        bly_autofree char *parent = bly_path_parent(cases[i][0]);

        assert_string_equal(parent, cases[i][1]);
    }
}

static struct CMUnitTest tests[256];
static size_t n_tests;

static void add(const char *name, CMUnitTestFunction function, const void *row)
{
    assert(n_tests < BLY_LEN(tests));
    tests[n_tests++] = (struct CMUnitTest){
        .name = name, .test_func = function, .initial_state = (void *)(uintptr_t)row};
}

int main(void)
{
    for (size_t i = 0; i < BLY_LEN(wire_cases); i++)
        add(wire_cases[i].name, check_wire, &wire_cases[i]);
    for (size_t i = 0; i < BLY_LEN(uri_cases); i++)
        add(uri_cases[i].name, check_uri, &uri_cases[i]);
    for (size_t i = 0; i < BLY_LEN(within_cases); i++)
        add(within_cases[i].name, check_within, &within_cases[i]);
    for (size_t i = 0; i < BLY_LEN(join_cases); i++)
        add(join_cases[i].name, check_join, &join_cases[i]);
    add("a path beyond the limit is too long", too_long_is_the_kernels_answer, NULL);
    add("normalise refuses relative paths and NUL", normalise_refuses_relative_and_nul, NULL);
    add("every byte survives a round trip through a URI", every_byte_survives_a_round_trip, NULL);
    add("neighbours are sorted behind what is below", neighbours_are_sorted_behind_what_is_below,
        NULL);
    add("the holder of a path is found", the_holder_of_a_path_is_found, NULL);
    add("depth and base name", depth_and_base, NULL);
    add("normal or not", normal_or_not, NULL);
    add("parents", parents, NULL);
    return _cmocka_run_group_tests("path", tests, n_tests, NULL, NULL);
}
