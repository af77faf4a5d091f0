#pragma once

/*
 * qsort(3), which is slow where the order is right already, and then also asks the kernel for what
 * a sealed helper may not. Any thread; the array may be NULL when `n` is 0.
 */
#include <stddef.h>
#include <stdlib.h>

static inline void bly_sort(void *array, size_t n, size_t size,
                            int (*compare)(const void *, const void *))
{
    const char *items = array;

    for (size_t i = 1; i < n; i++) {
        if (compare(items + (i - 1) * size, items + i * size) <= 0)
            continue;
        qsort(array, n, size, compare);
        return;
    }
}
