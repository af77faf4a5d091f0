#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "process/denial.h"
#include "process/process.h"
#include "process/ring.h"
#include "support/rows.h"

/*
 * A script: "a:xyz" pushes "xyz" as the next number on stdout, "b:xyz" on stderr, "-" skips a
 * number. What is kept then reads "NUMBER STREAM TEXT,...".
 */
static const struct ring_case {
    const char *name;
    size_t max_bytes, max_chunks;
    const char *script;
    const char *kept;
} ring_cases[] = {
    {"an empty ring holds nothing", 10, 10, "", ""},
    {"chunks come back in order with their streams", 10, 10, "a:one b:two", "1a one,2b two,"},
    {"numbers may have gaps", 10, 10, "a:1 - - a:2", "1a 1,4a 2,"},
    {"past the byte limit the oldest whole chunks go", 10, 10, "a:aaaa a:bbbb a:cccc",
     "2a bbbb,3a cccc,"},
    {"exactly the limit is kept", 8, 10, "a:aaaa a:bbbb", "1a aaaa,2a bbbb,"},
    {"one big chunk pushes out many", 10, 10, "a:aa a:bb a:cc a:dddddddddd", "4a dddddddddd,"},
    {"past the chunk limit the oldest go", 100, 2, "a:1 a:2 a:3", "2a 2,3a 3,"},
    {"a ring of one chunk", 100, 1, "a:1 a:2", "2a 2,"},
    {"a chunk above the limit empties the ring", 4, 10, "a:aa a:bbbbb a:c", "3a c,"},
    {"many slots wrap around", 6, 100,
     "a:1 a:2 a:3 a:4 a:5 a:6 a:7 a:8 a:9 a:0 a:1 a:2 a:3 a:4 a:5 a:6 a:7 a:8 a:9 a:0",
     "15a 5,16a 6,17a 7,18a 8,19a 9,20a 0,"},
};

static void run_script(struct bly_ring *ring, const char *script)
{
    uint64_t seq = 1;

    while (*script != '\0') {
        size_t len = strcspn(script, " ");

        if (script[0] != '-')
            assert_int_equal(bly_ring_push(ring, seq, script[0] == 'a' ? BLY_STDOUT : BLY_STDERR,
                                           script + 2, len - 2),
                             0);
        seq++;
        script += len + strspn(script + len, " ");
    }
}

static void check_ring(void **state)
{
    const struct ring_case *c = *state;
    struct bly_chunk chunk = {0};
    struct bly_ring *ring;
    char kept[512] = "";

    assert_int_equal(bly_ring_new(c->max_bytes, c->max_chunks, &ring), 0);
    run_script(ring, c->script);
    while (bly_ring_next(ring, chunk.seq, &chunk) == 0)
        (void)snprintf(kept + strlen(kept), sizeof(kept) - strlen(kept), "%d%c %.*s,",
                       (int)chunk.seq, chunk.stream == BLY_STDOUT ? 'a' : 'b', (int)chunk.len,
                       (const char *)chunk.data);
    assert_string_equal(kept, c->kept);
    assert_null(bly_ring_free(ring));
}

static void next_finds_the_first_above_any_number(void **state)
{
    struct bly_ring *ring;
    struct bly_chunk chunk;

    (void)state;
    assert_int_equal(bly_ring_new(1000, 1000, &ring), 0);
    for (uint64_t seq = 10; seq <= 1000; seq += 10)
        assert_int_equal(bly_ring_push(ring, seq, BLY_STDOUT, "x", 1), 0);
    for (uint64_t after = 0; after < 1000; after++) {
        assert_int_equal(bly_ring_next(ring, after, &chunk), 0);
        assert_int_equal(chunk.seq, after / 10 * 10 + 10);
    }
    assert_int_equal(bly_ring_next(ring, 1000, &chunk), BLY_RING_EMPTY);
    assert_int_equal(bly_ring_next(ring, UINT64_MAX, &chunk), BLY_RING_EMPTY);
    bly_ring_free(ring);
}

static const struct denial_case {
    const char *name;
    const char *script;
    int exit_code;
    bool refused;
    enum bly_evidence evidence;
} denial_cases[] = {
    {"success is never a denial", "b:Permission_denied", 0, false, BLY_EVIDENCE_NONE},
    {"a plain failure is none", "b:no_such_file", 1, false, BLY_EVIDENCE_NONE},
    {"no output", "", 1, false, BLY_EVIDENCE_NONE},
    {"Operation not permitted", "b:Operation_not_permitted", 1, false, BLY_EVIDENCE_WORDS},
    {"Permission denied", "b:x:_PERMISSION_DENIED\n", 1, false, BLY_EVIDENCE_WORDS},
    {"Read-only file system", "a:Read-only_file_system", 1, false, BLY_EVIDENCE_WORDS},
    {"seccomp", "b:bad_seccomp_thing", 1, false, BLY_EVIDENCE_WORDS},
    {"sandbox", "b:Sandbox!", 1, false, BLY_EVIDENCE_WORDS},
    {"landlock", "b:LandLock", 1, false, BLY_EVIDENCE_WORDS},
    {"failed to write file", "b:failed_to_write_file", 1, false, BLY_EVIDENCE_WORDS},
    {"a sign split over chunks", "b:permis b:sion_denied", 1, false, BLY_EVIDENCE_WORDS},
    {"a sign split by the other stream still counts", "b:permis a:xx b:sion_denied", 1, false,
     BLY_EVIDENCE_WORDS},
    {"two streams do not make a sign together", "b:permis a:sion_denied", 1, false,
     BLY_EVIDENCE_NONE},
    {"a shell's own exit codes with a sign", "b:permission_denied", 126, false, BLY_EVIDENCE_WORDS},
    {"a shell's own exit codes without", "b:not_found", 127, false, BLY_EVIDENCE_NONE},
    {"exit code 2 without a sign", "b:usage", 2, false, BLY_EVIDENCE_NONE},
    {"SIGSYS", "", 159, false, BLY_EVIDENCE_SIGNAL},
    {"SIGKILL", "", 137, false, BLY_EVIDENCE_NONE},
    {"SIGSYS, with a sign", "b:seccomp", 159, false, BLY_EVIDENCE_SIGNAL},
    {"a known refusal without a word", "", 1, true, BLY_EVIDENCE_SUPERVISED},
    {"a known refusal, with a sign", "b:read-only_file_system", 1, true, BLY_EVIDENCE_SUPERVISED},
    {"a known refusal, and one of a shell's own exit codes", "", 2, true, BLY_EVIDENCE_SUPERVISED},
    {"a known refusal that did not matter", "b:Permission_denied", 0, true, BLY_EVIDENCE_NONE},
};

static void check_denial(void **state)
{
    const struct denial_case *c = *state;
    char script[256];
    struct bly_ring *ring;

    (void)snprintf(script, sizeof(script), "%s", c->script);
    assert_int_equal(bly_ring_new(1 << 20, 1000, &ring), 0);
    for (char *s = script; *s != '\0'; s++) /* Spaces separate chunks in a script. */
        *s = *s == ' ' ? '\1' : *s;
    for (char *s = strtok(script, "\1"); s != NULL; s = strtok(NULL, "\1")) {
        static uint64_t seq;

        for (char *u = s; *u != '\0'; u++)
            *u = *u == '_' ? ' ' : *u;
        assert_int_equal(
            bly_ring_push(ring, ++seq, s[0] == 'a' ? BLY_STDOUT : BLY_STDERR, s + 2, strlen(s + 2)),
            0);
    }
    assert_int_equal(bly_denial_evidence(ring, c->exit_code, c->refused), c->evidence);
    bly_ring_free(ring);
}

static void only_the_tail_counts(void **state)
{
    static char filler[60000];
    struct bly_ring *ring;

    (void)state;
    memset(filler, '.', sizeof(filler));
    assert_int_equal(bly_ring_new(1 << 20, 1000, &ring), 0);
    assert_int_equal(bly_ring_push(ring, 1, BLY_STDERR, "permission denied", 17), 0);
    assert_int_equal(bly_ring_push(ring, 2, BLY_STDERR, filler, sizeof(filler)), 0);
    assert_int_equal(bly_denial_evidence(ring, 1, false), BLY_EVIDENCE_WORDS);
    assert_int_equal(bly_ring_push(ring, 3, BLY_STDERR, filler, sizeof(filler)), 0);
    assert_int_equal(bly_denial_evidence(ring, 1, false), BLY_EVIDENCE_NONE);
    bly_ring_free(ring);
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(ring_cases) + BLY_LEN(denial_cases) + 2] = {0};
    size_t n = 0;

    ADD_ROWS(tests, n, ring_cases, check_ring);
    ADD_ROWS(tests, n, denial_cases, check_denial);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(next_finds_the_first_above_any_number);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(only_the_tail_counts);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
