#!/usr/bin/env python3
"""What one walled program and all it starts may take: bounds.py PATH-TO-BAILEY [NAME...]

The bombs are bounded themselves. Cases that need control groups use a delegated one: that of BLY_TEST_CGROUP, or a fresh
one that root makes where the machine hands down the pids and memory controllers; without one they skip."""

import base64
import contextlib
import fcntl
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import bailey  # noqa: E402
from bailey import Server, Skip, expect, run, until, wall, without_first_rung  # noqa: E402

NOBODY = 65534
MANY = 150  # what a bomb stops at by itself
FEW = 40    # what it may be
MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
REFUSAL = "sandbox unavailable: the bounds asked for cannot be enforced: "

FORKS = f"""
import os, signal, sys
n = 0
try:
    while n < {MANY}:
        if os.fork() == 0:
            signal.pause()
        n += 1
    print("all", n, flush=True)
except OSError as error:
    print(error.errno, n, flush=True)
sys.stdin.read()
"""
MEMORY = "import sys; b = bytearray(96 << 20); print('all', len(b), flush=True); sys.stdin.read()"
PYTHON = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")


# ---- who runs the server, and where


@functools.cache
def user():
    """Words that make what follows run as an ordinary user, whose programs have walls."""
    words = [] if os.geteuid() != 0 else ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    need_walls(*words)
    return words


def need_walls(*under):
    missing = without_first_rung(*under)
    if missing:
        raise Skip("no sandbox here: " + missing)


def inside(group):
    """Words that start what follows in a control group."""
    return ["sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', group]


def has(path, name):
    with contextlib.suppress(OSError), open(path, encoding="ascii") as f:
        return name in f.read().split()
    return False


def place_for_groups():
    places = [os.environ["BLY_TEST_CGROUP"]] if "BLY_TEST_CGROUP" in os.environ else MOUNTS
    for place in places:
        if all(has(f"{place}/cgroup.subtree_control", name) for name in ("pids", "memory")) and os.access(place, os.W_OK):
            return place
    raise Skip("no control group (v2) here hands down pids and memory to groups of ours")


def remove_tree(group):
    """From below, waiting for what dies."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            with open(directory + "/cgroup.kill", "w", encoding="ascii") as f:
                f.write("1")
        def gone(directory=directory):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
            return not os.path.exists(directory)
        until(gone, f"the end of {directory}")


@contextlib.contextmanager
def delegated(owner=None, mark=False):
    """A group for one test."""
    group = tempfile.mkdtemp(prefix="blytest-", dir=place_for_groups())
    try:
        os.chmod(group, 0o755)
        if owner is not None:
            for name in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"):
                os.chown(group + name, owner, owner)
        if mark:
            os.setxattr(group, "trusted.delegate", b"1")
        yield group
    finally:
        remove_tree(group)


def below(group):
    return sorted(os.path.relpath(os.path.join(d, n), group) for d, names, _ in os.walk(group) for n in names)


def handed_down(group):
    with open(group + "/cgroup.subtree_control", encoding="ascii") as f:
        return f.read().strip()


def what_bounds(*under):
    """What doctor says."""
    said = subprocess.run([*under, bailey.BAILEY, "doctor", "--json"], capture_output=True, text=True, check=False)
    return next(c for c in json.loads(said.stdout)["checks"] if c["id"] == "bounds")["value"]


# ---- bombs


def start(client, server, process, program):
    client.start(process, [PYTHON, "-c", program], pipeStdin=True, env=server.env(), sandbox=wall(server.dir))


def output(client, process):
    """The line a bomb says when it has gone off, or None when it was killed first."""
    text = b""
    while not text.endswith(b"\n"):
        answer = client.read(process, waitMs=10000, afterSeq=0)
        text = b"".join(base64.b64decode(c["chunk"]) for c in answer["chunks"] if c["stream"] == "stdout")
        if answer["exited"] and not text.endswith(b"\n"):
            return None
    return text.decode().split()


def fork_bomb(client, server, process="bomb"):
    start(client, server, process, FORKS)
    word, n = output(client, process)
    return word, int(n)


def check_fork_bomb(server):
    """It hits its bound, and nobody else notices: neither the server nor another wall, which has a bound of its own."""
    with server.client() as client, server.client() as other:
        word, n = fork_bomb(client, server)
        expect(word == "11" and FEW - 5 <= n < FEW, f"EAGAIN after about {FEW}: {word} {n}")
        client.ping()
        word, n = fork_bomb(other, server)
        expect(word == "11" and FEW - 5 <= n < FEW, f"another wall has all of its own: {word} {n}")
        for c in (client, other):
            c.call("process/terminate", {"processId": "bomb"})
            c.notification("process/closed", "bomb")
        word, n = fork_bomb(client, server, "again")
        expect(word == "11" and FEW - 5 <= n < FEW, f"and again: {word} {n}")


def check_twin(server):
    with server.client() as client:
        word, n = fork_bomb(client, server)
        expect((word, n) == ("all", MANY), f"without the bound: {word} {n}")


# ---- by user namespace


def ordinary_user_fork_bomb():
    if "RLIMIT_NPROC" not in what_bounds(*user()):
        raise Skip("something else bounds programs here: " + what_bounds(*user()))
    with Server("--max-walled-tasks", FEW, under=user()) as server:
        check_fork_bomb(server)
    with Server("--max-walled-tasks", 0, under=user()) as server:
        check_twin(server)


def default_does_not_disturb():
    with Server(under=user()) as server:
        check_twin(server)


# ---- what cannot be enforced


def logs(server, line):
    """A server answers before it has heard what its launcher can do, and says it then."""
    until(lambda: line in server.said(), "the log to say " + line)


def refused(server, why):
    """Nothing walled runs; all else does."""
    with server.client() as client:
        client.fails("process/start", {"processId": "p", "argv": ["/bin/true"], "cwd": server.dir, "env": {}, "tty": False,
                                       "sandbox": wall(server.dir)}, REFUSAL + why)
        client.start("q", ["/bin/true"])
        client.notification("process/closed", "q")
        client.call("fs/getMetadata", {"path": server.dir, "sandbox": wall(server.dir)})
    logs(server, "error bounds by=refusal")


def not_a_cgroup():
    with Server("--cgroup", "/usr") as server:
        refused(server, "/usr is not a cgroup v2")


def no_such_cgroup():
    with Server("--cgroup", "/nonexistent", "--max-walled-tasks", 100) as server:
        refused(server, "cannot open /nonexistent: No such file or directory")


def memory_without_cgroup():
    for under in ([], user()):
        if "a cgroup" in what_bounds(*under):
            raise Skip("there is a cgroup")
        with Server("--max-walled-memory-bytes", 1 << 30, under=under) as server:
            refused(server, "")


def root_without_cgroup():
    """The kernel exempts root from RLIMIT_NPROC. The default is not worth a refusal; a wish is."""
    if os.geteuid() != 0:
        raise Skip("only root can try what root gets")
    if not what_bounds().startswith("nothing"):
        raise Skip("there is a cgroup")
    with Server("--max-walled-tasks", FEW) as server:
        refused(server, "")
    with Server() as server:
        check_twin(server)
        logs(server, "warn bounds by=nothing")


# ---- by cgroup


def server_in(how, group, *options):
    """A server that gets its group as `how` says."""
    if how == "named":
        return Server("--cgroup", group, *options)
    return Server(*options, under=[*inside(group), *(user() if how == "user" else [])])


def cgroup_of(how):
    """A group as `how` needs it."""
    if how != "named" and os.geteuid() != 0:
        raise Skip("only root can put a server into a group")
    return delegated(owner=NOBODY if how == "user" else None, mark=how == "own")


def for_each_way(case):
    return [(f"{case.__doc__.strip()}, {text}", lambda how=how: case(how)) for how, text in (
        ("named", "in a cgroup named by option"), ("own", "in the server's own cgroup"),
        ("user", "in the server's own cgroup, as an ordinary user"))]


def cgroup_fork_bomb(how):
    """a fork bomb hits its bound"""
    with cgroup_of(how) as group:
        with server_in(how, group, "--max-walled-tasks", FEW) as server:
            check_fork_bomb(server)
        # Nobody may enter a group while it hands down controllers.
        until(lambda: handed_down(group) == "", "the group to be as it was")
        with server_in(how, group, "--max-walled-tasks", 0, *(["--max-walled-memory-bytes", 1 << 30] if how == "named"
                                                              else [])) as server:
            check_twin(server)


def cgroup_memory_bomb(how):
    """a memory bomb is killed, alone"""
    with cgroup_of(how) as group, server_in(how, group, "--max-walled-memory-bytes", 48 << 20) as server, \
            server.client() as client:
        start(client, server, "small", "print('small', 1, flush=True); import sys; sys.stdin.read()")
        expect(output(client, "small") == ["small", "1"], "a program that takes little runs")
        start(client, server, "big", MEMORY)
        expect(output(client, "big") is None, "one that takes too much does not get that far")
        until(lambda: client.read("big", afterSeq=0)["exitCode"] == 137, "SIGKILL")
        expect(not client.read("small", afterSeq=0)["exited"], "the other one is left alone")
        start(client, server, "twin", MEMORY.replace("96", "16"))
        expect(output(client, "twin")[0] == "all", "its twin takes less")


def groups_end(how):
    """no cgroup outlives its process, session or server"""
    with cgroup_of(how) as group:
        with server_in(how, group) as server:
            with server.client() as client:
                for i in range(3):
                    start(client, server, f"p{i}", "import sys; sys.stdin.read()")
                walls = [name for name in below(group) if "wall-" in name]
                expect(len(walls) == 3, f"one each: {walls}")
                client.call("process/terminate", {"processId": "p0"})
                client.notification("process/closed", "p0")
                until(lambda: len([n for n in below(group) if "wall-" in n]) == 2, "the end of the first one's")
            server.stop()
            until(lambda: below(group) == [], f"the end of all: {below(group)}")
        expect(handed_down(group) == "", "the group is as it was")


def groups_end_by_sigkill(how):
    """SIGKILL of the server leaves no cgroup"""
    with cgroup_of(how) as group:
        with server_in(how, group) as server, server.client() as client:
            start(client, server, "p", FORKS)
            output(client, "p")
            server.signal(signal.SIGKILL)
            until(lambda: below(group) == [], "the end of all cgroups")


def leftovers_go():
    """What a server left that was killed with all its processes goes with the next start; nothing else does."""
    with delegated() as group:
        for name in ("bailey-1.0/wall-1-1", "bailey-1.0/self", "bailey-2.0/wall-2-1", "other/wall-3-1"):
            os.makedirs(f"{group}/{name}")
        lock = os.open(f"{group}/bailey-2.0", os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody lives
        with Server("--cgroup", group) as server, server.client() as client:
            start(client, server, "p", "print('here', 1, flush=True)")
            output(client, "p")
            names = below(group)
            expect("bailey-1.0" not in names, f"gone: {names}")
            expect({"bailey-2.0/wall-2-1", "other/wall-3-1"} <= set(names), f"left alone: {names}")
        os.close(lock)


def wall_cannot_lift_it():
    """The program does not find its own group."""
    program = """
import glob, os
found = [p for p in glob.glob('/sys/fs/cgroup/**/pids.max', recursive=True) if os.access(p, os.W_OK)]
print('found', len(found), flush=True)
"""
    with delegated() as group, Server("--cgroup", group) as server, server.client() as client:
        start(client, server, "p", program)
        expect(output(client, "p") == ["found", "0"], "no pids.max to write to")


def main():
    with tempfile.TemporaryDirectory(prefix="bailey-bounds-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        bailey.BAILEY = shutil.copy(bailey.BAILEY, directory)  # where an ordinary user gets at it
        cases = [
            ("a fork bomb of an ordinary user's server hits its bound", ordinary_user_fork_bomb),
            ("the default is far away", default_does_not_disturb),
            ("--cgroup with a directory that is none: walled programs are refused", not_a_cgroup),
            ("--cgroup with a directory that does not exist: walled programs are refused", no_such_cgroup),
            ("a bound on memory without a cgroup: walled programs are refused", memory_without_cgroup),
            ("root without a cgroup: a wish is refused, the default is not", root_without_cgroup),
            *for_each_way(cgroup_fork_bomb), *for_each_way(cgroup_memory_bomb), *for_each_way(groups_end),
            *for_each_way(groups_end_by_sigkill),
            ("what a dead server left goes, and nothing else", leftovers_go),
            ("a program cannot lift its own bound", wall_cannot_lift_it),
        ]
        if without_first_rung():
            cases = [("walls", need_walls)]
        run(cases, jobs=2)


main()
