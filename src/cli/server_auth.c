#include "cli/server_auth.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "transport/ws.h"

static const char token_mode[] = "capability-token", jwt_mode[] = "signed-bearer-token";
static const char white_space[] = " \t\n\v\f\r";

/* ---- values --------------------------------------------------------------------------------- */

int bly_auth_check_mode(const char *mode)
{
    return strcmp(mode, token_mode) == 0 || strcmp(mode, jwt_mode) == 0 ? 0 : -EINVAL;
}

/* Digits only: strtoll() would take signs and blanks. */
static int parse_seconds(const char *text, int64_t *ret)
{
    int64_t seconds = 0;

    if (!*text || text[strspn(text, "0123456789")])
        return -EINVAL;
    for (; *text; text++) {
        if (__builtin_mul_overflow(seconds, 10, &seconds) ||
            __builtin_add_overflow(seconds, *text - '0', &seconds))
            return -EINVAL;
    }
    *ret = seconds;
    return 0;
}

int bly_auth_check_skew(const char *seconds)
{
    int64_t unused;

    return parse_seconds(seconds, &unused);
}

/* ---- files ---------------------------------------------------------------------------------- */

struct secret {
    char text[BLY_AUTH_FILE_MAX + 1]; /* one more than may be, to notice that */
    size_t len;
};

static void wipe(struct secret *secret)
{
    explicit_bzero(secret, sizeof(*secret));
}

#define auto_secret __attribute__((cleanup(wipe))) struct secret

static int cannot_read(struct bly_err *err, const char *path, int error)
{
    return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                    "failed to read websocket auth secret %s: %s (os error %d)", path,
                    bly_errno_text(error), error);
}

static void warn_if_readable(const char *path, int fd)
{
    struct stat st;

    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IROTH))
        bly_log(BLY_LOG_WARN, "secret-readable-by-all", "path=\"%s\" mode=%03o", path,
                st.st_mode & 07777);
}

static int read_file(const char *path, struct secret *secret, struct bly_err *err)
{
    bly_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t n;

    if (fd < 0)
        return cannot_read(err, path, errno);
    warn_if_readable(path, fd);
    while (secret->len < sizeof(secret->text)) {
        n = read(fd, secret->text + secret->len, sizeof(secret->text) - secret->len);
        if (n < 0 && errno != EINTR)
            return cannot_read(err, path, errno);
        if (n == 0)
            return 0;
        secret->len += n > 0 ? (size_t)n : 0;
    }
    return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                    "websocket auth secret %s must not be larger than %d bytes", path,
                    BLY_AUTH_FILE_MAX);
}

static bool is_white(char c)
{
    return c != '\0' && strchr(white_space, c);
}

/* Line breaks are an editor's, not the secret's. */
static void trim(struct secret *secret)
{
    size_t from = 0;

    while (secret->len > 0 && is_white(secret->text[secret->len - 1]))
        secret->len--;
    while (from < secret->len && is_white(secret->text[from]))
        from++;
    secret->len -= from;
    memmove(secret->text, secret->text + from, secret->len);
}

static int read_secret(const char *path, struct secret *secret, struct bly_err *err)
{
    struct bly_utf8 utf8 = {0};
    int r = read_file(path, secret, err);

    if (r < 0)
        return r;
    if (!bly_utf8_feed(&utf8, (const uint8_t *)secret->text, secret->len) || utf8.left > 0)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "failed to read websocket auth secret %s: stream did not contain valid "
                        "UTF-8",
                        path);
    trim(secret);
    if (secret->len == 0)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL, "websocket auth secret %s must not be empty",
                        path);
    return 0;
}

/* ---- modes ---------------------------------------------------------------------------------- */

/* A header cannot carry anything else, so nobody could ever come in. */
static bool fits_header(const struct secret *token)
{
    for (size_t i = 0; i < token->len; i++) {
        if (token->text[i] < ' ' || token->text[i] > '~')
            return false;
    }
    return true;
}

static int load_token_file(const char *path, struct bly_auth *auth, struct bly_err *err)
{
    auto_secret token = {0};
    int r = read_secret(path, &token, err);

    if (r < 0)
        return r;
    if (!fits_header(&token))
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "websocket auth secret %s must be one line of printable ASCII", path);
    bly_auth_init_token(auth, token.text, token.len);
    return 0;
}

static int load_token(const struct bly_auth_options *o, struct bly_auth *auth, struct bly_err *err)
{
    if (o->shared_secret_file || o->issuer || o->audience || o->max_clock_skew)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "`--ws-shared-secret-file`, `--ws-issuer`, `--ws-audience`, and "
                        "`--ws-max-clock-skew-seconds` require `--ws-auth signed-bearer-token`");
    if (o->token_file && o->token_sha256)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "`--ws-token-file` and `--ws-token-sha256` cannot be used together");
    if (o->token_file)
        return load_token_file(o->token_file, auth, err);
    if (!o->token_sha256)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "`--ws-token-file` or `--ws-token-sha256` is required when "
                        "`--ws-auth capability-token` is set");
    if (bly_auth_init_digest(auth, o->token_sha256) < 0)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "--ws-token-sha256 must be a 64-character hex SHA-256 digest");
    return 0;
}

static int load_jwt(const struct bly_auth_options *o, struct bly_auth *auth, struct bly_err *err)
{
    auto_secret secret = {0};
    int64_t max_skew_s = 30;
    int r;

    if (o->token_file || o->token_sha256)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "`--ws-token-file` and `--ws-token-sha256` require "
                        "`--ws-auth capability-token`, not `signed-bearer-token`");
    if (!o->shared_secret_file)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "`--ws-shared-secret-file` is required when "
                        "`--ws-auth signed-bearer-token` is set");
    r = o->max_clock_skew ? parse_seconds(o->max_clock_skew, &max_skew_s) : 0;
    if (r < 0)
        return bly_fail(err, BLY_ERR_INVALID, -r, "--ws-max-clock-skew-seconds is not a number");
    r = read_secret(o->shared_secret_file, &secret, err);
    if (r < 0)
        return r;
    if (secret.len < BLY_AUTH_SECRET_MIN)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "signed websocket bearer secret %s must be at least %d bytes",
                        o->shared_secret_file, BLY_AUTH_SECRET_MIN);
    bly_auth_init_jwt(auth, secret.text, secret.len, o->issuer, o->audience, max_skew_s);
    return 0;
}

static int load_none(const struct bly_auth_options *o, struct bly_auth *auth, struct bly_err *err)
{
    if (o->token_file || o->token_sha256 || o->shared_secret_file || o->issuer || o->audience ||
        o->max_clock_skew)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "websocket auth flags require `--ws-auth capability-token` or "
                        "`--ws-auth signed-bearer-token`");
    *auth = (struct bly_auth){.mode = o->insecure ? BLY_AUTH_OPEN : BLY_AUTH_NONE};
    return 0;
}

int bly_auth_options_load(const struct bly_auth_options *options, struct bly_auth *ret_auth,
                          struct bly_err *err)
{
    if (!options->mode)
        return load_none(options, ret_auth, err);
    if (options->insecure)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "`--insecure-no-auth` and `--ws-auth` cannot be used together");
    return strcmp(options->mode, token_mode) == 0 ? load_token(options, ret_auth, err)
                                                  : load_jwt(options, ret_auth, err);
}
