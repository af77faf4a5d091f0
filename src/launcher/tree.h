#pragma once

/*
 * Ending everything below this process. The caller is a child subreaper, so whatever loses its
 * parent becomes its child: killing all children until there are none left ends the whole tree,
 * daemons included. Only unreaped children are signalled, so a number never means somebody else.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Pids of the caller's children (zombies included), malloc'ed. -ENOENT without /proc; -ENOMEM. */
int bly_tree_children(pid_t **ret_pids, size_t *ret_n);

/*
 * Sends SIGKILL to every child that `keep` (may be NULL: none) does not claim. Returns how many
 * there were, or a negative errno.
 */
int bly_tree_kill(bool (*keep)(void *arg, pid_t pid), void *arg);

/*
 * Kills and reaps until there is no child left, for at most `max_ms`. `reaped` hears of each one.
 * 0; -ETIMEDOUT when something would not die.
 */
int bly_tree_end(unsigned max_ms, void (*reaped)(void *arg, pid_t pid, int status), void *arg);
