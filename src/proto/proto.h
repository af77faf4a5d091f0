#pragma once

/*
 * Requests and replies <-> JSON, both dialects. `decode` turns params into a plain struct and
 * checks all that can be checked without the world (BLY_ERR_PARAMS and the method's own -32600
 * checks); nothing behind it sees JSON. Dialects differ field by field, never by connection (spec
 * 0.3). Strings in decoded structs are owned by the struct's arena or borrowed from the document,
 * which must outlive it. Pure; any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

#include "fs/fs.h"
#include "fs/missing.h"

struct bly_buf;
struct bly_err;
struct bly_policy;
struct bly_policy_env;
struct bly_process_state;
struct bly_ring;
struct bly_rpc_id;

/* fs/...: one decoder for all, `op` says which. */
struct bly_fs_params {
    struct bly_fs_request request; /* paths point into this struct's own memory */
    char *path, *destination_path; /* owned */
    const char *handle_id;         /* open, blocks, close: borrowed */
    size_t handle_id_len;
    struct bly_policy *policy; /* one reference; NULL: no sandbox member (or null) */
};
int bly_proto_decode_fs(enum bly_fs_op op, yyjson_val *params, const struct bly_policy_env *env,
                        struct bly_fs_params *ret, struct bly_err *err);
/* fs/close: only the handle id. */
int bly_proto_decode_close(yyjson_val *params, struct bly_fs_params *ret, struct bly_err *err);
void bly_fs_params_deinit(struct bly_fs_params *params);

/* fs/watchMissing. */
struct bly_watch_params {
    uint64_t watch_id;
    char *missing[BLY_MISSING_PATHS_MAX]; /* owned */
    size_t n_missing;
    char *present; /* owned; NULL: none */
    bool hopeless; /* too many paths or none, or one that no file here can have: not watched */
};
int bly_proto_decode_watch(yyjson_val *params, struct bly_watch_params *ret, struct bly_err *err);
void bly_watch_params_deinit(struct bly_watch_params *params);
/* The whole notification. */
int bly_proto_add_missing_changed(struct bly_buf *buf, uint64_t watch_id);

/* capabilityRoots/discoverV1; what comes of it is in proto/discovery.h. */
enum { BLY_DISCOVER_ROOTS_MAX = 128 };
struct bly_discover_root {
    const char *id, *path_text; /* borrowed, may contain NUL */
    size_t id_len, path_text_len;
    char *path;                /* owned; NULL: no file here can have such a path, and */
    char *reason;              /* owned: why */
    struct bly_policy *policy; /* one reference; NULL: no sandbox */
};
struct bly_discover_params {
    struct bly_discover_root *roots; /* owned */
    size_t n_roots;
};
int bly_proto_decode_discover(yyjson_val *params, const struct bly_policy_env *env,
                              struct bly_discover_params *ret, struct bly_err *err);
void bly_discover_params_deinit(struct bly_discover_params *params);

/* capabilities/discoverV2: checked, and nothing of it is needed. */
int bly_proto_decode_discover_installed(yyjson_val *params, const struct bly_policy_env *env,
                                        struct bly_err *err);

/* environmentConfig/read: likewise. */
struct bly_config_params {
    const char *refusal; /* static; NULL: none. -32602 like any other, but after the handshake */
};
int bly_proto_decode_config_read(yyjson_val *params, struct bly_config_params *ret,
                                 struct bly_err *err);

struct bly_initialize_params {
    const char *client_name;
    size_t client_name_len;
    const char *resume_session_id; /* NULL when absent; borrowed */
    size_t resume_session_id_len;
};
int bly_proto_decode_initialize(yyjson_val *params, struct bly_initialize_params *ret,
                                struct bly_err *err);

struct bly_start_params {
    const char *process_id; /* borrowed, may contain NUL */
    size_t process_id_len;
    char **argv; /* NULL-terminated, owned; at least one element */
    size_t argc;
    char *arg0;  /* owned or NULL */
    char *cwd;   /* owned, normalised */
    char **envp; /* NULL-terminated, owned: the finished environment (spec 4.3.2) */
    bool tty, pipe_stdin;
    struct bly_policy *policy; /* from `sandbox`; NULL: none */
};
/* `server_env` is the server's own environment for envPolicy (NULL-terminated "NAME=value"). NUL
 * bytes in argv, arg0 or env: kind BLY_ERR_SPAWN, "nul byte found in provided data". A recognised
 * 0.121 sandbox wrapper is unwrapped into policy, argv and cwd; what cannot be parsed is refused.
 */
int bly_proto_decode_start(yyjson_val *params, const struct bly_policy_env *env,
                           char *const *server_env, struct bly_start_params *ret,
                           struct bly_err *err);
void bly_start_params_deinit(struct bly_start_params *params);

struct bly_process_params {
    const char *process_id; /* borrowed */
    size_t process_id_len;
    uint64_t after_seq, max_bytes, wait_ms; /* read; max_bytes UINT64_MAX: no limit given */
    bool has_max_bytes;
    char *data; /* write: decoded in place in the document; borrowed */
    size_t data_len;
    const char *write_id; /* write: NULL when absent; NUL-terminated, borrowed */
};
int bly_proto_decode_read(yyjson_val *params, struct bly_process_params *ret, struct bly_err *err);
int bly_proto_decode_write(yyjson_val *params, struct bly_process_params *ret, struct bly_err *err);
int bly_proto_decode_terminate(yyjson_val *params, struct bly_process_params *ret,
                               struct bly_err *err);
int bly_proto_decode_signal(yyjson_val *params, struct bly_process_params *ret,
                            struct bly_err *err);
int bly_proto_decode_nothing(yyjson_val *params,
                             struct bly_err *err); /* environment/...: absent, null or {} */

/*
 * Results: append the value of "result". Return buf->error; -EBADMSG when `reply` has entries that
 * are none. The server writes the base64 texts of READ_FILE and READ_BLOCK with the two below.
 */
int bly_proto_encode_fs(enum bly_fs_op op, const struct bly_fs_params *params,
                        const struct bly_fs_reply *reply, struct bly_buf *buf);
/*
 * The `data` of an error that explains itself, docs/PROTOCOL.md "Denials": nothing when err has no
 * denial. Names only the request's own paths and what stands in its own policy.
 */
int bly_proto_encode_denial(enum bly_fs_op op, const struct bly_fs_params *params,
                            const struct bly_err *err, struct bly_buf *buf);
/*
 * Head and tail around the base64 text of READ_FILE, READ_BLOCK: complete messages, id included.
 * The head is as long as the id wants, so it may not fit into BLY_FS_TEXT_HEAD.
 */
int bly_proto_encode_text_head(enum bly_fs_op op, const struct bly_rpc_id *id, struct bly_buf *buf);
int bly_proto_encode_text_tail(enum bly_fs_op op, const struct bly_fs_reply *reply,
                               struct bly_buf *buf);

struct bly_environment {
    const char *shell_name, *shell_path; /* "bash", "/bin/bash" */
    const char *version;
    const char *provider_id; /* "sha256:..." */
    const char *cwd;
    const char *home;          /* NULL: left out */
    const char *tmpdir;        /* NULL: unset */
    bool http_header_env_vars; /* http/request is served and may use some of our variables */
    unsigned rung;             /* of the ladder of walls (sandbox/enforce/rung.h); 0: left out */
    unsigned landlock;         /* ABI; 0: none */
    const char *rung_reason;   /* why it is not the first rung; NULL: it is */
    const char *codex_home, *hostname; /* environmentConfig/read; NULL: left out */
    bool watches_missing;              /* fs/watchMissing watches */
};
int bly_proto_encode_config(const struct bly_environment *environment, struct bly_buf *buf);
int bly_proto_encode_environment(const struct bly_environment *environment, struct bly_buf *buf);
int bly_proto_encode_initialize(const char *session_id, const struct bly_environment *environment,
                                struct bly_buf *buf);
int bly_proto_encode_start(const char *process_id, size_t len, bool walled, struct bly_buf *buf);
int bly_proto_encode_read(const struct bly_ring *ring, const struct bly_process_state *state,
                          uint64_t after_seq, uint64_t max_bytes, bool has_max_bytes,
                          size_t max_message_bytes, struct bly_buf *buf);
/* Whole notifications. */
int bly_proto_add_output(struct bly_buf *buf, const char *process_id, size_t len, uint64_t seq,
                         int stream, const uint8_t *data, size_t n);
int bly_proto_add_exited(struct bly_buf *buf, const char *process_id, size_t len, uint64_t seq,
                         int exit_code, bool sandbox_denied);
int bly_proto_add_closed(struct bly_buf *buf, const char *process_id, size_t len, uint64_t seq);
