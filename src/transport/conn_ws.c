/* WebSocket frames on a connection. */
#include <stdio.h>

#include "base/limits.h"
#include "transport/conn_internal.h"

static void init(struct bly_conn *conn)
{
    bly_ws_receiver_init(&conn->in.ws, BLY_WS_SERVER, conn->endpoint->limits->message_bytes);
}

static void deinit(struct bly_conn *conn)
{
    bly_ws_receiver_deinit(&conn->in.ws);
}

static uint8_t *tail(struct bly_conn *conn, size_t *ret_room)
{
    return bly_ws_receiver_tail(&conn->in.ws, ret_room);
}

static void on_peer_close(struct bly_conn *conn, uint16_t code)
{
    snprintf(conn->reason_text, sizeof(conn->reason_text), "closed by the client, code %u", code);
    bly_outbox_close(&conn->out, code, "");
    bly_conn_begin_end(conn, conn->reason_text);
}

static void on_event(struct bly_conn *conn, const struct bly_ws_event *event)
{
    switch (event->type) {
    case BLY_WS_EVENT_MESSAGE:
        conn->endpoint->ops.message(conn->user, conn, event->text, event->len);
        break;
    case BLY_WS_EVENT_PING:
        if (bly_outbox_pong(&conn->out, event->payload, event->payload_len) < 0)
            bly_conn_gone(conn, "cannot send");
        break;
    case BLY_WS_EVENT_CLOSE:
        on_peer_close(conn, event->code);
        break;
    case BLY_WS_EVENT_PONG:
    case BLY_WS_MORE:
        break;
    }
}

static void take(struct bly_conn *conn, uint8_t *data, size_t len)
{
    size_t at = 0;

    while (at < len && conn->state == BLY_CONN_OPEN) {
        struct bly_ws_event event;
        size_t used;

        if (bly_ws_receive(&conn->in.ws, data + at, len - at, &used, &event) < 0) {
            bly_conn_close(conn, event.code, event.reason);
            return;
        }
        at += used;
        on_event(conn, &event);
    }
}

/* Without a closing handshake before: nobody is there to read an answer. */
static void end_of_file(struct bly_conn *conn)
{
    bly_conn_gone(conn, "end of file");
}

static void say_close(struct bly_conn *conn, uint16_t code, const char *reason)
{
    bly_outbox_close(&conn->out, code, reason);
}

const struct bly_framing bly_framing_ws = {
    .init = init,
    .deinit = deinit,
    .tail = tail,
    .take = take,
    .end_of_file = end_of_file,
    .say_close = say_close,
    .is_remote = true,
};
