#pragma once

/*
 * Carries out a plan. The only code that mounts, unshares, drops privilege, restricts with Landlock
 * and installs seccomp filters; knows nothing about JSON or policies. Everything here runs in a
 * fresh single-threaded child and cannot be undone. A failure at any step means: report and _exit;
 * nothing may be run in a half-built wall. Spec: sandbox.md section 8.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_err;
struct bly_plan;

/* CLONE_NEW* flags the child must be born with (clone(2), clone3(2)); it is pid 1 of its pid
 * namespace. */
uint64_t bly_wall_clone_flags(const struct bly_plan *plan);

enum bly_filter {
    BLY_FILTER_HELPER,          /* allow-list: what fs/ops needs, nothing else */
    BLY_FILTER_PROCESS_OFFLINE, /* deny-list of spec 6.5 with the network group */
    BLY_FILTER_PROCESS_ONLINE,  /* deny-list with the network on */
    BLY_FILTER_LOCKED,          /* on top of the two before: what else Landlock leaves open */
    BLY_FILTER_COUNT,
};

/*
 * Compiles all seccomp filters (libseccomp is too slow to do it per child). Call once in the
 * launcher before the first fork; children inherit the result.
 */
int bly_wall_prepare(struct bly_err *err);

/* Landlock ABI of this kernel; 0: none, then the second wall is missing (the first is whole). */
int bly_wall_landlock_abi(void);

/*
 * In the new child (pid 1, right after clone): id maps, propagation, mount plan, pivot_root,
 * read-only root, no_new_privs, Landlock. Afterwards "/" is the view, also for what the child
 * forks, and Landlock holds for all of them as one domain: they may signal each other. Descriptors
 * of the caller stay open. A failure says which step and why ("mount 4 of 9, /w/.git: cannot make
 * it read-only: Operation not permitted"). The supplementary groups are the caller's business
 * before the clone: inside a user namespace they cannot be dropped any more.
 */
int bly_wall_enter(const struct bly_plan *plan, struct bly_err *err);

/* After bly_wall_enter(): true when no procfs could be had (containers mask parts of theirs); the
 * view has an empty /proc then. Worth a line in the log. */
bool bly_wall_lacks_proc(void);

/*
 * In the process that will run inside (for a helper the same one): limits, capability sets,
 * securebits, not dumpable, then the filter. Must come last: most calls are gone afterwards.
 * Descriptors and signals are the caller's business, before this. `ret_listener_fd` (NULL for a
 * helper) receives the descriptor of supervised creation (supervise.h), -EBADF when the plan needs
 * none; it belongs to pid 1.
 */
int bly_wall_seal(const struct bly_plan *plan, enum bly_filter filter, int *ret_listener_fd,
                  struct bly_err *err);

/*
 * Before bly_wall_seal(), in a wall with a user namespace of its own: at most so many tasks in that
 * namespace, this one and pid 1 included (RLIMIT_NPROC; launcher/bounds.h says where it holds). 0:
 * no bound.
 */
int bly_wall_bound_tasks(uint64_t max_tasks, struct bly_err *err);

/*
 * For pid 1 of a process wall after it forked the program: no capabilities, not dumpable, no core
 * files. Not before the fork: the program needs them to seal itself.
 */
int bly_wall_seal_init(const struct bly_plan *plan, struct bly_err *err);

/*
 * Rung 2: the wall where namespaces cannot be used. Only for plans that bly_rung_choose() gives
 * this rung. Both in the process that will run inside, which is an ordinary fork (clone flags 0) of
 * a process outside of it: enter opens what the plan grants and applies no_new_privs and Landlock,
 * seal is as above. "/" stays the host's. A failure means the same.
 */
int bly_wall_enter_locked(const struct bly_plan *plan, struct bly_err *err);
int bly_wall_seal_locked(const struct bly_plan *plan, enum bly_filter filter, struct bly_err *err);

/* bly_wall_seal_init() for the process that reaps for such a wall. It is not inside. */
int bly_wall_seal_init_locked(struct bly_err *err);

#ifdef BLY_FAULTS
/* Failure injection: from now on the step with this number (from 1) fails with EIO; 0: none. */
void bly_wall_fail_at(unsigned step);
#endif

/* The filter a process under this plan gets. */
enum bly_filter bly_wall_process_filter(const struct bly_plan *plan);

/* The working directory the policy names is not part of the plan: chdir() is the caller's, after
 * enter. */
