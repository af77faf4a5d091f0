#pragma once

/*
 * The options of `bailey exec-server`: one table, and the limits of base/limits.def. Before any
 * thread exists. All strings are borrowed from argv.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/limits.h"
#include "cli/listen.h"
#include "cli/server_auth.h"
#include "launcher/launcher.h"
#include "server/http_access.h"

struct bly_server_options {
    struct bly_cli_listens listens;
    bool any_path;
    bool exit_on_stdin_close;
    struct bly_runtime_paths paths;
    struct bly_limits limits;
    struct bly_auth_options auth;
    bool allow_http_request;
    const char *http_header_env[BLY_HTTP_VARIABLES_MAX];
    size_t n_http_header_env;
    const char *http_ca_file;
    bool allow_landlock_fs, allow_landlock_processes;
    bool tasks_asked;   /* --max-walled-tasks was given */
    const char *cgroup; /* NULL: our own */
    bool help, print_openrpc;
};

/*
 * Defaults, then the environment, then `argv` (argv[0] is the command's name). Sets the log level.
 * Negative: what was given cannot be understood, and stderr says why.
 */
int bly_server_options_parse(struct bly_server_options *options, int argc, char **argv);
