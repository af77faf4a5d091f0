#include "fs/fold.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/casefold.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "sandbox/policy/glob.h"

static bool means(const char *text, const char *key)
{
    bly_autofree char *folded = bly_casefold_dup(text);

    return folded && strcmp(folded, key) == 0;
}

/* From a reason of the folded policy to one of the policy that the client knows. */
static void translate(const struct bly_fold *fold, struct bly_denial *reason)
{
    const struct bly_policy *policy = fold->policy, *folded = fold->folded;
    size_t i = 0, n = 0;

    if (reason->by == BLY_BY_RULE || reason->by == BLY_BY_NAME) {
        const struct bly_rule *rule = &folded->rules[reason->index];

        n = policy->n_rules;
        while (i < n && (policy->rules[i].access != rule->access ||
                         !means(policy->rules[i].path, rule->path)))
            i++;
    } else if (reason->by == BLY_BY_GLOB) {
        n = policy->n_deny_globs;
        while (i < n && !means(policy->deny_globs[i], folded->deny_globs[reason->index]))
            i++;
    }
    reason->index = (uint32_t)i;
    if (i == n) {
        reason->by = BLY_BY_NOTHING;
        reason->index = 0;
        reason->name = 0;
    }
}

static bool is_stricter(enum bly_access access, enum bly_access than)
{
    return than == BLY_ACCESS_WRITE
               ? access != BLY_ACCESS_WRITE
               : than == BLY_ACCESS_READ && access != BLY_ACCESS_READ && access != BLY_ACCESS_WRITE;
}

/* How much of `path`, up to a slash, begins the `len` bytes of `text` in the same letters. */
static size_t common_dir(const char *path, const char *text, size_t len)
{
    size_t common = 0, i = 0;

    for (; i < len && text[i] == path[i]; i++)
        if (path[i] == '/')
            common = i;
    return i == len && path[i] == '/' ? len : common;
}

/* The smaller one of `first` and the length of the directory on `path` in which other letters make
 * a rule for `text` apply to it. */
static size_t earlier(size_t first, const char *text, const char *path, const char *key)
{
    bly_autofree char *folded = bly_casefold_dup(text);
    size_t len = common_dir(path, text, strlen(text));

    return len < first && !bly_path_is_within(path, text) &&
                   (!folded || bly_path_is_within(key, folded))
               ? len
               : first;
}

/* The length of the first directory on `path` in which other letters make something apply to it;
 * that of `path` when nothing does. Looks for everything, as it is next to never needed. */
static size_t first_difference(const struct bly_policy *policy, const char *path, const char *key)
{
    size_t first = strlen(path);

    for (size_t i = 0; i < policy->n_rules; i++) {
        const struct bly_rule *rule = &policy->rules[i];

        first = earlier(first, rule->path, path, key);
        for (size_t k = 0; bly_rule_protects(rule) && k < BLY_PROTECTED_NAMES; k++) {
            bly_autofree char *name = bly_path_join(rule->path, bly_policy_protected_names[k]);

            first = name ? earlier(first, name, path, key) : 0;
        }
    }
    for (size_t i = 0; i < policy->n_deny_globs; i++) {
        const char *glob = policy->deny_globs[i];
        bly_autofree char *folded = bly_casefold_dup(glob);
        size_t len = common_dir(path, glob, bly_glob_literal_dir(glob));

        if (len < first && (!folded || bly_glob_covers(folded, key)))
            first = len;
    }
    return first;
}

/* Whether one of the directories folds in whose names `path` differs from what applies to it. */
static bool lies_in_fold(const struct bly_fold *fold, const char *path, size_t first)
{
    bly_autofree char *dir = strdup(path);
    char *slash;

    if (dir == NULL)
        return true;
    while ((slash = strrchr(dir, '/')) != NULL && (size_t)(slash - dir) >= first && slash != dir) {
        *slash = '\0';
        if (fold->folds(dir))
            return true;
    }
    return first == 0 && fold->folds("/");
}

enum bly_access bly_fold_explain(const struct bly_fold *fold, const char *path,
                                 struct bly_denial *ret_reason)
{
    enum bly_access access = bly_policy_explain(fold->policy, path, ret_reason), strict;
    bly_autofree char *key = NULL;
    struct bly_denial reason = *ret_reason;

    if (!fold->policy->wall || (access != BLY_ACCESS_READ && access != BLY_ACCESS_WRITE))
        return access;
    key = fold->folded ? bly_casefold_dup(path) : NULL;
    if (key == NULL) /* no memory: only what folds nowhere is certain */
        return lies_in_fold(fold, path, 0) ? BLY_ACCESS_DENY : access;
    strict = bly_policy_explain(fold->folded, key, &reason);
    if (!is_stricter(strict, access) ||
        !lies_in_fold(fold, path, first_difference(fold->policy, path, key)))
        return access;
    translate(fold, &reason);
    *ret_reason = reason;
    return strict;
}

enum bly_access bly_fold_decide(const struct bly_fold *fold, const char *path)
{
    struct bly_denial reason = {0};

    return bly_fold_explain(fold, path, &reason);
}

bool bly_fold_holds(const struct bly_fold *fold, const char *path,
                    bool (*test)(const struct bly_policy *policy, const char *path))
{
    bly_autofree char *key = fold->folded ? bly_casefold_dup(path) : NULL;

    if (!test(fold->policy, path))
        return false;
    return (key && test(fold->folded, key)) || !lies_in_fold(fold, path, 0);
}

bool bly_fold_on_disk(const char *dir)
{
    bly_autofd int fd =
        open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd < 0) /* what does not exist has no names in it */
        return errno != ENOENT && errno != ENOTDIR && errno != ELOOP;
    return bly_casefold_in(fd);
}
