#include "server/http_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "server/http_library.h"

enum {
    REDIRECTS_MAX = 10,
    BUFFER_BYTES = 128 << 10,      /* what one body() may get at a time */
    IDLE_SOCKETS_MAX = 8,          /* kept for the next request to the same host */
    RESPONSE_HEAD_MAX = 128 << 10, /* bytes of a response's headers */
    REDIRECT_BODY_MAX = 64 << 10,  /* bytes that are read and dropped to keep the socket */
    TIMEOUT_MAX_MS = INT32_MAX,    /* as long as libcurl can count */
    URL_SHOWN = 1024,              /* bytes of a URL in an error */
};

LIST_HEAD(transfer_list, bly_http_transfer);
LIST_HEAD(watch_list, watch);

struct bly_http_client {
    struct bly_http_client_config config;
    const struct bly_http_library *curl;
    CURLM *multi;
    uv_timer_t timer;
    struct transfer_list transfers;
    struct watch_list watches;
    size_t n_handles; /* libuv still holds */
};

/* A socket of libcurl that the loop watches. */
struct watch {
    uv_poll_t poll;
    struct bly_http_client *client;
    LIST_ENTRY(watch) link;
    int events; /* that libcurl waits for, UV_READABLE and UV_WRITABLE */
    bool held;  /* not watched until the transfers are resumed */
};

struct bly_http_transfer {
    struct bly_http_client *client;
    LIST_ENTRY(bly_http_transfer) link;
    struct bly_http_events events;
    void *arg;
    struct bly_http_request request; /* of the current hop; owned */
    char *body;                      /* owned; request.body points to it while it is sent */
    uint64_t deadline;               /* loop time, UINT64_MAX: none */
    unsigned hops;

    /* The current hop. */
    CURL *easy;
    curl_socket_t socket; /* the last one libcurl began to watch for it */
    struct curl_slist *headers;
    unsigned status;
    struct bly_http_field *fields; /* of the response, room for `max_fields` */
    size_t n_fields, max_fields, head_bytes, skipped;
    bool has_location, redirecting, headed, paused, aborted;
    char why[CURL_ERROR_SIZE];

    struct bly_err err; /* set by an event or a check of ours; kind NONE: nothing */
};

static int no_memory(struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void client_unref(struct bly_http_client *client)
{
    if (--client->n_handles == 0)
        free(client);
}

static void finish_transfers(struct bly_http_client *client);

static void act(struct bly_http_client *client, curl_socket_t fd, int events)
{
    int running;

    (void)client->curl->multi_socket_action(client->multi, fd, events, &running);
    finish_transfers(client);
}

static void on_timer(uv_timer_t *timer)
{
    act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timeout_change(CURLM *multi, long timeout_ms, void *arg)
{
    struct bly_http_client *client = arg;

    (void)multi;
    if (timeout_ms < 0)
        (void)uv_timer_stop(&client->timer);
    else
        (void)uv_timer_start(&client->timer, on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *watch = (struct watch *)(void *)handle;

    client_unref(watch->client);
    free(watch);
}

static bool is_paused(const struct bly_http_client *client, curl_socket_t fd)
{
    struct bly_http_transfer *t;

    LIST_FOREACH(t, &client->transfers, link)
    if (t->paused && t->socket == fd)
        return true;
    return false;
}

/*
 * libcurl 8.5 (of Ubuntu 24.04) goes on waiting for the socket of a paused transfer, and reads what
 * it is told about into memory of its own: it is not told.
 */
static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = (struct watch *)(void *)poll;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0;
    uv_os_fd_t fd = -EBADF;

    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    (void)uv_fileno((uv_handle_t *)poll, &fd);
    if (is_paused(watch->client, fd)) {
        watch->held = true;
        (void)uv_poll_stop(poll);
        return;
    }
    act(watch->client, fd, flags);
}

static struct watch *watch_new(struct bly_http_client *client, curl_socket_t fd)
{
    struct watch *watch = calloc(1, sizeof(*watch));

    if (!watch || uv_poll_init_socket(client->config.loop, &watch->poll, fd) < 0) {
        free(watch);
        return NULL;
    }
    watch->client = client;
    client->n_handles++;
    LIST_INSERT_HEAD(&client->watches, watch, link);
    (void)client->curl->multi_assign(client->multi, fd, watch);
    return watch;
}

static void watch_close(struct watch *watch)
{
    LIST_REMOVE(watch, link);
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

static int watch_start(struct watch *watch)
{
    watch->held = false;
    return uv_poll_start(&watch->poll, watch->events, on_ready);
}

/* libcurl wants to know about `fd` from now on, something else, or nothing any more. */
static int on_socket_change(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct bly_http_client *client = arg;
    struct watch *watch = socket_arg;
    struct bly_http_transfer *t = NULL;

    if (what == CURL_POLL_REMOVE) {
        if (watch)
            watch_close(watch);
        (void)client->curl->multi_assign(client->multi, fd, NULL);
        return 0;
    }
    if (!watch)
        watch = watch_new(client, fd);
    if (!watch)
        return -1; /* fails the transfers */
    /* A handle of libcurl's own, for connections that are shut down, has no transfer. */
    (void)client->curl->easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
    if (t)
        t->socket = fd;
    watch->events = 0;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
        watch->events |= UV_READABLE;
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
        watch->events |= UV_WRITABLE;
    return watch_start(watch) < 0 ? -1 : 0;
}

/* ---- what comes back ------------------------------------------------------------------------ */

static void forget_head(struct bly_http_transfer *t)
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
            return no_memory(&t->err);
        t->fields = fields;
        t->max_fields = more;
    }
    field.name = strndup(name, name_len);
    field.value = strndup(value, value_len);
    t->fields[t->n_fields++] = field;
    if (!field.name || !field.value)
        return no_memory(&t->err);
    for (char *c = field.name; *c; c++) {
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c - 'A' + 'a');
    }
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

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    struct bly_http_transfer *t = arg;
    size_t len = size * n;
    int r;

    if (t->headed || t->redirecting)
        return len; /* trailers */
    if (len >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        forget_head(t);
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

static size_t on_body(char *data, size_t size, size_t n, void *arg)
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

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)arg;
    (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* ---- what goes out -------------------------------------------------------------------------- */

static void end_hop(struct bly_http_transfer *t)
{
    const struct bly_http_library *curl = t->client->curl;

    if (t->easy) {
        (void)curl->multi_remove_handle(t->client->multi, t->easy);
        curl->easy_cleanup(t->easy);
    }
    curl->slist_free_all(t->headers);
    forget_head(t);
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
    (void)curl->easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl->easy_setopt(easy, CURLOPT_HEADERDATA, t);
    (void)curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
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
        return no_memory(err);
    set_options(t, t->deadline - now);
    if (!set_request(t) || t->client->curl->multi_add_handle(t->client->multi, t->easy) != CURLM_OK)
        return no_memory(err);
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

/* ---- redirects ------------------------------------------------------------------------------ */

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

static int follow(struct bly_http_transfer *t, struct bly_err *err)
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
    if (become_get(t) < 0)
        return no_memory(err);
    end_hop(t);
    return begin_hop(t, err);
}

/* ---- the end -------------------------------------------------------------------------------- */

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

/* ---- for others ----------------------------------------------------------------------------- */

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
    (void)client->curl->multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket_change);
    (void)client->curl->multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    (void)client->curl->multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_timeout_change);
    (void)client->curl->multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    (void)client->curl->multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)IDLE_SOCKETS_MAX);
    *ret_client = client;
    return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
    client_unref(handle->data);
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
    struct watch *watch;

    /* Nothing ends in here: that comes with the timer, which libcurl sets now. */
    LIST_FOREACH(t, &client->transfers, link)
    if (t->paused) {
        t->paused = false;
        (void)client->curl->easy_pause(t->easy, CURLPAUSE_CONT);
    }
    LIST_FOREACH(watch, &client->watches, link)
    if (watch->held)
        (void)watch_start(watch);
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
        return no_memory(err);
    t->client = client;
    t->socket = CURL_SOCKET_BAD;
    t->events = *events;
    t->arg = arg;
    LIST_INSERT_HEAD(&client->transfers, t, link);
    if (__builtin_add_overflow(uv_now(client->config.loop), request->timeout_ms, &t->deadline))
        t->deadline = UINT64_MAX;
    r = copy_request(t, request) < 0 ? no_memory(err) : begin_hop(t, err);
    if (r < 0)
        transfer_free(t);
    return r;
}
