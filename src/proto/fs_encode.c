#include "proto/proto.h"

#include <errno.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/path.h"
#include "proto/encode.h"
#include "rpc/rpc.h"
#include "sandbox/policy/policy.h"

static int encode_nothing(const struct bly_fs_params *params, const struct bly_fs_reply *reply,
                          struct bly_buf *buf)
{
    (void)params;
    (void)reply;
    return BLY_ADD(buf, "{}");
}

static int encode_metadata(const struct bly_fs_params *params, const struct bly_fs_reply *reply,
                           struct bly_buf *buf)
{
    const struct bly_fs_metadata *m = &reply->metadata;

    (void)params;
    BLY_ADD(buf, "{\"isDirectory\":");
    bly_encode_bool(buf, m->is_directory);
    BLY_ADD(buf, ",\"isFile\":");
    bly_encode_bool(buf, m->is_file);
    BLY_ADD(buf, ",\"isSymlink\":");
    bly_encode_bool(buf, m->is_symlink);
    BLY_ADD(buf, ",\"size\":");
    bly_json_add_u64(buf, m->size);
    BLY_ADD(buf, ",\"createdAtMs\":");
    bly_json_add_i64(buf, m->created_at_ms);
    BLY_ADD(buf, ",\"modifiedAtMs\":");
    bly_json_add_i64(buf, m->modified_at_ms);
    return BLY_ADD(buf, "}");
}

/*
 * The entries of a sandboxed request were written by a helper. One that did not write what it
 * should have fails the answer.
 */
static int check_reader(struct bly_buf *buf, const struct bly_reader *in)
{
    if (in->bad && buf->error == 0)
        buf->error = -EBADMSG;
    return buf->error;
}

/* Up to 50 000 of them, on the loop: as few calls as possible for each. */
static int add_directory_entry(struct bly_buf *buf, bool first, uint8_t flags, const char *name,
                               size_t len)
{
    if (first)
        BLY_ADD(buf, "{\"fileName\":");
    else
        BLY_ADD(buf, ",{\"fileName\":");
    bly_json_add_str(buf, name, len);
    if (flags & BLY_FS_ENTRY_FILE)
        return BLY_ADD(buf, ",\"isDirectory\":false,\"isFile\":true}");
    if (flags & BLY_FS_ENTRY_DIRECTORY)
        return BLY_ADD(buf, ",\"isDirectory\":true,\"isFile\":false}");
    return BLY_ADD(buf, ",\"isDirectory\":false,\"isFile\":false}");
}

static int encode_read_directory(const struct bly_fs_params *params,
                                 const struct bly_fs_reply *reply, struct bly_buf *buf)
{
    struct bly_reader in = bly_reader_of(reply->entries.data, reply->entries.len);

    (void)params;
    BLY_ADD(buf, "{\"entries\":[");
    for (size_t i = 0; i < reply->n_entries && check_reader(buf, &in) == 0; i++) {
        uint8_t flags = bly_get_u8(&in);
        size_t len;
        const uint8_t *name = bly_get_bytes(&in, &len);

        add_directory_entry(buf, i == 0, flags, (const char *)name, len);
    }
    check_reader(buf, &in);
    return BLY_ADD(buf, "]}");
}

static int add_walk_entry(struct bly_buf *buf, uint8_t flags, const char *path, const char *message)
{
    BLY_ADD(buf, "{\"path\":");
    bly_encode_uri(buf, path);
    if (flags & BLY_FS_ENTRY_ERROR) {
        BLY_ADD(buf, ",\"message\":");
        bly_json_add_cstr(buf, message);
        return BLY_ADD(buf, "}");
    }
    if (flags & BLY_FS_ENTRY_DIRECTORY)
        return BLY_ADD(buf, ",\"kind\":\"directory\"}");
    return BLY_ADD(buf, ",\"kind\":\"file\"}");
}

/* Entries and errors come mixed, in the order of the walk: one pass for each of the two lists. */
static void add_walk_list(struct bly_buf *buf, const struct bly_fs_reply *reply, bool errors)
{
    struct bly_reader in = bly_reader_of(reply->entries.data, reply->entries.len);
    bool first = true;

    for (size_t i = 0; i < reply->n_entries && check_reader(buf, &in) == 0; i++) {
        uint8_t flags = bly_get_u8(&in);
        bool is_error = flags & BLY_FS_ENTRY_ERROR;
        bly_autofree char *path = bly_get_str(&in);
        bly_autofree char *message = is_error ? bly_get_str(&in) : NULL;

        if (in.bad || !path || (is_error && !message) || is_error != errors)
            continue;
        if (!first)
            BLY_ADD(buf, ",");
        first = false;
        add_walk_entry(buf, flags, path, message);
    }
    check_reader(buf, &in);
}

static int encode_walk(const struct bly_fs_params *params, const struct bly_fs_reply *reply,
                       struct bly_buf *buf)
{
    (void)params;
    BLY_ADD(buf, "{\"entries\":[");
    add_walk_list(buf, reply, false);
    BLY_ADD(buf, "],\"errors\":[");
    add_walk_list(buf, reply, true);
    BLY_ADD(buf, "],\"truncated\":");
    bly_encode_bool(buf, reply->truncated);
    return BLY_ADD(buf, "}");
}

static int encode_canonicalize(const struct bly_fs_params *params, const struct bly_fs_reply *reply,
                               struct bly_buf *buf)
{
    (void)params;
    BLY_ADD(buf, "{\"path\":");
    bly_encode_uri(buf, reply->path);
    return BLY_ADD(buf, "}");
}

static int encode_open(const struct bly_fs_params *params, const struct bly_fs_reply *reply,
                       struct bly_buf *buf)
{
    (void)reply;
    BLY_ADD(buf, "{\"handleId\":");
    bly_json_add_str(buf, params->handle_id, params->handle_id_len);
    return BLY_ADD(buf, "}");
}

/* For whoever needs the value in one piece; the server writes head and tail around the text. */
static int encode_text(const struct bly_fs_params *params, const struct bly_fs_reply *reply,
                       struct bly_buf *buf)
{
    (void)params;
    BLY_ADD(buf, "{\"dataBase64\":\"");
    bly_buf_add(buf, reply->text_mem + BLY_FS_TEXT_HEAD, reply->text_len);
    return BLY_ADD(buf, "\"}");
}

static int encode_block(const struct bly_fs_params *params, const struct bly_fs_reply *reply,
                        struct bly_buf *buf)
{
    (void)params;
    BLY_ADD(buf, "{\"chunk\":\"");
    bly_buf_add(buf, reply->text_mem + BLY_FS_TEXT_HEAD, reply->text_len);
    BLY_ADD(buf, "\",\"eof\":");
    bly_encode_bool(buf, reply->eof);
    return BLY_ADD(buf, "}");
}

typedef int (*encode_fn)(const struct bly_fs_params *params, const struct bly_fs_reply *reply,
                         struct bly_buf *buf);

static const encode_fn encoders[] = {
    [BLY_FS_READ_FILE] = encode_text,
    [BLY_FS_WRITE_FILE] = encode_nothing,
    [BLY_FS_CREATE_DIRECTORY] = encode_nothing,
    [BLY_FS_GET_METADATA] = encode_metadata,
    [BLY_FS_READ_DIRECTORY] = encode_read_directory,
    [BLY_FS_REMOVE] = encode_nothing,
    [BLY_FS_COPY] = encode_nothing,
    [BLY_FS_CANONICALIZE] = encode_canonicalize,
    [BLY_FS_WALK] = encode_walk,
    [BLY_FS_OPEN] = encode_open,
    [BLY_FS_READ_BLOCK] = encode_block,
    [BLY_FS_WRITE_BLOCK] = encode_nothing,
};

int bly_proto_encode_fs(enum bly_fs_op op, const struct bly_fs_params *params,
                        const struct bly_fs_reply *reply, struct bly_buf *buf)
{
    return encoders[op](params, reply, buf);
}

int bly_proto_encode_text_head(enum bly_fs_op op, const struct bly_rpc_id *id, struct bly_buf *buf)
{
    bly_rpc_begin_result(buf, id);
    if (op == BLY_FS_READ_BLOCK)
        return BLY_ADD(buf, "{\"chunk\":\"");
    return BLY_ADD(buf, "{\"dataBase64\":\"");
}

int bly_proto_encode_text_tail(enum bly_fs_op op, const struct bly_fs_reply *reply,
                               struct bly_buf *buf)
{
    if (op != BLY_FS_READ_BLOCK)
        return BLY_ADD(buf, "\"}}");
    if (reply->eof)
        return BLY_ADD(buf, "\",\"eof\":true}}");
    return BLY_ADD(buf, "\",\"eof\":false}}");
}

/* ---- denials -------------------------------------------------------------------------------- */

static const char *access_name(enum bly_fs_op op, const struct bly_denial *denial)
{
    if (denial->access == BLY_DENIED_READ)
        return "read";
    if (op == BLY_FS_CREATE_DIRECTORY)
        return "create";
    return op == BLY_FS_REMOVE ? "remove" : "write";
}

/* A copy reads its source and writes its destination. */
static const char *denied_path(const struct bly_fs_request *request,
                               const struct bly_denial *denial)
{
    bool writes = denial->access == BLY_DENIED_WRITE;

    return writes && request->destination_path ? request->destination_path : request->path;
}

static void add_rule(const struct bly_rule *rule, struct bly_buf *buf)
{
    static const char *const names[] = {[BLY_ACCESS_NONE] = "none",
                                        [BLY_ACCESS_READ] = "read",
                                        [BLY_ACCESS_WRITE] = "write",
                                        [BLY_ACCESS_DENY] = "deny"};

    bly_buf_add_str(buf, "{\"path\":");
    bly_json_add_cstr(buf, rule->path);
    bly_buf_printf(buf, ",\"access\":\"%s\"}", names[rule->access]);
}

static void add_protected_name(const char *root, const char *name, struct bly_buf *buf)
{
    bly_autofree char *path = bly_path_join(root, name);

    bly_buf_add_str(buf, "{\"path\":");
    bly_json_add_cstr(buf, path ? path : name);
    bly_buf_add_str(buf, ",\"access\":\"read\",\"protected\":true}");
}

static void add_reason(const struct bly_policy *policy, const struct bly_denial *denial,
                       struct bly_buf *buf)
{
    switch (denial->by) {
    case BLY_BY_RULE:
        add_rule(&policy->rules[denial->index], buf);
        break;
    case BLY_BY_NAME:
        add_protected_name(policy->rules[denial->index].path,
                           bly_policy_protected_names[denial->name], buf);
        break;
    case BLY_BY_GLOB:
        bly_buf_add_str(buf, "{\"glob\":");
        bly_json_add_cstr(buf, policy->deny_globs[denial->index]);
        bly_buf_add_str(buf, ",\"access\":\"deny\"}");
        break;
    case BLY_BY_DERIVED:
        bly_buf_add_str(buf, "{\"derived\":true}");
        break;
    default:
        bly_buf_add_str(buf, "null");
    }
}

int bly_proto_encode_denial(enum bly_fs_op op, const struct bly_fs_params *params,
                            const struct bly_err *err, struct bly_buf *buf)
{
    const struct bly_denial *denial = &err->denial;

    if (denial->access == BLY_DENIED_NOTHING || !params->policy)
        return buf->error;
    bly_buf_add_str(buf, "{\"denial\":{\"path\":");
    bly_json_add_cstr(buf, denied_path(&params->request, denial));
    bly_buf_printf(buf, ",\"access\":\"%s\",\"rule\":", access_name(op, denial));
    add_reason(params->policy, denial, buf);
    return bly_buf_printf(buf, ",\"rung\":%u}}", denial->rung);
}
