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

/* How a workload is run: `n` operations, or those that fit into `seconds`. 0; a negative errno. */
typedef int workload_run(struct subject *subject, const struct workload *workload,
                         struct result *result, unsigned n, double seconds);

struct workload {
    const char *name;
    workload_run *run;
    unsigned n; /* operations, unless the time is over before */
    enum wall wall;
    const struct file_request *file; /* for those about files */
    bool has_terminal;
    bool only_b; /* dialect A has no such request */
};

extern const struct workload workloads[];
extern const size_t n_workloads;

workload_run run_connect, run_file, run_blocks;                 /* files.c */
workload_run run_true, run_echo, run_poll, run_cat, run_stream; /* programs.c */
workload_run run_pipeline, run_connections;                     /* crowds.c */
workload_run run_idle, run_start;                               /* lives.c */

/* Adds the parameters of a file request. */
void file_add_params(const struct subject *subject, struct bly_buf *params,
                     const struct file_request *request, const char *root, enum wall wall);

/*
 * walls.c: figures of a wall that does not hold mean nothing, so it is tried first, once for each
 * server. 0; a negative errno with what went through.
 */
int wall_check_files(struct subject *subject);
int wall_check_programs(struct subject *subject);
