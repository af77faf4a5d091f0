#pragma once

/*
 * What the files of sandboxed requests share. Loop thread only; the few functions that a pool
 * thread runs say so, and see nothing but their call.
 *
 *   bly_fs ─ context ─ call        a call belongs to fs.c; the context has it in its queue, or
 *               │                  its helper has it as a flight, or a pool thread
 *               ├ planner's job    for the helper that is being made, until there is a plan
 *               └ helper           owns plan, watch and process; one that is ending is not the
 *                                  context's any more, but the context is there until it is gone
 *
 * sandboxed.c: contexts and their queues; a call is made ready, offered, ended, cancelled.
 *
 * sandboxed_helpers.c: helpers from the plan to their end, with places, flights and deadlines.
 * Nobody else changes anything in a helper.
 *
 * sandboxed_answers.c: what is believed of an answer, and what the call gets of it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "fs/fs_internal.h"

struct bly_plan;
struct bly_planner_job;
struct bly_policy;
struct bly_watch;

enum { BLY_FS_WAIT = 1 }; /* outcome of bly_fs_send_first(): not now */

/* A request the helper has. */
struct bly_fs_flight {
    uint32_t seq;
    struct bly_fs_call *call; /* NULL: cancelled, its answer is dropped */
    uint64_t cancelled_at;
};

/* One helper of a context: starting, in use, or ending. */
struct bly_fs_helper {
    struct bly_fs_context *context;
    struct bly_plan *plan;
    struct bly_watch *watch; /* of the plan; NULL without a watcher */
    struct bly_warm *warm;   /* NULL until it is asked for */
    bool ready;
    bool blocked; /* the socket is full */
    uint32_t last_seq;
    uint64_t first_since; /* when the flight in front became the first */
    uint64_t idle_since;
    size_t n_flights;
    struct bly_fs_flight flights[BLY_FS_WINDOW]; /* in order */
};

struct bly_fs_context {
    LIST_ENTRY(bly_fs_context) entry;
    struct bly_fs *fs;
    uint8_t *key; /* the packed policy */
    size_t key_len;
    struct bly_policy *policy; /* one reference */
    struct bly_fs_calls waiting;
    size_t n_calls;   /* of this context, `done` not run yet */
    size_t n_readers; /* fs/readFile calls that may still be reading their file */
    struct bly_planner_job *job;
    struct bly_fs_helper *helper; /* the one in use, or being made */
    size_t n_ending;              /* helpers on their way out */
    bool starved;                 /* waits for a helper's place */
    bool pumping;
    unsigned n_futile; /* helpers since the latest answer that were outdated, or ended, unused */
};

/* ---- sandboxed.c ---- */

/*
 * Gives the helper what waits and may be sent now; without a helper, has one made. Does nothing
 * inside of itself.
 */
void bly_fs_pump(struct bly_fs_context *context);

/* Ends a call with its reply as it is. From the loop only: its owner may call back into here. */
void bly_fs_finish_sandboxed(struct bly_fs_call *call);

/* Ends a call with `err` (copied), a little later. */
void bly_fs_fail_sandboxed(struct bly_fs_call *call, const struct bly_err *err);

/* The same for everybody who waits for a helper that there will not be. */
void bly_fs_fail_waiting(struct bly_fs_context *context, const struct bly_err *err);

/* ---- sandboxed_helpers.c ---- */

/* Makes sure that a helper is on its way, or that the context gets the next place there is. */
void bly_fs_want_helper(struct bly_fs_context *context);

/* Notes whether the context waits for a helper's place; while one does, fs.c has it tried again. */
void bly_fs_set_starved(struct bly_fs_context *context, bool starved);

/*
 * Sends the first call of the queue, which then is the helper's last flight. 0; BLY_FS_WAIT when
 * the socket is full, until the helper's `writable`; or a negative errno, and the call still waits.
 */
int bly_fs_send_first(struct bly_fs_helper *helper, struct bly_fs_call *call);

/* The first flight is answered. */
void bly_fs_drop_first(struct bly_fs_helper *helper);

/* Nobody waits for the call any more: its flight may take another second, and is then dropped. */
void bly_fs_orphan(struct bly_fs_helper *helper, const struct bly_fs_call *call);

/* Ends a helper without flights. The context goes on without it; its memory is freed later. */
void bly_fs_end_helper(struct bly_fs_helper *helper);

/*
 * The helper (`arg`) is dead, or broke the protocol and is killed for it. Its first call is
 * answered with that; the others wait for the next helper.
 */
void bly_fs_on_lost(void *arg);
void bly_fs_break_off(struct bly_fs_helper *helper);

/* A helper was of no use: after too many in a row, what waits fails with `err`. */
void bly_fs_count_futile(struct bly_fs_context *context, const struct bly_err *err);

/* ---- sandboxed_answers.c ---- */

/* `packet` of struct bly_warm_ops, for a helper. */
void bly_fs_on_packet(void *arg, const void *packet, size_t len, int received);
