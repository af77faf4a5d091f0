#pragma once

/*
 * What exists: the only window the pure planning code has onto a disk. Tests give a fake one.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct bly_kept;

enum bly_node_type { BLY_NODE_ABSENT, BLY_NODE_DIR, BLY_NODE_FILE, BLY_NODE_LINK, BLY_NODE_OTHER };

struct bly_node {
    enum bly_node_type type;
    uint64_t dev, ino; /* 0 when absent */
    uint32_t mode;     /* permission bits */
};

typedef int (*bly_probe_each)(void *arg, const char *name, enum bly_node_type type);

struct bly_probe {
    /* lstat(2) of `path`. 0 (absent is an answer, also below a file); negative errno when
     * unknowable. */
    int (*look)(void *ctx, const char *path, struct bly_node *ret_node);
    /* readlink(2), malloc'ed. */
    int (*read_link)(void *ctx, const char *path, char **ret_target);
    /* First `max` bytes of a regular file (a .git pointer, the mount table), malloc'ed and
     * NUL-terminated. -ENOENT when absent; symlinks are not followed. */
    int (*read_small)(void *ctx, const char *path, size_t max, char **ret_text);
    /* Names in a directory except . and .., one call each until it returns non-zero. `type` is
     * BLY_NODE_ABSENT where the directory does not tell. Says before the first one whether the
     * directory folds case (`ret_folds` may be NULL, and `each` when only that is asked). For deny
     * globs. */
    int (*list)(void *ctx, const char *path, bool *ret_folds, bly_probe_each each, void *arg);
    void *ctx;
    struct bly_kept *kept; /* of deny globs, what was found before; may be NULL. See kept.h */
};

/* The real disk. Blocks: call it from a pool thread or a child, never from the loop. */
extern const struct bly_probe bly_probe_disk;
