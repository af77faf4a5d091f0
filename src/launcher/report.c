#include "launcher/report.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd_pass.h"

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

    (void)bly_fd_pass_send(fd, &iov, 1, &master_fd, 1, 0);
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

int bly_report_read(int fd, struct bly_report *ret_report, int *ret_fd)
{
    struct bly_report report = {0};
    struct iovec iov = {&report, sizeof(report)};
    struct bly_passed passed;
    bly_autofd int came = -EBADF;
    size_t want;
    ssize_t n;

    /* ECONNRESET is said once when the other end went without reading all; its last words follow.
     */
    do
        n = bly_fd_pass_recv(fd, &iov, 1, MSG_DONTWAIT | MSG_TRUNC, &passed);
    while (n == -ECONNRESET);
    if (n < 0)
        return (int)n;
    came = bly_passed_take_one(&passed);
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
