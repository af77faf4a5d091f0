#pragma once

/*
 * What one run of a workload against one server came to. Times in microseconds. One thread.
 */
#include <stdbool.h>
#include <stddef.h>

struct subject;

enum { RESULT_NOTES = 16 };

enum result_state { RESULT_NOT_RUN, RESULT_FAILED, RESULT_MISSING, RESULT_DONE };

struct result {
    enum result_state state;
    char why[256]; /* when not done */

    double *samples; /* of one operation each; sorted by result_finish() */
    size_t n, cap;
    double bytes; /* that one operation moves; 0: that is not its point */

    double metric;    /* what is compared: less is better */
    const char *unit; /* of the metric; NULL: its median in microseconds */
    double cpu_us;    /* of the server, an operation */
    double own_us;    /* of the generator, an operation, including what it checks */
    double seconds;   /* from result_begin() to result_end() */
    long peak_kib;    /* the most the server's first process had in memory */
    struct {
        const char *name;
        double value;
    } notes[RESULT_NOTES];
    size_t n_notes;

    double cpu_before, own_before, began_us;
};

void result_init(struct result *result);
void result_deinit(struct result *result);

void result_begin(struct result *result, struct subject *subject);
/* `settles`: the server still has something to do when the last answer is here. */
void result_end(struct result *result, struct subject *subject, double n_operations, bool settles);
/* True when more than `seconds` have passed since result_begin() and there are `least` samples. */
bool result_is_enough(const struct result *result, double seconds, size_t least);

void result_add(struct result *result, double us);
void result_note(struct result *result, const char *name, double value);
/* The median of the samples, which stay in their order. */
double result_median(const struct result *result);
/* Concurrent operations: the metric is the wall time for each. */
void result_by_wall_time(struct result *result);
/* Sorts the samples and sets the metric unless that has been done. */
void result_finish(struct result *result);

void result_print_head(void);
void result_print(const struct result *result, const char *workload, const char *server);
