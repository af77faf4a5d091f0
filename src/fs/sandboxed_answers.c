/*
 * What is believed of a helper's answer. A helper reads what programs behind walls have written,
 * and one of them may have taken it over: an answer that it cannot have to give is not used, and
 * ends the helper.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fs/helper/wire.h"
#include "fs/ops.h"
#include "fs/ops_internal.h"
#include "fs/sandboxed_internal.h"
#include "fs/warm.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"

/* ---- descriptors and contents ---- */

static void set_malformed(struct bly_fs_call *call)
{
    call->malformed = true;
    (void)bly_fail(&call->reply.err, BLY_ERR_LIMIT, EBADMSG, "sandboxed helper broke the protocol");
}

/*
 * Pool thread, for looking at a descriptor from a helper can block. Only a regular file that was
 * opened for what was asked may come out of the wall.
 */
static bool is_acceptable(int fd, bool writing, uint64_t *ret_size)
{
    int flags = fcntl(fd, F_GETFL);
    struct stat st;

    if (flags < 0 || (flags & O_PATH) || (flags & O_ACCMODE) != (writing ? O_WRONLY : O_RDONLY))
        return false;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || bly_ops_is_kernel_file(fd))
        return false;
    *ret_size = (uint64_t)st.st_size;
    return true;
}

/* Pool thread. */
static void complete(uv_work_t *work)
{
    struct bly_fs_call *call = work->data;
    struct bly_fs_reply *reply = &call->reply;
    struct bly_view view = {.cancelled = &call->cancelled};
    bly_autofd int fd = -EBADF;
    uint64_t size;

    if (reply->fd >= 0 && !is_acceptable(reply->fd, call->request.replace, &size)) {
        set_malformed(call);
    } else if (call->request.op == BLY_FS_READ_FILE && reply->fd >= 0) {
        fd = bly_take_fd(&reply->fd);
        (void)bly_ops_read_base64(&view, fd, size, call->request.max_text_bytes, &reply->text_mem,
                                  &reply->text_len, &reply->too_long, &reply->err);
    } else if (call->request.op == BLY_FS_READ_FILE &&
               bly_ops_text_of(call->pieces.data, call->pieces.len, &reply->text_mem,
                               &reply->text_len) < 0) {
        (void)bly_fail_sys(&reply->err, ENOMEM, "out of memory");
    }
}

static void on_complete(uv_work_t *work, int status)
{
    struct bly_fs_call *call = work->data;

    if (status == UV_ECANCELED || atomic_load(&call->cancelled))
        bly_fs_set_cancelled(call);
    if (call->reply.err.kind != BLY_ERR_NONE)
        bly_closep(&call->reply.fd);
    /* A helper that passes what it must not is not asked again. */
    if (call->malformed && call->context->helper != NULL && call->context->helper->ready)
        bly_fs_break_off(call->context->helper);
    bly_fs_finish_sandboxed(call);
}

static int complete_on_pool(struct bly_fs_call *call)
{
    call->state = BLY_CALL_ON_POOL;
    return uv_queue_work(call->fs->config.loop, &call->work, complete, on_complete);
}

/* ---- the rest of a result ---- */

/* The entries are read again by whoever writes the answer, so they must be whole. */
static bool are_entries(const struct bly_buf *entries, uint64_t n, bool walk)
{
    struct bly_reader reader = bly_reader_of(entries->data, entries->len);
    unsigned known = BLY_FS_ENTRY_FILE | BLY_FS_ENTRY_DIRECTORY | (walk ? BLY_FS_ENTRY_ERROR : 0);
    size_t len;

    if (n > 2 * BLY_FS_DIRECTORY_MAX)
        return false;
    for (uint64_t i = 0; i < n; i++) {
        unsigned flags = bly_get_u8(&reader);

        if ((flags & ~known) || bly_get_bytes(&reader, &len) == NULL || len == 0)
            return false;
        if ((flags & BLY_FS_ENTRY_ERROR) && bly_get_bytes(&reader, &len) == NULL)
            return false;
    }
    return !reader.bad && reader.pos == reader.len;
}

static int take_path(struct bly_fs_call *call)
{
    const struct bly_buf *text = &call->pieces;

    if (text->len == 0 || text->data[0] != '/' || memchr(text->data, '\0', text->len) != NULL)
        return -EBADMSG;
    call->reply.path = strndup((const char *)text->data, text->len);
    return call->reply.path == NULL ? -ENOMEM : 0;
}

static int take_entries(struct bly_fs_call *call, const struct bly_hwire_reply *in)
{
    struct bly_fs_reply *reply = &call->reply;

    if (!are_entries(&call->pieces, in->number, call->request.op == BLY_FS_WALK))
        return -EBADMSG;
    bly_buf_deinit(&reply->entries);
    reply->entries = call->pieces;
    bly_buf_init(&call->pieces, 0);
    reply->n_entries = in->number;
    reply->truncated = in->flags & BLY_HWIRE_TRUNCATED;
    return 0;
}

/* The flags a helper may answer an operation with. */
static unsigned allowed_flags(enum bly_fs_op op)
{
    if (op == BLY_FS_READ_FILE)
        return BLY_HWIRE_FD | BLY_HWIRE_TOO_LONG;
    if (op == BLY_FS_OPEN)
        return BLY_HWIRE_FD;
    if (op == BLY_FS_GET_METADATA)
        return BLY_HWIRE_IS_DIRECTORY | BLY_HWIRE_IS_FILE | BLY_HWIRE_IS_SYMLINK;
    return op == BLY_FS_WALK ? BLY_HWIRE_TRUNCATED : 0;
}

/* ---- errors and denials ---- */

static size_t find_glob(const struct bly_policy *policy, const char *pattern)
{
    size_t i = 0;

    while (i < policy->n_deny_globs && strcmp(policy->deny_globs[i], pattern) != 0)
        i++;
    return i;
}

/*
 * The helper counts the rules and globs of its plan, which knows more than the client wrote: finds
 * the same one in the client's policy. -EBADMSG for one that is not there.
 */
static int take_denial(const struct bly_fs_helper *helper, const struct bly_hwire_reply *in,
                       struct bly_denial *denial)
{
    const struct bly_policy *planned = bly_plan_policy(helper->plan);
    const struct bly_policy *asked = helper->context->policy;
    bool is_glob = in->denied_by == BLY_BY_GLOB;
    size_t n = is_glob ? planned->n_deny_globs : planned->n_rules;
    size_t index = in->denied_index;

    *denial = (struct bly_denial){.access = in->denied_access,
                                  .by = in->denied_by,
                                  .name = in->denied_name,
                                  .rung = (uint8_t)bly_warm_rung(helper->warm)};
    if (in->denied_by == BLY_BY_NOTHING)
        return index == 0 ? 0 : -EBADMSG;
    if (index >= n)
        return -EBADMSG;
    index = is_glob ? find_glob(asked, planned->deny_globs[index])
                    : bly_policy_find(asked, planned->rules[index].path);
    if (index < (is_glob ? asked->n_deny_globs : asked->n_rules)) {
        denial->index = (uint32_t)index;
    } else {
        denial->by = BLY_BY_DERIVED;
        denial->name = 0;
    }
    return 0;
}

static int take_error(struct bly_fs_call *call, const struct bly_fs_helper *helper,
                      const struct bly_hwire_reply *in)
{
    const struct bly_buf *text = &call->pieces;
    struct bly_err *err = &call->reply.err;

    if (in->kind == BLY_ERR_SYSTEM)
        (void)bly_fail_sys(err, in->sys, "%s", call->request.path);
    else
        (void)bly_fail(err, (enum bly_err_kind)in->kind, in->sys, "%.*s", (int)text->len,
                       text->len > 0 ? (const char *)text->data : "");
    return in->denied_access ? take_denial(helper, in, &err->denial) : 0;
}

/* ---- whole answers ---- */

enum { ON_POOL = 1 }; /* outcome of take_result(): a pool thread completes it */

static int take_result(struct bly_fs_call *call, const struct bly_fs_helper *helper,
                       const struct bly_hwire_reply *in, int *fd)
{
    struct bly_fs_reply *reply = &call->reply;
    enum bly_fs_op op = call->request.op;

    if (in->kind != BLY_ERR_NONE)
        return take_error(call, helper, in);
    if (in->flags & ~allowed_flags(op))
        return -EBADMSG;
    if (op == BLY_FS_READ_FILE && (in->flags & BLY_HWIRE_TOO_LONG)) {
        reply->too_long = in->number > 0 ? in->number : 1;
        return 0;
    }
    if (op == BLY_FS_READ_FILE && *fd < 0 && call->pieces.len <= BLY_HWIRE_PIECE)
        return bly_ops_text_of(call->pieces.data, call->pieces.len, &reply->text_mem,
                               &reply->text_len);
    if (op == BLY_FS_READ_FILE || op == BLY_FS_OPEN) {
        if (op == BLY_FS_OPEN && *fd < 0)
            return -EBADMSG;
        reply->fd = bly_take_fd(fd);
        return complete_on_pool(call) < 0 ? -ENOMEM : ON_POOL;
    }
    if (op == BLY_FS_CANONICALIZE)
        return take_path(call);
    if (op == BLY_FS_READ_DIRECTORY || op == BLY_FS_WALK)
        return take_entries(call, in);
    reply->metadata = (struct bly_fs_metadata){
        .is_directory = in->flags & BLY_HWIRE_IS_DIRECTORY,
        .is_file = in->flags & BLY_HWIRE_IS_FILE,
        .is_symlink = in->flags & BLY_HWIRE_IS_SYMLINK,
        .size = in->number,
        .created_at_ms = in->created_at_ms,
        .modified_at_ms = in->modified_at_ms,
    };
    return 0;
}

/* The answer to the first request is complete. */
static void answer(struct bly_fs_helper *helper, const struct bly_hwire_reply *in, int *fd)
{
    struct bly_fs_context *context = helper->context;
    struct bly_fs_call *call = helper->flights[0].call;
    int r;

    if (call == NULL) {
        bly_fs_drop_first(helper);
        bly_fs_pump(context);
        return;
    }
    r = take_result(call, helper, in, fd);
    if (r == -EBADMSG) {
        bly_fs_break_off(helper);
        return;
    }
    context->n_futile = 0;
    bly_fs_drop_first(helper);
    if (r == ON_POOL) {
        bly_fs_pump(context);
        return;
    }
    if (r < 0) {
        bly_closep(&call->reply.fd);
        (void)bly_fail_sys(&call->reply.err, -r, "out of memory");
    }
    bly_fs_finish_sandboxed(call);
}

void bly_fs_on_packet(void *arg, const void *packet, size_t len, int received)
{
    struct bly_fs_helper *helper = arg;
    struct bly_hwire_reply in;
    bly_autofd int fd = received;
    struct bly_fs_call *call;
    const void *data;

    if (bly_hwire_unpack_reply(packet, len, fd >= 0, &in, &data) < 0 || helper->n_flights == 0 ||
        in.seq != helper->flights[0].seq) {
        bly_fs_break_off(helper);
        return;
    }
    call = helper->flights[0].call;
    if (call != NULL) {
        /* An error in the middle replaces what came before it. */
        if (in.kind != BLY_ERR_NONE)
            call->pieces.len = 0;
        if (bly_buf_add(&call->pieces, data, in.data_len) < 0) {
            bly_fs_break_off(helper);
            return;
        }
    }
    if (!(in.flags & BLY_HWIRE_MORE))
        answer(helper, &in, &fd);
}
