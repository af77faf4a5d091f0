#include "rpc/rpc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

/* What each kind of error is on the wire. `errno_text`: the message comes from .sys, not .text. */
static const struct {
    int code;
    bool errno_text;
} wire[] = {
    [BLY_ERR_NONE] = {BLY_RPC_INTERNAL, false},
    [BLY_ERR_PARAMS] = {BLY_RPC_PARAMS, false},
    [BLY_ERR_INVALID] = {BLY_RPC_INVALID, false},
    [BLY_ERR_DENIED] = {BLY_RPC_INVALID, false},
    [BLY_ERR_NOT_FOUND] = {BLY_RPC_NOT_FOUND, false},
    [BLY_ERR_SYSTEM] = {BLY_RPC_INTERNAL, true}, /* the code: see bly_rpc_code() */
    [BLY_ERR_SPAWN] = {BLY_RPC_INTERNAL, true},
    [BLY_ERR_LIMIT] = {BLY_RPC_INTERNAL, false},
    [BLY_ERR_GONE] = {BLY_RPC_INVALID, false},
    [BLY_ERR_ATTACHED] = {BLY_RPC_ATTACHED, false},
    [BLY_ERR_UNSUPPORTED] = {BLY_RPC_INTERNAL, false},
    [BLY_ERR_REMOTE] = {BLY_RPC_INTERNAL, false},
    [BLY_ERR_BUG] = {BLY_RPC_INTERNAL, false},
};

static int code_of_errno(int sys)
{
    switch (sys) {
    case ENOENT:
        return BLY_RPC_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EINVAL:
        return BLY_RPC_INVALID;
    default:
        return BLY_RPC_INTERNAL;
    }
}

int bly_rpc_code(const struct bly_err *err)
{
    return err->kind == BLY_ERR_SYSTEM ? code_of_errno(err->sys) : wire[err->kind].code;
}

static int add_id(struct bly_buf *buf, const struct bly_rpc_id *id)
{
    switch (id->type) {
    case BLY_RPC_ID_INT:
        return bly_json_add_i64(buf, id->num);
    case BLY_RPC_ID_STR:
        return bly_json_add_str(buf, id->str, id->len);
    case BLY_RPC_ID_NONE:
        break;
    }
    /* The id of answers to what was no message. */
    return bly_buf_add_str(buf, "-1");
}

int bly_rpc_begin_result(struct bly_buf *buf, const struct bly_rpc_id *id)
{
    bly_buf_add_str(buf, "{\"id\":");
    add_id(buf, id);
    return bly_buf_add_str(buf, ",\"result\":");
}

int bly_rpc_end(struct bly_buf *buf)
{
    return bly_buf_add_char(buf, '}');
}

int bly_rpc_begin_notification(struct bly_buf *buf, const char *method)
{
    bly_buf_add_str(buf, "{\"method\":");
    bly_json_add_cstr(buf, method);
    return bly_buf_add_str(buf, ",\"params\":");
}

static int add_error_value(struct bly_buf *buf, int code, const char *message)
{
    bly_buf_add_str(buf, "{\"code\":");
    bly_json_add_i64(buf, code);
    bly_buf_add_str(buf, ",\"message\":");
    bly_json_add_cstr(buf, message);
    return bly_buf_add_char(buf, '}');
}

int bly_rpc_add_error(struct bly_buf *buf, const struct bly_rpc_id *id, int code,
                      const char *message)
{
    bly_buf_add_str(buf, "{\"id\":");
    add_id(buf, id);
    bly_buf_add_str(buf, ",\"error\":");
    add_error_value(buf, code, message);
    return bly_rpc_end(buf);
}

/*
 * "TEXT (os error N)". "Does not exist" is the most frequent answer of all, so it goes straight
 * into the buffer; the texts have nothing that JSON would escape.
 */
static int add_errno_value(struct bly_buf *buf, int code, int sys)
{
    bly_buf_add_str(buf, "{\"code\":");
    bly_json_add_i64(buf, code);
    bly_buf_add_str(buf, ",\"message\":\"");
    bly_buf_add_str(buf, bly_errno_text(sys));
    bly_buf_add_str(buf, " (os error ");
    bly_json_add_i64(buf, sys);
    return bly_buf_add_str(buf, ")\"}");
}

void bly_rpc_failure_text(const struct bly_err *err, char *text, size_t size)
{
    if (wire[err->kind].errno_text && err->sys != 0)
        (void)snprintf(text, size, "%s (os error %d)", bly_errno_text(err->sys), err->sys);
    else
        (void)snprintf(text, size, "%s", err->text);
}

int bly_rpc_add_failure_value(struct bly_buf *buf, const struct bly_err *err)
{
    if (wire[err->kind].errno_text && err->sys != 0)
        return add_errno_value(buf, bly_rpc_code(err), err->sys);

    return add_error_value(buf, bly_rpc_code(err), err->text);
}

int bly_rpc_add_failure_with(struct bly_buf *buf, const struct bly_rpc_id *id,
                             const struct bly_err *err, const void *data, size_t len)
{
    bly_buf_add_str(buf, "{\"id\":");
    add_id(buf, id);
    bly_buf_add_str(buf, ",\"error\":");
    bly_rpc_add_failure_value(buf, err);
    if (len > 0 && buf->error == 0) {
        buf->len--; /* the brace: the value goes on */
        bly_buf_add_str(buf, ",\"data\":");
        bly_buf_add(buf, data, len);
        bly_buf_add_char(buf, '}');
    }
    return bly_rpc_end(buf);
}

int bly_rpc_add_failure(struct bly_buf *buf, const struct bly_rpc_id *id, const struct bly_err *err)
{
    return bly_rpc_add_failure_with(buf, id, err, NULL, 0);
}

int bly_rpc_add_bad_message(struct bly_buf *buf, const char *peer, const struct bly_err *err)
{
    static const struct bly_rpc_id nobody = {.type = BLY_RPC_ID_NONE};
    bool websocket = strncmp(peer, "websocket ", strlen("websocket ")) == 0;
    char text[BLY_ERR_TEXT_MAX + 256];

    snprintf(text, sizeof(text), "failed to parse %sJSON-RPC message from exec-server %s: %s",
             websocket ? "websocket " : "", peer, err->text);
    return bly_rpc_add_error(buf, &nobody, BLY_RPC_INVALID, text);
}

int bly_rpc_add_unknown_method(struct bly_buf *buf, const struct bly_rpc_id *id, const char *method,
                               size_t len)
{
    int shown = len < BLY_RPC_METHOD_SHOWN ? (int)len : BLY_RPC_METHOD_SHOWN;
    char text[BLY_RPC_METHOD_SHOWN + 64];

    snprintf(text, sizeof(text), "exec-server stub does not implement `%.*s` yet", shown, method);
    return bly_rpc_add_error(buf, id, BLY_RPC_UNKNOWN, text);
}

int bly_rpc_add_too_long(struct bly_buf *buf, const struct bly_rpc_id *id, uint64_t n, uint64_t max)
{
    char text[128];

    snprintf(text, sizeof(text),
             "response of %" PRIu64 " bytes exceeds the limit of %" PRIu64 " bytes", n, max);
    return bly_rpc_add_error(buf, id, BLY_RPC_INTERNAL, text);
}
