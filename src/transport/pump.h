#pragma once

/*
 * Copies bytes from one descriptor to another on a thread of its own. That way it does not matter
 * what standard input and output are (pipe, terminal, file, socket, blocking or not), and their
 * flags stay as they are: O_NONBLOCK on a terminal would hit everybody who shares it. Loop thread
 * only.
 */
#include <stdint.h>
#include <uv.h>

struct bly_pump;

enum bly_pump_kind {
    BLY_PUMP_IN,   /* to a socket of ours, whose sending side is shut down at the end */
    BLY_PUMP_OUT,  /* from a socket of ours, whose receiving side is shut down at the end */
    BLY_PUMP_SINK, /* to nowhere: only the end is of interest */
};

/*
 * Copies until end of file or an error. Both descriptors are consumed, also on failure; `to` is
 * ignored for a SINK. `ended` (may be NULL) comes from the loop, unless the pump was closed before.
 * 0; negative errno.
 */
int bly_pump_start(uv_loop_t *loop, enum bly_pump_kind kind, int from, int to,
                   void (*ended)(void *arg), void *arg, struct bly_pump **ret_pump);

/*
 * Waits for the end, and gives up when nothing has moved for `patience_ms` (0: at once). A thread
 * that is stuck in its descriptor is left alone until the process exits. `done` from the loop; the
 * pump is gone then.
 */
void bly_pump_close(struct bly_pump *pump, uint64_t patience_ms, void (*done)(void *arg),
                    void *arg);
