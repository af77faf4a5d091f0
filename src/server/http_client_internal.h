#pragma once

/*
 * What the files of the HTTP client share: http_client.c owns clients and transfers and sends,
 * http_poll.c ties libcurl to the loop, http_response.c takes what comes back, http_redirect.c says
 * where a redirect leads.
 */
#include <stdbool.h>
#include <sys/queue.h>

#include "base/err.h"
#include "server/http_client.h"
#include "server/http_library.h"

enum {
    REDIRECT_BODY_MAX = 64 << 10, /* bytes that are read and dropped to keep the socket */
};

LIST_HEAD(transfer_list, bly_http_transfer);
LIST_HEAD(watch_list, watch); /* of http_poll.c */

struct bly_http_client {
    struct bly_http_client_config config;
    const struct bly_http_library *curl;
    CURLM *multi;
    uv_timer_t timer;
    struct transfer_list transfers;
    struct watch_list watches;
    size_t n_handles; /* libuv still holds */
};

struct bly_http_transfer {
    struct bly_http_client *client;
    LIST_ENTRY(bly_http_transfer) link;
    struct bly_http_events events;
    void *arg;
    struct bly_http_request request; /* of the current hop; owned */
    char *body;                      /* owned; request.body points to it while it is sent */
    uint64_t deadline;               /* loop time, UINT64_MAX: none */
    unsigned hops;

    /* The current hop. */
    CURL *easy;
    curl_socket_t socket; /* the last one libcurl began to watch for it */
    struct curl_slist *headers;
    unsigned status;
    struct bly_http_field *fields; /* of the response, room for `max_fields` */
    size_t n_fields, max_fields, head_bytes, skipped;
    bool has_location, redirecting, headed, paused, aborted;
    char why[CURL_ERROR_SIZE];

    struct bly_err err; /* set by an event or a check of ours; kind NONE: nothing */
};

/* ---- http_client.c ---- */

int bly_http_no_memory(struct bly_err *err);                /* always -ENOMEM */
void bly_http_client_unref(struct bly_http_client *client); /* for a handle that libuv let go of */
/* Tells libcurl about a socket's events (CURL_CSELECT_*), or that its time has come; then ends what
 * has ended. */
void bly_http_client_act(struct bly_http_client *client, curl_socket_t fd, int events);

/* ---- http_poll.c: callbacks of the multi handle, whose data is the client ---- */

int bly_http_on_timeout_change(CURLM *multi, long timeout_ms, void *arg);
int bly_http_on_socket_change(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg);
/* Watches the sockets again that paused transfers have kept from being watched. */
void bly_http_poll_resume(struct bly_http_client *client);

/* ---- http_response.c: callbacks of an easy handle, whose data is the transfer ---- */

size_t bly_http_on_header(char *line, size_t size, size_t n, void *arg);
size_t bly_http_on_body(char *data, size_t size, size_t n, void *arg);
void bly_http_forget_head(struct bly_http_transfer *t); /* makes room for the next response's */

/* ---- http_redirect.c ---- */

/* Turns the request into the one that the redirect it was answered with asks for. The hop is over
 * and its handle still there. */
int bly_http_redirect(struct bly_http_transfer *t, struct bly_err *err);
