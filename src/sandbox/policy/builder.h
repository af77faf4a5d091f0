#pragma once

/*
 * Gathers what a policy language says and compiles it into an effective policy: ties, protected
 * names, the policies that need no wall, limits. Both languages end here. Private to
 * sandbox/policy; `err` is never NULL here.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/policy/policy.h"

struct bly_err;

struct bly_policy_builder {
    struct bly_policy *policy; /* owned; set wall, network, minimal, cwd directly */
    size_t rules_cap;
    size_t globs_cap;
    size_t glob_bytes;
};

/* Makes an empty policy with a wall. 0 or -ENOMEM. */
int bly_policy_builder_init(struct bly_policy_builder *builder);
void bly_policy_builder_deinit(struct bly_policy_builder *builder); /* harmless after build() */

/* `path` is malloc'ed and consumed, also on failure. */
int bly_policy_builder_rule(struct bly_policy_builder *builder, char *path, enum bly_access access,
                            uint8_t flags, struct bly_err *err);

/* The same with a copy of `path`, which need not be normalised but is absolute. */
int bly_policy_builder_rule_at(struct bly_policy_builder *builder, const char *path,
                               enum bly_access access, uint8_t flags, struct bly_err *err);

/* A deny pattern below the directory `base`; NULL when the pattern is absolute. */
int bly_policy_builder_deny_glob(struct bly_policy_builder *builder, const char *base,
                                 const char *pattern, struct bly_err *err);

/*
 * Finishes: the policy, with one reference. With `write_wins` (legacy) a read rule at or below a
 * write rule takes nothing away.
 */
struct bly_policy *bly_policy_builder_build(struct bly_policy_builder *builder, bool write_wins);
