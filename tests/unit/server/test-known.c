/* Sandbox contexts that are known by their bytes: what is folded, and what must not be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "server/known.h"

#define CONTEXT(root)                                                                           \
    "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\","          \
    "\"entries\":[{\"path\":{\"type\":\"path\",\"path\":\"" root "\"},\"access\":\"write\"}]}," \
    "\"network\":\"restricted\"},\"windowsSandboxLevel\":\"disabled\"}"
#define MESSAGE(members) "{\"id\":1,\"params\":{\"path\":\"/w/a\"," members "}}"

static const struct bly_policy_env env = {.cwd = "/srv"};

static const struct fold_case {
    const char *name;
    const char *text;
    const char *folded; /* NULL: it is left alone */
} cases[] = {
    {"a context", MESSAGE("\"sandbox\":" CONTEXT("/w")), MESSAGE("\"sandbox\":\"\"")},
    {"a context in front", "{\"sandbox\":" CONTEXT("/w") ",\"x\":1}", "{\"sandbox\":\"\",\"x\":1}"},
    {"braces and quotes inside of strings", MESSAGE("\"sandbox\":" CONTEXT("/w}{\\\"]\\\\")),
     MESSAGE("\"sandbox\":\"\"")},
    {"no context", MESSAGE("\"sandbox\":null"), NULL},
    {"none at all", MESSAGE("\"x\":1"), NULL},
    {"another kind of value", MESSAGE("\"sandbox\":\"\""), NULL},
    {"no valid policy", MESSAGE("\"sandbox\":{}"), NULL},
    {"a policy that is refused", MESSAGE("\"sandbox\":" CONTEXT("relative")), NULL},
    {"a context that does not end", "{\"sandbox\":{\"permissions\":{\"type\":\"disabled\"", NULL},
    {"the end of an escaped key", "{\"a\\\"sandbox\":" CONTEXT("/w") "}", NULL},
    {"a key with something in front", "{\"x\" \"sandbox\":" CONTEXT("/w") "}", NULL},
    {"no message around it", "\"sandbox\":" CONTEXT("/w"), NULL},
};

static void check_case(void **state)
{
    const struct fold_case *c = *state;
    struct bly_known known = {0};
    struct bly_folded folded;

    for (int i = 0; i < 2; i++) { /* learnt, and known */
        bool done = bly_known_fold(&known, &env, c->text, strlen(c->text), &folded);

        assert_int_equal(done, c->folded != NULL);
        if (!done)
            continue;
        assert_string_equal(folded.text, c->folded);
        assert_int_equal(folded.len, strlen(c->folded));
        assert_memory_equal(folded.context.place - 11, "\"sandbox\":\"\"", 12);
        free(folded.text);
    }
    bly_known_deinit(&known);
}

/* Two messages with one context have one policy; another context has its own, whatever they share.
 */
static void equal_bytes_are_one_policy(void **state)
{
    static const char first[] = MESSAGE("\"sandbox\":" CONTEXT("/w"));
    static const char same[] = "{\"sandbox\":" CONTEXT("/w") "}";
    static const char other[] = MESSAGE("\"sandbox\":" CONTEXT("/v"));
    struct bly_known known = {0};
    struct bly_folded a, b, c;

    (void)state;
    assert_true(bly_known_fold(&known, &env, first, strlen(first), &a));
    assert_true(bly_known_fold(&known, &env, other, strlen(other), &c));
    assert_true(bly_known_fold(&known, &env, same, strlen(same), &b));
    assert_ptr_equal(a.context.policy, b.context.policy);
    assert_ptr_not_equal(a.context.policy, c.context.policy);
    assert_int_equal(bly_policy_decide(a.context.policy, "/w/x"), BLY_ACCESS_WRITE);
    assert_int_equal(bly_policy_decide(c.context.policy, "/w/x"), BLY_ACCESS_NONE);
    free(a.text);
    free(b.text);
    free(c.text);
    bly_known_deinit(&known);
}

static void the_oldest_makes_room(void **state)
{
    struct bly_known known = {0};
    struct bly_policy *first = NULL;
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 3 * BLY_KNOWN_MAX; i++) {
        struct bly_folded folded;
        char text[1024];

        (void)snprintf(text, sizeof text, MESSAGE("\"sandbox\":" CONTEXT("/w%d")), i % 2 ? i : 0);
        assert_true(bly_known_fold(&known, &env, text, strlen(text), &folded));
        if (i == 0)
            first = folded.context.policy;
        if (i % 2 == 0) /* used all the time, so it stays */
            assert_ptr_equal(folded.context.policy, first);
        free(folded.text);
    }
    for (size_t i = 0; i < BLY_KNOWN_MAX; i++)
        n += known.contexts[i].text != NULL;
    assert_int_equal(n, BLY_KNOWN_MAX);
    bly_known_deinit(&known);
}

/* A message of `n` bytes besides the context, and a context with `n_context` more than it needs. */
static bool folds(size_t n, size_t n_context, size_t depth)
{
    struct bly_known known = {0};
    struct bly_folded folded = {0};
    char *text = calloc(1, n + n_context + 2 * depth + 1024), *to = text;
    bool done;

    to += sprintf(to, "{\"data\":\"%*s\",\"sandbox\":{\"x\":\"%*s\",\"y\":", (int)n, "",
                  (int)n_context, "");
    memset(to, '[', depth);
    memset(to + depth, ']', depth);
    to += 2 * depth;
    (void)sprintf(to, "%s,%s}", depth ? "" : "0", &CONTEXT("/w")[1]);
    done = bly_known_fold(&known, &env, text, strlen(text), &folded);
    free(folded.text);
    free(text);
    bly_known_deinit(&known);
    return done;
}

/* What limits are counted over a whole message is never folded. */
static void long_and_deep_ones_are_left_alone(void **state)
{
    (void)state;
    assert_true(folds(0, 0, 0));
    assert_true(folds(BLY_KNOWN_REST_MAX - 1000, 0, 0));
    assert_false(folds(BLY_KNOWN_REST_MAX, 0, 0));
    assert_true(folds(0, BLY_KNOWN_TEXT_MAX - 1000, 0));
    assert_false(folds(0, BLY_KNOWN_TEXT_MAX, 0));
    assert_true(folds(0, 0, 50));
    assert_false(folds(0, 0, 100));
}

/* The parser hands out the very place, and nothing else is taken for it. */
static void the_place_stands_for_the_policy(void **state)
{
    static const char text[] = "{\"a\":\"\",\"sandbox\":" CONTEXT("/w") "}";
    struct bly_known known = {0};
    struct bly_folded folded;
    struct bly_policy_env with = env;
    struct bly_policy *policy = NULL;
    struct bly_err err = {0};
    yyjson_doc *doc;
    yyjson_val *root;

    (void)state;
    assert_true(bly_known_fold(&known, &env, text, strlen(text), &folded));
    with.known = folded.context;
    assert_int_equal(bly_json_read(folded.text, folded.len, &doc, &err), 0);
    root = yyjson_doc_get_root(doc);
    assert_int_equal(bly_policy_parse(yyjson_obj_get(root, "sandbox"), &with, &policy, &err), 0);
    assert_ptr_equal(policy, folded.context.policy);
    bly_policy_unref(policy);
    assert_int_equal(bly_policy_parse(yyjson_obj_get(root, "a"), &with, &policy, &err), -EINVAL);
    assert_int_equal(bly_policy_parse(yyjson_obj_get(root, "sandbox"), &env, &policy, &err),
                     -EINVAL);
    yyjson_doc_free(doc);
    free(folded.text);
    bly_known_deinit(&known);
}

int main(void)
{
    static const struct CMUnitTest plain[] = {
        cmocka_unit_test(equal_bytes_are_one_policy),
        cmocka_unit_test(the_oldest_makes_room),
        cmocka_unit_test(long_and_deep_ones_are_left_alone),
        cmocka_unit_test(the_place_stands_for_the_policy),
    };
    struct CMUnitTest tests[BLY_LEN(cases)] = {0};

    for (size_t i = 0; i < BLY_LEN(cases); i++)
        tests[i] = (struct CMUnitTest){.name = cases[i].name,
                                       .test_func = check_case,
                                       .initial_state = (void *)(uintptr_t)&cases[i]};
    return cmocka_run_group_tests_name("fold", tests, NULL, NULL) +
           cmocka_run_group_tests_name("known", plain, NULL, NULL);
}
