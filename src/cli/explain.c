#include "cli/explain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "sandbox/enforce/rung.h"
#include "sandbox/plan/explain.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"

enum { TEXT_MAX = 64 << 20, PATH_COLUMN = 32 };

struct verdict {
    int rung;           /* negative: refused */
    struct bly_err why; /* then */
};

/* ---- for people ---- */

/* As the printers of policies and plans do: a newline in a name must not look like a line. */
static void add_plain(struct bly_buf *buf, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c < 0x20 || c == 0x7f)
            (void)bly_buf_printf(buf, "\\x%02x", c);
        else
            (void)bly_buf_add_char(buf, *text);
    }
}

static int add_line(void *arg, const struct bly_explanation *step)
{
    struct bly_buf *buf = arg;
    size_t begin;

    (void)bly_buf_printf(buf, "  %-9s ", step->step);
    begin = buf->len;
    add_plain(buf, step->path);
    if (step->target != NULL) {
        (void)bly_buf_add_str(buf, " -> ");
        add_plain(buf, step->target);
    }
    do
        (void)bly_buf_add_char(buf, ' ');
    while (buf->error == 0 && buf->len - begin < PATH_COLUMN);
    (void)bly_buf_add_str(buf, "  ");
    add_plain(buf, step->why);
    return bly_buf_add_char(buf, '\n');
}

static void add_verdict(struct bly_buf *buf, const struct verdict *verdict)
{
    static const char *const rungs[] = {
        [BLY_RUNG_NONE] = "no wall: it runs as it is",
        [BLY_RUNG_NAMESPACES] = "rung 1: namespaces, Landlock inside, a system call filter",
        [BLY_RUNG_LANDLOCK] = "rung 2: Landlock and a system call filter",
    };

    if (verdict->rung < 0)
        (void)bly_buf_printf(buf, "refused: %s\n", verdict->why.text);
    else
        (void)bly_buf_printf(buf, "%s\n", rungs[verdict->rung]);
}

static int explain_to_people(const struct bly_policy *policy, const struct bly_plan *plan,
                             const struct verdict *verdict, struct bly_buf *buf)
{
    bly_autobuf struct bly_buf rules;
    char *rest;
    int r;

    bly_buf_init(&rules, TEXT_MAX);
    r = bly_policy_print(policy, &rules);
    (void)bly_buf_add_char(&rules, '\0');
    if (r < 0)
        return r;
    (void)bly_buf_add_str(buf, "policy:\n");
    for (char *line = strtok_r((char *)rules.data, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest))
        (void)bly_buf_printf(buf, "  %s\n", line);
    (void)bly_buf_add_str(buf, "plan:\n");
    if (plan != NULL)
        r = bly_plan_explain(plan, policy, add_line, buf);
    (void)bly_buf_printf(buf, "network: %s\n",
                         policy->network ? "the host's" : "none, a namespace of its own");
    add_verdict(buf, verdict);
    return r < 0 ? r : buf->error;
}

/* ---- as JSON ---- */

static void add_member(struct bly_buf *buf, const char *name, const char *value)
{
    (void)bly_buf_printf(buf, ",\"%s\":", name);
    (void)bly_json_add_cstr(buf, value);
}

static void add_rule(struct bly_buf *buf, const struct bly_rule *rule)
{
    static const char *const words[] = {"none", "read", "write", "deny"};

    (void)bly_buf_add_str(buf, "{\"path\":");
    (void)bly_json_add_cstr(buf, rule->path);
    add_member(buf, "access", words[rule->access]);
    (void)bly_buf_printf(buf, ",\"implied\":%s}",
                         rule->flags & BLY_RULE_IMPLIED ? "true" : "false");
}

static int add_policy(struct bly_buf *buf, const struct bly_policy *policy)
{
    struct bly_policy *whole = bly_policy_spell_out(policy);

    if (whole == NULL)
        return -ENOMEM;
    (void)bly_buf_printf(buf, "{\"wall\":%s,\"network\":%s,\"minimal\":%s,\"rules\":[",
                         policy->wall ? "true" : "false", policy->network ? "true" : "false",
                         policy->minimal ? "true" : "false");
    for (size_t i = 0; i < whole->n_rules; i++) {
        (void)bly_buf_add_str(buf, i == 0 ? "" : ",");
        add_rule(buf, &whole->rules[i]);
    }
    (void)bly_policy_unref(whole);
    (void)bly_buf_add_str(buf, "],\"denyGlobs\":[");
    for (size_t i = 0; i < policy->n_deny_globs; i++) {
        (void)bly_buf_add_str(buf, i == 0 ? "" : ",");
        (void)bly_json_add_cstr(buf, policy->deny_globs[i]);
    }
    return bly_buf_add_str(buf, "]}");
}

static int add_step(void *arg, const struct bly_explanation *step)
{
    struct bly_buf *buf = arg;
    bool first = buf->len > 0 && buf->data[buf->len - 1] == '[';

    (void)bly_buf_add_str(buf, first ? "{\"step\":" : ",{\"step\":");
    (void)bly_json_add_cstr(buf, step->step);
    add_member(buf, "path", step->path);
    if (step->target != NULL)
        add_member(buf, "target", step->target);
    add_member(buf, "why", step->why);
    return bly_buf_add_char(buf, '}');
}

static int explain_as_json(const struct bly_policy *policy, const struct bly_plan *plan,
                           const struct verdict *verdict, struct bly_buf *buf)
{
    int r;

    (void)bly_buf_add_str(buf, "{\"policy\":");
    r = add_policy(buf, policy);
    (void)bly_buf_add_str(buf, ",\"plan\":[");
    if (r == 0 && plan != NULL)
        r = bly_plan_explain(plan, policy, add_step, buf);
    (void)bly_buf_printf(buf, "],\"rung\":%d",
                         verdict->rung < 0 ? BLY_RUNG_REFUSED : verdict->rung);
    if (verdict->rung < 0)
        add_member(buf, "refusal", verdict->why.text);
    (void)bly_buf_add_str(buf, "}\n");
    return r < 0 ? r : buf->error;
}

int bly_explain(const struct bly_policy *policy, const struct bly_features *features, bool json,
                struct bly_err *err)
{
    bool none = !policy->wall && policy->network;
    struct verdict verdict = {.rung = BLY_RUNG_NONE};
    struct bly_plan *plan = NULL;
    bly_autobuf struct bly_buf buf;
    int r = 0;

    bly_buf_init(&buf, TEXT_MAX);
    if (!none)
        r = bly_plan_make(policy, BLY_FOR_PROCESS, &bly_probe_disk, NULL, 0, &plan, err);
    if (r < 0)
        return r;
    if (!none)
        verdict.rung = bly_rung_choose(features, plan, &verdict.why);
    r = (json ? explain_as_json : explain_to_people)(policy, plan, &verdict, &buf);
    (void)bly_plan_free(plan);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot explain it");
    return fwrite(buf.data, 1, buf.len, stdout) == buf.len && fflush(stdout) == 0
               ? 0
               : bly_fail_sys(err, errno, "cannot write");
}
