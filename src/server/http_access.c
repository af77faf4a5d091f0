#include "server/http_access.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "server/http_library.h"

static int take_variable(struct bly_http_access *access, const char *name)
{
    struct bly_http_variable *variable = &access->variables[access->config.n_variables++];
    const char *value = getenv(name); /* NOLINT(concurrency-mt-unsafe): no threads yet */

    *variable = (struct bly_http_variable){.name = name};
    if (!value)
        return 0;
    variable->value = strdup(value);
    if (!variable->value)
        return -ENOMEM;
    return unsetenv(name) < 0 ? -errno : 0; /* NOLINT(concurrency-mt-unsafe) */
}

static int take_variables(struct bly_http_access *access, const char *const *names, size_t n,
                          struct bly_err *err)
{
    int r = 0;

    /* A name that is given twice must not lose its value. */
    for (size_t i = 0; i < n && r == 0; i++) {
        bool known = false;

        for (size_t k = 0; k < access->config.n_variables; k++)
            known = known || strcmp(access->variables[k].name, names[i]) == 0;
        if (!known)
            r = take_variable(access, names[i]);
    }
    return r < 0 ? bly_fail_sys(err, -r, "cannot keep a variable") : 0;
}

int bly_http_access_open(struct bly_http_access *access, const char *const *names, size_t n,
                         const char *ca_file, struct bly_err *err)
{
    int r;

    *access =
        (struct bly_http_access){.config = {.variables = access->variables, .ca_file = ca_file}};
    if (ca_file && eaccess(ca_file, R_OK) < 0)
        return bly_fail(err, BLY_ERR_INVALID, errno, "cannot read certificates from %s: %s",
                        ca_file, bly_errno_text(errno));
    r = bly_http_library_open(&access->library, err);
    if (r < 0)
        return r;
    access->config.library = access->library;
    r = take_variables(access, names, n, err);
    if (r < 0)
        bly_http_access_close(access);
    return r;
}

void bly_http_access_close(struct bly_http_access *access)
{
    for (size_t i = 0; i < access->config.n_variables; i++)
        free(access->variables[i].value);
    access->library = bly_http_library_free(access->library);
    *access = (struct bly_http_access){0};
}
