/*
 * Deny globs. The helper decides on names, so it needs only patterns that begin with canonical
 * directories. A foreign program cannot be asked: what matches when the plan is made is masked.
 */
#include "sandbox/plan/draft.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/casefold.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "sandbox/plan/kept.h"
#include "sandbox/policy/glob.h"
#include "sandbox/policy/rules.h"

enum { GLOB_MAX_MATCHES = 8192, GLOB_MAX_VISITS = 50000 };

static int rebase(char **pattern, const char *base, size_t old_len, struct bly_err *err)
{
    bly_autofree char *escaped = bly_glob_escape(strcmp(base, "/") == 0 ? "" : base);
    char *rebased;

    if (!escaped || asprintf(&rebased, "%s%s", escaped, *pattern + old_len) < 0)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", *pattern);
    free(*pattern);
    *pattern = rebased;
    return 0;
}

int bly_draft_glob_bases(struct bly_draft *draft, struct bly_err *err)
{
    struct bly_policy *policy = draft->plan->policy;

    for (size_t i = 0; i < policy->n_deny_globs; i++) {
        bly_autospot struct bly_spot spot = {0};
        char **pattern = &policy->deny_globs[i];
        size_t len = 0;
        bly_autofree char *base = bly_glob_base(*pattern, &len);
        int r;

        if (!base)
            return bly_fail_sys(err, ENOMEM, "cannot plan %s", *pattern);
        if (len == 0)
            continue;
        r = bly_draft_walk(draft, base, false, &spot, err);
        if (r == 0)
            r = bly_draft_mark_spot(draft, &spot, err);
        if (r == 0 && strcmp(spot.path, base) != 0)
            r = rebase(pattern, spot.path, len, err);
        if (r < 0)
            return r;
    }
    bly_policy_sort_globs(policy);
    return 0;
}

/* One pattern being expanded. */
struct hunt {
    struct bly_draft *draft;
    const char *pattern;
    const char *dir;            /* being listed */
    bool folds;                 /* as far as is known: it folds case */
    char *folding;              /* one that does and that we are below, or NULL */
    char *folded;               /* the pattern in the form of base/casefold.h */
    char *base;                 /* where the walk begins */
    size_t max_depth;           /* of an entry, counted from "/"; 0: unlimited */
    struct bly_names dirs;      /* still to be listed */
    struct bly_kept_walk *walk; /* NULL: it is not kept */
    size_t *visits;             /* over all patterns */
    int error;
    struct bly_err *err;
};

/* Not kept among what was seen: a tree has many files, and each is visited once a pattern. */
static int type_of(struct hunt *hunt, const char *path, enum bly_node_type *type)
{
    const struct bly_probe *probe = hunt->draft->probe;
    struct bly_node node = {0};
    int r = *type == BLY_NODE_ABSENT ? probe->look(probe->ctx, path, &node) : 0;

    if (r < 0 && r != -EACCES)
        return bly_fail_sys(hunt->err, -r, "cannot look at %s", path);
    if (*type == BLY_NODE_ABSENT)
        *type = node.type;
    return 0;
}

/* In whatever letters the pattern is written, where case is folded. `path` is no longer than one.
 */
static bool matches(const struct hunt *hunt, const char *path)
{
    char key[PATH_MAX];

    if (bly_glob_match(hunt->pattern, path))
        return true;
    if (!hunt->folds && !hunt->folding)
        return false;
    bly_casefold(path, strlen(path), key);
    return bly_glob_match(hunt->folded, key);
}

static int visit(void *arg, const char *name, enum bly_node_type type)
{
    struct hunt *hunt = arg;
    bly_autofree char *path = bly_path_join(hunt->dir, name);

    if (!path)
        return hunt->error = bly_fail_sys(hunt->err, ENOMEM, "cannot expand %s", hunt->pattern);
    if (++*hunt->visits > GLOB_MAX_VISITS || hunt->draft->closed.n >= GLOB_MAX_MATCHES ||
        strlen(path) >= PATH_MAX)
        return hunt->error = bly_fail(hunt->err, BLY_ERR_LIMIT, E2BIG,
                                      "the deny pattern %s matches or visits too much to be "
                                      "enforced for a process",
                                      hunt->pattern);
    if (matches(hunt, path)) {
        if (bly_names_add(&hunt->draft->closed, path) < 0)
            hunt->error = bly_fail_sys(hunt->err, ENOMEM, "cannot expand %s", hunt->pattern);
        return hunt->error;
    }
    hunt->error = type_of(hunt, path, &type);
    if (hunt->error == 0 && type == BLY_NODE_DIR &&
        (hunt->max_depth == 0 || bly_path_depth(path) < hunt->max_depth) &&
        bly_names_add(&hunt->dirs, path) < 0)
        hunt->error = bly_fail_sys(hunt->err, ENOMEM, "cannot expand %s", hunt->pattern);
    return hunt->error;
}

/* Where case is folded names are told in any letters: what happens there cannot be kept up with. */
static int note_folding(struct hunt *hunt)
{
    bly_kept_walk_lose(hunt->walk);
    if (!hunt->folding)
        hunt->folding = strdup(hunt->dir);
    return hunt->folding ? 0 : bly_fail_sys(hunt->err, ENOMEM, "cannot expand %s", hunt->pattern);
}

static int list_one(struct hunt *hunt)
{
    struct bly_draft *draft = hunt->draft;
    int r;

    /* All that is in a directory comes right behind it. */
    if (hunt->folding && !bly_path_is_within(hunt->dir, hunt->folding))
        bly_freep(&hunt->folding);
    hunt->folds = false;
    bly_kept_walk_lists(hunt->walk, hunt->dir);
    r = draft->probe->list(draft->probe->ctx, hunt->dir, &hunt->folds, visit, hunt);
    if (hunt->error == 0 && hunt->folds)
        hunt->error = note_folding(hunt);
    if (hunt->error < 0)
        return hunt->error;
    if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
        return 0; /* it went, or became something else: nothing there to be masked */
    /* What cannot be searched through for matches may hold some under names that are known. */
    if (r == -EACCES)
        return bly_names_add(&draft->closed, hunt->dir) < 0
                   ? bly_fail_sys(hunt->err, ENOMEM, "cannot expand %s", hunt->pattern)
                   : 0;
    return r < 0 ? bly_fail_sys(hunt->err, -r, "cannot list %s", hunt->dir) : 0;
}

static size_t deepest(const struct bly_policy *policy, const char *pattern, const char *base)
{
    size_t by_pattern = strstr(pattern, "**") ? 0 : bly_path_depth(pattern);
    size_t by_option =
        policy->glob_scan_max_depth ? bly_path_depth(base) + policy->glob_scan_max_depth : 0;

    if (by_pattern == 0 || by_option == 0)
        return by_pattern + by_option;
    return by_pattern < by_option ? by_pattern : by_option;
}

static int begin_hunt(struct hunt *hunt, struct bly_err *err)
{
    size_t len = 0;

    hunt->base = bly_glob_base(hunt->pattern, &len);
    hunt->folded = bly_casefold_dup(hunt->pattern);
    if (!hunt->base || !hunt->folded)
        return bly_fail_sys(err, ENOMEM, "cannot expand %s", hunt->pattern);
    if (len == 0)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                        "unreadable glob `%s` cannot be safely expanded; use a pattern with a "
                        "non-root directory prefix",
                        hunt->pattern);
    hunt->max_depth = deepest(hunt->draft->plan->policy, hunt->pattern, hunt->base);
    return 0;
}

static void end_hunt(struct hunt *hunt)
{
    bly_names_deinit(&hunt->dirs);
    free(hunt->base);
    free(hunt->folding);
    free(hunt->folded);
}

static int list_all(struct hunt *hunt)
{
    int r = 0;

    while (r == 0 && hunt->dirs.n > 0) {
        bly_autofree char *dir = hunt->dirs.items[--hunt->dirs.n];

        hunt->dir = dir;
        r = list_one(hunt);
    }
    bly_names_deinit(&hunt->dirs);
    return r;
}

/* Whether one of the directories folds case that `path` lies in. */
static bool lies_in_fold(const struct bly_probe *probe, const char *path)
{
    bly_autofree char *dir = bly_path_parent(path);
    bool folds = false;

    if (!dir)
        return true;
    (void)probe->list(probe->ctx, dir, &folds, NULL, NULL);
    return folds || (strcmp(dir, "/") != 0 && lies_in_fold(probe, dir));
}

static int expand(struct hunt *hunt, struct bly_err *err)
{
    if (bly_names_add(&hunt->dirs, hunt->base) < 0)
        return bly_fail_sys(err, ENOMEM, "cannot expand %s", hunt->pattern);
    if (hunt->walk && lies_in_fold(hunt->draft->probe, hunt->base))
        bly_kept_walk_lose(hunt->walk);
    bly_kept_walk_from(hunt->walk, hunt->base);
    return list_all(hunt);
}

/* Whether a walk from the base comes to `path` at all: not when something above is closed. */
static bool would_visit(const struct hunt *hunt, const char *path)
{
    char above[PATH_MAX];
    size_t len = strlen(path), from = strlen(hunt->base) + 1;

    if (!bly_path_is_within(path, hunt->base) || strcmp(path, hunt->base) == 0 ||
        len >= sizeof(above) || (hunt->max_depth != 0 && bly_path_depth(path) > hunt->max_depth))
        return false;
    memcpy(above, path, len + 1);
    for (char *slash = strchr(above + from, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (bly_glob_match(hunt->pattern, above))
            return false;
        *slash = '/';
    }
    return true;
}

/* What the pattern matches at and below `path`, as if the directory it is in were being listed,
 * which does not fold case. */
static int expand_at(struct hunt *hunt, const char *path, struct bly_err *err)
{
    const struct bly_probe *probe = hunt->draft->probe;
    bly_autofree char *dir = NULL;
    struct bly_node node = {0};
    int r;

    if (!would_visit(hunt, path))
        return 0;
    dir = bly_path_parent(path);
    if (!dir)
        return bly_fail_sys(err, ENOMEM, "cannot expand %s", hunt->pattern);
    r = probe->look(probe->ctx, path, &node);
    if (r < 0 && r != -EACCES)
        return bly_fail_sys(err, -r, "cannot look at %s", path);
    if (r < 0 || node.type == BLY_NODE_ABSENT)
        return 0;
    hunt->dir = dir;
    r = visit(hunt, bly_path_base(path), node.type);
    return r == 0 ? list_all(hunt) : r;
}

/* Each pattern, everywhere or in the places that have changed. */
static int expand_all(struct bly_draft *draft, const struct bly_names *changed,
                      struct bly_kept_walk *walk, struct bly_err *err)
{
    const struct bly_policy *policy = draft->plan->policy;
    size_t visits = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < policy->n_deny_globs; i++) {
        struct hunt hunt = {.draft = draft,
                            .pattern = policy->deny_globs[i],
                            .walk = walk,
                            .visits = &visits,
                            .err = err};

        r = begin_hunt(&hunt, err);
        if (r == 0 && !changed)
            r = expand(&hunt, err);
        for (size_t j = 0; r == 0 && changed && j < changed->n; j++)
            r = expand_at(&hunt, changed->items[j], err);
        end_hunt(&hunt);
    }
    return r;
}

/* A directory that was empty can have been made to fold case since, and without any event. */
static bool any_lies_in_fold(const struct bly_probe *probe, const struct bly_names *paths)
{
    for (size_t i = 0; i < paths->n; i++)
        if (lies_in_fold(probe, paths->items[i]))
            return true;
    return false;
}

/* As bly_kept_find(). */
static int find_kept(struct bly_draft *draft, struct bly_names *changed,
                     struct bly_kept_walk **ret_walk)
{
    struct bly_names *closed = &draft->closed;
    size_t before = closed->n;
    int r = bly_kept_find(draft->probe->kept, draft->plan->policy, closed, changed, ret_walk);

    if (r != BLY_KEPT_CHANGED || !any_lies_in_fold(draft->probe, changed))
        return r;
    bly_kept_drop(*ret_walk);
    while (closed->n > before)
        free(closed->items[--closed->n]);
    return BLY_KEPT_NOTHING;
}

int bly_draft_globs(struct bly_draft *draft, struct bly_err *err)
{
    const struct bly_policy *policy = draft->plan->policy;
    struct bly_kept *kept = draft->probe->kept;
    struct bly_names *closed = &draft->closed;
    struct bly_names changed = {0};
    struct bly_kept_walk *walk = NULL;
    size_t before = closed->n;
    int r;

    if (draft->plan->purpose != BLY_FOR_PROCESS || policy->n_deny_globs == 0)
        return 0;
    r = find_kept(draft, &changed, &walk);
    if (r == 0)
        return 0;
    if (r == BLY_KEPT_NOTHING)
        walk = bly_kept_begin(kept, policy);
    if (r > 0)
        r = expand_all(draft, r == BLY_KEPT_CHANGED ? &changed : NULL, walk, err);
    else
        r = bly_fail_sys(err, -r, "cannot expand the deny patterns");
    if (r == 0)
        bly_kept_end(walk, before > 0 ? closed->items + before : closed->items, closed->n - before);
    else
        bly_kept_drop(walk);
    bly_names_deinit(&changed);
    return r;
}
