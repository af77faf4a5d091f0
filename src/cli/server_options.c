#include "cli/server_options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "cli/cli.h"

static const char exit_variable[] = "CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE";

static int set_listen(struct bly_server_options *options, const char *value)
{
    return bly_cli_listen_add(&options->listens, value);
}

static int set_log_level(struct bly_server_options *options, const char *value)
{
    enum bly_log_level level;
    int r = bly_log_level_parse(value, &level);

    (void)options;
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

static int set_self_exe(struct bly_server_options *options, const char *value)
{
    return set_path(&options->paths.self_exe, value);
}

static int set_sandbox_exe(struct bly_server_options *options, const char *value)
{
    return set_path(&options->paths.linux_sandbox_exe, value);
}

static int set_ws_auth(struct bly_server_options *options, const char *value)
{
    options->auth.mode = value;
    return bly_auth_check_mode(value);
}

static int set_ws_token_sha256(struct bly_server_options *options, const char *value)
{
    options->auth.token_sha256 = value; /* an empty one is no digest, and gets the right words */
    return 0;
}

static int set_ws_max_clock_skew(struct bly_server_options *options, const char *value)
{
    options->auth.max_clock_skew = value;
    return bly_auth_check_skew(value);
}

static int add_http_header_env(struct bly_server_options *options, const char *value)
{
    if (!*value || strchr(value, '=') || options->n_http_header_env == BLY_HTTP_VARIABLES_MAX)
        return -EINVAL;
    options->http_header_env[options->n_http_header_env++] = value;
    return 0;
}

static int set_http_ca_file(struct bly_server_options *options, const char *value)
{
    return set_path(&options->http_ca_file, value);
}

static int set_cgroup(struct bly_server_options *options, const char *value)
{
    return set_path(&options->cgroup, value);
}

#define AT(field) NULL, offsetof(struct bly_server_options, field)

static const struct setting {
    const char *name;
    const char *argument; /* NULL: takes none */
    /* NULL: the argument goes to `offset` as it is, unless it is empty; without one, true does. */
    int (*set)(struct bly_server_options *options, const char *value);
    size_t offset;
    const char *sentence;
} table[] = {
    {"listen", "URL", set_listen, 0,
     "where to listen: ws://IP:PORT, unix:///PATH, stdio, or systemd for the sockets it passes;\n"
     "        may be repeated (ws://127.0.0.1:0, or what systemd passes)"},
    {"any-path", NULL, AT(any_path),
     "take connections on every path, for proxies that route by it"},
    {"ws-auth", "MODE", set_ws_auth, 0,
     "ask every client for a token: capability-token or signed-bearer-token"},
    {"ws-token-file", "PATH", AT(auth.token_file), "capability-token: the file with the token"},
    {"ws-token-sha256", "HEX", set_ws_token_sha256, 0,
     "capability-token: the token's SHA-256, instead of a file"},
    {"ws-shared-secret-file", "PATH", AT(auth.shared_secret_file),
     "signed-bearer-token: the file with the key of JWTs signed with HS256, 32 bytes or more"},
    {"ws-issuer", "TEXT", AT(auth.issuer), "signed-bearer-token: what `iss` has to be"},
    {"ws-audience", "TEXT", AT(auth.audience), "signed-bearer-token: what `aud` has to contain"},
    {"ws-max-clock-skew-seconds", "N", set_ws_max_clock_skew, 0,
     "signed-bearer-token: what clocks may differ by (30)"},
    {"insecure-no-auth", NULL, AT(auth.insecure),
     "listen beyond this machine without asking anybody for a token"},
    {"log-level", "LEVEL", set_log_level, 0, "error, warn, info or debug (warn)"},
    {"exit-on-stdin-close", NULL, AT(exit_on_stdin_close), "end when stdin ends, as on SIGTERM"},
    {"self-exe", "PATH", set_self_exe, 0, "this program, for the processes it starts itself"},
    {"linux-sandbox-exe", "PATH", set_sandbox_exe, 0, "the program called bailey-linux-sandbox"},
    {"allow-landlock-fs", NULL, AT(allow_landlock_fs),
     "without namespaces: serve file requests also where only the helper's own decision holds back "
     "parts of what is granted (see bailey doctor)"},
    {"allow-landlock-processes", NULL, AT(allow_landlock_processes),
     "without namespaces: run programs that may read everything and write nothing behind Landlock "
     "alone"},
    {"cgroup", "DIR", set_cgroup, 0,
     "the delegated cgroup (v2) to make one in for each walled program, instead of the server's "
     "own;\n        if it cannot be used, walled programs are refused"},
    {"allow-http-request", NULL, AT(allow_http_request),
     "serve http/request: clients reach every web server that this machine reaches"},
    {"http-header-env", "NAME", add_http_header_env, 0,
     "headers of http/request may use this variable; programs no longer get it (repeatable)"},
    {"http-ca-file", "PATH", set_http_ca_file, 0,
     "certificates that https servers are checked with (those of the system)"},
    {"print-openrpc", NULL, AT(print_openrpc),
     "print the protocol as an OpenRPC document, and start nothing"},
    {"help", NULL, AT(help), "show this"},
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

static int set_limit(struct bly_server_options *options, const struct bly_limit_info *info)
{
    int r = bly_limits_set(&options->limits, info->option, optarg);

    if (r < 0)
        (void)fprintf(stderr,
                      "bailey: --%s wants a number from %" PRIu64 " to %" PRIu64 ", not '%s'\n",
                      info->option, info->min, info->max, optarg);
    options->tasks_asked |= info->offset == offsetof(struct bly_limits, walled_tasks);
    return r;
}

/* Empty is what a variable that was forgotten leaves, and never what was meant. */
static int set_plain(struct bly_server_options *options, const struct setting *setting)
{
    static const bool yes = true;
    char *field = (char *)options + setting->offset;

    if (!setting->argument) {
        memcpy(field, &yes, sizeof(yes));
        return 0;
    }
    memcpy(field, &optarg, sizeof(optarg));
    return *optarg ? 0 : -EINVAL;
}

static int set_one(struct bly_server_options *options, size_t row)
{
    int r;

    if (row >= BLY_LEN(table))
        return set_limit(options, &bly_limit_table[row - BLY_LEN(table)]);
    r = table[row].set ? table[row].set(options, optarg) : set_plain(options, &table[row]);
    if (r < 0)
        (void)fprintf(stderr, "bailey: --%s: not acceptable: '%s'\n", table[row].name, optarg);
    return r;
}

static int parse_arguments(struct bly_server_options *options, int argc, char **argv)
{
    bly_autofree struct option *known = make_options();
    int row;

    if (!known)
        return -ENOMEM;
    optind = 1;
    while ((row = getopt_long(argc, argv, "", known, NULL)) != -1)
        if (row == '?' || set_one(options, (size_t)row) < 0)
            return -EINVAL;
    if (optind < argc) {
        (void)fprintf(stderr, "bailey: unexpected argument: %s\n", argv[optind]);
        return -EINVAL;
    }
    if (options->cgroup && options->limits.walled_tasks == 0 &&
        options->limits.walled_memory_bytes == 0) {
        (void)fputs("bailey: --cgroup has nothing to bound with --max-walled-tasks 0\n", stderr);
        return -EINVAL;
    }
    if (!options->allow_http_request && (options->n_http_header_env || options->http_ca_file)) {
        (void)fputs("bailey: --http-header-env and --http-ca-file need --allow-http-request\n",
                    stderr);
        return -EINVAL;
    }
    return 0;
}

/* Upstream's other way to say it, which takes exactly these two words. */
static int read_environment(struct bly_server_options *options)
{
    const char *value = getenv(exit_variable); /* NOLINT(concurrency-mt-unsafe) */

    if (!value || strcmp(value, "false") == 0)
        return 0;
    if (strcmp(value, "true") != 0) {
        (void)fprintf(stderr, "bailey: %s wants true or false, not '%s'\n", exit_variable, value);
        return -EINVAL;
    }
    options->exit_on_stdin_close = true;
    return 0;
}

int bly_server_options_parse(struct bly_server_options *options, int argc, char **argv)
{
    int r;

    *options = (struct bly_server_options){
        .paths = {.self_exe = "/proc/self/exe", .linux_sandbox_exe = "/proc/self/exe"},
    };
    bly_limits_defaults(&options->limits);
    bly_log_set_level(BLY_LOG_WARN);
    r = read_environment(options);
    return r < 0 ? r : parse_arguments(options, argc, argv);
}
