#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "fs/helper/helper.h"
#include "fs/oneshot.h"
#include "fs/watch.h"
#include "launcher/planner.h"
#include "sandbox/policy/policy.h"
#include "script.h"
#include "unit/launcher/fixture.h"

/* Sandboxed requests all the way: the real planner, launcher, wall and warm helpers. */

struct state {
    const struct script_case *c;
    const char *policy;
};

struct bench {
    struct fixture *fixture;
    struct bly_planner *planner;
    struct bly_watcher *watcher;
    struct bly_limits limits;
    size_t n_helpers;
    struct bly_fs *fs;
    struct bly_policy *policy; /* of the requests run_sandboxed() makes; NULL: direct */
    char *dir;
    bool closed;
};

static int give_spawner(void *arg, struct bly_spawner **ret_spawner, struct bly_err *err)
{
    struct bench *bench = arg;

    (void)err;
    *ret_spawner = bench->fixture->spawner;
    return 0;
}

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

static int setup(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    struct bly_fs_config config;
    void *fixture = *state;

    umask(022);
    if (fixture_setup(&fixture) < 0)
        return -1;
    bench->fixture = fixture;
    bench->dir = script_directory();
    bly_limits_defaults(&bench->limits);
    assert_int_equal(bly_planner_new(&bench->fixture->loop, bench->limits.watches, &bench->planner),
                     0);
    assert_int_equal(bly_watcher_new(bench->limits.watches, &bench->watcher), 0);
    config = (struct bly_fs_config){
        .loop = &bench->fixture->loop,
        .planner = bench->planner,
        .watcher = bench->watcher,
        .limits = &bench->limits,
        .n_helpers = &bench->n_helpers,
        .spawner = give_spawner,
        .arg = bench,
    };
    assert_int_equal(bly_fs_new(&config, &bench->fs), 0);
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    void *fixture = bench->fixture;
    int r = 0;

    bly_fs_close(bench->fs, set_true, &bench->closed);
    fixture_wait(bench->fixture, &bench->closed);
    if (bench->n_helpers != 0)
        r = -1;
    if (bly_watcher_counts(bench->watcher).watches != 0)
        r = -1;
    bly_watcher_free(bench->watcher);
    bly_planner_free(bench->planner);
    bly_policy_unref(bench->policy);
    script_cleanup(bench->dir);
    if (fixture_teardown(&fixture) < 0)
        r = -1;
    free(bench);
    return r;
}

/* What a done callback leaves behind. */
struct outcome {
    bool done;
    struct bly_fs_reply *reply;
};

static void keep_reply(void *arg, struct bly_fs_reply *reply)
{
    struct outcome *outcome = arg;

    *outcome->reply = *reply;
    bly_fs_reply_init(reply);
    outcome->done = true;
}

static void submit(struct bench *bench, struct bly_fs_request *request, struct outcome *outcome,
                   struct bly_fs_call **ret_call)
{
    struct bly_fs_context *context = NULL;

    outcome->done = false;
    if (bench->policy != NULL)
        assert_int_equal(bly_fs_context(bench->fs, bench->policy, &context), 0);
    assert_int_equal(bly_fs_submit(bench->fs, context, request, keep_reply, outcome, ret_call), 0);
    assert_false(outcome->done);
}

static void run_in(void *arg, struct bly_fs_request *request, struct bly_fs_reply *reply)
{
    struct bench *bench = arg;
    struct outcome outcome = {.reply = reply};
    struct bly_fs_call *call;

    submit(bench, request, &outcome, &call);
    fixture_wait(bench->fixture, &outcome.done);
}

static int setup_row(void **state)
{
    const struct state *row = *state;
    int r = setup(state);

    if (r == 0)
        ((struct bench *)*state)->fixture->param = row;
    return r;
}

static void check_row(void **state)
{
    struct bench *bench = *state;
    const struct state *row = bench->fixture->param;

    script_setup(bench->dir, row->c->setup);
    bench->policy = script_policy(bench->dir, row->policy);
    script_check_case(row->c, bench->dir, run_in, bench);
}

static void check_direct_row(void **state)
{
    struct bench *bench = *state;
    const struct state *row = bench->fixture->param;

    script_setup(bench->dir, row->c->setup);
    script_check_case(row->c, bench->dir, run_in, bench);
}

/* ---- beyond the rows ---- */

static char *path_in(const struct bench *bench, const char *name)
{
    char *path = NULL;

    assert_true(asprintf(&path, "%s/%s", bench->dir, name) > 0);
    return path;
}

static void in_workspace(struct bench *bench)
{
    script_setup(bench->dir, "w/a=A out/secret=s");
    bench->policy = script_policy(bench->dir, "minimal\nrw $T/w");
}

/* Writes `n` bytes and reads them back, through all the ways data can take. */
static void round_trip(struct bench *bench, size_t n)
{
    bly_autofree char *path = path_in(bench, "w/f"), *data = malloc(n + 1), *back = malloc(n + 8);
    struct bly_fs_request request = {
        .op = BLY_FS_WRITE_FILE, .path = path, .max_text_bytes = SIZE_MAX};
    struct bly_fs_reply reply;
    size_t got;

    for (size_t at = 0; at < n; at++)
        data[at] = (char)(at * 31 + (at >> 8));
    request.base64_len = bly_base64_len(n);
    request.base64 = malloc(request.base64_len + 1);
    bly_base64_encode(data, n, request.base64);
    run_in(bench, &request, &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_NONE);
    bly_fs_reply_deinit(&reply);
    free(request.base64);

    request.op = BLY_FS_READ_FILE;
    run_in(bench, &request, &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_NONE);
    assert_int_equal(reply.text_len, bly_base64_len(n));
    assert_int_equal(
        bly_base64_decode(reply.text_mem + BLY_FS_TEXT_HEAD, reply.text_len, back, &got, NULL), 0);
    assert_int_equal(got, n);
    assert_memory_equal(back, data, n);
    memset(reply.text_mem, 'x', BLY_FS_TEXT_HEAD);
    memset(reply.text_mem + BLY_FS_TEXT_HEAD + reply.text_len, 'x', BLY_FS_TEXT_TAIL);
    bly_fs_reply_deinit(&reply);
}

static void data_of_every_size(void **state)
{
    static const size_t sizes[] = {0, 1, 49151, 65535, 65536, 65537, 131072, 5000001};
    struct bench *bench = *state;

    in_workspace(bench);
    for (size_t i = 0; i < BLY_LEN(sizes); i++)
        round_trip(bench, sizes[i]);
    assert_int_equal(bench->n_helpers, 1);
}

static void a_file_of_proc_is_read_inside(void **state)
{
    struct bench *bench = *state;
    struct bly_fs_request request = {
        .op = BLY_FS_READ_FILE, .path = "/proc/self/environ", .max_text_bytes = SIZE_MAX};
    struct bly_fs_reply reply;

    bench->policy = script_policy(bench->dir, "ro /");
    setenv("BLY_TEST_SECRET", "the-secret", 1);
    run_in(bench, &request, &reply);
    assert_int_equal(reply.err.kind, reply.text_len == 0 ? reply.err.kind : BLY_ERR_NONE);
    assert_int_equal(reply.text_len, 0);
    bly_fs_reply_deinit(&reply);

    /* Never as a handle: its contents would be those of whoever reads. */
    request.op = BLY_FS_OPEN;
    request.path = "/proc/version";
    run_in(bench, &request, &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_INVALID);
    assert_int_equal(reply.fd, -EBADF);
    bly_fs_reply_deinit(&reply);
    request.op = BLY_FS_READ_FILE;
    run_in(bench, &request, &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_NONE);
    assert_true(reply.text_len > 10);
    bly_fs_reply_deinit(&reply);
}

static void long_lists_come_in_pieces(void **state)
{
    struct bench *bench = *state;
    bly_autofree char *dir = path_in(bench, "w/many");
    struct bly_fs_request request = {.op = BLY_FS_READ_DIRECTORY, .path = dir};
    struct bly_fs_reply reply;

    in_workspace(bench);
    assert_int_equal(mkdir(dir, 0755), 0);
    for (int i = 0; i < 6000; i++) {
        char name[64];
        bly_autofree char *path = NULL;

        snprintf(name, sizeof name, "w/many/a-name-of-some-length-%d", i);
        path = path_in(bench, name);
        assert_int_equal(mknod(path, S_IFREG | 0644, 0), 0);
    }
    run_in(bench, &request, &reply);
    assert_string_equal(reply.err.text, "");
    assert_int_equal(reply.n_entries, 6000);
    assert_true(reply.entries.len > 2 * 65536);
    bly_fs_reply_deinit(&reply);

    request.op = BLY_FS_WALK;
    request.walk = (struct bly_fs_walk){.max_directories = 10, .max_entries = 5000};
    run_in(bench, &request, &reply);
    assert_string_equal(reply.err.text, "");
    assert_int_equal(reply.n_entries, 5000);
    assert_true(reply.truncated);
    bly_fs_reply_deinit(&reply);
}

enum { N_PIPELINED = 200 };

/* A write is seen by the read behind it, and not by the one before it, also when files are large
 * enough to be read by a pool thread. */
static void pipelined_requests_keep_their_order(void **state)
{
    struct bench *bench = *state;
    static const size_t sizes[] = {10, 300000};

    in_workspace(bench);
    for (size_t s = 0; s < BLY_LEN(sizes); s++) {
        bly_autofree char *path = path_in(bench, "w/f");
        struct outcome outcomes[N_PIPELINED];
        struct bly_fs_reply *replies = calloc(N_PIPELINED, sizeof *replies);
        size_t n = sizes[s], text_len = bly_base64_len(n);
        char *texts[N_PIPELINED] = {0};

        for (int i = 0; i < N_PIPELINED; i++) {
            struct bly_fs_request request = {.path = path, .max_text_bytes = SIZE_MAX};
            bly_autofree char *data = malloc(n);
            struct bly_fs_call *call;

            outcomes[i].reply = &replies[i];
            request.op = i % 2 ? BLY_FS_READ_FILE : BLY_FS_WRITE_FILE;
            if (request.op == BLY_FS_WRITE_FILE) {
                memset(data, 'a' + i % 26, n);
                texts[i] = malloc(text_len);
                bly_base64_encode(data, n, texts[i]);
                request.base64 = texts[i];
                request.base64_len = text_len;
            }
            submit(bench, &request, &outcomes[i], &call);
        }
        fixture_wait(bench->fixture, &outcomes[N_PIPELINED - 1].done);
        for (int i = 0; i < N_PIPELINED; i++) {
            assert_true(outcomes[i].done);
            assert_int_equal(replies[i].err.kind, BLY_ERR_NONE);
            if (i % 2) {
                char *back = malloc(n + 8);
                size_t got;

                assert_int_equal(bly_base64_decode(replies[i].text_mem + BLY_FS_TEXT_HEAD,
                                                   replies[i].text_len, back, &got, NULL),
                                 0);
                assert_int_equal(got, n);
                assert_int_equal(back[0], 'a' + (i - 1) % 26);
                assert_int_equal(back[n - 1], 'a' + (i - 1) % 26);
                free(back);
            }
            bly_fs_reply_deinit(&replies[i]);
            free(texts[i]);
        }
        free(replies);
    }
}

static void expect_read(struct bench *bench, const char *name, const char *answer)
{
    bly_autofree char *step = NULL, *got = NULL;

    assert_true(asprintf(&step, "read %s", name) > 0);
    got = script_answers(bench->dir, step, run_in, bench);
    assert_string_equal(got, answer);
}

/* The wall follows the disk: what a rule names may be replaced between two requests. */
static void a_changed_disk_gets_a_new_wall(void **state)
{
    struct bench *bench = *state;
    bly_autofree char *root = path_in(bench, "w"), *old = path_in(bench, "old");
    bly_autofree char *out = path_in(bench, "out"), *git = path_in(bench, "w/.git");
    bly_autofree char *got = NULL;

    in_workspace(bench);
    expect_read(bench, "w/a", "\"A\"\n");

    /* Another directory of the same name. */
    assert_int_equal(rename(root, old), 0);
    script_setup(bench->dir, "w/a=other");
    expect_read(bench, "w/a", "\"other\"\n");

    /* A protected name appears. */
    assert_int_equal(mkdir(git, 0755), 0);
    got = script_answers(bench->dir, "write w/.git/x y", run_in, bench);
    assert_non_null(strstr(got, "denied"));
    assert_int_equal(bench->n_helpers <= 2, 1);
    (void)out;
}

/* A root that is replaced by a link inside of what was writable must not be followed. */
static void a_planted_link_is_refused(void **state)
{
    struct bench *bench = *state;
    bly_autofree char *root = path_in(bench, "w/cache"), *out = path_in(bench, "out");
    bly_autofree char *got = NULL;

    script_setup(bench->dir, "w/cache/a=A out/a=secret");
    bench->policy = script_policy(bench->dir, "minimal\nrw $T/w\nrw $T/w/cache");
    expect_read(bench, "w/cache/a", "\"A\"\n");
    script_cleanup(strdup(root));
    assert_int_equal(symlink(out, root), 0);
    got = script_answers(bench->dir, "read w/cache/a\nwrite w/cache/n x", run_in, bench);
    assert_null(strstr(got, "secret"));
    assert_null(strstr(got, "ok"));
    assert_null(script_check(bench->dir, "!out/n"));
}

static void policies_do_not_mix(void **state)
{
    struct bench *bench = *state;
    struct bly_policy *policies[5];
    size_t n = BLY_LEN(policies);

    bench->limits.helpers_per_session = 2;
    script_setup(bench->dir, "d0/a=0 d1/a=1 d2/a=2 d3/a=3 d4/a=4");
    for (size_t i = 0; i < n; i++) {
        char rules[32];

        snprintf(rules, sizeof rules, "minimal\nrw $T/d%zu", i);
        policies[i] = script_policy(bench->dir, rules);
    }
    for (int round = 0; round < 3; round++) {
        struct outcome outcomes[5][5];
        struct bly_fs_reply *replies = calloc(n * n, sizeof *replies);
        char *paths[5];

        /* All at once, although only two helpers may live. */
        for (size_t i = 0; i < n; i++) {
            char name[8];

            snprintf(name, sizeof name, "d%zu/a", i);
            paths[i] = path_in(bench, name);
        }
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < n; k++) {
                struct bly_fs_request request = {
                    .op = BLY_FS_READ_FILE, .path = paths[k], .max_text_bytes = 100};
                struct bly_fs_call *call;

                outcomes[i][k].reply = &replies[i * n + k];
                bench->policy = policies[i];
                submit(bench, &request, &outcomes[i][k], &call);
            }
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < n; k++) {
                fixture_wait(bench->fixture, &outcomes[i][k].done);
                assert_int_equal(replies[i * n + k].err.kind,
                                 i == k ? BLY_ERR_NONE : BLY_ERR_SYSTEM);
                bly_fs_reply_deinit(&replies[i * n + k]);
                assert_in_range(bench->n_helpers, 0, 2);
            }
        for (size_t i = 0; i < n; i++)
            free(paths[i]);
        free(replies);
    }
    for (size_t i = 0; i < n; i++)
        bly_policy_unref(policies[i]);
    bench->policy = NULL;
}

static bool has_no_helper(void *arg)
{
    return ((struct bench *)arg)->n_helpers == 0;
}

static void idle_helpers_end(void **state)
{
    struct bench *bench = *state;

    bench->limits.helper_idle_ms = 100;
    in_workspace(bench);
    expect_read(bench, "w/a", "\"A\"\n");
    fixture_wait_for(bench->fixture, has_no_helper, bench);
    expect_read(bench, "w/a", "\"A\"\n");
}

/* A policy that cannot be enforced is an answer, and nothing runs without a wall. */
static void what_cannot_be_enforced_is_refused(void **state)
{
    struct bench *bench = *state;
    bly_autofree char *got = NULL;

    script_setup(bench->dir, "w/a=A w/link->../out out/secret=s");
    bench->policy = script_policy(bench->dir, "minimal\nrw $T/w\nrw $T/w/link/sub\nro $T/w/link");
    got = script_answers(bench->dir, "read out/secret\nread w/a\nwrite w/n x", run_in, bench);
    assert_null(strstr(got, "\"s\""));
    assert_null(strstr(got, "ok\n")); /* the random name of the directory may have an "ok" in it */
    assert_null(script_check(bench->dir, "!w/n"));
}

static void cancelled_while_it_waits_and_while_it_runs(void **state)
{
    struct bench *bench = *state;
    bly_autofree char *path = path_in(bench, "w/a");
    struct bly_fs_request request = {
        .op = BLY_FS_READ_FILE, .path = path, .max_text_bytes = SIZE_MAX};
    struct bly_fs_reply replies[3];
    struct outcome outcomes[3] = {
        {.reply = &replies[0]}, {.reply = &replies[1]}, {.reply = &replies[2]}};
    struct bly_fs_call *calls[3];

    in_workspace(bench);
    for (int round = 0; round < 2; round++) {
        /* First there is no helper yet, then they are sent at once. */
        for (int i = 0; i < 3; i++)
            submit(bench, &request, &outcomes[i], &calls[i]);
        bly_fs_cancel(calls[0]);
        bly_fs_cancel(calls[1]);
        assert_false(outcomes[0].done);
        for (int i = 0; i < 3; i++)
            fixture_wait(bench->fixture, &outcomes[i].done);
        assert_int_equal(replies[0].err.sys, ECANCELED);
        assert_int_equal(replies[1].err.sys, ECANCELED);
        assert_int_equal(replies[2].err.kind, BLY_ERR_NONE);
        for (int i = 0; i < 3; i++)
            bly_fs_reply_deinit(&replies[i]);
    }
}

/* A huge tree takes long; its client goes away, and the one behind it must not wait for it. */
static void a_cancelled_operation_is_stopped_in_the_helper(void **state)
{
    struct bench *bench = *state;
    bly_autofree char *from = path_in(bench, "w/big"), *to = path_in(bench, "w/copy");
    struct bly_fs_request request = {
        .op = BLY_FS_COPY, .path = from, .destination_path = to, .max_text_bytes = SIZE_MAX};
    struct bly_fs_reply reply;
    struct outcome outcome = {.reply = &reply};
    struct bly_fs_call *call;
    int fd;

    in_workspace(bench);
    expect_read(bench, "w/a", "\"A\"\n");
    fd = open(from, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0);
    /* No holes: the copy would fill the disk. Its blocks are few, but the size says otherwise. */
    close(fd);
    submit(bench, &request, &outcome, &call);
    bly_fs_cancel(call);
    fixture_wait(bench->fixture, &outcome.done);
    assert_int_equal(reply.err.sys, ECANCELED);
    bly_fs_reply_deinit(&reply);
    expect_read(bench, "w/a", "\"A\"\n");
}

static void closed_in_the_middle(void **state)
{
    struct bench *bench = *state;
    bly_autofree char *path = path_in(bench, "w/a");
    struct bly_fs_request request = {
        .op = BLY_FS_READ_FILE, .path = path, .max_text_bytes = SIZE_MAX};
    struct bly_fs_reply replies[40];
    struct outcome outcomes[40];
    struct bly_fs_call *call;

    in_workspace(bench);
    for (int i = 0; i < 40; i++) {
        outcomes[i].reply = &replies[i];
        if (i == 20)
            fixture_wait(bench->fixture, &outcomes[5].done);
        submit(bench, &request, &outcomes[i], &call);
    }
    teardown(state);
    for (int i = 0; i < 40; i++) {
        assert_true(outcomes[i].done);
        bly_fs_reply_deinit(&replies[i]);
    }
    setup(state);
}

static pid_t parent_of(pid_t pid)
{
    char path[64], text[256] = "";
    const char *behind;
    int fd, parent = 0;

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (read(fd, text, sizeof text - 1) > 0 && (behind = strrchr(text, ')')) != NULL)
        (void)sscanf(behind, ") %*c %d", &parent);
    close(fd);
    return parent;
}

/* Returns when it has ended: what it had open is closed then. */
static int kill_and_wait(pid_t pid)
{
    bly_autofd int fd = pidfd_open(pid, 0);
    struct pollfd ended = {.fd = fd, .events = POLLIN};

    if (fd < 0 || pidfd_send_signal(fd, SIGKILL, NULL, 0) < 0)
        return 0;
    assert_int_equal(poll(&ended, 1, 20000), 1);
    return 1;
}

/* Kills the helpers this test has now; their names are known before their walls stand. */
static int kill_helpers(void)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    int n = 0;

    assert_non_null(proc);
    while ((entry = readdir(proc)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        char path[300], name[32] = "";
        pid_t pid = atoi(entry->d_name), up = pid;
        int fd;

        (void)snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
        fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (fd < 0)
            continue;
        (void)!read(fd, name, sizeof name - 1);
        close(fd);
        while (up > 1 && up != getpid())
            up = parent_of(up);
        if (strncmp(name, "bailey-helper", 13) == 0 && up == getpid())
            n += kill_and_wait(pid);
    }
    closedir(proc);
    return n;
}

/* Also in the middle of building its wall: the request fails or was answered, the next one works.
 */
static void killed_at_any_time_costs_one_request(void **state)
{
    struct bench *bench = *state;
    bly_autofree char *path = path_in(bench, "w/a");
    struct bly_fs_request request = {
        .op = BLY_FS_READ_FILE, .path = path, .max_text_bytes = SIZE_MAX};
    int n_killed = 0;

    in_workspace(bench);
    for (int round = 0; round < 30; round++) {
        struct bly_fs_reply reply;
        struct outcome outcome = {.reply = &reply};
        struct bly_fs_call *call;
        int killed = 0;

        submit(bench, &request, &outcome, &call);
        for (int turn = 0; turn < round / 3 && !outcome.done; turn++)
            uv_run(&bench->fixture->loop, UV_RUN_ONCE);
        while (!outcome.done && killed == 0) {
            killed = kill_helpers();
            uv_run(&bench->fixture->loop, UV_RUN_NOWAIT);
        }
        n_killed += killed;
        fixture_wait(bench->fixture, &outcome.done);
        if (reply.err.kind == BLY_ERR_NONE)
            assert_memory_equal(reply.text_mem + BLY_FS_TEXT_HEAD, "QQ==", 4);
        else
            assert_true(reply.err.text[0] != '\0');
        bly_fs_reply_deinit(&reply);
        expect_read(bench, "w/a", "\"A\"\n");
        (void)kill_helpers();
    }
    assert_true(n_killed > 0);
}

static char *name_of(const char *mode, const char *name)
{
    char *text = NULL;

    if (asprintf(&text, "%s: %s", mode, name) < 0)
        abort();
    return text;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

/* What /proc shows of a process would be the helper's: addresses, descriptors, its view. */
#define OWN_STEPS                                                                                  \
    "read /proc/self/maps\nread /proc/thread-self/maps\nread /proc/1/maps\n"                       \
    "read /proc/self/task/1/smaps\nread /proc/1/auxv\nread /proc/1/syscall\nread /proc/1/stat\n"   \
    "read /proc/self/mem\nread /proc/self/environ\nread /proc/self/pagemap\nread "                 \
    "/proc/self/fd/0\n"                                                                            \
    "read /proc/self/fd/9\nlist /proc/self/fd\nlist /proc/1\nstat /proc/self\nstat /proc/1/none\n" \
    "canon /proc/self/exe\nwalk /proc/self\nopen /proc/self/maps\nread /proc/self/root$T/w/a\n"    \
    "read w/maps\nread w/self/maps\nlist w/self\ncopy /proc/self/maps w/copy\n"                    \
    "copy /proc/1 w/copy +r\nread /proc/mounts\nread /proc/net/tcp\n"
#define OWN_ANSWERS                                                                            \
    "EACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\n" \
    "EACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\n" \
    "EACCES\nEACCES\nEACCES\nEACCES\nEACCES\n"

static const struct script_case proc_rows[] = {
    {"a helper's own directory is nobody's", "w/a=A w/maps->/proc/self/maps w/self->/proc/self",
     OWN_STEPS "read /proc/sys/kernel/ostype\nwrite /proc/self/mem x\nreplace /proc/1/mem\n"
               "write /proc/self/comm x\nrm /proc/self/mem",
     OWN_ANSWERS "\"Linux\n\"\n"
                 "denied: /proc/self/mem is not permitted by filesystem sandbox\n"
                 "denied: /proc/1/mem is not permitted by filesystem sandbox\n"
                 "denied: /proc/self/comm is not permitted by filesystem sandbox\n"
                 "denied: /proc/self/mem is not permitted by filesystem sandbox\n",
     "!w/copy", "ro /\nrw $T/w"},
    {"nor is it when it is granted", "w/a=A w/maps->/proc/self/maps w/self->/proc/self",
     OWN_STEPS "write /proc/self/mem x",
     OWN_ANSWERS "denied: /proc/self/mem is not permitted by filesystem sandbox\n", "!w/copy",
     "ro /\nrw $T/w\nrw /proc/self\nrw /proc/1\nrw /proc/1/mem\nro /proc/1/maps\nrw "
     "/proc/thread-self"},
    {"nor when it is granted alone", "w/",
     "read /proc/1/maps\nread /proc/self/maps\nread /proc/1/mem\nread /proc/version",
     "EACCES\nEACCES\nENOENT\nENOENT\n", NULL, "minimal\nro /proc/1/maps\nro /proc/self/maps"},
    {"nor with everything writable", "w/a=A", "read /proc/self/maps\nwrite /proc/1/mem x",
     "EACCES\ndenied: /proc/1/mem is not permitted by filesystem sandbox\n", NULL,
     "rw /\ndeny $T/w"},
};

int main(int argc, char **argv)
{
    const struct CMUnitTest others[] = {
        TEST(data_of_every_size),
        TEST(a_file_of_proc_is_read_inside),
        TEST(long_lists_come_in_pieces),
        TEST(pipelined_requests_keep_their_order),
        TEST(a_changed_disk_gets_a_new_wall),
        TEST(a_planted_link_is_refused),
        TEST(policies_do_not_mix),
        TEST(idle_helpers_end),
        TEST(what_cannot_be_enforced_is_refused),
        TEST(cancelled_while_it_waits_and_while_it_runs),
        TEST(a_cancelled_operation_is_stopped_in_the_helper),
        TEST(closed_in_the_middle),
        TEST(killed_at_any_time_costs_one_request),
    };
    size_t n = 0, n_rows = 2 * script_n_same + script_n_denials + BLY_LEN(proc_rows);
    struct CMUnitTest *tests;
    struct state *states;
    int failed;

    fixture_main(argc, argv, bly_helper_main);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    tests = calloc(n_rows, sizeof *tests);
    states = calloc(n_rows, sizeof *states);
    for (size_t i = 0; i < script_n_same; i++) {
        states[n] = (struct state){&script_same[i], "ro /\nrw $T"};
        tests[n].test_func = check_row;
        tests[n++].name = name_of("wall", script_same[i].name);
        states[n] = (struct state){&script_same[i], NULL};
        tests[n].test_func = check_direct_row;
        tests[n++].name = name_of("pool", script_same[i].name);
    }
    for (size_t i = 0; i < script_n_denials; i++) {
        states[n] = (struct state){&script_denials[i], script_denials[i].policy};
        tests[n].test_func = check_row;
        tests[n++].name = name_of("denial", script_denials[i].name);
    }
    for (size_t i = 0; i < BLY_LEN(proc_rows); i++) {
        states[n] = (struct state){&proc_rows[i], proc_rows[i].policy};
        tests[n].test_func = check_row;
        tests[n++].name = name_of("proc", proc_rows[i].name);
    }
    for (size_t i = 0; i < n; i++) {
        tests[i].setup_func = setup_row;
        tests[i].teardown_func = teardown;
        tests[i].initial_state = &states[i];
    }
    failed = _cmocka_run_group_tests("rows", tests, n, NULL, NULL);
    failed += cmocka_run_group_tests(others, NULL, NULL);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)tests[i].name);
    free(tests);
    free(states);
    return failed;
}
