/* What a machine can enforce: as bytes, and as the launcher tells it. */
#include "unit/launcher/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "launcher/probe.h"
#include "sandbox/enforce/wall.h"

static void make(struct bly_features *features, struct bly_buf *buf)
{
    *features = (struct bly_features){.landlock_abi = 5, .lacks_proc = true, .fix = "a fix"};
    for (int kind = 0; kind < BLY_WALL_KINDS; kind++)
        features->works[kind] = true;
    bly_features_lack(features, BLY_WALL_PROCESS, "no network namespaces");
    bly_buf_init(buf, 4096);
    assert_int_equal(bly_features_pack(features, buf), 0);
}

static void they_come_back_as_they_were(void **state)
{
    bly_autobuf struct bly_buf buf;
    struct bly_features features, got;
    struct bly_reader reader;

    (void)state;
    make(&features, &buf);
    reader = bly_reader_of(buf.data, buf.len);
    assert_int_equal(bly_features_unpack(&reader, &got), 0);
    assert_false(got.works[BLY_WALL_PROCESS]);
    assert_true(got.works[BLY_WALL_HELPER]);
    assert_string_equal(got.why_not[BLY_WALL_PROCESS], "no network namespaces");
    assert_string_equal(got.fix, "a fix");
    assert_true(got.lacks_proc);
    assert_int_equal(got.landlock_abi, 5);
}

static void every_cut_is_noticed(void **state)
{
    bly_autobuf struct bly_buf buf;
    struct bly_features features, got;

    (void)state;
    make(&features, &buf);
    for (size_t len = 0; len < buf.len; len++) {
        struct bly_reader reader = bly_reader_of(buf.data, len);

        assert_int_equal(bly_features_unpack(&reader, &got), -EBADMSG);
    }
}

static void texts_are_bounded(void **state)
{
    bly_autobuf struct bly_buf buf;
    struct bly_features features = {0};
    struct bly_reader reader;
    char text[2 * BLY_WHY_MAX];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    bly_features_lack(&features, BLY_WALL_HELPER, text);
    assert_int_equal(strlen(features.why_not[BLY_WALL_HELPER]), BLY_WHY_MAX - 1);

    bly_buf_init(&buf, 4096);
    (void)bly_buf_put_u8(&buf, 0);
    (void)bly_buf_put_str(&buf, text);
    reader = bly_reader_of(buf.data, buf.len);
    assert_int_equal(bly_features_unpack(&reader, &features), -EBADMSG);
}

struct heard {
    struct bly_features features;
    bool over;
};

static void on_learnt(void *arg, const struct bly_features *features)
{
    struct heard *heard = arg;

    assert_false(heard->over);
    heard->features = *features;
    heard->over = true;
}

/* The same walls, tried here and by the launcher. */
static void the_launcher_tells(void **state)
{
    struct fixture *fixture = *state;
    struct heard heard = {0};
    const struct bly_features *told = &heard.features;
    struct bly_features found;
    struct bly_err err = {0};

    bly_launcher_learn(fixture->launcher, on_learnt, &heard);
    fixture_wait(fixture, &heard.over);
    assert_int_equal(bly_wall_prepare(&err), 0);
    bly_probe_features(&found);
    assert_memory_equal(told->works, found.works, sizeof(found.works));
    assert_int_equal(told->landlock_abi, bly_wall_landlock_abi());
    for (int kind = 0; kind < BLY_WALL_KINDS; kind++)
        assert_int_equal(told->why_not[kind][0] == '\0', told->works[kind]);
}

static int no_helper(int socket_fd, const struct bly_policy *policy,
                     const struct bly_policy *folded)
{
    (void)socket_fd;
    (void)policy;
    (void)folded;
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_come_back_as_they_were),
        cmocka_unit_test(every_cut_is_noticed),
        cmocka_unit_test(texts_are_bounded),
        cmocka_unit_test_setup_teardown(the_launcher_tells, fixture_setup, fixture_teardown),
    };

    fixture_main(argc, argv, no_helper);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
