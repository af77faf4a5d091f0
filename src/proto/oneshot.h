#pragma once

/*
 * The one-shot file helper's JSON (spec section 5): one request object on stdin, one answer object
 * on stdout. Pure; any thread.
 */
#include <stddef.h>

#include "proto/proto.h"

struct bly_oneshot {
    enum bly_fs_op op;
    const char *operation;       /* its name; static */
    struct bly_fs_params params; /* no policy: the wall is already around the helper */
    yyjson_doc *doc;             /* owned */
};

/*
 * Decodes {"operation":O,"params":P} in situ: `text` as for bly_json_read(), must outlive the
 * request. `sandbox` in the params is checked and then dropped. -EINVAL or -EBADMSG with `err` for
 * anything that is no request: kind BLY_ERR_PARAMS or, where the method itself would refuse,
 * BLY_ERR_INVALID. -ENOMEM.
 */
int bly_oneshot_decode(char *text, size_t len, const struct bly_policy_env *env,
                       struct bly_oneshot *ret_request, struct bly_err *err);
void bly_oneshot_deinit(struct bly_oneshot *request);

/* {"status":"ok","payload":{"operation":O,"response":R}}, or with reply->err
 * {"status":"error","payload":{"code":C,"message":M}}; no line feed. Returns buf->error. */
int bly_oneshot_encode(const struct bly_oneshot *request, const struct bly_fs_reply *reply,
                       struct bly_buf *buf);
