/* What time does to a connection: handshakes that take too long, pings, silence, probes. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/limits.h"
#include "transport/conn_internal.h"

enum {
    REQUEST_TIMEOUT = 408,
    STALL_MS = 5000, /* a timer that comes later than this says that the whole loop stood still */
};

static const uint64_t NEVER = UINT64_MAX;

uint64_t bly_conn_now_ms(const struct bly_conn *conn)
{
    return uv_now(conn->endpoint->loop);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_deadline(const struct bly_conn *conn)
{
    uint64_t next = NEVER;

    if (conn->state != BLY_CONN_OPEN)
        return conn->owes_close ? 0 : conn->deadline_ms;

    if (conn->framing->is_remote)
        next = earlier(conn->ping_ms, conn->heard_ms + conn->endpoint->limits->silence_ms);
    if (conn->deaf)
        next = earlier(next, conn->deadline_ms);
    for (const struct bly_probe *p = conn->probes; p; p = p->next)
        next = earlier(next, p->since_ms + p->timeout_ms);
    return next;
}

static void on_timer(uv_timer_t *timer);

void bly_conn_arm(struct bly_conn *conn)
{
    uint64_t now = bly_conn_now_ms(conn), next;

    if (conn->state == BLY_CONN_GONE)
        return;
    next = next_deadline(conn);
    conn->due_ms = next > now ? next : now;
    if (next == NEVER)
        uv_timer_stop(&conn->timer);
    else
        uv_timer_start(&conn->timer, on_timer, conn->due_ms - now, 0);
}

/*
 * When the peer last gave a sign of life. While we do not read, pongs cannot reach us; then the
 * kernel's word for it counts: that the other side still acknowledges what it is sent, or, on the
 * same machine, that it has not hung up.
 */
static uint64_t last_heard(const struct bly_conn *conn)
{
    uint64_t heard_ms = conn->heard_ms, now = bly_conn_now_ms(conn);
    struct tcp_info info;
    socklen_t len = sizeof(info);
    uv_os_fd_t fd;

    if (!conn->paused || uv_fileno(&conn->io.handle, &fd) < 0)
        return heard_ms;
    if (conn->io.handle.type != UV_TCP)
        return now;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
        return heard_ms;
    if (info.tcpi_last_ack_recv <= now && now - info.tcpi_last_ack_recv > heard_ms)
        heard_ms = now - info.tcpi_last_ack_recv;
    return heard_ms;
}

static bool shows_life(const struct bly_conn *conn, const struct bly_probe *p)
{
    if (!conn->framing->is_remote)
        return true;
    return conn->paused && last_heard(conn) > p->since_ms;
}

/* Takes the probes out of the list that can be answered now; all of them when something came. */
static struct bly_probe *due_probes(struct bly_conn *conn, bool heard)
{
    struct bly_probe **link = &conn->probes, *due = NULL;

    while (*link) {
        struct bly_probe *p = *link;

        p->alive = heard || shows_life(conn, p);
        if (!p->alive && bly_conn_now_ms(conn) < p->since_ms + p->timeout_ms) {
            link = &p->next;
            continue;
        }
        *link = p->next;
        p->next = due;
        due = p;
    }
    return due;
}

static void answer_probes(struct bly_conn *conn, bool heard)
{
    struct bly_probe *due = due_probes(conn, heard);

    while (due) {
        struct bly_probe *p = due;

        due = p->next;
        p->done(p->arg, p->alive);
        free(p);
    }
}

void bly_conn_heard(struct bly_conn *conn)
{
    conn->heard_ms = bly_conn_now_ms(conn);
    if (conn->probes)
        answer_probes(conn, true);
}

void bly_conn_forget_probes(struct bly_conn *conn)
{
    while (conn->probes) {
        struct bly_probe *next = conn->probes->next;

        free(conn->probes);
        conn->probes = next;
    }
}

static void check_life(struct bly_conn *conn)
{
    const struct bly_limits *limits = conn->endpoint->limits;
    uint64_t now = bly_conn_now_ms(conn);

    conn->heard_ms = last_heard(conn);
    if (now - conn->heard_ms >= limits->silence_ms) {
        snprintf(conn->reason_text, sizeof(conn->reason_text), "silent for %llu ms",
                 (unsigned long long)limits->silence_ms);
        bly_conn_gone(conn, conn->reason_text);
        return;
    }
    if (now >= conn->ping_ms) {
        conn->ping_ms = now + limits->ping_ms;
        if (bly_outbox_ping(&conn->out) < 0)
            bly_conn_gone(conn, "cannot send");
    }
}

static void on_open_timer(struct bly_conn *conn)
{
    answer_probes(conn, false);
    if (conn->state != BLY_CONN_OPEN)
        return;
    if (conn->framing->is_remote)
        check_life(conn);
    else if (conn->deaf && bly_conn_now_ms(conn) >= conn->deadline_ms)
        bly_conn_begin_end(conn, "end of file");
}

static void run_out_of_time(struct bly_conn *conn)
{
    if (conn->state == BLY_CONN_BEGINNING)
        bly_conn_tell_refused(conn, REQUEST_TIMEOUT);
    bly_conn_gone(conn, "out of time");
}

static void on_timer(uv_timer_t *timer)
{
    struct bly_conn *conn = timer->data;
    uint64_t now = bly_conn_now_ms(conn);

    /* A stopped or suspended server: it was us who did not listen, not the peer who was silent. */
    if (now > conn->due_ms + STALL_MS)
        conn->heard_ms = now;

    if (conn->state == BLY_CONN_OPEN)
        on_open_timer(conn);
    else if (conn->state == BLY_CONN_BEGINNING && !conn->framing->is_remote)
        bly_conn_open(conn); /* there is no handshake */
    else if (conn->state == BLY_CONN_ENDING && conn->owes_close)
        bly_conn_tell_closed(conn);
    else if (conn->state != BLY_CONN_GONE && now >= conn->deadline_ms)
        run_out_of_time(conn);
    bly_conn_arm(conn);
}

int bly_conn_probe(struct bly_conn *conn, uint64_t timeout_ms, void (*done)(void *arg, bool alive),
                   void *arg)
{
    struct bly_probe *p = malloc(sizeof(*p));

    if (!p)
        return -ENOMEM;
    *p = (struct bly_probe){.next = conn->probes,
                            .since_ms = bly_conn_now_ms(conn),
                            .timeout_ms = timeout_ms,
                            .done = done,
                            .arg = arg};
    conn->probes = p;
    /* A socket that cannot be written to has its end coming; then nobody is called. */
    if (conn->state == BLY_CONN_OPEN && conn->framing->is_remote)
        bly_conn_after_send(conn, bly_outbox_ping(&conn->out));
    bly_conn_arm(conn);
    return 0;
}
