#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "fake.h"
#include "support/rows.h"

#define INIT        "> {\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"t\"}}"
#define INITIALIZED "> {\"method\":\"initialized\"}"
#define STAT(id)    "> {\"id\":" id ",\"method\":\"fs/getMetadata\",\"params\":{\"path\":\"/\"}}"

/*
 * A conversation, step by step: "> TEXT" is sent, "< TEXT" is part of the next message that comes,
 * "closed CODE" and "open" say how the connection stands.
 */
static const struct talk {
    const char *name;
    const char *steps[10];
} talks[] = {
    {"initialize gives a session and the environment",
     {INIT, "< {\"id\":1,\"result\":{\"sessionId\":\"", "open"}},
    {"a file request works after the handshake",
     {INIT, "< result", INITIALIZED, STAT("2"), "< {\"id\":2,\"result\":{\"isDirectory\":true"}},
    {"requests may follow without waiting",
     {INIT, INITIALIZED, STAT("7"), "< {\"id\":1,", "< {\"id\":7,\"result\""}},
    {"nothing works before initialize",
     {STAT("2"), "< client must call initialize before using filesystem methods", "open"}},
    {"nothing works before initialized",
     {INIT, "< result", STAT("2"),
      "< client must send initialized before using filesystem methods"}},
    {"parameters are checked before the handshake",
     {"> {\"id\":2,\"method\":\"fs/getMetadata\",\"params\":{}}", "< -32602"}},
    {"an unknown method comes before the handshake",
     {"> {\"id\":2,\"method\":\"nope\"}", "< exec-server stub does not implement `nope` yet"}},
    {"initialize works once",
     {INIT, "< result", "> {\"id\":2,\"method\":\"initialize\",\"params\":{\"clientName\":\"t\"}}",
      "< initialize may only be sent once per connection"}},
    {"a failed initialize may be repeated",
     {"> {\"id\":0,\"method\":\"initialize\",\"params\":{}}", "< missing field `clientName`", INIT,
      "< result"}},
    {"an unknown session cannot be resumed",
     {"> {\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"t\","
      "\"resumeSessionId\":\"x\"}}",
      "< {\"code\":-32600,\"message\":\"unknown session id x\"}", INIT, "< result"}},
    {"initialized may be repeated", {INIT, INITIALIZED, INITIALIZED, "open"}},
    {"initialized before initialize closes", {INITIALIZED, "closed 1008"}},
    {"an unknown notification closes",
     {INIT, INITIALIZED, "> {\"method\":\"foo/bar\"}", "closed 1008"}},
    {"a request method as a notification closes",
     {INIT, INITIALIZED, "> {\"method\":\"fs/getMetadata\",\"params\":{\"path\":\"/\"}}",
      "closed 1008"}},
    {"a response nobody asked for closes",
     {INIT, INITIALIZED, "> {\"id\":1,\"result\":{}}", "closed 1008"}},
    {"what is no message is answered with id -1",
     {"> [1]", "< -32600", "> {", "< \"id\":-1", "open"}},
    {"ids come back as they were", {"> {\"id\":\"a\\\"b\",\"method\":\"n\"}", "< \"a\\\"b\""}},
    {"a long id does not fit in front of a file and is copied",
     {INIT, INITIALIZED, "< result",
      "> "
      "{\"id\":"
      "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "\",\"method\":\"fs/readFile\",\"params\":{\"path\":\"/proc/self/comm\"}}",
      "< \"dataBase64\":\""}},
    {"environment/status",
     {INIT, INITIALIZED, "< result", "> {\"id\":2,\"method\":\"environment/status\"}",
      "< {\"status\":\"ready\"}"}},
    {"processes nobody knows are answers, not errors, but for reads",
     {INIT, INITIALIZED, "< result",
      "> {\"id\":2,\"method\":\"process/terminate\",\"params\":{\"processId\":\"p\"}}",
      "< {\"running\":false}",
      "> {\"id\":3,\"method\":\"process/write\",\"params\":{\"processId\":\"p\",\"chunk\":\"\"}}",
      "< {\"status\":\"unknownProcess\"}",
      "> {\"id\":4,\"method\":\"process/read\",\"params\":{\"processId\":\"p\",\"waitMs\":9000}}",
      "< unknown process id p"}},
    {"an unknown file handle",
     {INIT, INITIALIZED, "< result",
      "> {\"id\":2,\"method\":\"fs/close\",\"params\":{\"handleId\":\"h\"}}", "< {}",
      "> {\"id\":3,\"method\":\"fs/readBlock\",\"params\":{\"handleId\":\"h\",\"offset\":0,"
      "\"len\":1}}",
      "< {\"code\":-32004,\"message\":\"unknown file handle `h`\"}"}},
    {"a file handle outlives a close behind a read",
     {INIT, INITIALIZED, "< result",
      "> {\"id\":2,\"method\":\"fs/open\",\"params\":{\"handleId\":\"h\","
      "\"path\":\"/etc/passwd\"}}",
      "> {\"id\":3,\"method\":\"fs/readBlock\",\"params\":{\"handleId\":\"h\",\"offset\":0,"
      "\"len\":4}}",
      "> {\"id\":4,\"method\":\"fs/close\",\"params\":{\"handleId\":\"h\"}}", "< {\"id\":4,",
      "< {\"handleId\":\"h\"}", "< \"eof\":false"}},
};

static int setup(void **state)
{
    struct fake *fake = malloc(sizeof(*fake));

    assert_non_null(fake);
    fake_init(fake);
    *state = fake;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static void take_step(struct bly_conn *conn, const char *step)
{
    if (step[0] == '>') {
        fake_send(conn, step + 2);
    } else if (step[0] == '<') {
        const char *message = fake_next(conn);

        if (!strstr(message, step + 2))
            fail_msg("expected %s, got %s", step + 2, message);
    } else if (step[0] == 'c') {
        assert_int_equal(fake_close_code(conn), strtol(step + sizeof("closed"), NULL, 10));
    } else {
        assert_int_equal(fake_close_code(conn), 0);
    }
}

static void check_talk(void **state)
{
    const struct talk *talk = *state;
    struct bly_conn *conn;
    struct fake fake;

    fake_init(&fake);
    fake_start(&fake);
    conn = fake_connect(&fake);
    for (size_t i = 0; i < BLY_LEN(talk->steps) && talk->steps[i]; i++)
        take_step(conn, talk->steps[i]);
    fake_hang_up(conn);
    fake_end(&fake);
}

static void one_connection_too_many_is_refused(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *first;

    fake->limits.connections = 1;
    fake_start(fake);
    first = fake_connect(fake);
    assert_non_null(first);
    assert_null(fake_connect(fake));
    fake_hang_up(first);
    first = fake_connect(fake);
    assert_non_null(first);
    fake_hang_up(first);
    fake_end(fake);
}

static void too_many_requests_stop_the_reading(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake->limits.requests_in_flight = 2;
    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, NULL);
    take_step(conn, STAT("2"));
    assert_false(fake_is_paused(conn));
    take_step(conn, STAT("3"));
    assert_true(fake_is_paused(conn));
    take_step(conn, "< result");
    take_step(conn, "< result");
    assert_false(fake_is_paused(conn));
    fake_hang_up(conn);
    fake_end(fake);
}

static void a_client_that_does_not_read_is_not_read_from(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake->limits.output_queue_bytes = 100000;
    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, NULL);
    fake_set_queued(conn, 150000);
    take_step(conn, "> {\"id\":2,\"method\":\"environment/status\"}");
    assert_false(fake_is_paused(conn)); /* it may still end its processes */
    fake_set_queued(conn, 250000);
    take_step(conn, "> {\"id\":3,\"method\":\"environment/status\"}");
    assert_true(fake_is_paused(conn));
    fake_drain(conn);
    assert_false(fake_is_paused(conn));
    fake_hang_up(conn);
    fake_end(fake);
}

static void an_answer_above_the_limit_becomes_an_error(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake->limits.reply_bytes = 1024;
    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, NULL);
    take_step(conn, "> {\"id\":2,\"method\":\"fs/readDirectory\",\"params\":{\"path\":\"/proc\"}}");
    take_step(conn, "< bytes exceeds the limit of 1024 bytes");
    take_step(conn,
              "> {\"id\":2,\"method\":\"fs/readFile\",\"params\":{\"path\":\"/proc/kallsyms\"}}");
    take_step(conn, "< exceeds the limit of 1024 bytes");
    fake_hang_up(conn);
    fake_end(fake);
}

static void a_connection_may_end_with_requests_under_way(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, NULL);
    take_step(conn, "> {\"id\":2,\"method\":\"fs/walk\",\"params\":{\"path\":\"/usr\",\"options\":{"
                    "\"maxDepth\":64,\"maxDirectories\":10000,\"maxEntries\":50000,"
                    "\"followDirectorySymlinks\":false}}}");
    for (int i = 0; i < 20; i++)
        take_step(conn, STAT("3"));
    take_step(conn, "> {\"id\":4,\"method\":\"fs/open\",\"params\":{\"handleId\":\"h\","
                    "\"path\":\"/etc/passwd\"}}");
    fake_hang_up(conn);
    fake_end(fake);
}

/* On stdin and stdout: whoever wrote requests and closed the pipe still gets the answers. */
static void a_client_that_says_no_more_is_still_answered(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake->is_stdio = true;
    fake_start(fake);
    conn = fake_connect(fake);
    take_step(conn, INIT);
    take_step(conn, INITIALIZED);
    take_step(conn, STAT("2"));
    assert_true(fake_finish(conn));
    assert_int_equal(fake_close_code(conn), 0);
    take_step(conn, "< {\"id\":1,");
    take_step(conn, "< {\"id\":2,\"result\"");
    assert_int_equal(fake_close_code(conn), 1000);
    assert_int_equal(fake->n_stdio_ended, 0);
    fake_hang_up(conn);
    assert_int_equal(fake->n_stdio_ended, 1);
    assert_false(fake->violation);
    fake_end(fake);
}

static void with_nothing_to_answer_the_end_comes_at_once(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake->is_stdio = true;
    fake_start(fake);
    conn = fake_connect(fake);
    take_step(conn, INIT);
    take_step(conn, "< result");
    assert_false(fake_finish(conn));
    fake_hang_up(conn);
    assert_int_equal(fake->n_stdio_ended, 1);
    fake_end(fake);
}

static void a_violation_on_stdio_is_told(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake->is_stdio = true;
    fake_start(fake);
    conn = fake_connect(fake);
    take_step(conn, INITIALIZED);
    take_step(conn, "closed 1008");
    fake_hang_up(conn);
    assert_int_equal(fake->n_stdio_ended, 1);
    assert_true(fake->violation);
    fake_end(fake);
}

static void a_websocket_ends_without_the_server(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake_start(fake);
    conn = fake_connect(fake);
    take_step(conn, INITIALIZED);
    fake_hang_up(conn);
    assert_int_equal(fake->n_stdio_ended, 0);
    fake_end(fake);
}

static void handles_have_a_limit_and_come_free(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake->limits.file_handles = 1;
    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, NULL);
#define OPEN(id, path)                                                                             \
    "> {\"id\":2,\"method\":\"fs/open\",\"params\":{\"handleId\":\"" id "\",\"path\":\"" path "\"" \
    "}}"
    take_step(conn, OPEN("a", "/nonexistent"));
    take_step(conn, OPEN("b", "/etc/passwd")); /* the first one fails and makes room */
    take_step(conn, "< -32004");
    take_step(conn, "< {\"handleId\":\"b\"}");
    take_step(conn, OPEN("c", "/etc/passwd"));
    take_step(conn, "< at most 1 file handles may be open per connection");
    take_step(conn, OPEN("b", "/etc/passwd"));
    take_step(conn, "< file handle `b` already exists");
    take_step(conn, "> {\"id\":3,\"method\":\"fs/close\",\"params\":{\"handleId\":\"b\"}}");
    take_step(conn, "< {}");
    take_step(conn, OPEN("c", "/etc/passwd"));
    take_step(conn, "< {\"handleId\":\"c\"}");
    fake_hang_up(conn);
    fake_end(fake);
}

int main(void)
{
    static const struct CMUnitTest others[] = {
        cmocka_unit_test_setup_teardown(one_connection_too_many_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_requests_stop_the_reading, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_that_does_not_read_is_not_read_from, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_answer_above_the_limit_becomes_an_error, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_connection_may_end_with_requests_under_way, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_client_that_says_no_more_is_still_answered, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(with_nothing_to_answer_the_end_comes_at_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_violation_on_stdio_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_websocket_ends_without_the_server, setup, teardown),
        cmocka_unit_test_setup_teardown(handles_have_a_limit_and_come_free, setup, teardown),
    };
    struct CMUnitTest tests[BLY_LEN(talks) + BLY_LEN(others)] = {0};

    ROWS_AS_TESTS(tests, talks, check_talk);
    memcpy(tests + BLY_LEN(talks), others, sizeof(others));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
