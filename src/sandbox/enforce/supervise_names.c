#include "sandbox/enforce/supervise_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

static int result(int r)
{
    return r < 0 ? -errno : 0;
}

/* ---- calls that make names ---- */

int bly_on_mkdir(struct bly_reported *call, enum bly_shape shape)
{
    bly_autogoal struct bly_goal goal = BLY_GOAL_INIT;
    const int at = shape == BLY_SHAPE_AT ? 1 : 0;
    int r = bly_goal_find_new(call, bly_reported_dirfd(call, shape, 0), call->args[at], &goal);

    return r < 0 ? r : result(mkdirat(goal.parent_fd, goal.name, (mode_t)call->args[at + 1]));
}

int bly_on_mknod(struct bly_reported *call, enum bly_shape shape)
{
    bly_autogoal struct bly_goal goal = BLY_GOAL_INIT;
    const int at = shape == BLY_SHAPE_AT ? 1 : 0;
    int r = bly_goal_find_new(call, bly_reported_dirfd(call, shape, 0), call->args[at], &goal);

    return r < 0 ? r
                 : result(mknodat(goal.parent_fd, goal.name, (mode_t)call->args[at + 1],
                                  (dev_t)call->args[at + 2]));
}

int bly_on_symlink(struct bly_reported *call, enum bly_shape shape)
{
    bly_autogoal struct bly_goal goal = BLY_GOAL_INIT;
    const bool at = shape == BLY_SHAPE_AT;
    char text[BLY_PATH_ROOM];
    int r = bly_reported_path(call, call->args[0], text);

    if (r < 0)
        return r;
    r = bly_goal_find_new(call, bly_reported_dirfd(call, shape, 1), call->args[at ? 2 : 1], &goal);
    return r < 0 ? r : result(symlinkat(text, goal.parent_fd, goal.name));
}

int bly_on_rename(struct bly_reported *call, enum bly_shape shape)
{
    bly_autogoal struct bly_goal from = BLY_GOAL_INIT, to = BLY_GOAL_INIT;
    const bool at = shape == BLY_SHAPE_AT;
    char path[BLY_PATH_ROOM];
    unsigned flags;
    int r = bly_reported_path(call, call->args[at ? 1 : 0], path);

    if (r < 0)
        return r;
    r = bly_goal_find(call, bly_reported_dirfd(call, shape, 0), path, false, &from);
    if (r < 0)
        return r;
    r = bly_goal_find_new(call, bly_reported_dirfd(call, shape, 2), call->args[at ? 3 : 1], &to);
    if (r < 0)
        return r;
    flags = call->nr == SYS_renameat2 ? (unsigned)call->args[4] : 0;
    return result(renameat2(from.parent_fd, from.name, to.parent_fd, to.name, flags));
}

int bly_on_link(struct bly_reported *call, enum bly_shape shape)
{
    bly_autogoal struct bly_goal from = BLY_GOAL_INIT, to = BLY_GOAL_INIT;
    const bool at = shape == BLY_SHAPE_AT;
    const unsigned flags = at ? (unsigned)call->args[4] : 0;
    char path[BLY_PATH_ROOM], object[32];
    int r;

    if (flags & ~(unsigned)(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    /* AT_EMPTY_PATH wants CAP_DAC_READ_SEARCH, which nobody has in here; the kernel says ENOENT. */
    r = bly_reported_path(call, call->args[at ? 1 : 0], path);
    if (r < 0)
        return r;
    r = bly_goal_find(call, bly_reported_dirfd(call, shape, 0), path,
                      (flags & AT_SYMLINK_FOLLOW) != 0, &from);
    if (r < 0)
        return r;
    r = bly_goal_find_new(call, bly_reported_dirfd(call, shape, 2), call->args[at ? 3 : 1], &to);
    if (r < 0)
        return r;
    if (!(flags & AT_SYMLINK_FOLLOW))
        return result(linkat(from.parent_fd, from.name, to.parent_fd, to.name, 0));
    if (from.target_fd < 0)
        return -ENOENT;
    (void)snprintf(object, sizeof(object), "/proc/self/fd/%d", from.target_fd);
    return result(linkat(AT_FDCWD, object, to.parent_fd, to.name, AT_SYMLINK_FOLLOW));
}

/* ---- bind ---- */

/* The caller's socket itself: a bind on our own duplicate is a bind of the one socket. */
static int socket_of_caller(const struct bly_reported *call, int fd)
{
    bly_autofd int pidfd = (int)syscall(SYS_pidfd_open, call->tgid, 0);
    int copy;

    if (pidfd < 0)
        return -errno;
    copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    return copy < 0 ? -errno : copy;
}

static int bind_path(struct bly_reported *call, int fd, const char *path)
{
    bly_autogoal struct bly_goal goal = BLY_GOAL_INIT;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n, r = bly_goal_find(call, AT_FDCWD, path, false, &goal);

    if (r < 0)
        return r;
    r = bly_goal_judge(call, &goal);
    if (r < 0)
        return r;
    n = snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", goal.parent_fd,
                 goal.name);
    if (n < 0 || (size_t)n >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    return result(bind(fd, (const struct sockaddr *)&address, sizeof(address)));
}

int bly_on_bind(struct bly_reported *call, enum bly_shape shape)
{
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        char bytes[sizeof(struct sockaddr_storage) + 1];
    } address = {0};
    const size_t len = (uint32_t)call->args[2];
    bly_autofd int fd = -EBADF;
    ssize_t n;

    (void)shape;
    if (len > sizeof(struct sockaddr_storage))
        return -EINVAL;
    n = bly_reported_memory(call, call->args[1], address.bytes, len);
    if (n < 0 || (size_t)n != len)
        return -EFAULT;
    fd = socket_of_caller(call, (int)call->args[0]);
    if (fd < 0)
        return fd;
    if (!bly_reported_still_waits(call))
        return -ESRCH;
    if (len > offsetof(struct sockaddr_un, sun_path) && address.any.sa_family == AF_UNIX &&
        address.local.sun_path[0] != '\0')
        return bind_path(call, fd, address.local.sun_path);
    return result(bind(fd, &address.any, (socklen_t)len));
}
