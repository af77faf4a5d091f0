/*
 * Denials that explain, and those that must not: the whole error object of refused requests. What
 * is hidden is answered like what does not exist, byte for byte, and nothing names what a link
 * leads to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "escape/door.h"
#include "escape/yard.h"
#include "support/rows.h"
#include "support/server.h"

static struct yard *yard;
static struct server *server;

/* "$Y" becomes the yard's directory. */
static char *expand(const char *text)
{
    char *expanded = NULL;
    size_t len;
    FILE *out = open_memstream(&expanded, &len);

    assert_non_null(out);
    for (; *text != '\0'; text++)
        if (text[0] == '$' && text[1] == 'Y')
            (void)fputs(yard->dir, out), text++;
        else
            (void)fputc(*text, out);
    assert_int_equal(fclose(out), 0);
    return expanded;
}

/* The whole answer to a request with this id. */
static char *ask(const char *method, const char *params, enum wall wall)
{
    bly_autofree char *inner = expand(params), *text = NULL, *name = NULL;
    char *answer = NULL;

    assert_true(asprintf(&text, "{\"id\":77,\"method\":\"%s\",\"params\":{%s,\"sandbox\":%s}}",
                         method, inner, yard->sandbox[wall]) > 0);
    assert_int_equal(bly_client_send_raw(server->client, text, strlen(text)), 0);
    assert_int_equal(bly_client_next_notification(server->client, 30000, &name, &answer), 0);
    return answer;
}

#define NOT_PERMITTED(path) \
    "{\"code\":-32600,\"message\":\"" path " is not permitted by filesystem sandbox\""
#define DENIAL(path, access, rule)                                                          \
    ",\"data\":{\"denial\":{\"path\":\"" path "\",\"access\":\"" access "\",\"rule\":" rule \
    ",\"rung\":1}}}"
#define PERMISSION         "{\"code\":-32600,\"message\":\"Permission denied (os error 13)\""
#define MISSING            "{\"code\":-32004,\"message\":\"No such file or directory (os error 2)\"}"
#define RULE(path, access) "{\"path\":\"" path "\",\"access\":\"" access "\"}"
#define PROTECTED(path)    "{\"path\":\"" path "\",\"access\":\"read\",\"protected\":true}"
#define KEYS               "{\"glob\":\"$Y/ws/**/*.key\",\"access\":\"deny\"}"

static const struct denial_case {
    const char *name, *method, *params, *error;
    enum wall wall;
} cases[] = {
    {"write outside: no rule", "fs/writeFile", "\"path\":\"$Y/out/new\",\"dataBase64\":\"eA==\"",
     NOT_PERMITTED("$Y/out/new") DENIAL("$Y/out/new", "write", "null"), RESTRICTED},
    {"write outside, where everything may be read", "fs/writeFile",
     "\"path\":\"$Y/out/new\",\"dataBase64\":\"eA==\"",
     NOT_PERMITTED("$Y/out/new") DENIAL("$Y/out/new", "write", RULE("/", "read")), FULL_READ},
    {"write what a rule makes read-only", "fs/writeFile",
     "\"path\":\"$Y/ws/ro/f\",\"dataBase64\":\"eA==\"",
     NOT_PERMITTED("$Y/ws/ro/f") DENIAL("$Y/ws/ro/f", "write", RULE("$Y/ws/ro", "read")),
     RESTRICTED},
    {"write through a link: the link's path, the client's rule", "fs/writeFile",
     "\"path\":\"$Y/ws/rolink\",\"dataBase64\":\"eA==\"",
     NOT_PERMITTED("$Y/ws/rolink") DENIAL("$Y/ws/rolink", "write", RULE("$Y/ws/ro", "read")),
     RESTRICTED},
    {"write through a link to the outside: nothing of where it leads", "fs/writeFile",
     "\"path\":\"$Y/ws/leaf\",\"dataBase64\":\"eA==\"",
     NOT_PERMITTED("$Y/ws/leaf") DENIAL("$Y/ws/leaf", "write", "null"), RESTRICTED},
    {"create the missing .codex", "fs/createDirectory", "\"path\":\"$Y/ws/.codex\"",
     NOT_PERMITTED("$Y/ws/.codex") DENIAL("$Y/ws/.codex", "create", PROTECTED("$Y/ws/.codex")),
     RESTRICTED},
    {"open to replace in .git", "fs/open",
     "\"handleId\":\"h\",\"mode\":\"replace\",\"path\":\"$Y/ws/.git/config\"",
     NOT_PERMITTED("$Y/ws/.git/config")
         DENIAL("$Y/ws/.git/config", "write", PROTECTED("$Y/ws/.git")),
     FULL_READ},
    {"remove a read-only place", "fs/remove", "\"path\":\"$Y/ws/ro\"",
     NOT_PERMITTED("$Y/ws/ro") DENIAL("$Y/ws/ro", "remove", RULE("$Y/ws/ro", "read")), RESTRICTED},
    {"remove a tree with a read-only place in it", "fs/remove", "\"path\":\"$Y/ws/deny/rw\"",
     NOT_PERMITTED("$Y/ws/deny/rw") DENIAL("$Y/ws/deny/rw", "remove", RULE("$Y/ws/deny", "deny")),
     RESTRICTED},
    {"remove what a glob denies", "fs/remove", "\"path\":\"$Y/ws/x.key\"",
     NOT_PERMITTED("$Y/ws/x.key") DENIAL("$Y/ws/x.key", "remove", KEYS), RESTRICTED},
    {"copy to a read-only place: the destination", "fs/copy",
     "\"sourcePath\":\"$Y/ws/a.txt\",\"destinationPath\":\"$Y/ws/ro/new\",\"recursive\":false",
     NOT_PERMITTED("$Y/ws/ro/new") DENIAL("$Y/ws/ro/new", "write", RULE("$Y/ws/ro", "read")),
     RESTRICTED},
    {"copy what is denied: the source", "fs/copy",
     "\"sourcePath\":\"$Y/ws/deny/f\",\"destinationPath\":\"$Y/ws/new\",\"recursive\":false",
     PERMISSION DENIAL("$Y/ws/deny/f", "read", RULE("$Y/ws/deny", "deny")), RESTRICTED},
    {"read what is denied", "fs/readFile", "\"path\":\"$Y/ws/deny/f\"",
     PERMISSION DENIAL("$Y/ws/deny/f", "read", RULE("$Y/ws/deny", "deny")), RESTRICTED},
    {"read what is denied and missing: the same", "fs/readFile", "\"path\":\"$Y/ws/deny/none\"",
     PERMISSION DENIAL("$Y/ws/deny/none", "read", RULE("$Y/ws/deny", "deny")), RESTRICTED},
    {"read what a glob denies", "fs/readFile", "\"path\":\"$Y/ws/sub/y.key\"",
     PERMISSION DENIAL("$Y/ws/sub/y.key", "read", KEYS), FULL_READ},
    {"read what is hidden", "fs/readFile", "\"path\":\"$Y/out/secret\"", MISSING, RESTRICTED},
    {"read what is hidden and missing", "fs/readFile", "\"path\":\"$Y/out/none\"", MISSING,
     RESTRICTED},
    {"read what is missing", "fs/readFile", "\"path\":\"$Y/ws/none\"", MISSING, RESTRICTED},
    {"read what is hidden, through a link", "fs/readFile", "\"path\":\"$Y/ws/leaf\"", MISSING,
     RESTRICTED},
    {"list what is hidden", "fs/readDirectory", "\"path\":\"$Y/out\"", MISSING, RESTRICTED},
    {"look at what is hidden", "fs/getMetadata", "\"path\":\"$Y/out/secret\"", MISSING, RESTRICTED},
    {"canonicalize a link to what is hidden", "fs/canonicalize", "\"path\":\"$Y/ws/leaf\"", MISSING,
     RESTRICTED},
    {"copy what is hidden", "fs/copy",
     "\"sourcePath\":\"$Y/out/secret\",\"destinationPath\":\"$Y/ws/new\",\"recursive\":false",
     MISSING, RESTRICTED},
};

static void explains(void **state)
{
    const struct denial_case *c = *state;
    bly_autofree char *error = expand(c->error), *want = NULL, *got = NULL;

    yard_reset(yard);
    assert_true(asprintf(&want, "{\"id\":77,\"error\":%s}", error) > 0);
    got = ask(c->method, c->params, c->wall);
    assert_string_equal(got, want);
}

static int open_all(void **state)
{
    (void)state;
    yard = yard_new();
    server = server_start(NULL);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    server_stop(server);
    yard_free(yard);
    return 0;
}

int main(void)
{
    static struct CMUnitTest tests[BLY_LEN(cases)];

    door_begin();
    ROWS_AS_TESTS(tests, cases, explains);
    return _cmocka_run_group_tests("escape-denials", tests, BLY_LEN(tests), open_all, close_all);
}
