#pragma once

/* For targets that read from a socket: raw packets with descriptors, and none of them lost. */
#include <fcntl.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "fuzz.h"

enum { FUZZ_FDS_MAX = 2 };

/* Sends one packet as it is, with `n_fds` times the same descriptor. */
static inline void fuzz_send(int sock, const uint8_t *data, size_t size, int fd, size_t n_fds)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(FUZZ_FDS_MAX * sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)data, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    int fds[FUZZ_FDS_MAX] = {fd, fd};

    if (n_fds > 0) {
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    }
    FUZZ_MUST(sendmsg(sock, &msg, MSG_NOSIGNAL) == (ssize_t)size);
}

static inline void fuzz_socketpair(int pair[2])
{
    FUZZ_MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
}

/* The number the next descriptor will get: what is left open takes it. */
static inline int fuzz_next_fd(void)
{
    int fd = open("/", O_PATH | O_CLOEXEC);

    FUZZ_MUST(fd >= 0);
    bly_close(fd);
    return fd;
}
