#pragma once

/*
 * Errors. A function returns 0 (worked), a negative errno (went wrong: pass it up) or a positive
 * outcome named in its header. What a client or a person will read travels in a struct bly_err that
 * the caller provides, so the failing path allocates nothing. Any thread; touches nothing shared.
 */
#include <stddef.h>
#include <stdint.h>

/* The kind decides the JSON-RPC code: one table, in rpc/reply.c. */
enum bly_err_kind {
    BLY_ERR_NONE = 0,
    BLY_ERR_PARAMS,    /* parameters cannot be decoded: -32602, text */
    BLY_ERR_INVALID,   /* the request makes no sense: -32600, text */
    BLY_ERR_DENIED,    /* a policy says no: -32600, text */
    BLY_ERR_NOT_FOUND, /* a named thing of ours does not exist (file handle): -32004, text */
    BLY_ERR_SYSTEM, /* the kernel says no: code and message follow from .sys; text is for the log */
    BLY_ERR_SPAWN,  /* a program could not be started: -32603, message from .sys if not 0, else text
                     */
    BLY_ERR_LIMIT,  /* a named limit was reached: -32603, text */
    BLY_ERR_GONE,   /* no such process or session: -32600, text */
    BLY_ERR_ATTACHED,    /* session attached elsewhere: -32010, text */
    BLY_ERR_UNSUPPORTED, /* this kernel or build cannot do it: -32603, text */
    BLY_ERR_REMOTE,      /* another machine did not do its part: -32603, text */
    BLY_ERR_BUG,         /* our mistake: -32603, text */
};

/*
 * What a policy denied and which part of it decided, so that an answer can explain itself. Numbers
 * only: names are looked up where the request's own policy is at hand, and so nothing can come out
 * that the client did not write itself.
 */
enum { BLY_DENIED_NOTHING, BLY_DENIED_READ, BLY_DENIED_WRITE };
enum {
    BLY_BY_NOTHING, /* no rule grants it */
    BLY_BY_RULE,    /* rules[index] */
    BLY_BY_GLOB,    /* deny_globs[index] */
    BLY_BY_NAME,    /* the protected name number `name` in the directory of rules[index] */
    BLY_BY_DERIVED, /* what a look at the disk made of a rule: where .git leads to, a name without
                     * links
                     */
};

struct bly_denial {
    uint8_t access, by;
    uint8_t rung; /* of the wall that refused; 0 until the server's side knows */
    uint8_t name; /* 0 but with BLY_BY_NAME */
    uint32_t index;
};

enum { BLY_ERR_TEXT_MAX = 4608 }; /* room for a PATH_MAX path and a sentence */

struct bly_err {
    enum bly_err_kind kind;
    int sys;                     /* positive errno, 0 when there is none */
    char text[BLY_ERR_TEXT_MAX]; /* one sentence, no newline, no full stop */
    struct bly_denial denial;    /* also with BLY_ERR_SYSTEM and EACCES */
};

/*
 * All of these accept err == NULL, truncate what does not fit and return a negative errno, so that
 * a caller can write `return bly_fail(...)`.
 */

/* Sets kind, `sys` (positive errno) and text; returns -sys, or -EINVAL when sys is 0. No
 * denial. */
int bly_fail(struct bly_err *err, enum bly_err_kind kind, int sys, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* bly_fail() with BLY_ERR_SYSTEM; the text becomes "FMT: REASON". */
int bly_fail_sys(struct bly_err *err, int sys, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "FMT: " in front of the text, keeps all else; returns `r` (a negative errno). */
int bly_because(struct bly_err *err, int r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Empties `err`: kind BLY_ERR_NONE. */
void bly_err_clear(struct bly_err *err);

/*
 * The text the protocol uses for an errno, e.g. "Symbolic link loop" (musl's words, which the real
 * servers answer with; spec section 6.2). Static; "No error information" when it is not in the
 * table.
 */
const char *bly_errno_text(int sys);
