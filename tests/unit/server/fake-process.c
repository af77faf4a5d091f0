#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "fake-process.h"
#include "launcher/launcher.h"
#include "launcher/planner.h"
#include "process/process.h"
#include "process/ring.h"

enum { MAX_WAITING = 8 };

struct bly_process {
    const struct bly_process_ops *ops;
    void *arg;
    struct bly_ring *ring;
    struct bly_process_state state;
    bool full;
    struct {
        bly_write_done done;
        void *arg;
    } waiting[MAX_WAITING];
    unsigned n_waiting;
};

struct bly_planner_job {
    bly_planned_fn done;
    void *arg;
    const struct bly_policy *policy; /* the server keeps it for as long as it waits */
};

struct fake_process fake_process;
static struct bly_process *process;
static struct bly_planner_job job;
static char planner_memory, spawner_memory, child_memory;

void fake_process_reset(void)
{
    memset(&fake_process, 0, sizeof(fake_process));
    memset(&job, 0, sizeof(job));
    process = NULL;
}

/* ---- planner, spawner ----------------------------------------------------------------------- */

int bly_planner_new(uv_loop_t *loop, uint64_t max_watches, struct bly_planner **ret_planner)
{
    (void)loop, (void)max_watches;
    *ret_planner = (struct bly_planner *)&planner_memory;
    return 0;
}

struct bly_planner *bly_planner_free(struct bly_planner *planner)
{
    (void)planner;
    return NULL;
}

int bly_planner_make(struct bly_planner *planner, const struct bly_policy *policy,
                     enum bly_purpose purpose, bly_planned_fn done, void *arg,
                     struct bly_planner_job **ret_job, struct bly_err *err)
{
    (void)planner;
    (void)err;
    assert_int_equal(purpose, BLY_FOR_PROCESS);
    job = (struct bly_planner_job){done, arg, policy};
    *ret_job = &job;
    return 0;
}

void bly_planner_cancel(struct bly_planner_job *cancelled)
{
    cancelled->done = NULL;
}

bool fake_plan_wanted(void)
{
    return job.done != NULL;
}

void fake_plan_done(bool works)
{
    bly_planned_fn done = job.done;
    struct bly_plan *plan = NULL;
    struct bly_err err;

    job.done = NULL;
    if (works)
        assert_int_equal(
            bly_plan_make(job.policy, BLY_FOR_PROCESS, &bly_probe_disk, NULL, 0, &plan, &err), 0);
    else
        (void)bly_fail(&err, BLY_ERR_UNSUPPORTED, 0, "no wall today");
    done(job.arg, plan, works ? NULL : &err);
}

int bly_spawner_new(struct bly_launcher *launcher, struct bly_spawner **ret_spawner)
{
    (void)launcher;
    *ret_spawner = (struct bly_spawner *)&spawner_memory;
    return 0;
}

void bly_spawner_close(struct bly_spawner *spawner, void (*done)(void *arg), void *arg)
{
    (void)spawner;
    if (done)
        done(arg);
}

int bly_spawner_start(struct bly_spawner *spawner, const struct bly_spawn *spawn,
                      const struct bly_child_ops *ops, void *arg, struct bly_child **ret_child,
                      struct bly_err *err)
{
    (void)spawner;
    (void)spawn;
    (void)ops;
    (void)arg;
    *ret_child = (struct bly_child *)&child_memory;
    return bly_fail(err, BLY_ERR_BUG, 0, "not in this test");
}

int bly_spawner_helper(struct bly_spawner *spawner, const struct bly_plan *plan,
                       const struct bly_child_ops *ops, void *arg, struct bly_child **ret_child,
                       struct bly_err *err)
{
    (void)plan;
    return bly_spawner_start(spawner, NULL, ops, arg, ret_child, err);
}

unsigned bly_child_rung(const struct bly_child *child)
{
    (void)child;
    return 0;
}

bool bly_child_was_refused(const struct bly_child *child)
{
    (void)child;
    return false;
}

void bly_child_signal(struct bly_child *child, int sig)
{
    (void)child;
    (void)sig;
}

/* ---- process -------------------------------------------------------------------------------- */

int bly_process_start(uv_loop_t *loop, struct bly_spawner *spawner, const struct bly_spawn *spawn,
                      bool sandboxed, const struct bly_limits *limits,
                      const struct bly_process_ops *ops, void *arg,
                      struct bly_process **ret_process, struct bly_err *err)
{
    (void)loop;
    (void)spawner;
    (void)limits;
    (void)err;
    assert_int_equal(sandboxed, spawn->plan != NULL);
    process = calloc(1, sizeof(*process));
    assert_non_null(process);
    assert_int_equal(bly_ring_new(1024, 16, &process->ring), 0);
    process->ops = ops;
    process->arg = arg;
    process->state = (struct bly_process_state){.starting = true, .has_stdin = true, .next_seq = 1};
    fake_process = (struct fake_process){.started = true, .walled = sandboxed};
    *ret_process = process;
    return 0;
}

void bly_process_close(struct bly_process *closed)
{
    fake_process.closed = true;
    bly_ring_free(closed->ring);
    free(closed);
    process = NULL;
}

struct bly_process_state bly_process_state(const struct bly_process *asked)
{
    return asked->state;
}

unsigned bly_process_rung(const struct bly_process *asked)
{
    (void)asked;
    return 0;
}

const struct bly_ring *bly_process_ring(const struct bly_process *asked)
{
    return asked->ring;
}

void bly_process_write(struct bly_process *to, const void *data, size_t len, const char *write_id,
                       bly_write_done done, void *arg)
{
    (void)write_id;
    memcpy(fake_process.written + fake_process.n_written, data, len);
    fake_process.n_written += (unsigned)len;
    if (!to->full) {
        done(arg, BLY_WRITE_ACCEPTED);
        return;
    }
    to->waiting[to->n_waiting].done = done;
    to->waiting[to->n_waiting++].arg = arg;
}

bool bly_process_terminate(struct bly_process *terminated)
{
    fake_process.terminated = true;
    return !terminated->state.exited;
}

void bly_process_interrupt(struct bly_process *interrupted)
{
    (void)interrupted;
    fake_process.interrupted = true;
}

void bly_process_pause(struct bly_process *paused, bool pause)
{
    (void)paused;
    fake_process.paused = pause;
}

void fake_process_started(void)
{
    process->state.starting = false;
    process->ops->started(process->arg, NULL);
}

void fake_process_not_started(int sys)
{
    struct bly_err err;

    (void)bly_fail(&err, BLY_ERR_SPAWN, sys, "cannot execute it");
    process->ops->started(process->arg, &err);
}

void fake_process_says(const char *text)
{
    size_t len = strlen(text);
    uint64_t seq = process->state.next_seq++;

    assert_int_equal(bly_ring_push(process->ring, seq, BLY_STDOUT, text, len), 0);
    process->ops->output(process->arg, seq, BLY_STDOUT, (const uint8_t *)text, len);
    process->ops->changed(process->arg);
}

void fake_process_exits(int code)
{
    process->state.exited = true;
    process->state.exit_code = code;
    process->state.exit_seq = process->state.next_seq++;
    process->ops->exited(process->arg, process->state.exit_seq, code, BLY_EVIDENCE_NONE);
    process->ops->changed(process->arg);
}

void fake_process_closes(void)
{
    process->state.closed = true;
    process->ops->closed(process->arg, process->state.next_seq++);
    process->ops->changed(process->arg);
}

void fake_process_is_full(void)
{
    process->full = true;
}

void fake_process_takes(void)
{
    process->full = false;
    for (unsigned i = 0; i < process->n_waiting; i++)
        process->waiting[i].done(process->waiting[i].arg, BLY_WRITE_ACCEPTED);
    process->n_waiting = 0;
}
