#pragma once

/*
 * File operations as text, so that a test is a row of a table. A script works in a fresh directory;
 * every name in it is relative to that directory.
 *
 * setup, separated by blanks: "d/" a directory, "a=text" a file, "l->target" a link, "p|" a FIFO,
 * "h~a" a hard link, "s@" a socket; parents are made. A trailing ":755" of a file is its mode.
 *
 * steps, one a line: the operation, its names and options, e.g. "read a", "write a text",
 * "mkdir a/b", "stat ln", "list t", "rm d", "copy a b", "canon ln", "walk w", "open a", "replace
 * a".
 * "-r" not recursive, "-f" not forced, "+r" recursive copy, "nofollow".
 *
 * answers, one a line: "ok", what was read or listed, or the error: the name of the errno for
 * BLY_ERR_SYSTEM, else the kind's name, a colon and the text. "$T" is the directory.
 *
 * after: like setup, what must be there; "!a" must not.
 */
#include <stdbool.h>

#include "fs/fs.h"

struct bly_policy;

/* Runs one request; the reply is the script's. */
typedef void (*script_run)(void *arg, struct bly_fs_request *request, struct bly_fs_reply *reply);

struct script_case {
    const char *name, *setup, *steps, *answers, *after;
    const char *policy; /* one rule a line: "ro /", "rw $T/w", "deny $T/w/p", "glob **.env" */
};

/* The fresh directory; the caller removes it with script_cleanup(). */
char *script_directory(void);
char *script_directory_in(const char *base);
void script_cleanup(char *dir);

void script_setup(const char *dir, const char *setup);

/* Answers of the steps, malloc'ed. */
char *script_answers(const char *dir, const char *steps, script_run run, void *arg);

/* NULL when everything is as `after` says, else a sentence, malloc'ed. */
char *script_check(const char *dir, const char *after);

/* "$T" replaced, malloc'ed. */
char *script_expand(const char *dir, const char *text);

/* From here on this process lives on a kernel that has no openat2(2). Threads made later as well.
 */
void script_forget_openat2(void);

/* Runs `tests` in a child, which may change what it cannot change back. 0 or the exit status. */
int script_in_child(int (*tests)(void));

/* A policy from rules, see struct script_case. */
struct bly_policy *script_policy(const char *dir, const char *rules);

/* All of it, with cmocka's assertions. */
void script_check_case(const struct script_case *c, const char *dir, script_run run, void *arg);

/* The rows that must read the same in every mode. */
extern const struct script_case script_same[];
extern const size_t script_n_same;

/* The rows about a policy. */
extern const struct script_case script_denials[];
extern const size_t script_n_denials;
extern const struct script_case script_magic; /* in this process only */
