#include "proto/proto.h"

#include <errno.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "proto/decode.h"
#include "sandbox/policy/policy.h"

enum {
    HANDLE_ID_MAX = 32, /* bytes */
    WALK_DEPTH_MAX = 64,
    WALK_DIRECTORIES_MAX = 10000,
    WALK_ENTRIES_MAX = 50000,
};

enum { HANDLE = 1, FOLLOW = 2, SANDBOX = 4 };

/* What the params of an operation look like. Members are read from left to right. */
struct shape {
    const char *path, *destination; /* names of the members; NULL: has none */
    /* members of this operation alone */
    void (*more)(struct bly_decoder *d, struct bly_fs_request *request);
    /* -32600 once everything has been decoded */
    int (*check)(struct bly_fs_request *request, struct bly_err *err);
    uint8_t has; /* HANDLE: handleId, read first; FOLLOW: followSymlinks; SANDBOX */
};

static void more_write_file(struct bly_decoder *d, struct bly_fs_request *request)
{
    request->base64 =
        bly_decode_in_place(bly_decode_str(d, "dataBase64", BLY_REQUIRED, &request->base64_len));
}

static void more_create_directory(struct bly_decoder *d, struct bly_fs_request *request)
{
    request->recursive = bly_decode_bool(d, "recursive", BLY_OPTIONAL, true);
}

static void more_remove(struct bly_decoder *d, struct bly_fs_request *request)
{
    request->recursive = bly_decode_bool(d, "recursive", BLY_OPTIONAL, true);
    request->force = bly_decode_bool(d, "force", BLY_OPTIONAL, true);
}

static void more_copy(struct bly_decoder *d, struct bly_fs_request *request)
{
    request->recursive = bly_decode_bool(d, "recursive", BLY_REQUIRED, false);
}

static void more_walk(struct bly_decoder *d, struct bly_fs_request *request)
{
    yyjson_val *value = bly_decode_any(d, "options", BLY_REQUIRED);
    struct bly_fs_walk *walk = &request->walk;
    struct bly_decoder options;

    if (d->error < 0)
        return;

    options = bly_decoder_of(value, "options", d->err);
    walk->max_depth = bly_decode_u64(&options, "maxDepth", BLY_REQUIRED, 0);
    walk->max_directories = bly_decode_u64(&options, "maxDirectories", BLY_REQUIRED, 0);
    walk->max_entries = bly_decode_u64(&options, "maxEntries", BLY_REQUIRED, 0);
    walk->follow_directory_symlinks =
        bly_decode_bool(&options, "followDirectorySymlinks", BLY_REQUIRED, false);
    walk->prune_hidden_directories =
        bly_decode_bool(&options, "pruneHiddenDirectories", BLY_DEFAULTED, false);
    d->error = options.error;
}

static int check_walk(struct bly_fs_request *request, struct bly_err *err)
{
    const struct bly_fs_walk *walk = &request->walk;

    if (walk->max_directories == 0 || walk->max_entries == 0)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "filesystem walk limits must be greater than zero");

    if (walk->max_depth > WALK_DEPTH_MAX || walk->max_directories > WALK_DIRECTORIES_MAX ||
        walk->max_entries > WALK_ENTRIES_MAX)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "filesystem walk limits exceed maximums: depth=%d, directories=%d, "
                        "entries=%d",
                        WALK_DEPTH_MAX, WALK_DIRECTORIES_MAX, WALK_ENTRIES_MAX);
    return 0;
}

static void more_open(struct bly_decoder *d, struct bly_fs_request *request)
{
    static const char *const modes[] = {"read", "replace", NULL};

    request->replace = bly_decode_word(d, "mode", BLY_DEFAULTED, modes, 0) == 1;
}

static void more_read_block(struct bly_decoder *d, struct bly_fs_request *request)
{
    request->offset = bly_decode_u64(d, "offset", BLY_REQUIRED, 0);
    request->len = bly_decode_u64(d, "len", BLY_REQUIRED, 0);
}

static int check_read_block(struct bly_fs_request *request, struct bly_err *err)
{
    if (request->len < 1 || request->len > BLY_FS_BLOCK_MAX)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "file read block length must be between 1 and %d", BLY_FS_BLOCK_MAX);
    return 0;
}

static void more_write_block(struct bly_decoder *d, struct bly_fs_request *request)
{
    request->offset = bly_decode_u64(d, "offset", BLY_REQUIRED, 0);
    request->base64 =
        bly_decode_in_place(bly_decode_str(d, "chunk", BLY_REQUIRED, &request->base64_len));
}

/* What a base64 text that turns out to be valid stands for. */
static size_t decoded_len(const char *text, size_t len)
{
    size_t n = len / 4 * 3;

    for (size_t pads = 0; pads < 2 && n > 0 && text[len - 1 - pads] == '='; pads++)
        n--;
    return n;
}

/*
 * The length follows from the text, which a pool thread decodes later. A text whose own length is
 * wrong cannot be judged like that; decoding it finds out what is wrong with it, and as it is not
 * long this may happen here.
 */
static int check_write_block(struct bly_fs_request *request, struct bly_err *err)
{
    size_t n = decoded_len(request->base64, request->base64_len);
    bool whole = request->base64_len % 4 == 0;
    struct bly_base64_error fault;
    char why[96];

    if ((n < 1 && whole) || n > BLY_FS_BLOCK_MAX)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "file write block length must be between 1 and %d", BLY_FS_BLOCK_MAX);

    if (!whole &&
        bly_base64_decode(request->base64, request->base64_len, request->base64, &n, &fault) < 0) {
        bly_base64_error_text(&fault, why, sizeof(why));
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "invalid base64: %s", why);
    }
    if (request->offset > INT64_MAX - n)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "file write range exceeds the signed 64-bit file offset limit");
    return 0;
}

static const struct shape shapes[] = {
    [BLY_FS_READ_FILE] = {"path", .has = FOLLOW | SANDBOX},
    [BLY_FS_WRITE_FILE] = {"path", .more = more_write_file, .has = FOLLOW | SANDBOX},
    [BLY_FS_CREATE_DIRECTORY] = {"path", .more = more_create_directory, .has = FOLLOW | SANDBOX},
    [BLY_FS_GET_METADATA] = {"path", .has = FOLLOW | SANDBOX},
    [BLY_FS_READ_DIRECTORY] = {"path", .has = SANDBOX},
    [BLY_FS_REMOVE] = {"path", .more = more_remove, .has = FOLLOW | SANDBOX},
    [BLY_FS_COPY] = {"sourcePath", "destinationPath", .more = more_copy, .has = SANDBOX},
    [BLY_FS_CANONICALIZE] = {"path", .has = SANDBOX},
    [BLY_FS_WALK] = {"path", .more = more_walk, .check = check_walk, .has = SANDBOX},
    [BLY_FS_OPEN] = {"path", .more = more_open, .has = HANDLE | FOLLOW | SANDBOX},
    [BLY_FS_READ_BLOCK] = {.more = more_read_block, .check = check_read_block, .has = HANDLE},
    [BLY_FS_WRITE_BLOCK] = {.more = more_write_block, .check = check_write_block, .has = HANDLE},
};

static int check_handle_id(const struct bly_fs_params *p, struct bly_err *err)
{
    if (p->handle_id_len > HANDLE_ID_MAX)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "file handle ID must not exceed %d bytes",
                        HANDLE_ID_MAX);
    return 0;
}

/* Keeps two paths for later: they are judged once all members have been read. */
struct texts {
    const char *path, *destination;
    size_t path_len, destination_len;
};

static int read_members(const struct shape *shape, struct bly_decoder *d, struct bly_fs_params *p,
                        struct texts *texts, yyjson_val **ret_sandbox)
{
    struct bly_fs_request *request = &p->request;

    if (shape->has & HANDLE)
        p->handle_id = bly_decode_str(d, "handleId", BLY_REQUIRED, &p->handle_id_len);
    if (shape->path)
        texts->path = bly_decode_str(d, shape->path, BLY_REQUIRED, &texts->path_len);
    if (shape->destination)
        texts->destination =
            bly_decode_str(d, shape->destination, BLY_REQUIRED, &texts->destination_len);
    if (shape->more)
        shape->more(d, request);
    if (shape->has & FOLLOW)
        request->no_follow = !bly_decode_bool(d, "followSymlinks", BLY_OPTIONAL, true);
    if (shape->has & SANDBOX)
        *ret_sandbox = bly_decode_any(d, "sandbox", BLY_OPTIONAL);
    return d->error;
}

static int decode(const struct shape *shape, yyjson_val *params, const struct bly_policy_env *env,
                  struct bly_fs_params *p, struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(params, "params", err);
    yyjson_val *sandbox = NULL;
    struct texts texts = {0};
    int r = read_members(shape, &d, p, &texts, &sandbox);

    if (r < 0)
        return r;

    p->request.path = p->path = bly_decode_path_text(&d, texts.path, texts.path_len);
    p->request.destination_path = p->destination_path =
        bly_decode_path_text(&d, texts.destination, texts.destination_len);
    p->policy = bly_decode_sandbox(&d, sandbox, env);
    if (d.error < 0)
        return d.error;

    r = check_handle_id(p, err);
    return r < 0 || !shape->check ? r : shape->check(&p->request, err);
}

int bly_proto_decode_fs(enum bly_fs_op op, yyjson_val *params, const struct bly_policy_env *env,
                        struct bly_fs_params *ret, struct bly_err *err)
{
    int r;

    *ret = (struct bly_fs_params){.request = {.op = op, .fd = -EBADF}};
    r = decode(&shapes[op], params, env, ret, err);
    if (r < 0)
        bly_fs_params_deinit(ret);
    return r;
}

int bly_proto_decode_close(yyjson_val *params, struct bly_fs_params *ret, struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(params, "params", err);

    *ret = (struct bly_fs_params){.request.fd = -EBADF};
    ret->handle_id = bly_decode_str(&d, "handleId", BLY_REQUIRED, &ret->handle_id_len);
    return d.error < 0 ? d.error : check_handle_id(ret, err);
}

void bly_fs_params_deinit(struct bly_fs_params *params)
{
    free(params->path);
    free(params->destination_path);
    bly_policy_unref(params->policy);
    *params = (struct bly_fs_params){.request.fd = -EBADF};
}
