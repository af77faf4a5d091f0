#include "transport/auth.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "mint.h"
#include "transport/jwt.h"

#define SECRET "0123456789abcdef0123456789abcdef"
/* printf 'open sesame' | sha256sum */
#define SESAME "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb"

enum { NOW = 1000000, SKEW = 30 };

/* ---- headers -------------------------------------------------------------------------------- */

static const struct header_case {
    const char *name, *header; /* NULL: none */
    enum bly_auth_verdict verdict;
} header_cases[] = {
    {"the token", "Bearer open sesame", BLY_AUTH_OK},
    {"the scheme in any case", "bEaReR open sesame", BLY_AUTH_OK},
    {"blanks around the token", "Bearer \t  open sesame\t ", BLY_AUTH_OK},
    {"no header", NULL, BLY_AUTH_MISSING},
    {"an empty header", "", BLY_AUTH_BAD_HEADER},
    {"the scheme alone", "Bearer", BLY_AUTH_BAD_HEADER},
    {"the scheme and a blank", "Bearer ", BLY_AUTH_BAD_HEADER},
    {"the scheme and blanks", "Bearer  \t ", BLY_AUTH_BAD_HEADER},
    {"the token alone", "open sesame", BLY_AUTH_BAD_HEADER},
    {"another scheme", "Basic open sesame", BLY_AUTH_BAD_HEADER},
    {"a longer scheme", "Bearers open sesame", BLY_AUTH_BAD_HEADER},
    {"no blank", "Beareropen sesame", BLY_AUTH_BAD_HEADER},
    {"a tab for a blank", "Bearer\topen sesame", BLY_AUTH_BAD_HEADER},
    {"a blank in front", " Bearer open sesame", BLY_AUTH_BAD_HEADER},
    {"a byte above ASCII", "Bearer open sesam\xc3\xa9", BLY_AUTH_BAD_HEADER},
    {"a control character", "Bearer open\x7fsesame", BLY_AUTH_BAD_HEADER},
    {"a shorter token", "Bearer open sesam", BLY_AUTH_WRONG_TOKEN},
    {"a longer token", "Bearer open sesame!", BLY_AUTH_WRONG_TOKEN},
    {"blanks inside count", "Bearer open  sesame", BLY_AUTH_WRONG_TOKEN},
    {"the digest is not the token", "Bearer " SESAME, BLY_AUTH_WRONG_TOKEN},
};

static void check_header(void **state)
{
    const struct header_case *c = *state;
    size_t len = c->header ? strlen(c->header) : 0;
    struct bly_auth by_token, by_digest;

    bly_auth_init_token(&by_token, "open sesame", 11);
    assert_int_equal(bly_auth_init_digest(&by_digest, SESAME), 0);
    assert_int_equal(bly_auth_check(&by_token, c->header, len, NOW), c->verdict);
    assert_int_equal(bly_auth_check(&by_digest, c->header, len, NOW), c->verdict);
}

static void without_a_mode_nobody_is_asked(void **state)
{
    struct bly_auth none = {0}, open = {.mode = BLY_AUTH_OPEN};

    (void)state;
    assert_false(bly_auth_is_asked(NULL));
    assert_false(bly_auth_is_asked(&none));
    assert_false(bly_auth_is_asked(&open));
    assert_int_equal(bly_auth_check(NULL, NULL, 0, NOW), BLY_AUTH_OK);
    assert_int_equal(bly_auth_check(&open, "nonsense", 8, NOW), BLY_AUTH_OK);
}

static void a_digest_has_64_digits(void **state)
{
    static const char *const bad[] = {"", "41", SESAME "0", SESAME "0000"};
    char hex[] = SESAME;
    struct bly_auth auth = {0};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(bad); i++)
        assert_int_equal(bly_auth_init_digest(&auth, bad[i]), -EINVAL);
    for (size_t i = 0; i < sizeof(hex) - 1; i++) {
        char was = hex[i];

        for (const char *c = "g/:@G`\xe9 "; *c; c++) {
            hex[i] = *c;
            assert_int_equal(bly_auth_init_digest(&auth, hex), -EINVAL);
        }
        hex[i] = was;
    }
    assert_int_equal(auth.mode, BLY_AUTH_NONE);
    assert_int_equal(bly_auth_init_digest(
                         &auth, "41EF4BB0B23661E66301AAC36066912DAC037827B4AE63A7B1165A5AA93ED4EB"),
                     0);
    assert_int_equal(bly_auth_check(&auth, "Bearer open sesame", 18, NOW), BLY_AUTH_OK);
}

static void nothing_is_left_behind(void **state)
{
    static const struct bly_auth nothing;
    struct bly_auth auth;

    (void)state;
    bly_auth_init_jwt(&auth, SECRET, sizeof(SECRET) - 1, "a", "b", SKEW);
    assert_null(memmem(&auth, sizeof(auth), "0123456789abcdef", 16));
    bly_auth_init_token(&auth, "open sesame", 11);
    assert_null(memmem(&auth, sizeof(auth), "open sesame", 11));
    bly_auth_deinit(&auth);
    assert_memory_equal(&auth, &nothing, sizeof(auth));
}

/* ---- JWT ------------------------------------------------------------------------------------ */

#define HS256 "{\"alg\":\"HS256\"}"
#define LATER "\"exp\":2000000"

static const struct jwt_case {
    const char *name, *header, *claims;
    enum bly_auth_verdict verdict;
} jwt_cases[] = {
    {"the least", HS256, "{" LATER "}", BLY_AUTH_OK},
    {"a type", "{\"typ\":\"JWT\",\"alg\":\"HS256\",\"kid\":\"1\"}", "{" LATER "}", BLY_AUTH_OK},
    {"claims of others", HS256, "{" LATER ",\"iat\":9000000,\"sub\":7,\"x\":[{}]}", BLY_AUTH_OK},
    {"an escaped key is that key", HS256, "{\"\\u0065xp\":2000000}", BLY_AUTH_OK},
    {"white space", " {\"alg\" : \"HS256\"} ", "\n{" LATER "}\n", BLY_AUTH_OK},

    {"exp is now", HS256, "{\"exp\":1000000}", BLY_AUTH_OK},
    {"exp is one skew ago", HS256, "{\"exp\":999970}", BLY_AUTH_OK},
    {"exp is a second more ago", HS256, "{\"exp\":999969}", BLY_AUTH_EXPIRED},
    {"exp is the largest number", HS256, "{\"exp\":9223372036854775807}", BLY_AUTH_OK},
    {"exp is the smallest number", HS256, "{\"exp\":-9223372036854775808}", BLY_AUTH_EXPIRED},
    {"exp is larger than that", HS256, "{\"exp\":9223372036854775808}", BLY_AUTH_BAD_JWT},
    {"exp is larger than anything", HS256, "{\"exp\":18446744073709551616}", BLY_AUTH_BAD_JWT},
    {"exp is a fraction", HS256, "{\"exp\":2000000.5}", BLY_AUTH_BAD_JWT},
    {"exp has a point", HS256, "{\"exp\":2000000.0}", BLY_AUTH_BAD_JWT},
    {"exp has an exponent", HS256, "{\"exp\":2e6}", BLY_AUTH_BAD_JWT},
    {"exp is a string", HS256, "{\"exp\":\"2000000\"}", BLY_AUTH_BAD_JWT},
    {"exp is true", HS256, "{\"exp\":true}", BLY_AUTH_BAD_JWT},
    {"exp is null", HS256, "{\"exp\":null}", BLY_AUTH_BAD_JWT},
    {"exp is missing", HS256, "{}", BLY_AUTH_BAD_JWT},
    {"exp is there twice", HS256, "{\"exp\":1," LATER "}", BLY_AUTH_BAD_JWT},
    {"exp is there twice, written differently", HS256, "{\"\\u0065xp\":1," LATER "}",
     BLY_AUTH_BAD_JWT},
    {"exp is deeper", HS256, "{\"a\":{" LATER "}}", BLY_AUTH_BAD_JWT},

    {"nbf is now", HS256, "{" LATER ",\"nbf\":1000000}", BLY_AUTH_OK},
    {"nbf is in one skew", HS256, "{" LATER ",\"nbf\":1000030}", BLY_AUTH_OK},
    {"nbf is a second later", HS256, "{" LATER ",\"nbf\":1000031}", BLY_AUTH_TOO_EARLY},
    {"nbf is the smallest number", HS256, "{" LATER ",\"nbf\":-9223372036854775808}", BLY_AUTH_OK},
    {"nbf is the largest number", HS256, "{" LATER ",\"nbf\":9223372036854775807}",
     BLY_AUTH_TOO_EARLY},
    {"nbf is null", HS256, "{" LATER ",\"nbf\":null}", BLY_AUTH_OK},
    {"nbf is a string", HS256, "{" LATER ",\"nbf\":\"0\"}", BLY_AUTH_BAD_JWT},
    {"expired comes before too early", HS256, "{\"exp\":1,\"nbf\":2000000}", BLY_AUTH_EXPIRED},

    {"iss is a number", HS256, "{" LATER ",\"iss\":1}", BLY_AUTH_BAD_JWT},
    {"aud is an object", HS256, "{" LATER ",\"aud\":{}}", BLY_AUTH_BAD_JWT},
    {"aud has a number in it", HS256, "{" LATER ",\"aud\":[\"a\",1]}", BLY_AUTH_BAD_JWT},
    {"iss and aud, and nobody cares", HS256, "{" LATER ",\"iss\":\"a\",\"aud\":[]}", BLY_AUTH_OK},

    {"alg none", "{\"alg\":\"none\"}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"alg HS512", "{\"alg\":\"HS512\"}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"alg ES256", "{\"alg\":\"ES256\"}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"alg in another case", "{\"alg\":\"hs256\"}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"alg with a NUL byte", "{\"alg\":\"HS256\\u0000\"}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"alg is a list", "{\"alg\":[\"HS256\"]}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"alg is missing", "{}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"alg is there twice", "{\"alg\":\"none\",\"alg\":\"HS256\"}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"typ is a number", "{\"alg\":\"HS256\",\"typ\":1}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"crit", "{\"alg\":\"HS256\",\"crit\":[]}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"crit null", "{\"alg\":\"HS256\",\"crit\":null}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"the header is a list", "[\"HS256\"]", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"the header is empty", "", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"the header is no JSON", "{\"alg\":\"HS256\",}", "{" LATER "}", BLY_AUTH_BAD_JWT},
    {"the claims are a list", HS256,
     "["
     "2000000"
     "]",
     BLY_AUTH_BAD_JWT},
    {"the claims are empty", HS256, "", BLY_AUTH_BAD_JWT},
    {"the claims are no JSON", HS256, "{" LATER, BLY_AUTH_BAD_JWT},
    {"the claims are followed by more", HS256, "{" LATER "}{}", BLY_AUTH_BAD_JWT},
    {"the claims are not UTF-8", HS256, "{" LATER ",\"a\":\"\xff\"}", BLY_AUTH_BAD_JWT},
};

static enum bly_auth_verdict check_jwt(const struct bly_auth *auth, const char *token, size_t len)
{
    char header[BLY_JWT_MAX + 64] = "Bearer ";

    memcpy(header + 7, token, len);
    return bly_auth_check(auth, header, 7 + len, NOW);
}

static void check_jwt_case(void **state)
{
    const struct jwt_case *c = *state;
    char token[BLY_JWT_MAX];
    size_t len =
        mint_jwt(SECRET, c->header, strlen(c->header), c->claims, strlen(c->claims), token);
    struct bly_auth auth;

    bly_auth_init_jwt(&auth, SECRET, sizeof(SECRET) - 1, NULL, NULL, SKEW);
    assert_int_equal(check_jwt(&auth, token, len), c->verdict);

    /* Whatever it says: with another signature it is nothing. */
    bly_auth_init_jwt(&auth, SECRET "x", sizeof(SECRET), NULL, NULL, SKEW);
    assert_int_equal(check_jwt(&auth, token, len), BLY_AUTH_BAD_JWT);
}

static const struct jwt_case named_cases[] = {
    {"both are right", HS256, "{" LATER ",\"iss\":\"me\",\"aud\":\"you\"}", BLY_AUTH_OK},
    {"aud among others", HS256, "{" LATER ",\"iss\":\"me\",\"aud\":[\"x\",\"you\"]}", BLY_AUTH_OK},
    {"no iss", HS256, "{" LATER ",\"aud\":\"you\"}", BLY_AUTH_WRONG_ISSUER},
    {"iss null", HS256, "{" LATER ",\"iss\":null,\"aud\":\"you\"}", BLY_AUTH_WRONG_ISSUER},
    {"another iss", HS256, "{" LATER ",\"iss\":\"m\",\"aud\":\"you\"}", BLY_AUTH_WRONG_ISSUER},
    {"iss with a NUL byte", HS256, "{" LATER ",\"iss\":\"me\\u0000\",\"aud\":\"you\"}",
     BLY_AUTH_WRONG_ISSUER},
    {"no aud", HS256, "{" LATER ",\"iss\":\"me\"}", BLY_AUTH_WRONG_AUDIENCE},
    {"another aud", HS256, "{" LATER ",\"iss\":\"me\",\"aud\":\"You\"}", BLY_AUTH_WRONG_AUDIENCE},
    {"an empty list", HS256, "{" LATER ",\"iss\":\"me\",\"aud\":[]}", BLY_AUTH_WRONG_AUDIENCE},
    {"a list of others", HS256, "{" LATER ",\"iss\":\"me\",\"aud\":[\"yo\",\"u\"]}",
     BLY_AUTH_WRONG_AUDIENCE},
    {"time comes first", HS256, "{\"exp\":1}", BLY_AUTH_EXPIRED},
    {"iss comes before aud", HS256, "{" LATER "}", BLY_AUTH_WRONG_ISSUER},
};

static void check_named_case(void **state)
{
    const struct jwt_case *c = *state;
    char token[BLY_JWT_MAX];
    size_t len =
        mint_jwt(SECRET, c->header, strlen(c->header), c->claims, strlen(c->claims), token);
    struct bly_auth auth;

    bly_auth_init_jwt(&auth, SECRET, sizeof(SECRET) - 1, "me", "you", SKEW);
    assert_int_equal(check_jwt(&auth, token, len), c->verdict);
}

/* The example of RFC 7515, appendix A.1: made by others, with white space and line breaks inside.
 */
static void a_token_made_by_others(void **state)
{
    static const uint8_t key[] = {3,   35,  53,  75,  43,  15,  165, 188, 131, 126, 6,   101, 119,
                                  123, 166, 143, 90,  179, 40,  230, 240, 84,  201, 40,  169, 15,
                                  132, 178, 210, 80,  46,  191, 211, 251, 90,  146, 210, 6,   71,
                                  239, 150, 138, 180, 195, 119, 98,  61,  34,  61,  46,  33,  114,
                                  5,   46,  79,  8,   192, 205, 154, 245, 103, 208, 128, 163};
    static const char token[] =
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0"
        "cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    struct bly_auth auth;

    (void)state;
    bly_auth_init_jwt(&auth, key, sizeof(key), "joe", NULL, 0);
    assert_int_equal(bly_jwt_check(&auth, token, sizeof(token) - 1, 1300819380), BLY_AUTH_OK);
    assert_int_equal(bly_jwt_check(&auth, token, sizeof(token) - 1, 1300819381), BLY_AUTH_EXPIRED);
}

/* No single byte of it can be another one, left out or doubled. */
static void every_byte_counts(void **state)
{
    static const char claims[] = "{" LATER ",\"a\":\"?>?>?>?>\"}";
    static const char others[] = "Aa09-_+/=. \n";
    char token[BLY_JWT_MAX], changed[BLY_JWT_MAX];
    size_t len = mint_jwt(SECRET, HS256, sizeof(HS256) - 1, claims, sizeof(claims) - 1, token);
    struct bly_auth auth;

    (void)state;
    bly_auth_init_jwt(&auth, SECRET, sizeof(SECRET) - 1, NULL, NULL, SKEW);
    assert_non_null(strpbrk(token, "-_")); /* where base64url differs */
    assert_int_equal(bly_jwt_check(&auth, token, len, NOW), BLY_AUTH_OK);
    for (size_t i = 0; i < len; i++) {
        memcpy(changed, token, len);
        for (size_t k = 0; k < sizeof(others) - 1; k++) {
            changed[i] = others[k];
            if (others[k] != token[i])
                assert_int_equal(bly_jwt_check(&auth, changed, len, NOW), BLY_AUTH_BAD_JWT);
        }
        memcpy(changed + i, token + i + 1, len - i - 1);
        assert_int_equal(bly_jwt_check(&auth, changed, len - 1, NOW), BLY_AUTH_BAD_JWT);
        memcpy(changed, token, i + 1);
        memcpy(changed + i + 1, token + i, len - i);
        assert_int_equal(bly_jwt_check(&auth, changed, len + 1, NOW), BLY_AUTH_BAD_JWT);
    }
}

static void its_length_is_bounded(void **state)
{
    static char claims[BLY_JWT_MAX], token[2 * BLY_JWT_MAX];
    struct bly_auth auth;
    unsigned good = 0, bad = 0;

    (void)state;
    bly_auth_init_jwt(&auth, SECRET, sizeof(SECRET) - 1, NULL, NULL, SKEW);
    /* White space makes it as long as one likes; around the limit both answers are seen. */
    for (size_t n = 6000; n < 6200; n++) {
        size_t len;
        enum bly_auth_verdict verdict;

        memset(claims, ' ', n);
        memcpy(claims, "{" LATER "}", sizeof("{" LATER "}") - 1);
        len = mint_jwt(SECRET, HS256, sizeof(HS256) - 1, claims, n, token);
        verdict = bly_jwt_check(&auth, token, len, NOW);
        assert_int_equal(verdict, len <= BLY_JWT_MAX ? BLY_AUTH_OK : BLY_AUTH_BAD_JWT);
        good += verdict == BLY_AUTH_OK;
        bad += verdict != BLY_AUTH_OK;
    }
    assert_true(good > 0 && bad > 0);
}

static void the_widest_skew_forgives_everything(void **state)
{
    static const char claims[] = "{\"exp\":-9223372036854775808,\"nbf\":9223372036854775806}";
    char token[BLY_JWT_MAX];
    size_t len = mint_jwt(SECRET, HS256, sizeof(HS256) - 1, claims, sizeof(claims) - 1, token);
    struct bly_auth auth;

    (void)state;
    bly_auth_init_jwt(&auth, SECRET, sizeof(SECRET) - 1, NULL, NULL, INT64_MAX);
    assert_int_equal(bly_jwt_check(&auth, token, len, 0), BLY_AUTH_EXPIRED);
    assert_int_equal(bly_jwt_check(&auth, token, len, -1), BLY_AUTH_OK);
}

/* ---- listeners ------------------------------------------------------------------------------ */

static const struct address_case {
    const char *name, *ip;
    bool local;
} address_cases[] = {
    {"127.0.0.1 is local", "127.0.0.1", true},
    {"127.255.255.255 is local", "127.255.255.255", true},
    {"128.0.0.1 is not", "128.0.0.1", false},
    {"126.255.255.255 is not", "126.255.255.255", false},
    {"0.0.0.0 is not", "0.0.0.0", false},
    {"10.0.0.127 is not", "10.0.0.127", false},
    {"1.0.0.127 is not", "1.0.0.127", false},
    {"::1 is local", "::1", true},
    {":: is not", "::", false},
    {"::2 is not", "::2", false},
    {"fe80::1 is not", "fe80::1", false},
    {"::ffff:127.0.0.1 is local", "::ffff:127.0.0.1", true},
    {"::ffff:127.9.9.9 is local", "::ffff:127.9.9.9", true},
    {"::ffff:128.0.0.1 is not", "::ffff:128.0.0.1", false},
    {"::ffff:0.0.0.0 is not", "::ffff:0.0.0.0", false},
    {"::127.0.0.1 is not", "::127.0.0.1", false},
    {"64:ff9b::127.0.0.1 is not", "64:ff9b::7f00:1", false},
};

static void check_address(void **state)
{
    const struct address_case *c = *state;
    static const struct bly_auth none, open = {.mode = BLY_AUTH_OPEN},
                                       token = {.mode = BLY_AUTH_TOKEN},
                                       jwt = {.mode = BLY_AUTH_JWT};
    struct sockaddr_in in4 = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    bool is_v6 = strchr(c->ip, ':');
    const struct sockaddr *address =
        is_v6 ? (const struct sockaddr *)&in6 : (const struct sockaddr *)&in4;
    struct bly_err err;

    assert_int_equal(is_v6 ? inet_pton(AF_INET6, c->ip, &in6.sin6_addr)
                           : inet_pton(AF_INET, c->ip, &in4.sin_addr),
                     1);
    assert_int_equal(bly_auth_is_local(address), c->local);
    assert_int_equal(bly_auth_admit_listener(&open, address, "U", &err), 0);
    assert_int_equal(bly_auth_admit_listener(&token, address, "U", &err), 0);
    assert_int_equal(bly_auth_admit_listener(&jwt, address, "U", &err), 0);
    assert_int_equal(bly_auth_admit_listener(NULL, address, "U", &err), c->local ? 0 : -EACCES);
    assert_int_equal(bly_auth_admit_listener(&none, address, "U", &err), c->local ? 0 : -EACCES);
    if (!c->local)
        assert_non_null(strstr(err.text, "`U` can be reached from other machines"));
}

static void unix_sockets_and_stdio_are_local(void **state)
{
    static const struct bly_auth none, token = {.mode = BLY_AUTH_TOKEN};
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/x"};
    struct sockaddr other = {.sa_family = AF_PACKET};
    struct bly_err err;

    (void)state;
    assert_true(bly_auth_is_local((struct sockaddr *)&un));
    assert_false(bly_auth_is_local(&other));
    assert_int_equal(bly_auth_admit_listener(&none, (struct sockaddr *)&un, "U", &err), 0);
    assert_int_equal(bly_auth_admit_listener(&token, (struct sockaddr *)&un, "U", &err), 0);
    assert_int_equal(bly_auth_admit_listener(&none, NULL, "stdio", &err), 0);
    assert_int_equal(bly_auth_admit_listener(&token, NULL, "stdio", &err), -EINVAL);
    assert_string_equal(err.text, "WebSocket auth requires a WebSocket listener, not stdio");
}

#define ADD(rows, check)                                     \
    for (size_t i = 0; i < BLY_LEN(rows); i++)               \
        tests[n++] = (struct CMUnitTest)                     \
        {                                                    \
            .name = (rows)[i].name, .test_func = check,      \
            .initial_state = (void *)(uintptr_t) & (rows)[i] \
        }

int main(void)
{
    struct CMUnitTest tests[8 + BLY_LEN(header_cases) + BLY_LEN(jwt_cases) + BLY_LEN(named_cases) +
                            BLY_LEN(address_cases)] = {
        cmocka_unit_test(without_a_mode_nobody_is_asked),
        cmocka_unit_test(a_digest_has_64_digits),
        cmocka_unit_test(nothing_is_left_behind),
        cmocka_unit_test(a_token_made_by_others),
        cmocka_unit_test(every_byte_counts),
        cmocka_unit_test(its_length_is_bounded),
        cmocka_unit_test(the_widest_skew_forgives_everything),
        cmocka_unit_test(unix_sockets_and_stdio_are_local),
    };
    size_t n = 8;

    ADD(header_cases, check_header);
    ADD(jwt_cases, check_jwt_case);
    ADD(named_cases, check_named_case);
    ADD(address_cases, check_address);
    assert(n == BLY_LEN(tests));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
