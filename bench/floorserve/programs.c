#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "floorserve/floor.h"
#include "floorserve/yard.h"
#include "support.h"

enum {
    ARGV_MAX = 64,
    PACKED_MAX = 2900,
    PIPE_BYTES = 256 << 10,
    KEPT_MAX = 64 << 10, /* output that process/read can still get */
    KEPT_PIECE = 4096,   /* larger pieces are those of a stream, which nobody reads later */
    TEXT_BYTES = 256,
    LINE_BYTES = 8192, /* one process/write */
};

struct program {
    struct source output; /* a pipe or a terminal; first, for floor_free_later() */
    struct source exit;   /* a pidfd, when it is our child */
    struct conn *conn;
    struct program *next;
    struct yard *yard; /* whose child it is; NULL: ours */
    char id[48];
    int pid, status;
    int in_fd; /* to write its input to; the terminal's is output.fd */
    long seq;
    bool has_terminal, has_exited, has_closed;
    struct bly_buf kept;
    long reader; /* the id of a process/read that waits; 0: none */
};

/* ---- starting ---- */

int floor_spawn(char *packed, int in_fd, int out_fd, const char *terminal)
{
    static char path[] = "PATH=/usr/bin:/bin";
    char *argv[ARGV_MAX + 1] = {NULL}, *env[] = {path, NULL};
    char *at = packed + strlen(packed) + 1;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;
    pid_t pid;
    int r;

    for (size_t n = 0; *at && n < ARGV_MAX; at += strlen(at) + 1)
        argv[n++] = at;
    (void)sigemptyset(&none);
    (void)posix_spawnattr_init(&attr);
    (void)posix_spawnattr_setsigmask(&attr, &none);
    (void)posix_spawnattr_setflags(
        &attr, (short)(POSIX_SPAWN_SETSIGMASK | (terminal ? POSIX_SPAWN_SETSID : 0)));
    (void)posix_spawn_file_actions_init(&actions);
    /* The first terminal that the leader of a session opens is that of the session. */
    if (terminal)
        (void)posix_spawn_file_actions_addopen(&actions, 0, terminal, O_RDWR, 0);
    else
        (void)posix_spawn_file_actions_adddup2(&actions, in_fd, 0);
    (void)posix_spawn_file_actions_adddup2(&actions, terminal ? 0 : out_fd, 1);
    (void)posix_spawn_file_actions_adddup2(&actions, terminal ? 0 : out_fd, 2);
    (void)posix_spawn_file_actions_addchdir_np(&actions, packed);
    r = posix_spawn(&pid, argv[0], &actions, &attr, argv, env);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)posix_spawnattr_destroy(&attr);
    return r != 0 ? -r : pid;
}

/* The directory and the arguments as floor_spawn() wants them; their length, 0: too long. */
static size_t pack(struct span message, char packed[PACKED_MAX])
{
    static const char key[] = "\"argv\":[";
    const char *at = memmem(message.at, span_len(message), key, strlen(key));
    char cwd[FLOOR_PATH_MAX];
    size_t n;

    if (!at || !request_path(message, "\"cwd\":\"", cwd))
        return 0;
    n = (size_t)snprintf(packed, PACKED_MAX, "%s", cwd) + 1;
    for (at += strlen(key); *at != ']' && n + 2 < PACKED_MAX; at++) {
        if (*at != '"')
            continue;
        for (at++; *at != '"' && n + 2 < PACKED_MAX; at++) {
            at += *at == '\\';
            packed[n++] = *at;
        }
        packed[n++] = '\0';
    }
    packed[n++] = '\0';
    return *at == ']' ? n : 0;
}

static void on_output(struct source *source);
static void on_ended(struct source *source);

static int start_on_terminal(struct program *program, char *packed)
{
    char path[64];
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (fd < 0 || unlockpt(fd) < 0 || ptsname_r(fd, path, sizeof(path)) != 0)
        bench_die("no terminal: %s", strerrordesc_np(errno));
    program->pid = floor_spawn(packed, -EBADF, -EBADF, path);
    floor_watch(&program->output, fd, on_output);
    return program->pid;
}

static int start_on_pipes(struct program *program, char *packed, size_t len, bool has_stdin)
{
    int in[2] = {-EBADF, -EBADF}, out[2];

    if (pipe2(out, O_CLOEXEC) < 0 || (has_stdin && pipe2(in, O_CLOEXEC) < 0))
        bench_die("no pipe: %s", strerrordesc_np(errno));
    if (!has_stdin)
        in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)fcntl(out[1], F_SETPIPE_SZ, PIPE_BYTES);
    program->pid = program->yard ? yard_spawn(program->yard, packed, len, in[0], out[1])
                                 : floor_spawn(packed, in[0], out[1], NULL);
    program->in_fd = in[1];
    (void)bly_close(in[0]);
    (void)bly_close(out[1]);
    floor_watch(&program->output, out[0], on_output);
    return program->pid;
}

static void drop(struct program *program)
{
    floor_unwatch(&program->output);
    floor_unwatch(&program->exit);
    (void)bly_close(program->in_fd);
    bly_buf_deinit(&program->kept);
    floor_free_later(&program->output);
}

void program_start(struct conn *conn, struct span message)
{
    struct program *program = bench_alloc(1, sizeof(*program));
    char packed[PACKED_MAX];
    size_t len = pack(message, packed);
    struct span id;
    int pid = -EINVAL;

    program->conn = conn;
    program->in_fd = program->output.fd = program->exit.fd = -EBADF;
    program->has_terminal = request_has(message, "\"tty\":true");
    program->yard = request_yard(message);
    bly_buf_init(&program->kept, KEPT_MAX);
    if (len > 0 && request_find(message, "\"processId\":\"", &id)) {
        (void)snprintf(program->id, sizeof(program->id), "%.*s", (int)span_len(id), id.at);
        pid = program->has_terminal ? start_on_terminal(program, packed)
                                    : start_on_pipes(program, packed, len,
                                                     request_has(message, "\"pipeStdin\":true"));
    }
    if (pid < 0) {
        conn_fail(conn, request_id(message), -pid);
        drop(program);
        return;
    }
    if (!program->yard)
        floor_watch(&program->exit, pidfd_open(pid, 0), on_ended);
    program->next = conn->programs;
    conn->programs = program;
    conn_answer(conn, "{\"id\":%ld,\"result\":{\"processId\":\"%s\",\"sandboxType\":\"%s\"}}",
                request_id(message), program->id, program->yard ? "linuxSeccomp" : "none");
}

/* ---- what it does ---- */

static void answer_reader(struct program *program)
{
    static const char tail[] = "\"}";
    struct bly_buf answer;
    size_t len = program->kept.len;
    int status = program->status;

    bly_buf_init(&answer, BENCH_BUF_MAX);
    (void)bly_buf_printf(&answer, "{\"id\":%ld,\"result\":{\"chunks\":[", program->reader);
    if (len > 0) {
        (void)bly_buf_add_str(&answer, "{\"seq\":1,\"stream\":\"stdout\",\"chunk\":\"");
        if (bly_buf_reserve(&answer, bly_base64_len(len)) < 0)
            bench_die("out of memory");
        bly_base64_encode(program->kept.data, len, (char *)answer.data + answer.len);
        answer.len += bly_base64_len(len);
        (void)bly_buf_add_str(&answer, tail);
    }
    (void)bly_buf_printf(&answer,
                         "],\"nextSeq\":%ld,\"exited\":%s,\"exitCode\":%d,\"closed\":%s,"
                         "\"failure\":null}}",
                         program->seq + 1, program->has_exited ? "true" : "false",
                         WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
                         program->has_closed ? "true" : "false");
    conn_add_head(program->conn, answer.len);
    (void)bly_buf_add(&program->conn->out, answer.data, answer.len);
    bly_buf_deinit(&answer);
    program->kept.len = 0;
    program->reader = 0;
}

/* Tells the end once the program has exited and its output is over. */
static void finish(struct program *program)
{
    int status = program->status;

    if (!program->has_exited || program->output.fd >= 0 || program->has_closed)
        return;
    conn_answer(program->conn,
                "{\"method\":\"process/exited\",\"params\":{\"processId\":\"%s\",\"seq\":%ld,"
                "\"exitCode\":%d}}",
                program->id, program->seq + 1,
                WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    conn_answer(program->conn,
                "{\"method\":\"process/closed\",\"params\":{\"processId\":\"%s\",\"seq\":%ld}}",
                program->id, program->seq + 2);
    program->seq += 2;
    program->has_closed = true;
    program->in_fd = bly_close(program->in_fd);
    if (program->reader)
        answer_reader(program);
    conn_flush(program->conn);
}

static void tell_output(struct program *program, const uint8_t *data, size_t len)
{
    static const char tail[] = "\"}}";
    struct bly_buf *out = &program->conn->out;
    char head[TEXT_BYTES];

    (void)snprintf(head, sizeof(head),
                   "{\"method\":\"process/output\",\"params\":{\"processId\":\"%s\",\"seq\":%ld,"
                   "\"stream\":\"%s\",\"chunk\":\"",
                   program->id, ++program->seq, program->has_terminal ? "pty" : "stdout");
    conn_add_head(program->conn, strlen(head) + bly_base64_len(len) + strlen(tail));
    (void)bly_buf_add_str(out, head);
    if (bly_buf_reserve(out, bly_base64_len(len)) < 0)
        bench_die("out of memory");
    bly_base64_encode(data, len, (char *)out->data + out->len);
    out->len += bly_base64_len(len);
    (void)bly_buf_add_str(out, tail);
}

static void on_output(struct source *source)
{
    static uint8_t piece[FLOOR_PIECE];
    struct program *program = (struct program *)source;
    ssize_t n = read(source->fd, piece, sizeof(piece));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) { /* EIO: the terminal has no other side any more */
        floor_unwatch(source);
        finish(program);
        return;
    }
    tell_output(program, piece, (size_t)n);
    if (n < KEPT_PIECE && bly_buf_add(&program->kept, piece, (size_t)n) == 0 && program->reader)
        answer_reader(program);
    conn_flush(program->conn);
}

static void on_ended(struct source *source)
{
    struct program *program =
        (struct program *)(void *)((char *)source - offsetof(struct program, exit));

    if (waitpid(program->pid, &program->status, WNOHANG) != program->pid)
        return;
    floor_unwatch(source);
    program->has_exited = true;
    finish(program);
}

void program_exited(struct yard *yard, int pid, int status)
{
    struct conn *conn = NULL;

    while ((conn = conn_next(conn))) {
        for (struct program *program = conn->programs; program; program = program->next) {
            if (program->yard != yard || program->pid != pid || program->has_exited)
                continue;
            program->status = status;
            program->has_exited = true;
            finish(program);
            return;
        }
    }
}

/* ---- requests about one ---- */

static struct program *find(struct conn *conn, struct span message)
{
    struct span id;

    if (!request_find(message, "\"processId\":\"", &id))
        return NULL;
    for (struct program *program = conn->programs; program; program = program->next) {
        if (span_is(id, program->id))
            return program;
    }
    return NULL;
}

void program_write(struct conn *conn, struct span message)
{
    struct program *program = find(conn, message);
    uint8_t line[LINE_BYTES];
    struct span text;
    size_t n = 0;
    int fd;

    if (!program || !request_find(message, "\"chunk\":\"", &text) ||
        span_len(text) > sizeof(line) ||
        bly_base64_decode(text.at, span_len(text), line, &n, NULL) < 0) {
        conn_fail(conn, request_id(message), EINVAL);
        return;
    }
    fd = program->has_terminal ? program->output.fd : program->in_fd;
    if (write(fd, line, n) != (ssize_t)n)
        conn_fail(conn, request_id(message), EPIPE);
    else
        conn_answer(conn, "{\"id\":%ld,\"result\":{\"status\":\"accepted\"}}", request_id(message));
}

void program_read(struct conn *conn, struct span message)
{
    struct program *program = find(conn, message);

    if (!program) {
        conn_fail(conn, request_id(message), ESRCH);
        return;
    }
    program->reader = request_id(message);
    if (program->kept.len > 0 || program->has_closed)
        answer_reader(program);
}

static void end_program(struct program *program)
{
    /* A pid of a yard means nothing here; what lives in one ends with it. */
    if (!program->has_exited && !program->yard)
        (void)kill(program->pid, SIGKILL);
}

void program_terminate(struct conn *conn, struct span message)
{
    struct program *program = find(conn, message);
    bool is_running = program && !program->has_exited;

    if (is_running)
        end_program(program);
    conn_answer(conn, "{\"id\":%ld,\"result\":{\"running\":%s}}", request_id(message),
                is_running ? "true" : "false");
}

void programs_free(struct conn *conn)
{
    struct program *program = conn->programs;

    while (program) {
        struct program *next = program->next;

        end_program(program);
        if (!program->has_exited && !program->yard)
            (void)waitpid(program->pid, NULL, 0);
        drop(program);
        program = next;
    }
    conn->programs = NULL;
}
