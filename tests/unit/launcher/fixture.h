#pragma once

/*
 * A launcher for a test: this test program, executed again. A test's main() begins with
 * fixture_main(), which does not return in the launcher process.
 */
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "launcher/launcher.h"

struct fixture {
    uv_loop_t loop;
    struct bly_launcher *launcher;
    struct bly_spawner *spawner; /* NULL once a test has closed it */
    bool launcher_died;
    char *dir;         /* a fresh directory */
    const void *param; /* what *state was before: the initial_state of a table's test */
};

void fixture_main(int argc, char **argv, bly_helper_fn helper_main);

int fixture_setup(void **state); /* of a cmocka test: *state is a struct fixture */
int fixture_setup_with(void **state, const char *launcher_exe);
int fixture_teardown(void **state); /* closes everything and checks that no child is left */

/* Turns the loop until *condition; fails the test when that takes longer than 20 seconds. */
void fixture_wait(struct fixture *fixture, const bool *condition);
/* Turns the loop until check(arg). */
void fixture_wait_for(struct fixture *fixture, bool (*check)(void *arg), void *arg);

void fixture_close_spawner(struct fixture *fixture);

/* "DIR/NAME", malloc'ed. */
char *fixture_path(const struct fixture *fixture, const char *name);

size_t count_open_fds(void);
bool pid_exists(int pid); /* and is no zombie */
