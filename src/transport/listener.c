#include "transport/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "transport/address.h"
#include "transport/auth.h"
#include "transport/conn.h"
#include "transport/pump.h"
#include "transport/unix_socket.h"

enum {
    BACKLOG = 1024,
    OUTPUT_PATIENCE_MS = 2000, /* for whoever reads our standard output, each time he stops */
};

struct bly_listener {
    struct bly_endpoint *endpoint;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } io;                            /* sockets */
    struct bly_pump *input, *output; /* stdio */
    char url[BLY_URL_MAX];           /* "": nothing to announce */
    struct bly_unix_file file;
    unsigned n_open; /* handles and pumps */
    void (*done)(void *arg);
    void *done_arg;
};

/* The endpoint */

struct bly_endpoint *bly_endpoint_new(const struct bly_endpoint_config *config)
{
    struct bly_endpoint *endpoint = calloc(1, sizeof(*endpoint));

    if (!endpoint)
        return NULL;
    endpoint->loop = config->loop;
    endpoint->limits = config->limits;
    endpoint->ops = config->ops;
    endpoint->arg = config->arg;
    endpoint->any_path = config->any_path;
    /* libuv writes with writev(2), which raises SIGPIPE when a client has gone. */
    signal(SIGPIPE, SIG_IGN);
    return bly_endpoint_ref(endpoint);
}

struct bly_endpoint *bly_endpoint_ref(struct bly_endpoint *endpoint)
{
    endpoint->refs++;
    return endpoint;
}

struct bly_endpoint *bly_endpoint_unref(struct bly_endpoint *endpoint)
{
    if (endpoint && --endpoint->refs == 0)
        free(endpoint);
    return NULL;
}

/* The end */

static void listener_unref(struct bly_listener *listener)
{
    void (*done)(void *arg) = listener->done;
    void *done_arg = listener->done_arg;

    if (--listener->n_open > 0)
        return;
    bly_endpoint_unref(listener->endpoint);
    free(listener);
    if (done)
        done(done_arg);
}

static void on_socket_closed(uv_handle_t *handle)
{
    listener_unref(handle->data);
}

static void on_pump_closed(void *arg)
{
    listener_unref(arg);
}

void bly_listener_close(struct bly_listener *listener, void (*done)(void *arg), void *arg)
{
    struct bly_pump *input = bly_take_ptr(&listener->input);
    struct bly_pump *output = bly_take_ptr(&listener->output);

    listener->done = done;
    listener->done_arg = arg;
    bly_unix_remove(&listener->file);
    if (listener->io.handle.type != UV_UNKNOWN_HANDLE)
        uv_close(&listener->io.handle, on_socket_closed);
    if (input)
        bly_pump_close(input, 0, on_pump_closed, listener);
    if (output)
        bly_pump_close(output, OUTPUT_PATIENCE_MS, on_pump_closed, listener);
}

/* Sockets */

static void on_connection(uv_stream_t *server, int status)
{
    struct bly_listener *listener = server->data;

    /* What cannot be accepted is the peer's problem: it sees its connection end. */
    if (status == 0)
        (void)bly_conn_accept(listener->endpoint, server);
}

/* Takes the handle and the descriptor over; the handle is closed with the listener. */
static int listen_on(struct bly_listener *listener, int family, int fd)
{
    uv_loop_t *loop = listener->endpoint->loop;
    int r = family == AF_UNIX ? uv_pipe_init(loop, &listener->io.pipe, 0)
                              : uv_tcp_init(loop, &listener->io.tcp);

    if (r < 0) {
        bly_close(fd);
        return r;
    }
    listener->n_open++;
    listener->io.handle.data = listener;
    r = family == AF_UNIX ? uv_pipe_open(&listener->io.pipe, fd)
                          : uv_tcp_open(&listener->io.tcp, fd);
    if (r < 0) {
        bly_close(fd);
        return r;
    }
    return uv_listen(&listener->io.stream, BACKLOG, on_connection);
}

static int bind_tcp(const union bly_address *address, int *ret_fd)
{
    bly_autofd int fd =
        socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t len =
        address->any.sa_family == AF_INET6 ? sizeof(address->in6) : sizeof(address->in4);
    int on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, &address->any, len) < 0)
        return -errno;
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

static int name_socket(int fd, union bly_address *ret_address, char ret_url[BLY_URL_MAX])
{
    socklen_t len = sizeof(*ret_address);

    if (getsockname(fd, &ret_address->any, &len) < 0)
        return -errno;
    return bly_address_url(ret_address, len, ret_url);
}

static int open_tcp(struct bly_listener *listener, const union bly_address *address)
{
    union bly_address bound;
    bly_autofd int fd = -EBADF;
    int r = bind_tcp(address, &fd);

    if (r == 0)
        r = name_socket(fd, &bound, listener->url);
    return r < 0 ? r : listen_on(listener, address->any.sa_family, bly_take_fd(&fd));
}

static int open_unix(struct bly_listener *listener, const union bly_address *address)
{
    bly_autofd int fd = -EBADF;
    int r = bly_unix_listen(&address->un, BACKLOG, &fd, &listener->file);

    /* Not the socket's own name: it was bound under another one. */
    if (r == 0)
        r = bly_address_url(address, sizeof(address->un), listener->url);
    return r < 0 ? r : listen_on(listener, AF_UNIX, bly_take_fd(&fd));
}

/* Standard input and output */

static int start_pump(struct bly_listener *listener, enum bly_pump_kind kind, int from, int to,
                      struct bly_pump **ret_pump)
{
    int r = 0;

    if (from < 0 || to < 0) {
        r = -errno;
        bly_close(from);
        bly_close(to);
        return r;
    }
    r = bly_pump_start(listener->endpoint->loop, kind, from, to, NULL, NULL, ret_pump);
    if (r == 0)
        listener->n_open++;
    return r;
}

static int duplicate(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

static int open_stdio(struct bly_listener *listener)
{
    bly_autofd int ours = -EBADF, theirs = -EBADF;
    int pair[2], r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    ours = pair[0];
    theirs = pair[1];
    r = start_pump(listener, BLY_PUMP_OUT, duplicate(theirs), duplicate(STDOUT_FILENO),
                   &listener->output);
    if (r == 0)
        r = start_pump(listener, BLY_PUMP_IN, duplicate(STDIN_FILENO), duplicate(theirs),
                       &listener->input);
    return r < 0 ? r : bly_conn_begin_lines(listener->endpoint, bly_take_fd(&ours));
}

/* The beginning */

static struct bly_listener *listener_new(struct bly_endpoint *endpoint)
{
    struct bly_listener *listener = calloc(1, sizeof(*listener));

    if (listener)
        listener->endpoint = bly_endpoint_ref(endpoint);
    return listener;
}

static int give_up(struct bly_listener *listener, int r, struct bly_err *err)
{
    listener->n_open++; /* so that there is something to take away */
    bly_listener_close(listener, NULL, NULL);
    listener_unref(listener);
    return bly_fail(err, BLY_ERR_SYSTEM, -r, "%s (os error %d)", bly_errno_text(-r), -r);
}

int bly_listener_open(struct bly_endpoint *endpoint, const char *url,
                      struct bly_listener **ret_listener, struct bly_err *err)
{
    struct bly_listener *listener;
    union bly_address address;
    enum bly_listen_kind kind;
    int r = bly_address_parse(url, &kind, &address, err);

    if (r == 0)
        r = bly_auth_admit_listener(endpoint->ops.auth,
                                    kind == BLY_LISTEN_STDIO ? NULL : &address.any, url, err);
    if (r < 0)
        return r;
    listener = listener_new(endpoint);
    if (!listener)
        return bly_fail_sys(err, ENOMEM, "cannot listen");

    if (kind == BLY_LISTEN_STDIO)
        r = open_stdio(listener);
    else if (kind == BLY_LISTEN_UNIX)
        r = open_unix(listener, &address);
    else
        r = open_tcp(listener, &address);
    if (r < 0)
        return give_up(listener, r, err);
    *ret_listener = listener;
    return 0;
}

static int check_passed(const struct bly_endpoint *endpoint, int fd, int *ret_family,
                        char ret_url[BLY_URL_MAX], struct bly_err *err)
{
    union bly_address address = {0};
    int r = name_socket(fd, &address, ret_url);

    if (r < 0)
        return bly_fail_sys(err, -r, "cannot use a socket that was passed");
    *ret_family = address.any.sa_family;
    return bly_auth_admit_listener(endpoint->ops.auth, &address.any, ret_url, err);
}

int bly_listener_adopt(struct bly_endpoint *endpoint, int passed_fd,
                       struct bly_listener **ret_listener, struct bly_err *err)
{
    bly_autofd int fd = passed_fd;
    struct bly_listener *listener;
    char url[BLY_URL_MAX];
    int family = 0, r = check_passed(endpoint, fd, &family, url, err);

    if (r < 0)
        return r;
    listener = listener_new(endpoint);
    if (!listener)
        return bly_fail_sys(err, ENOMEM, "cannot listen");
    memcpy(listener->url, url, sizeof(url));
    r = listen_on(listener, family, bly_take_fd(&fd));
    if (r < 0)
        return give_up(listener, r, err);
    *ret_listener = listener;
    return 0;
}

const char *bly_listener_url(const struct bly_listener *listener)
{
    return listener->url[0] ? listener->url : NULL;
}
