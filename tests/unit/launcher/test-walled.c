#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launcher/planner.h"
#include "sandbox/policy/policy.h"
#include "unit/process/run.h"

/* ---- plans ---------------------------------------------------------------------------------- */

struct planned {
    bool done;
    struct bly_plan *plan;
    struct bly_err err;
};

static void on_planned(void *arg, struct bly_plan *plan, const struct bly_err *err)
{
    struct planned *planned = arg;

    planned->done = true;
    planned->plan = plan;
    if (err != NULL)
        planned->err = *err;
}

enum { NETWORK = 1 };

/* Everything readable, `path` writable. */
static struct bly_policy *policy_writing(const char *path, unsigned flags)
{
    static const char form[] =
        "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\","
        "\"entries\":[{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"root\"}},"
        "\"access\":\"read\"},{\"path\":{\"type\":\"path\",\"path\":\"file://%s\"},"
        "\"access\":\"write\"}]},\"network\":\"%s\"},\"cwd\":\"file:///\","
        "\"windowsSandboxLevel\":\"disabled\"}";
    const struct bly_policy_env env = {.cwd = "/"};
    bly_autofree char *json = NULL;
    struct bly_policy *policy = NULL;
    struct bly_err err;

    assert_true(asprintf(&json, form, path, flags & NETWORK ? "enabled" : "restricted") > 0);
    if (bly_policy_parse_text(json, &env, &policy, &err) < 0)
        fail_msg("%s", err.text);
    return policy;
}

static void plan_with(struct fixture *fixture, struct bly_planner *planner,
                      const struct bly_policy *policy, enum bly_purpose purpose,
                      struct planned *planned)
{
    struct bly_planner_job *job;

    *planned = (struct planned){0};
    assert_int_equal(
        bly_planner_make(planner, policy, purpose, on_planned, planned, &job, &planned->err), 0);
    assert_false(planned->done);
    fixture_wait(fixture, &planned->done);
}

static struct bly_plan *plan_writing(struct fixture *fixture, const char *path, unsigned flags,
                                     enum bly_purpose purpose)
{
    struct bly_policy *policy = policy_writing(path, flags);
    struct bly_planner *planner;
    struct planned planned;

    assert_int_equal(bly_planner_new(&fixture->loop, 1000, &planner), 0);
    plan_with(fixture, planner, policy, purpose, &planned);
    if (planned.plan == NULL)
        fail_msg("%s", planned.err.text);
    bly_planner_free(planner);
    bly_policy_unref(policy);
    return planned.plan;
}

/* ---- programs, by table --------------------------------------------------------------------- */

static const char *const envp[] = {"PATH=/usr/bin:/bin", NULL};

static const struct walled_case {
    const char *name;
    const char *argv[4];
    const char *cwd; /* below the directory; NULL: the directory itself */
    bool tty, network;
    bool as_root; /* means something only then */
    const char *out;
    int code;
    int sys; /* not 0: the start fails with it */
} programs[] = {
    {"it runs", {"/bin/sh", "-c", "echo hi; exit 3"}, .out = "hi\n", .code = 3},
    {"with the network", {"/bin/sh", "-c", "echo hi"}, .network = true, .out = "hi\n"},
    {"what it may write is written", {"/bin/sh", "-c", "echo x > f && cat f"}, .out = "x\n"},
    {"nothing else is",
     {"/bin/sh", "-c", "echo x 2>/dev/null > /bailey-no; [ -e /bailey-no ]"},
     .code = 1},
    {"exit status 255", {"/bin/sh", "-c", "exit 255"}, .code = 255},
    {"exit status 137 is no signal", {"/bin/sh", "-c", "exit 137"}, .code = 137},
    {"SIGKILL from inside", {"/bin/sh", "-c", "kill -KILL $$; sleep 5"}, .code = 137},
    {"SIGSEGV", {"/bin/sh", "-c", "kill -SEGV $$; sleep 5"}, .code = 139},
    {"SIGHUP", {"/bin/sh", "-c", "kill -HUP $$; sleep 5"}, .code = 129},
    {"pid 1 cannot be killed",
     {"/bin/sh", "-c", "kill -KILL 1; kill -TERM 1; kill -INT 1; echo alive"},
     .out = "alive\n"},
    {"descriptors are 0, 1 and 2 only",
     {"/bin/sh", "-c", "ls /proc/self/fd | wc -l"},
     .out = "4\n"},
    {"stdin is /dev/null", {"/bin/sh", "-c", "cat; echo end"}, .out = "end\n"},
    {"output goes into pipes",
     {"/bin/sh", "-c", "readlink /proc/$$/fd/1 | cut -c1-4"},
     .out = "pipe\n"},
    {"no signal is ignored or blocked",
     {"/bin/sh", "-c", "grep -E '^Sig(Ign|Blk)' /proc/self/status | tr -d '[:space:]0'"},
     .out = "SigBlk:SigIgn:"},
    {"no capability",
     {"/bin/sh", "-c", "grep ^Cap /proc/self/status | tr -d '[:space:]0'"},
     .out = "CapInh:CapPrm:CapEff:CapBnd:CapAmb:"},
    {"no new privileges",
     {"/bin/sh", "-c", "grep NoNewPrivs /proc/self/status | tr -d '[:space:]'"},
     .out = "NoNewPrivs:1"},
    {"no core files", {"/bin/sh", "-c", "ulimit -c"}, .out = "0\n"},
    {"the limit of descriptors is the server's", {"/bin/sh", "-c", "ulimit -n"}, .out = "900\n"},
    {"no supplementary groups of root",
     {"/bin/sh", "-c", "grep ^Groups: /proc/self/status | tr -d '[:space:]'"},
     .as_root = true,
     .out = "Groups:"},
    {"a missing protected name cannot be created",
     {"/bin/sh", "-c", "mkdir .git 2>/dev/null; mkdir ok && ls -A"},
     .out = "ok\n"},
    {"a session of its own",
     {"/bin/sh", "-c", "set -- $(cat /proc/$$/stat); [ $$ = $5 ] && [ $$ = $6 ] && echo $7"},
     .out = "0\n"},
    {"only its own processes are there",
     {"/bin/sh", "-c", "set -- /proc/[0-9]*; echo $#"},
     .out = "2\n"},
    {"pid 1 does not show the policy",
     {"/bin/sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"},
     .out = "bailey --bailey-run-as-launcher "},
    {"pid 1 cannot be looked into",
     {"/bin/sh", "-c",
      "cat /proc/1/environ /proc/1/maps /proc/1/mem 2>/dev/null; readlink /proc/1/exe /proc/1/cwd "
      "/proc/1/fd/*; ls /proc/1/root/ 2>/dev/null; echo end"},
     .out = "end\n"},
    {"a missing program", {"/no/such"}, .sys = ENOENT},
    {"a missing program by search", {"no-such-program-x"}, .sys = ENOENT},
    {"a directory as program", {"/usr"}, .sys = EACCES},
    {"a missing directory", {"/bin/true"}, .cwd = "nope", .sys = ENOENT},
    {"a missing program with a terminal", {"/no/such"}, .tty = true, .sys = ENOENT},
    {"a terminal",
     {"/bin/sh", "-c", "stty size; exit 7"},
     .tty = true,
     .out = "24 80\r\n",
     .code = 7},
    {"a controlling terminal",
     {"/bin/sh", "-c",
      "set -- $(cat /proc/$$/stat); [ $$ = $5 ] && [ $$ = $6 ] && [ $7 != 0 ] && [ $8 = $$ ] && "
      "echo leader"},
     .tty = true,
     .out = "leader\r\n"},
    {"death by signal with a terminal",
     {"/bin/sh", "-c", "kill -KILL $$; sleep 5"},
     .tty = true,
     .code = 137},
};

static void check_program(void **state)
{
    struct fixture *fixture = *state;
    const struct walled_case *c = fixture->param;
    struct bly_plan *plan;
    struct bly_spawn spawn = {.argv = c->argv, .envp = envp, .tty = c->tty};
    bly_autofree char *cwd = NULL;
    struct run run;

    if (c->as_root && geteuid() != 0)
        skip();
    cwd = fixture_path(fixture, c->cwd != NULL ? c->cwd : ".");
    plan = plan_writing(fixture, fixture->dir, c->network ? NETWORK : 0, BLY_FOR_PROCESS);
    spawn.cwd = cwd;
    spawn.plan = plan;

    run_init(&run, fixture);
    run_start(&run, &spawn, true);
    plan = bly_plan_free(plan);
    run_wait_closed(&run);
    if (c->sys != 0) {
        assert_true(run.failed);
        assert_int_equal(run.err.kind, BLY_ERR_SPAWN);
        assert_int_equal(run.err.sys, c->sys);
    } else {
        if (run.failed)
            fail_msg("%s", run.err.text);
        assert_string_equal(run_text(&run, c->tty ? BLY_PTY : BLY_STDOUT), c->out ? c->out : "");
        assert_int_equal(run.code, c->code);
    }
    run_close(&run);
}

/* ---- others --------------------------------------------------------------------------------- */

static void start_walled(struct run *run, struct fixture *fixture, const char *script, bool tty)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    struct bly_plan *plan = plan_writing(fixture, fixture->dir, 0, BLY_FOR_PROCESS);
    const struct bly_spawn spawn = {
        .argv = argv, .envp = envp, .cwd = fixture->dir, .tty = tty, .plan = plan};

    run_init(run, fixture);
    run_start(run, &spawn, true);
    bly_plan_free(plan);
}

static void interrupt_reaches_the_command(void **state)
{
    struct run run;

    start_walled(&run, *state,
                 "trap 'echo got; exit 9' INT; echo ready; while :; do sleep 0.01; done", false);
    run_wait_text(&run, BLY_STDOUT, "ready");
    bly_process_interrupt(run.process);
    run_wait_closed(&run);
    assert_string_equal(run_text(&run, BLY_STDOUT), "ready\ngot\n");
    assert_int_equal(run.code, 9);
    run_close(&run);
}

static void ignore_outcome(void *arg, enum bly_write_status status)
{
    (void)arg;
    (void)status;
}

static void control_c_through_a_terminal(void **state)
{
    struct run run;

    start_walled(&run, *state,
                 "trap 'echo got; exit 9' INT; echo ready; while :; do sleep 0.01; done", true);
    run_wait_text(&run, BLY_PTY, "ready");
    bly_process_write(run.process, "\3", 1, NULL, ignore_outcome, NULL);
    run_wait_closed(&run);
    assert_non_null(strstr(run_text(&run, BLY_PTY), "got"));
    assert_int_equal(run.code, 9);
    run_close(&run);
}

static void everything_ends_with_the_command(void **state)
{
    struct run run;
    bly_autofree char *gate = fixture_path(*state, "gate");
    bly_autofree char *late = fixture_path(*state, "late");
    int fd;

    assert_int_equal(mkfifo(gate, 0600), 0);
    start_walled(&run, *state,
                 "(cat gate; echo > late) & setsid sh -c 'cat gate; echo > late' & "
                 "sleep 0.1; exit 0",
                 false);
    run_wait_closed(&run); /* Although they held the pipes. */
    assert_int_equal(run.code, 0);
    fd = open(gate, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    assert_int_equal(fd, -1); /* Nobody reads it any more. */
    assert_int_equal(errno, ENXIO);
    assert_int_equal(access(late, F_OK), -1);
    run_close(&run);
}

static void terminate_ends_the_whole_wall(void **state)
{
    struct run run;
    bly_autofree char *gate = fixture_path(*state, "gate");

    assert_int_equal(mkfifo(gate, 0600), 0);
    start_walled(&run, *state, "setsid sh -c 'trap \"\" TERM; echo in; cat gate' & sleep 300",
                 false);
    run_wait_text(&run, BLY_STDOUT, "in");
    assert_true(bly_process_terminate(run.process));
    run_wait_closed(&run);
    assert_int_equal(run.code, 137);
    assert_int_equal(open(gate, O_WRONLY | O_NONBLOCK | O_CLOEXEC), -1);
    run_close(&run);
}

static void killing_before_the_start_is_answered(void **state)
{
    struct run run;

    for (int i = 0; i < 10; i++) {
        start_walled(&run, *state, "sleep 300", false);
        assert_true(bly_process_terminate(run.process));
        run_wait_closed(&run);
        assert_true(run.failed ? run.err.kind == BLY_ERR_SPAWN : run.code == 137);
        run_close(&run);
    }
}

static void a_denial_has_evidence(void **state)
{
    static const struct {
        const char *name, *script;
        enum bly_evidence evidence;
    } cases[] = {
        {"words", "echo x > /usr/bailey-no", BLY_EVIDENCE_WORDS},
        {"a mount refuses without a word", "exec 2>/dev/null; echo x > /usr/bailey-no",
         BLY_EVIDENCE_NONE},
        {"a protected name, without a word", "exec 2>/dev/null; mkdir -p .git/hooks || exit 1",
         BLY_EVIDENCE_SUPERVISED},
        {"a protected name, in a child", "(echo x > .codex; true) 2>/dev/null; exit 7",
         BLY_EVIDENCE_SUPERVISED},
        {"a protected name that was not missed", "mkdir .git 2>/dev/null; true", BLY_EVIDENCE_NONE},
        {"supervised, and nothing refused", "mkdir d && echo x > d/.git && exit 1",
         BLY_EVIDENCE_NONE},
        {"SIGSYS", "kill -SYS $$; sleep 5", BLY_EVIDENCE_SIGNAL},
    };

    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        struct run run;

        start_walled(&run, *state, cases[i].script, false);
        run_wait_closed(&run);
        if (run.evidence != cases[i].evidence)
            print_error("%s\n", cases[i].name);
        assert_int_equal(run.evidence, cases[i].evidence);
        assert_int_equal(bly_process_state(run.process).sandbox_denied, run.denied);
        run_close(&run);
    }
}

static bool all_closed(void *arg)
{
    const struct run *runs = arg;

    for (int i = 0; i < 50; i++)
        if (!runs[i].closed && !runs[i].failed)
            return false;
    return true;
}

static void fifty_at_once(void **state)
{
    static struct run runs[50];

    for (int i = 0; i < 50; i++) {
        char script[64];

        (void)snprintf(script, sizeof(script), "echo %d; exit %d", i, i);
        start_walled(&runs[i], *state, script, i % 10 == 0);
    }
    fixture_wait_for(*state, all_closed, runs);
    for (int i = 0; i < 50; i++) {
        char text[16];

        if (runs[i].failed)
            fail_msg("%s", runs[i].err.text);
        (void)snprintf(text, sizeof(text), i % 10 == 0 ? "%d\r\n" : "%d\n", i);
        assert_string_equal(run_text(&runs[i], i % 10 == 0 ? BLY_PTY : BLY_STDOUT), text);
        assert_int_equal(runs[i].code, i);
        run_close(&runs[i]);
    }
}

static void a_plan_that_no_longer_fits_runs_nothing(void **state)
{
    struct fixture *fixture = *state;
    bly_autofree char *root = fixture_path(fixture, "root");
    bly_autofree char *other = fixture_path(fixture, "other");
    const char *argv[] = {"/bin/sh", "-c", "echo ran", NULL};
    struct bly_plan *plan;
    struct bly_spawn spawn = {.argv = argv, .envp = envp, .cwd = "/"};
    struct run run;

    assert_int_equal(mkdir(root, 0755), 0);
    plan = plan_writing(fixture, root, 0, BLY_FOR_PROCESS);
    assert_int_equal(rename(root, other), 0);
    assert_int_equal(symlink("/usr", root), 0);
    spawn.plan = plan;
    run_init(&run, fixture);
    run_start(&run, &spawn, true);
    run_wait_closed(&run);
    assert_true(run.failed);
    assert_int_equal(run.err.kind, BLY_ERR_UNSUPPORTED);
    assert_non_null(strstr(run.err.text, "sandbox unavailable: "));
    bly_plan_free(plan);
    run_close(&run);
}

/* ---- helpers -------------------------------------------------------------------------------- */

struct helper {
    struct bly_child *child;
    bool answered, exited;
    int status;
    int socket;
    struct bly_err err;
};

static void on_helper_started(void *arg, pid_t pid, int in_fd, int out_fd, int err_fd,
                              const struct bly_err *err)
{
    struct helper *helper = arg;

    (void)pid;
    assert_true(in_fd < 0 && err_fd < 0);
    helper->answered = true;
    helper->socket = out_fd;
    if (err != NULL)
        helper->err = *err;
}

static void on_helper_exited(void *arg, int status)
{
    struct helper *helper = arg;

    helper->exited = true;
    helper->status = status;
}

static const struct bly_child_ops helper_ops = {.started = on_helper_started,
                                                .exited = on_helper_exited};

/*
 * Inside the wall: answers each packet with what bly_policy_decide() says about the path in it.
 * Ends with the socket; hangs when asked to.
 */
static int test_helper(int socket_fd, const struct bly_policy *policy,
                       const struct bly_policy *folded)
{
    char path[256];
    ssize_t n;

    (void)folded;
    while ((n = read(socket_fd, path, sizeof(path) - 1)) > 0) {
        char answer = (char)('0' + bly_policy_decide(policy, (path[n] = '\0', path)));

        if (strcmp(path, "hang") == 0)
            for (;;)
                ;
        if (write(socket_fd, &answer, 1) != 1)
            return 2;
    }
    return 0;
}

static void start_helper(struct helper *helper, struct fixture *fixture)
{
    struct bly_plan *plan = plan_writing(fixture, fixture->dir, 0, BLY_FOR_HELPER);

    *helper = (struct helper){.socket = -EBADF};
    assert_int_equal(bly_spawner_helper(fixture->spawner, plan, &helper_ops, helper, &helper->child,
                                        &helper->err),
                     0);
    bly_plan_free(plan);
    fixture_wait(fixture, &helper->answered);
    if (helper->socket < 0)
        fail_msg("%s", helper->err.text);
}

static int ask(const struct helper *helper, const char *path)
{
    struct pollfd in = {.fd = helper->socket, .events = POLLIN};
    char answer;

    assert_int_equal(write(helper->socket, path, strlen(path)), strlen(path));
    assert_int_equal(poll(&in, 1, 20000), 1);
    assert_int_equal(read(helper->socket, &answer, 1), 1);
    return answer - '0';
}

static void a_helper_answers_and_ends_with_its_socket(void **state)
{
    struct fixture *fixture = *state;
    struct helper helper;

    start_helper(&helper, fixture);
    assert_true(fcntl(helper.socket, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(helper.socket, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(ask(&helper, "/usr/bin"), BLY_ACCESS_READ);
    assert_int_equal(ask(&helper, fixture->dir), BLY_ACCESS_WRITE);
    bly_close(helper.socket);
    fixture_wait(fixture, &helper.exited);
    assert_int_equal(helper.status, 0);
}

static void a_helper_that_hangs_can_be_killed(void **state)
{
    struct fixture *fixture = *state;
    struct helper helper;

    start_helper(&helper, fixture);
    assert_int_equal(write(helper.socket, "hang", 4), 4);
    bly_close(helper.socket);
    assert_false(helper.exited);
    bly_child_signal(helper.child, SIGKILL);
    fixture_wait(fixture, &helper.exited);
    assert_int_equal(helper.status, SIGKILL);
}

static void a_helper_ends_with_its_session(void **state)
{
    struct fixture *fixture = *state;
    struct helper helper;

    start_helper(&helper, fixture);
    fixture_close_spawner(fixture);
    assert_true(helper.exited);
    bly_close(helper.socket);
}

/* ---- the planner ---------------------------------------------------------------------------- */

static void a_link_in_what_was_once_writable_is_refused(void **state)
{
    struct fixture *fixture = *state;
    bly_autofree char *work = fixture_path(fixture, "work");
    bly_autofree char *link = fixture_path(fixture, "work/link");
    bly_autofree char *secret = fixture_path(fixture, "secret");
    struct bly_policy *first = NULL, *second = NULL;
    struct bly_planner *planner;
    struct planned planned;

    assert_int_equal(mkdir(work, 0755), 0);
    assert_int_equal(mkdir(secret, 0755), 0);
    assert_int_equal(bly_planner_new(&fixture->loop, 1000, &planner), 0);
    first = policy_writing(work, 0);
    second = policy_writing(link, 0);

    plan_with(fixture, planner, first, BLY_FOR_HELPER, &planned);
    assert_non_null(planned.plan);
    bly_plan_free(planned.plan);

    /* What a program in that wall could have planted. */
    assert_int_equal(symlink(secret, link), 0);
    plan_with(fixture, planner, second, BLY_FOR_HELPER, &planned);
    assert_null(planned.plan);
    assert_int_equal(planned.err.kind, BLY_ERR_INVALID);
    assert_non_null(strstr(planned.err.text, link));
    bly_policy_unref(first);
    bly_policy_unref(second);
    bly_planner_free(planner);
}

static void a_plan_overtaken_by_a_grant_is_made_again(void **state)
{
    struct fixture *fixture = *state;
    bly_autofree char *work = fixture_path(fixture, "work");
    bly_autofree char *link = fixture_path(fixture, "work/link");
    bly_autofree char *secret = fixture_path(fixture, "secret");
    struct bly_policy *first = NULL, *second = NULL;
    struct bly_planner *planner;
    struct planned one = {0}, two = {0};
    struct bly_planner_job *job;

    assert_int_equal(mkdir(work, 0755), 0);
    assert_int_equal(mkdir(secret, 0755), 0);
    assert_int_equal(symlink(secret, link), 0);
    assert_int_equal(bly_planner_new(&fixture->loop, 1000, &planner), 0);
    first = policy_writing(work, 0);
    second = policy_writing(link, 0);

    /* Both are under way at the same time; one of them comes first, and then the other must lose:
     * the second one when it comes last, and when it comes first it was fine. */
    assert_int_equal(
        bly_planner_make(planner, first, BLY_FOR_HELPER, on_planned, &one, &job, &one.err), 0);
    assert_int_equal(
        bly_planner_make(planner, second, BLY_FOR_HELPER, on_planned, &two, &job, &two.err), 0);
    fixture_wait(fixture, &one.done);
    fixture_wait(fixture, &two.done);
    assert_non_null(one.plan);
    bly_plan_free(one.plan);
    bly_plan_free(two.plan);
    plan_with(fixture, planner, second, BLY_FOR_HELPER, &two);
    assert_null(two.plan);
    assert_int_equal(two.err.kind, BLY_ERR_INVALID);
    bly_policy_unref(first);
    bly_policy_unref(second);
    bly_planner_free(planner);
}

static void a_cancelled_plan_says_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct bly_policy *policy = policy_writing(fixture->dir, 0);
    struct bly_planner *planner;
    struct bly_planner_job *job;
    struct planned cancelled = {0}, next;

    assert_int_equal(bly_planner_new(&fixture->loop, 1000, &planner), 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(bly_planner_make(planner, policy, BLY_FOR_HELPER, on_planned, &cancelled,
                                          &job, &cancelled.err),
                         0);
        bly_planner_cancel(job);
    }
    plan_with(fixture, planner, policy, BLY_FOR_HELPER, &next);
    assert_non_null(next.plan);
    bly_plan_free(next.plan);
    bly_policy_unref(policy);
    bly_planner_free(planner); /* Cancelled jobs may still be under way. */
    assert_false(cancelled.done);
}

#define WALLED_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

static const struct CMUnitTest others[] = {
    WALLED_TEST(interrupt_reaches_the_command),
    WALLED_TEST(control_c_through_a_terminal),
    WALLED_TEST(everything_ends_with_the_command),
    WALLED_TEST(terminate_ends_the_whole_wall),
    WALLED_TEST(killing_before_the_start_is_answered),
    WALLED_TEST(a_denial_has_evidence),
    WALLED_TEST(fifty_at_once),
    WALLED_TEST(a_plan_that_no_longer_fits_runs_nothing),
    WALLED_TEST(a_helper_answers_and_ends_with_its_socket),
    WALLED_TEST(a_helper_that_hangs_can_be_killed),
    WALLED_TEST(a_helper_ends_with_its_session),
    WALLED_TEST(a_link_in_what_was_once_writable_is_refused),
    WALLED_TEST(a_plan_overtaken_by_a_grant_is_made_again),
    WALLED_TEST(a_cancelled_plan_says_nothing),
};

/* False: walls cannot be built on this machine. */
static bool prepare(void)
{
    static const gid_t groups[] = {65533, 65534};
    struct rlimit nofile;
    pid_t pid;
    int status;

    /* What must not, and what must, show up inside. */
    if (getrlimit(RLIMIT_NOFILE, &nofile) < 0)
        return false;
    nofile.rlim_cur = 900;
    if (setrlimit(RLIMIT_NOFILE, &nofile) < 0)
        return false;
    if (geteuid() == 0 && setgroups(BLY_LEN(groups), groups) < 0)
        return false;

    pid = fork();
    if (pid == 0)
        _exit(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) < 0);
    if (waitpid(pid, &status, 0) == pid && status == 0)
        return true;
    print_error("no namespaces on this machine\n");
    return getenv("BLY_MUST_RUN") != NULL;
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[BLY_LEN(programs) + BLY_LEN(others)] = {0};
    size_t n = 0;

    fixture_main(argc, argv, test_helper);
    if (!prepare())
        return 77;
    for (size_t i = 0; i < BLY_LEN(programs); i++)
        tests[n++] = (struct CMUnitTest){.name = programs[i].name,
                                         .test_func = check_program,
                                         .setup_func = fixture_setup,
                                         .teardown_func = fixture_teardown,
                                         .initial_state = (void *)(uintptr_t)&programs[i]};
    for (size_t i = 0; i < BLY_LEN(others); i++)
        tests[n++] = others[i];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
