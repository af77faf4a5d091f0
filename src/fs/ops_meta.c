/* Metadata, canonical names, and making directories. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fs/ops.h"
#include "fs/ops_internal.h"
#include "fs/view.h"

enum { WANTED = STATX_TYPE | STATX_SIZE | STATX_MTIME | STATX_BTIME };

static int64_t milliseconds(const struct statx_timestamp *t)
{
    return t->tv_sec * 1000 + t->tv_nsec / 1000000;
}

static void fill(struct bly_fs_metadata *ret, const struct statx *sx, bool is_symlink)
{
    *ret = (struct bly_fs_metadata){
        .is_directory = S_ISDIR(sx->stx_mode),
        .is_file = S_ISREG(sx->stx_mode),
        .is_symlink = is_symlink,
        .size = sx->stx_size,
        .created_at_ms = sx->stx_mask & STATX_BTIME ? milliseconds(&sx->stx_btime) : 0,
        .modified_at_ms = sx->stx_mask & STATX_MTIME ? milliseconds(&sx->stx_mtime) : 0,
    };
}

/* The kernel resolves: one call, a second one for a link. */
static int metadata_direct(const char *path, struct bly_fs_metadata *ret, struct bly_err *err)
{
    struct statx sx;
    bool is_symlink;

    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, WANTED, &sx) < 0)
        return bly_fail_sys(err, errno, "%s", path);
    is_symlink = S_ISLNK(sx.stx_mode);
    if (is_symlink && statx(AT_FDCWD, path, 0, WANTED, &sx) < 0)
        return bly_fail_sys(err, errno, "%s", path);
    fill(ret, &sx, is_symlink);
    return 0;
}

int bly_ops_metadata(const struct bly_view *view, const char *path, bool no_follow,
                     struct bly_fs_metadata *ret_metadata, struct bly_err *err)
{
    bly_autoplace struct bly_place place = BLY_NOWHERE;
    struct statx sx;
    int r;

    if (view->policy == NULL && !no_follow) {
        r = metadata_direct(path, ret_metadata, err);
        if (r != -ELOOP)
            return r;
        bly_err_clear(err);
        r = bly_view_look(view, path, BLY_NEED_READ, BLY_LOOK_NO_MAGIC, &place, err);
    } else {
        r = bly_view_find(view, path, BLY_NEED_READ, no_follow, &place, err);
    }
    if (r < 0)
        return r;
    if (statx(place.fd, "", AT_EMPTY_PATH, WANTED, &sx) < 0)
        return bly_fail_sys(err, errno, "%s", path);
    fill(ret_metadata, &sx, place.is_symlink);
    return 0;
}

int bly_ops_canonicalize(const struct bly_view *view, const char *path, char **ret_path,
                         struct bly_err *err)
{
    bly_autoplace struct bly_place place = BLY_NOWHERE;
    int r;

    r = bly_view_find(view, path, BLY_NEED_READ, false, &place, err);
    if (r < 0)
        return r;
    *ret_path = strdup(place.canonical);
    return *ret_path == NULL ? bly_fail_sys(err, ENOMEM, "no memory for a path") : 0;
}

/* mkdir of one name whose parent exists; 0 or negative errno with `err` set. */
static int make_one(const struct bly_view *view, const char *path, bool no_follow,
                    struct bly_err *err)
{
    bly_autoplace struct bly_place place = BLY_NOWHERE;
    int r;

    r = bly_view_parent(view, path, BLY_NEED_WRITE, no_follow, &place, err);
    if (r < 0)
        return r;
    if (mkdirat(place.dir, place.name, 0777) < 0)
        return bly_fail_sys(err, errno, "cannot make %s", path);
    return 0;
}

/*
 * Makes `name` in the directory `dir`, which is called `canonical` afterwards, and returns it in
 * `*ret_fd`. Somebody else may have made it first.
 */
static int make_level(const struct bly_view *view, const char *path, int dir, const char *name,
                      const char *canonical, int *ret_fd, struct bly_err *err)
{
    int fd;

    if (!bly_view_permits(view, canonical, BLY_NEED_WRITE))
        return bly_view_refuse(view, path, canonical, BLY_NEED_WRITE, err);
    if (mkdirat(dir, name, 0777) < 0 && errno != EEXIST)
        return bly_fail_sys(err, errno, "cannot make %s", path);
    fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return bly_fail_sys(err, errno == ENOTDIR || errno == ELOOP ? EEXIST : errno,
                            "cannot make %s", path);
    *ret_fd = fd;
    return 0;
}

/* `place` is at the name before place->rest: goes on to the next one. False at the end. */
static bool next_level(struct bly_place *place)
{
    char *rest = place->canonical + (place->rest - place->canonical);
    size_t n = strcspn(rest, "/");

    if (n == 0)
        return false;
    rest[-1] = '/';
    place->name = rest;
    place->rest = rest + n + (rest[n] == '/');
    rest[n] = '\0';
    return true;
}

/* Every directory that will be made must be permitted before the first one is. */
static int decide_levels(const struct bly_view *view, const char *path,
                         const struct bly_place *place, struct bly_err *err)
{
    struct bly_place at = *place;

    at.rest = at.canonical + (place->rest - place->canonical);
    do
        if (!bly_view_permits(view, at.canonical, BLY_NEED_WRITE))
            return bly_view_refuse(view, path, at.canonical, BLY_NEED_WRITE, err);
    while (next_level(&at));
    return 0;
}

static int make_levels(const struct bly_view *view, const char *path, struct bly_place *place,
                       struct bly_err *err)
{
    int r = decide_levels(view, path, place, err);

    while (r == 0) {
        r = make_level(view, path, place->dir, place->name, place->canonical, &place->fd, err);
        if (r < 0 || !next_level(place))
            break;
        bly_close(place->dir);
        place->dir = bly_take_fd(&place->fd);
    }
    if (r == 0)
        place->missing = false;
    return r;
}

int bly_ops_make_path(const struct bly_view *view, const char *path, struct bly_place *place,
                      struct bly_err *err)
{
    if (place->missing && place->dangling)
        return bly_fail_sys(err, EEXIST, "%s is a dangling link", path);
    if (place->missing)
        return make_levels(view, path, place, err);
    if (!S_ISDIR(place->st.st_mode))
        return bly_fail_sys(err, EEXIST, "%s", path);
    return 0;
}

int bly_ops_look_for_making(const struct bly_view *view, const char *path, bool no_follow,
                            struct bly_place *place, struct bly_err *err)
{
    unsigned how = BLY_LOOK_MISSING | (no_follow ? BLY_LOOK_NO_FOLLOW : 0);
    int r = bly_view_look(view, path, BLY_NEED_WRITE, how, place, err);

    /* mkdir -p stumbles over the link, not over what the link names. */
    if (r == -ENOENT && place->dangling)
        return bly_fail_sys(err, EEXIST, "%s runs through a dangling link", path);
    return r;
}

int bly_ops_create_directory(const struct bly_view *view, const char *path, bool recursive,
                             bool no_follow, struct bly_err *err)
{
    bly_autoplace struct bly_place place = BLY_NOWHERE;
    int r = make_one(view, path, no_follow, err);

    if (r == 0 || !recursive)
        return r;
    /* Most of the time the parent exists. The rest is for the walk, which knows every case. */
    bly_err_clear(err);
    r = bly_ops_look_for_making(view, path, no_follow, &place, err);
    return r < 0 ? r : bly_ops_make_path(view, path, &place, err);
}
