#include "proto/proto.h"

#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "proto/decode.h"

/* Lists of keys, one list for each value that is wanted. */
static void check_key_paths(struct bly_decoder *d, const char *name, yyjson_val *paths)
{
    yyjson_val *path, *key;
    size_t i, n, k, m;

    yyjson_arr_foreach (paths, i, n, path) {
        if (!yyjson_is_arr(path)) {
            bly_decode_mistyped(d, name, path, "a sequence");
            return;
        }
        yyjson_arr_foreach (path, k, m, key) {
            if (!yyjson_is_str(key))
                bly_decode_mistyped(d, name, key, "a string");
        }
    }
}

static bool has_empty(yyjson_val *paths)
{
    yyjson_val *path;
    size_t i, n;

    yyjson_arr_foreach (paths, i, n, path) {
        if (yyjson_arr_size(path) == 0)
            return true;
    }
    return false;
}

int bly_proto_decode_config_read(yyjson_val *params, struct bly_config_params *ret,
                                 struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(params, "params", err);
    size_t len;
    const char *cwd = bly_decode_str(&d, "cwd", BLY_REQUIRED, &len);
    yyjson_val *config = bly_decode_array(&d, "configPaths", BLY_REQUIRED);
    yyjson_val *requirements = bly_decode_array(&d, "requirementsPaths", BLY_REQUIRED);
    bool foreign;

    check_key_paths(&d, "configPaths", config);
    check_key_paths(&d, "requirementsPaths", requirements);
    free(bly_decode_any_path(&d, cwd, len, &foreign));
    if (d.error < 0)
        return d.error;
    if (foreign) {
        err->kind = BLY_ERR_PARAMS;
        return -EINVAL;
    }
    ret->refusal = NULL;
    if (yyjson_arr_size(config) == 0 && yyjson_arr_size(requirements) == 0)
        ret->refusal = "at least one config or requirements path is required";
    else if (has_empty(config) || has_empty(requirements))
        ret->refusal = "TOML paths must contain at least one key segment";
    return 0;
}
