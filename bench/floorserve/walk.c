#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "floorserve/floor.h"

enum { DEPTH_MAX = 8 };

struct walk {
    struct bly_buf *out;
    bool has_entries;
};

static bool is_dots(const char *name)
{
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static void add_entry(struct walk *walk, const char *dir, const char *name, bool is_directory)
{
    static const char head[] = ",{\"path\":\"file://", file[] = "\",\"kind\":\"file\"}",
                      directory[] = "\",\"kind\":\"directory\"}";

    (void)bly_buf_add_str(walk->out, head + !walk->has_entries);
    (void)bly_buf_add_str(walk->out, dir);
    (void)bly_buf_add_char(walk->out, '/');
    (void)bly_buf_add_str(walk->out, name);
    (void)bly_buf_add_str(walk->out, is_directory ? directory : file);
    walk->has_entries = true;
}

/* `fd` is consumed. */
static void walk_directory(struct walk *walk, int fd, const char *path, int depth)
{
    char below[FLOOR_PATH_MAX];
    DIR *dir = fdopendir(fd);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        bool is_directory = entry->d_type == DT_DIR;
        size_t len = strlen(path);

        if (is_dots(entry->d_name))
            continue;
        add_entry(walk, path, entry->d_name, is_directory);
        if (!is_directory || depth == DEPTH_MAX || len + sizeof(entry->d_name) + 2 > sizeof(below))
            continue;
        memcpy(below, path, len);
        below[len] = '/';
        memcpy(below + len + 1, entry->d_name, strlen(entry->d_name) + 1);
        fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0)
            walk_directory(walk, fd, below, depth + 1);
    }
    if (dir)
        (void)closedir(dir);
}

int walk_tree(const char *path, struct bly_buf *out)
{
    struct walk walk = {.out = out};
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    (void)bly_buf_add_str(out, "{\"entries\":[");
    walk_directory(&walk, fd, path, 0);
    return bly_buf_add_str(out, "],\"errors\":[],\"truncated\":false}");
}
