/* Which rung a plan gets: what works, a policy, and the answer. Pure: the disk is made of text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/sandbox/plan/fake_disk.h"

#include "base/cleanup.h"
#include "sandbox/enforce/rung.h"
#include "support/rows.h"

enum { H = BLY_FOR_HELPER, P = BLY_FOR_PROCESS };

#define DISK                                                                         \
    "d /w/.git\nd /w/.agents\nd /w/.codex\nd /w/.aws\nd /etc\nd /usr\nd /home/u\nd " \
    "/sys/firmware\nd /proc"

/* What works, as letters: h helper, p process, o online, n network only, l Landlock, s supervision.
 */
static const char letters[BLY_WALL_KINDS] = {
    [BLY_WALL_HELPER] = 'h',       [BLY_WALL_PROCESS] = 'p',  [BLY_WALL_PROCESS_ONLINE] = 'o',
    [BLY_WALL_NETWORK_ONLY] = 'n', [BLY_WALL_LANDLOCK] = 'l', [BLY_WALL_SUPERVISION] = 's',
};

#define ALL  "hponls"
#define LOCK "ls" /* no namespaces */
#define SECOND_PROCFS                                                                          \
    "d /srv/proc\nf /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|2 1 0:4 / /srv/proc rw - " \
    "proc "                                                                                    \
    "proc rw|"
#define MANY    "Landlock alone cannot hold back"
#define HIDES   "Landlock alone cannot hide"
#define NETWORK "Landlock alone cannot keep a program from the network"
#define OPT_IN  "only with --allow-landlock-processes"

static const struct rung_case {
    const char *name;
    const char *works;
    int purpose;
    const char *policy;
    int rung;            /* 0: refused */
    const char *refusal; /* part of it */
    int abi;             /* of Landlock; 0: 7 */
    bool allow_fs, allow_processes;
    const char *disk; /* what is there besides; NULL: nothing */
} cases[] = {
    {"files, all works", ALL, H, "r /; w /w", 1},
    {"a program, all works", ALL, P, "r /; w /w", 1},
    {"without Landlock the first wall is whole", "hpons", H, "r /; w /w", 1},
    {"a program without Landlock", "hpons", P, "r /; w /w", 1},
    {"files do not need what programs need", "hls", H, "r /; w /w; deny /w/p", 1},

    {"reading everything", LOCK, H, "r /", 2},
    {"reading a root", LOCK, H, "r /w", 2},
    {"reading the system", LOCK, H, "minimal", 2},
    {"several roots, one in the other", LOCK, H, "r /home; r /home/u; r /w", 2},
    {"a writable root has protected names", LOCK, H, "r /; w /w", 0, MANY},
    {"writing only", LOCK, H, "w /w", 0, MANY},
    {"deny", LOCK, H, "r /; deny /w", 0, MANY},
    {"deny below a root", LOCK, H, "r /w; deny /w/p", 0, MANY},
    {"deny of the kernel's own files", LOCK, H, "r /; deny /sys/firmware", 2},
    {"read below write", LOCK, H, "w /w; r /w/.git", 0, MANY},
    {"everything writable but something", LOCK, H, "w /; deny /w", 0, MANY},
    {"allowed: a writable root", LOCK, H, "r /; w /w", 2, NULL, 0, true},
    {"allowed: deny", LOCK, H, "r /; deny /w", 2, NULL, 0, true},
    {"a pattern", LOCK, H, "r /; glob /w/**/*.env", 0, MANY},
    {"allowed: a pattern", LOCK, H, "r /; glob /w/**/*.env", 2, NULL, 0, true},
    {"a wall around the network", "n", P, "off", 1},
    {"a wall around the network, without namespaces", LOCK, P, "off", 0, NETWORK, 0, true, true},
    {"files do not need a new Landlock", LOCK, H, "r /w", 2, NULL, 1},

    {"a program that reads everything, not allowed", LOCK, P, "r /", 0, OPT_IN},
    {"allowed", LOCK, P, "r /", 2, NULL, 0, false, true},
    {"allowed, as much as is needed", LOCK, P, "r /", 2, NULL, 6, false, true},
    {"allowed, with an older Landlock", LOCK, P, "r /", 0, "Linux 6.12", 5, false, true},
    {"allowed, but it may not see everything", LOCK, P, "minimal", 0, HIDES, 0, true, true},
    {"allowed, but one root only", LOCK, P, "r /w", 0, HIDES, 0, true, true},
    {"allowed, but with a workspace", LOCK, P, "r /; w /w", 0, MANY, 0, true, true},
    {"allowed, but with deny", LOCK, P, "r /; deny /w", 0, MANY, 0, true, true},
    {"the option for files is not one for programs", LOCK, P, "r /", 0, OPT_IN, 0, true},

    {"reading everything beside a second procfs", LOCK, H, "r /", 2, .disk = SECOND_PROCFS},
    {"reading a root with a second procfs in it", LOCK, H, "r /srv", 2, .disk = SECOND_PROCFS},
    {"a writable root with a second procfs in it", LOCK, H, "r /; w /srv", 0, MANY,
     .disk = SECOND_PROCFS},
    {"a program beside a second procfs", LOCK, P, "r /", 2, .allow_processes = true,
     .disk = SECOND_PROCFS},

    {"neither namespaces nor Landlock", "s", H, "r /w", 0, "nor can Landlock", 0, true, true},
    {"a program with neither", "s", P, "r /", 0, "nor can Landlock", 0, true, true},
    {"nothing works", "", H, "r /", 0, "h is gone"},
    {"the reason is that of the wall", "hols", P, "r /", 0, "p is gone"},
    {"names that are there need no supervision", "hponl", P, "r /; w /w", 1},
    {"missing names do", "hponl", P, "r /; w /home/u", 0, "names that do not exist yet"},
    {"files never do", "hponl", H, "r /; w /home/u", 1},
};

static struct bly_features features_of(const struct rung_case *c)
{
    struct bly_features features = {.landlock_abi = c->abi ? (uint8_t)c->abi : 7,
                                    .allow_fs = c->allow_fs,
                                    .allow_processes = c->allow_processes,
                                    .fix = "do what is needed"};

    for (int kind = 0; kind < BLY_WALL_KINDS; kind++) {
        features.works[kind] = strchr(c->works, letters[kind]) != NULL;
        if (!features.works[kind])
            (void)snprintf(features.why_not[kind], BLY_WHY_MAX, "%c is gone", letters[kind]);
    }
    return features;
}

static void check_case(void **state)
{
    const struct rung_case *c = *state;
    struct bly_features features = features_of(c);
    struct fake_disk *disk = fake_new(DISK);
    struct bly_probe probe = fake_probe(disk);
    struct bly_policy *policy = policy_of(c->policy);
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};
    int r;

    fake_read(disk, c->disk ? c->disk : "");
    assert_int_equal(
        bly_plan_make(policy, (enum bly_purpose)c->purpose, &probe, NULL, 0, &plan, &err), 0);
    r = bly_rung_choose(&features, plan, &err);
    if (c->rung > 0) {
        if (r != c->rung)
            fail_msg("%d, %s", r, err.text);
    } else {
        assert_true(r < 0);
        assert_int_equal(err.kind, BLY_ERR_UNSUPPORTED);
        if (!strstr(err.text, c->refusal))
            fail_msg("refused: %s", err.text);
        /* A refusal names what can be done about it. */
        assert_non_null(
            strstr(err.text, strstr(c->refusal, "not exist") ? "s is gone" : "do what is needed"));
    }
    bly_plan_free(plan);
    bly_policy_unref(policy);
    free(disk);
}

static void the_machine_has_a_rung_and_a_reason(void **state)
{
    static const struct {
        const char *works;
        enum bly_rung rung;
        const char *reason;
    } machines[] = {
        {ALL, BLY_RUNG_NAMESPACES, NULL},
        {"hpons", BLY_RUNG_NAMESPACES, "l is gone"},
        {"hponl", BLY_RUNG_NAMESPACES, "s is gone"},
        {"hls", BLY_RUNG_LANDLOCK, "p is gone"},
        {LOCK, BLY_RUNG_LANDLOCK, "h is gone"},
        {"s", BLY_RUNG_REFUSED, "h is gone"},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(machines); i++) {
        const struct rung_case c = {.works = machines[i].works};
        struct bly_features features = features_of(&c);

        assert_int_equal(bly_rung_of_machine(&features), machines[i].rung);
        if (machines[i].reason)
            assert_string_equal(bly_rung_reason(&features), machines[i].reason);
        else
            assert_null(bly_rung_reason(&features));
    }
}

int main(void)
{
    const struct CMUnitTest others[] = {
        cmocka_unit_test(the_machine_has_a_rung_and_a_reason),
    };
    struct CMUnitTest tests[BLY_LEN(cases) + BLY_LEN(others)] = {0};

    ROWS_AS_TESTS(tests, cases, check_case);
    memcpy(tests + BLY_LEN(cases), others, sizeof(others));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
