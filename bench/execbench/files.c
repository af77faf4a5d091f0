#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "execbench/result.h"
#include "execbench/wire.h"
#include "execbench/workload.h"
#include "support.h"

enum {
    CONNECTS_BEFORE = 10, /* that are not measured */
    LEAST = 5,            /* samples, however slow the server is */
    LARGE_BYTES = 8 << 20,
    BLOCK_BYTES = 1 << 20, /* the most one fs/readBlock answers with */
    LEAST_BLOCKS = 3,
};

/* ---- answers ---- */

static int check_contents(struct subject *subject, const struct file_request *request,
                          const struct reply *reply, const char *path)
{
    const struct blob *blob = &subject->ground->kept[request->size];
    struct span text;

    if (!span_member_string(reply->result, "dataBase64", &text))
        return subject_wrong(subject, "no dataBase64 for %s", path);
    if (span_len(text) != blob->text_len || memcmp(text.at, blob->text, blob->text_len) != 0)
        return subject_wrong(subject, "contents differ (%zu characters, expected %zu)",
                             span_len(text), blob->text_len);
    return 0;
}

static int check_written(struct subject *subject, const struct file_request *request,
                         const struct reply *reply, const char *path)
{
    const struct blob *blob = &subject->ground->written[request->size];

    (void)reply;
    if (ground_compare(path, blob->data, blob->len) < 0)
        return subject_wrong(subject, "what was written differs from what is in %s", path);
    return 0;
}

static int check_metadata(struct subject *subject, const struct file_request *request,
                          const struct reply *reply, const char *path)
{
    struct stat st;
    int64_t size, modified;

    (void)request;
    if (stat(path, &st) < 0)
        return subject_wrong(subject, "no %s", path);
    if (!span_member_is(reply->result, "isFile", "true") ||
        !span_member_is(reply->result, "isDirectory", "false"))
        return subject_wrong(subject, "metadata: not a file");
    if (!span_member_number(reply->result, "modifiedAtMs", &modified) ||
        modified != st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000)
        return subject_wrong(subject, "metadata: modifiedAtMs differs");
    if (subject->dialect == 'b' &&
        (!span_member_number(reply->result, "size", &size) || size != st.st_size))
        return subject_wrong(subject, "metadata: size differs");
    return 0;
}

/* The two digits or more behind `prefix` in a name; -1 when it is no such name. */
static long number_behind(struct span name, const char *prefix)
{
    size_t len = strlen(prefix);

    if (span_len(name) <= len || memcmp(name.at, prefix, len) != 0)
        return -1;
    return strtol(name.at + len, NULL, 10);
}

static int check_listed(struct subject *subject, const struct file_request *request,
                        const struct reply *reply, const char *path)
{
    bool seen[GROUND_LISTED] = {false};
    struct span entries, entry = {0}, name;
    size_t n = 0;

    (void)request, (void)path;
    if (!span_member(reply->result, "entries", &entries))
        return subject_wrong(subject, "no entries");
    for (; span_next(entries, &entry); n++) {
        long i = -1;

        if (span_member_string(entry, "fileName", &name))
            i = number_behind(name, "entry-");
        if (i < 0 || i >= GROUND_LISTED || seen[i])
            return subject_wrong(subject, "an entry that is not there, or twice");
        seen[i] = true;
        if (!span_member_is(entry, "isFile", "true") ||
            !span_member_is(entry, "isDirectory", "false"))
            return subject_wrong(subject, "an entry that is not a file");
    }
    return n == GROUND_LISTED
               ? 0
               : subject_wrong(subject, "%zu entries are missing", (size_t)GROUND_LISTED - n);
}

struct walked {
    bool branches[GROUND_BRANCHES];
    bool leaves[GROUND_BRANCHES][GROUND_LEAVES];
};

/* False when the entry is not in the tree, or has been seen already. */
static bool see_walked(struct walked *walked, struct span entry, const char *prefix)
{
    struct span uri, kind;
    long branch, leaf;
    bool *seen;

    if (!span_member_string(entry, "path", &uri) || !span_member_string(entry, "kind", &kind))
        return false;
    branch = number_behind(uri, prefix);
    if (branch < 0 || branch >= GROUND_BRANCHES)
        return false;
    uri.at += strlen(prefix) + strlen("00");
    seen = &walked->branches[branch];
    if (!span_is(kind, "directory")) {
        leaf = number_behind(uri, "/file");
        if (leaf < 0 || leaf >= GROUND_LEAVES)
            return false;
        seen = &walked->leaves[branch][leaf];
    }
    if (*seen)
        return false;
    *seen = true;
    return true;
}

static int check_walked(struct subject *subject, const struct file_request *request,
                        const struct reply *reply, const char *path)
{
    bly_autofree struct walked *walked = bench_alloc(1, sizeof(*walked));
    struct span entries, entry = {0};
    char prefix[GROUND_PATH_MAX + 128];
    size_t n = 0;

    (void)request;
    (void)snprintf(prefix, sizeof(prefix), "file://%s/d", path);
    if (!span_member(reply->result, "entries", &entries) ||
        !span_member_is(reply->result, "truncated", "false"))
        return subject_wrong(subject, "the walk was cut short");
    for (; span_next(entries, &entry); n++) {
        if (!see_walked(walked, entry, prefix))
            return subject_wrong(subject, "an entry that is not there, or twice");
    }
    return n == (size_t)GROUND_BRANCHES * (GROUND_LEAVES + 1)
               ? 0
               : subject_wrong(subject, "the walk found %zu entries", n);
}

/* ---- requests ---- */

const struct file_request file_read_4k = {"fs/readFile", "f4k",   NULL,
                                          MOVES_OUT,     BLOB_4K, check_contents};
const struct file_request file_read_1m = {"fs/readFile", "f1m",   NULL,
                                          MOVES_OUT,     BLOB_1M, check_contents};
const struct file_request file_read_64m = {"fs/readFile", "f64m",   NULL,
                                           MOVES_OUT,     BLOB_64M, check_contents};
const struct file_request file_write_4k = {"fs/writeFile", "out-4k", NULL,
                                           MOVES_IN,       BLOB_4K,  check_written};
const struct file_request file_write_1m = {"fs/writeFile", "out-1m", NULL,
                                           MOVES_IN,       BLOB_1M,  check_written};
const struct file_request file_write_40m = {"fs/writeFile", "out-40m", NULL,
                                            MOVES_IN,       BLOB_40M,  check_written};
const struct file_request file_write_64m = {"fs/writeFile", "out-64m", NULL,
                                            MOVES_IN,       BLOB_64M,  check_written};
const struct file_request file_metadata = {"fs/getMetadata", "f4k", .check = check_metadata};
const struct file_request file_list = {"fs/readDirectory", "listed", .check = check_listed};
const struct file_request file_walk = {
    "fs/walk", "tree",
    ",\"options\":{\"maxDepth\":16,\"maxDirectories\":10000,\"maxEntries\":50000,"
    "\"followDirectorySymlinks\":false}",
    .check = check_walked};

void file_add_params(const struct subject *subject, struct bly_buf *params,
                     const struct file_request *request, const char *root, enum wall wall)
{
    (void)bly_buf_printf(params, "{\"path\":\"%s%s/%s\"", subject_scheme(subject), root,
                         request->name);
    if (request->moves == MOVES_IN) {
        const struct blob *blob = ground_next_write(subject->ground, request->size);

        (void)bly_buf_add_str(params, ",\"dataBase64\":\"");
        (void)bly_buf_add(params, blob->text, blob->text_len);
        (void)bly_buf_add_char(params, '"');
    }
    if (request->members)
        (void)bly_buf_add_str(params, request->members);
    subject_add_wall(subject, params, root, wall);
    (void)bly_buf_add_char(params, '}');
}

/* One request, put together before the clock starts and checked after it has stopped. */
static int file_once(struct subject *subject, const struct workload *workload, double *ret_us)
{
    struct bly_buf *params = subject_params(subject);
    char root[GROUND_PATH_MAX + 64], path[GROUND_PATH_MAX + 128];
    struct reply reply;
    int r;

    if (workload->wall == WALL_COLD)
        ground_cold_path(subject->ground, subject->letter, subject->n_cold++, root);
    else
        (void)snprintf(root, sizeof(root), "%s", subject->ground->workspace);
    (void)snprintf(path, sizeof(path), "%s/%s", root, workload->file->name);
    file_add_params(subject, params, workload->file, root, workload->wall);
    r = subject_call(subject, workload->file->method, params, &reply);
    if (r < 0)
        return r;
    *ret_us = reply.arrived_us - reply.sent_us;
    return workload->file->check(subject, workload->file, &reply, path);
}

static unsigned warm_ups(const struct subject *subject, const struct workload *workload, unsigned n)
{
    size_t bytes = subject->ground->kept[workload->file->size].len;

    if (workload->wall == WALL_COLD || workload->file->size > BLOB_1M || bytes > LARGE_BYTES)
        return 2;
    return n < 30 ? 3 : n > 500 ? 50 : n / 10;
}

int run_file(struct subject *subject, const struct workload *workload, struct result *result,
             unsigned n, double seconds)
{
    unsigned warm = warm_ups(subject, workload, n);
    double us, until;
    int r = workload->wall ? wall_check_files(subject) : 0;

    if (workload->wall == WALL_COLD)
        ground_make_cold(subject->ground, subject->letter, subject->n_cold,
                         subject->n_cold + n + warm);
    until = bench_now_us() + seconds / 2 * 1e6;
    for (unsigned i = 0; i < warm && r == 0 && (i < 2 || bench_now_us() < until); i++)
        r = file_once(subject, workload, &us);
    result_begin(result, subject);
    while (r == 0 && result->n < n && !result_is_enough(result, seconds, LEAST)) {
        r = file_once(subject, workload, &us);
        if (r == 0)
            result_add(result, us);
    }
    if (r < 0)
        return r;
    result_end(result, subject, (double)result->n, workload->wall != WALL_NONE);
    if (workload->file->moves != MOVES_NOTHING)
        result->bytes = (double)(workload->file->moves == MOVES_IN
                                     ? subject->ground->written[workload->file->size].len
                                     : subject->ground->kept[workload->file->size].len);
    return 0;
}

/* ---- a file in blocks ---- */

struct blocks {
    char handle[32];
    size_t at;
    bool is_done;
    double us; /* in requests so far */
};

static int call_timed(struct subject *subject, const char *method, const struct bly_buf *params,
                      struct blocks *blocks, struct reply *ret_reply)
{
    int r = subject_call(subject, method, params, ret_reply);

    if (r == 0)
        blocks->us += ret_reply->arrived_us - ret_reply->sent_us;
    return r;
}

static int read_block(struct subject *subject, const struct blob *blob, struct blocks *blocks)
{
    static uint8_t data[BLOCK_BYTES + 64];
    struct bly_buf *params = subject_params(subject);
    struct reply reply;
    struct span text;
    size_t n = 0;
    int r;

    (void)bly_buf_printf(params, "{\"handleId\":\"%s\",\"offset\":%zu,\"len\":%d}", blocks->handle,
                         blocks->at, BLOCK_BYTES);
    r = call_timed(subject, "fs/readBlock", params, blocks, &reply);
    if (r < 0)
        return r;
    if (!span_member_string(reply.result, "chunk", &text) ||
        span_len(text) > bly_base64_len(BLOCK_BYTES) ||
        bly_base64_decode(text.at, span_len(text), data, &n, NULL) < 0)
        return subject_wrong(subject, "a block without bytes, or with too many");
    if (n > blob->len - blocks->at || memcmp(data, blob->data + blocks->at, n) != 0)
        return subject_wrong(subject, "a block differs at %zu", blocks->at);
    blocks->at += n;
    blocks->is_done = span_member_is(reply.result, "eof", "true");
    return n > 0 || blocks->is_done ? 0 : subject_wrong(subject, "an empty block before the end");
}

/* fs/open, fs/readBlock until the end, fs/close: how a client reads a large file. */
static int blocks_once(struct subject *subject, double *ret_us)
{
    const struct blob *blob = &subject->ground->kept[BLOB_64M];
    struct bly_buf *params = subject_params(subject);
    struct blocks blocks = {0};
    struct reply reply;
    int r;

    (void)snprintf(blocks.handle, sizeof(blocks.handle), "h%u", ++subject->n_programs);
    (void)bly_buf_printf(params,
                         "{\"handleId\":\"%s\",\"path\":\"file://%s/f64m\",\"sandbox\":null}",
                         blocks.handle, subject->ground->workspace);
    r = call_timed(subject, "fs/open", params, &blocks, &reply);
    while (r == 0 && !blocks.is_done)
        r = read_block(subject, blob, &blocks);
    if (r == 0 && blocks.at != blob->len)
        r = subject_wrong(subject, "%zu of %zu bytes in blocks", blocks.at, blob->len);
    if (r < 0)
        return r;
    params = subject_params(subject);
    (void)bly_buf_printf(params, "{\"handleId\":\"%s\"}", blocks.handle);
    r = call_timed(subject, "fs/close", params, &blocks, &reply);
    *ret_us = blocks.us;
    return r;
}

int run_blocks(struct subject *subject, const struct workload *workload, struct result *result,
               unsigned n, double seconds)
{
    double us;
    int r = blocks_once(subject, &us);

    (void)workload;
    result_begin(result, subject);
    while (r == 0 && result->n < n && !result_is_enough(result, seconds, LEAST_BLOCKS)) {
        r = blocks_once(subject, &us);
        if (r == 0)
            result_add(result, us);
    }
    if (r < 0)
        return r;
    result_end(result, subject, (double)result->n, false);
    result->bytes = (double)subject->ground->kept[BLOB_64M].len;
    return 0;
}

/* ---- connections ---- */

static int check_session(struct subject *subject, struct wire *wire)
{
    struct bly_buf *params = subject_params(subject);
    struct reply reply;
    int r;

    file_add_params(subject, params, &file_metadata, subject->ground->workspace, WALL_NONE);
    r = subject_ask(subject, wire, file_metadata.method, params, &reply);
    if (r == 0 && reply.error.at)
        return subject_refused(subject, "after initialize", reply.error);
    return r;
}

int run_connect(struct subject *subject, const struct workload *workload, struct result *result,
                unsigned n, double seconds)
{
    (void)workload;
    for (unsigned i = 0; i < CONNECTS_BEFORE + n; i++) {
        struct wire *wire = NULL;
        double start;
        int r;

        if (i == CONNECTS_BEFORE)
            result_begin(result, subject);
        start = bench_now_us();
        r = subject_session(subject, &wire);
        if (r == 0 && i >= CONNECTS_BEFORE)
            result_add(result, bench_now_us() - start);
        if (r == 0 && i == 0)
            r = check_session(subject, wire);
        wire_free(wire);
        if (r < 0)
            return r;
        if (i > CONNECTS_BEFORE && result_is_enough(result, seconds, LEAST))
            break;
    }
    result_end(result, subject, (double)result->n, true);
    return 0;
}
