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

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* since Linux 6.3 */
#endif

struct header {
    uint32_t type;
    uint16_t n_fds; /* of the packet, without the memfd */
    uint16_t in_memfd;
    uint64_t len;
};

enum { RAW_FDS = BLY_WIRE_MAX_FDS + 1 }; /* the memfd comes first */

union control {
    struct cmsghdr align;
    char space[CMSG_SPACE(RAW_FDS * sizeof(int))];
};

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

static void attach(struct msghdr *msg, union control *control, const int *fds, size_t n_fds)
{
    struct cmsghdr *cmsg = &control->align;

    memset(control, 0, sizeof(*control));
    msg->msg_control = control;
    msg->msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
    memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
}

static int send_retrying(int sock, const struct msghdr *msg, bool wait)
{
    int flags = MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT);

    for (;;) {
        if (sendmsg(sock, msg, flags) >= 0)
            return 0;
        if (errno == ETOOMANYREFS && wait)
            usleep(1000); /* Too many descriptors on their way: the other end has to read first. */
        else if (errno == ETOOMANYREFS)
            return -EAGAIN;
        else if (errno != EINTR)
            return -errno;
    }
}

int bly_wire_send(int sock, enum bly_wire_type type, const struct bly_buf *payload, const int *fds,
                  size_t n_fds, bool wait)
{
    struct header header = {.type = type, .n_fds = (uint16_t)n_fds, .len = payload->len};
    struct iovec iov[2] = {{&header, sizeof(header)}, {payload->data, payload->len}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    bly_autofd int memfd = -EBADF;
    int all[RAW_FDS];
    size_t n_all = 0;
    union control control;

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
        msg.msg_iovlen = 1;
        all[n_all++] = memfd;
    }
    for (size_t i = 0; i < n_fds; i++)
        all[n_all++] = fds[i];
    if (n_all > 0)
        attach(&msg, &control, all, n_all);
    return send_retrying(sock, &msg, wait);
}

struct raw_fds {
    int fd[RAW_FDS];
    size_t n;
};

static void raw_fds_close(struct raw_fds *raw)
{
    for (size_t i = 0; i < raw->n; i++)
        raw->fd[i] = bly_close(raw->fd[i]);
}

static void collect(struct msghdr *msg, struct raw_fds *raw)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        size_t n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        assert(raw->n + n <= RAW_FDS); /* The control buffer has no room for more. */
        memcpy(raw->fd + raw->n, CMSG_DATA(c), n * sizeof(int));
        raw->n += n;
    }
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

/* Moves what was received into `packet`; descriptors it does not take stay in `raw`. */
static int unwrap(const struct header *header, const uint8_t *body, struct raw_fds *raw,
                  struct bly_packet *packet)
{
    size_t expected = (size_t)header->n_fds + header->in_memfd;
    bool lost = raw->n < expected;

    if (raw->n > expected)
        return -EBADMSG;
    if (lost && header->in_memfd)
        return -EMFILE;

    packet->payload = malloc(header->len + 1);
    if (packet->payload == NULL)
        return -ENOMEM;
    packet->type = (enum bly_wire_type)header->type;
    packet->len = header->len;

    if (header->in_memfd) {
        int r = read_memfd(raw->fd[0], packet->payload, packet->len);

        if (r < 0)
            return r;
    } else if (header->len > 0) {
        memcpy(packet->payload, body, packet->len);
    }

    packet->fds_lost = lost;
    for (size_t i = header->in_memfd; i < raw->n && !lost; i++)
        packet->fds[packet->n_fds++] = bly_take_fd(&raw->fd[i]);
    return 0;
}

int bly_wire_recv(int sock, struct bly_packet *ret_packet)
{
    uint8_t body[BLY_WIRE_INLINE_MAX];
    struct header header = {0};
    struct iovec iov[2] = {{&header, sizeof(header)}, {body, sizeof(body)}};
    union control control;
    struct msghdr msg = {.msg_iov = iov,
                         .msg_iovlen = 2,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    struct raw_fds raw = {0};
    struct bly_packet packet = {.fds = {-EBADF, -EBADF, -EBADF}};
    ssize_t n;
    int r;

    /* ECONNRESET is said once when the other end went without reading all; its last words follow.
     */
    do
        n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    if (n < 0)
        return -errno;

    collect(&msg, &raw);
    if (n == 0 && raw.n == 0)
        return BLY_WIRE_END;

    if ((size_t)n < sizeof(header) || (msg.msg_flags & MSG_TRUNC) ||
        !header_is_sound(&header, (size_t)n))
        r = -EBADMSG;
    else
        r = unwrap(&header, body, &raw, &packet);

    raw_fds_close(&raw);
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
