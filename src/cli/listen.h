#pragma once

/*
 * The values of --listen, in order, and what they mean together.
 */
#include <stdbool.h>
#include <stddef.h>

#include "server/server.h"

struct bly_err;
struct bly_systemd;

struct bly_cli_listens {
    const char *values[BLY_LISTENERS_MAX]; /* borrowed from argv */
    size_t n_values;
    struct bly_listen listens[BLY_LISTENERS_MAX]; /* what they stand for */
    size_t n_listens;
    bool stdio; /* the one there is */
};

/* One more. -EINVAL: too many. */
int bly_cli_listen_add(struct bly_cli_listens *all, const char *value);

/*
 * Completes `all`: a default when nothing was asked for or passed, descriptors for "systemd" (which
 * then belong to the listens). Returns 0; -EINVAL: these do not go together, a usage error;
 * -ENOENT: there are no descriptors to take. Both with `err`.
 */
int bly_cli_listen_resolve(struct bly_cli_listens *all, struct bly_systemd *systemd,
                           struct bly_err *err);
