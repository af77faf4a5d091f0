#include "launcher/exec.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static const char default_path[] = "/usr/local/bin:/bin:/usr/bin";

static const char *search_path(char *const *envp)
{
    for (; *envp != NULL; envp++)
        if (strncmp(*envp, "PATH=", 5) == 0)
            return *envp + 5;
    return default_path;
}

/* An error that says nothing about the other directories of the search path. */
static bool is_miss(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
    case EACCES:
    case ESTALE:
    case ENODEV:
    case ETIMEDOUT:
    case ENAMETOOLONG:
        return true;
    default:
        return false;
    }
}

static int exec_in(const char *dir, size_t dir_len, const char *name, char *const *argv,
                   char *const *envp)
{
    char path[PATH_MAX];
    size_t name_len = strlen(name);
    char *at = path;

    if (dir_len + 1 + name_len >= sizeof(path))
        return ENAMETOOLONG;
    at = mempcpy(at, dir, dir_len);
    if (dir_len > 0) /* An empty element is the working directory. */
        *at++ = '/';
    memcpy(at, name, name_len + 1);
    (void)execve(path, argv, envp);
    return errno;
}

int bly_exec(const char *program, char *const *argv, char *const *envp)
{
    bool denied = false;

    if (program[0] == '\0')
        return -ENOENT;
    if (strchr(program, '/') != NULL) {
        (void)execve(program, argv, envp);
        return -errno;
    }

    for (const char *dir = search_path(envp);; dir++) {
        size_t len = strcspn(dir, ":");
        int error = exec_in(dir, len, program, argv, envp);

        if (!is_miss(error))
            return -error;
        if (error == EACCES)
            denied = true;
        dir += len;
        if (*dir == '\0')
            return denied ? -EACCES : -ENOENT;
    }
}
