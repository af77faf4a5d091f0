#include "execbench/ground.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "support.h"

enum { PATH_BYTES = GROUND_PATH_MAX + 128, READ_BYTES = 32 << 10, MARK_BYTES = 24 };

static const size_t blob_bytes[BLOB_SIZES] = {4096, 1 << 20, 40 << 20, 64 << 20};

/* Bytes that no compression and no guess would make small. */
static void make_blob(struct blob *blob, size_t len, uint64_t seed)
{
    blob->len = len;
    blob->text_len = bly_base64_len(len);
    blob->data = bench_alloc(len, 1);
    blob->text = bench_alloc(blob->text_len, 1);
    for (size_t i = 0; i + sizeof(seed) <= len; i += sizeof(seed)) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        memcpy(blob->data + i, &seed, sizeof(seed));
    }
    bly_base64_encode(blob->data, len, blob->text);
}

static void free_blob(struct blob *blob)
{
    free(blob->data);
    free(blob->text);
}

static const char *below(char path[PATH_BYTES], const char *dir, const char *name)
{
    (void)snprintf(path, PATH_BYTES, "%s/%s", dir, name);
    return path;
}

static void make_tree(const char *dir)
{
    char branch[PATH_BYTES + 16], leaf[PATH_BYTES + 32];

    bench_make_directory(dir);
    for (unsigned i = 0; i < GROUND_BRANCHES; i++) {
        (void)snprintf(branch, sizeof(branch), "%s/d%02u", dir, i);
        bench_make_directory(branch);
        for (unsigned j = 0; j < GROUND_LEAVES; j++) {
            (void)snprintf(leaf, sizeof(leaf), "%s/file%02u.c", branch, j);
            bench_write_file(leaf, "", 0);
        }
    }
}

static void make_listed(const char *dir)
{
    char path[PATH_BYTES + 32];

    bench_make_directory(dir);
    for (unsigned i = 0; i < GROUND_LISTED; i++) {
        (void)snprintf(path, sizeof(path), "%s/entry-%04u.txt", dir, i);
        bench_write_file(path, "x", 1);
    }
}

static void make_outside(const struct ground *ground)
{
    char secret[PATH_BYTES], path[PATH_BYTES];

    below(secret, ground->outside, "secret");
    bench_write_file(secret, GROUND_SECRET, strlen(GROUND_SECRET));
    bench_write_file(below(path, ground->outside, "victim"), "intact", strlen("intact"));
    if (symlink(secret, below(path, ground->workspace, "link")) < 0)
        bench_die("cannot make %s: %s", path, strerrordesc_np(errno));
}

static void make_directories(struct ground *ground, const char *dir)
{
    if (dir && (dir[0] != '/' || strlen(dir) >= GROUND_PATH_MAX))
        bench_die("%s must be an absolute path, and shorter", dir);
    if (dir) {
        bench_make_directory(dir);
        (void)snprintf(ground->dir, sizeof(ground->dir), "%s", dir);
    } else {
        /* Not below /tmp, over which some servers put a mount of their own. */
        char name[] = "/var/tmp/execbench.XXXXXX";

        if (!mkdtemp(name))
            bench_die("cannot make %s: %s", name, strerrordesc_np(errno));
        (void)snprintf(ground->dir, sizeof(ground->dir), "%s", name);
    }
    (void)snprintf(ground->workspace, sizeof(ground->workspace), "%s/ws", ground->dir);
    (void)snprintf(ground->outside, sizeof(ground->outside), "%s/outside", ground->dir);
    (void)snprintf(ground->cwd, sizeof(ground->cwd), "%s/cwd", ground->dir);
    bench_make_directory(ground->workspace);
    bench_make_directory(ground->outside);
    bench_make_directory(ground->cwd);
}

void ground_make(struct ground *ground, const char *dir)
{
    static const struct {
        const char *name;
        enum blob_size size;
    } files[] = {{"f4k", BLOB_4K}, {"f1m", BLOB_1M}, {"f64m", BLOB_64M}};
    char path[PATH_BYTES];

    make_directories(ground, dir);
    for (size_t i = 0; i < BLY_LEN(files); i++) {
        struct blob *blob = &ground->kept[files[i].size];

        make_blob(blob, blob_bytes[files[i].size], 11 + files[i].size);
        bench_write_file(below(path, ground->workspace, files[i].name), blob->data, blob->len);
    }
    make_outside(ground);
    make_listed(below(path, ground->workspace, "listed"));
    make_tree(below(path, ground->workspace, "tree"));
    bench_make_directory(below(path, ground->workspace, "cold"));
}

void ground_remove(struct ground *ground)
{
    for (size_t i = 0; i < BLOB_SIZES; i++) {
        free_blob(&ground->kept[i]);
        free_blob(&ground->written[i]);
    }
    if (ground->dir[0])
        bench_remove_tree(ground->dir);
    *ground = (struct ground){0};
}

const struct blob *ground_next_write(struct ground *ground, enum blob_size size)
{
    static unsigned n_writes;
    struct blob *blob = &ground->written[size];
    char mark[MARK_BYTES + 1];

    if (!blob->data)
        make_blob(blob, blob_bytes[size], 44 + size);
    (void)snprintf(mark, sizeof(mark), "execbench %-14u", n_writes++);
    memcpy(blob->data, mark, MARK_BYTES);
    bly_base64_encode(mark, MARK_BYTES, blob->text);
    return blob;
}

void ground_cold_path(const struct ground *ground, char owner, unsigned number,
                      char ret_path[GROUND_PATH_MAX + 64])
{
    (void)snprintf(ret_path, GROUND_PATH_MAX + 64, "%s/cold/%c%05u", ground->workspace, owner,
                   number);
}

void ground_make_cold(const struct ground *ground, char owner, unsigned from, unsigned to)
{
    char dir[GROUND_PATH_MAX + 64], path[PATH_BYTES], original[PATH_BYTES];

    below(original, ground->workspace, "f1m");
    for (unsigned i = from; i < to; i++) {
        ground_cold_path(ground, owner, i, dir);
        if (access(dir, F_OK) == 0)
            continue;
        bench_make_directory(dir);
        bench_write_file(below(path, dir, "f4k"), ground->kept[BLOB_4K].data,
                         ground->kept[BLOB_4K].len);
        if (link(original, below(path, dir, "f1m")) < 0)
            bench_die("cannot make %s: %s", path, strerrordesc_np(errno));
    }
}

int ground_compare(const char *path, const void *data, size_t len)
{
    bly_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    char piece[READ_BYTES];
    const char *expected = data;
    ssize_t n;

    if (fd < 0)
        return -errno;
    while ((n = read(fd, piece, sizeof(piece))) > 0) {
        if ((size_t)n > len || memcmp(piece, expected, (size_t)n) != 0)
            return -EBADMSG;
        expected += n;
        len -= (size_t)n;
    }
    if (n < 0)
        return -errno;
    return len == 0 ? 0 : -EBADMSG;
}
