#pragma once

/*
 * Small pieces that the encoders append. Like everything that appends to a struct bly_buf they may
 * be called on a failed one. Pure; any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_buf;

/* A string literal, without a strlen() at run time. */
#define BLY_ADD(buf, literal) bly_buf_add((buf), (literal), sizeof(literal) - 1)

int bly_encode_bool(struct bly_buf *buf, bool value);

/* "file:///..." with the quotes; the escaping of URIs leaves nothing for JSON to escape. */
int bly_encode_uri(struct bly_buf *buf, const char *path);

/* Base64 text with the quotes, encoded straight into the buffer. */
int bly_encode_base64(struct bly_buf *buf, const void *data, size_t len);
