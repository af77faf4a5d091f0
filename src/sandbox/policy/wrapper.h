#pragma once

/*
 * The argv of 0.121's own sandbox program (spec 2.4): the client wraps its command in
 * `.../codex-linux-sandbox OPTIONS -- COMMAND...` from a path on its own machine. Recognising it
 * lets us build the wall ourselves. Also what `bailey-linux-sandbox` (arg0 dispatch) understands.
 * Pure.
 */
#include <stdbool.h>
#include <stddef.h>

struct bly_err;
struct bly_policy;
struct bly_policy_env;

/* True when the base name of argv0 is codex-linux-sandbox or bailey-linux-sandbox. */
bool bly_wrapper_recognise(const char *argv0);

struct bly_wrapper {
    struct bly_policy *policy; /* owned: one reference */
    char *command_cwd;         /* owned; NULL when not given */
    size_t command_index;      /* argv[command_index] is the program */
};

/*
 * Parses argv (argv[0] is the wrapper). -EINVAL with BLY_ERR_PARAMS on anything it does not know or
 * cannot parse, also when there is no command: the caller must not run anything then.
 */
int bly_wrapper_parse(char *const *argv, size_t argc, const struct bly_policy_env *env,
                      struct bly_wrapper *ret_wrapper, struct bly_err *err);
void bly_wrapper_deinit(struct bly_wrapper *wrapper);
