#pragma once

/*
 * Pid 1 of a wall around a program: reaps, passes on signals, serves supervised creation, and says
 * how the program ended. When it goes, the kernel kills whatever is left in the wall. It holds no
 * descriptor of the program.
 *
 * On rung 2 there is no pid namespace: it is the subreaper of the program, stays outside of the
 * wall, out of reach of those inside, and kills what is left before it goes.
 */
#include <stdbool.h>
#include <sys/types.h>

struct bly_plan;

enum {
    BLY_INIT_REPORT_FD = 3, /* to the spawner */
    BLY_INIT_SYNC_FD = 4,   /* to the program's process, until it has executed */
    BLY_INIT_STDIO_FD = 5,  /* 5, 6 and 7: what the program gets, before it was forked */
};

/* `is_pid_1`: false on rung 2, where the caller must be a child subreaper. */
_Noreturn void bly_init_run(const struct bly_plan *plan, bool is_pid_1, pid_t program);
