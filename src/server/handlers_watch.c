#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"
#include "server/internal.h"

int bly_decode_watch(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    return bly_proto_decode_watch(params, &call->params.watch, err);
}

void bly_deinit_watch(struct bly_call *call)
{
    bly_watch_params_deinit(&call->params.watch);
}

static void answer(struct bly_call *call, bool watching)
{
    bly_call_result(call, watching ? "{\"watching\":true}" : "{\"watching\":false}");
    bly_call_done(call);
}

static void on_ready(void *arg, bool watching)
{
    struct bly_connection *connection = arg;
    struct bly_call *call = connection->watch_call;

    connection->watch_call = NULL;
    if (!watching)
        connection->watch = bly_missing_watch_stop(connection->watch);
    answer(call, watching);
}

static void on_changed(void *arg)
{
    struct bly_connection *connection = arg;
    struct bly_buf buf;

    connection->watch = bly_missing_watch_stop(connection->watch);
    bly_buf_init(&buf, 128);
    (void)bly_proto_add_missing_changed(&buf, connection->watch_id);
    bly_connection_send(connection, &buf);
    bly_buf_deinit(&buf);
}

void bly_connection_unwatch(struct bly_connection *connection)
{
    struct bly_call *call = connection->watch_call;

    connection->watch = bly_missing_watch_stop(connection->watch);
    connection->watch_call = NULL;
    if (call)
        answer(call, false);
}

/* An id that is not larger than the latest is out of date, and leaves the watch in place alone. */
void bly_run_watch(struct bly_call *call)
{
    static const struct bly_missing_watch_ops ops = {.ready = on_ready, .changed = on_changed};
    struct bly_connection *connection = call->connection;
    const struct bly_watch_params *params = &call->params.watch;
    struct bly_missing_watcher *watcher = connection->server->missing_watcher;
    const struct bly_missing_watch_request request = {
        .missing = params->missing,
        .n_missing = params->n_missing,
        .present = params->present,
    };

    if (params->watch_id <= connection->watch_id) {
        answer(call, false);
        return;
    }
    connection->watch_id = params->watch_id;
    bly_connection_unwatch(connection);
    if (params->hopeless || !watcher ||
        bly_missing_watch_start(watcher, &request, &ops, connection, &connection->watch) < 0)
        answer(call, false);
    else
        connection->watch_call = call;
}
