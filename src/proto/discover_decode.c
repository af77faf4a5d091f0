#include "proto/proto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "proto/decode.h"
#include "sandbox/policy/policy.h"

static int decode_root(yyjson_val *value, const struct bly_policy_env *env,
                       struct bly_discover_root *root, struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(value, "roots", err);
    yyjson_val *sandbox;
    bool foreign;

    root->id = bly_decode_str(&d, "id", BLY_REQUIRED, &root->id_len);
    root->path_text = bly_decode_str(&d, "path", BLY_REQUIRED, &root->path_text_len);
    sandbox = bly_decode_any(&d, "sandbox", BLY_OPTIONAL);
    root->path = bly_decode_any_path(&d, root->path_text, root->path_text_len, &foreign);
    if (foreign) {
        root->reason = strdup(err->text);
        if (!root->reason)
            return bly_fail_sys(err, ENOMEM, "cannot keep a reason");
    }
    root->policy = bly_decode_sandbox(&d, sandbox, env);
    return d.error;
}

static int decode_roots(yyjson_val *list, const struct bly_policy_env *env,
                        struct bly_discover_params *p, struct bly_err *err)
{
    yyjson_val *item;
    size_t i, n;
    int r;

    if (yyjson_arr_size(list) > BLY_DISCOVER_ROOTS_MAX)
        return bly_fail(err, BLY_ERR_INVALID, E2BIG,
                        "capability root discovery accepts at most %d roots",
                        BLY_DISCOVER_ROOTS_MAX);
    p->roots = calloc(yyjson_arr_size(list) + 1, sizeof(*p->roots));
    if (!p->roots)
        return bly_fail_sys(err, ENOMEM, "cannot keep the roots");
    yyjson_arr_foreach (list, i, n, item) {
        p->n_roots++;
        r = decode_root(item, env, &p->roots[i], err);
        if (r < 0)
            return r;
    }
    return 0;
}

int bly_proto_decode_discover(yyjson_val *params, const struct bly_policy_env *env,
                              struct bly_discover_params *ret, struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(params, "params", err);
    yyjson_val *list = bly_decode_array(&d, "roots", BLY_REQUIRED);
    int r = d.error;

    memset(ret, 0, sizeof(*ret));
    if (r == 0)
        r = decode_roots(list, env, ret, err);
    if (r < 0)
        bly_discover_params_deinit(ret);
    return r;
}

void bly_discover_params_deinit(struct bly_discover_params *params)
{
    for (size_t i = 0; i < params->n_roots; i++) {
        free(params->roots[i].path);
        free(params->roots[i].reason);
        bly_policy_unref(params->roots[i].policy);
    }
    free(params->roots);
    memset(params, 0, sizeof(*params));
}

int bly_proto_decode_discover_installed(yyjson_val *params, const struct bly_policy_env *env,
                                        struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(params, "params", err);
    size_t len;
    const char *cwd = bly_decode_str(&d, "cwd", BLY_REQUIRED, &len);
    yyjson_val *sandbox = bly_decode_any(&d, "sandbox", BLY_OPTIONAL);
    bool foreign;

    free(bly_decode_any_path(&d, cwd, len, &foreign));
    bly_policy_unref(bly_decode_sandbox(&d, sandbox, env));
    return d.error;
}
