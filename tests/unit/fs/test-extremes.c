#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "fs/oneshot.h"
#include "fs/ops.h"
#include "sandbox/policy/policy.h"
#include "script.h"

/* Deep, wide, large, growing, cancelled, and the answers of the kernel that need a set-up. */

static char *directory;

static int make_directory(void **state)
{
    (void)state;
    umask(022);
    /* A hundred thousand files are made in here: in memory if that is possible. */
    directory = script_directory_in(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    script_cleanup(directory);
    return 0;
}

static char *path_of(const char *name)
{
    char *path = NULL;

    assert_true(asprintf(&path, "%s/%s", directory, name) > 0);
    return path;
}

static int run_op(struct bly_view view, struct bly_fs_request request, struct bly_fs_reply *reply)
{
    request.force = true;
    request.recursive = true;
    request.max_text_bytes = request.max_text_bytes ? request.max_text_bytes : SIZE_MAX;
    return bly_fs_run(&view, &request, reply);
}

static void make_deep(const char *name, int levels)
{
    bly_autofree char *path = path_of(name);
    int fd;

    assert_int_equal(mkdir(path, 0755), 0);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < levels; i++) {
        int below, file;

        assert_int_equal(mkdirat(fd, "d", 0755), 0);
        file = openat(fd, i % 2 ? "a" : "z", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        assert_true(file >= 0);
        close(file);
        below = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(below >= 0);
        close(fd);
        fd = below;
    }
    close(fd);
}

static size_t depth_of(const char *name)
{
    bly_autofree char *path = path_of(name);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t n = 0;

    while (fd >= 0) {
        int below = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        close(fd);
        fd = below;
        n++;
    }
    return n;
}

static void deep_in(const char *rules, int levels)
{
    bly_autofree char *deep = path_of("deep"), *copy = path_of("copy");
    struct bly_policy *policy = rules ? script_policy(directory, rules) : NULL;
    struct bly_view view = {.policy = policy};
    struct bly_fs_reply reply;
    struct rlimit few = {.rlim_cur = 128, .rlim_max = 128}, old;

    make_deep("deep", levels);
    getrlimit(RLIMIT_NOFILE, &old);
    few.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_NOFILE, &few);

    assert_int_equal(
        run_op(view,
               (struct bly_fs_request){.op = BLY_FS_COPY, .path = deep, .destination_path = copy},
               &reply),
        0);
    bly_fs_reply_deinit(&reply);
    assert_int_equal(depth_of("copy"), levels + 1);
    assert_int_equal(
        run_op(view, (struct bly_fs_request){.op = BLY_FS_REMOVE, .path = deep}, &reply), 0);
    bly_fs_reply_deinit(&reply);
    assert_int_equal(
        run_op(view, (struct bly_fs_request){.op = BLY_FS_REMOVE, .path = copy}, &reply), 0);
    bly_fs_reply_deinit(&reply);
    assert_int_not_equal(access(deep, F_OK), 0);
    assert_int_not_equal(access(copy, F_OK), 0);
    setrlimit(RLIMIT_NOFILE, &old);
    bly_policy_unref(policy);
}

static void deep_trees(void **state)
{
    (void)state;
    deep_in(NULL, 12000);
}

static void deep_trees_with_a_policy(void **state)
{
    (void)state;
    deep_in("ro /\nrw $T", 12000);
}

/* Every name is judged, with all the names above it, which is slow: not as deep. */
static void deep_trees_with_a_glob(void **state)
{
    (void)state;
    deep_in("ro /\nrw $T\nglob $T/**/*.env", 300);
}

static void make_files(const char *name, size_t n)
{
    bly_autofree char *path = path_of(name);
    int fd;

    assert_int_equal(mkdir(path, 0755), 0);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < n; i++) {
        char file[32];

        snprintf(file, sizeof file, "file-%zu", i);
        assert_int_equal(mknodat(fd, file, S_IFREG | 0644, 0), 0);
    }
    close(fd);
}

static void wide_directories(void **state)
{
    struct bly_view view = {0};
    struct bly_fs_reply reply;
    bly_autofree char *wide = path_of("wide"), *one = path_of("wide/file-7");

    (void)state;
    make_files("wide", BLY_FS_DIRECTORY_MAX + 1);
    run_op(view, (struct bly_fs_request){.op = BLY_FS_READ_DIRECTORY, .path = wide}, &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_LIMIT);
    assert_string_equal(reply.err.text, "fs/readDirectory returned 50001 entries; limit is 50000");
    bly_fs_reply_deinit(&reply);

    assert_int_equal(unlink(one), 0);
    run_op(view, (struct bly_fs_request){.op = BLY_FS_READ_DIRECTORY, .path = wide}, &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_NONE);
    assert_int_equal(reply.n_entries, BLY_FS_DIRECTORY_MAX);
    bly_fs_reply_deinit(&reply);

    /* The budget of a walk: path + 64 bytes an entry. */
    run_op(view,
           (struct bly_fs_request){
               .op = BLY_FS_WALK, .path = wide, .walk = {64, 10000, 50000, false, false}},
           &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_NONE);
    assert_true(reply.truncated);
    assert_in_range(reply.n_entries, BLY_FS_WALK_BUDGET / (strlen(wide) + 12 + 64),
                    BLY_FS_WALK_BUDGET / (strlen(wide) + 7 + 64));
    bly_fs_reply_deinit(&reply);

    assert_int_equal(
        run_op(view, (struct bly_fs_request){.op = BLY_FS_REMOVE, .path = wide}, &reply), 0);
    bly_fs_reply_deinit(&reply);
    assert_int_not_equal(access(wide, F_OK), 0);
}

/* Makes or checks n directories NAME/I/in. */
static void each_of_bush(const char *name, bool make)
{
    for (int i = 0; i < 3000; i++) {
        char inner[64];
        bly_autofree char *path = NULL;

        snprintf(inner, sizeof inner, "%s/%d", name, i);
        path = path_of(inner);
        if (make)
            assert_int_equal(mkdir(path, 0755), 0);
        free(path);
        snprintf(inner, sizeof inner, "%s/%d/in", name, i);
        path = path_of(inner);
        assert_int_equal(make ? mkdir(path, 0755) : access(path, F_OK), 0);
    }
}

/* Many directories with something in them: the reading of a directory goes on after each. */
static void bushy_tree(void **state)
{
    struct bly_view view = {0};
    struct bly_fs_reply reply;
    bly_autofree char *bush = path_of("bush"), *copy = path_of("copy");

    (void)state;
    mkdir(bush, 0755);
    each_of_bush("bush", true);
    assert_int_equal(
        run_op(view,
               (struct bly_fs_request){.op = BLY_FS_COPY, .path = bush, .destination_path = copy},
               &reply),
        0);
    bly_fs_reply_deinit(&reply);
    each_of_bush("copy", false);
    assert_int_equal(
        run_op(view, (struct bly_fs_request){.op = BLY_FS_REMOVE, .path = bush}, &reply), 0);
    bly_fs_reply_deinit(&reply);
    assert_int_not_equal(access(bush, F_OK), 0);
}

static void make_sparse(const char *path, off_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "begin", 5, 0), 5);
    assert_int_equal(pwrite(fd, "middle", 6, size / 2), 6);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static void sparse_files(void **state)
{
    struct bly_view view = {0};
    struct bly_fs_reply reply;
    bly_autofree char *from = path_of("from"), *to = path_of("to");
    off_t size = (off_t)1 << 40;
    struct stat st;
    char text[7] = "";
    int fd;

    (void)state;
    make_sparse(from, size);
    assert_int_equal(
        run_op(view,
               (struct bly_fs_request){.op = BLY_FS_COPY, .path = from, .destination_path = to},
               &reply),
        0);
    bly_fs_reply_deinit(&reply);
    assert_int_equal(stat(to, &st), 0);
    assert_true(st.st_size == size);
    assert_in_range(st.st_blocks, 1, 1024);
    fd = open(to, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, text, 6, size / 2), 6);
    close(fd);
    assert_string_equal(text, "middle");

    run_op(view, (struct bly_fs_request){.op = BLY_FS_READ_FILE, .path = from}, &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_INVALID);
    assert_string_equal(reply.err.text, "file is too large to read: limit is 536870912 bytes");
    bly_fs_reply_deinit(&reply);
}

static void a_large_file_comes_back_whole(void **state)
{
    static const size_t sizes[] = {1, 2, 3, 4, 5, 65535, 65536, 65537, 3000001};
    bly_autofree char *path = path_of("f");
    struct bly_view view = {0};

    (void)state;
    for (size_t i = 0; i < BLY_LEN(sizes); i++) {
        size_t n = sizes[i], got;
        bly_autofree char *data = malloc(n), *back = malloc(n + 8);
        struct bly_fs_request request = {.op = BLY_FS_WRITE_FILE, .path = path};
        struct bly_fs_reply reply;

        for (size_t at = 0; at < n; at++)
            data[at] = (char)(at * 31 + (at >> 8));
        request.base64_len = bly_base64_len(n);
        request.base64 = malloc(request.base64_len);
        bly_base64_encode(data, n, request.base64);
        assert_int_equal(run_op(view, request, &reply), 0);
        bly_fs_reply_deinit(&reply);
        free(request.base64);

        assert_int_equal(
            run_op(view, (struct bly_fs_request){.op = BLY_FS_READ_FILE, .path = path}, &reply), 0);
        assert_int_equal(reply.text_len, bly_base64_len(n));
        assert_int_equal(
            bly_base64_decode(reply.text_mem + BLY_FS_TEXT_HEAD, reply.text_len, back, &got, NULL),
            0);
        assert_int_equal(got, n);
        assert_memory_equal(back, data, n);
        memset(reply.text_mem, 'x', BLY_FS_TEXT_HEAD);
        memset(reply.text_mem + BLY_FS_TEXT_HEAD + reply.text_len, 'x', BLY_FS_TEXT_TAIL);
        bly_fs_reply_deinit(&reply);
    }
}

static atomic_bool stop;

static void *keep_growing(void *arg)
{
    char block[65536] = {0};
    int fd = open(arg, O_WRONLY | O_APPEND | O_CLOEXEC);

    while (!atomic_load(&stop) && lseek(fd, 0, SEEK_END) < 64 << 20)
        if (write(fd, block, sizeof block) < 0)
            break;
    close(fd);
    return NULL;
}

static void a_file_that_grows_ends(void **state)
{
    bly_autofree char *path = path_of("grow"), *copy = path_of("copy");
    struct bly_view view = {0};
    struct bly_fs_reply reply;
    pthread_t thread;

    (void)state;
    script_setup(directory, "grow=x");
    atomic_store(&stop, false);
    pthread_create(&thread, NULL, keep_growing, path);
    for (int i = 0; i < 20; i++) {
        run_op(view,
               (struct bly_fs_request){
                   .op = BLY_FS_READ_FILE, .path = path, .max_text_bytes = 16 << 20},
               &reply);
        assert_int_equal(reply.err.kind, BLY_ERR_NONE);
        assert_true(reply.text_mem != NULL || reply.too_long > 16 << 20);
        bly_fs_reply_deinit(&reply);
        run_op(view,
               (struct bly_fs_request){.op = BLY_FS_COPY, .path = path, .destination_path = copy},
               &reply);
        assert_int_equal(reply.err.kind, BLY_ERR_NONE);
        bly_fs_reply_deinit(&reply);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}

static void a_cancelled_operation_stops(void **state)
{
    static const enum bly_fs_op ops[] = {BLY_FS_READ_FILE, BLY_FS_READ_DIRECTORY, BLY_FS_REMOVE,
                                         BLY_FS_COPY, BLY_FS_WALK};
    atomic_bool cancelled = true;
    struct bly_view view = {.cancelled = &cancelled};
    bly_autofree char *tree = path_of("t"), *file = path_of("t/a"), *copy = path_of("copy");
    char *wrong;

    (void)state;
    script_setup(directory, "t/a=A t/b=B t/d/c=C");
    for (size_t i = 0; i < BLY_LEN(ops); i++) {
        struct bly_fs_reply reply;

        run_op(view,
               (struct bly_fs_request){.op = ops[i],
                                       .path = ops[i] == BLY_FS_READ_FILE ? file : tree,
                                       .destination_path = copy,
                                       .walk = {64, 10000, 50000, false, false}},
               &reply);
        assert_int_equal(reply.err.kind, BLY_ERR_SYSTEM);
        assert_int_equal(reply.err.sys, ECANCELED);
        bly_fs_reply_deinit(&reply);
    }
    wrong = script_check(directory, "t/a=A t/b=B t/d/c=C !copy/a !copy/d");
    assert_null(wrong);
}

static void files_of_proc(void **state)
{
    struct bly_view view = {0};
    struct bly_fs_reply reply;
    bly_autofree char *copy = path_of("copy");
    struct stat st;

    (void)state;
    run_op(view, (struct bly_fs_request){.op = BLY_FS_READ_FILE, .path = "/proc/self/status"},
           &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_NONE);
    assert_true(reply.text_len > 100);
    bly_fs_reply_deinit(&reply);

    /* Larger than the first buffer. */
    run_op(view, (struct bly_fs_request){.op = BLY_FS_READ_FILE, .path = "/proc/kallsyms"}, &reply);
    if (reply.err.kind == BLY_ERR_NONE)
        assert_true(reply.text_len == 0 || reply.text_len > 65536);
    bly_fs_reply_deinit(&reply);

    run_op(view,
           (struct bly_fs_request){
               .op = BLY_FS_COPY, .path = "/proc/self/status", .destination_path = copy},
           &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_NONE);
    bly_fs_reply_deinit(&reply);
    assert_int_equal(stat(copy, &st), 0);
    assert_true(st.st_size > 100);

    run_op(view, (struct bly_fs_request){.op = BLY_FS_CREATE_DIRECTORY, .path = "/proc/bly-none"},
           &reply);
    assert_int_equal(reply.err.sys, ENOENT);
    bly_fs_reply_deinit(&reply);
}

static void long_names(void **state)
{
    static const char *const rules[] = {NULL, "ro /\nrw $T", "minimal"};
    char name[PATH_MAX * 2];

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rules); i++) {
        struct bly_policy *policy = rules[i] ? script_policy(directory, rules[i]) : NULL;
        struct bly_view view = {.policy = policy};
        bly_autofree char *long_name = NULL, *long_path = NULL;
        struct bly_fs_reply reply;

        memset(name, 'n', sizeof name);
        name[300] = '\0';
        long_name = path_of(name);
        run_op(view, (struct bly_fs_request){.op = BLY_FS_READ_FILE, .path = long_name}, &reply);
        assert_int_equal(reply.err.sys, i < 2 ? ENAMETOOLONG : ENOENT);
        bly_fs_reply_deinit(&reply);

        for (size_t at = 0; at + 2 < sizeof name; at += 2)
            memcpy(name + at, "d/", 2);
        name[sizeof name - 2] = '\0';
        name[sizeof name - 3] = 'e';
        long_path = path_of(name);
        for (int op = BLY_FS_READ_FILE; op <= BLY_FS_OPEN; op++) {
            run_op(view,
                   (struct bly_fs_request){
                       .op = (enum bly_fs_op)op, .path = long_path, .destination_path = long_path},
                   &reply);
            assert_int_equal(reply.err.sys, ENAMETOOLONG);
            bly_fs_reply_deinit(&reply);
        }
        bly_policy_unref(policy);
    }
}

static void a_running_program_is_busy(void **state)
{
    struct bly_view view = {0};
    struct bly_fs_request request = {.op = BLY_FS_WRITE_FILE, .base64_len = 0};
    struct bly_fs_reply reply;
    char self[PATH_MAX] = "", empty[1] = "";

    (void)state;
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    request.path = self;
    request.base64 = empty;
    run_op(view, request, &reply);
    assert_true(reply.err.sys == ETXTBSY || reply.err.sys == EACCES);
    bly_fs_reply_deinit(&reply);
}

static void blocks_of_a_file(void **state)
{
    bly_autofree char *path = path_of("b");
    struct bly_view view = {0};
    struct bly_fs_reply reply;
    char text[] = "YWI=", *mem;
    bool eof;
    size_t len;
    struct bly_err err;
    int fd, out;

    (void)state;
    assert_int_equal(bly_fs_run(&view,
                                &(struct bly_fs_request){
                                    .op = BLY_FS_OPEN, .path = path, .replace = true, .fd = -1},
                                &reply),
                     0);
    out = bly_take_fd(&reply.fd);
    bly_fs_reply_deinit(&reply);
    bly_fs_run(
        &view,
        &(struct bly_fs_request){
            .op = BLY_FS_WRITE_BLOCK, .fd = out, .offset = 3, .base64 = text, .base64_len = 4},
        &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_NONE);
    bly_fs_reply_deinit(&reply);
    strcpy(text, "@@@@");
    bly_fs_run(
        &view,
        &(struct bly_fs_request){
            .op = BLY_FS_WRITE_BLOCK, .fd = out, .offset = 0, .base64 = text, .base64_len = 4},
        &reply);
    assert_int_equal(reply.err.kind, BLY_ERR_PARAMS);
    bly_fs_reply_deinit(&reply);

    assert_int_equal(bly_ops_write_block(out, 0, "x", 0, &err), -EINVAL);
    assert_string_equal(err.text, "file write block length must be between 1 and 1048576");
    assert_int_equal(bly_ops_write_block(out, INT64_MAX, "x", 1, &err), -EFBIG);
    assert_string_equal(err.text, "file write range exceeds the signed 64-bit file offset limit");
    /* A handle for writing cannot be read. */
    assert_int_equal(bly_ops_read_block(out, 0, 1, &mem, &len, &eof, &err), -EBADF);

    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(bly_ops_read_block(fd, 0, 5, &mem, &len, &eof, &err), 0);
    assert_false(eof);
    assert_memory_equal(mem + BLY_FS_TEXT_HEAD, "AAAAYWI=", 8);
    free(mem);
    assert_int_equal(bly_ops_read_block(fd, 3, 3, &mem, &len, &eof, &err), 0);
    assert_true(eof);
    assert_memory_equal(mem + BLY_FS_TEXT_HEAD, "YWI=", 4);
    free(mem);
    assert_int_equal(bly_ops_read_block(fd, UINT64_MAX, 3, &mem, &len, &eof, &err), 0);
    assert_true(eof);
    assert_int_equal(len, 0);
    free(mem);
    assert_int_equal(bly_ops_read_block(fd, 0, BLY_FS_BLOCK_MAX + 1, &mem, &len, &eof, &err),
                     -EINVAL);
    assert_string_equal(err.text, "file read block length must be between 1 and 1048576");
    assert_int_equal(bly_ops_write_block(fd, 0, "x", 1, &err), -EBADF);
    close(fd);
    close(out);
}

static void times_are_milliseconds(void **state)
{
    bly_autofree char *path = path_of("a");
    struct timespec times[2] = {{.tv_sec = 1600000000, .tv_nsec = 123456789},
                                {.tv_sec = 1600000001, .tv_nsec = 987654321}};
    struct bly_view view = {0};
    struct bly_fs_reply reply;

    (void)state;
    script_setup(directory, "a=x");
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    run_op(view, (struct bly_fs_request){.op = BLY_FS_GET_METADATA, .path = path}, &reply);
    assert_true(reply.metadata.modified_at_ms == 1600000001987);
    assert_true(reply.metadata.created_at_ms == 0 || reply.metadata.created_at_ms > 1600000001987);
    bly_fs_reply_deinit(&reply);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(deep_trees),
        TEST(deep_trees_with_a_policy),
        TEST(deep_trees_with_a_glob),
        TEST(wide_directories),
        TEST(bushy_tree),
        TEST(sparse_files),
        TEST(a_large_file_comes_back_whole),
        TEST(a_file_that_grows_ends),
        TEST(a_cancelled_operation_stops),
        TEST(files_of_proc),
        TEST(long_names),
        TEST(a_running_program_is_busy),
        TEST(blocks_of_a_file),
        TEST(times_are_milliseconds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
