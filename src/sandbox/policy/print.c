/*
 * The way back: an effective policy as a context of form B, which bly_policy_parse() turns into the
 * same policy again.
 */
#include <errno.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/path.h"
#include "sandbox/policy/policy.h"

/* As it is where JSON has the letters for it, else as a URI, whose escapes stand for any byte. */
static int add_path(struct bly_buf *buf, const char *path)
{
    bly_autobuf struct bly_buf uri;

    bly_buf_init(&uri, buf->max);
    if (bly_json_is_text(path))
        return bly_json_add_cstr(buf, path);
    if (bly_path_to_uri(&uri, path) < 0)
        return uri.error;
    return bly_json_add_str(buf, (const char *)uri.data, uri.len);
}

static const char *access_word(enum bly_access access)
{
    switch (access) {
    case BLY_ACCESS_READ:
        return "read";
    case BLY_ACCESS_WRITE:
        return "write";
    case BLY_ACCESS_DENY:
    case BLY_ACCESS_NONE: /* no rule has it */
        break;
    }
    return "deny";
}

static void separate(struct bly_buf *buf, bool *first)
{
    if (!*first)
        bly_buf_add_char(buf, ',');
    *first = false;
}

/* The rule for /tmp that counts only for a directory has a name of its own in the language. */
static int add_rule(struct bly_buf *buf, const struct bly_rule *rule)
{
    int r = 0;

    if (rule->flags & BLY_RULE_IF_DIRECTORY) {
        bly_buf_add_str(buf, "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"slash_tmp\"}}");
    } else {
        bly_buf_add_str(buf, "{\"path\":{\"type\":\"path\",\"path\":");
        r = add_path(buf, rule->path);
        bly_buf_add_char(buf, '}');
    }
    bly_buf_printf(buf, ",\"access\":\"%s\"", access_word(rule->access));
    if (rule->flags & BLY_RULE_SKIP_MISSING)
        bly_buf_add_str(buf, ",\"missing_path_behavior\":\"skip\"");
    bly_buf_add_char(buf, '}');
    return r;
}

static int add_entries(struct bly_buf *buf, const struct bly_policy *policy)
{
    bool first = true;
    int r = 0;

    if (policy->minimal) {
        separate(buf, &first);
        bly_buf_add_str(buf, "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"minimal\"}},"
                             "\"access\":\"read\"}");
    }
    for (size_t i = 0; r == 0 && i < policy->n_rules; i++) {
        if (policy->rules[i].flags & BLY_RULE_IMPLIED)
            continue;
        separate(buf, &first);
        r = add_rule(buf, &policy->rules[i]);
    }
    for (size_t i = 0; r == 0 && i < policy->n_deny_globs; i++) {
        if (!bly_json_is_text(policy->deny_globs[i]))
            return -EILSEQ;
        separate(buf, &first);
        bly_buf_add_str(buf, "{\"path\":{\"type\":\"glob_pattern\",\"pattern\":");
        r = bly_json_add_cstr(buf, policy->deny_globs[i]);
        bly_buf_add_str(buf, "},\"access\":\"deny\"}");
    }
    return r;
}

static int add_file_system(struct bly_buf *buf, const struct bly_policy *policy)
{
    int r;

    if (!policy->wall)
        return bly_buf_add_str(buf, "{\"type\":\"unrestricted\"}");
    bly_buf_add_str(buf, "{\"type\":\"restricted\",\"entries\":[");
    r = add_entries(buf, policy);
    bly_buf_add_char(buf, ']');
    if (policy->glob_scan_max_depth > 0)
        bly_buf_printf(buf, ",\"glob_scan_max_depth\":%u", policy->glob_scan_max_depth);
    bly_buf_add_char(buf, '}');
    return r;
}

int bly_policy_print_json(const struct bly_policy *policy, struct bly_buf *buf)
{
    int r = 0;

    bly_buf_add_str(buf, "{\"permissions\":{\"type\":\"managed\",\"file_system\":");
    r = add_file_system(buf, policy);
    bly_buf_printf(buf, ",\"network\":\"%s\"}", policy->network ? "enabled" : "restricted");
    if (r == 0 && policy->cwd) {
        bly_buf_add_str(buf, ",\"cwd\":");
        r = add_path(buf, policy->cwd);
    }
    bly_buf_add_str(buf, ",\"windowsSandboxLevel\":\"disabled\"}");
    return r < 0 ? r : buf->error;
}
