/*
 * What arrives on the launcher's sockets. The first byte of the input selects: 's' and 'h' the
 * payload of a request, 'p' a raw packet, 'm' a raw packet with the rest behind the header in a
 * descriptor, 'f' what the launcher found out about the machine, '0', '1' and '2' the report of a
 * child with so many descriptors. None is ever lost.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "fuzz.h"
#include "fuzz_socket.h"
#include "launcher/launcher.h"
#include "launcher/probe.h"
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

static void check_packet(const int pair[2], const uint8_t *data, size_t size, bool in_memory)
{
    size_t n = in_memory && size > HEADER ? HEADER : size;
    bly_autofd int memory = in_memory ? memory_with(data + n, size - n) : -EBADF;

    if (n > BLY_WIRE_INLINE_MAX)
        return;
    fuzz_send(pair[0], data, n, memory, in_memory ? 1 : 0);
    check_received(pair[1]);
}

static void check_report(const int pair[2], const uint8_t *data, size_t size, size_t n_fds)
{
    struct bly_report report = {0};
    bly_autofd int fd = -EBADF;
    int r;

    if (size > BLY_WIRE_INLINE_MAX)
        return;
    fuzz_send(pair[0], data, size, pair[0], n_fds);
    r = bly_report_read(pair[1], &report, &fd);
    FUZZ_MUST(r <= BLY_REPORT_END && r != -EAGAIN);
    if (r == 0) {
        FUZZ_MUST(memchr(report.err.text, '\0', sizeof(report.err.text)));
        FUZZ_MUST((report.type == BLY_REPORT_TERMINAL) == (fd >= 0));
        FUZZ_MUST(report.refused <= (report.type == BLY_REPORT_EXITED));
    }
}

/* What unpacks can be packed and unpacked again. */
static void check_features(const uint8_t *data, size_t size)
{
    struct bly_reader reader = bly_reader_of(data, size);
    bly_autobuf struct bly_buf buf;
    struct bly_features features;

    bly_buf_init(&buf, FUZZ_OUTPUT_MAX);
    if (bly_features_unpack(&reader, &features) < 0)
        return;
    FUZZ_MUST(bly_features_pack(&features, &buf) == 0);
    reader = bly_reader_of(buf.data, buf.len);
    FUZZ_MUST(bly_features_unpack(&reader, &features) == 0);
}

static void check(const int pair[2], char what, const uint8_t *data, size_t size)
{
    if (what == 's')
        check_request(BLY_WIRE_START, data, size);
    else if (what == 'h')
        check_request(BLY_WIRE_HELPER, data, size);
    else if (what == 'f')
        check_features(data, size);
    else if (what == 'p' || what == 'm')
        check_packet(pair, data, size, what == 'm');
    else if (what >= '0' && what <= '0' + FUZZ_FDS_MAX)
        check_report(pair, data, size, (size_t)(what - '0'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    int next;

    if (size == 0)
        return 0;
    fuzz_socketpair(pair);
    next = fuzz_next_fd();
    check(pair, (char)data[0], data + 1, size - 1);
    FUZZ_MUST(fuzz_next_fd() == next);
    bly_close(pair[0]);
    bly_close(pair[1]);
    return 0;
}
