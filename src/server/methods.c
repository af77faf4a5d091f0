#include <string.h>

#include "base/cleanup.h"
#include "server/internal.h"

enum {
    HANDSHAKE = BLY_METHOD_HANDSHAKE,
    CHANGES = BLY_METHOD_ORDERED,
    CHANGES_TREES = BLY_METHOD_ORDERED | BLY_METHOD_STOPS, /* and may take very long */
    READS = BLY_METHOD_ORDERED | BLY_METHOD_READS | BLY_METHOD_STOPS,
    AT_ONCE = 0,
    PAYLOAD = BLY_METHOD_PAYLOAD,
    IF_ALLOWED = BLY_METHOD_HTTP,
};

#define FS(name, op, flags)                                                                   \
    {                                                                                         \
        name, "filesystem", bly_decode_fs, bly_admit_fs, bly_run_fs, bly_deinit_fs, op, flags \
    }

const struct bly_method bly_methods[] = {
    {"initialize", NULL, bly_decode_initialize, NULL, bly_run_initialize, NULL, 0, HANDSHAKE},
    {"environment/info", "environment info", bly_decode_nothing, NULL, bly_run_environment_info,
     NULL, 0, AT_ONCE},
    {"environment/status", "environment status", bly_decode_nothing, NULL,
     bly_run_environment_status, NULL, 0, AT_ONCE},
    {"process/start", "exec", bly_decode_start, bly_admit_start, bly_run_start, bly_deinit_start, 0,
     CHANGES | PAYLOAD},
    {"process/read", "exec", bly_decode_read, NULL, bly_run_read, NULL, 0, AT_ONCE},
    {"process/write", "exec", bly_decode_write, NULL, bly_run_write, NULL, 0, PAYLOAD},
    {"process/terminate", "exec", bly_decode_terminate, NULL, bly_run_terminate, NULL, 0, AT_ONCE},
    {"process/signal", "exec", bly_decode_signal, NULL, bly_run_signal, NULL, 0, AT_ONCE},
    FS("fs/readFile", BLY_FS_READ_FILE, READS),
    FS("fs/writeFile", BLY_FS_WRITE_FILE, CHANGES | PAYLOAD),
    FS("fs/createDirectory", BLY_FS_CREATE_DIRECTORY, CHANGES),
    FS("fs/getMetadata", BLY_FS_GET_METADATA, READS),
    FS("fs/readDirectory", BLY_FS_READ_DIRECTORY, READS),
    FS("fs/remove", BLY_FS_REMOVE, CHANGES_TREES),
    FS("fs/copy", BLY_FS_COPY, CHANGES_TREES),
    FS("fs/canonicalize", BLY_FS_CANONICALIZE, READS),
    FS("fs/walk", BLY_FS_WALK, READS),
    FS("fs/open", BLY_FS_OPEN, CHANGES), /* makes a handle that the next request may use */
    FS("fs/readBlock", BLY_FS_READ_BLOCK, READS),
    FS("fs/writeBlock", BLY_FS_WRITE_BLOCK, CHANGES),
    {"fs/watchMissing", "filesystem", bly_decode_watch, NULL, bly_run_watch, bly_deinit_watch, 0,
     AT_ONCE},
    {"fs/close", "filesystem", bly_decode_close, NULL, bly_run_close, bly_deinit_fs, 0, AT_ONCE},
    {"http/request", "http", bly_decode_http, bly_admit_http, bly_run_http, bly_deinit_http, 0,
     AT_ONCE | IF_ALLOWED},
    {"capabilityRoots/discoverV1", "capability discovery", bly_decode_discover, NULL,
     bly_run_discover, bly_deinit_discover, 0, READS},
    {"capabilities/discoverV2", "capability discovery", bly_decode_discover_installed, NULL,
     bly_run_discover_installed, NULL, 0, AT_ONCE},
    {"environmentConfig/read", "environment config", bly_decode_config_read, bly_admit_config_read,
     bly_run_config_read, NULL, 0, AT_ONCE},
};
const size_t bly_method_count = BLY_LEN(bly_methods);

const struct bly_method *bly_method_find(const char *name, size_t len)
{
    for (size_t i = 0; i < bly_method_count; i++)
        if (strlen(bly_methods[i].name) == len && memcmp(bly_methods[i].name, name, len) == 0)
            return &bly_methods[i];
    return NULL;
}
