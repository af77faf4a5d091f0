#pragma once

/*
 * floorserve: a lower bound for execbench. It answers the same requests with the least work this
 * machine allows: no JSON parser (fields are found by their text, in the very shapes execbench
 * sends), no checks, no limits, no sessions, one thread. It is not a server to use: it trusts every
 * byte. What cannot be done ends it, and execbench shows that as a failure.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "span.h"

struct program;
struct yard;

enum {
    FLOOR_PIECE = 192 << 10, /* bytes that stay in the cache on their way; a multiple of 3 */
    FLOOR_PATH_MAX = 2048,
};

/* A descriptor in the loop. The first member of whatever is freed by floor_free_later(). */
struct source {
    void (*on_readable)(struct source *source);
    int fd; /* owned; -EBADF: not in the loop */
    struct source *next_dead;
};

void floor_watch(struct source *source, int fd, void (*on_readable)(struct source *source));
void floor_unwatch(struct source *source); /* closes it */
/* When no event of this turn of the loop can lead to it any more. */
void floor_free_later(struct source *source);

/* A large fs/writeFile that is decoded while it arrives. */
struct large_write {
    enum { LARGE_BEFORE, LARGE_INSIDE, LARGE_BEHIND } at; /* its contents */
    struct bly_buf around;                                /* the message without the contents */
    struct bly_buf decoded;
    char rest[4]; /* the last symbols, which do not make a group of four yet */
    size_t n_rest;
};

struct conn {
    struct source source;
    uint8_t *in; /* in[at..end) is still to be looked at */
    size_t cap, at, end;
    bool is_upgraded;

    /* The large frame whose payload is arriving. */
    uint8_t mask[4];
    uint64_t left, done;
    bool is_large, is_last;
    struct large_write write;

    struct bly_buf out;
    struct program *programs;
    struct conn *next, **link; /* all connections; `link` points to this one */
};

struct conn *conn_next(struct conn *conn); /* the first for NULL; NULL behind the last */

/* Frames for the client. What is small waits for conn_flush(), which the loop does. */
void conn_add_head(struct conn *conn, size_t len);
void conn_answer(struct conn *conn, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void conn_fail(struct conn *conn, long id, int error); /* positive errno */
void conn_flush(struct conn *conn);

/* requests.c */
void request_take(struct conn *conn, struct span message);
void request_feed_large(struct conn *conn, const uint8_t *data, size_t len);
void request_end_large(struct conn *conn);
long request_id(struct span message);
/* The string behind `key`, which is everything up to its opening quote: "\"path\":\"". */
bool request_find(struct span message, const char *key, struct span *ret_value);
bool request_has(struct span message, const char *text);
/* The native path in a member. */
bool request_path(struct span message, const char *key, char path[FLOOR_PATH_MAX]);
/* The yard a request wants to be served from; NULL: it has no wall. */
struct yard *request_yard(struct span message);

/* programs.c */
void program_start(struct conn *conn, struct span message);
void program_write(struct conn *conn, struct span message);
void program_read(struct conn *conn, struct span message);
void program_terminate(struct conn *conn, struct span message);
void program_exited(struct yard *yard, int pid, int status); /* status as in waitpid(2) */
void programs_free(struct conn *conn);

/*
 * Starts a program: packed strings, the directory and then argv, an empty one at the end. Its
 * terminal, or else its input and output. Its pid; a negative errno.
 */
int floor_spawn(char *packed, int in_fd, int out_fd, const char *terminal);

/* walk.c */
int walk_tree(const char *path, struct bly_buf *out); /* 0; -errno */
