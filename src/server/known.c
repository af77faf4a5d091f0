#include "server/known.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"

enum { MAX_DEPTH = 64 }; /* of a context: never what makes a message too deep */

void bly_known_deinit(struct bly_known *known)
{
    for (size_t i = 0; i < BLY_KNOWN_MAX; i++) {
        free(known->contexts[i].text);
        bly_policy_unref(known->contexts[i].policy);
    }
    *known = (struct bly_known){0};
}

/*
 * Where the value of a member `sandbox` begins, an object; NULL: nowhere. A quote that follows a
 * comma or a brace is not escaped, so it begins or ends a string. If it ended one, letters would
 * follow a string, and what follows is no JSON whatever stands in it. So it begins one, and behind
 * the colon stands a value of its own.
 */
static const char *find_context(const char *text, size_t len)
{
    static const char member[] = "\"sandbox\":{";
    const char *at = memmem(text, len, member, sizeof(member) - 1);

    if (!at || at == text || (at[-1] != ',' && at[-1] != '{'))
        return NULL;
    return at + sizeof(member) - 2;
}

/* The byte behind the string that begins at `p`; NULL: it does not end. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\';
    return p < end ? p + 1 : NULL;
}

/* Length of the object that begins at `p`, provided it is valid; 0: it does not end, is too long or
 * too deep. */
static size_t object_len(const char *p, const char *end)
{
    const char *start = p;
    size_t depth = 0;

    if (end - p > BLY_KNOWN_TEXT_MAX)
        end = p + BLY_KNOWN_TEXT_MAX;
    while (p && p < end) {
        char c = *p;

        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        p = c == '"' ? skip_string(p, end) : p + 1;
        if (depth == 0 && p)
            return (size_t)(p - start);
        if (depth > MAX_DEPTH)
            return 0;
    }
    return 0;
}

static struct bly_known_context *find_known(struct bly_known *known, const char *at, size_t left)
{
    for (size_t i = 0; i < BLY_KNOWN_MAX; i++) {
        struct bly_known_context *context = &known->contexts[i];

        if (context->text && context->len <= left && memcmp(context->text, at, context->len) == 0)
            return context;
    }
    return NULL;
}

/* A context that is new takes the place of the one that was not used for longest. */
static struct bly_known_context *learn(struct bly_known *known, const struct bly_policy_env *env,
                                       const char *at, size_t len)
{
    struct bly_known_context *oldest = &known->contexts[0];
    bly_autofree char *text = strndup(at, len);
    struct bly_policy *policy = NULL;

    /* What is no valid policy is for those to refuse who know the right words. */
    if (!text || bly_policy_parse_text(text, env, &policy, NULL) < 0)
        return NULL;
    for (size_t i = 1; i < BLY_KNOWN_MAX; i++)
        if (known->contexts[i].used < oldest->used)
            oldest = &known->contexts[i];
    free(oldest->text);
    bly_policy_unref(oldest->policy);
    *oldest = (struct bly_known_context){.text = bly_take_ptr(&text), .len = len, .policy = policy};
    return oldest;
}

/* The message with "" for the `len` bytes at `at`. */
static bool fold(const char *text, size_t text_len, const char *at, size_t len,
                 struct bly_folded *folded)
{
    size_t head = (size_t)(at - text), tail = text_len - head - len;
    char *out = calloc(1, head + 2 + tail + BLY_JSON_PADDING);

    if (!out)
        return false;
    memcpy(out, text, head);
    memcpy(out + head, "\"\"", 2);
    memcpy(out + head + 2, at + len, tail);
    folded->text = out;
    folded->len = head + 2 + tail;
    folded->context.place = out + head + 1;
    return true;
}

bool bly_known_fold(struct bly_known *known, const struct bly_policy_env *env, const char *text,
                    size_t len, struct bly_folded *ret_folded)
{
    struct bly_known_context *context;
    const char *at;

    /* Longer messages have limits that are counted over all of their text. */
    if (len > BLY_KNOWN_TEXT_MAX + BLY_KNOWN_REST_MAX)
        return false;
    at = find_context(text, len);
    if (!at)
        return false;
    context = find_known(known, at, len - (size_t)(at - text));
    if (!context) {
        size_t n = object_len(at, text + len);

        context = n > 0 ? learn(known, env, at, n) : NULL;
    }
    if (!context || len - context->len > BLY_KNOWN_REST_MAX ||
        !fold(text, len, at, context->len, ret_folded))
        return false;
    context->used = ++known->clock;
    ret_folded->context.policy = context->policy;
    return true;
}
