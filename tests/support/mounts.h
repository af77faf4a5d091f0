#pragma once

/*
 * Mounts that nobody else sees. Root only. Needs _GNU_SOURCE, and cmocka for the second one.
 */
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* From here on the calling process has its mounts to itself. 0, or -1 with errno. */
static inline int have_own_mounts(void)
{
    return unshare(CLONE_NEWNS) < 0 ? -1 : mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

/* A part of a test that mounts, in a process that its mounts go with. Skips where there are none;
 * a failed assertion in there ends that process, with its message, and the test. */
static inline void run_with_mounts(void (*run)(const void *arg), const void *arg)
{
    enum { NO_MOUNTS_HERE = 77 };
    int status;
    pid_t pid;

    if (geteuid() != 0)
        skip();
    pid = fork();
    if (pid == 0) {
        if (have_own_mounts() < 0)
            _exit(NO_MOUNTS_HERE);
        run(arg);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_MOUNTS_HERE)
        skip();
    assert_int_equal(status, 0);
}
