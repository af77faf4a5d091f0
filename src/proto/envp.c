#include "proto/envp.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/ascii.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "proto/decode.h"

struct variable {
    const char *name, *value; /* borrowed */
    size_t name_len, value_len;
    size_t order; /* the later one wins */
};

struct variables {
    struct variable *list;
    size_t n;
};

/* ---- reading ---- */

static yyjson_val *decode_patterns(struct bly_decoder *d, const char *name)
{
    yyjson_val *patterns = bly_decode_array(d, name, BLY_REQUIRED);
    yyjson_val *pattern;
    size_t i, n;

    if (patterns && yyjson_arr_size(patterns) > BLY_ENV_PATTERNS_MAX)
        d->error = bly_fail(d->err, BLY_ERR_PARAMS, EINVAL, "`%s` has more than %d patterns", name,
                            BLY_ENV_PATTERNS_MAX);

    yyjson_arr_foreach (patterns, i, n, pattern) {
        if (!yyjson_is_str(pattern))
            bly_decode_mistyped(d, name, pattern, "a string");
    }
    return patterns;
}

yyjson_val *bly_decode_str_map(struct bly_decoder *d, const char *name)
{
    yyjson_val *map = bly_decode_object(d, name, BLY_REQUIRED);
    yyjson_val *key, *val;
    size_t i, n;

    if (!map)
        return NULL;

    yyjson_obj_foreach (map, i, n, key, val) {
        if (!yyjson_is_str(val))
            bly_decode_mistyped(d, name, val, "a string");
    }
    return map;
}

struct bly_env_policy bly_decode_env_policy(struct bly_decoder *d, const char *name)
{
    static const char *const words[] = {"all", "core", "none", NULL};
    struct bly_env_policy policy = {.inherit = BLY_INHERIT_NONE, .ignore_default_excludes = true};
    yyjson_val *value = bly_decode_any(d, name, BLY_OPTIONAL);
    struct bly_decoder in;

    if (!value)
        return policy;

    in = bly_decoder_of(value, name, d->err);
    policy.inherit = (enum bly_inherit)bly_decode_word(&in, "inherit", BLY_REQUIRED, words, 0);
    policy.ignore_default_excludes =
        bly_decode_bool(&in, "ignoreDefaultExcludes", BLY_REQUIRED, true);
    policy.exclude = decode_patterns(&in, "exclude");
    policy.set = bly_decode_str_map(&in, "set");
    policy.include_only = decode_patterns(&in, "includeOnly");
    d->error = in.error;
    if (d->error == 0 && yyjson_obj_size(policy.set) > BLY_ENV_VARIABLES_MAX)
        d->error = bly_fail(d->err, BLY_ERR_PARAMS, EINVAL, "`set` has more than %d variables",
                            BLY_ENV_VARIABLES_MAX);
    return policy;
}

/* ---- matching ---- */

bool bly_env_match(const char *pattern, size_t pattern_len, const char *name, size_t name_len)
{
    const char *p = pattern, *p_end = pattern + pattern_len;
    const char *s = name, *s_end = name + name_len;
    const char *star = NULL, *star_at = NULL; /* the latest '*', and where what it covers ends */

    while (s < s_end) {
        if (p < p_end && *p == '*') {
            star = p++;
            star_at = s;
        } else if (p < p_end && (*p == '?' || bly_ascii_lower(*p) == bly_ascii_lower(*s))) {
            p++;
            s++;
        } else if (star) {
            p = star + 1;
            s = ++star_at;
        } else {
            return false;
        }
    }
    while (p < p_end && *p == '*')
        p++;
    return p == p_end;
}

static bool matches_any(yyjson_val *patterns, const struct variable *v)
{
    yyjson_val *pattern;
    size_t i, n;

    yyjson_arr_foreach (patterns, i, n, pattern) {
        if (bly_env_match(yyjson_get_str(pattern), yyjson_get_len(pattern), v->name, v->name_len))
            return true;
    }
    return false;
}

static bool is_one_of(const char *const *names, const struct variable *v)
{
    for (size_t i = 0; names[i]; i++) {
        if (strlen(names[i]) == v->name_len && memcmp(names[i], v->name, v->name_len) == 0)
            return true;
    }
    return false;
}

static bool is_core(const struct variable *v)
{
    static const char *const core[] = {"PATH", "SHELL",  "TMPDIR",   "TEMP",    "TMP",  "HOME",
                                       "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "USER", NULL};

    return is_one_of(core, v);
}

static bool is_secret(const struct variable *v)
{
    return bly_env_match("*KEY*", 5, v->name, v->name_len) ||
           bly_env_match("*SECRET*", 8, v->name, v->name_len) ||
           bly_env_match("*TOKEN*", 7, v->name, v->name_len);
}

static bool is_name(const struct variable *v, const char *name)
{
    return strlen(name) == v->name_len && strncasecmp(name, v->name, v->name_len) == 0;
}

/* Names no process gets, not even by `env`: they belong to the server. */
static bool is_reserved(const struct variable *v)
{
    static const char *const exact[] = {"CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE", NULL};

    return is_name(v, "OPENAI_FEDERATION_RULE_ID") || is_name(v, "OPENAI_IDENTITY_TOKEN_FILE") ||
           is_one_of(exact, v);
}

static bool is_inherited(const struct bly_env_policy *policy, const struct variable *v)
{
    if (policy->inherit == BLY_INHERIT_CORE && !is_core(v))
        return false;
    if (!policy->ignore_default_excludes && is_secret(v))
        return false;
    return !matches_any(policy->exclude, v);
}

static bool is_included(const struct bly_env_policy *policy, const struct variable *v)
{
    return yyjson_arr_size(policy->include_only) == 0 || matches_any(policy->include_only, v);
}

/* ---- building ---- */

static void add(struct variables *vars, struct variable v)
{
    v.order = vars->n;
    vars->list[vars->n++] = v;
}

static void add_inherited(struct variables *vars, const struct bly_env_policy *policy,
                          char *const *server_env)
{
    for (size_t i = 0; server_env[i]; i++) {
        const char *equals = strchr(server_env[i], '=');
        struct variable v = {.name = server_env[i]};

        if (!equals)
            continue;
        v.name_len = (size_t)(equals - server_env[i]);
        v.value = equals + 1;
        v.value_len = strlen(v.value);
        if (is_inherited(policy, &v) && is_included(policy, &v))
            add(vars, v);
    }
}

static struct variable from_member(yyjson_val *key, yyjson_val *val)
{
    return (struct variable){.name = yyjson_get_str(key),
                             .name_len = yyjson_get_len(key),
                             .value = yyjson_get_str(val),
                             .value_len = yyjson_get_len(val)};
}

static void add_members(struct variables *vars, yyjson_val *map,
                        const struct bly_env_policy *filter)
{
    yyjson_val *key, *val;
    size_t i, n;

    if (!map)
        return;

    yyjson_obj_foreach (map, i, n, key, val) {
        struct variable v = from_member(key, val);

        if (!filter || is_included(filter, &v))
            add(vars, v);
    }
}

static int by_name(const void *left, const void *right)
{
    const struct variable *a = left, *b = right;
    size_t shorter = a->name_len < b->name_len ? a->name_len : b->name_len;
    int order = memcmp(a->name, b->name, shorter);

    if (order != 0)
        return order;
    if (a->name_len != b->name_len)
        return a->name_len < b->name_len ? -1 : 1;
    return a->order < b->order ? -1 : 1;
}

/* Sorts, and keeps the last of each name and nothing that is reserved. */
static void settle(struct variables *vars)
{
    size_t kept = 0;

    qsort(vars->list, vars->n, sizeof(*vars->list), by_name);
    for (size_t i = 0; i < vars->n; i++) {
        const struct variable *v = &vars->list[i], *next = v + 1;
        bool replaced = i + 1 < vars->n && next->name_len == v->name_len &&
                        memcmp(next->name, v->name, v->name_len) == 0;

        if (!replaced && !is_reserved(v))
            vars->list[kept++] = *v;
    }
    vars->n = kept;
}

static bool has_nul(const struct variable *v)
{
    return memchr(v->name, '\0', v->name_len) || memchr(v->value, '\0', v->value_len);
}

/* The array and its strings in one block: one allocation, one free(). */
static int flatten(const struct variables *vars, char ***ret_envp, struct bly_err *err)
{
    size_t size = (vars->n + 1) * sizeof(char *);
    char **envp, *at;

    for (size_t i = 0; i < vars->n; i++) {
        if (has_nul(&vars->list[i]))
            return bly_fail(err, BLY_ERR_SPAWN, 0, "nul byte found in provided data");
        size += vars->list[i].name_len + vars->list[i].value_len + 2;
    }
    envp = malloc(size);
    if (!envp)
        return bly_fail_sys(err, ENOMEM, "cannot keep the environment");

    at = (char *)(envp + vars->n + 1);
    for (size_t i = 0; i < vars->n; i++) {
        const struct variable *v = &vars->list[i];

        envp[i] = at;
        at = (char *)mempcpy(at, v->name, v->name_len);
        *at++ = '=';
        at = (char *)mempcpy(at, v->value, v->value_len);
        *at++ = '\0';
    }
    envp[vars->n] = NULL;
    *ret_envp = envp;
    return 0;
}

static size_t count(char *const *list)
{
    size_t n = 0;

    while (list[n])
        n++;
    return n;
}

int bly_env_build(const struct bly_env_policy *policy, yyjson_val *env, char *const *server_env,
                  char ***ret_envp, struct bly_err *err)
{
    size_t max = count(server_env) + yyjson_obj_size(policy->set) + yyjson_obj_size(env);
    bly_autofree struct variable *list = calloc(max + 1, sizeof(*list));
    struct variables vars = {.list = list};

    if (!list)
        return bly_fail_sys(err, ENOMEM, "cannot build the environment");

    if (policy->inherit != BLY_INHERIT_NONE)
        add_inherited(&vars, policy, server_env);
    add_members(&vars, policy->set, policy);
    add_members(&vars, env, NULL);
    settle(&vars);
    return flatten(&vars, ret_envp, err);
}
