/*
 * Why this is safe. A fingerprint says what a set of names leads to. It can only stop to fit when
 * one of these names, or a name of a directory on the way to it, is made, removed, renamed or
 * changes its permissions, or when something is mounted.
 *
 * - Each directory on the way from "/" to each name is watched, the upper ones first, and only then
 *   the whole fingerprint is compared by looking (arm()). A directory that was exchanged while the
 *   watches were being placed has made an event in the one above it, which was already watched; so
 *   either the watches lie on the directories that the look went through, or an event is waiting.
 * - An event with a name of interest, or about a watched directory itself, never makes a wall
 *   stale: it makes us look at everything again, and place the watches anew. So does an overflow of
 *   the queue, and so does a change of the mount table.
 * - What can be watched at all, and when an event is there: see sandbox/plan/watcher.h.
 */
#include "fs/watch.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "sandbox/plan/plan.h"

struct bly_watch {
    struct bly_lookout lookout;
    const struct bly_plan *plan;
    bool armed;          /* all names are watched, and fitted when they began to be */
    bool is_unwatchable; /* not tried again */
    bool stale;          /* for good */
};

static int add_name(void *arg, const char *dir, const char *name, size_t len)
{
    return bly_lookout_add_name(arg, dir, name, len);
}

/* Watches first, and looks then. */
static int arm(struct bly_watch *watch)
{
    struct bly_placing placing = {.lookout = &watch->lookout};
    int r = bly_lookout_begin(&watch->lookout);

    bly_watcher_count_look(watch->lookout.watcher);
    if (r == 0)
        r = bly_plan_each_name(watch->plan, add_name, &placing);
    watch->armed = r == 0;
    if (r == BLY_WATCHER_LINK)
        return BLY_PLAN_STALE;
    if (r < 0) {
        watch->is_unwatchable = true;
        bly_lookout_end(&watch->lookout);
    }
    return bly_plan_fits(watch->plan, &bly_probe_disk);
}

/* For a plan that cannot be watched: the names are looked at, and the mount table is when it has
 * changed, or when that cannot be known. */
static int look(struct bly_watch *watch)
{
    unsigned parts = BLY_PLAN_NAMES | BLY_PLAN_CONTENTS;

    if (bly_lookout_era_has_passed(&watch->lookout) ||
        !bly_watcher_knows_mounts(watch->lookout.watcher))
        parts |= BLY_PLAN_MOUNTS;
    bly_watcher_count_look(watch->lookout.watcher);
    return bly_plan_fits_in(watch->plan, &bly_probe_disk, parts);
}

static int check_watched(struct bly_watch *watch)
{
    bool is_quiet = bly_lookout_is_quiet(&watch->lookout);

    if (!watch->armed || !is_quiet)
        return arm(watch);
    return bly_plan_fits_in(watch->plan, &bly_probe_disk, BLY_PLAN_CONTENTS);
}

int bly_watch_check(struct bly_watch *watch)
{
    if (!watch->stale)
        watch->stale = (watch->is_unwatchable ? look(watch) : check_watched(watch)) != 0;
    return watch->stale ? BLY_PLAN_STALE : 0;
}

int bly_watch_new(struct bly_watcher *watcher, const struct bly_plan *plan,
                  struct bly_watch **ret_watch)
{
    struct bly_watch *watch = calloc(1, sizeof *watch);

    if (watch == NULL)
        return -ENOMEM;
    watch->lookout.watcher = watcher;
    watch->plan = plan;
    *ret_watch = watch;
    return 0;
}

struct bly_watch *bly_watch_free(struct bly_watch *watch)
{
    if (watch == NULL)
        return NULL;
    bly_lookout_end(&watch->lookout);
    free(watch);
    return NULL;
}
