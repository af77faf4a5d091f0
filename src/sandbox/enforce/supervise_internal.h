#pragma once

/*
 * Between the files of supervised creation (supervise.h, which says what it is about). One thread,
 * that of pid 1 of the wall; nothing here blocks. Functions return 0 or a negative errno, which is
 * what the caller of the reported call is told.
 *
 * supervise.c: which calls are reported, the life of a supervisor, receiving and answering.
 * supervise_walk.c: who the caller is and what it says, where a path leads, and the decision.
 * supervise_names.c: the calls that make or move names, but for those in
 * supervise_open.c: open with O_CREAT, which may find something there.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "sandbox/enforce/supervise.h"

enum {
    BLY_PATH_ROOM = PATH_MAX, /* with its NUL */
    BLY_MAX_BLOCKED = 64,     /* opens of FIFOs that wait for their other end */
    BLY_ANSWERED = 1,         /* outcome of a handler: the caller has its answer already */
};

/* A name that must not come into being in a directory, whatever path leads there. */
struct bly_guard {
    dev_t dev;
    ino_t ino;
    bool fold;  /* the directory folds case, or might */
    char *name; /* with `fold` in the form of base/casefold.h */
};

struct bly_supervisor {
    struct bly_guard *guards;
    size_t n_guards;
    struct seccomp_notif *notif; /* as large as this kernel wants them */
    struct seccomp_notif_resp *resp;
    size_t notif_size, resp_size;
    int root_fd;
    int proc_fd;
    bool has_refused;
    pid_t blocked[BLY_MAX_BLOCKED];
};

/* One reported call while it is being answered. */
struct bly_reported {
    struct bly_supervisor *supervisor;
    int listener_fd;
    uint64_t id;
    pid_t tid;
    pid_t tgid;
    mode_t umask;
    long nr;
    const uint64_t *args;
};

/* Whether a call names a directory in front of each path, as mkdirat() does, or does not. */
enum bly_shape { BLY_SHAPE_AT, BLY_SHAPE_PLAIN };

/* ---- supervise.c ---- */

/* Ends the call with `r`. Nothing goes wrong when the caller was killed meanwhile. */
int bly_reported_answer(const struct bly_reported *call, int r);

/* ---- supervise_walk.c: the caller ---- */

/* Thread group and umask of the caller, from /proc/TID/status (proc_pid_status(5)). */
int bly_reported_learn(struct bly_reported *call);
/* Answers `r` because the wall says no: evidence for whoever asks why the program failed. */
int bly_reported_refuse(const struct bly_reported *call, int r);
/*
 * The caller is still there and still waits for us: what was read under its id was really its own.
 */
bool bly_reported_still_waits(const struct bly_reported *call);
/* Opens an entry of the caller's directory in /proc; returns the descriptor. */
int bly_reported_open(const struct bly_reported *call, const char *what, int flags);
/* Copies bytes of the caller once. Returns how many could be read before something unmapped. */
ssize_t bly_reported_memory(const struct bly_reported *call, uint64_t address, void *data,
                            size_t len);
/* A path argument, copied once; only the copy is judged and used. */
int bly_reported_path(const struct bly_reported *call, uint64_t address,
                      char path[static BLY_PATH_ROOM]);
/* Where a relative path begins: the argument at `index`, a descriptor of the caller, if there is
 * one. */
static inline int bly_reported_dirfd(const struct bly_reported *call, enum bly_shape shape,
                                     int index)
{
    return shape == BLY_SHAPE_AT ? (int)call->args[index] : AT_FDCWD;
}

/* ---- supervise_walk.c: paths ---- */

/* Where a path leads: a name in a directory and, when it was followed, what is there. */
struct bly_goal {
    int parent_fd;           /* O_PATH */
    char name[NAME_MAX + 2]; /* perhaps with one trailing slash, as the caller wrote it */
    int target_fd;           /* O_PATH | O_NOFOLLOW; -EBADF: nothing there */
    struct stat target;
    char rest[BLY_PATH_ROOM]; /* not walked yet */
    unsigned n_links;
};

void bly_goal_deinit(struct bly_goal *goal);
#define bly_autogoal __attribute__((cleanup(bly_goal_deinit)))
#define BLY_GOAL_INIT                            \
    {                                            \
        .parent_fd = -EBADF, .target_fd = -EBADF \
    }

/*
 * Walks to the last component. With `follow` a symlink there is followed too, and target_fd is set
 * when something is there; without, the name is left as it is.
 */
int bly_goal_find(struct bly_reported *call, int dirfd, const char *path, bool follow,
                  struct bly_goal *goal);
/*
 * 0, or -EROFS: what a read-only mount of the name would answer, if there were something to mount
 * on.
 */
int bly_goal_judge(const struct bly_reported *call, const struct bly_goal *goal);
/* Walks a path argument to the name it would create, and decides. */
int bly_goal_find_new(struct bly_reported *call, int dirfd, uint64_t address,
                      struct bly_goal *goal);

/* ---- supervise_names.c and supervise_open.c: what is done on the caller's behalf ---- */

int bly_on_mkdir(struct bly_reported *call, enum bly_shape shape);
int bly_on_mknod(struct bly_reported *call, enum bly_shape shape);
int bly_on_symlink(struct bly_reported *call, enum bly_shape shape);
int bly_on_link(struct bly_reported *call, enum bly_shape shape);
int bly_on_rename(struct bly_reported *call, enum bly_shape shape);
int bly_on_bind(struct bly_reported *call, enum bly_shape shape);
int bly_on_open(struct bly_reported *call, enum bly_shape shape); /* also BLY_ANSWERED */
