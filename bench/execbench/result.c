#include "execbench/result.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "execbench/account.h"
#include "execbench/subject.h"
#include "support.h"

enum { FIRST_SAMPLES = 256, SETTLE_US = 30000 };

void result_init(struct result *result)
{
    *result = (struct result){.cpu_us = NAN};
}

void result_deinit(struct result *result)
{
    free(result->samples);
    result->samples = NULL;
}

void result_begin(struct result *result, struct subject *subject)
{
    result->cpu_before = account_cpu_us(&subject->group, subject->pid);
    result->own_before = account_own_cpu_us();
    result->began_us = bench_now_us();
}

void result_end(struct result *result, struct subject *subject, double n_operations, bool settles)
{
    result->seconds = (bench_now_us() - result->began_us) / 1e6;
    result->own_us = (account_own_cpu_us() - result->own_before) / n_operations;
    if (settles)
        (void)usleep(SETTLE_US);
    result->cpu_us =
        (account_cpu_us(&subject->group, subject->pid) - result->cpu_before) / n_operations;
}

bool result_is_enough(const struct result *result, double seconds, size_t least)
{
    return result->n >= least && bench_now_us() - result->began_us > seconds * 1e6;
}

void result_add(struct result *result, double us)
{
    if (result->n == result->cap) {
        result->cap = result->cap ? result->cap * 2 : FIRST_SAMPLES;
        result->samples = reallocarray(result->samples, result->cap, sizeof(double));
        if (!result->samples)
            bench_die("out of memory");
    }
    result->samples[result->n++] = us;
}

void result_note(struct result *result, const char *name, double value)
{
    if (result->n_notes == RESULT_NOTES)
        bench_die("more notes than RESULT_NOTES");
    result->notes[result->n_notes].name = name;
    result->notes[result->n_notes++].value = value;
}

double result_median(const struct result *result)
{
    bly_autofree double *copy = bench_alloc(result->n, sizeof(double));

    if (result->n > 0)
        memcpy(copy, result->samples, result->n * sizeof(double));
    return bench_median(copy, result->n);
}

void result_by_wall_time(struct result *result)
{
    result->metric = result->seconds * 1e6 / (double)result->n;
    result->unit = "us/op";
}

void result_finish(struct result *result)
{
    double median = bench_median(result->samples, result->n);

    if (result->unit)
        return;
    result->metric = median;
    result->unit = "us";
}

void result_print_head(void)
{
    (void)printf("%-26s %-10s %6s %11s %11s %11s %11s %9s %10s %8s %8s\n", "workload", "server",
                 "n", "p50 us", "p90 us", "p99 us", "max us", "MB/s", "cpu us/op", "gen us",
                 "peak MiB");
}

static void print_number(int width, double value)
{
    if (isnan(value) || value <= 0)
        (void)printf(" %*s", width, "-");
    else
        (void)printf(" %*.1f", width, value);
}

void result_print(const struct result *result, const char *workload, const char *server)
{
    static const double parts[] = {.5, .9, .99, 1};

    (void)printf("%-26s %-10s", workload, server);
    if (result->state != RESULT_DONE) {
        (void)printf(" %6s  %s\n", result->state == RESULT_MISSING ? "-" : "FAIL", result->why);
        return;
    }
    (void)printf(" %6zu", result->n);
    for (size_t i = 0; i < BLY_LEN(parts); i++)
        print_number(11, bench_quantile(result->samples, result->n, parts[i]));
    print_number(9, result->bytes / bench_quantile(result->samples, result->n, .5));
    print_number(10, result->cpu_us);
    print_number(8, result->own_us);
    print_number(8, (double)result->peak_kib / 1024);
    for (size_t i = 0; i < result->n_notes; i++)
        (void)printf("  %s=%.6g", result->notes[i].name, result->notes[i].value);
    (void)putchar('\n');
}
