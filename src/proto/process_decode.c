#include "proto/proto.h"

#include <errno.h>
#include <string.h>

#include "base/base64.h"
#include "base/err.h"
#include "proto/decode.h"

int bly_proto_decode_initialize(yyjson_val *params, struct bly_initialize_params *ret,
                                struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(params, "params", err);

    *ret = (struct bly_initialize_params){0};
    ret->client_name = bly_decode_str(&d, "clientName", BLY_REQUIRED, &ret->client_name_len);
    ret->resume_session_id =
        bly_decode_str(&d, "resumeSessionId", BLY_OPTIONAL, &ret->resume_session_id_len);
    return d.error;
}

static struct bly_decoder begin(yyjson_val *params, struct bly_process_params *ret,
                                struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(params, "params", err);

    *ret = (struct bly_process_params){.max_bytes = UINT64_MAX};
    ret->process_id = bly_decode_str(&d, "processId", BLY_REQUIRED, &ret->process_id_len);
    return d;
}

int bly_proto_decode_read(yyjson_val *params, struct bly_process_params *ret, struct bly_err *err)
{
    struct bly_decoder d = begin(params, ret, err);

    ret->after_seq = bly_decode_u64(&d, "afterSeq", BLY_OPTIONAL, 0);
    ret->has_max_bytes = bly_decode_any(&d, "maxBytes", BLY_OPTIONAL) != NULL;
    ret->max_bytes = bly_decode_u64(&d, "maxBytes", BLY_OPTIONAL, UINT64_MAX);
    ret->wait_ms = bly_decode_u64(&d, "waitMs", BLY_OPTIONAL, 0);
    return d.error;
}

static int decode_chunk(struct bly_process_params *p, size_t text_len, struct bly_err *err)
{
    struct bly_base64_error fault;
    char why[96];

    if (bly_base64_decode(p->data, text_len, p->data, &p->data_len, &fault) == 0)
        return 0;

    bly_base64_error_text(&fault, why, sizeof(why));
    return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "invalid base64: %s", why);
}

int bly_proto_decode_write(yyjson_val *params, struct bly_process_params *ret, struct bly_err *err)
{
    struct bly_decoder d = begin(params, ret, err);
    size_t text_len, id_len;

    ret->data = bly_decode_in_place(bly_decode_str(&d, "chunk", BLY_REQUIRED, &text_len));
    ret->write_id = bly_decode_str(&d, "writeId", BLY_OPTIONAL, &id_len);
    if (d.error < 0)
        return d.error;

    if (ret->write_id && id_len == 0)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "writeId must not be empty");

    /* Cut at a NUL, two ids could become one, and the second write would be lost. */
    if (ret->write_id && strlen(ret->write_id) != id_len)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "writeId must not contain a NUL byte");

    return decode_chunk(ret, text_len, err);
}

int bly_proto_decode_terminate(yyjson_val *params, struct bly_process_params *ret,
                               struct bly_err *err)
{
    struct bly_decoder d = begin(params, ret, err);

    return d.error;
}

int bly_proto_decode_signal(yyjson_val *params, struct bly_process_params *ret, struct bly_err *err)
{
    static const char *const signals[] = {"interrupt", NULL};
    struct bly_decoder d = begin(params, ret, err);

    (void)bly_decode_word(&d, "signal", BLY_REQUIRED, signals, 0);
    return d.error;
}

int bly_proto_decode_nothing(yyjson_val *params, struct bly_err *err)
{
    if (!params || yyjson_is_null(params))
        return 0;

    if (!yyjson_is_obj(params) || yyjson_obj_size(params) > 0)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "this method takes no parameters");

    return 0;
}
