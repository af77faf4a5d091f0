#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "launcher/launcher.h"
#include "unit/launcher/fixture.h"

/* A child without a process object around it. */
struct started {
    struct bly_child *child;
    bool answered, failed, exited;
    struct bly_err err;
    pid_t pid;
    int fds[3];
    int status;
};

static void on_started(void *arg, pid_t pid, int in_fd, int out_fd, int err_fd,
                       const struct bly_err *err)
{
    struct started *started = arg;

    assert_false(started->answered);
    started->answered = true;
    started->failed = err != NULL;
    if (err != NULL)
        started->err = *err;
    started->pid = pid;
    started->fds[0] = in_fd;
    started->fds[1] = out_fd;
    started->fds[2] = err_fd;
}

static void on_exited(void *arg, int status)
{
    struct started *started = arg;

    assert_true(started->answered);
    assert_false(started->exited);
    started->exited = true;
    started->status = status;
}

static const struct bly_child_ops ops = {.started = on_started, .exited = on_exited};

static const char *const envp[] = {"PATH=/usr/bin:/bin", NULL};

static int start_script(struct fixture *fixture, const char *script, struct started *started)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    const struct bly_spawn spawn = {.argv = argv, .envp = envp, .cwd = "/"};

    *started = (struct started){.fds = {-EBADF, -EBADF, -EBADF}};
    return bly_spawner_start(fixture->spawner, &spawn, &ops, started, &started->child,
                             &started->err);
}

static void deinit(struct started *started)
{
    for (int i = 0; i < 3; i++)
        started->fds[i] = bly_close(started->fds[i]);
}

/* Waits until the child has written a line, and returns the number in it. */
static int read_number(const struct started *started)
{
    struct pollfd out = {.fd = started->fds[1], .events = POLLIN};
    char text[64] = "";

    assert_int_equal(poll(&out, 1, 20000), 1);
    assert_true(read(started->fds[1], text, sizeof(text) - 1) > 0);
    return (int)strtol(text, NULL, 10);
}

static void wait_gone(int pid)
{
    for (int i = 0; i < 2000 && pid_exists(pid); i++)
        (void)poll(NULL, 0, 5);
    assert_false(pid_exists(pid));
}

static int parent_of(int pid)
{
    char path[64];
    char text[512] = "";
    bly_autofd int fd = -EBADF;
    const char *at;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    at = strrchr(text, ')');
    return (int)strtol(at + 4, NULL, 10);
}

static void descriptors_do_not_block_and_are_close_on_exec(void **state)
{
    struct fixture *fixture = *state;
    struct started s;

    assert_int_equal(start_script(fixture, "exit 3", &s), 0);
    fixture_wait(fixture, &s.exited);
    assert_true(WIFEXITED(s.status) && WEXITSTATUS(s.status) == 3);
    assert_int_equal(s.fds[0], -EBADF);
    for (int i = 1; i < 3; i++) {
        assert_true(fcntl(s.fds[i], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(s.fds[i], F_GETFD) & FD_CLOEXEC);
    }
    deinit(&s);
}

static void the_status_is_raw(void **state)
{
    struct fixture *fixture = *state;
    struct started s;

    assert_int_equal(start_script(fixture, "kill -USR2 $$", &s), 0);
    fixture_wait(fixture, &s.exited);
    assert_true(WIFSIGNALED(s.status) && WTERMSIG(s.status) == SIGUSR2);
    deinit(&s);
}

static void closing_a_spawner_ends_daemons(void **state)
{
    struct fixture *fixture = *state;
    struct started s;
    int daemon;

    /* Double fork, session of its own, parent gone, signals ignored. */
    assert_int_equal(
        start_script(fixture,
                     "(trap '' HUP TERM INT; setsid sh -c 'echo $$; exec sleep 300' &) ; "
                     "sleep 300",
                     &s),
        0);
    fixture_wait(fixture, &s.answered);
    daemon = read_number(&s);
    assert_true(pid_exists(daemon));
    fixture_close_spawner(fixture);
    assert_true(s.exited);
    assert_true(WIFSIGNALED(s.status) && WTERMSIG(s.status) == SIGKILL);
    assert_false(pid_exists(daemon));
    deinit(&s);
}

static void closing_at_once_answers_everything(void **state)
{
    struct fixture *fixture = *state;
    struct started s[10];

    for (int i = 0; i < 10; i++)
        assert_int_equal(start_script(fixture, "sleep 300", &s[i]), 0);
    fixture_close_spawner(fixture);
    for (int i = 0; i < 10; i++) {
        assert_true(s[i].failed || s[i].exited);
        deinit(&s[i]);
    }
}

static void a_killed_spawner_loses_its_children_but_not_the_session(void **state)
{
    struct fixture *fixture = *state;
    struct started s, next;
    int daemon, child;

    assert_int_equal(
        start_script(fixture, "setsid sh -c 'echo $$; exec sleep 300' & sleep 300", &s), 0);
    fixture_wait(fixture, &s.answered);
    daemon = read_number(&s);
    child = s.pid;
    assert_int_equal(kill(parent_of(child), SIGKILL), 0);
    fixture_wait(fixture, &s.exited);
    assert_true(WIFSIGNALED(s.status) && WTERMSIG(s.status) == SIGKILL);
    wait_gone(child);
    wait_gone(daemon); /* The launcher adopted it. */
    deinit(&s);

    assert_int_equal(start_script(fixture, "exit 0", &next), 0);
    fixture_wait(fixture, &next.exited);
    assert_int_equal(next.status, 0);
    assert_false(fixture->launcher_died);
    deinit(&next);
}

static void a_stopped_spawner_does_not_hold_up_the_end(void **state)
{
    struct fixture *fixture = *state;
    struct started s;

    assert_int_equal(start_script(fixture, "sleep 300", &s), 0);
    fixture_wait(fixture, &s.answered);
    assert_int_equal(kill(parent_of(s.pid), SIGSTOP), 0);
    fixture_close_spawner(fixture);
    assert_true(s.exited);
    wait_gone(s.pid);
    deinit(&s);
}

static void a_dead_launcher_is_reported_once_and_takes_all_with_it(void **state)
{
    struct fixture *fixture = *state;
    struct started s, next;
    int daemon;

    assert_int_equal(
        start_script(fixture, "setsid sh -c 'echo $$; exec sleep 300' & sleep 300", &s), 0);
    fixture_wait(fixture, &s.answered);
    daemon = read_number(&s);
    assert_int_equal(kill(parent_of(parent_of(s.pid)), SIGKILL), 0);
    fixture_wait(fixture, &fixture->launcher_died);
    fixture_wait(fixture, &s.exited);
    wait_gone(s.pid);
    wait_gone(daemon);
    deinit(&s);

    /* Refused at once, or by the spawner's end when that has not been noticed yet. */
    if (start_script(fixture, "exit 0", &next) == 0) {
        fixture_wait(fixture, &next.answered);
        assert_true(next.failed);
    }
    assert_int_equal(next.err.kind, BLY_ERR_SPAWN);
}

static int highest_open_fd(void)
{
    int fd = 1023;

    while (fd > 0 && fcntl(fd, F_GETFD) < 0)
        fd--;
    return fd;
}

static void lost_descriptors_fail_the_start(void **state)
{
    struct fixture *fixture = *state;
    struct rlimit before, tight;
    struct started s, next;
    int hoard[1024];
    size_t n = 0;

    assert_int_equal(start_script(fixture, "exit 0", &s), 0); /* so that the spawner is there */
    fixture_wait(fixture, &s.exited);
    deinit(&s);
    assert_int_equal(start_script(fixture, "sleep 300", &s), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = before;
    tight.rlim_cur = 1 + (rlim_t)highest_open_fd();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    while (n < BLY_LEN(hoard) && (hoard[n] = dup(STDIN_FILENO)) >= 0) /* the gaps below it */
        n++;
    fixture_wait(fixture, &s.answered);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    while (n > 0)
        (void)bly_close(hoard[--n]);
    assert_true(s.failed);
    assert_int_equal(s.err.sys, EMFILE);

    assert_int_equal(start_script(fixture, "exit 0", &next), 0);
    fixture_wait(fixture, &next.exited);
    deinit(&next);
}

static void helpers_are_refused_without_a_plan(void **state)
{
    struct fixture *fixture = *state;
    struct started s = {.fds = {-EBADF, -EBADF, -EBADF}};

    /* A malformed request ends the spawner, and everything is answered. */
    assert_int_equal(bly_spawner_helper(fixture->spawner, NULL, &ops, &s, &s.child, &s.err), 0);
    fixture_wait(fixture, &s.answered);
    assert_true(s.failed);
}

static bool pids_gone(const int *pids)
{
    return !pid_exists(pids[0]) && !pid_exists(pids[1]) && !pid_exists(pids[2]) &&
           !pid_exists(pids[3]);
}

/* A server that starts something and is killed: in a process of its own. */
static _Noreturn void doomed_server(int report_fd)
{
    struct fixture *fixture;
    struct started s;
    int pids[4];

    if (fixture_setup((void **)&fixture) < 0 ||
        start_script(fixture, "setsid sh -c 'echo $$; exec sleep 300' & sleep 300", &s) < 0)
        _exit(1);
    fixture_wait(fixture, &s.answered);
    pids[0] = s.pid;
    pids[1] = read_number(&s);
    pids[2] = parent_of(s.pid);
    pids[3] = parent_of(pids[2]);
    if (write(report_fd, pids, sizeof(pids)) != sizeof(pids))
        _exit(1);
    for (;;)
        (void)pause();
}

static void nothing_survives_sigkill_of_the_server(void **state)
{
    int pipes[2];
    int pids[4];
    pid_t server;

    (void)state;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    server = fork();
    if (server == 0)
        doomed_server(pipes[1]);
    assert_int_equal(read(pipes[0], pids, sizeof(pids)), sizeof(pids));
    assert_false(pids_gone(pids));
    assert_int_equal(kill(server, SIGKILL), 0);
    assert_int_equal(waitpid(server, NULL, 0), server);
    for (int i = 0; i < 2000 && !pids_gone(pids); i++)
        (void)poll(NULL, 0, 5);
    assert_true(pids_gone(pids));
    bly_close(pipes[0]);
    bly_close(pipes[1]);
}

static void no_descriptor_is_leaked(void **state)
{
    struct fixture *fixture = *state;
    struct started s;
    size_t before = 0;

    for (int i = 0; i < 30; i++) {
        static const char *const scripts[] = {"exit 0", "kill -9 $$", "echo x"};

        assert_int_equal(start_script(fixture, scripts[i % 3], &s), 0);
        fixture_wait(fixture, &s.exited);
        deinit(&s);
        if (i == 3)
            before = count_open_fds();
    }
    assert_int_equal(count_open_fds(), before);
}

static void the_launcher_cannot_be_looked_into(void **state)
{
    struct fixture *fixture = *state;
    struct started s;
    char path[64], text[256] = "";
    int spawner;
    bly_autofd int fd = -EBADF;

    assert_int_equal(start_script(fixture, "sleep 300", &s), 0);
    fixture_wait(fixture, &s.answered);
    spawner = parent_of(s.pid);
    (void)snprintf(path, sizeof(path), "/proc/%d/cmdline", spawner);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    assert_string_equal(text, "bailey");
    assert_string_equal(text + strlen(text) + 1, BLY_LAUNCHER_ARG);
    bly_close(fd);
    (void)snprintf(path, sizeof(path), "/proc/%d/environ", spawner);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    /* Not dumpable: root may open it, nobody else; and there is nothing in it. */
    assert_true(fd < 0 || read(fd, text, sizeof(text)) <= 0);
    assert_int_equal(kill(s.pid, SIGKILL), 0);
    fixture_wait(fixture, &s.exited);
    deinit(&s);
}

static int no_helper(int socket_fd, const struct bly_policy *policy,
                     const struct bly_policy *folded)
{
    (void)socket_fd;
    (void)policy;
    (void)folded;
    return 1;
}

#define SPAWNER_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        SPAWNER_TEST(descriptors_do_not_block_and_are_close_on_exec),
        SPAWNER_TEST(the_status_is_raw),
        SPAWNER_TEST(closing_a_spawner_ends_daemons),
        SPAWNER_TEST(closing_at_once_answers_everything),
        SPAWNER_TEST(a_killed_spawner_loses_its_children_but_not_the_session),
        SPAWNER_TEST(a_stopped_spawner_does_not_hold_up_the_end),
        SPAWNER_TEST(a_dead_launcher_is_reported_once_and_takes_all_with_it),
        SPAWNER_TEST(lost_descriptors_fail_the_start),
        SPAWNER_TEST(helpers_are_refused_without_a_plan),
        cmocka_unit_test(nothing_survives_sigkill_of_the_server),
        SPAWNER_TEST(no_descriptor_is_leaked),
        SPAWNER_TEST(the_launcher_cannot_be_looked_into),
    };

    fixture_main(argc, argv, no_helper);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
