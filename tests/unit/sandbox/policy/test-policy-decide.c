#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a policy permits: the worked examples of the specification, and then the corners. */

#define NONE  BLY_ACCESS_NONE
#define READ  BLY_ACCESS_READ
#define WRITE BLY_ACCESS_WRITE
#define DENY  BLY_ACCESS_DENY

#define ROOT_READ_W_WRITE PROFILE(SPECIAL("root", "read") "," AT("/w", "write"))
#define MINIMAL_W_WRITE   PROFILE(SPECIAL("minimal", "read") "," AT("/w", "write"))
#define W_WRITE_DOCS_READ PROFILE(AT("/w", "write") "," AT("/w/docs", "read"))
#define DENY_REOPENED     PROFILE(AT("/w", "write") "," AT("/w/p", "deny") "," AT("/w/p/open", "write"))
#define READ_IN_DENY      PROFILE(AT("/w", "write") "," AT("/w/p", "deny") "," AT("/w/p/q", "read"))
#define GIT_WRITE         PROFILE(AT("/w", "write") "," AT("/w/.git", "write"))
#define OBJECTS_WRITE     PROFILE(AT("/w", "write") "," AT("/w/.git/objects", "write"))
#define ROOT_WRITE_P_DENY PROFILE(SPECIAL("root", "write") "," AT("/w/p", "deny"))
#define ENV_GLOB          PROFILE(AT("/w", "write") "," GLOB("**/*.env", "deny"))
#define LADDER                                                                         \
    PROFILE(AT("/w", "write") "," AT("/w/a", "read") "," AT("/w/a/b", "write") "," AT( \
        "/w/a/b/c", "read") "," AT("/w/a/b/c/d", "write"))
#define LEGACY_W                                                                             \
    LEGACY("{\"type\":\"workspace-write\",\"writable_roots\":[\"/w\"],\"read_only_access\":" \
           "{\"type\":\"restricted\",\"readable_roots\":[\"/w/docs\",\"/lib-src\"]}" NO_TMP "}")

static const struct decide_case {
    const char *name;
    const char *policy;
    const char *path;
    enum bly_access access;
} decide_cases[] = {
    {"read everything, write a root: outside", ROOT_READ_W_WRITE, "/etc/hosts", READ},
    {"read everything, write a root: the root itself", ROOT_READ_W_WRITE, "/", READ},
    {"read everything, write a root: inside", ROOT_READ_W_WRITE, "/w/a", WRITE},
    {"a writable root is itself writable", ROOT_READ_W_WRITE, "/w", WRITE},
    {"a name that only begins like the root is outside", ROOT_READ_W_WRITE, "/ww/a", READ},
    {".git of a root stays read-only", ROOT_READ_W_WRITE, "/w/.git/config", READ},
    {"a missing .codex is protected as well", ROOT_READ_W_WRITE, "/w/.codex/config.toml", READ},
    {".aws is protected", ROOT_READ_W_WRITE, "/w/.aws", READ},
    {".agents is protected", ROOT_READ_W_WRITE, "/w/.agents/x", READ},
    {"a name that only begins like .git is not", ROOT_READ_W_WRITE, "/w/.github/x", WRITE},
    {"only the first level below a root is protected", ROOT_READ_W_WRITE, "/w/sub/.git/config",
     WRITE},
    {"minimal shows the platform", MINIMAL_W_WRITE, "/usr/bin/env", READ},
    {"minimal shows /etc itself", MINIMAL_W_WRITE, "/etc", READ},
    {"minimal does not show a neighbour of /usr", MINIMAL_W_WRITE, "/usrx", NONE},
    {"minimal does not show /", MINIMAL_W_WRITE, "/", NONE},
    {"minimal does not show homes", MINIMAL_W_WRITE, "/home/u/x", NONE},
    {"what nothing names is not writable", MINIMAL_W_WRITE, "/zz.txt", NONE},
    {"a deny of a platform directory wins over minimal",
     PROFILE(SPECIAL("minimal", "read") "," AT("/etc/ssl", "deny")), "/etc/ssl/x", DENY},
    {"minimal stays around a denied part",
     PROFILE(SPECIAL("minimal", "read") "," AT("/etc/ssl", "deny")), "/etc/hosts", READ},
    {"minimal with deny says nothing", PROFILE(SPECIAL("minimal", "deny")), "/usr/bin/env", NONE},
    {"minimal with write says nothing", PROFILE(SPECIAL("minimal", "write")), "/usr/bin/env", NONE},
    {"a read part of a writable root", W_WRITE_DOCS_READ, "/w/docs/a", READ},
    {"deny below write", DENY_REOPENED, "/w/p/s", DENY},
    {"write reopens below deny", DENY_REOPENED, "/w/p/open/x", WRITE},
    {"protected names hold below a reopened part", DENY_REOPENED, "/w/p/open/.git/x", READ},
    {"read does not reopen below deny", READ_IN_DENY, "/w/p/q/s", DENY},
    {"deny wins a tie", PROFILE(AT("/w", "read") "," AT("/w", "write") "," AT("/w", "deny")),
     "/w/a", DENY},
    {"write wins a tie against read", PROFILE(AT("/w", "read") "," AT("/w", "write")), "/w/a",
     WRITE},
    {"an explicit rule replaces the implied one", GIT_WRITE, "/w/.git/config", WRITE},
    {"an explicit rule for .git leaves the others", GIT_WRITE, "/w/.codex", READ},
    {"a write rule inside .git opens this part", OBJECTS_WRITE, "/w/.git/objects/x", WRITE},
    {"a write rule inside .git opens only this part", OBJECTS_WRITE, "/w/.git/config", READ},
    {"an explicit deny of .git is kept", PROFILE(AT("/w", "write") "," AT("/w/.git", "deny")),
     "/w/.git/config", DENY},
    {"write everything: no wall", PROFILE(SPECIAL("root", "write")), "/w/.git/config", WRITE},
    {"write everything and one denied part: outside", ROOT_WRITE_P_DENY, "/w/.git/config", WRITE},
    {"write everything and one denied part: inside", ROOT_WRITE_P_DENY, "/w/p/x", DENY},
    {"write everything protects no name at the root", ROOT_WRITE_P_DENY, "/.git/x", WRITE},
    {"a root inside a writable / has protected names when there is a wall",
     PROFILE(SPECIAL("root", "write") "," AT("/w", "write") "," AT("/p", "deny")), "/w/.git", READ},
    {"glob deny", ENV_GLOB, "/w/a/b/x.env", DENY},
    {"glob deny directly in cwd", ENV_GLOB, "/w/x.env", DENY},
    {"glob deny covers what is below a match", ENV_GLOB, "/w/dir.env/inside", DENY},
    {"glob deny leaves the rest", ENV_GLOB, "/w/x.envy", WRITE},
    {"glob deny does not leave its base", ENV_GLOB, "/v/x.env", NONE},
    {"glob deny hides what a write rule names",
     PROFILE(AT("/w", "write") "," AT("/w/k.env", "write") "," GLOB("**/*.env", "deny")),
     "/w/k.env", DENY},
    {"glob deny says forbidden, also where nothing is visible", PROFILE(GLOB("/x/*.env", "deny")),
     "/x/a.env", DENY},
    {"a glob with read grants nothing", PROFILE(GLOB("/w/**", "read")), "/w/a", NONE},
    {"a glob with write grants nothing", PROFILE(GLOB("/w/**", "write")), "/w/a", NONE},
    {"write below read below write, first", LADDER, "/w/x", WRITE},
    {"write below read below write, second", LADDER, "/w/a/x", READ},
    {"write below read below write, third", LADDER, "/w/a/b/x", WRITE},
    {"write below read below write, fourth", LADDER, "/w/a/b/c/x", READ},
    {"write below read below write, fifth", LADDER, "/w/a/b/c/d/x", WRITE},
    {"a file as writable root", PROFILE(AT("/w/f", "write")), "/w/f", WRITE},
    {"the parent of a granted file is not granted", PROFILE(AT("/w/f", "write")), "/w", NONE},
    {"dot-dot in an entry is resolved as text", PROFILE(AT("/w/../etc/./ssl/", "read")),
     "/etc/ssl/x", READ},
    {"dot-dot in an entry grants nothing where it starts", PROFILE(AT("/w/../etc", "read")), "/w/a",
     NONE},
    {"an escaped dot-dot is a dot-dot", PROFILE(AT("file:///w/%2e%2e/v", "read")), "/v/a", READ},
    {"doubled and trailing slashes", PROFILE(AT("file:///w//d//", "write")), "/w/d/x", WRITE},
    {"bytes that are not UTF-8", PROFILE(AT("file:///w/%FF", "read")), "/w/\xff/x", READ},
    {"project roots", PROFILE(SPECIAL("project_roots", "write")), "/w/x", WRITE},
    {"the alias of project roots", PROFILE(SPECIAL("current_working_directory", "read")), "/w/x",
     READ},
    {"project roots with a subpath", PROFILE(BELOW_ROOTS("s/t", "read")), "/w/s/t/x", READ},
    {"project roots with a subpath: not above it", PROFILE(BELOW_ROOTS("s/t", "read")), "/w/s",
     NONE},
    {"project roots with a climbing subpath grant nothing", PROFILE(BELOW_ROOTS("../v", "write")),
     "/v/x", NONE},
    {"project roots with a hidden climbing subpath grant nothing",
     PROFILE(BELOW_ROOTS("s/../../v", "write")), "/v/x", NONE},
    {"project roots with an absolute subpath grant nothing", PROFILE(BELOW_ROOTS("/v", "write")),
     "/v/x", NONE},
    {"project roots with an absolute subpath grant nothing below either",
     PROFILE(BELOW_ROOTS("/v", "write")), "/w/v/x", NONE},
    {"two dots inside a name do not climb", PROFILE(BELOW_ROOTS("a..b", "read")), "/w/a..b/x",
     READ},
    {"without workspace roots project roots grant nothing",
     PROFILE_WITH(SPECIAL("project_roots", "write"), "", "restricted", "\"cwd\":\"/w\","), "/w/x",
     NONE},
    {"tmpdir is the server's", PROFILE(SPECIAL("tmpdir", "write")), "/var/tmp/t/x", WRITE},
    {"slash_tmp", PROFILE(SPECIAL("slash_tmp", "write")), "/tmp/x", WRITE},
    {"/tmp has protected names as well", PROFILE(SPECIAL("slash_tmp", "write")), "/tmp/.git", READ},
    {"what a newer client knows grants nothing", PROFILE(SPECIAL("unknown", "write")), "/w/x",
     NONE},
    {"no entries, no access", PROFILE(""), "/usr", NONE},
    {"legacy: a writable root", LEGACY_W, "/w/x", WRITE},
    {"legacy: the server's directory is always a root", LEGACY_W, "/srv/x", WRITE},
    {"legacy: a readable root inside a writable one takes nothing away", LEGACY_W, "/w/docs/x",
     WRITE},
    {"legacy: a readable root elsewhere", LEGACY_W, "/lib-src/x", READ},
    {"legacy: protected names", LEGACY_W, "/w/.git/x", READ},
    {"legacy: protected names of the server's directory", LEGACY_W, "/srv/.codex", READ},
    {"legacy: platform defaults", LEGACY_W, "/usr/lib/x", READ},
    {"legacy: nothing else", LEGACY_W, "/home/u", NONE},
    {"legacy: /tmp excluded", LEGACY_W, "/tmp/x", NONE},
    {"legacy: read-only reads everything", LEGACY("{\"type\":\"read-only\"}"), "/home/u", READ},
    {"legacy: danger writes everything", LEGACY("{\"type\":\"danger-full-access\"}"), "/x", WRITE},
};

static void check_decision(void **state)
{
    const struct decide_case *c = *state;
    struct bly_policy *policy = parse(c->policy);

    assert_int_equal(bly_policy_decide(policy, c->path), c->access);
    bly_policy_unref(policy);
}

static const struct tree_case {
    const char *name;
    const char *policy;
    const char *path;
    bool whole;
} tree_cases[] = {
    {"a directory inside a root is writable as a whole", ROOT_READ_W_WRITE, "/w/sub", true},
    {"a root is not: .git is read-only", ROOT_READ_W_WRITE, "/w", false},
    {"a protected name is not", ROOT_READ_W_WRITE, "/w/.git", false},
    {"outside is not", ROOT_READ_W_WRITE, "/etc", false},
    {"a read part below", W_WRITE_DOCS_READ, "/w", false},
    {"a read part beside", W_WRITE_DOCS_READ, "/w/doc", true},
    {"a deny part below", DENY_REOPENED, "/w", false},
    {"a reopened part below its protected names", DENY_REOPENED, "/w/p/open/x", true},
    {"a write rule below", PROFILE(AT("/w", "write") "," AT("/w/a/b", "write")), "/w/a", false},
    {"a write rule with nothing narrower is whole below",
     PROFILE(AT("/w", "write") "," AT("/w/a/b", "write")), "/w/a/b/c", true},
    {"a glob that reaches every depth", ENV_GLOB, "/w/sub", false},
    {"a glob of a neighbour", PROFILE(AT("/w", "write") "," GLOB("/w/a/*.env", "deny")), "/w/b",
     true},
    {"a glob below", PROFILE(AT("/w", "write") "," GLOB("/w/b/c/*.env", "deny")), "/w/b", false},
    {"a glob of another place", PROFILE(AT("/w", "write") "," GLOB("/v/**", "deny")), "/w/b", true},
    {"a glob that begins at the root", PROFILE(AT("/w", "write") "," GLOB("/*/b/x", "deny")),
     "/w/b", false},
    {"no wall", PROFILE(SPECIAL("root", "write")), "/", true},
};

static void check_tree(void **state)
{
    const struct tree_case *c = *state;
    struct bly_policy *policy = parse(c->policy);

    assert_int_equal(bly_policy_writes_tree(policy, c->path), c->whole);
    bly_policy_unref(policy);
}

static void derived_fields_follow_from_the_rules(void **state)
{
    static const struct {
        const char *policy;
        bool wall, reads_all, writes_all;
    } rows[] = {
        {PROFILE(SPECIAL("root", "read")), true, true, false},
        {ROOT_READ_W_WRITE, true, true, false},
        {MINIMAL_W_WRITE, true, false, false},
        {ROOT_WRITE_P_DENY, true, false, true},
        {PROFILE(SPECIAL("root", "write") "," AT("/w", "read")), true, true, true},
        {PROFILE(SPECIAL("root", "write") "," GLOB("/w/*.x", "deny")), true, false, true},
        {PROFILE(SPECIAL("root", "write") "," SPECIAL("slash_tmp", "write")), false, true, true},
        {PROFILE(SPECIAL("root", "deny")), true, false, false},
        {LEGACY("{\"type\":\"external-sandbox\"}"), false, true, true},
    };
    (void)state;

    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct bly_policy *policy = parse(rows[i].policy);

        assert_int_equal(policy->wall, rows[i].wall);
        assert_int_equal(policy->reads_all, rows[i].reads_all);
        assert_int_equal(policy->writes_all, rows[i].writes_all);
        bly_policy_unref(policy);
    }
}

static void every_order_of_a_tie_gives_the_same(void **state)
{
    static const char *const entries[] = {AT("/w", "read"), AT("file:///w/", "write"),
                                          AT("/w/./", "none")};
    static const unsigned orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                         {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    (void)state;

    for (size_t i = 0; i < BLY_LEN(orders); i++) {
        for (unsigned n = 1; n <= 3; n++) {
            enum bly_access strongest = BLY_ACCESS_NONE;
            char json[1024] = PROFILE_WITH("", "", "restricted", "");
            char list[512] = "";

            for (unsigned k = 0; k < n; k++) {
                enum bly_access access = (enum bly_access)(BLY_ACCESS_READ + orders[i][k]);

                strongest = access > strongest ? access : strongest;
                snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", k ? "," : "",
                         entries[orders[i][k]]);
            }
            snprintf(json, sizeof(json), PROFILE("%s"), list);

            struct bly_policy *policy = parse(json);

            assert_int_equal(bly_policy_decide(policy, "/w/x"), strongest);
            bly_policy_unref(policy);
        }
    }
}

static void a_weakening_flag_needs_everybody(void **state)
{
    static const char strict[] = AT("/w/d", "read");
    static const char skip[] =
        "{\"path\":{\"type\":\"path\",\"path\":\"/w/d\"},\"access\":\"read\","
        "\"missing_path_behavior\":\"skip\"}";
    char json[1024];
    (void)state;

    for (int both = 0; both < 2; both++) {
        snprintf(json, sizeof(json), PROFILE("%s,%s"), skip, both ? strict : skip);

        struct bly_policy *policy = parse(json);

        assert_int_equal(policy->n_rules, 1);
        assert_int_equal(policy->rules[0].flags, both ? 0 : BLY_RULE_SKIP_MISSING);
        bly_policy_unref(policy);
    }
}

static void many_rules_are_all_found(void **state)
{
    struct bly_buf buf;
    (void)state;

    bly_buf_init(&buf, 1 << 24);
    bly_buf_add_str(&buf, "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":"
                          "\"restricted\",\"entries\":[" AT("/w", "write"));
    for (unsigned i = 0; i < BLY_POLICY_MAX_RULES - 1; i++)
        bly_buf_printf(&buf, "," AT("/w/%u/%u/%s", "deny"), i % 7, i, i % 3 ? "x" : "y/z");
    bly_buf_add_str(&buf, "]},\"network\":\"restricted\"},\"windowsSandboxLevel\":\"disabled\"}");
    bly_buf_add_char(&buf, '\0');

    struct bly_policy *policy = parse((const char *)buf.data);

    for (unsigned i = 0; i < BLY_POLICY_MAX_RULES - 1; i++) {
        char path[64];

        snprintf(path, sizeof(path), "/w/%u/%u/%s/q", i % 7, i, i % 3 ? "x" : "y/z");
        assert_int_equal(bly_policy_decide(policy, path), BLY_ACCESS_DENY);
        snprintf(path, sizeof(path), "/w/%u/%u/%s", i % 7, i, i % 3 ? "x0" : "y");
        assert_int_equal(bly_policy_decide(policy, path), BLY_ACCESS_WRITE);
    }
    bly_policy_unref(policy);
    bly_buf_deinit(&buf);
}

/* Patterns are found by their directories: all of them, against the plain reading of each. */
static void every_pattern_counts(void **state)
{
    static const char *const names[] = {"a", "b", "ab", "a-", "c", "d", "x.x", "k", "z", "deep"};
    /* clang-format off */
    struct bly_policy *policy = parse(PROFILE(
        GLOB("/*.x", "deny") "," GLOB("/a/*.x", "deny") "," GLOB("/a/b/*.x", "deny") ","
        GLOB("/a-/*.x", "deny") "," GLOB("/a/**/k", "deny") "," GLOB("/a/b/c/**", "deny") ","
        GLOB("/ab/?", "deny") "," GLOB("/[ab]/z", "deny") "," GLOB("/a/b*/d", "deny") ","
        GLOB("/**/deep", "deny") "," GLOB("/b/c/*", "deny") "," GLOB("/b/c/d/**", "deny")));
    /* clang-format on */
    size_t n = BLY_LEN(names), n_denied = 0;
    (void)state;

    for (size_t i = 0; i < n * n * n * n; i++) {
        bool denied = false;
        char path[64];

        (void)snprintf(path, sizeof(path), "/%s/%s/%s/%s", names[i % n], names[i / n % n],
                       names[i / n / n % n], names[i / n / n / n]);
        for (char *end = path + strlen(path); end > path; end = strrchr(path, '/')) {
            *end = '\0';
            for (size_t k = 0; k < policy->n_deny_globs; k++)
                denied = denied || bly_glob_match(policy->deny_globs[k], path);
        }
        (void)snprintf(path, sizeof(path), "/%s/%s/%s/%s", names[i % n], names[i / n % n],
                       names[i / n / n % n], names[i / n / n / n]);
        if ((bly_policy_decide(policy, path) == BLY_ACCESS_DENY) != denied)
            fail_msg("%s: %s", path, denied ? "is not denied" : "is denied");
        n_denied += denied;
    }
    assert_in_range(n_denied, 1000, 9000);
    bly_policy_unref(policy);
}

static void what_decided_is_named(void **state)
{
    static const struct {
        const char *policy, *path, *rule; /* NULL: none */
        uint8_t by;
        enum bly_access access;
    } rows[] = {
        {MINIMAL_W_WRITE, "/zz", NULL, BLY_BY_NOTHING, NONE},
        {MINIMAL_W_WRITE, "/usr/bin", NULL, BLY_BY_NOTHING, READ},
        {MINIMAL_W_WRITE, "/w/a", "/w", BLY_BY_RULE, WRITE},
        {MINIMAL_W_WRITE, "/w/.git/config", "/w/.git", BLY_BY_NAME, READ},
        {MINIMAL_W_WRITE, "/w/.aws", "/w/.aws", BLY_BY_NAME, READ},
        {MINIMAL_W_WRITE, "/w/.gi", "/w", BLY_BY_RULE, WRITE},
        {MINIMAL_W_WRITE, "/w/.gitt", "/w", BLY_BY_RULE, WRITE},
        {MINIMAL_W_WRITE, "/w/.", "/w", BLY_BY_RULE, WRITE},
        {MINIMAL_W_WRITE, "/w/a/.git", "/w", BLY_BY_RULE, WRITE},
        {W_WRITE_DOCS_READ, "/w/docs/a", "/w/docs", BLY_BY_RULE, READ},
        {DENY_REOPENED, "/w/p/x", "/w/p", BLY_BY_RULE, DENY},
        {DENY_REOPENED, "/w/p/open/x", "/w/p/open", BLY_BY_RULE, WRITE},
        {READ_IN_DENY, "/w/p/q/x", "/w/p", BLY_BY_RULE, DENY},
        {ENV_GLOB, "/w/a/b.env", "/w/**/*.env", BLY_BY_GLOB, DENY},
        {ENV_GLOB, "/w/a/b", "/w", BLY_BY_RULE, WRITE},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct bly_policy *policy = parse(rows[i].policy);
        struct bly_denial reason;

        assert_int_equal(bly_policy_explain(policy, rows[i].path, &reason), rows[i].access);
        assert_int_equal(reason.by, rows[i].by);
        if (reason.by == BLY_BY_RULE)
            assert_string_equal(policy->rules[reason.index].path, rows[i].rule);
        if (reason.by == BLY_BY_NAME) {
            char path[64];

            (void)snprintf(path, sizeof(path), "%s/%s", policy->rules[reason.index].path,
                           bly_policy_protected_names[reason.name]);
            assert_string_equal(path, rows[i].rule);
        } else {
            assert_int_equal(reason.name, 0);
        }
        if (reason.by == BLY_BY_GLOB)
            assert_string_equal(policy->deny_globs[reason.index], rows[i].rule);
        bly_policy_unref(policy);
    }
}

static void rules_are_found_by_path(void **state)
{
    struct bly_policy *policy = parse(DENY_REOPENED);

    (void)state;
    for (size_t i = 0; i < policy->n_rules; i++)
        assert_int_equal(bly_policy_find(policy, policy->rules[i].path), i);
    assert_int_equal(bly_policy_find(policy, "/w/p/op"), policy->n_rules);
    bly_policy_unref(policy);
}

int main(void)
{
    static const struct CMUnitTest plain[] = {
        cmocka_unit_test(what_decided_is_named),
        cmocka_unit_test(rules_are_found_by_path),
        cmocka_unit_test(derived_fields_follow_from_the_rules),
        cmocka_unit_test(every_order_of_a_tie_gives_the_same),
        cmocka_unit_test(a_weakening_flag_needs_everybody),
        cmocka_unit_test(many_rules_are_all_found),
        cmocka_unit_test(every_pattern_counts),
    };
    struct CMUnitTest decide[BLY_LEN(decide_cases)] = {0};
    struct CMUnitTest tree[BLY_LEN(tree_cases)] = {0};

    for (size_t i = 0; i < BLY_LEN(decide_cases); i++)
        decide[i] = (struct CMUnitTest){.name = decide_cases[i].name,
                                        .test_func = check_decision,
                                        .initial_state = (void *)(uintptr_t)&decide_cases[i]};
    for (size_t i = 0; i < BLY_LEN(tree_cases); i++)
        tree[i] = (struct CMUnitTest){.name = tree_cases[i].name,
                                      .test_func = check_tree,
                                      .initial_state = (void *)(uintptr_t)&tree_cases[i]};

    return cmocka_run_group_tests_name("decide", decide, NULL, NULL) +
           cmocka_run_group_tests_name("writes_tree", tree, NULL, NULL) +
           cmocka_run_group_tests_name("compile", plain, NULL, NULL);
}
