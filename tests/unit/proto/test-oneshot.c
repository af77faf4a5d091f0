/*
 * The one-shot helper's request and answers.
 */
#include "proto/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "proto/oneshot.h"

static int decode(const char *json, struct bly_oneshot *ret_request, char **ret_text,
                  struct bly_err *err)
{
    *ret_text = calloc(1, strlen(json) + BLY_JSON_PADDING);
    assert_non_null(*ret_text);
    memcpy(*ret_text, json, strlen(json));
    return bly_oneshot_decode(*ret_text, strlen(json), &test_env, ret_request, err);
}

static void every_operation_is_known(void **state)
{
    static const struct {
        const char *operation, *params;
        enum bly_fs_op op;
    } rows[] = {
        {"fs/readFile", "{\"path\":\"/w/a\",\"sandbox\":null}", BLY_FS_READ_FILE},
        {"fs/writeFile", "{\"path\":\"/w/a\",\"dataBase64\":\"YQ==\"}", BLY_FS_WRITE_FILE},
        {"fs/createDirectory", "{\"path\":\"/w/a\"}", BLY_FS_CREATE_DIRECTORY},
        {"fs/getMetadata", "{\"path\":\"file:///w/a\"}", BLY_FS_GET_METADATA},
        {"fs/readDirectory", "{\"path\":\"/w/a\"}", BLY_FS_READ_DIRECTORY},
        {"fs/remove", "{\"path\":\"/w/a\"}", BLY_FS_REMOVE},
        {"fs/copy", "{\"sourcePath\":\"/w/a\",\"destinationPath\":\"/w/b\",\"recursive\":true}",
         BLY_FS_COPY},
        {"fs/canonicalize", "{\"path\":\"/w/a\"}", BLY_FS_CANONICALIZE},
        {"fs/walk",
         "{\"path\":\"/w/a\",\"options\":{\"maxDepth\":1,\"maxDirectories\":1,\"maxEntries\":1,"
         "\"followDirectorySymlinks\":false}}",
         BLY_FS_WALK},
        {"fs/open", "{\"handleId\":\"h\",\"path\":\"/w/a\"}", BLY_FS_OPEN},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        bly_autofree char *text = NULL;
        struct bly_oneshot request;
        struct bly_err err;
        char json[512];

        snprintf(json, sizeof(json), "{\"operation\":\"%s\",\"params\":%s}", rows[i].operation,
                 rows[i].params);
        if (decode(json, &request, &text, &err) < 0)
            fail_msg("%s: %s", json, err.text);
        assert_int_equal(request.op, rows[i].op);
        assert_int_equal(request.params.request.op, rows[i].op);
        assert_string_equal(request.operation, rows[i].operation);
        assert_string_equal(request.params.request.path, "/w/a");
        bly_oneshot_deinit(&request);
    }
}

static void what_is_no_request_is_refused(void **state)
{
    static const struct {
        const char *json, *text;
    } rows[] = {
        {"", "at line 1"},
        {"hello", "at line 1"},
        {"{\"operation\":\"fs/readFile\",\"params\":{\"path\":\"/a\"}} x", "at line 1"},
        {"[]", "invalid type"},
        {"{\"params\":{}}", "missing field `operation`"},
        {"{\"operation\":\"fs/readFile\"}", "missing field `params`"},
        {"{\"operation\":5,\"params\":{}}", "invalid type"},
        {"{\"operation\":\"fs/readFile\",\"params\":null}", "invalid type"},
        {"{\"operation\":\"fs/readFile\",\"params\":{}}", "missing field `path`"},
        {"{\"operation\":\"fs/readBlock\",\"params\":{}}", "unknown operation `fs/readBlock`"},
        {"{\"operation\":\"initialize\",\"params\":{}}", "unknown operation `initialize`"},
        {"{\"operation\":\"fs/readFile\",\"params\":{\"path\":\"/a\",\"sandbox\":{}}}",
         "missing field `permissions`"},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        bly_autofree char *text = NULL;
        struct bly_oneshot request;
        struct bly_err err;

        assert_true(decode(rows[i].json, &request, &text, &err) < 0);
        if (!strstr(err.text, rows[i].text))
            fail_msg("%s gives `%s`", rows[i].json, err.text);
    }
}

static void a_sandbox_is_dropped(void **state)
{
    bly_autofree char *text = NULL;
    struct bly_oneshot request;
    struct bly_err err;

    (void)state;
    assert_int_equal(
        decode("{\"operation\":\"fs/readFile\",\"params\":{\"path\":\"/a\",\"sandbox\":"
               "{\"sandboxPolicy\":{\"type\":\"read-only\"},"
               "\"windowsSandboxLevel\":\"disabled\"}}}",
               &request, &text, &err),
        0);
    assert_null(request.params.policy);
    bly_oneshot_deinit(&request);
}

static void answers_are_wrapped(void **state)
{
    static char text_mem[BLY_FS_TEXT_HEAD + 8 + BLY_FS_TEXT_TAIL];
    static const struct {
        enum bly_fs_op op;
        const char *operation;
        struct bly_fs_reply reply;
        const char *want;
    } rows[] = {
        {BLY_FS_READ_FILE,
         "fs/readFile",
         {.text_mem = text_mem, .text_len = 8},
         "{\"status\":\"ok\",\"payload\":{\"operation\":\"fs/readFile\","
         "\"response\":{\"dataBase64\":\"aGVsbG8K\"}}}"},
        {BLY_FS_REMOVE, "fs/remove",
         .want = "{\"status\":\"ok\",\"payload\":{\"operation\":\"fs/remove\",\"response\":{}}}"},
        {BLY_FS_OPEN, "fs/open",
         .want = "{\"status\":\"ok\",\"payload\":{\"operation\":\"fs/open\",\"response\":{}}}"},
        {BLY_FS_READ_FILE,
         "fs/readFile",
         {.err = {BLY_ERR_SYSTEM, ENOENT, "x"}},
         "{\"status\":\"error\",\"payload\":{\"code\":-32004,"
         "\"message\":\"No such file or directory (os error 2)\"}}"},
    };

    (void)state;
    memcpy(text_mem + BLY_FS_TEXT_HEAD, "aGVsbG8K", 8);
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct bly_oneshot request = {.op = rows[i].op, .operation = rows[i].operation};
        bly_autobuf struct bly_buf buf;

        bly_buf_init(&buf, 1024);
        bly_oneshot_encode(&request, &rows[i].reply, &buf);
        assert_buf(&buf, rows[i].want);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_is_known),
        cmocka_unit_test(what_is_no_request_is_refused),
        cmocka_unit_test(a_sandbox_is_dropped),
        cmocka_unit_test(answers_are_wrapped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
