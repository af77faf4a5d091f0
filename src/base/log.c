#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { LINE_MAX_BYTES = 8192 };

static const char *const level_names[] = {
    [BLY_LOG_ERROR] = "error",
    [BLY_LOG_WARN] = "warn",
    [BLY_LOG_INFO] = "info",
    [BLY_LOG_DEBUG] = "debug",
};

static enum bly_log_level max_level = BLY_LOG_INFO;

void bly_log_set_level(enum bly_log_level level)
{
    max_level = level;
}

int bly_log_level_parse(const char *name, enum bly_log_level *ret)
{
    for (size_t i = 0; i < BLY_LEN(level_names); i++) {
        if (strcmp(level_names[i], name) == 0) {
            *ret = (enum bly_log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* ASCII controls, and the second byte of the C1 controls (U+0080 to U+009F), which terminals obey.
 */
static bool is_control(unsigned char before, unsigned char c)
{
    return c < 0x20 || c == 0x7f || (before == 0xc2 && c >= 0x80 && c < 0xa0);
}

/* Copies what fits into `room` bytes, controls as \xNN; returns the length. */
static size_t escape(char *out, size_t room, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char before = 0;
    size_t n = 0;

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (n + 4 > room)
            break;
        if (is_control(before, c)) {
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        } else {
            out[n++] = (char)c;
        }
        before = c;
    }
    return n;
}

void bly_log(enum bly_log_level level, const char *event, const char *fmt, ...)
{
    char pairs[LINE_MAX_BYTES / 2];
    char line[LINE_MAX_BYTES];
    va_list args;

    if (level > max_level)
        return;

    int saved = errno;

    va_start(args, fmt);
    if (vsnprintf(pairs, sizeof(pairs), fmt, args) < 0)
        pairs[0] = '\0';
    va_end(args);

    int head =
        snprintf(line, sizeof(line) / 2, "%s %s%s", level_names[level], event, pairs[0] ? " " : "");
    size_t n = head < 0 ? 0 : (size_t)head;

    if (n >= sizeof(line) / 2)
        n = sizeof(line) / 2 - 1;
    n += escape(line + n, sizeof(line) - n - 1, pairs);
    line[n++] = '\n';

    /* Nobody is left to tell when stderr is gone. */
    ssize_t written = write(STDERR_FILENO, line, n);

    (void)written;
    errno = saved;
}
