#include "base/casefold.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/ascii.h"
#include "base/cleanup.h"

#ifndef FS_CASEFOLD_FL
#define FS_CASEFOLD_FL 0x40000000
#endif

enum {
    SOMETHING = '\xff', /* for all that is not ASCII; in no UTF-8 text */
    INVALID = 0x110000, /* behind all code points */
};

/* Default_Ignorable_Code_Point of Unicode 12.1, which is what kernels know; sorted. */
static const struct range {
    uint32_t first, last;
} ignored[] = {
    {0xad, 0xad},       {0x34f, 0x34f},     {0x61c, 0x61c},   {0x115f, 0x1160}, {0x17b4, 0x17b5},
    {0x180b, 0x180f},   {0x200b, 0x200f},   {0x202a, 0x202e}, {0x2060, 0x206f}, {0x3164, 0x3164},
    {0xfe00, 0xfe0f},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0}, {0xfff0, 0xfff8}, {0x1bca0, 0x1bca3},
    {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
};

/* What is not ASCII and becomes ASCII, in part or as a whole. No text is longer than the UTF-8 of
 * its character. */
static const struct letter {
    uint32_t point;
    const char *text;
} letters[] = {
    {0xdf, "ss"},    {0x149, "\xffn"}, {0x17f, "s"},   {0x37e, ";"},   {0x1e9e, "ss"},
    {0x1fef, "`"},   {0x212a, "k"},    {0xfb00, "ff"}, {0xfb01, "fi"}, {0xfb02, "fl"},
    {0xfb03, "ffi"}, {0xfb04, "ffl"},  {0xfb05, "st"}, {0xfb06, "st"},
};

/* The code point at `*at`, which moves behind it. What is no UTF-8 is taken byte by byte. */
static uint32_t next_point(const char **at, const char *end)
{
    static const uint8_t masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07}; /* by length */
    const char *text = (*at)++;
    uint8_t first = (uint8_t)text[0];
    size_t len = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 0;
    uint32_t point;

    if (len == 0 || len > (size_t)(end - text))
        return INVALID;
    point = first & masks[len];
    for (size_t i = 1; i < len; i++) {
        if (((uint8_t)text[i] & 0xc0) != 0x80)
            return INVALID;
        point = point << 6 | ((uint8_t)text[i] & 0x3f);
    }
    if (len > 1 && point < 0x80) /* longer than it needs to be */
        return INVALID;
    *at = text + len;
    return point;
}

static bool is_ignored(uint32_t point)
{
    for (size_t i = 0; i < BLY_LEN(ignored); i++)
        if (point <= ignored[i].last)
            return point >= ignored[i].first;
    return false;
}

/* NULL: only that it is there counts. */
static const char *as_letters(uint32_t point)
{
    for (size_t i = 0; i < BLY_LEN(letters); i++)
        if (letters[i].point == point)
            return letters[i].text;
    return NULL;
}

/* One more character of a key. */
static char *put(char c, const char *key, char *to)
{
    /* Behind these a mark makes one character, and which are marks is a long list. */
    while (c == SOMETHING && to > key &&
           ((to[-1] >= 'a' && to[-1] <= 'z') || (to[-1] >= '<' && to[-1] <= '>')))
        to--;
    if (c != SOMETHING || to == key || to[-1] != SOMETHING)
        *to++ = c;
    return to;
}

/* Returns the new end of the key, as put(). */
static char *put_point(uint32_t point, const char *key, char *to)
{
    const char *text = point < 0x80 ? NULL : as_letters(point);

    if (point < 0x80)
        return put(bly_ascii_lower((char)point), key, to);
    if (is_ignored(point))
        return to;
    for (text = text ? text : "\xff"; *text; text++)
        to = put(*text, key, to);
    return to;
}

/* At the end of a component: one of ignored characters alone is still one. */
static char *end_component(const char *text, const char *end, const char *key, char *to)
{
    bool was_there = end > text && end[-1] != '/';

    return was_there && (to == key || to[-1] == '/') ? put(SOMETHING, key, to) : to;
}

/* Most paths are ASCII to their end. Returns how much of this one is. */
static size_t fold_ascii(const char *text, size_t len, char *key)
{
    size_t n = 0;

    for (; n < len && (uint8_t)text[n] < 0x80; n++)
        key[n] = bly_ascii_lower(text[n]);
    return n;
}

void bly_casefold(const char *text, size_t len, char *key)
{
    size_t ascii = fold_ascii(text, len, key);
    const char *at = text + ascii, *end = text + len;
    char *to = key + ascii;

    while (at < end) {
        if (*at == '/')
            to = end_component(text, at, key, to);
        to = put_point(next_point(&at, end), key, to);
    }
    *end_component(text, end, key, to) = '\0';
}

char *bly_casefold_dup(const char *text)
{
    size_t len = strlen(text);
    char *key = malloc(len + 1);

    if (key)
        bly_casefold(text, len, key);
    return key;
}

bool bly_casefold_in(int dir_fd)
{
    int flags = 0;

    if (ioctl(dir_fd, FS_IOC_GETFLAGS, &flags) < 0) /* file systems without flags do not fold */
        return errno != ENOTTY && errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS;
    return flags & FS_CASEFOLD_FL;
}
