#pragma once

/*
 * A small directory tree to build walls in, and a way to run a function behind one. Each yard is
 * fresh; the function's result comes back as an errno (0: it succeeded), so that "denied" and "did
 * not work for some other reason" cannot be confused.
 *
 *     OUT/secret, OUT/dir          outside every grant
 *     W/.git/config, .agents ...   the workspace, protected names
 *     W/a/b/c, W/p/open, W/docs    for narrower rules
 *     W/link -> ../out             planted
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"
#include "sandbox/enforce/wall.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"
#include "support/mounts.h"

enum {
    YARD_NOBODY = 65534, /* an ordinary user */
    YARD_ERROR_MAX = 8192,
    YARD_KILLED = 180,  /* by SIGSYS */
    YARD_NO_PLAN = 200, /* the policy or the plan was refused */
    YARD_NO_WALL = 201, /* entering or sealing failed, as it must for some tests */
    YARD_STUCK = 202,
};

struct yard {
    char root[64];
};

/* Where the attempts find things; set before the fork, so that nothing is passed to them. */
static struct yard yard;
static pid_t yard_bystander; /* the test itself */

static inline const char *yard_path(const char *name)
{
    static char path[512];

    (void)snprintf(path, sizeof(path), "%s/%s", yard.root, name);
    return path;
}

static inline void yard_put(const char *name, const char *text)
{
    bly_autofd int fd = open(yard_path(name), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static inline void yard_make(void)
{
    static const char *const dirs[] = {"out",
                                       "out/dir",
                                       "w",
                                       "w/.git",
                                       "w/.agents",
                                       "w/.codex",
                                       "w/.aws",
                                       "w/a",
                                       "w/a/b",
                                       "w/a/b/c",
                                       "w/p",
                                       "w/p/open",
                                       "w/docs",
                                       "w/p/open/.git",
                                       "w/p/open/.agents",
                                       "w/p/open/.codex",
                                       "w/p/open/.aws"};

    (void)snprintf(yard.root, sizeof(yard.root), "/tmp/bly-yard-XXXXXX");
    assert_non_null(mkdtemp(yard.root));
    assert_int_equal(chmod(yard.root, 0755), 0);
    for (size_t i = 0; i < BLY_LEN(dirs); i++)
        assert_int_equal(mkdir(yard_path(dirs[i]), 0755), 0);
    yard_put("out/secret", "secret");
    yard_put("w/.git/config", "[core]\n");
    yard_put("w/file", "file");
    yard_put("w/p/hidden", "hidden");
    yard_put("w/docs/page", "page");
    assert_int_equal(symlink("../out", yard_path("w/link")), 0);
    yard_bystander = getpid();
}

static inline void yard_remove(void)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf %s", yard.root);
    assert_int_equal(system(command), 0); /* NOLINT(concurrency-mt-unsafe) */
}

/* Gives everything to an ordinary user. */
static inline void yard_give(uid_t uid)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "chown -hR %u:%u %s", uid, uid, yard.root);
    assert_int_equal(system(command), 0); /* NOLINT(concurrency-mt-unsafe) */
}

/*
 * All protected names exist: missing ones need supervision (supervise.h), which has its own test.
 *
 * "read /", "write @w", "deny @w/p", "minimal", "unrestricted", "online", separated by ';'; '@' is
 * the yard.
 */
static inline struct bly_policy *yard_policy(const char *text)
{
    static const struct bly_policy_env env = {"/", NULL};
    char entries[4096] = "", json[8192];
    struct bly_policy *policy = NULL;
    const char *network = "restricted", *type = "restricted";
    size_t len = 0;

    while (*text) {
        char item[256], word[16] = "", path[128] = "";
        size_t n = strcspn(text, ";");

        (void)snprintf(item, sizeof(item), "%.*s", (int)n, text);
        (void)sscanf(item, " %15s %127s", word, path);
        text += n + (text[n] == ';');
        if (strcmp(word, "online") == 0)
            network = "enabled";
        else if (strcmp(word, "unrestricted") == 0)
            type = "unrestricted";
        else if (strcmp(word, "minimal") == 0)
            len += (size_t)snprintf(entries + len, sizeof(entries) - len,
                                    "%s{\"path\":{\"type\":\"special\",\"value\":{\"kind\":"
                                    "\"minimal\"}},\"access\":\"read\"}",
                                    len ? "," : "");
        else
            len += (size_t)snprintf(
                entries + len, sizeof(entries) - len,
                "%s{\"path\":{\"type\":\"path\",\"path\":\"%s%s%s\"},\"access\":\"%s\"}",
                len ? "," : "", path[0] == '@' ? yard.root : "", path[0] == '@' ? "/" : "",
                path + (path[0] == '@'), word);
    }
    (void)snprintf(json, sizeof(json),
                   "{\"windowsSandboxLevel\":\"disabled\",\"permissions\":{\"type\":\"managed\","
                   "\"network\":\"%s\",\"file_system\":{\"type\":\"%s\"%s%s%s}}}",
                   network, type, strcmp(type, "restricted") == 0 ? ",\"entries\":[" : "", entries,
                   strcmp(type, "restricted") == 0 ? "]" : "");
    if (bly_policy_parse_text(json, &env, &policy, NULL) < 0)
        return NULL;
    return policy;
}

static inline struct bly_plan *yard_plan(const char *text, enum bly_purpose purpose)
{
    struct bly_policy *policy = yard_policy(text);
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};

    if (!policy)
        return NULL;
    if (bly_plan_make(policy, purpose, &bly_probe_disk, NULL, 0, &plan, &err) < 0)
        fprintf(stderr, "# no plan: %s\n", err.text);
    bly_policy_unref(policy);
    return plan;
}

typedef int (*yard_attempt)(void);

/* Without cleanup by libraries: the filter of a helper lets nothing else through. */
static inline _Noreturn void yard_exit(int code)
{
    (void)syscall(SYS_exit_group, code);
    __builtin_trap();
}

static inline int yard_wait(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return YARD_STUCK;
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGSYS ? YARD_KILLED : YARD_STUCK;
    return WEXITSTATUS(status);
}

/* What the last failure to build a wall said; shared with the children. */
static char *yard_error;

static inline _Noreturn void yard_no_wall(const struct bly_err *err)
{
    (void)snprintf(yard_error, YARD_ERROR_MAX, "%s", err->text);
    yard_exit(YARD_NO_WALL);
}

static inline _Noreturn void yard_inside(const struct bly_plan *plan, enum bly_purpose purpose,
                                         yard_attempt attempt)
{
    struct bly_err err = {0};
    int listener = -EBADF;
    pid_t pid = 0;

    if (bly_wall_enter(plan, &err) < 0)
        yard_no_wall(&err);
    if (purpose == BLY_FOR_PROCESS) {
        pid = fork();
        if (pid > 0) {
            if (bly_wall_seal_init(plan, &err) < 0)
                yard_no_wall(&err);
            yard_exit(yard_wait(pid));
        }
    }
    if (bly_wall_seal(plan,
                      purpose == BLY_FOR_HELPER ? BLY_FILTER_HELPER : bly_wall_process_filter(plan),
                      &listener, &err) < 0)
        yard_no_wall(&err);
    yard_exit(attempt());
}

/* Runs the attempt behind the wall of a plan. */
static inline int yard_run(const struct bly_plan *plan, enum bly_purpose purpose,
                           yard_attempt attempt)
{
    struct clone_args args = {.flags = bly_wall_clone_flags(plan), .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &args, sizeof(args));

    if (pid == 0)
        yard_inside(plan, purpose, attempt);
    return pid < 0 ? YARD_NO_WALL : yard_wait((pid_t)pid);
}

static inline int yard_run_policy(const char *policy, enum bly_purpose purpose,
                                  yard_attempt attempt)
{
    struct bly_plan *plan = yard_plan(policy, purpose);
    int r;

    if (!plan)
        return YARD_NO_PLAN;
    r = yard_run(plan, purpose, attempt);
    bly_plan_free(plan);
    return r;
}

static inline int yard_run_free(yard_attempt attempt)
{
    pid_t pid = fork();

    if (pid == 0)
        yard_exit(attempt());
    return yard_wait(pid);
}

static inline void yard_become(uid_t uid)
{
    if (uid != getuid() && (setgid(uid) < 0 || setuid(uid) < 0))
        yard_exit(YARD_STUCK);
    /* What became of a process that changed its user may not be looked at by it. */
    if (prctl(PR_SET_DUMPABLE, 1) < 0 || bly_wall_prepare(NULL) < 0)
        yard_exit(YARD_STUCK);
}

/* What `run` gives for a case, in a child that belongs to `uid`, in a fresh yard. The child calls
 * `prepare` (NULL: nothing) before that, as whoever the caller is. */
static inline int yard_run_prepared(uid_t uid, void (*prepare)(void), int (*run)(const void *arg),
                                    const void *arg)
{
    pid_t pid;

    yard_make();
    if (uid != getuid())
        yard_give(uid);
    pid = fork();
    if (pid == 0) {
        yard_bystander = getpid();
        if (prepare)
            prepare();
        yard_become(uid);
        yard_exit(run(arg));
    }
    return yard_wait(pid);
}

static inline int yard_run_as(uid_t uid, int (*run)(const void *arg), const void *arg)
{
    return yard_run_prepared(uid, NULL, run, arg);
}

/* ---- the test as a whole ---- */

/* The exit code where the test, or a part of it, cannot run. */
static inline int yard_code_of_a_skip(void)
{
    const char *must = getenv("BLY_MUST_RUN"); /* NOLINT(concurrency-mt-unsafe) */

    return must && strcmp(must, "1") == 0 ? 1 : 77;
}

static inline int yard_nothing(void)
{
    return 0;
}

/* Before anything else: 0, or the exit code. */
static inline int yard_prepare(void)
{
    struct bly_err err = {0};

    (void)close_range(3, ~0u, 0); /* whatever the caller left open */
    yard_error =
        mmap(NULL, YARD_ERROR_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (yard_error == MAP_FAILED || bly_wall_prepare(&err) < 0) {
        fprintf(stderr, "cannot prepare: %s\n", err.text);
        return 1;
    }
    return 0;
}

/* The same for a test that needs walls of namespaces. */
static inline int yard_begin(const char *policy)
{
    int r = yard_prepare();

    if (r != 0)
        return r;
    yard_make();
    r = yard_run_policy(policy, BLY_FOR_HELPER, yard_nothing);
    yard_remove();
    if (r == 0)
        return 0;
    fprintf(stderr, "no walls can be built here: %s\n", yard_error);
    return yard_code_of_a_skip();
}

/* Asked without anything of ours in between: a wall that fails where there are namespaces fails. */
static inline int yard_ask_for_namespaces(const void *arg)
{
    (void)arg;
    return unshare(CLONE_NEWUSER) < 0 || have_own_mounts() < 0 ? errno : 0;
}

/* What an ordinary user is told who wants namespaces; -1: not asked yet. */
static int yard_refused = -1;

static inline bool yard_user_may_try(void)
{
    if (yard_refused < 0) {
        yard_refused = yard_run_as(YARD_NOBODY, yard_ask_for_namespaces, NULL);
        yard_remove();
    }
    return yard_refused == 0;
}

/* At the end: the exit code of `failed` tests, part of which may not have run. */
static inline int yard_end(int failed)
{
    if (failed || yard_refused <= 0)
        return failed;
    fprintf(stderr, "as root alone: uid %d gets no namespaces here: %s\n", YARD_NOBODY,
            strerror(yard_refused));
    return yard_code_of_a_skip();
}

/* ---- attempts that both kinds of wall are tried with ---- */

static inline int try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);

    if (fd < 0)
        return errno;
    (void)close(fd);
    return 0;
}

static inline int read_secret(void)
{
    return try_open(yard_path("out/secret"), O_RDONLY);
}

static inline int write_secret(void)
{
    return try_open(yard_path("out/secret"), O_WRONLY);
}

static inline int create_outside(void)
{
    return try_open(yard_path("out/new"), O_CREAT | O_WRONLY);
}

static inline int create_inside(void)
{
    return try_open(yard_path("w/new"), O_CREAT | O_WRONLY);
}

static inline int kernel_setting(void)
{
    return try_open("/proc/sys/kernel/core_pattern", O_WRONLY);
}

static inline int do_exec(void)
{
    execl("/bin/true", "true", (char *)NULL);
    return errno;
}
