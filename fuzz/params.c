/*
 * The parameters of every method. The first byte of the input selects the method, from 'A' on in
 * the order of the table; the rest is the JSON text of `params`.
 *
 * What was decoded is written down as bytes. Both dialects must give the same bytes: every path is
 * spelled the other way and the parameters are decoded once more.
 */
#include "base/cleanup.h"
#include "fuzz.h"
#include "proto/http.h"
#include "proto/oneshot.h"
#include "proto/proto.h"
#include "transport/ws.h"

static char home[] = "HOME=/root", search[] = "PATH=/usr/bin:/bin", secret[] = "API_KEY=x";
static char *const server_env[] = {home, search, secret, NULL};

/* ---- what was decoded, as bytes ---- */

static void put_path(struct bly_buf *out, const char *path)
{
    bly_buf_put_str(out, path);
    if (path)
        fuzz_check_path(path);
}

static void put_policy(struct bly_buf *out, const struct bly_policy *policy)
{
    bly_buf_put_u8(out, policy != NULL);
    if (policy)
        FUZZ_MUST(bly_policy_pack(policy, out) == 0);
}

static void put_text(struct bly_buf *out, const char *text, size_t len)
{
    bly_buf_put_u8(out, text != NULL);
    if (text)
        bly_buf_put_bytes(out, text, len);
}

static void put_list(struct bly_buf *out, char *const *list)
{
    for (; *list; list++)
        bly_buf_put_str(out, *list);
    bly_buf_put_str(out, NULL);
}

static void put_fs(struct bly_buf *out, const struct bly_fs_params *params)
{
    const struct bly_fs_request *request = &params->request;
    const struct bly_fs_walk *walk = &request->walk;

    FUZZ_MUST(request->path == params->path);
    FUZZ_MUST(request->destination_path == params->destination_path);
    put_path(out, request->path);
    put_path(out, request->destination_path);
    put_text(out, params->handle_id, params->handle_id_len);
    put_text(out, request->base64, request->base64_len);
    put_policy(out, params->policy);
    bly_buf_printf(out, "%d %d%d%d%d %ju %zu", request->op, request->recursive, request->force,
                   request->no_follow, request->replace, request->offset, request->len);
    bly_buf_printf(out, " %ju %ju %ju %d%d", walk->max_depth, walk->max_directories,
                   walk->max_entries, walk->follow_directory_symlinks,
                   walk->prune_hidden_directories);
}

static void put_start(struct bly_buf *out, const struct bly_start_params *params)
{
    FUZZ_MUST(params->argc > 0 && params->argv[0][0] != '\0' && !params->argv[params->argc]);
    for (char *const *name = params->envp; *name; name++)
        FUZZ_MUST(strchr(*name, '='));
    put_text(out, params->process_id, params->process_id_len);
    put_list(out, params->argv);
    put_list(out, params->envp);
    bly_buf_put_str(out, params->arg0);
    put_path(out, params->cwd);
    bly_buf_printf(out, "%d%d", params->tty, params->pipe_stdin);
    put_policy(out, params->policy);
}

static void put_process(struct bly_buf *out, const struct bly_process_params *params)
{
    put_text(out, params->process_id, params->process_id_len);
    put_text(out, params->data, params->data_len);
    bly_buf_put_str(out, params->write_id);
    bly_buf_printf(out, "%ju %ju %ju %d", params->after_seq, params->max_bytes, params->wait_ms,
                   params->has_max_bytes);
}

/* ---- the methods ---- */

struct method {
    int (*decode)(const struct method *method, yyjson_val *value, struct bly_buf *out,
                  struct bly_err *err);
    enum bly_fs_op op;
    int (*decode_process)(yyjson_val *params, struct bly_process_params *ret, struct bly_err *err);
    bool is_oneshot;
};

static int decode_fs(const struct method *method, yyjson_val *value, struct bly_buf *out,
                     struct bly_err *err)
{
    struct bly_fs_params params;
    int r = bly_proto_decode_fs(method->op, value, &fuzz_env, &params, err);

    if (r < 0)
        return r;
    put_fs(out, &params);
    bly_fs_params_deinit(&params);
    return 0;
}

static int decode_close(const struct method *method, yyjson_val *value, struct bly_buf *out,
                        struct bly_err *err)
{
    struct bly_fs_params params;
    int r = bly_proto_decode_close(value, &params, err);

    (void)method;
    if (r == 0)
        put_text(out, params.handle_id, params.handle_id_len);
    bly_fs_params_deinit(&params);
    return r;
}

static int decode_watch(const struct method *method, yyjson_val *value, struct bly_buf *out,
                        struct bly_err *err)
{
    struct bly_watch_params params;
    int r = bly_proto_decode_watch(value, &params, err);

    (void)method;
    if (r < 0)
        return r;
    FUZZ_MUST(params.n_missing <= BLY_MISSING_PATHS_MAX);
    FUZZ_MUST(params.hopeless || params.n_missing > 0);
    for (size_t i = 0; i < params.n_missing; i++)
        put_path(out, params.missing[i]);
    put_path(out, params.present);
    bly_buf_printf(out, "%ju %d", params.watch_id, params.hopeless);
    bly_watch_params_deinit(&params);
    return 0;
}

static int decode_discover(const struct method *method, yyjson_val *value, struct bly_buf *out,
                           struct bly_err *err)
{
    struct bly_discover_params params;
    int r = bly_proto_decode_discover(value, &fuzz_env, &params, err);

    (void)method;
    if (r < 0)
        return r;
    FUZZ_MUST(params.n_roots <= BLY_DISCOVER_ROOTS_MAX);
    for (size_t i = 0; i < params.n_roots; i++) {
        FUZZ_MUST(!params.roots[i].path == (params.roots[i].reason != NULL));
        put_text(out, params.roots[i].id, params.roots[i].id_len);
        put_path(out, params.roots[i].path);
        put_policy(out, params.roots[i].policy);
    }
    bly_discover_params_deinit(&params);
    return 0;
}

static int decode_discover_installed(const struct method *method, yyjson_val *value,
                                     struct bly_buf *out, struct bly_err *err)
{
    (void)method;
    (void)out;
    return bly_proto_decode_discover_installed(value, &fuzz_env, err);
}

static int decode_config_read(const struct method *method, yyjson_val *value, struct bly_buf *out,
                              struct bly_err *err)
{
    struct bly_config_params params;
    int r = bly_proto_decode_config_read(value, &params, err);

    (void)method;
    if (r == 0)
        bly_buf_put_str(out, params.refusal);
    return r;
}

static int decode_initialize(const struct method *method, yyjson_val *value, struct bly_buf *out,
                             struct bly_err *err)
{
    struct bly_initialize_params params;
    int r = bly_proto_decode_initialize(value, &params, err);

    (void)method;
    if (r < 0)
        return r;
    put_text(out, params.client_name, params.client_name_len);
    put_text(out, params.resume_session_id, params.resume_session_id_len);
    return 0;
}

static int decode_start(const struct method *method, yyjson_val *value, struct bly_buf *out,
                        struct bly_err *err)
{
    struct bly_start_params params;
    int r = bly_proto_decode_start(value, &fuzz_env, server_env, &params, err);

    (void)method;
    if (r < 0)
        return r;
    put_start(out, &params);
    bly_start_params_deinit(&params);
    return 0;
}

static int decode_process(const struct method *method, yyjson_val *value, struct bly_buf *out,
                          struct bly_err *err)
{
    struct bly_process_params params;
    int r = method->decode_process(value, &params, err);

    if (r < 0)
        return r;
    put_process(out, &params);
    return 0;
}

/* What is sent to other machines: nothing in it may begin a line or a header of its own. */
static void check_http(const struct bly_http_request *request)
{
    bly_autofree char *again = NULL;

    FUZZ_MUST(strncmp(request->url, "http", 4) == 0);
    for (const char *c = request->url; *c; c++)
        FUZZ_MUST(*c > ' ' && *c < 0x7f);
    FUZZ_MUST(bly_http_url(request->url, strlen(request->url), &again, NULL) == 0);
    FUZZ_MUST(strcmp(request->url, again) == 0);
    FUZZ_MUST(bly_http_same_origin(request->url, again));
    FUZZ_MUST(request->method[0] && !strpbrk(request->method, " \t\r\n:"));
    for (size_t i = 0; i < request->n_fields; i++) {
        FUZZ_MUST(request->fields[i].name[0] && !strpbrk(request->fields[i].name, " \t\r\n:;"));
        FUZZ_MUST(!strpbrk(request->fields[i].value, "\r\n"));
    }
}

static int decode_http(const struct method *method, yyjson_val *value, struct bly_buf *out,
                       struct bly_err *err)
{
    static char lent[] = "value";
    static const struct bly_http_variable variables[] = {{"LENT", lent}, {"UNSET", NULL}};
    struct bly_http_request request;
    struct bly_http_params params;
    int r = bly_proto_decode_http(value, &params, err);

    (void)method;
    if (r < 0)
        return r;
    r = bly_http_prepare(&params, variables, BLY_LEN(variables), &request, err);
    if (r == 0) {
        check_http(&request);
        put_text(out, request.body, request.body_len);
        bly_buf_put_str(out, request.url);
    }
    bly_http_request_deinit(&request);
    bly_http_params_deinit(&params);
    return r;
}

static int decode_nothing(const struct method *method, yyjson_val *value, struct bly_buf *out,
                          struct bly_err *err)
{
    (void)method;
    (void)out;
    return bly_proto_decode_nothing(value, err);
}

static const struct method methods[] = {
    {decode_fs, BLY_FS_READ_FILE},                                  /* A */
    {decode_fs, BLY_FS_WRITE_FILE},                                 /* B */
    {decode_fs, BLY_FS_CREATE_DIRECTORY},                           /* C */
    {decode_fs, BLY_FS_GET_METADATA},                               /* D */
    {decode_fs, BLY_FS_READ_DIRECTORY},                             /* E */
    {decode_fs, BLY_FS_REMOVE},                                     /* F */
    {decode_fs, BLY_FS_COPY},                                       /* G */
    {decode_fs, BLY_FS_CANONICALIZE},                               /* H */
    {decode_fs, BLY_FS_WALK},                                       /* I */
    {decode_fs, BLY_FS_OPEN},                                       /* J */
    {decode_fs, BLY_FS_READ_BLOCK},                                 /* K */
    {decode_fs, BLY_FS_WRITE_BLOCK},                                /* L */
    {.decode = decode_close},                                       /* M */
    {.decode = decode_watch},                                       /* N */
    {.decode = decode_initialize},                                  /* O */
    {.decode = decode_start},                                       /* P */
    {decode_process, .decode_process = bly_proto_decode_read},      /* Q */
    {decode_process, .decode_process = bly_proto_decode_write},     /* R */
    {decode_process, .decode_process = bly_proto_decode_terminate}, /* S */
    {decode_process, .decode_process = bly_proto_decode_signal},    /* T */
    {.decode = decode_nothing},                                     /* U */
    {.is_oneshot = true},                  /* V: a whole request of the one-shot helper */
    {.decode = decode_http},               /* W */
    {.decode = decode_discover},           /* X */
    {.decode = decode_discover_installed}, /* Y */
    {.decode = decode_config_read},        /* Z */
};

static int decode_oneshot(char *text, size_t len, struct bly_buf *out, struct bly_err *err)
{
    struct bly_oneshot request = {0};
    int r = bly_oneshot_decode(text, len, &fuzz_env, &request, err);

    if (r < 0)
        return r;
    FUZZ_MUST(!request.params.policy && request.operation);
    put_fs(out, &request.params);
    bly_oneshot_deinit(&request);
    return 0;
}

/* 1: not even JSON; 0 and what was decoded in `out`; negative: refused. */
static int decode(const struct method *method, const char *json, size_t len, struct bly_buf *out)
{
    bly_autofree char *text = fuzz_json_text(json, len);
    struct bly_err err = {0};
    yyjson_doc *doc = NULL;
    int r;

    if (!method->is_oneshot && len > 0 && bly_json_read(text, len, &doc, NULL) < 0)
        return 1;
    r = method->is_oneshot ? decode_oneshot(text, len, out, &err)
                           : method->decode(method, yyjson_doc_get_root(doc), out, &err);
    if (r < 0)
        fuzz_check_failure(r, &err);
    yyjson_doc_free(doc);
    return r;
}

/* ---- the other dialect ---- */

enum spelling { RAW, URI };

static bool is_utf8(const char *text)
{
    struct bly_utf8 utf8 = {0};

    return bly_utf8_feed(&utf8, (const uint8_t *)text, strlen(text)) && utf8.left == 0;
}

/* `text` spelled anew, if it is a path that can be spelled so. */
static yyjson_mut_val *respelled(yyjson_mut_doc *doc, yyjson_mut_val *text, enum spelling spelling)
{
    bly_autofree char *path = NULL, *again = NULL;
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, FUZZ_OUTPUT_MAX);
    if (!yyjson_mut_is_str(text) ||
        bly_path_from_wire(yyjson_mut_get_str(text), yyjson_mut_get_len(text), &path, NULL) < 0)
        return NULL;

    if (spelling == URI)
        bly_path_to_uri(&buf, path);
    else if (is_utf8(path))
        bly_buf_add_str(&buf, path);
    if (bly_path_from_wire((const char *)buf.data, buf.len, &again, NULL) < 0)
        return NULL;
    return yyjson_mut_strncpy(doc, (const char *)buf.data, buf.len);
}

static bool is_one_of(yyjson_mut_val *key, const char *const *names)
{
    for (; *names; names++) {
        if (yyjson_mut_equals_str(key, *names))
            return true;
    }
    return false;
}

static void respell(yyjson_mut_doc *doc, yyjson_mut_val *value, enum spelling spelling);

static void respell_members(yyjson_mut_doc *doc, yyjson_mut_val *object, enum spelling spelling)
{
    static const char *const paths[] = {"path", "sourcePath", "destinationPath", "cwd", NULL};
    static const char *const not_ours[] = {"env", "envPolicy", NULL};
    yyjson_mut_obj_iter iter = yyjson_mut_obj_iter_with(object);
    yyjson_mut_val *key;

    while ((key = yyjson_mut_obj_iter_next(&iter)) != NULL) {
        yyjson_mut_val *value = yyjson_mut_obj_iter_get_val(key);
        yyjson_mut_val *spelled = is_one_of(key, paths) ? respelled(doc, value, spelling) : NULL;

        if (spelled)
            yyjson_mut_set_strn(value, yyjson_mut_get_str(spelled), yyjson_mut_get_len(spelled));
        else if (!is_one_of(key, not_ours))
            respell(doc, value, spelling);
    }
}

static void respell(yyjson_mut_doc *doc, yyjson_mut_val *value, enum spelling spelling)
{
    yyjson_mut_arr_iter iter;
    yyjson_mut_val *item;

    if (yyjson_mut_is_obj(value))
        respell_members(doc, value, spelling);
    if (!yyjson_mut_is_arr(value))
        return;
    iter = yyjson_mut_arr_iter_with(value);
    while ((item = yyjson_mut_arr_iter_next(&iter)) != NULL)
        respell(doc, item, spelling);
}

/* The same parameters with every path in one spelling; malloc'ed, NULL when they are no JSON. */
static char *twin_of(const char *json, size_t len, enum spelling spelling, size_t *ret_len)
{
    yyjson_doc *doc = NULL;
    yyjson_mut_doc *twin;
    char *text;

    if (bly_json_read_copy(json, len, &doc, NULL) < 0)
        return NULL;
    twin = yyjson_doc_mut_copy(doc, NULL);
    FUZZ_MUST(twin);
    respell(twin, yyjson_mut_doc_get_root(twin), spelling);
    text = yyjson_mut_write(twin, 0, ret_len);
    yyjson_mut_doc_free(twin);
    yyjson_doc_free(doc);
    return text;
}

static void check_twin(const struct method *method, const char *json, size_t len,
                       enum spelling spelling, const struct bly_buf *decoded)
{
    size_t twin_len = 0;
    bly_autofree char *twin = twin_of(json, len, spelling, &twin_len);
    bly_autobuf struct bly_buf out;

    bly_buf_init(&out, FUZZ_OUTPUT_MAX);
    if (!twin)
        return;
    FUZZ_MUST(decode(method, twin, twin_len, &out) == 0);
    fuzz_check_same(decoded, &out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bly_autobuf struct bly_buf decoded;
    const struct method *method;
    const char *json = (const char *)data + 1;

    bly_buf_init(&decoded, FUZZ_OUTPUT_MAX);
    if (size == 0)
        return 0;
    method = &methods[(uint8_t)(data[0] - 'A') % BLY_LEN(methods)];
    if (decode(method, json, size - 1, &decoded) != 0)
        return 0;
    check_twin(method, json, size - 1, RAW, &decoded);
    check_twin(method, json, size - 1, URI, &decoded);
    return 0;
}
