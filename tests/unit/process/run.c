#include "unit/process/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const environment[] = {"PATH=/usr/bin:/bin", NULL};

static void next_event(struct run *run, uint64_t seq, char what)
{
    assert_true(run->answered);
    assert_false(run->closed);
    assert_int_equal(seq, ++run->last_seq);
    assert_int_equal(bly_buf_add_char(&run->events, what), 0);
}

static void on_started(void *arg, const struct bly_err *err)
{
    struct run *run = arg;

    assert_false(run->answered);
    run->answered = true;
    run->failed = err != NULL;
    if (err != NULL)
        run->err = *err;
}

static void on_output(void *arg, uint64_t seq, enum bly_stream stream, const uint8_t *data,
                      size_t len)
{
    struct run *run = arg;

    next_event(run, seq, 'o');
    assert_true(len > 0);
    assert_int_equal(bly_buf_add(&run->text[stream], data, len), 0);
    run->max_chunk = len > run->max_chunk ? len : run->max_chunk;
}

static void on_exited(void *arg, uint64_t seq, int exit_code, enum bly_evidence evidence)
{
    struct run *run = arg;

    assert_false(run->exited);
    next_event(run, seq, 'x');
    run->exited = true;
    run->code = exit_code;
    run->denied = evidence != BLY_EVIDENCE_NONE;
    run->evidence = evidence;
}

static void on_closed(void *arg, uint64_t seq)
{
    struct run *run = arg;

    assert_true(run->exited);
    next_event(run, seq, 'c');
    run->closed = true;
}

static void on_changed(void *arg)
{
    struct run *run = arg;

    run->n_changed++;
}

static const struct bly_process_ops ops = {.started = on_started,
                                           .output = on_output,
                                           .exited = on_exited,
                                           .closed = on_closed,
                                           .changed = on_changed};

void run_init(struct run *run, struct fixture *fixture)
{
    *run = (struct run){.fixture = fixture};
    bly_limits_defaults(&run->limits);
    for (int i = 0; i < 3; i++)
        bly_buf_init(&run->text[i], 256 << 20);
    bly_buf_init(&run->events, 16 << 20);
}

void run_start(struct run *run, const struct bly_spawn *spawn, bool sandboxed)
{
    assert_int_equal(bly_process_start(&run->fixture->loop, run->fixture->spawner, spawn, sandboxed,
                                       &run->limits, &ops, run, &run->process, &run->err),
                     0);
    assert_false(run->answered);
}

void run_script(struct run *run, const char *script, bool tty, bool pipe_stdin)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    const struct bly_spawn spawn = {.argv = argv,
                                    .envp = environment,
                                    .cwd = run->fixture->dir,
                                    .tty = tty,
                                    .pipe_stdin = pipe_stdin};

    run_start(run, &spawn, false);
}

void run_wait_answer(struct run *run)
{
    fixture_wait(run->fixture, &run->answered);
}

static bool is_over(void *arg)
{
    const struct run *run = arg;

    return run->closed || run->failed;
}

void run_wait_closed(struct run *run)
{
    fixture_wait_for(run->fixture, is_over, run);
}

struct search {
    struct run *run;
    enum bly_stream stream;
    const char *text;
};

static bool is_found(void *arg)
{
    const struct search *search = arg;

    return strstr(run_text(search->run, search->stream), search->text) != NULL;
}

void run_wait_text(struct run *run, enum bly_stream stream, const char *text)
{
    struct search search = {run, stream, text};

    fixture_wait_for(run->fixture, is_found, &search);
}

const char *run_text(struct run *run, enum bly_stream stream)
{
    struct bly_buf *buf = &run->text[stream];

    assert_int_equal(bly_buf_reserve(buf, 1), 0);
    buf->data[buf->len] = '\0';
    return (const char *)buf->data;
}

void run_close(struct run *run)
{
    if (run->process != NULL)
        bly_process_close(run->process);
    run->process = NULL;
    for (int i = 0; i < 3; i++)
        bly_buf_deinit(&run->text[i]);
    bly_buf_deinit(&run->events);
}
