#pragma once

/*
 * One warm helper: the process, its socket, its timer. When it is made, what it is asked and how
 * long it may take is the business of sandboxed_helpers.c, what its answers mean that of
 * sandboxed_answers.c. Loop thread only.
 */
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct bly_err;
struct bly_fs_request;
struct bly_plan;
struct bly_spawner;
struct bly_warm;

struct bly_warm_ops {
    /* The wall stands (err == NULL), or there will be no helper: then nothing but `gone` follows.
     */
    void (*ready)(void *arg, const struct bly_err *err);
    /* One packet; `fd` is the callee's, -EBADF when there is none. */
    void (*packet)(void *arg, const void *packet, size_t len, int fd);
    void (*writable)(void *arg); /* after -EAGAIN */
    /* The helper has ended, or sent what is no packet. Once; call bly_warm_end(). */
    void (*lost)(void *arg);
    void (*due)(void *arg);  /* the time given to bly_warm_due() has come, or came earlier */
    void (*gone)(void *arg); /* after bly_warm_end(): reaped, the memory is freed after this */
};

/*
 * Starts one. `packet` is memory of BLY_HWIRE_PACKET_MAX bytes that helpers of one loop may share.
 * The plan is borrowed for the call. 0: one `ready` will come, not from inside of this call.
 */
int bly_warm_start(uv_loop_t *loop, struct bly_spawner *spawner, const struct bly_plan *plan,
                   char *packet, const struct bly_warm_ops *ops, void *arg,
                   struct bly_warm **ret_warm, struct bly_err *err);

/* The rung of its wall (enum bly_rung), from `ready` on. */
unsigned bly_warm_rung(const struct bly_warm *warm);

/* As bly_hwire_send_request(). */
int bly_warm_send(struct bly_warm *warm, uint32_t seq, const struct bly_fs_request *request,
                  const void *data, size_t len, int payload_fd);

/* Asks for `due` at the loop's time `at_ms`. An earlier one that was asked for stays. */
void bly_warm_due(struct bly_warm *warm, uint64_t at_ms);

/* Kills the process; `lost` or an orderly end follow. */
void bly_warm_kill(struct bly_warm *warm);

/*
 * Ends it: what it does now is finished if that takes less than a second. No callback but `gone`
 * any more.
 */
void bly_warm_end(struct bly_warm *warm);
