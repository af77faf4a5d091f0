#include "sandbox/enforce/supervise_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/casefold.h"
#include "base/cleanup.h"

enum {
    MAX_LINKS = 40,    /* as the kernel, path_resolution(7) */
    PROC_ROOT_INO = 1, /* fs/proc: the root of every procfs */
};

/* ---- what the caller is and says ---- */

int bly_reported_refuse(const struct bly_reported *call, int r)
{
    call->supervisor->has_refused = true;
    return r;
}

bool bly_reported_still_waits(const struct bly_reported *call)
{
    uint64_t id = call->id;

    return ioctl(call->listener_fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

int bly_reported_open(const struct bly_reported *call, const char *what, int flags)
{
    char path[64];
    int fd;

    (void)snprintf(path, sizeof(path), "%d/%s", (int)call->tid, what);
    fd = openat(call->supervisor->proc_fd, path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int bly_reported_learn(struct bly_reported *call)
{
    bly_autofd int fd = bly_reported_open(call, "status", O_RDONLY);
    char text[2048];
    const char *line;
    ssize_t n;

    if (fd < 0)
        return fd;
    n = read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return -ESRCH;
    text[n] = '\0';
    line = strstr(text, "\nUmask:");
    if (!line)
        return -ESRCH;
    call->umask = (mode_t)strtoul(line + strlen("\nUmask:"), NULL, 8);
    line = strstr(text, "\nTgid:");
    if (!line)
        return -ESRCH;
    call->tgid = (pid_t)strtol(line + strlen("\nTgid:"), NULL, 10);
    return 0;
}

ssize_t bly_reported_memory(const struct bly_reported *call, uint64_t address, void *data,
                            size_t len)
{
    struct iovec local = {.iov_base = data, .iov_len = len};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = len};
    ssize_t n = process_vm_readv(call->tid, &local, 1, &remote, 1, 0);

    return n < 0 ? -errno : n;
}

int bly_reported_path(const struct bly_reported *call, uint64_t address,
                      char path[static BLY_PATH_ROOM])
{
    const size_t page = 4096;
    size_t len = 0;

    while (len < BLY_PATH_ROOM) {
        size_t step = page - (address + len) % page;
        ssize_t n;

        if (step > BLY_PATH_ROOM - len)
            step = BLY_PATH_ROOM - len;
        n = bly_reported_memory(call, address + len, path + len, step);
        if (n <= 0)
            return n == -EPERM || n == -ESRCH ? (int)n : -EFAULT;
        if (memchr(path + len, '\0', (size_t)n))
            return path[0] ? 0 : -ENOENT;
        len += (size_t)n;
    }
    return -ENAMETOOLONG;
}

/* Directory a relative path starts at, O_PATH. */
static int open_base(const struct bly_reported *call, int dirfd, const char *path)
{
    char what[32];
    int fd;

    if (path[0] == '/') {
        fd = fcntl(call->supervisor->root_fd, F_DUPFD_CLOEXEC, 3);
        return fd < 0 ? -errno : fd;
    }
    if (dirfd == AT_FDCWD)
        return bly_reported_open(call, "cwd", O_PATH | O_DIRECTORY);
    (void)snprintf(what, sizeof(what), "fd/%d", dirfd);
    fd = bly_reported_open(call, what, O_PATH);
    return fd == -ENOENT ? -EBADF : fd;
}

/* ---- the walk ---- */

void bly_goal_deinit(struct bly_goal *goal)
{
    goal->parent_fd = bly_close(goal->parent_fd);
    goal->target_fd = bly_close(goal->target_fd);
}

static bool is_on_proc(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

/* True when the descriptor lies below /proc/1: our own entries, which only we may look into. */
static bool is_ours(int fd)
{
    char link[32], path[64];
    ssize_t n;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    if (n < 0)
        return true;
    path[n] = '\0';
    return strcmp(path, "/proc/1") == 0 || strncmp(path, "/proc/1/", strlen("/proc/1/")) == 0;
}

/* Puts a link's text in front of what is left of the path. */
static int push_text(struct bly_goal *goal, const char *text)
{
    size_t text_len = strlen(text), rest_len = strlen(goal->rest);

    if (text_len + 1 + rest_len >= sizeof(goal->rest))
        return -ENAMETOOLONG;
    memmove(goal->rest + text_len + (rest_len > 0), goal->rest, rest_len + 1);
    memcpy(goal->rest, text, text_len);
    if (rest_len > 0)
        goal->rest[text_len] = '/';
    return 0;
}

static void move_to(struct bly_goal *goal, int fd)
{
    (void)bly_close(goal->parent_fd);
    goal->parent_fd = fd;
}

/*
 * A symlink at parent/name, seen as `fd`. Ordinary ones are text. On procfs "self" and
 * "thread-self" must name the caller, not us, and the other links are magic: the kernel has to
 * follow them, and *ret_object is what it found.
 */
static int follow_link(struct bly_reported *call, struct bly_goal *goal, int fd, const char *name,
                       int *ret_object)
{
    char text[BLY_PATH_ROOM];
    struct stat st;
    ssize_t n;

    if (++goal->n_links > MAX_LINKS)
        return -ELOOP;
    if (is_on_proc(goal->parent_fd)) {
        if (fstat(goal->parent_fd, &st) < 0)
            return -errno;
        if (st.st_ino != PROC_ROOT_INO) {
            int object;

            if (is_ours(goal->parent_fd))
                return bly_reported_refuse(call, -EACCES);
            object = openat(goal->parent_fd, name, O_PATH | O_CLOEXEC);
            if (object < 0)
                return -errno;
            *ret_object = object;
            return 0;
        }
        if (strcmp(name, "self") == 0) {
            (void)snprintf(text, sizeof(text), "%d", (int)call->tgid);
            return push_text(goal, text);
        }
        if (strcmp(name, "thread-self") == 0) {
            (void)snprintf(text, sizeof(text), "%d/task/%d", (int)call->tgid, (int)call->tid);
            return push_text(goal, text);
        }
    }
    n = readlinkat(fd, "", text, sizeof(text) - 1);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    if (text[0] == '/') {
        int root = fcntl(call->supervisor->root_fd, F_DUPFD_CLOEXEC, 3);

        if (root < 0)
            return -errno;
        move_to(goal, root);
    }
    return push_text(goal, text);
}

/* Cuts the first component off goal->rest. `*ret_last`: nothing but slashes follows. */
static int next_component(struct bly_goal *goal, char name[static NAME_MAX + 1], bool *ret_last,
                          bool *ret_slash)
{
    const char *start = goal->rest + strspn(goal->rest, "/");
    size_t len = strcspn(start, "/");
    const char *after = start + len, *more = after + strspn(after, "/");

    if (len > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(name, start, len);
    name[len] = '\0';
    *ret_slash = after[0] == '/';
    *ret_last = more[0] == '\0';
    memmove(goal->rest, more, strlen(more) + 1);
    return 0;
}

static void set_name(struct bly_goal *goal, const char *name, bool slash)
{
    (void)snprintf(goal->name, sizeof(goal->name), "%s%s", name, slash ? "/" : "");
}

/* An object reached by a magic link as the last component: it has no name of its own. */
static int end_at_object(struct bly_goal *goal, int object)
{
    goal->target_fd = object;
    goal->name[0] = '\0';
    return fstat(object, &goal->target) < 0 ? -errno : 0;
}

int bly_goal_find(struct bly_reported *call, int dirfd, const char *path, bool follow,
                  struct bly_goal *goal)
{
    (void)snprintf(goal->rest, sizeof(goal->rest), "%s", path);
    goal->parent_fd = open_base(call, dirfd, path);
    if (goal->parent_fd < 0)
        return goal->parent_fd;

    for (;;) {
        char name[NAME_MAX + 1];
        bool last, slash;
        int object = -EBADF;
        bly_autofd int fd = -EBADF;
        struct stat st;
        int r = next_component(goal, name, &last, &slash);

        if (r < 0)
            return r;
        if (name[0] == '\0') {
            /* The root itself, or a link that ended in a slash. */
            set_name(goal, ".", false);
            goal->target_fd = fcntl(goal->parent_fd, F_DUPFD_CLOEXEC, 3);
            return goal->target_fd < 0 || fstat(goal->target_fd, &goal->target) < 0 ? -errno : 0;
        }
        if (last && !follow) {
            set_name(goal, name, slash);
            return 0;
        }
        fd = openat(goal->parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT && last) {
            set_name(goal, name, slash);
            return 0;
        }
        if (fd < 0 || fstat(fd, &st) < 0)
            return -errno;
        if (S_ISLNK(st.st_mode)) {
            r = follow_link(call, goal, fd, name, &object);
            if (r < 0)
                return r;
            if (object >= 0 && last)
                return end_at_object(goal, object);
            if (object >= 0)
                move_to(goal, object);
            continue;
        }
        if (last) {
            set_name(goal, name, slash);
            goal->target_fd = bly_take_fd(&fd);
            goal->target = st;
            return 0;
        }
        if (!S_ISDIR(st.st_mode))
            return -ENOTDIR;
        move_to(goal, bly_take_fd(&fd));
    }
}

/* ---- the decision ---- */

static bool same_name(const struct bly_guard *guard, const char *name)
{
    size_t len = strcspn(name, "/");
    char key[NAME_MAX + 2];

    if (!guard->fold)
        return strlen(guard->name) == len && strncmp(guard->name, name, len) == 0;
    bly_casefold(name, len, key);
    return strcmp(guard->name, key) == 0;
}

int bly_goal_judge(const struct bly_reported *call, const struct bly_goal *goal)
{
    const struct bly_supervisor *supervisor = call->supervisor;
    struct stat st;

    if (fstat(goal->parent_fd, &st) < 0)
        return -errno;
    for (size_t i = 0; i < supervisor->n_guards; i++) {
        const struct bly_guard *guard = &supervisor->guards[i];

        if (guard->dev == st.st_dev && guard->ino == st.st_ino && same_name(guard, goal->name))
            return bly_reported_refuse(call, -EROFS);
    }
    return 0;
}

int bly_goal_find_new(struct bly_reported *call, int dirfd, uint64_t address, struct bly_goal *goal)
{
    char path[BLY_PATH_ROOM];
    int r = bly_reported_path(call, address, path);

    if (r < 0)
        return r;
    r = bly_goal_find(call, dirfd, path, false, goal);
    if (r < 0)
        return r;
    r = bly_goal_judge(call, goal);
    if (r < 0)
        return r;
    return bly_reported_still_waits(call) ? 0 : -ESRCH;
}
