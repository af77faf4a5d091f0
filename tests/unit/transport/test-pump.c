#include "transport/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"

struct fixture {
    uv_loop_t loop;
    struct bly_pump *pump;
    bool ended, done;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(uv_loop_close(&f->loop), 0);
    free(f);
    return 0;
}

static void on_ended(void *arg)
{
    struct fixture *f = arg;

    f->ended = true;
    uv_stop(&f->loop);
}

static void on_done(void *arg)
{
    ((struct fixture *)arg)->done = true;
}

static void start(struct fixture *f, enum bly_pump_kind kind, int from, int to)
{
    assert_int_equal(bly_pump_start(&f->loop, kind, from, to, on_ended, f, &f->pump), 0);
}

static void wait_for_end(struct fixture *f)
{
    while (!f->ended)
        (void)uv_run(&f->loop, UV_RUN_DEFAULT);
}

static void end(struct fixture *f, uint64_t patience_ms)
{
    bly_pump_close(f->pump, patience_ms, on_done, f);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_true(f->done);
}

static int memory_file(const char *text)
{
    int fd = memfd_create("input", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void expect_read(int fd, const char *text)
{
    char got[64];
    size_t len = 0;
    ssize_t n;

    while ((n = read(fd, got + len, sizeof(got) - 1 - len)) > 0)
        len += (size_t)n;
    got[len] = '\0';
    assert_string_equal(got, text);
}

static void a_file_is_copied_and_its_end_passed_on(void **state)
{
    struct fixture *f = *state;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    start(f, BLY_PUMP_IN, memory_file("hello"), dup(pair[1]));
    expect_read(pair[0], "hello"); /* up to the end, although pair[1] is still open */
    wait_for_end(f);
    end(f, 1000);
    close(pair[0]);
    close(pair[1]);
}

static void a_socket_is_copied_into_a_file(void **state)
{
    struct fixture *f = *state;
    bly_autofd int file = memory_file("");
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    start(f, BLY_PUMP_OUT, dup(pair[1]), dup(file));
    assert_int_equal(write(pair[0], "hello", 5), 5);
    close(pair[0]);
    close(pair[1]);
    end(f, 10000); /* waits for it */
    assert_int_equal(lseek(file, 0, SEEK_SET), 0);
    expect_read(file, "hello");
}

/* Neither waits in a circle nor gives up, and leaves the flags alone. */
static void non_blocking_descriptors_are_fine(void **state)
{
    struct fixture *f = *state;
    char piece[4096];
    int from[2], to[2];
    size_t total = 0;
    ssize_t n;

    memset(piece, 'x', sizeof(piece));
    assert_int_equal(pipe2(from, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(pipe2(to, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(fcntl(from[1], F_SETFL, 0), 0);
    assert_int_equal(fcntl(to[0], F_SETFL, 0), 0);
    start(f, BLY_PUMP_IN, dup(from[0]), dup(to[1]));
    close(to[1]);
    for (int i = 0; i < 32; i++)
        assert_int_equal(write(from[1], piece, sizeof(piece)), sizeof(piece));
    close(from[1]);
    while ((n = read(to[0], piece, sizeof(piece))) > 0)
        total += (size_t)n;
    assert_int_equal(total, 32 * sizeof(piece));
    wait_for_end(f);
    end(f, 0);
    assert_true(fcntl(from[0], F_GETFL) & O_NONBLOCK);
    close(from[0]);
    close(to[0]);
}

static void a_terminal_keeps_its_flags(void **state)
{
    struct fixture *f = *state;
    int master, slave, pair[2];
    char got[8];

    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    start(f, BLY_PUMP_IN, dup(slave), dup(pair[1]));
    assert_int_equal(write(master, "hello\n", 6), 6);
    assert_int_equal(read(pair[0], got, sizeof(got)), 6);
    assert_memory_equal(got, "hello\n", 6);
    assert_false(fcntl(slave, F_GETFL) & O_NONBLOCK);
    assert_int_equal(write(master, "\4", 1), 1); /* end of file, as a person types it */
    wait_for_end(f);
    end(f, 1000);
    close(master);
    close(slave);
    close(pair[0]);
    close(pair[1]);
}

/* The reader is gone: our socket learns of it. */
static void a_broken_pipe_is_passed_back(void **state)
{
    struct fixture *f = *state;
    int pair[2], out[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    close(out[0]);
    start(f, BLY_PUMP_OUT, dup(pair[1]), out[1]);
    assert_int_equal(write(pair[0], "x", 1), 1);
    wait_for_end(f);
    assert_int_equal(send(pair[0], "x", 1, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, EPIPE);
    end(f, 1000);
    close(pair[0]);
    close(pair[1]);
}

static void a_stuck_thread_is_given_up(void **state)
{
    struct fixture *f = *state;
    bly_autofree char *much = calloc(1, 1 << 20);
    int pair[2], out[2];

    assert_non_null(much);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    start(f, BLY_PUMP_OUT, pair[1], dup(out[1]));
    /* More than the pipe takes, and nobody reads it. */
    assert_true(send(pair[0], much, 1 << 20, MSG_DONTWAIT) > 65536);
    close(pair[0]);
    end(f, 50);
    assert_false(f->ended);
    close(out[0]); /* lets the thread go */
    close(out[1]);
}

static void a_sink_tells_when_its_input_ends(void **state)
{
    struct fixture *f = *state;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    start(f, BLY_PUMP_SINK, fds[0], -EBADF);
    assert_int_equal(write(fds[1], "ignored", 7), 7);
    close(fds[1]);
    wait_for_end(f);
    end(f, 0);
}

static void closing_need_not_wait(void **state)
{
    struct fixture *f = *state;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    start(f, BLY_PUMP_SINK, fds[0], -EBADF);
    end(f, 0);
    assert_false(f->ended);
    close(fds[1]);
}

#define ON(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON(a_file_is_copied_and_its_end_passed_on), ON(a_socket_is_copied_into_a_file),
        ON(non_blocking_descriptors_are_fine),      ON(a_terminal_keeps_its_flags),
        ON(a_broken_pipe_is_passed_back),           ON(a_stuck_thread_is_given_up),
        ON(a_sink_tells_when_its_input_ends),       ON(closing_need_not_wait),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
