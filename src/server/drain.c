#include "base/limits.h"
#include "base/log.h"
#include "server/internal.h"

/* Whether a client, or one that may come back, would lose something if the server ended now. */
static bool is_busy(const struct bly_session *session)
{
    return !session->ended && (session->connection || session->n_running > 0);
}

static bool is_drained(const struct bly_server *server)
{
    const struct bly_connection *connection;
    const struct bly_session *session;

    LIST_FOREACH(session, &server->sessions, link)
    if (is_busy(session))
        return false;
    /* A change is completed also when the connection that asked for it has gone. */
    LIST_FOREACH(connection, &server->connections, link)
    if (!TAILQ_EMPTY(&connection->calls))
        return false;
    return true;
}

static void on_due(uv_timer_t *timer)
{
    struct bly_server *server = timer->data;
    uint64_t now = uv_now(timer->loop);
    bool drained = is_drained(server);

    if (!drained && now < server->drain_ends) {
        (void)uv_timer_start(timer, on_due, server->drain_ends - now, 0);
        return;
    }
    bly_log(BLY_LOG_INFO, "server-drained", "complete=%d sessions=%zu", drained,
            server->n_sessions);
    bly_server_close(server, server->closed, server->closed_arg);
}

void bly_server_check_drained(struct bly_server *server)
{
    /* From the loop: whoever noticed that something has ended may be in the middle of it. */
    if (server->draining && !server->closing)
        (void)uv_timer_start(&server->drain_timer, on_due, 0, 0);
}

void bly_server_drain(struct bly_server *server, void (*done)(void *arg), void *arg)
{
    if (server->draining || server->closing)
        return;
    bly_log(BLY_LOG_INFO, "server-draining", "sessions=%zu", server->n_sessions);
    server->draining = true;
    server->closed = done;
    server->closed_arg = arg;
    server->drain_ends = uv_now(server->config.loop) + server->config.limits->drain_ms;
    (void)uv_timer_init(server->config.loop, &server->drain_timer);
    server->drain_timer.data = server;
    bly_server_check_drained(server);
}
