#pragma once

/*
 * Paths and file URIs. Inside bailey a path is an absolute, lexically normalised, NUL-terminated
 * string of bytes ("/", "/a/b"; no ".", "..", "//" or trailing slash), at most BLY_PATH_MAX bytes
 * long. Pure functions, any thread, no system calls. Rules: docs/PROTOCOL.md (spec 4.4.1).
 */
#include <stdbool.h>
#include <stddef.h>

struct bly_buf;
struct bly_err;

enum {
    BLY_PATH_MAX = 1 << 16
}; /* bytes; the kernel's own limit (PATH_MAX) shows as ENAMETOOLONG */

/*
 * Turns a path from the wire (JSON string, UTF-8, may contain NUL) into a native path: raw absolute
 * when it begins with '/', file URI when it begins with "file:" (any case, after leading white
 * space and control characters). Returns 0 and the caller owns `*ret_path`; -EINVAL with `err` set,
 * kind BLY_ERR_PARAMS or BLY_ERR_INVALID as the protocol wants, on anything else; -ENOMEM.
 */
int bly_path_from_wire(const char *text, size_t len, char **ret_path, struct bly_err *err);

/* Normalises an absolute native path of `len` bytes lexically. -EINVAL when relative or with a NUL.
 */
int bly_path_normalise(const char *path, size_t len, char **ret_path);

/* True when normalising path[0..len) would change nothing: it is a path in our sense. */
bool bly_path_is_normal(const char *path, size_t len);

/* Appends "file://" and the escaped path. Returns buf->error. */
int bly_path_to_uri(struct bly_buf *buf, const char *path);

/* True when `path` is `dir` or lies below it (component-wise; both normalised). */
bool bly_path_is_within(const char *path, const char *dir);

/*
 * Order of a walk through a tree: a directory, everything below it, then its next neighbour. What
 * lies below a path stands right behind it in a sorted list.
 */
int bly_path_compare(const char *a, const char *b);

/*
 * The path in the list that is `path` or lies above it, or NULL. The list is sorted by
 * bly_path_compare() and none of it lies below another. Logarithmic.
 */
const char *bly_path_holder(const char *const *sorted, size_t n, const char *path);

/* The path `rest` (relative, may contain "..") below `dir`, normalised. NULL: out of memory. */
char *bly_path_join(const char *dir, const char *rest);

/* Number of components; "/" has 0. */
size_t bly_path_depth(const char *path);

/* The directory that holds `path`, "/" for "/" itself. NULL: out of memory. */
char *bly_path_parent(const char *path);

/* Last component (borrowed, inside `path`); "" for "/". */
const char *bly_path_base(const char *path);
