#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "fake.h"
#include "proto/proto.h"
#include "sandbox/policy/policy.h"
#include "server/server.h"
#include "transport/transport.h"

enum { MAX_MESSAGES = 64, PATIENCE_MS = 10000 };

struct bly_listener {
    struct bly_transport_ops ops;
    void *arg;
};

static struct bly_listener the_listener;

struct bly_conn {
    struct fake *fake;
    void *user;
    char *sent[MAX_MESSAGES];
    size_t n_sent, n_seen, queued;
    bool paused;
    unsigned close_code;
    void (*probed)(void *arg, bool alive);
    void *probe_arg;
};

struct bly_endpoint *bly_endpoint_new(const struct bly_endpoint_config *config)
{
    the_listener.ops = config->ops;
    the_listener.arg = config->arg;
    return (struct bly_endpoint *)&the_listener;
}

struct bly_endpoint *bly_endpoint_unref(struct bly_endpoint *endpoint)
{
    (void)endpoint;
    return NULL;
}

int bly_listener_open(struct bly_endpoint *endpoint, const char *url,
                      struct bly_listener **ret_listener, struct bly_err *err)
{
    (void)endpoint;
    (void)url;
    (void)err;
    *ret_listener = &the_listener;
    return 0;
}

int bly_listener_adopt(struct bly_endpoint *endpoint, int fd, struct bly_listener **ret_listener,
                       struct bly_err *err)
{
    (void)fd;
    return bly_listener_open(endpoint, NULL, ret_listener, err);
}

const char *bly_listener_url(const struct bly_listener *listener)
{
    (void)listener;
    return "ws://127.0.0.1:1";
}

void bly_listener_close(struct bly_listener *listener, void (*done)(void *arg), void *arg)
{
    (void)listener;
    done(arg);
}

int bly_conn_send(struct bly_conn *conn, void *mem, size_t off, size_t len)
{
    assert_true(conn->n_sent < MAX_MESSAGES);
    conn->sent[conn->n_sent] = strndup((char *)mem + off, len);
    assert_non_null(conn->sent[conn->n_sent]);
    conn->n_sent++;
    free(mem);
    return 0;
}

size_t bly_conn_queued_bytes(const struct bly_conn *conn)
{
    return conn->queued;
}

void bly_conn_pause(struct bly_conn *conn, bool paused)
{
    conn->paused = paused;
}

void bly_conn_close(struct bly_conn *conn, uint16_t code, const char *reason)
{
    (void)reason;
    if (!conn->close_code)
        conn->close_code = code;
}

void bly_conn_drop(struct bly_conn *conn)
{
    conn->close_code = 1006;
}

int bly_conn_probe(struct bly_conn *conn, uint64_t timeout_ms, void (*done)(void *arg, bool alive),
                   void *arg)
{
    (void)timeout_ms;
    assert_null(conn->probed);
    conn->probed = done;
    conn->probe_arg = arg;
    return 0;
}

const char *bly_conn_peer(const struct bly_conn *conn)
{
    (void)conn;
    return "websocket 127.0.0.1:2";
}

bool bly_conn_is_stdio(const struct bly_conn *conn)
{
    return conn->fake->is_stdio;
}

/* ---- the test's side ------------------------------------------------------------------------ */

void fake_init(struct fake *fake)
{
    memset(fake, 0, sizeof(*fake));
    assert_int_equal(uv_loop_init(&fake->loop), 0);
    bly_limits_defaults(&fake->limits);
    bly_log_set_level(BLY_LOG_ERROR);
}

static void on_stdio_ended(void *arg, bool violation)
{
    struct fake *fake = arg;

    fake->n_stdio_ended++;
    fake->violation = violation;
}

void fake_start(struct fake *fake)
{
    static const struct bly_environment environment = {.shell_name = "sh",
                                                       .shell_path = "/bin/sh",
                                                       .version = "0",
                                                       .provider_id = "sha256:0",
                                                       .cwd = "/"};
    static const struct bly_policy_env policy_env = {.cwd = "/"};
    static char *const no_environ[] = {NULL};
    static const struct bly_http_config http = {0}; /* switched on, but nothing to do it with */
    const struct bly_server_config config = {
        .loop = &fake->loop,
        .limits = &fake->limits,
        .policy_env = &policy_env,
        .environment = &environment,
        .environ = no_environ,
        .stdio_ended = on_stdio_ended,
        .arg = fake,
        .http = fake->no_http ? NULL : &http,
    };
    static const struct bly_listen listen = {.url = "ws://127.0.0.1:0"};
    struct bly_err err;

    assert_int_equal(bly_server_start(&config, &listen, 1, &fake->server, &err), 0);
}

static void on_closed(void *arg)
{
    ((struct fake *)arg)->closed = true;
}

void fake_drain_begin(struct fake *fake)
{
    bly_server_drain(fake->server, on_closed, fake);
    fake->draining = true;
}

void fake_end_begin(struct fake *fake)
{
    if (!fake->ending)
        bly_server_close(fake->server, on_closed, fake);
    fake->ending = true;
}

void fake_await_end(struct fake *fake)
{
    assert_true(fake->draining || fake->ending);
    while (!fake->closed && uv_run(&fake->loop, UV_RUN_ONCE))
        ;
    assert_true(fake->closed);
}

void fake_end(struct fake *fake)
{
    if (!fake->closed)
        fake_end_begin(fake);
    (void)uv_run(&fake->loop, UV_RUN_DEFAULT);
    assert_true(fake->closed);
    fake->server = bly_server_free(fake->server);
    assert_int_equal(uv_loop_close(&fake->loop), 0);
}

bool fake_is_ready(void)
{
    return the_listener.ops.ready(the_listener.arg);
}

struct bly_conn *fake_connect(struct fake *fake)
{
    struct bly_conn *conn = calloc(1, sizeof(*conn));

    assert_non_null(conn);
    conn->fake = fake;
    if (!the_listener.ops.welcome(the_listener.arg)) {
        free(conn);
        return NULL;
    }
    if (the_listener.ops.opened(the_listener.arg, conn, &conn->user) < 0) {
        free(conn);
        return NULL;
    }
    return conn;
}

void fake_hang_up(struct bly_conn *conn)
{
    the_listener.ops.closed(conn->user, conn, "test");
    for (size_t i = 0; i < conn->n_sent; i++)
        free(conn->sent[i]);
    free(conn);
}

bool fake_finish(struct bly_conn *conn)
{
    return the_listener.ops.ended(conn->user, conn);
}

void fake_send(struct bly_conn *conn, const char *text)
{
    size_t len = strlen(text);
    char *copy = calloc(1, len + BLY_JSON_PADDING);

    assert_non_null(copy);
    memcpy(copy, text, len);
    the_listener.ops.message(conn->user, conn, copy, len);
}

static void on_timer(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
    uv_stop(timer->loop); /* else this round would still wait for the next timer */
}

static void run_until(struct fake *fake, uint64_t ms, const struct bly_conn *conn)
{
    uv_timer_t timer;
    bool over = false;

    (void)uv_timer_init(&fake->loop, &timer);
    timer.data = &over;
    (void)uv_timer_start(&timer, on_timer, ms, 0);
    while (!over && (!conn || conn->n_seen == conn->n_sent))
        (void)uv_run(&fake->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    (void)uv_run(&fake->loop, UV_RUN_NOWAIT);
}

void fake_run_for(struct fake *fake, uint64_t ms)
{
    run_until(fake, ms, NULL);
}

const char *fake_next(struct bly_conn *conn)
{
    if (conn->n_seen == conn->n_sent)
        run_until(conn->fake, PATIENCE_MS, conn);
    assert_true(conn->n_seen < conn->n_sent);
    return conn->sent[conn->n_seen++];
}

bool fake_is_quiet(struct bly_conn *conn)
{
    return conn->n_seen == conn->n_sent;
}

unsigned fake_close_code(const struct bly_conn *conn)
{
    return conn->close_code;
}

bool fake_is_paused(const struct bly_conn *conn)
{
    return conn->paused;
}

void fake_set_queued(struct bly_conn *conn, size_t bytes)
{
    conn->queued = bytes;
}

void fake_drain(struct bly_conn *conn)
{
    conn->queued = 0;
    the_listener.ops.drained(conn->user, conn);
}

bool fake_answer_probe(struct bly_conn *conn, bool alive)
{
    void (*probed)(void *arg, bool alive) = conn->probed;

    if (!probed)
        return false;
    conn->probed = NULL;
    probed(conn->probe_arg, alive);
    return true;
}

void fake_handshake(struct bly_conn *conn, char ret_id[37])
{
    static const char key[] = "\"sessionId\":\"";
    const char *answer, *id;

    fake_send(conn, "{\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"t\"}}");
    answer = fake_next(conn);
    id = strstr(answer, key);
    assert_non_null(id);
    if (ret_id)
        (void)snprintf(ret_id, 37, "%s", id + sizeof(key) - 1);
    fake_send(conn, "{\"method\":\"initialized\"}");
}
