#pragma once

/*
 * Yards: processes that stay in namespaces of their own, with only what one policy allows mounted.
 * They open files and pass them back, or start programs. One for each policy, kept warm.
 */
#include <sys/types.h>

#include "span.h"

struct stat;
struct yard;

/* The yard of this policy, made when it is new. Borrowed until yards have been made for many
 * others. */
struct yard *yard_of(struct span policy);

/* Descriptors are the caller's. A negative errno when it does not work. */
int yard_open(struct yard *yard, const char *path, bool writes);
int yard_walk(struct yard *yard, const char *path); /* of a file with the answer's JSON */
int yard_stat(struct yard *yard, const char *path, struct stat *ret_st);
/* Packed strings: directory, argv..., each with its NUL. The pid is one of the yard's own. */
pid_t yard_spawn(struct yard *yard, const char *packed, size_t len, int in_fd, int out_fd);
