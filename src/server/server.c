#include "server/server.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "fs/watch.h"
#include "launcher/planner.h"
#include "process/ring.h"
#include "server/internal.h"

enum {
    LINGER_MS = 1000, /* for closing handshakes when the server ends */
    EMPTY_RING_BYTES = 1,
    UNAVAILABLE = 503,
};

static int on_opened(void *arg, struct bly_conn *conn, void **ret_user)
{
    struct bly_server *server = arg;
    struct bly_connection *connection;
    int r;

    if (server->closing)
        return -ESHUTDOWN;
    if (server->n_connections >= server->config.limits->connections) {
        bly_log(BLY_LOG_WARN, "connection-refused", "peer=\"%s\" reason=\"max-connections\"",
                bly_conn_peer(conn));
        bly_metrics_refused(&server->metrics, UNAVAILABLE);
        return -EMFILE;
    }
    r = bly_connection_new(server, conn, &connection);
    if (r < 0)
        return r;
    bly_log(BLY_LOG_INFO, "connection-open", "peer=\"%s\"", bly_conn_peer(conn));
    *ret_user = connection;
    return 0;
}

static bool is_welcome(void *arg)
{
    const struct bly_server *server = arg;

    return !server->closing && server->n_connections < server->config.limits->connections;
}

static bool is_ready(void *arg)
{
    const struct bly_server *server = arg;

    return !server->draining && is_welcome(arg);
}

static void on_refused(void *arg, const char *peer, int status)
{
    struct bly_server *server = arg;

    bly_log(BLY_LOG_INFO, "connection-refused", "peer=\"%s\" status=%d", peer, status);
    bly_metrics_refused(&server->metrics, status);
}

static void on_metrics(void *arg, struct bly_buf *buf)
{
    bly_server_measure(arg, is_ready(arg), buf);
}

static void close_listeners(struct bly_server *server, void (*done)(void *arg))
{
    for (size_t i = 0; i < server->n_listeners; i++)
        bly_listener_close(server->listeners[i], done, server);
}

static int listen_on(struct bly_server *server, const struct bly_listen *listen,
                     struct bly_err *err)
{
    struct bly_listener **slot = &server->listeners[server->n_listeners];
    int r = listen->url ? bly_listener_open(server->endpoint, listen->url, slot, err)
                        : bly_listener_adopt(server->endpoint, listen->fd, slot, err);

    if (r == 0)
        server->n_listeners++;
    return r;
}

static int listen_on_all(struct bly_server *server, const struct bly_listen *listens, size_t n,
                         struct bly_err *err)
{
    struct bly_endpoint_config config = {
        .loop = server->config.loop,
        .limits = server->config.limits,
        .ops = bly_connection_ops,
        .arg = server,
        .any_path = server->config.any_path,
    };
    int r = 0;

    config.ops.opened = on_opened;
    config.ops.ready = is_ready;
    config.ops.welcome = is_welcome;
    config.ops.metrics = on_metrics;
    config.ops.refused = on_refused;
    config.ops.auth = server->config.auth;
    server->endpoint = bly_endpoint_new(&config);
    if (!server->endpoint)
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    for (size_t i = 0; i < n && r == 0; i++)
        r = listen_on(server, &listens[i], err);
    if (r < 0)
        close_listeners(server, NULL);
    else
        server->n_listening = n;
    return r;
}

/* A server without one is as good, only slower for clients that watch. */
static void start_watcher(struct bly_server *server)
{
    uint64_t max = server->config.limits->missing_watches;
    int r =
        max > 0 ? bly_missing_watcher_new(server->config.loop, max, &server->missing_watcher) : 0;

    if (r < 0)
        bly_log(BLY_LOG_WARN, "watcher-failed", "reason=\"%s\"", bly_errno_text(-r));
}

int bly_server_start(const struct bly_server_config *config, const struct bly_listen *listens,
                     size_t n_listens, struct bly_server **ret_server, struct bly_err *err)
{
    struct bly_server *server = calloc(1, sizeof(*server));
    int r;

    if (!server)
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    server->config = *config;
    LIST_INIT(&server->connections);
    LIST_INIT(&server->sessions);
    r = bly_ring_new(EMPTY_RING_BYTES, 1, &server->empty_ring);
    if (r >= 0)
        r = bly_metrics_init(&server->metrics);
    if (r >= 0)
        r = bly_planner_new(config->loop, config->limits->watches, &server->planner);
    if (r >= 0)
        r = bly_watcher_new(config->limits->watches, &server->watcher);
    if (r < 0)
        (void)bly_fail(err, BLY_ERR_LIMIT, -r, "%s", bly_errno_text(-r));
    else
        r = listen_on_all(server, listens, n_listens, err);
    if (r < 0) {
        bly_server_free(server);
        return r;
    }
    start_watcher(server);
    *ret_server = server;
    return 0;
}

const char *bly_server_url(const struct bly_server *server, size_t n)
{
    return bly_listener_url(server->listeners[n]);
}

struct bly_server *bly_server_free(struct bly_server *server)
{
    if (!server)
        return NULL;
    bly_endpoint_unref(server->endpoint);
    bly_missing_watcher_free(server->missing_watcher);
    bly_planner_free(server->planner);
    bly_watcher_free(server->watcher);
    bly_ring_free(server->empty_ring);
    bly_metrics_deinit(&server->metrics);
    free(server);
    return NULL;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void on_linger_closed(uv_handle_t *handle)
{
    struct bly_server *server = handle->data;

    server->linger_gone = true;
    bly_server_maybe_closed(server);
}

void bly_server_maybe_closed(struct bly_server *server)
{
    void (*closed)(void *arg) = server->closed;

    if (!server->closing || server->n_listening > 0)
        return;
    if (!LIST_EMPTY(&server->connections) || !LIST_EMPTY(&server->sessions))
        return;
    if (!uv_is_closing((uv_handle_t *)&server->linger)) {
        if (server->missing_watcher)
            bly_missing_watcher_close(server->missing_watcher);
        uv_close((uv_handle_t *)&server->linger, on_linger_closed);
        return;
    }
    if (!server->linger_gone || !closed)
        return;
    server->closed = NULL;
    closed(server->closed_arg);
}

static void on_listener_closed(void *arg)
{
    struct bly_server *server = arg;

    server->n_listening--;
    bly_server_maybe_closed(server);
}

/* Clients that do not answer the closing handshake are not waited for any longer. */
static void on_lingered(uv_timer_t *timer)
{
    struct bly_server *server = timer->data;
    struct bly_connection *connection;

    LIST_FOREACH(connection, &server->connections, link)
    if (connection->conn)
        bly_conn_drop(connection->conn);
}

void bly_server_close(struct bly_server *server, void (*done)(void *arg), void *arg)
{
    struct bly_connection *connection;
    struct bly_session *session, *next;

    if (server->closing)
        return;
    server->closing = true;
    if (server->draining)
        uv_close((uv_handle_t *)&server->drain_timer, NULL);
    server->closed = done;
    server->closed_arg = arg;
    (void)uv_timer_init(server->config.loop, &server->linger);
    server->linger.data = server;
    (void)uv_timer_start(&server->linger, on_lingered, LINGER_MS, 0);

    close_listeners(server, on_listener_closed);
    LIST_FOREACH(connection, &server->connections, link)
    bly_connection_close(connection, BLY_CLOSE_GOING_AWAY, "server is shutting down");
    for (session = LIST_FIRST(&server->sessions); session; session = next) {
        next = LIST_NEXT(session, link);
        bly_session_end(session, "shutdown");
    }
}
