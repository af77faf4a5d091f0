#include "transport/auth.h"

#include <errno.h>
#include <netinet/in.h>
#include <nettle/memops.h>
#include <nettle/sha2.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/ascii.h"
#include "base/err.h"
#include "transport/jwt.h"

static void digest_of(const void *data, size_t len, uint8_t digest[SHA256_DIGEST_SIZE])
{
    struct sha256_ctx ctx;

    sha256_init(&ctx);
    sha256_update(&ctx, len, data);
    sha256_digest(&ctx, SHA256_DIGEST_SIZE, digest);
    explicit_bzero(&ctx, sizeof(ctx));
}

void bly_auth_init_token(struct bly_auth *auth, const void *token, size_t len)
{
    *auth = (struct bly_auth){.mode = BLY_AUTH_TOKEN};
    digest_of(token, len, auth->digest);
}

int bly_auth_init_digest(struct bly_auth *auth, const char *hex)
{
    struct bly_auth made = {.mode = BLY_AUTH_TOKEN};

    if (strlen(hex) != 2 * sizeof(made.digest))
        return -EINVAL;
    for (size_t i = 0; i < sizeof(made.digest); i++) {
        int high = bly_hex_value(hex[2 * i]), low = bly_hex_value(hex[2 * i + 1]);

        if (high < 0 || low < 0)
            return -EINVAL;
        made.digest[i] = (uint8_t)(high << 4 | low);
    }
    *auth = made;
    return 0;
}

void bly_auth_init_jwt(struct bly_auth *auth, const void *secret, size_t len, const char *issuer,
                       const char *audience, int64_t max_skew_s)
{
    *auth = (struct bly_auth){
        .mode = BLY_AUTH_JWT,
        .issuer = issuer,
        .audience = audience,
        .max_skew_s = max_skew_s,
    };
    hmac_sha256_set_key(&auth->mac, len, secret);
}

void bly_auth_deinit(struct bly_auth *auth)
{
    explicit_bzero(auth, sizeof(*auth));
}

bool bly_auth_is_asked(const struct bly_auth *auth)
{
    return auth && (auth->mode == BLY_AUTH_TOKEN || auth->mode == BLY_AUTH_JWT);
}

/* ---- the header ----------------------------------------------------------------------------- */

/* Bytes above ASCII have no meaning in a header that everybody agrees on. */
static bool is_printable(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '\t' && (text[i] < ' ' || text[i] > '~'))
            return false;
    }
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* "Bearer TOKEN": the scheme in any case, one blank or more. Fails with -EINVAL. */
static int cut_token(const char *header, size_t len, const char **ret_token, size_t *ret_len)
{
    static const char scheme[] = "bearer";
    size_t scheme_len = sizeof(scheme) - 1;
    const char *token, *end = header + len;

    if (len <= scheme_len || header[scheme_len] != ' ' || !is_printable(header, len))
        return -EINVAL;
    if (strncasecmp(header, scheme, scheme_len) != 0)
        return -EINVAL;

    token = header + scheme_len;
    while (token < end && is_blank(*token))
        token++;
    while (end > token && is_blank(end[-1]))
        end--;
    if (token == end)
        return -EINVAL;
    *ret_token = token;
    *ret_len = (size_t)(end - token);
    return 0;
}

/* Digests have one length and say nothing about where two tokens begin to differ. */
static enum bly_auth_verdict check_token(const struct bly_auth *auth, const char *token, size_t len)
{
    uint8_t digest[SHA256_DIGEST_SIZE];

    digest_of(token, len, digest);
    return memeql_sec(digest, auth->digest, sizeof(digest)) ? BLY_AUTH_OK : BLY_AUTH_WRONG_TOKEN;
}

enum bly_auth_verdict bly_auth_check(const struct bly_auth *auth, const char *header, size_t len,
                                     int64_t now_s)
{
    const char *token;
    size_t token_len;

    if (!bly_auth_is_asked(auth))
        return BLY_AUTH_OK;
    if (!header)
        return BLY_AUTH_MISSING;
    if (cut_token(header, len, &token, &token_len) < 0)
        return BLY_AUTH_BAD_HEADER;
    if (auth->mode == BLY_AUTH_TOKEN)
        return check_token(auth, token, token_len);
    return bly_jwt_check(auth, token, token_len, now_s);
}

/* ---- listeners ------------------------------------------------------------------------------ */

static bool is_loopback4(uint32_t address)
{
    return address >> 24 == IN_LOOPBACKNET;
}

static bool is_loopback6(const struct in6_addr *address)
{
    uint32_t last;

    if (!IN6_IS_ADDR_V4MAPPED(address))
        return IN6_IS_ADDR_LOOPBACK(address);
    memcpy(&last, address->s6_addr + 12, sizeof(last));
    return is_loopback4(ntohl(last));
}

bool bly_auth_is_local(const struct sockaddr *address)
{
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;

    switch (address->sa_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        memcpy(&in4, address, sizeof(in4));
        return is_loopback4(ntohl(in4.sin_addr.s_addr));
    case AF_INET6:
        memcpy(&in6, address, sizeof(in6));
        return is_loopback6(&in6.sin6_addr);
    default:
        return false;
    }
}

int bly_auth_admit_listener(const struct bly_auth *auth, const struct sockaddr *address,
                            const char *url, struct bly_err *err)
{
    if (!address && bly_auth_is_asked(auth))
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "WebSocket auth requires a WebSocket listener, not stdio");
    if (!address || bly_auth_is_local(address) || (auth && auth->mode != BLY_AUTH_NONE))
        return 0;
    return bly_fail(err, BLY_ERR_DENIED, EACCES,
                    "`%s` can be reached from other machines, and whoever connects can run "
                    "programs: ask for a token with `--ws-auth`, listen on a loopback address, or "
                    "say `--insecure-no-auth`",
                    url);
}
