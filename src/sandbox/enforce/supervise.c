#include "sandbox/enforce/supervise_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/casefold.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/plan/plan_internal.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV /* since Linux 5.19 */
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "supervised creation knows x86_64 and aarch64"
#endif

/* ---- the reporting filter ---- */

enum { ALWAYS = -1 };

static const struct supervised {
    long nr;
    int flags_arg; /* reported only when this argument has O_CREAT; ALWAYS */
    enum bly_shape shape;
    int (*handle)(struct bly_reported *call, enum bly_shape shape);
} supervised[] = {
    {SYS_openat, 2, BLY_SHAPE_AT, bly_on_open},
    {SYS_mkdirat, ALWAYS, BLY_SHAPE_AT, bly_on_mkdir},
    {SYS_mknodat, ALWAYS, BLY_SHAPE_AT, bly_on_mknod},
    {SYS_symlinkat, ALWAYS, BLY_SHAPE_AT, bly_on_symlink},
    {SYS_linkat, ALWAYS, BLY_SHAPE_AT, bly_on_link},
    {SYS_renameat2, ALWAYS, BLY_SHAPE_AT, bly_on_rename},
    {SYS_bind, ALWAYS, BLY_SHAPE_PLAIN, bly_on_bind},
#ifdef SYS_renameat
    {SYS_renameat, ALWAYS, BLY_SHAPE_AT, bly_on_rename},
#endif
#ifdef SYS_open
    {SYS_open, 1, BLY_SHAPE_PLAIN, bly_on_open},
    {SYS_creat, ALWAYS, BLY_SHAPE_PLAIN, bly_on_open},
    {SYS_mkdir, ALWAYS, BLY_SHAPE_PLAIN, bly_on_mkdir},
    {SYS_mknod, ALWAYS, BLY_SHAPE_PLAIN, bly_on_mknod},
    {SYS_symlink, ALWAYS, BLY_SHAPE_PLAIN, bly_on_symlink},
    {SYS_link, ALWAYS, BLY_SHAPE_PLAIN, bly_on_link},
    {SYS_rename, ALWAYS, BLY_SHAPE_PLAIN, bly_on_rename},
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

static int guard_init(struct bly_guard *guard, const struct bly_absent *absent, struct bly_err *err)
{
    bly_autofd int fd = open(absent->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    /* A directory that may be searched but not read can still be watched. */
    if (fd < 0)
        fd = open(absent->dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return bly_fail_sys(err, errno, "cannot guard %s in %s", absent->name, absent->dir);

    /* It stays like that: the filter lets nobody inside set flags. */
    *guard = (struct bly_guard){.dev = st.st_dev,
                                .ino = st.st_ino,
                                .fold = bly_casefold_in(fd),
                                .name = strdup(absent->name)};
    if (guard->name == NULL)
        return bly_fail_sys(err, ENOMEM, "cannot guard %s", absent->name);
    if (guard->fold)
        bly_casefold(absent->name, strlen(absent->name), guard->name);
    return 0;
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

/* ---- serving ---- */

int bly_reported_answer(const struct bly_reported *call, int r)
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
    struct bly_reported call;
    int r;

    memset(supervisor->notif, 0, supervisor->notif_size);
    if (ioctl(listener_fd, SECCOMP_IOCTL_NOTIF_RECV, supervisor->notif) < 0)
        return errno == ENOENT || errno == EINTR ? 0 : -errno; /* ENOENT: killed before we saw it */

    call = (struct bly_reported){.supervisor = supervisor,
                                 .listener_fd = listener_fd,
                                 .id = notif->id,
                                 .tid = (pid_t)notif->pid,
                                 .nr = notif->data.nr,
                                 .args = (const uint64_t *)notif->data.args};
    row = find_supervised(call.nr);
    if (!row)
        return bly_reported_answer(&call, -ENOSYS);
    r = bly_reported_learn(&call);
    if (r == 0) {
        (void)umask(call.umask);
        r = row->handle(&call, row->shape);
    }
    return r == BLY_ANSWERED ? 0 : bly_reported_answer(&call, r);
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
