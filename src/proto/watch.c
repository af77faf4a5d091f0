#include "proto/proto.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "proto/decode.h"
#include "proto/encode.h"
#include "rpc/rpc.h"

static char *decode_path(struct bly_decoder *d, struct bly_watch_params *p, const char *text,
                         size_t len)
{
    bool foreign;
    char *path = bly_decode_any_path(d, text, len, &foreign);

    p->hopeless |= foreign;
    return path;
}

/* All of them are read, also when there are too many: what cannot be decoded is an error first. */
static void decode_missing(struct bly_decoder *d, yyjson_val *list, struct bly_watch_params *p)
{
    yyjson_val *item;
    size_t i, n;

    yyjson_arr_foreach (list, i, n, item) {
        char *path;

        if (!yyjson_is_str(item))
            bly_decode_mistyped(d, "missing", item, "a string");
        if (d->error < 0)
            return;
        path = decode_path(d, p, yyjson_get_str(item), yyjson_get_len(item));
        if (path && p->n_missing < BLY_MISSING_PATHS_MAX)
            p->missing[p->n_missing++] = path;
        else
            free(path);
    }
}

int bly_proto_decode_watch(yyjson_val *params, struct bly_watch_params *ret, struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(params, "params", err);
    yyjson_val *missing;
    const char *present;
    size_t len;

    *ret = (struct bly_watch_params){.watch_id = bly_decode_u64(&d, "watchId", BLY_REQUIRED, 0)};
    missing = bly_decode_array(&d, "missing", BLY_REQUIRED);
    present = bly_decode_str(&d, "present", BLY_OPTIONAL, &len);
    if (d.error < 0)
        return d.error;

    ret->hopeless =
        yyjson_arr_size(missing) < 1 || yyjson_arr_size(missing) > BLY_MISSING_PATHS_MAX;
    decode_missing(&d, missing, ret);
    ret->present = decode_path(&d, ret, present, len);
    if (d.error < 0)
        bly_watch_params_deinit(ret);
    return d.error;
}

void bly_watch_params_deinit(struct bly_watch_params *params)
{
    for (size_t i = 0; i < params->n_missing; i++)
        free(params->missing[i]);
    free(params->present);
    memset(params, 0, sizeof(*params));
}

int bly_proto_add_missing_changed(struct bly_buf *buf, uint64_t watch_id)
{
    bly_rpc_begin_notification(buf, "fs/missingChanged");
    BLY_ADD(buf, "{\"watchId\":");
    bly_json_add_u64(buf, watch_id);
    BLY_ADD(buf, "}");
    return bly_rpc_end(buf);
}
