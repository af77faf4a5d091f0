#pragma once

/*
 * What the files of fs/ops share and nobody else needs. Errors and threads as in fs/ops.h.
 */
#include <sys/stat.h>

#include "fs/ops.h"

struct bly_place;

/* BLY_ERR_INVALID "path `P` is not a file". */
int bly_ops_not_a_file(const char *path, struct bly_err *err);

/* BLY_ERR_INVALID "file is too large to read: ...". */
int bly_ops_too_large(struct bly_err *err);

/*
 * Opens a regular file for writing, following a link at the end, and creates it with `mode` when it
 * is missing; nothing is truncated yet.
 */
int bly_ops_open_target(const struct bly_view *view, const char *path, bool no_follow, mode_t mode,
                        int *ret_fd, struct stat *ret_st, struct bly_err *err);

/* Refuses what is not a regular file. */
int bly_ops_accept_target(const char *path, int fd, struct stat *ret_st, struct bly_err *err);

/* Empties the file behind `fd` unless `st` says that it is empty. */
int bly_ops_truncate(const char *path, int fd, const struct stat *st, struct bly_err *err);

int bly_ops_write_all(const struct bly_view *view, int fd, const void *data, size_t len,
                      struct bly_err *err);

/*
 * mkdir -p in two steps, so that fs/copy can look at the place in between. The first finds the
 * directory or the first missing name; the second makes what is missing and leaves the directory's
 * O_PATH descriptor in place->fd and its canonical name in place->canonical.
 */
int bly_ops_look_for_making(const struct bly_view *view, const char *path, bool no_follow,
                            struct bly_place *place, struct bly_err *err);
int bly_ops_make_path(const struct bly_view *view, const char *path, struct bly_place *place,
                      struct bly_err *err);
