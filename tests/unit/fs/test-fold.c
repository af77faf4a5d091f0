/* Policies in directories that fold case, with directories that say so when asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fs/fold.h"
#include "script.h"
#include "support/rows.h"

#define NONE  BLY_ACCESS_NONE
#define READ  BLY_ACCESS_READ
#define WRITE BLY_ACCESS_WRITE
#define DENY  BLY_ACCESS_DENY

static const struct fold_case {
    const char *name;
    const char *rules;
    const char *folding; /* the directory that folds */
    const char *path;
    enum bly_access access;
} cases[] = {
    {"byte by byte elsewhere", "rw /w", "/v", "/w/.GIT/config", WRITE},
    {"the name itself", "rw /w", "/w", "/w/.git/config", READ},
    {"the name in capitals", "rw /w", "/w", "/w/.GIT", READ},
    {"and what is below", "rw /w", "/w", "/w/.Git/hooks/x", READ},
    {"every name", "rw /w", "/w", "/w/.aGENTS/x", READ},
    {"a name that only begins like it", "rw /w", "/w", "/w/.GITX", WRITE},
    {"a name that is longer in front", "rw /w", "/w", "/w/x.GIT", WRITE},
    {"only the first level below a root", "rw /w", "/w/sub", "/w/sub/.GIT/x", WRITE},
    {"below a root that folds itself", "rw /w\nrw /w/a", "/w/a", "/w/a/.CODEX", READ},
    {"two on one path", "rw /w\nrw /w/.git", "/w", "/w/.GIT/.AWS", READ},
    {"an explicit grant holds for all spellings", "rw /w\nrw /w/.git", "/w", "/w/.GIT/x", WRITE},
    {"an explicit denial as well", "rw /w\ndeny /w/.git", "/w", "/w/.GIT/x", DENY},
    {"nothing is granted by it", "ro /v", "/w", "/w/.GIT", NONE},
    {"at the root", "rw /\nro /x", "/", "/.GIT", WRITE},
    {"a character that is ignored", "rw /w", "/w", "/w/.g\u200dit/x", READ},
    {"a long s", "rw /w", "/w", "/w/.aw\u017f", READ},
    {"ignored elsewhere", "rw /w", "/v", "/w/.g\u200dit/x", WRITE},
    {"a denied name", "rw /w\ndeny /w/Secret", "/w", "/w/sEcret/x", DENY},
    {"a denied name elsewhere", "rw /w\ndeny /w/Secret", "/v", "/w/sEcret/x", WRITE},
    {"a name that is not ASCII", "rw /w\ndeny /w/stra\u00dfe", "/w", "/w/STRASSE", DENY},
    {"composed and decomposed", "rw /w\ndeny /w/caf\u00e9", "/w", "/w/cafe\u0301", DENY},
    {"a read-only part", "rw /w\nro /w/docs", "/w", "/w/Docs/x", READ},
    {"what is opened again", "rw /w\ndeny /w/s\nrw /w/s/t", "/w", "/w/S/T", WRITE},
    {"a pattern", "rw /w\nglob /w/**/*.env", "/w/a", "/w/a/B.ENV", DENY},
    {"a pattern elsewhere", "rw /w\nglob /w/**/*.env", "/", "/w/a/B.ENV", WRITE},
    {"a pattern in capitals", "rw /w\nglob /w/**/*.ENV", "/w/a", "/w/a/b.env", DENY},
    {"a directory above that differs", "rw /W\nrw /w\nro /W/d", "/", "/w/d", READ},
    {"one below it that folds as well", "rw /W\nrw /w\nro /W/d", "/w", "/w/d", READ},
};

static const struct fold_case *current;

static bool fake_folds(const char *dir)
{
    return strcmp(dir, current->folding) == 0;
}

static struct bly_fold fold_of(const char *rules, bool (*folds)(const char *dir))
{
    struct bly_policy *policy = script_policy("/nowhere", rules);
    struct bly_policy *folded = bly_policy_casefold(policy);

    assert_non_null(folded);
    return (struct bly_fold){policy, folded, folds};
}

static void fold_deinit(struct bly_fold *fold)
{
    (void)bly_policy_unref((struct bly_policy *)(uintptr_t)fold->policy);
    (void)bly_policy_unref((struct bly_policy *)(uintptr_t)fold->folded);
}

/* The rule or pattern that is named as a reason is one of the client's policy that means `path`. */
static void check_reason(const struct bly_fold *fold, const struct bly_denial *reason)
{
    if (current->access == WRITE || current->access == NONE)
        return;
    if (reason->by == BLY_BY_GLOB)
        assert_in_range(reason->index, 0, fold->policy->n_deny_globs - 1);
    else if (reason->by == BLY_BY_NAME)
        assert_true(bly_rule_protects(&fold->policy->rules[reason->index]));
    else
        assert_int_equal(fold->policy->rules[reason->index].access, current->access);
}

static void check_case(void **state)
{
    struct bly_fold fold;
    struct bly_denial reason = {0};

    current = *state;
    fold = fold_of(current->rules, fake_folds);
    assert_int_equal(bly_fold_decide(&fold, current->path), current->access);
    assert_int_equal(bly_fold_explain(&fold, current->path, &reason), current->access);
    check_reason(&fold, &reason);
    fold_deinit(&fold);
}

/* Whether a tree can be removed without a look at each name. */
static void trees(void **state)
{
    struct bly_fold fold = fold_of("rw /w\nro /w/docs/api", fake_folds);

    (void)state;
    current = &(struct fold_case){.folding = "/w"};
    assert_true(bly_fold_holds(&fold, "/w/src", bly_policy_writes_tree));
    assert_false(bly_fold_holds(&fold, "/w/docs", bly_policy_writes_tree));
    assert_false(bly_fold_holds(&fold, "/w/DOCS", bly_policy_writes_tree));
    current = &(struct fold_case){.folding = "/v"};
    assert_true(bly_fold_holds(&fold, "/w/DOCS", bly_policy_writes_tree));
    fold_deinit(&fold);
}

/* Nothing is permitted then in what folds, and all else as before. */
static void without_memory(void **state)
{
    struct bly_fold fold = fold_of("rw /w", fake_folds), bare = fold;

    (void)state;
    bare.folded = NULL;
    current = &(struct fold_case){.folding = "/w"};
    assert_int_equal(bly_fold_decide(&bare, "/w/x"), DENY);
    assert_int_equal(bly_fold_decide(&bare, "/w"), WRITE);
    assert_int_equal(bly_fold_decide(&bare, "/v/x"), NONE);
    fold_deinit(&fold);
}

static bool must_not_be_asked(const char *dir)
{
    fail_msg("%s was asked", dir);
    return false;
}

/* The disk is asked for odd spellings alone. */
static void usual_names_cost_nothing(void **state)
{
    static const char *const paths[] = {"/", "/w", "/w/.git/x", "/w/.github", "/w/GIT", "/w/.x/y"};
    struct bly_fold fold = fold_of("rw /w", must_not_be_asked);

    (void)state;
    for (size_t i = 0; i < BLY_LEN(paths); i++)
        assert_int_equal(bly_fold_decide(&fold, paths[i]),
                         bly_policy_decide(fold.policy, paths[i]));
    fold_deinit(&fold);
}

static void long_paths_are_no_exception(void **state)
{
    struct bly_fold fold = fold_of("rw /w", fake_folds);
    char path[8192] = "/w/.GIT/";

    (void)state;
    current = &(struct fold_case){.folding = "/w"};
    memset(path + 8, 'x', sizeof path - 9);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(bly_fold_decide(&fold, path), READ);
    fold_deinit(&fold);
}

static void ordinary_directories_do_not_fold(void **state)
{
    char *dir = script_directory();
    bly_autofree char *missing = NULL;

    (void)state;
    assert_false(bly_fold_on_disk(dir));
    assert_true(asprintf(&missing, "%s/missing", dir) > 0);
    assert_false(bly_fold_on_disk(missing));
    assert_false(bly_fold_on_disk("/proc/self"));
    script_cleanup(dir);
}

int main(void)
{
    static const struct CMUnitTest plain[] = {
        cmocka_unit_test(usual_names_cost_nothing),
        cmocka_unit_test(trees),
        cmocka_unit_test(without_memory),
        cmocka_unit_test(long_paths_are_no_exception),
        cmocka_unit_test(ordinary_directories_do_not_fold),
    };
    struct CMUnitTest tests[BLY_LEN(cases)] = {0};

    ROWS_AS_TESTS(tests, cases, check_case);
    return cmocka_run_group_tests_name("fold", tests, NULL, NULL) +
           cmocka_run_group_tests_name("asked", plain, NULL, NULL);
}
