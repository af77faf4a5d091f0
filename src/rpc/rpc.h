#pragma once

/*
 * The JSON-RPC envelope: one object a message, no "jsonrpc" member (spec section 2). Pure; any
 * thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

struct bly_buf;
struct bly_err;

/* Error codes of the protocol; docs/PROTOCOL.md says what each is used for. */
enum {
    BLY_RPC_INVALID = -32600,
    BLY_RPC_UNKNOWN = -32601,
    BLY_RPC_PARAMS = -32602,
    BLY_RPC_INTERNAL = -32603,
    BLY_RPC_NOT_FOUND = -32004,
    BLY_RPC_ATTACHED = -32010,
};

enum bly_rpc_id_type { BLY_RPC_ID_NONE, BLY_RPC_ID_INT, BLY_RPC_ID_STR };

struct bly_rpc_id {
    enum bly_rpc_id_type type;
    int64_t num;
    const char *str; /* borrowed from the message's document, len bytes, may contain NUL */
    size_t len;
};

enum bly_rpc_kind { BLY_RPC_REQUEST, BLY_RPC_NOTIFICATION, BLY_RPC_RESPONSE };

struct bly_rpc_message {
    enum bly_rpc_kind kind;
    struct bly_rpc_id id;
    const char *method; /* borrowed; may contain NUL, hence the length */
    size_t method_len;
    yyjson_val *params; /* NULL when absent */
    yyjson_doc *doc;    /* owned; borrows the text it was parsed from */
};

/*
 * Parses in situ; `text` as for bly_json_read(), must outlive the message. -EBADMSG with the reason
 * in `err` when it is not a message: answer with bly_rpc_add_bad_message(), the connection stays.
 * -ENOMEM.
 */
int bly_rpc_parse(char *text, size_t len, struct bly_rpc_message *ret_message, struct bly_err *err);
void bly_rpc_message_deinit(struct bly_rpc_message *message);

/* {"id":ID,"result": -- the caller appends the value and bly_rpc_end(). Return buf->error. */
int bly_rpc_begin_result(struct bly_buf *buf, const struct bly_rpc_id *id);
int bly_rpc_end(struct bly_buf *buf);

/* A whole error answer. */
int bly_rpc_add_error(struct bly_buf *buf, const struct bly_rpc_id *id, int code,
                      const char *message);
/* Code and text from the error's kind, see base/err.h: SYSTEM: ENOENT -32004, EACCES EPERM EINVAL
 * -32600, else -32603, "TEXT (os error N)". */
int bly_rpc_add_failure(struct bly_buf *buf, const struct bly_rpc_id *id,
                        const struct bly_err *err);
/* The same with `data` (JSON, len bytes; 0: none) as a third member of the error. */
int bly_rpc_add_failure_with(struct bly_buf *buf, const struct bly_rpc_id *id,
                             const struct bly_err *err, const void *data, size_t len);
int bly_rpc_code(const struct bly_err *err);
/* Only its text, for answers that tell of errors among other things. */
void bly_rpc_failure_text(const struct bly_err *err, char *text, size_t size);
/* Only the value {"code":...,"message":...} of that answer. */
int bly_rpc_add_failure_value(struct bly_buf *buf, const struct bly_err *err);
/* "failed to parse websocket JSON-RPC message from exec-server PEER: REASON", code -32600, id -1.
 * `peer`: "websocket 127.0.0.1:51234" or "stdio". */
int bly_rpc_add_bad_message(struct bly_buf *buf, const char *peer, const struct bly_err *err);

enum { BLY_RPC_METHOD_SHOWN = 256 }; /* bytes of an unknown method's name that are repeated */

/* -32601, in the words the protocol has for it. */
int bly_rpc_add_unknown_method(struct bly_buf *buf, const struct bly_rpc_id *id, const char *method,
                               size_t len);
/* -32603 in place of an answer of `n` bytes that is longer than `max`. */
int bly_rpc_add_too_long(struct bly_buf *buf, const struct bly_rpc_id *id, uint64_t n,
                         uint64_t max);

/* {"method":M,"params": -- the caller appends params and bly_rpc_end(). */
int bly_rpc_begin_notification(struct bly_buf *buf, const char *method);
