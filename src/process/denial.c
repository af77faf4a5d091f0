#include "process/denial.h"

#include <ctype.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "process/ring.h"

enum { TAIL_MAX = 64 << 10, N_STREAMS = BLY_PTY + 1 };

static const char *const signs[] = {
    "operation not permitted",
    "permission denied",
    "read-only file system",
    "seccomp",
    "sandbox",
    "landlock",
    "failed to write file",
};

static size_t stream_bytes(const struct bly_ring *output, int stream)
{
    struct bly_chunk chunk = {0};
    size_t n = 0;

    while (bly_ring_next(output, chunk.seq, &chunk) == 0)
        if (chunk.stream == stream)
            n += chunk.len;
    return n;
}

/* Copies the end of a stream, in lower case: signs may be split over chunks. */
static size_t copy_tail(const struct bly_ring *output, int stream, size_t skip, char *tail)
{
    struct bly_chunk chunk = {0};
    size_t len = 0;

    while (bly_ring_next(output, chunk.seq, &chunk) == 0) {
        size_t from = skip < chunk.len ? skip : chunk.len;

        if (chunk.stream != stream)
            continue;
        skip -= from;
        for (size_t i = from; i < chunk.len; i++)
            tail[len++] = (char)tolower(chunk.data[i]);
    }
    return len;
}

static bool shows_sign(const struct bly_ring *output, int stream, char *tail)
{
    size_t total = stream_bytes(output, stream);
    size_t len = copy_tail(output, stream, total > TAIL_MAX ? total - TAIL_MAX : 0, tail);

    for (size_t i = 0; i < BLY_LEN(signs); i++)
        if (memmem(tail, len, signs[i], strlen(signs[i])) != NULL)
            return true;
    return false;
}

enum bly_evidence bly_denial_evidence(const struct bly_ring *output, int exit_code, bool refused)
{
    char tail[TAIL_MAX];

    if (exit_code == 0)
        return BLY_EVIDENCE_NONE;
    if (refused)
        return BLY_EVIDENCE_SUPERVISED;
    /* Its own death, or that of a child whose status a shell has passed on. */
    if (exit_code == 128 + SIGSYS)
        return BLY_EVIDENCE_SIGNAL;
    for (int stream = 0; stream < N_STREAMS; stream++)
        if (shows_sign(output, stream, tail))
            return BLY_EVIDENCE_WORDS;
    return BLY_EVIDENCE_NONE;
}

const char *bly_evidence_name(enum bly_evidence evidence)
{
    static const char *const names[] = {[BLY_EVIDENCE_NONE] = "none",
                                        [BLY_EVIDENCE_SUPERVISED] = "supervised",
                                        [BLY_EVIDENCE_SIGNAL] = "signal",
                                        [BLY_EVIDENCE_WORDS] = "words"};

    return names[evidence];
}
