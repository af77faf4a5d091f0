#pragma once

/*
 * Control groups (cgroup v2) for walled programs, one each. Below a group that is ours to divide
 * (delegated) the launcher makes one of its own, `bailey-PID`, locked (flock) for as long as
 * anything of this server lives; spawners make `wall-OWNER-N` in there, OWNER being the spawner's
 * process id. Where the delegated group is the one the server runs in, server, launcher and
 * spawners move to `bailey-PID/self`: a group that is divided may hold no processes itself.
 *
 * Single-threaded processes only: launcher, spawner, doctor. Nothing blocks for long.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct bly_err;

struct bly_cgroup_max {
    uint64_t tasks;        /* processes and threads; 0: no bound */
    uint64_t memory_bytes; /* 0: no bound */
};

struct bly_cgroup {
    int parent_fd; /* the delegated group; -EBADF: none is open */
    int fd;        /* ours in it */
    char name[48]; /* of ours */
    bool moved;    /* we run in `self` below it */
    bool divided;  /* it was us who divided the delegated group */
    pid_t server;  /* moved along; 0: none */
};

/*
 * Opens `path`, or with NULL the group this process runs in, removes what servers that are gone
 * have left there, makes ours and tries it: a process is started in a group of its own, where it
 * must run into `max`. `server` (0: none) is moved along if need be. Returns 0 and the caller
 * closes; negative errno with `err` saying what is missing: everything is as it was before.
 */
int bly_cgroup_open(const char *path, const struct bly_cgroup_max *max, pid_t server,
                    struct bly_cgroup *ret_cgroup, struct bly_err *err);

/* Removes what is empty, ours included, and moves back; what cannot be removed stays. Harmless when
 * nothing is open. */
void bly_cgroup_close(struct bly_cgroup *cgroup);

/* Makes the group of wall number `n` of this process, with its bounds, below `fd` (of a struct
 * bly_cgroup). 0 and a descriptor for bly_cgroup_clone(), or a negative errno and nothing is left.
 */
int bly_cgroup_add(int fd, uint64_t n, const struct bly_cgroup_max *max, int *ret_fd,
                   struct bly_err *err);

/* clone(2) with `flags` and SIGCHLD, born in the group: there is no moment outside. Errno is set.
 */
pid_t bly_cgroup_clone(int group_fd, uint64_t flags);

/* Kills what is in it and removes it. -EBUSY while something in it is dying: bly_cgroup_sweep()
 * gets it later. */
int bly_cgroup_remove(int fd, uint64_t n);

/* Removes every empty group of owners that `keep` (NULL: none) does not want kept. True: some could
 * not be removed yet. */
bool bly_cgroup_sweep(int fd, bool (*keep)(void *arg, pid_t owner), void *arg);
