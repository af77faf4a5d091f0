#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd_pass.h"

static int ends[2];

static int open_all(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
}

static int close_all(void **state)
{
    (void)state;
    ends[0] = bly_close(ends[0]);
    ends[1] = bly_close(ends[1]);
    return 0;
}

/* The number the next descriptor gets, which tells whether one was left open. */
static int next_fd(void)
{
    int fd = dup(ends[0]);

    assert_true(fd >= 0);
    close(fd);
    return fd;
}

/* A packet "hello" in two parts, with `n_fds` copies of a descriptor. */
static void send_hello(size_t n_fds)
{
    struct iovec parts[] = {{(char[]){"hel"}, 3}, {(char[]){"lo"}, 2}};
    int fds[BLY_FD_PASS_MAX];

    for (size_t i = 0; i < n_fds; i++)
        fds[i] = ends[0];
    assert_int_equal(bly_fd_pass_send(ends[0], parts, 2, fds, n_fds, MSG_DONTWAIT), 5);
}

static ssize_t receive(char *room, size_t size, struct bly_passed *ret_passed)
{
    struct iovec part = {room, size};

    return bly_fd_pass_recv(ends[1], &part, 1, MSG_DONTWAIT, ret_passed);
}

static void as_many_as_were_sent_arrive(void **state)
{
    (void)state;
    for (size_t n_fds = 0; n_fds <= BLY_FD_PASS_MAX; n_fds++) {
        struct bly_passed passed;
        int before = next_fd();
        char room[8];

        send_hello(n_fds);
        assert_int_equal(receive(room, sizeof(room), &passed), 5);
        assert_memory_equal(room, "hello", 5);
        assert_int_equal(passed.n, n_fds);
        assert_false(passed.is_cut);
        assert_false(passed.fds_are_cut);
        for (size_t i = 0; i < n_fds; i++)
            assert_int_equal(fcntl(passed.fds[i], F_GETFD), FD_CLOEXEC);
        bly_passed_close(&passed);
        assert_int_equal(passed.n, 0);
        assert_int_equal(next_fd(), before);
    }
}

static void one_is_taken_and_no_more(void **state)
{
    (void)state;
    for (size_t n_fds = 0; n_fds <= BLY_FD_PASS_MAX; n_fds++) {
        struct bly_passed passed;
        int before = next_fd(), fd;
        char room[8];

        send_hello(n_fds);
        assert_int_equal(receive(room, sizeof(room), &passed), 5);
        fd = bly_passed_take_one(&passed);
        if (n_fds == 1)
            assert_true(fd >= 0);
        else
            assert_int_equal(fd, -EBADF);
        bly_passed_close(&passed);
        if (n_fds == 1)
            assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC); /* It is ours now. */
        bly_close(fd);
        assert_int_equal(next_fd(), before);
    }
}

/* By hand: bly_fd_pass_send() sends no more than fit. */
static void too_many_are_noticed_and_none_stays_open(void **state)
{
    struct iovec part = {(char[]){"x"}, 1};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE((BLY_FD_PASS_MAX + 1) * sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    struct bly_passed passed;
    int before = next_fd();
    char room[8];
    (void)state;

    control.align.cmsg_level = SOL_SOCKET;
    control.align.cmsg_type = SCM_RIGHTS;
    control.align.cmsg_len = CMSG_LEN((BLY_FD_PASS_MAX + 1) * sizeof(int));
    for (size_t i = 0; i < BLY_FD_PASS_MAX + 1; i++)
        memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &ends[0], sizeof(int));
    message.msg_controllen = CMSG_LEN((BLY_FD_PASS_MAX + 1) * sizeof(int));
    assert_int_equal(sendmsg(ends[0], &message, MSG_DONTWAIT), 1);

    assert_int_equal(receive(room, sizeof(room), &passed), 1);
    assert_true(passed.fds_are_cut);
    assert_false(passed.is_cut);
    assert_int_equal(bly_passed_take_one(&passed), -EBADF);
    assert_int_equal(next_fd(), before);
}

static void no_room_for_another_open_file_is_noticed(void **state)
{
    struct rlimit limit, none;
    struct bly_passed passed;
    char room[8];
    ssize_t n;
    (void)state;

    send_hello(2);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_cur = (rlim_t)next_fd(), .rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    n = receive(room, sizeof(room), &passed);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(n, 5);
    assert_int_equal(passed.n, 0);
    assert_true(passed.fds_are_cut);
}

static void a_long_packet_is_noticed(void **state)
{
    struct bly_passed passed;
    char room[3];
    (void)state;

    send_hello(1);
    assert_int_equal(receive(room, sizeof(room), &passed), 3);
    assert_true(passed.is_cut);
    bly_passed_close(&passed);
}

static void errors_are_told(void **state)
{
    struct iovec part = {(char[]){"x"}, 1};
    struct bly_passed passed;
    char room[8];
    (void)state;

    assert_int_equal(receive(room, sizeof(room), &passed), -EAGAIN);
    ends[1] = bly_close(ends[1]);
    assert_int_equal(bly_fd_pass_send(ends[0], &part, 1, NULL, 0, 0), -EPIPE); /* and no SIGPIPE */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(as_many_as_were_sent_arrive, open_all, close_all),
        cmocka_unit_test_setup_teardown(one_is_taken_and_no_more, open_all, close_all),
        cmocka_unit_test_setup_teardown(too_many_are_noticed_and_none_stays_open, open_all,
                                        close_all),
        cmocka_unit_test_setup_teardown(no_room_for_another_open_file_is_noticed, open_all,
                                        close_all),
        cmocka_unit_test_setup_teardown(a_long_packet_is_noticed, open_all, close_all),
        cmocka_unit_test_setup_teardown(errors_are_told, open_all, close_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
