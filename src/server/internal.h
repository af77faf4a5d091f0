#pragma once

/*
 * The objects of the server and who owns whom; for src/server only. Loop thread only.
 *
 *   server ─ connection ─ call        a connection object outlives its socket until its last call
 *        │       ├ exchange           is done
 *        │       └ handle
 *        └ session ─ task             a session outlives its connection; counted references
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "process/process.h"
#include "proto/http.h"
#include "proto/proto.h"
#include "rpc/rpc.h"
#include "server/known.h"
#include "server/metrics.h"
#include "server/order.h"
#include "server/server.h"
#include "transport/transport.h"

struct bly_call;
struct bly_connection;
struct bly_discover;
struct bly_exchange;
struct bly_handle;
struct bly_http_client;
struct bly_planner;
struct bly_planner_job;
struct bly_session;
struct bly_task;

enum {
    BLY_CLOSE_NORMAL = 1000,
    BLY_CLOSE_GOING_AWAY = 1001,
    BLY_CLOSE_POLICY = 1008,
    BLY_CLOSE_TOO_BIG = 1009,
    BLY_SESSION_ID_LEN = 36,
    BLY_HANDLE_ID_MAX = 32, /* bytes */
    BLY_TASK_BUCKETS = 128,
};

LIST_HEAD(bly_connection_list, bly_connection);
LIST_HEAD(bly_session_list, bly_session);
LIST_HEAD(bly_exchange_list, bly_exchange);
LIST_HEAD(bly_handle_list, bly_handle);
LIST_HEAD(bly_task_list, bly_task);
TAILQ_HEAD(bly_task_queue, bly_task);
TAILQ_HEAD(bly_call_queue, bly_call);

struct bly_server {
    struct bly_server_config config;
    struct bly_endpoint *endpoint;
    struct bly_listener *listeners[BLY_LISTENERS_MAX];
    size_t n_listeners, n_listening; /* n_listening: whose handles are not gone yet */
    struct bly_planner *planner;
    struct bly_watcher *watcher;                 /* what warm helpers depend on */
    struct bly_missing_watcher *missing_watcher; /* NULL: nothing is watched */
    struct bly_ring *empty_ring; /* what a process that has not started yet has said */
    size_t n_helpers;            /* of all sessions, kept by fs */
    struct bly_metrics metrics;
    struct bly_connection_list connections;
    struct bly_session_list sessions;
    size_t n_connections, n_sessions; /* n_sessions: also those that are still ending */
    uv_timer_t linger;                /* bounds the wait for closing handshakes at the end */
    uv_timer_t drain_timer;           /* valid while draining */
    uint64_t drain_ends;              /* loop time */
    bool draining, closing, linger_gone;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* Appends what /metrics shows. */
void bly_server_measure(const struct bly_server *server, bool ready, struct bly_buf *buf);

/* Checks whether a server that is closing has nothing left, and says so. */
void bly_server_maybe_closed(struct bly_server *server);

/* Something has ended that a draining server may have waited for. Harmless at any time. */
void bly_server_check_drained(struct bly_server *server);

/* ---- connections ---------------------------------------------------------------------------- */

enum bly_connection_state { BLY_CONNECTION_NEW, BLY_CONNECTION_INITIALIZED, BLY_CONNECTION_READY };

struct bly_connection {
    struct bly_server *server;
    LIST_ENTRY(bly_connection) link;
    struct bly_conn *conn;       /* NULL: the socket has ended */
    struct bly_session *session; /* one reference; NULL before initialize */
    enum bly_connection_state state;
    bool is_stdio;
    struct bly_order order;
    struct bly_handle_list handles;
    size_t n_handles;
    struct bly_http_client *http; /* NULL until needed */
    struct bly_exchange_list exchanges;
    size_t n_exchanges;
    struct bly_call_queue calls;     /* all that are not done yet */
    size_t n_calls, n_parked;        /* parked: process/read that waits; not part of n_calls */
    struct bly_missing_watch *watch; /* fs/watchMissing; NULL: none */
    struct bly_call *watch_call;     /* while the watch is being set up */
    uint64_t watch_id;               /* the largest so far; 0 is no id */
    size_t call_bytes;               /* message text held by calls */
    struct bly_known known;
    struct bly_policy_known folded; /* the context of the message that is being decoded */
    bool closing;                   /* bly_conn_close() was called: nothing more is listened to */
    bool violated;                  /* that was because the client broke the protocol */
    bool ended;                     /* the client says no more, and waits for answers */
    bool congested, flooded;        /* unsent bytes above the limit, above twice the limit */
    bool reading_paused;
    bool probing;
    bool pumping;
};

int bly_connection_new(struct bly_server *server, struct bly_conn *conn,
                       struct bly_connection **ret_connection);
extern const struct bly_transport_ops bly_connection_ops; /* all but opened and ready */

/* Whether its session still listens to it (and not to a newer connection). */
bool bly_connection_attached(const struct bly_connection *connection);

/* Sends a finished message and empties `buf`. Dropped when the socket has ended. */
void bly_connection_send(struct bly_connection *connection, struct bly_buf *buf);
void bly_connection_send_mem(struct bly_connection *connection, void *mem, size_t off, size_t len);

/* Pings it; without a sign of life its session is detached, so that another one can have it. */
void bly_connection_probe(struct bly_connection *connection);

void bly_connection_close(struct bly_connection *connection, uint16_t code, const char *reason);

/* What policies may refer to, for the message that is being decoded. */
struct bly_policy_env bly_connection_policy_env(const struct bly_connection *connection);

/* Ends its watch; a call that sets one up is answered: not watching. */
void bly_connection_unwatch(struct bly_connection *connection);

/* Starts whatever may start now; called by bly_call_done(). */
void bly_connection_pump(struct bly_connection *connection);

/* ---- calls ---------------------------------------------------------------------------------- */

enum bly_method_flags {
    BLY_METHOD_HANDSHAKE = 1, /* works without a session */
    BLY_METHOD_ORDERED = 2,   /* takes effect in the order of requests; everything else at once */
    BLY_METHOD_READS = 4,     /* ordered, but changes nothing */
    BLY_METHOD_PAYLOAD = 8,   /* carries data: may be larger than limits->plain_message_bytes */
    BLY_METHOD_STOPS = 16, /* ends early when its client has gone; everything else is completed */
    BLY_METHOD_HTTP = 32,  /* there only when the operator has switched http/request on */
};

/* What a method's functions do with its call: answer exactly once, then bly_call_done() once. */
struct bly_method {
    const char *name;
    const char *family; /* word of the handshake errors; NULL for initialize */
    /* Parameters to plain structs; BLY_ERR_PARAMS comes before the handshake check. */
    int (*decode)(struct bly_call *call, yyjson_val *params, struct bly_err *err);
    /* On arrival, before the call waits for its turn: takes names. Optional. */
    int (*admit)(struct bly_call *call, struct bly_err *err);
    void (*run)(struct bly_call *call);
    /* Frees the decoded parameters. Optional. */
    void (*deinit)(struct bly_call *call);
    enum bly_fs_op op; /* fs methods */
    uint8_t flags;
};

extern const struct bly_method bly_methods[];
extern const size_t bly_method_count;
const struct bly_method *bly_method_find(const char *name, size_t len);

struct bly_call {
    struct bly_connection *connection;
    TAILQ_ENTRY(bly_call) link; /* in connection->calls */
    const struct bly_method *method;
    struct bly_session *session; /* one reference; NULL for handshake methods */
    char *text;                  /* the message, which everything below borrows from */
    size_t text_len;
    struct bly_rpc_message message;
    uint64_t since_ns; /* uv_hrtime() of its arrival */
    bool failed;       /* the answer was an error */
    struct bly_order_entry order;
    union {
        struct bly_initialize_params initialize;
        struct bly_fs_params fs;
        struct bly_start_params start;
        struct bly_process_params process;
        struct bly_http_params http;
        struct bly_watch_params watch;
        struct bly_config_params config;
        struct bly_discover_params discover;
    } params;

    /* fs */
    struct bly_fs_context *context;
    struct bly_fs_call *fs_call;
    struct bly_handle *handle; /* one reference */

    struct bly_discover *discover; /* capabilityRoots/discoverV1 under way; owned */

    /* http */
    struct bly_exchange *exchange; /* NULL once answered */

    /* process */
    struct bly_task *task;
    struct bly_planner_job *plan_job;
    TAILQ_ENTRY(bly_call) task_link; /* in one of the task's queues, see `queue` */
    struct bly_call_queue *queue;
    uv_timer_t timer;
    bool has_timer, parked, walled;
};

/* Puts the call into a queue of its task; bly_call_done() takes it out. */
void bly_call_enqueue(struct bly_call *call, struct bly_call_queue *queue);
void bly_call_dequeue(struct bly_call *call);

/* Each answers (nothing happens when the socket has ended) and is followed by bly_call_done(). */
void bly_call_fail(struct bly_call *call, const struct bly_err *err);
void bly_call_result(struct bly_call *call, const char *json);
/* Begins {"id":..,"result": ; the caller appends the value, then bly_call_end_result() sends. */
void bly_call_begin_result(struct bly_call *call, struct bly_buf *buf);
void bly_call_end_result(struct bly_call *call, struct bly_buf *buf);
void bly_call_too_long(struct bly_call *call, uint64_t bytes);

/* Ends the call: its memory is gone (at the latest when its timer handle is closed). */
void bly_call_done(struct bly_call *call);

/* ---- handles -------------------------------------------------------------------------------- */

/* An open file of a connection. Requests hold references, so that fs/close never has to wait. */
struct bly_handle {
    LIST_ENTRY(bly_handle) link;
    bool named; /* the connection knows it by its id */
    unsigned refs;
    int fd; /* -EBADF until opened */
    size_t id_len;
    char id[BLY_HANDLE_ID_MAX];
};

struct bly_handle *bly_handle_find(const struct bly_connection *connection, const char *id,
                                   size_t len);
/* Takes a free name for a file about to be opened. BLY_ERR_INVALID: in use, or too many. */
int bly_handle_reserve(struct bly_connection *connection, const char *id, size_t len,
                       struct bly_handle **ret_handle, struct bly_err *err);
/* The name is free again; the file is closed with the last reference. */
void bly_handle_forget(struct bly_connection *connection, struct bly_handle *handle);
struct bly_handle *bly_handle_ref(struct bly_handle *handle);
struct bly_handle *bly_handle_unref(struct bly_handle *handle); /* NULL is fine; returns NULL */

/* ---- sessions ------------------------------------------------------------------------------- */

struct bly_session {
    struct bly_server *server;
    LIST_ENTRY(bly_session) link;
    char id[BLY_SESSION_ID_LEN + 1];
    unsigned refs;
    struct bly_connection *connection; /* that gets the notifications; NULL: detached */
    struct bly_fs *fs;                 /* NULL once closed */
    struct bly_spawner *spawner;       /* NULL until needed */
    struct bly_task_list tasks[BLY_TASK_BUCKETS];
    size_t n_tasks, n_running;      /* running: not closed yet */
    struct bly_task_queue finished; /* closed ones, oldest first, until finished_ms is over */
    uv_timer_t detach_timer, reap_timer;
    bool paused; /* processes: their connection is congested */
    bool ended;
};

/* A new session, attached to `connection`. */
int bly_session_new(struct bly_server *server, struct bly_connection *connection,
                    struct bly_session **ret_session, struct bly_err *err);
struct bly_session *bly_session_find(const struct bly_server *server, const char *id, size_t len);
struct bly_session *bly_session_ref(struct bly_session *session);
struct bly_session *bly_session_unref(struct bly_session *session); /* NULL is fine */

/* The connection must not be attached to another session, the session not to another connection. */
void bly_session_attach(struct bly_session *session, struct bly_connection *connection);
/* Starts the detach time. */
void bly_session_detach(struct bly_session *session);
/* Kills everything that belongs to it; unanswered calls are dropped. */
void bly_session_end(struct bly_session *session, const char *reason);

void bly_session_pause(struct bly_session *session, bool paused);
int bly_session_spawner(struct bly_session *session, struct bly_spawner **ret_spawner,
                        struct bly_err *err);

/* ---- tasks ---------------------------------------------------------------------------------- */

/* A process of a session, from the request that names it until its id is free again. */
struct bly_task {
    struct bly_session *session;
    LIST_ENTRY(bly_task) link;
    TAILQ_ENTRY(bly_task) finished_link;
    uint64_t finished_at; /* loop time; valid while in the queue of finished ones */
    bool finished;
    struct bly_process *process; /* NULL until its wall is planned and its turn has come */
    struct bly_call *start;      /* its process/start, until that is answered */
    bool terminate;              /* a client wants it to end, as soon as it starts if it must be */
    uint64_t running_since_ns;   /* uv_hrtime(); 0 while it does not run */
    struct bly_call_queue readers, writers, early_writers;
    size_t id_len;
    char id[];
};

struct bly_task *bly_task_find(struct bly_session *session, const char *id, size_t len);
int bly_task_new(struct bly_session *session, const char *id, size_t len,
                 struct bly_task **ret_task, struct bly_err *err);
/* Forgets it and kills what it runs. Calls that wait on it are answered: unknown process. */
void bly_task_free(struct bly_task *task);
/* Its process has exited, or is being killed: counts that, if it was running. */
void bly_task_stopped(struct bly_task *task, bool terminated, int exit_code);
/* Its process has closed: it stays readable for a while. */
void bly_task_finish(struct bly_task *task);

/* ---- handlers, by family -------------------------------------------------------------------- */

int bly_decode_initialize(struct bly_call *call, yyjson_val *params, struct bly_err *err);
void bly_run_initialize(struct bly_call *call);
int bly_decode_nothing(struct bly_call *call, yyjson_val *params, struct bly_err *err);
void bly_run_environment_info(struct bly_call *call);
void bly_run_environment_status(struct bly_call *call);

int bly_decode_start(struct bly_call *call, yyjson_val *params, struct bly_err *err);
int bly_admit_start(struct bly_call *call, struct bly_err *err);
void bly_run_start(struct bly_call *call);
void bly_deinit_start(struct bly_call *call);
int bly_decode_read(struct bly_call *call, yyjson_val *params, struct bly_err *err);
void bly_run_read(struct bly_call *call);
int bly_decode_write(struct bly_call *call, yyjson_val *params, struct bly_err *err);
void bly_run_write(struct bly_call *call);
int bly_decode_terminate(struct bly_call *call, yyjson_val *params, struct bly_err *err);
void bly_run_terminate(struct bly_call *call);
int bly_decode_signal(struct bly_call *call, yyjson_val *params, struct bly_err *err);
void bly_run_signal(struct bly_call *call);
/* The task is going away: answers the calls that wait on it. */
void bly_answer_gone(struct bly_task *task);

int bly_decode_fs(struct bly_call *call, yyjson_val *params, struct bly_err *err);
int bly_admit_fs(struct bly_call *call, struct bly_err *err);
/* The lane of the call that is first in line (NULL: none); -ENOMEM. Valid until the loop turns. */
int bly_fs_lane(struct bly_call *call);
void bly_run_fs(struct bly_call *call);
void bly_deinit_fs(struct bly_call *call);
int bly_decode_close(struct bly_call *call, yyjson_val *params, struct bly_err *err);
void bly_run_close(struct bly_call *call);

int bly_decode_http(struct bly_call *call, yyjson_val *params, struct bly_err *err);
int bly_admit_http(struct bly_call *call, struct bly_err *err);
void bly_run_http(struct bly_call *call);
void bly_deinit_http(struct bly_call *call);
/* The connection takes bodies again. */
void bly_exchanges_resume(struct bly_connection *connection);
/* The connection has ended: requests and streams are dropped, calls that wait for one are done. */
void bly_exchanges_end(struct bly_connection *connection);

int bly_decode_watch(struct bly_call *call, yyjson_val *params, struct bly_err *err);
void bly_run_watch(struct bly_call *call);
void bly_deinit_watch(struct bly_call *call);

int bly_decode_discover(struct bly_call *call, yyjson_val *params, struct bly_err *err);
void bly_run_discover(struct bly_call *call);
void bly_deinit_discover(struct bly_call *call);
int bly_decode_discover_installed(struct bly_call *call, yyjson_val *params, struct bly_err *err);
void bly_run_discover_installed(struct bly_call *call);
int bly_decode_config_read(struct bly_call *call, yyjson_val *params, struct bly_err *err);
int bly_admit_config_read(struct bly_call *call, struct bly_err *err);
void bly_run_config_read(struct bly_call *call);
