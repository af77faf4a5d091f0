#pragma once

/*
 * What the server asks a spawner to start, as bytes. Pure functions, any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_buf;
struct bly_packet;
struct bly_plan;
struct bly_spawn;

/* Pack the payloads of BLY_WIRE_START and BLY_WIRE_HELPER. Return buf->error. */
int bly_request_pack_start(struct bly_buf *buf, uint64_t id, const struct bly_spawn *spawn);
int bly_request_pack_helper(struct bly_buf *buf, uint64_t id, const struct bly_plan *plan);

struct bly_request {
    uint64_t id;
    bool helper; /* then only the plan is set */
    bool tty;
    bool pipe_stdin;
    char *cwd; /* this and all strings below are borrowed from the packet */
    char *arg0;
    char **argv; /* owned array */
    char **envp; /* owned array, into the same block as argv */
    const uint8_t *plan;
    size_t plan_len; /* 0: no wall */
};

/*
 * Unpacks a START or HELPER packet, which must live as long as the request. 0; -EBADMSG; -ENOMEM.
 * The plan is not looked into: that is done inside the child.
 */
int bly_request_unpack(const struct bly_packet *packet, struct bly_request *ret_request);
void bly_request_deinit(struct bly_request *request);
