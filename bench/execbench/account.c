#include "execbench/account.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "support.h"

enum { TEXT_BYTES = 4096, TREE_MAX = 32768, REMOVE_TRIES = 50, REMOVE_PAUSE_US = 20000 };

struct process {
    pid_t pid, parent;
    double ticks; /* of its own and of the children it has waited for */
};

/* A file's beginning as a string; "" when it cannot be read. */
static const char *read_text(const char *path, char text[TEXT_BYTES])
{
    bly_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, TEXT_BYTES - 1);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static const char *read_process(pid_t pid, const char *name, char text[TEXT_BYTES])
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    return read_text(path, text);
}

/* The number behind "KEY" at the beginning of a line; -1 without one. */
static long find_number(const char *text, const char *key)
{
    size_t len = strlen(key);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) == 0)
            return strtol(line + len + strspn(line + len, ": \t"), NULL, 10);
    }
    return -1;
}

/* ---- processes ---- */

static bool read_stat(pid_t pid, struct process *ret)
{
    char text[TEXT_BYTES];
    const char *rest = strrchr(read_process(pid, "stat", text), ')');
    unsigned long user, kernel;
    long waited_user, waited_kernel;
    int parent;

    /* Fields 4 and 14 to 17 of proc(5). */
    if (!rest || sscanf(rest + 2, "%*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld",
                        &parent, &user, &kernel, &waited_user, &waited_kernel) != 5)
        return false;
    *ret = (struct process){
        pid, parent, (double)user + (double)kernel + (double)waited_user + (double)waited_kernel};
    return true;
}

static size_t read_all(struct process *all)
{
    DIR *dir = opendir("/proc");
    const struct dirent *entry;
    size_t n = 0;

    if (!dir)
        return 0;
    while (n < TREE_MAX && (entry = readdir(dir))) {
        if (isdigit((unsigned char)entry->d_name[0]) &&
            read_stat((pid_t)strtol(entry->d_name, NULL, 10), &all[n]))
            n++;
    }
    (void)closedir(dir);
    return n;
}

static void swap(struct process *a, struct process *b)
{
    struct process kept = *a;

    *a = *b;
    *b = kept;
}

static bool has_process(const struct process *list, size_t n, pid_t pid)
{
    for (size_t i = 0; i < n; i++) {
        if (list[i].pid == pid)
            return true;
    }
    return false;
}

/* The root and its descendants; the caller frees *ret_tree. */
static size_t read_tree(pid_t root, struct process **ret_tree)
{
    struct process *all = bench_alloc(TREE_MAX, sizeof(*all));
    size_t n = read_all(all), n_tree = 0, before;

    for (size_t i = 0; i < n && n_tree == 0; i++) {
        if (all[i].pid == root)
            swap(&all[n_tree++], &all[i]);
    }
    /* Members are in front; each pass adds the children of those found so far. */
    do {
        before = n_tree;
        for (size_t i = n_tree; i < n && n_tree > 0; i++) {
            if (has_process(all, n_tree, all[i].parent))
                swap(&all[n_tree++], &all[i]);
        }
    } while (n_tree > before);
    *ret_tree = all;
    return n_tree;
}

static bool runs(pid_t pid, const char *file)
{
    char path[64], program[TEXT_BYTES];
    ssize_t n;

    (void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    n = readlink(path, program, sizeof(program) - 1);
    program[n > 0 ? n : 0] = '\0';
    return strcmp(program, file) == 0;
}

static void add_memory(pid_t pid, struct account_tree *tree)
{
    char text[TEXT_BYTES];
    long pss, rss;

    (void)read_process(pid, "smaps_rollup", text);
    pss = find_number(text, "Pss");
    rss = find_number(text, "Rss");
    tree->pss_kib += pss > 0 ? pss : 0;
    tree->rss_kib += rss > 0 ? rss : 0;
}

void account_tree(pid_t root, const char *payload, struct account_tree *ret_tree)
{
    bly_autofree struct process *tree = NULL;
    size_t n = read_tree(root, &tree);

    *ret_tree = (struct account_tree){0};
    for (size_t i = 0; i < n; i++) {
        if (payload && runs(tree[i].pid, payload)) {
            ret_tree->n_asleep++;
            continue;
        }
        ret_tree->n_helpers += tree[i].pid != root;
        add_memory(tree[i].pid, ret_tree);
    }
}

long account_status(pid_t pid, const char *key)
{
    char text[TEXT_BYTES];

    return find_number(read_process(pid, "status", text), key);
}

void account_reset_peak(pid_t pid)
{
    char path[64];
    bly_autofd int fd = -EBADF;

    (void)snprintf(path, sizeof(path), "/proc/%d/clear_refs", (int)pid);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "5", 1) < 0)
        return; /* without CONFIG_PROC_PAGE_MONITOR the peak is that of the whole life */
}

unsigned account_fds(pid_t pid)
{
    char path[64];
    unsigned n = 0;
    DIR *dir;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    if (!dir)
        return 0;
    while (readdir(dir))
        n++;
    (void)closedir(dir);
    return n - 2; /* "." and ".." */
}

/* ---- processor time ---- */

/* The hierarchy that counts processor time; false without one. */
static bool find_hierarchy(char path[ACCOUNT_PATH_MAX], bool *ret_is_v1)
{
    FILE *file = setmntent("/proc/mounts", "re");
    struct mntent entry;
    char text[TEXT_BYTES];

    path[0] = '\0';
    *ret_is_v1 = false;
    while (file && !*ret_is_v1 && getmntent_r(file, &entry, text, sizeof(text))) {
        bool is_v1 = strcmp(entry.mnt_type, "cgroup") == 0 && hasmntopt(&entry, "cpuacct");

        if (!is_v1 && strcmp(entry.mnt_type, "cgroup2") != 0)
            continue;
        *ret_is_v1 = is_v1;
        (void)snprintf(path, ACCOUNT_PATH_MAX, "%s", entry.mnt_dir);
    }
    if (file)
        (void)endmntent(file);
    return path[0];
}

void account_group_make(struct account_group *group)
{
    static unsigned n_groups;
    char hierarchy[ACCOUNT_PATH_MAX];

    *group = (struct account_group){0};
    if (!find_hierarchy(hierarchy, &group->is_v1))
        return;
    int len = snprintf(group->path, sizeof(group->path), "%s/execbench.%d.%u", hierarchy,
                       (int)getpid(), n_groups++);

    if (len >= (int)sizeof(group->path) || mkdir(group->path, 0755) < 0)
        group->path[0] = '\0';
}

void account_group_remove(struct account_group *group)
{
    /* Busy until the last one in it has been reaped by whoever is its parent now. */
    for (int i = 0; group->path[0] && i < REMOVE_TRIES && rmdir(group->path) < 0; i++)
        (void)usleep(REMOVE_PAUSE_US);
    group->path[0] = '\0';
}

static double group_cpu_us(const struct account_group *group)
{
    char path[ACCOUNT_PATH_MAX + 32], text[TEXT_BYTES];

    (void)snprintf(path, sizeof(path), "%s/%s", group->path,
                   group->is_v1 ? "cpuacct.usage" : "cpu.stat");
    (void)read_text(path, text);
    return group->is_v1 ? (double)strtoull(text, NULL, 10) / 1e3
                        : (double)find_number(text, "usage_usec");
}

double account_cpu_us(const struct account_group *group, pid_t root)
{
    bly_autofree struct process *tree = NULL;
    double ticks = 0;

    if (group->path[0])
        return group_cpu_us(group);
    size_t n = read_tree(root, &tree);

    for (size_t i = 0; i < n; i++)
        ticks += tree[i].ticks;
    return ticks * 1e6 / (double)sysconf(_SC_CLK_TCK);
}

static double in_us(struct timeval time)
{
    return (double)time.tv_sec * 1e6 + (double)time.tv_usec;
}

double account_own_cpu_us(void)
{
    struct rusage usage;

    (void)getrusage(RUSAGE_SELF, &usage);
    return in_us(usage.ru_utime) + in_us(usage.ru_stime);
}
