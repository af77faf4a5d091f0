#pragma once

/*
 * A WebSocket to a server under test, made to cost the generator little: requests are framed and
 * masked before the clock starts, and an answer is handed out where it was received. TCP is left as
 * it is but for TCP_NODELAY, so delayed acknowledgements are on, as for any real client. One
 * thread.
 *
 * Why not the client library: it checks all text for UTF-8, copies each message, refuses those that
 * a real client would refuse, and sends one at a time.
 */
#include <stdbool.h>
#include <stddef.h>

#include "span.h"

struct bly_err;
struct wire;

enum { WIRE_TIMEOUT_S = 30 }; /* how long one message may be awaited */

/* True when something listens at this port of 127.0.0.1. */
bool wire_can_connect(unsigned port);

/* Connects and upgrades. 0, and the caller frees *ret_wire; a negative errno with `err`. */
int wire_open(unsigned port, struct wire **ret_wire, struct bly_err *err);
void wire_free(struct wire *wire); /* NULL is fine */

int wire_fd(const struct wire *wire); /* borrowed, for epoll */
/* No further message can come or go. */
bool wire_is_dead(const struct wire *wire);

/*
 * Frames a text message behind those that wait to be sent. What is above 15 MiB goes in several
 * frames, because common servers refuse larger single ones.
 */
void wire_put(struct wire *wire, const void *text, size_t len);
/* Sends what wire_put() has prepared. 0; a negative errno with `err`. */
int wire_flush(struct wire *wire, struct bly_err *err);

/* Waits for the next message, which stays valid until the next call. 0; a negative errno. */
int wire_next(struct wire *wire, struct span *ret_message, struct bly_err *err);
/* True when wire_next() has all of a frame already and does not wait. */
bool wire_has_next(const struct wire *wire);
