#include "server/http_client_internal.h"

#include <errno.h>
#include <stdlib.h>

/* A socket of libcurl that the loop watches. */
struct watch {
    uv_poll_t poll;
    struct bly_http_client *client;
    LIST_ENTRY(watch) link;
    int events; /* that libcurl waits for, UV_READABLE and UV_WRITABLE */
    bool held;  /* not watched until the transfers are resumed */
};

static void on_timer(uv_timer_t *timer)
{
    bly_http_client_act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

int bly_http_on_timeout_change(CURLM *multi, long timeout_ms, void *arg)
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

    bly_http_client_unref(watch->client);
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
    bly_http_client_act(watch->client, fd, flags);
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
int bly_http_on_socket_change(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
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

void bly_http_poll_resume(struct bly_http_client *client)
{
    struct watch *watch;

    LIST_FOREACH(watch, &client->watches, link)
    if (watch->held)
        (void)watch_start(watch);
}
