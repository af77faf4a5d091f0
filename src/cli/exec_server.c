#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/server_options.h"
#include "launcher/launcher.h"
#include "proto/openrpc.h"
#include "sandbox/enforce/rung.h"
#include "server/environment.h"
#include "server/http_access.h"
#include "server/server.h"
#include "transport/pump.h"
#include "transport/systemd.h"

static const int end_signals[] = {SIGTERM, SIGINT, SIGHUP};

struct running {
    uv_loop_t loop;
    struct bly_server_options options;
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
    const struct bly_server_options *options = &running->options;
    int r;

    if (!options->allow_http_request)
        return 0;
    r = bly_http_access_open(&running->http, options->http_header_env, options->n_http_header_env,
                             options->http_ca_file, err);
    if (r < 0)
        return r;
    config->http = &running->http.config;
    running->facts.environment.http_header_env_vars = options->n_http_header_env > 0;
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

/* Nor is what bounds walled programs, or that nothing does. */
static void log_bound(const struct bly_limits *limits, const struct bly_features *features)
{
    static const struct {
        enum bly_log_level level;
        const char *by;
    } said[] = {
        [BLY_BOUND_NOTHING] = {BLY_LOG_WARN, "nothing"},
        [BLY_BOUND_NAMESPACE] = {BLY_LOG_INFO, "user-namespace"},
        [BLY_BOUND_CGROUP] = {BLY_LOG_INFO, "cgroup"},
        [BLY_BOUND_REFUSED] = {BLY_LOG_ERROR, "refusal"},
    };
    bool wanted = limits->walled_tasks > 0 || limits->walled_memory_bytes > 0;

    bly_log(wanted ? said[features->bound].level : BLY_LOG_INFO, "bounds",
            "by=%s tasks=%" PRIu64 " memory=%" PRIu64 " no-cgroup=\"%s\"", said[features->bound].by,
            limits->walled_tasks, limits->walled_memory_bytes, features->why_no_cgroup);
}

static void on_learnt(void *arg, const struct bly_features *features)
{
    struct running *running = arg;
    struct bly_environment *environment = &running->facts.environment;
    enum bly_rung rung;

    running->features = *features;
    running->features.allow_fs = running->options.allow_landlock_fs;
    running->features.allow_processes = running->options.allow_landlock_processes;
    rung = bly_rung_of_machine(features);
    environment->rung = (unsigned)rung;
    environment->landlock = features->landlock_abi;
    environment->rung_reason = bly_rung_reason(&running->features);
    log_rung(&running->features, rung);
    log_bound(&running->options.limits, features);
}

/* What the operator lets run on a lower rung. */
static int allow_less(struct running *running)
{
    unsigned allowances = 0;

    if (running->options.allow_landlock_fs)
        allowances |= BLY_ALLOW_LANDLOCK_FS;
    if (running->options.allow_landlock_processes)
        allowances |= BLY_ALLOW_LANDLOCK_PROCESSES;
    return allowances == 0 ? 0 : bly_launcher_allow(running->launcher, allowances);
}

static int start_launcher(struct running *running, struct bly_err *err)
{
    const struct bly_server_options *options = &running->options;
    const struct bly_bounds bounds = {
        .tasks = options->limits.walled_tasks,
        .memory_bytes = options->limits.walled_memory_bytes,
        .tasks_asked = options->tasks_asked,
        .cgroup = options->cgroup,
    };

    return bly_launcher_start(&running->loop, &options->paths, &bounds, on_launcher_death, running,
                              &running->launcher, err);
}

static int start(struct running *running, struct bly_err *err)
{
    struct bly_server_config config = {
        .loop = &running->loop,
        .limits = &running->options.limits,
        .policy_env = &running->facts.policy_env,
        .environment = &running->facts.environment,
        .auth = &running->auth,
        .environ = environ,
        .any_path = running->options.any_path,
        .stdio_ended = on_stdio_ended,
        .arg = running,
    };
    const struct bly_cli_listens *listens = &running->options.listens;
    int r;

    /* First of all: the launcher inherits nothing of what follows, and there are no threads. */
    r = start_launcher(running, err);
    if (r == 0)
        r = allow_less(running);
    if (r < 0)
        return r;
    (void)signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    /* What runs without a wall has our uid: it shall not read our memory or environment. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return bly_fail_sys(err, errno, "cannot become undumpable");

    /* Only now: nothing that runs without a wall can look at the secret in our memory. */
    r = bly_auth_options_load(&running->options.auth, &running->auth, err);
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
    if (r == 0 && running->options.exit_on_stdin_close && !listens->stdio)
        r = watch_input(running);
    return r < 0 ? bly_fail_sys(err, -r, "cannot watch signals or stdin") : 0;
}

/* Where we are, for whoever started us. */
static void announce(const struct running *running)
{
    for (size_t i = 0; i < running->options.listens.n_listens; i++) {
        const char *url = bly_server_url(running->server, i);

        if (url)
            (void)printf("%s\n", url);
    }
    (void)fflush(stdout);
    bly_systemd_notify(&running->systemd, "READY=1");
}

/*
 * libuv 1.45 to 1.48 (Ubuntu 24.04 has the last) let io_uring take descriptors out of epoll, and
 * that comes too late for one that is closed at once: where what it stands for lives on in another
 * process, as a pipe does whose spawner still has it, its hang-up is then reported for whoever got
 * the number, and a connection ended that was alive (libuv issue 4323, mended in 1.49). This is how
 * io_uring is switched off; libuv looks once, and no program is to find it in its environment.
 */
static int init_loop(uv_loop_t *loop)
{
    static const char name[] = "UV_USE_IO_URING";
    bool affected = uv_version() >= 0x012d00 && uv_version() < 0x013100;
    bool is_ours = affected && !getenv(name); /* NOLINT(concurrency-mt-unsafe): no threads yet */
    int r;

    if (is_ours && setenv(name, "0", 1) < 0)
        return UV_ENOMEM;
    r = uv_loop_init(loop);
    if (is_ours)
        (void)unsetenv(name);
    return r;
}

static int serve(struct running *running)
{
    struct bly_err err;
    int r = init_loop(&running->loop);

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
        r = bly_cli_listen_resolve(&running->options.listens, &running->systemd, &err);
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
    int status;

    if (bly_server_options_parse(&running.options, argc, argv) < 0) {
        (void)fputs("Try 'bailey help exec-server'.\n", stderr);
        return BLY_EXIT_USAGE;
    }
    if (running.options.help) {
        bly_cli_exec_server_help(stdout);
        return 0;
    }
    if (running.options.print_openrpc)
        return print_openrpc();
    status = prepare(&running);
    return status ? status : serve(&running);
}
