#pragma once

/*
 * A server on a transport made of memory: tests play the client by handing it messages and looking
 * at what it sends. Stands in for all of src/transport. There is no launcher, so no processes.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/limits.h"

struct bly_conn;
struct bly_server;

struct fake {
    uv_loop_t loop;
    struct bly_limits limits; /* may be changed before fake_start() */
    bool no_http;             /* http/request is not served; likewise */
    struct bly_server *server;
    bool draining, ending, closed;
    bool is_stdio;          /* what the connections are; set before fake_connect() */
    unsigned n_stdio_ended; /* how often the server said so */
    bool violation;
};

void fake_init(struct fake *fake);
void fake_start(struct fake *fake);
void fake_drain_begin(struct fake *fake); /* drains the server */
void fake_end_begin(struct fake *fake);   /* closes the server */
/* Lets the loop run until a server that drains is closed. */
void fake_await_end(struct fake *fake);
/* Closes it if that has not begun, and lets the loop run dry. All connections are hung up. */
void fake_end(struct fake *fake);

bool fake_is_ready(void);                         /* for new clients, as /readyz says */
struct bly_conn *fake_connect(struct fake *fake); /* NULL: refused */
void fake_hang_up(struct bly_conn *conn);         /* `conn` is gone */

/* The client says no more. What the transport then knows: whether answers are to come. */
bool fake_finish(struct bly_conn *conn);

void fake_send(struct bly_conn *conn, const char *text);
/* The next message the server sent; waits for it. Valid until the next call. */
const char *fake_next(struct bly_conn *conn);
bool fake_is_quiet(struct bly_conn *conn); /* nothing was sent that has not been looked at */

unsigned fake_close_code(const struct bly_conn *conn); /* 0: not closed */
bool fake_is_paused(const struct bly_conn *conn);
void fake_set_queued(struct bly_conn *conn, size_t bytes); /* what a slow client leaves unread */
void fake_drain(struct bly_conn *conn);
/* The answer to a probe under way; false when there is none. */
bool fake_answer_probe(struct bly_conn *conn, bool alive);

/* initialize and initialized; the session's id is copied to `ret_id` (may be NULL). */
void fake_handshake(struct bly_conn *conn, char ret_id[37]);

void fake_run_for(struct fake *fake, uint64_t ms);
