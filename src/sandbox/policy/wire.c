#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "sandbox/policy/policy.h"
#include "sandbox/policy/rules.h"

enum {
    FLAGS = BLY_RULE_IMPLIED | BLY_RULE_SKIP_MISSING | BLY_RULE_IF_DIRECTORY,
    /* What the client wrote, with canonical spellings added. */
    MAX_PACKED_RULES = 16 * BLY_POLICY_MAX_RULES,
};

int bly_policy_pack(const struct bly_policy *policy, struct bly_buf *buf)
{
    bly_buf_put_u8(buf, policy->wall);
    bly_buf_put_u8(buf, policy->network);
    bly_buf_put_u8(buf, policy->minimal);
    bly_buf_put_u8(buf, policy->cwd != NULL);
    if (policy->cwd)
        bly_buf_put_bytes(buf, policy->cwd, strlen(policy->cwd));
    bly_buf_put_u32(buf, policy->glob_scan_max_depth);

    bly_buf_put_u32(buf, (uint32_t)policy->n_rules);
    for (size_t i = 0; i < policy->n_rules; i++) {
        const struct bly_rule *rule = &policy->rules[i];

        bly_buf_put_u8(buf, (uint8_t)rule->access);
        bly_buf_put_u8(buf, rule->flags);
        bly_buf_put_bytes(buf, rule->path, strlen(rule->path));
    }
    bly_buf_put_u32(buf, (uint32_t)policy->n_deny_globs);
    for (size_t i = 0; i < policy->n_deny_globs; i++)
        bly_buf_put_bytes(buf, policy->deny_globs[i], strlen(policy->deny_globs[i]));
    return buf->error;
}

static bool get_bool(struct bly_reader *reader)
{
    uint8_t v = bly_get_u8(reader);

    if (v > 1)
        reader->bad = true;
    return v == 1;
}

/* A path (or pattern) that is what normalising would make of it. */
static int get_path(struct bly_reader *reader, char **ret)
{
    size_t len = 0;
    const char *data = (const char *)bly_get_bytes(reader, &len);

    if (reader->bad || !data || !bly_path_is_normal(data, len))
        return -EBADMSG;
    *ret = strndup(data, len);
    return *ret ? 0 : -ENOMEM;
}

static int get_rule(struct bly_reader *reader, struct bly_policy *policy)
{
    struct bly_rule *rule = &policy->rules[policy->n_rules];
    uint8_t access = bly_get_u8(reader);
    uint8_t flags = bly_get_u8(reader);
    int r = get_path(reader, &rule->path);

    if (r < 0)
        return r;
    policy->n_rules++;
    rule->access = (enum bly_access)access;
    rule->flags = flags;
    rule->depth = (uint32_t)bly_path_depth(rule->path);
    if (access < BLY_ACCESS_READ || access > BLY_ACCESS_DENY || (flags & ~FLAGS))
        return -EBADMSG;
    if (policy->n_rules > 1 &&
        bly_rules_compare_paths(rule[-1].path, rule[-1].depth, rule->path, rule->depth) >= 0)
        return -EBADMSG;
    return 0;
}

static int get_rules(struct bly_reader *reader, struct bly_policy *policy)
{
    uint32_t n = bly_get_u32(reader);

    if (reader->bad || n > MAX_PACKED_RULES)
        return -EBADMSG;
    policy->rules = calloc(n + 1, sizeof(*policy->rules));
    if (!policy->rules)
        return -ENOMEM;
    while (policy->n_rules < n) {
        int r = get_rule(reader, policy);

        if (r < 0)
            return r;
    }
    return 0;
}

static int get_globs(struct bly_reader *reader, struct bly_policy *policy)
{
    uint32_t n = bly_get_u32(reader);
    size_t bytes = 0;

    if (reader->bad || n > BLY_POLICY_MAX_GLOBS)
        return -EBADMSG;
    policy->deny_globs = calloc(n + 1, sizeof(*policy->deny_globs));
    if (!policy->deny_globs)
        return -ENOMEM;
    while (policy->n_deny_globs < n) {
        char **glob = &policy->deny_globs[policy->n_deny_globs];
        int r = get_path(reader, glob);

        if (r < 0)
            return r;
        bytes += strlen(*glob) + 1;
        if (policy->n_deny_globs++ > 0 && strcmp(glob[-1], glob[0]) >= 0)
            return -EBADMSG;
        if (bytes > BLY_POLICY_MAX_GLOB_BYTES)
            return -EBADMSG;
    }
    return 0;
}

static int get_policy(struct bly_reader *reader, struct bly_policy *policy)
{
    int r = 0;

    policy->wall = get_bool(reader);
    policy->network = get_bool(reader);
    policy->minimal = get_bool(reader);
    if (get_bool(reader))
        r = get_path(reader, &policy->cwd);
    policy->glob_scan_max_depth = bly_get_u32(reader);
    if (r == 0)
        r = get_rules(reader, policy);
    if (r == 0)
        r = get_globs(reader, policy);
    if (r < 0)
        return r;
    if (!policy->wall && (policy->minimal || policy->n_rules > 0 || policy->n_deny_globs > 0))
        return -EBADMSG;
    if (policy->n_deny_globs == 0 && policy->glob_scan_max_depth > 0)
        return -EBADMSG;
    return reader->bad ? -EBADMSG : 0;
}

int bly_policy_unpack(struct bly_reader *reader, struct bly_policy **ret_policy)
{
    struct bly_policy *policy = bly_policy_new();

    if (!policy)
        return -ENOMEM;

    int r = get_policy(reader, policy);

    if (r < 0) {
        bly_policy_unref(policy);
        return r;
    }
    bly_policy_derive(policy);
    *ret_policy = policy;
    return 0;
}

/* One word and one path; bytes that would break a line are shown as \xNN. */
static void print_path(struct bly_buf *buf, const char *word, const char *path)
{
    bly_buf_add_str(buf, word);
    bly_buf_add_char(buf, ' ');
    for (; *path; path++) {
        unsigned char c = (unsigned char)*path;

        if (c < ' ' || c == 0x7f)
            bly_buf_printf(buf, "\\x%02x", c);
        else
            bly_buf_add_char(buf, *path);
    }
}

static const char *access_word(enum bly_access access)
{
    switch (access) {
    case BLY_ACCESS_READ:
        return "ro";
    case BLY_ACCESS_WRITE:
        return "rw";
    case BLY_ACCESS_DENY:
        return "deny";
    case BLY_ACCESS_NONE:
        break;
    }
    return "none";
}

static void print_rule(struct bly_buf *buf, const struct bly_rule *rule)
{
    print_path(buf, access_word(rule->access), rule->path);
    if (rule->flags & BLY_RULE_IMPLIED)
        bly_buf_add_str(buf, " implied");
    if (rule->flags & BLY_RULE_SKIP_MISSING)
        bly_buf_add_str(buf, " skip");
    if (rule->flags & BLY_RULE_IF_DIRECTORY)
        bly_buf_add_str(buf, " directory");
    bly_buf_add_char(buf, '\n');
}

int bly_policy_print(const struct bly_policy *policy, struct bly_buf *buf)
{
    struct bly_policy *whole = bly_policy_spell_out(policy);

    if (!whole)
        return -ENOMEM;
    if (!policy->wall)
        bly_buf_add_str(buf, "no wall\n");
    if (policy->network)
        bly_buf_add_str(buf, "network\n");
    if (policy->minimal)
        bly_buf_add_str(buf, "minimal\n");
    for (size_t i = 0; i < whole->n_rules; i++)
        print_rule(buf, &whole->rules[i]);
    bly_policy_unref(whole);
    for (size_t i = 0; i < policy->n_deny_globs; i++) {
        print_path(buf, "glob", policy->deny_globs[i]);
        bly_buf_add_char(buf, '\n');
    }
    if (policy->glob_scan_max_depth > 0)
        bly_buf_printf(buf, "depth %u\n", policy->glob_scan_max_depth);
    if (policy->cwd) {
        print_path(buf, "cwd", policy->cwd);
        bly_buf_add_char(buf, '\n');
    }
    return buf->error;
}
