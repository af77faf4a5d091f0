#pragma once

/*
 * Everything that may need a mount is a claim on its path. Claims are collected (collect.c), sorted
 * so that what is above comes first (claims.c), and then each is compared with what already holds
 * where it lies (steps.c). Functions return 0 or a negative errno with `err` set.
 */
#include "sandbox/plan/draft.h"

/* What holds at a path: the accesses, and two more. */
enum bly_state {
    BLY_STATE_NONE = BLY_ACCESS_NONE,
    BLY_STATE_READ = BLY_ACCESS_READ,
    BLY_STATE_WRITE = BLY_ACCESS_WRITE,
    BLY_STATE_DENY = BLY_ACCESS_DENY,
    BLY_STATE_CLOSED, /* denied, and nothing below can open it */
};

enum { BLY_NO_STEP = -1 };

struct bly_claim {
    char *path;
    size_t depth;           /* of the path */
    enum bly_access access; /* of a rule; NONE without one */
    bool minimal;           /* a platform default: read, if nothing else is said */
    bool closed;
    bool pin;         /* must be a mount of its own */
    bool island;      /* something below is open although this is denied */
    const char *link; /* target of a symlink to show, borrowed */
    int special;      /* a kind of step that does not depend on rules, or BLY_NO_STEP */
    struct bly_node node;
    enum bly_state above, state;
    int kind; /* of the step it becomes, or BLY_NO_STEP */
    uint32_t step;
    struct bly_claim *parent; /* the deepest one above, NULL for "/"; known once they are sorted */
};

struct bly_claims {
    struct bly_draft *draft;
    struct bly_claim *items; /* first come, then sorted and unique */
    size_t n;
    bool has_dev; /* /dev is a special claim */
};

/* Of a claim that says nothing yet. */
extern const struct bly_claim bly_claim_nothing;

/* `what` is copied, with `path` in place of its own. */
int bly_claims_add(struct bly_claims *claims, const char *path, const struct bly_claim *what,
                   struct bly_err *err);
/* The same if there is something at `path`, which becomes the node. */
int bly_claims_add_existing(struct bly_claims *claims, const char *path, struct bly_claim what,
                            struct bly_err *err);
/* Sorts as rules are, merges claims on one path and finds the parents. */
int bly_claims_sort(struct bly_claims *claims, struct bly_err *err);
/* The claim on exactly the first `len` bytes of `path` ("/" for 0), once they are sorted. */
struct bly_claim *bly_claims_at(const struct bly_claims *claims, const char *path, size_t len);
void bly_claims_deinit(struct bly_claims *claims);

/* collect.c: all of a draft; and the plan's list of names that must not come into being. */
int bly_claims_collect(struct bly_claims *claims, struct bly_err *err);
