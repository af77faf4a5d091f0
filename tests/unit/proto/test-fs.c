/*
 * fs/...: params to struct, in both dialects, and replies to bytes.
 */
#include "proto/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "proto/proto.h"
#include "rpc/rpc.h"
#include "support/rows.h"

/* ---- params ---- */

/*
 * `want` is what describe() makes of the struct: what is not false, 0 or absent. When it begins
 * with '!' the request is refused with that code and text; a text ending in '*' is a beginning.
 */
static struct decode_case {
    const char *name;
    enum bly_fs_op op;
    const char *json, *want;
} decode_cases[] = {
    {"readFile, raw path", BLY_FS_READ_FILE, "{\"path\":\"/w/a\",\"sandbox\":null}", "path=/w/a"},
    {"readFile, URI", BLY_FS_READ_FILE, "{\"path\":\"file:///w/a\",\"sandbox\":null}", "path=/w/a"},
    {"readFile, no links", BLY_FS_READ_FILE,
     "{\"path\":\"file:///w/%C3%BC\",\"followSymlinks\":false}", "path=/w/\xc3\xbc no-follow"},
    {"paths are normalised", BLY_FS_READ_FILE, "{\"path\":\"/w//x/../lnk/./\"}", "path=/w/lnk"},
    {"unknown members are ignored", BLY_FS_READ_FILE,
     "{\"path\":\"/w/a\",\"mode\":7,\"recursive\":7}", "path=/w/a"},
    {"a relative path", BLY_FS_READ_FILE, "{\"path\":\"tmp\"}",
     "!-32602 invalid URI: relative URL without a base"},
    {"an empty path", BLY_FS_READ_FILE, "{\"path\":\"\"}", "!-32602 *"},
    {"another scheme", BLY_FS_READ_FILE, "{\"path\":\"http://x/y\"}",
     "!-32602 unsupported path URI scheme `http`"},
    {"another host", BLY_FS_READ_FILE, "{\"path\":\"file://host/w\"}",
     "!-32600 'file://host/w' is invalid on 'linux'"},
    {"a NUL byte in a raw path", BLY_FS_READ_FILE, "{\"path\":\"/a\\u0000b\"}",
     "!-32600 file name contained an unexpected NUL byte"},
    {"what is missing counts before what the path is", BLY_FS_WRITE_FILE,
     "{\"path\":\"file://host/w\"}", "!-32602 missing field `dataBase64`"},

    {"writeFile hands its text on", BLY_FS_WRITE_FILE,
     "{\"path\":\"/w/a\",\"dataBase64\":\"*bad*\"}", "path=/w/a base64=*bad*"},
    {"writeFile of nothing", BLY_FS_WRITE_FILE, "{\"path\":\"/w/a\",\"dataBase64\":\"\"}",
     "path=/w/a base64="},
    {"createDirectory is recursive", BLY_FS_CREATE_DIRECTORY, "{\"path\":\"/w/a\"}",
     "path=/w/a recursive"},
    {"createDirectory, recursive null", BLY_FS_CREATE_DIRECTORY,
     "{\"path\":\"/w/a\",\"recursive\":null}", "path=/w/a recursive"},
    {"createDirectory, not recursive", BLY_FS_CREATE_DIRECTORY,
     "{\"path\":\"/w/a\",\"recursive\":false,\"followSymlinks\":null}", "path=/w/a"},
    {"getMetadata", BLY_FS_GET_METADATA, "{\"path\":\"/w/a\",\"followSymlinks\":false}",
     "path=/w/a no-follow"},
    {"readDirectory follows whatever it is told", BLY_FS_READ_DIRECTORY,
     "{\"path\":\"/w/a\",\"followSymlinks\":false}", "path=/w/a"},
    {"remove is recursive and forced", BLY_FS_REMOVE, "{\"path\":\"/w/a\"}",
     "path=/w/a recursive force"},
    {"remove, neither", BLY_FS_REMOVE, "{\"path\":\"/w/a\",\"recursive\":false,\"force\":false}",
     "path=/w/a"},
    {"copy", BLY_FS_COPY,
     "{\"sourcePath\":\"/w/a\",\"destinationPath\":\"file:///w/b\",\"recursive\":true}",
     "path=/w/a to=/w/b recursive"},
    {"copy ignores followSymlinks", BLY_FS_COPY,
     "{\"sourcePath\":\"/w/a\",\"destinationPath\":\"/w/b\",\"recursive\":false,"
     "\"followSymlinks\":false}",
     "path=/w/a to=/w/b"},
    {"copy to a bad path", BLY_FS_COPY,
     "{\"sourcePath\":\"/w/a\",\"destinationPath\":\"b\",\"recursive\":false}", "!-32602 *"},
    {"canonicalize", BLY_FS_CANONICALIZE, "{\"path\":\"/w/a/..\"}", "path=/w"},

    {"walk", BLY_FS_WALK,
     "{\"path\":\"/w\",\"options\":{\"maxDepth\":64,\"maxDirectories\":10000,\"maxEntries\":50000,"
     "\"followDirectorySymlinks\":true,\"pruneHiddenDirectories\":true}}",
     "path=/w depth=64 dirs=10000 entries=50000 follow-dirs prune"},
    {"walk of the direct children", BLY_FS_WALK,
     "{\"path\":\"/w\",\"options\":{\"maxDepth\":0,\"maxDirectories\":1,\"maxEntries\":1,"
     "\"followDirectorySymlinks\":false}}",
     "path=/w dirs=1 entries=1"},
    {"walk of no directories", BLY_FS_WALK,
     "{\"path\":\"/w\",\"options\":{\"maxDepth\":10,\"maxDirectories\":0,\"maxEntries\":1,"
     "\"followDirectorySymlinks\":false}}",
     "!-32600 filesystem walk limits must be greater than zero"},
    {"walk: zero counts before too much", BLY_FS_WALK,
     "{\"path\":\"/w\",\"options\":{\"maxDepth\":65,\"maxDirectories\":1,\"maxEntries\":0,"
     "\"followDirectorySymlinks\":false}}",
     "!-32600 filesystem walk limits must be greater than zero"},
    {"walk too deep", BLY_FS_WALK,
     "{\"path\":\"/w\",\"options\":{\"maxDepth\":65,\"maxDirectories\":1,\"maxEntries\":1,"
     "\"followDirectorySymlinks\":false}}",
     "!-32600 filesystem walk limits exceed maximums: depth=64, directories=10000, entries=50000"},
    {"walk of too many directories", BLY_FS_WALK,
     "{\"path\":\"/w\",\"options\":{\"maxDepth\":1,\"maxDirectories\":10001,\"maxEntries\":1,"
     "\"followDirectorySymlinks\":false}}",
     "!-32600 filesystem walk limits exceed maximums: depth=64, directories=10000, entries=50000"},
    {"walk of too many entries", BLY_FS_WALK,
     "{\"path\":\"/w\",\"options\":{\"maxDepth\":1,\"maxDirectories\":1,\"maxEntries\":50001,"
     "\"followDirectorySymlinks\":false}}",
     "!-32600 filesystem walk limits exceed maximums: depth=64, directories=10000, entries=50000"},

    {"open", BLY_FS_OPEN, "{\"handleId\":\"h\",\"path\":\"/w/a\"}", "path=/w/a handle=h"},
    {"open to read", BLY_FS_OPEN,
     "{\"handleId\":\"\",\"path\":\"/w/a\",\"mode\":\"read\",\"followSymlinks\":false}",
     "path=/w/a handle= no-follow"},
    {"open to replace", BLY_FS_OPEN, "{\"handleId\":\"h\",\"path\":\"/w/a\",\"mode\":\"replace\"}",
     "path=/w/a handle=h replace"},
    {"open in another mode", BLY_FS_OPEN,
     "{\"handleId\":\"h\",\"path\":\"/w/a\",\"mode\":\"bogus\"}",
     "!-32602 unknown variant `bogus`, expected `read` or `replace`"},
    {"a handle id of 32 bytes", BLY_FS_OPEN,
     "{\"handleId\":\"\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9"
     "\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\",\"path\":\"/w/a\"}",
     "path=/w/a handle=\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
     "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"},
    {"a handle id of 33 bytes", BLY_FS_OPEN,
     "{\"handleId\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\",\"path\":\"/w/a\"}",
     "!-32600 file handle ID must not exceed 32 bytes"},
    {"a handle id of 33 bytes, readBlock", BLY_FS_READ_BLOCK,
     "{\"handleId\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\",\"offset\":0,\"len\":1}",
     "!-32600 file handle ID must not exceed 32 bytes"},
    {"a handle id of 33 bytes, writeBlock", BLY_FS_WRITE_BLOCK,
     "{\"handleId\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\",\"offset\":0,\"chunk\":\"YQ==\"}",
     "!-32600 file handle ID must not exceed 32 bytes"},

    {"readBlock", BLY_FS_READ_BLOCK,
     "{\"handleId\":\"h\",\"offset\":18446744073709551615,\"len\":1048576}",
     "handle=h offset=18446744073709551615 len=1048576"},
    {"readBlock has no sandbox", BLY_FS_READ_BLOCK,
     "{\"handleId\":\"h\",\"offset\":0,\"len\":1,\"sandbox\":5}", "handle=h len=1"},
    {"readBlock of nothing", BLY_FS_READ_BLOCK, "{\"handleId\":\"h\",\"offset\":0,\"len\":0}",
     "!-32600 file read block length must be between 1 and 1048576"},
    {"readBlock of too much", BLY_FS_READ_BLOCK,
     "{\"handleId\":\"h\",\"offset\":0,\"len\":1048577}",
     "!-32600 file read block length must be between 1 and 1048576"},
    {"a negative offset", BLY_FS_READ_BLOCK, "{\"handleId\":\"h\",\"offset\":-1,\"len\":1}",
     "!-32602 *"},

    {"writeBlock", BLY_FS_WRITE_BLOCK,
     "{\"handleId\":\"h\",\"offset\":5,\"chunk\":\"YWJj\",\"sandbox\":5}",
     "handle=h offset=5 base64=YWJj"},
    {"writeBlock of nothing", BLY_FS_WRITE_BLOCK,
     "{\"handleId\":\"h\",\"offset\":0,\"chunk\":\"\"}",
     "!-32600 file write block length must be between 1 and 1048576"},
    {"writeBlock at the last offset", BLY_FS_WRITE_BLOCK,
     "{\"handleId\":\"h\",\"offset\":9223372036854775806,\"chunk\":\"YQ==\"}",
     "handle=h offset=9223372036854775806 base64=YQ=="},
    {"writeBlock past the last offset", BLY_FS_WRITE_BLOCK,
     "{\"handleId\":\"h\",\"offset\":9223372036854775807,\"chunk\":\"YQ==\"}",
     "!-32600 file write range exceeds the signed 64-bit file offset limit"},
    {"writeBlock at no offset at all", BLY_FS_WRITE_BLOCK,
     "{\"handleId\":\"h\",\"offset\":18446744073709551615,\"chunk\":\"YQ==\"}",
     "!-32600 file write range exceeds the signed 64-bit file offset limit"},
    {"writeBlock, half a text", BLY_FS_WRITE_BLOCK,
     "{\"handleId\":\"h\",\"offset\":0,\"chunk\":\"@@\"}",
     "!-32602 invalid base64: Invalid symbol 64, offset 0."},
    {"writeBlock, a single sign", BLY_FS_WRITE_BLOCK,
     "{\"handleId\":\"h\",\"offset\":0,\"chunk\":\"=\"}", "!-32602 invalid base64: *"},
    {"writeBlock, no padding", BLY_FS_WRITE_BLOCK,
     "{\"handleId\":\"h\",\"offset\":0,\"chunk\":\"YQ\"}",
     "!-32602 invalid base64: Invalid padding"},
};

static size_t describe(const struct bly_fs_params *p, char *out, size_t size)
{
    const struct bly_fs_request *q = &p->request;
    size_t n = 0;

#define SAY(condition, ...) \
    if (condition)          \
    n += (size_t)snprintf(out + n, size - n, __VA_ARGS__)
    SAY(q->path, " path=%s", q->path);
    SAY(q->destination_path, " to=%s", q->destination_path);
    SAY(p->handle_id, " handle=%s", p->handle_id);
    SAY(q->recursive, " recursive");
    SAY(q->force, " force");
    SAY(q->no_follow, " no-follow");
    SAY(q->replace, " replace");
    SAY(q->offset, " offset=%llu", (unsigned long long)q->offset);
    SAY(q->len, " len=%zu", q->len);
    SAY(q->base64, " base64=%.*s", (int)q->base64_len, q->base64);
    SAY(q->walk.max_depth, " depth=%d", (int)q->walk.max_depth);
    SAY(q->walk.max_directories, " dirs=%d", (int)q->walk.max_directories);
    SAY(q->walk.max_entries, " entries=%d", (int)q->walk.max_entries);
    SAY(q->walk.follow_directory_symlinks, " follow-dirs");
    SAY(q->walk.prune_hidden_directories, " prune");
    SAY(p->policy, " policy");
#undef SAY
    return n;
}

static void check_decode(void **state)
{
    const struct decode_case *c = *state;
    struct test_doc d = test_doc_of(c->json);
    struct bly_fs_params p;
    struct bly_err err;
    int r = bly_proto_decode_fs(c->op, d.root, &test_env, &p, &err);

    if (c->want[0] == '!') {
        assert_refused(c->want, r, &err);
    } else {
        char got[512] = " ";

        if (r < 0)
            fail_msg("refused: %s", err.text);
        describe(&p, got, sizeof(got));
        assert_string_equal(got + 1, c->want);
        assert_int_equal(p.request.op, c->op);
    }
    assert_int_equal(p.request.fd, -EBADF);
    bly_fs_params_deinit(&p);
    test_doc_deinit(&d);
}

#define PROFILE                                                                                    \
    "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\",\"entries\":" \
    "[{\"path\":{\"type\":\"path\",\"path\":\"file:///w\"},\"access\":\"write\"}]},"               \
    "\"network\":\"restricted\"},\"windowsSandboxLevel\":\"disabled\"}"

static void sandboxes_become_policies(void **state)
{
    static const struct {
        const char *json;
        bool policy;
    } rows[] = {
        {"{\"path\":\"/w/a\"}", false},
        {"{\"path\":\"/w/a\",\"sandbox\":null}", false},
        {"{\"path\":\"/w/a\",\"sandbox\":" PROFILE "}", true},
        {"{\"path\":\"/w/a\",\"sandbox\":{\"sandboxPolicy\":{\"type\":\"read-only\"},"
         "\"windowsSandboxLevel\":\"disabled\"}}",
         true},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct test_doc d = test_doc_of(rows[i].json);
        struct bly_fs_params p;
        struct bly_err err;

        if (bly_proto_decode_fs(BLY_FS_READ_FILE, d.root, &test_env, &p, &err) < 0)
            fail_msg("refused: %s", err.text);
        assert_int_equal(p.policy != NULL, rows[i].policy);
        bly_fs_params_deinit(&p);
        test_doc_deinit(&d);
    }
}

static void sandboxes_that_make_no_sense_are_refused(void **state)
{
    static const struct {
        const char *sandbox, *want;
    } rows[] = {
        {"{}", "!-32602 missing field `permissions`"},
        {"{\"permissions\":{\"type\":\"disabled\"},\"sandboxPolicy\":{\"type\":\"read-only\"},"
         "\"windowsSandboxLevel\":\"disabled\"}",
         "!-32602 *"},
        {"{\"permissions\":{\"type\":\"bogus\"},\"windowsSandboxLevel\":\"disabled\"}",
         "!-32602 unknown variant `bogus`, expected one of `managed`, `disabled`, `external`"},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        char json[512];
        struct bly_fs_params p;
        struct bly_err err;
        struct test_doc d;

        snprintf(json, sizeof(json), "{\"path\":\"/w/a\",\"sandbox\":%s}", rows[i].sandbox);
        d = test_doc_of(json);
        assert_refused(rows[i].want,
                       bly_proto_decode_fs(BLY_FS_READ_FILE, d.root, &test_env, &p, &err), &err);
        assert_null(p.path);
        test_doc_deinit(&d);
    }
}

/* One request as 0.121 and as 0.169 send it. */
static void dialects_meet(void **state)
{
    static const struct {
        enum bly_fs_op op;
        const char *a, *b;
    } rows[] = {
        {BLY_FS_GET_METADATA, "{\"path\":\"/w/a b\",\"sandbox\":null}",
         "{\"path\":\"file:///w/a%20b\",\"followSymlinks\":null,\"sandbox\":null}"},
        {BLY_FS_REMOVE, "{\"path\":\"/w/d\",\"recursive\":false,\"force\":false}",
         "{\"path\":\"FILE:/w/./d\",\"recursive\":false,\"force\":false,\"followSymlinks\":true}"},
        {BLY_FS_COPY, "{\"sourcePath\":\"/a\",\"destinationPath\":\"/b\",\"recursive\":true}",
         "{\"sourcePath\":\"file:///a\",\"destinationPath\":\"file://localhost/b\","
         "\"recursive\":true}"},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct test_doc a = test_doc_of(rows[i].a), b = test_doc_of(rows[i].b);
        struct bly_fs_params pa, pb;
        char text_a[256] = "", text_b[256] = "";
        struct bly_err err;

        assert_int_equal(bly_proto_decode_fs(rows[i].op, a.root, &test_env, &pa, &err), 0);
        assert_int_equal(bly_proto_decode_fs(rows[i].op, b.root, &test_env, &pb, &err), 0);
        assert_true(describe(&pa, text_a, sizeof(text_a)) > 0);
        describe(&pb, text_b, sizeof(text_b));
        assert_string_equal(text_a, text_b);
        bly_fs_params_deinit(&pa);
        bly_fs_params_deinit(&pb);
        test_doc_deinit(&a);
        test_doc_deinit(&b);
    }
}

/* A writeBlock of `n` zero bytes. */
static int decode_write_block(size_t n, struct bly_err *err)
{
    bly_autobuf struct bly_buf json;
    struct bly_fs_params p;
    struct test_doc d;
    int r;

    bly_buf_init(&json, 1 << 22);
    bly_buf_add_str(&json, "{\"handleId\":\"h\",\"offset\":0,\"chunk\":\"");
    for (size_t i = 0; i < n / 3; i++)
        bly_buf_add_str(&json, "AAAA");
    bly_buf_add_str(&json, n % 3 == 2 ? "AAA=" : n % 3 == 1 ? "AA==" : "");
    bly_buf_add(&json, "\"}", 3);
    assert_int_equal(json.error, 0);

    d = test_doc_of((const char *)json.data);
    r = bly_proto_decode_fs(BLY_FS_WRITE_BLOCK, d.root, &test_env, &p, err);
    bly_fs_params_deinit(&p);
    test_doc_deinit(&d);
    return r;
}

static void write_blocks_are_measured_by_what_they_decode_to(void **state)
{
    struct bly_err err;

    (void)state;
    assert_int_equal(decode_write_block(1048576, &err), 0);
    assert_int_equal(decode_write_block(1048575, &err), 0);
    assert_refused("!-32600 file write block length must be between 1 and 1048576",
                   decode_write_block(1048577, &err), &err);
    assert_refused("!-32600 file write block length must be between 1 and 1048576",
                   decode_write_block(1048578, &err), &err);
}

static void close_takes_a_handle(void **state)
{
    struct test_doc fine = test_doc_of("{\"handleId\":\"h1\"}");
    struct test_doc too_long = test_doc_of("{\"handleId\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}");
    struct bly_fs_params p;
    struct bly_err err;

    (void)state;
    assert_int_equal(bly_proto_decode_close(fine.root, &p, &err), 0);
    assert_int_equal(p.handle_id_len, 2);
    assert_memory_equal(p.handle_id, "h1", 2);
    assert_refused("!-32600 file handle ID must not exceed 32 bytes",
                   bly_proto_decode_close(too_long.root, &p, &err), &err);
    test_doc_deinit(&fine);
    test_doc_deinit(&too_long);
}

/* ---- replies ---- */

static char text_mem[BLY_FS_TEXT_HEAD + 8 + BLY_FS_TEXT_TAIL];

static struct encode_case {
    const char *name;
    enum bly_fs_op op;
    struct bly_fs_reply reply;
    const char *want;
} encode_cases[] = {
    {"writeFile", BLY_FS_WRITE_FILE, .want = "{}"},
    {"createDirectory", BLY_FS_CREATE_DIRECTORY, .want = "{}"},
    {"remove", BLY_FS_REMOVE, .want = "{}"},
    {"copy", BLY_FS_COPY, .want = "{}"},
    {"writeBlock", BLY_FS_WRITE_BLOCK, .want = "{}"},
    {"getMetadata of a link to a file",
     BLY_FS_GET_METADATA,
     {.metadata =
          {.is_file = true, .is_symlink = true, .size = 5, .modified_at_ms = 1795469319998}},
     "{\"isDirectory\":false,\"isFile\":true,\"isSymlink\":true,\"size\":5,\"createdAtMs\":0,"
     "\"modifiedAtMs\":1795469319998}"},
    {"getMetadata of a directory from before 1970",
     BLY_FS_GET_METADATA,
     {.metadata = {.is_directory = true, .size = UINT64_MAX, .modified_at_ms = -1}},
     "{\"isDirectory\":true,\"isFile\":false,\"isSymlink\":false,\"size\":18446744073709551615,"
     "\"createdAtMs\":0,\"modifiedAtMs\":-1}"},
    {"canonicalize",
     BLY_FS_CANONICALIZE,
     {.path = (char[]){"/w/a \"\\\xff\n%"}},
     "{\"path\":\"file:///w/a%20%22%5C%FF%0A%25\"}"},
    {"open", BLY_FS_OPEN, .want = "{\"handleId\":\"h\\\"1\"}"},
    {"readFile",
     BLY_FS_READ_FILE,
     {.text_mem = text_mem, .text_len = 4},
     "{\"dataBase64\":\"YWJj\"}"},
    {"readBlock",
     BLY_FS_READ_BLOCK,
     {.text_mem = text_mem, .text_len = 8, .eof = true},
     "{\"chunk\":\"YWJjZGVm\",\"eof\":true}"},
};

static void check_encode(void **state)
{
    const struct encode_case *c = *state;
    struct bly_fs_params params = {.handle_id = "h\"1", .handle_id_len = 3};
    bly_autobuf struct bly_buf buf;

    memcpy(text_mem + BLY_FS_TEXT_HEAD, "YWJjZGVm", 8);
    bly_buf_init(&buf, 4096);
    assert_int_equal(bly_proto_encode_fs(c->op, &params, &c->reply, &buf), 0);
    assert_buf(&buf, c->want);
}

static void put_entry(struct bly_fs_reply *reply, uint8_t flags, const char *text,
                      const char *message)
{
    bly_buf_put_u8(&reply->entries, flags);
    bly_buf_put_str(&reply->entries, text);
    if (message)
        bly_buf_put_str(&reply->entries, message);
    reply->n_entries++;
}

static void directories_are_listed(void **state)
{
    struct bly_fs_params params = {0};
    struct bly_fs_reply reply = {0};
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 4096);
    bly_buf_init(&reply.entries, 4096);
    bly_proto_encode_fs(BLY_FS_READ_DIRECTORY, &params, &reply, &buf);
    assert_buf(&buf, "{\"entries\":[]}");

    buf.len = 0;
    put_entry(&reply, BLY_FS_ENTRY_FILE, "a\n\"\xff", NULL);
    put_entry(&reply, BLY_FS_ENTRY_DIRECTORY, ".git", NULL);
    put_entry(&reply, 0, "fifo", NULL);
    bly_proto_encode_fs(BLY_FS_READ_DIRECTORY, &params, &reply, &buf);
    assert_buf(&buf,
               "{\"entries\":["
               "{\"fileName\":\"a\\n\\\"\xef\xbf\xbd\",\"isDirectory\":false,\"isFile\":true},"
               "{\"fileName\":\".git\",\"isDirectory\":true,\"isFile\":false},"
               "{\"fileName\":\"fifo\",\"isDirectory\":false,\"isFile\":false}]}");
    bly_buf_deinit(&reply.entries);
}

static void walks_are_sorted_into_entries_and_errors(void **state)
{
    struct bly_fs_params params = {0};
    struct bly_fs_reply reply = {.truncated = true};
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 4096);
    bly_buf_init(&reply.entries, 4096);
    put_entry(&reply, BLY_FS_ENTRY_ERROR, "/w/x y", "Permission denied (os error 13)");
    put_entry(&reply, BLY_FS_ENTRY_DIRECTORY, "/w/d", NULL);
    put_entry(&reply, BLY_FS_ENTRY_FILE, "/w/f", NULL);
    put_entry(&reply, BLY_FS_ENTRY_ERROR, "/w/z", "I/O error (os error 5)");
    bly_proto_encode_fs(BLY_FS_WALK, &params, &reply, &buf);
    assert_buf(&buf, "{\"entries\":[{\"path\":\"file:///w/d\",\"kind\":\"directory\"},"
                     "{\"path\":\"file:///w/f\",\"kind\":\"file\"}],"
                     "\"errors\":[{\"path\":\"file:///w/x%20y\","
                     "\"message\":\"Permission denied (os error 13)\"},"
                     "{\"path\":\"file:///w/z\",\"message\":\"I/O error (os error 5)\"}],"
                     "\"truncated\":true}");
    bly_buf_deinit(&reply.entries);
}

/* A reply from a helper that was cut short or lies must not lead anywhere. */
static void malformed_entries_are_not_followed(void **state)
{
    static const enum bly_fs_op ops[] = {BLY_FS_READ_DIRECTORY, BLY_FS_WALK};
    struct bly_fs_params params = {0};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(ops); i++) {
        struct bly_fs_reply reply = {0};
        bly_autobuf struct bly_buf buf;

        bly_buf_init(&buf, 4096);
        bly_buf_init(&reply.entries, 64);
        bly_buf_put_u8(&reply.entries, BLY_FS_ENTRY_ERROR);
        bly_buf_put_u32(&reply.entries, 1000);
        reply.n_entries = 1 << 30;
        assert_int_equal(bly_proto_encode_fs(ops[i], &params, &reply, &buf), -EBADMSG);
        bly_buf_deinit(&reply.entries);
    }
}

static void heads_and_tails_make_whole_messages(void **state)
{
    static const struct {
        enum bly_fs_op op;
        bool eof;
        const char *want;
    } rows[] = {
        {BLY_FS_READ_FILE, false, "{\"id\":7,\"result\":{\"dataBase64\":\"TEXT\"}}"},
        {BLY_FS_READ_BLOCK, false, "{\"id\":7,\"result\":{\"chunk\":\"TEXT\",\"eof\":false}}"},
        {BLY_FS_READ_BLOCK, true, "{\"id\":7,\"result\":{\"chunk\":\"TEXT\",\"eof\":true}}"},
    };
    const struct bly_rpc_id id = {.type = BLY_RPC_ID_INT, .num = 7};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct bly_fs_reply reply = {.eof = rows[i].eof};
        bly_autobuf struct bly_buf buf;

        bly_buf_init(&buf, 1024);
        bly_proto_encode_text_head(rows[i].op, &id, &buf);
        bly_buf_add_str(&buf, "TEXT");
        bly_proto_encode_text_tail(rows[i].op, &reply, &buf);
        assert_buf(&buf, rows[i].want);
    }
}

static const struct CMUnitTest plain_tests[] = {
    cmocka_unit_test(sandboxes_become_policies),
    cmocka_unit_test(sandboxes_that_make_no_sense_are_refused),
    cmocka_unit_test(dialects_meet),
    cmocka_unit_test(write_blocks_are_measured_by_what_they_decode_to),
    cmocka_unit_test(close_takes_a_handle),
    cmocka_unit_test(directories_are_listed),
    cmocka_unit_test(walks_are_sorted_into_entries_and_errors),
    cmocka_unit_test(malformed_entries_are_not_followed),
    cmocka_unit_test(heads_and_tails_make_whole_messages),
};

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(decode_cases) + BLY_LEN(encode_cases) + BLY_LEN(plain_tests)] =
        {0};
    size_t n = 0;

    ADD_ROWS(tests, n, decode_cases, check_decode);
    ADD_ROWS(tests, n, encode_cases, check_encode);
    for (size_t i = 0; i < BLY_LEN(plain_tests); i++)
        tests[n++] = plain_tests[i];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
