#include "sandbox/plan/claims.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "base/sort.h"
#include "sandbox/policy/rules.h"

const struct bly_claim bly_claim_nothing = {.special = BLY_NO_STEP, .kind = BLY_NO_STEP};

void bly_claims_deinit(struct bly_claims *claims)
{
    for (size_t i = 0; i < claims->n; i++)
        free(claims->items[i].path);
    free(claims->items);
}

int bly_claims_add(struct bly_claims *claims, const char *path, const struct bly_claim *what,
                   struct bly_err *err)
{
    struct bly_claim *grown = bly_list_add(claims->items, &claims->n, sizeof(*claims->items));

    if (!grown)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
    claims->items = grown;
    grown += claims->n - 1;
    *grown = *what;
    grown->path = strdup(path);
    grown->depth = bly_path_depth(path);
    return grown->path ? 0 : bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
}

static int compare_claims(const void *a, const void *b)
{
    const struct bly_claim *x = a, *y = b;

    return bly_rules_compare_paths(x->path, x->depth, y->path, y->depth);
}

/* Two claims on one path: the stronger access, and everything else of both. */
static void merge(struct bly_claim *into, struct bly_claim *from)
{
    if (from->access > into->access)
        into->access = from->access;
    if (into->node.type == BLY_NODE_ABSENT)
        into->node = from->node;
    if (!into->link)
        into->link = from->link;
    if (into->special == BLY_NO_STEP)
        into->special = from->special;
    into->minimal |= from->minimal;
    into->closed |= from->closed;
    into->pin |= from->pin;
    into->island |= from->island;
    free(from->path);
}

static int compare_nested(const void *a, const void *b)
{
    const struct bly_claim *const *x = a, *const *y = b;

    return bly_path_compare((*x)->path, (*y)->path);
}

/* In the order of a walk the claim above is the one in front, or one of those above that. */
static int find_parents(struct bly_claims *claims, struct bly_err *err)
{
    bly_autofree struct bly_claim **order = calloc(claims->n + 1, sizeof(*order));

    if (!order)
        return bly_fail_sys(err, ENOMEM, "cannot plan the sandbox");
    for (size_t i = 0; i < claims->n; i++)
        order[i] = &claims->items[i];
    bly_sort(order, claims->n, sizeof(*order), compare_nested);
    for (size_t i = 0; i < claims->n; i++) {
        struct bly_claim *above = i > 0 ? order[i - 1] : NULL;

        while (above && !bly_path_is_within(order[i]->path, above->path))
            above = above->parent;
        order[i]->parent = above;
    }
    return 0;
}

int bly_claims_sort(struct bly_claims *claims, struct bly_err *err)
{
    size_t n = 0;

    bly_sort(claims->items, claims->n, sizeof(*claims->items), compare_claims);
    for (size_t i = 0; i < claims->n; i++) {
        if (n > 0 && strcmp(claims->items[n - 1].path, claims->items[i].path) == 0)
            merge(&claims->items[n - 1], &claims->items[i]);
        else
            claims->items[n++] = claims->items[i];
    }
    claims->n = n;
    return find_parents(claims, err);
}

struct bly_claim *bly_claims_at(const struct bly_claims *claims, const char *path, size_t len)
{
    char *prefix = strndup(len ? path : "/", len ? len : 1);
    struct bly_claim key = {.path = prefix, .depth = prefix ? bly_path_depth(prefix) : 0};
    struct bly_claim *found = NULL;

    if (prefix && claims->n > 0)
        found = bsearch(&key, claims->items, claims->n, sizeof(key), compare_claims);
    free(prefix);
    return found;
}

int bly_claims_add_existing(struct bly_claims *claims, const char *path, struct bly_claim what,
                            struct bly_err *err)
{
    int r = bly_draft_look(claims->draft, path, &what.node, err);

    if (r == -EACCES)
        return 0;
    if (r < 0 || what.node.type == BLY_NODE_ABSENT)
        return r;
    return bly_claims_add(claims, path, &what, err);
}
