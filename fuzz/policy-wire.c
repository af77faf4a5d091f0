/*
 * The packed form of a policy, which decides inside of a helper: only what packing would have
 * written is accepted, and whatever is accepted can be asked.
 */
#include "base/cleanup.h"
#include "fuzz.h"

static void check_packed(const struct bly_policy *policy, const uint8_t *data, size_t len)
{
    bly_autobuf struct bly_buf packed;

    bly_buf_init(&packed, FUZZ_OUTPUT_MAX);
    FUZZ_MUST(bly_policy_pack(policy, &packed) == 0);
    FUZZ_MUST(packed.len == len && memcmp(packed.data, data, len) == 0);
}

static void check_questions(const struct bly_policy *policy, const char *path)
{
    bly_autofree char *below = bly_path_join(path, "a/.git");

    (void)bly_policy_writes_tree(policy, path);
    FUZZ_MUST(below);
    (void)bly_policy_decide(policy, path);
    (void)bly_policy_decide(policy, below);
    for (size_t i = 0; i < policy->n_deny_globs; i++) {
        if (policy->wall && bly_glob_match(policy->deny_globs[i], path))
            FUZZ_MUST(bly_policy_decide(policy, path) == BLY_ACCESS_DENY);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bly_reader reader = bly_reader_of(data, size);
    struct bly_policy *policy = NULL;
    bly_autobuf struct bly_buf text;

    bly_buf_init(&text, FUZZ_OUTPUT_MAX);
    if (bly_policy_unpack(&reader, &policy) < 0)
        return 0;
    check_packed(policy, data, reader.pos);
    check_questions(policy, "/");
    check_questions(policy, "/tmp/x");
    for (size_t i = 0; i < policy->n_rules; i++)
        check_questions(policy, policy->rules[i].path);
    for (size_t i = 0; i < policy->n_deny_globs; i++)
        check_questions(policy, policy->deny_globs[i]); /* any path will do, also a pattern */
    FUZZ_MUST(bly_policy_print(policy, &text) == 0);
    bly_policy_unref(policy);
    return 0;
}
