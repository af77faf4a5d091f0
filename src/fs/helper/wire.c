#include "fs/helper/wire.h"

#include <limits.h>
#include <string.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd_pass.h"
#include "sandbox/policy/policy.h"

enum {
    F_RECURSIVE = 1,
    F_FORCE = 2,
    F_NO_FOLLOW = 4,
    F_REPLACE = 8,
    F_FOLLOW_DIRECTORIES = 16,
    F_PRUNE_HIDDEN = 32,
    F_ALL = 63,
};

struct request_head {
    uint32_t seq;
    uint8_t op;
    uint8_t flags;
    uint16_t path_len, destination_len; /* without the NUL that follows each */
    uint16_t zero;
    uint32_t inline_len;
    uint64_t payload_len; /* equals inline_len, or is that of the memory file */
    uint64_t max_text_bytes;
    uint64_t max_depth, max_directories, max_entries;
};

_Static_assert(sizeof(struct request_head) + 2UL * PATH_MAX + BLY_HWIRE_INLINE <=
                   BLY_HWIRE_PACKET_MAX,
               "a request fits into a packet");
_Static_assert(sizeof(struct bly_hwire_reply) + BLY_HWIRE_PIECE <= BLY_HWIRE_PACKET_MAX,
               "a reply fits into a packet");

static int send_packet(int sock, const struct iovec *parts, size_t n_parts, int fd)
{
    ssize_t n = bly_fd_pass_send(sock, parts, n_parts, &fd, fd >= 0 ? 1 : 0, 0);

    return n < 0 ? (int)n : 0;
}

static uint8_t flags_of(const struct bly_fs_request *request)
{
    return (uint8_t)((request->recursive ? F_RECURSIVE : 0) | (request->force ? F_FORCE : 0) |
                     (request->no_follow ? F_NO_FOLLOW : 0) | (request->replace ? F_REPLACE : 0) |
                     (request->walk.follow_directory_symlinks ? F_FOLLOW_DIRECTORIES : 0) |
                     (request->walk.prune_hidden_directories ? F_PRUNE_HIDDEN : 0));
}

static struct iovec part(const void *data, size_t len)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = len};
}

int bly_hwire_send_request(int sock, uint32_t seq, const struct bly_fs_request *request,
                           const void *data, size_t len, int payload_fd)
{
    const char *destination = request->destination_path ? request->destination_path : "";
    size_t inline_len = payload_fd < 0 ? len : 0;
    struct request_head head = {
        .seq = seq,
        .op = (uint8_t)request->op,
        .flags = flags_of(request),
        .path_len = (uint16_t)strlen(request->path),
        .destination_len = (uint16_t)strlen(destination),
        .inline_len = (uint32_t)inline_len,
        .payload_len = len,
        .max_text_bytes = request->max_text_bytes,
        .max_depth = request->walk.max_depth,
        .max_directories = request->walk.max_directories,
        .max_entries = request->walk.max_entries,
    };
    struct iovec parts[] = {
        part(&head, sizeof head),
        part(request->path, head.path_len + 1u),
        part(destination, head.destination_len + 1u),
        part(data, inline_len),
    };

    return send_packet(sock, parts, BLY_LEN(parts), payload_fd);
}

int bly_hwire_send_reply(int sock, const struct bly_hwire_reply *reply, const void *data, int fd)
{
    struct iovec parts[] = {part(reply, sizeof *reply), part(data, reply->data_len)};

    return send_packet(sock, parts, BLY_LEN(parts), reply->flags & BLY_HWIRE_FD ? fd : -EBADF);
}

ssize_t bly_hwire_recv(int sock, void *packet, size_t size, int *ret_fd)
{
    struct iovec whole = {.iov_base = packet, .iov_len = size};
    struct bly_passed passed;
    ssize_t n = bly_fd_pass_recv(sock, &whole, 1, 0, &passed);

    if (n < 0)
        return n;
    if (passed.n > 1 || passed.is_cut || passed.fds_are_cut)
        n = -EBADMSG;
    if (n <= 0) /* an empty packet reads like the end, and nobody takes what it brought */
        bly_passed_close(&passed);
    if (n >= 0)
        *ret_fd = bly_passed_take_one(&passed);
    return n;
}

/* A path in a packet: absolute, with its NUL and no other. */
static bool is_path(const char *path, size_t len)
{
    return len > 0 && len < PATH_MAX && path[0] == '/' && memchr(path, '\0', len + 1) == path + len;
}

static bool has_path_pair(enum bly_fs_op op)
{
    return op == BLY_FS_COPY;
}

int bly_hwire_unpack_request(const void *packet, size_t len, bool has_fd,
                             struct bly_hwire_request *ret_request)
{
    const char *path = (const char *)packet + sizeof(struct request_head), *destination;
    struct request_head head;

    if (len < sizeof head)
        return -EBADMSG;
    memcpy(&head, packet, sizeof head);
    if (head.op > BLY_FS_OPEN || (head.flags & ~F_ALL) || head.zero != 0 ||
        head.inline_len > BLY_HWIRE_INLINE ||
        len != sizeof head + head.path_len + 1u + head.destination_len + 1u + head.inline_len)
        return -EBADMSG;
    destination = path + head.path_len + 1;
    if (!is_path(path, head.path_len) || destination[head.destination_len] != '\0')
        return -EBADMSG;
    if (has_path_pair((enum bly_fs_op)head.op) ? !is_path(destination, head.destination_len)
                                               : head.destination_len != 0)
        return -EBADMSG;
    if (has_fd ? head.op != BLY_FS_WRITE_FILE || head.inline_len != 0
               : head.payload_len != head.inline_len)
        return -EBADMSG;

    *ret_request = (struct bly_hwire_request){
        .seq = head.seq,
        .request =
            {
                .op = (enum bly_fs_op)head.op,
                .path = path,
                .destination_path = head.destination_len > 0 ? destination : NULL,
                .recursive = head.flags & F_RECURSIVE,
                .force = head.flags & F_FORCE,
                .no_follow = head.flags & F_NO_FOLLOW,
                .replace = head.flags & F_REPLACE,
                .walk =
                    {
                        .max_depth = head.max_depth,
                        .max_directories = head.max_directories,
                        .max_entries = head.max_entries,
                        .follow_directory_symlinks = head.flags & F_FOLLOW_DIRECTORIES,
                        .prune_hidden_directories = head.flags & F_PRUNE_HIDDEN,
                    },
                .fd = -EBADF,
                .max_text_bytes = head.max_text_bytes,
            },
        .payload = has_fd ? NULL : destination + head.destination_len + 1,
        .payload_len = head.payload_len,
    };
    return 0;
}

/* Only a denial explains itself, and only as struct bly_denial can. */
static bool is_denial_plausible(const struct bly_hwire_reply *reply)
{
    if (reply->denied_access == BLY_DENIED_NOTHING)
        return reply->denied_by == 0 && reply->denied_index == 0 && reply->denied_name == 0;
    return reply->denied_access <= BLY_DENIED_WRITE && reply->denied_by <= BLY_BY_NAME &&
           reply->denied_name < (reply->denied_by == BLY_BY_NAME ? BLY_PROTECTED_NAMES : 1) &&
           (reply->kind == BLY_ERR_DENIED ||
            (reply->kind == BLY_ERR_SYSTEM && reply->sys == EACCES));
}

int bly_hwire_unpack_reply(const void *packet, size_t len, bool has_fd,
                           struct bly_hwire_reply *ret_reply, const void **ret_data)
{
    struct bly_hwire_reply reply;

    if (len < sizeof reply)
        return -EBADMSG;
    memcpy(&reply, packet, sizeof reply);
    if (reply.data_len != len - sizeof reply || reply.kind > BLY_ERR_BUG || reply.sys < 0 ||
        reply.sys > 4095 || (reply.flags & 0x80) || has_fd != !!(reply.flags & BLY_HWIRE_FD))
        return -EBADMSG;
    if (!is_denial_plausible(&reply))
        return -EBADMSG;
    /* An error ends its request and brings nothing else; a piece in the middle only data. */
    if (reply.kind != BLY_ERR_NONE && reply.flags != 0)
        return -EBADMSG;
    if ((reply.flags & BLY_HWIRE_MORE) && reply.flags != BLY_HWIRE_MORE)
        return -EBADMSG;
    *ret_reply = reply;
    *ret_data = (const char *)packet + sizeof reply;
    return 0;
}
