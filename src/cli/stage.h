#pragma once

/*
 * What the demo plays on: a temporary directory with a workspace (a git repository with a small C
 * project that has one bug), a vault nobody may read and a neighbour nobody may write; and a server
 * process. One thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct bly_buf;
struct bly_err;

enum { BLY_STAGE_PATH_MAX = 64 };

struct bly_stage {
    char root[BLY_STAGE_PATH_MAX];
    char project[BLY_STAGE_PATH_MAX]; /* ROOT/project: the workspace */
    char vault[BLY_STAGE_PATH_MAX];   /* ROOT/vault: with secret.txt */
    char outside[BLY_STAGE_PATH_MAX]; /* ROOT/outside: with notes.txt */
    char url[64];
    pid_t server; /* 0: not running */
};

extern const char bly_stage_secret[]; /* what is in secret.txt */

/* Each: 0; a negative errno with `err`. What was made so far is the caller's to take down. */
int bly_stage_prepare(struct bly_stage *stage, struct bly_err *err);
int bly_stage_start_server(struct bly_stage *stage, const char *bailey, struct bly_err *err);

/* Ends the server (asks, then kills) and, unless `keep`, removes the directory. */
void bly_stage_end(struct bly_stage *stage, bool keep);

/* Appends a line for everything that must not change: the vault, the neighbour, the workspace's
 * .git, the names directly in the root. Returns buf->error. */
int bly_stage_fingerprint(const struct bly_stage *stage, struct bly_buf *buf);
