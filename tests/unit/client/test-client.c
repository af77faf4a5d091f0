#include "bailey/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "transport/ws.h"

/*
 * A server that follows a script: what it must hear and what it says, in order. It stops at the
 * first thing that is not as written, and says so.
 */
enum verb {
    END,
    HEAR,      /* a message that is exactly `text` */
    SAY,       /* one message */
    SAY_PARTS, /* one message in frames of seven bytes, with pings in between */
    PING,      /* and hear the pong */
    SAY_RAW,   /* bytes as they are */
    CLOSE,     /* close frame 1001, and hear the answer */
    WAIT_END,  /* the client ends the connection */
    SAY_BIG,   /* the answer of a call 2 with `n` bytes of base64, in frames of 8 MiB */
    BABBLE,    /* `n` notifications of 64 KiB, without reading anything */
    HEAR_BIG,  /* any message of at least `n` bytes */
};

struct step {
    enum verb verb;
    const char *text;
    size_t n;
};

struct script {
    int listen_fd, fd, port;
    const char *answer; /* to the upgrade; NULL: the right one */
    const struct step *steps;
    pthread_t thread;
    char fault[1024];
};

static int fault(struct script *s, const char *what, const char *got)
{
    snprintf(s->fault, sizeof(s->fault), "%s: %.800s", what, got);
    return -1;
}

static int read_exactly(struct script *s, void *data, size_t len)
{
    uint8_t *p = data;

    while (len > 0) {
        struct pollfd pfd = {.fd = s->fd, .events = POLLIN};
        ssize_t n = poll(&pfd, 1, 10000) == 1 ? recv(s->fd, p, len, 0) : -1;

        if (n <= 0)
            return fault(s, "cannot read", n == 0 ? "end of file" : "nothing comes");
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

static int say_bytes(struct script *s, const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = send(s->fd, p, len, MSG_NOSIGNAL);

        if (n <= 0)
            return fault(s, "cannot write", "");
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

static int say_frame(struct script *s, unsigned first, const void *data, size_t len)
{
    uint8_t head[BLY_WS_HEAD_MAX];
    size_t n = bly_ws_put_header(head, BLY_WS_TEXT, true, len, NULL);

    head[0] = (uint8_t)first;
    return say_bytes(s, head, n) < 0 ? -1 : say_bytes(s, data, len);
}

/* The next frame, unmasked; it must be masked. */
static int hear_frame(struct script *s, unsigned *ret_first, char **ret_data, size_t *ret_len)
{
    uint8_t head[2], ext[8], mask[4];
    uint64_t len;
    size_t n;
    char *data;

    if (read_exactly(s, head, 2) < 0)
        return -1;
    if (!(head[1] & 0x80))
        return fault(s, "the client does not mask", "");
    len = head[1] & 0x7f;
    n = len == 126 ? 2 : len == 127 ? 8 : 0;
    if (read_exactly(s, ext, n) < 0 || read_exactly(s, mask, 4) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        len = (i == 0 ? 0 : len << 8) | ext[i];
    data = malloc(len + 1);
    if (!data || read_exactly(s, data, len) < 0) {
        free(data);
        return -1;
    }
    for (size_t i = 0; i < len; i++)
        data[i] ^= (char)mask[i % 4];
    data[len] = '\0';
    *ret_first = head[0];
    *ret_data = data;
    *ret_len = len;
    return 0;
}

static int hear(struct script *s, unsigned first, const char *text)
{
    bly_autofree char *got = NULL;
    unsigned got_first;
    size_t len;

    if (hear_frame(s, &got_first, &got, &len) < 0)
        return -1;
    if (got_first != first || (text && strcmp(got, text) != 0))
        return fault(s, text, got);
    return 0;
}

static int hear_big(struct script *s, size_t least)
{
    bly_autofree char *got = NULL;
    unsigned first;
    size_t len;

    if (hear_frame(s, &first, &got, &len) < 0)
        return -1;
    return len < least ? fault(s, "too short", got) : 0;
}

static int say_parts(struct script *s, const char *text)
{
    size_t len = strlen(text);

    for (size_t at = 0; at < len; at += 7) {
        size_t n = len - at < 7 ? len - at : 7;
        unsigned first = (at == 0 ? 0x1 : 0x0) | (at + n == len ? 0x80 : 0);

        if (say_frame(s, first, text + at, n) < 0 || say_frame(s, 0x89, "p", 1) < 0)
            return -1;
        if (hear(s, 0x8a, "p") < 0)
            return -1;
    }
    return 0;
}

static int say_big(struct script *s, size_t n)
{
    enum { FRAME = 8 << 20 };
    static const char head[] = "{\"id\":2,\"result\":{\"dataBase64\":\"";
    size_t len = sizeof(head) - 1 + n + 3;
    bly_autofree char *text = malloc(len);
    int r = text ? 0 : -1;

    if (text) {
        memset(text, 'A', len);
        memcpy(text, head, sizeof(head) - 1);
        memcpy(text + len - 3, "\"}}", 3);
    }
    for (size_t at = 0; r == 0 && at < len; at += FRAME) {
        size_t part = len - at < FRAME ? len - at : FRAME;

        r = say_frame(s, (at == 0 ? 0x1 : 0x0) | (at + part == len ? 0x80 : 0), text + at, part);
    }
    return r;
}

static int babble(struct script *s, size_t n)
{
    char text[65536 + 64];
    int len = snprintf(text, sizeof(text), "{\"method\":\"x\",\"params\":{\"p\":\"%065000d\"}}", 0);
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = say_frame(s, 0x81, text, (size_t)len);
    return r;
}

static int follow(struct script *s, const struct step *step)
{
    char byte;

    switch (step->verb) {
    case HEAR:
        return hear(s, 0x81, step->text);
    case SAY:
        return say_frame(s, 0x81, step->text, strlen(step->text));
    case SAY_PARTS:
        return say_parts(s, step->text);
    case PING:
        return say_frame(s, 0x89, "hello", 5) < 0 ? -1 : hear(s, 0x8a, "hello");
    case SAY_RAW:
        return say_bytes(s, step->text, step->n);
    case CLOSE:
        return say_frame(s, 0x88, "\x03\xe9", 2) < 0 ? -1 : hear(s, 0x88, "\x03\xe9");
    case WAIT_END:
        return recv(s->fd, &byte, 1, 0) == 0 ? 0 : fault(s, "no end of file", "");
    case SAY_BIG:
        return say_big(s, step->n);
    case BABBLE:
        return babble(s, step->n);
    case HEAR_BIG:
        return hear_big(s, step->n);
    case END:
        break;
    }
    return -1;
}

static int upgrade(struct script *s)
{
    char head[2048] = "", text[512], accept[BLY_WS_ACCEPT_LEN + 1], *key;
    size_t len = 0;

    while (!strstr(head, "\r\n\r\n")) {
        if (len + 1 >= sizeof(head) || read_exactly(s, head + len++, 1) < 0)
            return -1;
    }
    key = strstr(head, "\r\nSec-WebSocket-Key: ");
    if (strncmp(head, "GET / HTTP/1.1\r\n", 16) != 0 || !key || strstr(head, "Origin"))
        return fault(s, "not the upgrade of a client", head);
    key += 21;
    bly_ws_accept(key, strcspn(key, "\r"), accept);
    snprintf(text, sizeof(text),
             "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
             "sec-websocket-accept:   %s\r\n\r\n",
             accept);
    return say_bytes(s, s->answer ? s->answer : text, strlen(s->answer ? s->answer : text));
}

static void *serve(void *arg)
{
    struct script *s = arg;

    s->fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (s->fd >= 0 && upgrade(s) == 0) {
        for (const struct step *step = s->steps; step->verb != END; step++) {
            if (follow(s, step) < 0)
                break;
        }
    }
    s->fd = bly_close(s->fd);
    return NULL;
}

static struct script script;
static char url[64];

static void start_thread(void *(*run)(void *), const char *answer, const struct step *steps)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);

    script = (struct script){.fd = -EBADF, .answer = answer, .steps = steps};
    script.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(script.listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(script.listen_fd, 1), 0);
    assert_int_equal(getsockname(script.listen_fd, (struct sockaddr *)&address, &len), 0);
    snprintf(url, sizeof(url), "ws://127.0.0.1:%d", ntohs(address.sin_port));
    assert_int_equal(pthread_create(&script.thread, NULL, run, &script), 0);
}

static void start(const char *answer, const struct step *steps)
{
    start_thread(serve, answer, steps);
}

/* The script must have been followed to its end. */
static void finish(struct bly_client *client)
{
    bly_client_free(client);
    pthread_join(script.thread, NULL);
    close(script.listen_fd);
    assert_string_equal(script.fault, "");
}

#define HELLO                                                                          \
    {HEAR, "{\"id\":1,\"method\":\"initialize\",\"params\":"                           \
           "{\"clientName\":\"bailey-client\",\"resumeSessionId\":null}}"},            \
        {SAY, "{\"id\":1,\"result\":{\"sessionId\":\"s-1\",\"environmentInfo\":{}}}"}, \
    {                                                                                  \
        HEAR, "{\"method\":\"initialized\",\"params\":{}}"                             \
    }

static struct bly_client *meet(const struct step *steps)
{
    struct bly_client_error error = {0};
    struct bly_client *client;

    start(NULL, steps);
    client = bly_client_connect(url, NULL, 10000, &error);
    if (!client)
        fail_msg("cannot connect: %s (%s)", error.message, script.fault);
    return client;
}

static void the_handshake_is_that_of_the_real_clients(void **state)
{
    static const struct step steps[] = {HELLO, {WAIT_END}, {END}};
    struct bly_client *client = meet(steps);

    (void)state;
    assert_string_equal(bly_client_session_id(client), "s-1");
    finish(client);
}

static void a_session_is_resumed_by_name(void **state)
{
    static const struct step steps[] = {
        {HEAR, "{\"id\":1,\"method\":\"initialize\",\"params\":"
               "{\"clientName\":\"bailey-client\",\"resumeSessionId\":\"old \\\"one\\\"\"}}"},
        {SAY, "{\"error\":{\"code\":-32600,\"message\":\"unknown session id old\"},\"id\":1}"},
        {WAIT_END},
        {END}};
    struct bly_client_error error = {0};

    (void)state;
    start(NULL, steps);
    assert_null(bly_client_connect(url, "old \"one\"", 10000, &error));
    assert_int_equal(error.code, -32600);
    assert_string_equal(error.message, "unknown session id old");
    finish(NULL);
}

static void notifications_wait_in_order_while_a_call_waits(void **state)
{
    static const struct step steps[] = {
        HELLO,
        {HEAR, "{\"id\":2,\"method\":\"some/thing\",\"params\":{\"a\":1}}"},
        {SAY, "{\"method\":\"n/one\",\"params\":{\"x\":[1,2]}}"},
        {SAY, "{\"method\":\"n/two\"}"},
        {SAY, "{\"id\":-1,\"error\":{\"code\":-32600,\"message\":\"stray\"}}"},
        {PING},
        {SAY_PARTS, "{\"id\":2,\"result\":{\"text\":\"caf\xc3\xa9\"}}"},
        {SAY, "{\"method\":\"n/three\",\"params\":null}"},
        {WAIT_END},
        {END}};
    static const char *const want[][2] = {
        {"n/one", "{\"x\":[1,2]}"},
        {"n/two", "null"},
        {"", "{\"id\":-1,\"error\":{\"code\":-32600,\"message\":\"stray\"}}"},
        {"n/three", "null"}};
    struct bly_client *client = meet(steps);
    struct bly_client_error error;
    char *text = NULL;

    (void)state;
    assert_int_equal(bly_client_call(client, "some/thing", "{\"a\":1}", &text, &error), 0);
    assert_string_equal(text, "{\"text\":\"caf\xc3\xa9\"}");
    free(text);

    for (size_t i = 0; i < BLY_LEN(want); i++) {
        char *method, *params;

        assert_int_equal(bly_client_next_notification(client, 10000, &method, &params), 0);
        assert_string_equal(method, want[i][0]);
        assert_string_equal(params, want[i][1]);
        free(method);
        free(params);
    }
    assert_int_equal(bly_client_next_notification(client, 0, &text, &text), -ETIMEDOUT);
    finish(client);
}

static void an_error_answer_is_handed_on(void **state)
{
    static const struct step steps[] = {
        HELLO,
        {HEAR, "{\"id\":2,\"method\":\"fs/remove\",\"params\":{\"path\":\"file:///a%20b\","
               "\"sandbox\":{\"s\":1},\"recursive\":true,\"force\":false}}"},
        {SAY, "{\"error\":{\"code\":-32004,\"message\":\"No such file or directory\"},\"id\":2}"},
        {WAIT_END},
        {END}};
    struct bly_client *client = meet(steps);
    struct bly_client_error error;

    (void)state;
    assert_int_equal(bly_client_remove(client, "/a b", true, false, "{\"s\":1}", &error),
                     -EREMOTEIO);
    assert_int_equal(error.code, -32004);
    assert_string_equal(error.message, "No such file or directory");
    finish(client);
}

static void file_calls_speak_the_protocol(void **state)
{
    static const struct step steps[] = {
        HELLO,
        {HEAR, "{\"id\":2,\"method\":\"fs/readFile\",\"params\":{\"path\":\"file:///w/f\"}}"},
        {SAY, "{\"id\":2,\"result\":{\"dataBase64\":\"aGkK\"}}"},
        {HEAR, "{\"id\":3,\"method\":\"fs/writeFile\",\"params\":{\"path\":\"file:///w/f\","
               "\"dataBase64\":\"AAE=\"}}"},
        {SAY, "{\"id\":3,\"result\":{}}"},
        {HEAR, "{\"id\":4,\"method\":\"fs/createDirectory\",\"params\":{\"path\":\"file:///w/d\","
               "\"recursive\":false}}"},
        {SAY, "{\"id\":4,\"result\":{}}"},
        {HEAR, "{\"id\":5,\"method\":\"fs/copy\",\"params\":{\"sourcePath\":\"file:///w/f\","
               "\"destinationPath\":\"file:///w/g\",\"recursive\":false,\"sandbox\":{}}}"},
        {SAY, "{\"id\":5,\"result\":{}}"},
        {HEAR, "{\"id\":6,\"method\":\"fs/getMetadata\",\"params\":{\"path\":\"file:///w/f\"}}"},
        {SAY, "{\"id\":6,\"result\":{\"isDirectory\":false,\"isFile\":true,\"isSymlink\":true,"
              "\"size\":9,\"createdAtMs\":0,\"modifiedAtMs\":1700000000123}}"},
        {HEAR, "{\"id\":7,\"method\":\"fs/readFile\",\"params\":{\"path\":\"file:///w/f\"}}"},
        {SAY, "{\"id\":7,\"result\":{\"dataBase64\":\"*\"}}"},
        {WAIT_END},
        {END}};
    struct bly_client *client = meet(steps);
    struct bly_client_metadata metadata;
    struct bly_client_error error;
    uint8_t *data;
    size_t len;

    (void)state;
    assert_int_equal(bly_client_read_file(client, "/w/f", NULL, &data, &len, &error), 0);
    assert_int_equal(len, 3);
    assert_memory_equal(data, "hi\n", 3);
    free(data);
    assert_int_equal(bly_client_write_file(client, "/w/f", "\0\1", 2, NULL, &error), 0);
    assert_int_equal(bly_client_create_directory(client, "/w/d", false, NULL, &error), 0);
    assert_int_equal(bly_client_copy(client, "/w/f", "/w/g", false, "{}", &error), 0);
    assert_int_equal(bly_client_metadata(client, "/w/f", NULL, &metadata, &error), 0);
    assert_true(metadata.is_file && metadata.is_symlink && !metadata.is_directory);
    assert_int_equal(metadata.size, 9);
    assert_int_equal(metadata.modified_at_ms, 1700000000123);
    assert_int_equal(bly_client_read_file(client, "/w/f", NULL, &data, &len, &error), -EBADMSG);
    finish(client);
}

static void sixty_mib_arrive_in_frames_of_eight(void **state)
{
    enum { TEXT = 60 << 20 };
    static const struct step steps[] = {
        HELLO, {HEAR_BIG, NULL, 1}, {SAY_BIG, NULL, TEXT}, {WAIT_END}, {END}};
    struct bly_client *client = meet(steps);
    struct bly_client_error error;
    uint8_t *data;
    size_t len;

    (void)state;
    assert_int_equal(bly_client_read_file(client, "/big", NULL, &data, &len, &error), 0);
    assert_int_equal(len, TEXT / 4 * 3);
    free(data);
    finish(client);
}

static void both_sides_may_talk_at_once(void **state)
{
    enum { DATA = 24 << 20 };
    /* The server says more than any socket buffer holds before it listens. */
    static const struct step steps[] = {HELLO,
                                        {BABBLE, NULL, 500},
                                        {HEAR_BIG, NULL, DATA},
                                        {SAY, "{\"id\":2,\"result\":{}}"},
                                        {WAIT_END},
                                        {END}};
    struct bly_client *client = meet(steps);
    struct bly_client_error error;
    char *data = calloc(1, DATA), *method, *params;

    (void)state;
    assert_non_null(data);
    assert_int_equal(bly_client_write_file(client, "/big", data, DATA, NULL, &error), 0);
    free(data);
    for (int i = 0; i < 500; i++) {
        assert_int_equal(bly_client_next_notification(client, 0, &method, &params), 0);
        free(method);
        free(params);
    }
    finish(client);
}

/* A run's process id is chosen by the client, so the script is a function here. */
static char run_start[2048], run_id[64];

static void *serve_run(void *arg)
{
    struct script *s = arg;
    static const struct step hello[] = {HELLO, {END}};
    static const char *const events[] = {
        "{\"id\":2,\"result\":{\"processId\":\"%s\",\"sandboxType\":\"none\"}}",
        "{\"method\":\"process/output\",\"params\":{\"processId\":\"other\",\"seq\":1,"
        "\"stream\":\"stdout\",\"chunk\":\"eA==\"}}%.0s",
        "{\"method\":\"process/output\",\"params\":{\"processId\":\"%s\",\"seq\":1,"
        "\"stream\":\"stdout\",\"chunk\":\"b3V0\"}}",
        "{\"method\":\"process/exited\",\"params\":{\"processId\":\"%s\",\"seq\":2,"
        "\"exitCode\":3,\"sandboxDenied\":true}}",
        "{\"method\":\"process/output\",\"params\":{\"processId\":\"%s\",\"seq\":3,"
        "\"stream\":\"stderr\",\"chunk\":\"ZXJy\"}}",
        "{\"method\":\"process/closed\",\"params\":{\"processId\":\"%s\",\"seq\":4}}",
    };
    bly_autofree char *got = NULL;
    unsigned first;
    size_t len;
    char *id;

    s->fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (s->fd < 0 || upgrade(s) < 0)
        return NULL;
    for (size_t i = 0; i < 3; i++)
        follow(s, &hello[i]);
    if (hear_frame(s, &first, &got, &len) < 0 || len >= sizeof(run_start))
        return NULL;
    memcpy(run_start, got, len + 1);
    id = strstr(got, "bailey-client-");
    snprintf(run_id, sizeof(run_id), "%.*s", id ? (int)strcspn(id, "\"") : 0, id ? id : "");

    for (size_t i = 0; i < BLY_LEN(events); i++) {
        char text[512];

/* The formats are the rows above. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof(text), events[i], run_id);
#pragma GCC diagnostic pop
        say_frame(s, 0x81, text, strlen(text));
    }
    follow(s, &(struct step){.verb = WAIT_END});
    s->fd = bly_close(s->fd);
    return NULL;
}

static void collect(void *arg, const char *stream, const uint8_t *data, size_t len)
{
    char *log = arg;
    size_t at = strlen(log);

    snprintf(log + at, 200 - at, "%s:%.*s ", stream, (int)len, (const char *)data);
}

static void a_run_hands_on_output_and_exit(void **state)
{
    static const char *const argv[] = {"sh", "-c", "echo \"x\"", NULL};
    static const char *const envp[] = {"A=1", "B=x=y", NULL};
    char log[200] = "", want[1024];
    struct bly_client_run run = {.argv = argv,
                                 .envp = envp,
                                 .cwd = "/w",
                                 .sandbox_json = "{\"s\":true}",
                                 .output = collect,
                                 .arg = log};
    struct bly_client_exit exited;
    struct bly_client_error error;
    struct bly_client *client;
    char *method, *params;

    (void)state;
    start_thread(serve_run, NULL, NULL);
    client = bly_client_connect(url, NULL, 10000, &error);
    assert_non_null(client);
    assert_int_equal(bly_client_run(client, &run, &exited, &error), 0);
    assert_int_equal(exited.exit_code, 3);
    assert_true(exited.sandbox_denied);
    assert_string_equal(log, "stdout:out stderr:err ");

    snprintf(want, sizeof(want),
             "{\"id\":2,\"method\":\"process/start\",\"params\":{\"processId\":\"%s\","
             "\"argv\":[\"sh\",\"-c\",\"echo \\\"x\\\"\"],\"cwd\":\"file:///w\","
             "\"env\":{\"A\":\"1\",\"B\":\"x=y\"},\"tty\":false,\"sandbox\":{\"s\":true}}}",
             run_id);
    assert_string_equal(run_start, want);

    /* Somebody else's output was not lost. */
    assert_int_equal(bly_client_next_notification(client, 0, &method, &params), 0);
    assert_string_equal(method, "process/output");
    free(method);
    free(params);
    finish(client);
}

static void silence_is_a_timeout_and_the_link_lives_on(void **state)
{
    static const struct step steps[] = {HELLO,
                                        {HEAR, "{\"id\":2,\"method\":\"slow\",\"params\":{}}"},
                                        {HEAR, "{\"id\":3,\"method\":\"quick\",\"params\":{}}"},
                                        {SAY, "{\"id\":2,\"result\":\"late\"}"},
                                        {SAY, "{\"id\":3,\"result\":\"soon\"}"},
                                        {WAIT_END},
                                        {END}};
    struct bly_client_error error;
    struct bly_client *client;
    char *text;

    (void)state;
    start(NULL, steps);
    client = bly_client_connect(url, NULL, 300, &error);
    assert_non_null(client);
    assert_int_equal(bly_client_call(client, "slow", "{}", &text, &error), -ETIMEDOUT);
    assert_int_equal(error.code, 0);
    assert_int_equal(bly_client_call(client, "quick", "{}", &text, &error), 0);
    assert_string_equal(text, "\"soon\"");
    free(text);
    finish(client);
}

static const struct ending {
    const char *name;
    struct step last;
    const char *message;
} endings[] = {
    {"end of file during a call", {END}, "the connection has ended: end of file"},
    {"a close frame during a call",
     {CLOSE},
     "the connection has ended: closed by the server with code 1001"},
    {"a masked frame from the server",
     {SAY_RAW, "\x81\x81\0\0\0\0x", 7},
     "the connection has ended: frame is masked"},
    {"half a frame from the server",
     {SAY_RAW, "\x81\x7e\x10\x00half", 8},
     "the connection has ended: end of file"},
};

static void check_ending(void **state)
{
    const struct ending *c = *state;
    const struct step steps[] = {HELLO,
                                 {HEAR, "{\"id\":2,\"method\":\"m\",\"params\":{}}"},
                                 {SAY, "{\"method\":\"last/words\",\"params\":1}"},
                                 c->last,
                                 {END}};
    struct bly_client *client = meet(steps);
    struct bly_client_error error;
    char *method, *params;

    assert_int_equal(bly_client_call(client, "m", "{}", &params, &error), -EPIPE);
    assert_string_equal(error.message, c->message);
    assert_int_equal(bly_client_next_notification(client, 0, &method, &params), 0);
    assert_string_equal(method, "last/words");
    free(method);
    free(params);
    assert_int_equal(bly_client_next_notification(client, 1000, &method, &params), -EPIPE);
    assert_int_equal(bly_client_send_raw(client, "x", 1), -EPIPE);
    finish(client);
}

static void what_is_not_json_is_an_error(void **state)
{
    static const struct step steps[] = {
        HELLO, {HEAR, "{\"id\":2,\"method\":\"m\",\"params\":{}}"}, {SAY, "{\"id\":2,"}, {END}};
    struct bly_client *client = meet(steps);
    struct bly_client_error error;
    char *text;

    (void)state;
    assert_int_equal(bly_client_call(client, "m", "{}", &text, &error), -EBADMSG);
    finish(client);
}

static const struct refusal {
    const char *name;
    const char *answer;
    const char *message; /* its end */
} refusals[] = {
    {"a server that is full", "HTTP/1.1 503 Service Unavailable\r\n\r\n",
     "the server does not upgrade: HTTP/1.1 503 Service Unavailable"},
    {"another key's accept value",
     "HTTP/1.1 101 Switching Protocols\r\n"
     "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
     "the server's upgrade answer does not fit"},
    {"no accept value", "HTTP/1.1 101 Switching Protocols\r\n\r\n",
     "the server's upgrade answer does not fit"},
    {"not HTTP at all", "SSH-2.0-x\r\n\r\n", "the server does not upgrade: SSH-2.0-x"},
    {"an end in the middle", "HTTP/1.1 101 Swi", "the connection has ended: end of file"},
};

static void check_refusal(void **state)
{
    const struct refusal *c = *state;
    struct bly_client_error error = {0};
    size_t len;

    start(c->answer, (const struct step[]){{END}});
    assert_null(bly_client_connect(url, NULL, 10000, &error));
    len = strlen(error.message);
    assert_true(len > strlen(c->message));
    assert_string_equal(error.message + len - strlen(c->message), c->message);
    finish(NULL);
}

static void a_server_that_says_nothing_is_a_timeout(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    bly_autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct bly_client_error error = {0};

    (void)state;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    snprintf(url, sizeof(url), "ws://127.0.0.1:%d", ntohs(address.sin_port));

    /* Bound but not listening: refused. Then listening but never answering. */
    assert_null(bly_client_connect(url, NULL, 5000, &error));
    assert_non_null(strstr(error.message, "Connection refused"));
    assert_int_equal(listen(fd, 1), 0);
    assert_null(bly_client_connect(url, NULL, 100, &error));
    assert_non_null(strstr(error.message, "in time"));
}

static const char *const bad_urls[] = {
    "",        "http://127.0.0.1:1", "ws://",     "ws://127.0.0.1",
    "ws://:1", "ws://127.0.0.1:",    "ws://[]:1", "ws://127.0.0.1:1234567890",
};

static void bad_urls_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < BLY_LEN(bad_urls); i++) {
        struct bly_client_error error = {0};

        assert_null(bly_client_connect(bad_urls[i], NULL, 1000, &error));
        assert_non_null(strstr(error.message, "is no ws://HOST:PORT and no unix:///PATH URL"));
    }
}

static void unix_sockets_that_are_not_there_are_errors(void **state)
{
    static const struct {
        const char *url, *text;
    } rows[] = {
        {"unix:///no/such/socket", "No such file or directory"},
        {"unix://relative", "not the absolute path of a socket"},
    };

    (void)state;
    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        struct bly_client_error error = {0};

        assert_null(bly_client_connect(rows[i].url, NULL, 1000, &error));
        assert_non_null(strstr(error.message, rows[i].text));
    }
}

/* A server in the shell: it greets, and then does what the test wants. */
#define GREETING \
    "read -r hello; echo '{\"id\":1,\"result\":{\"sessionId\":\"s\"}}'; read -r initialized; "

static struct bly_client *spawn_shell(const char *text, int timeout_ms)
{
    const char *const argv[] = {"sh", "-c", text, NULL};
    struct bly_client_error error = {0};
    struct bly_client *client = bly_client_spawn(argv, timeout_ms, &error);

    if (!client)
        fail_msg("%s", error.message);
    return client;
}

static void a_child_is_spoken_to_in_lines(void **state)
{
    /* It hands back what it got, after a blank line, and leaves with 3. */
    struct bly_client *client = spawn_shell(
        GREETING "read -r call; printf '\\r\\n{\"id\":2,\"result\":[%s]}\\r\\n' \"$call\"; exit 3",
        10000);
    struct bly_client_error error = {0};
    char *result = NULL;

    (void)state;
    assert_string_equal(bly_client_session_id(client), "s");
    assert_int_equal(bly_client_call(client, "m", "{\n\"a\":\n1}\n", &result, &error), 0);
    assert_string_equal(result, "[{\"id\":2,\"method\":\"m\",\"params\":{\"a\":1}}]");
    free(result);
    assert_int_equal(bly_client_call(client, "m", "{}", &result, &error), -EPIPE);
    assert_int_equal(bly_client_end(client), 3 << 8);
}

static void a_child_learns_of_the_end(void **state)
{
    struct bly_client *client = spawn_shell(GREETING "read -r more || exit 7; exit 1", 10000);

    (void)state;
    assert_int_equal(bly_client_end(client), 7 << 8);
}

static void a_child_that_does_not_end_is_killed(void **state)
{
    struct bly_client *client = spawn_shell(GREETING "exec sleep 1000", 200);

    (void)state;
    assert_int_equal(bly_client_end(client), -1);
}

static void a_program_that_is_not_there_is_an_error(void **state)
{
    const char *const argv[] = {"/no/such/server", NULL};
    struct bly_client_error error = {0};

    (void)state;
    assert_null(bly_client_spawn(argv, 1000, &error));
    assert_non_null(strstr(error.message, "cannot start /no/such/server"));
}

static const struct CMUnitTest fixed[] = {
    cmocka_unit_test(the_handshake_is_that_of_the_real_clients),
    cmocka_unit_test(a_session_is_resumed_by_name),
    cmocka_unit_test(notifications_wait_in_order_while_a_call_waits),
    cmocka_unit_test(an_error_answer_is_handed_on),
    cmocka_unit_test(file_calls_speak_the_protocol),
    cmocka_unit_test(sixty_mib_arrive_in_frames_of_eight),
    cmocka_unit_test(both_sides_may_talk_at_once),
    cmocka_unit_test(a_run_hands_on_output_and_exit),
    cmocka_unit_test(silence_is_a_timeout_and_the_link_lives_on),
    cmocka_unit_test(what_is_not_json_is_an_error),
    cmocka_unit_test(a_server_that_says_nothing_is_a_timeout),
    cmocka_unit_test(bad_urls_are_refused),
    cmocka_unit_test(unix_sockets_that_are_not_there_are_errors),
    cmocka_unit_test(a_child_is_spoken_to_in_lines),
    cmocka_unit_test(a_child_learns_of_the_end),
    cmocka_unit_test(a_child_that_does_not_end_is_killed),
    cmocka_unit_test(a_program_that_is_not_there_is_an_error),
};

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(fixed) + BLY_LEN(endings) + BLY_LEN(refusals)] = {0};
    size_t n = BLY_LEN(fixed);

    memcpy(tests, fixed, sizeof(fixed));
    for (size_t i = 0; i < BLY_LEN(endings); i++)
        tests[n++] = (struct CMUnitTest){.name = endings[i].name,
                                         .test_func = check_ending,
                                         .initial_state = (void *)(uintptr_t)&endings[i]};
    for (size_t i = 0; i < BLY_LEN(refusals); i++)
        tests[n++] = (struct CMUnitTest){.name = refusals[i].name,
                                         .test_func = check_refusal,
                                         .initial_state = (void *)(uintptr_t)&refusals[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
