#include "transport/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"

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
static int parse_tcp(const char *text, union bly_address *ret_address)
{
    const char *colon = strrchr(text, ':');
    union bly_address address = {0};
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

/* An absolute path that names something in a directory. */
static int parse_unix(const char *path, union bly_address *ret_address)
{
    union bly_address address = {0};
    size_t len = strlen(path);

    if (path[0] != '/' || path[len - 1] == '/')
        return -EINVAL;
    if (len > BLY_UNIX_PATH_MAX)
        return -ENAMETOOLONG;
    address.un.sun_family = AF_UNIX;
    memcpy(address.un.sun_path, path, len + 1);
    *ret_address = address;
    return 0;
}

static int parse_nothing(const char *text, union bly_address *ret_address)
{
    (void)ret_address;
    return *text ? -EINVAL : 0;
}

static const struct scheme {
    const char *prefix;
    enum bly_listen_kind kind;
    int (*parse)(const char *rest, union bly_address *ret_address);
    const char *name, *example;
} schemes[] = {
    {"ws://", BLY_LISTEN_TCP, parse_tcp, "websocket", "ws://IP:PORT"},
    {"unix://", BLY_LISTEN_UNIX, parse_unix, "unix", "unix:///PATH"},
    {"stdio://", BLY_LISTEN_STDIO, parse_nothing, "stdio", "stdio"},
};

static const struct scheme *find_scheme(const char *url)
{
    for (size_t i = 0; i < BLY_LEN(schemes); i++)
        if (strncmp(url, schemes[i].prefix, strlen(schemes[i].prefix)) == 0)
            return &schemes[i];
    return NULL;
}

int bly_address_parse(const char *url, enum bly_listen_kind *ret_kind,
                      union bly_address *ret_address, struct bly_err *err)
{
    const struct scheme *scheme = find_scheme(strcmp(url, "stdio") == 0 ? "stdio://" : url);
    const char *rest = scheme && strcmp(url, "stdio") != 0 ? url + strlen(scheme->prefix) : "";
    int r;

    if (!scheme)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "unsupported --listen URL `%s`; expected `ws://IP:PORT` or `stdio`", url);
    r = scheme->parse(rest, ret_address);
    if (r == -ENAMETOOLONG)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "invalid unix --listen URL `%s`; its path may have %d bytes", url,
                        BLY_UNIX_PATH_MAX);
    if (r < 0)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "invalid %s --listen URL `%s`; expected `%s`",
                        scheme->name, url, scheme->example);
    *ret_kind = scheme->kind;
    return 0;
}

static int unix_url(const struct sockaddr_un *address, size_t len, char ret_url[BLY_URL_MAX])
{
    size_t head = offsetof(struct sockaddr_un, sun_path);
    size_t n = len > head ? strnlen(address->sun_path, len - head) : 0;
    bool is_abstract = len > head && address->sun_path[0] == '\0';

    if (is_abstract) {
        snprintf(ret_url, BLY_URL_MAX, "unix:@%.*s", (int)(len - head - 1), address->sun_path + 1);
        return 0;
    }
    snprintf(ret_url, BLY_URL_MAX, "unix://%.*s", (int)n, address->sun_path);
    return 0;
}

int bly_address_url(const union bly_address *address, size_t len, char ret_url[BLY_URL_MAX])
{
    char ip[INET6_ADDRSTRLEN];

    switch (address->any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &address->in4.sin_addr, ip, sizeof(ip));
        snprintf(ret_url, BLY_URL_MAX, "ws://%s:%u", ip, ntohs(address->in4.sin_port));
        return 0;
    case AF_INET6:
        inet_ntop(AF_INET6, &address->in6.sin6_addr, ip, sizeof(ip));
        snprintf(ret_url, BLY_URL_MAX, "ws://[%s]:%u", ip, ntohs(address->in6.sin6_port));
        return 0;
    case AF_UNIX:
        return unix_url(&address->un, len, ret_url);
    default:
        return -EAFNOSUPPORT;
    }
}
