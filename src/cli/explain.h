#pragma once

/*
 * What `bailey sandbox --explain` prints: the effective policy and the plan that would be enforced,
 * with the reason for each step. Runs nothing.
 */
#include <stdbool.h>

struct bly_err;
struct bly_features;
struct bly_policy;

/* To stdout, for people or as JSON. 0; negative errno with `err` set. */
int bly_explain(const struct bly_policy *policy, const struct bly_features *features, bool json,
                struct bly_err *err);
