#pragma once

/*
 * A server under test: its process, the connection to it, and requests in its dialect. What goes
 * wrong is told in `err`, as everywhere, and the text is what the table shows. One thread.
 *
 * Dialect A (codex 0.121) has raw paths, sandboxPolicy and no wall around programs; dialect B
 * (0.169) has file URIs, permissions, fs/walk, fs/open and pipeStdin.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "execbench/account.h"
#include "span.h"

struct ground;
struct wire;

/* Which wall a request asks for. */
enum wall {
    WALL_NONE,
    WALL_WARM, /* one and the same policy: read the platform, write the workspace */
    WALL_COLD, /* a workspace and so a policy that the server has never seen */
    WALL_WIDE, /* read everything, write the workspace */
};

enum trust { TRUST_UNTRIED, TRUST_HOLDS, TRUST_BROKEN };

struct subject {
    const char *name;
    const char *command; /* for sh; "--listen URL" is appended */
    char letter;         /* tells the files of one from those of another */
    struct ground *ground;

    char dialect;  /* 'a', 'b'; 0: not asked yet */
    unsigned port; /* of 127.0.0.1 */
    pid_t pid;     /* 0: not started */
    struct account_group group;
    struct wire *wire;
    int64_t last_request;
    unsigned n_programs, n_writes, n_cold;
    enum trust file_wall, program_wall; /* whether walls of this server hold */
    char file_why[256], program_why[256];

    struct bly_err err;
    struct bly_buf params, request; /* scratch */
};

struct reply {
    struct span message;
    struct span result, error;  /* at is NULL when there is none */
    double sent_us, arrived_us; /* last byte */
};

void subject_init(struct subject *subject, struct ground *ground, char letter, const char *name,
                  const char *command);

/* A server with a port of its own, which listens and has a session. 0; a negative errno. */
int subject_start(struct subject *subject);
void subject_stop(struct subject *subject);
void subject_deinit(struct subject *subject);

/* The parts of subject_start(), for whoever measures them. */
int subject_park(struct subject *subject, int *ret_go_fd); /* a process that waits to become it */
void subject_release(int go_fd);                           /* consumed */
int subject_await_listening(struct subject *subject);      /* polls: nothing tells */
/* A connection with an initialized session. */
int subject_session(struct subject *subject, struct wire **ret_wire);
/* Connects again when the last request broke the connection, and starts the server when it ended.
 */
int subject_revive(struct subject *subject);

/* Writes what went wrong into the error; returns -EPROTO. */
int subject_wrong(struct subject *subject, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The server's error in an answer as what went wrong with `what`. */
int subject_refused(struct subject *subject, const char *what, struct span error);

/* An empty buffer for the parameters of a request. */
struct bly_buf *subject_params(struct subject *subject);
/* Frames a request with these parameters; its id is last_request. */
void subject_put(struct subject *subject, struct wire *wire, const char *method,
                 const struct bly_buf *params);
/* Sends a request and waits for its answer, which may be an error. 0; a negative errno. */
int subject_ask(struct subject *subject, struct wire *wire, const char *method,
                const struct bly_buf *params, struct reply *ret_reply);
/* The same on the subject's own connection; an error answer is a failure. */
int subject_call(struct subject *subject, const char *method, const struct bly_buf *params,
                 struct reply *ret_reply);

/* What a path begins with on the wire: "file://" or nothing. */
const char *subject_scheme(const struct subject *subject);
/* Adds `,"sandbox":` and the context of a policy whose workspace is `root`. */
void subject_add_wall(const struct subject *subject, struct bly_buf *params, const char *root,
                      enum wall wall);
