#include "server/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "server/internal.h"

#define METRIC(field, type, name, labels, help) \
    {name, #type, labels, help, offsetof(struct bly_metrics, field)},
static const struct {
    const char *name, *type, *labels, *help;
    size_t offset;
} table[] = {
#include "server/metrics.def"
};
#undef METRIC

/* As text they are as exact as they look. */
struct bound {
    uint64_t ns;
    const char *seconds;
};

static const struct bound request_bounds[BLY_HISTOGRAM_BOUNDS] = {
    {100000, "0.0001"}, {1000000, "0.001"}, {5000000, "0.005"},  {25000000, "0.025"},
    {100000000, "0.1"}, {500000000, "0.5"}, {2500000000, "2.5"}, {10000000000, "10"},
};
static const struct bound process_bounds[BLY_HISTOGRAM_BOUNDS] = {
    {10000000, "0.01"},  {100000000, "0.1"},    {1000000000, "1"},     {5000000000, "5"},
    {30000000000, "30"}, {120000000000, "120"}, {600000000000, "600"}, {3600000000000, "3600"},
};

static const char *const result_names[] = {
    [BLY_RESULT_SUCCESS] = "success",
    [BLY_RESULT_ERROR] = "error",
    [BLY_RESULT_DISCONNECTED] = "disconnected",
};

int bly_metrics_init(struct bly_metrics *metrics)
{
    *metrics = (struct bly_metrics){
        .n_methods = bly_method_count,
        .started_at = (uint64_t)time(NULL),
        .one = 1,
    };
    metrics->methods = calloc(bly_method_count + 1, sizeof(*metrics->methods));
    return metrics->methods ? 0 : -ENOMEM;
}

void bly_metrics_deinit(struct bly_metrics *metrics)
{
    free(metrics->methods);
    metrics->methods = NULL;
}

/* ---- counting ------------------------------------------------------------------------------- */

static void observe(struct bly_histogram *histogram, const struct bound *bounds, uint64_t ns)
{
    size_t i = 0;

    while (i < BLY_HISTOGRAM_BOUNDS && ns > bounds[i].ns)
        i++;
    histogram->counts[i]++;
    histogram->sum_ns += ns;
}

void bly_metrics_request(struct bly_metrics *metrics, size_t method, enum bly_result result,
                         uint64_t ns)
{
    struct bly_method_metrics *row = &metrics->methods[method];

    row->results[result]++;
    observe(&row->duration, request_bounds, ns);
}

void bly_metrics_unknown_method(struct bly_metrics *metrics)
{
    metrics->methods[metrics->n_methods].results[BLY_RESULT_ERROR]++;
}

void bly_metrics_process_started(struct bly_metrics *metrics)
{
    metrics->processes_started++;
    metrics->processes_active++;
}

void bly_metrics_process_finished(struct bly_metrics *metrics, bool terminated, int exit_code,
                                  uint64_t ns)
{
    metrics->processes_active--;
    if (terminated)
        metrics->processes_terminated++;
    else if (exit_code == 0)
        metrics->processes_success++;
    else
        metrics->processes_error++;
    observe(&metrics->process_duration, process_bounds, ns);
}

void bly_metrics_refused(struct bly_metrics *metrics, int status)
{
    static const struct {
        int status;
        size_t offset;
    } reasons[] = {
        {401, offsetof(struct bly_metrics, refused_auth)},
        {403, offsetof(struct bly_metrics, refused_origin)},
        {408, offsetof(struct bly_metrics, refused_late)},
        {503, offsetof(struct bly_metrics, refused_full)},
    };

    for (size_t i = 0; i < BLY_LEN(reasons); i++) {
        if (reasons[i].status == status) {
            ++*(uint64_t *)(void *)((char *)metrics + reasons[i].offset);
            return;
        }
    }
    metrics->refused_request++;
}

/* ---- the text ------------------------------------------------------------------------------- */

static void add_head(struct bly_buf *buf, const char *name, const char *type, const char *help)
{
    (void)bly_buf_printf(buf, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_table(const struct bly_metrics *metrics, struct bly_buf *buf)
{
    for (size_t i = 0; i < BLY_LEN(table); i++) {
        bool labels = table[i].labels[0] != '\0';
        uint64_t value;

        memcpy(&value, (const char *)metrics + table[i].offset, sizeof(value));
        if (i == 0 || strcmp(table[i - 1].name, table[i].name) != 0)
            add_head(buf, table[i].name, table[i].type, table[i].help);
        (void)bly_buf_printf(buf, "%s%s%s%s %" PRIu64 "\n", table[i].name, labels ? "{" : "",
                             table[i].labels, labels ? "}" : "", value);
    }
}

static const char *method_name(const struct bly_metrics *metrics, size_t i)
{
    return i < metrics->n_methods ? bly_methods[i].name : "unknown";
}

static void add_requests(const struct bly_metrics *metrics, struct bly_buf *buf)
{
    static const char name[] = "exec_server_requests_total";

    add_head(buf, name, "counter", "Requests that have ended, by method and outcome.");
    for (size_t i = 0; i <= metrics->n_methods; i++) {
        for (size_t result = 0; result < BLY_RESULT_COUNT; result++)
            (void)bly_buf_printf(buf, "%s{method=\"%s\",result=\"%s\"} %" PRIu64 "\n", name,
                                 method_name(metrics, i), result_names[result],
                                 metrics->methods[i].results[result]);
    }
}

/* `label` is "" or ends with a comma. */
static void add_histogram(struct bly_buf *buf, const char *name, const char *label,
                          const struct bly_histogram *histogram, const struct bound *bounds)
{
    int label_len = label[0] ? (int)strlen(label) - 1 : 0;
    const char *open = label_len ? "{" : "", *close = label_len ? "}" : "";
    uint64_t count = 0;

    for (size_t i = 0; i <= BLY_HISTOGRAM_BOUNDS; i++) {
        count += histogram->counts[i];
        (void)bly_buf_printf(buf, "%s_bucket{%sle=\"%s\"} %" PRIu64 "\n", name, label,
                             i < BLY_HISTOGRAM_BOUNDS ? bounds[i].seconds : "+Inf", count);
    }
    (void)bly_buf_printf(buf, "%s_sum%s%.*s%s %" PRIu64 ".%09" PRIu64 "\n", name, open, label_len,
                         label, close, histogram->sum_ns / 1000000000,
                         histogram->sum_ns % 1000000000);
    (void)bly_buf_printf(buf, "%s_count%s%.*s%s %" PRIu64 "\n", name, open, label_len, label, close,
                         count);
}

static void add_durations(const struct bly_metrics *metrics, struct bly_buf *buf)
{
    static const char requests[] = "exec_server_request_duration_seconds";
    static const char processes[] = "exec_server_process_duration_seconds";
    char label[64];

    add_head(buf, requests, "histogram", "Time from a request's arrival to its end.");
    for (size_t i = 0; i < metrics->n_methods; i++) {
        (void)snprintf(label, sizeof(label), "method=\"%s\",", bly_methods[i].name);
        add_histogram(buf, requests, label, &metrics->methods[i].duration, request_bounds);
    }
    add_head(buf, processes, "histogram", "Time from a process's start to its end.");
    add_histogram(buf, processes, "", &metrics->process_duration, process_bounds);
}

void bly_metrics_write(const struct bly_metrics *metrics, struct bly_buf *buf)
{
    add_table(metrics, buf);
    add_requests(metrics, buf);
    add_durations(metrics, buf);
}
