#pragma once

/*
 * The sorted rule list of a policy: order, look-up, insertion. Private to sandbox/policy.
 */
#include <stdbool.h>
#include <stddef.h>

#include "sandbox/policy/policy.h"

/* Sorts by depth, then bytes, and keeps the strongest of several rules for one path. Returns how
 * many are left; the paths of the others are freed. */
size_t bly_rules_sort(struct bly_rule *rules, size_t n);

/* Negative, 0 or positive like strcmp(): the order of the list, which leaves out access. The depths
 * are bly_path_depth() of the paths, which nobody wants to count at each comparison. */
int bly_rules_compare_paths(const char *a, size_t depth_a, const char *b, size_t depth_b);

/*
 * The rules that apply to a path, shallow to deep: those for the path itself and for its ancestors.
 * Set `rules`, `n` and `path`, leave the rest zero. The path is absolute and normalised.
 */
struct bly_rule_walk {
    const struct bly_rule *rules;
    size_t n;
    const char *path;
    size_t len;   /* of the prefix looked up last */
    size_t depth; /* its components */
    size_t from;  /* rules before this one are above the prefix */
};
const struct bly_rule *bly_rule_walk_next(struct bly_rule_walk *walk); /* NULL at the end */

/* Index of the rule for exactly this path; or, with false, where it would be. */
size_t bly_rules_place(const struct bly_rule *rules, size_t n, const char *path, bool *ret_found);

/* The rule for exactly this path, or NULL. */
const struct bly_rule *bly_rules_find(const struct bly_rule *rules, size_t n, const char *path);

/* True when a rule for this path or for one of its ancestors says write. */
bool bly_rules_have_write_above(const struct bly_rule *rules, size_t n, const char *path);

/* Fills in what follows from the rest: reads_all, writes_all, glob_places. */
void bly_policy_derive(struct bly_policy *policy);

/* Sorts deny_globs and keeps each once. */
void bly_policy_sort_globs(struct bly_policy *policy);

/* Before deny_globs are changed: decisions try all of them until the next bly_policy_derive(). */
void bly_policy_forget_globs(struct bly_policy *policy);

/* A policy without rules and one reference, everything false. NULL: out of memory. */
struct bly_policy *bly_policy_new(void);
