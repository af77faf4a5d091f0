#include "sandbox/plan/probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/casefold.h"
#include "base/cleanup.h"

static enum bly_node_type type_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return BLY_NODE_DIR;
    case S_IFREG:
        return BLY_NODE_FILE;
    case S_IFLNK:
        return BLY_NODE_LINK;
    default:
        return BLY_NODE_OTHER;
    }
}

static int look(void *ctx, const char *path, struct bly_node *ret_node)
{
    struct stat st;

    (void)ctx;
    if (lstat(path, &st) < 0) {
        /* A name too long to look at cannot be made under that name either. */
        if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG && errno != ELOOP)
            return -errno;
        *ret_node = (struct bly_node){0};
        return 0;
    }
    *ret_node = (struct bly_node){type_of(st.st_mode), st.st_dev, st.st_ino, st.st_mode & 07777};
    return 0;
}

static int read_link(void *ctx, const char *path, char **ret_target)
{
    char text[PATH_MAX + 1];
    ssize_t n = readlink(path, text, sizeof(text) - 1);

    (void)ctx;
    if (n < 0)
        return -errno;
    text[n] = '\0';
    *ret_target = strdup(text);
    return *ret_target ? 0 : -ENOMEM;
}

/* Reads in growing pieces: files of /proc say that they are empty. */
static int read_all(int fd, size_t max, char **ret_text)
{
    bly_autofree char *text = NULL;
    size_t len = 0, cap = 0;

    for (;;) {
        ssize_t n;

        if (len == cap) {
            char *grown;

            cap = cap ? cap * 2 : 1024;
            if (cap > max)
                cap = max;
            grown = realloc(text, cap + 1);
            if (!grown)
                return -ENOMEM;
            text = grown;
        }
        n = len < cap ? read(fd, text + len, cap - len) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        len += (size_t)n;
        if (n == 0 || len == max)
            break;
    }
    text[len] = '\0';
    *ret_text = bly_take_ptr(&text);
    return 0;
}

static int read_small(void *ctx, const char *path, size_t max, char **ret_text)
{
    bly_autofd int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;

    (void)ctx;
    if (fd < 0)
        return errno == ENOTDIR ? -ENOENT : -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    return read_all(fd, max, ret_text);
}

static void closedirp(DIR **dir)
{
    if (*dir)
        (void)closedir(*dir);
}

static enum bly_node_type type_of_entry(unsigned char type)
{
    switch (type) {
    case DT_UNKNOWN:
        return BLY_NODE_ABSENT;
    case DT_DIR:
        return BLY_NODE_DIR;
    case DT_REG:
        return BLY_NODE_FILE;
    case DT_LNK:
        return BLY_NODE_LINK;
    default:
        return BLY_NODE_OTHER;
    }
}

static int list(void *ctx, const char *path, bool *ret_folds, bly_probe_each each, void *arg)
{
    bly_autofd int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    __attribute__((cleanup(closedirp))) DIR *dir = NULL;

    (void)ctx;
    if (fd < 0)
        return -errno;
    if (ret_folds)
        *ret_folds = bly_casefold_in(fd);
    if (!each)
        return 0;
    dir = fdopendir(fd);
    if (!dir)
        return -errno;
    (void)bly_take_fd(&fd);
    for (;;) {
        const struct dirent *entry;
        int r;

        errno = 0;
        entry = readdir(dir); /* NOLINT(concurrency-mt-unsafe): a stream of our own */
        if (!entry)
            return -errno;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        r = each(arg, entry->d_name, type_of_entry(entry->d_type));
        if (r != 0)
            return r < 0 ? r : 0;
    }
}

const struct bly_probe bly_probe_disk = {look, read_link, read_small, list, NULL, NULL};
