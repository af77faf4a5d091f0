/*
 * What a hostile program would try, one attempt a run: `attacker NAME [ARGUMENT...]`. Exit status 0
 * when the attempt succeeded, 1 when the kernel refused (the reason goes to stdout), 2 when it
 * could not even be tried, 3 when this kernel lacks what is attempted.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_alg.h>
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
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof(attempts) / sizeof(attempts[0]); i++)
        if (strcmp(attempts[i].name, argv[1]) == 0)
            return attempts[i].run(argv + 2);
    return 2;
}
