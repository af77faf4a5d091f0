#include "launcher/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "launcher/report.h"
#include "sandbox/enforce/supervise.h"
#include "sandbox/enforce/wall.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"

enum { PROBE_MS = 5000, LACKS_PROC = 1 /* in the status of a report */ };

#define CONTEXT(profile) "{\"windowsSandboxLevel\":\"disabled\",\"permissions\":" profile "}"
#define DEFAULTS(network)                                                                      \
    CONTEXT("{\"type\":\"managed\",\"network\":\"" network "\",\"file_system\":"               \
            "{\"type\":\"restricted\",\"entries\":[{\"path\":{\"type\":\"special\",\"value\":" \
            "{\"kind\":\"minimal\"}},\"access\":\"read\"}]}}")

/* The walls, and a policy that asks for each. */
static const struct trial {
    const char *policy; /* NULL: no plan */
    enum bly_purpose purpose;
    int implied_by; /* not tried when this one works: BLY_WALL_KINDS for none */
} trials[BLY_WALL_KINDS] = {
    [BLY_WALL_HELPER] = {DEFAULTS("restricted"), BLY_FOR_HELPER, BLY_WALL_KINDS},
    [BLY_WALL_PROCESS] = {DEFAULTS("restricted"), BLY_FOR_PROCESS, BLY_WALL_KINDS},
    [BLY_WALL_PROCESS_ONLINE] = {DEFAULTS("enabled"), BLY_FOR_PROCESS, BLY_WALL_PROCESS},
    [BLY_WALL_NETWORK_ONLY] = {CONTEXT("{\"type\":\"managed\",\"network\":\"restricted\","
                                       "\"file_system\":{\"type\":\"unrestricted\"}}"),
                               BLY_FOR_PROCESS, BLY_WALL_PROCESS},
    [BLY_WALL_LANDLOCK] = {DEFAULTS("restricted"), BLY_FOR_HELPER, BLY_WALL_KINDS},
    [BLY_WALL_SUPERVISION] = {NULL, BLY_FOR_PROCESS, BLY_WALL_KINDS},
};

/* ---- in the child ---- */

static int stand_up(const struct bly_plan *plan, const struct trial *trial, struct bly_err *err)
{
    enum bly_filter filter =
        trial->purpose == BLY_FOR_HELPER ? BLY_FILTER_HELPER : bly_wall_process_filter(plan);
    int r = bly_wall_enter(plan, err);

    return r < 0 ? r : bly_wall_seal(plan, filter, NULL, err);
}

static int stand_up_locked(const struct bly_plan *plan, struct bly_err *err)
{
    int r = bly_wall_enter_locked(plan, err);

    if (r == 0)
        r = bly_wall_seal_locked(plan, BLY_FILTER_HELPER, err);
    /* The root is no platform default: a wall that lets it be listed is none. */
    if (r == 0 && openat(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC) >= 0)
        r = bly_fail(err, BLY_ERR_UNSUPPORTED, ENOTSUP, "Landlock is there and has no effect");
    return r;
}

static int supervise(struct bly_err *err)
{
    int fd;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return bly_fail_sys(err, errno, "cannot give up new privileges");
    return bly_supervise_install(&fd, err);
}

/* The trivial action: the root is there, and nobody may make anything in it. Leaves no trace where
 * that succeeds. */
static int act(enum bly_wall_kind kind, struct bly_err *err)
{
    if (openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC) < 0)
        return bly_fail_sys(err, errno, "cannot open the root inside");
    if (kind == BLY_WALL_NETWORK_ONLY)
        return 0;
    if (openat(AT_FDCWD, "/", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600) >= 0)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOTSUP, "the wall stands and has no effect");
    return 0;
}

static int try(enum bly_wall_kind kind, const struct bly_plan *plan, struct bly_err *err)
{
    int r;

    if (kind == BLY_WALL_SUPERVISION)
        return supervise(err);
    r = kind == BLY_WALL_LANDLOCK ? stand_up_locked(plan, err) : stand_up(plan, &trials[kind], err);
    return r < 0 ? r : act(kind, err);
}

static _Noreturn void child(enum bly_wall_kind kind, const struct bly_plan *plan, int report_fd)
{
    struct bly_err err = {0};

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (try(kind, plan, &err) < 0)
        bly_report_failure(report_fd, &err);
    bly_report_exited(report_fd, bly_wall_lacks_proc() ? LACKS_PROC : 0, false);
    _exit(0);
}

/* ---- outside ---- */

struct attempt {
    pid_t pid; /* 0: none */
    int report_fd;
};

static int make_plan(const struct trial *trial, struct bly_plan **ret_plan, struct bly_err *err)
{
    static const struct bly_policy_env env = {.cwd = "/"};
    struct bly_policy *policy = NULL;
    int r = bly_policy_parse_text(trial->policy, &env, &policy, err);

    if (r == 0)
        r = bly_plan_make(policy, trial->purpose, &bly_probe_disk, NULL, 0, ret_plan, err);
    (void)bly_policy_unref(policy);
    return r;
}

static int begin_with(enum bly_wall_kind kind, const struct bly_plan *plan, struct attempt *attempt,
                      struct bly_err *err)
{
    bool namespaces = kind != BLY_WALL_LANDLOCK && kind != BLY_WALL_SUPERVISION;
    unsigned long flags = namespaces ? (unsigned long)bly_wall_clone_flags(plan) : 0;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return bly_fail_sys(err, errno, "no socket");
    attempt->pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0UL, 0UL, 0UL, 0UL);
    if (attempt->pid == 0)
        child(kind, plan, pair[1]);
    (void)bly_close(pair[1]);
    attempt->report_fd = pair[0];
    if (attempt->pid > 0)
        return 0;
    attempt->pid = 0;
    attempt->report_fd = bly_close(attempt->report_fd);
    return bly_fail_sys(err, errno, "the kernel refuses new namespaces");
}

void bly_features_lack(struct bly_features *features, enum bly_wall_kind kind, const char *why)
{
    features->works[kind] = false;
    (void)snprintf(features->why_not[kind], BLY_WHY_MAX, "%.*s", BLY_WHY_MAX - 1, why);
}

/* It ended, or got stuck, without a word. */
static void note_silence(struct bly_features *features, enum bly_wall_kind kind, int r)
{
    bly_features_lack(features, kind,
                      r == -EAGAIN ? "the process got stuck while its wall was built"
                                   : "the process ended while its wall was built");
}

static void begin(enum bly_wall_kind kind, struct bly_features *features, struct attempt *attempt)
{
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};
    int r = 0;

    if (trials[kind].policy != NULL)
        r = make_plan(&trials[kind], &plan, &err);
    if (r == 0)
        r = begin_with(kind, plan, attempt, &err);
    if (r < 0)
        bly_features_lack(features, kind, err.text);
    (void)bly_plan_free(plan);
}

static void finish(enum bly_wall_kind kind, struct bly_features *features, struct attempt *attempt)
{
    struct pollfd ready = {.fd = attempt->report_fd, .events = POLLIN};
    bly_autofd int fd = -EBADF;
    struct bly_report report = {0};
    int r;

    if (attempt->pid == 0)
        return;
    (void)poll(&ready, 1, PROBE_MS);
    r = bly_report_read(attempt->report_fd, &report, &fd);
    features->works[kind] = r == 0 && report.type == BLY_REPORT_EXITED;
    if (features->works[kind])
        features->lacks_proc |= kind != BLY_WALL_LANDLOCK && report.status == LACKS_PROC;
    else if (r == 0)
        bly_features_lack(features, kind, report.err.text);
    else
        note_silence(features, kind, r);
    (void)kill(attempt->pid, SIGKILL);
    while (waitpid(attempt->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    attempt->report_fd = bly_close(attempt->report_fd);
}

static bool is_implied(const struct bly_features *features, enum bly_wall_kind kind)
{
    int by = trials[kind].implied_by;

    return by != BLY_WALL_KINDS && features->works[by];
}

void bly_probe_features(struct bly_features *ret_features)
{
    struct bly_features features = {.landlock_abi = (uint8_t)bly_wall_landlock_abi()};
    struct attempt attempts[BLY_WALL_KINDS] = {{0}};

    /* All at once: each waits for the kernel more than it computes. */
    for (int kind = 0; kind < BLY_WALL_KINDS; kind++)
        if (trials[kind].implied_by == BLY_WALL_KINDS)
            begin((enum bly_wall_kind)kind, &features, &attempts[kind]);
    for (int kind = 0; kind < BLY_WALL_KINDS; kind++)
        finish((enum bly_wall_kind)kind, &features, &attempts[kind]);
    for (int kind = 0; kind < BLY_WALL_KINDS; kind++) {
        if (trials[kind].implied_by == BLY_WALL_KINDS)
            continue;
        features.works[kind] = is_implied(&features, (enum bly_wall_kind)kind);
        if (features.works[kind])
            continue;
        begin((enum bly_wall_kind)kind, &features, &attempts[kind]);
        finish((enum bly_wall_kind)kind, &features, &attempts[kind]);
    }
    if (features.lacks_proc && features.works[BLY_WALL_SUPERVISION])
        bly_features_lack(&features, BLY_WALL_SUPERVISION,
                          "no /proc can be mounted, where callers are looked up");
    if (!features.works[BLY_WALL_HELPER] || !features.works[BLY_WALL_PROCESS])
        bly_probe_fix(features.fix);
    *ret_features = features;
}

/* ---- what to do about it ---- */

/* `line` with a newline on both sides. */
static bool file_says(const char *path, const char *line)
{
    char text[4096] = "\n";
    bly_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text + 1, sizeof(text) - 2);

    if (n < 0)
        return false;
    text[n + 1] = '\0';
    return strstr(text, line) != NULL;
}

/* In a child: joining our own mount namespace leads to its root. */
static bool is_elsewhere(const struct stat *root)
{
    bly_autofd int fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    struct stat own;

    return fd >= 0 && setns(fd, CLONE_NEWNS) == 0 && stat("/", &own) == 0 &&
           (own.st_dev != root->st_dev || own.st_ino != root->st_ino);
}

bool bly_probe_chrooted(void)
{
    struct statx root;
    struct stat st;
    int status = 0;
    pid_t pid;

    if (statx(AT_FDCWD, "/", 0, STATX_INO, &root) == 0 &&
        (root.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) &&
        !(root.stx_attributes & STATX_ATTR_MOUNT_ROOT))
        return true;
    pid = stat("/", &st) == 0 ? fork() : -1;
    if (pid == 0)
        _exit(is_elsewhere(&st));
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

void bly_probe_fix(char fix[BLY_FIX_MAX])
{
    static const struct {
        const char *path, *line;
        bool ordinary_users_only;
        const char *text;
        const char *and_path, *and_line; /* NULL: that is enough */
    } causes[] = {
        {"/proc/sys/user/max_user_namespaces", "\n0\n", false,
         "set the sysctl user.max_user_namespaces to 15000"},
        {"/proc/sys/kernel/unprivileged_userns_clone", "\n0\n", true,
         "set the sysctl kernel.unprivileged_userns_clone to 1"},
        {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "\n1\n", true,
         "load the AppArmor profile that comes with bailey (packaging/apparmor/bailey)",
         "/proc/self/attr/current", "\nunconfined\n"},
        {"/proc/self/status", "\nSeccomp:\t2\n", false,
         "start the container around this with --security-opt seccomp=unconfined "
         "--security-opt apparmor=unconfined --security-opt systempaths=unconfined"},
    };

    fix[0] = '\0';
    if (bly_probe_chrooted())
        (void)snprintf(
            fix, BLY_FIX_MAX, "%s",
            "leave the chroot, in which nobody gets namespaces: enter its directory with "
            "pivot_root(2) instead, as bwrap --dev-bind DIR / and systemd-nspawn do");
    for (size_t i = 0; i < BLY_LEN(causes) && fix[0] == '\0'; i++)
        if ((!causes[i].ordinary_users_only || geteuid() != 0) &&
            file_says(causes[i].path, causes[i].line) &&
            (causes[i].and_path == NULL || file_says(causes[i].and_path, causes[i].and_line)))
            (void)snprintf(fix, BLY_FIX_MAX, "%s", causes[i].text);
}

/* ---- as bytes ---- */

int bly_features_pack(const struct bly_features *features, struct bly_buf *buf)
{
    for (int kind = 0; kind < BLY_WALL_KINDS; kind++) {
        (void)bly_buf_put_u8(buf, features->works[kind]);
        (void)bly_buf_put_str(buf, features->why_not[kind]);
    }
    (void)bly_buf_put_str(buf, features->fix);
    (void)bly_buf_put_u8(buf, features->lacks_proc);
    (void)bly_buf_put_u8(buf, features->bound);
    (void)bly_buf_put_str(buf, features->why_no_cgroup);
    return bly_buf_put_u8(buf, features->landlock_abi);
}

static void get_text(struct bly_reader *reader, char *text, size_t size)
{
    bly_autofree char *got = bly_get_str(reader);

    if (got == NULL || strlen(got) >= size)
        reader->bad = true;
    else
        (void)strcpy(text, got);
}

int bly_features_unpack(struct bly_reader *reader, struct bly_features *ret_features)
{
    struct bly_features features = {0};

    for (int kind = 0; kind < BLY_WALL_KINDS; kind++) {
        features.works[kind] = bly_get_u8(reader) == 1;
        get_text(reader, features.why_not[kind], BLY_WHY_MAX);
    }
    get_text(reader, features.fix, BLY_FIX_MAX);
    features.lacks_proc = bly_get_u8(reader) == 1;
    features.bound = bly_get_u8(reader);
    get_text(reader, features.why_no_cgroup, BLY_WHY_MAX);
    features.landlock_abi = bly_get_u8(reader);
    if (reader->bad || features.bound > BLY_BOUND_REFUSED)
        return -EBADMSG;
    *ret_features = features;
    return 0;
}
