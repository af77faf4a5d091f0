/* The beginning of a WebSocket: an HTTP request, answered, and perhaps an upgrade. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "transport/conn_internal.h"
#include "transport/http.h"

void bly_conn_tell_refused(const struct bly_conn *conn, int status)
{
    const struct bly_endpoint *endpoint = conn->endpoint;

    if (endpoint->ops.refused)
        endpoint->ops.refused(endpoint->arg, conn->peer, status);
}

/* Whether there is room, and the owner says so. */
static bool is_welcome(const struct bly_endpoint *endpoint, bool (*ask)(void *arg))
{
    return endpoint->n_welcome <= endpoint->limits->connections && (!ask || ask(endpoint->arg));
}

static const struct bly_http_verdict *judge_http(const struct bly_endpoint *endpoint, int parsed,
                                                 const char *head,
                                                 const struct bly_http_request *request)
{
    const struct bly_http_terms terms = {
        .ready = is_welcome(endpoint, endpoint->ops.ready),
        .welcome = is_welcome(endpoint, endpoint->ops.welcome),
        .metrics = endpoint->ops.metrics != NULL,
        .any_path = endpoint->any_path,
        .auth = endpoint->ops.auth,
        .now_s = time(NULL),
    };

    return bly_http_judge(parsed, head, request, &terms);
}

static int send_http(struct bly_conn *conn, const struct bly_http_verdict *verdict,
                     const struct bly_http_request *request)
{
    const struct bly_endpoint *endpoint = conn->endpoint;
    bly_autobuf struct bly_buf metrics, answer;
    int r;

    bly_buf_init(&metrics, BLY_HTTP_ANSWER_MAX);
    bly_buf_init(&answer, BLY_HTTP_ANSWER_MAX);
    if (!verdict->body)
        endpoint->ops.metrics(endpoint->arg, &metrics);
    r = metrics.error ? metrics.error : bly_http_answer(verdict, request, &metrics, &answer);
    return r < 0 ? r : bly_outbox_raw(&conn->out, answer.data, answer.len);
}

static void answer_http(struct bly_conn *conn, int parsed, const char *head,
                        const struct bly_http_request *request)
{
    const struct bly_http_verdict *verdict = judge_http(conn->endpoint, parsed, head, request);

    /* That the server is not ready is news about the server. */
    if (verdict->status >= 400 && request->path != BLY_HTTP_READYZ)
        bly_conn_tell_refused(conn, verdict->status);
    if (send_http(conn, verdict, request) < 0)
        bly_conn_gone(conn, "cannot send");
    else if (verdict->status == 101)
        bly_conn_open(conn);
    else
        bly_conn_begin_end(conn, verdict->phrase);
}

/* Keeps what has come of an incomplete head. */
static int keep_head(struct bly_conn *conn, const uint8_t *data, size_t len)
{
    char *head = realloc(conn->head, conn->head_len + len);

    if (!head)
        return -ENOMEM;
    memcpy(head + conn->head_len, data, len);
    conn->head = head;
    conn->head_len += len;
    return 0;
}

void bly_conn_take_head(struct bly_conn *conn, uint8_t *data, size_t len)
{
    struct bly_http_request request = {0};
    bly_autofree uint8_t *kept = NULL;
    size_t used = 0;
    int r;

    if (conn->head_len > 0) {
        if (keep_head(conn, data, len) < 0) {
            bly_conn_gone(conn, "out of memory");
            return;
        }
        data = (uint8_t *)conn->head;
        len = conn->head_len;
    }

    r = bly_http_parse((const char *)data, len, &request, &used);
    if (r == -EAGAIN) {
        if (conn->head_len == 0 && keep_head(conn, data, len) < 0)
            bly_conn_gone(conn, "out of memory");
        return;
    }

    kept = (uint8_t *)bly_take_ptr(&conn->head);
    conn->head_len = 0;
    answer_http(conn, r, (const char *)data, &request);
    if (conn->state == BLY_CONN_OPEN)
        conn->framing->take(conn, data + used, len - used);
}
