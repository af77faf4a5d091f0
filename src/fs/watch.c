/*
 * Why this is safe. A fingerprint says what a set of names leads to. It can only stop to fit when
 * one of these names, or a name of a directory on the way to it, is made, removed, renamed or
 * changes its permissions, or when something is mounted.
 *
 * - Each directory on the way from "/" to each name is watched, the upper ones first, and only then
 *   the whole fingerprint is compared by looking (arm()). A directory that was exchanged while the
 *   watches were being placed has made an event in the one above it, which was already watched; so
 *   either the watches lie on the directories that the look went through, or an event is waiting.
 * - The kernel queues an event before the system call that caused it returns, and whoever sees the
 *   change before that could as well have seen it a moment later: the race with a request is the
 *   same as that of any look. bly_watch_check() empties the queue each time before it answers.
 * - An event with a name of interest, or about a watched directory itself, never makes a wall
 *   stale: it makes us look at everything again, and place the watches anew. So does an overflow of
 *   the queue, and so does a change of the mount table, which poll(2) on mountinfo reports.
 * - What happens to file systems elsewhere (network, FUSE, 9p, ...) makes no events here: only what
 * is on the list of local ones is watched. An overlay is on it: its layers must not be changed
 * while it is mounted (the kernel's documentation calls the result undefined, and caches names, so
 *   looking would not show it either), and everything else happens through the mount.
 */
#include "fs/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/plan/plan.h"

enum {
    BUCKETS = 4096,
    MAX_READS = 256, /* of the queue, for one check; past that it counts as overflowed */
    EVENT_BYTES = 65536,
    EVENTS = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF |
             IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW,
};

/* A watched directory. */
struct place {
    LIST_ENTRY(place) in_bucket;
    LIST_HEAD(, interest) interests;
    int wd;
};

/* A name in it that a watch wants to hear of. */
struct interest {
    LIST_ENTRY(interest) in_bucket, in_place;
    struct place *place; /* NULL: the kernel has given it up */
    struct bly_watch *watch;
    uint32_t hash;
    size_t len;
    char name[];
};

LIST_HEAD(places, place);
LIST_HEAD(interests, interest);

struct bly_watcher {
    int inotify; /* -EBADF: there is none */
    int mounts;  /* mountinfo; -EBADF: there is none */
    uint64_t max_watches;
    size_t n_places;
    uint64_t n_looks;
    uint64_t era; /* counts what concerns every watch: overflows, changes of the mount table */
    struct places places[BUCKETS];       /* by wd */
    struct interests interests[BUCKETS]; /* by wd and name */
    char events[EVENT_BYTES] __attribute__((aligned(__alignof__(struct inotify_event))));
};

struct bly_watch {
    struct bly_watcher *watcher;
    const struct bly_plan *plan;
    struct interest **items; /* NULL elements never */
    size_t n_items;
    uint64_t era;        /* the watcher's when it was armed */
    bool armed;          /* all names are watched, and fitted when they began to be */
    bool suspect;        /* an event has come since */
    bool is_unwatchable; /* not tried again */
    bool stale;          /* for good */
};

/* Changes here are made by this kernel, or nobody. */
static bool is_local(const char *dir)
{
    static const uint32_t magics[] = {
        EXT4_SUPER_MAGIC,      XFS_SUPER_MAGIC,      BTRFS_SUPER_MAGIC,
        F2FS_SUPER_MAGIC,      TMPFS_MAGIC,          RAMFS_MAGIC,
        OVERLAYFS_SUPER_MAGIC, 0x2fc12fc1 /* ZFS */, 0xca451a4e /* bcachefs */,
        SQUASHFS_MAGIC,        EROFS_SUPER_MAGIC_V1,
    };
    struct statfs st;

    if (statfs(dir, &st) < 0)
        return false;
    for (size_t i = 0; i < BLY_LEN(magics); i++)
        if ((uint32_t)st.f_type == magics[i])
            return true;
    return false;
}

static uint32_t hash_name(int wd, const char *name, size_t len)
{
    uint32_t hash = 0x811c9dc5u ^ (uint32_t)wd;

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)name[i]) * 0x01000193u;
    return hash;
}

static struct place *find_place(struct bly_watcher *watcher, int wd)
{
    struct place *place;

    LIST_FOREACH(place, &watcher->places[(unsigned)wd % BUCKETS], in_bucket)
    if (place->wd == wd)
        return place;
    return NULL;
}

static void forget_place(struct bly_watcher *watcher, struct place *place)
{
    LIST_REMOVE(place, in_bucket);
    watcher->n_places--;
    free(place);
}

/* ---- placing watches ---- */

/* A plan's directories have no symlinks on the way, so this one has come since. */
static bool is_link(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

/*
 * The directory, watched from now on. Returns 0; BLY_PLAN_STALE; -ENOENT when there is no
 * directory; another negative errno when it cannot be watched.
 */
static int watch_directory(struct bly_watcher *watcher, const char *dir, struct place **ret_place)
{
    int wd = inotify_add_watch(watcher->inotify, dir, EVENTS);
    struct place *place;

    if (wd < 0 && errno == ENOTDIR && is_link(dir))
        return BLY_PLAN_STALE;
    if (wd < 0)
        return errno == ENOTDIR ? -ENOENT : -errno;
    *ret_place = find_place(watcher, wd);
    if (*ret_place != NULL)
        return 0;
    place =
        is_local(dir) && watcher->n_places < watcher->max_watches ? calloc(1, sizeof *place) : NULL;
    if (place == NULL) {
        (void)inotify_rm_watch(watcher->inotify, wd);
        return -EOPNOTSUPP;
    }
    place->wd = wd;
    LIST_INIT(&place->interests);
    LIST_INSERT_HEAD(&watcher->places[(unsigned)wd % BUCKETS], place, in_bucket);
    watcher->n_places++;
    *ret_place = place;
    return 0;
}

static int keep_interest(struct bly_watch *watch, struct place *place, const char *name, size_t len)
{
    struct bly_watcher *watcher = watch->watcher;
    struct interest *interest = malloc(sizeof *interest + len);
    struct interest **grown = watch->items;

    /* Grows by doubling: the size is a power of two whenever there is no room. */
    if ((watch->n_items & (watch->n_items - 1)) == 0)
        grown = reallocarray(watch->items, watch->n_items ? 2 * watch->n_items : 1, sizeof *grown);
    if (interest == NULL || grown == NULL) {
        free(interest);
        return -ENOMEM;
    }
    watch->items = grown;
    grown[watch->n_items++] = interest;
    interest->place = place;
    interest->watch = watch;
    interest->hash = hash_name(place->wd, name, len);
    interest->len = len;
    memcpy(interest->name, name, len);
    LIST_INSERT_HEAD(&place->interests, interest, in_place);
    LIST_INSERT_HEAD(&watcher->interests[interest->hash % BUCKETS], interest, in_bucket);
    return 0;
}

/* What arm() is at: names of one directory come one after the other. */
struct placing {
    struct bly_watch *watch;
    struct place *place; /* of the name before; NULL: there was none, or it could not be watched */
    char dir[PATH_MAX];  /* its path */
};

static int add_name(void *arg, const char *dir, const char *name, size_t len)
{
    struct placing *placing = arg;
    struct bly_watch *watch = placing->watch;

    if (placing->place == NULL || strcmp(placing->dir, dir) != 0) {
        size_t dir_len = strlen(dir);
        int r;

        placing->place = NULL;
        if (dir_len >= sizeof placing->dir)
            return -ENAMETOOLONG;
        r = watch_directory(watch->watcher, dir, &placing->place);
        if (r != 0) /* below what is not there nothing happens before its own name comes up */
            return r == -ENOENT ? 0 : r;
        memcpy(placing->dir, dir, dir_len + 1);
    }
    return keep_interest(watch, placing->place, name, len);
}

static void drop_interests(struct bly_watch *watch)
{
    for (size_t i = 0; i < watch->n_items; i++) {
        struct interest *interest = watch->items[i];
        struct place *place = interest->place;

        if (place != NULL) {
            LIST_REMOVE(interest, in_bucket);
            LIST_REMOVE(interest, in_place);
            if (LIST_EMPTY(&place->interests)) {
                (void)inotify_rm_watch(watch->watcher->inotify, place->wd);
                forget_place(watch->watcher, place);
            }
        }
        free(interest);
    }
    free(watch->items);
    watch->items = NULL;
    watch->n_items = 0;
    watch->armed = false;
}

/* Watches first, and looks then. */
static int arm(struct bly_watch *watch)
{
    struct bly_watcher *watcher = watch->watcher;
    struct placing placing = {.watch = watch};
    int r = -EOPNOTSUPP;

    drop_interests(watch);
    watch->suspect = false;
    watch->era = watcher->era;
    watcher->n_looks++;
    if (watcher->inotify >= 0 && watcher->mounts >= 0 && watcher->max_watches > 0)
        r = bly_plan_each_name(watch->plan, add_name, &placing);
    if (r == BLY_PLAN_STALE)
        return r;
    watch->armed = r == 0;
    if (r < 0) {
        watch->is_unwatchable = true;
        drop_interests(watch);
    }
    return bly_plan_fits(watch->plan, &bly_probe_disk);
}

/* For a plan that cannot be watched: the names are looked at, and the mount table is when it has
 * changed, or when that cannot be known. */
static int look(struct bly_watch *watch)
{
    struct bly_watcher *watcher = watch->watcher;
    unsigned parts = BLY_PLAN_NAMES | BLY_PLAN_CONTENTS;

    if (watcher->mounts < 0 || watch->era != watcher->era)
        parts |= BLY_PLAN_MOUNTS;
    watch->era = watcher->era;
    watcher->n_looks++;
    return bly_plan_fits_in(watch->plan, &bly_probe_disk, parts);
}

/* ---- what happened ---- */

/* The kernel watches this no longer: the directory has gone, or its file system. */
static void lose_place(struct bly_watcher *watcher, struct place *place)
{
    struct interest *interest;

    while ((interest = LIST_FIRST(&place->interests)) != NULL) {
        interest->watch->suspect = true;
        interest->place = NULL;
        LIST_REMOVE(interest, in_place);
        LIST_REMOVE(interest, in_bucket);
    }
    forget_place(watcher, place);
}

static void suspect_name(struct bly_watcher *watcher, const struct place *place, const char *name)
{
    size_t len = strlen(name);
    uint32_t hash = hash_name(place->wd, name, len);
    struct interest *interest;

    LIST_FOREACH(interest, &watcher->interests[hash % BUCKETS], in_bucket)
    if (interest->place == place && interest->len == len && memcmp(interest->name, name, len) == 0)
        interest->watch->suspect = true;
}

static void take_event(struct bly_watcher *watcher, const struct inotify_event *event)
{
    struct place *place = find_place(watcher, event->wd);
    struct interest *interest;

    if (event->mask & IN_Q_OVERFLOW)
        watcher->era++;
    if (place == NULL) /* of a watch that was removed meanwhile */
        return;
    if (event->mask & IN_IGNORED) {
        lose_place(watcher, place);
    } else if (event->len > 0) {
        suspect_name(watcher, place, event->name);
    } else {
        LIST_FOREACH(interest, &place->interests, in_place)
        interest->watch->suspect = true;
    }
}

static void take_events(struct bly_watcher *watcher, ssize_t n)
{
    const char *at = watcher->events, *end = watcher->events + n;

    while (at < end) {
        const struct inotify_event *event = (const struct inotify_event *)(const void *)at;

        take_event(watcher, event);
        at += sizeof *event + event->len;
    }
}

static void drain(struct bly_watcher *watcher)
{
    struct pollfd mounts = {.fd = watcher->mounts, .events = POLLPRI};

    for (int i = 0; watcher->n_places > 0; i++) {
        ssize_t n = read(watcher->inotify, watcher->events, sizeof watcher->events);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n > 0)
            take_events(watcher, n);
        if (n <= 0 || i == MAX_READS) {
            watcher->era++;
            break;
        }
    }
    /* The kernel compares with what the last poll() has seen. */
    if (watcher->mounts >= 0 && poll(&mounts, 1, 0) != 0)
        watcher->era++;
}

int bly_watch_check(struct bly_watch *watch)
{
    int r;

    if (watch->stale)
        return BLY_PLAN_STALE;
    drain(watch->watcher);
    if (watch->is_unwatchable)
        r = look(watch);
    else if (!watch->armed || watch->suspect || watch->era != watch->watcher->era)
        r = arm(watch);
    else
        r = bly_plan_fits_in(watch->plan, &bly_probe_disk, BLY_PLAN_CONTENTS);
    watch->stale = r != 0;
    return r != 0 ? BLY_PLAN_STALE : 0;
}

/* ---- from begin to end ---- */

int bly_watcher_new(uint64_t max_watches, struct bly_watcher **ret_watcher)
{
    struct bly_watcher *watcher = calloc(1, sizeof *watcher);

    if (watcher == NULL)
        return -ENOMEM;
    watcher->max_watches = max_watches;
    watcher->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    watcher->mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    *ret_watcher = watcher;
    return 0;
}

struct bly_watcher *bly_watcher_free(struct bly_watcher *watcher)
{
    if (watcher == NULL)
        return NULL;
    bly_close(watcher->inotify);
    bly_close(watcher->mounts);
    free(watcher);
    return NULL;
}

int bly_watch_new(struct bly_watcher *watcher, const struct bly_plan *plan,
                  struct bly_watch **ret_watch)
{
    struct bly_watch *watch = calloc(1, sizeof *watch);

    if (watch == NULL)
        return -ENOMEM;
    watch->watcher = watcher;
    watch->plan = plan;
    *ret_watch = watch;
    return 0;
}

struct bly_watch *bly_watch_free(struct bly_watch *watch)
{
    if (watch == NULL)
        return NULL;
    drop_interests(watch);
    free(watch);
    return NULL;
}

struct bly_watcher_counts bly_watcher_counts(const struct bly_watcher *watcher)
{
    return (struct bly_watcher_counts){.looks = watcher->n_looks, .watches = watcher->n_places};
}
