#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/listen.h"
#include "cli/server_auth.h"
#include "launcher/launcher.h"
#include "proto/openrpc.h"
#include "sandbox/enforce/rung.h"
#include "server/environment.h"
#include "server/http_access.h"
#include "server/server.h"
#include "transport/pump.h"
#include "transport/systemd.h"

static const char exit_variable[] = "CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE";

struct settings {
    struct bly_cli_listens listens;
    bool any_path;
    struct bly_runtime_paths paths;
    struct bly_limits limits;
    struct bly_auth_options auth;
    unsigned allowances; /* enum bly_launcher_allowances */
    bool exit_on_stdin_close;
    bool allow_http_request;
    const char *http_header_env[BLY_HTTP_VARIABLES_MAX];
    size_t n_http_header_env;
    const char *http_ca_file;
    bool help, print_openrpc;
};

/* ---- options -------------------------------------------------------------------------------- */

static int set_listen(struct settings *settings, const char *value)
{
    return bly_cli_listen_add(&settings->listens, value);
}

static int set_any_path(struct settings *settings, const char *value)
{
    (void)value;
    settings->any_path = true;
    return 0;
}

static int set_log_level(struct settings *settings, const char *value)
{
    enum bly_log_level level;
    int r = bly_log_level_parse(value, &level);

    (void)settings;
    if (r == 0)
        bly_log_set_level(level);
    return r;
}

static int set_path(const char **path, const char *value)
{
    if (value[0] != '/')
        return -EINVAL;
    *path = value;
    return 0;
}

static int set_self_exe(struct settings *settings, const char *value)
{
    return set_path(&settings->paths.self_exe, value);
}

static int set_sandbox_exe(struct settings *settings, const char *value)
{
    return set_path(&settings->paths.linux_sandbox_exe, value);
}

static int set_exit_on_stdin_close(struct settings *settings, const char *value)
{
    (void)value;
    settings->exit_on_stdin_close = true;
    return 0;
}

static int set_ws_auth(struct settings *settings, const char *value)
{
    settings->auth.mode = value;
    return bly_auth_check_mode(value);
}

static int set_ws_token_sha256(struct settings *settings, const char *value)
{
    settings->auth.token_sha256 = value;
    return 0;
}

static int set_ws_max_clock_skew(struct settings *settings, const char *value)
{
    settings->auth.max_clock_skew = value;
    return bly_auth_check_skew(value);
}

static int set_insecure_no_auth(struct settings *settings, const char *value)
{
    (void)value;
    settings->auth.insecure = true;
    return 0;
}

static int set_allow_http_request(struct settings *settings, const char *value)
{
    (void)value;
    settings->allow_http_request = true;
    return 0;
}

static int add_http_header_env(struct settings *settings, const char *value)
{
    if (!*value || strchr(value, '=') || settings->n_http_header_env == BLY_HTTP_VARIABLES_MAX)
        return -EINVAL;
    settings->http_header_env[settings->n_http_header_env++] = value;
    return 0;
}

static int set_http_ca_file(struct settings *settings, const char *value)
{
    return set_path(&settings->http_ca_file, value);
}

static int allow_fs(struct settings *settings, const char *value)
{
    (void)value;
    settings->allowances |= BLY_ALLOW_LANDLOCK_FS;
    return 0;
}

static int allow_processes(struct settings *settings, const char *value)
{
    (void)value;
    settings->allowances |= BLY_ALLOW_LANDLOCK_PROCESSES;
    return 0;
}

static int set_help(struct settings *settings, const char *value)
{
    (void)value;
    settings->help = true;
    return 0;
}

static int set_print_openrpc(struct settings *settings, const char *value)
{
    (void)value;
    settings->print_openrpc = true;
    return 0;
}

static const struct setting {
    const char *name;
    const char *argument;                                     /* NULL: takes none */
    int (*set)(struct settings *settings, const char *value); /* NULL: see `text` */
    const char *sentence;
    size_t text; /* where in struct settings the argument goes as it is, unless it is empty */
} table[] = {
    {"listen", "URL", set_listen,
     "where to listen: ws://IP:PORT, unix:///PATH, stdio, or systemd for the sockets it passes;\n"
     "        may be repeated (ws://127.0.0.1:0, or what systemd passes)"},
    {"any-path", NULL, set_any_path,
     "take connections on every path, for proxies that route by it"},
    {"ws-auth", "MODE", set_ws_auth,
     "ask every client for a token: capability-token or signed-bearer-token"},
    {"ws-token-file", "PATH", NULL, "capability-token: the file with the token",
     offsetof(struct settings, auth.token_file)},
    {"ws-token-sha256", "HEX", set_ws_token_sha256,
     "capability-token: the token's SHA-256, instead of a file"},
    {"ws-shared-secret-file", "PATH", NULL,
     "signed-bearer-token: the file with the key of JWTs signed with HS256, 32 bytes or more",
     offsetof(struct settings, auth.shared_secret_file)},
    {"ws-issuer", "TEXT", NULL, "signed-bearer-token: what `iss` has to be",
     offsetof(struct settings, auth.issuer)},
    {"ws-audience", "TEXT", NULL, "signed-bearer-token: what `aud` has to contain",
     offsetof(struct settings, auth.audience)},
    {"ws-max-clock-skew-seconds", "N", set_ws_max_clock_skew,
     "signed-bearer-token: what clocks may differ by (30)"},
    {"insecure-no-auth", NULL, set_insecure_no_auth,
     "listen beyond this machine without asking anybody for a token"},
    {"log-level", "LEVEL", set_log_level, "error, warn, info or debug (warn)"},
    {"exit-on-stdin-close", NULL, set_exit_on_stdin_close, "end when stdin ends, as on SIGTERM"},
    {"self-exe", "PATH", set_self_exe, "this program, for the processes it starts itself"},
    {"linux-sandbox-exe", "PATH", set_sandbox_exe, "the program called bailey-linux-sandbox"},
    {"allow-http-request", NULL, set_allow_http_request,
     "serve http/request: clients reach every web server that this machine reaches"},
    {"http-header-env", "NAME", add_http_header_env,
     "headers of http/request may use this variable; programs no longer get it (repeatable)"},
    {"http-ca-file", "PATH", set_http_ca_file,
     "certificates that https servers are checked with (those of the system)"},
    {"print-openrpc", NULL, set_print_openrpc,
     "print the protocol as an OpenRPC document, and start nothing"},
    {"allow-landlock-fs", NULL, allow_fs,
     "without namespaces: serve file requests also where only the helper's own decision holds back "
     "parts of what is granted (see bailey doctor)"},
    {"allow-landlock-processes", NULL, allow_processes,
     "without namespaces: run programs that may read everything and write nothing behind Landlock "
     "alone"},
    {"help", NULL, set_help, "show this"},
};

void bly_cli_exec_server_help(FILE *out)
{
    (void)fputs("usage: bailey exec-server [OPTION...]\n\n"
                "Serves agents until SIGTERM, SIGINT or SIGHUP. Prints the URLs it listens on to\n"
                "stdout, a line each; everything else goes to stderr.\n\n",
                out);
    for (size_t i = 0; i < BLY_LEN(table); i++)
        (void)fprintf(out, "  --%s%s%s\n        %s\n", table[i].name, table[i].argument ? " " : "",
                      table[i].argument ? table[i].argument : "", table[i].sentence);
    (void)fputs("\nLimits, with their defaults:\n\n", out);
    for (size_t i = 0; i < bly_limit_count; i++)
        (void)fprintf(out, "  --%s N\n        %s: %s (%" PRIu64 "; %" PRIu64 " to %" PRIu64 ")\n",
                      bly_limit_table[i].option, bly_limit_table[i].unit,
                      bly_limit_table[i].sentence, bly_limit_table[i].def, bly_limit_table[i].min,
                      bly_limit_table[i].max);
}

/* Both tables as getopt_long(3) wants them; `val` is the row, limits after settings. */
static struct option *make_options(void)
{
    size_t n = BLY_LEN(table) + bly_limit_count;
    struct option *options = calloc(n + 1, sizeof(*options));

    if (!options)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        bool limit = i >= BLY_LEN(table);
        bool argument = limit || table[i].argument;

        options[i].name = limit ? bly_limit_table[i - BLY_LEN(table)].option : table[i].name;
        options[i].has_arg = argument ? required_argument : no_argument;
        options[i].val = (int)i;
    }
    return options;
}

static int set_limit(struct settings *settings, const struct bly_limit_info *info)
{
    int r = bly_limits_set(&settings->limits, info->option, optarg);

    if (r < 0)
        (void)fprintf(stderr,
                      "bailey: --%s wants a number from %" PRIu64 " to %" PRIu64 ", not '%s'\n",
                      info->option, info->min, info->max, optarg);
    return r;
}

/* Empty is what a variable that was forgotten leaves, and never what was meant. */
static int set_text(struct settings *settings, size_t offset, const char *value)
{
    memcpy((char *)settings + offset, &value, sizeof(value));
    return *value ? 0 : -EINVAL;
}

static int set_one(struct settings *settings, size_t row)
{
    int r;

    if (row >= BLY_LEN(table))
        return set_limit(settings, &bly_limit_table[row - BLY_LEN(table)]);
    r = table[row].set ? table[row].set(settings, optarg)
                       : set_text(settings, table[row].text, optarg);
    if (r < 0)
        (void)fprintf(stderr, "bailey: --%s: not acceptable: '%s'\n", table[row].name, optarg);
    return r;
}

static int parse(struct settings *settings, int argc, char **argv)
{
    bly_autofree struct option *options = make_options();
    int row;

    if (!options)
        return -ENOMEM;
    optind = 1;
    while ((row = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (row == '?' || set_one(settings, (size_t)row) < 0)
            return -EINVAL;
    if (optind < argc) {
        (void)fprintf(stderr, "bailey: unexpected argument: %s\n", argv[optind]);
        return -EINVAL;
    }
    if (!settings->allow_http_request && (settings->n_http_header_env || settings->http_ca_file)) {
        (void)fputs("bailey: --http-header-env and --http-ca-file need --allow-http-request\n",
                    stderr);
        return -EINVAL;
    }
    return 0;
}

/* Upstream's other way to say it, which takes exactly these two words. */
static int read_environment(struct settings *settings)
{
    const char *value = getenv(exit_variable); /* NOLINT(concurrency-mt-unsafe) */

    if (!value || strcmp(value, "false") == 0)
        return 0;
    if (strcmp(value, "true") != 0) {
        (void)fprintf(stderr, "bailey: %s wants true or false, not '%s'\n", exit_variable, value);
        return -EINVAL;
    }
    settings->exit_on_stdin_close = true;
    return 0;
}

/* ---- running -------------------------------------------------------------------------------- */

static const int end_signals[] = {SIGTERM, SIGINT, SIGHUP};

struct running {
    uv_loop_t loop;
    struct settings settings;
    struct bly_environment_facts facts;
    struct bly_auth auth;
    struct bly_http_access http;
    struct bly_features features;
    struct bly_launcher *launcher;
    struct bly_server *server;
    uv_signal_t signals[BLY_LEN(end_signals)];
    struct bly_systemd systemd;
    struct bly_pump *input; /* with --exit-on-stdin-close */
    bool draining, ending;
    int status; /* to exit with */
};

static void on_launcher_death(void *arg)
{
    (void)arg;
    /* Nothing can be started or reaped any more. Ending takes everything else along. */
    bly_log(BLY_LOG_ERROR, "launcher-died", "consequence=exit");
    exit(BLY_EXIT_FAILED); /* NOLINT(concurrency-mt-unsafe) */
}

static void on_launcher_closed(void *arg)
{
    struct running *running = arg;

    running->launcher = NULL;
    for (size_t i = 0; i < BLY_LEN(end_signals); i++)
        uv_close((uv_handle_t *)&running->signals[i], NULL);
}

static void on_server_closed(void *arg)
{
    struct running *running = arg;

    bly_launcher_close(running->launcher, on_launcher_closed, running);
}

/* What both ways to end begin with. */
static void prepare_end(struct running *running)
{
    bly_systemd_notify(&running->systemd, "STOPPING=1");
    if (running->input)
        bly_pump_close(bly_take_ptr(&running->input), 0, NULL, NULL);
}

static void begin_drain(struct running *running, const char *reason)
{
    if (running->draining || running->ending)
        return;
    running->draining = true;
    bly_log(BLY_LOG_INFO, "server-ending", "reason=\"%s\" drain=1", reason);
    prepare_end(running);
    bly_server_drain(running->server, on_server_closed, running);
}

static void begin_end(struct running *running, const char *reason)
{
    if (running->ending)
        return;
    running->ending = true;
    bly_log(BLY_LOG_INFO, "server-ending", "reason=\"%s\" drain=0", reason);
    prepare_end(running);
    bly_server_close(running->server, on_server_closed, running);
}

/* SIGTERM lets work go on for a while; any other signal, and a second one, does not. */
static void on_signal(uv_signal_t *handle, int signum)
{
    const char *reason = strsignal(signum); /* NOLINT(concurrency-mt-unsafe) */
    struct running *running = handle->data;

    if (running->ending)
        _exit(128 + signum); /* asked again: no more waiting. The launcher kills what there is. */
    if (signum == SIGTERM && !running->draining)
        begin_drain(running, reason);
    else
        begin_end(running, reason);
}

static void on_stdio_ended(void *arg, bool violation)
{
    struct running *running = arg;

    if (violation)
        running->status = BLY_EXIT_FAILED;
    begin_end(running, violation ? "protocol violation" : "stdio ended");
}

static void on_input_end(void *arg)
{
    begin_drain(arg, "stdin closed");
}

static int watch_input(struct running *running)
{
    int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

    if (fd < 0)
        return -errno;
    return bly_pump_start(&running->loop, BLY_PUMP_SINK, fd, -EBADF, on_input_end, running,
                          &running->input);
}

/* Many connections and processes; the launcher has kept the old limit for what it starts. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int watch_signals(struct running *running)
{
    for (size_t i = 0; i < BLY_LEN(end_signals); i++) {
        int r = uv_signal_init(&running->loop, &running->signals[i]);

        running->signals[i].data = running;
        if (r == 0)
            r = uv_signal_start(&running->signals[i], on_signal, end_signals[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

static int start_http(struct running *running, struct bly_server_config *config,
                      struct bly_err *err)
{
    const struct settings *settings = &running->settings;
    int r;

    if (!settings->allow_http_request)
        return 0;
    r = bly_http_access_open(&running->http, settings->http_header_env, settings->n_http_header_env,
                             settings->http_ca_file, err);
    if (r < 0)
        return r;
    config->http = &running->http.config;
    running->facts.environment.http_header_env_vars = settings->n_http_header_env > 0;
    return 0;
}

/* Which rung of the ladder serves is never a secret. */
static void log_rung(const struct bly_features *features, enum bly_rung rung)
{
    const char *reason = bly_rung_reason(features);

    bly_log(reason ? BLY_LOG_WARN : BLY_LOG_INFO, "sandbox",
            "rung=%d landlock=%u reason=\"%s\" fix=\"%s\"", (int)rung, features->landlock_abi,
            reason ? reason : "", features->fix);
    if (features->allow_fs)
        bly_log(BLY_LOG_WARN, "sandbox-allowed",
                "what=landlock-fs meaning=\"without namespaces, the helper's own decision is the "
                "only wall around protected names and denied files\"");
    if (features->allow_processes)
        bly_log(BLY_LOG_WARN, "sandbox-allowed",
                "what=landlock-processes meaning=\"without namespaces, programs that may read "
                "everything run behind Landlock alone\"");
}

static void on_learnt(void *arg, const struct bly_features *features)
{
    struct running *running = arg;
    struct bly_environment *environment = &running->facts.environment;
    enum bly_rung rung;

    running->features = *features;
    running->features.allow_fs = running->settings.allowances & BLY_ALLOW_LANDLOCK_FS;
    running->features.allow_processes = running->settings.allowances & BLY_ALLOW_LANDLOCK_PROCESSES;
    rung = bly_rung_of_machine(features);
    environment->rung = (unsigned)rung;
    environment->landlock = features->landlock_abi;
    environment->rung_reason = bly_rung_reason(&running->features);
    log_rung(&running->features, rung);
}

static int start(struct running *running, struct bly_err *err)
{
    struct bly_server_config config = {
        .loop = &running->loop,
        .limits = &running->settings.limits,
        .policy_env = &running->facts.policy_env,
        .environment = &running->facts.environment,
        .auth = &running->auth,
        .environ = environ,
        .any_path = running->settings.any_path,
        .stdio_ended = on_stdio_ended,
        .arg = running,
    };
    const struct bly_cli_listens *listens = &running->settings.listens;
    int r;

    /* First of all: the launcher inherits nothing of what follows, and there are no threads. */
    r = bly_launcher_start(&running->loop, &running->settings.paths, on_launcher_death, running,
                           &running->launcher, err);
    if (r == 0 && running->settings.allowances != 0)
        r = bly_launcher_allow(running->launcher, running->settings.allowances);
    if (r < 0)
        return r;
    (void)signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    /* What runs without a wall has our uid: it shall not read our memory or environment. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return bly_fail_sys(err, errno, "cannot become undumpable");

    /* Only now: nothing that runs without a wall can look at the secret in our memory. */
    r = bly_auth_options_load(&running->settings.auth, &running->auth, err);
    if (r == 0)
        r = bly_environment_facts_init(&running->facts, err);
    if (r < 0)
        return r;
    config.launcher = running->launcher;
    r = start_http(running, &config, err);
    if (r < 0)
        return r;
    bly_launcher_learn(running->launcher, on_learnt, running);
    r = bly_server_start(&config, listens->listens, listens->n_listens, &running->server, err);
    if (r < 0)
        return r;
    r = watch_signals(running);
    if (r == 0 && running->settings.exit_on_stdin_close && !listens->stdio)
        r = watch_input(running);
    return r < 0 ? bly_fail_sys(err, -r, "cannot watch signals or stdin") : 0;
}

/* Where we are, for whoever started us. */
static void announce(const struct running *running)
{
    for (size_t i = 0; i < running->settings.listens.n_listens; i++) {
        const char *url = bly_server_url(running->server, i);

        if (url)
            (void)printf("%s\n", url);
    }
    (void)fflush(stdout);
    bly_systemd_notify(&running->systemd, "READY=1");
}

static int serve(struct running *running)
{
    struct bly_err err;
    int r = uv_loop_init(&running->loop);

    bly_err_clear(&err);
    r = r < 0 ? bly_fail_sys(&err, -r, "cannot make an event loop") : start(running, &err);
    if (r < 0) {
        bly_cli_error(&err);
        return BLY_EXIT_FAILED; /* the launcher ends when its socket does */
    }
    announce(running);
    (void)uv_run(&running->loop, UV_RUN_DEFAULT);
    bly_server_free(running->server);
    bly_http_access_close(&running->http);
    bly_environment_facts_deinit(&running->facts);
    bly_auth_deinit(&running->auth);
    (void)uv_loop_close(&running->loop);
    return running->status;
}

/* What is opened from now on must not become standard input or output by accident. */
static void fill_standard_descriptors(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR); /* NOLINT(android-cloexec-open): it takes 0, 1 or 2 */
    while (fd >= 0 && fd <= STDERR_FILENO);
    (void)bly_close(fd);
}

/* Takes what systemd passed, before anything else is opened. Returns an exit status. */
static int prepare(struct running *running)
{
    struct bly_err err;
    int r;

    fill_standard_descriptors();
    bly_err_clear(&err);
    r = bly_systemd_take(&running->systemd, &err);
    if (r == 0) {
        r = bly_cli_listen_resolve(&running->settings.listens, &running->systemd, &err);
        bly_systemd_deinit(&running->systemd);
        if (r == -EINVAL) {
            (void)fprintf(stderr, "bailey: %s\n", err.text);
            return BLY_EXIT_USAGE;
        }
    }
    if (r < 0)
        bly_cli_error(&err);
    return r < 0 ? BLY_EXIT_FAILED : 0;
}

static int print_openrpc(void)
{
    size_t n = fwrite(bly_openrpc, 1, bly_openrpc_len, stdout);

    return n == bly_openrpc_len && fflush(stdout) == 0 ? 0 : BLY_EXIT_FAILED;
}

int bly_cli_exec_server(int argc, char **argv)
{
    static struct running running; /* the loop's handles live here */
    struct settings *settings = &running.settings;
    int status;

    settings->paths.self_exe = "/proc/self/exe";
    settings->paths.linux_sandbox_exe = "/proc/self/exe";
    bly_limits_defaults(&settings->limits);
    bly_log_set_level(BLY_LOG_WARN);
    if (read_environment(settings) < 0 || parse(settings, argc, argv) < 0) {
        (void)fputs("Try 'bailey help exec-server'.\n", stderr);
        return BLY_EXIT_USAGE;
    }
    if (settings->help) {
        bly_cli_exec_server_help(stdout);
        return 0;
    }
    if (settings->print_openrpc)
        return print_openrpc();
    status = prepare(&running);
    return status ? status : serve(&running);
}
