#include "server/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "server/internal.h"

enum { TEXT_MAX = 1 << 20 };

static struct bly_metrics metrics; /* of the running test */

static int setup(void **state)
{
    (void)state;
    return bly_metrics_init(&metrics);
}

static int teardown(void **state)
{
    (void)state;
    bly_metrics_deinit(&metrics);
    return 0;
}

static char *write_text(struct bly_buf *buf)
{
    bly_buf_init(buf, TEXT_MAX);
    bly_buf_add_char(buf, '\n'); /* every line has one on both sides */
    bly_metrics_write(&metrics, buf);
    bly_buf_add_char(buf, '\0');
    assert_int_equal(buf->error, 0);
    return (char *)buf->data;
}

static void expect_line(const char *line)
{
    bly_autobuf struct bly_buf buf;
    char wanted[256];
    const char *text = write_text(&buf);

    (void)snprintf(wanted, sizeof(wanted), "\n%s\n", line);
    if (!strstr(text, wanted))
        fail_msg("no line '%s' in:%s", line, text);
}

static size_t method(const char *name)
{
    return (size_t)(bly_method_find(name, strlen(name)) - bly_methods);
}

#define DURATION(what) "exec_server_request_duration_seconds_" what
#define STATUS         "method=\"environment/status\""

static void a_bound_belongs_to_its_bucket(void **state)
{
    size_t status = method("environment/status");

    (void)state;
    bly_metrics_request(&metrics, status, BLY_RESULT_SUCCESS, 0);
    bly_metrics_request(&metrics, status, BLY_RESULT_SUCCESS, 100000);
    bly_metrics_request(&metrics, status, BLY_RESULT_SUCCESS, 100001);
    bly_metrics_request(&metrics, status, BLY_RESULT_SUCCESS, 10000000000);
    bly_metrics_request(&metrics, status, BLY_RESULT_SUCCESS, 10000000001);
    expect_line(DURATION("bucket{" STATUS ",le=\"0.0001\"} 2"));
    expect_line(DURATION("bucket{" STATUS ",le=\"0.001\"} 3"));
    expect_line(DURATION("bucket{" STATUS ",le=\"2.5\"} 3"));
    expect_line(DURATION("bucket{" STATUS ",le=\"10\"} 4"));
    expect_line(DURATION("bucket{" STATUS ",le=\"+Inf\"} 5"));
    expect_line(DURATION("count{" STATUS "} 5"));
    expect_line(DURATION("sum{" STATUS "} 20.000200002"));
    expect_line(DURATION("count{method=\"initialize\"} 0"));
    expect_line(DURATION("sum{method=\"initialize\"} 0.000000000"));
}

static void requests_are_told_apart_by_outcome(void **state)
{
    size_t status = method("environment/status");

    (void)state;
    bly_metrics_request(&metrics, status, BLY_RESULT_SUCCESS, 1);
    bly_metrics_request(&metrics, status, BLY_RESULT_SUCCESS, 1);
    bly_metrics_request(&metrics, status, BLY_RESULT_ERROR, 1);
    bly_metrics_request(&metrics, status, BLY_RESULT_DISCONNECTED, 1);
    bly_metrics_unknown_method(&metrics);
    expect_line("exec_server_requests_total{" STATUS ",result=\"success\"} 2");
    expect_line("exec_server_requests_total{" STATUS ",result=\"error\"} 1");
    expect_line("exec_server_requests_total{" STATUS ",result=\"disconnected\"} 1");
    expect_line("exec_server_requests_total{method=\"unknown\",result=\"error\"} 1");
    expect_line("exec_server_requests_total{method=\"unknown\",result=\"success\"} 0");
}

static void processes_are_told_apart_by_their_end(void **state)
{
    static const struct {
        bool terminated;
        int exit_code;
    } ends[] = {{false, 0}, {false, 1}, {false, 137}, {true, 0}, {true, 137}, {true, 143}};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(ends); i++) {
        bly_metrics_process_started(&metrics);
        bly_metrics_process_started(&metrics);
        bly_metrics_process_finished(&metrics, ends[i].terminated, ends[i].exit_code, 1);
    }
    expect_line("exec_server_processes_active 6");
    expect_line("bailey_processes_started_total 12");
    expect_line("exec_server_processes_finished_total{result=\"success\"} 1");
    expect_line("exec_server_processes_finished_total{result=\"error\"} 2");
    expect_line("exec_server_processes_finished_total{result=\"terminated\"} 3");
    expect_line("exec_server_process_duration_seconds_bucket{le=\"0.01\"} 6");
    expect_line("exec_server_process_duration_seconds_count 6");
    expect_line("exec_server_process_duration_seconds_sum 0.000000006");
}

static void refusals_are_told_apart_by_status(void **state)
{
    static const int statuses[] = {400, 401, 403, 404, 405, 408, 426, 431, 503};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(statuses); i++)
        bly_metrics_refused(&metrics, statuses[i]);
    expect_line("bailey_connections_refused_total{reason=\"authentication\"} 1");
    expect_line("bailey_connections_refused_total{reason=\"origin\"} 1");
    expect_line("bailey_connections_refused_total{reason=\"timeout\"} 1");
    expect_line("bailey_connections_refused_total{reason=\"unavailable\"} 1");
    expect_line("bailey_connections_refused_total{reason=\"request\"} 5");
}

static void large_numbers_stay_exact(void **state)
{
    (void)state;
    metrics.sent_bytes = UINT64_MAX;
    expect_line("bailey_sent_bytes_total 18446744073709551615");
}

/* Rows of metrics.def that have a name in common stand together, or there would be two heads. */
static void each_name_has_one_head(void **state)
{
    bly_autobuf struct bly_buf buf;
    char *rest = NULL, *names[256];
    size_t n = 0;

    (void)state;
    for (char *line = strtok_r(write_text(&buf), "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, "# TYPE ", 7) != 0)
            continue;
        for (size_t i = 0; i < n; i++)
            assert_string_not_equal(names[i], line);
        assert_true(n < BLY_LEN(names));
        names[n++] = line;
    }
    assert_true(n > 20);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_bound_belongs_to_its_bucket),
        TEST(requests_are_told_apart_by_outcome),
        TEST(processes_are_told_apart_by_their_end),
        TEST(refusals_are_told_apart_by_status),
        TEST(large_numbers_stay_exact),
        TEST(each_name_has_one_head),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
