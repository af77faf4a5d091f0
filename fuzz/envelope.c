/*
 * The JSON-RPC envelope: every message is read or refused, and every answer to it is JSON that
 * carries the same id.
 */
#include "rpc/rpc.h"

#include "base/cleanup.h"
#include "fuzz.h"

static void check_id(const struct bly_rpc_id *id, yyjson_val *echo)
{
    switch (id->type) {
    case BLY_RPC_ID_INT:
        FUZZ_MUST(yyjson_is_int(echo) && yyjson_get_sint(echo) == id->num);
        break;
    case BLY_RPC_ID_STR:
        FUZZ_MUST(yyjson_is_str(echo) && yyjson_get_len(echo) == id->len);
        FUZZ_MUST(memcmp(yyjson_get_str(echo), id->str, id->len) == 0);
        break;
    case BLY_RPC_ID_NONE:
        FUZZ_MUST(!echo || yyjson_is_null(echo));
        break;
    }
}

/* `answer` is used up. */
static void check_answer(struct bly_buf *answer, const struct bly_rpc_id *id)
{
    yyjson_doc *doc = NULL;

    FUZZ_MUST(answer->error == 0);
    FUZZ_MUST(bly_json_read_copy((const char *)answer->data, answer->len, &doc, NULL) == 0);
    check_id(id, yyjson_obj_get(yyjson_doc_get_root(doc), "id"));
    yyjson_doc_free(doc);
    answer->len = 0;
}

static void check_answers(const struct bly_rpc_message *message)
{
    static const struct bly_err failure = {BLY_ERR_SYSTEM, ENOENT, "cannot open \"x\"\n"};
    const struct bly_rpc_id *id = &message->id;
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, FUZZ_OUTPUT_MAX);
    bly_rpc_begin_result(&buf, id);
    bly_buf_add_str(&buf, "{}");
    bly_rpc_end(&buf);
    check_answer(&buf, id);

    bly_rpc_add_failure(&buf, id, &failure);
    check_answer(&buf, id);

    bly_rpc_add_unknown_method(&buf, id, message->method, message->method_len);
    check_answer(&buf, id);

    bly_rpc_add_too_long(&buf, id, 2, 1);
    check_answer(&buf, id);
}

static void check_refusal(int r, const struct bly_err *err)
{
    bly_autobuf struct bly_buf buf;

    fuzz_check_failure(r, err);
    bly_buf_init(&buf, FUZZ_OUTPUT_MAX);
    bly_rpc_add_bad_message(&buf, "stdio", err);
    fuzz_check_json(&buf);
}

static void check_message(const struct bly_rpc_message *message)
{
    switch (message->kind) {
    case BLY_RPC_REQUEST:
        FUZZ_MUST(message->id.type != BLY_RPC_ID_NONE && message->method);
        check_answers(message);
        break;
    case BLY_RPC_NOTIFICATION:
        FUZZ_MUST(message->id.type == BLY_RPC_ID_NONE && message->method);
        break;
    case BLY_RPC_RESPONSE:
        FUZZ_MUST(message->id.type != BLY_RPC_ID_NONE && !message->method);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bly_autofree char *text = fuzz_json_text(data, size);
    struct bly_rpc_message message = {0};
    struct bly_err err = {0};
    int r = bly_rpc_parse(text, size, &message, &err);

    if (r < 0) {
        check_refusal(r, &err);
        return 0;
    }
    check_message(&message);
    bly_rpc_message_deinit(&message);
    return 0;
}
