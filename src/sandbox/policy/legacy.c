#include <errno.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/policy/builder.h"
#include "sandbox/policy/forms.h"
#include "sandbox/policy/strict.h"

/* Form A: the legacy sandboxPolicy (spec 2.1). */

enum { DANGER_FULL_ACCESS, READ_ONLY, EXTERNAL_SANDBOX, WORKSPACE_WRITE };
enum { FULL_ACCESS, RESTRICTED };

static const struct bly_variant policy_types[] = {
    {"danger-full-access", DANGER_FULL_ACCESS},
    {"read-only", READ_ONLY},
    {"external-sandbox", EXTERNAL_SANDBOX},
    {"workspace-write", WORKSPACE_WRITE},
};
static const struct bly_variant access_types[] = {{"restricted", RESTRICTED},
                                                  {"full-access", FULL_ACCESS}};
static const struct bly_variant networks[] = {{"restricted", false}, {"enabled", true}};
static const struct bly_variant windows_levels[] = {
    {"disabled", 0}, {"restricted-token", 0}, {"elevated", 0}};

static int add_paths(yyjson_val *list, enum bly_access access, struct bly_policy_builder *builder,
                     struct bly_err *err)
{
    size_t index, max;
    yyjson_val *val;

    if (!yyjson_is_arr(list))
        return bly_strict_type_error(list, "a sequence", err);
    yyjson_arr_foreach (list, index, max, val) {
        char *path;
        int r = bly_strict_path(val, BLY_ROLE_LEGACY, &path, err);

        if (r < 0)
            return r;
        r = bly_policy_builder_rule(builder, path, access, 0, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The list `name`, which may be absent but not null. */
static int add_member_paths(yyjson_val *obj, const char *name, enum bly_access access,
                            struct bly_policy_builder *builder, struct bly_err *err)
{
    yyjson_val *list = yyjson_obj_get(obj, name);

    return list ? add_paths(list, access, builder, err) : 0;
}

/* The server's working directory is the workspace: this language has no cwd of its own. */
static int add_workspace(const struct bly_policy_env *env, enum bly_access access,
                         struct bly_policy_builder *builder, struct bly_err *err)
{
    if (!env->cwd)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "the server has no working directory");
    return bly_policy_builder_rule_at(builder, env->cwd, access, 0, err);
}

/* What may be read: member `name`, full access when absent. */
static int add_read_access(yyjson_val *policy, const char *name, const struct bly_policy_env *env,
                           struct bly_policy_builder *builder, struct bly_err *err)
{
    yyjson_val *access = yyjson_obj_get(policy, name);
    bool minimal = true;
    int type = FULL_ACCESS;
    int r = 0;

    if (access)
        r = bly_strict_object(access, "a map", err);
    if (access && r == 0)
        r = bly_strict_member_variant(access, "type", access_types, BLY_LEN(access_types), &type,
                                      err);
    if (r < 0)
        return r;
    if (type == FULL_ACCESS)
        return bly_policy_builder_rule_at(builder, "/", BLY_ACCESS_READ, 0, err);

    r = bly_strict_bool(access, "include_platform_defaults", &minimal, err);
    if (r < 0)
        return r;
    builder->policy->minimal = minimal;
    r = add_workspace(env, BLY_ACCESS_READ, builder, err);
    if (r < 0)
        return r;
    return add_member_paths(access, "readable_roots", BLY_ACCESS_READ, builder, err);
}

static int add_temporary_roots(yyjson_val *policy, const struct bly_policy_env *env,
                               struct bly_policy_builder *builder, struct bly_err *err)
{
    bool without_tmpdir = false;
    bool without_slash_tmp = false;
    int r = bly_strict_bool(policy, "exclude_tmpdir_env_var", &without_tmpdir, err);

    if (r == 0)
        r = bly_strict_bool(policy, "exclude_slash_tmp", &without_slash_tmp, err);
    if (r == 0 && !without_tmpdir && env->tmpdir)
        r = bly_policy_builder_rule_at(builder, env->tmpdir, BLY_ACCESS_WRITE, 0, err);
    if (r == 0 && !without_slash_tmp)
        r = bly_policy_builder_rule_at(builder, "/tmp", BLY_ACCESS_WRITE, BLY_RULE_IF_DIRECTORY,
                                       err);
    return r;
}

static int decode_workspace_write(yyjson_val *policy, const struct bly_policy_env *env,
                                  struct bly_policy_builder *builder, struct bly_err *err)
{
    int r = add_member_paths(policy, "writable_roots", BLY_ACCESS_WRITE, builder, err);

    if (r == 0)
        r = add_read_access(policy, "read_only_access", env, builder, err);
    if (r == 0)
        r = bly_strict_bool(policy, "network_access", &builder->policy->network, err);
    if (r == 0)
        r = add_temporary_roots(policy, env, builder, err);
    if (r == 0)
        r = add_workspace(env, BLY_ACCESS_WRITE, builder, err);
    return r;
}

static int decode_external(yyjson_val *policy, struct bly_policy_builder *builder,
                           struct bly_err *err)
{
    yyjson_val *network = yyjson_obj_get(policy, "network_access");
    int ignored;

    /* Who built the wall also restricts the network: we run such a request as it is. */
    builder->policy->wall = false;
    builder->policy->network = true;
    if (!network)
        return 0;
    return bly_strict_variant(network, networks, BLY_LEN(networks), "string or map", &ignored, err);
}

int bly_legacy_policy(yyjson_val *policy, const struct bly_policy_env *env,
                      struct bly_policy_builder *builder, struct bly_err *err)
{
    int type;
    int r = bly_strict_object(policy, "a map", err);

    if (r < 0)
        return r;
    r = bly_strict_member_variant(policy, "type", policy_types, BLY_LEN(policy_types), &type, err);
    if (r < 0)
        return r;

    switch (type) {
    case DANGER_FULL_ACCESS:
        builder->policy->wall = false;
        builder->policy->network = true;
        return 0;
    case EXTERNAL_SANDBOX:
        return decode_external(policy, builder, err);
    case READ_ONLY:
        r = add_read_access(policy, "access", env, builder, err);
        if (r < 0)
            return r;
        return bly_strict_bool(policy, "network_access", &builder->policy->network, err);
    default:
        return decode_workspace_write(policy, env, builder, err);
    }
}

static int add_optional_paths(yyjson_val *obj, const char *name, enum bly_access access,
                              struct bly_policy_builder *builder, struct bly_err *err)
{
    yyjson_val *list = bly_strict_optional(obj, name);

    return list ? add_paths(list, access, builder, err) : 0;
}

/* The network grant is decoded but gives nothing: file requests have no network. */
static int check_network_grant(yyjson_val *more, struct bly_err *err)
{
    yyjson_val *network = bly_strict_optional(more, "network");
    yyjson_val *enabled;
    int r;

    if (!network)
        return 0;
    r = bly_strict_object(network, "a map", err);
    if (r < 0)
        return r;
    enabled = bly_strict_optional(network, "enabled");
    return !enabled || yyjson_is_bool(enabled) ? 0
                                               : bly_strict_type_error(enabled, "a boolean", err);
}

static int add_additional_permissions(yyjson_val *context, struct bly_policy_builder *builder,
                                      struct bly_err *err)
{
    yyjson_val *more = bly_strict_optional(context, "additionalPermissions");
    yyjson_val *fs;
    int r;

    if (!more)
        return 0;
    r = bly_strict_object(more, "a map", err);
    if (r == 0)
        r = check_network_grant(more, err);
    if (r < 0)
        return r;
    fs = bly_strict_optional(more, "file_system");
    if (!fs)
        return 0;
    r = bly_strict_object(fs, "a map", err);
    if (r == 0)
        r = add_optional_paths(fs, "read", BLY_ACCESS_READ, builder, err);
    if (r == 0)
        r = add_optional_paths(fs, "write", BLY_ACCESS_WRITE, builder, err);
    return r;
}

int bly_legacy_context(yyjson_val *context, const struct bly_policy_env *env,
                       struct bly_policy_builder *builder, struct bly_err *err)
{
    bool ignored = false;
    int level;
    int r = bly_legacy_policy(yyjson_obj_get(context, "sandboxPolicy"), env, builder, err);

    if (r == 0)
        r = bly_strict_member_variant(context, "windowsSandboxLevel", windows_levels,
                                      BLY_LEN(windows_levels), &level, err);
    if (r == 0)
        r = bly_strict_bool(context, "windowsSandboxPrivateDesktop", &ignored, err);
    if (r == 0)
        r = bly_strict_bool(context, "useLegacyLandlock", &ignored, err);
    if (r == 0)
        r = add_additional_permissions(context, builder, err);
    return r;
}
