#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/limits.h"
#include "server/internal.h"

struct bly_handle *bly_handle_find(const struct bly_connection *connection, const char *id,
                                   size_t len)
{
    struct bly_handle *handle;

    LIST_FOREACH(handle, &connection->handles, link)
    if (handle->id_len == len && memcmp(handle->id, id, len) == 0)
        return handle;
    return NULL;
}

int bly_handle_reserve(struct bly_connection *connection, const char *id, size_t len,
                       struct bly_handle **ret_handle, struct bly_err *err)
{
    uint64_t limit = connection->server->config.limits->file_handles;
    struct bly_handle *handle;

    if (len > BLY_HANDLE_ID_MAX)
        return bly_fail(err, BLY_ERR_INVALID, ENAMETOOLONG,
                        "file handle ID must not exceed %d bytes", BLY_HANDLE_ID_MAX);
    if (bly_handle_find(connection, id, len))
        return bly_fail(err, BLY_ERR_INVALID, EEXIST, "file handle `%.*s` already exists", (int)len,
                        id);
    if (connection->n_handles >= limit)
        return bly_fail(err, BLY_ERR_INVALID, EMFILE,
                        "at most %llu file handles may be open per connection",
                        (unsigned long long)limit);

    handle = calloc(1, sizeof(*handle));
    if (!handle)
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    handle->fd = -EBADF;
    handle->refs = 1;
    handle->named = true;
    handle->id_len = len;
    if (len)
        memcpy(handle->id, id, len);
    LIST_INSERT_HEAD(&connection->handles, handle, link);
    connection->n_handles++;
    *ret_handle = handle;
    return 0;
}

void bly_handle_forget(struct bly_connection *connection, struct bly_handle *handle)
{
    if (!handle->named)
        return;
    handle->named = false;
    LIST_REMOVE(handle, link);
    connection->n_handles--;
    bly_handle_unref(handle);
}

struct bly_handle *bly_handle_ref(struct bly_handle *handle)
{
    handle->refs++;
    return handle;
}

struct bly_handle *bly_handle_unref(struct bly_handle *handle)
{
    if (handle && --handle->refs == 0) {
        bly_close(handle->fd);
        free(handle);
    }
    return NULL;
}
