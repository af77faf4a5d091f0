#include "launcher/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "launcher/launcher.h"
#include "launcher/wire.h"
#include "sandbox/plan/plan.h"

enum { FLAG_TTY = 1, FLAG_PIPE_STDIN = 2, FLAG_ALL = 3 };

/* With its NUL, so that the reader can point into the packet. */
static void put_text(struct bly_buf *buf, const char *text)
{
    (void)bly_buf_put_bytes(buf, text, strlen(text) + 1);
}

static size_t count(const char *const *list)
{
    size_t n = 0;

    while (list[n] != NULL)
        n++;
    return n;
}

static void put_list(struct bly_buf *buf, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put_text(buf, list[i]);
}

static int put_plan(struct bly_buf *buf, const struct bly_plan *plan)
{
    if (plan == NULL)
        return buf->error;
    return bly_plan_pack(plan, buf);
}

int bly_request_pack_start(struct bly_buf *buf, uint64_t id, const struct bly_spawn *spawn)
{
    size_t n_argv = count(spawn->argv);
    size_t n_envp = count(spawn->envp);
    unsigned flags = (spawn->tty ? FLAG_TTY : 0) | (spawn->pipe_stdin ? FLAG_PIPE_STDIN : 0);

    if (n_argv > UINT32_MAX || n_envp > UINT32_MAX)
        return -E2BIG;
    (void)bly_buf_put_u64(buf, id);
    (void)bly_buf_put_u8(buf, (uint8_t)flags);
    put_text(buf, spawn->cwd);
    put_text(buf, spawn->arg0 != NULL ? spawn->arg0 : spawn->argv[0]);
    (void)bly_buf_put_u32(buf, (uint32_t)n_argv);
    (void)bly_buf_put_u32(buf, (uint32_t)n_envp);
    put_list(buf, spawn->argv, n_argv);
    put_list(buf, spawn->envp, n_envp);
    return put_plan(buf, spawn->plan);
}

int bly_request_pack_helper(struct bly_buf *buf, uint64_t id, const struct bly_plan *plan)
{
    (void)bly_buf_put_u64(buf, id);
    return put_plan(buf, plan);
}

/* Points at a text with exactly one NUL, at its end; marks the reader bad otherwise. */
static char *get_text(struct bly_reader *r)
{
    size_t len = 0;
    const uint8_t *bytes = bly_get_bytes(r, &len);

    if (r->bad || len == 0 || memchr(bytes, 0, len) != bytes + len - 1) {
        r->bad = true;
        return NULL;
    }
    return (char *)(uintptr_t)bytes; /* Ours to write: the packet's payload is not const. */
}

static void get_list(struct bly_reader *r, char **list, size_t n)
{
    for (size_t i = 0; i < n && !r->bad; i++)
        list[i] = get_text(r);
}

static int get_program(struct bly_reader *r, struct bly_request *request)
{
    unsigned flags = bly_get_u8(r);
    size_t n_argv, n_envp;

    request->tty = flags & FLAG_TTY;
    request->pipe_stdin = flags & FLAG_PIPE_STDIN;
    request->cwd = get_text(r);
    request->arg0 = get_text(r);
    n_argv = bly_get_u32(r);
    n_envp = bly_get_u32(r);
    /* A text takes five bytes or more; that bounds the allocation by what really came. */
    if (r->bad || (flags & ~(unsigned)FLAG_ALL) || n_argv == 0 ||
        n_argv + n_envp > (r->len - r->pos) / 5)
        return -EBADMSG;

    request->argv = calloc(n_argv + n_envp + 2, sizeof(char *));
    if (request->argv == NULL)
        return -ENOMEM;
    request->envp = request->argv + n_argv + 1;
    get_list(r, request->argv, n_argv);
    get_list(r, request->envp, n_envp);
    return r->bad ? -EBADMSG : 0;
}

int bly_request_unpack(const struct bly_packet *packet, struct bly_request *ret_request)
{
    struct bly_reader r = bly_reader_of(packet->payload, packet->len);
    struct bly_request request = {.helper = packet->type == BLY_WIRE_HELPER};
    int error = 0;

    request.id = bly_get_u64(&r);
    if (r.bad)
        return -EBADMSG;
    if (!request.helper)
        error = get_program(&r, &request);

    request.plan = r.data + r.pos;
    request.plan_len = r.len - r.pos;
    if (error == 0 && request.helper && request.plan_len == 0)
        error = -EBADMSG;
    if (error < 0) {
        bly_request_deinit(&request);
        return error;
    }
    *ret_request = request;
    return 0;
}

void bly_request_deinit(struct bly_request *request)
{
    free(request->argv);
    request->argv = NULL;
    request->envp = NULL;
}
