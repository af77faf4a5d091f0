#pragma once

/*
 * What listeners and their connections share; private to transport. Loop thread only.
 */
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "transport/transport.h"

struct bly_endpoint {
    uv_loop_t *loop;
    const struct bly_limits *limits; /* borrowed for as long as the endpoint lives */
    struct bly_transport_ops ops;
    void *arg;
    bool any_path;
    size_t refs;
    size_t n_welcome; /* connections that count against the limit: beginning or open */
    size_t n_all;     /* and those that are only being seen out */
    /* Where sockets are read to outside of large messages: every byte is used up before the next
     * read, so one buffer serves all connections. */
    uint8_t scratch[65536];
};

struct bly_endpoint *bly_endpoint_ref(struct bly_endpoint *endpoint);

/* Takes the connection that waits on `server`. -ENOMEM or the socket's error: it is gone. */
int bly_conn_accept(struct bly_endpoint *endpoint, uv_stream_t *server);

/* A connection of JSON lines on a connected socket, which is consumed, also on failure. opened()
 * follows from the loop. 0; -ENOMEM or the error of libuv. */
int bly_conn_begin_lines(struct bly_endpoint *endpoint, int fd);
