#include "sandbox/plan/draft.h"

#include <string.h>

#include "base/cleanup.h"

/* A search costs at most this many looks at the table, whatever paths somebody chooses. */
enum { SEEN_PROBES = 8, SEEN_SLOTS_MIN = 256, SEEN_SLOTS_MAX = 1 << 16 };

static uint64_t hash_byte(uint64_t hash, char c)
{
    return (hash ^ (unsigned char)c) * 0x100000001b3u; /* FNV-1a */
}

static const uint64_t hash_start = 0xcbf29ce484222325u;

static uint64_t hash_of(const char *path)
{
    uint64_t hash = hash_start;

    while (*path)
        hash = hash_byte(hash, *path++);
    return hash;
}

static struct bly_seen_node *slot_at(const struct bly_seen *seen, uint64_t hash, size_t probe)
{
    return &seen->slots[((hash ^ hash >> 32) + probe) & (seen->n_slots - 1)];
}

/* The entry for the first `len` bytes of `path`, or NULL. */
static struct bly_seen_node *find(const struct bly_seen *seen, const char *path, size_t len,
                                  uint64_t hash)
{
    if (!seen->slots)
        return NULL;
    for (size_t i = 0; i < SEEN_PROBES; i++) {
        struct bly_seen_node *slot = slot_at(seen, hash, i);

        if (!slot->path)
            return NULL;
        if (slot->hash == hash && strncmp(slot->path, path, len) == 0 && slot->path[len] == '\0')
            return slot;
    }
    return NULL;
}

void bly_seen_init(struct bly_seen *seen, size_t expected)
{
    seen->n_slots = SEEN_SLOTS_MIN;
    while (seen->n_slots < 4 * expected && seen->n_slots < SEEN_SLOTS_MAX)
        seen->n_slots *= 2;
    seen->slots = calloc(seen->n_slots, sizeof(*seen->slots));
}

struct bly_seen_node *bly_seen_find(const struct bly_seen *seen, const char *path)
{
    return find(seen, path, strlen(path), hash_of(path));
}

struct bly_seen_node *bly_seen_add(struct bly_seen *seen, const char *path)
{
    uint64_t hash = hash_of(path);

    for (size_t i = 0; seen->slots && i < SEEN_PROBES; i++) {
        struct bly_seen_node *slot = slot_at(seen, hash, i);

        if (slot->path)
            continue;
        slot->path = strdup(path);
        slot->hash = hash;
        return slot->path ? slot : NULL;
    }
    return NULL;
}

size_t bly_seen_directory_above(const struct bly_seen *seen, const char *path)
{
    uint64_t hash = hash_start;
    size_t best = 0;

    for (size_t len = 0; path[len] != '\0'; len++) {
        const struct bly_seen_node *slot;

        if (len > 0 && path[len] == '/') {
            slot = find(seen, path, len, hash);
            if (slot && slot->canonical && slot->result == 0 && slot->node.type == BLY_NODE_DIR)
                best = len;
        }
        hash = hash_byte(hash, path[len]);
    }
    return best;
}

void bly_seen_deinit(struct bly_seen *seen)
{
    for (size_t i = 0; seen->slots && i < seen->n_slots; i++)
        free(seen->slots[i].path);
    free(seen->slots);
    seen->slots = NULL;
}
