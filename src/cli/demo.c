/*
 * bailey-demo: an agent's afternoon in a minute. Builds a workspace, starts the server, does honest
 * work in it through the client library, then tries to get out. The table at the end is the
 * verdict: exit status 0 only when every line is as expected.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bailey/client.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/path.h"
#include "cli/stage.h"

enum {
    CALL_MS = 60000,
    TEXT_MAX = 1 << 20,
    ROWS_MAX = 32,
    REASON_MAX = 200,
};

struct row {
    const char *what;
    bool want_denied, denied;
    bool as_expected;
    unsigned long micros;
};

struct demo {
    struct bly_stage stage;
    struct bly_client *client;
    char *sandbox; /* JSON */
    int door_fd;   /* a listening socket that nobody may reach */
    char door_port[8];
    struct bly_buf before; /* fingerprint */
    struct row rows[ROWS_MAX];
    size_t n_rows;
};

/* For the signal handler: ending the server ends the call in progress, and the demo unwinds. */
static volatile sig_atomic_t server_pid, was_stopped;

static void on_signal(int signal)
{
    was_stopped = signal;
    if (server_pid > 0)
        kill(server_pid, SIGINT);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};

    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

static unsigned long now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long)now.tv_sec * 1000000 + (unsigned long)now.tv_nsec / 1000;
}

static void add_row(struct demo *demo, const char *what, bool want_denied, bool denied,
                    bool as_expected, unsigned long micros)
{
    if (demo->n_rows < ROWS_MAX)
        demo->rows[demo->n_rows++] = (struct row){.what = what,
                                                  .want_denied = want_denied,
                                                  .denied = denied,
                                                  .as_expected = as_expected,
                                                  .micros = micros};
}

/* The policy: read everything but the vault, write the workspace, no network. */

static void add_uri(struct bly_buf *buf, const char *path)
{
    bly_autobuf struct bly_buf uri;

    bly_buf_init(&uri, TEXT_MAX);
    bly_path_to_uri(&uri, path);
    bly_json_add_str(buf, (char *)uri.data, uri.len);
}

static int make_policy(struct demo *demo)
{
    bly_autobuf struct bly_buf buf;
    size_t len;

    bly_buf_init(&buf, TEXT_MAX);
    bly_buf_add_str(
        &buf, "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\","
              "\"entries\":["
              "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"root\"}},\"access\":\"read\"},"
              "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"project_roots\"}},"
              "\"access\":\"write\"},"
              "{\"path\":{\"type\":\"path\",\"path\":");
    add_uri(&buf, demo->stage.vault);
    bly_buf_add_str(&buf, "},\"access\":\"deny\"}]},\"network\":\"restricted\"},\"cwd\":");
    add_uri(&buf, demo->stage.project);
    bly_buf_add_str(&buf, ",\"workspaceRoots\":[");
    add_uri(&buf, demo->stage.project);
    bly_buf_add_str(&buf, "],\"windowsSandboxLevel\":\"disabled\"}");
    bly_buf_add_char(&buf, '\0');
    demo->sandbox = (char *)bly_buf_take(&buf, &len);
    return demo->sandbox ? 0 : -ENOMEM;
}

/* Running programs */

/* What a program says, shown as it comes and kept to find reasons and secrets in. */
struct output {
    struct bly_buf all;
    bool at_line_start, quiet;
};

static void on_output(void *arg, const char *stream, const uint8_t *data, size_t len)
{
    struct output *output = arg;

    (void)stream;
    bly_buf_add(&output->all, data, len);
    for (size_t i = 0; i < len && !output->quiet; i++) {
        if (output->at_line_start)
            fputs("    ", stdout);
        putchar(data[i]);
        output->at_line_start = data[i] == '\n';
    }
    fflush(stdout);
}

static int run(struct demo *demo, const char *const *argv, struct output *output,
               struct bly_client_exit *exited, struct bly_client_error *error)
{
    char home[BLY_STAGE_PATH_MAX + 8], tmp[BLY_STAGE_PATH_MAX + 16];
    /* The compiler's temporary files belong into the workspace: it may write nowhere else. */
    const char *const env[] = {"PATH=/usr/local/bin:/usr/bin:/bin",
                               "LC_ALL=C",
                               "GIT_CONFIG_GLOBAL=/dev/null",
                               "GIT_CONFIG_NOSYSTEM=1",
                               home,
                               tmp,
                               NULL};
    const struct bly_client_run what = {.argv = argv,
                                        .envp = env,
                                        .cwd = demo->stage.project,
                                        .sandbox_json = demo->sandbox,
                                        .output = on_output,
                                        .arg = output};

    snprintf(home, sizeof(home), "HOME=%s", demo->stage.project);
    snprintf(tmp, sizeof(tmp), "TMPDIR=%s/build", demo->stage.project);
    bly_buf_init(&output->all, TEXT_MAX);
    output->at_line_start = true;
    return bly_client_run(demo->client, &what, exited, error);
}

/* Honest work */

static void work(struct demo *demo, const char *what, const char *const *argv, bool want_success)
{
    struct output output = {0};
    struct bly_client_error error = {0};
    struct bly_client_exit exited = {0};
    unsigned long since = now_us();
    int r;

    printf("\n$ %s\n", what);
    r = run(demo, argv, &output, &exited, &error);
    add_row(demo, what, false, r < 0, r == 0 && (exited.exit_code == 0) == want_success,
            now_us() - since);
    if (r < 0)
        printf("    %s\n", error.message);
    bly_buf_deinit(&output.all);
}

/* Replaces the first `old` in a file through two sandboxed file requests. */
static void patch(struct demo *demo, const char *path, const char *old, const char *new)
{
    bly_autofree uint8_t *data = NULL;
    bly_autobuf struct bly_buf patched;
    struct bly_client_error error = {0};
    unsigned long since = now_us();
    size_t len = 0, before;
    const char *at;
    int r = bly_client_read_file(demo->client, path, demo->sandbox, &data, &len, &error);

    bly_buf_init(&patched, TEXT_MAX);
    at = r == 0 ? memmem(data, len, old, strlen(old)) : NULL;
    add_row(demo, "fs/readFile  src/greet.c", false, r < 0, at != NULL, now_us() - since);
    if (at) {
        before = (size_t)(at - (const char *)data);
        bly_buf_add(&patched, data, before);
        bly_buf_add_str(&patched, new);
        bly_buf_add(&patched, at + strlen(old), len - before - strlen(old));
        since = now_us();
        r = bly_client_write_file(demo->client, path, patched.data, patched.len, demo->sandbox,
                                  &error);
        add_row(demo, "fs/writeFile src/greet.c", false, r < 0, r == 0, now_us() - since);
    }
    printf("\npatching src/greet.c with fs/readFile and fs/writeFile\n    - %s\n    + %s\n", old,
           new);
    if (r < 0)
        printf("    %s\n", error.message);
}

static void do_the_work(struct demo *demo)
{
    static const char *const status[] = {"git",      "-c", "safe.directory=*", "status", "--short",
                                         "--branch", NULL};
    static const char *const make[] = {"make", NULL}, *const test[] = {"make", "test", NULL};
    char path[BLY_STAGE_PATH_MAX + 16];

    snprintf(path, sizeof(path), "%s/src/greet.c", demo->stage.project);
    work(demo, "git status", status, true);
    work(demo, "make", make, true);
    work(demo, "make test (finds a bug)", test, false);
    patch(demo, path, "\"Hello %s\"", "\"Hello, %s\"");
    work(demo, "make (again)", make, true);
    work(demo, "make test (again)", test, true);
}

/* Attempts to get out */

static bool is_refusal(const char *text)
{
    static const char *const words[] = {"not permitted", "Permission denied",
                                        "Read-only file system", "Network is unreachable",
                                        "Connection refused"};

    for (size_t i = 0; i < BLY_LEN(words); i++) {
        if (strstr(text, words[i]))
            return true;
    }
    return false;
}

static bool is_unchanged(const struct demo *demo)
{
    bly_autobuf struct bly_buf now;

    bly_buf_init(&now, TEXT_MAX);
    return bly_stage_fingerprint(&demo->stage, &now) == 0 && now.len == demo->before.len &&
           memcmp(now.data, demo->before.data, now.len) == 0;
}

static bool somebody_knocked(const struct demo *demo)
{
    bly_autofd int fd = accept4(demo->door_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    return fd >= 0;
}

/* Without the temporary directory's name, which says nothing. */
static void print_reason(const struct demo *demo, const char *reason)
{
    size_t len = strlen(demo->stage.root);
    const char *root;

    while ((root = strstr(reason, demo->stage.root))) {
        printf("%.*s", (int)(root - reason), reason);
        reason = root + len + (root[len] == '/');
    }
    puts(reason);
}

/* Judges an attempt that was answered with `reason` ("" when it was not refused). */
static void judge(struct demo *demo, const char *what, const char *reason, unsigned long micros)
{
    bool denied = is_refusal(reason);
    bool harmless = is_unchanged(demo) && !somebody_knocked(demo);

    add_row(demo, what, true, denied, denied && harmless, micros);
    printf("  %-36s ", what);
    print_reason(demo, *reason ? reason : "nobody said no");
    if (!harmless)
        puts("    and it left its mark");
}

static void try_read(struct demo *demo, const char *what, const char *path)
{
    bly_autofree uint8_t *data = NULL;
    struct bly_client_error error = {0};
    unsigned long since = now_us();
    size_t len;
    int r = bly_client_read_file(demo->client, path, demo->sandbox, &data, &len, &error);

    judge(demo, what, r < 0 ? error.message : "", now_us() - since);
}

static void try_write(struct demo *demo, const char *what, const char *path)
{
    static const char text[] = "agent was here\n";
    struct bly_client_error error = {0};
    unsigned long since = now_us();
    int r =
        bly_client_write_file(demo->client, path, text, sizeof(text) - 1, demo->sandbox, &error);

    judge(demo, what, r < 0 ? error.message : "", now_us() - since);
}

/* A failed program's last line is its reason; a secret in its output is none. */
static void find_reason(const struct output *output, const struct bly_client_exit *exited,
                        char reason[REASON_MAX])
{
    const char *text = (const char *)output->all.data;
    size_t len = output->all.len, start;

    reason[0] = '\0';
    while (len > 0 && text[len - 1] == '\n')
        len--;
    for (start = len; start > 0 && text[start - 1] != '\n';)
        start--;
    if (exited->exit_code != 0 && len > 0 &&
        !memmem(text, len, bly_stage_secret, strlen(bly_stage_secret)))
        snprintf(reason, REASON_MAX, "%.*s", (int)(len - start), text + start);
}

static void try_run(struct demo *demo, const char *what, const char *const *argv)
{
    struct output output = {.quiet = true};
    struct bly_client_error error = {0};
    struct bly_client_exit exited = {0};
    char reason[REASON_MAX];
    unsigned long since = now_us(), micros;
    int r = run(demo, argv, &output, &exited, &error);

    micros = now_us() - since;
    if (r < 0)
        snprintf(reason, sizeof(reason), "%.199s", error.message);
    else
        find_reason(&output, &exited, reason);
    judge(demo, what, reason, micros);
    bly_buf_deinit(&output.all);
}

static void make_symlink(struct demo *demo)
{
    static const char *const argv[] = {"ln", "-s", "../outside", "exit", NULL};
    struct output output = {.quiet = true};
    struct bly_client_error error = {0};
    struct bly_client_exit exited = {0};
    unsigned long since = now_us();
    int r = run(demo, argv, &output, &exited, &error);

    add_row(demo, "ln -s ../outside exit", false, r < 0, r == 0 && exited.exit_code == 0,
            now_us() - since);
    bly_buf_deinit(&output.all);
}

static void try_to_get_out(struct demo *demo)
{
    char secret[BLY_STAGE_PATH_MAX + 32], notes[BLY_STAGE_PATH_MAX + 32];
    char config[BLY_STAGE_PATH_MAX + 32], planted[BLY_STAGE_PATH_MAX + 32];
    const char *const cat[] = {"cat", secret, NULL};
    const char *const write[] = {"sh", "-c", "echo hello > \"$1\"", "sh", notes, NULL};
    const char *const hook[] = {"sh", "-c",   "echo '[core] hooksPath=x' >> \"$1\"",
                                "sh", config, NULL};
    const char *const plant[] = {"sh", "-c", "echo hello > exit/planted", NULL};
    const char *const knock[] = {"build/knock", demo->door_port, NULL};

    snprintf(secret, sizeof(secret), "%s/secret.txt", demo->stage.vault);
    snprintf(notes, sizeof(notes), "%s/notes.txt", demo->stage.outside);
    snprintf(config, sizeof(config), "%s/.git/config", demo->stage.project);
    snprintf(planted, sizeof(planted), "%s/exit/planted", demo->stage.project);

    puts("\nand now out of the yard:");
    try_read(demo, "read the secret, by file request", secret);
    try_run(demo, "read the secret, by process", cat);
    try_write(demo, "write outside, by file request", notes);
    try_run(demo, "write outside, by process", write);
    try_write(demo, "write .git/config, by file request", config);
    try_run(demo, "write .git/config, by process", hook);
    make_symlink(demo);
    try_write(demo, "through a symlink, by file request", planted);
    try_run(demo, "through a symlink, by process", plant);
    try_run(demo, "open a network connection", knock);
}

/* A real listener, so that only the wall can be what stops a connection. */
static int open_door(struct demo *demo, struct bly_err *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    demo->door_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (demo->door_fd < 0 ||
        bind(demo->door_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(demo->door_fd, 8) < 0 ||
        getsockname(demo->door_fd, (struct sockaddr *)&address, &len) < 0)
        return bly_fail_sys(err, errno, "cannot listen on 127.0.0.1");
    snprintf(demo->door_port, sizeof(demo->door_port), "%u", ntohs(address.sin_port));
    return 0;
}

static const char *verdict(bool denied)
{
    return denied ? "denied" : "allowed";
}

/* Prints the table; true when every row is as expected. */
static bool show_table(const struct demo *demo)
{
    size_t good = 0;

    printf("\n%-38s %-9s %-9s %12s\n", "operation", "expected", "was", "microseconds");
    for (size_t i = 0; i < demo->n_rows; i++) {
        const struct row *row = &demo->rows[i];

        good += row->as_expected;
        printf("%-38s %-9s %-9s %12lu%s\n", row->what, verdict(row->want_denied),
               verdict(row->denied), row->micros, row->as_expected ? "" : "   WRONG");
    }
    printf("%zu of %zu as expected%s\n", good, demo->n_rows,
           good == demo->n_rows ? "; outside the workspace nothing changed on disk" : "");
    return good == demo->n_rows;
}

static int set_up(struct demo *demo, const char *bailey, struct bly_err *err)
{
    struct bly_client_error error = {0};
    int r = bly_stage_prepare(&demo->stage, err);

    if (r == 0)
        r = open_door(demo, err);
    if (r == 0 && make_policy(demo) < 0)
        r = bly_fail_sys(err, ENOMEM, "cannot write the policy");
    if (r == 0)
        r = bly_stage_start_server(&demo->stage, bailey, err);
    server_pid = demo->stage.server;
    if (r < 0)
        return r;
    r = bly_stage_fingerprint(&demo->stage, &demo->before);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot look at the disk");

    demo->client = bly_client_connect(demo->stage.url, NULL, CALL_MS, &error);
    return demo->client ? 0 : bly_fail(err, BLY_ERR_SYSTEM, EIO, "%s", error.message);
}

static bool play(struct demo *demo, const char *bailey)
{
    struct bly_err err = {0};

    if (set_up(demo, bailey, &err) < 0) {
        fprintf(stderr, "bailey-demo: %s\n", err.text);
        return false;
    }
    if (was_stopped)
        return false;
    printf("workspace  %s (a git repository with a small C project)\n"
           "server     %s\n"
           "policy     read everything but %s, write the workspace, no network\n",
           demo->stage.project, demo->stage.url, demo->stage.vault);
    do_the_work(demo);
    if (!was_stopped)
        try_to_get_out(demo);
    return !was_stopped && show_table(demo);
}

static int usage(FILE *out, int status)
{
    fputs("usage: bailey-demo [--keep] PATH-TO-BAILEY\n"
          "  --keep   leave the temporary directory behind\n",
          out);
    return status;
}

int main(int argc, char **argv)
{
    struct demo demo = {.door_fd = -EBADF};
    bool keep = argc > 1 && strcmp(argv[1], "--keep") == 0;
    bool good;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    if (argc != (keep ? 3 : 2) || argv[argc - 1][0] == '-')
        return usage(stderr, 2);

    catch_signals();
    bly_buf_init(&demo.before, TEXT_MAX);
    good = play(&demo, argv[argc - 1]);

    server_pid = 0;
    bly_client_free(demo.client);
    bly_close(demo.door_fd);
    bly_buf_deinit(&demo.before);
    free(demo.sandbox);
    if (keep && demo.stage.root[0])
        printf("kept %s\n", demo.stage.root);
    bly_stage_end(&demo.stage, keep);
    if (was_stopped)
        return 128 + was_stopped;
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
