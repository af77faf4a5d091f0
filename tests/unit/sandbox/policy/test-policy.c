#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Decoding: what both languages compile into, and what they refuse with which words. */

#define GIT_SKIP                                                                         \
    "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"project_roots\",\"subpath\":" \
    "\".git\"}},\"access\":\"read\",\"missing_path_behavior\":\"skip\"}"

static const struct print_case {
    const char *name;
    const char *policy;
    const char *text;
} print_cases[] = {
    {"disabled: no wall, network",
     "{\"permissions\":{\"type\":\"disabled\"},"
     "\"windowsSandboxLevel\":\"disabled\"}",
     "no wall\nnetwork\n"},
    {"external: nothing of ours, not even the network",
     "{\"permissions\":{\"type\":\"external\",\"network\":\"restricted\"},"
     "\"windowsSandboxLevel\":\"mxc\"}",
     "no wall\nnetwork\n"},
    {"unrestricted files with a restricted network",
     "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"unrestricted\"},"
     "\"network\":\"restricted\"},\"windowsSandboxLevel\":\"elevated\"}",
     "no wall\n"},
    {"the root writable and nothing narrower needs no wall",
     PROFILE_WITH(SPECIAL("root", "write") "," AT("/w", "write"), "", "enabled", ""),
     "no wall\nnetwork\n"},
    {"network and minimal", PROFILE_WITH(SPECIAL("minimal", "read"), "", "enabled", ""),
     "network\nminimal\n"},
    {"0.169, read-only", PROFILE(SPECIAL("root", "read")), "ro /\ncwd /w\n"},
    {"0.169, workspace-write",
     PROFILE(SPECIAL("root", "read") "," SPECIAL("project_roots", "write") "," SPECIAL(
         "slash_tmp", "write") "," SPECIAL("tmpdir", "write") "," GIT_SKIP),
     "ro /\n"
     "rw /tmp directory\nrw /w\n"
     "ro /tmp/.agents implied\nro /tmp/.aws implied\nro /tmp/.codex implied\n"
     "ro /tmp/.git implied\n"
     "ro /w/.agents implied\nro /w/.aws implied\nro /w/.codex implied\nro /w/.git implied\n"
     "rw /var/tmp/t\n"
     "ro /var/tmp/t/.agents implied\nro /var/tmp/t/.aws implied\nro /var/tmp/t/.codex implied\n"
     "ro /var/tmp/t/.git implied\n"
     "cwd /w\n"},
    {"0.169, a profile with everything",
     PROFILE_WITH(
         AT("file:///w/other", "read") "," AT("file:///w/project/secret", "deny") "," SPECIAL(
             "minimal", "read") "," GLOB("codex-project-roots://**/*.env",
                                         "deny") "," SPECIAL("project_roots",
                                                             "write") "," BELOW_ROOTS("docs",
                                                                                      "read"),
         ",\"glob_scan_max_depth\":3", "enabled",
         "\"cwd\":\"file:///w/project\",\"workspaceRoots\":[\"file:///w/project\","
         "\"file:///w/two\"],\"policyContext\":{\"cwd\":7},\"userHomeDir\":null,"
         "\"temporaryDirectories\":[],\"useLegacyLandlock\":false,"
         "\"windowsSandboxProxySettingsMode\":\"reconcile\","),
     "network\nminimal\n"
     "ro /w/other\nrw /w/project\nrw /w/two\n"
     "ro /w/project/.agents implied\nro /w/project/.aws implied\n"
     "ro /w/project/.codex implied\nro /w/project/.git implied\n"
     "ro /w/project/docs\ndeny /w/project/secret\n"
     "ro /w/two/.agents implied\nro /w/two/.aws implied\nro /w/two/.codex implied\n"
     "ro /w/two/.git implied\nro /w/two/docs\n"
     "glob /w/project/**/*.env\nglob /w/two/**/*.env\ndepth 3\ncwd /w/project\n"},
    {"a depth without a glob says nothing",
     PROFILE_WITH(SPECIAL("root", "read"), ",\"glob_scan_max_depth\":3", "restricted", ""),
     "ro /\n"},
    {"a deny of slash_tmp holds whatever /tmp is",
     PROFILE_WITH(SPECIAL("slash_tmp", "deny"), "", "restricted", ""), "deny /tmp\n"},
    {"0.121, read-only", LEGACY("{\"type\":\"read-only\"}"), "ro /\ncwd /srv\n"},
    {"0.121, workspace-write",
     LEGACY_WITH("{\"type\":\"workspace-write\",\"writable_roots\":[\"/m\"],\"network_access\":"
                 "false,\"exclude_tmpdir_env_var\":true,\"exclude_slash_tmp\":false}",
                 ",\"windowsSandboxPrivateDesktop\":true,\"useLegacyLandlock\":false,"
                 "\"additionalPermissions\":null"),
     "ro /\nrw /m\nrw /srv\nrw /tmp directory\n"
     "ro /m/.agents implied\nro /m/.aws implied\nro /m/.codex implied\nro /m/.git implied\n"
     "ro /srv/.agents implied\nro /srv/.aws implied\nro /srv/.codex implied\n"
     "ro /srv/.git implied\n"
     "ro /tmp/.agents implied\nro /tmp/.aws implied\nro /tmp/.codex implied\n"
     "ro /tmp/.git implied\n"
     "cwd /srv\n"},
    {"0.121, restricted reading",
     LEGACY("{\"type\":\"read-only\",\"access\":{\"type\":"
            "\"restricted\",\"readable_roots\":[\"/r\"]}}"),
     "minimal\nro /r\nro /srv\ncwd /srv\n"},
    {"0.121, restricted reading without the platform",
     LEGACY("{\"type\":\"read-only\",\"network_access\":true,\"access\":{\"type\":\"restricted\","
            "\"include_platform_defaults\":false}}"),
     "network\nro /srv\ncwd /srv\n"},
    {"0.121, what its own older form could not say",
     LEGACY("{\"type\":\"workspace-write\",\"network_access\":true" NO_TMP "}"),
     "network\nro /\nrw /srv\nro /srv/.agents implied\nro /srv/.aws implied\n"
     "ro /srv/.codex implied\nro /srv/.git implied\ncwd /srv\n"},
    {"members in another spelling grant nothing",
     LEGACY("{\"type\":\"workspace-write\",\"writableRoots\":[\"/w\"],\"networkAccess\":true" NO_TMP
            "}"),
     "ro /\nrw /srv\nro /srv/.agents implied\nro /srv/.aws implied\nro /srv/.codex implied\n"
     "ro /srv/.git implied\ncwd /srv\n"},
    {"additional permissions: read and write, no network",
     LEGACY_WITH("{\"type\":\"read-only\",\"access\":{\"type\":\"restricted\","
                 "\"include_platform_defaults\":false}}",
                 ",\"additionalPermissions\":{\"network\":{\"enabled\":true},\"file_system\":"
                 "{\"read\":[\"/r\",\"/x/y\"],\"write\":[\"/x\"]}}"),
     "ro /r\nro /srv\nrw /x\nro /x/.agents implied\nro /x/.aws implied\nro /x/.codex implied\n"
     "ro /x/.git implied\ncwd /srv\n"},
    {"additional permissions in parts",
     LEGACY_WITH("{\"type\":\"read-only\"}",
                 ",\"additionalPermissions\":{\"network\":null,\"file_system\":{\"read\":null}}"),
     "ro /\ncwd /srv\n"},
    {"danger with additional permissions stays without a wall",
     LEGACY_WITH("{\"type\":\"danger-full-access\"}",
                 ",\"additionalPermissions\":{\"file_system\":{\"read\":[\"/r\"]}}"),
     "no wall\nnetwork\ncwd /srv\n"},
    {"external-sandbox",
     LEGACY("{\"type\":\"external-sandbox\",\"network_access\":\"restricted\"}"),
     "no wall\nnetwork\ncwd /srv\n"},
    {"a URI in the legacy language",
     LEGACY("{\"type\":\"read-only\",\"access\":{\"type\":\"restricted\",\"readable_roots\":"
            "[\"file:///r%20s/\"],\"include_platform_defaults\":false}}"),
     "ro /r s\nro /srv\ncwd /srv\n"},
    {"glob: no wildcard is a path", PROFILE_WITH(GLOB("/w/a b", "deny"), "", "restricted", ""),
     "deny /w/a b\n"},
    {"glob: a bracket that stays open is a letter",
     PROFILE_WITH(GLOB("/w/[a", "deny"), "", "restricted", ""), "deny /w/[a\n"},
    {"glob: escapes", PROFILE_WITH(GLOB("/w/\\\\*\\\\.x", "deny"), "", "restricted", ""),
     "deny /w/*.x\n"},
    {"glob: alternatives",
     PROFILE_WITH(GLOB("/w/{*.env,p{1,2}/k,x}", "deny"), "", "restricted", ""),
     "deny /w/x\ndeny /w/p1/k\ndeny /w/p2/k\nglob /w/*.env\n"},
    {"glob: normalised like a path",
     PROFILE_WITH(GLOB("/w/../v//./*.x/", "deny"), "", "restricted", ""), "glob /v/*.x\n"},
    {"glob: relative ones stand under cwd, whose letters mean themselves",
     PROFILE_WITH(GLOB("*.x", "deny"), "", "restricted", "\"cwd\":\"/w [1]/{a}\","),
     "glob /w \\[1\\]/\\{a\\}/*.x\ncwd /w [1]/{a}\n"},
    {"glob: twice the same",
     PROFILE_WITH(GLOB("/b*", "deny") "," GLOB("/a*", "deny") "," GLOB("/b*", "deny"), "",
                  "restricted", ""),
     "glob /a*\nglob /b*\n"},
    {"glob: empty roots, no pattern",
     PROFILE_WITH(GLOB("codex-project-roots://*.x", "deny"), "", "restricted", "\"cwd\":\"/w\","),
     "cwd /w\n"},
    {"rules of one depth are in the order of their bytes",
     PROFILE_WITH(AT("file:///%FF", "read") "," AT("/ab", "read") "," AT("/a", "read") "," AT(
                      "/a-", "read") "," AT("/z", "read"),
                  "", "restricted", ""),
     "ro /a\nro /a-\nro /ab\nro /z\nro /\xff\n"},
    {"a line break in a path does not make a line",
     PROFILE_WITH(AT("/a\\nrw /b", "read"), "", "restricted", ""), "ro /a\\x0arw /b\n"},
};

/* Written as JSON and read again it is the same policy, to the byte. */
static void check_way_back(const struct bly_policy *policy)
{
    struct bly_policy *again;
    struct bly_buf json, packed, packed_again;

    bly_buf_init(&json, 1 << 20);
    bly_buf_init(&packed, 1 << 20);
    bly_buf_init(&packed_again, 1 << 20);
    assert_int_equal(bly_policy_print_json(policy, &json), 0);
    bly_buf_add_char(&json, '\0');
    again = parse((const char *)json.data);
    assert_int_equal(bly_policy_pack(policy, &packed), 0);
    assert_int_equal(bly_policy_pack(again, &packed_again), 0);
    assert_int_equal(packed.len, packed_again.len);
    assert_memory_equal(packed.data, packed_again.data, packed.len);
    bly_policy_unref(again);
    bly_buf_deinit(&json);
    bly_buf_deinit(&packed);
    bly_buf_deinit(&packed_again);
}

static void check_print(void **state)
{
    const struct print_case *c = *state;
    struct bly_policy *policy = parse(c->policy);
    char *text = print(policy);

    assert_string_equal(text, c->text);
    free(text);
    check_way_back(policy);
    bly_policy_unref(policy);
}

#define PERMISSIONS(profile) "{\"permissions\":" profile ",\"windowsSandboxLevel\":\"disabled\"}"
#define MANAGED(fs) \
    PERMISSIONS("{\"type\":\"managed\",\"file_system\":" fs ",\"network\":\"enabled\"}")
#define ENTRIES(list) MANAGED("{\"type\":\"restricted\",\"entries\":[" list "]}")

static const struct error_case {
    const char *name;
    const char *policy;
    const char *text; /* NULL: any */
    enum bly_err_kind kind;
} error_cases[] = {
    {"false is no context", "false", "invalid type: boolean `false`, expected a sandbox context"},
    {"zero is no context", "0", NULL},
    {"an empty text is no context", "\"\"", NULL},
    {"a list is no context", "[]", NULL},
    {"a list of the members is no context", "[{\"type\":\"disabled\"},\"disabled\"]", NULL},
    {"null is no context here", "null", NULL},
    {"an empty context", "{}", "missing field `permissions`"},
    {"other letter case", "{\"Permissions\":{\"type\":\"disabled\"}}",
     "missing field `permissions`"},
    {"both languages",
     "{\"permissions\":{\"type\":\"disabled\"},\"sandboxPolicy\":{\"type\":"
     "\"read-only\"},\"windowsSandboxLevel\":\"disabled\"}",
     NULL},
    {"both languages, one of them null",
     "{\"permissions\":null,\"sandboxPolicy\":{\"type\":\"danger-full-access\"},"
     "\"windowsSandboxLevel\":\"disabled\"}",
     NULL},
    {"permissions null", PERMISSIONS("null"), "invalid type: null, expected a map"},
    {"permissions a list", PERMISSIONS("[\"disabled\"]"), "invalid type: sequence, expected a map"},
    {"a profile without type", PERMISSIONS("{}"), "missing field `type`"},
    {"a profile with a null type", PERMISSIONS("{\"type\":null}"),
     "invalid type: null, expected a string"},
    {"an unknown profile", PERMISSIONS("{\"type\":\"bogus\"}"),
     "unknown variant `bogus`, expected one of `managed`, `disabled`, `external`"},
    {"a profile type in capitals", PERMISSIONS("{\"type\":\"Disabled\"}"),
     "unknown variant `Disabled`, expected one of `managed`, `disabled`, `external`"},
    {"a profile type with a NUL", PERMISSIONS("{\"type\":\"disabled\\u0000\"}"), NULL},
    {"no file_system", PERMISSIONS("{\"type\":\"managed\",\"network\":\"restricted\"}"),
     "missing field `file_system`"},
    {"file_system null", MANAGED("null"), "invalid type: null, expected a map"},
    {"no network",
     PERMISSIONS("{\"type\":\"managed\",\"file_system\":{\"type\":\"unrestricted\"}}"),
     "missing field `network`"},
    {"no network in an external profile", PERMISSIONS("{\"type\":\"external\"}"),
     "missing field `network`"},
    {"a bool for network", PERMISSIONS("{\"type\":\"external\",\"network\":true}"),
     "invalid type: boolean `true`, expected a string"},
    {"an unknown network", PERMISSIONS("{\"type\":\"external\",\"network\":\"on\"}"),
     "unknown variant `on`, expected `restricted` or `enabled`"},
    {"no entries", MANAGED("{\"type\":\"restricted\"}"), "missing field `entries`"},
    {"entries null", MANAGED("{\"type\":\"restricted\",\"entries\":null}"),
     "invalid type: null, expected a sequence"},
    {"an entry as a list", ENTRIES("[\"/w\",\"read\"]"), "invalid type: sequence, expected a map"},
    {"an entry without path", ENTRIES("{\"access\":\"read\"}"), "missing field `path`"},
    {"an entry without access", ENTRIES("{\"path\":{\"type\":\"path\",\"path\":\"/w\"}}"),
     "missing field `access`"},
    {"a path as plain text", ENTRIES("{\"path\":\"/w\",\"access\":\"read\"}"),
     "invalid type: string \"/w\", expected a map"},
    {"an unknown access", ENTRIES(AT("/w", "rw")),
     "unknown variant `rw`, expected one of `read`, `write`, `deny`"},
    {"an unknown path type", ENTRIES(ENTRY("{\"type\":\"p\"}", "read")),
     "unknown variant `p`, expected one of `path`, `glob_pattern`, `special`"},
    {"a path entry without path", ENTRIES(ENTRY("{\"type\":\"path\"}", "read")),
     "missing field `path`"},
    {"a glob entry without pattern", ENTRIES(ENTRY("{\"type\":\"glob_pattern\"}", "deny")),
     "missing field `pattern`"},
    {"a special entry without value", ENTRIES(ENTRY("{\"type\":\"special\"}", "read")),
     "missing field `value`"},
    {"a special entry as text", ENTRIES(ENTRY("{\"type\":\"special\",\"value\":\"root\"}", "read")),
     "invalid type: string \"root\", expected a map"},
    {"an unknown kind", ENTRIES(SPECIAL("bogus", "read")),
     "unknown variant `bogus`, expected one of `root`, `minimal`, `project_roots`, `tmpdir`, "
     "`slash_tmp`, `unknown`"},
    {"an unknown missing_path_behavior",
     ENTRIES("{\"path\":{\"type\":\"path\",\"path\":\"/w\"},\"access\":\"read\","
             "\"missing_path_behavior\":\"create\"}"),
     "unknown variant `create`, expected `skip`"},
    {"a bool for missing_path_behavior",
     ENTRIES("{\"path\":{\"type\":\"path\",\"path\":\"/w\"},\"access\":\"read\","
             "\"missing_path_behavior\":true}"),
     NULL},
    {"depth zero", MANAGED("{\"type\":\"restricted\",\"entries\":[],\"glob_scan_max_depth\":0}"),
     "invalid value: integer 0, expected a nonzero usize"},
    {"depth with a fraction",
     MANAGED("{\"type\":\"restricted\",\"entries\":[],\"glob_scan_max_depth\":1.0}"), NULL},
    {"negative depth",
     MANAGED("{\"type\":\"restricted\",\"entries\":[],\"glob_scan_max_depth\":-1}"), NULL},
    {"no windowsSandboxLevel", "{\"permissions\":{\"type\":\"disabled\"}}",
     "missing field `windowsSandboxLevel`"},
    {"an unknown windowsSandboxLevel",
     "{\"permissions\":{\"type\":\"disabled\"},\"windowsSandboxLevel\":\"x\"}",
     "unknown variant `x`, expected one of `disabled`, `restricted-token`, `elevated`, `mxc`"},
    {"windowsSandboxLevel null",
     "{\"permissions\":{\"type\":\"disabled\"},\"windowsSandboxLevel\":null}", NULL},
    {"workspaceRoots null", PROFILE_WITH("", "", "enabled", "\"workspaceRoots\":null,"), NULL},
    {"workspaceRoots a text", PROFILE_WITH("", "", "enabled", "\"workspaceRoots\":\"/w\","), NULL},
    {"a bool that is none", PROFILE_WITH("", "", "enabled", "\"useLegacyLandlock\":\"yes\","),
     NULL},
    {"project roots without cwd",
     PROFILE_WITH(SPECIAL("project_roots", "read"), "", "enabled", "\"workspaceRoots\":[\"/w\"],"),
     "file system sandbox context with dynamic permissions requires cwd"},
    {"a relative glob without cwd", ENTRIES(GLOB("*.x", "deny")),
     "file system sandbox context with dynamic permissions requires cwd"},
    {"a glob below the roots without cwd",
     PROFILE_WITH(GLOB("codex-project-roots://*.x", "read"), "", "enabled", "\"cwd\":null,"),
     "file system sandbox context with dynamic permissions requires cwd"},
    {"a relative path", ENTRIES(AT("w", "read")), "invalid URI: relative URL without a base"},
    {"an empty path", ENTRIES(AT("", "read")), "invalid URI: relative URL without a base"},
    {"a path with a tilde", ENTRIES(AT("~/w", "read")), NULL},
    {"another scheme", ENTRIES(AT("http://h/w", "read")), "unsupported path URI scheme `http`"},
    {"a path that is a number", ENTRIES(ENTRY("{\"type\":\"path\",\"path\":5}", "read")),
     "invalid type: integer `5`, expected a string"},
    {"a drive letter", ENTRIES(AT("file:///C:/x", "read")),
     "invalid sandbox permission path URI: 'file:///C:/x' is invalid on 'linux'", BLY_ERR_INVALID},
    {"another host", ENTRIES(AT("file://h/x", "deny")),
     "invalid sandbox permission path URI: 'file://h/x' is invalid on 'linux'", BLY_ERR_INVALID},
    {"an encoded NUL", ENTRIES(AT("file:///w/%00", "read")),
     "invalid sandbox permission path URI: 'file:///w/%00' is invalid on 'linux'"},
    {"a NUL", ENTRIES(AT("/w\\u0000", "read")), NULL, BLY_ERR_INVALID},
    {"an encoded slash", ENTRIES(AT("file:///w%2Fx", "read")), NULL},
    {"an encoded slash, small", ENTRIES(AT("file:///w%2fx", "write")), NULL},
    {"an encoded slash, cut by a tab", ENTRIES(AT("file:///w%2\\tfx", "deny")), NULL},
    {"a workspace root of another system",
     PROFILE_WITH("", "", "enabled", "\"cwd\":\"/w\",\"workspaceRoots\":[\"file:///C:/w\"],"),
     "file system sandbox workspace root is not native to this exec-server host: file:///C:/w",
     BLY_ERR_INVALID},
    {"a cwd of another system", PROFILE_WITH("", "", "enabled", "\"cwd\":\"file:///C:/w\","),
     "invalid sandbox policy cwd: 'file:///C:/w' is invalid on 'linux'", BLY_ERR_INVALID},
    {"a relative cwd", PROFILE_WITH("", "", "enabled", "\"cwd\":\"w\","), NULL},
    {"a climbing subpath of a restriction", PROFILE(BELOW_ROOTS("../x", "deny")), NULL},
    {"a subpath with a NUL", PROFILE(BELOW_ROOTS("a\\u0000", "read")), NULL},
    {"glob: empty", PROFILE(GLOB("", "deny")), NULL},
    {"glob: a brace that stays open", PROFILE(GLOB("/w/{a,b", "deny")),
     "invalid glob pattern `/w/{a,b`"},
    {"glob: a brace that was never opened", PROFILE(GLOB("/w/a}", "deny")), NULL},
    {"glob: a range backwards", PROFILE(GLOB("/w/[z-a]", "deny")), NULL},
    {"glob: a lone backslash", PROFILE(GLOB("/w/a\\\\", "deny")), NULL},
    {"glob: climbing behind a wildcard", PROFILE(GLOB("/w/*/../x*", "deny")), NULL},
    {"glob: a URI", PROFILE(GLOB("file:///w/*.x", "deny")), NULL},
    {"glob: a NUL", PROFILE(GLOB("/w/*\\u0000", "deny")), NULL},
    {"glob: more alternatives than anybody needs",
     PROFILE(GLOB("/w/{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}*", "deny")), NULL},
    {"legacy: no policy", "{\"sandbox_policy\":{}}", NULL},
    {"legacy: policy null", LEGACY("null"), "invalid type: null, expected a map"},
    {"legacy: an unknown type", LEGACY("{\"type\":\"bogus\"}"),
     "unknown variant `bogus`, expected one of `danger-full-access`, `read-only`, "
     "`external-sandbox`, `workspace-write`"},
    {"legacy: a type in snake case", LEGACY("{\"type\":\"read_only\"}"), NULL},
    {"legacy: no level", "{\"sandboxPolicy\":{\"type\":\"read-only\"}}",
     "missing field `windowsSandboxLevel`"},
    {"legacy: a level of the other language",
     "{\"sandboxPolicy\":{\"type\":\"read-only\"},\"windowsSandboxLevel\":\"mxc\"}",
     "unknown variant `mxc`, expected one of `disabled`, `restricted-token`, `elevated`"},
    {"legacy: a relative root",
     LEGACY("{\"type\":\"workspace-write\",\"writable_roots\":[\"rel\"]}"),
     "AbsolutePathBuf deserialized without a base path"},
    {"legacy: an empty root", LEGACY("{\"type\":\"workspace-write\",\"writable_roots\":[\"\"]}"),
     "AbsolutePathBuf deserialized without a base path"},
    {"legacy: a tilde",
     LEGACY("{\"type\":\"read-only\",\"access\":{\"type\":\"restricted\",\"readable_roots\":"
            "[\"~\"]}}"),
     "AbsolutePathBuf deserialized without a base path"},
    {"legacy: roots null", LEGACY("{\"type\":\"workspace-write\",\"writable_roots\":null}"), NULL},
    {"legacy: access null", LEGACY("{\"type\":\"read-only\",\"access\":null}"), NULL},
    {"legacy: access without type", LEGACY("{\"type\":\"read-only\",\"access\":{}}"),
     "missing field `type`"},
    {"legacy: a bool for an external network",
     LEGACY("{\"type\":\"external-sandbox\",\"network_access\":true}"),
     "invalid type: boolean `true`, expected string or map"},
    {"legacy: a text for a bool", LEGACY("{\"type\":\"read-only\",\"network_access\":\"enabled\"}"),
     NULL},
    {"legacy: a bool that is null",
     LEGACY("{\"type\":\"workspace-write\",\"exclude_slash_tmp\":null}"), NULL},
    {"legacy: additional permissions as a list",
     LEGACY_WITH("{\"type\":\"read-only\"}", ",\"additionalPermissions\":[]"), NULL},
    {"legacy: an additional relative root",
     LEGACY_WITH("{\"type\":\"read-only\"}",
                 ",\"additionalPermissions\":{\"file_system\":{\"write\":[\"w\"]}}"),
     NULL},
    {"legacy: an additional network that is no object",
     LEGACY_WITH("{\"type\":\"read-only\"}", ",\"additionalPermissions\":{\"network\":true}"),
     NULL},
    {"duplicate keys",
     "{\"permissions\":{\"type\":\"managed\",\"type\":\"disabled\"},\"windowsSandboxLevel\":"
     "\"disabled\"}",
     "duplicate JSON object key `type`"},
    {"not JSON", "{\"permissions\":", NULL},
    {"nothing", "", NULL},
};

static void check_error(void **state)
{
    const struct error_case *c = *state;
    struct bly_policy *policy = NULL;
    struct bly_err err = {0};

    assert_int_equal(bly_policy_parse_text(c->policy, &test_env, &policy, &err), -EINVAL);
    assert_null(policy);
    assert_int_equal(err.kind, c->kind ? c->kind : BLY_ERR_PARAMS);
    assert_true(strlen(err.text) > 0);
    if (c->text)
        assert_string_equal(err.text, c->text);
    assert_int_equal(bly_policy_parse_text(c->policy, &test_env, &policy, NULL), -EINVAL);
}

/* Pairs that mean the same; the cwd is not compared, form A has none of its own. */
static void both_languages_give_the_same_policy(void **state)
{
    static const struct bly_policy_env env = {.cwd = "/w", .tmpdir = "/var/tmp/t"};
    static const char *const pairs[][2] = {
        {LEGACY("{\"type\":\"read-only\"}"), PROFILE(SPECIAL("root", "read"))},
        {LEGACY("{\"type\":\"workspace-write\",\"writable_roots\":[\"/m\"]}"),
         PROFILE(SPECIAL("root", "read") "," SPECIAL("project_roots", "write") "," SPECIAL(
             "slash_tmp", "write") "," SPECIAL("tmpdir", "write") "," AT("/m", "write"))},
        {LEGACY("{\"type\":\"workspace-write\",\"network_access\":true,\"read_only_access\":"
                "{\"type\":\"restricted\",\"readable_roots\":[\"/r\",\"/w/sub\"]}" NO_TMP "}"),
         PROFILE_WITH(
             SPECIAL("minimal", "read") "," SPECIAL("project_roots", "write") "," AT("/r", "read"),
             "", "enabled", WORKSPACE)},
        {LEGACY_WITH("{\"type\":\"read-only\"}",
                     ",\"additionalPermissions\":{\"file_system\":{\"write\":[\"/m\"]}}"),
         PROFILE(AT("/m", "write") "," SPECIAL("root", "read"))},
        {LEGACY("{\"type\":\"danger-full-access\"}"),
         "{\"permissions\":{\"type\":\"disabled\"},\"cwd\":\"/w\",\"windowsSandboxLevel\":"
         "\"disabled\"}"},
    };
    (void)state;

    for (size_t i = 0; i < BLY_LEN(pairs); i++) {
        struct bly_policy *a = parse_in(pairs[i][0], &env);
        struct bly_policy *b = parse_in(pairs[i][1], &env);
        char *text_a = print(a);
        char *text_b = print(b);

        assert_string_equal(text_a, text_b);
        free(text_a);
        free(text_b);
        bly_policy_unref(a);
        bly_policy_unref(b);
    }
}

/* In JSON words, and what cannot be said in them. */
static void a_policy_is_written_as_a_context(void **state)
{
    struct bly_policy *policy =
        parse(PROFILE(SPECIAL("slash_tmp", "write") "," AT("file:///%FF:", "deny")));
    struct bly_buf json;
    (void)state;

    bly_buf_init(&json, 1 << 16);
    assert_int_equal(bly_policy_print_json(policy, &json), 0);
    bly_buf_add_char(&json, '\0');
    assert_string_equal(
        (const char *)json.data,
        "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\","
        "\"entries\":[{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"slash_tmp\"}},"
        "\"access\":\"write\"},{\"path\":{\"type\":\"path\",\"path\":\"file:///%FF:\"},"
        "\"access\":\"deny\"}]},\"network\":\"restricted\"},\"cwd\":\"/w\","
        "\"windowsSandboxLevel\":\"disabled\"}");
    bly_policy_unref(policy);
    bly_buf_deinit(&json);

    policy = parse(PROFILE_WITH(GLOB("*.x", "deny"), "", "restricted", "\"cwd\":\"file:///%FF\","));
    bly_buf_init(&json, 1 << 16);
    assert_int_equal(bly_policy_print_json(policy, &json), -EILSEQ);
    bly_policy_unref(policy);
    bly_buf_deinit(&json);
}

static void a_server_started_in_the_root_has_no_wall(void **state)
{
    static const struct bly_policy_env env = {.cwd = "/"};
    struct bly_policy *policy = parse_in(LEGACY("{\"type\":\"workspace-write\"}"), &env);
    (void)state;

    assert_false(policy->wall);
    bly_policy_unref(policy);
}

static void a_server_without_a_directory_serves_what_needs_none(void **state)
{
    static const struct bly_policy_env env = {0};
    struct bly_policy *policy = parse_in(LEGACY("{\"type\":\"read-only\"}"), &env);
    struct bly_policy *none = NULL;
    struct bly_err err = {0};
    (void)state;

    assert_null(policy->cwd);
    bly_policy_unref(policy);
    assert_int_equal(
        bly_policy_parse_text(LEGACY("{\"type\":\"workspace-write\"}"), &env, &none, &err),
        -EINVAL);
    assert_int_equal(err.kind, BLY_ERR_INVALID);
    policy = parse_in(PROFILE(SPECIAL("tmpdir", "write")), &env);
    assert_int_equal(policy->n_rules, 0);
    bly_policy_unref(policy);
}

/* A profile with `n` entries of the given form. */
static int parse_many(unsigned n, const char *form, struct bly_err *err)
{
    static const char head[] = "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":"
                               "\"restricted\",\"entries\":[";
    struct bly_policy *policy = NULL;
    struct bly_buf buf;
    int r;

    bly_buf_init(&buf, 1 << 24);
    bly_buf_add_str(&buf, head);
    for (unsigned i = 0; i < n; i++) {
        char number[16];
        const char *mark = strchr(form, '@');

        snprintf(number, sizeof(number), "%u", i);
        bly_buf_add_str(&buf, i ? "," : "");
        bly_buf_add(&buf, form, (size_t)(mark - form));
        bly_buf_add_str(&buf, number);
        bly_buf_add_str(&buf, mark + 1);
    }
    bly_buf_add_str(&buf, "]},\"network\":\"restricted\"}," WORKSPACE
                          "\"windowsSandboxLevel\":\"disabled\"}");
    bly_buf_add_char(&buf, '\0');
    r = bly_policy_parse_text((const char *)buf.data, &test_env, &policy, err);
    bly_policy_unref(policy);
    bly_buf_deinit(&buf);
    return r;
}

static void limits_are_reached_and_named(void **state)
{
    static const struct {
        const char *form;
        unsigned most;
    } rows[] = {
        {AT("/d/@", "write"), BLY_POLICY_MAX_RULES},
        {AT("/d/@", "deny"), BLY_POLICY_MAX_RULES},
        {GLOB("/d/*@", "deny"), BLY_POLICY_MAX_GLOBS},
    };
    (void)state;

    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct bly_err err = {0};

        assert_int_equal(parse_many(rows[i].most, rows[i].form, &err), 0);
        assert_int_equal(parse_many(rows[i].most + 1, rows[i].form, &err), -EINVAL);
        assert_int_equal(err.kind, BLY_ERR_PARAMS);
        assert_non_null(strstr(err.text, "exceeds the limit"));
    }
}

static void patterns_have_a_limit_in_bytes(void **state)
{
    char form[2048];
    struct bly_err err = {0};
    int len = snprintf(form, sizeof(form), "%s",
                       "{\"path\":{\"type\":\"glob_pattern\","
                       "\"pattern\":\"/@");
    (void)state;

    memset(form + len, '*', 1024);
    strcpy(form + len + 1024, "\"},\"access\":\"deny\"}");
    assert_int_equal(parse_many(60, form, &err), 0);
    assert_int_equal(parse_many(64, form, &err), -EINVAL);
    assert_int_equal(err.kind, BLY_ERR_PARAMS);
}

static int parse_alternatives(const char *group, int times, struct bly_err *err)
{
    char form[1024] = "{\"path\":{\"type\":\"glob_pattern\",\"pattern\":\"/@";

    for (int i = 0; i < times; i++)
        strcat(form, group);
    strcat(form, "\"},\"access\":\"deny\"}");
    return parse_many(1, form, err);
}

static void alternatives_do_not_multiply_without_end(void **state)
{
    struct bly_err err = {0};
    (void)state;

    assert_int_equal(parse_alternatives("{,}", 8, &err), 0);
    assert_int_equal(parse_alternatives("{,}", 30, &err), -EINVAL);
    assert_int_equal(err.kind, BLY_ERR_PARAMS);
    assert_int_equal(parse_alternatives("{a}", 32, &err), 0);
    assert_int_equal(parse_alternatives("{a}", 33, &err), -EINVAL);
    assert_int_equal(err.kind, BLY_ERR_PARAMS);
}

int main(void)
{
    static const struct CMUnitTest plain[] = {
        cmocka_unit_test(both_languages_give_the_same_policy),
        cmocka_unit_test(a_policy_is_written_as_a_context),
        cmocka_unit_test(a_server_started_in_the_root_has_no_wall),
        cmocka_unit_test(a_server_without_a_directory_serves_what_needs_none),
        cmocka_unit_test(limits_are_reached_and_named),
        cmocka_unit_test(patterns_have_a_limit_in_bytes),
        cmocka_unit_test(alternatives_do_not_multiply_without_end),
    };
    struct CMUnitTest prints[BLY_LEN(print_cases)] = {0};
    struct CMUnitTest errors[BLY_LEN(error_cases)] = {0};

    for (size_t i = 0; i < BLY_LEN(print_cases); i++)
        prints[i] = (struct CMUnitTest){.name = print_cases[i].name,
                                        .test_func = check_print,
                                        .initial_state = (void *)(uintptr_t)&print_cases[i]};
    for (size_t i = 0; i < BLY_LEN(error_cases); i++)
        errors[i] = (struct CMUnitTest){.name = error_cases[i].name,
                                        .test_func = check_error,
                                        .initial_state = (void *)(uintptr_t)&error_cases[i]};
    return cmocka_run_group_tests_name("compile", prints, NULL, NULL) +
           cmocka_run_group_tests_name("refuse", errors, NULL, NULL) +
           cmocka_run_group_tests_name("languages", plain, NULL, NULL);
}
