#pragma once

/*
 * What is measured: one table, in workloads.c, and the functions its rows point to. Every answer is
 * checked, so that a wrong one is a failure and no figure. One thread.
 */
#include <stdbool.h>
#include <stddef.h>

#include "execbench/ground.h"
#include "execbench/subject.h"

struct reply;
struct result;

/* A file request: everything about it that is not the wall. */
struct file_request {
    const char *method;
    const char *name;    /* of the file, below the workspace */
    const char *members; /* of the parameters, behind the path; may be NULL */
    enum { MOVES_NOTHING, MOVES_OUT, MOVES_IN } moves; /* contents, as seen from the server */
    enum blob_size size;                               /* of the contents */
    /* Whether the answer is right. 0; a negative errno with what is wrong. */
    int (*check)(struct subject *subject, const struct file_request *request,
                 const struct reply *reply, const char *path);
};

extern const struct file_request file_read_4k, file_read_1m, file_read_64m;
extern const struct file_request file_write_4k, file_write_1m, file_write_40m, file_write_64m;
extern const struct file_request file_metadata, file_list, file_walk;

struct workload;

/* How a workload is run: `n` operations, or those that fit into `seconds`. */
typedef int (*workload_run)(struct subject *subject, const struct workload *workload,
                            struct result *result, unsigned n, double seconds);

struct workload {
    const char *name;
    workload_run run;
    unsigned n; /* operations, unless the time is over before */
    enum wall wall;
    const struct file_request *file; /* for those about files */
    bool has_terminal;
    bool only_b; /* dialect A has no such request */
};

extern const struct workload workloads[];
extern const size_t n_workloads;

/* files.c: one request at a time. */
int run_connect(struct subject *subject, const struct workload *workload, struct result *result,
                unsigned n, double seconds);
int run_file(struct subject *subject, const struct workload *workload, struct result *result,
             unsigned n, double seconds);
int run_blocks(struct subject *subject, const struct workload *workload, struct result *result,
               unsigned n, double seconds);
/* Adds the parameters of a file request. */
void file_add_params(const struct subject *subject, struct bly_buf *params,
                     const struct file_request *request, const char *root, enum wall wall);

/* programs.c */
int run_true(struct subject *subject, const struct workload *workload, struct result *result,
             unsigned n, double seconds);
int run_echo(struct subject *subject, const struct workload *workload, struct result *result,
             unsigned n, double seconds);
int run_poll(struct subject *subject, const struct workload *workload, struct result *result,
             unsigned n, double seconds);
int run_cat(struct subject *subject, const struct workload *workload, struct result *result,
            unsigned n, double seconds);
int run_stream(struct subject *subject, const struct workload *workload, struct result *result,
               unsigned n, double seconds);

/* crowds.c: many at once. */
int run_pipeline(struct subject *subject, const struct workload *workload, struct result *result,
                 unsigned n, double seconds);
int run_connections(struct subject *subject, const struct workload *workload, struct result *result,
                    unsigned n, double seconds);
int run_idle(struct subject *subject, const struct workload *workload, struct result *result,
             unsigned n, double seconds);
int run_start(struct subject *subject, const struct workload *workload, struct result *result,
              unsigned n, double seconds);

/*
 * walls.c: figures of a wall that does not hold mean nothing, so it is tried first, once for each
 * server. 0; a negative errno with what went through.
 */
int wall_check_files(struct subject *subject);
int wall_check_programs(struct subject *subject);
