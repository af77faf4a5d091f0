/*
 * The meaning of the system call filters: rows of (call, arguments, verdict), decided by a small
 * interpreter for the instructions that seccomp programs consist of. Nothing is installed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/sanitized.h"
#include "sandbox/enforce/enforce_internal.h"
#include "support/rows.h"

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#endif

#define ALLOWED  SECCOMP_RET_ALLOW
#define KILLED   SECCOMP_RET_KILL_PROCESS
#define FAILS(e) (SECCOMP_RET_ERRNO | (e))

enum {
    HELPER = BLY_FILTER_HELPER,
    OFF = BLY_FILTER_PROCESS_OFFLINE,
    ON = BLY_FILTER_PROCESS_ONLINE,
    LOCKED = BLY_FILTER_LOCKED
};

#define HIGH 0xdead00000000ULL /* garbage in the half that the kernel ignores */

static const struct filter_case {
    const char *name;
    int filter;
    uint32_t verdict;
    long nr;
    uint64_t args[6];
    uint32_t arch; /* 0: native */
} cases[] = {
    {"helper: read", HELPER, ALLOWED, SYS_read},
    {"helper: openat", HELPER, ALLOWED, SYS_openat},
    {"helper: openat2", HELPER, ALLOWED, SYS_openat2},
    {"helper: sendmsg", HELPER, ALLOWED, SYS_sendmsg},
    {"helper: exit_group", HELPER, ALLOWED, SYS_exit_group},
    {"helper: memory", HELPER, ALLOWED, SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE}},
    {"helper: send without an address", HELPER, ALLOWED, SYS_sendto, {3, 1, 2, 0, 0, 0}},
    {"helper: send to an address", HELPER, KILLED, SYS_sendto, {3, 1, 2, 0, 0x1000, 16}},
    {"helper: send to an address in the high half",
     HELPER,
     KILLED,
     SYS_sendto,
     {3, 1, 2, 0, 0x100000000, 16}},
    {"helper: dup", HELPER, ALLOWED, SYS_fcntl, {3, F_DUPFD_CLOEXEC, 3}},
    {"helper: signals for I/O", HELPER, KILLED, SYS_fcntl, {3, F_SETOWN, 1}},
    {"helper: socket", HELPER, KILLED, SYS_socket, {AF_UNIX, SOCK_STREAM}},
    {"helper: connect", HELPER, KILLED, SYS_connect},
    {"helper: execve", HELPER, KILLED, SYS_execve},
    {"helper: execveat", HELPER, KILLED, SYS_execveat},
    {"helper: clone", HELPER, KILLED, SYS_clone, {17}},
    {"helper: clone3", HELPER, KILLED, SYS_clone3},
    {"helper: ptrace", HELPER, KILLED, SYS_ptrace},
    {"helper: mount", HELPER, KILLED, SYS_mount},
    {"helper: chroot", HELPER, KILLED, SYS_chroot},
    {"helper: kill", HELPER, KILLED, SYS_kill},
    {"helper: setrlimit", HELPER, KILLED, SYS_setrlimit},
    {"helper: io_uring", HELPER, KILLED, SYS_io_uring_setup},
    {"helper: an unknown call", HELPER, KILLED, 4000},
    {"helper: another architecture", HELPER, KILLED, SYS_read, {0}, AUDIT_ARCH_I386},
#if !BLY_SANITIZED /* there the helper's list is longer */
    {"helper: executable memory", HELPER, KILLED, SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC}},
    {"helper: memory made executable", HELPER, KILLED, SYS_mprotect, {0, 4096, PROT_EXEC}},
    {"helper: terminals", HELPER, KILLED, SYS_ioctl, {0, TIOCSTI}},
#endif

    {"offline: ordinary work", OFF, ALLOWED, SYS_openat},
    {"offline: execve", OFF, ALLOWED, SYS_execve},
    {"offline: fork", OFF, ALLOWED, SYS_clone, {17}},
    {"offline: threads", OFF, ALLOWED, SYS_clone, {CLONE_VM | CLONE_THREAD | CLONE_SIGHAND}},
    {"offline: clone3, so that libc falls back", OFF, FAILS(ENOSYS), SYS_clone3},
    {"offline: clone with a user namespace", OFF, FAILS(EPERM), SYS_clone, {CLONE_NEWUSER | 17}},
    {"offline: clone with a network namespace among others",
     OFF,
     FAILS(EPERM),
     SYS_clone,
     {CLONE_NEWNET | CLONE_VM | 17}},
    {"offline: clone with a mount namespace and garbage",
     OFF,
     FAILS(EPERM),
     SYS_clone,
     {HIGH | CLONE_NEWNS}},
    {"offline: unshare of files", OFF, ALLOWED, SYS_unshare, {CLONE_FILES | CLONE_FS}},
    {"offline: unshare of a user namespace", OFF, FAILS(EPERM), SYS_unshare, {CLONE_NEWUSER}},
    {"offline: unshare of a time namespace", OFF, FAILS(EPERM), SYS_unshare, {CLONE_NEWTIME}},
    {"offline: unshare of a cgroup namespace", OFF, FAILS(EPERM), SYS_unshare, {CLONE_NEWCGROUP}},
    {"offline: setns", OFF, FAILS(EPERM), SYS_setns},
    {"offline: ptrace", OFF, FAILS(EPERM), SYS_ptrace},
    {"offline: process_vm_readv", OFF, FAILS(EPERM), SYS_process_vm_readv},
    {"offline: pidfd_getfd", OFF, FAILS(EPERM), SYS_pidfd_getfd},
    {"offline: io_uring", OFF, FAILS(ENOSYS), SYS_io_uring_setup},
    {"offline: mount", OFF, FAILS(EPERM), SYS_mount},
    {"offline: open_tree", OFF, FAILS(EPERM), SYS_open_tree},
    {"offline: open_tree_attr", OFF, FAILS(EPERM), 467},
    {"offline: mount_setattr", OFF, FAILS(EPERM), SYS_mount_setattr},
    {"offline: chroot", OFF, FAILS(EPERM), SYS_chroot},
    {"offline: open_by_handle_at", OFF, FAILS(EPERM), SYS_open_by_handle_at},
    {"offline: keyctl", OFF, FAILS(EPERM), SYS_keyctl},
    {"offline: bpf", OFF, FAILS(EPERM), SYS_bpf},
    {"offline: userfaultfd", OFF, FAILS(EPERM), SYS_userfaultfd},
    {"offline: syslog", OFF, FAILS(EPERM), SYS_syslog},
    {"offline: personality query", OFF, ALLOWED, SYS_personality, {0xffffffff}},
    {"offline: personality 0", OFF, ALLOWED, SYS_personality, {0}},
    {"offline: personality 8", OFF, ALLOWED, SYS_personality, {8}},
    {"offline: personality 0x20008", OFF, ALLOWED, SYS_personality, {0x20008}},
    {"offline: no randomisation", OFF, FAILS(EPERM), SYS_personality, {0x40000}},
    {"offline: readable is executable", OFF, FAILS(EPERM), SYS_personality, {0x400000}},
    {"offline: personality with garbage", OFF, FAILS(EPERM), SYS_personality, {HIGH | 0x400000}},
    {"offline: terminal size", OFF, ALLOWED, SYS_ioctl, {0, TIOCGWINSZ}},
    {"offline: TIOCSTI", OFF, FAILS(EPERM), SYS_ioctl, {0, TIOCSTI}},
    {"offline: TIOCSTI with garbage", OFF, FAILS(EPERM), SYS_ioctl, {0, HIGH | TIOCSTI}},
    {"offline: TIOCLINUX", OFF, FAILS(EPERM), SYS_ioctl, {0, TIOCLINUX}},
    {"offline: TIOCSETD", OFF, FAILS(EPERM), SYS_ioctl, {0, TIOCSETD}},
    {"offline: TIOCCONS", OFF, FAILS(EPERM), SYS_ioctl, {0, TIOCCONS}},
    {"offline: flags of files", OFF, FAILS(EOPNOTSUPP), SYS_ioctl, {3, FS_IOC_SETFLAGS}},
    {"offline: flags, with garbage",
     OFF,
     FAILS(EOPNOTSUPP),
     SYS_ioctl,
     {3, HIGH | FS_IOC_SETFLAGS}},
    {"offline: another architecture", OFF, KILLED, 1, {0}, AUDIT_ARCH_I386},

    {"offline: UNIX stream", OFF, ALLOWED, SYS_socket, {AF_UNIX, SOCK_STREAM}},
    {"offline: UNIX stream with flags",
     OFF,
     ALLOWED,
     SYS_socket,
     {AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK}},
    {"offline: UNIX seqpacket", OFF, ALLOWED, SYS_socket, {AF_UNIX, SOCK_SEQPACKET}},
    {"offline: UNIX datagram", OFF, FAILS(EPERM), SYS_socket, {AF_UNIX, SOCK_DGRAM}},
    {"offline: UNIX raw, which becomes a datagram",
     OFF,
     FAILS(EPERM),
     SYS_socket,
     {AF_UNIX, SOCK_RAW | SOCK_CLOEXEC}},
    {"offline: UNIX datagram with garbage",
     OFF,
     FAILS(EPERM),
     SYS_socket,
     {AF_UNIX, HIGH | SOCK_DGRAM}},
    {"offline: TCP", OFF, FAILS(EPERM), SYS_socket, {AF_INET, SOCK_STREAM}},
    {"offline: netlink", OFF, FAILS(EPERM), SYS_socket, {AF_NETLINK, SOCK_RAW}},
    {"offline: a family that looks like AF_UNIX in the low half",
     OFF,
     FAILS(EPERM),
     SYS_socket,
     {HIGH | AF_UNIX, SOCK_STREAM}},
    {"offline: socketpair", OFF, ALLOWED, SYS_socketpair, {AF_UNIX, SOCK_STREAM}},
    {"offline: datagram socketpair", OFF, FAILS(EPERM), SYS_socketpair, {AF_UNIX, SOCK_DGRAM}},
    {"offline: connect", OFF, FAILS(EPERM), SYS_connect},
    {"offline: bind", OFF, FAILS(EPERM), SYS_bind},
    {"offline: listen", OFF, FAILS(EPERM), SYS_listen},
    {"offline: accept4", OFF, FAILS(EPERM), SYS_accept4},
    {"offline: send", OFF, ALLOWED, SYS_sendto, {3, 1, 2, 0, 0, 0}},
    {"offline: sendto", OFF, FAILS(EPERM), SYS_sendto, {3, 1, 2, 0, 0x7f00, 16}},
    {"offline: sendto with an address above 4 GiB",
     OFF,
     FAILS(EPERM),
     SYS_sendto,
     {3, 1, 2, 0, 0x100000000, 16}},
    {"offline: sendmsg", OFF, ALLOWED, SYS_sendmsg},
    {"offline: getpeername", OFF, ALLOWED, SYS_getpeername},
    {"offline: shutdown", OFF, ALLOWED, SYS_shutdown},

    {"online: TCP", ON, ALLOWED, SYS_socket, {AF_INET, SOCK_STREAM}},
    {"online: connect", ON, ALLOWED, SYS_connect},
    {"online: sendto", ON, ALLOWED, SYS_sendto, {3, 1, 2, 0, 0x7f00, 16}},
    {"online: netlink", ON, ALLOWED, SYS_socket, {AF_NETLINK, SOCK_RAW}},
    {"online: vsock", ON, FAILS(EPERM), SYS_socket, {AF_VSOCK, SOCK_STREAM}},
    {"online: AF_ALG with garbage", ON, FAILS(EPERM), SYS_socket, {HIGH | AF_ALG, SOCK_SEQPACKET}},
    {"online: packets", ON, FAILS(EPERM), SYS_socket, {AF_PACKET, SOCK_RAW}},
    {"online: ptrace", ON, FAILS(EPERM), SYS_ptrace},
    {"online: mount", ON, FAILS(EPERM), SYS_mount},
    {"locked: chmod", LOCKED, FAILS(EPERM), SYS_fchmodat},
    {"locked: the newer chmod", LOCKED, FAILS(EPERM), 452},
    {"locked: chown", LOCKED, FAILS(EPERM), SYS_fchownat},
    {"locked: times", LOCKED, FAILS(EPERM), SYS_utimensat},
    {"locked: attributes", LOCKED, FAILS(EPERM), SYS_setxattr},
    {"locked: the newer attributes", LOCKED, FAILS(EPERM), 463},
    {"locked: flags", LOCKED, FAILS(EPERM), SYS_ioctl, {3, FS_IOC_SETFLAGS}},
    {"locked: other ioctls", LOCKED, ALLOWED, SYS_ioctl, {3, TCGETS}},
    {"locked: shared memory", LOCKED, FAILS(EPERM), SYS_shmget},
    {"locked: message queues", LOCKED, FAILS(EPERM), SYS_mq_open},
    {"locked: own limits", LOCKED, ALLOWED, SYS_prlimit64, {0, 4}},
    {"locked: another's limits", LOCKED, FAILS(EPERM), SYS_prlimit64, {1, 4}},
    {"locked: own priority", LOCKED, ALLOWED, SYS_setpriority, {0, 0, 5}},
    {"locked: another's priority", LOCKED, FAILS(EPERM), SYS_setpriority, {0, 1, 5}},
    {"locked: everything else", LOCKED, ALLOWED, SYS_openat},
    {"online: personality", ON, FAILS(EPERM), SYS_personality, {0x40000}},
#if defined(__x86_64__)
    {"helper: x32", HELPER, KILLED, 0x40000000 | SYS_read},
    {"offline: x32", OFF, FAILS(ENOSYS), 0x40000000 | SYS_read},
    {"offline: the lowest x32 number", OFF, FAILS(ENOSYS), 0x40000000},
    {"online: x32 ptrace", ON, FAILS(ENOSYS), 0x40000000 | 521},
    {"offline: old processor modes", OFF, FAILS(EPERM), SYS_modify_ldt},
    {"offline: ports", OFF, FAILS(EPERM), SYS_iopl},
#endif
};

static uint32_t load(const struct seccomp_data *data, uint32_t offset)
{
    uint32_t v;

    assert_true(offset % 4 == 0 && offset + 4 <= sizeof(*data));
    memcpy(&v, (const char *)data + offset, sizeof(v));
    return v;
}

static bool jumps(uint16_t code, uint32_t a, uint32_t k)
{
    switch (BPF_OP(code)) {
    case BPF_JEQ:
        return a == k;
    case BPF_JGT:
        return a > k;
    case BPF_JGE:
        return a >= k;
    case BPF_JSET:
        return (a & k) != 0;
    default:
        fail_msg("a jump that no program of ours has: %#x", code);
        return false;
    }
}

static uint32_t run(const struct sock_filter *code, size_t n, const struct seccomp_data *data)
{
    uint32_t a = 0;

    for (size_t pc = 0; pc < n; pc++) {
        const struct sock_filter *i = &code[pc];

        switch (BPF_CLASS(i->code)) {
        case BPF_LD:
            a = load(data, i->k);
            break;
        case BPF_ALU:
            assert_int_equal(i->code, BPF_ALU | BPF_AND | BPF_K);
            a &= i->k;
            break;
        case BPF_JMP:
            if (BPF_OP(i->code) == BPF_JA)
                pc += i->k;
            else
                pc += jumps(i->code, a, i->k) ? i->jt : i->jf;
            break;
        case BPF_RET:
            return i->k;
        default:
            fail_msg("an instruction that no program of ours has: %#x", i->code);
        }
    }
    fail_msg("the program ends without a verdict");
    return 0;
}

static void check_case(void **state)
{
    const struct filter_case *c = *state;
    struct seccomp_data data = {.nr = (int)c->nr, .arch = c->arch ? c->arch : NATIVE};
    size_t n;
    const struct sock_filter *code = bly_filter_program((enum bly_filter)c->filter, &n);

    assert_non_null(code);
    memcpy(data.args, c->args, sizeof(c->args));
    assert_int_equal(run(code, n, &data), c->verdict);
}

static int prepare(void **state)
{
    struct bly_err err = {0};

    (void)state;
    return bly_filter_compile_all(&err);
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(cases)] = {0};

    ROWS_AS_TESTS(tests, cases, check_case);
    return cmocka_run_group_tests(tests, prepare, NULL);
}
