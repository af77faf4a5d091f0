#pragma once

/*
 * What runs in a freshly forked child until the program takes over. Everything here is called once,
 * after the fork, in a single-threaded process, and never returns. Spec: sandbox.md 8.1 steps 12
 * and 13, protocol.md 4.3.2.
 *
 * Progress is reported on a socket, see report.h. A program without a wall reports only failures:
 * its end of the socket is close-on-exec, so the socket's end means that the program runs.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "launcher/launcher.h"

struct bly_plan;
struct bly_request;

struct bly_child_setup {
    const struct bly_request *request; /* its plan has become `plan` */
    const struct bly_plan *plan;       /* NULL: no wall */
    unsigned rung;                     /* enum bly_rung of the wall */
    bly_helper_fn helper_main;
    pid_t parent;         /* the spawner */
    struct rlimit nofile; /* as the server had it when it started */
    uint64_t max_tasks;   /* in the wall's user namespace; 0: no bound, or another one */
    int report_fd;
    int stdio[3];  /* programs: what becomes 0, 1 and 2 */
    int helper_fd; /* helpers: their end of the socket */
};

_Noreturn void bly_child_direct(const struct bly_child_setup *setup);
/* Pid 1 of a wall, or where there is no pid namespace (BLY_RUNG_LANDLOCK) the subreaper of what is
 * inside. */
_Noreturn void bly_child_walled(const struct bly_child_setup *setup);
_Noreturn void bly_child_helper(const struct bly_child_setup *setup); /* also pid 1 */
