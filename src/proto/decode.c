#include "proto/decode.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/path.h"
#include "sandbox/policy/policy.h"

enum { WORD_SHOWN = 128 }; /* bytes of an unknown word that are repeated */

static const char *type_name(yyjson_val *val)
{
    switch (yyjson_get_type(val)) {
    case YYJSON_TYPE_BOOL:
        return "boolean";
    case YYJSON_TYPE_NUM:
        return "number";
    case YYJSON_TYPE_STR:
        return "string";
    case YYJSON_TYPE_ARR:
        return "sequence";
    case YYJSON_TYPE_OBJ:
        return "map";
    default:
        return "null";
    }
}

static void fail(struct bly_decoder *d, int error)
{
    if (d->error == 0)
        d->error = error;
}

void bly_decode_mistyped(struct bly_decoder *d, const char *name, yyjson_val *got,
                         const char *wanted)
{
    if (d->error == 0)
        fail(d, bly_fail(d->err, BLY_ERR_PARAMS, EINVAL, "invalid type: %s, expected %s for `%s`",
                         type_name(got), wanted, name));
}

struct bly_decoder bly_decoder_of(yyjson_val *value, const char *name, struct bly_err *err)
{
    struct bly_decoder d = {.object = value, .err = err};

    if (!yyjson_is_obj(value))
        bly_decode_mistyped(&d, name, value, "an object");
    return d;
}

yyjson_val *bly_decode_any(struct bly_decoder *d, const char *name, enum bly_need need)
{
    yyjson_val *val;

    if (d->error < 0)
        return NULL;

    val = yyjson_obj_get(d->object, name);
    if (!val && need == BLY_REQUIRED)
        fail(d, bly_fail(d->err, BLY_ERR_PARAMS, EINVAL, "missing field `%s`", name));

    return need == BLY_OPTIONAL && yyjson_is_null(val) ? NULL : val;
}

yyjson_val *bly_decode_array(struct bly_decoder *d, const char *name, enum bly_need need)
{
    yyjson_val *val = bly_decode_any(d, name, need);

    if (!val || yyjson_is_arr(val))
        return val;

    bly_decode_mistyped(d, name, val, "a sequence");
    return NULL;
}

yyjson_val *bly_decode_object(struct bly_decoder *d, const char *name, enum bly_need need)
{
    yyjson_val *val = bly_decode_any(d, name, need);

    if (!val || yyjson_is_obj(val))
        return val;

    bly_decode_mistyped(d, name, val, "an object");
    return NULL;
}

const char *bly_decode_str(struct bly_decoder *d, const char *name, enum bly_need need,
                           size_t *ret_len)
{
    yyjson_val *val = bly_decode_any(d, name, need);

    *ret_len = 0;
    if (!val)
        return NULL;

    if (!yyjson_is_str(val)) {
        bly_decode_mistyped(d, name, val, "a string");
        return NULL;
    }
    *ret_len = yyjson_get_len(val);
    return yyjson_get_str(val);
}

uint64_t bly_decode_u64(struct bly_decoder *d, const char *name, enum bly_need need, uint64_t def)
{
    yyjson_val *val = bly_decode_any(d, name, need);

    if (!val)
        return def;

    if (!yyjson_is_uint(val)) {
        bly_decode_mistyped(d, name, val, "an unsigned 64-bit integer");
        return def;
    }
    return yyjson_get_uint(val);
}

bool bly_decode_bool(struct bly_decoder *d, const char *name, enum bly_need need, bool def)
{
    yyjson_val *val = bly_decode_any(d, name, need);

    if (!val)
        return def;

    if (!yyjson_is_bool(val)) {
        bly_decode_mistyped(d, name, val, "a boolean");
        return def;
    }
    return yyjson_get_bool(val);
}

/* "`a`", "`a` or `b`", "one of `a`, `b`, `c`" */
static void list_words(const char *const *words, char *text, size_t size)
{
    size_t n = 0, used = 0;

    while (words[n])
        n++;
    if (n > 2)
        used = (size_t)snprintf(text, size, "one of ");
    for (size_t i = 0; i < n && used < size; i++) {
        const char *before = i == 0 ? "" : n == 2 ? " or " : ", ";

        used += (size_t)snprintf(text + used, size - used, "%s`%s`", before, words[i]);
    }
}

static void fail_word(struct bly_decoder *d, yyjson_val *val, const char *const *words)
{
    size_t len = yyjson_get_len(val);
    char expected[256];

    list_words(words, expected, sizeof(expected));
    fail(d, bly_fail(d->err, BLY_ERR_PARAMS, EINVAL, "unknown variant `%.*s`, expected %s",
                     len < WORD_SHOWN ? (int)len : WORD_SHOWN, yyjson_get_str(val), expected));
}

unsigned bly_decode_word(struct bly_decoder *d, const char *name, enum bly_need need,
                         const char *const *words, unsigned def)
{
    yyjson_val *val = bly_decode_any(d, name, need);

    if (!val)
        return def;

    if (!yyjson_is_str(val)) {
        bly_decode_mistyped(d, name, val, "a string");
        return def;
    }
    for (unsigned i = 0; words[i]; i++) {
        if (yyjson_equals_str(val, words[i]))
            return i;
    }
    fail_word(d, val, words);
    return def;
}

char *bly_decode_any_path(struct bly_decoder *d, const char *text, size_t len, bool *ret_foreign)
{
    char *path = NULL;
    int r;

    *ret_foreign = false;
    if (d->error < 0 || !text)
        return NULL;

    r = bly_path_from_wire(text, len, &path, d->err);
    if (r == -ENOMEM)
        r = bly_fail_sys(d->err, ENOMEM, "cannot keep a path");
    else if (r < 0 && d->err->kind == BLY_ERR_INVALID)
        *ret_foreign = true;
    if (!*ret_foreign)
        fail(d, r);
    return path;
}

char *bly_decode_path_text(struct bly_decoder *d, const char *text, size_t len)
{
    bool foreign;
    char *path = bly_decode_any_path(d, text, len, &foreign);

    if (foreign)
        fail(d, -EINVAL);
    return path;
}

struct bly_policy *bly_decode_sandbox(struct bly_decoder *d, yyjson_val *value,
                                      const struct bly_policy_env *env)
{
    struct bly_policy *policy = NULL;
    int r;

    if (d->error < 0 || !value)
        return NULL;

    r = bly_policy_parse(value, env, &policy, d->err);
    if (r == -ENOMEM)
        r = bly_fail_sys(d->err, ENOMEM, "cannot keep a policy");
    fail(d, r);
    return policy;
}

char *bly_decode_in_place(const char *text)
{
    return (char *)(uintptr_t)text;
}
