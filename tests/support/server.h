#pragma once

/*
 * A real server for a black-box test: its own process, directory and port; server_stop() ends it
 * and removes the directory. Not thread-safe; test failures are cmocka's.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "bailey/client.h"

struct server {
    pid_t pid;     /* 0 over stdio */
    char *dir;     /* fresh, canonical, mode 0755; holds run/, the server's working directory */
    char url[128]; /* "" over stdio */
    struct bly_client *client; /* connected */
};

/*
 * Starts $BAILEY exec-server on $BLY_TEST_TRANSPORT ("ws", which is the default, "unix" or "stdio")
 * with the extra arguments (NULL-terminated, may be NULL), TMPDIR unset,
 * and connects. The directory is not below /tmp, which workspace-write policies make writable.
 * Fails the test when it cannot.
 */
struct server *server_start(const char *const *extra_args);

/* Ends it: SIGINT, and asserts that it went with status 0 and left no child behind. NULL is fine.
 */
void server_stop(struct server *server);

/* The test has killed and reaped it itself: only what belongs to it here goes. */
void server_forget(struct server *server);

/* "DIR/NAME", malloc'ed, kept until server_stop(). printf-like. */
const char *server_path(struct server *server, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Helpers on the host's own disk; they fail the test when they cannot. Parents are created. */
void disk_write(const char *path, const char *text);
void disk_mkdir(const char *path);
void disk_symlink(const char *target, const char *path);
char *disk_read(const char *path);  /* NULL when there is nothing; malloc'ed */
bool disk_exists(const char *path); /* lstat */
void disk_remove_tree(const char *path);
