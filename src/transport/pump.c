#include "transport/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { PIECE = 64 << 10 };

/* What the thread needs, descriptors of its own included. It may outlive the pump, so the last of
 * the two frees it. */
struct work {
    atomic_uint refs;
    atomic_ullong moved; /* bytes */
    enum bly_pump_kind kind;
    int from, to;
    int end_fd; /* closing it says that the end has come */
    uint8_t piece[PIECE];
};

struct bly_pump {
    struct work *work;
    int end_fd; /* the other end of that pipe */
    uv_poll_t end;
    uv_timer_t timer;
    unsigned n_handles;
    bool has_ended, closing;
    uint64_t patience_ms;
    unsigned long long moved; /* when the timer looked last */
    void (*ended)(void *arg);
    void *arg;
    void (*done)(void *arg);
    void *done_arg;
};

/* The thread */

static void close_all(struct work *work)
{
    work->from = bly_close(work->from);
    work->to = bly_close(work->to);
    work->end_fd = bly_close(work->end_fd);
}

static void work_unref(struct work *work)
{
    if (atomic_fetch_sub(&work->refs, 1) > 1)
        return;
    close_all(work); /* for a thread that could not be started */
    free(work);
}

/* Whoever opened the descriptor may have made it non-blocking. True: try again. */
static bool wait_if_told(int fd, short events)
{
    struct pollfd pfd = {.fd = fd, .events = events};

    if (errno == EAGAIN)
        return poll(&pfd, 1, -1) >= 0 || errno == EINTR;
    return errno == EINTR;
}

static ssize_t read_some(struct work *work)
{
    ssize_t n;

    do
        n = read(work->from, work->piece, sizeof(work->piece));
    while (n < 0 && wait_if_told(work->from, POLLIN));
    return n;
}

static bool write_all(struct work *work, size_t len)
{
    size_t at = 0;

    while (at < len && work->kind != BLY_PUMP_SINK) {
        ssize_t n = write(work->to, work->piece + at, len - at);

        if (n < 0 && !wait_if_told(work->to, POLLOUT))
            return false;
        if (n > 0) {
            at += (size_t)n;
            atomic_fetch_add(&work->moved, (unsigned long long)n);
        }
    }
    return true;
}

static void *run(void *arg)
{
    struct work *work = arg;
    ssize_t n;

    do
        n = read_some(work);
    while (n > 0 && write_all(work, (size_t)n));

    if (work->kind == BLY_PUMP_IN)
        (void)shutdown(work->to, SHUT_WR);
    if (work->kind == BLY_PUMP_OUT)
        (void)shutdown(work->from, SHUT_RD);
    close_all(work);
    work_unref(work);
    return NULL;
}

/* The loop */

static void on_handle_closed(uv_handle_t *handle)
{
    struct bly_pump *pump = handle->data;

    if (--pump->n_handles > 0)
        return;
    bly_close(pump->end_fd);
    work_unref(pump->work);
    if (pump->done)
        pump->done(pump->done_arg);
    free(pump);
}

static void let_go(struct bly_pump *pump)
{
    if (uv_is_closing((uv_handle_t *)&pump->end))
        return;
    uv_close((uv_handle_t *)&pump->end, on_handle_closed);
    uv_close((uv_handle_t *)&pump->timer, on_handle_closed);
}

static void on_end(uv_poll_t *poll, int status, int events)
{
    struct bly_pump *pump = poll->data;

    (void)status;
    (void)events;
    uv_poll_stop(poll);
    pump->has_ended = true;
    if (pump->closing)
        let_go(pump);
    else if (pump->ended)
        pump->ended(pump->arg);
}

static void on_timer(uv_timer_t *timer)
{
    struct bly_pump *pump = timer->data;
    unsigned long long moved = atomic_load(&pump->work->moved);

    if (moved == pump->moved)
        let_go(pump);
    else
        uv_timer_start(timer, on_timer, pump->patience_ms, 0);
    pump->moved = moved;
}

void bly_pump_close(struct bly_pump *pump, uint64_t patience_ms, void (*done)(void *arg), void *arg)
{
    pump->closing = true;
    pump->done = done;
    pump->done_arg = arg;
    pump->patience_ms = patience_ms;
    pump->moved = atomic_load(&pump->work->moved);
    if (pump->has_ended || patience_ms == 0)
        let_go(pump);
    else
        uv_timer_start(&pump->timer, on_timer, patience_ms, 0);
}

static int start_thread(struct work *work)
{
    pthread_attr_t attr;
    pthread_t thread;
    int r = pthread_attr_init(&attr);

    if (r != 0)
        return -r;
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    r = pthread_create(&thread, &attr, run, work);
    (void)pthread_attr_destroy(&attr);
    return -r;
}

static struct work *work_new(enum bly_pump_kind kind, int from, int to)
{
    struct work *work = calloc(1, sizeof(*work));

    if (!work) {
        bly_close(from);
        bly_close(to);
        return NULL;
    }
    atomic_init(&work->refs, 1);
    work->kind = kind;
    work->from = from;
    work->to = to;
    work->end_fd = -EBADF;
    return work;
}

static int watch_end(uv_loop_t *loop, struct bly_pump *pump)
{
    int ends[2], r;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pump->end_fd = ends[0];
    pump->work->end_fd = ends[1];
    r = uv_poll_init(loop, &pump->end, pump->end_fd);
    if (r < 0)
        return r;
    uv_timer_init(loop, &pump->timer);
    pump->end.data = pump->timer.data = pump;
    pump->n_handles = 2;
    return uv_poll_start(&pump->end, UV_READABLE | UV_DISCONNECT, on_end);
}

int bly_pump_start(uv_loop_t *loop, enum bly_pump_kind kind, int from, int to,
                   void (*ended)(void *arg), void *arg, struct bly_pump **ret_pump)
{
    struct work *work = work_new(kind, from, kind == BLY_PUMP_SINK ? -EBADF : to);
    struct bly_pump *pump = work ? calloc(1, sizeof(*pump)) : NULL;
    int r;

    if (!pump) {
        if (work)
            work_unref(work);
        return -ENOMEM;
    }
    *pump = (struct bly_pump){.work = work, .end_fd = -EBADF, .ended = ended, .arg = arg};
    r = watch_end(loop, pump);
    if (r == 0) {
        atomic_fetch_add(&work->refs, 1);
        r = start_thread(work);
        if (r < 0)
            work_unref(work);
    }
    if (r < 0 && pump->n_handles > 0) {
        let_go(pump);
    } else if (r < 0) {
        bly_close(pump->end_fd);
        work_unref(work);
        free(pump);
    }
    if (r == 0)
        *ret_pump = pump;
    return r;
}
