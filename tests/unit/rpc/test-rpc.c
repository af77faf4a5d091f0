/*
 * The envelope: what is a message and of which kind, and the bytes of every answer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "rpc/rpc.h"
#include "support/rows.h"

/* ---- parsing ---- */

/*
 * `want` is the message in short: kind, id (i5, s"x" or -), method in quotes, params in JSON or -.
 * When it begins with '!' the text is no message and the reason contains what follows.
 */
static struct parse_case {
    const char *name, *text, *want;
} parse_cases[] = {
    {"a request", "{\"id\":1,\"method\":\"m\",\"params\":{}}", "request i1 'm' {}"},
    {"a request without params", "{\"id\":1,\"method\":\"m\"}", "request i1 'm' -"},
    {"params may be anything here", "{\"id\":1,\"method\":\"m\",\"params\":null}",
     "request i1 'm' null"},
    {"a notification", "{\"method\":\"m\",\"params\":[1]}", "notification - 'm' [1]"},
    {"a response", "{\"id\":1,\"result\":null}", "response i1 '' -"},
    {"an error response", "{\"id\":\"a\",\"error\":{\"code\":1,\"message\":\"x\"}}",
     "response s\"a\" '' -"},
    {"id and method make a request, whatever else is there",
     "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"m\",\"result\":{},\"zzz\":{\"a\":[1]}}",
     "request i4 'm' -"},
    {"white space around", " \t\r\n{\"id\":3,\"method\":\"m\"} \n", "request i3 'm' -"},
    {"an empty string is an id", "{\"id\":\"\",\"method\":\"m\"}", "request s\"\" 'm' -"},
    {"zero is an id", "{\"id\":0,\"method\":\"m\"}", "request i0 'm' -"},
    {"a negative id", "{\"id\":-77,\"method\":\"m\"}", "request i-77 'm' -"},
    {"the largest id", "{\"id\":9223372036854775807,\"method\":\"m\"}",
     "request i9223372036854775807 'm' -"},
    {"the smallest id", "{\"id\":-9223372036854775808,\"method\":\"m\"}",
     "request i-9223372036854775808 'm' -"},
    {"a trace", "{\"id\":1,\"method\":\"m\",\"trace\":{\"traceparent\":\"zz\"}}",
     "request i1 'm' -"},
    {"a null trace", "{\"id\":1,\"method\":\"m\",\"trace\":null}", "request i1 'm' -"},
    {"an empty trace, null inside", "{\"id\":1,\"method\":\"m\",\"trace\":{\"tracestate\":null}}",
     "request i1 'm' -"},
    {"a notification with a trace", "{\"method\":\"m\",\"trace\":{}}", "notification - 'm' -"},
    {"escapes are decoded", "{\"id\":1,\"method\":\"\\u006d\\u00e9\"}", "request i1 'm\xc3\xa9' -"},

    {"truncated", "{\"id\":1,\"method\":\"m\"", "!at line 1 column"},
    {"nothing", "", "!at line 1 column"},
    {"plain text", "hello", "!at line 1 column"},
    {"trailing text", "{\"id\":1,\"method\":\"m\"} x", "!at line 1 column"},
    {"a trailing comma", "{\"id\":1,\"method\":\"m\",}", "!at line 1 column"},
    {"a leading zero", "{\"id\":01,\"method\":\"m\"}", "!at line 1 column"},
    {"NaN", "{\"id\":1,\"method\":\"m\",\"params\":NaN}", "!at line 1 column"},
    {"a raw control character", "{\"id\":1,\"method\":\"m\x01\"}", "!at line 1 column"},
    {"a lone surrogate", "{\"id\":1,\"method\":\"m\\ud800\"}", "!at line 1 column"},
    {"a byte order mark", "\xef\xbb\xbf{\"id\":1,\"method\":\"m\"}", "!at line 1 column"},
    {"an array", "[{\"id\":1,\"method\":\"m\"}]", "!one JSON object"},
    {"a number", "42", "!one JSON object"},
    {"a string", "\"x\"", "!one JSON object"},
    {"null", "null", "!one JSON object"},
    {"an empty object", "{}", "!no request, notification or response"},
    {"only an id", "{\"id\":5}", "!no request, notification or response"},
    {"only params", "{\"params\":{}}", "!no request, notification or response"},
    {"a result without id", "{\"result\":{}}", "!no request, notification or response"},
    {"a method that is a number", "{\"id\":5,\"method\":5}", "!method"},
    {"a method that is null", "{\"id\":5,\"method\":null}", "!method"},
    {"a notification whose method is null", "{\"method\":null}", "!method"},
    {"an id that is null", "{\"id\":null,\"method\":\"m\"}", "!id"},
    {"an id that is a fraction", "{\"id\":1.5,\"method\":\"m\"}", "!id"},
    {"an id that is 1.0", "{\"id\":1.0,\"method\":\"m\"}", "!id"},
    {"an id that is a boolean", "{\"id\":true,\"method\":\"m\"}", "!id"},
    {"an id that is an array", "{\"id\":[1],\"method\":\"m\"}", "!id"},
    {"an id that is an object", "{\"id\":{},\"method\":\"m\"}", "!id"},
    {"an id above int64", "{\"id\":9223372036854775808,\"method\":\"m\"}", "!id"},
    {"an id below int64", "{\"id\":-9223372036854775809,\"method\":\"m\"}", "!id"},
    {"a response whose id is null", "{\"id\":null,\"result\":1}", "!id"},
    {"a trace that is a string", "{\"id\":1,\"method\":\"m\",\"trace\":\"x\"}", "!trace"},
    {"a trace that is a number", "{\"method\":\"m\",\"trace\":1}", "!trace"},
    {"a traceparent that is a number", "{\"id\":1,\"method\":\"m\",\"trace\":{\"traceparent\":1}}",
     "!trace"},
    {"an error without message", "{\"id\":1,\"error\":{\"code\":1}}", "!no request"},
    {"an error with a fraction as code", "{\"id\":1,\"error\":{\"code\":1.5,\"message\":\"x\"}}",
     "!no request"},
    {"a repeated id", "{\"id\":1,\"id\":2,\"method\":\"m\"}", "!duplicate JSON object key `id`"},
    {"a repeated key inside", "{\"id\":1,\"method\":\"m\",\"params\":{\"a\":1,\"a\":2}}",
     "!duplicate JSON object key `a`"},
};

static char *message_text(const char *text)
{
    char *mem = test_calloc(1, strlen(text) + BLY_JSON_PADDING);

    memcpy(mem, text, strlen(text));
    return mem;
}

static void describe(const struct bly_rpc_message *m, char *out, size_t size)
{
    static const char *const kinds[] = {"request", "notification", "response"};
    bly_autofree char *params = m->params ? yyjson_val_write(m->params, 0, NULL) : NULL;
    char id[64] = "-";

    if (m->id.type == BLY_RPC_ID_INT)
        snprintf(id, sizeof(id), "i%lld", (long long)m->id.num);
    if (m->id.type == BLY_RPC_ID_STR)
        snprintf(id, sizeof(id), "s\"%.*s\"", (int)m->id.len, m->id.str);
    snprintf(out, size, "%s %s '%.*s' %s", kinds[m->kind], id, (int)m->method_len,
             m->method ? m->method : "", params ? params : "-");
}

static void check_parse(void **state)
{
    const struct parse_case *c = *state;
    struct bly_rpc_message m;
    struct bly_err err;
    char *text = message_text(c->text);
    int r = bly_rpc_parse(text, strlen(c->text), &m, &err);

    if (c->want[0] == '!') {
        assert_int_equal(r, -EBADMSG);
        assert_int_equal(err.kind, BLY_ERR_INVALID);
        if (!strstr(err.text, c->want + 1))
            fail_msg("`%s` does not contain `%s`", err.text, c->want + 1);
    } else {
        char got[256];

        assert_int_equal(r, 0);
        describe(&m, got, sizeof(got));
        assert_string_equal(got, c->want);
        bly_rpc_message_deinit(&m);
        assert_null(m.doc);
    }
    test_free(text);
}

static void strings_keep_their_nul(void **state)
{
    char *text = message_text("{\"id\":\"a\\u0000b\",\"method\":\"m\\u0000n\"}");
    struct bly_rpc_message m;
    struct bly_err err;

    (void)state;
    assert_int_equal(bly_rpc_parse(text, strlen(text), &m, &err), 0);
    assert_int_equal(m.id.len, 3);
    assert_memory_equal(m.id.str, "a\0b", 3);
    assert_int_equal(m.method_len, 3);
    assert_memory_equal(m.method, "m\0n", 3);
    bly_rpc_message_deinit(&m);
    test_free(text);
}

/* {"id":1,"method":"m","params":[[[...]]]} with `depth` arrays. */
static int parse_nested(size_t depth, struct bly_err *err)
{
    static const char head[] = "{\"id\":1,\"method\":\"m\",\"params\":";
    bly_autobuf struct bly_buf buf;
    struct bly_rpc_message m;
    int r;

    bly_buf_init(&buf, 1 << 20);
    bly_buf_add_str(&buf, head);
    for (size_t i = 0; i < depth; i++)
        bly_buf_add_char(&buf, '[');
    for (size_t i = 0; i < depth; i++)
        bly_buf_add_char(&buf, ']');
    bly_buf_add(&buf, "}\0\0\0\0", 1 + BLY_JSON_PADDING);
    assert_int_equal(buf.error, 0);

    r = bly_rpc_parse((char *)buf.data, buf.len - BLY_JSON_PADDING, &m, err);
    if (r == 0)
        bly_rpc_message_deinit(&m);
    return r;
}

static void nesting_is_limited(void **state)
{
    struct bly_err err;

    (void)state;
    assert_int_equal(parse_nested(126, &err), 0);
    assert_int_equal(parse_nested(127, &err), -EBADMSG);
    assert_string_equal(err.text, "recursion limit exceeded");
}

/* ---- replies ---- */

static const struct bly_rpc_id id_7 = {.type = BLY_RPC_ID_INT, .num = 7};
static const struct bly_rpc_id id_text = {.type = BLY_RPC_ID_STR, .str = "a\"\0b", .len = 4};
static const struct bly_rpc_id id_none = {.type = BLY_RPC_ID_NONE};

static void assert_buf(const struct bly_buf *buf, const char *want)
{
    assert_int_equal(buf->error, 0);
    if (buf->len != strlen(want) || memcmp(buf->data, want, buf->len) != 0)
        fail_msg("got  %.*s\nwant %s", (int)buf->len, (const char *)buf->data, want);
}

static void results_carry_the_id(void **state)
{
    static const struct {
        const struct bly_rpc_id *id;
        const char *want;
    } rows[] = {
        {&id_7, "{\"id\":7,\"result\":{}}"},
        {&id_text, "{\"id\":\"a\\\"\\u0000b\",\"result\":{}}"},
        {&id_none, "{\"id\":-1,\"result\":{}}"},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        bly_autobuf struct bly_buf buf;

        bly_buf_init(&buf, 1024);
        bly_rpc_begin_result(&buf, rows[i].id);
        bly_buf_add_str(&buf, "{}");
        bly_rpc_end(&buf);
        assert_buf(&buf, rows[i].want);
    }
}

static void notifications_have_no_id(void **state)
{
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 1024);
    bly_rpc_begin_notification(&buf, "fs/missingChanged");
    bly_buf_add_str(&buf, "{\"watchId\":7}");
    bly_rpc_end(&buf);
    assert_buf(&buf, "{\"method\":\"fs/missingChanged\",\"params\":{\"watchId\":7}}");
}

static void an_error_may_carry_data(void **state)
{
    static const struct bly_rpc_id id = {.type = BLY_RPC_ID_INT, .num = 3};
    struct bly_buf buf;
    struct bly_err err;

    (void)state;
    bly_fail(&err, BLY_ERR_DENIED, EACCES, "no");
    bly_buf_init(&buf, 1024);
    assert_int_equal(bly_rpc_add_failure_with(&buf, &id, &err, "{\"a\":1}", 7), 0);
    assert_buf(&buf,
               "{\"id\":3,\"error\":{\"code\":-32600,\"message\":\"no\",\"data\":{\"a\":1}}}");
    bly_buf_deinit(&buf);
    bly_buf_init(&buf, 1024);
    assert_int_equal(bly_rpc_add_failure_with(&buf, &id, &err, NULL, 0), 0);
    assert_buf(&buf, "{\"id\":3,\"error\":{\"code\":-32600,\"message\":\"no\"}}");
    bly_buf_deinit(&buf);
}

static struct failure_case {
    const char *name;
    struct bly_err err;
    int code;
    const char *message; /* in JSON */
} failure_cases[] = {
    {"params", {BLY_ERR_PARAMS, EINVAL, "missing field `path`"}, -32602, "missing field `path`"},
    {"invalid", {BLY_ERR_INVALID, EINVAL, "no"}, -32600, "no"},
    {"denied",
     {BLY_ERR_DENIED, EACCES, "/x is not permitted by filesystem sandbox"},
     -32600,
     "/x is not permitted by filesystem sandbox"},
    {"an unknown handle",
     {BLY_ERR_NOT_FOUND, 0, "unknown file handle `h`"},
     -32004,
     "unknown file handle `h`"},
    {"ENOENT", {BLY_ERR_SYSTEM, ENOENT, "x"}, -32004, "No such file or directory (os error 2)"},
    {"EACCES", {BLY_ERR_SYSTEM, EACCES, "x"}, -32600, "Permission denied (os error 13)"},
    {"EPERM", {BLY_ERR_SYSTEM, EPERM, "x"}, -32600, "Operation not permitted (os error 1)"},
    {"EINVAL", {BLY_ERR_SYSTEM, EINVAL, "x"}, -32600, "Invalid argument (os error 22)"},
    {"ENOTDIR", {BLY_ERR_SYSTEM, ENOTDIR, "x"}, -32603, "Not a directory (os error 20)"},
    {"EROFS", {BLY_ERR_SYSTEM, EROFS, "x"}, -32603, "Read-only file system (os error 30)"},
    {"ELOOP", {BLY_ERR_SYSTEM, ELOOP, "x"}, -32603, "Symbolic link loop (os error 40)"},
    {"ENAMETOOLONG",
     {BLY_ERR_SYSTEM, ENAMETOOLONG, "x"},
     -32603,
     "Filename too long (os error 36)"},
    {"EBUSY", {BLY_ERR_SYSTEM, EBUSY, "x"}, -32603, "Resource busy (os error 16)"},
    {"an errno nobody knows",
     {BLY_ERR_SYSTEM, 4000, "x"},
     -32603,
     "No error information (os error 4000)"},
    {"ENOENT of a program",
     {BLY_ERR_SPAWN, ENOENT, "x"},
     -32603,
     "No such file or directory (os error 2)"},
    {"EACCES of a program",
     {BLY_ERR_SPAWN, EACCES, "x"},
     -32603,
     "Permission denied (os error 13)"},
    {"a program without errno",
     {BLY_ERR_SPAWN, 0, "missing program for pipe spawn"},
     -32603,
     "missing program for pipe spawn"},
    {"a limit", {BLY_ERR_LIMIT, 0, "too many"}, -32603, "too many"},
    {"gone", {BLY_ERR_GONE, 0, "unknown process id p"}, -32600, "unknown process id p"},
    {"attached",
     {BLY_ERR_ATTACHED, 0, "session s is already attached"},
     -32010,
     "session s is already attached"},
    {"unsupported", {BLY_ERR_UNSUPPORTED, ENOSYS, "no namespaces"}, -32603, "no namespaces"},
    {"another machine", {BLY_ERR_REMOTE, 0, "no route"}, -32603, "no route"},
    {"a bug", {BLY_ERR_BUG, 0, "oops"}, -32603, "oops"},
    {"bytes that are not UTF-8",
     {BLY_ERR_INVALID, 0, "path `/\xff\"` is not a file"},
     -32600,
     "path `/\xef\xbf\xbd\\\"` is not a file"},
};

static void check_failure(void **state)
{
    const struct failure_case *c = *state;
    bly_autobuf struct bly_buf buf;
    char want[512];

    bly_buf_init(&buf, 4096);
    snprintf(want, sizeof(want), "{\"id\":7,\"error\":{\"code\":%d,\"message\":\"%s\"}}", c->code,
             c->message);
    assert_int_equal(bly_rpc_code(&c->err), c->code);
    assert_int_equal(bly_rpc_add_failure(&buf, &id_7, &c->err), 0);
    assert_buf(&buf, want);
}

static void bad_messages_name_the_peer(void **state)
{
    static const struct {
        const char *peer, *want;
    } rows[] = {
        {"websocket 127.0.0.1:51234",
         "{\"id\":-1,\"error\":{\"code\":-32600,\"message\":\"failed to parse websocket JSON-RPC "
         "message from exec-server websocket 127.0.0.1:51234: recursion limit exceeded\"}}"},
        {"stdio",
         "{\"id\":-1,\"error\":{\"code\":-32600,\"message\":\"failed to parse JSON-RPC message "
         "from exec-server stdio: recursion limit exceeded\"}}"},
    };
    struct bly_err err = {.kind = BLY_ERR_INVALID, .text = "recursion limit exceeded"};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        bly_autobuf struct bly_buf buf;

        bly_buf_init(&buf, 1024);
        bly_rpc_add_bad_message(&buf, rows[i].peer, &err);
        assert_buf(&buf, rows[i].want);
    }
}

static void unknown_methods_are_named(void **state)
{
    bly_autobuf struct bly_buf buf, cut;
    char name[1000];

    (void)state;
    bly_buf_init(&buf, 1024);
    bly_rpc_add_unknown_method(&buf, &id_7, "nope/x", strlen("nope/x"));
    assert_buf(&buf, "{\"id\":7,\"error\":{\"code\":-32601,\"message\":\"exec-server stub does not "
                     "implement `nope/x` yet\"}}");

    memset(name, 'n', sizeof(name));
    bly_buf_init(&cut, 1024);
    bly_rpc_add_unknown_method(&cut, &id_7, name, sizeof(name));
    assert_int_equal(cut.error, 0);
    assert_true(cut.len < BLY_RPC_METHOD_SHOWN + 128);
}

static void answers_that_are_too_long_are_replaced(void **state)
{
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 1024);
    bly_rpc_add_too_long(&buf, &id_7, 71582800, 67108864);
    assert_buf(&buf,
               "{\"id\":7,\"error\":{\"code\":-32603,\"message\":\"response of 71582800 bytes "
               "exceeds the limit of 67108864 bytes\"}}");
}

static const struct CMUnitTest plain_tests[] = {
    cmocka_unit_test(an_error_may_carry_data),
    cmocka_unit_test(strings_keep_their_nul),
    cmocka_unit_test(nesting_is_limited),
    cmocka_unit_test(results_carry_the_id),
    cmocka_unit_test(notifications_have_no_id),
    cmocka_unit_test(bad_messages_name_the_peer),
    cmocka_unit_test(unknown_methods_are_named),
    cmocka_unit_test(answers_that_are_too_long_are_replaced),
};

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(parse_cases) + BLY_LEN(failure_cases) + BLY_LEN(plain_tests)] =
        {0};
    size_t n = 0;

    ADD_ROWS(tests, n, parse_cases, check_parse);
    ADD_ROWS(tests, n, failure_cases, check_failure);
    for (size_t i = 0; i < BLY_LEN(plain_tests); i++)
        tests[n++] = plain_tests[i];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
