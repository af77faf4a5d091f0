#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "sandbox/policy/builder.h"
#include "sandbox/policy/forms.h"
#include "sandbox/policy/strict.h"

/* Form B: permission profiles (spec 2.2). */

enum { ROOT, MINIMAL, PROJECT_ROOTS, TMPDIR, SLASH_TMP, UNKNOWN };
enum { PATH, GLOB_PATTERN, SPECIAL };
enum { UNRESTRICTED, RESTRICTED };
enum { MANAGED, DISABLED, EXTERNAL };

static const struct bly_variant kinds[] = {
    {"root", ROOT},
    {"minimal", MINIMAL},
    {"project_roots", PROJECT_ROOTS},
    {"current_working_directory", PROJECT_ROOTS, .alias = true},
    {"tmpdir", TMPDIR},
    {"slash_tmp", SLASH_TMP},
    {"unknown", UNKNOWN},
};
static const struct bly_variant accesses[] = {
    {"read", BLY_ACCESS_READ},
    {"write", BLY_ACCESS_WRITE},
    {"deny", BLY_ACCESS_DENY},
    {"none", BLY_ACCESS_DENY, .alias = true},
};
static const struct bly_variant networks[] = {{"restricted", false}, {"enabled", true}};
static const struct bly_variant path_types[] = {
    {"path", PATH}, {"glob_pattern", GLOB_PATTERN}, {"special", SPECIAL}};
static const struct bly_variant missing_behaviors[] = {{"skip", BLY_RULE_SKIP_MISSING}};
static const struct bly_variant fs_types[] = {{"restricted", RESTRICTED},
                                              {"unrestricted", UNRESTRICTED}};
static const struct bly_variant profile_types[] = {
    {"managed", MANAGED}, {"disabled", DISABLED}, {"external", EXTERNAL}};
static const struct bly_variant windows_levels[] = {
    {"disabled", 0}, {"restricted-token", 0}, {"elevated", 0}, {"mxc", 0}};

struct entry {
    enum bly_access access;
    uint8_t flags;
};

static int require_cwd(const struct bly_profile_scope *scope, struct bly_err *err)
{
    if (scope->cwd)
        return 0;
    return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                    "file system sandbox context with dynamic permissions requires cwd");
}

static bool has_climbing_component(const char *path)
{
    for (const char *p = path; (p = strstr(p, "..")) != NULL; p += 2) {
        if ((p == path || p[-1] == '/') && (p[2] == '/' || p[2] == '\0'))
            return true;
    }
    return false;
}

static int add_project_roots(yyjson_val *value, const struct entry *entry,
                             const struct bly_profile_scope *scope,
                             struct bly_policy_builder *builder, struct bly_err *err)
{
    yyjson_val *subpath_val = bly_strict_optional(value, "subpath");
    const char *subpath = "";
    int r = require_cwd(scope, err);

    if (r < 0)
        return r;
    if (subpath_val && (r = bly_strict_text(subpath_val, &subpath, err)) < 0)
        return r;
    if (subpath[0] == '/' || has_climbing_component(subpath)) {
        /* It grants nothing; but a restriction that restricts nothing must not pass in silence. */
        if (entry->access == BLY_ACCESS_DENY)
            return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "subpath `%s` leaves the workspace root",
                            subpath);
        return 0;
    }

    for (size_t i = 0; i < scope->n_workspace_roots; i++) {
        char *path = bly_path_join(scope->workspace_roots[i], subpath);

        r = bly_policy_builder_rule(builder, path, entry->access, entry->flags, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_special(yyjson_val *value, const struct entry *entry,
                       const struct bly_profile_scope *scope, struct bly_policy_builder *builder,
                       struct bly_err *err)
{
    uint8_t if_directory = entry->access == BLY_ACCESS_DENY ? 0 : BLY_RULE_IF_DIRECTORY;
    int kind;
    int r = bly_strict_object(value, "a map", err);

    if (r < 0)
        return r;
    r = bly_strict_member_variant(value, "kind", kinds, BLY_LEN(kinds), &kind, err);
    if (r < 0)
        return r;

    switch (kind) {
    case ROOT:
        return bly_policy_builder_rule_at(builder, "/", entry->access, entry->flags, err);
    case MINIMAL:
        if (entry->access == BLY_ACCESS_READ)
            builder->policy->minimal = true;
        return 0;
    case PROJECT_ROOTS:
        return add_project_roots(value, entry, scope, builder, err);
    case TMPDIR:
        if (!scope->env->tmpdir)
            return 0;
        return bly_policy_builder_rule_at(builder, scope->env->tmpdir, entry->access, entry->flags,
                                          err);
    case SLASH_TMP:
        return bly_policy_builder_rule_at(builder, "/tmp", entry->access,
                                          entry->flags | if_directory, err);
    default: /* unknown: what a newer client may know */
        return 0;
    }
}

/* "scheme://" in front of the pattern; 0 when there is none. */
static size_t scheme_len(const char *pattern)
{
    size_t len =
        strspn(pattern, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");

    return len > 0 && strncmp(pattern + len, "://", 3) == 0 ? len + 3 : 0;
}

static int add_glob(const char *pattern, const struct entry *entry,
                    const struct bly_profile_scope *scope, struct bly_policy_builder *builder,
                    struct bly_err *err)
{
    static const char roots_scheme[] = "codex-project-roots://";
    size_t scheme = scheme_len(pattern);
    bool below_roots =
        scheme == sizeof(roots_scheme) - 1 && strncmp(pattern, roots_scheme, scheme) == 0;
    int r = pattern[0] == '/' ? 0 : require_cwd(scope, err);

    if (r < 0)
        return r;
    if (entry->access != BLY_ACCESS_DENY) /* patterns only take away */
        return 0;
    if (pattern[0] == '\0' || (scheme > 0 && !below_roots))
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "invalid glob pattern `%s`", pattern);
    if (!below_roots)
        return bly_policy_builder_deny_glob(builder, pattern[0] == '/' ? NULL : scope->cwd, pattern,
                                            err);
    for (size_t i = 0; i < scope->n_workspace_roots; i++) {
        r = bly_policy_builder_deny_glob(builder, scope->workspace_roots[i], pattern + scheme, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_at(yyjson_val *where, const struct entry *entry,
                  const struct bly_profile_scope *scope, struct bly_policy_builder *builder,
                  struct bly_err *err)
{
    static const char *const members[] = {
        [PATH] = "path", [GLOB_PATTERN] = "pattern", [SPECIAL] = "value"};
    const char *pattern;
    char *path;
    yyjson_val *val;
    int type;
    int r = bly_strict_object(where, "a map", err);

    if (r < 0)
        return r;
    r = bly_strict_member_variant(where, "type", path_types, BLY_LEN(path_types), &type, err);
    if (r < 0)
        return r;
    r = bly_strict_member(where, members[type], &val, err);
    if (r < 0)
        return r;

    switch (type) {
    case PATH:
        r = bly_strict_path(val, BLY_ROLE_PERMISSION, &path, err);
        if (r < 0)
            return r;
        return bly_policy_builder_rule(builder, path, entry->access, entry->flags, err);
    case GLOB_PATTERN:
        r = bly_strict_text(val, &pattern, err);
        return r < 0 ? r : add_glob(pattern, entry, scope, builder, err);
    default:
        return add_special(val, entry, scope, builder, err);
    }
}

static int add_entry(yyjson_val *val, const struct bly_profile_scope *scope,
                     struct bly_policy_builder *builder, struct bly_err *err)
{
    struct entry entry = {0};
    yyjson_val *where;
    yyjson_val *missing;
    int access;
    int flags = 0;
    int r = bly_strict_object(val, "a map", err);

    if (r < 0)
        return r;
    r = bly_strict_member(val, "path", &where, err);
    if (r < 0)
        return r;
    r = bly_strict_member_variant(val, "access", accesses, BLY_LEN(accesses), &access, err);
    if (r < 0)
        return r;
    missing = bly_strict_optional(val, "missing_path_behavior");
    if (missing)
        r = bly_strict_variant(missing, missing_behaviors, BLY_LEN(missing_behaviors), "a string",
                               &flags, err);
    if (r < 0)
        return r;
    entry.access = (enum bly_access)access;
    entry.flags = (uint8_t)flags;
    return add_at(where, &entry, scope, builder, err);
}

int bly_profile_entries(yyjson_val *entries, const struct bly_profile_scope *scope,
                        struct bly_policy_builder *builder, struct bly_err *err)
{
    size_t index, max;
    yyjson_val *val;

    if (!yyjson_is_arr(entries))
        return bly_strict_type_error(entries, "a sequence", err);
    yyjson_arr_foreach (entries, index, max, val) {
        int r = add_entry(val, scope, builder, err);

        if (r < 0)
            return r;
    }
    return 0;
}

static int decode_scan_depth(yyjson_val *fs, unsigned *ret, struct bly_err *err)
{
    yyjson_val *val = bly_strict_optional(fs, "glob_scan_max_depth");

    if (!val)
        return 0;
    if (!yyjson_is_uint(val))
        return bly_strict_type_error(val, "a nonzero usize", err);
    if (yyjson_get_uint(val) == 0)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                        "invalid value: integer 0, expected a nonzero usize");
    *ret = yyjson_get_uint(val) < UINT_MAX ? (unsigned)yyjson_get_uint(val) : UINT_MAX;
    return 0;
}

static int decode_managed(yyjson_val *profile, const struct bly_profile_scope *scope,
                          struct bly_policy_builder *builder, struct bly_err *err)
{
    yyjson_val *fs;
    yyjson_val *entries;
    int type;
    int r = bly_strict_member(profile, "file_system", &fs, err);

    if (r < 0)
        return r;
    r = bly_strict_object(fs, "a map", err);
    if (r < 0)
        return r;
    r = bly_strict_member_variant(fs, "type", fs_types, BLY_LEN(fs_types), &type, err);
    if (r < 0)
        return r;
    if (type == UNRESTRICTED) {
        builder->policy->wall = false;
        return 0;
    }
    r = bly_strict_member(fs, "entries", &entries, err);
    if (r < 0)
        return r;
    r = bly_profile_entries(entries, scope, builder, err);
    if (r < 0)
        return r;
    return decode_scan_depth(fs, &builder->policy->glob_scan_max_depth, err);
}

static int decode_profile(yyjson_val *profile, const struct bly_profile_scope *scope,
                          struct bly_policy_builder *builder, struct bly_err *err)
{
    int type;
    int network = true;
    int r = bly_strict_object(profile, "a map", err);

    if (r < 0)
        return r;
    r = bly_strict_member_variant(profile, "type", profile_types, BLY_LEN(profile_types), &type,
                                  err);
    if (r < 0)
        return r;
    if (type == MANAGED)
        r = decode_managed(profile, scope, builder, err);
    else
        builder->policy->wall = false;
    if (r == 0 && type != DISABLED)
        r = bly_strict_member_variant(profile, "network", networks, BLY_LEN(networks), &network,
                                      err);
    /* Who built an external wall also restricts its network: we run such a request as it is. */
    builder->policy->network = network || type == EXTERNAL;
    return r;
}

static void free_paths(char **paths, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
}

static int decode_roots(yyjson_val *context, char ***ret_roots, size_t *ret_n, struct bly_err *err)
{
    yyjson_val *list = yyjson_obj_get(context, "workspaceRoots");
    size_t index, max;
    yyjson_val *val;
    int r = 0;

    if (!list)
        return 0;
    if (!yyjson_is_arr(list))
        return bly_strict_type_error(list, "a sequence", err);

    char **roots = calloc(yyjson_arr_size(list) + 1, sizeof(*roots));
    size_t n = 0;

    if (!roots)
        return -ENOMEM;
    yyjson_arr_foreach (list, index, max, val) {
        r = bly_strict_path(val, BLY_ROLE_WORKSPACE_ROOT, &roots[n], err);
        if (r < 0)
            break;
        n++;
    }
    if (r < 0) {
        free_paths(roots, n);
        return r;
    }
    *ret_roots = roots;
    *ret_n = n;
    return 0;
}

/* Members that mean nothing here, but are decoded by everybody else. */
static int check_rest(yyjson_val *context, struct bly_err *err)
{
    bool ignored = false;
    int level;
    yyjson_val *mode = bly_strict_optional(context, "windowsSandboxProxySettingsMode");
    int r = bly_strict_member_variant(context, "windowsSandboxLevel", windows_levels,
                                      BLY_LEN(windows_levels), &level, err);

    if (r == 0)
        r = bly_strict_bool(context, "windowsSandboxPrivateDesktop", &ignored, err);
    if (r == 0)
        r = bly_strict_bool(context, "useLegacyLandlock", &ignored, err);
    if (r == 0 && mode && !yyjson_is_str(mode))
        r = bly_strict_type_error(mode, "a string", err);
    return r;
}

int bly_profile_context(yyjson_val *context, const struct bly_policy_env *env,
                        struct bly_policy_builder *builder, struct bly_err *err)
{
    struct bly_profile_scope scope = {.env = env};
    yyjson_val *cwd = bly_strict_optional(context, "cwd");
    char **roots = NULL;
    size_t n_roots = 0;
    int r = 0;

    if (cwd)
        r = bly_strict_path(cwd, BLY_ROLE_CWD, &builder->policy->cwd, err);
    if (r == 0)
        r = decode_roots(context, &roots, &n_roots, err);
    if (r < 0)
        return r;

    scope.cwd = builder->policy->cwd;
    scope.workspace_roots = roots;
    scope.n_workspace_roots = n_roots;
    r = decode_profile(yyjson_obj_get(context, "permissions"), &scope, builder, err);
    if (r == 0)
        r = check_rest(context, err);
    free_paths(roots, n_roots);
    return r;
}
