#pragma once

/*
 * Runs one command behind a wall, in front of the caller: what `bailey sandbox` and the program
 * bailey-linux-sandbox have in common. The command gets the standard streams of this process, or,
 * where these are a terminal and that is wanted, a terminal of its own behind it. Signals are
 * passed on; the whole tree ends with the command, and with this process. Single-threaded.
 */
#include <stdbool.h>

struct bly_err;
struct bly_policy;

/* As env(1). */
enum {
    BLY_EXIT_NO_WALL = 125, /* our own failure: nothing was run */
    BLY_EXIT_NOT_RUNNABLE = 126,
    BLY_EXIT_NOT_FOUND = 127,
};

struct bly_walled {
    const struct bly_policy *policy;
    char **command; /* NULL-terminated */
    char *cwd;      /* absolute */
    bool own_terminal;
    bool allow_landlock; /* the second rung is acceptable, for policies it can enforce */
};

/* Returns the exit status of the command, 128 + n when signal n ended it; negative errno with
 * `err`: it was never run. Changes signals and descriptors of this process: call it once. */
int bly_walled_run(const struct bly_walled *walled, struct bly_err *err);

/* Says on stderr what went wrong and returns the exit status for it. */
int bly_walled_fail(const char *name, const struct bly_err *err);
