#include "launcher/report.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

static void write_report(int fd, const struct bly_report *report, size_t len)
{
    ssize_t n;

    do
        n = write(fd, report, len);
    while (n < 0 && errno == EINTR);
}

void bly_report_started(int fd)
{
    struct bly_report report = {.type = BLY_REPORT_STARTED};

    write_report(fd, &report, offsetof(struct bly_report, err));
}

void bly_report_exited(int fd, int status, bool refused)
{
    struct bly_report report = {.type = BLY_REPORT_EXITED, .status = status, .refused = refused};

    write_report(fd, &report, offsetof(struct bly_report, err));
}

void bly_report_terminal(int fd, int master_fd)
{
    struct bly_report report = {.type = BLY_REPORT_TERMINAL};
    struct iovec iov = {&report, offsetof(struct bly_report, err)};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};

    control.align.cmsg_level = SOL_SOCKET;
    control.align.cmsg_type = SCM_RIGHTS;
    control.align.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.align), &master_fd, sizeof(int));
    (void)sendmsg(fd, &msg, MSG_NOSIGNAL);
}

void bly_report_failure(int fd, const struct bly_err *err)
{
    struct bly_report report = {.type = BLY_REPORT_FAILED, .err = *err};

    write_report(fd, &report, sizeof(report));
    _exit(BLY_CHILD_FAILED);
}

void bly_report_wall_failure(int fd, int r, struct bly_err *err)
{
    if (err->kind == BLY_ERR_NONE)
        (void)bly_fail(err, BLY_ERR_UNSUPPORTED, -r, "%s", strerrordesc_np(-r));
    err->kind = BLY_ERR_UNSUPPORTED;
    (void)bly_because(err, r, "sandbox unavailable");
    bly_report_failure(fd, err);
}

/*
 * The one descriptor a packet may carry; -EBADF. The room for one has padding behind it in which
 * the kernel delivers a second: then none is wanted, and both are closed.
 */
static int take_fd(struct msghdr *msg)
{
    const struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
    int fds[2];
    size_t n;

    if (cmsg == NULL || cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
        return -EBADF;
    n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    assert(n <= BLY_LEN(fds));
    memcpy(fds, CMSG_DATA(cmsg), n * sizeof(int));
    if (n == 1)
        return fds[0];
    for (size_t i = 0; i < n; i++)
        bly_close(fds[i]);
    return -EBADF;
}

int bly_report_read(int fd, struct bly_report *ret_report, int *ret_fd)
{
    struct bly_report report = {0};
    struct iovec iov = {&report, sizeof(report)};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    bly_autofd int came = -EBADF;
    size_t want;
    ssize_t n;

    /* ECONNRESET is said once when the other end went without reading all; its last words follow.
     */
    do
        n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    if (n < 0)
        return -errno;
    came = take_fd(&msg);
    if (n == 0)
        return BLY_REPORT_END;
    want = report.type == BLY_REPORT_FAILED ? sizeof(report) : offsetof(struct bly_report, err);
    if ((size_t)n != want || report.type < BLY_REPORT_STARTED || report.type > BLY_REPORT_TERMINAL)
        return -EBADMSG;
    if ((report.type == BLY_REPORT_TERMINAL) != (came >= 0))
        return -EBADMSG;
    if (report.refused > (report.type == BLY_REPORT_EXITED))
        return -EBADMSG;
    report.err.text[sizeof(report.err.text) - 1] = '\0';
    *ret_report = report;
    *ret_fd = bly_take_fd(&came);
    return 0;
}
