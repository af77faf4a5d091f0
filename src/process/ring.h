#pragma once

/*
 * Output ring: the latest bytes a process wrote, kept so that a client which was away can catch up.
 * Chunks carry the event number they were announced with (numbers may have gaps: exit and close
 * events share the counter). Past the limits the oldest chunks go. Loop thread only; nothing here
 * makes a system call.
 */
#include <stddef.h>
#include <stdint.h>

struct bly_ring;
struct bly_chunk {
    uint64_t seq;        /* never 0 */
    int stream;          /* enum bly_stream */
    const uint8_t *data; /* borrowed: valid until the next bly_ring_push() */
    size_t len;
};

enum { BLY_RING_EMPTY = 1 };

/* Makes an empty ring; memory is taken as it fills. 0, or -ENOMEM. */
int bly_ring_new(size_t max_bytes, size_t max_chunks, struct bly_ring **ret_ring);
struct bly_ring *bly_ring_free(struct bly_ring *ring); /* NULL is fine; returns NULL */

/*
 * Copies `len` bytes in. `seq` must be above every earlier one. A chunk above `max_bytes` by itself
 * is not kept, and neither is anything before it. 0; -ENOMEM: nothing has changed.
 */
int bly_ring_push(struct bly_ring *ring, uint64_t seq, int stream, const void *data, size_t len);

/* The oldest kept chunk with a number above `after`: 0; BLY_RING_EMPTY when there is none. */
int bly_ring_next(const struct bly_ring *ring, uint64_t after, struct bly_chunk *ret_chunk);
