#pragma once

/*
 * What one walled program and all it starts may take together, and what enforces that here: a
 * control group of its own, or, for the number of tasks alone, RLIMIT_NPROC in its user namespace
 * (since Linux 5.14 counted by namespace; never for root, whom the kernel exempts). Launcher and
 * spawner only.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "launcher/cgroup.h"
#include "launcher/launcher.h"
#include "sandbox/enforce/rung.h"

struct bly_buf;
struct bly_err;
struct bly_plan;
struct bly_reader;

struct bly_bounding {
    struct bly_cgroup_max max;
    bool must_hold;           /* the operator asked: without it nothing walled is started */
    struct bly_cgroup cgroup; /* parent_fd, fd -EBADF: none */
    bool by_namespace;        /* RLIMIT_NPROC holds in a user namespace */
    char why[BLY_WHY_MAX];    /* there is no cgroup; "" when there is, or none was needed */
};

/* As bytes, for BLY_WIRE_BOUNDS. Return buf->error, and 0 or -EBADMSG; `*ret_cgroup` is owned. */
int bly_bounds_pack(const struct bly_bounds *bounds, struct bly_buf *buf);
int bly_bounds_unpack(struct bly_reader *reader, struct bly_bounds *ret_bounds, char **ret_cgroup);

/* Finds out by trying. `server` is moved along, see cgroup.h. */
void bly_bounding_init(struct bly_bounding *bounding, const struct bly_bounds *bounds,
                       pid_t server);
void bly_bounding_deinit(struct bly_bounding *bounding);

/*
 * What bounds a wall that is born with `clone_flags`. Negative, with BLY_ERR_UNSUPPORTED and a
 * reason: what the operator asked for cannot be had, and nothing may be run.
 */
int bly_bounding_choose(const struct bly_bounding *bounding, uint64_t clone_flags,
                        enum bly_bound *ret_bound, struct bly_err *err);

/* What ordinary walls get, among the `features` that have been probed. */
void bly_bounding_describe(const struct bly_bounding *bounding, struct bly_features *features);
