#pragma once

/*
 * Finds out what this machine can enforce: builds each kind of wall completely, in a child, around
 * a trivial action. Asking for a namespace alone says little: on some systems it is granted and
 * then nothing can be done in it. Once at start, in a single-threaded process, outside of the
 * server.
 */
#include <stdbool.h>

#include "sandbox/enforce/rung.h"

struct bly_buf;
struct bly_reader;

/*
 * Fills everything but what the operator allows. Takes a few milliseconds; a child that hangs is
 * killed after five seconds and its wall counts as one that does not work. bly_wall_prepare() must
 * have been called.
 */
void bly_probe_features(struct bly_features *ret_features);

/* Notes that a wall does not work; a text that is too long loses its end. */
void bly_features_lack(struct bly_features *features, enum bly_wall_kind kind, const char *why);

/* Whether our root directory is another one than that of our mount namespace: user_namespaces(7)
 * are refused to who lives in a chroot. An ordinary user may not learn it of one that is a mount
 * point. */
bool bly_probe_chrooted(void);

/* Why namespaces cannot be had here and what to do about it, in one line; "" when nobody knows. */
void bly_probe_fix(char fix[BLY_FIX_MAX]);

int bly_features_pack(const struct bly_features *features, struct bly_buf *buf);
int bly_features_unpack(struct bly_reader *reader,
                        struct bly_features *ret_features); /* -EBADMSG */
