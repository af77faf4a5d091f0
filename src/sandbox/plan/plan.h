#pragma once

/*
 * Mount plan: what a policy means on this disk, as an ordered list of things to do. Made from an
 * effective policy and a probe by pure functions, printed for people and golden tests, packed for
 * the launcher, carried out by sandbox/enforce. A plan is immutable once made; any thread.
 *
 * A plan depends on what was on disk: it carries a fingerprint, and a wall may be reused only while
 * the fingerprint still fits. Spec: sandbox.md sections 3.5, 6.3, 7, 8.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/plan/probe.h"

struct bly_buf;
struct bly_err;
struct bly_policy;
struct bly_reader;

enum bly_purpose {
    BLY_FOR_HELPER,  /* our own code; no exec, no network, no /dev of its own */
    BLY_FOR_PROCESS, /* any program */
};

struct bly_plan; /* plan_internal.h, for sandbox/plan and sandbox/enforce only */

/*
 * Makes the plan. `granted` (may be NULL) lists canonical directories that were ever writable under
 * this server, sorted by bly_path_compare() and none of them below another: a rule that crosses a
 * symlink lying in one of them, or in a directory this policy itself makes writable, is refused
 * (BLY_ERR_INVALID, naming path and link). Blocks as the probe does. Returns 0 and a plan the
 * caller frees; negative errno with `err` set.
 */
int bly_plan_make(const struct bly_policy *policy, enum bly_purpose purpose,
                  const struct bly_probe *probe, const char *const *granted, size_t n_granted,
                  struct bly_plan **ret_plan, struct bly_err *err);
struct bly_plan *bly_plan_free(struct bly_plan *plan); /* NULL is fine; returns NULL */

/*
 * The policy with what the plan learnt from the disk: canonical rule paths next to the given
 * spelling, targets of .git pointers protected. This is what the decision function inside a helper
 * must use. Borrowed from the plan.
 */
const struct bly_policy *bly_plan_policy(const struct bly_plan *plan);

/* Canonical directories (and files) this plan makes writable, sorted by bly_path_compare() and none
 * below another; borrowed. For the table of grants. */
size_t bly_plan_write_roots(const struct bly_plan *plan, const char *const **ret_paths);

/* Symlinks the rules crossed ("directory that holds the link"), to be checked against `granted`
 * again when the plan is accepted. Borrowed. */
size_t bly_plan_links(const struct bly_plan *plan, const char *const **ret_dirs);

enum { BLY_PLAN_STALE = 1 };

/* 0: everything the plan depended on is as it was; BLY_PLAN_STALE: something changed. Never skipped
 * for speed. */
int bly_plan_fits(const struct bly_plan *plan, const struct bly_probe *probe);

/* Parts of that, for somebody who knows about the others by other means. */
enum {
    BLY_PLAN_NAMES = 1,    /* which objects names lead to, symlinks included */
    BLY_PLAN_MOUNTS = 2,   /* the mount table */
    BLY_PLAN_CONTENTS = 4, /* pointer files, which names are in directories, and what cannot be
                              looked at */
};
int bly_plan_fits_in(const struct bly_plan *plan, const struct bly_probe *probe, unsigned parts);

/*
 * Every name that BLY_PLAN_NAMES depends on, each with the path of the directory it stands in and
 * after the names of that directory: while no such name is made, removed, renamed or changes its
 * permissions, that part fits. `name` has `len` bytes and no NUL behind it; both are borrowed for
 * the call. Some may come twice. Stops and returns what `each` returned when that is not 0;
 * -ENOMEM.
 */
typedef int (*bly_plan_name_fn)(void *arg, const char *dir, const char *name, size_t len);
int bly_plan_each_name(const struct bly_plan *plan, bly_plan_name_fn each, void *arg);

/* As bytes, without the fingerprint, which is of no use to whoever builds the wall. */
int bly_plan_pack(const struct bly_plan *plan, struct bly_buf *buf);
int bly_plan_unpack(struct bly_reader *reader, struct bly_plan **ret_plan); /* -EBADMSG */

/*
 * One step a line, the golden form: "tmpfs /" or "ro /" first, then by depth "rw /w", "ro /w/.git",
 * "mask-dir /w/p", "pin /w/a" (a directory that must not be renamed), ... and at the end names that
 * must not come into being, "absent /w/.codex". "network-only" in front when there is no file wall.
 */
int bly_plan_print(const struct bly_plan *plan, struct bly_buf *buf);
