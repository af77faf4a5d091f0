#include "server/http_client_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { REDIRECTS_MAX = 10 };

static void drop_fields(struct bly_http_request *request,
                        bool (*is_dropped)(const struct bly_http_field *))
{
    size_t kept = 0;

    for (size_t i = 0; i < request->n_fields; i++) {
        if (is_dropped(&request->fields[i])) {
            free(request->fields[i].name);
            free(request->fields[i].value);
        } else {
            request->fields[kept++] = request->fields[i];
        }
    }
    request->n_fields = kept;
}

static bool is_secret(const struct bly_http_field *field)
{
    return field->secret;
}

static bool is_about_the_body(const struct bly_http_field *field)
{
    return strncmp(field->name, "content-", strlen("content-")) == 0;
}

/* As browsers do: 303 turns everything into GET, 301 and 302 only POST, 307 and 308 nothing. */
static int become_get(struct bly_http_transfer *t)
{
    const char *method = t->request.method;
    bool posts = strcmp(method, "POST") == 0;
    bool changes = t->status == 303 ? strcmp(method, "HEAD") != 0 : t->status <= 302 && posts;
    char *get;

    if (!changes)
        return 0;
    get = strdup("GET");
    if (!get)
        return -ENOMEM;
    free(t->request.method);
    t->request.method = get;
    t->request.body = NULL;
    t->request.body_len = 0;
    drop_fields(&t->request, is_about_the_body);
    return 0;
}

/* Where to, absolute. */
static int read_target(struct bly_http_transfer *t, char **ret_url, struct bly_err *err)
{
    const char *target = NULL;
    int r;

    (void)t->client->curl->easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &target);
    if (!target)
        return bly_fail(err, BLY_ERR_REMOTE, EBADMSG,
                        "http/request failed: redirect target is not a URL");
    r = bly_http_url(target, strlen(target), ret_url, err);
    if (r == -EPROTONOSUPPORT)
        return bly_fail(err, BLY_ERR_REMOTE, EBADMSG,
                        "http/request failed: redirect target uses unsupported URL scheme: %.*s",
                        (int)strcspn(target, ":"), target);
    if (r == -EINVAL)
        return bly_fail(err, BLY_ERR_REMOTE, EBADMSG,
                        "http/request failed: redirect target is not a URL");
    return r;
}

int bly_http_redirect(struct bly_http_transfer *t, struct bly_err *err)
{
    char *url = NULL;
    int r;

    if (++t->hops > REDIRECTS_MAX)
        return bly_fail(err, BLY_ERR_REMOTE, ELOOP, "http/request failed: too many redirects");
    r = read_target(t, &url, err);
    if (r < 0)
        return r;
    if (!bly_http_same_origin(t->request.url, url))
        drop_fields(&t->request, is_secret);
    free(t->request.url);
    t->request.url = url;
    return become_get(t) < 0 ? bly_http_no_memory(err) : 0;
}
