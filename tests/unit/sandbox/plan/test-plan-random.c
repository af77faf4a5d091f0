/*
 * Plans against the decision function. For random policies on a random disk the mounts, looked at
 * in order, must show every object exactly as far as the decision function allows: never more, and
 * never less.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_disk.h"

#include "base/cleanup.h"
#include "sandbox/plan/plan_internal.h"

enum { ROUNDS = 3000 };

static uint32_t seed;

static uint32_t pick(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static void random_path(char *path)
{
    static const char *const names[] = {"a", "b", "c", ".git", "k.env"};
    uint32_t depth = 1 + pick(4);

    *path = '\0';
    for (uint32_t i = 0; i < depth; i++)
        path += sprintf(path, "/%s", names[pick(BLY_LEN(names))]);
}

static struct fake_disk *random_disk(void)
{
    struct fake_disk *disk = fake_new("");
    uint32_t n = 1 + pick(20);

    for (uint32_t i = 0; i < n; i++) {
        char path[256];

        random_path(path);
        if (!fake_find(disk, path))
            fake_add(disk, 'd', path, "");
    }
    return disk;
}

static void random_policy(char *text)
{
    static const char *const words[] = {"r", "w", "deny", "skip"};
    uint32_t n = 1 + pick(7);

    *text = '\0';
    if (pick(2))
        text += sprintf(text, "r /;");
    else if (pick(4) == 0)
        text += sprintf(text, "w /;");
    for (uint32_t i = 0; i < n; i++) {
        char path[256];

        random_path(path);
        text += sprintf(text, "%s %s;", words[pick(BLY_LEN(words))], path);
    }
    if (pick(4) == 0)
        (void)sprintf(text, "glob /a/**/*.env;");
}

/* What the mounts show at `path`: the last step that lies on it or above it, by depth. */
static enum bly_access shown(const struct bly_plan *plan, const char *path)
{
    enum bly_access now = BLY_ACCESS_NONE;

    for (size_t i = 0; i < plan->n_steps; i++) {
        const struct bly_step *step = &plan->steps[i];

        if (!bly_path_is_within(path, step->path))
            continue;
        switch (step->kind) {
        case BLY_STEP_READ:
            now = BLY_ACCESS_READ;
            break;
        case BLY_STEP_WRITE:
        case BLY_STEP_PIN:
            now = BLY_ACCESS_WRITE;
            break;
        case BLY_STEP_TMPFS:
        case BLY_STEP_MASK_DIR:
        case BLY_STEP_MASK_FILE:
        case BLY_STEP_PROC:
        case BLY_STEP_PROC_READ:
        case BLY_STEP_DEV:
        case BLY_STEP_SHM:
        case BLY_STEP_LINK:
        case BLY_STEP_PIN_LINK:
        case BLY_STEP_KINDS:
            now = BLY_ACCESS_NONE;
            break;
        }
    }
    return now;
}

static enum bly_access allowed(const struct bly_plan *plan, const char *path)
{
    enum bly_access access = bly_policy_decide(bly_plan_policy(plan), path);

    return access == BLY_ACCESS_DENY ? BLY_ACCESS_NONE : access;
}

static bool is_step(const struct bly_plan *plan, const char *path)
{
    for (size_t i = 0; i < plan->n_steps; i++)
        if (strcmp(plan->steps[i].path, path) == 0)
            return true;
    return false;
}

/* Whatever is not writable below something writable can be neither renamed nor exchanged: it is a
 * mount, and so is every directory on the way. */
static void check_pins(const struct bly_plan *plan, const char *path)
{
    bly_autofree char *here = strdup(path);

    if (allowed(plan, path) == BLY_ACCESS_WRITE)
        return;
    while (strcmp(here, "/") != 0) {
        bly_autofree char *parent = bly_path_join(here, "..");

        if (allowed(plan, parent) != BLY_ACCESS_WRITE)
            return;
        if (!is_step(plan, here))
            fail_msg("%s can be renamed, so %s is not safe", here, path);
        free(here);
        here = bly_take_ptr(&parent);
    }
}

/* Names of what is missing must not be creatable by a process, or by the decision function. */
static void check_absents(const struct bly_plan *plan, struct fake_disk *disk)
{
    for (size_t i = 0; i < plan->n_absents; i++) {
        bly_autofree char *path = bly_path_join(plan->absents[i].dir, plan->absents[i].name);

        assert_non_null(path);
        assert_null(fake_find(disk, path));
        assert_non_null(fake_find(disk, plan->absents[i].dir));
        assert_int_equal(shown(plan, plan->absents[i].dir), BLY_ACCESS_WRITE);
    }
}

static void check_round(uint32_t round, enum bly_purpose purpose)
{
    struct fake_disk *disk = random_disk();
    struct bly_probe probe = fake_probe(disk);
    char text[2048];
    struct bly_policy *policy;
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};

    random_policy(text);
    policy = policy_of(text);
    if (!policy->wall) { /* everything writable and nothing narrower */
        bly_policy_unref(policy);
        free(disk);
        return;
    }
    if (bly_plan_make(policy, purpose, &probe, NULL, 0, &plan, &err) < 0)
        fail_msg("round %u, %s: %s", round, text, err.text);
    for (size_t i = 0; i < disk->n; i++) {
        const char *path = disk->entries[i].path;

        /* The helper's patterns are not mounts; only its decision knows them. */
        if (purpose == BLY_FOR_HELPER && bly_plan_policy(plan)->n_deny_globs > 0)
            break;
        if (shown(plan, path) != allowed(plan, path))
            fail_msg("round %u, %s: %s is shown as %d, allowed is %d", round, text, path,
                     (int)shown(plan, path), (int)allowed(plan, path));
        if (strcmp(path, "/") != 0)
            check_pins(plan, path);
    }
    check_absents(plan, disk);
    bly_plan_free(plan);
    bly_policy_unref(policy);
    free(disk);
}

static void helper_views_show_what_is_allowed(void **state)
{
    (void)state;
    seed = 1;
    for (uint32_t i = 0; i < ROUNDS; i++)
        check_round(i, BLY_FOR_HELPER);
}

static void process_views_show_what_is_allowed(void **state)
{
    (void)state;
    seed = 2;
    for (uint32_t i = 0; i < ROUNDS; i++)
        check_round(i, BLY_FOR_PROCESS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(helper_views_show_what_is_allowed),
        cmocka_unit_test(process_views_show_what_is_allowed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
