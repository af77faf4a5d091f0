#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "fs/fs.h"
#include "launcher/launcher.h"
#include "server/internal.h"

/* ---- tasks ---------------------------------------------------------------------------------- */

static struct bly_task_list *bucket(struct bly_session *session, const char *id, size_t len)
{
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)id[i]) * 16777619u;
    return &session->tasks[hash % BLY_TASK_BUCKETS];
}

struct bly_task *bly_task_find(struct bly_session *session, const char *id, size_t len)
{
    struct bly_task *task;

    LIST_FOREACH(task, bucket(session, id, len), link)
    if (task->id_len == len && memcmp(task->id, id, len) == 0)
        return task;
    return NULL;
}

int bly_task_new(struct bly_session *session, const char *id, size_t len,
                 struct bly_task **ret_task, struct bly_err *err)
{
    uint64_t limit = session->server->config.limits->processes;
    struct bly_task *task;

    if (bly_task_find(session, id, len))
        return bly_fail(err, BLY_ERR_INVALID, EEXIST, "process %.*s already exists",
                        len < BLY_ERR_TEXT_MAX ? (int)len : BLY_ERR_TEXT_MAX, id);
    if (session->n_tasks >= limit)
        return bly_fail(err, BLY_ERR_LIMIT, EAGAIN,
                        "a session has at most %llu processes, finished ones included",
                        (unsigned long long)limit);

    task = calloc(1, sizeof(*task) + len + 1);
    if (!task)
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    task->session = session;
    task->id_len = len;
    if (len)
        memcpy(task->id, id, len);
    TAILQ_INIT(&task->readers);
    TAILQ_INIT(&task->writers);
    TAILQ_INIT(&task->early_writers);
    LIST_INSERT_HEAD(bucket(session, id, len), task, link);
    session->n_tasks++;
    session->n_running++;
    *ret_task = task;
    return 0;
}

void bly_task_free(struct bly_task *task)
{
    struct bly_session *session = task->session;

    /* First its name and its process, so that nothing the answers lead to can find them. */
    LIST_REMOVE(task, link);
    if (task->finished)
        TAILQ_REMOVE(&session->finished, task, finished_link);
    else
        session->n_running--;
    session->n_tasks--;
    bly_task_stopped(task, true, 0);
    if (task->process)
        bly_process_close(task->process);
    task->process = NULL;
    bly_answer_gone(task);
    free(task);
    bly_server_check_drained(session->server);
}

void bly_task_stopped(struct bly_task *task, bool terminated, int exit_code)
{
    if (!task->running_since_ns)
        return;
    bly_metrics_process_finished(&task->session->server->metrics, terminated, exit_code,
                                 uv_hrtime() - task->running_since_ns);
    task->running_since_ns = 0;
}

static void on_reap(uv_timer_t *timer);

static void arm_reaper(struct bly_session *session)
{
    struct bly_task *oldest = TAILQ_FIRST(&session->finished);
    uint64_t now, due;

    if (!oldest || session->ended)
        return;
    now = uv_now(session->server->config.loop);
    due = oldest->finished_at + session->server->config.limits->finished_ms;
    (void)uv_timer_start(&session->reap_timer, on_reap, due > now ? due - now : 0, 0);
}

static void on_reap(uv_timer_t *timer)
{
    struct bly_session *session = timer->data;
    uint64_t keep_ms = session->server->config.limits->finished_ms;
    uint64_t now = uv_now(timer->loop);
    struct bly_task *oldest;

    while ((oldest = TAILQ_FIRST(&session->finished)) && oldest->finished_at + keep_ms <= now)
        bly_task_free(oldest);
    arm_reaper(session);
}

void bly_task_finish(struct bly_task *task)
{
    struct bly_session *session = task->session;

    if (task->finished)
        return;
    task->finished = true;
    session->n_running--;
    task->finished_at = uv_now(session->server->config.loop);
    TAILQ_INSERT_TAIL(&session->finished, task, finished_link);
    if (TAILQ_FIRST(&session->finished) == task)
        arm_reaper(session);
    bly_server_check_drained(session->server);
}

/* ---- sessions ------------------------------------------------------------------------------- */

/* A version 4 UUID in lower case: it is all that protects a session from another client. */
static int make_id(char *id)
{
    uint8_t b[16];

    if (getrandom(b, sizeof(b), 0) != sizeof(b))
        return -errno;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    (void)snprintf(id, BLY_SESSION_ID_LEN + 1,
                   "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                   b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
                   b[14], b[15]);
    return 0;
}

static int fs_spawner(void *arg, struct bly_spawner **ret_spawner, struct bly_err *err)
{
    return bly_session_spawner(arg, ret_spawner, err);
}

static int session_init_fs(struct bly_session *session)
{
    struct bly_server *server = session->server;
    struct bly_fs_config config = {
        .loop = server->config.loop,
        .planner = server->planner,
        .watcher = server->watcher,
        .limits = server->config.limits,
        .n_helpers = &server->n_helpers,
        .n_helper_starts = &server->metrics.helper_starts,
        .spawner = fs_spawner,
        .arg = session,
    };

    return bly_fs_new(&config, &session->fs);
}

static void session_init_timer(struct bly_session *session, uv_timer_t *timer)
{
    (void)uv_timer_init(session->server->config.loop, timer);
    timer->data = session;
    bly_session_ref(session);
}

int bly_session_new(struct bly_server *server, struct bly_connection *connection,
                    struct bly_session **ret_session, struct bly_err *err)
{
    uint64_t limit = server->config.limits->sessions;
    struct bly_session *session;
    int r;

    if (server->n_sessions >= limit)
        return bly_fail(err, BLY_ERR_LIMIT, EAGAIN,
                        "at most %llu sessions are kept, detached ones included",
                        (unsigned long long)limit);
    session = calloc(1, sizeof(*session));
    if (!session)
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    session->server = server;
    TAILQ_INIT(&session->finished);
    r = make_id(session->id);
    if (r >= 0)
        r = session_init_fs(session);
    if (r < 0) {
        free(session);
        return bly_fail(err, BLY_ERR_LIMIT, -r, "cannot make a session: %s", bly_errno_text(-r));
    }

    session->refs = 1; /* the table's, until everything has ended */
    session_init_timer(session, &session->detach_timer);
    session_init_timer(session, &session->reap_timer);
    LIST_INSERT_HEAD(&server->sessions, session, link);
    server->n_sessions++;
    server->metrics.sessions_total++;
    bly_log(BLY_LOG_INFO, "session-new", "session=%s peer=\"%s\"", session->id,
            bly_conn_peer(connection->conn));
    bly_session_attach(session, connection);
    *ret_session = session;
    return 0;
}

struct bly_session *bly_session_find(const struct bly_server *server, const char *id, size_t len)
{
    struct bly_session *session;

    if (len != BLY_SESSION_ID_LEN)
        return NULL;
    LIST_FOREACH(session, &server->sessions, link)
    if (!session->ended && memcmp(session->id, id, len) == 0)
        return session;
    return NULL;
}

struct bly_session *bly_session_ref(struct bly_session *session)
{
    session->refs++;
    return session;
}

struct bly_session *bly_session_unref(struct bly_session *session)
{
    if (session && --session->refs == 0)
        free(session);
    return NULL;
}

void bly_session_attach(struct bly_session *session, struct bly_connection *connection)
{
    session->connection = connection;
    if (connection->session != session) {
        bly_session_unref(connection->session);
        connection->session = bly_session_ref(session);
    }
    (void)uv_timer_stop(&session->detach_timer);
    bly_session_pause(session, connection->congested);
}

static void on_detached_long(uv_timer_t *timer)
{
    bly_session_end(timer->data, "detached");
}

void bly_session_detach(struct bly_session *session)
{
    uint64_t keep_ms = session->server->config.limits->detach_ms;

    session->connection = NULL;
    if (session->ended)
        return;
    bly_log(BLY_LOG_INFO, "session-detached", "session=%s keep_ms=%llu", session->id,
            (unsigned long long)keep_ms);
    bly_session_pause(session, false);
    (void)uv_timer_start(&session->detach_timer, on_detached_long, keep_ms, 0);
    bly_server_check_drained(session->server);
}

static void on_spawner_closed(void *arg)
{
    struct bly_session *session = arg;
    struct bly_server *server = session->server;

    LIST_REMOVE(session, link);
    server->n_sessions--;
    bly_session_unref(session);
    bly_server_maybe_closed(server);
}

/* The helpers are children of the spawner, so it goes last. */
static void on_fs_closed(void *arg)
{
    struct bly_session *session = arg;

    struct bly_spawner *spawner = session->spawner;

    session->fs = NULL;
    session->spawner = NULL;
    if (spawner)
        bly_spawner_close(spawner, on_spawner_closed, session);
    else
        on_spawner_closed(session);
}

static void on_timer_closed(uv_handle_t *handle)
{
    bly_session_unref(handle->data);
}

static void free_tasks(struct bly_session *session)
{
    for (size_t i = 0; i < BLY_TASK_BUCKETS; i++)
        while (!LIST_EMPTY(&session->tasks[i]))
            bly_task_free(LIST_FIRST(&session->tasks[i]));
}

void bly_session_end(struct bly_session *session, const char *reason)
{
    if (session->ended)
        return;
    session->ended = true;
    session->connection = NULL;
    bly_log(BLY_LOG_INFO, "session-ended", "session=%s reason=\"%s\" processes=%zu", session->id,
            reason, session->n_tasks);
    free_tasks(session);
    uv_close((uv_handle_t *)&session->detach_timer, on_timer_closed);
    uv_close((uv_handle_t *)&session->reap_timer, on_timer_closed);
    bly_fs_close(session->fs, on_fs_closed, session);
}

void bly_session_pause(struct bly_session *session, bool paused)
{
    struct bly_task *task;

    if (session->paused == paused)
        return;
    session->paused = paused;
    for (size_t i = 0; i < BLY_TASK_BUCKETS; i++)
        LIST_FOREACH(task, &session->tasks[i], link)
    if (task->process)
        bly_process_pause(task->process, paused);
}

int bly_session_spawner(struct bly_session *session, struct bly_spawner **ret_spawner,
                        struct bly_err *err)
{
    int r = 0;

    if (session->ended)
        return bly_fail(err, BLY_ERR_GONE, ESHUTDOWN, "session has ended");
    if (!session->spawner)
        r = bly_spawner_new(session->server->config.launcher, &session->spawner);
    if (r < 0)
        return bly_fail(err, BLY_ERR_SPAWN, -r, "cannot make a spawner");
    *ret_spawner = session->spawner;
    return 0;
}
