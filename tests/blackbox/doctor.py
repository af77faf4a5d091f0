#!/usr/bin/env python3
"""`bailey doctor` as a black box: doctor.py BAILEY WITHOUT. What it says of this machine, and of the same machine with
things taken away. Prints a line a failure, and 'N passed, N failed' last."""

import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import BAILEY, Skip, as_user, checked, landlock_abi  # noqa: E402
from bailey import run as run_cases  # noqa: E402
from yard import NOBODY, Yard  # noqa: E402

WITHOUT = os.path.abspath(sys.argv[2])

CHECKS = {"kernel", "user", "outer-filter", "root", "user-namespaces", "max-user-namespaces", "unprivileged-userns-clone",
          "apparmor", "mount-namespaces", "pid-namespaces", "net-namespaces", "mount-interface", "proc", "landlock",
          "seccomp", "seccomp-notify", "openat2", "pidfd", "inotify", "bounds", "descriptors", "yama", "wall-files",
          "wall-programs", "wall-programs-online", "wall-network"}
POLICIES = ["files-read", "files-write", "programs-read", "programs-roots", "programs-write", "programs-network"]

# What is missing, options: the exit status, what doctor finds missing, the rungs of POLICIES.
CASES = [
    ([], [], 0, set(), [1, 1, 1, 1, 1, 1]),
    (["namespaces"], [], 1, {"user-namespaces", "mount-namespaces", "pid-namespaces", "net-namespaces",
                             "mount-interface", "proc", "wall-files", "wall-programs", "wall-programs-online",
                             "wall-network"}, [2, 3, 3, 3, 3, 3]),
    (["namespaces"], ["--allow-landlock-fs", "--allow-landlock-processes"], 1, None, [2, 2, 2, 3, 3, 3]),
    (["mounts"], [], 1, {"mount-interface", "proc", "wall-files", "wall-programs", "wall-programs-online",
                         "wall-network"}, [2, 3, 3, 3, 3, 3]),
    (["landlock"], [], 0, {"landlock"}, [1, 1, 1, 1, 1, 1]),
    (["namespaces", "landlock"], ["--allow-landlock-fs"], 1, None, [3, 3, 3, 3, 3, 3]),
    (["notify"], [], 1, {"seccomp-notify"}, [1, 1, 1, 1, 3, 1]),
    (["netns"], [], 1, {"net-namespaces", "wall-programs", "proc", "wall-network"}, [1, 1, 3, 3, 3, 3]),
    (["pidfd"], [], 0, set(), [1, 1, 1, 1, 1, 1]),
    (["openat2"], [], 0, set(), [1, 1, 1, 1, 1, 1]),
    (["seccomp"], [], 1, None, [3, 3, 3, 3, 3, 3]),
]


def run(yard, missing, *arguments, user=None):
    before = [yard.program("without"), *missing, "--"] if missing else []
    return subprocess.run([*before, yard.program("bailey"), "doctor", *arguments], capture_output=True, text=True,
                          timeout=60, check=False, cwd="/", **as_user(user))


def rungs_here(rungs):
    """What is left of them where Landlock knows nothing of processes: no program is served on the second rung."""
    return [3 if rung == 2 and name.startswith("programs") and landlock_abi() < 6 else rung
            for name, rung in zip(POLICIES, rungs)]


def cases(yard, who, user):
    for missing, options, status, lacks, rungs in CASES:
        title = f"{who}, without {' and '.join(missing) or 'nothing'} {' '.join(options)}".strip()
        result = run(yard, missing, "--json", *options, user=user)
        told = json.loads(result.stdout)
        checks = {check["id"]: check for check in told["checks"]}
        found = {name for name, check in checks.items() if check["state"] == "missing"}
        yield f"{title}: exit status", result.returncode == status, result.returncode
        yield f"{title}: every check is there", set(checks) == CHECKS, set(checks) ^ CHECKS
        if lacks is not None:
            yield f"{title}: what is missing", found == lacks, found ^ lacks
        yield f"{title}: the rungs", [p["rung"] for p in told["policies"]] == rungs_here(rungs), told["policies"]
        yield f"{title}: a refusal has a reason", all(
            ("refusal" in p) == (p["rung"] == 3) for p in told["policies"]), told["policies"]
        yield f"{title}: no namespace bounds programs that have no wall of namespaces", (
            "wall-programs-online" not in found or "RLIMIT_NPROC" not in checks["bounds"]["value"]), checks["bounds"]
        yield f"{title}: what is missing costs something", all(
            "cost" in checks[name] or name.startswith("wall-") for name in found), found
        people = run(yard, missing, *options, user=user)
        yield f"{title}: people are told the same", people.returncode == status and (
            len(re.findall("^MISSING ", people.stdout, re.M)) == len(found)), people.stdout


# A directory like the root, $0: then a command in it, by chroot(2) or by pivot_root(2).
PREPARE = """
for d in bin sbin lib lib64 usr etc dev proc sys tmp var; do
    if [ -L /$d ]; then cp -P /$d "$0/$d"; elif [ -d /$d ]; then mkdir "$0/$d" && mount --rbind /$d "$0/$d"; fi
done
how=$1; shift
case $how in
plain) exec chroot "$0" "$@" ;;
user) exec chroot --userspec=65534:65534 "$0" "$@" ;;
mounted) mount --rbind "$0" "$0" && exec chroot "$0" "$@" ;;
pivoted) mount --rbind "$0" "$0" && cd "$0" && mkdir old && pivot_root . old && umount -l /old && exec "$@" ;;
esac
"""


def in_another_root(yard, how, *arguments):
    root = yard.path("root-" + how)
    os.mkdir(root)
    return subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-ec", PREPARE, root, how,
                           yard.program("bailey"), "doctor", *arguments], capture_output=True, text=True, timeout=60,
                          check=False, cwd="/")


def chroots(yard, _who, _user):
    """They get no user namespaces, whatever else is well."""
    for how in "plain", "user", "mounted":
        result = in_another_root(yard, how, "--json")
        told = json.loads(result.stdout)
        checks = {check["id"]: check for check in told["checks"]}
        yield f"a chroot, {how}: is the cause", checks["root"]["state"] == "missing", checks["root"]
        yield f"a chroot, {how}: the fix is named", "pivot_root" in told["fix"] == checks["user-namespaces"]["fix"], told
        yield f"a chroot, {how}: not everything is served", result.returncode == 1 and told["rung"] == 2, told["rung"]
    told = json.loads(in_another_root(yard, "pivoted", "--json").stdout)
    yield "a root of its own is well", told["whole"] and told["checks"][3]["state"] == "ok", told


def an_old_landlock(yard, _who, _user):
    told = json.loads(run(yard, [], "--json").stdout)
    check = next(check for check in told["checks"] if check["id"] == "landlock")
    yield "a Landlock before ABI 6 is worth a note, with its own cost and fix", told["landlock"] >= 6 or (
        check["state"] == "note" and "second rung" in check["cost"] and check["fix"] == "Linux 6.12"), check


def commands(yard, _who, _user):
    yield "an unknown option is a usage error", run(yard, [], "--nonsense").returncode == 2, ""
    yield "an argument is a usage error", run(yard, [], "extra").returncode == 2, ""
    yield "--help", "usage: bailey doctor" in run(yard, [], "--help").stdout, ""
    told = run(yard, ["namespaces"]).stdout
    yield "the fix is named", "To get the first rung: start the container" in told, told


def lacks_something(yard, user):
    """These tests take things away from a machine that has them all."""
    told = json.loads(run(yard, [], "--json", user=user).stdout)
    return not told["whole"] or told["landlock"] == 0


def checks():
    with Yard(BAILEY, WITHOUT) as yard:
        for who, user in [("as caller", None)] + ([("as uid 65534", NOBODY)] if os.geteuid() == 0 else []):
            if lacks_something(yard, user):
                yield f"{who}, this machine", lambda: skip("it lacks something itself, see bailey doctor")
                continue
            yield from checked(cases(yard, who, user))
        if lacks_something(yard, None):
            return
        for check in an_old_landlock, commands:
            yield from checked(check(yard, "", None))
        if os.geteuid() == 0:
            yield from checked(chroots(yard, "", None))
        else:
            yield "chroots", lambda: skip("only root can make one")


def skip(why):
    raise Skip(why)


run_cases(checks(), jobs=1, only=sys.argv[3:])
