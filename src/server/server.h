#pragma once

/*
 * The server: sessions, connections and the method table on one event loop. Owns all protocol
 * state; file operations, processes, planning and framing are done by the modules below it. Loop
 * thread only; nothing here blocks.
 */
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct bly_auth;
struct bly_environment;
struct bly_err;
struct bly_http_library;
struct bly_http_variable;
struct bly_launcher;
struct bly_limits;
struct bly_policy_env;
struct bly_server;

/* What the operator lends to http/request. */
struct bly_http_config {
    const struct bly_http_library *library;
    const struct bly_http_variable *variables; /* that headers may name */
    size_t n_variables;
    const char *ca_file; /* NULL: the certificates of the system */
};

/* Everything is borrowed for the life of the server. */
struct bly_server_config {
    uv_loop_t *loop;
    struct bly_launcher *launcher;
    const struct bly_limits *limits;
    const struct bly_policy_env *policy_env;
    const struct bly_environment *environment; /* what clients are told */
    const struct bly_auth *auth;               /* who may connect; NULL: everybody, locally */
    char *const *environ;                      /* what envPolicy starts from, NULL-terminated */
    const struct bly_http_config *http;        /* NULL: http/request is not served */
    bool any_path;                             /* upgrades need not ask for "/" */
    /* The connection on standard input and output has ended, because the client broke the protocol
     * or in some other way: close the server. May be NULL without such a connection. */
    void (*stdio_ended)(void *arg, bool violation);
    void *arg;
};

enum { BLY_LISTENERS_MAX = 64 };

/* Where to listen: a URL (spec 1.1), or a listening socket that somebody else made. */
struct bly_listen {
    const char *url;
    int fd; /* when `url` is NULL; the server's from the moment it comes to it */
};

/* Listens on all of them (1 to BLY_LISTENERS_MAX) or on none, and serves. Returns 0; negative errno
 * with `err` set (spec 1.1). */
int bly_server_start(const struct bly_server_config *config, const struct bly_listen *listens,
                     size_t n_listens, struct bly_server **ret_server, struct bly_err *err);

/* Of the n-th, with the real port; borrowed. NULL: stdio, which is not announced. */
const char *bly_server_url(const struct bly_server *server, size_t n);

/*
 * Lets work that has begun go on, and begins no other: /readyz says 503, sessions can be resumed
 * but not made. Ends as bly_server_close() does as soon as no session has a client or a running
 * process, at the latest after limits->drain_ms. Once, and not after bly_server_close().
 */
void bly_server_drain(struct bly_server *server, void (*done)(void *arg), void *arg);

/*
 * Stops accepting, closes the connections (1001) and ends every session with all its processes.
 * `done` when nothing of it is left on the loop; it takes the place of that of a drain. Once.
 */
void bly_server_close(struct bly_server *server, void (*done)(void *arg), void *arg);

/* After the loop has run dry: jobs of the thread pool may outlast bly_server_close(). NULL is fine.
 */
struct bly_server *bly_server_free(struct bly_server *server);
