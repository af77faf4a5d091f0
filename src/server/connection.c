#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "server/internal.h"

enum { ANSWER_MAX = 256 << 20 }; /* an id may be as long as a message */

int bly_connection_new(struct bly_server *server, struct bly_conn *conn,
                       struct bly_connection **ret_connection)
{
    struct bly_connection *connection = calloc(1, sizeof(*connection));

    if (!connection)
        return -ENOMEM;
    connection->server = server;
    connection->conn = conn;
    connection->is_stdio = bly_conn_is_stdio(conn);
    if (connection->is_stdio)
        server->metrics.stdios_total++;
    else
        server->metrics.websockets_total++;
    connection->order.max_in_flight = server->config.limits->concurrent_requests;
    TAILQ_INIT(&connection->calls);
    LIST_INIT(&connection->exchanges);
    LIST_INIT(&connection->handles);
    LIST_INSERT_HEAD(&server->connections, connection, link);
    server->n_connections++;
    *ret_connection = connection;
    return 0;
}

static void connection_free(struct bly_connection *connection)
{
    struct bly_server *server = connection->server;

    bly_session_unref(connection->session);
    bly_known_deinit(&connection->known);
    LIST_REMOVE(connection, link);
    server->n_connections--;
    free(connection);
    bly_server_check_drained(server);
    bly_server_maybe_closed(server);
}

bool bly_connection_attached(const struct bly_connection *connection)
{
    return connection->session && connection->session->connection == connection;
}

/* ---- what goes out -------------------------------------------------------------------------- */

static void update_reading(struct bly_connection *connection)
{
    const struct bly_limits *limits = connection->server->config.limits;
    bool pause = connection->flooded || connection->n_calls >= limits->requests_in_flight ||
                 connection->call_bytes >= limits->message_bytes;

    if (pause == connection->reading_paused || !connection->conn)
        return;
    connection->reading_paused = pause;
    bly_conn_pause(connection->conn, pause);
}

/*
 * A client that does not read first slows down its own processes, so that it can still ask for
 * something, like ending them. Only when answers pile up as well are its requests left unread.
 */
static void update_congestion(struct bly_connection *connection)
{
    uint64_t limit = connection->server->config.limits->output_queue_bytes;
    uint64_t queued = bly_conn_queued_bytes(connection->conn);

    if (queued > limit && !connection->congested) {
        connection->congested = true;
        if (bly_connection_attached(connection))
            bly_session_pause(connection->session, true);
    }
    if (queued > 2 * limit && !connection->flooded) {
        connection->flooded = true;
        update_reading(connection);
    }
}

void bly_connection_send_mem(struct bly_connection *connection, void *mem, size_t off, size_t len)
{
    if (!connection->conn) {
        free(mem);
        return;
    }
    connection->server->metrics.sent++;
    connection->server->metrics.sent_bytes += len;
    if (bly_conn_send(connection->conn, mem, off, len) == -ENOMEM) {
        /* A lost answer would leave the client waiting for ever; a lost connection does not. */
        bly_log(BLY_LOG_ERROR, "send-failed", "peer=\"%s\" reason=\"out of memory\"",
                bly_conn_peer(connection->conn));
        bly_conn_drop(connection->conn);
        return;
    }
    update_congestion(connection);
}

void bly_connection_send(struct bly_connection *connection, struct bly_buf *buf)
{
    uint8_t *mem;
    size_t len;

    if (!connection->conn)
        return;
    if (buf->error) {
        bly_log(BLY_LOG_ERROR, "send-failed", "peer=\"%s\" error=%d",
                bly_conn_peer(connection->conn), buf->error);
        bly_conn_drop(connection->conn);
        return;
    }
    mem = bly_buf_take(buf, &len);
    bly_connection_send_mem(connection, mem, 0, len);
}

void bly_connection_close(struct bly_connection *connection, uint16_t code, const char *reason)
{
    if (!connection->conn || connection->closing)
        return;
    connection->closing = true;
    connection->violated = code == BLY_CLOSE_POLICY;
    /* The closing handshake may take its time; the session need not wait for it. */
    if (bly_connection_attached(connection))
        bly_session_detach(connection->session);
    bly_conn_close(connection->conn, code, reason);
}

static void on_drained(void *user, struct bly_conn *conn)
{
    struct bly_connection *connection = user;

    (void)conn;
    connection->congested = false;
    connection->flooded = false;
    if (bly_connection_attached(connection))
        bly_session_pause(connection->session, false);
    bly_exchanges_resume(connection);
    bly_connection_pump(connection);
}

/* ---- what comes in -------------------------------------------------------------------------- */

static void answer_bad_message(struct bly_connection *connection, const struct bly_err *err)
{
    struct bly_buf buf;

    bly_buf_init(&buf, ANSWER_MAX);
    (void)bly_rpc_add_bad_message(&buf, bly_conn_peer(connection->conn), err);
    bly_connection_send(connection, &buf);
    bly_buf_deinit(&buf);
}

static void answer_unknown_method(struct bly_connection *connection,
                                  const struct bly_rpc_message *message)
{
    struct bly_buf buf;

    bly_buf_init(&buf, ANSWER_MAX);
    (void)bly_rpc_add_unknown_method(&buf, &message->id, message->method, message->method_len);
    bly_connection_send(connection, &buf);
    bly_buf_deinit(&buf);
}

static void handle_notification(struct bly_connection *connection,
                                const struct bly_rpc_message *message)
{
    static const char initialized[] = "initialized";

    if (message->method_len != sizeof(initialized) - 1 ||
        memcmp(message->method, initialized, sizeof(initialized) - 1) != 0)
        bly_connection_close(connection, BLY_CLOSE_POLICY, "unknown notification");
    else if (connection->state == BLY_CONNECTION_NEW)
        bly_connection_close(connection, BLY_CLOSE_POLICY, "initialized before initialize");
    else
        connection->state = BLY_CONNECTION_READY;
}

/* The errors of spec 3.1. */
static int check_handshake(struct bly_call *call, struct bly_err *err)
{
    struct bly_connection *connection = call->connection;
    const char *family = call->method->family;

    if (call->method->flags & BLY_METHOD_HANDSHAKE)
        return 0;
    if (connection->state == BLY_CONNECTION_NEW)
        return bly_fail(err, BLY_ERR_INVALID, EPROTO,
                        "client must call initialize before using %s methods", family);
    if (connection->state == BLY_CONNECTION_INITIALIZED)
        return bly_fail(err, BLY_ERR_INVALID, EPROTO,
                        "client must send initialized before using %s methods", family);

    /* Given up for dead, but alive after all, and nobody has taken its session so far. */
    if (!connection->session->connection && !connection->session->ended && connection->conn)
        bly_session_attach(connection->session, connection);
    if (!bly_connection_attached(connection))
        return bly_fail(err, BLY_ERR_INVALID, EPROTO,
                        "session has been resumed by another connection");
    call->session = bly_session_ref(connection->session);
    return 0;
}

/* Parameter errors come before the handshake, a method's own refusals after it. */
static int prepare(struct bly_call *call, struct bly_err *err)
{
    int r = call->method->decode(call, call->message.params, err);
    struct bly_err refused;
    int ready;

    if (r < 0 && err->kind == BLY_ERR_PARAMS)
        return r;
    ready = check_handshake(call, &refused);
    if (ready < 0) {
        *err = refused;
        return ready;
    }
    if (r < 0)
        return r;
    return call->method->admit ? call->method->admit(call, err) : 0;
}

static void handle_request(struct bly_connection *connection, const struct bly_method *method,
                           char *text, size_t len, const struct bly_rpc_message *message)
{
    struct bly_call *call = calloc(1, sizeof(*call));
    struct bly_err err;

    if (!call) {
        struct bly_rpc_message unused = *message;

        bly_log(BLY_LOG_ERROR, "request-dropped", "reason=\"out of memory\"");
        bly_rpc_message_deinit(&unused);
        free(text);
        bly_conn_drop(connection->conn);
        return;
    }
    call->connection = connection;
    call->method = method;
    call->text = text;
    call->text_len = len;
    call->message = *message;
    call->since_ns = uv_hrtime();
    TAILQ_INSERT_TAIL(&connection->calls, call, link);
    connection->n_calls++;
    connection->call_bytes += len;

    bly_err_clear(&err);
    if (prepare(call, &err) < 0) {
        bly_call_fail(call, &err);
        bly_call_done(call);
        return;
    }
    if (method->flags & BLY_METHOD_ORDERED) {
        bly_order_add(&connection->order, &call->order, method->flags & BLY_METHOD_READS);
        bly_connection_pump(connection);
    } else {
        method->run(call);
        update_reading(connection); /* it may have to wait, like a write without room */
    }
}

/* What the reference servers refuse stays refused, but for methods that have reason to be larger.
 */
static bool is_too_big(const struct bly_connection *connection, const struct bly_method *method,
                       size_t len)
{
    return len > connection->server->config.limits->plain_message_bytes &&
           !(method && (method->flags & BLY_METHOD_PAYLOAD));
}

struct bly_policy_env bly_connection_policy_env(const struct bly_connection *connection)
{
    struct bly_policy_env env = *connection->server->config.policy_env;

    env.known = connection->folded;
    return env;
}

static bool has_folded_context(const struct bly_rpc_message *message,
                               const struct bly_policy_known *context)
{
    return message->kind == BLY_RPC_REQUEST &&
           yyjson_get_str(yyjson_obj_get(message->params, "sandbox")) == context->place;
}

/*
 * As bly_rpc_parse(), but with a sandbox context that is known left out: then `*text` becomes the
 * text without it. Whatever is the matter with a message is said about the whole of it.
 */
static int parse_message(struct bly_connection *connection, char **text, size_t *len,
                         struct bly_rpc_message *message, struct bly_err *err)
{
    struct bly_folded folded;

    connection->folded = (struct bly_policy_known){0};
    if (!bly_known_fold(&connection->known, connection->server->config.policy_env, *text, *len,
                        &folded))
        return bly_rpc_parse(*text, *len, message, err);
    if (bly_rpc_parse(folded.text, folded.len, message, NULL) == 0) {
        if (has_folded_context(message, &folded.context)) {
            connection->folded = folded.context;
            free(*text);
            *text = folded.text;
            *len = folded.len;
            return 0;
        }
        bly_rpc_message_deinit(message);
    }
    free(folded.text);
    return bly_rpc_parse(*text, *len, message, err);
}

static const struct bly_method *find_method(const struct bly_connection *connection,
                                            const struct bly_rpc_message *message)
{
    const struct bly_method *method = bly_method_find(message->method, message->method_len);
    bool off = method && (method->flags & BLY_METHOD_HTTP) && !connection->server->config.http;

    return off ? NULL : method;
}

static void on_message(void *user, struct bly_conn *conn, char *text, size_t len)
{
    struct bly_connection *connection = user;
    struct bly_rpc_message message;
    const struct bly_method *method;
    struct bly_err err;
    size_t whole = len;

    (void)conn;
    connection->server->metrics.received++;
    connection->server->metrics.received_bytes += len;
    if (connection->closing) {
        free(text);
        return;
    }
    bly_err_clear(&err);
    if (parse_message(connection, &text, &len, &message, &err) < 0) {
        answer_bad_message(connection, &err);
        free(text);
        return;
    }
    method = message.kind == BLY_RPC_REQUEST ? find_method(connection, &message) : NULL;
    if (is_too_big(connection, method, whole)) {
        bly_connection_close(connection, BLY_CLOSE_TOO_BIG, "message is too big for its method");
    } else if (message.kind == BLY_RPC_REQUEST) {
        if (method) {
            handle_request(connection, method, text, len, &message);
            return;
        }
        bly_metrics_unknown_method(&connection->server->metrics);
        answer_unknown_method(connection, &message);
    } else if (message.kind == BLY_RPC_NOTIFICATION) {
        handle_notification(connection, &message);
    } else {
        bly_connection_close(connection, BLY_CLOSE_POLICY, "unexpected response");
    }
    bly_rpc_message_deinit(&message);
    free(text);
}

/* ---- whose turn it is ----------------------------------------------------------------------- */

static struct bly_call *call_of(struct bly_order_entry *entry)
{
    return (struct bly_call *)(void *)((char *)entry - offsetof(struct bly_call, order));
}

static void fail_ended(struct bly_call *call)
{
    struct bly_err err;

    (void)bly_fail(&err, BLY_ERR_GONE, ESHUTDOWN, "session has ended");
    bly_call_fail(call, &err);
    bly_call_done(call);
}

static void fail_no_memory(struct bly_call *call)
{
    struct bly_err err;

    (void)bly_fail(&err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    bly_call_fail(call, &err);
    bly_call_done(call);
}

/* False: the first in line has to wait. */
static bool pump_one(struct bly_connection *connection, struct bly_call *call)
{
    if (!connection->conn) {
        bly_call_done(call); /* nobody waits for it, and it has not begun */
        return true;
    }
    if (connection->flooded)
        return false; /* its answer would only add to what is not read */
    if (call->session->ended) {
        fail_ended(call);
        return true;
    }
    if (bly_fs_lane(call) < 0) {
        fail_no_memory(call);
        return true;
    }
    call->order.lane = call->context;
    if (!bly_order_start(&connection->order))
        return false;
    call->method->run(call);
    return true;
}

void bly_connection_pump(struct bly_connection *connection)
{
    struct bly_order_entry *entry;

    /* Calls that end inside of run() come back here; the outermost loop does the work. */
    if (connection->pumping)
        return;
    connection->pumping = true;
    while ((entry = bly_order_first(&connection->order)))
        if (!pump_one(connection, call_of(entry)))
            break;
    connection->pumping = false;

    update_reading(connection);
    if (connection->ended && bly_order_is_empty(&connection->order))
        bly_connection_close(connection, BLY_CLOSE_NORMAL, "end of file");
    if (!connection->conn && TAILQ_EMPTY(&connection->calls))
        connection_free(connection);
}

/* ---- life and end --------------------------------------------------------------------------- */

static void on_probed(void *arg, bool alive)
{
    struct bly_connection *connection = arg;

    connection->probing = false;
    if (alive || !bly_connection_attached(connection))
        return;
    bly_log(BLY_LOG_WARN, "connection-silent", "session=%s peer=\"%s\"", connection->session->id,
            bly_conn_peer(connection->conn));
    bly_session_detach(connection->session);
}

void bly_connection_probe(struct bly_connection *connection)
{
    if (connection->probing || !connection->conn)
        return;
    connection->probing =
        bly_conn_probe(connection->conn, connection->server->config.limits->probe_ms, on_probed,
                       connection) == 0;
}

/* Reads stop, and so do changes of whole trees; other changes under way are completed. */
static void cancel_calls(struct bly_connection *connection)
{
    struct bly_call *call, *next;

    for (call = TAILQ_FIRST(&connection->calls); call; call = next) {
        next = TAILQ_NEXT(call, link);
        if (call->fs_call && (call->method->flags & BLY_METHOD_STOPS))
            bly_fs_cancel(call->fs_call);
        else if (call->parked)
            bly_call_done(call);
    }
}

/* What takes effect in order is still answered, like at the reference server; the rest is not. */
static bool on_ended(void *user, struct bly_conn *conn)
{
    struct bly_connection *connection = user;

    (void)conn;
    connection->ended = true;
    return !bly_order_is_empty(&connection->order);
}

static void on_closed(void *user, struct bly_conn *conn, const char *reason)
{
    struct bly_connection *connection = user;
    const struct bly_server_config *config = &connection->server->config;
    bool is_stdio = connection->is_stdio, violated = connection->violated;
    struct bly_handle *handle;

    bly_log(BLY_LOG_INFO, "connection-closed", "peer=\"%s\" reason=\"%s\"", bly_conn_peer(conn),
            reason ? reason : "");
    connection->conn = NULL;
    connection->closing = true;
    if (bly_connection_attached(connection))
        bly_session_detach(connection->session);
    while ((handle = LIST_FIRST(&connection->handles)))
        bly_handle_forget(connection, handle);

    connection->pumping = true; /* keeps it alive while its calls are dropped */
    bly_exchanges_end(connection);
    bly_connection_unwatch(connection);
    cancel_calls(connection);
    connection->pumping = false;
    bly_connection_pump(connection);

    if (is_stdio && config->stdio_ended)
        config->stdio_ended(config->arg, violated);
}

const struct bly_transport_ops bly_connection_ops = {
    .message = on_message,
    .drained = on_drained,
    .ended = on_ended,
    .closed = on_closed,
};
