#pragma once

/*
 * Bytes in, messages out: WebSocket (RFC 6455) over TCP and Unix sockets, and JSON lines on
 * standard input and output. Knows nothing about JSON-RPC. Loop thread only; no callback is ever
 * made from inside a call of this header. Spec section 1.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct bly_auth;
struct bly_buf;
struct bly_err;
struct bly_limits;
struct bly_conn;
struct bly_endpoint;
struct bly_listener;

struct bly_transport_ops {
    /* A connection is up (upgraded); it may be used at once. `*ret_user` is handed to the other
     * callbacks. Negative errno: it is refused with a close frame, and closed() is not called. */
    int (*opened)(void *arg, struct bly_conn *conn, void **ret_user);
    /* One whole message. `text` is the callee's (free), followed by BLY_JSON_PADDING zero bytes. */
    void (*message)(void *user, struct bly_conn *conn, char *text, size_t len);
    /* The send queue fell below half of limits->output_queue_bytes after having been above the
     * limit. */
    void (*drained)(void *user, struct bly_conn *conn);
    /* The connection has ended, for whatever reason; `conn` is gone after return (what was queued
     * still goes out, for two seconds at most). Exactly once after opened(). */
    void (*closed)(void *user, struct bly_conn *conn, const char *reason);
    /* The peer has said all it will, but still listens (stdio only). True: answers are to come, and
     * bly_conn_close() follows them, within two seconds. False, or NULL: that was all. */
    bool (*ended)(void *user, struct bly_conn *conn);
    /* For /readyz: true while new clients are welcome. */
    bool (*ready)(void *arg);
    /* For /metrics: appends them. Optional. */
    void (*metrics)(void *arg, struct bly_buf *buf);
    /* Somebody was not let in: with this HTTP status, or 408 when no request came in time.
     * Optional.
     */
    void (*refused)(void *arg, const char *peer, int status);
    /* Who may connect; borrowed like the limits. NULL: everybody, on local addresses. */
    const struct bly_auth *auth;
    /* For an upgrade: true while a connection is taken, if only to go on with what it had begun. */
    bool (*welcome)(void *arg);
};

/* What all listeners of a server have in common. */
struct bly_endpoint_config {
    uv_loop_t *loop;
    const struct bly_limits *limits; /* borrowed until listeners and connections are gone */
    struct bly_transport_ops ops;
    void *arg;
    bool any_path; /* an upgrade request may ask for any path that means nothing else */
};

/* NULL: out of memory. Ignores SIGPIPE for the whole process. Listeners hold references. */
struct bly_endpoint *bly_endpoint_new(const struct bly_endpoint_config *config);
struct bly_endpoint *bly_endpoint_unref(struct bly_endpoint *endpoint); /* NULL is fine */

/*
 * Listens on "ws://IP:PORT" (port 0: the kernel chooses; IPv6 in brackets) or "unix:///PATH" (mode
 * 0600; only our own user and root are talked to), or makes one connection of standard input and
 * output ("stdio"), which ends with either of them. -EINVAL: none of these; -EACCES:
 * `ops.auth` does not let it be listened on; `err` has the protocol's words (spec 1.1). After a
 * failure the loop has to run once more to let go of handles.
 */
int bly_listener_open(struct bly_endpoint *endpoint, const char *url,
                      struct bly_listener **ret_listener, struct bly_err *err);
/* The same on a listening stream socket, TCP or Unix, which is consumed, also on failure. */
int bly_listener_adopt(struct bly_endpoint *endpoint, int fd, struct bly_listener **ret_listener,
                       struct bly_err *err);
/* With the real port; borrowed. NULL: stdio, which has none. */
const char *bly_listener_url(const struct bly_listener *listener);
/* Stops accepting and removes a socket file that is still ours; established connections live on.
 * `done` when the handles are gone, for stdio when all output is out or nobody takes it. */
void bly_listener_close(struct bly_listener *listener, void (*done)(void *arg), void *arg);

/*
 * Queues one message. `mem` is malloc'ed and consumed also on failure; the message is len bytes at
 * mem + off, without a line feed in it. Sent as text, in frames of at most 8 MiB, or as a line.
 * -EPIPE after the end began. May be called from a callback; writes at once what the socket takes.
 */
int bly_conn_send(struct bly_conn *conn, void *mem, size_t off, size_t len);
size_t bly_conn_queued_bytes(const struct bly_conn *conn); /* not yet taken by the kernel */

/*
 * Stop or go on reading from the socket; a hang-up is noticed all the same (and what the peer sent
 * before it and we had not read is dropped). Messages that were read together with the current one
 * (64 KiB at most) are still delivered after a pause.
 */
void bly_conn_pause(struct bly_conn *conn, bool paused);

/* Close frame with `code` and `reason`, then the socket ends; `closed` follows. Harmless when
 * repeated. */
void bly_conn_close(struct bly_conn *conn, uint16_t code, const char *reason);

/* Ends it at once, without a close frame. */
void bly_conn_drop(struct bly_conn *conn);

/* Sends a ping and calls back once: `alive` as soon as anything arrives, else false after
 * timeout_ms. Not called after closed. 0; -ENOMEM: `done` will not be called. */
int bly_conn_probe(struct bly_conn *conn, uint64_t timeout_ms, void (*done)(void *arg, bool alive),
                   void *arg);

/* "websocket 127.0.0.1:51234" (the client's address), "websocket unix pid 12 uid 0" or "stdio";
 * borrowed. */
const char *bly_conn_peer(const struct bly_conn *conn);

/* Whether it is standard input and output: there is no other connection, before or after it. */
bool bly_conn_is_stdio(const struct bly_conn *conn);
