#pragma once

/*
 * What --listen can say, and what a listening socket is called. Pure; any thread. Spec 1.1.
 */
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

struct bly_err;

enum {
    /* Bytes of a socket's path: the kernel takes 107, and it is made under a longer name first. */
    BLY_UNIX_PATH_MAX = 96,
    BLY_URL_MAX = 128, /* of a listener, with its NUL */
};

enum bly_listen_kind { BLY_LISTEN_TCP, BLY_LISTEN_UNIX, BLY_LISTEN_STDIO };

union bly_address {
    struct sockaddr any;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

/* "ws://IP:PORT" (IPv6 in brackets), "unix:///PATH", "stdio" or "stdio://". -EINVAL with the
 * protocol's words in `err`. */
int bly_address_parse(const char *url, enum bly_listen_kind *ret_kind,
                      union bly_address *ret_address, struct bly_err *err);

/* The URL of a socket's own address, which has `len` bytes. -EAFNOSUPPORT. */
int bly_address_url(const union bly_address *address, size_t len, char ret_url[BLY_URL_MAX]);
