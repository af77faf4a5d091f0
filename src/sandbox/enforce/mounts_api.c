/* The kernel's mount API: file systems that are nowhere yet, their attributes, their place. */
#include "sandbox/enforce/mounts_internal.h"

#include <fcntl.h>

#include "base/cleanup.h"
#include "base/err.h"

int bly_mounts_set_attributes(int tree_fd, uint64_t set, bool recursive)
{
    struct mount_attr attr = {.attr_set = set};

    return mount_setattr(tree_fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr,
                         sizeof(attr));
}

int bly_mounts_attach(int tree_fd, int fd, const char *name)
{
    return move_mount(tree_fd, "", fd, name,
                      MOVE_MOUNT_F_EMPTY_PATH | (*name ? 0 : MOVE_MOUNT_T_EMPTY_PATH));
}

int bly_mounts_make_fs(const char *type, const struct bly_mount_option *options,
                       unsigned attributes, int *ret_fd, struct bly_err *err)
{
    bly_autofd int fs_fd = fsopen(type, FSOPEN_CLOEXEC);
    int fd;

    if (fs_fd < 0)
        return bly_fail_sys(err, errno, "cannot open a new %s", type);
    for (; options && options->key; options++)
        if (fsconfig(fs_fd, FSCONFIG_SET_STRING, options->key, options->value, 0) < 0)
            return bly_fail_sys(err, errno, "cannot set %s of a new %s", options->key, type);
    if (fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return bly_fail_sys(err, errno, "cannot make a new %s", type);
    fd = fsmount(fs_fd, FSMOUNT_CLOEXEC, attributes);
    if (fd < 0)
        return bly_fail_sys(err, errno, "cannot mount a new %s", type);
    *ret_fd = fd;
    return 0;
}
