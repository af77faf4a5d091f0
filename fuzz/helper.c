/*
 * What the server and a warm helper send to each other. The first byte of the input selects: 'q' a
 * request, 'r' a reply, in capitals with a descriptor; '0', '1' and '2' a raw packet with so many
 * descriptors, of which none is ever lost. What was unpacked is sent again, and comes out as it
 * went in.
 */
#include "fs/helper/wire.h"

#include <errno.h>
#include <limits.h>

#include "base/cleanup.h"
#include "fuzz.h"
#include "fuzz_socket.h"

struct sent {
    uint8_t packet[BLY_HWIRE_PACKET_MAX];
    ssize_t len;
    int fd;
};

/* What arrives at the other end, taken out of the socket. */
static void receive(int sock, struct sent *sent)
{
    sent->fd = -EBADF;
    sent->len = bly_hwire_recv(sock, sent->packet, sizeof(sent->packet), &sent->fd);
    FUZZ_MUST(sent->len > 0);
    bly_close(sent->fd);
}

static void check_request(const uint8_t *packet, size_t len, bool has_fd, const int pair[2])
{
    struct bly_hwire_request request = {0};
    struct sent *sent;

    if (bly_hwire_unpack_request(packet, len, has_fd, &request) < 0)
        return;
    FUZZ_MUST(request.request.op <= BLY_FS_OPEN);
    FUZZ_MUST(request.request.path[0] == '/' && strlen(request.request.path) < PATH_MAX);
    FUZZ_MUST((request.request.destination_path != NULL) == (request.request.op == BLY_FS_COPY));
    FUZZ_MUST((request.payload != NULL) == !has_fd);

    sent = malloc(sizeof(*sent));
    FUZZ_MUST(sent);
    FUZZ_MUST(bly_hwire_send_request(pair[0], request.seq, &request.request, request.payload,
                                     request.payload_len, has_fd ? pair[1] : -EBADF) == 0);
    receive(pair[1], sent);
    FUZZ_MUST(has_fd == (sent->fd >= 0));
    FUZZ_MUST((size_t)sent->len == len && memcmp(sent->packet, packet, len) == 0);
    free(sent);
}

static void check_reply(const uint8_t *packet, size_t len, bool has_fd, const int pair[2])
{
    struct bly_hwire_reply reply = {0};
    const void *data = NULL;
    struct sent *sent;

    if (bly_hwire_unpack_reply(packet, len, has_fd, &reply, &data) < 0)
        return;
    FUZZ_MUST(reply.kind <= BLY_ERR_BUG && reply.data_len <= len);
    if (len > BLY_HWIRE_PACKET_MAX)
        return; /* bly_hwire_recv() would have refused it */

    sent = malloc(sizeof(*sent));
    FUZZ_MUST(sent);
    FUZZ_MUST(bly_hwire_send_reply(pair[0], &reply, data, has_fd ? pair[1] : -EBADF) == 0);
    receive(pair[1], sent);
    FUZZ_MUST(has_fd == (sent->fd >= 0));
    FUZZ_MUST((size_t)sent->len == len && memcmp(sent->packet, packet, len) == 0);
    free(sent);
}

static void check_raw(const uint8_t *packet, size_t len, size_t n_fds, const int pair[2])
{
    uint8_t *received = malloc(BLY_HWIRE_PACKET_MAX);
    int fd = -EBADF;
    ssize_t n;

    FUZZ_MUST(received);
    fuzz_send(pair[0], packet, len, pair[0], n_fds);
    n = bly_hwire_recv(pair[1], received, BLY_HWIRE_PACKET_MAX, &fd);
    FUZZ_MUST(n <= BLY_HWIRE_PACKET_MAX && n != -EAGAIN);
    if (n > 0)
        bly_close(fd); /* after the end and after an error the caller owns nothing */
    free(received);
}

static void check(const int pair[2], char what, const uint8_t *packet, size_t len)
{
    if (what == 'q' || what == 'Q')
        check_request(packet, len, what == 'Q', pair);
    else if (what == 'r' || what == 'R')
        check_reply(packet, len, what == 'R', pair);
    else if (what >= '0' && what <= '0' + FUZZ_FDS_MAX)
        check_raw(packet, len, (size_t)(what - '0'), pair);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bly_autofree uint8_t *packet = NULL;
    int pair[2];
    int next;

    if (size == 0)
        return 0;
    packet = malloc(size); /* without a NUL behind it, and aligned as a socket's buffer is */
    FUZZ_MUST(packet);
    memcpy(packet, data + 1, size - 1);

    fuzz_socketpair(pair);
    next = fuzz_next_fd();
    check(pair, (char)data[0], packet, size - 1);
    FUZZ_MUST(fuzz_next_fd() == next);
    bly_close(pair[0]);
    bly_close(pair[1]);
    return 0;
}
