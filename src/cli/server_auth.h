#pragma once

/*
 * The options of exec-server that say who may connect, turned into the rule the transport applies.
 * Before the server accepts anybody; reads files and warns in the log.
 */
#include <stdbool.h>
#include <stdint.h>

#include "transport/auth.h"

enum { BLY_AUTH_FILE_MAX = 4096 }; /* bytes of a file with a secret */

/* As given; NULL where an option was not. */
struct bly_auth_options {
    const char *mode;
    const char *token_file, *token_sha256;
    const char *shared_secret_file, *issuer, *audience;
    const char *max_clock_skew;
    bool insecure;
};

/* Checks that are about one option alone. -EINVAL. */
int bly_auth_check_mode(const char *mode);
int bly_auth_check_skew(const char *seconds);

/*
 * Checks the combination, reads what is to be read, wipes what need not stay. `ret_auth` borrows
 * issuer and audience. -EINVAL with the protocol's words in `err`.
 */
int bly_auth_options_load(const struct bly_auth_options *options, struct bly_auth *ret_auth,
                          struct bly_err *err);
