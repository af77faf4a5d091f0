/* Listing directories: one (fs/readDirectory) or a tree (fs/walk). */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "fs/dir.h"
#include "fs/ops.h"
#include "fs/view.h"

enum {
    NAMES_MAX = 64 << 20,    /* bytes of names of one directory that fs/walk sorts */
    WALK_ENTRY_COST = 64,    /* of the answer's budget, beside the path */
    VISITED_BUCKETS = 16384, /* above the largest number of directories of a walk */
};

/* An open directory and how it is called. */
struct listing {
    int fd;
    const char *path; /* with a policy its canonical name, else as it was given */
};

static int open_listing(const struct bly_view *view, const char *path, bool no_follow, int *ret_fd,
                        char *canonical, struct bly_err *err)
{
    struct bly_opening how = {
        .need = BLY_NEED_READ,
        .flags = O_RDONLY | O_DIRECTORY,
        .canonical = canonical,
    };

    if (no_follow)
        how.flags |= O_NOFOLLOW;
    return bly_view_open(view, path, &how, ret_fd, err);
}

/* What the link `name` leads to, where the policy shows it: sets place->st, and with a policy
 * everything else as well. */
static int look_behind(const struct bly_view *view, const struct listing *in, const char *name,
                       struct bly_place *place)
{
    bly_autofree char *path = NULL;

    if (view->policy != NULL)
        return bly_view_look_in(view, in->fd, in->path, name, name, BLY_NEED_READ, 0, place, NULL);
    if (fstatat(in->fd, name, &place->st, 0) == 0)
        return 0;
    if (errno != ELOOP)
        return -errno;
    path = bly_path_join(in->path, name);
    return path == NULL ? -ENOMEM
                        : bly_view_look(view, path, BLY_NEED_READ, BLY_LOOK_NO_MAGIC, place, NULL);
}

static unsigned char type_of(int dir, const struct dirent64 *entry)
{
    struct stat st;

    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type;
    if (fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return DT_UNKNOWN;
    return (unsigned char)IFTODT(st.st_mode);
}

static uint8_t flags_of_type(unsigned type)
{
    return type == DT_DIR ? BLY_FS_ENTRY_DIRECTORY : type == DT_REG ? BLY_FS_ENTRY_FILE : 0;
}

int bly_ops_read_directory(const struct bly_view *view, const char *path, struct bly_buf *entries,
                           size_t *ret_n, struct bly_err *err)
{
    char canonical[PATH_MAX];
    bly_autofd int fd = -EBADF;
    struct listing in = {.path = view->policy != NULL ? canonical : path};
    const struct dirent64 *entry;
    struct bly_dir dir;
    size_t n = 0;
    int r = open_listing(view, path, false, &fd, canonical, err);

    if (r < 0)
        return r;
    in.fd = fd;
    bly_dir_init(&dir, fd);
    while ((r = bly_dir_next(&dir, &entry)) == 0) {
        unsigned char type = type_of(fd, entry);

        r = bly_view_check(view, err);
        if (r < 0)
            return r;
        if (type == DT_LNK) {
            bly_autoplace struct bly_place place = BLY_NOWHERE;

            if (look_behind(view, &in, entry->d_name, &place) < 0)
                continue;
            type = (unsigned char)IFTODT(place.st.st_mode);
        }
        if (++n > BLY_FS_DIRECTORY_MAX)
            return bly_fail(err, BLY_ERR_LIMIT, EOVERFLOW,
                            "fs/readDirectory returned %zu entries; limit is %d", n,
                            BLY_FS_DIRECTORY_MAX);
        bly_buf_put_u8(entries, flags_of_type(type));
        bly_buf_put_str(entries, entry->d_name);
    }
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot list %s", path);
    if (entries->error < 0)
        return bly_fail_sys(err, -entries->error, "no room for the list of %s", path);
    *ret_n = n;
    return 0;
}

/* ---- fs/walk ---- */

struct pending {
    char *shown; /* the given path plus names */
    char *real;  /* where it is opened: the canonical name of a followed link, else NULL */
    uint64_t depth;
};

struct name {
    const char *text;
    unsigned char type;
};

struct visited {
    dev_t dev;
    ino_t ino;
    bool used;
};

struct tree_walk {
    const struct bly_view *view;
    const struct bly_fs_walk *options;
    struct bly_buf *entries;
    size_t n_entries;   /* of files and directories */
    size_t n_records;   /* errors included */
    uint64_t n_entered; /* directories read */
    uint64_t spent;     /* of the budget */
    bool truncated;
    struct pending *queue; /* breadth first: taken at `first`, added at `last` */
    size_t first, last, cap;
    struct visited *visited;
};

static void walk_deinit(struct tree_walk *walk)
{
    for (size_t i = walk->first; i < walk->last; i++) {
        free(walk->queue[i].shown);
        free(walk->queue[i].real);
    }
    free(walk->queue);
    free(walk->visited);
}

static int enqueue(struct tree_walk *walk, const char *shown, const char *real, uint64_t depth)
{
    struct pending *to;

    if (walk->last == walk->cap) {
        size_t cap = walk->cap ? 2 * walk->cap : 64;
        struct pending *queue = realloc(walk->queue, cap * sizeof *queue);

        if (queue == NULL)
            return -ENOMEM;
        walk->queue = queue;
        walk->cap = cap;
    }
    to = &walk->queue[walk->last];
    *to = (struct pending){.shown = strdup(shown), .depth = depth};
    if (real != NULL)
        to->real = strdup(real);
    walk->last++;
    return to->shown == NULL || (real != NULL && to->real == NULL) ? -ENOMEM : 0;
}

/* Remembers a directory; true when it was entered before. Never full: see VISITED_BUCKETS. */
static bool was_visited(struct tree_walk *walk, const struct stat *st)
{
    size_t at = (size_t)(st->st_ino * 0x9e3779b97f4a7c15u + st->st_dev) % VISITED_BUCKETS;

    while (walk->visited[at].used) {
        if (walk->visited[at].dev == st->st_dev && walk->visited[at].ino == st->st_ino)
            return true;
        at = (at + 1) % VISITED_BUCKETS;
    }
    walk->visited[at] = (struct visited){.dev = st->st_dev, .ino = st->st_ino, .used = true};
    return false;
}

/* Takes from the answer's budget; false ends the walk. */
static bool spend(struct tree_walk *walk, const char *path)
{
    walk->spent += strlen(path) + WALK_ENTRY_COST;
    if (walk->spent > BLY_FS_WALK_BUDGET)
        walk->truncated = true;
    return !walk->truncated;
}

static void add_error(struct tree_walk *walk, const char *path, int sys)
{
    char text[128];

    if (!spend(walk, path))
        return;
    snprintf(text, sizeof text, "%s (os error %d)", bly_errno_text(sys), sys);
    bly_buf_put_u8(walk->entries, BLY_FS_ENTRY_ERROR);
    bly_buf_put_str(walk->entries, path);
    bly_buf_put_str(walk->entries, text);
    walk->n_records++;
}

static bool add_entry(struct tree_walk *walk, const char *path, uint8_t flags)
{
    if (walk->n_entries == walk->options->max_entries)
        walk->truncated = true;
    if (walk->truncated || !spend(walk, path))
        return false;
    bly_buf_put_u8(walk->entries, flags);
    bly_buf_put_str(walk->entries, path);
    walk->n_entries++;
    walk->n_records++;
    return true;
}

/* Merges two neighbouring sorted runs of `from`, [0, mid) and [mid, end), into `to`. */
static void merge(const struct name *from, size_t mid, size_t end, struct name *to)
{
    size_t left = 0, right = mid;

    for (size_t i = 0; i < end; i++)
        to[i] = right == end || (left < mid && strcmp(from[left].text, from[right].text) <= 0)
                    ? from[left++]
                    : from[right++];
}

/* Not qsort(): glibc's asks the kernel for the size of memory, which the wall does not allow. */
static void sort_names(struct name **names, struct name **spare, size_t n)
{
    for (size_t run = 1; run < n; run *= 2) {
        struct name *from = *names;

        for (size_t at = 0; at < n; at += 2 * run) {
            size_t end = n - at < 2 * run ? n - at : 2 * run;

            merge(from + at, run < end ? run : end, end, *spare + at);
        }
        *names = *spare;
        *spare = from;
    }
}

/*
 * All names of a directory, sorted. `text` owns them: a type byte before each. A directory with
 * more names than we are ready to sort is cut short, and the walk is truncated.
 */
static int sorted_names(struct tree_walk *walk, int fd, struct bly_buf *text,
                        struct name **ret_names, size_t *ret_n)
{
    const struct dirent64 *entry;
    struct bly_dir dir;
    bly_autofree struct name *names = NULL, *spare = NULL;
    size_t n = 0, pos = 0;
    int r;

    bly_dir_init(&dir, fd);
    while ((r = bly_dir_next(&dir, &entry)) == 0) {
        size_t len = strlen(entry->d_name) + 1;

        r = bly_view_check(walk->view, NULL);
        if (r < 0)
            return r;
        if (text->len + 1 + len > text->max) {
            walk->truncated = true;
            break;
        }
        bly_buf_put_u8(text, type_of(fd, entry));
        bly_buf_add(text, entry->d_name, len);
        n++;
    }
    if (r < 0)
        return r;
    if (text->error < 0)
        return text->error;

    names = malloc((n + 1) * sizeof *names);
    spare = malloc((n + 1) * sizeof *spare);
    if (names == NULL || spare == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        names[i].type = text->data[pos];
        names[i].text = (const char *)text->data + pos + 1;
        pos += 2 + strlen(names[i].text);
    }
    sort_names(&names, &spare, n);
    *ret_names = bly_take_ptr(&names);
    *ret_n = n;
    return 0;
}

/* One name of a directory. False ends the walk (walk->truncated), or memory is gone (*ret_r). */
static bool take_name(struct tree_walk *walk, const struct listing *in, const struct pending *from,
                      const struct name *name, int *ret_r)
{
    bly_autoplace struct bly_place place = BLY_NOWHERE;
    bly_autofree char *shown = bly_path_join(from->shown, name->text);
    bly_autofree char *real = NULL;
    const char *open_as = NULL;
    bool enter = name->type == DT_DIR;

    if (shown == NULL)
        return *ret_r = -ENOMEM, false;
    if (name->type == DT_REG)
        return add_entry(walk, shown, BLY_FS_ENTRY_FILE);
    if (name->type == DT_LNK && walk->options->follow_directory_symlinks)
        enter = look_behind(walk->view, in, name->text, &place) == 0 && S_ISDIR(place.st.st_mode);
    if (!enter)
        return true;
    if (!add_entry(walk, shown, BLY_FS_ENTRY_DIRECTORY))
        return false;

    if (from->depth >= walk->options->max_depth)
        return true;
    if (walk->options->prune_hidden_directories && name->text[0] == '.')
        return true;
    if (name->type == DT_LNK) {
        open_as = walk->view->policy != NULL ? place.canonical : shown;
    } else if (walk->view->policy != NULL && strcmp(in->path, from->shown) != 0) {
        real = bly_path_join(in->path, name->text);
        open_as = real;
        if (real == NULL)
            return *ret_r = -ENOMEM, false;
    }
    *ret_r = enqueue(walk, shown, open_as, from->depth + 1);
    return *ret_r == 0;
}

static int list_directory(struct tree_walk *walk, const struct pending *from,
                          const struct listing *in)
{
    bly_autobuf struct bly_buf text;
    bly_autofree struct name *names = NULL;
    size_t n = 0;
    int r;

    bly_buf_init(&text, NAMES_MAX);
    r = sorted_names(walk, in->fd, &text, &names, &n);
    if (r == -ENOMEM || r == -ECANCELED)
        return r;
    if (r < 0) {
        add_error(walk, from->shown, -r);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        r = bly_view_check(walk->view, NULL);
        if (r < 0 || !take_name(walk, in, from, &names[i], &r))
            return r;
    }
    return 0;
}

static int enter_directory(struct tree_walk *walk, const struct pending *from, bool is_root)
{
    char canonical[PATH_MAX];
    bly_autofd int fd = -EBADF;
    const char *path = from->real ? from->real : from->shown;
    struct listing in = {.path = walk->view->policy != NULL ? canonical : path};
    struct stat st;
    /* A directory that has become a link since it was listed must not be followed; a link that was
     * listed is opened by its canonical name, or directly by the kernel. */
    bool no_follow = !is_root && from->real == NULL && walk->view->policy == NULL;
    int r = open_listing(walk->view, path, no_follow, &fd, canonical, NULL);

    if (r < 0 && is_root)
        return r;
    if (r == 0 && fstat(fd, &st) < 0)
        r = -errno;
    if (r == 0 && was_visited(walk, &st))
        return 0;
    if (walk->n_entered == walk->options->max_directories) {
        walk->truncated = true;
        return 0;
    }
    walk->n_entered++;
    if (r < 0) {
        add_error(walk, from->shown, -r);
        return 0;
    }
    in.fd = fd;
    return list_directory(walk, from, &in);
}

static int run_walk(struct tree_walk *walk)
{
    int r = 0;

    while (walk->first < walk->last && !walk->truncated && r == 0) {
        struct pending from = walk->queue[walk->first++];

        r = enter_directory(walk, &from, walk->first == 1);
        free(from.shown);
        free(from.real);
        if (r == 0)
            r = walk->entries->error;
        if (r == 0)
            r = bly_view_check(walk->view, NULL);
    }
    return r;
}

int bly_ops_walk(const struct bly_view *view, const char *path, const struct bly_fs_walk *options,
                 struct bly_buf *entries, size_t *ret_n, bool *ret_truncated, struct bly_err *err)
{
    struct tree_walk walk = {.view = view, .options = options, .entries = entries};
    struct bly_fs_metadata root;
    int r = bly_ops_metadata(view, path, false, &root, err);

    if (r < 0)
        return r;
    *ret_n = 0;
    *ret_truncated = false;
    if (!root.is_directory || (root.is_symlink && !options->follow_directory_symlinks))
        return 0;

    walk.visited = calloc(VISITED_BUCKETS, sizeof *walk.visited);
    r = walk.visited == NULL ? -ENOMEM : enqueue(&walk, path, NULL, 0);
    if (r == 0)
        r = run_walk(&walk);
    walk_deinit(&walk);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot walk %s", path);
    *ret_n = walk.n_records;
    *ret_truncated = walk.truncated;
    return 0;
}
