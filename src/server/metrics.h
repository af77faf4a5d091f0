#pragma once

/*
 * What the server counts, and how Prometheus reads it (text format 0.0.4). Counting is an addition
 * to a field, here or where the thing happens; nothing allocates but bly_metrics_init(). Which
 * lines there are is fixed at that time: no name a client can choose becomes a label. Loop thread
 * only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_buf;

enum bly_result { BLY_RESULT_SUCCESS, BLY_RESULT_ERROR, BLY_RESULT_DISCONNECTED, BLY_RESULT_COUNT };

enum { BLY_HISTOGRAM_BOUNDS = 8 };

struct bly_histogram {
    uint64_t
        counts[BLY_HISTOGRAM_BOUNDS + 1]; /* up to each bound, not cumulative; the last: above */
    uint64_t sum_ns;
};

struct bly_method_metrics {
    uint64_t results[BLY_RESULT_COUNT];
    struct bly_histogram duration;
};

#define METRIC(field, type, name, labels, help) uint64_t field;
struct bly_metrics {
#include "server/metrics.def"
    struct bly_histogram process_duration;
    struct bly_method_metrics *methods; /* a row of bly_methods each, and one for unknown names */
    size_t n_methods;                   /* of bly_methods */
};
#undef METRIC

/* 0; -ENOMEM. */
int bly_metrics_init(struct bly_metrics *metrics);
void bly_metrics_deinit(struct bly_metrics *metrics);

/* A request has ended after `ns`. `method` is its place in bly_methods. */
void bly_metrics_request(struct bly_metrics *metrics, size_t method, enum bly_result result,
                         uint64_t ns);
/* A request for a method there is not. */
void bly_metrics_unknown_method(struct bly_metrics *metrics);

void bly_metrics_process_started(struct bly_metrics *metrics);
/* `exit_code` does not matter for a process that was told to end. */
void bly_metrics_process_finished(struct bly_metrics *metrics, bool terminated, int exit_code,
                                  uint64_t ns);

/* Somebody was not let in; `status` as transport/transport.h has it. */
void bly_metrics_refused(struct bly_metrics *metrics, int status);

/* Appends the text. The caller has set the gauges. */
void bly_metrics_write(const struct bly_metrics *metrics, struct bly_buf *buf);
