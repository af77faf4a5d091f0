#include "bare.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "support.h"
#include "transport/ws.h"

enum { MESSAGE_MAX = 1 << 20 };

static bool put(int fd, const void *data, size_t len)
{
    return send(fd, data, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool upgrade(int fd)
{
    static const char name[] = "Sec-WebSocket-Key: ";
    char head[4096] = "", accept[BLY_WS_ACCEPT_LEN + 1], answer[256];
    const char *key;
    size_t len = 0;

    while (!strstr(head, "\r\n\r\n")) {
        ssize_t n = recv(fd, head + len, sizeof(head) - 1 - len, 0);

        if (n <= 0)
            return false;
        len += (size_t)n;
        head[len] = '\0';
    }
    key = strstr(head, name);
    if (!key)
        return false;
    key += strlen(name);
    bly_ws_accept(key, strcspn(key, "\r"), accept);
    (void)snprintf(answer, sizeof(answer),
                   "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                   "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                   accept);
    return put(fd, answer, strlen(answer));
}

/* Bytes of the masked frame that begins at `data`, whole or not; 0: that cannot be told yet. */
static size_t frame_size(const uint8_t *data, size_t len)
{
    size_t size = len < 2 ? 0 : data[1] & 0x7f, n = size == 126 ? 2 : size == 127 ? 8 : 0;

    if (len < 2 + n || len < 2)
        return 0;
    if (n > 0)
        size = 0;
    for (size_t i = 0; i < n; i++)
        size = size << 8 | data[2 + i];
    return 2 + n + 4 + size;
}

/* The first two messages are those a client begins with; the second is a notification. */
static bool answer(int fd, unsigned n)
{
    const char *text =
        n == 0 ? "{\"id\":1,\"result\":{\"sessionId\":\"bare\"}}"
               : "{\"id\":\"bench\",\"result\":{\"isDirectory\":false,\"isFile\":true,"
                 "\"isSymlink\":false,\"size\":4096,\"createdAtMs\":1,\"modifiedAtMs\":1}}";
    uint8_t frame[BLY_WS_HEAD_MAX + 256];
    size_t len = strlen(text), head;

    if (n == 1)
        return true;
    head = bly_ws_put_header(frame, BLY_WS_TEXT, true, len, NULL);
    memcpy(frame + head, text, len);
    return put(fd, frame, head + len);
}

static void serve(int fd)
{
    static uint8_t data[MESSAGE_MAX];
    size_t fill = 0;
    unsigned n_messages = 0;

    for (;;) {
        size_t size = frame_size(data, fill);
        ssize_t n;

        if (size > 0 && size <= fill) {
            if (!answer(fd, n_messages++))
                return;
            fill -= size;
            memmove(data, data + size, fill);
            continue;
        }
        n = fill < sizeof(data) ? recv(fd, data + fill, sizeof(data) - fill, 0) : 0;
        if (n <= 0)
            return;
        fill += (size_t)n;
    }
}

pid_t bench_bare_start(unsigned *ret_port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bly_autofd int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(addr);
    int on = 1, fd;
    pid_t pid;

    if (listener < 0 || bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        getsockname(listener, (struct sockaddr *)&addr, &len) < 0 || listen(listener, 1) < 0)
        bench_die("cannot listen: %s", strerrordesc_np(errno));
    pid = fork();
    if (pid < 0)
        bench_die("cannot fork: %s", strerrordesc_np(errno));
    if (pid > 0) {
        *ret_port = ntohs(addr.sin_port);
        return pid;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    fd = accept(listener, NULL, NULL);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (upgrade(fd))
        serve(fd);
    _exit(0);
}
