#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/*
 * Formats into a scratch text first, so that arguments may point into err->text itself.
 */
__attribute__((format(printf, 2, 0))) static size_t format_text(char *text, const char *fmt,
                                                                va_list args)
{
    int n = vsnprintf(text, BLY_ERR_TEXT_MAX, fmt, args);

    if (n < 0) {
        text[0] = '\0';
        return 0;
    }
    return n < BLY_ERR_TEXT_MAX ? (size_t)n : BLY_ERR_TEXT_MAX - 1;
}

/* Appends what fits; returns the new length. */
static size_t append_text(char *text, size_t len, const char *more)
{
    size_t room = BLY_ERR_TEXT_MAX - 1 - len;
    size_t n = strnlen(more, room);

    memcpy(text + len, more, n);
    text[len + n] = '\0';
    return len + n;
}

static void set_error(struct bly_err *err, enum bly_err_kind kind, int sys, const char *text,
                      size_t len)
{
    err->kind = kind;
    err->denial = (struct bly_denial){0};
    err->sys = sys;
    memcpy(err->text, text, len + 1);
}

int bly_fail(struct bly_err *err, enum bly_err_kind kind, int sys, const char *fmt, ...)
{
    if (err) {
        char text[BLY_ERR_TEXT_MAX];
        va_list args;

        va_start(args, fmt);
        size_t len = format_text(text, fmt, args);
        va_end(args);
        set_error(err, kind, sys, text, len);
    }
    return sys ? -sys : -EINVAL;
}

int bly_fail_sys(struct bly_err *err, int sys, const char *fmt, ...)
{
    if (err) {
        char text[BLY_ERR_TEXT_MAX];
        const char *reason = strerrordesc_np(sys);
        va_list args;

        va_start(args, fmt);
        size_t len = format_text(text, fmt, args);
        va_end(args);
        len = append_text(text, len, ": ");
        len = append_text(text, len, reason ? reason : "unknown error");
        set_error(err, BLY_ERR_SYSTEM, sys, text, len);
    }
    return sys ? -sys : -EINVAL;
}

int bly_because(struct bly_err *err, int r, const char *fmt, ...)
{
    if (err) {
        struct bly_denial denial = err->denial;
        char text[BLY_ERR_TEXT_MAX];
        va_list args;

        va_start(args, fmt);
        size_t len = format_text(text, fmt, args);
        va_end(args);
        len = append_text(text, len, ": ");
        len = append_text(text, len, err->text);
        set_error(err, err->kind, err->sys, text, len);
        err->denial = denial;
    }
    return r;
}

void bly_err_clear(struct bly_err *err)
{
    err->kind = BLY_ERR_NONE;
    err->denial = (struct bly_denial){0};
    err->sys = 0;
    err->text[0] = '\0';
}

static const char *const errno_texts[] = {
    [EPERM] = "Operation not permitted",
    [ENOENT] = "No such file or directory",
    [ESRCH] = "No such process",
    [EINTR] = "Interrupted system call",
    [EIO] = "I/O error",
    [ENXIO] = "No such device or address",
    [E2BIG] = "Argument list too long",
    [ENOEXEC] = "Exec format error",
    [EBADF] = "Bad file descriptor",
    [ECHILD] = "No child process",
    [EAGAIN] = "Resource temporarily unavailable",
    [ENOMEM] = "Out of memory",
    [EACCES] = "Permission denied",
    [EFAULT] = "Bad address",
    [ENOTBLK] = "Block device required",
    [EBUSY] = "Resource busy",
    [EEXIST] = "File exists",
    [EXDEV] = "Cross-device link",
    [ENODEV] = "No such device",
    [ENOTDIR] = "Not a directory",
    [EISDIR] = "Is a directory",
    [EINVAL] = "Invalid argument",
    [ENFILE] = "Too many open files in system",
    [EMFILE] = "No file descriptors available",
    [ENOTTY] = "Not a tty",
    [ETXTBSY] = "Text file busy",
    [EFBIG] = "File too large",
    [ENOSPC] = "No space left on device",
    [ESPIPE] = "Invalid seek",
    [EROFS] = "Read-only file system",
    [EMLINK] = "Too many links",
    [EPIPE] = "Broken pipe",
    [ERANGE] = "Result not representable",
    [EDEADLK] = "Resource deadlock would occur",
    [ENAMETOOLONG] = "Filename too long",
    [ENOLCK] = "No locks available",
    [ENOSYS] = "Function not implemented",
    [ENOTEMPTY] = "Directory not empty",
    [ELOOP] = "Symbolic link loop",
    [EOVERFLOW] = "Value too large for data type",
    [ENOTSOCK] = "Not a socket",
    [EOPNOTSUPP] = "Not supported",
    [EADDRINUSE] = "Address in use",
    [ETIMEDOUT] = "Operation timed out",
    [ESTALE] = "Stale file handle",
    [EDQUOT] = "Quota exceeded",
};

const char *bly_errno_text(int sys)
{
    if (sys < 0 || (size_t)sys >= BLY_LEN(errno_texts) || !errno_texts[sys])
        return "No error information";
    return errno_texts[sys];
}
