#pragma once

/*
 * One request, carried out here and now: what the pool threads, the warm helper and the one-shot
 * helper have in common. Blocking, any thread.
 */
#include <stddef.h>

#include "fs/ops.h"

enum { BLY_FS_LIST_BYTES = 64 << 20 }; /* of a listing, in the form of struct bly_fs_reply */

/*
 * Decodes the payload of a write in place (request->base64 then holds `*ret_len` bytes of data).
 * -EINVAL with the text and the kind the method wants.
 */
int bly_fs_decode(struct bly_fs_request *request, size_t *ret_len, struct bly_err *err);

/*
 * Carries out `request` into `reply`, which need not be initialised and must be given to
 * bly_fs_reply_deinit() afterwards. Returns what the reply says: 0 or a negative errno.
 */
int bly_fs_run(const struct bly_view *view, struct bly_fs_request *request,
               struct bly_fs_reply *reply);
