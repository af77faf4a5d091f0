#pragma once

/*
 * Makes plans without blocking the loop: probes and plans on a pool thread, then, back on the loop,
 * checks the result against the table of everything this server ever made writable (sandbox.md 10,
 * E2) and enters its write roots there. One per server. Loop thread only.
 */
#include <uv.h>

#include "sandbox/plan/plan.h"

struct bly_planner;

/* `max_watches`: directories watched to know that deny patterns still match the same, at most; 0:
 * each plan walks. 0 or -ENOMEM. */
int bly_planner_new(uv_loop_t *loop, uint64_t max_watches, struct bly_planner **ret_planner);
/* Only cancelled jobs may be under way: the loop still has to turn for them. NULL is fine. */
struct bly_planner *bly_planner_free(struct bly_planner *planner);

/* `plan` is the callee's (bly_plan_free) when err is NULL. */
typedef void (*bly_planned_fn)(void *arg, struct bly_plan *plan, const struct bly_err *err);

struct bly_planner_job;

/* The policy is copied. `done` comes once, from the loop, never from inside this call, unless
 * cancelled. */
int bly_planner_make(struct bly_planner *planner, const struct bly_policy *policy,
                     enum bly_purpose purpose, bly_planned_fn done, void *arg,
                     struct bly_planner_job **ret_job, struct bly_err *err);
void bly_planner_cancel(struct bly_planner_job *job); /* no callback any more */
