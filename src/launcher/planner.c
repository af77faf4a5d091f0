#include "launcher/planner.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "sandbox/plan/kept.h"
#include "sandbox/policy/policy.h"

/* Everything this server made writable, at most. Reached only by somebody who tries to. */
enum { MAX_GRANTS = 65536 };

/*
 * A version of the table, immutable and shared by the jobs that were started under it. Sorted by
 * bly_path_compare(), and none of it below another. The strings belong to the planner and live as
 * long as it does.
 */
struct grants {
    unsigned refs;
    size_t n;
    const char *paths[];
};

struct bly_planner {
    uv_loop_t *loop;
    struct grants *grants;  /* the newest version */
    struct bly_probe probe; /* the disk, with what deny patterns matched before */
    char **strings;         /* every path that is or was in the table */
    size_t n_strings;
    size_t n_jobs;
    bool freed; /* by its owner; the last cancelled job takes the memory along */
};

struct bly_planner_job {
    uv_work_t work;
    struct bly_planner *planner;
    struct bly_policy *policy; /* a copy: its count belongs to this job */
    enum bly_purpose purpose;
    struct grants *grants;
    bly_planned_fn done; /* NULL: cancelled */
    void *arg;
    struct bly_plan *plan;
    int result;
    struct bly_err err;
};

static struct grants *grants_alloc(size_t n)
{
    struct grants *grants = calloc(1, sizeof(*grants) + n * sizeof(grants->paths[0]));

    if (grants != NULL)
        grants->refs = 1;
    return grants;
}

static void grants_unref(struct grants *grants)
{
    if (--grants->refs == 0)
        free(grants);
}

int bly_planner_new(uv_loop_t *loop, uint64_t max_watches, struct bly_planner **ret_planner)
{
    struct bly_planner *planner = calloc(1, sizeof(*planner));

    if (planner == NULL)
        return -ENOMEM;
    planner->loop = loop;
    planner->grants = grants_alloc(0);
    planner->probe = bly_probe_disk;
    planner->probe.kept = bly_kept_new(max_watches);
    if (planner->grants == NULL || planner->probe.kept == NULL) {
        free(planner->grants);
        bly_kept_free(planner->probe.kept);
        free(planner);
        return -ENOMEM;
    }
    *ret_planner = planner;
    return 0;
}

static void planner_destroy(struct bly_planner *planner)
{
    bly_kept_free(planner->probe.kept);
    grants_unref(planner->grants);
    for (size_t i = 0; i < planner->n_strings; i++)
        free(planner->strings[i]);
    free(planner->strings);
    free(planner);
}

struct bly_planner *bly_planner_free(struct bly_planner *planner)
{
    if (planner == NULL)
        return NULL;
    planner->freed = true;
    if (planner->n_jobs == 0)
        planner_destroy(planner);
    return NULL;
}

static bool covers(const struct grants *grants, const char *path)
{
    return bly_path_holder(grants->paths, grants->n, path) != NULL;
}

static int keep_string(struct bly_planner *planner, const char *path, const char **ret_kept)
{
    char **grown = reallocarray(planner->strings, planner->n_strings + 1, sizeof(*grown));
    char *copy;

    if (grown == NULL)
        return -ENOMEM;
    planner->strings = grown;
    copy = strdup(path);
    if (copy == NULL)
        return -ENOMEM;
    planner->strings[planner->n_strings++] = copy;
    *ret_kept = copy;
    return 0;
}

/* The next path of two sorted lists; what lies below the one taken last is left out. */
static const char *next_of(const char *const **a, const char *const *a_end, const char *const **b,
                           const char *const *b_end, bool *ret_new)
{
    bool both = *a < a_end && *b < b_end;

    *ret_new = both ? bly_path_compare(**b, **a) < 0 : *b < b_end;
    return *ret_new ? *(*b)++ : *(*a)++;
}

/* Old and new in one pass, into `grown`, which has room for all. */
static int merge(struct bly_planner *planner, const char *const *roots, size_t n_roots,
                 struct grants *grown)
{
    const struct grants *old = planner->grants;
    const char *const *a = old->paths, *const *a_end = a + old->n;
    const char *const *b = roots, *const *b_end = b + n_roots;

    while (a < a_end || b < b_end) {
        bool is_new;
        const char *path = next_of(&a, a_end, &b, b_end, &is_new);

        if (grown->n > 0 && bly_path_is_within(path, grown->paths[grown->n - 1]))
            continue;
        if (is_new && keep_string(planner, path, &path) < 0)
            return -ENOMEM;
        grown->paths[grown->n++] = path;
    }
    return 0;
}

static int grant_roots(struct bly_planner *planner, const struct bly_plan *plan,
                       struct bly_err *err)
{
    const char *const *roots = NULL;
    size_t n = bly_plan_write_roots(plan, &roots), n_new = 0;
    struct grants *grown;

    for (size_t i = 0; i < n; i++)
        n_new += !covers(planner->grants, roots[i]);
    if (n_new == 0)
        return 0;
    if (planner->n_strings + n_new > MAX_GRANTS)
        return bly_fail(err, BLY_ERR_LIMIT, E2BIG,
                        "this server has made too many different paths writable");
    grown = grants_alloc(planner->grants->n + n);
    if (grown == NULL || merge(planner, roots, n, grown) < 0) {
        free(grown);
        return bly_fail_sys(err, ENOMEM, "cannot remember a writable path");
    }
    grants_unref(planner->grants);
    planner->grants = grown;
    return 0;
}

/* A link that the plan crossed lies in what was made writable since the plan was begun. */
static bool is_overtaken(const struct bly_planner_job *job)
{
    const char *const *dirs = NULL;
    size_t n = bly_plan_links(job->plan, &dirs);

    if (job->grants == job->planner->grants)
        return false;
    for (size_t i = 0; i < n; i++)
        if (covers(job->planner->grants, dirs[i]))
            return true;
    return false;
}

static void job_free(struct bly_planner_job *job)
{
    struct bly_planner *planner = job->planner;

    grants_unref(job->grants);
    (void)bly_plan_free(job->plan);
    (void)bly_policy_unref(job->policy);
    free(job);
    if (--planner->n_jobs == 0 && planner->freed)
        planner_destroy(planner);
}

/* On a pool thread. Touches the job, which nobody else does before on_planned(), and what is kept.
 */
static void make_plan(uv_work_t *work)
{
    struct bly_planner_job *job = work->data;

    job->result = bly_plan_make(job->policy, job->purpose, &job->planner->probe, job->grants->paths,
                                job->grants->n, &job->plan, &job->err);
}

static void on_planned(uv_work_t *work, int status);

static int submit(struct bly_planner_job *job)
{
    job->grants = job->planner->grants;
    job->grants->refs++;
    return uv_queue_work(job->planner->loop, &job->work, make_plan, on_planned);
}

/* Plans once more, with the table as it is now: either it is still fine, or the plan says why not.
 */
static int submit_again(struct bly_planner_job *job)
{
    job->plan = bly_plan_free(job->plan);
    grants_unref(job->grants);
    return submit(job);
}

static void on_planned(uv_work_t *work, int status)
{
    struct bly_planner_job *job = work->data;

    if (status < 0)
        job->result = bly_fail_sys(&job->err, -status, "the plan was not made");
    if (job->done == NULL) {
        job_free(job);
        return;
    }
    if (job->result == 0 && is_overtaken(job)) {
        int r = submit_again(job);

        if (r == 0)
            return;
        job->result = bly_fail_sys(&job->err, -r, "the plan was not made");
    }
    if (job->result == 0)
        job->result = grant_roots(job->planner, job->plan, &job->err);

    if (job->result == 0)
        job->done(job->arg, bly_take_ptr(&job->plan), NULL);
    else
        job->done(job->arg, NULL, &job->err);
    job_free(job);
}

int bly_planner_make(struct bly_planner *planner, const struct bly_policy *policy,
                     enum bly_purpose purpose, bly_planned_fn done, void *arg,
                     struct bly_planner_job **ret_job, struct bly_err *err)
{
    struct bly_planner_job *job = calloc(1, sizeof(*job));
    int r;

    if (job == NULL)
        return bly_fail_sys(err, ENOMEM, "cannot plan");
    job->work.data = job;
    job->planner = planner;
    job->purpose = purpose;
    job->done = done;
    job->arg = arg;
    job->policy = bly_policy_copy(policy);
    planner->n_jobs++;
    r = job->policy == NULL ? -ENOMEM : submit(job);
    if (job->grants == NULL) {
        job->grants = planner->grants;
        job->grants->refs++;
    }
    if (r < 0) {
        job_free(job);
        return bly_fail_sys(err, -r, "cannot plan");
    }
    *ret_job = job;
    return 0;
}

void bly_planner_cancel(struct bly_planner_job *job)
{
    job->done = NULL;
    (void)uv_cancel(
        (uv_req_t *)&job->work); /* Fails when it has begun; on_planned() comes anyway. */
}
