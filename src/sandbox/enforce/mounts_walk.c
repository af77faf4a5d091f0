/*
 * Paths below a descriptor. Steps come shallow first and then by name, so most of them are
 * neighbours. The directory of the one before is kept open, and a root costs a handful of system
 * calls however deep it lies.
 */
#include "sandbox/enforce/mounts_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"

/* bly_open_below() without openat2: no component but the last may be anything but a directory. */
static int walk_below(int root_fd, const char *path)
{
    int fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 3);

    while (fd >= 0 && *path != '\0') {
        size_t len = strcspn(path, "/");
        bool last = path[len] == '\0';
        char name[NAME_MAX + 1];
        int below;

        if (len >= sizeof(name))
            return bly_close(fd), errno = ENAMETOOLONG, -1;
        memcpy(name, path, len);
        name[len] = '\0';
        below = openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC | (last ? 0 : O_DIRECTORY));
        (void)bly_close(fd);
        fd = below;
        path += len + (last ? 0 : 1);
    }
    return fd;
}

int bly_open_below(int root_fd, const char *path)
{
    struct open_how how = {
        .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int fd;

    if (path[1] == '\0')
        return fcntl(root_fd, F_DUPFD_CLOEXEC, 3);
    fd = (int)syscall(SYS_openat2, root_fd, path + 1, &how, sizeof(how));
    /* Filters of container runtimes forbid what is newer than they are. */
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        fd = walk_below(root_fd, path + 1);
    return fd;
}

void bly_nearby_forget(struct bly_nearby *near)
{
    free(near->dir);
    near->dir = NULL;
    near->fd = bly_close(near->fd);
}

bool bly_nearby_is(const struct bly_nearby *near, const struct bly_step *step)
{
    size_t len = (size_t)(bly_path_base(step->path) - step->path);

    len = len > 1 ? len - 1 : 1; /* without the slash, if it is not all */
    return near->dir && near->on == step->on && strncmp(near->dir, step->path, len) == 0 &&
           near->dir[len] == '\0';
}

int bly_nearby_keep(struct bly_nearby *near, const struct bly_step *step, int fd)
{
    bly_nearby_forget(near);
    if (fd < 0)
        return -1;
    near->dir = bly_path_parent(step->path);
    near->on = step->on;
    near->fd = fd;
    if (near->dir)
        return fd;
    bly_nearby_forget(near);
    errno = ENOMEM;
    return -1;
}

int bly_nearby_open(struct bly_nearby *near, const struct bly_step *step, int root_fd)
{
    bly_autofree char *dir = NULL;

    if (bly_nearby_is(near, step))
        return near->fd;
    dir = bly_path_parent(step->path);
    return bly_nearby_keep(near, step, dir ? bly_open_below(root_fd, dir) : -1);
}
