#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "server/internal.h"

int bly_decode_initialize(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    return bly_proto_decode_initialize(params, &call->params.initialize, err);
}

static int resume(struct bly_call *call, struct bly_err *err)
{
    const struct bly_initialize_params *params = &call->params.initialize;
    struct bly_connection *connection = call->connection;
    int shown = params->resume_session_id_len < BLY_ERR_TEXT_MAX
                    ? (int)params->resume_session_id_len
                    : BLY_ERR_TEXT_MAX;
    struct bly_session *session = bly_session_find(connection->server, params->resume_session_id,
                                                   params->resume_session_id_len);

    if (!session)
        return bly_fail(err, BLY_ERR_GONE, ESRCH, "unknown session id %.*s", shown,
                        params->resume_session_id);
    if (session->connection) {
        /* Its network path may have died silently: one of the next attempts will succeed then. */
        bly_connection_probe(session->connection);
        return bly_fail(err, BLY_ERR_ATTACHED, EBUSY,
                        "session %s is already attached to another connection", session->id);
    }
    bly_log(BLY_LOG_INFO, "session-resumed", "session=%s peer=\"%s\"", session->id,
            bly_conn_peer(connection->conn));
    bly_session_attach(session, connection);
    connection->server->metrics.resumed++;
    return 0;
}

static int start_session(struct bly_call *call, struct bly_err *err)
{
    struct bly_connection *connection = call->connection;
    struct bly_session *session;

    if (connection->state != BLY_CONNECTION_NEW)
        return bly_fail(err, BLY_ERR_INVALID, EPROTO,
                        "initialize may only be sent once per connection");
    if (connection->server->closing)
        return bly_fail(err, BLY_ERR_LIMIT, ESHUTDOWN, "server is shutting down");
    if (call->params.initialize.resume_session_id)
        return resume(call, err);
    if (connection->server->draining)
        return bly_fail(err, BLY_ERR_LIMIT, ESHUTDOWN,
                        "server is draining: sessions can be resumed, but none can be begun");
    return bly_session_new(connection->server, connection, &session, err);
}

/* As things are now: which walls stand comes to be known after the start. */
static struct bly_environment environment_of(const struct bly_server *server)
{
    struct bly_environment environment = *server->config.environment;

    environment.watches_missing = server->missing_watcher != NULL;
    return environment;
}

void bly_run_initialize(struct bly_call *call)
{
    struct bly_connection *connection = call->connection;
    struct bly_environment environment = environment_of(connection->server);
    struct bly_err err;
    struct bly_buf buf;

    if (start_session(call, &err) < 0) {
        bly_call_fail(call, &err);
    } else {
        connection->state = BLY_CONNECTION_INITIALIZED;
        bly_call_begin_result(call, &buf);
        (void)bly_proto_encode_initialize(connection->session->id, &environment, &buf);
        bly_call_end_result(call, &buf);
    }
    bly_call_done(call);
}

int bly_decode_nothing(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    (void)call;
    return bly_proto_decode_nothing(params, err);
}

void bly_run_environment_info(struct bly_call *call)
{
    struct bly_environment environment = environment_of(call->connection->server);
    struct bly_buf buf;

    bly_call_begin_result(call, &buf);
    (void)bly_proto_encode_environment(&environment, &buf);
    bly_call_end_result(call, &buf);
    bly_call_done(call);
}

int bly_decode_config_read(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    return bly_proto_decode_config_read(params, &call->params.config, err);
}

int bly_admit_config_read(struct bly_call *call, struct bly_err *err)
{
    const char *refusal = call->params.config.refusal;

    return refusal ? bly_fail(err, BLY_ERR_PARAMS, EINVAL, "%s", refusal) : 0;
}

void bly_run_config_read(struct bly_call *call)
{
    struct bly_environment environment = environment_of(call->connection->server);
    struct bly_buf buf;

    bly_call_begin_result(call, &buf);
    (void)bly_proto_encode_config(&environment, &buf);
    bly_call_end_result(call, &buf);
    bly_call_done(call);
}

void bly_run_environment_status(struct bly_call *call)
{
    bly_call_result(call, "{\"status\":\"ready\"}");
    bly_call_done(call);
}
