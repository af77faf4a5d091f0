#pragma once

/*
 * A connection from the client's side, WebSocket or JSON lines: whole text messages out and in,
 * with time limits. Blocking; one thread at a time. While a large message goes out, what arrives is
 * taken in, so that two sides that both talk never wait for each other.
 */
#include <stddef.h>
#include <stdint.h>

struct bly_err;
struct bly_link;

/* Milliseconds on the clock deadlines are measured by. */
uint64_t bly_link_now_ms(void);

/* Connects to "ws://HOST:PORT[/path]" or "unix:///PATH" and upgrades. 0; a negative errno with
 * `err`. */
int bly_link_open(const char *url, uint64_t deadline_ms, struct bly_link **ret_link,
                  struct bly_err *err);
/* Starts a server that speaks JSON lines on its standard input and output. */
int bly_link_spawn(const char *const *argv, struct bly_link **ret_link, struct bly_err *err);
/* Ends the connection, and waits for a server that was started. Its wait status, -1 when it had to
 * be killed; 0 without one. Nothing but bly_link_free() may follow. */
int bly_link_end(struct bly_link *link, uint64_t timeout_ms);
struct bly_link *bly_link_free(struct bly_link *link);

/* Sends one text message. 0; -ETIMEDOUT, after which the link is broken; -EPIPE. */
int bly_link_send(struct bly_link *link, const char *text, size_t len, uint64_t deadline_ms,
                  struct bly_err *err);

/* The next message, malloc'ed with BLY_JSON_PADDING zero bytes behind it. 0; -ETIMEDOUT, and
 * nothing is lost; -EPIPE when the connection has ended. */
int bly_link_receive(struct bly_link *link, uint64_t deadline_ms, char **ret_text, size_t *ret_len,
                     struct bly_err *err);
