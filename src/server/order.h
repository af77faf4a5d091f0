#pragma once

/*
 * The order of requests on one connection (spec 3.5): a request sees the effects of every ordered
 * request before it, although answers may overtake each other. Requests start strictly first come,
 * first served. The first one waiting may start when
 *   - nothing is in flight, or
 *   - it only reads, and so does everything in flight, or
 *   - everything in flight is in its lane: a lane carries requests out in the order it gets them,
 * and only as long as fewer than `max_in_flight` are. Pure; loop thread.
 */
#include <stdbool.h>
#include <stddef.h>

struct bly_order_entry {
    struct bly_order_entry *next;
    const void *lane; /* NULL: in no lane; may be set until the entry has started */
    bool reads;
    bool queued, in_flight;
};

struct bly_order {
    struct bly_order_entry *first, *last; /* waiting */
    size_t max_in_flight;                 /* set by the owner; 0: no limit */
    size_t in_flight, reads_in_flight;
    const void *lane; /* of everything in flight; NULL when that is mixed, or in none */
};

/* Puts `entry` (zeroed by the caller, who keeps it alive until it is done) at the end. */
void bly_order_add(struct bly_order *order, struct bly_order_entry *entry, bool reads);

/* The first one waiting, NULL when there is none. Its lane may be set now. */
struct bly_order_entry *bly_order_first(const struct bly_order *order);

/* Whether nothing waits and nothing is in flight. */
bool bly_order_is_empty(const struct bly_order *order);

/* Starts the first one waiting if it may start; false when it has to wait, or nothing waits. */
bool bly_order_start(struct bly_order *order);

/* The entry is finished, or will never be started. Harmless when repeated. */
void bly_order_done(struct bly_order *order, struct bly_order_entry *entry);
