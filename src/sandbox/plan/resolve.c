#include "sandbox/plan/draft.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"

/* `canonical`: no directory on the way to `path` is a symlink. `*ret_seen` may be NULL. */
static int look_at(struct bly_draft *draft, const char *path, bool canonical,
                   struct bly_node *ret_node, struct bly_seen_node **ret_seen, struct bly_err *err)
{
    bool is_new;
    struct bly_seen_node *seen = bly_seen_get(&draft->seen, path, &is_new);
    int r = is_new ? draft->probe->look(draft->probe->ctx, path, ret_node) : seen->result;

    if (!is_new)
        *ret_node = seen->node;
    else if (seen)
        seen->result = r, seen->node = r == 0 ? *ret_node : (struct bly_node){0};
    if (seen)
        seen->canonical |= canonical;
    *ret_seen = seen;
    if (r == -EACCES)
        return r;
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot look at %s", path);
    return 0;
}

int bly_draft_look(struct bly_draft *draft, const char *path, struct bly_node *ret_node,
                   struct bly_err *err)
{
    struct bly_seen_node *seen;

    return look_at(draft, path, false, ret_node, &seen, err);
}

bool bly_draft_lacks(struct bly_draft *draft, const char *path)
{
    size_t dir_len = (size_t)(bly_path_base(path) - path) - 1;
    const struct bly_seen_node *seen;

    if (!bly_seen_is_directory(&draft->seen, path, dir_len))
        return false;
    seen = bly_seen_find(&draft->seen, path, strlen(path));
    return seen && seen->marked && seen->result == 0 && seen->node.type == BLY_NODE_ABSENT;
}

/* The walk: `done` is canonical and names a directory, `todo` is what remains. */
struct walk {
    char *done;
    char *todo;
    unsigned n_links;
};

static void walk_deinit(struct walk *walk)
{
    free(walk->done);
    free(walk->todo);
}

/* Cuts the next component off `*todo`; NULL at the end. The component is owned by the caller. */
static int next_component(char **todo, char **ret_component, bool *ret_last)
{
    const char *from = *todo + strspn(*todo, "/");
    size_t len = strcspn(from, "/");
    const char *rest = from + len + strspn(from + len, "/");
    bly_autofree char *component = NULL;
    char *left;

    *ret_component = NULL;
    if (len == 0)
        return 0;
    component = strndup(from, len);
    left = strdup(rest);
    if (!component || !left) {
        free(left);
        return -ENOMEM;
    }
    free(*todo);
    *todo = left;
    *ret_last = *left == '\0';
    *ret_component = bly_take_ptr(&component);
    return 0;
}

/* ".." of a directory reached by walking: its parent. */
static int step_up(char *done)
{
    char *slash = strrchr(done, '/');

    if (slash == done)
        slash++;
    *slash = '\0';
    return 0;
}

/* `dir` plus what remains; "a/../b" below something that does not exist has no meaning. */
static int append_rest(const char *dir, const char *rest, char **ret_path, struct bly_err *err)
{
    const char *p = rest;

    while (*p) {
        size_t len = strcspn(p, "/");

        if (len == 2 && memcmp(p, "..", 2) == 0)
            return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                            "a sandbox path leads through a symlink to %s/%s, which climbs out of "
                            "something that does not exist",
                            dir, rest);
        p += len;
        p += strspn(p, "/");
    }
    *ret_path = *rest ? bly_path_join(dir, rest) : strdup(dir);
    return *ret_path ? 0 : bly_fail_sys(err, ENOMEM, "cannot resolve %s", dir);
}

static int add_crossing(struct bly_draft *draft, const char *rule, const char *link,
                        const char *target, bool terminal, const struct bly_node *node,
                        struct bly_err *err)
{
    struct bly_crossing *crossing;
    struct bly_crossing *grown =
        bly_list_add(draft->crossings, &draft->n_crossings, sizeof(*draft->crossings));

    if (!grown)
        return bly_fail_sys(err, ENOMEM, "cannot resolve %s", rule);
    draft->crossings = grown;
    crossing = &grown[draft->n_crossings - 1];
    crossing->path = strdup(link);
    crossing->target = strdup(target);
    crossing->rule = strdup(rule);
    crossing->terminal = terminal;
    if (!crossing->path || !crossing->target || !crossing->rule)
        return bly_fail_sys(err, ENOMEM, "cannot resolve %s", rule);
    return bly_draft_mark(draft, BLY_MARK_LINK, link, node, target, err);
}

static int follow(struct bly_draft *draft, struct walk *walk, const char *rule, const char *link,
                  const struct bly_node *node, struct bly_err *err)
{
    bly_autofree char *target = NULL;
    char *todo;
    int r = draft->probe->read_link(draft->probe->ctx, link, &target);

    if (r < 0)
        return bly_fail_sys(err, -r, "cannot read the symlink %s", link);
    if (++walk->n_links > BLY_WALK_MAX_LINKS)
        return bly_fail(err, BLY_ERR_INVALID, ELOOP,
                        "the sandbox path %s leads through too many symlinks", rule);
    r = add_crossing(draft, rule, link, target, walk->todo[0] == '\0', node, err);
    if (r < 0)
        return r;
    if (asprintf(&todo, "%s/%s", target, walk->todo) < 0)
        return bly_fail_sys(err, ENOMEM, "cannot resolve %s", rule);
    free(walk->todo);
    walk->todo = todo;
    if (target[0] == '/')
        walk->done[1] = '\0'; /* begins with '/' */
    return 0;
}

static int finish(struct bly_spot *spot, enum bly_spot_state state, char *path, const char *edge,
                  const struct bly_node *node)
{
    spot->state = state;
    spot->path = path;
    spot->node = *node;
    spot->edge = edge ? strdup(edge) : NULL;
    return edge && !spot->edge ? -ENOMEM : 0;
}

/*
 * Takes one component. Returns 1 when `spot` is complete, 0 to go on.
 */
static int take_component(struct bly_draft *draft, struct walk *walk, const char *rule,
                          const char *component, bool last, bool keep_last, struct bly_spot *spot,
                          struct bly_err *err)
{
    bly_autofree char *here = NULL;
    bly_autofree char *whole = NULL;
    struct bly_node node = {0};
    struct bly_seen_node *seen;
    int r;

    if (strcmp(component, ".") == 0)
        return 0;
    if (strcmp(component, "..") == 0)
        return step_up(walk->done);
    here = bly_path_join(walk->done, component);
    if (!here)
        return bly_fail_sys(err, ENOMEM, "cannot resolve %s", rule);

    /*
     * Nothing of /proc is resolved: its links are magic, and what they show depends on who looks.
     * The view gets a procfs of its own, never a part of the host's.
     */
    if (bly_path_is_within(here, "/proc")) {
        r = append_rest(here, walk->todo, &whole, err);
        if (r == 0)
            r = finish(spot, BLY_SPOT_IN_PROC, bly_take_ptr(&whole), NULL, &node);
        return r < 0 ? r : 1;
    }

    r = look_at(draft, here, true, &node, &seen, err);
    if (r < 0 && r != -EACCES)
        return r;
    if (r == 0 && node.type == BLY_NODE_LINK && !(last && keep_last))
        return follow(draft, walk, rule, here, &node, err);
    if (r == 0 && node.type == BLY_NODE_DIR && !last) {
        free(walk->done);
        walk->done = bly_take_ptr(&here);
        return 0;
    }

    if (append_rest(here, walk->todo, &whole, err) < 0)
        return -EINVAL;
    if (r == -EACCES) {
        struct bly_node dir = {0};

        r = bly_draft_look(draft, walk->done, &dir, err);
        if (r < 0)
            return bly_fail_sys(err, -r, "cannot look at %s", walk->done);
        r = finish(spot, BLY_SPOT_BLOCKED, bly_take_ptr(&whole), walk->done, &dir);
    } else if (node.type == BLY_NODE_ABSENT) {
        r = finish(spot, BLY_SPOT_MISSING, bly_take_ptr(&whole), here, &node);
    } else if (!last) {
        r = finish(spot, BLY_SPOT_MISSING, bly_take_ptr(&whole), NULL, &(struct bly_node){0});
    } else {
        r = finish(spot, BLY_SPOT_FOUND, bly_take_ptr(&whole), NULL, &node);
    }
    return r < 0 ? bly_fail_sys(err, ENOMEM, "cannot resolve %s", rule) : 1;
}

static int found_directory(struct bly_draft *draft, struct walk *walk, struct bly_spot *spot,
                           struct bly_err *err)
{
    struct bly_node node = {0};
    int r = bly_draft_look(draft, walk->done, &node, err);

    if (r < 0)
        return bly_fail_sys(err, -r, "cannot look at %s", walk->done);
    if (node.type != BLY_NODE_DIR)
        return bly_fail(err, BLY_ERR_INVALID, EAGAIN, "%s changed while it was looked at",
                        walk->done);
    return finish(spot, BLY_SPOT_FOUND, bly_take_ptr(&walk->done), NULL, &node);
}

enum { NOT_TAKEN = 1 }; /* outcome of take_neighbour() */

/* Most names of a policy stand in a directory that was walked already, and are no links. */
static int take_neighbour(struct bly_draft *draft, const char *path, bool keep_last,
                          struct bly_spot *spot, struct bly_err *err)
{
    const char *name = bly_path_base(path);
    struct bly_node node = {0};
    struct bly_seen_node *seen;
    char *copy;
    int r;

    /* The path may come from a pointer file, and is no path in our sense then. */
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        !bly_seen_is_directory(&draft->seen, path, (size_t)(name - path) - 1))
        return NOT_TAKEN;
    r = look_at(draft, path, true, &node, &seen, err);
    if (r < 0)
        return r == -EACCES ? NOT_TAKEN : r;
    if (node.type == BLY_NODE_LINK && !keep_last)
        return NOT_TAKEN;
    copy = strdup(path);
    if (!copy)
        return bly_fail_sys(err, ENOMEM, "cannot resolve %s", path);
    r = node.type == BLY_NODE_ABSENT ? finish(spot, BLY_SPOT_MISSING, copy, path, &node)
                                     : finish(spot, BLY_SPOT_FOUND, copy, NULL, &node);
    spot->seen = seen;
    return r < 0 ? bly_fail_sys(err, ENOMEM, "cannot resolve %s", path) : 0;
}

static int walk_from(struct bly_draft *draft, const char *path, size_t known, bool keep_last,
                     struct bly_spot *ret_spot, struct bly_err *err)
{
    __attribute__((cleanup(walk_deinit))) struct walk walk = {
        known ? strndup(path, known) : strdup("/"), strdup(path + known), 0};

    if (!walk.done || !walk.todo)
        return bly_fail_sys(err, ENOMEM, "cannot resolve %s", path);
    for (;;) {
        bly_autofree char *component = NULL;
        bool last = false;
        int r;

        r = next_component(&walk.todo, &component, &last);
        if (r < 0)
            return bly_fail_sys(err, -r, "cannot resolve %s", path);
        if (!component)
            return found_directory(draft, &walk, ret_spot, err);
        r = take_component(draft, &walk, path, component, last, keep_last, ret_spot, err);
        if (r != 0)
            return r < 0 ? r : 0;
    }
}

int bly_draft_walk(struct bly_draft *draft, const char *path, bool keep_last,
                   struct bly_spot *ret_spot, struct bly_err *err)
{
    int r = take_neighbour(draft, path, keep_last, ret_spot, err);

    if (r != NOT_TAKEN)
        return r;
    return walk_from(draft, path, bly_seen_directory_above(&draft->seen, path), keep_last, ret_spot,
                     err);
}
