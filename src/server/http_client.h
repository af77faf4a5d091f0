#pragma once

/*
 * HTTP requests on the loop, through libcurl's multi interface. A client belongs to one connection
 * of ours and shares nothing with others: no sockets, no TLS sessions, no cookies. Loop thread
 * only; nothing blocks, name lookups included. Speaks HTTP/1.1, so that a transfer that has been
 * stopped really fills nothing but the socket's buffers.
 */
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "proto/http.h"

struct bly_err;
struct bly_http_client;
struct bly_http_library;
struct bly_http_transfer;

struct bly_http_client_config {
    uv_loop_t *loop;
    const struct bly_http_library *library; /* borrowed, like all pointers here */
    const char *ca_file;                    /* certificates to trust; NULL: those of the system */
    uint64_t connect_ms;                    /* time to get a connection */
};

enum { BLY_HTTP_LATER = 1 }; /* outcome of body() */

/*
 * What happens to a transfer: head() once, body() any number of times, done() once and last; or
 * done() alone. They may start other transfers, but must not cancel or close anything.
 */
struct bly_http_events {
    void (*head)(void *arg, unsigned status, const struct bly_http_field *fields, size_t n_fields);
    /* 0: taken. BLY_HTTP_LATER: nothing was taken, it comes again after bly_http_client_resume().
     * Negative: ends the transfer with `err`, which the callee has set. */
    int (*body)(void *arg, const uint8_t *data, size_t len, struct bly_err *err);
    /* NULL: complete. Before a head the text is the protocol's; behind one it says what is wrong
     * with the body. The transfer is gone. */
    void (*done)(void *arg, const struct bly_err *err);
};

int bly_http_client_new(const struct bly_http_client_config *config,
                        struct bly_http_client **ret_client);
/* Drops all transfers without another event. The memory goes when the loop has let go of it. */
void bly_http_client_close(struct bly_http_client *client); /* NULL is fine */

/* Goes on with all transfers whose body() said BLY_HTTP_LATER. Not from inside an event. */
void bly_http_client_resume(struct bly_http_client *client);

/*
 * Starts one; everything of `request` is copied. Redirects are followed here, ten at most: what is
 * secret goes only to the scheme, host and port it was given for. No event happens before this
 * returns. -ENOMEM, or BLY_ERR_REMOTE when it has failed already; no event follows then.
 */
int bly_http_start(struct bly_http_client *client, const struct bly_http_request *request,
                   const struct bly_http_events *events, void *arg, struct bly_err *err);
