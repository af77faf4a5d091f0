#pragma once

/*
 * The server's side of the launcher. The launcher is this binary executed again, before any thread
 * exists, with an empty environment and one socket. It forks one spawner per session; a spawner is
 * single-threaded, is the subreaper and parent of everything its session starts, reaps, reports
 * exits and kills its whole tree when told to or when the server goes away. Loop thread only;
 * nothing blocks.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

struct bly_err;
struct bly_features;
struct bly_plan;
struct bly_policy;

struct bly_launcher;
struct bly_spawner;
struct bly_child;

/* Where our own executable is found again (the founding document's runtime paths). Absolute;
 * borrowed. */
struct bly_runtime_paths {
    const char *self_exe; /* this binary, or /proc/self/exe */
    const char
        *linux_sandbox_exe; /* what arg0 dispatch as bailey-linux-sandbox runs; usually the same */
};

/* What one walled program and all it starts may take together. */
struct bly_bounds {
    uint64_t tasks;        /* processes and threads, our pid 1 included; 0: no bound */
    uint64_t memory_bytes; /* 0: no bound */
    bool tasks_asked;      /* no default: rather nothing walled runs than unbounded */
    const char *cgroup;    /* the delegated one to use; NULL: the server's own. Borrowed */
};

/*
 * Starts the launcher process (fork + exec). `bounds` (NULL: none) hold for all it will start. Must
 * be called before the process has threads: before the first uv_queue_work. `on_death` is called
 * once if the launcher dies although nobody closed it: the server cannot go on. Makes the whole
 * process ignore SIGPIPE, since a program may close its stdin at any time; children start with
 * default signals all the same. Descriptors 0 to 2 must be open.
 */
int bly_launcher_start(uv_loop_t *loop, const struct bly_runtime_paths *paths,
                       const struct bly_bounds *bounds, void (*on_death)(void *arg), void *arg,
                       struct bly_launcher **ret_launcher, struct bly_err *err);

/* Walls that only an operator may settle for, see sandbox.md section 9. */
enum bly_launcher_allowances {
    BLY_ALLOW_LANDLOCK_FS = 1,
    BLY_ALLOW_LANDLOCK_PROCESSES = 2,
    BLY_ALLOW_ALL = 3,
};

/* Before the first spawner. 0 or a negative errno. */
int bly_launcher_allow(struct bly_launcher *launcher, unsigned allowances);

/*
 * `learnt` comes once, from the loop, as soon as the launcher has found out what this machine can
 * enforce (sandbox/enforce/rung.h) by building it: some milliseconds after the start. Before the
 * loop runs.
 */
void bly_launcher_learn(struct bly_launcher *launcher,
                        void (*learnt)(void *arg, const struct bly_features *features), void *arg);

/* Ends the launcher and with it everything it started; `done` runs when it is reaped. After the
 * spawners were closed. */
void bly_launcher_close(struct bly_launcher *launcher, void (*done)(void *arg), void *arg);

/* One spawner per session, made lazily by its owner. The process starts with the first request, and
 * anew when it was killed: what it had started is then gone, the session goes on. */
int bly_spawner_new(struct bly_launcher *launcher, struct bly_spawner **ret_spawner);

/* Kills every descendant of the session (also those with a session of their own) and ends the
 * spawner. Children get their exit callback first if they had none yet; `done` may be NULL. */
void bly_spawner_close(struct bly_spawner *spawner, void (*done)(void *arg), void *arg);

struct bly_spawn {
    const char *const *argv;     /* NULL-terminated, at least one */
    const char *arg0;            /* argv[0] the program sees; NULL: argv[0] */
    const char *const *envp;     /* NULL-terminated; exactly this */
    const char *cwd;             /* absolute */
    bool tty;                    /* 24 x 80 terminal, controlling */
    bool pipe_stdin;             /* ignored with tty */
    const struct bly_plan *plan; /* borrowed for the call; NULL: no wall */
};

struct bly_child_ops {
    /*
     * The program was executed (err == NULL), or could not be (err set, kind BLY_ERR_SPAWN or, when
     * the wall could not be built, BLY_ERR_UNSUPPORTED; the child is gone and must not be used
     * after return). Descriptors are the callee's: non-blocking, close-on-exec; -EBADF where there
     * is none. With a terminal out_fd is its master, for reading and writing, and the others are
     * -EBADF.
     */
    void (*started)(void *arg, pid_t pid, int in_fd, int out_fd, int err_fd,
                    const struct bly_err *err);
    /* Reaped; wait status as in waitpid(2). Once, after started. The child is gone after return. */
    void (*exited)(void *arg, int status);
};

/* Starts a program. 0: exactly one `started` will come. Negative errno: nothing was sent, no
 * callback. */
int bly_spawner_start(struct bly_spawner *spawner, const struct bly_spawn *spawn,
                      const struct bly_child_ops *ops, void *arg, struct bly_child **ret_child,
                      struct bly_err *err);

/* Signals the child's process group (its whole wall for SIGKILL on a sandboxed one). Harmless when
 * gone or not started yet: a SIGKILL then takes effect at once; `started` may come with an error.
 */
void bly_child_signal(struct bly_child *child, int sig);

/* The rung of the ladder its wall is built on (enum bly_rung); known from `started` on. */
unsigned bly_child_rung(const struct bly_child *child);

/*
 * Whether the supervisor of its wall has refused a call of something inside (sandbox/enforce/
 * supervise.h). Known in `exited`; false when the wall was ended from outside, and its supervisor
 * could not say so any more.
 */
bool bly_child_was_refused(const struct bly_child *child);

/*
 * Starts a sandboxed fs helper around `plan`. `ready` gets a connected SOCK_SEQPACKET descriptor
 * (callee's, non-blocking) once the wall stands, or err. Closing the descriptor ends the helper;
 * bly_child_signal with SIGKILL ends a stuck one. `ops->exited` as above.
 */
int bly_spawner_helper(struct bly_spawner *spawner, const struct bly_plan *plan,
                       const struct bly_child_ops *ops, void *arg, struct bly_child **ret_child,
                       struct bly_err *err); /* the socket arrives as out_fd of `started` */

/*
 * Entry of the launcher process: argv[1] is BLY_LAUNCHER_ARG, descriptor 3 its socket, and 4 what
 * the server knows its death by.
 * `helper_main` is what a helper child runs inside its wall (fs/helper, handed in because the
 * launcher lies below it).
 */
#define BLY_LAUNCHER_ARG "--bailey-run-as-launcher"
typedef int (*bly_helper_fn)(int socket_fd, const struct bly_policy *policy,
                             const struct bly_policy *folded);
int bly_launcher_main(bly_helper_fn helper_main);
