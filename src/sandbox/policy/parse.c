#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/path.h"
#include "sandbox/policy/builder.h"
#include "sandbox/policy/forms.h"
#include "sandbox/policy/policy.h"
#include "sandbox/policy/strict.h"

/* The workspace of form A is the policy's working directory. */
static int set_cwd(struct bly_policy *policy, const struct bly_policy_env *env, struct bly_err *err)
{
    int r = env->cwd ? bly_path_normalise(env->cwd, strlen(env->cwd), &policy->cwd) : 0;

    if (r == -ENOMEM || r == 0)
        return r;
    return bly_fail(err, BLY_ERR_INVALID, EINVAL, "the server's working directory is unusable: %s",
                    env->cwd);
}

static int parse_context(yyjson_val *sandbox, const struct bly_policy_env *env,
                         struct bly_policy_builder *builder, bool *ret_legacy, struct bly_err *err)
{
    int r = bly_strict_object(sandbox, "a sandbox context", err);

    if (r < 0)
        return r;

    bool legacy = yyjson_obj_get(sandbox, "sandboxPolicy") != NULL;

    /* A member counts by its presence, also when it is null: nobody may guess what was meant. */
    if (!legacy && !yyjson_obj_get(sandbox, "permissions"))
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "missing field `permissions`");
    if (legacy && yyjson_obj_get(sandbox, "permissions"))
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                        "`permissions` and `sandboxPolicy` exclude each other");
    *ret_legacy = legacy;
    if (!legacy)
        return bly_profile_context(sandbox, env, builder, err);
    r = set_cwd(builder->policy, env, err);
    return r < 0 ? r : bly_legacy_context(sandbox, env, builder, err);
}

int bly_policy_parse(struct yyjson_val *sandbox, const struct bly_policy_env *env,
                     struct bly_policy **ret_policy, struct bly_err *err)
{
    struct bly_policy_builder builder;
    struct bly_err unused = {0};
    bool legacy = false;
    int r;

    /* By address: nothing a client writes can be mistaken for it. */
    if (env->known.place && yyjson_get_str(sandbox) == env->known.place) {
        *ret_policy = bly_policy_ref(env->known.policy);
        return 0;
    }
    r = bly_policy_builder_init(&builder);
    if (r == 0)
        r = parse_context(sandbox, env, &builder, &legacy, err ? err : &unused);
    if (r == 0)
        *ret_policy = bly_policy_builder_build(&builder, legacy);
    bly_policy_builder_deinit(&builder);
    return r;
}

int bly_policy_parse_text(const char *json, const struct bly_policy_env *env,
                          struct bly_policy **ret_policy, struct bly_err *err)
{
    yyjson_doc *doc = NULL;
    int r = bly_json_read_copy(json, strlen(json), &doc, err);

    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        if (err)
            err->kind = BLY_ERR_PARAMS;
        return -EINVAL;
    }
    r = bly_policy_parse(yyjson_doc_get_root(doc), env, ret_policy, err);
    yyjson_doc_free(doc);
    return r;
}
