#include "transport/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "echo-server.h"
#include "raw-client.h"

struct place {
    char dir[64];
    struct sockaddr_un address;
};

static int setup(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    assert_non_null(place);
    strcpy(place->dir, "/tmp/bailey-unix-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    place->address.sun_family = AF_UNIX;
    (void)snprintf(place->address.sun_path, sizeof(place->address.sun_path), "%s/s", place->dir);
    *state = place;
    return 0;
}

/* Nothing but the socket's own name may have been there. */
static int teardown(void **state)
{
    struct place *place = *state;

    (void)unlink(place->address.sun_path);
    assert_int_equal(rmdir(place->dir), 0);
    free(place);
    return 0;
}

static int try_connect(const struct sockaddr_un *address)
{
    bly_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    return connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
}

static int listen_at(const struct place *place, struct bly_unix_file *ret_file)
{
    int fd;

    assert_int_equal(bly_unix_listen(&place->address, 8, &fd, ret_file), 0);
    return fd;
}

static void the_file_is_ours_alone_and_goes_away(void **state)
{
    const struct place *place = *state;
    mode_t old = umask(0);
    struct bly_unix_file file;
    bly_autofd int fd = listen_at(place, &file);
    struct stat st;

    (void)umask(old);
    assert_int_equal(lstat(place->address.sun_path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(try_connect(&place->address), 0);
    bly_unix_remove(&file);
    assert_int_equal(lstat(place->address.sun_path, &st), -1);
    bly_unix_remove(&file); /* harmless */
}

static void a_stale_socket_is_replaced(void **state)
{
    const struct place *place = *state;
    struct bly_unix_file first, second;
    bly_autofd int fd = -EBADF;

    close(listen_at(place, &first)); /* as after kill -9 */
    assert_int_equal(try_connect(&place->address), -ECONNREFUSED);
    fd = listen_at(place, &second);
    assert_int_equal(try_connect(&place->address), 0);
    /* The old one's owner, should it live after all, takes nothing away. */
    bly_unix_remove(&first);
    assert_int_equal(try_connect(&place->address), 0);
    bly_unix_remove(&second);
}

static void a_live_socket_stays(void **state)
{
    const struct place *place = *state;
    struct bly_unix_file first, second;
    bly_autofd int fd = listen_at(place, &first);
    int other;

    assert_true(fd >= 0);
    assert_int_equal(bly_unix_listen(&place->address, 8, &other, &second), -EADDRINUSE);
    assert_int_equal(try_connect(&place->address), 0);
    bly_unix_remove(&first);
}

static void a_live_socket_of_another_type_stays(void **state)
{
    const struct place *place = *state;
    bly_autofd int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct bly_unix_file file;
    int other;

    assert_int_equal(bind(fd, (const struct sockaddr *)&place->address, sizeof(place->address)), 0);
    assert_int_equal(bly_unix_listen(&place->address, 8, &other, &file), -EADDRINUSE);
    assert_int_equal(access(place->address.sun_path, F_OK), 0);
}

static void another_kind_of_file_stays(void **state)
{
    const struct place *place = *state;
    bly_autofd int fd = open(place->address.sun_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct bly_unix_file file;
    struct stat st;
    int other;

    assert_int_equal(write(fd, "keep", 4), 4);
    assert_int_equal(bly_unix_listen(&place->address, 8, &other, &file), -EADDRINUSE);
    assert_int_equal(lstat(place->address.sun_path, &st), 0);
    assert_true(S_ISREG(st.st_mode) && st.st_size == 4);
}

static void a_symlink_is_not_followed(void **state)
{
    const struct place *place = *state;
    struct bly_unix_file file;
    int other;

    assert_int_equal(symlink("elsewhere", place->address.sun_path), 0);
    assert_int_equal(bly_unix_listen(&place->address, 8, &other, &file), -EADDRINUSE);
    assert_int_equal(access(place->dir, F_OK), 0);
}

static void a_directory_that_is_not_there_is_an_error(void **state)
{
    static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/no/such/dir/s"};
    struct bly_unix_file file;
    int fd;

    (void)state;
    assert_int_equal(bly_unix_listen(&address, 8, &fd, &file), -ENOENT);
}

/* Both find the stale one; one gets the name, and whoever has it can be reached by it. */
static void two_that_start_at_once_do_not_lose_each_other(void **state)
{
    enum { ROUNDS = 50 };
    const struct place *place = *state;

    for (int round = 0; round < ROUNDS; round++) {
        struct bly_unix_file file;
        bly_autofd int fd = -EBADF;
        int status, mine, r;
        pid_t pid;

        close(listen_at(place, &file));
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            r = bly_unix_listen(&place->address, 8, &mine, &file);
            _exit(r == 0 ? 0 : r == -EADDRINUSE ? 1 : 2);
        }
        r = bly_unix_listen(&place->address, 8, &fd, &file);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        if (r == 0)
            assert_int_equal(try_connect(&place->address), 0);
        else
            assert_int_equal(WEXITSTATUS(status), 0);
        (void)unlink(place->address.sun_path);
    }
}

/* A connection of WebSocket frames, all the way. */

static struct echo *start_echo(const struct place *place, const struct bly_limits *limits)
{
    char url[BLY_URL_MAX];

    (void)snprintf(url, sizeof(url), "unix://%s", place->address.sun_path);
    return echo_start(url, limits);
}

static int connect_to(const struct place *place)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&place->address, sizeof(place->address)),
                     0);
    return fd;
}

static int upgrade(const struct place *place)
{
    int fd = connect_to(place);
    char head[1024];

    raw_send_str(fd, UPGRADE);
    raw_read_head(fd, head);
    assert_memory_equal(head, "HTTP/1.1 101 ", 13);
    return fd;
}

static void messages_are_echoed(void **state)
{
    const struct place *place = *state;
    struct bly_limits limits;
    struct echo *echo;
    int fd;

    bly_limits_defaults(&limits);
    echo = start_echo(place, &limits);
    assert_string_equal(echo_url(echo, 0) + strlen("unix://"), place->address.sun_path);
    fd = upgrade(place);
    raw_text(fd, "hello");
    raw_expect_text(fd, "hello");
    raw_frame(fd, 0x88, "\x03\xe8", 2);
    raw_expect_close(fd, 1000);
    close(fd);
    echo_stop(echo);
    assert_int_equal(access(place->address.sun_path, F_OK), -1);
}

/* While it is not read from, a local client shows life by not hanging up. */
static void a_paused_connection_is_not_silent(void **state)
{
    const struct place *place = *state;
    struct bly_limits limits;
    struct echo *echo;
    int fd;

    bly_limits_defaults(&limits);
    limits.ping_ms = 100;
    limits.silence_ms = 350;
    echo = start_echo(place, &limits);
    fd = upgrade(place);
    raw_text(fd, "!pause");
    for (int pings = 0; pings < 10; pings++) {
        struct frame frame = raw_read_frame(fd);

        assert_int_equal(frame.opcode, 0x9);
        free(frame.data);
    }
    assert_int_equal(echo_counts(echo).closed, 0);
    close(fd);
    assert_true(echo_wait(echo, 1, 1));
    assert_string_equal(echo_counts(echo).reason, "hang-up");
    echo_stop(echo);
}

/* In a child of another user: 0 when it was answered, 1 when the connection just ended. */
static int ask_as(const struct place *place, uid_t uid)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char byte;

        if (setresuid(uid, uid, uid) < 0 ||
            connect(fd, (const struct sockaddr *)&place->address, sizeof(place->address)) < 0)
            _exit(2);
        (void)send(fd, UPGRADE, strlen(UPGRADE), MSG_NOSIGNAL);
        _exit(recv(fd, &byte, 1, 0) == 1 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void another_user_is_not_talked_to(void **state)
{
    const struct place *place = *state;
    struct bly_limits limits;
    struct echo *echo;

    if (geteuid() != 0)
        skip(); /* only root can be somebody else */
    bly_limits_defaults(&limits);
    echo = start_echo(place, &limits);
    assert_int_equal(chmod(place->dir, 0755), 0);
    /* The mode alone keeps them out; and somebody who opens it up has not opened the server. */
    assert_int_equal(ask_as(place, 65534), 2);
    assert_int_equal(chmod(place->address.sun_path, 0666), 0);
    assert_int_equal(ask_as(place, 65534), 1);
    assert_int_equal(ask_as(place, 0), 0);
    echo_stop(echo);
}

#define ON(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON(the_file_is_ours_alone_and_goes_away),
        ON(a_stale_socket_is_replaced),
        ON(a_live_socket_stays),
        ON(a_live_socket_of_another_type_stays),
        ON(another_kind_of_file_stays),
        ON(a_symlink_is_not_followed),
        ON(a_directory_that_is_not_there_is_an_error),
        ON(two_that_start_at_once_do_not_lose_each_other),
        ON(messages_are_echoed),
        ON(a_paused_connection_is_not_silent),
        ON(another_user_is_not_talked_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
