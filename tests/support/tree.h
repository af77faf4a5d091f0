#pragma once

/*
 * A directory tree as text, one line a name, so that "nothing has changed" is a comparison and what
 * did change can be read. Failures to look are lines, too. Nothing is followed.
 */
#include <stdbool.h>

enum {
    TREE_EXACT = 1, /* also device and inode, owner, times of change, and extended attributes */
};

/* "NAME TYPE MODE SIZE LINKS HASH-OR-TARGET\n" for everything below `dir`, sorted; malloc'ed. */
char *tree_list(const char *dir, unsigned how);

/* The first line in which the two differ, for a message; malloc'ed, NULL when they are equal. */
char *tree_difference(const char *before, const char *after);

/* A copy of the list without the line of `name`; malloc'ed. */
char *tree_without(const char *list, const char *name);
