#pragma once

/*
 * Ways to a server: a TCP or Unix socket, or a child that speaks on its standard input and output.
 * All end in a connected stream socket, non-blocking and close-on-exec. Any thread.
 */
#include <stdint.h>
#include <sys/types.h>

struct bly_err;

/* What the upgrade request has to name. */
struct bly_target {
    char host[256], port[8], path[1024];
};

/* Milliseconds on the clock deadlines are measured by. */
uint64_t bly_connect_now_ms(void);

/* Waits for poll(2) events; returns what came, or -ETIMEDOUT. */
int bly_connect_wait(int fd, short events, uint64_t deadline_ms, struct bly_err *err);

/* "ws://HOST:PORT[/path]" or "unix:///PATH". 0; a negative errno with `err`. */
int bly_connect_url(const char *url, uint64_t deadline_ms, struct bly_target *ret_target,
                    int *ret_fd, struct bly_err *err);

/* Starts a program (looked up in PATH) with the socket as its stdin and stdout. The child is the
 * caller's to reap. 0; a negative errno with `err`. */
int bly_connect_child(const char *const *argv, int *ret_fd, pid_t *ret_pid, struct bly_err *err);

/* Waits for a child that has reason to end, and kills it when it does not. Its wait status; -1 when
 * it had to be killed. */
int bly_connect_reap(pid_t pid, uint64_t timeout_ms);
