#include "sandbox/policy/glob.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "sandbox/policy/policy.h"

enum { MAX_ALTERNATIVE_GROUPS = 32 };

static const char specials[] = "*?[]{}\\";

static bool is_special(char c)
{
    return c != '\0' && strchr(specials, c) != NULL;
}

/*
 * Reads one character: UTF-8 where it is, else one byte, numbered beyond Unicode so that it equals
 * only itself. `p` < `end`.
 */
static uint32_t next_char(const char **p, const char *end)
{
    const unsigned char *s = (const unsigned char *)*p;
    uint32_t c = s[0];
    size_t tail = c >= 0xf0 && c < 0xf8 ? 3 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xc2 && c < 0xe0;
    uint32_t code = c & (0x3fu >> tail);

    (*p)++;
    if (c < 0x80)
        return c;
    if (tail == 0 || (size_t)(end - *p) < tail)
        return 0x110000 + c;
    for (size_t i = 1; i <= tail; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0x110000 + c;
        code = code << 6 | (s[i] & 0x3fu);
    }
    *p += tail;
    return code;
}

/* The closing bracket of the class that begins at `p`; NULL when it stays open within its
 * component: then '[' is a literal. */
static const char *class_end(const char *p)
{
    p++;
    if (*p == '!' || *p == '^')
        p++;
    if (*p == ']')
        p++;
    while (*p && *p != ']' && *p != '/')
        p++;
    return *p == ']' ? p : NULL;
}

/* One item of a class: a character or a range. `p` is inside the brackets, before `end`. */
static void next_range(const char **p, const char *end, uint32_t *low, uint32_t *high)
{
    *low = *high = next_char(p, end);
    if (end - *p >= 2 && **p == '-') {
        (*p)++;
        *high = next_char(p, end);
    }
}

static bool class_has(const char *p, const char *end, uint32_t c)
{
    bool negated = *++p == '!' || *p == '^';
    bool found = false;

    p += negated;
    while (p < end) {
        uint32_t low, high;

        next_range(&p, end, &low, &high);
        found = found || (low <= c && c <= high);
    }
    return found != negated;
}

/* Matches one element of the pattern that is no star against the text; steps over both when it
 * fits. `*t` < `end`. */
static bool match_one(const char **p, const char **t, const char *end)
{
    const char *close = **p == '[' ? class_end(*p) : NULL;

    if (close || **p == '?') {
        if (**t == '/')
            return false;

        uint32_t c = next_char(t, end);

        if (close && !class_has(*p, close, c))
            return false;
        *p = (close ? close : *p) + 1;
        return true;
    }
    if (**p == '\\' && (*p)[1] != '\0')
        (*p)++;
    if (**p != **t)
        return false;
    (*p)++;
    (*t)++;
    return true;
}

/* Where to go on when a star took too little. */
struct retry {
    const char *pattern; /* behind the star; NULL: no star yet */
    const char *text;
    bool whole; /* "**" followed by a slash: takes whole components only */
};

/* Steps over stars in the pattern; returns which of the two retries was set. */
static const char *take_star(const char *pattern, const char *p, const char *t, struct retry *star,
                             struct retry *deep)
{
    bool at_start = p == pattern || p[-1] == '/';
    size_t n = strspn(p, "*");

    p += n;
    if (n == 1) {
        *star = (struct retry){.pattern = p, .text = t};
        return p;
    }
    *deep = (struct retry){.pattern = p, .text = t};
    star->pattern = NULL;
    if (at_start && *p == '/') {
        deep->pattern = ++p;
        deep->whole = true;
    }
    return p;
}

/* Lets the last star, or else the last double star, take one more; false when neither can. */
static bool take_more(struct retry *star, struct retry *deep, const char *end)
{
    if (star->pattern) {
        /* The rest was not found up to the end of the text: it is not in a shorter rest either. */
        if (star->text == end)
            return false;
        if (*star->text != '/') {
            (void)next_char(&star->text, end);
            return true;
        }
        star->pattern = NULL;
    }
    if (!deep->pattern || deep->text == end)
        return false;
    if (!deep->whole) {
        (void)next_char(&deep->text, end);
        return true;
    }

    const char *slash = memchr(deep->text, '/', (size_t)(end - deep->text));

    if (!slash)
        return false;
    deep->text = slash + 1;
    return true;
}

/*
 * Only the last star and the last double star are ever tried again: what comes before a later one
 * matched as early as it can, and that leaves most to the rest. So there is no exponential case.
 * With `prefix` the match may end at any slash, i.e. at an ancestor of `path`.
 */
static bool match(const char *pattern, const char *path, bool prefix)
{
    const char *p = pattern;
    const char *t = path;
    const char *end = path + strlen(path);
    struct retry star = {0};
    struct retry deep = {0};

    for (;;) {
        if (*p == '*') {
            p = take_star(pattern, p, t, &star, &deep);
            continue;
        }
        if (*p == '\0' && (t == end || (prefix && *t == '/' && t > path)))
            return true;
        if (*p != '\0' && t < end && match_one(&p, &t, end))
            continue;
        if (!take_more(&star, &deep, end))
            return false;
        p = star.pattern ? star.pattern : deep.pattern;
        t = star.pattern ? star.text : deep.text;
    }
}

bool bly_glob_match(const char *pattern, const char *path)
{
    return match(pattern, path, false);
}

bool bly_glob_covers(const char *pattern, const char *path)
{
    return match(pattern, path, true);
}

size_t bly_glob_literal_dir(const char *pattern)
{
    size_t plain = strcspn(pattern, specials);

    while (plain > 0 && pattern[plain - 1] != '/')
        plain--;
    return plain > 0 ? plain - 1 : 0;
}

char *bly_glob_escape(const char *path)
{
    char *out = malloc(2 * strlen(path) + 1);
    char *q = out;

    if (!out)
        return NULL;
    for (; *path; path++) {
        if (is_special(*path))
            *q++ = '\\';
        *q++ = *path;
    }
    *q = '\0';
    return out;
}

/* ---- compiling ---- */

/* The byte behind one element of a pattern: an escape, a class, or a single byte. NULL when the
 * text ends in a backslash. */
static const char *skip_element(const char *p)
{
    if (*p == '\\')
        return p[1] ? p + 2 : NULL;
    if (*p == '[') {
        const char *close = class_end(p);

        return (close ? close : p) + 1;
    }
    return p + 1;
}

static bool is_good_class(const char *p, const char *end)
{
    p += p[1] == '!' || p[1] == '^' ? 2 : 1;
    while (p < end) {
        uint32_t low, high;

        next_range(&p, end, &low, &high);
        if (low > high)
            return false;
    }
    return true;
}

/* Copies without needless escapes, so that "\/" and "\." are seen for what they are. */
static int drop_escapes(const char *p, char *out, bool *ret_wild)
{
    *ret_wild = false;
    while (*p) {
        const char *next = skip_element(p);
        const char *from = p;

        if (!next || *p == '}')
            return -EINVAL;
        if (*p == '\\' && !is_special(p[1]))
            from = p + 1;
        if (next - p > 1 && *p == '[' && !is_good_class(p, next - 1))
            return -EINVAL;
        *ret_wild = *ret_wild || *p == '*' || *p == '?' || (*p == '[' && next - p > 1);
        memcpy(out, from, (size_t)(next - from));
        out += next - from;
        p = next;
    }
    *out = '\0';
    return 0;
}

/* "..", which is resolved as text, has no meaning behind something that is not plain text. */
static bool climbs_behind_wildcard(const char *pattern)
{
    const char *p = pattern + strcspn(pattern, specials);

    for (; (p = strstr(p, "/..")) != NULL; p++) {
        if (p[3] == '/' || p[3] == '\0')
            return true;
    }
    return false;
}

static void unescape(char *text)
{
    char *out = text;

    for (; *text; text++) {
        if (*text == '\\')
            text++;
        *out++ = *text;
    }
    *out = '\0';
}

char *bly_glob_base(const char *pattern, size_t *ret_len)
{
    const char *p = pattern;
    size_t len = 0;

    while (*p && *p != '*' && *p != '?') {
        const char *next = skip_element(p);

        if (!next || (*p == '[' && next - p > 1))
            break;
        if (*p == '/')
            len = (size_t)(p - pattern);
        p = next;
    }

    char *base = strndup(pattern, len);

    if (!base)
        return NULL;
    unescape(base);
    *ret_len = len;
    return base;
}

static int finish_simple(const char *pattern, bly_glob_each each, void *arg)
{
    bly_autofree char *tidy = malloc(strlen(pattern) + 1);
    bly_autofree char *normal = NULL;
    bool wild;

    if (!tidy)
        return -ENOMEM;

    int r = drop_escapes(pattern, tidy, &wild);

    if (r < 0)
        return r;
    if (!wild)
        unescape(tidy);
    else if (climbs_behind_wildcard(tidy))
        return -EINVAL;
    r = bly_path_normalise(tidy, strlen(tidy), &normal);
    if (r < 0)
        return r == -ENOMEM ? r : -EINVAL;
    return each(arg, normal, !wild);
}

/* The first byte at or behind `p` that is in `wanted` and stands outside inner braces. */
static const char *find_outside(const char *p, const char *wanted)
{
    size_t depth = 0;

    while (*p) {
        if (depth == 0 && strchr(wanted, *p))
            return p;
        if (*p == '{')
            depth++;
        if (*p == '}' && depth > 0)
            depth--;
        p = skip_element(p);
        if (!p)
            return NULL;
    }
    return NULL;
}

static int expand(const char *pattern, unsigned groups, bly_glob_each each, void *arg)
{
    const char *open = find_outside(pattern, "{");

    if (!open)
        return finish_simple(pattern, each, arg);

    const char *item = open + 1;
    const char *close = find_outside(item, ",}");

    while (close && *close == ',')
        close = find_outside(close + 1, ",}");
    if (!close || groups == MAX_ALTERNATIVE_GROUPS)
        return -EINVAL;

    bly_autofree char *text = malloc(strlen(pattern) + 1);
    size_t head = (size_t)(open - pattern);

    if (!text)
        return -ENOMEM;
    memcpy(text, pattern, head);
    while (item <= close) {
        const char *next = find_outside(item, ",}");
        size_t len = (size_t)(next - item);

        memcpy(text + head, item, len);
        memcpy(text + head + len, close + 1, strlen(close + 1) + 1);

        int r = expand(text, groups + 1, each, arg);

        if (r < 0)
            return r;
        item = next + 1;
    }
    return 0;
}

int bly_glob_expand(const char *pattern, bly_glob_each each, void *arg)
{
    return expand(pattern, 0, each, arg);
}
