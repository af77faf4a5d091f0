#pragma once

/*
 * What a client is told about this machine (spec 4.2), found out once at start. Blocks a little:
 * before the loop runs.
 */
#include "proto/proto.h"
#include "sandbox/policy/policy.h"

struct bly_environment_facts {
    struct bly_environment environment; /* points into this struct */
    struct bly_policy_env policy_env;   /* likewise */
    char *shell_path, *provider_id, *cwd, *home, *tmpdir, *codex_home, *hostname; /* owned */
};

/* -ENOMEM, or what getcwd(3) says, with `err` set. */
int bly_environment_facts_init(struct bly_environment_facts *facts, struct bly_err *err);
void bly_environment_facts_deinit(struct bly_environment_facts *facts);
