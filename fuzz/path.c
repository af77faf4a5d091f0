/*
 * Paths and URIs: what comes out is normal, stays what it is when it is normalised again, and comes
 * back from the URI we write for it.
 */
#include "base/cleanup.h"
#include "fuzz.h"

static void check_normal(const char *path)
{
    bly_autofree char *joined = bly_path_join(path, ".././x");
    bly_autofree char *parent = bly_path_join(path, "..");

    fuzz_check_path(path);
    FUZZ_MUST(joined && parent);
    fuzz_check_path(joined);
    fuzz_check_path(parent);
    FUZZ_MUST(bly_path_is_within(path, parent) && bly_path_is_within(path, path));
    FUZZ_MUST(bly_path_is_within(joined, parent));
    FUZZ_MUST(strcmp(path, "/") == 0 || bly_path_depth(path) == bly_path_depth(parent) + 1);
    FUZZ_MUST(strchr(bly_path_base(path), '/') == NULL);
}

static void check_uri_of(const char *path)
{
    bly_autobuf struct bly_buf uri;
    bly_autofree char *again = NULL;
    struct bly_err err = {0};
    int r;

    bly_buf_init(&uri, FUZZ_OUTPUT_MAX);
    FUZZ_MUST(bly_path_to_uri(&uri, path) == 0);
    r = bly_path_from_wire((const char *)uri.data, uri.len, &again, &err);
    FUZZ_MUST(r == 0);
    FUZZ_MUST(strcmp(path, again) == 0);
}

static void check_native(const char *text, size_t len)
{
    bly_autofree char *path = NULL;

    if (bly_path_normalise(text, len, &path) < 0)
        return;
    FUZZ_MUST(strlen(path) <= len);
    check_normal(path);
    check_uri_of(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bly_autofree char *text = malloc(size); /* without a NUL: the length must do */
    bly_autofree char *path = NULL;
    struct bly_err err = {0};
    int r;

    FUZZ_MUST(text || size == 0);
    if (size > 0)
        memcpy(text, data, size);

    check_native(text, size);
    r = bly_path_from_wire(text, size, &path, &err);
    if (r < 0) {
        fuzz_check_failure(r, &err);
        return 0;
    }
    check_normal(path);
    check_uri_of(path);
    return 0;
}
