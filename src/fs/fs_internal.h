#pragma once

/*
 * The parts of struct bly_fs: calls (fs.c), the pool threads (direct.c), contexts with their queues
 * and helpers (sandboxed.c and what it shares in sandboxed_internal.h). Loop thread only, except
 * where it says pool thread.
 */
#include <stdatomic.h>
#include <sys/queue.h>
#include <uv.h>

#include "fs/fs.h"

struct bly_warm;

enum {
    BLY_FS_WINDOW = 32,         /* requests sent to one helper and not answered yet, at most */
    BLY_FS_KEY_BYTES = 8 << 20, /* above any packed policy */
};

struct bly_fs_call {
    TAILQ_ENTRY(bly_fs_call) entry; /* in a context's queue, or among the finished ones */
    LIST_ENTRY(bly_fs_call) in_fs;
    struct bly_fs *fs;
    struct bly_fs_context *context; /* NULL: direct */
    struct bly_fs_request request;
    bly_fs_done done;
    void *arg;
    struct bly_fs_reply reply;
    atomic_bool cancelled; /* read by pool threads */
    uv_work_t work;
    enum {
        BLY_CALL_ON_POOL,  /* a pool thread has it: direct, or before or after the helper */
        BLY_CALL_WAITING,  /* in its context's queue */
        BLY_CALL_SENT,     /* the helper has it */
        BLY_CALL_FINISHED, /* `done` is due */
    } state;
    /* Sandboxed. */
    bool queued;    /* also while on the pool before the helper: keeps its place in the order */
    bool barrier;   /* counted in context->n_readers */
    int payload_fd; /* memory file of a large write */
    size_t payload_len;
    struct bly_buf pieces; /* data of the reply so far */
    bool malformed;        /* the helper passed a descriptor that it must not */
};

TAILQ_HEAD(bly_fs_calls, bly_fs_call);

struct bly_fs {
    struct bly_fs_config config;
    LIST_HEAD(, bly_fs_context) contexts; /* latest used first */
    struct bly_fs_calls finished;         /* their `done` runs from the loop */
    uv_timer_t soon;                      /* carries that, and clears away unused contexts */
    bool looking, look_again;             /* in its callback; something came up meanwhile */
    LIST_HEAD(, bly_fs_call) calls;       /* submitted, `done` not run yet */
    size_t n_helpers;                     /* of this session, reserved ones included */
    size_t n_ending;                      /* those of them that are on their way out */
    size_t n_starved;                     /* contexts that wait for a helper's place */
    struct bly_buf key;
    char *packet; /* memory to receive into, shared by all helpers */
    bool closing, timer_closed;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* ---- fs.c ---- */

/* Runs `done` and frees the call. From the loop only. */
void bly_fs_finish(struct bly_fs_call *call);

/* The same, a little later; for use inside of a call from outside. */
void bly_fs_finish_soon(struct bly_fs_call *call);

/* Puts ECANCELED into the reply. */
void bly_fs_set_cancelled(struct bly_fs_call *call);

/* Something may be to clear away, or the close may be complete: looks at it from the loop. */
void bly_fs_look_soon(struct bly_fs *fs);

/* ---- direct.c ---- */

/* Carries the request out on a pool thread and finishes the call. */
int bly_fs_run_direct(struct bly_fs_call *call);

/* ---- sandboxed.c ---- */

int bly_fs_run_sandboxed(struct bly_fs_call *call);
void bly_fs_cancel_sandboxed(struct bly_fs_call *call);

/* Frees contexts nobody needs; false while there are others. */
bool bly_fs_sweep_contexts(struct bly_fs *fs);

/* ---- sandboxed_helpers.c ---- */

/* Ends every helper and job. */
void bly_fs_close_contexts(struct bly_fs *fs);

/* Another try for contexts that wait for a helper's place. */
void bly_fs_feed_starved(struct bly_fs *fs);
