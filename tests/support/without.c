/*
 * Runs a program on a kernel that lacks something: without SET... -- PROGRAM [ARGUMENT...]
 *
 * Installs a seccomp filter in which the named sets of system calls fail as they do where a kernel
 * is older, or a container or a security module forbids them, and executes the program. Nothing the
 * program does takes the filter away again. Exit status 125 when that cannot be done.
 */
#include <errno.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { EXIT_FAILED = 125, NR_OPEN_TREE_ATTR = 467 };

/* A call that fails, always or only when all bits of `bits` are set in argument `arg`. */
static const struct blocked {
    const char *set;
    int nr;
    uint16_t error;
    unsigned arg;
    uint64_t bits; /* 0: always */
} table[] = {
    /* A container runtime's filter, unprivileged_userns_clone=0: no new namespaces. */
    {"namespaces", SCMP_SYS(clone3), ENOSYS},
    {"namespaces", SCMP_SYS(setns), EPERM},
    {"namespaces", SCMP_SYS(clone), EPERM, 0, CLONE_NEWUSER},
    {"namespaces", SCMP_SYS(clone), EPERM, 0, CLONE_NEWNS},
    {"namespaces", SCMP_SYS(clone), EPERM, 0, CLONE_NEWPID},
    {"namespaces", SCMP_SYS(clone), EPERM, 0, CLONE_NEWNET},
    {"namespaces", SCMP_SYS(clone), EPERM, 0, CLONE_NEWIPC},
    {"namespaces", SCMP_SYS(unshare), EPERM},
    /* user.max_user_namespaces=0 */
    {"userns-limit", SCMP_SYS(clone), ENOSPC, 0, CLONE_NEWUSER},
    {"userns-limit", SCMP_SYS(unshare), ENOSPC, 0, CLONE_NEWUSER},
    {"netns", SCMP_SYS(clone), EPERM, 0, CLONE_NEWNET},
    {"netns", SCMP_SYS(unshare), EPERM, 0, CLONE_NEWNET},
    /* AppArmor on Ubuntu: the namespace can be had, and nothing can be done in it. */
    {"mounts", SCMP_SYS(mount), EPERM},
    {"mounts", SCMP_SYS(umount2), EPERM},
    {"mounts", SCMP_SYS(pivot_root), EPERM},
    {"mounts", SCMP_SYS(fsopen), EPERM},
    {"mounts", SCMP_SYS(fsmount), EPERM},
    {"mounts", SCMP_SYS(fsconfig), EPERM},
    {"mounts", SCMP_SYS(open_tree), EPERM},
    {"mounts", NR_OPEN_TREE_ATTR, EPERM},
    {"mounts", SCMP_SYS(move_mount), EPERM},
    {"mounts", SCMP_SYS(mount_setattr), EPERM},
    /* Kernels before 5.13, or booted without it. */
    {"landlock", SCMP_SYS(landlock_create_ruleset), ENOSYS},
    {"landlock", SCMP_SYS(landlock_add_rule), ENOSYS},
    {"landlock", SCMP_SYS(landlock_restrict_self), ENOSYS},
    {"openat2", SCMP_SYS(openat2), ENOSYS},
    {"notify", SCMP_SYS(seccomp), EINVAL, 1, SECCOMP_FILTER_FLAG_NEW_LISTENER},
    {"seccomp", SCMP_SYS(seccomp), EINVAL},
    {"pidfd", SCMP_SYS(pidfd_open), ENOSYS},
    {"pidfd", SCMP_SYS(pidfd_getfd), ENOSYS},
    {"pidfd", SCMP_SYS(pidfd_send_signal), ENOSYS},
};

static bool is_set(const char *name)
{
    for (size_t i = 0; i < BLY_LEN(table); i++)
        if (strcmp(table[i].set, name) == 0)
            return true;
    return false;
}

static int block(scmp_filter_ctx ctx, const struct blocked *call)
{
    if (call->bits == 0)
        return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(call->error), call->nr, 0);
    return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(call->error), call->nr, 1,
                            SCMP_CMP64(call->arg, SCMP_CMP_MASKED_EQ, call->bits, call->bits));
}

static int block_set(scmp_filter_ctx ctx, const char *name)
{
    int r = 0;

    for (size_t i = 0; i < BLY_LEN(table) && r == 0; i++)
        if (strcmp(table[i].set, name) == 0)
            r = block(ctx, &table[i]);
    return r;
}

int main(int argc, char **argv)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int i = 1, r = ctx == NULL ? -ENOMEM : 0;

    for (; r == 0 && i < argc && strcmp(argv[i], "--") != 0; i++)
        r = is_set(argv[i]) ? block_set(ctx, argv[i]) : -EINVAL;
    if (r == 0 && i + 1 >= argc)
        r = -EINVAL;
    if (r == 0)
        r = seccomp_load(ctx);
    if (r < 0) {
        (void)fprintf(stderr, "without: %s: %s\n", i < argc ? argv[i] : "nothing to run",
                      strerrordesc_np(-r));
        return EXIT_FAILED;
    }
    (void)execvp(argv[i + 1], argv + i + 1);
    (void)fprintf(stderr, "without: %s: %s\n", argv[i + 1], strerrordesc_np(errno));
    return EXIT_FAILED;
}
