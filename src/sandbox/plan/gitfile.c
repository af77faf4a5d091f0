/*
 * A repository's hooks and configuration are not always in `.git`: it may be a file that names the
 * real directory (worktrees, submodules), a symlink, or share its hooks through `commondir`. What
 * these lead to is protected like `.git` itself when it lies inside something writable (3.4).
 */
#include "sandbox/plan/draft.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"

static int protect(struct bly_draft *draft, const char *path, struct bly_err *err)
{
    struct bly_policy *policy = draft->plan->policy;
    struct bly_denial reason = {0};

    if (bly_draft_parent_access(policy, path) != BLY_ACCESS_WRITE)
        return 0;
    (void)bly_policy_explain(policy, path, &reason);
    if (reason.by == BLY_BY_NAME)
        return 0;
    return bly_draft_add_rule(policy, path, BLY_ACCESS_READ, BLY_RULE_IMPLIED, err);
}

/* The crossings from `first` on are links of the repository, not of a grant: pin those that could
 * be replaced from inside, and forget them. */
static int pin_links(struct bly_draft *draft, size_t first, struct bly_err *err)
{
    int r = 0;

    for (size_t i = first; r == 0 && i < draft->n_crossings; i++) {
        const char *link = draft->crossings[i].path;

        if (bly_draft_parent_access(draft->plan->policy, link) == BLY_ACCESS_WRITE) {
            r = protect(draft, link, err);
            if (r == 0 && bly_names_add_once(&draft->pointed, link) < 0)
                r = bly_fail_sys(err, ENOMEM, "cannot plan %s", link);
        }
    }
    bly_draft_drop_crossings(draft, first);
    return r;
}

static int chase(struct bly_draft *draft, const char *path, struct bly_spot *ret_spot,
                 struct bly_err *err)
{
    size_t first = draft->n_crossings;
    int r = bly_draft_walk(draft, path, false, ret_spot, err);

    if (r == 0)
        r = pin_links(draft, first, err);
    if (r == 0)
        r = bly_draft_mark_spot(draft, ret_spot, err);
    if (r == 0)
        r = protect(draft, ret_spot->path, err);
    return r;
}

/*
 * First line of the small file `path` after `prefix`, NULL when it does not begin with it. The text
 * is part of what the plan depends on.
 */
static int read_pointer(struct bly_draft *draft, const char *path, const char *prefix,
                        char **ret_target, struct bly_err *err)
{
    bly_autofree char *text = NULL;
    int r = draft->probe->read_small(draft->probe->ctx, path, BLY_POINTER_MAX, &text);

    *ret_target = NULL;
    /* What the server may not read, nobody inside may read or change either. */
    if (r == -ENOENT || r == -EACCES)
        return 0;
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot read %s", path);
    if (strlen(text) >= BLY_POINTER_MAX)
        return bly_fail(err, BLY_ERR_INVALID, EFBIG, "%s is too large for a pointer file", path);
    r = bly_draft_mark(draft, BLY_MARK_TEXT, path, &(struct bly_node){0}, text, err);
    if (r < 0 || strncmp(text, prefix, strlen(prefix)) != 0)
        return r;
    *ret_target = strndup(text + strlen(prefix), strcspn(text + strlen(prefix), "\r\n"));
    return *ret_target ? 0 : bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
}

/* `target` as a file in `dir` names it; not resolved, "." and ".." still in it. */
static char *relative_to(const char *dir, const char *target)
{
    char *path = NULL;

    if (target[0] == '/')
        return strdup(target);
    return asprintf(&path, "%s/%s", dir, target) < 0 ? NULL : path;
}

static int follow_pointer(struct bly_draft *draft, const char *dir, const char *file,
                          const char *prefix, struct bly_spot *ret_spot, struct bly_err *err)
{
    bly_autofree char *target = NULL;
    bly_autofree char *path = NULL;
    int r = read_pointer(draft, file, prefix, &target, err);

    if (r < 0 || !target || !*target)
        return r;
    path = relative_to(dir, target);
    if (!path)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", file);
    return chase(draft, path, ret_spot, err);
}

static int follow_commondir(struct bly_draft *draft, const char *dir, struct bly_err *err)
{
    bly_autospot struct bly_spot common = {0};
    bly_autofree char *file = bly_path_join(dir, "commondir");

    if (!file)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", dir);
    return follow_pointer(draft, dir, file, "", &common, err);
}

/* `.git` of `root` leads to `spot`. */
static int follow_git(struct bly_draft *draft, const char *root, const struct bly_spot *spot,
                      struct bly_err *err)
{
    bly_autospot struct bly_spot real = {0};
    int r;

    if (spot->state != BLY_SPOT_FOUND)
        return 0;
    if (spot->node.type == BLY_NODE_DIR)
        return follow_commondir(draft, spot->path, err);
    if (spot->node.type != BLY_NODE_FILE)
        return 0;
    r = follow_pointer(draft, root, spot->path, "gitdir: ", &real, err);
    if (r < 0 || !real.path || real.state != BLY_SPOT_FOUND || real.node.type != BLY_NODE_DIR)
        return r;
    return follow_commondir(draft, real.path, err);
}

static int follow_name(struct bly_draft *draft, const char *name, struct bly_err *err)
{
    bly_autospot struct bly_spot spot = {0};
    bly_autofree char *root = bly_path_parent(name);
    int r;

    if (!root)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", name);
    if (bly_draft_parent_access(draft->plan->policy, name) != BLY_ACCESS_WRITE)
        return 0;
    r = chase(draft, name, &spot, err);
    if (r < 0 || strcmp(bly_path_base(name), ".git") != 0)
        return r;
    return follow_git(draft, root, &spot, err);
}

int bly_draft_pointers(struct bly_draft *draft, struct bly_err *err)
{
    struct bly_names names = {0};
    const struct bly_policy *policy = draft->plan->policy;
    int r = 0;

    /* Following adds rules, so those of the client that are about such names are collected first.
     */
    for (size_t i = 0; i < policy->n_rules; i++)
        if (policy->rules[i].access == BLY_ACCESS_READ &&
            bly_policy_is_protected_name(bly_path_base(policy->rules[i].path)) &&
            bly_names_add(&names, policy->rules[i].path) < 0)
            r = bly_fail_sys(err, ENOMEM, "cannot plan the sandbox");
    for (size_t i = 0; r == 0 && i < draft->n_names; i++)
        r = follow_name(draft, draft->names[i].path, err);
    for (size_t i = 0; r == 0 && i < names.n; i++)
        r = follow_name(draft, names.items[i], err);
    bly_names_deinit(&names);
    return r;
}
