/*
 * Says what this machine can enforce. Nothing is believed that can be tried: namespaces are made,
 * walls are built, calls are made. What is read from /proc and /sys only explains.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/limits.h"
#include "cli/cli.h"
#include "launcher/bounds.h"
#include "launcher/probe.h"
#include "sandbox/enforce/wall.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"

enum {
    VALUE_MAX = 400,
    REPORT_BYTES_MAX = 1 << 20,
    FEW_WATCHES = 8192,
    FEW_INSTANCES = 128,
    FEW_DESCRIPTORS = 4096,
};

enum state {
    GOOD,
    NOTE, /* worth knowing */
    BAD,  /* missing, and something depends on it */
};

struct check {
    enum state state;
    char value[VALUE_MAX];                    /* what was found */
    char cost[BLY_FIX_MAX], fix[BLY_FIX_MAX]; /* "": those of its row in the table */
};

#define INSTALL_PROFILE                                                    \
    "install packaging/apparmor/bailey as /etc/apparmor.d/bailey and run " \
    "apparmor_parser -r /etc/apparmor.d/bailey"

struct doctor {
    struct bly_features features;
    struct bly_err prepare_err; /* kind NONE: filters can be compiled */
};

/* ---- finding out ---------------------------------------------------------------------------- */

/* The first line of a small file of /proc or /sys. False: there is none. */
static bool read_line(const char *path, char *text, size_t size)
{
    bly_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

    if (n < 0)
        return false;
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return true;
}

/* -1: there is no such setting. */
static long long read_number(const char *path)
{
    char text[64];

    return read_line(path, text, sizeof(text)) ? strtoll(text, NULL, 10) : -1;
}

static void judge(struct check *check, enum state state, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void judge(struct check *check, enum state state, const char *fmt, ...)
{
    va_list args;

    check->state = state;
    va_start(args, fmt);
    (void)vsnprintf(check->value, sizeof(check->value), fmt, args);
    va_end(args);
}

/* Runs `look` in a child born with `flags`; 0 or the errno that stood in the way. */
static int try_in_child(unsigned long flags, int (*look)(void))
{
    pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0UL, 0UL, 0UL, 0UL);
    int status;

    if (pid == 0)
        _exit(look());
    if (pid < 0)
        return errno;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

static int nothing(void)
{
    return 0;
}

static void check_namespace(const struct doctor *doctor, struct check *check, unsigned long flags)
{
    int r = try_in_child(flags, nothing);

    if (r == 0)
        judge(check, GOOD, "can be made");
    else
        judge(check, BAD, "%s", bly_errno_text(r));
    (void)snprintf(check->fix, sizeof(check->fix), "%s", doctor->features.fix);
}

static void check_wall(const struct doctor *doctor, struct check *check, enum bly_wall_kind kind)
{
    if (doctor->features.works[kind])
        judge(check, GOOD, "was built");
    else
        judge(check, BAD, "%s", doctor->features.why_not[kind]);
    if (kind != BLY_WALL_LANDLOCK && kind != BLY_WALL_SUPERVISION)
        (void)snprintf(check->fix, sizeof(check->fix), "%s", doctor->features.fix);
}

/* ---- the checks ----------------------------------------------------------------------------- */

static void kernel(const struct doctor *doctor, struct check *check)
{
    struct utsname name;

    (void)doctor;
    if (uname(&name) < 0)
        judge(check, NOTE, "unknown");
    else
        judge(check, GOOD, "%s %s %s", name.sysname, name.release, name.machine);
}

static void user(const struct doctor *doctor, struct check *check)
{
    (void)doctor;
    if (geteuid() != 0)
        judge(check, GOOD, "uid %u", geteuid());
    else
        judge(check, NOTE,
              "root: programs without a wall run as root, and walled ones own its files");
}

static void outer_filter(const struct doctor *doctor, struct check *check)
{
    char text[4096];
    bly_autofd int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    (void)doctor;
    text[n < 0 ? 0 : n] = '\0';
    if (strstr(text, "\nSeccomp:\t2\n"))
        judge(check, NOTE, "somebody's, as in a container");
    else
        judge(check, GOOD, "none");
}

static void root_directory(const struct doctor *doctor, struct check *check)
{
    if (bly_probe_chrooted())
        judge(check, BAD, "a chroot");
    else
        judge(check, GOOD, "no chroot");
    (void)snprintf(check->fix, sizeof(check->fix), "%s", doctor->features.fix);
}

static void user_namespaces(const struct doctor *doctor, struct check *check)
{
    check_namespace(doctor, check, CLONE_NEWUSER);
}

static void mount_namespaces(const struct doctor *doctor, struct check *check)
{
    check_namespace(doctor, check, CLONE_NEWUSER | CLONE_NEWNS);
}

static void pid_namespaces(const struct doctor *doctor, struct check *check)
{
    check_namespace(doctor, check, CLONE_NEWUSER | CLONE_NEWPID);
}

static void net_namespaces(const struct doctor *doctor, struct check *check)
{
    check_namespace(doctor, check, CLONE_NEWUSER | CLONE_NEWNET);
}

static void max_user_namespaces(const struct doctor *doctor, struct check *check)
{
    long long n = read_number("/proc/sys/user/max_user_namespaces");

    (void)doctor;
    judge(check, n == 0 ? BAD : GOOD, n < 0 ? "no such setting" : "%lld", n);
}

static void unprivileged_clone(const struct doctor *doctor, struct check *check)
{
    long long n = read_number("/proc/sys/kernel/unprivileged_userns_clone");

    (void)doctor;
    judge(check, n == 0 && geteuid() != 0 ? BAD : GOOD, n < 0 ? "no such setting" : "%lld", n);
}

/* The profile belongs to a path, and we might live somewhere else. */
static bool profile_is_for(const char *program)
{
    return strcmp(program, "/usr/bin/bailey") == 0 || strcmp(program, "/usr/local/bin/bailey") == 0;
}

static void apparmor(const struct doctor *doctor, struct check *check)
{
    long long n = read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    char profile[128] = "unconfined", program[256];
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);

    program[len < 0 ? 0 : len] = '\0';
    (void)read_line("/proc/self/attr/current", profile, sizeof(profile));
    if (n != 1)
        judge(check, GOOD, "%s", n < 0 ? "no such restriction" : "off");
    else if (doctor->features.works[BLY_WALL_HELPER] || geteuid() == 0 ||
             strcmp(profile, "unconfined") != 0)
        judge(check, GOOD, "on, and does not apply here (profile %s)", profile);
    else
        judge(check, BAD, "on (profile %s of %s)", profile, program);
    if (check->state == BAD && !profile_is_for(program))
        (void)snprintf(
            check->fix, sizeof(check->fix), "%s",
            "write the path of this program into packaging/apparmor/bailey, " INSTALL_PROFILE);
}

static int call_mount_interface(void)
{
    static const long calls[] = {SYS_fsopen, SYS_open_tree, SYS_mount_setattr, SYS_move_mount};

    /* Bad addresses: whoever knows the call says so. */
    for (size_t i = 0; i < BLY_LEN(calls); i++)
        if (syscall(calls[i], -1L, NULL, 0L, NULL, 0L) < 0 && (errno == ENOSYS || errno == EPERM))
            return errno;
    return 0;
}

static void mount_interface(const struct doctor *doctor, struct check *check)
{
    unsigned long flags = CLONE_NEWUSER | CLONE_NEWNS;
    int r = try_in_child(flags, nothing) == 0 ? try_in_child(flags, call_mount_interface) : -1;

    if (r != ENOSYS) /* not the kernel's age, but what is in the way of all namespaces */
        (void)snprintf(check->fix, sizeof(check->fix), "%s", doctor->features.fix);
    if (r < 0)
        judge(check, BAD, "cannot be tried: there is no mount namespace");
    else if (r == 0)
        judge(check, GOOD, "fsopen, open_tree, move_mount and mount_setattr work");
    else
        judge(check, BAD, "%s", bly_errno_text(r));
}

static void proc(const struct doctor *doctor, struct check *check)
{
    if (!doctor->features.works[BLY_WALL_PROCESS])
        judge(check, BAD, "cannot be tried: no wall stands");
    else if (doctor->features.lacks_proc)
        judge(check, BAD, "refused");
    else
        judge(check, GOOD, "can be mounted");
    if (!doctor->features.works[BLY_WALL_PROCESS])
        (void)snprintf(check->fix, sizeof(check->fix), "%s", doctor->features.fix);
}

static void landlock(const struct doctor *doctor, struct check *check)
{
    static const char *const adds[] = {"files and directories",
                                       "moving between directories",
                                       "cutting files short",
                                       "TCP",
                                       "devices",
                                       "abstract sockets and signals"};
    unsigned abi = doctor->features.landlock_abi;
    size_t n = abi < BLY_LEN(adds) ? abi : BLY_LEN(adds);

    if (!doctor->features.works[BLY_WALL_LANDLOCK]) {
        judge(check, BAD, "%s", doctor->features.why_not[BLY_WALL_LANDLOCK]);
        return;
    }
    judge(check, abi < BLY_LANDLOCK_ABI_PROCESS ? NOTE : GOOD, "ABI %u:", abi);
    (void)snprintf(check->cost, sizeof(check->cost), "programs on the second rung");
    (void)snprintf(check->fix, sizeof(check->fix), "Linux 6.12");
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(check->value);

        (void)snprintf(check->value + len, sizeof(check->value) - len, "%s %s (%zu)",
                       i == 0 ? "" : ",", adds[i], i + 1);
    }
}

static void seccomp(const struct doctor *doctor, struct check *check)
{
    if (doctor->prepare_err.kind == BLY_ERR_NONE)
        judge(check, GOOD, "filters can be installed");
    else
        judge(check, BAD, "%.*s", VALUE_MAX - 1, doctor->prepare_err.text);
}

static void notification(const struct doctor *doctor, struct check *check)
{
    check_wall(doctor, check, BLY_WALL_SUPERVISION);
    if (check->state == GOOD)
        judge(check, GOOD, "works");
}

static void check_call(struct check *check, long r, int expected, enum state otherwise)
{
    if (r >= 0 || errno == expected)
        judge(check, GOOD, "works");
    else
        judge(check, otherwise, "%s", bly_errno_text(errno));
}

static void openat2_call(const struct doctor *doctor, struct check *check)
{
    (void)doctor;
    check_call(check, syscall(SYS_openat2, -1, NULL, NULL, 0), EINVAL, NOTE);
}

static void pidfd(const struct doctor *doctor, struct check *check)
{
    bly_autofd int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    (void)doctor;
    check_call(check, fd, 0, NOTE);
    if (fd >= 0)
        check_call(check, syscall(SYS_pidfd_getfd, fd, -1, 0), EBADF, NOTE);
}

static void inotify(const struct doctor *doctor, struct check *check)
{
    long long watches = read_number("/proc/sys/fs/inotify/max_user_watches");
    long long instances = read_number("/proc/sys/fs/inotify/max_user_instances");

    (void)doctor;
    judge(check, watches < FEW_WATCHES || instances < FEW_INSTANCES ? NOTE : GOOD,
          "%lld watches, %lld instances", watches, instances);
}

static void bounds(const struct doctor *doctor, struct check *check)
{
    const struct bly_features *features = &doctor->features;

    if (features->bound == BLY_BOUND_CGROUP)
        judge(check, GOOD, "a cgroup of its own: tasks and memory");
    else if (features->bound == BLY_BOUND_NAMESPACE)
        judge(check, NOTE, "RLIMIT_NPROC in its user namespace: tasks alone (%s)",
              features->why_no_cgroup);
    else
        judge(check, NOTE, "nothing (%s)", features->why_no_cgroup);
    if (features->bound == BLY_BOUND_NAMESPACE)
        (void)snprintf(check->cost, sizeof(check->cost),
                       "nothing bounds how much memory a walled program takes");
}

static void descriptors(const struct doctor *doctor, struct check *check)
{
    struct rlimit limit = {0};

    (void)doctor;
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    judge(check, limit.rlim_max < FEW_DESCRIPTORS ? NOTE : GOOD, "%llu, at most %llu",
          (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max);
}

static void yama(const struct doctor *doctor, struct check *check)
{
    long long scope = read_number("/proc/sys/kernel/yama/ptrace_scope");

    (void)doctor;
    judge(check, GOOD, scope < 0 ? "not there" : "ptrace_scope %lld", scope);
}

static void helper_wall(const struct doctor *doctor, struct check *check)
{
    check_wall(doctor, check, BLY_WALL_HELPER);
}

static void process_wall(const struct doctor *doctor, struct check *check)
{
    check_wall(doctor, check, BLY_WALL_PROCESS);
}

static void online_wall(const struct doctor *doctor, struct check *check)
{
    check_wall(doctor, check, BLY_WALL_PROCESS_ONLINE);
}

static void network_wall(const struct doctor *doctor, struct check *check)
{
    check_wall(doctor, check, BLY_WALL_NETWORK_ONLY);
}

#define NEEDS_NAMESPACES "every wall of the first rung"

static const struct row {
    const char *id, *title;
    void (*look)(const struct doctor *doctor, struct check *check);
    const char *cost; /* what is lost without it */
    const char *fix;
} rows[] = {
    {"kernel", "kernel", kernel, NULL, NULL},
    {"user", "running as", user, NULL, "run it as an ordinary user"},
    {"outer-filter", "system call filter around us", outer_filter, NULL, NULL},
    {"root", "root directory", root_directory, NEEDS_NAMESPACES, NULL},
    {"user-namespaces", "user namespaces", user_namespaces, NEEDS_NAMESPACES, NULL},
    {"max-user-namespaces", "user.max_user_namespaces", max_user_namespaces, NEEDS_NAMESPACES,
     "sysctl -w user.max_user_namespaces=15000"},
    {"unprivileged-userns-clone", "kernel.unprivileged_userns_clone", unprivileged_clone,
     NEEDS_NAMESPACES, "sysctl -w kernel.unprivileged_userns_clone=1"},
    {"apparmor", "AppArmor's restriction of user namespaces", apparmor, NEEDS_NAMESPACES,
     INSTALL_PROFILE},
    {"mount-namespaces", "mount namespaces", mount_namespaces, NEEDS_NAMESPACES, NULL},
    {"pid-namespaces", "pid namespaces", pid_namespaces, NEEDS_NAMESPACES, NULL},
    {"net-namespaces", "network namespaces", net_namespaces, "programs without the network", NULL},
    {"mount-interface", "mounting by descriptor", mount_interface, NEEDS_NAMESPACES,
     "Linux 5.12, and a container that allows these calls"},
    {"proc", "mounting a new /proc", proc,
     "walled programs see an empty /proc, and missing protected names cannot be watched",
     "start the container with --security-opt systempaths=unconfined"},
    {"landlock", "Landlock", landlock, "the second wall, and all of the second rung",
     "Linux 5.13 with landlock in its lsm= list"},
    {"seccomp", "system call filters", seccomp, "every wall",
     "a kernel with CONFIG_SECCOMP_FILTER"},
    {"seccomp-notify", "supervised creation (seccomp user notification)", notification,
     "programs whose policy protects names that do not exist yet",
     "Linux 5.19, and a container that allows it"},
    {"openat2", "openat2", openat2_call, "a slower walk takes its place", "Linux 5.6"},
    {"pidfd", "pidfd_open, pidfd_getfd", pidfd,
     "nobody inside binds a socket to a name where missing names are protected", "Linux 5.6"},
    {"inotify", "inotify", inotify, "large trees cannot be watched",
     "sysctl -w fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024"},
    {"bounds", "what bounds a walled program", bounds,
     "nothing bounds how many processes and how much memory a walled program takes",
     "run it in a unit with Delegate=yes, or give the server a cgroup with --cgroup"},
    {"descriptors", "open files", descriptors, "fewer connections and processes",
     "raise the hard limit of RLIMIT_NOFILE"},
    {"yama", "Yama", yama, NULL, NULL},
    {"wall-files", "a whole wall around file requests", helper_wall, NULL, NULL},
    {"wall-programs", "a whole wall around a program", process_wall, NULL, NULL},
    {"wall-programs-online", "the same with the network", online_wall, NULL, NULL},
    {"wall-network", "a wall around the network alone", network_wall, NULL, NULL},
};

/* ---- what follows from it ------------------------------------------------------------------- */

#define CONTEXT(rest)                                                              \
    "{\"windowsSandboxLevel\":\"disabled\",\"permissions\":{\"type\":\"managed\"," \
    "\"network\":\"restricted\",\"file_system\":" rest "}}"
#define SPECIAL(kind, access)                                                                      \
    "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"" kind "\"}},\"access\":\"" access "\"" \
    "}"
#define ENTRIES(list) "{\"type\":\"restricted\",\"entries\":[" list "]}"

static const struct sample {
    const char *id, *title;
    enum bly_purpose purpose;
    const char *context;
} samples[] = {
    {"files-read", "file requests that only read", BLY_FOR_HELPER,
     CONTEXT(ENTRIES(SPECIAL("root", "read")))},
    {"files-write", "file requests with a writable workspace", BLY_FOR_HELPER,
     CONTEXT(ENTRIES(SPECIAL("root", "read") "," SPECIAL("slash_tmp", "write")))},
    {"programs-read", "programs that may read everything and write nothing", BLY_FOR_PROCESS,
     CONTEXT(ENTRIES(SPECIAL("root", "read")))},
    {"programs-roots", "programs that may read the system only", BLY_FOR_PROCESS,
     CONTEXT(ENTRIES(SPECIAL("minimal", "read")))},
    {"programs-write", "programs with a writable workspace", BLY_FOR_PROCESS,
     CONTEXT(ENTRIES(SPECIAL("root", "read") "," SPECIAL("slash_tmp", "write")))},
    {"programs-network", "programs that may everything but the network", BLY_FOR_PROCESS,
     CONTEXT("{\"type\":\"unrestricted\"}")},
};

/* A rung, with `err` set when it is the third. */
static int rung_of(const struct doctor *doctor, const struct sample *sample, struct bly_err *err)
{
    static const struct bly_policy_env env = {.cwd = "/"};
    struct bly_policy *policy = NULL;
    struct bly_plan *plan = NULL;
    int r = bly_policy_parse_text(sample->context, &env, &policy, err);

    if (r == 0)
        r = bly_plan_make(policy, sample->purpose, &bly_probe_disk, NULL, 0, &plan, err);
    if (r == 0)
        r = bly_rung_choose(&doctor->features, plan, err);
    (void)bly_plan_free(plan);
    (void)bly_policy_unref(policy);
    return r < 0 ? BLY_RUNG_REFUSED : r;
}

static bool is_whole(const struct doctor *doctor)
{
    return bly_rung_of_machine(&doctor->features) == BLY_RUNG_NAMESPACES &&
           doctor->features.works[BLY_WALL_SUPERVISION];
}

/* ---- saying it ------------------------------------------------------------------------------ */

static const char *fix_of(const struct row *row, const struct check *check)
{
    return check->fix[0] != '\0' ? check->fix : row->fix;
}

static const char *cost_of(const struct row *row, const struct check *check)
{
    return check->cost[0] != '\0' ? check->cost : row->cost;
}

static void say_checks(const struct doctor *doctor)
{
    static const char *const words[] = {[GOOD] = "ok", [NOTE] = "note", [BAD] = "MISSING"};

    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct check check = {0};

        rows[i].look(doctor, &check);
        (void)printf("%-8s%s: %s\n", words[check.state], rows[i].title, check.value);
        if (check.state != GOOD && cost_of(&rows[i], &check))
            (void)printf("        costs: %s\n", cost_of(&rows[i], &check));
        if (check.state != GOOD && fix_of(&rows[i], &check))
            (void)printf("        fix:   %s\n", fix_of(&rows[i], &check));
    }
}

static void say_samples(const struct doctor *doctor)
{
    static const char *const words[] = {"", "rung 1", "rung 2", "refused"};

    (void)puts("\nWhat is served, and how (1: namespaces, 2: Landlock alone):\n");
    for (size_t i = 0; i < BLY_LEN(samples); i++) {
        struct bly_err err = {0};
        int rung = rung_of(doctor, &samples[i], &err);

        (void)printf("%-8s%s\n", words[rung], samples[i].title);
        if (rung == BLY_RUNG_REFUSED)
            (void)printf("        %s\n", err.text);
    }
}

static void say(const struct doctor *doctor)
{
    say_checks(doctor);
    say_samples(doctor);
    if (is_whole(doctor))
        (void)puts("\nEverything can be enforced.");
    else if (doctor->features.fix[0] != '\0')
        (void)printf("\nTo get the first rung: %s.\n", doctor->features.fix);
    else
        (void)puts("\nNot everything can be enforced.");
}

static void add_member(struct bly_buf *buf, const char *name, const char *value)
{
    if (value == NULL)
        return;
    (void)bly_buf_printf(buf, ",\"%s\":", name);
    (void)bly_json_add_cstr(buf, value);
}

static void add_checks(const struct doctor *doctor, struct bly_buf *buf)
{
    static const char *const words[] = {[GOOD] = "ok", [NOTE] = "note", [BAD] = "missing"};

    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct check check = {0};

        rows[i].look(doctor, &check);
        (void)bly_buf_printf(buf, "%s{\"id\":\"%s\"", i == 0 ? "" : ",", rows[i].id);
        add_member(buf, "title", rows[i].title);
        add_member(buf, "state", words[check.state]);
        add_member(buf, "value", check.value);
        add_member(buf, "cost", check.state == GOOD ? NULL : cost_of(&rows[i], &check));
        add_member(buf, "fix", check.state == GOOD ? NULL : fix_of(&rows[i], &check));
        (void)bly_buf_add_str(buf, "}");
    }
}

static void add_samples(const struct doctor *doctor, struct bly_buf *buf)
{
    for (size_t i = 0; i < BLY_LEN(samples); i++) {
        struct bly_err err = {0};
        int rung = rung_of(doctor, &samples[i], &err);

        (void)bly_buf_printf(buf, "%s{\"id\":\"%s\"", i == 0 ? "" : ",", samples[i].id);
        add_member(buf, "title", samples[i].title);
        (void)bly_buf_printf(buf, ",\"rung\":%d", rung);
        add_member(buf, "refusal", rung == BLY_RUNG_REFUSED ? err.text : NULL);
        (void)bly_buf_add_str(buf, "}");
    }
}

static int say_json(const struct doctor *doctor)
{
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, REPORT_BYTES_MAX);
    (void)bly_buf_printf(&buf, "{\"version\":\"%s\",\"rung\":%d,\"whole\":%s,\"landlock\":%u",
                         BLY_VERSION, (int)bly_rung_of_machine(&doctor->features),
                         is_whole(doctor) ? "true" : "false", doctor->features.landlock_abi);
    add_member(&buf, "fix", doctor->features.fix[0] != '\0' ? doctor->features.fix : NULL);
    (void)bly_buf_add_str(&buf, ",\"checks\":[");
    add_checks(doctor, &buf);
    (void)bly_buf_add_str(&buf, "],\"policies\":[");
    add_samples(doctor, &buf);
    (void)bly_buf_add_str(&buf, "]}\n");
    return buf.error == 0 && fwrite(buf.data, 1, buf.len, stdout) == buf.len ? 0 : -EIO;
}

/* ---- the command ---------------------------------------------------------------------------- */

void bly_cli_doctor_help(FILE *out)
{
    (void)fputs("usage: bailey doctor [OPTION...]\n\n"
                "Tries everything that walls are made of on this machine: what is there, what its\n"
                "lack costs, how to get it, and on which rung each kind of request is served.\n"
                "Run it as the user the server runs as, in the same container.\n\n"
                "  --json                      as JSON\n"
                "  --allow-landlock-fs         as for exec-server\n"
                "  --allow-landlock-processes  as for exec-server\n"
                "  --cgroup DIR                as for exec-server\n"
                "  --help                      show this\n\n"
                "Exit status: 0 when everything is served on the first rung, 1 when it is not,\n"
                "2 when the arguments are wrong.\n",
                out);
}

/* As a server would find it that runs where we do, and then as it was. */
static void examine_bounds(struct doctor *doctor, const char *cgroup)
{
    struct bly_limits limits;
    struct bly_bounding bounding;

    bly_limits_defaults(&limits);
    bly_bounding_init(&bounding,
                      &(struct bly_bounds){.tasks = limits.walled_tasks,
                                           .memory_bytes = limits.walled_memory_bytes,
                                           .cgroup = cgroup},
                      0);
    bly_bounding_describe(&bounding, &doctor->features);
    bly_bounding_deinit(&bounding);
}

static void examine(struct doctor *doctor)
{
    bool fs = doctor->features.allow_fs, processes = doctor->features.allow_processes;

    if (bly_wall_prepare(&doctor->prepare_err) == 0)
        bly_probe_features(&doctor->features);
    else
        for (int kind = 0; kind < BLY_WALL_KINDS; kind++)
            bly_features_lack(&doctor->features, (enum bly_wall_kind)kind,
                              doctor->prepare_err.text);
    doctor->features.landlock_abi = (uint8_t)bly_wall_landlock_abi();
    doctor->features.allow_fs = fs;
    doctor->features.allow_processes = processes;
}

int bly_cli_doctor(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"allow-landlock-fs", no_argument, NULL, 'f'},
                                            {"allow-landlock-processes", no_argument, NULL, 'p'},
                                            {"cgroup", required_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct doctor doctor = {0};
    const char *cgroup = NULL;
    bool json = false;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        json |= option == 'j';
        doctor.features.allow_fs |= option == 'f';
        doctor.features.allow_processes |= option == 'p';
        if (option == 'c')
            cgroup = optarg;
        if (option == 'h') {
            bly_cli_doctor_help(stdout);
            return 0;
        }
        if (option == '?')
            break;
    }
    if (option != -1 || optind < argc) {
        (void)fputs("Try 'bailey help doctor'.\n", stderr);
        return BLY_EXIT_USAGE;
    }
    examine(&doctor);
    examine_bounds(&doctor, cgroup);
    if (json && say_json(&doctor) < 0)
        return BLY_EXIT_FAILED;
    if (!json)
        say(&doctor);
    return is_whole(&doctor) ? 0 : BLY_EXIT_FAILED;
}
