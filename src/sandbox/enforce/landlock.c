#include "sandbox/enforce/enforce_internal.h"

#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/plan/plan_internal.h"

/* Of later kernels than the oldest headers we build with. */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15)
#endif
#ifndef LANDLOCK_ACCESS_NET_BIND_TCP
#define LANDLOCK_ACCESS_NET_BIND_TCP    (1ULL << 0)
#define LANDLOCK_ACCESS_NET_CONNECT_TCP (1ULL << 1)
#endif
#ifndef LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
#define LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0)
#define LANDLOCK_SCOPE_SIGNAL               (1ULL << 1)
#endif

/* The kernel takes as much of it as it knows and checks that the rest is zero. */
struct ruleset {
    uint64_t fs;
    uint64_t net;
    uint64_t scoped;
};

/* What became known with which ABI. */
static const struct {
    int abi;
    struct ruleset handles;
} abis[] = {
    {1,
     {.fs = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
            LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
            LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
            LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |
            LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
            LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
            LANDLOCK_ACCESS_FS_MAKE_SYM}},
    {2, {.fs = LANDLOCK_ACCESS_FS_REFER}},
    {3, {.fs = LANDLOCK_ACCESS_FS_TRUNCATE}},
    {4, {.net = LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP}},
    {5, {.fs = LANDLOCK_ACCESS_FS_IOCTL_DEV}},
    {6, {.scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL}},
};

static const uint64_t file_rights = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                                    LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_TRUNCATE |
                                    LANDLOCK_ACCESS_FS_IOCTL_DEV;

static const struct {
    unsigned rights;
    uint64_t fs;
} meanings[] = {
    {BLY_LOCK_LIST, LANDLOCK_ACCESS_FS_READ_DIR},
    {BLY_LOCK_READ, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR},
    {BLY_LOCK_EXECUTE, LANDLOCK_ACCESS_FS_EXECUTE},
    /* No device nodes: nobody inside may make them anyway. */
    {BLY_LOCK_WRITE,
     LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_EXECUTE |
         LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
         LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
         LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
         LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER | LANDLOCK_ACCESS_FS_TRUNCATE},
    {BLY_LOCK_DEVICE, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
                          LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_IOCTL_DEV},
};

int bly_wall_landlock_abi(void)
{
    /* Asked once: it cannot change while the kernel runs, and a wall asks for every rule. */
    static int abi = -1;
    long now;

    if (abi >= 0)
        return abi;
    now = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    abi = now < 0 ? 0 : (int)now;
    return abi;
}

static struct ruleset handled_by(int abi)
{
    struct ruleset all = {0};

    for (size_t i = 0; i < BLY_LEN(abis); i++) {
        if (abis[i].abi > abi)
            break;
        all.fs |= abis[i].handles.fs;
        all.net |= abis[i].handles.net;
        all.scoped |= abis[i].handles.scoped;
    }
    return all;
}

int bly_lock_new(const struct bly_plan *plan, int *ret_fd, struct bly_err *err)
{
    int abi = bly_wall_landlock_abi();
    struct ruleset ruleset = handled_by(abi);
    size_t size = abi >= 6 ? sizeof(ruleset) : abi >= 4 ? 16 : 8;
    long fd;

    *ret_fd = -EBADF;
    /* Before ABI 2 every rename between directories is refused: no program can work like that. */
    if (plan->network_only || abi < (plan->purpose == BLY_FOR_PROCESS ? 2 : 1))
        return 0;
    if (plan->network)
        ruleset.net = 0;
    fd = syscall(SYS_landlock_create_ruleset, &ruleset, size, 0);
    if (fd < 0)
        return bly_fail_sys(err, errno, "cannot make a Landlock ruleset");
    *ret_fd = (int)fd;
    return 0;
}

int bly_lock_allow(int lock_fd, int path_fd, unsigned rights, struct bly_err *err)
{
    struct landlock_path_beneath_attr rule = {.parent_fd = path_fd};
    struct stat st;

    if (lock_fd < 0)
        return 0;
    if (fstat(path_fd, &st) < 0)
        return bly_fail_sys(err, errno, "cannot stat what a Landlock rule is for");
    for (size_t i = 0; i < BLY_LEN(meanings); i++)
        if (rights & meanings[i].rights)
            rule.allowed_access |= meanings[i].fs;
    rule.allowed_access &= handled_by(bly_wall_landlock_abi()).fs;
    if (!S_ISDIR(st.st_mode))
        rule.allowed_access &= file_rights;
    if (rule.allowed_access == 0)
        return 0;
    if (syscall(SYS_landlock_add_rule, lock_fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
        return bly_fail_sys(err, errno, "cannot add a Landlock rule");
    return 0;
}

int bly_lock_apply(int lock_fd, struct bly_err *err)
{
    if (lock_fd >= 0 && syscall(SYS_landlock_restrict_self, lock_fd, 0) < 0)
        return bly_fail_sys(err, errno, "cannot apply the Landlock rules");
    return 0;
}
