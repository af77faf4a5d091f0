#include "execbench/program.h"

#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "execbench/ground.h"
#include "execbench/wire.h"
#include "support.h"

void program_init(struct program *program)
{
    *program = (struct program){0};
    bly_buf_init(&program->output, BENCH_BUF_MAX);
}

void program_deinit(struct program *program)
{
    bly_buf_deinit(&program->output);
}

/* ---- requests ---- */

static void add_start(struct subject *subject, struct bly_buf *params, const char *id,
                      const char *const *argv, struct program_how how)
{
    char root[GROUND_PATH_MAX + 64];

    if (how.wall == WALL_COLD)
        ground_cold_path(subject->ground, subject->letter, subject->n_cold++, root);
    else
        (void)snprintf(root, sizeof(root), "%s", subject->ground->workspace);
    (void)bly_buf_printf(params, "{\"processId\":\"%s\",\"argv\":[", id);
    for (size_t i = 0; argv[i]; i++)
        (void)bly_buf_printf(params, "%s\"%s\"", i ? "," : "", argv[i]);
    (void)bly_buf_printf(params,
                         "],\"cwd\":\"%s%s\",\"env\":{\"PATH\":\"/usr/bin:/bin\"},\"tty\":%s,"
                         "\"arg0\":null",
                         subject_scheme(subject), root, how.has_terminal ? "true" : "false");
    if (subject->dialect == 'b') {
        (void)bly_buf_printf(params, ",\"pipeStdin\":%s", how.has_stdin ? "true" : "false");
        subject_add_wall(subject, params, root, how.wall);
    }
    (void)bly_buf_add_char(params, '}');
}

int program_ask(struct subject *subject, struct program *program, const char *method,
                const struct bly_buf *params)
{
    subject_put(subject, subject->wire, method, params);
    program->request = subject->last_request;
    program->has_answer = false;
    program->asked_us = bench_now_us();
    return wire_flush(subject->wire, &subject->err);
}

int program_start(struct subject *subject, struct program *program, const char *const *argv,
                  struct program_how how)
{
    struct bly_buf *params = subject_params(subject);
    struct program started = {.writes_zeros = program->writes_zeros, .output = program->output};

    bench_empty(&started.output);
    (void)snprintf(started.id, sizeof(started.id), "p%u", ++subject->n_programs);
    *program = started;
    add_start(subject, params, program->id, argv, how);
    return program_ask(subject, program, "process/start", params);
}

/* ---- what comes ---- */

static int on_answer(struct subject *subject, struct program *program, struct span message,
                     double us)
{
    struct span error, result, wall;

    if (span_member(message, "error", &error))
        return subject_refused(subject, "a request about a program", error);
    program->has_answer = true;
    program->answer_us = us;
    if (span_member(message, "result", &result) && span_member_string(result, "sandboxType", &wall))
        (void)snprintf(program->wall, sizeof(program->wall), "%.*s", (int)span_len(wall), wall.at);
    return 0;
}

/* Zeros are As in base64. */
static int count_zeros(struct subject *subject, struct program *program, struct span text)
{
    size_t len = span_len(text), padding = 0;

    while (padding < 2 && padding < len && text.end[-1 - (long)padding] == '=')
        padding++;
    len -= padding;
    if (len > 0 && (text.at[0] != 'A' || memcmp(text.at, text.at + 1, len - 1) != 0))
        return subject_wrong(subject, "the stream's contents differ");
    program->n_zeros += span_len(text) / 4 * 3 - padding;
    return 0;
}

static int on_output(struct subject *subject, struct program *program, struct span params,
                     double us)
{
    struct bly_buf *output = &program->output;
    struct span text;
    size_t n = 0;

    if (!span_member_string(params, "chunk", &text))
        return subject_wrong(subject, "output without a chunk");
    program->output_us = us;
    if (program->writes_zeros)
        return count_zeros(subject, program, text);
    if (bly_buf_reserve(output, span_len(text)) < 0 ||
        bly_base64_decode(text.at, span_len(text), output->data + output->len, &n, NULL) < 0)
        return subject_wrong(subject, "output that cannot be decoded");
    output->len += n;
    return 0;
}

static int count_event(struct subject *subject, struct program *program, struct span params)
{
    int64_t seq;

    if (!span_member_number(params, "seq", &seq))
        return 0;
    if (seq < 1)
        return subject_wrong(subject, "an event with the number %lld", (long long)seq);
    program->n_disordered += seq != ++program->n_events;
    if (seq > program->highest_event)
        program->highest_event = seq;
    return 0;
}

static int on_event(struct subject *subject, struct program *program, struct span method,
                    struct span params, double us)
{
    int r = count_event(subject, program, params);

    if (r < 0)
        return r;
    if (span_is_string(method, "process/output"))
        return on_output(subject, program, params, us);
    if (span_is_string(method, "process/exited")) {
        program->has_exited = true;
        program->exit_us = us;
        if (!span_member_number(params, "exitCode", &program->exit_code))
            return subject_wrong(subject, "an exit without a code");
    } else if (span_is_string(method, "process/closed")) {
        program->has_closed = true;
        program->close_us = us;
        (void)span_member_number(params, "seq", &program->closed_event);
    }
    return 0;
}

int program_next(struct subject *subject, struct program *program)
{
    struct span message, method, params, id;
    int64_t request;
    double us;
    int r = wire_next(subject->wire, &message, &subject->err);

    if (r < 0)
        return r;
    us = bench_now_us() - program->asked_us;
    if (span_member_number(message, "id", &request))
        return request == program->request ? on_answer(subject, program, message, us) : 0;
    if (!span_member(message, "method", &method) || !span_member(message, "params", &params) ||
        !span_member(params, "processId", &id) || !span_is_string(id, program->id))
        return 0;
    return on_event(subject, program, method, params, us);
}

bool program_is_done(const struct program *program)
{
    return program->has_answer && program->has_exited && program->has_closed &&
           program->n_events >= program->closed_event;
}

int program_run(struct subject *subject, struct program *program, const char *const *argv,
                struct program_how how)
{
    int r = program_start(subject, program, argv, how);

    while (r == 0 && !program_is_done(program))
        r = program_next(subject, program);
    if (r == 0 && (program->n_events != program->closed_event ||
                   program->highest_event != program->closed_event))
        r = subject_wrong(subject, "events are missing or came twice");
    return r;
}
