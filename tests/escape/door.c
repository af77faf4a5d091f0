#include "escape/door.h"

#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/path.h"
#include "fs/fs.h"
#include "fs/helper/helper.h"
#include "launcher/planner.h"
#include "rpc/rpc.h"
#include "sandbox/policy/policy.h"
#include "support/server.h"
#include "unit/launcher/fixture.h"

enum { BLOCK = 4096, PARAMS_MAX = 1 << 20, NOBODY = 65534 };

void answer_deinit(struct answer *answer)
{
    free(answer->data);
    answer->data = NULL;
}

bool answer_reveals(const struct answer *answer, const char *needle)
{
    return answer->data && memmem(answer->data, answer->len, needle, strlen(needle)) != NULL;
}

static void keep(struct answer *answer, const void *data, size_t len)
{
    answer->data = malloc(len + 1);
    assert_non_null(answer->data);
    if (len > 0)
        memcpy(answer->data, data, len);
    answer->data[len] = '\0';
    answer->len = len;
}

static void keep_base64(struct answer *answer, const char *text, size_t len)
{
    bly_autofree char *bytes = malloc(len / 4 * 3 + 1);
    size_t n = 0;

    assert_non_null(bytes);
    assert_int_equal(bly_base64_decode(text, len, bytes, &n, NULL), 0);
    keep(answer, bytes, n);
}

/* ---- local ---- */

struct local {
    struct fixture *fixture;
    struct bly_planner *planner;
    struct bly_limits limits;
    size_t n_helpers;
    struct bly_fs *fs;
    bool closed;
};

struct outcome {
    bool done;
    struct bly_fs_reply reply;
};

static int give_spawner(void *arg, struct bly_spawner **ret_spawner, struct bly_err *err)
{
    struct local *local = arg;

    (void)err;
    *ret_spawner = local->fixture->spawner;
    return 0;
}

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

static void local_open(struct door *door)
{
    struct local *local = calloc(1, sizeof(*local));
    struct bly_fs_config config;
    void *fixture = NULL;

    assert_non_null(local);
    assert_int_equal(fixture_setup(&fixture), 0);
    local->fixture = fixture;
    bly_limits_defaults(&local->limits);
    assert_int_equal(bly_planner_new(&local->fixture->loop, 1000, &local->planner), 0);
    config = (struct bly_fs_config){
        .loop = &local->fixture->loop,
        .planner = local->planner,
        .limits = &local->limits,
        .n_helpers = &local->n_helpers,
        .spawner = give_spawner,
        .arg = local,
    };
    assert_int_equal(bly_fs_new(&config, &local->fs), 0);
    door->self = local;
    door->pid = getpid();
}

static void local_close(struct door *door)
{
    struct local *local = door->self;
    void *fixture = local->fixture;

    bly_fs_close(local->fs, set_true, &local->closed);
    fixture_wait(local->fixture, &local->closed);
    assert_int_equal(local->n_helpers, 0);
    bly_planner_free(local->planner);
    assert_int_equal(fixture_teardown(&fixture), 0);
    free(local);
}

static void keep_reply(void *arg, struct bly_fs_reply *reply)
{
    struct outcome *outcome = arg;

    outcome->reply = *reply;
    bly_fs_reply_init(reply);
    outcome->done = true;
}

static void submit(struct local *local, struct bly_fs_context *context,
                   struct bly_fs_request *request, struct outcome *outcome)
{
    struct bly_fs_call *call;

    *outcome = (struct outcome){0};
    request->max_text_bytes = SIZE_MAX;
    assert_int_equal(bly_fs_submit(local->fs, context, request, keep_reply, outcome, &call), 0);
    fixture_wait(local->fixture, &outcome->done);
}

static const struct {
    enum bly_fs_op op;
    const char *method;
} operations[] = {
    [ASK_READ] = {BLY_FS_READ_FILE, "fs/readFile"},
    [ASK_READ_BLOCK] = {BLY_FS_OPEN, "fs/open"},
    [ASK_METADATA] = {BLY_FS_GET_METADATA, "fs/getMetadata"},
    [ASK_CANONICALIZE] = {BLY_FS_CANONICALIZE, "fs/canonicalize"},
    [ASK_LIST] = {BLY_FS_READ_DIRECTORY, "fs/readDirectory"},
    [ASK_WALK] = {BLY_FS_WALK, "fs/walk"},
    [ASK_WRITE] = {BLY_FS_WRITE_FILE, "fs/writeFile"},
    [ASK_WRITE_BLOCK] = {BLY_FS_OPEN, "fs/open"},
    [ASK_MKDIR] = {BLY_FS_CREATE_DIRECTORY, "fs/createDirectory"},
    [ASK_COPY] = {BLY_FS_COPY, "fs/copy"},
    [ASK_REMOVE] = {BLY_FS_REMOVE, "fs/remove"},
};

/* Policies are parsed for every question, as the server does. NULL: no wall. */
static struct bly_fs_context *context_of(struct local *local, const char *sandbox)
{
    static const struct bly_policy_env env = {.cwd = "/"};
    struct bly_policy *policy = NULL;
    struct bly_fs_context *context = NULL;
    struct bly_err err = {0};

    if (!sandbox)
        return NULL;
    if (bly_policy_parse_text(sandbox, &env, &policy, &err) < 0)
        fail_msg("bad policy: %s", err.text);
    assert_int_equal(bly_fs_context(local->fs, policy, &context), 0);
    bly_policy_unref(policy);
    assert_non_null(context);
    return context;
}

static void block_of(struct local *local, const struct question *question, int fd,
                     struct outcome *outcome)
{
    bly_autofree char *text = NULL;
    struct bly_fs_request request = {.op = BLY_FS_READ_BLOCK, .fd = fd, .len = BLOCK};

    if (question->kind == ASK_WRITE_BLOCK) {
        size_t len = strlen(question->text);

        text = malloc(bly_base64_len(len));
        assert_non_null(text);
        bly_base64_encode(question->text, len, text);
        request.op = BLY_FS_WRITE_BLOCK;
        request.base64 = text;
        request.base64_len = bly_base64_len(len);
    }
    submit(local, NULL, &request, outcome);
}

static void keep_local(const struct outcome *outcome, struct answer *answer)
{
    const struct bly_fs_reply *reply = &outcome->reply;
    const struct bly_err *err = &reply->err;

    if (err->kind != BLY_ERR_NONE) {
        bool by_errno = err->kind == BLY_ERR_SYSTEM;

        answer->code = bly_rpc_code(err);
        (void)snprintf(answer->message, sizeof(answer->message), "%.500s",
                       by_errno ? bly_errno_text(err->sys) : err->text);
        keep(answer, answer->message, strlen(answer->message));
    } else if (reply->text_mem) {
        keep_base64(answer, reply->text_mem + BLY_FS_TEXT_HEAD, reply->text_len);
    } else if (reply->path) {
        keep(answer, reply->path, strlen(reply->path));
    } else {
        keep(answer, reply->entries.data, reply->entries.len);
    }
}

static void local_ask(struct door *door, const struct question *question, struct answer *ret_answer)
{
    struct local *local = door->self;
    bly_autofree char *path = NULL, *other = NULL, *text = NULL;
    struct bly_fs_request request = {
        .op = operations[question->kind].op,
        .recursive = question->recursive,
        .force = question->force,
        .replace = question->kind == ASK_WRITE_BLOCK,
        .walk = {.max_depth = 8,
                 .max_directories = 100,
                 .max_entries = 1000,
                 .follow_directory_symlinks = true},
        .fd = -EBADF,
    };
    struct outcome outcome;

    *ret_answer = (struct answer){0};
    assert_int_equal(bly_path_normalise(question->path, strlen(question->path), &path), 0);
    request.path = path;
    if (question->other) {
        assert_int_equal(bly_path_normalise(question->other, strlen(question->other), &other), 0);
        request.destination_path = other;
    }
    if (question->kind == ASK_WRITE) {
        size_t len = strlen(question->text);

        text = malloc(bly_base64_len(len) + 1);
        assert_non_null(text);
        bly_base64_encode(question->text, len, text);
        request.base64 = text;
        request.base64_len = bly_base64_len(len);
    }
    submit(local, context_of(local, question->sandbox), &request, &outcome);
    if (outcome.reply.err.kind == BLY_ERR_NONE && outcome.reply.fd >= 0) {
        bly_autofd int fd = bly_take_fd(&outcome.reply.fd);

        bly_fs_reply_deinit(&outcome.reply);
        block_of(local, question, fd, &outcome);
    }
    keep_local(&outcome, ret_answer);
    bly_fs_reply_deinit(&outcome.reply);
}

/* ---- remote ---- */

/* $BLY_SERVER_OPTION, where there is one, is given to the server. */
static void remote_open(struct door *door)
{
    const char *const options[] = {getenv("BLY_SERVER_OPTION"), NULL};
    struct server *server = server_start(options);

    door->self = server;
    door->pid = server->pid;
}

static void remote_close(struct door *door)
{
    server_stop(door->self);
}

static void add_member(struct bly_buf *params, const char *name)
{
    (void)bly_buf_add_char(params, params->len == 0 ? '{' : ',');
    (void)bly_json_add_cstr(params, name);
    (void)bly_buf_add_char(params, ':');
}

static void add_text(struct bly_buf *params, const char *name, const char *text)
{
    add_member(params, name);
    (void)bly_json_add_cstr(params, text);
}

static void add_raw(struct bly_buf *params, const char *name, const char *json)
{
    add_member(params, name);
    (void)bly_buf_add_str(params, json);
}

static void add_base64(struct bly_buf *params, const char *name, const char *text)
{
    char encoded[BLOCK];
    size_t len = strlen(text);

    assert_true(bly_base64_len(len) < sizeof(encoded));
    bly_base64_encode(text, len, encoded);
    encoded[bly_base64_len(len)] = '\0';
    add_text(params, name, encoded);
}

static void make_params(const struct question *question, struct bly_buf *params)
{
    add_text(params, question->kind == ASK_COPY ? "sourcePath" : "path", question->path);
    if (question->other)
        add_text(params, "destinationPath", question->other);
    add_raw(params, "recursive", question->recursive ? "true" : "false");
    add_raw(params, "force", question->force ? "true" : "false");
    add_raw(params, "sandbox", question->sandbox ? question->sandbox : "null");
    if (question->kind == ASK_WRITE)
        add_base64(params, "dataBase64", question->text);
    if (question->kind == ASK_WALK)
        add_raw(params, "options",
                "{\"maxDepth\":8,\"maxDirectories\":100,\"maxEntries\":1000,"
                "\"followDirectorySymlinks\":true}");
    if (question->kind == ASK_READ_BLOCK || question->kind == ASK_WRITE_BLOCK)
        add_text(params, "handleId", "h");
    if (question->kind == ASK_WRITE_BLOCK)
        add_text(params, "mode", "replace");
    (void)bly_buf_add_char(params, '}');
    assert_int_equal(bly_buf_add_char(params, '\0'), 0);
}

static void call_remote(struct server *server, const char *method, const char *params,
                        struct answer *answer)
{
    struct bly_client_error error = {0};
    bly_autofree char *result = NULL;
    int r;

    answer_deinit(answer);
    r = bly_client_call(server->client, method, params, &result, &error);
    if (r == -EREMOTEIO) {
        answer->code = error.code;
        (void)snprintf(answer->message, sizeof(answer->message), "%.500s", error.message);
        keep(answer, error.message, strlen(error.message));
        return;
    }
    if (r < 0)
        fail_msg("%s has no answer: %s", method, error.message);
    keep(answer, result, strlen(result));
}

/* Puts the decoded member in place of the JSON. */
static void decode_member(struct answer *answer, const char *name)
{
    yyjson_doc *doc;
    yyjson_val *value;
    struct answer decoded = {0};

    if (answer->code != 0)
        return;
    doc = yyjson_read(answer->data, answer->len, 0);
    assert_non_null(doc);
    value = yyjson_obj_get(yyjson_doc_get_root(doc), name);
    assert_true(yyjson_is_str(value));
    keep_base64(&decoded, yyjson_get_str(value), yyjson_get_len(value));
    yyjson_doc_free(doc);
    answer_deinit(answer);
    *answer = decoded;
}

static void ask_block(struct server *server, const struct question *question, struct answer *answer)
{
    bool writes = question->kind == ASK_WRITE_BLOCK;
    bly_autobuf struct bly_buf params;
    struct answer closed = {0};

    bly_buf_init(&params, PARAMS_MAX);
    add_text(&params, "handleId", "h");
    add_raw(&params, "offset", "0");
    if (writes)
        add_base64(&params, "chunk", question->text);
    else
        add_raw(&params, "len", "4096");
    (void)bly_buf_add_char(&params, '}');
    assert_int_equal(bly_buf_add_char(&params, '\0'), 0);
    call_remote(server, writes ? "fs/writeBlock" : "fs/readBlock", (char *)params.data, answer);
    if (!writes)
        decode_member(answer, "chunk");
    call_remote(server, "fs/close", "{\"handleId\":\"h\"}", &closed);
    answer_deinit(&closed);
}

static void remote_ask(struct door *door, const struct question *question,
                       struct answer *ret_answer)
{
    struct server *server = door->self;
    bly_autobuf struct bly_buf params;

    *ret_answer = (struct answer){0};
    bly_buf_init(&params, PARAMS_MAX);
    make_params(question, &params);
    call_remote(server, operations[question->kind].method, (char *)params.data, ret_answer);
    if (question->kind == ASK_READ)
        decode_member(ret_answer, "dataBase64");
    else if (ret_answer->code == 0 &&
             (question->kind == ASK_READ_BLOCK || question->kind == ASK_WRITE_BLOCK))
        ask_block(server, question, ret_answer);
}

const struct door door_local = {
    .name = "local", .open = local_open, .ask = local_ask, .close = local_close};
const struct door door_remote = {
    .name = "remote", .open = remote_open, .ask = remote_ask, .close = remote_close};

void door_main(int argc, char **argv)
{
    fixture_main(argc, argv, bly_helper_main);
}

/* A program that only root may reach by its path is reached by descriptor. */
static void keep_reachable(const char *variable)
{
    const char *path = getenv(variable);
    char by_descriptor[64];
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -EBADF;

    if (fd < 0)
        return;
    (void)snprintf(by_descriptor, sizeof(by_descriptor), "/proc/self/fd/%d", fd);
    (void)setenv(variable, by_descriptor, 1);
}

static void become_user(void)
{
    if (!getenv("BLY_AS_USER") || geteuid() != 0)
        return;
    keep_reachable("BAILEY");
    keep_reachable("ATTACKER");
    if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
        setresuid(NOBODY, NOBODY, NOBODY) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0) {
        perror("cannot become an ordinary user");
        exit(99);
    }
}

/* What `bailey doctor` has to say: 0 when everything can be enforced. */
static int ask_doctor(void)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        (void)!freopen("/dev/null", "w", stdout);
        (void)execl(getenv("BAILEY"), "bailey", "doctor", NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -1;
    return status;
}

static void need_walls(void)
{
    const char *must = getenv("BLY_MUST_RUN");

    if (getenv("BLY_MAY_REFUSE_WALLS") || getenv("BLY_SERVER_OPTION") || ask_doctor() == 0)
        return;
    fprintf(stderr, "not every wall can be built here as uid %u: see bailey doctor\n", getuid());
    exit(must && strcmp(must, "1") == 0 ? 1 : 77);
}

void door_begin(void)
{
    become_user();
    need_walls();
}
