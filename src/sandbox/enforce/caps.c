#include "sandbox/enforce/enforce_internal.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"

/* Newer than the oldest headers we build with. */
enum { LAST_CAP_TO_TRY = 63 };

struct sets {
    uint64_t effective, permitted, inheritable;
};

static int get_sets(struct sets *sets)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    if (syscall(SYS_capget, &header, data) < 0)
        return -errno;
    sets->effective = data[0].effective | (uint64_t)data[1].effective << 32;
    sets->permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    sets->inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
    return 0;
}

static int set_sets(const struct sets *sets, struct bly_err *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)sets->effective, (uint32_t)sets->permitted, (uint32_t)sets->inheritable},
        {(uint32_t)(sets->effective >> 32), (uint32_t)(sets->permitted >> 32),
         (uint32_t)(sets->inheritable >> 32)},
    };

    if (syscall(SYS_capset, &header, data) < 0)
        return bly_fail_sys(err, errno, "cannot drop capabilities");
    return 0;
}

/* Takes the capabilities of `mask` out of the bounding set; the kernel says where they end. */
static int drop_bounding(uint64_t mask, struct bly_err *err)
{
    for (unsigned cap = 0; cap <= LAST_CAP_TO_TRY; cap++) {
        if (!(mask & 1ULL << cap))
            continue;
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
            if (errno == EINVAL)
                return 0;
            return bly_fail_sys(err, errno, "cannot drop capability %u for good", cap);
        }
    }
    return 0;
}

int bly_caps_drop_all(struct bly_err *err)
{
    const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                               SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                               SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    static const struct sets none = {0};
    int r;

    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return bly_fail_sys(err, errno, "cannot clear the ambient capabilities");
    if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) < 0)
        return bly_fail_sys(err, errno, "cannot lock the securebits");
    r = drop_bounding(UINT64_MAX, err);
    return r < 0 ? r : set_sets(&none, err);
}

int bly_caps_drop_ours(struct bly_err *err)
{
    struct sets sets = {0};
    int r = get_sets(&sets);

    if (r < 0)
        return bly_fail_sys(err, -r, "cannot read the capabilities");
    if (sets.effective & 1ULL << CAP_SETPCAP)
        return bly_caps_drop_all(err);
    sets = (struct sets){0};
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return bly_fail_sys(err, errno, "cannot clear the ambient capabilities");
    return set_sets(&sets, err);
}

/* Reaches other processes, other networks, the kernel or raw devices. */
static const uint64_t reaching =
    1ULL << CAP_SYS_ADMIN | 1ULL << CAP_SYS_PTRACE | 1ULL << CAP_SYS_MODULE |
    1ULL << CAP_SYS_RAWIO | 1ULL << CAP_SYS_BOOT | 1ULL << CAP_NET_ADMIN | 1ULL << CAP_NET_RAW |
    1ULL << CAP_BPF | 1ULL << CAP_PERFMON | 1ULL << CAP_CHECKPOINT_RESTORE | 1ULL << CAP_SYSLOG |
    1ULL << CAP_MAC_ADMIN | 1ULL << CAP_MAC_OVERRIDE;

int bly_caps_drop_reaching(struct bly_err *err)
{
    struct sets sets = {0};
    int r;

    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return bly_fail_sys(err, errno, "cannot clear the ambient capabilities");
    r = drop_bounding(reaching, err);
    if (r < 0)
        return r;
    r = get_sets(&sets);
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot read the capabilities");
    sets.effective &= ~reaching;
    sets.permitted &= ~reaching;
    sets.inheritable = 0;
    return set_sets(&sets, err);
}

bool bly_caps_can_unshare(void)
{
    const uint64_t needed = 1ULL << CAP_SYS_ADMIN | 1ULL << CAP_NET_ADMIN | 1ULL << CAP_SETPCAP;
    struct sets sets = {0};

    return get_sets(&sets) == 0 && (sets.effective & needed) == needed;
}
