/* fs/remove: one name, or a tree by descriptors, deepest first. Never follows a link. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "fs/chain.h"
#include "fs/ops.h"
#include "fs/view.h"
#include "sandbox/policy/policy.h"

/* Directories somebody filled again while we emptied them, before we give up. */
enum { MAX_REFILLS = 16, TREE_FLAGS = O_RDONLY | O_NONBLOCK };

struct removal {
    const struct bly_view *view;
    const char *path; /* for texts */
    bool judge;       /* decide for every name: a glob of the policy could match one */
    struct bly_chain chain;
    int refills;
};

static int judge(struct removal *removal, const char *name, struct bly_err *err)
{
    const char *canonical;

    if (!removal->judge)
        return 0;
    canonical = bly_chain_path(&removal->chain, name);
    if (canonical == NULL)
        return bly_fail_sys(err, ENOMEM, "no memory for a path");
    if (!bly_view_permits(removal->view, canonical, BLY_NEED_WRITE))
        return bly_view_refuse(removal->view, removal->path, canonical, BLY_NEED_WRITE, err);
    return 0;
}

/* Goes down into the directory `name`, or does away with it when that is all it takes. */
static int descend(struct removal *removal, int dir, const char *name, struct bly_err *err)
{
    int fd = openat(dir, name, removal->chain.flags);
    int sys = errno;

    if (fd >= 0)
        return bly_chain_push(&removal->chain, fd, name, err);
    if (sys == ENOENT)
        return 0;
    /* It has become something else since it was listed, or it cannot be read but may be empty. */
    if (sys == ENOTDIR || sys == ELOOP ? unlinkat(dir, name, 0) == 0
                                       : unlinkat(dir, name, AT_REMOVEDIR) == 0)
        return 0;
    return bly_fail_sys(err, sys == ENOTDIR || sys == ELOOP ? errno : sys, "cannot remove %s in %s",
                        name, removal->path);
}

static int remove_entry(struct removal *removal, const struct dirent64 *entry, struct bly_err *err)
{
    int dir = bly_chain_fd(&removal->chain);
    int r = judge(removal, entry->d_name, err);

    if (r < 0)
        return r;
    if (entry->d_type == DT_DIR)
        return descend(removal, dir, entry->d_name, err);
    if (unlinkat(dir, entry->d_name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno == EISDIR)
        return descend(removal, dir, entry->d_name, err);
    return bly_fail_sys(err, errno, "cannot remove %s in %s", entry->d_name, removal->path);
}

/* The directory at the end is empty: goes up and removes it there. */
static int leave(struct removal *removal, struct bly_err *err)
{
    bly_autofree char *name = strdup(bly_chain_name(&removal->chain));
    int r, dir;

    if (name == NULL)
        return bly_fail_sys(err, ENOMEM, "no memory for a name");
    r = bly_chain_pop(&removal->chain, err);
    if (r < 0)
        return r;
    dir = bly_chain_fd(&removal->chain);
    if (unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    if (errno == ENOTEMPTY && removal->refills++ < MAX_REFILLS)
        return descend(removal, dir, name, err);
    return bly_fail_sys(err, errno, "cannot remove %s in %s", name, removal->path);
}

/* Removes everything below the directory `fd` (consumed). */
static int empty_tree(struct removal *removal, int fd, struct bly_err *err)
{
    int r = bly_chain_push(&removal->chain, fd, "", err);

    while (r == 0) {
        const struct dirent64 *entry;

        r = bly_view_check(removal->view, err);
        if (r == 0)
            r = bly_chain_next(&removal->chain, &entry, err);
        if (r == 0)
            r = remove_entry(removal, entry, err);
        else if (r == BLY_CHAIN_END && removal->chain.n == 1)
            return 0;
        else if (r == BLY_CHAIN_END)
            r = leave(removal, err);
    }
    return r;
}

static bool is_directory(int dir, const struct dirent64 *entry)
{
    struct stat st;

    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    return fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* Decides for every name below the directory `fd` (consumed) and touches nothing. */
static int judge_tree(struct removal *removal, int fd, struct bly_err *err)
{
    struct bly_chain *chain = &removal->chain;
    int r = bly_chain_push(chain, fd, "", err);

    while (r == 0) {
        const struct dirent64 *entry;

        r = bly_view_check(removal->view, err);
        if (r == 0)
            r = bly_chain_next(chain, &entry, err);
        if (r == BLY_CHAIN_END && chain->n == 1)
            return 0;
        if (r == BLY_CHAIN_END) {
            r = bly_chain_pop(chain, err);
            continue;
        }
        if (r == 0)
            r = judge(removal, entry->d_name, err);
        if (r == 0 && is_directory(bly_chain_fd(chain), entry)) {
            int below = openat(bly_chain_fd(chain), entry->d_name, chain->flags);

            r = below >= 0 ? bly_chain_push(chain, below, entry->d_name, err)
                           : bly_fail_sys(err, errno, "cannot look into %s", removal->path);
        }
    }
    return r;
}

/* Runs `pass` over the tree. */
static int over_tree(const struct bly_view *view, const char *path, const struct bly_place *place,
                     bool judging,
                     int (*pass)(struct removal *removal, int fd, struct bly_err *err), bool rewind,
                     struct bly_err *err)
{
    struct removal removal = {.view = view, .path = path, .judge = judging};
    int r = bly_chain_init(&removal.chain, TREE_FLAGS, rewind, judging ? place->canonical : "");
    int fd = r < 0 ? -1 : openat(place->dir, place->name, removal.chain.flags);

    if (fd >= 0)
        r = pass(&removal, fd, err);
    else
        r = bly_fail_sys(err, r < 0 ? -r : errno, "cannot remove %s", path);
    bly_chain_deinit(&removal.chain);
    return r;
}

static int remove_tree(const struct bly_view *view, const char *path, const struct bly_place *place,
                       struct bly_err *err)
{
    struct bly_fold fold = bly_view_fold(view);
    bool judging =
        view->policy != NULL && !bly_fold_holds(&fold, place->canonical, bly_policy_writes_tree);
    int r = judging ? over_tree(view, path, place, true, judge_tree, false, err) : 0;

    for (int refills = 0; r == 0; refills++) {
        r = over_tree(view, path, place, judging, empty_tree, true, err);
        if (r < 0)
            break;
        if (unlinkat(place->dir, place->name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 0;
        if (errno != ENOTEMPTY || refills == MAX_REFILLS)
            return bly_fail_sys(err, errno, "cannot remove %s", path);
    }
    return r;
}

static int remove_name(const struct bly_view *view, const char *path, bool recursive,
                       const struct bly_place *place, struct bly_err *err)
{
    if (unlinkat(place->dir, place->name, 0) == 0)
        return 0;
    if (errno != EISDIR)
        return bly_fail_sys(err, errno, "cannot remove %s", path);
    /* A mount point answers EBUSY here, before anything in it is touched. */
    if (unlinkat(place->dir, place->name, AT_REMOVEDIR) == 0)
        return 0;
    if (!recursive || (errno != ENOTEMPTY && errno != EEXIST))
        return bly_fail_sys(err, errno, "cannot remove %s", path);
    return remove_tree(view, path, place, err);
}

/* Whether the directory the name stands in permits changing its entries. */
static int decide_parent(const struct bly_view *view, const char *path, struct bly_place *place,
                         struct bly_err *err)
{
    char *slash = strrchr(place->canonical, '/');
    const char *parent = slash == place->canonical ? "/" : place->canonical;
    int r = 0;

    *slash = '\0';
    if (!bly_view_permits(view, parent, BLY_NEED_WRITE))
        r = bly_view_refuse(view, path, parent, BLY_NEED_WRITE, err);
    *slash = '/';
    return r;
}

/*
 * A read-only part in the tree refuses everything before the first name goes. The name itself is an
 * entry of its parent, so that must be writable too: a writable root cannot be removed. Globs are
 * judged when there really is a tree, see remove_tree(): a client asks for a recursive removal also
 * when it removes a file.
 */
static int decide(const struct bly_view *view, const char *path, bool recursive,
                  struct bly_place *place, struct bly_err *err)
{
    bly_autofree char *narrowing = NULL;
    int r;

    if (view->policy == NULL)
        return 0;
    r = decide_parent(view, path, place, err);
    if (r < 0 || !recursive)
        return r;
    r = bly_policy_find_narrowing(view->policy, place->canonical, &narrowing);
    if (r < 0)
        return bly_fail_sys(err, -r, "no memory for a path");
    return r > 0 ? bly_view_refuse(view, path, narrowing, BLY_NEED_WRITE, err) : 0;
}

/* -EINVAL when the name itself is a link; the walk has refused links before it. */
static int refuse_link(const struct bly_place *place, struct bly_err *err)
{
    struct stat st;

    if (fstatat(place->dir, place->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
        return bly_fail(err, BLY_ERR_INVALID, ELOOP, "path contains a symbolic link");
    return 0;
}

int bly_ops_remove(const struct bly_view *view, const char *path, bool recursive, bool force,
                   bool no_follow, struct bly_err *err)
{
    bly_autoplace struct bly_place place = BLY_NOWHERE;
    int r;

    if (strcmp(path, "/") == 0)
        return bly_fail(err, BLY_ERR_INVALID, EBUSY, "fs/remove cannot remove /");
    if (no_follow && recursive)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, EOPNOTSUPP,
                        "recursive no-follow removal is unsupported");

    r = bly_view_parent(view, path, BLY_NEED_WRITE, no_follow, &place, err);
    if (r == 0)
        r = decide(view, path, recursive, &place, err);
    if (r == 0 && no_follow)
        r = refuse_link(&place, err);
    if (r == 0)
        r = remove_name(view, path, recursive, &place, err);
    if (r == -ENOENT && force) {
        bly_err_clear(err);
        return 0;
    }
    return r;
}
