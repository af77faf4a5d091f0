#pragma once

/*
 * Characters of ASCII, whatever the locale. Any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static inline bool bly_ascii_is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static inline bool bly_ascii_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Everything but a capital letter stays as it is. */
static inline char bly_ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* The value of a hexadecimal digit of either case; -1 when it is none. */
static inline int bly_hex_value(char c)
{
    if (bly_ascii_is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* RFC 9110, 5.6.2: what a method or the name of a header may be. */
static inline bool bly_ascii_is_token(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (!bly_ascii_is_letter(c) && !bly_ascii_is_digit(c) &&
            (c == '\0' || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return len > 0;
}
