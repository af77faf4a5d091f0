#pragma once

/*
 * A program that a server under test runs, as far as its messages have told. Times are microseconds
 * since the last request about it. One thread.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "execbench/subject.h"

struct program {
    char id[32];
    char wall[32]; /* what the server says stands around it; "": nothing said */

    int64_t request; /* the last one */
    bool has_answer;
    double asked_us; /* on the clock */
    double answer_us, output_us, exit_us, close_us;

    bool has_exited, has_closed;
    int64_t exit_code;
    /* Servers may deliver events slightly out of order. */
    int64_t n_events, highest_event, closed_event, n_disordered;

    bool writes_zeros;     /* set before the start: output is checked and counted, not kept */
    size_t n_zeros;        /* bytes */
    struct bly_buf output; /* since it was last emptied */
};

struct program_how {
    bool has_terminal, has_stdin;
    enum wall wall; /* WALL_COLD: the subject's next cold workspace, made already */
};

void program_init(struct program *program);
void program_deinit(struct program *program);

/* Sends process/start. 0; a negative errno. */
int program_start(struct subject *subject, struct program *program, const char *const *argv,
                  struct program_how how);
/* Sends another request about it. */
int program_ask(struct subject *subject, struct program *program, const char *method,
                const struct bly_buf *params);
/* Takes one message in, about this program or not. 0; a negative errno, also for an error. */
int program_next(struct subject *subject, struct program *program);
/* True when it is over and every event has come. */
bool program_is_done(const struct program *program);
/* program_start(), and program_next() until it is done and the events are complete. */
int program_run(struct subject *subject, struct program *program, const char *const *argv,
                struct program_how how);
