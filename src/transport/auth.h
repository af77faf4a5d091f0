#pragma once

/*
 * Who may connect: the rule for an upgrade's Authorization header, and for what may be listened on
 * without one. Of a token only its digest is kept, of a shared secret only the keyed state of the
 * MAC; both are compared in constant time. Pure, apart from the clock that the caller brings; any
 * thread. Spec 1.7.
 */
#include <nettle/hmac.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_err;
struct sockaddr;

enum bly_auth_mode {
    BLY_AUTH_NONE, /* nobody is asked, so only local listeners are possible */
    BLY_AUTH_OPEN, /* nobody is asked, and the operator has said that this is meant */
    BLY_AUTH_TOKEN,
    BLY_AUTH_JWT,
};

enum { BLY_AUTH_SECRET_MIN = 32 }; /* bytes of a shared secret */

/* All zero: BLY_AUTH_NONE. */
struct bly_auth {
    enum bly_auth_mode mode;
    uint8_t digest[SHA256_DIGEST_SIZE]; /* TOKEN: of the token */
    struct hmac_sha256_ctx mac;         /* JWT: with the key set */
    const char *issuer, *audience;      /* JWT: borrowed; NULL: any will do */
    int64_t max_skew_s;                 /* JWT: not negative */
};

/* Each copies what it needs: the caller wipes the secret. */
void bly_auth_init_token(struct bly_auth *auth, const void *token, size_t len);
/* `hex` is the SHA-256 of the token in 64 digits of any case. -EINVAL: it is not. */
int bly_auth_init_digest(struct bly_auth *auth, const char *hex);
void bly_auth_init_jwt(struct bly_auth *auth, const void *secret, size_t len, const char *issuer,
                       const char *audience, int64_t max_skew_s);
void bly_auth_deinit(struct bly_auth *auth); /* wipes it; it is NONE afterwards */

/* Whether clients have to prove themselves. NULL is NONE. */
bool bly_auth_is_asked(const struct bly_auth *auth);

enum bly_auth_verdict {
    BLY_AUTH_OK,
    BLY_AUTH_MISSING,
    BLY_AUTH_BAD_HEADER, /* not "Bearer TOKEN" */
    BLY_AUTH_WRONG_TOKEN,
    BLY_AUTH_BAD_JWT,
    BLY_AUTH_EXPIRED,
    BLY_AUTH_TOO_EARLY,
    BLY_AUTH_WRONG_ISSUER,
    BLY_AUTH_WRONG_AUDIENCE,
};

/* `header` is the value of the header, NULL when there is none; `now_s` the time of day. */
enum bly_auth_verdict bly_auth_check(const struct bly_auth *auth, const char *header, size_t len,
                                     int64_t now_s);

/* 127.0.0.0/8, ::1, ::ffff:127.0.0.0/104, and everything that is not on a network at all. */
bool bly_auth_is_local(const struct sockaddr *address);

/*
 * Whether this may be listened on. `address` NULL: stdin and stdout, which have no header to prove
 * anything with. `url` is for the message. 0; -EINVAL, -EACCES with `err` set.
 */
int bly_auth_admit_listener(const struct bly_auth *auth, const struct sockaddr *address,
                            const char *url, struct bly_err *err);
