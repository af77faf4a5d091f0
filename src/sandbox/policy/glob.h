#pragma once

/*
 * Deny patterns. A *simple* pattern is absolute, normalised like a path and made of literal bytes,
 * \x (x itself), ?, *, ** and [classes]; alternatives {a,b} are gone. The matcher takes any text
 * without trouble; only the compiler says what is no pattern. For sandbox/policy, sandbox/plan
 * and fs/fold.c.
 * Pure; the matcher does not allocate.
 */
#include <stdbool.h>
#include <stddef.h>

/* True when the simple pattern matches `path` or one of its ancestors. */
bool bly_glob_covers(const char *pattern, const char *path);

/* Length of the directory in front of the first component that is not plain text; 0 stands for the
 * root. An escape ends the plain text: never too long, perhaps too short. */
size_t bly_glob_literal_dir(const char *pattern);

/*
 * The directory in front of the first component with a wildcard, unescaped and owned by the caller;
 * "" stands for the root. `*ret_len` is the part of the pattern that says so. NULL: out of memory.
 */
char *bly_glob_base(const char *pattern, size_t *ret_len);

/*
 * Expands an absolute pattern into simple ones and hands each to `each`. A pattern without
 * wildcards comes as a plain path, unescaped, and `literal` is true. Returns 0; -EINVAL when the
 * text is no pattern; -ENOMEM; or what `each` returned, if that was negative.
 */
typedef int (*bly_glob_each)(void *arg, const char *text, bool literal);
int bly_glob_expand(const char *pattern, bly_glob_each each, void *arg);

/* A path as a pattern that matches just this path. NULL: out of memory. */
char *bly_glob_escape(const char *path);
