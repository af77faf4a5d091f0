#include "fs/oneshot.h"

#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/err.h"

void bly_fs_reply_init(struct bly_fs_reply *reply)
{
    bly_err_clear(&reply->err);
    reply->text_mem = NULL;
    reply->text_len = 0;
    reply->eof = false;
    reply->too_long = 0;
    reply->metadata = (struct bly_fs_metadata){0};
    bly_buf_init(&reply->entries, BLY_FS_LIST_BYTES);
    reply->n_entries = 0;
    reply->truncated = false;
    reply->path = NULL;
    reply->fd = -EBADF;
}

void bly_fs_reply_deinit(struct bly_fs_reply *reply)
{
    bly_freep(&reply->text_mem);
    bly_buf_deinit(&reply->entries);
    bly_freep(&reply->path);
    bly_closep(&reply->fd);
}

int bly_fs_decode(struct bly_fs_request *request, size_t *ret_len, struct bly_err *err)
{
    struct bly_base64_error error;
    char text[128];

    if (bly_base64_decode(request->base64, request->base64_len, request->base64, ret_len, &error) ==
        0)
        return 0;
    bly_base64_error_text(&error, text, sizeof text);
    if (request->op == BLY_FS_WRITE_BLOCK)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "%s", text);
    return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                    "fs/writeFile requires valid base64 dataBase64: %s", text);
}

static int read_file(const struct bly_view *view, const struct bly_fs_request *request,
                     struct bly_fs_reply *reply)
{
    bly_autofd int fd = -EBADF;
    uint64_t size;
    int r = bly_ops_open_read(view, request->path, request->no_follow, &fd, &size, &reply->err);

    return r < 0 ? r
                 : bly_ops_read_base64(view, fd, size, request->max_text_bytes, &reply->text_mem,
                                       &reply->text_len, &reply->too_long, &reply->err);
}

static int write_file(const struct bly_view *view, struct bly_fs_request *request,
                      struct bly_fs_reply *reply)
{
    size_t len;
    int r = bly_fs_decode(request, &len, &reply->err);

    return r < 0 ? r
                 : bly_ops_write_file(view, request->path, request->no_follow, request->base64, len,
                                      &reply->err);
}

static int write_block(struct bly_fs_request *request, struct bly_fs_reply *reply)
{
    size_t len;
    int r = bly_fs_decode(request, &len, &reply->err);

    return r < 0 ? r
                 : bly_ops_write_block(request->fd, request->offset, request->base64, len,
                                       &reply->err);
}

static int open_file(const struct bly_view *view, const struct bly_fs_request *request,
                     struct bly_fs_reply *reply)
{
    uint64_t size;

    if (request->replace)
        return bly_ops_open_replace(view, request->path, request->no_follow, &reply->fd,
                                    &reply->err);
    return bly_ops_open_read(view, request->path, request->no_follow, &reply->fd, &size,
                             &reply->err);
}

int bly_fs_run(const struct bly_view *view, struct bly_fs_request *request,
               struct bly_fs_reply *reply)
{
    struct bly_err *err = &reply->err;

    bly_fs_reply_init(reply);
    switch (request->op) {
    case BLY_FS_READ_FILE:
        return read_file(view, request, reply);
    case BLY_FS_WRITE_FILE:
        return write_file(view, request, reply);
    case BLY_FS_CREATE_DIRECTORY:
        return bly_ops_create_directory(view, request->path, request->recursive, request->no_follow,
                                        err);
    case BLY_FS_GET_METADATA:
        return bly_ops_metadata(view, request->path, request->no_follow, &reply->metadata, err);
    case BLY_FS_READ_DIRECTORY:
        return bly_ops_read_directory(view, request->path, &reply->entries, &reply->n_entries, err);
    case BLY_FS_REMOVE:
        return bly_ops_remove(view, request->path, request->recursive, request->force,
                              request->no_follow, err);
    case BLY_FS_COPY:
        return bly_ops_copy(view, request->path, request->destination_path, request->recursive,
                            err);
    case BLY_FS_CANONICALIZE:
        return bly_ops_canonicalize(view, request->path, &reply->path, err);
    case BLY_FS_WALK:
        return bly_ops_walk(view, request->path, &request->walk, &reply->entries, &reply->n_entries,
                            &reply->truncated, err);
    case BLY_FS_OPEN:
        return open_file(view, request, reply);
    case BLY_FS_READ_BLOCK:
        return bly_ops_read_block(request->fd, request->offset, request->len, &reply->text_mem,
                                  &reply->text_len, &reply->eof, err);
    case BLY_FS_WRITE_BLOCK:
        return write_block(request, reply);
    }
    return bly_fail(err, BLY_ERR_BUG, EINVAL, "unknown file operation");
}
