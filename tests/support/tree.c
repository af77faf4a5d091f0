#include "support/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"

enum {
    HASHED_BYTES = 1 << 16, /* of a file: what tests write is small */
    LOOKING = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, /* it may be a FIFO by now */
};

static uint64_t hash(uint64_t h, const void *data, size_t len)
{
    const unsigned char *bytes = data;

    for (size_t i = 0; i < len; i++)
        h = (h ^ bytes[i]) * 0x100000001b3;
    return h;
}

static void add_contents(FILE *out, const char *path, mode_t mode)
{
    char bytes[HASHED_BYTES];
    ssize_t n = 0;

    if (S_ISLNK(mode)) {
        n = readlink(path, bytes, sizeof(bytes) - 1);
        (void)fprintf(out, " -> %.*s", (int)(n < 0 ? 0 : n), bytes);
    } else if (S_ISREG(mode)) {
        bly_autofd int fd = open(path, LOOKING | O_NOATIME);

        if (fd < 0)
            fd = open(path, LOOKING);
        if (fd >= 0)
            n = read(fd, bytes, sizeof(bytes));
        (void)fprintf(out, " %016llx",
                      (unsigned long long)hash(0xcbf29ce484222325, bytes, n < 0 ? 0 : (size_t)n));
    }
}

static void add_attributes(FILE *out, const char *path)
{
    char names[4096], value[4096];
    ssize_t n = llistxattr(path, names, sizeof(names));

    for (const char *name = names; n > 0 && name < names + n; name += strlen(name) + 1) {
        ssize_t len = lgetxattr(path, name, value, sizeof(value));

        (void)fprintf(out, " %s=%llx", name,
                      (unsigned long long)hash(0, value, len < 0 ? 0 : (size_t)len));
    }
}

static void add_exact(FILE *out, const char *path, const struct stat *st)
{
    (void)fprintf(out, " %llx:%llu %u:%u %lld.%09ld %lld.%09ld", (unsigned long long)st->st_dev,
                  (unsigned long long)st->st_ino, st->st_uid, st->st_gid,
                  (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (long long)st->st_ctim.tv_sec,
                  st->st_ctim.tv_nsec);
    add_attributes(out, path);
}

static int is_name(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static int compare(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void add_below(FILE *out, const char *dir, const char *prefix, unsigned how);

static void add_entry(FILE *out, const char *path, const char *name, unsigned how)
{
    struct stat st;

    if (lstat(path, &st) < 0) {
        (void)fprintf(out, "%s ? %s\n", name, strerrordesc_np(errno));
        return;
    }
    (void)fprintf(out, "%s %o %o", name, (st.st_mode & S_IFMT) >> 12, st.st_mode & 07777);
    if (!S_ISDIR(st.st_mode))
        (void)fprintf(out, " %lld x%u", (long long)st.st_size, (unsigned)st.st_nlink);
    add_contents(out, path, st.st_mode);
    if (how & TREE_EXACT)
        add_exact(out, path, &st);
    (void)fputc('\n', out);
    if (S_ISDIR(st.st_mode))
        add_below(out, path, name, how);
}

static void add_below(FILE *out, const char *dir, const char *prefix, unsigned how)
{
    struct dirent **entries = NULL;
    int n = scandir(dir, &entries, is_name, compare);

    if (n < 0)
        (void)fprintf(out, "%s/ ? %s\n", prefix, strerrordesc_np(errno));
    for (int i = 0; i < n; i++) {
        bly_autofree char *path = NULL, *name = NULL;

        assert_true(asprintf(&path, "%s/%s", dir, entries[i]->d_name) > 0);
        assert_true(asprintf(&name, "%s%s%s", prefix, *prefix ? "/" : "", entries[i]->d_name) > 0);
        free(entries[i]);
        add_entry(out, path, name, how);
    }
    free(entries);
}

char *tree_list(const char *dir, unsigned how)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    struct stat st;

    assert_non_null(out);
    if ((how & TREE_EXACT) && lstat(dir, &st) == 0) {
        (void)fprintf(out, ". %o", st.st_mode);
        add_exact(out, dir, &st);
        (void)fputc('\n', out);
    }
    add_below(out, dir, "", how);
    assert_int_equal(fclose(out), 0);
    return text;
}

char *tree_difference(const char *before, const char *after)
{
    char *text = NULL;

    while (*before != '\0' || *after != '\0') {
        size_t n = strcspn(before, "\n"), m = strcspn(after, "\n");

        if (n != m || strncmp(before, after, n) != 0) {
            assert_true(
                asprintf(&text, "\"%.*s\" has become \"%.*s\"", (int)n, before, (int)m, after) > 0);
            return text;
        }
        before += n + (before[n] != '\0');
        after += m + (after[m] != '\0');
    }
    return NULL;
}

char *tree_without(const char *list, const char *name)
{
    size_t len = strlen(name);
    char *copy = calloc(1, strlen(list) + 1), *end = copy;

    assert_non_null(copy);
    while (*list != '\0') {
        size_t n = strcspn(list, "\n") + 1;

        if (strncmp(list, name, len) != 0 || list[len] != ' ')
            end = mempcpy(end, list, n);
        list += n;
    }
    return copy;
}
