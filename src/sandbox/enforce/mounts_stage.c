/*
 * The stage: one private tmpfs in which mount points are made that the host does not have, and
 * what is shown in place of something denied. The view has parts of it, read-only.
 */
#include "sandbox/enforce/mounts_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"

/* Directories and files of the stage, with those in mounts_internal.h. */
#define STAGE_MASK "mask" /* with a step's number: a denied directory with something open below */
#define STAGE_DENY "deny" /* mode 0: any other denied directory */
#define STAGE_DEAD "dead" /* where the stage is mounted once more, read-only, to clone from */
#define STAGE_FILE "file" /* mode 0: any denied file */

enum { STAGE_NAME_MAX = 32, STAGE_INODES = 256 };

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
static int anchor_of(const struct bly_build *b, struct bly_err *err)
{
    int fd = bly_open_below(b->host_fd, b->plan->network_only ? "/" : "/proc");

    return fd < 0 ? bly_fail_sys(err, errno, "cannot open /proc of the host") : fd;
}

static int make_stage_entries(struct bly_build *b, struct bly_err *err)
{
    bly_autofd int file =
        openat(b->stage_fd, STAGE_FILE, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0);
    bly_autofd int dead_dir = -EBADF;

    if (file < 0 || mkdirat(b->stage_fd, STAGE_DENY, 0) < 0 ||
        mkdirat(b->stage_fd, STAGE_DEAD, 0) < 0)
        return bly_fail_sys(err, errno, "cannot fill the private tmpfs");
    dead_dir = openat(b->stage_fd, STAGE_DEAD, O_PATH | O_DIRECTORY | O_CLOEXEC);
    b->dead_fd = open_tree(b->stage_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (dead_dir < 0 || b->dead_fd < 0 ||
        bly_mounts_set_attributes(b->dead_fd, bly_dead, false) < 0 ||
        bly_mounts_attach(b->dead_fd, dead_dir, "") < 0)
        return bly_fail_sys(err, errno, "cannot make a read-only view of the private tmpfs");
    return 0;
}

int bly_mounts_make_stage(struct bly_build *b, struct bly_err *err)
{
    char size[32], inodes[32];
    const struct bly_mount_option options[] = {
        {"size", size}, {"nr_inodes", inodes}, {"mode", "0700"}, {NULL, NULL}};
    size_t n = stage_inodes(b->plan);
    bly_autofd int anchor = -EBADF;
    int r;

    if (!needs_stage(b->plan))
        return 0;
    (void)snprintf(size, sizeof(size), "%zuk", 64 + n); /* a long symlink takes a page */
    (void)snprintf(inodes, sizeof(inodes), "%zu", n);
    r = bly_mounts_make_fs("tmpfs", options, (unsigned)(bly_quiet | MOUNT_ATTR_NOEXEC),
                           &b->stage_fd, err);
    if (r < 0)
        return r;
    anchor = anchor_of(b, err);
    if (anchor < 0)
        return anchor;
    if (bly_mounts_attach(b->stage_fd, anchor, "") < 0)
        return bly_fail_sys(err, errno, "cannot attach the private tmpfs");
    return make_stage_entries(b, err);
}

int bly_mounts_clone_stage(struct bly_build *b, const char *name, struct bly_err *err)
{
    int fd = open_tree(b->dead_fd, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);

    return fd < 0 ? bly_fail_sys(err, errno, "cannot clone the private %s", name) : fd;
}

/* Where in the stage the surface that step `i` shows lies. */
static void stage_name(const struct bly_plan *plan, size_t i, char name[STAGE_NAME_MAX])
{
    const struct bly_step *step = &plan->steps[i];

    if (step->kind == BLY_STEP_TMPFS)
        (void)snprintf(name, STAGE_NAME_MAX, BLY_STAGE_ROOT);
    else if (step->kind == BLY_STEP_DEV)
        (void)snprintf(name, STAGE_NAME_MAX, BLY_STAGE_DEV);
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

/* The directory of a step's entry on its private surface, made if need be. Borrowed as it is from
 * bly_nearby_open(). */
static int open_in_stage(struct bly_build *b, const struct bly_step *step, mode_t mode,
                         struct bly_err *err)
{
    const char *rest = step->path + (step->on == 0 ? 0 : strlen(b->plan->steps[step->on].path));
    char base[STAGE_NAME_MAX];
    bly_autofree char *path = NULL;
    int fd, r;

    if (bly_nearby_is(&b->in_stage, step))
        return b->in_stage.fd;
    stage_name(b->plan, step->on, base);
    if (asprintf(&path, "/%s%s", base, rest) < 0)
        return bly_fail_sys(err, ENOMEM, "cannot make a mount point");
    r = make_parents(b->stage_fd, path + 1, mode, err);
    if (r < 0)
        return r;
    *strrchr(path, '/') = '\0';
    fd = bly_nearby_keep(&b->in_stage, step, bly_open_below(b->stage_fd, path));
    return fd < 0 ? bly_fail_sys(err, errno, "cannot open the directory made for it") : fd;
}

int bly_mounts_make_point(struct bly_build *b, size_t i, bool dir, struct bly_err *err)
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

int bly_mounts_do_mask(struct bly_build *b, size_t i, struct bly_err *err)
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
    tree = bly_mounts_clone_stage(b, name, err);
    if (tree < 0)
        return tree;
    r = bly_mounts_make_point(b, i, step->kind == BLY_STEP_MASK_DIR, err);
    return r < 0 ? r : bly_mounts_place(b, step, tree, err);
}
