#pragma once

/*
 * The walk: turns a path a client named into descriptors, and decides on the way. Without a policy
 * (direct) the kernel resolves the path, and the walk counts again where it finds too many links: a
 * lookup that the kernel begins anew, because something is mounted just then, wherever that is, has
 * the links of its first try counted already, so that 21 may seem to be more than 40. With one,
 * decisions are made on the canonical name, which is obtained by walking with descriptors, and what
 * is returned is a descriptor or a directory and a name in it: nobody behind this header uses the
 * path text again. Blocking system calls, no threads, no globals. Spec: sandbox.md 3.6, 5.1 to 5.3.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "fs/fold.h"
#include "fs/ops.h"

struct bly_err;

enum bly_need { BLY_NEED_READ, BLY_NEED_WRITE };

/* The policy and the disk, to be asked about a canonical name. */
struct bly_fold bly_view_fold(const struct bly_view *view);

/* What the policy says about a canonical name. True without a policy. */
bool bly_view_permits(const struct bly_view *view, const char *canonical, enum bly_need need);

/*
 * The answer to something that is not permitted. Writing: BLY_ERR_DENIED naming `path`, the path of
 * the request. Reading: as if it did not exist (ENOENT), or EACCES where a rule denies. Says in
 * err->denial what decided about `canonical`, except where the answer hides that there is a
 * decision.
 */
int bly_view_refuse(const struct bly_view *view, const char *path, const char *canonical,
                    enum bly_need need, struct bly_err *err);

/* -ECANCELED with `err` set when the client is gone, else 0. */
int bly_view_check(const struct bly_view *view, struct bly_err *err);

struct bly_opening {
    enum bly_need need;
    int flags;   /* of open(2); close-on-exec, no-controlling-terminal and non-blocking are added */
    mode_t mode; /* with O_CREAT */
    bool no_follow;  /* refuse symbolic links anywhere in the path */
    char *canonical; /* NULL, or PATH_MAX bytes that receive the canonical name (with a policy) */
};

/*
 * Decides and opens; a link at the end is followed, with O_CREAT also when it dangles. Returns 0
 * and the caller owns `*ret_fd`; negative errno with `err` set as the protocol wants.
 */
int bly_view_open(const struct bly_view *view, const char *path, const struct bly_opening *how,
                  int *ret_fd, struct bly_err *err);

/* A name in a directory. */
struct bly_place {
    int dir;          /* owned */
    const char *name; /* for the *at() calls, together with a flag that does not follow links */
    int fd;           /* O_PATH descriptor of the object, or -EBADF; see the functions */
    struct stat st;   /* of the object, when fd is open */
    bool missing;     /* look: there is no such object; `name` is the first name that is missing */
    bool dangling;    /* with missing: the missing name stands in the text of a symbolic link */
    bool is_symlink;  /* look: the last name of the path itself is a symbolic link */
    const char *rest; /* with missing: what the path wants below `name`, "" when nothing; it stands
                         in `canonical`, right behind the NUL */
    char canonical[PATH_MAX]; /* of `name` */
};

#define BLY_NOWHERE ((struct bly_place){.dir = -EBADF, .name = "", .fd = -EBADF, .rest = ""})

void bly_place_deinit(struct bly_place *place);
#define bly_autoplace __attribute__((cleanup(bly_place_deinit)))

/*
 * Where the last name of `path` lives; the name itself is not looked at and, when it is a link, is
 * kept. Decided for the name. Sets dir, name and canonical (which is the path as it was given when
 * direct without `no_follow`).
 */
int bly_view_parent(const struct bly_view *view, const char *path, enum bly_need need,
                    bool no_follow, struct bly_place *place, struct bly_err *err);

enum {
    BLY_LOOK_NO_FOLLOW = 1, /* refuse symbolic links */
    BLY_LOOK_MISSING = 2,   /* a missing object is an answer, not an error */
    BLY_LOOK_NO_MAGIC = 4,  /* links of procfs that lead to objects are ELOOP, as with a policy;
                               else what their text says is believed, as realpath(3) does */
};

/*
 * Walks to the object itself, following a link at the end. Always the component walk, also without
 * a policy. Everything in `place` is set.
 */
int bly_view_look(const struct bly_view *view, const char *path, enum bly_need need, unsigned how,
                  struct bly_place *place, struct bly_err *err);

/* The object only: sets fd, canonical and is_symlink, with one call when no link is in the way. */
int bly_view_find(const struct bly_view *view, const char *path, enum bly_need need, bool no_follow,
                  struct bly_place *place, struct bly_err *err);

/* bly_view_look() for `name`, one component, in the directory `dir` (borrowed) called `canonical`.
 */
int bly_view_look_in(const struct bly_view *view, int dir, const char *canonical, const char *name,
                     const char *path, enum bly_need need, unsigned how, struct bly_place *place,
                     struct bly_err *err);

/* open(2) on what bly_view_look() found, or creates it when missing; never through a link. */
int bly_place_open(const struct bly_place *place, int flags, mode_t mode);
