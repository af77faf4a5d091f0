#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox/policy/wrapper.h"
#include "support/rows.h"

#define PROGRAM "/client-home/tmp/arg0/codex-arg0RTsaos/codex-linux-sandbox"
#define CWD     "--sandbox-policy-cwd", "/w/project"
#define LEGACY_JSON                                                                 \
    "{\"type\":\"workspace-write\",\"writable_roots\":[\"/client-home/memories\"]," \
    "\"network_access\":false,\"exclude_tmpdir_env_var\":false,\"exclude_slash_tmp\":false}"
#define RAW(path, access) \
    "{\"path\":{\"type\":\"path\",\"path\":\"" path "\"},\"access\":\"" access "\"}"
#define SPLIT_ENTRIES                                                                          \
    SPECIAL("root", "read")                                                                    \
    "," SPECIAL("current_working_directory", "write") "," SPECIAL(                             \
        "slash_tmp", "write") "," SPECIAL("tmpdir",                                            \
                                          "write") "," RAW("/client-home/memories",            \
                                                           "write") "," RAW("/w/project/.git", \
                                                                            "read")
#define SPLIT(entries) "{\"kind\":\"restricted\",\"entries\":[" entries "]}"
#define FS(json)       "--file-system-sandbox-policy", json
#define OFFLINE        "--network-sandbox-policy", "\"restricted\""
#define ONLINE         "--network-sandbox-policy", "\"enabled\""
#define POLICY(json)   "--sandbox-policy", json
#define COMMAND        "--", "/bin/bash", "-lc", "echo hi"

#define NAMES(dir) \
    "ro " dir "/.agents implied\nro " dir "/.aws implied\nro " dir "/.codex implied\n"

static const struct wrapper_case {
    const char *name;
    const char *argv[20];
    const char *policy; /* printed; NULL: refused */
    const char *error;  /* a part of the text */
    size_t command_index;
    const char *command_cwd;
} cases[] = {
    {"what the real client sends for workspace-write",
     {PROGRAM, CWD, "--command-cwd", "/w/project/sub/../", POLICY(LEGACY_JSON),
      FS(SPLIT(SPLIT_ENTRIES)), OFFLINE, COMMAND},
     "ro /\nrw /tmp directory\n"
     "rw /client-home/memories\n" NAMES("/tmp") "ro /tmp/.git implied\nrw /w/project\n" NAMES(
         "/client-home/memories") "ro /client-home/memories/.git implied\n"
                                  "rw /var/tmp/t\n" NAMES(
                                      "/w/project") "ro "
                                                    "/w/project/.git implied\n" NAMES(
                                                        "/var/tmp/t") "ro "
                                                                      "/var/"
                                                                      "tmp/t/"
                                                                      ".git "
                                                                      "implied"
                                                                      "\ncwd "
                                                                      "/w/"
                                                                      "project"
                                                                      "\n",
     .command_index = 12,
     .command_cwd = "/w/project"},
    {"what the real client sends for read-only",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\"}"), FS(SPLIT(SPECIAL("root", "read"))), OFFLINE,
      COMMAND},
     "ro /\ncwd /w/project\n",
     .command_index = 10},
    {"with the network",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\",\"network_access\":true}"),
      FS(SPLIT(SPECIAL("root", "read"))), ONLINE, COMMAND},
     "network\nro /\ncwd /w/project\n",
     .command_index = 10},
    {"only the legacy policy: the policy's directory is the workspace",
     {PROGRAM, CWD, POLICY("{\"type\":\"workspace-write\"" NO_TMP "}"), COMMAND},
     "ro /\nrw /w/project\n" NAMES("/w/project") "ro /w/project/.git implied\ncwd /w/project\n",
     .command_index = 6},
    {"only the split policy",
     {PROGRAM, CWD, FS(SPLIT(SPECIAL("minimal", "read"))), OFFLINE, COMMAND},
     "minimal\ncwd /w/project\n",
     .command_index = 8},
    {"no entries, no access",
     {PROGRAM, CWD, FS(SPLIT("")), OFFLINE, COMMAND},
     "cwd /w/project\n",
     .command_index = 8},
    {"unrestricted files with a restricted network",
     {PROGRAM, CWD, FS("{\"kind\":\"unrestricted\"}"), OFFLINE, COMMAND},
     "no wall\ncwd /w/project\n",
     .command_index = 8},
    {"an external sandbox",
     {PROGRAM, CWD, POLICY("{\"type\":\"external-sandbox\"}"),
      FS("{\"kind\":\"external-sandbox\",\"entries\":[]}"), OFFLINE, COMMAND},
     "no wall\ncwd /w/project\n",
     .command_index = 10},
    {"switches that mean nothing here",
     {PROGRAM, CWD, "--no-proc", "--use-legacy-landlock", POLICY("{\"type\":\"read-only\"}"),
      COMMAND},
     "ro /\ncwd /w/project\n",
     .command_index = 8},
    {"options behind the dashes belong to the command",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\"}"), "--", "x", "--sandbox-policy", "y"},
     "ro /\ncwd /w/project\n",
     .command_index = 6},
    {"a split policy that the legacy one has no words for",
     {PROGRAM, CWD, POLICY("{\"type\":\"workspace-write\"}"),
      FS(SPLIT(SPECIAL("root", "write") "," RAW("/w/p", "none"))), OFFLINE, COMMAND},
     "rw /\ndeny /w/p\ncwd /w/project\n",
     .command_index = 10},

    {"no directory",
     {PROGRAM, POLICY("{\"type\":\"read-only\"}"), COMMAND},
     .error = "--sandbox-policy-cwd"},
    {"a relative directory",
     {PROGRAM, "--sandbox-policy-cwd", "w", POLICY("{\"type\":\"read-only\"}"), COMMAND},
     .error = "not absolute"},
    {"a relative command directory",
     {PROGRAM, CWD, "--command-cwd", "", POLICY("{\"type\":\"read-only\"}"), COMMAND},
     .error = "not absolute"},
    {"no policy", {PROGRAM, CWD, COMMAND}, .error = "--sandbox-policy"},
    {"half of a split policy, files",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\"}"), FS(SPLIT("")), COMMAND},
     .error = "--network-sandbox-policy"},
    {"half of a split policy, network",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\"}"), OFFLINE, COMMAND},
     .error = "--file-system-sandbox-policy"},
    {"a proxy",
     {PROGRAM, CWD, "--allow-network-for-proxy", POLICY("{\"type\":\"read-only\"}"), COMMAND},
     .error = "--allow-network-for-proxy"},
    {"a proxy route",
     {PROGRAM, CWD, "--proxy-route-spec", "{}", POLICY("{\"type\":\"read-only\"}"), COMMAND},
     .error = "--proxy-route-spec"},
    {"the inner stage of the real program",
     {PROGRAM, CWD, "--apply-seccomp-then-exec", POLICY("{\"type\":\"read-only\"}"), COMMAND},
     .error = "--apply-seccomp-then-exec"},
    {"an option with an equals sign",
     {PROGRAM, CWD, "--sandbox-policy={\"type\":\"danger-full-access\"}", COMMAND},
     .error = "unsupported option"},
    {"a word in front of the dashes", {PROGRAM, CWD, "sh", COMMAND}, .error = "unsupported option"},
    {"a repeated option",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\"}"), POLICY("{\"type\":\"danger-full-access\"}"),
      COMMAND},
     .error = "repeated option"},
    {"an option without its value", {PROGRAM, CWD, "--sandbox-policy"}, .error = "no value"},
    {"dashes as a value are a value",
     {PROGRAM, CWD, "--sandbox-policy", "--", "/bin/sh"},
     .error = "unsupported option"},
    {"no dashes", {PROGRAM, CWD, POLICY("{\"type\":\"read-only\"}")}, .error = "no command"},
    {"nothing behind the dashes",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\"}"), "--"},
     .error = "no command"},
    {"nothing at all", {PROGRAM}, .error = "no command"},
    {"a policy that is not JSON",
     {PROGRAM, CWD, POLICY("{"), COMMAND},
     .error = "--sandbox-policy"},
    {"a policy that is empty", {PROGRAM, CWD, POLICY(""), COMMAND}, .error = "--sandbox-policy"},
    {"a policy that is null", {PROGRAM, CWD, POLICY("null"), COMMAND}, .error = "expected a map"},
    {"a policy with a key twice",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\",\"type\":\"danger-full-access\"}"), COMMAND},
     .error = "duplicate"},
    {"an unknown policy",
     {PROGRAM, CWD, POLICY("{\"type\":\"x\"}"), COMMAND},
     .error = "unknown variant `x`"},
    {"a whole context instead of a policy",
     {PROGRAM, CWD, POLICY("{\"sandboxPolicy\":{\"type\":\"read-only\"}}"), COMMAND},
     .error = "missing field `type`"},
    {"an unknown kind",
     {PROGRAM, CWD, FS("{\"kind\":\"x\"}"), OFFLINE, COMMAND},
     .error = "unknown variant `x`"},
    {"a restricted kind without entries",
     {PROGRAM, CWD, FS("{\"kind\":\"restricted\"}"), OFFLINE, COMMAND},
     .error = "missing field `entries`"},
    {"a network without quotes",
     {PROGRAM, CWD, FS(SPLIT("")), "--network-sandbox-policy", "restricted", COMMAND},
     .error = "--network-sandbox-policy"},
    {"a network as a bool",
     {PROGRAM, CWD, FS(SPLIT("")), "--network-sandbox-policy", "true", COMMAND},
     .error = "expected a string"},
    {"a path of another system",
     {PROGRAM, CWD, FS(SPLIT(RAW("file:///C:/x", "read"))), OFFLINE, COMMAND},
     .error = "is invalid on 'linux'"},
    {"a legacy policy that does not parse next to a good split one",
     {PROGRAM, CWD, POLICY("{}"), FS(SPLIT("")), OFFLINE, COMMAND},
     .error = "missing field `type`"},
    {"policies that differ in what is writable",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\"}"),
      FS(SPLIT(SPECIAL("root", "read") "," RAW("/w", "write"))), OFFLINE, COMMAND},
     .error = "does not say the same"},
    {"policies that differ in the network",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\"}"), FS(SPLIT(SPECIAL("root", "read"))), ONLINE,
      COMMAND},
     .error = "does not say the same"},
    {"policies of which one has no wall",
     {PROGRAM, CWD, POLICY("{\"type\":\"read-only\"}"), FS("{\"kind\":\"unrestricted\"}"), OFFLINE,
      COMMAND},
     .error = "does not say the same"},
};

static void check_case(void **state)
{
    const struct wrapper_case *c = *state;
    struct bly_wrapper wrapper = {0};
    struct bly_err err = {0};
    size_t argc = 0;

    while (c->argv[argc])
        argc++;

    char *const *argv = (char *const *)(uintptr_t)c->argv;
    int r = bly_wrapper_parse(argv, argc, &test_env, &wrapper, &err);

    if (!c->policy) {
        assert_int_equal(r, -EINVAL);
        assert_int_equal(err.kind, BLY_ERR_PARAMS);
        if (!strstr(err.text, c->error))
            fail_msg("%s", err.text);
        assert_null(wrapper.policy);
        assert_int_equal(bly_wrapper_parse(argv, argc, &test_env, &wrapper, NULL), -EINVAL);
        return;
    }
    if (r < 0)
        fail_msg("%s", err.text);

    char *text = print(wrapper.policy);

    assert_string_equal(text, c->policy);
    assert_int_equal(wrapper.command_index, c->command_index);
    if (c->command_cwd)
        assert_string_equal(wrapper.command_cwd, c->command_cwd);
    else
        assert_null(wrapper.command_cwd);
    free(text);
    bly_wrapper_deinit(&wrapper);
}

static void only_the_base_name_counts(void **state)
{
    (void)state;

    assert_true(bly_wrapper_recognise(PROGRAM));
    assert_true(bly_wrapper_recognise("codex-linux-sandbox"));
    assert_true(bly_wrapper_recognise("./bailey-linux-sandbox"));
    assert_false(bly_wrapper_recognise("/x/codex-linux-sandbox/"));
    assert_false(bly_wrapper_recognise("/x/codex-linux-sandbox-2"));
    assert_false(bly_wrapper_recognise("xcodex-linux-sandbox"));
    assert_false(bly_wrapper_recognise("/bin/sh"));
    assert_false(bly_wrapper_recognise(""));
}

int main(void)
{
    static const struct CMUnitTest plain[] = {cmocka_unit_test(only_the_base_name_counts)};
    struct CMUnitTest tests[BLY_LEN(cases)] = {0};

    ROWS_AS_TESTS(tests, cases, check_case);
    return cmocka_run_group_tests_name("wrapper", tests, NULL, NULL) +
           cmocka_run_group_tests_name("recognise", plain, NULL, NULL);
}
