/*
 * What arrives on the launcher's sockets. The first byte of the input selects: 's' and 'h' the
 * payload of a request, 'p' a raw packet, 'm' a raw packet with the rest behind the header in a
 * descriptor, 'r' the report of a child.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "fuzz.h"
#include "launcher/launcher.h"
#include "launcher/report.h"
#include "launcher/request.h"
#include "launcher/wire.h"

enum { HEADER = 16 }; /* bytes in front of a packet's payload */

/* ---- requests ---- */

static void repack(const struct bly_request *request, struct bly_buf *buf)
{
    struct bly_spawn spawn = {
        .argv = (const char *const *)request->argv,
        .envp = (const char *const *)request->envp,
        .arg0 = request->arg0,
        .cwd = request->cwd,
        .tty = request->tty,
        .pipe_stdin = request->pipe_stdin,
    };

    bly_buf_init(buf, FUZZ_OUTPUT_MAX);
    if (request->helper)
        FUZZ_MUST(bly_request_pack_helper(buf, request->id, NULL) == 0);
    else
        FUZZ_MUST(bly_request_pack_start(buf, request->id, &spawn) == 0);
    bly_buf_add(buf, request->plan, request->plan_len);
}

static void check_request(enum bly_wire_type type, const uint8_t *data, size_t size)
{
    bly_autofree uint8_t *payload = (uint8_t *)fuzz_string(data, size);
    struct bly_packet packet = {.type = type, .payload = payload, .len = size};
    bly_autobuf struct bly_buf again = {0};
    struct bly_request request;

    if (bly_request_unpack(&packet, &request) < 0)
        return;
    repack(&request, &again);
    FUZZ_MUST(again.error == 0 && again.len == size && memcmp(again.data, data, size) == 0);
    bly_request_deinit(&request);
}

/* ---- sockets ---- */

static int memory_with(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    FUZZ_MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    return fd;
}

/* Sends one packet as it is, with a descriptor unless `fd` is negative. */
static void send_raw(int sock, const uint8_t *data, size_t size, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)data, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(fd));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
    }
    FUZZ_MUST(sendmsg(sock, &msg, MSG_NOSIGNAL) == (ssize_t)size);
}

static void check_received(int sock)
{
    bly_autopacket struct bly_packet packet = {0};
    int r = bly_wire_recv(sock, &packet);

    FUZZ_MUST(r <= BLY_WIRE_END && r != -EAGAIN);
    if (r != 0)
        return;
    FUZZ_MUST(packet.len <= BLY_WIRE_MAX && packet.n_fds <= BLY_WIRE_MAX_FDS);
    for (size_t i = 0; i < packet.n_fds; i++)
        FUZZ_MUST(packet.fds[i] >= 0);
    if (packet.type == BLY_WIRE_START || packet.type == BLY_WIRE_HELPER)
        check_request(packet.type, packet.payload, packet.len);
}

static void check_packet(const uint8_t *data, size_t size, bool in_memory)
{
    size_t n = in_memory && size > HEADER ? HEADER : size;
    bly_autofd int memory = in_memory ? memory_with(data + n, size - n) : -EBADF;
    int pair[2];

    if (n > BLY_WIRE_INLINE_MAX)
        return;
    FUZZ_MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    send_raw(pair[0], data, n, memory);
    check_received(pair[1]);
    bly_close(pair[0]);
    bly_close(pair[1]);
}

static void check_report(const uint8_t *data, size_t size)
{
    struct bly_report report = {0};
    int pair[2], fd = -EBADF;
    int r;

    if (size > BLY_WIRE_INLINE_MAX)
        return;
    FUZZ_MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    send_raw(pair[0], data, size, -EBADF);
    r = bly_report_read(pair[1], &report, &fd);
    FUZZ_MUST(r <= BLY_REPORT_END && r != -EAGAIN);
    FUZZ_MUST(fd < 0); /* none was sent */
    if (r == 0)
        FUZZ_MUST(memchr(report.err.text, '\0', sizeof(report.err.text)));
    bly_close(pair[0]);
    bly_close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == 's')
        check_request(BLY_WIRE_START, data + 1, size - 1);
    else if (data[0] == 'h')
        check_request(BLY_WIRE_HELPER, data + 1, size - 1);
    else if (data[0] == 'p' || data[0] == 'm')
        check_packet(data + 1, size - 1, data[0] == 'm');
    else if (data[0] == 'r')
        check_report(data + 1, size - 1);
    return 0;
}
