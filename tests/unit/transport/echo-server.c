#include "echo-server.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "base/err.h"
#include "base/limits.h"
#include "transport/conn.h"

enum { MAX_CONNS = 1024, MAX_LISTENERS = 8 };

struct echo {
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t stop;
    struct bly_limits limits;
    struct bly_endpoint *endpoint;
    struct bly_listener *listeners[MAX_LISTENERS];
    size_t n_listeners;
    struct bly_conn *conns[MAX_CONNS];
    atomic_bool ready, refusing, has_more;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct echo_counts counts;
};

struct user {
    struct echo *echo;
    struct bly_conn *conn;
    size_t slot;
    bool is_closed;
};

static void count(struct echo *echo, unsigned *what)
{
    pthread_mutex_lock(&echo->lock);
    (*what)++;
    pthread_cond_broadcast(&echo->changed);
    pthread_mutex_unlock(&echo->lock);
}

static int on_opened(void *arg, struct bly_conn *conn, void **ret_user)
{
    struct echo *echo = arg;
    struct user *user = calloc(1, sizeof(*user));
    size_t slot = 0;

    assert(user);
    if (atomic_load(&echo->refusing)) {
        free(user);
        return -EAGAIN;
    }
    while (echo->conns[slot])
        slot++;
    assert(slot < MAX_CONNS);
    echo->conns[slot] = conn;
    *user = (struct user){.echo = echo, .conn = conn, .slot = slot};
    *ret_user = user;
    assert(strncmp(bly_conn_peer(conn), bly_conn_is_stdio(conn) ? "stdio" : "websocket ", 5) == 0);
    count(echo, &echo->counts.opened);
    return 0;
}

static void send_text(struct bly_conn *conn, const char *text)
{
    char *mem = strdup(text);

    assert(mem);
    (void)bly_conn_send(conn, mem, 0, strlen(mem));
}

static void on_probed(void *arg, bool alive)
{
    struct user *user = arg;

    assert(!user->is_closed);
    send_text(user->conn, alive ? "alive" : "dead");
}

static void flood(struct bly_conn *conn, size_t bytes, unsigned messages)
{
    for (unsigned i = 0; i < messages; i++) {
        /* Seven bytes in front, which are not part of the message. */
        char *mem = malloc(bytes + 7);

        assert(mem);
        memset(mem, 'f', bytes + 7);
        (void)bly_conn_send(conn, mem, 7, bytes);
    }
}

static void obey(struct user *user, const char *text)
{
    struct bly_conn *conn = user->conn;
    size_t bytes;
    unsigned n;

    if (strcmp(text, "!pause") == 0)
        bly_conn_pause(conn, true);
    else if (strcmp(text, "!drop") == 0)
        bly_conn_drop(conn);
    else if (sscanf(text, "!close %u", &n) == 1)
        bly_conn_close(conn, (uint16_t)n, "because");
    else if (sscanf(text, "!flood %zu %u", &bytes, &n) == 2)
        flood(conn, bytes, n);
    else if (sscanf(text, "!probe %u", &n) == 1)
        assert(bly_conn_probe(conn, n, on_probed, user) == 0);
}

static void on_message(void *arg, struct bly_conn *conn, char *text, size_t len)
{
    struct user *user = arg;

    assert(!user->is_closed && user->conn == conn);
    assert(memcmp(text + len, "\0\0\0\0", 4) == 0);
    if (text[0] == '!') {
        obey(user, text);
        free(text);
    } else {
        (void)bly_conn_send(conn, text, 0, len);
    }
    count(user->echo, &user->echo->counts.messages);
}

static void on_drained(void *arg, struct bly_conn *conn)
{
    struct user *user = arg;

    assert(bly_conn_queued_bytes(conn) < user->echo->limits.output_queue_bytes / 2);
    count(user->echo, &user->echo->counts.drained);
}

static void on_closed(void *arg, struct bly_conn *conn, const char *reason)
{
    struct user *user = arg;
    struct echo *echo = user->echo;

    assert(user->conn == conn && !user->is_closed);
    user->is_closed = true;
    echo->conns[user->slot] = NULL;
    pthread_mutex_lock(&echo->lock);
    snprintf(echo->counts.reason, sizeof(echo->counts.reason), "%s", reason);
    pthread_mutex_unlock(&echo->lock);
    count(echo, &echo->counts.closed);
    free(user);
}

static bool on_ready(void *arg)
{
    struct echo *echo = arg;

    return atomic_load(&echo->ready);
}

static bool on_ended(void *arg, struct bly_conn *conn)
{
    struct user *user = arg;

    assert(bly_conn_is_stdio(conn) && !user->is_closed);
    count(user->echo, &user->echo->counts.ended);
    return atomic_load(&user->echo->has_more);
}

static const struct bly_transport_ops ops = {
    .ended = on_ended,
    .opened = on_opened,
    .message = on_message,
    .drained = on_drained,
    .closed = on_closed,
    .ready = on_ready,
    .welcome = on_ready,
};

static void on_stop(uv_async_t *async)
{
    struct echo *echo = async->data;

    for (size_t i = 0; i < MAX_CONNS; i++) {
        if (echo->conns[i])
            bly_conn_drop(echo->conns[i]);
    }
    for (size_t i = 0; i < echo->n_listeners; i++)
        bly_listener_close(echo->listeners[i], NULL, NULL);
    uv_close((uv_handle_t *)async, NULL);
}

static void *run(void *arg)
{
    struct echo *echo = arg;

    uv_run(&echo->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void listen_on(struct echo *echo, const char *const *urls)
{
    struct bly_endpoint_config config = {
        .loop = &echo->loop, .limits = &echo->limits, .ops = ops, .arg = echo};
    struct bly_err err;

    echo->endpoint = bly_endpoint_new(&config);
    assert(echo->endpoint);
    for (; *urls; urls++) {
        assert(echo->n_listeners < MAX_LISTENERS);
        if (bly_listener_open(echo->endpoint, *urls, &echo->listeners[echo->n_listeners++], &err) <
            0) {
            fprintf(stderr, "%s: %s\n", *urls, err.text);
            abort();
        }
    }
}

static struct echo *echo_new(const struct bly_limits *limits)
{
    struct echo *echo = calloc(1, sizeof(*echo));

    assert(echo);
    echo->limits = *limits;
    atomic_init(&echo->ready, true);
    atomic_init(&echo->refusing, false);
    atomic_init(&echo->has_more, false);
    assert(pthread_mutex_init(&echo->lock, NULL) == 0);
    assert(pthread_cond_init(&echo->changed, NULL) == 0);
    assert(uv_loop_init(&echo->loop) == 0);
    assert(uv_async_init(&echo->loop, &echo->stop, on_stop) == 0);
    echo->stop.data = echo;
    return echo;
}

struct echo *echo_start_all(const char *const *urls, const struct bly_limits *limits)
{
    struct echo *echo = echo_new(limits);

    listen_on(echo, urls);
    assert(pthread_create(&echo->thread, NULL, run, echo) == 0);
    return echo;
}

struct echo *echo_start_lines(int fd, const struct bly_limits *limits)
{
    static const char *const nowhere[] = {NULL};
    struct echo *echo = echo_new(limits);

    listen_on(echo, nowhere);
    assert(bly_conn_begin_lines(echo->endpoint, fd) == 0);
    assert(pthread_create(&echo->thread, NULL, run, echo) == 0);
    return echo;
}

struct echo *echo_start(const char *url, const struct bly_limits *limits)
{
    return echo_start_all((const char *const[]){url, NULL}, limits);
}

void echo_stop(struct echo *echo)
{
    uv_async_send(&echo->stop);
    pthread_join(echo->thread, NULL);
    bly_endpoint_unref(echo->endpoint);
    assert(uv_loop_close(&echo->loop) == 0);
    pthread_cond_destroy(&echo->changed);
    pthread_mutex_destroy(&echo->lock);
    free(echo);
}

int echo_port(const struct echo *echo)
{
    return atoi(strrchr(echo_url(echo, 0), ':') + 1);
}

const char *echo_url(const struct echo *echo, size_t n)
{
    return bly_listener_url(echo->listeners[n]);
}

void echo_set_ready(struct echo *echo, bool ready)
{
    atomic_store(&echo->ready, ready);
}

void echo_set_refusing(struct echo *echo, bool refusing)
{
    atomic_store(&echo->refusing, refusing);
}

void echo_set_has_more(struct echo *echo, bool has_more)
{
    atomic_store(&echo->has_more, has_more);
}

struct echo_counts echo_counts(struct echo *echo)
{
    struct echo_counts counts;

    pthread_mutex_lock(&echo->lock);
    counts = echo->counts;
    pthread_mutex_unlock(&echo->lock);
    return counts;
}

static bool wait_for(struct echo *echo, const struct echo_counts *least)
{
    struct echo_counts *now = &echo->counts;
    struct timespec until;
    bool reached;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    pthread_mutex_lock(&echo->lock);
    for (;;) {
        reached = now->opened >= least->opened && now->closed >= least->closed &&
                  now->messages >= least->messages && now->drained >= least->drained;
        if (reached || r != 0)
            break;
        r = pthread_cond_timedwait(&echo->changed, &echo->lock, &until);
    }
    pthread_mutex_unlock(&echo->lock);
    return reached;
}

bool echo_wait(struct echo *echo, unsigned opened, unsigned closed)
{
    return wait_for(echo, &(struct echo_counts){.opened = opened, .closed = closed});
}

bool echo_wait_messages(struct echo *echo, unsigned messages)
{
    return wait_for(echo, &(struct echo_counts){.messages = messages});
}

bool echo_wait_drained(struct echo *echo, unsigned drained)
{
    return wait_for(echo, &(struct echo_counts){.drained = drained});
}
