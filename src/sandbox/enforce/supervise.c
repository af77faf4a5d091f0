#include "sandbox/enforce/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/plan/plan_internal.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV /* since Linux 5.19 */
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* FS_IOC_GETFLAGS bit of a directory with case-insensitive names. */
#ifndef FS_CASEFOLD_FL
#define FS_CASEFOLD_FL 0x40000000
#endif

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "supervised creation knows x86_64 and aarch64"
#endif

enum {
    MAX_LINKS = 40,      /* as the kernel, path_resolution(7) */
    MAX_TRIES = 16,      /* lost races of one open before EAGAIN */
    MAX_BLOCKED = 64,    /* opens of FIFOs that wait for their other end */
    PROC_ROOT_INO = 1,   /* fs/proc: the root of every procfs */
    PATH_ROOM = PATH_MAX /* with its NUL */
};

/* A name that must not come into being in a directory, whatever path leads there. */
struct guard {
    dev_t dev;
    ino_t ino;
    bool fold; /* the directory ignores case */
    char *name;
};

struct bly_supervisor {
    struct guard *guards;
    size_t n_guards;
    struct seccomp_notif *notif; /* as large as this kernel wants them */
    struct seccomp_notif_resp *resp;
    size_t notif_size, resp_size;
    int root_fd;
    int proc_fd;
    bool has_refused;
    unsigned n_blocked;
    pid_t blocked[MAX_BLOCKED];
};

/* One reported call while it is being answered. */
struct call {
    struct bly_supervisor *supervisor;
    int listener_fd;
    uint64_t id;
    pid_t tid;
    pid_t tgid;
    mode_t umask;
    long nr;
    const uint64_t *args;
};

/* ---- the reporting filter ---- */

enum shape { SHAPE_AT, SHAPE_PLAIN };
typedef int (*handler_fn)(struct call *call, enum shape shape);

static int answer(const struct call *call, int r);
static int on_open(struct call *call, enum shape shape);
static int on_mkdir(struct call *call, enum shape shape);
static int on_mknod(struct call *call, enum shape shape);
static int on_symlink(struct call *call, enum shape shape);
static int on_link(struct call *call, enum shape shape);
static int on_rename(struct call *call, enum shape shape);
static int on_bind(struct call *call, enum shape shape);

enum { ALWAYS = -1 };

static const struct supervised {
    long nr;
    int flags_arg; /* reported only when this argument has O_CREAT; ALWAYS */
    handler_fn handle;
    enum shape shape;
} supervised[] = {
    {SYS_openat, 2, on_open, SHAPE_AT},
    {SYS_mkdirat, ALWAYS, on_mkdir, SHAPE_AT},
    {SYS_mknodat, ALWAYS, on_mknod, SHAPE_AT},
    {SYS_symlinkat, ALWAYS, on_symlink, SHAPE_AT},
    {SYS_linkat, ALWAYS, on_link, SHAPE_AT},
    {SYS_renameat2, ALWAYS, on_rename, SHAPE_AT},
    {SYS_bind, ALWAYS, on_bind, SHAPE_PLAIN},
#ifdef SYS_renameat
    {SYS_renameat, ALWAYS, on_rename, SHAPE_AT},
#endif
#ifdef SYS_open
    {SYS_open, 1, on_open, SHAPE_PLAIN},
    {SYS_creat, ALWAYS, on_open, SHAPE_PLAIN},
    {SYS_mkdir, ALWAYS, on_mkdir, SHAPE_PLAIN},
    {SYS_mknod, ALWAYS, on_mknod, SHAPE_PLAIN},
    {SYS_symlink, ALWAYS, on_symlink, SHAPE_PLAIN},
    {SYS_link, ALWAYS, on_link, SHAPE_PLAIN},
    {SYS_rename, ALWAYS, on_rename, SHAPE_PLAIN},
#endif
};

struct program {
    struct sock_filter code[8 + 5 * BLY_LEN(supervised)];
    unsigned short len;
};

static void emit(struct program *program, struct sock_filter instruction)
{
    program->code[program->len++] = instruction;
}

/* Low half of a system call argument. The kernel looks at 32 bits of flags only. */
static uint32_t arg_offset(int arg)
{
    return (uint32_t)(offsetof(struct seccomp_data, args) + (size_t)arg * 8);
}

static void build_filter(struct program *program)
{
    const uint32_t nr_offset = offsetof(struct seccomp_data, nr);

    program->len = 0;
    /* Other architectures are the main filter's business: it kills them. */
    emit(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                               offsetof(struct seccomp_data, arch)));
    emit(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0));
    emit(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    emit(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, nr_offset));

    /* The flags of openat2 lie behind a pointer. ENOSYS makes callers fall back to openat. */
    emit(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1));
    emit(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));

    for (size_t i = 0; i < BLY_LEN(supervised); i++) {
        const struct supervised *row = &supervised[i];
        const uint32_t nr = (uint32_t)row->nr;

        if (row->flags_arg == ALWAYS) {
            emit(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1));
            emit(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
            continue;
        }
        emit(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 4));
        emit(program,
             (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg_offset(row->flags_arg)));
        emit(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_CREAT, 0, 1));
        emit(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
        emit(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    }
    emit(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

int bly_supervise_install(int *ret_listener_fd, struct bly_err *err)
{
    struct program program;
    struct sock_fprog fprog;
    long fd;

    build_filter(&program);
    fprog = (struct sock_fprog){.len = program.len, .filter = program.code};
    /*
     * WAIT_KILLABLE_RECV: once we have received a call, only a fatal signal interrupts it. Without
     * it a signal handler would make the kernel restart a call that we have already carried out.
     */
    fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                 SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &fprog);
    if (fd < 0)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, errno,
                        "supervised creation needs Linux 5.19: seccomp user notification: %s",
                        bly_errno_text(errno));
    *ret_listener_fd = (int)fd;
    return 0;
}

/* ---- set-up ---- */

bool bly_supervise_needed(const struct bly_plan *plan)
{
    return plan->n_absents > 0;
}

static int guard_init(struct guard *guard, const struct bly_absent *absent, struct bly_err *err)
{
    bly_autofd int fd = open(absent->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    int flags = 0;

    /* A directory that may be searched but not read can still be watched. */
    if (fd < 0)
        fd = open(absent->dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return bly_fail_sys(err, errno, "cannot guard %s in %s", absent->name, absent->dir);
    /* Fails where the file system has no such flag, and then names are compared byte by byte. */
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
        flags = 0;

    *guard = (struct guard){.dev = st.st_dev,
                            .ino = st.st_ino,
                            .fold = (flags & FS_CASEFOLD_FL) != 0,
                            .name = strdup(absent->name)};
    return guard->name ? 0 : bly_fail_sys(err, ENOMEM, "cannot guard %s", absent->name);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static int supervisor_init(struct bly_supervisor *supervisor, const struct bly_plan *plan,
                           struct bly_err *err)
{
    struct seccomp_notif_sizes sizes;

    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
        return bly_fail_sys(err, errno, "cannot ask for seccomp notification sizes");
    supervisor->notif_size = larger(sizes.seccomp_notif, sizeof(*supervisor->notif));
    supervisor->resp_size = larger(sizes.seccomp_notif_resp, sizeof(*supervisor->resp));
    supervisor->notif = calloc(1, supervisor->notif_size);
    supervisor->resp = calloc(1, supervisor->resp_size);
    supervisor->guards = calloc(plan->n_absents, sizeof(*supervisor->guards));
    if (!supervisor->notif || !supervisor->resp || !supervisor->guards)
        return bly_fail_sys(err, ENOMEM, "cannot make a supervisor");

    supervisor->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    supervisor->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (supervisor->root_fd < 0 || supervisor->proc_fd < 0)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, errno,
                        "supervised creation needs /proc in the view: %s", bly_errno_text(errno));

    for (size_t i = 0; i < plan->n_absents; i++) {
        int r = guard_init(&supervisor->guards[i], &plan->absents[i], err);

        if (r < 0)
            return r;
        supervisor->n_guards++;
    }
    return 0;
}

int bly_supervisor_new(const struct bly_plan *plan, struct bly_supervisor **ret_supervisor,
                       struct bly_err *err)
{
    struct bly_supervisor *supervisor = calloc(1, sizeof(*supervisor));
    int r;

    if (!supervisor)
        return bly_fail_sys(err, ENOMEM, "cannot make a supervisor");
    supervisor->root_fd = supervisor->proc_fd = -EBADF;
    r = supervisor_init(supervisor, plan, err);
    if (r < 0) {
        bly_supervisor_free(supervisor);
        return r;
    }
    *ret_supervisor = supervisor;
    return 0;
}

struct bly_supervisor *bly_supervisor_free(struct bly_supervisor *supervisor)
{
    if (!supervisor)
        return NULL;
    for (size_t i = 0; i < supervisor->n_guards; i++)
        free(supervisor->guards[i].name);
    free(supervisor->guards);
    free(supervisor->notif);
    free(supervisor->resp);
    supervisor->root_fd = bly_close(supervisor->root_fd);
    supervisor->proc_fd = bly_close(supervisor->proc_fd);
    free(supervisor);
    return NULL;
}

bool bly_supervisor_has_refused(const struct bly_supervisor *supervisor)
{
    return supervisor->has_refused;
}

/* ---- what the caller is and says ---- */

/* Answers `r` because the wall says no: evidence for whoever asks why the program failed. */
static int refuse(const struct call *call, int r)
{
    call->supervisor->has_refused = true;
    return r;
}

/* The caller is still there and still waits for us: what was read under its id was really its own.
 */
static bool still_waiting(const struct call *call)
{
    uint64_t id = call->id;

    return ioctl(call->listener_fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

static int open_of_caller(const struct call *call, const char *what, int flags)
{
    char path[64];
    int fd;

    (void)snprintf(path, sizeof(path), "%d/%s", (int)call->tid, what);
    fd = openat(call->supervisor->proc_fd, path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Thread group and umask of the caller, from /proc/TID/status (proc_pid_status(5)). */
static int learn_caller(struct call *call)
{
    bly_autofd int fd = open_of_caller(call, "status", O_RDONLY);
    char text[2048];
    const char *line;
    ssize_t n;

    if (fd < 0)
        return fd;
    n = read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return -ESRCH;
    text[n] = '\0';
    line = strstr(text, "\nUmask:");
    if (!line)
        return -ESRCH;
    call->umask = (mode_t)strtoul(line + strlen("\nUmask:"), NULL, 8);
    line = strstr(text, "\nTgid:");
    if (!line)
        return -ESRCH;
    call->tgid = (pid_t)strtol(line + strlen("\nTgid:"), NULL, 10);
    return 0;
}

/* Copies bytes of the caller once. Returns how many could be read before something unmapped. */
static ssize_t read_memory(const struct call *call, uint64_t address, void *data, size_t len)
{
    struct iovec local = {.iov_base = data, .iov_len = len};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = len};
    ssize_t n = process_vm_readv(call->tid, &local, 1, &remote, 1, 0);

    return n < 0 ? -errno : n;
}

/* A path argument, copied once; only the copy is judged and used. */
static int read_path(const struct call *call, uint64_t address, char path[static PATH_ROOM])
{
    const size_t page = 4096;
    size_t len = 0;

    while (len < PATH_ROOM) {
        size_t step = page - (address + len) % page;
        ssize_t n;

        if (step > PATH_ROOM - len)
            step = PATH_ROOM - len;
        n = read_memory(call, address + len, path + len, step);
        if (n <= 0)
            return n == -EPERM || n == -ESRCH ? (int)n : -EFAULT;
        if (memchr(path + len, '\0', (size_t)n))
            return path[0] ? 0 : -ENOENT;
        len += (size_t)n;
    }
    return -ENAMETOOLONG;
}

/* Directory a relative path starts at, O_PATH. */
static int open_base(const struct call *call, int dirfd, const char *path)
{
    char what[32];
    int fd;

    if (path[0] == '/') {
        fd = fcntl(call->supervisor->root_fd, F_DUPFD_CLOEXEC, 3);
        return fd < 0 ? -errno : fd;
    }
    if (dirfd == AT_FDCWD)
        return open_of_caller(call, "cwd", O_PATH | O_DIRECTORY);
    (void)snprintf(what, sizeof(what), "fd/%d", dirfd);
    fd = open_of_caller(call, what, O_PATH);
    return fd == -ENOENT ? -EBADF : fd;
}

/* ---- the walk ---- */

/* Where a path leads: a name in a directory and, when it was followed, what is there. */
struct place {
    int parent_fd;           /* O_PATH */
    char name[NAME_MAX + 2]; /* perhaps with one trailing slash, as the caller wrote it */
    int target_fd;           /* O_PATH | O_NOFOLLOW; -EBADF: nothing there */
    struct stat target;
    char rest[PATH_ROOM]; /* not walked yet */
    unsigned n_links;
};

static void place_deinit(struct place *place)
{
    place->parent_fd = bly_close(place->parent_fd);
    place->target_fd = bly_close(place->target_fd);
}
#define autoplace __attribute__((cleanup(place_deinit)))
#define PLACE_INIT                               \
    {                                            \
        .parent_fd = -EBADF, .target_fd = -EBADF \
    }

static bool is_on_proc(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

/* True when the descriptor lies below /proc/1: our own entries, which only we may look into. */
static bool is_ours(int fd)
{
    char link[32], path[64];
    ssize_t n;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    if (n < 0)
        return true;
    path[n] = '\0';
    return strcmp(path, "/proc/1") == 0 || strncmp(path, "/proc/1/", strlen("/proc/1/")) == 0;
}

/* Puts a link's text in front of what is left of the path. */
static int push_text(struct place *place, const char *text)
{
    size_t text_len = strlen(text), rest_len = strlen(place->rest);

    if (text_len + 1 + rest_len >= sizeof(place->rest))
        return -ENAMETOOLONG;
    memmove(place->rest + text_len + (rest_len > 0), place->rest, rest_len + 1);
    memcpy(place->rest, text, text_len);
    if (rest_len > 0)
        place->rest[text_len] = '/';
    return 0;
}

static void move_to(struct place *place, int fd)
{
    (void)bly_close(place->parent_fd);
    place->parent_fd = fd;
}

/*
 * A symlink at parent/name, seen as `fd`. Ordinary ones are text. On procfs "self" and
 * "thread-self" must name the caller, not us, and the other links are magic: the kernel has to
 * follow them, and *ret_object is what it found.
 */
static int follow_link(struct call *call, struct place *place, int fd, const char *name,
                       int *ret_object)
{
    char text[PATH_ROOM];
    struct stat st;
    ssize_t n;

    if (++place->n_links > MAX_LINKS)
        return -ELOOP;
    if (is_on_proc(place->parent_fd)) {
        if (fstat(place->parent_fd, &st) < 0)
            return -errno;
        if (st.st_ino != PROC_ROOT_INO) {
            int object;

            if (is_ours(place->parent_fd))
                return refuse(call, -EACCES);
            object = openat(place->parent_fd, name, O_PATH | O_CLOEXEC);
            if (object < 0)
                return -errno;
            *ret_object = object;
            return 0;
        }
        if (strcmp(name, "self") == 0) {
            (void)snprintf(text, sizeof(text), "%d", (int)call->tgid);
            return push_text(place, text);
        }
        if (strcmp(name, "thread-self") == 0) {
            (void)snprintf(text, sizeof(text), "%d/task/%d", (int)call->tgid, (int)call->tid);
            return push_text(place, text);
        }
    }
    n = readlinkat(fd, "", text, sizeof(text) - 1);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    if (text[0] == '/') {
        int root = fcntl(call->supervisor->root_fd, F_DUPFD_CLOEXEC, 3);

        if (root < 0)
            return -errno;
        move_to(place, root);
    }
    return push_text(place, text);
}

/* Cuts the first component off place->rest. `*ret_last`: nothing but slashes follows. */
static int next_component(struct place *place, char name[static NAME_MAX + 1], bool *ret_last,
                          bool *ret_slash)
{
    const char *start = place->rest + strspn(place->rest, "/");
    size_t len = strcspn(start, "/");
    const char *after = start + len, *more = after + strspn(after, "/");

    if (len > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(name, start, len);
    name[len] = '\0';
    *ret_slash = after[0] == '/';
    *ret_last = more[0] == '\0';
    memmove(place->rest, more, strlen(more) + 1);
    return 0;
}

static void set_name(struct place *place, const char *name, bool slash)
{
    (void)snprintf(place->name, sizeof(place->name), "%s%s", name, slash ? "/" : "");
}

/* An object reached by a magic link as the last component: it has no name of its own. */
static int end_at_object(struct place *place, int object)
{
    place->target_fd = object;
    place->name[0] = '\0';
    return fstat(object, &place->target) < 0 ? -errno : 0;
}

/*
 * Walks to the last component. With `follow` a symlink there is followed too, and target_fd is set
 * when something is there; without, the name is left as it is.
 */
static int walk(struct call *call, int dirfd, const char *path, bool follow, struct place *place)
{
    (void)snprintf(place->rest, sizeof(place->rest), "%s", path);
    place->parent_fd = open_base(call, dirfd, path);
    if (place->parent_fd < 0)
        return place->parent_fd;

    for (;;) {
        char name[NAME_MAX + 1];
        bool last, slash;
        int object = -EBADF;
        bly_autofd int fd = -EBADF;
        struct stat st;
        int r = next_component(place, name, &last, &slash);

        if (r < 0)
            return r;
        if (name[0] == '\0') {
            /* The root itself, or a link that ended in a slash. */
            set_name(place, ".", false);
            place->target_fd = fcntl(place->parent_fd, F_DUPFD_CLOEXEC, 3);
            return place->target_fd < 0 || fstat(place->target_fd, &place->target) < 0 ? -errno : 0;
        }
        if (last && !follow) {
            set_name(place, name, slash);
            return 0;
        }
        fd = openat(place->parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT && last) {
            set_name(place, name, slash);
            return 0;
        }
        if (fd < 0 || fstat(fd, &st) < 0)
            return -errno;
        if (S_ISLNK(st.st_mode)) {
            r = follow_link(call, place, fd, name, &object);
            if (r < 0)
                return r;
            if (object >= 0 && last)
                return end_at_object(place, object);
            if (object >= 0)
                move_to(place, object);
            continue;
        }
        if (last) {
            set_name(place, name, slash);
            place->target_fd = bly_take_fd(&fd);
            place->target = st;
            return 0;
        }
        if (!S_ISDIR(st.st_mode))
            return -ENOTDIR;
        move_to(place, bly_take_fd(&fd));
    }
}

/* ---- the decision ---- */

static bool same_name(const struct guard *guard, const char *name)
{
    size_t len = strcspn(name, "/");

    if (strlen(guard->name) != len)
        return false;
    return guard->fold ? strncasecmp(guard->name, name, len) == 0
                       : strncmp(guard->name, name, len) == 0;
}

/* 0, or -EROFS: what a read-only mount of the name would answer, if there were something to mount
 * on. */
static int judge(const struct call *call, const struct place *place)
{
    const struct bly_supervisor *supervisor = call->supervisor;
    struct stat st;

    if (fstat(place->parent_fd, &st) < 0)
        return -errno;
    for (size_t i = 0; i < supervisor->n_guards; i++) {
        const struct guard *guard = &supervisor->guards[i];

        if (guard->dev == st.st_dev && guard->ino == st.st_ino && same_name(guard, place->name))
            return refuse(call, -EROFS);
    }
    return 0;
}

/* Walks a path argument to the name it would create, and decides. */
static int walk_to_new_name(struct call *call, int dirfd, uint64_t address, struct place *place)
{
    char path[PATH_ROOM];
    int r = read_path(call, address, path);

    if (r < 0)
        return r;
    r = walk(call, dirfd, path, false, place);
    if (r < 0)
        return r;
    r = judge(call, place);
    if (r < 0)
        return r;
    return still_waiting(call) ? 0 : -ESRCH;
}

static int result(int r)
{
    return r < 0 ? -errno : 0;
}

/* ---- calls that make names ---- */

static int dirfd_arg(const struct call *call, int index)
{
    return (int)call->args[index];
}

static int on_mkdir(struct call *call, enum shape shape)
{
    autoplace struct place place = PLACE_INIT;
    const int at = shape == SHAPE_AT ? 1 : 0;
    int r = walk_to_new_name(call, at ? dirfd_arg(call, 0) : AT_FDCWD, call->args[at], &place);

    return r < 0 ? r : result(mkdirat(place.parent_fd, place.name, (mode_t)call->args[at + 1]));
}

static int on_mknod(struct call *call, enum shape shape)
{
    autoplace struct place place = PLACE_INIT;
    const int at = shape == SHAPE_AT ? 1 : 0;
    int r = walk_to_new_name(call, at ? dirfd_arg(call, 0) : AT_FDCWD, call->args[at], &place);

    return r < 0 ? r
                 : result(mknodat(place.parent_fd, place.name, (mode_t)call->args[at + 1],
                                  (dev_t)call->args[at + 2]));
}

static int on_symlink(struct call *call, enum shape shape)
{
    autoplace struct place place = PLACE_INIT;
    const bool at = shape == SHAPE_AT;
    char text[PATH_ROOM];
    int r = read_path(call, call->args[0], text);

    if (r < 0)
        return r;
    r = walk_to_new_name(call, at ? dirfd_arg(call, 1) : AT_FDCWD, call->args[at ? 2 : 1], &place);
    return r < 0 ? r : result(symlinkat(text, place.parent_fd, place.name));
}

static int on_rename(struct call *call, enum shape shape)
{
    autoplace struct place from = PLACE_INIT, to = PLACE_INIT;
    const bool at = shape == SHAPE_AT;
    char path[PATH_ROOM];
    unsigned flags;
    int r = read_path(call, call->args[at ? 1 : 0], path);

    if (r < 0)
        return r;
    r = walk(call, at ? dirfd_arg(call, 0) : AT_FDCWD, path, false, &from);
    if (r < 0)
        return r;
    r = walk_to_new_name(call, at ? dirfd_arg(call, 2) : AT_FDCWD, call->args[at ? 3 : 1], &to);
    if (r < 0)
        return r;
    flags = call->nr == SYS_renameat2 ? (unsigned)call->args[4] : 0;
    return result(renameat2(from.parent_fd, from.name, to.parent_fd, to.name, flags));
}

static int on_link(struct call *call, enum shape shape)
{
    autoplace struct place from = PLACE_INIT, to = PLACE_INIT;
    const bool at = shape == SHAPE_AT;
    const unsigned flags = at ? (unsigned)call->args[4] : 0;
    char path[PATH_ROOM], object[32];
    int r;

    if (flags & ~(unsigned)(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    /* AT_EMPTY_PATH wants CAP_DAC_READ_SEARCH, which nobody has in here; the kernel says ENOENT. */
    r = read_path(call, call->args[at ? 1 : 0], path);
    if (r < 0)
        return r;
    r = walk(call, at ? dirfd_arg(call, 0) : AT_FDCWD, path, (flags & AT_SYMLINK_FOLLOW) != 0,
             &from);
    if (r < 0)
        return r;
    r = walk_to_new_name(call, at ? dirfd_arg(call, 2) : AT_FDCWD, call->args[at ? 3 : 1], &to);
    if (r < 0)
        return r;
    if (!(flags & AT_SYMLINK_FOLLOW))
        return result(linkat(from.parent_fd, from.name, to.parent_fd, to.name, 0));
    if (from.target_fd < 0)
        return -ENOENT;
    (void)snprintf(object, sizeof(object), "/proc/self/fd/%d", from.target_fd);
    return result(linkat(AT_FDCWD, object, to.parent_fd, to.name, AT_SYMLINK_FOLLOW));
}

/* ---- bind ---- */

/* The caller's socket itself: a bind on our own duplicate is a bind of the one socket. */
static int socket_of_caller(const struct call *call, int fd)
{
    bly_autofd int pidfd = (int)syscall(SYS_pidfd_open, call->tgid, 0);
    int copy;

    if (pidfd < 0)
        return -errno;
    copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    return copy < 0 ? -errno : copy;
}

static int bind_path(struct call *call, int fd, const char *path)
{
    autoplace struct place place = PLACE_INIT;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n, r = walk(call, AT_FDCWD, path, false, &place);

    if (r < 0)
        return r;
    r = judge(call, &place);
    if (r < 0)
        return r;
    n = snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", place.parent_fd,
                 place.name);
    if (n < 0 || (size_t)n >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    return result(bind(fd, (const struct sockaddr *)&address, sizeof(address)));
}

static int on_bind(struct call *call, enum shape shape)
{
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        char bytes[sizeof(struct sockaddr_storage) + 1];
    } address = {0};
    const size_t len = (uint32_t)call->args[2];
    bly_autofd int fd = -EBADF;
    ssize_t n;

    (void)shape;
    if (len > sizeof(struct sockaddr_storage))
        return -EINVAL;
    n = read_memory(call, call->args[1], address.bytes, len);
    if (n < 0 || (size_t)n != len)
        return -EFAULT;
    fd = socket_of_caller(call, (int)call->args[0]);
    if (fd < 0)
        return fd;
    if (!still_waiting(call))
        return -ESRCH;
    if (len > offsetof(struct sockaddr_un, sun_path) && address.any.sa_family == AF_UNIX &&
        address.local.sun_path[0] != '\0')
        return bind_path(call, fd, address.local.sun_path);
    return result(bind(fd, &address.any, (socklen_t)len));
}

/* ---- open with O_CREAT ---- */

enum { ANSWERED = 1, LOST_RACE = 2 };

struct open_call {
    int dirfd;
    int flags;
    mode_t mode;
    char path[PATH_ROOM];
};

static int send_fd(const struct call *call, int fd, int flags)
{
    struct seccomp_notif_addfd add = {
        .id = call->id,
        .flags = SECCOMP_ADDFD_FLAG_SEND,
        .srcfd = (uint32_t)fd,
        .newfd_flags = (flags & O_CLOEXEC) ? O_CLOEXEC : 0,
    };

    if (ioctl(call->listener_fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add) >= 0 || errno == ENOENT)
        return ANSWERED;
    return -errno;
}

/* A slot among the opens that wait, or NULL when all are taken. A process that is gone has left its
 * slot. */
static pid_t *free_slot(struct bly_supervisor *supervisor)
{
    for (size_t i = 0; i < MAX_BLOCKED; i++) {
        pid_t *slot = &supervisor->blocked[i];

        if (*slot == 0 || (kill(*slot, 0) < 0 && errno == ESRCH))
            return slot;
    }
    return NULL;
}

/*
 * Opening a FIFO waits for its other end, and we must not: a child of ours does it. It is reaped by
 * pid 1's own loop and dies with the wall at the latest.
 */
static int open_waiting(struct call *call, const char *object, int flags)
{
    pid_t *slot = free_slot(call->supervisor);
    pid_t pid;

    if (!slot)
        return -ENFILE;
    pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        int fd = open(object, flags | O_CLOEXEC);
        int r = fd < 0 ? -errno : send_fd(call, fd, flags);

        if (r < 0)
            (void)answer(call, r);
        _exit(0);
    }
    *slot = pid;
    return ANSWERED;
}

/*
 * /dev/tty means the terminal of whoever opens it. Ours is none, so it is found among the caller's
 * standard descriptors.
 */
static int open_terminal(const struct call *call, int flags)
{
    for (int i = 0; i < 3; i++) {
        char what[32], object[64];
        bly_autofd int fd = -EBADF;
        struct stat st;

        (void)snprintf(what, sizeof(what), "fd/%d", i);
        fd = open_of_caller(call, what, O_PATH);
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || major(st.st_rdev) < 136 ||
            major(st.st_rdev) >
                143) /* Unix98 pseudo-terminals, Documentation/admin-guide/devices.txt */
            continue;
        (void)snprintf(object, sizeof(object), "/proc/self/fd/%d", fd);
        return open(object, flags | O_NOCTTY | O_CLOEXEC);
    }
    errno = ENXIO;
    return -1;
}

static int open_existing(struct call *call, const struct open_call *open_call, struct place *place)
{
    const int flags = (open_call->flags & ~(O_CREAT | O_NOFOLLOW)) | O_NOCTTY;
    char object[32];
    bly_autofd int fd = -EBADF;

    if (open_call->flags & O_EXCL)
        return -EEXIST;
    if (S_ISLNK(place->target.st_mode))
        return -ELOOP;
    if (S_ISDIR(place->target.st_mode))
        return -EISDIR;

    (void)snprintf(object, sizeof(object), "/proc/self/fd/%d", place->target_fd);
    if (S_ISFIFO(place->target.st_mode) && !(flags & O_NONBLOCK))
        return open_waiting(call, object, flags);
    if (S_ISCHR(place->target.st_mode) && place->target.st_rdev == makedev(5, 0))
        fd = open_terminal(call, flags);
    else
        fd = open(object, flags | O_CLOEXEC);
    return fd < 0 ? -errno : send_fd(call, fd, open_call->flags);
}

static int open_new(struct call *call, const struct open_call *open_call, struct place *place)
{
    bly_autofd int fd = -EBADF;
    int r = judge(call, place);

    if (r < 0)
        return r;
    if (!still_waiting(call))
        return -ESRCH;
    /* O_EXCL: what appeared meanwhile, a link above all, has not been judged. */
    fd = openat(place->parent_fd, place->name,
                open_call->flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC,
                open_call->mode);
    if (fd >= 0)
        return send_fd(call, fd, open_call->flags);
    return errno == EEXIST && !(open_call->flags & O_EXCL) ? LOST_RACE : -errno;
}

static int open_once(struct call *call, const struct open_call *open_call)
{
    autoplace struct place place = PLACE_INIT;
    const bool follow = !(open_call->flags & (O_NOFOLLOW | O_EXCL));
    int r = walk(call, open_call->dirfd, open_call->path, follow, &place);

    if (r < 0)
        return r;
    if (strchr(place.name, '/'))
        return -EISDIR;
    if (!follow) {
        place.target_fd = openat(place.parent_fd, place.name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (place.target_fd < 0 && errno != ENOENT)
            return -errno;
        if (place.target_fd >= 0 && fstat(place.target_fd, &place.target) < 0)
            return -errno;
    }
    return place.target_fd >= 0 ? open_existing(call, open_call, &place)
                                : open_new(call, open_call, &place);
}

static int on_open(struct call *call, enum shape shape)
{
    const int at = shape == SHAPE_AT ? 1 : 0;
    struct open_call open_call = {.dirfd = at ? dirfd_arg(call, 0) : AT_FDCWD};
    int r = read_path(call, call->args[at], open_call.path);

    if (r < 0)
        return r;
#ifdef SYS_creat
    if (call->nr == SYS_creat) {
        open_call.flags = O_CREAT | O_WRONLY | O_TRUNC;
        open_call.mode = (mode_t)call->args[1];
    } else
#endif
    {
        open_call.flags = (int)call->args[at + 1];
        open_call.mode = (mode_t)call->args[at + 2];
    }
    /* With O_PATH nothing is ever created (open(2)), so this cannot come from a program that means
     * it. */
    if (open_call.flags & O_PATH)
        return -EINVAL;
    open_call.mode &= 07777;

    for (unsigned i = 0; i < MAX_TRIES; i++) {
        r = open_once(call, &open_call);
        if (r != LOST_RACE)
            return r;
    }
    return -EAGAIN;
}

/* ---- serving ---- */

static int answer(const struct call *call, int r)
{
    struct seccomp_notif_resp *resp = call->supervisor->resp;

    memset(resp, 0, call->supervisor->resp_size);
    resp->id = call->id;
    resp->error = r;
    /* ENOENT: the caller was killed meanwhile. */
    if (ioctl(call->listener_fd, SECCOMP_IOCTL_NOTIF_SEND, resp) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

static const struct supervised *find_supervised(long nr)
{
    for (size_t i = 0; i < BLY_LEN(supervised); i++)
        if (supervised[i].nr == nr)
            return &supervised[i];
    return NULL;
}

static int serve_one(struct bly_supervisor *supervisor, int listener_fd)
{
    const struct seccomp_notif *notif = supervisor->notif;
    const struct supervised *row;
    struct call call;
    int r;

    memset(supervisor->notif, 0, supervisor->notif_size);
    if (ioctl(listener_fd, SECCOMP_IOCTL_NOTIF_RECV, supervisor->notif) < 0)
        return errno == ENOENT || errno == EINTR ? 0 : -errno; /* ENOENT: killed before we saw it */

    call = (struct call){.supervisor = supervisor,
                         .listener_fd = listener_fd,
                         .id = notif->id,
                         .tid = (pid_t)notif->pid,
                         .nr = notif->data.nr,
                         .args = (const uint64_t *)notif->data.args};
    row = find_supervised(call.nr);
    if (!row)
        return answer(&call, -ENOSYS);
    r = learn_caller(&call);
    if (r == 0) {
        (void)umask(call.umask);
        r = row->handle(&call, row->shape);
    }
    return r == ANSWERED ? 0 : answer(&call, r);
}

int bly_supervisor_serve(struct bly_supervisor *supervisor, int listener_fd)
{
    for (unsigned i = 0; i < 64; i++) {
        struct pollfd waiting = {.fd = listener_fd, .events = POLLIN};
        int r = poll(&waiting, 1, 0);

        if (r < 0 && errno != EINTR)
            return -errno;
        if (r <= 0)
            return 0;
        if (!(waiting.revents & POLLIN))
            return BLY_SUPERVISE_OVER;
        r = serve_one(supervisor, listener_fd);
        if (r < 0)
            return r;
    }
    return 0;
}
