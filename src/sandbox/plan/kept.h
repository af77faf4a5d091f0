#pragma once

/*
 * What deny patterns matched, kept from one plan to the next: while a program works in a tree, each
 * start would walk it again. An expansion is kept together with a watch on every directory that was
 * listed for it and on the names that lead there, and is used only as long as nothing happened that
 * could change it. Any thread; never held up by somebody else's walk.
 *
 * Never a reason to miss a file. A walk is not kept when one of its directories cannot be watched
 * (see watcher.h), nor when one of them, or one above them, folds case, nor past the limits; then
 * each plan walks.
 */
#include <stddef.h>
#include <stdint.h>

struct bly_kept;
struct bly_kept_walk; /* one that is under way and shall be kept */
struct bly_names;
struct bly_policy;

/* `max_watches`: directories watched, at most, for all that is kept; 0: nothing is. NULL: out of
 * memory. */
struct bly_kept *bly_kept_new(uint64_t max_watches);
struct bly_kept *bly_kept_free(struct bly_kept *kept); /* NULL is fine; returns NULL */

enum { BLY_KEPT_NOTHING = 1, BLY_KEPT_CHANGED = 2 };

/*
 * The matches of the policy's deny patterns with its depth, as they are now, added to `matches`.
 * Returns 0; BLY_KEPT_NOTHING; -ENOMEM. BLY_KEPT_CHANGED: what is at and below each of `changed`
 * (added) has to be looked at anew and is left out of `matches`; `*ret_walk` goes on for that.
 * `kept` may be NULL, and so may a walk below.
 */
int bly_kept_find(struct bly_kept *kept, const struct bly_policy *policy, struct bly_names *matches,
                  struct bly_names *changed, struct bly_kept_walk **ret_walk);

/* Before the first pattern is walked for. NULL: not to be kept. */
struct bly_kept_walk *bly_kept_begin(struct bly_kept *kept, const struct bly_policy *policy);
/* Before each pattern: its canonical directory. */
void bly_kept_walk_from(struct bly_kept_walk *walk, const char *base);
/* Before each directory is listed. The one that holds it comes first. */
void bly_kept_walk_lists(struct bly_kept_walk *walk, const char *dir);
/* It shall not be kept after all. */
void bly_kept_walk_lose(struct bly_kept_walk *walk);
/* At the end: with all matches, which are copied; or when there is no result. Frees the walk. */
void bly_kept_end(struct bly_kept_walk *walk, char *const *matches, size_t n);
void bly_kept_drop(struct bly_kept_walk *walk);
