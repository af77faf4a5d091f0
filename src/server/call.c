#include <stdlib.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "server/internal.h"

/* Answers are measured once they are complete; this only bounds what that may cost. */
enum { ANSWER_MAX = 256 << 20 };

void bly_call_enqueue(struct bly_call *call, struct bly_call_queue *queue)
{
    TAILQ_INSERT_TAIL(queue, call, task_link);
    call->queue = queue;
}

void bly_call_dequeue(struct bly_call *call)
{
    if (!call->queue)
        return;
    TAILQ_REMOVE(call->queue, call, task_link);
    call->queue = NULL;
}

static const char *session_id(const struct bly_call *call)
{
    return call->session ? call->session->id : "none";
}

/* The `data` of the error, "" when there is none. A file request only. */
static void explain(const struct bly_call *call, const struct bly_err *err, struct bly_buf *data)
{
    if (err->denial.access != BLY_DENIED_NOTHING && call->method->run == bly_run_fs)
        (void)bly_proto_encode_denial(call->method->op, &call->params.fs, err, data);
    if (data->error)
        data->len = 0;
}

static void note_failure(struct bly_call *call, const struct bly_err *err,
                         const struct bly_buf *data)
{
    call->failed = true;
    if (err->kind == BLY_ERR_DENIED || data->len > 0)
        call->connection->server->metrics.denied_files++;
    if (data->len > 0)
        bly_log(BLY_LOG_INFO, "denied", "session=%s method=%s data=%.*s", session_id(call),
                call->method->name, (int)data->len, (const char *)data->data);
    else if (err->kind == BLY_ERR_DENIED)
        bly_log(BLY_LOG_INFO, "denied", "session=%s method=%s reason=\"%s\"", session_id(call),
                call->method->name, err->text);
    else if (err->kind == BLY_ERR_BUG)
        bly_log(BLY_LOG_ERROR, "bug", "session=%s method=%s reason=\"%s\"", session_id(call),
                call->method->name, err->text);
}

void bly_call_fail(struct bly_call *call, const struct bly_err *err)
{
    bly_autobuf struct bly_buf data;
    struct bly_buf buf;

    bly_buf_init(&data, ANSWER_MAX);
    explain(call, err, &data);
    note_failure(call, err, &data);
    bly_buf_init(&buf, ANSWER_MAX);
    (void)bly_rpc_add_failure_with(&buf, &call->message.id, err, data.data, data.len);
    bly_connection_send(call->connection, &buf);
    bly_buf_deinit(&buf);
}

void bly_call_too_long(struct bly_call *call, uint64_t bytes)
{
    struct bly_buf buf;

    call->failed = true;
    bly_buf_init(&buf, ANSWER_MAX);
    (void)bly_rpc_add_too_long(&buf, &call->message.id, bytes,
                               call->connection->server->config.limits->reply_bytes);
    bly_connection_send(call->connection, &buf);
    bly_buf_deinit(&buf);
}

void bly_call_begin_result(struct bly_call *call, struct bly_buf *buf)
{
    bly_buf_init(buf, ANSWER_MAX);
    (void)bly_rpc_begin_result(buf, &call->message.id);
}

void bly_call_end_result(struct bly_call *call, struct bly_buf *buf)
{
    struct bly_err err;

    (void)bly_rpc_end(buf);
    if (buf->error == -ENOMEM) {
        (void)bly_fail(&err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
        bly_call_fail(call, &err);
    } else if (buf->error) {
        bly_call_too_long(call, buf->max);
    } else if (buf->len > call->connection->server->config.limits->reply_bytes) {
        bly_call_too_long(call, buf->len);
    } else {
        bly_connection_send(call->connection, buf);
    }
    bly_buf_deinit(buf);
}

void bly_call_result(struct bly_call *call, const char *json)
{
    struct bly_buf buf;

    bly_call_begin_result(call, &buf);
    (void)bly_buf_add_str(&buf, json);
    bly_call_end_result(call, &buf);
}

static void call_free(struct bly_call *call)
{
    bly_rpc_message_deinit(&call->message);
    free(call->text);
    free(call);
}

static void on_timer_closed(uv_handle_t *handle)
{
    call_free(handle->data);
}

static void leave_connection(struct bly_call *call)
{
    struct bly_connection *connection = call->connection;

    TAILQ_REMOVE(&connection->calls, call, link);
    if (call->parked)
        connection->n_parked--;
    else
        connection->n_calls--;
    connection->call_bytes -= call->text_len;
    bly_order_done(&connection->order, &call->order);
}

/* Without an error and without a socket it may have worked, but nobody has learned of it. */
static void count_end(const struct bly_call *call)
{
    struct bly_connection *connection = call->connection;
    enum bly_result result = call->failed       ? BLY_RESULT_ERROR
                             : connection->conn ? BLY_RESULT_SUCCESS
                                                : BLY_RESULT_DISCONNECTED;

    bly_metrics_request(&connection->server->metrics, (size_t)(call->method - bly_methods), result,
                        uv_hrtime() - call->since_ns);
}

void bly_call_done(struct bly_call *call)
{
    struct bly_connection *connection = call->connection;

    count_end(call);
    bly_call_dequeue(call);
    leave_connection(call);
    if (call->method->deinit)
        call->method->deinit(call);
    call->handle = bly_handle_unref(call->handle);
    call->session = bly_session_unref(call->session);
    if (call->has_timer)
        uv_close((uv_handle_t *)&call->timer, on_timer_closed);
    else
        call_free(call);
    bly_connection_pump(connection); /* may free it */
}
