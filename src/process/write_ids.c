#include "process/write_ids.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

struct bly_write_id_node {
    struct bly_write_id id; /* first: the tree compares nodes by it */
    STAILQ_ENTRY(bly_write_id_node) entry;
};

struct bly_write_id bly_write_id_of(const char *text)
{
    struct sha256_ctx ctx;
    struct bly_write_id id;

    sha256_init(&ctx);
    sha256_update(&ctx, strlen(text), (const uint8_t *)text);
    sha256_digest(&ctx, sizeof(id.digest), id.digest);
    return id;
}

bool bly_write_id_equal(const struct bly_write_id *a, const struct bly_write_id *b)
{
    return memcmp(a->digest, b->digest, sizeof(a->digest)) == 0;
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, BLY_WRITE_ID_BYTES);
}

void bly_write_ids_init(struct bly_write_ids *ids)
{
    ids->tree = NULL;
    ids->n = 0;
    STAILQ_INIT(&ids->oldest_first);
}

static void forget_oldest(struct bly_write_ids *ids)
{
    struct bly_write_id_node *oldest = STAILQ_FIRST(&ids->oldest_first);

    STAILQ_REMOVE_HEAD(&ids->oldest_first, entry);
    (void)tdelete(oldest, &ids->tree, compare);
    free(oldest);
    ids->n--;
}

void bly_write_ids_deinit(struct bly_write_ids *ids)
{
    while (ids->n > 0)
        forget_oldest(ids);
}

bool bly_write_ids_has(const struct bly_write_ids *ids, const struct bly_write_id *id)
{
    return tfind(id, &ids->tree, compare) != NULL;
}

int bly_write_ids_add(struct bly_write_ids *ids, const struct bly_write_id *id)
{
    struct bly_write_id_node *node = malloc(sizeof(*node));
    struct bly_write_id_node **found;

    if (node == NULL)
        return -ENOMEM;
    node->id = *id;
    found = tsearch(node, &ids->tree, compare);
    if (found == NULL || *found != node) {
        free(node);
        return found == NULL ? -ENOMEM : 0;
    }
    STAILQ_INSERT_TAIL(&ids->oldest_first, node, entry);
    if (++ids->n > BLY_WRITE_IDS_MAX)
        forget_oldest(ids);
    return 0;
}
