/*
 * Supervised creation without the rest of the wall: a child installs the reporting filter and runs
 * a shell command in a fresh directory, where `.git` and `.codex` are missing and guarded; this
 * process supervises. Every row is run twice: unsupervised, where the name must appear, and
 * supervised, where it must not.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/enforce/supervise.h"
#include "sandbox/plan/plan_internal.h"

enum { TIMEOUT_MS = 60000 };

/* ---- the child ---- */

static void send_fd(int socket, int fd)
{
    char byte = 0;
    struct iovec iov = {&byte, 1};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
    if (sendmsg(socket, &msg, 0) != 1)
        _exit(126);
}

static int receive_fd(int socket)
{
    char byte;
    struct iovec iov = {&byte, 1};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *cmsg;
    int fd;

    if (recvmsg(socket, &msg, MSG_CMSG_CLOEXEC) != 1)
        return -EBADF;
    cmsg = CMSG_FIRSTHDR(&msg);
    assert_non_null(cmsg);
    memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
    return fd;
}

static _Noreturn void child(const char *dir, const char *command, int socket, bool supervised)
{
    struct bly_err err = {0};
    int listener_fd;

    if (chdir(dir) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        _exit(126);
    if (supervised) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            bly_supervise_install(&listener_fd, &err) < 0)
            _exit(125);
        send_fd(socket, listener_fd);
        (void)close(listener_fd);
    }
    (void)execl("/bin/sh", "sh", "-c", command, NULL);
    _exit(127);
}

/* ---- the supervisor ---- */

static int serve_until_exit(const struct bly_plan *plan, int listener_fd, pid_t pid,
                            bool *ret_refused)
{
    struct bly_supervisor *supervisor = NULL;
    struct bly_err err = {0};
    int status = -1, over = 0;

    if (bly_supervisor_new(plan, &supervisor, &err) < 0)
        fail_msg("%s", err.text);
    for (int waited = 0; waited < TIMEOUT_MS; waited++) {
        struct pollfd waiting = {.fd = over ? -1 : listener_fd, .events = POLLIN};
        pid_t gone;

        (void)poll(&waiting, 1, 1);
        over = over || bly_supervisor_serve(supervisor, listener_fd) != 0;
        while ((gone = waitpid(-1, &status, WNOHANG)) > 0) {
            if (gone == pid) {
                *ret_refused = bly_supervisor_has_refused(supervisor);
                bly_supervisor_free(supervisor);
                return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            }
        }
    }
    (void)kill(pid, SIGKILL);
    fail_msg("the command did not end");
    return -1;
}

/* `*ret_refused`: the supervisor, if there is one, says that it has refused something. */
static int run(const char *dir, const char *command, bool supervised, bool *ret_refused)
{
    char git[] = ".git", codex[] = ".codex";
    char *name = strdup(dir);
    struct bly_absent absents[] = {{.dir = name, .name = git}, {.dir = name, .name = codex}};
    struct bly_plan plan = {.absents = absents, .n_absents = BLY_LEN(absents)};
    int pair[2], exit_code;
    pid_t pid;

    *ret_refused = false;
    assert_true(bly_supervise_needed(&plan));
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        child(dir, command, pair[1], supervised);
    (void)close(pair[1]);
    if (supervised) {
        bly_autofd int listener_fd = receive_fd(pair[0]);

        if (listener_fd < 0)
            fail_msg("the filter could not be installed");
        exit_code = serve_until_exit(&plan, listener_fd, pid, ret_refused);
    } else {
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        exit_code = WEXITSTATUS(status);
    }
    (void)close(pair[0]);
    free(name);
    return exit_code;
}

/* ---- names that must not appear ---- */

static const struct row {
    const char *name;
    const char *command;
} rows[] = {
    {"mkdir", "mkdir .git"},
    {"mkdir with a trailing slash", "mkdir .git/"},
    {"mkdir of a child", "mkdir -p .git/hooks"},
    {"mkdir through dot-dot", "mkdir d; mkdir d/../.git"},
    {"mkdir from below", "mkdir d; cd d; mkdir ../.git"},
    {"mkdir by absolute path", "mkdir \"$PWD/.git\""},
    {"mkdir through a link to the directory", "ln -s . here; mkdir here/.git"},
    {"mkdir through /proc/self/cwd", "mkdir /proc/self/cwd/.git"},
    {"mkdir through a descriptor", "exec 7<.; mkdir /proc/self/fd/7/.git"},
    {"open with O_CREAT", "echo x > .git"},
    {"open through a dangling link", "ln -s .git l; echo x > l"},
    {"open through a chain of links", "ln -s .git a; ln -s a b; echo x > b"},
    {"touch", "touch .codex"},
    {"symlink", "ln -s /etc .git"},
    {"hard link", "echo x > f; ln f .git"},
    {"rename of a file", "echo x > f; mv f .codex"},
    {"rename of a directory", "mkdir d; mv d .git"},
    {"rename out of a subdirectory", "mkdir -p d/.git; mv d/.git .git"},
    {"FIFO", "mkfifo .git"},
};

struct trial {
    char name[96];
    const struct row *row;
    bool supervised;
    char dir[64];
};

static int make_dir(void **state)
{
    struct trial *trial = *state;

    (void)snprintf(trial->dir, sizeof(trial->dir), "/tmp/bailey-supervise-XXXXXX");
    return mkdtemp(trial->dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    struct trial *trial = *state;
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", trial->dir);
    return system(command);
}

static bool exists(const struct trial *trial, const char *name)
{
    char path[128];
    struct stat st;

    (void)snprintf(path, sizeof(path), "%s/%s", trial->dir, name);
    return lstat(path, &st) == 0;
}

static void try_row(void **state)
{
    struct trial *trial = *state;
    bool refused;
    int exit_code = run(trial->dir, trial->row->command, trial->supervised, &refused);

    assert_int_equal(exit_code == 0, !trial->supervised);
    assert_int_equal(refused, trial->supervised);
    assert_int_equal(exists(trial, ".git") || exists(trial, ".codex"), !trial->supervised);
}

/* ---- everything else works as if nobody watched ---- */

static const struct row allowed[] = {
    {"files, directories, links and renames work",
     "set -e; mkdir -p a/b; echo x > a/f; ln a/f a/g; ln -s g a/h; mv a/g a/b/i; cat a/b/i; mkdir "
     "a/.git; touch a/.codex"},
    {"umask and mode are the caller's", "umask 027; echo x > f; mkdir d; test \"$(stat -c %a f)\" "
                                        "= 640; test \"$(stat -c %a d)\" = 750"},
    {"truncating and appending work", "set -e; echo one > f; echo two >> f; test \"$(wc -l < f)\" "
                                      "= 2; echo three > f; test \"$(wc -l < f)\" = 1"},
    {"noclobber is exclusive",
     "set -C; echo one > f; ! (echo two > f) 2>/dev/null && test \"$(cat f)\" = one"},
    {"device files open", "echo x > /dev/null && : > /dev/zero"},
    {"the caller's own descriptors open",
     "exec 5>f; echo x > /dev/fd/5; echo y > /proc/self/fd/5; test -s f"},
    {"a FIFO waits for its other end",
     "mkfifo p; (cat p > out &); echo through > p; while ! test -s out; do :; done"},
    {"errors are the kernel's",
     "mkdir d; ! mkdir d 2>e && grep -q 'exists' e && ! (echo x > d) 2>e && ! (echo x > no/f) 2>e "
     "&& grep -qi 'no such\\|nonexistent' e"},
    {"a loop of links is found", "ln -s b a; ln -s a b; ! (echo x > a) 2>/dev/null"},
    {"many processes at once", "for i in 1 2 3 4 5 6 7 8; do (for j in 1 2 3 4 5 6 7 8 9; do echo "
                               "x > f$i$j; done) & done; wait; test $(ls | wc -l) = 72"},
};

static void works_as_ever(void **state)
{
    struct trial *trial = *state;

    bool refused;

    assert_int_equal(run(trial->dir, trial->row->command, trial->supervised, &refused), 0);
    assert_false(refused);
}

/* A signal handler must not make the kernel repeat a call that was already carried out. */
static void signals_do_not_repeat_calls(void **state)
{
    struct trial *trial = *state;
    char path[128];
    FILE *script;
    bool refused;

    (void)snprintf(path, sizeof(path), "%s/storm.py", trial->dir);
    script = fopen(path, "we");
    assert_non_null(script);
    /*
     * Before the supervisor has received a call, a signal interrupts it (EINTR, nothing was done).
     * Afterwards it must not: the repeated call would find the directory already made.
     */
    assert_true(fputs("import os, signal\n"
                      "signal.signal(signal.SIGALRM, lambda *a: None)\n"
                      "signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)\n"
                      "def make(name):\n"
                      "    while True:\n"
                      "        try:\n"
                      "            return os.mkdir(name)\n"
                      "        except InterruptedError:\n"
                      "            pass\n"
                      "for i in range(500):\n"
                      "    make('m%d' % i)\n"
                      "signal.setitimer(signal.ITIMER_REAL, 0)\n",
                      script) >= 0);
    assert_int_equal(fclose(script), 0);
    assert_int_equal(run(trial->dir, "python3 storm.py", true, &refused), 0);
}

int main(void)
{
    static struct trial trials[2 * (BLY_LEN(rows) + BLY_LEN(allowed)) + 1];
    static struct CMUnitTest tests[BLY_LEN(trials)];
    size_t n = 0;

    for (int supervised = 0; supervised < 2; supervised++) {
        for (size_t i = 0; i < BLY_LEN(rows); i++, n++) {
            trials[n] = (struct trial){.row = &rows[i], .supervised = supervised};
            (void)snprintf(trials[n].name, sizeof(trials[n].name), "%s: %s", rows[i].name,
                           supervised ? "refused" : "succeeds unsupervised");
            tests[n].test_func = try_row;
        }
        for (size_t i = 0; i < BLY_LEN(allowed); i++, n++) {
            trials[n] = (struct trial){.row = &allowed[i], .supervised = supervised};
            (void)snprintf(trials[n].name, sizeof(trials[n].name), "%s: %s", allowed[i].name,
                           supervised ? "supervised" : "unsupervised");
            tests[n].test_func = works_as_ever;
        }
    }
    (void)snprintf(trials[n].name, sizeof(trials[n].name), "signals do not repeat calls");
    tests[n++].test_func = signals_do_not_repeat_calls;

    for (size_t i = 0; i < n; i++) {
        tests[i].name = trials[i].name;
        tests[i].setup_func = make_dir;
        tests[i].teardown_func = remove_dir;
        tests[i].initial_state = &trials[i];
    }
    return _cmocka_run_group_tests("supervise", tests, n, NULL, NULL);
}
