#include "transport/jwt.h"

#include <errno.h>
#include <nettle/memops.h>
#include <stdbool.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/json.h"

/* Borrowed from the token. */
struct part {
    const char *text;
    size_t len;
};

struct claims {
    int64_t exp, nbf;
    bool has_nbf;
    yyjson_val *iss, *aud; /* NULL when absent; else a string, aud also an array of strings */
};

/* ---- its three parts ------------------------------------------------------------------------ */

/* HEADER.CLAIMS.SIGNATURE, all of it used up. */
static int split(const char *token, size_t len, struct part parts[3])
{
    const char *end = token + len;

    for (size_t i = 0; i < 3; i++) {
        const char *dot = memchr(token, '.', (size_t)(end - token));

        if ((i < 2) != (dot != NULL))
            return -EINVAL;
        parts[i].text = token;
        parts[i].len = (size_t)((dot ? dot : end) - token);
        token = dot ? dot + 1 : end;
    }
    return 0;
}

/*
 * base64url without padding (RFC 7515 section 2), as strict as ours, which does the work. `data`
 * has room for BLY_JWT_MAX bytes, which is enough for the text as well.
 */
static int decode(struct part part, char *data, size_t *ret_n)
{
    static const char padding[] = "==";
    size_t n_padding = (4 - part.len % 4) % 4;

    if (part.len + n_padding > BLY_JWT_MAX || n_padding > 2)
        return -EINVAL;
    for (size_t i = 0; i < part.len; i++) {
        char c = part.text[i];

        if (c == '+' || c == '/' || c == '=')
            return -EINVAL;
        data[i] = (char)(c == '-' ? '+' : c == '_' ? '/' : c);
    }
    memcpy(data + part.len, padding, n_padding);
    return bly_base64_decode(data, part.len + n_padding, data, ret_n, NULL);
}

static bool is_signed(const struct bly_auth *auth, struct part signed_text, struct part signature)
{
    struct hmac_sha256_ctx mac = auth->mac;
    uint8_t expected[SHA256_DIGEST_SIZE];
    char given[BLY_JWT_MAX];
    size_t n;
    bool same;

    hmac_sha256_update(&mac, signed_text.len, (const uint8_t *)signed_text.text);
    hmac_sha256_digest(&mac, sizeof(expected), expected);
    same = decode(signature, given, &n) == 0 && n == sizeof(expected) &&
           memeql_sec(expected, given, sizeof(expected));
    /* What would have been right is a key to the server. */
    explicit_bzero(&mac, sizeof(mac));
    explicit_bzero(expected, sizeof(expected));
    return same;
}

/* ---- what is in them ------------------------------------------------------------------------ */

static void free_document(yyjson_doc **doc)
{
    yyjson_doc_free(*doc);
}

#define auto_document __attribute__((cleanup(free_document))) yyjson_doc *

/* `text` holds the document from here on: BLY_JWT_MAX bytes and the parser's padding. */
static int read_object(struct part part, char *text, yyjson_doc **ret_doc)
{
    size_t n;

    if (decode(part, text, &n) < 0)
        return -EINVAL;
    memset(text + n, 0, BLY_JSON_PADDING);
    if (bly_json_read(text, n, ret_doc, NULL) < 0)
        return -EINVAL;
    return yyjson_is_obj(yyjson_doc_get_root(*ret_doc)) ? 0 : -EINVAL;
}

static yyjson_val *member(yyjson_doc *doc, const char *name)
{
    yyjson_val *val = yyjson_obj_get(yyjson_doc_get_root(doc), name);

    return yyjson_is_null(val) ? NULL : val;
}

/* `crit` names extensions that must be understood, and none is. */
static int check_header(struct part part)
{
    char text[BLY_JWT_MAX + BLY_JSON_PADDING];
    auto_document doc = NULL;
    yyjson_val *typ;

    if (read_object(part, text, &doc) < 0)
        return -EINVAL;
    typ = member(doc, "typ");
    if (!yyjson_equals_str(member(doc, "alg"), "HS256") || (typ && !yyjson_is_str(typ)))
        return -EINVAL;
    return yyjson_obj_get(yyjson_doc_get_root(doc), "crit") ? -EINVAL : 0;
}

static int read_time(yyjson_val *val, int64_t *ret)
{
    if (!yyjson_is_int(val) || (yyjson_is_uint(val) && yyjson_get_uint(val) > INT64_MAX))
        return -EINVAL;
    *ret = yyjson_get_sint(val);
    return 0;
}

static bool is_audience(yyjson_val *val)
{
    size_t i, n;
    yyjson_val *one;

    if (!yyjson_is_arr(val))
        return yyjson_is_str(val);
    yyjson_arr_foreach (val, i, n, one) {
        if (!yyjson_is_str(one))
            return false;
    }
    return true;
}

/* Types are checked whether or not somebody cares for the value, as upstream does. */
static int read_claims(yyjson_doc *doc, struct claims *claims)
{
    yyjson_val *nbf = member(doc, "nbf");

    claims->iss = member(doc, "iss");
    claims->aud = member(doc, "aud");
    claims->has_nbf = nbf != NULL;
    if (read_time(member(doc, "exp"), &claims->exp) < 0)
        return -EINVAL;
    if (nbf && read_time(nbf, &claims->nbf) < 0)
        return -EINVAL;
    if (claims->iss && !yyjson_is_str(claims->iss))
        return -EINVAL;
    return claims->aud && !is_audience(claims->aud) ? -EINVAL : 0;
}

static bool is_for(yyjson_val *aud, const char *audience)
{
    size_t i, n;
    yyjson_val *one;

    if (!yyjson_is_arr(aud))
        return yyjson_equals_str(aud, audience);
    yyjson_arr_foreach (aud, i, n, one) {
        if (yyjson_equals_str(one, audience))
            return true;
    }
    return false;
}

/* a - b, at the end of the range when it does not fit. */
static int64_t minus(int64_t a, int64_t b)
{
    int64_t difference;

    if (__builtin_sub_overflow(a, b, &difference))
        return a < 0 ? INT64_MIN : INT64_MAX;
    return difference;
}

static enum bly_auth_verdict judge(const struct bly_auth *auth, const struct claims *claims,
                                   int64_t now_s)
{
    if (claims->exp < minus(now_s, auth->max_skew_s))
        return BLY_AUTH_EXPIRED;
    if (claims->has_nbf && minus(claims->nbf, auth->max_skew_s) > now_s)
        return BLY_AUTH_TOO_EARLY;
    if (auth->issuer && !yyjson_equals_str(claims->iss, auth->issuer))
        return BLY_AUTH_WRONG_ISSUER;
    if (auth->audience && !is_for(claims->aud, auth->audience))
        return BLY_AUTH_WRONG_AUDIENCE;
    return BLY_AUTH_OK;
}

enum bly_auth_verdict bly_jwt_check(const struct bly_auth *auth, const char *token, size_t len,
                                    int64_t now_s)
{
    char text[BLY_JWT_MAX + BLY_JSON_PADDING];
    auto_document doc = NULL;
    struct part parts[3], signed_text = {.text = token};
    struct claims claims = {0};

    if (len > BLY_JWT_MAX || split(token, len, parts) < 0)
        return BLY_AUTH_BAD_JWT;
    signed_text.len = parts[0].len + 1 + parts[1].len;
    if (!is_signed(auth, signed_text, parts[2]) || check_header(parts[0]) < 0)
        return BLY_AUTH_BAD_JWT;
    if (read_object(parts[1], text, &doc) < 0 || read_claims(doc, &claims) < 0)
        return BLY_AUTH_BAD_JWT;
    return judge(auth, &claims, now_s);
}
