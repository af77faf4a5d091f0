#pragma once

/*
 * What an operator has to do with http/request: switching it on, and lending it variables. Made
 * once at start, before any thread: it changes the environment, and it blocks.
 */
#include "proto/http.h"
#include "server/server.h"

struct bly_err;
struct bly_http_library;

enum { BLY_HTTP_VARIABLES_MAX = 64 };

/* All zero: nothing is open. */
struct bly_http_access {
    struct bly_http_config config;                              /* points into this struct */
    struct bly_http_variable variables[BLY_HTTP_VARIABLES_MAX]; /* values owned, names borrowed */
    struct bly_http_library *library;
};

/*
 * Loads libcurl, and takes the variables called `names` (n at most BLY_HTTP_VARIABLES_MAX) out of
 * the environment: no program that is started inherits them. One that is not set is remembered as
 * such. `ca_file` (may be NULL) must be readable. Negative errno with `err` set.
 */
int bly_http_access_open(struct bly_http_access *access, const char *const *names, size_t n,
                         const char *ca_file, struct bly_err *err);
void bly_http_access_close(struct bly_http_access *access);
