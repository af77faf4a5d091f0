#include "base/base64.h"
#include "base/buf.h"
#include "base/json.h"
#include "proto/encode.h"
#include "proto/http.h"

enum { DELTA_ROOM = 160 }; /* bytes of a notification besides its id and its data, at most */

static void add_field(struct bly_buf *buf, const struct bly_http_field *field)
{
    BLY_ADD(buf, "{\"name\":");
    bly_json_add_cstr(buf, field->name);
    BLY_ADD(buf, ",\"value\":");
    bly_json_add_cstr(buf, field->value);
    BLY_ADD(buf, "}");
}

int bly_proto_begin_http(unsigned status, const struct bly_http_field *fields, size_t n_fields,
                         struct bly_buf *buf)
{
    BLY_ADD(buf, "{\"status\":");
    bly_json_add_u64(buf, status);
    BLY_ADD(buf, ",\"headers\":[");
    for (size_t i = 0; i < n_fields; i++) {
        if (i > 0)
            BLY_ADD(buf, ",");
        add_field(buf, &fields[i]);
    }
    return BLY_ADD(buf, "],\"bodyBase64\":");
}

int bly_proto_end_http(const void *body, size_t body_len, struct bly_buf *buf)
{
    bly_encode_base64(buf, body, body_len);
    return BLY_ADD(buf, "}");
}

int bly_proto_add_body_delta(struct bly_buf *buf, const char *request_id, size_t request_id_len,
                             uint64_t seq, const void *data, size_t n, bool done, const char *error)
{
    bly_buf_reserve(buf, request_id_len + bly_base64_len(n) + DELTA_ROOM);
    BLY_ADD(buf, "{\"method\":\"http/request/bodyDelta\",\"params\":{\"requestId\":");
    bly_json_add_str(buf, request_id, request_id_len);
    BLY_ADD(buf, ",\"seq\":");
    bly_json_add_u64(buf, seq);
    BLY_ADD(buf, ",\"deltaBase64\":");
    bly_encode_base64(buf, data, n);
    BLY_ADD(buf, ",\"done\":");
    bly_encode_bool(buf, done);
    BLY_ADD(buf, ",\"error\":");
    if (error)
        bly_json_add_cstr(buf, error);
    else
        BLY_ADD(buf, "null");
    return BLY_ADD(buf, "}}");
}
