#pragma once

/*
 * The two policy languages, decoded into a builder. Private to sandbox/policy; `err` is never NULL
 * here.
 */
#include <stdbool.h>
#include <stddef.h>
#include <yyjson.h>

struct bly_err;
struct bly_policy_builder;
struct bly_policy_env;

/* What the entries of a profile refer to. Borrowed. */
struct bly_profile_scope {
    const struct bly_policy_env *env;
    const char *cwd; /* base of relative patterns; NULL: not given */
    char *const *workspace_roots;
    size_t n_workspace_roots;
};

/* The list of entries of a restricted profile. */
int bly_profile_entries(yyjson_val *entries, const struct bly_profile_scope *scope,
                        struct bly_policy_builder *builder, struct bly_err *err);

/* A whole context of form B, whose `permissions` member exists. */
int bly_profile_context(yyjson_val *context, const struct bly_policy_env *env,
                        struct bly_policy_builder *builder, struct bly_err *err);

/* A legacy policy object. `env->cwd` is the workspace. Finish with write_wins. */
int bly_legacy_policy(yyjson_val *policy, const struct bly_policy_env *env,
                      struct bly_policy_builder *builder, struct bly_err *err);

/* A whole context of form A, whose `sandboxPolicy` member exists. Finish with write_wins. */
int bly_legacy_context(yyjson_val *context, const struct bly_policy_env *env,
                       struct bly_policy_builder *builder, struct bly_err *err);
