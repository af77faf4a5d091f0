#pragma once

/*
 * What happens in directories and to the mount table, as the kernel tells it: inotify, and poll(2)
 * on mountinfo. Somebody who depends on what is on disk has a lookout: first a watch on every
 * directory that matters, then the look, then a question before each use of what was seen. One
 * thread at a time for a watcher and all of its lookouts. Blocks as looking at names does.
 *
 * - The kernel queues an event before the system call that caused it returns, and whoever sees the
 *   change before that could as well have seen it a moment later: the race with a request is the
 *   same as that of any look. bly_lookout_is_quiet() empties the queue each time before it answers.
 * - An overflow of the queue and a change of the mount table concern every lookout.
 * - What happens to file systems elsewhere (network, FUSE, 9p, ...) makes no events here: only what
 *   is on the list of local ones can be watched. An overlay is on it: its layers must not be
 *   changed while it is mounted (the kernel's documentation calls the result undefined, and caches
 *   names, so looking would not show it either), and everything else happens through the mount.
 */
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_watcher;
struct bly_watched; /* a directory; private */
struct bly_interest;

/* `max_watches`: directories, at most; 0: nothing can be watched. 0 or -ENOMEM: a kernel that
 * refuses inotify is no failure. */
int bly_watcher_new(uint64_t max_watches, struct bly_watcher **ret_watcher);
/* After the last of its lookouts. NULL is fine; returns NULL. */
struct bly_watcher *bly_watcher_free(struct bly_watcher *watcher);

/* Without it the mount table has to be looked at each time. */
bool bly_watcher_knows_mounts(const struct bly_watcher *watcher);

/* What was done so far, for tests: looks that were reported, directories watched now. */
struct bly_watcher_counts {
    uint64_t looks;
    size_t watches;
};
struct bly_watcher_counts bly_watcher_counts(const struct bly_watcher *watcher);
void bly_watcher_count_look(struct bly_watcher *watcher);

/*
 * Something happened to `name` in the directory `dir`, which was added as a whole; NULL: to the
 * directory itself. Returns whether the lookout becomes suspect by it.
 */
typedef bool (*bly_matters_fn)(void *arg, const char *dir, const char *name, bool is_directory);

/* In the memory of its owner, who sets the first three (`matters` for whole directories only) and
 * leaves the rest zero. */
struct bly_lookout {
    struct bly_watcher *watcher;
    bly_matters_fn matters;
    void *arg;
    struct bly_interest **items; /* NULL elements never */
    size_t n_items;
    uint64_t era;    /* the watcher's when it began */
    bool is_suspect; /* something that matters has happened since */
};

/* Forgets everything that was added. */
void bly_lookout_end(struct bly_lookout *lookout);
/* The same, and begins anew: nothing has happened yet. 0; -EOPNOTSUPP: nothing can be watched. */
int bly_lookout_begin(struct bly_lookout *lookout);

enum { BLY_PLACING_MAX = 32 };

/*
 * Where the names of one path after the other are being added: set the lookout, the rest is zero.
 * When they come in the order of a walk the directory of the next one is that of the name before,
 * one in it, or one of those above, and each is watched once.
 */
struct bly_placing {
    struct bly_lookout *lookout;
    size_t n; /* directories that are remembered, each below the one in front of it */
    struct {
        size_t len; /* of its path in `dir` */
        struct bly_watched *place;
    } above[BLY_PLACING_MAX];
    char dir[PATH_MAX]; /* the last of them */
};

enum { BLY_WATCHER_LINK = 1 };

/*
 * `name`, with `len` bytes, in the directory `dir`. To depend on a path add each name on the way to
 * it, beginning at "/". Returns 0, also when there is no such directory, since nothing happens in
 * it before its own name comes up; BLY_WATCHER_LINK when there is a symlink instead; -ENOSPC past
 * `max_watches`; another negative errno when it cannot be watched.
 */
int bly_lookout_add_name(struct bly_placing *placing, const char *dir, const char *name,
                         size_t len);

/* Everything in the directory `dir`, which is asked about with `matters`, and the directory itself.
 * As above, but -ENOENT when there is no such directory. */
int bly_lookout_add_directory(struct bly_lookout *lookout, const char *dir);

/* Forgets the directories at and below `path` that were added as a whole. */
void bly_lookout_leave(struct bly_lookout *lookout, const char *path);

/* Whether nothing that matters has happened since bly_lookout_begin(). */
bool bly_lookout_is_quiet(struct bly_lookout *lookout);

/* Whether the mount table has changed, or the queue has run over, since the last question or
 * bly_lookout_begin(); for somebody who looks at names himself. */
bool bly_lookout_era_has_passed(struct bly_lookout *lookout);
