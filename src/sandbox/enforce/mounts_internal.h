#pragma once

/*
 * Between the files of the file view. All of them act on the calling process while it builds its
 * wall, once. Functions return 0 or a negative errno with `err` set, or else they say so.
 *
 * Everything is a descriptor: the source is cloned detached from the host, below the descriptor of
 * the old root, compared with what the plan saw, given its attributes while nobody can see it, and
 * attached to a mount point below the descriptor of the new root. No path is used twice, no symlink
 * is crossed, and nothing is ever created on the host: mount points that do not exist are made in
 * one private tmpfs, the stage, parts of which are shown read-only.
 *
 * mounts.c: the order of things, from private propagation to pivot_root.
 * mounts_host.c: what is cloned from the host, and how anything is attached.
 * mounts_stage.c: the stage, mount points and masks.
 * mounts_own.c: file systems that the view has for itself: /proc, /dev, /dev/shm.
 * mounts_walk.c: paths below a descriptor.
 * mounts_api.c: the kernel's mount API, as far as it is used by several.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mount.h>

#include "sandbox/enforce/enforce_internal.h"
#include "sandbox/plan/plan_internal.h"

/* Directories of the stage that others than mounts_stage.c make or show. */
#define BLY_STAGE_ROOT "root" /* "/" under restricted reading */
#define BLY_STAGE_DEV  "dev"  /* /dev */

/* Attributes of mounts. */
static const uint64_t bly_quiet = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
static const uint64_t bly_dead =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/* The directory in which the step before had its entry, opened in one of three trees. */
struct bly_nearby {
    char *dir; /* NULL: none */
    uint32_t on;
    int fd;
};

struct bly_build {
    const struct bly_plan *plan;
    int lock_fd;
    int host_fd;  /* "/" as the server sees it */
    int stage_fd; /* the private tmpfs, writable through this descriptor only */
    int dead_fd;  /* the same, read-only: what is cloned from here is born so */
    int root_fd;  /* "/" of the view */
    bool has_proc;
    struct bly_nearby on_host, in_stage, in_view;
};

/* A view without devices gets what all of its mounts have in common in one call, at the end. */
static inline bool bly_mounts_has_devices(const struct bly_plan *plan)
{
    return plan->purpose == BLY_FOR_PROCESS;
}

/* ---- mounts_walk.c: descriptors, or -1 with errno set ---- */

/* Opens `path` (absolute) below `root_fd` without crossing a single symlink; a symlink at the end
 * is opened itself. */
int bly_open_below(int root_fd, const char *path);

/* Whether it is the directory of a step; the same path may lie on two surfaces of the stage. */
bool bly_nearby_is(const struct bly_nearby *near, const struct bly_step *step);
/* Takes `fd` as the directory of the step's entry, consumed also on failure. Borrowed until the
 * next call. */
int bly_nearby_keep(struct bly_nearby *near, const struct bly_step *step, int fd);
/* The directory of a step's entry, below `root_fd`. Borrowed until the next call; negative: errno
 * is set. */
int bly_nearby_open(struct bly_nearby *near, const struct bly_step *step, int root_fd);
void bly_nearby_forget(struct bly_nearby *near);

/* ---- mounts_api.c ---- */

struct bly_mount_option {
    const char *key, *value;
};

/* A new file system, not attached anywhere. `options` (NULL: none) end with a NULL key. The caller
 * owns `*ret_fd`. */
int bly_mounts_make_fs(const char *type, const struct bly_mount_option *options,
                       unsigned attributes, int *ret_fd, struct bly_err *err);
/* Adds attributes to a mount, and with `recursive` to all in it. 0, or -1 with errno set. */
int bly_mounts_set_attributes(int tree_fd, uint64_t set, bool recursive);
/* On the entry `name` of a directory, which is not followed, or with "" on what `fd` refers to. 0,
 * or -1 with errno set. */
int bly_mounts_attach(int tree_fd, int fd, const char *name);

/* ---- mounts_stage.c ---- */

/* Makes and anchors the stage, if the plan has a step that needs one. */
int bly_mounts_make_stage(struct bly_build *b, struct bly_err *err);
/* A part of the stage as a mount of its own, detached and read-only. Returns the descriptor. */
int bly_mounts_clone_stage(struct bly_build *b, const char *name, struct bly_err *err);
/*
 * Makes what step `i` will be mounted on, or the symlink that it is, if it lies on a private
 * surface.
 */
int bly_mounts_make_point(struct bly_build *b, size_t i, bool dir, struct bly_err *err);
int bly_mounts_do_mask(struct bly_build *b, size_t i, struct bly_err *err);

/* ---- mounts_host.c ---- */

/* What the plan saw at the step's path, detached and with its attributes; owned by the caller. */
int bly_mounts_clone_host(struct bly_build *b, const struct bly_step *step, int *ret_fd,
                          struct bly_err *err);
/* Attaches `tree_fd` at the step's path in the view. */
int bly_mounts_place(struct bly_build *b, const struct bly_step *step, int tree_fd,
                     struct bly_err *err);
/* What Landlock allows below what a step shows: enum bly_lock_rights. */
unsigned bly_mounts_rights_of(const struct bly_build *b, const struct bly_step *step);
int bly_mounts_do_clone(struct bly_build *b, size_t i, struct bly_err *err);

/* ---- mounts_own.c ---- */

int bly_mounts_do_proc(struct bly_build *b, size_t i, struct bly_err *err);
int bly_mounts_do_proc_read(struct bly_build *b, size_t i, struct bly_err *err);
int bly_mounts_do_dev(struct bly_build *b, size_t i, struct bly_err *err);
int bly_mounts_do_shm(struct bly_build *b, size_t i, struct bly_err *err);
