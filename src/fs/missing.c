#include "fs/missing.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include "base/cleanup.h"

enum {
    BUCKETS = 256,
    READ_BYTES = 16384, /* events taken at once; the largest has 272 */
    READS_A_TURN = 16,
};

enum {
    MADE = IN_CREATE | IN_MOVED_TO,
    UNMADE = IN_DELETE | IN_MOVED_FROM,
    GONE = IN_MOVE_SELF | IN_DELETE_SELF,
    LOST = IN_UNMOUNT | IN_IGNORED, /* comes without having been asked for */
};

/* A directory on the way to a path, or the present file, and what about it matters to a watch. */
struct step {
    LIST_ENTRY(step) link; /* in a bucket of the watcher, or among its stale ones */
    LIST_ENTRY(step) in_watch;
    struct bly_missing_watch *watch; /* NULL: stale */
    int wd;
    uint32_t mask;
    const char *name; /* the entry that matters, in the watch's memory; NULL: the object itself */
};

LIST_HEAD(step_list, step);

struct bly_missing_watch {
    LIST_ENTRY(bly_missing_watch) link;
    struct bly_missing_watcher *watcher;
    uv_work_t work;
    struct bly_missing_watch_ops ops;
    void *arg;
    char *paths[BLY_MISSING_PATHS_MAX + 1]; /* owned; the pool thread cuts them into names */
    size_t n_missing;
    bool has_present; /* in the place behind the missing ones */
    struct step_list steps;
    size_t n_steps;
    bool setting_up; /* the pool thread has paths, steps and refused */
    bool refused;
    bool live; /* ready(true) has been said, and nothing since */
    bool changed, stopped;
};

struct bly_missing_watcher {
    uv_loop_t *loop;
    uv_poll_t poll;
    int fd;
    uint64_t max_steps, n_steps; /* n_steps: stale ones included */
    LIST_HEAD(, bly_missing_watch) watches;
    size_t n_setting_up;
    struct step_list buckets[BUCKETS]; /* by wd */
    /*
     * Steps of ended watches. The kernel has one number (wd) for a directory, however many watches
     * it is part of, and a pool thread may get the number of a stale step this very moment: so they
     * are only given back while nothing is being set up.
     */
    struct step_list stale;
    char events[READ_BYTES] __attribute__((aligned(8)));
};

/* ---- setting up: pool thread ---------------------------------------------------------------- */

/* How far down a path we are. */
struct walk {
    struct bly_missing_watch *watch;
    int above, dir;       /* owned; above is -EBADF at the root */
    const char *dir_name; /* of dir in above */
};

/* Asks for `mask` about what `fd` stands for, besides what was asked for before. */
static bool add_step(struct bly_missing_watch *watch, int fd, uint32_t mask, const char *name)
{
    bly_autofree struct step *step = calloc(1, sizeof(*step));
    char path[32];

    if (!step || watch->n_steps >= BLY_MISSING_STEPS_MAX)
        return false;
    /* By descriptor: the name may stand for something else by now. */
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    step->wd = inotify_add_watch(watch->watcher->fd, path, mask | IN_MASK_ADD);
    if (step->wd < 0)
        return false;
    step->watch = watch;
    step->mask = mask | LOST;
    step->name = name;
    LIST_INSERT_HEAD(&watch->steps, step, in_watch);
    (void)bly_take_ptr(&step);
    watch->n_steps++;
    return true;
}

static bool is_still(int dir, const char *name, int fd)
{
    struct stat now, then;

    return fstatat(dir, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &then) == 0 &&
           now.st_dev == then.st_dev && now.st_ino == then.st_ino;
}

static bool is_directory(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

/*
 * Goes into a directory. Watched first and looked up again afterwards: whatever happens to its name
 * from then on is an event.
 */
static bool enter(struct walk *walk, const char *name, int *fd)
{
    if (!is_directory(*fd) || !add_step(walk->watch, *fd, GONE | IN_ONLYDIR, NULL) ||
        !is_still(walk->dir, name, *fd))
        return false;
    bly_close(walk->above);
    walk->above = walk->dir;
    walk->dir = bly_take_fd(fd);
    walk->dir_name = name;
    return true;
}

/*
 * Goes down `path` to the first name that does not exist, or the last one. `*ret_fd`: what that
 * name stands for, -EBADF when nothing.
 */
static bool descend(struct walk *walk, char *path, const char **ret_name, int *ret_fd)
{
    char *rest = path + 1;

    for (;;) {
        const char *name = strsep(&rest, "/");
        bly_autofd int fd = openat(walk->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0 && errno != ENOENT)
            return false;
        if (fd < 0 || !rest) {
            *ret_name = name;
            *ret_fd = fd < 0 ? -EBADF : bly_take_fd(&fd);
            return true;
        }
        if (!enter(walk, name, &fd))
            return false;
    }
}

/* `name` is missing in the directory: that and the life of the directory are watched. */
static bool watch_gap(const struct walk *walk, const char *name)
{
    struct stat st;

    /* A directory that somebody works in reports its own removal late, the one above it at once. */
    if (walk->above >= 0 && !add_step(walk->watch, walk->above, IN_DELETE, walk->dir_name))
        return false;
    if (!add_step(walk->watch, walk->dir, MADE, name))
        return false;
    if (walk->above >= 0 && !is_still(walk->above, walk->dir_name, walk->dir))
        return false;
    return fstatat(walk->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

/* Of a directory itself, not of what is in it: what is written there would be no end of events. */
static bool watch_object(const struct walk *walk, const char *name, int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || S_ISLNK(st.st_mode))
        return false;
    return add_step(walk->watch, walk->dir, MADE | UNMADE, name) &&
           add_step(walk->watch, fd, GONE | IN_ATTRIB | (S_ISDIR(st.st_mode) ? 0 : IN_MODIFY),
                    NULL) &&
           is_still(walk->dir, name, fd);
}

static bool watch_path(struct bly_missing_watch *watch, char *path, bool missing)
{
    struct walk walk = {.watch = watch, .above = -EBADF};
    bly_autofd int fd = -EBADF;
    const char *name;
    bool worked;

    if (strcmp(path, "/") == 0)
        return false;
    walk.dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    worked = walk.dir >= 0 && descend(&walk, path, &name, &fd) && (fd < 0) == missing &&
             (missing ? watch_gap(&walk, name) : watch_object(&walk, name, fd));
    bly_close(walk.above);
    bly_close(walk.dir);
    return worked;
}

static void set_up(uv_work_t *work)
{
    struct bly_missing_watch *watch = work->data;
    bool worked = true;

    for (size_t i = 0; i < watch->n_missing && worked; i++)
        worked = watch_path(watch, watch->paths[i], true);
    if (worked && watch->has_present)
        worked = watch_path(watch, watch->paths[watch->n_missing], false);
    watch->refused = !worked;
}

/* ---- bookkeeping: loop ---------------------------------------------------------------------- */

static struct step_list *bucket(struct bly_missing_watcher *watcher, int wd)
{
    return &watcher->buckets[(unsigned)wd % BUCKETS];
}

static bool is_wanted(struct bly_missing_watcher *watcher, int wd)
{
    struct step *step;

    LIST_FOREACH(step, bucket(watcher, wd), link)
    if (step->wd == wd)
        return true;
    return false;
}

/* Gives back what nobody wants any more, unless a pool thread may be about to want it. */
static void sweep(struct bly_missing_watcher *watcher)
{
    struct step *step;

    if (watcher->n_setting_up > 0)
        return;
    while ((step = LIST_FIRST(&watcher->stale))) {
        LIST_REMOVE(step, link);
        watcher->n_steps--;
        /* Fails for what is gone already, and from the second step with the same number on. */
        if (!is_wanted(watcher, step->wd))
            (void)inotify_rm_watch(watcher->fd, step->wd);
        free(step);
    }
}

static void retire_steps(struct bly_missing_watch *watch, bool registered)
{
    struct bly_missing_watcher *watcher = watch->watcher;
    struct step *step;

    while ((step = LIST_FIRST(&watch->steps))) {
        LIST_REMOVE(step, in_watch);
        if (registered)
            LIST_REMOVE(step, link);
        step->watch = NULL;
        LIST_INSERT_HEAD(&watcher->stale, step, link);
    }
    watch->n_steps = 0;
}

static void register_steps(struct bly_missing_watch *watch)
{
    struct step *step;

    LIST_FOREACH(step, &watch->steps, in_watch)
    LIST_INSERT_HEAD(bucket(watch->watcher, step->wd), step, link);
}

static void watch_free(struct bly_missing_watch *watch)
{
    for (size_t i = 0; i < BLY_LEN(watch->paths); i++)
        free(watch->paths[i]);
    free(watch);
}

/* A callback may stop any watch, so the list is looked at from its beginning again. */
static void tell_changed(struct bly_missing_watcher *watcher)
{
    struct bly_missing_watch *watch = LIST_FIRST(&watcher->watches);

    while (watch) {
        if (!watch->live || !watch->changed) {
            watch = LIST_NEXT(watch, link);
            continue;
        }
        watch->live = false;
        retire_steps(watch, true);
        watch->ops.changed(watch->arg);
        watch = LIST_FIRST(&watcher->watches);
    }
    sweep(watcher);
}

static void on_set_up(uv_work_t *work, int status)
{
    struct bly_missing_watch *watch = work->data;
    struct bly_missing_watcher *watcher = watch->watcher;

    watch->setting_up = false;
    watcher->n_setting_up--;
    watcher->n_steps += watch->n_steps;
    watch->live =
        status == 0 && !watch->refused && !watch->stopped && watcher->n_steps <= watcher->max_steps;
    if (watch->live)
        register_steps(watch);
    else
        retire_steps(watch, false);
    if (watch->stopped)
        watch_free(watch);
    else
        watch->ops.ready(watch->arg, watch->live); /* may stop it */
    tell_changed(watcher);
}

/* ---- events: loop --------------------------------------------------------------------------- */

static bool concerns(const struct step *step, const struct inotify_event *event)
{
    /* The number is shared: other watches may have asked for more. */
    if (!(event->mask & step->mask))
        return false;
    if (event->mask & (GONE | LOST))
        return true;
    if (!step->name)
        return event->len == 0;
    return event->len > 0 && strcmp(step->name, event->name) == 0;
}

static void on_event(struct bly_missing_watcher *watcher, const struct inotify_event *event)
{
    bool all = event->mask & IN_Q_OVERFLOW;
    struct bly_missing_watch *watch;
    struct step *step;

    LIST_FOREACH(step, bucket(watcher, event->wd), link)
    if (step->wd == event->wd && concerns(step, event))
        step->watch->changed = true;

    /* What is being set up has no steps here yet: rather a false alarm than none. IN_IGNORED is
     * the echo of a number given back, or follows another event. */
    LIST_FOREACH(watch, &watcher->watches, link)
    if (all || (watch->setting_up && !(event->mask & IN_IGNORED)))
        watch->changed = true;
}

static ssize_t read_events(struct bly_missing_watcher *watcher)
{
    ssize_t n = read(watcher->fd, watcher->events, sizeof(watcher->events));

    for (ssize_t at = 0; at < n;) {
        const struct inotify_event *event = (const void *)(watcher->events + at);

        on_event(watcher, event);
        at += (ssize_t)(sizeof(*event) + event->len);
    }
    return n;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct bly_missing_watcher *watcher = poll->data;

    (void)status;
    (void)events;
    for (int i = 0; i < READS_A_TURN; i++)
        if (read_events(watcher) <= 0)
            break;
    tell_changed(watcher);
}

/* ---- from outside --------------------------------------------------------------------------- */

int bly_missing_watcher_new(uv_loop_t *loop, uint64_t max_steps,
                            struct bly_missing_watcher **ret_watcher)
{
    bly_autofd int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    bly_autofree struct bly_missing_watcher *watcher = NULL;
    int r;

    if (fd < 0)
        return -errno;
    watcher = calloc(1, sizeof(*watcher));
    if (!watcher)
        return -ENOMEM;
    r = uv_poll_init(loop, &watcher->poll, fd);
    if (r < 0)
        return r;
    watcher->loop = loop;
    watcher->poll.data = watcher;
    watcher->max_steps = max_steps;
    watcher->fd = bly_take_fd(&fd);
    (void)uv_poll_start(&watcher->poll, UV_READABLE, on_readable);
    *ret_watcher = bly_take_ptr(&watcher);
    return 0;
}

void bly_missing_watcher_close(struct bly_missing_watcher *watcher)
{
    if (!uv_is_closing((uv_handle_t *)&watcher->poll))
        uv_close((uv_handle_t *)&watcher->poll, NULL);
}

struct bly_missing_watcher *bly_missing_watcher_free(struct bly_missing_watcher *watcher)
{
    if (!watcher)
        return NULL;
    sweep(watcher);
    bly_close(watcher->fd);
    free(watcher);
    return NULL;
}

static bool copy_paths(struct bly_missing_watch *watch,
                       const struct bly_missing_watch_request *request)
{
    watch->n_missing = request->n_missing;
    watch->has_present = request->present != NULL;
    for (size_t i = 0; i < request->n_missing; i++) {
        watch->paths[i] = strdup(request->missing[i]);
        if (!watch->paths[i])
            return false;
    }
    if (!request->present)
        return true;
    watch->paths[watch->n_missing] = strdup(request->present);
    return watch->paths[watch->n_missing] != NULL;
}

int bly_missing_watch_start(struct bly_missing_watcher *watcher,
                            const struct bly_missing_watch_request *request,
                            const struct bly_missing_watch_ops *ops, void *arg,
                            struct bly_missing_watch **ret_watch)
{
    struct bly_missing_watch *watch = calloc(1, sizeof(*watch));

    if (!watch)
        return -ENOMEM;
    watch->watcher = watcher;
    watch->ops = *ops;
    watch->arg = arg;
    watch->work.data = watch;
    LIST_INIT(&watch->steps);
    if (!copy_paths(watch, request) ||
        uv_queue_work(watcher->loop, &watch->work, set_up, on_set_up) < 0) {
        watch_free(watch);
        return -ENOMEM;
    }
    watch->setting_up = true;
    watcher->n_setting_up++;
    LIST_INSERT_HEAD(&watcher->watches, watch, link);
    *ret_watch = watch;
    return 0;
}

struct bly_missing_watch *bly_missing_watch_stop(struct bly_missing_watch *watch)
{
    if (!watch)
        return NULL;
    LIST_REMOVE(watch, link);
    watch->stopped = true;
    if (watch->setting_up) {
        (void)uv_cancel((uv_req_t *)&watch->work);
        return NULL;
    }
    retire_steps(watch, true);
    sweep(watch->watcher);
    watch_free(watch);
    return NULL;
}
