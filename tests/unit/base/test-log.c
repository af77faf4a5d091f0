#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

/* What bly_log() wrote since redirect(). */
struct capture {
    int pipe[2];
    int saved;
};

static void redirect(struct capture *c)
{
    assert_int_equal(pipe2(c->pipe, O_CLOEXEC | O_NONBLOCK), 0);
    c->saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    assert_true(c->saved >= 0);
    assert_int_equal(dup2(c->pipe[1], STDERR_FILENO), STDERR_FILENO);
}

static size_t restore(struct capture *c, char *text, size_t size)
{
    assert_int_equal(dup2(c->saved, STDERR_FILENO), STDERR_FILENO);

    ssize_t n = read(c->pipe[0], text, size - 1);

    bly_close(c->saved);
    bly_close(c->pipe[0]);
    bly_close(c->pipe[1]);
    if (n < 0)
        n = 0;
    text[n] = '\0';
    return (size_t)n;
}

static void a_line_has_level_event_and_pairs(void **state)
{
    (void)state;
    struct capture c;
    char text[256];

    redirect(&c);
    bly_log(BLY_LOG_INFO, "process-exit", "session=%s code=%d", "s1", 7);
    bly_log(BLY_LOG_ERROR, "bare", "%s", "");
    (void)restore(&c, text, sizeof(text));
    assert_string_equal(text, "info process-exit session=s1 code=7\nerror bare\n");
}

static void controls_cannot_forge_a_line(void **state)
{
    (void)state;
    struct capture c;
    char text[256];

    redirect(&c);
    bly_log(BLY_LOG_WARN, "e", "p=%s", "a\nerror x\r\x1b[2J\x7f\xc2\x9b\xc3\xbc");
    (void)restore(&c, text, sizeof(text));
    assert_string_equal(text, "warn e p=a\\x0aerror x\\x0d\\x1b[2J\\x7f\xc2\\x9b\xc3\xbc\n");
}

static void lines_above_the_level_are_dropped(void **state)
{
    (void)state;
    struct capture c;
    char text[256];

    redirect(&c);
    bly_log(BLY_LOG_DEBUG, "dropped", "x=1");
    bly_log_set_level(BLY_LOG_DEBUG);
    bly_log(BLY_LOG_DEBUG, "kept", "x=2");
    bly_log_set_level(BLY_LOG_INFO);
    (void)restore(&c, text, sizeof(text));
    assert_string_equal(text, "debug kept x=2\n");
}

static void a_long_line_is_cut_but_ends(void **state)
{
    (void)state;
    struct capture c;
    static char value[60000];
    static char text[30000];

    memset(value, '\n', sizeof(value) - 1);
    redirect(&c);
    errno = 77;
    bly_log(BLY_LOG_INFO, "long", "v=%s", value);
    assert_int_equal(errno, 77);

    size_t n = restore(&c, text, sizeof(text));

    assert_true(n > 4000 && n <= 8192);
    assert_int_equal(text[n - 1], '\n');
    assert_ptr_equal(strchr(text, '\n'), text + n - 1);
}

static void level_names(void **state)
{
    (void)state;
    enum bly_log_level level = BLY_LOG_INFO;

    assert_int_equal(bly_log_level_parse("error", &level), 0);
    assert_int_equal(level, BLY_LOG_ERROR);
    assert_int_equal(bly_log_level_parse("debug", &level), 0);
    assert_int_equal(level, BLY_LOG_DEBUG);
    assert_int_equal(bly_log_level_parse("DEBUG", &level), -EINVAL);
    assert_int_equal(level, BLY_LOG_DEBUG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_level_event_and_pairs),
        cmocka_unit_test(controls_cannot_forge_a_line),
        cmocka_unit_test(lines_above_the_level_are_dropped),
        cmocka_unit_test(a_long_line_is_cut_but_ends),
        cmocka_unit_test(level_names),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
