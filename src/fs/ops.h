#pragma once

/*
 * Every file operation, once. The direct file system calls this on a pool thread, the warm helper
 * and the one-shot helper call it inside the wall. Blocking system calls, no threads, no globals,
 * no JSON. All paths a client named go through fs/view, which decides (with a policy) and opens by
 * descriptor.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/fs.h"

struct bly_policy;

struct bly_view {
    const struct bly_policy *policy; /* NULL: direct, no decision */
    const struct bly_policy *folded; /* see fs/fold.h */
    const atomic_bool *cancelled; /* NULL: cannot be cancelled; checked at each entry and block */
};

/* Each returns 0 or a negative errno with `err` set as protocol.md 4.4, 4.5.3 and 6 want. */
int bly_ops_metadata(const struct bly_view *view, const char *path, bool no_follow,
                     struct bly_fs_metadata *ret_metadata, struct bly_err *err);

/* A regular file, opened for reading, its fstat size in *ret_size. Anything else is refused. The
 * descriptor stays non-blocking: some files of /proc are regular and would wait. */
int bly_ops_open_read(const struct bly_view *view, const char *path, bool no_follow, int *ret_fd,
                      uint64_t *ret_size, struct bly_err *err);

/* Creates or truncates in place, for fs/open mode replace and fs/writeFile; write-only. */
int bly_ops_open_replace(const struct bly_view *view, const char *path, bool no_follow, int *ret_fd,
                         struct bly_err *err);

int bly_ops_write_file(const struct bly_view *view, const char *path, bool no_follow,
                       const void *data, size_t len, struct bly_err *err);
/* The same with `len` bytes from the start of `data_fd`, a memory file. */
int bly_ops_write_from(const struct bly_view *view, const char *path, bool no_follow, int data_fd,
                       size_t len, struct bly_err *err);
int bly_ops_create_directory(const struct bly_view *view, const char *path, bool recursive,
                             bool no_follow, struct bly_err *err);
int bly_ops_read_directory(const struct bly_view *view, const char *path, struct bly_buf *entries,
                           size_t *ret_n, struct bly_err *err);
int bly_ops_remove(const struct bly_view *view, const char *path, bool recursive, bool force,
                   bool no_follow, struct bly_err *err);
int bly_ops_copy(const struct bly_view *view, const char *source, const char *destination,
                 bool recursive, struct bly_err *err);
int bly_ops_canonicalize(const struct bly_view *view, const char *path, char **ret_path,
                         struct bly_err *err);
int bly_ops_walk(const struct bly_view *view, const char *path, const struct bly_fs_walk *options,
                 struct bly_buf *entries, size_t *ret_n, bool *ret_truncated, struct bly_err *err);

/*
 * Reads an open regular file to its end (files of /proc say size 0 and are read all the same) into
 * malloc'ed memory laid out as struct bly_fs_reply says, base64 done. BLY_FS_READ_MAX applies, by
 * size before and by count while reading. When the text would exceed max_text_bytes: 0 and
 * *ret_too_long set, nothing read.
 */
int bly_ops_read_base64(const struct bly_view *view, int fd, uint64_t size, size_t max_text_bytes,
                        char **ret_mem, size_t *ret_text_len, uint64_t *ret_too_long,
                        struct bly_err *err);

/*
 * A file of procfs, sysfs and their kind: what is read depends on who reads, so its descriptor must
 * not leave a wall. Also true when nobody knows.
 */
bool bly_ops_is_kernel_file(int fd);

/* Bytes as text in the memory layout of struct bly_fs_reply. -ENOMEM. */
int bly_ops_text_of(const void *data, size_t n, char **ret_mem, size_t *ret_text_len);

/* Blocks of an open file handle; lengths and ranges are checked here. */
int bly_ops_read_block(int fd, uint64_t offset, size_t len, char **ret_mem, size_t *ret_text_len,
                       bool *ret_eof, struct bly_err *err);
int bly_ops_write_block(int fd, uint64_t offset, const void *data, size_t len, struct bly_err *err);
