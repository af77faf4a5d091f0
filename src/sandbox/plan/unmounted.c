#include "sandbox/plan/unmounted.h"

#include <string.h>

#include "base/path.h"
#include "sandbox/plan/plan_internal.h"
#include "sandbox/policy/policy.h"

static bool is_of_kernel(const char *path)
{
    return bly_path_is_within(path, "/proc") || bly_path_is_within(path, "/sys");
}

/* The kernel's internals are denied whatever the client wrote: those rules are implied ones. */
static bool holds_back(const struct bly_rule *rule)
{
    return rule->access == BLY_ACCESS_WRITE ||
           (rule->access == BLY_ACCESS_DENY && !(rule->flags & BLY_RULE_IMPLIED));
}

static bool is_mask(const struct bly_step *step)
{
    return step->kind == BLY_STEP_MASK_DIR || step->kind == BLY_STEP_MASK_FILE;
}

/* Another procfs: its mask comes with a rule that no client wrote. */
static bool is_foreign_proc(const struct bly_rule *rule)
{
    return rule->access == BLY_ACCESS_DENY && (rule->flags & BLY_RULE_IMPLIED) &&
           !is_of_kernel(rule->path);
}

static bool masks_foreign_proc(const struct bly_policy *policy, const char *path)
{
    size_t at = bly_policy_find(policy, path);

    return at < policy->n_rules && is_foreign_proc(&policy->rules[at]);
}

static bool step_holds_back(const struct bly_plan *plan, const struct bly_step *step)
{
    return is_mask(step) && !is_of_kernel(step->path) &&
           !masks_foreign_proc(plan->policy, step->path);
}

unsigned bly_plan_needs(const struct bly_plan *plan)
{
    const struct bly_policy *policy = plan->policy;
    unsigned needs = policy->reads_all ? 0 : BLY_NEEDS_HIDING;

    if (policy->n_deny_globs > 0 || plan->n_absents > 0)
        needs |= BLY_NEEDS_HOLDING_BACK;
    for (size_t i = 0; i < policy->n_rules; i++)
        if (holds_back(&policy->rules[i]))
            needs |= BLY_NEEDS_HOLDING_BACK;
    for (size_t i = 0; i < plan->n_steps; i++)
        if (step_holds_back(plan, &plan->steps[i]))
            needs |= BLY_NEEDS_HOLDING_BACK;
    return needs;
}

static void close_at(const char *closed, const char *path, enum bly_closure *closure)
{
    if (bly_path_is_within(path, closed))
        *closure = BLY_CLOSURE_WHOLE;
    else if (*closure == BLY_CLOSURE_NONE && bly_path_is_within(closed, path))
        *closure = BLY_CLOSURE_PARTLY;
}

enum bly_closure bly_plan_closure(const struct bly_plan *plan, const char *path)
{
    const struct bly_policy *policy = plan->policy;
    /* A program sees the first procfs, so it may as well see others. Where things are held back,
     * the helper's decision does it alone: names that may be made cannot be granted one by one. */
    bool closes_foreign =
        plan->purpose == BLY_FOR_HELPER && !(bly_plan_needs(plan) & BLY_NEEDS_HOLDING_BACK);
    enum bly_closure closure = BLY_CLOSURE_NONE;

    close_at("/dev", path, &closure);
    if (plan->purpose == BLY_FOR_HELPER)
        close_at("/proc", path, &closure);
    for (size_t i = 0; i < policy->n_rules; i++) {
        const struct bly_rule *rule = &policy->rules[i];

        if ((rule->access == BLY_ACCESS_DENY && bly_path_is_within(rule->path, "/sys")) ||
            (closes_foreign && is_foreign_proc(rule)))
            close_at(rule->path, path, &closure);
    }
    for (size_t i = 0; i < plan->n_steps; i++)
        if (is_mask(&plan->steps[i]) && bly_path_is_within(plan->steps[i].path, "/sys"))
            close_at(plan->steps[i].path, path, &closure);
    return closure;
}
