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
#include "sandbox/plan/watcher.h"

struct bly_plan;
struct bly_watch;

/* The plan is borrowed until bly_watch_free(). Looks at nothing yet. 0 or -ENOMEM. */
int bly_watch_new(struct bly_watcher *watcher, const struct bly_plan *plan,
                  struct bly_watch **ret_watch);
struct bly_watch *bly_watch_free(struct bly_watch *watch); /* NULL is fine; returns NULL */

/* As bly_plan_fits(): 0 or BLY_PLAN_STALE, as things are at the time of the call. */
int bly_watch_check(struct bly_watch *watch);
