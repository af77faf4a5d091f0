#include "proto/support.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "proto/http.h"

/* ---- URLs ---- */

static struct url_case {
    const char *name, *text;
    const char *want; /* the URL, or '!' and why not */
} urls[] = {
    {"a plain one", "http://a/b?c=d", "http://a/b?c=d"},
    {"no path", "https://a", "https://a/"},
    {"only a query", "http://a?b", "http://a/?b"},
    {"scheme and host in lower case", "HTTP://WWW.A.Example/Path", "http://www.a.example/Path"},
    {"slashes may be missing", "http:a/b", "http://a/b"},
    {"or too many", "http:////a/b", "http://a/b"},
    {"or the wrong ones", "http:\\\\a\\b?c\\d", "http://a/b?c\\d"},
    {"blanks around", " \x01http://a/b \n", "http://a/b"},
    {"line breaks and tabs inside", "ht\ntp://a/b\tc\rd", "http://a/bcd"},
    {"blanks inside of path and query", "http://a/b c?d e", "http://a/b%20c?d%20e"},
    {"beyond ASCII", "http://a/\xc3\xa9?\xc3\xa9", "http://a/%C3%A9?%C3%A9"},
    {"escapes stay", "http://a/%2e%2E/%0d%0a", "http://a/%2e%2E/%0d%0a"},
    {"quotes and brackets", "http://a/<\">`{}?<\">'", "http://a/%3C%22%3E%60%7B%7D?%3C%22%3E%27"},
    {"a fragment", "http://a/b#c?d", "http://a/b"},
    {"a fragment behind the host", "http://a#/b", "http://a/"},
    {"a port", "http://a:8080/", "http://a:8080/"},
    {"the usual ports", "http://a:80/", "http://a/"},
    {"the usual port of https", "https://a:0443/", "https://a/"},
    {"but not of the other scheme", "https://a:80/", "https://a:80/"},
    {"an empty port", "http://a:/", "http://a/"},
    {"user and password", "http://u:p@a/", "http://u:p@a/"},
    {"a user with an @", "http://u@v:p@a/", "http://u%40v:p@a/"},
    {"an empty user", "http://@a/", "http://a/"},
    {"an @ in the path", "http://a/b@c", "http://a/b@c"},
    {"IPv6", "http://[::1]:8080/", "http://[::1]:8080/"},
    {"IPv6, without a port, its own way", "http://[0:0::00A1]/", "http://[::a1]/"},
    {"nothing", "", "!http/request url is invalid: relative URL without a base"},
    {"blanks", " \n", "!http/request url is invalid: relative URL without a base"},
    {"no scheme", "a/b", "!http/request url is invalid: relative URL without a base"},
    {"a path", "/b", "!http/request url is invalid: relative URL without a base"},
    {"a digit as scheme", "1http://a", "!http/request url is invalid: relative URL without a base"},
    {"no host", "http://", "!http/request url is invalid: empty host"},
    {"only a port", "http://:80/", "!http/request url is invalid: empty host"},
    {"only a user", "http://u@/", "!http/request url is invalid: empty host"},
    {"a blank in the host", "http://a b/",
     "!http/request url is invalid: invalid international domain name"},
    {"an escape in the host", "http://a%0d/",
     "!http/request url is invalid: invalid international domain name"},
    {"a host beyond ASCII", "http://\xc3\xa9/",
     "!http/request url is invalid: a host name beyond ASCII has to be in its xn-- form"},
    {"a port too large", "http://a:65536/", "!http/request url is invalid: invalid port number"},
    {"a port much too large", "http://a:99999999999999999999/",
     "!http/request url is invalid: invalid port number"},
    {"a port of letters", "http://a:b/", "!http/request url is invalid: invalid port number"},
    {"an open bracket", "http://[::1/", "!http/request url is invalid: invalid IPv6 address"},
    {"a bad address", "http://[::g]/", "!http/request url is invalid: invalid IPv6 address"},
    {"ftp", "ftp://a/", "!http/request only supports http and https URLs, got ftp"},
    {"FILE", "FILE:///etc/passwd", "!http/request only supports http and https URLs, got file"},
    {"httpx", "httpx://a/", "!http/request only supports http and https URLs, got httpx"},
};

static void check_url(void **state)
{
    const struct url_case *c = *state;
    bly_autofree char *url = NULL;
    struct bly_err err;
    int r = bly_http_url(c->text, strlen(c->text), &url, &err);

    if (c->want[0] == '!') {
        assert_int_equal(r, strstr(c->want, "only supports") ? -EPROTONOSUPPORT : -EINVAL);
        assert_int_equal(err.kind, BLY_ERR_PARAMS);
        assert_string_equal(err.text, c->want + 1);
        assert_null(url);
        return;
    }
    if (r < 0)
        fail_msg("%s", err.text);
    assert_string_equal(url, c->want);
}

static void nul_bytes_end_nothing(void **state)
{
    bly_autofree char *url = NULL;
    struct bly_err err;

    (void)state;
    assert_int_equal(bly_http_url("http://a/\0b", 11, &url, &err), 0);
    assert_string_equal(url, "http://a/%00b");
    assert_int_equal(bly_http_url("http://a\0b/", 11, &url, &err), -EINVAL);
}

static void origins(void **state)
{
    static const struct {
        const char *a, *b;
        bool same;
    } rows[] = {
        {"http://a/b", "http://a/c?d", true}, {"http://u:p@a/", "http://a/", true},
        {"http://a/", "https://a/", false},   {"http://a/", "http://a:81/", false},
        {"http://a/", "http://ab/", false},   {"http://a/", "http://b/@a/", false},
        {"http://a/", "http://a@b/", false},  {"http://a/?@b/", "http://b/", false},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        assert_int_equal(bly_http_same_origin(rows[i].a, rows[i].b), rows[i].same);
        assert_int_equal(bly_http_same_origin(rows[i].b, rows[i].a), rows[i].same);
    }
}

/* ---- requests ---- */

static char lent_value[] = "secret", bad_value[] = "a\nb";
static const struct bly_http_variable variables[] = {
    {"LENT", lent_value}, {"BAD", bad_value}, {"UNSET", NULL}};

static struct request_case {
    const char *name, *members;
    const char *want; /* "METHOD URL" and a line for each header, '*' in front of secret ones */
} requests[] = {
    {"nothing special", "", "GET http://a/\n"},
    {"any method that is a token", ",\"method\":\"m-SEARCH\"", "m-SEARCH http://a/\n"},
    {"a method with a blank", ",\"method\":\"G T\"",
     "!-32602 http/request method is invalid: invalid HTTP method"},
    {"an empty method", ",\"method\":\"\"",
     "!-32602 http/request method is invalid: invalid HTTP method"},
    {"a NUL in the method", ",\"method\":\"G\\u0000T\"",
     "!-32602 http/request method is invalid: invalid HTTP method"},
    {"the method before the URL", ",\"method\":\"\",\"url\":\"\"",
     "!-32602 http/request method is invalid: invalid HTTP method"},
    {"the URL before the headers", ",\"url\":\"\",\"headers\":[{\"name\":\"\",\"value\":\"\"}]",
     "!-32602 http/request url is invalid: relative URL without a base"},
    {"headers, in order and repeated",
     ",\"headers\":[{\"name\":\"X-B\",\"value\":\"1\"},{\"name\":\"x-a\",\"value\":\" 2 \"},"
     "{\"name\":\"X-b\",\"value\":\"\"}]",
     "GET http://a/\nx-b:1\nx-a: 2 \nx-b:\n"},
    {"values may have tabs and bytes above 127",
     ",\"headers\":[{\"name\":\"X\",\"value\":\"a\\tb\xc3\xa9\"}]",
     "GET http://a/\nx:a\tb\xc3\xa9\n"},
    {"an empty name", ",\"headers\":[{\"name\":\"\",\"value\":\"\"}]",
     "!-32602 http/request header name is invalid: invalid HTTP header name"},
    {"a colon in a name", ",\"headers\":[{\"name\":\"a:\",\"value\":\"\"}]",
     "!-32602 http/request header name is invalid: invalid HTTP header name"},
    {"a line break in a value", ",\"headers\":[{\"name\":\"X\",\"value\":\"a\\r\\nb: c\"}]",
     "!-32602 http/request header value is invalid for X: failed to parse header value"},
    {"a NUL in a value", ",\"headers\":[{\"name\":\"X\",\"value\":\"a\\u0000b\"}]",
     "!-32602 http/request header value is invalid for X: failed to parse header value"},
    {"a DEL in a value", ",\"headers\":[{\"name\":\"X\",\"value\":\"\\u007f\"}]",
     "!-32602 http/request header value is invalid for X: failed to parse header value"},
    {"what belongs to one host",
     ",\"headers\":[{\"name\":\"AUTHORIZATION\",\"value\":\"1\"},{\"name\":\"Cookie\",\"value\":"
     "\"2\"},"
     "{\"name\":\"Proxy-Authorization\",\"value\":\"3\"},{\"name\":\"Host\",\"value\":\"4\"}]",
     "GET http://a/\n*authorization:1\n*cookie:2\n*proxy-authorization:3\n*host:4\n"},
    {"lengths are left out",
     ",\"headers\":[{\"name\":\"Content-Length\",\"value\":\"5\"},{\"name\":\"a\",\"value\":\"1\"},"
     "{\"name\":\"Transfer-Encoding\",\"value\":\"chunked\"}]",
     "GET http://a/\na:1\n"},
    {"a variable", ",\"headers\":[{\"name\":\"X\",\"value\":\"Bearer \",\"valueEnvVar\":\"LENT\"}]",
     "GET http://a/\n*x:Bearer secret\n"},
    {"a variable that is not lent",
     ",\"headers\":[{\"name\":\"X\",\"value\":\"\",\"valueEnvVar\":\"PATH\"}]",
     "!-32602 http/request header X requires executor environment variable PATH"},
    {"a variable that is not set",
     ",\"headers\":[{\"name\":\"X\",\"value\":\"\",\"valueEnvVar\":\"UNSET\"}]",
     "!-32602 http/request header X requires executor environment variable UNSET"},
    {"part of a variable's name",
     ",\"headers\":[{\"name\":\"X\",\"value\":\"\",\"valueEnvVar\":\"LEN\"}]",
     "!-32602 http/request header X requires executor environment variable LEN"},
    {"a variable that makes no value",
     ",\"headers\":[{\"name\":\"X\",\"value\":\"\",\"valueEnvVar\":\"BAD\"}]",
     "!-32602 http/request header value is invalid for X: failed to parse header value"},
};

static void describe(const struct bly_http_request *request, struct bly_buf *out)
{
    bly_buf_printf(out, "%s %s\n", request->method, request->url);
    for (size_t i = 0; i < request->n_fields; i++)
        bly_buf_printf(out, "%s%s:%s\n", request->fields[i].secret ? "*" : "",
                       request->fields[i].name, request->fields[i].value);
}

static bool has(const struct request_case *c, const char *member)
{
    return strstr(c->members, member) != NULL;
}

static void check_request(void **state)
{
    const struct request_case *c = *state;
    bly_autobuf struct bly_buf out;
    struct bly_http_request request;
    struct bly_http_params params;
    char json[1024];
    struct test_doc d;
    struct bly_err err;
    int r;

    snprintf(json, sizeof(json), "{\"requestId\":\"1\"%s%s%s}",
             has(c, "\"method\"") ? "" : ",\"method\":\"GET\"",
             has(c, "\"url\"") ? "" : ",\"url\":\"http://a\"", c->members);
    d = test_doc_of(json);
    bly_buf_init(&out, sizeof(json));
    if (bly_proto_decode_http(d.root, &params, &err) < 0)
        fail_msg("%s", err.text);
    r = bly_http_prepare(&params, variables, BLY_LEN(variables), &request, &err);
    if (c->want[0] == '!') {
        assert_refused(c->want, r, &err);
    } else {
        assert_int_equal(r, 0);
        describe(&request, &out);
        assert_buf(&out, c->want);
    }
    bly_http_request_deinit(&request);
    bly_http_params_deinit(&params);
    test_doc_deinit(&d);
}

static void everything_is_decoded(void **state)
{
    struct test_doc d =
        test_doc_of("{\"method\":\"POST\",\"url\":\"http://a/"
                    "\",\"requestId\":\"i\\u0000d\",\"bodyBase64\":\"aGk=\","
                    "\"timeoutMs\":5,\"redirectPolicy\":\"stop\",\"streamResponse\":true}");
    struct bly_http_params p;
    struct bly_err err;

    (void)state;
    assert_int_equal(bly_proto_decode_http(d.root, &p, &err), 0);
    assert_int_equal(p.request_id_len, 3);
    assert_memory_equal(p.request_id, "i\0d", 3);
    assert_int_equal(p.body_len, 2);
    assert_memory_equal(p.body, "hi", 2);
    assert_int_equal(p.timeout_ms, 5);
    assert_false(p.follow);
    assert_true(p.stream);
    bly_http_params_deinit(&p);
    test_doc_deinit(&d);
}

static void defaults(void **state)
{
    struct test_doc d =
        test_doc_of("{\"method\":\"GET\",\"url\":\"http://a/\",\"requestId\":\"\"}");
    struct bly_http_params p;
    struct bly_err err;

    (void)state;
    assert_int_equal(bly_proto_decode_http(d.root, &p, &err), 0);
    assert_null(p.body);
    assert_int_equal(p.n_headers, 0);
    assert_true(p.timeout_ms == UINT64_MAX);
    assert_true(p.follow);
    assert_false(p.stream);
    bly_http_params_deinit(&p);
    test_doc_deinit(&d);
}

/* ---- answers ---- */

static void a_result(void **state)
{
    static char name[] = "x-a", value[] = "1\"2";
    static const struct bly_http_field fields[] = {{name, value, false}, {name, value, false}};
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 1024);
    bly_proto_begin_http(200, fields, 2, &buf);
    bly_proto_end_http("hi", 2, &buf);
    assert_buf(&buf, "{\"status\":200,\"headers\":[{\"name\":\"x-a\",\"value\":\"1\\\"2\"},"
                     "{\"name\":\"x-a\",\"value\":\"1\\\"2\"}],\"bodyBase64\":\"aGk=\"}");
}

static void a_delta(void **state)
{
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 1024);
    bly_proto_add_body_delta(&buf, "i\0", 2, 1, "hi", 2, false, NULL);
    assert_buf(&buf,
               "{\"method\":\"http/request/bodyDelta\",\"params\":{\"requestId\":\"i\\u0000\","
               "\"seq\":1,\"deltaBase64\":\"aGk=\",\"done\":false,\"error\":null}}");
    buf.len = 0;
    bly_proto_add_body_delta(&buf, "", 0, 2, NULL, 0, true, "a \"reason\"");
    assert_buf(&buf,
               "{\"method\":\"http/request/bodyDelta\",\"params\":{\"requestId\":\"\","
               "\"seq\":2,\"deltaBase64\":\"\",\"done\":true,\"error\":\"a \\\"reason\\\"\"}}");
}

int main(void)
{
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(nul_bytes_end_nothing),
        cmocka_unit_test(origins),
        cmocka_unit_test(everything_is_decoded),
        cmocka_unit_test(defaults),
        cmocka_unit_test(a_result),
        cmocka_unit_test(a_delta),
    };
    struct CMUnitTest tests[BLY_LEN(urls) + BLY_LEN(requests) + BLY_LEN(others)] = {0};
    size_t n = 0;

    for (size_t i = 0; i < BLY_LEN(urls); i++)
        tests[n++] = (struct CMUnitTest){
            .name = urls[i].name, .test_func = check_url, .initial_state = &urls[i]};
    for (size_t i = 0; i < BLY_LEN(requests); i++)
        tests[n++] = (struct CMUnitTest){
            .name = requests[i].name, .test_func = check_request, .initial_state = &requests[i]};
    for (size_t i = 0; i < BLY_LEN(others); i++)
        tests[n++] = others[i];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
