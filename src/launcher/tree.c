#include "launcher/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"

enum { CHILDREN_MAX = 64 << 20, PASS_MS = 50 };

static int read_all(int fd, struct bly_buf *buf)
{
    for (;;) {
        ssize_t n;

        if (bly_buf_reserve(buf, 4096) < 0)
            return buf->error;
        n = read(fd, buf->data + buf->len, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        buf->len += (size_t)n;
    }
}

struct pids {
    pid_t *pid;
    size_t n, cap;
};

static int pids_add(struct pids *pids, pid_t pid)
{
    if (pids->n == pids->cap) {
        size_t cap = pids->cap > 0 ? pids->cap * 2 : 64;
        pid_t *grown = reallocarray(pids->pid, cap, sizeof(*grown));

        if (grown == NULL)
            return -ENOMEM;
        pids->pid = grown;
        pids->cap = cap;
    }
    pids->pid[pids->n++] = pid;
    return 0;
}

/* The kernel keeps this list where it is built with CONFIG_PROC_CHILDREN. */
static int from_children_file(struct pids *pids)
{
    char path[64];
    bly_autofd int fd = -EBADF;
    bly_autobuf struct bly_buf text;
    int r;

    bly_buf_init(&text, CHILDREN_MAX);
    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = read_all(fd, &text);
    if (r == 0)
        r = bly_buf_add_char(&text, '\0');
    if (r < 0)
        return r;

    for (char *at = (char *)text.data, *end; r == 0; at = end) {
        long pid = strtol(at, &end, 10);

        if (end == at)
            break;
        r = pids_add(pids, (pid_t)pid);
    }
    return r;
}

static pid_t parent_of(int proc_fd, const char *name)
{
    char path[300];
    char stat[512];
    bly_autofd int fd = -EBADF;
    ssize_t n;
    const char *at;

    (void)snprintf(path, sizeof(path), "%s/stat", name);
    fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, stat, sizeof(stat) - 1);
    if (n <= 0)
        return -1;
    stat[n] = '\0';
    /* "pid (name) state ppid": the name may hold anything, also a closing bracket. */
    at = strrchr(stat, ')');
    return at == NULL || strlen(at) < 4 ? -1 : (pid_t)strtol(at + 4, NULL, 10);
}

static int from_scan(struct pids *pids)
{
    DIR *proc = opendir("/proc");
    pid_t self = getpid();
    int r = 0;

    if (proc == NULL)
        return -errno;
    for (struct dirent *e; r == 0 && (e = readdir(proc)) != NULL;) {
        if (e->d_name[0] < '1' || e->d_name[0] > '9')
            continue;
        if (parent_of(dirfd(proc), e->d_name) == self)
            r = pids_add(pids, (pid_t)strtol(e->d_name, NULL, 10));
    }
    (void)closedir(proc);
    return r;
}

int bly_tree_children(pid_t **ret_pids, size_t *ret_n)
{
    struct pids pids = {0};
    int r = from_children_file(&pids);

    if (r < 0 && r != -ENOMEM) {
        pids.n = 0;
        r = from_scan(&pids);
    }
    if (r < 0) {
        free(pids.pid);
        return r;
    }
    *ret_pids = pids.pid;
    *ret_n = pids.n;
    return 0;
}

int bly_tree_kill(bool (*keep)(void *arg, pid_t pid), void *arg)
{
    bly_autofree pid_t *pids = NULL;
    size_t n = 0;
    int killed = 0;
    int r = bly_tree_children(&pids, &n);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        if (keep != NULL && keep(arg, pids[i]))
            continue;
        (void)kill(pids[i], SIGKILL);
        killed++;
    }
    return killed;
}

static int64_t now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void wait_for_death(void)
{
    const struct timespec pass = {.tv_nsec = PASS_MS * 1000000L};
    sigset_t set;

    /* SIGCHLD is blocked in every process of ours that has children. */
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigtimedwait(&set, NULL, &pass);
}

int bly_tree_end(unsigned max_ms, void (*reaped)(void *arg, pid_t pid, int status), void *arg)
{
    int64_t deadline = now_ms() + max_ms;

    do {
        int status;
        pid_t pid;

        (void)bly_tree_kill(NULL, NULL);
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
            reaped(arg, pid, status);
        if (pid < 0)
            return 0;
        wait_for_death();
    } while (now_ms() < deadline);
    return -ETIMEDOUT;
}
