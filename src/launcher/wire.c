#include "launcher/wire.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd_pass.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* since Linux 6.3 */
#endif

struct header {
    uint32_t type;
    uint16_t n_fds; /* of the packet, without the memfd */
    uint16_t in_memfd;
    uint64_t len;
};

_Static_assert(BLY_WIRE_MAX_FDS + 1 <= BLY_FD_PASS_MAX,
               "the memfd, which comes first, and the rest");

static int memfd_new(void)
{
    int fd = memfd_create("bailey-packet", MFD_CLOEXEC | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("bailey-packet", MFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int memfd_with(const struct bly_buf *payload, int *ret_fd)
{
    bly_autofd int fd = memfd_new();
    size_t done = 0;

    if (fd < 0)
        return fd;

    while (done < payload->len) {
        ssize_t n = pwrite(fd, payload->data + done, payload->len - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    *ret_fd = bly_take_fd(&fd);
    return 0;
}

static int send_retrying(int sock, const struct iovec *parts, size_t n_parts, const int *fds,
                         size_t n_fds, bool wait)
{
    for (;;) {
        ssize_t n = bly_fd_pass_send(sock, parts, n_parts, fds, n_fds, wait ? 0 : MSG_DONTWAIT);

        if (n != -ETOOMANYREFS)
            return n < 0 ? (int)n : 0;
        if (!wait)
            return -EAGAIN;
        usleep(1000); /* Too many descriptors on their way: the other end has to read first. */
    }
}

int bly_wire_send(int sock, enum bly_wire_type type, const struct bly_buf *payload, const int *fds,
                  size_t n_fds, bool wait)
{
    struct header header = {.type = type, .n_fds = (uint16_t)n_fds, .len = payload->len};
    struct iovec iov[2] = {{&header, sizeof(header)}, {payload->data, payload->len}};
    bly_autofd int memfd = -EBADF;
    int all[BLY_FD_PASS_MAX];
    size_t n_all = 0;

    assert(n_fds <= BLY_WIRE_MAX_FDS);
    if (payload->error < 0)
        return payload->error;
    if (payload->len > BLY_WIRE_MAX)
        return -EMSGSIZE;

    if (payload->len > BLY_WIRE_INLINE_MAX) {
        int r = memfd_with(payload, &memfd);

        if (r < 0)
            return r;
        header.in_memfd = 1;
        all[n_all++] = memfd;
    }
    for (size_t i = 0; i < n_fds; i++)
        all[n_all++] = fds[i];
    return send_retrying(sock, iov, header.in_memfd ? 1 : 2, all, n_all, wait);
}

static int read_memfd(int fd, uint8_t *data, size_t len)
{
    struct stat st;
    size_t done = 0;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size != len)
        return -EBADMSG;

    while (done < len) {
        ssize_t n = pread(fd, data + done, len - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EBADMSG;
        done += (size_t)n;
    }
    return 0;
}

static bool header_is_sound(const struct header *header, size_t n_bytes)
{
    size_t inline_len = n_bytes - sizeof(*header);

    if (header->n_fds > BLY_WIRE_MAX_FDS || header->in_memfd > 1 || header->len > BLY_WIRE_MAX)
        return false;
    return header->in_memfd ? inline_len == 0 : inline_len == header->len;
}

/* Moves what was received into `packet`; descriptors it does not take stay in `passed`. */
static int unwrap(const struct header *header, const uint8_t *body, struct bly_passed *passed,
                  struct bly_packet *packet)
{
    size_t expected = (size_t)header->n_fds + header->in_memfd;
    bool lost = passed->n < expected;

    if (passed->n > expected)
        return -EBADMSG;
    if (lost && header->in_memfd)
        return -EMFILE;

    packet->payload = malloc(header->len + 1);
    if (packet->payload == NULL)
        return -ENOMEM;
    packet->type = (enum bly_wire_type)header->type;
    packet->len = header->len;

    if (header->in_memfd) {
        int r = read_memfd(passed->fds[0], packet->payload, packet->len);

        if (r < 0)
            return r;
    } else if (header->len > 0) {
        memcpy(packet->payload, body, packet->len);
    }

    packet->fds_lost = lost;
    for (size_t i = header->in_memfd; i < passed->n && !lost; i++)
        packet->fds[packet->n_fds++] = bly_take_fd(&passed->fds[i]);
    return 0;
}

int bly_wire_recv(int sock, struct bly_packet *ret_packet)
{
    uint8_t body[BLY_WIRE_INLINE_MAX];
    struct header header = {0};
    struct iovec iov[2] = {{&header, sizeof(header)}, {body, sizeof(body)}};
    struct bly_passed passed;
    struct bly_packet packet = {.fds = {-EBADF, -EBADF, -EBADF}};
    ssize_t n;
    int r;

    /* ECONNRESET is said once when the other end went without reading all; its last words follow.
     */
    do
        n = bly_fd_pass_recv(sock, iov, 2, MSG_DONTWAIT, &passed);
    while (n == -ECONNRESET);
    if (n < 0)
        return (int)n;

    if (n == 0 && passed.n == 0)
        return BLY_WIRE_END;

    if ((size_t)n < sizeof(header) || passed.is_cut || !header_is_sound(&header, (size_t)n))
        r = -EBADMSG;
    else
        r = unwrap(&header, body, &passed, &packet);

    bly_passed_close(&passed);
    if (r < 0) {
        bly_packet_deinit(&packet);
        return r;
    }
    *ret_packet = packet;
    return 0;
}

void bly_packet_deinit(struct bly_packet *packet)
{
    for (size_t i = 0; i < packet->n_fds; i++)
        packet->fds[i] = bly_close(packet->fds[i]);
    packet->n_fds = 0;
    free(packet->payload);
    packet->payload = NULL;
}

struct bly_wire_queue_item {
    STAILQ_ENTRY(bly_wire_queue_item) entry;
    enum bly_wire_type type;
    struct bly_buf payload;
    int fd;
};

void bly_wire_queue_init(struct bly_wire_queue *outbox)
{
    STAILQ_INIT(&outbox->items);
}

static void drop_first(struct bly_wire_queue *outbox)
{
    struct bly_wire_queue_item *item = STAILQ_FIRST(&outbox->items);

    STAILQ_REMOVE_HEAD(&outbox->items, entry);
    bly_buf_deinit(&item->payload);
    bly_close(item->fd);
    free(item);
}

void bly_wire_queue_deinit(struct bly_wire_queue *outbox)
{
    while (!STAILQ_EMPTY(&outbox->items))
        drop_first(outbox);
}

bool bly_wire_queue_is_empty(const struct bly_wire_queue *outbox)
{
    return STAILQ_EMPTY(&outbox->items);
}

static int keep(struct bly_wire_queue *outbox, enum bly_wire_type type, struct bly_buf *payload,
                int *fd)
{
    struct bly_wire_queue_item *item;

    if (payload->error < 0)
        return payload->error;
    if (payload->len > BLY_WIRE_MAX)
        return -EMSGSIZE;

    item = calloc(1, sizeof(*item));
    if (item == NULL)
        return -ENOMEM;
    item->type = type;
    item->payload = *payload;
    item->fd = bly_take_fd(fd);
    bly_buf_init(payload, payload->max);
    STAILQ_INSERT_TAIL(&outbox->items, item, entry);
    return 0;
}

int bly_wire_queue_send(struct bly_wire_queue *outbox, int sock, enum bly_wire_type type,
                        struct bly_buf *payload, int fd)
{
    bly_autofd int owned = fd;
    int r = -EAGAIN;

    if (bly_wire_queue_is_empty(outbox))
        r = bly_wire_send(sock, type, payload, &owned, owned < 0 ? 0 : 1, false);
    if (r == -EAGAIN)
        r = keep(outbox, type, payload, &owned);
    return r;
}

int bly_wire_queue_flush(struct bly_wire_queue *outbox, int sock)
{
    while (!bly_wire_queue_is_empty(outbox)) {
        struct bly_wire_queue_item *item = STAILQ_FIRST(&outbox->items);
        int r =
            bly_wire_send(sock, item->type, &item->payload, &item->fd, item->fd < 0 ? 0 : 1, false);

        if (r == -EAGAIN)
            return 0;
        if (r < 0)
            return r;
        drop_first(outbox);
    }
    return 0;
}
