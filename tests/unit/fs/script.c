#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "fs/oneshot.h"
#include "sandbox/policy/policy.h"
#include "script.h"

enum { WORDS_MAX = 16, TEXT_MAX = 262144 };

static char *join(const char *dir, const char *name)
{
    char *path = NULL;

    assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
    return path;
}

char *script_directory_in(const char *base)
{
    char *dir = join(base, "bly-fs-XXXXXX");

    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0755), 0);
    return dir;
}

char *script_directory(void)
{
    return script_directory_in("/tmp");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void script_cleanup(char *dir)
{
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(dir);
}

char *script_expand(const char *dir, const char *text)
{
    char *out = calloc(1, TEXT_MAX);
    size_t n = 0;

    assert_non_null(out);
    for (; *text; text++) {
        if (strncmp(text, "$T", 2) == 0) {
            n += (size_t)snprintf(out + n, TEXT_MAX - n, "%s", dir);
            text++;
        } else {
            out[n++] = *text;
        }
        assert_true(n < TEXT_MAX - 1);
    }
    return out;
}

static void make_parents(const char *path)
{
    char *copy = strdup(path);

    for (char *p = strchr(copy + 1, '/'); p != NULL; p = strchr(p + 1, '/')) {
        *p = '\0';
        (void)mkdir(copy, 0777);
        *p = '/';
    }
    free(copy);
}

static void make_file(const char *path, char *text)
{
    char *colon = strrchr(text, ':');
    mode_t mode = 0644;
    int fd;

    if (colon != NULL) {
        mode = (mode_t)strtoul(colon + 1, NULL, 8);
        *colon = '\0';
    }
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void make_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
}

/* Splits "name OPERATOR rest"; the operator's first character decides. */
static const char *split(char *word, char **ret_rest)
{
    static const char *const operators[] = {"->", "=", "~", "|", "@"};

    for (size_t i = 0; i < BLY_LEN(operators); i++) {
        char *at = strstr(word, operators[i]);

        if (at != NULL) {
            *at = '\0';
            *ret_rest = at + strlen(operators[i]);
            return operators[i];
        }
    }
    *ret_rest = word + strlen(word);
    return "/";
}

void script_setup(const char *dir, const char *setup)
{
    char *text = script_expand(dir, setup), *save = NULL;

    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *rest, *path, *other;
        const char *op = split(word, &rest);

        path = join(dir, word);
        make_parents(path);
        if (*op == '/') {
            path[strlen(path) - 1] = '\0';
            assert_true(mkdir(path, 0777) == 0 || errno == EEXIST);
        } else if (*op == '=') {
            make_file(path, rest);
        } else if (*op == '-') {
            assert_int_equal(symlink(rest, path), 0);
        } else if (*op == '~') {
            other = join(dir, rest);
            assert_int_equal(link(other, path), 0);
            free(other);
        } else if (*op == '|') {
            assert_int_equal(mkfifo(path, 0666), 0);
        } else {
            make_socket(path);
        }
        free(path);
    }
    free(text);
}

__attribute__((format(printf, 1, 2))) static char *complain(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, fmt);
    assert_true(vasprintf(&text, fmt, args) > 0);
    va_end(args);
    return text;
}

static char *check_file(const char *path, const char *name, char *want)
{
    char *colon = strrchr(want, ':');
    char got[4096];
    struct stat st;
    ssize_t n;
    int fd;

    if (colon != NULL)
        *colon = '\0';
    fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return complain("%s cannot be opened: %s", name, strerror(errno));
    n = read(fd, got, sizeof got - 1);
    assert_int_equal(fstat(fd, &st), 0);
    close(fd);
    if (n < 0)
        return complain("%s cannot be read: %s", name, strerror(errno));
    got[n] = '\0';
    if (strcmp(got, want) != 0)
        return complain("%s holds \"%s\"", name, got);
    if (colon != NULL && (st.st_mode & 07777) != strtoul(colon + 1, NULL, 8))
        return complain("%s has another mode", name);
    return NULL;
}

static char *check_word(const char *dir, char *word)
{
    char *rest, *path, *wrong = NULL;
    const char *op = split(word, &rest);
    char target[4096] = "";
    struct stat st;

    path = join(dir, word[0] == '!' ? word + 1 : word);
    if (word[0] == '!') {
        if (lstat(path, &st) == 0)
            wrong = complain("%s exists", word + 1);
    } else if (*op == '=') {
        wrong = check_file(path, word, rest);
    } else if (*op == '-') {
        if (readlink(path, target, sizeof target - 1) < 0 || strcmp(target, rest) != 0)
            wrong = complain("%s leads to \"%s\"", word, target);
    } else if (*op == '|') {
        if (lstat(path, &st) < 0 || !S_ISFIFO(st.st_mode))
            wrong = complain("%s is not a FIFO", word);
    } else {
        path[strlen(path) - 1] = '\0';
        if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode))
            wrong = complain("%s is not a directory", word);
    }
    free(path);
    return wrong;
}

char *script_check(const char *dir, const char *after)
{
    char *text = script_expand(dir, after), *save = NULL, *wrong = NULL;

    for (char *word = strtok_r(text, " ", &save); word && !wrong; word = strtok_r(NULL, " ", &save))
        wrong = check_word(dir, word);
    free(text);
    return wrong;
}

static size_t split_words(char *line, char **words)
{
    size_t n = 0;
    char *save = NULL;

    for (char *w = strtok_r(line, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        assert_true(n < WORDS_MAX);
        words[n++] = w;
    }
    return n;
}

static const struct {
    const char *word;
    enum bly_fs_op op;
    bool replace;
} operations[] = {
    {"read", BLY_FS_READ_FILE, false},
    {"write", BLY_FS_WRITE_FILE, false},
    {"mkdir", BLY_FS_CREATE_DIRECTORY, false},
    {"stat", BLY_FS_GET_METADATA, false},
    {"list", BLY_FS_READ_DIRECTORY, false},
    {"rm", BLY_FS_REMOVE, false},
    {"copy", BLY_FS_COPY, false},
    {"canon", BLY_FS_CANONICALIZE, false},
    {"walk", BLY_FS_WALK, false},
    {"open", BLY_FS_OPEN, false},
    {"replace", BLY_FS_OPEN, true},
};

static char *path_of(const char *dir, const char *word)
{
    char *path;

    if (word[0] == '/')
        return strdup(word);
    if (strcmp(word, ".") == 0)
        return strdup(dir);
    path = join(dir, word);
    return path;
}

static void take_option(struct bly_fs_request *request, const char *word)
{
    unsigned long n = strchr(word, '=') ? strtoul(strchr(word, '=') + 1, NULL, 10) : 0;

    if (strcmp(word, "-r") == 0)
        request->recursive = false;
    else if (strcmp(word, "+r") == 0)
        request->recursive = true;
    else if (strcmp(word, "-f") == 0)
        request->force = false;
    else if (strcmp(word, "nofollow") == 0)
        request->no_follow = true;
    else if (strcmp(word, "follow") == 0)
        request->walk.follow_directory_symlinks = true;
    else if (strcmp(word, "prune") == 0)
        request->walk.prune_hidden_directories = true;
    else if (strncmp(word, "depth=", 6) == 0)
        request->walk.max_depth = n;
    else if (strncmp(word, "dirs=", 5) == 0)
        request->walk.max_directories = n;
    else if (strncmp(word, "entries=", 8) == 0)
        request->walk.max_entries = n;
    else if (strncmp(word, "text=", 5) == 0)
        request->max_text_bytes = n;
    else
        fail_msg("unknown option %s", word);
}

static const char *const errno_names[] = {
    [EPERM] = "EPERM",         [ENOENT] = "ENOENT",       [EIO] = "EIO",
    [ENXIO] = "ENXIO",         [EBADF] = "EBADF",         [EACCES] = "EACCES",
    [EBUSY] = "EBUSY",         [EEXIST] = "EEXIST",       [ENOTDIR] = "ENOTDIR",
    [EISDIR] = "EISDIR",       [EINVAL] = "EINVAL",       [ETXTBSY] = "ETXTBSY",
    [EFBIG] = "EFBIG",         [ENOSPC] = "ENOSPC",       [EROFS] = "EROFS",
    [ELOOP] = "ELOOP",         [ENOTEMPTY] = "ENOTEMPTY", [ENAMETOOLONG] = "ENAMETOOLONG",
    [ECANCELED] = "ECANCELED",
};

static const char *const kind_names[] = {
    [BLY_ERR_PARAMS] = "params",           [BLY_ERR_INVALID] = "invalid",
    [BLY_ERR_DENIED] = "denied",           [BLY_ERR_LIMIT] = "limit",
    [BLY_ERR_REMOTE] = "remote",           [BLY_ERR_BUG] = "bug",
    [BLY_ERR_UNSUPPORTED] = "unsupported", [BLY_ERR_SPAWN] = "spawn",
    [BLY_ERR_SYSTEM] = "system",
};

static void show_error(char *out, size_t size, const struct bly_err *err)
{
    if (err->kind == BLY_ERR_SYSTEM && err->sys < (int)BLY_LEN(errno_names) &&
        errno_names[err->sys] != NULL)
        snprintf(out, size, "%s", errno_names[err->sys]);
    else if (err->kind == BLY_ERR_SYSTEM)
        snprintf(out, size, "errno %d", err->sys);
    else
        snprintf(out, size, "%s: %s", kind_names[err->kind], err->text);
}

static void show_text(char *out, size_t size, const struct bly_fs_reply *reply)
{
    char *data = malloc(reply->text_len + 3);
    size_t n = 0;

    if (reply->too_long > 0) {
        snprintf(out, size, "too long: %llu", (unsigned long long)reply->too_long);
    } else {
        assert_non_null(reply->text_mem);
        assert_int_equal(
            bly_base64_decode(reply->text_mem + BLY_FS_TEXT_HEAD, reply->text_len, data, &n, NULL),
            0);
        snprintf(out, size, "\"%.*s\"", (int)n, data);
    }
    free(data);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names with '/' for directories and '?' for what is neither; sorted unless it is a walk. */
static void show_entries(char *out, size_t size, const char *dir, const struct bly_fs_reply *reply,
                         bool walk)
{
    struct bly_reader reader = bly_reader_of(reply->entries.data, reply->entries.len);
    char **lines = calloc(reply->n_entries + 1, sizeof *lines);
    size_t len = 0, skip = strlen(dir) + 1;

    for (size_t i = 0; i < reply->n_entries; i++) {
        uint8_t flags = bly_get_u8(&reader);
        char *name = bly_get_str(&reader);
        char *message = flags & BLY_FS_ENTRY_ERROR ? bly_get_str(&reader) : NULL;

        assert_non_null(name);
        assert_true(asprintf(&lines[i], "%s%s%s", walk ? name + skip : name,
                             message                          ? "!"
                             : flags & BLY_FS_ENTRY_DIRECTORY ? "/"
                             : flags & BLY_FS_ENTRY_FILE      ? ""
                                                              : "?",
                             message ? message : "") > 0);
        free(name);
        free(message);
    }
    assert_false(reader.bad);
    assert_int_equal(reader.pos, reader.len);
    if (!walk)
        qsort(lines, reply->n_entries, sizeof *lines, by_text);
    len += (size_t)snprintf(out, size, "[");
    for (size_t i = 0; i < reply->n_entries; i++) {
        len += (size_t)snprintf(out + len, size - len, "%s%s", i ? " " : "", lines[i]);
        assert_true(len < size);
        free(lines[i]);
    }
    snprintf(out + len, size - len, "]%s", reply->truncated ? " truncated" : "");
    free(lines);
}

static void show(char *out, size_t size, const char *dir, const struct bly_fs_request *request,
                 struct bly_fs_reply *reply)
{
    const struct bly_fs_metadata *m = &reply->metadata;

    if (reply->err.kind != BLY_ERR_NONE) {
        show_error(out, size, &reply->err);
    } else if (request->op == BLY_FS_READ_FILE) {
        show_text(out, size, reply);
    } else if (request->op == BLY_FS_READ_DIRECTORY || request->op == BLY_FS_WALK) {
        show_entries(out, size, dir, reply, request->op == BLY_FS_WALK);
    } else if (request->op == BLY_FS_CANONICALIZE) {
        snprintf(out, size, "%s", reply->path);
    } else if (request->op == BLY_FS_GET_METADATA) {
        int n = snprintf(out, size, "%s%s%s", m->is_directory ? "directory " : "",
                         m->is_file ? "file " : "", m->is_symlink ? "link " : "");

        if (m->is_file)
            snprintf(out + n, size - (size_t)n, "%llu", (unsigned long long)m->size);
        assert_true(m->modified_at_ms > 1500000000000);
    } else {
        snprintf(out, size, "ok");
    }
}

static void run_step(char *out, size_t size, const char *dir, char *line, script_run run, void *arg)
{
    struct bly_fs_request request = {.force = true, .fd = -EBADF, .max_text_bytes = SIZE_MAX};
    struct bly_fs_reply reply;
    char *words[WORDS_MAX];
    size_t n = split_words(line, words), at = 2, which = 0;
    char *path, *other = NULL;

    assert_true(n >= 2);
    while (which < BLY_LEN(operations) && strcmp(operations[which].word, words[0]) != 0)
        which++;
    assert_true(which < BLY_LEN(operations));
    request.op = operations[which].op;
    request.replace = operations[which].replace;
    request.recursive = request.op != BLY_FS_COPY;
    request.walk =
        (struct bly_fs_walk){.max_depth = 64, .max_directories = 10000, .max_entries = 50000};
    request.path = path = path_of(dir, words[1]);
    if (request.op == BLY_FS_COPY) {
        assert_true(n > at);
        request.destination_path = other = path_of(dir, words[at++]);
    } else if (request.op == BLY_FS_WRITE_FILE) {
        const char *text = n > at ? words[at++] : "";

        if (text[0] == '%') { /* the base64 itself */
            request.base64 = strdup(text + 1);
            request.base64_len = strlen(text) - 1;
        } else {
            request.base64_len = bly_base64_len(strlen(text));
            request.base64 = malloc(request.base64_len + 1);
            bly_base64_encode(text, strlen(text), request.base64);
        }
    }
    while (at < n)
        take_option(&request, words[at++]);

    run(arg, &request, &reply);
    show(out, size, dir, &request, &reply);
    bly_fs_reply_deinit(&reply);
    free(request.base64);
    free(other);
    free(path);
}

char *script_answers(const char *dir, const char *steps, script_run run, void *arg)
{
    char *text = script_expand(dir, steps), *save = NULL;
    char *out = calloc(1, TEXT_MAX);
    size_t len = 0;

    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        run_step(out + len, TEXT_MAX - len - 2, dir, line, run, arg);
        len += strlen(out + len);
        out[len++] = '\n';
        out[len] = '\0';
    }
    free(text);
    return out;
}

void script_forget_openat2(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = BLY_LEN(code), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        abort();
}

int script_in_child(int (*tests)(void))
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0)
        exit(tests());
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

struct bly_policy *script_policy(const char *dir, const char *rules)
{
    char *text = script_expand(dir, rules), *save = NULL;
    char *json = calloc(1, TEXT_MAX);
    struct bly_policy_env env = {.cwd = dir};
    struct bly_policy *policy = NULL;
    struct bly_err err;
    size_t len = 0;

    len += (size_t)snprintf(json, TEXT_MAX,
                            "{\"permissions\":{\"type\":\"managed\",\"network\":\"restricted\","
                            "\"file_system\":{\"type\":\"restricted\",\"entries\":[");
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *words[WORDS_MAX];
        size_t n = split_words(line, words);
        const char *comma = json[len - 1] == '[' ? "" : ",";
        const char *access = words[0][0] == 'd' || words[0][0] == 'g' ? "deny"
                             : strcmp(words[0], "rw") == 0            ? "write"
                                                                      : "read";

        if (n == 1)
            len += (size_t)snprintf(json + len, TEXT_MAX - len,
                                    "%s{\"path\":{\"type\":\"special\",\"value\":{\"kind\":"
                                    "\"%s\"}},\"access\":\"%s\"}",
                                    comma, words[0], access);
        else
            len += (size_t)snprintf(json + len, TEXT_MAX - len,
                                    "%s{\"path\":{\"type\":\"%s\",\"%s\":\"%s\"},"
                                    "\"access\":\"%s\"}",
                                    comma, words[0][0] == 'g' ? "glob_pattern" : "path",
                                    words[0][0] == 'g' ? "pattern" : "path", words[1], access);
    }
    snprintf(json + len, TEXT_MAX - len, "]}},\"cwd\":\"%s\",\"windowsSandboxLevel\":\"disabled\"}",
             dir);
    if (bly_policy_parse_text(json, &env, &policy, &err) < 0)
        fail_msg("%s: %s", err.text, json);
    free(json);
    free(text);
    return policy;
}

void script_check_case(const struct script_case *c, const char *dir, script_run run, void *arg)
{
    char *want = script_expand(dir, c->answers);
    char *got, *wrong;

    got = script_answers(dir, c->steps, run, arg);
    assert_string_equal(got, want);
    wrong = script_check(dir, c->after ? c->after : "");
    if (wrong != NULL)
        fail_msg("%s", wrong);
    free(got);
    free(want);
}
