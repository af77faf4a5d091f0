#pragma once

/*
 * A socket with a name in the file system: ours alone, there from one moment to the next, and taken
 * away again. System calls only; any thread.
 */
#include <sys/types.h>

#include "transport/address.h"

/* The name of a listening socket, to be removed when it is still ours. */
struct bly_unix_file {
    char path[BLY_UNIX_PATH_MAX + 1]; /* "": nothing to remove */
    dev_t dev;
    ino_t ino;
};

/*
 * Listens at `address`. The socket file has mode 0600 and appears when it accepts connections. A
 * socket there that nobody answers on is replaced. -EADDRINUSE: somebody does, or it is another
 * kind of file. Another negative errno.
 */
int bly_unix_listen(const struct sockaddr_un *address, int backlog, int *ret_fd,
                    struct bly_unix_file *ret_file);

/* Removes the name, unless it has become somebody else's. */
void bly_unix_remove(const struct bly_unix_file *file);
