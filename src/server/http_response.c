#include "server/http_client_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ascii.h"
#include "base/cleanup.h"

enum { RESPONSE_HEAD_MAX = 128 << 10 }; /* bytes of a response's headers */

void bly_http_forget_head(struct bly_http_transfer *t)
{
    bly_http_fields_free(t->fields, t->n_fields);
    t->fields = NULL;
    t->n_fields = t->max_fields = t->head_bytes = 0;
    t->has_location = false;
}

/* One more of the current response; upstream leaves out what is not plain text, and so do we. */
static bool is_plain(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((text[i] < ' ' && text[i] != '\t') || text[i] == 0x7f)
            return false;
    }
    return true;
}

static int add_field(struct bly_http_transfer *t, const char *name, size_t name_len,
                     const char *value, size_t value_len)
{
    struct bly_http_field field = {0};

    if (t->n_fields == t->max_fields) {
        size_t more = t->max_fields ? 2 * t->max_fields : 16;
        struct bly_http_field *fields = reallocarray(t->fields, more, sizeof(*fields));

        if (!fields)
            return bly_http_no_memory(&t->err);
        t->fields = fields;
        t->max_fields = more;
    }
    field.name = strndup(name, name_len);
    field.value = strndup(value, value_len);
    t->fields[t->n_fields++] = field;
    if (!field.name || !field.value)
        return bly_http_no_memory(&t->err);
    for (char *c = field.name; *c; c++)
        *c = bly_ascii_lower(*c);
    if (strcmp(field.name, "location") == 0 && value_len > 0)
        t->has_location = true;
    return 0;
}

/* "Name: value"; anything else, a folded line for one, has no name and is no header. */
static int take_header(struct bly_http_transfer *t, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len);
    const char *value, *end = line + len;
    size_t name_len = colon ? (size_t)(colon - line) : 0;

    if (name_len == 0 || line[0] == ' ' || line[0] == '\t')
        return 0;
    value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r' || end[-1] == '\n'))
        end--;
    if (!is_plain(line, name_len) || !is_plain(value, (size_t)(end - value)))
        return 0;
    return add_field(t, line, name_len, value, (size_t)(end - value));
}

static bool is_redirect(const struct bly_http_transfer *t)
{
    static const unsigned statuses[] = {301, 302, 303, 307, 308};

    for (size_t i = 0; i < BLY_LEN(statuses); i++) {
        if (t->status == statuses[i])
            return t->request.follow && t->has_location;
    }
    return false;
}

/* The empty line: a whole head, which is ours unless it only announces another one. */
static int take_head(struct bly_http_transfer *t)
{
    long status = 0;

    (void)t->client->curl->easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    t->status = (unsigned)status;
    if (t->status < 200)
        return 0;
    if (is_redirect(t)) {
        t->redirecting = true;
        return 0;
    }
    t->headed = true;
    t->events.head(t->arg, t->status, t->fields, t->n_fields);
    /* HEAD with a body of its own had to be sent like POST; its answer ends here all the same. */
    t->aborted = t->request.body && strcmp(t->request.method, "HEAD") == 0;
    return t->aborted ? -ECANCELED : 0;
}

size_t bly_http_on_header(char *line, size_t size, size_t n, void *arg)
{
    struct bly_http_transfer *t = arg;
    size_t len = size * n;
    int r;

    if (t->headed || t->redirecting)
        return len; /* trailers */
    if (len >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        bly_http_forget_head(t);
        return len;
    }
    t->head_bytes += len;
    if (t->head_bytes > RESPONSE_HEAD_MAX)
        r = bly_fail(&t->err, BLY_ERR_LIMIT, EMSGSIZE,
                     "the response has more than %d bytes of headers", RESPONSE_HEAD_MAX);
    else if (line[0] == '\r' || line[0] == '\n')
        r = take_head(t);
    else
        r = take_header(t, line, len);
    return r < 0 ? 0 : len;
}

size_t bly_http_on_body(char *data, size_t size, size_t n, void *arg)
{
    struct bly_http_transfer *t = arg;
    size_t len = size * n;
    int r;

    if (t->redirecting) {
        t->skipped += len;
        return t->skipped > REDIRECT_BODY_MAX ? 0 : len;
    }
    r = t->events.body(t->arg, (const uint8_t *)data, len, &t->err);
    if (r == BLY_HTTP_LATER) {
        t->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    return r < 0 ? 0 : len;
}
