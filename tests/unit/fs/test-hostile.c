#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "fs/helper/helper.h"
#include "fs/helper/wire.h"
#include "fs/oneshot.h"
#include "launcher/launcher.h"
#include "launcher/planner.h"
#include "sandbox/policy/policy.h"
#include "script.h"

/*
 * The server's side with helpers that lie, die, and never answer. The launcher and the planner are
 * replaced by the ones below, which fork without a wall and run what the test wants.
 */

/* ---- in place of planner, plan and launcher ---- */

typedef int (*helper_body)(int sock);

static struct {
    helper_body body; /* NULL: an honest helper */
    int n_started, n_plans;
    bool plan_fails, start_fails, stale;
    pid_t pid; /* of the latest helper */
    const struct bly_policy *policy;
} fake;

struct bly_planner_job {
    uv_timer_t timer;
    bly_planned_fn done;
    void *arg;
};

static void free_handle_data(uv_handle_t *handle)
{
    free(handle->data);
}

static uv_loop_t *the_loop;

static void on_plan_time(uv_timer_t *timer)
{
    struct bly_planner_job *job = timer->data;
    struct bly_err err;

    if (job->done != NULL && fake.plan_fails) {
        bly_fail(&err, BLY_ERR_UNSUPPORTED, EPERM, "sandbox unavailable: because");
        job->done(job->arg, NULL, &err);
    } else if (job->done != NULL) {
        fake.n_plans++;
        job->done(job->arg, malloc(1), NULL);
    }
    uv_close((uv_handle_t *)timer, free_handle_data);
}

int bly_planner_make(struct bly_planner *planner, const struct bly_policy *policy,
                     enum bly_purpose purpose, bly_planned_fn done, void *arg,
                     struct bly_planner_job **ret_job, struct bly_err *err)
{
    struct bly_planner_job *job = calloc(1, sizeof *job);

    (void)planner;
    (void)policy;
    (void)purpose;
    (void)err;
    job->done = done;
    job->arg = arg;
    job->timer.data = job;
    uv_timer_init(the_loop, &job->timer);
    uv_timer_start(&job->timer, on_plan_time, 1, 0);
    *ret_job = job;
    return 0;
}

void bly_planner_cancel(struct bly_planner_job *job)
{
    job->done = NULL;
}

struct bly_plan *bly_plan_free(struct bly_plan *plan)
{
    free(plan);
    return NULL;
}

const struct bly_policy *bly_plan_policy(const struct bly_plan *plan)
{
    (void)plan;
    return fake.policy;
}

int bly_plan_fits(const struct bly_plan *plan, const struct bly_probe *probe)
{
    (void)plan;
    (void)probe;
    if (!fake.stale)
        return 0;
    fake.stale = false;
    return BLY_PLAN_STALE;
}

int bly_plan_fits_in(const struct bly_plan *plan, const struct bly_probe *probe, unsigned parts)
{
    (void)parts;
    return bly_plan_fits(plan, probe);
}

int bly_plan_each_name(const struct bly_plan *plan, bly_plan_name_fn each, void *arg)
{
    (void)plan;
    (void)each;
    (void)arg;
    return 0;
}

const struct bly_probe bly_probe_disk;

struct bly_child {
    uv_timer_t timer; /* looks whether it has ended */
    pid_t pid;
    int sock;
    bool started;
    const struct bly_child_ops *ops;
    void *arg;
};

static void on_child_time(uv_timer_t *timer)
{
    struct bly_child *child = timer->data;
    struct bly_err err;
    int status;

    if (!child->started && fake.start_fails) {
        bly_fail(&err, BLY_ERR_UNSUPPORTED, EPERM, "the wall did not stand");
        close(child->sock);
        kill(child->pid, SIGKILL);
        waitpid(child->pid, &status, 0);
        child->ops->started(child->arg, 0, -EBADF, -EBADF, -EBADF, &err);
        uv_close((uv_handle_t *)timer, free_handle_data);
    } else if (!child->started) {
        child->started = true;
        child->ops->started(child->arg, child->pid, -EBADF, child->sock, -EBADF, NULL);
    } else if (waitpid(child->pid, &status, WNOHANG) == child->pid) {
        child->ops->exited(child->arg, status);
        uv_close((uv_handle_t *)timer, free_handle_data);
    }
}

int bly_spawner_helper(struct bly_spawner *spawner, const struct bly_plan *plan,
                       const struct bly_child_ops *ops, void *arg, struct bly_child **ret_child,
                       struct bly_err *err)
{
    struct bly_child *child = calloc(1, sizeof *child);
    int pair[2];

    (void)spawner;
    (void)plan;
    (void)err;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    fake.n_started++;
    child->pid = fork();
    if (child->pid == 0) {
        dup2(pair[1], 3);
        close_range(4, ~0U, 0);
        _exit(fake.body ? fake.body(3) : bly_helper_main(3, fake.policy, NULL));
    }
    close(pair[1]);
    fake.pid = child->pid;
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    child->sock = pair[0];
    child->ops = ops;
    child->arg = arg;
    child->timer.data = child;
    uv_timer_init(the_loop, &child->timer);
    uv_timer_start(&child->timer, on_child_time, 1, 1);
    *ret_child = child;
    return 0;
}

unsigned bly_child_rung(const struct bly_child *child)
{
    (void)child;
    return 0;
}

void bly_child_signal(struct bly_child *child, int sig)
{
    kill(child->pid, sig);
}

/* ---- the bench ---- */

struct bench {
    uv_loop_t loop;
    struct bly_limits limits;
    size_t n_helpers;
    struct bly_fs *fs;
    struct bly_policy *policy;
    char *dir, *path;
    const void *param; /* of the row */
};

static int give_spawner(void *arg, struct bly_spawner **ret_spawner, struct bly_err *err)
{
    (void)arg;
    (void)err;
    *ret_spawner = NULL;
    return 0;
}

static int setup(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    struct bly_fs_config config;

    memset(&fake, 0, sizeof fake);
    uv_loop_init(&bench->loop);
    the_loop = &bench->loop;
    bly_limits_defaults(&bench->limits);
    bench->dir = script_directory();
    script_setup(bench->dir, "a=hello d/x=X");
    bench->policy = script_policy(bench->dir, "ro /\nrw $T");
    fake.policy = bench->policy;
    assert_true(asprintf(&bench->path, "%s/a", bench->dir) > 0);
    config = (struct bly_fs_config){
        .loop = &bench->loop,
        .limits = &bench->limits,
        .n_helpers = &bench->n_helpers,
        .spawner = give_spawner,
    };
    assert_int_equal(bly_fs_new(&config, &bench->fs), 0);
    *state = bench;
    return 0;
}

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

static void on_late(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

static void wait_for(struct bench *bench, const bool *condition)
{
    bool late = false;
    uv_timer_t timer;

    uv_timer_init(&bench->loop, &timer);
    timer.data = &late;
    uv_timer_start(&timer, on_late, 20000, 0);
    while (!*condition && !late)
        uv_run(&bench->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&bench->loop, UV_RUN_NOWAIT);
    assert_true(*condition);
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    bool closed = false;
    int status;

    bly_fs_close(bench->fs, set_true, &closed);
    wait_for(bench, &closed);
    uv_run(&bench->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&bench->loop), 0);
    assert_int_equal(bench->n_helpers, 0);
    assert_true(waitpid(-1, &status, WNOHANG) < 0); /* nobody is left */
    bly_policy_unref(bench->policy);
    script_cleanup(bench->dir);
    free(bench->path);
    free(bench);
    return 0;
}

struct outcome {
    bool done;
    struct bly_fs_reply reply;
};

static void keep_reply(void *arg, struct bly_fs_reply *reply)
{
    struct outcome *outcome = arg;

    outcome->reply = *reply;
    bly_fs_reply_init(reply);
    outcome->done = true;
}

static struct bly_fs_call *submit(struct bench *bench, enum bly_fs_op op, struct outcome *outcome)
{
    struct bly_fs_request request = {
        .op = op,
        .path = op == BLY_FS_READ_DIRECTORY ? bench->dir : bench->path,
        .max_text_bytes = 64 << 20,
        .walk = {10, 10, 10, false, false},
    };
    struct bly_fs_context *context = NULL;
    struct bly_fs_call *call;

    outcome->done = false;
    assert_int_equal(bly_fs_context(bench->fs, bench->policy, &context), 0);
    assert_non_null(context);
    assert_int_equal(bly_fs_submit(bench->fs, context, &request, keep_reply, outcome, &call), 0);
    return call;
}

static void expect_hello(struct bench *bench)
{
    struct outcome outcome;

    submit(bench, BLY_FS_READ_FILE, &outcome);
    wait_for(bench, &outcome.done);
    assert_string_equal(outcome.reply.err.text, "");
    assert_int_equal(outcome.reply.text_len, 8);
    assert_memory_equal(outcome.reply.text_mem + BLY_FS_TEXT_HEAD, "aGVsbG8=", 8);
    bly_fs_reply_deinit(&outcome.reply);
}

static void expect_failure(struct bench *bench, struct outcome *outcome, const char *text)
{
    wait_for(bench, &outcome->done);
    assert_int_equal(outcome->reply.err.kind, BLY_ERR_LIMIT);
    assert_string_equal(outcome->reply.err.text, text);
    assert_null(outcome->reply.text_mem);
    assert_int_equal(outcome->reply.fd, -EBADF);
    assert_null(outcome->reply.path);
    bly_fs_reply_deinit(&outcome->reply);
}

/* ---- helpers that lie ---- */

static char incoming[BLY_HWIRE_PACKET_MAX];

static uint32_t next_request(int sock)
{
    struct bly_hwire_request request;
    int fd = -1;
    ssize_t n = bly_hwire_recv(sock, incoming, sizeof incoming, &fd);

    if (n <= 0 || bly_hwire_unpack_request(incoming, (size_t)n, fd >= 0, &request) < 0)
        _exit(0);
    return request.seq;
}

struct lie {
    const char *name;
    enum bly_fs_op op;
    struct bly_hwire_reply reply;
    const char *data;
    size_t data_len;
    int seq_off, length_off; /* added to what would be right */
    size_t repeat;           /* sent that often, all but the last with MORE */
    const char *open;        /* file whose descriptor goes along */
    int open_flags;
    bool two_descriptors, unasked;
};

static const struct lie lies[] = {
    {.name = "another request's number", .seq_off = 1},
    {.name = "a length that is not true", .data = "abc", .data_len = 3, .length_off = 1},
    {.name = "an unknown kind of error", .reply = {.kind = 200}},
    {.name = "an errno that is none", .reply = {.kind = BLY_ERR_SYSTEM, .sys = 100000}},
    {.name = "a negative errno", .reply = {.kind = BLY_ERR_SYSTEM, .sys = -2}},
    {.name = "an error with flags", .reply = {.kind = BLY_ERR_SYSTEM, .sys = 2, .flags = 16}},
    {.name = "a denial that is a success", .reply = {.denied_access = BLY_DENIED_WRITE}},
    {.name = "a denial of a missing file",
     .reply = {.kind = BLY_ERR_SYSTEM, .sys = ENOENT, .denied_access = BLY_DENIED_READ}},
    {.name = "a denial of an unknown access",
     .reply = {.kind = BLY_ERR_DENIED, .sys = EACCES, .denied_access = BLY_DENIED_WRITE + 1}},
    {.name = "a reason without a denial",
     .reply = {.kind = BLY_ERR_DENIED, .sys = EACCES, .denied_by = BLY_BY_RULE}},
    {.name = "a denial by nothing, with a number",
     .reply = {.kind = BLY_ERR_DENIED, .sys = EACCES, .denied_access = 1, .denied_index = 1}},
    {.name = "a denial by a rule that is not there",
     .reply = {.kind = BLY_ERR_DENIED,
               .sys = EACCES,
               .denied_access = BLY_DENIED_WRITE,
               .denied_by = BLY_BY_RULE,
               .denied_index = 4000000000}},
    {.name = "a denial by a glob that is not there",
     .reply = {.kind = BLY_ERR_DENIED,
               .sys = EACCES,
               .denied_access = BLY_DENIED_WRITE,
               .denied_by = BLY_BY_GLOB}},
    {.name = "a denial by what only the server can tell",
     .reply = {.kind = BLY_ERR_DENIED,
               .sys = EACCES,
               .denied_access = BLY_DENIED_WRITE,
               .denied_by = BLY_BY_DERIVED}},
    {.name = "an error with more to come",
     .reply = {.kind = BLY_ERR_SYSTEM, .sys = 2, .flags = BLY_HWIRE_MORE}},
    {.name = "an unknown flag", .reply = {.flags = 128}},
    {.name = "a flag of another operation", .reply = {.flags = BLY_HWIRE_TRUNCATED}},
    {.name = "a promised descriptor that is missing", .reply = {.flags = BLY_HWIRE_FD}},
    {.name = "a descriptor nobody asked for", .open = "/etc/passwd"},
    {.name = "two descriptors",
     .reply = {.flags = BLY_HWIRE_FD},
     .open = "/etc/passwd",
     .two_descriptors = true},
    {.name = "a directory as file",
     .reply = {.flags = BLY_HWIRE_FD},
     .open = "/etc",
     .open_flags = O_DIRECTORY},
    {.name = "a device as file", .reply = {.flags = BLY_HWIRE_FD}, .open = "/dev/zero"},
    {.name = "a file of proc as file", .reply = {.flags = BLY_HWIRE_FD}, .open = "/proc/version"},
    {.name = "a descriptor that only names",
     .reply = {.flags = BLY_HWIRE_FD},
     .open = "/etc/passwd",
     .open_flags = O_PATH},
    {.name = "an opened file that can be written",
     .op = BLY_FS_OPEN,
     .reply = {.flags = BLY_HWIRE_FD},
     .open = "/tmp",
     .open_flags = O_TMPFILE | O_RDWR},
    {.name = "an opened directory",
     .op = BLY_FS_OPEN,
     .reply = {.flags = BLY_HWIRE_FD},
     .open = "/etc",
     .open_flags = O_DIRECTORY},
    {.name = "an opened file that is missing", .op = BLY_FS_OPEN},
    {.name = "entries that are none",
     .op = BLY_FS_READ_DIRECTORY,
     .reply = {.number = 3},
     .data = "\1\1\0\0\0a",
     .data_len = 6},
    {.name = "more entries than announced",
     .op = BLY_FS_READ_DIRECTORY,
     .reply = {.number = 1},
     .data = "\1\1\0\0\0a\1\1\0\0\0a",
     .data_len = 12},
    {.name = "an entry longer than the packet",
     .op = BLY_FS_READ_DIRECTORY,
     .reply = {.number = 1},
     .data = "\1\xff\xff\xff\x0fa",
     .data_len = 6},
    {.name = "a name that is no string",
     .op = BLY_FS_READ_DIRECTORY,
     .reply = {.number = 1},
     .data = "\1\xff\xff\xff\xff",
     .data_len = 5},
    {.name = "an error among directory entries",
     .op = BLY_FS_READ_DIRECTORY,
     .reply = {.number = 1},
     .data = "\4\1\0\0\0a\1\0\0\0b",
     .data_len = 11},
    {.name = "billions of entries",
     .op = BLY_FS_WALK,
     .reply = {.number = 1ull << 40},
     .data = "\1\1\0\0\0a",
     .data_len = 6},
    {.name = "a path that is relative", .op = BLY_FS_CANONICALIZE, .data = "etc", .data_len = 3},
    {.name = "a path with a NUL", .op = BLY_FS_CANONICALIZE, .data = "/a\0b", .data_len = 4},
    {.name = "a path that is empty", .op = BLY_FS_CANONICALIZE},
    {.name = "metadata without end",
     .op = BLY_FS_GET_METADATA,
     .data = "0123456789abcdef",
     .data_len = 16,
     .repeat = 10000},
    {.name = "an answer to nothing", .unasked = true},
};

static const struct lie *the_lie;

static int open_for(const struct lie *lie)
{
    return lie->open ? open(lie->open, lie->open_flags | O_CLOEXEC, 0600) : -EBADF;
}

static int tell_lie(int sock)
{
    const struct lie *lie = the_lie;
    struct bly_hwire_reply reply = lie->reply;
    int fds[2] = {open_for(lie), open_for(lie)};
    size_t n_fds = lie->open ? (lie->two_descriptors ? 2 : 1) : 0;
    char control[CMSG_SPACE(sizeof fds)] = {0};
    struct iovec parts[2] = {{&reply, sizeof reply}, {(void *)(uintptr_t)lie->data, lie->data_len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    if (!lie->unasked)
        reply.seq = next_request(sock) + (uint32_t)lie->seq_off;
    reply.data_len = (uint32_t)((int)lie->data_len + lie->length_off);
    if (n_fds > 0) {
        struct cmsghdr *header = (struct cmsghdr *)(void *)control;

        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
    }
    for (size_t i = 1; i < lie->repeat; i++) {
        reply.flags = BLY_HWIRE_MORE;
        if (sendmsg(sock, &message, MSG_NOSIGNAL) < 0)
            break;
    }
    (void)sendmsg(sock, &message, MSG_NOSIGNAL);
    for (;;)
        (void)next_request(sock); /* never another answer; leaves at the end */
    return 0;
}

static int setup_lie(void **state)
{
    the_lie = *state;
    return setup(state);
}

static void check_lie(void **state)
{
    const struct lie *lie = the_lie;
    struct bench *bench = *state;
    struct outcome outcome;

    fake.body = tell_lie;
    submit(bench, lie->op, &outcome);
    wait_for(bench, &outcome.done);
    fake.body = NULL;
    assert_int_equal(outcome.reply.err.kind, BLY_ERR_LIMIT);
    if (!lie->two_descriptors) /* those are no packet, and end the conversation below */
        assert_string_equal(outcome.reply.err.text, "sandboxed helper broke the protocol");
    assert_null(outcome.reply.text_mem);
    assert_int_equal(outcome.reply.fd, -EBADF);
    assert_null(outcome.reply.path);
    bly_fs_reply_deinit(&outcome.reply);
    expect_hello(bench); /* with a new helper */
    assert_int_equal(fake.n_started, 2);
}

/* ---- helpers that die or hang ---- */

static int die_at_request(int sock)
{
    next_request(sock);
    return 3;
}

static int die_at_once(int sock)
{
    (void)sock;
    return 3;
}

static int hang(int sock)
{
    next_request(sock);
    for (;;)
        pause();
    return 0;
}

/* ---- each way to die in the middle of an operation ---- */

static int killed_at_request(int sock)
{
    next_request(sock);
    raise(SIGKILL); /* also what is left of the last process when memory runs out */
    return 0;
}

static int crash_at_request(int sock)
{
    next_request(sock);
    raise(SIGABRT);
    return 0;
}

static int stop_at_request(int sock)
{
    next_request(sock);
    raise(SIGSTOP);
    return 0;
}

static int leave_at_request(int sock)
{
    next_request(sock);
    close(sock);
    for (;;)
        pause();
    return 0;
}

static const struct death {
    const char *name;
    helper_body body;
    const char *text;
} deaths[] = {
    {"it exits", die_at_request, "sandboxed helper ended unexpectedly"},
    {"it is killed", killed_at_request, "sandboxed helper ended unexpectedly"},
    {"it crashes", crash_at_request, "sandboxed helper ended unexpectedly"},
    {"it closes its socket and lives on", leave_at_request, "sandboxed helper ended unexpectedly"},
    {"it is stopped", stop_at_request, "sandboxed file operation took longer than 200 ms"},
    {"it hangs", hang, "sandboxed file operation took longer than 200 ms"},
};

/* Its operation fails cleanly, the next one works. */
static void check_death(void **state)
{
    struct bench *bench = *state;
    const struct death *death = bench->param;
    struct outcome outcome;

    bench->limits.helper_op_ms = 200;
    fake.body = death->body;
    submit(bench, BLY_FS_READ_FILE, &outcome);
    wait_for(bench, &outcome.done);
    fake.body = NULL;
    expect_failure(bench, &outcome, death->text);
    bench->limits.helper_op_ms = 10000;
    expect_hello(bench);
    assert_int_equal(fake.n_started, 2);
}

static int setup_death(void **state)
{
    const void *death = *state;
    int r = setup(state);

    ((struct bench *)*state)->param = death;
    return r;
}

/* ---- and while nobody needs it ---- */

static void killed_while_idle_costs_nothing(void **state)
{
    struct bench *bench = *state;
    siginfo_t info;

    expect_hello(bench);
    assert_int_equal(kill(fake.pid, SIGKILL), 0);
    while (bench->n_helpers > 0)
        uv_run(&bench->loop, UV_RUN_ONCE);
    expect_hello(bench);
    assert_int_equal(fake.n_started, 2);

    /* Before the loop has heard of it. */
    assert_int_equal(kill(fake.pid, SIGKILL), 0);
    assert_int_equal(waitid(P_PID, (id_t)fake.pid, &info, WEXITED | WNOWAIT), 0);
    expect_hello(bench);
    assert_int_equal(fake.n_started, 3);
}

static void stopped_while_idle_costs_one_request(void **state)
{
    struct bench *bench = *state;
    struct outcome outcome;

    expect_hello(bench);
    assert_int_equal(kill(fake.pid, SIGSTOP), 0);
    bench->limits.helper_op_ms = 200;
    submit(bench, BLY_FS_READ_FILE, &outcome);
    expect_failure(bench, &outcome, "sandboxed file operation took longer than 200 ms");
    bench->limits.helper_op_ms = 10000;
    expect_hello(bench);
    assert_int_equal(fake.n_started, 2);
}

/* The one it was at fails; those behind it had not begun. */
static void a_dead_helper_costs_one_request(void **state)
{
    struct bench *bench = *state;
    struct outcome outcomes[10];

    fake.body = die_at_request;
    for (int i = 0; i < 10; i++)
        submit(bench, BLY_FS_READ_FILE, &outcomes[i]);
    wait_for(bench, &outcomes[0].done);
    fake.body = NULL;
    expect_failure(bench, &outcomes[0], "sandboxed helper ended unexpectedly");
    for (int i = 1; i < 10; i++) {
        wait_for(bench, &outcomes[i].done);
        /* The second helper may have been made before the first answer came. */
        if (outcomes[i].reply.err.kind != BLY_ERR_NONE)
            assert_string_equal(outcomes[i].reply.err.text, "sandboxed helper ended unexpectedly");
        else
            assert_memory_equal(outcomes[i].reply.text_mem + BLY_FS_TEXT_HEAD, "aGVsbG8=", 8);
        bly_fs_reply_deinit(&outcomes[i].reply);
    }
    assert_int_equal(outcomes[9].reply.err.kind, BLY_ERR_NONE);
    assert_in_range(fake.n_started, 2, 4);
}

static void helpers_that_die_at_birth_are_given_up(void **state)
{
    struct bench *bench = *state;
    struct outcome outcome;

    fake.body = die_at_once;
    submit(bench, BLY_FS_READ_FILE, &outcome);
    expect_failure(bench, &outcome, "sandboxed helper ended unexpectedly");
    assert_in_range(fake.n_started, 1, 20);
    fake.body = NULL;
    expect_hello(bench);
}

static void a_stuck_helper_is_killed(void **state)
{
    struct bench *bench = *state;
    struct outcome stuck, behind;

    bench->limits.helper_op_ms = 200;
    fake.body = hang;
    submit(bench, BLY_FS_READ_FILE, &stuck);
    submit(bench, BLY_FS_READ_FILE, &behind);
    wait_for(bench, &stuck.done);
    fake.body = NULL;
    expect_failure(bench, &stuck, "sandboxed file operation took longer than 200 ms");
    wait_for(bench, &behind.done);
    bly_fs_reply_deinit(&behind.reply);
    bench->limits.helper_op_ms = 10000;
    expect_hello(bench);
}

static void a_cancelled_stuck_request_frees_the_queue(void **state)
{
    struct bench *bench = *state;
    struct outcome stuck, behind;
    struct bly_fs_call *call;

    fake.body = hang;
    call = submit(bench, BLY_FS_GET_METADATA, &stuck);
    submit(bench, BLY_FS_READ_FILE, &behind);
    while (fake.n_started == 0)
        uv_run(&bench->loop, UV_RUN_ONCE);
    for (int i = 0; i < 20; i++)
        uv_run(&bench->loop, UV_RUN_ONCE);
    fake.body = NULL;
    bly_fs_cancel(call);
    assert_false(stuck.done);
    wait_for(bench, &stuck.done);
    assert_int_equal(stuck.reply.err.sys, ECANCELED);
    bly_fs_reply_deinit(&stuck.reply);
    wait_for(bench, &behind.done);
    assert_int_equal(behind.reply.err.kind, BLY_ERR_NONE);
    bly_fs_reply_deinit(&behind.reply);
    assert_int_equal(fake.n_started, 2);
}

static void a_stale_plan_gets_a_new_helper(void **state)
{
    struct bench *bench = *state;
    struct outcome outcomes[6];

    expect_hello(bench);
    assert_int_equal(fake.n_started, 1);
    for (int i = 0; i < 6; i++) {
        if (i == 3)
            fake.stale = true; /* found by the fourth, while three are in flight */
        submit(bench, BLY_FS_READ_FILE, &outcomes[i]);
    }
    for (int i = 0; i < 6; i++) {
        wait_for(bench, &outcomes[i].done);
        assert_string_equal(outcomes[i].reply.err.text, "");
        bly_fs_reply_deinit(&outcomes[i].reply);
    }
    assert_in_range(fake.n_plans, 1, 2);
    fake.stale = true;
    expect_hello(bench);
    assert_int_equal(fake.n_started, fake.n_plans);
    assert_true(fake.n_started >= 2);
}

static void no_plan_no_operation(void **state)
{
    struct bench *bench = *state;
    struct outcome outcomes[2];

    fake.plan_fails = true;
    submit(bench, BLY_FS_READ_FILE, &outcomes[0]);
    submit(bench, BLY_FS_REMOVE, &outcomes[1]);
    for (int i = 0; i < 2; i++) {
        wait_for(bench, &outcomes[i].done);
        assert_int_equal(outcomes[i].reply.err.kind, BLY_ERR_UNSUPPORTED);
        assert_string_equal(outcomes[i].reply.err.text, "sandbox unavailable: because");
        bly_fs_reply_deinit(&outcomes[i].reply);
    }
    assert_int_equal(fake.n_started, 0);
    fake.plan_fails = false;
    expect_hello(bench);
}

static void no_wall_no_operation(void **state)
{
    struct bench *bench = *state;
    struct outcome outcome;

    fake.start_fails = true;
    submit(bench, BLY_FS_REMOVE, &outcome);
    wait_for(bench, &outcome.done);
    assert_int_equal(outcome.reply.err.kind, BLY_ERR_UNSUPPORTED);
    assert_string_equal(outcome.reply.err.text, "the wall did not stand");
    bly_fs_reply_deinit(&outcome.reply);
    fake.start_fails = false;
    expect_hello(bench);
}

static void the_limit_of_the_server_counts_too(void **state)
{
    struct bench *bench = *state;
    struct outcome outcome;

    /* Other sessions have them all. */
    bench->limits.helpers = 3;
    bench->n_helpers = 3;
    submit(bench, BLY_FS_READ_FILE, &outcome);
    for (int i = 0; i < 20 && !outcome.done; i++)
        uv_run(&bench->loop, UV_RUN_ONCE);
    assert_false(outcome.done);
    assert_int_equal(fake.n_started, 0);
    bench->n_helpers = 2;
    wait_for(bench, &outcome.done);
    assert_string_equal(outcome.reply.err.text, "");
    bly_fs_reply_deinit(&outcome.reply);
    bench->n_helpers -= 2;
}

static void malformed_requests_end_a_helper(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } packets[] = {{"", 1}, {"garbage", 7}, {incoming, 64}, {incoming, 72}, {incoming, 4096}};

    (void)state;
    memset(incoming, 0, sizeof incoming);
    for (size_t i = 0; i < BLY_LEN(packets); i++) {
        int pair[2], status;
        char answer[64];
        pid_t pid;

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        pid = fork();
        if (pid == 0) {
            close(pair[0]);
            _exit(bly_helper_main(pair[1], NULL, NULL));
        }
        close(pair[1]);
        assert_true(send(pair[0], packets[i].bytes, packets[i].len, 0) > 0);
        assert_int_equal(recv(pair[0], answer, sizeof answer, 0), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(WEXITSTATUS(status), 1);
        close(pair[0]);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest others[] = {
        TEST(killed_while_idle_costs_nothing),
        TEST(stopped_while_idle_costs_one_request),
        TEST(a_dead_helper_costs_one_request),
        TEST(helpers_that_die_at_birth_are_given_up),
        TEST(a_stuck_helper_is_killed),
        TEST(a_cancelled_stuck_request_frees_the_queue),
        TEST(a_stale_plan_gets_a_new_helper),
        TEST(no_plan_no_operation),
        TEST(no_wall_no_operation),
        TEST(the_limit_of_the_server_counts_too),
        cmocka_unit_test(malformed_requests_end_a_helper),
    };
    struct CMUnitTest tests[BLY_LEN(lies)] = {0};
    struct CMUnitTest ends[BLY_LEN(deaths)] = {0};

    for (size_t i = 0; i < BLY_LEN(deaths); i++)
        ends[i] = (struct CMUnitTest){
            .name = deaths[i].name,
            .test_func = check_death,
            .setup_func = setup_death,
            .teardown_func = teardown,
            .initial_state = (void *)(uintptr_t)&deaths[i],
        };

    for (size_t i = 0; i < BLY_LEN(lies); i++)
        tests[i] = (struct CMUnitTest){
            .name = lies[i].name,
            .test_func = check_lie,
            .setup_func = setup_lie,
            .teardown_func = teardown,
            .initial_state = (void *)(uintptr_t)&lies[i],
        };
    return cmocka_run_group_tests_name("lies", tests, NULL, NULL) +
           cmocka_run_group_tests_name("deaths", ends, NULL, NULL) +
           cmocka_run_group_tests_name("others", others, NULL, NULL);
}
