#pragma once

/*
 * Between the files of sandbox/enforce. Everything here acts on the calling process, once, and
 * cannot be undone. Functions return 0 or a negative errno with `err` set.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/enforce/wall.h"

struct bly_err;
struct bly_plan;
struct bly_step;
struct sock_filter;

/*
 * Every step of building a wall passes through here with its name. Returns 0, or with failure
 * injection (bly_wall_fail_at) the injected error.
 */
int bly_wall_step(const char *name, struct bly_err *err);

/* ---- landlock.c: the second wall ---- */

/* What a rule allows; which rights that is depends on the kernel's ABI. */
enum bly_lock_rights {
    BLY_LOCK_LIST = 1,    /* list directories */
    BLY_LOCK_READ = 2,    /* read files, list directories */
    BLY_LOCK_EXECUTE = 4, /* run them */
    BLY_LOCK_WRITE = 8,   /* all of the above and change, create, remove, move */
    BLY_LOCK_DEVICE = 16, /* read and write an existing device, with ioctl */
};

/*
 * Begins a ruleset that allows nothing. `*ret_fd` is -EBADF when this kernel has no Landlock that
 * helps; the calls below then do nothing.
 */
int bly_lock_new(const struct bly_plan *plan, int *ret_fd, struct bly_err *err);
/* Allows `rights` at and below what `path_fd` (O_PATH) refers to. */
int bly_lock_allow(int lock_fd, int path_fd, unsigned rights, struct bly_err *err);
int bly_lock_apply(int lock_fd, struct bly_err *err);

/* ---- mounts*.c: the first wall ---- */

/* Builds the view and moves into it. `lock_fd` gets the rules. `*ret_has_proc` is false when no
 * procfs could be had. */
int bly_mounts_enter(const struct bly_plan *plan, int lock_fd, bool *ret_has_proc,
                     struct bly_err *err);

/* Opens (O_PATH) what the plan saw at the step's path below `host_fd`, or fails: a path that now
 * leads elsewhere is not what was granted. Returns the descriptor. */
int bly_mounts_open_source(int host_fd, const struct bly_step *step, struct bly_err *err);

/* Allows the devices every program expects; `host_dev` is /dev. */
int bly_mounts_allow_devices(int lock_fd, int host_dev, struct bly_err *err);

/* ---- caps.c ---- */

/* Empties all five sets and locks the securebits. */
int bly_caps_drop_all(struct bly_err *err);
/* The same outside of a user namespace of our own, where an ordinary user may not touch the
 * bounding set and the securebits: there is nothing to regain then, with no_new_privs. */
int bly_caps_drop_ours(struct bly_err *err);
/* Takes away what could reach around a network-only wall (6.2), in all five sets. */
int bly_caps_drop_reaching(struct bly_err *err);
/* True when the calling process has CAP_SYS_ADMIN and CAP_NET_ADMIN. */
bool bly_caps_can_unshare(void);

/* ---- filter.c ---- */

int bly_filter_compile_all(struct bly_err *err);
/* The compiled program, borrowed; NULL before bly_filter_compile_all(). */
const struct sock_filter *bly_filter_program(enum bly_filter filter, size_t *ret_n);
int bly_filter_install(enum bly_filter filter, struct bly_err *err);

/* ---- wall.c ---- */

/* RLIMIT_CORE, and for a helper RLIMIT_AS. */
int bly_wall_set_limits(enum bly_filter filter, struct bly_err *err);
