#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "process/input.h"
#include "process/write_ids.h"

enum { MAX_BYTES = 100 };

struct pipe_fixture {
    struct bly_input *input;
    int read_fd, write_fd;
};

static int setup(void **state)
{
    struct pipe_fixture *f = calloc(1, sizeof(*f));
    int fds[2];

    (void)signal(SIGPIPE, SIG_IGN);
    if (f == NULL || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -1;
    f->read_fd = fds[0];
    f->write_fd = fds[1];
    *state = f;
    return bly_input_new(MAX_BYTES, &f->input);
}

static int teardown(void **state)
{
    struct pipe_fixture *f = *state;

    bly_input_end(f->input);
    bly_input_free(f->input);
    bly_close(f->read_fd);
    bly_close(f->write_fd);
    free(f);
    return 0;
}

/* What happened to a write: '?' nothing yet, 'a' accepted, 'c' closed; counts. */
struct outcome {
    int n;
    char what;
};

static void on_done(void *arg, enum bly_write_status status)
{
    struct outcome *outcome = arg;

    outcome->n++;
    outcome->what = status == BLY_WRITE_ACCEPTED ? 'a' : 'c';
}

static struct outcome *write_text(struct pipe_fixture *f, const char *text, const char *id,
                                  struct outcome *outcome)
{
    *outcome = (struct outcome){0, '?'};
    bly_input_write(f->input, text, strlen(text), id, on_done, outcome);
    return outcome;
}

static void assert_outcome(const struct outcome *outcome, char what)
{
    assert_int_equal(outcome->n, what == '?' ? 0 : 1);
    assert_int_equal(outcome->what, what);
}

static const char *written(struct pipe_fixture *f)
{
    static char text[1024];
    ssize_t n = read(f->read_fd, text, sizeof(text) - 1);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static const char long_text[] = "0123456789012345678901234567890123456789012345678901234567890123";

static void writes_go_out_in_order(void **state)
{
    struct pipe_fixture *f = *state;
    struct outcome one, two, three;

    assert_outcome(write_text(f, "one,", NULL, &one), 'a'); /* before it is open: queued */
    bly_input_open(f->input, f->write_fd);
    assert_outcome(write_text(f, "two,", NULL, &two), 'a');
    assert_outcome(write_text(f, "", NULL, &three), 'a');
    assert_string_equal(written(f), "one,two,");
    assert_false(bly_input_wants_room(f->input));
}

static void what_does_not_fit_waits_for_its_answer(void **state)
{
    struct pipe_fixture *f = *state;
    struct outcome one, two, three, repeat;

    assert_outcome(write_text(f, long_text, NULL, &one), 'a');
    assert_outcome(write_text(f, long_text, "id", &two), '?'); /* 128 bytes are above the limit */
    assert_outcome(write_text(f, "x", NULL, &three), '?'); /* would fit, but order comes first */
    assert_outcome(write_text(f, "other", "id", &repeat), '?');
    bly_input_open(f->input, f->write_fd);
    bly_input_flush(f->input);
    assert_outcome(&two, 'a');
    assert_outcome(&three, 'a');
    assert_outcome(&repeat, 'a');
    assert_int_equal(strlen(written(f)), 2 * strlen(long_text) + 1);
}

static void one_above_the_limit_goes_alone(void **state)
{
    struct pipe_fixture *f = *state;
    struct outcome one, two;
    char big[3 * MAX_BYTES];

    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    assert_outcome(write_text(f, big, NULL, &one), 'a');
    assert_outcome(write_text(f, "y", NULL, &two), '?');
    bly_input_open(f->input, f->write_fd);
    bly_input_flush(f->input);
    assert_outcome(&two, 'a');
    assert_int_equal(strlen(written(f)), sizeof(big));
}

static void a_repeated_id_is_accepted_and_not_written(void **state)
{
    struct pipe_fixture *f = *state;
    struct outcome outcome;

    bly_input_open(f->input, f->write_fd);
    assert_outcome(write_text(f, "one", "id", &outcome), 'a');
    assert_outcome(write_text(f, "two", "id", &outcome), 'a');
    assert_outcome(write_text(f, "three", "other", &outcome), 'a');
    assert_string_equal(written(f), "onethree");

    bly_input_end(f->input); /* The first answer may be the one that got lost. */
    assert_outcome(write_text(f, "one", "id", &outcome), 'a');
    assert_outcome(write_text(f, "four", "new", &outcome), 'c');
}

static void a_reader_that_went_closes_it_at_once(void **state)
{
    struct pipe_fixture *f = *state;
    struct outcome outcome;

    bly_input_open(f->input, f->write_fd);
    f->read_fd = bly_close(f->read_fd);
    assert_outcome(write_text(f, "x", "id", &outcome), 'c');
    assert_outcome(write_text(f, "x", "id", &outcome), 'c');
    assert_false(bly_input_wants_room(f->input));
}

static void the_end_answers_who_waits(void **state)
{
    struct pipe_fixture *f = *state;
    struct outcome one, two, three;

    assert_outcome(write_text(f, long_text, NULL, &one), 'a');
    assert_outcome(write_text(f, long_text, "id", &two), '?');
    assert_outcome(write_text(f, long_text, "id", &three), '?');
    bly_input_end(f->input);
    assert_outcome(&two, 'c');
    assert_outcome(&three, 'c');
}

static void a_full_pipe_is_filled_again_when_it_drains(void **state)
{
    struct pipe_fixture *f = *state;
    struct outcome outcome;
    size_t total = 0, read_back = 0;
    char *big = malloc((1 << 20) + 1);

    memset(big, 'x', 1 << 20);
    big[1 << 20] = '\0';
    bly_input_open(f->input, f->write_fd);
    assert_outcome(write_text(f, big, NULL, &outcome), 'a');
    total += 1 << 20;
    assert_true(bly_input_wants_room(f->input));
    while (bly_input_wants_room(f->input)) {
        read_back += strlen(written(f));
        bly_input_flush(f->input);
    }
    for (size_t n = 1; n > 0; read_back += n)
        n = strlen(written(f));
    assert_int_equal(read_back, total);
    free(big);
}

static void the_latest_4096_ids_are_remembered(void **state)
{
    struct bly_write_ids ids;

    (void)state;
    bly_write_ids_init(&ids);
    for (int i = 0; i < BLY_WRITE_IDS_MAX + 10; i++) {
        char text[32];
        struct bly_write_id id;

        (void)snprintf(text, sizeof(text), "%d", i);
        id = bly_write_id_of(text);
        assert_false(bly_write_ids_has(&ids, &id));
        assert_int_equal(bly_write_ids_add(&ids, &id), 0);
        assert_true(bly_write_ids_has(&ids, &id));
    }
    for (int i = 0; i < BLY_WRITE_IDS_MAX + 10; i++) {
        char text[32];
        struct bly_write_id id;

        (void)snprintf(text, sizeof(text), "%d", i);
        id = bly_write_id_of(text);
        assert_int_equal(bly_write_ids_has(&ids, &id), i >= 10);
    }
    bly_write_ids_deinit(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_go_out_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(what_does_not_fit_waits_for_its_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(one_above_the_limit_goes_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(a_repeated_id_is_accepted_and_not_written, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reader_that_went_closes_it_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(the_end_answers_who_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_pipe_is_filled_again_when_it_drains, setup,
                                        teardown),
        cmocka_unit_test(the_latest_4096_ids_are_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
