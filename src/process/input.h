#pragma once

/*
 * Bytes on their way into a program: a queue bounded in bytes. What does not fit waits, unanswered,
 * in order. Loop thread only; never blocks. It polls nothing itself: its owner watches the
 * descriptor while bly_input_wants_room() and then calls bly_input_flush().
 */
#include <stdbool.h>
#include <stddef.h>

#include "process/process.h"

struct bly_input;

int bly_input_new(size_t max_bytes, struct bly_input **ret_input);
/* After bly_input_end(). NULL is fine; returns NULL. */
struct bly_input *bly_input_free(struct bly_input *input);

/* From now on the queue goes into `fd` (borrowed, non-blocking). */
void bly_input_open(struct bly_input *input, int fd);

/* bly_process_write(). */
void bly_input_write(struct bly_input *input, const void *data, size_t len, const char *write_id,
                     bly_write_done done, void *arg);

/* Writes what there is room for. On an error (the program has closed its end) the input ends. */
void bly_input_flush(struct bly_input *input);
bool bly_input_wants_room(const struct bly_input *input);

/* Nothing more is delivered: whatever waits is answered, and so is everything that comes later. */
void bly_input_end(struct bly_input *input);
