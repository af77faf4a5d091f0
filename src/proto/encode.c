#include "proto/encode.h"

#include "base/base64.h"
#include "base/buf.h"
#include "base/path.h"

int bly_encode_bool(struct bly_buf *buf, bool value)
{
    return value ? BLY_ADD(buf, "true") : BLY_ADD(buf, "false");
}

int bly_encode_uri(struct bly_buf *buf, const char *path)
{
    BLY_ADD(buf, "\"");
    bly_path_to_uri(buf, path);
    return BLY_ADD(buf, "\"");
}

int bly_encode_base64(struct bly_buf *buf, const void *data, size_t len)
{
    size_t text_len = bly_base64_len(len);
    int r = bly_buf_reserve(buf, text_len + 2);

    if (r < 0)
        return r;

    buf->data[buf->len++] = '"';
    bly_base64_encode(data, len, (char *)buf->data + buf->len);
    buf->len += text_len;
    buf->data[buf->len++] = '"';
    return 0;
}
