#include "support/server.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"

enum {
    START_TIMEOUT_MS = 20000,
    CALL_TIMEOUT_MS = 30000,
    STOP_TIMEOUT_MS = 20000,
    MAX_PATHS = 256,
    MAX_ARGS = 40,
};

struct fixture {
    struct server server;
    char *paths[MAX_PATHS];
    size_t n_paths;
};

/* ---- disk ---- */

static void make_parents(const char *path)
{
    char copy[PATH_MAX];

    assert_true(strlen(path) < sizeof(copy));
    strcpy(copy, path);
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(copy, 0755);
        *slash = '/';
    }
}

void disk_mkdir(const char *path)
{
    make_parents(path);
    assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
}

void disk_write(const char *path, const char *text)
{
    bly_autofd int fd = -EBADF;

    make_parents(path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

void disk_symlink(const char *target, const char *path)
{
    make_parents(path);
    assert_int_equal(symlink(target, path), 0);
}

char *disk_read(const char *path)
{
    bly_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text;
    ssize_t n;

    if (fd < 0)
        return NULL;
    text = calloc(1, 65536);
    assert_non_null(text);
    n = read(fd, text, 65535);
    assert_true(n >= 0);
    return text;
}

bool disk_exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    (void)remove(path);
    return 0;
}

void disk_remove_tree(const char *path)
{
    (void)nftw(path, remove_entry, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* ---- server ---- */

const char *server_path(struct server *server, const char *fmt, ...)
{
    struct fixture *fixture = (struct fixture *)server;
    char name[PATH_MAX], *path = NULL;
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(name, sizeof(name), fmt, args);
    va_end(args);
    assert_true(asprintf(&path, "%s/%s", server->dir, name) > 0);
    assert_true(fixture->n_paths < MAX_PATHS);
    return fixture->paths[fixture->n_paths++] = path;
}

/* A Unix socket beside the working directory. */
static const char *server_url(struct server *server)
{
    struct fixture *fixture = (struct fixture *)server;
    char *url = NULL;

    assert_true(asprintf(&url, "unix://%s/socket", server->dir) > 0);
    assert_true(fixture->n_paths < MAX_PATHS);
    return fixture->paths[fixture->n_paths++] = url;
}

/* Somewhere that is not /tmp: beside the tests' build directory, or $BLY_TEST_DIR. */
static char *make_dir(void)
{
    const char *base = getenv("BLY_TEST_DIR");
    char *template = NULL, *real;

    assert_true(asprintf(&template, "%s/bailey-test-XXXXXX", base ? base : "/var/tmp") > 0);
    assert_non_null(mkdtemp(template));
    assert_int_equal(chmod(template, 0755), 0);
    real = realpath(template, NULL);
    assert_non_null(real);
    free(template);
    return real;
}

/* argv for the server; `n` words of `argv` are there already. */
static void add_arguments(const char *argv[MAX_ARGS], size_t n, const char *listen,
                          const char *const *extra_args)
{
    argv[n++] = getenv("BAILEY");
    argv[n++] = "exec-server";
    argv[n++] = "--listen";
    argv[n++] = listen;
    while (extra_args && *extra_args && n < MAX_ARGS - 1)
        argv[n++] = *extra_args++;
    argv[n] = NULL;
}

static void run_server(const struct server *server, const char *listen,
                       const char *const *extra_args, int out_fd)
{
    const char *argv[MAX_ARGS];

    add_arguments(argv, 0, listen, extra_args);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)unsetenv("TMPDIR");
    if (chdir(server->dir) < 0 || chdir("run") < 0 || dup2(out_fd, STDOUT_FILENO) < 0)
        _exit(126);
    (void)execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static void read_url(struct server *server, int fd)
{
    size_t len = 0;

    while (len < sizeof(server->url) - 1) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};

        assert_int_equal(poll(&waiting, 1, START_TIMEOUT_MS), 1);
        assert_int_equal(read(fd, server->url + len, 1), 1);
        if (server->url[len] == '\n')
            break;
        len++;
    }
    server->url[len] = '\0';
    assert_non_null(strstr(server->url, "://"));
}

static void start_listening(struct server *server, const char *listen,
                            const char *const *extra_args, struct bly_client_error *error)
{
    int pipe_fds[2];

    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0)
        run_server(server, listen, extra_args, pipe_fds[1]);
    (void)close(pipe_fds[1]);
    read_url(server, pipe_fds[0]);
    (void)close(pipe_fds[0]);
    server->client = bly_client_connect(server->url, NULL, CALL_TIMEOUT_MS, error);
}

/* The shell prepares for it what run_server() prepares otherwise. */
static void start_on_stdio(struct server *server, const char *const *extra_args,
                           struct bly_client_error *error)
{
    const char *argv[MAX_ARGS] = {"sh", "-c", "cd \"$0\" && unset TMPDIR && exec \"$@\"",
                                  server_path(server, "run")};

    add_arguments(argv, 4, "stdio", extra_args);
    server->client = bly_client_spawn(argv, CALL_TIMEOUT_MS, error);
}

struct server *server_start(const char *const *extra_args)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct server *server = &fixture->server;
    const char *transport = getenv("BLY_TEST_TRANSPORT");
    struct bly_client_error error = {0};

    assert_non_null(fixture);
    assert_non_null(getenv("BAILEY"));
    server->dir = make_dir();
    disk_mkdir(server_path(server, "run"));
    if (!transport || strcmp(transport, "ws") == 0) {
        start_listening(server, "ws://127.0.0.1:0", extra_args, &error);
    } else if (strcmp(transport, "unix") == 0) {
        start_listening(server, server_url(server), extra_args, &error);
    } else {
        assert_string_equal(transport, "stdio");
        start_on_stdio(server, extra_args, &error);
    }
    if (!server->client)
        fail_msg("cannot connect to %s: %s", server->url, error.message);
    return server;
}

static int wait_for_end(pid_t pid)
{
    int status = 0;

    for (int waited = 0; waited < STOP_TIMEOUT_MS; waited += 10) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return status;
        (void)poll(NULL, 0, 10);
    }
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, &status, 0);
    return -1;
}

void server_forget(struct server *server)
{
    struct fixture *fixture = (struct fixture *)server;

    bly_client_free(server->client);
    disk_remove_tree(server->dir);
    free(server->dir);
    for (size_t i = 0; i < fixture->n_paths; i++)
        free(fixture->paths[i]);
    free(fixture);
}

void server_stop(struct server *server)
{
    int status;

    if (!server)
        return;
    status = bly_client_end(bly_take_ptr(&server->client));
    if (server->pid > 0) {
        (void)kill(server->pid, SIGINT); /* at once: SIGTERM would wait for what still runs */
        status = wait_for_end(server->pid);
    }
    server_forget(server);
    assert_int_equal(status, 0);
}
