#include "rpc/rpc.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"

/* The members of the envelope; NULL where one is absent. */
struct envelope {
    yyjson_val *id, *method, *params, *result, *error, *trace;
};

static int bad(struct bly_err *err, const char *why)
{
    (void)bly_fail(err, BLY_ERR_INVALID, EBADMSG, "%s", why);
    return -EBADMSG;
}

static const struct {
    const char *name;
    size_t len, offset;
} members[] = {
    {"id", 2, offsetof(struct envelope, id)},
    {"method", 6, offsetof(struct envelope, method)},
    {"params", 6, offsetof(struct envelope, params)},
    {"result", 6, offsetof(struct envelope, result)},
    {"error", 5, offsetof(struct envelope, error)},
    {"trace", 5, offsetof(struct envelope, trace)},
};

/* Notes a member we know; others are ignored. The reader has refused repeated keys. */
static void note_member(struct envelope *e, yyjson_val *key, yyjson_val *val)
{
    for (size_t i = 0; i < BLY_LEN(members); i++) {
        if (yyjson_equals_strn(key, members[i].name, members[i].len)) {
            *(yyjson_val **)((char *)e + members[i].offset) = val;
            return;
        }
    }
}

static int read_id(yyjson_val *val, struct bly_rpc_id *ret_id)
{
    *ret_id = (struct bly_rpc_id){0};
    if (yyjson_is_str(val)) {
        ret_id->type = BLY_RPC_ID_STR;
        ret_id->str = yyjson_get_str(val);
        ret_id->len = yyjson_get_len(val);
        return 0;
    }
    /* Unsigned means "not negative" in yyjson, so it covers what int64 does not. */
    if (!yyjson_is_int(val) || (yyjson_is_uint(val) && yyjson_get_uint(val) > INT64_MAX))
        return -EBADMSG;

    ret_id->type = BLY_RPC_ID_INT;
    ret_id->num = yyjson_get_sint(val);
    return 0;
}

static bool is_opt_str(yyjson_val *val)
{
    return !val || yyjson_is_null(val) || yyjson_is_str(val);
}

static bool is_trace(yyjson_val *trace)
{
    if (!trace || yyjson_is_null(trace))
        return true;

    return yyjson_is_obj(trace) && is_opt_str(yyjson_obj_get(trace, "traceparent")) &&
           is_opt_str(yyjson_obj_get(trace, "tracestate"));
}

static bool is_error_object(yyjson_val *error)
{
    return yyjson_is_obj(error) && yyjson_is_int(yyjson_obj_get(error, "code")) &&
           yyjson_is_str(yyjson_obj_get(error, "message"));
}

/*
 * Which members are there decides what kind of message it is, and only then are their types
 * checked: a request with an id we cannot echo must not pass for a notification.
 */
static int classify(const struct envelope *e, struct bly_rpc_message *m, struct bly_err *err)
{
    if (e->id && read_id(e->id, &m->id) < 0)
        return bad(err, "id is neither a string nor a 64-bit integer");

    if (e->method) {
        if (!yyjson_is_str(e->method))
            return bad(err, "method is not a string");
        if (!is_trace(e->trace))
            return bad(err, "trace is not a trace context");
        m->kind = e->id ? BLY_RPC_REQUEST : BLY_RPC_NOTIFICATION;
        m->method = yyjson_get_str(e->method);
        m->method_len = yyjson_get_len(e->method);
        m->params = e->params;
        return 0;
    }
    if (!e->id || (!e->result && !is_error_object(e->error)))
        return bad(err, "the object is no request, notification or response");

    m->kind = BLY_RPC_RESPONSE;
    return 0;
}

static int read_message(yyjson_val *root, struct bly_rpc_message *m, struct bly_err *err)
{
    struct envelope e = {0};
    size_t i, n;
    yyjson_val *key, *val;

    if (!yyjson_is_obj(root))
        return bad(err, "a message is one JSON object");

    yyjson_obj_foreach (root, i, n, key, val)
        note_member(&e, key, val);
    return classify(&e, m, err);
}

int bly_rpc_parse(char *text, size_t len, struct bly_rpc_message *ret_message, struct bly_err *err)
{
    struct bly_rpc_message m = {0};
    int r = bly_json_read(text, len, &m.doc, err);

    if (r < 0)
        return r;

    r = read_message(yyjson_doc_get_root(m.doc), &m, err);
    if (r < 0) {
        bly_rpc_message_deinit(&m);
        return r;
    }
    *ret_message = m;
    return 0;
}

void bly_rpc_message_deinit(struct bly_rpc_message *message)
{
    yyjson_doc_free(message->doc);
    *message = (struct bly_rpc_message){0};
}
