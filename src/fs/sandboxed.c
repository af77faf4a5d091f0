/*
 * Sandboxed requests. Each policy has a context: a queue, and at most one warm helper that works it
 * off in order. A helper is used only while its plan still fits the disk; requests in flight to an
 * outdated one are finished first. Whatever goes wrong is an answer to the requests that waited for
 * it; nothing is ever run outside of the wall instead.
 */
#include <limits.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fs/fs_internal.h"
#include "fs/helper/wire.h"
#include "fs/oneshot.h"
#include "fs/sandboxed_internal.h"
#include "fs/watch.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"

enum {
    SMALL_BASE64 = BLY_HWIRE_INLINE / 3 * 4, /* decoded on the loop; more goes to a pool thread */
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

/* ---- sending ---- */

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

/* The fingerprint is asked for before every single request: a stale wall is a hole. */
static bool is_stale(struct bly_fs_helper *helper)
{
    return helper->watch != NULL ? bly_watch_check(helper->watch) != 0
                                 : bly_plan_fits(helper->plan, &bly_probe_disk) != 0;
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

/* ---- cancelling ---- */

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
