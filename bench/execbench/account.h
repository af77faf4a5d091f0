#pragma once

/*
 * What a server and everything it has started use: processor time and memory. Any process may come
 * and go meanwhile; what cannot be read counts as nothing. One thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { ACCOUNT_PATH_MAX = 300 };

/*
 * A cgroup that only counts processor time, exactly, also of those that have ended. Where none can
 * be made (that takes root) /proc is read instead, in ticks, and those that have ended count only
 * when their parent has waited for them.
 */
struct account_group {
    char path[ACCOUNT_PATH_MAX]; /* "": there is none */
    bool is_v1;
};

void account_group_make(struct account_group *group);
void account_group_remove(struct account_group *group); /* once all in it have ended */

/* Processor time so far in microseconds, of the group or of `root` and its descendants. */
double account_cpu_us(const struct account_group *group, pid_t root);
/* Of this process. */
double account_own_cpu_us(void);

struct account_tree {
    long pss_kib, rss_kib;
    unsigned n_helpers; /* processes beside the root */
    unsigned n_asleep;  /* those that run `payload`; their memory is not counted */
};

/* `payload` is the file of programs that are the client's own; NULL: there are none. */
void account_tree(pid_t root, const char *payload, struct account_tree *ret_tree);

long account_status(pid_t pid, const char *key); /* a number of /proc/PID/status; -1 */
void account_reset_peak(pid_t pid);              /* VmHWM starts again */
unsigned account_fds(pid_t pid);
