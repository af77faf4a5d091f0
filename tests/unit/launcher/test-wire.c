#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "launcher/launcher.h"
#include "launcher/report.h"
#include "launcher/request.h"
#include "launcher/wire.h"
#include "unit/launcher/fixture.h"

struct sockets {
    int a, b;
    size_t n_fds; /* open before */
};

static int setup(void **state)
{
    struct sockets *sockets = calloc(1, sizeof(*sockets));
    int pair[2];

    sockets->n_fds = count_open_fds();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    sockets->a = pair[0];
    sockets->b = pair[1];
    *state = sockets;
    return 0;
}

static int teardown(void **state)
{
    struct sockets *sockets = *state;
    bool leaked;

    bly_close(sockets->a);
    bly_close(sockets->b);
    leaked = count_open_fds() != sockets->n_fds;
    if (leaked)
        print_error("descriptors leaked\n");
    free(sockets);
    return leaked ? -1 : 0;
}

/* ---- packets -------------------------------------------------------------------------------- */

static const size_t sizes[] = {0, 1, BLY_WIRE_INLINE_MAX, BLY_WIRE_INLINE_MAX + 1, 5 << 20};

static void payloads_of_every_size_arrive(void **state)
{
    const struct sockets *sockets = *state;

    for (size_t i = 0; i < BLY_LEN(sizes); i++) {
        bly_autobuf struct bly_buf buf;
        bly_autopacket struct bly_packet packet = {0};

        bly_buf_init(&buf, BLY_WIRE_MAX);
        for (size_t n = 0; n < sizes[i]; n++)
            (void)bly_buf_add_char(&buf, (char)(n * 7 + n / 256));
        assert_int_equal(bly_wire_send(sockets->a, BLY_WIRE_START, &buf, NULL, 0, false), 0);
        assert_int_equal(bly_wire_recv(sockets->b, &packet), 0);
        assert_int_equal(packet.type, BLY_WIRE_START);
        assert_int_equal(packet.len, sizes[i]);
        assert_int_equal(packet.n_fds, 0);
        if (sizes[i] > 0)
            assert_memory_equal(packet.payload, buf.data, sizes[i]);
    }
}

static void descriptors_arrive_close_on_exec(void **state)
{
    const struct sockets *sockets = *state;

    /* With a small payload, and with one that takes a memfd in front of them. */
    for (size_t i = 1; i < BLY_LEN(sizes); i += 2) {
        bly_autobuf struct bly_buf buf;
        bly_autopacket struct bly_packet packet = {0};
        int pipes[2];
        char c = 0;

        bly_buf_init(&buf, BLY_WIRE_MAX);
        for (size_t n = 0; n < sizes[i]; n++)
            (void)bly_buf_add_char(&buf, 'x');
        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        assert_int_equal(bly_wire_send(sockets->a, BLY_WIRE_STARTED, &buf, pipes, 2, false), 0);
        bly_close(pipes[0]);
        bly_close(pipes[1]);

        assert_int_equal(bly_wire_recv(sockets->b, &packet), 0);
        assert_int_equal(packet.n_fds, 2);
        assert_int_equal(write(packet.fds[1], "y", 1), 1);
        assert_int_equal(read(packet.fds[0], &c, 1), 1);
        assert_int_equal(c, 'y');
        assert_true(fcntl(packet.fds[0], F_GETFD) & FD_CLOEXEC);
    }
}

static void nothing_there_is_not_the_end(void **state)
{
    struct sockets *sockets = *state;
    struct bly_packet packet;
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, 16);
    assert_int_equal(bly_wire_recv(sockets->b, &packet), -EAGAIN);
    sockets->a = bly_close(sockets->a);
    assert_int_equal(bly_wire_recv(sockets->b, &packet), BLY_WIRE_END);
    assert_int_equal(bly_wire_send(sockets->b, BLY_WIRE_START, &buf, NULL, 0, false), -EPIPE);
}

static void last_words_survive_unread_packets(void **state)
{
    struct sockets *sockets = *state;
    bly_autopacket struct bly_packet packet = {0};
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, 16);
    (void)bly_buf_put_u32(&buf, 7);
    assert_int_equal(bly_wire_send(sockets->b, BLY_WIRE_SIGNAL, &buf, NULL, 0, false), 0);
    assert_int_equal(bly_wire_send(sockets->a, BLY_WIRE_EXITED, &buf, NULL, 0, false), 0);
    sockets->a = bly_close(sockets->a); /* with the signal unread: a reset */
    assert_int_equal(bly_wire_recv(sockets->b, &packet), 0);
    assert_int_equal(packet.type, BLY_WIRE_EXITED);
}

struct raw_header {
    uint32_t type;
    uint16_t n_fds;
    uint16_t in_memfd;
    uint64_t len;
};

static const struct malformed_case {
    const char *name;
    struct raw_header header;
    size_t n_header; /* bytes of it that are sent */
    size_t n_body;
    size_t n_fds; /* sent */
} malformed[] = {
    {"a packet shorter than its header", {1, 0, 0, 0}, 7, 0, 0},
    {"less payload than announced", {1, 0, 0, 9}, 16, 8, 0},
    {"more payload than announced", {1, 0, 0, 3}, 16, 8, 0},
    {"a huge length", {1, 0, 0, UINT64_MAX}, 16, 8, 0},
    {"more descriptors than announced", {1, 0, 0, 0}, 16, 0, 2},
    {"more descriptors announced than possible", {1, 200, 0, 0}, 16, 0, 1},
    {"a memfd and bytes", {1, 0, 1, 8}, 16, 8, 1},
    {"a memfd that is a pipe", {1, 0, 1, 8}, 16, 0, 1},
    {"a strange flag", {1, 0, 2, 0}, 16, 0, 0},
};

static int send_raw(int sock, const struct malformed_case *c, int fd)
{
    char body[64] = {0};
    struct iovec iov[2] = {{(void *)(uintptr_t)&c->header, c->n_header}, {body, c->n_body}};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    int fds[4] = {fd, fd, fd, fd};

    if (c->n_fds > 0) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(c->n_fds * sizeof(int));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN(c->n_fds * sizeof(int));
        memcpy(CMSG_DATA(&control.align), fds, c->n_fds * sizeof(int));
    }
    return sendmsg(sock, &msg, 0) < 0 ? -errno : 0;
}

static void malformed_packets_are_refused(void **state)
{
    const struct sockets *sockets = *state;

    for (size_t i = 0; i < BLY_LEN(malformed); i++) {
        bly_autopacket struct bly_packet packet = {0};
        int pipes[2];
        int r;

        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        assert_int_equal(send_raw(sockets->a, &malformed[i], pipes[0]), 0);
        r = bly_wire_recv(sockets->b, &packet);
        bly_close(pipes[0]);
        bly_close(pipes[1]);
        if (r != -EBADMSG)
            print_error("%s: %d\n", malformed[i].name, r);
        assert_int_equal(r, -EBADMSG);
        assert_null(packet.payload);
    }
}

static void announced_descriptors_that_did_not_come_are_lost(void **state)
{
    const struct sockets *sockets = *state;
    const struct malformed_case c = {"", {BLY_WIRE_STARTED, 2, 0, 8}, 16, 8, 1};
    bly_autopacket struct bly_packet packet = {0};

    assert_int_equal(send_raw(sockets->a, &c, sockets->a), 0);
    assert_int_equal(bly_wire_recv(sockets->b, &packet), 0);
    assert_true(packet.fds_lost);
    assert_int_equal(packet.n_fds, 0);
}

static void an_outbox_keeps_order_and_everything(void **state)
{
    struct sockets *sockets = *state;
    struct bly_wire_queue outbox;
    uint32_t received = 0;

    bly_wire_queue_init(&outbox);
    for (uint32_t i = 0; i < 5000; i++) {
        bly_autobuf struct bly_buf buf;

        bly_buf_init(&buf, 16);
        (void)bly_buf_put_u32(&buf, i);
        assert_int_equal(bly_wire_queue_send(&outbox, sockets->a, BLY_WIRE_SIGNAL, &buf, -EBADF),
                         0);
    }
    assert_false(bly_wire_queue_is_empty(&outbox)); /* Nobody has read yet. */
    while (received < 5000) {
        bly_autopacket struct bly_packet packet = {0};
        struct bly_reader reader;

        assert_int_equal(bly_wire_queue_flush(&outbox, sockets->a), 0);
        assert_int_equal(bly_wire_recv(sockets->b, &packet), 0);
        reader = bly_reader_of(packet.payload, packet.len);
        assert_int_equal(bly_get_u32(&reader), received++);
    }
    assert_true(bly_wire_queue_is_empty(&outbox));
    bly_wire_queue_deinit(&outbox);
}

static void an_outbox_closes_what_it_could_not_send(void **state)
{
    struct sockets *sockets = *state;
    struct bly_wire_queue outbox;
    int r = 0;

    bly_wire_queue_init(&outbox);
    for (int i = 0; i < 2000 && r == 0; i++) {
        bly_autobuf struct bly_buf buf;

        bly_buf_init(&buf, 16);
        (void)bly_buf_put_u32(&buf, 0);
        r = bly_wire_queue_send(&outbox, sockets->a, BLY_WIRE_SPAWNER, &buf, dup(sockets->b));
    }
    /* Sockets in flight that hold each other: close both, the kernel collects them. */
    sockets->b = bly_close(sockets->b);
    bly_wire_queue_deinit(&outbox);
    assert_true(bly_wire_queue_is_empty(&outbox));
}

/* ---- requests ------------------------------------------------------------------------------- */

static const char *const argv[] = {"prog", "", "a b", NULL};
static const char *const envp[] = {"A=1", "B=", NULL};

static void pack(const struct bly_spawn *spawn, struct bly_packet *packet)
{
    struct bly_buf buf;

    bly_buf_init(&buf, BLY_WIRE_MAX);
    assert_int_equal(bly_request_pack_start(&buf, 77, spawn), 0);
    *packet = (struct bly_packet){.type = BLY_WIRE_START};
    packet->payload = bly_buf_take(&buf, &packet->len);
}

static void a_request_survives_packing(void **state)
{
    const struct bly_spawn spawn = {
        .argv = argv, .envp = envp, .cwd = "/w", .arg0 = "other", .tty = true};
    bly_autopacket struct bly_packet packet;
    struct bly_request request;

    (void)state;
    pack(&spawn, &packet);
    assert_int_equal(bly_request_unpack(&packet, &request), 0);
    assert_int_equal(request.id, 77);
    assert_true(request.tty);
    assert_false(request.pipe_stdin);
    assert_false(request.helper);
    assert_string_equal(request.cwd, "/w");
    assert_string_equal(request.arg0, "other");
    assert_string_equal(request.argv[0], "prog");
    assert_string_equal(request.argv[1], "");
    assert_string_equal(request.argv[2], "a b");
    assert_null(request.argv[3]);
    assert_string_equal(request.envp[0], "A=1");
    assert_string_equal(request.envp[1], "B=");
    assert_null(request.envp[2]);
    assert_int_equal(request.plan_len, 0);
    bly_request_deinit(&request);
}

static void a_request_cut_anywhere_is_malformed(void **state)
{
    const struct bly_spawn spawn = {.argv = argv, .envp = envp, .cwd = "/w"};
    bly_autopacket struct bly_packet packet;
    struct bly_request request;
    size_t whole;

    (void)state;
    pack(&spawn, &packet);
    whole = packet.len;
    for (packet.len = 0; packet.len < whole; packet.len++)
        assert_int_equal(bly_request_unpack(&packet, &request), -EBADMSG);
}

static void any_changed_byte_is_survived(void **state)
{
    const struct bly_spawn spawn = {.argv = argv, .envp = envp, .cwd = "/w"};
    bly_autopacket struct bly_packet packet;

    (void)state;
    pack(&spawn, &packet);
    for (size_t i = 0; i < packet.len; i++) {
        uint8_t was = packet.payload[i];

        for (unsigned v = 0; v < 256; v++) {
            struct bly_request request;

            packet.payload[i] = (uint8_t)v;
            if (bly_request_unpack(&packet, &request) == 0)
                bly_request_deinit(&request);
        }
        packet.payload[i] = was;
    }
}

/* ---- reports -------------------------------------------------------------------------------- */

static void an_exit_says_whether_something_was_refused(void **state)
{
    const struct sockets *sockets = *state;

    for (unsigned refused = 0; refused < 2; refused++) {
        struct bly_report report = {0};
        int fd = -EBADF;

        bly_report_exited(sockets->a, 0x300, refused);
        assert_int_equal(bly_report_read(sockets->b, &report, &fd), 0);
        assert_int_equal(report.type, BLY_REPORT_EXITED);
        assert_int_equal(report.status, 0x300);
        assert_int_equal(report.refused, refused);
        assert_int_equal(fd, -EBADF);
    }
}

static const struct report_case {
    const char *name;
    struct bly_report report;
    size_t len;
    int r;
} reports[] = {
    {"an exit", {BLY_REPORT_EXITED, 9, 1, {0}}, offsetof(struct bly_report, err), 0},
    {"an exit without its end",
     {BLY_REPORT_EXITED, 9, 1, {0}},
     offsetof(struct bly_report, refused),
     -EBADMSG},
    {"neither yes nor no",
     {BLY_REPORT_EXITED, 9, 2, {0}},
     offsetof(struct bly_report, err),
     -EBADMSG},
    {"a refusal before the program runs",
     {BLY_REPORT_STARTED, 0, 1, {0}},
     offsetof(struct bly_report, err),
     -EBADMSG},
    {"a refusal in a failure", {BLY_REPORT_FAILED, 0, 1, {0}}, sizeof(struct bly_report), -EBADMSG},
    {"a failure", {BLY_REPORT_FAILED, 0, 0, {0}}, sizeof(struct bly_report), 0},
    {"an unknown type", {77, 0, 0, {0}}, offsetof(struct bly_report, err), -EBADMSG},
};

static void malformed_reports_are_refused(void **state)
{
    const struct sockets *sockets = *state;

    for (size_t i = 0; i < BLY_LEN(reports); i++) {
        const struct report_case *c = &reports[i];
        struct bly_report report;
        int fd = -EBADF;
        int r;

        assert_int_equal(write(sockets->a, &c->report, c->len), (ssize_t)c->len);
        r = bly_report_read(sockets->b, &report, &fd);
        if (r != c->r)
            print_error("%s: %d\n", c->name, r);
        assert_int_equal(r, c->r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(payloads_of_every_size_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(descriptors_arrive_close_on_exec, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_there_is_not_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(last_words_survive_unread_packets, setup, teardown),
        cmocka_unit_test_setup_teardown(malformed_packets_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(announced_descriptors_that_did_not_come_are_lost, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_outbox_keeps_order_and_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(an_outbox_closes_what_it_could_not_send, setup, teardown),
        cmocka_unit_test_setup_teardown(an_exit_says_whether_something_was_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(malformed_reports_are_refused, setup, teardown),
        cmocka_unit_test(a_request_survives_packing),
        cmocka_unit_test(a_request_cut_anywhere_is_malformed),
        cmocka_unit_test(any_changed_byte_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
