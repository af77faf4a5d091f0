#include "unit/launcher/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/err.h"

enum { LIMIT_MS = 20000, TICK_MS = 10 };

void fixture_main(int argc, char **argv, bly_helper_fn helper_main)
{
    if (argc > 1 && strcmp(argv[1], BLY_LAUNCHER_ARG) == 0)
        exit(bly_launcher_main(helper_main));
}

static void on_death(void *arg)
{
    struct fixture *fixture = arg;

    fixture->launcher_died = true;
}

static int setup(void **state, const struct bly_runtime_paths *paths)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct bly_err err;

    if (fixture == NULL)
        return -1;
    fixture->param = *state;
    fixture->dir = strdup("/tmp/bailey-test-XXXXXX");
    if (mkdtemp(fixture->dir) == NULL || chmod(fixture->dir, 0755) < 0 ||
        uv_loop_init(&fixture->loop) < 0)
        return -1;
    if (bly_launcher_start(&fixture->loop, paths, NULL, on_death, fixture, &fixture->launcher,
                           &err) < 0) {
        print_error("%s\n", err.text);
        return -1;
    }
    *state = fixture;
    return bly_spawner_new(fixture->launcher, &fixture->spawner);
}

int fixture_setup(void **state)
{
    static const struct bly_runtime_paths paths = {.self_exe = "/proc/self/exe"};

    return setup(state, &paths);
}

int fixture_setup_with(void **state, const char *launcher_exe)
{
    const struct bly_runtime_paths paths = {.self_exe = launcher_exe};

    return setup(state, &paths);
}

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

static void on_tick(uv_timer_t *timer)
{
    --*(int *)timer->data;
}

/* True when it came true in time. */
static bool turn_until(struct fixture *fixture, bool (*check)(void *arg), void *arg)
{
    uv_timer_t timer;
    int ticks = LIMIT_MS / TICK_MS;

    /* It ticks because UV_RUN_ONCE goes on to wait after timers that may have met the condition. */
    (void)uv_timer_init(&fixture->loop, &timer);
    timer.data = &ticks;
    (void)uv_timer_start(&timer, on_tick, TICK_MS, TICK_MS);
    while (!check(arg) && ticks > 0)
        (void)uv_run(&fixture->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    (void)uv_run(&fixture->loop, UV_RUN_NOWAIT);
    return ticks > 0;
}

static bool is_set(void *arg)
{
    return *(const bool *)arg;
}

void fixture_wait_for(struct fixture *fixture, bool (*check)(void *arg), void *arg)
{
    assert_true(turn_until(fixture, check, arg));
}

void fixture_wait(struct fixture *fixture, const bool *condition)
{
    assert_true(turn_until(fixture, is_set, (void *)(uintptr_t)condition));
}

void fixture_close_spawner(struct fixture *fixture)
{
    bool closed = false;

    bly_spawner_close(fixture->spawner, set_true, &closed);
    fixture->spawner = NULL;
    fixture_wait(fixture, &closed);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int fixture_teardown(void **state)
{
    struct fixture *fixture = *state;
    bool closed = false;
    bool ok;

    if (fixture->spawner != NULL)
        bly_spawner_close(fixture->spawner, set_true, &closed);
    else
        closed = true;
    ok = turn_until(fixture, is_set, &closed);
    closed = false;
    bly_launcher_close(fixture->launcher, set_true, &closed);
    ok = turn_until(fixture, is_set, &closed) && ok;
    ok = uv_run(&fixture->loop, UV_RUN_NOWAIT) == 0 && ok;
    ok = uv_loop_close(&fixture->loop) == 0 && ok;
    if (!ok)
        print_error("something is left on the loop\n");
    if (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD) {
        print_error("a child is left\n");
        ok = false;
    }
    (void)nftw(fixture->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(fixture->dir);
    free(fixture);
    return ok ? 0 : -1;
}

char *fixture_path(const struct fixture *fixture, const char *name)
{
    char *path = NULL;

    assert_true(asprintf(&path, "%s/%s", fixture->dir, name) > 0);
    return path;
}

size_t count_open_fds(void)
{
    size_t n = 0;

    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            n++;
    return n;
}

bool pid_exists(int pid)
{
    char path[64];
    char text[512] = "";
    bly_autofd int fd = -EBADF;
    const char *at;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
        return false;
    at = strrchr(text, ')');
    return at != NULL && at[2] != 'Z' && at[2] != 'X';
}
