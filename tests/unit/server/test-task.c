#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake-process.h"
#include "fake.h"

struct stage {
    struct fake fake;
    struct bly_conn *conn;
    char session[37];
};

static int setup(void **state)
{
    struct stage *stage = calloc(1, sizeof(*stage));

    assert_non_null(stage);
    fake_process_reset();
    fake_init(&stage->fake);
    stage->fake.limits.finished_ms = 50;
    stage->fake.limits.drain_ms = 86400000;
    stage->fake.limits.processes = 2;
    stage->fake.limits.output_queue_bytes = 65536;
    fake_start(&stage->fake);
    stage->conn = fake_connect(&stage->fake);
    fake_handshake(stage->conn, stage->session);
    *state = stage;
    return 0;
}

static int teardown(void **state)
{
    struct stage *stage = *state;

    if (stage->conn)
        fake_hang_up(stage->conn);
    fake_end(&stage->fake);
    free(stage);
    return 0;
}

static void ask(struct stage *stage, int id, const char *method, const char *more)
{
    char text[512];

    (void)snprintf(text, sizeof(text),
                   "{\"id\":%d,\"method\":\"process/%s\",\"params\":{\"processId\":\"p\"%s}}", id,
                   method, more);
    fake_send(stage->conn, text);
}

#define START ",\"argv\":[\"/x\"],\"cwd\":\"/\",\"env\":{},\"tty\":false,\"pipeStdin\":true"
#define WALLED                                                        \
    START ",\"sandbox\":{\"sandboxPolicy\":{\"type\":\"read-only\"}," \
          "\"windowsSandboxLevel\":\"disabled\"}"

static void expect(struct stage *stage, const char *part)
{
    const char *message = fake_next(stage->conn);

    if (!strstr(message, part))
        fail_msg("expected %s, got %s", part, message);
}

static void expect_nothing(struct stage *stage)
{
    assert_true(fake_is_quiet(stage->conn));
}

static void the_answer_comes_when_it_runs(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    assert_true(fake_process.started);
    assert_false(fake_process.walled);
    expect_nothing(stage);
    fake_process_started();
    expect(stage, "{\"id\":2,\"result\":{\"processId\":\"p\",\"sandboxType\":\"none\"}}");
    fake_process_says("hi");
    expect(stage, "process/output");
    fake_process_exits(3);
    expect(stage, "\"exitCode\":3");
    fake_process_closes();
    expect(stage, "process/closed");
}

static void a_wall_is_planned_first(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", WALLED);
    assert_true(fake_plan_wanted());
    assert_false(fake_process.started);
    fake_plan_done(true);
    assert_true(fake_process.walled);
    fake_process_started();
    expect(stage, "\"sandboxType\":\"linuxSeccomp\"");
}

static void without_a_wall_nothing_runs(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", WALLED);
    fake_plan_done(false);
    expect(stage, "{\"code\":-32603,\"message\":\"no wall today\"}");
    assert_false(fake_process.started);
    ask(stage, 3, "start", START); /* the id is free again */
    fake_process_started();
    expect(stage, "{\"id\":3,\"result\"");
}

static void a_failed_start_frees_the_id(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    fake_process_not_started(ENOENT);
    expect(stage, "No such file or directory (os error 2)");
    assert_true(fake_process.closed);
    ask(stage, 3, "read", "");
    expect(stage, "unknown process id p");
}

static void an_id_in_use_is_refused(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    fake_process_started();
    expect(stage, "{\"id\":2,\"result\"");
    ask(stage, 3, "start", START);
    expect(stage, "{\"code\":-32600,\"message\":\"process p already exists\"}");
}

static void a_second_start_may_follow_one_that_fails(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", WALLED);
    ask(stage, 3, "start", START);
    fake_plan_done(false);
    expect(stage, "{\"id\":2,\"error\"");
    assert_true(fake_process.started);
    fake_process_started();
    expect(stage, "{\"id\":3,\"result\"");
}

static void what_is_sent_behind_a_start_finds_it(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", WALLED);
    ask(stage, 3, "write", ",\"chunk\":\"YWI=\"");
    ask(stage, 4, "write", ",\"chunk\":\"Yw==\"");
    ask(stage, 5, "read", "");
    expect(stage, "{\"id\":5,\"result\":{\"chunks\":[],\"nextSeq\":1,\"exited\":false");
    ask(stage, 6, "read", ",\"waitMs\":5000");
    ask(stage, 7, "terminate", "");
    expect(stage, "{\"running\":true}");
    expect_nothing(stage);

    fake_plan_done(true);
    assert_string_equal(fake_process.written, "abc");
    assert_true(fake_process.terminated);
    expect(stage, "{\"id\":3,\"result\":{\"status\":\"accepted\"}}");
    expect(stage, "{\"id\":4,");
    fake_process_started();
    expect(stage, "{\"id\":2,");
    fake_process_says("x");
    expect(stage, "process/output");
    expect(stage, "{\"id\":6,\"result\":{\"chunks\":[{");
}

static void what_waits_for_a_start_that_fails_is_answered(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", WALLED);
    ask(stage, 3, "write", ",\"chunk\":\"YWI=\"");
    ask(stage, 4, "read", ",\"waitMs\":5000");
    fake_plan_done(false);
    expect(stage, "{\"id\":4,\"error\":{\"code\":-32600,\"message\":\"unknown process id p\"}}");
    expect(stage, "{\"id\":3,\"result\":{\"status\":\"unknownProcess\"}}");
    expect(stage, "{\"id\":2,\"error\"");
}

static void a_start_outlives_its_connection(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", WALLED);
    fake_hang_up(stage->conn);
    stage->conn = NULL;
    fake_plan_done(true);
    assert_true(fake_process.started);
    fake_process_started();
    fake_process_says("kept");
}

static void a_session_that_ends_takes_everything_along(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    fake_process_started();
    fake_process_is_full();
    expect(stage, "{\"id\":2,");
    ask(stage, 3, "write", ",\"chunk\":\"YQ==\"");
    ask(stage, 4, "read", ",\"waitMs\":5000");
    fake_end_begin(&stage->fake);
    assert_true(fake_process.closed);
    expect(stage, "{\"id\":4,\"error\"");
    expect(stage, "{\"id\":3,\"result\":{\"status\":\"unknownProcess\"}}");
}

/* Each answer makes room for the next start, which then finds its session ended. */
static void a_session_may_end_with_starts_in_line(void **state)
{
    struct stage *stage = *state;
    char text[256];

    stage->fake.limits.processes = 4;
    ask(stage, 2, "start", WALLED);
    for (int id = 0; id < 3; id++) {
        (void)snprintf(
            text, sizeof(text),
            "{\"id\":%d,\"method\":\"process/start\",\"params\":{\"processId\":\"%d\"" START "}}",
            3 + id, id);
        fake_send(stage->conn, text);
        (void)snprintf(text, sizeof(text),
                       "{\"id\":%d,\"method\":\"process/write\",\"params\":{\"processId\":\"%d\","
                       "\"chunk\":\"\"}}",
                       6 + id, id);
        fake_send(stage->conn, text);
    }
    fake_end_begin(&stage->fake);
    assert_false(fake_plan_wanted());
    for (int i = 0; i < 7; i++)
        (void)fake_next(stage->conn);
    expect_nothing(stage);
}

static void a_start_that_never_got_its_turn_is_forgotten(void **state)
{
    struct stage *stage = *state;
    char text[256];

    ask(stage, 2, "start", WALLED);
    fake_send(stage->conn,
              "{\"id\":3,\"method\":\"process/start\",\"params\":{\"processId\":\"q\"" START "}}");
    fake_hang_up(stage->conn);
    fake_plan_done(true);
    fake_process_started();
    stage->conn = fake_connect(&stage->fake);
    (void)snprintf(text, sizeof(text),
                   "{\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"t\","
                   "\"resumeSessionId\":\"%s\"}}",
                   stage->session);
    fake_send(stage->conn, text);
    expect(stage, stage->session);
    fake_send(stage->conn, "{\"method\":\"initialized\"}");
    ask(stage, 4, "read", "");
    expect(stage, "{\"id\":4,\"result\"");
    fake_send(stage->conn,
              "{\"id\":5,\"method\":\"process/read\",\"params\":{\"processId\":\"q\"}}");
    expect(stage, "unknown process id q");
}

/* Each row: what the reader knows and asks for, and whether it has to wait for more. */
static void waiting_ends_when_there_is_something_new(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    fake_process_started();
    expect(stage, "{\"id\":2,");
    fake_process_says("a"); /* 1 */
    expect(stage, "process/output");
    ask(stage, 3, "read", ",\"waitMs\":5000");
    expect(stage, "{\"id\":3,");
    ask(stage, 4, "read", ",\"afterSeq\":1,\"waitMs\":5000");
    expect_nothing(stage);
    fake_process_exits(0); /* 2 */
    expect(stage, "process/exited");
    expect(stage, "{\"id\":4,\"result\":{\"chunks\":[],\"nextSeq\":3,\"exited\":true");
    ask(stage, 5, "read", ",\"afterSeq\":1,\"waitMs\":5000");
    expect(stage, "{\"id\":5,");
    ask(stage, 6, "read", ",\"afterSeq\":2,\"waitMs\":5000");
    expect_nothing(stage);     /* it knows about the exit */
    fake_process_says("late"); /* 3 */
    expect(stage, "process/output");
    expect(stage, "{\"id\":6,");
    ask(stage, 7, "read", ",\"afterSeq\":3,\"waitMs\":5000");
    expect_nothing(stage);
    fake_process_closes(); /* 4 */
    expect(stage, "process/closed");
    expect(stage, "\"closed\":true");
    ask(stage, 8, "read", ",\"afterSeq\":99,\"waitMs\":5000");
    expect(stage, "{\"id\":8,");
}

static void waiting_ends_in_time(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    fake_process_started();
    expect(stage, "{\"id\":2,");
    ask(stage, 3, "read", ",\"waitMs\":30");
    expect_nothing(stage);
    expect(stage, "{\"id\":3,\"result\":{\"chunks\":[]");
}

static void readers_that_wait_do_not_count_as_requests(void **state)
{
    struct stage *stage = *state;

    stage->fake.limits.requests_in_flight = 3;
    ask(stage, 2, "start", START);
    fake_process_started();
    expect(stage, "{\"id\":2,");
    for (int id = 3; id < 6; id++)
        ask(stage, id, "read", ",\"waitMs\":5000");
    assert_false(fake_is_paused(stage->conn));
    expect_nothing(stage);
    ask(stage, 6, "read", ",\"waitMs\":5000"); /* one too many waits no longer */
    expect(stage, "{\"id\":6,");
}

static void a_write_that_waits_holds_up_nothing(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    fake_process_started();
    expect(stage, "{\"id\":2,");
    fake_process_is_full();
    ask(stage, 3, "write", ",\"chunk\":\"YQ==\"");
    ask(stage, 4, "signal", ",\"signal\":\"interrupt\"");
    expect(stage, "{\"id\":4,\"result\":{}}");
    assert_true(fake_process.interrupted);
    fake_process_takes();
    expect(stage, "{\"id\":3,\"result\":{\"status\":\"accepted\"}}");
}

static void writes_that_wait_count_as_requests(void **state)
{
    struct stage *stage = *state;

    stage->fake.limits.requests_in_flight = 2;
    ask(stage, 2, "start", START);
    fake_process_started();
    expect(stage, "{\"id\":2,");
    fake_process_is_full();
    ask(stage, 3, "write", ",\"chunk\":\"YQ==\"");
    assert_false(fake_is_paused(stage->conn));
    ask(stage, 4, "write", ",\"chunk\":\"YQ==\"");
    assert_true(fake_is_paused(stage->conn));
    fake_process_takes();
    assert_false(fake_is_paused(stage->conn));
}

static void a_finished_process_is_kept_for_a_while(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    fake_process_started();
    fake_process_exits(0);
    fake_process_closes();
    for (int i = 0; i < 3; i++)
        (void)fake_next(stage->conn);
    ask(stage, 3, "read", "");
    expect(stage, "\"closed\":true");
    fake_run_for(&stage->fake, 120);
    assert_true(fake_process.closed);
    ask(stage, 4, "read", "");
    expect(stage, "unknown process id p");
}

static void processes_have_a_limit(void **state)
{
    struct stage *stage = *state;

    stage->fake.limits.processes = 1;
    ask(stage, 2, "start", START);
    fake_process_started();
    expect(stage, "{\"id\":2,");
    fake_send(stage->conn,
              "{\"id\":3,\"method\":\"process/start\",\"params\":{\"processId\":\"q\"" START "}}");
    expect(stage, "a session has at most 1 processes");
}

static void a_slow_client_slows_its_processes(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    fake_process_started();
    expect(stage, "{\"id\":2,");
    fake_set_queued(stage->conn, 70000);
    fake_process_says("much");
    assert_true(fake_process.paused);
    fake_drain(stage->conn);
    assert_false(fake_process.paused);
}

static void a_client_that_is_gone_slows_nothing(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    fake_process_started();
    fake_set_queued(stage->conn, 70000);
    fake_process_says("much");
    assert_true(fake_process.paused);
    fake_hang_up(stage->conn);
    stage->conn = NULL;
    assert_false(fake_process.paused);
    fake_process_says("more");
}

static void draining_waits_for_what_runs(void **state)
{
    struct stage *stage = *state;

    ask(stage, 2, "start", START);
    fake_process_started();
    fake_hang_up(stage->conn);
    stage->conn = NULL;
    fake_drain_begin(&stage->fake);
    fake_run_for(&stage->fake, 20);
    assert_false(stage->fake.closed);
    fake_process_exits(0); /* its output may still come */
    fake_run_for(&stage->fake, 20);
    assert_false(stage->fake.closed);
    fake_process_closes();
    fake_await_end(&stage->fake);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_answer_comes_when_it_runs),
        TEST(a_wall_is_planned_first),
        TEST(without_a_wall_nothing_runs),
        TEST(a_failed_start_frees_the_id),
        TEST(an_id_in_use_is_refused),
        TEST(a_second_start_may_follow_one_that_fails),
        TEST(what_is_sent_behind_a_start_finds_it),
        TEST(what_waits_for_a_start_that_fails_is_answered),
        TEST(a_start_outlives_its_connection),
        TEST(a_session_that_ends_takes_everything_along),
        TEST(a_session_may_end_with_starts_in_line),
        TEST(a_start_that_never_got_its_turn_is_forgotten),
        TEST(waiting_ends_when_there_is_something_new),
        TEST(waiting_ends_in_time),
        TEST(readers_that_wait_do_not_count_as_requests),
        TEST(a_write_that_waits_holds_up_nothing),
        TEST(writes_that_wait_count_as_requests),
        TEST(a_finished_process_is_kept_for_a_while),
        TEST(processes_have_a_limit),
        TEST(a_slow_client_slows_its_processes),
        TEST(a_client_that_is_gone_slows_nothing),
        TEST(draining_waits_for_what_runs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
