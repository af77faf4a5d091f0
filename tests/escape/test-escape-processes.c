/*
 * Escapes by programs. Every row is a shell command tried without a wall, where it must succeed
 * (else the row proves nothing), and inside one, where it must fail and nothing outside may have
 * changed.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "escape/door.h"
#include "escape/yard.h"
#include "support/server.h"

enum {
    READS = 1,         /* nothing to deny where everything may be read */
    AS_ROOT = 2,       /* without a wall only root can do this */
    IN_TTY = 4,        /* run with a terminal */
    TWIN_MAY_FAIL = 8, /* many machines forbid this to everybody: then that is said */
};

/* Exit status of attacker when the kernel lacks what is attempted. */
enum { NOT_IN_THIS_KERNEL = 3 };

struct row {
    const char *name;
    const char *command; /* $WS $OUT $ATTACKER $PORT $UPORT $SOCK $DSOCK $ABSTRACT $PID $SHM */
    unsigned flags;
    const char
        *sysctl; /* when this reads as anything but `value`, the twin cannot work on this machine */
    const char *value;
    const char *appears; /* below the yard: the proof is on disk, not in the exit code */
};

static const struct row rows[] = {
    {"read a secret outside", "cat \"$OUT/secret\"", READS},
    {"read through a symlink", "cat \"$WS/leaf\"", READS},
    {"read through /proc/self/root", "cat \"/proc/self/root$OUT/secret\"", READS},
    {"list outside", "ls \"$OUT/d\" | grep needle", READS},
    {"read a bystander's environment", "grep -q . /proc/$PID/environ", 0},
    {"write outside", "echo x > \"$OUT/new\"", .appears = "out/new"},
    {"write through a dangling symlink", "echo x > \"$WS/dangling\"", .appears = "out/planted"},
    {"write through a symlinked parent", "echo x > \"$WS/parent/new\"", .appears = "out/new"},
    {"remove outside", "rm -r \"$OUT/d\"", 0},
    {"hard link to the outside", "ln \"$OUT/secret\" \"$WS/h2\"", 0},
    {"write .git/config", "echo x >> \"$WS/.git/config\"", 0},
    {"plant a hook", "mkdir \"$WS/.git/hooks\"", .appears = "ws/.git/hooks"},
    {"rename .git away", "mv \"$WS/.git\" \"$WS/git2\"", 0},
    {"remove .git", "rm -rf \"$WS/.git\"", 0},
    {"make the missing .codex", "mkdir \"$WS/.codex\"", .appears = "ws/.codex"},
    {"make the missing .codex as a file", "echo x > \"$WS/.codex\"", .appears = "ws/.codex"},
    {"rename onto the missing .codex", "mkdir \"$WS/d\" && mv \"$WS/d\" \"$WS/.codex\"",
     .appears = "ws/.codex"},
    {"link the missing .codex", "ln -s /etc \"$WS/.codex\"", .appears = "ws/.codex"},
    {"hard link the missing .codex", "ln \"$WS/a.txt\" \"$WS/.codex\"", .appears = "ws/.codex"},
    {"make the missing .codex through a link", "ln -s .codex \"$WS/l\" && echo x > \"$WS/l\"",
     .appears = "ws/.codex"},
    {"make the missing .codex from another directory",
     "mkdir \"$WS/e\" && cd \"$WS/e\" && mkdir ../.codex", .appears = "ws/.codex"},
    {"write a kernel setting",
     "cat /proc/sys/kernel/domainname > \"$WS/v\" && cat \"$WS/v\" > /proc/sys/kernel/domainname",
     AS_ROOT},
    {"connect over TCP", "\"$ATTACKER\" tcp $PORT", 0},
    {"send over UDP", "\"$ATTACKER\" udp $UPORT", 0},
    {"connect to a Unix socket", "\"$ATTACKER\" unix-stream \"$SOCK\"", 0},
    {"send a datagram to a Unix socket", "\"$ATTACKER\" unix-sendmsg \"$DSOCK\"", 0},
    {"connect to an abstract socket", "\"$ATTACKER\" unix-stream \"$ABSTRACT\"", 0},
    {"open a netlink socket", "\"$ATTACKER\" netlink", 0},
    {"open an AF_ALG socket", "\"$ATTACKER\" alg", 0},
    {"signal a bystander", "\"$ATTACKER\" kill $PID", 0},
    {"trace a bystander", "\"$ATTACKER\" ptrace $PID", AS_ROOT},
    {"read a bystander's memory", "\"$ATTACKER\" process-vm $PID", AS_ROOT},
    {"find a bystander's shared memory", "\"$ATTACKER\" shm $SHM", 0},
    {"make a user namespace", "\"$ATTACKER\" unshare-user", 0},
    {"clone into a user namespace", "\"$ATTACKER\" clone-user", 0},
    {"use clone3", "\"$ATTACKER\" clone3", 0},
    {"enter a namespace", "\"$ATTACKER\" setns", 0},
    {"mount",
     "mkdir -p \"$WS/m\" && \"$ATTACKER\" mount \"$WS/m\" && \"$ATTACKER\" umount \"$WS/m\"",
     AS_ROOT},
    {"use the new mount calls", "\"$ATTACKER\" new-mount-api", AS_ROOT},
    {"chroot", "\"$ATTACKER\" chroot \"$WS\"", AS_ROOT},
    {"make a device node", "\"$ATTACKER\" mknod \"$WS/null\"", AS_ROOT},
    {"take a file handle", "\"$ATTACKER\" handle \"$WS/a.txt\"", 0},
    {"use io_uring", "\"$ATTACKER\" io-uring", 0, "/proc/sys/kernel/io_uring_disabled", "0"},
    {"use bpf", "\"$ATTACKER\" bpf", AS_ROOT},
    {"use a keyring", "\"$ATTACKER\" keyring", 0},
    {"use userfaultfd", "\"$ATTACKER\" userfaultfd", 0},
    {"take a descriptor of another process", "\"$ATTACKER\" pidfd-getfd", 0},
    {"push characters into the terminal", "\"$ATTACKER\" tiocsti", IN_TTY,
     "/proc/sys/dev/tty/legacy_tiocsti", "1"},
    {"hold a capability", "\"$ATTACKER\" capabilities", AS_ROOT},
    /* The view. */
    {"read what is denied", "cat \"$WS/deny/f\"", 0},
    {"read what is denied through a symlink", "cat \"$WS/denylink\"", 0},
    {"read what is denied through a symlinked parent", "cat \"$WS/denydir/f\"", 0},
    {"read what is denied after moving it", "mv \"$WS/deny\" \"$WS/e\" && cat \"$WS/e/f\"", 0},
    {"read what is denied through a hard link", "ln \"$WS/deny/f\" \"$WS/h\" && cat \"$WS/h\"", 0},
    {"read what a glob denies", "grep secret \"$WS/x.key\"", 0},
    {"read what a glob denies, deeper", "grep secret \"$WS/sub/y.key\"", 0},
    {"read what a glob denies through a symlink", "grep secret \"$WS/keylink\"", 0},
    {"read what a glob denies after moving its directory",
     "mv \"$WS/sub\" \"$WS/e\" && grep secret \"$WS/e/y.key\"", 0},
    {"read what a glob denies after moving it",
     "mv \"$WS/x.key\" \"$WS/e\" && grep secret \"$WS/e\"", 0},
    {"write what is read-only", "echo x >> \"$WS/ro/f\"", 0},
    {"write what is read-only through a symlink", "echo x >> \"$WS/rolink\"", 0},
    {"make a file in a read-only place", "echo x > \"$WS/ro/new\"", .appears = "ws/ro/new"},
    {"move a read-only place away", "mv \"$WS/ro\" \"$WS/e\" && mkdir \"$WS/ro\"", 0},
    {"hard link to a read-only file", "ln \"$WS/ro/f\" \"$WS/h\" && echo x >> \"$WS/h\"", 0},
    {"hard link to .git/config", "ln \"$WS/.git/config\" \"$WS/h\" && echo x >> \"$WS/h\"", 0},
    {"write into a readable root", "echo x > \"$WS/../lib/new\"", .appears = "lib/new"},
    {"write into /tmp", "echo x > /tmp/bailey-escape-$PID", .appears = "/tmp/bailey-escape-$P"},
    {"write into /var/tmp", "echo x > /var/tmp/bailey-escape-$PID",
     .appears = "/var/tmp/bailey-escape-$P"},
    {"leave something in /dev/shm", "echo x > /dev/shm/bailey-escape-$PID",
     .appears = "/dev/shm/bailey-escape-$P"},
    {"write at the top", "echo x > /bailey-escape-$PID", AS_ROOT, .appears = "/bailey-escape-$P"},
    {"change a mode outside", "chmod 600 \"$OUT/secret\"", 0},
    {"change a time outside", "touch -d @1 \"$OUT/secret\"", 0},
    {"open a device of the host", "head -c 0 < /dev/kmsg", AS_ROOT | TWIN_MAY_FAIL},
    {"read the kernel's memory", "head -c 1 /proc/kcore | grep -q .", AS_ROOT | TWIN_MAY_FAIL},
    {"make a cgroup", "mkdir /sys/fs/cgroup/bailey-$PID && rmdir /sys/fs/cgroup/bailey-$PID",
     AS_ROOT | TWIN_MAY_FAIL},
    {"become another by a set-uid program", "\"$WS/suid\" euid 65534", AS_ROOT},
    /* Others. */
    {"read through a bystander's descriptor", "cat /proc/$PID/fd/$FD", 0},
    {"read through a bystander's directory", "cat /proc/$PID/cwd/secret", 0},
    {"read through a bystander's root", "cat \"/proc/$PID/root$OUT/secret\"", 0},
    {"read the server's environment", "grep -q . /proc/$SERVER/environ", AS_ROOT},
    {"read the server's map", "grep -q . /proc/$SERVER/maps", AS_ROOT},
    {"list the server's descriptors", "ls /proc/$SERVER/fd | grep -q .", AS_ROOT},
    {"see the server", "test -d /proc/$SERVER", 0},
    {"signal the server", "\"$ATTACKER\" kill $SERVER", 0},
    {"trace the server", "\"$ATTACKER\" ptrace $SERVER", AS_ROOT},
    {"read the server's memory", "\"$ATTACKER\" process-vm $SERVER", AS_ROOT},
    {"trace a child", "\"$ATTACKER\" ptrace-child", 0},
    {"read a child's memory", "\"$ATTACKER\" process-vm-child", 0},
    {"open a pidfd of a bystander", "\"$ATTACKER\" pidfd-open $PID", 0},
    {"open a pidfd of the server", "\"$ATTACKER\" pidfd-open $SERVER", 0},
    {"signal the server by pidfd", "\"$ATTACKER\" pidfd-signal $SERVER", 0},
    {"take a bystander's descriptor", "\"$ATTACKER\" pidfd-steal $PID $FD", 0,
     "/proc/sys/kernel/yama/ptrace_scope", "0"},
    /* Network. */
    {"bind a TCP port", "\"$ATTACKER\" bind", 0},
    {"make a datagram socket and send", "\"$ATTACKER\" unix-dgram \"$DSOCK\"", 0},
    {"send several datagrams at once", "\"$ATTACKER\" unix-sendmmsg \"$DSOCK\"", 0},
    {"pass a descriptor out", "\"$ATTACKER\" unix-pass \"$DSOCK\"", 0},
    {"connect to a Unix socket through /proc/self/fd",
     "exec 9< \"$WS\" && \"$ATTACKER\" unix-stream /proc/self/fd/9/stream", 0},
    {"open a vsock socket", "\"$ATTACKER\" socket 40", TWIN_MAY_FAIL},
    {"open a packet socket", "\"$ATTACKER\" socket 17", AS_ROOT},
    {"open an IPv6 socket", "\"$ATTACKER\" socket 10", TWIN_MAY_FAIL},
    {"open a raw socket", "\"$ATTACKER\" raw", AS_ROOT},
    /* Surface. */
    {"clone3 into a user namespace", "\"$ATTACKER\" clone3-user", 0},
    {"unshare mounts", "\"$ATTACKER\" unshare-mounts", AS_ROOT},
    {"change mount propagation", "\"$ATTACKER\" propagation", AS_ROOT},
    {"add a key", "\"$ATTACKER\" add-key", 0},
    {"request a key", "\"$ATTACKER\" request-key", 0},
    {"count events", "\"$ATTACKER\" perf", TWIN_MAY_FAIL},
    {"make memory executable by personality", "\"$ATTACKER\" personality", 0},
    {"compare processes", "\"$ATTACKER\" kcmp", TWIN_MAY_FAIL},
    {"load a module", "\"$ATTACKER\" module", AS_ROOT | TWIN_MAY_FAIL},
    {"use a system call of 32-bit programs", "\"$ATTACKER\" int80", TWIN_MAY_FAIL},
    {"use a system call of x32 programs", "\"$ATTACKER\" x32", TWIN_MAY_FAIL},
    {"push characters, with a request above 32 bits", "\"$ATTACKER\" tiocsti-high", IN_TTY,
     "/proc/sys/dev/tty/legacy_tiocsti", "1"},
    {"use the console's ioctl", "\"$ATTACKER\" tioclinux", IN_TTY},
};

static struct server *server;
static struct yard *yard;

struct trial {
    char name[128];
    const struct row *row;
    enum wall wall;
    char output[8192];
    size_t output_len;
};

/* ---- a bystander's sockets and memory ---- */

struct bystander {
    int tcp_fd, udp_fd, stream_fd, datagram_fd, abstract_fd;
    int port, uport, shm_id;
    key_t shm_key;
    const char *stream, *datagram;
    char abstract[64];
};

static int listen_inet(int type, int *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static int listen_local(int type, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0 && len < sizeof(address.sun_path));
    memcpy(address.sun_path, name, len);
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    len += offsetof(struct sockaddr_un, sun_path) + (name[0] != '@');
    assert_int_equal(bind(fd, (struct sockaddr *)&address, (socklen_t)len), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void bystander_start(struct bystander *bystander)
{
    bystander->tcp_fd = listen_inet(SOCK_STREAM, &bystander->port);
    bystander->udp_fd = listen_inet(SOCK_DGRAM, &bystander->uport);
    bystander->stream = yard_path(yard, "ws/stream");
    bystander->datagram = yard_path(yard, "ws/datagram");
    (void)snprintf(bystander->abstract, sizeof(bystander->abstract), "@bailey-test-%d",
                   (int)getpid());
    bystander->stream_fd = listen_local(SOCK_STREAM, bystander->stream);
    bystander->datagram_fd = listen_local(SOCK_DGRAM, bystander->datagram);
    bystander->abstract_fd = listen_local(SOCK_STREAM, bystander->abstract);
    bystander->shm_key = 0x62000000 + (int)getpid();
    bystander->shm_id = shmget(bystander->shm_key, 4096, IPC_CREAT | 0666);
    assert_true(bystander->shm_id >= 0);
}

static void bystander_stop(struct bystander *bystander)
{
    (void)close(bystander->tcp_fd);
    (void)close(bystander->udp_fd);
    (void)close(bystander->stream_fd);
    (void)close(bystander->datagram_fd);
    (void)close(bystander->abstract_fd);
    (void)shmctl(bystander->shm_id, IPC_RMID, NULL);
}

/* ---- running a row ---- */

static void collect(void *arg, const char *stream, const uint8_t *data, size_t len)
{
    struct trial *trial = arg;

    (void)stream;
    if (len > sizeof(trial->output) - 1 - trial->output_len)
        len = sizeof(trial->output) - 1 - trial->output_len;
    memcpy(trial->output + trial->output_len, data, len);
    trial->output_len += len;
    trial->output[trial->output_len] = '\0';
}

/* -1: could not be started at all. */
static int run_command(struct trial *trial, const struct bystander *bystander, const char *command,
                       bool tty)
{
    const char *argv[] = {"/bin/sh", "-c", command, NULL};
    char env[13][4200];
    const char *envp[BLY_LEN(env) + 1] = {NULL};
    struct bly_client_exit result;
    struct bly_client_error error;
    const struct bly_client_run run = {
        .argv = argv,
        .envp = envp,
        .cwd = yard->ws,
        .tty = tty,
        .sandbox_json = yard->sandbox[trial->wall],
        .output = collect,
        .arg = trial,
    };

    (void)snprintf(env[0], sizeof(env[0]), "PATH=/usr/local/bin:/usr/bin:/bin");
    (void)snprintf(env[1], sizeof(env[1]), "WS=%s", yard->ws);
    (void)snprintf(env[2], sizeof(env[2]), "OUT=%s", yard->out);
    (void)snprintf(env[3], sizeof(env[3]), "ATTACKER=%s/attacker", yard->ws);
    (void)snprintf(env[4], sizeof(env[4]), "PORT=%d", bystander->port);
    (void)snprintf(env[5], sizeof(env[5]), "UPORT=%d", bystander->uport);
    (void)snprintf(env[6], sizeof(env[6]), "SOCK=%s", bystander->stream);
    (void)snprintf(env[7], sizeof(env[7]), "DSOCK=%s", bystander->datagram);
    (void)snprintf(env[8], sizeof(env[8]), "ABSTRACT=%s", bystander->abstract);
    (void)snprintf(env[9], sizeof(env[9]), "PID=%d", (int)getpid());
    (void)snprintf(env[10], sizeof(env[10]), "SHM=%d", (int)bystander->shm_key);
    (void)snprintf(env[11], sizeof(env[11]), "SERVER=%d", (int)server->pid);
    (void)snprintf(env[12], sizeof(env[12]), "FD=%d", yard->fd);
    for (size_t i = 0; i < BLY_LEN(env); i++)
        envp[i] = env[i];

    if (bly_client_run(server->client, &run, &result, &error) < 0) {
        (void)snprintf(trial->output, sizeof(trial->output), "not started: %.4000s", error.message);
        return -1;
    }
    return result.exit_code;
}

/* The attacker is copied into the workspace, so that it can be executed under every policy. */
static void bring_attacker(const struct row *row)
{
    assert_non_null(getenv("ATTACKER"));
    yard_bring_program(yard, getenv("ATTACKER"), "ws/attacker", 0755);
    if (row && strstr(row->command, "/suid") && geteuid() == 0)
        yard_bring_program(yard, getenv("ATTACKER"), "ws/suid", 04755);
}

static bool sysctl_differs(const struct row *row)
{
    bly_autofree char *text = row->sysctl ? disk_read(row->sysctl) : NULL;

    /* Where the switch does not exist, the kernel is older than it and does as the switched-on one.
     */
    return text && strncmp(text, row->value, strlen(row->value)) != 0;
}

static bool succeeded(struct trial *trial, int exit_code)
{
    const struct row *row = trial->row;

    const char *path = row->appears ? yard_path(yard, row->appears) : NULL;
    bool appeared = path && disk_exists(path);

    if (appeared && row->appears[0] == '/')
        disk_remove_tree(path);
    return path ? appeared : exit_code == 0;
}

static void run_trial(void **state)
{
    struct trial *trial = *state;
    const struct row *row = trial->row;
    struct bystander bystander;
    int exit_code;
    bool won;

    if (trial->wall == NO_WALL && (row->flags & AS_ROOT) && geteuid() != 0) {
        print_message("without a wall only root can do this\n");
        return;
    }
    if (trial->wall == NO_WALL && sysctl_differs(row)) {
        print_message("%s forbids this to everybody on this machine\n", row->sysctl);
        return;
    }
    bring_attacker(row);
    bystander_start(&bystander);
    exit_code = run_command(trial, &bystander, row->command, (row->flags & IN_TTY) != 0);
    won = succeeded(trial, exit_code);
    bystander_stop(&bystander);

    if (exit_code == NOT_IN_THIS_KERNEL && trial->wall == NO_WALL) {
        print_message("nothing to attack in this kernel: %s", trial->output);
        return;
    }
    if (!won && trial->wall == NO_WALL && (row->flags & TWIN_MAY_FAIL)) {
        print_message("this machine forbids it to everybody: %s\n", trial->output);
        return;
    }
    if (exit_code == 2 && strstr(row->command, "ATTACKER"))
        fail_msg("the attempt could not be made: %s", trial->output);
    if (exit_code == -1)
        fail_msg("the wall was not built: %s", trial->output);
    if (won != (trial->wall == NO_WALL))
        fail_msg("exit code %d, output: %s", exit_code, trial->output);
    if (trial->wall != NO_WALL)
        yard_assert_guarded(yard);
}

/* ---- beyond one command ---- */

static bool someone_sleeps(const char *seconds)
{
    DIR *proc = opendir("/proc");
    bool found = false;

    assert_non_null(proc);
    for (struct dirent *entry; !found && (entry = readdir(proc));) {
        char path[300], line[64] = "";
        bly_autofd int fd = -EBADF;

        (void)snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, line, sizeof(line) - 1) > 0)
            found = strcmp(line, "sleep") == 0 && strcmp(line + strlen("sleep") + 1, seconds) == 0;
    }
    (void)closedir(proc);
    return found;
}

static void daemon_trial(void **state)
{
    struct trial *trial = *state;
    struct bystander bystander;
    char seconds[32], command[256];
    bool left = true;

    (void)snprintf(seconds, sizeof(seconds), "%d", 100000 + (int)getpid() * 4 + (int)trial->wall);
    (void)snprintf(command, sizeof(command), "setsid sleep %s </dev/null >/dev/null 2>&1 & true",
                   seconds);
    bystander_start(&bystander);
    assert_int_equal(run_command(trial, &bystander, command, false), 0);
    bystander_stop(&bystander);

    if (trial->wall == NO_WALL) {
        /* It may take a moment until the daemon has executed sleep. */
        for (int i = 0; i < 500 && !someone_sleeps(seconds); i++)
            (void)usleep(10000);
        assert_true(someone_sleeps(seconds));
        return; /* the server takes it along when it ends */
    }
    for (int i = 0; i < 200 && left; i++) {
        left = someone_sleeps(seconds);
        if (left)
            (void)usleep(10000);
    }
    assert_false(left);
}

/* How many processes execute this program. */
static size_t count_running(const char *program)
{
    DIR *proc = opendir("/proc");
    size_t n = 0;

    assert_non_null(proc);
    for (struct dirent *entry; (entry = readdir(proc));) {
        char path[300], line[4096] = "";
        bly_autofd int fd = -EBADF;

        (void)snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, line, sizeof(line) - 1) > 0 && strcmp(line, program) == 0)
            n++;
    }
    (void)closedir(proc);
    return n;
}

/* Waits for a notification of this method; what it says is thrown away. */
static void await(const char *want)
{
    for (;;) {
        bly_autofree char *method = NULL, *params = NULL;

        assert_int_equal(bly_client_next_notification(server->client, 30000, &method, &params), 0);
        if (strcmp(method, want) == 0)
            return;
    }
}

static void assert_server_answers(void)
{
    struct bly_client_metadata metadata;
    struct bly_client_error error;

    assert_int_equal(
        bly_client_metadata(server->client, yard->ws, yard->plain[FULL_READ], &metadata, &error),
        0);
}

static void start_attacker(enum wall wall, const char *program, const char *what,
                           const char *how_much)
{
    bly_autofree char *params = NULL, *result = NULL;
    struct bly_client_error error;

    assert_true(asprintf(&params,
                         "{\"processId\":\"%s-%d\",\"argv\":[\"%s\",\"%s\",\"%s\"],"
                         "\"cwd\":\"%s\",\"env\":{},\"tty\":false,\"sandbox\":%s}",
                         what, (int)wall, program, what, how_much, yard->ws,
                         wall == NO_WALL ? "null" : yard->sandbox[wall]) > 0);
    if (bly_client_call(server->client, "process/start", params, &result, &error) < 0)
        fail_msg("%s", error.message);
}

/*
 * Below what bounds there are (tests/blackbox/bounds.py reaches them) this has to hold: the server
 * goes on answering, one terminate ends all of it, and nothing is left.
 */
static void bomb(const struct trial *trial, const char *what, const char *how_much, size_t n)
{
    bly_autofree char *program = NULL, *params = NULL, *result = NULL;
    struct bly_client_error error;
    size_t left = 1;

    bring_attacker(NULL);
    program = strdup(yard_path(yard, "ws/attacker"));
    start_attacker(trial->wall, program, what, how_much);
    await("process/output");
    assert_true(count_running(program) >= n);
    assert_server_answers();
    assert_true(asprintf(&params, "{\"processId\":\"%s-%d\"}", what, (int)trial->wall) > 0);
    assert_int_equal(bly_client_call(server->client, "process/terminate", params, &result, &error),
                     0);
    await("process/closed");
    for (int i = 0; i < 1000 && (left = count_running(program)) > 0; i++)
        (void)usleep(10000);
    assert_int_equal(left, 0);
    assert_server_answers();
    yard_assert_guarded(yard);
}

static void fork_bomb(void **state)
{
    bomb(*state, "bomb", "400", 400);
}

static void memory_bomb(void **state)
{
    bomb(*state, "memory", "256", 1);
}

/* Only 0, 1 and 2 may be open in a program, walled or not. */
static void no_descriptors(void **state)
{
    struct trial *trial = *state;
    struct bystander bystander;
    int exit_code;

    bring_attacker(NULL);
    bystander_start(&bystander);
    exit_code = run_command(trial, &bystander, "\"$ATTACKER\" descriptors", false);
    bystander_stop(&bystander);
    assert_int_equal(exit_code, 1);
}

/* What a build needs keeps working. */
static void allowed_work_succeeds(void **state)
{
    struct trial *trial = *state;
    struct bystander bystander;
    int exit_code;

    bystander_start(&bystander);
    exit_code = run_command(
        trial, &bystander,
        "set -e; echo hello > f; grep -q hello f; mkdir -p x/y && mv x z && rm -r z;"
        "cat f | sort | tr a-z A-Z | grep -q HELLO; ln -s f l; test -L l; (exit 3) || test $? = 3;"
        "echo gone > /dev/null; echo to-stderr > /dev/stderr; test -w .; test -r .git/config;"
        "test ! -e .codex; kill -0 $$; sh -c 'kill $$' || test $? = 143; cp f g; chmod 600 g",
        false);
    bystander_stop(&bystander);
    if (exit_code != 0)
        fail_msg("exit code %d, output: %s", exit_code, trial->output);
    yard_assert_guarded(yard);
}

static int trial_setup(void **state)
{
    struct trial *trial = *state;

    yard_reset(yard);
    trial->output_len = 0;
    return 0;
}

static int open_all(void **state)
{
    (void)state;
    yard = yard_new();
    server = server_start(NULL);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    server_stop(server);
    yard_free(yard);
    return 0;
}

static const struct {
    enum wall wall;
    const char *suffix;
} walls[] = {{NO_WALL, "succeeds without a wall"},
             {RESTRICTED, "is refused, restricted reading"},
             {FULL_READ, "is refused, full reading"}};

static const struct {
    const char *name;
    void (*run)(void **state);
    enum wall wall;
} others[] = {
    {"a daemon outlives its command without a wall", daemon_trial, NO_WALL},
    {"a daemon ends with its wall, restricted reading", daemon_trial, RESTRICTED},
    {"a daemon ends with its wall, full reading", daemon_trial, FULL_READ},
    {"no descriptor is inherited without a wall", no_descriptors, NO_WALL},
    {"no descriptor is inherited inside", no_descriptors, FULL_READ},
    {"a fork bomb ends with its process, restricted reading", fork_bomb, RESTRICTED},
    {"a fork bomb ends with its process, full reading", fork_bomb, FULL_READ},
    {"a memory bomb ends with its process", memory_bomb, FULL_READ},
    {"allowed work succeeds, restricted reading", allowed_work_succeeds, RESTRICTED},
    {"allowed work succeeds, full reading", allowed_work_succeeds, FULL_READ},
};

int main(void)
{
    static struct trial trials[BLY_LEN(rows) * BLY_LEN(walls) + BLY_LEN(others)];
    static struct CMUnitTest tests[BLY_LEN(trials)];
    size_t n = 0;

    door_begin();
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        for (size_t j = 0; j < BLY_LEN(walls); j++) {
            if ((rows[i].flags & READS) && walls[j].wall == FULL_READ)
                continue;
            (void)snprintf(trials[n].name, sizeof(trials[n].name), "%s: %s", rows[i].name,
                           walls[j].suffix);
            trials[n].row = &rows[i];
            trials[n].wall = walls[j].wall;
            tests[n].test_func = run_trial;
            n++;
        }
    }
    for (size_t i = 0; i < BLY_LEN(others); i++) {
        (void)snprintf(trials[n].name, sizeof(trials[n].name), "%s", others[i].name);
        trials[n].wall = others[i].wall;
        tests[n].test_func = others[i].run;
        n++;
    }
    for (size_t i = 0; i < n; i++) {
        tests[i].name = trials[i].name;
        tests[i].setup_func = trial_setup;
        tests[i].initial_state = &trials[i];
    }
    return _cmocka_run_group_tests("escape-processes", tests, n, open_all, close_all);
}
