#include "fs/dir.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>

void bly_dir_init(struct bly_dir *dir, int fd)
{
    dir->fd = fd;
    dir->pos = 0;
    dir->len = 0;
    dir->resume = 0;
}

static bool is_dots(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

int bly_dir_next(struct bly_dir *dir, const struct dirent64 **ret_entry)
{
    for (;;) {
        const struct dirent64 *entry;

        if (dir->pos == dir->len) {
            ssize_t n = getdents64(dir->fd, dir->u.bytes, sizeof dir->u.bytes);

            /* ENOENT: somebody removed the directory while we read it. It is empty now. */
            if (n == 0 || (n < 0 && errno == ENOENT))
                return BLY_DIR_END;
            if (n < 0)
                return -errno;
            dir->pos = 0;
            dir->len = (size_t)n;
        }
        entry = (const struct dirent64 *)(const void *)(dir->u.bytes + dir->pos);
        dir->pos += entry->d_reclen;
        dir->resume = entry->d_off;
        if (!is_dots(entry->d_name)) {
            *ret_entry = entry;
            return 0;
        }
    }
}
