#pragma once

/*
 * Packets between server, launcher and spawner: a type, a payload and up to BLY_WIRE_MAX_FDS
 * descriptors in one SOCK_SEQPACKET packet. A payload that is too big for a packet travels in a
 * memfd; callers do not notice. Each end treats the other as fallible: whatever is malformed is
 * -EBADMSG, and no descriptor is ever leaked. Any thread; blocks only where it says so.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct bly_buf;

enum bly_wire_type {
    BLY_WIRE_SPAWNER = 1, /* server to launcher: u64 spawner id; its socket */
    BLY_WIRE_KILL,        /* server to launcher: u64 spawner id */
    BLY_WIRE_START,       /* server to spawner: request.h */
    BLY_WIRE_HELPER,      /* server to spawner: request.h */
    BLY_WIRE_SIGNAL,      /* server to spawner: u64 child id, u32 signal */
    BLY_WIRE_STARTED,  /* spawner to server: u64 child id, u32 pid, u8 mask, u8 rung; descriptors */
    BLY_WIRE_FAILED,   /* spawner to server: u64 child id, u32 kind, u32 sys, text */
    BLY_WIRE_EXITED,   /* spawner to server: u64 child id, u32 wait status, u8 refused (0, 1) */
    BLY_WIRE_ALLOW,    /* server to launcher: u64 of bly_launcher_allowances */
    BLY_WIRE_FEATURES, /* launcher to server, once: probe.h */
    BLY_WIRE_BOUNDS,   /* server to launcher, once, first of all: bounds.h */
};

enum {
    BLY_WIRE_MAX_FDS = 3,
    BLY_WIRE_INLINE_MAX = 60 << 10, /* bytes; the packet stays below 64 KiB */
    BLY_WIRE_MAX = 1 << 28,         /* bytes of payload */
};

struct bly_packet {
    enum bly_wire_type type;
    uint8_t *payload; /* owned */
    size_t len;
    int fds[BLY_WIRE_MAX_FDS]; /* owned, close-on-exec; take them with bly_take_fd() */
    size_t n_fds;
    bool fds_lost; /* there were descriptors, but this process cannot open more: n_fds is 0 */
};

/*
 * Sends one packet; `fds` stay the caller's. Waits for room with `wait`, else -EAGAIN. -EPIPE when
 * the other end is gone; -EMSGSIZE above BLY_WIRE_MAX.
 */
int bly_wire_send(int sock, enum bly_wire_type type, const struct bly_buf *payload, const int *fds,
                  size_t n_fds, bool wait);

enum { BLY_WIRE_END = 1 };

/*
 * Receives one packet without waiting. 0; BLY_WIRE_END: the other end is closed; -EAGAIN: nothing
 * there; -EBADMSG and other errors: this connection cannot be used any more.
 */
int bly_wire_recv(int sock, struct bly_packet *ret_packet);
void bly_packet_deinit(struct bly_packet *packet);
#define bly_autopacket __attribute__((cleanup(bly_packet_deinit)))

/* Packets that found no room yet, for an end that must not wait. In order. */
struct bly_wire_queue {
    STAILQ_HEAD(, bly_wire_queue_item) items;
};

void bly_wire_queue_init(struct bly_wire_queue *outbox);
void bly_wire_queue_deinit(struct bly_wire_queue *outbox);
bool bly_wire_queue_is_empty(const struct bly_wire_queue *outbox);

/*
 * Sends, or keeps what could not be sent yet. `fd` (-EBADF: none) is consumed, also on failure; the
 * payload is emptied when it was kept. 0, or a negative errno: nothing was sent or kept.
 */
int bly_wire_queue_send(struct bly_wire_queue *outbox, int sock, enum bly_wire_type type,
                        struct bly_buf *payload, int fd);

/* Sends what there is room for. 0 (look at bly_wire_queue_is_empty()), or -EPIPE and the like. */
int bly_wire_queue_flush(struct bly_wire_queue *outbox, int sock);
