#pragma once

/*
 * Reads JSON where it lies: a value is a piece of the text, and nothing is built. A reader of whole
 * documents would cost the generator more than the answers it looks into. For text from a server
 * under test on the same machine, and only as strict as what is looked for needs. Any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span {
    const char *at, *end;
};

static inline size_t span_len(struct span span)
{
    return (size_t)(span.end - span.at);
}

/* False when `object` is none, or has no such member. */
bool span_member(struct span object, const char *key, struct span *ret_value);
/* Goes through an array: *item is {0} before the first. False behind the last. */
bool span_next(struct span array, struct span *item);

/* The value's text is exactly this: true, null, 17. */
bool span_is(struct span value, const char *text);
/* A string of exactly these characters, none of them escaped. */
bool span_is_string(struct span value, const char *text);
/* False when it is no number. */
bool span_number(struct span value, int64_t *ret_number);
/* What is between the quotes, as it stands there. False when it is no string. */
bool span_string(struct span value, struct span *ret_inside);
/* span_member() and then what the member is. */
bool span_member_is(struct span object, const char *key, const char *text);
bool span_member_number(struct span object, const char *key, int64_t *ret_number);
bool span_member_string(struct span object, const char *key, struct span *ret_inside);
