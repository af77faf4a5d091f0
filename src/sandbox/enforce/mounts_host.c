/*
 * What the view has from the host: cloned, compared with what the plan saw, and attached. What
 * comes from elsewhere is attached here, too.
 */
#include "sandbox/enforce/mounts_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"

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
    bly_autofd int fd = bly_open_below(host_fd, step->path);
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
    if (r == 0 && bly_mounts_attach(tree_fd, target, "") < 0)
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

int bly_mounts_place(struct bly_build *b, const struct bly_step *step, int tree_fd,
                     struct bly_err *err)
{
    const struct bly_step *on = &b->plan->steps[step->on];
    int dir_fd = bly_nearby_open(&b->in_view, step, b->root_fd);
    int r = 0;

    if (dir_fd < 0)
        return bly_fail_sys(err, errno, "cannot open the directory of the mount point");
    if (must_cover_the_same(step, on))
        r = cover_entry(dir_fd, step, tree_fd, err);
    else if (bly_mounts_attach(tree_fd, dir_fd, bly_path_base(step->path)) < 0)
        r = bly_fail_sys(err, errno, "cannot attach it");
    /* What was opened there lies under the new mount now. */
    if (b->in_view.dir && bly_path_is_within(b->in_view.dir, step->path))
        bly_nearby_forget(&b->in_view);
    return r;
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
static int clone_entry(struct bly_build *b, const struct bly_step *step, bool recursive,
                       struct bly_err *err)
{
    bool is_root = step->path[1] == '\0';
    int dir_fd = is_root ? b->host_fd : bly_nearby_open(&b->on_host, step, b->host_fd);
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

int bly_mounts_clone_host(struct bly_build *b, const struct bly_step *step, int *ret_fd,
                          struct bly_err *err)
{
    bool recursive = step->kind != BLY_STEP_PIN_LINK;
    uint64_t attributes = (bly_mounts_has_devices(b->plan) ? bly_quiet : 0) |
                          (is_writable_kind(step->kind) ? 0 : MOUNT_ATTR_RDONLY);
    bly_autofd int tree = clone_entry(b, step, recursive, err);

    if (tree < 0)
        return tree;
    if (step->kind == BLY_STEP_WRITE && step->path[1] != '\0') {
        int r = check_writable(tree, err);

        if (r < 0)
            return r;
    }
    if (attributes != 0 && bly_mounts_set_attributes(tree, attributes, recursive) < 0)
        return bly_fail_sys(err, errno, "cannot make it %s",
                            is_writable_kind(step->kind) ? "nosuid and nodev" : "read-only");
    *ret_fd = bly_take_fd(&tree);
    return 0;
}

unsigned bly_mounts_rights_of(const struct bly_build *b, const struct bly_step *step)
{
    unsigned run = b->plan->purpose == BLY_FOR_PROCESS ? BLY_LOCK_EXECUTE : 0;

    if (step->kind == BLY_STEP_WRITE)
        return BLY_LOCK_WRITE;
    return step->kind == BLY_STEP_READ ? BLY_LOCK_READ | run : 0;
}

int bly_mounts_do_clone(struct bly_build *b, size_t i, struct bly_err *err)
{
    const struct bly_step *step = &b->plan->steps[i];
    bly_autofd int tree = -EBADF;
    int r = bly_mounts_clone_host(b, step, &tree, err);

    if (r == 0)
        r = bly_mounts_make_point(b, i, step->node.type == BLY_NODE_DIR, err);
    if (r == 0)
        r = bly_mounts_place(b, step, tree, err);
    if (r == 0)
        r = bly_lock_allow(b->lock_fd, tree, bly_mounts_rights_of(b, step), err);
    return r;
}
