/*
 * Watching for paths that are missing. "Nothing is told" is shown with a second watch: the kernel
 * reports in order, so when that one has been told about a later change, the first will not be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/missing.h"

enum { MAX_STEPS = 4096, PATIENCE_MS = 20000 };

struct watch_case;

struct yard {
    const struct watch_case *c; /* of check_case() */
    uv_loop_t loop;
    struct bly_missing_watcher *watcher;
    char dir[64];
};

struct seen {
    bool ready, watching;
    unsigned changed;
    struct bly_missing_watch **stop; /* stopped from inside of changed() */
};

static void on_ready(void *arg, bool watching)
{
    struct seen *seen = arg;

    assert_false(seen->ready);
    seen->ready = true;
    seen->watching = watching;
}

static void on_changed(void *arg)
{
    struct seen *seen = arg;

    assert_true(seen->ready && seen->watching);
    seen->changed++;
    if (seen->stop)
        *seen->stop = bly_missing_watch_stop(*seen->stop);
}

static const struct bly_missing_watch_ops ops = {.ready = on_ready, .changed = on_changed};

static void on_late(uv_timer_t *timer)
{
    (void)timer;
    fail_msg("nothing happened for %d ms", PATIENCE_MS);
}

static void run_until(struct yard *yard, const bool *flag, const unsigned *count)
{
    uv_timer_t late;

    (void)uv_timer_init(&yard->loop, &late);
    (void)uv_timer_start(&late, on_late, PATIENCE_MS, 0);
    while (flag ? !*flag : *count == 0)
        (void)uv_run(&yard->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&late, NULL);
    (void)uv_run(&yard->loop, UV_RUN_NOWAIT);
}

static int set_up(void **state)
{
    struct yard *yard = calloc(1, sizeof(*yard));
    char here[32] = "/var/tmp/bailey-missing-XXXXXX";

    if (!yard || !mkdtemp(here))
        return -1;
    yard->c = *state;
    *state = yard;
    (void)strcpy(yard->dir, here);
    return uv_loop_init(&yard->loop) ||
           bly_missing_watcher_new(&yard->loop, MAX_STEPS, &yard->watcher);
}

static int tear_down(void **state)
{
    struct yard *yard = *state;
    char command[128];

    bly_missing_watcher_close(yard->watcher);
    (void)uv_run(&yard->loop, UV_RUN_DEFAULT);
    bly_missing_watcher_free(yard->watcher);
    (void)snprintf(command, sizeof(command), "rm -rf %s", yard->dir);
    if (uv_loop_close(&yard->loop) != 0 || system(command) != 0)
        return -1;
    free(yard);
    return 0;
}

/* A shell script in the yard. */
static void do_it(const struct yard *yard, const char *script)
{
    char command[1024];

    (void)snprintf(command, sizeof(command), "set -e; cd %s; %s", yard->dir, script);
    if (system(command) != 0)
        fail_msg("the test's own script failed: %s", script);
}

static char *in_yard(const struct yard *yard, const char *name)
{
    char *path = NULL;

    assert_true(asprintf(&path, "%s%s%s", name[0] == '/' ? "" : yard->dir,
                         name[0] == '/' ? "" : "/", name) > 0);
    return path;
}

/* `missing`: names with blanks between them. */
static struct bly_missing_watch *begin(struct yard *yard, const char *missing, const char *present,
                                       struct seen *seen)
{
    char *paths[BLY_MISSING_PATHS_MAX];
    bly_autofree char *names = strdup(missing);
    bly_autofree char *there = present ? in_yard(yard, present) : NULL;
    struct bly_missing_watch_request request = {.missing = paths, .present = there};
    struct bly_missing_watch *watch = NULL;
    char *save = NULL;

    for (char *name = strtok_r(names, " ", &save); name; name = strtok_r(NULL, " ", &save))
        paths[request.n_missing++] = in_yard(yard, name);
    assert_int_equal(bly_missing_watch_start(yard->watcher, &request, &ops, seen, &watch), 0);
    for (size_t i = 0; i < request.n_missing; i++)
        free(paths[i]);
    return watch;
}

static struct bly_missing_watch *watch_it(struct yard *yard, const char *missing,
                                          const char *present, struct seen *seen)
{
    struct bly_missing_watch *watch = begin(yard, missing, present, seen);

    run_until(yard, &seen->ready, NULL);
    return watch;
}

/* Lets everything arrive that has happened so far. */
static void let_arrive(struct yard *yard)
{
    struct seen seen = {0};
    struct bly_missing_watch *watch = watch_it(yard, "sentinel", NULL, &seen);

    assert_true(seen.watching);
    do_it(yard, "touch sentinel");
    run_until(yard, NULL, &seen.changed);
    bly_missing_watch_stop(watch);
    do_it(yard, "rm sentinel");
}

/* ---- the rules ------------------------------------------------------------------------------ */

enum want { REFUSED, QUIET, TOLD };

static struct watch_case {
    const char *name, *before, *missing, *present, *act;
    enum want want;
} cases[] = {
    {"a file is created", "mkdir p", "p/a", NULL, "echo x > p/a", TOLD},
    {"a directory is created", "mkdir p", "p/a", NULL, "mkdir p/a", TOLD},
    {"a dangling link is created", "mkdir p", "p/a", NULL, "ln -s /nonexistent p/a", TOLD},
    {"a hard link is created", "mkdir p; touch f", "p/a", NULL, "ln f p/a", TOLD},
    {"a FIFO is created", "mkdir p", "p/a", NULL, "mkfifo p/a", TOLD},
    {"renamed within the directory", "mkdir p; touch p/x", "p/a", NULL, "mv p/x p/a", TOLD},
    {"renamed from elsewhere", "mkdir p; touch x", "p/a", NULL, "mv x p/a", TOLD},
    {"created and removed again", "mkdir p", "p/a", NULL, "touch p/a; rm p/a", TOLD},
    {"the last one of several", "mkdir p", "p/a p/b q/c", NULL, "mkdir q", TOLD},
    {"one named twice", "mkdir p", "p/a p/a", NULL, "touch p/a", TOLD},
    {"a missing parent is created", "", "q/r/s", NULL, "mkdir q", TOLD},
    {"a missing parent arrives with all below it", "mkdir -p x/r/s", "q/r/s", NULL, "mv x q", TOLD},
    {"the middle of the path is created", "mkdir q", "q/r/s", NULL, "mkdir q/r", TOLD},
    {"something beside it", "mkdir p", "p/a", NULL, "touch p/b; mkdir p/c; mv p/b p/ab", QUIET},
    {"something beside a missing parent", "mkdir q", "q/r/s", NULL, "mkdir q/other", QUIET},
    {"something of the same name elsewhere", "mkdir p q", "p/a", NULL, "touch a q/a", QUIET},
    {"the directory's mode changes", "mkdir p", "p/a", NULL, "chmod 700 p", QUIET},
    {"files beside it are written to", "mkdir p; touch p/b", "p/a", NULL, "echo x > p/b", QUIET},
    {"nothing", "mkdir p", "p/a", NULL, ":", QUIET},
    {"the directory is removed", "mkdir p", "p/a", NULL, "rmdir p", TOLD},
    {"the directory is renamed", "mkdir p", "p/a", NULL, "mv p q", TOLD},
    {"a directory far above is renamed", "mkdir -p p/q/r", "p/q/r/a", NULL, "mv p z", TOLD},
    {"a directory far above is replaced", "mkdir -p p/q y/q; touch y/q/a", "p/q/a", NULL,
     "mv p z; mv y p", TOLD},

    {"it exists", "touch a", "a", NULL, NULL, REFUSED},
    {"one of two exists", "mkdir p; touch b", "p/a b", NULL, NULL, REFUSED},
    {"it is a dangling link", "ln -s /nonexistent a", "a", NULL, NULL, REFUSED},
    {"the root exists", "", "/", NULL, NULL, REFUSED},
    {"a link on the way", "mkdir p; ln -s p l", "l/a", NULL, NULL, REFUSED},
    {"a dangling link on the way", "ln -s p l", "l/a", NULL, NULL, REFUSED},
    {"a file on the way", "touch p", "p/a", NULL, NULL, REFUSED},
    {"a name that cannot be", "",
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     NULL, NULL, REFUSED},

    {"present is written to", "echo x > f", "a", "f", "echo y >> f", TOLD},
    {"present is truncated", "echo x > f", "a", "f", ": > f", TOLD},
    {"present gets another time", "echo x > f", "a", "f", "touch f", TOLD},
    {"present gets another mode", "echo x > f", "a", "f", "chmod 600 f", TOLD},
    {"present is removed", "echo x > f", "a", "f", "rm f", TOLD},
    {"present is renamed", "echo x > f", "a", "f", "mv f g", TOLD},
    {"present is replaced", "echo x > f; echo y > g", "a", "f", "mv g f", TOLD},
    {"present is read", "echo x > f", "a", "f", "cat f > /dev/null", QUIET},
    {"something beside present", "echo x > f; touch g", "a", "f", "echo y > g; rm g", QUIET},
    {"a present directory is removed", "mkdir d", "a", "d", "rmdir d", TOLD},
    {"a present directory is renamed", "mkdir d", "a", "d", "mv d e", TOLD},
    {"a present directory's mode changes", "mkdir d", "a", "d", "chmod 700 d", TOLD},
    {"inside a present directory", "mkdir d; touch d/f", "a", "d",
     "echo x > d/f; chmod 600 d/f; mkdir d/e; rm d/f", QUIET},
    {"a directory above present is renamed", "mkdir -p p/q; touch p/q/f", "a", "p/q/f", "mv p z",
     TOLD},
    {"missing is still watched beside present", "touch f", "a", "f", "touch a", TOLD},

    {"present does not exist", "", "a", "f", NULL, REFUSED},
    {"present is a link", "touch g; ln -s g f", "a", "f", NULL, REFUSED},
    {"present is a dangling link", "ln -s g f", "a", "f", NULL, REFUSED},
    {"present is below a link", "mkdir d; touch d/f; ln -s d l", "a", "l/f", NULL, REFUSED},
    {"present is the root", "", "a", "/", NULL, REFUSED},
    {"present and missing are the same", "", "a", "a", NULL, REFUSED},
};

static void check_case(void **state)
{
    struct yard *yard = *state;
    const struct watch_case *c = yard->c;
    struct seen seen = {0};
    struct bly_missing_watch *watch;

    if (c->before[0])
        do_it(yard, c->before);
    watch = watch_it(yard, c->missing, c->present, &seen);
    if (seen.watching != (c->want != REFUSED))
        fail_msg("%s: %s", c->name, seen.watching ? "watched" : "refused");
    if (c->act)
        do_it(yard, c->act);
    let_arrive(yard);
    if (seen.changed != (c->want == TOLD))
        fail_msg("%s: told %u times", c->name, seen.changed);
    bly_missing_watch_stop(watch);
}

/* The directories the watcher holds, by the kernel's own account. */
static size_t count_marks(void)
{
    size_t n = 0;
    DIR *dir = opendir("/proc/self/fdinfo");
    struct dirent *entry;

    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        char path[300], line[512];
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%s", entry->d_name);
        file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file))
            n += strncmp(line, "inotify wd:", 11) == 0;
        if (file)
            (void)fclose(file);
    }
    (void)closedir(dir);
    return n;
}

/* Waits for the pool thread to have `n` directories watched, while the loop stands still. */
static void await_marks(size_t n)
{
    for (int i = 0; count_marks() < n; i++) {
        assert_true(i < 1000000);
        (void)sched_yield();
    }
}

/* ---- once, replaced, stopped ---------------------------------------------------------------- */

static void told_only_once(void **state)
{
    struct yard *yard = *state;
    struct seen seen = {0};
    struct bly_missing_watch *watch = watch_it(yard, "a b", NULL, &seen);

    do_it(yard, "touch a b; rm a b; touch a");
    let_arrive(yard);
    assert_int_equal(seen.changed, 1);
    do_it(yard, "rm a; touch a");
    let_arrive(yard);
    assert_int_equal(seen.changed, 1);
    bly_missing_watch_stop(watch);
}

static void a_stopped_watch_is_silent(void **state)
{
    struct yard *yard = *state;
    struct seen seen = {0}, other = {0};
    struct bly_missing_watch *watch = watch_it(yard, "a", NULL, &seen);
    struct bly_missing_watch *twin = watch_it(yard, "a", NULL, &other);

    bly_missing_watch_stop(watch);
    do_it(yard, "touch a");
    let_arrive(yard);
    assert_int_equal(seen.changed, 0);
    assert_int_equal(other.changed, 1); /* they shared the directory's number */
    bly_missing_watch_stop(twin);
}

static void stopped_while_being_set_up(void **state)
{
    struct yard *yard = *state;
    struct seen seen = {0};

    for (int i = 0; i < 50; i++)
        bly_missing_watch_stop(begin(yard, "a", NULL, &seen));
    do_it(yard, "touch a");
    let_arrive(yard);
    assert_false(seen.ready);
}

/* One ends when another one has just been given the same directory's number. */
static void an_end_and_a_beginning_overlap(void **state)
{
    struct yard *yard = *state;
    struct seen first = {0}, second = {0};
    struct bly_missing_watch *watch = watch_it(yard, "a", NULL, &first), *other;
    size_t marks = count_marks();

    do_it(yard, "mkdir d");
    let_arrive(yard);
    other = begin(yard, "a d/x", NULL, &second);
    await_marks(marks + 1); /* that of d, which comes after the one for a */
    bly_missing_watch_stop(watch);
    run_until(yard, &second.ready, NULL);
    assert_true(second.watching);
    let_arrive(yard);
    assert_int_equal(second.changed, 0);
    do_it(yard, "touch a");
    let_arrive(yard);
    assert_int_equal(second.changed, 1);
    bly_missing_watch_stop(other);
}

/* The event is there before the loop has heard which directories are watched. */
static void changed_while_being_set_up(void **state)
{
    struct yard *yard = *state;
    bly_autofree char *path = in_yard(yard, "first/a");
    char names[1024] = "first/a";

    do_it(yard, "mkdir first");
    for (int i = 1; i < BLY_MISSING_PATHS_MAX; i++)
        (void)sprintf(names + strlen(names), " first/m%d", i);
    for (int i = 0; i < 20; i++) {
        struct seen seen = {0};
        struct bly_missing_watch *watch = begin(yard, names, NULL, &seen);

        await_marks(4); /* var, tmp, the yard, first; more than sixty paths are to come */
        (void)sched_yield();
        assert_int_equal(mkdir(path, 0777), 0);
        run_until(yard, &seen.ready, NULL);
        if (seen.watching)
            run_until(yard, NULL, &seen.changed);
        bly_missing_watch_stop(watch);
        assert_int_equal(rmdir(path), 0);
    }
}

static void one_may_be_stopped_while_told(void **state)
{
    struct yard *yard = *state;
    struct seen seen[3] = {0};
    struct bly_missing_watch *watches[3];

    for (size_t i = 0; i < BLY_LEN(seen); i++)
        watches[i] = watch_it(yard, "a", NULL, &seen[i]);
    seen[0].stop = &watches[2];
    seen[1].stop = &watches[1];
    seen[2].stop = &watches[0];
    do_it(yard, "touch a");
    let_arrive(yard);
    assert_int_equal(seen[1].changed, 1);
    assert_int_equal(seen[0].changed + seen[2].changed, 1);
    for (size_t i = 0; i < BLY_LEN(seen); i++)
        bly_missing_watch_stop(watches[i]);
}

/* The kernel reports the end of a directory that is open only when it is closed. */
static void an_open_directory_is_removed(void **state)
{
    struct yard *yard = *state;
    bly_autofree char *path = in_yard(yard, "p");
    struct seen seen = {0};
    struct bly_missing_watch *watch;
    bly_autofd int fd = -EBADF;

    do_it(yard, "mkdir p");
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    watch = watch_it(yard, "p/a", NULL, &seen);
    assert_true(seen.watching);
    do_it(yard, "rmdir p");
    let_arrive(yard);
    assert_int_equal(seen.changed, 1);
    bly_missing_watch_stop(watch);
}

/* However the creation falls between looking and watching, it is not lost. */
static void nothing_is_lost_in_a_race(void **state)
{
    struct yard *yard = *state;
    bly_autofree char *missing = in_yard(yard, "q/r/s");
    bly_autofree char *path = in_yard(yard, "q/r");
    bly_autofree char *parent = in_yard(yard, "q");
    size_t told = 0, refused = 0;

    for (int i = 0; i < 400; i++) {
        struct seen seen = {0};
        struct bly_missing_watch *watch = begin(yard, "q/r/s", NULL, &seen);

        for (volatile int wait = 0; wait < i % 100 * 2000; wait++)
            ;
        assert_int_equal(mkdir(parent, 0777), 0);
        assert_int_equal(mkdir(path, 0777), 0);
        run_until(yard, &seen.ready, NULL);
        if (seen.watching) {
            assert_int_equal(mkdir(missing, 0777), 0);
            run_until(yard, NULL, &seen.changed);
        }
        told += seen.changed;
        refused += !seen.watching;
        bly_missing_watch_stop(watch);
        (void)rmdir(missing);
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(rmdir(parent), 0);
    }
    print_message("told %zu times, refused %zu times\n", told, refused);
}

/* Nor is the way taken for another one when a directory on it changes its name meanwhile. */
static void a_directory_is_swapped_in_a_race(void **state)
{
    struct yard *yard = *state;
    bly_autofree char *here = in_yard(yard, "p");
    bly_autofree char *there = in_yard(yard, "z");
    bly_autofree char *missing = in_yard(yard, "p/q/a");

    do_it(yard, "mkdir -p p/q z/q");
    for (int i = 0; i < 400; i++) {
        struct seen seen = {0};
        struct bly_missing_watch *watch = begin(yard, "p/q/a", NULL, &seen);

        for (volatile int wait = 0; wait < i % 100 * 2000; wait++)
            ;
        assert_int_equal(renameat2(AT_FDCWD, here, AT_FDCWD, there, RENAME_EXCHANGE), 0);
        run_until(yard, &seen.ready, NULL);
        if (seen.watching && seen.changed == 0) {
            assert_int_equal(mkdir(missing, 0777), 0);
            run_until(yard, NULL, &seen.changed);
            assert_int_equal(rmdir(missing), 0);
        }
        bly_missing_watch_stop(watch);
    }
}

/* ---- bounds --------------------------------------------------------------------------------- */

static void everything_is_given_back(void **state)
{
    struct yard *yard = *state;
    size_t before = count_marks();

    do_it(yard, "mkdir -p p/q/r; touch f");
    for (int i = 0; i < 20; i++) {
        struct seen seen = {0};
        struct bly_missing_watch *watch = watch_it(yard, "p/q/r/a p/b", "f", &seen);

        assert_true(seen.watching);
        assert_true(count_marks() > before);
        if (i % 2)
            do_it(yard, "touch p/b; rm p/b");
        if (i % 2)
            run_until(yard, NULL, &seen.changed);
        bly_missing_watch_stop(watch);
        assert_int_equal(count_marks(), before);
    }
}

static void too_many_directories_are_refused(void **state)
{
    struct yard *yard = *state;
    struct seen few = {0}, many = {0};
    struct bly_missing_watch *watch;
    bly_autofree char *names = calloc(1, 16384);
    char deep[200] = "d";

    for (int i = 0; i < 20; i++)
        (void)strcat(deep, "/d");
    do_it(yard, "d=.; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do d=$d/d; "
                "done; mkdir -p $d");
    for (int i = 0; i < BLY_MISSING_PATHS_MAX; i++)
        (void)sprintf(names + strlen(names), "%s/%d ", deep, i);
    watch = watch_it(yard, names, NULL, &many); /* 64 paths of more than 20 directories */
    assert_false(many.watching);
    bly_missing_watch_stop(watch);
    assert_int_equal(count_marks(), 0);
    names[200] = '\0';
    *strrchr(names, ' ') = '\0';
    watch = watch_it(yard, names, NULL, &few);
    assert_true(few.watching);
    bly_missing_watch_stop(watch);
}

static void the_watcher_has_a_limit_of_its_own(void **state)
{
    struct yard *yard = *state;
    struct bly_missing_watcher *usual = yard->watcher;
    struct seen first = {0}, second = {0}, third = {0};
    struct bly_missing_watch *one, *two;

    /* /var, /var/tmp, the yard, and twice about the last gap */
    assert_int_equal(bly_missing_watcher_new(&yard->loop, 7, &yard->watcher), 0);
    one = watch_it(yard, "a", NULL, &first);
    two = watch_it(yard, "b", NULL, &second);
    assert_true(first.watching);
    assert_false(second.watching);
    bly_missing_watch_stop(one);
    bly_missing_watch_stop(two);
    two = watch_it(yard, "b", NULL, &third);
    assert_true(third.watching);
    bly_missing_watch_stop(two);
    bly_missing_watcher_close(yard->watcher);
    (void)uv_run(&yard->loop, UV_RUN_NOWAIT);
    bly_missing_watcher_free(yard->watcher);
    yard->watcher = usual;
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(cases) + 12] = {0};
    const struct CMUnitTest more[] = {
        cmocka_unit_test_setup_teardown(told_only_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stopped_watch_is_silent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stopped_while_being_set_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_end_and_a_beginning_overlap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(changed_while_being_set_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_may_be_stopped_while_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_open_directory_is_removed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_lost_in_a_race, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_directory_is_swapped_in_a_race, set_up, tear_down),
        cmocka_unit_test_setup_teardown(everything_is_given_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(too_many_directories_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_watcher_has_a_limit_of_its_own, set_up, tear_down),
    };

    for (size_t i = 0; i < BLY_LEN(cases); i++)
        tests[i] = (struct CMUnitTest){.name = cases[i].name,
                                       .test_func = check_case,
                                       .setup_func = set_up,
                                       .teardown_func = tear_down,
                                       .initial_state = &cases[i]};
    memcpy(tests + BLY_LEN(cases), more, sizeof(more));
    return cmocka_run_group_tests_name("fs-missing", tests, NULL, NULL);
}
