#include "raw-client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "transport/ws.h"

int raw_connect(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

int raw_upgrade(int port)
{
    int fd = raw_connect(port);
    char head[1024];

    raw_send_str(fd, UPGRADE);
    raw_read_head(fd, head);
    assert_memory_equal(head, "HTTP/1.1 101 ", 13);
    return fd;
}

void raw_send(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        /* A server that has had enough may end the connection while we still talk. */
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return;
        assert_true(n > 0);
        p += n;
        len -= (size_t)n;
    }
}

void raw_send_str(int fd, const char *text)
{
    raw_send(fd, text, strlen(text));
}

void raw_frame(int fd, unsigned first, const void *payload, size_t len)
{
    static const uint8_t mask[4] = {0x12, 0xf4, 0x56, 0x98};
    uint8_t head[BLY_WS_HEAD_MAX];
    size_t head_len = bly_ws_put_header(head, BLY_WS_TEXT, true, len, mask);
    uint8_t *copy = malloc(head_len + len);

    assert_non_null(copy);
    head[0] = (uint8_t)first;
    memcpy(copy, head, head_len);
    for (size_t i = 0; i < len; i++)
        copy[head_len + i] = ((const uint8_t *)payload)[i] ^ mask[i % 4];
    raw_send(fd, copy, head_len + len);
    free(copy);
}

void raw_text(int fd, const char *text)
{
    raw_frame(fd, 0x81, text, strlen(text));
}

/* Returns what recv() returns; a reset counts as the end. */
static ssize_t read_some(int fd, void *data, size_t len)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    ssize_t n;

    if (poll(&pfd, 1, 10000) != 1)
        fail_msg("nothing came for ten seconds");
    n = recv(fd, data, len, 0);
    if (n < 0 && errno == ECONNRESET)
        return 0;
    assert_true(n >= 0);
    return n;
}

static void read_exactly(int fd, void *data, size_t len)
{
    uint8_t *p = data;

    while (len > 0) {
        ssize_t n = read_some(fd, p, len);

        if (n == 0)
            fail_msg("the connection ended, %zu bytes short", len);
        p += n;
        len -= (size_t)n;
    }
}

void raw_read_head(int fd, char head[1024])
{
    size_t len = 0;

    while (len < 4 || memcmp(head + len - 4, "\r\n\r\n", 4) != 0) {
        assert_true(len < 1023);
        read_exactly(fd, head + len++, 1);
    }
    head[len] = '\0';
}

void raw_read_all(int fd, char *text, size_t size)
{
    size_t len = 0;

    for (;;) {
        ssize_t n = read_some(fd, text + len, size - 1 - len);

        if (n == 0)
            break;
        len += (size_t)n;
        assert_true(len < size - 1);
    }
    text[len] = '\0';
}

struct frame raw_read_frame(int fd)
{
    struct frame frame = {0};
    uint8_t head[2], ext[8];
    size_t n;

    read_exactly(fd, head, 2);
    frame.fin = head[0] & 0x80;
    frame.opcode = head[0] & 0x0f;
    assert_int_equal(head[0] & 0x70, 0);
    assert_int_equal(head[1] & 0x80, 0);
    frame.len = head[1];
    n = frame.len == 126 ? 2 : frame.len == 127 ? 8 : 0;
    if (n > 0) {
        read_exactly(fd, ext, n);
        frame.len = 0;
        for (size_t i = 0; i < n; i++)
            frame.len = frame.len << 8 | ext[i];
    }
    assert_true(frame.len <= 16 << 20);
    frame.data = malloc(frame.len + 1);
    assert_non_null(frame.data);
    read_exactly(fd, frame.data, frame.len);
    frame.data[frame.len] = '\0';
    return frame;
}

static void append(struct frame *message, struct frame *part)
{
    message->data = realloc(message->data, message->len + part->len + 1);
    assert_non_null(message->data);
    memcpy(message->data + message->len, part->data, part->len + 1);
    message->len += part->len;
}

struct frame raw_read_message(int fd)
{
    struct frame message = {0};

    for (;;) {
        struct frame part = raw_read_frame(fd);
        bool first = message.data == NULL;

        if (part.opcode == 0x9 || part.opcode == 0xa) {
            free(part.data);
            continue;
        }
        assert_int_equal(part.opcode, first ? 0x1 : 0x0);
        append(&message, &part);
        free(part.data);
        if (part.fin)
            return message;
    }
}

void raw_expect_text(int fd, const char *text)
{
    struct frame message = raw_read_message(fd);

    assert_string_equal((char *)message.data, text);
    free(message.data);
}

void raw_expect_eof(int fd)
{
    char byte;

    assert_int_equal(read_some(fd, &byte, 1), 0);
}

void raw_expect_close(int fd, unsigned code)
{
    struct frame frame = raw_read_frame(fd);

    assert_int_equal(frame.opcode, 0x8);
    if (code == 0)
        assert_int_equal(frame.len, 0);
    else
        assert_int_equal(frame.data[0] << 8 | frame.data[1], code);
    free(frame.data);
    raw_expect_eof(fd);
}
