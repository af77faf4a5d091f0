#include "sandbox/policy/rules.h"

#include <stdlib.h>
#include <string.h>

static size_t count_slashes(const char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += text[i] == '/';
    return n;
}

/*
 * The order of the list: fewer components first, then bytewise. Compares `path` with the first
 * `len` bytes of `prefix`. What both have in front need not be counted, and "/", which is in front
 * of all, comes first.
 */
static int compare_prefix(const char *path, const char *prefix, size_t len)
{
    size_t same = 0;

    while (same < len && path[same] == prefix[same])
        same++;

    size_t rest = strlen(path + same);

    if (rest == 0 && same == len)
        return 0;

    size_t deeper = count_slashes(path + same, rest);
    size_t other = count_slashes(prefix + same, len - same);

    if (deeper != other)
        return deeper < other ? -1 : 1;
    if (same == len)
        return 1;
    return (unsigned char)path[same] < (unsigned char)prefix[same] ? -1 : 1;
}

int bly_rules_compare_paths(const char *a, const char *b)
{
    return compare_prefix(a, b, strlen(b));
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
    return true;
}

const struct bly_rule *bly_rule_walk_next(struct bly_rule_walk *walk)
{
    while (walk->from < walk->n && next_prefix(walk)) {
        size_t low = walk->from;
        size_t high = walk->n;

        while (low < high) {
            size_t middle = low + (high - low) / 2;

            if (compare_prefix(walk->rules[middle].path, walk->path, walk->len) < 0)
                low = middle + 1;
            else
                high = middle;
        }
        walk->from = low;
        if (low < walk->n && compare_prefix(walk->rules[low].path, walk->path, walk->len) == 0)
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
