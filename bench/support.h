#pragma once

/*
 * What every measuring program needs: a clock, a median, files to touch, a free port. Nothing here
 * is for use beside a measurement, and nothing returns an error: a benchmark that cannot do its
 * work says so and ends. One thread.
 */
#include <stddef.h>
#include <time.h>

struct bly_buf;

enum { BENCH_BUF_MAX = 512 << 20 }; /* bytes in any buffer of a measuring program */

/* Says why on stderr and exits with 1; what atexit() was told is done. */
_Noreturn void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Zeroed; the caller frees. */
void *bench_alloc(size_t n, size_t size);

/* Microseconds on a clock; bench_now_us() is CLOCK_MONOTONIC. */
double bench_clock_us(clockid_t clock);
double bench_now_us(void);

/* Sorts the samples; NAN when there are none. */
double bench_median(double *samples, size_t n);
/* The smallest sample that `part` (0 to 1) of them do not exceed; sorted already. */
double bench_quantile(const double *sorted, size_t n, double part);

/*
 * Until the end of the program idle CPUs poll instead of halting, as with cyclictest: waking a
 * halted virtual CPU costs tens of microseconds, has two typical values, and is not the server's
 * doing. Root only.
 */
void bench_keep_awake(void);

/* A TCP port of 127.0.0.1 that nobody had a moment ago. */
unsigned bench_free_port(void);

/* Empties a buffer for use again; one that has grown large gives its memory back. */
void bench_empty(struct bly_buf *buf);

void bench_make_directory(const char *path);
/* Makes or replaces a file. */
void bench_write_file(const char *path, const void *data, size_t len);
/* A directory and all in it, as far as it goes. */
void bench_remove_tree(const char *path);
