#include "sandbox/policy/rules.h"

#include <stdlib.h>
#include <string.h>

#include "base/path.h"

int bly_rules_compare_paths(const char *a, const char *b)
{
    size_t depth_a = bly_path_depth(a);
    size_t depth_b = bly_path_depth(b);

    if (depth_a != depth_b)
        return depth_a < depth_b ? -1 : 1;
    return strcmp(a, b);
}

static int compare_rules(const void *left, const void *right)
{
    const struct bly_rule *a = left;
    const struct bly_rule *b = right;
    int order = bly_rules_compare_paths(a->path, b->path);

    if (order != 0)
        return order;
    return (int)b->access - (int)a->access; /* the strongest first: deny, write, read */
}

size_t bly_rules_sort(struct bly_rule *rules, size_t n)
{
    size_t kept = 0;

    if (n > 0)
        qsort(rules, n, sizeof(*rules), compare_rules);
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

/* Compares a rule with the first `len` bytes of `path`, which have `depth` components. */
static int compare_prefix(const struct bly_rule *rule, const char *path, size_t len, size_t depth)
{
    size_t rule_depth = bly_path_depth(rule->path);

    if (rule_depth != depth)
        return rule_depth < depth ? -1 : 1;

    int order = strncmp(rule->path, path, len);

    if (order != 0)
        return order;
    return rule->path[len] != '\0';
}

/* Steps to the next longer prefix that ends with a component; false when there is none. */
static bool next_prefix(struct bly_rule_walk *walk)
{
    size_t start;

    if (walk->len == 0) { /* begin with "/" */
        walk->len = 1;
        return true;
    }
    start = walk->len == 1 ? 1 : walk->len + 1;
    if (walk->path[start - 1] != '/' || walk->path[start] == '\0')
        return false;
    walk->len = start + strcspn(walk->path + start, "/");
    walk->depth++;
    return true;
}

const struct bly_rule *bly_rule_walk_next(struct bly_rule_walk *walk)
{
    while (walk->from < walk->n && next_prefix(walk)) {
        size_t low = walk->from;
        size_t high = walk->n;

        while (low < high) {
            size_t middle = low + (high - low) / 2;

            if (compare_prefix(&walk->rules[middle], walk->path, walk->len, walk->depth) < 0)
                low = middle + 1;
            else
                high = middle;
        }
        walk->from = low;
        if (low < walk->n &&
            compare_prefix(&walk->rules[low], walk->path, walk->len, walk->depth) == 0)
            return &walk->rules[low];
    }
    return NULL;
}

const struct bly_rule *bly_rules_find(const struct bly_rule *rules, size_t n, const char *path)
{
    size_t low = 0;
    size_t high = n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = bly_rules_compare_paths(rules[middle].path, path);

        if (order == 0)
            return &rules[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
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
