#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "floorserve/floor.h"
#include "floorserve/yard.h"
#include "support.h"

enum {
    HEAD_BYTES = 4096, /* everything but contents is found in so many bytes of either end */
    TEXT_BYTES = 96,
    HANDLES = 16,
    BLOCK_MAX = 1 << 20,
};

/* ---- finding what is asked ---- */

bool request_has(struct span message, const char *text)
{
    return memmem(message.at, span_len(message), text, strlen(text));
}

bool request_find(struct span message, const char *key, struct span *ret_value)
{
    const char *at = memmem(message.at, span_len(message), key, strlen(key)), *end;

    if (!at)
        return false;
    at += strlen(key);
    end = memchr(at, '"', (size_t)(message.end - at));
    *ret_value = (struct span){at, end};
    return end;
}

static struct span head_of(struct span message)
{
    if (span_len(message) > HEAD_BYTES)
        message.end = message.at + HEAD_BYTES;
    return message;
}

static struct span tail_of(struct span message)
{
    if (span_len(message) > HEAD_BYTES)
        message.at = message.end - HEAD_BYTES;
    return message;
}

/* The number behind `key`; -1 without one. */
static long find_number(struct span message, const char *key)
{
    const char *at = memmem(message.at, span_len(message), key, strlen(key));

    return at ? strtol(at + strlen(key), NULL, 10) : -1;
}

long request_id(struct span message)
{
    return find_number(head_of(message), "\"id\":");
}

bool request_path(struct span message, const char *key, char path[FLOOR_PATH_MAX])
{
    static const char scheme[] = "file://";
    struct span value;

    if (!request_find(head_of(message), key, &value))
        return false;
    if (span_len(value) > strlen(scheme) && memcmp(value.at, scheme, strlen(scheme)) == 0)
        value.at += strlen(scheme);
    return snprintf(path, FLOOR_PATH_MAX, "%.*s", (int)span_len(value), value.at) < FLOOR_PATH_MAX;
}

/* The context is all that follows: execbench sends it last. */
struct yard *request_yard(struct span message)
{
    static const char key[] = "\"sandbox\":";
    struct span policy = tail_of(message);

    policy.at = memmem(policy.at, span_len(policy), key, strlen(key));
    if (!policy.at)
        return NULL;
    policy.at += strlen(key);
    return *policy.at == 'n' ? NULL : yard_of(policy);
}

/* ---- files ---- */

/* A descriptor, or a negative errno. */
static int open_asked(struct span message, bool writes)
{
    char path[FLOOR_PATH_MAX];
    struct yard *yard = request_yard(message);
    int fd;

    if (!request_path(message, "\"path\":\"", path))
        return -EINVAL;
    if (yard)
        return yard_open(yard, path, writes);
    fd = writes ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)
                : open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void get_metadata(struct conn *conn, struct span message)
{
    char path[FLOOR_PATH_MAX];
    struct yard *yard = request_yard(message);
    long id = request_id(message);
    struct stat st;
    int r = -EINVAL;

    if (request_path(message, "\"path\":\"", path))
        r = yard ? yard_stat(yard, path, &st) : stat(path, &st) < 0 ? -errno : 0;
    if (r < 0) {
        conn_fail(conn, id, -r);
        return;
    }
    conn_answer(conn,
                "{\"id\":%ld,\"result\":{\"isDirectory\":%s,\"isFile\":%s,\"isSymlink\":false,"
                "\"size\":%lld,\"createdAtMs\":0,\"modifiedAtMs\":%lld}}",
                id, S_ISDIR(st.st_mode) ? "true" : "false", S_ISREG(st.st_mode) ? "true" : "false",
                (long long)st.st_size,
                (long long)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000);
}

/* Adds `len` bytes of the file in base64, as pieces that stay in the cache. */
static void add_contents(struct conn *conn, int fd, size_t len, off_t at)
{
    static uint8_t piece[FLOOR_PIECE];

    while (len > 0) {
        size_t n = len < sizeof(piece) ? len : sizeof(piece);

        if (pread(fd, piece, n, at) != (ssize_t)n ||
            bly_buf_reserve(&conn->out, bly_base64_len(n)) < 0)
            bench_die("a file is shorter than it was");
        bly_base64_encode(piece, n, (char *)conn->out.data + conn->out.len);
        conn->out.len += bly_base64_len(n);
        at += (off_t)n;
        len -= n;
        if (len > 0)
            conn_flush(conn);
    }
}

static void read_file(struct conn *conn, struct span message)
{
    static const char tail[] = "\"}}";
    bly_autofd int fd = open_asked(message, false);
    char head[TEXT_BYTES];
    long id = request_id(message);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        conn_fail(conn, id, fd < 0 ? -fd : errno);
        return;
    }
    (void)snprintf(head, sizeof(head), "{\"id\":%ld,\"result\":{\"dataBase64\":\"", id);
    conn_add_head(conn, strlen(head) + bly_base64_len((size_t)st.st_size) + strlen(tail));
    (void)bly_buf_add_str(&conn->out, head);
    add_contents(conn, fd, (size_t)st.st_size, 0);
    (void)bly_buf_add_str(&conn->out, tail);
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n <= 0)
            return -EIO;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static void write_file(struct conn *conn, struct span message)
{
    static uint8_t data[FLOOR_PIECE];
    struct span text;
    long id = request_id(message);
    bly_autofd int fd = -EBADF;
    size_t n = 0;

    if (!request_find(message, "\"dataBase64\":\"", &text) || span_len(text) > sizeof(data) ||
        bly_base64_decode(text.at, span_len(text), data, &n, NULL) < 0) {
        conn_fail(conn, id, EINVAL);
        return;
    }
    fd = open_asked(message, true);
    if (fd < 0 || write_all(fd, data, n) < 0)
        conn_fail(conn, id, fd < 0 ? -fd : EIO);
    else
        conn_answer(conn, "{\"id\":%ld,\"result\":{}}", id);
}

static void add_listed(struct bly_buf *out, const struct dirent *entry, bool is_first)
{
    bool is_directory = entry->d_type == DT_DIR;

    (void)bly_buf_add_str(out, is_first ? "{\"fileName\":\"" : ",{\"fileName\":\"");
    (void)bly_buf_add_str(out, entry->d_name);
    (void)bly_buf_add_str(out, is_directory ? "\",\"isDirectory\":true,\"isFile\":false}"
                                            : "\",\"isDirectory\":false,\"isFile\":true}");
}

static void send_whole(struct conn *conn, const struct bly_buf *message)
{
    conn_add_head(conn, message->len);
    (void)bly_buf_add(&conn->out, message->data, message->len);
}

static void read_directory(struct conn *conn, struct span message)
{
    bly_autobuf struct bly_buf answer;
    int fd = open_asked(message, false);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    bool is_first = true;

    bly_buf_init(&answer, BENCH_BUF_MAX);
    if (!dir) {
        conn_fail(conn, request_id(message), fd < 0 ? -fd : errno);
        (void)bly_close(fd);
        return;
    }
    (void)bly_buf_printf(&answer, "{\"id\":%ld,\"result\":{\"entries\":[", request_id(message));
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        add_listed(&answer, entry, is_first);
        is_first = false;
    }
    (void)closedir(dir);
    (void)bly_buf_add_str(&answer, "]}}");
    send_whole(conn, &answer);
}

/* Adds what a yard has written into a file. */
static int add_file(struct bly_buf *out, int fd)
{
    bly_autofd int owned = fd;
    struct stat st;

    if (fd < 0)
        return fd;
    if (fstat(owned, &st) < 0 || bly_buf_reserve(out, (size_t)st.st_size) < 0 ||
        pread(owned, out->data + out->len, (size_t)st.st_size, 0) != st.st_size)
        return -EIO;
    out->len += (size_t)st.st_size;
    return 0;
}

static void walk(struct conn *conn, struct span message)
{
    bly_autobuf struct bly_buf answer;
    char path[FLOOR_PATH_MAX];
    struct yard *yard = request_yard(message);
    int r = -EINVAL;

    bly_buf_init(&answer, BENCH_BUF_MAX);
    (void)bly_buf_printf(&answer, "{\"id\":%ld,\"result\":", request_id(message));
    if (request_path(message, "\"path\":\"", path))
        r = yard ? add_file(&answer, yard_walk(yard, path)) : walk_tree(path, &answer);
    (void)bly_buf_add_char(&answer, '}');
    if (r < 0)
        conn_fail(conn, request_id(message), -r);
    else
        send_whole(conn, &answer);
}

/* ---- files that stay open ---- */

static struct handle {
    char name[48]; /* "": free */
    int fd;
} handles[HANDLES];

/* The handle a request names; the first free one for "". NULL: none. */
static struct handle *find_handle(struct span name)
{
    for (size_t i = 0; i < HANDLES; i++) {
        if (strlen(handles[i].name) == span_len(name) &&
            memcmp(handles[i].name, name.at, span_len(name)) == 0)
            return &handles[i];
    }
    return NULL;
}

static void open_handle(struct conn *conn, struct span message)
{
    static const char none[] = "";
    struct handle *handle = find_handle((struct span){none, none});
    int fd = open_asked(message, false);
    struct span name;

    if (!handle || fd < 0 || !request_find(message, "\"handleId\":\"", &name)) {
        conn_fail(conn, request_id(message), fd < 0 ? -fd : EMFILE);
        (void)bly_close(fd);
        return;
    }
    (void)snprintf(handle->name, sizeof(handle->name), "%.*s", (int)span_len(name), name.at);
    handle->fd = fd;
    conn_answer(conn, "{\"id\":%ld,\"result\":{\"handleId\":\"%s\"}}", request_id(message),
                handle->name);
}

static void read_block(struct conn *conn, struct span message)
{
    char head[TEXT_BYTES], tail[TEXT_BYTES];
    struct handle *handle = NULL;
    struct span name;
    struct stat st;
    long at = find_number(message, "\"offset\":"), most = find_number(message, "\"len\":");
    size_t len;

    if (request_find(message, "\"handleId\":\"", &name))
        handle = find_handle(name);
    if (!handle || at < 0 || most < 0 || fstat(handle->fd, &st) < 0 || at > st.st_size) {
        conn_fail(conn, request_id(message), EBADF);
        return;
    }
    len = (size_t)(most < BLOCK_MAX ? most : BLOCK_MAX);
    if ((off_t)len > st.st_size - at)
        len = (size_t)(st.st_size - at);
    (void)snprintf(head, sizeof(head), "{\"id\":%ld,\"result\":{\"chunk\":\"", request_id(message));
    (void)snprintf(tail, sizeof(tail), "\",\"eof\":%s}}",
                   at + (off_t)len == st.st_size ? "true" : "false");
    conn_add_head(conn, strlen(head) + bly_base64_len(len) + strlen(tail));
    (void)bly_buf_add_str(&conn->out, head);
    add_contents(conn, handle->fd, len, at);
    (void)bly_buf_add_str(&conn->out, tail);
}

static void close_handle(struct conn *conn, struct span message)
{
    struct handle *handle = NULL;
    struct span name;

    if (request_find(message, "\"handleId\":\"", &name))
        handle = find_handle(name);
    if (!handle) {
        conn_fail(conn, request_id(message), EBADF);
        return;
    }
    (void)close(handle->fd);
    handle->name[0] = '\0';
    conn_answer(conn, "{\"id\":%ld,\"result\":{}}", request_id(message));
}

/* ---- large contents ---- */

/* Symbols in groups of four. */
static void decode(struct large_write *write, const char *text, size_t len)
{
    size_t n = 0;

    if (bly_buf_reserve(&write->decoded, len) < 0 ||
        bly_base64_decode(text, len, write->decoded.data + write->decoded.len, &n, NULL) < 0)
        bench_die("contents that cannot be decoded");
    write->decoded.len += n;
}

/* Takes symbols that may begin and end in the middle of a group. */
static void feed_symbols(struct large_write *write, const char *text, size_t len)
{
    size_t whole;

    while (write->n_rest > 0 && write->n_rest < 4 && len > 0) {
        write->rest[write->n_rest++] = *text++;
        len--;
    }
    if (write->n_rest == 4) {
        decode(write, write->rest, 4);
        write->n_rest = 0;
    }
    if (len == 0)
        return;
    whole = len & ~(size_t)3;
    decode(write, text, whole);
    memcpy(write->rest, text + whole, len - whole);
    write->n_rest = len - whole;
}

/* Finds where the contents begin; returns how much of `data` is in front of that. */
static size_t feed_head(struct large_write *write, const char *data, size_t len)
{
    static const char key[] = "\"dataBase64\":\"";
    size_t before = write->around.len, end;
    const uint8_t *found;

    (void)bly_buf_add(&write->around, data, len < HEAD_BYTES ? len : HEAD_BYTES);
    found = memmem(write->around.data, write->around.len, key, strlen(key));
    if (!found)
        return len;
    end = (size_t)(found - write->around.data) + strlen(key);
    write->around.len = end;
    write->at = LARGE_INSIDE;
    return end - before;
}

void request_feed_large(struct conn *conn, const uint8_t *data, size_t len)
{
    struct large_write *write = &conn->write;
    const char *text = (const char *)data, *end = text + len, *quote;

    if (write->at == LARGE_BEFORE)
        text += feed_head(write, text, len);
    if (write->at == LARGE_INSIDE) {
        quote = memchr(text, '"', (size_t)(end - text));
        feed_symbols(write, text, (size_t)((quote ? quote : end) - text));
        if (!quote)
            return;
        text = quote;
        write->at = LARGE_BEHIND;
    }
    if (write->at == LARGE_BEHIND)
        (void)bly_buf_add(&write->around, text, (size_t)(end - text));
}

void request_end_large(struct conn *conn)
{
    struct large_write *write = &conn->write;
    const char *around = (const char *)write->around.data;
    struct span message = {around, around + write->around.len};
    long id = request_id(message);
    bly_autofd int fd = write->at == LARGE_BEHIND ? open_asked(message, true) : -EINVAL;

    if (fd < 0 || write_all(fd, write->decoded.data, write->decoded.len) < 0)
        conn_fail(conn, id, fd < 0 ? -fd : EIO);
    else
        conn_answer(conn, "{\"id\":%ld,\"result\":{}}", id);
    write->at = LARGE_BEFORE;
    write->n_rest = 0;
    write->around.len = 0;
    write->decoded.len = 0; /* its memory stays: fresh pages would cost more than the work */
}

/* ---- which ---- */

static void initialize(struct conn *conn, struct span message)
{
    conn_answer(conn, "{\"id\":%ld,\"result\":{\"sessionId\":\"floor\"}}", request_id(message));
}

static void ignore(struct conn *conn, struct span message)
{
    (void)conn, (void)message;
}

void request_take(struct conn *conn, struct span message)
{
    static const struct {
        const char *method;
        void (*run)(struct conn *conn, struct span message);
    } methods[] = {
        {"fs/getMetadata", get_metadata},
        {"fs/readFile", read_file},
        {"fs/writeFile", write_file},
        {"fs/readDirectory", read_directory},
        {"fs/walk", walk},
        {"fs/open", open_handle},
        {"fs/readBlock", read_block},
        {"fs/close", close_handle},
        {"process/start", program_start},
        {"process/write", program_write},
        {"process/read", program_read},
        {"process/terminate", program_terminate},
        {"initialize", initialize},
        {"initialized", ignore},
    };
    struct span method = {0};

    if (request_find(head_of(message), "\"method\":\"", &method)) {
        for (size_t i = 0; i < BLY_LEN(methods); i++) {
            if (span_is(method, methods[i].method)) {
                methods[i].run(conn, message);
                return;
            }
        }
    }
    conn_fail(conn, request_id(message), ENOSYS);
}
