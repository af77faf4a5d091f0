#include "sandbox/plan/watcher.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"

enum {
    BUCKETS = 4096,
    MAX_READS = 256, /* of the queue, for one check; past that it counts as overflowed */
    EVENT_BYTES = 65536,
    EVENTS = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF |
             IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW,
};

struct bly_watched {
    LIST_ENTRY(bly_watched) in_bucket;
    LIST_HEAD(, bly_interest) names, wholes;
    int wd;
};

/* What a lookout wants to hear of in a directory: a name in it, or all. */
struct bly_interest {
    LIST_ENTRY(bly_interest) in_bucket, in_place;
    struct bly_watched *place; /* NULL: the kernel has given it up */
    struct bly_lookout *lookout;
    bool whole;
    uint32_t hash;
    size_t len;
    char name[]; /* `whole`: the path of the directory, with its NUL */
};

LIST_HEAD(places, bly_watched);
LIST_HEAD(interests, bly_interest);

struct bly_watcher {
    int inotify; /* -EBADF: there is none */
    int mounts;  /* mountinfo; -EBADF: there is none */
    uint64_t max_watches;
    size_t n_places;
    uint64_t n_looks;
    uint64_t era; /* counts what concerns every lookout: overflows, changes of the mount table */
    struct places places[BUCKETS];       /* by wd */
    struct interests interests[BUCKETS]; /* by wd and name */
    char events[EVENT_BYTES] __attribute__((aligned(__alignof__(struct inotify_event))));
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

static struct bly_watched *find_place(struct bly_watcher *watcher, int wd)
{
    struct bly_watched *place;

    LIST_FOREACH(place, &watcher->places[(unsigned)wd % BUCKETS], in_bucket)
    if (place->wd == wd)
        return place;
    return NULL;
}

static void forget_place(struct bly_watcher *watcher, struct bly_watched *place)
{
    LIST_REMOVE(place, in_bucket);
    watcher->n_places--;
    free(place);
}

/* ---- placing watches ---- */

/* Canonical directories have no symlinks on the way, so this one has come since. */
static bool is_link(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

static int new_place(struct bly_watcher *watcher, const char *dir, int wd,
                     struct bly_watched **ret_place)
{
    struct bly_watched *place;

    if (watcher->n_places >= watcher->max_watches)
        return -ENOSPC;
    if (!is_local(dir))
        return -EOPNOTSUPP;
    place = calloc(1, sizeof *place);
    if (place == NULL)
        return -ENOMEM;
    place->wd = wd;
    LIST_INIT(&place->names);
    LIST_INIT(&place->wholes);
    LIST_INSERT_HEAD(&watcher->places[(unsigned)wd % BUCKETS], place, in_bucket);
    watcher->n_places++;
    *ret_place = place;
    return 0;
}

/* The directory, watched from now on. As bly_lookout_add_directory(). */
static int watch_directory(struct bly_watcher *watcher, const char *dir,
                           struct bly_watched **ret_place)
{
    int wd = inotify_add_watch(watcher->inotify, dir, EVENTS);
    int r;

    if (wd < 0 && errno == ENOTDIR && is_link(dir))
        return BLY_WATCHER_LINK;
    if (wd < 0)
        return errno == ENOTDIR ? -ENOENT : -errno;
    *ret_place = find_place(watcher, wd);
    if (*ret_place != NULL)
        return 0;
    r = new_place(watcher, dir, wd, ret_place);
    if (r < 0)
        (void)inotify_rm_watch(watcher->inotify, wd);
    return r;
}

/* A watch that nobody is interested in would stay for ever. */
static void leave_place(struct bly_watcher *watcher, struct bly_watched *place)
{
    if (!LIST_EMPTY(&place->names) || !LIST_EMPTY(&place->wholes))
        return;
    (void)inotify_rm_watch(watcher->inotify, place->wd);
    forget_place(watcher, place);
}

static struct bly_interest *new_interest(struct bly_lookout *lookout, struct bly_watched *place,
                                         const char *name, size_t len)
{
    struct bly_interest *interest = malloc(sizeof *interest + len + 1);
    struct bly_interest **grown = lookout->items;
    size_t n = lookout->n_items;

    /* Grows by doubling: the size is a power of two whenever there is no room. */
    if ((n & (n - 1)) == 0)
        grown = reallocarray(lookout->items, n ? 2 * n : 1, sizeof *grown);
    if (grown != NULL)
        lookout->items = grown;
    if (interest == NULL || grown == NULL) {
        free(interest);
        leave_place(lookout->watcher, place);
        return NULL;
    }
    grown[lookout->n_items++] = interest;
    interest->place = place;
    interest->lookout = lookout;
    interest->len = len;
    memcpy(interest->name, name, len);
    interest->name[len] = '\0';
    return interest;
}

/* Forgets the directories that `dir` is not in. True when it is the one that is left last. */
static bool go_up(struct bly_placing *placing, const char *dir, size_t len)
{
    while (placing->n > 0) {
        size_t last = placing->above[placing->n - 1].len;

        if (last <= len && memcmp(placing->dir, dir, last) == 0 &&
            (last == 1 || dir[last] == '/' || dir[last] == '\0'))
            return last == len;
        placing->n--;
    }
    return false;
}

/* The directory, watched. It stays so as long as `placing` lasts: each gets a name right away. */
static int find_place_of(struct bly_placing *placing, const char *dir,
                         struct bly_watched **ret_place)
{
    size_t len = strlen(dir);
    int r;

    if (!go_up(placing, dir, len)) {
        if (len >= sizeof placing->dir)
            return -ENAMETOOLONG;
        r = watch_directory(placing->lookout->watcher, dir, ret_place);
        if (r != 0)
            return r;
        if (placing->n == BLY_PLACING_MAX)
            placing->n--;
        memcpy(placing->dir, dir, len + 1);
        placing->above[placing->n].len = len;
        placing->above[placing->n++].place = *ret_place;
    }
    *ret_place = placing->above[placing->n - 1].place;
    return 0;
}

int bly_lookout_add_name(struct bly_placing *placing, const char *dir, const char *name, size_t len)
{
    struct bly_lookout *lookout = placing->lookout;
    struct bly_watched *place = NULL;
    struct bly_interest *interest;
    int r = find_place_of(placing, dir, &place);

    if (r != 0)
        return r == -ENOENT ? 0 : r;
    interest = new_interest(lookout, place, name, len);
    if (interest == NULL)
        return -ENOMEM;
    interest->whole = false;
    interest->hash = hash_name(place->wd, name, len);
    LIST_INSERT_HEAD(&place->names, interest, in_place);
    LIST_INSERT_HEAD(&lookout->watcher->interests[interest->hash % BUCKETS], interest, in_bucket);
    return 0;
}

int bly_lookout_add_directory(struct bly_lookout *lookout, const char *dir)
{
    struct bly_watched *place = NULL;
    struct bly_interest *interest;
    int r = watch_directory(lookout->watcher, dir, &place);

    if (r != 0)
        return r;
    interest = new_interest(lookout, place, dir, strlen(dir));
    if (interest == NULL)
        return -ENOMEM;
    interest->whole = true;
    LIST_INSERT_HEAD(&place->wholes, interest, in_place);
    return 0;
}

static void unlink_interest(struct bly_interest *interest)
{
    LIST_REMOVE(interest, in_place);
    if (!interest->whole)
        LIST_REMOVE(interest, in_bucket);
    interest->place = NULL;
}

static void drop_interest(struct bly_interest *interest)
{
    struct bly_watched *place = interest->place;

    if (place != NULL) {
        unlink_interest(interest);
        leave_place(interest->lookout->watcher, place);
    }
    free(interest);
}

void bly_lookout_leave(struct bly_lookout *lookout, const char *path)
{
    size_t n = 0;

    for (size_t i = 0; i < lookout->n_items; i++) {
        struct bly_interest *interest = lookout->items[i];

        if (interest->whole && bly_path_is_within(interest->name, path))
            drop_interest(interest);
        else
            lookout->items[n++] = interest;
    }
    lookout->n_items = n;
}

void bly_lookout_end(struct bly_lookout *lookout)
{
    for (size_t i = 0; i < lookout->n_items; i++)
        drop_interest(lookout->items[i]);
    free(lookout->items);
    lookout->items = NULL;
    lookout->n_items = 0;
}

/* ---- what happened ---- */

static void ask_about(const struct bly_watched *place, const char *name, bool is_directory)
{
    struct bly_interest *interest;

    LIST_FOREACH(interest, &place->wholes, in_place)
    {
        struct bly_lookout *lookout = interest->lookout;

        if (!lookout->is_suspect)
            lookout->is_suspect =
                lookout->matters(lookout->arg, interest->name, name, is_directory);
    }
}

static void suspect_place(struct bly_watched *place)
{
    struct bly_interest *interest;

    LIST_FOREACH(interest, &place->names, in_place)
    interest->lookout->is_suspect = true;
    ask_about(place, NULL, true);
}

/* The kernel watches this no longer: the directory has gone, or its file system. */
static void lose_place(struct bly_watcher *watcher, struct bly_watched *place)
{
    struct bly_interest *interest;

    suspect_place(place);
    while ((interest = LIST_FIRST(&place->names)) != NULL ||
           (interest = LIST_FIRST(&place->wholes)) != NULL)
        unlink_interest(interest);
    forget_place(watcher, place);
}

static void suspect_name(struct bly_watcher *watcher, const struct bly_watched *place,
                         const char *name)
{
    size_t len = strlen(name);
    uint32_t hash = hash_name(place->wd, name, len);
    struct bly_interest *interest;

    LIST_FOREACH(interest, &watcher->interests[hash % BUCKETS], in_bucket)
    if (interest->place == place && interest->len == len && memcmp(interest->name, name, len) == 0)
        interest->lookout->is_suspect = true;
}

static void take_event(struct bly_watcher *watcher, const struct inotify_event *event)
{
    struct bly_watched *place = find_place(watcher, event->wd);

    if (event->mask & IN_Q_OVERFLOW)
        watcher->era++;
    if (place == NULL) /* of a watch that was removed meanwhile */
        return;
    if (event->mask & IN_IGNORED) {
        lose_place(watcher, place);
    } else if (event->len > 0) {
        suspect_name(watcher, place, event->name);
        ask_about(place, event->name, event->mask & IN_ISDIR);
    } else {
        suspect_place(place);
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

int bly_lookout_begin(struct bly_lookout *lookout)
{
    struct bly_watcher *watcher = lookout->watcher;

    bly_lookout_end(lookout);
    drain(watcher); /* what happened before is none of its business */
    lookout->is_suspect = false;
    lookout->era = watcher->era;
    return watcher->inotify >= 0 && watcher->mounts >= 0 && watcher->max_watches > 0 ? 0
                                                                                     : -EOPNOTSUPP;
}

bool bly_lookout_is_quiet(struct bly_lookout *lookout)
{
    drain(lookout->watcher);
    return !lookout->is_suspect && lookout->era == lookout->watcher->era;
}

bool bly_lookout_era_has_passed(struct bly_lookout *lookout)
{
    uint64_t before = lookout->era;

    drain(lookout->watcher);
    lookout->era = lookout->watcher->era;
    return before != lookout->era;
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

bool bly_watcher_knows_mounts(const struct bly_watcher *watcher)
{
    return watcher->mounts >= 0;
}

struct bly_watcher_counts bly_watcher_counts(const struct bly_watcher *watcher)
{
    return (struct bly_watcher_counts){.looks = watcher->n_looks, .watches = watcher->n_places};
}

void bly_watcher_count_look(struct bly_watcher *watcher)
{
    watcher->n_looks++;
}
