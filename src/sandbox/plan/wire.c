/*
 * A plan as bytes, for the launcher, and as text, for people. The reader of the bytes believes
 * nothing: a plan that came apart on the way must not become a wall with a hole.
 */
#include "sandbox/plan/plan_internal.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "sandbox/policy/policy.h"

enum {
    PLAN_MAGIC = 0x62706c31, /* "bpl1" */
    MAX_STEPS = 1 << 16,
    MAX_NAMES = 1 << 18,
};

static void put_node(struct bly_buf *buf, const struct bly_node *node)
{
    (void)bly_buf_put_u8(buf, (uint8_t)node->type);
    (void)bly_buf_put_u64(buf, node->dev);
    (void)bly_buf_put_u64(buf, node->ino);
    (void)bly_buf_put_u32(buf, node->mode);
}

static void put_names(struct bly_buf *buf, char *const *names, size_t n)
{
    (void)bly_buf_put_u32(buf, (uint32_t)n);
    for (size_t i = 0; i < n; i++)
        (void)bly_buf_put_str(buf, names[i]);
}

static void put_steps(struct bly_buf *buf, const struct bly_plan *plan)
{
    (void)bly_buf_put_u32(buf, (uint32_t)plan->n_steps);
    for (size_t i = 0; i < plan->n_steps; i++) {
        const struct bly_step *step = &plan->steps[i];

        (void)bly_buf_put_u8(buf, (uint8_t)step->kind);
        (void)bly_buf_put_str(buf, step->path);
        (void)bly_buf_put_str(buf, step->text);
        (void)bly_buf_put_u32(buf, step->mode);
        (void)bly_buf_put_u32(buf, step->on);
        put_node(buf, &step->node);
    }
}

int bly_plan_pack(const struct bly_plan *plan, struct bly_buf *buf)
{
    (void)bly_buf_put_u32(buf, PLAN_MAGIC);
    (void)bly_buf_put_u8(buf, (uint8_t)plan->purpose);
    (void)bly_buf_put_u8(buf, plan->network);
    (void)bly_buf_put_u8(buf, plan->network_only);
    put_steps(buf, plan);
    (void)bly_buf_put_u32(buf, (uint32_t)plan->n_absents);
    for (size_t i = 0; i < plan->n_absents; i++) {
        (void)bly_buf_put_str(buf, plan->absents[i].dir);
        (void)bly_buf_put_str(buf, plan->absents[i].name);
    }
    put_names(buf, plan->write_roots, plan->n_write_roots);
    put_names(buf, plan->link_dirs, plan->n_link_dirs);
    (void)bly_policy_pack(plan->policy, buf);
    return buf->error;
}

/* ---- reading ---- */

static uint8_t get_below(struct bly_reader *r, unsigned end)
{
    uint8_t v = bly_get_u8(r);

    if (v >= end)
        r->bad = true;
    return r->bad ? 0 : v;
}

static char *get_path(struct bly_reader *r)
{
    char *path = bly_get_str(r);

    if (!path || !bly_path_is_normal(path, strlen(path)))
        r->bad = true;
    return path;
}

/* Room for a counted list; a count beyond what the bytes could hold is refused before allocating.
 */
static void *get_list(struct bly_reader *r, size_t max, size_t item_size, size_t *ret_n)
{
    uint32_t n = bly_get_u32(r);
    void *items;

    *ret_n = 0;
    if (r->bad || n > max || n > r->len - r->pos) {
        r->bad = true;
        return NULL;
    }
    items = calloc((size_t)n + 1, item_size);
    if (!items)
        r->bad = true;
    else
        *ret_n = n;
    return items;
}

static struct bly_node get_node(struct bly_reader *r)
{
    struct bly_node node = {0};

    node.type = (enum bly_node_type)get_below(r, BLY_NODE_OTHER + 1);
    node.dev = bly_get_u64(r);
    node.ino = bly_get_u64(r);
    node.mode = bly_get_u32(r);
    return node;
}

/* A step lies on the mount of an earlier one, and the first is the root. */
static bool step_is_sound(const struct bly_plan *plan, size_t i)
{
    const struct bly_step *step = &plan->steps[i];

    if (i == 0)
        return strcmp(step->path, "/") == 0 && step->on == 0 && !step->text &&
               step->mode <= 07777 &&
               (step->kind == BLY_STEP_TMPFS || step->kind == BLY_STEP_READ ||
                step->kind == BLY_STEP_WRITE);
    return step->on < i && step->kind != BLY_STEP_TMPFS && strcmp(step->path, "/") != 0 &&
           (step->kind == BLY_STEP_LINK) == (step->text != NULL) &&
           bly_path_is_within(step->path, plan->steps[step->on].path) &&
           strcmp(step->path, plan->steps[step->on].path) != 0 && step->mode <= 07777;
}

static void get_steps(struct bly_reader *r, struct bly_plan *plan)
{
    plan->steps = get_list(r, MAX_STEPS, sizeof(*plan->steps), &plan->n_steps);
    for (size_t i = 0; !r->bad && i < plan->n_steps; i++) {
        struct bly_step *step = &plan->steps[i];

        step->kind = (enum bly_step_kind)get_below(r, BLY_STEP_KINDS);
        step->path = get_path(r);
        step->text = bly_get_str(r);
        step->mode = bly_get_u32(r);
        step->on = bly_get_u32(r);
        step->node = get_node(r);
        if (!r->bad && !step_is_sound(plan, i))
            r->bad = true;
    }
    if (!r->bad && plan->n_steps == 0)
        r->bad = true;
}

static void get_absents(struct bly_reader *r, struct bly_plan *plan)
{
    plan->absents = get_list(r, MAX_NAMES, sizeof(*plan->absents), &plan->n_absents);
    for (size_t i = 0; !r->bad && i < plan->n_absents; i++) {
        const char *name;

        plan->absents[i].dir = get_path(r);
        name = plan->absents[i].name = bly_get_str(r);
        if (!name || !*name || strchr(name, '/') || strcmp(name, ".") == 0 ||
            strcmp(name, "..") == 0)
            r->bad = true;
    }
}

static char **get_names(struct bly_reader *r, size_t *ret_n)
{
    char **names = get_list(r, MAX_NAMES, sizeof(*names), ret_n);

    for (size_t i = 0; !r->bad && i < *ret_n; i++)
        names[i] = get_path(r);
    return names;
}

static bool get_bool(struct bly_reader *r)
{
    return get_below(r, 2) == 1;
}

int bly_plan_unpack(struct bly_reader *reader, struct bly_plan **ret_plan)
{
    struct bly_plan *plan = calloc(1, sizeof(*plan));

    if (!plan)
        return -ENOMEM;
    if (bly_get_u32(reader) != PLAN_MAGIC)
        reader->bad = true;
    plan->purpose = (enum bly_purpose)get_below(reader, BLY_FOR_PROCESS + 1);
    plan->network = get_bool(reader);
    plan->network_only = get_bool(reader);
    get_steps(reader, plan);
    get_absents(reader, plan);
    plan->write_roots = get_names(reader, &plan->n_write_roots);
    plan->link_dirs = get_names(reader, &plan->n_link_dirs);
    if (reader->bad || bly_policy_unpack(reader, &plan->policy) < 0) {
        bly_plan_free(plan);
        return -EBADMSG;
    }
    *ret_plan = plan;
    return 0;
}

/* ---- printing ---- */

static const char *const step_names[BLY_STEP_KINDS] = {
    [BLY_STEP_TMPFS] = "tmpfs",
    [BLY_STEP_READ] = "ro",
    [BLY_STEP_WRITE] = "rw",
    [BLY_STEP_PIN] = "pin",
    [BLY_STEP_PIN_LINK] = "pin-link",
    [BLY_STEP_MASK_DIR] = "mask-dir",
    [BLY_STEP_MASK_FILE] = "mask-file",
    [BLY_STEP_PROC] = "proc",
    [BLY_STEP_PROC_READ] = "proc-ro",
    [BLY_STEP_DEV] = "dev",
    [BLY_STEP_SHM] = "shm",
    [BLY_STEP_LINK] = "link",
};

const char *bly_step_name(enum bly_step_kind kind)
{
    return step_names[kind];
}

/* Names may hold anything but NUL; a newline in one must not look like a step. */
static void print_name(struct bly_buf *buf, const char *name)
{
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;

        if (c < 0x20 || c == 0x7f || c == '\\')
            (void)bly_buf_printf(buf, "\\%03o", c);
        else
            (void)bly_buf_add_char(buf, *name);
    }
}

int bly_plan_print(const struct bly_plan *plan, struct bly_buf *buf)
{
    if (plan->network_only)
        (void)bly_buf_add_str(buf, "network-only\n");
    for (size_t i = 0; i < plan->n_steps; i++) {
        const struct bly_step *step = &plan->steps[i];

        (void)bly_buf_printf(buf, "%s ", step_names[step->kind]);
        print_name(buf, step->path);
        if (step->kind == BLY_STEP_MASK_DIR && step->mode)
            (void)bly_buf_printf(buf, " %03o", step->mode);
        if (step->text) {
            (void)bly_buf_add_char(buf, ' ');
            print_name(buf, step->text);
        }
        (void)bly_buf_add_char(buf, '\n');
    }
    for (size_t i = 0; i < plan->n_absents; i++) {
        (void)bly_buf_add_str(buf, "absent ");
        print_name(buf, strcmp(plan->absents[i].dir, "/") == 0 ? "" : plan->absents[i].dir);
        (void)bly_buf_add_char(buf, '/');
        print_name(buf, plan->absents[i].name);
        (void)bly_buf_add_char(buf, '\n');
    }
    return buf->error;
}
