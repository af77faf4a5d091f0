/* Creating, writing and truncating regular files. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fs/ops.h"
#include "fs/ops_internal.h"
#include "fs/view.h"

enum { WRITE_BLOCK = 4 << 20, COPY_BLOCK = 131072 };

int bly_ops_accept_target(const char *path, int fd, struct stat *ret_st, struct bly_err *err)
{
    if (fstat(fd, ret_st) < 0)
        return bly_fail_sys(err, errno, "cannot stat %s", path);
    if (!S_ISREG(ret_st->st_mode))
        return bly_ops_not_a_file(path, err);
    return 0;
}

int bly_ops_open_target(const struct bly_view *view, const char *path, bool no_follow, mode_t mode,
                        int *ret_fd, struct stat *ret_st, struct bly_err *err)
{
    struct bly_opening how = {
        .need = BLY_NEED_WRITE,
        .flags = O_WRONLY | O_CREAT,
        .mode = mode,
        .no_follow = no_follow,
    };
    bly_autofd int fd = -EBADF;
    int r = bly_view_open(view, path, &how, &fd, err);

    /* What opening a FIFO without a reader, or a socket, answers. */
    if (r == -ENXIO)
        return bly_ops_not_a_file(path, err);
    if (r < 0)
        return r;
    r = bly_ops_accept_target(path, fd, ret_st, err);
    if (r < 0)
        return r;
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

int bly_ops_truncate(const char *path, int fd, const struct stat *st, struct bly_err *err)
{
    if (st->st_size > 0 && ftruncate(fd, 0) < 0)
        return bly_fail_sys(err, errno, "cannot truncate %s", path);
    return 0;
}

int bly_ops_open_replace(const struct bly_view *view, const char *path, bool no_follow, int *ret_fd,
                         struct bly_err *err)
{
    bly_autofd int fd = -EBADF;
    struct stat st;
    int r = bly_ops_open_target(view, path, no_follow, 0666, &fd, &st, err);

    if (r < 0)
        return r;
    r = bly_ops_truncate(path, fd, &st, err);
    if (r < 0)
        return r;
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

int bly_ops_write_all(const struct bly_view *view, int fd, const void *data, size_t len,
                      struct bly_err *err)
{
    const char *next = data;

    while (len > 0) {
        size_t block = len < WRITE_BLOCK ? len : WRITE_BLOCK;
        ssize_t n = write(fd, next, block);
        int r;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return bly_fail_sys(err, errno, "cannot write");
        next += n;
        len -= (size_t)n;
        r = len > 0 ? bly_view_check(view, err) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

int bly_ops_write_file(const struct bly_view *view, const char *path, bool no_follow,
                       const void *data, size_t len, struct bly_err *err)
{
    bly_autofd int fd = -EBADF;
    int r = bly_ops_open_replace(view, path, no_follow, &fd, err);

    return r < 0 ? r : bly_ops_write_all(view, fd, data, len, err);
}

int bly_ops_write_from(const struct bly_view *view, const char *path, bool no_follow, int data_fd,
                       size_t len, struct bly_err *err)
{
    bly_autofd int fd = -EBADF;
    char block[COPY_BLOCK];
    size_t at = 0;
    int r = bly_ops_open_replace(view, path, no_follow, &fd, err);

    while (r == 0 && at < len) {
        size_t want = len - at < sizeof block ? len - at : sizeof block;
        ssize_t n = pread(data_fd, block, want, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return bly_fail_sys(err, n < 0 ? errno : EIO, "cannot read the payload");
        at += (size_t)n;
        r = bly_ops_write_all(view, fd, block, (size_t)n, err);
        if (r == 0)
            r = bly_view_check(view, err);
    }
    return r;
}

int bly_ops_write_block(int fd, uint64_t offset, const void *data, size_t len, struct bly_err *err)
{
    const char *next = data;

    if (len < 1 || len > BLY_FS_BLOCK_MAX)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "file write block length must be between 1 and %d", BLY_FS_BLOCK_MAX);
    if (offset > (uint64_t)INT64_MAX - len)
        return bly_fail(err, BLY_ERR_INVALID, EFBIG,
                        "file write range exceeds the signed 64-bit file offset limit");
    while (len > 0) {
        ssize_t n = pwrite(fd, next, len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return bly_fail_sys(err, errno, "cannot write a block");
        next += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}
