#include "transport/http.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "transport/auth.h"

#define UP                          \
    "Connection: Upgrade\r\n"       \
    "Upgrade: websocket\r\n"        \
    "Sec-WebSocket-Version: 13\r\n" \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

#define METRICS "a_metric 1\n"

static const struct http_case {
    const char *name;
    const char *request;
    int status;       /* 0: more bytes are needed */
    const char *body; /* NULL: any */
} cases[] = {
    {"an upgrade", "GET / HTTP/1.1\r\nHost: x\r\n" UP "\r\n", 101, NULL},
    {"Host is not needed", "GET / HTTP/1.1\r\n" UP "\r\n", 101, NULL},
    {"a query string", "GET /?a=b&c=/readyz HTTP/1.1\r\n" UP "\r\n", 101, NULL},
    {"names and tokens in any case",
     "GET / HTTP/1.1\r\ncONNECTION: uPGRADE\r\nUPGRADE: WebSocket\r\n"
     "sec-websocket-version:13\r\nSEC-WEBSOCKET-KEY: \t abc \r\n\r\n",
     101, NULL},
    {"lists in Connection and Upgrade",
     "GET / HTTP/1.1\r\nConnection: keep-alive , Upgrade\r\nUpgrade: h2c, websocket\r\n"
     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: abc\r\n\r\n",
     101, NULL},
    {"Connection twice", "GET / HTTP/1.1\r\nConnection: keep-alive\r\n" UP "\r\n", 101, NULL},
    {"offers of compression and subprotocols are ignored",
     "GET / HTTP/1.1\r\n" UP "Sec-WebSocket-Extensions: permessage-deflate\r\n"
     "Sec-WebSocket-Protocol: x\r\n\r\n",
     101, NULL},
    {"a body of no bytes", "GET / HTTP/1.1\r\nContent-Length: 0\r\n" UP "\r\n", 101, NULL},

    {"Origin", "GET / HTTP/1.1\r\nOrigin: http://evil.example\r\n" UP "\r\n", 403, NULL},
    {"Origin null", "GET / HTTP/1.1\r\nOrigin: null\r\n" UP "\r\n", 403, NULL},
    {"an empty Origin", "GET / HTTP/1.1\r\norigin:\r\n" UP "\r\n", 403, NULL},
    {"Origin on /readyz", "GET /readyz HTTP/1.1\r\nOrigin: http://a\r\n\r\n", 403, NULL},
    {"Origin on an unknown path", "POST /x HTTP/1.1\r\nOrigin: http://a\r\n\r\n", 403, NULL},

    {"GET /readyz", "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 200, ""},
    {"HEAD /readyz", "HEAD /readyz HTTP/1.1\r\n\r\n", 200, ""},
    {"/readyz with a query", "GET /readyz?x HTTP/1.0\r\n\r\n", 200, ""},
    {"POST /readyz", "POST /readyz HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405, NULL},
    {"an upgrade on /readyz is none", "GET /readyz HTTP/1.1\r\n" UP "\r\n", 200, ""},

    {"GET /livez", "GET /livez HTTP/1.1\r\n\r\n", 200, ""},
    {"HEAD /livez", "HEAD /livez HTTP/1.1\r\n\r\n", 200, ""},
    {"POST /livez", "POST /livez HTTP/1.1\r\n\r\n", 405, NULL},
    {"Origin on /livez", "GET /livez HTTP/1.1\r\nOrigin:\r\n\r\n", 403, NULL},
    {"GET /metrics", "GET /metrics HTTP/1.1\r\n\r\n", 200, METRICS},
    {"HEAD /metrics", "HEAD /metrics HTTP/1.1\r\n\r\n", 200, ""},
    {"/metrics with a query", "GET /metrics?name[]=x HTTP/1.0\r\n\r\n", 200, METRICS},
    {"DELETE /metrics", "DELETE /metrics HTTP/1.1\r\n\r\n", 405, NULL},
    {"Origin on /metrics", "GET /metrics HTTP/1.1\r\nOrigin: null\r\n\r\n", 403, NULL},

    {"/healthz", "GET /healthz HTTP/1.1\r\n\r\n", 404, NULL},
    {"an upgrade elsewhere", "GET /nope HTTP/1.1\r\n" UP "\r\n", 404, NULL},
    {"a path that begins like /readyz", "GET /readyz/ HTTP/1.1\r\n\r\n", 404, NULL},
    {"paths are not normalised", "GET //readyz HTTP/1.1\r\n\r\n", 404, NULL},

    {"POST /", "POST / HTTP/1.1\r\n" UP "\r\n", 405, "Request method must be `GET`"},
    {"a method of one's own", "BREW / HTTP/1.1\r\n" UP "\r\n", 405, "Request method must be `GET`"},
    {"methods are case-sensitive", "get / HTTP/1.1\r\n" UP "\r\n", 405, NULL},
    {"HEAD / has no body", "HEAD / HTTP/1.1\r\n" UP "\r\n", 405, ""},
    {"a plain GET /", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400,
     "Connection header did not include 'upgrade'"},
    {"no Upgrade",
     "GET / HTTP/1.1\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
     "Sec-WebSocket-Key: abc\r\n\r\n",
     400, "`Upgrade` header did not include 'websocket'"},
    {"no key",
     "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
     "Sec-WebSocket-Version: 13\r\n\r\n",
     400, "`Sec-WebSocket-Key` header missing"},
    {"version 8",
     "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
     "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: abc\r\n\r\n",
     400, "`Sec-WebSocket-Version` header did not include '13'"},
    {"no version",
     "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
     "Sec-WebSocket-Key: abc\r\n\r\n",
     400, "`Sec-WebSocket-Version` header did not include '13'"},
    {"an upgrade with a body", "GET / HTTP/1.1\r\n" UP "Content-Length: 5\r\n\r\nhello", 400, NULL},
    {"an upgrade with a chunked body", "GET / HTTP/1.1\r\n" UP "Transfer-Encoding: chunked\r\n\r\n",
     400, NULL},
    {"HTTP/1.0 upgrade", "GET / HTTP/1.0\r\n" UP "\r\n", 426, NULL},

    {"not HTTP", "hello\r\n\r\n", 400, NULL},
    {"nothing", "\r\n\r\n", 400, NULL},
    {"HTTP/2", "GET / HTTP/2.0\r\n\r\n", 400, NULL},
    {"two blanks", "GET  / HTTP/1.1\r\n\r\n", 400, NULL},
    {"a blank at the end", "GET / HTTP/1.1 \r\n\r\n", 400, NULL},
    {"no version at all", "GET /\r\n\r\n", 400, NULL},
    {"a whole URL as target", "GET http://x/ HTTP/1.1\r\n\r\n", 400, NULL},
    {"a control character in the target", "GET /\x01 HTTP/1.1\r\n\r\n", 400, NULL},
    {"line feeds alone", "GET / HTTP/1.1\nHost: x\r\n\r\n", 400, NULL},
    {"a carriage return inside a value", "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 400, NULL},
    {"a folded header", "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400, NULL},
    {"a blank before the colon", "GET / HTTP/1.1\r\nOrigin : x\r\n\r\n", 400, NULL},
    {"a header without a colon", "GET / HTTP/1.1\r\nOrigin\r\n\r\n", 400, NULL},
    {"a header without a name", "GET / HTTP/1.1\r\n: x\r\n\r\n", 400, NULL},
    {"a tab in the method", "GE\tT / HTTP/1.1\r\n\r\n", 400, NULL},

    {"no end yet", "GET / HTTP/1.1\r\nHost: x\r\n", 0, NULL},
    {"nothing yet", "", 0, NULL},
};

static const struct bly_http_terms welcome = {.ready = true, .welcome = true, .metrics = true};

/* The text of the answer to a request; owned by `answer`. */
static const char *answer_to(const char *text, const struct bly_http_terms *terms,
                             struct bly_buf *answer)
{
    struct bly_http_request request = {0};
    bly_autobuf struct bly_buf metrics;
    size_t used = 0;
    int parsed = bly_http_parse(text, strlen(text), &request, &used);

    assert_int_not_equal(parsed, -EAGAIN);
    if (parsed == 0)
        assert_memory_equal(text + used - 4, "\r\n\r\n", 4);
    bly_buf_init(&metrics, 100);
    bly_buf_add_str(&metrics, METRICS);
    bly_buf_init(answer, BLY_HTTP_ANSWER_MAX);
    assert_int_equal(
        bly_http_answer(bly_http_judge(parsed, text, &request, terms), &request, &metrics, answer),
        0);
    bly_buf_add_char(answer, '\0');
    return (const char *)answer->data;
}

static void check_request(const struct http_case *c, const struct bly_http_terms *terms, int status,
                          const char *expected_body)
{
    bly_autobuf struct bly_buf answer;
    const char *text = answer_to(c->request, terms, &answer);
    const char *body = strstr(text, "\r\n\r\n");
    char line[32];

    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    assert_memory_equal(text, line, strlen(line));
    assert_non_null(body);
    if (expected_body)
        assert_string_equal(body + 4, expected_body);
}

static void check_case(void **state)
{
    const struct http_case *c = *state;
    struct bly_http_request request;
    size_t used;

    if (c->status == 0)
        assert_int_equal(bly_http_parse(c->request, strlen(c->request), &request, &used), -EAGAIN);
    else
        check_request(c, &welcome, c->status, c->body);
}

/* An upgrade and /readyz get a 503; what asks how it is gets its answer, refusals stay. */
static void check_unwelcome(void **state)
{
    static const struct bly_http_terms full = {.metrics = true};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        const struct http_case *c = &cases[i];
        bool turns = c->status == 101 || (c->status == 200 && strstr(c->request, "/readyz"));

        if (c->status != 0)
            check_request(c, &full, turns ? 503 : c->status, turns ? NULL : c->body);
    }
}

/* A server that drains takes back whom it knows, and wants nobody new. */
static void readiness_and_welcome_are_two_things(void **state)
{
    static const struct bly_http_terms draining = {.welcome = true}, odd = {.ready = true};
    static const struct http_case up = {.request = "GET / HTTP/1.1\r\n" UP "\r\n"},
                                  ready = {.request = "GET /readyz HTTP/1.1\r\n\r\n"};

    (void)state;
    check_request(&up, &draining, 101, NULL);
    check_request(&ready, &draining, 503, NULL);
    check_request(&up, &odd, 503, NULL);
    check_request(&ready, &odd, 200, NULL);
}

static void any_path_is_for_upgrades_and_not_for_endpoints(void **state)
{
    static const struct bly_http_terms any = {
        .ready = true, .welcome = true, .metrics = true, .any_path = true};
    static const struct {
        const char *request;
        int status;
    } rows[] = {
        {"GET /s/42?x HTTP/1.1\r\n" UP "\r\n", 101},
        {"GET /s/42 HTTP/1.1\r\n\r\n", 404},
        {"POST /s/42 HTTP/1.1\r\n" UP "\r\n", 405},
        {"GET /s/42 HTTP/1.1\r\nOrigin: x\r\n" UP "\r\n", 403},
        {"GET /livez HTTP/1.1\r\n" UP "\r\n", 200},
        {"GET /metrics HTTP/1.1\r\n" UP "\r\n", 200},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++)
        check_request(&(struct http_case){.request = rows[i].request}, &any, rows[i].status, NULL);
}

static void without_metrics_there_is_no_such_path(void **state)
{
    static const struct bly_http_terms none = {.ready = true, .welcome = true};

    (void)state;
    check_request(&(struct http_case){.request = "GET /metrics HTTP/1.1\r\n\r\n"}, &none, 404, "");
}

/* The metrics' length also when they are not sent, and the version Prometheus looks for. */
static void metrics_have_their_own_type(void **state)
{
    static const char *const methods[] = {"GET", "HEAD"};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(methods); i++) {
        bly_autobuf struct bly_buf answer;
        char request[64];
        const char *text;

        snprintf(request, sizeof(request), "%s /metrics HTTP/1.1\r\n\r\n", methods[i]);
        text = answer_to(request, &welcome, &answer);
        assert_non_null(strstr(text, "\r\nContent-Length: 11\r\n"));
        assert_non_null(
            strstr(text, "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    }
}

/* ---- who it is ---- */

#define GOOD   "Authorization: Bearer secret\r\n"
#define GOOD_2 "x-bailey-AUTHORIZATION: bearer secret\r\n"
#define BAD    "Authorization: Bearer wrong\r\n"

static const struct http_case auth_cases[] = {
    {"a token", "GET / HTTP/1.1\r\n" UP GOOD "\r\n", 101, NULL},
    {"a token in front", "GET / HTTP/1.1\r\n" GOOD UP "\r\n", 101, NULL},
    {"a token in the second header", "GET / HTTP/1.1\r\n" UP GOOD_2 "\r\n", 101, NULL},
    {"no token", "GET / HTTP/1.1\r\n" UP "\r\n", 401, "missing websocket bearer token"},
    {"another token", "GET / HTTP/1.1\r\n" UP BAD "\r\n", 401, "invalid websocket bearer token"},
    {"an empty header", "GET / HTTP/1.1\r\n" UP "Authorization:\r\n\r\n", 401,
     "invalid authorization header"},
    {"the first one counts", "GET / HTTP/1.1\r\n" UP GOOD BAD "\r\n", 101, NULL},
    {"the first one counts, also when it is wrong", "GET / HTTP/1.1\r\n" UP BAD GOOD "\r\n", 401,
     "invalid websocket bearer token"},
    {"the first one counts, also when it is empty",
     "GET / HTTP/1.1\r\n" UP "Authorization:  \r\n" GOOD "\r\n", 401,
     "invalid authorization header"},
    {"Authorization counts before the second header", "GET / HTTP/1.1\r\n" GOOD_2 UP BAD "\r\n",
     401, "invalid websocket bearer token"},
    {"Origin comes first", "GET / HTTP/1.1\r\n" UP GOOD "Origin: x\r\n\r\n", 403, ""},
    {"the path comes first", "GET /x HTTP/1.1\r\n" UP "\r\n", 404, ""},
    {"the method comes first", "PUT / HTTP/1.1\r\n" UP "\r\n", 405, "Request method must be `GET`"},
    {"upgrade headers come first", "GET / HTTP/1.1\r\n" BAD "\r\n", 400,
     "Connection header did not include 'upgrade'"},
    {"HTTP/1.1 comes first", "GET / HTTP/1.0\r\n" UP BAD "\r\n", 426, NULL},
    {"a body comes first", "GET / HTTP/1.1\r\n" UP BAD "Content-Length: 1\r\n\r\na", 400, NULL},
    {"/readyz is for all", "GET /readyz HTTP/1.1\r\n\r\n", 200, ""},
    {"/livez is for all", "GET /livez HTTP/1.1\r\n" BAD "\r\n", 200, ""},
    {"/metrics is not", "GET /metrics HTTP/1.1\r\n\r\n", 401, "missing websocket bearer token"},
    {"/metrics with another token", "GET /metrics HTTP/1.1\r\n" BAD "\r\n", 401, NULL},
    {"/metrics with the token", "GET /metrics HTTP/1.1\r\n" GOOD "\r\n", 200, METRICS},
    {"HEAD /metrics without", "HEAD /metrics HTTP/1.1\r\n\r\n", 401, ""},
    {"the method comes first on /metrics", "PUT /metrics HTTP/1.1\r\n\r\n", 405, ""},
};

static void check_auth_case(void **state)
{
    const struct http_case *c = *state;
    struct bly_http_terms terms = welcome;
    struct bly_auth auth;

    bly_auth_init_token(&auth, "secret", 6);
    terms.auth = &auth;
    check_request(c, &terms, c->status, c->body);

    /* A stranger does not learn whether there would be room. */
    terms.welcome = false;
    check_request(c, &terms, c->status == 101 ? 503 : c->status, NULL);
}

static void a_401_names_the_scheme(void **state)
{
    bly_autobuf struct bly_buf answer;
    struct bly_http_terms terms = welcome;
    struct bly_auth auth;

    (void)state;
    bly_auth_init_token(&auth, "secret", 6);
    terms.auth = &auth;
    assert_non_null(strstr(answer_to("GET / HTTP/1.1\r\n" UP "\r\n", &terms, &answer),
                           "\r\nWWW-Authenticate: Bearer\r\n"));
}

static void the_head_has_a_limit(void **state)
{
    char text[BLY_HTTP_HEAD_MAX + 64];
    struct bly_http_request request;
    size_t used;

    (void)state;
    memset(text, 'a', sizeof(text));
    memcpy(text, "GET / HTTP/1.1\r\nA: ", 19);

    assert_int_equal(bly_http_parse(text, BLY_HTTP_HEAD_MAX - 1, &request, &used), -EAGAIN);
    assert_int_equal(bly_http_parse(text, BLY_HTTP_HEAD_MAX, &request, &used), -EMSGSIZE);
    memcpy(text + BLY_HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
    assert_int_equal(bly_http_parse(text, sizeof(text), &request, &used), 0);
    assert_int_equal(used, BLY_HTTP_HEAD_MAX);
    assert_int_equal(bly_http_judge(-EMSGSIZE, text, &request, &welcome)->status, 431);
}

static void a_nul_byte_is_refused(void **state)
{
    static const char text[] = "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n";
    struct bly_http_request request;
    size_t used;

    (void)state;
    assert_int_equal(bly_http_parse(text, sizeof(text) - 1, &request, &used), -EBADMSG);
}

static void a_key_that_is_too_long_is_none(void **state)
{
    char text[512];
    struct bly_http_request request;
    size_t used;

    (void)state;
    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nSec-WebSocket-Key: %0200d\r\n\r\n", 0);
    assert_int_equal(bly_http_parse(text, strlen(text), &request, &used), 0);
    assert_string_equal(request.key, "");
}

static void a_405_on_readyz_names_the_methods(void **state)
{
    bly_autobuf struct bly_buf answer;

    (void)state;
    assert_non_null(strstr(answer_to("PUT /readyz HTTP/1.1\r\n\r\n", &welcome, &answer),
                           "\r\nAllow: GET,HEAD\r\n"));
}

static size_t add_cases(struct CMUnitTest *tests, const struct http_case *rows, size_t n,
                        CMUnitTestFunction check)
{
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){
            .name = rows[i].name, .test_func = check, .initial_state = (void *)(uintptr_t)&rows[i]};
    return n;
}

int main(void)
{
    struct CMUnitTest tests[10 + BLY_LEN(cases) + BLY_LEN(auth_cases)] = {
        cmocka_unit_test(check_unwelcome),
        cmocka_unit_test(readiness_and_welcome_are_two_things),
        cmocka_unit_test(any_path_is_for_upgrades_and_not_for_endpoints),
        cmocka_unit_test(without_metrics_there_is_no_such_path),
        cmocka_unit_test(metrics_have_their_own_type),
        cmocka_unit_test(a_401_names_the_scheme),
        cmocka_unit_test(the_head_has_a_limit),
        cmocka_unit_test(a_nul_byte_is_refused),
        cmocka_unit_test(a_key_that_is_too_long_is_none),
        cmocka_unit_test(a_405_on_readyz_names_the_methods),
    };
    size_t n = 10;

    n += add_cases(tests + n, cases, BLY_LEN(cases), check_case);
    add_cases(tests + n, auth_cases, BLY_LEN(auth_cases), check_auth_case);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
