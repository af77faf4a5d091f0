/* Protected names in directories that fold case, with directories that say so when asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
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
    {"two on one path", "rw /w\nrw /w/.git", "/w", "/w/.GIT/.AWS", WRITE},
    {"an explicit grant holds for all spellings", "rw /w\nrw /w/.git", "/w", "/w/.GIT/x", WRITE},
    {"an explicit denial as well", "rw /w\ndeny /w/.git", "/w", "/w/.GIT/x", DENY},
    {"nothing is granted by it", "ro /v", "/w", "/w/.GIT", NONE},
    {"at the root", "rw /\nro /x", "/", "/.GIT", WRITE},
};

static const struct fold_case *current;

static bool fake_folds(const char *dir)
{
    return strcmp(dir, current->folding) == 0;
}

static void check_case(void **state)
{
    struct bly_policy *policy;

    current = *state;
    policy = script_policy("/nowhere", current->rules);
    assert_int_equal(bly_fold_decide(policy, current->path, fake_folds), current->access);
    bly_policy_unref(policy);
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
    struct bly_policy *policy = script_policy("/nowhere", "rw /w");

    (void)state;
    for (size_t i = 0; i < BLY_LEN(paths); i++)
        assert_int_equal(bly_fold_decide(policy, paths[i], must_not_be_asked),
                         bly_policy_decide(policy, paths[i]));
    bly_policy_unref(policy);
}

static void a_path_too_long_to_open_is_denied(void **state)
{
    struct bly_policy *policy = script_policy("/nowhere", "rw /w");
    char path[8192] = "/w/.GIT/";

    (void)state;
    memset(path + 8, 'x', sizeof path - 9);
    assert_int_equal(bly_fold_decide(policy, path, must_not_be_asked), DENY);
    bly_policy_unref(policy);
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
        cmocka_unit_test(a_path_too_long_to_open_is_denied),
        cmocka_unit_test(ordinary_directories_do_not_fold),
    };
    struct CMUnitTest tests[BLY_LEN(cases)] = {0};

    ROWS_AS_TESTS(tests, cases, check_case);
    return cmocka_run_group_tests_name("fold", tests, NULL, NULL) +
           cmocka_run_group_tests_name("asked", plain, NULL, NULL);
}
