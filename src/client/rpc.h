#pragma once

/*
 * The client behind include/bailey/client.h, as its parts see it: one request, one answer.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "bailey/client.h"
#include "base/json.h"

struct bly_buf;
struct bly_err;

/* A parsed message: the document borrows the text. */
struct bly_client_message {
    char *text;
    yyjson_doc *doc;
};
void bly_client_message_deinit(struct bly_client_message *message);
#define bly_automessage __attribute__((cleanup(bly_client_message_deinit)))

int bly_client_error_local(struct bly_client_error *error, int r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* When a call that begins now has to be done. */
uint64_t bly_client_deadline(const struct bly_client *client);
/* A number no other caller gets, nor other clients of the same session. */
uint64_t bly_client_number(struct bly_client *client);

/*
 * Sends a request and waits for its answer. `params` is JSON text. 0 and the answer, whose "result"
 * is *ret_result (never NULL); else as bly_client_call().
 */
int bly_client_request(struct bly_client *client, const char *method, const struct bly_buf *params,
                       uint64_t deadline_ms, struct bly_client_message *ret_answer,
                       yyjson_val **ret_result, struct bly_client_error *ret_error);

/* The next notification `method` whose params.processId is `process_id`, kept ones first; others
 * are kept. 0; -ETIMEDOUT; -EPIPE. */
int bly_client_await_process(struct bly_client *client, const char *process_id,
                             uint64_t deadline_ms, struct bly_client_message *ret_message,
                             struct bly_client_error *ret_error);
