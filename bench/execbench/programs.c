#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "execbench/program.h"
#include "execbench/result.h"
#include "execbench/wire.h"
#include "execbench/workload.h"
#include "support.h"

enum {
    RUNS_BEFORE = 10, /* that are not measured */
    COLD_RUNS_BEFORE = 2,
    LINES_BEFORE = 20,
    LEAST = 5, /* samples, however slow the server is */
    POLL_MS = 1000,
    STREAM_BYTES = 256 << 20,
    TERMINAL_STREAM_BYTES = 64 << 20,
    SMALL_PART = 16, /* of a stream, to warm up */
};

/* ---- programs that run to their end ---- */

/* When each thing happened, in every run. */
struct milestones {
    struct result answer, output, exit, close;
};

static void milestones_init(struct milestones *milestones)
{
    result_init(&milestones->answer);
    result_init(&milestones->output);
    result_init(&milestones->exit);
    result_init(&milestones->close);
}

static void milestones_deinit(struct milestones *milestones)
{
    result_deinit(&milestones->answer);
    result_deinit(&milestones->output);
    result_deinit(&milestones->exit);
    result_deinit(&milestones->close);
}

static void milestones_add(struct milestones *milestones, const struct program *program)
{
    result_add(&milestones->answer, program->answer_us);
    result_add(&milestones->output, program->output_us);
    result_add(&milestones->exit, program->exit_us);
    result_add(&milestones->close, program->close_us);
}

static void milestones_note(const struct milestones *milestones, struct result *result,
                            bool has_output)
{
    result_note(result, "reply_p50", result_median(&milestones->answer));
    result_note(result, "exited_p50", result_median(&milestones->exit));
    result_note(result, "closed_p50", result_median(&milestones->close));
    if (has_output)
        result_note(result, "output_p50", result_median(&milestones->output));
}

static int check_run(struct subject *subject, const struct program *program, const char *expected,
                     enum wall wall)
{
    const struct bly_buf *output = &program->output;

    if (program->exit_code != 0)
        return subject_wrong(subject, "exit code %lld: %.*s", (long long)program->exit_code,
                             (int)output->len, (const char *)output->data);
    if (output->len != strlen(expected) || memcmp(output->data, expected, output->len) != 0)
        return subject_wrong(subject, "wrong output (%zu bytes)", output->len);
    if (wall && strcmp(program->wall, "none") == 0)
        return subject_wrong(subject, "the server says there is no wall");
    return 0;
}

/* /bin/true, measured to its exit; or /bin/echo, to its end with all of its output. */
static int run_once(struct subject *subject, const struct workload *workload, bool echoes,
                    unsigned i, struct program *program)
{
    struct program_how how = {.has_terminal = workload->has_terminal, .wall = workload->wall};
    char word[32], line[40] = "";
    const char *const echo[] = {"/bin/echo", word, NULL}, *const nothing[] = {"/bin/true", NULL};
    int r;

    (void)snprintf(word, sizeof(word), "execbench-%u", i);
    if (echoes)
        (void)snprintf(line, sizeof(line), "%s%s", word, workload->has_terminal ? "\r\n" : "\n");
    r = program_run(subject, program, echoes ? echo : nothing, how);
    return r < 0 ? r : check_run(subject, program, line, workload->wall);
}

static double whole_run(const struct program *program, bool echoes)
{
    if (!echoes)
        return program->exit_us;
    return program->close_us > program->output_us ? program->close_us : program->output_us;
}

static int measure_runs(struct subject *subject, const struct workload *workload,
                        struct result *result, unsigned n, double seconds, bool echoes)
{
    unsigned before = workload->wall == WALL_COLD ? COLD_RUNS_BEFORE : RUNS_BEFORE;
    struct milestones milestones;
    struct program program;
    int r = workload->wall ? wall_check_programs(subject) : 0;

    program_init(&program);
    milestones_init(&milestones);
    if (workload->wall == WALL_COLD)
        ground_make_cold(subject->ground, subject->letter, subject->n_cold,
                         subject->n_cold + before + n);
    for (unsigned i = 0; i < before && r == 0; i++)
        r = run_once(subject, workload, echoes, i, &program);
    result_begin(result, subject);
    while (r == 0 && result->n < n && !result_is_enough(result, seconds, LEAST)) {
        r = run_once(subject, workload, echoes, before + (unsigned)result->n, &program);
        milestones_add(&milestones, &program);
        result_add(result, whole_run(&program, echoes));
    }
    if (r == 0) {
        result_end(result, subject, (double)result->n, true);
        milestones_note(&milestones, result, echoes);
    }
    milestones_deinit(&milestones);
    program_deinit(&program);
    return r;
}

int run_true(struct subject *subject, const struct workload *workload, struct result *result,
             unsigned n, double seconds)
{
    return measure_runs(subject, workload, result, n, seconds, false);
}

int run_echo(struct subject *subject, const struct workload *workload, struct result *result,
             unsigned n, double seconds)
{
    return measure_runs(subject, workload, result, n, seconds, true);
}

/* ---- a client that polls with process/read ---- */

struct polled {
    char id[32];
    int64_t after; /* number of the last chunk */
    bool is_closed;
    struct bly_buf output;
    unsigned n_polls;
};

static int take_chunk(struct subject *subject, struct span chunk, struct polled *polled)
{
    struct bly_buf *output = &polled->output;
    struct span text;
    size_t n = 0;

    if (!span_member_number(chunk, "seq", &polled->after) ||
        !span_member_string(chunk, "chunk", &text) || bly_buf_reserve(output, span_len(text)) < 0 ||
        bly_base64_decode(text.at, span_len(text), output->data + output->len, &n, NULL) < 0)
        return subject_wrong(subject, "a chunk that cannot be understood");
    output->len += n;
    return 0;
}

static int poll_once(struct subject *subject, struct polled *polled)
{
    struct bly_buf *params = subject_params(subject);
    struct span chunks, chunk = {0};
    struct reply reply;
    int64_t next;
    int r;

    polled->n_polls++;
    (void)bly_buf_printf(params,
                         "{\"processId\":\"%s\",\"afterSeq\":%lld,\"maxBytes\":null,\"waitMs\":%d}",
                         polled->id, (long long)polled->after, POLL_MS);
    r = subject_call(subject, "process/read", params, &reply);
    if (r < 0)
        return r;
    if (span_member(reply.result, "chunks", &chunks)) {
        while (r == 0 && span_next(chunks, &chunk))
            r = take_chunk(subject, chunk, polled);
    }
    if (span_member_number(reply.result, "nextSeq", &next) && next > 0)
        polled->after = next - 1;
    polled->is_closed = span_member_is(reply.result, "closed", "true");
    if (r == 0 && polled->is_closed && !span_member_is(reply.result, "exitCode", "0"))
        return subject_wrong(subject, "/bin/echo did not exit with 0");
    return r;
}

static int poll_run(struct subject *subject, struct program *program, struct polled *polled,
                    double *ret_us)
{
    const char *const argv[] = {"/bin/echo", "execbench", NULL};
    int r = program_start(subject, program, argv, (struct program_how){0});

    bench_empty(&polled->output);
    (void)snprintf(polled->id, sizeof(polled->id), "%s", program->id);
    polled->after = 0;
    polled->is_closed = false;
    while (r == 0 && !program->has_answer)
        r = program_next(subject, program);
    while (r == 0 && !polled->is_closed)
        r = poll_once(subject, polled);
    *ret_us = bench_now_us() - program->asked_us;
    if (r == 0 && (polled->output.len != strlen("execbench\n") ||
                   memcmp(polled->output.data, "execbench\n", polled->output.len) != 0))
        return subject_wrong(subject, "wrong output was read");
    return r;
}

int run_poll(struct subject *subject, const struct workload *workload, struct result *result,
             unsigned n, double seconds)
{
    struct program program;
    struct polled polled = {0};
    double us;
    int r = 0;

    (void)workload;
    program_init(&program);
    bly_buf_init(&polled.output, BENCH_BUF_MAX);
    for (unsigned i = 0; i < RUNS_BEFORE && r == 0; i++)
        r = poll_run(subject, &program, &polled, &us);
    polled.n_polls = 0;
    result_begin(result, subject);
    while (r == 0 && result->n < n && !result_is_enough(result, seconds, LEAST)) {
        r = poll_run(subject, &program, &polled, &us);
        result_add(result, us);
    }
    if (r == 0) {
        result_end(result, subject, (double)result->n, true);
        result_note(result, "polls_per_op", (double)polled.n_polls / (double)result->n);
    }
    bly_buf_deinit(&polled.output);
    program_deinit(&program);
    return r;
}

/* ---- a program that one talks with ---- */

static int start_cat(struct subject *subject, struct program *program, bool has_terminal)
{
    const char *const raw[] = {"/bin/sh", "-c", "stty raw -echo; printf R; exec cat", NULL};
    const char *const plain[] = {"/bin/cat", NULL};
    struct program_how how = {.has_terminal = has_terminal, .has_stdin = !has_terminal};
    int r = program_start(subject, program, has_terminal ? raw : plain, how);

    while (r == 0 && (!program->has_answer || (has_terminal && program->output.len == 0)))
        r = program_next(subject, program);
    return r;
}

/* From process/write sent to the same bytes back. */
static int say_line(struct subject *subject, struct program *program, unsigned i)
{
    struct bly_buf *params = subject_params(subject);
    char line[32], text[48] = "";
    size_t len = (size_t)snprintf(line, sizeof(line), "line %08u\n", i);
    int r;

    bly_base64_encode(line, len, text);
    (void)bly_buf_printf(params, "{\"processId\":\"%s\",\"chunk\":\"%s\"", program->id, text);
    if (subject->dialect == 'b')
        (void)bly_buf_printf(params, ",\"writeId\":\"w%u\"", ++subject->n_writes);
    (void)bly_buf_add_char(params, '}');
    bench_empty(&program->output);
    r = program_ask(subject, program, "process/write", params);
    while (r == 0 && (!program->has_answer || program->output.len < len)) {
        r = program_next(subject, program);
        if (r == 0 && program->has_exited)
            r = subject_wrong(subject, "cat has exited");
    }
    if (r == 0 && (program->output.len != len || memcmp(program->output.data, line, len) != 0))
        r = subject_wrong(subject, "cat's output differs from its input");
    return r;
}

static int end_cat(struct subject *subject, struct program *program)
{
    struct bly_buf *params = subject_params(subject);
    int r;

    (void)bly_buf_printf(params, "{\"processId\":\"%s\"}", program->id);
    r = program_ask(subject, program, "process/terminate", params);
    while (r == 0 && !program->has_closed)
        r = program_next(subject, program);
    return r;
}

int run_cat(struct subject *subject, const struct workload *workload, struct result *result,
            unsigned n, double seconds)
{
    struct result answers;
    struct program program;
    unsigned i;
    int r;

    result_init(&answers);
    program_init(&program);
    r = start_cat(subject, &program, workload->has_terminal);
    for (i = 0; i < LINES_BEFORE && r == 0; i++)
        r = say_line(subject, &program, i);
    result_begin(result, subject);
    for (; r == 0 && result->n < n && !result_is_enough(result, seconds, LEAST); i++) {
        r = say_line(subject, &program, i);
        result_add(result, program.output_us);
        result_add(&answers, program.answer_us);
    }
    if (r == 0) {
        result_end(result, subject, (double)result->n, false);
        result_note(result, "reply_p50", result_median(&answers));
        r = end_cat(subject, &program);
    }
    program_deinit(&program);
    result_deinit(&answers);
    return r;
}

/* ---- a program that writes much ---- */

static int stream_once(struct subject *subject, bool has_terminal, size_t total,
                       struct program *program)
{
    char count[24];
    const char *const argv[] = {"/usr/bin/head", "-c", count, "/dev/zero", NULL};
    int r;

    (void)snprintf(count, sizeof(count), "%zu", total);
    r = program_run(subject, program, argv, (struct program_how){.has_terminal = has_terminal});
    if (r < 0)
        return r;
    if (program->exit_code != 0)
        return subject_wrong(subject, "head did not exit with 0");
    return program->n_zeros == total
               ? 0
               : subject_wrong(subject, "%zu of %zu bytes came", program->n_zeros, total);
}

int run_stream(struct subject *subject, const struct workload *workload, struct result *result,
               unsigned n, double seconds)
{
    size_t total = workload->has_terminal ? TERMINAL_STREAM_BYTES : STREAM_BYTES;
    struct program program;
    int r;

    program_init(&program);
    program.writes_zeros = true;
    r = stream_once(subject, workload->has_terminal, total / SMALL_PART, &program);
    result_begin(result, subject);
    while (r == 0 && result->n < n && !result_is_enough(result, seconds * 2, 1)) {
        r = stream_once(subject, workload->has_terminal, total, &program);
        result_add(result, program.output_us);
    }
    if (r == 0) {
        result_end(result, subject, (double)result->n, false);
        result->bytes = (double)total;
        result_note(result, "chunks", (double)program.n_events - 2);
        result_note(result, "out_of_order", (double)program.n_disordered);
    }
    program_deinit(&program);
    return r;
}
