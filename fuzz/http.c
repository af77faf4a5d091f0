/*
 * The head of an HTTP request: reading it needs all of it and nothing behind it, and every outcome
 * has an answer that fits.
 */
#include "transport/http.h"

#include <errno.h>
#include <stdbool.h>

#include "base/cleanup.h"
#include "fuzz.h"
#include "transport/auth.h"

static const char token[] = "secret";

static bool has_header(const uint8_t *data, size_t size, const char *name)
{
    bly_autofree char *text = fuzz_string(data, size);

    return strcasestr(text, name) != NULL;
}

static void check_answer(int parsed, const uint8_t *data, size_t used,
                         const struct bly_http_request *request, const struct bly_http_terms *terms)
{
    const struct bly_http_verdict *verdict =
        bly_http_judge(parsed, (const char *)data, request, terms);
    bly_autobuf struct bly_buf metrics, answer;
    char status[16];

    bly_buf_init(&metrics, 16);
    bly_buf_add_str(&metrics, "a 1\n");
    bly_buf_init(&answer, BLY_HTTP_ANSWER_MAX);
    FUZZ_MUST(bly_http_answer(verdict, request, &metrics, &answer) == 0);
    (void)snprintf(status, sizeof(status), "HTTP/1.1 %d ", verdict->status);
    FUZZ_MUST(answer.len > strlen(status) && memcmp(answer.data, status, strlen(status)) == 0);
    FUZZ_MUST(memmem(answer.data, answer.len, "\r\n\r\n", 4));
    FUZZ_MUST(!memchr(answer.data, '\0', answer.len));

    /* What a page in a browser can send must never become a WebSocket. */
    if (verdict->status == 101)
        FUZZ_MUST(terms->welcome && parsed == 0 && request->is_get && !request->has_origin &&
                  !request->has_body && request->key[0] != '\0' &&
                  (request->path == BLY_HTTP_ROOT || terms->any_path));
    /* And what does not know the token gets nothing but its health. */
    if (verdict->status == 101 || !verdict->body)
        FUZZ_MUST(!terms->auth || (has_header(data, used, "authorization:") &&
                                   memmem(data, used, token, sizeof(token) - 1)));
    if (!verdict->body)
        FUZZ_MUST(request->path == BLY_HTTP_METRICS && terms->metrics && !request->has_origin);
}

/* The same head in memory of just its size, and one byte short. */
static void check_exact(const uint8_t *data, size_t used, const struct bly_http_request *request)
{
    bly_autofree char *head = malloc(used);
    struct bly_http_request again;
    size_t n = 0;

    FUZZ_MUST(head && used <= BLY_HTTP_HEAD_MAX);
    memcpy(head, data, used);
    FUZZ_MUST(memcmp(head + used - 4, "\r\n\r\n", 4) == 0);
    FUZZ_MUST(bly_http_parse(head, used, &again, &n) == 0 && n == used);
    FUZZ_MUST(memcmp(&again, request, sizeof(again)) == 0);
    FUZZ_MUST(bly_http_parse(head, used - 1, &again, &n) == -EAGAIN);
}

/* Every combination of what the server may have to say. */
static void check_terms(int parsed, const uint8_t *data, size_t used,
                        const struct bly_http_request *request)
{
    struct bly_auth auth;

    bly_auth_init_token(&auth, token, sizeof(token) - 1);
    for (unsigned bits = 0; bits < 32; bits++) {
        struct bly_http_terms terms = {
            .ready = bits & 1,
            .welcome = bits & 2,
            .metrics = bits & 4,
            .any_path = bits & 8,
            .auth = bits & 16 ? &auth : NULL,
        };

        check_answer(parsed, data, used, request, &terms);
    }
}

static void check_value(struct bly_http_value value, size_t used)
{
    FUZZ_MUST(value.at == 0 ? value.len == 0 : (size_t)value.at + value.len + 4 <= used);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bly_http_request request = {0};
    size_t used = 0;
    int r = bly_http_parse((const char *)data, size, &request, &used);

    if (r == -EAGAIN) {
        FUZZ_MUST(size < BLY_HTTP_HEAD_MAX);
        return 0;
    }
    FUZZ_MUST(r == 0 || r == -EBADMSG || r == -EMSGSIZE);
    if (r == 0) {
        FUZZ_MUST(used <= size);
        check_exact(data, used, &request);
        check_value(request.authorization, used);
        check_value(request.second_authorization, used);
    }
    check_terms(r, data, used, &request);
    return 0;
}
