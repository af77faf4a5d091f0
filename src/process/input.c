#include "process/input.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "process/write_ids.h"

enum { WRITES_A_TURN = 16 };

/* Somebody to be told. A repeated write joins the one it repeats. */
struct waiter {
    STAILQ_ENTRY(waiter) entry;
    bly_write_done done;
    void *arg;
};

STAILQ_HEAD(waiters, waiter);

struct item {
    STAILQ_ENTRY(item) entry;
    struct waiters waiters; /* empty once accepted */
    bool has_id;
    struct bly_write_id id;
    size_t len, written;
    unsigned char data[];
};

STAILQ_HEAD(items, item);

struct bly_input {
    size_t max_bytes;
    int fd; /* -EBADF until it is opened */
    bool ended;
    struct items accepted; /* being delivered */
    struct items waiting;  /* for room */
    size_t n_bytes;        /* accepted and not yet written */
    struct bly_write_ids ids;
};

int bly_input_new(size_t max_bytes, struct bly_input **ret_input)
{
    struct bly_input *input = calloc(1, sizeof(*input));

    if (input == NULL)
        return -ENOMEM;
    input->max_bytes = max_bytes;
    input->fd = -EBADF;
    STAILQ_INIT(&input->accepted);
    STAILQ_INIT(&input->waiting);
    bly_write_ids_init(&input->ids);
    *ret_input = input;
    return 0;
}

struct bly_input *bly_input_free(struct bly_input *input)
{
    if (input == NULL)
        return NULL;
    assert(input->ended);
    bly_write_ids_deinit(&input->ids);
    free(input);
    return NULL;
}

void bly_input_open(struct bly_input *input, int fd)
{
    if (!input->ended)
        input->fd = fd;
}

bool bly_input_wants_room(const struct bly_input *input)
{
    return input->fd >= 0 && !STAILQ_EMPTY(&input->accepted);
}

static bool has_room(const struct bly_input *input, size_t len)
{
    /* One that is bigger than the whole queue goes alone. */
    return input->n_bytes == 0 ||
           (input->n_bytes <= input->max_bytes && len <= input->max_bytes - input->n_bytes);
}

static struct item *pop(struct items *items)
{
    struct item *item = STAILQ_FIRST(items);

    STAILQ_REMOVE_HEAD(items, entry);
    return item;
}

/* Calls back: anything may have happened to the queue afterwards. Takes the waiters. */
static void answer(struct waiters *waiters, enum bly_write_status status)
{
    struct waiters taken = STAILQ_HEAD_INITIALIZER(taken);

    STAILQ_CONCAT(&taken, waiters);
    while (!STAILQ_EMPTY(&taken)) {
        struct waiter *waiter = STAILQ_FIRST(&taken);

        STAILQ_REMOVE_HEAD(&taken, entry);
        waiter->done(waiter->arg, status);
        free(waiter);
    }
}

void bly_input_end(struct bly_input *input)
{
    input->ended = true;
    input->fd = -EBADF;
    input->n_bytes = 0;
    while (!STAILQ_EMPTY(&input->accepted))
        free(pop(&input->accepted));
    while (!STAILQ_EMPTY(&input->waiting)) {
        struct item *item = pop(&input->waiting);

        answer(&item->waiters, BLY_WRITE_STDIN_CLOSED);
        free(item);
    }
}

/* Out of memory here means that a repetition might be written twice; there is no better answer. */
static void remember(struct bly_input *input, bool has_id, const struct bly_write_id *id)
{
    if (has_id)
        (void)bly_write_ids_add(&input->ids, id);
}

static void accept_item(struct bly_input *input, struct item *item)
{
    input->n_bytes += item->len;
    STAILQ_INSERT_TAIL(&input->accepted, item, entry);
}

static void admit_waiting(struct bly_input *input)
{
    struct item *item;

    while ((item = STAILQ_FIRST(&input->waiting)) != NULL && has_room(input, item->len)) {
        struct waiters waiters = STAILQ_HEAD_INITIALIZER(waiters);

        (void)pop(&input->waiting);
        STAILQ_CONCAT(&waiters, &item->waiters);
        remember(input, item->has_id, &item->id);
        accept_item(input, item);
        answer(&waiters, BLY_WRITE_ACCEPTED);
    }
}

enum progress { FULL, WROTE, BROKEN };

static enum progress write_first(struct bly_input *input)
{
    struct item *item = STAILQ_FIRST(&input->accepted);

    while (item->written < item->len) {
        ssize_t n = write(input->fd, item->data + item->written, item->len - item->written);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 || errno == EAGAIN ? FULL : BROKEN;
        item->written += (size_t)n;
        input->n_bytes -= (size_t)n;
    }
    free(pop(&input->accepted));
    return WROTE;
}

void bly_input_flush(struct bly_input *input)
{
    for (int i = 0; i < WRITES_A_TURN && bly_input_wants_room(input); i++) {
        enum progress progress = write_first(input);

        if (progress == BROKEN) {
            bly_input_end(input);
            return;
        }
        admit_waiting(input);
        if (progress == FULL)
            return;
    }
}

static struct item *item_new(const void *data, size_t len, const struct bly_write_id *id)
{
    struct item *item = malloc(sizeof(*item) + len);

    if (item == NULL)
        return NULL;
    STAILQ_INIT(&item->waiters);
    item->has_id = id != NULL;
    if (id != NULL)
        item->id = *id;
    item->len = len;
    item->written = 0;
    if (len > 0)
        memcpy(item->data, data, len);
    return item;
}

static struct item *find_waiting(struct bly_input *input, const struct bly_write_id *id)
{
    struct item *item;

    STAILQ_FOREACH(item, &input->waiting, entry)
    if (item->has_id && bly_write_id_equal(&item->id, id))
        return item;
    return NULL;
}

static int wait_for(struct item *item, bly_write_done done, void *arg)
{
    struct waiter *waiter = malloc(sizeof(*waiter));

    if (waiter == NULL)
        return -ENOMEM;
    waiter->done = done;
    waiter->arg = arg;
    STAILQ_INSERT_TAIL(&item->waiters, waiter, entry);
    return 0;
}

/* There is room: the outcome is known at once, also when the program has closed its end. */
static enum bly_write_status take_now(struct bly_input *input, struct item *item)
{
    bool has_id = item->has_id;
    struct bly_write_id id = item->id;

    accept_item(input, item);
    bly_input_flush(input);
    if (input->ended)
        return BLY_WRITE_STDIN_CLOSED;
    remember(input, has_id, &id);
    return BLY_WRITE_ACCEPTED;
}

void bly_input_write(struct bly_input *input, const void *data, size_t len, const char *write_id,
                     bly_write_done done, void *arg)
{
    struct bly_write_id digest;
    const struct bly_write_id *id = NULL;
    struct item *item = NULL;

    if (write_id != NULL) {
        digest = bly_write_id_of(write_id);
        id = &digest;
        if (bly_write_ids_has(&input->ids, id)) {
            done(arg, BLY_WRITE_ACCEPTED);
            return;
        }
        item = find_waiting(input, id);
        if (item != NULL && wait_for(item, done, arg) == 0)
            return;
    }

    if (!input->ended && item == NULL)
        item = item_new(data, len, id);
    else
        item = NULL;
    if (item == NULL) {
        done(arg, BLY_WRITE_STDIN_CLOSED);
    } else if (STAILQ_EMPTY(&input->waiting) && has_room(input, len)) {
        done(arg, take_now(input, item));
    } else if (wait_for(item, done, arg) == 0) {
        STAILQ_INSERT_TAIL(&input->waiting, item, entry);
    } else {
        free(item);
        done(arg, BLY_WRITE_STDIN_CLOSED);
    }
}
