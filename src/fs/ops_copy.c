/* fs/copy: a file, a link, or a tree by descriptors. Inside a tree no link is followed. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "fs/chain.h"
#include "fs/ops.h"
#include "fs/ops_internal.h"
#include "fs/view.h"
#include "sandbox/policy/policy.h"

enum {
    COPY_BLOCK = 131072,     /* buffer of the plain loop */
    KERNEL_BLOCK = 64 << 20, /* copied by one copy_file_range() */
    PERMISSION_BITS = 0777,
};

struct copy {
    const struct bly_view *view;
    const char *source, *destination; /* of the request, for texts */
};

static int into_itself(struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                    "fs/copy cannot copy a directory to itself or one of its descendants");
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* ---- contents ---- */

static int copy_plain(const struct copy *copy, int from, int to, off_t at, off_t end,
                      struct bly_err *err)
{
    char block[COPY_BLOCK];

    while (at < end) {
        size_t want = end - at < COPY_BLOCK ? (size_t)(end - at) : COPY_BLOCK;
        ssize_t n = pread(from, block, want, at);
        int r = bly_view_check(copy->view, err);

        if (r < 0)
            return r;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return bly_fail_sys(err, errno, "cannot read %s", copy->source);
        if (n == 0)
            return 0;
        for (ssize_t done = 0; done < n;) {
            ssize_t w = pwrite(to, block + done, (size_t)(n - done), at + done);

            if (w < 0 && errno != EINTR)
                return bly_fail_sys(err, errno, "cannot write %s", copy->destination);
            done += w > 0 ? w : 0;
        }
        at += n;
    }
    return 0;
}

/* Copies a range that holds data; the kernel does it when the file systems allow. */
static int copy_range(const struct copy *copy, int from, int to, off_t at, off_t end,
                      struct bly_err *err)
{
    while (at < end) {
        size_t want = end - at < KERNEL_BLOCK ? (size_t)(end - at) : KERNEL_BLOCK;
        off_t in = at, out = at;
        ssize_t n = copy_file_range(from, &in, to, &out, want, 0);
        int r = bly_view_check(copy->view, err);

        if (r < 0)
            return r;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG || errno == EIO))
            return bly_fail_sys(err, errno, "cannot copy %s", copy->source);
        /* Not between these file systems, or a file that says 0 and has contents (procfs). */
        if (n <= 0)
            return copy_plain(copy, from, to, at, end, err);
        at += n;
    }
    return 0;
}

static int copy_with_holes(const struct copy *copy, int from, int to, off_t size,
                           struct bly_err *err)
{
    off_t at = 0;

    while (at < size) {
        off_t data = lseek(from, at, SEEK_DATA), hole;
        int r;

        if (data < 0 && errno == ENXIO)
            break;
        if (data < 0)
            data = at; /* a file system that knows no holes */
        hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0 || hole > size)
            hole = size;
        r = data < hole ? copy_range(copy, from, to, data, hole, err) : 0;
        if (r < 0)
            return r;
        at = hole > at ? hole : size;
    }
    if (ftruncate(to, size) < 0)
        return bly_fail_sys(err, errno, "cannot set the size of %s", copy->destination);
    return 0;
}

/* Both are open regular files; `to_st` is how the destination was when it was opened. */
static int copy_contents(const struct copy *copy, int from, const struct stat *from_st, int to,
                         const struct stat *to_st, struct bly_err *err)
{
    mode_t mode = from_st->st_mode & PERMISSION_BITS;
    int r;

    if (is_same(from_st, to_st))
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "fs/copy cannot copy a file to itself");
    r = bly_ops_truncate(copy->destination, to, to_st, err);
    if (r < 0)
        return r;
    if ((to_st->st_mode & PERMISSION_BITS) != mode && fchmod(to, mode) < 0)
        return bly_fail_sys(err, errno, "cannot set the mode of %s", copy->destination);
    if (from_st->st_size == 0)
        return copy_plain(copy, from, to, 0, BLY_FS_READ_MAX, err);
    if (from_st->st_blocks < from_st->st_size / 512)
        return copy_with_holes(copy, from, to, from_st->st_size, err);
    return copy_range(copy, from, to, 0, from_st->st_size, err);
}

static int open_source(const struct copy *copy, int dir, const char *name, int *ret_fd,
                       struct stat *ret_st, struct bly_err *err)
{
    bly_autofd int fd =
        openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, ret_st) < 0)
        return bly_fail_sys(err, errno, "cannot open %s", copy->source);
    if (!S_ISREG(ret_st->st_mode))
        return bly_ops_not_a_file(copy->source, err);
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

static int copy_file(const struct copy *copy, const struct bly_place *from, struct bly_err *err)
{
    bly_autofd int in = -EBADF, out = -EBADF;
    struct stat in_st, out_st;
    int r = open_source(copy, from->dir, from->name, &in, &in_st, err);

    if (r == 0)
        r = bly_ops_open_target(copy->view, copy->destination, false,
                                in_st.st_mode & PERMISSION_BITS, &out, &out_st, err);
    return r < 0 ? r : copy_contents(copy, in, &in_st, out, &out_st, err);
}

static int copy_link_at(const struct copy *copy, int from_dir, const char *from, int to_dir,
                        const char *to, struct bly_err *err)
{
    char text[PATH_MAX];
    ssize_t n = readlinkat(from_dir, from, text, sizeof text - 1);

    if (n < 0)
        return bly_fail_sys(err, errno, "cannot read the link %s", copy->source);
    text[n] = '\0';
    if (symlinkat(text, to_dir, to) < 0)
        return bly_fail_sys(err, errno, "cannot make the link %s", copy->destination);
    return 0;
}

static int copy_link(const struct copy *copy, const struct bly_place *from, struct bly_err *err)
{
    bly_autoplace struct bly_place to = BLY_NOWHERE;
    int r;

    r = bly_view_parent(copy->view, copy->destination, BLY_NEED_WRITE, false, &to, err);
    return r < 0 ? r : copy_link_at(copy, from->dir, from->name, to.dir, to.name, err);
}

/* ---- trees ---- */

struct tree_copy {
    struct copy copy;
    bool judge; /* the policy has something narrower in one of the trees: decide for every name */
    bool rehearsal; /* decide only, touch nothing */
    struct bly_chain from, to;
    const char *to_base;  /* canonical name of the destination */
    size_t from_base_len; /* bytes of the canonical name of the source */
    struct stat to_top;   /* must never be met as a source: the copy would not end */
};

/* Whether reading everything at and below `canonical` is permitted without a look at each name. */
static bool reads_tree(const struct bly_policy *policy, const char *canonical)
{
    if (policy->n_deny_globs > 0)
        return false;
    for (size_t i = 0; i < policy->n_rules; i++)
        if (policy->rules[i].access == BLY_ACCESS_DENY &&
            bly_path_is_within(policy->rules[i].path, canonical))
            return false;
    return true;
}

/* Where `from`, a path at or below the source, goes to. */
static char *to_path(const struct tree_copy *tree, const char *from)
{
    const char *rest = from + tree->from_base_len;

    return bly_path_join(tree->to_base, *rest == '/' ? rest + 1 : rest);
}

static int judge(struct tree_copy *tree, const char *name, struct bly_err *err)
{
    const struct bly_view *view = tree->copy.view;
    bly_autofree char *to = NULL;
    const char *from;

    if (!tree->judge)
        return 0;
    from = bly_chain_path(&tree->from, name);
    to = from == NULL ? NULL : to_path(tree, from);
    if (to == NULL)
        return bly_fail_sys(err, ENOMEM, "no memory for a path");
    if (!bly_view_permits(view, from, BLY_NEED_READ))
        return bly_view_refuse(view, tree->copy.source, from, BLY_NEED_READ, err);
    if (!bly_view_permits(view, to, BLY_NEED_WRITE))
        return bly_view_refuse(view, tree->copy.destination, to, BLY_NEED_WRITE, err);
    return 0;
}

/* A link at the name of a file is followed like at the top of a copy, but only to where the policy
 * permits writing. */
static int open_through_link(const struct tree_copy *tree, const char *name, mode_t mode,
                             int *ret_fd, struct bly_err *err)
{
    const struct copy *copy = &tree->copy;
    bly_autofree char *base = to_path(tree, bly_chain_here(&tree->from));
    bly_autoplace struct bly_place place = BLY_NOWHERE;
    int r;

    if (base == NULL)
        return bly_fail_sys(err, ENOMEM, "no memory for a path");
    r = bly_view_look_in(copy->view, bly_chain_fd(&tree->to), base, name, copy->destination,
                         BLY_NEED_WRITE, BLY_LOOK_MISSING, &place, err);
    if (r < 0)
        return r;
    *ret_fd = bly_place_open(&place, O_WRONLY | O_CREAT, mode);
    return *ret_fd < 0 ? bly_fail_sys(err, errno, "cannot open %s", copy->destination) : 0;
}

static int copy_tree_file(struct tree_copy *tree, const char *name, struct bly_err *err)
{
    const struct copy *copy = &tree->copy;
    bly_autofd int in = -EBADF, out = -EBADF;
    struct stat in_st, out_st;
    mode_t mode;
    int r = open_source(copy, bly_chain_fd(&tree->from), name, &in, &in_st, err);

    if (r < 0)
        return r;
    mode = in_st.st_mode & PERMISSION_BITS;
    out = openat(bly_chain_fd(&tree->to), name,
                 O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
    if (out < 0 && errno == ELOOP)
        r = open_through_link(tree, name, mode, &out, err);
    else if (out < 0 && errno == ENXIO)
        r = bly_ops_not_a_file(copy->destination, err);
    else if (out < 0)
        r = bly_fail_sys(err, errno, "cannot open %s in %s", name, copy->destination);
    if (r == 0)
        r = bly_ops_accept_target(copy->destination, out, &out_st, err);
    return r < 0 ? r : copy_contents(copy, in, &in_st, out, &out_st, err);
}

static int enter_both(struct tree_copy *tree, const char *name, struct bly_err *err)
{
    bly_autofd int in = openat(bly_chain_fd(&tree->from), name, tree->from.flags);
    struct stat st;
    int out, r;

    if (in < 0 || fstat(in, &st) < 0)
        return bly_fail_sys(err, errno, "cannot open %s in %s", name, tree->copy.source);
    if (!tree->rehearsal && is_same(&st, &tree->to_top))
        return into_itself(err);
    r = bly_chain_push(&tree->from, bly_take_fd(&in), name, err);
    if (r < 0 || tree->rehearsal)
        return r;

    if (mkdirat(bly_chain_fd(&tree->to), name, 0777) < 0 && errno != EEXIST)
        return bly_fail_sys(err, errno, "cannot make %s in %s", name, tree->copy.destination);
    out = openat(bly_chain_fd(&tree->to), name, tree->to.flags);
    if (out < 0)
        return bly_fail_sys(err, errno == ENOTDIR || errno == ELOOP ? EEXIST : errno,
                            "cannot open %s in %s", name, tree->copy.destination);
    return bly_chain_push(&tree->to, out, name, err);
}

static int copy_entry(struct tree_copy *tree, const struct dirent64 *entry, struct bly_err *err)
{
    const char *name = entry->d_name;
    unsigned type = entry->d_type;
    struct stat st;
    int r = judge(tree, name, err);

    if (r < 0)
        return r;
    if (type == DT_UNKNOWN) {
        if (fstatat(bly_chain_fd(&tree->from), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return bly_fail_sys(err, errno, "cannot stat %s in %s", name, tree->copy.source);
        type = IFTODT(st.st_mode);
    }
    if (type == DT_DIR)
        return enter_both(tree, name, err);
    if (tree->rehearsal)
        return 0;
    if (type == DT_REG)
        return copy_tree_file(tree, name, err);
    if (type == DT_LNK)
        return copy_link_at(&tree->copy, bly_chain_fd(&tree->from), name, bly_chain_fd(&tree->to),
                            name, err);
    return 0; /* special files are left out */
}

static int leave_both(struct tree_copy *tree, struct bly_err *err)
{
    int r = bly_chain_pop(&tree->from, err);

    return r < 0 || tree->rehearsal ? r : bly_chain_pop(&tree->to, err);
}

static int run_tree(struct tree_copy *tree, struct bly_err *err)
{
    int r = 0;

    while (r == 0) {
        const struct dirent64 *entry;

        r = bly_view_check(tree->copy.view, err);
        if (r == 0)
            r = bly_chain_next(&tree->from, &entry, err);
        if (r == 0)
            r = copy_entry(tree, entry, err);
        else if (r == BLY_CHAIN_END && tree->from.n == 1)
            return 0;
        else if (r == BLY_CHAIN_END)
            r = leave_both(tree, err);
    }
    return r;
}

/* Whether the directory `fd` is `top` or lies below it, by identity, so that aliases count. */
static int refuse_inside(int fd, const struct stat *top, struct bly_err *err)
{
    bly_autofd int at = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat st, above;

    if (at < 0 || fstat(at, &st) < 0)
        return bly_fail_sys(err, errno, "cannot look at the destination");
    while (!is_same(&st, top)) {
        int up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

        if (up < 0 || fstat(up, &above) < 0) {
            int sys = errno;

            bly_close(up);
            return bly_fail_sys(err, sys, "cannot look above the destination");
        }
        bly_close(at);
        at = up;
        if (is_same(&above, &st)) /* the root */
            return 0;
        st = above;
    }
    return into_itself(err);
}

static int open_tree_source(struct tree_copy *tree, const struct bly_place *from,
                            struct bly_err *err)
{
    const char *base = strcmp(from->canonical, "/") == 0 ? "" : from->canonical;
    int fd;

    bly_chain_deinit(&tree->from);
    tree->from_base_len = strlen(base);
    if (bly_chain_init(&tree->from, O_RDONLY | O_NONBLOCK, false, base) < 0)
        return bly_fail_sys(err, ENOMEM, "no memory for a path");
    fd = openat(from->dir, from->name, tree->from.flags);
    if (fd < 0)
        return bly_fail_sys(err, errno, "cannot open %s", tree->copy.source);
    return bly_chain_push(&tree->from, fd, "", err);
}

/* Decides for both trees before anything is made, unless nothing in them needs a look. */
static int rehearse(struct tree_copy *tree, const struct bly_place *from, struct bly_err *err)
{
    struct bly_fold fold = bly_view_fold(tree->copy.view);
    int r;

    if (fold.policy == NULL || (bly_fold_holds(&fold, from->canonical, reads_tree) &&
                                bly_fold_holds(&fold, tree->to_base, bly_policy_writes_tree)))
        return 0;
    tree->judge = true;
    tree->rehearsal = true;
    r = run_tree(tree, err);
    tree->rehearsal = false;
    return r < 0 ? r : open_tree_source(tree, from, err);
}

static int copy_into(struct tree_copy *tree, const struct bly_place *from, struct bly_place *to,
                     struct bly_err *err)
{
    bly_autofree char *to_base = bly_path_join(to->canonical, to->rest);
    struct stat top;
    int r;

    if (to_base == NULL || bly_chain_init(&tree->to, O_PATH, false, "") < 0)
        return bly_fail_sys(err, ENOMEM, "no memory for a path");
    tree->to_base = to_base;
    r = open_tree_source(tree, from, err);
    if (r < 0)
        return r;
    if (fstat(bly_chain_fd(&tree->from), &top) < 0)
        return bly_fail_sys(err, errno, "cannot stat %s", tree->copy.source);
    r = !to->missing && !S_ISDIR(to->st.st_mode)
            ? 0 /* bly_ops_make_path() says so */
            : refuse_inside(to->missing ? to->dir : to->fd, &top, err);
    if (r == 0)
        r = rehearse(tree, from, err);
    if (r == 0)
        r = bly_ops_make_path(tree->copy.view, tree->copy.destination, to, err);
    if (r == 0)
        r = bly_chain_push(&tree->to, bly_take_fd(&to->fd), "", err);
    if (r == 0 && fstat(bly_chain_fd(&tree->to), &tree->to_top) < 0)
        r = bly_fail_sys(err, errno, "cannot stat %s", tree->copy.destination);
    return r < 0 ? r : run_tree(tree, err);
}

static int copy_tree(const struct copy *copy, const struct bly_place *from, struct bly_err *err)
{
    struct tree_copy tree = {.copy = *copy};
    bly_autoplace struct bly_place to = BLY_NOWHERE;
    int r;

    r = bly_ops_look_for_making(copy->view, copy->destination, false, &to, err);
    if (r == 0)
        r = copy_into(&tree, from, &to, err);
    bly_chain_deinit(&tree.from);
    bly_chain_deinit(&tree.to);
    return r;
}

int bly_ops_copy(const struct bly_view *view, const char *source, const char *destination,
                 bool recursive, struct bly_err *err)
{
    const struct copy copy = {.view = view, .source = source, .destination = destination};
    bly_autoplace struct bly_place from = BLY_NOWHERE;
    struct stat st;
    int r;

    r = bly_view_parent(view, source, BLY_NEED_READ, false, &from, err);
    if (r < 0)
        return r;
    if (fstatat(from.dir, from.name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return bly_fail_sys(err, errno, "cannot stat %s", source);

    if (S_ISREG(st.st_mode))
        return copy_file(&copy, &from, err);
    if (S_ISLNK(st.st_mode))
        return copy_link(&copy, &from, err);
    if (!S_ISDIR(st.st_mode))
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "fs/copy only supports regular files, directories, and symlinks");
    if (!recursive)
        return bly_fail(err, BLY_ERR_INVALID, EISDIR,
                        "fs/copy requires recursive: true when sourcePath is a directory");
    return copy_tree(&copy, &from, err);
}
