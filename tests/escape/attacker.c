/*
 * What a hostile program would try, one attempt a run: `attacker NAME [ARGUMENT...]`. Exit status 0
 * when the attempt succeeded, 1 when the kernel refused (the reason goes to stdout), 2 when it
 * could not even be tried, 3 when this kernel lacks what is attempted.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_alg.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int verdict(long r)
{
    if (r >= 0)
        return 0;
    (void)printf("refused: %s\n", strerrordesc_np(errno));
    return 1;
}

static socklen_t local_address(struct sockaddr_un *address, const char *name)
{
    size_t len = strlen(name);

    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    if (len >= sizeof(address->sun_path))
        exit(2);
    memcpy(address->sun_path, name, len);
    if (name[0] == '@')
        address->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (name[0] == '@' ? 0 : 1));
}

static int try_tcp(char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[0])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    return verdict(fd < 0 ? fd : connect(fd, (struct sockaddr *)&address, sizeof(address)));
}

static int try_udp(char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[0])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    return verdict(fd < 0 ? fd
                          : sendto(fd, "x", 1, 0, (struct sockaddr *)&address, sizeof(address)));
}

static int try_unix_stream(char **argv)
{
    struct sockaddr_un address;
    socklen_t len = local_address(&address, argv[0]);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    return verdict(fd < 0 ? fd : connect(fd, (struct sockaddr *)&address, len));
}

static int try_unix_sendmsg(char **argv)
{
    struct sockaddr_un address;
    socklen_t len = local_address(&address, argv[0]);
    struct iovec iov = {.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};
    struct msghdr message = {
        .msg_name = &address, .msg_namelen = len, .msg_iov = &iov, .msg_iovlen = 1};
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) < 0)
        return verdict(-1);
    return verdict(sendmsg(pair[0], &message, 0));
}

static int try_netlink(char **argv)
{
    (void)argv;
    return verdict(socket(AF_NETLINK, SOCK_RAW, 0));
}

static int try_alg(char **argv)
{
    int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);

    (void)argv;
    if (fd < 0 && errno == EAFNOSUPPORT)
        return verdict(fd) + 2;
    return verdict(fd);
}

static int try_kill(char **argv)
{
    return verdict(kill((pid_t)atoi(argv[0]), 0));
}

static int try_ptrace(char **argv)
{
    pid_t pid = (pid_t)atoi(argv[0]);
    long r = ptrace(PTRACE_SEIZE, pid, NULL, NULL);

    return verdict(r);
}

/* A call is filtered when even its wrong use is refused with EPERM or ENOSYS instead of the
 * kernel's own complaint. */
static int reaches_kernel(long r)
{
    if (r < 0 && (errno == EPERM || errno == ENOSYS || errno == EACCES))
        return verdict(-1);
    return 0;
}

static int try_process_vm(char **argv)
{
    char byte;
    struct iovec local = {&byte, 1}, remote = {&byte, 1};

    /* EFAULT: we were let in, and only the address, one of ours, means nothing over there. */
    if (process_vm_readv((pid_t)atoi(argv[0]), &local, 1, &remote, 1, 0) < 0 && errno != EFAULT)
        return verdict(-1);
    return 0;
}

static int try_unshare_user(char **argv)
{
    (void)argv;
    return verdict(unshare(CLONE_NEWUSER));
}

static int try_clone_user(char **argv)
{
    long pid;

    (void)argv;
    pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        (void)waitpid((pid_t)pid, NULL, 0);
    return verdict(pid);
}

static int try_clone3(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_clone3, NULL, 0));
}

static int try_mount(char **argv)
{
    return verdict(mount("none", argv[0], "tmpfs", 0, NULL));
}

static int try_new_mount_api(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_fsopen, "nonsense", 0));
}

static int try_umount(char **argv)
{
    return verdict(umount2(argv[0], MNT_DETACH));
}

static int try_chroot(char **argv)
{
    return verdict(chroot(argv[0]));
}

static int try_mknod(char **argv)
{
    return verdict(mknod(argv[0], S_IFCHR | 0600, makedev(1, 5)));
}

static int try_handle(char **argv)
{
    struct {
        struct file_handle handle;
        unsigned char bytes[128];
    } h = {.handle.handle_bytes = sizeof(h.bytes)};
    int mount_id;

    return verdict(name_to_handle_at(AT_FDCWD, argv[0], &h.handle, &mount_id, 0));
}

static int try_io_uring(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_io_uring_setup, 0, NULL));
}

static int try_bpf(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_bpf, 9999, NULL, 0));
}

static int try_keyring(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_keyctl, 0, -3, 0, 0, 0));
}

static int try_userfaultfd(char **argv)
{
    (void)argv;
    return verdict(syscall(SYS_userfaultfd, 1));
}

static int try_setns(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_setns, -1, 0));
}

static int try_pidfd_getfd(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_pidfd_getfd, -1, 0, 0));
}

static int try_tiocsti(char **argv)
{
    (void)argv;
    return verdict(ioctl(STDIN_FILENO, TIOCSTI, "x"));
}

/* A shared memory segment somebody outside made with this key. */
static int try_shm(char **argv)
{
    return verdict(shmget((key_t)atoi(argv[0]), 1, 0));
}

/* An inherited descriptor above 2 would be a way out. */
static int try_descriptors(char **argv)
{
    (void)argv;
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            return 0;
    errno = EBADF;
    return verdict(-1);
}

static int try_capabilities(char **argv)
{
    char line[256];
    FILE *status = fopen("/proc/self/status", "re");
    int found = 1;

    (void)argv;
    if (!status)
        return 2;
    while (fgets(line, sizeof(line), status))
        if (strncmp(line, "CapBnd:", 7) == 0 || strncmp(line, "CapEff:", 7) == 0)
            found = strtoull(line + 7, NULL, 16) != 0 ? 0 : found;
    (void)fclose(status);
    return found;
}

static int try_socket(char **argv)
{
    int family = atoi(argv[0]);

    return verdict(socket(family, family == AF_PACKET ? SOCK_RAW : SOCK_STREAM, 0));
}

static int try_raw(char **argv)
{
    (void)argv;
    return verdict(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static int try_bind(char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    (void)argv;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return verdict(-1);
    return verdict(listen(fd, 1));
}

static int try_unix_dgram(char **argv)
{
    struct sockaddr_un address;
    socklen_t len = local_address(&address, argv[0]);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    return verdict(fd < 0 ? fd : sendto(fd, "x", 1, 0, (struct sockaddr *)&address, len));
}

/* Whatever kind of socket can be had. */
static int any_unix_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0), pair[2];

    if (fd < 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0)
        fd = pair[0];
    return fd < 0 ? socket(AF_UNIX, SOCK_STREAM, 0) : fd;
}

static int try_unix_sendmmsg(char **argv)
{
    struct sockaddr_un address;
    socklen_t len = local_address(&address, argv[0]);
    struct iovec iov = {.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};
    struct mmsghdr message = {
        .msg_hdr = {.msg_name = &address, .msg_namelen = len, .msg_iov = &iov, .msg_iovlen = 1}};

    return verdict(sendmmsg(any_unix_socket(), &message, 1, 0));
}

static int try_unix_pass(char **argv)
{
    struct sockaddr_un address;
    socklen_t len = local_address(&address, argv[0]);
    struct iovec iov = {.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.align = {.cmsg_len = CMSG_LEN(sizeof(int)),
                           .cmsg_level = SOL_SOCKET,
                           .cmsg_type = SCM_RIGHTS}};
    struct msghdr message = {.msg_name = &address,
                             .msg_namelen = len,
                             .msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};

    return verdict(sendmsg(any_unix_socket(), &message, 0)); /* our stdin */
}

static int try_pidfd_open(char **argv)
{
    return verdict(syscall(SYS_pidfd_open, atoi(argv[0]), 0));
}

static int try_pidfd_signal(char **argv)
{
    long fd = syscall(SYS_pidfd_open, atoi(argv[0]), 0);

    return verdict(fd < 0 ? fd : syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
}

static int try_pidfd_steal(char **argv)
{
    long fd = syscall(SYS_pidfd_open, atoi(argv[0]), 0);

    return verdict(fd < 0 ? fd : syscall(SYS_pidfd_getfd, fd, atoi(argv[1]), 0));
}

static pid_t sleeping_child(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        (void)pause();
        _exit(0);
    }
    return pid;
}

static int try_ptrace_child(char **argv)
{
    pid_t pid = sleeping_child();
    int r = verdict(ptrace(PTRACE_SEIZE, pid, NULL, NULL));

    (void)argv;
    (void)kill(pid, SIGKILL);
    return r;
}

static int try_process_vm_child(char **argv)
{
    static char byte;
    struct iovec local = {&byte, 1}, remote = {&byte, 1};
    pid_t pid = sleeping_child();
    int r = verdict(process_vm_readv(pid, &local, 1, &remote, 1, 0));

    (void)argv;
    (void)kill(pid, SIGKILL);
    return r;
}

static int try_clone3_user(char **argv)
{
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &args, sizeof(args));

    (void)argv;
    if (pid == 0)
        _exit(0);
    return verdict(pid);
}

static int try_unshare_mounts(char **argv)
{
    (void)argv;
    return verdict(unshare(CLONE_NEWNS));
}

/* In a namespace of its own where that is possible: the host's mounts stay as they are. */
static int try_propagation(char **argv)
{
    (void)argv;
    (void)unshare(CLONE_NEWNS);
    return verdict(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
}

static int try_add_key(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_add_key, NULL, NULL, NULL, 0, 0));
}

static int try_request_key(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_request_key, NULL, NULL, NULL, 0));
}

static int try_perf(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
}

static int try_personality(char **argv)
{
    (void)argv;
    return verdict(syscall(SYS_personality, 0x0400000));
}

static int try_kcmp(char **argv)
{
    (void)argv;
    return verdict(syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0));
}

static int try_module(char **argv)
{
    (void)argv;
    return reaches_kernel(syscall(SYS_finit_module, -1, "", 0));
}

static int try_int80(char **argv)
{
    long r = -ENOSYS;

    (void)argv;
#ifdef __x86_64__
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory"); /* getpid */
#endif
    if (r == -ENOSYS)
        return 3;
    return r > 0 ? 0 : 1;
}

static int try_x32(char **argv)
{
    long r = syscall(0x40000000 | SYS_getpid);

    (void)argv;
    return r > 0 ? 0 : verdict(-1);
}

static int try_tiocsti_high(char **argv)
{
    (void)argv;
    return verdict(syscall(SYS_ioctl, STDIN_FILENO, TIOCSTI | (1UL << 32), "x"));
}

static int try_tioclinux(char **argv)
{
    char subcode = 99;

    (void)argv;
    return reaches_kernel(ioctl(STDIN_FILENO, TIOCLINUX, &subcode));
}

static int try_euid(char **argv)
{
    return geteuid() == (uid_t)atoi(argv[0]) ? 0 : 1;
}

static _Noreturn void stay(void)
{
    (void)signal(SIGTERM, SIG_IGN);
    (void)signal(SIGINT, SIG_IGN);
    (void)setsid();
    for (;;)
        (void)pause();
}

/* So many processes, each in a session of its own, or as many as there may be. */
static int try_bomb(char **argv)
{
    int n = atoi(argv[0]);

    for (int i = 0; i < n; i++) {
        pid_t pid = fork();

        if (pid == 0)
            stay();
        if (pid < 0)
            break;
    }
    (void)printf("bombed\n");
    (void)fflush(stdout);
    stay();
}

static int try_memory(char **argv)
{
    size_t bytes = (size_t)atoi(argv[0]) << 20;
    char *memory = malloc(bytes);

    if (!memory)
        return verdict(-1);
    memset(memory, 1, bytes);
    (void)printf("bombed %d\n", memory[bytes / 2]);
    (void)fflush(stdout);
    stay();
}

static const struct attempt {
    const char *name;
    int (*run)(char **argv);
} attempts[] = {
    {"tcp", try_tcp},
    {"udp", try_udp},
    {"unix-stream", try_unix_stream},
    {"unix-sendmsg", try_unix_sendmsg},
    {"netlink", try_netlink},
    {"alg", try_alg},
    {"kill", try_kill},
    {"ptrace", try_ptrace},
    {"process-vm", try_process_vm},
    {"unshare-user", try_unshare_user},
    {"clone-user", try_clone_user},
    {"clone3", try_clone3},
    {"mount", try_mount},
    {"new-mount-api", try_new_mount_api},
    {"umount", try_umount},
    {"chroot", try_chroot},
    {"mknod", try_mknod},
    {"handle", try_handle},
    {"io-uring", try_io_uring},
    {"bpf", try_bpf},
    {"keyring", try_keyring},
    {"userfaultfd", try_userfaultfd},
    {"setns", try_setns},
    {"pidfd-getfd", try_pidfd_getfd},
    {"tiocsti", try_tiocsti},
    {"shm", try_shm},
    {"descriptors", try_descriptors},
    {"capabilities", try_capabilities},
    {"socket", try_socket},
    {"raw", try_raw},
    {"bind", try_bind},
    {"unix-dgram", try_unix_dgram},
    {"unix-sendmmsg", try_unix_sendmmsg},
    {"unix-pass", try_unix_pass},
    {"pidfd-open", try_pidfd_open},
    {"pidfd-signal", try_pidfd_signal},
    {"pidfd-steal", try_pidfd_steal},
    {"ptrace-child", try_ptrace_child},
    {"process-vm-child", try_process_vm_child},
    {"clone3-user", try_clone3_user},
    {"unshare-mounts", try_unshare_mounts},
    {"propagation", try_propagation},
    {"add-key", try_add_key},
    {"request-key", try_request_key},
    {"perf", try_perf},
    {"personality", try_personality},
    {"kcmp", try_kcmp},
    {"module", try_module},
    {"int80", try_int80},
    {"x32", try_x32},
    {"tiocsti-high", try_tiocsti_high},
    {"tioclinux", try_tioclinux},
    {"euid", try_euid},
    {"bomb", try_bomb},
    {"memory", try_memory},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof(attempts) / sizeof(attempts[0]); i++)
        if (strcmp(attempts[i].name, argv[1]) == 0)
            return attempts[i].run(argv + 2);
    return 2;
}
