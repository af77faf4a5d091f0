#pragma once

/*
 * Hexadecimal digits, whatever the locale. Any thread.
 */

/* The value of a digit of either case; -1 when it is none. */
static inline int bly_hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}
