#pragma once

/*
 * The place every escape test happens in: a server, a workspace the policies make writable and,
 * outside it, things nobody inside may touch.
 *
 *   DIR/ws/             workspace (writable)
 *   DIR/ws/a.txt        "inside\n"
 *   DIR/ws/.git/config  "[core]\n", protected; .codex and .agents are missing, and protected all
 * the same DIR/ws/leaf         -> ../out/secret DIR/ws/parent       -> ../out DIR/ws/dangling ->
 * ../out/planted DIR/out/secret      YARD_SECRET DIR/out/victim/     a directory with one file
 */
#include <stdbool.h>

#include "support/server.h"

#define YARD_SECRET "the-secret-of-the-keep\n"

struct yard {
    struct server *server;
    const char *ws, *out;
    char *restricted; /* sandbox: platform defaults readable, workspace writable, no network */
    char *full_read;  /* sandbox: everything readable, workspace writable, no network */
};

int yard_setup(void **state);
int yard_teardown(void **state);

/* Fails the test unless everything outside, .git and the missing names are as they were made. */
void yard_assert_untouched(const struct yard *yard);
