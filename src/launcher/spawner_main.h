#pragma once

/*
 * The processes behind launcher.h: the launcher forks a spawner for each session, the spawner forks
 * what the session starts. Both are single-threaded and wait for their socket and for signals.
 */
#include <stdbool.h>
#include <sys/resource.h>

#include "launcher/bounds.h"
#include "launcher/launcher.h"
#include "sandbox/enforce/rung.h"

struct bly_origin {
    bly_helper_fn helper_main;
    struct rlimit nofile; /* as the server had it when it started; ours is higher */
    bool prepared;        /* bly_wall_prepare() has been done, and features are known */
    struct bly_features features;
    struct bly_bounding bounding;
};

enum {
    BLY_SOCKET_FD = 3,
    BLY_LIFE_FD = 4,   /* of the launcher alone: open as long as it lives */
    BLY_CGROUP_FD = 4, /* of spawners alone: bounding.cgroup.fd */
};

/*
 * Common to both: dies cleanly with its parent, adopts orphans, waits for SIGCHLD and SIGTERM on
 * the returned descriptor. Negative errno.
 */
int bly_caretaker_init(const char *name);

/* Compiles the filters and probes unless that was done already. Negative errno with `err` set. */
int bly_origin_prepare(struct bly_origin *origin, struct bly_err *err);

/* In the new process, with the session's socket at BLY_SOCKET_FD, the cgroup, if there is one, at
 * BLY_CGROUP_FD, and nothing else above them open. */
_Noreturn void bly_spawner_main(struct bly_origin *origin, pid_t launcher);
