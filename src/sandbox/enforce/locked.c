/*
 * Rung 2: Landlock and a filter, without namespaces. The host's tree stays where it is; rules are
 * given to what the plan grants, opened by descriptor and compared with what the plan saw.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "sandbox/enforce/enforce_internal.h"
#include "sandbox/plan/plan_internal.h"
#include "sandbox/plan/unmounted.h"

enum {
    MAX_DEPTH = 16, /* of closed paths: /sys/kernel/debug has three, another procfs may have more */
    MAX_NAMES = 65536, /* beside them, each with a rule of its own */
};

struct locking {
    const struct bly_plan *plan;
    int lock_fd;
    int host_fd;
    size_t n_names;
};

static int allow_tree(struct locking *l, int fd, const char *path, unsigned rights, unsigned depth,
                      struct bly_err *err);

static int allow_entry(struct locking *l, int dir_fd, const char *dir, const char *name,
                       unsigned rights, unsigned depth, struct bly_err *err)
{
    bly_autofd int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    bly_autofree char *path = bly_path_join(dir, name);
    struct stat st;

    if (path == NULL)
        return bly_fail_sys(err, ENOMEM, "cannot name what is in %s", dir);
    if (++l->n_names > MAX_NAMES)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, E2BIG,
                        "Landlock alone cannot go around what is closed below %s: there is too "
                        "much beside it (another procfs? see `findmnt -t proc`)",
                        dir);
    /* What goes away meanwhile needs no rule; links are followed to what has its own. */
    if (fd < 0 || fstat(fd, &st) < 0 || S_ISLNK(st.st_mode))
        return 0;
    return allow_tree(l, fd, path, rights, depth + 1, err);
}

static void closedirp(DIR **dir)
{
    if (*dir != NULL)
        (void)closedir(*dir);
}

/* All of a directory but what is closed: one by one, since Landlock cannot subtract. */
static int allow_entries(struct locking *l, int fd, const char *path, unsigned rights,
                         unsigned depth, struct bly_err *err)
{
    int list_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    __attribute__((cleanup(closedirp))) DIR *dir = list_fd < 0 ? NULL : fdopendir(list_fd);
    int r = 0;

    if (dir == NULL) {
        r = bly_fail_sys(err, errno, "cannot list %s", path);
        (void)bly_close(list_fd);
        return r;
    }
    for (struct dirent *e; r == 0 && (e = readdir(dir)) != NULL;) /* NOLINT(concurrency-*) */
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = allow_entry(l, fd, path, e->d_name, rights, depth, err);
    return r;
}

static int allow_tree(struct locking *l, int fd, const char *path, unsigned rights, unsigned depth,
                      struct bly_err *err)
{
    /* Nobody writes the kernel's files; to read them is a step of its own. */
    if ((rights & BLY_LOCK_WRITE) && bly_path_is_within(path, "/sys"))
        return 0;
    switch (bly_plan_closure(l->plan, path)) {
    case BLY_CLOSURE_WHOLE:
        return 0;
    case BLY_CLOSURE_NONE:
        return bly_lock_allow(l->lock_fd, fd, rights, err);
    case BLY_CLOSURE_PARTLY:
        break;
    }
    if (depth == MAX_DEPTH)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, ELOOP,
                        "Landlock alone cannot go around what is closed so far below %s (another "
                        "procfs? see `findmnt -t proc`)",
                        path);
    return allow_entries(l, fd, path, rights, depth, err);
}

static int allow_step(struct locking *l, const struct bly_step *step, struct bly_err *err)
{
    unsigned run = l->plan->purpose == BLY_FOR_PROCESS ? BLY_LOCK_EXECUTE : 0;
    bly_autofd int fd = -EBADF;

    if (step->kind != BLY_STEP_READ && step->kind != BLY_STEP_WRITE)
        return 0;
    fd = bly_mounts_open_source(l->host_fd, step, err);
    if (fd < 0)
        return fd;
    return allow_tree(l, fd, step->path,
                      step->kind == BLY_STEP_WRITE ? BLY_LOCK_WRITE : BLY_LOCK_READ | run, 0, err);
}

static int allow_steps(struct locking *l, struct bly_err *err)
{
    for (size_t i = 0; i < l->plan->n_steps; i++) {
        int r = bly_wall_step("rule", err);

        if (r == 0)
            r = allow_step(l, &l->plan->steps[i], err);
        if (r < 0)
            return bly_because(err, r, "rule %zu of %zu, %s", i + 1, l->plan->n_steps,
                               l->plan->steps[i].path);
    }
    return 0;
}

/* A program lists "/" and the directories on its way; what is in files stays closed. */
static int allow_surroundings(const struct locking *l, struct bly_err *err)
{
    bly_autofd int dev_fd = -EBADF;
    int r = bly_wall_step("devices", err);

    if (r == 0 && l->plan->steps[0].kind != BLY_STEP_TMPFS)
        r = bly_lock_allow(l->lock_fd, l->host_fd, BLY_LOCK_LIST, err);
    if (r < 0 || l->plan->purpose == BLY_FOR_HELPER)
        return r;
    dev_fd = openat(l->host_fd, "dev", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dev_fd < 0)
        return bly_fail_sys(err, errno, "cannot open the devices of the host");
    return bly_mounts_allow_devices(l->lock_fd, dev_fd, err);
}

int bly_wall_enter_locked(const struct bly_plan *plan, struct bly_err *err)
{
    bly_autofd int lock_fd = -EBADF, host_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct locking l = {.plan = plan, .host_fd = host_fd};
    int r = bly_wall_step("ruleset", err);

    if (r == 0 && plan->network_only)
        r = bly_fail(err, BLY_ERR_BUG, EINVAL, "Landlock is no wall around the network");
    if (r == 0 && host_fd < 0)
        r = bly_fail_sys(err, errno, "cannot open the root");
    if (r == 0)
        r = bly_lock_new(plan, &lock_fd, err);
    if (r == 0 && lock_fd < 0)
        r = bly_fail(err, BLY_ERR_UNSUPPORTED, ENOSYS, "this kernel has no Landlock that helps");
    l.lock_fd = lock_fd;
    if (r == 0)
        r = allow_steps(&l, err);
    if (r == 0)
        r = allow_surroundings(&l, err);
    if (r == 0)
        r = bly_wall_step("no_new_privs", err);
    if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        r = bly_fail_sys(err, errno, "cannot give up new privileges");
    if (r == 0)
        r = bly_wall_step("Landlock", err);
    return r < 0 ? r : bly_lock_apply(lock_fd, err);
}

static int drop_caps(struct bly_err *err)
{
    int r = bly_wall_step("capabilities", err);

    return r < 0 ? r : bly_caps_drop_ours(err);
}

static int become_undumpable(struct bly_err *err)
{
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0
               ? bly_fail_sys(err, errno, "cannot become undumpable")
               : 0;
}

int bly_wall_seal_locked(const struct bly_plan *plan, enum bly_filter filter, struct bly_err *err)
{
    int r;

    if ((filter == BLY_FILTER_HELPER) != (plan->purpose == BLY_FOR_HELPER))
        return bly_fail(err, BLY_ERR_BUG, EINVAL, "this filter does not fit the plan");
    r = bly_wall_set_limits(filter, err);
    if (r == 0)
        r = drop_caps(err);
    if (r == 0)
        r = become_undumpable(err);
    if (r == 0)
        r = bly_wall_step("filter", err);
    if (r == 0 && plan->purpose == BLY_FOR_PROCESS)
        r = bly_filter_install(BLY_FILTER_LOCKED, err);
    return r < 0 ? r : bly_filter_install(filter, err);
}

int bly_wall_seal_init_locked(struct bly_err *err)
{
    int r = drop_caps(err);

    return r < 0 ? r : become_undumpable(err);
}
