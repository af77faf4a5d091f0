#pragma once

/*
 * Reading a directory by descriptor, a few kilobytes of names at a time. One owner, blocking.
 */
#include <dirent.h>
#include <stddef.h>
#include <stdint.h>

enum { BLY_DIR_BYTES = 8192, BLY_DIR_END = 1 };

struct bly_dir {
    int fd; /* borrowed */
    size_t pos, len;
    int64_t resume; /* where the entry after the latest one begins, for lseek(2) */
    union {
        struct dirent64 align;
        char bytes[BLY_DIR_BYTES];
    } u;
};

void bly_dir_init(struct bly_dir *dir, int fd);

/*
 * The next entry that is not "." or "..": 0 and `*ret_entry`, valid until the next call;
 * BLY_DIR_END; negative errno.
 */
int bly_dir_next(struct bly_dir *dir, const struct dirent64 **ret_entry);
