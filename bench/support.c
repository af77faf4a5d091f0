#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"

enum {
    KEPT_BYTES = 8 << 20, /* memory that an emptied buffer may keep */
    TREE_FDS = 16,
};

void bench_die(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

void *bench_alloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);

    if (!p)
        bench_die("out of memory");
    return p;
}

double bench_clock_us(clockid_t clock)
{
    struct timespec now;

    (void)clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

double bench_now_us(void)
{
    return bench_clock_us(CLOCK_MONOTONIC);
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

double bench_median(double *samples, size_t n)
{
    if (n == 0)
        return NAN;
    qsort(samples, n, sizeof(*samples), compare);
    return n % 2 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2;
}

double bench_quantile(const double *sorted, size_t n, double part)
{
    size_t rank = (size_t)ceil(part * (double)n);

    return n == 0 ? NAN : sorted[rank == 0 ? 0 : rank - 1];
}

void bench_keep_awake(void)
{
    const int32_t latency_us = 0;
    int fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, &latency_us, sizeof(latency_us)) != sizeof(latency_us))
        bench_die("/dev/cpu_dma_latency: %s", strerrordesc_np(errno));
}

unsigned bench_free_port(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    bly_autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
        bench_die("no free port: %s", strerrordesc_np(errno));
    return ntohs(addr.sin_port);
}

void bench_empty(struct bly_buf *buf)
{
    buf->len = 0;
    if (buf->cap > KEPT_BYTES || buf->error) {
        size_t max = buf->max;

        bly_buf_deinit(buf);
        bly_buf_init(buf, max);
    }
}

void bench_make_directory(const char *path)
{
    if (mkdir(path, 0755) < 0)
        bench_die("cannot make %s: %s", path, strerrordesc_np(errno));
}

void bench_write_file(const char *path, const void *data, size_t len)
{
    bly_autofd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    const char *from = data;

    if (fd < 0)
        bench_die("cannot make %s: %s", path, strerrordesc_np(errno));
    while (len > 0) {
        ssize_t n = write(fd, from, len);

        if (n <= 0)
            bench_die("cannot write %s: %s", path, strerrordesc_np(errno));
        from += n;
        len -= (size_t)n;
    }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    (void)remove(path);
    return 0;
}

void bench_remove_tree(const char *path)
{
    (void)nftw(path, remove_one, TREE_FDS, FTW_DEPTH | FTW_PHYS);
}
