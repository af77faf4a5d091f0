#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "execbench/result.h"
#include "execbench/wire.h"
#include "execbench/workload.h"
#include "support.h"

enum {
    CALM_US = 500000,  /* until freed memory is given back */
    IDLE_US = 1000000, /* that idle processor time is counted over */
    PARK_US = 20000,   /* until a parked process waits */
    STARTED_US = 700000,
};

/* ---- many processes that do nothing ---- */

static void sleeping_program(char path[PATH_MAX])
{
    if (!realpath("/bin/sleep", path))
        bench_die("/bin/sleep is missing");
}

static int start_sleepers(struct subject *subject, struct wire *wire, struct result *result,
                          unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct bly_buf *params = subject_params(subject);
        struct reply reply;
        int r;

        (void)bly_buf_printf(params,
                             "{\"processId\":\"idle-%u\",\"argv\":[\"/bin/sleep\",\"1000\"],"
                             "\"cwd\":\"%s%s\",\"env\":{\"PATH\":\"/usr/bin:/bin\"},\"tty\":false,"
                             "\"arg0\":null%s}",
                             i, subject_scheme(subject), subject->ground->workspace,
                             subject->dialect == 'b' ? ",\"pipeStdin\":false,\"sandbox\":null"
                                                     : "");
        r = subject_ask(subject, wire, "process/start", params, &reply);
        if (r == 0 && reply.error.at)
            r = subject_refused(subject, "process/start", reply.error);
        if (r < 0)
            return bly_because(&subject->err, r, "after %u processes", i);
        result_add(result, reply.arrived_us - reply.sent_us);
    }
    return 0;
}

static int end_sleepers(struct subject *subject, struct wire *wire, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct bly_buf *params = subject_params(subject);
        struct reply reply;
        int r;

        (void)bly_buf_printf(params, "{\"processId\":\"idle-%u\"}", i);
        r = subject_ask(subject, wire, "process/terminate", params, &reply);
        if (r == 0 && reply.error.at)
            r = subject_refused(subject, "process/terminate", reply.error);
        if (r < 0)
            return r;
    }
    return 0;
}

static void note_memory(struct result *result, const struct account_tree *before,
                        const struct account_tree *after, unsigned n)
{
    result->metric = (double)(after->pss_kib - before->pss_kib) / n;
    result->unit = "KiB/proc";
    result_note(result, "base_pss_kb", (double)before->pss_kib);
    result_note(result, "loaded_pss_kb", (double)after->pss_kib);
    result_note(result, "rss_kb_per_proc", (double)(after->rss_kib - before->rss_kib) / n);
    result_note(result, "helper_procs", after->n_helpers);
}

/* What `n` running programs cost the server while they sleep. */
static int observe_sleepers(struct subject *subject, struct wire *wire, struct result *result,
                            unsigned n)
{
    char program[PATH_MAX];
    struct account_tree before, loaded, after;
    unsigned fds = account_fds(subject->pid);
    double cpu_us, start;
    int r;

    sleeping_program(program);
    account_tree(subject->pid, program, &before);
    result_begin(result, subject);
    r = start_sleepers(subject, wire, result, n);
    if (r < 0)
        return r;
    result_end(result, subject, n, true);
    (void)usleep(CALM_US);
    account_tree(subject->pid, program, &loaded);
    if (loaded.n_asleep < n)
        return subject_wrong(subject, "only %u of %u programs are alive", loaded.n_asleep, n);
    note_memory(result, &before, &loaded, n);
    result_note(result, "fds_per_proc", (double)(account_fds(subject->pid) - fds) / n);
    result_note(result, "threads", (double)account_status(subject->pid, "Threads"));
    cpu_us = account_cpu_us(&subject->group, subject->pid);
    (void)usleep(IDLE_US);
    result_note(result, "idle_cpu_us_per_s",
                account_cpu_us(&subject->group, subject->pid) - cpu_us);
    start = bench_now_us();
    r = end_sleepers(subject, wire, n);
    if (r < 0)
        return r;
    result_note(result, "terminate_all_ms", (bench_now_us() - start) / 1e3);
    (void)usleep(CALM_US);
    account_tree(subject->pid, program, &after);
    return after.n_asleep == 0
               ? 0
               : subject_wrong(subject, "%u programs outlived process/terminate", after.n_asleep);
}

int run_idle(struct subject *subject, const struct workload *workload, struct result *result,
             unsigned n, double seconds)
{
    struct wire *wire = NULL;
    int r = subject_session(subject, &wire);

    (void)workload, (void)seconds;
    if (r == 0)
        r = observe_sleepers(subject, wire, result, n);
    wire_free(wire);
    return r;
}

/* ---- a server that starts ---- */

static void note_started(struct subject *fresh, struct result *result, double cpu_before)
{
    struct account_tree tree;
    char path[64];
    struct stat st = {0};

    (void)usleep(STARTED_US);
    account_tree(fresh->pid, NULL, &tree);
    result->cpu_us = account_cpu_us(&fresh->group, fresh->pid) - cpu_before;
    (void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)fresh->pid);
    (void)stat(path, &st);
    result_note(result, "idle_pss_kb", (double)tree.pss_kib);
    result_note(result, "idle_rss_kb", (double)tree.rss_kib);
    result_note(result, "threads", (double)account_status(fresh->pid, "Threads"));
    result_note(result, "binary_bytes", (double)st.st_size);
}

/* From exec to the answer to `initialize`. */
static int start_once(struct subject *fresh, struct result *result, bool is_first, bool is_last)
{
    struct wire *wire = NULL;
    double cpu_before, start;
    int go_fd = -EBADF;
    int r = subject_park(fresh, &go_fd);

    if (r < 0)
        return r;
    (void)usleep(PARK_US);
    cpu_before = account_cpu_us(&fresh->group, fresh->pid);
    start = bench_now_us();
    subject_release(go_fd);
    r = subject_await_listening(fresh);
    if (r == 0)
        r = subject_session(fresh, &wire);
    if (r == 0 && !is_first)
        result_add(result, bench_now_us() - start);
    wire_free(wire);
    if (r == 0 && is_last)
        note_started(fresh, result, cpu_before);
    return r;
}

int run_start(struct subject *subject, const struct workload *workload, struct result *result,
              unsigned n, double seconds)
{
    int r = 0;

    (void)workload, (void)seconds;
    for (unsigned i = 0; i <= n && r == 0; i++) {
        struct subject fresh;

        subject_init(&fresh, subject->ground, subject->letter, subject->name, subject->command);
        r = start_once(&fresh, result, i == 0, i == n);
        if (r < 0)
            (void)subject_wrong(subject, "%s", fresh.err.text);
        subject_deinit(&fresh);
    }
    return r;
}
