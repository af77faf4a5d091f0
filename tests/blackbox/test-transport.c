/* What a client does, over the transport in $BLY_TEST_TRANSPORT: the same everywhere. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "support/server.h"

static int start(void **state)
{
    *state = server_start(NULL);
    return 0;
}

static int stop(void **state)
{
    server_stop(*state);
    return 0;
}

struct output {
    size_t bytes;
    char last[64];
};

static void on_output(void *arg, const char *stream, const uint8_t *data, size_t len)
{
    struct output *output = arg;
    size_t n = len < sizeof(output->last) - 1 ? len : sizeof(output->last) - 1;

    assert_string_equal(stream, "stdout");
    memcpy(output->last, data + len - n, n);
    output->last[n] = '\0';
    output->bytes += len;
}

static void run_shell(struct server *server, const char *script, const char *sandbox_json,
                      struct output *output, struct bly_client_exit *ret_exit)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    const struct bly_client_run run = {.argv = argv,
                                       .cwd = server_path(server, "run"),
                                       .sandbox_json = sandbox_json,
                                       .output = on_output,
                                       .arg = output};
    struct bly_client_error error = {0};

    if (bly_client_run(server->client, &run, ret_exit, &error) < 0)
        fail_msg("%s", error.message);
}

/* A policy in which everything may be read, and only ws/ be written. */
static const char *make_policy(struct server *server, char *text, size_t size)
{
    const char *ws = server_path(server, "ws");

    disk_mkdir(ws);
    (void)snprintf(
        text, size,
        "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\","
        "\"entries\":[{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"root\"}},"
        "\"access\":\"read\"},{\"path\":{\"type\":\"path\",\"path\":\"file://%s\"},"
        "\"access\":\"write\"}]},\"network\":\"restricted\"},\"cwd\":\"file://%s\","
        "\"windowsSandboxLevel\":\"disabled\"}",
        ws, ws);
    return text;
}

static void a_program_runs_and_its_output_arrives(void **state)
{
    struct output output = {0};
    struct bly_client_exit result;

    run_shell(*state, "head -c 5000000 /dev/zero | tr '\\0' 'x'; echo the end; exit 7", NULL,
              &output, &result);
    assert_int_equal(result.exit_code, 7);
    assert_int_equal(output.bytes, 5000008);
    assert_string_equal(output.last + strlen(output.last) - 8, "the end\n");
}

static void files_of_all_sizes_come_and_go(void **state)
{
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 12 << 20};
    struct server *server = *state;
    const char *path = server_path(server, "run/file");
    bly_autofree uint8_t *data = malloc(12 << 20);
    struct bly_client_error error = {0};

    assert_non_null(data);
    for (size_t i = 0; i < 12 << 20; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    for (size_t i = 0; i < BLY_LEN(sizes); i++) {
        bly_autofree uint8_t *got = NULL;
        size_t len = 0;

        assert_int_equal(bly_client_write_file(server->client, path, data, sizes[i], NULL, &error),
                         0);
        assert_int_equal(bly_client_read_file(server->client, path, NULL, &got, &len, &error), 0);
        assert_int_equal(len, sizes[i]);
        assert_memory_equal(got, data, len);
    }
}

static void a_walled_write_stays_inside(void **state)
{
    struct server *server = *state;
    char policy[1024];
    struct bly_client_error error = {0};
    const char *inside = server_path(server, "ws/inside");
    const char *outside = server_path(server, "outside");
    bly_autofree char *kept = NULL;

    make_policy(server, policy, sizeof(policy));
    disk_write(outside, "keep");
    if (bly_client_write_file(server->client, inside, "new", 3, policy, &error) < 0)
        fail_msg("%s", error.message);
    assert_true(disk_exists(inside));
    assert_int_equal(bly_client_write_file(server->client, outside, "new", 3, policy, &error),
                     -EREMOTEIO);
    kept = disk_read(outside);
    assert_string_equal(kept, "keep");
}

static void a_walled_program_stays_inside(void **state)
{
    struct server *server = *state;
    char policy[1024];
    struct output output = {0};
    struct bly_client_exit result;

    make_policy(server, policy, sizeof(policy));
    run_shell(server, "cd ../ws && echo a >in; { echo b >../out; } 2>/dev/null || echo denied",
              policy, &output, &result);
    assert_string_equal(output.last, "denied\n");
    assert_true(disk_exists(server_path(server, "ws/in")));
    assert_false(disk_exists(server_path(server, "out")));
}

static void what_is_no_message_is_answered(void **state)
{
    struct server *server = *state;
    bly_autofree char *method = NULL, *params = NULL;

    assert_int_equal(bly_client_send_raw(server->client, "nonsense", 8), 0);
    assert_int_equal(bly_client_next_notification(server->client, 10000, &method, &params), 0);
    assert_non_null(strstr(params, server->pid ? "failed to parse websocket JSON-RPC message from "
                                                 "exec-server websocket "
                                               : "failed to parse JSON-RPC message from "
                                                 "exec-server stdio: "));
}

#define ON(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON(a_program_runs_and_its_output_arrives), ON(files_of_all_sizes_come_and_go),
        ON(a_walled_write_stays_inside),           ON(a_walled_program_stays_inside),
        ON(what_is_no_message_is_answered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
