#pragma once

/*
 * What one capability root holds: a plugin's manifest with the configuration it names, skills, and
 * the manifests that give skills their namespace (spec 4.6.2). Pure: it says which file it wants
 * next and is told what is in it; the caller lists and reads, inside a wall or not. What it has
 * been told is kept as the JSON of the answer, so no step takes long. Any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bly_buf;
struct bly_discovery;
struct bly_err;
struct bly_fs_reply;
struct bly_fs_walk;

enum {
    BLY_DISCOVERY_FILE_MAX = 1048576,  /* bytes */
    BLY_DISCOVERY_ROOT_MAX = 16777216, /* bytes of all files of a root */
};

/* How a root is listed. */
extern const struct bly_fs_walk bly_discovery_walk;

/* `path` is copied, normalised. 0; -ENOMEM. */
int bly_discovery_new(const char *path, struct bly_discovery **ret_discovery);
struct bly_discovery *bly_discovery_free(struct bly_discovery *discovery); /* returns NULL */

/* The listing, once, before the first file; or what came instead of it. */
void bly_discovery_listed(struct bly_discovery *discovery, const struct bly_fs_reply *reply);
void bly_discovery_not_listed(struct bly_discovery *discovery, const struct bly_err *err);

/* The file to read (borrowed until the next call), NULL when there is no more to know. */
const char *bly_discovery_next(struct bly_discovery *discovery);
/* The largest file that still makes sense. */
size_t bly_discovery_room(const struct bly_discovery *discovery);

/* What became of that file; one of the three for each. */
void bly_discovery_read(struct bly_discovery *discovery, const char *text, size_t len);
void bly_discovery_not_read(struct bly_discovery *discovery, const struct bly_err *err);
void bly_discovery_too_long(struct bly_discovery *discovery, uint64_t bytes);

/*
 * Appends the object of the answer. `*values` grows by the JSON values in it. Returns buf->error;
 * -ENOMEM, -EMSGSIZE when something before was lost to one of these (it is in buf->error too).
 */
int bly_discovery_add(const struct bly_discovery *discovery, const char *id, size_t id_len,
                      size_t *values, struct bly_buf *buf);
/* The object of a root of which there is nothing to tell. `uri`: the member `path`. */
int bly_discovery_add_error(const char *id, size_t id_len, const char *uri, size_t uri_len,
                            const char *error, size_t *values, struct bly_buf *buf);
