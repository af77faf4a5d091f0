/* Golden plans: a policy and a disk, and the steps that must come out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_disk.h"

#include "base/buf.h"
#include "base/cleanup.h"

enum { H = BLY_FOR_HELPER, P = BLY_FOR_PROCESS };

static const struct plan_case {
    const char *name;
    int purpose;
    const char *policy;
    const char *disk;
    const char *plan;    /* what must be printed; or, with "refused: ", how the error begins */
    const char *granted; /* one directory that was writable before */
    const char *rules;   /* lines the derived policy must have, separated by '|' */
} cases[] = {
#define WORKSPACE "d /w/.git\nd /w/docs\nd /w/a/b/c\nd /etc\nd /home/u"
    /* 3.3, worked examples */
    {"everything readable, a workspace writable, .git in it not", H, "r /; w /w", WORKSPACE,
     "ro /\n"
     "rw /w\n"
     "ro /w/.git\n"},
    {"restricted reading starts from nothing", H, "w /w", WORKSPACE,
     "tmpfs /\n"
     "rw /w\n"
     "ro /w/.git\n"},
    {"platform defaults, those that exist", H, "minimal; w /w", WORKSPACE "\nd /usr/bin\nd /lib64",
     "tmpfs /\n"
     "ro /etc\n"
     "ro /lib64\n"
     "ro /usr\n"
     "rw /w\n"
     "ro /w/.git\n"},
    {"platform defaults that are links stay links", H, "minimal",
     "d /usr/bin\nd /usr/lib\nl /bin usr/bin\nl /lib /usr/lib",
     "tmpfs /\n"
     "link /bin usr/bin\n"
     "link /lib /usr/lib\n"
     "ro /usr\n"},
    {"a platform default that leads elsewhere is granted there", H, "minimal",
     "d /opt/bin\nl /bin opt/bin",
     "tmpfs /\n"
     "link /bin opt/bin\n"
     "ro /opt/bin\n"},
    {"a denied platform default is not shown", H, "minimal; deny /etc", "d /etc\nd /usr",
     "tmpfs /\n"
     "ro /usr\n"},
    {"read below write", H, "r /; w /w; r /w/docs", WORKSPACE,
     "ro /\n"
     "rw /w\n"
     "ro /w/.git\n"
     "ro /w/docs\n"},
    {"write below deny below write", H, "r /; w /w; deny /w/p; w /w/p/open", "d /w/p/open",
     "ro /\n"
     "rw /w\n"
     "mask-dir /w/p 111\n"
     "rw /w/p/open\n"},
    {"write deep below deny: every denied directory on the way can be passed", H,
     "w /w; deny /w/p; deny /w/p/q; w /w/p/q/r/s", "d /w/p/q/r/s",
     "tmpfs /\n"
     "rw /w\n"
     "mask-dir /w/p 111\n"
     "rw /w/p/q/r/s\n"},
    {"read does not reopen what is denied", H, "r /; w /w; deny /w/p; r /w/p/q", "d /w/p/q",
     "ro /\n"
     "rw /w\n"
     "mask-dir /w/p\n"},
    {"write below read below write, any depth", H, "r /; w /w; r /w/a; w /w/a/b; r /w/a/b/c",
     "d /w/a/b/c",
     "ro /\n"
     "rw /w\n"
     "ro /w/a\n"
     "rw /w/a/b\n"
     "ro /w/a/b/c\n"},
    {"the same path three times: deny wins", H, "r /; r /w; w /w; deny /w", WORKSPACE,
     "ro /\n"
     "mask-dir /w\n"},
    {"the same path twice: write beats read", H, "r /w; w /w", "d /w",
     "tmpfs /\n"
     "rw /w\n"},
    {"an explicit rule replaces the implied one", H, "r /; w /w; w /w/.git", WORKSPACE,
     "ro /\n"
     "rw /w\n"},
    {"only the part of .git that is named opens", H, "r /; w /w; w /w/.git/objects",
     "d /w/.git/objects",
     "ro /\n"
     "rw /w\n"
     "ro /w/.git\n"
     "rw /w/.git/objects\n"},
    {"a repository deeper in the workspace is not protected", H, "r /; w /w", "d /w/sub/.git",
     "ro /\n"
     "rw /w\n"},
    {"everything writable but one part: no protected names at the root", H, "w /; deny /w/p",
     "d /w/.git\nd /w/p\nd /.git",
     "rw /\n"
     "pin /w\n"
     "mask-dir /w/p\n"},
    {"a denied file", H, "r /; deny /w/secret", "f /w/secret",
     "ro /\n"
     "mask-file /w/secret\n"},
    {"deny of everything", H, "deny /; w /w", "d /w/.git",
     "tmpfs /\n"
     "rw /w\n"
     "ro /w/.git\n"},
    {"a deny where nothing is visible needs nothing", H, "w /w; deny /home/u", "d /w\nd /home/u",
     "tmpfs /\n"
     "rw /w\n"},
    {"an open part of what is hidden and denied", H, "deny /home; w /home/u/w", "d /home/u/w",
     "tmpfs /\n"
     "mask-dir /home 111\n"
     "rw /home/u/w\n"},
    {"a nested root has protected names of its own, and is pinned for them", H,
     "r /; w /w; w /w/sub", "d /w/sub/.git\nd /w/.git",
     "ro /\n"
     "rw /w\n"
     "ro /w/.git\n"
     "pin /w/sub\n"
     "ro /w/sub/.git\n"},
    {"ancestors of a deep restriction cannot be renamed", H, "r /; w /w; r /w/a/b/c", "d /w/a/b/c",
     "ro /\n"
     "rw /w\n"
     "pin /w/a\n"
     "pin /w/a/b\n"
     "ro /w/a/b/c\n"},

    /* 3.5, awkward roots */
    {"a single file as writable root", H, "w /w/file", "f /w/file",
     "tmpfs /\n"
     "rw /w/file\n"},
    {"a missing root is skipped, and its names with it", P, "r /; w /gone; w /w",
     "d /w/.git\nd /w/.agents\nd /w/.codex\nd /w/.aws",
     "ro /\n"
     "rw /w\n"
     "ro /w/.agents\n"
     "ro /w/.aws\n"
     "ro /w/.codex\n"
     "ro /w/.git\n"},
    {"a missing root inside another one does not close it", P,
     "r /; w /w; w /w/cache; w /w/.git; w /w/.agents; w /w/.codex; w /w/.aws", "d /w",
     "ro /\n"
     "rw /w\n"},
    {"a missing readable root is skipped", H, "r /gone; w /w", "d /w",
     "tmpfs /\n"
     "rw /w\n"},
    {"/tmp counts when it is a directory", H, "r /; tmp", "d /tmp",
     "ro /\n"
     "rw /tmp\n"},
    {"/tmp does not count when it is a file", H, "r /; tmp", "f /tmp", "ro /\n"},
    {"a root given through a symlink", H, "w /proj", "l /proj /store\nd /store/.git",
     "tmpfs /\n"
     "link /proj /store\n"
     "rw /store\n"
     "ro /store/.git\n",
     .rules = "rw /store\n|ro /proj implied\n|ro /store/.git implied\n"},
    {"a root given through a symlink in a visible place needs no link", H, "r /; w /proj/x",
     "l /proj store\nd /store/x",
     "ro /\n"
     "rw /store/x\n"},
    {"a carve-out named through a symlink to the root", H, "r /; w /w; r /proj/docs",
     "l /proj /w\nd /w/docs",
     "ro /\n"
     "rw /w\n"
     "ro /w/docs\n"},
    {"a denied link: its target and its name", H, "r /; deny /l", "l /l /data/x\nf /data/x",
     "ro /\n"
     "mask-file /l\n"
     "mask-file /data/x\n",
     .rules = "deny /l\n|deny /data/x\n"},
    {"a nested root through a link that could be planted", H, "w /w; w /w/cache",
     "d /w\nl /w/cache /home/u/.ssh\nd /home/u/.ssh",
     "refused: cannot enforce sandbox path /w/cache because it crosses writable symlink /w/cache"},
    {"a carve-out through a link that could be planted", H, "r /; w /w; r /w/x/docs",
     "d /w/y/docs\nl /w/x y",
     "refused: cannot enforce sandbox path /w/x/docs because it crosses writable symlink /w/x"},
    {"a deny through a link that could be planted", H, "r /; w /w; deny /w/x", "f /w/y\nl /w/x y",
     "refused: cannot enforce sandbox path /w/x because it crosses writable symlink /w/x"},
    {"a deny pattern through a link that could be planted", H, "r /; w /w; glob /w/x/**/k",
     "d /w/y\nl /w/x y",
     "refused: cannot enforce sandbox path /w/x because it crosses writable symlink /w/x"},
    {"a root through a link in a directory that was writable once", H, "w /w/cache",
     "l /w/cache /home/u\nd /home/u",
     "refused: cannot enforce sandbox path /w/cache because it crosses symlink /w/cache in a "
     "directory that was writable before",
     .granted = "/w"},
    {"a link beside what was writable once", H, "w /l", "l /l /home/u\nd /home/u",
     "tmpfs /\n"
     "link /l /home/u\n"
     "rw /home/u\n",
     .granted = "/w"},
    {"too many links", H, "w /a", "l /a b\nl /b a",
     "refused: the sandbox path /a leads through too many symlinks"},
    {"a link that climbs out of nothing", H, "w /a", "l /a gone/../etc\nd /etc",
     "refused: a sandbox path leads through a symlink to /gone/../etc"},
    {"dots in a link's target go up from where the link is", H, "w /x/l", "l /x/l ../y/./z\nd /y/z",
     "tmpfs /\n"
     "link /x/l ../y/./z\n"
     "rw /y/z\n"},
    {"a link that leads above the root", H, "w /l", "l /l ../../y\nd /y",
     "tmpfs /\n"
     "link /l ../../y\n"
     "rw /y\n"},
    {"a missing carve-out: the helper decides, nothing is made", H, "r /; w /w; r /w/docs", "d /w",
     "ro /\n"
     "rw /w\n",
     .rules = "ro /w/docs\n"},
    {"a missing deny: the helper decides, nothing is made", H, "r /; w /w; deny /w/p", "d /w",
     "ro /\n"
     "rw /w\n",
     .rules = "deny /w/p\n"},
    {"what the server itself may not look into is closed", H, "r /; deny /root/.ssh; w /home",
     "x /root\nd /home",
     "ro /\n"
     "rw /home\n"
     "mask-dir /root\n",
     .rules = "deny /root/.ssh\n"},
    {"a grant that the server itself cannot reach is skipped", H, "r /; w /root/w", "x /root",
     "ro /\n"},

    /* 3.4, protected names */
    {"missing names: a process must not make them", P, "r /; w /w", "d /w/.git",
     "ro /\n"
     "rw /w\n"
     "ro /w/.git\n"
     "absent /w/.agents\n"
     "absent /w/.aws\n"
     "absent /w/.codex\n"},
    {"names repeated by the client with skip are protected all the same", P,
     "r /; w /w; skip /w/.git; skip /w/.agents; skip /w/.codex; skip /w/.aws", "d /w/.git",
     "ro /\n"
     "rw /w\n"
     "ro /w/.git\n"
     "absent /w/.agents\n"
     "absent /w/.aws\n"
     "absent /w/.codex\n"},
    {"another missing carve-out with skip is left out", P,
     "r /; w /w; skip /w/docs; w /w/.git; w /w/.agents; w /w/.codex; w /w/.aws", "d /w",
     "ro /\n"
     "rw /w\n"},
    {"of a missing deep carve-out the first missing name is guarded, and the way to it", P,
     "r /; w /w; r /w/a/b/c/d; w /w/.git; w /w/.agents; w /w/.codex; w /w/.aws", "d /w/a",
     "ro /\n"
     "rw /w\n"
     "pin /w/a\n"
     "absent /w/a/b\n"},
    {"what the client opened is open before it exists", H, "r /; w /w; w /w/.git", "d /w",
     "ro /\n"
     "rw /w\n",
     .rules = "rw /w/.git\n|ro /w/.git/.git implied\n|ro /w/.aws implied\n"},
    {"a root that is a link to /", H, "w /l", "l /l /\nd /.git",
     "refused: cannot enforce sandbox path /l because it crosses writable symlink /l"},
    {"the root directory protects none", H, "w /; deny /x", "d /.git\nd /x",
     "rw /\n"
     "mask-dir /x\n"},
    {"names below a root that is a file do not exist", P, "w /w/file", "f /w/file",
     "tmpfs /\n"
     "dev /dev\n"
     "proc /proc\n"
     "shm /dev/shm\n"
     "rw /w/file\n"},
    {".git as a file: what it names is protected", H, "r /; w /w",
     "f /w/.git gitdir: real/git|\nd /w/real/git",
     "ro /\n"
     "rw /w\n"
     "ro /w/.git\n"
     "pin /w/real\n"
     "ro /w/real/git\n"},
    {".git as a file: outside everything writable nothing is added", H, "w /w",
     "f /w/.git gitdir: /repo/.git/worktrees/w|\nd /repo/.git/worktrees/w",
     "tmpfs /\n"
     "rw /w\n"
     "ro /w/.git\n"},
    {"a worktree: the common directory is protected as well", H, "r /; w /w; w /repo",
     "f /w/.git gitdir: /repo/g/worktrees/w|\nd /repo/g/worktrees/w\nf "
     "/repo/g/worktrees/w/commondir ../..|\nd /repo/g/hooks",
     "ro /\n"
     "rw /repo\n"
     "rw /w\n"
     "ro /repo/g\n"
     "ro /w/.git\n"},
    {".git as a file whose target is missing: nobody makes it", P,
     "r /; w /w; w /w/.agents; w /w/.codex; w /w/.aws", "f /w/.git gitdir: real|",
     "ro /\n"
     "rw /w\n"
     "ro /w/.git\n"
     "absent /w/real\n"},
    {".git as a symlink: pinned, and its target protected", H, "r /; w /w",
     "l /w/.git .real\nd /w/.real",
     "ro /\n"
     "rw /w\n"
     "pin-link /w/.git\n"
     "ro /w/.real\n"},
    {".git as a symlink through another one: both pinned", H, "r /; w /w",
     "l /w/.git x/git\nl /w/x y\nd /w/y/git",
     "ro /\n"
     "rw /w\n"
     "pin-link /w/.git\n"
     "pin-link /w/x\n"
     "pin /w/y\n"
     "ro /w/y/git\n"},
    {".git as a symlink to the outside", H, "r /; w /w", "l /w/.git /elsewhere\nd /elsewhere",
     "ro /\n"
     "rw /w\n"
     "pin-link /w/.git\n"},
    {".git as a dangling symlink: its target is not made", P,
     "r /; w /w; w /w/.agents; w /w/.codex; w /w/.aws", "l /w/.git .real",
     "ro /\n"
     "rw /w\n"
     "pin-link /w/.git\n"
     "absent /w/.real\n"},
    {".codex as a symlink", H, "r /; w /w", "l /w/.codex conf\nd /w/conf",
     "ro /\n"
     "rw /w\n"
     "pin-link /w/.codex\n"
     "ro /w/conf\n"},
    {"a pointer to the root itself changes nothing", H, "r /; w /w", "f /w/.git gitdir: .|",
     "ro /\n"
     "rw /w\n"
     "ro /w/.git\n"},

    /* deny patterns */
    {"the helper needs no expansion", H, "r /; w /w; glob /w/**/*.env", "f /w/a/x.env",
     "ro /\n"
     "rw /w\n",
     .rules = "glob /w/**/*.env\n"},
    {"the helper's patterns are put on canonical directories", H, "r /; glob /l/**/*.env",
     "l /l /data/[x]\nd /data/[x]", "ro /\n", .rules = "glob /data/\\[x\\]/**/*.env\n"},
    {"a process: files and directories that match are masked", P, "r /; glob /w/**/*.env",
     "f /w/a/x.env\nd /w/b.env/c\nf /w/d/y.txt",
     "ro /\n"
     "mask-dir /w/b.env\n"
     "mask-file /w/a/x.env\n"},
    {"a process: nothing opens what a pattern denies", P,
     "r /; w /w; w /w/k.env; w /w/.git; w /w/.agents; w /w/.codex; w /w/.aws; skip /w/k.env/.git; "
     "glob /w/*.env",
     "d /w/k.env/.git",
     "ro /\n"
     "rw /w\n"
     "mask-dir /w/k.env\n"},
    {"a process: a matching link is masked, not followed", P, "r /; glob /w/*.env",
     "l /w/x.env /etc/passwd\nf /etc/passwd",
     "ro /\n"
     "mask-file /w/x.env\n"},
    {"a process: only as deep as asked for", P, "r /; depth 1; glob /w/**/*.env",
     "f /w/x.env\nf /w/a/x.env",
     "ro /\n"
     "mask-file /w/x.env\n"},
    {"a process: a directory that cannot be listed is closed", P, "r /; glob /w/**/*.env",
     "x /w/a\nf /w/x.env",
     "ro /\n"
     "mask-dir /w/a\n"
     "mask-file /w/x.env\n"},
    {"a process: other letters elsewhere", P, "r /; glob /w/**/*.env",
     "f /w/A.ENV\nf /w/x.ENV/f\nc /w/c", "ro /\n"},
    {"a process: other letters where case is folded", P, "r /; glob /w/**/*.env",
     "c /w\nf /w/A.ENV\nf /w/x.Env/f\nf /w/y.txt",
     "ro /\n"
     "mask-file /w/A.ENV\n"
     "mask-dir /w/x.Env\n"},
    {"a process: a pattern in capitals where case is folded", P, "r /; glob /w/**/*.ENV",
     "c /w\nf /w/a.env", "ro /\nmask-file /w/a.env\n"},
    {"a process: a class in capitals where case is folded", P, "r /; glob /w/**/[A-C].env",
     "c /w\nf /w/a.env\nf /w/B.env\nf /w/d.env",
     "ro /\n"
     "mask-file /w/B.env\n"
     "mask-file /w/a.env\n"},
    {"a process: characters that are ignored where case is folded", P, "r /; glob /w/**/*.pass",
     "c /w\nf /w/a.pa\u017f\u200ds\nf /w/a.p\u00e4ss",
     "ro /\n"
     "mask-file /w/a.pa\u017f\u200ds\n"},
    {"a process: only where case is folded, and below", P, "r /; glob /w/**/*.env",
     "f /w/a/A.ENV\nc /w/b\nf /w/b/B.ENV\nd /w/b/c\nf /w/b/c/C.ENV\nf /w/d/D.ENV\nf /w/E.ENV",
     "ro /\n"
     "mask-file /w/b/B.ENV\n"
     "mask-file /w/b/c/C.ENV\n"},
    {"a process: a directory of the pattern where case is folded", P, "r /; glob /w/*/keys/*",
     "c /w\nc /w/a\nf /w/a/Keys/k\nf /w/a/locks/k",
     "ro /\n"
     "mask-file /w/a/Keys/k\n"},
    {"a process: a pattern from the root", P, "r /; glob /**/*.env", "d /w",
     "refused: unreadable glob `/**/*.env` cannot be safely expanded; use a pattern with a "
     "non-root directory prefix"},

    /* the same object in two places */
    {"a second mount of the workspace is restricted as well", H, "r /; w /w; w /mnt",
     "f /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|2 1 8:1 /w /mnt/again rw - ext4 x rw|\nd "
     "/w/.git\nd /mnt\n= /mnt/again /w\n= /mnt/again/.git /w/.git",
     "ro /\n"
     "rw /mnt\n"
     "proc /proc\n"
     "rw /w\n"
     "pin /mnt/again\n"
     "ro /w/.git\n"
     "ro /mnt/again/.git\n"},
    {"a second mount of what is denied, deeper", H, "r /; deny /w/p",
     "f /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|2 1 8:1 /w/p/q /mnt/q rw - ext4 x rw|\nd "
     "/w/p/q\n= /mnt/q /w/p/q",
     "ro /\n"
     "proc /proc\n"
     "mask-dir /mnt/q\n"
     "mask-dir /w/p\n"},
    {"a second mount that something else covers is not touched", H, "r /; deny /w/p",
     "f /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|2 1 8:1 /w /mnt rw - ext4 x rw|3 2 8:2 / "
     "/mnt rw - ext4 y rw|\nd /w/p\nd /mnt/p",
     "ro /\n"
     "proc /proc\n"
     "mask-dir /w/p\n"},
    {"a procfs somewhere else shows the host's processes", H, "r /",
     "f /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|2 1 0:4 / /srv/my\\055root/proc rw "
     "shared:3 - proc proc rw|\nd /srv/my-root/proc",
     "ro /\n"
     "proc /proc\n"
     "mask-dir /srv/my-root/proc\n",
     .rules = "deny /srv/my-root/proc implied\n"},
    {"nothing of it is opened", H, "r /; r /srv/proc; w /srv/proc/sys; minimal",
     "f /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|2 1 0:4 / /srv/proc rw - proc proc rw|\n"
     "d /srv/proc/sys",
     "ro /\n"
     "proc /proc\n"
     "mask-dir /srv/proc\n",
     .rules = "deny /srv/proc implied\n|deny /srv/proc/sys implied\n"},
    {"nor by a grant of it alone", H, "r /srv/proc/sys",
     "f /proc/self/mountinfo 1 0 8:1 / / rw - ext4 x rw|2 1 0:4 / /srv/proc rw - proc proc rw|\n"
     "d /srv/proc/sys",
     "tmpfs /\n", .rules = "deny /srv/proc/sys implied\n"},
    {"a mount table that cannot be understood", H, "r /", "f /proc/self/mountinfo 1 0 8:1 /|",
     "refused: cannot understand the mount table"},

    /* 6.2 and 6.3 */
    {"a process has devices, processes and shared memory of its own", P,
     "r /; w /w; w /w/.git; w /w/.agents; w /w/.codex; w /w/.aws",
     "d /w\nd /dev/shm\nd /proc/sys\nf /proc/kcore\nd /proc/acpi\nd /sys/kernel/debug\nd "
     "/sys/fs/cgroup",
     "ro /\n"
     "dev /dev\n"
     "proc /proc\n"
     "rw /w\n"
     "shm /dev/shm\n"
     "mask-dir /proc/acpi\n"
     "mask-file /proc/kcore\n"
     "proc-ro /proc/sys\n"
     "mask-dir /sys/fs/cgroup\n"
     "mask-dir /sys/kernel/debug\n"},
    {"a helper that reads everything: processes of its own, internals denied by rule", H, "r /",
     "d /proc/sys\nf /proc/kcore\nd /sys/firmware\nd /dev",
     "ro /\n"
     "proc /proc\n",
     .rules = "deny /proc/kcore implied\n|deny /sys/firmware implied\n|deny /proc/self implied\n|"
              "deny /proc/thread-self implied\n|deny /proc/1 implied\n"},
    {"a helper shows nothing of itself, whatever is granted", H,
     "minimal; r /proc/self/maps; w /proc/1; r /proc/1/status; r /proc/version", "f /proc/version",
     "tmpfs /\n"
     "proc /proc\n",
     .rules = "deny /proc/self/maps implied\n|deny /proc/1 implied\n|deny /proc/1/status implied\n|"
              "ro /proc/version\n"},
    {"nobody writes to the kernel, whatever is granted", P,
     "w /; deny /w/p; w /sys/power; w /proc/sys", "d /w/p\nd /sys/power\nd /proc/sys\nd /dev/shm",
     "rw /\n"
     "dev /dev\n"
     "proc /proc\n"
     "ro /sys\n"
     "pin /w\n"
     "rw /dev/shm\n"
     "proc-ro /proc/sys\n"
     "mask-dir /w/p\n",
     .rules = "ro /proc implied\n|ro /sys implied\n|ro /sys/power\n"},
    {"granted shared memory is the host's", P, "r /; w /dev/shm",
     "d /dev/shm/.git\nd /dev/shm/.agents\nd /dev/shm/.codex\nd /dev/shm/.aws",
     "ro /\n"
     "dev /dev\n"
     "rw /dev/shm\n"
     "ro /dev/shm/.agents\n"
     "ro /dev/shm/.aws\n"
     "ro /dev/shm/.codex\n"
     "ro /dev/shm/.git\n"},
    {"granted devices are those that are there anyway", P, "r /etc; w /dev/null; r /dev/kvm",
     "o /dev/null\no /dev/kvm\nd /etc",
     "tmpfs /\n"
     "dev /dev\n"
     "ro /etc\n"
     "proc /proc\n"
     "shm /dev/shm\n"},
    {"a denied part of /proc", P, "r /; deny /proc/version; deny /proc/1",
     "f /proc/version\nd /proc/1",
     "ro /\n"
     "proc /proc\n"
     "mask-file /proc/version\n"},
    {"all of /proc and /dev denied", P, "r /; deny /proc; deny /dev",
     "f /proc/version\no /dev/null",
     "ro /\n"
     "mask-dir /dev\n"
     "mask-dir /proc\n"},
    {"something of /proc granted to a helper: never the host's", H, "r /proc/cpuinfo",
     "f /proc/cpuinfo",
     "tmpfs /\n"
     "proc /proc\n"},
    {"a path that leads through a link into /proc", H, "r /mounts",
     "l /mounts /proc/self/mounts\nf /proc/1/mounts",
     "tmpfs /\n"
     "link /mounts /proc/self/mounts\n"
     "proc /proc\n"},
    {"no file wall, no network", P, "off", "d /proc/sys\nf /proc/kcore\nd /sys/firmware\nd /w/.git",
     "network-only\n"
     "rw /\n"
     "proc /proc\n"
     "ro /sys\n"
     "mask-file /proc/kcore\n"
     "proc-ro /proc/sys\n"},
    {"no file wall for a helper", H, "off", "d /w",
     "refused: a plan was asked for where no wall is needed"},
};

static char *printed(int (*print)(const void *, struct bly_buf *), const void *what)
{
    bly_autobuf struct bly_buf buf;

    bly_buf_init(&buf, 1 << 20);
    assert_int_equal(print(what, &buf), 0);
    assert_int_equal(bly_buf_add_char(&buf, '\0'), 0);
    return (char *)bly_buf_take(&buf, NULL);
}

static int print_plan(const void *plan, struct bly_buf *buf)
{
    return bly_plan_print(plan, buf);
}

static int print_policy(const void *plan, struct bly_buf *buf)
{
    return bly_policy_print(bly_plan_policy(plan), buf);
}

static void check_rules(const struct bly_plan *plan, const char *wanted)
{
    bly_autofree char *rules = printed(print_policy, plan);

    while (*wanted) {
        size_t len = strcspn(wanted, "|");
        char line[256];

        (void)snprintf(line, sizeof(line), "%.*s", (int)len, wanted);
        if (!strstr(rules, line))
            fail_msg("no rule %sin\n%s", line, rules);
        wanted += len + (wanted[len] == '|');
    }
}

/* What came out must survive the way to the launcher unchanged. */
static void check_wire(const struct bly_plan *plan, const char *text)
{
    bly_autobuf struct bly_buf buf;
    bly_autobuf struct bly_buf again;
    struct bly_plan *copy = NULL;
    struct bly_reader reader;
    bly_autofree char *copy_text = NULL;

    bly_buf_init(&buf, 1 << 20);
    bly_buf_init(&again, 1 << 20);
    assert_int_equal(bly_plan_pack(plan, &buf), 0);
    reader = bly_reader_of(buf.data, buf.len);
    assert_int_equal(bly_plan_unpack(&reader, &copy), 0);
    assert_int_equal(bly_plan_pack(copy, &again), 0);
    assert_int_equal(again.len, buf.len);
    assert_memory_equal(again.data, buf.data, buf.len);
    copy_text = printed(print_plan, copy);
    assert_string_equal(copy_text, text);
    bly_plan_free(copy);
}

static void check_case(void **state)
{
    static const char refused[] = "refused: ";
    const struct plan_case *c = *state;
    struct fake_disk *disk = fake_new(c->disk);
    struct bly_probe probe = fake_probe(disk);
    struct bly_policy *policy = policy_of(c->policy);
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};
    int r = bly_plan_make(policy, (enum bly_purpose)c->purpose, &probe, &c->granted,
                          c->granted ? 1 : 0, &plan, &err);

    if (strncmp(c->plan, refused, strlen(refused)) == 0) {
        assert_int_not_equal(r, 0);
        if (strncmp(err.text, c->plan + strlen(refused), strlen(c->plan) - strlen(refused)) != 0)
            fail_msg("refused because %s", err.text);
    } else {
        bly_autofree char *text = NULL;

        if (r < 0)
            fail_msg("refused: %s", err.text);
        text = printed(print_plan, plan);
        assert_string_equal(text, c->plan);
        if (c->rules)
            check_rules(plan, c->rules);
        check_wire(plan, text);
        assert_int_equal(bly_plan_fits(plan, &probe), 0);
    }
    bly_plan_free(plan);
    bly_policy_unref(policy);
    free(disk);
}

int main(void)
{
    struct CMUnitTest tests[BLY_LEN(cases)] = {0};

    for (size_t i = 0; i < BLY_LEN(cases); i++) {
        union {
            const void *in;
            void *out;
        } state = {&cases[i]};

        tests[i] = (struct CMUnitTest){
            .name = cases[i].name, .test_func = check_case, .initial_state = state.out};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
