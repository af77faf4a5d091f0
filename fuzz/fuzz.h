#pragma once

/*
 * What all fuzz targets share. A target is one file with one function that takes arbitrary bytes,
 * hands them to the code that reads such bytes from others, and checks what must hold for all of
 * them. libFuzzer calls it, or replay.c with the files of a corpus.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "base/path.h"
#include "sandbox/policy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that does not hold ends the process, which is what a fuzzer understands. */
#define FUZZ_MUST(condition)                                                                 \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            (void)fprintf(stderr, "%s:%d: must hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                         \
        }                                                                                    \
    } while (0)

enum { FUZZ_OUTPUT_MAX = 1 << 24 }; /* bytes; more than any target writes */

/* What the server knows, for policies. */
static const struct bly_policy_env fuzz_env = {.cwd = "/srv", .tmpdir = "/var/tmp/t"};

/* A copy with the padding that bly_json_read() needs, and not a byte more. The caller's. */
static inline char *fuzz_json_text(const void *data, size_t size)
{
    char *text = calloc(1, size + BLY_JSON_PADDING);

    FUZZ_MUST(text);
    if (size > 0)
        memcpy(text, data, size);
    return text;
}

/* A copy that ends with NUL; the caller's. */
static inline char *fuzz_string(const void *data, size_t size)
{
    char *text = calloc(1, size + 1);

    FUZZ_MUST(text);
    if (size > 0)
        memcpy(text, data, size);
    return text;
}

/* What a function that failed owes its caller. */
static inline void fuzz_check_failure(int r, const struct bly_err *err)
{
    FUZZ_MUST(r < 0);
    FUZZ_MUST(err->kind != BLY_ERR_NONE);
    FUZZ_MUST(memchr(err->text, '\0', sizeof(err->text)));
    FUZZ_MUST(err->text[0] != '\0' || err->sys != 0);
}

static inline void fuzz_check_same(const struct bly_buf *a, const struct bly_buf *b)
{
    FUZZ_MUST(a->error == 0 && b->error == 0);
    FUZZ_MUST(a->len == b->len);
    FUZZ_MUST(a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/* Everything behind the edge relies on this. */
static inline void fuzz_check_path(const char *path)
{
    char *normal = NULL;

    FUZZ_MUST(bly_path_normalise(path, strlen(path), &normal) == 0);
    FUZZ_MUST(strcmp(path, normal) == 0);
    free(normal);
}

/* What we send is JSON, whatever came in. */
static inline void fuzz_check_json(const struct bly_buf *buf)
{
    yyjson_doc *doc = NULL;

    FUZZ_MUST(buf->error == 0);
    FUZZ_MUST(bly_json_read_copy((const char *)buf->data, buf->len, &doc, NULL) == 0);
    yyjson_doc_free(doc);
}
