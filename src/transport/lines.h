#pragma once

/*
 * JSON lines: bytes go in, lines come out, each in memory of its own. A line ends with LF or CR LF;
 * blank ones are skipped. Pure; any thread, one at a time per receiver. Spec section 1.8.
 */
#include <stddef.h>
#include <stdint.h>

#include "transport/ws.h"

struct bly_line_receiver {
    uint64_t max_bytes;
    char *text; /* of the line so far; owned */
    size_t len, cap;
    struct bly_utf8 utf8;
};

struct bly_line {
    char *text; /* the caller's (free), BLY_JSON_PADDING zero bytes behind it; NULL: none yet */
    size_t len; /* without the line end */
};

/* `max_bytes` bounds a line without its end. */
void bly_line_receiver_init(struct bly_line_receiver *r, uint64_t max_bytes);
void bly_line_receiver_deinit(struct bly_line_receiver *r);

/*
 * Takes bytes up to the end of the next line that is not blank; *ret_used says how many. Returns 0
 * with *ret_line; -EMSGSIZE, -EILSEQ (invalid UTF-8) or -ENOMEM, after which the receiver is of no
 * further use.
 */
int bly_line_receive(struct bly_line_receiver *r, const uint8_t *data, size_t len, size_t *ret_used,
                     struct bly_line *ret_line);

/* No more bytes come: the last line may lack its end. Returns as above. */
int bly_line_finish(struct bly_line_receiver *r, struct bly_line *ret_line);

/* Why bly_line_receive() failed, in words; static. */
const char *bly_line_error_text(int r);
