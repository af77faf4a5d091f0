#pragma once

/*
 * The limits of a server, one field a row of limits.def (which see). Filled once at start, then
 * read only.
 */
#include <stddef.h>
#include <stdint.h>

#define LIMIT(field, option, def, min, max, unit, sentence) uint64_t field;
struct bly_limits {
#include "base/limits.def"
};
#undef LIMIT

struct bly_limit_info {
    const char *option; /* without the leading dashes */
    uint64_t def, min, max;
    const char *unit; /* "bytes", "count" or "ms" */
    const char *sentence;
    size_t offset; /* of the field in struct bly_limits */
};

extern const struct bly_limit_info bly_limit_table[];
extern const size_t bly_limit_count;

void bly_limits_defaults(struct bly_limits *limits);

/* Sets one by option name. 0; -ENOENT no such option; -EINVAL not a number; -ERANGE outside
 * min..max. */
int bly_limits_set(struct bly_limits *limits, const char *option, const char *value);
