#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "launcher/probe.h"
#include "launcher/spawner_main.h"
#include "launcher/tree.h"
#include "launcher/wire.h"
#include "sandbox/enforce/wall.h"

enum { END_MS = 10000 };

struct spawner {
    uint64_t id;
    pid_t pid;
};

struct launcher {
    struct bly_origin origin;
    int signal_fd;
    bool bounded;             /* told what walls may take */
    struct spawner *spawners; /* owned */
    size_t n_spawners;
};

/*
 * Ignored signals survive exec, and everything below would start with them. The C library refuses
 * to touch two real-time signals of its own, hence the bare call; zeros mean SIG_DFL.
 */
static void default_signals(void)
{
    static const unsigned long zeros[16];

    for (int sig = 1; sig < NSIG; sig++)
        (void)syscall(SYS_rt_sigaction, sig, zeros, NULL, sizeof(uint64_t));
}

int bly_caretaker_init(const char *name)
{
    sigset_t all, wanted;
    int fd;

    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    (void)sigemptyset(&wanted);
    (void)sigaddset(&wanted, SIGCHLD);
    (void)sigaddset(&wanted, SIGTERM);
    fd = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return -errno;

    /* Not SIGKILL when the parent dies: somebody has to end what is below us. */
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ||
        prctl(PR_SET_DUMPABLE, 0) < 0) {
        int r = -errno;

        (void)close(fd);
        return r;
    }
    (void)prctl(PR_SET_NAME, name);
    return fd;
}

int bly_origin_prepare(struct bly_origin *origin, struct bly_err *err)
{
    struct bly_features features;
    int r;

    if (origin->prepared)
        return 0;
    r = bly_wall_prepare(err);
    if (r < 0)
        return r;
    bly_probe_features(&features);
    features.allow_fs = origin->features.allow_fs;
    features.allow_processes = origin->features.allow_processes;
    bly_bounding_describe(&origin->bounding, &features);
    origin->features = features;
    origin->prepared = true;
    return 0;
}

static _Noreturn void become_spawner(struct launcher *launcher, int socket_fd, pid_t parent)
{
    int *cgroup_fd = &launcher->origin.bounding.cgroup.fd;

    if (dup3(socket_fd, BLY_SOCKET_FD, O_CLOEXEC) < 0)
        _exit(1);
    if (*cgroup_fd >= 0) {
        if (dup3(*cgroup_fd, BLY_CGROUP_FD, O_CLOEXEC) < 0)
            _exit(1);
        *cgroup_fd = BLY_CGROUP_FD;
    }
    if (close_range(*cgroup_fd >= 0 ? BLY_CGROUP_FD + 1 : BLY_SOCKET_FD + 1, ~0U, 0) < 0)
        _exit(1);
    bly_spawner_main(&launcher->origin, parent);
}

/* When this fails the socket is closed, which the server sees. */
static void add_spawner(struct launcher *launcher, uint64_t id, int socket_fd)
{
    struct spawner *grown =
        reallocarray(launcher->spawners, launcher->n_spawners + 1, sizeof(*grown));
    pid_t self = getpid();
    pid_t pid;

    if (grown == NULL)
        return;
    launcher->spawners = grown;
    pid = fork();
    if (pid == 0)
        become_spawner(launcher, socket_fd, self);
    if (pid < 0)
        bly_log(BLY_LOG_ERROR, "spawner-fork-failed", "error=\"%s\"", strerrordesc_np(errno));
    else
        launcher->spawners[launcher->n_spawners++] = (struct spawner){id, pid};
}

static void kill_spawner(const struct launcher *launcher, uint64_t id)
{
    for (size_t i = 0; i < launcher->n_spawners; i++)
        if (launcher->spawners[i].id == id)
            (void)kill(launcher->spawners[i].pid, SIGKILL);
}

static void allow(struct launcher *launcher, uint64_t what)
{
    launcher->origin.features.allow_fs = what & BLY_ALLOW_LANDLOCK_FS;
    launcher->origin.features.allow_processes = what & BLY_ALLOW_LANDLOCK_PROCESSES;
}

/* 0 when it is gone: whoever is our parent then must not be moved about. */
static pid_t server_pid(void)
{
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);

    if (getsockopt(BLY_SOCKET_FD, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return 0;
    return peer.pid == getppid() ? peer.pid : 0;
}

/* False: malformed, or said twice. */
static bool take_bounds(struct launcher *launcher, const struct bly_packet *packet)
{
    struct bly_reader reader = bly_reader_of(packet->payload, packet->len);
    bly_autofree char *cgroup = NULL;
    struct bly_bounds bounds;

    if (launcher->bounded || bly_bounds_unpack(&reader, &bounds, &cgroup) < 0)
        return false;
    bly_bounding_init(&launcher->origin.bounding, &bounds, server_pid());
    launcher->bounded = true;
    return true;
}

/* False: the server is gone, or talks nonsense. */
static bool serve(struct launcher *launcher)
{
    bly_autopacket struct bly_packet packet = {0};
    struct bly_reader reader;
    uint64_t id;
    int r = bly_wire_recv(BLY_SOCKET_FD, &packet);

    if (r == -EAGAIN)
        return true;
    if (r != 0)
        return false;
    if (packet.type == BLY_WIRE_BOUNDS)
        return take_bounds(launcher, &packet);
    reader = bly_reader_of(packet.payload, packet.len);
    id = bly_get_u64(&reader);
    if (reader.bad || packet.fds_lost)
        return packet.fds_lost; /* A lost socket is closed, which the server sees. */

    if (packet.type == BLY_WIRE_SPAWNER && packet.n_fds == 1)
        add_spawner(launcher, id, packet.fds[0]);
    else if (packet.type == BLY_WIRE_KILL)
        kill_spawner(launcher, id);
    else if (packet.type == BLY_WIRE_ALLOW && id <= BLY_ALLOW_ALL)
        allow(launcher, id);
    else
        return false;
    return true;
}

static bool is_spawner(void *arg, pid_t pid)
{
    const struct launcher *launcher = arg;

    for (size_t i = 0; i < launcher->n_spawners; i++)
        if (launcher->spawners[i].pid == pid)
            return true;
    return false;
}

static void forget(void *arg, pid_t pid, int status)
{
    struct launcher *launcher = arg;

    (void)status;
    for (size_t i = 0; i < launcher->n_spawners; i++)
        if (launcher->spawners[i].pid == pid)
            launcher->spawners[i--] = launcher->spawners[--launcher->n_spawners];
}

/* False: told to end. */
static bool on_signal(struct launcher *launcher)
{
    struct signalfd_siginfo info;
    struct bly_cgroup *cgroup = &launcher->origin.bounding.cgroup;
    bool go_on = true;
    int status;
    pid_t pid;

    while (read(launcher->signal_fd, &info, sizeof(info)) == sizeof(info))
        if (info.ssi_signo == SIGTERM)
            go_on = false;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        forget(launcher, pid, status);
    /* A child that is no spawner belonged to one that died without cleaning up. */
    if (pid == 0)
        (void)bly_tree_kill(is_spawner, launcher);
    if (cgroup->fd >= 0)
        (void)bly_cgroup_sweep(cgroup->fd, is_spawner, launcher);
    return go_on;
}

static void prepare_while_idle(struct launcher *launcher)
{
    bly_autobuf struct bly_buf buf;
    struct bly_err err = {0};

    if (bly_origin_prepare(&launcher->origin, &err) < 0) {
        bly_log(BLY_LOG_ERROR, "sandbox-unavailable", "reason=\"%s\"", err.text);
        launcher->origin.features.landlock_abi = (uint8_t)bly_wall_landlock_abi();
        for (int kind = 0; kind < BLY_WALL_KINDS; kind++)
            bly_features_lack(&launcher->origin.features, (enum bly_wall_kind)kind, err.text);
        bly_bounding_describe(&launcher->origin.bounding, &launcher->origin.features);
    }
    bly_buf_init(&buf, BLY_WIRE_INLINE_MAX);
    (void)bly_features_pack(&launcher->origin.features, &buf);
    /* Nobody may be waiting for it; a server that is gone shows in the loop. */
    (void)bly_wire_send(BLY_SOCKET_FD, BLY_WIRE_FEATURES, &buf, NULL, 0, false);
}

static void loop(struct launcher *launcher)
{
    bool idle_work = true;

    for (;;) {
        struct pollfd fds[] = {{.fd = BLY_SOCKET_FD, .events = POLLIN},
                               {.fd = launcher->signal_fd, .events = POLLIN}};
        int n = poll(fds, BLY_LEN(fds), idle_work && launcher->bounded ? 0 : -1);

        if (n == 0) {
            prepare_while_idle(launcher);
            idle_work = false;
        }
        if (fds[0].revents != 0 && !serve(launcher))
            return;
        if (fds[1].revents != 0 && !on_signal(launcher))
            return;
    }
}

/* One descriptor a sandboxed process: room for more than the server's own soft limit allows. */
static void raise_nofile(struct rlimit *ret_before)
{
    struct rlimit raised;

    (void)getrlimit(RLIMIT_NOFILE, ret_before);
    raised = *ret_before;
    raised.rlim_cur = raised.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &raised);
}

int bly_launcher_main(bly_helper_fn helper_main)
{
    struct launcher launcher = {.origin = {.helper_main = helper_main,
                                           .bounding.cgroup = {.parent_fd = -EBADF, .fd = -EBADF}}};
    struct stat st;

    if (fstat(BLY_SOCKET_FD, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        bly_log(BLY_LOG_ERROR, "launcher-misused", "reason=\"only the server starts this\"");
        return 2;
    }
    (void)fcntl(BLY_SOCKET_FD, F_SETFD, FD_CLOEXEC);
    (void)fcntl(BLY_LIFE_FD, F_SETFD, FD_CLOEXEC);
    default_signals();
    (void)setsid();
    launcher.signal_fd = bly_caretaker_init("bailey-launcher");
    if (launcher.signal_fd < 0) {
        bly_log(BLY_LOG_ERROR, "launcher-failed", "error=\"%s\"",
                strerrordesc_np(-launcher.signal_fd));
        return 1;
    }
    raise_nofile(&launcher.origin.nofile);

    loop(&launcher);
    if (bly_tree_end(END_MS, forget, &launcher) < 0)
        bly_log(BLY_LOG_WARN, "processes-left", "reason=\"they could not be killed\"");
    bly_bounding_deinit(&launcher.origin.bounding);
    free(launcher.spawners);
    return 0;
}
