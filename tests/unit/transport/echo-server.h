#pragma once

/*
 * A server made of the transport alone, on a thread of its own: it echoes every message, obeys a
 * few commands and counts what happens. Commands (messages that begin with '!'): "!pause",
 * "!close CODE", "!drop", "!flood BYTES MESSAGES", "!probe MS" (answers "alive" or "dead").
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_limits;
struct echo;

struct echo_counts {
    unsigned opened, closed, messages, drained, ended;
    char reason[160]; /* of the last one closed */
};

struct echo *echo_start(const char *url, const struct bly_limits *limits);
struct echo *echo_start_all(const char *const *urls, const struct bly_limits *limits);
/* A connection of JSON lines on `fd`, which is consumed, and nothing else. */
struct echo *echo_start_lines(int fd, const struct bly_limits *limits);
/* Ends the listener, drops every connection, waits for the loop to become empty. */
void echo_stop(struct echo *echo);

int echo_port(const struct echo *echo); /* of the first listener */
const char *echo_url(const struct echo *echo, size_t n);
void echo_set_ready(struct echo *echo, bool ready);
void echo_set_refusing(struct echo *echo, bool refusing); /* opened() returns an error */
void echo_set_has_more(struct echo *echo, bool has_more); /* what ended() returns */

struct echo_counts echo_counts(struct echo *echo);
/* Waits (10 s at most) until so many were opened and closed; false when it did not happen. */
bool echo_wait(struct echo *echo, unsigned opened, unsigned closed);
bool echo_wait_messages(struct echo *echo, unsigned messages);
bool echo_wait_drained(struct echo *echo, unsigned drained);
