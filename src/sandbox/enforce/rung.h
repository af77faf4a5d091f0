#pragma once

/*
 * The ladder: which wall a plan gets on this machine. Rung 1 is namespaces with Landlock inside and
 * a system call filter; rung 2, where namespaces are refused, Landlock and the filter alone, for
 * plans that lose nothing by it; rung 3 is a refusal. Pure: what the machine has comes as a struct,
 * filled by launcher/probe.h. Spec: sandbox.md sections 6.8 and 9.
 */
#include <stdbool.h>
#include <stdint.h>

struct bly_err;
struct bly_plan;

enum bly_rung {
    BLY_RUNG_NONE = 0, /* no wall was asked for */
    BLY_RUNG_NAMESPACES = 1,
    BLY_RUNG_LANDLOCK = 2,
    BLY_RUNG_REFUSED = 3,
};

/* Walls that are tried at start, each complete and around a trivial action. */
enum bly_wall_kind {
    BLY_WALL_HELPER,
    BLY_WALL_PROCESS,        /* with a network namespace */
    BLY_WALL_PROCESS_ONLINE, /* the same with the host's network */
    BLY_WALL_NETWORK_ONLY,   /* spec 6.2 */
    BLY_WALL_LANDLOCK,       /* rung 2 */
    BLY_WALL_SUPERVISION,    /* not a wall: names that must not come into being are watched */
    BLY_WALL_KINDS,
};

/* What bounds the tasks and the memory of a walled program (launcher/bounds.h). */
enum bly_bound {
    BLY_BOUND_NOTHING,   /* nothing does, or nobody wants it */
    BLY_BOUND_NAMESPACE, /* RLIMIT_NPROC in its user namespace: tasks alone */
    BLY_BOUND_CGROUP,    /* a control group of its own */
    BLY_BOUND_REFUSED,   /* what was asked for cannot be had: nothing walled is run */
};

enum { BLY_WHY_MAX = 200, BLY_FIX_MAX = 300 };

struct bly_features {
    bool works[BLY_WALL_KINDS];
    char why_not[BLY_WALL_KINDS][BLY_WHY_MAX]; /* "" where it works */
    char fix[BLY_FIX_MAX]; /* how namespaces can be had here; "" when they work or nobody knows */
    bool lacks_proc;       /* views have an empty /proc: none can be mounted here */
    uint8_t landlock_abi;  /* 0: none */
    uint8_t bound;         /* enum bly_bound of an ordinary wall */
    char why_no_cgroup[BLY_WHY_MAX]; /* "": there is one, or none is needed */
    /* What the operator allows (--allow-landlock-fs, --allow-landlock-processes). */
    bool allow_fs, allow_processes;
};

enum { BLY_LANDLOCK_ABI_PROCESS = 6 }; /* signals and abstract sockets; Linux 6.12 */

/*
 * The rung a wall for `plan` is built on: BLY_RUNG_NAMESPACES or BLY_RUNG_LANDLOCK. Negative, with
 * BLY_ERR_UNSUPPORTED and what is missing and how to get it (the caller puts "sandbox unavailable"
 * in front): nothing may be run.
 */
int bly_rung_choose(const struct bly_features *features, const struct bly_plan *plan,
                    struct bly_err *err);

/* What is missing for whole walls around everything; NULL: nothing. Borrowed. */
const char *bly_rung_reason(const struct bly_features *features);

/* The rung of an ordinary request with a writable workspace: what the machine as a whole offers. */
enum bly_rung bly_rung_of_machine(const struct bly_features *features);
