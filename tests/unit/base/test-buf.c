#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static void it_grows(void **state)
{
    (void)state;
    struct bly_buf buf;
    size_t len = 0;

    bly_buf_init(&buf, 1 << 20);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(bly_buf_printf(&buf, "%04d,", i), 0);
    assert_int_equal(buf.len, 50000);

    uint8_t *data = bly_buf_take(&buf, &len);

    assert_int_equal(len, 50000);
    assert_int_equal(data[len], 0);
    assert_memory_equal(data, "0000,0001,", 10);
    assert_memory_equal(data + len - 5, "9999,", 5);
    assert_null(buf.data);
    assert_int_equal(buf.max, 1 << 20);
    free(data);
    bly_buf_deinit(&buf);
}

static void the_ceiling_holds_and_the_failure_stays(void **state)
{
    (void)state;
    struct bly_buf buf;

    bly_buf_init(&buf, 10);
    assert_int_equal(bly_buf_add(&buf, "0123456789", 10), 0);
    assert_int_equal(bly_buf_add(&buf, "", 0), 0);
    assert_int_equal(bly_buf_add_char(&buf, 'x'), -EMSGSIZE);
    assert_int_equal(bly_buf_add(&buf, "", 0), -EMSGSIZE);
    assert_int_equal(bly_buf_printf(&buf, "%s", ""), -EMSGSIZE);
    assert_int_equal(buf.error, -EMSGSIZE);
    assert_int_equal(buf.len, 10);
    assert_null(bly_buf_take(&buf, NULL));
    bly_buf_deinit(&buf);
}

static void sizes_near_the_end_of_the_range_do_not_wrap(void **state)
{
    (void)state;
    struct bly_buf buf;

    bly_buf_init(&buf, 100);
    assert_int_equal(bly_buf_add_str(&buf, "abc"), 0);
    assert_int_equal(bly_buf_reserve(&buf, SIZE_MAX), -EMSGSIZE);
    bly_buf_deinit(&buf);
}

static void printf_fits_exactly(void **state)
{
    (void)state;
    struct bly_buf buf;

    bly_buf_init(&buf, 200);
    for (int i = 0; i < 200; i++)
        assert_int_equal(bly_buf_printf(&buf, "%d", i % 10), 0);
    assert_int_equal(buf.len, 200);
    assert_int_equal(bly_buf_printf(&buf, "x"), -EMSGSIZE);
    bly_buf_deinit(&buf);
}

static void an_empty_buffer_can_be_taken(void **state)
{
    (void)state;
    struct bly_buf buf;
    size_t len = 7;

    bly_buf_init(&buf, 0);

    uint8_t *data = bly_buf_take(&buf, &len);

    assert_non_null(data);
    assert_int_equal(len, 0);
    assert_string_equal((char *)data, "");
    free(data);
}

static void what_is_put_can_be_got(void **state)
{
    (void)state;
    struct bly_buf buf;
    size_t len = 0;

    bly_buf_init(&buf, 1000);
    bly_buf_put_u8(&buf, 200);
    bly_buf_put_u32(&buf, 0xdeadbeef);
    bly_buf_put_u64(&buf, UINT64_MAX - 1);
    bly_buf_put_bytes(&buf, "a\0b", 3);
    bly_buf_put_str(&buf, "text");
    bly_buf_put_str(&buf, NULL);
    bly_buf_put_str(&buf, "");
    assert_int_equal(buf.error, 0);

    struct bly_reader r = bly_reader_of(buf.data, buf.len);

    assert_int_equal(bly_get_u8(&r), 200);
    assert_int_equal(bly_get_u32(&r), 0xdeadbeef);
    assert_true(bly_get_u64(&r) == UINT64_MAX - 1);

    const uint8_t *bytes = bly_get_bytes(&r, &len);

    assert_int_equal(len, 3);
    assert_memory_equal(bytes, "a\0b", 3);

    char *text = bly_get_str(&r);
    char *none = bly_get_str(&r);
    char *empty = bly_get_str(&r);

    assert_string_equal(text, "text");
    assert_null(none);
    assert_string_equal(empty, "");
    assert_false(r.bad);
    assert_int_equal(r.pos, r.len);
    free(text);
    free(empty);
    bly_buf_deinit(&buf);
}

static void every_short_input_is_bad(void **state)
{
    (void)state;
    struct bly_buf buf;

    bly_buf_init(&buf, 1000);
    bly_buf_put_u64(&buf, 1);
    bly_buf_put_str(&buf, "text");
    for (size_t n = 0; n < buf.len; n++) {
        uint8_t *copy = malloc(n + 1);

        memcpy(copy, buf.data, n);

        struct bly_reader r = bly_reader_of(copy, n);

        (void)bly_get_u64(&r);

        char *text = bly_get_str(&r);

        assert_null(text);
        assert_true(r.bad);
        free(copy);
    }
    bly_buf_deinit(&buf);
}

static void a_huge_length_is_bad(void **state)
{
    (void)state;
    uint32_t wire[2] = {UINT32_MAX - 1, 0};
    struct bly_reader r = bly_reader_of(wire, sizeof(wire));
    size_t len = 1;

    assert_null(bly_get_bytes(&r, &len));
    assert_int_equal(len, 0);
    assert_true(r.bad);
    assert_int_equal(bly_get_u32(&r), 0); /* stays bad although four bytes are left */
    assert_true(r.bad);
}

static void a_nul_in_a_string_is_bad(void **state)
{
    (void)state;
    struct bly_buf buf;

    bly_buf_init(&buf, 100);
    bly_buf_put_bytes(&buf, "a\0b", 3);

    struct bly_reader r = bly_reader_of(buf.data, buf.len);

    assert_null(bly_get_str(&r));
    assert_true(r.bad);
    bly_buf_deinit(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_grows),
        cmocka_unit_test(the_ceiling_holds_and_the_failure_stays),
        cmocka_unit_test(sizes_near_the_end_of_the_range_do_not_wrap),
        cmocka_unit_test(printf_fits_exactly),
        cmocka_unit_test(an_empty_buffer_can_be_taken),
        cmocka_unit_test(what_is_put_can_be_got),
        cmocka_unit_test(every_short_input_is_bad),
        cmocka_unit_test(a_huge_length_is_bad),
        cmocka_unit_test(a_nul_in_a_string_is_bad),
    };

    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
