/*
 * What a policy costs by its number of entries: the plan alone, the first file request under a
 * policy (cold) and those that follow (warm), through a server. The same requests work against
 * every server of dialect B, so another one can be put beside ours:
 *
 *     bench-rules build/bailey exec-server
 *     bench-rules --no-plan codex exec-server
 *     bench-rules --plan-only
 *     bench-rules --patterns
 *
 * The last one says what planning for a program costs with a deny pattern over 10,000 files.
 *
 * "--listen ws://127.0.0.1:PORT" is appended to the command. Times are medians, in microseconds, of
 * request sent to answer read; requests are put together before the clock starts. Warm ones are
 * sampled in turns over all sizes, so that what else the machine does falls on all of them alike.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bailey/client.h"
#include "bare.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/plan/kept.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"
#include "support.h"

enum {
    SAMPLES = 2000,
    FEWEST = 5,       /* samples, however slow the server is */
    CELL_MS = 3000,   /* time for the samples of one figure */
    TURN = 50,        /* samples of one size before it is the next one's turn */
    START_MS = 20000, /* time for the server to come up */
    ANSWER_MS = 120000,
    POLICY_BYTES = 1 << 20,
    FILE_BYTES = 4096,
};

static const unsigned sizes[] = {1, 16, 80, 256};
enum { ROWS = BLY_LEN(sizes) };

static unsigned only; /* this number of entries; 0: all */
static char dir[128]; /* everything the requests touch */
static pid_t server, bare;
static struct bly_client *client, *bare_client;

/* ---- the disk ---- */

static void end(pid_t *pid, struct bly_client **of)
{
    bly_client_free(*of);
    *of = NULL;
    if (*pid > 0) {
        (void)kill(*pid, SIGTERM);
        (void)waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

static void clean_up(void)
{
    end(&server, &client);
    end(&bare, &bare_client);
    if (dir[0])
        bench_remove_tree(dir);
}

static void make_directory(unsigned root, const char *below)
{
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/r%03u%s", dir, root, below);
    bench_make_directory(path);
}

static void make_disk(void)
{
    char path[512], data[FILE_BYTES];

    /* Not below /tmp, over which another server may put a mount of its own. */
    (void)snprintf(dir, sizeof(dir), "/var/tmp/bench-rules.XXXXXX");
    if (!mkdtemp(dir))
        bench_die("cannot make %s: %s", dir, strerrordesc_np(errno));
    for (unsigned i = 0; i < sizes[BLY_LEN(sizes) - 1]; i++) {
        make_directory(i, "");
        make_directory(i, "/docs");
        make_directory(i, "/secret");
    }
    memset(data, 'x', sizeof(data));
    (void)snprintf(path, sizeof(path), "%s/r000/file", dir);
    bench_write_file(path, data, sizeof(data));
}

/* ---- policies ---- */

enum mix { ROOTS, MIXED };

static const struct {
    const char *type, *member, *below, *access;
} entries[] = {
    {"path", "path", "", "write"},
    {"path", "path", "/docs", "read"},
    {"path", "path", "/secret", "deny"},
    {"glob_pattern", "pattern", "/**/*.env", "deny"},
};

/* Of sixteen entries eight are roots, four are read-only parts, two denied ones, two patterns. */
static size_t kind_of(enum mix mix, unsigned i)
{
    static const uint8_t kinds[16] = {0, 1, 0, 2, 0, 1, 0, 3, 0, 1, 0, 2, 0, 1, 0, 3};

    return mix == MIXED ? kinds[i % 16] : 0;
}

/* A context with `n` entries; `unique` makes it a policy that was never seen. */
static void make_policy(char *to, enum mix mix, unsigned n, unsigned unique)
{
    to += sprintf(to,
                  "{\"cwd\":\"file://%s/cold%u\",\"windowsSandboxLevel\":\"disabled\","
                  "\"permissions\":{\"type\":\"managed\",\"network\":\"restricted\","
                  "\"file_system\":{\"type\":\"restricted\",\"entries\":["
                  "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"minimal\"}},"
                  "\"access\":\"read\"}",
                  dir, unique);
    for (unsigned i = 0; i < n; i++) {
        size_t kind = kind_of(mix, i);
        /* Restrictions lie in the root in front of them. */
        unsigned root = kind == 0 ? i : i - 1;

        to += sprintf(to, ",{\"path\":{\"type\":\"%s\",\"%s\":\"%s%s/r%03u%s\"},\"access\":\"%s\"}",
                      entries[kind].type, entries[kind].member,
                      strcmp(entries[kind].member, "path") == 0 ? "file://" : "", dir, root,
                      entries[kind].below, entries[kind].access);
    }
    (void)sprintf(to, "]}}}");
}

/* ---- figures ---- */

/* The median of what `once` takes. `arg` goes to it with the number of the sample. */
static double median(double (*once)(void *arg, unsigned i), void *arg, unsigned most)
{
    static double samples[SAMPLES];
    double start = bench_now_us();
    unsigned n = 0;

    while (n < most && (n < FEWEST || bench_now_us() - start < CELL_MS * 1e3)) {
        samples[n] = once(arg, n);
        n++;
    }
    return bench_median(samples, n);
}

struct row {
    enum mix mix;
    unsigned n;
    char *policy; /* POLICY_BYTES */
};

static unsigned n_policies; /* that were never seen so far */

static double plan_once(void *arg, unsigned i)
{
    static const struct bly_policy_env env = {.cwd = "/"};
    const struct row *row = arg;
    struct bly_policy *policy = NULL;
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};
    double start, end;

    (void)i;
    if (bly_policy_parse_text(row->policy, &env, &policy, &err) < 0)
        bench_die("no policy: %s", err.text);
    start = bench_clock_us(CLOCK_THREAD_CPUTIME_ID);
    if (bly_plan_make(policy, BLY_FOR_HELPER, &bly_probe_disk, NULL, 0, &plan, &err) < 0)
        bench_die("no plan: %s", err.text);
    end = bench_clock_us(CLOCK_THREAD_CPUTIME_ID);
    bly_plan_free(plan);
    bly_policy_unref(policy);
    return end - start;
}

/* ---- deny patterns ---- */

enum {
    TREE_OUTER = 100,
    TREE_INNER = 10,
    TREE_FILES = 10
}; /* files in directories in directories */

static void make_tree(void)
{
    char path[512], below[64];

    make_directory(0, "/tree");
    for (unsigned i = 0; i < TREE_OUTER; i++) {
        (void)sprintf(below, "/tree/%u", i);
        make_directory(0, below);
        for (unsigned j = 0; j < TREE_INNER; j++) {
            (void)sprintf(below, "/tree/%u/%u", i, j);
            make_directory(0, below);
            for (unsigned k = 0; k < TREE_FILES; k++) {
                (void)snprintf(path, sizeof(path), "%s/r000%s/%u.c", dir, below, k);
                bench_write_file(path, "", 0);
            }
        }
    }
}

/* What happens to the tree between two plans. */
static void add_file(unsigned i)
{
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/r000/tree/1/1/new%u.c", dir, i);
    bench_write_file(path, "", 0);
}

static void add_match(unsigned i)
{
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/r000/tree/2/2/new%u.env", dir, i);
    bench_write_file(path, "", 0);
}

static void add_directory(unsigned i)
{
    char below[64];

    (void)sprintf(below, "/tree/3/3/new%u", i);
    make_directory(0, below);
}

struct tree_cell {
    struct bly_policy *policy;
    struct bly_probe probe;
    void (*happens)(unsigned i);
};

static double plan_tree_once(void *arg, unsigned i)
{
    struct tree_cell *cell = arg;
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};
    double start, end;

    if (cell->happens)
        cell->happens(i);
    start = bench_clock_us(CLOCK_THREAD_CPUTIME_ID);
    if (bly_plan_make(cell->policy, BLY_FOR_PROCESS, &cell->probe, NULL, 0, &plan, &err) < 0)
        bench_die("no plan: %s", err.text);
    end = bench_clock_us(CLOCK_THREAD_CPUTIME_ID);
    bly_plan_free(plan);
    return end - start;
}

static void print_patterns(void)
{
    static const struct {
        const char *name;
        uint64_t max_watches; /* 0: nothing is kept */
        void (*happens)(unsigned i);
    } rows[] = {
        {"walked each time", 0, NULL},
        {"kept, nothing happened", 16384, NULL},
        {"kept, a file came", 16384, add_file},
        {"kept, a match came", 16384, add_match},
        {"kept, a directory came", 16384, add_directory},
    };
    static const struct bly_policy_env env = {.cwd = "/"};
    char text[1024];
    struct bly_err err = {0};

    make_tree();
    (void)snprintf(text, sizeof(text),
                   "{\"windowsSandboxLevel\":\"disabled\",\"cwd\":\"file://%s\",\"permissions\":{"
                   "\"type\":\"managed\",\"network\":\"restricted\",\"file_system\":{"
                   "\"type\":\"restricted\",\"entries\":[{\"path\":{\"type\":\"path\",\"path\":"
                   "\"file://%s/r000\"},\"access\":\"write\"},{\"path\":{\"type\":\"glob_pattern\","
                   "\"pattern\":\"%s/r000/tree/**/*.env\"},\"access\":\"deny\"}]}}}",
                   dir, dir, dir);
    (void)puts("| pattern over 10,000 files | plan |\n|---|---|");
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct tree_cell cell = {.probe = bly_probe_disk, .happens = rows[i].happens};

        if (bly_policy_parse_text(text, &env, &cell.policy, &err) < 0)
            bench_die("no policy: %s", err.text);
        cell.probe.kept = bly_kept_new(rows[i].max_watches);
        (void)plan_tree_once(&cell, SAMPLES);
        (void)printf("| %s | %.0f |\n", rows[i].name, median(plan_tree_once, &cell, SAMPLES / 20));
        bly_kept_free(cell.probe.kept);
        bly_policy_unref(cell.policy);
    }
}

/* ---- requests ---- */

static char request[POLICY_BYTES + 65536];

/* `members` stand behind the path. */
static size_t make_request(const struct row *row, const char *method, const char *members)
{
    return (size_t)snprintf(request, sizeof(request),
                            "{\"id\":\"bench\",\"method\":\"%s\",\"params\":{\"path\":"
                            "\"file://%s/r000/%s\"%s,\"sandbox\":%s}}",
                            method, dir, members[0] ? "out" : "file", members, row->policy);
}

static double send_request(struct bly_client *to, size_t len)
{
    char *method = NULL, *answer = NULL;
    double start = bench_now_us(), end;

    if (bly_client_send_raw(to, request, len) < 0 ||
        bly_client_next_notification(to, ANSWER_MS, &method, &answer) < 0)
        bench_die("the server does not answer");
    end = bench_now_us();
    if (!strstr(answer, "\"result\""))
        bench_die("%s for %.200s", answer, request);
    free(method);
    free(answer);
    return end - start;
}

static double cold_once(void *arg, unsigned i)
{
    struct row *row = arg;

    (void)i;
    make_policy(row->policy, row->mix, row->n, ++n_policies);
    return send_request(client, make_request(row, "fs/getMetadata", ""));
}

/* A warm figure in the making. */
struct warm {
    const struct row *row;
    struct bly_client *to;
    const char *method, *members;
    double samples[SAMPLES], spent;
    unsigned n;
};

static bool is_done(const struct warm *warm)
{
    return warm->n == SAMPLES || (warm->n >= FEWEST && warm->spent > CELL_MS * 1e3);
}

static void take_turn(struct warm *warm)
{
    size_t len = make_request(warm->row, warm->method, warm->members);

    for (unsigned i = 0; i < TURN && !is_done(warm); i++) {
        double took = send_request(warm->to, len);

        warm->samples[warm->n++] = took;
        warm->spent += took;
    }
}

/* A column of the table: a figure for each row. */
static void measure_warm(const struct row *rows, size_t n, struct bly_client *to,
                         const char *method, const char *members, double *ret_figures)
{
    static struct warm warm[ROWS];
    bool done = false;

    for (size_t i = 0; i < n; i++)
        warm[i] = (struct warm){.row = &rows[i], .to = to, .method = method, .members = members};
    while (!done) {
        done = true;
        for (size_t i = 0; i < n; i++) {
            take_turn(&warm[i]);
            done = done && is_done(&warm[i]);
        }
    }
    for (size_t i = 0; i < n; i++)
        ret_figures[i] = bench_median(warm[i].samples, warm[i].n);
}

/* ---- the server ---- */

static void start_server(char **command, int n)
{
    char url[64];
    char **argv = bench_alloc((size_t)n + 3, sizeof(*argv));
    double until = bench_now_us() + START_MS * 1e3;
    struct bly_client_error err;

    (void)snprintf(url, sizeof(url), "ws://127.0.0.1:%u", bench_free_port());
    memcpy(argv, command, (size_t)n * sizeof(*argv));
    argv[n] = strdup("--listen");
    argv[n + 1] = url;
    server = fork();
    if (server == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
            _exit(127);
        (void)execvp(argv[0], argv);
        _exit(127);
    }
    free(argv[n]);
    free(argv);
    while (!(client = bly_client_connect(url, NULL, ANSWER_MS, &err))) {
        if (waitpid(server, NULL, WNOHANG) == server)
            bench_die("%s ended", command[0]);
        if (bench_now_us() > until)
            bench_die("cannot connect to %s: %s", command[0], err.message);
        (void)usleep(20000); /* nothing tells when a foreign server listens */
    }
}

static void start_bare(void)
{
    struct bly_client_error err;
    char url[64];
    unsigned port;

    bare = bench_bare_start(&port);
    (void)snprintf(url, sizeof(url), "ws://127.0.0.1:%u", port);
    bare_client = bly_client_connect(url, NULL, ANSWER_MS, &err);
    if (!bare_client)
        bench_die("cannot connect to the bare server: %s", err.message);
}

/* ---- the table ---- */

static char *make_payload(void)
{
    static const size_t len = (size_t)FILE_BYTES / 3 * 4;
    static char text[64 + FILE_BYTES * 4 / 3];
    int head = sprintf(text, ",\"dataBase64\":\"");

    memset(text + head, 'A', len);
    text[(size_t)head + len] = '"';
    return text;
}

static void print_head(bool with_plan)
{
    (void)printf("| policy | entries |%s%s\n|---|---|%s%s\n", with_plan ? " plan |" : "",
                 client ? " cold | warm metadata | warm read | warm write | bare |" : "",
                 with_plan ? "---|" : "", client ? "---|---|---|---|---|" : "");
}

static void print_rows(struct row *rows, size_t n, bool with_plan)
{
    static const char *const names[] = {[ROOTS] = "roots", [MIXED] = "mixed"};
    double plan[ROWS], cold[ROWS], meta[ROWS], read[ROWS], write[ROWS], least[ROWS];

    for (size_t i = 0; i < n; i++) {
        make_policy(rows[i].policy, rows[i].mix, rows[i].n, 0);
        plan[i] = with_plan ? median(plan_once, &rows[i], SAMPLES / 10) : 0;
        cold[i] = client ? median(cold_once, &rows[i], SAMPLES / 20) : 0;
    }
    if (client) {
        measure_warm(rows, n, client, "fs/getMetadata", "", meta);
        measure_warm(rows, n, client, "fs/readFile", "", read);
        measure_warm(rows, n, client, "fs/writeFile", make_payload(), write);
        measure_warm(rows, n, bare_client, "fs/getMetadata", "", least);
    }
    for (size_t i = 0; i < n; i++) {
        (void)printf("| %s | %u |", names[rows[i].mix], rows[i].n);
        if (with_plan)
            (void)printf(" %.0f |", plan[i]);
        if (client)
            (void)printf(" %.0f | %.0f | %.0f | %.0f | %.0f |", cold[i], meta[i], read[i], write[i],
                         least[i]);
        (void)putchar('\n');
    }
    (void)fflush(stdout);
}

static void print_table(bool with_plan)
{
    struct row rows[ROWS];
    size_t n = 0;

    print_head(with_plan);
    for (size_t i = 0; i < BLY_LEN(sizes); i++)
        if (only == 0 || only == sizes[i])
            rows[n++] = (struct row){.n = sizes[i], .policy = bench_alloc(POLICY_BYTES, 1)};
    for (int mix = ROOTS; mix <= MIXED; mix++) {
        for (size_t i = 0; i < n; i++)
            rows[i].mix = (enum mix)mix;
        print_rows(rows, n, with_plan);
    }
    for (size_t i = 0; i < n; i++)
        free(rows[i].policy);
}

static _Noreturn void usage(void)
{
    (void)fprintf(stderr,
                  "usage: bench-rules [--entries N] [--no-halt] [--no-plan] COMMAND [ARGUMENT...]\n"
                  "       bench-rules [--entries N] --plan-only\n"
                  "       bench-rules --patterns\n"
                  "--no-halt: keep idle CPUs awake (root)\n");
    exit(2);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"entries", required_argument, NULL, 'e'}, {"no-halt", no_argument, NULL, 'h'},
        {"no-plan", no_argument, NULL, 'n'},       {"plan-only", no_argument, NULL, 'p'},
        {"patterns", no_argument, NULL, 't'},      {0},
    };
    bool no_plan = false, plan_only = false, patterns = false;
    int c;

    while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        if (c == 'e')
            only = (unsigned)atoi(optarg);
        else if (c == 'h')
            bench_keep_awake();
        else if (c == 'n')
            no_plan = true;
        else if (c == 'p')
            plan_only = true;
        else if (c == 't')
            patterns = true;
        else
            usage();
    }
    if ((plan_only || patterns) == (optind < argc))
        usage();
    (void)atexit(clean_up);
    make_disk();
    if (patterns) {
        print_patterns();
        clean_up();
        return 0;
    }
    if (!plan_only) {
        start_server(argv + optind, argc - optind);
        start_bare();
    }
    print_table(!no_plan);
    return 0;
}
