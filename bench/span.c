#include "span.h"

#include <stdlib.h>
#include <string.h>

enum { NUMBER_MAX = 31 }; /* characters */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && is_blank(*at))
        at++;
    return at;
}

/* The closing quote of a string whose opening one is in front of `at`; NULL without one. */
static const char *find_quote(const char *at, const char *end)
{
    for (;;) {
        const char *quote = at < end ? memchr(at, '"', (size_t)(end - at)) : NULL;
        const char *escape = quote ? memchr(at, '\\', (size_t)(quote - at)) : NULL;

        if (!escape)
            return quote;
        at = escape + 2;
    }
}

/* Behind an object or array that begins at `at`. */
static const char *skip_nested(const char *at, const char *end)
{
    for (int depth = 0; at && at < end; at++) {
        if (*at == '"') {
            at = find_quote(at + 1, end);
            if (!at)
                return NULL;
        } else if (*at == '{' || *at == '[') {
            depth++;
        } else if ((*at == '}' || *at == ']') && --depth == 0) {
            return at + 1;
        }
    }
    return NULL;
}

/* Behind the value that begins at `at`; NULL when it does not end. */
static const char *skip_value(const char *at, const char *end)
{
    if (at >= end)
        return NULL;
    if (*at == '"') {
        at = find_quote(at + 1, end);
        return at ? at + 1 : NULL;
    }
    if (*at == '{' || *at == '[')
        return skip_nested(at, end);
    while (at < end && *at != ',' && *at != '}' && *at != ']' && !is_blank(*at))
        at++;
    return at;
}

/* Behind the comma, if there is one, to what follows. */
static const char *skip_comma(const char *at, const char *end)
{
    at = skip_blanks(at, end);
    return at < end && *at == ',' ? skip_blanks(at + 1, end) : end;
}

bool span_member(struct span object, const char *key, struct span *ret_value)
{
    const char *at = skip_blanks(object.at, object.end), *end = object.end;
    size_t len = strlen(key);

    if (at >= end || *at != '{')
        return false;
    at = skip_blanks(at + 1, end);
    while (at < end && *at == '"') {
        const char *name = at + 1, *quote = find_quote(name, end), *value;

        if (!quote)
            return false;
        at = skip_blanks(quote + 1, end);
        if (at >= end || *at != ':')
            return false;
        value = skip_blanks(at + 1, end);
        at = skip_value(value, end);
        if (!at)
            return false;
        if ((size_t)(quote - name) == len && memcmp(name, key, len) == 0) {
            *ret_value = (struct span){value, at};
            return true;
        }
        at = skip_comma(at, end);
    }
    return false;
}

bool span_next(struct span array, struct span *item)
{
    const char *at = skip_blanks(array.at, array.end), *end = array.end;

    if (item->at)
        at = skip_comma(item->end, end);
    else if (at < end && *at == '[')
        at = skip_blanks(at + 1, end);
    else
        return false;
    if (at >= end || *at == ']')
        return false;
    item->at = at;
    item->end = skip_value(at, end);
    return item->end;
}

bool span_is(struct span value, const char *text)
{
    size_t len = strlen(text);

    return span_len(value) == len && memcmp(value.at, text, len) == 0;
}

bool span_string(struct span value, struct span *ret_inside)
{
    if (span_len(value) < 2 || *value.at != '"')
        return false;
    *ret_inside = (struct span){value.at + 1, value.end - 1};
    return true;
}

bool span_is_string(struct span value, const char *text)
{
    return span_string(value, &value) && span_is(value, text);
}

bool span_number(struct span value, int64_t *ret_number)
{
    char text[NUMBER_MAX + 1], *end;
    size_t len = span_len(value);

    if (len == 0 || len > NUMBER_MAX)
        return false;
    memcpy(text, value.at, len);
    text[len] = '\0';
    *ret_number = strtoll(text, &end, 10);
    return end != text;
}

bool span_member_is(struct span object, const char *key, const char *text)
{
    return span_member(object, key, &object) && span_is(object, text);
}

bool span_member_number(struct span object, const char *key, int64_t *ret_number)
{
    return span_member(object, key, &object) && span_number(object, ret_number);
}

bool span_member_string(struct span object, const char *key, struct span *ret_inside)
{
    return span_member(object, key, &object) && span_string(object, ret_inside);
}
