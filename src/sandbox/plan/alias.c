/*
 * The same object in two places. A restriction is a mount on one path; where the host has the same
 * file system mounted a second time (bind mounts, containers, snapshots) the restricted object is
 * reachable under another name, where nothing holds it. The host's mount table says where.
 */
#include "sandbox/plan/draft.h"
#include "sandbox/plan/mounts.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"

/* The mount that holds `path`: the deepest one, and of those the one mounted last. */
static const struct bly_mount *mount_of(const struct bly_mounts *mounts, const char *path)
{
    const struct bly_mount *best = NULL;
    size_t best_len = 0, path_len = strlen(path);

    for (size_t i = 0; i < mounts->n; i++) {
        const struct bly_mount *m = &mounts->items[i];

        /* One of this length can only hold a path that has a slash there, or its end. */
        if (m->point_len < best_len || m->point_len > path_len ||
            (m->point_len > 1 && path[m->point_len] != '/' && path[m->point_len] != '\0'))
            continue;
        if (bly_path_is_within(path, m->point)) {
            best = m;
            best_len = m->point_len;
        }
    }
    return best;
}

static int compare_devices(const void *a, const void *b)
{
    const struct bly_mount *const *x = a, *const *y = b;

    return strcmp((*x)->device, (*y)->device);
}

/* Marks the mounts of file systems that are mounted more than once. Returns 1 if there are any, 0;
 * -ENOMEM. */
static int find_twins(struct bly_mounts *mounts)
{
    bly_autofree struct bly_mount **order = calloc(mounts->n + 1, sizeof(*order));
    int any = 0;

    if (!order)
        return -ENOMEM;
    for (size_t i = 0; i < mounts->n; i++)
        order[i] = &mounts->items[i];
    qsort(order, mounts->n, sizeof(*order), compare_devices);
    for (size_t i = 1; i < mounts->n; i++)
        if (strcmp(order[i - 1]->device, order[i]->device) == 0)
            any = order[i - 1]->has_twin = order[i]->has_twin = true;
    return any;
}

/* What is left of `path` behind `dir`, without a leading slash. */
static const char *behind(const char *path, const char *dir)
{
    path += strcmp(dir, "/") == 0 ? 0 : strlen(dir);
    return path + strspn(path, "/");
}

static char *join(const char *dir, const char *rest)
{
    return *rest ? bly_path_join(dir, rest) : strdup(dir);
}

static bool same_node(struct bly_draft *draft, const char *a, const char *b)
{
    struct bly_node x = {0}, y = {0};

    return bly_draft_look(draft, a, &x, NULL) == 0 && bly_draft_look(draft, b, &y, NULL) == 0 &&
           x.type == y.type && x.dev == y.dev && x.ino == y.ino;
}

/* Holds for things that exist and for names that are missing in the same directory. */
static bool same_object(struct bly_draft *draft, const char *a, const char *b)
{
    struct bly_node node = {0};
    bly_autofree char *dir_a = NULL;
    bly_autofree char *dir_b = NULL;

    if (!same_node(draft, a, b))
        return false;
    if (bly_draft_look(draft, a, &node, NULL) < 0 || node.type != BLY_NODE_ABSENT)
        return true;
    dir_a = bly_path_parent(a);
    dir_b = bly_path_parent(b);
    return dir_a && dir_b && strcmp(bly_path_base(a), bly_path_base(b)) == 0 &&
           same_node(draft, dir_a, dir_b);
}

/* Restricts the other name as well, if the policy opens it further than the restriction allows. */
static int restrict_alias(struct bly_draft *draft, const char *alias, enum bly_access access,
                          struct bly_err *err)
{
    struct bly_policy *policy = draft->plan->policy;
    enum bly_access now = bly_policy_decide(policy, alias);

    if (now == BLY_ACCESS_NONE || now == BLY_ACCESS_DENY || now == access)
        return 0;
    return bly_draft_set_rule(policy, alias, access, err);
}

static int check_mount(struct bly_draft *draft, const char *path, enum bly_access access,
                       const char *in_fs, const struct bly_mount *home,
                       const struct bly_mount *other, struct bly_err *err)
{
    bly_autofree char *alias = NULL;
    bly_autofree char *original = NULL;
    bool part = false;

    if (other == home || strcmp(other->device, home->device) != 0)
        return 0;
    if (bly_path_is_within(in_fs, other->root)) {
        alias = join(other->point, behind(in_fs, other->root));
        original = strdup(path);
    } else if (bly_path_is_within(other->root, in_fs)) {
        alias = strdup(other->point);
        original = join(path, behind(other->root, in_fs));
        part = true;
    } else {
        return 0;
    }
    if (!alias || !original)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
    /* Below the restriction itself it is covered; elsewhere it must really be the same object, not
     * something that a later mount covers. */
    if (bly_path_is_within(alias, path) || !same_object(draft, alias, original))
        return 0;
    /* A mount of something inside the restricted tree that the client named itself is his choice.
     */
    if (part && bly_draft_has_rule(draft->plan->policy, alias))
        return 0;
    return restrict_alias(draft, alias, access, err);
}

static int check_rule(struct bly_draft *draft, const struct bly_mounts *mounts, const char *path,
                      enum bly_access access, struct bly_err *err)
{
    const struct bly_mount *home = mount_of(mounts, path);
    bly_autofree char *in_fs = NULL;
    int r = 0;

    if (!home || !home->has_twin)
        return 0;
    in_fs = join(home->root, behind(path, home->point));
    if (!in_fs)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
    for (size_t i = 0; r == 0 && i < mounts->n; i++)
        r = check_mount(draft, path, access, in_fs, home, &mounts->items[i], err);
    return r;
}

/*
 * Where nothing can be mounted Landlock is given everything beside the way to `point`, name by name
 * (unmounted.h). What comes later has no rule, so the names there are part of the fingerprint.
 */
static int mark_surroundings(struct bly_draft *draft, const char *point, struct bly_err *err)
{
    static const struct bly_node none = {0};
    const struct bly_probe *probe = draft->probe;
    bly_autofree char *dir = bly_path_parent(point);

    while (dir && strcmp(dir, "/") != 0) {
        bly_autofree char *text = NULL;
        char *above = bly_path_parent(dir);
        int r = 0;

        if (bly_policy_decide(draft->plan->policy, dir) == BLY_ACCESS_READ &&
            bly_plan_digest_names(probe, dir, &text) == 0)
            r = bly_draft_mark(draft, BLY_MARK_LISTING, dir, &none, text, err);
        free(dir);
        dir = above;
        if (r < 0)
            return r;
    }
    return dir ? 0 : bly_fail_sys(err, ENOMEM, "cannot plan %s", point);
}

/* The host's processes show through every procfs, wherever it is mounted. */
static int close_foreign_proc(struct bly_draft *draft, const struct bly_mounts *mounts,
                              struct bly_err *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < mounts->n; i++) {
        const struct bly_mount *m = &mounts->items[i];

        if (strcmp(m->type, "proc") != 0 || bly_path_is_within(m->point, "/proc"))
            continue;
        if (bly_names_add_once(&draft->closed, m->point) < 0)
            return bly_fail_sys(err, ENOMEM, "cannot plan %s", m->point);
        /* By rule as well, for a helper's decision and where nothing can be mounted. */
        if (!draft->plan->network_only)
            r = bly_draft_deny_for_good(draft->plan->policy, m->point, err);
        if (r == 0 && draft->plan->purpose == BLY_FOR_HELPER)
            r = mark_surroundings(draft, m->point, err);
    }
    return r;
}

static bool restricts(const struct bly_policy *policy, const struct bly_rule *rule)
{
    return rule->access == BLY_ACCESS_DENY ||
           (rule->access == BLY_ACCESS_READ &&
            bly_draft_parent_access(policy, rule->path) == BLY_ACCESS_WRITE);
}

/*
 * The table is part of what the plan depends on. What is mounted below a root later is not in a
 * wall that stands, so requests would go to what it covers; and another name for something that is
 * restricted might have come.
 */
static int mark_mounts(struct bly_draft *draft, const struct bly_mounts *mounts,
                       struct bly_err *err)
{
    static const struct bly_node none = {0};
    bly_autofree char *text = bly_mounts_print(mounts);

    if (!text)
        return bly_fail_sys(err, ENOMEM, "cannot plan the sandbox");
    return bly_draft_mark(draft, BLY_MARK_MOUNTS, BLY_MOUNTS_PATH, &none, text, err);
}

static int restrict_aliases(struct bly_draft *draft, struct bly_mounts *mounts, struct bly_err *err)
{
    struct bly_policy *before;
    int r = find_twins(mounts);

    if (r == 0)
        return 0;
    /* A copy: the rules move meanwhile. */
    before = r < 0 ? NULL : bly_policy_spell_out(draft->plan->policy);
    if (!before)
        return bly_fail_sys(err, ENOMEM, "cannot plan the sandbox");
    r = 0;
    for (size_t i = 0; r == 0 && i < before->n_rules; i++)
        if (restricts(before, &before->rules[i]))
            r = check_rule(draft, mounts, before->rules[i].path, before->rules[i].access, err);
    bly_policy_unref(before);
    return r;
}

int bly_draft_aliases(struct bly_draft *draft, struct bly_err *err)
{
    __attribute__((cleanup(bly_mounts_deinit))) struct bly_mounts mounts = {0};
    int r = bly_mounts_read(draft->probe, &mounts, err);

    if (r == 0)
        r = mark_mounts(draft, &mounts, err);
    if (r == 0)
        r = restrict_aliases(draft, &mounts, err);
    /* Last: its rules have no aliases, all of procfs is one object. */
    return r < 0 ? r : close_foreign_proc(draft, &mounts, err);
}
