#pragma once

/*
 * The latest write ids of a process, so that a repeated write is recognised. Kept as digests: an id
 * may be as long as a message. Loop thread only.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

enum { BLY_WRITE_IDS_MAX = 4096, BLY_WRITE_ID_BYTES = 32 };

struct bly_write_id {
    uint8_t digest[BLY_WRITE_ID_BYTES];
};

struct bly_write_id bly_write_id_of(const char *text);
bool bly_write_id_equal(const struct bly_write_id *a, const struct bly_write_id *b);

struct bly_write_ids {
    void *tree;                                    /* of tsearch(3) */
    STAILQ_HEAD(, bly_write_id_node) oldest_first; /* the same nodes */
    unsigned n;
};

void bly_write_ids_init(struct bly_write_ids *ids);
void bly_write_ids_deinit(struct bly_write_ids *ids);
bool bly_write_ids_has(const struct bly_write_ids *ids, const struct bly_write_id *id);
/* Past BLY_WRITE_IDS_MAX the oldest one is forgotten. 0, or -ENOMEM and nothing has changed. */
int bly_write_ids_add(struct bly_write_ids *ids, const struct bly_write_id *id);
