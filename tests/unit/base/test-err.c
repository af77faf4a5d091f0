#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"

static void a_failure_has_kind_errno_and_text(void **state)
{
    (void)state;
    struct bly_err err = {0};

    assert_int_equal(bly_fail(&err, BLY_ERR_LIMIT, ENOBUFS, "%d of %s", 3, "x"), -ENOBUFS);
    assert_int_equal(err.kind, BLY_ERR_LIMIT);
    assert_int_equal(err.sys, ENOBUFS);
    assert_string_equal(err.text, "3 of x");

    assert_int_equal(bly_fail(&err, BLY_ERR_GONE, 0, "gone"), -EINVAL);
    assert_int_equal(err.sys, 0);

    bly_err_clear(&err);
    assert_int_equal(err.kind, BLY_ERR_NONE);
    assert_string_equal(err.text, "");
}

static void context_grows_on_the_way_up(void **state)
{
    (void)state;
    struct bly_err err = {0};
    int r = bly_fail_sys(&err, EPERM, "cannot make it read-only");

    assert_int_equal(r, -EPERM);
    assert_int_equal(bly_because(&err, r, "mount %d of %d, %s", 4, 9, "/w/.git"), -EPERM);
    assert_int_equal(err.kind, BLY_ERR_SYSTEM);
    assert_int_equal(err.sys, EPERM);
    assert_string_equal(err.text,
                        "mount 4 of 9, /w/.git: cannot make it read-only: Operation not permitted");
}

static void no_error_struct_is_fine(void **state)
{
    (void)state;
    assert_int_equal(bly_fail(NULL, BLY_ERR_BUG, EIO, "x"), -EIO);
    assert_int_equal(bly_fail_sys(NULL, EIO, "x"), -EIO);
    assert_int_equal(bly_because(NULL, -EIO, "x"), -EIO);
}

static void long_texts_are_cut_and_stay_terminated(void **state)
{
    (void)state;
    struct bly_err err = {0};
    char path[BLY_ERR_TEXT_MAX * 2];

    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    bly_fail(&err, BLY_ERR_BUG, 0, "%s", path);
    assert_int_equal(strlen(err.text), BLY_ERR_TEXT_MAX - 1);
    bly_because(&err, -EIO, "front");
    assert_int_equal(strlen(err.text), BLY_ERR_TEXT_MAX - 1);
    assert_memory_equal(err.text, "front: xxx", 10);
    bly_fail_sys(&err, EIO, "%s", path);
    assert_int_equal(strlen(err.text), BLY_ERR_TEXT_MAX - 1);
}

static void the_old_text_may_be_an_argument(void **state)
{
    (void)state;
    struct bly_err err = {0};

    bly_fail(&err, BLY_ERR_BUG, 0, "inner");
    bly_fail(&err, BLY_ERR_LIMIT, 0, "outer (%s)", err.text);
    assert_string_equal(err.text, "outer (inner)");
}

static const struct errno_case {
    int sys;
    const char *text;
} errno_cases[] = {
    {1, "Operation not permitted"},
    {2, "No such file or directory"},
    {5, "I/O error"},
    {10, "No child process"},
    {12, "Out of memory"},
    {16, "Resource busy"},
    {18, "Cross-device link"},
    {24, "No file descriptors available"},
    {25, "Not a tty"},
    {29, "Invalid seek"},
    {34, "Result not representable"},
    {35, "Resource deadlock would occur"},
    {36, "Filename too long"},
    {40, "Symbolic link loop"},
    {75, "Value too large for data type"},
    {88, "Not a socket"},
    {95, "Not supported"},
    {98, "Address in use"},
    {110, "Operation timed out"},
    {122, "Quota exceeded"},
    {0, "No error information"},
    {33, "No error information"},
    {123, "No error information"},
    {-1, "No error information"},
    {100000, "No error information"},
};

static void errno_texts_are_the_protocols(void **state)
{
    (void)state;
    for (size_t i = 0; i < BLY_LEN(errno_cases); i++)
        assert_string_equal(bly_errno_text(errno_cases[i].sys), errno_cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_has_kind_errno_and_text),
        cmocka_unit_test(context_grows_on_the_way_up),
        cmocka_unit_test(no_error_struct_is_fine),
        cmocka_unit_test(long_texts_are_cut_and_stay_terminated),
        cmocka_unit_test(the_old_text_may_be_an_argument),
        cmocka_unit_test(errno_texts_are_the_protocols),
    };

    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
