#pragma once

/*
 * Two ways to the file operations, so that one table of attempts goes through both: the local door
 * is a `struct bly_fs` in this process with a launcher and a planner of its own, the remote one is
 * a real server behind a socket, asked through the client library. Both take a sandbox as JSON and
 * give answers in the codes of the protocol.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum question_kind {
    ASK_READ,
    ASK_READ_BLOCK, /* open for reading, read a block, close */
    ASK_METADATA,
    ASK_CANONICALIZE,
    ASK_LIST,
    ASK_WALK, /* follows linked directories */
    ASK_WRITE,
    ASK_WRITE_BLOCK, /* open to replace, write a block, close */
    ASK_MKDIR,
    ASK_COPY, /* from path to other */
    ASK_REMOVE,
};

struct question {
    enum question_kind kind;
    const char *path, *other;
    bool recursive, force;
    const char *text;    /* to write */
    const char *sandbox; /* JSON; NULL: no wall */
};

struct answer {
    int code; /* of the error answer; 0: it worked */
    char message[512];
    char *data; /* all that the answer gives away: contents decoded, names, a path; malloc'ed */
    size_t len; /* of data, which has a NUL behind it */
};

void answer_deinit(struct answer *answer);
#define auto_answer __attribute__((cleanup(answer_deinit)))

/* Whether `needle` is in what the answer gives away. */
bool answer_reveals(const struct answer *answer, const char *needle);

struct door {
    const char *name;
    void (*open)(struct door *door);
    void (*ask)(struct door *door, const struct question *question, struct answer *ret_answer);
    void (*close)(struct door *door);
    pid_t pid; /* of the process that answers when there is no wall */
    void *self;
};

extern const struct door door_local, door_remote;

/* In main(), first: does not return when this process is the local door's launcher. */
void door_main(int argc, char **argv);

/*
 * Before anything else is done. With BLY_AS_USER set in the environment, root becomes user and
 * group 65534 for good, and $BAILEY and $ATTACKER still name programs that can be run. Ends the
 * program, skipped, where not every wall can be built; a test about such machines says so in its
 * environment (BLY_MAY_REFUSE_WALLS, BLY_SERVER_OPTION).
 */
void door_begin(void);
