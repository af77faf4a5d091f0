#pragma once

/*
 * Names in directories that fold case (FS_CASEFOLD_FL). The kernel compares what is left of two
 * names after Unicode's normalisation (NFD) and case folding without the characters that are
 * ignored: ".g<U+200D>IT" is ".git" there, and ".aw<U+017F>" is ".aws". Any thread.
 */
#include <stdbool.h>
#include <stddef.h>

/*
 * The form of a path, name or pattern in which names are compared: those the kernel takes for the
 * same have the same. The reverse does not hold, this forgets more than the kernel does: of what is
 * not ASCII, and of letters in front of it, only that something was there. Slashes stay, and what
 * stood between two of them never gets empty. `key` has room for `len` + 1 bytes, which is always
 * enough.
 */
void bly_casefold(const char *text, size_t len, char *key);

/* The same in memory that is the caller's. NULL: out of memory. */
char *bly_casefold_dup(const char *text);

/* Whether the open directory compares its names like that. One that cannot be asked might. */
bool bly_casefold_in(int dir_fd);
