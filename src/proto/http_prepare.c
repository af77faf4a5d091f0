#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ascii.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "proto/http.h"

enum { NAME_SHOWN = 256 }; /* bytes of a name that are repeated in an error */

static int no_memory(struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
}

static int shown(size_t len)
{
    return len < NAME_SHOWN ? (int)len : NAME_SHOWN;
}

static bool is_value(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];

        if ((c < ' ' && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static bool is_one_of(const char *name, const char *const *names)
{
    for (; *names; names++) {
        if (strcmp(name, *names) == 0)
            return true;
    }
    return false;
}

/* A wrong one would make two messages of one, for whoever uses the connection next. */
static bool says_how_long(const char *name)
{
    static const char *const names[] = {"content-length", "transfer-encoding", NULL};

    return is_one_of(name, names);
}

/* Host belongs to the first host as much as a password does. */
static bool is_for_one_host(const char *name)
{
    static const char *const names[] = {
        "authorization",       "cookie",           "cookie2", "host",
        "proxy-authorization", "www-authenticate", NULL};

    return is_one_of(name, names);
}

static const char *find_variable(const struct bly_http_header *header,
                                 const struct bly_http_variable *variables, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strlen(variables[i].name) == header->variable_len &&
            memcmp(variables[i].name, header->variable, header->variable_len) == 0)
            return variables[i].value;
    }
    return NULL;
}

static char *lower_case(const char *text, size_t len)
{
    char *copy = strndup(text, len);

    for (char *c = copy; copy && *c; c++)
        *c = bly_ascii_lower(*c);
    return copy;
}

/* `value` and, behind it, `more`. */
static char *joined(const char *value, size_t len, const char *more)
{
    size_t more_len = strlen(more);
    char *text = malloc(len + more_len + 1);

    if (text)
        memcpy(mempcpy(text, value, len), more, more_len + 1);
    return text;
}

static int prepare_header(const struct bly_http_header *header, const char *variable,
                          struct bly_http_request *request, struct bly_err *err)
{
    struct bly_http_field *field = &request->fields[request->n_fields];

    if (!is_value(header->value, header->value_len) || !is_value(variable, strlen(variable)))
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                        "http/request header value is invalid for %.*s: failed to parse header "
                        "value",
                        shown(header->name_len), header->name);
    field->name = lower_case(header->name, header->name_len);
    field->value = joined(header->value, header->value_len, variable);
    request->n_fields++;
    if (!field->name || !field->value)
        return no_memory(err);
    field->secret = header->variable || is_for_one_host(field->name);
    if (says_how_long(field->name)) {
        free(field->name);
        free(field->value);
        request->n_fields--;
    }
    return 0;
}

static int prepare_headers(const struct bly_http_params *params,
                           const struct bly_http_variable *variables, size_t n_variables,
                           struct bly_http_request *request, struct bly_err *err)
{
    request->fields = calloc(params->n_headers + 1, sizeof(*request->fields));
    if (!request->fields)
        return no_memory(err);

    for (size_t i = 0; i < params->n_headers; i++) {
        const struct bly_http_header *header = &params->headers[i];
        const char *variable = "";
        int r;

        if (!bly_ascii_is_token(header->name, header->name_len))
            return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                            "http/request header name is invalid: invalid HTTP header name");
        if (header->variable)
            variable = find_variable(header, variables, n_variables);
        if (!variable)
            return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                            "http/request header %.*s requires executor environment variable %.*s",
                            shown(header->name_len), header->name, shown(header->variable_len),
                            header->variable);
        r = prepare_header(header, variable, request, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int prepare(const struct bly_http_params *params, const struct bly_http_variable *variables,
                   size_t n_variables, struct bly_http_request *request, struct bly_err *err)
{
    int r;

    if (!bly_ascii_is_token(params->method, params->method_len))
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                        "http/request method is invalid: invalid HTTP method");
    r = bly_http_url(params->url, params->url_len, &request->url, err);
    if (r < 0)
        return r;
    request->method = strndup(params->method, params->method_len);
    if (!request->method)
        return no_memory(err);
    request->body = params->body;
    request->body_len = params->body_len;
    request->timeout_ms = params->timeout_ms;
    request->follow = params->follow;
    return prepare_headers(params, variables, n_variables, request, err);
}

int bly_http_prepare(const struct bly_http_params *params,
                     const struct bly_http_variable *variables, size_t n_variables,
                     struct bly_http_request *ret, struct bly_err *err)
{
    int r;

    *ret = (struct bly_http_request){0};
    r = prepare(params, variables, n_variables, ret, err);
    if (r < 0)
        bly_http_request_deinit(ret);
    return r;
}

void bly_http_fields_free(struct bly_http_field *fields, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(fields[i].name);
        free(fields[i].value);
    }
    free(fields);
}

void bly_http_request_deinit(struct bly_http_request *request)
{
    free(request->method);
    free(request->url);
    bly_http_fields_free(request->fields, request->n_fields);
    *request = (struct bly_http_request){0};
}
