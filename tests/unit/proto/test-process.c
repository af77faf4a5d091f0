/*
 * process/...: params to struct, the environment, and answers and notifications to bytes.
 */
#include "proto/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "process/process.h"
#include "process/ring.h"
#include "proto/envp.h"
#include "proto/proto.h"
#include "support/rows.h"

static char *server_env[] = {(char[]){"PATH=/usr/bin:/bin"},
                             (char[]){"HOME=/root"},
                             (char[]){"MY_KEY=1"},
                             (char[]){"my_token=2"},
                             (char[]){"CLIENT_SECRETS=3"},
                             (char[]){"ZED=z"},
                             (char[]){"EMPTY="},
                             (char[]){"OPENAI_FEDERATION_RULE_ID=4"},
                             (char[]){"no equals sign"},
                             NULL};

/* ---- process/start ---- */

/*
 * `want`: argv joined by '|', then cwd, arg0 (-: none), the environment joined by ',', flags. When
 * it begins with '!' the request is refused with that code and text; a text ending in '*' is a
 * beginning.
 */
static struct start_case {
    const char *name, *json, *want;
} start_cases[] = {
    {"as 0.121 sends it",
     "{\"processId\":\"1\",\"argv\":[\"/bin/bash\",\"-lc\",\"echo hi\"],\"cwd\":\"/w/project\","
     "\"env\":{\"TERM\":\"dumb\"},\"tty\":false,\"arg0\":null}",
     "/bin/bash|-lc|echo hi /w/project - TERM=dumb"},
    {"as 0.169 sends it",
     "{\"processId\":\"1\",\"metadata\":{\"threadId\":\"x\",\"toolCallId\":\"c1\"},"
     "\"argv\":[\"/bin/bash\",\"-lc\",\"echo hi\"],\"cwd\":\"file:///w/project\","
     "\"env\":{\"TERM\":\"dumb\"},\"tty\":false,\"pipeStdin\":false,\"arg0\":null,"
     "\"sandbox\":null,\"enforceManagedNetwork\":false,\"managedNetwork\":null}",
     "/bin/bash|-lc|echo hi /w/project - TERM=dumb"},
    {"terminal, stdin, arg0",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{},\"tty\":true,"
     "\"pipeStdin\":true,\"arg0\":\"-sh\"}",
     "sh / -sh  tty pipe-stdin"},
    {"cwd is normalised",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/w/lnk/../f/\",\"env\":{},\"tty\":false}",
     "sh /w/f - "},
    {"with a sandbox",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{},\"tty\":false,"
     "\"sandbox\":{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\","
     "\"entries\":[{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"root\"}},"
     "\"access\":\"read\"}]},\"network\":\"restricted\"},\"windowsSandboxLevel\":\"disabled\"}}",
     "sh / -  policy"},
    {"managed network without sandbox has no effect",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{},\"tty\":false,"
     "\"enforceManagedNetwork\":true,\"managedNetwork\":{\"allowLocalBinding\":true}}",
     "sh / - "},
    {"unknown members, shell snapshot",
     "{\"processId\":\"\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{},\"tty\":false,"
     "\"zzz\":{\"a\":1},\"shellSnapshot\":{\"scopeId\":\"x\"}}",
     "sh / - "},

    {"no arguments", "{\"processId\":\"1\",\"argv\":[],\"cwd\":\"/\",\"env\":{},\"tty\":false}",
     "!-32602 argv must not be empty"},
    {"an argument that is a number",
     "{\"processId\":\"1\",\"argv\":[\"sh\",1],\"cwd\":\"/\",\"env\":{},\"tty\":false}",
     "!-32602 *"},
    {"no program", "{\"processId\":\"1\",\"argv\":[\"\"],\"cwd\":\"/\",\"env\":{},\"tty\":false}",
     "!-32603 missing program for pipe spawn"},
    {"no program, terminal",
     "{\"processId\":\"1\",\"argv\":[\"\",\"x\"],\"cwd\":\"/\",\"env\":{},\"tty\":true}",
     "!-32603 missing program for PTY spawn"},
    {"a variable that is a number",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{\"A\":1},\"tty\":false}",
     "!-32602 *"},
    {"a variable that is null",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{\"A\":null},\"tty\":false}",
     "!-32602 *"},
    {"a NUL byte in argv",
     "{\"processId\":\"1\",\"argv\":[\"sh\",\"a\\u0000b\"],\"cwd\":\"/\",\"env\":{},\"tty\":false}",
     "!-32603 nul byte found in provided data"},
    {"a NUL byte in arg0",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{},\"tty\":false,"
     "\"arg0\":\"\\u0000\"}",
     "!-32603 nul byte found in provided data"},
    {"a NUL byte in a value",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{\"A\":\"x\\u0000y\"},"
     "\"tty\":false}",
     "!-32603 nul byte found in provided data"},
    {"a NUL byte in a name",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{\"A\\u0000\":\"x\"},"
     "\"tty\":false}",
     "!-32603 nul byte found in provided data"},
    {"what cannot be decoded counts before what cannot be started",
     "{\"processId\":\"1\",\"argv\":[\"a\\u0000\"],\"cwd\":\"w\",\"env\":{},\"tty\":false}",
     "!-32602 *"},
    {"a relative directory",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"w\",\"env\":{},\"tty\":false}", "!-32602 *"},
    {"managed network with a sandbox",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{},\"tty\":false,"
     "\"sandbox\":{\"permissions\":{\"type\":\"disabled\"},\"windowsSandboxLevel\":\"disabled\"},"
     "\"enforceManagedNetwork\":true}",
     "!-32602 managed networking is not supported"},
    {"a network proxy",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{},\"tty\":false,"
     "\"networkProxy\":{\"proxy\":{}}}",
     "!-32602 managed networking is not supported"},
    {"a sandbox that makes no sense",
     "{\"processId\":\"1\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"env\":{},\"tty\":false,"
     "\"sandbox\":{}}",
     "!-32602 missing field `permissions`"},

    {"0.121's wrapper is unwrapped",
     "{\"processId\":\"1\",\"argv\":[\"/client/codex-linux-sandbox\",\"--sandbox-policy-cwd\","
     "\"/w/project\",\"--command-cwd\",\"/w/project/sub\",\"--sandbox-policy\","
     "\"{\\\"type\\\":\\\"read-only\\\"}\",\"--\",\"/bin/bash\",\"-lc\",\"echo hi\"],"
     "\"cwd\":\"/w/project\",\"env\":{},\"tty\":false,\"arg0\":\"/client/codex-linux-sandbox\"}",
     "/bin/bash|-lc|echo hi /w/project/sub -  policy"},
    {"a wrapper we cannot read runs nothing",
     "{\"processId\":\"1\",\"argv\":[\"/client/codex-linux-sandbox\",\"--new-option\",\"--\","
     "\"/bin/true\"],\"cwd\":\"/\",\"env\":{},\"tty\":false}",
     "!-32602 *"},
    {"a wrapper without a command runs nothing",
     "{\"processId\":\"1\",\"argv\":[\"codex-linux-sandbox\"],\"cwd\":\"/\",\"env\":{},"
     "\"tty\":false}",
     "!-32602 *"},
    {"a wrapper and a sandbox",
     "{\"processId\":\"1\",\"argv\":[\"/client/codex-linux-sandbox\",\"--sandbox-policy-cwd\","
     "\"/w\",\"--sandbox-policy\",\"{\\\"type\\\":\\\"read-only\\\"}\",\"--\",\"sh\"],"
     "\"cwd\":\"/\",\"env\":{},\"tty\":false,"
     "\"sandbox\":{\"permissions\":{\"type\":\"disabled\"},\"windowsSandboxLevel\":\"disabled\"}}",
     "!-32602 a sandbox context and a sandbox program cannot be combined"},
};

static void join(char *const *list, char sep, char *out, size_t size)
{
    size_t n = 0;

    out[0] = '\0';
    for (size_t i = 0; list[i]; i++)
        n += (size_t)snprintf(out + n, size - n, "%.1s%s", i > 0 ? &sep : "", list[i]);
}

static void describe(const struct bly_start_params *p, char *out, size_t size)
{
    char argv[512], env[512];

    join(p->argv, '|', argv, sizeof(argv));
    join(p->envp, ',', env, sizeof(env));
    snprintf(out, size, "%s %s %s %s%s%s%s", argv, p->cwd, p->arg0 ? p->arg0 : "-", env,
             p->tty ? " tty" : "", p->pipe_stdin ? " pipe-stdin" : "", p->policy ? " policy" : "");
}

static void check_start(void **state)
{
    const struct start_case *c = *state;
    struct test_doc d = test_doc_of(c->json);
    struct bly_start_params p;
    struct bly_err err;
    int r = bly_proto_decode_start(d.root, &test_env, server_env, &p, &err);

    if (c->want[0] == '!') {
        assert_refused(c->want, r, &err);
        assert_null(p.argv);
    } else {
        char got[1200];
        size_t argc = 0;

        if (r < 0)
            fail_msg("refused: %s", err.text);
        describe(&p, got, sizeof(got));
        assert_string_equal(got, c->want);
        while (p.argv[argc])
            argc++;
        assert_int_equal(p.argc, argc);
    }
    bly_start_params_deinit(&p);
    test_doc_deinit(&d);
}

/* ---- the environment ---- */

/* `want`: the environment joined by ','. */
static struct env_case {
    const char *name, *policy, *env, *want;
} env_cases[] = {
    {"nothing is inherited without a policy", NULL, "{\"A\":\"1\"}", "A=1"},
    {"a null policy is none", "null", "{\"A\":\"1\"}", "A=1"},
    {"inherit none",
     "{\"inherit\":\"none\",\"ignoreDefaultExcludes\":true,\"exclude\":[],\"set\":{},"
     "\"includeOnly\":[]}",
     "{\"Z\":\"1\"}", "Z=1"},
    {"inherit core, env wins",
     "{\"inherit\":\"core\",\"ignoreDefaultExcludes\":true,\"exclude\":[],\"set\":{},"
     "\"includeOnly\":[]}",
     "{\"HOME\":\"/zz\"}", "HOME=/zz,PATH=/usr/bin:/bin"},
    {"inherit all, but not what is reserved",
     "{\"inherit\":\"all\",\"ignoreDefaultExcludes\":true,\"exclude\":[],\"set\":{},"
     "\"includeOnly\":[]}",
     "{}", "CLIENT_SECRETS=3,EMPTY=,HOME=/root,MY_KEY=1,PATH=/usr/bin:/bin,ZED=z,my_token=2"},
    {"default excludes drop what is inherited",
     "{\"inherit\":\"all\",\"ignoreDefaultExcludes\":false,\"exclude\":[],\"set\":{},"
     "\"includeOnly\":[]}",
     "{}", "EMPTY=,HOME=/root,PATH=/usr/bin:/bin,ZED=z"},
    {"default excludes keep set and env",
     "{\"inherit\":\"none\",\"ignoreDefaultExcludes\":false,\"exclude\":[],"
     "\"set\":{\"API_KEY\":\"2\",\"OK\":\"3\"},\"includeOnly\":[]}",
     "{\"MY_TOKEN\":\"1\"}", "API_KEY=2,MY_TOKEN=1,OK=3"},
    {"exclude is a glob in any case",
     "{\"inherit\":\"all\",\"ignoreDefaultExcludes\":true,\"exclude\":[\"p?th\",\"*_*\",\"e*\"],"
     "\"set\":{\"path_set\":\"1\"},\"includeOnly\":[]}",
     "{}", "HOME=/root,ZED=z,path_set=1"},
    {"set replaces what is inherited",
     "{\"inherit\":\"core\",\"ignoreDefaultExcludes\":true,\"exclude\":[],"
     "\"set\":{\"HOME\":\"/s\"},\"includeOnly\":[]}",
     "{}", "HOME=/s,PATH=/usr/bin:/bin"},
    {"includeOnly filters set, not env",
     "{\"inherit\":\"none\",\"ignoreDefaultExcludes\":true,\"exclude\":[],"
     "\"set\":{\"ZED\":\"1\",\"OTHER\":\"2\",\"zap\":\"3\"},\"includeOnly\":[\"z*\"]}",
     "{\"Q\":\"1\"}", "Q=1,ZED=1,zap=3"},
    {"includeOnly filters what is inherited",
     "{\"inherit\":\"all\",\"ignoreDefaultExcludes\":true,\"exclude\":[],\"set\":{},"
     "\"includeOnly\":[\"home\",\"Z??\"]}",
     "{}", "HOME=/root,ZED=z"},
    {"env wins over set",
     "{\"inherit\":\"none\",\"ignoreDefaultExcludes\":true,\"exclude\":[],"
     "\"set\":{\"A\":\"set\"},\"includeOnly\":[]}",
     "{\"A\":\"env\",\"a\":\"other\"}", "A=env,a=other"},
    {"reserved names do not come back by set or env",
     "{\"inherit\":\"none\",\"ignoreDefaultExcludes\":true,\"exclude\":[],"
     "\"set\":{\"openai_identity_token_file\":\"1\"},\"includeOnly\":[]}",
     "{\"OpenAI_Federation_Rule_Id\":\"2\",\"CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE\":\"3\","
     "\"codex_exec_server_exit_on_stdin_close\":\"4\"}",
     "codex_exec_server_exit_on_stdin_close=4"},
    {"empty values stay", NULL, "{\"A\":\"\",\"B\":\"=\"}", "A=,B=="},
};

static void check_env(void **state)
{
    const struct env_case *c = *state;
    struct bly_start_params p;
    char json[1024], got[512];
    struct bly_err err;
    struct test_doc d;

    snprintf(json, sizeof(json),
             "{\"processId\":\"p\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"tty\":false,\"env\":%s%s%s}",
             c->env, c->policy ? ",\"envPolicy\":" : "", c->policy ? c->policy : "");
    d = test_doc_of(json);
    if (bly_proto_decode_start(d.root, &test_env, server_env, &p, &err) < 0)
        fail_msg("refused: %s", err.text);
    join(p.envp, ',', got, sizeof(got));
    assert_string_equal(got, c->want);
    bly_start_params_deinit(&p);
    test_doc_deinit(&d);
}

static void an_unknown_way_to_inherit_is_named(void **state)
{
    struct test_doc d = test_doc_of(
        "{\"processId\":\"p\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"tty\":false,\"env\":{},"
        "\"envPolicy\":{\"inherit\":\"bogus\",\"ignoreDefaultExcludes\":true,\"exclude\":[],"
        "\"set\":{},\"includeOnly\":[]}}");
    struct bly_start_params p;
    struct bly_err err;

    (void)state;
    assert_refused("!-32602 unknown variant `bogus`, expected one of `all`, `core`, `none`",
                   bly_proto_decode_start(d.root, &test_env, server_env, &p, &err), &err);
    test_doc_deinit(&d);
}

/* More patterns or variables than this cost more time than the loop has. */
static void env_policies_are_limited(void **state)
{
    static const struct {
        const char *before, *item, *after;
        size_t n;
        bool fine;
    } rows[] = {
        {"\"set\":{},\"includeOnly\":[],\"exclude\":[\"\"", ",\"a\"", "]", BLY_ENV_PATTERNS_MAX - 1,
         true},
        {"\"set\":{},\"includeOnly\":[],\"exclude\":[\"\"", ",\"a\"", "]", BLY_ENV_PATTERNS_MAX,
         false},
        {"\"set\":{},\"exclude\":[],\"includeOnly\":[\"\"", ",\"a\"", "]", BLY_ENV_PATTERNS_MAX,
         false},
        {"\"exclude\":[],\"includeOnly\":[],\"set\":{\"\":\"\"", ",\"%zu\":\"\"", "}",
         BLY_ENV_VARIABLES_MAX - 1, true},
        {"\"exclude\":[],\"includeOnly\":[],\"set\":{\"\":\"\"", ",\"%zu\":\"\"", "}",
         BLY_ENV_VARIABLES_MAX, false},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        bly_autobuf struct bly_buf json;
        struct bly_start_params p;
        struct bly_err err;
        struct test_doc d;
        int r;

        bly_buf_init(&json, 1 << 20);
        bly_buf_printf(&json,
                       "{\"processId\":\"p\",\"argv\":[\"sh\"],\"cwd\":\"/\",\"tty\":false,"
                       "\"env\":{},\"envPolicy\":{\"inherit\":\"none\","
                       "\"ignoreDefaultExcludes\":true,%s",
                       rows[i].before);
        for (size_t k = 0; k < rows[i].n; k++) {
            if (strchr(rows[i].item, '%'))
                bly_buf_printf(&json, ",\"%zu\":\"\"", k);
            else
                bly_buf_add_str(&json, rows[i].item);
        }
        bly_buf_printf(&json, "%s}}", rows[i].after);
        bly_buf_add_char(&json, '\0');
        assert_int_equal(json.error, 0);

        d = test_doc_of((const char *)json.data);
        r = bly_proto_decode_start(d.root, &test_env, server_env, &p, &err);
        assert_int_equal(r, rows[i].fine ? 0 : -EINVAL);
        if (!rows[i].fine)
            assert_int_equal(err.kind, BLY_ERR_PARAMS);
        bly_start_params_deinit(&p);
        test_doc_deinit(&d);
    }
}

static void patterns_match_whole_names(void **state)
{
    static const struct {
        const char *pattern, *name;
        bool matches;
    } rows[] = {
        {"*", "", true},
        {"*", "ANY", true},
        {"", "", true},
        {"", "A", false},
        {"PATH", "path", true},
        {"PATH", "PATHS", false},
        {"PATH", "MYPATH", false},
        {"p?th", "PATH", true},
        {"p?th", "PTH", false},
        {"*KEY*", "MY_KEY_1", true},
        {"*KEY*", "KE_Y", false},
        {"a*b*c", "aXbXbXc", true},
        {"a*b*c", "aXbXbX", false},
        {"?", "", false},
        {"**", "x", true},
        {"*a", "aaaaaaaaab", false},
        {"[A]", "A", false},
        {"[A]", "[a]", true},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        if (bly_env_match(rows[i].pattern, strlen(rows[i].pattern), rows[i].name,
                          strlen(rows[i].name)) != rows[i].matches)
            fail_msg("`%s` and `%s`", rows[i].pattern, rows[i].name);
    }
}

/* ---- the other requests ---- */

static void reads_have_defaults(void **state)
{
    struct test_doc plain =
        test_doc_of("{\"processId\":\"p\",\"afterSeq\":null,\"maxBytes\":null}");
    struct test_doc full =
        test_doc_of("{\"processId\":\"\",\"afterSeq\":18446744073709551615,\"maxBytes\":0,"
                    "\"waitMs\":60000}");
    struct bly_process_params p;
    struct bly_err err;

    (void)state;
    assert_int_equal(bly_proto_decode_read(plain.root, &p, &err), 0);
    assert_int_equal(p.process_id_len, 1);
    assert_int_equal(p.after_seq, 0);
    assert_false(p.has_max_bytes);
    assert_true(p.max_bytes == UINT64_MAX);
    assert_int_equal(p.wait_ms, 0);

    assert_int_equal(bly_proto_decode_read(full.root, &p, &err), 0);
    assert_int_equal(p.process_id_len, 0);
    assert_true(p.after_seq == UINT64_MAX);
    assert_true(p.has_max_bytes);
    assert_int_equal(p.max_bytes, 0);
    assert_int_equal(p.wait_ms, 60000);
    test_doc_deinit(&plain);
    test_doc_deinit(&full);
}

/* `want`: the bytes, '/' and the writeId, or '!' and so on. */
static struct write_case {
    const char *name, *json, *want;
} write_cases[] = {
    {"write of B", "{\"processId\":\"p\",\"chunk\":\"aGkK\",\"writeId\":\"1\"}", "hi\n/1"},
    {"write of A", "{\"processId\":\"p\",\"chunk\":\"aGk=\"}", "hi/-"},
    {"write, null id", "{\"processId\":\"p\",\"chunk\":\"aA==\",\"writeId\":null}", "h/-"},
    {"write of nothing", "{\"processId\":\"p\",\"chunk\":\"\"}", "/-"},
    {"write, escaped text", "{\"processId\":\"p\",\"chunk\":\"a\\u0047kK\"}", "hi\n/-"},
    {"write, empty id", "{\"processId\":\"p\",\"chunk\":\"YQ==\",\"writeId\":\"\"}",
     "!-32602 writeId must not be empty"},
    {"write, id with NUL", "{\"processId\":\"p\",\"chunk\":\"YQ==\",\"writeId\":\"1\\u0000\"}",
     "!-32602 writeId must not contain a NUL byte"},
    {"write, wrong symbols", "{\"processId\":\"p\",\"chunk\":\"@@@\"}",
     "!-32602 invalid base64: *"},
    {"write, no padding", "{\"processId\":\"p\",\"chunk\":\"YQ\"}",
     "!-32602 invalid base64: Invalid padding"},
    {"write, URL alphabet", "{\"processId\":\"p\",\"chunk\":\"_-8=\"}",
     "!-32602 invalid base64: *"},
    {"write, line feed", "{\"processId\":\"p\",\"chunk\":\"YQ==\\n\"}",
     "!-32602 invalid base64: *"},
    {"write, trailing bits", "{\"processId\":\"p\",\"chunk\":\"YR==\"}",
     "!-32602 invalid base64: Invalid last symbol 82, offset 1."},
};

static void check_write(void **state)
{
    const struct write_case *c = *state;
    struct test_doc d = test_doc_of(c->json);
    struct bly_process_params p;
    struct bly_err err;
    int r = bly_proto_decode_write(d.root, &p, &err);

    if (c->want[0] == '!') {
        assert_refused(c->want, r, &err);
    } else {
        char got[64];

        assert_int_equal(r, 0);
        snprintf(got, sizeof(got), "%.*s/%s", (int)p.data_len, p.data,
                 p.write_id ? p.write_id : "-");
        assert_string_equal(got, c->want);
    }
    test_doc_deinit(&d);
}

static void only_interrupt_is_a_signal(void **state)
{
    struct test_doc d = test_doc_of("{\"processId\":\"p\",\"signal\":\"kill\"}");
    struct bly_process_params p;
    struct bly_err err;

    (void)state;
    assert_refused("!-32602 unknown variant `kill`, expected `interrupt`",
                   bly_proto_decode_signal(d.root, &p, &err), &err);
    test_doc_deinit(&d);
}

static void initialize_keeps_its_strings(void **state)
{
    struct test_doc d = test_doc_of("{\"clientName\":\"a\\u0000b\",\"resumeSessionId\":null}");
    struct test_doc e = test_doc_of("{\"clientName\":\"\",\"resumeSessionId\":\"s\"}");
    struct bly_initialize_params p;
    struct bly_err err;

    (void)state;
    assert_int_equal(bly_proto_decode_initialize(d.root, &p, &err), 0);
    assert_int_equal(p.client_name_len, 3);
    assert_null(p.resume_session_id);
    assert_int_equal(bly_proto_decode_initialize(e.root, &p, &err), 0);
    assert_int_equal(p.client_name_len, 0);
    assert_string_equal(p.resume_session_id, "s");
    assert_int_equal(p.resume_session_id_len, 1);
    test_doc_deinit(&d);
    test_doc_deinit(&e);
}

/* ---- process/read answers ---- */

#define CHUNK_1 "{\"seq\":1,\"stream\":\"stdout\",\"chunk\":\"YWFh\"}"
#define CHUNK_2 "{\"seq\":2,\"stream\":\"stderr\",\"chunk\":\"YmJi\"}"
#define CHUNK_4 "{\"seq\":4,\"stream\":\"pty\",\"chunk\":\"Y2NjYw==\"}"
#define REST \
    ",\"exited\":true,\"exitCode\":3,\"closed\":false,\"failure\":null,\"sandboxDenied\":true}"

/* The ring has aaa (1), bbb (2) and cccc (4); 3, 5 and 6 were no output, 7 comes next. */
static struct read_case {
    const char *name;
    uint64_t after;
    uint64_t max_bytes; /* UINT64_MAX: not given */
    size_t max_message_bytes;
    const char *want;
} read_cases[] = {
    {"everything", 0, UINT64_MAX, 1 << 20,
     "{\"chunks\":[" CHUNK_1 "," CHUNK_2 "," CHUNK_4 "],\"nextSeq\":7" REST},
    {"after the first", 1, UINT64_MAX, 1 << 20,
     "{\"chunks\":[" CHUNK_2 "," CHUNK_4 "],\"nextSeq\":7" REST},
    {"after the exit", 3, UINT64_MAX, 1 << 20, "{\"chunks\":[" CHUNK_4 "],\"nextSeq\":7" REST},
    {"after the end", 4, UINT64_MAX, 1 << 20, "{\"chunks\":[],\"nextSeq\":7" REST},
    {"after what will never be", 99, UINT64_MAX, 1 << 20, "{\"chunks\":[],\"nextSeq\":7" REST},
    {"maxBytes 0 gives one chunk", 0, 0, 1 << 20, "{\"chunks\":[" CHUNK_1 "],\"nextSeq\":2" REST},
    {"maxBytes below two chunks", 0, 5, 1 << 20, "{\"chunks\":[" CHUNK_1 "],\"nextSeq\":2" REST},
    {"maxBytes of two chunks", 0, 6, 1 << 20,
     "{\"chunks\":[" CHUNK_1 "," CHUNK_2 "],\"nextSeq\":3" REST},
    {"maxBytes above all", 0, 1000, 1 << 20,
     "{\"chunks\":[" CHUNK_1 "," CHUNK_2 "," CHUNK_4 "],\"nextSeq\":5" REST},
    {"maxBytes at the end", 4, 1000, 1 << 20, "{\"chunks\":[],\"nextSeq\":7" REST},
    {"a small message is cut, and says so", 0, UINT64_MAX, 400,
     "{\"chunks\":[" CHUNK_1 "],\"nextSeq\":2" REST},
    {"a tiny message has one chunk all the same", 1, UINT64_MAX, 10,
     "{\"chunks\":[" CHUNK_2 "],\"nextSeq\":3" REST},
};

static struct bly_ring *small_ring(void)
{
    struct bly_ring *ring = NULL;

    assert_int_equal(bly_ring_new(1 << 20, 100, &ring), 0);
    assert_int_equal(bly_ring_push(ring, 1, BLY_STDOUT, "aaa", 3), 0);
    assert_int_equal(bly_ring_push(ring, 2, BLY_STDERR, "bbb", 3), 0);
    assert_int_equal(bly_ring_push(ring, 4, BLY_PTY, "cccc", 4), 0);
    return ring;
}

static void check_read(void **state)
{
    const struct read_case *c = *state;
    struct bly_process_state process = {
        .exited = true, .sandbox_denied = true, .exit_code = 3, .next_seq = 7, .exit_seq = 3};
    struct bly_ring *ring = small_ring();
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, 1 << 20);
    bly_proto_encode_read(ring, &process, c->after, c->max_bytes, c->max_bytes != UINT64_MAX,
                          c->max_message_bytes, &buf);
    assert_buf(&buf, c->want);
    bly_ring_free(ring);
}

static void a_running_process_has_no_exit_code(void **state)
{
    struct bly_process_state process = {.next_seq = 1};
    struct bly_ring *ring = NULL;
    bly_autobuf struct bly_buf buf;

    (void)state;
    assert_int_equal(bly_ring_new(1024, 10, &ring), 0);
    bly_buf_init(&buf, 1024);
    bly_proto_encode_read(ring, &process, 0, UINT64_MAX, false, 1024, &buf);
    assert_buf(&buf, "{\"chunks\":[],\"nextSeq\":1,\"exited\":false,\"exitCode\":null,"
                     "\"closed\":false,\"failure\":null,\"sandboxDenied\":false}");
    bly_ring_free(ring);
}

/* However small the message limit is, paging by nextSeq shows each chunk once, and none too many.
 */
static void cut_answers_stay_below_the_limit(void **state)
{
    enum { CHUNKS = 200, LIMIT = 2000 };
    struct bly_process_state process = {.next_seq = CHUNKS + 1};
    struct bly_ring *ring = NULL;
    uint64_t after = 0;
    size_t pages = 0;

    (void)state;
    assert_int_equal(bly_ring_new(1 << 20, CHUNKS, &ring), 0);
    for (uint64_t seq = 1; seq <= CHUNKS; seq++)
        assert_int_equal(bly_ring_push(ring, seq, BLY_STDERR, "0123456789", 10), 0);

    while (after < CHUNKS) {
        bly_autobuf struct bly_buf buf;
        const char *next;
        uint64_t seq;

        bly_buf_init(&buf, 1 << 20);
        bly_proto_encode_read(ring, &process, after, UINT64_MAX, false, LIMIT, &buf);
        bly_buf_add_char(&buf, '\0');
        assert_true(buf.error == 0 && buf.len < LIMIT);
        next = strstr((const char *)buf.data, "\"nextSeq\":");
        assert_non_null(next);
        seq = strtoull(next + strlen("\"nextSeq\":"), NULL, 10);
        assert_true(seq > after + 1);
        after = seq - 1;
        pages++;
    }
    assert_int_equal(after, CHUNKS);
    assert_true(pages > 5);
    bly_ring_free(ring);
}

/* ---- other answers, notifications ---- */

static void starts_say_whether_there_is_a_wall(void **state)
{
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 1024);
    bly_proto_encode_start("\xc3\xa9\n", 3, false, &buf);
    assert_buf(&buf, "{\"processId\":\"\xc3\xa9\\n\",\"sandboxType\":\"none\"}");
    buf.len = 0;
    bly_proto_encode_start("", 0, true, &buf);
    assert_buf(&buf, "{\"processId\":\"\",\"sandboxType\":\"linuxSeccomp\"}");
}

static void notifications_are_whole_messages(void **state)
{
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 1024);
    bly_proto_add_output(&buf, "p", 1, 1, BLY_STDOUT, (const uint8_t *)"hi\n", 3);
    assert_buf(&buf, "{\"method\":\"process/output\",\"params\":{\"processId\":\"p\",\"seq\":1,"
                     "\"stream\":\"stdout\",\"chunk\":\"aGkK\"}}");
    buf.len = 0;
    bly_proto_add_output(&buf, "a\0b", 3, UINT64_MAX, BLY_PTY, (const uint8_t *)"\xff", 1);
    assert_buf(&buf, "{\"method\":\"process/output\",\"params\":{\"processId\":\"a\\u0000b\","
                     "\"seq\":18446744073709551615,\"stream\":\"pty\",\"chunk\":\"/w==\"}}");
    buf.len = 0;
    bly_proto_add_exited(&buf, "p", 1, 2, 137, true);
    assert_buf(&buf, "{\"method\":\"process/exited\",\"params\":{\"processId\":\"p\",\"seq\":2,"
                     "\"exitCode\":137,\"sandboxDenied\":true}}");
    buf.len = 0;
    bly_proto_add_closed(&buf, "p", 1, 3);
    assert_buf(&buf, "{\"method\":\"process/closed\",\"params\":{\"processId\":\"p\",\"seq\":3}}");
}

static void environments_leave_out_what_is_not_known(void **state)
{
    static const char capabilities[] =
        "\"capabilities\":{\"networkProxyLaunch\":false,\"networkProxyReviewDomains\":false,"
        "\"credentialMasking\":false,\"credentialMaskingCustomProviders\":false,"
        "\"capabilityDiscoverySandbox\":true,\"capabilityDiscoveryV2\":false,"
        "\"fsWatchMissing\":false,\"environmentConfigRead\":false,\"httpHeaderEnvVars\":false,"
        "\"sandboxedFileStreaming\":true,\"fileWriteStreaming\":true,\"shellSnapshotV2\":false,"
        "\"windowsMxc\":false,\"linuxRootWritePreservesDevices\":false,"
        "\"linuxApprovedRootWritePreservesRestrictions\":false}}";
    struct bly_environment environment = {.shell_name = "bash",
                                          .shell_path = "/bin/bash",
                                          .version = "0.1.0",
                                          .provider_id = "sha256:00",
                                          .cwd = "/w/a b"};
    bly_autobuf struct bly_buf buf;
    char want[2048];

    (void)state;
    bly_buf_init(&buf, 4096);
    snprintf(want, sizeof(want),
             "{\"shell\":{\"name\":\"bash\",\"path\":\"/bin/bash\"},\"executorVersion\":\"0.1.0\","
             "\"providerId\":\"sha256:00\",\"cwd\":\"file:///w/a%%20b\",\"platformOs\":\"linux\","
             "\"temporaryDirectories\":[],\"tempDir\":\"file:///tmp\",%s",
             capabilities);
    bly_proto_encode_environment(&environment, &buf);
    assert_buf(&buf, want);

    environment.home = "/root";
    environment.tmpdir = "/var/tmp";
    buf.len = 0;
    snprintf(want, sizeof(want),
             "{\"sessionId\":\"s-1\",\"environmentInfo\":{\"shell\":{\"name\":\"bash\","
             "\"path\":\"/bin/bash\"},\"executorVersion\":\"0.1.0\",\"providerId\":\"sha256:00\","
             "\"cwd\":\"file:///w/a%%20b\",\"userHomeDir\":\"file:///root\","
             "\"platformOs\":\"linux\",\"temporaryDirectories\":[\"file:///var/tmp\"],"
             "\"tempDir\":\"file:///tmp\",%s}",
             capabilities);
    bly_proto_encode_initialize("s-1", &environment, &buf);
    assert_buf(&buf, want);

    environment = (struct bly_environment){.shell_name = "sh",
                                           .shell_path = "/bin/sh",
                                           .version = "1",
                                           .provider_id = "x",
                                           .cwd = "/",
                                           .rung = 2,
                                           .landlock = 7,
                                           .rung_reason = "no \"namespaces\""};
    buf.len = 0;
    bly_proto_encode_environment(&environment, &buf);
    (void)bly_buf_add_char(&buf, '\0');
    assert_non_null(strstr((const char *)buf.data, ",\"sandbox\":{\"rung\":2,\"landlock\":7,"
                                                   "\"reason\":\"no \\\"namespaces\\\"\"}}"));
    environment.rung = 1;
    environment.rung_reason = NULL;
    buf.len = 0;
    bly_proto_encode_environment(&environment, &buf);
    (void)bly_buf_add_char(&buf, '\0');
    assert_non_null(strstr((const char *)buf.data, ",\"sandbox\":{\"rung\":1,\"landlock\":7}}"));
}

static void a_capability_depends_on_the_watcher(void **state)
{
    struct bly_environment environment = {
        .shell_name = "sh", .shell_path = "/bin/sh", .version = "1", .provider_id = "", .cwd = "/"};
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 4096);
    environment.watches_missing = true;
    bly_proto_encode_environment(&environment, &buf);
    bly_buf_add_char(&buf, '\0');
    assert_non_null(strstr((char *)buf.data, "\"fsWatchMissing\":true,"));
}

static void configurations_leave_out_what_is_not_known(void **state)
{
    static const char nothing[] = "{\"layers\":[],\"cloudInsertionIndex\":0}";
    struct bly_environment environment = {0};
    bly_autobuf struct bly_buf buf;
    char want[512];

    (void)state;
    bly_buf_init(&buf, 4096);
    snprintf(want, sizeof(want), "{\"config\":%s,\"requirements\":%s}", nothing, nothing);
    bly_proto_encode_config(&environment, &buf);
    assert_buf(&buf, want);

    environment =
        (struct bly_environment){.home = "/h", .codex_home = "/h/.codex", .hostname = "a\"b"};
    buf.len = 0;
    snprintf(want, sizeof(want),
             "{\"userHomeDir\":\"file:///h\",\"codexHomeDir\":\"file:///h/.codex\","
             "\"hostname\":\"a\\\"b\",\"config\":%s,\"requirements\":%s}",
             nothing, nothing);
    bly_proto_encode_config(&environment, &buf);
    assert_buf(&buf, want);
}

static void a_change_names_its_watch(void **state)
{
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 4096);
    bly_proto_add_missing_changed(&buf, UINT64_MAX);
    assert_buf(&buf, "{\"method\":\"fs/missingChanged\",\"params\":{\"watchId\":"
                     "18446744073709551615}}");
}

static const struct CMUnitTest plain_tests[] = {
    cmocka_unit_test(a_capability_depends_on_the_watcher),
    cmocka_unit_test(configurations_leave_out_what_is_not_known),
    cmocka_unit_test(a_change_names_its_watch),
    cmocka_unit_test(an_unknown_way_to_inherit_is_named),
    cmocka_unit_test(env_policies_are_limited),
    cmocka_unit_test(patterns_match_whole_names),
    cmocka_unit_test(reads_have_defaults),
    cmocka_unit_test(only_interrupt_is_a_signal),
    cmocka_unit_test(initialize_keeps_its_strings),
    cmocka_unit_test(a_running_process_has_no_exit_code),
    cmocka_unit_test(cut_answers_stay_below_the_limit),
    cmocka_unit_test(starts_say_whether_there_is_a_wall),
    cmocka_unit_test(notifications_are_whole_messages),
    cmocka_unit_test(environments_leave_out_what_is_not_known),
};

static struct CMUnitTest tests[BLY_LEN(start_cases) + BLY_LEN(env_cases) + BLY_LEN(write_cases) +
                               BLY_LEN(read_cases) + BLY_LEN(plain_tests)];

int main(void)
{
    size_t n = 0;

    ADD_ROWS(tests, n, start_cases, check_start);
    ADD_ROWS(tests, n, env_cases, check_env);
    ADD_ROWS(tests, n, write_cases, check_write);
    ADD_ROWS(tests, n, read_cases, check_read);
    for (size_t i = 0; i < BLY_LEN(plain_tests); i++)
        tests[n++] = plain_tests[i];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
