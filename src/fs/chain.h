#pragma once

/*
 * The directories from the top of a tree down to where a recursive operation works now. Trees may
 * be thousands of levels deep, so only the deepest few descriptors stay open; the way back up goes
 * through ".." and is believed only when it leads to the directory we came from (device and inode).
 * Blocking, one owner.
 */
#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

struct bly_err;

enum { BLY_CHAIN_OPEN = 32, BLY_CHAIN_END = 1 };

struct bly_level;

struct bly_chain {
    int flags;   /* of open(2) for the directories */
    bool rewind; /* after coming back to a closed directory read it from its start */
    struct bly_level *levels;
    size_t n, cap, first_open;
    struct bly_buf path; /* NUL-terminated: the base path and the names below */
};

/* `base` is the canonical name of the top, for decisions and texts; "" when nobody needs it. */
int bly_chain_init(struct bly_chain *chain, int flags, bool rewind, const char *base);
void bly_chain_deinit(struct bly_chain *chain);

/* Goes down to `fd` (consumed, also on failure), which is `name` in the directory at the end; the
 * top has the name "". */
int bly_chain_push(struct bly_chain *chain, int fd, const char *name, struct bly_err *err);

/* Goes up by one. Fails with ESTALE when the directory has been moved away meanwhile. */
int bly_chain_pop(struct bly_chain *chain, struct bly_err *err);

/* The directory at the end; borrowed. */
int bly_chain_fd(const struct bly_chain *chain);

/* Its last name: what to remove after a pop. Valid until the next push. */
const char *bly_chain_name(const struct bly_chain *chain);

/* Its path: the base and the names below. Valid until the next push. */
const char *bly_chain_here(const struct bly_chain *chain);

/* The path of `name` in it; valid until the next call. NULL: out of memory. */
const char *bly_chain_path(struct bly_chain *chain, const char *name);

/* Next entry of the directory at the end: 0, BLY_CHAIN_END or negative errno. */
int bly_chain_next(struct bly_chain *chain, const struct dirent64 **ret_entry, struct bly_err *err);
