/* JSON lines on a connection. What carries them to standard input and output is test-pump's. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "echo-server.h"
#include "raw-client.h"

static struct echo *echo; /* of the running test */
static int fd;

static void start(const struct bly_limits *limits)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    fd = pair[0];
    echo = echo_start_lines(pair[1], limits);
    assert_true(echo_wait(echo, 1, 0));
}

static int start_default(void **state)
{
    struct bly_limits limits;

    (void)state;
    bly_limits_defaults(&limits);
    start(&limits);
    return 0;
}

static int start_small(void **state)
{
    struct bly_limits limits;

    (void)state;
    bly_limits_defaults(&limits);
    limits.line_bytes = 1000;
    limits.output_queue_bytes = 65536;
    limits.ping_ms = limits.silence_ms = 100;
    start(&limits);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    close(fd);
    echo_stop(echo);
    return 0;
}

static void expect_bytes(const char *text)
{
    size_t len = strlen(text);
    bly_autofree char *got = calloc(1, len + 1);

    assert_non_null(got);
    for (size_t at = 0; at < len;) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        ssize_t n = poll(&pfd, 1, 10000) == 1 ? recv(fd, got + at, len - at, 0) : -1;

        assert_true(n > 0);
        at += (size_t)n;
    }
    assert_string_equal(got, text);
}

static void expect_end(const char *reason)
{
    raw_expect_eof(fd);
    assert_true(echo_wait(echo, 1, 1));
    assert_string_equal(echo_counts(echo).reason, reason);
}

static void a_line_is_a_message_both_ways(void **state)
{
    (void)state;
    raw_send_str(fd, "one\n\r\ntwo\r\nth");
    expect_bytes("one\ntwo\n");
    raw_send_str(fd, "ree\n");
    expect_bytes("three\n");
    assert_true(echo_wait_messages(echo, 3));
}

static void the_end_of_input_ends_it_after_the_last_line(void **state)
{
    (void)state;
    raw_send_str(fd, "one\nlast");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    expect_bytes("one\nlast\n");
    expect_end("end of file");
    assert_int_equal(echo_counts(echo).ended, 1);
}

static void answers_to_come_are_waited_for_but_not_for_ever(void **state)
{
    (void)state;
    echo_set_has_more(echo, true);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    expect_end("end of file");
    assert_int_equal(echo_counts(echo).ended, 1);
}

static void a_line_that_is_too_long_ends_it(void **state)
{
    char text[1002];

    (void)state;
    memset(text, 'a', sizeof(text));
    text[1000] = '\n';
    raw_send(fd, text, 1001);
    text[1000] = 'a';
    raw_send(fd, text, 1001);
    text[1000] = '\n';
    text[1001] = '\0';
    expect_bytes(text);
    expect_end("line is longer than this server accepts");
    assert_int_equal(echo_counts(echo).messages, 1);
}

static void what_is_not_utf8_ends_it(void **state)
{
    (void)state;
    raw_send_str(fd, "one\n\xff\ntwo\n");
    expect_bytes("one\n");
    expect_end("line is not valid UTF-8");
    assert_int_equal(echo_counts(echo).messages, 1);
}

static void there_is_no_close_frame(void **state)
{
    (void)state;
    raw_send_str(fd, "!flood 10485760 1\n!close 1008\nnot read any more\n");
    for (size_t at = 0; at < 10485761;) {
        char piece[65536];
        ssize_t n = recv(fd, piece, sizeof(piece), 0);

        assert_true(n > 0);
        at += (size_t)n;
        assert_true(piece[n - 1] == (at == 10485761 ? '\n' : 'f'));
    }
    expect_end("closed with code 1008: because");
}

static void silence_and_probes_mean_nothing(void **state)
{
    struct pollfd pfd = {.events = POLLIN};

    (void)state;
    /* Time for three pings, and for a silence after each. */
    pfd.fd = fd;
    assert_int_equal(poll(&pfd, 1, 350), 0);
    raw_send_str(fd, "!probe 50\n");
    expect_bytes("alive\n");
}

static void a_slow_reader_gets_everything_in_the_end(void **state)
{
    size_t total = 0;

    (void)state;
    raw_send_str(fd, "!flood 1048576 16\nstill there?\n");
    assert_true(echo_wait_messages(echo, 2));
    assert_int_equal(echo_counts(echo).drained, 0);
    while (total < 16 * 1048577) {
        char piece[65536];
        size_t left = 16 * 1048577 - total;
        ssize_t n = recv(fd, piece, left < sizeof(piece) ? left : sizeof(piece), 0);

        assert_true(n > 0);
        total += (size_t)n;
    }
    expect_bytes("still there?\n");
    assert_true(echo_wait_drained(echo, 1));
}

/* Unlike a socket's hang-up: whoever closes a pipe has still said what he said. */
static void what_was_sent_before_the_end_counts_while_paused(void **state)
{
    (void)state;
    raw_send_str(fd, "!pause\n");
    assert_true(echo_wait_messages(echo, 1));
    raw_send_str(fd, "later\n");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    expect_bytes("later\n");
    expect_end("end of file");
}

static void a_reader_that_is_gone_ends_it(void **state)
{
    (void)state;
    assert_int_equal(shutdown(fd, SHUT_RD), 0);
    raw_send_str(fd, "hello\n");
    assert_true(echo_wait(echo, 1, 1));
}

#define ON(setup, test) cmocka_unit_test_setup_teardown(test, setup, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON(start_default, a_line_is_a_message_both_ways),
        ON(start_default, the_end_of_input_ends_it_after_the_last_line),
        ON(start_default, answers_to_come_are_waited_for_but_not_for_ever),
        ON(start_small, a_line_that_is_too_long_ends_it),
        ON(start_default, what_is_not_utf8_ends_it),
        ON(start_default, there_is_no_close_frame),
        ON(start_small, silence_and_probes_mean_nothing),
        ON(start_small, a_slow_reader_gets_everything_in_the_end),
        ON(start_default, what_was_sent_before_the_end_counts_while_paused),
        ON(start_default, a_reader_that_is_gone_ends_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
