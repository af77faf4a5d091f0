#include "sandbox/plan/draft.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "base/sort.h"

void *bly_list_add(void *array, size_t *n, size_t size)
{
    char *grown = array;

    /* Grows by doubling: the room is a power of two, or more where elements were taken away. */
    if ((*n & (*n - 1)) == 0)
        grown = reallocarray(array, *n ? 2 * *n : 1, size);
    if (!grown)
        return NULL;
    memset(grown + *n * size, 0, size);
    (*n)++;
    return grown;
}

int bly_names_add(struct bly_names *names, const char *name)
{
    char **grown = bly_list_add(names->items, &names->n, sizeof(*names->items));

    if (!grown)
        return -ENOMEM;
    names->items = grown;
    grown[names->n - 1] = strdup(name);
    if (grown[names->n - 1])
        return 0;
    names->n--;
    return -ENOMEM;
}

int bly_names_add_once(struct bly_names *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++)
        if (strcmp(names->items[i], name) == 0)
            return 0;
    return bly_names_add(names, name);
}

static int compare_names(const void *a, const void *b)
{
    return bly_path_compare(*(char *const *)a, *(char *const *)b);
}

void bly_names_keep_topmost(struct bly_names *names)
{
    size_t n = 0;

    bly_sort(names->items, names->n, sizeof(*names->items), compare_names);
    for (size_t i = 0; i < names->n; i++) {
        if (n > 0 && bly_path_is_within(names->items[i], names->items[n - 1]))
            free(names->items[i]);
        else
            names->items[n++] = names->items[i];
    }
    names->n = n;
}

void bly_names_deinit(struct bly_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->items[i]);
    free(names->items);
    *names = (struct bly_names){0};
}

bool bly_names_hold(const struct bly_names *names, const char *path)
{
    for (size_t i = 0; i < names->n; i++)
        if (bly_path_is_within(path, names->items[i]))
            return true;
    return false;
}

void bly_spot_deinit(struct bly_spot *spot)
{
    free(spot->path);
    free(spot->edge);
    *spot = (struct bly_spot){0};
}

void bly_draft_drop_crossings(struct bly_draft *draft, size_t keep)
{
    for (size_t i = keep; i < draft->n_crossings; i++) {
        free(draft->crossings[i].path);
        free(draft->crossings[i].target);
        free(draft->crossings[i].rule);
    }
    draft->n_crossings = keep;
}

void bly_draft_deinit(struct bly_draft *draft)
{
    bly_draft_drop_crossings(draft, 0);
    bly_seen_deinit(&draft->seen);
    for (size_t i = 0; i < draft->n_names; i++)
        bly_spot_deinit(&draft->names[i]);
    free(draft->names);
    free(draft->crossings);
    bly_names_deinit(&draft->closed);
    bly_names_deinit(&draft->pointed);
}

/* NULL: out of memory. */
static struct bly_mark *add_mark(struct bly_plan *plan, enum bly_mark_kind kind, const char *path)
{
    struct bly_mark *grown = bly_list_add(plan->marks, &plan->n_marks, sizeof(*plan->marks));
    struct bly_mark *mark;

    if (!grown)
        return NULL;
    plan->marks = grown;
    mark = &grown[plan->n_marks - 1];
    mark->kind = kind;
    mark->path = strdup(path);
    return mark->path ? mark : NULL;
}

int bly_draft_mark(struct bly_draft *draft, enum bly_mark_kind kind, const char *path,
                   const struct bly_node *node, const char *text, struct bly_err *err)
{
    struct bly_mark *mark;

    /* The root directory cannot be exchanged. */
    if (strcmp(path, "/") == 0)
        return 0;
    mark = add_mark(draft->plan, kind, path);
    if (!mark)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
    mark->node = *node;
    mark->text = text ? strdup(text) : NULL;
    return text && !mark->text ? bly_fail_sys(err, ENOMEM, "cannot plan %s", path) : 0;
}

int bly_draft_mark_missing(struct bly_draft *draft, const char *dir, unsigned names,
                           struct bly_err *err)
{
    struct bly_mark *mark = add_mark(draft->plan, BLY_MARK_LACKS, dir);

    if (!mark)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", dir);
    mark->missing = names;
    return 0;
}

int bly_draft_mark_spot(struct bly_draft *draft, const struct bly_spot *spot, struct bly_err *err)
{
    static const struct bly_node absent = {0};

    /* Rules are walked more than once. */
    if (spot->seen && spot->seen->marked)
        return 0;
    if (spot->seen)
        spot->seen->marked = true;
    switch (spot->state) {
    case BLY_SPOT_FOUND:
        return bly_draft_mark(draft, BLY_MARK_NODE, spot->path, &spot->node, NULL, err);
    case BLY_SPOT_MISSING:
        return bly_draft_mark(draft, BLY_MARK_NODE, spot->edge ? spot->edge : spot->path, &absent,
                              NULL, err);
    case BLY_SPOT_BLOCKED:
        return bly_draft_mark(draft, BLY_MARK_BLOCKED, spot->path, &absent, NULL, err);
    case BLY_SPOT_IN_PROC:
        return 0;
    }
    return 0;
}
