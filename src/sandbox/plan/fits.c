/*
 * The fingerprint: whether everything a plan depended on is still as it was, and which names
 * somebody has to watch to know it without looking.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "sandbox/plan/draft.h"
#include "sandbox/plan/mounts.h"

static bool same_text(int r, const char *now, const char *then)
{
    return r == 0 && strcmp(now, then) == 0;
}

struct digest {
    uint64_t n, sum;
};

static int add_to_digest(void *arg, const char *name, enum bly_node_type type)
{
    struct digest *digest = arg;
    uint64_t hash = 0xcbf29ce484222325u;

    (void)type;
    while (*name)
        hash = (hash ^ (unsigned char)*name++) * 0x100000001b3u; /* FNV-1a */
    digest->n++;
    digest->sum += hash;
    return 0;
}

int bly_plan_digest_names(const struct bly_probe *probe, const char *dir, char **ret_text)
{
    struct digest digest = {0};
    char *text;
    int r = probe->list(probe->ctx, dir, NULL, add_to_digest, &digest);

    if (r < 0)
        return r;
    if (asprintf(&text, "%" PRIu64 " %016" PRIx64, digest.n, digest.sum) < 0)
        return -ENOMEM;
    *ret_text = text;
    return 0;
}

static bool lacks_names(const struct bly_mark *mark, const struct bly_probe *probe)
{
    for (unsigned i = 0; i < BLY_PROTECTED_NAMES; i++) {
        bly_autofree char *path = bly_path_join(mark->path, bly_policy_protected_names[i]);
        struct bly_node node = {0};

        if ((mark->missing & 1u << i) &&
            (!path || probe->look(probe->ctx, path, &node) < 0 || node.type != BLY_NODE_ABSENT))
            return false;
    }
    return true;
}

static bool mark_fits(const struct bly_mark *mark, const struct bly_probe *probe)
{
    bly_autofree char *text = NULL;
    struct bly_node node = {0};
    int r;

    switch (mark->kind) {
    case BLY_MARK_NODE:
        return probe->look(probe->ctx, mark->path, &node) == 0 && node.type == mark->node.type &&
               node.dev == mark->node.dev && node.ino == mark->node.ino;
    case BLY_MARK_LINK:
        r = probe->read_link(probe->ctx, mark->path, &text);
        return same_text(r, text, mark->text);
    case BLY_MARK_TEXT:
        r = probe->read_small(probe->ctx, mark->path, BLY_POINTER_MAX, &text);
        return same_text(r, text, mark->text);
    case BLY_MARK_BLOCKED:
        return probe->look(probe->ctx, mark->path, &node) == -EACCES;
    case BLY_MARK_LISTING:
        r = bly_plan_digest_names(probe, mark->path, &text);
        return same_text(r, text, mark->text);
    case BLY_MARK_MOUNTS:
        r = bly_mounts_text(probe, &text, NULL);
        return same_text(r, text, mark->text);
    case BLY_MARK_LACKS:
        return lacks_names(mark, probe);
    case BLY_MARK_KINDS:
        break;
    }
    return false;
}

/* Which of the parts of a fingerprint a mark belongs to. */
static unsigned part_of(const struct bly_mark *mark)
{
    static const unsigned parts[BLY_MARK_KINDS] = {
        [BLY_MARK_NODE] = BLY_PLAN_NAMES,       [BLY_MARK_LINK] = BLY_PLAN_NAMES,
        [BLY_MARK_LACKS] = BLY_PLAN_NAMES,      [BLY_MARK_TEXT] = BLY_PLAN_CONTENTS,
        [BLY_MARK_BLOCKED] = BLY_PLAN_CONTENTS, [BLY_MARK_LISTING] = BLY_PLAN_CONTENTS,
        [BLY_MARK_MOUNTS] = BLY_PLAN_MOUNTS,
    };

    return parts[mark->kind];
}

int bly_plan_fits_in(const struct bly_plan *plan, const struct bly_probe *probe, unsigned parts)
{
    if (!(parts & plan->mark_parts))
        return 0;
    for (size_t i = 0; i < plan->n_marks; i++)
        if ((part_of(&plan->marks[i]) & parts) && !mark_fits(&plan->marks[i], probe))
            return BLY_PLAN_STALE;
    return 0;
}

int bly_plan_fits(const struct bly_plan *plan, const struct bly_probe *probe)
{
    return bly_plan_fits_in(plan, probe, ~0u);
}

void bly_plan_seal_marks(struct bly_plan *plan)
{
    plan->mark_parts = 0;
    for (size_t i = 0; i < plan->n_marks; i++)
        plan->mark_parts |= part_of(&plan->marks[i]);
}

/* Length of what both have in common, up to a slash or the end of both. */
static size_t common_length(const char *path, const char *before)
{
    size_t same = 0, whole = 0;

    for (; path[same] != '\0' && path[same] == before[same]; same++)
        if (path[same] == '/')
            whole = same;
    if ((path[same] == '/' || path[same] == '\0') && (before[same] == '/' || before[same] == '\0'))
        whole = same;
    return whole;
}

int bly_plan_each_name_of(const char *path, size_t from, bly_plan_name_fn each, void *arg)
{
    char *dir = strdup(path);
    int r = 0;

    if (!dir)
        return -ENOMEM;
    for (size_t at = from; r == 0 && path[at] == '/';) {
        size_t len = strcspn(path + at + 1, "/");

        dir[at] = '\0';
        r = each(arg, at == 0 ? "/" : dir, path + at + 1, len);
        dir[at] = '/';
        at += 1 + len;
    }
    free(dir);
    return r;
}

static int each_missing_name(const struct bly_mark *mark, bly_plan_name_fn each, void *arg)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < BLY_PROTECTED_NAMES; i++) {
        const char *name = bly_policy_protected_names[i];

        if (mark->missing & 1u << i)
            r = each(arg, mark->path, name, strlen(name));
    }
    return r;
}

int bly_plan_each_name(const struct bly_plan *plan, bly_plan_name_fn each, void *arg)
{
    const char *before = "/";
    int r = 0;

    for (size_t i = 0; r == 0 && i < plan->n_marks; i++) {
        const struct bly_mark *mark = &plan->marks[i];

        if (part_of(mark) != BLY_PLAN_NAMES)
            continue;
        r = bly_plan_each_name_of(mark->path, common_length(mark->path, before), each, arg);
        if (r == 0)
            r = each_missing_name(mark, each, arg);
        before = mark->path;
    }
    return r;
}
