#include "sandbox/policy/policy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/casefold.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "base/sort.h"
#include "sandbox/policy/glob.h"
#include "sandbox/policy/rules.h"

const char *const bly_policy_platform_defaults[] = {
    "/bin", "/sbin", "/usr", "/etc", "/lib", "/lib64", "/nix/store", "/run/current-system/sw", NULL,
};

const char *const bly_policy_protected_names[BLY_PROTECTED_NAMES + 1] = {".git", ".agents",
                                                                         ".codex", ".aws", NULL};

struct bly_policy *bly_policy_new(void)
{
    struct bly_policy *policy = calloc(1, sizeof(*policy));

    if (policy)
        policy->refs = 1;
    return policy;
}

struct bly_policy *bly_policy_ref(struct bly_policy *policy)
{
    policy->refs++;
    return policy;
}

struct bly_policy *bly_policy_unref(struct bly_policy *policy)
{
    if (!policy || --policy->refs > 0)
        return NULL;
    for (size_t i = 0; i < policy->n_rules; i++)
        free(policy->rules[i].path);
    for (size_t i = 0; i < policy->n_deny_globs; i++)
        free(policy->deny_globs[i]);
    free(policy->rules);
    free(policy->deny_globs);
    free(policy->glob_places);
    free(policy->cwd);
    free(policy);
    return NULL;
}

/* The counts grow with the elements, so that a half-made copy can be freed. */
static int copy_lists(const struct bly_policy *policy, struct bly_policy *copy)
{
    copy->rules = calloc(policy->n_rules + 1, sizeof(*copy->rules));
    copy->deny_globs = calloc(policy->n_deny_globs + 1, sizeof(*copy->deny_globs));
    if (!copy->rules || !copy->deny_globs)
        return -ENOMEM;

    for (size_t i = 0; i < policy->n_rules; i++) {
        copy->rules[i] = policy->rules[i];
        copy->rules[i].path = strdup(policy->rules[i].path);
        if (!copy->rules[i].path)
            return -ENOMEM;
        copy->n_rules++;
    }
    for (size_t i = 0; i < policy->n_deny_globs; i++) {
        copy->deny_globs[i] = strdup(policy->deny_globs[i]);
        if (!copy->deny_globs[i])
            return -ENOMEM;
        copy->n_deny_globs++;
    }
    return 0;
}

struct bly_policy *bly_policy_copy(const struct bly_policy *policy)
{
    struct bly_policy *copy = bly_policy_new();

    if (!copy)
        return NULL;
    copy->wall = policy->wall;
    copy->network = policy->network;
    copy->minimal = policy->minimal;
    copy->glob_scan_max_depth = policy->glob_scan_max_depth;
    copy->reads_all = policy->reads_all;
    copy->writes_all = policy->writes_all;
    if (policy->cwd && !(copy->cwd = strdup(policy->cwd)))
        return bly_policy_unref(copy);
    if (copy_lists(policy, copy) < 0)
        return bly_policy_unref(copy);
    return copy;
}

static int spell_out_names(struct bly_policy *copy, const struct bly_policy *policy)
{
    struct bly_rule *rules =
        reallocarray(copy->rules, policy->n_rules * (BLY_PROTECTED_NAMES + 1) + 1, sizeof(*rules));

    if (!rules)
        return -ENOMEM;
    copy->rules = rules;
    for (size_t i = 0; i < policy->n_rules * BLY_PROTECTED_NAMES; i++) {
        const struct bly_rule *root = &policy->rules[i / BLY_PROTECTED_NAMES];
        bly_autofree char *path = NULL;

        if (!bly_rule_protects(root))
            continue;
        path = bly_path_join(root->path, bly_policy_protected_names[i % BLY_PROTECTED_NAMES]);
        if (!path)
            return -ENOMEM;
        if (bly_rules_find(policy->rules, policy->n_rules, path))
            continue;
        rules[copy->n_rules++] = (struct bly_rule){.path = bly_take_ptr(&path),
                                                   .access = BLY_ACCESS_READ,
                                                   .flags = BLY_RULE_IMPLIED,
                                                   .depth = root->depth + 1};
    }
    return 0;
}

struct bly_policy *bly_policy_spell_out(const struct bly_policy *policy)
{
    struct bly_policy *copy = bly_policy_copy(policy);

    if (!copy)
        return NULL;
    if (spell_out_names(copy, policy) < 0)
        return bly_policy_unref(copy);
    copy->n_rules = bly_rules_sort(copy->rules, copy->n_rules);
    return copy;
}

/* Where the patterns of one directory begin in the list that is sorted by these directories. */
struct bly_glob_place {
    const char *pattern; /* borrowed from deny_globs */
    size_t dir_len;      /* of the plain directory in front, 0 stands for the root */
    size_t index;        /* in deny_globs */
};

static int compare_dirs(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

    return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

static int compare_places(const void *left, const void *right)
{
    const struct bly_glob_place *a = left, *b = right;

    return compare_dirs(a->pattern, a->dir_len, b->pattern, b->dir_len);
}

/*
 * A pattern covers only what lies below its plain directory, so a path needs to be compared with
 * the patterns of its own ancestors and no others. Without memory all are tried: slower, never
 * wrong.
 */
static void derive_glob_places(struct bly_policy *policy)
{
    size_t n = policy->n_deny_globs;

    free(policy->glob_places);
    policy->glob_places = n > 0 ? calloc(n, sizeof(*policy->glob_places)) : NULL;
    if (!policy->glob_places)
        return;
    for (size_t i = 0; i < n; i++)
        policy->glob_places[i] = (struct bly_glob_place){
            policy->deny_globs[i], bly_glob_literal_dir(policy->deny_globs[i]), i};
    qsort(policy->glob_places, n, sizeof(*policy->glob_places), compare_places);
}

static int compare_texts(const void *left, const void *right)
{
    const char *const *a = left;
    const char *const *b = right;

    return strcmp(*a, *b);
}

void bly_policy_sort_globs(struct bly_policy *policy)
{
    char **globs = policy->deny_globs;
    size_t kept = 0;

    bly_sort(globs, policy->n_deny_globs, sizeof(*globs), compare_texts);
    for (size_t i = 0; i < policy->n_deny_globs; i++) {
        if (kept > 0 && strcmp(globs[kept - 1], globs[i]) == 0)
            free(globs[i]);
        else
            globs[kept++] = globs[i];
    }
    policy->n_deny_globs = kept;
}

void bly_policy_forget_globs(struct bly_policy *policy)
{
    free(policy->glob_places);
    policy->glob_places = NULL;
}

void bly_policy_derive(struct bly_policy *policy)
{
    enum bly_access root = BLY_ACCESS_NONE;
    bool hides = policy->n_deny_globs > 0;

    if (policy->n_rules > 0 && policy->rules[0].path[1] == '\0')
        root = policy->rules[0].access;
    for (size_t i = 0; i < policy->n_rules; i++)
        hides = hides || (policy->rules[i].access == BLY_ACCESS_DENY &&
                          !(policy->rules[i].flags & BLY_RULE_IMPLIED));
    derive_glob_places(policy);

    policy->writes_all = !policy->wall || root == BLY_ACCESS_WRITE;
    policy->reads_all = !policy->wall || (!hides && root != BLY_ACCESS_NONE);
}

struct bly_policy *bly_policy_casefold(const struct bly_policy *policy)
{
    struct bly_policy *copy = bly_policy_copy(policy);

    if (!copy)
        return NULL;
    for (size_t i = 0; i < copy->n_rules; i++)
        bly_casefold(policy->rules[i].path, strlen(policy->rules[i].path), copy->rules[i].path);
    for (size_t i = 0; i < copy->n_deny_globs; i++)
        bly_casefold(policy->deny_globs[i], strlen(policy->deny_globs[i]), copy->deny_globs[i]);
    copy->n_rules = bly_rules_sort(copy->rules, copy->n_rules);
    bly_policy_derive(copy);
    return copy;
}

bool bly_policy_is_platform_default(const char *path)
{
    for (const char *const *dir = bly_policy_platform_defaults; *dir; dir++) {
        if (bly_path_is_within(path, *dir))
            return true;
    }
    return false;
}

/* The first pattern whose directory is not in front of this one. */
static size_t find_place(const struct bly_policy *policy, const char *dir, size_t len)
{
    size_t low = 0, high = policy->n_deny_globs;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct bly_glob_place *place = &policy->glob_places[middle];

        if (compare_dirs(place->pattern, place->dir_len, dir, len) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The three return n_deny_globs when no pattern covers the path. */
static size_t find_glob_below(const struct bly_policy *policy, const char *path, size_t dir_len)
{
    for (size_t i = find_place(policy, path, dir_len); i < policy->n_deny_globs; i++) {
        const struct bly_glob_place *place = &policy->glob_places[i];

        if (compare_dirs(place->pattern, place->dir_len, path, dir_len) != 0)
            break;
        if (bly_glob_covers(place->pattern, path))
            return place->index;
    }
    return policy->n_deny_globs;
}

static size_t try_all_globs(const struct bly_policy *policy, const char *path)
{
    size_t i = 0;

    while (i < policy->n_deny_globs && !bly_glob_covers(policy->deny_globs[i], path))
        i++;
    return i;
}

static size_t find_denying_glob(const struct bly_policy *policy, const char *path)
{
    if (!policy->glob_places)
        return try_all_globs(policy, path);
    /* The path itself, too: a pattern may end in stars that match nothing. */
    for (size_t len = 0;; len++) {
        size_t found = policy->n_deny_globs;

        if (path[len] == '/' || path[len] == '\0')
            found = find_glob_below(policy, path, len);
        if (found < policy->n_deny_globs || path[len] == '\0')
            return found;
    }
}

bool bly_rule_protects(const struct bly_rule *rule)
{
    return rule->access == BLY_ACCESS_WRITE && rule->path[1] != '\0';
}

/* The number of the protected name with these `len` bytes; BLY_PROTECTED_NAMES: it is none. */
static size_t find_protected_name(const char *name, size_t len)
{
    size_t i = 0;

    while (i < BLY_PROTECTED_NAMES && (strncmp(name, bly_policy_protected_names[i], len) != 0 ||
                                       bly_policy_protected_names[i][len] != '\0'))
        i++;
    return i;
}

bool bly_policy_is_protected_name(const char *name)
{
    return find_protected_name(name, strlen(name)) < BLY_PROTECTED_NAMES;
}

/* The one that a path leads to or through right behind `rule`, where `rest` of it begins. */
static size_t protected_by(const struct bly_rule *rule, const char *rest)
{
    if (rest[0] != '/' || rest[1] != '.' || !bly_rule_protects(rule))
        return BLY_PROTECTED_NAMES;
    return find_protected_name(rest + 1, strcspn(rest + 1, "/"));
}

enum bly_access bly_policy_explain(const struct bly_policy *policy, const char *path,
                                   struct bly_denial *ret_reason)
{
    struct bly_rule_walk walk = {.rules = policy->rules, .n = policy->n_rules, .path = path};
    enum bly_access state = BLY_ACCESS_NONE;
    const struct bly_rule *rule;
    size_t glob, name;

    ret_reason->by = BLY_BY_NOTHING;
    ret_reason->index = 0;
    ret_reason->name = 0;
    if (!policy->wall)
        return BLY_ACCESS_WRITE;
    while ((rule = bly_rule_walk_next(&walk)) != NULL) {
        /* Only a write grant opens what is denied; to read inside a denied place stays denied. */
        if (rule->access == BLY_ACCESS_READ && state == BLY_ACCESS_DENY)
            continue;
        state = rule->access;
        ret_reason->by = BLY_BY_RULE;
        ret_reason->index = (uint32_t)(rule - policy->rules);
        ret_reason->name = 0;
        name = protected_by(rule, path + walk.len);
        if (name == BLY_PROTECTED_NAMES)
            continue;
        state = BLY_ACCESS_READ;
        ret_reason->by = BLY_BY_NAME;
        ret_reason->name = (uint8_t)name;
    }
    if (state == BLY_ACCESS_NONE && policy->minimal && bly_policy_is_platform_default(path))
        state = BLY_ACCESS_READ;
    glob = find_denying_glob(policy, path);
    if (glob == policy->n_deny_globs)
        return state;
    *ret_reason = (struct bly_denial){.access = ret_reason->access,
                                      .by = BLY_BY_GLOB,
                                      .rung = ret_reason->rung,
                                      .index = (uint32_t)glob};
    return BLY_ACCESS_DENY;
}

enum bly_access bly_policy_decide(const struct bly_policy *policy, const char *path)
{
    struct bly_denial reason;

    return bly_policy_explain(policy, path, &reason);
}

size_t bly_policy_find(const struct bly_policy *policy, const char *path)
{
    const struct bly_rule *rule = bly_rules_find(policy->rules, policy->n_rules, path);

    return rule ? (size_t)(rule - policy->rules) : policy->n_rules;
}

/* Whether the pattern could match something at or below `path`, or above it. Errs towards yes: only
 * the part of the pattern in front of its first wildcard is looked at. */
static bool glob_may_touch(const char *glob, const char *path)
{
    size_t len = bly_glob_literal_dir(glob);

    if (len == 0) /* "/" */
        return true;
    if (strncmp(path, glob, len) == 0 && (path[len] == '\0' || path[len] == '/'))
        return true;

    size_t path_len = strlen(path);

    return path_len == 1 ||
           (path_len < len && strncmp(glob, path, path_len) == 0 && glob[path_len] == '/');
}

/* The first protected name in the directory of a rule that nothing opens. As above. */
static int find_protected(const struct bly_policy *policy, const struct bly_rule *rule,
                          char **ret_path)
{
    for (size_t i = 0; bly_rule_protects(rule) && i < BLY_PROTECTED_NAMES; i++) {
        char *path = bly_path_join(rule->path, bly_policy_protected_names[i]);
        const struct bly_rule *own;

        if (!path)
            return -ENOMEM;
        own = bly_rules_find(policy->rules, policy->n_rules, path);
        if (!own || own->access != BLY_ACCESS_WRITE) {
            *ret_path = path;
            return 1;
        }
        free(path);
    }
    return 0;
}

int bly_policy_find_narrowing(const struct bly_policy *policy, const char *path, char **ret_path)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < policy->n_rules; i++) {
        const struct bly_rule *rule = &policy->rules[i];

        if (!bly_path_is_within(rule->path, path))
            continue;
        if (rule->access == BLY_ACCESS_WRITE)
            r = find_protected(policy, rule, ret_path);
        else
            r = (*ret_path = strdup(rule->path)) ? 1 : -ENOMEM;
    }
    return r;
}

bool bly_policy_writes_tree(const struct bly_policy *policy, const char *path)
{
    bly_autofree char *narrowing = NULL;

    if (!policy->wall)
        return true;
    if (bly_policy_decide(policy, path) != BLY_ACCESS_WRITE)
        return false;
    if (bly_policy_find_narrowing(policy, path, &narrowing) != 0)
        return false;
    for (size_t i = 0; i < policy->n_deny_globs; i++) {
        if (glob_may_touch(policy->deny_globs[i], path))
            return false;
    }
    return true;
}
