#include "transport/address.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/err.h"

#define SIXTEEN "0123456789abcdef"
#define EIGHTY  SIXTEEN SIXTEEN SIXTEEN SIXTEEN SIXTEEN

static const struct good {
    const char *text;
    enum bly_listen_kind kind;
} good[] = {
    {"ws://127.0.0.1:0", BLY_LISTEN_TCP},
    {"ws://127.0.0.1:65535", BLY_LISTEN_TCP},
    {"ws://[::1]:7000", BLY_LISTEN_TCP},
    {"ws://0.0.0.0:1", BLY_LISTEN_TCP},
    {"unix:///run/bailey.sock", BLY_LISTEN_UNIX},
    {"unix:///a", BLY_LISTEN_UNIX},
    {"unix:///" EIGHTY "0123456789abcde", BLY_LISTEN_UNIX}, /* 96 bytes */
    {"stdio", BLY_LISTEN_STDIO},
    {"stdio://", BLY_LISTEN_STDIO},
};

/* What can be parsed comes out again as it was. */
static void check_good(void **state)
{
    const struct good *g = *state;
    union bly_address address = {0};
    enum bly_listen_kind kind;
    char url[BLY_URL_MAX];
    struct bly_err err;

    assert_int_equal(bly_address_parse(g->text, &kind, &address, &err), 0);
    assert_int_equal(kind, g->kind);
    if (kind == BLY_LISTEN_STDIO)
        return;
    assert_int_equal(bly_address_url(&address, sizeof(address), url), 0);
    assert_string_equal(url, g->text);
}

/* Around the URL. */
struct words {
    const char *before, *after;
};

static const struct words ws = {"invalid websocket", "expected `ws://IP:PORT`"};
static const struct words un = {"invalid unix", "expected `unix:///PATH`"};
static const struct words st = {"invalid stdio", "expected `stdio`"};
static const struct words other = {"unsupported", "expected `ws://IP:PORT` or `stdio`"};
static const struct words too_long = {"invalid unix", "its path may have 96 bytes"};

static const struct bad {
    const char *name, *text;
    const struct words *words;
} bad[] = {
    {"a host name", "ws://localhost:0", &ws},
    {"a trailing slash", "ws://127.0.0.1:0/", &ws},
    {"a missing port", "ws://127.0.0.1", &ws},
    {"an empty port", "ws://127.0.0.1:", &ws},
    {"a port above 65535", "ws://127.0.0.1:65536", &ws},
    {"a negative port", "ws://127.0.0.1:-1", &ws},
    {"a port with a sign", "ws://127.0.0.1:+1", &ws},
    {"a short address", "ws://127.1:0", &ws},
    {"IPv6 without brackets", "ws://::1:0", &ws},
    {"an open bracket", "ws://[::1:0", &ws},
    {"IPv4 in brackets", "ws://[127.0.0.1]:0", &ws},
    {"nothing", "ws://", &ws},
    {"another scheme", "http://127.0.0.1:0", &other},
    {"TLS", "wss://127.0.0.1:0", &other},
    {"upper case", "WS://127.0.0.1:0", &other},
    {"no scheme", "127.0.0.1:0", &other},
    {"empty", "", &other},
    {"a path without a scheme", "/run/bailey.sock", &other},
    {"one slash", "unix:/run/bailey.sock", &other},
    {"a relative path", "unix://run/bailey.sock", &un},
    {"no path", "unix://", &un},
    {"a directory", "unix:///run/", &un},
    {"the root", "unix:///", &un},
    {"stdio with more behind it", "stdio://x", &st},
    {"stdio with one slash", "stdio:/", &other},
    {"a path that is too long", "unix:///" EIGHTY SIXTEEN, &too_long},
};

static void check_bad(void **state)
{
    const struct bad *b = *state;
    union bly_address address;
    enum bly_listen_kind kind;
    struct bly_err err;
    char want[300];

    assert_int_equal(bly_address_parse(b->text, &kind, &address, &err), -EINVAL);
    snprintf(want, sizeof(want), "%s --listen URL `%s`; %s", b->words->before, b->text,
             b->words->after);
    assert_string_equal(err.text, want);
}

static void sockets_of_others_have_names_too(void **state)
{
    union bly_address abstract = {.un = {.sun_family = AF_UNIX, .sun_path = "\0name"}};
    union bly_address full = {.un = {.sun_family = AF_UNIX}};
    union bly_address unknown = {.any = {.sa_family = AF_PACKET}};
    char url[BLY_URL_MAX];

    (void)state;
    assert_int_equal(bly_address_url(&abstract, offsetof(struct sockaddr_un, sun_path) + 5, url),
                     0);
    assert_string_equal(url, "unix:@name");
    memset(full.un.sun_path, 'x', sizeof(full.un.sun_path));
    assert_int_equal(bly_address_url(&full, sizeof(full.un), url), 0);
    assert_int_equal(strlen(url), strlen("unix://") + sizeof(full.un.sun_path));
    assert_int_equal(bly_address_url(&unknown, sizeof(unknown), url), -EAFNOSUPPORT);
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(good) + BLY_LEN(bad) + 1] = {
        cmocka_unit_test(sockets_of_others_have_names_too)};
    size_t n = 1;

    for (size_t i = 0; i < BLY_LEN(good); i++)
        tests[n++] = (struct CMUnitTest){.name = good[i].text,
                                         .test_func = check_good,
                                         .initial_state = (void *)(uintptr_t)&good[i]};
    for (size_t i = 0; i < BLY_LEN(bad); i++)
        tests[n++] = (struct CMUnitTest){.name = bad[i].name,
                                         .test_func = check_bad,
                                         .initial_state = (void *)(uintptr_t)&bad[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
