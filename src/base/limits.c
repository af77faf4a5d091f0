#include "base/limits.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

#define LIMIT(field, option, def, min, max, unit, sentence) \
    {option, def, min, max, unit, sentence, offsetof(struct bly_limits, field)},
const struct bly_limit_info bly_limit_table[] = {
#include "base/limits.def"
};
#undef LIMIT

const size_t bly_limit_count = BLY_LEN(bly_limit_table);

static void set_field(struct bly_limits *limits, const struct bly_limit_info *info, uint64_t value)
{
    memcpy((char *)limits + info->offset, &value, sizeof(value));
}

void bly_limits_defaults(struct bly_limits *limits)
{
    for (size_t i = 0; i < bly_limit_count; i++)
        set_field(limits, &bly_limit_table[i], bly_limit_table[i].def);
}

/* Digits only: strtoull() would take signs, blanks and 0x. */
static int parse_u64(const char *text, uint64_t *ret)
{
    uint64_t value = 0;

    if (!*text || text[strspn(text, "0123456789")])
        return -EINVAL;
    for (; *text; text++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return -ERANGE;
    }
    *ret = value;
    return 0;
}

int bly_limits_set(struct bly_limits *limits, const char *option, const char *value)
{
    for (size_t i = 0; i < bly_limit_count; i++) {
        const struct bly_limit_info *info = &bly_limit_table[i];
        uint64_t number;

        if (strcmp(info->option, option) != 0)
            continue;

        int r = parse_u64(value, &number);

        if (r < 0)
            return r;
        if (number < info->min || number > info->max)
            return -ERANGE;
        set_field(limits, info, number);
        return 0;
    }
    return -ENOENT;
}
