#include "sandbox/policy/rules.h"

#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "base/sort.h"

/*
 * The order of the list: fewer components first, then bytewise. Compares a rule with the first
 * `len` bytes of `path`, which are `depth` components. The depth is kept in the rule, so that most
 * steps of a search look at no text at all.
 */
static int compare_prefix(const struct bly_rule *rule, const char *path, size_t len, size_t depth)
{
    int order;

    if (rule->depth != depth)
        return rule->depth < depth ? -1 : 1;
    order = strncmp(rule->path, path, len);
    return order != 0 ? order : rule->path[len] != '\0';
}

int bly_rules_compare_paths(const char *a, size_t depth_a, const char *b, size_t depth_b)
{
    if (depth_a != depth_b)
        return depth_a < depth_b ? -1 : 1;
    return strcmp(a, b);
}

static int compare_rules(const void *left, const void *right)
{
    const struct bly_rule *a = left;
    const struct bly_rule *b = right;
    int order = bly_rules_compare_paths(a->path, a->depth, b->path, b->depth);

    if (order != 0)
        return order;
    return (int)b->access - (int)a->access; /* the strongest first: deny, write, read */
}

size_t bly_rules_sort(struct bly_rule *rules, size_t n)
{
    size_t kept = 0;

    bly_sort(rules, n, sizeof(*rules), compare_rules);
    for (size_t i = 0; i < n; i++) {
        struct bly_rule *last = kept > 0 ? &rules[kept - 1] : NULL;

        if (!last || strcmp(last->path, rules[i].path) != 0) {
            rules[kept++] = rules[i];
            continue;
        }
        /* A flag weakens a rule, so it stays only when everybody who asks for this has it. */
        if (last->access == rules[i].access)
            last->flags &= rules[i].flags;
        free(rules[i].path);
    }
    return kept;
}

/* Steps to the next longer prefix that ends with a component; false when there is none. */
static bool next_prefix(struct bly_rule_walk *walk)
{
    size_t start;

    if (walk->len == 0) { /* begin with "/" */
        walk->len = 1;
        return true;
    }
    walk->depth++;
    start = walk->len == 1 ? 1 : walk->len + 1;
    if (walk->path[start - 1] != '/' || walk->path[start] == '\0')
        return false;
    walk->len = start + strcspn(walk->path + start, "/");
    return true;
}

/* The first rule at or behind the prefix, not in front of `low`. */
static size_t search(const struct bly_rule *rules, size_t low, size_t high, const char *path,
                     size_t len, size_t depth)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare_prefix(&rules[middle], path, len, depth) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct bly_rule *bly_rule_walk_next(struct bly_rule_walk *walk)
{
    while (walk->from < walk->n && next_prefix(walk)) {
        const struct bly_rule *rule;

        if (walk->rules[walk->from].depth > walk->depth) /* none as shallow as this is left */
            continue;
        walk->from = search(walk->rules, walk->from, walk->n, walk->path, walk->len, walk->depth);
        rule = &walk->rules[walk->from];
        if (walk->from < walk->n && compare_prefix(rule, walk->path, walk->len, walk->depth) == 0)
            return rule;
    }
    return NULL;
}

size_t bly_rules_place(const struct bly_rule *rules, size_t n, const char *path, bool *ret_found)
{
    size_t at = search(rules, 0, n, path, strlen(path), bly_path_depth(path));

    *ret_found = at < n && strcmp(rules[at].path, path) == 0;
    return at;
}

const struct bly_rule *bly_rules_find(const struct bly_rule *rules, size_t n, const char *path)
{
    bool found;
    size_t at = bly_rules_place(rules, n, path, &found);

    return found ? &rules[at] : NULL;
}

bool bly_rules_have_write_above(const struct bly_rule *rules, size_t n, const char *path)
{
    struct bly_rule_walk walk = {.rules = rules, .n = n, .path = path};
    const struct bly_rule *rule;

    while ((rule = bly_rule_walk_next(&walk)) != NULL) {
        if (rule->access == BLY_ACCESS_WRITE)
            return true;
    }
    return false;
}
