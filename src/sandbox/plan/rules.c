/*
 * From the rules a client wrote to the rules the view is built from: every path canonical, grants
 * of things that do not exist gone, and no grant that runs through a symlink which somebody inside
 * a wall could have planted.
 */
#include "sandbox/plan/draft.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "base/sort.h"
#include "sandbox/policy/rules.h"

/* With names of links and second mounts. */
enum { MAX_RULES = 8 * BLY_POLICY_MAX_RULES };

static bool find_rule(const struct bly_policy *policy, const char *path, size_t *ret_index)
{
    bool found;

    *ret_index = bly_rules_place(policy->rules, policy->n_rules, path, &found);
    return found;
}

bool bly_draft_has_rule(const struct bly_policy *policy, const char *path)
{
    size_t at;

    return find_rule(policy, path, &at);
}

/* Deny beats write beats read: the enumerators are in that order. */
_Static_assert(BLY_ACCESS_READ < BLY_ACCESS_WRITE && BLY_ACCESS_WRITE < BLY_ACCESS_DENY, "order");

/* The same, for somebody who adds them in order: then it goes behind the last one. */
static bool find_place(const struct bly_policy *policy, const char *path, size_t depth,
                       size_t *ret_index)
{
    const struct bly_rule *last = policy->n_rules > 0 ? &policy->rules[policy->n_rules - 1] : NULL;

    *ret_index = policy->n_rules;
    if (!last || bly_rules_compare_paths(last->path, last->depth, path, depth) < 0)
        return false;
    return find_rule(policy, path, ret_index);
}

static int put_rule(struct bly_policy *policy, const char *path, enum bly_access access,
                    unsigned flags, bool force, struct bly_err *err)
{
    struct bly_rule *rule;
    size_t depth = bly_path_depth(path), at;

    if (find_place(policy, path, depth, &at)) {
        rule = &policy->rules[at];
        if (force || access > rule->access) {
            rule->access = access;
            rule->flags = (uint8_t)flags;
        } else if (access == rule->access) {
            rule->flags = (uint8_t)(rule->flags & flags);
        }
        return 0;
    }
    if (policy->n_rules >= MAX_RULES)
        return bly_fail(err, BLY_ERR_INVALID, E2BIG,
                        "the sandbox policy has more than %d rules on this disk", MAX_RULES);

    rule = bly_list_add(policy->rules, &policy->n_rules, sizeof(*rule));
    if (!rule)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
    policy->rules = rule;
    rule += at;
    memmove(rule + 1, rule, (policy->n_rules - 1 - at) * sizeof(*rule));
    *rule = (struct bly_rule){strdup(path), access, (uint8_t)flags, (uint32_t)depth};
    return rule->path ? 0 : bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
}

int bly_draft_add_rule(struct bly_policy *policy, const char *path, enum bly_access access,
                       unsigned flags, struct bly_err *err)
{
    return put_rule(policy, path, access, flags, false, err);
}

int bly_draft_set_rule(struct bly_policy *policy, const char *path, enum bly_access access,
                       struct bly_err *err)
{
    return put_rule(policy, path, access, BLY_RULE_IMPLIED, true, err);
}

int bly_draft_deny_for_good(struct bly_policy *policy, const char *path, struct bly_err *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < policy->n_rules; i++)
        if (bly_path_is_within(policy->rules[i].path, path))
            r = bly_draft_set_rule(policy, policy->rules[i].path, BLY_ACCESS_DENY, err);
    if (r == 0 && bly_policy_decide(policy, path) != BLY_ACCESS_NONE)
        r = bly_draft_set_rule(policy, path, BLY_ACCESS_DENY, err);
    return r;
}

enum bly_access bly_draft_parent_access(const struct bly_policy *policy, const char *path)
{
    struct bly_policy bare = *policy;
    bly_autofree char *parent = bly_path_parent(path);
    size_t at;

    bare.n_deny_globs = 0;
    if (!parent || strcmp(path, "/") == 0)
        return BLY_ACCESS_NONE;
    /* Whatever is above it: a rule of its own has the last word, unless it says read. */
    if (policy->wall && find_rule(policy, parent, &at) &&
        policy->rules[at].access != BLY_ACCESS_READ)
        return policy->rules[at].access;
    return bly_policy_decide(&bare, parent);
}

/* One rule of the given policy on its way through. */
struct fate {
    const struct bly_rule *rule;
    struct bly_spot spot;
    size_t depth;                /* of where it led */
    size_t first_link, end_link; /* the crossings of its path */
    bool kept;
};

struct fates {
    struct fate *items;
    size_t n;
};

static void fates_deinit(struct fates *fates)
{
    for (size_t i = 0; i < fates->n; i++)
        bly_spot_deinit(&fates->items[i].spot);
    free(fates->items);
}

static bool is_grant_in_effect(const struct bly_rule *rule, const struct bly_spot *spot)
{
    if (spot->state != BLY_SPOT_FOUND)
        return false;
    return !(rule->flags & BLY_RULE_IF_DIRECTORY) || spot->node.type == BLY_NODE_DIR;
}

/* Nobody gets to write the kernel's files, whatever a policy grants. */
static const char *const kernel_trees[] = {"/proc", "/sys"};

static enum bly_access most_for(const char *path, enum bly_access access)
{
    for (size_t i = 0; i < BLY_LEN(kernel_trees); i++)
        if (access == BLY_ACCESS_WRITE && bly_path_is_within(path, kernel_trees[i]))
            return BLY_ACCESS_READ;
    return access;
}

/* Whether a rule counts, given that the shallower ones are already in `policy`. */
static bool counts(struct bly_draft *draft, const struct bly_policy *policy,
                   const struct fate *fate)
{
    const struct bly_rule *rule = fate->rule;
    const struct bly_spot *spot = &fate->spot;

    if (rule->access == BLY_ACCESS_DENY)
        return true;
    if (spot->state == BLY_SPOT_IN_PROC) {
        draft->wants_proc = true;
        return true;
    }
    /* A restriction holds for what does not exist yet as well, and so does what opens a protected
     * name: neither is a grant of something that is not there. */
    if ((rule->access == BLY_ACCESS_READ || spot->state == BLY_SPOT_MISSING) &&
        bly_draft_parent_access(policy, spot->path) == BLY_ACCESS_WRITE)
        return true;
    return is_grant_in_effect(rule, spot);
}

/* The name of a denied link is as forbidden as what it leads to. */
static int deny_link_names(struct bly_draft *draft, struct bly_policy *policy,
                           const struct fate *fate, struct bly_err *err)
{
    int r = 0;

    for (size_t i = fate->first_link; r == 0 && i < fate->end_link; i++)
        if (draft->crossings[i].terminal)
            r = bly_draft_add_rule(policy, draft->crossings[i].path, BLY_ACCESS_DENY,
                                   fate->rule->flags, err);
    return r;
}

/* The same where a grant of everything includes them. */
static int settle_kernel(struct bly_draft *draft, struct bly_policy *policy, struct bly_err *err)
{
    for (size_t i = 0; i < BLY_LEN(kernel_trees); i++) {
        struct bly_node node = {0};
        int r = bly_draft_look(draft, kernel_trees[i], &node, err);

        if (r == 0 && node.type != BLY_NODE_ABSENT &&
            bly_draft_parent_access(policy, kernel_trees[i]) == BLY_ACCESS_WRITE)
            r = bly_draft_add_rule(policy, kernel_trees[i], BLY_ACCESS_READ, BLY_RULE_IMPLIED, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int settle_rule(struct bly_draft *draft, struct bly_policy *policy, struct fate *fate,
                       struct bly_err *err)
{
    const struct bly_rule *rule = fate->rule;
    int r;

    if (!counts(draft, policy, fate))
        return 0;
    fate->kept = true;
    r = bly_draft_add_rule(policy, fate->spot.path, most_for(fate->spot.path, rule->access),
                           rule->flags, err);
    if (r == 0 && rule->access == BLY_ACCESS_DENY)
        r = deny_link_names(draft, policy, fate, err);
    return r;
}

static int walk_rules(struct bly_draft *draft, struct fates *fates, struct bly_err *err)
{
    for (size_t i = 0; i < fates->n; i++) {
        struct fate *fate = &fates->items[i];
        int r;

        fate->rule = &draft->given->rules[i];
        fate->first_link = draft->n_crossings;
        r = bly_draft_walk(draft, fate->rule->path, false, &fate->spot, err);
        fate->end_link = draft->n_crossings;
        if (r == 0)
            r = bly_draft_mark_spot(draft, &fate->spot, err);
        if (r < 0)
            return r;
        fate->depth = bly_path_depth(fate->spot.path);
    }
    return 0;
}

static int compare_fates(const void *a, const void *b)
{
    const struct fate *const *x = a, *const *y = b;

    return bly_rules_compare_paths((*x)->spot.path, (*x)->depth, (*y)->spot.path, (*y)->depth);
}

/* Shallow to deep as they lie on the disk: whether a rule counts depends on those above it. */
static int settle_rules(struct bly_draft *draft, struct bly_policy *policy, struct fates *fates,
                        struct bly_err *err)
{
    bly_autofree struct fate **order = calloc(fates->n + 1, sizeof(struct fate *));
    int r = 0;

    if (!order)
        return bly_fail_sys(err, ENOMEM, "cannot plan the sandbox");
    for (size_t i = 0; i < fates->n; i++)
        order[i] = &fates->items[i];
    bly_sort(order, fates->n, sizeof(*order), compare_fates);
    for (size_t i = 0; r == 0 && i < fates->n; i++)
        r = settle_rule(draft, policy, order[i], err);
    return r;
}

/*
 * Platform defaults that are symlinks. Into another default (/bin to usr/bin) they show nothing
 * that is not shown anyway, whoever made them; elsewhere they are grants like any other.
 */
static int settle_defaults(struct bly_draft *draft, struct bly_policy *policy, struct bly_err *err)
{
    for (size_t i = 0; bly_policy_platform_defaults[i]; i++) {
        bly_autospot struct bly_spot spot = {0};
        size_t first = draft->n_crossings;
        int r = bly_draft_walk(draft, bly_policy_platform_defaults[i], false, &spot, err);

        if (r < 0)
            return r;
        if (first == draft->n_crossings || spot.state != BLY_SPOT_FOUND)
            continue;
        if (bly_policy_is_platform_default(spot.path)) {
            for (size_t c = first; c < draft->n_crossings; c++)
                draft->crossings[c].harmless = true;
            continue;
        }
        if (bly_policy_decide(policy, spot.path) == BLY_ACCESS_NONE)
            r = bly_draft_add_rule(policy, spot.path, BLY_ACCESS_READ, BLY_RULE_IMPLIED, err);
        if (r == 0)
            r = bly_draft_mark_spot(draft, &spot, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int note_write_roots(struct bly_draft *draft, const struct fates *fates, struct bly_err *err)
{
    struct bly_names roots = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < fates->n; i++) {
        const struct fate *fate = &fates->items[i];

        if (fate->kept && fate->rule->access == BLY_ACCESS_WRITE &&
            fate->spot.state == BLY_SPOT_FOUND &&
            most_for(fate->spot.path, BLY_ACCESS_WRITE) == BLY_ACCESS_WRITE &&
            bly_names_add(&roots, fate->spot.path) < 0)
            r = bly_fail_sys(err, ENOMEM, "cannot plan %s", fate->spot.path);
    }
    bly_names_keep_topmost(&roots);
    draft->plan->write_roots = roots.items;
    draft->plan->n_write_roots = roots.n;
    return r;
}

/* Who can write a directory can plant a link in it and wait for the next policy to follow it. */
static int refuse_planted_links(struct bly_draft *draft, struct bly_err *err)
{
    const char *const *roots;
    size_t n_roots = bly_plan_write_roots(draft->plan, &roots);
    struct bly_names dirs = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < draft->n_crossings; i++) {
        const struct bly_crossing *crossing = &draft->crossings[i];
        bly_autofree char *dir = bly_path_parent(crossing->path);

        if (crossing->harmless)
            continue;
        if (!dir || bly_names_add_once(&dirs, dir) < 0)
            r = bly_fail_sys(err, ENOMEM, "cannot plan %s", crossing->rule);
        else if (bly_path_holder(roots, n_roots, dir))
            r = bly_fail(err, BLY_ERR_INVALID, EPERM,
                         "cannot enforce sandbox path %s because it crosses writable symlink %s",
                         crossing->rule, crossing->path);
        else if (bly_path_holder(draft->granted, draft->n_granted, dir))
            r = bly_fail(err, BLY_ERR_INVALID, EPERM,
                         "cannot enforce sandbox path %s because it crosses symlink %s in a "
                         "directory that was writable before",
                         crossing->rule, crossing->path);
    }
    draft->plan->link_dirs = dirs.items;
    draft->plan->n_link_dirs = dirs.n;
    return r;
}

/* What a link leads to is granted under its own name; the link itself may be looked at. */
static int show_links(struct bly_draft *draft, struct bly_policy *policy, struct bly_err *err)
{
    for (size_t i = 0; i < draft->n_crossings; i++) {
        const char *link = draft->crossings[i].path;
        int r = 0;

        if (bly_policy_decide(policy, link) == BLY_ACCESS_NONE)
            r = bly_draft_add_rule(policy, link, BLY_ACCESS_READ, BLY_RULE_IMPLIED, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int bly_draft_rules(struct bly_draft *draft, struct bly_err *err)
{
    struct bly_policy *policy = draft->plan->policy;
    __attribute__((cleanup(fates_deinit))) struct fates fates = {0};
    int r = 0;

    fates.items = calloc(draft->given->n_rules + 1, sizeof(*fates.items));
    if (!fates.items)
        return bly_fail_sys(err, ENOMEM, "cannot plan the sandbox");
    fates.n = draft->given->n_rules;

    r = walk_rules(draft, &fates, err);
    if (r == 0)
        r = settle_rules(draft, policy, &fates, err);
    if (r == 0)
        r = settle_kernel(draft, policy, err);
    if (r == 0 && policy->minimal)
        r = settle_defaults(draft, policy, err);
    if (r == 0)
        r = note_write_roots(draft, &fates, err);
    if (r == 0)
        r = bly_draft_glob_bases(draft, err);
    if (r == 0)
        r = refuse_planted_links(draft, err);
    if (r == 0)
        r = show_links(draft, policy, err);
    return r;
}
