#pragma once

/*
 * Common to the tests of proto: documents from literals, and comparing a buffer. Header only; every
 * test is one executable.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "rpc/rpc.h"
#include "sandbox/policy/policy.h"

static const struct bly_policy_env test_env = {.cwd = "/srv/cwd", .tmpdir = "/srv/tmp"};

/* A document whose strings may be decoded in place, as they are in the server. */
struct test_doc {
    char *text;
    yyjson_doc *doc;
    yyjson_val *root;
};

static inline struct test_doc test_doc_of(const char *json)
{
    struct test_doc d = {.text = test_calloc(1, strlen(json) + BLY_JSON_PADDING)};
    struct bly_err err;

    memcpy(d.text, json, strlen(json));
    if (bly_json_read(d.text, strlen(json), &d.doc, &err) < 0)
        fail_msg("the test's JSON is wrong: %s: %s", err.text, json);
    d.root = yyjson_doc_get_root(d.doc);
    return d;
}

static inline void test_doc_deinit(struct test_doc *d)
{
    yyjson_doc_free(d->doc);
    test_free(d->text);
}

static inline void assert_buf(const struct bly_buf *buf, const char *want)
{
    assert_int_equal(buf->error, 0);
    if (buf->len != strlen(want) || memcmp(buf->data, want, buf->len) != 0)
        fail_msg("got  %.*s\nwant %s", (int)buf->len, (const char *)buf->data, want);
}

/* `want`: '!', the code, the text; with a '*' at the end only the beginning of the text. */
static inline void assert_refused(const char *want, int r, const struct bly_err *err)
{
    char got[BLY_ERR_TEXT_MAX + 16];
    size_t len = strlen(want);

    assert_true(r < 0);
    snprintf(got, sizeof(got), "!%d %s", bly_rpc_code(err), err->text);
    if (want[len - 1] == '*' ? strncmp(got, want, len - 1) != 0 : strcmp(got, want) != 0)
        fail_msg("got %s, want %s", got, want);
}
