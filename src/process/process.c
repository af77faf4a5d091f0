#include "process/process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/limits.h"
#include "launcher/launcher.h"
#include "process/denial.h"
#include "process/input.h"

enum {
    CHUNK_MAX = 64 << 10,
    CHUNKS_A_TURN = 4,     /* of one stream, before other processes get theirs */
    DRAIN_MAX = 1 << 20,   /* bytes of one stream read at exit: the largest pipe */
    LATE_OUTPUT_MS = 20,   /* spec sandbox.md 6.6 */
    FORCED_CLOSE_MS = 250, /* after a terminated program's exit */
    REST_MS = 50,          /* until a terminal is looked at that nobody had open */
};

/* One descriptor: a pipe, or a terminal's master, which goes both ways. */
struct channel {
    struct bly_process *process;
    int fd;      /* -EBADF when there is none, or it has ended */
    bool polled; /* the handle is open */
    bool output; /* is read from; stays true after the end */
    bool rests;  /* a terminal that nobody has open for now */
    enum bly_stream stream;
    int events; /* watched; libuv makes two system calls even of a start that changes nothing */
    uv_poll_t poll;
};

enum { INPUT, OUTPUT, ERRORS, N_CHANNELS };

struct bly_process {
    uv_loop_t *loop;
    const struct bly_process_ops *ops;
    void *arg;
    size_t chunk_max;
    bool sandboxed, tty, has_stdin;

    struct bly_child *child; /* NULL once reaped, or never started */
    unsigned rung;           /* of its wall */
    struct channel channels[N_CHANNELS];
    struct channel *input_channel; /* NULL: no stdin */
    struct bly_input *input;
    struct bly_ring *ring;
    uv_timer_t timer; /* a terminal's rest, then late output, then forced close */
    unsigned n_handles;

    uint64_t next_seq, exit_seq;
    int status;   /* as waitpid(2) gave it */
    bool started; /* or failed to */
    bool reaped;  /* status is valid */
    bool waited;  /* for late output */
    bool exited;  /* announced */
    bool closed;  /* announced */
    bool refused; /* its wall said, at the end, that it has refused something */
    enum bly_evidence denied;
    bool terminated, paused, closing;
};

static int exit_code_of(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void changed(struct bly_process *process)
{
    if (!process->closing)
        process->ops->changed(process->arg);
}

/* ---- the end of the object ------------------------------------------------------------------ */

static void free_if_done(struct bly_process *process)
{
    if (!process->closing || process->n_handles > 0 || process->child != NULL)
        return;
    (void)bly_input_free(process->input);
    (void)bly_ring_free(process->ring);
    free(process);
}

static void handle_closed(struct bly_process *process)
{
    process->n_handles--;
    free_if_done(process);
}

static void on_timer_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct channel *channel = handle->data;

    handle_closed(channel->process);
}

/* ---- channels ------------------------------------------------------------------------------- */

/*
 * The handle is closed before the descriptor and never touched again: even stopping an idle one
 * takes its descriptor's number out of the epoll set, and that may be somebody else's by then.
 */
static void channel_end(struct channel *channel)
{
    if (channel->polled)
        uv_close((uv_handle_t *)&channel->poll, on_poll_closed);
    channel->polled = false;
    channel->fd = bly_close(channel->fd);
}

static void on_poll(uv_poll_t *poll, int status, int events);

/* Watches what is wanted now. */
static void channel_watch(struct channel *channel)
{
    struct bly_process *process = channel->process;
    int events = 0;

    if (channel->fd < 0 || !channel->polled)
        return;
    if (channel->output && !channel->rests && !process->paused)
        events |= UV_READABLE;
    if (channel == process->input_channel && bly_input_wants_room(process->input))
        events |= UV_WRITABLE;

    if (events == channel->events)
        return;
    channel->events = events;
    if (events != 0)
        (void)uv_poll_start(&channel->poll, events, on_poll);
    else
        (void)uv_poll_stop(&channel->poll);
}

static void watch_input(struct bly_process *process)
{
    if (process->input_channel != NULL)
        channel_watch(process->input_channel);
}

static bool outputs_ended(const struct bly_process *process)
{
    for (int i = 0; i < N_CHANNELS; i++)
        if (process->channels[i].output && process->channels[i].fd >= 0)
            return false;
    return true;
}

static void emit(struct bly_process *process, enum bly_stream stream, const uint8_t *data,
                 size_t len)
{
    uint64_t seq = process->next_seq++;

    /* Without memory the chunk is not retained; it is announced all the same. */
    (void)bly_ring_push(process->ring, seq, (int)stream, data, len);
    process->ops->output(process->arg, seq, stream, data, len);
}

/*
 * Reads one chunk. A terminal gives 4 KiB at most a time, so there it reads on until the chunk is
 * full. Returns its length; 0: nothing there now; negative: the end.
 */
static ssize_t read_chunk(const struct channel *channel, uint8_t *buf)
{
    size_t max = channel->process->chunk_max;
    size_t len = 0;

    while (len < max) {
        ssize_t n = read(channel->fd, buf + len, max - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 && len > 0)
            break; /* An end is met again by the next read. */
        if (n <= 0)
            return n < 0 && errno == EAGAIN ? 0 : -1; /* A terminal ends with EIO. */
        len += (size_t)n;
        if (channel->stream != BLY_PTY)
            break;
    }
    return (ssize_t)len;
}

static void on_rested(uv_timer_t *timer)
{
    struct bly_process *process = timer->data;
    struct channel *channel = &process->channels[OUTPUT];

    channel->rests = false;
    channel_watch(channel);
}

/*
 * A program that has closed its terminal need not have exited: it may be about to, and to close the
 * master now would send it SIGHUP; or it opens /dev/tty again. The end comes with the exit.
 */
static void channel_hung_up(struct channel *channel)
{
    struct bly_process *process = channel->process;

    if (channel->stream != BLY_PTY || process->reaped) {
        channel_end(channel);
        return;
    }
    channel->rests = true;
    (void)uv_timer_start(&process->timer, on_rested, REST_MS, 0);
}

/* Up to `max_bytes`; the last chunk may go above. Calls back: the process may be closing after. */
static void channel_read(struct channel *channel, size_t max_bytes)
{
    struct bly_process *process = channel->process;
    uint8_t buf[CHUNK_MAX];
    size_t done = 0;

    while (channel->fd >= 0 && done < max_bytes && !process->closing && !process->paused) {
        ssize_t n = read_chunk(channel, buf);

        if (n == 0)
            return;
        if (n < 0) {
            channel_hung_up(channel);
            return;
        }
        done += (size_t)n;
        emit(process, channel->stream, buf, (size_t)n);
    }
}

static void close_if_ended(struct bly_process *process)
{
    if (process->closing || process->closed || !process->exited || !outputs_ended(process))
        return;
    process->closed = true;
    (void)uv_timer_stop(&process->timer);
    process->ops->closed(process->arg, process->next_seq++);
    changed(process);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct channel *channel = poll->data;
    struct bly_process *process = channel->process;
    uint64_t before = process->next_seq;
    bool failed = status < 0; /* EPOLLERR: the call itself says what is wrong. */

    if (failed)
        channel->events = 0; /* libuv has stopped watching. */
    if (channel == process->input_channel && (failed || (events & UV_WRITABLE)))
        bly_input_flush(process->input);
    if (channel->output && (failed || (events & UV_READABLE)))
        channel_read(channel, (size_t)CHUNKS_A_TURN * process->chunk_max);
    if (process->closing)
        return;

    channel_watch(channel);
    if (process->next_seq != before)
        changed(process);
    close_if_ended(process);
}

/* ---- the exit ------------------------------------------------------------------------------- */

static void drain(struct bly_process *process)
{
    for (int i = 0; i < N_CHANNELS; i++)
        if (process->channels[i].output)
            channel_read(&process->channels[i], DRAIN_MAX);
}

static void on_forced_close(uv_timer_t *timer)
{
    struct bly_process *process = timer->data;

    if (process->paused)
        return; /* Going on starts the timer again. */
    drain(process);
    if (process->closing)
        return;
    for (int i = 0; i < N_CHANNELS; i++)
        if (process->channels[i].output)
            channel_end(&process->channels[i]);
    close_if_ended(process);
}

/* Whoever left the group may hold the pipes for ever; the client was promised an end. */
static void limit_close(struct bly_process *process)
{
    if (process->terminated && process->exited && !process->closed && !process->closing)
        (void)uv_timer_start(&process->timer, on_forced_close, FORCED_CLOSE_MS, 0);
}

static void announce_exit(struct bly_process *process)
{
    int code = exit_code_of(process->status);

    if (process->sandboxed)
        process->denied = bly_denial_evidence(process->ring, code, process->refused);
    process->exited = true;
    process->exit_seq = process->next_seq++;
    process->ops->exited(process->arg, process->exit_seq, code, process->denied);
    changed(process);
    close_if_ended(process);
    limit_close(process);
}

static void on_late_output(uv_timer_t *timer);

/* What the program wrote comes before its exit, and decides about `denied`. */
static void settle_exit(struct bly_process *process)
{
    uint64_t before = process->next_seq;

    if (process->paused || process->exited)
        return;
    drain(process);
    if (process->closing || process->paused)
        return;
    if (process->next_seq != before)
        changed(process);
    if (process->closing || process->paused)
        return;

    if (process->sandboxed && exit_code_of(process->status) != 0 && !process->waited &&
        !outputs_ended(process)) {
        process->waited = true;
        (void)uv_timer_start(&process->timer, on_late_output, LATE_OUTPUT_MS, 0);
        return;
    }
    announce_exit(process);
}

static void on_late_output(uv_timer_t *timer)
{
    settle_exit(timer->data);
}

unsigned bly_process_rung(const struct bly_process *process)
{
    return process->rung;
}

/* ---- the child ------------------------------------------------------------------------------ */

static void channel_open(struct bly_process *process, int which, int fd, bool output)
{
    struct channel *channel = &process->channels[which];

    if (fd < 0)
        return;
    channel->fd = fd;
    channel->output = output;
    channel->stream = process->tty ? BLY_PTY : which == ERRORS ? BLY_STDERR : BLY_STDOUT;
    if (uv_poll_init(process->loop, &channel->poll, fd) < 0) {
        channel_end(channel);
        return;
    }
    channel->polled = true;
    channel->poll.data = channel;
    process->n_handles++;
}

static void start_failed(struct bly_process *process, const struct bly_err *err)
{
    process->child = NULL;
    bly_input_end(process->input);
    if (!process->closing)
        process->ops->started(process->arg, err);
    free_if_done(process);
}

static void on_child_started(void *arg, pid_t pid, int in_fd, int out_fd, int err_fd,
                             const struct bly_err *err)
{
    struct bly_process *process = arg;

    (void)pid;
    process->started = true;
    if (err != NULL) {
        start_failed(process, err);
        return;
    }
    if (process->closing) { /* It is being killed. */
        (void)bly_close(in_fd);
        (void)bly_close(out_fd);
        (void)bly_close(err_fd);
        return;
    }

    process->rung = bly_child_rung(process->child);
    channel_open(process, INPUT, in_fd, false);
    channel_open(process, OUTPUT, out_fd, true);
    channel_open(process, ERRORS, err_fd, true);
    process->ops->started(process->arg, NULL);
    if (process->closing)
        return;
    if (process->input_channel != NULL) {
        bly_input_open(process->input, process->input_channel->fd);
        bly_input_flush(process->input);
    }
    for (int i = 0; i < N_CHANNELS && !process->closing; i++)
        channel_watch(&process->channels[i]);
}

static void on_child_exited(void *arg, int status)
{
    struct bly_process *process = arg;

    process->refused = bly_child_was_refused(process->child);
    process->child = NULL;
    process->status = status;
    process->reaped = true;
    bly_input_end(process->input);
    if (process->closing) {
        free_if_done(process);
        return;
    }
    if (process->channels[INPUT].fd >= 0)
        channel_end(&process->channels[INPUT]);
    settle_exit(process);
    for (int i = 0; i < N_CHANNELS && !process->closing; i++)
        channel_watch(&process->channels[i]);
}

static const struct bly_child_ops child_ops = {.started = on_child_started,
                                               .exited = on_child_exited};

/* ---- for the session ------------------------------------------------------------------------ */

static int parts_new(struct bly_process *process, const struct bly_limits *limits)
{
    int r = bly_ring_new(limits->retained_bytes, limits->retained_chunks, &process->ring);

    return r < 0 ? r : bly_input_new(limits->stdin_bytes, &process->input);
}

static void process_init(struct bly_process *process, uv_loop_t *loop,
                         const struct bly_spawn *spawn, const struct bly_limits *limits)
{
    process->loop = loop;
    process->tty = spawn->tty;
    process->has_stdin = spawn->tty || spawn->pipe_stdin;
    process->next_seq = 1;
    /* A chunk above the limit of what is retained could never be read again. */
    process->chunk_max = limits->retained_bytes < CHUNK_MAX ? limits->retained_bytes : CHUNK_MAX;
    for (int i = 0; i < N_CHANNELS; i++) {
        process->channels[i].process = process;
        process->channels[i].fd = -EBADF;
    }
    if (process->has_stdin)
        process->input_channel = &process->channels[spawn->tty ? OUTPUT : INPUT];
}

int bly_process_start(uv_loop_t *loop, struct bly_spawner *spawner, const struct bly_spawn *spawn,
                      bool sandboxed, const struct bly_limits *limits,
                      const struct bly_process_ops *ops, void *arg,
                      struct bly_process **ret_process, struct bly_err *err)
{
    struct bly_process *process = calloc(1, sizeof(*process));
    int r;

    if (process == NULL)
        return bly_fail(err, BLY_ERR_SPAWN, ENOMEM, "cannot keep track of a process");
    process_init(process, loop, spawn, limits);
    process->sandboxed = sandboxed;
    process->ops = ops;
    process->arg = arg;

    r = parts_new(process, limits);
    if (r < 0)
        (void)bly_fail(err, BLY_ERR_SPAWN, -r, "cannot keep track of a process");
    if (r == 0)
        r = bly_spawner_start(spawner, spawn, &child_ops, process, &process->child, err);
    if (process->input != NULL && (!process->has_stdin || r < 0))
        bly_input_end(process->input);
    if (r < 0) {
        (void)bly_input_free(process->input);
        (void)bly_ring_free(process->ring);
        free(process);
        return r;
    }

    (void)uv_timer_init(loop, &process->timer);
    process->timer.data = process;
    process->n_handles = 1;
    *ret_process = process;
    return 0;
}

void bly_process_close(struct bly_process *process)
{
    process->closing = true;
    bly_input_end(process->input);
    if (process->child != NULL)
        bly_child_signal(process->child, SIGKILL);
    for (int i = 0; i < N_CHANNELS; i++)
        channel_end(&process->channels[i]);
    uv_close((uv_handle_t *)&process->timer, on_timer_closed);
}

struct bly_process_state bly_process_state(const struct bly_process *process)
{
    return (struct bly_process_state){.starting = !process->started,
                                      .exited = process->exited,
                                      .closed = process->closed,
                                      .sandbox_denied = process->denied != BLY_EVIDENCE_NONE,
                                      .has_stdin = process->has_stdin,
                                      .exit_code = exit_code_of(process->status),
                                      .next_seq = process->next_seq,
                                      .exit_seq = process->exit_seq};
}

const struct bly_ring *bly_process_ring(const struct bly_process *process)
{
    return process->ring;
}

void bly_process_write(struct bly_process *process, const void *data, size_t len,
                       const char *write_id, bly_write_done done, void *arg)
{
    bly_input_write(process->input, data, len, write_id, done, arg);
    if (!process->closing)
        watch_input(process);
}

bool bly_process_terminate(struct bly_process *process)
{
    if (process->child == NULL)
        return false;
    process->terminated = true;
    bly_child_signal(process->child, SIGKILL);
    return true;
}

void bly_process_interrupt(struct bly_process *process)
{
    if (process->child != NULL)
        bly_child_signal(process->child, SIGINT);
}

void bly_process_pause(struct bly_process *process, bool paused)
{
    if (process->paused == paused || process->closing)
        return;
    process->paused = paused;
    for (int i = 0; i < N_CHANNELS; i++)
        channel_watch(&process->channels[i]);
    if (paused || !process->reaped)
        return;
    /* Both wait for what is in the pipes, which may call back: not from inside this call. */
    if (!process->exited)
        (void)uv_timer_start(&process->timer, on_late_output, 0, 0);
    else
        limit_close(process);
}
