#include "floorserve/yard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd_pass.h"
#include "floorserve/floor.h"
#include "support.h"

enum { YARDS_MAX = 64, PACKED_MAX = 3000, CAPS_MAX = 64, YARD_FD = 3 };

enum action { OPEN_TO_READ, OPEN_TO_WRITE, STAT, WALK, SPAWN, EXITED };

/* What goes to a yard, and what comes back. */
struct order {
    enum action action;
    int result; /* a pid; 0; a negative errno. EXITED: the pid */
    int status; /* EXITED: as in waitpid(2) */
    union {
        struct stat st;
        char packed[PACKED_MAX];
    };
};

struct yard {
    struct source source;
    struct span policy; /* its text is owned */
    pid_t pid;
    struct yard *next; /* used less recently */
};

static struct yard *yards;

/* ---- messages ---- */

static bool send_order(int fd, const struct order *order, size_t payload, const int *fds,
                       size_t n_fds)
{
    struct iovec part = {(void *)(uintptr_t)order, offsetof(struct order, packed) + payload};

    return bly_fd_pass_send(fd, &part, 1, fds, n_fds, 0) >= 0;
}

static bool receive_order(int fd, struct order *order, struct bly_passed *passed)
{
    struct iovec part = {order, sizeof(*order)};

    return bly_fd_pass_recv(fd, &part, 1, 0, passed) > 0;
}

/* ---- inside: what is mounted ---- */

static void write_text(const char *path, const char *text)
{
    bly_autofd int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        bench_die("%s: %s", path, strerrordesc_np(errno));
}

static void make_directories(const char *path)
{
    char part[FLOOR_PATH_MAX];

    (void)snprintf(part, sizeof(part), "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(part, 0755);
        *slash = '/';
    }
    (void)mkdir(part, 0755);
}

static void make_read_only(const char *path)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};

    if (mount_setattr(AT_FDCWD, path, AT_RECURSIVE, &attr, sizeof(attr)) < 0)
        bench_die("cannot make %s read-only: %s", path, strerrordesc_np(errno));
}

/* Binds `path` to the same place below `root`; a link is made again. */
static void bind_below(const char *root, const char *path, bool is_read_only)
{
    char place[FLOOR_PATH_MAX], target[FLOOR_PATH_MAX];
    struct stat st;

    (void)snprintf(place, sizeof(place), "%s%s", root, path);
    if (lstat(path, &st) < 0)
        return;
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlink(path, target, sizeof(target) - 1);

        target[n > 0 ? n : 0] = '\0';
        if (symlink(target, place) < 0)
            bench_die("cannot make %s: %s", place, strerrordesc_np(errno));
        return;
    }
    if (S_ISDIR(st.st_mode))
        make_directories(place);
    else
        bench_write_file(place, "", 0);
    if (mount(path, place, NULL, MS_BIND | MS_REC, NULL) < 0)
        bench_die("cannot bind %s: %s", path, strerrordesc_np(errno));
    if (is_read_only)
        make_read_only(place);
}

/* All of the disk to read, the workspace to write. */
static void mount_wide(const char *root, const char *workspace)
{
    if (mount("/", root, NULL, MS_BIND | MS_REC, NULL) < 0)
        bench_die("cannot bind /: %s", strerrordesc_np(errno));
    make_read_only(root);
    bind_below(root, workspace, false);
}

/* What programs need to read, the workspace to write. */
static void mount_minimal(const char *root, const char *workspace)
{
    static const struct {
        const char *path;
        bool is_read_only;
    } binds[] = {
        {"/usr", true},       {"/etc", true},       {"/bin", true},
        {"/sbin", true},      {"/lib", true},       {"/lib64", true},
        {"/dev/null", false}, {"/dev/zero", false}, {"/dev/urandom", false},
    };
    char path[64];

    (void)snprintf(path, sizeof(path), "%s/dev", root);
    (void)mkdir(path, 0755);
    for (size_t i = 0; i < BLY_LEN(binds); i++)
        bind_below(root, binds[i].path, binds[i].is_read_only);
    bind_below(root, workspace, false);
    (void)snprintf(path, sizeof(path), "%s/proc", root);
    (void)mkdir(path, 0755);
    (void)mount("proc", path, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static void enter_root(const char *root)
{
    if (chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
        chdir("/") < 0)
        bench_die("cannot change the root: %s", strerrordesc_np(errno));
}

static void set_up(const char *workspace, bool is_wide)
{
    static const char tmp[] = "/tmp", root[] = "/tmp/root";

    (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    if (mount("tmpfs", tmp, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0 ||
        mkdir(root, 0755) < 0 || mount(root, root, NULL, MS_BIND, NULL) < 0)
        bench_die("no tmpfs: %s", strerrordesc_np(errno));
    (is_wide ? mount_wide : mount_minimal)(root, workspace);
    enter_root(root);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    for (int i = 0; i < CAPS_MAX; i++)
        (void)prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
}

/* ---- inside: orders ---- */

static int spawn(struct order *order, const struct bly_passed *passed)
{
    if (passed->n != 2)
        return -EBADF;
    return floor_spawn(order->packed, passed->fds[0], passed->fds[1], NULL);
}

static int walk_to_file(const char *path)
{
    bly_autobuf struct bly_buf out;
    int fd, r;

    bly_buf_init(&out, BENCH_BUF_MAX);
    r = walk_tree(path, &out);
    if (r < 0)
        return r;
    fd = memfd_create("walk", MFD_CLOEXEC);
    if (fd < 0 || write(fd, out.data, out.len) != (ssize_t)out.len)
        return -EIO;
    return fd;
}

static int open_file(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);

    return fd < 0 ? -errno : fd;
}

/* Does what is asked, and puts the answer into the order. A descriptor that goes with it is the
 * caller's; -EBADF: none does. */
static int carry_out(struct order *order, const struct bly_passed *passed)
{
    int fd = -EBADF;

    switch (order->action) {
    case OPEN_TO_READ:
        order->result = fd = open_file(order->packed, O_RDONLY);
        break;
    case OPEN_TO_WRITE:
        order->result = fd = open_file(order->packed, O_WRONLY | O_CREAT | O_TRUNC);
        break;
    case WALK:
        order->result = fd = walk_to_file(order->packed);
        break;
    case STAT: {
        struct stat st = {0};

        order->result = stat(order->packed, &st) < 0 ? -errno : 0;
        order->st = st;
        break;
    }
    case SPAWN:
        order->result = spawn(order, passed);
        break;
    case EXITED:
        break;
    }
    return fd < 0 ? -EBADF : fd;
}

static void tell_exits(int signal_fd)
{
    struct order order = {.action = EXITED};
    struct signalfd_siginfo info;

    while (read(signal_fd, &info, sizeof(info)) > 0)
        continue;
    while ((order.result = waitpid(-1, &order.status, WNOHANG)) > 0)
        (void)send_order(YARD_FD, &order, 0, NULL, 0);
}

static void serve_order(void)
{
    static struct order order;
    struct bly_passed passed;
    int fd;

    if (!receive_order(YARD_FD, &order, &passed))
        _exit(0);
    fd = carry_out(&order, &passed);
    bly_passed_close(&passed);
    (void)send_order(YARD_FD, &order, order.action == STAT ? sizeof(order.st) : 0, &fd, fd >= 0);
    (void)bly_close(fd);
}

static _Noreturn void serve_yard(const char *workspace, bool is_wide)
{
    sigset_t set;
    struct pollfd fds[2] = {{.fd = YARD_FD, .events = POLLIN}, {.events = POLLIN}};

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    set_up(workspace, is_wide);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    fds[1].fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    for (;;) {
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[1].revents)
            tell_exits(fds[1].fd);
        if (fds[0].revents)
            serve_order();
    }
}

/* ---- outside: making one ---- */

/* The last path in front of the first write access; for dialect A the only writable root. */
static bool find_workspace(struct span policy, char path[FLOOR_PATH_MAX])
{
    static const char access[] = "\"access\":\"write\"", scheme[] = "file://",
                      roots[] = "\"writable_roots\":[\"";
    const char *end = memmem(policy.at, span_len(policy), access, strlen(access));
    const char *found = memmem(policy.at, span_len(policy), roots, strlen(roots));

    found = found ? found + strlen(roots) : NULL;
    for (const char *at = policy.at; end && at; found = at ? at : found) {
        at = memmem(at, (size_t)(end - at), scheme, strlen(scheme));
        at = at ? at + strlen(scheme) : NULL;
    }
    if (!found)
        return false;
    (void)snprintf(path, FLOOR_PATH_MAX, "%.*s", (int)strcspn(found, "\""), found);
    return true;
}

static void map_ids(unsigned uid, unsigned gid)
{
    char map[64];

    write_text("/proc/self/setgroups", "deny");
    (void)snprintf(map, sizeof(map), "%u %u 1", uid, uid);
    write_text("/proc/self/uid_map", map);
    (void)snprintf(map, sizeof(map), "%u %u 1", gid, gid);
    write_text("/proc/self/gid_map", map);
}

static pid_t start_yard(int sock, const char *workspace, bool is_wide)
{
    /* Without an exit signal, so that __WCLONE tells yards from programs. */
    struct clone_args args = {
        .flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC,
    };
    unsigned uid = getuid(), gid = getgid();
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

    if (pid != 0)
        return pid;
    if ((sock != YARD_FD && dup2(sock, YARD_FD) < 0) || close_range(YARD_FD + 1, ~0U, 0) < 0 ||
        fcntl(YARD_FD, F_SETFD, FD_CLOEXEC) < 0)
        _exit(1);
    map_ids(uid, gid);
    serve_yard(workspace, is_wide);
}

static void on_order(struct source *source)
{
    struct yard *yard = (struct yard *)source;
    struct order order;
    struct bly_passed passed;

    if (!receive_order(source->fd, &order, &passed)) {
        floor_unwatch(source);
        return;
    }
    if (order.action == EXITED)
        program_exited(yard, order.result, order.status);
}

/* Ends the one that was used the longest ago when there are too many. */
static void drop_oldest(void)
{
    struct yard **last = &yards, *yard;
    unsigned n = 1;

    if (!yards)
        return;
    for (; (*last)->next; last = &(*last)->next)
        n++;
    if (n <= YARDS_MAX)
        return;
    yard = *last;
    *last = NULL;
    floor_unwatch(&yard->source);
    (void)kill(yard->pid, SIGKILL);
    free((char *)(uintptr_t)yard->policy.at);
    floor_free_later(&yard->source);
}

static struct yard *make_yard(struct span policy)
{
    char workspace[FLOOR_PATH_MAX];
    bool is_wide = request_has(policy, "\"kind\":\"root\"") || request_has(policy, "full-access");
    struct yard *yard;
    char *copy;
    int ends[2];

    if (!find_workspace(policy, workspace) ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        bench_die("no yard for this policy");
    yard = bench_alloc(1, sizeof(*yard));
    yard->pid = start_yard(ends[1], workspace, is_wide);
    (void)close(ends[1]);
    if (yard->pid < 0)
        bench_die("no namespaces: %s", strerrordesc_np(errno));
    while (waitpid(-1, NULL, WNOHANG | __WCLONE) > 0)
        continue;
    copy = bench_alloc(span_len(policy), 1);
    memcpy(copy, policy.at, span_len(policy));
    yard->policy = (struct span){copy, copy + span_len(policy)};
    yard->next = yards;
    yards = yard;
    floor_watch(&yard->source, ends[0], on_order);
    drop_oldest();
    return yard;
}

struct yard *yard_of(struct span policy)
{
    for (struct yard **at = &yards; *at; at = &(*at)->next) {
        struct yard *yard = *at;

        if (span_len(yard->policy) != span_len(policy) ||
            memcmp(yard->policy.at, policy.at, span_len(policy)) != 0)
            continue;
        *at = yard->next;
        yard->next = yards;
        yards = yard;
        return yard;
    }
    return make_yard(policy);
}

/* ---- outside: orders ---- */

/* A descriptor in the answer comes instead of its result, and is the caller's. */
static int give_order(struct yard *yard, struct order *order, size_t payload, const int *fds,
                      size_t n_fds)
{
    struct bly_passed passed;

    if (!send_order(yard->source.fd, order, payload, fds, n_fds))
        return -EIO;
    do {
        if (!receive_order(yard->source.fd, order, &passed))
            return -EIO;
        if (order->action == EXITED)
            program_exited(yard, order->result, order->status);
    } while (order->action == EXITED);
    return passed.n > 0 ? bly_passed_take_one(&passed) : order->result;
}

static int order_path(struct yard *yard, enum action action, const char *path, struct order *order)
{
    size_t len = strlen(path) + 1;

    order->action = action;
    memcpy(order->packed, path, len);
    return give_order(yard, order, len, NULL, 0);
}

int yard_open(struct yard *yard, const char *path, bool writes)
{
    static struct order order;

    return order_path(yard, writes ? OPEN_TO_WRITE : OPEN_TO_READ, path, &order);
}

int yard_walk(struct yard *yard, const char *path)
{
    static struct order order;

    return order_path(yard, WALK, path, &order);
}

int yard_stat(struct yard *yard, const char *path, struct stat *ret_st)
{
    static struct order order;
    int r = order_path(yard, STAT, path, &order);

    *ret_st = order.st;
    return r;
}

pid_t yard_spawn(struct yard *yard, const char *packed, size_t len, int in_fd, int out_fd)
{
    static struct order order;
    const int fds[] = {in_fd, out_fd};

    if (len > sizeof(order.packed))
        return -E2BIG;
    order.action = SPAWN;
    memcpy(order.packed, packed, len);
    return give_order(yard, &order, len, fds, 2);
}
