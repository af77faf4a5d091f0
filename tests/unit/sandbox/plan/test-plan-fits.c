/* The fingerprint: what happens to a disk after the plan was made, and whether the plan notices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_disk.h"

#include "base/buf.h"
#include "base/cleanup.h"

#define SECOND_PROCFS                                                                       \
    "d /srv/a/proc\nd /srv/b\nf /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|2 1 0:4 / " \
    "/srv/a/proc rw - proc proc rw|"

static const struct fits_case {
    const char *name;
    const char *policy;
    const char *disk;
    const char *gone;  /* one path that disappears, NULL: none */
    const char *later; /* entries that appear, or replace others as new objects */
    int answer;
} cases[] = {
    {"nothing happened", "r /; w /w", "d /w/.git", NULL, "", 0},
    {"something else happened", "r /; w /w", "d /w/.git", NULL, "f /w/new\nd /x", 0},
    {".git appears", "r /; w /w", "d /w", NULL, "d /w/.git", BLY_PLAN_STALE},
    {".git goes", "r /; w /w", "d /w/.git", "/w/.git", "", BLY_PLAN_STALE},
    {".git becomes another directory", "r /; w /w", "d /w/.git", NULL, "d /w/.git", BLY_PLAN_STALE},
    {".git becomes a file", "r /; w /w", "d /w/.git", NULL, "f /w/.git gitdir: x|", BLY_PLAN_STALE},
    {"the root becomes a symlink", "r /; w /w", "d /w", NULL, "l /w /home", BLY_PLAN_STALE},
    {"the root becomes another directory", "r /; w /w", "d /w", NULL, "d /w", BLY_PLAN_STALE},
    {"the root goes", "r /; w /a/w", "d /a/w", "/a/w", "", BLY_PLAN_STALE},
    {"a missing root appears", "r /; w /w", "", NULL, "d /w", BLY_PLAN_STALE},
    {"a missing readable root appears", "r /w", "", NULL, "d /w", BLY_PLAN_STALE},
    {"a missing deny appears", "r /; deny /w/p", "d /w", NULL, "f /w/p", BLY_PLAN_STALE},
    {"the first part of a missing path appears", "r /; w /w; r /w/a/b", "d /w", NULL, "d /w/a",
     BLY_PLAN_STALE},
    {"an ancestor of a restriction is exchanged", "r /; w /w; r /w/a/b/c", "d /w/a/b/c", NULL,
     "d /w/a", BLY_PLAN_STALE},
    {"a link of the path leads elsewhere", "r /; w /l/x", "l /l /a\nd /a/x\nd /b/x", NULL,
     "l /l /b", BLY_PLAN_STALE},
    {"a link of the path becomes a directory", "r /; w /l/x", "l /l /a\nd /a/x", NULL,
     "d /l\nd /l/x", BLY_PLAN_STALE},
    {"a .git pointer is rewritten", "r /; w /w", "f /w/.git gitdir: a|\nd /w/a\nd /w/b", NULL,
     "f /w/.git gitdir: b|", BLY_PLAN_STALE},
    {"what a .git pointer names appears", "r /; w /w", "f /w/.git gitdir: a|", NULL, "d /w/a",
     BLY_PLAN_STALE},
    {"the common directory of a worktree changes", "r /; w /w",
     "f /w/.git gitdir: g|\nf /w/g/commondir ../c|\nd /w/c", NULL, "f /w/g/commondir ../d|",
     BLY_PLAN_STALE},
    {"a symlinked .git leads elsewhere", "r /; w /w", "l /w/.git a\nd /w/a\nd /w/b", NULL,
     "l /w/.git b", BLY_PLAN_STALE},
    {"a closed directory opens", "r /; deny /root/x", "x /root", NULL, "d /root", BLY_PLAN_STALE},
    {"something is mounted", "r /; w /w",
     "d /w/sub\nf /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|", NULL,
     "f /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|2 1 8:2 / /w/sub rw - ext4 y rw|",
     BLY_PLAN_STALE},
    {"a name comes beside a second procfs", "r /", SECOND_PROCFS, NULL, "f /srv/a/new",
     BLY_PLAN_STALE},
    {"a name goes beside a second procfs", "r /", SECOND_PROCFS, "/srv/b", "", BLY_PLAN_STALE},
    {"a name comes further away from it", "r /", SECOND_PROCFS, NULL, "f /srv/b/new", 0},
    {"a name comes beside a second procfs that is not shown", "minimal", SECOND_PROCFS, NULL,
     "f /srv/a/new", 0},
    {"a mount's options change", "r /; w /w",
     "d /w\nf /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|", NULL,
     "f /proc/self/mountinfo 1 0 8:1 / / ro,nosuid - ext4 x rw|", 0},
    {"a platform default that leads elsewhere changes", "minimal", "l /bin opt\nd /opt", NULL,
     "l /bin other\nd /other", BLY_PLAN_STALE},
};

/* An exchanged file keeps its number: a pointer may also be rewritten in place. */
static void change(struct fake_disk *disk, const struct fits_case *c)
{
    if (c->gone)
        fake_remove(disk, c->gone);
    fake_read(disk, c->later);
}

static void check_case(void **state)
{
    const struct fits_case *c = *state;
    struct fake_disk *disk = fake_new(c->disk);
    struct bly_probe probe = fake_probe(disk);
    struct bly_policy *policy = policy_of(c->policy);
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};

    if (bly_plan_make(policy, BLY_FOR_HELPER, &probe, NULL, 0, &plan, &err) < 0)
        fail_msg("refused: %s", err.text);
    assert_int_equal(bly_plan_fits(plan, &probe), 0);
    change(disk, c);
    assert_int_equal(bly_plan_fits(plan, &probe), c->answer);
    bly_plan_free(plan);
    bly_policy_unref(policy);
    free(disk);
}

/* The check runs before every reuse: one look for each name it depends on, not one for each
 * component. */
static void check_is_cheap(void **state)
{
    struct fake_disk *disk =
        fake_new("d /home/u/src/w/.git\nd /usr\nd /etc\nl /bin usr/bin\nd /tmp");
    struct bly_probe probe = fake_probe(disk);
    struct bly_policy *policy = policy_of("r /; w /home/u/src/w; tmp");
    struct bly_plan *plan = NULL;

    (void)state;
    assert_int_equal(bly_plan_make(policy, BLY_FOR_HELPER, &probe, NULL, 0, &plan, NULL), 0);
    disk->looks = 0;
    assert_int_equal(bly_plan_fits(plan, &probe), 0);
    assert_int_equal(disk->looks, 11); /* two roots, four names in each, and the mount table */
    bly_plan_free(plan);
    bly_policy_unref(policy);
    free(disk);
}

/* Bytes that came apart on the way are refused or mean the same kind of thing, never a crash. */
static void damaged_bytes_are_refused(void **state)
{
    struct fake_disk *disk = fake_new("d /w/.git\nd /w/a/b\nl /proj /w\nd /usr\nl /bin usr/bin");
    struct bly_probe probe = fake_probe(disk);
    struct bly_policy *policy = policy_of("minimal; w /proj; r /w/a/b; deny /w/p; glob /w/*.env");
    struct bly_plan *plan = NULL;
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 1 << 20);
    assert_int_equal(bly_plan_make(policy, BLY_FOR_PROCESS, &probe, NULL, 0, &plan, NULL), 0);
    assert_int_equal(bly_plan_pack(plan, &buf), 0);
    for (size_t i = 0; i < buf.len; i++) {
        struct bly_reader reader = bly_reader_of(buf.data, i);
        struct bly_plan *copy = NULL;

        assert_int_equal(bly_plan_unpack(&reader, &copy), -EBADMSG);
        for (unsigned bit = 1; bit < 256; bit <<= 1) {
            buf.data[i] = (uint8_t)(buf.data[i] ^ bit);
            reader = bly_reader_of(buf.data, buf.len);
            if (bly_plan_unpack(&reader, &copy) == 0)
                copy = bly_plan_free(copy);
            buf.data[i] = (uint8_t)(buf.data[i] ^ bit);
        }
    }
    bly_plan_free(plan);
    bly_policy_unref(policy);
    free(disk);
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(cases) + 2] = {
        cmocka_unit_test(check_is_cheap),
        cmocka_unit_test(damaged_bytes_are_refused),
    };

    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        union {
            const void *in;
            void *out;
        } state = {&cases[i]};

        tests[i + 2] = (struct CMUnitTest){
            .name = cases[i].name, .test_func = check_case, .initial_state = state.out};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
