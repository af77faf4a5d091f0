#include "launcher/bounds.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"

int bly_bounds_pack(const struct bly_bounds *bounds, struct bly_buf *buf)
{
    (void)bly_buf_put_u64(buf, bounds->tasks);
    (void)bly_buf_put_u64(buf, bounds->memory_bytes);
    (void)bly_buf_put_u8(buf, bounds->tasks_asked);
    return bly_buf_put_str(buf, bounds->cgroup);
}

int bly_bounds_unpack(struct bly_reader *reader, struct bly_bounds *ret_bounds, char **ret_cgroup)
{
    struct bly_bounds bounds = {.tasks = bly_get_u64(reader), .memory_bytes = bly_get_u64(reader)};
    bly_autofree char *cgroup = NULL;

    bounds.tasks_asked = bly_get_u8(reader) == 1;
    cgroup = bly_get_str(reader);
    if (reader->bad)
        return -EBADMSG;
    *ret_cgroup = bly_take_ptr(&cgroup);
    bounds.cgroup = *ret_cgroup;
    *ret_bounds = bounds;
    return 0;
}

/* One child besides itself may be, and a second one not: then it is this namespace that is counted,
 * and the bound holds. */
static _Noreturn void try_inside(void)
{
    const struct rlimit two = {2, 2};
    pid_t first, second;

    if (setrlimit(RLIMIT_NPROC, &two) < 0)
        _exit(1);
    first = fork();
    if (first == 0)
        _exit(0);
    second = fork(); /* The first one counts until somebody waits for it. */
    if (second == 0)
        _exit(0);
    _exit(first > 0 && second < 0 ? 0 : 1);
}

static bool try_namespace(void)
{
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0UL, 0UL, 0UL, 0UL);
    int status = -1;

    if (pid == 0)
        try_inside();
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0;
}

void bly_bounding_init(struct bly_bounding *bounding, const struct bly_bounds *bounds, pid_t server)
{
    struct bly_err err = {0};

    *bounding = (struct bly_bounding){
        .max = {bounds->tasks, bounds->memory_bytes},
        .must_hold = bounds->tasks_asked || bounds->memory_bytes > 0 || bounds->cgroup != NULL,
        .cgroup = {.parent_fd = -EBADF, .fd = -EBADF},
    };
    if (bounds->tasks == 0 && bounds->memory_bytes == 0)
        return;
    if (bly_cgroup_open(bounds->cgroup, &bounding->max, server, &bounding->cgroup, &err) == 0)
        return;
    (void)snprintf(bounding->why, sizeof(bounding->why), "%.*s", BLY_WHY_MAX - 1, err.text);
    /* It counts tasks only, and is not what somebody wants who names a cgroup. */
    if (bounds->memory_bytes == 0 && bounds->cgroup == NULL)
        bounding->by_namespace = try_namespace();
}

void bly_bounding_deinit(struct bly_bounding *bounding)
{
    bly_cgroup_close(&bounding->cgroup);
}

int bly_bounding_choose(const struct bly_bounding *bounding, uint64_t clone_flags,
                        enum bly_bound *ret_bound, struct bly_err *err)
{
    *ret_bound = BLY_BOUND_NOTHING;
    if (bounding->max.tasks == 0 && bounding->max.memory_bytes == 0)
        return 0;
    if (bounding->cgroup.fd >= 0)
        *ret_bound = BLY_BOUND_CGROUP;
    else if (bounding->by_namespace && (clone_flags & CLONE_NEWUSER))
        *ret_bound = BLY_BOUND_NAMESPACE;
    else if (bounding->must_hold)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOTSUP,
                        "the bounds asked for cannot be enforced: %s", bounding->why);
    return 0;
}

void bly_bounding_describe(const struct bly_bounding *bounding, struct bly_features *features)
{
    struct bly_err err = {0};
    enum bly_bound bound;
    /* A user namespace may be had where no wall can be built with it: Ubuntu's AppArmor does that.
     */
    uint64_t clone_flags = features->works[BLY_WALL_PROCESS_ONLINE] ? CLONE_NEWUSER : 0;
    int r = bly_bounding_choose(bounding, clone_flags, &bound, &err);

    features->bound = (uint8_t)(r < 0 ? BLY_BOUND_REFUSED : bound);
    (void)snprintf(features->why_no_cgroup, sizeof(features->why_no_cgroup), "%s", bounding->why);
}
