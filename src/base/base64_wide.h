#pragma once

/*
 * The inner loops of base64.c on 32-byte vectors, used where the processor has them (AVX2), and the
 * same functions without them: slower twins that tests compare with. Pure functions, any thread.
 */
#include <stddef.h>
#include <stdint.h>

struct bly_base64_error;

/*
 * Encodes as many bytes from the start of in[0..n) as it can do in whole steps; returns how many, a
 * multiple of 3, perhaps 0. Overlap as for bly_base64_encode().
 */
size_t bly_base64_encode_wide(const uint8_t *in, size_t n, char *out);

/*
 * Decodes whole steps of symbols from the start of in[0..len), up to the first step with a byte
 * that is no symbol; returns how many symbols were decoded, a multiple of 4, perhaps 0. `out` has
 * room for len / 4 * 3 bytes and may be `in` itself.
 */
size_t bly_base64_decode_wide(const uint8_t *in, size_t len, uint8_t *out);

/* As bly_base64_encode() and bly_base64_decode(), one machine word at a time. */
void bly_base64_encode_scalar(const void *data, size_t n, char *text);
int bly_base64_decode_scalar(const char *text, size_t len, void *data, size_t *ret_n,
                             struct bly_base64_error *ret_error);
