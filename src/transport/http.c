#include "transport/http.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/ascii.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "transport/auth.h"
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

static enum bly_http_path find_path(struct span path)
{
    static const struct {
        const char *text;
        enum bly_http_path path;
    } paths[] = {
        {"/", BLY_HTTP_ROOT},
        {"/livez", BLY_HTTP_LIVEZ},
        {"/readyz", BLY_HTTP_READYZ},
        {"/metrics", BLY_HTTP_METRICS},
    };

    for (size_t i = 0; i < BLY_LEN(paths); i++) {
        if (span_is(path, paths[i].text))
            return paths[i].path;
    }
    return BLY_HTTP_ELSEWHERE;
}

static int parse_request_line(struct span line, struct bly_http_request *request)
{
    struct span method = cut(&line, ' ');
    struct span target = cut(&line, ' ');

    if (!bly_ascii_is_token(method.at, method.len) || target.len == 0 || target.at[0] != '/' ||
        !is_clean(target, false))
        return -EBADMSG;
    if (!span_is(line, "HTTP/1.1") && !span_is(line, "HTTP/1.0"))
        return -EBADMSG;

    request->path = find_path(cut(&target, '?'));
    request->is_get = span_is(method, "GET");
    request->is_head = span_is(method, "HEAD");
    request->is_http10 = span_is(line, "HTTP/1.0");
    return 0;
}

/* ---- the headers that matter ---------------------------------------------------------------- */

struct parser {
    const char *head;
    struct bly_http_request *request;
};

static void take_origin(struct parser *p, struct span value)
{
    (void)value;
    p->request->has_origin = true;
}

static void take_connection(struct parser *p, struct span value)
{
    p->request->connection_upgrade |= list_has(value, "upgrade");
}

static void take_upgrade(struct parser *p, struct span value)
{
    p->request->upgrade_websocket |= list_has(value, "websocket");
}

static void take_version(struct parser *p, struct span value)
{
    p->request->version_13 |= span_is(value, "13");
}

static void take_key(struct parser *p, struct span value)
{
    struct bly_http_request *request = p->request;

    /* The first one counts; one that is too long for its purpose is as good as none. */
    if (request->key[0] == '\0' && value.len < sizeof(request->key)) {
        memcpy(request->key, value.at, value.len);
        request->key[value.len] = '\0';
    }
}

/* Where it is, not what it says: a secret is not copied around. */
static void take_first(struct parser *p, struct span value, struct bly_http_value *first)
{
    if (first->at == 0) {
        first->at = (uint16_t)(value.at - p->head);
        first->len = (uint16_t)value.len;
    }
}

static void take_authorization(struct parser *p, struct span value)
{
    take_first(p, value, &p->request->authorization);
}

static void take_second_authorization(struct parser *p, struct span value)
{
    take_first(p, value, &p->request->second_authorization);
}

static void take_transfer_encoding(struct parser *p, struct span value)
{
    (void)value;
    p->request->has_body = true;
}

static void take_content_length(struct parser *p, struct span value)
{
    p->request->has_body |= !span_is(value, "0");
}

static const struct {
    const char *name;
    void (*take)(struct parser *p, struct span value);
} headers[] = {
    {"Origin", take_origin},
    {"Connection", take_connection},
    {"Upgrade", take_upgrade},
    {"Sec-WebSocket-Version", take_version},
    {"Sec-WebSocket-Key", take_key},
    {"Authorization", take_authorization},
    {"X-Bailey-Authorization", take_second_authorization},
    {"Transfer-Encoding", take_transfer_encoding},
    {"Content-Length", take_content_length},
};

static int parse_header(struct parser *p, struct span line)
{
    const char *colon = memchr(line.at, ':', line.len);
    struct span name, value;

    if (!colon)
        return -EBADMSG;
    name = cut(&line, ':');
    value = trimmed(line);
    if (!bly_ascii_is_token(name.at, name.len) || !is_clean(value, true))
        return -EBADMSG;

    for (size_t i = 0; i < BLY_LEN(headers); i++) {
        if (span_is_nocase(name, headers[i].name))
            headers[i].take(p, value);
    }
    return 0;
}

static int parse_head(struct span head, struct bly_http_request *request)
{
    struct parser parser = {head.at, request};
    bool first = true;

    while (head.len > 0) {
        struct span line = cut(&head, '\n');
        int r;

        if (line.len == 0 || line.at[line.len - 1] != '\r')
            return -EBADMSG;
        line.len--;
        r = first ? parse_request_line(line, request) : parse_header(&parser, line);
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

/* ---- answers -------------------------------------------------------------------------------- */

enum verdict {
    SWITCH,
    FINE,
    METRICS,
    UNREADABLE,
    NO_CONNECTION,
    NO_UPGRADE,
    NO_KEY,
    NO_VERSION,
    BODY,
    ORIGIN,
    NOT_FOUND,
    NOT_GET,
    NOT_READING,
    HTTP10,
    HEAD_TOO_LONG,
    UNWELCOME,
};

static const struct bly_http_verdict verdicts[] = {
    [SWITCH] = {101, "Switching Protocols", "", ""},
    [FINE] = {200, "OK", "", ""},
    [METRICS] = {200, "OK", "", NULL},
    [UNREADABLE] = {400, "Bad Request", "", ""},
    [NO_CONNECTION] = {400, "Bad Request", "", "Connection header did not include 'upgrade'"},
    [NO_UPGRADE] = {400, "Bad Request", "", "`Upgrade` header did not include 'websocket'"},
    [NO_KEY] = {400, "Bad Request", "", "`Sec-WebSocket-Key` header missing"},
    [NO_VERSION] = {400, "Bad Request", "", "`Sec-WebSocket-Version` header did not include '13'"},
    [BODY] = {400, "Bad Request", "", "an upgrade request has no body"},
    [ORIGIN] = {403, "Forbidden", "", ""},
    [NOT_FOUND] = {404, "Not Found", "", ""},
    [NOT_GET] = {405, "Method Not Allowed", "Allow: GET\r\n", "Request method must be `GET`"},
    [NOT_READING] = {405, "Method Not Allowed", "Allow: GET,HEAD\r\n", ""},
    [HTTP10] = {426, "Upgrade Required", "", "WebSocket needs HTTP/1.1"},
    [HEAD_TOO_LONG] = {431, "Request Header Fields Too Large", "", ""},
    [UNWELCOME] = {503, "Service Unavailable", "", ""},
};

#define UNAUTHORIZED(text)                                        \
    {                                                             \
        401, "Unauthorized", "WWW-Authenticate: Bearer\r\n", text \
    }

static const struct bly_http_verdict unauthorized[] = {
    [BLY_AUTH_MISSING] = UNAUTHORIZED("missing websocket bearer token"),
    [BLY_AUTH_BAD_HEADER] = UNAUTHORIZED("invalid authorization header"),
    [BLY_AUTH_WRONG_TOKEN] = UNAUTHORIZED("invalid websocket bearer token"),
    [BLY_AUTH_BAD_JWT] = UNAUTHORIZED("invalid websocket jwt"),
    [BLY_AUTH_EXPIRED] = UNAUTHORIZED("expired websocket jwt"),
    [BLY_AUTH_TOO_EARLY] = UNAUTHORIZED("websocket jwt is not valid yet"),
    [BLY_AUTH_WRONG_ISSUER] = UNAUTHORIZED("websocket jwt issuer mismatch"),
    [BLY_AUTH_WRONG_AUDIENCE] = UNAUTHORIZED("websocket jwt audience mismatch"),
};

/* NULL: may come in. Authorization counts when there is one, whatever is in it. */
static const struct bly_http_verdict *check_auth(const char *head, const struct bly_http_request *q,
                                                 const struct bly_http_terms *terms)
{
    struct bly_http_value value = q->authorization.at ? q->authorization : q->second_authorization;
    enum bly_auth_verdict auth =
        bly_auth_check(terms->auth, value.at ? head + value.at : NULL, value.len, terms->now_s);

    return auth == BLY_AUTH_OK ? NULL : &unauthorized[auth];
}

/* What an endpoint says to those who may read it. */
static enum verdict judge_endpoint(const struct bly_http_request *q,
                                   const struct bly_http_terms *terms)
{
    if (q->path == BLY_HTTP_METRICS && !terms->metrics)
        return NOT_FOUND;
    if (!q->is_get && !q->is_head)
        return NOT_READING;
    if (q->path == BLY_HTTP_METRICS)
        return METRICS;
    return q->path == BLY_HTTP_LIVEZ || terms->ready ? FINE : UNWELCOME;
}

static enum verdict judge_upgrade(const struct bly_http_request *q,
                                  const struct bly_http_terms *terms)
{
    if (q->path == BLY_HTTP_ELSEWHERE &&
        !(terms->any_path && q->connection_upgrade && q->upgrade_websocket))
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
    return q->has_body ? BODY : SWITCH;
}

/* The order of the checks is the protocol's (spec 1.7): who it is comes last but one, and whether
 * there is room is nobody's business before that. */
const struct bly_http_verdict *bly_http_judge(int parsed, const char *head,
                                              const struct bly_http_request *request,
                                              const struct bly_http_terms *terms)
{
    const struct bly_http_verdict *refusal;
    enum verdict verdict;

    if (parsed == -EMSGSIZE)
        return &verdicts[HEAD_TOO_LONG];
    if (parsed < 0)
        return &verdicts[UNREADABLE];
    if (request->has_origin)
        return &verdicts[ORIGIN];

    if (request->path == BLY_HTTP_ROOT || request->path == BLY_HTTP_ELSEWHERE)
        verdict = judge_upgrade(request, terms);
    else
        verdict = judge_endpoint(request, terms);
    if (verdict != SWITCH && verdict != METRICS)
        return &verdicts[verdict];

    refusal = check_auth(head, request, terms);
    if (refusal)
        return refusal;
    return &verdicts[verdict == SWITCH && !terms->welcome ? UNWELCOME : verdict];
}

static int answer_upgrade(const struct bly_http_verdict *verdict, const char *key,
                          struct bly_buf *answer)
{
    char accept[BLY_WS_ACCEPT_LEN + 1];

    bly_ws_accept(key, strlen(key), accept);
    return bly_buf_printf(answer,
                          "HTTP/1.1 %d %s\r\n"
                          "Connection: Upgrade\r\n"
                          "Upgrade: websocket\r\n"
                          "Sec-WebSocket-Accept: %s\r\n"
                          "\r\n",
                          verdict->status, verdict->phrase, accept);
}

int bly_http_answer(const struct bly_http_verdict *verdict, const struct bly_http_request *request,
                    const struct bly_buf *metrics, struct bly_buf *answer)
{
    const void *body = verdict->body ? (const void *)verdict->body : metrics->data;
    size_t len = verdict->body ? strlen(verdict->body) : metrics->len;

    if (verdict->status == 101)
        return answer_upgrade(verdict, request->key, answer);

    (void)bly_buf_printf(answer,
                         "HTTP/1.1 %d %s\r\n"
                         "Content-Type: text/plain; %scharset=utf-8\r\n"
                         "Content-Length: %zu\r\n"
                         "%sConnection: close\r\n"
                         "\r\n",
                         verdict->status, verdict->phrase, verdict->body ? "" : "version=0.0.4; ",
                         len, verdict->header);
    if (!request->is_head && len > 0)
        (void)bly_buf_add(answer, body, len);
    return answer->error;
}
