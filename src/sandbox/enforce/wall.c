#include "sandbox/enforce/wall.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/sanitized.h"
#include "sandbox/enforce/enforce_internal.h"
#include "sandbox/enforce/supervise.h"
#include "sandbox/plan/plan_internal.h"

/* The largest file a helper reads is 512 MiB, twice over while it becomes text. */
static const rlim_t helper_memory = 4ULL << 30;

/* What is known before the first child: inside a new user namespace one cannot ask any more. */
static struct {
    bool ready;
    uid_t uid;
    gid_t gid;
    bool can_unshare; /* without a user namespace */
} self;

/* Set in a child that could not mount a procfs. */
static bool lacks_proc;

static unsigned steps_done;
#ifdef BLY_FAULTS
static unsigned fail_at;

void bly_wall_fail_at(unsigned step)
{
    fail_at = step;
    steps_done = 0;
}
#endif

int bly_wall_step(const char *name, struct bly_err *err)
{
    steps_done++;
#ifdef BLY_FAULTS
    if (steps_done == fail_at)
        return bly_fail(err, BLY_ERR_SYSTEM, EIO, "step %u, %s: injected failure", steps_done,
                        name);
#endif
    (void)name;
    (void)err;
    return 0;
}

int bly_wall_prepare(struct bly_err *err)
{
    self.uid = geteuid();
    self.gid = getegid();
    self.can_unshare = bly_caps_can_unshare();
    self.ready = true;
    (void)bly_wall_landlock_abi();
    return bly_filter_compile_all(err);
}

static bool needs_user_namespace(const struct bly_plan *plan)
{
    /* Package managers need real uids; a user namespace with one uid in it has none to offer. */
    return !plan->network_only || !self.can_unshare;
}

uint64_t bly_wall_clone_flags(const struct bly_plan *plan)
{
    uint64_t flags = CLONE_NEWNS | CLONE_NEWPID;

    if (needs_user_namespace(plan))
        flags |= CLONE_NEWUSER;
    /* Its filter lets a helper use nothing of what the others hide, and each takes time to make. */
    if (plan->purpose == BLY_FOR_HELPER)
        return flags;
    flags |= CLONE_NEWIPC;
    if (!plan->network_only)
        flags |= CLONE_NEWUTS | CLONE_NEWCGROUP;
    if (!plan->network)
        flags |= CLONE_NEWNET;
    return flags;
}

enum bly_filter bly_wall_process_filter(const struct bly_plan *plan)
{
    return plan->network ? BLY_FILTER_PROCESS_ONLINE : BLY_FILTER_PROCESS_OFFLINE;
}

bool bly_wall_lacks_proc(void)
{
    return lacks_proc;
}

static int write_file(const char *path, const char *text)
{
    bly_autofd int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        return -errno;
    return 0;
}

/* Own ids to themselves. Without privilege the kernel wants setgroups gone before a gid is
 * mapped. */
static int map_ids(struct bly_err *err)
{
    char uids[64], gids[64];
    int r;

    (void)snprintf(uids, sizeof(uids), "%u %u 1", self.uid, self.uid);
    (void)snprintf(gids, sizeof(gids), "%u %u 1", self.gid, self.gid);
    /* The files below belong to root while the process is not dumpable, and the launcher's
     * children are born so. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
        return bly_fail_sys(err, errno, "cannot become dumpable");
    r = write_file("/proc/self/setgroups", "deny");
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot write setgroups");
    r = write_file("/proc/self/uid_map", uids);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot write uid_map");
    r = write_file("/proc/self/gid_map", gids);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot write gid_map");
    return 0;
}

/* A second lock on nested namespaces, beside the filter. It does not hold everywhere (a container's
 * /proc/sys may be read-only), so the filter never counts on it. */
static void forbid_namespaces(const struct bly_plan *plan)
{
    if (plan->purpose == BLY_FOR_PROCESS && needs_user_namespace(plan))
        (void)write_file("/proc/sys/user/max_user_namespaces", "0");
}

static int enter_user_namespace(const struct bly_plan *plan, struct bly_err *err)
{
    int r = bly_wall_step("id maps", err);

    if (r < 0 || !needs_user_namespace(plan))
        return r;
    r = map_ids(err);
    if (r == 0)
        forbid_namespaces(plan);
    return r;
}

int bly_wall_enter(const struct bly_plan *plan, struct bly_err *err)
{
    bly_autofd int lock_fd = -EBADF;
    bool has_proc = true;
    int r;

    if (!self.ready)
        return bly_fail(err, BLY_ERR_BUG, EINVAL, "the wall was not prepared");
    r = enter_user_namespace(plan, err);
    if (r == 0)
        r = bly_lock_new(plan, &lock_fd, err);
    if (r == 0)
        r = bly_mounts_enter(plan, lock_fd, &has_proc, err);
    if (r == 0)
        r = bly_wall_step("no_new_privs", err);
    if (r < 0)
        return r;
    lacks_proc = !has_proc;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return bly_fail_sys(err, errno, "cannot give up new privileges");
    r = bly_wall_step("Landlock", err);
    return r < 0 ? r : bly_lock_apply(lock_fd, err);
}

static int drop_caps(const struct bly_plan *plan, struct bly_err *err)
{
    int r = bly_wall_step("capabilities", err);

    if (r < 0)
        return r;
    return needs_user_namespace(plan) ? bly_caps_drop_all(err) : bly_caps_drop_reaching(err);
}

static int limit(int resource, rlim_t value, const char *what, struct bly_err *err)
{
    const struct rlimit limit = {value, value};

    if (setrlimit((__rlimit_resource_t)resource, &limit) < 0)
        return bly_fail_sys(err, errno, "cannot limit %s", what);
    return 0;
}

int bly_wall_set_limits(enum bly_filter filter, struct bly_err *err)
{
    struct rlimit now = {0};
    int r = bly_wall_step("limits", err);

    if (r == 0)
        r = limit(RLIMIT_CORE, 0, "core files", err);
    if (r < 0 || filter != BLY_FILTER_HELPER || BLY_SANITIZED)
        return r;
    if (getrlimit(RLIMIT_AS, &now) < 0)
        return bly_fail_sys(err, errno, "cannot read the memory limit");
    return now.rlim_max < helper_memory ? 0 : limit(RLIMIT_AS, helper_memory, "memory", err);
}

int bly_wall_bound_tasks(uint64_t max_tasks, struct bly_err *err)
{
    struct rlimit now;

    if (max_tasks == 0)
        return 0;
    if (getrlimit(RLIMIT_NPROC, &now) < 0)
        return bly_fail_sys(err, errno, "cannot read the limit of processes");
    return now.rlim_max < max_tasks ? 0 : limit(RLIMIT_NPROC, max_tasks, "processes", err);
}

int bly_wall_seal(const struct bly_plan *plan, enum bly_filter filter, int *ret_listener_fd,
                  struct bly_err *err)
{
    bly_autofd int listener = -EBADF;
    int r;

    if ((filter == BLY_FILTER_HELPER) != (plan->purpose == BLY_FOR_HELPER))
        return bly_fail(err, BLY_ERR_BUG, EINVAL, "this filter does not fit the plan");
    if (bly_supervise_needed(plan) && !ret_listener_fd)
        return bly_fail(err, BLY_ERR_BUG, EINVAL, "nobody to supervise");
    r = bly_wall_set_limits(filter, err);
    if (r == 0)
        r = drop_caps(plan, err);
    /* Nobody on the host may look into a helper; a program becomes dumpable again by execve. */
    if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        r = bly_fail_sys(err, errno, "cannot become undumpable");
    if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        r = bly_fail_sys(err, errno, "cannot give up new privileges");
    if (r == 0)
        r = bly_wall_step("filter", err);
    if (r == 0 && bly_supervise_needed(plan))
        r = bly_supervise_install(&listener, err);
    if (r == 0)
        r = bly_filter_install(filter, err);
    if (r < 0)
        return r;
    if (ret_listener_fd)
        *ret_listener_fd = bly_take_fd(&listener);
    return 0;
}

int bly_wall_seal_init(const struct bly_plan *plan, struct bly_err *err)
{
    int r = limit(RLIMIT_CORE, 0, "core files", err);

    if (r == 0)
        r = drop_caps(plan, err);
    if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        r = bly_fail_sys(err, errno, "cannot become undumpable");
    return r;
}
