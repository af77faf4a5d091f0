#include "server/environment.h"

#include <fcntl.h>
#include <nettle/sha2.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/path.h"

/* Set before any thread exists. */
static const char *variable(const char *name)
{
    return getenv(name); /* NOLINT(concurrency-mt-unsafe) */
}

static bool is_program(const char *path)
{
    struct stat st;

    return path && path[0] == '/' && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
           access(path, X_OK) == 0;
}

static const char *find_shell(void)
{
    const char *candidates[] = {variable("SHELL"), "/bin/bash", "/bin/sh"};

    for (size_t i = 0; i < BLY_LEN(candidates); i++)
        if (is_program(candidates[i]))
            return candidates[i];
    return "/bin/sh";
}

static ssize_t read_machine_id(char *text, size_t size)
{
    bly_autofd int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);

    return fd < 0 ? 0 : read(fd, text, size);
}

/* Names this installation without telling anybody what the machine's id is. */
static char *make_provider_id(void)
{
    uint8_t digest[SHA256_DIGEST_SIZE];
    struct sha256_ctx ctx;
    char machine[64], user[32];
    ssize_t n = read_machine_id(machine, sizeof(machine));
    char *id = malloc(sizeof("sha256:") + 2 * sizeof(digest));
    int m = snprintf(user, sizeof(user), ":%u", (unsigned)geteuid());

    if (!id)
        return NULL;
    sha256_init(&ctx);
    sha256_update(&ctx, sizeof("bailey:") - 1, (const uint8_t *)"bailey:");
    if (n > 0)
        sha256_update(&ctx, (size_t)n, (const uint8_t *)machine);
    sha256_update(&ctx, (size_t)m, (const uint8_t *)user);
    sha256_digest(&ctx, sizeof(digest), digest);

    memcpy(id, "sha256:", sizeof("sha256:"));
    for (size_t i = 0; i < sizeof(digest); i++)
        (void)snprintf(id + sizeof("sha256:") - 1 + 2 * i, 3, "%02x", digest[i]);
    return id;
}

/* NULL when `path` is not an absolute path; false only when out of memory. */
static bool copy_absolute(const char *path, char **ret_path)
{
    *ret_path = NULL;
    if (!path || path[0] != '/')
        return true;
    return bly_path_normalise(path, strlen(path), ret_path) != -ENOMEM;
}

static const char *find_home(void)
{
    const char *home = variable("HOME");
    const struct passwd *user;

    if (home && home[0] == '/')
        return home;
    user = getpwuid(geteuid()); /* NOLINT(concurrency-mt-unsafe) */
    return user ? user->pw_dir : NULL;
}

/* Where a Codex on this machine would have its files, whether there is one or not. */
static bool find_codex_home(const char *home, char **ret_path)
{
    const char *set = variable("CODEX_HOME");

    if (set && set[0] == '/')
        return copy_absolute(set, ret_path);
    *ret_path = home ? bly_path_join(home, ".codex") : NULL;
    return !home || *ret_path;
}

static char *find_hostname(void)
{
    struct utsname names;

    return uname(&names) == 0 ? strdup(names.nodename) : NULL;
}

int bly_environment_facts_init(struct bly_environment_facts *facts, struct bly_err *err)
{
    bly_autofree char *cwd = getcwd(NULL, 0);

    memset(facts, 0, sizeof(*facts));
    if (!cwd)
        return bly_fail_sys(err, errno, "cannot find the working directory");

    facts->shell_path = strdup(find_shell());
    facts->provider_id = make_provider_id();
    facts->hostname = find_hostname();
    if (!copy_absolute(cwd, &facts->cwd) || !copy_absolute(find_home(), &facts->home) ||
        !copy_absolute(variable("TMPDIR"), &facts->tmpdir) ||
        !find_codex_home(facts->home, &facts->codex_home) || !facts->shell_path ||
        !facts->provider_id || !facts->cwd) {
        bly_environment_facts_deinit(facts);
        return bly_fail(err, BLY_ERR_LIMIT, ENOMEM, "out of memory");
    }

    facts->environment = (struct bly_environment){
        .shell_name = bly_path_base(facts->shell_path),
        .shell_path = facts->shell_path,
        .version = BLY_VERSION,
        .provider_id = facts->provider_id,
        .cwd = facts->cwd,
        .home = facts->home,
        .tmpdir = facts->tmpdir,
        .codex_home = facts->codex_home,
        .hostname = facts->hostname,
    };
    facts->policy_env = (struct bly_policy_env){.cwd = facts->cwd, .tmpdir = facts->tmpdir};
    return 0;
}

void bly_environment_facts_deinit(struct bly_environment_facts *facts)
{
    free(facts->shell_path);
    free(facts->provider_id);
    free(facts->cwd);
    free(facts->home);
    free(facts->tmpdir);
    free(facts->codex_home);
    free(facts->hostname);
    memset(facts, 0, sizeof(*facts));
}
