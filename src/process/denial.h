#pragma once

/*
 * A guess whether a sandboxed program failed because of its wall, from what it printed and how it
 * ended. Pure. Spec: sandbox.md 6.6.
 */
#include <stdbool.h>

struct bly_ring;

bool bly_denial_guess(const struct bly_ring *output, int exit_code);
