#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "fs/oneshot.h"
#include "sandbox/policy/policy.h"
#include "script.h"

/* The same rows without a policy and with one, and with kernels that have no openat2. */

static void run_direct(void *arg, struct bly_fs_request *request, struct bly_fs_reply *reply)
{
    struct bly_view view = {.policy = arg};

    bly_fs_run(&view, request, reply);
}

struct state {
    const struct script_case *c;
    const char *policy; /* NULL: none */
};

static char *directory;

static int make_directory(void **state)
{
    (void)state;
    umask(022);
    directory = script_directory();
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    script_cleanup(directory);
    return 0;
}

static void check(void **state)
{
    const struct state *s = *state;
    struct bly_policy *policy = NULL;

    script_setup(directory, s->c->setup);
    if (s->policy != NULL)
        policy = script_policy(directory, s->policy);
    script_check_case(s->c, directory, run_direct, policy);
    bly_policy_unref(policy);
}

static char *name_of(const char *mode, const char *name)
{
    char *text = NULL;

    if (asprintf(&text, "%s: %s", mode, name) < 0)
        abort();
    return text;
}

static size_t add(struct CMUnitTest *tests, struct state *states, size_t n, const char *mode,
                  const struct script_case *c, const char *policy)
{
    states[n] = (struct state){c, policy};
    tests[n] = (struct CMUnitTest){
        .name = name_of(mode, c->name),
        .test_func = check,
        .setup_func = make_directory,
        .teardown_func = remove_directory,
        .initial_state = &states[n],
    };
    return n + 1;
}

static int run_rows(bool direct, const char *policy, const char *denial)
{
    size_t n = 0, max = 2 * script_n_same + script_n_denials + 1;
    struct CMUnitTest *tests = calloc(max, sizeof *tests);
    struct state *states = calloc(max, sizeof *states);
    int failed;

    for (size_t i = 0; i < script_n_same; i++) {
        if (direct)
            n = add(tests, states, n, "direct", &script_same[i], NULL);
        n = add(tests, states, n, policy, &script_same[i], "ro /\nrw $T");
    }
    for (size_t i = 0; i < script_n_denials; i++)
        n = add(tests, states, n, denial, &script_denials[i], script_denials[i].policy);
    n = add(tests, states, n, denial, &script_magic, script_magic.policy);
    failed = _cmocka_run_group_tests("ops", tests, n, NULL, NULL);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)tests[i].name);
    free(tests);
    free(states);
    return failed;
}

static int without_openat2(void)
{
    script_forget_openat2();
    return run_rows(false, "policy, no openat2", "denial, no openat2");
}

int main(void)
{
    int failed = script_in_child(without_openat2);

    return failed + run_rows(true, "policy", "denial");
}
