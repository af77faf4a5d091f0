/*
 * Why this is safe. What a walk finds depends on which directories its path leads to and on what is
 * in each directory it lists.
 *
 * - The names on the way from "/" to a pattern's directory are watched, the upper ones first, as
 *   for a fingerprint (fs/watch.c), then each directory before it is listed, which is after the one
 *   that holds it. What changes between two of these steps has made an event that waits in the
 *   queue, and the next question finds it. Nothing is believed because of when it was looked at.
 * - A directory that cannot be watched because it may not be read, or is not there any more, is as
 *   the listing will find it; a change of that makes an event in the directory that holds it.
 * - An event is of no interest only if it is about something that is no directory and has a name
 *   that no pattern matches: what a walk would have passed over, and will pass over the next time.
 *   Every other one names something in a directory that was listed. What was found at and below
 *   that name is forgotten, with its watches, and looked for anew, as if the directory were being
 *   listed at that moment: whatever it was and is now, and whatever happened to it in between.
 * - Where case is folded, events tell names as whoever caused them wrote them, so nothing is kept
 *   there. A directory that has been made to fold since it was listed was empty, and what comes
 *   into it has a name that is new: of interest in whatever letters it matches, and then whoever
 *   looks sees that the directory folds.
 * - The queue is emptied under the lock right before an expansion is used. What happens later
 *   happens later than a walk would have looked, too.
 */
#include "sandbox/plan/kept.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/casefold.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "sandbox/plan/draft.h"
#include "sandbox/plan/watcher.h"

enum {
    MAX_KEPT = 16,          /* expansions; the one that was not used longest goes */
    MAX_DIRECTORIES = 8192, /* listed for one expansion; a larger tree is walked */
    MAX_CHANGED = 64,       /* names looked at anew; past it a walk is better */
    MAX_QUESTIONS =
        1 << 16, /* names matched with patterns for one answer; a walk is as good then */
    EVENT_PATH_MAX = PATH_MAX + NAME_MAX + 2,
};

struct bly_kept_walk {
    TAILQ_ENTRY(bly_kept_walk) in_list;
    struct bly_kept *kept;
    struct bly_lookout lookout;
    struct bly_names patterns; /* with the depth, this says which expansion it is */
    struct bly_names folded;   /* the patterns in the form of base/casefold.h */
    unsigned max_depth;
    struct bly_names bases; /* the directories the patterns begin in */
    struct bly_names matches;
    struct bly_names changed; /* since the last answer */
    size_t n_questions;       /* since the last answer */
    bool is_lost;             /* cannot be kept */
};

struct bly_kept {
    pthread_mutex_t lock; /* for all below, and for what belongs to a walk under way as well */
    uint64_t max_watches;
    struct bly_watcher *watcher;                   /* NULL: nobody has asked for anything yet */
    TAILQ_HEAD(bly_kept_list, bly_kept_walk) list; /* what is kept; used last comes first */
    size_t n;
};

static void unlock(struct bly_kept **kept)
{
    (void)pthread_mutex_unlock(&(*kept)->lock);
}

/* Until the end of the block. */
#define HOLD(kept)                                                   \
    __attribute__((cleanup(unlock))) struct bly_kept *held = (kept); \
    (void)pthread_mutex_lock(&held->lock)

struct bly_kept *bly_kept_new(uint64_t max_watches)
{
    struct bly_kept *kept = calloc(1, sizeof *kept);

    if (!kept)
        return NULL;
    kept->max_watches = max_watches;
    (void)pthread_mutex_init(&kept->lock, NULL);
    TAILQ_INIT(&kept->list);
    return kept;
}

static void free_walk(struct bly_kept_walk *walk)
{
    bly_lookout_end(&walk->lookout);
    bly_names_deinit(&walk->patterns);
    bly_names_deinit(&walk->folded);
    bly_names_deinit(&walk->bases);
    bly_names_deinit(&walk->matches);
    bly_names_deinit(&walk->changed);
    free(walk);
}

static void drop(struct bly_kept *kept, struct bly_kept_walk *walk)
{
    TAILQ_REMOVE(&kept->list, walk, in_list);
    kept->n--;
    free_walk(walk);
}

struct bly_kept *bly_kept_free(struct bly_kept *kept)
{
    struct bly_kept_walk *walk;

    if (!kept)
        return NULL;
    while ((walk = TAILQ_FIRST(&kept->list)))
        drop(kept, walk);
    bly_watcher_free(kept->watcher);
    (void)pthread_mutex_destroy(&kept->lock);
    free(kept);
    return NULL;
}

static bool is_for(const struct bly_kept_walk *walk, char *const *patterns, size_t n,
                   unsigned max_depth)
{
    if (walk->max_depth != max_depth || walk->patterns.n != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (strcmp(walk->patterns.items[i], patterns[i]) != 0)
            return false;
    return true;
}

static struct bly_kept_walk *find(struct bly_kept *kept, char *const *patterns, size_t n,
                                  unsigned max_depth)
{
    struct bly_kept_walk *walk;

    TAILQ_FOREACH(walk, &kept->list, in_list)
    if (is_for(walk, patterns, n, max_depth))
        return walk;
    return NULL;
}

static int add_all(struct bly_names *to, char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bly_names_add(to, names[i]) < 0)
            return -ENOMEM;
    return 0;
}

static int add_folded(struct bly_names *to, char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bly_autofree char *folded = bly_casefold_dup(names[i]);

        if (!folded || bly_names_add(to, folded) < 0)
            return -ENOMEM;
    }
    return 0;
}

static void forget_below(struct bly_kept_walk *walk, const char *path)
{
    struct bly_names *matches = &walk->matches;
    size_t n = 0;

    bly_lookout_leave(&walk->lookout, path);
    for (size_t i = 0; i < matches->n; i++) {
        if (bly_path_is_within(matches->items[i], path))
            free(matches->items[i]);
        else
            matches->items[n++] = matches->items[i];
    }
    matches->n = n;
}

static void move_names(struct bly_names *from, struct bly_names *to)
{
    *to = *from;
    *from = (struct bly_names){0};
}

/* Until bly_kept_end() it belongs to whoever repairs it; others walk meanwhile. */
static int take_out(struct bly_kept *kept, struct bly_kept_walk *walk, struct bly_names *changed,
                    struct bly_kept_walk **ret_walk)
{
    TAILQ_REMOVE(&kept->list, walk, in_list);
    kept->n--;
    move_names(&walk->changed, changed);
    bly_names_keep_topmost(changed);
    for (size_t i = 0; i < changed->n; i++)
        forget_below(walk, changed->items[i]);
    *ret_walk = walk;
    return BLY_KEPT_CHANGED;
}

int bly_kept_find(struct bly_kept *kept, const struct bly_policy *policy, struct bly_names *matches,
                  struct bly_names *changed, struct bly_kept_walk **ret_walk)
{
    struct bly_kept_walk *walk;
    int r = 0;

    if (!kept)
        return BLY_KEPT_NOTHING;
    HOLD(kept);
    walk = find(kept, policy->deny_globs, policy->n_deny_globs, policy->glob_scan_max_depth);
    if (!walk)
        return BLY_KEPT_NOTHING;
    walk->n_questions = 0;
    if (!bly_lookout_is_quiet(&walk->lookout)) {
        drop(kept, walk);
        return BLY_KEPT_NOTHING;
    }
    if (walk->changed.n > 0) {
        r = take_out(kept, walk, changed, ret_walk);
    } else {
        TAILQ_REMOVE(&kept->list, walk, in_list);
        TAILQ_INSERT_HEAD(&kept->list, walk, in_list);
    }
    return add_all(matches, walk->matches.items, walk->matches.n) < 0 ? -ENOMEM : r;
}

/* In whatever letters. `path` is no longer than those of matters(). */
static bool matches_any(const struct bly_kept_walk *walk, const char *path)
{
    char key[EVENT_PATH_MAX];

    bly_casefold(path, strlen(path), key);
    for (size_t i = 0; i < walk->patterns.n; i++)
        if (bly_glob_match(walk->patterns.items[i], path) ||
            bly_glob_match(walk->folded.items[i], key))
            return true;
    return false;
}

/* Called while the queue is emptied, under the lock. */
static bool matters(void *arg, const char *dir, const char *name, bool is_directory)
{
    struct bly_kept_walk *walk = arg;
    char path[EVENT_PATH_MAX];

    walk->n_questions += walk->patterns.n;
    if (walk->n_questions > MAX_QUESTIONS)
        return true;
    (void)snprintf(path, sizeof path, "%s%s%s", name && strcmp(dir, "/") == 0 ? "" : dir,
                   name ? "/" : "", name ? name : "");
    if (!is_directory && !matches_any(walk, path))
        return false;
    for (size_t i = 0; i < walk->bases.n; i++)
        if (bly_path_is_within(walk->bases.items[i], path))
            return true;
    return bly_names_add_once(&walk->changed, path) < 0 || walk->changed.n > MAX_CHANGED;
}

struct bly_kept_walk *bly_kept_begin(struct bly_kept *kept, const struct bly_policy *policy)
{
    struct bly_kept_walk *walk;

    if (!kept)
        return NULL;
    HOLD(kept);
    /* Not earlier: a user has few instances of inotify for all of his programs, 128 as a rule. */
    if (!kept->watcher && bly_watcher_new(kept->max_watches, &kept->watcher) < 0)
        return NULL;
    walk = calloc(1, sizeof *walk);
    if (!walk)
        return NULL;
    walk->kept = kept;
    walk->max_depth = policy->glob_scan_max_depth;
    walk->lookout = (struct bly_lookout){.watcher = kept->watcher, .matters = matters, .arg = walk};
    if (bly_lookout_begin(&walk->lookout) < 0 ||
        add_all(&walk->patterns, policy->deny_globs, policy->n_deny_globs) < 0 ||
        add_folded(&walk->folded, policy->deny_globs, policy->n_deny_globs) < 0) {
        free_walk(walk);
        return NULL;
    }
    return walk;
}

/* What is kept, but was not used for long, makes place for what is wanted now. */
static bool make_place(struct bly_kept *kept)
{
    if (kept->n == 0)
        return false;
    drop(kept, TAILQ_LAST(&kept->list, bly_kept_list));
    return true;
}

static int add_name(void *arg, const char *dir, const char *name, size_t len)
{
    struct bly_placing *placing = arg;
    struct bly_kept_walk *walk = placing->lookout->arg;
    int r;

    do
        r = bly_lookout_add_name(placing, dir, name, len);
    while (r == -ENOSPC && make_place(walk->kept));
    return r;
}

void bly_kept_walk_from(struct bly_kept_walk *walk, const char *base)
{
    struct bly_placing placing;

    if (!walk || walk->is_lost)
        return;
    HOLD(walk->kept);
    placing.lookout = &walk->lookout;
    placing.n = 0;
    if (bly_names_add(&walk->bases, base) < 0 ||
        bly_plan_each_name_of(base, 0, add_name, &placing) != 0)
        walk->is_lost = true;
}

static void lose(struct bly_kept_walk *walk)
{
    walk->is_lost = true;
    bly_lookout_end(&walk->lookout); /* it is of no use to keep its watches any longer */
}

void bly_kept_walk_lists(struct bly_kept_walk *walk, const char *dir)
{
    int r;

    if (!walk || walk->is_lost)
        return;
    HOLD(walk->kept);
    do
        r = walk->lookout.n_items >= MAX_DIRECTORIES
                ? -E2BIG
                : bly_lookout_add_directory(&walk->lookout, dir);
    while (r == -ENOSPC && make_place(walk->kept));
    if (r != 0 && r != -EACCES && r != -ENOENT && r != BLY_WATCHER_LINK)
        lose(walk);
}

void bly_kept_walk_lose(struct bly_kept_walk *walk)
{
    if (!walk || walk->is_lost)
        return;
    HOLD(walk->kept);
    lose(walk);
}

void bly_kept_drop(struct bly_kept_walk *walk)
{
    if (!walk)
        return;
    HOLD(walk->kept);
    free_walk(walk);
}

void bly_kept_end(struct bly_kept_walk *walk, char *const *matches, size_t n)
{
    struct bly_kept_walk *before;
    struct bly_kept *kept;

    if (!walk)
        return;
    kept = walk->kept;
    HOLD(kept);
    bly_names_deinit(&walk->matches);
    if (walk->is_lost || add_all(&walk->matches, matches, n) < 0) {
        free_walk(walk);
        return;
    }
    before = find(kept, walk->patterns.items, walk->patterns.n, walk->max_depth);
    if (before)
        drop(kept, before);
    else if (kept->n == MAX_KEPT)
        (void)make_place(kept);
    TAILQ_INSERT_HEAD(&kept->list, walk, in_list);
    kept->n++;
}
