#include "transport/transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/err.h"
#include "transport/auth.h"
#include "transport/conn.h"

enum { BACKLOG = 1024 };

struct bly_listener {
    struct bly_endpoint *endpoint;
    uv_tcp_t tcp;
    char url[INET6_ADDRSTRLEN + 32];
    void (*done)(void *arg);
    void *done_arg;
};

union address {
    struct sockaddr any;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
};

static int parse_port(const char *text, uint16_t *ret_port)
{
    unsigned long port = 0;

    if (!*text || strlen(text) > 5)
        return -EINVAL;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        port = port * 10 + (unsigned long)(*text - '0');
    }
    if (port > UINT16_MAX)
        return -EINVAL;
    *ret_port = (uint16_t)port;
    return 0;
}

/* "IP:PORT" or "[IPV6]:PORT". */
static int parse_address(const char *text, union address *ret_address)
{
    const char *colon = strrchr(text, ':');
    union address address = {0};
    char ip[INET6_ADDRSTRLEN];
    size_t len = colon ? (size_t)(colon - text) : 0;
    bool is_v6 = text[0] == '[';
    uint16_t port;

    if (!colon || parse_port(colon + 1, &port) < 0)
        return -EINVAL;
    if (is_v6) {
        if (len < 2 || text[len - 1] != ']')
            return -EINVAL;
        text++;
        len -= 2;
    }
    if (len >= sizeof(ip))
        return -EINVAL;
    memcpy(ip, text, len);
    ip[len] = '\0';

    if (is_v6) {
        address.in6.sin6_family = AF_INET6;
        address.in6.sin6_port = htons(port);
        if (inet_pton(AF_INET6, ip, &address.in6.sin6_addr) != 1)
            return -EINVAL;
    } else {
        address.in4.sin_family = AF_INET;
        address.in4.sin_port = htons(port);
        if (inet_pton(AF_INET, ip, &address.in4.sin_addr) != 1)
            return -EINVAL;
    }
    *ret_address = address;
    return 0;
}

static int parse_url(const char *url, union address *ret_address, struct bly_err *err)
{
    static const char scheme[] = "ws://";
    size_t len = sizeof(scheme) - 1;

    if (strncmp(url, scheme, len) != 0)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "unsupported --listen URL `%s`; expected `ws://IP:PORT` or `stdio`", url);
    if (parse_address(url + len, ret_address) < 0)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "invalid websocket --listen URL `%s`; expected `ws://IP:PORT`", url);
    return 0;
}

static void on_connection(uv_stream_t *server, int status)
{
    struct bly_listener *listener = server->data;

    /* What cannot be accepted is the peer's problem: it sees its connection end. */
    if (status == 0)
        (void)bly_conn_accept(listener->endpoint, server);
}

static int name_listener(struct bly_listener *listener)
{
    union address address = {0};
    char ip[INET6_ADDRSTRLEN];
    int len = sizeof(address);
    int r = uv_tcp_getsockname(&listener->tcp, &address.any, &len);

    if (r < 0)
        return r;
    if (address.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &address.in6.sin6_addr, ip, sizeof(ip));
        snprintf(listener->url, sizeof(listener->url), "ws://[%s]:%u", ip,
                 ntohs(address.in6.sin6_port));
    } else {
        inet_ntop(AF_INET, &address.in4.sin_addr, ip, sizeof(ip));
        snprintf(listener->url, sizeof(listener->url), "ws://%s:%u", ip,
                 ntohs(address.in4.sin_port));
    }
    return 0;
}

static int listen_on(struct bly_listener *listener, const union address *address)
{
    /* libuv sets SO_REUSEADDR, and reports an address in use only when listening. */
    int r = uv_tcp_bind(&listener->tcp, &address->any, 0);

    if (r == 0)
        r = uv_listen((uv_stream_t *)&listener->tcp, BACKLOG, on_connection);
    return r == 0 ? name_listener(listener) : r;
}

static struct bly_endpoint *endpoint_new(uv_loop_t *loop, const struct bly_limits *limits,
                                         const struct bly_transport_ops *ops, void *arg)
{
    struct bly_endpoint *endpoint = calloc(1, sizeof(*endpoint));

    if (!endpoint)
        return NULL;
    endpoint->loop = loop;
    endpoint->limits = limits;
    endpoint->ops = *ops;
    endpoint->arg = arg;
    return bly_endpoint_ref(endpoint);
}

static void on_closed(uv_handle_t *handle)
{
    struct bly_listener *listener = handle->data;
    void (*done)(void *arg) = listener->done;
    void *done_arg = listener->done_arg;

    bly_endpoint_unref(listener->endpoint);
    free(listener);
    if (done)
        done(done_arg);
}

int bly_listener_open(uv_loop_t *loop, const char *url, const struct bly_limits *limits,
                      const struct bly_transport_ops *ops, void *arg,
                      struct bly_listener **ret_listener, struct bly_err *err)
{
    struct bly_listener *listener;
    union address address;
    int r = 0;

    if (strcmp(url, "stdio") == 0 || strcmp(url, "stdio://") == 0)
        r = bly_auth_admit_listener(ops->auth, NULL, url, err);
    if (r == 0)
        r = parse_url(url, &address, err);
    if (r == 0)
        r = bly_auth_admit_listener(ops->auth, &address.any, url, err);
    if (r < 0)
        return r;

    listener = calloc(1, sizeof(*listener));
    if (!listener)
        return bly_fail_sys(err, ENOMEM, "cannot listen");
    listener->endpoint = endpoint_new(loop, limits, ops, arg);
    if (!listener->endpoint) {
        free(listener);
        return bly_fail_sys(err, ENOMEM, "cannot listen");
    }

    /* libuv writes with writev(2), which raises SIGPIPE when a client has gone. */
    signal(SIGPIPE, SIG_IGN);
    uv_tcp_init(loop, &listener->tcp);
    listener->tcp.data = listener;
    r = listen_on(listener, &address);
    if (r < 0) {
        bly_listener_close(listener, NULL, NULL);
        return bly_fail(err, BLY_ERR_SYSTEM, -r, "%s (os error %d)", bly_errno_text(-r), -r);
    }
    *ret_listener = listener;
    return 0;
}

const char *bly_listener_url(const struct bly_listener *listener)
{
    return listener->url;
}

void bly_listener_close(struct bly_listener *listener, void (*done)(void *arg), void *arg)
{
    listener->done = done;
    listener->done_arg = arg;
    uv_close((uv_handle_t *)&listener->tcp, on_closed);
}
