/*
 * The protected names in writable directories (3.4). What is there becomes read-only, a link is
 * pinned, and what is not there is part of the fingerprint. Most names of most roots are not there,
 * and there are many roots, so that is one look for each and one mark for each root.
 */
#include "sandbox/plan/draft.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"

/* `path` is there, or nobody knows. */
static int take_name(struct bly_draft *draft, const char *path, struct bly_err *err)
{
    bly_autospot struct bly_spot spot = {0};
    struct bly_spot *grown;
    int r = bly_draft_walk(draft, path, true, &spot, err);

    if (r == 0)
        r = bly_draft_mark_spot(draft, &spot, err);
    if (r < 0)
        return r;
    if (spot.state == BLY_SPOT_FOUND && spot.node.type == BLY_NODE_LINK &&
        bly_names_add_once(&draft->pointed, spot.path) < 0)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
    grown = bly_list_add(draft->names, &draft->n_names, sizeof(*draft->names));
    if (!grown)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
    draft->names = grown;
    grown[draft->n_names - 1] = spot;
    spot = (struct bly_spot){0};
    return 0;
}

/* Whether any rule is about a protected name: next to none is, so that nobody looks for them. */
static bool has_rules_for_names(const struct bly_policy *policy)
{
    for (size_t i = 0; i < policy->n_rules; i++)
        if (bly_policy_is_protected_name(bly_path_base(policy->rules[i].path)))
            return true;
    return false;
}

/* 1: the name is missing in `root`; 0: it was taken, or a rule of its own says what it is. */
static int look_for_name(struct bly_draft *draft, const char *root, const char *name,
                         bool may_have_rule, struct bly_err *err)
{
    bly_autofree char *path = bly_path_join(root, name);
    struct bly_node node = {0};

    if (!path)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", root);
    if (may_have_rule && bly_draft_has_rule(draft->plan->policy, path))
        return 0;
    if (draft->probe->look(draft->probe->ctx, path, &node) == 0 && node.type == BLY_NODE_ABSENT)
        return 1;
    return take_name(draft, path, err);
}

static int look_into(struct bly_draft *draft, const char *root, bool may_have_rules,
                     struct bly_err *err)
{
    unsigned missing = 0;

    for (unsigned i = 0; i < BLY_PROTECTED_NAMES; i++) {
        int r = look_for_name(draft, root, bly_policy_protected_names[i], may_have_rules, err);

        if (r < 0)
            return r;
        missing |= (unsigned)r << i;
    }
    return missing ? bly_draft_mark_missing(draft, root, missing, err) : 0;
}

int bly_draft_protected(struct bly_draft *draft, struct bly_err *err)
{
    const struct bly_policy *policy = draft->plan->policy;
    bool may_have_rules = has_rules_for_names(policy);

    for (size_t i = 0; i < policy->n_rules; i++) {
        struct bly_node node = {0};
        int r;

        if (!bly_rule_protects(&policy->rules[i]))
            continue;
        r = bly_draft_look(draft, policy->rules[i].path, &node, err);
        if (r < 0)
            return bly_fail_sys(err, -r, "cannot look at %s", policy->rules[i].path);
        if (node.type == BLY_NODE_DIR)
            r = look_into(draft, policy->rules[i].path, may_have_rules, err);
        if (r < 0)
            return r;
    }
    return 0;
}
