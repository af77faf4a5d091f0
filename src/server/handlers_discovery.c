#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/path.h"
#include "proto/discovery.h"
#include "sandbox/policy/policy.h"
#include "server/internal.h"

enum { URI_MAX = BLY_ERR_TEXT_MAX + 3 * BLY_PATH_MAX }; /* a path as a URI, escaped */

/*
 * One root after the other, one file after the other: at any time a single request to the file
 * system is under way, so that the call can be cancelled like any other. proto/discovery knows what
 * comes next.
 */
struct bly_discover {
    struct bly_buf answer;
    size_t values;                   /* JSON values in it */
    size_t root;                     /* index of the one being looked at */
    struct bly_discovery *discovery; /* NULL: it is being inspected */
};

int bly_decode_discover(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    struct bly_policy_env env = bly_connection_policy_env(call->connection);

    return bly_proto_decode_discover(params, &env, &call->params.discover, err);
}

void bly_deinit_discover(struct bly_call *call)
{
    struct bly_discover *discover = call->discover;

    bly_discover_params_deinit(&call->params.discover);
    if (!discover)
        return;
    bly_buf_deinit(&discover->answer);
    bly_discovery_free(discover->discovery);
    free(discover);
}

static const struct bly_discover_root *this_root(const struct bly_call *call)
{
    return &call->params.discover.roots[call->discover->root];
}

static void give_up(struct bly_call *call, enum bly_err_kind kind, int error, const char *text)
{
    struct bly_err err;

    (void)bly_fail(&err, kind, error, "%s", text);
    bly_call_fail(call, &err);
    bly_call_done(call);
}

/* What a request with this root's policy may do, and no more. */
static int submit(struct bly_call *call, const struct bly_fs_request *request, bly_fs_done done)
{
    struct bly_policy *policy = this_root(call)->policy;
    struct bly_fs *fs = call->session->fs;
    struct bly_fs_context *context = NULL;
    int r = 0;

    if (policy && policy->wall)
        r = bly_fs_context(fs, policy, &context);
    return r < 0 ? r : bly_fs_submit(fs, context, request, done, call, &call->fs_call);
}

/* Or ends the call, when there is nobody to go on for. */
static void go_on(struct bly_call *call, const struct bly_fs_request *request, bly_fs_done done)
{
    if (!call->connection->conn)
        bly_call_done(call);
    else if (call->session->ended)
        give_up(call, BLY_ERR_GONE, ESHUTDOWN, "session has ended");
    else if (submit(call, request, done) < 0)
        give_up(call, BLY_ERR_LIMIT, ENOMEM, "out of memory");
}

/* ---- the files of a root -------------------------------------------------------------------- */

static void finish_root(struct bly_call *call);
static void inspect_root(struct bly_call *call);
static void read_next(struct bly_call *call);

static void on_read(void *arg, struct bly_fs_reply *reply)
{
    struct bly_call *call = arg;
    struct bly_discovery *discovery = call->discover->discovery;
    char *text = reply->text_mem ? reply->text_mem + BLY_FS_TEXT_HEAD : NULL;
    size_t n = 0;

    call->fs_call = NULL;
    if (reply->err.kind == BLY_ERR_NONE && !reply->too_long && text &&
        bly_base64_decode(text, reply->text_len, text, &n, NULL) < 0)
        (void)bly_fail(&reply->err, BLY_ERR_BUG, EBADMSG, "a file came as something else");

    if (reply->err.kind != BLY_ERR_NONE)
        bly_discovery_not_read(discovery, &reply->err);
    else if (reply->too_long)
        bly_discovery_too_long(discovery, reply->too_long / 4 * 3 - 2); /* at least */
    else
        bly_discovery_read(discovery, text ? text : "", n);
    read_next(call);
}

static void read_next(struct bly_call *call)
{
    struct bly_discovery *discovery = call->discover->discovery;
    struct bly_fs_request request = {
        .op = BLY_FS_READ_FILE,
        .path = bly_discovery_next(discovery),
        .max_text_bytes = bly_base64_len(bly_discovery_room(discovery)),
        .fd = -EBADF,
    };

    if (request.path)
        go_on(call, &request, on_read);
    else
        finish_root(call);
}

static void on_listed(void *arg, struct bly_fs_reply *reply)
{
    struct bly_call *call = arg;
    struct bly_discovery *discovery = call->discover->discovery;

    call->fs_call = NULL;
    if (reply->err.kind == BLY_ERR_NONE)
        bly_discovery_listed(discovery, reply);
    else
        bly_discovery_not_listed(discovery, &reply->err);
    read_next(call);
}

/* ---- a root --------------------------------------------------------------------------------- */

/* "BEFORE URI AFTER" in place of what the root holds. `path` NULL: it has the client's words. */
static void add_error(struct bly_call *call, const char *before, const char *after)
{
    const struct bly_discover_root *root = this_root(call);
    struct bly_discover *discover = call->discover;
    bly_autobuf struct bly_buf uri, text;

    bly_buf_init(&uri, URI_MAX);
    bly_buf_init(&text, (size_t)2 * URI_MAX);
    if (root->path)
        bly_path_to_uri(&uri, root->path);
    else
        bly_buf_add(&uri, root->path_text, root->path_text_len);
    bly_buf_add_str(&text, before);
    bly_buf_add(&text, uri.data, uri.len);
    bly_buf_add_str(&text, after);
    bly_buf_add_char(&text, '\0');
    bly_discovery_add_error(root->id, root->id_len, (const char *)uri.data, uri.len,
                            text.error ? before : (const char *)text.data, &discover->values,
                            &discover->answer);
}

static void add_failed(struct bly_call *call, const char *reason)
{
    char after[BLY_ERR_TEXT_MAX + 2];

    (void)snprintf(after, sizeof(after), ": %s", reason);
    add_error(call, "failed to inspect capability root ", after);
}

static void finish_root(struct bly_call *call)
{
    struct bly_discover *discover = call->discover;
    const struct bly_discover_root *root = this_root(call);

    if (discover->discovery)
        bly_discovery_add(discover->discovery, root->id, root->id_len, &discover->values,
                          &discover->answer);
    discover->discovery = bly_discovery_free(discover->discovery);
    discover->root++;
    inspect_root(call);
}

static void list_root(struct bly_call *call)
{
    struct bly_discover *discover = call->discover;
    const struct bly_fs_request request = {
        .op = BLY_FS_WALK,
        .path = this_root(call)->path,
        .walk = bly_discovery_walk,
        .fd = -EBADF,
    };

    if (bly_discovery_new(request.path, &discover->discovery) < 0)
        give_up(call, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    else
        go_on(call, &request, on_listed);
}

static void on_inspected(void *arg, struct bly_fs_reply *reply)
{
    struct bly_call *call = arg;
    char reason[BLY_ERR_TEXT_MAX];

    call->fs_call = NULL;
    if (reply->err.kind == BLY_ERR_NONE && reply->metadata.is_directory) {
        list_root(call);
        return;
    }
    if (reply->err.kind == BLY_ERR_NONE) {
        add_error(call, "capability root ", " is not a directory");
    } else {
        bly_rpc_failure_text(&reply->err, reason, sizeof(reason));
        add_failed(call, reason);
    }
    finish_root(call);
}

static void finish(struct bly_call *call)
{
    struct bly_discover *discover = call->discover;

    (void)bly_buf_add_str(&discover->answer, "]}");
    if (discover->values > BLY_JSON_MAX_VALUES) {
        give_up(call, BLY_ERR_LIMIT, E2BIG, "response exceeds the limit of 262144 JSON values");
        return;
    }
    bly_call_end_result(call, &discover->answer);
    bly_call_done(call);
}

/* The next root, if there is one and the answer still has room. */
static void inspect_root(struct bly_call *call)
{
    const struct bly_discover_params *params = &call->params.discover;
    struct bly_discover *discover = call->discover;
    struct bly_fs_request request = {.op = BLY_FS_GET_METADATA, .fd = -EBADF};
    bool full = discover->answer.error || discover->values > BLY_JSON_MAX_VALUES;

    for (; discover->root < params->n_roots && !full; discover->root++) {
        if (discover->root > 0)
            (void)bly_buf_add_char(&discover->answer, ',');
        request.path = this_root(call)->path;
        if (request.path) {
            go_on(call, &request, on_inspected);
            return;
        }
        add_failed(call, this_root(call)->reason);
    }
    finish(call);
}

void bly_run_discover(struct bly_call *call)
{
    struct bly_discover *discover = calloc(1, sizeof(*discover));

    if (!discover) {
        give_up(call, BLY_ERR_LIMIT, ENOMEM, "out of memory");
        return;
    }
    call->discover = discover;
    bly_call_begin_result(call, &discover->answer);
    /* No more is gathered than can be sent; one byte more says that it was too much. */
    discover->answer.max = call->connection->server->config.limits->reply_bytes + 1;
    discover->values = 3; /* id, result, roots */
    (void)bly_buf_add_str(&discover->answer, "{\"roots\":[");
    inspect_root(call);
}

/* ---- what is installed ---------------------------------------------------------------------- */

int bly_decode_discover_installed(struct bly_call *call, yyjson_val *params, struct bly_err *err)
{
    struct bly_policy_env env = bly_connection_policy_env(call->connection);

    return bly_proto_decode_discover_installed(params, &env, err);
}

/* Nothing is ever installed in this server, and environmentInfo says that it need not be asked. */
void bly_run_discover_installed(struct bly_call *call)
{
    bly_call_result(call, "{\"plugins\":[],\"skills\":[],\"warnings\":[]}");
    bly_call_done(call);
}
