#include "transport/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

static int bind_private(const struct sockaddr_un *address, int backlog, int *ret_fd)
{
    bly_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* The file gets the mode of the socket, less the umask: no moment of it is open to others. */
    if (fd < 0 || fchmod(fd, 0600) < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        return -errno;
    if (listen(fd, backlog) < 0) {
        int r = -errno;

        (void)unlink(address->sun_path);
        return r;
    }
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

/* A name beside the one that is wanted. */
static int make_temporary(const struct sockaddr_un *address, struct sockaddr_un *ret_temporary)
{
    unsigned number;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return -EIO;
    *ret_temporary = *address;
    (void)snprintf(ret_temporary->sun_path, sizeof(ret_temporary->sun_path), "%.*s.%08x",
                   BLY_UNIX_PATH_MAX, address->sun_path, number);
    return 0;
}

/* 0: a socket that nobody answers on; -EADDRINUSE: anything else. */
static int check_stale(const struct sockaddr_un *address)
{
    bly_autofd int fd = -EBADF;
    struct stat st;

    if (lstat(address->sun_path, &st) < 0)
        return -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EADDRINUSE;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return -EADDRINUSE;
    return errno == ECONNREFUSED ? 0 : -EADDRINUSE;
}

static int swap(const char *a, const char *b, unsigned flags)
{
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, flags) < 0 ? -errno : 0;
}

/*
 * Gives the listening socket its name. What was there is looked at once more after it was taken
 * away, since another server may have put its own socket there in between; that one goes back.
 */
static int take_name(const char *temporary, const struct sockaddr_un *address)
{
    struct sockaddr_un old = {.sun_family = AF_UNIX};
    int r = swap(temporary, address->sun_path, RENAME_NOREPLACE);

    if (r != -EEXIST)
        return r;
    r = check_stale(address);
    if (r == 0)
        r = swap(temporary, address->sun_path, RENAME_EXCHANGE);
    if (r < 0)
        return r;

    memcpy(old.sun_path, temporary, strlen(temporary) + 1);
    r = check_stale(&old);
    if (r < 0)
        (void)swap(temporary, address->sun_path, RENAME_EXCHANGE);
    else
        (void)unlink(temporary);
    return r;
}

static void remove_if_ours(const char *path, dev_t dev, ino_t ino)
{
    struct stat st;

    if (lstat(path, &st) == 0 && st.st_dev == dev && st.st_ino == ino)
        (void)unlink(path);
}

int bly_unix_listen(const struct sockaddr_un *address, int backlog, int *ret_fd,
                    struct bly_unix_file *ret_file)
{
    struct sockaddr_un temporary;
    struct bly_unix_file file = {0};
    bly_autofd int fd = -EBADF;
    struct stat st = {0};
    int r = make_temporary(address, &temporary);

    if (r == 0)
        r = bind_private(&temporary, backlog, &fd);
    if (r < 0)
        return r;
    r = lstat(temporary.sun_path, &st) < 0 ? -errno : take_name(temporary.sun_path, address);
    if (r < 0) {
        remove_if_ours(temporary.sun_path, st.st_dev, st.st_ino);
        return r;
    }

    (void)snprintf(file.path, sizeof(file.path), "%.*s", BLY_UNIX_PATH_MAX, address->sun_path);
    file.dev = st.st_dev;
    file.ino = st.st_ino;
    *ret_file = file;
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

void bly_unix_remove(const struct bly_unix_file *file)
{
    if (file->path[0])
        remove_if_ours(file->path, file->dev, file->ino);
}
