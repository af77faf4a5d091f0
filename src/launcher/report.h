#pragma once

/*
 * What a forked child tells the spawner (or, inside a wall, pid 1) before the program runs, and
 * what pid 1 tells afterwards: one struct bly_report a packet on a SOCK_SEQPACKET socket. The child
 * side uses plain write(2), which every filter of ours allows. The reading side trusts nothing.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

enum bly_report_type {
    BLY_REPORT_STARTED = 1, /* wall, helper; a program without a wall just closes the socket */
    BLY_REPORT_FAILED,      /* err says why */
    BLY_REPORT_EXITED,      /* wall: the program's wait status */
    BLY_REPORT_TERMINAL,    /* wall: the master of the program's terminal comes along */
};

struct bly_report {
    enum bly_report_type type;
    int status;
    uint32_t refused; /* BLY_REPORT_EXITED: 1 when pid 1 itself has refused a call, else 0 */
    struct bly_err err;
};

/* A packet from the spawner to pid 1 of a wall: a signal for the program's group. */
struct bly_order {
    int sig;
};

enum { BLY_CHILD_FAILED = 127 }; /* exit status of children that never got anywhere */

/* Writing side. Failing to write is not reported: the reader sees the socket's end. */
void bly_report_started(int fd);
void bly_report_exited(int fd, int status, bool refused);
void bly_report_terminal(int fd, int master_fd); /* master_fd stays the caller's */
_Noreturn void bly_report_failure(int fd, const struct bly_err *err);
/* bly_report_failure() with what a client reads when its wall could not be built. */
_Noreturn void bly_report_wall_failure(int fd, int r, struct bly_err *err);

enum { BLY_REPORT_END = 1 };

/*
 * 0; BLY_REPORT_END; -EAGAIN when nothing is there (never waits); -EBADMSG; other errors. `*ret_fd`
 * is the caller's when the report is BLY_REPORT_TERMINAL, else -EBADF.
 */
int bly_report_read(int fd, struct bly_report *ret_report, int *ret_fd);
