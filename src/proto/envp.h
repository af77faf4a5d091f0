#pragma once

/*
 * The environment of a process, from the members `envPolicy` and `env` of process/start (spec
 * 4.3.2). Pure: the server's own environment is handed in.
 */
#include <stdbool.h>
#include <stddef.h>
#include <yyjson.h>

struct bly_decoder;
struct bly_err;

enum {
    BLY_ENV_PATTERNS_MAX = 1024,  /* in each list of an envPolicy */
    BLY_ENV_VARIABLES_MAX = 4096, /* in `set`: all patterns may have to be tried on each of them */
};

enum bly_inherit { BLY_INHERIT_ALL, BLY_INHERIT_CORE, BLY_INHERIT_NONE };

/* Values are checked and borrowed from the document. */
struct bly_env_policy {
    enum bly_inherit inherit;
    bool ignore_default_excludes;
    yyjson_val *exclude, *include_only; /* arrays of strings */
    yyjson_val *set;                    /* object of strings */
};

/* Reads `envPolicy`: BLY_INHERIT_NONE and nothing else when it is absent. */
struct bly_env_policy bly_decode_env_policy(struct bly_decoder *d, const char *name);

/* A required object whose values are all strings. */
yyjson_val *bly_decode_str_map(struct bly_decoder *d, const char *name);

/*
 * Builds the environment: NULL-terminated, sorted by name, one malloc'ed block, the caller's.
 * BLY_ERR_SPAWN for a NUL byte in a name or value; -ENOMEM with `err` set.
 */
int bly_env_build(const struct bly_env_policy *policy, yyjson_val *env, char *const *server_env,
                  char ***ret_envp, struct bly_err *err);

/* Whether a name matches a pattern: '*' and '?', whole name, any letter case (ASCII). */
bool bly_env_match(const char *pattern, size_t pattern_len, const char *name, size_t name_len);
