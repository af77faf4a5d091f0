#pragma once

/*
 * Supervised creation: a protected name that does not exist (.git, .codex, ... below a writable
 * root) must not be created by a program inside the wall, and nothing may appear on the host to
 * prevent it: mounts need something to mount on, Landlock cannot subtract, seccomp cannot read
 * names. So the calls that create or move names are reported by seccomp (seccomp_unotify(2)) to pid
 * 1 of the wall, which copies the path once, walks it by descriptors, decides, and performs the
 * call itself on the caller's behalf. It never lets a call whose string it judged continue: the
 * string can change after the look.
 *
 * The supervisor lives in the same view, with the same identity and no more rights than the caller.
 * Only views with a missing protected name pay for it, and only on creating calls. Spec:
 * sandbox.md 8.3.
 */
#include <stdbool.h>

struct bly_err;
struct bly_plan;
struct bly_supervisor;

/* True when the plan has names that must not be created. */
bool bly_supervise_needed(const struct bly_plan *plan);

/*
 * In the program's process, after no_new_privs, before the main filter: installs the reporting
 * filter.
 * `*ret_listener_fd` (close-on-exec) goes to pid 1. BLY_ERR_UNSUPPORTED before Linux 5.19.
 */
int bly_supervise_install(int *ret_listener_fd, struct bly_err *err);

/*
 * In pid 1, after bly_wall_enter: opens the directories to guard. BLY_ERR_UNSUPPORTED when the view
 * has no /proc, where the callers' working directories and descriptors are found.
 */
int bly_supervisor_new(const struct bly_plan *plan, struct bly_supervisor **ret_supervisor,
                       struct bly_err *err);
struct bly_supervisor *bly_supervisor_free(struct bly_supervisor *supervisor);

/*
 * Whether it has ever refused a call by its own decision. What the kernel refused it on a caller's
 * behalf does not count: a mount of the wall and one of the host look the same from here.
 */
bool bly_supervisor_has_refused(const struct bly_supervisor *supervisor);

enum { BLY_SUPERVISE_OVER = 1 };

/*
 * Answers what waits on `listener_fd` (readable: POLLIN) and returns without blocking: 0;
 * BLY_SUPERVISE_OVER when no process is left that could report; negative errno when the supervision
 * can no longer be trusted: the caller must end the wall. May fork a child that waits for the other
 * end of a FIFO; pid 1 reaps it. Changes the umask of the calling process.
 */
int bly_supervisor_serve(struct bly_supervisor *supervisor, int listener_fd);
