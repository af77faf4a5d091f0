/* One JSON text a line: what is spoken on stdin and stdout. The process lives as long as this does.
 */
#include <stdio.h>

#include "base/limits.h"
#include "transport/conn_internal.h"

static void init(struct bly_conn *conn)
{
    bly_line_receiver_init(&conn->in.lines, conn->endpoint->limits->line_bytes);
}

static void deinit(struct bly_conn *conn)
{
    bly_line_receiver_deinit(&conn->in.lines);
}

static uint8_t *tail(struct bly_conn *conn, size_t *ret_room)
{
    (void)conn;
    (void)ret_room;
    return NULL;
}

/* Delivers what was found, or ends the connection; false when nothing more is to be read. */
static bool deliver(struct bly_conn *conn, int r, struct bly_line *line)
{
    if (r < 0) {
        bly_conn_begin_end(conn, bly_line_error_text(r));
        return false;
    }
    if (line->text)
        conn->endpoint->ops.message(conn->user, conn, line->text, line->len);
    return conn->state == BLY_CONN_OPEN;
}

static void take(struct bly_conn *conn, uint8_t *data, size_t len)
{
    size_t at = 0;

    while (at < len) {
        struct bly_line line;
        size_t used = 0;
        int r = bly_line_receive(&conn->in.lines, data + at, len - at, &used, &line);

        at += used;
        if (!deliver(conn, r, &line))
            return;
    }
}

/* Whoever wrote requests into a pipe and closed it still wants the answers. */
static void end_of_file(struct bly_conn *conn)
{
    const struct bly_endpoint *endpoint = conn->endpoint;
    struct bly_line line;

    if (!deliver(conn, bly_line_finish(&conn->in.lines, &line), &line))
        return;
    conn->deaf = endpoint->ops.ended && endpoint->ops.ended(conn->user, conn);
    if (!conn->deaf) {
        bly_conn_begin_end(conn, "end of file");
        return;
    }
    conn->deadline_ms = bly_conn_now_ms(conn) + BLY_CONN_LINGER_MS;
    bly_conn_arm(conn);
}

/* There is no word for it: the end says enough. */
static void say_close(struct bly_conn *conn, uint16_t code, const char *reason)
{
    (void)conn;
    (void)code;
    (void)reason;
}

const struct bly_framing bly_framing_lines = {
    .init = init,
    .deinit = deinit,
    .tail = tail,
    .take = take,
    .end_of_file = end_of_file,
    .say_close = say_close,
};
