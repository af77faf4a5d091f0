#pragma once

/*
 * Strict decoding of a sandbox context: the right JSON type or an error, the words of protocol 2.5.
 * Private to sandbox/policy; `err` is never NULL here. All return 0 or a negative errno; what goes
 * wrong is BLY_ERR_PARAMS unless said otherwise.
 */
#include <stdbool.h>
#include <stddef.h>
#include <yyjson.h>

struct bly_err;

/* "invalid type: X, expected EXPECTED" */
int bly_strict_type_error(yyjson_val *val, const char *expected, struct bly_err *err);

/* 0 when `val` is an object. */
int bly_strict_object(yyjson_val *val, const char *expected, struct bly_err *err);

/* A member that must be there; null is a value. */
int bly_strict_member(yyjson_val *obj, const char *name, yyjson_val **ret, struct bly_err *err);

/* A member that may be absent or null; `*ret` is NULL then. */
yyjson_val *bly_strict_optional(yyjson_val *obj, const char *name);

struct bly_variant {
    const char *name;
    int value;
    bool alias; /* accepted, but not listed among what is expected */
};

/* A string out of a list; `expected` is what the type error says. */
int bly_strict_variant(yyjson_val *val, const struct bly_variant *variants, size_t n,
                       const char *expected, int *ret, struct bly_err *err);

/* The same for a required member, "string" expected. */
int bly_strict_member_variant(yyjson_val *obj, const char *name, const struct bly_variant *variants,
                              size_t n, int *ret, struct bly_err *err);

/* A member that may be absent, but is not null: `*value` keeps its default. */
int bly_strict_bool(yyjson_val *obj, const char *name, bool *value, struct bly_err *err);

/* The words around a path that cannot exist on this host ('URI' is invalid on 'linux'). */
enum bly_path_role { BLY_ROLE_PERMISSION, BLY_ROLE_CWD, BLY_ROLE_WORKSPACE_ROOT, BLY_ROLE_LEGACY };

/* A path in either spelling; the caller owns `*ret`. Also BLY_ERR_INVALID. */
int bly_strict_path(yyjson_val *val, enum bly_path_role role, char **ret, struct bly_err *err);

/* A string without NUL; borrowed. */
int bly_strict_text(yyjson_val *val, const char **ret, struct bly_err *err);
