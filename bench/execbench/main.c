/*
 * Compares servers that speak the exec-server protocol: every workload against each of them in
 * turn, in several rounds. docs/PERFORMANCE.md says what is measured and how.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "execbench/result.h"
#include "execbench/workload.h"
#include "support.h"

enum { SUBJECTS_MAX = 8, LEAST_OPERATIONS = 3, LOAD_BYTES = 64 };

struct options {
    unsigned rounds;
    double scale, seconds;
    const char *only, *skip; /* lists of names, each perhaps with a trailing star */
    const char *dir;
    bool is_verbose, no_halt;
};

/* What is kept of a result until the end. */
struct outcome {
    enum result_state state;
    double metric, cpu_us;
    const char *unit;
};

static struct subject subjects[SUBJECTS_MAX];
static size_t n_subjects;
static struct ground ground;
static volatile sig_atomic_t is_stopped;

/* ---- which ---- */

static bool is_listed(const char *list, const char *name)
{
    while (*list) {
        size_t len = strcspn(list, ",");
        bool has_star = len > 0 && list[len - 1] == '*';

        if (has_star ? strncmp(list, name, len - 1) == 0
                     : strlen(name) == len && strncmp(list, name, len) == 0)
            return true;
        list += len + (list[len] == ',');
    }
    return false;
}

static bool is_wanted(const struct options *options, const struct workload *workload)
{
    return (!options->only || is_listed(options->only, workload->name)) &&
           (!options->skip || !is_listed(options->skip, workload->name));
}

/* ---- rounds ---- */

static void fail_result(struct result *result, const struct subject *subject)
{
    result->state = RESULT_FAILED;
    (void)snprintf(result->why, sizeof(result->why), "%.*s", (int)sizeof(result->why) - 1,
                   subject->err.text);
}

static void run_workload(const struct options *options, struct subject *subject,
                         const struct workload *workload, struct result *result)
{
    double n = floor(workload->n * options->scale + .5);

    if (n < LEAST_OPERATIONS)
        n = workload->n < LEAST_OPERATIONS ? workload->n : LEAST_OPERATIONS;
    if (subject_revive(subject) < 0) {
        fail_result(result, subject);
        return;
    }
    if (workload->only_b && subject->dialect != 'b') {
        result->state = RESULT_MISSING;
        (void)snprintf(result->why, sizeof(result->why), "dialect %c has no such request",
                       subject->dialect);
        return;
    }
    account_reset_peak(subject->pid);
    if (workload->run(subject, workload, result, (unsigned)n, options->seconds) < 0) {
        fail_result(result, subject);
        return;
    }
    result->state = RESULT_DONE;
    result->peak_kib = account_status(subject->pid, "VmHWM");
    result_finish(result);
}

static struct outcome measure(const struct options *options, struct subject *subject,
                              const struct workload *workload)
{
    struct outcome outcome;
    struct result result;

    result_init(&result);
    run_workload(options, subject, workload, &result);
    if (options->is_verbose || result.state == RESULT_FAILED)
        result_print(&result, workload->name, subject->name);
    outcome = (struct outcome){
        .state = result.state,
        .metric = result.metric,
        .cpu_us = result.cpu_us,
        .unit = result.unit,
    };
    result_deinit(&result);
    return outcome;
}

static const char *load_average(char text[LOAD_BYTES])
{
    double load[3] = {0};

    (void)getloadavg(load, 3);
    (void)snprintf(text, LOAD_BYTES, "%.2f %.2f %.2f", load[0], load[1], load[2]);
    return text;
}

/* The outcome of a workload, a server and a round. */
static struct outcome *outcome_of(const struct options *options, struct outcome *outcomes,
                                  size_t workload, size_t subject, size_t round)
{
    return &outcomes[(workload * n_subjects + subject) * options->rounds + round];
}

static void run_round(const struct options *options, struct outcome *outcomes, size_t round)
{
    char load[LOAD_BYTES];

    (void)printf("# round %zu of %u, load %s\n", round + 1, options->rounds, load_average(load));
    for (size_t i = 0; i < n_subjects; i++) {
        if (subject_start(&subjects[i]) < 0)
            (void)printf("# %s: %s\n", subjects[i].name, subjects[i].err.text);
    }
    for (size_t i = 0; i < n_workloads && !is_stopped; i++) {
        if (!is_wanted(options, &workloads[i]))
            continue;
        /* Who goes first rotates. */
        for (size_t j = 0; j < n_subjects; j++) {
            size_t which = (j + round) % n_subjects;

            *outcome_of(options, outcomes, i, which, round) =
                measure(options, &subjects[which], &workloads[i]);
        }
    }
    for (size_t i = 0; i < n_subjects; i++)
        subject_stop(&subjects[i]);
}

/* ---- the table ---- */

struct summary {
    double metric, cpu_us; /* medians; NAN: never done, and what to say instead is */
    const char *otherwise;
    const char *unit;
};

static struct summary summarize(const struct options *options, const struct outcome *rounds)
{
    static const char *const words[] = {[RESULT_NOT_RUN] = "-",
                                        [RESULT_FAILED] = "FAIL",
                                        [RESULT_MISSING] = "n/a",
                                        [RESULT_DONE] = "-"};
    struct summary summary = {.otherwise = words[rounds[0].state], .unit = "us"};
    bly_autofree double *metrics = bench_alloc(options->rounds, sizeof(double));
    bly_autofree double *cpu = bench_alloc(options->rounds, sizeof(double));
    size_t n = 0;

    for (size_t i = 0; i < options->rounds; i++) {
        if (rounds[i].state != RESULT_DONE)
            continue;
        summary.unit = rounds[i].unit;
        metrics[n] = rounds[i].metric;
        cpu[n++] = rounds[i].cpu_us;
    }
    summary.metric = bench_median(metrics, n);
    summary.cpu_us = bench_median(cpu, n);
    return summary;
}

/* How many times more the second needs, with the extremes of the rounds. */
static void print_ratio(const struct options *options, const struct outcome *first,
                        const struct outcome *second)
{
    bly_autofree double *ratios = bench_alloc(options->rounds, sizeof(double));
    size_t n = 0;

    for (size_t i = 0; i < options->rounds; i++) {
        if (first[i].state == RESULT_DONE && second[i].state == RESULT_DONE && first[i].metric > 0)
            ratios[n++] = second[i].metric / first[i].metric;
    }
    if (n == 0) {
        (void)printf("  -");
        return;
    }
    double ratio = summarize(options, second).metric / summarize(options, first).metric;

    (void)bench_median(ratios, n); /* sorts */
    (void)printf("  %.2fx [%.2f..%.2f]", ratio, ratios[0], ratios[n - 1]);
}

static void print_row(const struct options *options, struct outcome *outcomes, size_t i)
{
    const struct outcome *first = outcome_of(options, outcomes, i, 0, 0);
    char name[64];

    (void)snprintf(name, sizeof(name), "%s (%s)", workloads[i].name,
                   summarize(options, first).unit);
    (void)printf("%-36s", name);
    for (size_t j = 0; j < n_subjects; j++) {
        struct summary summary = summarize(options, outcome_of(options, outcomes, i, j, 0));

        if (isnan(summary.metric))
            (void)printf(" %12s %10s", summary.otherwise, "-");
        else
            (void)printf(" %12.1f %10.1f", summary.metric, summary.cpu_us);
    }
    for (size_t j = 1; j < n_subjects; j++)
        print_ratio(options, first, outcome_of(options, outcomes, i, j, 0));
    (void)putchar('\n');
}

static void print_table(const struct options *options, struct outcome *outcomes)
{
    char load[LOAD_BYTES];

    (void)printf("\n%-36s", "workload (metric, median of rounds)");
    for (size_t i = 0; i < n_subjects; i++)
        (void)printf(" %12s %10s", subjects[i].name, "cpu us/op");
    for (size_t i = 1; i < n_subjects; i++)
        (void)printf("  %s/%s [min..max]", subjects[i].name, subjects[0].name);
    (void)putchar('\n');
    for (size_t i = 0; i < n_workloads; i++) {
        if (is_wanted(options, &workloads[i]))
            print_row(options, outcomes, i);
    }
    (void)printf("# load at the end %s; CPUs kept awake: %s; a ratio above 1: %s needs less\n",
                 load_average(load), options->no_halt ? "yes" : "no", subjects[0].name);
}

static void compare(const struct options *options)
{
    bly_autofree struct outcome *outcomes =
        bench_alloc(n_workloads * n_subjects * options->rounds, sizeof(*outcomes));

    ground_make(&ground, options->dir);
    if (options->is_verbose)
        result_print_head();
    for (size_t i = 0; i < options->rounds && !is_stopped; i++)
        run_round(options, outcomes, i);
    print_table(options, outcomes);
}

/* ---- the command ---- */

static void clean_up(void)
{
    for (size_t i = 0; i < n_subjects; i++)
        subject_deinit(&subjects[i]);
    ground_remove(&ground);
}

/* Ends after the workload that runs, with the table of what is there; a second one ends at once. */
static void on_signal(int number)
{
    (void)number;
    is_stopped = 1;
}

static void catch_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal,
                                     .sa_flags = SA_RESTART | SA_RESETHAND};

    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

static _Noreturn void usage(int code)
{
    (void)fprintf(code ? stderr : stdout,
                  "usage: execbench compare [OPTION...] NAME=COMMAND...\n"
                  "       execbench list\n"
                  "\n"
                  "Runs every workload against each server in turn, in several rounds.\n"
                  "COMMAND is for sh; '--listen ws://127.0.0.1:PORT' is appended.\n"
                  "\n"
                  "  --rounds N      the servers are started anew for each (5)\n"
                  "  --only LIST     workloads by name, with commas; a trailing * is allowed\n"
                  "  --skip LIST     all but these\n"
                  "  --scale FACTOR  multiplies the number of operations (1)\n"
                  "  --tmax SECONDS  ends a workload after this time (4)\n"
                  "  --dir DIR       for the files, must not exist (below /var/tmp)\n"
                  "  --no-halt       keep idle CPUs awake (root)\n"
                  "  --verbose       print every round\n");
    exit(code);
}

static double positive(const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value > 0))
        bench_die("%s is not a positive number", text);
    return value;
}

static void parse(int argc, char **argv, struct options *options)
{
    static const struct option names[] = {
        {"rounds", required_argument, NULL, 'r'}, {"only", required_argument, NULL, 'o'},
        {"skip", required_argument, NULL, 's'},   {"scale", required_argument, NULL, 'f'},
        {"tmax", required_argument, NULL, 't'},   {"dir", required_argument, NULL, 'd'},
        {"no-halt", no_argument, NULL, 'n'},      {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},         {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "hv", names, NULL)) != -1) {
        switch (c) {
        case 'r':
            options->rounds = (unsigned)positive(optarg);
            break;
        case 'o':
            options->only = optarg;
            break;
        case 's':
            options->skip = optarg;
            break;
        case 'f':
            options->scale = positive(optarg);
            break;
        case 't':
            options->seconds = positive(optarg);
            break;
        case 'd':
            options->dir = optarg;
            break;
        case 'n':
            options->no_halt = true;
            break;
        case 'v':
            options->is_verbose = true;
            break;
        default:
            usage(c == 'h' ? 0 : 2);
        }
    }
}

static void add_subject(char *argument)
{
    char *equals = strchr(argument, '=');

    if (!equals || equals == argument || n_subjects == SUBJECTS_MAX)
        usage(2);
    *equals = '\0';
    subject_init(&subjects[n_subjects], &ground, (char)('a' + n_subjects), argument, equals + 1);
    n_subjects++;
}

static int list(void)
{
    for (size_t i = 0; i < n_workloads; i++)
        (void)puts(workloads[i].name);
    return 0;
}

int main(int argc, char **argv)
{
    struct options options = {.rounds = 5, .scale = 1, .seconds = 4};

    parse(argc, argv, &options);
    if (optind < argc && strcmp(argv[optind], "list") == 0)
        return list();
    if (optind + 1 >= argc || strcmp(argv[optind], "compare") != 0 || options.rounds == 0)
        usage(2);
    while (++optind < argc)
        add_subject(argv[optind]);
    catch_signals();
    (void)atexit(clean_up);
    if (options.no_halt)
        bench_keep_awake();
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    compare(&options);
    return 0;
}
