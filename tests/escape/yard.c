#include "escape/yard.h"

#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "support/server.h"
#include "support/tree.h"

static const char *const files[] = {
    "ws/a.txt",
    "ws/src.txt",
    "ws/tree/needle",
    "ws/mixed/a",
    "ws/mixed/z.key",
    "ws/mixed2/a/b/z.key",
    "ws/mixed2/c",
    "ws/x.key",
    "ws/sub/b.txt",
    "ws/sub/y.key",
    "ws/sub/d/needle",
    "ws/.git/config",
    "ws/.git/d/needle",
    "ws/ro/f",
    "ws/ro/d/needle",
    "ws/ro/rw/f",
    "ws/ro/rw/d/needle",
    "ws/deny/f",
    "ws/deny/needle",
    "ws/deny/d/needle",
    "ws/deny/rw/f",
    "ws/deny/rw/d/needle",
    "lib/f",
    "lib/d/needle",
    "out/secret",
    "out/shared",
    "out/d/needle",
    "out/d/deep/needle",
};

static const struct {
    const char *name, *target;
} links[] = {
    {"ws/leaf", "../out/secret"},
    {"ws/abs", "$Y/out/secret"},
    {"ws/chain", "chain2"},
    {"ws/chain2", "sub/../leaf"},
    {"ws/parent", "../out"},
    {"ws/parent2", "parent"},
    {"ws/up", "tolib/../out/secret"},
    {"ws/updir", "sub/../../out"},
    {"ws/dirleaf", "../out/d"},
    {"ws/dangling", "../out/planted"},
    {"ws/magic", "/proc/self/root$Y/out/secret"},
    {"ws/magicdir", "/proc/self/root$Y/out"},
    {"ws/fdlink", "/proc/$P/fd/$F"},
    {"ws/fds", "/proc/$P/fd"},
    {"ws/cwd", "/proc/$P/cwd"},
    {"ws/denylink", "deny/f"},
    {"ws/denydir", "deny"},
    {"ws/keylink", "sub/y.key"},
    {"ws/rolink", "ro/f"},
    {"ws/rodir", "$Y/ws/ro"},
    {"ws/gitlink", ".git/config"},
    {"ws/gitdir", ".git"},
    {"ws/codexlink", ".codex"},
    {"ws/tolib", "../lib"},
    {"ws/inlink", "a.txt"},
    {"ws/newlink", "sub/new2"},
};

/* Places where everything may change; what is not below ws may not change at all. */
static const char *const guarded[] = {"ws/.git", "ws/.codex", "ws/.agents", "ws/.aws",
                                      "ws/ro",   "ws/deny",   "ws/x.key",   "ws/sub/y.key"};
static const char *const reopened[] = {"ws/ro/rw", "ws/deny/rw"};

static char *expand(const struct yard *yard, const char *text)
{
    char *expanded = NULL;
    size_t len;
    FILE *out = open_memstream(&expanded, &len);

    assert_non_null(out);
    for (; *text != '\0'; text++) {
        if (*text != '$') {
            (void)fputc(*text, out);
            continue;
        }
        text++;
        if (*text == 'Y')
            (void)fputs(yard->dir, out);
        else
            (void)fprintf(out, "%d", *text == 'P' ? (int)getpid() : yard->fd);
    }
    assert_int_equal(fclose(out), 0);
    return expanded;
}

const char *yard_path(const struct yard *yard, const char *name)
{
    static char paths[16][PATH_MAX];
    static size_t turn;
    char *path = paths[turn++ % BLY_LEN(paths)];
    bly_autofree char *expanded = expand(yard, name);

    (void)snprintf(path, PATH_MAX, "%s%s%s", name[0] == '/' ? "" : yard->dir,
                   name[0] == '/' ? "" : "/", expanded);
    return path;
}

#define ENTRY(path, access) \
    ",{\"path\":{\"type\":\"path\",\"path\":\"file://$Y/" path "\"},\"access\":\"" access "\"}"

static const char sandbox_format[] =
    "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\",\"entries\":["
    "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"%s\"}},\"access\":\"read\"}" ENTRY(
        "ws", "write") ENTRY("ws/ro", "read") ENTRY("ws/ro/rw", "write") ENTRY("ws/deny", "deny")
        ENTRY("ws/deny/rw", "write")
            ENTRY("lib", "read") "%s]},\"network\":\"restricted\"},"
                                 "\"cwd\":\"file://$Y/ws\",\"windowsSandboxLevel\":\"disabled\"}";

static const char denied_keys[] = ",{\"path\":{\"type\":\"glob_pattern\",\"pattern\":"
                                  "\"$Y/ws/**/*.key\"},\"access\":\"deny\"}";

static char *make_sandbox(const struct yard *yard, const char *readable, const char *more)
{
    char text[8192];

    (void)snprintf(text, sizeof(text), sandbox_format, readable, more);
    return expand(yard, text);
}

/* Makes what is missing. */
static void build(struct yard *yard)
{
    for (size_t i = 0; i < BLY_LEN(files); i++) {
        const char *path = yard_path(yard, files[i]);
        char text[PATH_MAX];

        (void)snprintf(text, sizeof(text), "%s: %s\n", files[i], YARD_SECRET);
        if (!disk_exists(path))
            disk_write(path, text);
    }
    yard->fd = bly_close(yard->fd);
    yard->fd = open(yard_path(yard, "out/secret"), O_RDONLY | O_CLOEXEC);
    assert_true(yard->fd >= 0);
    assert_int_equal(chdir(yard->out), 0);
    for (size_t i = 0; i < BLY_LEN(links); i++) {
        bly_autofree char *target = expand(yard, links[i].target);
        const char *path = yard_path(yard, links[i].name);

        if (!disk_exists(path))
            disk_symlink(target, path);
    }
    if (!disk_exists(yard_path(yard, "ws/hard")))
        assert_int_equal(link(yard_path(yard, "out/shared"), yard_path(yard, "ws/hard")), 0);
}

struct yard *yard_new(void)
{
    const char *base = getenv("BLY_TEST_DIR");
    struct yard *yard = calloc(1, sizeof(*yard));
    char template[PATH_MAX];

    assert_non_null(yard);
    (void)umask(022);
    (void)snprintf(template, sizeof(template), "%s/bailey-yard-XXXXXX", base ? base : "/var/tmp");
    assert_non_null(mkdtemp(template));
    assert_int_equal(chmod(template, 0755), 0);
    yard->dir = realpath(template, NULL);
    assert_non_null(yard->dir);
    yard->fd = -EBADF;
    yard->ws = strdup(yard_path(yard, "ws"));
    yard->out = strdup(yard_path(yard, "out"));
    yard->plain[RESTRICTED] = make_sandbox(yard, "minimal", "");
    yard->plain[FULL_READ] = make_sandbox(yard, "root", "");
    yard->sandbox[RESTRICTED] = make_sandbox(yard, "minimal", denied_keys);
    yard->sandbox[FULL_READ] = make_sandbox(yard, "root", denied_keys);
    build(yard);
    yard->whole = tree_list(yard->dir, 0);
    return yard;
}

void yard_free(struct yard *yard)
{
    assert_int_equal(chdir("/"), 0);
    bly_close(yard->fd);
    disk_remove_tree(yard->dir);
    for (int wall = 0; wall < N_WALLS; wall++) {
        free(yard->sandbox[wall]);
        free(yard->plain[wall]);
    }
    free(yard->dir);
    free(yard->ws);
    free(yard->out);
    free(yard->whole);
    free(yard);
}

static bool has_line(const char *list, const char *line, size_t len)
{
    for (; *list != '\0'; list += strcspn(list, "\n") + 1)
        if (strncmp(list, line, len) == 0)
            return true;
    return false;
}

/* Whatever is not as it was goes. */
static void remove_changed(const struct yard *yard, const char *now)
{
    for (const char *line = now; *line != '\0'; line += strcspn(line, "\n") + 1) {
        char name[PATH_MAX];

        if (has_line(yard->whole, line, strcspn(line, "\n") + 1))
            continue;
        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(line, " "), line);
        disk_remove_tree(yard_path(yard, name));
    }
}

void yard_reset(struct yard *yard)
{
    bly_autofree char *now = tree_list(yard->dir, 0), *again = NULL;

    if (strcmp(now, yard->whole) == 0)
        return;
    assert_int_equal(chdir("/"), 0);
    remove_changed(yard, now);
    build(yard);
    again = tree_list(yard->dir, 0);
    assert_string_equal(again, yard->whole);
}

static bool is_below(const char *line, const char *const *dirs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(dirs[i]);

        if (strncmp(line, dirs[i], len) == 0 && (line[len] == '/' || line[len] == ' '))
            return true;
    }
    return false;
}

char *yard_guarded(const char *whole)
{
    char *kept = calloc(1, strlen(whole) + 1), *end = kept;

    assert_non_null(kept);
    while (*whole != '\0') {
        size_t n = strcspn(whole, "\n") + 1;
        bool outside = strncmp(whole, "out", 3) == 0 || strncmp(whole, "lib", 3) == 0;

        if (outside || (is_below(whole, guarded, BLY_LEN(guarded)) &&
                        !is_below(whole, reopened, BLY_LEN(reopened))))
            end = mempcpy(end, whole, n);
        whole += n;
    }
    return kept;
}

void yard_assert_guarded(const struct yard *yard)
{
    bly_autofree char *now = tree_list(yard->dir, 0);
    bly_autofree char *was_guarded = yard_guarded(yard->whole);
    bly_autofree char *is_guarded = yard_guarded(now);
    bly_autofree char *difference = tree_difference(was_guarded, is_guarded);

    if (difference)
        fail_msg("%s", difference);
}

void yard_bring_program(const struct yard *yard, const char *from, const char *name, mode_t mode)
{
    bly_autofd int in = open(from, O_RDONLY | O_CLOEXEC);
    bly_autofd int out =
        open(yard_path(yard, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    struct stat st;

    assert_true(in >= 0 && out >= 0);
    assert_int_equal(fstat(in, &st), 0);
    for (off_t at = 0; at < st.st_size;)
        assert_true(sendfile(out, in, &at, (size_t)(st.st_size - at)) > 0);
    if (mode & S_ISUID)
        assert_int_equal(fchown(out, 65534, 65534), 0);
    assert_int_equal(fchmod(out, mode), 0);
}
