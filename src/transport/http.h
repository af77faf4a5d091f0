#pragma once

/*
 * The little HTTP this server speaks: one request, which becomes a WebSocket or gets a short
 * answer. The parser is strict (CRLF, no folding, origin-form targets) since it reads what anybody
 * may send. Pure; any thread. Spec 1.2.
 */
#include <stdbool.h>
#include <stddef.h>

enum {
    BLY_HTTP_HEAD_MAX = 8192, /* bytes of a request's head */
    BLY_HTTP_ANSWER_MAX = 512,
    BLY_HTTP_KEY_MAX = 128,
};

struct bly_http_request {
    bool is_get, is_head;
    bool is_root, is_readyz; /* the path, any query string dropped */
    bool is_http10;
    bool has_origin, has_body;
    bool connection_upgrade, upgrade_websocket, version_13;
    char key[BLY_HTTP_KEY_MAX]; /* Sec-WebSocket-Key; "" when missing */
};

/*
 * Reads a request's head. Returns 0 and *ret_used, the length of the head; -EAGAIN when more bytes
 * are needed; -EBADMSG when it is not a request; -EMSGSIZE when the head is longer than
 * BLY_HTTP_HEAD_MAX.
 */
int bly_http_parse(const char *data, size_t len, struct bly_http_request *ret_request,
                   size_t *ret_used);

/* What to answer: a row of the table in http.c. */
struct bly_http_verdict {
    int status; /* 101: go on as a WebSocket */
    const char *phrase;
    const char *header; /* one more header line, or "" */
    const char *body;
};

/*
 * `parsed` is the result of bly_http_parse() (not -EAGAIN). `welcome`: a new connection would be
 * taken. Never NULL; static.
 */
const struct bly_http_verdict *bly_http_judge(int parsed, const struct bly_http_request *request,
                                              bool welcome);

/* Writes the whole answer, NUL-terminated; returns its length. */
size_t bly_http_answer(const struct bly_http_verdict *verdict,
                       const struct bly_http_request *request,
                       char ret_answer[BLY_HTTP_ANSWER_MAX]);
