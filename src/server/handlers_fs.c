#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/limits.h"
#include "sandbox/policy/policy.h"
#include "server/internal.h"

enum { TEXT_MESSAGE_MAX = 256 << 20 };

int bly_decode_fs(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    struct bly_policy_env env = bly_connection_policy_env(call->connection);

    return bly_proto_decode_fs(call->method->op, params, &env, &call->params.fs, err);
}

void bly_deinit_fs(struct bly_call *call)
{
    bly_fs_params_deinit(&call->params.fs);
}

static bool is_block(const struct bly_call *call)
{
    return call->method->op == BLY_FS_READ_BLOCK || call->method->op == BLY_FS_WRITE_BLOCK;
}

/*
 * Handle names are taken and looked up on arrival, so that an fs/close, which never waits, does
 * not close a file under the requests before it.
 */
int bly_admit_fs(struct bly_call *call, struct bly_err *err)
{
    const struct bly_fs_params *params = &call->params.fs;
    struct bly_handle *handle = NULL;

    if (call->method->op == BLY_FS_OPEN) {
        /* The name may come free before its turn: then it is tried again, see open_handle(). */
        (void)bly_handle_reserve(call->connection, params->handle_id, params->handle_id_len,
                                 &handle, err);
    } else if (is_block(call)) {
        handle = bly_handle_find(call->connection, params->handle_id, params->handle_id_len);
    }
    if (handle)
        call->handle = bly_handle_ref(handle);
    return 0;
}

int bly_fs_lane(struct bly_call *call)
{
    struct bly_policy *policy;

    call->context = NULL;
    if (call->method->run != bly_run_fs || is_block(call))
        return 0;
    policy = call->params.fs.policy;
    if (!policy || !policy->wall)
        return 0;
    return bly_fs_context(call->session->fs, policy, &call->context);
}

/* ---- answers -------------------------------------------------------------------------------- */

/* Copies: for a head (the request's id) that does not fit in front of the text. */
static void send_text_copied(struct bly_call *call, const struct bly_fs_reply *reply,
                             const struct bly_buf *head, const struct bly_buf *tail)
{
    struct bly_buf buf;

    bly_buf_init(&buf, TEXT_MESSAGE_MAX);
    (void)bly_buf_add(&buf, head->data, head->len);
    if (reply->text_len)
        (void)bly_buf_add(&buf, reply->text_mem + BLY_FS_TEXT_HEAD, reply->text_len);
    (void)bly_buf_add(&buf, tail->data, tail->len);
    bly_connection_send(call->connection, &buf);
    bly_buf_deinit(&buf);
}

static void send_text(struct bly_call *call, struct bly_fs_reply *reply, const struct bly_buf *head,
                      const struct bly_buf *tail)
{
    uint64_t total = head->len + reply->text_len + tail->len + reply->too_long;
    size_t off;
    char *mem;

    if (reply->too_long || total > call->connection->server->config.limits->reply_bytes) {
        bly_call_too_long(call, total);
        return;
    }
    if (!reply->text_mem || head->len > BLY_FS_TEXT_HEAD || tail->len > BLY_FS_TEXT_TAIL) {
        send_text_copied(call, reply, head, tail);
        return;
    }
    mem = bly_take_ptr(&reply->text_mem);
    off = BLY_FS_TEXT_HEAD - head->len;
    memcpy(mem + off, head->data, head->len);
    memcpy(mem + BLY_FS_TEXT_HEAD + reply->text_len, tail->data, tail->len);
    bly_connection_send_mem(call->connection, mem, off, total);
}

static void answer_text(struct bly_call *call, struct bly_fs_reply *reply)
{
    bly_autobuf struct bly_buf head, tail;

    bly_buf_init(&head, TEXT_MESSAGE_MAX);
    bly_buf_init(&tail, TEXT_MESSAGE_MAX);
    (void)bly_proto_encode_text_head(call->method->op, &call->message.id, &head);
    (void)bly_proto_encode_text_tail(call->method->op, reply, &tail);
    if (head.error || tail.error) {
        struct bly_err err;

        (void)bly_fail(&err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
        bly_call_fail(call, &err);
        return;
    }
    send_text(call, reply, &head, &tail);
}

static void answer_encoded(struct bly_call *call, const struct bly_fs_reply *reply)
{
    struct bly_buf buf;

    bly_call_begin_result(call, &buf);
    (void)bly_proto_encode_fs(call->method->op, &call->params.fs, reply, &buf);
    bly_call_end_result(call, &buf);
}

static void on_done(void *arg, struct bly_fs_reply *reply)
{
    struct bly_call *call = arg;
    enum bly_fs_op op = call->method->op;

    call->fs_call = NULL;
    if (op == BLY_FS_OPEN && call->handle) {
        /* After an fs/close in the meantime the file is closed with the call's reference. */
        call->handle->fd = bly_take_fd(&reply->fd);
        if (call->handle->fd < 0)
            bly_handle_forget(call->connection, call->handle);
    }
    if (reply->err.kind != BLY_ERR_NONE) {
        /* Upstream's rule: a handle dies with a read error and survives a write error. */
        if (op == BLY_FS_READ_BLOCK)
            bly_handle_forget(call->connection, call->handle);
        bly_call_fail(call, &reply->err);
    } else if (op == BLY_FS_READ_FILE || op == BLY_FS_READ_BLOCK) {
        answer_text(call, reply);
    } else {
        answer_encoded(call, reply);
    }
    bly_call_done(call);
}

/* ---- running -------------------------------------------------------------------------------- */

static int open_handle(struct bly_call *call, struct bly_err *err)
{
    const struct bly_fs_params *params = &call->params.fs;
    struct bly_handle *handle;
    int r;

    if (call->handle)
        return 0;
    r = bly_handle_reserve(call->connection, params->handle_id, params->handle_id_len, &handle,
                           err);
    if (r < 0)
        return r;
    call->handle = bly_handle_ref(handle);
    return 0;
}

static int use_handle(struct bly_call *call, struct bly_err *err)
{
    struct bly_fs_params *params = &call->params.fs;
    struct bly_handle *handle = call->handle;

    /* The open it was waiting for has failed; another one before it may have succeeded. */
    if (!handle || handle->fd < 0)
        handle = bly_handle_find(call->connection, params->handle_id, params->handle_id_len);
    if (!handle || handle->fd < 0)
        return bly_fail(err, BLY_ERR_NOT_FOUND, EBADF, "unknown file handle `%.*s`",
                        (int)params->handle_id_len, params->handle_id);
    if (handle != call->handle) {
        bly_handle_unref(call->handle);
        call->handle = bly_handle_ref(handle);
    }
    params->request.fd = handle->fd;
    return 0;
}

static int submit(struct bly_call *call, struct bly_err *err)
{
    struct bly_fs_request *request = &call->params.fs.request;
    uint64_t reply_bytes = call->connection->server->config.limits->reply_bytes;
    int r = 0;

    if (request->op == BLY_FS_OPEN)
        r = open_handle(call, err);
    else if (is_block(call))
        r = use_handle(call, err);
    if (r < 0)
        return r;
    request->max_text_bytes = reply_bytes - BLY_FS_TEXT_TAIL;
    r = bly_fs_submit(call->session->fs, call->context, request, on_done, call, &call->fs_call);
    if (r < 0)
        return bly_fail(err, BLY_ERR_LIMIT, -r, "%s", bly_errno_text(-r));
    return 0;
}

void bly_run_fs(struct bly_call *call)
{
    struct bly_err err;

    bly_err_clear(&err);
    if (submit(call, &err) == 0)
        return;
    if (call->method->op == BLY_FS_OPEN && call->handle)
        bly_handle_forget(call->connection, call->handle);
    bly_call_fail(call, &err);
    bly_call_done(call);
}

int bly_decode_close(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    return bly_proto_decode_close(params, &call->params.fs, err);
}

void bly_run_close(struct bly_call *call)
{
    const struct bly_fs_params *params = &call->params.fs;
    struct bly_handle *handle =
        bly_handle_find(call->connection, params->handle_id, params->handle_id_len);

    if (handle)
        bly_handle_forget(call->connection, handle);
    bly_call_result(call, "{}");
    bly_call_done(call);
}
