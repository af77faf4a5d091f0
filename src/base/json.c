#include "base/json.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"

_Static_assert(BLY_JSON_PADDING >= YYJSON_PADDING_SIZE, "yyjson wants more padding");

/* ---- limits ---- */

static int too_deep(struct bly_err *err)
{
    (void)bly_fail(err, BLY_ERR_INVALID, EBADMSG, "recursion limit exceeded");
    return -EBADMSG;
}

static int too_many(struct bly_err *err)
{
    (void)bly_fail(err, BLY_ERR_INVALID, EBADMSG,
                   "JSON-RPC message exceeds the limit of %d JSON values", BLY_JSON_MAX_VALUES);
    return -EBADMSG;
}

/* The byte behind the string whose opening quote is at `p`. */
static const char *skip_string(const char *p, const char *end)
{
    const char *start = p + 1;

    for (p = start; (p = memchr(p, '"', (size_t)(end - p))) != NULL; p++) {
        const char *q = p;

        while (q > start && q[-1] == '\\')
            q--;
        if ((p - q) % 2 == 0)
            return p + 1;
    }
    return end;
}

/*
 * Counts values before the parser allocates 16 bytes for each of them: a container has one more
 * than it has commas, unless it is empty. Exact for valid JSON, and what is not valid is refused
 * later. A text of n bytes has at most n values, so short messages skip this.
 */
static int count_values(const char *p, size_t len, struct bly_err *err)
{
    const char *end = p + len;
    size_t values = 1;
    bool opened = false; /* the last token was an opening bracket */

    while (p < end) {
        char c = *p;

        if (c == ' ' || c == '\n' || c == '\r' || c == '\t') {
            p++;
            continue;
        }
        values += c == ',';
        values += opened && c != ']' && c != '}';
        if (values > BLY_JSON_MAX_VALUES)
            return too_many(err);
        opened = c == '[' || c == '{';
        p = c == '"' ? skip_string(p, end) : p + 1;
    }
    return 0;
}

/* ---- duplicate keys ---- */

enum { FEW_KEYS = 16 };

static bool same_text(yyjson_val *a, yyjson_val *b)
{
    size_t len = yyjson_get_len(a);

    return len == yyjson_get_len(b) && memcmp(yyjson_get_str(a), yyjson_get_str(b), len) == 0;
}

static yyjson_val *find_duplicate_of_few(yyjson_val *obj)
{
    yyjson_val *keys[FEW_KEYS];
    size_t n = 0;
    size_t index, max;
    yyjson_val *key, *val;

    yyjson_obj_foreach (obj, index, max, key, val) {
        for (size_t i = 0; i < n; i++) {
            if (same_text(keys[i], key))
                return key;
        }
        keys[n++] = key;
    }
    return NULL;
}

/* A key with its first bytes at hand, so that sorting rarely has to look at the text. */
struct sort_key {
    uint64_t head;
    size_t len;
    yyjson_val *key;
};

static int compare_keys(const void *left, const void *right)
{
    const struct sort_key *a = left;
    const struct sort_key *b = right;

    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    if (a->head != b->head)
        return a->head < b->head ? -1 : 1;
    if (a->len <= sizeof(a->head))
        return 0;
    return memcmp(yyjson_get_str(a->key), yyjson_get_str(b->key), a->len);
}

/* Sorts rather than hashes: no choice of keys makes it slow. */
static int find_duplicate_of_many(yyjson_val *obj, yyjson_val **ret_key)
{
    size_t n = yyjson_obj_size(obj);
    bly_autofree struct sort_key *keys = calloc(n, sizeof(*keys));
    size_t index, max;
    yyjson_val *key, *val;

    if (!keys)
        return -ENOMEM;
    yyjson_obj_foreach (obj, index, max, key, val) {
        struct sort_key *k = &keys[index];

        k->key = key;
        k->len = yyjson_get_len(key);
        memcpy(&k->head, yyjson_get_str(key), k->len < sizeof(k->head) ? k->len : sizeof(k->head));
    }
    qsort(keys, n, sizeof(*keys), compare_keys);
    for (size_t i = 1; i < n; i++) {
        if (compare_keys(&keys[i - 1], &keys[i]) == 0) {
            *ret_key = keys[i].key;
            return 0;
        }
    }
    return 0;
}

static int check_keys(yyjson_val *obj, struct bly_err *err)
{
    yyjson_val *key = NULL;
    int r = 0;

    if (yyjson_obj_size(obj) <= FEW_KEYS)
        key = find_duplicate_of_few(obj);
    else
        r = find_duplicate_of_many(obj, &key);
    if (r < 0)
        return r;
    if (!key)
        return 0;
    (void)bly_fail(err, BLY_ERR_INVALID, EBADMSG, "duplicate JSON object key `%.256s`",
                   yyjson_get_str(key));
    return -EBADMSG;
}

/* ---- reading ---- */

/* Depth and keys of a container and all below it; `depth` counts it. */
static int check_container(yyjson_val *container, int depth, struct bly_err *err)
{
    size_t index, max;
    yyjson_val *key, *val;
    int r = 0;

    if (depth > BLY_JSON_MAX_DEPTH)
        return too_deep(err);
    if (yyjson_is_arr(container)) {
        yyjson_arr_foreach (container, index, max, val) {
            if (yyjson_is_ctn(val) && (r = check_container(val, depth + 1, err)) < 0)
                return r;
        }
        return 0;
    }

    r = check_keys(container, err);
    if (r < 0)
        return r;
    yyjson_obj_foreach (container, index, max, key, val) {
        if (yyjson_is_ctn(val) && (r = check_container(val, depth + 1, err)) < 0)
            return r;
    }
    return 0;
}

/*
 * Line and column of a fault. Strings before it have been decoded in place, so a line can only come
 * out too high, when one of them had an escaped line break.
 */
static int syntax_error(const char *text, size_t len, const yyjson_read_err *fault,
                        struct bly_err *err)
{
    size_t line = 1;
    size_t column = 0;
    size_t pos = fault->pos < len ? fault->pos : len;

    if (fault->code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        return -ENOMEM;
    for (const char *p = text; p < text + pos; p++) {
        column = *p == '\n' ? 0 : column + 1;
        line += *p == '\n';
    }
    (void)bly_fail(err, BLY_ERR_INVALID, EBADMSG, "%s at line %zu column %zu",
                   len == 0 ? "end of input where a value is expected" : fault->msg, line,
                   column + 1);
    return -EBADMSG;
}

static int read_text(char *text, size_t len, yyjson_read_flag flags, yyjson_doc **ret_doc,
                     struct bly_err *err)
{
    yyjson_read_err fault = {0};
    int r = len > BLY_JSON_MAX_VALUES ? count_values(text, len, err) : 0;

    if (r < 0)
        return r;

    yyjson_doc *doc = yyjson_read_opts(text, len, flags, NULL, &fault);

    if (!doc)
        return syntax_error(text, len, &fault, err);

    yyjson_val *root = yyjson_doc_get_root(doc);

    if (yyjson_is_ctn(root))
        r = check_container(root, 1, err);
    if (r < 0) {
        yyjson_doc_free(doc);
        return r;
    }
    *ret_doc = doc;
    return 0;
}

int bly_json_read(char *text, size_t len, yyjson_doc **ret_doc, struct bly_err *err)
{
    return read_text(text, len, YYJSON_READ_INSITU, ret_doc, err);
}

int bly_json_read_copy(const char *text, size_t len, yyjson_doc **ret_doc, struct bly_err *err)
{
    /* Without the in-situ flag yyjson copies the text and does not write to it. */
    return read_text((char *)(uintptr_t)text, len, YYJSON_READ_NOFLAG, ret_doc, err);
}

/* ---- writing ---- */

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static bool is_tail(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

/*
 * Length of the UTF-8 character at `p`, `n` bytes left; `*ret_valid` tells whether it is one. When
 * not, the length is that of the longest beginning of a character, at least 1: what one U+FFFD
 * stands for.
 */
static size_t utf8_len(const unsigned char *p, size_t n, bool *ret_valid)
{
    size_t want;
    unsigned char low = 0x80; /* bounds of the second byte: no overlong forms, no surrogates */
    unsigned char high = 0xbf;

    *ret_valid = false;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        want = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        want = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        want = 4;
    else
        return 1;
    if (p[0] == 0xe0)
        low = 0xa0;
    if (p[0] == 0xed)
        high = 0x9f;
    if (p[0] == 0xf0)
        low = 0x90;
    if (p[0] == 0xf4)
        high = 0x8f;

    if (n < 2 || p[1] < low || p[1] > high)
        return 1;
    for (size_t i = 2; i < want; i++) {
        if (i >= n || !is_tail(p[i]))
            return i;
    }
    *ret_valid = true;
    return want;
}

size_t bly_json_utf8_len(const char *str, size_t len, size_t *ret_bad)
{
    const unsigned char *start = (const unsigned char *)str, *end = start + len, *p = start;

    *ret_bad = 0;
    while (p < end) {
        bool valid = *p < 0x80;
        size_t n = valid ? 1 : utf8_len(p, (size_t)(end - p), &valid);
        bool cut_off = p + n == end && *p >= 0xc2 && *p <= 0xf4;

        if (!valid) {
            *ret_bad = cut_off ? 0 : n;
            break;
        }
        p += n;
    }
    return (size_t)(p - start);
}

bool bly_json_is_text(const char *str)
{
    size_t len = strlen(str), bad;

    return bly_json_utf8_len(str, len, &bad) == len;
}

/* Appends the one character at `p` that cannot be copied as it is; returns its length. */
static size_t add_special(struct bly_buf *buf, const unsigned char *p, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    static const char from[] = "\"\\\b\f\n\r\t";
    static const char to[] = "\"\\bfnrt";
    bool valid;

    if (*p >= 0x80) {
        size_t len = utf8_len(p, n, &valid);

        if (valid)
            bly_buf_add(buf, p, len);
        else
            bly_buf_add_str(buf, "\xef\xbf\xbd");
        return len;
    }

    const char *named = memchr(from, *p, sizeof(from) - 1);

    if (named) {
        char escaped[2] = {'\\', to[named - from]};

        bly_buf_add(buf, escaped, sizeof(escaped));
    } else {
        char escaped[6] = {'\\', 'u', '0', '0', hex[*p >> 4], hex[*p & 15]};

        bly_buf_add(buf, escaped, sizeof(escaped));
    }
    return 1;
}

int bly_json_add_str(struct bly_buf *buf, const char *str, size_t len)
{
    const unsigned char *p = (const unsigned char *)str;
    const unsigned char *end = p + len;

    bly_buf_add_char(buf, '"');
    while (p < end && !buf->error) {
        const unsigned char *run = p;

        while (p < end && is_plain(*p))
            p++;
        bly_buf_add(buf, run, (size_t)(p - run));
        if (p < end)
            p += add_special(buf, p, (size_t)(end - p));
    }
    return bly_buf_add_char(buf, '"');
}

int bly_json_add_cstr(struct bly_buf *buf, const char *str)
{
    return bly_json_add_str(buf, str, strlen(str));
}

int bly_json_add_u64(struct bly_buf *buf, uint64_t v)
{
    char digits[20];
    size_t n = sizeof(digits);

    do {
        digits[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    return bly_buf_add(buf, digits + n, sizeof(digits) - n);
}

int bly_json_add_i64(struct bly_buf *buf, int64_t v)
{
    if (v < 0) {
        bly_buf_add_char(buf, '-');
        return bly_json_add_u64(buf, 0 - (uint64_t)v);
    }
    return bly_json_add_u64(buf, (uint64_t)v);
}
