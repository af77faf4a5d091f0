/* The gauges of /metrics: counted when somebody asks, from what there is. */
#include "server/internal.h"
#include "server/metrics.h"

static void measure_connections(const struct bly_server *server, struct bly_metrics *metrics)
{
    const struct bly_connection *connection;

    LIST_FOREACH(connection, &server->connections, link)
    {
        metrics->requests_pending += connection->n_calls + connection->n_parked;
        metrics->file_handles += connection->n_handles;
        if (!connection->conn)
            continue;
        metrics->queued_bytes += bly_conn_queued_bytes(connection->conn);
        if (connection->is_stdio)
            metrics->stdios++;
        else
            metrics->websockets++;
    }
}

static void measure_sessions(const struct bly_server *server, struct bly_metrics *metrics)
{
    const struct bly_session *session;

    LIST_FOREACH(session, &server->sessions, link)
    {
        if (session->connection)
            metrics->sessions_attached++;
        else if (!session->ended)
            metrics->sessions_detached++;
    }
}

void bly_server_measure(const struct bly_server *server, bool ready, struct bly_buf *buf)
{
    struct bly_metrics metrics = server->metrics; /* what is measured here is 0 in the original */

    measure_connections(server, &metrics);
    measure_sessions(server, &metrics);
    metrics.helpers = server->n_helpers;
    metrics.ready = ready;
    bly_metrics_write(&metrics, buf);
}
