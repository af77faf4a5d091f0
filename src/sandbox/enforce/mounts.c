/*
 * The file view. Everything is a descriptor: the source is cloned detached from the host, below the
 * descriptor of the old root, compared with what the plan saw, given its attributes while nobody
 * can see it, and attached to a mount point below the descriptor of the new root. No path is used
 * twice, no symlink is crossed, and nothing is ever created on the host: mount points that do not
 * exist are made in one private tmpfs, the stage, parts of which are shown read-only.
 *
 * Steps come shallow first and then by name, so most of them are neighbours. The directory of the
 * one before is kept open, and a root costs a handful of system calls however deep it lies.
 */
#include "sandbox/enforce/enforce_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "sandbox/plan/plan_internal.h"

/* Directories and files of the stage. */
#define STAGE_ROOT "root" /* "/" under restricted reading */
#define STAGE_DEV  "dev"  /* /dev */
#define STAGE_MASK "mask" /* with a step's number: a denied directory with something open below */
#define STAGE_DENY "deny" /* mode 0: any other denied directory */
#define STAGE_DEAD "dead" /* where the stage is mounted once more, read-only, to clone from */
#define STAGE_FILE "file" /* mode 0: any denied file */

enum { STAGE_NAME_MAX = 32, STAGE_INODES = 256 };

static const uint64_t quiet = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
static const uint64_t dead =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/* The directory in which the step before had its entry, opened in one of three trees. */
struct nearby {
    char *dir; /* NULL: none */
    uint32_t on;
    int fd;
};

struct build {
    const struct bly_plan *plan;
    int lock_fd;
    int host_fd;  /* "/" as the server sees it */
    int stage_fd; /* the private tmpfs, writable through this descriptor only */
    int dead_fd;  /* the same, read-only: what is cloned from here is born so */
    int root_fd;  /* "/" of the view */
    bool has_proc;
    struct nearby on_host, in_stage, in_view;
};

static void forget(struct nearby *near)
{
    free(near->dir);
    near->dir = NULL;
    near->fd = bly_close(near->fd);
}

static void build_deinit(struct build *b)
{
    forget(&b->on_host);
    forget(&b->in_stage);
    forget(&b->in_view);
    b->host_fd = bly_close(b->host_fd);
    b->stage_fd = bly_close(b->stage_fd);
    b->dead_fd = bly_close(b->dead_fd);
    b->root_fd = bly_close(b->root_fd);
}

/* ---- thin layer ---- */

/* The same without openat2: no component but the last may be anything but a directory. */
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

/* Opens `path` (absolute) below `root_fd` without crossing a single symlink; a symlink at the end
 * is opened itself. */
static int open_below(int root_fd, const char *path)
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

/* Whether it is the directory of a step; the same path may lie on two surfaces of the stage. */
static bool is_near(const struct nearby *near, const struct bly_step *step)
{
    size_t len = (size_t)(bly_path_base(step->path) - step->path);

    len = len > 1 ? len - 1 : 1; /* without the slash, if it is not all */
    return near->dir && near->on == step->on && strncmp(near->dir, step->path, len) == 0 &&
           near->dir[len] == '\0';
}

static int keep_near(struct nearby *near, const struct bly_step *step, int fd)
{
    forget(near);
    if (fd < 0)
        return -1;
    near->dir = bly_path_parent(step->path);
    near->on = step->on;
    near->fd = fd;
    if (near->dir)
        return fd;
    forget(near);
    errno = ENOMEM;
    return -1;
}

/* The directory of a step's entry, below `root_fd`. Borrowed until the next call; negative: errno
 * is set. */
static int open_near(struct nearby *near, const struct bly_step *step, int root_fd)
{
    bly_autofree char *dir = NULL;

    if (is_near(near, step))
        return near->fd;
    dir = bly_path_parent(step->path);
    return keep_near(near, step, dir ? open_below(root_fd, dir) : -1);
}

static int set_attributes(int tree_fd, uint64_t set, bool recursive)
{
    struct mount_attr attr = {.attr_set = set};

    return mount_setattr(tree_fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr,
                         sizeof(attr));
}

/* On the entry `name` of a directory, which is not followed, or with "" on what `fd` refers to. */
static int attach(int tree_fd, int fd, const char *name)
{
    return move_mount(tree_fd, "", fd, name,
                      MOVE_MOUNT_F_EMPTY_PATH | (*name ? 0 : MOVE_MOUNT_T_EMPTY_PATH));
}

struct option {
    const char *key, *value;
};

/* A new file system, not attached anywhere. */
static int make_fs(const char *type, const struct option *options, unsigned attributes, int *ret_fd,
                   struct bly_err *err)
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

/* ---- the stage ---- */

static bool needs_stage(const struct bly_plan *plan)
{
    for (size_t i = 0; i < plan->n_steps; i++)
        if (bly_step_is_private(&plan->steps[i]) || plan->steps[i].kind == BLY_STEP_MASK_FILE)
            return true;
    return false;
}

/* An upper bound of what will be made in it. */
static size_t stage_inodes(const struct bly_plan *plan)
{
    size_t n = STAGE_INODES;

    for (size_t i = 0; i < plan->n_steps; i++)
        for (const char *p = plan->steps[i].path; *p; p++)
            n += *p == '/';
    return n;
}

/*
 * Only what is attached can be cloned, so the stage is attached to the host's tree for the time of
 * building. Not on "/", where it would stay on top of the old root and be what is detached in its
 * place; on /proc, where nothing is taken from, it goes with the old root. A network-only wall
 * keeps that root and needs its /proc: there it is on "/", and goes alone.
 */
static int anchor_of(const struct build *b, struct bly_err *err)
{
    int fd = open_below(b->host_fd, b->plan->network_only ? "/" : "/proc");

    return fd < 0 ? bly_fail_sys(err, errno, "cannot open /proc of the host") : fd;
}

static int make_stage_entries(struct build *b, struct bly_err *err)
{
    bly_autofd int file =
        openat(b->stage_fd, STAGE_FILE, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0);
    bly_autofd int dead_dir = -EBADF;

    if (file < 0 || mkdirat(b->stage_fd, STAGE_DENY, 0) < 0 ||
        mkdirat(b->stage_fd, STAGE_DEAD, 0) < 0)
        return bly_fail_sys(err, errno, "cannot fill the private tmpfs");
    dead_dir = openat(b->stage_fd, STAGE_DEAD, O_PATH | O_DIRECTORY | O_CLOEXEC);
    b->dead_fd = open_tree(b->stage_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (dead_dir < 0 || b->dead_fd < 0 || set_attributes(b->dead_fd, dead, false) < 0 ||
        attach(b->dead_fd, dead_dir, "") < 0)
        return bly_fail_sys(err, errno, "cannot make a read-only view of the private tmpfs");
    return 0;
}

static int make_stage(struct build *b, struct bly_err *err)
{
    char size[32], inodes[32];
    const struct option options[] = {
        {"size", size}, {"nr_inodes", inodes}, {"mode", "0700"}, {NULL, NULL}};
    size_t n = stage_inodes(b->plan);
    bly_autofd int anchor = -EBADF;
    int r;

    if (!needs_stage(b->plan))
        return 0;
    (void)snprintf(size, sizeof(size), "%zuk", 64 + n); /* a long symlink takes a page */
    (void)snprintf(inodes, sizeof(inodes), "%zu", n);
    r = make_fs("tmpfs", options, (unsigned)(quiet | MOUNT_ATTR_NOEXEC), &b->stage_fd, err);
    if (r < 0)
        return r;
    anchor = anchor_of(b, err);
    if (anchor < 0)
        return anchor;
    if (attach(b->stage_fd, anchor, "") < 0)
        return bly_fail_sys(err, errno, "cannot attach the private tmpfs");
    return make_stage_entries(b, err);
}

/* A part of the stage as a mount of its own, detached and read-only. */
static int clone_stage(struct build *b, const char *name, struct bly_err *err)
{
    int fd = open_tree(b->dead_fd, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);

    return fd < 0 ? bly_fail_sys(err, errno, "cannot clone the private %s", name) : fd;
}

/* Where in the stage the surface that step `i` shows lies. */
static void stage_name(const struct bly_plan *plan, size_t i, char name[STAGE_NAME_MAX])
{
    const struct bly_step *step = &plan->steps[i];

    if (step->kind == BLY_STEP_TMPFS)
        (void)snprintf(name, STAGE_NAME_MAX, STAGE_ROOT);
    else if (step->kind == BLY_STEP_DEV)
        (void)snprintf(name, STAGE_NAME_MAX, STAGE_DEV);
    else if (step->mode == 0)
        (void)snprintf(name, STAGE_NAME_MAX, STAGE_DENY);
    else
        (void)snprintf(name, STAGE_NAME_MAX, STAGE_MASK "%zu", i);
}

/* Makes all directories on the way to the last component of `path` below the stage. */
static int make_parents(int stage_fd, char *path, mode_t mode, struct bly_err *err)
{
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        int r;

        *slash = '\0';
        r = mkdirat(stage_fd, path, mode);
        *slash = '/';
        if (r < 0 && errno != EEXIST)
            return bly_fail_sys(err, errno, "cannot make a directory for it");
    }
    return 0;
}

/* The directory of a step's entry on its private surface, made if need be. Borrowed as above. */
static int open_in_stage(struct build *b, const struct bly_step *step, mode_t mode,
                         struct bly_err *err)
{
    const char *rest = step->path + (step->on == 0 ? 0 : strlen(b->plan->steps[step->on].path));
    char base[STAGE_NAME_MAX];
    bly_autofree char *path = NULL;
    int fd, r;

    if (is_near(&b->in_stage, step))
        return b->in_stage.fd;
    stage_name(b->plan, step->on, base);
    if (asprintf(&path, "/%s%s", base, rest) < 0)
        return bly_fail_sys(err, ENOMEM, "cannot make a mount point");
    r = make_parents(b->stage_fd, path + 1, mode, err);
    if (r < 0)
        return r;
    *strrchr(path, '/') = '\0';
    fd = keep_near(&b->in_stage, step, open_below(b->stage_fd, path));
    return fd < 0 ? bly_fail_sys(err, errno, "cannot open the directory made for it") : fd;
}

/*
 * Makes what step `i` will be mounted on, or the symlink that it is, if it lies on a private
 * surface.
 */
static int make_mount_point(struct build *b, size_t i, bool dir, struct bly_err *err)
{
    const struct bly_step *step = &b->plan->steps[i];
    const struct bly_step *on = &b->plan->steps[step->on];
    const char *name = bly_path_base(step->path);
    /* What is denied may be passed through and not listed. */
    mode_t mode = on->mode == 0111 ? 0111 : 0755;
    int parent, r;

    if (!bly_step_is_private(on))
        return 0;
    parent = open_in_stage(b, step, mode, err);
    if (parent < 0)
        return parent;
    if (step->kind == BLY_STEP_LINK) {
        r = symlinkat(step->text, parent, name);
    } else if (dir) {
        r = mkdirat(parent, name, mode);
        if (r < 0 && errno == EEXIST)
            r = 0;
    } else {
        r = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDONLY | O_CLOEXEC, 0444);
        if (r >= 0)
            (void)bly_close(r), r = 0;
    }
    return r < 0 ? bly_fail_sys(err, errno, "cannot make a mount point") : 0;
}

/* ---- sources and targets ---- */

/* What the descriptor refers to is what the plan saw, or there is an error. */
static int check_same(int fd, const struct bly_step *step, struct bly_err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return bly_fail_sys(err, errno, "cannot stat it");
    if (st.st_dev != step->node.dev || st.st_ino != step->node.ino)
        return bly_fail(err, BLY_ERR_SYSTEM, ESTALE, "it was replaced by something else meanwhile");
    return 0;
}

int bly_mounts_open_source(int host_fd, const struct bly_step *step, struct bly_err *err)
{
    bly_autofd int fd = open_below(host_fd, step->path);
    int r = fd < 0 ? bly_fail_sys(err, errno, "cannot open it") : check_same(fd, step, err);

    return r < 0 ? r : bly_take_fd(&fd);
}

/* Attaches `tree` where the host has an entry of its own, which must be what the plan saw. */
static int cover_entry(int dir_fd, const struct bly_step *step, int tree_fd, struct bly_err *err)
{
    bly_autofd int target =
        openat(dir_fd, bly_path_base(step->path), O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int r;

    if (target < 0)
        return bly_fail_sys(err, errno, "cannot open the mount point");
    r = check_same(target, step, err);
    if (r == 0 && attach(tree_fd, target, "") < 0)
        r = bly_fail_sys(err, errno, "cannot attach it");
    return r;
}

/*
 * Whether it matters what lies under a mount. Where the host's own tree is restricted it must be
 * what the plan saw. What is granted was looked at when it was cloned, and can only hide what has
 * taken its place; a private surface was just made; in a procfs nothing has a lasting identity.
 */
static bool must_cover_the_same(const struct bly_step *step, const struct bly_step *on)
{
    return step->kind != BLY_STEP_WRITE && !bly_step_is_private(on) && on->kind != BLY_STEP_PROC;
}

static int place(struct build *b, const struct bly_step *step, int tree_fd, struct bly_err *err)
{
    const struct bly_step *on = &b->plan->steps[step->on];
    int dir_fd = open_near(&b->in_view, step, b->root_fd);
    int r = 0;

    if (dir_fd < 0)
        return bly_fail_sys(err, errno, "cannot open the directory of the mount point");
    if (must_cover_the_same(step, on))
        r = cover_entry(dir_fd, step, tree_fd, err);
    else if (attach(tree_fd, dir_fd, bly_path_base(step->path)) < 0)
        r = bly_fail_sys(err, errno, "cannot attach it");
    /* What was opened there lies under the new mount now. */
    if (b->in_view.dir && bly_path_is_within(b->in_view.dir, step->path))
        forget(&b->in_view);
    return r;
}

/* ---- steps ---- */

/* A view without devices gets what all of its mounts have in common in one call, at the end. */
static bool has_devices(const struct bly_plan *plan)
{
    return plan->purpose == BLY_FOR_PROCESS;
}

static bool is_writable_kind(enum bly_step_kind kind)
{
    return kind == BLY_STEP_WRITE || kind == BLY_STEP_PIN;
}

/* A mount that came read-only from the host is locked so; better said now than at the first
 * write. */
static int check_writable(int fd, struct bly_err *err)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0)
        return bly_fail_sys(err, errno, "cannot look at its file system");
    if (fs.f_flags & ST_RDONLY)
        return bly_fail(err, BLY_ERR_SYSTEM, EROFS,
                        "it is mounted read-only on the host and cannot be granted writable");
    return 0;
}

/* Cloned by name and looked at then: what came is what is attached, whoever exchanges the name. */
static int clone_entry(struct build *b, const struct bly_step *step, bool recursive,
                       struct bly_err *err)
{
    bool is_root = step->path[1] == '\0';
    int dir_fd = is_root ? b->host_fd : open_near(&b->on_host, step, b->host_fd);
    bly_autofd int tree = -EBADF;
    int r;

    if (dir_fd < 0)
        return bly_fail_sys(err, errno, "cannot open the directory it is in");
    tree = open_tree(dir_fd, bly_path_base(step->path),
                     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT |
                         (is_root ? AT_EMPTY_PATH : 0) | (recursive ? AT_RECURSIVE : 0));
    if (tree < 0)
        return bly_fail_sys(err, errno, "cannot clone it");
    r = check_same(tree, step, err);
    return r < 0 ? r : bly_take_fd(&tree);
}

static int clone_host(struct build *b, const struct bly_step *step, int *ret_fd,
                      struct bly_err *err)
{
    bool recursive = step->kind != BLY_STEP_PIN_LINK;
    uint64_t attributes =
        (has_devices(b->plan) ? quiet : 0) | (is_writable_kind(step->kind) ? 0 : MOUNT_ATTR_RDONLY);
    bly_autofd int tree = clone_entry(b, step, recursive, err);

    if (tree < 0)
        return tree;
    if (step->kind == BLY_STEP_WRITE && step->path[1] != '\0') {
        int r = check_writable(tree, err);

        if (r < 0)
            return r;
    }
    if (attributes != 0 && set_attributes(tree, attributes, recursive) < 0)
        return bly_fail_sys(err, errno, "cannot make it %s",
                            is_writable_kind(step->kind) ? "nosuid and nodev" : "read-only");
    *ret_fd = bly_take_fd(&tree);
    return 0;
}

static unsigned rights_of(const struct build *b, const struct bly_step *step)
{
    unsigned run = b->plan->purpose == BLY_FOR_PROCESS ? BLY_LOCK_EXECUTE : 0;

    if (step->kind == BLY_STEP_WRITE)
        return BLY_LOCK_WRITE;
    return step->kind == BLY_STEP_READ ? BLY_LOCK_READ | run : 0;
}

static int do_clone(struct build *b, size_t i, struct bly_err *err)
{
    const struct bly_step *step = &b->plan->steps[i];
    bly_autofd int tree = -EBADF;
    int r = clone_host(b, step, &tree, err);

    if (r == 0)
        r = make_mount_point(b, i, step->node.type == BLY_NODE_DIR, err);
    if (r == 0)
        r = place(b, step, tree, err);
    if (r == 0)
        r = bly_lock_allow(b->lock_fd, tree, rights_of(b, step), err);
    return r;
}

static int do_mask(struct build *b, size_t i, struct bly_err *err)
{
    const struct bly_step *step = &b->plan->steps[i];
    char name[STAGE_NAME_MAX] = STAGE_FILE;
    bly_autofd int tree = -EBADF;
    int r;

    if (step->kind == BLY_STEP_MASK_DIR)
        stage_name(b->plan, i, name);
    if (step->kind == BLY_STEP_MASK_DIR && step->mode != 0 &&
        mkdirat(b->stage_fd, name, step->mode) < 0)
        return bly_fail_sys(err, errno, "cannot make an empty directory");
    tree = clone_stage(b, name, err);
    if (tree < 0)
        return tree;
    r = make_mount_point(b, i, step->kind == BLY_STEP_MASK_DIR, err);
    return r < 0 ? r : place(b, step, tree, err);
}

static int do_proc(struct build *b, size_t i, struct bly_err *err)
{
    const struct bly_step *step = &b->plan->steps[i];
    unsigned run = b->plan->purpose == BLY_FOR_PROCESS ? BLY_LOCK_EXECUTE : 0;
    unsigned attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    static const struct option empty[] = {
        {"size", "4k"}, {"nr_inodes", "2"}, {"mode", "0555"}, {NULL, NULL}};
    bly_autofd int tree = -EBADF;
    int r;

    if (b->plan->purpose == BLY_FOR_HELPER)
        attributes |= MOUNT_ATTR_RDONLY;
    r = make_fs("proc", NULL, attributes, &tree, err);
    b->has_proc = r == 0;
    /*
     * Containers mask parts of their /proc, and then the kernel gives no new one to those inside.
     * Never the host's instead: an empty directory.
     */
    if (r == -EPERM || r == -EACCES) {
        if (err)
            bly_err_clear(err);
        r = make_fs("tmpfs", empty, (unsigned)dead, &tree, err);
    }
    if (r == 0)
        r = make_mount_point(b, i, true, err);
    if (r == 0)
        r = place(b, step, tree, err);
    if (r == 0)
        r = bly_lock_allow(b->lock_fd, tree, BLY_LOCK_READ | run, err);
    return r;
}

/* A part of the view's procfs, bound onto itself and read-only. */
static int do_proc_read(struct build *b, size_t i, struct bly_err *err)
{
    bly_autofd int target = open_below(b->root_fd, b->plan->steps[i].path);
    bly_autofd int tree = -EBADF;

    if (target < 0)
        return bly_fail_sys(err, errno, "cannot open the mount point");
    tree = open_tree(target, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (tree < 0)
        return bly_fail_sys(err, errno, "cannot clone it");
    if (set_attributes(tree, MOUNT_ATTR_RDONLY, false) < 0)
        return bly_fail_sys(err, errno, "cannot make it read-only");
    if (attach(tree, target, "") < 0)
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

static const struct option device_links[] = {
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
static int bind_device(struct build *b, int host_dev, int stage_dev, const struct device *device,
                       struct bly_err *err)
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
    if (target < 0 || attach(tree, target, "") < 0)
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

static int place_pts(struct build *b, int dev_tree, struct bly_err *err)
{
    static const struct option options[] = {{"mode", "0620"}, {"ptmxmode", "0666"}, {NULL, NULL}};
    bly_autofd int tree = -EBADF;
    bly_autofd int target = -EBADF;
    int r = make_fs("devpts", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, &tree, err);

    if (r < 0)
        return r;
    target = openat(dev_tree, "pts", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (target < 0 || attach(tree, target, "") < 0)
        return bly_fail_sys(err, errno, "cannot place pts");
    return bly_lock_allow(b->lock_fd, tree, BLY_LOCK_DEVICE, err);
}

static int fill_dev(struct build *b, int stage_dev, struct bly_err *err)
{
    bly_autofd int host_dev = open_below(b->host_fd, "/dev");

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
static int do_dev(struct build *b, size_t i, struct bly_err *err)
{
    bly_autofd int stage_dev = -EBADF;
    bly_autofd int tree = -EBADF;
    int r;

    if (mkdirat(b->stage_fd, STAGE_DEV, 0755) < 0)
        return bly_fail_sys(err, errno, "cannot make a directory for devices");
    stage_dev = openat(b->stage_fd, STAGE_DEV, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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
    if (set_attributes(tree, dead & ~(uint64_t)MOUNT_ATTR_NODEV, true) < 0)
        return bly_fail_sys(err, errno, "cannot make it read-only");
    r = make_mount_point(b, i, true, err);
    if (r == 0)
        r = place(b, &b->plan->steps[i], tree, err);
    if (r == 0)
        r = place_pts(b, tree, err);
    if (r == 0)
        r = bly_lock_allow(b->lock_fd, tree, BLY_LOCK_READ, err);
    return r;
}

static int do_shm(struct build *b, size_t i, struct bly_err *err)
{
    static const struct option options[] = {
        {"size", "64m"}, {"nr_inodes", "16384"}, {"mode", "1777"}, {NULL, NULL}};
    bly_autofd int tree = -EBADF;
    int r = make_fs("tmpfs", options, (unsigned)quiet, &tree, err);

    if (r == 0)
        r = make_mount_point(b, i, true, err);
    if (r == 0)
        r = place(b, &b->plan->steps[i], tree, err);
    if (r == 0)
        r = bly_lock_allow(b->lock_fd, tree, BLY_LOCK_WRITE, err);
    return r;
}

static int do_step(struct build *b, size_t i, struct bly_err *err)
{
    const struct bly_step *step = &b->plan->steps[i];

    /* Nothing of an empty /proc can be read-only or masked. */
    if (b->plan->steps[step->on].kind == BLY_STEP_PROC && !b->has_proc)
        return 0;
    switch (step->kind) {
    case BLY_STEP_READ:
    case BLY_STEP_WRITE:
    case BLY_STEP_PIN:
    case BLY_STEP_PIN_LINK:
        return do_clone(b, i, err);
    case BLY_STEP_MASK_DIR:
    case BLY_STEP_MASK_FILE:
        return do_mask(b, i, err);
    case BLY_STEP_PROC:
        return do_proc(b, i, err);
    case BLY_STEP_PROC_READ:
        return do_proc_read(b, i, err);
    case BLY_STEP_DEV:
        return do_dev(b, i, err);
    case BLY_STEP_SHM:
        return do_shm(b, i, err);
    case BLY_STEP_LINK:
        return make_mount_point(b, i, false, err);
    case BLY_STEP_TMPFS:
    case BLY_STEP_KINDS:
        break;
    }
    return bly_fail(err, BLY_ERR_BUG, EINVAL, "a step of an unknown kind");
}

/* ---- the root ---- */

static int make_root(struct build *b, struct bly_err *err)
{
    const struct bly_step *root = &b->plan->steps[0];
    unsigned rights = rights_of(b, root);
    int r;

    if (root->kind == BLY_STEP_TMPFS) {
        if (mkdirat(b->stage_fd, STAGE_ROOT, root->mode) < 0)
            return bly_fail_sys(err, errno, "cannot make an empty root");
        /* Programs list the directories above them; the view has nothing else to show there. */
        rights = b->plan->purpose == BLY_FOR_PROCESS ? BLY_LOCK_LIST : 0;
        b->root_fd = clone_stage(b, STAGE_ROOT, err);
        r = b->root_fd < 0 ? b->root_fd : 0;
    } else {
        r = clone_host(b, root, &b->root_fd, err);
    }
    if (r < 0)
        return r;
    if (attach(b->root_fd, b->host_fd, "") < 0)
        return bly_fail_sys(err, errno, "cannot attach the new root");
    return bly_lock_allow(b->lock_fd, b->root_fd, rights, err);
}

/* Into the view, and the old root out of reach. */
static int pivot(struct build *b, struct bly_err *err)
{
    if (fchdir(b->root_fd) < 0)
        return bly_fail_sys(err, errno, "cannot enter the new root");
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return bly_fail_sys(err, errno, "cannot change the root");
    if (umount2(".", MNT_DETACH) < 0)
        return bly_fail_sys(err, errno, "cannot detach the old root");
    if (chdir("/") < 0)
        return bly_fail_sys(err, errno, "cannot enter the new root");
    return 0;
}

/* A network-only wall stays where it is; only the stage goes. */
static int leave_stage(struct build *b, struct bly_err *err)
{
    if (b->stage_fd >= 0 && (fchdir(b->stage_fd) < 0 || umount2(".", MNT_DETACH) < 0))
        return bly_fail_sys(err, errno, "cannot detach the private tmpfs");
    if (chdir("/") < 0)
        return bly_fail_sys(err, errno, "cannot enter the root");
    return 0;
}

static int keep_root(struct build *b, struct bly_err *err)
{
    b->root_fd = fcntl(b->host_fd, F_DUPFD_CLOEXEC, 3);
    return b->root_fd < 0 ? bly_fail_sys(err, errno, "cannot open the root") : 0;
}

static int begin(struct build *b, struct bly_err *err)
{
    struct mount_attr private = {.propagation = MS_PRIVATE};
    int r = bly_wall_step("propagation", err);

    if (r < 0)
        return r;
    if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &private, sizeof(private)) < 0)
        return bly_fail_sys(err, errno, "cannot make the mounts private");
    b->host_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (b->host_fd < 0)
        return bly_fail_sys(err, errno, "cannot open the root");
    r = bly_wall_step("root", err);
    /* A clone of the host's tree must not have the stage in it. */
    if (r == 0 && b->plan->network_only)
        r = keep_root(b, err);
    else if (r == 0 && b->plan->steps[0].kind != BLY_STEP_TMPFS)
        r = make_root(b, err);
    if (r == 0)
        r = bly_wall_step("private tmpfs", err);
    if (r == 0)
        r = make_stage(b, err);
    if (r == 0 && b->root_fd < 0)
        r = make_root(b, err);
    return r;
}

static int do_steps(struct build *b, struct bly_err *err)
{
    for (size_t i = 1; i < b->plan->n_steps; i++) {
        int r = bly_wall_step("mount", err);

        if (r == 0)
            r = do_step(b, i, err);
        if (r < 0)
            return bly_because(err, r, "mount %zu of %zu, %s", i, b->plan->n_steps - 1,
                               b->plan->steps[i].path);
    }
    return 0;
}

/* Nobody has been in the view before. */
static int quieten(struct build *b, struct bly_err *err)
{
    int r = bly_wall_step("attributes", err);

    if (r < 0 || has_devices(b->plan))
        return r;
    if (set_attributes(b->root_fd, quiet, true) < 0)
        return bly_fail_sys(err, errno, "cannot make the view nosuid and nodev");
    return 0;
}

int bly_mounts_enter(const struct bly_plan *plan, int lock_fd, bool *ret_has_proc,
                     struct bly_err *err)
{
    __attribute__((cleanup(build_deinit))) struct build b = {.plan = plan,
                                                             .lock_fd = lock_fd,
                                                             .host_fd = -1,
                                                             .stage_fd = -1,
                                                             .dead_fd = -1,
                                                             .root_fd = -1,
                                                             .has_proc = true,
                                                             .on_host.fd = -1,
                                                             .in_stage.fd = -1,
                                                             .in_view.fd = -1};
    mode_t mask = umask(0);
    int r = begin(&b, err);

    if (r == 0)
        r = do_steps(&b, err);
    (void)umask(mask);
    if (r == 0)
        r = quieten(&b, err);
    if (r == 0)
        r = bly_wall_step("pivot", err);
    if (r == 0)
        r = plan->network_only ? leave_stage(&b, err) : pivot(&b, err);
    if (r == 0)
        *ret_has_proc = b.has_proc;
    return r;
}
