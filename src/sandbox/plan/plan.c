#include "sandbox/plan/plan.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "base/sort.h"
#include "sandbox/plan/draft.h"
#include "sandbox/policy/rules.h"

struct bly_plan *bly_plan_free(struct bly_plan *plan)
{
    if (!plan)
        return NULL;
    for (size_t i = 0; i < plan->n_steps; i++) {
        free(plan->steps[i].path);
        free(plan->steps[i].text);
    }
    for (size_t i = 0; i < plan->n_absents; i++) {
        free(plan->absents[i].dir);
        free(plan->absents[i].name);
    }
    for (size_t i = 0; i < plan->n_marks; i++) {
        free(plan->marks[i].path);
        free(plan->marks[i].text);
    }
    bly_names_deinit(&(struct bly_names){plan->write_roots, plan->n_write_roots});
    bly_names_deinit(&(struct bly_names){plan->link_dirs, plan->n_link_dirs});
    free(plan->steps);
    free(plan->absents);
    free(plan->marks);
    bly_policy_unref(plan->policy);
    free(plan);
    return NULL;
}

static void plan_freep(struct bly_plan **plan)
{
    *plan = bly_plan_free(*plan);
}

static int compare_marks(const void *a, const void *b)
{
    const struct bly_mark *x = a, *y = b;
    int order = strcmp(x->path, y->path);

    return order ? order : (int)x->kind - (int)y->kind;
}

/* Each path is looked at once when the marks are checked. */
static void unique_marks(struct bly_plan *plan)
{
    size_t n = 0;

    bly_sort(plan->marks, plan->n_marks, sizeof(*plan->marks), compare_marks);
    for (size_t i = 0; i < plan->n_marks; i++) {
        struct bly_mark *mark = &plan->marks[i];

        if (n > 0 && compare_marks(&plan->marks[n - 1], mark) == 0) {
            free(mark->path);
            free(mark->text);
        } else {
            plan->marks[n++] = *mark;
        }
    }
    plan->n_marks = n;
}

static int fill(struct bly_draft *draft, struct bly_err *err)
{
    int r = 0;

    /* No file wall: the rules do not matter, everything is the host's. */
    if (!draft->plan->network_only)
        r = bly_draft_rules(draft, err);
    if (r == 0 && !draft->plan->network_only)
        r = bly_draft_protected(draft, err);
    if (r == 0 && !draft->plan->network_only)
        r = bly_draft_pointers(draft, err);
    if (r == 0)
        r = bly_draft_aliases(draft, err);
    if (r == 0)
        r = bly_draft_globs(draft, err);
    if (r == 0)
        r = bly_draft_steps(draft, err);
    if (r < 0)
        return r;
    unique_marks(draft->plan);
    bly_plan_seal_marks(draft->plan);
    bly_policy_derive(draft->plan->policy);
    return 0;
}

/* The rules come anew, on canonical paths, and the patterns move to canonical directories. */
static struct bly_policy *begin_policy(const struct bly_policy *given)
{
    struct bly_policy bare = *given;
    struct bly_policy *policy;

    bare.n_rules = 0;
    policy = bly_policy_copy(&bare);
    if (policy)
        bly_policy_forget_globs(policy);
    return policy;
}

int bly_plan_make(const struct bly_policy *policy, enum bly_purpose purpose,
                  const struct bly_probe *probe, const char *const *granted, size_t n_granted,
                  struct bly_plan **ret_plan, struct bly_err *err)
{
    __attribute__((cleanup(plan_freep))) struct bly_plan *plan = NULL;
    __attribute__((cleanup(bly_draft_deinit))) struct bly_draft draft = {
        .given = policy, .probe = probe, .granted = granted, .n_granted = n_granted};
    int r;

    if (!policy->wall && (policy->network || purpose == BLY_FOR_HELPER))
        return bly_fail(err, BLY_ERR_BUG, EINVAL, "a plan was asked for where no wall is needed");
    plan = calloc(1, sizeof(*plan));
    if (!plan || !(plan->policy = begin_policy(policy)))
        return bly_fail_sys(err, ENOMEM, "cannot plan the sandbox");
    plan->purpose = purpose;
    plan->network = policy->network && purpose == BLY_FOR_PROCESS;
    plan->network_only = !policy->wall;
    draft.plan = plan;
    bly_seen_init(&draft.seen, policy->n_rules);
    r = fill(&draft, err);
    if (r < 0)
        return r;
    *ret_plan = bly_take_ptr(&plan);
    return 0;
}

const struct bly_policy *bly_plan_policy(const struct bly_plan *plan)
{
    return plan->policy;
}

/* A list of owned strings, lent out. */
static size_t lend(char **items, size_t n, const char *const **ret)
{
    union {
        char **owned;
        const char *const *lent;
    } names = {items};

    *ret = names.lent;
    return n;
}

size_t bly_plan_write_roots(const struct bly_plan *plan, const char *const **ret_paths)
{
    return lend(plan->write_roots, plan->n_write_roots, ret_paths);
}

size_t bly_plan_links(const struct bly_plan *plan, const char *const **ret_dirs)
{
    return lend(plan->link_dirs, plan->n_link_dirs, ret_dirs);
}
