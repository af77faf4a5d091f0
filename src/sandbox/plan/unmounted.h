#pragma once

/*
 * What is left of a plan where nothing can be mounted and only Landlock stands: what it would lose,
 * and what must not be granted of the trees it shows. For sandbox/enforce. Pure.
 */
struct bly_plan;

/* What of the plan only a mount namespace can enforce. */
enum bly_plan_needs {
    BLY_NEEDS_HOLDING_BACK = 1, /* part of a granted directory is denied or read-only; anything
                                   writable has protected names in it, so it counts */
    BLY_NEEDS_HIDING = 2,       /* not everything may be read */
};
unsigned bly_plan_needs(const struct bly_plan *plan);

enum bly_closure {
    BLY_CLOSURE_NONE,   /* nothing at or below it is closed */
    BLY_CLOSURE_PARTLY, /* something below it is */
    BLY_CLOSURE_WHOLE,
};

/*
 * Whether `path` (absolute, normalised) belongs to the machine and not to its files: devices, the
 * kernel's internals below /sys, and for a helper, which has no pid namespace of its own then, all
 * of /proc and of every other procfs. Such things have their own mounts in a view; without one
 * nothing of them is granted. Another procfs counts only as long as the plan holds nothing back.
 */
enum bly_closure bly_plan_closure(const struct bly_plan *plan, const char *path);
