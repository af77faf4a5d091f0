#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "server/order.h"
#include "support/rows.h"

/*
 * A script is a row of steps. "r1" and "w1" add a read or a write called 1, "r1a" one in lane a,
 * "-1" ends number 1. Next to it stands what starts, in this order: the added entry itself, or what
 * had been waiting.
 */
static const struct order_case {
    const char *name;
    const char *steps;
    const char *started;
    size_t max_in_flight;
} cases[] = {
    {"a lone request starts at once", "w1", "1"},
    {"reads overlap", "r1 r2 r3", "1 2 3"},
    {"a write waits for the reads before it", "r1 r2 w3", "1 2"},
    {"a write starts when the last read is done", "r1 r2 w3 -1 -2", "1 2 3"},
    {"a read waits for the write before it", "w1 r2", "1"},
    {"a read does not overtake a write that waits", "r1 w2 r3", "1"},
    {"everything behind a finished write starts together", "w1 r2 r3 w4 -1", "1 2 3"},
    {"writes run one after the other", "w1 w2 w3 -1 -2", "1 2 3"},
    {"writes of one lane are pipelined", "w1a w2a r3a", "1 2 3"},
    {"a write of another lane waits", "w1a w2b", "1"},
    {"a read of another lane waits for a write", "w1a r2b", "1"},
    {"a request in no lane waits for a lane's write", "w1a r2", "1"},
    {"no lane is not a lane", "w1 w2", "1"},
    {"reads of different lanes overlap", "r1a r2b r3", "1 2 3"},
    {"a write joins the reads of its own lane", "r1a w2a", "1 2"},
    {"a write does not join reads of two lanes", "r1a r2b w3a", "1 2"},
    {"a write waits for both lanes", "r1a r2b w3a -2 -1", "1 2 3"},
    {"a read behind a lane's write joins it", "r1a w2a r3a", "1 2 3"},
    {"a read outside waits for the whole lane", "r1a w2a r3 -2 -1", "1 2 3"},
    {"what never started may end", "w1 w2 w3 -2 -1", "1 3"},
    {"the last one waiting may end", "w1 w2 -2 w3 -1", "1 3"},
    {"the lane is free again after it ran dry", "w1a -1 w2b", "1 2"},
    {"ending twice does no harm", "w1 w2 -1 -1", "1 2"},
    {"reads overlap up to the limit", "r1 r2 r3 r4 -2 -1", "1 2 3 4", 2},
    {"a lane is pipelined up to the limit", "w1a w2a w3a", "1 2", 2},
    {"a limit of one: one after the other, in order", "r1 r2a r3a -1 -2", "1 2 3", 1},
    {"a limit of one: what never started makes no room", "r1 r2 r3 -2", "1", 1},
};

enum { MAX_ENTRIES = 10 };

static void start_all(struct bly_order *order, const struct bly_order_entry *entries, char *started)
{
    const struct bly_order_entry *entry;

    while ((entry = bly_order_first(order)) && bly_order_start(order)) {
        assert_true(entry->in_flight);
        (void)sprintf(started + strlen(started), "%s%d", started[0] ? " " : "",
                      (int)(entry - entries));
    }
}

static void check_case(void **state)
{
    static const char lanes[26];
    const struct order_case *c = *state;
    struct bly_order_entry entries[MAX_ENTRIES] = {0};
    struct bly_order order = {.max_in_flight = c->max_in_flight};
    char started[128] = "";

    for (const char *step = c->steps; *step; step += strcspn(step, " "), step += *step == ' ') {
        struct bly_order_entry *entry = &entries[step[1] - '0'];

        if (step[0] == '-') {
            bly_order_done(&order, entry);
        } else {
            if (step[2] >= 'a')
                entry->lane = &lanes[step[2] - 'a'];
            bly_order_add(&order, entry, step[0] == 'r');
        }
        start_all(&order, entries, started);
    }
    assert_string_equal(started, c->started);
}

/* Whatever comes and goes, nothing is lost, and nothing that changes runs beside another lane. */
static void random_traffic_keeps_the_rule(void **state)
{
    static const char lanes[3];
    struct bly_order_entry entries[MAX_ENTRIES] = {0};
    struct bly_order order = {0};
    unsigned seed = 1;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct bly_order_entry *entry;

        seed = seed * 1103515245u + 12345u;
        entry = &entries[(seed >> 16) % MAX_ENTRIES];
        if (entry->queued || entry->in_flight) {
            bly_order_done(&order, entry);
            assert_false(entry->queued || entry->in_flight);
        } else {
            unsigned lane = (seed >> 8) % 4;

            entry->lane = lane < 3 ? &lanes[lane] : NULL;
            bly_order_add(&order, entry, (seed >> 4) % 2);
        }
        while (bly_order_start(&order))
            ;
        for (size_t i = 0; i < BLY_LEN(entries); i++)
            for (size_t j = 0; j < i; j++)
                if (entries[i].in_flight && entries[j].in_flight)
                    assert_true((entries[i].reads && entries[j].reads) ||
                                (entries[i].lane && entries[i].lane == entries[j].lane));
        assert_true(order.in_flight > 0 || !bly_order_first(&order));
        assert_int_equal(bly_order_is_empty(&order), order.in_flight == 0);
    }
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(cases) + 1] = {0};

    ROWS_AS_TESTS(tests, cases, check_case);
    tests[BLY_LEN(cases)] = (struct CMUnitTest){.name = "random traffic keeps the rule",
                                                .test_func = random_traffic_keeps_the_rule};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
