#include "execbench/subject.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "execbench/ground.h"
#include "execbench/wire.h"
#include "support.h"

enum {
    START_US = 20 * 1000 * 1000, /* time for a server to listen */
    START_PAUSE_US = 200,
    END_TRIES = 200,
    END_PAUSE_US = 10000,
    SHOWN_MAX = 200, /* characters of an error of the server */
    LOG_MAX = 200,   /* characters of what it wrote */
    NOT_STARTED = 127,
};

/* ---- errors ---- */

int subject_wrong(struct subject *subject, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return bly_fail(&subject->err, BLY_ERR_REMOTE, EPROTO, "%s", text);
}

int subject_refused(struct subject *subject, const char *what, struct span error)
{
    size_t len = span_len(error);

    return subject_wrong(subject, "%s: %.*s", what, (int)(len < SHOWN_MAX ? len : SHOWN_MAX),
                         error.at);
}

/* ---- requests ---- */

struct bly_buf *subject_params(struct subject *subject)
{
    bench_empty(&subject->params);
    return &subject->params;
}

void subject_put(struct subject *subject, struct wire *wire, const char *method,
                 const struct bly_buf *params)
{
    struct bly_buf *request = &subject->request;

    bench_empty(request);
    (void)bly_buf_printf(request, "{\"id\":%lld,\"method\":\"%s\",\"params\":",
                         (long long)++subject->last_request, method);
    (void)bly_buf_add(request, params->data, params->len);
    if (params->error || bly_buf_add_char(request, '}') < 0)
        bench_die("out of memory");
    wire_put(wire, request->data, request->len);
}

int subject_ask(struct subject *subject, struct wire *wire, const char *method,
                const struct bly_buf *params, struct reply *ret_reply)
{
    struct reply reply = {0};
    int64_t id;
    int r;

    *ret_reply = reply;
    subject_put(subject, wire, method, params);
    reply.sent_us = bench_now_us();
    r = wire_flush(wire, &subject->err);
    while (r == 0) {
        r = wire_next(wire, &reply.message, &subject->err);
        reply.arrived_us = bench_now_us();
        if (r < 0)
            break;
        if (!span_member_number(reply.message, "id", &id) ||
            (id != subject->last_request && id != -1))
            continue;
        if (id == -1)
            return subject_refused(subject, "the server did not understand", reply.message);
        if (!span_member(reply.message, "error", &reply.error) &&
            !span_member(reply.message, "result", &reply.result))
            return subject_wrong(subject, "%s: an answer without result or error", method);
        *ret_reply = reply;
        break;
    }
    return r;
}

int subject_call(struct subject *subject, const char *method, const struct bly_buf *params,
                 struct reply *ret_reply)
{
    int r = subject_ask(subject, subject->wire, method, params, ret_reply);

    if (r == 0 && ret_reply->error.at)
        return subject_refused(subject, method, ret_reply->error);
    return r;
}

const char *subject_scheme(const struct subject *subject)
{
    return subject->dialect == 'b' ? "file://" : "";
}

static void add_permissions(struct bly_buf *params, const char *root, enum wall wall)
{
    (void)bly_buf_printf(
        params,
        "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\","
        "\"entries\":[{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"%s\"}},"
        "\"access\":\"read\"},{\"path\":{\"type\":\"path\",\"path\":\"file://%s\"},"
        "\"access\":\"write\"}]},\"network\":\"restricted\"},\"cwd\":\"file://%s\","
        "\"windowsSandboxLevel\":\"disabled\"}",
        wall == WALL_WIDE ? "root" : "minimal", root, root);
}

static void add_sandbox_policy(struct bly_buf *params, const char *root, enum wall wall)
{
    (void)bly_buf_printf(
        params,
        "{\"sandboxPolicy\":{\"type\":\"workspace-write\",\"writable_roots\":[\"%s\"],"
        "\"read_only_access\":%s,\"network_access\":false,\"exclude_tmpdir_env_var\":true,"
        "\"exclude_slash_tmp\":true},\"windowsSandboxLevel\":\"disabled\","
        "\"additionalPermissions\":null}",
        root,
        wall == WALL_WIDE ? "{\"type\":\"full-access\"}"
                          : "{\"type\":\"restricted\",\"include_platform_defaults\":false,"
                            "\"readable_roots\":[]}");
}

void subject_add_wall(const struct subject *subject, struct bly_buf *params, const char *root,
                      enum wall wall)
{
    (void)bly_buf_add_str(params, ",\"sandbox\":");
    if (wall == WALL_NONE)
        (void)bly_buf_add_str(params, "null");
    else if (subject->dialect == 'b')
        add_permissions(params, root, wall);
    else
        add_sandbox_policy(params, root, wall);
}

/* ---- its process ---- */

static void raise_fd_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void enter_group(const struct account_group *group)
{
    char path[ACCOUNT_PATH_MAX + 32];
    int fd;

    if (!group->path[0])
        return;
    (void)snprintf(path, sizeof(path), "%s/cgroup.procs", group->path);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        _exit(NOT_STARTED);
    (void)close(fd);
}

static void log_path(const struct subject *subject, char path[GROUND_PATH_MAX + 64])
{
    (void)snprintf(path, GROUND_PATH_MAX + 64, "%s/%s.log", subject->ground->dir, subject->name);
}

/* Its input is a pipe that ends behind the line it waits for. */
static bool redirect(const struct subject *subject, int go_fd)
{
    char path[GROUND_PATH_MAX + 64];
    int fd;

    log_path(subject, path);
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    return fd >= 0 && dup2(go_fd, STDIN_FILENO) >= 0 && dup2(fd, STDOUT_FILENO) >= 0 &&
           dup2(fd, STDERR_FILENO) >= 0;
}

/*
 * The child becomes a shell that waits for a line and then the server, so that a clock which starts
 * with the line sees exec and what follows, not the fork of a large program or its teardown.
 */
static _Noreturn void become_shell(const struct subject *subject, int go_fd)
{
    char script[4096];
    int len = snprintf(script, sizeof(script), "read -r go && exec %s --listen ws://127.0.0.1:%u",
                       subject->command, subject->port);

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    raise_fd_limit();
    enter_group(&subject->group);
    if (len < (int)sizeof(script) && redirect(subject, go_fd) && chdir(subject->ground->cwd) == 0)
        (void)execl("/bin/sh", "sh", "-c", script, (char *)NULL);
    _exit(NOT_STARTED);
}

int subject_park(struct subject *subject, int *ret_go_fd)
{
    bly_autofd int read_end = -EBADF;
    int ends[2];

    account_group_make(&subject->group);
    subject->port = bench_free_port();
    if (pipe2(ends, O_CLOEXEC) < 0)
        return bly_fail_sys(&subject->err, errno, "no pipe");
    read_end = ends[0];
    subject->pid = fork();
    if (subject->pid == 0)
        become_shell(subject, read_end);
    *ret_go_fd = ends[1];
    return subject->pid < 0 ? bly_fail_sys(&subject->err, errno, "cannot fork") : 0;
}

void subject_release(int go_fd)
{
    if (write(go_fd, "\n", 1) != 1)
        bench_die("the process that waits has ended");
    (void)close(go_fd);
}

/* The end of what the server has written, as one line. */
static void read_log_end(const struct subject *subject, char *text, size_t size)
{
    char path[GROUND_PATH_MAX + 64];
    bly_autofd int fd = -EBADF;
    ssize_t n = 0;

    log_path(subject, path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        off_t end = lseek(fd, 0, SEEK_END), at = end - (off_t)size + 1;

        n = pread(fd, text, size - 1, at > 0 ? at : 0);
    }
    text[n > 0 ? n : 0] = '\0';
    for (char *newline = text; (newline = strchr(newline, '\n'));)
        *newline = ' ';
}

int subject_await_listening(struct subject *subject)
{
    char log[LOG_MAX];
    double until = bench_now_us() + START_US;

    while (!wire_can_connect(subject->port)) {
        if (waitpid(subject->pid, NULL, WNOHANG) == subject->pid) {
            subject->pid = 0;
            read_log_end(subject, log, sizeof(log));
            return subject_wrong(subject, "the server ended at its start: %s", log);
        }
        if (bench_now_us() > until)
            return subject_wrong(subject, "the server does not listen");
        (void)usleep(START_PAUSE_US);
    }
    return 0;
}

int subject_session(struct subject *subject, struct wire **ret_wire)
{
    static const char initialized[] = "{\"method\":\"initialized\",\"params\":{}}";
    struct bly_buf *params = subject_params(subject);
    struct wire *wire = NULL;
    struct reply reply;
    int r = wire_open(subject->port, &wire, &subject->err);

    if (r < 0)
        return r;
    (void)bly_buf_add_str(params, "{\"clientName\":\"execbench\"}");
    r = subject_ask(subject, wire, "initialize", params, &reply);
    if (r == 0 && reply.error.at)
        r = subject_refused(subject, "initialize", reply.error);
    if (r == 0) {
        wire_put(wire, initialized, strlen(initialized));
        r = wire_flush(wire, &subject->err);
    }
    if (r < 0)
        wire_free(wire);
    else
        *ret_wire = wire;
    return r;
}

/* A server of dialect A takes a URI for a relative path. */
static int ask_dialect(struct subject *subject)
{
    struct bly_buf *params = subject_params(subject);
    struct reply reply;
    int r;

    (void)bly_buf_printf(params, "{\"path\":\"file://%s\",\"sandbox\":null}",
                         subject->ground->workspace);
    r = subject_ask(subject, subject->wire, "fs/getMetadata", params, &reply);
    if (r == 0)
        subject->dialect = reply.error.at ? 'a' : 'b';
    return r;
}

static int connect_to(struct subject *subject)
{
    int r;

    wire_free(subject->wire);
    subject->wire = NULL;
    r = subject_session(subject, &subject->wire);
    if (r == 0 && !subject->dialect)
        r = ask_dialect(subject);
    return r;
}

int subject_start(struct subject *subject)
{
    int go_fd = -EBADF;
    int r = subject_park(subject, &go_fd);

    if (r < 0)
        return r;
    subject_release(go_fd);
    subject->file_wall = subject->program_wall = TRUST_UNTRIED;
    r = subject_await_listening(subject);
    return r < 0 ? r : connect_to(subject);
}

/* Ends it politely, then its whole process group. */
static void end_process(pid_t pid)
{
    (void)kill(pid, SIGTERM);
    for (int i = 0; i < END_TRIES; i++) {
        if (waitpid(pid, NULL, WNOHANG) != 0) {
            (void)kill(-pid, SIGKILL);
            return;
        }
        (void)usleep(END_PAUSE_US);
    }
    (void)kill(-pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

void subject_stop(struct subject *subject)
{
    wire_free(subject->wire);
    subject->wire = NULL;
    if (subject->pid > 0)
        end_process(subject->pid);
    subject->pid = 0;
    account_group_remove(&subject->group);
}

int subject_revive(struct subject *subject)
{
    if (subject->pid > 0 && subject->wire && !wire_is_dead(subject->wire))
        return 0;
    if (subject->pid > 0 && connect_to(subject) == 0)
        return 0;
    subject_stop(subject);
    return subject_start(subject);
}

void subject_init(struct subject *subject, struct ground *ground, char letter, const char *name,
                  const char *command)
{
    *subject =
        (struct subject){.ground = ground, .letter = letter, .name = name, .command = command};
    bly_buf_init(&subject->params, BENCH_BUF_MAX);
    bly_buf_init(&subject->request, BENCH_BUF_MAX);
}

void subject_deinit(struct subject *subject)
{
    subject_stop(subject);
    bly_buf_deinit(&subject->params);
    bly_buf_deinit(&subject->request);
}
