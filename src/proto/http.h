#pragma once

/*
 * http/request (docs/PROTOCOL.md): its parameters, what they stand for, and its answers. Decoding
 * reads the members; preparing judges method, URL and headers, which the protocol does after the
 * handshake check. Pure; any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

struct bly_buf;
struct bly_err;

/* As the client sent it. Borrowed from the document; may contain NUL, hence the lengths. */
struct bly_http_header {
    const char *name, *value, *variable; /* variable: `valueEnvVar`, NULL when absent */
    size_t name_len, value_len, variable_len;
};

struct bly_http_params {
    const char *method, *url, *request_id; /* borrowed, may contain NUL */
    size_t method_len, url_len, request_id_len;
    struct bly_http_header *headers; /* owned array */
    size_t n_headers;
    const char *body; /* NULL: none; decoded in place in the document */
    size_t body_len;
    uint64_t timeout_ms; /* UINT64_MAX: none given */
    bool follow, stream;
};

/* BLY_ERR_PARAMS, or -ENOMEM with `err` set. Decodes base64 in place. */
int bly_proto_decode_http(yyjson_val *params, struct bly_http_params *ret, struct bly_err *err);
void bly_http_params_deinit(struct bly_http_params *params);

/* A variable of the server whose value the operator lends to headers. */
struct bly_http_variable {
    const char *name;
    char *value; /* NULL: it is not set */
};

/* One header of a request or response. Names are in lower case. */
struct bly_http_field {
    char *name, *value; /* owned */
    bool secret;        /* only for the host it was meant for, never for another one */
};

struct bly_http_request {
    char *method, *url;            /* owned; url is what bly_http_url() makes */
    struct bly_http_field *fields; /* owned */
    size_t n_fields;
    const char *body; /* borrowed; NULL: none */
    size_t body_len;
    uint64_t timeout_ms;
    bool follow;
};

/*
 * Judges the parameters; `variables` are the only ones of the server that headers may use. Borrows
 * the body. Headers that say how long the message is are left out: that is for whoever sends it.
 * BLY_ERR_PARAMS, or -ENOMEM with `err` set; `*ret` is empty then.
 */
int bly_http_prepare(const struct bly_http_params *params,
                     const struct bly_http_variable *variables, size_t n_variables,
                     struct bly_http_request *ret, struct bly_err *err);
void bly_http_request_deinit(struct bly_http_request *request);
void bly_http_fields_free(struct bly_http_field *fields, size_t n);

/*
 * Reads a URL as a browser does and writes it so that nobody can read it in another way: scheme and
 * host in lower case, no white space, control characters, default port or fragment, everything
 * beyond ASCII escaped. `*ret_url` is the caller's. -EPROTONOSUPPORT: neither http nor https;
 * -EINVAL: not a URL; both BLY_ERR_PARAMS. -ENOMEM with `err` set.
 */
int bly_http_url(const char *text, size_t len, char **ret_url, struct bly_err *err);
/* For URLs made by bly_http_url(): the same scheme, host and port. */
bool bly_http_same_origin(const char *url, const char *other);
/* The part behind user name and password; borrowed. */
const char *bly_http_url_host(const char *url);

/* The value of "result": up to its body, and from there on. Return buf->error. */
int bly_proto_begin_http(unsigned status, const struct bly_http_field *fields, size_t n_fields,
                         struct bly_buf *buf);
int bly_proto_end_http(const void *body, size_t body_len, struct bly_buf *buf);

enum { BLY_HTTP_DELTA_MAX = 1 << 20 }; /* bytes of a body in one notification */

/* A whole notification http/request/bodyDelta. `error` NULL: null. Returns buf->error. */
int bly_proto_add_body_delta(struct bly_buf *buf, const char *request_id, size_t request_id_len,
                             uint64_t seq, const void *data, size_t n, bool done,
                             const char *error);
