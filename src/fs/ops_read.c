/* Opening and reading regular files. */
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "fs/ops.h"
#include "fs/ops_internal.h"
#include "fs/view.h"

enum {
    UNKNOWN_SIZE_FIRST = 65536, /* first buffer for files of /proc, whose size is 0 */
    READ_BLOCK = 8 << 20,       /* between two looks at the cancellation flag */
};

int bly_ops_not_a_file(const char *path, struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_INVALID, EINVAL, "path `%s` is not a file", path);
}

bool bly_ops_is_kernel_file(int fd)
{
    static const uint32_t kinds[] = {
        PROC_SUPER_MAGIC,   SYSFS_MAGIC,         DEBUGFS_MAGIC,    TRACEFS_MAGIC,
        CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, SECURITYFS_MAGIC, SELINUX_MAGIC,
        BPF_FS_MAGIC,       EFIVARFS_MAGIC,      PSTOREFS_MAGIC,   BINFMTFS_MAGIC,
    };
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0)
        return true;
    for (size_t i = 0; i < BLY_LEN(kinds); i++)
        if ((uint32_t)fs.f_type == kinds[i])
            return true;
    return false;
}

/*
 * Inside a wall every mount is nodev: opening a device says EACCES, which is not why it is refused.
 * Only what the policy lets be seen is looked at.
 */
static bool is_device(const struct bly_view *view, const char *path, bool no_follow)
{
    bly_autoplace struct bly_place place = BLY_NOWHERE;
    struct bly_err ignored;
    struct stat st;

    return bly_view_find(view, path, BLY_NEED_READ, no_follow, &place, &ignored) == 0 &&
           fstat(place.fd, &st) == 0 && (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode));
}

int bly_ops_open_read(const struct bly_view *view, const char *path, bool no_follow, int *ret_fd,
                      uint64_t *ret_size, struct bly_err *err)
{
    struct bly_opening how = {.need = BLY_NEED_READ, .flags = O_RDONLY, .no_follow = no_follow};
    bly_autofd int fd = -EBADF;
    struct stat st;
    int r = bly_view_open(view, path, &how, &fd, err);

    /* ENXIO: a socket, or a device that nobody drives. */
    if (r == -ENXIO || (r == -EACCES && view->policy != NULL && is_device(view, path, no_follow)))
        return bly_ops_not_a_file(path, err);
    if (r < 0)
        return r;
    if (fstat(fd, &st) < 0)
        return bly_fail_sys(err, errno, "cannot stat %s", path);
    if (!S_ISREG(st.st_mode))
        return bly_ops_not_a_file(path, err);
    *ret_size = (uint64_t)st.st_size;
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

int bly_ops_too_large(struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_INVALID, EFBIG, "file is too large to read: limit is %d bytes",
                    BLY_FS_READ_MAX);
}

/*
 * Memory for an answer in which `cap` bytes of data become text in place: the data stands so far
 * back that the growing text never catches up with what is still to be encoded.
 */
struct area {
    char *mem;
    size_t cap, n;
};

static char *data_of(const struct area *area)
{
    return area->mem + BLY_FS_TEXT_HEAD + area->cap / 3 + 3;
}

static int area_grow(struct area *area, size_t cap)
{
    struct area to = {.cap = cap, .n = area->n};

    to.mem = malloc(BLY_FS_TEXT_HEAD + cap / 3 + 3 + cap + BLY_FS_TEXT_TAIL);
    if (to.mem == NULL)
        return -ENOMEM;
    if (area->n > 0)
        memcpy(data_of(&to), data_of(area), area->n);
    free(area->mem);
    *area = to;
    return 0;
}

static size_t area_encode(struct area *area)
{
    bly_base64_encode(data_of(area), area->n, area->mem + BLY_FS_TEXT_HEAD);
    return bly_base64_len(area->n);
}

static size_t next_cap(size_t cap)
{
    return cap > BLY_FS_READ_MAX / 2 ? (size_t)BLY_FS_READ_MAX + 1 : 2 * cap;
}

enum { TOO_LONG = 1 };

static int read_to_end(const struct bly_view *view, int fd, uint64_t size, size_t max_text_bytes,
                       struct area *area, struct bly_err *err)
{
    for (;;) {
        int r = bly_view_check(view, err);
        size_t want;
        ssize_t got;

        if (r < 0)
            return r;
        if (area->n == area->cap && area_grow(area, next_cap(area->cap)) < 0)
            return bly_fail_sys(err, ENOMEM, "no memory for a file");
        want = area->cap - area->n;
        if (want > READ_BLOCK)
            want = READ_BLOCK;

        got = read(fd, data_of(area) + area->n, want);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return bly_fail_sys(err, errno, "cannot read");
        area->n += (size_t)got;
        if (area->n > BLY_FS_READ_MAX)
            return bly_ops_too_large(err);
        if (bly_base64_len(area->n) > max_text_bytes)
            return TOO_LONG;
        /* A short read that ends where the size said is the end; only files of /proc, which have
         * no size, read short in the middle. */
        if (got == 0 || (area->n == size && (size_t)got < want))
            return 0;
    }
}

int bly_ops_read_base64(const struct bly_view *view, int fd, uint64_t size, size_t max_text_bytes,
                        char **ret_mem, size_t *ret_text_len, uint64_t *ret_too_long,
                        struct bly_err *err)
{
    struct area area = {0};
    int r;

    if (size > BLY_FS_READ_MAX)
        return bly_ops_too_large(err);
    if (bly_base64_len(size) > max_text_bytes) {
        *ret_too_long = bly_base64_len(size);
        return 0;
    }

    /* One byte more than the size: the read that brings the last byte then also shows the end. */
    if (area_grow(&area, size > 0 ? size + 1 : UNKNOWN_SIZE_FIRST) < 0)
        return bly_fail_sys(err, ENOMEM, "no memory for a file of %llu bytes",
                            (unsigned long long)size);
    r = read_to_end(view, fd, size, max_text_bytes, &area, err);
    if (r == 0) {
        *ret_text_len = area_encode(&area);
        *ret_too_long = 0;
        *ret_mem = bly_take_ptr(&area.mem);
    } else if (r == TOO_LONG) {
        *ret_too_long = bly_base64_len(area.n);
        r = 0;
    }
    free(area.mem);
    return r;
}

int bly_ops_text_of(const void *data, size_t n, char **ret_mem, size_t *ret_text_len)
{
    char *mem = malloc(BLY_FS_TEXT_HEAD + bly_base64_len(n) + BLY_FS_TEXT_TAIL);

    if (mem == NULL)
        return -ENOMEM;
    bly_base64_encode(data, n, mem + BLY_FS_TEXT_HEAD);
    *ret_mem = mem;
    *ret_text_len = bly_base64_len(n);
    return 0;
}

int bly_ops_read_block(int fd, uint64_t offset, size_t len, char **ret_mem, size_t *ret_text_len,
                       bool *ret_eof, struct bly_err *err)
{
    struct area area = {0};

    if (len < 1 || len > BLY_FS_BLOCK_MAX)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "file read block length must be between 1 and %d", BLY_FS_BLOCK_MAX);
    if (area_grow(&area, len) < 0)
        return bly_fail_sys(err, ENOMEM, "no memory for a block");

    /* There is nothing past the largest offset; asking the kernel would be EINVAL. */
    while (area.n < len && offset <= (uint64_t)INT64_MAX - area.n) {
        ssize_t got = pread(fd, data_of(&area) + area.n, len - area.n, (off_t)(offset + area.n));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int sys = errno;

            free(area.mem);
            return bly_fail_sys(err, sys, "cannot read a block");
        }
        if (got == 0)
            break;
        area.n += (size_t)got;
    }
    *ret_eof = area.n < len;
    *ret_text_len = area_encode(&area);
    *ret_mem = area.mem;
    return 0;
}
