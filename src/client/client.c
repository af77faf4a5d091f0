#include "client/rpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "client/link.h"

enum {
    REQUEST_MAX = 256 << 20,
    KEPT_MAX = 128 << 20, /* bytes of messages nobody has asked for yet */
};

struct kept {
    struct kept *next;
    struct bly_client_message message;
    size_t len;
};

struct bly_client {
    struct bly_link *link;
    uint64_t timeout_ms, last_id, last_number;
    struct kept *first, *last;
    size_t kept_bytes;
    char *session_id;
};

void bly_client_message_deinit(struct bly_client_message *message)
{
    yyjson_doc_free(message->doc);
    free(message->text);
    *message = (struct bly_client_message){0};
}

int bly_client_error_local(struct bly_client_error *error, int r, const char *fmt, ...)
{
    va_list args;

    if (!error)
        return r;
    error->code = 0;
    va_start(args, fmt);
    vsnprintf(error->message, sizeof(error->message), fmt, args);
    va_end(args);
    return r;
}

static int from_err(struct bly_client_error *error, int r, const struct bly_err *err)
{
    return bly_client_error_local(error, r, "%s", err->text);
}

uint64_t bly_client_deadline(const struct bly_client *client)
{
    return bly_link_now_ms() + client->timeout_ms;
}

uint64_t bly_client_number(struct bly_client *client)
{
    return ++client->last_number;
}

/* Messages nobody waits for yet */

static int keep(struct bly_client *client, struct bly_client_message *message, size_t len,
                struct bly_client_error *error)
{
    struct kept *kept = malloc(sizeof(*kept));

    if (!kept || client->kept_bytes > KEPT_MAX - len) {
        free(kept);
        return bly_client_error_local(error, -ENOBUFS, "too many messages are waiting to be read");
    }
    *kept = (struct kept){.message = *message, .len = len};
    *message = (struct bly_client_message){0};
    if (client->last)
        client->last->next = kept;
    else
        client->first = kept;
    client->last = kept;
    client->kept_bytes += len;
    return 0;
}

/* Takes the kept message that `after` (NULL: the list's head) points to out of the list. */
static struct bly_client_message unkeep(struct bly_client *client, struct kept *after)
{
    struct kept *kept = after ? after->next : client->first;
    struct bly_client_message message = kept->message;

    if (after)
        after->next = kept->next;
    else
        client->first = kept->next;
    if (client->last == kept)
        client->last = after;
    client->kept_bytes -= kept->len;
    free(kept);
    return message;
}

static int receive(struct bly_client *client, uint64_t deadline_ms,
                   struct bly_client_message *ret_message, size_t *ret_len,
                   struct bly_client_error *error)
{
    bly_automessage struct bly_client_message message = {0};
    struct bly_err err;
    int r = bly_link_receive(client->link, deadline_ms, &message.text, ret_len, &err);

    if (r == 0)
        r = bly_json_read(message.text, *ret_len, &message.doc, &err);
    if (r < 0)
        return from_err(error, r, &err);
    *ret_message = message;
    message = (struct bly_client_message){0};
    return 0;
}

/* Requests */

static bool answers(const struct bly_client_message *message, uint64_t id)
{
    yyjson_val *root = yyjson_doc_get_root(message->doc);
    yyjson_val *got = yyjson_obj_get(root, "id");

    return !yyjson_obj_get(root, "method") && yyjson_is_uint(got) && yyjson_get_uint(got) == id;
}

static int open_answer(const struct bly_client_message *message, yyjson_val **ret_result,
                       struct bly_client_error *error)
{
    yyjson_val *root = yyjson_doc_get_root(message->doc);
    yyjson_val *refusal = yyjson_obj_get(root, "error");
    yyjson_val *result = yyjson_obj_get(root, "result");
    const char *text = yyjson_get_str(yyjson_obj_get(refusal, "message"));

    if (refusal) {
        bly_client_error_local(error, 0, "%s", text ? text : "");
        if (error)
            error->code = (int)yyjson_get_sint(yyjson_obj_get(refusal, "code"));
        return -EREMOTEIO;
    }
    if (!result)
        return bly_client_error_local(error, -EBADMSG, "an answer without result and error");
    *ret_result = result;
    return 0;
}

static int send_envelope(struct bly_client *client, const char *method,
                         const struct bly_buf *params, uint64_t id, uint64_t deadline_ms,
                         struct bly_client_error *error)
{
    bly_autobuf struct bly_buf buf;
    struct bly_err err;
    int r;

    bly_buf_init(&buf, REQUEST_MAX);
    if (params->error < 0)
        return bly_client_error_local(error, params->error, "the request is too large");
    bly_buf_add_char(&buf, '{');
    if (id > 0)
        bly_buf_printf(&buf, "\"id\":%llu,", (unsigned long long)id);
    bly_buf_add_str(&buf, "\"method\":");
    bly_json_add_cstr(&buf, method);
    bly_buf_add_str(&buf, ",\"params\":");
    bly_buf_add(&buf, params->data, params->len);
    r = bly_buf_add_char(&buf, '}');
    if (r < 0)
        return bly_client_error_local(error, r, "the request is too large");
    r = bly_link_send(client->link, (char *)buf.data, buf.len, deadline_ms, &err);
    return r < 0 ? from_err(error, r, &err) : 0;
}

int bly_client_request(struct bly_client *client, const char *method, const struct bly_buf *params,
                       uint64_t deadline_ms, struct bly_client_message *ret_answer,
                       yyjson_val **ret_result, struct bly_client_error *ret_error)
{
    uint64_t id = ++client->last_id;
    int r = send_envelope(client, method, params, id, deadline_ms, ret_error);

    while (r == 0) {
        bly_automessage struct bly_client_message message = {0};
        size_t len;

        r = receive(client, deadline_ms, &message, &len, ret_error);
        if (r < 0)
            break;
        if (!answers(&message, id)) {
            r = keep(client, &message, len, ret_error);
            continue;
        }
        r = open_answer(&message, ret_result, ret_error);
        if (r < 0)
            break;
        *ret_answer = message;
        message = (struct bly_client_message){0};
        return 0;
    }
    return r;
}

static int value_text(const yyjson_val *value, char **ret_text)
{
    char *text = value ? yyjson_val_write(value, 0, NULL) : strdup("null");

    if (!text)
        return -ENOMEM;
    *ret_text = text;
    return 0;
}

int bly_client_call(struct bly_client *client, const char *method, const char *params_json,
                    char **ret_result_json, struct bly_client_error *ret_error)
{
    bly_automessage struct bly_client_message answer = {0};
    bly_autobuf struct bly_buf params;
    yyjson_val *result;
    int r;

    bly_buf_init(&params, REQUEST_MAX);
    bly_buf_add_str(&params, params_json);
    r = bly_client_request(client, method, &params, bly_client_deadline(client), &answer, &result,
                           ret_error);
    if (r == 0 && value_text(result, ret_result_json) < 0)
        r = bly_client_error_local(ret_error, -ENOMEM, "out of memory");
    return r;
}

/* Notifications */

static bool is_about(const struct bly_client_message *message, const char *process_id)
{
    yyjson_val *params = yyjson_obj_get(yyjson_doc_get_root(message->doc), "params");

    return yyjson_equals_str(yyjson_obj_get(params, "processId"), process_id);
}

int bly_client_await_process(struct bly_client *client, const char *process_id,
                             uint64_t deadline_ms, struct bly_client_message *ret_message,
                             struct bly_client_error *ret_error)
{
    struct kept *before = NULL;

    for (struct kept *k = client->first; k; before = k, k = k->next) {
        if (is_about(&k->message, process_id)) {
            *ret_message = unkeep(client, before);
            return 0;
        }
    }
    for (;;) {
        bly_automessage struct bly_client_message message = {0};
        size_t len;
        int r = receive(client, deadline_ms, &message, &len, ret_error);

        if (r < 0)
            return r;
        if (is_about(&message, process_id)) {
            *ret_message = message;
            message = (struct bly_client_message){0};
            return 0;
        }
        r = keep(client, &message, len, ret_error);
        if (r < 0)
            return r;
    }
}

static int split_notification(const struct bly_client_message *message, char **ret_method,
                              char **ret_params_json)
{
    yyjson_val *root = yyjson_doc_get_root(message->doc);
    yyjson_val *params = yyjson_obj_get(root, "params");
    const char *name = yyjson_get_str(yyjson_obj_get(root, "method"));
    bly_autofree char *method = strdup(name ? name : "");

    if (!method || value_text(name ? params : root, ret_params_json) < 0)
        return -ENOMEM;
    *ret_method = bly_take_ptr(&method);
    return 0;
}

int bly_client_next_notification(struct bly_client *client, int timeout_ms, char **ret_method,
                                 char **ret_params_json)
{
    bly_automessage struct bly_client_message message = {0};
    size_t len;
    int r;

    if (client->first) {
        message = unkeep(client, NULL);
    } else {
        r = receive(client, bly_link_now_ms() + (uint64_t)timeout_ms, &message, &len, NULL);
        if (r < 0)
            return r;
    }
    return split_notification(&message, ret_method, ret_params_json);
}

int bly_client_send_raw(struct bly_client *client, const char *text, size_t len)
{
    return bly_link_send(client->link, text, len, bly_client_deadline(client), NULL);
}

/* The beginning and the end */

static int initialize(struct bly_client *client, const char *resume_session_id,
                      uint64_t deadline_ms, struct bly_client_error *error)
{
    bly_automessage struct bly_client_message answer = {0};
    bly_autobuf struct bly_buf params, nothing;
    yyjson_val *result;
    const char *id;
    int r;

    bly_buf_init(&nothing, 16);
    bly_buf_add_str(&nothing, "{}");
    bly_buf_init(&params, REQUEST_MAX);
    bly_buf_add_str(&params, "{\"clientName\":\"bailey-client\",\"resumeSessionId\":");
    if (resume_session_id)
        bly_json_add_cstr(&params, resume_session_id);
    else
        bly_buf_add_str(&params, "null");
    bly_buf_add_char(&params, '}');

    r = bly_client_request(client, "initialize", &params, deadline_ms, &answer, &result, error);
    if (r < 0)
        return r;
    id = yyjson_get_str(yyjson_obj_get(result, "sessionId"));
    if (!id)
        return bly_client_error_local(error, -EBADMSG, "the server gave no session id");
    client->session_id = strdup(id);
    if (!client->session_id)
        return bly_client_error_local(error, -ENOMEM, "out of memory");
    return send_envelope(client, "initialized", &nothing, 0, deadline_ms, error);
}

static struct bly_client *client_new(int timeout_ms, struct bly_client_error *error)
{
    struct bly_client *client = calloc(1, sizeof(*client));

    if (!client) {
        bly_client_error_local(error, -ENOMEM, "out of memory");
        return NULL;
    }
    client->timeout_ms = timeout_ms > 0 ? (uint64_t)timeout_ms : 0;
    /* A resumed session may still know the process ids of the client before us. */
    if (getrandom(&client->last_number, sizeof(client->last_number), 0) < 0)
        client->last_number = bly_link_now_ms();
    return client;
}

/* `r` and `err` say whether there is a link. */
static struct bly_client *begin(struct bly_client *client, int r, const struct bly_err *err,
                                const char *resume_session_id, uint64_t deadline_ms,
                                struct bly_client_error *error)
{
    if (r < 0)
        from_err(error, r, err);
    else
        r = initialize(client, resume_session_id, deadline_ms, error);
    if (r < 0) {
        bly_client_free(client);
        return NULL;
    }
    return client;
}

struct bly_client *bly_client_connect(const char *url, const char *resume_session_id,
                                      int timeout_ms, struct bly_client_error *ret_error)
{
    struct bly_client *client = client_new(timeout_ms, ret_error);
    struct bly_err err;
    uint64_t deadline_ms;
    int r;

    if (!client)
        return NULL;
    deadline_ms = bly_client_deadline(client);
    r = bly_link_open(url, deadline_ms, &client->link, &err);
    return begin(client, r, &err, resume_session_id, deadline_ms, ret_error);
}

struct bly_client *bly_client_spawn(const char *const *argv, int timeout_ms,
                                    struct bly_client_error *ret_error)
{
    struct bly_client *client = client_new(timeout_ms, ret_error);
    struct bly_err err;
    int r;

    if (!client)
        return NULL;
    r = bly_link_spawn(argv, &client->link, &err);
    return begin(client, r, &err, NULL, bly_client_deadline(client), ret_error);
}

int bly_client_end(struct bly_client *client)
{
    int status = 0;

    if (!client)
        return 0;
    while (client->first) {
        struct bly_client_message message = unkeep(client, NULL);

        bly_client_message_deinit(&message);
    }
    if (client->link)
        status = bly_link_end(client->link, client->timeout_ms);
    bly_link_free(client->link);
    free(client->session_id);
    free(client);
    return status;
}

void bly_client_free(struct bly_client *client)
{
    (void)bly_client_end(client);
}

const char *bly_client_session_id(const struct bly_client *client)
{
    return client->session_id;
}
