/*
 * The server's side against a launcher and spawners that have gone mad: every child is answered
 * exactly once, nothing is leaked, and the session can go on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "launcher/launcher.h"
#include "launcher/wire.h"
#include "unit/launcher/fixture.h"

/* ---- the mad side --------------------------------------------------------------------------- */

enum { LAUNCHER_SOCKET = 3 };

/* What a spawner does with a request: letters, carried out in order. */
static const struct evil_case {
    const char *name;
    const char *deeds;
    const char *events; /* what the child then hears: s started, f failed, x exited */
} evil_cases[] = {
    {"it closes at once", ".", "f"},
    {"started, then gone", "S.", "sx"},
    {"started and exited", "SX", "sx"},
    {"started twice", "SS", "sx"},
    {"exited twice", "SXX", "sx"},
    {"exited before started", "X", "f"},
    {"failed", "F", "f"},
    {"failed after started", "SF", "sx"},
    {"failed twice", "FF", "f"},
    {"failed without a reason", "n", "f"},
    {"failed for no reason at all", "k", "f"},
    {"started with more descriptors than it says", "m", "f"},
    {"started with fewer descriptors than it says", "l", "f"},
    {"started with a strange mask", "M", "f"},
    {"started behind a wall there is not", "g", "f"},
    {"exited with a strange answer about refusals", "Sq", "sx"},
    {"exited without an answer about refusals", "So", "sx"},
    {"somebody else is started, exited and failed", "uyvSX", "sx"},
    {"an unknown message", "t", "f"},
    {"a message for launchers", "L", "f"},
    {"an empty message", "e", "f"},
    {"a short header", "h", "f"},
    {"noise", "r", "f"},
    {"noise after the start", "Sr", "sx"},
};

struct evil {
    int sock;
    uint64_t id;
};

static void say(const struct evil *evil, uint32_t type, struct bly_buf *buf, size_t n_fds)
{
    int fds[3] = {STDIN_FILENO, STDIN_FILENO, STDIN_FILENO};

    (void)bly_wire_send(evil->sock, (enum bly_wire_type)type, buf, fds, n_fds, true);
}

static void say_started_on(const struct evil *evil, uint64_t id, unsigned mask, size_t n_fds,
                           unsigned rung)
{
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, 64);
    (void)bly_buf_put_u64(&buf, id);
    (void)bly_buf_put_u32(&buf, 1);
    (void)bly_buf_put_u8(&buf, (uint8_t)mask);
    (void)bly_buf_put_u8(&buf, (uint8_t)rung);
    say(evil, BLY_WIRE_STARTED, &buf, n_fds);
}

static void say_started(const struct evil *evil, uint64_t id, unsigned mask, size_t n_fds)
{
    say_started_on(evil, id, mask, n_fds, 0);
}

enum { NO_ANSWER = -1 };

static void say_exited_with(const struct evil *evil, uint64_t id, int refused)
{
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, 64);
    (void)bly_buf_put_u64(&buf, id);
    (void)bly_buf_put_u32(&buf, 0);
    if (refused != NO_ANSWER)
        (void)bly_buf_put_u8(&buf, (uint8_t)refused);
    say(evil, BLY_WIRE_EXITED, &buf, 0);
}

static void say_exited(const struct evil *evil, uint64_t id)
{
    say_exited_with(evil, id, 0);
}

static void say_failed(const struct evil *evil, uint64_t id, uint32_t kind, const char *text)
{
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, 256);
    (void)bly_buf_put_u64(&buf, id);
    (void)bly_buf_put_u32(&buf, kind);
    (void)bly_buf_put_u32(&buf, ENOENT);
    (void)bly_buf_put_str(&buf, text);
    say(evil, BLY_WIRE_FAILED, &buf, 0);
}

static void say_nothing(const struct evil *evil, uint32_t type)
{
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, 64);
    say(evil, type, &buf, 0);
}

static void say_noise(const struct evil *evil)
{
    unsigned char noise[300];

    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (unsigned char)(i * 37 + 11);
    (void)send(evil->sock, noise, sizeof(noise), MSG_NOSIGNAL);
}

static void do_deed(const struct evil *evil, char deed)
{
    const uint64_t other = evil->id + 1000;

    switch (deed) {
    case 'S':
        say_started(evil, evil->id, 2, 1);
        break;
    case 'X':
        say_exited(evil, evil->id);
        break;
    case 'F':
        say_failed(evil, evil->id, BLY_ERR_SPAWN, "no");
        break;
    case 'n':
        say_failed(evil, evil->id, BLY_ERR_SPAWN, NULL);
        break;
    case 'k':
        say_failed(evil, evil->id, BLY_ERR_NONE, "no");
        break;
    case 'm':
        say_started(evil, evil->id, 2, 3);
        break;
    case 'l':
        say_started(evil, evil->id, 7, 1);
        break;
    case 'M':
        say_started(evil, evil->id, 255, 1);
        break;
    case 'g':
        say_started_on(evil, evil->id, 2, 1, 3);
        break;
    case 'q':
        say_exited_with(evil, evil->id, 2);
        break;
    case 'o':
        say_exited_with(evil, evil->id, NO_ANSWER);
        break;
    case 'u':
        say_started(evil, other, 2, 1);
        break;
    case 'y':
        say_exited(evil, other);
        break;
    case 'v':
        say_failed(evil, other, BLY_ERR_SPAWN, "no");
        break;
    case 't':
        say_nothing(evil, 4711);
        break;
    case 'L':
        say_nothing(evil, BLY_WIRE_KILL);
        break;
    case 'e':
        say_nothing(evil, BLY_WIRE_STARTED);
        break;
    case 'h':
        (void)send(evil->sock, "abc", 3, MSG_NOSIGNAL);
        break;
    case 'r':
        say_noise(evil);
        break;
    default:
        break;
    }
}

/* The deeds are the program's name: the only text in the request between these marks. */
static const char *find_deeds(const struct bly_packet *packet, char *deeds, size_t size)
{
    const char *at = memmem(packet->payload, packet->len, "[", 1);
    const char *end = at == NULL ? NULL : strchr(at, ']');

    if (end == NULL)
        return NULL;
    (void)snprintf(deeds, size, "%.*s", (int)(end - at - 1), at + 1);
    return deeds;
}

static void wait_readable(int fd)
{
    struct pollfd in = {.fd = fd, .events = POLLIN};

    (void)poll(&in, 1, -1);
}

/* One spawner after the other is enough: a test has one session. */
static void be_a_spawner(int sock)
{
    for (;;) {
        bly_autopacket struct bly_packet packet = {0};
        struct evil evil = {.sock = sock};
        struct bly_reader reader;
        char deeds[32];

        wait_readable(sock);
        if (bly_wire_recv(sock, &packet) != 0)
            return;
        if (packet.type != BLY_WIRE_START || find_deeds(&packet, deeds, sizeof(deeds)) == NULL)
            continue;
        reader = bly_reader_of(packet.payload, packet.len);
        evil.id = bly_get_u64(&reader);
        for (const char *deed = deeds; *deed != '\0'; deed++) {
            if (*deed == '.')
                return;
            do_deed(&evil, *deed);
        }
    }
}

static int be_a_launcher(void)
{
    for (;;) {
        bly_autopacket struct bly_packet packet = {0};

        wait_readable(LAUNCHER_SOCKET);
        if (bly_wire_recv(LAUNCHER_SOCKET, &packet) != 0)
            return 0;
        if (packet.n_fds == 1)
            be_a_spawner(packet.fds[0]);
    }
}

/* ---- the server's side ---------------------------------------------------------------------- */

struct heard {
    char events[16];
    size_t n;
    bool over;
};

static void hear(struct heard *heard, char event)
{
    assert_false(heard->over);
    assert_true(heard->n < sizeof(heard->events) - 1);
    heard->events[heard->n++] = event;
    heard->over = event != 's';
}

static void on_started(void *arg, pid_t pid, int in_fd, int out_fd, int err_fd,
                       const struct bly_err *err)
{
    (void)pid;
    hear(arg, err == NULL ? 's' : 'f');
    (void)bly_close(in_fd);
    (void)bly_close(out_fd);
    (void)bly_close(err_fd);
}

static void on_exited(void *arg, int status)
{
    (void)status;
    hear(arg, 'x');
}

static const struct bly_child_ops ops = {.started = on_started, .exited = on_exited};

static void start(struct fixture *fixture, const char *deeds, struct heard *heard)
{
    char program[64];
    const char *const argv[] = {program, NULL};
    const char *const envp[] = {NULL};
    const struct bly_spawn spawn = {.argv = argv, .envp = envp, .cwd = "/", .arg0 = "x"};
    struct bly_child *child;
    struct bly_err err;

    (void)snprintf(program, sizeof(program), "[%s]", deeds);
    *heard = (struct heard){0};
    assert_int_equal(bly_spawner_start(fixture->spawner, &spawn, &ops, heard, &child, &err), 0);
}

static void check_evil(void **state)
{
    struct fixture *fixture = *state;
    const struct evil_case *c = fixture->param;
    struct heard warm_up, heard, bystander, next;
    size_t n_fds;

    start(fixture, "SX", &warm_up);
    fixture_wait(fixture, &warm_up.over);
    n_fds = count_open_fds();

    start(fixture, "S", &bystander);
    start(fixture, c->deeds, &heard);
    fixture_wait(fixture, &heard.over);
    assert_string_equal(heard.events, c->events);

    /* A new process serves the session; the same one if nothing was wrong with it. */
    start(fixture, "SX", &next);
    fixture_wait(fixture, &next.over);
    if (strcmp(next.events, "f") == 0) /* went down with the mad one, before that was noticed */
        start(fixture, "SX", &next);
    fixture_wait(fixture, &next.over);
    assert_string_equal(next.events, "sx");
    assert_int_equal(count_open_fds(), n_fds);
    fixture_close_spawner(fixture);
    assert_string_equal(bystander.events, "sx");
}

static int setup(void **state)
{
    char self[PATH_MAX] = "";
    char script[PATH_MAX + 64];
    char path[] = "/tmp/bailey-evil-XXXXXX";
    int fd = mkstemp(path);
    int r;

    /* Its environment is empty and its arguments are fixed, so a script says what it is. */
    if (fd < 0 || readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
        return -1;
    (void)snprintf(script, sizeof(script), "#!/bin/sh\nexec '%s' --evil\n", self);
    if (write(fd, script, strlen(script)) < 0 || fchmod(fd, 0700) < 0 || close(fd) < 0)
        return -1;
    r = fixture_setup_with(state, path);
    if (r == 0) { /* The script is read once the first answer is there; tests begin with one. */
        struct fixture *fixture = *state;
        struct heard heard;

        start(fixture, "SX", &heard);
        fixture_wait(fixture, &heard.over);
    }
    (void)unlink(path);
    return r;
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[BLY_LEN(evil_cases)] = {0};

    if (argc > 1 && strcmp(argv[1], "--evil") == 0)
        return be_a_launcher();
    for (size_t i = 0; i < BLY_LEN(evil_cases); i++)
        tests[i] = (struct CMUnitTest){.name = evil_cases[i].name,
                                       .test_func = check_evil,
                                       .setup_func = setup,
                                       .teardown_func = fixture_teardown,
                                       .initial_state = (void *)(uintptr_t)&evil_cases[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
