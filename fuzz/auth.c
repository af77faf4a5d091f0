/*
 * Who may connect. An input is a header's value; or, when it has a line break, the header and the
 * claims of a JWT, which gets the right signature here: else no fuzzer would ever get that far.
 */
#include "transport/auth.h"

#include <ctype.h>

#include "base/cleanup.h"
#include "fuzz.h"
#include "transport/jwt.h"
#include "unit/transport/mint.h"

#define SECRET "0123456789abcdef0123456789abcdef"

enum { NOW = 1000000, SKEW = 30, ROOM = 4 * BLY_JWT_MAX };

static const char token[] = "open sesame";

/* Says the same, more slowly: "bearer", blanks, the token, blanks. */
static bool is_the_token(const char *header, size_t size)
{
    const char *end = header + size;

    if (size < 7 || strncasecmp(header, "bearer ", 7) != 0)
        return false;
    for (header += 7; header < end && (*header == ' ' || *header == '\t'); header++)
        ;
    while (end > header && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (size_t)(end - header) == sizeof(token) - 1 &&
           memcmp(header, token, sizeof(token) - 1) == 0;
}

static void check_header(const char *header, size_t size)
{
    struct bly_auth by_token, by_jwt;
    enum bly_auth_verdict verdict;

    bly_auth_init_token(&by_token, token, sizeof(token) - 1);
    bly_auth_init_jwt(&by_jwt, SECRET, sizeof(SECRET) - 1, NULL, NULL, SKEW);
    verdict = bly_auth_check(&by_token, header, size, NOW);
    FUZZ_MUST((verdict == BLY_AUTH_OK) == is_the_token(header, size));
    FUZZ_MUST(verdict == BLY_AUTH_OK || verdict == BLY_AUTH_BAD_HEADER ||
              verdict == BLY_AUTH_WRONG_TOKEN);

    /* The same headers are readable in both modes. */
    FUZZ_MUST((bly_auth_check(&by_jwt, header, size, NOW) == BLY_AUTH_BAD_HEADER) ==
              (verdict == BLY_AUTH_BAD_HEADER));
    FUZZ_MUST(bly_auth_check(&by_token, NULL, 0, NOW) == BLY_AUTH_MISSING);
    FUZZ_MUST(bly_auth_check(NULL, header, size, NOW) == BLY_AUTH_OK);
}

/* What was accepted has these properties, read by others than the code under test. */
static void check_accepted(const char *claims, size_t size)
{
    yyjson_doc *doc = NULL;
    yyjson_val *exp;

    FUZZ_MUST(bly_json_read_copy(claims, size, &doc, NULL) == 0);
    exp = yyjson_obj_get(yyjson_doc_get_root(doc), "exp");
    FUZZ_MUST(yyjson_is_int(exp) && !yyjson_is_real(exp));
    FUZZ_MUST(yyjson_is_uint(exp) && yyjson_get_uint(exp) >= NOW - SKEW);
    yyjson_doc_free(doc);
}

static enum bly_auth_verdict check(const char *jwt, size_t len, const char *issuer,
                                   const char *audience)
{
    struct bly_auth auth;

    bly_auth_init_jwt(&auth, SECRET, sizeof(SECRET) - 1, issuer, audience, SKEW);
    return bly_jwt_check(&auth, jwt, len, NOW);
}

static void check_jwt(const char *header, size_t header_size, const char *claims, size_t size)
{
    bly_autofree char *jwt = NULL;
    enum bly_auth_verdict any, strict;
    size_t len;

    if (header_size + size > BLY_JWT_MAX)
        return;
    jwt = malloc(ROOM);
    FUZZ_MUST(jwt);
    len = mint_jwt(SECRET, header, header_size, claims, size, jwt);
    any = check(jwt, len, NULL, NULL);
    strict = check(jwt, len, "me", "you");
    if (any == BLY_AUTH_OK)
        check_accepted(claims, size);

    /* Asking for more never lets more in, and does not make it another kind of token. */
    FUZZ_MUST(any == BLY_AUTH_OK || strict == any);
    FUZZ_MUST(any != BLY_AUTH_OK || strict == BLY_AUTH_OK || strict == BLY_AUTH_WRONG_ISSUER ||
              strict == BLY_AUTH_WRONG_AUDIENCE);

    /* Nor does it live without its signature. */
    jwt[len - 2] = jwt[len - 2] == 'A' ? 'B' : 'A';
    FUZZ_MUST(check(jwt, len, NULL, NULL) == BLY_AUTH_BAD_JWT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bly_autofree char *text = fuzz_string(data, size);
    const char *line_end = memchr(text, '\n', size);

    check_header(text, size);
    if (line_end)
        check_jwt(text, (size_t)(line_end - text), line_end + 1,
                  size - (size_t)(line_end - text) - 1);
    return 0;
}
