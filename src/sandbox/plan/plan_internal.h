#pragma once

/*
 * The inside of a plan, for sandbox/plan (which makes it) and sandbox/enforce (which carries it
 * out). Everybody else uses plan.h.
 */
#include "sandbox/plan/plan.h"

/*
 * What one step does at `path`. "Private" surfaces are directories of a tmpfs that belongs to the
 * view; only there mount points are created. On every other surface the mount point exists on the
 * host and must be the object the plan saw.
 */
enum bly_step_kind {
    BLY_STEP_TMPFS,     /* the root: empty and private. Only as step 0 */
    BLY_STEP_READ,      /* clone of the host's tree, recursively read-only */
    BLY_STEP_WRITE,     /* clone of the host's tree, writable */
    BLY_STEP_PIN,       /* a writable directory bound onto itself, so that it cannot be renamed */
    BLY_STEP_PIN_LINK,  /* a symlink bound onto itself, so that it cannot be replaced */
    BLY_STEP_MASK_DIR,  /* empty private directory; mode 0, or 0111 when something below is open */
    BLY_STEP_MASK_FILE, /* empty file, mode 0 */
    BLY_STEP_PROC,      /* a procfs of the view's own pid namespace; empty when it cannot be had */
    BLY_STEP_PROC_READ, /* part of that procfs, read-only */
    BLY_STEP_DEV,       /* private /dev with the harmless devices and its own pts */
    BLY_STEP_SHM,       /* private writable tmpfs of bounded size */
    BLY_STEP_LINK,      /* symlink on a private surface, pointing to `text` */
    BLY_STEP_KINDS,
};

struct bly_step {
    enum bly_step_kind kind;
    char *path;           /* in the view, and on the host: a view never renames */
    char *text;           /* BLY_STEP_LINK: the target; otherwise NULL */
    uint32_t mode;        /* BLY_STEP_MASK_DIR, BLY_STEP_TMPFS: permission bits */
    uint32_t on;          /* index of the step whose mount holds the mount point; 0 for step 0 */
    struct bly_node node; /* what the plan saw at `path` on the host; compared again at use */
};

/* The word of bly_plan_print(). */
const char *bly_step_name(enum bly_step_kind kind);

/* True for a surface on which mount points are created. */
static inline bool bly_step_is_private(const struct bly_step *step)
{
    return step->kind == BLY_STEP_TMPFS || step->kind == BLY_STEP_MASK_DIR ||
           step->kind == BLY_STEP_DEV;
}

/*
 * A name that must not come into being: `name` in the existing directory `dir` (canonical). When a
 * rule's path lacks several components this is the first of them.
 */
struct bly_absent {
    char *dir;
    char *name;
};

/* Something the plan depended on. */
enum bly_mark_kind {
    BLY_MARK_NODE,    /* `path` is the node `node`, which may be absent */
    BLY_MARK_LINK,    /* `path` is a symlink with the text `text` */
    BLY_MARK_TEXT,    /* `path` is a regular file that begins with `text` (a .git pointer) */
    BLY_MARK_BLOCKED, /* `path` cannot be looked at */
    BLY_MARK_LISTING, /* `path` is a directory with the names of which `text` is a digest */
    BLY_MARK_MOUNTS,  /* the mount table is `text`, see mounts.h; `path` says where it was read */
    BLY_MARK_LACKS,   /* `path` is a directory in which the protected names of `missing` are not */
    BLY_MARK_KINDS,
};

struct bly_mark {
    enum bly_mark_kind kind;
    char *path;
    char *text;
    struct bly_node node;
    unsigned missing; /* bit N: bly_policy_protected_names[N] */
};

enum { BLY_POINTER_MAX = 8192 }; /* bytes read of a .git pointer file */

struct bly_plan {
    enum bly_purpose purpose;
    bool network;      /* the host's network */
    bool network_only; /* spec 6.2: no file view, only namespaces; the steps lie on the host's tree
                        */
    struct bly_policy *policy;
    struct bly_step *steps; /* shallow first; step 0 is the root, always there */
    size_t n_steps;
    struct bly_absent *absents; /* BLY_FOR_PROCESS only */
    size_t n_absents;
    struct bly_mark *marks;
    size_t n_marks;
    unsigned mark_parts; /* BLY_PLAN_NAMES ...: kinds among them */
    char **write_roots;
    size_t n_write_roots;
    char **link_dirs;
    size_t n_link_dirs;
};
