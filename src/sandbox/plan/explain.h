#pragma once

/*
 * Says, step by step, what a plan does and which entry of the policy, or which protected name, it
 * is there for. For `bailey sandbox --explain`. Pure.
 */
struct bly_plan;
struct bly_policy;

/* All strings are borrowed for the call. */
struct bly_explanation {
    const char *step; /* as in bly_plan_print(): "rw", "mask-dir", "absent", ... */
    const char *path;
    const char *target; /* of a link; else NULL */
    const char *why;
};

/*
 * `given` is the policy the plan was made from. Calls `each` for every step and then for every name
 * that must not come into being, until it returns something else than 0. Returns that; -ENOMEM.
 */
int bly_plan_explain(const struct bly_plan *plan, const struct bly_policy *given,
                     int (*each)(void *arg, const struct bly_explanation *explanation), void *arg);
