#include "sandbox/plan/explain.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/casefold.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "sandbox/plan/plan_internal.h"
#include "sandbox/policy/policy.h"

enum { WHY_MAX = 4 * BLY_PATH_MAX };

struct explainer {
    const struct bly_plan *plan;
    struct bly_policy *given, *derived; /* spelled out */
    struct bly_buf *why;
};

/* What every step of a kind is for when no entry asked for it. */
static const char *const purposes[BLY_STEP_KINDS] = {
    [BLY_STEP_TMPFS] = "what is not listed here is not there",
    [BLY_STEP_READ] = "shown, read-only",
    [BLY_STEP_WRITE] = "everything is the host's",
    [BLY_STEP_PIN] = "not to be renamed: something protected lies below",
    [BLY_STEP_PIN_LINK] = "a protected link, not to be replaced",
    [BLY_STEP_MASK_DIR] = "internals of the kernel",
    [BLY_STEP_MASK_FILE] = "internals of the kernel",
    [BLY_STEP_PROC] = "the processes inside and no others",
    [BLY_STEP_PROC_READ] = "settings of the kernel",
    [BLY_STEP_DEV] = "harmless devices and terminals of its own",
    [BLY_STEP_SHM] = "shared memory of its own",
    [BLY_STEP_LINK] = "as on the host",
};

static const struct bly_rule *rule_at(const struct bly_policy *policy, const char *path)
{
    for (size_t i = 0; i < policy->n_rules; i++)
        if (strcmp(policy->rules[i].path, path) == 0)
            return &policy->rules[i];
    return NULL;
}

static const char *access_word(enum bly_access access)
{
    static const char *const words[] = {"none", "read", "write", "deny"};

    return words[access];
}

/* As it is written, or else as a directory that folds case compares names. */
static const char *glob_for(const struct bly_policy *policy, const char *path)
{
    bly_autofree char *key = bly_casefold_dup(path);

    for (size_t i = 0; i < policy->n_deny_globs; i++)
        if (bly_glob_match(policy->deny_globs[i], path))
            return policy->deny_globs[i];
    for (size_t i = 0; key && i < policy->n_deny_globs; i++) {
        bly_autofree char *folded = bly_casefold_dup(policy->deny_globs[i]);

        if (folded && bly_glob_match(folded, key))
            return policy->deny_globs[i];
    }
    return NULL;
}

/* By the rule for exactly this path. False: there is none. */
static bool explain_rule(struct explainer *e, const char *path)
{
    const struct bly_rule *given = rule_at(e->given, path);
    const struct bly_rule *derived = rule_at(e->derived, path);
    const char *name = bly_path_base(path);

    if (given != NULL && !(given->flags & BLY_RULE_IMPLIED))
        (void)bly_buf_printf(e->why, "entry: %s %s", access_word(given->access), path);
    else if ((given != NULL || derived != NULL) && bly_policy_is_protected_name(name))
        (void)bly_buf_printf(e->why, "protected name: %s of a writable root", name);
    else if (derived != NULL && (derived->flags & BLY_RULE_IMPLIED) &&
             derived->access == BLY_ACCESS_READ)
        (void)bly_buf_add_str(e->why, "a .git points here");
    else if (derived != NULL && (derived->flags & BLY_RULE_IMPLIED) &&
             derived->access == BLY_ACCESS_DENY)
        (void)bly_buf_add_str(e->why, "another procfs, or another mount of what is denied");
    else if (derived != NULL && !(derived->flags & BLY_RULE_IMPLIED))
        (void)bly_buf_printf(e->why, "an entry leads here: %s", access_word(derived->access));
    else
        return false;
    return true;
}

static void explain_step(struct explainer *e, const struct bly_step *step)
{
    const char *glob = glob_for(e->plan->policy, step->path);
    bool masks = step->kind == BLY_STEP_MASK_DIR || step->kind == BLY_STEP_MASK_FILE;

    if (step->kind == BLY_STEP_PIN_LINK || step->kind == BLY_STEP_PIN)
        (void)bly_buf_add_str(e->why, purposes[step->kind]);
    else if (masks && glob != NULL)
        (void)bly_buf_printf(e->why, "pattern: deny %s", glob);
    else if (explain_rule(e, step->path))
        return;
    else if (step->kind == BLY_STEP_READ && bly_policy_is_platform_default(step->path))
        (void)bly_buf_add_str(e->why, "platform default");
    else
        (void)bly_buf_add_str(e->why, purposes[step->kind]);
}

static void explain_absent(struct explainer *e, const char *path)
{
    if (!explain_rule(e, path))
        (void)bly_buf_add_str(e->why, "an entry lies below");
    (void)bly_buf_add_str(e->why, "; it is missing and must not come into being");
}

static int tell(struct explainer *e, struct bly_explanation *explanation,
                int (*each)(void *arg, const struct bly_explanation *explanation), void *arg)
{
    int r = bly_buf_add_char(e->why, '\0');

    if (r < 0)
        return r;
    explanation->why = (const char *)e->why->data;
    r = each(arg, explanation);
    e->why->len = 0;
    return r;
}

static int explain(struct explainer *e,
                   int (*each)(void *arg, const struct bly_explanation *explanation), void *arg)
{
    const struct bly_plan *plan = e->plan;
    int r = 0;

    for (size_t i = 0; r == 0 && i < plan->n_steps; i++) {
        const struct bly_step *step = &plan->steps[i];
        struct bly_explanation explanation = {
            .step = bly_step_name(step->kind), .path = step->path, .target = step->text};

        explain_step(e, step);
        r = tell(e, &explanation, each, arg);
    }
    for (size_t i = 0; r == 0 && i < plan->n_absents; i++) {
        bly_autofree char *path = bly_path_join(plan->absents[i].dir, plan->absents[i].name);
        struct bly_explanation explanation = {.step = "absent", .path = path};

        if (path == NULL)
            return -ENOMEM;
        explain_absent(e, path);
        r = tell(e, &explanation, each, arg);
    }
    return r;
}

int bly_plan_explain(const struct bly_plan *plan, const struct bly_policy *given,
                     int (*each)(void *arg, const struct bly_explanation *explanation), void *arg)
{
    bly_autobuf struct bly_buf why;
    struct explainer e = {.plan = plan,
                          .given = bly_policy_spell_out(given),
                          .derived = bly_policy_spell_out(plan->policy),
                          .why = &why};
    int r;

    bly_buf_init(&why, WHY_MAX);
    r = e.given != NULL && e.derived != NULL ? explain(&e, each, arg) : -ENOMEM;
    bly_policy_unref(e.given);
    bly_policy_unref(e.derived);
    return r;
}
