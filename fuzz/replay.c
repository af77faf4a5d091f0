/*
 * Runs a fuzz target over files, or over all files of a directory, without a fuzzing engine: what
 * once found something stays a test. Each input has a process of its own, so that one that fails
 * does not hide the others.
 *
 * usage: fuzz-TARGET FILE-OR-DIRECTORY...
 */
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fuzz.h"

enum { SECONDS_MAX = 60 }; /* for one input, under sanitizers on a busy machine */

struct score {
    unsigned passed, failed;
};

static int read_file(const char *path, struct bly_buf *buf)
{
    FILE *file = fopen(path, "re");
    char piece[4096];
    size_t n;
    bool failed;

    if (!file)
        return -errno;
    while ((n = fread(piece, 1, sizeof(piece), file)) > 0)
        bly_buf_add(buf, piece, n);
    failed = ferror(file);
    (void)fclose(file);
    return failed ? -EIO : buf->error;
}

/* Ends through exit(), where LeakSanitizer has its say. */
static _Noreturn void run_input(const char *path)
{
    struct bly_buf buf;
    int r;

    bly_buf_init(&buf, FUZZ_OUTPUT_MAX);
    r = read_file(path, &buf);
    if (r < 0) {
        (void)fprintf(stderr, "%s: %s\n", path, strerrordesc_np(-r));
        exit(EXIT_FAILURE);
    }
    (void)alarm(SECONDS_MAX);
    (void)LLVMFuzzerTestOneInput(buf.data, buf.len);
    bly_buf_deinit(&buf);
    exit(EXIT_SUCCESS);
}

static void run_file(const char *path, struct score *score)
{
    pid_t pid = fork();
    int status = -1;

    if (pid == 0)
        run_input(path);
    if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
        WEXITSTATUS(status) == EXIT_SUCCESS) {
        score->passed++;
        return;
    }
    score->failed++;
    (void)fprintf(stderr, "%s: failed, wait status %#x\n", path, (unsigned)status);
}

static void run_directory(const char *dir, struct score *score)
{
    struct dirent **entries = NULL;
    int n = scandir(dir, &entries, NULL, alphasort);

    for (int i = 0; i < n; i++) {
        bly_autofree char *path = NULL;
        struct stat st;

        if (asprintf(&path, "%s/%s", dir, entries[i]->d_name) < 0)
            abort();
        if (stat(path, &st) < 0 || S_ISREG(st.st_mode))
            run_file(path, score);
        free(entries[i]);
    }
    free(entries);
}

int main(int argc, char **argv)
{
    struct score score = {0};

    for (int i = 1; i < argc; i++) {
        struct stat st;

        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
            run_directory(argv[i], &score);
        else
            run_file(argv[i], &score);
    }
    printf("%u passed, %u failed\n", score.passed, score.failed);
    return score.failed > 0 || score.passed == 0;
}
