/*
 * What may need a mount: rules, protected names, platform defaults, links that rules crossed, what
 * the kernel shows of itself, devices, and whatever is closed. And what is not there and has to
 * stay away.
 */
#include "sandbox/plan/claims.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "base/sort.h"

static bool is_skippable(const struct bly_rule *rule)
{
    if (!(rule->flags & BLY_RULE_SKIP_MISSING))
        return false;
    return !bly_policy_is_protected_name(bly_path_base(rule->path));
}

static int add_absent(struct bly_draft *draft, const char *dir, const char *name,
                      struct bly_err *err)
{
    struct bly_plan *plan = draft->plan;
    struct bly_absent *grown =
        bly_list_add(plan->absents, &plan->n_absents, sizeof(*plan->absents));

    if (!grown)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", dir);
    plan->absents = grown;
    grown += plan->n_absents - 1;
    grown->dir = strdup(dir);
    grown->name = strdup(name);
    return grown->dir && grown->name ? 0 : bly_fail_sys(err, ENOMEM, "cannot plan %s", dir);
}

/* A restriction of something that is not there: only a program could bring it into being. */
static int claim_missing(struct bly_draft *draft, const struct bly_rule *rule, const char *edge,
                         struct bly_err *err)
{
    bly_autofree char *dir = NULL;

    if (draft->plan->purpose != BLY_FOR_PROCESS || !edge || is_skippable(rule) ||
        rule->access == BLY_ACCESS_WRITE)
        return 0;
    dir = bly_path_parent(edge);
    if (!dir)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", edge);
    if (bly_policy_decide(draft->plan->policy, dir) != BLY_ACCESS_WRITE)
        return 0;
    return add_absent(draft, dir, bly_path_base(edge), err);
}

/* A restriction below /proc: the view's own procfs has the same fixed entries as the host's. */
static int claim_in_proc(struct bly_claims *claims, const struct bly_rule *rule,
                         struct bly_err *err)
{
    struct bly_claim claim = bly_claim_nothing;
    const char *rest = rule->path + strlen("/proc");
    int r;

    if (rule->access != BLY_ACCESS_DENY || strncmp(rest, "/self", 5) == 0 ||
        strncmp(rest, "/thread-self", 12) == 0 ||
        (rest[0] == '/' && rest[1] >= '0' && rest[1] <= '9'))
        return 0;
    r = bly_draft_look(claims->draft, rule->path, &claim.node, err);
    if (r < 0 && r != -EACCES)
        return r;
    claim.closed = true;
    if (r == -EACCES || claim.node.type == BLY_NODE_ABSENT)
        return 0;
    return bly_claims_add(claims, rule->path, &claim, err);
}

static int claim_spot(struct bly_claims *claims, const struct bly_spot *spot,
                      enum bly_access access, struct bly_err *err)
{
    struct bly_claim claim = bly_claim_nothing;

    claim.access = access;
    claim.node = spot->node;
    /* The server itself cannot look in there, so closing all of it takes nothing away. */
    claim.closed = spot->state == BLY_SPOT_BLOCKED;
    return bly_claims_add(claims, claim.closed ? spot->edge : spot->path, &claim, err);
}

static int claim_rule(struct bly_claims *claims, const struct bly_rule *rule, struct bly_err *err)
{
    struct bly_draft *draft = claims->draft;
    bly_autospot struct bly_spot spot = {0};
    size_t n_crossings = draft->n_crossings;
    int r;

    if (bly_draft_lacks(draft, rule->path))
        return claim_missing(draft, rule, rule->path, err);
    r = bly_draft_walk(draft, rule->path, true, &spot, err);
    if (r < 0)
        return r;
    if (draft->n_crossings != n_crossings)
        return bly_fail(err, BLY_ERR_INVALID, EAGAIN, "%s changed while it was looked at",
                        rule->path);
    r = bly_draft_mark_spot(draft, &spot, err);
    if (r < 0)
        return r;

    switch (spot.state) {
    case BLY_SPOT_FOUND:
    case BLY_SPOT_BLOCKED:
        return claim_spot(claims, &spot, rule->access, err);
    case BLY_SPOT_MISSING:
        return claim_missing(draft, rule, spot.edge, err);
    case BLY_SPOT_IN_PROC:
        return claim_in_proc(claims, rule, err);
    }
    return 0;
}

static int claim_rules(struct bly_claims *claims, struct bly_err *err)
{
    const struct bly_policy *policy = claims->draft->plan->policy;
    int r = 0;

    for (size_t i = 0; r == 0 && i < policy->n_rules; i++)
        r = claim_rule(claims, &policy->rules[i], err);
    return r;
}

/* Absent names of one directory come together. */
static int add_missing_names(struct bly_draft *draft, const struct bly_mark *mark,
                             struct bly_err *err)
{
    if (bly_policy_decide(draft->plan->policy, mark->path) != BLY_ACCESS_WRITE)
        return 0;
    for (unsigned i = 0; i < BLY_PROTECTED_NAMES; i++) {
        int r = 0;

        if (mark->missing & 1u << i)
            r = add_absent(draft, mark->path, bly_policy_protected_names[i], err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int claim_protected(struct bly_claims *claims, struct bly_err *err)
{
    struct bly_draft *draft = claims->draft;
    const struct bly_plan *plan = draft->plan;
    int r = 0;

    for (size_t i = 0; r == 0 && i < draft->n_names; i++)
        r = claim_spot(claims, &draft->names[i], BLY_ACCESS_READ, err);
    for (size_t i = 0; r == 0 && plan->purpose == BLY_FOR_PROCESS && i < plan->n_marks; i++)
        if (plan->marks[i].kind == BLY_MARK_LACKS)
            r = add_missing_names(draft, &plan->marks[i], err);
    return r;
}

static int claim_defaults(struct bly_claims *claims, struct bly_err *err)
{
    struct bly_claim claim = bly_claim_nothing;

    claim.minimal = true;
    for (size_t i = 0; bly_policy_platform_defaults[i]; i++) {
        bly_autospot struct bly_spot spot = {0};
        int r = bly_draft_walk(claims->draft, bly_policy_platform_defaults[i], true, &spot, err);

        claim.node = spot.node;
        /* Symlinks among them are shown as links, like those of rules. */
        if (r == 0 && spot.state == BLY_SPOT_FOUND && spot.node.type != BLY_NODE_LINK &&
            strcmp(spot.path, bly_policy_platform_defaults[i]) == 0)
            r = bly_claims_add(claims, spot.path, &claim, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int claim_links(struct bly_claims *claims, size_t n, struct bly_err *err)
{
    struct bly_claim claim = bly_claim_nothing;
    int r = 0;

    claim.node.type = BLY_NODE_LINK;
    for (size_t i = 0; r == 0 && i < n; i++) {
        claim.link = claims->draft->crossings[i].target;
        r = bly_claims_add(claims, claims->draft->crossings[i].path, &claim, err);
    }
    return r;
}

static int claim_closed(struct bly_claims *claims, struct bly_err *err)
{
    struct bly_claim claim = bly_claim_nothing;
    int r = 0;

    claim.closed = true;
    for (size_t i = 0; r == 0 && i < claims->draft->closed.n; i++)
        r = bly_claims_add_existing(claims, claims->draft->closed.items[i], claim, err);
    return r;
}

static bool shows_host_root(const struct bly_plan *plan)
{
    const struct bly_policy *policy = plan->policy;

    return plan->network_only || (policy->n_rules > 0 && strcmp(policy->rules[0].path, "/") == 0 &&
                                  policy->rules[0].access != BLY_ACCESS_DENY);
}

/* Settings and internals of the kernel (6.3). */
static const char *const proc_read[] = {
    "/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", NULL};
static const char *const closed_always[] = {"/proc/kcore",
                                            "/proc/keys",
                                            "/proc/key-users",
                                            "/proc/timer_list",
                                            "/proc/sched_debug",
                                            "/proc/acpi",
                                            "/proc/scsi",
                                            "/sys/fs/cgroup",
                                            "/sys/firmware",
                                            "/sys/kernel/debug",
                                            "/sys/kernel/tracing",
                                            "/sys/kernel/security",
                                            NULL};

static int claim_kernel_internals(struct bly_claims *claims, struct bly_err *err)
{
    struct bly_claim claim = bly_claim_nothing;
    int r = 0;

    claim.closed = true;
    for (size_t i = 0; r == 0 && closed_always[i]; i++)
        if (!claims->draft->plan->network_only || bly_path_is_within(closed_always[i], "/proc"))
            r = bly_claims_add_existing(claims, closed_always[i], claim, err);
    return r;
}

/*
 * The one process in a helper's procfs is the helper. What its directory tells, where things lie in
 * its memory and in that of the launcher and of all other helpers, which are forked from the same,
 * is nobody's business and of no use: a client that asks about "self" means no helper.
 */
static const char *const closed_of_helper[] = {"/proc/self", "/proc/thread-self", "/proc/1", NULL};

/* The helper asks before it opens, and no name of these can be made to lead elsewhere: a rule costs
 * nothing where a mount would cost every new helper 20 microseconds. */
static int deny_kernel_internals(struct bly_draft *draft, struct bly_err *err)
{
    struct bly_policy *policy = draft->plan->policy;
    int r = 0;

    for (size_t i = 0; r == 0 && closed_always[i]; i++)
        if (bly_policy_decide(policy, closed_always[i]) != BLY_ACCESS_NONE)
            r = bly_draft_set_rule(policy, closed_always[i], BLY_ACCESS_DENY, err);
    for (size_t i = 0; r == 0 && closed_of_helper[i]; i++)
        r = bly_draft_deny_for_good(policy, closed_of_helper[i], err);
    return r;
}

static int claim_kernel(struct bly_claims *claims, struct bly_err *err)
{
    const struct bly_plan *plan = claims->draft->plan;
    struct bly_claim claim = bly_claim_nothing;
    int r = 0;

    if (plan->purpose == BLY_FOR_PROCESS || shows_host_root(plan) || claims->draft->wants_proc) {
        claim.special = BLY_STEP_PROC;
        claim.node.type = BLY_NODE_DIR;
        r = shows_host_root(plan) ? bly_claims_add_existing(claims, "/proc", claim, err)
                                  : bly_claims_add(claims, "/proc", &claim, err);
    }
    claim = bly_claim_nothing;
    claim.special = BLY_STEP_PROC_READ;
    for (size_t i = 0; r == 0 && plan->purpose == BLY_FOR_PROCESS && proc_read[i]; i++)
        r = bly_claims_add_existing(claims, proc_read[i], claim, err);
    if (r == 0)
        r = plan->purpose == BLY_FOR_HELPER ? deny_kernel_internals(claims->draft, err)
                                            : claim_kernel_internals(claims, err);
    claim = bly_claim_nothing;
    claim.access = BLY_ACCESS_READ;
    if (r == 0 && plan->network_only)
        r = bly_claims_add_existing(claims, "/sys", claim, err);
    return r;
}

static int claim_devices(struct bly_claims *claims, struct bly_err *err)
{
    const struct bly_plan *plan = claims->draft->plan;
    struct bly_claim claim = bly_claim_nothing;
    int r;

    if (plan->purpose != BLY_FOR_PROCESS || plan->network_only)
        return 0;
    claims->has_dev = true;
    claim.special = BLY_STEP_DEV;
    claim.node.type = BLY_NODE_DIR;
    r = shows_host_root(plan) ? bly_claims_add_existing(claims, "/dev", claim, err)
                              : bly_claims_add(claims, "/dev", &claim, err);
    claim.special = BLY_STEP_SHM;
    /* With everything writable the host's shared memory is part of everything. */
    if (r == 0 && bly_policy_decide(plan->policy, "/dev/shm") == BLY_ACCESS_WRITE) {
        claim = bly_claim_nothing;
        claim.access = BLY_ACCESS_WRITE;
        return bly_claims_add_existing(claims, "/dev/shm", claim, err);
    }
    return r < 0 ? r : bly_claims_add(claims, "/dev/shm", &claim, err);
}

static int compare_absents(const void *a, const void *b)
{
    const struct bly_absent *x = a, *y = b;
    int order = strcmp(x->dir, y->dir);

    return order ? order : strcmp(x->name, y->name);
}

/* Several rules may lead to one missing name. */
static void sort_absents(struct bly_plan *plan)
{
    size_t n = 0;

    bly_sort(plan->absents, plan->n_absents, sizeof(*plan->absents), compare_absents);
    for (size_t i = 0; i < plan->n_absents; i++) {
        struct bly_absent *absent = &plan->absents[i];

        if (n > 0 && compare_absents(&plan->absents[n - 1], absent) == 0) {
            free(absent->dir);
            free(absent->name);
        } else {
            plan->absents[n++] = *absent;
        }
    }
    plan->n_absents = n;
}

int bly_claims_collect(struct bly_claims *claims, struct bly_err *err)
{
    struct bly_draft *draft = claims->draft;
    size_t n_crossings = draft->n_crossings;
    struct bly_claim root = bly_claim_nothing;
    int r = bly_draft_look(draft, "/", &root.node, err);

    if (r < 0)
        return bly_fail_sys(err, -r, "cannot look at /");
    if (draft->plan->network_only)
        root.access = BLY_ACCESS_WRITE;
    r = bly_claims_add(claims, "/", &root, err);
    if (r == 0)
        r = claim_rules(claims, err);
    if (r == 0)
        r = claim_protected(claims, err);
    if (r == 0 && draft->plan->policy->minimal)
        r = claim_defaults(claims, err);
    if (r == 0)
        r = claim_links(claims, n_crossings, err);
    if (r == 0)
        r = claim_kernel(claims, err);
    if (r == 0)
        r = claim_devices(claims, err);
    if (r == 0)
        r = claim_closed(claims, err);
    sort_absents(draft->plan);
    return r;
}
