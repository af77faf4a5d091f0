#include "server/http_library.h"

#include <assert.h>
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"

enum { VERSION_MIN = 0x075500 }; /* 7.85: protocols as text */

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
    {"curl_global_init", offsetof(struct bly_http_library, global_init)},
    {"curl_global_cleanup", offsetof(struct bly_http_library, global_cleanup)},
    {"curl_version_info", offsetof(struct bly_http_library, version_info)},
    {"curl_easy_init", offsetof(struct bly_http_library, easy_init)},
    {"curl_easy_cleanup", offsetof(struct bly_http_library, easy_cleanup)},
    {"curl_easy_setopt", offsetof(struct bly_http_library, easy_setopt)},
    {"curl_easy_getinfo", offsetof(struct bly_http_library, easy_getinfo)},
    {"curl_easy_pause", offsetof(struct bly_http_library, easy_pause)},
    {"curl_easy_strerror", offsetof(struct bly_http_library, easy_strerror)},
    {"curl_multi_init", offsetof(struct bly_http_library, multi_init)},
    {"curl_multi_cleanup", offsetof(struct bly_http_library, multi_cleanup)},
    {"curl_multi_setopt", offsetof(struct bly_http_library, multi_setopt)},
    {"curl_multi_add_handle", offsetof(struct bly_http_library, multi_add_handle)},
    {"curl_multi_remove_handle", offsetof(struct bly_http_library, multi_remove_handle)},
    {"curl_multi_socket_action", offsetof(struct bly_http_library, multi_socket_action)},
    {"curl_multi_assign", offsetof(struct bly_http_library, multi_assign)},
    {"curl_multi_info_read", offsetof(struct bly_http_library, multi_info_read)},
    {"curl_slist_append", offsetof(struct bly_http_library, slist_append)},
    {"curl_slist_free_all", offsetof(struct bly_http_library, slist_free_all)},
};

static int load(struct bly_http_library *library, struct bly_err *err)
{
    /* Debian and Ubuntu call the two flavours so; the first is the one with OpenSSL. */
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};

    for (size_t i = 0; i < BLY_LEN(names) && !library->object; i++)
        library->object = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library->object)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOENT,
                        "http/request needs libcurl.so.4 (Debian package libcurl4 or libcurl4t64)");
    for (size_t i = 0; i < BLY_LEN(symbols); i++) {
        void *symbol = dlsym(library->object, symbols[i].name);

        if (!symbol)
            return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOSYS, "this libcurl has no %s",
                            symbols[i].name);
        memcpy((char *)library + symbols[i].offset, &symbol, sizeof(symbol));
    }
    return 0;
}

static int check(const struct bly_http_library *library, struct bly_err *err)
{
    const curl_version_info_data *info = library->version_info(CURLVERSION_NOW);

    if (info->version_num < VERSION_MIN)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOSYS,
                        "http/request needs libcurl 7.85 or newer, not %s", info->version);
    if (!(info->features & CURL_VERSION_ASYNCHDNS))
        return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOSYS,
                        "this libcurl looks up names while everything else waits");
    return 0;
}

int bly_http_library_open(struct bly_http_library **ret_library, struct bly_err *err)
{
    bly_autofree struct bly_http_library *library = calloc(1, sizeof(*library));
    int r;

    if (!library)
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    r = load(library, err);
    if (r < 0)
        return r;
    assert(library->version_info && library->global_init); /* load() has found every symbol */
    r = check(library, err);
    if (r < 0)
        return r;
    if (library->global_init(CURL_GLOBAL_ALL) != CURLE_OK)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, EIO, "libcurl cannot be initialised");
    *ret_library = bly_take_ptr(&library);
    return 0;
}

struct bly_http_library *bly_http_library_free(struct bly_http_library *library)
{
    if (library)
        library->global_cleanup();
    free(library);
    return NULL;
}
