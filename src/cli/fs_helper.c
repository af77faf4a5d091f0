#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd_pass.h"
#include "base/json.h"
#include "base/limits.h"
#include "cli/cli.h"
#include "fs/oneshot.h"
#include "proto/oneshot.h"
#include "server/environment.h"

enum { ANSWER_MAX = 1 << 30, READ_STEP = 1 << 16 };

static int fail(const char *reason)
{
    (void)fprintf(stderr, "fs sandbox helper failed: %s\n", reason);
    return BLY_EXIT_FAILED;
}

/* Up to and including the first line feed, or to the end of the input. */
static int read_line(struct bly_buf *input)
{
    for (;;) {
        size_t before = input->len;
        ssize_t n;
        int r = bly_buf_reserve(input, READ_STEP);

        if (r < 0)
            return r;
        n = read(STDIN_FILENO, input->data + input->len, READ_STEP);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        input->len += (size_t)n;
        if (memchr(input->data + before, '\n', (size_t)n))
            return 0;
    }
}

/* Older callers may write their object over several lines: then there is more to come. */
static int read_rest(struct bly_buf *input)
{
    size_t before;
    int r;

    do {
        before = input->len;
        r = read_line(input);
    } while (r == 0 && input->len > before);
    return r;
}

/* Decodes a copy, in `text`, which then belongs to the request. */
static int decode(const void *data, size_t len, const struct bly_policy_env *env,
                  struct bly_buf *text, struct bly_oneshot *ret_request, struct bly_err *err)
{
    static const char padding[BLY_JSON_PADDING];

    text->len = 0;
    (void)bly_buf_add(text, data, len);
    if (bly_buf_add(text, padding, sizeof(padding)) < 0)
        return bly_fail(err, BLY_ERR_LIMIT, -text->error, "out of memory");
    return bly_oneshot_decode((char *)text->data, len, env, ret_request, err);
}

static int read_request(const struct bly_policy_env *env, struct bly_buf *text,
                        struct bly_oneshot *ret_request, struct bly_err *err)
{
    bly_autobuf struct bly_buf input;
    struct bly_limits limits;
    const uint8_t *end;
    int r;

    bly_limits_defaults(&limits);
    bly_buf_init(&input, limits.message_bytes);
    r = read_line(&input);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot read the request");
    if (input.len == 0)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL, "no request on stdin");

    end = memchr(input.data, '\n', input.len);
    r = decode(input.data, end ? (size_t)(end - input.data) : input.len, env, text, ret_request,
               err);
    if (r != -EBADMSG || !end)
        return r;
    r = read_rest(&input);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot read the request");
    return decode(input.data, input.len, env, text, ret_request, err);
}

static bool stdin_is_unix_stream(void)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    int type;
    socklen_t type_len = sizeof(type);

    return getsockopt(STDIN_FILENO, SOL_SOCKET, SO_TYPE, &type, &type_len) == 0 &&
           type == SOCK_STREAM &&
           getsockname(STDIN_FILENO, (struct sockaddr *)&address, &len) == 0 &&
           address.ss_family == AF_UNIX;
}

/* The opened file goes back over the socket the request came from, with one zero byte. */
static int send_fd(int fd)
{
    char zero = 0;
    struct iovec iov = {&zero, 1};
    ssize_t n = bly_fd_pass_send(STDIN_FILENO, &iov, 1, &fd, 1, 0);

    return n < 0 ? (int)n : 0;
}

static int write_all(const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, data, len);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int answer(const struct bly_oneshot *request, const struct bly_fs_reply *reply)
{
    bly_autobuf struct bly_buf buf;
    int r;

    bly_buf_init(&buf, ANSWER_MAX);
    (void)bly_oneshot_encode(request, reply, &buf);
    r = bly_buf_add_char(&buf, '\n');
    if (r == 0)
        r = write_all(buf.data, buf.len);
    return r < 0 ? fail(bly_errno_text(-r)) : 0;
}

static int carry_out(struct bly_oneshot *request)
{
    const struct bly_view view = {0};
    struct bly_fs_reply reply;
    int status;

    if (request->op == BLY_FS_OPEN && !stdin_is_unix_stream())
        return fail("fs/open requires a Unix stream socket on stdin");
    request->params.request.max_text_bytes = ANSWER_MAX / 2;
    (void)bly_fs_run(&view, &request->params.request, &reply);
    if (request->op == BLY_FS_OPEN && reply.err.kind == BLY_ERR_NONE && send_fd(reply.fd) < 0)
        status = fail("cannot send the descriptor");
    else if (reply.too_long)
        status = fail("the file is too large for one answer");
    else
        status = answer(request, &reply);
    bly_fs_reply_deinit(&reply);
    return status;
}

/* A request that the method itself refuses gets an answer all the same. */
static int refuse(int r, const struct bly_err *err)
{
    const struct bly_oneshot none = {0};
    const struct bly_fs_reply reply = {.err = *err, .fd = -EBADF};

    if (r == -EBADMSG || err->kind != BLY_ERR_INVALID)
        return fail(err->text);
    return answer(&none, &reply);
}

void bly_cli_fs_helper_help(FILE *out)
{
    (void)fputs("usage: bailey fs-helper\n\n"
                "Reads one request, a JSON object on a line, from stdin, carries it out without\n"
                "any wall of its own, and writes one answer to stdout. Exit status 0: answered,\n"
                "also with an error; 1: not understood.\n",
                out);
}

int bly_cli_fs_helper(int argc, char **argv)
{
    struct bly_environment_facts facts;
    bly_autobuf struct bly_buf text;
    struct bly_oneshot request;
    struct bly_err err;
    int status, r;

    (void)argv;
    bly_buf_init(&text, ANSWER_MAX);
    if (argc > 1) {
        bly_cli_fs_helper_help(stderr);
        return BLY_EXIT_USAGE;
    }
    bly_err_clear(&err);
    if (bly_environment_facts_init(&facts, &err) < 0)
        return fail(err.text);
    r = read_request(&facts.policy_env, &text, &request, &err);
    if (r < 0) {
        status = refuse(r, &err);
    } else {
        status = carry_out(&request);
        bly_oneshot_deinit(&request);
    }
    bly_environment_facts_deinit(&facts);
    return status;
}
