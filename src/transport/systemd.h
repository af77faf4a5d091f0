#pragma once

/*
 * What systemd hands over, and what it wants to hear (sd_listen_fds(3), sd_notify(3)); a few lines
 * instead of a library. Call before there are other threads: the environment changes.
 */
#include <stddef.h>

struct bly_err;

enum {
    BLY_PASSED_MAX = 64,
    BLY_NOTIFY_PATH_MAX = 108,
};

struct bly_systemd {
    int fds[BLY_PASSED_MAX]; /* listening stream sockets, close-on-exec, none below 10 */
    size_t n_fds;
    char notify[BLY_NOTIFY_PATH_MAX]; /* $NOTIFY_SOCKET; "": nobody wants to know */
};

/*
 * Takes descriptors and variables away, so that no program we start sees them. Descriptors that are
 * meant for another process are not touched. 0; a negative errno with `err`: something was passed
 * that is no listening stream socket, or the numbers make no sense.
 */
int bly_systemd_take(struct bly_systemd *ret_systemd, struct bly_err *err);

/* Closes the descriptors that are still there. */
void bly_systemd_deinit(struct bly_systemd *systemd);

/* Sends "READY=1", say. Whether anybody listens makes no difference. */
void bly_systemd_notify(const struct bly_systemd *systemd, const char *state);
