/*
 * From canonical rules to mounts. Everything that may need a mount becomes a claim on its path; the
 * claims are sorted, shallow first, and each is compared with what already holds where it lies:
 * only a difference needs a mount.
 */
#include "sandbox/plan/draft.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "sandbox/policy/rules.h"

/* What holds at a path: the accesses, and two more. */
enum state {
    STATE_NONE = BLY_ACCESS_NONE,
    STATE_READ = BLY_ACCESS_READ,
    STATE_WRITE = BLY_ACCESS_WRITE,
    STATE_DENY = BLY_ACCESS_DENY,
    STATE_CLOSED, /* denied, and nothing below can open it */
};

enum { NO_STEP = -1 };

struct claim {
    char *path;
    size_t depth;           /* of the path */
    enum bly_access access; /* of a rule; NONE without one */
    bool minimal;           /* a platform default: read, if nothing else is said */
    bool closed;
    bool pin;         /* must be a mount of its own */
    bool island;      /* something below is open although this is denied */
    const char *link; /* target of a symlink to show, borrowed */
    int special;      /* a kind of step that does not depend on rules, or NO_STEP */
    struct bly_node node;
    enum state above, state;
    int kind; /* of the step it becomes, or NO_STEP */
    uint32_t step;
    struct claim *parent; /* the deepest claim above; NULL for "/". Known once they are sorted */
};

struct claims {
    struct bly_draft *draft;
    struct claim *items; /* first come, then sorted and unique */
    size_t n;
    bool has_dev; /* /dev is a special claim */
};

static void claims_deinit(struct claims *claims)
{
    for (size_t i = 0; i < claims->n; i++)
        free(claims->items[i].path);
    free(claims->items);
}

static int add_claim(struct claims *claims, const char *path, const struct claim *what,
                     struct bly_err *err)
{
    struct claim *grown = bly_list_add(claims->items, &claims->n, sizeof(*claims->items));

    if (!grown)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
    claims->items = grown;
    grown += claims->n - 1;
    *grown = *what;
    grown->path = strdup(path);
    grown->depth = bly_path_depth(path);
    return grown->path ? 0 : bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
}

static int compare_claims(const void *a, const void *b)
{
    const struct claim *x = a, *y = b;

    return bly_rules_compare_paths(x->path, x->depth, y->path, y->depth);
}

/* Two claims on one path: the stronger access, and everything else of both. */
static void merge(struct claim *into, struct claim *from)
{
    if (from->access > into->access)
        into->access = from->access;
    if (into->node.type == BLY_NODE_ABSENT)
        into->node = from->node;
    if (!into->link)
        into->link = from->link;
    if (into->special == NO_STEP)
        into->special = from->special;
    into->minimal |= from->minimal;
    into->closed |= from->closed;
    into->pin |= from->pin;
    into->island |= from->island;
    free(from->path);
}

static int compare_nested(const void *a, const void *b)
{
    const struct claim *const *x = a, *const *y = b;

    return bly_path_compare((*x)->path, (*y)->path);
}

/* In the order of a walk the claim above is the one in front, or one of those above that. */
static int find_parents(struct claims *claims, struct bly_err *err)
{
    bly_autofree struct claim **order = calloc(claims->n + 1, sizeof(*order));

    if (!order)
        return bly_fail_sys(err, ENOMEM, "cannot plan the sandbox");
    for (size_t i = 0; i < claims->n; i++)
        order[i] = &claims->items[i];
    qsort(order, claims->n, sizeof(*order), compare_nested);
    for (size_t i = 0; i < claims->n; i++) {
        struct claim *above = i > 0 ? order[i - 1] : NULL;

        while (above && !bly_path_is_within(order[i]->path, above->path))
            above = above->parent;
        order[i]->parent = above;
    }
    return 0;
}

static int sort_claims(struct claims *claims, struct bly_err *err)
{
    size_t n = 0;

    qsort(claims->items, claims->n, sizeof(*claims->items), compare_claims);
    for (size_t i = 0; i < claims->n; i++) {
        if (n > 0 && strcmp(claims->items[n - 1].path, claims->items[i].path) == 0)
            merge(&claims->items[n - 1], &claims->items[i]);
        else
            claims->items[n++] = claims->items[i];
    }
    claims->n = n;
    return find_parents(claims, err);
}

/* The claim on exactly the first `len` bytes of `path` ("/" for 0). */
static struct claim *claim_at(const struct claims *claims, const char *path, size_t len)
{
    char *prefix = strndup(len ? path : "/", len ? len : 1);
    struct claim key = {.path = prefix, .depth = prefix ? bly_path_depth(prefix) : 0};
    struct claim *found = NULL;

    if (prefix && claims->n > 0)
        found = bsearch(&key, claims->items, claims->n, sizeof(key), compare_claims);
    free(prefix);
    return found;
}

/* Length of the directory part of the first `len` bytes; 0 stands for "/". */
static size_t parent_length(const char *path, size_t len)
{
    while (len > 0 && path[len - 1] != '/')
        len--;
    return len > 0 ? len - 1 : 0;
}

/* ---- collecting ---- */

static const struct claim nothing = {.special = NO_STEP, .kind = NO_STEP};

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
static int claim_in_proc(struct claims *claims, const struct bly_rule *rule, struct bly_err *err)
{
    struct claim claim = nothing;
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
    return add_claim(claims, rule->path, &claim, err);
}

static int claim_spot(struct claims *claims, const struct bly_spot *spot, enum bly_access access,
                      struct bly_err *err)
{
    struct claim claim = nothing;

    claim.access = access;
    claim.node = spot->node;
    /* The server itself cannot look in there, so closing all of it takes nothing away. */
    claim.closed = spot->state == BLY_SPOT_BLOCKED;
    return add_claim(claims, claim.closed ? spot->edge : spot->path, &claim, err);
}

static int claim_rule(struct claims *claims, const struct bly_rule *rule, struct bly_err *err)
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

static int claim_rules(struct claims *claims, struct bly_err *err)
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

static int claim_protected(struct claims *claims, struct bly_err *err)
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

/* A claim on `path` if there is something. */
static int claim_existing(struct claims *claims, const char *path, struct claim what,
                          struct bly_err *err)
{
    int r = bly_draft_look(claims->draft, path, &what.node, err);

    if (r == -EACCES)
        return 0;
    if (r < 0 || what.node.type == BLY_NODE_ABSENT)
        return r;
    return add_claim(claims, path, &what, err);
}

static int claim_defaults(struct claims *claims, struct bly_err *err)
{
    struct claim claim = nothing;

    claim.minimal = true;
    for (size_t i = 0; bly_policy_platform_defaults[i]; i++) {
        bly_autospot struct bly_spot spot = {0};
        int r = bly_draft_walk(claims->draft, bly_policy_platform_defaults[i], true, &spot, err);

        claim.node = spot.node;
        /* Symlinks among them are shown as links, like those of rules. */
        if (r == 0 && spot.state == BLY_SPOT_FOUND && spot.node.type != BLY_NODE_LINK &&
            strcmp(spot.path, bly_policy_platform_defaults[i]) == 0)
            r = add_claim(claims, spot.path, &claim, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int claim_links(struct claims *claims, size_t n, struct bly_err *err)
{
    struct claim claim = nothing;
    int r = 0;

    claim.node.type = BLY_NODE_LINK;
    for (size_t i = 0; r == 0 && i < n; i++) {
        claim.link = claims->draft->crossings[i].target;
        r = add_claim(claims, claims->draft->crossings[i].path, &claim, err);
    }
    return r;
}

static int claim_closed(struct claims *claims, struct bly_err *err)
{
    struct claim claim = nothing;
    int r = 0;

    claim.closed = true;
    for (size_t i = 0; r == 0 && i < claims->draft->closed.n; i++)
        r = claim_existing(claims, claims->draft->closed.items[i], claim, err);
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

static int claim_kernel_internals(struct claims *claims, struct bly_err *err)
{
    struct claim claim = nothing;
    int r = 0;

    claim.closed = true;
    for (size_t i = 0; r == 0 && closed_always[i]; i++)
        if (!claims->draft->plan->network_only || bly_path_is_within(closed_always[i], "/proc"))
            r = claim_existing(claims, closed_always[i], claim, err);
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

static int claim_kernel(struct claims *claims, struct bly_err *err)
{
    const struct bly_plan *plan = claims->draft->plan;
    struct claim claim = nothing;
    int r = 0;

    if (plan->purpose == BLY_FOR_PROCESS || shows_host_root(plan) || claims->draft->wants_proc) {
        claim.special = BLY_STEP_PROC;
        claim.node.type = BLY_NODE_DIR;
        r = shows_host_root(plan) ? claim_existing(claims, "/proc", claim, err)
                                  : add_claim(claims, "/proc", &claim, err);
    }
    claim = nothing;
    claim.special = BLY_STEP_PROC_READ;
    for (size_t i = 0; r == 0 && plan->purpose == BLY_FOR_PROCESS && proc_read[i]; i++)
        r = claim_existing(claims, proc_read[i], claim, err);
    if (r == 0)
        r = plan->purpose == BLY_FOR_HELPER ? deny_kernel_internals(claims->draft, err)
                                            : claim_kernel_internals(claims, err);
    claim = nothing;
    claim.access = BLY_ACCESS_READ;
    if (r == 0 && plan->network_only)
        r = claim_existing(claims, "/sys", claim, err);
    return r;
}

static int claim_devices(struct claims *claims, struct bly_err *err)
{
    const struct bly_plan *plan = claims->draft->plan;
    struct claim claim = nothing;
    int r;

    if (plan->purpose != BLY_FOR_PROCESS || plan->network_only)
        return 0;
    claims->has_dev = true;
    claim.special = BLY_STEP_DEV;
    claim.node.type = BLY_NODE_DIR;
    r = shows_host_root(plan) ? claim_existing(claims, "/dev", claim, err)
                              : add_claim(claims, "/dev", &claim, err);
    claim.special = BLY_STEP_SHM;
    /* With everything writable the host's shared memory is part of everything. */
    if (r == 0 && bly_policy_decide(plan->policy, "/dev/shm") == BLY_ACCESS_WRITE) {
        claim = nothing;
        claim.access = BLY_ACCESS_WRITE;
        return claim_existing(claims, "/dev/shm", claim, err);
    }
    return r < 0 ? r : add_claim(claims, "/dev/shm", &claim, err);
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

    if (plan->n_absents > 0)
        qsort(plan->absents, plan->n_absents, sizeof(*plan->absents), compare_absents);
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

static int collect(struct claims *claims, struct bly_err *err)
{
    struct bly_draft *draft = claims->draft;
    size_t n_crossings = draft->n_crossings;
    struct claim root = nothing;
    int r = bly_draft_look(draft, "/", &root.node, err);

    if (r < 0)
        return bly_fail_sys(err, -r, "cannot look at /");
    if (draft->plan->network_only)
        root.access = BLY_ACCESS_WRITE;
    r = add_claim(claims, "/", &root, err);
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

/* ---- deciding ---- */

static enum state state_of(const struct claim *claim)
{
    enum state above = claim->above;

    if (above == STATE_CLOSED || claim->closed)
        return STATE_CLOSED;
    switch (claim->access) {
    case BLY_ACCESS_DENY:
        return STATE_DENY;
    case BLY_ACCESS_WRITE:
        return STATE_WRITE;
    case BLY_ACCESS_READ:
        return above == STATE_DENY ? STATE_DENY : STATE_READ;
    case BLY_ACCESS_NONE:
        break;
    }
    return claim->minimal && above == STATE_NONE ? STATE_READ : above;
}

static int mask_kind(const struct claim *claim)
{
    return claim->node.type == BLY_NODE_DIR ? BLY_STEP_MASK_DIR : BLY_STEP_MASK_FILE;
}

static bool is_open(enum state state)
{
    return state == STATE_READ || state == STATE_WRITE;
}

static bool is_private(int kind)
{
    return kind != NO_STEP &&
           bly_step_is_private(&(struct bly_step){.kind = (enum bly_step_kind)kind});
}

static int kind_in_proc(const struct claims *claims, const struct claim *claim)
{
    struct claim *proc = claim_at(claims, "/proc", 5);

    if (!proc || proc->kind != BLY_STEP_PROC)
        return NO_STEP;
    return claim->closed ? mask_kind(claim) : claim->special;
}

static int kind_of_link(const struct claims *claims, const struct claim *claim)
{
    struct claim *above = claim->parent;

    if (claim->above == STATE_WRITE && claim->access == BLY_ACCESS_READ &&
        bly_names_hold(&claims->draft->pointed, claim->path))
        return BLY_STEP_PIN_LINK;
    if (!claim->link || is_open(claim->above))
        return NO_STEP;
    /* Only on a private surface; elsewhere the host's own link is there already. */
    while (above && above->kind == NO_STEP)
        above = above->parent;
    return above && is_private(above->kind) ? BLY_STEP_LINK : NO_STEP;
}

/* A program's /dev is private; of the host's only shared memory can be had, as a grant. */
static int kind_in_dev(const struct claims *claims, const struct claim *claim)
{
    const struct claim *dev = claim_at(claims, "/dev", 4);

    if (!dev || dev->kind != BLY_STEP_DEV || !bly_path_is_within(claim->path, "/dev/shm"))
        return NO_STEP;
    if (claim->state == STATE_WRITE || claim->state == STATE_READ)
        return claim->state == claim->above  ? NO_STEP
               : claim->state == STATE_WRITE ? BLY_STEP_WRITE
                                             : BLY_STEP_READ;
    if (claim->state == STATE_DENY || claim->state == STATE_CLOSED)
        return is_open(claim->above) || claim->special != NO_STEP ? mask_kind(claim) : NO_STEP;
    return claim->special;
}

static int kind_of(const struct claims *claims, const struct claim *claim)
{
    bool was_open = is_open(claim->above);

    if (claim->above == STATE_CLOSED)
        return NO_STEP;
    if (strcmp(claim->path, "/") == 0)
        return claim->state == STATE_WRITE  ? BLY_STEP_WRITE
               : claim->state == STATE_READ ? BLY_STEP_READ
                                            : BLY_STEP_TMPFS;
    if (bly_path_is_within(claim->path, "/proc") && strcmp(claim->path, "/proc") != 0)
        return kind_in_proc(claims, claim);
    if (claims->has_dev && strncmp(claim->path, "/dev/", 5) == 0)
        return kind_in_dev(claims, claim);
    if (claim->state == STATE_CLOSED)
        return was_open || claim->special != NO_STEP ? mask_kind(claim) : NO_STEP;
    if (claim->special != NO_STEP && claim->access == BLY_ACCESS_DENY)
        return BLY_STEP_MASK_DIR;
    if (claim->special != NO_STEP)
        return claim->special;
    if (claim->state == STATE_DENY)
        return claim->above != STATE_DENY && (was_open || claim->island) ? mask_kind(claim)
                                                                         : NO_STEP;
    if (claim->node.type == BLY_NODE_LINK)
        return kind_of_link(claims, claim);
    if (claim->state == claim->above || !is_open(claim->state))
        return claim->pin && claim->above == STATE_WRITE ? BLY_STEP_PIN : NO_STEP;
    return claim->state == STATE_WRITE ? BLY_STEP_WRITE : BLY_STEP_READ;
}

/* What is behind a special mount is not the host's: no rule of the levels above reaches there. */
static bool is_own_world(const struct claim *claim)
{
    return claim->kind == BLY_STEP_DEV || claim->kind == BLY_STEP_PROC;
}

/* The denied directories around something open must let it be reached. */
static void mark_islands(struct claim *claim)
{
    if (claim->state != STATE_WRITE || claim->above != STATE_DENY)
        return;
    for (struct claim *up = claim->parent; up && up->state == STATE_DENY; up = up->parent)
        up->island = true;
}

static void decide(struct claims *claims)
{
    for (size_t i = 0; i < claims->n; i++) {
        struct claim *claim = &claims->items[i];
        const struct claim *above = claim->parent;

        claim->above = !above ? STATE_NONE : is_own_world(above) ? STATE_NONE : above->state;
        claim->state = state_of(claim);
        mark_islands(claim);
        claim->kind = kind_of(claims, claim);
    }
}

/*
 * A mount lies on a directory entry. Renaming an ancestor takes it along and leaves its old name
 * free to be made again without it. A mount point cannot be renamed, so every writable directory
 * between a restriction and the mount it lies on becomes one.
 */
static int pin_ancestors(struct claims *claims, struct claims *pins, const char *path,
                         struct bly_err *err)
{
    size_t len = parent_length(path, strlen(path));
    struct claim pin = nothing;
    int r = 0;

    pin.pin = true;
    for (; r == 0 && len > 0; len = parent_length(path, len)) {
        struct claim *there = claim_at(claims, path, len);
        bly_autofree char *dir = NULL;

        if (there && there->kind != NO_STEP && there->kind != BLY_STEP_LINK)
            return 0;
        dir = strndup(path, len);
        if (!dir)
            return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
        r = claim_existing(pins, dir, pin, err);
    }
    return r;
}

static bool restricts(const struct claim *claim)
{
    return claim->above == STATE_WRITE &&
           (claim->kind == BLY_STEP_READ || claim->kind == BLY_STEP_MASK_DIR ||
            claim->kind == BLY_STEP_MASK_FILE || claim->kind == BLY_STEP_PIN_LINK);
}

/* 1: there are some. */
static int add_pins(struct claims *claims, struct bly_err *err)
{
    __attribute__((cleanup(claims_deinit))) struct claims pins = {.draft = claims->draft};
    const struct bly_plan *plan = claims->draft->plan;
    int r = 0;

    for (size_t i = 0; r == 0 && i < claims->n; i++)
        if (restricts(&claims->items[i]))
            r = pin_ancestors(claims, &pins, claims->items[i].path, err);
    for (size_t i = 0; r == 0 && i < plan->n_absents; i++) {
        bly_autofree char *path = NULL;

        if (i > 0 && strcmp(plan->absents[i - 1].dir, plan->absents[i].dir) == 0)
            continue; /* the same ancestors */
        path = bly_path_join(plan->absents[i].dir, plan->absents[i].name);
        r = path ? pin_ancestors(claims, &pins, path, err)
                 : bly_fail_sys(err, ENOMEM, "cannot plan %s", plan->absents[i].dir);
    }
    for (size_t i = 0; r == 0 && i < pins.n; i++) {
        r = add_claim(claims, pins.items[i].path, &pins.items[i], err);
        if (r == 0)
            r = bly_draft_mark(claims->draft, BLY_MARK_NODE, pins.items[i].path,
                               &pins.items[i].node, NULL, err);
    }
    return r < 0 ? r : pins.n > 0;
}

/* ---- emitting ---- */

static int emit(struct claims *claims, struct claim *claim, struct bly_err *err)
{
    struct bly_plan *plan = claims->draft->plan;
    struct claim *on = claim->parent;
    struct bly_step *step;

    if (claim->kind == NO_STEP)
        return 0;
    while (on && on->kind == NO_STEP)
        on = on->parent;

    step = bly_list_add(plan->steps, &plan->n_steps, sizeof(*plan->steps));
    if (!step)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", claim->path);
    plan->steps = step;
    step += plan->n_steps - 1;
    claim->step = (uint32_t)plan->n_steps - 1;
    step->kind = (enum bly_step_kind)claim->kind;
    step->on = on ? on->step : 0;
    step->node = claim->node;
    if (step->kind == BLY_STEP_TMPFS)
        step->mode = claim->state == STATE_DENY ? 0111 : 0755;
    if (step->kind == BLY_STEP_MASK_DIR)
        step->mode = claim->island ? 0111 : 0;
    step->path = strdup(claim->path);
    if (step->kind == BLY_STEP_LINK)
        step->text = strdup(claim->link);
    if (!step->path || (step->kind == BLY_STEP_LINK && !step->text))
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", claim->path);
    return 0;
}

int bly_draft_steps(struct bly_draft *draft, struct bly_err *err)
{
    __attribute__((cleanup(claims_deinit))) struct claims claims = {.draft = draft};
    int r = collect(&claims, err);

    if (r == 0)
        r = sort_claims(&claims, err);
    if (r < 0)
        return r;
    decide(&claims); /* islands are known only after the first pass */
    decide(&claims);
    r = add_pins(&claims, err);
    if (r > 0)
        r = sort_claims(&claims, err);
    if (r < 0)
        return r;
    decide(&claims);
    for (size_t i = 0; r == 0 && i < claims.n; i++)
        r = emit(&claims, &claims.items[i], err);
    return r;
}
