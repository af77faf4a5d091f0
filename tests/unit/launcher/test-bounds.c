/* What bounds a wall: the choice, as bytes, and the handling of control groups as far as it needs
 * no controllers. The rest is tests/blackbox/bounds.py. */
#include "launcher/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"

/* ---- the choice ----------------------------------------------------------------------------- */

enum { NO_CGROUP = -EBADF, CGROUP = 1000, REFUSED = -1 };

static struct choice {
    const char *name;
    struct bly_cgroup_max max;
    bool must_hold, by_namespace;
    int cgroup_fd;
    uint64_t clone_flags;
    int bound; /* enum bly_bound, or REFUSED */
} choices[] = {
    {"nothing is wanted", {0, 0}, false, true, CGROUP, CLONE_NEWUSER, BLY_BOUND_NOTHING},
    {"nothing is wanted, and that was said", {0, 0}, true, false, NO_CGROUP, 0, BLY_BOUND_NOTHING},
    {"a cgroup comes first", {9, 0}, false, true, CGROUP, CLONE_NEWUSER, BLY_BOUND_CGROUP},
    {"a cgroup needs no user namespace", {9, 9}, true, false, CGROUP, 0, BLY_BOUND_CGROUP},
    {"then the user namespace", {9, 0}, true, true, NO_CGROUP, CLONE_NEWUSER, BLY_BOUND_NAMESPACE},
    {"a wall without one has none", {9, 0}, false, true, NO_CGROUP, 0, BLY_BOUND_NOTHING},
    {"which is not enough when asked for", {9, 0}, true, true, NO_CGROUP, 0, REFUSED},
    {"best effort", {9, 0}, false, false, NO_CGROUP, CLONE_NEWUSER, BLY_BOUND_NOTHING},
    {"memory takes a cgroup", {9, 9}, true, false, NO_CGROUP, CLONE_NEWUSER, REFUSED},
};

static void check_choice(void **state)
{
    const struct choice *c = *state;
    struct bly_bounding bounding = {.max = c->max,
                                    .must_hold = c->must_hold,
                                    .by_namespace = c->by_namespace,
                                    .cgroup = {.fd = c->cgroup_fd},
                                    .why = "there is no cgroup v2"};
    struct bly_features features = {
        .works = {[BLY_WALL_PROCESS_ONLINE] = c->clone_flags == CLONE_NEWUSER}};
    struct bly_err err = {0};
    enum bly_bound bound;
    int r = bly_bounding_choose(&bounding, c->clone_flags, &bound, &err);

    if (c->bound == REFUSED) {
        assert_int_equal(r, -ENOTSUP);
        assert_int_equal(err.kind, BLY_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.text, "there is no cgroup v2"));
    } else {
        assert_int_equal(r, 0);
        assert_int_equal(bound, c->bound);
    }
    bly_bounding_describe(&bounding, &features);
    assert_int_equal(features.bound, c->bound == REFUSED ? BLY_BOUND_REFUSED : c->bound);
    assert_string_equal(features.why_no_cgroup, "there is no cgroup v2");
}

/* ---- as bytes ------------------------------------------------------------------------------- */

static void they_come_back_as_they_were(void **state)
{
    const struct bly_bounds bounds = {7, 8, true, "/sys/fs/cgroup/x"};
    bly_autobuf struct bly_buf buf;

    (void)state;
    bly_buf_init(&buf, 4096);
    assert_int_equal(bly_bounds_pack(&bounds, &buf), 0);
    for (size_t len = 0; len <= buf.len; len++) {
        struct bly_reader reader = bly_reader_of(buf.data, len);
        bly_autofree char *cgroup = NULL;
        struct bly_bounds got;

        assert_int_equal(bly_bounds_unpack(&reader, &got, &cgroup), len < buf.len ? -EBADMSG : 0);
        if (len < buf.len)
            continue;
        assert_int_equal(got.tasks, 7);
        assert_int_equal(got.memory_bytes, 8);
        assert_true(got.tasks_asked);
        assert_string_equal(got.cgroup, "/sys/fs/cgroup/x");
    }
}

/* ---- control groups ------------------------------------------------------------------------- */

static int group_fd = -EBADF;
static char group[128];

static int make_group(void **state)
{
    static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(mounts); i++) {
        struct statfs fs;

        if (statfs(mounts[i], &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
            continue;
        (void)snprintf(group, sizeof(group), "%s/blytest-XXXXXX", mounts[i]);
        if (mkdtemp(group) != NULL)
            group_fd = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return 0;
}

static int remove_group(void **state)
{
    (void)state;
    if (group_fd >= 0 && rmdir(group) < 0)
        return -1;
    group_fd = bly_close(group_fd);
    return 0;
}

static void need_group(void)
{
    if (group_fd >= 0)
        return;
    print_message("no cgroup v2 here in which this user may make groups\n");
    skip();
}

static bool exists(const char *name)
{
    return faccessat(group_fd, name, F_OK, 0) == 0;
}

static pid_t start_in(int fd)
{
    pid_t pid = bly_cgroup_clone(fd, 0);

    if (pid == 0)
        for (;;)
            (void)pause();
    assert_true(pid > 0);
    return pid;
}

static void removing_kills(void **state)
{
    const struct bly_cgroup_max max = {0};
    bly_autofd int fd = -EBADF;
    struct bly_err err = {0};
    char name[64];
    int status, r;
    pid_t pid;

    (void)state;
    need_group();
    assert_int_equal(bly_cgroup_add(group_fd, 1, &max, &fd, &err), 0);
    (void)snprintf(name, sizeof(name), "wall-%d-1", (int)getpid());
    assert_true(exists(name));
    pid = start_in(fd);
    r = bly_cgroup_remove(group_fd, 1);
    assert_true(r == 0 || r == -EBUSY);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_false(bly_cgroup_sweep(group_fd, NULL, NULL));
    assert_false(exists(name));
}

static bool is_7(void *arg, pid_t owner)
{
    (void)arg;
    return owner == 7;
}

static void a_sweep_takes_what_is_empty_and_not_kept(void **state)
{
    static const char *const stay[] = {"wall-7-1", "other", "wall-x"};
    const struct bly_cgroup_max max = {0};
    bly_autofd int fd = -EBADF;
    struct bly_err err = {0};
    pid_t pid;

    (void)state;
    need_group();
    assert_int_equal(mkdirat(group_fd, "wall-8-1", 0755), 0);
    for (size_t i = 0; i < BLY_LEN(stay); i++)
        assert_int_equal(mkdirat(group_fd, stay[i], 0755), 0);
    assert_int_equal(bly_cgroup_add(group_fd, 2, &max, &fd, &err), 0);
    pid = start_in(fd);
    assert_true(bly_cgroup_sweep(group_fd, is_7, NULL)); /* That one lives. */
    assert_false(exists("wall-8-1"));
    for (size_t i = 0; i < BLY_LEN(stay); i++)
        assert_int_equal(unlinkat(group_fd, stay[i], AT_REMOVEDIR), 0);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    assert_int_equal(bly_cgroup_remove(group_fd, 2), 0);
}

static void what_is_no_cgroup_is_refused(void **state)
{
    const struct bly_cgroup_max max = {.tasks = 9};
    struct bly_cgroup cgroup = {.fd = -1};
    struct bly_err err = {0};

    (void)state;
    assert_int_equal(bly_cgroup_open("/usr", &max, 0, &cgroup, &err), -ENOTSUP);
    assert_string_equal(err.text, "/usr is not a cgroup v2");
    assert_int_equal(bly_cgroup_open("/nonexistent", &max, 0, &cgroup, &err), -ENOENT);
    assert_int_equal(cgroup.fd, -1);
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(choices) + 4] = {
        cmocka_unit_test(they_come_back_as_they_were),
        cmocka_unit_test(removing_kills),
        cmocka_unit_test(a_sweep_takes_what_is_empty_and_not_kept),
        cmocka_unit_test(what_is_no_cgroup_is_refused),
    };

    for (size_t i = 0; i < BLY_LEN(choices); i++)
        tests[4 + i] = (struct CMUnitTest){
            .name = choices[i].name, .test_func = check_choice, .initial_state = &choices[i]};
    return cmocka_run_group_tests(tests, make_group, remove_group);
}
