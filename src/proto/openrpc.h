#pragma once

/*
 * The protocol as a document: src/proto/openrpc.json, an OpenRPC description with a JSON schema for
 * everything that is sent, without its white space. Tests hold it against the method table, the
 * decoders, what the server really answers, and docs/PROTOCOL.md.
 */
#include <stddef.h>

extern const char bly_openrpc[]; /* ends with a line feed; no NUL */
extern const size_t bly_openrpc_len;
