/* The packed form of a plan: only what packing would have written is accepted. */
#include "base/cleanup.h"
#include "fuzz.h"
#include "sandbox/plan/plan_internal.h"

/* What sandbox/enforce takes for granted. */
static void check_steps(const struct bly_plan *plan)
{
    FUZZ_MUST(plan->n_steps > 0 && strcmp(plan->steps[0].path, "/") == 0);
    for (size_t i = 0; i < plan->n_steps; i++) {
        const struct bly_step *step = &plan->steps[i];

        fuzz_check_path(step->path);
        FUZZ_MUST(step->kind < BLY_STEP_KINDS && (step->kind == BLY_STEP_TMPFS) <= (i == 0));
        FUZZ_MUST((step->kind == BLY_STEP_LINK) == (step->text != NULL));
        FUZZ_MUST(i == 0 ? step->on == 0 : step->on < i);
        FUZZ_MUST(bly_path_is_within(step->path, plan->steps[step->on].path));
    }
    for (size_t i = 0; i < plan->n_absents; i++) {
        fuzz_check_path(plan->absents[i].dir);
        FUZZ_MUST(plan->absents[i].name[0] != '\0' && !strchr(plan->absents[i].name, '/'));
    }
}

static void check_plan(const struct bly_plan *plan, const uint8_t *data, size_t len)
{
    bly_autobuf struct bly_buf packed, text;
    const char *const *paths;
    size_t n;

    bly_buf_init(&packed, FUZZ_OUTPUT_MAX);
    FUZZ_MUST(bly_plan_pack(plan, &packed) == 0);
    FUZZ_MUST(packed.len == len && memcmp(packed.data, data, len) == 0);

    bly_buf_init(&text, FUZZ_OUTPUT_MAX);
    FUZZ_MUST(bly_plan_print(plan, &text) == 0);
    FUZZ_MUST(bly_plan_policy(plan));
    check_steps(plan);
    n = bly_plan_write_roots(plan, &paths);
    for (size_t i = 0; i < n; i++)
        fuzz_check_path(paths[i]);
    n = bly_plan_links(plan, &paths);
    for (size_t i = 0; i < n; i++)
        fuzz_check_path(paths[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bly_reader reader = bly_reader_of(data, size);
    struct bly_plan *plan = NULL;

    if (bly_plan_unpack(&reader, &plan) < 0)
        return 0;
    check_plan(plan, data, reader.pos);
    bly_plan_free(plan);
    return 0;
}
