#include "client/rpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/path.h"

enum {
    PARAMS_MAX = 256 << 20,
    TERMINATE_MS = 1000, /* past the deadline, to get rid of a process that ran into it */
};

/* Building params: {"name":VALUE,... */

static void add_name(struct bly_buf *params, const char *name)
{
    bly_buf_add_char(params, params->len == 0 ? '{' : ',');
    bly_json_add_cstr(params, name);
    bly_buf_add_char(params, ':');
}

static void add_text(struct bly_buf *params, const char *name, const char *text)
{
    add_name(params, name);
    bly_json_add_cstr(params, text);
}

static void add_raw(struct bly_buf *params, const char *name, const char *json)
{
    add_name(params, name);
    bly_buf_add_str(params, json);
}

static void add_bool(struct bly_buf *params, const char *name, bool value)
{
    add_raw(params, name, value ? "true" : "false");
}

static void add_path(struct bly_buf *params, const char *name, const char *path)
{
    bly_autobuf struct bly_buf uri;

    bly_buf_init(&uri, PARAMS_MAX);
    bly_path_to_uri(&uri, path);
    add_name(params, name);
    bly_json_add_str(params, (char *)uri.data, uri.len);
}

static void add_base64(struct bly_buf *params, const char *name, const void *data, size_t len)
{
    add_name(params, name);
    bly_buf_add_char(params, '"');
    if (bly_buf_reserve(params, bly_base64_len(len)) == 0) {
        bly_base64_encode(data, len, (char *)params->data + params->len);
        params->len += bly_base64_len(len);
    }
    bly_buf_add_char(params, '"');
}

static void begin(struct bly_buf *params, const char *path, const char *sandbox_json)
{
    bly_buf_init(params, PARAMS_MAX);
    add_path(params, "path", path);
    if (sandbox_json)
        add_raw(params, "sandbox", sandbox_json);
}

/* Ends the params and calls; the answer's result is in *ret_result, borrowed from *ret_answer. */
static int call(struct bly_client *client, const char *method, struct bly_buf *params,
                struct bly_client_message *ret_answer, yyjson_val **ret_result,
                struct bly_client_error *ret_error)
{
    bly_buf_add_char(params, '}');
    return bly_client_request(client, method, params, bly_client_deadline(client), ret_answer,
                              ret_result, ret_error);
}

static int call_only(struct bly_client *client, const char *method, struct bly_buf *params,
                     struct bly_client_error *ret_error)
{
    bly_automessage struct bly_client_message answer = {0};
    yyjson_val *result;

    return call(client, method, params, &answer, &result, ret_error);
}

/* Decodes a base64 member; the bytes are malloc'ed. */
static int take_base64(yyjson_val *value, uint8_t **ret_data, size_t *ret_len)
{
    size_t text_len = yyjson_get_len(value);
    const char *text = yyjson_get_str(value);
    bly_autofree uint8_t *data = NULL;
    size_t len;

    if (!text)
        return -EBADMSG;
    data = malloc(text_len / 4 * 3 + 1);
    if (!data)
        return -ENOMEM;
    if (bly_base64_decode(text, text_len, data, &len, NULL) < 0)
        return -EBADMSG;
    data[len] = '\0';
    *ret_data = bly_take_ptr(&data);
    *ret_len = len;
    return 0;
}

/* Files */

int bly_client_read_file(struct bly_client *client, const char *path, const char *sandbox_json,
                         uint8_t **ret_data, size_t *ret_len, struct bly_client_error *ret_error)
{
    bly_automessage struct bly_client_message answer = {0};
    bly_autobuf struct bly_buf params;
    yyjson_val *result;
    int r;

    begin(&params, path, sandbox_json);
    r = call(client, "fs/readFile", &params, &answer, &result, ret_error);
    if (r < 0)
        return r;
    r = take_base64(yyjson_obj_get(result, "dataBase64"), ret_data, ret_len);
    return r < 0 ? bly_client_error_local(ret_error, r, "the answer has no readable data") : 0;
}

int bly_client_write_file(struct bly_client *client, const char *path, const void *data, size_t len,
                          const char *sandbox_json, struct bly_client_error *ret_error)
{
    bly_autobuf struct bly_buf params;

    begin(&params, path, sandbox_json);
    add_base64(&params, "dataBase64", data, len);
    return call_only(client, "fs/writeFile", &params, ret_error);
}

int bly_client_create_directory(struct bly_client *client, const char *path, bool recursive,
                                const char *sandbox_json, struct bly_client_error *ret_error)
{
    bly_autobuf struct bly_buf params;

    begin(&params, path, sandbox_json);
    add_bool(&params, "recursive", recursive);
    return call_only(client, "fs/createDirectory", &params, ret_error);
}

int bly_client_remove(struct bly_client *client, const char *path, bool recursive, bool force,
                      const char *sandbox_json, struct bly_client_error *ret_error)
{
    bly_autobuf struct bly_buf params;

    begin(&params, path, sandbox_json);
    add_bool(&params, "recursive", recursive);
    add_bool(&params, "force", force);
    return call_only(client, "fs/remove", &params, ret_error);
}

int bly_client_copy(struct bly_client *client, const char *source, const char *destination,
                    bool recursive, const char *sandbox_json, struct bly_client_error *ret_error)
{
    bly_autobuf struct bly_buf params;

    bly_buf_init(&params, PARAMS_MAX);
    add_path(&params, "sourcePath", source);
    add_path(&params, "destinationPath", destination);
    add_bool(&params, "recursive", recursive);
    if (sandbox_json)
        add_raw(&params, "sandbox", sandbox_json);
    return call_only(client, "fs/copy", &params, ret_error);
}

int bly_client_metadata(struct bly_client *client, const char *path, const char *sandbox_json,
                        struct bly_client_metadata *ret_metadata,
                        struct bly_client_error *ret_error)
{
    bly_automessage struct bly_client_message answer = {0};
    bly_autobuf struct bly_buf params;
    yyjson_val *result;
    int r;

    begin(&params, path, sandbox_json);
    r = call(client, "fs/getMetadata", &params, &answer, &result, ret_error);
    if (r < 0)
        return r;
    *ret_metadata = (struct bly_client_metadata){
        .is_directory = yyjson_get_bool(yyjson_obj_get(result, "isDirectory")),
        .is_file = yyjson_get_bool(yyjson_obj_get(result, "isFile")),
        .is_symlink = yyjson_get_bool(yyjson_obj_get(result, "isSymlink")),
        .size = yyjson_get_uint(yyjson_obj_get(result, "size")),
        .modified_at_ms = yyjson_get_sint(yyjson_obj_get(result, "modifiedAtMs")),
    };
    return 0;
}

/* Programs */

static void add_argv(struct bly_buf *params, const char *const *argv)
{
    add_name(params, "argv");
    bly_buf_add_char(params, '[');
    for (size_t i = 0; argv[i]; i++) {
        if (i > 0)
            bly_buf_add_char(params, ',');
        bly_json_add_cstr(params, argv[i]);
    }
    bly_buf_add_char(params, ']');
}

static void add_env(struct bly_buf *params, const char *const *envp)
{
    add_name(params, "env");
    bly_buf_add_char(params, '{');
    for (size_t i = 0; envp && envp[i]; i++) {
        size_t name_len = strcspn(envp[i], "=");

        if (i > 0)
            bly_buf_add_char(params, ',');
        bly_json_add_str(params, envp[i], name_len);
        bly_buf_add_char(params, ':');
        bly_json_add_cstr(params, envp[i] + name_len + (envp[i][name_len] == '='));
    }
    bly_buf_add_char(params, '}');
    if (!envp)
        add_raw(params, "envPolicy",
                "{\"inherit\":\"all\",\"ignoreDefaultExcludes\":true,\"exclude\":[],\"set\":{},"
                "\"includeOnly\":[]}");
}

static int start(struct bly_client *client, const struct bly_client_run *run,
                 const char *process_id, uint64_t deadline_ms, struct bly_client_error *ret_error)
{
    bly_automessage struct bly_client_message answer = {0};
    bly_autobuf struct bly_buf params;
    yyjson_val *result;

    bly_buf_init(&params, PARAMS_MAX);
    add_text(&params, "processId", process_id);
    add_argv(&params, run->argv);
    add_path(&params, "cwd", run->cwd);
    add_env(&params, run->envp);
    add_bool(&params, "tty", run->tty);
    if (run->sandbox_json)
        add_raw(&params, "sandbox", run->sandbox_json);
    bly_buf_add_char(&params, '}');
    return bly_client_request(client, "process/start", &params, deadline_ms, &answer, &result,
                              ret_error);
}

static int pass_output(const struct bly_client_run *run, yyjson_val *event,
                       struct bly_client_error *ret_error)
{
    const char *stream = yyjson_get_str(yyjson_obj_get(event, "stream"));
    bly_autofree uint8_t *data = NULL;
    size_t len;
    int r = take_base64(yyjson_obj_get(event, "chunk"), &data, &len);

    if (r < 0 || !stream)
        return bly_client_error_local(ret_error, r < 0 ? r : -EBADMSG, "unreadable output event");
    if (run->output)
        run->output(run->arg, stream, data, len);
    return 0;
}

/* 1 when the process is closed. */
static int take_event(const struct bly_client_run *run, const struct bly_client_message *message,
                      struct bly_client_exit *exited, struct bly_client_error *ret_error)
{
    yyjson_val *root = yyjson_doc_get_root(message->doc);
    yyjson_val *method = yyjson_obj_get(root, "method"), *event = yyjson_obj_get(root, "params");

    if (yyjson_equals_str(method, "process/output"))
        return pass_output(run, event, ret_error);
    if (yyjson_equals_str(method, "process/exited")) {
        exited->exit_code = (int)yyjson_get_sint(yyjson_obj_get(event, "exitCode"));
        exited->sandbox_denied = yyjson_get_bool(yyjson_obj_get(event, "sandboxDenied"));
    }
    return yyjson_equals_str(method, "process/closed");
}

/* After a failure: nobody listens to that process any more. */
static void terminate(struct bly_client *client, const char *process_id, uint64_t deadline_ms)
{
    bly_automessage struct bly_client_message answer = {0};
    bly_autobuf struct bly_buf params;
    yyjson_val *result;

    bly_buf_init(&params, PARAMS_MAX);
    add_text(&params, "processId", process_id);
    bly_buf_add_char(&params, '}');
    (void)bly_client_request(client, "process/terminate", &params, deadline_ms, &answer, &result,
                             NULL);
}

int bly_client_run(struct bly_client *client, const struct bly_client_run *run,
                   struct bly_client_exit *ret_exit, struct bly_client_error *ret_error)
{
    uint64_t deadline_ms = bly_client_deadline(client);
    struct bly_client_exit exited = {0};
    char process_id[48];
    int r;

    snprintf(process_id, sizeof(process_id), "bailey-client-%llx",
             (unsigned long long)bly_client_number(client));
    r = start(client, run, process_id, deadline_ms, ret_error);
    if (r < 0)
        return r;

    while (r == 0) {
        bly_automessage struct bly_client_message message = {0};

        r = bly_client_await_process(client, process_id, deadline_ms, &message, ret_error);
        if (r == 0)
            r = take_event(run, &message, &exited, ret_error);
    }
    if (r < 0) {
        terminate(client, process_id, deadline_ms + TERMINATE_MS);
        return r;
    }
    *ret_exit = exited;
    return 0;
}
