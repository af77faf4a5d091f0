#pragma once

/*
 * Our terminal in front of another one: what is typed goes to the master of a program's terminal,
 * what the program writes comes back. Ours is raw meanwhile, so that keys like ^C and ^Z mean
 * something to the terminal inside and nothing to us: shells have job control there, and nobody
 * inside ever holds the terminal outside. Neither side is waited for.
 */
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

enum { BLY_TERMINAL_FDS = 3, BLY_TERMINAL_CHUNK = 4096 };

struct bly_terminal_flow {
    char data[BLY_TERMINAL_CHUNK];
    size_t at, len; /* data[at] to data[len] wait to be written */
};

struct bly_terminal {
    int in_fd, out_fd; /* ours; borrowed. -EBADF: not begun, or at its end */
    int master_fd;     /* owned */
    bool rests;        /* nobody has the other end open for now; looked at again after a while */
    struct termios before;
    struct bly_terminal_flow typed, shown;
};

/* Nothing begun. */
void bly_terminal_init(struct bly_terminal *terminal);
/* Makes ours raw and gives the other its size. `master_fd` is consumed. Negative errno. */
int bly_terminal_begin(struct bly_terminal *terminal, int in_fd, int out_fd, int master_fd);
void bly_terminal_resize(const struct bly_terminal *terminal);
/* What to wait for and how long (ms, -1: for ever), and what to do then. */
int bly_terminal_prepare(struct bly_terminal *terminal, struct pollfd fds[BLY_TERMINAL_FDS]);
void bly_terminal_pump(struct bly_terminal *terminal, const struct pollfd fds[BLY_TERMINAL_FDS]);
/* Shows what is left and makes ours what it was. Harmless when nothing was begun. */
void bly_terminal_end(struct bly_terminal *terminal);
