#pragma once

/*
 * Whether a sandboxed program failed because of its wall: what is known of it first, what it
 * printed last. Pure. Spec: sandbox.md 6.6, which is about the words.
 */
#include <stdbool.h>

#include "process/process.h"

struct bly_ring;

/* `refused`: the wall is known to have refused it something (bly_child_was_refused()). */
enum bly_evidence bly_denial_evidence(const struct bly_ring *output, int exit_code, bool refused);

/* As the log calls it. */
const char *bly_evidence_name(enum bly_evidence evidence);
