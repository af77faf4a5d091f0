/*
 * What belongs to a capability root. The disk is a text: "PATH=CONTENTS" with '|' between them;
 * what lies below /r is in the listing, unless the path begins with '-', and contents that begin
 * with '!' are an errno.
 */
#include "proto/support.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "fs/fs.h"
#include "proto/discovery.h"
#include "support/rows.h"

enum { ANSWER_MAX = 64 << 20 };

#define SKILL(dir, text)  "{\"instructions\":" FILE_(dir "/SKILL.md", text) ",\"metadata\":null}"
#define FILE_(path, text) "{\"path\":\"file://" path "\",\"contents\":\"" text "\"}"

static struct discovery_case {
    const char *name, *disk;
    /* members of the answer; NULL: null, and empty lists */
    const char *plugin, *skills, *namespaces, *warnings;
    const char *root; /* NULL: /r */
} cases[] = {
    {"nothing", "/r/README=x"},

    {"a manifest of Codex", "/r/.codex-plugin/plugin.json=a",
     "{\"manifest\":" FILE_("/r/.codex-plugin/plugin.json", "a") ",\"mcpConfig\":null,"
                                                                 "\"appsConfig\":null}",
     NULL, FILE_("/r/.codex-plugin/plugin.json", "a")},
    {"one of Claude", "/r/.claude-plugin/plugin.json=a",
     "{\"manifest\":" FILE_("/r/.claude-plugin/plugin.json", "a") ",\"mcpConfig\":null,"
                                                                  "\"appsConfig\":null}",
     NULL, FILE_("/r/.claude-plugin/plugin.json", "a")},
    {"of two the first one counts",
     "/r/.cursor-plugin/plugin.json=c|/r/.claude-plugin/plugin.json=b",
     "{\"manifest\":" FILE_("/r/.claude-plugin/plugin.json", "b") ",\"mcpConfig\":null,"
                                                                  "\"appsConfig\":null}",
     NULL, FILE_("/r/.claude-plugin/plugin.json", "b")},
    {"one that cannot be read makes room for the next",
     "/r/.codex-plugin/plugin.json=!13|/r/.claude-plugin/plugin.json=b",
     "{\"manifest\":" FILE_("/r/.claude-plugin/plugin.json", "b") ",\"mcpConfig\":null,"
                                                                  "\"appsConfig\":null}",
     NULL, FILE_("/r/.claude-plugin/plugin.json", "b"),
     "\"failed to read capability file file:///r/.codex-plugin/plugin.json: Permission denied (os "
     "error 13)\""},
    {"and so does one that is not UTF-8",
     "/r/.codex-plugin/plugin.json=ab\xe2\x82z|/r/.claude-plugin/plugin.json=\xf0\x9f\x92|"
     "/r/.cursor-plugin/plugin.json=\xff",
     NULL, NULL, NULL,
     "\"capability file file:///r/.codex-plugin/plugin.json is not UTF-8: invalid utf-8 sequence "
     "of 2 bytes from index 2\","
     "\"capability file file:///r/.claude-plugin/plugin.json is not UTF-8: incomplete utf-8 byte "
     "sequence from index 0\","
     "\"capability file file:///r/.cursor-plugin/plugin.json is not UTF-8: invalid utf-8 sequence "
     "of 1 bytes from index 0\""},

    {"a skill", "/r/s/a/SKILL.md=x", NULL, SKILL("/r/s/a", "x")},
    {"a skill in the root itself", "/r/SKILL.md=x", NULL, SKILL("/r", "x")},
    {"a skill without words", "/r/a/SKILL.md=", NULL, SKILL("/r/a", "")},
    {"with metadata, listed or not", "/r/a/SKILL.md=x|-/r/a/agents/openai.yaml=m", NULL,
     "{\"instructions\":" FILE_("/r/a/SKILL.md",
                                "x") ",\"metadata\":" FILE_("/r/a/agents/openai.yaml", "m") "}"},
    {"metadata that cannot be read", "/r/a/SKILL.md=x|/r/a/agents/openai.yaml=!20", NULL,
     SKILL("/r/a", "x"), NULL,
     "\"failed to read capability file file:///r/a/agents/openai.yaml: Not a directory (os error "
     "20)\""},
    {"a skill that cannot be read is left out, the next one is not",
     "/r/a/SKILL.md=!13|/r/b/SKILL.md=y", NULL, SKILL("/r/b", "y"), NULL,
     "\"failed to read capability file file:///r/a/SKILL.md: Permission denied (os error 13)\""},
    {"a skill that is gone by now is no news", "/r/a/SKILL.md=!2|/r/b/SKILL.md=y", NULL,
     SKILL("/r/b", "y")},
    {"in the order of their URIs",
     "/r/b/SKILL.md=1|/r/a{/SKILL.md=2|/r/aa/SKILL.md=3|/r/B/SKILL.md=4", NULL,
     SKILL("/r/B", "4") "," SKILL("/r/a%7B", "2") "," SKILL("/r/aa", "3") "," SKILL("/r/b", "1")},
    {"names that only look like it", "/r/a/skill.md=x|/r/b/SKILL.md.bak=x|/r/c/XSKILL.md=x"},

    {"the nearest manifest above",
     "/r/q/SKILL.md=x|-/r/.claude-plugin/plugin.json=n|"
     "-/.codex-plugin/plugin.json=far",
     NULL, SKILL("/r/q", "x"), FILE_("/r/.claude-plugin/plugin.json", "n"), NULL, "/r/q"},
    {"one at the very top", "-/.cursor-plugin/plugin.json=top", NULL, NULL,
     FILE_("/.cursor-plugin/plugin.json", "top")},
    {"none above when there is one of its own",
     "/r/.cursor-plugin/plugin.json=own|-/.codex-plugin/plugin.json=top",
     "{\"manifest\":" FILE_("/r/.cursor-plugin/plugin.json", "own") ",\"mcpConfig\":null,"
                                                                    "\"appsConfig\":null}",
     NULL, FILE_("/r/.cursor-plugin/plugin.json", "own")},
    {"those below, in the order of their directories",
     "/r/p/.codex-plugin/plugin.json=1|/r/p/.codex-plugin/x/.claude-plugin/plugin.json=2|"
     "/r/a/.cursor-plugin/plugin.json=3|/r/p/d/.codex-plugin/plugin.json=4",
     NULL, NULL,
     FILE_("/r/a/.cursor-plugin/plugin.json",
           "3") "," FILE_("/r/p/.codex-plugin/plugin.json",
                          "1") "," FILE_("/r/p/.codex-plugin/x/.claude-plugin/plugin.json",
                                         "2") "," FILE_("/r/p/d/.codex-plugin/plugin.json", "4")},
    {"one of a directory below",
     "/r/p/.claude-plugin/plugin.json=l|/r/p/.codex-plugin/plugin.json=o|"
     "/r/p/.cursor-plugin/plugin.json=u",
     NULL, NULL, FILE_("/r/p/.codex-plugin/plugin.json", "o")},
    {"one below that cannot be read has no stand-in",
     "/r/p/.claude-plugin/plugin.json=l|/r/p/.codex-plugin/plugin.json=!13", NULL, NULL, NULL,
     "\"failed to read capability file file:///r/p/.codex-plugin/plugin.json: Permission denied "
     "(os error 13)\""},
    {"a root that is the root", "-/.codex-plugin/plugin.json=top|/r/SKILL.md=x",
     "{\"manifest\":" FILE_("/.codex-plugin/plugin.json", "top") ",\"mcpConfig\":null,"
                                                                 "\"appsConfig\":null}",
     SKILL("/r", "x"), FILE_("/.codex-plugin/plugin.json", "top"), NULL, "/"},
};

/* ---- a disk --------------------------------------------------------------------------------- */

/* The contents of `path`, NULL when there is no such file. */
static const char *find(const char *disk, const char *path, size_t *ret_len)
{
    size_t n = strlen(path);

    for (const char *p = disk; p && *p; p = strchr(p, '|')) {
        p += *p == '|';
        p += *p == '-';
        if (strncmp(p, path, n) == 0 && p[n] == '=') {
            *ret_len = strcspn(p + n + 1, "|");
            return p + n + 1;
        }
    }
    return NULL;
}

static void list(const char *disk, struct bly_fs_reply *reply)
{
    for (const char *p = disk; p && *p; p = strchr(p, '|')) {
        bly_autofree char *path = NULL;

        p += *p == '|';
        if (*p == '-')
            continue;
        path = strndup(p, strcspn(p, "="));
        bly_buf_put_u8(&reply->entries, BLY_FS_ENTRY_FILE);
        bly_buf_put_str(&reply->entries, path);
        reply->n_entries++;
    }
}

static void tell(struct bly_discovery *discovery, const char *text, size_t len)
{
    struct bly_err err;

    if (text && *text != '!') {
        bly_discovery_read(discovery, text, len);
        return;
    }
    (void)bly_fail_sys(&err, text ? atoi(text + 1) : ENOENT, "cannot read");
    bly_discovery_not_read(discovery, &err);
}

static struct bly_discovery *discover(const char *root, const char *disk)
{
    struct bly_discovery *discovery = NULL;
    struct bly_fs_reply reply;
    const char *path;
    size_t len = 0;

    assert_int_equal(bly_discovery_new(root, &discovery), 0);
    bly_fs_reply_init(&reply);
    list(disk, &reply);
    bly_discovery_listed(discovery, &reply);
    bly_fs_reply_deinit(&reply);
    while ((path = bly_discovery_next(discovery))) {
        const char *text = find(disk, path, &len);

        tell(discovery, text, len);
    }
    return discovery;
}

static void check_answer(const struct bly_discovery *discovery, const char *want)
{
    struct bly_buf buf;
    size_t values = 0;

    bly_buf_init(&buf, ANSWER_MAX);
    assert_int_equal(bly_discovery_add(discovery, "i", 1, &values, &buf), 0);
    assert_buf(&buf, want);
    assert_true(values >= 8);
    bly_buf_deinit(&buf);
}

static void check_case(void **state)
{
    const struct discovery_case *c = *state;
    const char *root = c->root ? c->root : "/r";
    struct bly_discovery *discovery = discover(root, c->disk);
    char want[4096];

    (void)snprintf(want, sizeof(want),
                   "{\"id\":\"i\",\"path\":\"file://%s\",\"plugin\":%s,\"skills\":[%s],"
                   "\"namespaceManifests\":[%s],\"warnings\":[%s],\"error\":null}",
                   root, c->plugin ? c->plugin : "null", c->skills ? c->skills : "",
                   c->namespaces ? c->namespaces : "", c->warnings ? c->warnings : "");
    check_answer(discovery, want);
    bly_discovery_free(discovery);
}

/* ---- which files a manifest names ----------------------------------------------------------- */

static const struct {
    const char *manifest, *mcp, *apps; /* the files asked for; NULL: none */
    const char *fault;                 /* of the warnings */
} names[] = {
    {"{}", "/r/.mcp.json", "/r/.app.json", NULL},
    {"no json", "/r/.mcp.json", "/r/.app.json", NULL},
    {"[]", "/r/.mcp.json", "/r/.app.json", NULL},
    {"{\"mcpServers\":\"./a\",\"mcpServers\":\"./b\"}", "/r/.mcp.json", "/r/.app.json", NULL},
    {"{\"mcpServers\":\"./m\",\"apps\":\"./x//y\"}", "/r/m", "/r/x/y", NULL},
    {"{\"mcpServers\":\"./a/./m\",\"apps\":\"./%41\"}", "/r/a/m", "/r/%41", NULL},
    {"{\"mcpServers\":\"./..m\",\"apps\":\"./a..\"}", "/r/..m", "/r/a..", NULL},
    {"{\"mcpServers\":{\"a\":1},\"apps\":{\"a\":1}}", NULL, "/r/.app.json", NULL},
    {"{\"mcpServers\":[\"./a\"],\"apps\":5}", "/r/.mcp.json", "/r/.app.json", NULL},
    {"{\"mcpServers\":null,\"apps\":true}", "/r/.mcp.json", "/r/.app.json", NULL},
    {"{\"mcpServers\":\"m\"}", "/r/.mcp.json", "/r/.app.json", "start with `./`"},
    {"{\"mcpServers\":\"\"}", "/r/.mcp.json", "/r/.app.json", "start with `./`"},
    {"{\"mcpServers\":\"/etc/shadow\"}", "/r/.mcp.json", "/r/.app.json", "start with `./`"},
    {"{\"mcpServers\":\"../m\"}", "/r/.mcp.json", "/r/.app.json", "start with `./`"},
    {"{\"apps\":\"./../m\"}", "/r/.mcp.json", "/r/.app.json", "remain below"},
    {"{\"apps\":\"./a/../m\"}", "/r/.mcp.json", "/r/.app.json", "remain below"},
    {"{\"apps\":\"./a/..\"}", "/r/.mcp.json", "/r/.app.json", "remain below"},
    {"{\"apps\":\"./\"}", "/r/.mcp.json", "/r/.app.json", "remain below"},
    {"{\"apps\":\"././\"}", "/r/.mcp.json", "/r/.app.json", "remain below"},
    {"{\"apps\":\"./a\\u0000/../../b\"}", "/r/.mcp.json", "/r/.app.json", "remain below"},
};

static bool is_asked_for(struct bly_discovery *discovery, const char *path, const char **next)
{
    if (!path || !*next || strcmp(*next, path) != 0)
        return false;
    bly_discovery_read(discovery, "c", 1);
    *next = bly_discovery_next(discovery);
    return true;
}

static void manifests_name_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < BLY_LEN(names); i++) {
        struct bly_discovery *discovery = NULL;
        struct bly_buf buf;
        const char *next;
        size_t values = 0;

        assert_int_equal(bly_discovery_new("/r", &discovery), 0);
        next = bly_discovery_next(discovery);
        assert_string_equal(next, "/r/.codex-plugin/plugin.json");
        bly_discovery_read(discovery, names[i].manifest, strlen(names[i].manifest));
        next = bly_discovery_next(discovery);
        if (is_asked_for(discovery, names[i].mcp, &next) != (names[i].mcp != NULL) ||
            !is_asked_for(discovery, names[i].apps, &next) || next)
            fail_msg("%s: asks for %s", names[i].manifest, next ? next : "nothing");

        bly_buf_init(&buf, ANSWER_MAX);
        assert_int_equal(bly_discovery_add(discovery, "i", 1, &values, &buf), 0);
        bly_buf_add_char(&buf, '\0');
        if (!strstr((char *)buf.data,
                    names[i].fault ? names[i].fault : "\"warnings\":[],\"error\":null}"))
            fail_msg("%s: %s", names[i].manifest, (char *)buf.data);
        bly_buf_deinit(&buf);
        bly_discovery_free(discovery);
    }
}

/* ---- bounds and the listing's own news ------------------------------------------------------ */

static void files_and_roots_have_a_limit(void **state)
{
    struct bly_discovery *discovery = NULL;
    bly_autofree char *text = malloc(BLY_DISCOVERY_FILE_MAX + 1);
    struct bly_fs_reply reply;
    struct bly_buf buf;
    size_t values = 0, read = 0;
    char path[32];

    (void)state;
    memset(text, 'x', BLY_DISCOVERY_FILE_MAX + 1);
    assert_int_equal(bly_discovery_new("/r", &discovery), 0);
    bly_fs_reply_init(&reply);
    for (; reply.n_entries < 18; reply.n_entries++) {
        (void)snprintf(path, sizeof(path), "/r/%02zu/SKILL.md", reply.n_entries);
        bly_buf_put_u8(&reply.entries, BLY_FS_ENTRY_FILE);
        bly_buf_put_str(&reply.entries, path);
    }
    bly_discovery_listed(discovery, &reply);
    bly_fs_reply_deinit(&reply);
    for (const char *next; (next = bly_discovery_next(discovery));) {
        if (!strstr(next, "/r/") || !strstr(next, "SKILL.md")) {
            tell(discovery, NULL, 0);
            continue;
        }
        assert_int_equal(bly_discovery_room(discovery),
                         read < 16 ? (size_t)BLY_DISCOVERY_FILE_MAX : 0);
        /* The first is too large for a file, the last one for the root. */
        bly_discovery_read(discovery, text,
                           BLY_DISCOVERY_FILE_MAX + (strstr(next, "/00/") != NULL));
        read += strstr(next, "/00/") == NULL;
    }
    assert_int_equal(read, 17);
    bly_buf_init(&buf, ANSWER_MAX);
    assert_int_equal(bly_discovery_add(discovery, "i", 1, &values, &buf), 0);
    bly_buf_add_char(&buf, '\0');
    assert_non_null(strstr((char *)buf.data,
                           "\"warnings\":[\"capability file file:///r/00/SKILL.md exceeds the "
                           "1048576-byte limit\",\"capability root bundle exceeds the "
                           "16777216-byte limit\"],"));
    assert_true(buf.len > BLY_DISCOVERY_ROOT_MAX);
    assert_int_equal(values, 8 + 16 * 5 + 2);
    bly_buf_deinit(&buf);
    bly_discovery_free(discovery);
}

/* A helper writes it: nothing in it leads anywhere else. */
static void the_listing_is_not_believed(void **state)
{
    static const char *const paths[] = {"/etc/SKILL.md", "SKILL.md",       "/r/../SKILL.md",
                                        "/r//SKILL.md",  "/rr/SKILL.md",   "",
                                        "/r/",           "/r/./a/SKILL.md"};
    struct bly_discovery *discovery = NULL;
    struct bly_fs_reply reply;

    (void)state;
    assert_int_equal(bly_discovery_new("/r", &discovery), 0);
    bly_fs_reply_init(&reply);
    for (; reply.n_entries < BLY_LEN(paths); reply.n_entries++) {
        bly_buf_put_u8(&reply.entries, BLY_FS_ENTRY_FILE);
        bly_buf_put_str(&reply.entries, paths[reply.n_entries]);
    }
    bly_discovery_listed(discovery, &reply);
    bly_fs_reply_deinit(&reply);
    for (const char *next; (next = bly_discovery_next(discovery));) {
        if (strstr(next, "SKILL.md"))
            fail_msg("asks for %s", next);
        tell(discovery, NULL, 0);
    }
    bly_discovery_free(discovery);
}

static void the_listing_tells_what_it_left_out(void **state)
{
    struct bly_discovery *discovery = NULL;
    struct bly_fs_reply reply;

    (void)state;
    assert_int_equal(bly_discovery_new("/r", &discovery), 0);
    bly_fs_reply_init(&reply);
    bly_buf_put_u8(&reply.entries, BLY_FS_ENTRY_ERROR);
    bly_buf_put_str(&reply.entries, "/r/secret");
    bly_buf_put_str(&reply.entries, "Permission denied (os error 13)");
    reply.n_entries = 2; /* one more than there are: a helper must not be believed */
    reply.truncated = true;
    bly_discovery_listed(discovery, &reply);
    bly_fs_reply_deinit(&reply);
    while (bly_discovery_next(discovery))
        tell(discovery, NULL, 0);
    check_answer(discovery,
                 "{\"id\":\"i\",\"path\":\"file:///r\",\"plugin\":null,\"skills\":[],"
                 "\"namespaceManifests\":[],\"warnings\":[\"failed to scan capability path "
                 "file:///r/secret: Permission denied (os error 13)\",\"capability scan reached "
                 "its traversal limit (root: file:///r)\"],\"error\":null}");
    bly_discovery_free(discovery);
}

static void a_root_that_cannot_be_listed_still_has_its_manifest(void **state)
{
    struct bly_discovery *discovery = NULL;
    struct bly_err err;

    (void)state;
    assert_int_equal(bly_discovery_new("/r", &discovery), 0);
    (void)bly_fail_sys(&err, EACCES, "cannot list");
    bly_discovery_not_listed(discovery, &err);
    assert_string_equal(bly_discovery_next(discovery), "/r/.codex-plugin/plugin.json");
    bly_discovery_free(discovery);
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(cases) + 5] = {0};
    const struct CMUnitTest more[] = {
        cmocka_unit_test(manifests_name_files),
        cmocka_unit_test(files_and_roots_have_a_limit),
        cmocka_unit_test(the_listing_is_not_believed),
        cmocka_unit_test(the_listing_tells_what_it_left_out),
        cmocka_unit_test(a_root_that_cannot_be_listed_still_has_its_manifest),
    };

    ROWS_AS_TESTS(tests, cases, check_case);
    memcpy(tests + BLY_LEN(cases), more, sizeof(more));
    return cmocka_run_group_tests_name("proto-discovery", tests, NULL, NULL);
}
