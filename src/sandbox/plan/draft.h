#pragma once

/*
 * A plan in the making: what the files of sandbox/plan share while bly_plan_make() runs. All
 * functions return 0 or a negative errno with `err` set. Nothing here is kept afterwards but the
 * parts that moved into the plan.
 */
#include "sandbox/plan/plan_internal.h"
#include "sandbox/policy/policy.h"

enum { BLY_WALK_MAX_LINKS = 40 };

/* A growing list of owned strings. */
struct bly_names {
    char **items;
    size_t n;
};

int bly_names_add(struct bly_names *names, const char *name); /* copies; -ENOMEM */
int bly_names_add_once(struct bly_names *names, const char *name);
void bly_names_keep_topmost(struct bly_names *names); /* sorts; what lies below another goes */
void bly_names_deinit(struct bly_names *names);
bool bly_names_hold(const struct bly_names *names, const char *path); /* at or below one of them */

/* Grows an array by one zeroed element and returns it; NULL: out of memory, and it is as it was.
 * For arrays that began as NULL and never grew in another way. */
void *bly_list_add(void *array, size_t *n, size_t size);

/*
 * What has been looked at: each name once for a plan, however many rules lie below it, so that a
 * plan costs by its rules and not by their number times their depth. A cache of bounded size and
 * bounded search: what it has no place for is looked at again.
 */
struct bly_seen_node {
    char *path;
    size_t len; /* of it */
    uint64_t hash;
    int result; /* of the look */
    struct bly_node node;
    bool canonical; /* reached by walking: no symlink in it */
    bool marked;    /* the plan depends on it, and knows that */
};

struct bly_seen {
    struct bly_seen_node *slots; /* NULL: no memory, and nothing is kept */
    size_t n_slots;
    const struct bly_seen_node
        *last_dir; /* for bly_seen_is_directory(): neighbours come together */
};

void bly_seen_init(struct bly_seen *seen, size_t expected); /* names */
/* The entry for the first `len` bytes of `path`, or NULL. */
struct bly_seen_node *bly_seen_find(const struct bly_seen *seen, const char *path, size_t len);
/* The entry for `path`; a new one is to be filled in. NULL when there is no place or no memory. */
struct bly_seen_node *bly_seen_get(struct bly_seen *seen, const char *path, bool *ret_new);
/* Whether the first `len` bytes were walked and are a directory. */
bool bly_seen_is_directory(struct bly_seen *seen, const char *path, size_t len);
/* Length of the longest proper prefix of `path` that was walked and is a directory; 0: none. */
size_t bly_seen_directory_above(const struct bly_seen *seen, const char *path);
void bly_seen_deinit(struct bly_seen *seen);

/* A symlink crossed on the way to a rule's path. */
struct bly_crossing {
    char *path;    /* canonical directory plus name */
    char *target;  /* its text */
    char *rule;    /* the path of the rule that led here */
    bool terminal; /* nothing of the path remained behind it */
    bool harmless; /* met on the way from one platform default to another */
};

enum bly_spot_state {
    BLY_SPOT_FOUND,
    BLY_SPOT_MISSING,
    BLY_SPOT_BLOCKED, /* behind a directory that the server itself may not search */
    BLY_SPOT_IN_PROC, /* at or below /proc, where nothing is resolved */
};

/* Where a path leads. */
struct bly_spot {
    enum bly_spot_state state;
    char *path; /* canonical; what does not exist is appended as given */
    char *edge; /* MISSING: its first component that is not there, NULL below a non-directory;
                   BLOCKED: the directory that cannot be searched */
    struct bly_node node;       /* FOUND: of `path`; BLOCKED: of `edge` */
    struct bly_seen_node *seen; /* of `path`, where it stands in a directory that was walked before;
                                   NULL: not known. Borrowed from the draft */
};

void bly_spot_deinit(struct bly_spot *spot);
#define bly_autospot __attribute__((cleanup(bly_spot_deinit)))

struct bly_draft {
    struct bly_plan *plan;
    const struct bly_policy *given;
    const struct bly_probe *probe;
    const char *const *granted;
    size_t n_granted;
    struct bly_seen seen;
    struct bly_crossing *crossings;
    size_t n_crossings;
    struct bly_names closed; /* denied whatever the rules say: matches of globs, kernel internals */
    struct bly_spot *names;  /* protected names that are there, or where nobody may look */
    size_t n_names;
    struct bly_names pointed; /* protected symlinks, to be pinned */
    bool wants_proc;          /* a rule grants something of /proc */
};

void bly_draft_deinit(struct bly_draft *draft);
void bly_draft_drop_crossings(struct bly_draft *draft, size_t keep); /* all but the first `keep` */

/* Notes what the plan depends on; `text` is copied, may be NULL. */
int bly_draft_mark(struct bly_draft *draft, enum bly_mark_kind kind, const char *path,
                   const struct bly_node *node, const char *text, struct bly_err *err);
int bly_draft_mark_spot(struct bly_draft *draft, const struct bly_spot *spot, struct bly_err *err);
int bly_draft_mark_missing(struct bly_draft *draft, const char *dir, unsigned names,
                           struct bly_err *err);

/* resolve.c: walks `path` (absolute, normalised) component by component and follows links;
 * `keep_last`: not the last one. Crossed links are added to the draft and marked. */
int bly_draft_walk(struct bly_draft *draft, const char *path, bool keep_last,
                   struct bly_spot *ret_spot, struct bly_err *err);

/* One look through the probe, or what it said before; -EACCES comes back as an error, everything
 * else is reported. */
int bly_draft_look(struct bly_draft *draft, const char *path, struct bly_node *ret_node,
                   struct bly_err *err);

/* True when `path` was walked before, is missing in a directory that is there, and was marked as
 * that. */
bool bly_draft_lacks(struct bly_draft *draft, const char *path);

/* fits.c: a digest of the names in a directory, whatever order they come in; malloc'ed. 0 or
 * negative errno. */
int bly_plan_digest_names(const struct bly_probe *probe, const char *dir, char **ret_text);
/* Once the marks are complete. */
void bly_plan_seal_marks(struct bly_plan *plan);
/* The names of `path` from its `from`th byte on, which is a slash; the directories come first.
 * Stops and returns what `each` returned when that is not 0; -ENOMEM. */
int bly_plan_each_name_of(const char *path, size_t from, bly_plan_name_fn each, void *arg);

/* rules.c: the derived policy, rules on canonical paths, missing grants gone, links refused. */
int bly_draft_rules(struct bly_draft *draft, struct bly_err *err);
/* Adds one rule, keeping order; on a tie the stronger access stays (deny, write, read). */
int bly_draft_add_rule(struct bly_policy *policy, const char *path, enum bly_access access,
                       unsigned flags, struct bly_err *err);
/* Sets what `path` may be, whatever was there before. */
int bly_draft_set_rule(struct bly_policy *policy, const char *path, enum bly_access access,
                       struct bly_err *err);

/* Whatever the policy shows of `path` is denied, with all rules below it, so that nothing opens it.
 */
int bly_draft_deny_for_good(struct bly_policy *policy, const char *path, struct bly_err *err);

bool bly_draft_has_rule(const struct bly_policy *policy, const char *path);

/* What the rules alone say about the directory that holds `path`. */
enum bly_access bly_draft_parent_access(const struct bly_policy *policy, const char *path);

/* protected.c: the protected names of all roots, once the rules are there. */
int bly_draft_protected(struct bly_draft *draft, struct bly_err *err);

/* gitfile.c: protects what a .git pointer file, symlink or commondir leads to. */
int bly_draft_pointers(struct bly_draft *draft, struct bly_err *err);

/* alias.c: restrictions hold wherever the same object shows up through another mount. */
int bly_draft_aliases(struct bly_draft *draft, struct bly_err *err);

/* glob.c: puts the derived policy's deny globs onto canonical directories. */
int bly_draft_glob_bases(struct bly_draft *draft, struct bly_err *err);
/* For processes: what matches now is closed. */
int bly_draft_globs(struct bly_draft *draft, struct bly_err *err);

/* steps.c: the mount steps, from the derived policy. */
int bly_draft_steps(struct bly_draft *draft, struct bly_err *err);
