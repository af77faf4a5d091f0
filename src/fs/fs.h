#pragma once

/*
 * File operations as the server asks for them: a request goes in, a reply comes back on the loop.
 * Without a policy it runs on a pool thread (direct), with one in a warm helper inside a wall
 * (sandboxed); both call fs/ops, so there is one implementation of each operation. Loop thread
 * only. Spec: protocol.md 4.4, sandbox.md 5.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"

struct bly_launcher;
struct bly_limits;
struct bly_planner;
struct bly_policy;
struct bly_spawner;
struct bly_watcher;

enum bly_fs_op {
    BLY_FS_READ_FILE,
    BLY_FS_WRITE_FILE,
    BLY_FS_CREATE_DIRECTORY,
    BLY_FS_GET_METADATA,
    BLY_FS_READ_DIRECTORY,
    BLY_FS_REMOVE,
    BLY_FS_COPY,
    BLY_FS_CANONICALIZE,
    BLY_FS_WALK,
    BLY_FS_OPEN,
    BLY_FS_READ_BLOCK,  /* on .fd, never sandboxed: the wall was decided at open */
    BLY_FS_WRITE_BLOCK, /* likewise */
};

struct bly_fs_walk {
    uint64_t max_depth, max_directories,
        max_entries; /* already checked against the protocol's limits */
    bool follow_directory_symlinks, prune_hidden_directories;
};

enum {
    BLY_FS_READ_MAX = 536870912,  /* bytes of a file fs/readFile accepts */
    BLY_FS_DIRECTORY_MAX = 50000, /* entries of fs/readDirectory */
    BLY_FS_WALK_BUDGET = 4194304, /* bytes: path + 64 an entry */
    BLY_FS_BLOCK_MAX = 1048576,
};

/* All pointers are borrowed until `done` has run (or the call was cancelled and `done` would have
 * run). */
struct bly_fs_request {
    enum bly_fs_op op;
    const char *path;             /* normalised; of copy: the source */
    const char *destination_path; /* copy */
    bool recursive, force, no_follow;
    bool replace; /* open: create or truncate for writing; else for reading */
    char *base64; /* write: the payload, decoded in place (the text is destroyed) */
    size_t base64_len;
    struct bly_fs_walk walk;
    int fd; /* blocks */
    uint64_t offset;
    size_t len;
    size_t max_text_bytes; /* read: a base64 text longer than this is refused before reading, see
                              reply */
};

struct bly_fs_metadata {
    bool is_directory, is_file, is_symlink;
    uint64_t size;
    int64_t created_at_ms, modified_at_ms;
};

/*
 * Memory with base64 text in the middle: text = mem + BLY_FS_TEXT_HEAD, and BLY_FS_TEXT_TAIL bytes
 * free behind, so that the answer's JSON can be written around it without a copy.
 */
enum { BLY_FS_TEXT_HEAD = 512, BLY_FS_TEXT_TAIL = 64 };

enum { BLY_FS_ENTRY_FILE = 1, BLY_FS_ENTRY_DIRECTORY = 2, BLY_FS_ENTRY_ERROR = 4 };

struct bly_fs_reply {
    struct bly_err err; /* kind BLY_ERR_NONE: it worked */
    char *text_mem;     /* READ_FILE, READ_BLOCK; owned by the reply, take it with bly_take_ptr */
    size_t text_len;
    bool eof;          /* READ_BLOCK */
    uint64_t too_long; /* READ_FILE: not 0: the text would have this many bytes, above
                          max_text_bytes; nothing was read */
    struct bly_fs_metadata metadata;
    /*
     * READ_DIRECTORY: n_entries times (u8 flags, str name). WALK: (u8 flags, str path, and with
     * BLY_FS_ENTRY_ERROR str message). Read with struct bly_reader.
     */
    struct bly_buf entries;
    size_t n_entries;
    bool truncated; /* WALK */
    char *path;     /* CANONICALIZE; owned by the reply */
    int fd;         /* OPEN: regular file, take it with bly_take_fd; else -EBADF */
};

void bly_fs_reply_init(struct bly_fs_reply *reply);
void bly_fs_reply_deinit(struct bly_fs_reply *reply);

/* The file operations of one session. */
struct bly_fs;

struct bly_fs_config {
    uv_loop_t *loop;
    struct bly_planner *planner;
    struct bly_watcher *watcher; /* of the server; NULL: fingerprints are looked at each time */
    const struct bly_limits *limits;
    size_t *n_helpers; /* shared count of all helpers of the server, against limits->helpers */
    uint64_t *n_helper_starts; /* likewise, of those that ever stood; NULL: nobody counts */
    /* The session's spawner, made on first use. */
    int (*spawner)(void *arg, struct bly_spawner **ret_spawner, struct bly_err *err);
    void *arg;
};

int bly_fs_new(const struct bly_fs_config *config, struct bly_fs **ret_fs);

/* Cancels everything, ends the helpers; `done` when all is gone. */
void bly_fs_close(struct bly_fs *fs, void (*done)(void *arg), void *arg);

/*
 * The sandbox context for a policy, which is referenced: equal policies give the same context, and
 * at once when it is the policy that was given for it last. NULL for a policy that wants no file
 * wall. Requests of one context are carried out in the order they were submitted; it is the lane
 * for the server's ordering rule. Borrowed: valid until the loop turns, and as long as a call of it
 * is under way.
 */
struct bly_fs_context;
int bly_fs_context(struct bly_fs *fs, struct bly_policy *policy,
                   struct bly_fs_context **ret_context);

struct bly_fs_call;
typedef void (*bly_fs_done)(void *arg,
                            struct bly_fs_reply *reply); /* reply: valid during the call */

/* `context` NULL: direct. 0: `done` comes once, from the loop, never from inside this call.
 * -ENOMEM. */
int bly_fs_submit(struct bly_fs *fs, struct bly_fs_context *context,
                  const struct bly_fs_request *request, bly_fs_done done, void *arg,
                  struct bly_fs_call **ret_call);

/*
 * The client is gone. `done` still comes, when the request no longer touches its borrowed memory:
 * reads stop at once, changes under way are completed if that is short, else stop at the next entry
 * or block (a helper that does not stop within a second is killed).
 */
void bly_fs_cancel(struct bly_fs_call *call);
