#pragma once

/*
 * The files that requests touch: a workspace, and a directory outside of it that no wall may let
 * anybody into. What is in them is known here, so that every answer can be checked. One thread.
 */
#include <stddef.h>
#include <stdint.h>

enum {
    GROUND_LISTED = 1000,  /* files in "listed", named entry-0000.txt and so on */
    GROUND_BRANCHES = 100, /* directories in "tree", named d00 and so on, */
    GROUND_LEAVES = 100,   /* with so many files in each, named file00.c and so on */
    GROUND_PATH_MAX = 512,
};

#define GROUND_SECRET "execbench-secret-do-not-leak"

/* Sizes of file contents. */
enum blob_size { BLOB_4K, BLOB_1M, BLOB_40M, BLOB_64M, BLOB_SIZES };

struct blob {
    uint8_t *data;
    char *text; /* the same in base64, no NUL */
    size_t len, text_len;
};

struct ground {
    char dir[GROUND_PATH_MAX]; /* all of it */
    /* Longest first: what lies below a name must fit. */
    char workspace[GROUND_PATH_MAX + 16]; /* f4k, f1m, f64m, listed, tree, cold, link -> secret */
    char outside[GROUND_PATH_MAX + 16];   /* secret, victim */
    char cwd[GROUND_PATH_MAX + 16];       /* servers start here: some grant it in every policy */
    struct blob kept[BLOB_SIZES];         /* what is in f4k, f1m and f64m */
    struct blob written[BLOB_SIZES];      /* made when asked for, different with each write */
};

/* Makes the files in `dir`, which must not be there yet, or below /var/tmp when it is NULL. */
void ground_make(struct ground *ground, const char *dir);
void ground_remove(struct ground *ground);

/* The contents of the next write of this size: unlike all before. Borrowed. */
const struct blob *ground_next_write(struct ground *ground, enum blob_size size);

/* A workspace of its own, which no policy has named so far. */
void ground_cold_path(const struct ground *ground, char owner, unsigned number,
                      char ret_path[GROUND_PATH_MAX + 64]);
void ground_make_cold(const struct ground *ground, char owner, unsigned from, unsigned to);

/* 0 when the file holds exactly these bytes. */
int ground_compare(const char *path, const void *data, size_t len);
