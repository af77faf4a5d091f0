/*
 * What a capability root holds: a listing that a helper wrote, and files that anybody wrote. The
 * input is cut at its line breaks: the first piece is the listing's entries as they come (packed,
 * with 1 for each line break), the others are the files in the order they are asked for; a piece
 * that begins with '!' is an error, and so is everything behind the last one.
 *
 * Every file asked for lies below the root, or is a manifest right above it, and the answer is JSON
 * with as many values as were counted, at most.
 */
#include "proto/discovery.h"
#include "base/cleanup.h"
#include "fs/fs.h"
#include "fuzz.h"

static const char root[] = "/w/root";

static void check_path(const char *path)
{
    static const char *const above[] = {"/w", "/"};

    fuzz_check_path(path);
    if (bly_path_is_within(path, root))
        return;
    for (size_t i = 0; i < BLY_LEN(above); i++) {
        bly_autofree char *codex = bly_path_join(above[i], ".codex-plugin/plugin.json");
        bly_autofree char *claude = bly_path_join(above[i], ".claude-plugin/plugin.json");
        bly_autofree char *cursor = bly_path_join(above[i], ".cursor-plugin/plugin.json");

        if (strcmp(path, codex) == 0 || strcmp(path, claude) == 0 || strcmp(path, cursor) == 0)
            return;
    }
    FUZZ_MUST(false); /* neither below the root nor a manifest above it */
}

static void check_answer(const struct bly_discovery *discovery)
{
    bly_autobuf struct bly_buf answer;
    bly_autofree char *text = NULL;
    yyjson_doc *doc = NULL;
    size_t values = 0;

    bly_buf_init(&answer, FUZZ_OUTPUT_MAX);
    FUZZ_MUST(bly_discovery_add(discovery, "id", 2, &values, &answer) == 0);
    text = fuzz_json_text(answer.data, answer.len);
    FUZZ_MUST(bly_json_read(text, answer.len, &doc, NULL) == 0);
    FUZZ_MUST(yyjson_is_arr(yyjson_obj_get(yyjson_doc_get_root(doc), "skills")));
    yyjson_doc_free(doc);
}

/* The next piece, up to a line break; NULL at the end. */
static const uint8_t *cut(const uint8_t **data, size_t *size, size_t *ret_len)
{
    const uint8_t *piece = *data;
    const uint8_t *end = *size > 0 ? memchr(piece, '\n', *size) : NULL;
    size_t used;

    if (*size == 0)
        return NULL;
    *ret_len = end ? (size_t)(end - piece) : *size;
    used = *ret_len + (end != NULL);
    *data += used;
    *size -= used;
    return piece;
}

static void tell(struct bly_discovery *discovery, const uint8_t *text, size_t len)
{
    struct bly_err err;

    if (text && (len == 0 || *text != '!')) {
        bly_discovery_read(discovery, (const char *)text, len);
        return;
    }
    (void)bly_fail_sys(&err, text && len > 1 ? EACCES : ENOENT, "cannot read");
    bly_discovery_not_read(discovery, &err);
}

static void list(struct bly_discovery *discovery, const uint8_t *entries, size_t len)
{
    struct bly_fs_reply reply;

    bly_fs_reply_init(&reply);
    for (size_t i = 0; i < len; i++)
        bly_buf_put_u8(&reply.entries, entries[i] == 1 ? '\n' : entries[i]);
    reply.n_entries = len;
    bly_discovery_listed(discovery, &reply);
    bly_fs_reply_deinit(&reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bly_discovery *discovery = NULL;
    size_t len = 0;
    const uint8_t *piece = cut(&data, &size, &len);

    FUZZ_MUST(bly_discovery_new(root, &discovery) == 0);
    if (piece)
        list(discovery, piece, len);
    for (const char *path; (path = bly_discovery_next(discovery));) {
        check_path(path);
        piece = cut(&data, &size, &len);
        tell(discovery, piece, len);
    }
    check_answer(discovery);
    bly_discovery_free(discovery);
    return 0;
}
