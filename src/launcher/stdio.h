#pragma once

/*
 * The standard streams of a program that is to be started: pipes, a terminal, or /dev/null. All
 * descriptors are close-on-exec; the server's ends do not block.
 */
#include <stdbool.h>

struct bly_stdio {
    int child[3];  /* become 0, 1 and 2 of the program; may be equal or 0 (/dev/null) */
    int server[3]; /* stdin, stdout, stderr; a terminal's master is server[1]; -EBADF: none */
};

/* Nothing open yet. Returns 0. */
int bly_stdio_none(struct bly_stdio *ret_stdio);

/* 0, or a negative errno and nothing is open. A terminal belongs to the caller's own /dev/ptmx. */
int bly_stdio_open(bool tty, bool pipe_stdin, struct bly_stdio *ret_stdio);
void bly_stdio_close_child(struct bly_stdio *stdio);
void bly_stdio_close(struct bly_stdio *stdio);
