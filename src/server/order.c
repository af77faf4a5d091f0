#include "server/order.h"

#include <assert.h>

void bly_order_add(struct bly_order *order, struct bly_order_entry *entry, bool reads)
{
    assert(!entry->queued && !entry->in_flight);
    entry->next = NULL;
    entry->reads = reads;
    entry->queued = true;
    if (order->last)
        order->last->next = entry;
    else
        order->first = entry;
    order->last = entry;
}

struct bly_order_entry *bly_order_first(const struct bly_order *order)
{
    return order->first;
}

static bool may_start(const struct bly_order *order, const struct bly_order_entry *entry)
{
    if (order->in_flight == 0)
        return true;
    if (order->max_in_flight && order->in_flight >= order->max_in_flight)
        return false;
    if (entry->reads && order->reads_in_flight == order->in_flight)
        return true;
    return entry->lane && entry->lane == order->lane;
}

static void unlink_first(struct bly_order *order)
{
    struct bly_order_entry *entry = order->first;

    order->first = entry->next;
    if (!order->first)
        order->last = NULL;
    entry->next = NULL;
    entry->queued = false;
}

bool bly_order_start(struct bly_order *order)
{
    struct bly_order_entry *entry = order->first;

    if (!entry || !may_start(order, entry))
        return false;

    unlink_first(order);
    entry->in_flight = true;
    if (order->in_flight == 0)
        order->lane = entry->lane;
    else if (order->lane != entry->lane)
        order->lane = NULL;
    order->in_flight++;
    if (entry->reads)
        order->reads_in_flight++;
    return true;
}

static void unlink_queued(struct bly_order *order, struct bly_order_entry *entry)
{
    struct bly_order_entry *before = order->first;

    if (before == entry) {
        unlink_first(order);
        return;
    }
    while (before->next != entry)
        before = before->next;
    before->next = entry->next;
    if (order->last == entry)
        order->last = before;
    entry->next = NULL;
    entry->queued = false;
}

void bly_order_done(struct bly_order *order, struct bly_order_entry *entry)
{
    if (entry->queued)
        unlink_queued(order, entry);
    if (!entry->in_flight)
        return;
    entry->in_flight = false;
    order->in_flight--;
    if (entry->reads)
        order->reads_in_flight--;
    /* A mixture stays one until all of it is done: rarely does the rest share a lane. */
    if (order->in_flight == 0)
        order->lane = NULL;
}

bool bly_order_is_empty(const struct bly_order *order)
{
    return !order->first && order->in_flight == 0;
}
