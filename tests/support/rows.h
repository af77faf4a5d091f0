#pragma once

/*
 * Tables of cases as tests: each row, which has a `name`, is a test of its own, so that a failure
 * reads like a sentence. The check gets the row as its state; cmocka's pointer is not const, what
 * the check makes of it is.
 */
#include <stdint.h>

#include "base/cleanup.h"

/* Adds the rows to `tests`, of which `n` are there already. */
#define ADD_ROWS(tests, n, rows, check)                          \
    for (size_t row_ = 0; row_ < BLY_LEN(rows); row_++)          \
        (tests)[(n)++] = (struct CMUnitTest)                     \
        {                                                        \
            .name = (rows)[row_].name, .test_func = (check),     \
            .initial_state = (void *)(uintptr_t) & (rows)[row_], \
        }

/* `tests` has a place for each row, and nothing else. */
#define ROWS_AS_TESTS(tests, rows, check)      \
    do {                                       \
        size_t n_rows_ = 0;                    \
                                               \
        ADD_ROWS(tests, n_rows_, rows, check); \
    } while (0)
