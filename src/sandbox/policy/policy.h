#pragma once

/*
 * The effective policy: what both policy languages (and the argv of 0.121's sandbox wrapper)
 * compile into, at the edge. Nothing behind this header looks at policy JSON again. Pure: strings
 * in, strings out; what exists on disk is asked later, by the plan. Spec: sandbox.md sections 2
 * and 3.
 *
 * A policy is immutable once made and may be read by any thread; the reference count is not atomic
 * and belongs to the thread that made it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_buf;
struct bly_denial;
struct bly_err;
struct bly_reader;
struct yyjson_val;

enum bly_access { BLY_ACCESS_NONE, BLY_ACCESS_READ, BLY_ACCESS_WRITE, BLY_ACCESS_DENY };

enum {
    BLY_RULE_IMPLIED = 1,      /* not something the client wrote */
    BLY_RULE_SKIP_MISSING = 2, /* missing_path_behavior: skip */
    BLY_RULE_IF_DIRECTORY = 4, /* /tmp: counts only when it is a directory; the plan looks */
};

struct bly_rule {
    char *path; /* absolute, normalised */
    enum bly_access access;
    uint8_t flags;
    uint32_t depth; /* bly_path_depth(path) */
};

/* Rules that a client wrote. */
enum { BLY_POLICY_MAX_RULES = 4096, BLY_POLICY_MAX_GLOBS = 256, BLY_POLICY_MAX_GLOB_BYTES = 65536 };

struct bly_policy {
    bool wall;    /* false: no file wall at all; then there are no rules and no globs */
    bool network; /* true: the host's network. Always true for profiles of somebody else's wall
                     (external, external-sandbox): they run as they are (spec 4) */
    bool minimal; /* the platform defaults (2.3) are readable */
    struct bly_rule
        *rules; /* sorted: fewer components first, then bytewise; one rule a path after ties. No
                   rule is left out because something is missing on disk: the plan knows that.
                   Protected names have none: see bly_rule_protects() */
    size_t n_rules;
    char **deny_globs; /* absolute patterns, sorted; without alternatives {a,b} and needless \x */
    size_t n_deny_globs;
    unsigned glob_scan_max_depth; /* 0: unlimited */
    char *cwd;                    /* may be NULL */
    /* derived */
    struct bly_glob_place *glob_places; /* of the patterns; NULL: all are tried */
    bool reads_all;  /* rule / READ or WRITE, no deny that a client wrote, no glob */
    bool writes_all; /* rule / WRITE */
    unsigned refs;
};

/* A context that was compiled before: a string at just this place stands for it. */
struct bly_policy_known {
    const char *place; /* NULL: nowhere */
    struct bly_policy *policy;
};

/* What the server knows and a policy may refer to. Borrowed strings. */
struct bly_policy_env {
    const char *cwd;    /* the server's working directory: the workspace of form A */
    const char *tmpdir; /* the server's $TMPDIR, NULL when unset or not absolute */
    struct bly_policy_known known;
};

/*
 * Compiles the value of a `sandbox` member, which is present and not null. Both forms (permissions,
 * sandboxPolicy). Returns 0 and a policy with one reference; -EINVAL with `err` (BLY_ERR_PARAMS or,
 * where the protocol wants -32600, BLY_ERR_INVALID); -ENOMEM.
 */
int bly_policy_parse(struct yyjson_val *sandbox, const struct bly_policy_env *env,
                     struct bly_policy **ret_policy, struct bly_err *err);

/* A policy from a JSON text, for `--sandbox-policy` style options and tests. */
int bly_policy_parse_text(const char *json, const struct bly_policy_env *env,
                          struct bly_policy **ret_policy, struct bly_err *err);

struct bly_policy *bly_policy_ref(struct bly_policy *policy);
struct bly_policy *bly_policy_unref(struct bly_policy *policy); /* NULL is fine; returns NULL */

/*
 * What the policy permits on a canonical path (3.2). `path` is absolute and normalised and was
 * obtained by walking, or names something about to be created in a directory that was. Cheap: no
 * allocation.
 */
enum bly_access bly_policy_decide(const struct bly_policy *policy, const char *path);

/* The same, and which rule or glob decided, BLY_BY_NOTHING when none did; `access` stays as it is.
 */
enum bly_access bly_policy_explain(const struct bly_policy *policy, const char *path,
                                   struct bly_denial *ret_reason);

/* The index of the rule for exactly this path; n_rules when there is none. */
size_t bly_policy_find(const struct bly_policy *policy, const char *path);

/*
 * True when everything at and below `path` is WRITE: no narrower rule, no glob that could match
 * below. Used before recursive removal and copy.
 */
bool bly_policy_writes_tree(const struct bly_policy *policy, const char *path);

/*
 * Something at or below `path` that has a rule and is not WRITE, or is a protected name: 1 and its
 * path, malloc'ed, 0 when there is none; -ENOMEM. Globs are not looked at, nor what `path` itself
 * is by the rules above it.
 */
int bly_policy_find_narrowing(const struct bly_policy *policy, const char *path, char **ret_path);

/* The platform defaults of 2.3, NULL-terminated. */
extern const char *const bly_policy_platform_defaults[];
bool bly_policy_is_platform_default(const char *path); /* or below one */

/* The protected names of 3.4, NULL-terminated: .git .agents .codex .aws */
enum { BLY_PROTECTED_NAMES = 4 };
extern const char *const bly_policy_protected_names[BLY_PROTECTED_NAMES + 1];
bool bly_policy_is_protected_name(const char *name);

/*
 * Whether the protected names in the directory of this rule are READ, with what is below them,
 * where no rule of their own says otherwise: in every writable root but "/", whose parts are
 * protected by nobody.
 */
bool bly_rule_protects(const struct bly_rule *rule);

/* Deep copy with one reference; NULL when out of memory. */
struct bly_policy *bly_policy_copy(const struct bly_policy *policy);

/*
 * A copy in which each protected name that has no rule of its own has one, READ and implied: the
 * same decisions, and a list that says all of it. Five times as long, so not for what is done
 * often.
 */
struct bly_policy *bly_policy_spell_out(const struct bly_policy *policy);

/*
 * A copy with all names in the form of base/casefold.h, in which it is to be asked: what it says of
 * a path in that form `policy` says of one of the names that mean the same where case is folded.
 */
struct bly_policy *bly_policy_casefold(const struct bly_policy *policy);

/*
 * Wire form: the same policy always packs to the same bytes, so the bytes are also its identity
 * (helper pool key). unpack(pack(p)) equals p. unpack returns -EBADMSG on malformed input.
 */
int bly_policy_pack(const struct bly_policy *policy, struct bly_buf *buf);
int bly_policy_unpack(struct bly_reader *reader, struct bly_policy **ret_policy);

/*
 * For --explain and tests, spelled out, one item a line and in this order: "no wall", "network",
 * "minimal"; rules as "rw /w", "ro /w/.git implied", "ro /w/docs skip", "rw /tmp directory", "deny
 * /w/p"; "glob PATTERN", "depth N", "cwd /w". Control characters in paths are shown as \xNN.
 */
int bly_policy_print(const struct bly_policy *policy, struct bly_buf *buf);

/*
 * The same policy as the `sandbox` member of a request, in one line and in the words of form B
 * (docs/PROTOCOL.md): bly_policy_parse_text() makes an equal policy of it, and so an equal plan.
 * For a policy as it was compiled; what a plan added to it is not written.
 * Returns 0; -EILSEQ when a pattern holds bytes that no JSON string can (they come from a working
 * directory or root that is not UTF-8); otherwise buf->error. On failure what stands in `buf` is of
 * no use.
 */
int bly_policy_print_json(const struct bly_policy *policy, struct bly_buf *buf);

/*
 * Whether `path` matches an absolute glob: '*' and '?' do not cross '/', '**' does, [classes], \x
 * is x itself. Time is at worst the product of the lengths for each '**' restart, never
 * exponential; no allocation.
 */
bool bly_glob_match(const char *pattern, const char *path);
