/* Requests without a sandbox: the operation runs on a thread of libuv's pool. */
#include "base/err.h"
#include "fs/fs_internal.h"
#include "fs/oneshot.h"

/* Pool thread. */
static void run(uv_work_t *work)
{
    struct bly_fs_call *call = work->data;
    struct bly_view view = {.cancelled = &call->cancelled};

    bly_fs_run(&view, &call->request, &call->reply);
}

static void on_run(uv_work_t *work, int status)
{
    struct bly_fs_call *call = work->data;

    if (status == UV_ECANCELED)
        bly_fs_set_cancelled(call);
    bly_fs_finish(call);
}

int bly_fs_run_direct(struct bly_fs_call *call)
{
    call->state = BLY_CALL_ON_POOL;
    return uv_queue_work(call->fs->config.loop, &call->work, run, on_run);
}
