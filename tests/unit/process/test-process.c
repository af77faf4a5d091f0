#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "unit/process/run.h"

/* ---- programs, by table --------------------------------------------------------------------- */

static const char *const usual_env[] = {"PATH=/usr/bin:/bin", NULL};
static const char *const empty_env[] = {NULL};
static const char *const two_env[] = {"B=2", "A=1 x", NULL};

static const struct program_case {
    const char *name;
    const char *argv[5];
    const char *arg0;
    const char *const *envp; /* NULL: usual_env */
    const char *cwd;         /* below the directory; NULL: the directory itself */
    bool tty, pipe_stdin;
    const char *input; /* written at once */
    const char *out, *err;
    int code;
    int sys; /* not 0: the start fails with it */
} programs[] = {
    {"echo", {"/bin/sh", "-c", "echo hi; exit 3"}, .out = "hi\n", .code = 3},
    {"stdout and stderr are separate",
     {"/bin/sh", "-c", "echo a; echo b >&2"},
     .out = "a\n",
     .err = "b\n"},
    {"exit codes are 8 bit", {"/bin/sh", "-c", "exit 300"}, .code = 44},
    {"SIGKILL is 137", {"/bin/sh", "-c", "kill -KILL $$; sleep 5"}, .code = 137},
    {"SIGSEGV is 139", {"/bin/sh", "-c", "kill -SEGV $$; sleep 5"}, .code = 139},
    {"SIGHUP is 129", {"/bin/sh", "-c", "kill -HUP $$; sleep 5"}, .code = 129},
    {"stdin is /dev/null",
     {"/bin/sh", "-c", "cat; readlink /proc/self/fd/0"},
     .out = "/dev/null\n"},
    {"descriptors are 0, 1 and 2 only",
     {"/bin/sh", "-c", "ls /proc/self/fd | wc -l"},
     .out = "4\n"},
    {"output goes into pipes, not sockets",
     {"/bin/sh", "-c", "readlink /proc/$$/fd/1 /proc/$$/fd/2 | cut -c1-4"},
     .out = "pipe\npipe\n"},
    {"stdin as a pipe",
     {"/bin/sh", "-c", "readlink /proc/$$/fd/0 | cut -c1-4"},
     .pipe_stdin = true,
     .out = "pipe\n"},
    {"a session of its own without a terminal",
     {"/bin/sh", "-c", "set -- $(cat /proc/$$/stat); [ $$ = $5 ] && [ $$ = $6 ] && echo $7"},
     .out = "0\n"},
    {"no signal is ignored or blocked",
     {"/bin/sh", "-c", "grep -E '^Sig(Ign|Blk)' /proc/self/status | tr -d '[:space:]0'"},
     .out = "SigBlk:SigIgn:"},
    {"the environment is exactly what was given",
     {"/usr/bin/env"},
     .envp = two_env,
     .out = "B=2\nA=1 x\n"},
    {"an empty environment", {"/usr/bin/env"}, .envp = empty_env, .out = ""},
    {"the working directory", {"/bin/sh", "-c", "basename $(pwd)"}, .cwd = "d", .out = "d\n"},
    {"a program relative to it", {"./tool", "x"}, .cwd = "d", .out = "./tool x\n"},
    {"arg0 replaces argv[0] only",
     {"/bin/sh", "-c", "tr '\\0' '|' < /proc/$$/cmdline | cut -c1-9"},
     .arg0 = "custom",
     .out = "custom|-c\n"},
    {"a search without PATH", {"env"}, .envp = empty_env, .out = ""},
    {"a missing program by path", {"/no/such"}, .sys = ENOENT},
    {"a missing program by search", {"no-such-program-x"}, .sys = ENOENT},
    {"an empty program name", {""}, .sys = ENOENT},
    {"a path through a file", {"./tool/x"}, .cwd = "d", .sys = ENOTDIR},
    {"a program that may not be executed", {"./plain"}, .cwd = "d", .sys = EACCES},
    {"a directory as program", {"../d"}, .cwd = "d", .sys = EACCES},
    {"not a program", {"./junk"}, .cwd = "d", .sys = ENOEXEC},
    {"a missing interpreter", {"./lost"}, .cwd = "d", .sys = ENOENT},
    {"a missing directory", {"/bin/true"}, .cwd = "nope", .sys = ENOENT},
    {"a file as directory", {"/bin/true"}, .cwd = "d/plain", .sys = ENOTDIR},
    {"a missing directory with a terminal",
     {"/bin/true"},
     .cwd = "nope",
     .tty = true,
     .sys = ENOENT},
    {"a missing program with a terminal", {"/no/such"}, .tty = true, .sys = ENOENT},
    {"input",
     {"/bin/sh", "-c", "read a; read b; echo $a-$b"},
     .pipe_stdin = true,
     .input = "one\ntwo\n",
     .out = "one-two\n"},
    {"a terminal of 24 rows and 80 columns",
     {"/bin/sh", "-c", "tty > /dev/null && stty size; echo e >&2; exit 7"},
     .tty = true,
     .out = "24 80\r\ne\r\n",
     .code = 7},
    {"a controlling terminal, in the foreground",
     {"/bin/sh", "-c",
      "set -- $(cat /proc/$$/stat); [ $$ = $5 ] && [ $$ = $6 ] && [ $7 != 0 ] && [ $8 = $$ ] && "
      "echo leader; : > /dev/tty"},
     .tty = true,
     .out = "leader\r\n"},
    {"descriptors with a terminal",
     {"/bin/sh", "-c", "ls /proc/self/fd | wc -l"},
     .tty = true,
     .out = "4\r\n"},
    {"the environment with a terminal",
     {"/usr/bin/env"},
     .envp = two_env,
     .tty = true,
     .out = "B=2\r\nA=1 x\r\n"},
    {"a terminal that is closed before the exit, and opened again",
     {"/bin/sh", "-c", "exec 0<&- 1>&- 2>&-; sleep 0.3; echo again > /dev/tty; exit 7"},
     .tty = true,
     .out = "again\r\n",
     .code = 7},
    {"death by signal with a terminal",
     {"/bin/sh", "-c", "kill -KILL $$; sleep 5"},
     .tty = true,
     .code = 137},
};

static void write_file(const struct fixture *fixture, const char *name, const char *text,
                       mode_t mode)
{
    bly_autofree char *path = fixture_path(fixture, name);
    bly_autofd int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, mode);

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void ignore_outcome(void *arg, enum bly_write_status status)
{
    (void)arg;
    (void)status;
}

static void check_program(void **state)
{
    struct fixture *fixture = *state;
    const struct program_case *c = fixture->param;
    bly_autofree char *sub = NULL;
    bly_autofree char *cwd = NULL;
    struct bly_spawn spawn = {.argv = c->argv,
                              .arg0 = c->arg0,
                              .envp = c->envp != NULL ? c->envp : usual_env,
                              .tty = c->tty,
                              .pipe_stdin = c->pipe_stdin};
    struct run run;

    sub = fixture_path(fixture, "d");
    assert_int_equal(mkdir(sub, 0755), 0);
    write_file(fixture, "d/tool", "#!/bin/sh\necho $0 $@\n", 0755);
    write_file(fixture, "d/plain", "#!/bin/sh\n", 0644);
    write_file(fixture, "d/junk", "junk", 0755);
    write_file(fixture, "d/lost", "#!/no/such/interpreter\n", 0755);
    cwd = fixture_path(fixture, c->cwd != NULL ? c->cwd : ".");
    spawn.cwd = cwd;

    run_init(&run, fixture);
    run_start(&run, &spawn, false);
    if (c->input != NULL)
        bly_process_write(run.process, c->input, strlen(c->input), NULL, ignore_outcome, NULL);
    run_wait_closed(&run);
    if (c->sys != 0) {
        assert_true(run.failed);
        assert_int_equal(run.err.kind, BLY_ERR_SPAWN);
        assert_int_equal(run.err.sys, c->sys);
    } else {
        assert_false(run.failed);
        assert_string_equal(run_text(&run, c->tty ? BLY_PTY : BLY_STDOUT), c->out ? c->out : "");
        assert_string_equal(run_text(&run, BLY_STDERR), c->err != NULL ? c->err : "");
        assert_int_equal(run.code, c->code);
        assert_int_equal(run.denied, false);
    }
    run_close(&run);
}

/* ---- events --------------------------------------------------------------------------------- */

static void output_comes_before_exit_and_exit_before_close(void **state)
{
    struct run run;

    /* Often, since both are there at nearly the same time. */
    for (int i = 0; i < 100; i++) {
        run_init(&run, *state);
        run_script(&run, "printf %05000d 1; printf 2 >&2", false, false);
        run_wait_closed(&run);
        assert_int_equal(run.text[BLY_STDOUT].len, 5000);
        (void)bly_buf_add_char(&run.events, '\0');
        assert_string_equal((const char *)run.events.data, "ooxc");
        assert_true(run.n_changed > 0);
        run_close(&run);
    }
}

static void a_background_child_delays_the_close_only(void **state)
{
    struct run run;
    bly_autofree char *gate = fixture_path(*state, "gate");
    struct bly_process_state before;

    assert_int_equal(mkfifo(gate, 0600), 0);
    run_init(&run, *state);
    run_script(&run, "echo x; (cat gate; echo late) & exit 4", false, false);
    fixture_wait(*state, &run.exited);
    assert_false(run.closed);
    assert_int_equal(run.code, 4);
    assert_string_equal(run_text(&run, BLY_STDOUT), "x\n");
    before = bly_process_state(run.process);
    assert_int_equal(before.next_seq, 3);
    assert_int_equal(before.exit_seq, 2);

    /* Ended already: nothing is running, and nothing may be killed. */
    assert_false(bly_process_terminate(run.process));
    bly_process_interrupt(run.process);
    bly_close(open(gate, O_WRONLY | O_CLOEXEC));
    run_wait_closed(&run);
    assert_string_equal(run_text(&run, BLY_STDOUT), "x\nlate\n");
    run_close(&run);
}

static void terminate_ends_the_group_and_closes_soon(void **state)
{
    struct run run;
    struct bly_process_state end;
    int child, daemon;

    run_init(&run, *state);
    run_script(
        &run,
        "trap '' TERM; sleep 300 & echo $!; setsid sh -c 'echo $$; echo .; exec sleep 300' & "
        "wait",
        false, false);
    run_wait_text(&run, BLY_STDOUT, ".");
    assert_int_equal(sscanf(run_text(&run, BLY_STDOUT), "%d %d", &child, &daemon), 2);
    assert_true(bly_process_terminate(run.process));
    run_wait_closed(&run);
    assert_int_equal(run.code, 137);
    assert_false(pid_exists(child));
    assert_true(pid_exists(daemon)); /* It left the group, and held the pipes. */
    end = bly_process_state(run.process);
    assert_true(end.exited && end.closed);
    assert_false(bly_process_terminate(run.process));
    run_close(&run);
    fixture_close_spawner(*state);
    assert_false(pid_exists(daemon)); /* The end of the session is the end of everything. */
}

static void interrupt_reaches_the_group(void **state)
{
    struct run run;

    run_init(&run, *state);
    run_script(&run, "trap 'echo got; exit 9' INT; echo ready; while :; do sleep 0.01; done", false,
               false);
    run_wait_text(&run, BLY_STDOUT, "ready");
    bly_process_interrupt(run.process);
    run_wait_closed(&run);
    assert_string_equal(run_text(&run, BLY_STDOUT), "ready\ngot\n");
    assert_int_equal(run.code, 9);
    run_close(&run);
}

static void control_c_interrupts_through_a_terminal(void **state)
{
    struct run run;

    run_init(&run, *state);
    run_script(&run, "trap 'echo got; exit 9' INT; echo ready; while :; do sleep 0.01; done", true,
               false);
    run_wait_text(&run, BLY_PTY, "ready");
    bly_process_write(run.process, "\3", 1, NULL, ignore_outcome, NULL);
    run_wait_closed(&run);
    assert_non_null(strstr(run_text(&run, BLY_PTY), "got"));
    assert_int_equal(run.code, 9);
    run_close(&run);
}

static void control_d_ends_the_input_of_a_terminal(void **state)
{
    struct run run;

    run_init(&run, *state);
    run_script(&run, "cat; echo EOF", true, false);
    bly_process_write(run.process, "hello\n", 6, NULL, ignore_outcome, NULL);
    run_wait_text(&run, BLY_PTY, "hello\r\nhello\r\n");
    bly_process_write(run.process, "\4", 1, NULL, ignore_outcome, NULL);
    run_wait_closed(&run);
    assert_string_equal(run_text(&run, BLY_PTY), "hello\r\nhello\r\nEOF\r\n");
    run_close(&run);
}

static void every_byte_of_a_big_output_comes(void **state)
{
    struct run run;
    struct bly_chunk chunk = {0};
    size_t kept = 0;

    run_init(&run, *state);
    run_script(&run, "head -c 30000000 /dev/zero", false, false);
    run_wait_closed(&run);
    assert_int_equal(run.text[BLY_STDOUT].len, 30000000);
    assert_true(run.max_chunk <= 65536);
    while (bly_ring_next(bly_process_ring(run.process), chunk.seq, &chunk) == 0)
        kept += chunk.len;
    assert_true(kept <= 1048576 && kept > 950000);
    run_close(&run);
}

static void every_byte_of_a_big_terminal_output_comes(void **state)
{
    struct run run;

    run_init(&run, *state);
    run_script(&run, "stty raw; head -c 300000 /dev/zero; echo end", true, false);
    run_wait_closed(&run);
    assert_int_equal(run.text[BLY_PTY].len, 300004);
    run_close(&run);
}

struct outcome {
    bool done;
    enum bly_write_status status;
};

static void on_written(void *arg, enum bly_write_status status)
{
    struct outcome *outcome = arg;

    assert_false(outcome->done);
    outcome->done = true;
    outcome->status = status;
}

/* ---- back-pressure -------------------------------------------------------------------------- */

static void nothing_is_read_while_paused(void **state)
{
    struct fixture *fixture = *state;
    struct run run, other;
    size_t before;

    run_init(&run, fixture);
    run_init(&other, fixture);
    run_script(&run, "yes | head -c 3000000; echo end >&2; exit 5", false, false);
    run_wait_answer(&run);
    bly_process_pause(run.process, true);
    before = run.text[BLY_STDOUT].len;

    /* Others go on meanwhile. */
    run_script(&other, "echo hi", false, false);
    run_wait_closed(&other);
    assert_int_equal(run.text[BLY_STDOUT].len, before);
    assert_false(run.exited);

    bly_process_pause(run.process, false);
    run_wait_closed(&run);
    assert_int_equal(run.text[BLY_STDOUT].len, 3000000);
    assert_string_equal(run_text(&run, BLY_STDERR), "end\n");
    assert_int_equal(run.code, 5);
    run_close(&run);
    run_close(&other);
}

/* Its input is closed when it is reaped, whatever has been announced. */
static bool is_reaped(void *arg)
{
    struct run *run = arg;
    struct outcome outcome = {0};

    bly_process_write(run->process, "", 0, NULL, on_written, &outcome);
    return outcome.status == BLY_WRITE_STDIN_CLOSED;
}

static void an_exit_while_paused_is_told_afterwards(void **state)
{
    struct run run;

    run_init(&run, *state);
    run_script(&run, "read a; echo hi; exit 6", false, true);
    run_wait_answer(&run);
    bly_process_pause(run.process, true);
    bly_process_write(run.process, "\n", 1, NULL, ignore_outcome, NULL);
    fixture_wait_for(*state, is_reaped, &run);
    assert_false(run.exited);
    assert_int_equal(bly_process_state(run.process).next_seq, 1);
    bly_process_pause(run.process, false);
    assert_int_equal(run.last_seq, 0); /* not from inside the call */
    run_wait_closed(&run);
    assert_int_equal(run.code, 6);
    assert_string_equal(run_text(&run, BLY_STDOUT), "hi\n");
    run_close(&run);
}

/* ---- input ---------------------------------------------------------------------------------- */

static void writes_before_the_start_are_delivered(void **state)
{
    struct run run;
    struct outcome one = {0}, two = {0};

    run_init(&run, *state);
    run_script(&run, "read a; read b; echo $a$b", false, true);
    assert_true(bly_process_state(run.process).starting);
    bly_process_write(run.process, "ab\n", 3, "1", on_written, &one);
    bly_process_write(run.process, "cd\n", 3, "2", on_written, &two);
    assert_true(one.done && one.status == BLY_WRITE_ACCEPTED);
    assert_true(two.done && two.status == BLY_WRITE_ACCEPTED);
    run_wait_closed(&run);
    assert_string_equal(run_text(&run, BLY_STDOUT), "abcd\n");
    run_close(&run);
}

static void a_full_queue_makes_the_answer_wait(void **state)
{
    enum { BIG = 700000 };
    struct run run;
    struct outcome one = {0}, two = {0};
    bly_autofree char *gate = fixture_path(*state, "gate");
    bly_autofree char *data = calloc(1, BIG);

    assert_int_equal(mkfifo(gate, 0600), 0);
    run_init(&run, *state);
    run_script(&run, "cat gate; head -c 1400000 | wc -c", false, true);
    run_wait_answer(&run);
    bly_process_write(run.process, data, BIG, NULL, on_written, &one);
    assert_true(one.done);
    bly_process_write(run.process, data, BIG, NULL, on_written, &two);
    assert_false(two.done);
    bly_close(open(gate, O_WRONLY | O_CLOEXEC));
    fixture_wait(*state, &two.done);
    assert_int_equal(two.status, BLY_WRITE_ACCEPTED);
    run_wait_closed(&run);
    assert_string_equal(run_text(&run, BLY_STDOUT), "1400000\n");
    run_close(&run);
}

static void writes_without_stdin_or_after_the_exit_are_closed(void **state)
{
    struct run run;
    struct outcome one = {0}, two = {0};

    run_init(&run, *state);
    run_script(&run, "true", false, false);
    bly_process_write(run.process, "x", 1, "1", on_written, &one);
    assert_true(one.done && one.status == BLY_WRITE_STDIN_CLOSED);
    run_wait_closed(&run);
    run_close(&run);

    run_init(&run, *state);
    run_script(&run, "true", true, false);
    run_wait_closed(&run);
    bly_process_write(run.process, "x", 1, "1", on_written, &two);
    assert_true(two.done && two.status == BLY_WRITE_STDIN_CLOSED);
    run_close(&run);
}

static void a_program_that_closed_its_stdin(void **state)
{
    struct run run;
    struct outcome one = {0};

    run_init(&run, *state);
    run_script(&run, "exec 0<&-; echo closed; sleep 300", false, true);
    run_wait_text(&run, BLY_STDOUT, "closed");
    bly_process_write(run.process, "x", 1, "1", on_written, &one);
    assert_true(one.done && one.status == BLY_WRITE_STDIN_CLOSED);
    run_close(&run);
}

static void closing_answers_the_writes_that_wait(void **state)
{
    enum { BIG = 2000000 };
    struct run run;
    struct outcome one = {0}, two = {0};
    bly_autofree char *data = calloc(1, BIG);

    run_init(&run, *state);
    run_script(&run, "sleep 300", false, true);
    bly_process_write(run.process, data, BIG, NULL, on_written, &one);
    bly_process_write(run.process, data, BIG, NULL, on_written, &two);
    assert_true(one.done);
    assert_false(two.done);
    run_close(&run);
    assert_true(two.done && two.status == BLY_WRITE_STDIN_CLOSED);
}

/* ---- starting and ending -------------------------------------------------------------------- */

static void an_argument_list_beyond_the_kernels_limit(void **state)
{
    bly_autofree char *big = malloc(3 << 20);
    const char *argv[] = {"/bin/echo", big, NULL};
    struct fixture *fixture = *state;
    const struct bly_spawn spawn = {.argv = argv, .envp = usual_env, .cwd = fixture->dir};
    struct run run;

    memset(big, 'x', (3 << 20) - 1);
    big[(3 << 20) - 1] = '\0';
    run_init(&run, fixture);
    run_start(&run, &spawn, false);
    run_wait_closed(&run);
    assert_true(run.failed);
    assert_int_equal(run.err.sys, E2BIG);
    run_close(&run);
}

static void big_arguments_arrive_whole(void **state)
{
    enum { N = 12, EACH = 100000 };
    const char *argv[N + 5] = {"/bin/sh", "-c", "printf %s \"$@\" | wc -c", "sh"};
    bly_autofree char *big = malloc(EACH + 1);
    struct fixture *fixture = *state;
    const struct bly_spawn spawn = {.argv = argv, .envp = usual_env, .cwd = fixture->dir};
    struct run run;

    memset(big, 'x', EACH);
    big[EACH] = '\0';
    for (int i = 0; i < N; i++)
        argv[4 + i] = big;
    run_init(&run, fixture);
    run_start(&run, &spawn, false);
    run_wait_closed(&run);
    assert_string_equal(run_text(&run, BLY_STDOUT), "1200000\n");
    run_close(&run);
}

static void terminate_before_the_start_takes_effect(void **state)
{
    struct run run;

    run_init(&run, *state);
    run_script(&run, "sleep 300", false, false);
    assert_true(bly_process_terminate(run.process));
    run_wait_closed(&run);
    assert_int_equal(run.code, 137);
    run_close(&run);
}

static void closing_kills_at_any_moment(void **state)
{
    struct fixture *fixture = *state;

    for (int i = 0; i < 20; i++) {
        struct run run;

        run_init(&run, fixture);
        run_script(&run, "sleep 300", false, true);
        for (int turn = 0; turn < i; turn++)
            (void)uv_run(&fixture->loop, UV_RUN_NOWAIT);
        run_close(&run);
    }
    fixture_close_spawner(fixture);
}

static bool all_closed(void *arg)
{
    const struct run *runs = arg;

    for (int i = 0; i < 200; i++)
        if (!runs[i].closed)
            return false;
    return true;
}

static void two_hundred_at_once(void **state)
{
    static struct run runs[200];

    for (int i = 0; i < 200; i++) {
        char script[64];

        (void)snprintf(script, sizeof(script), "echo %d; exit %d", i, i);
        run_init(&runs[i], *state);
        run_script(&runs[i], script, i % 10 == 0, i % 3 == 0);
    }
    fixture_wait_for(*state, all_closed, runs);
    for (int i = 0; i < 200; i++) {
        char text[16];

        (void)snprintf(text, sizeof(text), i % 10 == 0 ? "%d\r\n" : "%d\n", i);
        assert_string_equal(run_text(&runs[i], i % 10 == 0 ? BLY_PTY : BLY_STDOUT), text);
        assert_int_equal(runs[i].code, i);
        run_close(&runs[i]);
    }
}

/* Descriptor numbers are used again; the end of the old user must not touch the new one. */
static void closing_a_finished_process_leaves_others_alone(void **state)
{
    struct run finished, running;
    struct outcome outcome = {0};

    run_init(&finished, *state);
    run_init(&running, *state);
    run_script(&finished, "true", false, true);
    run_wait_closed(&finished);
    run_script(&running, "read a; echo got $a; sleep 300", false, true);
    run_wait_answer(&running);
    (void)uv_run(&running.fixture->loop, UV_RUN_NOWAIT); /* Now its pipes are being watched. */
    run_close(&finished);
    bly_process_write(running.process, "it\n", 3, NULL, on_written, &outcome);
    run_wait_text(&running, BLY_STDOUT, "got it\n");
    run_close(&running);
}

static void the_denial_guess_needs_a_sandbox_and_a_failure(void **state)
{
    static const struct {
        const char *script;
        bool sandboxed, denied;
    } cases[] = {
        {"echo Permission denied >&2; exit 1", true, true},
        {"echo Permission denied >&2; exit 0", true, false},
        {"echo Permission denied >&2; exit 1", false, false},
        {"echo something else >&2; exit 1", true, false},
        {"kill -SYS $$; sleep 5", true, true},
        {"kill -SYS $$; sleep 5", false, false},
    };

    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        const char *argv[] = {"/bin/sh", "-c", cases[i].script, NULL};
        const struct bly_spawn spawn = {.argv = argv, .envp = usual_env, .cwd = "/"};
        struct run run;

        run_init(&run, *state);
        run_start(&run, &spawn, cases[i].sandboxed);
        run_wait_closed(&run);
        assert_int_equal(run.denied, cases[i].denied);
        assert_int_equal(bly_process_state(run.process).sandbox_denied, cases[i].denied);
        run_close(&run);
    }
}

static void small_limits_keep_small_chunks(void **state)
{
    struct run run;
    struct bly_chunk chunk = {0};
    size_t kept = 0;

    run_init(&run, *state);
    run.limits.retained_bytes = 4096;
    run_script(&run, "head -c 100000 /dev/zero", false, false);
    run_wait_closed(&run);
    assert_int_equal(run.text[BLY_STDOUT].len, 100000);
    assert_true(run.max_chunk <= 4096);
    while (bly_ring_next(bly_process_ring(run.process), chunk.seq, &chunk) == 0)
        kept += chunk.len;
    assert_true(kept > 0 && kept <= 4096);
    run_close(&run);
}

#define PROCESS_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

static const struct CMUnitTest others[] = {
    PROCESS_TEST(output_comes_before_exit_and_exit_before_close),
    PROCESS_TEST(a_background_child_delays_the_close_only),
    PROCESS_TEST(terminate_ends_the_group_and_closes_soon),
    PROCESS_TEST(interrupt_reaches_the_group),
    PROCESS_TEST(control_c_interrupts_through_a_terminal),
    PROCESS_TEST(control_d_ends_the_input_of_a_terminal),
    PROCESS_TEST(every_byte_of_a_big_output_comes),
    PROCESS_TEST(every_byte_of_a_big_terminal_output_comes),
    PROCESS_TEST(nothing_is_read_while_paused),
    PROCESS_TEST(an_exit_while_paused_is_told_afterwards),
    PROCESS_TEST(writes_before_the_start_are_delivered),
    PROCESS_TEST(a_full_queue_makes_the_answer_wait),
    PROCESS_TEST(writes_without_stdin_or_after_the_exit_are_closed),
    PROCESS_TEST(a_program_that_closed_its_stdin),
    PROCESS_TEST(closing_answers_the_writes_that_wait),
    PROCESS_TEST(an_argument_list_beyond_the_kernels_limit),
    PROCESS_TEST(big_arguments_arrive_whole),
    PROCESS_TEST(terminate_before_the_start_takes_effect),
    PROCESS_TEST(closing_kills_at_any_moment),
    PROCESS_TEST(two_hundred_at_once),
    PROCESS_TEST(closing_a_finished_process_leaves_others_alone),
    PROCESS_TEST(the_denial_guess_needs_a_sandbox_and_a_failure),
    PROCESS_TEST(small_limits_keep_small_chunks),
};

static int no_helper(int socket_fd, const struct bly_policy *policy,
                     const struct bly_policy *folded)
{
    (void)socket_fd;
    (void)policy;
    (void)folded;
    return 1;
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[BLY_LEN(programs) + BLY_LEN(others)] = {0};
    size_t n = 0;

    fixture_main(argc, argv, no_helper);
    /* What a server started by nohup has; no program may see it. */
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    (void)signal(SIGRTMIN + 3, SIG_IGN);
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
