#pragma once

/*
 * The little HTTP this server speaks: one request, which becomes a WebSocket or gets a short
 * answer. The parser is strict (CRLF, no folding, origin-form targets) since it reads what anybody
 * may send. Pure; any thread. Spec 1.2, 1.7.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_auth;
struct bly_buf;

enum {
    BLY_HTTP_HEAD_MAX = 8192,      /* bytes of a request's head */
    BLY_HTTP_ANSWER_MAX = 1 << 20, /* bytes of an answer, with its head */
    BLY_HTTP_KEY_MAX = 128,
};

/* What a path is for, any query string dropped. */
enum bly_http_path {
    BLY_HTTP_ELSEWHERE,
    BLY_HTTP_ROOT,
    BLY_HTTP_LIVEZ,
    BLY_HTTP_READYZ,
    BLY_HTTP_METRICS,
};

/* Part of the head that was read. Nothing but the request line begins at 0: then there is none. */
struct bly_http_value {
    uint16_t at, len;
};

struct bly_http_request {
    enum bly_http_path path;
    bool is_get, is_head;
    bool is_http10;
    bool has_origin, has_body;
    bool connection_upgrade, upgrade_websocket, version_13;
    struct bly_http_value authorization; /* the first one */
    /* The same for clients behind a router that takes Authorization away: X-Bailey-Authorization.
     */
    struct bly_http_value second_authorization;
    char key[BLY_HTTP_KEY_MAX]; /* Sec-WebSocket-Key; "" when missing */
};

/*
 * Reads a request's head. Returns 0 and *ret_used, the length of the head; -EAGAIN when more bytes
 * are needed; -EBADMSG when it is not a request; -EMSGSIZE when the head is longer than
 * BLY_HTTP_HEAD_MAX.
 */
int bly_http_parse(const char *data, size_t len, struct bly_http_request *ret_request,
                   size_t *ret_used);

/* What the server has to say at the moment. */
struct bly_http_terms {
    bool ready;                  /* new clients are welcome: /readyz */
    bool welcome;                /* a connection is taken */
    bool metrics;                /* there are any */
    bool any_path;               /* an upgrade may ask for any path that means nothing else */
    const struct bly_auth *auth; /* who may connect, NULL: everybody */
    int64_t now_s;               /* time of day */
};

/* What to answer: a row of the tables in http.c. */
struct bly_http_verdict {
    int status; /* 101: go on as a WebSocket */
    const char *phrase;
    const char *header; /* one more header line, or "" */
    const char *body;   /* NULL: the metrics */
};

/*
 * `parsed` is the result of bly_http_parse() (not -EAGAIN), `head` what it read. Never NULL;
 * static.
 */
const struct bly_http_verdict *bly_http_judge(int parsed, const char *head,
                                              const struct bly_http_request *request,
                                              const struct bly_http_terms *terms);

/*
 * Appends the whole answer. `metrics` is what stands in for a body that is NULL (else it may be
 * NULL itself). Returns answer->error.
 */
int bly_http_answer(const struct bly_http_verdict *verdict, const struct bly_http_request *request,
                    const struct bly_buf *metrics, struct bly_buf *answer);
