#include "fs/helper/helper.h"

#include <assert.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "fs/helper/wire.h"
#include "fs/oneshot.h"
#include "fs/ops.h"
#include "fs/ops_internal.h"

struct helper {
    int sock;
    struct bly_view view;
    uint32_t seq; /* of the request at hand */
    char packet[BLY_HWIRE_PACKET_MAX];
    char piece[BLY_HWIRE_PIECE];
    struct bly_fs_reply reply;
};

/* One helper a process; too large for a stack that is still shared with its parent. */
static struct helper the_helper;

static int send_packet(struct helper *h, const struct bly_hwire_reply *reply, const void *data,
                       int fd)
{
    for (;;) {
        struct pollfd ready = {.fd = h->sock, .events = POLLOUT};
        int r = bly_hwire_send_reply(h->sock, reply, data, fd);

        if (r != -EAGAIN)
            return r;
        if (poll(&ready, 1, -1) < 0 && errno != EINTR)
            return -errno;
    }
}

static int send_error(struct helper *h, const struct bly_err *err)
{
    /* The words for an errno are for a log, and name paths: they stay here. */
    const char *text = err->kind == BLY_ERR_SYSTEM ? "" : err->text;
    struct bly_hwire_reply reply = {
        .seq = h->seq,
        .kind = (uint8_t)err->kind,
        .denied_access = err->denial.access,
        .denied_by = err->denial.by,
        .sys = err->sys,
        .denied_index = err->denial.index,
        .denied_name = err->denial.name,
        .data_len = (uint32_t)strlen(text),
    };

    return send_packet(h, &reply, text, -EBADF);
}

static int send_piece(struct helper *h, const void *data, size_t len, bool more)
{
    struct bly_hwire_reply reply = {
        .seq = h->seq,
        .flags = more ? BLY_HWIRE_MORE : 0,
        .data_len = (uint32_t)len,
    };

    return send_packet(h, &reply, data, -EBADF);
}

static int send_too_long(struct helper *h, uint64_t n)
{
    struct bly_hwire_reply reply = {
        .seq = h->seq,
        .flags = BLY_HWIRE_TOO_LONG,
        .number = bly_base64_len(n),
    };

    return send_packet(h, &reply, NULL, -EBADF);
}

static int send_file(struct helper *h, int fd, uint64_t size)
{
    struct bly_hwire_reply reply = {.seq = h->seq, .flags = BLY_HWIRE_FD, .number = size};

    return send_packet(h, &reply, NULL, fd);
}

/* A file that is small, or whose size nobody knows: its bytes, in pieces. */
static int send_contents(struct helper *h, int fd, uint64_t size, uint64_t max_text_bytes)
{
    uint64_t total = 0;
    size_t fill = 0;

    for (;;) {
        struct bly_err err;

        assert(fill < sizeof h->piece);

        ssize_t n = read(fd, h->piece + fill, sizeof h->piece - fill);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            bly_fail_sys(&err, errno, "cannot read");
            return send_error(h, &err);
        }
        fill += (size_t)n;
        total += (uint64_t)n;
        if (total > BLY_FS_READ_MAX) {
            bly_ops_too_large(&err);
            return send_error(h, &err);
        }
        if (bly_base64_len(total) > max_text_bytes)
            return send_too_long(h, total);
        /* As in bly_ops_read_base64(): a short read that ends at the size is the end. */
        if (n == 0 || (total == size && fill < sizeof h->piece))
            return send_piece(h, h->piece, fill, false);
        if (fill == sizeof h->piece) {
            int r = send_piece(h, h->piece, fill, true);

            if (r < 0)
                return r;
            fill = 0;
        }
    }
}

static int serve_read(struct helper *h, const struct bly_fs_request *request)
{
    bly_autofd int fd = -EBADF;
    uint64_t size;
    struct bly_err *err = &h->reply.err;
    int r = bly_ops_open_read(&h->view, request->path, request->no_follow, &fd, &size, err);

    if (r == 0 && size > BLY_FS_READ_MAX)
        r = bly_ops_too_large(err);
    if (r < 0)
        return send_error(h, err);
    if (bly_base64_len(size) > request->max_text_bytes)
        return send_too_long(h, size);
    if (size > sizeof h->piece && !bly_ops_is_kernel_file(fd))
        return send_file(h, fd, size);
    return send_contents(h, fd, size, request->max_text_bytes);
}

static int serve_open(struct helper *h, struct bly_fs_request *request)
{
    if (bly_fs_run(&h->view, request, &h->reply) == 0 && bly_ops_is_kernel_file(h->reply.fd))
        bly_ops_not_a_file(request->path, &h->reply.err);
    if (h->reply.err.kind != BLY_ERR_NONE)
        return send_error(h, &h->reply.err);
    return send_file(h, h->reply.fd, 0);
}

static int serve_write(struct helper *h, const struct bly_hwire_request *in, int payload_fd)
{
    const struct bly_fs_request *request = &in->request;
    struct bly_err *err = &h->reply.err;
    int r = payload_fd < 0 ? bly_ops_write_file(&h->view, request->path, request->no_follow,
                                                in->payload, in->payload_len, err)
                           : bly_ops_write_from(&h->view, request->path, request->no_follow,
                                                payload_fd, in->payload_len, err);

    return r < 0 ? send_error(h, err) : send_piece(h, NULL, 0, false);
}

/* Whatever is left of the result in h->reply after the ones above. */
static int send_result(struct helper *h)
{
    const struct bly_fs_reply *result = &h->reply;
    const struct bly_fs_metadata *m = &result->metadata;
    const void *data = result->path ? (const void *)result->path : result->entries.data;
    size_t len = result->path ? strlen(result->path) : result->entries.len, sent = 0;
    struct bly_hwire_reply reply = {
        .seq = h->seq,
        .flags = (uint8_t)((result->truncated ? BLY_HWIRE_TRUNCATED : 0) |
                           (m->is_directory ? BLY_HWIRE_IS_DIRECTORY : 0) |
                           (m->is_file ? BLY_HWIRE_IS_FILE : 0) |
                           (m->is_symlink ? BLY_HWIRE_IS_SYMLINK : 0)),
        .number = result->n_entries > 0 ? result->n_entries : m->size,
        .created_at_ms = m->created_at_ms,
        .modified_at_ms = m->modified_at_ms,
    };

    while (len - sent > BLY_HWIRE_PIECE) {
        int r = send_piece(h, (const char *)data + sent, BLY_HWIRE_PIECE, true);

        if (r < 0)
            return r;
        sent += BLY_HWIRE_PIECE;
    }
    reply.data_len = (uint32_t)(len - sent);
    return send_packet(h, &reply, data == NULL ? NULL : (const char *)data + sent, -EBADF);
}

static int serve_other(struct helper *h, struct bly_fs_request *request)
{
    if (bly_fs_run(&h->view, request, &h->reply) < 0)
        return send_error(h, &h->reply.err);
    return send_result(h);
}

/* Answers one request; negative when the server is gone or not itself. */
static int serve(struct helper *h, size_t len, int fd)
{
    struct bly_hwire_request in;
    int r = bly_hwire_unpack_request(h->packet, len, fd >= 0, &in);

    if (r < 0)
        return r;
    h->seq = in.seq;
    bly_fs_reply_init(&h->reply);
    switch (in.request.op) {
    case BLY_FS_READ_FILE:
        r = serve_read(h, &in.request);
        break;
    case BLY_FS_WRITE_FILE:
        r = serve_write(h, &in, fd);
        break;
    case BLY_FS_OPEN:
        r = serve_open(h, &in.request);
        break;
    case BLY_FS_CREATE_DIRECTORY:
    case BLY_FS_GET_METADATA:
    case BLY_FS_READ_DIRECTORY:
    case BLY_FS_REMOVE:
    case BLY_FS_COPY:
    case BLY_FS_CANONICALIZE:
    case BLY_FS_WALK:
        r = serve_other(h, &in.request);
        break;
    case BLY_FS_READ_BLOCK:
    case BLY_FS_WRITE_BLOCK:
        r = -EBADMSG;
        break;
    }
    bly_fs_reply_deinit(&h->reply);
    return r;
}

int bly_helper_main(int socket_fd, const struct bly_policy *policy, const struct bly_policy *folded)
{
    struct helper *h = &the_helper;

    h->sock = socket_fd;
    h->view = (struct bly_view){.policy = policy, .folded = folded};
    for (;;) {
        bly_autofd int fd = -EBADF;
        ssize_t n = bly_hwire_recv(socket_fd, h->packet, sizeof h->packet, &fd);

        if (n == -EAGAIN) {
            struct pollfd ready = {.fd = socket_fd, .events = POLLIN};

            if (poll(&ready, 1, -1) < 0 && errno != EINTR)
                return 1;
            continue;
        }
        if (n == 0)
            return 0;
        if (n < 0 || serve(h, (size_t)n, fd) < 0)
            return 1;
    }
}
