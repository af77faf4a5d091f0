#include "sandbox/policy/builder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "sandbox/policy/glob.h"
#include "sandbox/policy/rules.h"

int bly_policy_builder_init(struct bly_policy_builder *builder)
{
    *builder = (struct bly_policy_builder){.policy = bly_policy_new()};
    if (!builder->policy)
        return -ENOMEM;
    builder->policy->wall = true;
    return 0;
}

void bly_policy_builder_deinit(struct bly_policy_builder *builder)
{
    builder->policy = bly_policy_unref(builder->policy);
}

/* Makes room for one more element of `size` bytes. */
static int grow(void *list, size_t n, size_t *cap, size_t size)
{
    void **array = list;
    size_t wanted = *cap ? *cap * 2 : 16;

    if (n < *cap)
        return 0;

    void *bigger = realloc(*array, wanted * size);

    if (!bigger)
        return -ENOMEM;
    *array = bigger;
    *cap = wanted;
    return 0;
}

int bly_policy_builder_rule(struct bly_policy_builder *builder, char *path, enum bly_access access,
                            uint8_t flags, struct bly_err *err)
{
    struct bly_policy *policy = builder->policy;
    bly_autofree char *owned = path;

    if (policy->n_rules >= BLY_POLICY_MAX_RULES)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                        "sandbox policy exceeds the limit of %d entries", BLY_POLICY_MAX_RULES);
    if (!path ||
        grow(&policy->rules, policy->n_rules, &builder->rules_cap, sizeof(*policy->rules)) < 0)
        return -ENOMEM;
    policy->rules[policy->n_rules++] = (struct bly_rule){.path = bly_take_ptr(&owned),
                                                         .access = access,
                                                         .flags = flags,
                                                         .depth = (uint32_t)bly_path_depth(path)};
    return 0;
}

int bly_policy_builder_rule_at(struct bly_policy_builder *builder, const char *path,
                               enum bly_access access, uint8_t flags, struct bly_err *err)
{
    char *copy = NULL;
    int r = bly_path_normalise(path, strlen(path), &copy);

    if (r == -ENOMEM)
        return r;
    if (r < 0)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "sandbox path `%s` is not absolute", path);
    return bly_policy_builder_rule(builder, copy, access, flags, err);
}

/* ---- globs ---- */

struct glob_sink {
    struct bly_policy_builder *builder;
    struct bly_err *err;
};

static int add_simple(void *arg, const char *text, bool literal)
{
    struct glob_sink *sink = arg;
    struct bly_policy_builder *builder = sink->builder;
    struct bly_policy *policy = builder->policy;

    builder->glob_bytes += strlen(text) + 1;
    if (builder->glob_bytes > BLY_POLICY_MAX_GLOB_BYTES ||
        (!literal && policy->n_deny_globs >= BLY_POLICY_MAX_GLOBS))
        return bly_fail(sink->err, BLY_ERR_PARAMS, EINVAL,
                        "sandbox policy exceeds the limit of %d glob patterns in %d bytes",
                        BLY_POLICY_MAX_GLOBS, BLY_POLICY_MAX_GLOB_BYTES);
    if (literal)
        return bly_policy_builder_rule_at(builder, text, BLY_ACCESS_DENY, 0, sink->err);

    bly_autofree char *copy = strdup(text);

    if (!copy || grow(&policy->deny_globs, policy->n_deny_globs, &builder->globs_cap,
                      sizeof(*policy->deny_globs)) < 0)
        return -ENOMEM;
    policy->deny_globs[policy->n_deny_globs++] = bly_take_ptr(&copy);
    return 0;
}

/* `base`, which is plain text, and the pattern as one pattern. */
static char *join_pattern(const char *base, const char *pattern)
{
    bly_autofree char *escaped = bly_glob_escape(base);
    size_t len = escaped ? strlen(escaped) : 0;
    char *full = escaped ? malloc(len + strlen(pattern) + 2) : NULL;

    if (!full)
        return NULL;
    memcpy(full, escaped, len);
    full[len] = '/';
    memcpy(full + len + 1, pattern, strlen(pattern) + 1);
    return full;
}

int bly_policy_builder_deny_glob(struct bly_policy_builder *builder, const char *base,
                                 const char *pattern, struct bly_err *err)
{
    struct glob_sink sink = {.builder = builder, .err = err};
    bly_autofree char *full = base ? join_pattern(base, pattern) : strdup(pattern);

    if (!full)
        return -ENOMEM;
    if (strlen(full) > BLY_POLICY_MAX_GLOB_BYTES)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "glob pattern of %zu bytes", strlen(full));
    bly_err_clear(err);

    int r = bly_glob_expand(full, add_simple, &sink);

    if (r == -EINVAL && err->kind == BLY_ERR_NONE)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "invalid glob pattern `%s`", pattern);
    return r;
}

/* ---- compiling ---- */

/* Rules are marked first and removed afterwards: look-ups want the list whole. */
static void drop_marked(struct bly_policy *policy)
{
    size_t kept = 0;

    for (size_t i = 0; i < policy->n_rules; i++) {
        if (policy->rules[i].access == BLY_ACCESS_NONE)
            free(policy->rules[i].path);
        else
            policy->rules[kept++] = policy->rules[i];
    }
    policy->n_rules = kept;
}

static void drop_reads_below_writes(struct bly_policy *policy)
{
    for (size_t i = 0; i < policy->n_rules; i++) {
        struct bly_rule *rule = &policy->rules[i];

        if (rule->access == BLY_ACCESS_READ &&
            bly_rules_have_write_above(policy->rules, policy->n_rules, rule->path))
            rule->access = BLY_ACCESS_NONE;
    }
    drop_marked(policy);
}

/* Everything writable and nothing narrower. */
static bool writes_everything(const struct bly_policy *policy)
{
    if (policy->n_deny_globs > 0 || policy->n_rules == 0 || policy->rules[0].path[1] != '\0')
        return false;
    for (size_t i = 0; i < policy->n_rules; i++) {
        if (policy->rules[i].access != BLY_ACCESS_WRITE)
            return false;
    }
    return true;
}

static void remove_wall(struct bly_policy *policy)
{
    for (size_t i = 0; i < policy->n_rules; i++)
        free(policy->rules[i].path);
    for (size_t i = 0; i < policy->n_deny_globs; i++)
        free(policy->deny_globs[i]);
    policy->n_rules = 0;
    policy->n_deny_globs = 0;
    policy->minimal = false;
    policy->wall = false;
}

/* Whether the rule says what holds without it: a protected name in a writable root, READ. */
static bool repeats_protection(const struct bly_policy *policy, const struct bly_rule *rule)
{
    bly_autofree char *parent = NULL;
    const struct bly_rule *root;

    if (rule->access != BLY_ACCESS_READ || !bly_policy_is_protected_name(bly_path_base(rule->path)))
        return false;
    parent = bly_path_parent(rule->path);
    root = parent ? bly_rules_find(policy->rules, policy->n_rules, parent) : NULL;
    return root && bly_rule_protects(root);
}

static void drop_repeated_protection(struct bly_policy *policy)
{
    for (size_t i = 0; i < policy->n_rules; i++)
        if (repeats_protection(policy, &policy->rules[i]))
            policy->rules[i].access = BLY_ACCESS_NONE;
    drop_marked(policy);
}

struct bly_policy *bly_policy_builder_build(struct bly_policy_builder *builder, bool write_wins)
{
    struct bly_policy *policy = builder->policy;

    policy->n_rules = bly_rules_sort(policy->rules, policy->n_rules);
    bly_policy_sort_globs(policy);
    if (write_wins)
        drop_reads_below_writes(policy);
    if (!policy->wall || writes_everything(policy))
        remove_wall(policy);
    if (policy->n_deny_globs == 0)
        policy->glob_scan_max_depth = 0; /* says nothing then, and must not make two policies */

    drop_repeated_protection(policy);
    bly_policy_derive(policy);
    return bly_take_ptr(&builder->policy);
}
