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

#include "base/cleanup.h"

#define UP                          \
    "Connection: Upgrade\r\n"       \
    "Upgrade: websocket\r\n"        \
    "Sec-WebSocket-Version: 13\r\n" \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

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

static void check_request(const struct http_case *c, bool welcome, int status)
{
    struct bly_http_request request = {0};
    const struct bly_http_verdict *verdict;
    char answer[BLY_HTTP_ANSWER_MAX], line[32];
    size_t used = 0, len;
    int parsed = bly_http_parse(c->request, strlen(c->request), &request, &used);
    const char *body;

    if (status == 0) {
        assert_int_equal(parsed, -EAGAIN);
        return;
    }
    assert_int_not_equal(parsed, -EAGAIN);
    verdict = bly_http_judge(parsed, &request, welcome);
    assert_int_equal(verdict->status, status);
    len = bly_http_answer(verdict, &request, answer);
    assert_int_equal(len, strlen(answer));

    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    assert_memory_equal(answer, line, strlen(line));
    body = strstr(answer, "\r\n\r\n");
    assert_non_null(body);
    if (c->body && welcome)
        assert_string_equal(body + 4, c->body);
    if (parsed == 0)
        assert_memory_equal(c->request + used - 4, "\r\n\r\n", 4);
}

static void check_case(void **state)
{
    const struct http_case *c = *state;

    check_request(c, true, c->status);
}

/* What would have been a yes becomes a 503; refusals stay what they are. */
static void check_unwelcome(void **state)
{
    (void)state;
    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        int status = cases[i].status;

        check_request(&cases[i], false, status == 101 || status == 200 ? 503 : status);
    }
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
    assert_int_equal(bly_http_judge(-EMSGSIZE, &request, true)->status, 431);
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
    static const char text[] = "PUT /readyz HTTP/1.1\r\n\r\n";
    struct bly_http_request request;
    char answer[BLY_HTTP_ANSWER_MAX];
    size_t used;

    (void)state;
    assert_int_equal(bly_http_parse(text, strlen(text), &request, &used), 0);
    bly_http_answer(bly_http_judge(0, &request, true), &request, answer);
    assert_non_null(strstr(answer, "\r\nAllow: GET,HEAD\r\n"));
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(cases) + 5] = {
        cmocka_unit_test(check_unwelcome),
        cmocka_unit_test(the_head_has_a_limit),
        cmocka_unit_test(a_nul_byte_is_refused),
        cmocka_unit_test(a_key_that_is_too_long_is_none),
        cmocka_unit_test(a_405_on_readyz_names_the_methods),
    };

    for (size_t i = 0; i < BLY_LEN(cases); i++)
        tests[5 + i] = (struct CMUnitTest){.name = cases[i].name,
                                           .test_func = check_case,
                                           .initial_state = (void *)(uintptr_t)&cases[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
