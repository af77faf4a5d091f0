#include "client/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"

uint64_t bly_connect_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int bly_connect_wait(int fd, short events, uint64_t deadline_ms, struct bly_err *err)
{
    for (;;) {
        struct pollfd pfd = {.fd = fd, .events = events};
        uint64_t now = bly_connect_now_ms();
        uint64_t left = deadline_ms > now ? deadline_ms - now : 0;
        int n = poll(&pfd, 1, left < 60000 ? (int)left : 60000);

        if (n > 0)
            return pfd.revents;
        if (n < 0 && errno != EINTR)
            return bly_fail_sys(err, errno, "cannot wait for the server");
        if (n == 0 && left < 60000)
            return bly_fail(err, BLY_ERR_SYSTEM, ETIMEDOUT, "the server did not answer in time");
    }
}

/* TCP */

static int bad_url(const char *url, struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_INVALID, EINVAL, "%s is no ws://HOST:PORT and no unix:///PATH URL",
                    url);
}

static int parse_url(const char *url, struct bly_target *ret_target, struct bly_err *err)
{
    const char *host, *end, *colon;
    struct bly_target target;
    size_t host_len;

    if (strncmp(url, "ws://", 5) != 0)
        return bad_url(url, err);
    host = url + 5;
    end = host + strcspn(host, "/?#");
    colon = memrchr(host, ':', (size_t)(end - host));
    if (!colon || colon == host || colon + 1 == end)
        return bad_url(url, err);

    host_len = (size_t)(colon - host);
    if (host[0] == '[' && host[host_len - 1] == ']') {
        host++;
        host_len -= 2;
    }
    if (host_len == 0 || host_len >= sizeof(target.host) ||
        (size_t)(end - colon) > sizeof(target.port) || strlen(end) >= sizeof(target.path) - 1)
        return bad_url(url, err);
    snprintf(target.host, sizeof(target.host), "%.*s", (int)host_len, host);
    snprintf(target.port, sizeof(target.port), "%.*s", (int)(end - colon - 1), colon + 1);
    snprintf(target.path, sizeof(target.path), "%s%s", *end == '/' ? "" : "/", end);
    *ret_target = target;
    return 0;
}

static int finish_connect(int fd, uint64_t deadline_ms, struct bly_err *err)
{
    int error = 0, r = bly_connect_wait(fd, POLLOUT, deadline_ms, err);
    socklen_t len = sizeof(error);

    if (r < 0)
        return r;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    return error ? bly_fail_sys(err, error, "cannot connect") : 0;
}

static int connect_tcp(const struct addrinfo *address, uint64_t deadline_ms, int *ret_fd,
                       struct bly_err *err)
{
    bly_autofd int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1, r = 0;

    if (fd < 0)
        return bly_fail_sys(err, errno, "cannot make a socket");
    if (connect(fd, address->ai_addr, address->ai_addrlen) < 0) {
        if (errno != EINPROGRESS && errno != EINTR)
            return bly_fail_sys(err, errno, "cannot connect");
        r = finish_connect(fd, deadline_ms, err);
    }
    if (r < 0)
        return r;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

static int connect_any(const struct bly_target *target, uint64_t deadline_ms, int *ret_fd,
                       struct bly_err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *all;
    int r = getaddrinfo(target->host, target->port, &hints, &all);

    if (r != 0)
        return bly_fail(err, BLY_ERR_SYSTEM, EHOSTUNREACH, "cannot find %s: %s", target->host,
                        gai_strerror(r));
    r = -EHOSTUNREACH;
    for (const struct addrinfo *one = all; one && r < 0; one = one->ai_next)
        r = connect_tcp(one, deadline_ms, ret_fd, err);
    freeaddrinfo(all);
    return r;
}

/* Unix sockets */

static int connect_unix(const char *path, int *ret_fd, struct bly_err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    bly_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return bly_fail_sys(err, errno, "cannot make a socket");
    if (path[0] != '/' || strlen(path) >= sizeof(address.sun_path))
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "not the absolute path of a socket");
    memcpy(address.sun_path, path, strlen(path) + 1);
    /* It works at once or not at all. */
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return bly_fail_sys(err, errno, "cannot connect");
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

int bly_connect_url(const char *url, uint64_t deadline_ms, struct bly_target *ret_target,
                    int *ret_fd, struct bly_err *err)
{
    static const char unix_scheme[] = "unix://";
    int r;

    if (strncmp(url, unix_scheme, strlen(unix_scheme)) == 0) {
        *ret_target = (struct bly_target){.host = "localhost", .port = "0", .path = "/"};
        return connect_unix(url + strlen(unix_scheme), ret_fd, err);
    }
    r = parse_url(url, ret_target, err);
    return r < 0 ? r : connect_any(ret_target, deadline_ms, ret_fd, err);
}

/* Children */

static int spawn(const char *const *argv, int fd, pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    int r = posix_spawn_file_actions_init(&actions);

    if (r != 0)
        return r;
    r = posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
    if (r == 0)
        r = posix_spawn_file_actions_adddup2(&actions, fd, STDOUT_FILENO);
    if (r == 0)
        r = posix_spawnp(ret_pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    return r;
}

int bly_connect_child(const char *const *argv, int *ret_fd, pid_t *ret_pid, struct bly_err *err)
{
    bly_autofd int ours = -EBADF, theirs = -EBADF;
    int pair[2], r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return bly_fail_sys(err, errno, "cannot make a socket");
    ours = pair[0];
    theirs = pair[1];
    if (fcntl(ours, F_SETFL, O_NONBLOCK) < 0)
        return bly_fail_sys(err, errno, "cannot make a socket");
    r = spawn(argv, theirs, ret_pid);
    if (r != 0)
        return bly_fail_sys(err, r, "cannot start %s", argv[0]);
    *ret_fd = bly_take_fd(&ours);
    return 0;
}

int bly_connect_reap(pid_t pid, uint64_t timeout_ms)
{
    bly_autofd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    uint64_t deadline_ms = bly_connect_now_ms() + timeout_ms;
    bool ended = pidfd < 0 || bly_connect_wait(pidfd, POLLIN, deadline_ms, NULL) > 0;
    int status = -1;

    if (!ended)
        (void)kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return ended ? status : -1;
}
