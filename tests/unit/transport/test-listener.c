#include "transport/transport.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
#include "base/err.h"
#include "base/limits.h"
#include "echo-server.h"
#include "raw-client.h"

static struct echo *echo; /* of the running test */
static int port;

enum { PING_MS = 100, SILENCE_MS = 1000 };

static void start(const struct bly_limits *limits)
{
    echo = echo_start("ws://127.0.0.1:0", limits);
    port = echo_port(echo);
}

static int start_default(void **state)
{
    struct bly_limits limits;

    (void)state;
    bly_limits_defaults(&limits);
    start(&limits);
    return 0;
}

/* Small limits, so that they are reached in a moment. */
static int start_small(void **state)
{
    struct bly_limits limits;

    (void)state;
    bly_limits_defaults(&limits);
    limits.message_bytes = 1000;
    limits.connections = 2;
    limits.output_queue_bytes = 65536;
    start(&limits);
    return 0;
}

/* For those who do not even say what they want. */
static int start_hasty(void **state)
{
    struct bly_limits limits;

    (void)state;
    bly_limits_defaults(&limits);
    limits.connections = 2;
    limits.handshake_ms = 100;
    start(&limits);
    return 0;
}

static int start_impatient(void **state)
{
    struct bly_limits limits;

    (void)state;
    bly_limits_defaults(&limits);
    limits.ping_ms = PING_MS;
    limits.silence_ms = 350;
    start(&limits);
    return 0;
}

/* For those who answer, on a machine that may let them wait. */
static int start_pinging(void **state)
{
    struct bly_limits limits;

    (void)state;
    bly_limits_defaults(&limits);
    limits.ping_ms = PING_MS;
    limits.silence_ms = SILENCE_MS;
    start(&limits);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    echo_stop(echo);
    return 0;
}

static void upgrade_answers_with_the_accept_value(void **state)
{
    bly_autofd int fd = raw_connect(port);
    char head[1024];

    (void)state;
    /* A frame right behind the head must not get lost. */
    raw_send(fd, UPGRADE "\x81\x82\0\0\0\0hi", sizeof(UPGRADE) - 1 + 8);
    raw_read_head(fd, head);
    assert_memory_equal(head, "HTTP/1.1 101 Switching Protocols\r\n", 34);
    assert_non_null(strstr(head, "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    raw_expect_text(fd, "hi");
}

/* The server's end of a connection: it runs on a thread of ours. */
static int other_end(int fd)
{
    struct sockaddr_in ours, peer;
    socklen_t len = sizeof(ours);

    assert_int_equal(getsockname(fd, (struct sockaddr *)&ours, &len), 0);
    for (int other = 3; other < 1024; other++) {
        len = sizeof(peer);
        if (getpeername(other, (struct sockaddr *)&peer, &len) == 0 && peer.sin_family == AF_INET &&
            peer.sin_port == ours.sin_port)
            return other;
    }
    fail_msg("the other end is not in this process");
    return -1;
}

/* Else the second of two answers waits until the first one is acknowledged. */
static void small_messages_do_not_wait(void **state)
{
    bly_autofd int fd = raw_upgrade(port);
    int on = 0;
    socklen_t len = sizeof(on);

    (void)state;
    assert_int_equal(getsockopt(other_end(fd), IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    assert_int_not_equal(on, 0);
}

static void text_binary_and_fragments_are_echoed_as_text(void **state)
{
    bly_autofd int fd = raw_upgrade(port);
    struct frame frame;

    (void)state;
    raw_text(fd, "one");
    raw_expect_text(fd, "one");
    raw_frame(fd, 0x82, "two", 3);
    raw_expect_text(fd, "two");

    raw_frame(fd, 0x01, "th", 2);
    raw_frame(fd, 0x89, "ping!", 5);
    raw_frame(fd, 0x00, "re", 2);
    raw_frame(fd, 0x80, "e", 1);
    frame = raw_read_frame(fd);
    assert_int_equal(frame.opcode, 0xa);
    assert_string_equal((char *)frame.data, "ping!");
    free(frame.data);
    raw_expect_text(fd, "three");
}

static void twenty_mib_in_one_frame_come_back_in_frames_of_eight(void **state)
{
    enum { SIZE = 20 << 20, FRAME = 8 << 20 };
    bly_autofd int fd = raw_upgrade(port);
    uint8_t *text = malloc(SIZE);
    size_t at = 0;

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < SIZE; i++)
        text[i] = (uint8_t)('a' + i % 23);
    raw_frame(fd, 0x81, text, SIZE);

    while (at < SIZE) {
        struct frame frame = raw_read_frame(fd);

        assert_int_equal(frame.opcode, at == 0 ? 0x1 : 0x0);
        assert_int_equal(frame.len, SIZE - at < FRAME ? SIZE - at : FRAME);
        assert_memory_equal(frame.data, text + at, frame.len);
        at += frame.len;
        assert_int_equal(frame.fin, at == SIZE);
        free(frame.data);
    }
    free(text);
}

static const struct violation {
    const char *name;
    const char *bytes;
    size_t len;
    unsigned code;
} violations[] = {
#define BYTES(text) text, sizeof(text) - 1
    {"text that is not UTF-8 closes with 1007", BYTES("\x81\x83\0\0\0\0{\xff}"), 1007},
    {"an unmasked frame closes with 1002", BYTES("\x81\x02{}"), 1002},
    {"a reserved bit closes with 1002", BYTES("\xc1\x82\0\0\0\0{}"), 1002},
    {"a stray continuation closes with 1002", BYTES("\x80\x82\0\0\0\0{}"), 1002},
    {"a message above the limit closes with 1009", BYTES("\x81\xfe\x03\xe9\0\0\0\0"), 1009},
    {"fragments above the limit close with 1009",
     BYTES("\x01\x81\0\0\0\0a\x80\xfe\x03\xe8\0\0\0\0"), 1009},
};

static void check_violation(void **state)
{
    const struct violation *v = *state;
    int fd;

    start_small(NULL);
    fd = raw_upgrade(port);
    raw_send(fd, v->bytes, v->len);
    raw_expect_close(fd, v->code);
    assert_true(echo_wait(echo, 1, 1));
    close(fd);
    stop(NULL);
}

static void a_close_frame_is_answered_with_the_same_code(void **state)
{
    static const struct {
        const char *payload;
        size_t len;
        unsigned code;
    } closes[] = {{"\x03\xe8", 2, 1000}, {"\x0f\xa1why", 5, 4001}, {"", 0, 0}};

    (void)state;
    for (unsigned i = 0; i < BLY_LEN(closes); i++) {
        bly_autofd int fd = raw_upgrade(port);

        raw_frame(fd, 0x88, closes[i].payload, closes[i].len);
        raw_expect_close(fd, closes[i].code);
        assert_true(echo_wait(echo, i + 1, i + 1));
    }
}

static void one_byte_at_a_time_is_enough(void **state)
{
    static const char bytes[] = UPGRADE "\x01\x82\x01\x02\x03\x04\x69\x67"
                                        "\x89\x81\0\0\0\0p"
                                        "\x80\x80\0\0\0\0"
                                        "\x88\x85\0\0\0\0\x03\xe8\xe2\x82\xac";
    bly_autofd int fd = raw_connect(port);
    struct frame pong;
    char head[1024];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes) - 1; i++)
        raw_send(fd, bytes + i, 1);
    raw_read_head(fd, head);
    pong = raw_read_frame(fd);
    assert_int_equal(pong.opcode, 0xa);
    free(pong.data);
    raw_expect_text(fd, "he");
    raw_expect_close(fd, 1000);
}

static void a_slow_reader_gets_everything_in_the_end(void **state)
{
    enum { MESSAGES = 64, SIZE = 1 << 20 };
    bly_autofd int fd = raw_upgrade(port);

    (void)state;
    raw_text(fd, "!flood 1048576 64");
    /* Nothing is read yet; the server is not held up by it. */
    raw_text(fd, "still there?");
    assert_true(echo_wait_messages(echo, 2));
    assert_int_equal(echo_counts(echo).drained, 0);

    for (int i = 0; i < MESSAGES; i++) {
        struct frame message = raw_read_message(fd);

        assert_int_equal(message.len, SIZE);
        assert_true(message.data[0] == 'f' && message.data[SIZE - 1] == 'f');
        free(message.data);
    }
    raw_expect_text(fd, "still there?");
    assert_true(echo_wait_drained(echo, 1));
    assert_int_equal(echo_counts(echo).drained, 1);
}

static void pings_nobody_reads_the_answers_of_do_not_pile_up(void **state)
{
    enum { PINGS = 100000 };
    bly_autofd int fd = raw_upgrade(port);
    char payload[125];
    unsigned pongs = 0;

    (void)state;
    /* More than the socket takes, so that the pongs have to wait behind it. */
    raw_text(fd, "!flood 33554432 1");
    for (int i = 0; i < PINGS; i++) {
        memset(payload, 0, sizeof(payload));
        snprintf(payload, sizeof(payload), "%d", i);
        raw_frame(fd, 0x89, payload, sizeof(payload));
    }
    for (;;) {
        struct frame frame = raw_read_frame(fd);
        bool last = frame.opcode == 0xa && atoi((char *)frame.data) == PINGS - 1;

        pongs += frame.opcode == 0xa;
        free(frame.data);
        if (last)
            break;
    }
    assert_true(pongs < PINGS / 2);
}

static void three_hundred_connections_at_once(void **state)
{
    enum { N = 300 };
    int fds[N];

    (void)state;
    for (int i = 0; i < N; i++)
        fds[i] = raw_upgrade(port);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++)
            raw_text(fds[i], "ping");
        for (int i = 0; i < N; i++)
            raw_expect_text(fds[i], "ping");
    }
    for (int i = 0; i < N; i++)
        close(fds[i]);
    assert_true(echo_wait(echo, N, N));
}

static void silence_ends_a_connection(void **state)
{
    bly_autofd int fd = raw_upgrade(port);
    char ping[2];
    ssize_t n;

    (void)state;
    /* How many come in that time depends on what else the machine does. */
    while ((n = recv(fd, ping, sizeof(ping), MSG_WAITALL)) == 2)
        assert_memory_equal(ping, "\x89\0", 2);
    assert_int_equal(n, 0);
    assert_true(echo_wait(echo, 1, 1));
    assert_string_equal(echo_counts(echo).reason, "silent for 350 ms");
}

static void a_pong_is_a_sign_of_life(void **state)
{
    bly_autofd int fd = raw_upgrade(port);

    (void)state;
    /* Half as long again as silence would be tolerated. */
    for (int pings = 0; pings < SILENCE_MS / PING_MS * 3 / 2; pings++) {
        struct frame frame = raw_read_frame(fd);

        assert_int_equal(frame.opcode, 0x9);
        free(frame.data);
        raw_frame(fd, 0x8a, "", 0);
    }
    raw_text(fd, "alive");
    raw_expect_text(fd, "alive");
}

static void a_paused_connection_is_not_silent(void **state)
{
    bly_autofd int fd = raw_upgrade(port);

    (void)state;
    raw_text(fd, "!pause");
    for (int pings = 0; pings < 10; pings++) {
        struct frame frame = raw_read_frame(fd);

        assert_int_equal(frame.opcode, 0x9);
        free(frame.data);
    }
    assert_int_equal(echo_counts(echo).closed, 0);
}

static void a_hang_up_is_noticed_while_paused(void **state)
{
    int fd = raw_upgrade(port);

    (void)state;
    raw_text(fd, "!pause");
    assert_true(echo_wait_messages(echo, 1));
    raw_text(fd, "not read any more");
    close(fd);
    assert_true(echo_wait(echo, 1, 1));
    assert_string_equal(echo_counts(echo).reason, "hang-up");
    assert_int_equal(echo_counts(echo).messages, 1);
}

static void a_reset_is_noticed_while_paused(void **state)
{
    static const struct linger now = {.l_onoff = 1};
    int fd = raw_upgrade(port);

    (void)state;
    raw_text(fd, "!pause");
    assert_true(echo_wait_messages(echo, 1));
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
    assert_true(echo_wait(echo, 1, 1));
}

static void a_paused_connection_can_be_closed(void **state)
{
    bly_autofd int fd = raw_upgrade(port);

    (void)state;
    /* Both commands in one segment: what was read before the pause is still delivered. */
    raw_send(fd, "\x81\x86\0\0\0\0!pause\x81\x8b\0\0\0\0!close 1008", 12 + 17);
    raw_expect_close(fd, 1008);
    assert_true(echo_wait(echo, 1, 1));
}

/* Ends of all kinds, at many points; closed() comes exactly once (the server asserts it). */
static void peers_that_vanish_leave_nothing_behind(void **state)
{
    static const struct linger now = {.l_onoff = 1};
    static const char bytes[] =
        UPGRADE "\x81\x85\0\0\0\0hello\x81\xff\0\0\0\0\0\x40\0\0\0\0\0\0xyz";
    unsigned opened;

    (void)state;
    for (size_t n = 0; n < sizeof(bytes); n++) {
        int fd = raw_connect(port);

        raw_send(fd, bytes, n);
        if (n % 2)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(fd);
    }
    /* A connection that works shows that all of them have been taken in. */
    for (;;) {
        bly_autofd int fd = raw_upgrade(port);

        raw_text(fd, "!drop");
        raw_expect_eof(fd);
        opened = echo_counts(echo).opened;
        if (echo_wait(echo, opened, opened))
            break;
    }
    assert_true(opened > 1);
}

static void bytes_that_make_no_sense_do_no_harm(void **state)
{
    uint32_t seed = 1;

    (void)state;
    for (int round = 0; round < 50; round++) {
        bly_autofd int fd = round % 2 ? raw_connect(port) : raw_upgrade(port);
        uint8_t noise[3000];

        for (size_t i = 0; i < sizeof(noise); i++) {
            seed = seed * 1664525u + 1013904223u;
            noise[i] = (uint8_t)(seed >> 24);
        }
        raw_send(fd, noise, sizeof(noise));
    }
    {
        bly_autofd int fd = raw_upgrade(port);

        raw_text(fd, "sense");
        raw_expect_text(fd, "sense");
    }
}

static void a_slow_handshake_runs_out_of_time(void **state)
{
    bly_autofd int fd = raw_connect(port);

    (void)state;
    raw_send_str(fd, "GET / HTTP/1.1\r\nHost:");
    raw_expect_eof(fd);
    assert_int_equal(echo_counts(echo).opened, 0);
}

static void http_is_answered_and_ended(void **state)
{
    static const struct {
        const char *request, *answer;
    } rows[] = {
        {"GET /readyz HTTP/1.1\r\n\r\n", "HTTP/1.1 200 "},
        {"GET /nope HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "},
        {"GET / HTTP/1.1\r\nOrigin: null\r\n\r\n", "HTTP/1.1 403 "},
        {"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", "HTTP/1.1 405 "},
    };
    char text[1024];

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        bly_autofd int fd = raw_connect(port);

        raw_send_str(fd, rows[i].request);
        raw_read_all(fd, text, sizeof(text));
        assert_memory_equal(text, rows[i].answer, strlen(rows[i].answer));
    }
}

static void readyz_says_when_the_server_is_not_ready(void **state)
{
    bly_autofd int fd = raw_connect(port), fd2 = raw_connect(port);
    char text[1024];

    (void)state;
    echo_set_ready(echo, false);
    raw_send_str(fd, "GET /readyz HTTP/1.1\r\n\r\n");
    raw_read_all(fd, text, sizeof(text));
    assert_memory_equal(text, "HTTP/1.1 503 ", 13);
    raw_send_str(fd2, UPGRADE);
    raw_read_all(fd2, text, sizeof(text));
    assert_memory_equal(text, "HTTP/1.1 503 ", 13);
}

static void one_connection_too_many_gets_503(void **state)
{
    int first = raw_upgrade(port);
    bly_autofd int second = raw_upgrade(port), third = raw_connect(port), fourth = -EBADF;
    char text[1024];

    (void)state;
    raw_send_str(third, UPGRADE);
    raw_read_all(third, text, sizeof(text));
    assert_memory_equal(text, "HTTP/1.1 503 ", 13);

    raw_text(second, "still fine");
    raw_expect_text(second, "still fine");
    close(first);
    assert_true(echo_wait(echo, 2, 1));
    fourth = raw_upgrade(port);
    raw_text(fourth, "room again");
    raw_expect_text(fourth, "room again");
}

static void a_flood_of_connections_is_bounded(void **state)
{
    enum { N = 150 };
    int fds[N];
    char byte;
    unsigned ended = 0;

    (void)state;
    /* 2 may be up and 64 may wait to be turned away; the others end at once. */
    for (int i = 0; i < N; i++)
        fds[i] = raw_connect(port);
    for (int i = 0; i < N; i++) {
        ended += recv(fds[i], &byte, 1, 0) <= 0;
        close(fds[i]);
    }
    assert_int_equal(ended, N);
    assert_int_equal(echo_counts(echo).opened, 0);
}

static void the_server_closes_with_code_and_reason(void **state)
{
    bly_autofd int fd = raw_upgrade(port);
    struct frame frame;

    (void)state;
    raw_text(fd, "!close 1008");
    frame = raw_read_frame(fd);
    assert_int_equal(frame.opcode, 0x8);
    assert_memory_equal(frame.data,
                        "\x03\xf0"
                        "because",
                        9);
    free(frame.data);
    /* The user is told without waiting for us. */
    assert_true(echo_wait(echo, 1, 1));
    assert_string_equal(echo_counts(echo).reason, "closed with code 1008: because");
    raw_expect_eof(fd);
}

static void what_was_queued_goes_out_before_the_close(void **state)
{
    bly_autofd int fd = raw_upgrade(port);

    (void)state;
    raw_text(fd, "!flood 10485760 2");
    raw_text(fd, "!close 1001");
    assert_true(echo_wait(echo, 1, 1));
    for (int i = 0; i < 2; i++) {
        struct frame message = raw_read_message(fd);

        assert_int_equal(message.len, 10485760);
        free(message.data);
    }
    raw_expect_close(fd, 1001);
}

static void a_connection_that_is_not_taken_is_closed(void **state)
{
    bly_autofd int fd = -EBADF;

    (void)state;
    echo_set_refusing(echo, true);
    fd = raw_upgrade(port);
    raw_expect_close(fd, 1013);
    assert_int_equal(echo_counts(echo).closed, 0);
}

static void a_probe_finds_who_is_alive(void **state)
{
    bly_autofd int fd = raw_upgrade(port);
    struct frame ping;

    (void)state;
    raw_text(fd, "!probe 60000");
    ping = raw_read_frame(fd);
    assert_int_equal(ping.opcode, 0x9);
    free(ping.data);
    raw_frame(fd, 0x8a, "", 0);
    raw_expect_text(fd, "alive");

    raw_text(fd, "!probe 50");
    raw_expect_text(fd, "dead");
}

static void a_probe_of_a_paused_connection_asks_the_kernel(void **state)
{
    bly_autofd int fd = raw_upgrade(port);

    (void)state;
    raw_send(fd, "\x81\x86\0\0\0\0!pause\x81\x8a\0\0\0\0!probe 200", 12 + 16);
    raw_expect_text(fd, "alive");
}

/* An endpoint nobody connects to. */
static struct bly_endpoint *make_endpoint(uv_loop_t *loop, struct bly_limits *limits)
{
    struct bly_endpoint_config config = {.loop = loop, .limits = limits};
    struct bly_endpoint *endpoint;

    bly_limits_defaults(limits);
    assert_int_equal(uv_loop_init(loop), 0);
    endpoint = bly_endpoint_new(&config);
    assert_non_null(endpoint);
    return endpoint;
}

static void end_endpoint(struct bly_endpoint *endpoint, uv_loop_t *loop)
{
    uv_run(loop, UV_RUN_DEFAULT);
    bly_endpoint_unref(endpoint);
    assert_int_equal(uv_loop_close(loop), 0);
}

static void ipv6_urls_have_brackets(void **state)
{
    struct bly_limits limits;
    struct bly_err err;
    struct bly_listener *listener;
    uv_loop_t loop;
    struct bly_endpoint *endpoint = make_endpoint(&loop, &limits);
    int r = bly_listener_open(endpoint, "ws://[::1]:0", &listener, &err);

    (void)state;
    if (r == 0) {
        assert_memory_equal(bly_listener_url(listener), "ws://[::1]:", 11);
        assert_string_not_equal(bly_listener_url(listener), "ws://[::1]:0");
        bly_listener_close(listener, NULL, NULL);
    }
    end_endpoint(endpoint, &loop);
    if (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT)
        skip();
    assert_int_equal(r, 0);
}

static void an_address_in_use_is_named_in_the_protocols_words(void **state)
{
    struct bly_limits limits;
    struct bly_err err;
    struct bly_listener *listener;
    uv_loop_t loop;
    struct bly_endpoint *endpoint = make_endpoint(&loop, &limits);

    (void)state;
    assert_int_equal(bly_listener_open(endpoint, echo_url(echo, 0), &listener, &err), -EADDRINUSE);
    assert_string_equal(err.text, "Address in use (os error 98)");
    end_endpoint(endpoint, &loop);
}

static void several_listeners_share_their_limit(void **state)
{
    static const char *const urls[] = {"ws://127.0.0.1:0", "ws://127.0.0.1:0", NULL};
    struct bly_limits limits;
    int ports[2], fds[2];
    char text[1024];

    (void)state;
    bly_limits_defaults(&limits);
    limits.connections = 2;
    echo = echo_start_all(urls, &limits);
    for (size_t i = 0; i < 2; i++) {
        ports[i] = atoi(strrchr(echo_url(echo, i), ':') + 1);
        fds[i] = raw_upgrade(ports[i]);
        raw_text(fds[i], "hello");
        raw_expect_text(fds[i], "hello");
    }
    assert_int_not_equal(ports[0], ports[1]);
    for (size_t i = 0; i < 2; i++) {
        bly_autofd int third = raw_connect(ports[i]);

        raw_send_str(third, UPGRADE);
        raw_read_all(third, text, sizeof(text));
        assert_memory_equal(text, "HTTP/1.1 503 ", 13);
    }
    for (size_t i = 0; i < 2; i++)
        close(fds[i]);
    assert_true(echo_wait(echo, 2, 2));
}

#define ON(setup, test) cmocka_unit_test_setup_teardown(test, setup, stop)

static const struct CMUnitTest fixed[] = {
    ON(start_default, upgrade_answers_with_the_accept_value),
    ON(start_default, small_messages_do_not_wait),
    ON(start_default, text_binary_and_fragments_are_echoed_as_text),
    ON(start_default, twenty_mib_in_one_frame_come_back_in_frames_of_eight),
    ON(start_default, a_close_frame_is_answered_with_the_same_code),
    ON(start_default, one_byte_at_a_time_is_enough),
    ON(start_default, a_slow_reader_gets_everything_in_the_end),
    ON(start_default, pings_nobody_reads_the_answers_of_do_not_pile_up),
    ON(start_default, three_hundred_connections_at_once),
    ON(start_impatient, silence_ends_a_connection),
    ON(start_pinging, a_pong_is_a_sign_of_life),
    ON(start_impatient, a_paused_connection_is_not_silent),
    ON(start_default, a_hang_up_is_noticed_while_paused),
    ON(start_default, a_reset_is_noticed_while_paused),
    ON(start_default, a_paused_connection_can_be_closed),
    ON(start_default, peers_that_vanish_leave_nothing_behind),
    ON(start_default, bytes_that_make_no_sense_do_no_harm),
    ON(start_hasty, a_slow_handshake_runs_out_of_time),
    ON(start_default, http_is_answered_and_ended),
    ON(start_default, readyz_says_when_the_server_is_not_ready),
    ON(start_small, one_connection_too_many_gets_503),
    ON(start_hasty, a_flood_of_connections_is_bounded),
    ON(start_default, the_server_closes_with_code_and_reason),
    ON(start_default, what_was_queued_goes_out_before_the_close),
    ON(start_default, a_connection_that_is_not_taken_is_closed),
    ON(start_default, a_probe_finds_who_is_alive),
    ON(start_default, a_probe_of_a_paused_connection_asks_the_kernel),
    cmocka_unit_test(ipv6_urls_have_brackets),
    ON(start_default, an_address_in_use_is_named_in_the_protocols_words),
    cmocka_unit_test_teardown(several_listeners_share_their_limit, stop),
};

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(fixed) + BLY_LEN(violations)] = {0};
    size_t n = BLY_LEN(fixed);

    memcpy(tests, fixed, sizeof(fixed));
    for (size_t i = 0; i < BLY_LEN(violations); i++)
        tests[n++] = (struct CMUnitTest){.name = violations[i].name,
                                         .test_func = check_violation,
                                         .initial_state = (void *)(uintptr_t)&violations[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
