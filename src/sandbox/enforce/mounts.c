/*
 * The file view: the order in which it is built and entered. mounts_internal.h says how, and what
 * the other files are for.
 */
#include "sandbox/enforce/mounts_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"

static void build_deinit(struct bly_build *b)
{
    bly_nearby_forget(&b->on_host);
    bly_nearby_forget(&b->in_stage);
    bly_nearby_forget(&b->in_view);
    b->host_fd = bly_close(b->host_fd);
    b->stage_fd = bly_close(b->stage_fd);
    b->dead_fd = bly_close(b->dead_fd);
    b->root_fd = bly_close(b->root_fd);
}

static int do_step(struct bly_build *b, size_t i, struct bly_err *err)
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
        return bly_mounts_do_clone(b, i, err);
    case BLY_STEP_MASK_DIR:
    case BLY_STEP_MASK_FILE:
        return bly_mounts_do_mask(b, i, err);
    case BLY_STEP_PROC:
        return bly_mounts_do_proc(b, i, err);
    case BLY_STEP_PROC_READ:
        return bly_mounts_do_proc_read(b, i, err);
    case BLY_STEP_DEV:
        return bly_mounts_do_dev(b, i, err);
    case BLY_STEP_SHM:
        return bly_mounts_do_shm(b, i, err);
    case BLY_STEP_LINK:
        return bly_mounts_make_point(b, i, false, err);
    case BLY_STEP_TMPFS:
    case BLY_STEP_KINDS:
        break;
    }
    return bly_fail(err, BLY_ERR_BUG, EINVAL, "a step of an unknown kind");
}

static int make_root(struct bly_build *b, struct bly_err *err)
{
    const struct bly_step *root = &b->plan->steps[0];
    unsigned rights = bly_mounts_rights_of(b, root);
    int r;

    if (root->kind == BLY_STEP_TMPFS) {
        if (mkdirat(b->stage_fd, BLY_STAGE_ROOT, root->mode) < 0)
            return bly_fail_sys(err, errno, "cannot make an empty root");
        /* Programs list the directories above them; the view has nothing else to show there. */
        rights = b->plan->purpose == BLY_FOR_PROCESS ? BLY_LOCK_LIST : 0;
        b->root_fd = bly_mounts_clone_stage(b, BLY_STAGE_ROOT, err);
        r = b->root_fd < 0 ? b->root_fd : 0;
    } else {
        r = bly_mounts_clone_host(b, root, &b->root_fd, err);
    }
    if (r < 0)
        return r;
    if (bly_mounts_attach(b->root_fd, b->host_fd, "") < 0)
        return bly_fail_sys(err, errno, "cannot attach the new root");
    return bly_lock_allow(b->lock_fd, b->root_fd, rights, err);
}

/* Into the view, and the old root out of reach. */
static int pivot(struct bly_build *b, struct bly_err *err)
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
static int leave_stage(struct bly_build *b, struct bly_err *err)
{
    if (b->stage_fd >= 0 && (fchdir(b->stage_fd) < 0 || umount2(".", MNT_DETACH) < 0))
        return bly_fail_sys(err, errno, "cannot detach the private tmpfs");
    if (chdir("/") < 0)
        return bly_fail_sys(err, errno, "cannot enter the root");
    return 0;
}

static int keep_root(struct bly_build *b, struct bly_err *err)
{
    b->root_fd = fcntl(b->host_fd, F_DUPFD_CLOEXEC, 3);
    return b->root_fd < 0 ? bly_fail_sys(err, errno, "cannot open the root") : 0;
}

static int begin(struct bly_build *b, struct bly_err *err)
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
        r = bly_mounts_make_stage(b, err);
    if (r == 0 && b->root_fd < 0)
        r = make_root(b, err);
    return r;
}

static int do_steps(struct bly_build *b, struct bly_err *err)
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
static int quieten(struct bly_build *b, struct bly_err *err)
{
    int r = bly_wall_step("attributes", err);

    if (r < 0 || bly_mounts_has_devices(b->plan))
        return r;
    if (bly_mounts_set_attributes(b->root_fd, bly_quiet, true) < 0)
        return bly_fail_sys(err, errno, "cannot make the view nosuid and nodev");
    return 0;
}

int bly_mounts_enter(const struct bly_plan *plan, int lock_fd, bool *ret_has_proc,
                     struct bly_err *err)
{
    __attribute__((cleanup(build_deinit))) struct bly_build b = {.plan = plan,
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
