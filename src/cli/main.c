#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "cli/cli.h"
#include "fs/helper/helper.h"
#include "launcher/launcher.h"
#include "sandbox/policy/wrapper.h"

static const struct command {
    const char *name;
    const char *summary;
    int (*run)(int argc, char **argv);
    void (*help)(FILE *out);
} commands[] = {
    {"exec-server", "serve agents over WebSocket or standard input and output", bly_cli_exec_server,
     bly_cli_exec_server_help},
    {"sandbox", "run one command behind a wall", bly_cli_sandbox, bly_cli_sandbox_help},
    {"doctor", "say what this machine can enforce, and how to get the rest", bly_cli_doctor,
     bly_cli_doctor_help},
    {"fs-helper", "carry out one file operation, from stdin to stdout", bly_cli_fs_helper,
     bly_cli_fs_helper_help},
};

static int run_launcher(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return bly_launcher_main(bly_helper_main);
}

/* How this program starts itself, and how tools written for the upstream program start it. */
static const struct {
    const char *argument; /* the only one */
    int (*run)(int argc, char **argv);
} hidden[] = {
    {BLY_LAUNCHER_ARG, run_launcher},
    {"--bailey-run-as-fs-helper", bly_cli_fs_helper},
    {"--codex-run-as-fs-helper", bly_cli_fs_helper},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < BLY_LEN(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void print_help(FILE *out)
{
    (void)fputs("bailey " BLY_VERSION ": a sandboxed exec server for coding agents\n\n"
                "usage: bailey COMMAND [OPTION...]\n\n",
                out);
    for (size_t i = 0; i < BLY_LEN(commands); i++)
        (void)fprintf(out, "  %-14s %s\n", commands[i].name, commands[i].summary);
    (void)fputs("  help COMMAND   explain a command\n\n"
                "  --help         show this\n"
                "  --version      show the version\n",
                out);
}

static int unknown_command(const char *name)
{
    (void)fprintf(stderr, "bailey: no such command: %s\nTry 'bailey --help'.\n", name);
    return BLY_EXIT_USAGE;
}

static int run_help(int argc, char **argv)
{
    const struct command *command;

    if (argc < 2) {
        print_help(stdout);
        return 0;
    }
    command = find_command(argv[1]);
    if (!command)
        return unknown_command(argv[1]);
    command->help(stdout);
    return 0;
}

static bool is_one_of(const char *word, const char *a, const char *b)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0;
}

void bly_cli_error(const struct bly_err *err)
{
    if (err->kind == BLY_ERR_SYSTEM)
        (void)fprintf(stderr, "Error: %s (os error %d)\n", bly_errno_text(err->sys), err->sys);
    else
        (void)fprintf(stderr, "Error: %s\n", err->text);
}

int main(int argc, char **argv)
{
    const struct command *command;

    if (argc > 0 && bly_wrapper_recognise(argv[0]))
        return bly_cli_linux_sandbox(argc, argv);
    if (argc < 2) {
        print_help(stderr);
        return BLY_EXIT_USAGE;
    }
    for (size_t i = 0; argc == 2 && i < BLY_LEN(hidden); i++)
        if (strcmp(argv[1], hidden[i].argument) == 0)
            return hidden[i].run(1, argv + 1);

    if (is_one_of(argv[1], "--help", "-h") || strcmp(argv[1], "help") == 0)
        return run_help(argc - 1, argv + 1);
    if (is_one_of(argv[1], "--version", "-V")) {
        (void)puts("bailey " BLY_VERSION);
        return 0;
    }
    command = find_command(argv[1]);
    if (!command)
        return unknown_command(argv[1]);
    return command->run(argc - 1, argv + 1);
}
