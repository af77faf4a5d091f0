/*
 * What a plan saw is exchanged for something else before its wall is built, and at the worst
 * moments while it is: right in front of the clone, and between the clone and the mount. For that
 * open_tree(2) is wrapped here (--wrap, see meson.build), so nothing is left to luck. Whoever is
 * behind the wall never gets at what took the place of what was granted, and what was restricted is
 * never left uncovered.
 */
#include "yard.h"

#include <sys/mount.h>

enum {
    STANDS = 0,
    EITHER = 210,   /* expected: the kernel may refuse to mount on this, or not */
    LEAKED = 211,   /* something else than what was granted could be opened */
    CHANGED = 212,  /* what was not granted was written, or what was granted was not */
    NOT_DONE = 213, /* nothing was exchanged: the test is none */
};

enum exchange { NONE, SWAP, LINK, GONE, OTHER, N_EXCHANGES };
enum moment { BEFORE, CLONING, CLONED, N_MOMENTS };

static const char *const exchange_names[] = {"nothing", "a thing of its kind", "a link",
                                             "nothing at all", "a thing of another kind"};
static const char *const moment_names[] = {"before the wall is built", "in front of the clone",
                                           "behind the clone"};

/* The names are relative to the yard, which is the working directory. */
struct exchange_case {
    const char *policy;
    const char *path;  /* what is exchanged, for out or out/page */
    const char *clone; /* what open_tree() is asked for by that step */
    bool is_file;      /* else a directory */
    bool is_grant;     /* of w/docs/page, or of its directory; else nothing is tried inside */
    unsigned char cloned[N_EXCHANGES]; /* expected of an exchange behind the clone */
};

/* clang-format off */
#define REFUSED {STANDS, YARD_NO_WALL, YARD_NO_WALL, YARD_NO_WALL, YARD_NO_WALL}

static const struct exchange_case cases[] = {
    {"read /; write @w/docs", "w/docs", "docs", false, true,
     {STANDS, STANDS, YARD_NO_WALL, YARD_NO_WALL, YARD_NO_WALL}},
    {"read /; write @w/docs/page", "w/docs/page", "page", true, true,
     {STANDS, STANDS, EITHER, YARD_NO_WALL, YARD_NO_WALL}},
    /* Their mount points are private: what becomes of the host's names does not matter any more. */
    {"minimal; write @w/docs", "w/docs", "docs", false, true, {STANDS}},
    {"minimal; write @w/docs/page", "w/docs/page", "page", true, true, {STANDS}},

    /* The protected names in it are not where they were. */
    {"read /; write @w", "w", "w", false, false, REFUSED},
    {"minimal; write @w", "w", "w", false, false, REFUSED},

    {"read /; write @w; read @w/docs", "w/docs", "docs", false, false, REFUSED},
    {"read /; write @w", "w/.git", ".git", false, false, REFUSED},
    {"read /; write @w; read @w/a/b", "w/a", "a", false, false, REFUSED}, /* pinned */
    {"read /; write @w; deny @w/p", "w/p", "deny", false, false, REFUSED},
    {"read /; write @w; deny @w/docs/page", "w/docs/page", "file", true, false, REFUSED},
};
/* clang-format on */

static int rename_with(const char *from, const char *to, unsigned flags)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags) < 0 ? -errno : 0;
}

static int carry_out(const struct exchange_case *c, enum exchange exchange)
{
    const char *impostor = c->is_file ? "out/page" : "out";
    int r;

    if (exchange == NONE)
        return 0;
    if (exchange == SWAP)
        return rename_with(c->path, impostor, RENAME_EXCHANGE);
    r = rename_with(c->path, "kept", 0);
    if (r < 0 || exchange == GONE)
        return r;
    if (exchange == LINK)
        return symlink(yard_path(impostor), c->path) < 0 ? -errno : 0;
    return rename_with(c->is_file ? "out" : "out/page", c->path, 0);
}

struct attempt {
    const struct exchange_case *c;
    enum exchange exchange;
    enum moment moment;
    enum bly_purpose purpose;
};

/* What the child that builds a wall is still to do when it clones. */
static const struct attempt *pending;

static void interfere(enum moment moment, const char *path)
{
    const struct attempt *a = pending;

    if (!a || a->moment != moment || strcmp(path, a->c->clone) != 0)
        return;
    pending = NULL;
    (void)carry_out(a->c, a->exchange);
}

int __real_open_tree(int dir_fd, const char *path, unsigned flags);
int __wrap_open_tree(int dir_fd, const char *path, unsigned flags);

int __wrap_open_tree(int dir_fd, const char *path, unsigned flags)
{
    int fd;

    interfere(CLONING, path);
    fd = __real_open_tree(dir_fd, path, flags);
    interfere(CLONED, path);
    return fd;
}

static bool has_text(int fd, const char *text)
{
    char got[16] = "";

    return pread(fd, got, sizeof(got) - 1, 0) >= 0 && strcmp(got, text) == 0;
}

/* Behind the wall: reads and writes what was granted, or whatever is there. */
static int use_grant(void)
{
    bly_autofd int fd = open(yard_path("w/docs/page"), O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return errno;
    if (!has_text(fd, "page"))
        return LEAKED;
    return pwrite(fd, "mine", 4, 0) == 4 ? 0 : errno;
}

static bool is_same_object(const char *path, const struct stat *was)
{
    struct stat st;

    return lstat(path, &st) == 0 && st.st_dev == was->st_dev && st.st_ino == was->st_ino;
}

/* Builds the wall of a plan that was made before the exchange. */
static int build(const struct attempt *a, const struct bly_plan *plan)
{
    pending = a;
    if (a->moment == BEFORE && carry_out(a->c, a->exchange) < 0)
        return NOT_DONE;
    return yard_run(plan, a->purpose, a->c->is_grant ? use_grant : yard_nothing);
}

static int try_plan(const struct attempt *a, const struct bly_plan *plan)
{
    bly_autofd int granted = open("w/docs/page", O_RDONLY | O_CLOEXEC);
    bly_autofd int impostor = open("out/page", O_RDONLY | O_CLOEXEC);
    struct stat was;
    int r;

    if (granted < 0 || impostor < 0 || lstat(a->c->path, &was) < 0)
        return YARD_STUCK;
    r = build(a, plan);
    if (is_same_object(a->c->path, &was) != (a->exchange == NONE))
        return NOT_DONE;
    if (!has_text(impostor, "secret") ||
        !has_text(granted, r == STANDS && a->c->is_grant ? "mine" : "page"))
        return CHANGED;
    return r;
}

static int try_exchange(const void *arg)
{
    const struct attempt *a = arg;
    struct bly_plan *plan;
    int r;

    /* Under the name that what is granted has. */
    if (chdir(yard.root) < 0 || rename_with("out/secret", "out/page", 0) < 0)
        return YARD_STUCK;
    plan = yard_plan(a->c->policy, a->purpose);
    r = plan ? try_plan(a, plan) : YARD_NO_PLAN;
    bly_plan_free(plan);
    return r;
}

static void check_as(uid_t uid, const struct attempt *a)
{
    int expected = a->moment == CLONED   ? a->c->cloned[a->exchange]
                   : a->exchange == NONE ? STANDS
                                         : YARD_NO_WALL;
    int got = yard_run_as(uid, try_exchange, a);

    yard_remove();
    if (got != expected && !(expected == EITHER && (got == STANDS || got == YARD_NO_WALL)))
        fail_msg("%s for %s, %s, as uid %u, purpose %d: %d instead of %d, %s", a->c->path,
                 exchange_names[a->exchange], moment_names[a->moment], uid, (int)a->purpose, got,
                 expected, yard_error);
}

/* A helper as whoever runs the test, a program as an ordinary user. */
static void check_moment(struct attempt a, enum moment moment)
{
    a.moment = moment;
    a.purpose = BLY_FOR_HELPER;
    check_as(getuid(), &a);
    a.purpose = BLY_FOR_PROCESS;
    if (getuid() != 0 || yard_user_may_try())
        check_as(getuid() == 0 ? YARD_NOBODY : getuid(), &a);
}

static void check_case(void **state)
{
    struct attempt a = {.c = *state, .exchange = NONE};

    check_moment(a, BEFORE);
    for (a.exchange = SWAP; a.exchange < N_EXCHANGES; a.exchange++)
        for (int moment = 0; moment < N_MOMENTS; moment++)
            check_moment(a, (enum moment)moment);
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(cases)] = {0};
    char names[BLY_LEN(cases)][128];
    int r = yard_begin(cases[0].policy);

    if (r != 0)
        return r;
    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        union {
            const void *in;
            void *out;
        } state = {&cases[i]};

        (void)snprintf(names[i], sizeof(names[i]), "%s under \"%s\"", cases[i].path,
                       cases[i].policy);
        tests[i] = (struct CMUnitTest){
            .name = names[i], .test_func = check_case, .initial_state = state.out};
    }
    return yard_end(cmocka_run_group_tests(tests, NULL, NULL));
}
