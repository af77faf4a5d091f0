#include "sandbox/policy/strict.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/path.h"

int bly_strict_type_error(yyjson_val *val, const char *expected, struct bly_err *err)
{
    char got[96] = "null";

    if (yyjson_is_bool(val))
        (void)snprintf(got, sizeof(got), "boolean `%s`", yyjson_get_bool(val) ? "true" : "false");
    else if (yyjson_is_uint(val))
        (void)snprintf(got, sizeof(got), "integer `%llu`",
                       (unsigned long long)yyjson_get_uint(val));
    else if (yyjson_is_sint(val))
        (void)snprintf(got, sizeof(got), "integer `%lld`", (long long)yyjson_get_sint(val));
    else if (yyjson_is_real(val))
        (void)snprintf(got, sizeof(got), "floating point number");
    else if (yyjson_is_str(val))
        (void)snprintf(got, sizeof(got), "string \"%.64s\"", yyjson_get_str(val));
    else if (yyjson_is_arr(val))
        (void)snprintf(got, sizeof(got), "sequence");
    else if (yyjson_is_obj(val))
        (void)snprintf(got, sizeof(got), "map");
    return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "invalid type: %s, expected %s", got, expected);
}

int bly_strict_object(yyjson_val *val, const char *expected, struct bly_err *err)
{
    return yyjson_is_obj(val) ? 0 : bly_strict_type_error(val, expected, err);
}

int bly_strict_member(yyjson_val *obj, const char *name, yyjson_val **ret, struct bly_err *err)
{
    yyjson_val *val = yyjson_obj_get(obj, name);

    if (!val)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "missing field `%s`", name);
    *ret = val;
    return 0;
}

yyjson_val *bly_strict_optional(yyjson_val *obj, const char *name)
{
    yyjson_val *val = yyjson_obj_get(obj, name);

    return yyjson_is_null(val) ? NULL : val;
}

static int unknown_variant(yyjson_val *val, const struct bly_variant *variants, size_t n,
                           struct bly_err *err)
{
    char list[512] = "";
    size_t listed = 0;
    size_t len = 0;

    for (size_t i = 0; i < n; i++)
        listed += !variants[i].alias;
    for (size_t i = 0; i < n && len < sizeof(list); i++) {
        const char *glue = len == 0 ? "" : listed == 2 ? " or " : ", ";

        if (!variants[i].alias)
            len +=
                (size_t)snprintf(list + len, sizeof(list) - len, "%s`%s`", glue, variants[i].name);
    }
    return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "unknown variant `%.256s`, expected %s%s",
                    yyjson_get_str(val), listed > 2 ? "one of " : "", list);
}

int bly_strict_variant(yyjson_val *val, const struct bly_variant *variants, size_t n,
                       const char *expected, int *ret, struct bly_err *err)
{
    if (!yyjson_is_str(val))
        return bly_strict_type_error(val, expected, err);
    for (size_t i = 0; i < n; i++) {
        if (yyjson_equals_str(val, variants[i].name)) {
            *ret = variants[i].value;
            return 0;
        }
    }
    return unknown_variant(val, variants, n, err);
}

int bly_strict_member_variant(yyjson_val *obj, const char *name, const struct bly_variant *variants,
                              size_t n, int *ret, struct bly_err *err)
{
    yyjson_val *val;
    int r = bly_strict_member(obj, name, &val, err);

    return r < 0 ? r : bly_strict_variant(val, variants, n, "a string", ret, err);
}

int bly_strict_bool(yyjson_val *obj, const char *name, bool *value, struct bly_err *err)
{
    yyjson_val *val = yyjson_obj_get(obj, name);

    if (!val)
        return 0;
    if (!yyjson_is_bool(val))
        return bly_strict_type_error(val, "a boolean", err);
    *value = yyjson_get_bool(val);
    return 0;
}

/* An encoded slash, also when it is cut by the tabs and line breaks that a URI parser drops. */
static bool has_encoded_slash(const char *text, size_t len)
{
    static const char slash[] = "%2f";
    size_t seen = 0;

    for (size_t i = 0; i < len; i++) {
        char c = text[i] == 'F' ? 'f' : text[i];

        if (c == '\t' || c == '\n' || c == '\r')
            continue;
        seen = c == slash[seen] ? seen + 1 : c == '%';
        if (slash[seen] == '\0')
            return true;
    }
    return false;
}

/* Gives the error of the path decoder the words that the protocol has for this place. */
static int explain_bad_path(int r, enum bly_path_role role, const char *text, struct bly_err *err)
{
    bool foreign = err->kind == BLY_ERR_INVALID || err->text[0] == '\'';

    if (err->kind == BLY_ERR_SYSTEM) /* too long */
        err->kind = BLY_ERR_PARAMS;
    if (role == BLY_ROLE_LEGACY &&
        strcmp(err->text, "invalid URI: relative URL without a base") == 0)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                        "AbsolutePathBuf deserialized without a base path");
    if (foreign && role == BLY_ROLE_WORKSPACE_ROOT)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "file system sandbox workspace root is not native to this exec-server "
                        "host: %s",
                        text);
    if (foreign && role == BLY_ROLE_CWD)
        return bly_because(err, r, "invalid sandbox policy cwd");
    if (foreign)
        return bly_because(err, r, "invalid sandbox permission path URI");
    return r;
}

int bly_strict_path(yyjson_val *val, enum bly_path_role role, char **ret, struct bly_err *err)
{
    if (!yyjson_is_str(val))
        return bly_strict_type_error(val, "a string", err);

    const char *text = yyjson_get_str(val);
    size_t len = yyjson_get_len(val);

    if (text[0] != '/' && has_encoded_slash(text, len))
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                        "encoded slashes are not allowed in sandbox path URIs");

    int r = bly_path_from_wire(text, len, ret, err);

    if (r == -ENOMEM)
        return r;
    return r < 0 ? explain_bad_path(-EINVAL, role, text, err) : 0;
}

int bly_strict_text(yyjson_val *val, const char **ret, struct bly_err *err)
{
    if (!yyjson_is_str(val))
        return bly_strict_type_error(val, "a string", err);
    if (strlen(yyjson_get_str(val)) != yyjson_get_len(val))
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                        "sandbox policy text contained an unexpected NUL byte");
    *ret = yyjson_get_str(val);
    return 0;
}
