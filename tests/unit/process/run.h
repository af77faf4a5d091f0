#pragma once

/*
 * A process under test: collects what its callbacks say.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"
#include "launcher/launcher.h"
#include "process/process.h"
#include "unit/launcher/fixture.h"

struct run {
    struct fixture *fixture;
    struct bly_process *process; /* NULL once closed */
    struct bly_limits limits;
    struct bly_err err;
    bool answered; /* started came */
    bool failed;   /* with an error, in err */
    bool exited, closed, denied;
    enum bly_evidence evidence;
    int code;
    struct bly_buf text[3]; /* by enum bly_stream, each with a NUL behind its end */
    struct bly_buf events;  /* "o" output, "x" exited, "c" closed */
    uint64_t last_seq;      /* the events before had no gaps */
    size_t max_chunk, n_changed;
};

void run_init(struct run *run, struct fixture *fixture);
/* Asserts that the start was accepted; its outcome comes later. */
void run_start(struct run *run, const struct bly_spawn *spawn, bool sandboxed);
void run_script(struct run *run, const char *script, bool tty, bool pipe_stdin);
void run_wait_answer(struct run *run);
void run_wait_closed(struct run *run); /* also over when the start failed */
void run_wait_text(struct run *run, enum bly_stream stream, const char *text); /* contains */
const char *run_text(struct run *run, enum bly_stream stream);
void run_close(struct run *run);
