#include "sandbox/policy/wrapper.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/path.h"
#include "sandbox/policy/builder.h"
#include "sandbox/policy/forms.h"
#include "sandbox/policy/policy.h"
#include "sandbox/policy/rules.h"
#include "sandbox/policy/strict.h"

/* What stands in front of "--"; borrowed from argv. */
struct options {
    const char *policy_cwd;
    const char *command_cwd;
    const char *policy;
    const char *fs_policy;
    const char *network_policy;
};

static const struct option {
    const char *name;
    bool has_value;
    size_t offset; /* into struct options, where it has a value */
} known_options[] = {
    {"--sandbox-policy-cwd", true, offsetof(struct options, policy_cwd)},
    {"--command-cwd", true, offsetof(struct options, command_cwd)},
    {"--sandbox-policy", true, offsetof(struct options, policy)},
    {"--file-system-sandbox-policy", true, offsetof(struct options, fs_policy)},
    {"--network-sandbox-policy", true, offsetof(struct options, network_policy)},
    {"--no-proc", false, 0},
    {"--use-legacy-landlock", false, 0},
};

bool bly_wrapper_recognise(const char *argv0)
{
    const char *slash = strrchr(argv0, '/');
    const char *base = slash ? slash + 1 : argv0;

    return strcmp(base, "codex-linux-sandbox") == 0 || strcmp(base, "bailey-linux-sandbox") == 0;
}

void bly_wrapper_deinit(struct bly_wrapper *wrapper)
{
    wrapper->policy = bly_policy_unref(wrapper->policy);
    bly_freep(&wrapper->command_cwd);
}

static int refuse(struct bly_err *err, const char *what, const char *text)
{
    return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "sandbox wrapper: %s `%s`", what, text);
}

static const struct option *find_option(const char *name)
{
    for (size_t i = 0; i < BLY_LEN(known_options); i++) {
        if (strcmp(known_options[i].name, name) == 0)
            return &known_options[i];
    }
    return NULL;
}

/* Sorts argv into options; `*ret_command` is the index behind "--". */
static int read_options(char *const *argv, size_t argc, struct options *options,
                        size_t *ret_command, struct bly_err *err)
{
    size_t i = 1;

    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const struct option *option = find_option(argv[i]);
        const char **value;

        if (!option)
            return refuse(err, "unsupported option", argv[i]);
        if (!option->has_value)
            continue;
        value = (const char **)((char *)options + option->offset);
        if (*value)
            return refuse(err, "repeated option", argv[i]);
        if (i + 1 >= argc)
            return refuse(err, "no value for", argv[i]);
        *value = argv[++i];
    }
    if (i + 1 >= argc)
        return refuse(err, "no command behind", "--");
    *ret_command = i + 1;
    return 0;
}

static int check_options(const struct options *options, struct bly_err *err)
{
    if (!options->policy_cwd)
        return refuse(err, "missing option", "--sandbox-policy-cwd");
    if (!options->fs_policy != !options->network_policy)
        return refuse(err, "missing option",
                      options->fs_policy ? "--network-sandbox-policy"
                                         : "--file-system-sandbox-policy");
    if (!options->fs_policy && !options->policy)
        return refuse(err, "missing option", "--sandbox-policy");
    return 0;
}

static int native_path(const char *option, const char *text, char **ret, struct bly_err *err)
{
    int r = bly_path_normalise(text, strlen(text), ret);

    if (r == -ENOMEM)
        return r;
    return r < 0 ? refuse(err, option, text) : 0;
}

/* The text of an option as JSON. The caller frees `*ret_doc`. */
static int read_json(const char *option, const char *text, yyjson_doc **ret_doc,
                     struct bly_err *err)
{
    int r = bly_json_read_copy(text, strlen(text), ret_doc, err);

    if (r == -ENOMEM || r == 0)
        return r;
    err->kind = BLY_ERR_PARAMS;
    return bly_because(err, -EINVAL, "sandbox wrapper: %s", option);
}

static int add_legacy(const char *text, const struct bly_policy_env *env,
                      struct bly_policy_builder *builder, struct bly_err *err)
{
    yyjson_doc *doc = NULL;
    int r = read_json("--sandbox-policy", text, &doc, err);

    if (r < 0)
        return r;
    r = bly_legacy_policy(yyjson_doc_get_root(doc), env, builder, err);
    yyjson_doc_free(doc);
    return r;
}

static int decode_network(yyjson_val *val, bool *ret, struct bly_err *err)
{
    static const struct bly_variant networks[] = {{"restricted", false}, {"enabled", true}};
    int network = false;
    int r = bly_strict_variant(val, networks, BLY_LEN(networks), "a string", &network, err);

    *ret = network;
    return r;
}

static int add_network(const char *text, struct bly_policy_builder *builder, struct bly_err *err)
{
    yyjson_doc *doc = NULL;
    int r = read_json("--network-sandbox-policy", text, &doc, err);

    if (r < 0)
        return r;
    r = decode_network(yyjson_doc_get_root(doc), &builder->policy->network, err);
    yyjson_doc_free(doc);
    return r;
}

static int decode_fs(yyjson_val *val, const struct bly_policy_env *env,
                     struct bly_policy_builder *builder, struct bly_err *err)
{
    enum { RESTRICTED, OPEN };
    static const struct bly_variant kinds[] = {
        {"restricted", RESTRICTED}, {"unrestricted", OPEN}, {"external-sandbox", OPEN}};
    char *roots[] = {builder->policy->cwd};
    struct bly_profile_scope scope = {.env = env,
                                      .cwd = builder->policy->cwd,
                                      .workspace_roots = roots,
                                      .n_workspace_roots = BLY_LEN(roots)};
    yyjson_val *entries;
    int kind;
    int r = bly_strict_object(val, "a map", err);

    if (r < 0)
        return r;
    r = bly_strict_member_variant(val, "kind", kinds, BLY_LEN(kinds), &kind, err);
    if (r < 0)
        return r;
    if (kind == OPEN) {
        builder->policy->wall = false;
        return 0;
    }
    r = bly_strict_member(val, "entries", &entries, err);
    return r < 0 ? r : bly_profile_entries(entries, &scope, builder, err);
}

static int add_split(const struct options *options, const struct bly_policy_env *env,
                     struct bly_policy_builder *builder, struct bly_err *err)
{
    yyjson_doc *doc = NULL;
    int r = read_json("--file-system-sandbox-policy", options->fs_policy, &doc, err);

    if (r < 0)
        return r;
    r = decode_fs(yyjson_doc_get_root(doc), env, builder, err);
    yyjson_doc_free(doc);
    return r < 0 ? r : add_network(options->network_policy, builder, err);
}

/* One policy out of the options, either spelling. `env->cwd` is --sandbox-policy-cwd. */
static int build_policy(const struct options *options, bool split, const struct bly_policy_env *env,
                        struct bly_policy **ret_policy, struct bly_err *err)
{
    struct bly_policy_builder builder;
    int r = bly_policy_builder_init(&builder);

    if (r == 0 && !(builder.policy->cwd = strdup(env->cwd)))
        r = -ENOMEM;
    if (r == 0)
        r = split ? add_split(options, env, &builder, err)
                  : add_legacy(options->policy, env, &builder, err);
    if (r == 0)
        *ret_policy = bly_policy_builder_build(&builder, !split);
    bly_policy_builder_deinit(&builder);
    return r;
}

static size_t count_write_rules(const struct bly_policy *policy)
{
    size_t n = 0;

    for (size_t i = 0; i < policy->n_rules; i++)
        n += policy->rules[i].access == BLY_ACCESS_WRITE;
    return n;
}

/* Whether the policy takes something away in a way the legacy language has no words for. */
static bool exceeds_legacy(const struct bly_policy *split)
{
    if (split->n_deny_globs > 0)
        return true;
    for (size_t i = 0; i < split->n_rules; i++) {
        const struct bly_rule *rule = &split->rules[i];

        if (rule->access == BLY_ACCESS_DENY)
            return true;
        if (rule->access == BLY_ACCESS_READ &&
            !bly_policy_is_protected_name(bly_path_base(rule->path)) &&
            bly_rules_have_write_above(split->rules, split->n_rules, rule->path))
            return true;
    }
    return false;
}

/*
 * It is the split policy that will be enforced. But what both can say, which places are writable
 * and whether there is a network, must be the same: a difference means that one of them is not what
 * its author wanted.
 */
static bool policies_agree(const struct bly_policy *split, const struct bly_policy *legacy)
{
    if (!legacy->wall && !split->wall)
        return true;
    if (legacy->network != split->network)
        return false;
    if (exceeds_legacy(split))
        return true;
    if (legacy->wall != split->wall)
        return false;
    for (size_t i = 0; i < split->n_rules; i++) {
        const struct bly_rule *rule = &split->rules[i];
        const struct bly_rule *twin = bly_rules_find(legacy->rules, legacy->n_rules, rule->path);

        if (rule->access == BLY_ACCESS_WRITE && (!twin || twin->access != BLY_ACCESS_WRITE))
            return false;
    }
    return count_write_rules(split) == count_write_rules(legacy);
}

static int cross_check(const struct options *options, const struct bly_policy_env *env,
                       const struct bly_policy *split, struct bly_err *err)
{
    struct bly_policy *legacy = NULL;
    int r = build_policy(options, false, env, &legacy, err);

    if (r < 0)
        return r;
    if (!policies_agree(split, legacy))
        r = refuse(err, "--file-system-sandbox-policy does not say the same as",
                   "--sandbox-policy");
    bly_policy_unref(legacy);
    return r;
}

static int parse_policy(const struct options *options, const struct bly_policy_env *env,
                        struct bly_policy **ret_policy, struct bly_err *err)
{
    struct bly_policy *policy = NULL;
    bool split = options->fs_policy != NULL;
    int r = build_policy(options, split, env, &policy, err);

    if (r == 0 && split && options->policy)
        r = cross_check(options, env, policy, err);
    if (r < 0) {
        bly_policy_unref(policy);
        return r;
    }
    *ret_policy = policy;
    return 0;
}

int bly_wrapper_parse(char *const *argv, size_t argc, const struct bly_policy_env *env,
                      struct bly_wrapper *ret_wrapper, struct bly_err *err)
{
    struct options options = {0};
    struct bly_wrapper wrapper = {0};
    struct bly_err unused = {0};
    bly_autofree char *policy_cwd = NULL;
    bly_autofree char *command_cwd = NULL;
    struct bly_policy_env inner = {.tmpdir = env->tmpdir};

    if (!err)
        err = &unused;

    int r = read_options(argv, argc, &options, &wrapper.command_index, err);

    if (r == 0)
        r = check_options(&options, err);
    if (r < 0)
        return r;
    assert(options.policy_cwd); /* check_options() wants it */
    r = native_path("--sandbox-policy-cwd is not absolute:", options.policy_cwd, &policy_cwd, err);
    if (r == 0 && options.command_cwd)
        r = native_path("--command-cwd is not absolute:", options.command_cwd, &command_cwd, err);
    if (r < 0)
        return r;

    assert(policy_cwd);
    inner.cwd = policy_cwd;
    r = parse_policy(&options, &inner, &wrapper.policy, err);
    if (r == -EINVAL)
        err->kind = BLY_ERR_PARAMS; /* whatever the texts say on their own */
    if (r < 0)
        return r;
    wrapper.command_cwd = bly_take_ptr(&command_cwd);
    *ret_wrapper = wrapper;
    return 0;
}
