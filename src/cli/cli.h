#pragma once

/*
 * The command line: one function a command. Each gets its own argv (argv[0] is the command's name)
 * and returns the exit status.
 */
#include <stdio.h>

enum {
    BLY_EXIT_FAILED = 1, /* could not do it */
    BLY_EXIT_USAGE = 2,  /* could not understand it */
};

struct bly_err;

int bly_cli_exec_server(int argc, char **argv);
void bly_cli_exec_server_help(FILE *out);

/* One file operation from stdin to stdout (spec 5). */
int bly_cli_fs_helper(int argc, char **argv);
void bly_cli_fs_helper_help(FILE *out);

/* One command behind a wall. */
int bly_cli_sandbox(int argc, char **argv);
void bly_cli_sandbox_help(FILE *out);

/* What this machine can enforce. */
int bly_cli_doctor(int argc, char **argv);
void bly_cli_doctor_help(FILE *out);

/* The whole program under the name bailey-linux-sandbox: argv[0] is that name. */
int bly_cli_linux_sandbox(int argc, char **argv);

/* "Error: TEXT" on stderr, with the protocol's words when the kernel said no. */
void bly_cli_error(const struct bly_err *err);
