#include "fs/fold.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "base/err.h"

#ifndef FS_CASEFOLD_FL
#define FS_CASEFOLD_FL 0x40000000
#endif

/* The protected name that the component is in other letters; NULL: none, or in the same ones. */
static const char *odd_name(const char *component, size_t len)
{
    for (size_t i = 0; bly_policy_protected_names[i]; i++) {
        const char *name = bly_policy_protected_names[i];

        if (strlen(name) == len && strncasecmp(component, name, len) == 0)
            return memcmp(component, name, len) == 0 ? NULL : name;
    }
    return NULL;
}

/* `at` is the slash in front of a component of `path`. */
static bool is_folded(char *path, size_t at, bool (*folds)(const char *dir))
{
    bool answer;

    path[at] = '\0';
    answer = folds(at == 0 ? "/" : path);
    path[at] = '/';
    return answer;
}

enum bly_access bly_fold_explain(const struct bly_policy *policy, const char *path,
                                 bool (*folds)(const char *dir), struct bly_denial *ret_reason)
{
    char folded[PATH_MAX];
    size_t size = strlen(path) + 1;
    bool copied = false;

    for (const char *slash = path; *slash == '/';) {
        size_t at = (size_t)(slash - path), len = strcspn(slash + 1, "/");
        const char *name = slash[1] == '.' ? odd_name(slash + 1, len) : NULL;

        slash += 1 + len;
        if (name == NULL)
            continue;
        if (!copied && size > sizeof folded) { /* nor can it be opened */
            ret_reason->by = BLY_BY_NOTHING;
            ret_reason->index = 0;
            return BLY_ACCESS_DENY;
        }
        if (!copied)
            memcpy(folded, path, size);
        copied = true;
        if (is_folded(folded, at, folds))
            memcpy(folded + at + 1, name, len);
    }
    return bly_policy_explain(policy, copied ? folded : path, ret_reason);
}

enum bly_access bly_fold_decide(const struct bly_policy *policy, const char *path,
                                bool (*folds)(const char *dir))
{
    struct bly_denial reason;

    return bly_fold_explain(policy, path, folds, &reason);
}

bool bly_fold_on_disk(const char *dir)
{
    bly_autofd int fd =
        open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    int flags = 0;

    if (fd < 0) /* what does not exist has no names in it */
        return errno != ENOENT && errno != ENOTDIR && errno != ELOOP;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0) /* file systems without flags do not fold */
        return errno != ENOTTY && errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS;
    return flags & FS_CASEFOLD_FL;
}
