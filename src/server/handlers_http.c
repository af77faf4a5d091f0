/*
 * http/request. An exchange is one such request, from the call that asks for it to the last byte of
 * its response; with `streamResponse` it outlives its call. It belongs to the connection.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "server/http_client.h"
#include "server/internal.h"

enum { NOTIFICATION_MAX = 256 << 20 }; /* a request id may be as long as a message */

struct bly_exchange {
    struct bly_connection *connection;
    LIST_ENTRY(bly_exchange) link;
    struct bly_call *call;           /* NULL once answered */
    struct bly_http_request request; /* until it has started; borrows the body from the call */
    bool stream;
    uint64_t seq;                /* of the latest notification */
    struct bly_buf answer, body; /* not of streams: up to the body, and the body */
    size_t id_len;
    char id[];
};

/* ---- life ----------------------------------------------------------------------------------- */

static void exchange_free(struct bly_exchange *exchange)
{
    if (exchange->call)
        exchange->call->exchange = NULL;
    LIST_REMOVE(exchange, link);
    exchange->connection->n_exchanges--;
    bly_http_request_deinit(&exchange->request);
    bly_buf_deinit(&exchange->answer);
    bly_buf_deinit(&exchange->body);
    free(exchange);
}

static struct bly_exchange *find_stream(const struct bly_connection *connection,
                                        const struct bly_http_params *params)
{
    struct bly_exchange *exchange;

    LIST_FOREACH(exchange, &connection->exchanges, link)
    if (exchange->stream && exchange->id_len == params->request_id_len &&
        memcmp(exchange->id, params->request_id, exchange->id_len) == 0)
        return exchange;
    return NULL;
}

/* What of the server's limits the parameters do not see. */
static int check_room(const struct bly_connection *connection, const struct bly_http_params *params,
                      struct bly_err *err)
{
    uint64_t limit = connection->server->config.limits->http_requests;
    size_t len = params->request_id_len;

    if (params->stream && find_stream(connection, params))
        return bly_fail(err, BLY_ERR_PARAMS, EEXIST,
                        "http/request streamResponse requestId `%.*s` is already active",
                        len < BLY_ERR_TEXT_MAX ? (int)len : BLY_ERR_TEXT_MAX, params->request_id);
    if (connection->n_exchanges >= limit)
        return bly_fail(err, BLY_ERR_LIMIT, EAGAIN,
                        "at most %" PRIu64 " http requests may be under way per connection", limit);
    return 0;
}

static int exchange_new(struct bly_call *call, struct bly_http_request *request,
                        struct bly_err *err)
{
    const struct bly_http_params *params = &call->params.http;
    struct bly_connection *connection = call->connection;
    struct bly_exchange *exchange = calloc(1, sizeof(*exchange) + params->request_id_len);

    if (!exchange)
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    exchange->connection = connection;
    exchange->call = call;
    exchange->stream = params->stream;
    exchange->request = *request;
    *request = (struct bly_http_request){0};
    bly_buf_init(&exchange->body, connection->server->config.limits->http_body_bytes);
    exchange->id_len = params->request_id_len;
    if (exchange->id_len)
        memcpy(exchange->id, params->request_id, exchange->id_len);
    LIST_INSERT_HEAD(&connection->exchanges, exchange, link);
    connection->n_exchanges++;
    call->exchange = exchange;
    return 0;
}

/* ---- answers -------------------------------------------------------------------------------- */

static void fail(struct bly_exchange *exchange, const struct bly_err *err)
{
    struct bly_call *call = exchange->call;

    exchange_free(exchange);
    bly_call_fail(call, err);
    bly_call_done(call);
}

static void notify(struct bly_exchange *exchange, const uint8_t *data, size_t n, bool done,
                   const char *error)
{
    struct bly_buf buf;

    bly_buf_init(&buf, NOTIFICATION_MAX);
    (void)bly_proto_add_body_delta(&buf, exchange->id, exchange->id_len, ++exchange->seq, data, n,
                                   done, error);
    bly_connection_send(exchange->connection, &buf);
    bly_buf_deinit(&buf);
}

/* A stream is answered with its head, everything else when its body is there. */
static void on_head(void *arg, unsigned status, const struct bly_http_field *fields,
                    size_t n_fields)
{
    struct bly_exchange *exchange = arg;
    struct bly_call *call = exchange->call;

    bly_call_begin_result(call, &exchange->answer);
    (void)bly_proto_begin_http(status, fields, n_fields, &exchange->answer);
    if (!exchange->stream)
        return;
    (void)bly_proto_end_http("", 0, &exchange->answer);
    bly_call_end_result(call, &exchange->answer);
    exchange->call = NULL;
    call->exchange = NULL;
    bly_call_done(call);
}

static int pass_on(struct bly_exchange *exchange, const uint8_t *data, size_t len)
{
    const struct bly_connection *connection = exchange->connection;

    /* A client that does not read stops its streams, as it stops its processes. */
    if (connection->congested || connection->closing)
        return BLY_HTTP_LATER;
    while (len > 0) {
        size_t n = len < BLY_HTTP_DELTA_MAX ? len : BLY_HTTP_DELTA_MAX;

        notify(exchange, data, n, false, NULL);
        data += n;
        len -= n;
    }
    return 0;
}

static int on_body(void *arg, const uint8_t *data, size_t len, struct bly_err *err)
{
    struct bly_exchange *exchange = arg;
    int r;

    if (exchange->stream)
        return pass_on(exchange, data, len);
    r = bly_buf_add(&exchange->body, data, len);
    if (r == -EMSGSIZE)
        return bly_fail(err, BLY_ERR_LIMIT, EMSGSIZE,
                        "it has more than %zu bytes, the limit without streamResponse",
                        exchange->body.max);
    return r < 0 ? bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory") : 0;
}

static void answer(struct bly_exchange *exchange)
{
    struct bly_call *call = exchange->call;

    (void)bly_proto_end_http(exchange->body.data, exchange->body.len, &exchange->answer);
    bly_call_end_result(call, &exchange->answer);
    exchange_free(exchange);
    bly_call_done(call);
}

static void on_done(void *arg, const struct bly_err *err)
{
    struct bly_exchange *exchange = arg;
    struct bly_err why;

    if (!exchange->call) {
        notify(exchange, NULL, 0, true, err ? err->text : NULL);
        exchange_free(exchange);
        return;
    }
    if (!err) {
        answer(exchange);
        return;
    }
    why = *err;
    if (exchange->answer.len > 0)
        (void)bly_because(&why, -EIO, "failed to read http/request response body");
    fail(exchange, &why);
}

/* ---- the method ----------------------------------------------------------------------------- */

int bly_decode_http(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    return bly_proto_decode_http(params, &call->params.http, err);
}

int bly_admit_http(struct bly_call *call, struct bly_err *err)
{
    const struct bly_http_config *config = call->connection->server->config.http;
    const struct bly_http_params *params = &call->params.http;
    struct bly_http_request request;
    int r = bly_http_prepare(params, config->variables, config->n_variables, &request, err);

    if (r < 0)
        return r;
    r = check_room(call->connection, params, err);
    if (r == 0)
        r = exchange_new(call, &request, err);
    bly_http_request_deinit(&request);
    return r;
}

static int need_client(struct bly_connection *connection)
{
    const struct bly_server_config *server = &connection->server->config;
    struct bly_http_client_config config = {
        .loop = server->loop,
        .library = server->http->library,
        .ca_file = server->http->ca_file,
        .connect_ms = server->limits->http_connect_ms,
    };

    return connection->http ? 0 : bly_http_client_new(&config, &connection->http);
}

static int start(struct bly_exchange *exchange, struct bly_err *err)
{
    static const struct bly_http_events events = {
        .head = on_head, .body = on_body, .done = on_done};
    struct bly_connection *connection = exchange->connection;
    uint64_t limit = connection->server->config.limits->http_request_ms;
    struct bly_http_request *request = &exchange->request;

    if (!exchange->stream && request->timeout_ms > limit)
        request->timeout_ms = limit;
    if (need_client(connection) < 0)
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    return bly_http_start(connection->http, request, &events, exchange, err);
}

void bly_run_http(struct bly_call *call)
{
    struct bly_exchange *exchange = call->exchange;
    const char *host = bly_http_url_host(exchange->request.url);
    struct bly_err err;

    bly_log(BLY_LOG_INFO, "http-request", "session=%s method=%s host=\"%.*s\"", call->session->id,
            exchange->request.method, (int)strcspn(host, "/"), host);
    if (start(exchange, &err) < 0)
        fail(exchange, &err);
    else
        bly_http_request_deinit(&exchange->request);
}

void bly_deinit_http(struct bly_call *call)
{
    bly_http_params_deinit(&call->params.http);
}

/* ---- the connection ------------------------------------------------------------------------- */

void bly_exchanges_resume(struct bly_connection *connection)
{
    if (connection->http)
        bly_http_client_resume(connection->http);
}

void bly_exchanges_end(struct bly_connection *connection)
{
    struct bly_exchange *exchange;

    bly_http_client_close(connection->http);
    connection->http = NULL;
    while ((exchange = LIST_FIRST(&connection->exchanges))) {
        struct bly_call *call = exchange->call;

        exchange_free(exchange);
        if (call)
            bly_call_done(call);
    }
}
