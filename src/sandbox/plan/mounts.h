#pragma once

/*
 * The host's mount table. For sandbox/plan only. Blocks as the probe does.
 */
#include <stdbool.h>
#include <stddef.h>

struct bly_err;
struct bly_probe;

#define BLY_MOUNTS_PATH "/proc/self/mountinfo"

/* The texts are borrowed from the table. */
struct bly_mount {
    const char *device; /* "major:minor" */
    const char *root;   /* what of the file system is mounted */
    const char *point;  /* where */
    const char *type;
    size_t point_len;
    bool has_twin; /* for alias.c: the same device is mounted elsewhere, too */
};

struct bly_mounts {
    char *text; /* what the fields point into */
    struct bly_mount *items;
    size_t n;
};

/* Reads the table; without one it is empty. Negative errno with `err` set. */
int bly_mounts_read(const struct bly_probe *probe, struct bly_mounts *mounts, struct bly_err *err);
void bly_mounts_deinit(struct bly_mounts *mounts);

/* What of the table matters to a plan, to be compared; malloc'ed. NULL: out of memory. */
char *bly_mounts_print(const struct bly_mounts *mounts);

/* Both in one. */
int bly_mounts_text(const struct bly_probe *probe, char **ret_text, struct bly_err *err);
