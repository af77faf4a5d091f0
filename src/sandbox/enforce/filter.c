/*
 * Seccomp. The filters are made once, by libseccomp, and kept as programs; children install them
 * with the bare system call. In front of each comes a short program of our own for the two things
 * libseccomp cannot say: x32 calls get ENOSYS, and personality() has a list of allowed values.
 */
#include "sandbox/enforce/enforce_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/sanitized.h"

/* Numbers that are the same on every architecture and newer than the headers we build with. */
enum {
    NR_SET_MEMPOLICY_HOME_NODE = 450,
    NR_FCHMODAT2 = 452,
    NR_SETXATTRAT = 463,
    NR_REMOVEXATTRAT = 466,
    NR_OPEN_TREE_ATTR = 467,
    NR_FILE_SETATTR = 469,
};

struct program {
    struct sock_filter *code;
    size_t n;
};

static struct program programs[BLY_FILTER_COUNT];

/* ---- tables ---- */

/* One comparison of 32 bits of one argument; the kernel ignores the upper half of an int. */
struct rule {
    int nr;
    uint16_t error; /* ignored in the helper's list of what is allowed */
    enum { WHOLE, MASKED, NOT_NULL, NULL_ONLY } test;
    unsigned arg;
    uint64_t mask, value;
};

#define BIT_SET(nr, error, arg, bit)     \
    {                                    \
        nr, error, MASKED, arg, bit, bit \
    }
#define BIT_CLEAR(nr, error, arg, bit) \
    {                                  \
        nr, error, MASKED, arg, bit, 0 \
    }
#define EQUALS(nr, error, arg, v)             \
    {                                         \
        nr, error, MASKED, arg, 0xffffffff, v \
    }

static const struct rule deny_always[] = {
    /* other processes */
    {SCMP_SYS(ptrace), EPERM},
    {SCMP_SYS(process_vm_readv), EPERM},
    {SCMP_SYS(process_vm_writev), EPERM},
    {SCMP_SYS(pidfd_getfd), EPERM},
    {SCMP_SYS(process_madvise), EPERM},
    {SCMP_SYS(kcmp), EPERM},
    /* asynchronous I/O carries out calls that no filter sees */
    {SCMP_SYS(io_uring_setup), ENOSYS},
    {SCMP_SYS(io_uring_enter), ENOSYS},
    {SCMP_SYS(io_uring_register), ENOSYS},
    /* namespaces; libc falls back from clone3 to clone on ENOSYS only */
    {SCMP_SYS(setns), EPERM},
    {SCMP_SYS(clone3), ENOSYS},
    BIT_SET(SCMP_SYS(clone), EPERM, 0, CLONE_NEWNS),
    BIT_SET(SCMP_SYS(clone), EPERM, 0, CLONE_NEWCGROUP),
    BIT_SET(SCMP_SYS(clone), EPERM, 0, CLONE_NEWUTS),
    BIT_SET(SCMP_SYS(clone), EPERM, 0, CLONE_NEWIPC),
    BIT_SET(SCMP_SYS(clone), EPERM, 0, CLONE_NEWUSER),
    BIT_SET(SCMP_SYS(clone), EPERM, 0, CLONE_NEWPID),
    BIT_SET(SCMP_SYS(clone), EPERM, 0, CLONE_NEWNET),
    BIT_SET(SCMP_SYS(unshare), EPERM, 0, CLONE_NEWNS),
    BIT_SET(SCMP_SYS(unshare), EPERM, 0, CLONE_NEWCGROUP),
    BIT_SET(SCMP_SYS(unshare), EPERM, 0, CLONE_NEWUTS),
    BIT_SET(SCMP_SYS(unshare), EPERM, 0, CLONE_NEWIPC),
    BIT_SET(SCMP_SYS(unshare), EPERM, 0, CLONE_NEWUSER),
    BIT_SET(SCMP_SYS(unshare), EPERM, 0, CLONE_NEWPID),
    BIT_SET(SCMP_SYS(unshare), EPERM, 0, CLONE_NEWNET),
    BIT_SET(SCMP_SYS(unshare), EPERM, 0, CLONE_NEWTIME),
    /* mounts */
    {SCMP_SYS(mount), EPERM},
    {SCMP_SYS(umount), EPERM},
    {SCMP_SYS(umount2), EPERM},
    {SCMP_SYS(pivot_root), EPERM},
    {SCMP_SYS(chroot), EPERM},
    {SCMP_SYS(open_tree), EPERM},
    {NR_OPEN_TREE_ATTR, EPERM},
    {SCMP_SYS(move_mount), EPERM},
    {SCMP_SYS(fsopen), EPERM},
    {SCMP_SYS(fsconfig), EPERM},
    {SCMP_SYS(fsmount), EPERM},
    {SCMP_SYS(fspick), EPERM},
    {SCMP_SYS(mount_setattr), EPERM},
    /* files by number */
    {SCMP_SYS(open_by_handle_at), EPERM},
    {SCMP_SYS(name_to_handle_at), EPERM},
    /* keys of the server's user */
    {SCMP_SYS(add_key), EPERM},
    {SCMP_SYS(request_key), EPERM},
    {SCMP_SYS(keyctl), EPERM},
    /* the kernel */
    {SCMP_SYS(bpf), EPERM},
    {SCMP_SYS(perf_event_open), EPERM},
    {SCMP_SYS(userfaultfd), EPERM},
    {SCMP_SYS(kexec_load), EPERM},
    {SCMP_SYS(kexec_file_load), EPERM},
    {SCMP_SYS(init_module), EPERM},
    {SCMP_SYS(finit_module), EPERM},
    {SCMP_SYS(delete_module), EPERM},
    {SCMP_SYS(reboot), EPERM},
    {SCMP_SYS(swapon), EPERM},
    {SCMP_SYS(swapoff), EPERM},
    {SCMP_SYS(acct), EPERM},
    {SCMP_SYS(quotactl), EPERM},
    {SCMP_SYS(quotactl_fd), EPERM},
    {SCMP_SYS(syslog), EPERM},
    {SCMP_SYS(iopl), EPERM},
    {SCMP_SYS(ioperm), EPERM},
    {SCMP_SYS(settimeofday), EPERM},
    {SCMP_SYS(clock_settime), EPERM},
    {SCMP_SYS(clock_adjtime), EPERM},
    {SCMP_SYS(adjtimex), EPERM},
    {SCMP_SYS(vhangup), EPERM},
    {SCMP_SYS(nfsservctl), EPERM},
    {SCMP_SYS(lookup_dcookie), EPERM},
    {SCMP_SYS(move_pages), EPERM},
    {SCMP_SYS(mbind), EPERM},
    {SCMP_SYS(migrate_pages), EPERM},
    {NR_SET_MEMPOLICY_HOME_NODE, EPERM},
    /* terminals: what pushes characters into them or changes what they are */
    EQUALS(SCMP_SYS(ioctl), EPERM, 1, TIOCSTI),
    EQUALS(SCMP_SYS(ioctl), EPERM, 1, TIOCLINUX),
    EQUALS(SCMP_SYS(ioctl), EPERM, 1, TIOCSETD),
    EQUALS(SCMP_SYS(ioctl), EPERM, 1, TIOCCONS),
    /* an empty directory made to fold case, where a name is watched that is not there yet */
    EQUALS(SCMP_SYS(ioctl), EOPNOTSUPP, 1, FS_IOC_SETFLAGS),
    /* old processor modes */
    {SCMP_SYS(modify_ldt), EPERM},
    {SCMP_SYS(vm86), EPERM},
    {SCMP_SYS(vm86old), EPERM},
};

/* What cannot be allowed for every address is not allowed at all; see the spec, 6.4. Of the types
 * only stream (1) and seqpacket (5) pass: bit 0 set, bits 1 and 3 clear. */
#define ONLY_CONNECTED_TYPES(nr) \
    BIT_CLEAR(nr, EPERM, 1, 1), BIT_SET(nr, EPERM, 1, 2), BIT_SET(nr, EPERM, 1, 8)

static const struct rule deny_offline[] = {
    {SCMP_SYS(connect), EPERM},
    {SCMP_SYS(bind), EPERM},
    {SCMP_SYS(listen), EPERM},
    {SCMP_SYS(accept), EPERM},
    {SCMP_SYS(accept4), EPERM},
    {SCMP_SYS(socket), EPERM, NOT_NULL, 0, 0, AF_UNIX},
    {SCMP_SYS(socketpair), EPERM, NOT_NULL, 0, 0, AF_UNIX},
    ONLY_CONNECTED_TYPES(SCMP_SYS(socket)),
    ONLY_CONNECTED_TYPES(SCMP_SYS(socketpair)),
    {SCMP_SYS(sendto), EPERM, NOT_NULL, 4, 0, 0},
};

static const struct rule deny_online[] = {
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_VSOCK),
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_ALG),
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_PACKET),
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_BLUETOOTH),
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_CAN),
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_TIPC),
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_RDS),
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_KCM),
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_XDP),
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_SMC),
    EQUALS(SCMP_SYS(socket), EPERM, 0, AF_QIPCRTR),
};

#define NOT_SELF(nr, arg)              \
    {                                  \
        nr, EPERM, NOT_NULL, arg, 0, 0 \
    }

/*
 * What the namespaces would take care of and Landlock does not. All of it changes something
 * outside, and nothing outside may be changed; 0 stands for the caller itself.
 */
static const struct rule deny_locked[] = {
    /* what a file is, besides its contents */
    {SCMP_SYS(chmod), EPERM},
    {SCMP_SYS(fchmod), EPERM},
    {SCMP_SYS(fchmodat), EPERM},
    {NR_FCHMODAT2, EPERM},
    {SCMP_SYS(chown), EPERM},
    {SCMP_SYS(chown32), EPERM},
    {SCMP_SYS(lchown), EPERM},
    {SCMP_SYS(lchown32), EPERM},
    {SCMP_SYS(fchown), EPERM},
    {SCMP_SYS(fchown32), EPERM},
    {SCMP_SYS(fchownat), EPERM},
    {SCMP_SYS(utime), EPERM},
    {SCMP_SYS(utimes), EPERM},
    {SCMP_SYS(futimesat), EPERM},
    {SCMP_SYS(utimensat), EPERM},
    {SCMP_SYS(utimensat_time64), EPERM},
    {SCMP_SYS(setxattr), EPERM},
    {SCMP_SYS(lsetxattr), EPERM},
    {SCMP_SYS(fsetxattr), EPERM},
    {NR_SETXATTRAT, EPERM},
    {SCMP_SYS(removexattr), EPERM},
    {SCMP_SYS(lremovexattr), EPERM},
    {SCMP_SYS(fremovexattr), EPERM},
    {NR_REMOVEXATTRAT, EPERM},
    {NR_FILE_SETATTR, EPERM},
    EQUALS(SCMP_SYS(ioctl), EPERM, 1, FS_IOC_SETFLAGS),
    EQUALS(SCMP_SYS(ioctl), EPERM, 1, FS_IOC_FSSETXATTR),
    /* System V and POSIX objects of the same user */
    {SCMP_SYS(shmget), EPERM},
    {SCMP_SYS(shmat), EPERM},
    {SCMP_SYS(shmctl), EPERM},
    {SCMP_SYS(semget), EPERM},
    {SCMP_SYS(semop), EPERM},
    {SCMP_SYS(semtimedop), EPERM},
    {SCMP_SYS(semctl), EPERM},
    {SCMP_SYS(msgget), EPERM},
    {SCMP_SYS(msgsnd), EPERM},
    {SCMP_SYS(msgrcv), EPERM},
    {SCMP_SYS(msgctl), EPERM},
    {SCMP_SYS(mq_open), EPERM},
    {SCMP_SYS(mq_unlink), EPERM},
    /* other processes of the same user */
    NOT_SELF(SCMP_SYS(prlimit64), 0),
    NOT_SELF(SCMP_SYS(setpriority), 1),
    NOT_SELF(SCMP_SYS(ioprio_set), 1),
    NOT_SELF(SCMP_SYS(sched_setaffinity), 0),
    NOT_SELF(SCMP_SYS(sched_setscheduler), 0),
    NOT_SELF(SCMP_SYS(sched_setparam), 0),
    NOT_SELF(SCMP_SYS(sched_setattr), 0),
};

#define ALLOW(name)    \
    {                  \
        SCMP_SYS(name) \
    }

/* All that fs/ops and a C library's memory management need. */
static const struct rule allow_helper[] = {
    ALLOW(read),
    ALLOW(write),
    ALLOW(readv),
    ALLOW(writev),
    ALLOW(pread64),
    ALLOW(pwrite64),
    ALLOW(openat),
    ALLOW(openat2),
    ALLOW(close),
    ALLOW(close_range),
    ALLOW(fstat),
    ALLOW(newfstatat),
    ALLOW(fstatat64),
    ALLOW(statx),
    ALLOW(statfs),
    ALLOW(fstatfs),
    ALLOW(lseek),
    ALLOW(_llseek),
    ALLOW(ftruncate),
    ALLOW(ftruncate64),
    ALLOW(fallocate),
    ALLOW(fadvise64),
    ALLOW(unlinkat),
    ALLOW(mkdirat),
    ALLOW(symlinkat),
    ALLOW(readlinkat),
    ALLOW(getdents64),
    ALLOW(fchmod),
    ALLOW(umask),
    ALLOW(copy_file_range),
    ALLOW(sendfile),
    ALLOW(recvmsg),
    ALLOW(sendmsg),
    ALLOW(recvfrom),
    ALLOW(shutdown),
    {SCMP_SYS(sendto), 0, NULL_ONLY, 4, 0, 0},
    ALLOW(poll),
    ALLOW(ppoll),
    ALLOW(dup),
    ALLOW(memfd_create),
    EQUALS(SCMP_SYS(fcntl), 0, 1, F_DUPFD),
    EQUALS(SCMP_SYS(fcntl), 0, 1, F_DUPFD_CLOEXEC),
    EQUALS(SCMP_SYS(fcntl), 0, 1, F_GETFD),
    EQUALS(SCMP_SYS(fcntl), 0, 1, F_SETFD),
    EQUALS(SCMP_SYS(fcntl), 0, 1, F_GETFL),
    EQUALS(SCMP_SYS(fcntl), 0, 1, F_SETFL),
    EQUALS(SCMP_SYS(fcntl), 0, 1, F_ADD_SEALS),
    EQUALS(SCMP_SYS(fcntl), 0, 1, F_GET_SEALS),
    EQUALS(SCMP_SYS(ioctl), 0, 1, FICLONE),
    EQUALS(SCMP_SYS(ioctl), 0, 1, FS_IOC_GETFLAGS),
    /* memory, never executable */
    BIT_CLEAR(SCMP_SYS(mmap), 0, 2, PROT_EXEC),
    BIT_CLEAR(SCMP_SYS(mmap2), 0, 2, PROT_EXEC),
    BIT_CLEAR(SCMP_SYS(mprotect), 0, 2, PROT_EXEC),
    ALLOW(munmap),
    ALLOW(mremap),
    ALLOW(madvise),
    ALLOW(brk),
    ALLOW(futex),
    ALLOW(getrandom),
    ALLOW(restart_syscall),
    ALLOW(sched_yield),
    ALLOW(clock_gettime),
    ALLOW(clock_nanosleep),
    ALLOW(gettimeofday),
    ALLOW(getpid),
    ALLOW(gettid),
    ALLOW(getuid),
    ALLOW(geteuid),
    ALLOW(getgid),
    ALLOW(getegid),
    ALLOW(rt_sigreturn),
    ALLOW(rt_sigprocmask),
    ALLOW(exit),
    ALLOW(exit_group),
#if BLY_SANITIZED
    ALLOW(mmap),
    ALLOW(mprotect),
    ALLOW(rt_sigaction),
    ALLOW(sigaltstack),
    ALLOW(tgkill),
    ALLOW(getrlimit),
    ALLOW(prlimit64),
    ALLOW(sched_getaffinity),
    ALLOW(prctl),
    ALLOW(ioctl),
    ALLOW(getppid),
    ALLOW(set_robust_list),
    ALLOW(rseq),
#endif
};

/* ---- making ---- */

static int add_rule(scmp_filter_ctx ctx, const struct rule *rule, uint32_t action)
{
    switch (rule->test) {
    case WHOLE:
        return seccomp_rule_add(ctx, action, rule->nr, 0);
    case MASKED:
        return seccomp_rule_add(ctx, action, rule->nr, 1,
                                SCMP_CMP64(rule->arg, SCMP_CMP_MASKED_EQ, rule->mask, rule->value));
    case NOT_NULL:
        return seccomp_rule_add(ctx, action, rule->nr, 1,
                                SCMP_CMP64(rule->arg, SCMP_CMP_NE, rule->value));
    case NULL_ONLY:
        return seccomp_rule_add(ctx, action, rule->nr, 1,
                                SCMP_CMP64(rule->arg, SCMP_CMP_EQ, rule->value));
    }
    return -EINVAL;
}

static int add_rules(scmp_filter_ctx ctx, const struct rule *rules, size_t n, bool allow,
                     struct bly_err *err)
{
    for (size_t i = 0; i < n; i++) {
        int r = add_rule(ctx, &rules[i], allow ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(rules[i].error));

        if (r < 0)
            return bly_fail_sys(err, -r, "cannot filter system call %d", rules[i].nr);
    }
    return 0;
}

static int add_all(scmp_filter_ctx ctx, enum bly_filter filter, struct bly_err *err)
{
    int r;

    if (filter == BLY_FILTER_HELPER)
        return add_rules(ctx, allow_helper, BLY_LEN(allow_helper), true, err);
    if (filter == BLY_FILTER_LOCKED)
        return add_rules(ctx, deny_locked, BLY_LEN(deny_locked), false, err);
    r = add_rules(ctx, deny_always, BLY_LEN(deny_always), false, err);
    if (r < 0)
        return r;
    if (filter == BLY_FILTER_PROCESS_OFFLINE)
        return add_rules(ctx, deny_offline, BLY_LEN(deny_offline), false, err);
    return add_rules(ctx, deny_online, BLY_LEN(deny_online), false, err);
}

enum { PROLOGUE_MAX = 16 };

#define LOAD(field)             BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(v)               BPF_STMT(BPF_RET | BPF_K, v)
#define IF_EQUAL(k, yes, no)    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, yes, no)
#define IF_AT_LEAST(k, yes, no) BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, k, yes, no)

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the low half of an argument is elsewhere on this machine"
#endif

/*
 * Falls through to libseccomp's program, which comes right behind it and kills other architectures.
 * The helper needs none: there x32 is one more of them, and personality() is not allowed.
 */
static size_t write_prologue(enum bly_filter filter, struct sock_filter *out)
{
    const struct sock_filter prologue[] = {
        /* 0 */ LOAD(arch),
        /* 1 */ IF_EQUAL(seccomp_arch_native(), 0, 13),
        /* 2 */ LOAD(nr),
        /* 3 */ IF_AT_LEAST(0x40000000, 0, 2),
        /* 4 */ IF_EQUAL(0xffffffff, 10, 0), /* a call that a tracer skipped */
        /* 5 */ RETURN(SECCOMP_RET_ERRNO | ENOSYS),
        /* 6 */ IF_EQUAL(SYS_personality, 0, 8),
        /* 7 */ LOAD(args[0]),
        /* 8 */ IF_EQUAL(0, 5, 0),
        /* 9 */ IF_EQUAL(0x8, 4, 0),
        /* 10 */ IF_EQUAL(0x20000, 3, 0),
        /* 11 */ IF_EQUAL(0x20008, 2, 0),
        /* 12 */ IF_EQUAL(0xffffffff, 1, 0),
        /* 13 */ RETURN(SECCOMP_RET_ERRNO | EPERM),
        /* 14 */ RETURN(SECCOMP_RET_ALLOW),
    };

    _Static_assert(BLY_LEN(prologue) <= PROLOGUE_MAX, "room");
    if (filter == BLY_FILTER_HELPER)
        return 0;
    memcpy(out, prologue, sizeof(prologue));
    return BLY_LEN(prologue);
}

static int export_program(scmp_filter_ctx ctx, enum bly_filter filter, struct bly_err *err)
{
    bly_autofd int fd = memfd_create("filter", MFD_CLOEXEC);
    bly_autofree struct sock_filter *code = NULL;
    struct stat st;
    size_t n;
    int r;

    if (fd < 0)
        return bly_fail_sys(err, errno, "cannot make room for a system call filter");
    r = seccomp_export_bpf(ctx, fd);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot compile a system call filter");
    if (fstat(fd, &st) < 0)
        return bly_fail_sys(err, errno, "cannot measure a system call filter");
    code = calloc((size_t)st.st_size / sizeof(*code) + PROLOGUE_MAX, sizeof(*code));
    if (!code)
        return bly_fail_sys(err, ENOMEM, "cannot keep a system call filter");
    n = write_prologue(filter, code);
    if (pread(fd, code + n, (size_t)st.st_size, 0) != st.st_size)
        return bly_fail_sys(err, EIO, "cannot read a system call filter");
    free(programs[filter].code);
    programs[filter].n = n + (size_t)st.st_size / sizeof(*code);
    programs[filter].code = bly_take_ptr(&code);
    return 0;
}

static void releasep(scmp_filter_ctx *ctx)
{
    if (*ctx)
        seccomp_release(*ctx);
}

static int compile(enum bly_filter filter, struct bly_err *err)
{
    __attribute__((cleanup(releasep))) scmp_filter_ctx ctx =
        seccomp_init(filter == BLY_FILTER_HELPER ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ALLOW);
    int r;

    if (!ctx)
        return bly_fail_sys(err, ENOMEM, "cannot make a system call filter");
    r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (r == 0)
        r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot set up a system call filter");
    r = add_all(ctx, filter, err);
    return r < 0 ? r : export_program(ctx, filter, err);
}

int bly_filter_compile_all(struct bly_err *err)
{
    for (int filter = 0; filter < BLY_FILTER_COUNT; filter++) {
        int r = compile((enum bly_filter)filter, err);

        if (r < 0)
            return r;
    }
    return 0;
}

const struct sock_filter *bly_filter_program(enum bly_filter filter, size_t *ret_n)
{
    *ret_n = programs[filter].n;
    return programs[filter].code;
}

int bly_filter_install(enum bly_filter filter, struct bly_err *err)
{
    struct sock_fprog program = {(unsigned short)programs[filter].n, programs[filter].code};

    if (!program.filter)
        return bly_fail(err, BLY_ERR_BUG, EINVAL, "the wall was not prepared");
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
        return bly_fail_sys(err, errno, "cannot install the system call filter");
    return 0;
}
