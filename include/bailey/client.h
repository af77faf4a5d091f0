#pragma once

/*
 * Client library for exec servers that speak the Codex exec-server protocol over WebSocket (TCP
 * or a Unix socket) or a child's standard input and output.
 * Synchronous: a call sends one request and waits for its answer; notifications that arrive
 * meanwhile are kept in order. One client belongs to one thread at a time. No global state.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLY_API __attribute__((visibility("default")))

struct bly_client;

struct bly_client_error {
    int code; /* JSON-RPC code of the server's error answer, 0 for a local failure */
    char message[4608];
};

/*
 * Connects to "ws://HOST:PORT[/path]" or "unix:///PATH", upgrades, initializes (a new session, or
 * `resume_session_id`). `timeout_ms` bounds this and every later call. NULL: *ret_error says why.
 * The caller frees with bly_client_free().
 */
BLY_API struct bly_client *bly_client_connect(const char *url, const char *resume_session_id,
                                              int timeout_ms, struct bly_client_error *ret_error);
/*
 * Starts a server that speaks on its standard input and output, say {"bailey", "exec-server",
 * "--listen", "stdio", NULL}; argv[0] is looked up in PATH. The server, its session and all it has
 * started end with the client. NULL: *ret_error says why.
 */
BLY_API struct bly_client *bly_client_spawn(const char *const *argv, int timeout_ms,
                                            struct bly_client_error *ret_error);
/* Drops the connection; the session detaches. NULL is fine. */
BLY_API void bly_client_free(struct bly_client *client);
/* The same; for a server that was started, waits for it (and kills it after the timeout) and
 * returns its wait status as in waitpid(2), or -1 when it had to be killed. Otherwise 0. */
BLY_API int bly_client_end(struct bly_client *client);
BLY_API const char *bly_client_session_id(const struct bly_client *client); /* borrowed */

/*
 * Any method. `params_json` is a JSON object text. 0 and the result's JSON text (malloc'ed,
 * NUL-terminated); -EREMOTEIO: the server answered with an error, in *ret_error; another negative
 * errno: local failure.
 */
BLY_API int bly_client_call(struct bly_client *client, const char *method, const char *params_json,
                            char **ret_result_json, struct bly_client_error *ret_error);

/* Typed calls. `sandbox_json` (may be NULL: no wall) is the JSON text of the `sandbox` member.
 * Paths are absolute native paths. Results are malloc'ed. Return as bly_client_call(). */
BLY_API int bly_client_read_file(struct bly_client *client, const char *path,
                                 const char *sandbox_json, uint8_t **ret_data, size_t *ret_len,
                                 struct bly_client_error *ret_error);
BLY_API int bly_client_write_file(struct bly_client *client, const char *path, const void *data,
                                  size_t len, const char *sandbox_json,
                                  struct bly_client_error *ret_error);
BLY_API int bly_client_create_directory(struct bly_client *client, const char *path, bool recursive,
                                        const char *sandbox_json,
                                        struct bly_client_error *ret_error);
BLY_API int bly_client_remove(struct bly_client *client, const char *path, bool recursive,
                              bool force, const char *sandbox_json,
                              struct bly_client_error *ret_error);
BLY_API int bly_client_copy(struct bly_client *client, const char *source, const char *destination,
                            bool recursive, const char *sandbox_json,
                            struct bly_client_error *ret_error);
struct bly_client_metadata {
    bool is_directory, is_file, is_symlink;
    uint64_t size;
    int64_t modified_at_ms;
};
BLY_API int bly_client_metadata(struct bly_client *client, const char *path,
                                const char *sandbox_json, struct bly_client_metadata *ret_metadata,
                                struct bly_client_error *ret_error);

/* Runs a program to its end. Every output chunk goes to `output` as it arrives. */
struct bly_client_run {
    const char *const *argv; /* NULL-terminated */
    const char *const
        *envp; /* NULL-terminated "NAME=value", exactly this; NULL: the server's own */
    const char *cwd;
    bool tty;
    const char *sandbox_json; /* NULL: no wall */
    void (*output)(void *arg, const char *stream, const uint8_t *data,
                   size_t len); /* may be NULL */
    void *arg;
};
struct bly_client_exit {
    int exit_code;
    bool sandbox_denied;
};
BLY_API int bly_client_run(struct bly_client *client, const struct bly_client_run *run,
                           struct bly_client_exit *ret_exit, struct bly_client_error *ret_error);

/*
 * The next notification (method and params JSON text, both malloc'ed), waiting up to timeout_ms (0:
 * only what is here). 0; -ETIMEDOUT; -EPIPE: the connection has ended. A message that is neither a
 * notification nor the answer to a call (say, the answer to a raw message) comes out here too, with
 * an empty method and the whole message as params.
 */
BLY_API int bly_client_next_notification(struct bly_client *client, int timeout_ms,
                                         char **ret_method, char **ret_params_json);

/* For tests that need raw frames: sends one text message as it is, without waiting. */
BLY_API int bly_client_send_raw(struct bly_client *client, const char *text, size_t len);
