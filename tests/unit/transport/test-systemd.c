#include "transport/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/err.h"

/* Each row runs in a child whose descriptors from 3 on are what a service manager would pass. */
enum passed { LISTENING, UNIX_LISTENING, DATAGRAM, NOT_LISTENING, A_FILE };

static int make_fd(enum passed what)
{
    int domain = what == UNIX_LISTENING ? AF_UNIX : AF_INET;
    int fd = what == A_FILE ? open("/dev/null", O_RDWR)
                            : socket(domain, what == DATAGRAM ? SOCK_DGRAM : SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX}; /* the kernel names it */

    if (what == UNIX_LISTENING)
        (void)bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t));
    if (what == LISTENING || what == UNIX_LISTENING)
        (void)listen(fd, 1);
    return fd;
}

static const struct row {
    const char *name;
    const char *pid, *fds; /* "us": our own process id; NULL: not set */
    enum passed passed[3];
    size_t n_passed;
    int result;
    size_t n_fds;
    const char *text; /* in the error */
} rows[] = {
    {"nothing is passed", NULL, NULL, {0}, 0, 0, 0, NULL},
    {"one socket", "us", "1", {LISTENING}, 1, 0, 1, NULL},
    {"several of both kinds", "us", "3", {LISTENING, UNIX_LISTENING, LISTENING}, 3, 0, 3, NULL},
    {"none of them", "us", "0", {0}, 0, 0, 0, NULL},
    {"meant for another process", "1", "1", {LISTENING}, 1, 0, 0, NULL},
    {"no process id", NULL, "1", {LISTENING}, 1, 0, 0, NULL},
    {"a process id that is none", "us too", "1", {LISTENING}, 1, -EINVAL, 0, "LISTEN_PID"},
    {"a number that is none", "us", "one", {LISTENING}, 1, -EINVAL, 0, "LISTEN_FDS"},
    {"a negative number", "us", "-1", {LISTENING}, 1, -EINVAL, 0, "LISTEN_FDS"},
    {"too many", "us", "65", {LISTENING}, 1, -EINVAL, 0, "LISTEN_FDS"},
    {"more than there are", "us", "2", {LISTENING}, 1, -EINVAL, 0, "descriptor 4"},
    {"a datagram socket", "us", "1", {DATAGRAM}, 1, -EINVAL, 0, "descriptor 3"},
    {"a socket that does not listen",
     "us",
     "2",
     {LISTENING, NOT_LISTENING},
     2,
     -EINVAL,
     0,
     "descriptor 4"},
    {"a file", "us", "1", {A_FILE}, 1, -EINVAL, 0, "descriptor 3"},
};

static void set(const char *name, const char *value)
{
    char pid[16];

    (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
    if (value)
        (void)setenv(name, strcmp(value, "us") == 0 ? pid : value, 1);
}

#define CHECK(condition)               \
    do {                               \
        if (!(condition))              \
            _exit(__LINE__ % 255 + 1); \
    } while (0)

static _Noreturn void run_row(const struct row *row)
{
    static const char *const gone[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
                                       "NOTIFY_SOCKET"};
    struct bly_systemd systemd = {0};
    struct bly_err err = {0};

    (void)close_range(3, ~0U, 0);
    for (size_t i = 0; i < row->n_passed; i++)
        CHECK(make_fd(row->passed[i]) == (int)(3 + i));
    set("LISTEN_PID", row->pid);
    set("LISTEN_FDS", row->fds);
    set("LISTEN_FDNAMES", "a:b:c");
    set("NOTIFY_SOCKET", "/run/notify");

    CHECK(bly_systemd_take(&systemd, &err) == row->result);
    CHECK(systemd.n_fds == row->n_fds);
    CHECK(!row->text || strstr(err.text, row->text));
    for (size_t i = 0; i < BLY_LEN(gone); i++)
        CHECK(!getenv(gone[i]));
    for (size_t i = 0; i < systemd.n_fds; i++) {
        CHECK(systemd.fds[i] >= 10);
        CHECK(fcntl(systemd.fds[i], F_GETFD) == FD_CLOEXEC);
        CHECK(fcntl((int)(3 + i), F_GETFD) < 0); /* free for others */
    }
    CHECK(row->result < 0 || strcmp(systemd.notify, "/run/notify") == 0);
    /* What was not meant for us is not ours to close. */
    CHECK(row->n_fds > 0 || row->n_passed == 0 || fcntl(3, F_GETFD) >= 0);
    bly_systemd_deinit(&systemd);
    _exit(0);
}

static void check_row(void **state)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0)
        run_row(*state);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0); /* else the line of a check, modulo 255 */
}

static void notify_reaches_the_socket(void **state)
{
    static const char *const names[] = {"@bailey-test-notify-", "/tmp/bailey-test-notify-"};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(names); i++) {
        bly_autofd int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        struct bly_systemd systemd = {0};
        char got[32] = "";
        size_t len;

        (void)snprintf(systemd.notify, sizeof(systemd.notify), "%s%d", names[i], (int)getpid());
        len = strlen(systemd.notify);
        memcpy(address.sun_path, systemd.notify, len);
        if (i == 0)
            address.sun_path[0] = '\0';
        assert_int_equal(bind(fd, (struct sockaddr *)&address,
                              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                         0);
        bly_systemd_notify(&systemd, "READY=1");
        assert_int_equal(recv(fd, got, sizeof(got) - 1, 0), 7);
        assert_string_equal(got, "READY=1");
        if (i == 1)
            (void)unlink(systemd.notify);
    }
}

static void nobody_to_notify_is_fine(void **state)
{
    struct bly_systemd nobody = {0}, gone = {.notify = "/no/such/socket"};

    (void)state;
    bly_systemd_notify(&nobody, "READY=1");
    bly_systemd_notify(&gone, "READY=1");
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(rows) + 2] = {cmocka_unit_test(notify_reaches_the_socket),
                                                  cmocka_unit_test(nobody_to_notify_is_fine)};

    for (size_t i = 0; i < BLY_LEN(rows); i++)
        tests[i + 2] = (struct CMUnitTest){.name = rows[i].name,
                                           .test_func = check_row,
                                           .initial_state = (void *)(uintptr_t)&rows[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
