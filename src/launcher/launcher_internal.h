#pragma once

/*
 * Between launcher.c and spawner.c, the two halves of the server's side.
 */
#include <stdint.h>
#include <uv.h>

#include "launcher/wire.h"

struct bly_launcher;

uv_loop_t *bly_launcher_loop(const struct bly_launcher *launcher);

/*
 * Asks for a spawner process that serves `socket_fd` (consumed, also on failure). Returns 0 and the
 * number it is known by, or -EPIPE when the launcher is gone, or another negative errno.
 */
int bly_launcher_add_spawner(struct bly_launcher *launcher, int socket_fd, uint64_t *ret_id);

/* Ends a spawner process that does not listen any more; the launcher then ends its children. */
void bly_launcher_kill_spawner(struct bly_launcher *launcher, uint64_t id);
