#include "escape/yard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *make_sandbox(const char *readable, const char *ws)
{
    char *json = NULL;

    assert_true(
        asprintf(&json,
                 "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\","
                 "\"entries\":[{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"%s\"}},"
                 "\"access\":\"read\"},{\"path\":{\"type\":\"path\",\"path\":\"file://%s\"},"
                 "\"access\":\"write\"}]},\"network\":\"restricted\"},\"cwd\":\"file://%s\","
                 "\"windowsSandboxLevel\":\"disabled\"}",
                 readable, ws, ws) > 0);
    return json;
}

int yard_setup(void **state)
{
    struct yard *yard = calloc(1, sizeof(*yard));

    assert_non_null(yard);
    yard->server = server_start(NULL);
    yard->ws = server_path(yard->server, "ws");
    yard->out = server_path(yard->server, "out");
    disk_write(server_path(yard->server, "ws/a.txt"), "inside\n");
    disk_write(server_path(yard->server, "ws/.git/config"), "[core]\n");
    disk_write(server_path(yard->server, "out/secret"), YARD_SECRET);
    disk_write(server_path(yard->server, "out/victim/file"), "keep me\n");
    disk_symlink("../out/secret", server_path(yard->server, "ws/leaf"));
    disk_symlink("../out", server_path(yard->server, "ws/parent"));
    disk_symlink("../out/planted", server_path(yard->server, "ws/dangling"));
    yard->restricted = make_sandbox("minimal", yard->ws);
    yard->full_read = make_sandbox("root", yard->ws);
    *state = yard;
    return 0;
}

int yard_teardown(void **state)
{
    struct yard *yard = *state;

    server_stop(yard->server);
    free(yard->restricted);
    free(yard->full_read);
    free(yard);
    return 0;
}

static void assert_text(const struct yard *yard, const char *name, const char *want)
{
    char *got = disk_read(server_path(yard->server, "%s", name));

    assert_non_null(got);
    assert_string_equal(got, want);
    free(got);
}

void yard_assert_untouched(const struct yard *yard)
{
    static const char *const absent[] = {"out/planted", "out/new",   "out/copy",     "ws/.codex",
                                         "ws/.agents",  "ws/.git/x", "ws/.git/hooks"};

    assert_text(yard, "out/secret", YARD_SECRET);
    assert_text(yard, "out/victim/file", "keep me\n");
    assert_text(yard, "ws/.git/config", "[core]\n");
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
        if (disk_exists(server_path(yard->server, "%s", absent[i])))
            fail_msg("%s appeared", absent[i]);
}
