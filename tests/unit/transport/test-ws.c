#include "transport/ws.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"

/* How a case's bytes reach the receiver. */
enum feed { WHOLE, BY_BYTE, INTO_TAIL, N_FEEDS };

/*
 * What came out, as text: "m:PAYLOAD" for a message, "i:" ping, "o:" pong, "c:CODE" close, "!CODE"
 * failure, each followed by a blank; "+" when bytes are left in an unfinished frame or message.
 */
struct trace {
    char text[256];
    size_t len;
    bool failed;
};

static void note(struct trace *trace, const char *kind, const void *data, size_t len)
{
    assert_true(trace->len + strlen(kind) + len + 2 < sizeof(trace->text));
    memcpy(trace->text + trace->len, kind, strlen(kind));
    trace->len += strlen(kind);
    memcpy(trace->text + trace->len, data, len);
    trace->len += len;
    trace->text[trace->len++] = ' ';
}

static void note_code(struct trace *trace, const char *kind, unsigned code)
{
    char text[16];

    note(trace, kind, text, (size_t)snprintf(text, sizeof(text), "%u", code));
}

static void note_event(struct trace *trace, struct bly_ws_event *event)
{
    switch (event->type) {
    case BLY_WS_EVENT_MESSAGE:
        assert_memory_equal(event->text + event->len, "\0\0\0\0", 4);
        note(trace, "m:", event->text, event->len);
        free(event->text);
        break;
    case BLY_WS_EVENT_PING:
        note(trace, "i:", event->payload, event->payload_len);
        break;
    case BLY_WS_EVENT_PONG:
        note(trace, "o:", event->payload, event->payload_len);
        break;
    case BLY_WS_EVENT_CLOSE:
        note_code(trace, "c:", event->code);
        break;
    case BLY_WS_MORE:
        break;
    }
}

static void feed_piece(struct bly_ws_receiver *r, uint8_t *data, size_t len, struct trace *trace)
{
    size_t at = 0;

    while (at < len && !trace->failed) {
        struct bly_ws_event event;
        size_t used;

        if (bly_ws_receive(r, data + at, len - at, &used, &event) < 0) {
            assert_non_null(event.reason);
            note_code(trace, "!", event.code);
            trace->failed = true;
            return;
        }
        assert_true(used > 0);
        at += used;
        note_event(trace, &event);
    }
}

static void feed(enum feed how, struct bly_ws_receiver *r, const char *bytes, size_t len,
                 struct trace *trace)
{
    bly_autofree uint8_t *copy = malloc(len + 1);
    size_t at = 0;

    assert_non_null(copy);
    memcpy(copy, bytes, len);
    while (at < len && !trace->failed) {
        size_t room, n = how == WHOLE ? len : 1;
        uint8_t *tail = how == INTO_TAIL ? bly_ws_receiver_tail(r, &room) : NULL;

        if (tail) {
            n = room < len - at ? room : len - at;
            memcpy(tail, copy + at, n);
            feed_piece(r, tail, n, trace);
        } else {
            feed_piece(r, copy + at, n, trace);
        }
        at += n;
    }
}

static const struct frames_case {
    const char *name;
    const char *bytes;
    size_t len;
    const char *events;
    enum bly_ws_role role;
} frames_cases[] = {
#define BYTES(text) text, sizeof(text) - 1
/* The zero mask keeps payloads readable; masking has tests of its own. */
#define NOMASK "\0\0\0\0"
    {"an unfragmented text message", BYTES("\x81\x82" NOMASK "{}"), "m:{} "},
    {"a binary message is a message too", BYTES("\x82\x82" NOMASK "\xff\xfe"), "m:\xff\xfe "},
    {"a masked message", BYTES("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), "m:Hello "},
    {"an empty message", BYTES("\x81\x80" NOMASK), "m: "},
    {"two messages in one read", BYTES("\x81\x81" NOMASK "1\x81\x81" NOMASK "2"), "m:1 m:2 "},
    {"a message in three fragments",
     BYTES("\x01\x81" NOMASK "a\x00\x81" NOMASK "b\x80\x81" NOMASK "c"), "m:abc "},
    {"an empty last fragment", BYTES("\x01\x81" NOMASK "a\x80\x80" NOMASK), "m:a "},
    {"fragments with a ping between them",
     BYTES("\x01\x81" NOMASK "a\x89\x81" NOMASK "p\x80\x81" NOMASK "b"), "i:p m:ab "},
    {"a character cut by a fragment border", BYTES("\x01\x81" NOMASK "\xc3\x80\x81" NOMASK "\xb6"),
     "m:\xc3\xb6 "},
    {"an empty ping", BYTES("\x89\x80" NOMASK), "i: "},
    {"a pong", BYTES("\x8a\x82" NOMASK "ab"), "o:ab "},
    {"close with a code", BYTES("\x88\x82" NOMASK "\x03\xe8"), "c:1000 "},
    {"close with code and reason",
     BYTES("\x88\x85" NOMASK "\x0f\xa0"
           "bye"),
     "c:4000 "},
    {"close without a code", BYTES("\x88\x80" NOMASK), "c:1005 "},
    {"half a frame says nothing", BYTES("\x81\x85" NOMASK "He"), ""},
    {"half a header says nothing", BYTES("\x81\xfe\x01"), ""},

    {"unmasked to a server", BYTES("\x81\x02{}"), "!1002 "},
    {"RSV1", BYTES("\xc1\x82" NOMASK "{}"), "!1002 "},
    {"RSV3", BYTES("\x91\x82" NOMASK "{}"), "!1002 "},
    {"reserved data opcode 3", BYTES("\x83\x82" NOMASK "{}"), "!1002 "},
    {"reserved control opcode 11", BYTES("\x8b\x80" NOMASK), "!1002 "},
    {"a stray continuation", BYTES("\x80\x81" NOMASK "a"), "!1002 "},
    {"a new message inside a message", BYTES("\x01\x81" NOMASK "a\x81\x81" NOMASK "b"), "!1002 "},
    {"a fragmented ping", BYTES("\x09\x80" NOMASK), "!1002 "},
    {"a ping of 126 bytes", BYTES("\x89\xfe\x00\x7e" NOMASK), "!1002 "},
    {"a length of 125 in two bytes", BYTES("\x81\xfe\x00\x7d" NOMASK), "!1002 "},
    {"a length of 65535 in eight bytes", BYTES("\x81\xff\0\0\0\0\0\0\xff\xff" NOMASK), "!1002 "},
    {"a length with the top bit", BYTES("\x81\xff\x80\0\0\0\0\1\0\0" NOMASK), "!1002 "},
    {"a close frame of one byte", BYTES("\x88\x81" NOMASK "\x03"), "!1002 "},
    {"close with the code 1005", BYTES("\x88\x82" NOMASK "\x03\xed"), "!1002 "},
    {"close with the code 999", BYTES("\x88\x82" NOMASK "\x03\xe7"), "!1002 "},
    {"close with a reason that is not UTF-8", BYTES("\x88\x83" NOMASK "\x03\xe8\xff"), "!1007 "},

    {"text that is not UTF-8", BYTES("\x81\x83" NOMASK "{\xff}"), "!1007 "},
    {"text that ends inside a character", BYTES("\x81\x82" NOMASK "a\xc3"), "!1007 "},
    {"what came before the bad frame is delivered",
     BYTES("\x81\x81" NOMASK "1\x81\x81" NOMASK "\xff"), "m:1 !1007 "},
    {"one byte above the limit of 1000", BYTES("\x81\xfe\x03\xe9" NOMASK), "!1009 "},
    {"a fragment that takes the sum above the limit",
     BYTES("\x01\x81" NOMASK "a\x80\xfe\x03\xe8" NOMASK), "!1009 "},
    {"the largest length there is", BYTES("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" NOMASK),
     "!1009 "},

    {"a client takes unmasked frames", BYTES("\x81\x02{}"), "m:{} ", BLY_WS_CLIENT},
    {"a client refuses masked frames", BYTES("\x81\x82" NOMASK "{}"), "!1002 ", BLY_WS_CLIENT},
};

static void check_frames(void **state)
{
    const struct frames_case *c = *state;

    for (enum feed how = 0; how < N_FEEDS; how++) {
        struct bly_ws_receiver r;
        struct trace trace = {0};

        bly_ws_receiver_init(&r, c->role, 1000);
        feed(how, &r, c->bytes, c->len, &trace);
        bly_ws_receiver_deinit(&r);
        assert_string_equal(trace.text, c->events);
    }
}

static const struct utf8_case {
    const char *name;
    const char *text;
    bool valid;
} utf8_cases[] = {
    {"ASCII", "plain text, long enough for a word or two", true},
    {"two, three and four bytes", "\xc2\x80 \xe2\x82\xac \xf0\x9f\x98\x80", true},
    {"the last character", "\xf4\x8f\xbf\xbf", true},
    {"around the surrogates", "\xed\x9f\xbf\xee\x80\x80", true},
    {"a non-character is a character", "\xef\xbf\xbf", true},
    {"a character after eight ASCII bytes",
     "12345678\xc3\xb6"
     "12345678",
     true},
    {"overlong slash, two bytes", "\xc0\xaf", false},
    {"overlong, C1", "\xc1\xbf", false},
    {"overlong, three bytes", "\xe0\x9f\xbf", false},
    {"overlong, four bytes", "\xf0\x8f\xbf\xbf", false},
    {"a surrogate", "\xed\xa0\x80", false},
    {"above U+10FFFF", "\xf4\x90\x80\x80", false},
    {"F5", "\xf5\x80\x80\x80", false},
    {"a stray continuation", "a\x80", false},
    {"a continuation missing", "\xe2\x82 ", false},
    {"cut at the end", "\xe2\x82", false},
    {"bad byte late in a word", "1234567\xff", false},
};

static void check_utf8(void **state)
{
    const struct utf8_case *c = *state;
    size_t len = strlen(c->text);

    /* Cut at every place: the verdict must not depend on how the text arrives. */
    for (size_t cut = 0; cut <= len; cut++) {
        struct bly_utf8 utf8 = {0};
        bool valid = bly_utf8_feed(&utf8, (const uint8_t *)c->text, cut) &&
                     bly_utf8_feed(&utf8, (const uint8_t *)c->text + cut, len - cut) &&
                     utf8.left == 0;

        assert_int_equal(valid, c->valid);
    }
}

static void masking_is_the_byte_loop_of_the_standard(void **state)
{
    static const uint8_t mask[4] = {0x01, 0x80, 0xff, 0x5a};
    uint8_t data[67], copy[67], want[67];

    (void)state;
    for (size_t at = 0; at < 9; at++) {
        for (size_t len = 0; len <= sizeof(data); len++) {
            for (size_t i = 0; i < len; i++) {
                data[i] = (uint8_t)(i * 7);
                want[i] = data[i] ^ mask[(at + i) % 4];
            }
            bly_ws_mask(copy, data, len, mask, at);
            assert_memory_equal(copy, want, len);
            bly_ws_mask(data, data, len, mask, at);
            assert_memory_equal(data, want, len);
        }
    }
}

/* What counts is the text and not what goes over the wire: this mask turns every byte around. */
static void unmasking_tells_whether_the_text_is_ascii(void **state)
{
    static const uint8_t mask[4] = {0x80, 0xff, 0x81, 0xaa};
    uint8_t text[67], data[67], got[67];

    (void)state;
    for (size_t len = 0; len <= sizeof(text); len++) {
        for (size_t odd = 0; odd <= len; odd++) {
            memset(text, 'x', sizeof(text));
            if (odd < len)
                text[odd] = 0x80;
            bly_ws_mask(data, text, len, mask, 3);
            assert_int_equal(bly_ws_mask(got, data, len, mask, 3), odd == len);
            assert_memory_equal(got, text, len);
        }
    }
}

static const struct header_case {
    const char *name;
    uint64_t payload;
    bool fin;
    const char *mask;
    const char *bytes;
    size_t len;
} header_cases[] = {
    {"empty", 0, true, NULL, BYTES("\x81\x00")},
    {"125 bytes", 125, true, NULL, BYTES("\x81\x7d")},
    {"126 bytes", 126, true, NULL, BYTES("\x81\x7e\x00\x7e")},
    {"65535 bytes", 65535, false, NULL, BYTES("\x01\x7e\xff\xff")},
    {"65536 bytes", 65536, true, NULL, BYTES("\x81\x7f\0\0\0\0\0\1\0\0")},
    {"masked", 1, true, "abcd",
     BYTES("\x81\x81"
           "abcd")},
};

static void check_header(void **state)
{
    const struct header_case *c = *state;
    uint8_t head[BLY_WS_HEAD_MAX];

    assert_int_equal(
        bly_ws_put_header(head, BLY_WS_TEXT, c->fin, c->payload, (const uint8_t *)c->mask), c->len);
    assert_memory_equal(head, c->bytes, c->len);
}

static void accept_value_of_the_standard(void **state)
{
    static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
    char accept[BLY_WS_ACCEPT_LEN + 1];

    (void)state;
    bly_ws_accept(key, strlen(key), accept);
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

enum { PAD = 40 }; /* ASCII on both sides: more than what is looked at in one step */

/* Whether the case is taken as a message that comes in two pieces, padded and masked. */
static bool is_taken(const char *text, size_t len, size_t cut)
{
    uint8_t frame[BLY_WS_HEAD_MAX + 2 * PAD + 64], payload[2 * PAD + 64];
    static const uint8_t mask[4] = {0x80, 0xff, 0x81, 0xaa};
    size_t n = bly_ws_put_header(frame, BLY_WS_TEXT, true, len + 2 * PAD, mask), used;
    struct bly_ws_event event = {0};
    struct bly_ws_receiver r;
    int error;

    assert_true(len <= 64);
    memset(payload, 'x', sizeof(payload));
    memcpy(payload + PAD, text, len);
    bly_ws_mask(frame + n, payload, len + 2 * PAD, mask, 0);

    bly_ws_receiver_init(&r, BLY_WS_SERVER, 1000);
    error = bly_ws_receive(&r, frame, n + cut, &used, &event);
    if (error == 0)
        error = bly_ws_receive(&r, frame + n + cut, len + 2 * PAD - cut, &used, &event);
    assert_true(error == 0 || error == -EILSEQ);
    if (error == 0) {
        assert_int_equal(event.type, BLY_WS_EVENT_MESSAGE);
        assert_memory_equal(event.text, payload, len + 2 * PAD);
        free(event.text);
    }
    bly_ws_receiver_deinit(&r);
    return error == 0;
}

static void utf8_is_checked_in_every_piece_of_a_message(void **state)
{
    (void)state;
    for (size_t i = 0; i < BLY_LEN(utf8_cases); i++) {
        const struct utf8_case *c = &utf8_cases[i];
        size_t len = strlen(c->text);

        for (size_t cut = 0; cut < len + 2 * PAD; cut++)
            assert_int_equal(is_taken(c->text, len, cut), c->valid);
    }
}

static void an_announced_length_costs_nothing(void **state)
{
    /* One GiB announced, one byte sent. */
    uint8_t head[] = "\x82\xff\0\0\0\0\x40\0\0\0\0\0\0\0x";
    struct bly_ws_receiver r;
    struct bly_ws_event event;
    size_t used, room;

    (void)state;
    bly_ws_receiver_init(&r, BLY_WS_SERVER, UINT64_C(2) << 30);
    assert_int_equal(bly_ws_receive(&r, head, sizeof(head) - 1, &used, &event), 0);
    assert_int_equal(event.type, BLY_WS_MORE);
    assert_non_null(bly_ws_receiver_tail(&r, &room));
    assert_true(r.cap <= 1 << 20);
    bly_ws_receiver_deinit(&r);
}

static void many_small_fragments_make_one_message(void **state)
{
    enum { PARTS = 100000 };
    struct bly_ws_receiver r;
    struct bly_ws_event event = {0};
    size_t used;

    (void)state;
    bly_ws_receiver_init(&r, BLY_WS_SERVER, 1 << 20);
    for (size_t i = 0; i < PARTS; i++) {
        uint8_t part[] = {i == 0 ? 0x01 : i + 1 == PARTS ? 0x80 : 0x00, 0x81, 0, 0, 0, 0, 'x'};

        assert_int_equal(bly_ws_receive(&r, part, sizeof(part), &used, &event), 0);
        assert_int_equal(used, sizeof(part));
    }
    assert_int_equal(event.type, BLY_WS_EVENT_MESSAGE);
    assert_int_equal(event.len, PARTS);
    for (size_t i = 0; i < PARTS; i++)
        assert_true(event.text[i] == 'x');
    free(event.text);
    bly_ws_receiver_deinit(&r);
}

#define ROWS BLY_LEN(frames_cases) + BLY_LEN(utf8_cases) + BLY_LEN(header_cases)

int main(void)
{
    struct CMUnitTest tests[ROWS + 6] = {
        cmocka_unit_test(masking_is_the_byte_loop_of_the_standard),
        cmocka_unit_test(unmasking_tells_whether_the_text_is_ascii),
        cmocka_unit_test(utf8_is_checked_in_every_piece_of_a_message),
        cmocka_unit_test(accept_value_of_the_standard),
        cmocka_unit_test(an_announced_length_costs_nothing),
        cmocka_unit_test(many_small_fragments_make_one_message),
    };
    size_t n = 6;

    for (size_t i = 0; i < BLY_LEN(frames_cases); i++)
        tests[n++] = (struct CMUnitTest){.name = frames_cases[i].name,
                                         .test_func = check_frames,
                                         .initial_state = (void *)(uintptr_t)&frames_cases[i]};
    for (size_t i = 0; i < BLY_LEN(utf8_cases); i++)
        tests[n++] = (struct CMUnitTest){.name = utf8_cases[i].name,
                                         .test_func = check_utf8,
                                         .initial_state = (void *)(uintptr_t)&utf8_cases[i]};
    for (size_t i = 0; i < BLY_LEN(header_cases); i++)
        tests[n++] = (struct CMUnitTest){.name = header_cases[i].name,
                                         .test_func = check_header,
                                         .initial_state = (void *)(uintptr_t)&header_cases[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
