#pragma once

/*
 * Tokens as a client would bring them; for tests and fuzz targets. Header-only.
 */
#include <nettle/hmac.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/base64.h"

/* base64url without padding, NUL-terminated; `text` has room for 4 / 3 and four bytes more. */
static inline size_t mint_base64url(const void *data, size_t len, char *text)
{
    size_t n = bly_base64_len(len);

    bly_base64_encode(data, len, text);
    for (size_t i = 0; i < n; i++)
        text[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
    while (n > 0 && text[n - 1] == '=')
        n--;
    text[n] = '\0';
    return n;
}

/* HEADER.CLAIMS.SIGNATURE; `token` has room for it. Returns its length. */
static inline size_t mint_jwt(const char *secret, const void *header, size_t header_len,
                              const void *claims, size_t claims_len, char *token)
{
    struct hmac_sha256_ctx mac;
    uint8_t digest[SHA256_DIGEST_SIZE];
    size_t n = mint_base64url(header, header_len, token);

    token[n++] = '.';
    n += mint_base64url(claims, claims_len, token + n);
    hmac_sha256_set_key(&mac, strlen(secret), (const uint8_t *)secret);
    hmac_sha256_update(&mac, n, (const uint8_t *)token);
    hmac_sha256_digest(&mac, sizeof(digest), digest);
    token[n++] = '.';
    return n + mint_base64url(digest, sizeof(digest), token + n);
}
