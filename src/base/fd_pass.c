#include "base/fd_pass.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

union control {
    struct cmsghdr align;
    char space[CMSG_SPACE(BLY_FD_PASS_MAX * sizeof(int))];
};

/* The kernel fills padding behind the last descriptor with one more. */
_Static_assert(CMSG_SPACE(BLY_FD_PASS_MAX * sizeof(int)) == CMSG_LEN(BLY_FD_PASS_MAX * sizeof(int)),
               "no room but for BLY_FD_PASS_MAX descriptors");

static struct msghdr message_of(const struct iovec *parts, size_t n_parts)
{
    return (struct msghdr){.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = n_parts};
}

ssize_t bly_fd_pass_send(int sock, const struct iovec *parts, size_t n_parts, const int *fds,
                         size_t n_fds, int flags)
{
    struct msghdr message = message_of(parts, n_parts);
    union control control = {0};
    ssize_t n;

    assert(n_fds <= BLY_FD_PASS_MAX);
    if (n_fds > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
    }
    do
        n = sendmsg(sock, &message, flags | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void collect(struct msghdr *message, struct bly_passed *passed)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        size_t n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        assert(passed->n + n <= BLY_FD_PASS_MAX); /* There is no room for more. */
        memcpy(passed->fds + passed->n, CMSG_DATA(c), n * sizeof(int));
        passed->n += n;
    }
}

ssize_t bly_fd_pass_recv(int sock, const struct iovec *parts, size_t n_parts, int flags,
                         struct bly_passed *ret_passed)
{
    struct msghdr message = message_of(parts, n_parts);
    struct bly_passed passed = {0};
    union control control;
    ssize_t n;

    message.msg_control = &control;
    message.msg_controllen = sizeof(control);
    do
        n = recvmsg(sock, &message, flags | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    collect(&message, &passed);
    passed.is_cut = message.msg_flags & MSG_TRUNC;
    passed.fds_are_cut = message.msg_flags & MSG_CTRUNC;
    *ret_passed = passed;
    return n;
}

int bly_passed_take_one(struct bly_passed *passed)
{
    if (passed->n == 1)
        return bly_take_fd(&passed->fds[0]);
    bly_passed_close(passed);
    return -EBADF;
}

void bly_passed_close(struct bly_passed *passed)
{
    for (size_t i = 0; i < passed->n; i++)
        passed->fds[i] = bly_close(passed->fds[i]);
    passed->n = 0;
}
