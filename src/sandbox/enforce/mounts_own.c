/* File systems that the view has for itself: its procfs, devices, terminals and shared memory. */
#include "sandbox/enforce/mounts_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"

int bly_mounts_do_proc(struct bly_build *b, size_t i, struct bly_err *err)
{
    const struct bly_step *step = &b->plan->steps[i];
    unsigned run = b->plan->purpose == BLY_FOR_PROCESS ? BLY_LOCK_EXECUTE : 0;
    unsigned attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    static const struct bly_mount_option empty[] = {
        {"size", "4k"}, {"nr_inodes", "2"}, {"mode", "0555"}, {NULL, NULL}};
    bly_autofd int tree = -EBADF;
    int r;

    if (b->plan->purpose == BLY_FOR_HELPER)
        attributes |= MOUNT_ATTR_RDONLY;
    r = bly_mounts_make_fs("proc", NULL, attributes, &tree, err);
    b->has_proc = r == 0;
    /*
     * Containers mask parts of their /proc, and then the kernel gives no new one to those inside.
     * Never the host's instead: an empty directory.
     */
    if (r == -EPERM || r == -EACCES) {
        if (err)
            bly_err_clear(err);
        r = bly_mounts_make_fs("tmpfs", empty, (unsigned)bly_dead, &tree, err);
    }
    if (r == 0)
        r = bly_mounts_make_point(b, i, true, err);
    if (r == 0)
        r = bly_mounts_place(b, step, tree, err);
    if (r == 0)
        r = bly_lock_allow(b->lock_fd, tree, BLY_LOCK_READ | run, err);
    return r;
}

/* A part of the view's procfs, bound onto itself and read-only. */
int bly_mounts_do_proc_read(struct bly_build *b, size_t i, struct bly_err *err)
{
    bly_autofd int target = bly_open_below(b->root_fd, b->plan->steps[i].path);
    bly_autofd int tree = -EBADF;

    if (target < 0)
        return bly_fail_sys(err, errno, "cannot open the mount point");
    tree = open_tree(target, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (tree < 0)
        return bly_fail_sys(err, errno, "cannot clone it");
    if (bly_mounts_set_attributes(tree, MOUNT_ATTR_RDONLY, false) < 0)
        return bly_fail_sys(err, errno, "cannot make it read-only");
    if (bly_mounts_attach(tree, target, "") < 0)
        return bly_fail_sys(err, errno, "cannot attach it");
    return 0;
}

/* The devices every program expects. They change nothing on the host. */
static const struct device {
    const char *name;
    unsigned major, minor;
    bool optional;
} devices[] = {
    {"null", 1, 3, false},  {"zero", 1, 5, false},    {"full", 1, 7, true},
    {"random", 1, 8, true}, {"urandom", 1, 9, false}, {"tty", 5, 0, true},
};

static const struct bly_mount_option device_links[] = {
    {"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
    {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
};

/* Below the O_PATH descriptor of the host's /dev. What is there under the name of a device need not
 * be one (a planted file in its place would be handed to every program). */
static int check_device(int fd, const struct device *device, struct bly_err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return bly_fail_sys(err, errno, "cannot look at the device %s", device->name);
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(device->major, device->minor))
        return bly_fail(err, BLY_ERR_SYSTEM, ENODEV,
                        "%s of the host is not the device of that name", device->name);
    return 0;
}

/* Puts one device of the host into the stage's /dev. */
static int bind_device(struct bly_build *b, int host_dev, int stage_dev,
                       const struct device *device, struct bly_err *err)
{
    bly_autofd int tree = open_tree(host_dev, device->name,
                                    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
    bly_autofd int target = -EBADF;
    int r;

    if (tree < 0 && errno == ENOENT && device->optional)
        return 0;
    if (tree < 0)
        return bly_fail_sys(err, errno, "cannot open the device %s", device->name);
    r = check_device(tree, device, err);
    if (r < 0)
        return r;
    target = openat(stage_dev, device->name, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0444);
    if (target < 0 || bly_mounts_attach(tree, target, "") < 0)
        return bly_fail_sys(err, errno, "cannot place the device %s", device->name);
    return bly_lock_allow(b->lock_fd, tree, BLY_LOCK_DEVICE, err);
}

int bly_mounts_allow_devices(int lock_fd, int host_dev, struct bly_err *err)
{
    for (size_t i = 0; i < BLY_LEN(devices); i++) {
        bly_autofd int fd = openat(host_dev, devices[i].name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        int r;

        if (fd < 0 && errno == ENOENT && devices[i].optional)
            continue;
        if (fd < 0)
            return bly_fail_sys(err, errno, "cannot open the device %s", devices[i].name);
        r = check_device(fd, &devices[i], err);
        if (r == 0)
            r = bly_lock_allow(lock_fd, fd, BLY_LOCK_DEVICE, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int place_pts(struct bly_build *b, int dev_tree, struct bly_err *err)
{
    static const struct bly_mount_option options[] = {
        {"mode", "0620"}, {"ptmxmode", "0666"}, {NULL, NULL}};
    bly_autofd int tree = -EBADF;
    bly_autofd int target = -EBADF;
    int r =
        bly_mounts_make_fs("devpts", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, &tree, err);

    if (r < 0)
        return r;
    target = openat(dev_tree, "pts", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (target < 0 || bly_mounts_attach(tree, target, "") < 0)
        return bly_fail_sys(err, errno, "cannot place pts");
    return bly_lock_allow(b->lock_fd, tree, BLY_LOCK_DEVICE, err);
}

static int fill_dev(struct bly_build *b, int stage_dev, struct bly_err *err)
{
    bly_autofd int host_dev = bly_open_below(b->host_fd, "/dev");

    if (host_dev < 0)
        return bly_fail_sys(err, errno, "cannot open the devices of the host");
    for (size_t i = 0; i < BLY_LEN(devices); i++) {
        int r = bind_device(b, host_dev, stage_dev, &devices[i], err);

        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < BLY_LEN(device_links); i++)
        if (symlinkat(device_links[i].value, stage_dev, device_links[i].key) < 0)
            return bly_fail_sys(err, errno, "cannot make the link %s", device_links[i].key);
    if (mkdirat(stage_dev, "pts", 0755) < 0)
        return bly_fail_sys(err, errno, "cannot make a directory for terminals");
    return 0;
}

/* The devices are mounted in the stage first and come along when it is cloned. */
int bly_mounts_do_dev(struct bly_build *b, size_t i, struct bly_err *err)
{
    bly_autofd int stage_dev = -EBADF;
    bly_autofd int tree = -EBADF;
    int r;

    if (mkdirat(b->stage_fd, BLY_STAGE_DEV, 0755) < 0)
        return bly_fail_sys(err, errno, "cannot make a directory for devices");
    stage_dev = openat(b->stage_fd, BLY_STAGE_DEV, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (stage_dev < 0)
        return bly_fail_sys(err, errno, "cannot open the directory for devices");
    r = fill_dev(b, stage_dev, err);
    if (r < 0)
        return r;
    tree = open_tree(stage_dev, "",
                     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
    if (tree < 0)
        return bly_fail_sys(err, errno, "cannot clone the directory for devices");
    /* Devices work on a read-only mount; what they are cannot be changed there. */
    if (bly_mounts_set_attributes(tree, bly_dead & ~(uint64_t)MOUNT_ATTR_NODEV, true) < 0)
        return bly_fail_sys(err, errno, "cannot make it read-only");
    r = bly_mounts_make_point(b, i, true, err);
    if (r == 0)
        r = bly_mounts_place(b, &b->plan->steps[i], tree, err);
    if (r == 0)
        r = place_pts(b, tree, err);
    if (r == 0)
        r = bly_lock_allow(b->lock_fd, tree, BLY_LOCK_READ, err);
    return r;
}

int bly_mounts_do_shm(struct bly_build *b, size_t i, struct bly_err *err)
{
    static const struct bly_mount_option options[] = {
        {"size", "64m"}, {"nr_inodes", "16384"}, {"mode", "1777"}, {NULL, NULL}};
    bly_autofd int tree = -EBADF;
    int r = bly_mounts_make_fs("tmpfs", options, (unsigned)bly_quiet, &tree, err);

    if (r == 0)
        r = bly_mounts_make_point(b, i, true, err);
    if (r == 0)
        r = bly_mounts_place(b, &b->plan->steps[i], tree, err);
    if (r == 0)
        r = bly_lock_allow(b->lock_fd, tree, BLY_LOCK_WRITE, err);
    return r;
}
