/*
 * Races: a hostile process exchanges two names with renameat2(2) as fast as it can, ten thousand
 * times, while requests use one of them. In between one of the names leads outside, to what is
 * protected, or to a FIFO; nothing may leak, nothing guarded may change, and every request is
 * answered. Without a wall the same race must leak, else it proves nothing. Through one of two
 * doors: the argument is local or remote.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "escape/door.h"
#include "escape/yard.h"
#include "support/server.h"
#include "support/tree.h"

enum {
    MIN_SWAPS = 10000,
    MIN_ROUNDS = 10, /* of all questions of a race, */
    MIN_MS = 1000,   /* and as many more as there is time for, or */
    ENOUGH_ROUNDS = 200,
    MAX_ROUNDS = 20000, /* where a twin does not leak by then, the race is none */
    READS = 1,          /* nothing to hide where everything may be read */
    NO_TWIN = 2, /* holds without a wall: FIFOs hold up nobody, below a tree no link is followed */
    REBUILD = 4, /* the questions destroy what they are about */
};

enum { MAX_QUESTIONS = 10 };

struct race {
    const char *name;
    const char *a, *b; /* exchanged */
    void (*build)(void);
    unsigned flags;
    struct question questions[MAX_QUESTIONS];
};

static struct door door;
static struct yard *yard;
static atomic_ulong *swaps; /* shared with the hostile process */

/* ---- what is exchanged ---- */

/* Nothing is followed, and what cannot be made is not made: either name may be the link now. */
static void write_inside(const char *name)
{
    char copy[256], *rest = copy, *part;
    bly_autofd int dir = open(yard->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bly_autofd int fd = -EBADF;

    (void)snprintf(copy, sizeof(copy), "%s", name);
    while ((part = strsep(&rest, "/")) && rest) {
        int below;

        (void)mkdirat(dir, part, 0755);
        below = openat(dir, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        bly_close(dir);
        dir = below;
    }
    fd = openat(dir, part, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
    if (fd >= 0 && write(fd, "inside\n", 7) != 7)
        fail();
}

static bool is_link(const char *name)
{
    struct stat st;

    return lstat(yard_path(yard, name), &st) == 0 && S_ISLNK(st.st_mode);
}

/* One of the two names must be the link, also after the link has been removed. */
static void make_link(const char *target, const char *a, const char *b)
{
    if (is_link(a) || is_link(b))
        return;
    disk_remove_tree(yard_path(yard, b));
    if (symlink(target, yard_path(yard, b)) < 0)
        assert_int_equal(errno, EEXIST);
}

static void build_directory(void)
{
    write_inside("ws/r/d/secret");
    write_inside("ws/r/d/d/x");
    make_link("../../out", "ws/r/d", "ws/r/l");
}

static void build_file(void)
{
    write_inside("ws/r/f");
    make_link("../../out/secret", "ws/r/f", "ws/r/l");
}

static void build_protected(void)
{
    write_inside("ws/r/d/config");
    make_link("../.git", "ws/r/d", "ws/r/l");
}

static void build_denied(void)
{
    write_inside("ws/r/d/f");
    make_link("../deny", "ws/r/d", "ws/r/l");
}

static void build_tree(void)
{
    write_inside("ws/r/t/s/secret");
    write_inside("ws/r/t/s/d/x");
    write_inside("ws/r/t/z");
    make_link("../../out", "ws/r/t/s", "ws/r/l");
}

static void build_fifo(void)
{
    write_inside("ws/r/f");
    (void)mkfifo(yard_path(yard, "ws/r/l"), 0644);
}

static const struct race races[] = {
    {"a directory and a link to the outside, reading",
     "ws/r/d",
     "ws/r/l",
     build_directory,
     READS,
     {{ASK_READ, "ws/r/d/secret"},
      {ASK_READ_BLOCK, "ws/r/d/secret"},
      {ASK_LIST, "ws/r/d"},
      {ASK_WALK, "ws/r/d"},
      {ASK_CANONICALIZE, "ws/r/d/secret"},
      {ASK_COPY, "ws/r/d/secret", "ws/r/stolen"}}},
    {"a directory and a link to the outside, writing",
     "ws/r/d",
     "ws/r/l",
     build_directory,
     0,
     {{ASK_WRITE, "ws/r/d/new", .text = "attacked"},
      {ASK_WRITE, "ws/r/d/secret", .text = "attacked"},
      {ASK_WRITE_BLOCK, "ws/r/d/new", .text = "attacked"},
      {ASK_MKDIR, "ws/r/d/new2/deep", .recursive = true},
      {ASK_COPY, "ws/r/from/x", "ws/r/d/new3"},
      {ASK_COPY, "ws/r/from", "ws/r/d/new4", .recursive = true}}},
    {"a directory and a link to the outside, removing",
     "ws/r/d",
     "ws/r/l",
     build_directory,
     REBUILD,
     {{ASK_REMOVE, "ws/r/d/secret", .force = true},
      {ASK_REMOVE, "ws/r/d/d", .recursive = true, .force = true}}},
    {"a file and a link to the outside, reading",
     "ws/r/f",
     "ws/r/l",
     build_file,
     READS,
     {{ASK_READ, "ws/r/f"}, {ASK_READ_BLOCK, "ws/r/f"}}},
    {"a file and a link to the outside, writing",
     "ws/r/f",
     "ws/r/l",
     build_file,
     0,
     {{ASK_WRITE, "ws/r/f", .text = "attacked"},
      {ASK_WRITE_BLOCK, "ws/r/f", .text = "attacked"},
      {ASK_COPY, "ws/r/from/x", "ws/r/f"}}},
    {"a directory and a link to .git",
     "ws/r/d",
     "ws/r/l",
     build_protected,
     0,
     {{ASK_WRITE, "ws/r/d/config", .text = "attacked"},
      {ASK_WRITE_BLOCK, "ws/r/d/hook", .text = "attacked"},
      {ASK_MKDIR, "ws/r/d/hooks", .recursive = true},
      {ASK_COPY, "ws/r/from/x", "ws/r/d/config"},
      {ASK_REMOVE, "ws/r/d/d", .recursive = true, .force = true}}},
    {"a directory and a link to what is denied",
     "ws/r/d",
     "ws/r/l",
     build_denied,
     0,
     {{ASK_READ, "ws/r/d/f"},
      {ASK_READ_BLOCK, "ws/r/d/f"},
      {ASK_LIST, "ws/r/d"},
      {ASK_COPY, "ws/r/d/f", "ws/r/stolen"},
      {ASK_WRITE, "ws/r/d/f", .text = "attacked"}}},
    {"a directory in a tree that is copied",
     "ws/r/t/s",
     "ws/r/l",
     build_tree,
     READS | NO_TWIN,
     {{ASK_COPY, "ws/r/t", "ws/r/stolen", .recursive = true}}},
    {"a directory in a tree that is removed",
     "ws/r/t/s",
     "ws/r/l",
     build_tree,
     REBUILD | NO_TWIN,
     {{ASK_REMOVE, "ws/r/t/s", .recursive = true, .force = true},
      {ASK_REMOVE, "ws/r/t", .recursive = true, .force = true}}},
    {"a file and a FIFO",
     "ws/r/f",
     "ws/r/l",
     build_fifo,
     NO_TWIN,
     {{ASK_READ, "ws/r/f"},
      {ASK_READ_BLOCK, "ws/r/f"},
      {ASK_WRITE, "ws/r/f", .text = "x"},
      {ASK_WRITE_BLOCK, "ws/r/f", .text = "x"},
      {ASK_COPY, "ws/r/f", "ws/r/stolen"},
      {ASK_COPY, "ws/r/from/x", "ws/r/f"}}},
};

/* ---- the hostile process ---- */

static pid_t start_hostile(const struct race *race)
{
    const char *a = yard_path(yard, race->a), *b = yard_path(yard, race->b);
    pid_t parent = getpid(), pid;

    atomic_store(swaps, 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (getppid() == parent)
        if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0)
            (void)atomic_fetch_add(swaps, 1);
    _exit(0);
}

/* Building names that are being exchanged would be a race of its own. */
static void rebuild(const struct race *race, pid_t hostile)
{
    assert_int_equal(kill(hostile, SIGSTOP), 0);
    assert_int_equal(waitpid(hostile, NULL, WUNTRACED), hostile);
    race->build();
    assert_int_equal(kill(hostile, SIGCONT), 0);
}

static void stop_hostile(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* ---- a race ---- */

struct score {
    unsigned long worked, refused, leaks;
    const char *leak;
};

/* Whether guarded text got into the place where copies go. Links are copied as links. */
static bool holds_secret(const char *path)
{
    static const char *const names[] = {"", "/secret", "/s/secret", "/f", "/s/shared"};
    bool found = false;

    for (size_t i = 0; i < BLY_LEN(names); i++) {
        bly_autofree char *file = NULL;
        bly_autofd int fd = -EBADF;
        char bytes[256] = "";

        assert_true(asprintf(&file, "%s%s", path, names[i]) > 0);
        fd = openat(AT_FDCWD, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && read(fd, bytes, sizeof(bytes) - 1) > 0)
            found = found || strstr(bytes, YARD_SECRET) != NULL;
    }
    return found;
}

static bool copied_something(void)
{
    const char *path = yard_path(yard, "ws/r/stolen");
    bly_autofree char *inner = NULL;
    struct stat st;
    bool found;

    if (lstat(path, &st) < 0)
        return false;
    assert_true(asprintf(&inner, "%s/s", path) > 0);
    /* Below a link there is the outside itself. */
    if (S_ISLNK(st.st_mode) || (lstat(inner, &st) == 0 && S_ISLNK(st.st_mode)))
        found = false;
    else
        found = holds_secret(path);
    disk_remove_tree(path);
    return found;
}

static void ask_once(const struct question *row, enum wall wall, struct score *score)
{
    struct question question = *row;
    auto_answer struct answer answer = {0};

    question.path = yard_path(yard, row->path);
    question.other = row->other ? yard_path(yard, row->other) : NULL;
    question.sandbox = yard->plain[wall];
    door.ask(&door, &question, &answer);
    if (answer.code == 0)
        score->worked++;
    else
        score->refused++;
    if (answer.code != 0 && getenv("BLY_SHOW_ERRORS"))
        print_message("%s: %s\n", row->path, answer.message);
    if (answer_reveals(&answer, YARD_SECRET) || answer_reveals(&answer, "shared") ||
        answer_reveals(&answer, "out/secret") || answer_reveals(&answer, "needle")) {
        score->leaks++;
        score->leak = "an answer";
    }
}

static char *guarded_difference(const char *before)
{
    bly_autofree char *now = tree_list(yard->dir, 0);
    bly_autofree char *guarded = yard_guarded(now);

    return tree_difference(before, guarded);
}

static void ask_all(const struct race *race, enum wall wall, const char *before,
                    struct score *score)
{
    for (size_t i = 0; i < MAX_QUESTIONS && race->questions[i].path; i++) {
        const struct question *question = &race->questions[i];

        ask_once(question, wall, score);
        if (question->other && strcmp(question->other, "ws/r/stolen") == 0 && copied_something()) {
            score->leaks++;
            score->leak = "a copy";
        }
    }
    bly_autofree char *difference = guarded_difference(before);

    if (difference) {
        print_message("%s\n", difference);
        score->leaks++;
        score->leak = "something guarded has changed";
    }
}

static long now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool is_over(enum wall wall, const struct score *score, unsigned long rounds, long began_ms)
{
    if (score->leaks > 0 || rounds >= MAX_ROUNDS)
        return true;
    return wall != NO_WALL && atomic_load(swaps) >= MIN_SWAPS && rounds >= MIN_ROUNDS &&
           (rounds >= ENOUGH_ROUNDS || now_ms() - began_ms >= MIN_MS);
}

struct trial {
    char name[160];
    const struct race *race;
    enum wall wall;
};

static void run_race(void **state)
{
    const struct trial *trial = *state;
    const struct race *race = trial->race;
    bly_autofree char *before = NULL;
    struct score score = {0};
    unsigned long rounds = 0, n_swaps;
    long began_ms;
    pid_t hostile;

    disk_remove_tree(yard_path(yard, "ws/r"));
    yard_reset(yard);
    write_inside("ws/r/from/x");
    race->build();
    before = yard_guarded(yard->whole);
    hostile = start_hostile(race);
    began_ms = now_ms();
    while (!is_over(trial->wall, &score, rounds, began_ms)) {
        ask_all(race, trial->wall, before, &score);
        rounds++;
        if (race->flags & REBUILD)
            rebuild(race, hostile);
    }
    n_swaps = atomic_load(swaps);
    stop_hostile(hostile);
    print_message("%lu swaps, %lu answers, %lu of them errors\n", n_swaps,
                  score.worked + score.refused, score.refused);
    if (trial->wall == NO_WALL) {
        assert_true(score.leaks > 0);
        return;
    }
    if (score.leaks > 0)
        fail_msg("leaked after %lu swaps: %s", n_swaps, score.leak);
    assert_true(n_swaps >= MIN_SWAPS);
    assert_true(score.worked > 0);
}

static int open_all(void **state)
{
    (void)state;
    swaps = mmap(NULL, sizeof(*swaps), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (swaps == MAP_FAILED)
        return -1;
    yard = yard_new();
    door.open(&door);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    door.close(&door);
    yard_free(yard);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const suffixes[] = {[NO_WALL] = "leak without a wall",
                                           [RESTRICTED] = "leak nothing, restricted reading",
                                           [FULL_READ] = "leak nothing, full reading"};
    static struct trial trials[BLY_LEN(races) * N_WALLS];
    static struct CMUnitTest tests[BLY_LEN(trials)];
    size_t n = 0;

    door_main(argc, argv);
    door_begin();
    door = argc > 1 && strcmp(argv[1], "local") == 0 ? door_local : door_remote;
    for (size_t i = 0; i < BLY_LEN(trials); i++) {
        struct trial *trial = &trials[n];

        trial->race = &races[i / N_WALLS];
        trial->wall = (enum wall)(i % N_WALLS);
        if ((trial->wall == NO_WALL && (trial->race->flags & NO_TWIN)) ||
            (trial->wall == FULL_READ && (trial->race->flags & READS)))
            continue;
        (void)snprintf(trial->name, sizeof(trial->name), "%s: %s, %s", door.name, trial->race->name,
                       suffixes[trial->wall]);
        tests[n++] =
            (struct CMUnitTest){.name = trial->name, .test_func = run_race, .initial_state = trial};
    }
    return _cmocka_run_group_tests("escape-races", tests, n, open_all, close_all);
}
