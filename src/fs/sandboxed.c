/*
 * Sandboxed requests. Each policy has a context: a queue, and at most one warm helper that works it
 * off in order. A helper is used only while its plan still fits the disk; requests in flight to an
 * outdated one are finished first. Whatever goes wrong is an answer to the requests that waited for
 * it; nothing is ever run outside of the wall instead.
 */
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "fs/fs_internal.h"
#include "fs/helper/wire.h"
#include "fs/oneshot.h"
#include "fs/ops.h"
#include "fs/ops_internal.h"
#include "fs/sandboxed_internal.h"
#include "fs/warm.h"
#include "fs/watch.h"
#include "launcher/launcher.h"
#include "launcher/planner.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"

enum {
    SMALL_BASE64 = BLY_HWIRE_INLINE / 3 * 4, /* decoded on the loop; more goes to a pool thread */
    CANCEL_MS = 1000, /* what a cancelled operation may still take inside the helper */
    IDLE_LOOK_MS = 1000,
    MAX_FUTILE = 16, /* helpers that were of no use, one after the other */
};

/* ---- contexts ---- */

static struct bly_fs_context *find_context(struct bly_fs *fs)
{
    struct bly_fs_context *context;

    LIST_FOREACH(context, &fs->contexts, entry)
    if (context->key_len == fs->key.len && memcmp(context->key, fs->key.data, fs->key.len) == 0)
        return context;
    return NULL;
}

static void free_context(struct bly_fs_context *context)
{
    LIST_REMOVE(context, entry);
    bly_policy_unref(context->policy);
    free(context->key);
    free(context);
}

static int new_context(struct bly_fs *fs, struct bly_policy *policy,
                       struct bly_fs_context **ret_context)
{
    struct bly_fs_context *context = calloc(1, sizeof *context);

    if (context == NULL)
        return -ENOMEM;
    context->fs = fs;
    TAILQ_INIT(&context->waiting);
    LIST_INSERT_HEAD(&fs->contexts, context, entry);
    context->policy = bly_policy_ref(policy);
    context->key = malloc(fs->key.len + 1);
    if (context->key == NULL) {
        free_context(context);
        return -ENOMEM;
    }
    memcpy(context->key, fs->key.data, fs->key.len);
    context->key_len = fs->key.len;
    bly_fs_look_soon(fs); /* to clear it away if no call comes */
    *ret_context = context;
    return 0;
}

/* The next time it is known by its address. */
static void take_policy(struct bly_fs_context *context, struct bly_policy *policy)
{
    bly_policy_ref(policy);
    bly_policy_unref(context->policy);
    context->policy = policy;
}

int bly_fs_context(struct bly_fs *fs, struct bly_policy *policy,
                   struct bly_fs_context **ret_context)
{
    struct bly_fs_context *context;
    int r;

    *ret_context = NULL;
    if (!policy->wall)
        return 0;
    LIST_FOREACH(context, &fs->contexts, entry)
    if (context->policy == policy) {
        *ret_context = context;
        return 0;
    }
    fs->key.len = 0;
    r = bly_policy_pack(policy, &fs->key);
    if (r < 0) {
        bly_buf_deinit(&fs->key);
        bly_buf_init(&fs->key, BLY_FS_KEY_BYTES);
        return r;
    }
    context = find_context(fs);
    if (context == NULL) {
        r = new_context(fs, policy, &context);
        if (r < 0)
            return r;
    }
    take_policy(context, policy);
    *ret_context = context;
    return 0;
}

bool bly_fs_sweep_contexts(struct bly_fs *fs)
{
    struct bly_fs_context *context = LIST_FIRST(&fs->contexts), *next;

    for (; context != NULL; context = next) {
        next = LIST_NEXT(context, entry);
        if (context->n_calls == 0 && context->helper == NULL && context->n_ending == 0)
            free_context(context);
    }
    return LIST_EMPTY(&fs->contexts);
}

/* ---- ends of calls ---- */

static bool is_mutation(const struct bly_fs_request *request)
{
    switch (request->op) {
    case BLY_FS_READ_FILE:
    case BLY_FS_GET_METADATA:
    case BLY_FS_READ_DIRECTORY:
    case BLY_FS_CANONICALIZE:
    case BLY_FS_WALK:
        return false;
    case BLY_FS_OPEN:
        return request->replace;
    case BLY_FS_WRITE_FILE:
    case BLY_FS_CREATE_DIRECTORY:
    case BLY_FS_REMOVE:
    case BLY_FS_COPY:
    case BLY_FS_READ_BLOCK:
    case BLY_FS_WRITE_BLOCK:
        break;
    }
    return true;
}

static void leave_context(struct bly_fs_call *call)
{
    struct bly_fs_context *context = call->context;

    if (call->queued)
        TAILQ_REMOVE(&context->waiting, call, entry);
    call->queued = false;
    if (call->barrier)
        context->n_readers--;
    call->barrier = false;
    context->n_calls--;
    if (context->n_calls == 0)
        bly_fs_look_soon(context->fs);
}

/* From the loop. May lead back into this file, from the call's owner. */
void bly_fs_finish_sandboxed(struct bly_fs_call *call)
{
    struct bly_fs_context *context = call->context;

    leave_context(call);
    bly_fs_finish(call);
    bly_fs_pump(context);
}

static void finish_soon(struct bly_fs_call *call)
{
    leave_context(call);
    bly_fs_finish_soon(call);
}

void bly_fs_fail_sandboxed(struct bly_fs_call *call, const struct bly_err *err)
{
    bly_fs_reply_deinit(&call->reply);
    bly_fs_reply_init(&call->reply);
    call->reply.err = *err;
    finish_soon(call);
}

/* Everybody who waits for a helper that there will not be. */
void bly_fs_fail_waiting(struct bly_fs_context *context, const struct bly_err *err)
{
    struct bly_fs_call *call = TAILQ_FIRST(&context->waiting), *next;

    for (; call != NULL; call = next) {
        next = TAILQ_NEXT(call, entry);
        if (call->state == BLY_CALL_WAITING)
            bly_fs_fail_sandboxed(call, err);
    }
}

/* ---- helpers: from a plan to their end ---- */

static const struct bly_limits *limits_of(const struct bly_fs_context *context)
{
    return context->fs->config.limits;
}

static uint64_t now_of(const struct bly_fs_context *context)
{
    return uv_now(context->fs->config.loop);
}

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

static bool has_place(const struct bly_fs *fs)
{
    return fs->n_helpers < fs->config.limits->helpers_per_session &&
           *fs->config.n_helpers < fs->config.limits->helpers;
}

static void retire_oldest(struct bly_fs *fs);

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

static void on_writable(void *arg);
static void on_due(void *arg);

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

/* The fingerprint is asked for before every single request: a stale wall is a hole. */
static bool is_stale(struct bly_fs_helper *helper)
{
    return helper->watch != NULL ? bly_watch_check(helper->watch) != 0
                                 : bly_plan_fits(helper->plan, &bly_probe_disk) != 0;
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

void bly_fs_feed_starved(struct bly_fs *fs)
{
    struct bly_fs_context *context;

    LIST_FOREACH(context, &fs->contexts, entry)
    if (context->starved)
        bly_fs_pump(context);
}

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

/* ---- time ---- */

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

static uint64_t deadline_of(const struct bly_fs_helper *helper)
{
    const struct bly_fs_flight *first = &helper->flights[0];
    uint64_t at = helper->first_since + limits_of(helper->context)->helper_op_ms;
    uint64_t since =
        first->cancelled_at > helper->first_since ? first->cancelled_at : helper->first_since;

    return first->call == NULL && since + CANCEL_MS < at ? since + CANCEL_MS : at;
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

/* ---- sending ---- */

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

static int offer(struct bly_fs_helper *helper, struct bly_fs_call *call)
{
    struct bly_fs_context *context = helper->context;
    struct bly_err err;

    if (!helper->ready || helper->blocked || helper->n_flights == BLY_FS_WINDOW)
        return BLY_FS_WAIT;
    /* A large file is read by a pool thread after the helper has opened it. */
    if (is_mutation(&call->request) && context->n_readers > 0)
        return BLY_FS_WAIT;
    if (is_stale(helper)) {
        if (helper->n_flights > 0)
            return BLY_FS_WAIT;
        bly_fs_end_helper(helper);
        (void)bly_fail(&err, BLY_ERR_LIMIT, EAGAIN,
                       "the paths that the sandbox depends on keep changing");
        bly_fs_count_futile(context, &err);
        return 0;
    }
    return bly_fs_send_first(helper, call);
}

static void fail_one(struct bly_fs_call *call, int r)
{
    struct bly_err err;

    (void)bly_fail(&err, BLY_ERR_LIMIT, -r, "cannot ask the sandboxed helper: %s",
                   bly_errno_text(-r));
    bly_fs_fail_sandboxed(call, &err);
}

void bly_fs_pump(struct bly_fs_context *context)
{
    struct bly_fs_call *call;

    if (context->pumping || context->fs->closing)
        return;
    context->pumping = true;
    while ((call = TAILQ_FIRST(&context->waiting)) != NULL && call->state == BLY_CALL_WAITING) {
        int r = BLY_FS_WAIT;

        if (context->helper == NULL)
            bly_fs_want_helper(context);
        else
            r = offer(context->helper, call);
        if (r == BLY_FS_WAIT)
            break;
        if (r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN)
            bly_fs_on_lost(context->helper);
        else if (r < 0)
            fail_one(call, r);
    }
    if (TAILQ_EMPTY(&context->waiting))
        bly_fs_set_starved(context, false);
    context->pumping = false;
}

static void on_writable(void *arg)
{
    struct bly_fs_helper *helper = arg;

    helper->blocked = false;
    bly_fs_pump(helper->context);
}

/* The most data an answer may bring, or the text of an error. */
static size_t most_data(const struct bly_fs_request *request)
{
    size_t most = 0;

    if (request->op == BLY_FS_READ_FILE)
        most = request->max_text_bytes / 4 * 3 < BLY_FS_READ_MAX ? request->max_text_bytes / 4 * 3
                                                                 : BLY_FS_READ_MAX;
    else if (request->op == BLY_FS_READ_DIRECTORY || request->op == BLY_FS_WALK)
        most = BLY_FS_LIST_BYTES;
    return most > BLY_ERR_TEXT_MAX ? most : BLY_ERR_TEXT_MAX;
}

/* ---- before the helper: payloads ---- */

static int write_memory_file(struct bly_fs_call *call)
{
    bly_autofd int fd = memfd_create("payload", MFD_CLOEXEC);
    size_t done = 0;

    if (fd < 0)
        return bly_fail_sys(&call->reply.err, errno, "cannot make a memory file");
    while (done < call->payload_len) {
        ssize_t n = write(fd, call->request.base64 + done, call->payload_len - done);

        if (n < 0 && errno != EINTR)
            return bly_fail_sys(&call->reply.err, errno, "cannot fill a memory file");
        done += n > 0 ? (size_t)n : 0;
    }
    call->payload_fd = bly_take_fd(&fd);
    return 0;
}

/* Pool thread. */
static void prepare(uv_work_t *work)
{
    struct bly_fs_call *call = work->data;

    if (bly_fs_decode(&call->request, &call->payload_len, &call->reply.err) == 0)
        (void)write_memory_file(call);
}

static void on_prepared(uv_work_t *work, int status)
{
    struct bly_fs_call *call = work->data;

    if (status == UV_ECANCELED || atomic_load(&call->cancelled))
        bly_fs_set_cancelled(call);
    if (call->reply.err.kind != BLY_ERR_NONE) {
        bly_fs_finish_sandboxed(call);
        return;
    }
    call->state = BLY_CALL_WAITING;
    bly_fs_pump(call->context);
}

int bly_fs_run_sandboxed(struct bly_fs_call *call)
{
    struct bly_fs_context *context = call->context;
    const struct bly_fs_request *request = &call->request;
    int r = 0;

    call->state = BLY_CALL_WAITING;
    if (request->op == BLY_FS_WRITE_FILE && request->base64_len > SMALL_BASE64) {
        call->state = BLY_CALL_ON_POOL;
        r = uv_queue_work(context->fs->config.loop, &call->work, prepare, on_prepared);
        if (r < 0)
            return r;
    }
    bly_buf_init(&call->pieces, most_data(request));
    context->n_calls++;
    call->queued = true;
    TAILQ_INSERT_TAIL(&context->waiting, call, entry);
    if (call->state == BLY_CALL_ON_POOL)
        return 0;

    if (request->op == BLY_FS_WRITE_FILE)
        r = bly_fs_decode(&call->request, &call->payload_len, &call->reply.err);
    /* The kernel's answer; a longer path does not go through the wire either. */
    if (r == 0 && (strlen(request->path) >= PATH_MAX ||
                   (request->destination_path && strlen(request->destination_path) >= PATH_MAX)))
        r = bly_fail_sys(&call->reply.err, ENAMETOOLONG, "the path is too long");
    if (r == 0 && (request->op == BLY_FS_READ_BLOCK || request->op == BLY_FS_WRITE_BLOCK))
        r = bly_fail(&call->reply.err, BLY_ERR_BUG, EINVAL, "blocks have no sandbox");
    if (r < 0)
        finish_soon(call);
    else
        bly_fs_pump(context);
    return 0;
}

/* ---- after the helper: answers ---- */

static void set_malformed(struct bly_fs_call *call)
{
    call->malformed = true;
    (void)bly_fail(&call->reply.err, BLY_ERR_LIMIT, EBADMSG, "sandboxed helper broke the protocol");
}

/*
 * Pool thread, for looking at a descriptor from a helper can block. Only a regular file that was
 * opened for what was asked may come out of the wall.
 */
static bool is_acceptable(int fd, bool writing, uint64_t *ret_size)
{
    int flags = fcntl(fd, F_GETFL);
    struct stat st;

    if (flags < 0 || (flags & O_PATH) || (flags & O_ACCMODE) != (writing ? O_WRONLY : O_RDONLY))
        return false;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || bly_ops_is_kernel_file(fd))
        return false;
    *ret_size = (uint64_t)st.st_size;
    return true;
}

/* Pool thread. */
static void complete(uv_work_t *work)
{
    struct bly_fs_call *call = work->data;
    struct bly_fs_reply *reply = &call->reply;
    struct bly_view view = {.cancelled = &call->cancelled};
    bly_autofd int fd = -EBADF;
    uint64_t size;

    if (reply->fd >= 0 && !is_acceptable(reply->fd, call->request.replace, &size)) {
        set_malformed(call);
    } else if (call->request.op == BLY_FS_READ_FILE && reply->fd >= 0) {
        fd = bly_take_fd(&reply->fd);
        (void)bly_ops_read_base64(&view, fd, size, call->request.max_text_bytes, &reply->text_mem,
                                  &reply->text_len, &reply->too_long, &reply->err);
    } else if (call->request.op == BLY_FS_READ_FILE &&
               bly_ops_text_of(call->pieces.data, call->pieces.len, &reply->text_mem,
                               &reply->text_len) < 0) {
        (void)bly_fail_sys(&reply->err, ENOMEM, "out of memory");
    }
}

static void on_complete(uv_work_t *work, int status)
{
    struct bly_fs_call *call = work->data;

    if (status == UV_ECANCELED || atomic_load(&call->cancelled))
        bly_fs_set_cancelled(call);
    if (call->reply.err.kind != BLY_ERR_NONE)
        bly_closep(&call->reply.fd);
    /* A helper that passes what it must not is not asked again. */
    if (call->malformed && call->context->helper != NULL && call->context->helper->ready)
        bly_fs_break_off(call->context->helper);
    bly_fs_finish_sandboxed(call);
}

static int complete_on_pool(struct bly_fs_call *call)
{
    call->state = BLY_CALL_ON_POOL;
    return uv_queue_work(call->fs->config.loop, &call->work, complete, on_complete);
}

/* The entries are read again by whoever writes the answer, so they must be whole. */
static bool are_entries(const struct bly_buf *entries, uint64_t n, bool walk)
{
    struct bly_reader reader = bly_reader_of(entries->data, entries->len);
    unsigned known = BLY_FS_ENTRY_FILE | BLY_FS_ENTRY_DIRECTORY | (walk ? BLY_FS_ENTRY_ERROR : 0);
    size_t len;

    if (n > 2 * BLY_FS_DIRECTORY_MAX)
        return false;
    for (uint64_t i = 0; i < n; i++) {
        unsigned flags = bly_get_u8(&reader);

        if ((flags & ~known) || bly_get_bytes(&reader, &len) == NULL || len == 0)
            return false;
        if ((flags & BLY_FS_ENTRY_ERROR) && bly_get_bytes(&reader, &len) == NULL)
            return false;
    }
    return !reader.bad && reader.pos == reader.len;
}

static int take_path(struct bly_fs_call *call)
{
    const struct bly_buf *text = &call->pieces;

    if (text->len == 0 || text->data[0] != '/' || memchr(text->data, '\0', text->len) != NULL)
        return -EBADMSG;
    call->reply.path = strndup((const char *)text->data, text->len);
    return call->reply.path == NULL ? -ENOMEM : 0;
}

static int take_entries(struct bly_fs_call *call, const struct bly_hwire_reply *in)
{
    struct bly_fs_reply *reply = &call->reply;

    if (!are_entries(&call->pieces, in->number, call->request.op == BLY_FS_WALK))
        return -EBADMSG;
    bly_buf_deinit(&reply->entries);
    reply->entries = call->pieces;
    bly_buf_init(&call->pieces, 0);
    reply->n_entries = in->number;
    reply->truncated = in->flags & BLY_HWIRE_TRUNCATED;
    return 0;
}

/* The flags a helper may answer an operation with. */
static unsigned allowed_flags(enum bly_fs_op op)
{
    if (op == BLY_FS_READ_FILE)
        return BLY_HWIRE_FD | BLY_HWIRE_TOO_LONG;
    if (op == BLY_FS_OPEN)
        return BLY_HWIRE_FD;
    if (op == BLY_FS_GET_METADATA)
        return BLY_HWIRE_IS_DIRECTORY | BLY_HWIRE_IS_FILE | BLY_HWIRE_IS_SYMLINK;
    return op == BLY_FS_WALK ? BLY_HWIRE_TRUNCATED : 0;
}

static size_t find_glob(const struct bly_policy *policy, const char *pattern)
{
    size_t i = 0;

    while (i < policy->n_deny_globs && strcmp(policy->deny_globs[i], pattern) != 0)
        i++;
    return i;
}

/*
 * The helper counts the rules and globs of its plan, which knows more than the client wrote: finds
 * the same one in the client's policy. -EBADMSG for one that is not there.
 */
static int take_denial(const struct bly_fs_helper *helper, const struct bly_hwire_reply *in,
                       struct bly_denial *denial)
{
    const struct bly_policy *planned = bly_plan_policy(helper->plan);
    const struct bly_policy *asked = helper->context->policy;
    bool is_glob = in->denied_by == BLY_BY_GLOB;
    size_t n = is_glob ? planned->n_deny_globs : planned->n_rules;
    size_t index = in->denied_index;

    *denial = (struct bly_denial){.access = in->denied_access,
                                  .by = in->denied_by,
                                  .name = in->denied_name,
                                  .rung = (uint8_t)bly_warm_rung(helper->warm)};
    if (in->denied_by == BLY_BY_NOTHING)
        return index == 0 ? 0 : -EBADMSG;
    if (index >= n)
        return -EBADMSG;
    index = is_glob ? find_glob(asked, planned->deny_globs[index])
                    : bly_policy_find(asked, planned->rules[index].path);
    if (index < (is_glob ? asked->n_deny_globs : asked->n_rules))
        denial->index = (uint32_t)index;
    else
        denial->by = BLY_BY_DERIVED, denial->name = 0;
    return 0;
}

static int take_error(struct bly_fs_call *call, const struct bly_fs_helper *helper,
                      const struct bly_hwire_reply *in)
{
    const struct bly_buf *text = &call->pieces;
    struct bly_err *err = &call->reply.err;

    if (in->kind == BLY_ERR_SYSTEM)
        (void)bly_fail_sys(err, in->sys, "%s", call->request.path);
    else
        (void)bly_fail(err, (enum bly_err_kind)in->kind, in->sys, "%.*s", (int)text->len,
                       text->len > 0 ? (const char *)text->data : "");
    return in->denied_access ? take_denial(helper, in, &err->denial) : 0;
}

enum { ON_POOL = 1 }; /* outcome of take_result(): a pool thread completes it */

static int take_result(struct bly_fs_call *call, const struct bly_fs_helper *helper,
                       const struct bly_hwire_reply *in, int *fd)
{
    struct bly_fs_reply *reply = &call->reply;
    enum bly_fs_op op = call->request.op;

    if (in->kind != BLY_ERR_NONE)
        return take_error(call, helper, in);
    if (in->flags & ~allowed_flags(op))
        return -EBADMSG;
    if (op == BLY_FS_READ_FILE && (in->flags & BLY_HWIRE_TOO_LONG)) {
        reply->too_long = in->number > 0 ? in->number : 1;
        return 0;
    }
    if (op == BLY_FS_READ_FILE && *fd < 0 && call->pieces.len <= BLY_HWIRE_PIECE)
        return bly_ops_text_of(call->pieces.data, call->pieces.len, &reply->text_mem,
                               &reply->text_len);
    if (op == BLY_FS_READ_FILE || op == BLY_FS_OPEN) {
        if (op == BLY_FS_OPEN && *fd < 0)
            return -EBADMSG;
        reply->fd = bly_take_fd(fd);
        return complete_on_pool(call) < 0 ? -ENOMEM : ON_POOL;
    }
    if (op == BLY_FS_CANONICALIZE)
        return take_path(call);
    if (op == BLY_FS_READ_DIRECTORY || op == BLY_FS_WALK)
        return take_entries(call, in);
    reply->metadata = (struct bly_fs_metadata){
        .is_directory = in->flags & BLY_HWIRE_IS_DIRECTORY,
        .is_file = in->flags & BLY_HWIRE_IS_FILE,
        .is_symlink = in->flags & BLY_HWIRE_IS_SYMLINK,
        .size = in->number,
        .created_at_ms = in->created_at_ms,
        .modified_at_ms = in->modified_at_ms,
    };
    return 0;
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

/* The answer to the first request is complete. */
static void answer(struct bly_fs_helper *helper, const struct bly_hwire_reply *in, int *fd)
{
    struct bly_fs_context *context = helper->context;
    struct bly_fs_call *call = helper->flights[0].call;
    int r;

    if (call == NULL) {
        bly_fs_drop_first(helper);
        bly_fs_pump(context);
        return;
    }
    r = take_result(call, helper, in, fd);
    if (r == -EBADMSG) {
        bly_fs_break_off(helper);
        return;
    }
    context->n_futile = 0;
    bly_fs_drop_first(helper);
    if (r == ON_POOL) {
        bly_fs_pump(context);
        return;
    }
    if (r < 0) {
        bly_closep(&call->reply.fd);
        (void)bly_fail_sys(&call->reply.err, -r, "out of memory");
    }
    bly_fs_finish_sandboxed(call);
}

void bly_fs_on_packet(void *arg, const void *packet, size_t len, int received)
{
    struct bly_fs_helper *helper = arg;
    struct bly_hwire_reply in;
    bly_autofd int fd = received;
    struct bly_fs_call *call;
    const void *data;

    if (bly_hwire_unpack_reply(packet, len, fd >= 0, &in, &data) < 0 || helper->n_flights == 0 ||
        in.seq != helper->flights[0].seq) {
        bly_fs_break_off(helper);
        return;
    }
    call = helper->flights[0].call;
    if (call != NULL) {
        /* An error in the middle replaces what came before it. */
        if (in.kind != BLY_ERR_NONE)
            call->pieces.len = 0;
        if (bly_buf_add(&call->pieces, data, in.data_len) < 0) {
            bly_fs_break_off(helper);
            return;
        }
    }
    if (!(in.flags & BLY_HWIRE_MORE))
        answer(helper, &in, &fd);
}

/* ---- cancelling ---- */

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

/*
 * Nothing outside of the helper needs the request any more, so its caller is free at once. What the
 * helper does with it is finished within a second, or the helper is killed.
 */
void bly_fs_cancel_sandboxed(struct bly_fs_call *call)
{
    if (call->state == BLY_CALL_SENT)
        bly_fs_orphan(call->context->helper, call);
    bly_fs_set_cancelled(call);
    finish_soon(call);
}
