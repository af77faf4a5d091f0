#include "fs/fs.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fs/fs_internal.h"
#include "fs/helper/wire.h"

enum { STARVED_MS = 20 /* between two tries when other sessions hold all the helpers */ };

static void on_timer_closed(uv_handle_t *handle)
{
    struct bly_fs *fs = handle->data;

    if (fs->closed != NULL)
        fs->closed(fs->closed_arg);
    bly_buf_deinit(&fs->key);
    free(fs->packet);
    free(fs);
}

static void end_close(struct bly_fs *fs)
{
    if (fs->timer_closed || !LIST_EMPTY(&fs->calls) || !LIST_EMPTY(&fs->contexts))
        return;
    fs->timer_closed = true;
    uv_close((uv_handle_t *)&fs->soon, on_timer_closed);
}

static void run_finished(struct bly_fs *fs)
{
    struct bly_fs_calls now = TAILQ_HEAD_INITIALIZER(now);
    struct bly_fs_call *call;

    /* Their owners may submit what is finished at once again: that is for the next turn. */
    TAILQ_CONCAT(&now, &fs->finished, entry);
    while ((call = TAILQ_FIRST(&now)) != NULL) {
        TAILQ_REMOVE(&now, call, entry);
        bly_fs_finish(call);
    }
}

/*
 * libuv runs a timer that was started again with 0 in the same turn, for ever if need be: so what
 * comes up in here waits for a millisecond.
 */
static void on_soon(uv_timer_t *timer)
{
    struct bly_fs *fs = timer->data;

    fs->looking = true;
    fs->look_again = false;
    run_finished(fs);
    if (fs->n_starved > 0)
        bly_fs_feed_starved(fs);
    (void)bly_fs_sweep_contexts(fs);
    fs->looking = false;

    if (fs->closing)
        end_close(fs);
    if (fs->timer_closed)
        return;
    if (fs->look_again)
        (void)uv_timer_start(timer, on_soon, 1, 0);
    else if (fs->n_starved > 0)
        (void)uv_timer_start(timer, on_soon, STARVED_MS, 0);
}

void bly_fs_look_soon(struct bly_fs *fs)
{
    if (fs->looking)
        fs->look_again = true;
    else if (!fs->timer_closed &&
             (!uv_is_active((uv_handle_t *)&fs->soon) || uv_timer_get_due_in(&fs->soon) > 0))
        (void)uv_timer_start(&fs->soon, on_soon, 0, 0);
}

void bly_fs_finish_soon(struct bly_fs_call *call)
{
    call->state = BLY_CALL_FINISHED;
    TAILQ_INSERT_TAIL(&call->fs->finished, call, entry);
    bly_fs_look_soon(call->fs);
}

void bly_fs_finish(struct bly_fs_call *call)
{
    struct bly_fs *fs = call->fs;

    call->state = BLY_CALL_FINISHED;
    LIST_REMOVE(call, in_fs);
    call->done(call->arg, &call->reply);
    bly_fs_reply_deinit(&call->reply);
    bly_buf_deinit(&call->pieces);
    bly_close(call->payload_fd);
    free(call);
    if (fs->closing)
        bly_fs_look_soon(fs);
}

void bly_fs_set_cancelled(struct bly_fs_call *call)
{
    bly_fs_reply_deinit(&call->reply);
    bly_fs_reply_init(&call->reply);
    (void)bly_fail_sys(&call->reply.err, ECANCELED, "the client is gone");
}

int bly_fs_new(const struct bly_fs_config *config, struct bly_fs **ret_fs)
{
    bly_autofree struct bly_fs *fs = calloc(1, sizeof *fs);
    int r;

    if (fs == NULL)
        return -ENOMEM;
    fs->config = *config;
    LIST_INIT(&fs->contexts);
    LIST_INIT(&fs->calls);
    TAILQ_INIT(&fs->finished);
    bly_buf_init(&fs->key, BLY_FS_KEY_BYTES);
    fs->soon.data = fs;
    r = uv_timer_init(config->loop, &fs->soon);
    if (r < 0)
        return r;
    *ret_fs = bly_take_ptr(&fs);
    return 0;
}

void bly_fs_close(struct bly_fs *fs, void (*done)(void *arg), void *arg)
{
    struct bly_fs_call *call;

    fs->closing = true;
    fs->closed = done;
    fs->closed_arg = arg;
    LIST_FOREACH(call, &fs->calls, in_fs)
    bly_fs_cancel(call);
    bly_fs_close_contexts(fs);
    bly_fs_look_soon(fs);
}

static struct bly_fs_call *new_call(struct bly_fs *fs, struct bly_fs_context *context,
                                    const struct bly_fs_request *request, bly_fs_done done,
                                    void *arg)
{
    struct bly_fs_call *call = malloc(sizeof *call); /* large: not zeroed on the hot path */

    if (call == NULL)
        return NULL;
    call->fs = fs;
    call->context = context;
    call->request = *request;
    call->done = done;
    call->arg = arg;
    atomic_init(&call->cancelled, false);
    call->work.data = call;
    call->queued = false;
    call->barrier = false;
    call->malformed = false;
    call->payload_fd = -EBADF;
    call->payload_len = 0;
    bly_fs_reply_init(&call->reply);
    bly_buf_init(&call->pieces, BLY_FS_READ_MAX);
    return call;
}

int bly_fs_submit(struct bly_fs *fs, struct bly_fs_context *context,
                  const struct bly_fs_request *request, bly_fs_done done, void *arg,
                  struct bly_fs_call **ret_call)
{
    struct bly_fs_call *call = new_call(fs, context, request, done, arg);
    int r;

    if (call == NULL)
        return -ENOMEM;
    *ret_call = call;
    LIST_INSERT_HEAD(&fs->calls, call, in_fs);
    if (fs->closing) {
        bly_fs_set_cancelled(call);
        bly_fs_finish_soon(call);
        return 0;
    }
    r = context == NULL ? bly_fs_run_direct(call) : bly_fs_run_sandboxed(call);
    if (r < 0) {
        LIST_REMOVE(call, in_fs);
        free(call);
    }
    return r;
}

void bly_fs_cancel(struct bly_fs_call *call)
{
    atomic_store_explicit(&call->cancelled, true, memory_order_relaxed);
    if (call->state == BLY_CALL_FINISHED)
        return;
    /* Not begun yet: it comes back at once. Else the thread sees the flag at its next look. */
    if (call->state == BLY_CALL_ON_POOL)
        (void)uv_cancel((uv_req_t *)&call->work);
    else
        bly_fs_cancel_sandboxed(call);
}
