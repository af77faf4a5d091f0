/*
 * What deny patterns matched is kept: every way in which it can go stale, on a real disk. A row
 * changes the disk after a plan was made. The next plan must be the one that is made without
 * anything being kept, and the number of directories it lists says how much was walked again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_disk.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "sandbox/plan/kept.h"
#include "support/mounts.h"

enum { PATH_BYTES = 1024, ALL = -1 /* directories: as many as the first time */ };

static char dir[64]; /* of the test that runs */

/* ---- the disk ---- */

static char *in_dir(const char *name)
{
    static _Thread_local char paths[4][2 * PATH_BYTES];
    static _Thread_local unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
    return path;
}

static void make_dir(const char *name)
{
    assert_int_equal(mkdir(in_dir(name), 0755), 0);
}

static void make_file(const char *name)
{
    int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), 1);
    assert_int_equal(close(fd), 0);
}

static void move(const char *from, const char *to)
{
    assert_int_equal(rename(in_dir(from), in_dir(to)), 0);
}

/* Names separated by blanks, in order; a directory ends with a slash. */
static void make_all(const char *names)
{
    char name[PATH_BYTES];
    int len;

    for (; sscanf(names, " %511s%n", name, &len) == 1; names += len) {
        if (name[strlen(name) - 1] == '/')
            make_dir(name);
        else
            make_file(name);
    }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void remove_all(const char *name)
{
    assert_int_equal(nftw(in_dir(name), remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static int setup(void **state)
{
    (void)state;
    (void)strcpy(dir, "/tmp/bly-kept-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- plans ---- */

static size_t n_lists;           /* directories listed */
static void (*in_between)(void); /* once, after the first time `between_dir` was listed */
static char between_dir[2 * PATH_BYTES];
static const char *folding; /* the directory that says that it folds case, or NULL */

static int list(void *ctx, const char *path, bool *ret_folds, bly_probe_each each, void *arg)
{
    int r;

    if (ret_folds && folding && strcmp(path, in_dir(folding)) == 0) {
        *ret_folds = true;
        ret_folds = NULL;
    }
    r = bly_probe_disk.list(ctx, path, ret_folds, each, arg);
    if (!each)
        return r;
    n_lists++;
    if (in_between && strcmp(path, between_dir) == 0) {
        void (*now)(void) = in_between;

        in_between = NULL;
        now();
    }
    return r;
}

/* In shorthand; "$T" at the start of a word is the directory. */
static struct bly_policy *policy_in_dir(const char *rules)
{
    char text[4096], *to = text;

    for (; *rules; rules++) {
        if (strncmp(rules, "$T", 2) == 0) {
            to += sprintf(to, "%s", dir);
            rules++;
        } else {
            *to++ = *rules;
        }
    }
    *to = '\0';
    return policy_of(text);
}

/* The steps of the plan as text; the caller frees it. */
static char *plan_text(struct bly_kept *kept, const struct bly_policy *policy)
{
    struct bly_probe probe = bly_probe_disk;
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};
    bly_autobuf struct bly_buf buf;
    char *text;

    bly_buf_init(&buf, 1 << 20);
    probe.list = list;
    probe.kept = kept;
    if (bly_plan_make(policy, BLY_FOR_PROCESS, &probe, NULL, 0, &plan, &err) < 0)
        return strdup(err.text);
    assert_int_equal(bly_plan_print(plan, &buf), 0);
    text = strndup((const char *)buf.data, buf.len);
    bly_plan_free(plan);
    return text;
}

/* What is kept must not be seen in the plan. Returns how many directories were listed for it. */
static size_t check_plan(struct bly_kept *kept, const struct bly_policy *policy)
{
    size_t before = n_lists, listed;
    bly_autofree char *text = plan_text(kept, policy);
    bly_autofree char *fresh = NULL;

    listed = n_lists - before;
    fresh = plan_text(NULL, policy);
    assert_string_equal(text, fresh);
    return listed;
}

/* ---- what happens ---- */

static void nothing(void) {}

static void other_files_come_and_go(void)
{
    make_file("w/a/new.c");
    move("w/a/new.c", "w/a/b/newer.c");
    assert_int_equal(chmod(in_dir("w/a/b/newer.c"), 0600), 0);
    assert_int_equal(unlink(in_dir("w/a/b/newer.c")), 0);
    make_file("w/main.c");
}

static void match_is_created(void)
{
    make_file("w/a/b/2.env");
}

static void match_is_renamed_in(void)
{
    make_file("2.env");
    move("2.env", "w/a/2.env");
}

static void file_gets_the_name(void)
{
    move("w/a/main.c", "w/a/main.env");
}

static void match_is_linked_in(void)
{
    make_file("2.env");
    assert_int_equal(link(in_dir("2.env"), in_dir("w/a/2.env")), 0);
}

static void match_is_a_symlink(void)
{
    assert_int_equal(symlink("/etc/passwd", in_dir("w/a/2.env")), 0);
}

static void other_letters_come(void)
{
    make_file("w/e/A.ENV");
    make_file("w/a/A.ENV");
}

static void tree_folds(void)
{
    folding = "w";
}

/* It is empty: there is nothing else that can be made to fold. */
static void directory_folds(void)
{
    folding = "w/e";
}

static void match_comes_where_case_is_folded(void)
{
    directory_folds();
    make_file("w/e/a.env");
}

static void other_letters_come_where_case_is_folded(void)
{
    directory_folds();
    other_letters_come();
}

static void directory_comes_where_case_is_folded(void)
{
    directory_folds();
    make_all("w/e/n/ w/e/n/A.ENV");
}

static void other_files_come_where_case_is_folded(void)
{
    directory_folds();
    make_file("w/e/main.c");
}

static void match_goes(void)
{
    assert_int_equal(unlink(in_dir("w/a/1.env")), 0);
}

static void match_loses_its_name(void)
{
    move("w/a/1.env", "w/a/1.txt");
}

static void match_becomes_a_directory(void)
{
    match_goes();
    make_all("w/a/1.env/ w/a/1.env/x.env");
}

static void directory_is_made(void)
{
    make_all("w/a/n/ w/a/n/m/ w/a/n/m/2.env");
}

static void directory_moves_in(void)
{
    make_all("o/ o/p/ o/p/2.env");
    move("o", "w/a/o");
}

static void match_is_created_in_what_moved_in(void)
{
    make_all("o/ o/p/");
    move("o", "w/a/o");
    make_file("w/a/o/p/2.env");
}

static void directory_moves_away(void)
{
    move("w/a", "a");
}

static void match_is_created_in_what_moved_away(void)
{
    move("w/a", "a");
    make_file("a/b/2.env");
    move("a", "w/a2");
}

static void directory_moves_within(void)
{
    move("w/a", "w/e/a");
    make_file("w/e/a/b/2.env");
}

static void directory_is_exchanged(void)
{
    make_all("a/ a/b/ a/b/2.env a/3.env");
    assert_int_equal(renameat2(AT_FDCWD, in_dir("a"), AT_FDCWD, in_dir("w/a"), RENAME_EXCHANGE), 0);
    match_is_created();
}

static void directory_is_made_anew(void)
{
    remove_all("w/a");
    make_all("w/a/ w/a/b/ w/a/b/2.env");
}

static void directory_becomes_a_link(void)
{
    move("w/a", "a");
    assert_int_equal(symlink("../a", in_dir("w/a")), 0);
}

static void directory_gets_the_name(void)
{
    move("w/a/b", "w/a/b.env");
}

static void directory_loses_the_name(void)
{
    move("w/d.env", "w/d");
}

static void inside_of_a_match(void)
{
    make_file("w/d.env/2.env");
}

static void directory_is_closed(void)
{
    assert_int_equal(chmod(in_dir("w/a/b"), 0), 0);
}

static void directory_is_opened(void)
{
    assert_int_equal(chmod(in_dir("w/a/b"), 0755), 0);
    match_is_created();
}

static void base_is_exchanged(void)
{
    move("w", "old");
    make_all("w/ w/a/ w/a/2.env");
}

static void base_comes_back(void)
{
    move("w", "old");
    make_file("old/a/2.env");
    move("old", "w");
}

static void base_appears(void)
{
    make_all("w/ w/a/ w/a/1.env");
}

static void ancestor_is_exchanged(void)
{
    move("up", "old");
    make_all("up/ up/w/ up/w/2.env");
}

static void too_many_changes(void)
{
    char name[32];

    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof(name), "w/n%d/", i);
        make_dir(name);
    }
}

static void too_much_happens(void)
{
    for (int i = 0; i < 20000; i++) /* more than the kernel keeps events for */
        assert_int_equal(chmod(in_dir(i % 2 ? "w/a" : "w/e"), i % 4 ? 0755 : 0750), 0);
    match_is_created();
}

static void mount_on_a_directory(void)
{
    assert_int_equal(mount(in_dir("other"), in_dir("w/a"), NULL, MS_BIND, NULL), 0);
}

static void mount_goes(void)
{
    assert_int_equal(umount2(in_dir("w/a"), MNT_DETACH), 0);
}

static void match_is_created_through_another_mount(void)
{
    make_file("other/b/2.env");
}

#define TREE "w/ w/a/ w/a/b/ w/a/main.c w/a/1.env w/e/ w/d.env/"
#define ENV  "r /; w $T/w; glob $T/w/**/*.env"

enum {
    MOUNTS = 1,     /* in a mount namespace of its own, as root */
    USER = 2,       /* not as root */
    NEVER_KEPT = 4, /* each plan walks */
    NOT_AGAIN = 8,  /* after the change each plan walks */
};

static const struct kept_case {
    const char *name;
    const char *disk;
    const char *rules;
    void (*before)(void); /* the first plan; NULL: nothing */
    void (*change)(void);
    int lists; /* directories listed for the second plan */
    unsigned flags;
} cases[] = {
    {"nothing happened", TREE, ENV, NULL, nothing, 0},
    {"files of other names come and go", TREE, ENV, NULL, other_files_come_and_go, 0},
    {"a match is created", TREE, ENV, NULL, match_is_created, 0},
    {"a match is renamed in", TREE, ENV, NULL, match_is_renamed_in, 0},
    {"a file gets the name", TREE, ENV, NULL, file_gets_the_name, 0},
    {"a match is linked in", TREE, ENV, NULL, match_is_linked_in, 0},
    {"a match is a symlink", TREE, ENV, NULL, match_is_a_symlink, 0},
    {"a match goes", TREE, ENV, NULL, match_goes, 0},
    {"a match loses its name", TREE, ENV, NULL, match_loses_its_name, 0},
    {"a match becomes a directory", TREE, ENV, NULL, match_becomes_a_directory, 0},
    {"a directory is made", TREE, ENV, NULL, directory_is_made, 2},
    {"a directory moves in", TREE, ENV, NULL, directory_moves_in, 2},
    {"a match is created in what moved in", TREE, ENV, NULL, match_is_created_in_what_moved_in, 2},
    {"a directory moves away", TREE, ENV, NULL, directory_moves_away, 0},
    {"a match is created in what moved away", TREE, ENV, NULL, match_is_created_in_what_moved_away,
     2},
    {"a directory moves within", TREE, ENV, NULL, directory_moves_within, 2},
    {"a directory is exchanged", TREE, ENV, NULL, directory_is_exchanged, 2},
    {"a directory is made anew", TREE, ENV, NULL, directory_is_made_anew, 2},
    {"a directory becomes a link", TREE, ENV, NULL, directory_becomes_a_link, 0},
    {"a directory gets the name", TREE, ENV, NULL, directory_gets_the_name, 0},
    {"a directory loses the name", TREE, ENV, NULL, directory_loses_the_name, 1},
    {"something happens inside of a match", TREE, ENV, NULL, inside_of_a_match, 0},
    {"a directory is closed", TREE, ENV, NULL, directory_is_closed, 1, USER},
    {"a directory is opened", TREE, ENV, directory_is_closed, directory_is_opened, 1, USER},
    {"the base is exchanged", TREE, ENV, NULL, base_is_exchanged, 2},
    {"the base comes back", TREE, ENV, NULL, base_comes_back, ALL},
    {"the base appears", "", ENV, NULL, base_appears, 2},
    {"an ancestor is exchanged", "up/ up/w/ up/w/a/", "r /; w $T/up/w; glob $T/up/w/**/*.env", NULL,
     ancestor_is_exchanged, 1},
    {"one pattern begins in the tree of another, and its base moves", TREE,
     "r /; w $T/w; glob $T/w/**/*.env; glob $T/w/a/b/*.key", NULL, directory_moves_away, 3},
    {"a match of the second pattern", TREE, "r /; w $T/w; glob $T/w/*.key; glob $T/w/**/*.env",
     NULL, match_is_created, 0},
    {"too deep for a pattern", TREE, "r /; w $T/w; glob $T/w/*/*.env", NULL, match_is_created, 0},
    {"a directory too deep for a pattern", TREE, "r /; w $T/w; glob $T/w/*/*.env", NULL,
     directory_is_made, 0},
    {"other letters come", TREE, ENV, NULL, other_letters_come, 0},
    {"where case is folded", TREE, ENV, tree_folds, other_letters_come, ALL, NEVER_KEPT},
    {"below a directory that folds case", TREE, "r /; w $T/w; glob $T/w/a/**/*.env", tree_folds,
     match_is_created, ALL, NEVER_KEPT},
    {"other letters come where case is folded since", TREE, ENV, NULL,
     other_letters_come_where_case_is_folded, ALL, NOT_AGAIN},
    {"a match comes where case is folded since", TREE, ENV, NULL, match_comes_where_case_is_folded,
     ALL, NOT_AGAIN},
    {"a directory comes where case is folded since", TREE, ENV, NULL,
     directory_comes_where_case_is_folded, 5, NOT_AGAIN},
    {"files of other names come where case is folded since", TREE, ENV, NULL,
     other_files_come_where_case_is_folded, 0},
    {"too many changes", TREE, ENV, NULL, too_many_changes, 104},
    {"too much happens", TREE, ENV, NULL, too_much_happens, ALL},
    {"a mount on a directory", TREE " other/ other/2.env", ENV, NULL, mount_on_a_directory, 3,
     MOUNTS},
    {"a mount goes", TREE " other/ other/2.env", ENV, mount_on_a_directory, mount_goes, 4, MOUNTS},
    {"a match is created through another mount", TREE " other/ other/b/", ENV, mount_on_a_directory,
     match_is_created_through_another_mount, 0, MOUNTS},
};

static void run_case(const void *arg)
{
    const struct kept_case *c = arg;
    struct bly_kept *kept = bly_kept_new(1000);
    struct bly_policy *policy = policy_in_dir(c->rules);
    size_t all, listed;

    folding = NULL;
    make_all(c->disk);
    if (c->before)
        c->before();
    all = check_plan(kept, policy);
    assert_int_equal(check_plan(kept, policy), c->flags & NEVER_KEPT ? all : 0);
    c->change();
    listed = check_plan(kept, policy);
    assert_int_equal(listed, c->lists == ALL ? all : (size_t)c->lists);
    /* And it is kept again. */
    assert_int_equal(check_plan(kept, policy), c->flags & (NEVER_KEPT | NOT_AGAIN) ? listed : 0);
    bly_policy_unref(policy);
    bly_kept_free(kept);
}

/* Root may read everything: as somebody else, in a process that goes. */
static void run_as_user(const struct kept_case *c)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        if (geteuid() == 0 && (chown(dir, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
            _exit(1);
        run_case(c);
        (void)chmod(in_dir("w/a/b"), 0755);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void check_case(void **state)
{
    const struct kept_case *c = *state;

    if (c->flags & MOUNTS)
        run_with_mounts(run_case, c);
    else if (c->flags & USER)
        run_as_user(c);
    else
        run_case(c);
}

/* ---- while a walk is under way ---- */

static void matches_come_behind_the_walk(void)
{
    make_file("w/2.env");
    make_file("w/a/2.env");
}

static void directory_comes_behind_the_walk(void)
{
    make_all("w/n/ w/n/2.env");
}

static void directory_is_exchanged_before_it_is_listed(void)
{
    move("w/a", "a");
    make_all("w/a/ w/a/2.env");
}

static void ancestor_is_away_for_a_moment_1(void);

static const struct race_case {
    const char *name;
    const char *when; /* right after this directory was listed */
    void (*change)(void);
} races[] = {
    {"a match is created behind the walk", "w", matches_come_behind_the_walk},
    {"a match is created in the directory itself", "w/a/b", match_is_created},
    {"a directory is made behind the walk", "w", directory_comes_behind_the_walk},
    {"a directory moves in behind the walk", "w/e", directory_moves_in},
    {"a directory is exchanged before it is listed", "w",
     directory_is_exchanged_before_it_is_listed},
    {"the whole tree is another one for a while", "w", ancestor_is_away_for_a_moment_1},
};

static void ancestor_comes_back(void)
{
    move("w", "imposter");
    move("real", "w");
}

/* What is below is listed in a tree that will have gone when the walk ends. */
static void ancestor_is_away_for_a_moment_1(void)
{
    make_all("imposter/ imposter/a/ imposter/a/b/ imposter/e/");
    move("w", "real");
    move("imposter", "w");
    (void)snprintf(between_dir, sizeof(between_dir), "%s", in_dir("w/a/b"));
    in_between = ancestor_comes_back;
}

static void check_race(void **state)
{
    const struct race_case *c = *state;
    struct bly_kept *kept = bly_kept_new(1000);
    struct bly_policy *policy = policy_in_dir(ENV);

    make_all(TREE);
    (void)snprintf(between_dir, sizeof(between_dir), "%s", in_dir(c->when));
    in_between = c->change;
    free(plan_text(kept, policy)); /* may or may not have seen it */
    assert_null(in_between);
    (void)check_plan(kept, policy); /* must */
    assert_int_equal(check_plan(kept, policy), 0);
    bly_policy_unref(policy);
    bly_kept_free(kept);
}

/* The same while what is kept is being repaired. */
static void race_with_a_repair(void **state)
{
    struct bly_kept *kept = bly_kept_new(1000);
    struct bly_policy *policy = policy_in_dir(ENV);

    (void)state;
    make_all(TREE);
    (void)check_plan(kept, policy);
    make_all("w/n/ w/n/m/");
    (void)snprintf(between_dir, sizeof(between_dir), "%s", in_dir("w/n/m"));
    in_between = matches_come_behind_the_walk;
    free(plan_text(kept, policy));
    assert_null(in_between);
    make_file("w/n/m/2.env");
    assert_int_equal(check_plan(kept, policy), 0);
    bly_policy_unref(policy);
    bly_kept_free(kept);
}

/* ---- limits ---- */

/* What cannot be watched as a whole is walked each time. */
static void past_the_limit_each_plan_walks(void **state)
{
    struct bly_policy *policy = policy_in_dir(ENV);

    (void)state;
    make_all(TREE);
    for (uint64_t max_watches = 0; max_watches < 6; max_watches++) {
        struct bly_kept *kept = bly_kept_new(max_watches);
        size_t all = check_plan(kept, policy);

        assert_true(all > 0);
        assert_int_equal(check_plan(kept, policy), all);
        match_is_created();
        assert_int_equal(check_plan(kept, policy), all);
        assert_int_equal(unlink(in_dir("w/a/b/2.env")), 0);
        bly_kept_free(kept);
    }
    bly_policy_unref(policy);
}

/* Where only one tree's directories can be watched it is the one that was wanted last. */
static void old_ones_make_place(void **state)
{
    struct bly_policy *one, *other;
    struct bly_kept *kept = bly_kept_new(9);

    (void)state;
    make_all("v/ v/a/ v/b/ v/c/ v/1.env w/ w/a/ w/b/ w/c/ w/1.env");
    one = policy_in_dir("r /; w $T/v; glob $T/v/**/*.env");
    other = policy_in_dir("r /; w $T/w; glob $T/w/**/*.env");
    assert_int_equal(check_plan(kept, one), 4);
    assert_int_equal(check_plan(kept, one), 0);
    assert_int_equal(check_plan(kept, other), 4);
    assert_int_equal(check_plan(kept, other), 0);
    assert_int_equal(check_plan(kept, one), 4);
    make_file("v/c/2.env");
    assert_int_equal(check_plan(kept, one), 0);
    bly_policy_unref(one);
    bly_policy_unref(other);
    bly_kept_free(kept);
}

/* No more than a number of expansions, however small they are. */
static void many_policies(void **state)
{
    struct bly_kept *kept = bly_kept_new(1000);

    (void)state;
    make_all(TREE);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 40; i++) {
            struct bly_policy *policy;
            char rules[128];

            (void)snprintf(rules, sizeof(rules), "r /; w $T/w; glob $T/w/**/*.e%dv", i);
            policy = policy_in_dir(rules);
            assert_int_equal(check_plan(kept, policy), 5);
            assert_int_equal(check_plan(kept, policy), 0);
            bly_policy_unref(policy);
        }
    }
    bly_kept_free(kept);
}

/* Nothing happens on this file system as far as this kernel knows: procfs is none of ours. */
static void other_file_systems_are_walked(void **state)
{
    struct bly_kept *kept = bly_kept_new(1000);
    struct bly_policy *policy = policy_of("r /; glob /sys/kernel/*.env");

    (void)state;
    assert_int_equal(check_plan(kept, policy), 1);
    assert_int_equal(check_plan(kept, policy), 1);
    bly_policy_unref(policy);
    bly_kept_free(kept);
}

/* ---- at random ---- */

static unsigned long seed = 1;

static unsigned draw(unsigned n)
{
    seed = seed * 6364136223846793005ul + 1442695040888963407ul;
    return (unsigned)(seed >> 33) % n;
}

/* One of a few names of a few levels, so that things meet. */
static char *draw_name(void)
{
    static const char *const words[] = {"a", "b", "c.env", "d"};
    char name[PATH_BYTES] = "w";

    for (unsigned depth = 1 + draw(3); depth > 0; depth--) {
        (void)strcat(name, "/");
        (void)strcat(name, words[draw(BLY_LEN(words))]);
    }
    return in_dir(name);
}

/* Most of it fails; what counts is that it does so or not for both. */
static void do_something(void)
{
    char *path = draw_name(), *other = draw_name();
    int fd;

    switch (draw(7)) {
    case 0:
    case 1:
        (void)mkdir(path, 0755);
        break;
    case 2:
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        bly_close(fd);
        break;
    case 3:
        (void)!rename(path, other);
        break;
    case 4:
        (void)!renameat2(AT_FDCWD, path, AT_FDCWD, other, RENAME_EXCHANGE);
        break;
    case 5:
        (void)remove(path);
        break;
    case 6:
        (void)!symlink("a", path);
        break;
    default:
        break;
    }
}

static void whatever_happens(void **state)
{
    struct bly_kept *kept = bly_kept_new(1000);
    struct bly_policy *policy = policy_in_dir(ENV "; glob $T/w/a/*.env; glob $T/w/*/d");

    (void)state;
    make_all("w/ w/a/ w/b/ w/b/a/");
    for (int i = 0; i < 2000; i++) {
        for (unsigned n = draw(4); n > 0; n--)
            do_something();
        (void)check_plan(kept, policy);
    }
    bly_policy_unref(policy);
    bly_kept_free(kept);
}

/* ---- threads ---- */

struct threads {
    struct bly_kept *kept;
    struct bly_policy *policies[4];
};

static void *plan_again_and_again(void *arg)
{
    struct threads *threads = arg;

    for (int i = 0; i < 100; i++) {
        struct bly_probe probe = bly_probe_disk;
        struct bly_plan *plan = NULL;

        probe.kept = threads->kept;
        (void)bly_plan_make(threads->policies[i % 4], BLY_FOR_PROCESS, &probe, NULL, 0, &plan,
                            NULL);
        bly_plan_free(plan);
    }
    return NULL;
}

static void several_threads(void **state)
{
    struct threads threads = {.kept = bly_kept_new(30)};
    pthread_t ids[3];

    (void)state;
    make_all("w/ w/a/ w/b/ w/b/a/");
    for (int i = 0; i < 4; i++)
        threads.policies[i] = policy_in_dir(i % 2 ? ENV : ENV "; glob $T/w/a/*.key");
    for (size_t i = 0; i < BLY_LEN(ids); i++)
        assert_int_equal(pthread_create(&ids[i], NULL, plan_again_and_again, &threads), 0);
    for (int i = 0; i < 500; i++)
        do_something();
    for (size_t i = 0; i < BLY_LEN(ids); i++)
        assert_int_equal(pthread_join(ids[i], NULL), 0);
    for (int i = 0; i < 4; i++) {
        (void)check_plan(threads.kept, threads.policies[i]);
        bly_policy_unref(threads.policies[i]);
    }
    bly_kept_free(threads.kept);
}

/* Without, everything is walked, which other tests show. */
static bool can_watch(void)
{
    const char *must = getenv("BLY_MUST_RUN"); /* NOLINT(concurrency-mt-unsafe) */
    int fd = inotify_init1(IN_CLOEXEC);
    int sys = errno;

    bly_close(fd);
    if (fd < 0)
        fprintf(stderr, "no inotify to be had: %s\n", strerrordesc_np(sys));
    return fd >= 0 || (must && strcmp(must, "1") == 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest others[] = {
        TEST(race_with_a_repair),  TEST(past_the_limit_each_plan_walks),
        TEST(old_ones_make_place), TEST(many_policies),
        TEST(whatever_happens),    TEST(other_file_systems_are_walked),
        TEST(several_threads),
    };
    struct CMUnitTest rows[BLY_LEN(cases)] = {0}, in_races[BLY_LEN(races)] = {0};

    if (!can_watch())
        return 77;
    for (size_t i = 0; i < BLY_LEN(cases); i++)
        rows[i] = (struct CMUnitTest){.name = cases[i].name,
                                      .test_func = check_case,
                                      .setup_func = setup,
                                      .teardown_func = teardown,
                                      .initial_state = (void *)(uintptr_t)&cases[i]};
    for (size_t i = 0; i < BLY_LEN(races); i++)
        in_races[i] = (struct CMUnitTest){.name = races[i].name,
                                          .test_func = check_race,
                                          .setup_func = setup,
                                          .teardown_func = teardown,
                                          .initial_state = (void *)(uintptr_t)&races[i]};
    return cmocka_run_group_tests_name("kept", rows, NULL, NULL) +
           cmocka_run_group_tests_name("races", in_races, NULL, NULL) +
           cmocka_run_group_tests_name("others", others, NULL, NULL);
}
