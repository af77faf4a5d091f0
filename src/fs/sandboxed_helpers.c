/*
 * Warm helpers of contexts: the place each one takes, its plan, what it has been sent and how long
 * it may take for it, and its end. What comes next for a helper is decided here, what the calls get
 * elsewhere: those that were not begun go back to the queue.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "fs/helper/wire.h"
#include "fs/sandboxed_internal.h"
#include "fs/warm.h"
#include "fs/watch.h"
#include "launcher/planner.h"
#include "sandbox/plan/plan.h"

enum {
    CANCEL_MS = 1000, /* what a cancelled operation may still take inside the helper */
    IDLE_LOOK_MS = 1000,
    MAX_FUTILE = 16, /* helpers that were of no use, one after the other */
};

static const struct bly_limits *limits_of(const struct bly_fs_context *context)
{
    return context->fs->config.limits;
}

static uint64_t now_of(const struct bly_fs_context *context)
{
    return uv_now(context->fs->config.loop);
}

/* ---- ends ---- */

static void give_place_back(struct bly_fs *fs)
{
    fs->n_helpers--;
    (*fs->config.n_helpers)--;
    if (fs->n_starved > 0 || fs->closing)
        bly_fs_look_soon(fs);
}

static void free_helper(struct bly_fs_helper *helper)
{
    struct bly_fs *fs = helper->context->fs;

    bly_watch_free(helper->watch);
    bly_plan_free(helper->plan);
    free(helper);
    give_place_back(fs);
    bly_fs_look_soon(fs);
}

static void on_gone(void *arg)
{
    struct bly_fs_helper *helper = arg;

    helper->context->n_ending--;
    helper->context->fs->n_ending--;
    free_helper(helper);
}

/* The context goes on without it. */
void bly_fs_end_helper(struct bly_fs_helper *helper)
{
    struct bly_fs_context *context = helper->context;

    if (context->helper == helper)
        context->helper = NULL;
    context->n_ending++;
    context->fs->n_ending++;
    bly_warm_end(helper->warm);
}

/* A helper was of no use. Somebody who sees to that all the time must not keep us busy. */
void bly_fs_count_futile(struct bly_fs_context *context, const struct bly_err *err)
{
    if (++context->n_futile <= MAX_FUTILE)
        return;
    context->n_futile = 0;
    bly_fs_fail_waiting(context, err);
}

/*
 * Its first request is answered with `err`, or is already given up. Those behind it have not begun,
 * for a helper does one after the other: they go back to the front of the queue.
 */
static void abandon_helper(struct bly_fs_helper *helper, const struct bly_err *err)
{
    struct bly_fs_context *context = helper->context;
    struct bly_fs_call *first = helper->n_flights > 0 ? helper->flights[0].call : NULL;

    for (size_t i = helper->n_flights; i-- > 1;) {
        struct bly_fs_call *call = helper->flights[i].call;

        if (call == NULL)
            continue;
        if (call->barrier)
            context->n_readers--;
        call->barrier = false;
        call->pieces.len = 0;
        call->state = BLY_CALL_WAITING;
        call->queued = true;
        TAILQ_INSERT_HEAD(&context->waiting, call, entry);
    }
    helper->n_flights = 0;
    bly_fs_end_helper(helper);
    if (first != NULL)
        bly_fs_fail_sandboxed(first, err);
    else
        bly_fs_count_futile(context, err);
    bly_fs_pump(context);
}

void bly_fs_on_lost(void *arg)
{
    struct bly_err err;

    (void)bly_fail(&err, BLY_ERR_LIMIT, EPIPE, "sandboxed helper ended unexpectedly");
    abandon_helper(arg, &err);
}

void bly_fs_break_off(struct bly_fs_helper *helper)
{
    struct bly_err err;

    (void)bly_fail(&err, BLY_ERR_LIMIT, EBADMSG, "sandboxed helper broke the protocol");
    bly_warm_kill(helper->warm);
    abandon_helper(helper, &err);
}

/* ---- flights and time ---- */

int bly_fs_send_first(struct bly_fs_helper *helper, struct bly_fs_call *call)
{
    struct bly_fs_context *context = helper->context;
    int r = bly_warm_send(helper->warm, helper->last_seq + 1, &call->request, call->request.base64,
                          call->payload_len, call->payload_fd);

    if (r == -EAGAIN) {
        helper->blocked = true;
        return BLY_FS_WAIT;
    }
    if (r < 0)
        return r;

    helper->last_seq++;
    if (helper->n_flights == 0) {
        helper->first_since = now_of(context);
        bly_warm_due(helper->warm, helper->first_since + limits_of(context)->helper_op_ms);
    }
    helper->flights[helper->n_flights++] =
        (struct bly_fs_flight){.seq = helper->last_seq, .call = call};
    TAILQ_REMOVE(&context->waiting, call, entry);
    call->queued = false;
    call->state = BLY_CALL_SENT;
    if (call->request.op == BLY_FS_READ_FILE) {
        call->barrier = true;
        context->n_readers++;
    }
    return 0;
}

static uint64_t deadline_of(const struct bly_fs_helper *helper)
{
    const struct bly_fs_flight *first = &helper->flights[0];
    uint64_t at = helper->first_since + limits_of(helper->context)->helper_op_ms;
    uint64_t since =
        first->cancelled_at > helper->first_since ? first->cancelled_at : helper->first_since;

    return first->call == NULL && since + CANCEL_MS < at ? since + CANCEL_MS : at;
}

void bly_fs_drop_first(struct bly_fs_helper *helper)
{
    struct bly_fs_context *context = helper->context;
    uint64_t now = now_of(context);

    helper->n_flights--;
    memmove(helper->flights, helper->flights + 1, helper->n_flights * sizeof helper->flights[0]);
    helper->first_since = now;
    helper->idle_since = now;
    if (helper->n_flights > 0) {
        bly_warm_due(helper->warm, deadline_of(helper));
        return;
    }
    bly_warm_due(helper->warm, now + IDLE_LOOK_MS);
    if (context->fs->n_starved > 0)
        bly_fs_look_soon(context->fs); /* its place is wanted */
}

void bly_fs_orphan(struct bly_fs_helper *helper, const struct bly_fs_call *call)
{
    for (size_t i = 0; i < helper->n_flights; i++) {
        if (helper->flights[i].call != call)
            continue;
        helper->flights[i].call = NULL;
        helper->flights[i].cancelled_at = now_of(helper->context);
    }
    bly_warm_due(helper->warm, deadline_of(helper));
}

static void look_at_idle(struct bly_fs_helper *helper)
{
    struct bly_fs_context *context = helper->context;
    const struct bly_limits *limits = limits_of(context);
    const struct bly_fs *fs = context->fs;
    uint64_t now = now_of(context), step = limits->helper_idle_ms;

    /* Another session may be waiting for the place. */
    if (now - helper->idle_since >= limits->helper_idle_ms ||
        *fs->config.n_helpers >= limits->helpers) {
        bly_fs_end_helper(helper);
        return;
    }
    bly_warm_due(helper->warm, now + (step < IDLE_LOOK_MS ? step : IDLE_LOOK_MS));
}

static void on_due(void *arg)
{
    struct bly_fs_helper *helper = arg;
    const struct bly_limits *limits = limits_of(helper->context);
    struct bly_err err;

    (void)bly_fail(&err, BLY_ERR_LIMIT, ETIMEDOUT,
                   "sandboxed file operation took longer than %llu ms",
                   (unsigned long long)limits->helper_op_ms);
    if (!helper->ready) {
        bly_warm_kill(helper->warm);
        bly_fs_fail_waiting(helper->context, &err);
        bly_fs_end_helper(helper);
        return;
    }
    if (helper->n_flights == 0) {
        look_at_idle(helper);
        return;
    }
    if (now_of(helper->context) < deadline_of(helper)) {
        bly_warm_due(helper->warm, deadline_of(helper));
        return;
    }
    bly_warm_kill(helper->warm);
    abandon_helper(helper, &err);
}

static void on_writable(void *arg)
{
    struct bly_fs_helper *helper = arg;

    helper->blocked = false;
    bly_fs_pump(helper->context);
}

/* ---- places ---- */

static bool has_place(const struct bly_fs *fs)
{
    return fs->n_helpers < fs->config.limits->helpers_per_session &&
           *fs->config.n_helpers < fs->config.limits->helpers;
}

/* The helper of this session that has been idle longest makes room. */
static void retire_oldest(struct bly_fs *fs)
{
    struct bly_fs_context *context;
    struct bly_fs_helper *oldest = NULL;

    LIST_FOREACH(context, &fs->contexts, entry)
    {
        struct bly_fs_helper *helper = context->helper;

        if (helper != NULL && helper->ready && helper->n_flights == 0 &&
            TAILQ_EMPTY(&context->waiting) &&
            (oldest == NULL || helper->idle_since < oldest->idle_since))
            oldest = helper;
    }
    if (oldest != NULL)
        bly_fs_end_helper(oldest);
}

void bly_fs_set_starved(struct bly_fs_context *context, bool starved)
{
    if (starved && !context->starved) {
        context->fs->n_starved++;
        bly_fs_look_soon(context->fs);
    }
    if (!starved && context->starved)
        context->fs->n_starved--;
    context->starved = starved;
}

void bly_fs_feed_starved(struct bly_fs *fs)
{
    struct bly_fs_context *context;

    LIST_FOREACH(context, &fs->contexts, entry)
    if (context->starved)
        bly_fs_pump(context);
}

/* ---- from a plan to a wall ---- */

static void on_ready(void *arg, const struct bly_err *err)
{
    struct bly_fs_helper *helper = arg;
    struct bly_fs_context *context = helper->context;
    struct bly_fs *fs = context->fs;

    if (err != NULL) {
        bly_fs_fail_waiting(context, err);
        bly_fs_end_helper(helper);
        return;
    }
    bly_log(BLY_LOG_DEBUG, "helper-started", "rung=%u", bly_warm_rung(helper->warm));
    helper->ready = true;
    if (fs->config.n_helper_starts != NULL)
        ++*fs->config.n_helper_starts;
    helper->idle_since = now_of(context);
    bly_warm_due(helper->warm, now_of(context) + IDLE_LOOK_MS);
    bly_fs_pump(context);
    /* Now, so that the next new policy does not have to wait until the oldest helper has ended. Not
     * before the requests are on their way: the end of a wall takes time, too. */
    if (!has_place(fs))
        retire_oldest(fs);
}

static void start_helper(struct bly_fs_helper *helper)
{
    static const struct bly_warm_ops ops = {
        .ready = on_ready,
        .packet = bly_fs_on_packet,
        .writable = on_writable,
        .lost = bly_fs_on_lost,
        .due = on_due,
        .gone = on_gone,
    };
    struct bly_fs_context *context = helper->context;
    struct bly_fs *fs = context->fs;
    struct bly_spawner *spawner = NULL;
    struct bly_err err;
    int r = 0;

    if (fs->packet == NULL)
        fs->packet = malloc(BLY_HWIRE_PACKET_MAX);
    if (fs->packet == NULL)
        r = bly_fail(&err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    if (r == 0)
        r = fs->config.spawner(fs->config.arg, &spawner, &err);
    if (r == 0)
        r = bly_warm_start(fs->config.loop, spawner, helper->plan, fs->packet, &ops, helper,
                           &helper->warm, &err);
    if (r < 0) {
        context->helper = NULL;
        free_helper(helper);
        bly_fs_fail_waiting(context, &err);
        return;
    }
    bly_warm_due(helper->warm, now_of(context) + limits_of(context)->helper_op_ms);
    /* While the wall is being built, not when the first request waits for it. What changes in
     * between is noticed by the check before that request. */
    if (helper->watch != NULL)
        (void)bly_watch_check(helper->watch);
}

static void on_planned(void *arg, struct bly_plan *plan, const struct bly_err *err)
{
    struct bly_fs_helper *helper = arg;
    struct bly_fs_context *context = helper->context;
    struct bly_watcher *watcher = context->fs->config.watcher;
    struct bly_err no_memory;

    context->job = NULL;
    helper->plan = plan;
    if (err == NULL && watcher != NULL && bly_watch_new(watcher, plan, &helper->watch) < 0) {
        (void)bly_fail(&no_memory, BLY_ERR_LIMIT, ENOMEM, "out of memory");
        err = &no_memory;
    }
    if (err != NULL) {
        context->helper = NULL;
        free_helper(helper);
        bly_fs_fail_waiting(context, err);
        return;
    }
    start_helper(helper);
}

/* Makes sure that a helper is on its way. */
void bly_fs_want_helper(struct bly_fs_context *context)
{
    struct bly_fs *fs = context->fs;
    struct bly_fs_helper *helper;
    struct bly_err err;

    if (!has_place(fs)) {
        bly_fs_set_starved(context, true);
        if (fs->n_ending < fs->n_starved)
            retire_oldest(fs);
        return;
    }
    bly_fs_set_starved(context, false);
    helper = calloc(1, sizeof *helper);
    if (helper == NULL) {
        (void)bly_fail(&err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
        bly_fs_fail_waiting(context, &err);
        return;
    }
    helper->context = context;
    context->helper = helper;
    fs->n_helpers++;
    (*fs->config.n_helpers)++;
    if (bly_planner_make(fs->config.planner, context->policy, BLY_FOR_HELPER, on_planned, helper,
                         &context->job, &err) < 0) {
        context->helper = NULL;
        free_helper(helper);
        bly_fs_fail_waiting(context, &err);
    }
}

/* ---- all at once ---- */

void bly_fs_close_contexts(struct bly_fs *fs)
{
    struct bly_fs_context *context;

    LIST_FOREACH(context, &fs->contexts, entry)
    {
        struct bly_fs_helper *helper = context->helper;

        bly_fs_set_starved(context, false);
        if (context->job != NULL)
            bly_planner_cancel(context->job);
        context->job = NULL;
        if (helper == NULL)
            continue;
        context->helper = NULL;
        if (helper->warm != NULL)
            bly_fs_end_helper(helper);
        else
            free_helper(helper);
    }
}
