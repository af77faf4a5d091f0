#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake.h"

static int setup(void **state)
{
    struct fake *fake = malloc(sizeof(*fake));

    assert_non_null(fake);
    fake_init(fake);
    fake->limits.drain_ms = 86400000; /* no test takes that long, however slow the machine */
    *state = fake;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static void expect(struct bly_conn *conn, const char *part)
{
    const char *message = fake_next(conn);

    if (!strstr(message, part))
        fail_msg("expected %s, got %s", part, message);
}

static void resume(struct bly_conn *conn, const char *id)
{
    char text[256];

    (void)snprintf(text, sizeof(text),
                   "{\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"t\","
                   "\"resumeSessionId\":\"%s\"}}",
                   id);
    fake_send(conn, text);
}

static void use(struct bly_conn *conn)
{
    fake_send(conn, "{\"method\":\"initialized\"}");
    fake_send(conn, "{\"id\":2,\"method\":\"environment/status\"}");
}

static void ids_are_random_uuids(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *a, *b;
    char first[37], second[37];

    fake_start(fake);
    a = fake_connect(fake);
    b = fake_connect(fake);
    fake_handshake(a, first);
    fake_handshake(b, second);
    assert_string_not_equal(first, second);
    for (size_t i = 0; i < 36; i++) {
        if (i == 8 || i == 13 || i == 18 || i == 23)
            assert_int_equal(first[i], '-');
        else
            assert_true(isdigit(first[i]) || (first[i] >= 'a' && first[i] <= 'f'));
    }
    assert_int_equal(first[14], '4');
    fake_hang_up(a);
    fake_hang_up(b);
    fake_end(fake);
}

static void a_dropped_session_can_be_resumed(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;
    char id[37];

    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, id);
    fake_hang_up(conn);
    conn = fake_connect(fake);
    resume(conn, id);
    expect(conn, id);
    use(conn);
    expect(conn, "ready");
    fake_hang_up(conn);
    fake_end(fake);
}

static void a_detached_session_ends_in_time(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;
    char id[37];

    fake->limits.detach_ms = 50;
    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, id);
    fake_run_for(fake, 100); /* attached: it may be idle for as long as it likes */
    use(conn);
    expect(conn, "ready");
    fake_hang_up(conn);
    fake_run_for(fake, 100);
    conn = fake_connect(fake);
    resume(conn, id);
    expect(conn, "unknown session id");
    fake_hang_up(conn);
    fake_end(fake);
}

static void a_violation_costs_the_connection_but_not_the_session(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *old, *new;
    char id[37];

    fake_start(fake);
    old = fake_connect(fake);
    fake_handshake(old, id);
    fake_send(old, "{\"method\":\"bogus\"}");
    assert_int_equal(fake_close_code(old), 1008);
    new = fake_connect(fake);
    resume(new, id); /* the old one has not even finished its closing handshake */
    expect(new, id);
    fake_send(old, "{\"id\":9,\"method\":\"environment/status\"}");
    assert_true(fake_is_quiet(old));
    fake_hang_up(old);
    use(new);
    expect(new, "ready");
    fake_hang_up(new);
    fake_end(fake);
}

static void an_attached_session_is_refused_and_probed(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *old, *new;
    char id[37];

    fake_start(fake);
    old = fake_connect(fake);
    fake_handshake(old, id);
    new = fake_connect(fake);
    resume(new, id);
    expect(new, "{\"code\":-32010,\"message\":\"session ");
    resume(new, id); /* one probe at a time */
    expect(new, "is already attached to another connection");
    assert_true(fake_answer_probe(old, true));
    resume(new, id);
    expect(new, "-32010"); /* alive: it keeps its session */
    assert_true(fake_answer_probe(old, false));
    resume(new, id);
    expect(new, "sessionId");

    fake_send(old, "{\"id\":9,\"method\":\"environment/status\"}");
    expect(old, "session has been resumed by another connection");
    assert_int_equal(fake_close_code(old), 0);
    use(new);
    expect(new, "ready");
    fake_hang_up(old);
    use(new);
    expect(new, "ready");
    fake_hang_up(new);
    fake_end(fake);
}

static void a_connection_given_up_too_early_gets_its_session_back(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *old, *new;
    char id[37];

    fake_start(fake);
    old = fake_connect(fake);
    fake_handshake(old, id);
    new = fake_connect(fake);
    resume(new, id);
    expect(new, "-32010");
    assert_true(fake_answer_probe(old, false));
    use(old);
    expect(old, "ready");
    resume(new, id);
    expect(new, "-32010");
    fake_hang_up(new);
    fake_hang_up(old);
    fake_end(fake);
}

static void a_refused_connection_may_start_a_session_of_its_own(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *old, *new;
    char id[37], other[37];

    fake_start(fake);
    old = fake_connect(fake);
    fake_handshake(old, id);
    new = fake_connect(fake);
    resume(new, id);
    expect(new, "-32010");
    fake_handshake(new, other);
    assert_string_not_equal(id, other);
    fake_hang_up(old);
    fake_hang_up(new);
    fake_end(fake);
}

static void sessions_have_a_limit(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *first, *second;

    fake->limits.sessions = 1;
    fake->limits.detach_ms = 20;
    fake_start(fake);
    first = fake_connect(fake);
    fake_handshake(first, NULL);
    second = fake_connect(fake);
    fake_send(second, "{\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"t\"}}");
    expect(second, "at most 1 sessions are kept");
    fake_hang_up(first);
    fake_run_for(fake, 60);
    fake_handshake(second, NULL);
    fake_hang_up(second);
    fake_end(fake);
}

static void shutdown_says_goodbye(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, NULL);
    fake_send(conn, "{\"id\":2,\"method\":\"fs/getMetadata\",\"params\":{\"path\":\"/\"}}");
    fake_end_begin(fake);
    assert_int_equal(fake_close_code(conn), 1001);
    assert_null(fake_connect(fake));
    fake_hang_up(conn);
    fake_end(fake);
}

static void draining_ends_at_once_when_nobody_is_there(void **state)
{
    struct fake *fake = *state;

    fake_start(fake);
    assert_true(fake_is_ready());
    fake_drain_begin(fake);
    assert_false(fake_is_ready());
    fake_await_end(fake);
    fake_end(fake);
}

static void draining_begins_nothing_and_goes_on_with_everything(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *old, *new;
    char id[37];

    fake_start(fake);
    old = fake_connect(fake);
    fake_handshake(old, id);
    fake_drain_begin(fake);
    assert_false(fake_is_ready());
    fake_run_for(fake, 20);
    use(old);
    expect(old, "ready");

    new = fake_connect(fake);
    fake_send(new, "{\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"t\"}}");
    expect(new, "{\"code\":-32603,\"message\":\"server is draining: ");
    resume(new, id);
    expect(new, "-32010");
    assert_true(fake_answer_probe(old, false));
    resume(new, id);
    expect(new, "sessionId");
    use(new);
    expect(new, "ready");
    assert_int_equal(fake_close_code(new), 0);

    fake_hang_up(old);
    fake_hang_up(new);
    fake_await_end(fake);
    fake_end(fake);
}

static void draining_has_a_limit(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake->limits.drain_ms = 30;
    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, NULL);
    fake_drain_begin(fake);
    assert_int_equal(fake_close_code(conn), 0);
    fake_run_for(fake, 100);
    assert_int_equal(fake_close_code(conn), 1001);
    fake_hang_up(conn);
    fake_await_end(fake);
    fake_end(fake);
}

static void draining_without_time_is_an_end(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake->limits.drain_ms = 0;
    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, NULL);
    fake_drain_begin(fake);
    fake_run_for(fake, 1);
    assert_int_equal(fake_close_code(conn), 1001);
    fake_hang_up(conn);
    fake_await_end(fake);
    fake_end(fake);
}

static void draining_waits_for_changes_nobody_waits_for(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;
    char text[256], path[] = "/tmp/bailey-drain-XXXXXX";
    int fd = mkstemp(path);
    struct stat st;

    assert_true(fd >= 0);
    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, NULL);
    (void)snprintf(text, sizeof(text),
                   "{\"id\":2,\"method\":\"fs/writeFile\",\"params\":{\"path\":\"%s\","
                   "\"dataBase64\":\"eHh4\"}}",
                   path);
    fake_send(conn, text);
    fake_drain_begin(fake);
    fake_hang_up(conn);
    fake_await_end(fake);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 3);
    assert_int_equal(unlink(path), 0);
    (void)close(fd);
    fake_end(fake);
}

static void an_end_may_cut_a_drain_short(void **state)
{
    struct fake *fake = *state;
    struct bly_conn *conn;

    fake_start(fake);
    conn = fake_connect(fake);
    fake_handshake(conn, NULL);
    fake_drain_begin(fake);
    fake_run_for(fake, 1);
    assert_int_equal(fake_close_code(conn), 0);
    fake_end_begin(fake);
    assert_int_equal(fake_close_code(conn), 1001);
    fake_hang_up(conn);
    fake_end(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ids_are_random_uuids, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dropped_session_can_be_resumed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_detached_session_ends_in_time, setup, teardown),
        cmocka_unit_test_setup_teardown(a_violation_costs_the_connection_but_not_the_session, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_attached_session_is_refused_and_probed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_connection_given_up_too_early_gets_its_session_back,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_connection_may_start_a_session_of_its_own, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(sessions_have_a_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(shutdown_says_goodbye, setup, teardown),
        cmocka_unit_test_setup_teardown(draining_ends_at_once_when_nobody_is_there, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(draining_begins_nothing_and_goes_on_with_everything, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(draining_has_a_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(draining_without_time_is_an_end, setup, teardown),
        cmocka_unit_test_setup_teardown(draining_waits_for_changes_nobody_waits_for, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_end_may_cut_a_drain_short, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
