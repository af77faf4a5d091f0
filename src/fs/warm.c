#include "fs/warm.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fs/helper/wire.h"
#include "launcher/launcher.h"

enum { END_MS = 1000, MAX_PACKETS = 64 /* in one turn of the loop */ };

struct bly_warm {
    const struct bly_warm_ops *ops;
    void *arg;
    struct bly_child *child; /* NULL: gone */
    unsigned rung;
    char *packet;
    int sock;
    uv_poll_t poll;
    uv_timer_t timer;
    uint64_t due_at; /* 0: the timer rests */
    bool has_poll, ending, lost;
    int n_handles; /* libuv's, that are not closed yet */
};

static void on_handle_closed(uv_handle_t *handle);

static void close_timer(struct bly_warm *warm)
{
    if (!uv_is_closing((uv_handle_t *)&warm->timer))
        uv_close((uv_handle_t *)&warm->timer, on_handle_closed);
}

/* Called whenever one of the things that keep it alive has gone. */
static void free_when_done(struct bly_warm *warm)
{
    if (warm->ending && warm->child == NULL)
        close_timer(warm);
    if (!warm->ending || warm->child != NULL || warm->n_handles > 0)
        return;
    warm->ops->gone(warm->arg);
    free(warm);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct bly_warm *warm = handle->data;

    warm->n_handles--;
    free_when_done(warm);
}

static void close_socket(struct bly_warm *warm)
{
    if (warm->has_poll)
        uv_close((uv_handle_t *)&warm->poll, on_handle_closed);
    warm->has_poll = false;
    bly_closep(&warm->sock);
}

static void tell_lost(struct bly_warm *warm)
{
    close_socket(warm);
    if (warm->lost || warm->ending)
        return;
    warm->lost = true;
    warm->ops->lost(warm->arg);
}

static void receive(struct bly_warm *warm)
{
    for (int i = 0; i < MAX_PACKETS && warm->sock >= 0 && !warm->ending; i++) {
        int fd = -EBADF;
        ssize_t n = bly_hwire_recv(warm->sock, warm->packet, BLY_HWIRE_PACKET_MAX, &fd);

        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            tell_lost(warm);
            return;
        }
        warm->ops->packet(warm->arg, warm->packet, (size_t)n, fd);
    }
}

static void on_event(uv_poll_t *poll, int status, int events)
{
    struct bly_warm *warm = poll->data;

    if (events & UV_WRITABLE) {
        (void)uv_poll_start(poll, UV_READABLE, on_event);
        warm->ops->writable(warm->arg);
    }
    if (status < 0 || (events & UV_READABLE))
        receive(warm);
}

static void on_timer(uv_timer_t *timer)
{
    struct bly_warm *warm = timer->data;

    warm->due_at = 0;
    warm->ops->due(warm->arg);
}

static int open_socket(struct bly_warm *warm, int sock, struct bly_err *err)
{
    int r = uv_poll_init(warm->timer.loop, &warm->poll, sock);

    warm->sock = sock;
    if (r < 0)
        return bly_fail(err, BLY_ERR_LIMIT, -r, "cannot watch a sandboxed helper");
    warm->has_poll = true;
    warm->n_handles++;
    warm->poll.data = warm;
    r = uv_poll_start(&warm->poll, UV_READABLE, on_event);
    if (r < 0)
        return bly_fail(err, BLY_ERR_LIMIT, -r, "cannot watch a sandboxed helper");
    return 0;
}

static void on_started(void *arg, pid_t pid, int in_fd, int out_fd, int err_fd,
                       const struct bly_err *err)
{
    struct bly_warm *warm = arg;
    struct bly_err why;

    (void)pid;
    bly_close(in_fd);
    bly_close(err_fd);
    if (err != NULL)
        warm->child = NULL;
    else
        warm->rung = bly_child_rung(warm->child);
    if (warm->ending) {
        bly_close(out_fd);
        free_when_done(warm);
        return;
    }
    if (err == NULL && open_socket(warm, out_fd, &why) < 0)
        err = &why;
    warm->ops->ready(warm->arg, err);
}

static void on_exited(void *arg, int status)
{
    struct bly_warm *warm = arg;

    (void)status;
    warm->child = NULL;
    if (warm->ending) {
        free_when_done(warm);
        return;
    }
    /* Answers it sent before its end are still in the socket. */
    receive(warm);
    if (!warm->ending)
        tell_lost(warm);
}

int bly_warm_start(uv_loop_t *loop, struct bly_spawner *spawner, const struct bly_plan *plan,
                   char *packet, const struct bly_warm_ops *ops, void *arg,
                   struct bly_warm **ret_warm, struct bly_err *err)
{
    static const struct bly_child_ops child_ops = {.started = on_started, .exited = on_exited};
    bly_autofree struct bly_warm *warm = calloc(1, sizeof *warm);
    int r;

    if (warm == NULL)
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    warm->ops = ops;
    warm->arg = arg;
    warm->packet = packet;
    warm->sock = -EBADF;
    r = bly_spawner_helper(spawner, plan, &child_ops, warm, &warm->child, err);
    if (r < 0)
        return r;
    (void)uv_timer_init(loop, &warm->timer); /* cannot fail */
    warm->timer.data = warm;
    warm->n_handles = 1;
    *ret_warm = bly_take_ptr(&warm);
    return 0;
}

unsigned bly_warm_rung(const struct bly_warm *warm)
{
    return warm->rung;
}

int bly_warm_send(struct bly_warm *warm, uint32_t seq, const struct bly_fs_request *request,
                  const void *data, size_t len, int payload_fd)
{
    int r = bly_hwire_send_request(warm->sock, seq, request, data, len, payload_fd);

    if (r == -EAGAIN)
        (void)uv_poll_start(&warm->poll, UV_READABLE | UV_WRITABLE, on_event);
    return r;
}

void bly_warm_due(struct bly_warm *warm, uint64_t at_ms)
{
    uint64_t now = uv_now(warm->timer.loop);

    if (warm->ending || (warm->due_at != 0 && warm->due_at <= at_ms))
        return;
    warm->due_at = at_ms;
    (void)uv_timer_start(&warm->timer, on_timer, at_ms > now ? at_ms - now : 0, 0);
}

void bly_warm_kill(struct bly_warm *warm)
{
    if (warm->child != NULL)
        bly_child_signal(warm->child, SIGKILL);
}

static void on_end_limit(uv_timer_t *timer)
{
    struct bly_warm *warm = timer->data;

    bly_warm_kill(warm);
}

void bly_warm_end(struct bly_warm *warm)
{
    if (warm->ending)
        return;
    warm->ending = true;
    close_socket(warm);
    (void)uv_timer_stop(&warm->timer);
    if (warm->child == NULL)
        close_timer(warm);
    else
        (void)uv_timer_start(&warm->timer, on_end_limit, END_MS, 0);
}
