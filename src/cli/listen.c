#include "cli/listen.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "transport/systemd.h"

static const char passed_sockets[] = "systemd";

int bly_cli_listen_add(struct bly_cli_listens *all, const char *value)
{
    if (all->n_values == BLY_LEN(all->values))
        return -EINVAL;
    all->values[all->n_values++] = value;
    return 0;
}

static bool is_stdio(const char *value)
{
    return strcmp(value, "stdio") == 0 || strcmp(value, "stdio://") == 0;
}

static size_t count(const struct bly_cli_listens *all, bool (*is)(const char *value))
{
    size_t n = 0;

    for (size_t i = 0; i < all->n_values; i++)
        n += is(all->values[i]);
    return n;
}

static bool is_systemd(const char *value)
{
    return strcmp(value, passed_sockets) == 0;
}

static int too_many(struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_INVALID, EINVAL, "more than %d sockets to listen on",
                    BLY_LISTENERS_MAX);
}

static int add_passed(struct bly_cli_listens *all, struct bly_systemd *systemd, struct bly_err *err)
{
    if (systemd->n_fds == 0)
        return bly_fail(err, BLY_ERR_INVALID, ENOENT,
                        "--listen systemd: no sockets were passed to this process (LISTEN_FDS)");
    if (all->n_listens + systemd->n_fds > BLY_LEN(all->listens))
        return too_many(err);
    for (size_t i = 0; i < systemd->n_fds; i++)
        all->listens[all->n_listens++] = (struct bly_listen){.fd = bly_take_fd(&systemd->fds[i])};
    systemd->n_fds = 0;
    return 0;
}

static int add_url(struct bly_cli_listens *all, const char *url, struct bly_err *err)
{
    if (all->n_listens == BLY_LEN(all->listens))
        return too_many(err);
    all->listens[all->n_listens++] = (struct bly_listen){.url = url, .fd = -EBADF};
    return 0;
}

int bly_cli_listen_resolve(struct bly_cli_listens *all, struct bly_systemd *systemd,
                           struct bly_err *err)
{
    int r = 0;

    if (all->n_values == 0)
        all->values[all->n_values++] = systemd->n_fds > 0 ? passed_sockets : "ws://127.0.0.1:0";
    all->stdio = count(all, is_stdio) > 0;
    if (all->stdio && all->n_values > 1)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "--listen stdio goes with no other --listen: standard input and output "
                        "are one connection");
    if (count(all, is_systemd) > 1)
        return bly_fail(err, BLY_ERR_INVALID, EINVAL,
                        "--listen systemd takes all sockets that were passed: give it once");

    for (size_t i = 0; i < all->n_values && r == 0; i++)
        r = is_systemd(all->values[i]) ? add_passed(all, systemd, err)
                                       : add_url(all, all->values[i], err);
    return r;
}
