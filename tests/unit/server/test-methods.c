#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "fake.h"
#include "proto/openrpc.h"
#include "server/internal.h"

/* Parameters that decode, for methods that need a session. */
static const struct {
    const char *method, *params;
} samples[] = {
    {"environment/info", "{}"},
    {"environment/status", "null"},
    {"process/start", "{\"processId\":\"p\",\"argv\":[\"/bin/true\"],\"cwd\":\"/\",\"env\":{},"
                      "\"tty\":false}"},
    {"process/read", "{\"processId\":\"p\"}"},
    {"process/write", "{\"processId\":\"p\",\"chunk\":\"\"}"},
    {"process/terminate", "{\"processId\":\"p\"}"},
    {"process/signal", "{\"processId\":\"p\",\"signal\":\"interrupt\"}"},
    {"fs/readFile", "{\"path\":\"/a\"}"},
    {"fs/writeFile", "{\"path\":\"/nonexistent/a\",\"dataBase64\":\"\"}"},
    {"fs/createDirectory", "{\"path\":\"/\"}"},
    {"fs/getMetadata", "{\"path\":\"/a\"}"},
    {"fs/readDirectory", "{\"path\":\"/\"}"},
    {"fs/remove", "{\"path\":\"/nonexistent/a\"}"},
    {"fs/copy", "{\"sourcePath\":\"/nonexistent\",\"destinationPath\":\"/nonexistent/b\","
                "\"recursive\":false}"},
    {"fs/canonicalize", "{\"path\":\"/a\"}"},
    {"fs/walk", "{\"path\":\"/\",\"options\":{\"maxDepth\":0,\"maxDirectories\":1,"
                "\"maxEntries\":1,\"followDirectorySymlinks\":false}}"},
    {"fs/open", "{\"handleId\":\"h\",\"path\":\"/a\"}"},
    {"fs/readBlock", "{\"handleId\":\"h\",\"offset\":0,\"len\":1}"},
    {"fs/writeBlock", "{\"handleId\":\"h\",\"offset\":0,\"chunk\":\"YQ==\"}"},
    {"fs/watchMissing", "{\"watchId\":1,\"missing\":[]}"},
    {"fs/close", "{\"handleId\":\"h\"}"},
    {"http/request", "{\"method\":\"GET\",\"url\":\"http://127.0.0.1:1/\",\"requestId\":\"1\"}"},
    {"capabilityRoots/discoverV1", "{\"roots\":[]}"},
    {"capabilities/discoverV2", "{\"cwd\":\"/\"}"},
    {"environmentConfig/read", "{\"cwd\":\"/\",\"configPaths\":[[\"a\"]],"
                               "\"requirementsPaths\":[]}"},
};

static void names_are_unique_and_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < bly_method_count; i++)
        assert_ptr_equal(bly_method_find(bly_methods[i].name, strlen(bly_methods[i].name)),
                         &bly_methods[i]);
    assert_null(bly_method_find("fs/readFil", 10));
    assert_null(bly_method_find("fs/readFile\0", 12));
    assert_null(bly_method_find("", 0));
}

static const char *sample_of(const char *method)
{
    for (size_t i = 0; i < BLY_LEN(samples); i++)
        if (strcmp(samples[i].method, method) == 0)
            return samples[i].params;
    fail_msg("no sample parameters for %s", method);
    return NULL;
}

static void call(struct bly_conn *conn, const struct bly_method *method)
{
    char text[512];

    (void)snprintf(text, sizeof(text), "{\"id\":5,\"method\":\"%s\",\"params\":%s}", method->name,
                   sample_of(method->name));
    fake_send(conn, text);
}

static void each_needs_a_session(void **state)
{
    struct bly_conn *conn;
    struct fake fake;
    char expected[128];

    (void)state;
    fake_init(&fake);
    fake_start(&fake);
    for (size_t i = 0; i < bly_method_count; i++) {
        const char *answer;

        if (bly_methods[i].flags & BLY_METHOD_HANDSHAKE)
            continue;
        conn = fake_connect(&fake);
        call(conn, &bly_methods[i]);
        answer = fake_next(conn);
        (void)snprintf(expected, sizeof(expected),
                       "client must call initialize before using %s methods",
                       bly_methods[i].family);
        if (!strstr(answer, expected))
            fail_msg("%s: %s", bly_methods[i].name, answer);
        fake_hang_up(conn);
    }
    fake_end(&fake);
}

/* Whoever needs parameters says so, whatever state the connection is in. */
static void each_checks_its_parameters(void **state)
{
    struct bly_conn *conn;
    struct fake fake;
    char text[128];

    (void)state;
    fake_init(&fake);
    fake_start(&fake);
    for (size_t i = 0; i < bly_method_count; i++) {
        conn = fake_connect(&fake);
        (void)snprintf(text, sizeof(text), "{\"id\":5,\"method\":\"%s\",\"params\":[1]}",
                       bly_methods[i].name);
        fake_send(conn, text);
        assert_non_null(strstr(fake_next(conn), "-32602"));
        fake_hang_up(conn);
    }
    fake_end(&fake);
}

/* Then it is like any method nobody has heard of, whatever the parameters and the state. */
static void http_may_be_off(void **state)
{
    static const char *const requests[] = {
        "{\"id\":1,\"method\":\"http/request\",\"params\":{}}",
        "{\"id\":1,\"method\":\"http/request\",\"params\":{\"method\":\"GET\",\"url\":\"http://a/"
        "\","
        "\"requestId\":\"1\"}}"};
    struct bly_conn *conn;
    struct fake fake;

    (void)state;
    fake_init(&fake);
    fake.no_http = true;
    fake_start(&fake);
    conn = fake_connect(&fake);
    for (size_t i = 0; i < BLY_LEN(requests); i++) {
        fake_send(conn, requests[i]);
        assert_non_null(strstr(fake_next(conn), "-32601"));
    }
    fake_handshake(conn, NULL);
    for (size_t i = 0; i < BLY_LEN(requests); i++) {
        fake_send(conn, requests[i]);
        assert_non_null(strstr(fake_next(conn), "-32601"));
    }
    fake_hang_up(conn);
    fake_end(&fake);
}

static void each_is_documented(void **state)
{
    static char text[1 << 20];
    bly_autofree char *dir = strdup(__FILE__);
    char path[4096], heading[64];
    FILE *file;
    size_t n;

    (void)state;
    assert_non_null(dir);
    *strrchr(dir, '/') = '\0';
    (void)snprintf(path, sizeof(path), "%s/../../../docs/PROTOCOL.md", dir);
    file = fopen(path, "re");
    if (!file)
        fail_msg("cannot read %s", path);
    n = fread(text, 1, sizeof(text) - 1, file);
    text[n] = '\0';
    (void)fclose(file);
    for (size_t i = 0; i < bly_method_count; i++) {
        (void)snprintf(heading, sizeof(heading), "`%s`", bly_methods[i].name);
        if (!strstr(text, heading))
            fail_msg("docs/PROTOCOL.md says nothing about %s", bly_methods[i].name);
    }
}

/* ---- the OpenRPC document ---- */

static yyjson_doc *read_document(void)
{
    yyjson_doc *doc = NULL;
    struct bly_err err;

    if (bly_json_read_copy(bly_openrpc, bly_openrpc_len, &doc, &err) < 0)
        fail_msg("%s", err.text);
    return doc;
}

/* A method that clients call, with this name. */
static bool is_request(yyjson_val *described, const char *name)
{
    return yyjson_obj_get(described, "result") &&
           yyjson_equals_str(yyjson_obj_get(described, "x-direction"), "clientToServer") &&
           (!name || yyjson_equals_str(yyjson_obj_get(described, "name"), name));
}

static void each_is_described(void **state)
{
    yyjson_doc *doc = read_document();
    yyjson_val *methods = yyjson_obj_get(yyjson_doc_get_root(doc), "methods");

    (void)state;
    for (size_t i = 0; i < bly_method_count; i++) {
        yyjson_val *described;
        size_t k, n, found = 0;

        yyjson_arr_foreach (methods, k, n, described) {
            found += is_request(described, bly_methods[i].name);
        }
        if (found != 1)
            fail_msg("openrpc.json describes %s %zu times", bly_methods[i].name, found);
    }
    yyjson_doc_free(doc);
}

static void each_description_is_of_a_method(void **state)
{
    yyjson_doc *doc = read_document();
    yyjson_val *methods = yyjson_obj_get(yyjson_doc_get_root(doc), "methods");
    yyjson_val *described;
    size_t k, n, requests = 0;
    bool served;

    (void)state;
    yyjson_arr_foreach (methods, k, n, described) {
        yyjson_val *name = yyjson_obj_get(described, "name");

        if (!is_request(described, NULL))
            continue;
        served = !yyjson_is_false(yyjson_obj_get(described, "x-served"));
        requests += served;
        if (served != (bly_method_find(yyjson_get_str(name), yyjson_get_len(name)) != NULL))
            fail_msg("openrpc.json says that %s is %s", yyjson_get_str(name),
                     served ? "served" : "not served");
    }
    assert_int_equal(requests, bly_method_count);
    yyjson_doc_free(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_unique_and_found),
        cmocka_unit_test(each_needs_a_session),
        cmocka_unit_test(each_checks_its_parameters),
        cmocka_unit_test(http_may_be_off),
        cmocka_unit_test(each_is_documented),
        cmocka_unit_test(each_is_described),
        cmocka_unit_test(each_description_is_of_a_method),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
