#include "sandbox/plan/draft.h"

#include <string.h>

#include "base/cleanup.h"

/* A search costs at most this many looks at the table, whatever paths somebody chooses. */
enum { SEEN_PROBES = 8, SEEN_SLOTS_MIN = 256, SEEN_SLOTS_MAX = 1 << 16 };

static const uint64_t hash_start = 0xcbf29ce484222325u;

static uint64_t mix(uint64_t hash)
{
    hash *= 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 32;
}

/* Component by component, so that the hash of a path goes through those of all above it. */
static uint64_t hash_component(uint64_t hash, const char *name, size_t len)
{
    uint64_t word = len + 1;

    for (; len >= sizeof(word); name += sizeof(word), len -= sizeof(word)) {
        uint64_t bytes;

        memcpy(&bytes, name, sizeof(bytes));
        hash = mix(hash ^ bytes);
    }
    while (len > 0)
        word = word << 8 | (unsigned char)name[--len];
    return mix(hash ^ word);
}

static bool is_at(const struct bly_seen_node *node, const char *path, size_t len)
{
    return node && node->len == len && memcmp(node->path, path, len) == 0;
}

static uint64_t hash_of(const struct bly_seen *seen, const char *path, size_t len)
{
    const struct bly_seen_node *dir = seen->last_dir;
    uint64_t hash = hash_start;
    const char *end = path + len;

    /* What lies in the same directory as before begins with the same components. */
    if (dir && dir->len < len && path[dir->len] == '/' && is_at(dir, path, dir->len)) {
        hash = dir->hash;
        path += dir->len + 1;
    }

    for (const char *slash; (slash = memchr(path, '/', (size_t)(end - path))); path = slash + 1)
        hash = hash_component(hash, path, (size_t)(slash - path));
    return hash_component(hash, path, (size_t)(end - path));
}

static struct bly_seen_node *slot_at(const struct bly_seen *seen, uint64_t hash, size_t probe)
{
    return &seen->slots[(hash + probe) & (seen->n_slots - 1)];
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
        if (slot->hash == hash && is_at(slot, path, len))
            return slot;
    }
    return NULL;
}

void bly_seen_init(struct bly_seen *seen, size_t expected)
{
    seen->n_slots = SEEN_SLOTS_MIN;
    while (seen->n_slots < 2 * expected && seen->n_slots < SEEN_SLOTS_MAX)
        seen->n_slots *= 2;
    seen->slots = calloc(seen->n_slots, sizeof(*seen->slots));
}

struct bly_seen_node *bly_seen_find(const struct bly_seen *seen, const char *path, size_t len)
{
    return find(seen, path, len, hash_of(seen, path, len));
}

struct bly_seen_node *bly_seen_get(struct bly_seen *seen, const char *path, bool *ret_new)
{
    size_t len = strlen(path);
    uint64_t hash = hash_of(seen, path, len);
    struct bly_seen_node *slot = find(seen, path, len, hash);

    *ret_new = !slot;
    for (size_t i = 0; !slot && seen->slots && i < SEEN_PROBES; i++) {
        struct bly_seen_node *free_slot = slot_at(seen, hash, i);

        if (free_slot->path)
            continue;
        free_slot->path = strdup(path);
        free_slot->hash = hash;
        free_slot->len = len;
        return free_slot->path ? free_slot : NULL;
    }
    return slot;
}

static bool is_walked_directory(const struct bly_seen_node *node)
{
    return node && node->canonical && node->result == 0 && node->node.type == BLY_NODE_DIR;
}

bool bly_seen_is_directory(struct bly_seen *seen, const char *path, size_t len)
{
    if (!is_at(seen->last_dir, path, len))
        seen->last_dir = bly_seen_find(seen, path, len);
    return is_walked_directory(seen->last_dir);
}

size_t bly_seen_directory_above(const struct bly_seen *seen, const char *path)
{
    uint64_t hash = hash_start;
    size_t best = 0, from = 0;

    for (const char *slash; (slash = strchr(path + from, '/')) != NULL;) {
        size_t len = (size_t)(slash - path);

        hash = hash_component(hash, path + from, len - from);
        if (len > 0 && is_walked_directory(find(seen, path, len, hash)))
            best = len;
        from = len + 1;
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
