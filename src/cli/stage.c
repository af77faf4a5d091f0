#include "cli/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"

enum {
    START_MS = 10000, /* the server's time to listen */
    STOP_MS = 5000,   /* and to end */
};

const char bly_stage_secret[] = "the password is: portcullis";

static const struct stage_file {
    const char *path; /* below the root */
    const char *text;
} files[] = {
    {"vault/secret.txt", bly_stage_secret},
    {"outside/notes.txt", "notes of somebody else\n"},
    {"project/Makefile", "CFLAGS = -O1 -Wall\n"
                         "\n"
                         "all: build/test-greet build/knock\n"
                         "build/test-greet: src/greet.c src/test-greet.c\n"
                         "\tcc $(CFLAGS) -o $@ src/greet.c src/test-greet.c\n"
                         "build/knock: src/knock.c\n"
                         "\tcc $(CFLAGS) -o $@ src/knock.c\n"
                         "test: build/test-greet\n"
                         "\t@build/test-greet\n"},
    {"project/.gitignore", "build/\n"},
    {"project/src/greet.c", "#include <stdio.h>\n"
                            "\n"
                            "int greet(const char *name, char *text, unsigned long size)\n"
                            "{\n"
                            "    return snprintf(text, size, \"Hello %s\", name);\n"
                            "}\n"},
    {"project/src/test-greet.c",
     "#include <stdio.h>\n"
     "#include <string.h>\n"
     "\n"
     "int greet(const char *name, char *text, unsigned long size);\n"
     "\n"
     "static int check(const char *name, const char *want)\n"
     "{\n"
     "    char got[100];\n"
     "    int bad;\n"
     "\n"
     "    greet(name, got, sizeof(got));\n"
     "    bad = strcmp(got, want) != 0;\n"
     "    printf(\"%s greet(\\\"%s\\\") is \\\"%s\\\"\\n\", bad ? \"FAIL\" : \"ok  \", name, "
     "got);\n"
     "    return bad;\n"
     "}\n"
     "\n"
     "int main(void)\n"
     "{\n"
     "    return check(\"world\", \"Hello, world\") | check(\"yard\", \"Hello, yard\");\n"
     "}\n"},
    {"project/src/knock.c",
     "#include <arpa/inet.h>\n"
     "#include <stdio.h>\n"
     "#include <stdlib.h>\n"
     "#include <sys/socket.h>\n"
     "\n"
     "int main(int argc, char **argv)\n"
     "{\n"
     "    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - "
     "1]))};\n"
     "    int fd = socket(AF_INET, SOCK_STREAM, 0);\n"
     "\n"
     "    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);\n"
     "    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {\n"
     "        perror(fd < 0 ? \"socket\" : \"connect\");\n"
     "        return 1;\n"
     "    }\n"
     "    puts(\"connected\");\n"
     "    return 0;\n"
     "}\n"},
};

static const char *const directories[] = {"vault", "outside", "project", "project/src",
                                          "project/build"};

/* The workspace */

static int make_directory(int root_fd, const char *path, struct bly_err *err)
{
    return mkdirat(root_fd, path, 0755) < 0 ? bly_fail_sys(err, errno, "cannot make %s", path) : 0;
}

static int make_file(int root_fd, const struct stage_file *file, struct bly_err *err)
{
    size_t len = strlen(file->text);
    bly_autofd int fd = openat(root_fd, file->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0 || write(fd, file->text, len) != (ssize_t)len)
        return bly_fail_sys(err, errno, "cannot write %s", file->path);
    return 0;
}

static int make_tree(const char *root, struct bly_err *err)
{
    bly_autofd int root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = root_fd < 0 ? bly_fail_sys(err, errno, "cannot open %s", root) : 0;

    for (size_t i = 0; i < BLY_LEN(directories) && r == 0; i++)
        r = make_directory(root_fd, directories[i], err);
    for (size_t i = 0; i < BLY_LEN(files) && r == 0; i++)
        r = make_file(root_fd, &files[i], err);
    return r;
}

static bool is_installed(const char *name)
{
    static const char *const folders[] = {"/usr/local/bin", "/usr/bin", "/bin"};
    char path[64];

    for (size_t i = 0; i < BLY_LEN(folders); i++) {
        snprintf(path, sizeof(path), "%s/%s", folders[i], name);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static int check_programs(struct bly_err *err)
{
    static const char *const names[] = {"cc", "git", "make", "sh"};

    for (size_t i = 0; i < BLY_LEN(names); i++) {
        if (!is_installed(names[i]))
            return bly_fail(err, BLY_ERR_SPAWN, ENOENT, "the demo needs %s, which is not installed",
                            names[i]);
    }
    return 0;
}

/* Runs a program of ours, outside of any wall, to its end. */
static int run(const char *cwd, const char *const *argv, struct bly_err *err)
{
    static const char *const env[] = {
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "LC_ALL=C",
        "GIT_CONFIG_GLOBAL=/dev/null",
        "GIT_CONFIG_NOSYSTEM=1",
        "GIT_AUTHOR_NAME=demo",
        "GIT_AUTHOR_EMAIL=demo@localhost",
        "GIT_COMMITTER_NAME=demo",
        "GIT_COMMITTER_EMAIL=demo@localhost",
        NULL,
    };
    int status;
    pid_t pid = fork();

    if (pid < 0)
        return bly_fail_sys(err, errno, "cannot fork");
    if (pid == 0) {
        if (chdir(cwd) == 0)
            execvpe(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return bly_fail_sys(err, errno, "cannot wait for %s", argv[0]);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return bly_fail(err, BLY_ERR_SPAWN, EIO, "%s %s failed", argv[0], argv[1]);
    return 0;
}

static int make_repository(const char *project, struct bly_err *err)
{
    static const char *const commands[][8] = {
        {"git", "init", "-q", "-b", "main", NULL},
        {"git", "add", ".", NULL},
        {"git", "commit", "-q", "-m", "A greeting", NULL},
    };
    int r = 0;

    for (size_t i = 0; i < BLY_LEN(commands) && r == 0; i++)
        r = run(project, commands[i], err);
    return r;
}

int bly_stage_prepare(struct bly_stage *stage, struct bly_err *err)
{
    char root[] = "/tmp/bailey-demo-XXXXXX";
    int r = check_programs(err);

    *stage = (struct bly_stage){0};
    if (r < 0)
        return r;
    if (!mkdtemp(root))
        return bly_fail_sys(err, errno, "cannot make a directory in /tmp");
    snprintf(stage->root, sizeof(stage->root), "%s", root);
    snprintf(stage->project, sizeof(stage->project), "%s/project", root);
    snprintf(stage->vault, sizeof(stage->vault), "%s/vault", root);
    snprintf(stage->outside, sizeof(stage->outside), "%s/outside", root);

    r = make_tree(root, err);
    return r < 0 ? r : make_repository(stage->project, err);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void remove_tree(char *root)
{
    char *paths[] = {root, NULL};
    FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *entry;

    if (!fts)
        return;
    while ((entry = fts_read(fts))) {
        if (entry->fts_info == FTS_DP)
            (void)rmdir(entry->fts_accpath);
        else if (entry->fts_info != FTS_D)
            (void)unlink(entry->fts_accpath);
    }
    fts_close(fts);
}

static void add_entry(const FTSENT *entry, struct bly_buf *buf)
{
    const struct stat *st = entry->fts_statp;

    if (entry->fts_info == FTS_DP)
        return;
    bly_buf_printf(buf, "%s %lu %o %lld %lld.%09ld\n", entry->fts_path, (unsigned long)st->st_ino,
                   st->st_mode, (long long)st->st_size, (long long)st->st_mtim.tv_sec,
                   st->st_mtim.tv_nsec);
}

int bly_stage_fingerprint(const struct bly_stage *stage, struct bly_buf *buf)
{
    char vault[BLY_STAGE_PATH_MAX], outside[BLY_STAGE_PATH_MAX], git[BLY_STAGE_PATH_MAX + 8];
    char *paths[] = {vault, outside, git, NULL};
    FTS *fts;
    FTSENT *entry;

    memcpy(vault, stage->vault, sizeof(vault));
    memcpy(outside, stage->outside, sizeof(outside));
    snprintf(git, sizeof(git), "%s/.git", stage->project);

    fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
    if (!fts)
        return -errno;
    while ((entry = fts_read(fts)))
        add_entry(entry, buf);
    fts_close(fts);
    return buf->error;
}

/* The server */

static void log_path(const struct bly_stage *stage, char path[BLY_STAGE_PATH_MAX + 16])
{
    snprintf(path, BLY_STAGE_PATH_MAX + 16, "%s/server.log", stage->root);
}

static void become_server(const struct bly_stage *stage, const char *bailey, int out_fd)
{
    const char *const argv[] = {bailey, "exec-server", "--listen", "ws://127.0.0.1:0", NULL};
    char log[BLY_STAGE_PATH_MAX + 16];
    int log_fd;

    /* Whatever ends the demo ends the server. */
    (void)prctl(PR_SET_PDEATHSIG, SIGINT);
    log_path(stage, log);
    log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log_fd < 0 || dup2(log_fd, STDERR_FILENO) < 0 || dup2(out_fd, STDOUT_FILENO) < 0)
        _exit(126);
    execv(bailey, (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* Reads the server's one line. */
static int read_url(int fd, char *url, size_t size, struct bly_err *err)
{
    size_t len = 0;

    for (;;) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        ssize_t n = poll(&pfd, 1, START_MS) == 1 ? read(fd, url + len, 1) : -1;

        if (n <= 0 || len + 2 > size)
            return bly_fail(err, BLY_ERR_SPAWN, EIO, "the server did not say where it listens");
        if (url[len] == '\n')
            break;
        len++;
    }
    url[len] = '\0';
    return 0;
}

/* Why the server did not start is in its log. */
static void show_log(const struct bly_stage *stage)
{
    char path[BLY_STAGE_PATH_MAX + 16], text[4096];
    bly_autofd int fd = -EBADF;
    ssize_t n;

    log_path(stage, path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (n > 0)
        fwrite(text, 1, (size_t)n, stderr);
}

int bly_stage_start_server(struct bly_stage *stage, const char *bailey, struct bly_err *err)
{
    int ends[2];
    int r;

    if (access(bailey, X_OK) < 0)
        return bly_fail_sys(err, errno, "cannot execute %s", bailey);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return bly_fail_sys(err, errno, "cannot make a pipe");

    stage->server = fork();
    if (stage->server == 0)
        become_server(stage, bailey, ends[1]);
    bly_close(ends[1]);
    r = stage->server < 0 ? bly_fail_sys(err, errno, "cannot fork")
                          : read_url(ends[0], stage->url, sizeof(stage->url), err);
    if (stage->server < 0)
        stage->server = 0;
    bly_close(ends[0]);
    if (r < 0)
        show_log(stage);
    return r;
}

static bool has_ended(int pid_fd)
{
    struct pollfd pfd = {.fd = pid_fd, .events = POLLIN};

    return poll(&pfd, 1, STOP_MS) == 1;
}

static void stop_server(struct bly_stage *stage)
{
    bly_autofd int pid_fd = -EBADF;

    if (stage->server <= 0)
        return;
    pid_fd = (int)syscall(SYS_pidfd_open, stage->server, 0);
    kill(stage->server, SIGINT);
    if (pid_fd < 0 || !has_ended(pid_fd))
        kill(stage->server, SIGKILL);
    while (waitpid(stage->server, NULL, 0) < 0 && errno == EINTR)
        ;
    stage->server = 0;
}

void bly_stage_end(struct bly_stage *stage, bool keep)
{
    stop_server(stage);
    if (stage->root[0] && !keep)
        remove_tree(stage->root);
}
