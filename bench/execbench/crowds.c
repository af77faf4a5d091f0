#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "execbench/result.h"
#include "execbench/wire.h"
#include "execbench/workload.h"
#include "support.h"

enum {
    PIPELINE = 64,      /* requests in flight on one connection */
    CONNECTIONS = 32,   /* with one request in flight on each */
    WARM_UPS = 1000,    /* operations that are not measured, */
    WALL_WARM_UPS = 64, /* or so many behind a wall */
    LEAST = 100,
};

/* One small request, over and over, from several places at once. */
struct crowd {
    struct subject *subject;
    const struct workload *workload;
    struct result *result;
    double seconds;
    struct bly_buf params;
    char path[GROUND_PATH_MAX + 32];
    size_t n_warm, n_total; /* n_total shrinks when the time is over */
    size_t n_sent, n_done;
};

static void crowd_init(struct crowd *crowd, struct subject *subject,
                       const struct workload *workload, struct result *result, unsigned n,
                       double seconds)
{
    const char *root = subject->ground->workspace;

    *crowd = (struct crowd){subject, workload, result, seconds};
    crowd->n_warm = workload->wall ? WALL_WARM_UPS : WARM_UPS;
    crowd->n_total = crowd->n_warm + n;
    bly_buf_init(&crowd->params, BENCH_BUF_MAX);
    file_add_params(subject, &crowd->params, workload->file, root, workload->wall);
    (void)snprintf(crowd->path, sizeof(crowd->path), "%s/%s", root, workload->file->name);
}

static void crowd_put(struct crowd *crowd, struct wire *wire)
{
    subject_put(crowd->subject, wire, crowd->workload->file->method, &crowd->params);
    crowd->n_sent++;
}

/* An answer to a request that was sent at `sent_us`. */
static int crowd_take(struct crowd *crowd, struct span message, double sent_us)
{
    const struct file_request *file = crowd->workload->file;
    double now = bench_now_us();
    struct reply reply = {.message = message};
    int r;

    if (span_member(message, "error", &reply.error))
        return subject_refused(crowd->subject, file->method, reply.error);
    if (!span_member(message, "result", &reply.result))
        return subject_wrong(crowd->subject, "an answer without result or error");
    r = file->check(crowd->subject, file, &reply, crowd->path);
    if (r < 0)
        return r;
    if (crowd->n_done == crowd->n_warm)
        result_begin(crowd->result, crowd->subject);
    if (crowd->n_done >= crowd->n_warm)
        result_add(crowd->result, now - sent_us);
    crowd->n_done++;
    if (crowd->n_done > crowd->n_warm && crowd->n_total > crowd->n_sent &&
        result_is_enough(crowd->result, crowd->seconds, LEAST))
        crowd->n_total = crowd->n_sent;
    return 0;
}

static int crowd_end(struct crowd *crowd, int r)
{
    if (r == 0) {
        result_end(crowd->result, crowd->subject, (double)crowd->result->n,
                   crowd->workload->wall != WALL_NONE);
        result_by_wall_time(crowd->result);
    }
    bly_buf_deinit(&crowd->params);
    return r;
}

/* ---- on one connection ---- */

/* sent_us[i] belongs to the i-th request; 0 once it is answered. */
static int fill_pipeline(struct crowd *crowd, double *sent_us)
{
    size_t first = crowd->n_sent;
    double now;

    while (crowd->n_sent < crowd->n_total && crowd->n_sent - crowd->n_done < PIPELINE)
        crowd_put(crowd, crowd->subject->wire);
    now = bench_now_us();
    for (size_t i = first; i < crowd->n_sent; i++)
        sent_us[i] = now;
    return wire_flush(crowd->subject->wire, &crowd->subject->err);
}

static int take_one(struct crowd *crowd, double *sent_us, int64_t first_id)
{
    struct subject *subject = crowd->subject;
    struct span message;
    double sent;
    int64_t id;
    int r = wire_next(subject->wire, &message, &subject->err);

    if (r < 0)
        return r;
    if (!span_member_number(message, "id", &id))
        return 0;
    if (id < first_id || id > subject->last_request || sent_us[id - first_id] == 0)
        return subject_wrong(subject, "an answer to no request");
    sent = sent_us[id - first_id];
    sent_us[id - first_id] = 0;
    return crowd_take(crowd, message, sent);
}

int run_pipeline(struct subject *subject, const struct workload *workload, struct result *result,
                 unsigned n, double seconds)
{
    struct crowd crowd;
    bly_autofree double *sent_us = NULL;
    int64_t first_id;
    int r = workload->wall ? wall_check_files(subject) : 0;

    crowd_init(&crowd, subject, workload, result, n, seconds);
    sent_us = bench_alloc(crowd.n_total, sizeof(*sent_us));
    first_id = subject->last_request + 1;
    while (r == 0 && crowd.n_done < crowd.n_total) {
        r = fill_pipeline(&crowd, sent_us);
        /* All that has arrived already before more is sent. */
        if (r == 0)
            r = take_one(&crowd, sent_us, first_id);
        while (r == 0 && wire_has_next(subject->wire))
            r = take_one(&crowd, sent_us, first_id);
    }
    return crowd_end(&crowd, r);
}

/* ---- on many connections ---- */

struct member {
    struct wire *wire;
    int64_t id;
    double sent_us;
};

static int member_send(struct crowd *crowd, struct member *member)
{
    crowd_put(crowd, member->wire);
    member->id = crowd->subject->last_request;
    member->sent_us = bench_now_us();
    return wire_flush(member->wire, &crowd->subject->err);
}

static int member_take(struct crowd *crowd, struct member *member)
{
    struct span message;
    int64_t id;
    int r = wire_next(member->wire, &message, &crowd->subject->err);

    if (r < 0)
        return r;
    if (!span_member_number(message, "id", &id) || id != member->id)
        return subject_wrong(crowd->subject, "an answer to another request");
    r = crowd_take(crowd, message, member->sent_us);
    return r == 0 && crowd->n_sent < crowd->n_total ? member_send(crowd, member) : r;
}

static int open_members(struct crowd *crowd, struct member *members, int epoll)
{
    for (size_t i = 0; i < CONNECTIONS; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &members[i]};
        int r = subject_session(crowd->subject, &members[i].wire);

        if (r < 0)
            return r;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, wire_fd(members[i].wire), &event) < 0)
            return subject_wrong(crowd->subject, "cannot wait for a connection");
    }
    return 0;
}

static int run_members(struct crowd *crowd, struct member *members, int epoll)
{
    struct epoll_event events[CONNECTIONS];
    int r = 0;

    for (size_t i = 0; i < CONNECTIONS && r == 0; i++)
        r = member_send(crowd, &members[i]);
    while (r == 0 && crowd->n_done < crowd->n_total) {
        int n = epoll_wait(epoll, events, CONNECTIONS, WIRE_TIMEOUT_S * 1000);

        if (n <= 0)
            return subject_wrong(crowd->subject, "no answer came in time");
        for (int i = 0; i < n && r == 0; i++)
            r = member_take(crowd, events[i].data.ptr);
    }
    return r;
}

int run_connections(struct subject *subject, const struct workload *workload, struct result *result,
                    unsigned n, double seconds)
{
    struct member members[CONNECTIONS] = {0};
    bly_autofd int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct crowd crowd;
    int r = workload->wall ? wall_check_files(subject) : 0;

    crowd_init(&crowd, subject, workload, result, n, seconds);
    if (r == 0)
        r = open_members(&crowd, members, epoll);
    if (r == 0)
        r = run_members(&crowd, members, epoll);
    r = crowd_end(&crowd, r);
    for (size_t i = 0; i < CONNECTIONS; i++)
        wire_free(members[i].wire);
    return r;
}
