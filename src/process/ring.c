#include "process/ring.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_SLOTS = 16 };

struct kept {
    uint64_t seq;
    size_t len;
    int stream;
    uint8_t data[];
};

/* A circular array of chunks, oldest first. It grows up to max_chunks, and never shrinks. */
struct bly_ring {
    size_t max_bytes, max_chunks;
    size_t n_bytes;
    struct kept **slots;
    size_t n_slots;
    size_t first, n;
};

int bly_ring_new(size_t max_bytes, size_t max_chunks, struct bly_ring **ret_ring)
{
    struct bly_ring *ring = calloc(1, sizeof(*ring));

    if (ring == NULL)
        return -ENOMEM;
    ring->max_bytes = max_bytes;
    ring->max_chunks = max_chunks;
    *ret_ring = ring;
    return 0;
}

static struct kept *at(const struct bly_ring *ring, size_t i)
{
    return ring->slots[(ring->first + i) % ring->n_slots];
}

struct bly_ring *bly_ring_free(struct bly_ring *ring)
{
    if (ring == NULL)
        return NULL;
    for (size_t i = 0; i < ring->n; i++)
        free(at(ring, i));
    free(ring->slots);
    free(ring);
    return NULL;
}

static void drop_oldest(struct bly_ring *ring)
{
    struct kept *oldest = at(ring, 0);

    ring->n_bytes -= oldest->len;
    ring->first = (ring->first + 1) % ring->n_slots;
    ring->n--;
    free(oldest);
}

static int grow(struct bly_ring *ring)
{
    size_t n_slots = ring->n_slots > 0 ? ring->n_slots * 2 : FIRST_SLOTS;
    struct kept **slots = calloc(n_slots, sizeof(struct kept *));

    if (slots == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < ring->n; i++)
        slots[i] = at(ring, i);
    free(ring->slots);
    ring->slots = slots;
    ring->n_slots = n_slots;
    ring->first = 0;
    return 0;
}

int bly_ring_push(struct bly_ring *ring, uint64_t seq, int stream, const void *data, size_t len)
{
    bool fits = len <= ring->max_bytes && ring->max_chunks > 0;
    struct kept *kept = fits ? malloc(sizeof(*kept) + len) : NULL;

    if (fits && kept == NULL)
        return -ENOMEM;
    if (fits && ring->n == ring->n_slots && ring->n < ring->max_chunks && grow(ring) < 0) {
        free(kept);
        return -ENOMEM;
    }

    while (ring->n > 0 &&
           (!fits || ring->n == ring->max_chunks || ring->n_bytes + len > ring->max_bytes))
        drop_oldest(ring);
    if (!fits)
        return 0;

    kept->seq = seq;
    kept->stream = stream;
    kept->len = len;
    memcpy(kept->data, data, len);
    ring->slots[(ring->first + ring->n++) % ring->n_slots] = kept;
    ring->n_bytes += len;
    return 0;
}

int bly_ring_next(const struct bly_ring *ring, uint64_t after, struct bly_chunk *ret_chunk)
{
    size_t low = 0, high = ring->n; /* the first one above `after` is in [low, high] */
    const struct kept *found;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (at(ring, middle)->seq > after)
            high = middle;
        else
            low = middle + 1;
    }
    if (low == ring->n)
        return BLY_RING_EMPTY;

    found = at(ring, low);
    *ret_chunk = (struct bly_chunk){
        .seq = found->seq, .stream = found->stream, .data = found->data, .len = found->len};
    return 0;
}
