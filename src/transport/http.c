#include "transport/http.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "transport/ws.h"

/* Text inside the head: borrowed, not terminated. */
struct span {
    const char *at;
    size_t len;
};

static bool span_is(struct span s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

static bool span_is_nocase(struct span s, const char *text)
{
    return s.len == strlen(text) && strncasecmp(s.at, text, s.len) == 0;
}

static struct span trimmed(struct span s)
{
    while (s.len > 0 && (*s.at == ' ' || *s.at == '\t')) {
        s.at++;
        s.len--;
    }
    while (s.len > 0 && (s.at[s.len - 1] == ' ' || s.at[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* Cuts what is before `c` off `rest` and steps over `c`; the whole rest when there is no `c`. */
static struct span cut(struct span *rest, char c)
{
    const char *end = memchr(rest->at, c, rest->len);
    struct span first = {rest->at, end ? (size_t)(end - rest->at) : rest->len};
    size_t skipped = end ? first.len + 1 : first.len;

    rest->at += skipped;
    rest->len -= skipped;
    return first;
}

static bool list_has(struct span list, const char *token)
{
    while (list.len > 0) {
        if (span_is_nocase(trimmed(cut(&list, ',')), token))
            return true;
    }
    return false;
}

static bool is_token(struct span s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

        if (!alnum && (c == '\0' || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return s.len > 0;
}

/* Visible characters only: a control character in a target or value is an attempt at something. */
static bool is_clean(struct span s, bool blanks)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];

        if (c == 0x7f || (c <= 0x20 && !(blanks && (c == ' ' || c == '\t'))))
            return false;
    }
    return true;
}

static int parse_request_line(struct span line, struct bly_http_request *request)
{
    struct span method = cut(&line, ' ');
    struct span target = cut(&line, ' ');
    struct span path;

    if (!is_token(method) || target.len == 0 || target.at[0] != '/' || !is_clean(target, false))
        return -EBADMSG;
    if (!span_is(line, "HTTP/1.1") && !span_is(line, "HTTP/1.0"))
        return -EBADMSG;

    path = cut(&target, '?');
    request->is_get = span_is(method, "GET");
    request->is_head = span_is(method, "HEAD");
    request->is_root = span_is(path, "/");
    request->is_readyz = span_is(path, "/readyz");
    request->is_http10 = span_is(line, "HTTP/1.0");
    return 0;
}

static void take_key(struct span value, struct bly_http_request *request)
{
    /* The first one counts; one that is too long for its purpose is as good as none. */
    if (request->key[0] == '\0' && value.len < sizeof(request->key)) {
        memcpy(request->key, value.at, value.len);
        request->key[value.len] = '\0';
    }
}

static int parse_header(struct span line, struct bly_http_request *request)
{
    const char *colon = memchr(line.at, ':', line.len);
    struct span name, value;

    if (!colon)
        return -EBADMSG;
    name = cut(&line, ':');
    value = trimmed(line);
    if (!is_token(name) || !is_clean(value, true))
        return -EBADMSG;

    if (span_is_nocase(name, "Origin"))
        request->has_origin = true;
    else if (span_is_nocase(name, "Connection"))
        request->connection_upgrade |= list_has(value, "upgrade");
    else if (span_is_nocase(name, "Upgrade"))
        request->upgrade_websocket |= list_has(value, "websocket");
    else if (span_is_nocase(name, "Sec-WebSocket-Version"))
        request->version_13 |= span_is(value, "13");
    else if (span_is_nocase(name, "Sec-WebSocket-Key"))
        take_key(value, request);
    else if (span_is_nocase(name, "Transfer-Encoding"))
        request->has_body = true;
    else if (span_is_nocase(name, "Content-Length"))
        request->has_body |= !span_is(value, "0");
    return 0;
}

static int parse_head(struct span head, struct bly_http_request *request)
{
    bool first = true;

    while (head.len > 0) {
        struct span line = cut(&head, '\n');
        int r;

        if (line.len == 0 || line.at[line.len - 1] != '\r')
            return -EBADMSG;
        line.len--;
        r = first ? parse_request_line(line, request) : parse_header(line, request);
        if (r < 0)
            return r;
        first = false;
    }
    return 0;
}

int bly_http_parse(const char *data, size_t len, struct bly_http_request *ret_request,
                   size_t *ret_used)
{
    size_t searched = len < BLY_HTTP_HEAD_MAX ? len : BLY_HTTP_HEAD_MAX;
    const char *end = memmem(data, searched, "\r\n\r\n", 4);
    struct bly_http_request request = {0};
    int r;

    if (!end)
        return len >= BLY_HTTP_HEAD_MAX ? -EMSGSIZE : -EAGAIN;

    r = parse_head((struct span){data, (size_t)(end - data) + 2}, &request);
    if (r < 0)
        return r;

    *ret_request = request;
    *ret_used = (size_t)(end - data) + 4;
    return 0;
}

enum verdict {
    SWITCH,
    READY,
    UNREADABLE,
    NO_CONNECTION,
    NO_UPGRADE,
    NO_KEY,
    NO_VERSION,
    BODY,
    ORIGIN,
    NOT_FOUND,
    NOT_GET,
    READYZ_METHOD,
    HTTP10,
    HEAD_TOO_LONG,
    UNWELCOME,
};

static const struct bly_http_verdict verdicts[] = {
    [SWITCH] = {101, "Switching Protocols", "", ""},
    [READY] = {200, "OK", "", ""},
    [UNREADABLE] = {400, "Bad Request", "", ""},
    [NO_CONNECTION] = {400, "Bad Request", "", "Connection header did not include 'upgrade'"},
    [NO_UPGRADE] = {400, "Bad Request", "", "`Upgrade` header did not include 'websocket'"},
    [NO_KEY] = {400, "Bad Request", "", "`Sec-WebSocket-Key` header missing"},
    [NO_VERSION] = {400, "Bad Request", "", "`Sec-WebSocket-Version` header did not include '13'"},
    [BODY] = {400, "Bad Request", "", "an upgrade request has no body"},
    [ORIGIN] = {403, "Forbidden", "", ""},
    [NOT_FOUND] = {404, "Not Found", "", ""},
    [NOT_GET] = {405, "Method Not Allowed", "Allow: GET\r\n", "Request method must be `GET`"},
    [READYZ_METHOD] = {405, "Method Not Allowed", "Allow: GET,HEAD\r\n", ""},
    [HTTP10] = {426, "Upgrade Required", "", "WebSocket needs HTTP/1.1"},
    [HEAD_TOO_LONG] = {431, "Request Header Fields Too Large", "", ""},
    [UNWELCOME] = {503, "Service Unavailable", "", ""},
};

/* The order of the checks is the protocol's (spec 1.7). */
static enum verdict judge(const struct bly_http_request *q, bool welcome)
{
    if (q->has_origin)
        return ORIGIN;
    if (q->is_readyz && !q->is_get && !q->is_head)
        return READYZ_METHOD;
    if (q->is_readyz)
        return welcome ? READY : UNWELCOME;
    if (!q->is_root)
        return NOT_FOUND;
    if (!q->is_get)
        return NOT_GET;
    if (!q->connection_upgrade)
        return NO_CONNECTION;
    if (!q->upgrade_websocket)
        return NO_UPGRADE;
    if (q->key[0] == '\0')
        return NO_KEY;
    if (!q->version_13)
        return NO_VERSION;
    if (q->is_http10)
        return HTTP10;
    if (q->has_body)
        return BODY;
    return welcome ? SWITCH : UNWELCOME;
}

const struct bly_http_verdict *bly_http_judge(int parsed, const struct bly_http_request *request,
                                              bool welcome)
{
    if (parsed == -EMSGSIZE)
        return &verdicts[HEAD_TOO_LONG];
    if (parsed < 0)
        return &verdicts[UNREADABLE];
    return &verdicts[judge(request, welcome)];
}

static size_t answer_upgrade(const struct bly_http_verdict *verdict, const char *key,
                             char ret_answer[BLY_HTTP_ANSWER_MAX])
{
    char accept[BLY_WS_ACCEPT_LEN + 1];

    bly_ws_accept(key, strlen(key), accept);
    return (size_t)snprintf(ret_answer, BLY_HTTP_ANSWER_MAX,
                            "HTTP/1.1 %d %s\r\n"
                            "Connection: Upgrade\r\n"
                            "Upgrade: websocket\r\n"
                            "Sec-WebSocket-Accept: %s\r\n"
                            "\r\n",
                            verdict->status, verdict->phrase, accept);
}

size_t bly_http_answer(const struct bly_http_verdict *verdict,
                       const struct bly_http_request *request, char ret_answer[BLY_HTTP_ANSWER_MAX])
{
    if (verdict->status == 101)
        return answer_upgrade(verdict, request->key, ret_answer);

    return (size_t)snprintf(ret_answer, BLY_HTTP_ANSWER_MAX,
                            "HTTP/1.1 %d %s\r\n"
                            "Content-Type: text/plain; charset=utf-8\r\n"
                            "Content-Length: %zu\r\n"
                            "%sConnection: close\r\n"
                            "\r\n"
                            "%s",
                            verdict->status, verdict->phrase, strlen(verdict->body),
                            verdict->header, request->is_head ? "" : verdict->body);
}
