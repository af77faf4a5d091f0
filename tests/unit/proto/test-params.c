/*
 * Every member of every method's parameters: left out, null, of a wrong type. The order of the
 * members is that of docs/PROTOCOL.md.
 */
#include "proto/support.h"

#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "proto/decode.h"
#include "proto/http.h"
#include "proto/proto.h"
#include "support/rows.h"

struct member {
    const char *name, *value, *wrong; /* JSON; `wrong` is of a type nobody would accept here */
    enum bly_need need;
};

struct method {
    const char *name;
    int (*decode)(yyjson_val *params, struct bly_err *err);
    const char *before, *after; /* JSON around the object, when it is not the params themselves */
    struct member members[16];
};

/* ---- decoders, all with the same face ---- */

static int decode_fs(enum bly_fs_op op, yyjson_val *params, struct bly_err *err)
{
    struct bly_fs_params p;
    int r = bly_proto_decode_fs(op, params, &test_env, &p, err);

    if (r == 0)
        bly_fs_params_deinit(&p);
    return r;
}

#define FS(name, op)                                         \
    static int name(yyjson_val *params, struct bly_err *err) \
    {                                                        \
        return decode_fs(op, params, err);                   \
    }

FS(read_file, BLY_FS_READ_FILE)
FS(write_file, BLY_FS_WRITE_FILE)
FS(create_directory, BLY_FS_CREATE_DIRECTORY)
FS(get_metadata, BLY_FS_GET_METADATA)
FS(read_directory, BLY_FS_READ_DIRECTORY)
FS(remove_path, BLY_FS_REMOVE)
FS(copy, BLY_FS_COPY)
FS(canonicalize, BLY_FS_CANONICALIZE)
FS(walk, BLY_FS_WALK)
FS(open_handle, BLY_FS_OPEN)
FS(read_block, BLY_FS_READ_BLOCK)
FS(write_block, BLY_FS_WRITE_BLOCK)

static int close_handle(yyjson_val *params, struct bly_err *err)
{
    struct bly_fs_params p;

    return bly_proto_decode_close(params, &p, err);
}

static int initialize(yyjson_val *params, struct bly_err *err)
{
    struct bly_initialize_params p;

    return bly_proto_decode_initialize(params, &p, err);
}

static int start(yyjson_val *params, struct bly_err *err)
{
    static char *server_env[] = {NULL};
    struct bly_start_params p;
    int r = bly_proto_decode_start(params, &test_env, server_env, &p, err);

    if (r == 0)
        bly_start_params_deinit(&p);
    return r;
}

static int watch_missing(yyjson_val *params, struct bly_err *err)
{
    struct bly_watch_params p;
    int r = bly_proto_decode_watch(params, &p, err);

    if (r == 0)
        bly_watch_params_deinit(&p);
    return r;
}

static int discover(yyjson_val *params, struct bly_err *err)
{
    struct bly_discover_params p;
    int r = bly_proto_decode_discover(params, &test_env, &p, err);

    if (r == 0)
        bly_discover_params_deinit(&p);
    return r;
}

static int discover_installed(yyjson_val *params, struct bly_err *err)
{
    return bly_proto_decode_discover_installed(params, &test_env, err);
}

static int read_config(yyjson_val *params, struct bly_err *err)
{
    struct bly_config_params p;

    return bly_proto_decode_config_read(params, &p, err);
}

#define PROCESS(name, function)                              \
    static int name(yyjson_val *params, struct bly_err *err) \
    {                                                        \
        struct bly_process_params p;                         \
                                                             \
        return function(params, &p, err);                    \
    }

PROCESS(read_output, bly_proto_decode_read)
PROCESS(write_input, bly_proto_decode_write)
PROCESS(terminate, bly_proto_decode_terminate)
PROCESS(send_signal, bly_proto_decode_signal)

static int http(yyjson_val *params, struct bly_err *err)
{
    struct bly_http_params p;
    int r = bly_proto_decode_http(params, &p, err);

    bly_http_params_deinit(&p);
    return r;
}

/* ---- the methods ---- */

#define POLICY                                                                                     \
    "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\",\"entries\":" \
    "[]},\"network\":\"restricted\"},\"windowsSandboxLevel\":\"disabled\"}"

#define PATH                                  \
    {                                         \
        "path", "\"/w/a\"", "5", BLY_REQUIRED \
    }
#define FOLLOW                                            \
    {                                                     \
        "followSymlinks", "false", "\"no\"", BLY_OPTIONAL \
    }
#define SANDBOX                                  \
    {                                            \
        "sandbox", POLICY, "\"x\"", BLY_OPTIONAL \
    }
#define HANDLE                                 \
    {                                          \
        "handleId", "\"h\"", "1", BLY_REQUIRED \
    }
#define PROCESS_ID                              \
    {                                           \
        "processId", "\"p\"", "7", BLY_REQUIRED \
    }
#define OFFSET                            \
    {                                     \
        "offset", "0", "-1", BLY_REQUIRED \
    }

static struct method methods[] = {
    {"initialize", initialize,
     .members = {{"clientName", "\"x\"", "5", BLY_REQUIRED},
                 {"resumeSessionId", "\"s\"", "5", BLY_OPTIONAL}}},
    {"process/start", start,
     .members = {PROCESS_ID,
                 {"argv", "[\"/bin/true\"]", "\"/bin/true\"", BLY_REQUIRED},
                 {"cwd", "\"/w\"", "[]", BLY_REQUIRED},
                 {"envPolicy",
                  "{\"inherit\":\"none\",\"ignoreDefaultExcludes\":true,\"exclude\":[],"
                  "\"set\":{},\"includeOnly\":[]}",
                  "\"all\"", BLY_OPTIONAL},
                 {"env", "{}", "[]", BLY_REQUIRED},
                 {"tty", "false", "0", BLY_REQUIRED},
                 {"pipeStdin", "true", "1", BLY_DEFAULTED},
                 {"arg0", "\"x\"", "1", BLY_OPTIONAL},
                 SANDBOX,
                 {"enforceManagedNetwork", "false", "0", BLY_DEFAULTED},
                 {"managedNetwork", "{}", "1", BLY_OPTIONAL}}},
    {"envPolicy", start,
     "{\"processId\":\"p\",\"argv\":[\"a\"],\"cwd\":\"/w\",\"env\":{},\"tty\":false,\"envPolicy\":",
     "}",
     .members = {{"inherit", "\"core\"", "1", BLY_REQUIRED},
                 {"ignoreDefaultExcludes", "true", "1", BLY_REQUIRED},
                 {"exclude", "[\"A*\"]", "{}", BLY_REQUIRED},
                 {"set", "{\"A\":\"1\"}", "[]", BLY_REQUIRED},
                 {"includeOnly", "[]", "[1]", BLY_REQUIRED}}},
    {"process/read", read_output,
     .members = {PROCESS_ID,
                 {"afterSeq", "3", "-1", BLY_OPTIONAL},
                 {"maxBytes", "100", "1.5", BLY_OPTIONAL},
                 {"waitMs", "5", "\"5\"", BLY_OPTIONAL}}},
    {"process/write", write_input,
     .members = {PROCESS_ID,
                 {"chunk", "\"YQ==\"", "5", BLY_REQUIRED},
                 {"writeId", "\"1\"", "1", BLY_OPTIONAL}}},
    {"process/terminate", terminate, .members = {PROCESS_ID}},
    {"process/signal", send_signal,
     .members = {PROCESS_ID, {"signal", "\"interrupt\"", "2", BLY_REQUIRED}}},
    {"fs/readFile", read_file, .members = {PATH, FOLLOW, SANDBOX}},
    {"fs/writeFile", write_file,
     .members = {PATH, {"dataBase64", "\"YQ==\"", "{}", BLY_REQUIRED}, FOLLOW, SANDBOX}},
    {"fs/createDirectory", create_directory,
     .members = {PATH, {"recursive", "false", "1", BLY_OPTIONAL}, FOLLOW, SANDBOX}},
    {"fs/getMetadata", get_metadata, .members = {PATH, FOLLOW, SANDBOX}},
    {"fs/readDirectory", read_directory, .members = {PATH, SANDBOX}},
    {"fs/remove", remove_path,
     .members = {PATH,
                 {"recursive", "false", "1", BLY_OPTIONAL},
                 {"force", "false", "\"true\"", BLY_OPTIONAL},
                 FOLLOW,
                 SANDBOX}},
    {"fs/copy", copy,
     .members = {{"sourcePath", "\"/w/a\"", "5", BLY_REQUIRED},
                 {"destinationPath", "\"/w/b\"", "[]", BLY_REQUIRED},
                 {"recursive", "true", "1", BLY_REQUIRED},
                 SANDBOX}},
    {"fs/canonicalize", canonicalize, .members = {PATH, SANDBOX}},
    {"fs/walk", walk,
     .members = {PATH,
                 {"options",
                  "{\"maxDepth\":1,\"maxDirectories\":1,\"maxEntries\":1,"
                  "\"followDirectorySymlinks\":true}",
                  "[]", BLY_REQUIRED},
                 SANDBOX}},
    {"fs/walk options", walk, "{\"path\":\"/w\",\"options\":", "}",
     .members = {{"maxDepth", "1", "1.0", BLY_REQUIRED},
                 {"maxDirectories", "1", "1e2", BLY_REQUIRED},
                 {"maxEntries", "1", "\"1\"", BLY_REQUIRED},
                 {"followDirectorySymlinks", "true", "1", BLY_REQUIRED},
                 {"pruneHiddenDirectories", "true", "0", BLY_DEFAULTED}}},
    {"fs/open", open_handle,
     .members = {HANDLE, PATH, {"mode", "\"replace\"", "1", BLY_DEFAULTED}, FOLLOW, SANDBOX}},
    {"fs/readBlock", read_block,
     .members = {HANDLE, OFFSET, {"len", "1", "18446744073709551616", BLY_REQUIRED}}},
    {"fs/writeBlock", write_block,
     .members = {HANDLE, OFFSET, {"chunk", "\"YQ==\"", "true", BLY_REQUIRED}}},
    {"fs/close", close_handle, .members = {HANDLE}},
    {"fs/watchMissing", watch_missing,
     .members = {{"watchId", "1", "\"x\"", BLY_REQUIRED},
                 {"missing", "[\"/w/a\"]", "[1]", BLY_REQUIRED},
                 {"present", "\"/w\"", "{}", BLY_OPTIONAL}}},
    {"http/request", http,
     .members = {{"method", "\"GET\"", "1", BLY_REQUIRED},
                 {"url", "\"http://a/\"", "[]", BLY_REQUIRED},
                 {"headers", "[]", "{}", BLY_DEFAULTED},
                 {"bodyBase64", "\"YQ==\"", "\"*\"", BLY_OPTIONAL},
                 {"timeoutMs", "0", "-1", BLY_OPTIONAL},
                 {"redirectPolicy", "\"stop\"", "\"sometimes\"", BLY_DEFAULTED},
                 {"requestId", "\"\"", "1", BLY_REQUIRED},
                 {"streamResponse", "true", "1", BLY_DEFAULTED}}},
    {"http/request headers", http,
     "{\"method\":\"GET\",\"url\":\"http://a/\",\"requestId\":\"1\",\"headers\":[", "]}",
     .members = {{"name", "\"a\"", "1", BLY_REQUIRED},
                 {"value", "\"\"", "null", BLY_REQUIRED},
                 {"valueEnvVar", "\"A\"", "1", BLY_OPTIONAL}}},
    {"capabilityRoots/discoverV1", discover, .members = {{"roots", "[]", "{}", BLY_REQUIRED}}},
    {"capabilityRoots/discoverV1 roots", discover, "{\"roots\":[", "]}",
     .members = {{"id", "\"r\"", "1", BLY_REQUIRED}, PATH, SANDBOX}},
    {"capabilities/discoverV2", discover_installed,
     .members = {{"cwd", "\"/w\"", "5", BLY_REQUIRED}, SANDBOX}},
    {"environmentConfig/read", read_config,
     .members = {{"cwd", "\"/w\"", "5", BLY_REQUIRED},
                 {"configPaths", "[[\"a\"]]", "[\"a\"]", BLY_REQUIRED},
                 {"requirementsPaths", "[]", "[[1]]", BLY_REQUIRED}}},
};

/* ---- the checks ---- */

enum how { AS_IT_IS, LEFT_OUT, NULLED, WRONG };

/* The params with all members, one of them treated as `how` says. */
static void build(const struct method *m, const struct member *odd, enum how how, char *json,
                  size_t size)
{
    size_t used = (size_t)snprintf(json, size, "%s{", m->before ? m->before : "");
    const char *comma = "";

    for (const struct member *k = m->members; k->name; k++) {
        const char *value = k != odd || how == AS_IT_IS ? k->value
                            : how == NULLED             ? "null"
                                                        : k->wrong;

        if (k == odd && how == LEFT_OUT)
            continue;
        used += (size_t)snprintf(json + used, size - used, "%s\"%s\":%s", comma, k->name, value);
        comma = ",";
    }
    used += (size_t)snprintf(json + used, size - used, "}%s", m->after ? m->after : "");
    assert_true(used < size);
}

/* `want` NULL: it is accepted; "": any -32602; else that text. */
static void check(const struct method *m, const char *json, const char *want)
{
    struct test_doc d = test_doc_of(json);
    struct bly_err err = {.text = "-"};
    int r = m->decode(d.root, &err);

    if (!want && r != 0)
        fail_msg("%s refused: %s", json, err.text);
    if (want && (r != -EINVAL || err.kind != BLY_ERR_PARAMS))
        fail_msg("%s gives %d, kind %d, %s", json, r, (int)err.kind, err.text);
    if (want && want[0] != '\0' && strcmp(err.text, want) != 0)
        fail_msg("%s gives `%s`, not `%s`", json, err.text, want);
    test_doc_deinit(&d);
}

static void check_member(const struct method *m, const struct member *k)
{
    char json[2048], missing[64];

    snprintf(missing, sizeof(missing), "missing field `%s`", k->name);
    build(m, k, AS_IT_IS, json, sizeof(json));
    check(m, json, NULL);
    build(m, k, LEFT_OUT, json, sizeof(json));
    check(m, json, k->need == BLY_REQUIRED ? missing : NULL);
    build(m, k, NULLED, json, sizeof(json));
    check(m, json, k->need == BLY_OPTIONAL ? NULL : "");
    build(m, k, WRONG, json, sizeof(json));
    check(m, json, "");
}

/* Of several missing members the first of the list is named. */
static void check_first_missing(const struct method *m)
{
    char json[512], missing[64];

    if (m->members[0].need != BLY_REQUIRED)
        return;

    snprintf(json, sizeof(json), "%s{\"zzz\":[1]}%s", m->before ? m->before : "",
             m->after ? m->after : "");
    snprintf(missing, sizeof(missing), "missing field `%s`", m->members[0].name);
    check(m, json, missing);
}

static void check_method(void **state)
{
    static const char *const no_params[] = {"null", "\"x\"", "[\"/w/a\"]", "5", "true"};
    const struct method *m = *state;
    struct bly_err err;

    for (const struct member *k = m->members; k->name; k++)
        check_member(m, k);
    check_first_missing(m);
    for (size_t i = 0; i < BLY_LEN(no_params); i++)
        check(m, no_params[i], "");
    assert_int_equal(m->decode(NULL, &err), -EINVAL);
    assert_int_equal(err.kind, BLY_ERR_PARAMS);
}

static void some_methods_take_nothing(void **state)
{
    static const struct {
        const char *json;
        bool fine;
    } rows[] = {{"null", true},   {"{}", true}, {"{\"a\":1}", false}, {"[]", false},
                {"\"x\"", false}, {"0", false}, {"false", false}};
    struct bly_err err;

    (void)state;
    assert_int_equal(bly_proto_decode_nothing(NULL, &err), 0);
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct test_doc d = test_doc_of(rows[i].json);

        assert_int_equal(bly_proto_decode_nothing(d.root, &err), rows[i].fine ? 0 : -EINVAL);
        if (!rows[i].fine)
            assert_int_equal(err.kind, BLY_ERR_PARAMS);
        test_doc_deinit(&d);
    }
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(methods) + 1] = {0};

    ROWS_AS_TESTS(tests, methods, check_method);
    tests[BLY_LEN(methods)] = (struct CMUnitTest)cmocka_unit_test(some_methods_take_nothing);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
