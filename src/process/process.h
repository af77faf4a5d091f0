#pragma once

/*
 * A process as a session sees it: output ring with sequence numbers, stdin queue, exit and close
 * events. Knows nothing about JSON or connections. Loop thread only. Spec: protocol.md 4.3.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "process/ring.h"

struct bly_err;
struct bly_limits;
struct bly_plan;
struct bly_spawn;
struct bly_spawner;
struct bly_process;

enum bly_stream { BLY_STDOUT, BLY_STDERR, BLY_PTY };

/* What says that a program failed because of its wall; the surest comes first. */
enum bly_evidence {
    BLY_EVIDENCE_NONE,       /* nothing does, or there is no wall, or it did not fail */
    BLY_EVIDENCE_SUPERVISED, /* the wall's supervisor has refused a call */
    BLY_EVIDENCE_SIGNAL,     /* death by SIGSYS: a system call filter killed it */
    BLY_EVIDENCE_WORDS,      /* a guess: its output speaks of a denial */
};

struct bly_process_ops {
    /* err == NULL: runs. err: it never ran; the process object stays until bly_process_close(). */
    void (*started)(void *arg, const struct bly_err *err);
    void (*output)(void *arg, uint64_t seq, enum bly_stream stream, const uint8_t *data,
                   size_t len);
    void (*exited)(void *arg, uint64_t seq, int exit_code, enum bly_evidence denied);
    void (*closed)(void *arg, uint64_t seq);
    /* Something a waiting reader may want to see has happened (after the calls above). */
    void (*changed)(void *arg);
};

/* Starts it; callbacks come later, never from inside this call. `sandboxed` feeds sandbox_denied.
 */
int bly_process_start(uv_loop_t *loop, struct bly_spawner *spawner, const struct bly_spawn *spawn,
                      bool sandboxed, const struct bly_limits *limits,
                      const struct bly_process_ops *ops, void *arg,
                      struct bly_process **ret_process, struct bly_err *err);

/*
 * Kills it if it runs; frees when all handles are closed. Writes that still wait are answered with
 * BLY_WRITE_STDIN_CLOSED from inside this call; no callbacks after it.
 */
void bly_process_close(struct bly_process *process);

struct bly_process_state {
    bool starting, exited, closed, sandbox_denied, has_stdin;
    int exit_code;     /* valid when exited; 128 + n for death by signal n */
    uint64_t next_seq; /* number the next event will get */
    uint64_t exit_seq; /* 0 until exited */
};
struct bly_process_state bly_process_state(const struct bly_process *process);
/* The rung of its wall (enum bly_rung), once it has started; 0: none. */
unsigned bly_process_rung(const struct bly_process *process);
const struct bly_ring *bly_process_ring(const struct bly_process *process);

enum bly_write_status { BLY_WRITE_ACCEPTED, BLY_WRITE_STDIN_CLOSED };
typedef void (*bly_write_done)(void *arg, enum bly_write_status status);

/*
 * Queues input. `data` is copied. `done` is called exactly once, at once when there is room (also
 * from inside this call), later when the queue (limit stdin_bytes) is full, with
 * BLY_WRITE_STDIN_CLOSED when it can no longer be delivered. `write_id` (may be NULL) makes it
 * idempotent: the last 4096 are remembered. Writes before `started` are queued.
 */
void bly_process_write(struct bly_process *process, const void *data, size_t len,
                       const char *write_id, bly_write_done done, void *arg);

/* SIGKILL to the whole group (wall), at once; `closed` follows within a second whoever holds the
 * pipes. Returns true if it was running. After exit: false, and nothing is killed. */
bool bly_process_terminate(struct bly_process *process);
void bly_process_interrupt(struct bly_process *process); /* SIGINT to the group */

/*
 * Back-pressure: while paused the pipes are not read, and an exit is announced only afterwards,
 * since what the program wrote before comes first.
 */
void bly_process_pause(struct bly_process *process, bool paused);
