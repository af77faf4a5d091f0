#pragma once

/*
 * Whether what warm walls depend on has changed, without looking at all of it before each request:
 * the kernel says what happens in the directories concerned (inotify) and to the mount table. One
 * watcher a server; a watch for each warm helper. Loop thread only. Blocks as looking at names
 * does.
 *
 * Never the reason why a stale wall is used. What cannot be watched is looked at instead:
 * directories on file systems that change behind the kernel's back, pointer files (a mapping writes
 * them in silence), all of it past the limit of watches, without inotify, and after each event that
 * might matter.
 */
#include <stddef.h>
#include <stdint.h>

struct bly_plan;
struct bly_watch;
struct bly_watcher;

/* `max_watches`: directories, at most; 0: everything is looked at each time. 0 or -ENOMEM: a kernel
 * that refuses inotify is no failure. */
int bly_watcher_new(uint64_t max_watches, struct bly_watcher **ret_watcher);
/* After the last of its watches. NULL is fine; returns NULL. */
struct bly_watcher *bly_watcher_free(struct bly_watcher *watcher);

/* The plan is borrowed until bly_watch_free(). Looks at nothing yet. 0 or -ENOMEM. */
int bly_watch_new(struct bly_watcher *watcher, const struct bly_plan *plan,
                  struct bly_watch **ret_watch);
struct bly_watch *bly_watch_free(struct bly_watch *watch); /* NULL is fine; returns NULL */

/* As bly_plan_fits(): 0 or BLY_PLAN_STALE, as things are at the time of the call. */
int bly_watch_check(struct bly_watch *watch);

/* What was done so far, for tests: full looks at a fingerprint, directories watched now. */
struct bly_watcher_counts {
    uint64_t looks;
    size_t watches;
};
struct bly_watcher_counts bly_watcher_counts(const struct bly_watcher *watcher);
