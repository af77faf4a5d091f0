#pragma once

/*
 * A connection, for the files that make it up: conn.c (states and the calls of transport.h),
 * conn_life.c (time), conn_http.c (the handshake), and a framing in conn_ws.c and conn_lines.c.
 * Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "transport/conn.h"
#include "transport/lines.h"
#include "transport/outbox.h"
#include "transport/ws.h"

struct bly_http_request;

enum bly_conn_state {
    BLY_CONN_BEGINNING, /* the handshake, if there is one */
    BLY_CONN_OPEN,
    BLY_CONN_ENDING, /* the last bytes go out, then the stream ends; what arrives is dropped */
    BLY_CONN_GONE,   /* the handles are closing */
};

/* How messages lie in the stream of bytes. */
struct bly_framing {
    void (*init)(struct bly_conn *conn); /* when the connection opens */
    void (*deinit)(struct bly_conn *conn);
    /* Where coming bytes may be read to directly; NULL: into a buffer. */
    uint8_t *(*tail)(struct bly_conn *conn, size_t *ret_room);
    /* OPEN: bytes have arrived. They may be changed. */
    void (*take)(struct bly_conn *conn, uint8_t *data, size_t len);
    /* OPEN: the peer sends no more. */
    void (*end_of_file)(struct bly_conn *conn);
    /* Puts the last word into the outbox. */
    void (*say_close)(struct bly_conn *conn, uint16_t code, const char *reason);
    /* Whether there is a network in between: the peer is pinged, dead after a silence, and has time
     * to take notice of the end. */
    bool is_remote;
};

extern const struct bly_framing bly_framing_ws, bly_framing_lines;

struct bly_probe {
    struct bly_probe *next;
    uint64_t since_ms, timeout_ms;
    void (*done)(void *arg, bool alive);
    void *arg;
    bool alive;
};

struct bly_conn {
    struct bly_endpoint *endpoint;
    const struct bly_framing *framing;
    enum bly_conn_state state;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } io;
    uv_timer_t timer;
    uv_shutdown_t shutdown;
    /* While reading is paused libuv does not watch the socket at all. A second descriptor for it,
     * watched for nothing but the peer's end, does. Made at the first pause. */
    uv_poll_t hangup;
    int hangup_fd;
    bool has_hangup;
    unsigned n_handles;

    char *head; /* handshake: what has arrived of it, when it did not come at once */
    size_t head_len;
    union {
        struct bly_ws_receiver ws;
        struct bly_line_receiver lines;
    } in;
    struct bly_outbox out;
    bool was_full;   /* a drained() is owed */
    bool said_all;   /* ENDING: the queue is out, the sending side is shut down */
    bool paused;     /* by the user */
    bool deaf;       /* the peer has said all it will; answers are still to come */
    bool owes_close; /* the user has had opened() and not yet closed() */
    void *user;
    const char *reason; /* why it ended */
    char reason_text[160];

    uint64_t deadline_ms; /* when patience ends: BEGINNING, ENDING, and OPEN while deaf */
    uint64_t heard_ms, ping_ms, due_ms;
    struct bly_probe *probes;
    char peer[80];
};

/* conn.c */

void bly_conn_open(struct bly_conn *conn);
/* Sends what is queued, then ends; the user is told from the loop, without waiting for the peer. */
void bly_conn_begin_end(struct bly_conn *conn, const char *reason);
/* Ends it without another word. The callback comes from the loop, never from here. */
void bly_conn_gone(struct bly_conn *conn, const char *reason);
void bly_conn_tell_closed(struct bly_conn *conn);
/* Takes the result of queueing something. */
int bly_conn_after_send(struct bly_conn *conn, int r);

/* conn_life.c */

enum {
    /* After our last word the peer may finish reading it: closing a socket with unread bytes in it
     * resets the connection and can take away what we said. */
    BLY_CONN_LINGER_MS = 2000,
};

uint64_t bly_conn_now_ms(const struct bly_conn *conn);
/* Sets the timer to what is due next. */
void bly_conn_arm(struct bly_conn *conn);
/* Something has arrived. */
void bly_conn_heard(struct bly_conn *conn);
void bly_conn_forget_probes(struct bly_conn *conn);

/* conn_http.c */

/* BEGINNING: bytes of the request, and maybe of what follows it. */
void bly_conn_take_head(struct bly_conn *conn, uint8_t *data, size_t len);

/* The user learns that somebody was not let in. */
void bly_conn_tell_refused(const struct bly_conn *conn, int status);
