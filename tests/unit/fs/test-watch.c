/*
 * Every way in which a warm wall can go stale, on a real disk: with watches, and without them, when
 * all is looked at. A row changes the disk after a plan was made and says what the check must find.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fs/watch.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"
#include "script.h"
#include "support/mounts.h"

enum mode { WATCHING, LOOKING };
enum { STALE = BLY_PLAN_STALE, FITS = 0 };

static char *dir; /* of the test that runs */

static char *in_dir(const char *name)
{
    static char paths[4][4096];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
    return path;
}

static void make_file(const char *name, const char *text)
{
    int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(close(fd), 0);
}

static void make_dir(const char *name)
{
    assert_int_equal(mkdir(in_dir(name), 0755), 0);
}

static void move(const char *from, const char *to)
{
    assert_int_equal(rename(in_dir(from), in_dir(to)), 0);
}

/* ---- what happens ---- */

static void nothing(void) {}

static void something_else(void)
{
    make_dir("x");
    make_file("a/w/new", "x");
    make_file("a/w/.gitignore", "x");
    move("a/w/new", "a/w/newer");
    assert_int_equal(unlink(in_dir("a/w/newer")), 0);
    assert_int_equal(chmod(in_dir("a/w/.gitignore"), 0600), 0);
}

static void git_appears(void)
{
    make_dir("a/w/.git");
}

static void git_moves_in(void)
{
    make_dir("elsewhere");
    move("elsewhere", "a/w/.git");
}

static void git_is_linked_in(void)
{
    make_file("elsewhere", "gitdir: x\n");
    assert_int_equal(link(in_dir("elsewhere"), in_dir("a/w/.git")), 0);
}

static void git_comes_and_goes(void)
{
    make_dir("a/w/.git");
    assert_int_equal(rmdir(in_dir("a/w/.git")), 0);
}

static void root_becomes_link(void)
{
    move("a/w", "a/old");
    assert_int_equal(symlink("old", in_dir("a/w")), 0);
}

static void root_is_made_anew(void)
{
    assert_int_equal(rmdir(in_dir("a/w")), 0);
    make_dir("keeps-the-number"); /* so that the new directory is not the old one by its number */
    make_dir("a/w");
}

static void root_is_exchanged(void)
{
    make_dir("a/other");
    assert_int_equal(
        renameat2(AT_FDCWD, in_dir("a/other"), AT_FDCWD, in_dir("a/w"), RENAME_EXCHANGE), 0);
}

static void root_goes(void)
{
    assert_int_equal(rmdir(in_dir("a/w")), 0);
}

static void root_moves_away(void)
{
    move("a/w", "moved");
}

static void ancestor_moves_away(void)
{
    move("a", "b");
}

static void ancestor_moves_and_comes_back(void)
{
    move("a", "b");
    move("b", "a");
}

static void ancestor_is_made_anew(void)
{
    move("a", "b");
    make_dir("a");
    make_dir("a/w");
}

/* The watches must be where the names are, also after a change that was none. */
static void git_appears_after_coming_back(void)
{
    ancestor_moves_and_comes_back();
    git_appears();
}

static void missing_root_appears(void)
{
    make_dir("missing");
}

static void part_of_a_missing_path_appears(void)
{
    make_dir("a/w/deep");
}

static void root_is_closed(void)
{
    assert_int_equal(chmod(in_dir("a/w"), 0700), 0);
}

static void pointer_is_there(void)
{
    make_file("a/w/.git", "gitdir: one\n");
}

static void pointer_is_rewritten(void)
{
    make_file("a/w/.git", "gitdir: two\n");
}

/* No event tells of what is written through a mapping. */
static void pointer_is_rewritten_in_silence(void)
{
    int fd = open(in_dir("a/w/.git"), O_RDWR | O_CLOEXEC);
    char *text = mmap(NULL, 12, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    assert_true(text != MAP_FAILED);
    memcpy(text, "gitdir: two\n", 12);
    assert_int_equal(munmap(text, 12), 0);
    assert_int_equal(close(fd), 0);
}

static void link_leads_elsewhere(void)
{
    assert_int_equal(unlink(in_dir("link")), 0);
    assert_int_equal(symlink("b", in_dir("link")), 0);
}

static void too_much_happens(void)
{
    for (int i = 0; i < 20000; i++) /* more than the kernel keeps events for */
        assert_int_equal(chmod(in_dir("a/w"), i % 2 ? 0755 : 0750), 0);
}

static void git_appears_in_the_noise(void)
{
    too_much_happens();
    git_appears();
}

static void bind_on_the_root(void)
{
    assert_int_equal(mount(in_dir("other"), in_dir("a/w"), NULL, MS_BIND, NULL), 0);
}

static void bind_below_the_root(void)
{
    assert_int_equal(mount(in_dir("other"), in_dir("a/w/sub"), NULL, MS_BIND, NULL), 0);
}

static void bind_on_an_ancestor(void)
{
    assert_int_equal(mount(in_dir("other"), in_dir("a"), NULL, MS_BIND, NULL), 0);
}

static void root_is_unmounted(void)
{
    assert_int_equal(umount2(in_dir("a/w"), MNT_DETACH), 0);
}

static void mount_comes_and_goes(void)
{
    bind_on_the_root();
    root_is_unmounted();
}

enum { MOUNTS = 1 }; /* in a mount namespace of its own, as root */

static const struct stale_case {
    const char *name;
    const char *disk; /* see script.h */
    const char *rules;
    void (*before)(void); /* the plan is made; NULL: nothing */
    void (*change)(void);
    int answer;
    unsigned flags;
} cases[] = {
    {"nothing happened", "a/w/", "ro /\nrw $T/a/w", NULL, nothing, FITS},
    {"something else happened", "a/w/", "ro /\nrw $T/a/w", NULL, something_else, FITS},
    {".git appears", "a/w/", "ro /\nrw $T/a/w", NULL, git_appears, STALE},
    {".git is moved in", "a/w/", "ro /\nrw $T/a/w", NULL, git_moves_in, STALE},
    {".git is linked in", "a/w/", "ro /\nrw $T/a/w", NULL, git_is_linked_in, STALE},
    {".git comes and goes", "a/w/", "ro /\nrw $T/a/w", NULL, git_comes_and_goes, FITS},
    {"the root becomes a link", "a/w/", "ro /\nrw $T/a/w", NULL, root_becomes_link, STALE},
    {"the root is made anew", "a/w/", "ro /\nrw $T/a/w", NULL, root_is_made_anew, STALE},
    {"the root is exchanged", "a/w/", "ro /\nrw $T/a/w", NULL, root_is_exchanged, STALE},
    {"the root goes", "a/w/", "ro /\nrw $T/a/w", NULL, root_goes, STALE},
    {"the root moves away", "a/w/", "ro /\nrw $T/a/w", NULL, root_moves_away, STALE},
    {"an ancestor moves away", "a/w/", "ro /\nrw $T/a/w", NULL, ancestor_moves_away, STALE},
    {"an ancestor moves and comes back", "a/w/", "ro /\nrw $T/a/w", NULL,
     ancestor_moves_and_comes_back, FITS},
    {"an ancestor is made anew", "a/w/", "ro /\nrw $T/a/w", NULL, ancestor_is_made_anew, STALE},
    {".git appears after an ancestor came back", "a/w/", "ro /\nrw $T/a/w", NULL,
     git_appears_after_coming_back, STALE},
    {"a missing root appears", "a/w/", "ro /\nrw $T/a/w\nrw $T/missing", NULL, missing_root_appears,
     STALE},
    {"a missing denied path appears in part", "a/w/", "ro /\nrw $T/a/w\ndeny $T/a/w/deep/er", NULL,
     part_of_a_missing_path_appears, STALE},
    {"the root's permissions change", "a/w/", "ro /\nrw $T/a/w", NULL, root_is_closed, FITS},
    {"a pointer is rewritten", "a/w/", "ro /\nrw $T/a/w", pointer_is_there, pointer_is_rewritten,
     STALE},
    {"a pointer is rewritten through a mapping", "a/w/", "ro /\nrw $T/a/w", pointer_is_there,
     pointer_is_rewritten_in_silence, STALE},
    {"a link leads elsewhere", "a/w/ b/w/ link->a", "ro /\nrw $T/link/w", NULL,
     link_leads_elsewhere, STALE},
    {"too much happens", "a/w/", "ro /\nrw $T/a/w", NULL, too_much_happens, FITS},
    {".git appears in the noise", "a/w/", "ro /\nrw $T/a/w", NULL, git_appears_in_the_noise, STALE},
    {"a mount on the root", "a/w/ other/", "ro /\nrw $T/a/w", NULL, bind_on_the_root, STALE,
     MOUNTS},
    {"a mount below the root", "a/w/sub/ other/", "ro /\nrw $T/a/w", NULL, bind_below_the_root,
     STALE, MOUNTS},
    {"a mount on an ancestor", "a/w/ other/w/", "ro /\nrw $T/a/w", NULL, bind_on_an_ancestor, STALE,
     MOUNTS},
    {"the root is unmounted", "a/w/ other/", "ro /\nrw $T/a/w", bind_on_the_root, root_is_unmounted,
     STALE, MOUNTS},
    {"a mount comes and goes", "a/w/ other/", "ro /\nrw $T/a/w", NULL, mount_comes_and_goes, FITS,
     MOUNTS},
};

/* ---- a row ---- */

static struct bly_plan *plan_of(const char *rules)
{
    struct bly_policy *policy = script_policy(dir, rules);
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};

    if (bly_plan_make(policy, BLY_FOR_HELPER, &bly_probe_disk, NULL, 0, &plan, &err) < 0)
        fail_msg("no plan: %s", err.text);
    bly_policy_unref(policy);
    return plan;
}

struct row {
    const struct stale_case *c;
    enum mode mode;
};

static void run_case(const void *arg)
{
    const struct row *row = arg;
    const struct stale_case *c = row->c;
    enum mode mode = row->mode;
    struct bly_watcher *watcher;
    struct bly_watch *watch;
    struct bly_plan *plan;

    script_setup(dir, c->disk);
    if (c->before)
        c->before();
    plan = plan_of(c->rules);
    assert_int_equal(bly_watcher_new(mode == WATCHING ? 1000 : 0, &watcher), 0);
    assert_int_equal(bly_watch_new(watcher, plan, &watch), 0);
    assert_int_equal(bly_watch_check(watch), FITS);
    assert_int_equal(bly_watcher_counts(watcher).watches > 0, mode == WATCHING);
    c->change();
    assert_int_equal(bly_watch_check(watch), c->answer);
    assert_int_equal(bly_watch_check(watch), c->answer); /* and it stays so */
    /* What was no change is watched again. */
    if (c->answer == FITS && !(c->flags & MOUNTS)) {
        git_appears();
        assert_int_equal(bly_watch_check(watch), STALE);
    }
    bly_watch_free(watch);
    assert_int_equal(bly_watcher_counts(watcher).watches, 0);
    bly_watcher_free(watcher);
    bly_plan_free(plan);
}

static void check_row(void **state)
{
    const struct row *row = *state;

    if (row->c->flags & MOUNTS)
        run_with_mounts(run_case, row);
    else
        run_case(row);
}

static int setup(void **state)
{
    (void)state;
    dir = script_directory();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    script_cleanup(dir);
    return 0;
}

/* ---- what watching is for, and its limits ---- */

/* A check that finds no event looks at nothing, and a busy root is no reason to. */
static void quiet_checks_look_at_nothing(void **state)
{
    struct bly_watcher *watcher;
    struct bly_watch *watch;
    struct bly_plan *plan;
    uint64_t looks;

    (void)state;
    script_setup(dir, "a/w/");
    plan = plan_of("ro /\nrw $T/a/w");
    assert_int_equal(bly_watcher_new(1000, &watcher), 0);
    assert_int_equal(bly_watch_new(watcher, plan, &watch), 0);
    assert_int_equal(bly_watch_check(watch), 0);
    looks = bly_watcher_counts(watcher).looks;
    for (int i = 0; i < 100; i++) {
        make_file("a/w/busy", "x");
        assert_int_equal(bly_watch_check(watch), 0);
        assert_int_equal(unlink(in_dir("a/w/busy")), 0);
    }
    assert_int_equal(bly_watcher_counts(watcher).looks, looks);
    bly_watch_free(watch);
    bly_watcher_free(watcher);
    bly_plan_free(plan);
}

static void past_the_limit_names_are_looked_at(void **state)
{
    struct bly_watcher *watcher;
    struct bly_watch *watch;
    struct bly_plan *plan;
    uint64_t looks;

    (void)state;
    script_setup(dir, "a/w/ b/w/ c/w/");
    plan = plan_of("ro /\nrw $T/a/w\nrw $T/b/w\nrw $T/c/w");
    assert_int_equal(bly_watcher_new(3, &watcher), 0);
    assert_int_equal(bly_watch_new(watcher, plan, &watch), 0);
    assert_int_equal(bly_watch_check(watch), 0);
    assert_int_equal(bly_watcher_counts(watcher).watches, 0); /* all or none */
    looks = bly_watcher_counts(watcher).looks;
    assert_int_equal(bly_watch_check(watch), 0);
    assert_true(bly_watcher_counts(watcher).looks > looks);
    make_dir("c/w/.git");
    assert_int_equal(bly_watch_check(watch), BLY_PLAN_STALE);
    bly_watch_free(watch);
    bly_watcher_free(watcher);
    bly_plan_free(plan);
}

/* Two walls on one directory: the watch is shared and ends with the last. */
static void watches_are_shared(void **state)
{
    struct bly_watcher *watcher;
    struct bly_watch *watches[2];
    struct bly_plan *plans[2];
    size_t n;

    (void)state;
    script_setup(dir, "a/w/");
    assert_int_equal(bly_watcher_new(1000, &watcher), 0);
    for (int i = 0; i < 2; i++) {
        plans[i] = plan_of("ro /\nrw $T/a/w");
        assert_int_equal(bly_watch_new(watcher, plans[i], &watches[i]), 0);
        assert_int_equal(bly_watch_check(watches[i]), 0);
        n = bly_watcher_counts(watcher).watches;
    }
    bly_watch_free(watches[0]);
    assert_int_equal(bly_watcher_counts(watcher).watches, n);
    git_appears();
    assert_int_equal(bly_watch_check(watches[1]), BLY_PLAN_STALE);
    bly_watch_free(watches[1]);
    assert_int_equal(bly_watcher_counts(watcher).watches, 0);
    bly_watcher_free(watcher);
    bly_plan_free(plans[0]);
    bly_plan_free(plans[1]);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest others[] = {
        TEST(quiet_checks_look_at_nothing),
        TEST(past_the_limit_names_are_looked_at),
        TEST(watches_are_shared),
    };
    static struct row rows[2 * BLY_LEN(cases)];
    static char names[2 * BLY_LEN(cases)][80];
    struct CMUnitTest tests[2 * BLY_LEN(cases)] = {0};

    for (size_t i = 0; i < BLY_LEN(tests); i++) {
        rows[i] = (struct row){&cases[i / 2], i % 2 ? LOOKING : WATCHING};
        (void)snprintf(names[i], sizeof(names[i]), "%s: %s", i % 2 ? "looking" : "watching",
                       cases[i / 2].name);
        tests[i] = (struct CMUnitTest){.name = names[i],
                                       .test_func = check_row,
                                       .setup_func = setup,
                                       .teardown_func = teardown,
                                       .initial_state = &rows[i]};
    }
    return cmocka_run_group_tests_name("stale", tests, NULL, NULL) +
           cmocka_run_group_tests_name("watches", others, NULL, NULL);
}
