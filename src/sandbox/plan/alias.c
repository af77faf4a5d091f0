/*
 * The same object in two places. A restriction is a mount on one path; where the host has the same
 * file system mounted a second time (bind mounts, containers, snapshots) the restricted object is
 * reachable under another name, where nothing holds it. The host's mount table says where.
 */
#include "sandbox/plan/draft.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"

enum { MOUNT_TABLE_MAX = 8 << 20 };

struct mount {
    const char *device; /* "major:minor" */
    const char *root;   /* what of the file system is mounted */
    const char *point;  /* where */
    const char *type;
};

struct mounts {
    char *text; /* what the fields point into */
    struct mount *items;
    size_t n;
};

static void mounts_deinit(struct mounts *mounts)
{
    free(mounts->text);
    free(mounts->items);
}

/* The kernel writes space, tab, newline and backslash as three octal digits. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
            from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* "ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS...] - TYPE SOURCE OPTIONS" */
static bool parse_mount(char *line, struct mount *ret)
{
    char *fields[5];
    char *save = NULL;
    char *word = strtok_r(line, " ", &save);

    for (size_t i = 0; i < BLY_LEN(fields); i++) {
        if (!word)
            return false;
        fields[i] = word;
        word = strtok_r(NULL, " ", &save);
    }
    while (word && strcmp(word, "-") != 0)
        word = strtok_r(NULL, " ", &save);
    if (!word)
        return false;
    word = strtok_r(NULL, " ", &save);
    if (!word)
        return false;
    unescape(fields[3]);
    unescape(fields[4]);
    *ret = (struct mount){fields[2], fields[3], fields[4], word};
    return true;
}

static int read_mounts(struct bly_draft *draft, struct mounts *mounts, struct bly_err *err)
{
    char *save = NULL;
    int r = draft->probe->read_small(draft->probe->ctx, "/proc/self/mountinfo", MOUNT_TABLE_MAX,
                                     &mounts->text);

    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot read the mount table");
    if (strlen(mounts->text) >= MOUNT_TABLE_MAX)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, E2BIG, "the mount table is too large");

    for (char *line = strtok_r(mounts->text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        struct mount *grown = bly_list_add(mounts->items, &mounts->n, sizeof(*mounts->items));

        if (!grown)
            return bly_fail_sys(err, ENOMEM, "cannot read the mount table");
        mounts->items = grown;
        if (!parse_mount(line, &grown[mounts->n - 1]))
            return bly_fail(err, BLY_ERR_UNSUPPORTED, EINVAL, "cannot understand the mount table");
    }
    return 0;
}

/* The mount that holds `path`: the deepest one, and of those the one mounted last. */
static const struct mount *mount_of(const struct mounts *mounts, const char *path)
{
    const struct mount *best = NULL;

    for (size_t i = 0; i < mounts->n; i++) {
        const struct mount *m = &mounts->items[i];

        if (bly_path_is_within(path, m->point) &&
            (!best || strlen(m->point) >= strlen(best->point)))
            best = m;
    }
    return best;
}

/* What is left of `path` behind `dir`, without a leading slash. */
static const char *behind(const char *path, const char *dir)
{
    path += strcmp(dir, "/") == 0 ? 0 : strlen(dir);
    return path + strspn(path, "/");
}

static char *join(const char *dir, const char *rest)
{
    return *rest ? bly_path_join(dir, rest) : strdup(dir);
}

static bool same_node(struct bly_draft *draft, const char *a, const char *b)
{
    struct bly_node x = {0}, y = {0};

    return bly_draft_look(draft, a, &x, NULL) == 0 && bly_draft_look(draft, b, &y, NULL) == 0 &&
           x.type == y.type && x.dev == y.dev && x.ino == y.ino;
}

/* Holds for things that exist and for names that are missing in the same directory. */
static bool same_object(struct bly_draft *draft, const char *a, const char *b)
{
    struct bly_node node = {0};
    bly_autofree char *dir_a = NULL;
    bly_autofree char *dir_b = NULL;

    if (!same_node(draft, a, b))
        return false;
    if (bly_draft_look(draft, a, &node, NULL) < 0 || node.type != BLY_NODE_ABSENT)
        return true;
    dir_a = bly_path_join(a, "..");
    dir_b = bly_path_join(b, "..");
    return dir_a && dir_b && strcmp(bly_path_base(a), bly_path_base(b)) == 0 &&
           same_node(draft, dir_a, dir_b);
}

/* Restricts the other name as well, if the policy opens it further than the restriction allows. */
static int restrict_alias(struct bly_draft *draft, const char *alias, enum bly_access access,
                          struct bly_err *err)
{
    struct bly_policy *policy = draft->plan->policy;
    enum bly_access now = bly_policy_decide(policy, alias);

    if (now == BLY_ACCESS_NONE || now == BLY_ACCESS_DENY || now == access)
        return 0;
    return bly_draft_set_rule(policy, alias, access, err);
}

static int check_mount(struct bly_draft *draft, const char *path, enum bly_access access,
                       const char *in_fs, const struct mount *home, const struct mount *other,
                       struct bly_err *err)
{
    bly_autofree char *alias = NULL;
    bly_autofree char *original = NULL;
    bool part = false;

    if (other == home || strcmp(other->device, home->device) != 0)
        return 0;
    if (bly_path_is_within(in_fs, other->root)) {
        alias = join(other->point, behind(in_fs, other->root));
        original = strdup(path);
    } else if (bly_path_is_within(other->root, in_fs)) {
        alias = strdup(other->point);
        original = join(path, behind(other->root, in_fs));
        part = true;
    } else {
        return 0;
    }
    if (!alias || !original)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
    /* Below the restriction itself it is covered; elsewhere it must really be the same object, not
     * something that a later mount covers. */
    if (bly_path_is_within(alias, path) || !same_object(draft, alias, original))
        return 0;
    /* A mount of something inside the restricted tree that the client named itself is his choice.
     */
    if (part && bly_draft_has_rule(draft->plan->policy, alias))
        return 0;
    return restrict_alias(draft, alias, access, err);
}

static int check_rule(struct bly_draft *draft, const struct mounts *mounts, const char *path,
                      enum bly_access access, struct bly_err *err)
{
    const struct mount *home = mount_of(mounts, path);
    bly_autofree char *in_fs = NULL;
    int r = 0;

    if (!home)
        return 0;
    in_fs = join(home->root, behind(path, home->point));
    if (!in_fs)
        return bly_fail_sys(err, ENOMEM, "cannot plan %s", path);
    for (size_t i = 0; r == 0 && i < mounts->n; i++)
        r = check_mount(draft, path, access, in_fs, home, &mounts->items[i], err);
    return r;
}

/* The host's processes show through every procfs, wherever it is mounted. */
static int close_foreign_proc(struct bly_draft *draft, const struct mounts *mounts,
                              struct bly_err *err)
{
    for (size_t i = 0; i < mounts->n; i++) {
        const struct mount *m = &mounts->items[i];

        if (strcmp(m->type, "proc") == 0 && !bly_path_is_within(m->point, "/proc") &&
            bly_names_add_once(&draft->closed, m->point) < 0)
            return bly_fail_sys(err, ENOMEM, "cannot plan %s", m->point);
    }
    return 0;
}

static bool restricts(const struct bly_policy *policy, const struct bly_rule *rule)
{
    return rule->access == BLY_ACCESS_DENY ||
           (rule->access == BLY_ACCESS_READ &&
            bly_draft_parent_access(policy, rule->path) == BLY_ACCESS_WRITE);
}

int bly_draft_aliases(struct bly_draft *draft, struct bly_err *err)
{
    __attribute__((cleanup(mounts_deinit))) struct mounts mounts = {0};
    struct bly_policy *policy = draft->plan->policy;
    struct bly_policy *before;
    int r = read_mounts(draft, &mounts, err);

    if (r == 0)
        r = close_foreign_proc(draft, &mounts, err);
    if (r < 0)
        return r;
    before = bly_policy_copy(policy); /* the rules move while aliases are added */
    if (!before)
        return bly_fail_sys(err, ENOMEM, "cannot plan the sandbox");
    for (size_t i = 0; r == 0 && i < before->n_rules; i++)
        if (restricts(before, &before->rules[i]))
            r = check_rule(draft, &mounts, before->rules[i].path, before->rules[i].access, err);
    bly_policy_unref(before);
    return r;
}
