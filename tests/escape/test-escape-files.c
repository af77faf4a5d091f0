/*
 * Escapes by file requests: every operation on every kind of path, through one of two doors (the
 * argument: local or remote), without a wall and behind two policies. The table says for each path
 * what may be read and written; without a wall everything must succeed, else an attempt proves
 * nothing; behind a wall what is allowed must succeed ("everything refused" would be a perfect
 * score) and the rest must be an error, give nothing away and change nothing at all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "escape/door.h"
#include "escape/yard.h"
#include "support/server.h"
#include "support/tree.h"

enum { FILE_THERE = 1, DIR_THERE = 2, NEW_NAME = 4 };

enum {
    READABLE = 1,   /* behind both walls */
    SHOWN = 2,      /* behind the one that reads everything */
    WRITABLE = 4,   /* behind both walls */
    LEAF = 8,       /* the last name is a link: removing and copying from it are about the link */
    DENIED = 16,    /* a rule denies reading, and the answer says so */
    ANY_ERROR = 32, /* links of /proc: the code depends on where the walk ends */
    TWIN_AS_ROOT = 64, /* without a wall only root can write there */
};

static const struct place {
    const char *name;
    const char *path; /* see yard_path() */
    unsigned kind, flags;
} places[] = {
    {"a file outside", "out/secret", FILE_THERE, SHOWN},
    {"a file outside, by ..", "ws/../out/secret", FILE_THERE, SHOWN},
    {"a symlink to the outside", "ws/leaf", FILE_THERE, SHOWN | LEAF},
    {"an absolute symlink", "ws/abs", FILE_THERE, SHOWN | LEAF},
    {"a chain of symlinks", "ws/chain", FILE_THERE, SHOWN | LEAF},
    {"a symlinked parent", "ws/parent/secret", FILE_THERE, SHOWN},
    {"a parent behind two symlinks", "ws/parent2/secret", FILE_THERE, SHOWN},
    {".. after a symlink", "ws/up", FILE_THERE, SHOWN | LEAF},
    {".. after a directory, in a parent's symlink", "ws/updir/secret", FILE_THERE, SHOWN},
    {"a planted link into /proc/self/root", "ws/magic", FILE_THERE, LEAF | ANY_ERROR},
    {"a planted parent into /proc/self/root", "ws/magicdir/secret", FILE_THERE, ANY_ERROR},
    {"/proc/self/root", "/proc/self/root$Y/out/secret", FILE_THERE, ANY_ERROR},
    {"/proc/PID/root of a bystander", "/proc/$P/root$Y/out/secret", FILE_THERE, ANY_ERROR},
    {"/proc/PID/cwd of a bystander", "/proc/$P/cwd/secret", FILE_THERE, ANY_ERROR},
    {"/proc/PID/fd of a bystander", "/proc/$P/fd/$F", FILE_THERE, ANY_ERROR | LEAF},
    {"a planted link to a bystander's descriptor", "ws/fdlink", FILE_THERE, LEAF | ANY_ERROR},
    {"a planted link to a bystander's directory", "ws/cwd/secret", FILE_THERE, ANY_ERROR},
    {"a denied file", "ws/deny/f", FILE_THERE, DENIED},
    {"a denied file, by a symlink", "ws/denylink", FILE_THERE, DENIED | LEAF},
    {"a denied file, by a symlinked parent", "ws/denydir/f", FILE_THERE, DENIED},
    {"a file denied by a glob", "ws/x.key", FILE_THERE, DENIED},
    {"a file denied by a glob, deeper", "ws/sub/y.key", FILE_THERE, DENIED},
    {"a file denied by a glob, by a symlink", "ws/keylink", FILE_THERE, DENIED | LEAF},
    {"a read-only file", "ws/ro/f", FILE_THERE, READABLE},
    {"a read-only file, by a symlink", "ws/rolink", FILE_THERE, READABLE | LEAF},
    {"a read-only file, by a symlinked parent", "ws/rodir/f", FILE_THERE, READABLE},
    {"a file of .git", "ws/.git/config", FILE_THERE, READABLE},
    {"a file of .git, by a symlink", "ws/gitlink", FILE_THERE, READABLE | LEAF},
    {"a file of .git, by a symlinked parent", "ws/gitdir/config", FILE_THERE, READABLE},
    {"a file of a readable root", "lib/f", FILE_THERE, READABLE},
    {"a file of a readable root, by a symlink", "ws/tolib/f", FILE_THERE, READABLE},
    {"a file of the workspace", "ws/a.txt", FILE_THERE, READABLE | WRITABLE},
    {"a file of the workspace, by a symlink", "ws/inlink", FILE_THERE, READABLE | WRITABLE | LEAF},
    {"a writable file in a read-only place", "ws/ro/rw/f", FILE_THERE, READABLE | WRITABLE},
    {"a writable file in a denied place", "ws/deny/rw/f", FILE_THERE, READABLE | WRITABLE},
    /* Documented: no wall of paths sees another name of an inode that it had before. */
    {"a hard link from before", "ws/hard", FILE_THERE, READABLE | WRITABLE},

    {"a directory outside", "out/d", DIR_THERE, SHOWN},
    {"a symlink to a directory outside", "ws/dirleaf", DIR_THERE, SHOWN | LEAF},
    {"a directory in a symlinked parent", "ws/parent/d", DIR_THERE, SHOWN},
    {"a directory in /proc/self/root", "/proc/self/root$Y/out/d", DIR_THERE, ANY_ERROR},
    {"a directory in a bystander's", "/proc/$P/cwd/d", DIR_THERE, ANY_ERROR},
    {"a directory in a bystander's, by a link", "ws/cwd/d", DIR_THERE, ANY_ERROR},
    {"a denied directory", "ws/deny", DIR_THERE, DENIED},
    {"a directory in a denied one", "ws/deny/d", DIR_THERE, DENIED},
    {"a denied directory, by a symlink", "ws/denydir", DIR_THERE, DENIED | LEAF},
    {"a read-only directory", "ws/ro/d", DIR_THERE, READABLE},
    {"a read-only directory, by a symlink", "ws/rodir/d", DIR_THERE, READABLE},
    {"a directory of .git", "ws/.git/d", DIR_THERE, READABLE},
    {"a directory of .git, by a symlink", "ws/gitdir/d", DIR_THERE, READABLE},
    {"a directory of a readable root", "lib/d", DIR_THERE, READABLE},
    {"a directory of the workspace", "ws/sub/d", DIR_THERE, READABLE | WRITABLE},
    {"a writable directory in a read-only place", "ws/ro/rw/d", DIR_THERE, READABLE | WRITABLE},
    {"a writable directory in a denied place", "ws/deny/rw/d", DIR_THERE, READABLE | WRITABLE},

    {"a new name outside", "out/new", NEW_NAME, 0},
    {"a new name beside the workspace", "new", NEW_NAME, 0},
    {"a dangling symlink to the outside", "ws/dangling", NEW_NAME, LEAF},
    {"a new name in a symlinked parent", "ws/parent/new", NEW_NAME, 0},
    {"a new name in /proc/self/root", "/proc/self/root$Y/out/new", NEW_NAME, 0},
    {"a new name in a planted link into /proc", "ws/magicdir/new", NEW_NAME, ANY_ERROR},
    {"a new name in a bystander's directory", "ws/cwd/new", NEW_NAME, ANY_ERROR},
    {"a new name in /tmp", "/tmp/bailey-escape-$P", NEW_NAME, 0},
    {"a new name in /var/tmp", "/var/tmp/bailey-escape-$P", NEW_NAME, 0},
    {"a new name in /dev/shm", "/dev/shm/bailey-escape-$P", NEW_NAME, 0},
    {"a new name in /dev", "/dev/bailey-escape-$P", NEW_NAME, TWIN_AS_ROOT},
    {"a new name in /run", "/run/bailey-escape-$P", NEW_NAME, TWIN_AS_ROOT},
    {"a new name at the top", "/bailey-escape-$P", NEW_NAME, TWIN_AS_ROOT},
    {"the missing .codex", "ws/.codex", NEW_NAME, 0},
    {"the missing .agents", "ws/.agents", NEW_NAME, 0},
    {"the missing .aws", "ws/.aws", NEW_NAME, 0},
    {"the missing .codex, by a symlink", "ws/codexlink", NEW_NAME, LEAF},
    {"the missing .codex, by ..", "ws/sub/../.codex", NEW_NAME, 0},
    {"a new name in .git", "ws/.git/new", NEW_NAME, 0},
    {"a new name in .git, by a symlink", "ws/gitdir/new", NEW_NAME, 0},
    {"a new name in a read-only place", "ws/ro/new", NEW_NAME, 0},
    {"a new name in a read-only place, by a symlink", "ws/rodir/new", NEW_NAME, 0},
    {"a new name in a denied place", "ws/deny/new", NEW_NAME, 0},
    {"a new name in a denied place, by a symlink", "ws/denydir/new", NEW_NAME, 0},
    {"a new name in a readable root", "lib/new", NEW_NAME, 0},
    {"a new name in a readable root, by a symlink", "ws/tolib/new", NEW_NAME, 0},
    {"a new name that a glob denies", "ws/new.key", NEW_NAME, 0},
    {"a new name in the workspace", "ws/sub/new", NEW_NAME, WRITABLE},
    {"a new name in the workspace, by a symlink", "ws/newlink", NEW_NAME, WRITABLE | LEAF},
    {"a new name in a reopened place", "ws/ro/rw/new", NEW_NAME, WRITABLE},
    {"a new name in a reopened denied place", "ws/deny/rw/new", NEW_NAME, WRITABLE},
};

enum {
    WRITES = 1,
    COPIES = 2,       /* into ws/stolen */
    OF_THE_LINK = 4,  /* a link at the end is kept */
    SAYS_NOTHING = 8, /* it worked: that is all the answer gives away */
    NO_DANGLING = 16, /* a dangling link is in the way for everybody */
};

static const struct operation {
    const char *name;
    unsigned kinds, flags;
    struct question question; /* path: the place, unless `onto` */
    bool onto;                /* the place is the destination, question.path the source */
    const char *below;        /* what is asked for is this below the place */
} operations[] = {
    {"read", FILE_THERE, 0, {ASK_READ}},
    {"open and read a block", FILE_THERE, 0, {ASK_READ_BLOCK}},
    {"metadata", FILE_THERE | DIR_THERE, SAYS_NOTHING, {ASK_METADATA}},
    {"canonicalize", FILE_THERE | DIR_THERE, SAYS_NOTHING, {ASK_CANONICALIZE}},
    {"list", DIR_THERE, 0, {ASK_LIST}},
    {"walk", DIR_THERE, 0, {ASK_WALK}},
    {"copy from", FILE_THERE, COPIES | OF_THE_LINK, {ASK_COPY, .other = "ws/stolen"}},
    {"copy a tree from",
     DIR_THERE,
     COPIES | OF_THE_LINK,
     {ASK_COPY, .other = "ws/stolen", .recursive = true}},
    {"write", FILE_THERE | NEW_NAME, WRITES, {ASK_WRITE, .text = "attacked"}},
    {"open and write a block",
     FILE_THERE | NEW_NAME,
     WRITES,
     {ASK_WRITE_BLOCK, .text = "attacked"}},
    {"copy to", FILE_THERE | NEW_NAME, WRITES, {ASK_COPY, .path = "ws/src.txt"}, .onto = true},
    {"copy a link to", NEW_NAME, WRITES | NO_DANGLING, {ASK_COPY, .path = "ws/leaf"}, .onto = true},
    {"copy a tree to",
     NEW_NAME,
     WRITES | NO_DANGLING,
     {ASK_COPY, .path = "ws/tree", .recursive = true},
     .onto = true},
    {"copy a tree onto",
     DIR_THERE,
     WRITES,
     {ASK_COPY, .path = "ws/tree", .recursive = true},
     .onto = true,
     .below = "/more"},
    {"create directory", NEW_NAME, WRITES | NO_DANGLING, {ASK_MKDIR}},
    {"create directories",
     NEW_NAME,
     WRITES | NO_DANGLING,
     {ASK_MKDIR, .recursive = true},
     .below = "/deep/er"},
    {"create directory in", DIR_THERE, WRITES, {ASK_MKDIR, .recursive = true}, .below = "/more"},
    {"write in", DIR_THERE, WRITES, {ASK_WRITE, .text = "attacked"}, .below = "/more"},
    {"remove", FILE_THERE, WRITES | OF_THE_LINK, {ASK_REMOVE}},
    {"remove tree",
     FILE_THERE | DIR_THERE,
     WRITES | OF_THE_LINK,
     {ASK_REMOVE, .recursive = true, .force = true}},
};

static struct door door;
static struct yard *yard;

/*
 * A server that may refuse a policy as a whole (a lesser rung, BLY_MAY_REFUSE_WALLS=1) is still
 * tested for what it does; one that can build no wall at all must refuse each (=must).
 */
static bool is_refused_wall(const struct answer *answer)
{
    return getenv("BLY_MAY_REFUSE_WALLS") && answer->code == -32603 &&
           strncmp(answer->message, "sandbox unavailable", 19) == 0;
}

static bool must_refuse_walls(void)
{
    const char *how = getenv("BLY_MAY_REFUSE_WALLS");

    return how && strcmp(how, "must") == 0;
}

struct attempt {
    const struct place *place;
    const struct operation *operation;
    enum wall wall;
    const char *path; /* of the place */
    const char *also; /* of what is asked for, when it is not in the yard */
    struct answer answer;
    char *after; /* the tree */
    char *found; /* what is in ws/stolen */
};

static void attempt_deinit(struct attempt *attempt)
{
    answer_deinit(&attempt->answer);
    free(attempt->after);
    free(attempt->found);
}

static bool is_allowed(const struct attempt *attempt)
{
    unsigned flags = attempt->place->flags;

    if (attempt->wall == NO_WALL)
        return true;
    if (attempt->operation->flags & WRITES)
        return flags & WRITABLE;
    return (flags & READABLE) || ((flags & SHOWN) && attempt->wall == FULL_READ);
}

static bool is_about_link(const struct attempt *attempt)
{
    return (attempt->operation->flags & OF_THE_LINK) && (attempt->place->flags & LEAF);
}

/* What was copied: a file's text, the names of a tree, or "->" and a link's text. */
static char *look_at_copy(void)
{
    const char *path = yard_path(yard, "ws/stolen");
    char target[4096];
    char *text = NULL;
    struct stat st;
    ssize_t n;

    if (lstat(path, &st) < 0)
        return NULL;
    if (S_ISDIR(st.st_mode))
        text = tree_list(path, 0);
    else if (S_ISREG(st.st_mode))
        text = disk_read(path);
    else if ((n = readlink(path, target, sizeof(target))) >= 0)
        assert_true(asprintf(&text, "->%.*s", (int)n, target) > 0);
    disk_remove_tree(path);
    return text;
}

static void make_attempt(struct attempt *attempt)
{
    const struct operation *operation = attempt->operation;
    struct question question = operation->question;
    char asked[4096];

    yard_reset(yard);
    attempt->path = yard_path(yard, attempt->place->path);
    (void)snprintf(asked, sizeof(asked), "%s%s", attempt->path,
                   operation->below ? operation->below : "");
    if (operation->onto) {
        question.path = yard_path(yard, operation->question.path);
        question.other = asked;
    } else {
        question.path = asked;
        if (question.other)
            question.other = yard_path(yard, question.other);
    }
    question.sandbox = yard->sandbox[attempt->wall];
    door.ask(&door, &question, &attempt->answer);
    if (operation->flags & COPIES)
        attempt->found = look_at_copy();
    attempt->after = tree_list(yard->dir, 0);
}

/* Something new where only a look can tell, outside of the yard. */
static bool appeared_elsewhere(const struct attempt *attempt)
{
    bool there = attempt->place->kind == NEW_NAME && attempt->place->path[0] == '/' &&
                 disk_exists(attempt->path);

    if (there && strncmp(attempt->place->path, "/proc/", 6) != 0)
        disk_remove_tree(attempt->path);
    return there;
}

static const char *wanted_error(const struct attempt *attempt)
{
    bool writes = attempt->operation->flags & WRITES;
    unsigned flags = attempt->place->flags;
    int code = attempt->answer.code;

    if (flags & ANY_ERROR)
        return code != 0 ? NULL : "it says that it worked";
    if (writes || (flags & DENIED))
        return code == -32600 ? NULL : "the answer is not -32600";
    return code == -32004 ? NULL : "the answer is not -32004";
}

/* NULL when a refused attempt was refused well. */
static const char *judge_refused(const struct attempt *attempt)
{
    const struct answer *answer = &attempt->answer;

    if (answer_reveals(answer, YARD_SECRET) || answer_reveals(answer, "needle"))
        return "the answer gives something away";
    if (attempt->found)
        return "something was copied";
    if (appeared_elsewhere(attempt))
        return "something appeared";
    return is_refused_wall(answer) ? NULL : wanted_error(attempt);
}

/* A link was removed or copied, and nothing else. */
static const char *judge_link(const struct attempt *attempt)
{
    bly_autofree char *without = NULL;

    if (attempt->answer.code != 0)
        return "the link could not be used";
    if (attempt->operation->flags & COPIES)
        return attempt->found && strncmp(attempt->found, "->", 2) == 0 ? NULL
                                                                       : "the copy is no link";
    without = tree_without(yard->whole, attempt->place->path);
    return strcmp(without, attempt->after) == 0 ? NULL : "more than the link is gone";
}

static const char *judge_allowed(const struct attempt *attempt)
{
    const struct operation *operation = attempt->operation;
    const struct answer *answer = &attempt->answer;

    if (answer->code != 0)
        return "it is refused";
    if (operation->flags & WRITES)
        return strcmp(attempt->after, yard->whole) != 0 || appeared_elsewhere(attempt)
                   ? NULL
                   : "nothing has changed";
    if (operation->flags & SAYS_NOTHING)
        return NULL;
    if (operation->flags & COPIES)
        return attempt->found &&
                       (strstr(attempt->found, YARD_SECRET) || strstr(attempt->found, "needle"))
                   ? NULL
                   : "nothing was copied";
    return answer_reveals(answer, operation->kinds == DIR_THERE ? "needle" : YARD_SECRET)
               ? NULL
               : "the answer is empty";
}

static const char *judge(const struct attempt *attempt)
{
    bool in_proc = strncmp(attempt->place->path, "/proc/", 6) == 0;
    bool refused = is_refused_wall(&attempt->answer);
    bool changes = (attempt->operation->flags & WRITES) && is_allowed(attempt);

    if (attempt->wall != NO_WALL && must_refuse_walls() && !refused)
        return "there can be no wall, and it is served";
    if (attempt->wall != NO_WALL && refused)
        return strcmp(attempt->after, yard->whole) != 0 ? "something has changed"
                                                        : judge_refused(attempt);
    if (!(changes || (is_about_link(attempt) && !in_proc)) &&
        strcmp(attempt->after, yard->whole) != 0)
        return "something has changed";
    /* Links of /proc are neither removed nor copied, by anybody. */
    if (is_about_link(attempt) && in_proc)
        return attempt->wall == NO_WALL ? NULL : judge_refused(attempt);
    if (is_about_link(attempt))
        return judge_link(attempt);
    if (!is_allowed(attempt))
        return judge_refused(attempt);
    return judge_allowed(attempt);
}

static bool applies(const struct operation *operation, const struct place *place, enum wall wall)
{
    if (!(operation->kinds & place->kind))
        return false;
    if ((operation->flags & NO_DANGLING) && (place->flags & LEAF))
        return false;
    return wall != NO_WALL || !(place->flags & TWIN_AS_ROOT) || geteuid() == 0;
}

/* ---- beyond one request ---- */

static int ask(const struct question *question)
{
    auto_answer struct answer answer = {0};

    door.ask(&door, question, &answer);
    return answer.code;
}

/* A tree with a part in it that must stay is refused as a whole, before anything is gone. */
static void no_tree_is_half_removed(void **state)
{
    static const char *const trees[] = {"ws", "ws/ro", "ws/deny", "ws/mixed", "ws/mixed2"};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(trees); i++) {
        for (enum wall wall = RESTRICTED; wall < N_WALLS; wall++) {
            yard_reset(yard);

            const struct question question = {ASK_REMOVE, .path = yard_path(yard, trees[i]),
                                              .recursive = true, .force = true,
                                              .sandbox = yard->sandbox[wall]};
            bly_autofree char *after = NULL, *difference = NULL;
            auto_answer struct answer answer = {0};

            door.ask(&door, &question, &answer);
            if (answer.code != -32600 && !is_refused_wall(&answer))
                fail_msg("%s: not refused", trees[i]);
            after = tree_list(yard->dir, 0);
            difference = tree_difference(yard->whole, after);
            if (difference)
                fail_msg("%s: %s", trees[i], difference);
        }
        const struct question twin = {ASK_REMOVE, .path = yard_path(yard, trees[i]),
                                      .recursive = true, .force = true};

        assert_int_equal(ask(&twin), 0);
        assert_false(disk_exists(yard_path(yard, trees[i])));
    }
}

/* Copying a directory does not take along what is hidden in it, whatever the answer is. */
static void no_tree_brings_hidden_files(void **state)
{
    (void)state;
    for (enum wall wall = NO_WALL; wall < N_WALLS; wall++) {
        yard_reset(yard);

        const struct question question = {ASK_COPY, .path = yard_path(yard, "ws/mixed"),
                                          .other = yard_path(yard, "ws/stolen"), .recursive = true,
                                          .sandbox = yard->sandbox[wall]};

        (void)ask(&question);
        assert_int_equal(disk_exists(yard_path(yard, "ws/stolen/z.key")), wall == NO_WALL);
    }
}

/*
 * Two steps: behind a wall a link is planted where a later policy has a writable root, with a
 * request that is allowed. The later grant must not lead outside.
 */
static void a_planted_root_grants_nothing(void **state)
{
    bly_autofree char *later = NULL;
    auto_answer struct answer planted = {0};

    (void)state;
    assert_true(
        asprintf(&later,
                 "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\","
                 "\"entries\":[{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"root\"}},"
                 "\"access\":\"read\"},{\"path\":{\"type\":\"path\",\"path\":\"file://%s/cache\"},"
                 "\"access\":\"write\"}]},\"network\":\"restricted\"},\"cwd\":\"file://%s\","
                 "\"windowsSandboxLevel\":\"disabled\"}",
                 yard->ws, yard->ws) > 0);
    yard_reset(yard);
    const struct question plant = {ASK_COPY, .path = yard_path(yard, "ws/parent"),
                                   .other = yard_path(yard, "ws/cache"), .recursive = true,
                                   .sandbox = yard->sandbox[FULL_READ]};
    struct question use = {ASK_WRITE, .path = yard_path(yard, "ws/cache/new"), .text = "attacked"};

    door.ask(&door, &plant, &planted);
    if (is_refused_wall(&planted)) /* then it is planted from the outside */
        disk_symlink("../out", yard_path(yard, "ws/cache"));
    else
        assert_int_equal(planted.code, 0);
    assert_true(disk_exists(yard_path(yard, "ws/cache")));
    use.sandbox = later;
    assert_int_not_equal(ask(&use), 0);
    yard_assert_guarded(yard);
    use.sandbox = NULL;
    assert_int_equal(ask(&use), 0);
    assert_true(disk_exists(yard_path(yard, "out/new")));
}

struct trial {
    char name[160];
    const struct place *place;
    enum wall wall;
};

static void run_trial(void **state)
{
    const struct trial *trial = *state;
    size_t n_bad = 0, n = 0;

    for (size_t i = 0; i < BLY_LEN(operations); i++) {
        struct attempt attempt = {
            .place = trial->place, .operation = &operations[i], .wall = trial->wall};
        const char *fault;

        if (!applies(&operations[i], trial->place, trial->wall))
            continue;
        make_attempt(&attempt);
        fault = judge(&attempt);
        n++;
        if (fault) {
            bly_autofree char *difference = tree_difference(yard->whole, attempt.after);

            print_error("%s: %s (answer %d %.200s%s%s)\n", operations[i].name, fault,
                        attempt.answer.code, attempt.answer.message, difference ? "; " : "",
                        difference ? difference : "");
            n_bad++;
        }
        attempt_deinit(&attempt);
    }
    if (n == 0)
        print_message("only root can do this without a wall\n");
    assert_int_equal(n_bad, 0);
}

static int open_all(void **state)
{
    (void)state;
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
    static const char *const suffixes[] = {[NO_WALL] = "without a wall",
                                           [RESTRICTED] = "restricted reading",
                                           [FULL_READ] = "full reading"};
    static struct trial trials[BLY_LEN(places) * N_WALLS];
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(no_tree_is_half_removed),
        cmocka_unit_test(no_tree_brings_hidden_files),
        cmocka_unit_test(a_planted_root_grants_nothing),
    };
    static struct CMUnitTest tests[BLY_LEN(trials) + BLY_LEN(others)];

    door_main(argc, argv);
    door_begin();
    door = argc > 1 && strcmp(argv[1], "local") == 0 ? door_local : door_remote;
    for (size_t i = 0; i < BLY_LEN(trials); i++) {
        struct trial *trial = &trials[i];

        trial->place = &places[i / N_WALLS];
        trial->wall = (enum wall)(i % N_WALLS);
        (void)snprintf(trial->name, sizeof(trial->name), "%s: %s, %s", door.name,
                       trial->place->name, suffixes[trial->wall]);
        tests[i] = (struct CMUnitTest){
            .name = trial->name, .test_func = run_trial, .initial_state = trial};
    }
    memcpy(tests + BLY_LEN(trials), others, sizeof(others));
    return _cmocka_run_group_tests("escape-files", tests, BLY_LEN(tests), open_all, close_all);
}
