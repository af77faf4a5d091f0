#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/limits.h"

static uint64_t field(const struct bly_limits *limits, const struct bly_limit_info *info)
{
    uint64_t value;

    memcpy(&value, (const char *)limits + info->offset, sizeof(value));
    return value;
}

static void a_row_is_consistent(void **state)
{
    const struct bly_limit_info *row = *state;
    size_t len = strlen(row->option);

    assert_true(len > 0);
    assert_int_equal(strspn(row->option, "abcdefghijklmnopqrstuvwxyz-"), len);
    assert_true(row->min <= row->def);
    assert_true(row->def <= row->max);
    assert_true(strcmp(row->unit, "bytes") == 0 || strcmp(row->unit, "count") == 0 ||
                strcmp(row->unit, "ms") == 0);
    assert_true(strlen(row->sentence) > 10);
    assert_true(row->sentence[strlen(row->sentence) - 1] != '.');
    for (const struct bly_limit_info *other = bly_limit_table; other < row; other++) {
        assert_string_not_equal(row->option, other->option);
        assert_true(row->offset != other->offset);
    }
}

static int set_number(struct bly_limits *limits, const struct bly_limit_info *row, uint64_t value)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%" PRIu64, value);
    return bly_limits_set(limits, row->option, text);
}

static void a_row_can_be_set_within_its_bounds(void **state)
{
    const struct bly_limit_info *row = *state;
    struct bly_limits limits;

    bly_limits_defaults(&limits);
    assert_true(field(&limits, row) == row->def);
    assert_int_equal(set_number(&limits, row, row->min), 0);
    assert_true(field(&limits, row) == row->min);
    assert_int_equal(set_number(&limits, row, row->max), 0);
    assert_true(field(&limits, row) == row->max);

    assert_int_equal(set_number(&limits, row, row->max + 1), -ERANGE);
    if (row->min > 0)
        assert_int_equal(set_number(&limits, row, row->min - 1), -ERANGE);
    assert_true(field(&limits, row) == row->max);
}

static void every_field_has_a_row(void **state)
{
    (void)state;
    assert_int_equal(bly_limit_count * sizeof(uint64_t), sizeof(struct bly_limits));
}

static void what_is_no_number_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "-1", "+5", " 5", "5 ", "0x10", "1e3", "5k", "five"};
    struct bly_limits limits;
    const char *option = bly_limit_table[0].option;

    bly_limits_defaults(&limits);
    for (size_t i = 0; i < BLY_LEN(texts); i++)
        assert_int_equal(bly_limits_set(&limits, option, texts[i]), -EINVAL);
    assert_int_equal(bly_limits_set(&limits, option, "18446744073709551616"), -ERANGE);
    assert_int_equal(bly_limits_set(&limits, option, "99999999999999999999999"), -ERANGE);
    assert_int_equal(bly_limits_set(&limits, "no-such-limit", "1"), -ENOENT);
    assert_true(field(&limits, &bly_limit_table[0]) == bly_limit_table[0].def);
}

int main(void)
{
    static struct CMUnitTest tests[256];
    size_t n = 0;

    assert(2 * bly_limit_count + 2 <= BLY_LEN(tests));
    for (size_t i = 0; i < bly_limit_count; i++) {
        void *row = (void *)(uintptr_t)&bly_limit_table[i];

        tests[n++] = (struct CMUnitTest){.name = bly_limit_table[i].option,
                                         .test_func = a_row_is_consistent,
                                         .initial_state = row};
        tests[n++] = (struct CMUnitTest){.name = bly_limit_table[i].option,
                                         .test_func = a_row_can_be_set_within_its_bounds,
                                         .initial_state = row};
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_field_has_a_row);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(what_is_no_number_is_refused);
    return _cmocka_run_group_tests("limits", tests, n, NULL, NULL);
}
