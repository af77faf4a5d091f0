#include "proto/oneshot.h"

#include <errno.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "proto/decode.h"
#include "proto/encode.h"
#include "rpc/rpc.h"
#include "sandbox/policy/policy.h"

static const struct {
    const char *name;
    enum bly_fs_op op;
} operations[] = {
    {"fs/readFile", BLY_FS_READ_FILE},
    {"fs/writeFile", BLY_FS_WRITE_FILE},
    {"fs/createDirectory", BLY_FS_CREATE_DIRECTORY},
    {"fs/getMetadata", BLY_FS_GET_METADATA},
    {"fs/readDirectory", BLY_FS_READ_DIRECTORY},
    {"fs/remove", BLY_FS_REMOVE},
    {"fs/copy", BLY_FS_COPY},
    {"fs/canonicalize", BLY_FS_CANONICALIZE},
    {"fs/walk", BLY_FS_WALK},
    {"fs/open", BLY_FS_OPEN},
};

static int find_operation(yyjson_val *name, struct bly_oneshot *request, struct bly_err *err)
{
    for (size_t i = 0; i < BLY_LEN(operations); i++) {
        if (yyjson_equals_str(name, operations[i].name)) {
            request->op = operations[i].op;
            request->operation = operations[i].name;
            return 0;
        }
    }
    return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "unknown operation `%.128s`",
                    yyjson_get_str(name));
}

static int decode(struct bly_oneshot *request, const struct bly_policy_env *env,
                  struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(yyjson_doc_get_root(request->doc), "request", err);
    yyjson_val *operation = bly_decode_any(&d, "operation", BLY_REQUIRED);
    yyjson_val *params = bly_decode_any(&d, "params", BLY_REQUIRED);
    int r;

    if (operation && !yyjson_is_str(operation))
        bly_decode_mistyped(&d, "operation", operation, "a string");
    if (d.error < 0)
        return d.error;

    r = find_operation(operation, request, err);
    if (r < 0)
        return r;

    r = bly_proto_decode_fs(request->op, params, env, &request->params, err);
    request->params.policy = bly_policy_unref(request->params.policy);
    return r;
}

int bly_oneshot_decode(char *text, size_t len, const struct bly_policy_env *env,
                       struct bly_oneshot *ret_request, struct bly_err *err)
{
    struct bly_oneshot request = {.params.request.fd = -EBADF};
    int r = bly_json_read(text, len, &request.doc, err);

    if (r < 0)
        return r;

    r = decode(&request, env, err);
    if (r < 0) {
        bly_oneshot_deinit(&request);
        return r;
    }
    *ret_request = request;
    return 0;
}

void bly_oneshot_deinit(struct bly_oneshot *request)
{
    bly_fs_params_deinit(&request->params);
    yyjson_doc_free(request->doc);
    *request = (struct bly_oneshot){.params.request.fd = -EBADF};
}

int bly_oneshot_encode(const struct bly_oneshot *request, const struct bly_fs_reply *reply,
                       struct bly_buf *buf)
{
    if (reply->err.kind != BLY_ERR_NONE) {
        BLY_ADD(buf, "{\"status\":\"error\",\"payload\":");
        bly_rpc_add_failure_value(buf, &reply->err);
        return BLY_ADD(buf, "}");
    }

    BLY_ADD(buf, "{\"status\":\"ok\",\"payload\":{\"operation\":");
    bly_json_add_cstr(buf, request->operation);
    BLY_ADD(buf, ",\"response\":");
    /* The descriptor goes back on the socket; the answer says nothing about it. */
    if (request->op == BLY_FS_OPEN)
        BLY_ADD(buf, "{}");
    else
        bly_proto_encode_fs(request->op, &request->params, reply, buf);
    return BLY_ADD(buf, "}}");
}
