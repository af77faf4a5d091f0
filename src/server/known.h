#pragma once

/*
 * Sandbox contexts that a connection has sent before. A client repeats the same context with every
 * request, and with many entries it is most of the message: what is known by its bytes is neither
 * parsed nor compiled again. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/policy/policy.h"

enum {
    BLY_KNOWN_MAX = 8,              /* contexts of one connection */
    BLY_KNOWN_TEXT_MAX = 128 << 10, /* bytes of one; longer ones are read each time */
    BLY_KNOWN_REST_MAX = 64 << 10,  /* bytes of the message around it */
};

struct bly_known {
    struct bly_known_context {
        char *text; /* NULL: free */
        size_t len;
        struct bly_policy *policy;
        uint64_t used;
    } contexts[BLY_KNOWN_MAX];
    uint64_t clock;
};

void bly_known_deinit(struct bly_known *known); /* a zeroed one needs no init */

/* A message with an empty string in place of its sandbox context. */
struct bly_folded {
    char *text; /* malloc'ed, with BLY_JSON_PADDING behind it; the caller's */
    size_t len;
    struct bly_policy_known context; /* for bly_policy_env; borrowed until the next call */
};

/*
 * Folds the context in a message, if it has one that is a valid policy. The folded message is JSON
 * if and only if the message is, and means the same as long as the member `sandbox` of its
 * parameters is the string at `context.place`: whoever finds it elsewhere reads the message as it
 * is. `env` must be the same in each call. False: nothing to fold, `ret_folded` is untouched.
 */
bool bly_known_fold(struct bly_known *known, const struct bly_policy_env *env, const char *text,
                    size_t len, struct bly_folded *ret_folded);
