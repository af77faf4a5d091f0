#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/oneshot.h"
#include "fs/view.h"
#include "sandbox/policy/policy.h"
#include "script.h"
#include "support/mounts.h"

/*
 * Somebody outside exchanges names as fast as he can while operations run in the view of a policy,
 * here without a wall behind them: the walk alone must never be led out of what is granted.
 */

enum { ROUNDS = 1500 };

static char *directory;
static atomic_bool stop;

struct swap {
    char *a, *b;
};

static void *keep_swapping(void *arg)
{
    const struct swap *swap = arg;

    while (!atomic_load(&stop)) {
        (void)renameat2(AT_FDCWD, swap->a, AT_FDCWD, swap->b, RENAME_EXCHANGE);
        sched_yield();
    }
    return NULL;
}

static int make_directory(void **state)
{
    (void)state;
    umask(022);
    directory = script_directory_in(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    script_cleanup(directory);
    return 0;
}

static void run_op(void *arg, struct bly_fs_request *request, struct bly_fs_reply *reply)
{
    struct bly_view view = {.policy = arg};

    bly_fs_run(&view, request, reply);
}

struct race_case {
    const char *name, *setup, *swap_a, *swap_b;
    const char *steps; /* one round */
    const char *after; /* what must be true outside */
};

static const struct race_case cases[] = {
    {"a directory and a link to a hidden one", "w/x/f=inside w/y->../out out/f=SECRET out/d/",
     "w/x", "w/y", "read w/x/f\nlist w/x\nstat w/x/f\ncanon w/x/f\nwalk w/x follow\nread w/y/f",
     "out/f=SECRET out/d/"},
    {"writing through a directory that becomes a link",
     "w/x/f=inside w/y->../out out/f=SECRET out/d/", "w/x", "w/y",
     "write w/x/f changed\nwrite w/x/new n\nmkdir w/x/a/b\nreplace w/x/f\nrm w/x/new\nrm w/x/d\n"
     "write w/y/other o\nrm w/x/a",
     "out/f=SECRET out/d/ !out/new !out/a !out/other"},
    {"a file and a link to a hidden one", "w/f=inside w/l->../out/f out/f=SECRET", "w/f", "w/l",
     "read w/f\nopen w/f\nwrite w/f inside\ncopy w/f w/copy\nstat w/f", "out/f=SECRET"},
    {"copying and removing a tree with a part that becomes a link",
     "w/t/s/f=inside w/t/s/g=inside w/t/z=inside w/l->../out out/f=SECRET out/keep/k=SECRET",
     "w/t/s", "w/l", "copy w/t w/n +r\nread w/n/s/f\nread w/n/s/keep/k\nrm w/n",
     "out/f=SECRET out/keep/k=SECRET"},
    {"removing a tree that is a link every other moment",
     "w/l->../out out/f=SECRET out/keep/k=SECRET w/x/", "w/x", "w/l",
     "write w/x/f inside\nmkdir w/x/a/b\nrm w/x/a\nrm w/x/f", "out/f=SECRET out/keep/k=SECRET"},
    {"an ordinary directory and a link to protected metadata",
     "w/.git/config=SECRET w/x/config=inside w/l->.git", "w/x", "w/l",
     "write w/x/config changed\nwrite w/x/hook n\nmkdir w/x/hooks\nrm w/x/config",
     "w/.git/config=SECRET !w/.git/hook !w/.git/hooks"},
    {"a regular file and a FIFO", "w/f=inside w/p| out/f=SECRET", "w/f", "w/p",
     "read w/f\nwrite w/f inside\nopen w/f\ncopy w/f w/copy\ncopy w/copy w/f", "out/f=SECRET"},
    {"a chain of links whose middle changes",
     "w/d/f=inside w/m->d w/e->../out w/l->m/f w/k->m/../m/f out/f=SECRET", "w/m", "w/e",
     "read w/l\nread w/k\nstat w/l\nwrite w/l inside\ncanon w/k", "out/f=SECRET"},
};

static char *path_of(const char *name)
{
    char *path = NULL;

    assert_true(asprintf(&path, "%s/%s", directory, name) > 0);
    return path;
}

static void check_race(void **state)
{
    const struct race_case *c = *state;
    struct swap swap = {path_of(c->swap_a), path_of(c->swap_b)};
    struct bly_policy *policy;
    pthread_t thread;
    size_t n_leaks = 0;
    char *wrong;

    script_setup(directory, c->setup);
    policy = script_policy(directory, "minimal\nrw $T/w");
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, keep_swapping, &swap), 0);
    for (int i = 0; i < ROUNDS; i++) {
        char *answers = script_answers(directory, c->steps, run_op, policy);

        n_leaks += strstr(answers, "SECRET") != NULL || strstr(answers, "/out") != NULL;
        free(answers);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(n_leaks, 0);
    wrong = script_check(directory, c->after);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    bly_policy_unref(policy);
    free(swap.a);
    free(swap.b);
}

/* ---- links while somebody mounts ---- */

enum { LINK_ROUNDS = 60, MOST_LINKS = 40 };

static char *mounting_at;
static pid_t mounting_pid;

/* Mounts where nobody else sees it; a byte goes to `ready` when the first mount stood. */
static void mount_and_unmount(int ready)
{
    bool said = false;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (geteuid() != 0 && unshare(CLONE_NEWUSER) < 0)
        _exit(1);
    if (have_own_mounts() < 0)
        _exit(1);
    while (mount(mounting_at, mounting_at, NULL, MS_BIND, NULL) == 0 &&
           umount2(mounting_at, MNT_DETACH) == 0) {
        if (!said && write(ready, "", 1) != 1)
            break;
        said = true;
    }
    _exit(1);
}

/* False: nobody may mount here. */
static bool start_mounting(void)
{
    int ready[2];
    char byte;
    ssize_t n;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    mounting_at = script_directory();
    mounting_pid = fork();
    if (mounting_pid == 0)
        mount_and_unmount(ready[1]);
    close(ready[1]);
    n = read(ready[0], &byte, 1);
    close(ready[0]);
    return n == 1;
}

static int stop_mounting(void **state)
{
    (void)kill(mounting_pid, SIGKILL);
    (void)waitpid(mounting_pid, NULL, 0);
    script_cleanup(mounting_at);
    return remove_directory(state);
}

/* "l1" leads to "d", each of the others to the one before it. */
static void make_links(void)
{
    char setup[4096];
    size_t len = (size_t)snprintf(setup, sizeof setup,
                                  "d/f=text d/s/p/x= d/k->f t/l->../l39 t/far->../l40 l1->d");

    for (int i = 2; i <= MOST_LINKS + 1; i++)
        len += (size_t)snprintf(setup + len, sizeof setup - len, " l%d->l%d", i, i - 1);
    assert_true(len < sizeof setup);
    script_setup(directory, setup);
}

/* The kernel would have some of these links counted twice, see fs/view.h. */
static const char link_steps[] =
    "stat l40/f\nstat l40\nstat l41\nread l40/f\nread l41/f\nopen l40/f\nlist l40\nlist t\n"
    "walk l40/s\nwalk t follow\ncanon l40/f\n"
    "write l40/n new\nreplace l40/n\ncopy l40/f l40/n\nrm l40/n -f\n"
    "copy l39/k l40/n\nrm l40/n -f\nmkdir l40/n -r\nrm l40/n -f\nmkdir l40/a/b\nrm l40/a -f\n"
    "copy d l40/../tree +r\nrm tree";
static const char link_answers[] =
    "file 4\ndirectory link \nELOOP\n\"text\"\nELOOP\nok\n[f k s/]\n[l/]\n"
    "[l40/s/p/ l40/s/p/x]\n[t/l/ t/l/f t/l/s/ t/l/s/p/ t/l/s/p/x]\n$T/d/f\n"
    "ok\nok\nok\nok\n"
    "ok\nok\nok\nok\nok\nok\n"
    "ok\nok\n";

static void links_are_counted_once(void **state)
{
    const char *rules = *state;
    struct bly_policy *policy = rules ? script_policy(directory, rules) : NULL;
    bly_autofree char *expected = script_expand(directory, link_answers);

    make_links();
    if (!start_mounting())
        skip();
    for (int i = 0; i < LINK_ROUNDS; i++) {
        bly_autofree char *answers = script_answers(directory, link_steps, run_op, policy);

        assert_string_equal(answers, expected);
    }
    bly_policy_unref(policy);
}

/* The walk that counts again has only its text, which is not where such a link leads. */
static void objects_of_proc_are_not_found_by_text(void **state)
{
    static const struct bly_view view;
    bly_autoplace struct bly_place place = BLY_NOWHERE;

    (void)state;
    assert_int_equal(bly_view_look(&view, "/proc/self/cwd", BLY_NEED_READ, 0, &place, NULL), 0);
    assert_int_equal(
        bly_view_look(&view, "/proc/self/cwd", BLY_NEED_READ, BLY_LOOK_NO_MAGIC, &place, NULL),
        -ELOOP);
}

static const struct CMUnitTest links[] = {
    cmocka_unit_test(objects_of_proc_are_not_found_by_text),
    {"links are counted once while others mount", links_are_counted_once, make_directory,
     stop_mounting, NULL},
    {"links are counted once while others mount, with a policy", links_are_counted_once,
     make_directory, stop_mounting, (void *)(uintptr_t) "ro /\nrw $T"},
};

static int run_cases(void)
{
    struct CMUnitTest tests[BLY_LEN(cases)] = {0};

    for (size_t i = 0; i < BLY_LEN(cases); i++)
        tests[i] = (struct CMUnitTest){
            .name = cases[i].name,
            .test_func = check_race,
            .setup_func = make_directory,
            .teardown_func = remove_directory,
            .initial_state = (void *)(uintptr_t)&cases[i],
        };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

static int without_openat2(void)
{
    script_forget_openat2();
    return run_cases();
}

int main(void)
{
    int failed = script_in_child(without_openat2);

    failed += cmocka_run_group_tests(links, NULL, NULL);
    return failed + run_cases();
}
