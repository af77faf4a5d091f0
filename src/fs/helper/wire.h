#pragma once

/*
 * What the server and a warm helper say to each other over a SOCK_SEQPACKET socket: one packet a
 * request, one or more a reply. Both ends are the same binary, so numbers are in native order. Each
 * side checks everything it is sent: for the server a helper is hostile. Bulk goes as descriptors
 * (a memory file with the payload of a large write, the opened file of a large read) or in pieces
 * (listings, files of unknown size). Any thread; borrows what it is given.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/fs.h"

enum {
    BLY_HWIRE_PIECE = 65536,      /* bytes of data in one packet, at most */
    BLY_HWIRE_PACKET_MAX = 81920, /* head, two paths, data */
};

/* The largest data that goes inside of a request; beyond it a memory file. */
#define BLY_HWIRE_INLINE BLY_HWIRE_PIECE

/* A request as it arrived. Pointers lead into the packet. */
struct bly_hwire_request {
    uint32_t seq;
    struct bly_fs_request request; /* op, paths, flags, walk, max_text_bytes; nothing else */
    const void *payload;           /* of a write; NULL: in the descriptor */
    size_t payload_len;
};

enum {
    BLY_HWIRE_MORE = 1,      /* another packet follows; so far only data */
    BLY_HWIRE_TRUNCATED = 2, /* a walk ended early */
    BLY_HWIRE_FD = 4,        /* the packet carries the opened file */
    BLY_HWIRE_TOO_LONG = 8,  /* .number is the length the text would have; nothing was read */
    BLY_HWIRE_IS_DIRECTORY = 16,
    BLY_HWIRE_IS_FILE = 32,
    BLY_HWIRE_IS_SYMLINK = 64,
};

struct bly_hwire_reply {
    uint32_t seq; /* of the request */
    uint8_t kind; /* enum bly_err_kind; with BLY_ERR_NONE the data is the result, else the text */
    uint8_t flags;
    uint8_t denied_access, denied_by; /* of the error, see struct bly_denial */
    int32_t sys;
    uint32_t denied_index;
    uint64_t number; /* entries of a listing, size of a file, length of a text that is too long */
    int64_t created_at_ms, modified_at_ms;
    uint32_t data_len;
    uint8_t denied_name;
};

/*
 * Sends a request. Its payload is `data` (up to BLY_HWIRE_INLINE bytes) or the memory file
 * `payload_fd` (borrowed). Paths must be shorter than PATH_MAX. 0; -EAGAIN: not sent, the socket is
 * full; another negative errno: the helper is gone.
 */
int bly_hwire_send_request(int sock, uint32_t seq, const struct bly_fs_request *request,
                           const void *data, size_t len, int payload_fd);

/* Sends a reply with `data` of reply->data_len bytes and, with BLY_HWIRE_FD, `fd` (borrowed). */
int bly_hwire_send_reply(int sock, const struct bly_hwire_reply *reply, const void *data, int fd);

/*
 * Receives one packet and at most one descriptor, which becomes the caller's (-EBADF: none).
 * Returns its length; 0: the other side is gone; -EAGAIN; -EBADMSG for a packet that is too long or
 * has more descriptors; another negative errno.
 */
ssize_t bly_hwire_recv(int sock, void *packet, size_t size, int *ret_fd);

/* Strict. 0 or -EBADMSG. */
int bly_hwire_unpack_request(const void *packet, size_t len, bool has_fd,
                             struct bly_hwire_request *ret_request);
int bly_hwire_unpack_reply(const void *packet, size_t len, bool has_fd,
                           struct bly_hwire_reply *ret_reply, const void **ret_data);
