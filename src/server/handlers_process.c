#include <stdlib.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "launcher/launcher.h"
#include "launcher/planner.h"
#include "process/denial.h"
#include "process/ring.h"
#include "sandbox/policy/policy.h"
#include "server/internal.h"

enum {
    READ_ANSWER_OVERHEAD = 1024,  /* bytes of a process/read answer besides chunks and id */
    NOTIFICATION_MAX = 256 << 20, /* a process id may be as long as a message */
};

/* ---- notifications -------------------------------------------------------------------------- */

static void notify(struct bly_task *task, struct bly_buf *buf)
{
    bly_connection_send(task->session->connection, buf);
    bly_buf_deinit(buf);
}

static void on_output(void *arg, uint64_t seq, enum bly_stream stream, const uint8_t *data,
                      size_t len)
{
    struct bly_task *task = arg;
    struct bly_buf buf;

    if (!task->session->connection)
        return;
    bly_buf_init(&buf, NOTIFICATION_MAX);
    (void)bly_proto_add_output(&buf, task->id, task->id_len, seq, (int)stream, data, len);
    notify(task, &buf);
}

static void on_exited(void *arg, uint64_t seq, int exit_code, enum bly_evidence evidence)
{
    struct bly_task *task = arg;
    bool denied = evidence != BLY_EVIDENCE_NONE;
    struct bly_buf buf;

    bly_log(BLY_LOG_INFO, "process-exited",
            "session=%s process=\"%s\" code=%d denied=%d evidence=%s", task->session->id, task->id,
            exit_code, denied, bly_evidence_name(evidence));
    bly_task_stopped(task, task->terminate, exit_code);
    task->session->server->metrics.denied_processes += denied;
    if (!task->session->connection)
        return;
    bly_buf_init(&buf, NOTIFICATION_MAX);
    (void)bly_proto_add_exited(&buf, task->id, task->id_len, seq, exit_code, denied);
    notify(task, &buf);
}

static void on_closed(void *arg, uint64_t seq)
{
    struct bly_task *task = arg;
    struct bly_buf buf;

    bly_task_finish(task);
    if (!task->session->connection)
        return;
    bly_buf_init(&buf, NOTIFICATION_MAX);
    (void)bly_proto_add_closed(&buf, task->id, task->id_len, seq);
    notify(task, &buf);
}

/* ---- process/read --------------------------------------------------------------------------- */

int bly_decode_read(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    return bly_proto_decode_read(params, &call->params.process, err);
}

static struct bly_process_state task_state(const struct bly_task *task)
{
    struct bly_process_state unborn = {.starting = true, .next_seq = 1};

    return task->process ? bly_process_state(task->process) : unborn;
}

static const struct bly_ring *task_ring(const struct bly_task *task)
{
    return task->process ? bly_process_ring(task->process) : task->session->server->empty_ring;
}

/* Spec 4.3.4. A reader that already knows about the exit keeps waiting for late output. */
static bool read_is_due(const struct bly_task *task, uint64_t after_seq)
{
    struct bly_process_state state = task_state(task);
    struct bly_chunk chunk;

    if (state.closed || (state.exited && after_seq < state.next_seq - 1))
        return true;
    return bly_ring_next(task_ring(task), after_seq, &chunk) == 0;
}

static void answer_read(struct bly_call *call)
{
    const struct bly_process_params *params = &call->params.process;
    struct bly_process_state state = task_state(call->task);
    uint64_t max = call->connection->server->config.limits->reply_bytes;
    uint64_t overhead = READ_ANSWER_OVERHEAD + 6 * call->message.id.len;
    struct bly_buf buf;

    bly_call_begin_result(call, &buf);
    (void)bly_proto_encode_read(task_ring(call->task), &state, params->after_seq, params->max_bytes,
                                params->has_max_bytes, max > overhead ? max - overhead : 0, &buf);
    bly_call_end_result(call, &buf);
    bly_call_done(call);
}

static void on_read_timeout(uv_timer_t *timer)
{
    answer_read(timer->data);
}

static void park(struct bly_call *call, uint64_t wait_ms)
{
    struct bly_connection *connection = call->connection;

    (void)uv_timer_init(connection->server->config.loop, &call->timer);
    call->timer.data = call;
    call->has_timer = true;
    (void)uv_timer_start(&call->timer, on_read_timeout, wait_ms, 0);
    bly_call_enqueue(call, &call->task->readers);
    call->parked = true;
    connection->n_calls--;
    connection->n_parked++;
}

static void fail_unknown(struct bly_call *call)
{
    const struct bly_process_params *params = &call->params.process;
    struct bly_err err;

    (void)bly_fail(&err, BLY_ERR_GONE, ESRCH, "unknown process id %.*s",
                   params->process_id_len < BLY_ERR_TEXT_MAX ? (int)params->process_id_len
                                                             : BLY_ERR_TEXT_MAX,
                   params->process_id);
    bly_call_fail(call, &err);
    bly_call_done(call);
}

static struct bly_task *find_task(struct bly_call *call)
{
    const struct bly_process_params *params = &call->params.process;

    call->task = bly_task_find(call->session, params->process_id, params->process_id_len);
    return call->task;
}

void bly_run_read(struct bly_call *call)
{
    const struct bly_limits *limits = call->connection->server->config.limits;
    uint64_t wait_ms = call->params.process.wait_ms;

    if (!find_task(call)) {
        fail_unknown(call);
        return;
    }
    /* Readers that wait cost nothing but memory; one too many gets its answer early. */
    if (wait_ms == 0 || read_is_due(call->task, call->params.process.after_seq) ||
        call->connection->n_parked >= limits->requests_in_flight) {
        answer_read(call);
        return;
    }
    park(call, wait_ms < limits->poll_ms ? wait_ms : limits->poll_ms);
}

static void on_changed(void *arg)
{
    struct bly_task *task = arg;
    struct bly_call *call, *next;

    for (call = TAILQ_FIRST(&task->readers); call; call = next) {
        next = TAILQ_NEXT(call, task_link);
        if (read_is_due(task, call->params.process.after_seq))
            answer_read(call);
    }
}

/* ---- process/write -------------------------------------------------------------------------- */

int bly_decode_write(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    return bly_proto_decode_write(params, &call->params.process, err);
}

static void on_written(void *arg, enum bly_write_status status)
{
    struct bly_call *call = arg;

    bly_call_result(call, status == BLY_WRITE_ACCEPTED ? "{\"status\":\"accepted\"}"
                                                       : "{\"status\":\"stdinClosed\"}");
    bly_call_done(call);
}

static void write_now(struct bly_call *call)
{
    const struct bly_process_params *params = &call->params.process;

    bly_call_enqueue(call, &call->task->writers);
    bly_process_write(call->task->process, params->data, params->data_len, params->write_id,
                      on_written, call);
}

void bly_run_write(struct bly_call *call)
{
    if (!find_task(call)) {
        bly_call_result(call, "{\"status\":\"unknownProcess\"}");
        bly_call_done(call);
    } else if (!call->task->process) {
        bly_call_enqueue(call, &call->task->early_writers);
    } else {
        write_now(call);
    }
}

/* ---- process/terminate, process/signal ------------------------------------------------------ */

int bly_decode_terminate(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    return bly_proto_decode_terminate(params, &call->params.process, err);
}

static bool terminate(struct bly_task *task)
{
    task->terminate = true;
    return !task->process || bly_process_terminate(task->process);
}

void bly_run_terminate(struct bly_call *call)
{
    bool running = find_task(call) && terminate(call->task);

    bly_call_result(call, running ? "{\"running\":true}" : "{\"running\":false}");
    bly_call_done(call);
}

int bly_decode_signal(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    return bly_proto_decode_signal(params, &call->params.process, err);
}

void bly_run_signal(struct bly_call *call)
{
    if (find_task(call) && call->task->process)
        bly_process_interrupt(call->task->process);
    bly_call_result(call, "{}");
    bly_call_done(call);
}

/* ---- process/start -------------------------------------------------------------------------- */

int bly_decode_start(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    struct bly_policy_env env = bly_connection_policy_env(call->connection);

    return bly_proto_decode_start(params, &env, call->connection->server->config.environ,
                                  &call->params.start, err);
}

void bly_deinit_start(struct bly_call *call)
{
    /* Dropped before its turn came: nobody will ever start this one. */
    if (call->task && call->task->start == call) {
        call->task->start = NULL;
        bly_task_free(call->task);
    }
    bly_start_params_deinit(&call->params.start);
}

static int reserve(struct bly_call *call, struct bly_err *err)
{
    const struct bly_start_params *params = &call->params.start;
    int r;

    r = bly_task_new(call->session, params->process_id, params->process_id_len, &call->task, err);
    if (r < 0)
        return r;
    call->task->start = call;
    return 0;
}

/*
 * The id is taken on arrival, so that reads and writes sent right behind find it. If it is taken
 * already by a start before this one, that may still fail: then it is tried again at our turn.
 */
int bly_admit_start(struct bly_call *call, struct bly_err *err)
{
    (void)reserve(call, err);
    return 0;
}

static void start_failed(struct bly_call *call, const struct bly_err *err)
{
    struct bly_task *task = call->task;

    call->connection->server->metrics.starts_failed++;
    bly_log(BLY_LOG_INFO, "process-failed", "session=%s process=\"%s\" reason=\"%s\"",
            call->session->id, task ? task->id : "", err->text);
    if (task) {
        task->start = NULL;
        call->task = NULL;
        bly_task_free(task);
    }
    bly_call_fail(call, err);
    bly_call_done(call);
}

static void on_started(void *arg, const struct bly_err *err)
{
    struct bly_task *task = arg;
    struct bly_call *call = task->start;
    bool walled = call->walled;
    struct bly_buf buf;

    if (err) {
        start_failed(call, err);
        return;
    }
    bly_log(BLY_LOG_INFO, "process-started", "session=%s process=\"%s\" rung=%u", task->session->id,
            task->id, bly_process_rung(task->process));
    task->start = NULL;
    task->running_since_ns = uv_hrtime();
    bly_metrics_process_started(&task->session->server->metrics);
    bly_call_begin_result(call, &buf);
    (void)bly_proto_encode_start(task->id, task->id_len, walled, &buf);
    bly_call_end_result(call, &buf);
    bly_call_done(call);
}

static const struct bly_process_ops process_ops = {
    .started = on_started,
    .output = on_output,
    .exited = on_exited,
    .closed = on_closed,
    .changed = on_changed,
};

static int start_process(struct bly_call *call, const struct bly_plan *plan, struct bly_err *err)
{
    const struct bly_start_params *params = &call->params.start;
    const struct bly_server_config *config = &call->connection->server->config;
    struct bly_task *task = call->task;
    struct bly_spawn spawn = {
        .argv = (const char *const *)params->argv,
        .arg0 = params->arg0,
        .envp = (const char *const *)params->envp,
        .cwd = params->cwd,
        .tty = params->tty,
        .pipe_stdin = params->pipe_stdin,
        .plan = plan,
    };
    struct bly_spawner *spawner;
    int r;

    r = bly_session_spawner(call->session, &spawner, err);
    if (r < 0)
        return r;
    call->walled = plan != NULL;
    r = bly_process_start(config->loop, spawner, &spawn, plan != NULL, config->limits, &process_ops,
                          task, &task->process, err);
    if (r < 0)
        return r;

    if (call->session->paused)
        bly_process_pause(task->process, true);
    if (task->terminate)
        (void)bly_process_terminate(task->process);
    return 0;
}

/* Writes that came before there was anything to write to. */
static void write_early(struct bly_task *task)
{
    struct bly_call *call;

    while ((call = TAILQ_FIRST(&task->early_writers))) {
        bly_call_dequeue(call);
        write_now(call);
    }
}

static void begin(struct bly_call *call, const struct bly_plan *plan)
{
    struct bly_err err;

    bly_err_clear(&err);
    if (start_process(call, plan, &err) < 0)
        start_failed(call, &err);
    else
        write_early(call->task);
}

static void on_planned(void *arg, struct bly_plan *plan, const struct bly_err *err)
{
    struct bly_call *call = arg;

    call->plan_job = NULL;
    if (err) {
        start_failed(call, err);
        return;
    }
    begin(call, plan);
    bly_plan_free(plan);
}

void bly_run_start(struct bly_call *call)
{
    const struct bly_policy *policy = call->params.start.policy;
    struct bly_err err;
    int r = 0;

    bly_err_clear(&err);
    if (!call->task)
        r = reserve(call, &err);
    if (r == 0 && policy && (policy->wall || !policy->network))
        r = bly_planner_make(call->connection->server->planner, policy, BLY_FOR_PROCESS, on_planned,
                             call, &call->plan_job, &err);
    else if (r == 0) {
        begin(call, NULL);
        return;
    }
    if (r < 0)
        start_failed(call, &err);
}

/* ---- the end of a task ---------------------------------------------------------------------- */

static void drop_start(struct bly_call *call)
{
    struct bly_err err;

    if (call->plan_job)
        bly_planner_cancel(call->plan_job);
    call->plan_job = NULL;
    call->task = NULL;
    (void)bly_fail(&err, BLY_ERR_GONE, ESHUTDOWN, "session has ended");
    bly_call_fail(call, &err);
    bly_call_done(call);
}

static void drop_writers(struct bly_call_queue *queue)
{
    struct bly_call *call;

    while ((call = TAILQ_FIRST(queue))) {
        bly_call_result(call, "{\"status\":\"unknownProcess\"}");
        bly_call_done(call);
    }
}

void bly_answer_gone(struct bly_task *task)
{
    struct bly_call *call = task->start;

    /* Whatever ends lets others begin or end: from here on the start must not find its task. */
    task->start = NULL;
    if (call)
        drop_start(call);
    while ((call = TAILQ_FIRST(&task->readers)))
        fail_unknown(call);
    drop_writers(&task->early_writers);
    drop_writers(&task->writers);
}
