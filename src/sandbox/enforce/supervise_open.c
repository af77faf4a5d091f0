#include "sandbox/enforce/supervise_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
    LOST_RACE = BLY_ANSWERED + 1,
    MAX_TRIES = 16, /* lost races of one open before EAGAIN */
};

struct open_call {
    int dirfd;
    int flags;
    mode_t mode;
    char path[BLY_PATH_ROOM];
};

static int send_fd(const struct bly_reported *call, int fd, int flags)
{
    struct seccomp_notif_addfd add = {
        .id = call->id,
        .flags = SECCOMP_ADDFD_FLAG_SEND,
        .srcfd = (uint32_t)fd,
        .newfd_flags = (flags & O_CLOEXEC) ? O_CLOEXEC : 0,
    };

    if (ioctl(call->listener_fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add) >= 0 || errno == ENOENT)
        return BLY_ANSWERED;
    return -errno;
}

/* A slot among the opens that wait, or NULL when all are taken. A process that is gone has left its
 * slot. */
static pid_t *free_slot(struct bly_supervisor *supervisor)
{
    for (size_t i = 0; i < BLY_MAX_BLOCKED; i++) {
        pid_t *slot = &supervisor->blocked[i];

        if (*slot == 0 || (kill(*slot, 0) < 0 && errno == ESRCH))
            return slot;
    }
    return NULL;
}

/*
 * Opening a FIFO waits for its other end, and we must not: a child of ours does it. It is reaped by
 * pid 1's own loop and dies with the wall at the latest.
 */
static int open_waiting(struct bly_reported *call, const char *object, int flags)
{
    pid_t *slot = free_slot(call->supervisor);
    pid_t pid;

    if (!slot)
        return -ENFILE;
    pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        int fd = open(object, flags | O_CLOEXEC);
        int r = fd < 0 ? -errno : send_fd(call, fd, flags);

        if (r < 0)
            (void)bly_reported_answer(call, r);
        _exit(0);
    }
    *slot = pid;
    return BLY_ANSWERED;
}

/*
 * /dev/tty means the terminal of whoever opens it. Ours is none, so it is found among the caller's
 * standard descriptors.
 */
static int open_terminal(const struct bly_reported *call, int flags)
{
    for (int i = 0; i < 3; i++) {
        char what[32], object[64];
        bly_autofd int fd = -EBADF;
        struct stat st;

        (void)snprintf(what, sizeof(what), "fd/%d", i);
        fd = bly_reported_open(call, what, O_PATH);
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || major(st.st_rdev) < 136 ||
            major(st.st_rdev) >
                143) /* Unix98 pseudo-terminals, Documentation/admin-guide/devices.txt */
            continue;
        (void)snprintf(object, sizeof(object), "/proc/self/fd/%d", fd);
        return open(object, flags | O_NOCTTY | O_CLOEXEC);
    }
    errno = ENXIO;
    return -1;
}

static int open_existing(struct bly_reported *call, const struct open_call *open_call,
                         struct bly_goal *goal)
{
    const int flags = (open_call->flags & ~(O_CREAT | O_NOFOLLOW)) | O_NOCTTY;
    char object[32];
    bly_autofd int fd = -EBADF;

    if (open_call->flags & O_EXCL)
        return -EEXIST;
    if (S_ISLNK(goal->target.st_mode))
        return -ELOOP;
    if (S_ISDIR(goal->target.st_mode))
        return -EISDIR;

    (void)snprintf(object, sizeof(object), "/proc/self/fd/%d", goal->target_fd);
    if (S_ISFIFO(goal->target.st_mode) && !(flags & O_NONBLOCK))
        return open_waiting(call, object, flags);
    if (S_ISCHR(goal->target.st_mode) && goal->target.st_rdev == makedev(5, 0))
        fd = open_terminal(call, flags);
    else
        fd = open(object, flags | O_CLOEXEC);
    return fd < 0 ? -errno : send_fd(call, fd, open_call->flags);
}

static int open_new(struct bly_reported *call, const struct open_call *open_call,
                    struct bly_goal *goal)
{
    bly_autofd int fd = -EBADF;
    int r = bly_goal_judge(call, goal);

    if (r < 0)
        return r;
    if (!bly_reported_still_waits(call))
        return -ESRCH;
    /* O_EXCL: what appeared meanwhile, a link above all, has not been judged. */
    fd = openat(goal->parent_fd, goal->name,
                open_call->flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC,
                open_call->mode);
    if (fd >= 0)
        return send_fd(call, fd, open_call->flags);
    return errno == EEXIST && !(open_call->flags & O_EXCL) ? LOST_RACE : -errno;
}

static int open_once(struct bly_reported *call, const struct open_call *open_call)
{
    bly_autogoal struct bly_goal goal = BLY_GOAL_INIT;
    const bool follow = !(open_call->flags & (O_NOFOLLOW | O_EXCL));
    int r = bly_goal_find(call, open_call->dirfd, open_call->path, follow, &goal);

    if (r < 0)
        return r;
    if (strchr(goal.name, '/'))
        return -EISDIR;
    if (!follow) {
        goal.target_fd = openat(goal.parent_fd, goal.name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (goal.target_fd < 0 && errno != ENOENT)
            return -errno;
        if (goal.target_fd >= 0 && fstat(goal.target_fd, &goal.target) < 0)
            return -errno;
    }
    return goal.target_fd >= 0 ? open_existing(call, open_call, &goal)
                               : open_new(call, open_call, &goal);
}

int bly_on_open(struct bly_reported *call, enum bly_shape shape)
{
    const int at = shape == BLY_SHAPE_AT ? 1 : 0;
    struct open_call open_call = {.dirfd = bly_reported_dirfd(call, shape, 0)};
    int r = bly_reported_path(call, call->args[at], open_call.path);

    if (r < 0)
        return r;
#ifdef SYS_creat
    if (call->nr == SYS_creat) {
        open_call.flags = O_CREAT | O_WRONLY | O_TRUNC;
        open_call.mode = (mode_t)call->args[1];
    } else
#endif
    {
        open_call.flags = (int)call->args[at + 1];
        open_call.mode = (mode_t)call->args[at + 2];
    }
    /* With O_PATH nothing is ever created (open(2)), so this cannot come from a program that means
     * it. */
    if (open_call.flags & O_PATH)
        return -EINVAL;
    open_call.mode &= 07777;

    for (unsigned i = 0; i < MAX_TRIES; i++) {
        r = open_once(call, &open_call);
        if (r != LOST_RACE)
            return r;
    }
    return -EAGAIN;
}
