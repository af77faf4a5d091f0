#pragma once

/*
 * Reading the members of a JSON object as strictly as the protocol wants. A decoder remembers its
 * first failure and then ignores every further read, which gives the default, so a list of reads
 * needs one check at its end. Read in the order of docs/PROTOCOL.md: the first member that is
 * missing is the one the client is told about. Unknown members are ignored. Failures are
 * BLY_ERR_PARAMS unless said otherwise. Pure; any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

struct bly_err;
struct bly_policy;
struct bly_policy_env;

enum bly_need {
    BLY_REQUIRED,  /* absent: "missing field"; null: a type error */
    BLY_OPTIONAL,  /* absent or null: the default */
    BLY_DEFAULTED, /* absent: the default; null: a type error */
};

struct bly_decoder {
    yyjson_val *object;
    struct bly_err *err;
    int error; /* 0, or the negative errno of the first failure, which is in *err */
};

/* `value` (may be NULL: absent) must be an object; `name` is what the error calls it. */
struct bly_decoder bly_decoder_of(yyjson_val *value, const char *name, struct bly_err *err);

/* Sets the failure, unless there is one already: "invalid type: GOT, expected WANTED for `NAME`".
 */
void bly_decode_mistyped(struct bly_decoder *d, const char *name, yyjson_val *got,
                         const char *wanted);

/* NULL when it is absent, null with BLY_OPTIONAL, or the decoder failed. */
yyjson_val *bly_decode_any(struct bly_decoder *d, const char *name, enum bly_need need);
yyjson_val *bly_decode_array(struct bly_decoder *d, const char *name, enum bly_need need);
yyjson_val *bly_decode_object(struct bly_decoder *d, const char *name, enum bly_need need);

/* NULL as above; else borrowed from the document, NUL-terminated, and may contain NUL. */
const char *bly_decode_str(struct bly_decoder *d, const char *name, enum bly_need need,
                           size_t *ret_len);

/* A JSON integer from 0 to 2^64-1 without fraction and exponent. */
uint64_t bly_decode_u64(struct bly_decoder *d, const char *name, enum bly_need need, uint64_t def);
bool bly_decode_bool(struct bly_decoder *d, const char *name, enum bly_need need, bool def);

/* Index into `words` (NULL-terminated): "unknown variant `x`, expected one of `a`, `b`, `c`". */
unsigned bly_decode_word(struct bly_decoder *d, const char *name, enum bly_need need,
                         const char *const *words, unsigned def);

/*
 * A native path from a member's text (NULL: the decoder failed, or has failed now). The result is
 * the caller's. Kind BLY_ERR_PARAMS or BLY_ERR_INVALID, see bly_path_from_wire().
 */
char *bly_decode_path_text(struct bly_decoder *d, const char *text, size_t len);

/*
 * The same for methods that answer, rather than fail, when no file on this machine can have such a
 * path (another host, a drive letter): then `*ret_foreign`, NULL, and *d->err says why.
 */
char *bly_decode_any_path(struct bly_decoder *d, const char *text, size_t len, bool *ret_foreign);

/*
 * The policy a `sandbox` member stands for (NULL: there is none, and so no policy). The reference
 * is the caller's. Kind BLY_ERR_PARAMS or BLY_ERR_INVALID, see bly_policy_parse().
 */
struct bly_policy *bly_decode_sandbox(struct bly_decoder *d, yyjson_val *value,
                                      const struct bly_policy_env *env);

/*
 * The same text, for decoding in place: the document's strings lie in memory that is ours to write,
 * though yyjson hands them out as const.
 */
char *bly_decode_in_place(const char *text);
