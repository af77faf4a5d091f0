#include "base/path.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/ascii.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"

/* Removes the last component of out[0..n), never the root; returns the new length. */
static size_t pop_component(const char *out, size_t n)
{
    while (n > 0 && out[n - 1] != '/')
        n--;
    return n > 0 ? n - 1 : 0;
}

/*
 * Normalises path[0..len), which may be `out` itself: the output never overtakes the input. `out`
 * has room for len + 2 bytes. The result begins with '/' whether the input does or not.
 */
static void normalise_into(const char *path, size_t len, char *out)
{
    size_t n = 0; /* without the leading slash of "/" */
    size_t i = 0;

    while (i < len) {
        if (path[i] == '/') {
            i++;
            continue;
        }

        const char *end = memchr(path + i, '/', len - i);
        size_t size = end ? (size_t)(end - path) - i : len - i;

        if (size == 2 && path[i] == '.' && path[i + 1] == '.') {
            n = pop_component(out, n);
        } else if (size != 1 || path[i] != '.') {
            if (out + n + 1 != path + i) /* it is there already, mostly */
                memmove(out + n + 1, path + i, size);
            out[n] = '/';
            n += 1 + size;
        }
        i += size;
    }
    if (n == 0)
        out[n++] = '/';
    out[n] = '\0';
}

int bly_path_normalise(const char *path, size_t len, char **ret_path)
{
    if (len == 0 || path[0] != '/' || memchr(path, '\0', len))
        return -EINVAL;
    if (len > BLY_PATH_MAX)
        return -ENAMETOOLONG;

    char *out = malloc(len + 2);

    if (!out)
        return -ENOMEM;
    normalise_into(path, len, out);
    *ret_path = out;
    return 0;
}

bool bly_path_is_normal(const char *path, size_t len)
{
    const char *end = path + len;

    if (len == 0 || len > BLY_PATH_MAX || path[0] != '/' || memchr(path, '\0', len))
        return false;
    while (len > 1 && path < end) {
        const char *name = path + 1;
        const char *slash = memchr(name, '/', (size_t)(end - name));
        size_t size = (size_t)((slash ? slash : end) - name);

        if (size == 0 || (size <= 2 && memcmp(name, "..", size) == 0))
            return false;
        path = name + size;
    }
    return true;
}

static int from_raw(const char *text, size_t len, char **ret_path, struct bly_err *err)
{
    int r = bly_path_normalise(text, len, ret_path);

    if (r == -EINVAL)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "file name contained an unexpected NUL byte");
    if (r < 0)
        return bly_fail_sys(err, -r, "path of %zu bytes", len);
    return 0;
}

/* ---- file URIs, read the way a browser reads them ---- */

static bool is_slash(char c)
{
    return c == '/' || c == '\\';
}

/* Without leading and trailing blanks and controls, and without tabs and line breaks anywhere. */
static size_t strip(const char *text, size_t len, char *out)
{
    size_t n = 0;

    while (len > 0 && (unsigned char)text[len - 1] <= ' ')
        len--;
    while (len > 0 && (unsigned char)text[0] <= ' ')
        text++, len--;
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '\t' && text[i] != '\n' && text[i] != '\r')
            out[n++] = text[i];
    }
    out[n] = '\0';
    return n;
}

/* Length of the scheme in front of its colon; 0 when there is none. */
static size_t scheme_len(const char *uri)
{
    size_t n = 0;

    if (!bly_ascii_is_letter(uri[0]))
        return 0;
    while (bly_ascii_is_letter(uri[n]) || bly_ascii_is_digit(uri[n]) ||
           (uri[n] != '\0' && strchr("+-.", uri[n])))
        n++;
    return uri[n] == ':' ? n : 0;
}

/* "C:" and "C|" as a whole segment. */
static bool is_drive_letter(const char *segment, size_t len)
{
    return len == 2 && bly_ascii_is_letter(segment[0]) && (segment[1] == ':' || segment[1] == '|');
}

/* Length of the segment that begins here. */
static size_t segment_len(const char *p, const char *end)
{
    const char *start = p;

    while (p < end && !is_slash(*p))
        p++;
    return (size_t)(p - start);
}

/* Number of dots when the segment is nothing but dots, each spelled "." or "%2e"; else 0. */
static unsigned count_dots(const char *p, size_t len)
{
    unsigned dots = 0;

    while (len > 0) {
        size_t size = *p == '.' ? 1 : 3;

        if (size > len || (size == 3 && strncasecmp(p, "%2e", 3) != 0))
            return 0;
        p += size;
        len -= size;
        dots++;
    }
    return dots;
}

/*
 * Resolves dot segments of p..end into `out` as "/segment/segment"; an empty segment counts as one.
 * Returns the length. `out` has room for end - p + 2 bytes.
 */
static size_t resolve_segments(const char *p, const char *end, char *out)
{
    size_t n = 0;

    if (p < end && is_slash(*p))
        p++;
    for (;;) {
        size_t size = segment_len(p, end);
        unsigned dots = count_dots(p, size);
        bool last = p + size == end;

        if (dots == 2)
            n = pop_component(out, n);
        if (dots == 1 || dots == 2) {
            if (last)
                out[n++] = '/';
        } else {
            out[n++] = '/';
            memcpy(out + n, p, size);
            n += size;
        }
        if (last)
            return n;
        p += size + 1;
    }
}

/* Decodes %XX once, in place; a bad escape stays as it is. */
static size_t percent_decode(char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        int high = -1;
        int low = -1;

        if (text[i] == '%' && len - i > 2) {
            high = bly_hex_value(text[i + 1]);
            low = bly_hex_value(text[i + 2]);
        }
        if (high >= 0 && low >= 0) {
            text[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            text[n++] = text[i];
        }
    }
    return n;
}

static bool has_drive_letter(const char *path, size_t len)
{
    const char *end = path + len;

    while (path < end && *path == '/')
        path++;
    return is_drive_letter(path, segment_len(path, end));
}

/* Steps over "//host"; only no host and localhost are this machine. */
static int skip_host(const char *uri, const char **p, const char *end, struct bly_err *err)
{
    static const char local[] = "localhost";
    const char *host = *p + 2;

    if (end - *p < 2 || !is_slash((*p)[0]) || !is_slash((*p)[1]))
        return 0;

    size_t len = segment_len(host, end);

    if (is_drive_letter(host, len)) {
        *p = host;
        return 0;
    }
    if (memchr(host, '@', len))
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "user names are not allowed in path URIs");
    if (memchr(host, ':', len) && host[0] != '[')
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "ports are not allowed in path URIs");
    if (len > 0 && (len != sizeof(local) - 1 || strncasecmp(host, local, len) != 0))
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "'%s' is invalid on 'linux'", uri);
    *p = host + len;
    return 0;
}

static int check_scheme(const char *uri, size_t *ret_len, struct bly_err *err)
{
    size_t len = scheme_len(uri);

    if (len == 0)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "invalid URI: relative URL without a base");
    if (len != 4 || strncasecmp(uri, "file", 4) != 0)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "unsupported path URI scheme `%.*s`",
                        len < 64 ? (int)len : 64, uri);
    *ret_len = len;
    return 0;
}

/* `path` is the path part of `uri`, dot segments resolved, escapes still in place. */
static int check_path(const char *uri, const char *path, size_t len, struct bly_err *err)
{
    static const char bad_path[] = "/%00/bad/path/"; /* how upstream names what has no URI */

    if (has_drive_letter(path, len) ||
        (len >= sizeof(bad_path) - 1 && memcmp(path, bad_path, sizeof(bad_path) - 1) == 0))
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "'%s' is invalid on 'linux'", uri);
    if (memmem(path, len, "%00", 3) || memchr(path, '\0', len))
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "'%s' is invalid on 'linux'", uri);
    return 0;
}

static int from_uri(const char *text, size_t len, char **ret_path, struct bly_err *err)
{
    bly_autofree char *uri = calloc(1, len + 1);
    bly_autofree char *path = calloc(1, len + 2);
    size_t scheme = 0;

    if (!uri || !path)
        return -ENOMEM;

    const char *end = uri + strip(text, len, uri);
    int r = check_scheme(uri, &scheme, err);

    if (r < 0)
        return r;

    const char *p = uri + scheme + 1;

    for (const char *q = p; q < end; q++) {
        if (*q == '?')
            return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                            "query parameters are not allowed in path URIs");
        if (*q == '#')
            return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "fragments are not allowed in path URIs");
    }

    r = skip_host(uri, &p, end, err);
    if (r < 0)
        return r;

    size_t n = resolve_segments(p, end, path);

    r = check_path(uri, path, n, err);
    if (r < 0)
        return r;

    n = percent_decode(path, n);
    if (n > BLY_PATH_MAX)
        return bly_fail_sys(err, ENAMETOOLONG, "path of %zu bytes", n);
    normalise_into(path, n, path);
    *ret_path = bly_take_ptr(&path);
    return 0;
}

int bly_path_from_wire(const char *text, size_t len, char **ret_path, struct bly_err *err)
{
    if (len > 0 && text[0] == '/')
        return from_raw(text, len, ret_path, err);
    return from_uri(text, len, ret_path, err);
}

static bool needs_escape(unsigned char c)
{
    switch (c) {
    case '"':
    case '#':
    case '%':
    case '<':
    case '>':
    case '?':
    case '\\':
    case '`':
    case '{':
    case '}':
        return true;
    default:
        return c <= ' ' || c >= 0x7f;
    }
}

int bly_path_to_uri(struct bly_buf *buf, const char *path)
{
    static const char hex[] = "0123456789ABCDEF";

    bly_buf_add_str(buf, "file://");
    /* "/C:" is a name like any other here, but a URI that says so would be taken for a drive. */
    if (has_drive_letter(path, strlen(path))) {
        bly_buf_printf(buf, "/%c%%%02X", path[1], (unsigned char)path[2]);
        path += 3;
    }
    while (*path) {
        size_t plain = 0;

        while (path[plain] && !needs_escape((unsigned char)path[plain]))
            plain++;
        bly_buf_add(buf, path, plain);
        path += plain;
        if (*path) {
            unsigned char c = (unsigned char)*path++;
            char escaped[3] = {'%', hex[c >> 4], hex[c & 15]};

            bly_buf_add(buf, escaped, sizeof(escaped));
        }
    }
    return buf->error;
}

bool bly_path_is_within(const char *path, const char *dir)
{
    size_t len = strlen(dir);

    if (len == 1)
        return true;
    return strncmp(path, dir, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

int bly_path_compare(const char *a, const char *b)
{
    if (a[1] == '\0' || b[1] == '\0') /* the root is in front of all */
        return (a[1] != '\0') - (b[1] != '\0');
    while (*a == *b && *a != '\0') {
        a++;
        b++;
    }
    if (*a == *b)
        return 0;
    /* A slash is less than every other byte, but for the end. */
    if (*a == '\0' || *b == '\0')
        return *a == '\0' ? -1 : 1;
    if (*a == '/' || *b == '/')
        return *a == '/' ? -1 : 1;
    return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
}

const char *bly_path_holder(const char *const *sorted, size_t n, const char *path)
{
    size_t low = 0, high = n; /* the first one behind `path` */

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (bly_path_compare(sorted[middle], path) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && bly_path_is_within(path, sorted[low - 1]) ? sorted[low - 1] : NULL;
}

char *bly_path_join(const char *dir, const char *rest)
{
    size_t dir_len = strlen(dir);
    size_t rest_len = strlen(rest);
    char *out = malloc(dir_len + rest_len + 3);

    if (!out)
        return NULL;
    memcpy(out, dir, dir_len);
    out[dir_len] = '/';
    memcpy(out + dir_len + 1, rest, rest_len);
    normalise_into(out, dir_len + 1 + rest_len, out);
    return out;
}

size_t bly_path_depth(const char *path)
{
    size_t n = 0;

    if (path[1] == '\0')
        return 0;
    while ((path = strchr(path, '/')) != NULL)
        n++, path++;
    return n;
}

char *bly_path_parent(const char *path)
{
    size_t len = (size_t)(bly_path_base(path) - path);

    return strndup(path, len > 1 ? len - 1 : 1);
}

const char *bly_path_base(const char *path)
{
    return strrchr(path, '/') + 1;
}
