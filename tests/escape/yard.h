#pragma once

/*
 * The place every escape test happens in: a workspace the policies make writable, with read-only,
 * denied and reopened places in it, a readable root beside it, and things outside that nobody
 * behind a wall may see or touch. Every file holds YARD_SECRET, and every directory "d" a file
 * "needle", so that whatever is given away can be recognised.
 *
 *   DIR/ws         writable                       .git          protected; .codex .agents .aws
 *   DIR/ws/ro      read-only                                    are missing, and protected, too
 *   DIR/ws/ro/rw   writable again                 leaf abs chain parent up updir dirleaf dangling
 *   DIR/ws/deny    denied                                       links to the outside
 *   DIR/ws/deny/rw writable again                 magic fdlink fds cwd  links into /proc
 *   DIR/ws/ *.key  denied by a glob               denylink denydir keylink rolink gitdir codexlink
 *   DIR/lib        readable                                     links to what is guarded inside
 *   DIR/out        outside                        tolib inlink newlink  links that may be followed
 */
#include <stdbool.h>
#include <sys/types.h>

#define YARD_SECRET "the-secret-of-the-keep"

/* The policies: how much can be read besides. Nobody has a network. */
enum wall { NO_WALL, RESTRICTED, FULL_READ, N_WALLS };

struct yard {
    char *dir;              /* fresh, canonical, not below /tmp */
    char *ws, *out;         /* in it */
    char *sandbox[N_WALLS]; /* JSON; NULL for NO_WALL */
    char *plain[N_WALLS];   /* the same without the glob, which is expanded anew on every change */
    char *whole;            /* tree_list() of what has been built */
    int fd; /* DIR/out/secret, opened by this process, which also stands in DIR/out */
};

struct yard *yard_new(void);
void yard_free(struct yard *yard);

/* Builds it anew, but only when something is not as it was. */
void yard_reset(struct yard *yard);

/* What must never change whoever works inside the walls: all but the writable places. Malloc'ed. */
char *yard_guarded(const char *whole);
/* Fails the test when something of it has changed. */
void yard_assert_guarded(const struct yard *yard);

/*
 * "DIR/NAME", or NAME when it begins with '/'. In it $Y is DIR, $P this process's id, $F its
 * descriptor of out/secret. Good for the next 16 calls, and not over a
 * yard_reset().
 */
const char *yard_path(const struct yard *yard, const char *name);

/* Copies a program into the yard with this mode, so that it can be executed under every policy; one
 * with a set-uid bit becomes the property of 65534. */
void yard_bring_program(const struct yard *yard, const char *from, const char *name, mode_t mode);
