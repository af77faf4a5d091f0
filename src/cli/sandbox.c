#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "cli/cli.h"
#include "cli/explain.h"
#include "cli/walled.h"
#include "launcher/probe.h"
#include "sandbox/enforce/wall.h"
#include "sandbox/policy/policy.h"
#include "sandbox/policy/wrapper.h"
#include "server/environment.h"

enum {
    POLICY_BYTES_MAX = 16 << 20,
    MAX_GRANTS = 1024, /* --read, --write and --deny together */
};

/* ---- the program bailey-linux-sandbox ------------------------------------------------------- */

/* Whatever goes wrong before the command runs is an error here: it is never run with less. */
static int run_wrapper(int argc, char **argv, const struct bly_environment_facts *facts,
                       struct bly_err *err)
{
    struct bly_wrapper wrapper;
    struct bly_walled walled;
    int r = bly_wrapper_parse(argv, (size_t)argc, &facts->policy_env, &wrapper, err);

    if (r < 0)
        return r;
    walled = (struct bly_walled){
        .policy = wrapper.policy,
        .command = argv + wrapper.command_index,
        .cwd = wrapper.command_cwd ? wrapper.command_cwd : facts->cwd,
    };
    r = bly_walled_run(&walled, err);
    bly_wrapper_deinit(&wrapper);
    return r;
}

int bly_cli_linux_sandbox(int argc, char **argv)
{
    struct bly_environment_facts facts;
    struct bly_err err;
    int r;

    bly_err_clear(&err);
    r = bly_environment_facts_init(&facts, &err);
    if (r < 0)
        return bly_walled_fail("bailey-linux-sandbox", &err);
    r = run_wrapper(argc, argv, &facts, &err);
    bly_environment_facts_deinit(&facts);
    return r < 0 ? bly_walled_fail("bailey-linux-sandbox", &err) : r;
}

/* ---- bailey sandbox: options ---------------------------------------------------------------- */

/* Where the policy comes from. */
enum source { GRANTS, READ_ONLY, WORKSPACE_WRITE, POLICY_FILE, PROFILE };

struct grant {
    const char *access;
    const char *path;
};

struct settings {
    enum source source;
    bool has_source;
    const char *source_text;
    struct grant grants[MAX_GRANTS];
    size_t n_grants;
    const char *cwd;
    bool network, explain, json, allow_landlock, help;
};

static int set_source(struct settings *settings, enum source source, const char *text)
{
    if (settings->has_source)
        return -EEXIST;
    settings->has_source = true;
    settings->source = source;
    settings->source_text = text;
    return 0;
}

static int set_policy(struct settings *settings, const char *value)
{
    return set_source(settings, POLICY_FILE, value);
}

static int set_profile(struct settings *settings, const char *value)
{
    return set_source(settings, PROFILE, value);
}

static int set_read_only(struct settings *settings, const char *value)
{
    return set_source(settings, READ_ONLY, value);
}

static int set_workspace_write(struct settings *settings, const char *value)
{
    return set_source(settings, WORKSPACE_WRITE, value);
}

static int add_grant(struct settings *settings, const char *access, const char *path)
{
    if (settings->n_grants == MAX_GRANTS)
        return -E2BIG;
    if (path[0] == '\0')
        return -EINVAL;
    settings->grants[settings->n_grants++] = (struct grant){access, path};
    return 0;
}

static int add_write(struct settings *settings, const char *value)
{
    return add_grant(settings, "write", value);
}

static int add_read(struct settings *settings, const char *value)
{
    return add_grant(settings, "read", value);
}

static int add_deny(struct settings *settings, const char *value)
{
    return add_grant(settings, "deny", value);
}

static int set_cwd(struct settings *settings, const char *value)
{
    settings->cwd = value;
    return 0;
}

static int set_network(struct settings *settings, const char *value)
{
    (void)value;
    settings->network = true;
    return 0;
}

static int set_explain(struct settings *settings, const char *value)
{
    (void)value;
    settings->explain = true;
    return 0;
}

static int set_json(struct settings *settings, const char *value)
{
    (void)value;
    settings->json = true;
    return 0;
}

static int set_allow_landlock(struct settings *settings, const char *value)
{
    (void)value;
    settings->allow_landlock = true;
    return 0;
}

static int set_help(struct settings *settings, const char *value)
{
    (void)value;
    settings->help = true;
    return 0;
}

static const struct setting {
    const char *name;
    const char *argument; /* NULL: takes none */
    int (*set)(struct settings *settings, const char *value);
    const char *sentence;
} table[] = {
    {"read-only", NULL, set_read_only,
     "read everything, write nothing (what is done without options)"},
    {"workspace-write", NULL, set_workspace_write,
     "read everything, write the working directory, /tmp and $TMPDIR"},
    {"policy", "FILE", set_policy,
     "the policy in FILE, in either form of a sandbox member; - is stdin"},
    {"profile-json", "TEXT", set_profile,
     "a permission profile, as in the permissions of that member"},
    {"write", "PATH", add_write, "grant PATH, to read and to write"},
    {"read", "PATH", add_read,
     "grant PATH to read; then nothing is read but what is granted and the system's own "
     "directories"},
    {"deny", "PATH", add_deny, "deny PATH, also where more is granted"},
    {"network", NULL, set_network, "let the command use the network"},
    {"cwd", "DIR", set_cwd, "the directory the command starts in (this one)"},
    {"allow-landlock-processes", NULL, set_allow_landlock,
     "without namespaces: let a command that may read everything and write nothing run behind "
     "Landlock alone"},
    {"explain", NULL, set_explain,
     "run nothing, show the policy and what would be enforced, and why"},
    {"json", NULL, set_json, "with --explain: as JSON"},
    {"help", NULL, set_help, "show this"},
};

void bly_cli_sandbox_help(FILE *out)
{
    (void)fputs("usage: bailey sandbox [OPTION...] [--] COMMAND [ARGUMENT...]\n"
                "       bailey sandbox --explain [OPTION...]\n\n"
                "Runs a command behind the wall that the server puts around programs. Protected\n"
                "names (.git, .agents, .codex, .aws) in what it may write stay read-only.\n\n",
                out);
    for (size_t i = 0; i < BLY_LEN(table); i++)
        (void)fprintf(out, "  --%s%s%s\n        %s\n", table[i].name, table[i].argument ? " " : "",
                      table[i].argument ? table[i].argument : "", table[i].sentence);
    (void)fputs("\nExit status: that of the command, 128 + N when signal N ended it; 125 when the\n"
                "arguments are wrong or the wall cannot be built, 126 when the command cannot be\n"
                "executed, 127 when it is not found.\n",
                out);
}

static void make_options(struct option options[BLY_LEN(table) + 1])
{
    for (size_t i = 0; i < BLY_LEN(table); i++)
        options[i] = (struct option){.name = table[i].name,
                                     .has_arg = table[i].argument ? required_argument : no_argument,
                                     .val = (int)i};
    options[BLY_LEN(table)] = (struct option){0};
}

static int complain(const char *option, int r)
{
    (void)fprintf(stderr, "bailey sandbox: --%s: %s\n", option,
                  r == -EEXIST  ? "a policy was given already"
                  : r == -E2BIG ? "too many paths"
                                : "an empty path");
    return r;
}

static int parse(struct settings *settings, int argc, char **argv)
{
    struct option options[BLY_LEN(table) + 1];
    int row, r;

    make_options(options);
    optind = 1;
    /* "+": what belongs to the command is not ours. */
    while ((row = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        if (row == '?')
            return -EINVAL;
        r = table[row].set(settings, optarg);
        if (r < 0)
            return complain(table[row].name, r);
    }
    return 0;
}

/* What makes no sense together. NULL: nothing. */
static const char *find_contradiction(const struct settings *settings, bool has_command)
{
    bool ready_made = settings->source == POLICY_FILE || settings->source == PROFILE;

    if (ready_made && settings->n_grants > 0)
        return "--write, --read and --deny do not go with a ready-made policy";
    if (ready_made && settings->network)
        return "--network does not go with a ready-made policy";
    if (settings->json && !settings->explain)
        return "--json goes with --explain";
    if (!has_command && !settings->explain)
        return "no command";
    return NULL;
}

/* ---- bailey sandbox: the policy ------------------------------------------------------------- */

static int absolute(const char *base, const char *path, char **ret_path, struct bly_err *err)
{
    *ret_path = NULL;
    if (path[0] != '/')
        *ret_path = bly_path_join(base, path);
    else if (bly_path_normalise(path, strlen(path), ret_path) == -EINVAL)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "this is no path: %s", path);
    return *ret_path != NULL ? 0 : bly_fail_sys(err, ENOMEM, "cannot keep %s", path);
}

static void add_uri(struct bly_buf *buf, const char *path)
{
    (void)bly_buf_add_char(buf, '"');
    (void)bly_path_to_uri(buf, path);
    (void)bly_buf_add_char(buf, '"');
}

static void add_special(struct bly_buf *buf, const char *kind, const char *access)
{
    (void)bly_buf_printf(buf,
                         "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"%s\"}},"
                         "\"access\":\"%s\"},",
                         kind, access);
}

/* Relative ones start where we are, not where the command does. */
static int add_grants(const struct settings *settings, const char *here, struct bly_buf *buf,
                      struct bly_err *err)
{
    for (size_t i = 0; i < settings->n_grants; i++) {
        bly_autofree char *path = NULL;
        int r = absolute(here, settings->grants[i].path, &path, err);

        if (r < 0)
            return r;
        (void)bly_buf_add_str(buf, "{\"path\":{\"type\":\"path\",\"path\":");
        add_uri(buf, path);
        (void)bly_buf_printf(buf, "},\"access\":\"%s\"},", settings->grants[i].access);
    }
    return buf->error;
}

static bool restricts_reading(const struct settings *settings)
{
    for (size_t i = 0; i < settings->n_grants; i++)
        if (strcmp(settings->grants[i].access, "read") == 0)
            return true;
    return false;
}

static int add_made_profile(const struct settings *settings, const char *here, struct bly_buf *buf,
                            struct bly_err *err)
{
    int r;

    (void)bly_buf_printf(buf,
                         "{\"type\":\"managed\",\"network\":\"%s\",\"file_system\":"
                         "{\"type\":\"restricted\",\"entries\":[",
                         settings->network ? "enabled" : "restricted");
    add_special(buf, restricts_reading(settings) ? "minimal" : "root", "read");
    if (settings->source == WORKSPACE_WRITE) {
        add_special(buf, "project_roots", "write");
        add_special(buf, "slash_tmp", "write");
        add_special(buf, "tmpdir", "write");
    }
    r = add_grants(settings, here, buf, err);
    if (r == 0 && buf->error == 0)
        buf->len--; /* the last comma */
    (void)bly_buf_add_str(buf, "]}}");
    return r < 0 ? r : buf->error;
}

static int read_policy(const char *path, struct bly_buf *buf, struct bly_err *err)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    size_t n;

    if (file == NULL)
        return bly_fail_sys(err, errno, "cannot open %s", path);
    do {
        if (bly_buf_reserve(buf, 4096) < 0)
            break;
        n = fread(buf->data + buf->len, 1, 4096, file);
        buf->len += n;
    } while (n > 0);
    if (ferror(file))
        (void)bly_fail_sys(err, errno, "cannot read %s", path);
    else if (buf->error < 0)
        (void)bly_fail(err, BLY_ERR_LIMIT, EFBIG, "%s is too large for a policy", path);
    else
        (void)bly_buf_add_char(buf, '\0');
    if (file != stdin)
        (void)fclose(file);
    if (err->kind == BLY_ERR_NONE && memchr(buf->data, '\0', buf->len - 1) != NULL)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "%s is no text", path);
    return err->kind == BLY_ERR_NONE ? 0 : -EINVAL;
}

/* The sandbox member that a client would send. */
static int write_context(const struct settings *settings, const char *here, const char *cwd,
                         struct bly_buf *buf, struct bly_err *err)
{
    int r = 0;

    if (settings->source == POLICY_FILE)
        return read_policy(settings->source_text, buf, err);
    (void)bly_buf_add_str(buf, "{\"windowsSandboxLevel\":\"disabled\",\"cwd\":");
    add_uri(buf, cwd);
    (void)bly_buf_add_str(buf, ",\"workspaceRoots\":[");
    add_uri(buf, cwd);
    (void)bly_buf_add_str(buf, "],\"permissions\":");
    if (settings->source == PROFILE)
        (void)bly_buf_add_str(buf, settings->source_text);
    else
        r = add_made_profile(settings, here, buf, err);
    (void)bly_buf_add_str(buf, "}");
    (void)bly_buf_add_char(buf, '\0');
    return r < 0 ? r : buf->error;
}

static int make_policy(const struct settings *settings, const struct bly_environment_facts *facts,
                       const char *cwd, struct bly_policy **ret_policy, struct bly_err *err)
{
    /* The workspace of form A. */
    const struct bly_policy_env env = {.cwd = cwd, .tmpdir = facts->policy_env.tmpdir};
    bly_autobuf struct bly_buf context;
    int r;

    bly_buf_init(&context, POLICY_BYTES_MAX);
    r = write_context(settings, facts->cwd, cwd, &context, err);
    if (r == 0)
        r = bly_policy_parse_text((const char *)context.data, &env, ret_policy, err);
    if (r < 0 && err->kind == BLY_ERR_NONE)
        (void)bly_fail_sys(err, -r, "cannot read the policy");
    return r < 0 ? bly_because(err, r, "policy") : 0;
}

/* ---- bailey sandbox ------------------------------------------------------------------------- */

static int explain(const struct settings *settings, const struct bly_policy *policy,
                   struct bly_err *err)
{
    struct bly_features features;
    int r = bly_wall_prepare(err);

    if (r < 0)
        return r;
    bly_probe_features(&features);
    features.allow_processes = settings->allow_landlock;
    return bly_explain(policy, &features, settings->json, err);
}

static int run(const struct settings *settings, const struct bly_environment_facts *facts,
               char **command, struct bly_err *err)
{
    bly_autofree char *cwd = NULL;
    struct bly_policy *policy = NULL;
    struct bly_walled walled = {.command = command, .own_terminal = true};
    int r = absolute(facts->cwd, settings->cwd ? settings->cwd : ".", &cwd, err);

    if (r == 0)
        r = make_policy(settings, facts, cwd, &policy, err);
    if (r < 0)
        return r;
    walled.policy = policy;
    walled.cwd = cwd;
    walled.allow_landlock = settings->allow_landlock;
    r = settings->explain ? explain(settings, policy, err) : bly_walled_run(&walled, err);
    (void)bly_policy_unref(policy);
    return r;
}

int bly_cli_sandbox(int argc, char **argv)
{
    static struct settings settings; /* large */
    struct bly_environment_facts facts;
    const char *contradiction = NULL;
    struct bly_err err;
    int r = parse(&settings, argc, argv);

    bly_err_clear(&err);
    if (r == 0 && settings.help) {
        bly_cli_sandbox_help(stdout);
        return 0;
    }
    if (r == 0)
        contradiction = find_contradiction(&settings, optind < argc);
    if (contradiction)
        (void)fprintf(stderr, "bailey sandbox: %s\n", contradiction);
    if (r < 0 || contradiction) {
        (void)fputs("Try 'bailey help sandbox'.\n", stderr);
        return BLY_EXIT_NO_WALL;
    }
    r = bly_environment_facts_init(&facts, &err);
    if (r < 0)
        return bly_walled_fail("bailey sandbox", &err);
    r = run(&settings, &facts, argv + optind, &err);
    bly_environment_facts_deinit(&facts);
    return r < 0 ? bly_walled_fail("bailey sandbox", &err) : r;
}
