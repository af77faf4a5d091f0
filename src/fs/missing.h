#pragma once

/*
 * Telling when a path comes into being, with inotify. One watcher a server: closing an inotify
 * descriptor takes the kernel milliseconds, and a user has only 128 of them. The paths are looked
 * at on a pool thread, never on the loop, for a file system may be slow. Everything here is called
 * on the loop thread, and so are the callbacks. Spec: protocol.md 4.4.13.
 *
 * A watch covers every directory on the way to a path, so that a rename far above it counts. What
 * it cannot see is a file system mounted over one of them. Symbolic links on the way are not
 * followed: such a path is not watched at all.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct bly_missing_watch;
struct bly_missing_watcher;

enum {
    BLY_MISSING_PATHS_MAX = 64,
    BLY_MISSING_STEPS_MAX =
        1024, /* directories of one watch, each counted for every path below it */
};

/*
 * `max_steps`: directories of all watches together, counted as above. 0; -EMFILE or -ENOSYS: there
 * is no inotify to be had; -ENOMEM.
 */
int bly_missing_watcher_new(uv_loop_t *loop, uint64_t max_steps,
                            struct bly_missing_watcher **ret_watcher);

/* Lets go of the loop. Every watch must have been stopped. Nothing is started afterwards. */
void bly_missing_watcher_close(struct bly_missing_watcher *watcher);
/* After the loop has run dry. NULL is fine; returns NULL. */
struct bly_missing_watcher *bly_missing_watcher_free(struct bly_missing_watcher *watcher);

struct bly_missing_watch_request {
    char *const *missing; /* normalised, 1 to BLY_MISSING_PATHS_MAX; copied */
    size_t n_missing;
    const char *present; /* NULL: none; copied */
};

struct bly_missing_watch_ops {
    /*
     * Once, from the loop: whether the paths are watched. Not when one of `missing` exists already
     * (a dangling link exists), `present` does not or is a link, a directory on the way cannot be
     * passed or is a link, or a limit of ours or of the kernel is reached.
     */
    void (*ready)(void *arg, bool watching);
    /* At most once, after ready(true): something may have changed. The watch is spent. */
    void (*changed)(void *arg);
};

/* 0: the caller owns `*ret_watch` and ends it with bly_missing_watch_stop(); -ENOMEM. */
int bly_missing_watch_start(struct bly_missing_watcher *watcher,
                            const struct bly_missing_watch_request *request,
                            const struct bly_missing_watch_ops *ops, void *arg,
                            struct bly_missing_watch **ret_watch);

/* No callback comes any more. At any time, also from inside one. NULL is fine; returns NULL. */
struct bly_missing_watch *bly_missing_watch_stop(struct bly_missing_watch *watch);
