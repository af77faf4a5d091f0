/*
 * From canonical rules to mounts: each claim is compared with what already holds where it lies, and
 * only a difference needs one.
 */
#include "sandbox/plan/claims.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"

/* ---- deciding ---- */

static enum bly_state state_of(const struct bly_claim *claim)
{
    enum bly_state above = claim->above;

    if (above == BLY_STATE_CLOSED || claim->closed)
        return BLY_STATE_CLOSED;
    switch (claim->access) {
    case BLY_ACCESS_DENY:
        return BLY_STATE_DENY;
    case BLY_ACCESS_WRITE:
        return BLY_STATE_WRITE;
    case BLY_ACCESS_READ:
        return above == BLY_STATE_DENY ? BLY_STATE_DENY : BLY_STATE_READ;
    case BLY_ACCESS_NONE:
        break;
    }
    return claim->minimal && above == BLY_STATE_NONE ? BLY_STATE_READ : above;
}

static int mask_kind(const struct bly_claim *claim)
{
    return claim->node.type == BLY_NODE_DIR ? BLY_STEP_MASK_DIR : BLY_STEP_MASK_FILE;
}

static bool is_open(enum bly_state state)
{
    return state == BLY_STATE_READ || state == BLY_STATE_WRITE;
}

static bool is_private(int kind)
{
    return kind != BLY_NO_STEP &&
           bly_step_is_private(&(struct bly_step){.kind = (enum bly_step_kind)kind});
}

static int kind_in_proc(const struct bly_claims *claims, const struct bly_claim *claim)
{
    struct bly_claim *proc = bly_claims_at(claims, "/proc", 5);

    if (!proc || proc->kind != BLY_STEP_PROC)
        return BLY_NO_STEP;
    return claim->closed ? mask_kind(claim) : claim->special;
}

static int kind_of_link(const struct bly_claims *claims, const struct bly_claim *claim)
{
    struct bly_claim *above = claim->parent;

    if (claim->above == BLY_STATE_WRITE && claim->access == BLY_ACCESS_READ &&
        bly_names_hold(&claims->draft->pointed, claim->path))
        return BLY_STEP_PIN_LINK;
    if (!claim->link || is_open(claim->above))
        return BLY_NO_STEP;
    /* Only on a private surface; elsewhere the host's own link is there already. */
    while (above && above->kind == BLY_NO_STEP)
        above = above->parent;
    return above && is_private(above->kind) ? BLY_STEP_LINK : BLY_NO_STEP;
}

/* A program's /dev is private; of the host's only shared memory can be had, as a grant. */
static int kind_in_dev(const struct bly_claims *claims, const struct bly_claim *claim)
{
    const struct bly_claim *dev = bly_claims_at(claims, "/dev", 4);

    if (!dev || dev->kind != BLY_STEP_DEV || !bly_path_is_within(claim->path, "/dev/shm"))
        return BLY_NO_STEP;
    if (claim->state == BLY_STATE_WRITE || claim->state == BLY_STATE_READ)
        return claim->state == claim->above      ? BLY_NO_STEP
               : claim->state == BLY_STATE_WRITE ? BLY_STEP_WRITE
                                                 : BLY_STEP_READ;
    if (claim->state == BLY_STATE_DENY || claim->state == BLY_STATE_CLOSED)
        return is_open(claim->above) || claim->special != BLY_NO_STEP ? mask_kind(claim)
                                                                      : BLY_NO_STEP;
    return claim->special;
}

static int kind_of(const struct bly_claims *claims, const struct bly_claim *claim)
{
    bool was_open = is_open(claim->above);

    if (claim->above == BLY_STATE_CLOSED)
        return BLY_NO_STEP;
    if (strcmp(claim->path, "/") == 0)
        return claim->state == BLY_STATE_WRITE  ? BLY_STEP_WRITE
               : claim->state == BLY_STATE_READ ? BLY_STEP_READ
                                                : BLY_STEP_TMPFS;
    if (bly_path_is_within(claim->path, "/proc") && strcmp(claim->path, "/proc") != 0)
        return kind_in_proc(claims, claim);
    if (claims->has_dev && strncmp(claim->path, "/dev/", 5) == 0)
        return kind_in_dev(claims, claim);
    if (claim->state == BLY_STATE_CLOSED)
        return was_open || claim->special != BLY_NO_STEP ? mask_kind(claim) : BLY_NO_STEP;
    if (claim->special != BLY_NO_STEP && claim->access == BLY_ACCESS_DENY)
        return BLY_STEP_MASK_DIR;
    if (claim->special != BLY_NO_STEP)
        return claim->special;
    if (claim->state == BLY_STATE_DENY)
        return claim->above != BLY_STATE_DENY && (was_open || claim->island) ? mask_kind(claim)
                                                                             : BLY_NO_STEP;
    if (claim->node.type == BLY_NODE_LINK)
        return kind_of_link(claims, claim);
    if (claim->state == claim->above || !is_open(claim->state))
        return claim->pin && claim->above == BLY_STATE_WRITE ? BLY_STEP_PIN : BLY_NO_STEP;
    return claim->state == BLY_STATE_WRITE ? BLY_STEP_WRITE : BLY_STEP_READ;
}

/* What is behind a special mount is not the host's: no rule of the levels above reaches there. */
static bool is_own_world(const struct bly_claim *claim)
{
    return claim->kind == BLY_STEP_DEV || claim->kind == BLY_STEP_PROC;
}

/* The denied directories around something open must let it be reached. */
static void mark_islands(struct bly_claim *claim)
{
    if (claim->state != BLY_STATE_WRITE || claim->above != BLY_STATE_DENY)
        return;
    for (struct bly_claim *up = claim->parent; up && up->state == BLY_STATE_DENY; up = up->parent)
        up->island = true;
}

static void decide(struct bly_claims *claims)
{
    for (size_t i = 0; i < claims->n; i++) {
        struct bly_claim *claim = &claims->items[i];
        const struct bly_claim *above = claim->parent;

        claim->above = !above                ? BLY_STATE_NONE
                       : is_own_world(above) ? BLY_STATE_NONE
                                             : above->state;
        claim->state = state_of(claim);
        mark_islands(claim);
        claim->kind = kind_of(claims, claim);
    }
}

/* Length of the directory part of the first `len` bytes; 0 stands for "/". */
static size_t parent_length(const char *path, size_t len)
{
    while (len > 0 && path[len - 1] != '/')
        len--;
    return len > 0 ? len - 1 : 0;
}

/*
 * A mount lies on a directory entry. Renaming an ancestor takes it along and leaves its old name
 * free to be made again without it. A mount point cannot be renamed, so every writable directory
 * between a restriction and the mount it lies on becomes one.
 */
static int pin_ancestors(struct bly_claims *claims, struct bly_claims *pins, const char *path,
                         struct bly_err *err)
{
    size_t len = parent_length(path, strlen(path));
    struct bly_claim pin = bly_claim_nothing;
    int r = 0;

    pin.pin = true;
    for (; r == 0 && len > 0; len = parent_length(path, len)) {
        struct bly_claim *there = bly_claims_at(claims, path, len);
        bly_autofree char *dir = NULL;

        if (there && there->kind != BLY_NO_STEP && there->kind != BLY_STEP_LINK)
            return 0;
        dir = strndup(path, len);
        if (!dir)
            return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
        r = bly_claims_add_existing(pins, dir, pin, err);
    }
    return r;
}

static bool restricts(const struct bly_claim *claim)
{
    return claim->above == BLY_STATE_WRITE &&
           (claim->kind == BLY_STEP_READ || claim->kind == BLY_STEP_MASK_DIR ||
            claim->kind == BLY_STEP_MASK_FILE || claim->kind == BLY_STEP_PIN_LINK);
}

/* 1: there are some. */
static int add_pins(struct bly_claims *claims, struct bly_err *err)
{
    __attribute__((cleanup(bly_claims_deinit))) struct bly_claims pins = {.draft = claims->draft};
    const struct bly_plan *plan = claims->draft->plan;
    int r = 0;

    for (size_t i = 0; r == 0 && i < claims->n; i++)
        if (restricts(&claims->items[i]))
            r = pin_ancestors(claims, &pins, claims->items[i].path, err);
    for (size_t i = 0; r == 0 && i < plan->n_absents; i++) {
        bly_autofree char *path = NULL;

        if (i > 0 && strcmp(plan->absents[i - 1].dir, plan->absents[i].dir) == 0)
            continue; /* the same ancestors */
        path = bly_path_join(plan->absents[i].dir, plan->absents[i].name);
        r = path ? pin_ancestors(claims, &pins, path, err)
                 : bly_fail_sys(err, ENOMEM, "cannot plan %s", plan->absents[i].dir);
    }
    for (size_t i = 0; r == 0 && i < pins.n; i++) {
        r = bly_claims_add(claims, pins.items[i].path, &pins.items[i], err);
        if (r == 0)
            r = bly_draft_mark(claims->draft, BLY_MARK_NODE, pins.items[i].path,
                               &pins.items[i].node, NULL, err);
    }
    return r < 0 ? r : pins.n > 0;
}

/* ---- emitting ---- */

static int emit(struct bly_claims *claims, struct bly_claim *claim, struct bly_err *err)
{
    struct bly_plan *plan = claims->draft->plan;
    struct bly_claim *on = claim->parent;
    struct bly_step *step;

    if (claim->kind == BLY_NO_STEP)
        return 0;
    while (on && on->kind == BLY_NO_STEP)
        on = on->parent;

    step = bly_list_add(plan->steps, &plan->n_steps, sizeof(*plan->steps));
    if (!step)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", claim->path);
    plan->steps = step;
    step += plan->n_steps - 1;
    claim->step = (uint32_t)plan->n_steps - 1;
    step->kind = (enum bly_step_kind)claim->kind;
    step->on = on ? on->step : 0;
    step->node = claim->node;
    if (step->kind == BLY_STEP_TMPFS)
        step->mode = claim->state == BLY_STATE_DENY ? 0111 : 0755;
    if (step->kind == BLY_STEP_MASK_DIR)
        step->mode = claim->island ? 0111 : 0;
    step->path = strdup(claim->path);
    if (step->kind == BLY_STEP_LINK)
        step->text = strdup(claim->link);
    if (!step->path || (step->kind == BLY_STEP_LINK && !step->text))
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", claim->path);
    return 0;
}

int bly_draft_steps(struct bly_draft *draft, struct bly_err *err)
{
    __attribute__((cleanup(bly_claims_deinit))) struct bly_claims claims = {.draft = draft};
    int r = bly_claims_collect(&claims, err);

    if (r == 0)
        r = bly_claims_sort(&claims, err);
    if (r < 0)
        return r;
    decide(&claims); /* islands are known only after the first pass */
    decide(&claims);
    r = add_pins(&claims, err);
    if (r > 0)
        r = bly_claims_sort(&claims, err);
    if (r < 0)
        return r;
    decide(&claims);
    for (size_t i = 0; r == 0 && i < claims.n; i++)
        r = emit(&claims, &claims.items[i], err);
    return r;
}
