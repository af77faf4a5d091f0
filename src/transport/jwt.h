#pragma once

/*
 * JSON Web Tokens (RFC 7519) signed with HMAC-SHA256, and no others. The signature is checked
 * before anything inside is looked at, so nobody without the secret gets as far as the JSON parser.
 * Pure; any thread.
 */
#include <stddef.h>
#include <stdint.h>

#include "transport/auth.h"

enum { BLY_JWT_MAX = 8192 }; /* bytes: no head of a request is longer */

/* `auth` is in mode BLY_AUTH_JWT. */
enum bly_auth_verdict bly_jwt_check(const struct bly_auth *auth, const char *token, size_t len,
                                    int64_t now_s);
