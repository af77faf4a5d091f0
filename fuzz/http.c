/*
 * The head of an HTTP request: reading it needs all of it and nothing behind it, and every outcome
 * has an answer that fits.
 */
#include "transport/http.h"

#include <errno.h>

#include "base/cleanup.h"
#include "fuzz.h"

static void check_answer(int parsed, const struct bly_http_request *request, bool welcome)
{
    const struct bly_http_verdict *verdict = bly_http_judge(parsed, request, welcome);
    char answer[BLY_HTTP_ANSWER_MAX];
    size_t len = bly_http_answer(verdict, request, answer);
    char status[16];

    FUZZ_MUST(len < sizeof(answer) && strlen(answer) == len);
    (void)snprintf(status, sizeof(status), "HTTP/1.1 %d ", verdict->status);
    FUZZ_MUST(strncmp(answer, status, strlen(status)) == 0);
    FUZZ_MUST(strstr(answer, "\r\n\r\n"));

    /* What a page in a browser can send must never become a WebSocket. */
    if (verdict->status == 101)
        FUZZ_MUST(welcome && parsed == 0 && request->is_get && request->is_root &&
                  !request->has_origin && !request->has_body && request->key[0] != '\0');
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
    }
    check_answer(r, &request, true);
    check_answer(r, &request, false);
    return 0;
}
