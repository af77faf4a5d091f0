/*
 * Base64: the vector code against the scalar code, bytes to text and back, and only what the
 * encoder writes is accepted by the decoder.
 */
#include "base/base64.h"

#include "base/base64_wide.h"
#include "fuzz.h"

/* Exactly as large as the contract asks for, so that a byte too many is noticed. */
static uint8_t *room(size_t n)
{
    uint8_t *mem = malloc(n);

    FUZZ_MUST(mem || n == 0);
    return mem;
}

static void check_encode(const uint8_t *data, size_t size)
{
    size_t len = bly_base64_len(size), n = 0;
    uint8_t *wide = room(len), *scalar = room(len), *in_place = room(len);

    bly_base64_encode(data, size, (char *)wide);
    bly_base64_encode_scalar(data, size, (char *)scalar);
    FUZZ_MUST(len == 0 || memcmp(wide, scalar, len) == 0);

    if (size > 0)
        memcpy(in_place + len - size, data, size);
    bly_base64_encode(in_place + len - size, size, (char *)in_place);
    FUZZ_MUST(len == 0 || memcmp(in_place, wide, len) == 0);

    FUZZ_MUST(bly_base64_decode((char *)wide, len, wide, &n, NULL) == 0);
    FUZZ_MUST(n == size);
    FUZZ_MUST(n == 0 || memcmp(wide, data, n) == 0);
    free(wide);
    free(scalar);
    free(in_place);
}

static void check_fault(const struct bly_base64_error *a, const struct bly_base64_error *b)
{
    char text[96];

    FUZZ_MUST(a->fault == b->fault && a->byte == b->byte && a->offset == b->offset);
    bly_base64_error_text(a, text, sizeof(text));
    FUZZ_MUST(text[0] != '\0');
}

static void check_decode(const char *text, size_t len)
{
    struct bly_base64_error wide_error = {0}, scalar_error = {0};
    uint8_t *wide = room(len / 4 * 3), *scalar = room(len / 4 * 3);
    size_t n = 0, n_scalar = 0;
    int r = bly_base64_decode(text, len, wide, &n, &wide_error);

    FUZZ_MUST(bly_base64_decode_scalar(text, len, scalar, &n_scalar, &scalar_error) == r);
    if (r < 0) {
        check_fault(&wide_error, &scalar_error);
    } else {
        char *again = (char *)room(bly_base64_len(n));

        FUZZ_MUST(n == n_scalar && (n == 0 || memcmp(wide, scalar, n) == 0));
        FUZZ_MUST(bly_base64_len(n) == len);
        bly_base64_encode(wide, n, again);
        FUZZ_MUST(len == 0 || memcmp(again, text, len) == 0);
        free(again);
    }
    free(wide);
    free(scalar);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_encode(data, size);
    check_decode((const char *)data, size);
    return 0;
}
