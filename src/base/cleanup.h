#pragma once

/*
 * Owners with a scope: a local declared with one of these gives its resource back when it goes out
 * of scope, and bly_take_*() hands it over on the success path. Any thread.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define BLY_LEN(array) (sizeof(array) / sizeof((array)[0]))

static inline void bly_freep(void *p)
{
    free(*(void **)p);
    *(void **)p = NULL;
}

/* Closes and keeps errno; negative descriptors are ignored. Returns -EBADF for `fd =
 * bly_close(fd)`. */
static inline int bly_close(int fd)
{
    if (fd >= 0) {
        int saved = errno;

        (void)close(fd);
        errno = saved;
    }
    return -EBADF;
}

static inline void bly_closep(int *fd)
{
    *fd = bly_close(*fd);
}

#define bly_autofree __attribute__((cleanup(bly_freep)))
#define bly_autofd   __attribute__((cleanup(bly_closep)))

static inline int bly_take_fd(int *fd)
{
    int taken = *fd;

    *fd = -EBADF;
    return taken;
}

#define bly_take_ptr(pp)                      \
    __extension__({                           \
        __typeof__(*(pp)) bly_taken_ = *(pp); \
        *(pp) = NULL;                         \
        bly_taken_;                           \
    })
