#pragma once

/*
 * The other end of a test's socket: bytes and frames as the test wants them, right or wrong.
 * Reading waits ten seconds at most; a failure ends the test with an assertion.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame {
    unsigned opcode;
    bool fin;
    uint8_t *data; /* owned by the caller; NUL-terminated */
    size_t len;
};

#define UPGRADE                     \
    "GET / HTTP/1.1\r\n"            \
    "Host: x\r\n"                   \
    "Connection: Upgrade\r\n"       \
    "Upgrade: websocket\r\n"        \
    "Sec-WebSocket-Version: 13\r\n" \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

int raw_connect(int port); /* TCP only */
int raw_upgrade(int port); /* and the handshake */
void raw_send(int fd, const void *data, size_t len);
void raw_send_str(int fd, const char *text);

/* A masked frame. `first` is the first byte (FIN, RSV, opcode). */
void raw_frame(int fd, unsigned first, const void *payload, size_t len);
void raw_text(int fd, const char *text);

/* Everything up to the empty line, NUL-terminated, in `head`. */
void raw_read_head(int fd, char head[1024]);
/* Everything up to end of file, NUL-terminated. */
void raw_read_all(int fd, char *text, size_t size);
struct frame raw_read_frame(int fd);
/* Reads frames until a whole message is there; answers nothing, skips pings and pongs. */
struct frame raw_read_message(int fd);
void raw_expect_text(int fd, const char *text);
/* The next frame is a close frame with this code (0: none), and then the connection ends. */
void raw_expect_close(int fd, unsigned code);
void raw_expect_eof(int fd);
