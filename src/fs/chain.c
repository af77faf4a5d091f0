#include "fs/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fs/dir.h"

enum { PATH_BYTES = 64 << 20 }; /* more than any tree can make us need */

struct bly_level {
    int fd; /* -EBADF while closed */
    dev_t dev;
    ino_t ino;
    size_t parent_len;   /* of chain->path without this level's name */
    struct bly_dir *dir; /* NULL until it is read */
    int64_t resume;
};

int bly_chain_init(struct bly_chain *chain, int flags, bool rewind, const char *base)
{
    *chain = (struct bly_chain){
        .flags = flags | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
        .rewind = rewind,
    };
    bly_buf_init(&chain->path, PATH_BYTES);
    bly_buf_add(&chain->path, base, strlen(base) + 1);
    return chain->path.error;
}

static void close_level(struct bly_level *level)
{
    bly_closep(&level->fd);
    if (level->dir != NULL)
        level->resume = level->dir->resume;
    bly_freep(&level->dir);
}

void bly_chain_deinit(struct bly_chain *chain)
{
    for (size_t i = 0; i < chain->n; i++)
        close_level(&chain->levels[i]);
    bly_freep(&chain->levels);
    bly_buf_deinit(&chain->path);
    chain->n = 0;
}

static struct bly_level *end_of(const struct bly_chain *chain)
{
    return &chain->levels[chain->n - 1];
}

int bly_chain_fd(const struct bly_chain *chain)
{
    return end_of(chain)->fd;
}

const char *bly_chain_here(const struct bly_chain *chain)
{
    /* bly_chain_path() may have left a name behind the end. */
    chain->path.data[chain->path.len - 1] = '\0';
    return (const char *)chain->path.data;
}

const char *bly_chain_name(const struct bly_chain *chain)
{
    return bly_chain_here(chain) + end_of(chain)->parent_len + 1;
}

static int add_name(struct bly_chain *chain, const char *name)
{
    chain->path.len--; /* the NUL */
    bly_buf_add_char(&chain->path, '/');
    return bly_buf_add(&chain->path, name, strlen(name) + 1);
}

static void cut_path(struct bly_chain *chain, size_t len)
{
    chain->path.data[len] = '\0';
    chain->path.len = len + 1;
}

const char *bly_chain_path(struct bly_chain *chain, const char *name)
{
    size_t len = chain->path.len - 1;

    if (add_name(chain, name) < 0)
        return NULL;
    chain->path.len = len + 1; /* the text stays, the end is as before */
    return (const char *)chain->path.data;
}

static int make_room(struct bly_chain *chain)
{
    size_t cap = chain->cap ? 2 * chain->cap : 16;
    struct bly_level *levels;

    if (chain->n < chain->cap)
        return 0;
    levels = realloc(chain->levels, cap * sizeof *levels);
    if (levels == NULL)
        return -ENOMEM;
    chain->levels = levels;
    chain->cap = cap;
    return 0;
}

int bly_chain_push(struct bly_chain *chain, int fd, const char *name, struct bly_err *err)
{
    bly_autofd int own = fd;
    size_t parent_len = chain->path.len - 1;
    struct stat st;

    if (fstat(own, &st) < 0)
        return bly_fail_sys(err, errno, "cannot stat a directory");
    if (make_room(chain) < 0)
        return bly_fail_sys(err, ENOMEM, "no memory for a directory");
    if (chain->n > 0 && add_name(chain, name) < 0)
        return bly_fail_sys(err, ENAMETOOLONG, "the tree is too deep");
    chain->levels[chain->n++] = (struct bly_level){
        .fd = bly_take_fd(&own),
        .dev = st.st_dev,
        .ino = st.st_ino,
        .parent_len = parent_len,
    };
    if (chain->n - chain->first_open > BLY_CHAIN_OPEN)
        close_level(&chain->levels[chain->first_open++]);
    return 0;
}

static int reopen(const struct bly_chain *chain, const struct bly_level *below,
                  struct bly_level *level, struct bly_err *err)
{
    bly_autofd int fd = openat(below->fd, "..", chain->flags);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return bly_fail_sys(err, errno, "cannot go back up");
    if (st.st_dev != level->dev || st.st_ino != level->ino)
        return bly_fail_sys(err, ESTALE, "a directory was moved away");
    if (!chain->rewind && level->resume != 0 && lseek(fd, level->resume, SEEK_SET) < 0)
        return bly_fail_sys(err, errno, "cannot go on reading a directory");
    level->fd = bly_take_fd(&fd);
    return 0;
}

int bly_chain_pop(struct bly_chain *chain, struct bly_err *err)
{
    struct bly_level *level = end_of(chain);
    int r = 0;

    if (chain->n > 1 && chain->first_open == chain->n - 1) {
        r = reopen(chain, level, level - 1, err);
        chain->first_open--;
    }
    if (chain->n > 1)
        cut_path(chain, level->parent_len);
    close_level(level);
    chain->n--;
    return r;
}

int bly_chain_next(struct bly_chain *chain, const struct dirent64 **ret_entry, struct bly_err *err)
{
    struct bly_level *level = end_of(chain);
    int r;

    if (level->dir == NULL) {
        level->dir = malloc(sizeof *level->dir);
        if (level->dir == NULL)
            return bly_fail_sys(err, ENOMEM, "no memory to read a directory");
        bly_dir_init(level->dir, level->fd);
        level->dir->resume = level->resume;
    }
    r = bly_dir_next(level->dir, ret_entry);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot read a directory");
    return r == BLY_DIR_END ? BLY_CHAIN_END : 0;
}
