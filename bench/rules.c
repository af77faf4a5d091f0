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
 * request sent to answer read; requests are put together before the clock starts.
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
    START_MS = 20000, /* time for the server to come up */
    ANSWER_MS = 120000,
    POLICY_BYTES = 1 << 20,
    FILE_BYTES = 4096,
};

static const unsigned sizes[] = {1, 16, 80, 256};

static unsigned only; /* this number of entries; 0: all */
static char dir[128]; /* everything the requests touch */
static pid_t server;
static struct bly_client *client;

/* ---- the disk ---- */

static void clean_up(void)
{
    bly_client_free(client);
    client = NULL;
    if (server > 0) {
        (void)kill(server, SIGTERM);
        (void)waitpid(server, NULL, 0);
    }
    server = 0;
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

struct cell {
    enum mix mix;
    unsigned n;
    const char *method;
    const char *members; /* of the request, behind the path */
    bool cold;
    char *policy, *request; /* POLICY_BYTES each */
};

static unsigned n_policies; /* that were never seen so far */

static double plan_once(void *arg, unsigned i)
{
    static const struct bly_policy_env env = {.cwd = "/"};
    struct cell *cell = arg;
    struct bly_policy *policy = NULL;
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};
    double start, end;

    (void)i;
    if (bly_policy_parse_text(cell->policy, &env, &policy, &err) < 0)
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

static void touch(const char *path)
{
    FILE *file = fopen(path, "w");

    if (!file || fclose(file) != 0)
        die("cannot write %s", path);
}

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
                touch(path);
            }
        }
    }
}

/* What happens to the tree between two plans. */
static void add_file(unsigned i)
{
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/r000/tree/1/1/new%u.c", dir, i);
    touch(path);
}

static void add_match(unsigned i)
{
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/r000/tree/2/2/new%u.env", dir, i);
    touch(path);
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
    start = read_clock(CLOCK_THREAD_CPUTIME_ID);
    if (bly_plan_make(cell->policy, BLY_FOR_PROCESS, &cell->probe, NULL, 0, &plan, &err) < 0)
        die("no plan: %s", err.text);
    end = read_clock(CLOCK_THREAD_CPUTIME_ID);
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
            die("no policy: %s", err.text);
        cell.probe.kept = bly_kept_new(rows[i].max_watches);
        (void)plan_tree_once(&cell, SAMPLES);
        (void)printf("| %s | %.0f |\n", rows[i].name, median(plan_tree_once, &cell, SAMPLES / 20));
        bly_kept_free(cell.probe.kept);
        bly_policy_unref(cell.policy);
    }
}

static double request_once(void *arg, unsigned i)
{
    struct cell *cell = arg;
    char *method = NULL, *answer = NULL;
    double start, end;
    int len;

    if (cell->cold)
        make_policy(cell->policy, cell->mix, cell->n, ++n_policies);
    len =
        snprintf(cell->request, POLICY_BYTES,
                 "{\"id\":\"bench\",\"method\":\"%s\",\"params\":{\"path\":\"file://%s/r000/%s\"%s,"
                 "\"sandbox\":%s}}",
                 cell->method, dir, cell->members[0] ? "out" : "file", cell->members, cell->policy);
    (void)i;
    start = bench_now_us();
    if (bly_client_send_raw(client, cell->request, (size_t)len) < 0 ||
        bly_client_next_notification(client, ANSWER_MS, &method, &answer) < 0)
        bench_die("the server does not answer");
    end = bench_now_us();
    if (!strstr(answer, "\"result\""))
        bench_die("%s with %u entries: %s", cell->method, cell->n, answer);
    free(method);
    free(answer);
    return end - start;
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

/* ---- the table ---- */

static void print_requests(struct cell *cell, const char *payload)
{
    double cold, meta, read, write;

    cell->method = "fs/getMetadata";
    cell->members = "";
    cell->cold = true;
    cold = median(request_once, cell, SAMPLES / 20);
    cell->cold = false;
    meta = median(request_once, cell, SAMPLES);
    cell->method = "fs/readFile";
    read = median(request_once, cell, SAMPLES);
    cell->method = "fs/writeFile";
    cell->members = payload;
    write = median(request_once, cell, SAMPLES);
    (void)printf(" %.0f | %.0f | %.0f | %.0f |", cold, meta, read, write);
}

static void print_row(struct cell *cell, bool with_plan, const char *payload)
{
    static const char *const names[] = {[ROOTS] = "roots", [MIXED] = "mixed"};

    make_policy(cell->policy, cell->mix, cell->n, 0);
    (void)printf("| %s | %u |", names[cell->mix], cell->n);
    if (with_plan)
        (void)printf(" %.0f |", median(plan_once, cell, SAMPLES / 10));
    if (client)
        print_requests(cell, payload);
    (void)putchar('\n');
    (void)fflush(stdout);
}

static char *make_payload(void)
{
    static const size_t len = (size_t)FILE_BYTES / 3 * 4;
    static char text[64 + FILE_BYTES * 4 / 3];
    int head = sprintf(text, ",\"dataBase64\":\"");

    memset(text + head, 'A', len);
    text[(size_t)head + len] = '"';
    return text;
}

static void print_table(bool with_plan)
{
    struct cell cell = {.policy = bench_alloc(POLICY_BYTES, 1),
                        .request = bench_alloc(POLICY_BYTES, 1)};
    const char *payload = make_payload();

    (void)printf("| policy | entries |%s%s\n|---|---|%s%s\n", with_plan ? " plan |" : "",
                 client ? " cold | warm metadata | warm read | warm write |" : "",
                 with_plan ? "---|" : "", client ? "---|---|---|---|" : "");
    for (int mix = ROOTS; mix <= MIXED; mix++) {
        for (size_t i = 0; i < BLY_LEN(sizes); i++) {
            cell.mix = (enum mix)mix;
            cell.n = sizes[i];
            if (only == 0 || only == cell.n)
                print_row(&cell, with_plan, payload);
        }
    }
    free(cell.policy);
    free(cell.request);
}

static _Noreturn void usage(void)
{
    (void)fprintf(stderr, "usage: bench-rules [--entries N] [--no-plan] COMMAND [ARGUMENT...]\n"
                          "       bench-rules [--entries N] --plan-only\n"
                          "       bench-rules --patterns\n");
    exit(2);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"entries", required_argument, NULL, 'e'},
        {"no-plan", no_argument, NULL, 'n'},
        {"plan-only", no_argument, NULL, 'p'},
        {"patterns", no_argument, NULL, 't'},
        {0},
    };
    bool no_plan = false, plan_only = false, patterns = false;
    int c;

    while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        if (c == 'e')
            only = (unsigned)atoi(optarg);
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
    if (!plan_only)
        start_server(argv + optind, argc - optind);
    print_table(!no_plan);
    return 0;
}
