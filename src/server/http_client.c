#include "server/http_client_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

enum {
    BUFFER_BYTES = 128 << 10,   /* what one body() may get at a time */
    IDLE_SOCKETS_MAX = 8,       /* kept for the next request to the same host */
    TIMEOUT_MAX_MS = INT32_MAX, /* as long as libcurl can count */
    URL_SHOWN = 1024,           /* bytes of a URL in an error */
};

int bly_http_no_memory(struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
}

/* ---- what goes out -------------------------------------------------------------------------- */

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)arg;
    (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static void end_hop(struct bly_http_transfer *t)
{
    const struct bly_http_library *curl = t->client->curl;

    if (t->easy) {
        (void)curl->multi_remove_handle(t->client->multi, t->easy);
        curl->easy_cleanup(t->easy);
    }
    curl->slist_free_all(t->headers);
    bly_http_forget_head(t);
    t->easy = NULL;
    t->socket = CURL_SOCKET_BAD;
    t->headers = NULL;
    t->skipped = 0;
    t->why[0] = '\0';
    t->redirecting = t->paused = false;
}

static bool add_line(struct bly_http_transfer *t, const char *line)
{
    struct curl_slist *list = t->client->curl->slist_append(t->headers, line);

    if (list)
        t->headers = list;
    return list != NULL;
}

/* libcurl's way to write them: "name;" is an empty one, "name:" takes away one of its own. */
static bool add_headers(struct bly_http_transfer *t)
{
    if (!add_line(t, "Expect:") || !add_line(t, "Content-Type:"))
        return false;
    for (size_t i = 0; i < t->request.n_fields; i++) {
        const struct bly_http_field *field = &t->request.fields[i];
        bool empty = field->value[strspn(field->value, " \t")] == '\0';
        bly_autofree char *line = NULL;

        if (asprintf(&line, empty ? "%s;" : "%s: %s", field->name, field->value) < 0) {
            line = NULL;
            return false;
        }
        if (!add_line(t, line))
            return false;
    }
    return true;
}

/*
 * What upstream takes from the environment libcurl takes too, but for one variable: libcurl leaves
 * HTTP_PROXY to CGI programs, where a client can set it.
 */
static const char *proxy_for(const char *url)
{
    /* NOLINTBEGIN(concurrency-mt-unsafe): nobody changes the environment */
    bool plain = strncmp(url, "http:", 5) == 0;

    return plain && !getenv("http_proxy") ? getenv("HTTP_PROXY") : NULL;
    /* NOLINTEND(concurrency-mt-unsafe) */
}

static void set_options(struct bly_http_transfer *t, uint64_t timeout_ms)
{
    const struct bly_http_client_config *config = &t->client->config;
    const struct bly_http_library *curl = t->client->curl;
    const char *proxy = proxy_for(t->request.url);
    CURL *easy = t->easy;

    (void)curl->easy_setopt(easy, CURLOPT_PRIVATE, t);
    (void)curl->easy_setopt(easy, CURLOPT_ERRORBUFFER, t->why);
    (void)curl->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl->easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* no waiting for a lookup's thread */
    (void)curl->easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl->easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    (void)curl->easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl->easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)curl->easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    (void)curl->easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    (void)curl->easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    (void)curl->easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    (void)curl->easy_setopt(easy, CURLOPT_HEADERFUNCTION, bly_http_on_header);
    (void)curl->easy_setopt(easy, CURLOPT_HEADERDATA, t);
    (void)curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, bly_http_on_body);
    (void)curl->easy_setopt(easy, CURLOPT_WRITEDATA, t);
    (void)curl->easy_setopt(
        easy, CURLOPT_CONNECTTIMEOUT_MS,
        (long)(config->connect_ms < TIMEOUT_MAX_MS ? config->connect_ms : TIMEOUT_MAX_MS));
    if (timeout_ms <= TIMEOUT_MAX_MS)
        (void)curl->easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    if (config->ca_file)
        (void)curl->easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
    if (proxy)
        (void)curl->easy_setopt(easy, CURLOPT_PROXY, proxy);
}

/* Method, URL, headers and body: what can fail for lack of memory. */
static bool set_request(struct bly_http_transfer *t)
{
    const struct bly_http_library *curl = t->client->curl;
    const struct bly_http_request *request = &t->request;
    CURLcode r = curl->easy_setopt(t->easy, CURLOPT_URL, request->url);

    if (r == CURLE_OK && request->body) {
        (void)curl->easy_setopt(t->easy, CURLOPT_POSTFIELDS, request->body);
        (void)curl->easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE,
                                (curl_off_t)request->body_len);
    }
    if (r == CURLE_OK && !request->body && strcmp(request->method, "HEAD") == 0)
        r = curl->easy_setopt(t->easy, CURLOPT_NOBODY, 1L);
    else if (r == CURLE_OK)
        r = curl->easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, request->method);
    return r == CURLE_OK && add_headers(t) &&
           curl->easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers) == CURLE_OK;
}

static int begin_hop(struct bly_http_transfer *t, struct bly_err *err)
{
    uint64_t now = uv_now(t->client->config.loop);

    if (t->deadline <= now)
        return bly_fail(err, BLY_ERR_REMOTE, ETIMEDOUT, "http/request failed: request timed out");
    t->easy = t->client->curl->easy_init();
    if (!t->easy)
        return bly_http_no_memory(err);
    set_options(t, t->deadline - now);
    if (!set_request(t) || t->client->curl->multi_add_handle(t->client->multi, t->easy) != CURLM_OK)
        return bly_http_no_memory(err);
    return 0;
}

static void transfer_free(struct bly_http_transfer *t)
{
    end_hop(t);
    LIST_REMOVE(t, link);
    free(t->body);
    bly_http_request_deinit(&t->request);
    free(t);
}

/* ---- the end -------------------------------------------------------------------------------- */

static int follow(struct bly_http_transfer *t, struct bly_err *err)
{
    int r = bly_http_redirect(t, err);

    if (r < 0)
        return r;
    end_hop(t);
    return begin_hop(t, err);
}

static int say_why(const struct bly_http_transfer *t, CURLcode code, struct bly_err *err)
{
    const char *why = t->why[0] ? t->why : t->client->curl->easy_strerror(code);
    const char *url = t->request.url;

    if (t->err.kind != BLY_ERR_NONE)
        why = t->err.text;
    if (t->headed)
        return bly_fail(err, BLY_ERR_REMOTE, EIO, "error decoding response body: %s", why);
    return bly_fail(err, BLY_ERR_REMOTE, EIO,
                    "http/request failed: error sending request for url (%.*s://%.*s): %s",
                    (int)strcspn(url, ":"), url, URL_SHOWN, bly_http_url_host(url), why);
}

static void finish(struct bly_http_transfer *t, CURLcode code)
{
    bool skipped = t->redirecting && (code == CURLE_OK || t->skipped > REDIRECT_BODY_MAX);
    bool complete = t->headed && (code == CURLE_OK || t->aborted);
    struct bly_err err;
    int r = 0;

    bly_err_clear(&err);
    if (skipped)
        r = follow(t, &err);
    else if (!complete)
        r = say_why(t, code, &err);
    if (skipped && r == 0)
        return;
    t->events.done(t->arg, r < 0 ? &err : NULL);
    transfer_free(t);
}

static void finish_transfers(struct bly_http_client *client)
{
    CURLMsg *message;
    int left;

    while ((message = client->curl->multi_info_read(client->multi, &left))) {
        CURLcode code = message->data.result;
        struct bly_http_transfer *t = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        (void)client->curl->easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        finish(t, code);
    }
}

void bly_http_client_act(struct bly_http_client *client, curl_socket_t fd, int events)
{
    int running;

    (void)client->curl->multi_socket_action(client->multi, fd, events, &running);
    finish_transfers(client);
}

/* ---- for others ----------------------------------------------------------------------------- */

void bly_http_client_unref(struct bly_http_client *client)
{
    if (--client->n_handles == 0)
        free(client);
}

int bly_http_client_new(const struct bly_http_client_config *config,
                        struct bly_http_client **ret_client)
{
    struct bly_http_client *client = calloc(1, sizeof(*client));

    if (!client)
        return -ENOMEM;
    client->config = *config;
    client->curl = config->library;
    LIST_INIT(&client->transfers);
    LIST_INIT(&client->watches);
    client->multi = client->curl->multi_init();
    if (!client->multi) {
        free(client);
        return -ENOMEM;
    }
    (void)uv_timer_init(config->loop, &client->timer);
    client->timer.data = client;
    client->n_handles = 1;
    (void)client->curl->multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION,
                                     bly_http_on_socket_change);
    (void)client->curl->multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    (void)client->curl->multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION,
                                     bly_http_on_timeout_change);
    (void)client->curl->multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    (void)client->curl->multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)IDLE_SOCKETS_MAX);
    *ret_client = client;
    return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
    bly_http_client_unref(handle->data);
}

void bly_http_client_close(struct bly_http_client *client)
{
    if (!client)
        return;
    while (!LIST_EMPTY(&client->transfers))
        transfer_free(LIST_FIRST(&client->transfers));
    (void)client->curl->multi_cleanup(client->multi); /* takes its sockets from the loop */
    uv_close((uv_handle_t *)&client->timer, on_timer_closed);
}

void bly_http_client_resume(struct bly_http_client *client)
{
    struct bly_http_transfer *t;

    /* Nothing ends in here: that comes with the timer, which libcurl sets now. */
    LIST_FOREACH(t, &client->transfers, link)
    if (t->paused) {
        t->paused = false;
        (void)client->curl->easy_pause(t->easy, CURLPAUSE_CONT);
    }
    bly_http_poll_resume(client);
}

static int copy_body(struct bly_http_transfer *t, const struct bly_http_request *from)
{
    if (!from->body)
        return 0;
    t->body = malloc(from->body_len + 1);
    if (!t->body)
        return -ENOMEM;
    memcpy(t->body, from->body, from->body_len);
    t->request.body = t->body;
    return 0;
}

static int copy_request(struct bly_http_transfer *t, const struct bly_http_request *from)
{
    struct bly_http_request *to = &t->request;

    *to = *from;
    to->n_fields = 0;
    to->body = NULL;
    to->method = strdup(from->method);
    to->url = strdup(from->url);
    to->fields = calloc(from->n_fields + 1, sizeof(*to->fields));
    if (!to->method || !to->url || !to->fields || copy_body(t, from) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < from->n_fields; i++) {
        struct bly_http_field *field = &to->fields[to->n_fields++];

        field->name = strdup(from->fields[i].name);
        field->value = strdup(from->fields[i].value);
        field->secret = from->fields[i].secret;
        if (!field->name || !field->value)
            return -ENOMEM;
    }
    return 0;
}

int bly_http_start(struct bly_http_client *client, const struct bly_http_request *request,
                   const struct bly_http_events *events, void *arg, struct bly_err *err)
{
    struct bly_http_transfer *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return bly_http_no_memory(err);
    t->client = client;
    t->socket = CURL_SOCKET_BAD;
    t->events = *events;
    t->arg = arg;
    LIST_INSERT_HEAD(&client->transfers, t, link);
    if (__builtin_add_overflow(uv_now(client->config.loop), request->timeout_ms, &t->deadline))
        t->deadline = UINT64_MAX;
    r = copy_request(t, request) < 0 ? bly_http_no_memory(err) : begin_hop(t, err);
    if (r < 0)
        transfer_free(t);
    return r;
}
