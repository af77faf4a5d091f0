#include "transport/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"

enum {
    FIRST_PASSED = 3,
    /* The launcher's socket is descriptor 3, and the first ones are easily taken for something
       else. */
    FIRST_OURS = 10,
};

static const char *const variables[] = {"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS",
                                        "LISTEN_FDNAMES", "NOTIFY_SOCKET"};

/* -EINVAL: not a number up to `max`. */
static int parse_number(const char *text, long max, long *ret_number)
{
    char *end;
    long number;

    errno = 0;
    number = strtol(text, &end, 10);
    if (errno || end == text || *end || number < 0 || number > max)
        return -EINVAL;
    *ret_number = number;
    return 0;
}

static bool is_listening_stream(int fd)
{
    int domain = 0, type = 0, listening = 0;
    socklen_t len = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
        return false;
    return type == SOCK_STREAM && listening &&
           (domain == AF_UNIX || domain == AF_INET || domain == AF_INET6);
}

static int take_fd(struct bly_systemd *systemd, int fd, struct bly_err *err)
{
    int moved;

    if (!is_listening_stream(fd))
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "descriptor %d, passed in LISTEN_FDS, is not a listening stream socket",
                        fd);
    moved = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_OURS);
    if (moved < 0)
        return bly_fail_sys(err, errno, "cannot take descriptor %d", fd);
    systemd->fds[systemd->n_fds++] = moved;
    return 0;
}

/* Before any thread exists. */
static const char *variable(const char *name)
{
    return getenv(name); /* NOLINT(concurrency-mt-unsafe) */
}

static int take_fds(struct bly_systemd *systemd, struct bly_err *err)
{
    const char *pid_text = variable("LISTEN_PID"), *fds_text = variable("LISTEN_FDS");
    long pid, n;
    int r = 0;

    if (!pid_text || !fds_text)
        return 0;
    if (parse_number(pid_text, INT32_MAX, &pid) < 0)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "LISTEN_PID is not a process id: %s",
                        pid_text);
    if (pid != getpid())
        return 0;
    if (parse_number(fds_text, BLY_PASSED_MAX, &n) < 0)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "LISTEN_FDS is not a number up to %d: %s",
                        BLY_PASSED_MAX, fds_text);

    for (int fd = FIRST_PASSED; fd < FIRST_PASSED + n && r == 0; fd++)
        r = take_fd(systemd, fd, err);
    /* Only now, or the copies would have taken their places. */
    for (int fd = FIRST_PASSED; fd < FIRST_PASSED + n && r == 0; fd++)
        (void)bly_close(fd);
    return r;
}

int bly_systemd_take(struct bly_systemd *ret_systemd, struct bly_err *err)
{
    struct bly_systemd systemd = {0};
    const char *notify = variable("NOTIFY_SOCKET");
    int r;

    if (notify && (notify[0] == '/' || notify[0] == '@') && strlen(notify) < sizeof(systemd.notify))
        memcpy(systemd.notify, notify, strlen(notify) + 1);
    r = take_fds(&systemd, err);
    for (size_t i = 0; i < BLY_LEN(variables); i++)
        (void)unsetenv(variables[i]); /* NOLINT(concurrency-mt-unsafe) */
    if (r < 0) {
        bly_systemd_deinit(&systemd);
        return r;
    }
    *ret_systemd = systemd;
    return 0;
}

void bly_systemd_deinit(struct bly_systemd *systemd)
{
    for (size_t i = 0; i < systemd->n_fds; i++)
        bly_close(systemd->fds[i]);
    systemd->n_fds = 0;
}

void bly_systemd_notify(const struct bly_systemd *systemd, const char *state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    bly_autofd int fd = -EBADF;
    size_t len = strlen(systemd->notify);

    if (len == 0)
        return;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    memcpy(address.sun_path, systemd->notify, len);
    if (address.sun_path[0] == '@')
        address.sun_path[0] = '\0';
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
}
