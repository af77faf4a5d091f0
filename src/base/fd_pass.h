#pragma once

/*
 * Packets over a Unix socket that carry descriptors (SCM_RIGHTS). Any thread; also between fork and
 * exec, as nothing is allocated. What a packet says, and how many descriptors are right for it, is
 * the caller's business.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct iovec;

enum { BLY_FD_PASS_MAX = 4 }; /* descriptors in a packet */

/* What came with a packet. */
struct bly_passed {
    int fds[BLY_FD_PASS_MAX]; /* owned, close-on-exec */
    size_t n;
    bool is_cut;      /* the packet was longer than the room for it */
    bool fds_are_cut; /* some are lost: too many, or more than this process may have open */
};

/*
 * Sends the parts as one packet together with `n_fds` descriptors, which stay the caller's. `flags`
 * as for sendmsg(2), without SIGPIPE in any case. Returns the number of bytes, or -errno but
 * -EINTR.
 */
ssize_t bly_fd_pass_send(int sock, const struct iovec *parts, size_t n_parts, const int *fds,
                         size_t n_fds, int flags);

/*
 * Receives one packet into the parts. `flags` as for recvmsg(2). Returns the number of bytes, and
 * the caller owns the descriptors in `*ret_passed`; or -errno but -EINTR, and there are none.
 */
ssize_t bly_fd_pass_recv(int sock, const struct iovec *parts, size_t n_parts, int flags,
                         struct bly_passed *ret_passed);

/* Takes the only descriptor. When there is none, or several, -EBADF: these are closed. */
int bly_passed_take_one(struct bly_passed *passed);

/* Closes those that have not been taken. */
void bly_passed_close(struct bly_passed *passed);
