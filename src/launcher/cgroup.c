#include "launcher/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"

enum { NAME_TRIES = 8, NAME_SIZE = 64, TRIAL = 0 };
enum { DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

static const char self_name[] = "self";

/* ---- the files of a group ------------------------------------------------------------------- */

static int put(int group_fd, const char *file, const char *text)
{
    bly_autofd int fd = openat(group_fd, file, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return -errno;
    return 0;
}

static int put_number(int group_fd, const char *file, uint64_t number)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%" PRIu64, number);
    return put(group_fd, file, text);
}

/* Whether `word` is in a file of words. */
static bool says(int group_fd, const char *file, const char *word)
{
    bly_autofd int fd = openat(group_fd, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    char text[1024];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    char *rest = NULL;

    text[n < 0 ? 0 : n] = '\0';
    for (char *at = strtok_r(text, " \n", &rest); at != NULL; at = strtok_r(NULL, " \n", &rest))
        if (strcmp(at, word) == 0)
            return true;
    return false;
}

/* ---- walls ---------------------------------------------------------------------------------- */

static void wall_name(pid_t owner, uint64_t n, char name[NAME_SIZE])
{
    (void)snprintf(name, NAME_SIZE, "wall-%d-%" PRIu64, (int)owner, n);
}

static int set_max(int group_fd, const struct bly_cgroup_max *max, struct bly_err *err)
{
    int r = max->tasks > 0 ? put_number(group_fd, "pids.max", max->tasks) : 0;

    if (r < 0)
        return bly_fail_sys(err, -r, "cannot write pids.max");
    if (max->memory_bytes == 0)
        return 0;
    r = put_number(group_fd, "memory.max", max->memory_bytes);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot write memory.max");
    /* Or the bound would be that and all of the swap. Absent where swap is not accounted for. */
    (void)put(group_fd, "memory.swap.max", "0");
    return 0;
}

int bly_cgroup_add(int fd, uint64_t n, const struct bly_cgroup_max *max, int *ret_fd,
                   struct bly_err *err)
{
    bly_autofd int group_fd = -EBADF;
    char name[NAME_SIZE];
    int r;

    wall_name(getpid(), n, name);
    if (mkdirat(fd, name, 0755) < 0)
        return bly_fail_sys(err, errno, "cannot make a cgroup");
    group_fd = openat(fd, name, DIR_FLAGS);
    r = group_fd < 0 ? bly_fail_sys(err, errno, "cannot open a cgroup")
                     : set_max(group_fd, max, err);
    if (r < 0) {
        (void)unlinkat(fd, name, AT_REMOVEDIR);
        return r;
    }
    *ret_fd = bly_take_fd(&group_fd);
    return 0;
}

pid_t bly_cgroup_clone(int group_fd, uint64_t flags)
{
    struct clone_args args = {
        .flags = flags | CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)group_fd};

    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

int bly_cgroup_remove(int fd, uint64_t n)
{
    bly_autofd int group_fd = -EBADF;
    char name[NAME_SIZE];

    wall_name(getpid(), n, name);
    group_fd = openat(fd, name, DIR_FLAGS);
    if (group_fd >= 0)
        (void)put(group_fd, "cgroup.kill", "1"); /* Linux 5.14; before it the pid namespace did. */
    return unlinkat(fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* The owner in the name of a wall's group; 0 when it is none. */
static pid_t owner_of(const char *name)
{
    int owner = 0;

    return sscanf(name, "wall-%d-", &owner) == 1 && owner > 0 ? (pid_t)owner : 0;
}

/* A stream of its own position over the same directory. */
static DIR *list(int fd)
{
    int copy = openat(fd, ".", DIR_FLAGS);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);

    if (dir == NULL)
        (void)bly_close(copy);
    return dir;
}

bool bly_cgroup_sweep(int fd, bool (*keep)(void *arg, pid_t owner), void *arg)
{
    DIR *dir = list(fd);
    bool left = false;

    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        pid_t owner = owner_of(e->d_name);

        if (owner == 0 || (keep != NULL && keep(arg, owner)))
            continue;
        left |= unlinkat(fd, e->d_name, AT_REMOVEDIR) < 0 && errno == EBUSY;
    }
    if (dir != NULL)
        (void)closedir(dir);
    return left;
}

/* ---- finding and dividing the delegated group ----------------------------------------------- */

/* Where this process is, below the mount of cgroup v2. */
static int open_own(char path[4096], struct bly_err *err)
{
    static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    bly_autofd int file = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    char text[4096] = "\n";
    ssize_t n = file < 0 ? -1 : read(file, text + 1, sizeof(text) - 2);
    char *own = NULL;

    text[n < 0 ? 1 : n + 1] = '\0';
    own = strstr(text, "\n0::/");
    if (own == NULL)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOTSUP, "there is no cgroup v2");
    own += 4;
    own[strcspn(own, "\n")] = '\0';
    for (size_t i = 0; i < BLY_LEN(mounts); i++) {
        struct statfs fs;
        int fd;

        if (statfs(mounts[i], &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
            continue;
        (void)snprintf(path, 4096, "%s%s", mounts[i], own);
        fd = open(path, DIR_FLAGS);
        return fd < 0 ? bly_fail_sys(err, errno, "cannot open our own cgroup %s", own) : fd;
    }
    return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOTSUP,
                    "cgroup v2 is not mounted on /sys/fs/cgroup");
}

/* An ordinary user can only write to what was given to him; root can write everywhere, so there the
 * mark counts that systemd sets (Delegate=). The root of what we see of the tree is ours. */
static bool is_delegated(int fd, const char *path)
{
    static const char *const marks[] = {"trusted.delegate", "user.delegate"};
    size_t len = strlen(path);
    char value;

    if (geteuid() != 0 || path[len - 1] == '/')
        return true;
    for (size_t i = 0; i < BLY_LEN(marks); i++)
        if (fgetxattr(fd, marks[i], &value, 1) == 1 && value == '1')
            return true;
    return false;
}

static int open_parent(const char *path, int *ret_fd, struct bly_err *err)
{
    char own[4096];
    struct statfs fs;
    bly_autofd int fd = path != NULL ? open(path, DIR_FLAGS) : open_own(own, err);

    if (fd < 0)
        return path != NULL ? bly_fail_sys(err, errno, "cannot open %s", path) : fd;
    if (fstatfs(fd, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOTSUP, "%s is not a cgroup v2", path);
    if (path == NULL && !is_delegated(fd, own))
        return bly_fail(err, BLY_ERR_UNSUPPORTED, EPERM, "%s is not delegated to us", own);
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

static const struct controller {
    const char *name, *add, *drop;
    size_t max; /* its bound in struct bly_cgroup_max; 0 there: not needed */
} controllers[] = {
    {"pids", "+pids", "-pids", offsetof(struct bly_cgroup_max, tasks)},
    {"memory", "+memory", "-memory", offsetof(struct bly_cgroup_max, memory_bytes)},
};

static bool is_needed(const struct controller *controller, const struct bly_cgroup_max *max)
{
    return *(const uint64_t *)((const char *)max + controller->max) > 0;
}

static int check_controllers(int fd, const struct bly_cgroup_max *max, struct bly_err *err)
{
    for (size_t i = 0; i < BLY_LEN(controllers); i++)
        if (is_needed(&controllers[i], max) && !says(fd, "cgroup.controllers", controllers[i].name))
            return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOTSUP,
                            "the cgroup does not have the %s controller", controllers[i].name);
    return 0;
}

/* Hands the controllers down to the groups below. 1: some were handed down only now. */
static int divide(int fd, const struct bly_cgroup_max *max, struct bly_err *err)
{
    int changed = 0;

    for (size_t i = 0; i < BLY_LEN(controllers); i++) {
        int r;

        if (!is_needed(&controllers[i], max) ||
            says(fd, "cgroup.subtree_control", controllers[i].name))
            continue;
        r = put(fd, "cgroup.subtree_control", controllers[i].add);
        if (r == -EBUSY)
            return bly_fail(err, BLY_ERR_UNSUPPORTED, EBUSY,
                            "the cgroup cannot be divided: there are other processes in it");
        if (r < 0)
            return bly_fail_sys(err, -r, "cannot divide the cgroup");
        changed = 1;
    }
    return changed;
}

static void undivide(int fd)
{
    for (size_t i = 0; i < BLY_LEN(controllers); i++)
        (void)put(fd, "cgroup.subtree_control", controllers[i].drop);
}

/* ---- ours in it ----------------------------------------------------------------------------- */

/* Takes away what a server left that is gone: nobody holds its lock. Only what is empty can be
 * removed, and only what bears our names is tried. */
static void remove_leftovers(int parent_fd)
{
    DIR *dir = list(parent_fd);

    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        bly_autofd int fd = -EBADF;

        if (strncmp(e->d_name, "bailey-", strlen("bailey-")) != 0)
            continue;
        fd = openat(parent_fd, e->d_name, DIR_FLAGS);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
            continue;
        (void)bly_cgroup_sweep(fd, NULL, NULL);
        (void)unlinkat(fd, self_name, AT_REMOVEDIR);
        (void)unlinkat(parent_fd, e->d_name, AT_REMOVEDIR);
    }
    if (dir != NULL)
        (void)closedir(dir);
}

/* Between its making and its locking somebody may have taken it for a leftover. */
static bool lock(int parent_fd, const char *name, int fd)
{
    struct stat there, ours;

    return flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &ours) == 0 &&
           fstatat(parent_fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
           there.st_ino == ours.st_ino;
}

static int make_ours(struct bly_cgroup *cgroup, struct bly_err *err)
{
    for (int i = 0; i < NAME_TRIES; i++) {
        (void)snprintf(cgroup->name, sizeof(cgroup->name), "bailey-%d.%d", (int)getpid(), i);
        if (mkdirat(cgroup->parent_fd, cgroup->name, 0755) < 0) {
            if (errno == EEXIST)
                continue;
            return bly_fail_sys(err, errno, "cannot make a cgroup");
        }
        cgroup->fd = openat(cgroup->parent_fd, cgroup->name, DIR_FLAGS);
        if (cgroup->fd >= 0 && lock(cgroup->parent_fd, cgroup->name, cgroup->fd))
            return 0;
        cgroup->fd = bly_close(cgroup->fd);
        (void)unlinkat(cgroup->parent_fd, cgroup->name, AT_REMOVEDIR);
    }
    return bly_fail(err, BLY_ERR_UNSUPPORTED, EEXIST, "cannot make a cgroup: its names are taken");
}

static int move(int group_fd, pid_t server)
{
    int r = put(group_fd, "cgroup.procs", "0");

    return r < 0 || server == 0 ? r : put_number(group_fd, "cgroup.procs", (uint64_t)server);
}

static int move_aside(struct bly_cgroup *cgroup, struct bly_err *err)
{
    bly_autofd int self_fd = -EBADF;
    int r;

    if (mkdirat(cgroup->fd, self_name, 0755) < 0)
        return bly_fail_sys(err, errno, "cannot make a cgroup");
    self_fd = openat(cgroup->fd, self_name, DIR_FLAGS);
    cgroup->moved = true;
    r = self_fd < 0 ? -errno : move(self_fd, cgroup->server);
    return r < 0 ? bly_fail_sys(err, -r, "cannot move to a cgroup of our own") : 0;
}

/* In the group of the trial, which holds one task: one more must be refused. */
static _Noreturn void try_inside(bool bounded)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    _exit(bounded == (pid < 0) ? 0 : 1);
}

static int try(const struct bly_cgroup *cgroup, const struct bly_cgroup_max *max,
               struct bly_err *err)
{
    const struct bly_cgroup_max trial = {.tasks = max->tasks > 0 ? 1 : 0,
                                         .memory_bytes = max->memory_bytes};
    bly_autofd int group_fd = -EBADF;
    int status = 0;
    int r = bly_cgroup_add(cgroup->fd, TRIAL, &trial, &group_fd, err);
    pid_t pid;

    if (r < 0)
        return r;
    pid = bly_cgroup_clone(group_fd, 0);
    if (pid == 0)
        try_inside(trial.tasks > 0);
    if (pid < 0)
        r = bly_fail_sys(err, errno, "cannot start a process in a cgroup");
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (pid > 0 && status != 0)
        r = bly_fail(err, BLY_ERR_UNSUPPORTED, ENOTSUP,
                     "the bounds of a cgroup are there and have no effect");
    (void)bly_cgroup_remove(cgroup->fd, TRIAL);
    return r;
}

static int prepare(struct bly_cgroup *cgroup, bool own, const struct bly_cgroup_max *max,
                   struct bly_err *err)
{
    int r = check_controllers(cgroup->parent_fd, max, err);

    if (r < 0)
        return r;
    remove_leftovers(cgroup->parent_fd);
    r = make_ours(cgroup, err);
    if (r == 0 && own)
        r = move_aside(cgroup, err);
    if (r == 0)
        r = divide(cgroup->parent_fd, max, err);
    cgroup->divided = r == 1;
    if (r >= 0)
        r = divide(cgroup->fd, max, err);
    return r < 0 ? r : try(cgroup, max, err);
}

int bly_cgroup_open(const char *path, const struct bly_cgroup_max *max, pid_t server,
                    struct bly_cgroup *ret_cgroup, struct bly_err *err)
{
    struct bly_cgroup cgroup = {.parent_fd = -EBADF, .fd = -EBADF, .server = server};
    int r = open_parent(path, &cgroup.parent_fd, err);

    if (r == 0)
        r = prepare(&cgroup, path == NULL, max, err);
    if (r < 0) {
        bly_cgroup_close(&cgroup);
        return r;
    }
    *ret_cgroup = cgroup;
    return 0;
}

void bly_cgroup_close(struct bly_cgroup *cgroup)
{
    if (cgroup->fd >= 0) {
        (void)bly_cgroup_sweep(cgroup->fd, NULL, NULL);
        undivide(cgroup->fd); /* From below: the kernel wants it in this order. */
        if (cgroup->divided)
            undivide(cgroup->parent_fd);
        if (cgroup->moved) {
            /* A server that is gone is nobody's parent, and its number may be somebody else's. */
            (void)move(cgroup->parent_fd, getppid() == cgroup->server ? cgroup->server : 0);
            (void)unlinkat(cgroup->fd, self_name, AT_REMOVEDIR);
        }
        (void)unlinkat(cgroup->parent_fd, cgroup->name, AT_REMOVEDIR);
    }
    cgroup->fd = bly_close(cgroup->fd);
    cgroup->parent_fd = bly_close(cgroup->parent_fd);
}
