#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ascii.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "proto/http.h"

enum {
    PORT_MAX = 65535,
    SCHEME_SHOWN = 64, /* bytes of a scheme we do not speak that are repeated */
    ESCAPED_LEN = 3,   /* "%20" */
};

struct span {
    const char *at;
    size_t len;
};

static int invalid(struct bly_err *err, const char *why)
{
    return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "http/request url is invalid: %s", why);
}

/* Browsers drop blanks and control characters at both ends, and line breaks and tabs anywhere. */
static void tidy(const char *text, size_t len, struct bly_buf *out)
{
    while (len > 0 && (unsigned char)text[0] <= ' ') {
        text++;
        len--;
    }
    while (len > 0 && (unsigned char)text[len - 1] <= ' ')
        len--;
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '\t' && text[i] != '\n' && text[i] != '\r')
            bly_buf_add_char(out, text[i]);
    }
}

/* Takes "SCHEME:" off the front. */
static bool take_scheme(struct span *rest, struct span *ret_scheme)
{
    size_t n = 0;

    while (n < rest->len &&
           (bly_ascii_is_letter(rest->at[n]) ||
            (n > 0 && (bly_ascii_is_digit(rest->at[n]) || strchr("+-.", rest->at[n])))))
        n++;
    if (n == 0 || n >= rest->len || rest->at[n] != ':')
        return false;
    *ret_scheme = (struct span){rest->at, n};
    rest->at += n + 1;
    rest->len -= n + 1;
    return true;
}

static bool is_word(struct span span, const char *word)
{
    return span.len == strlen(word) && strncasecmp(span.at, word, span.len) == 0;
}

/* Takes everything before the path, query or fragment off the front. */
static struct span take_authority(struct span *rest)
{
    struct span authority;

    while (rest->len > 0 && (rest->at[0] == '/' || rest->at[0] == '\\')) {
        rest->at++;
        rest->len--;
    }
    authority = (struct span){rest->at, 0};
    while (authority.len < rest->len && !memchr("/\\?#", rest->at[authority.len], 4))
        authority.len++;
    rest->at += authority.len;
    rest->len -= authority.len;
    return authority;
}

static void add_escaped(struct bly_buf *out, struct span span, const char *also)
{
    for (size_t i = 0; i < span.len; i++) {
        unsigned char c = (unsigned char)span.at[i];

        if (c <= ' ' || c >= 0x7f || strchr(also, (char)c))
            bly_buf_printf(out, "%%%02X", c);
        else
            bly_buf_add_char(out, (char)c);
    }
}

/* "USER:PASSWORD@", up to the last '@'. */
static void take_user(struct span *authority, struct bly_buf *out)
{
    const char *at = memrchr(authority->at, '@', authority->len);
    struct span user;

    if (!at)
        return;
    user = (struct span){authority->at, (size_t)(at - authority->at)};
    authority->len -= user.len + 1;
    authority->at = at + 1;
    if (user.len == 0)
        return;
    add_escaped(out, user, "\"#/;<=>?@[\\]^`{|}");
    bly_buf_add_char(out, '@');
}

static int add_ipv6(struct span host, struct bly_buf *out, struct bly_err *err)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;

    if (host.len < 2 || host.at[host.len - 1] != ']' || host.len - 2 >= sizeof(text))
        return invalid(err, "invalid IPv6 address");
    memcpy(text, host.at + 1, host.len - 2);
    text[host.len - 2] = '\0';
    if (inet_pton(AF_INET6, text, &address) != 1)
        return invalid(err, "invalid IPv6 address");
    (void)inet_ntop(AF_INET6, &address, text, sizeof(text));
    return bly_buf_printf(out, "[%s]", text);
}

static int add_host(struct span host, struct bly_buf *out, struct bly_err *err)
{
    if (host.len == 0)
        return invalid(err, "empty host");
    if (host.at[0] == '[')
        return add_ipv6(host, out, err);
    for (size_t i = 0; i < host.len; i++) {
        unsigned char c = (unsigned char)host.at[i];

        /* Converting such names is left to the client: how it is done depends on the locale. */
        if (c >= 0x80)
            return invalid(err, "a host name beyond ASCII has to be in its xn-- form");
        if (c <= ' ' || c == 0x7f || strchr("\"#%/:<>?@[\\]^`{|}", c))
            return invalid(err, "invalid international domain name");
        bly_buf_add_char(out, bly_ascii_lower((char)c));
    }
    return 0;
}

static int add_port(struct span port, unsigned default_port, struct bly_buf *out,
                    struct bly_err *err)
{
    unsigned value = 0;

    for (size_t i = 0; i < port.len; i++) {
        if (!bly_ascii_is_digit(port.at[i]))
            return invalid(err, "invalid port number");
        value = value * 10 + (unsigned)(port.at[i] - '0');
        if (value > PORT_MAX)
            return invalid(err, "invalid port number");
    }
    if (port.len > 0 && value != default_port)
        bly_buf_printf(out, ":%u", value);
    return 0;
}

static int add_authority(struct span authority, unsigned default_port, struct bly_buf *out,
                         struct bly_err *err)
{
    struct span host, port = {0};
    const char *colon, *bracket;
    int r;

    take_user(&authority, out);
    host = authority;
    bracket = memrchr(authority.at, ']', authority.len);
    colon = memrchr(authority.at, ':', authority.len);
    if (colon && (!bracket || colon > bracket)) {
        host.len = (size_t)(colon - authority.at);
        port = (struct span){colon + 1, authority.len - host.len - 1};
    }
    r = add_host(host, out, err);
    return r < 0 ? r : add_port(port, default_port, out, err);
}

/* Path and query; what follows a '#' stays with the client. */
static void add_rest(struct span rest, struct bly_buf *out)
{
    const char *hash = memchr(rest.at, '#', rest.len);
    size_t len = hash ? (size_t)(hash - rest.at) : rest.len;
    const char *mark = memchr(rest.at, '?', len);
    size_t path_len = mark ? (size_t)(mark - rest.at) : len;

    if (path_len == 0)
        bly_buf_add_char(out, '/');
    for (size_t i = 0; i < path_len; i++) {
        if (rest.at[i] == '\\')
            bly_buf_add_char(out, '/');
        else
            add_escaped(out, (struct span){rest.at + i, 1}, "\"<>`{}");
    }
    if (mark)
        add_escaped(out, (struct span){mark, len - path_len}, "\"<>'");
}

static int write_url(struct span rest, struct bly_buf *out, struct bly_err *err)
{
    struct span scheme;
    bool secure;
    int r;

    if (!take_scheme(&rest, &scheme))
        return invalid(err, "relative URL without a base");
    secure = is_word(scheme, "https");
    if (!secure && !is_word(scheme, "http")) {
        int shown = scheme.len < SCHEME_SHOWN ? (int)scheme.len : SCHEME_SHOWN;
        char name[SCHEME_SHOWN + 1] = "";

        for (int i = 0; i < shown; i++)
            name[i] = bly_ascii_lower(scheme.at[i]);
        return bly_fail(err, BLY_ERR_PARAMS, EPROTONOSUPPORT,
                        "http/request only supports http and https URLs, got %s", name);
    }
    bly_buf_add_str(out, secure ? "https://" : "http://");
    r = add_authority(take_authority(&rest), secure ? 443 : 80, out, err);
    if (r == 0)
        add_rest(rest, out);
    return r;
}

int bly_http_url(const char *text, size_t len, char **ret_url, struct bly_err *err)
{
    bly_autobuf struct bly_buf tidied, out;
    size_t unused;
    int r;

    bly_buf_init(&tidied, len + 1);
    bly_buf_init(&out, ESCAPED_LEN * len + 64);
    tidy(text, len, &tidied);
    if (tidied.len == 0)
        return invalid(err, "relative URL without a base");
    r = write_url((struct span){(const char *)tidied.data, tidied.len}, &out, err);
    if (r < 0)
        return r;
    if (tidied.error || out.error)
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    *ret_url = (char *)bly_buf_take(&out, &unused);
    return 0;
}

const char *bly_http_url_host(const char *url)
{
    const char *start = strstr(url, "://") + 3;
    const char *at = memchr(start, '@', strcspn(start, "/?"));

    return at ? at + 1 : start;
}

bool bly_http_same_origin(const char *url, const char *other)
{
    const char *host = bly_http_url_host(url), *other_host = bly_http_url_host(other);
    size_t n = strcspn(host, "/"), other_n = strcspn(other_host, "/");

    return strcspn(url, ":") == strcspn(other, ":") && n == other_n &&
           memcmp(host, other_host, n) == 0;
}
