#include <errno.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/err.h"
#include "proto/decode.h"
#include "proto/http.h"

static void read_header(struct bly_decoder *d, yyjson_val *value, struct bly_http_header *header)
{
    struct bly_decoder in = bly_decoder_of(value, "headers", d->err);

    header->name = bly_decode_str(&in, "name", BLY_REQUIRED, &header->name_len);
    header->value = bly_decode_str(&in, "value", BLY_REQUIRED, &header->value_len);
    header->variable = bly_decode_str(&in, "valueEnvVar", BLY_OPTIONAL, &header->variable_len);
    d->error = in.error;
}

static void read_headers(struct bly_decoder *d, struct bly_http_params *p)
{
    yyjson_val *list = bly_decode_array(d, "headers", BLY_DEFAULTED);
    yyjson_val *value;
    size_t i, n;

    if (yyjson_arr_size(list) == 0)
        return;
    p->headers = calloc(yyjson_arr_size(list), sizeof(*p->headers));
    if (!p->headers) {
        d->error = bly_fail(d->err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
        return;
    }
    yyjson_arr_foreach (list, i, n, value) {
        if (d->error == 0)
            read_header(d, value, &p->headers[p->n_headers++]);
    }
}

static int decode_body(struct bly_http_params *p, size_t text_len, struct bly_err *err)
{
    char *text = bly_decode_in_place(p->body);
    struct bly_base64_error fault;
    char why[96];

    if (!text || bly_base64_decode(text, text_len, text, &p->body_len, &fault) == 0)
        return 0;

    bly_base64_error_text(&fault, why, sizeof(why));
    return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "invalid base64: %s", why);
}

static int decode(yyjson_val *params, struct bly_http_params *p, struct bly_err *err)
{
    static const char *const policies[] = {"follow", "stop", NULL};
    struct bly_decoder d = bly_decoder_of(params, "params", err);
    size_t text_len;

    p->method = bly_decode_str(&d, "method", BLY_REQUIRED, &p->method_len);
    p->url = bly_decode_str(&d, "url", BLY_REQUIRED, &p->url_len);
    read_headers(&d, p);
    p->body = bly_decode_str(&d, "bodyBase64", BLY_OPTIONAL, &text_len);
    p->timeout_ms = bly_decode_u64(&d, "timeoutMs", BLY_OPTIONAL, UINT64_MAX);
    p->follow = bly_decode_word(&d, "redirectPolicy", BLY_DEFAULTED, policies, 0) == 0;
    p->request_id = bly_decode_str(&d, "requestId", BLY_REQUIRED, &p->request_id_len);
    p->stream = bly_decode_bool(&d, "streamResponse", BLY_DEFAULTED, false);
    return d.error < 0 ? d.error : decode_body(p, text_len, err);
}

int bly_proto_decode_http(yyjson_val *params, struct bly_http_params *ret, struct bly_err *err)
{
    int r;

    *ret = (struct bly_http_params){0};
    r = decode(params, ret, err);
    if (r < 0)
        bly_http_params_deinit(ret);
    return r;
}

void bly_http_params_deinit(struct bly_http_params *params)
{
    free(params->headers);
    *params = (struct bly_http_params){0};
}
