#include "launcher/report.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

void bly_report_exited(int fd, int status)
{
    struct bly_report report = {.type = BLY_REPORT_EXITED, .status = status};

    write_report(fd, &report, offsetof(struct bly_report, err));
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

int bly_report_read(int fd, struct bly_report *ret_report)
{
    struct bly_report report = {0};
    size_t want;
    ssize_t n;

    /* ECONNRESET is said once when the other end went without reading all; its last words follow.
     */
    do
        n = recv(fd, &report, sizeof(report), MSG_DONTWAIT | MSG_TRUNC);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    if (n < 0)
        return -errno;
    if (n == 0)
        return BLY_REPORT_END;

    want = report.type == BLY_REPORT_FAILED ? sizeof(report) : offsetof(struct bly_report, err);
    if ((size_t)n != want || report.type < BLY_REPORT_STARTED || report.type > BLY_REPORT_EXITED)
        return -EBADMSG;
    report.err.text[sizeof(report.err.text) - 1] = '\0';
    *ret_report = report;
    return 0;
}
