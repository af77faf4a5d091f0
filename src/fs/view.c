#include "fs/view.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "sandbox/policy/policy.h"

enum {
    MAX_LINKS = 40, /* as the kernel */
    MAX_RACES = 16, /* walks that lost against somebody who exchanges names */
    PROC_ROOT = 1,  /* inode of the top directory of a procfs */
    LOST_RACE = 1,  /* outcome: start again */
    ALWAYS = O_CLOEXEC | O_NOCTTY | O_NONBLOCK, /* a FIFO or a device must never hold us up */
};

static bool permits(enum bly_access access, enum bly_need need)
{
    return access == BLY_ACCESS_WRITE || (access == BLY_ACCESS_READ && need == BLY_NEED_READ);
}

struct bly_fold bly_view_fold(const struct bly_view *view)
{
    return (struct bly_fold){view->policy, view->folded, bly_fold_on_disk};
}

bool bly_view_permits(const struct bly_view *view, const char *canonical, enum bly_need need)
{
    struct bly_fold fold = bly_view_fold(view);

    return view->policy == NULL || permits(bly_fold_decide(&fold, canonical), need);
}

/* `denial` says which rule decided for `access`. */
static int refuse(const char *path, enum bly_access access, struct bly_denial denial,
                  enum bly_need need, struct bly_err *err)
{
    int r;

    denial.access = need == BLY_NEED_WRITE ? BLY_DENIED_WRITE : BLY_DENIED_READ;
    if (need == BLY_NEED_WRITE)
        r = bly_fail(err, BLY_ERR_DENIED, EACCES, "%s is not permitted by filesystem sandbox",
                     path);
    else if (access == BLY_ACCESS_DENY)
        r = bly_fail_sys(err, EACCES, "%s", path);
    else /* Nothing tells it from a name that does not exist. */
        return bly_fail_sys(err, ENOENT, "%s", path);
    if (err != NULL)
        err->denial = denial;
    return r;
}

int bly_view_refuse(const struct bly_view *view, const char *path, const char *canonical,
                    enum bly_need need, struct bly_err *err)
{
    struct bly_denial denial = {0};
    struct bly_fold fold = bly_view_fold(view);
    enum bly_access access = bly_fold_explain(&fold, canonical, &denial);

    return refuse(path, access, denial, need, err);
}

int bly_view_check(const struct bly_view *view, struct bly_err *err)
{
    if (view->cancelled != NULL && atomic_load_explicit(view->cancelled, memory_order_relaxed))
        return bly_fail_sys(err, ECANCELED, "the client is gone");
    return 0;
}

static int contains_link(struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_INVALID, ELOOP, "path contains a symbolic link");
}

/* Success proves that the path is canonical: no component was a symbolic link. */
static int open_plain(const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)flags,
        .mode = flags & O_CREAT ? mode : 0,
        .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };

    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

/* Old kernels have no openat2, and old container filters answer EPERM for a call they do not
 * know. ELOOP is a link, which the component walk follows. */
static bool needs_walk(int sys)
{
    return sys == ELOOP || sys == ENOSYS || sys == EPERM || sys == EAGAIN;
}

/* A directory of the policy's own making or its way there: a granted rule lies below it. */
static bool leads_to_grant(const struct bly_policy *policy, const char *canonical)
{
    for (size_t i = 0; i < policy->n_rules; i++) {
        const struct bly_rule *rule = &policy->rules[i];

        if (bly_path_is_within(rule->path, canonical) &&
            permits(bly_policy_decide(policy, rule->path), BLY_NEED_READ))
            return true;
    }
    if (!policy->minimal)
        return false;
    for (const char *const *at = bly_policy_platform_defaults; *at != NULL; at++)
        if (bly_path_is_within(*at, canonical) &&
            permits(bly_policy_decide(policy, *at), BLY_NEED_READ))
            return true;
    return false;
}

struct walk {
    const struct bly_view *view;
    const char *path; /* of the request, for texts */
    enum bly_need need;
    unsigned how;
    bool parent_only;
    struct bly_place *place; /* .dir and .canonical say where we are */
    size_t len;              /* of place->canonical; 0 at the root */
    int n_links;
    /* Names still to come, at the end of `text`: link targets are put in front without a move. */
    const char *next;
    const char *original; /* from here on the names are the request's, not a link's */
    char text[2 * PATH_MAX];
};

static int put_text(struct walk *w, const char *text, size_t len)
{
    size_t room = (size_t)(w->next - w->text);
    char *to;

    if (len + 1 > room)
        return -ENAMETOOLONG;
    to = w->text + room - len - 1;
    memcpy(to, text, len);
    to[len] = '/';
    w->next = to;
    return 0;
}

static const char *skip_empty(const char *p)
{
    while (*p == '/' || (*p == '.' && (p[1] == '/' || p[1] == '\0')))
        p++;
    return p;
}

static bool climbs(const char *rest)
{
    for (const char *p = strstr(rest, ".."); p != NULL; p = strstr(p + 1, ".."))
        if ((p == rest || p[-1] == '/') && (p[2] == '/' || p[2] == '\0'))
            return true;
    return false;
}

/* The name we are at and what is still to come, in `full` (3 * PATH_MAX bytes). A rest that climbs
 * (it comes from a link) is left out. */
static void name_in_full(const struct walk *w, char *full)
{
    const char *rest = skip_empty(w->next);
    size_t len = strlen(w->place->canonical), more = strlen(rest);

    memcpy(full, w->place->canonical, len);
    if (more > 0 && !climbs(rest)) {
        full[len++] = '/';
        memcpy(full + len, rest, more);
        len += more;
        while (full[len - 1] == '/')
            len--;
    }
    full[len] = '\0';
}

/* An answer that depends on what exists may only be given where the whole name is permitted: decide
 * first, look later. Fills `full` with the name that was judged. */
static bool may_tell(const struct walk *w, char *full)
{
    name_in_full(w, full);
    return bly_view_permits(w->view, full, w->need);
}

/*
 * Where nothing may be looked at the whole name is judged as it is written, so that a denied path
 * is answered as one (sandbox.md 5.2), whether something of it exists or not: only the policy and
 * the request are asked, never the disk.
 */
static int refuse_unseen(const struct walk *w, struct bly_err *err)
{
    struct bly_denial denial = {0};
    char full[3 * PATH_MAX];

    name_in_full(w, full);
    return refuse(w->path, bly_policy_explain(w->view->policy, full, &denial), denial, w->need,
                  err);
}

static int fail_here(const struct walk *w, int sys, struct bly_err *err)
{
    char full[3 * PATH_MAX];

    if (w->view->policy != NULL && !may_tell(w, full))
        return bly_view_refuse(w->view, w->path, full, w->need, err);
    return bly_fail_sys(err, sys, "%s", w->path);
}

static void move_to(struct walk *w, int fd)
{
    bly_closep(&w->place->dir);
    w->place->dir = fd;
}

static int go_to_root(struct walk *w, struct bly_err *err)
{
    int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return bly_fail_sys(err, errno, "cannot open the root");
    move_to(w, fd);
    w->len = 0;
    w->place->canonical[0] = '\0';
    return 0;
}

/* Opens a canonical directory name component by component, for kernels without openat2. */
static int open_canonical(const char *path)
{
    int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    while (fd >= 0 && *(path = skip_empty(path)) != '\0') {
        char name[NAME_MAX + 1];
        size_t len = strcspn(path, "/");
        int below;

        if (len > NAME_MAX)
            return errno = ENAMETOOLONG, bly_close(fd), -1;
        memcpy(name, path, len);
        name[len] = '\0';
        path += len;
        below = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        bly_close(fd);
        fd = below;
    }
    return fd;
}

/*
 * ".." (only link targets have one). Opening ".." of the directory we hold would follow it to
 * wherever it has been moved; the canonical name says what we mean, so it is opened again.
 */
static int go_up(struct walk *w, struct bly_err *err)
{
    char *slash;
    int fd;

    if (w->len == 0)
        return 0;
    slash = strrchr(w->place->canonical, '/');
    if (slash == w->place->canonical)
        return go_to_root(w, err);

    *slash = '\0';
    w->len = (size_t)(slash - w->place->canonical);
    fd = open_plain(w->place->canonical, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0 && needs_walk(errno))
        fd = open_canonical(w->place->canonical);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return LOST_RACE;
    if (fd < 0)
        return fail_here(w, errno, err);
    move_to(w, fd);
    return 0;
}

/*
 * Links of procfs other than self, mounts and the like in its top directory lead to objects, not to
 * names: their text must not be believed.
 */
static bool is_magic(int link, int dir)
{
    struct statfs fs;
    struct stat st;

    if (fstatfs(link, &fs) < 0)
        return true;
    if (fs.f_type != PROC_SUPER_MAGIC)
        return false;
    return fstat(dir, &st) < 0 || st.st_ino != PROC_ROOT;
}

/* The name at the end of place->canonical is the link `fd`: walk its text instead. */
static int follow(struct walk *w, int fd, size_t parent_len, struct bly_err *err)
{
    char target[PATH_MAX];
    bool no_magic;
    ssize_t n;

    if (w->how & BLY_LOOK_NO_FOLLOW)
        return contains_link(err);
    no_magic = w->view->policy != NULL || (w->how & BLY_LOOK_NO_MAGIC);
    if (++w->n_links > MAX_LINKS || (no_magic && is_magic(fd, w->place->dir)))
        return fail_here(w, ELOOP, err);

    n = readlinkat(fd, "", target, sizeof target);
    if (n < 0)
        return fail_here(w, errno, err);
    if (n == 0)
        return fail_here(w, ENOENT, err);
    if (w->next > w->original)
        w->original = w->next;
    if ((size_t)n >= sizeof target || put_text(w, target, (size_t)n) < 0)
        return fail_here(w, ENAMETOOLONG, err);

    w->len = parent_len;
    w->place->canonical[parent_len] = '\0';
    return target[0] == '/' ? go_to_root(w, err) : 0;
}

/* The walk ended at the directory we stand in ("/", or a link whose text ends in ".."). */
static int end_at_directory(struct walk *w, struct bly_err *err)
{
    struct bly_place *place = w->place;

    if (w->len == 0)
        memcpy(place->canonical, "/", 2);
    if (!bly_view_permits(w->view, place->canonical, w->need))
        return bly_view_refuse(w->view, w->path, place->canonical, w->need, err);
    place->name = ".";
    place->rest = "";
    if (w->parent_only)
        return 0;
    place->fd = openat(place->dir, ".", O_PATH | O_CLOEXEC);
    if (place->fd < 0 || fstat(place->fd, &place->st) < 0)
        return bly_fail_sys(err, errno, "%s", w->path);
    return 0;
}

static int end_missing(struct walk *w, bool from_link, struct bly_err *err)
{
    struct bly_place *place = w->place;
    const char *rest = skip_empty(w->next);
    size_t len = strlen(rest);
    char full[3 * PATH_MAX];

    while (len > 0 && rest[len - 1] == '/')
        len--;
    place->dangling = from_link;
    if (!(w->how & BLY_LOOK_MISSING) || (len > 0 && from_link))
        return fail_here(w, ENOENT, err);
    if (w->len + 1 + len >= sizeof place->canonical)
        return fail_here(w, ENAMETOOLONG, err);
    if (w->view->policy != NULL && !may_tell(w, full))
        return bly_view_refuse(w->view, w->path, full, w->need, err);

    memcpy(place->canonical + w->len + 1, rest, len);
    place->canonical[w->len + 1 + len] = '\0';
    place->rest = place->canonical + w->len + 1;
    place->missing = true;
    return 0;
}

enum { MORE = 2 }; /* outcome of step(): the walk goes on */

static int step(struct walk *w, struct bly_err *err)
{
    struct bly_place *place = w->place;
    const char *name = w->next = skip_empty(w->next);
    bool original = name >= w->original, last;
    size_t len = strcspn(name, "/"), parent_len = w->len;
    bly_autofd int fd = -EBADF;
    struct stat st;

    if (len == 0)
        return end_at_directory(w, err);
    w->next = name + len;
    if (len == 2 && memcmp(name, "..", 2) == 0) {
        int r = go_up(w, err);

        return r == 0 ? MORE : r;
    }
    last = *skip_empty(w->next) == '\0';

    if (w->len + 1 + len >= sizeof place->canonical)
        return bly_fail_sys(err, ENAMETOOLONG, "%s", w->path);
    place->canonical[w->len] = '/';
    memcpy(place->canonical + w->len + 1, name, len);
    w->len += 1 + len;
    place->canonical[w->len] = '\0';
    place->name = place->canonical + parent_len + 1;

    /* Nothing is looked at where the policy shows nothing, so nothing can be told about it. */
    if (!bly_view_permits(w->view, place->canonical, BLY_NEED_READ) &&
        !leads_to_grant(w->view->policy, place->canonical))
        return refuse_unseen(w, err);

    if (last && w->parent_only) {
        if (!bly_view_permits(w->view, place->canonical, w->need))
            return bly_view_refuse(w->view, w->path, place->canonical, w->need, err);
        return 0;
    }

    fd = openat(place->dir, place->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return end_missing(w, !original, err);
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_here(w, errno, err);

    if (S_ISLNK(st.st_mode)) {
        int r;

        place->is_symlink = place->is_symlink || (last && original);
        r = follow(w, fd, parent_len, err);
        return r == 0 ? MORE : r;
    }
    if (!last && !S_ISDIR(st.st_mode))
        return fail_here(w, ENOTDIR, err);
    if (!last) {
        move_to(w, bly_take_fd(&fd));
        return MORE;
    }

    if (!bly_view_permits(w->view, place->canonical, w->need))
        return bly_view_refuse(w->view, w->path, place->canonical, w->need, err);
    place->rest = "";
    place->st = st;
    place->fd = bly_take_fd(&fd);
    return 0;
}

void bly_place_deinit(struct bly_place *place)
{
    place->dir = bly_close(place->dir);
    place->fd = bly_close(place->fd);
}

/* From the directory `dir` called `canonical`, or from the root. */
static int walk(struct walk *w, int dir, const char *canonical, const char *path,
                struct bly_err *err)
{
    size_t len = strlen(path);

    for (int tries = 0; tries < MAX_RACES; tries++) {
        int r;

        bly_place_deinit(w->place);
        *w->place = BLY_NOWHERE;
        w->n_links = 0;
        w->text[sizeof w->text - 1] = '\0';
        w->next = w->text + sizeof w->text - 1;
        if (len >= PATH_MAX || put_text(w, path, len) < 0)
            return bly_fail_sys(err, ENAMETOOLONG, "%s", w->path);
        w->original = w->next;

        if (dir < 0) {
            r = go_to_root(w, err);
        } else {
            int fd = openat(dir, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

            r = fd < 0 ? bly_fail_sys(err, errno, "%s", w->path) : 0;
            w->place->dir = fd;
            w->len = strcmp(canonical, "/") == 0 ? 0 : strlen(canonical);
            if (w->len >= sizeof w->place->canonical)
                return bly_fail_sys(err, ENAMETOOLONG, "%s", w->path);
            memcpy(w->place->canonical, canonical, w->len);
            w->place->canonical[w->len] = '\0';
        }
        if (r < 0)
            return r;
        do
            r = step(w, err);
        while (r == MORE);
        if (r != LOST_RACE)
            return r;
    }
    return bly_fail_sys(err, ELOOP, "%s keeps changing", w->path);
}

int bly_view_look(const struct bly_view *view, const char *path, enum bly_need need, unsigned how,
                  struct bly_place *place, struct bly_err *err)
{
    struct walk w;

    if ((how & BLY_LOOK_NO_FOLLOW) && !bly_view_permits(view, path, need))
        return bly_view_refuse(view, path, path, need, err);
    w.view = view;
    w.path = path;
    w.need = need;
    w.how = how;
    w.parent_only = false;
    w.place = place;
    return walk(&w, -EBADF, "/", path, err);
}

int bly_view_find(const struct bly_view *view, const char *path, enum bly_need need, bool no_follow,
                  struct bly_place *place, struct bly_err *err)
{
    unsigned how = no_follow ? BLY_LOOK_NO_FOLLOW : 0;

    if (!bly_view_permits(view, path, need))
        return bly_view_look(view, path, need, how, place, err);
    place->fd = open_plain(path, O_PATH | O_CLOEXEC, 0);
    if (place->fd >= 0) {
        memcpy(place->canonical, path, strlen(path) + 1);
        return 0;
    }
    if (errno == ELOOP && no_follow)
        return contains_link(err);
    if (needs_walk(errno))
        return bly_view_look(view, path, need, how, place, err);
    return bly_fail_sys(err, errno, "%s", path);
}

int bly_view_look_in(const struct bly_view *view, int dir, const char *canonical, const char *name,
                     const char *path, enum bly_need need, unsigned how, struct bly_place *place,
                     struct bly_err *err)
{
    struct walk w;

    w.view = view;
    w.path = path;
    w.need = need;
    w.how = how;
    w.parent_only = false;
    w.place = place;
    return walk(&w, dir, canonical, name, err);
}

static int parent_by_walk(const struct bly_view *view, const char *path, enum bly_need need,
                          bool no_follow, struct bly_place *place, struct bly_err *err)
{
    struct walk w;

    w.view = view;
    w.path = path;
    w.need = need;
    w.how = BLY_LOOK_NO_MAGIC | (no_follow ? BLY_LOOK_NO_FOLLOW : 0);
    w.parent_only = true;
    w.place = place;
    return walk(&w, -EBADF, "/", path, err);
}

int bly_view_parent(const struct bly_view *view, const char *path, enum bly_need need,
                    bool no_follow, struct bly_place *place, struct bly_err *err)
{
    size_t len = strlen(path), head = (size_t)(bly_path_base(path) - path);
    bool direct = view->policy == NULL && !no_follow;

    if (len >= PATH_MAX)
        return bly_fail_sys(err, ENAMETOOLONG, "%s", path);
    if (!bly_view_permits(view, path, need)) {
        if (no_follow)
            return bly_view_refuse(view, path, path, need, err);
        return parent_by_walk(view, path, need, no_follow, place, err);
    }
    if (head == len) /* "/" has no name in a directory */
        return parent_by_walk(view, path, need, no_follow, place, err);

    memcpy(place->canonical, path, head);
    place->canonical[head] = '\0';
    place->dir = direct ? open(place->canonical, O_PATH | O_DIRECTORY | O_CLOEXEC)
                        : open_plain(place->canonical, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (place->dir < 0 && (direct ? errno == ELOOP : needs_walk(errno)))
        return parent_by_walk(view, path, need, no_follow, place, err);
    if (place->dir < 0)
        return bly_fail_sys(err, errno, "%s", path);
    memcpy(place->canonical, path, len + 1);
    place->name = place->canonical + head;
    return 0;
}

int bly_place_open(const struct bly_place *place, int flags, mode_t mode)
{
    if (place->missing && (*place->rest != '\0' || !(flags & O_CREAT))) {
        errno = ENOENT;
        return -1;
    }
    return openat(place->dir, place->name, flags | O_NOFOLLOW | ALWAYS, mode);
}

/* The descriptor the walk ended with is the object that was decided on. */
static int take_object(struct bly_place *place, int flags)
{
    if ((flags & O_DIRECTORY) && !S_ISDIR(place->st.st_mode)) {
        errno = ENOTDIR;
        return -1;
    }
    return bly_take_fd(&place->fd);
}

/* The name has become a link, or a directory something else, since the walk. */
static bool has_changed(const struct bly_place *place, int sys)
{
    return sys == ELOOP || (sys == ENOTDIR && !place->missing && S_ISDIR(place->st.st_mode));
}

static int open_by_walk(const struct bly_view *view, const char *path,
                        const struct bly_opening *how, int *ret_fd, struct bly_err *err)
{
    unsigned look = BLY_LOOK_NO_MAGIC | (how->no_follow ? BLY_LOOK_NO_FOLLOW : 0) |
                    (how->flags & O_CREAT ? BLY_LOOK_MISSING : 0);
    bly_autoplace struct bly_place place = BLY_NOWHERE;

    for (int tries = 0; tries < MAX_RACES; tries++) {
        int r = how->flags & O_NOFOLLOW
                    ? parent_by_walk(view, path, how->need, how->no_follow, &place, err)
                    : bly_view_look(view, path, how->need, look, &place, err);
        int fd;

        if (r < 0)
            return r;
        fd = how->flags & O_PATH ? take_object(&place, how->flags)
                                 : bly_place_open(&place, how->flags, how->mode);
        if (fd >= 0) {
            if (how->canonical != NULL)
                memcpy(how->canonical, place.canonical, sizeof place.canonical);
            *ret_fd = fd;
            return 0;
        }
        if (!has_changed(&place, errno))
            return bly_fail_sys(err, errno, "%s", path);
    }
    return bly_fail_sys(err, ELOOP, "%s keeps changing", path);
}

int bly_view_open(const struct bly_view *view, const char *path, const struct bly_opening *how,
                  int *ret_fd, struct bly_err *err)
{
    int flags = how->flags | (how->flags & O_PATH ? O_CLOEXEC : ALWAYS);
    int fd;

    if (view->policy == NULL && !how->no_follow) {
        fd = open(path, flags, how->mode);
        if (fd < 0 && errno == ELOOP)
            return open_by_walk(view, path, how, ret_fd, err);
        if (fd < 0)
            return bly_fail_sys(err, errno, "%s", path);
        *ret_fd = fd;
        return 0;
    }

    if (!bly_view_permits(view, path, how->need)) {
        if (how->no_follow)
            return bly_view_refuse(view, path, path, how->need, err);
        return open_by_walk(view, path, how, ret_fd, err);
    }
    fd = open_plain(path, flags, how->mode);
    if (fd < 0 && errno == ELOOP && how->no_follow)
        return contains_link(err);
    if (fd < 0 && needs_walk(errno))
        return open_by_walk(view, path, how, ret_fd, err);
    if (fd < 0)
        return bly_fail_sys(err, errno, "%s", path);
    if (how->canonical != NULL)
        memcpy(how->canonical, path, strlen(path) + 1);
    *ret_fd = fd;
    return 0;
}
