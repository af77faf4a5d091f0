#!/usr/bin/env python3
"""The ladder of walls as a black box: ladder.py BAILEY WITHOUT. What is served on which rung, and what is refused and
how, for each thing a machine can lack; then attempts to get out on the second rung, each with its twin that succeeds.
As the caller, and for root once more as an ordinary user. Prints a line a case, and 'N passed, N failed' last."""

import base64
import os
import re
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import BAILEY, RpcError, Server, Skip, as_user, checked, landlock_abi, run  # noqa: E402
from yard import MINIMAL, NOBODY, Yard, entry, profile  # noqa: E402

WITHOUT = os.path.abspath(sys.argv[2])

# One that an ordinary user may execute.
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable

MANY = "Landlock alone cannot hold back parts of a directory that is granted"
HIDE = "Landlock alone cannot hide files from a program"
NETWORK = "Landlock alone cannot keep a program from the network"
OPT_IN = "only with --allow-landlock-processes"
TOO_OLD = "(that takes Linux 6.12)"
NEITHER = "nor can Landlock"
ABSENT = "names that do not exist yet cannot be protected"
FILTER = "cannot make a system call filter"

POLICIES = ["off", "read-all", "read-roots", "online", "workspace", "deny", "glob", "network-only"]


def policies(ws):
    return {
        "off": None,
        "read-all": profile(entry("/", "read")),
        "read-roots": profile(MINIMAL, entry(ws, "read")),
        "online": profile(entry("/", "read"), network="enabled"),
        "workspace": profile(entry("/", "read"), entry(ws, "write")),
        "deny": profile(entry("/", "read"), entry(ws + "/deny", "deny")),
        "glob": profile(entry("/", "read"), {"path": {"type": "glob_pattern", "pattern": "**/*.env"},
                                             "access": "deny"}, cwd=ws),
        "network-only": profile(),
    }


# What is missing, and options of the server: what becomes of a file request and of a program, for each of POLICIES.
# A number is the rung that serves it (0: no wall was asked for), a text is part of the refusal; a pair is for root and
# for an ordinary user.
ALL = {"fs": [0, 1, 1, 1, 1, 1, 1, 0], "process": [0, 1, 1, 1, 1, 1, 1, 1]}
NO_NAMESPACES = {"fs": [0, 2, 2, 2, MANY, MANY, MANY, 0],
                 "process": [0, OPT_IN, HIDE, OPT_IN, MANY, MANY, MANY, NETWORK]}
NOTHING = {"fs": [0] + [NEITHER] * 6 + [0], "process": [0] + [NEITHER] * 7}
MATRIX = [
    ([], [], ALL),
    (["namespaces"], [], NO_NAMESPACES),
    # A wall around the network alone is built without a user namespace by those who may.
    (["userns-limit"], [], {**NO_NAMESPACES, "process": NO_NAMESPACES["process"][:-1] + [(1, NETWORK)]}),
    (["mounts"], [], NO_NAMESPACES),
    (["namespaces"], ["--allow-landlock-fs"], {**NO_NAMESPACES, "fs": [0, 2, 2, 2, 2, 2, 2, 0]}),
    (["namespaces"], ["--allow-landlock-processes"],
     {**NO_NAMESPACES, "process": [0, 2, HIDE, 2, MANY, MANY, MANY, NETWORK]}),
    (["namespaces", "openat2"], [], NO_NAMESPACES),
    (["namespaces", "notify"], [], NO_NAMESPACES),
    (["landlock"], [], ALL),
    (["namespaces", "landlock"], ["--allow-landlock-fs", "--allow-landlock-processes"], NOTHING),
    (["openat2"], [], ALL),
    (["notify"], [], {**ALL, "process": [0, 1, 1, 1, ABSENT, 1, 1, 1]}),
    (["netns"], [], {**ALL, "process": [0, OPT_IN, HIDE, 1, MANY, MANY, MANY, NETWORK]}),
    (["pidfd"], [], ALL),
    (["seccomp"], [], {"fs": [0] + [FILTER] * 6 + [0], "process": [0] + [FILTER] * 7}),
]
# A machine may lack one of these itself: then no more can be served than on it.
RUNG_OF_MACHINE = {(): 1, ("landlock",): 1, ("openat2",): 1, ("pidfd",): 1, ("notify",): 1, ("namespaces", "landlock"): 3,
                   ("seccomp",): 3}


def on_this_kernel(kind, want, user):
    """An entry of the matrix; Landlock before ABI 6 knows nothing of processes, so programs are not served by it."""
    if isinstance(want, tuple):
        want = want[0 if (os.geteuid() if user is None else user) == 0 else 1]
    return TOO_OLD if kind == "process" and want in (2, OPT_IN) and landlock_abi() < 6 else want


def make_workspace(yard):
    yard.write("ws/file", "inside\n")
    yard.write("ws/deny/secret", "denied\n")
    yard.write("ws/a.env", "token\n")
    yard.write("ws/.git/config", "[core]\n")
    yard.write("out/secret", "secret\n")
    return yard.path("ws")


def start(yard, missing, *options, user):
    """A server on a machine that lacks something."""
    return Server("--log-level", "debug", *options, binary=yard.program("bailey"), user=user,
                  under=[yard.program("without"), *missing, "--"] if missing else [])


def serve(server, client, kind, ws, sandbox):
    """The outcome in the terms of the matrix: a rung, or the text of the refusal."""
    log_before = len(server.log_text())
    try:
        if kind == "fs":
            assert client.read_file(ws + "/file", sandbox) == "inside\n"
        else:
            assert client.run(["/bin/cat", ws + "/file"], ws, sandbox) == (0, "inside\n")
    except RpcError as refused:
        return str(refused)
    found = re.findall(r"(?:helper|process)-started .*?rung=(\d)", server.log_text()[log_before:])
    return int(found[-1]) if found else 0


def fits(outcome, expected):
    if isinstance(expected, int):
        return outcome == expected
    return (isinstance(outcome, str) and outcome.startswith("-32603 sandbox unavailable: ") and
            expected in outcome)


def denial(client, path, sandbox):
    """What a refused write says about itself."""
    try:
        client.write_file(path, "x", sandbox)
    except RpcError as refused:
        return refused.data and refused.data["denial"]
    return None


def check_matrix(who, user):
    with Yard(BAILEY, WITHOUT) as yard:
        ws = make_workspace(yard)
        if user is not None:
            yard.give_to(user)
        for missing, options, expected in MATRIX:
            title = f"{who} without {' and '.join(missing) or 'nothing'} {' '.join(options)}".strip()
            with start(yard, missing, *options, user=user) as server, server.client() as client:
                told = client.walls()
                rung = RUNG_OF_MACHINE.get(tuple(missing), 2)
                yield (f"{title}: environmentInfo tells the rung",
                       told["rung"] == rung and ("reason" in told) == (missing not in ([], ["openat2"], ["pidfd"])), told)
                yield f"{title}: the log tells it", f" sandbox rung={rung} " in server.log_text(), ""
                for kind in "fs", "process":
                    for name, want in zip(POLICIES, expected[kind]):
                        want = on_this_kernel(kind, want, user)
                        outcome = serve(server, client, kind, ws, policies(ws)[name])
                        yield f"{title}: {kind}, {name} is {want}", fits(outcome, want), outcome
                want = expected["fs"][POLICIES.index("read-all")]
                if isinstance(want, int):
                    said = denial(client, ws + "/file", policies(ws)["read-all"])
                    yield f"{title}: a denial is of rung {want}", said == {
                        "path": ws + "/file", "access": "write", "rule": {"path": "/", "access": "read"},
                        "rung": want}, said


# ---- a second procfs, for instance that of a chroot

def beside_a_procfs(yard, missing):
    """What to run something under that shall have a procfs of its own at root/proc, and lack something."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount -t proc proc "$0" && exec "$@"',
            yard.path("root/proc")] + ([yard.program("without"), *missing, "--"] if missing else [])


def explained_beside_a_procfs(who, yard, missing):
    done = subprocess.run(beside_a_procfs(yard, missing) + [BAILEY, "sandbox", "--read-only", "--explain"],
                          capture_output=True, text=True, check=False)
    line = [line for line in done.stdout.splitlines() if yard.path("root/proc") in line and "mask-dir" in line]
    yield f"{who}, a second procfs is explained", len(line) == 1 and "another procfs" in line[0], done


def procfs_attempts(client, yard):
    procfs = yard.path("root/proc")
    yield "a process", lambda s: client.read_file(f"{procfs}/{os.getpid()}/cmdline", s)
    yield "the helper itself", lambda s: client.read_file(f"{procfs}/self/status", s)
    yield "a setting", lambda s: client.read_file(f"{procfs}/sys/kernel/ostype", s)
    yield "a link to it", lambda s: client.read_file(yard.path("root/link/version"), s)
    yield "a listing", lambda s: client.call("fs/readDirectory", {"path": "file://" + procfs, "sandbox": s})
    yield "metadata", lambda s: client.call("fs/getMetadata", {"path": f"file://{procfs}/stat", "sandbox": s})


def check_second_procfs(who, user):
    """What it shows of the host is nobody's, on each rung; what is beside it is served as ever, also what comes later."""
    if user is not None or os.geteuid() != 0:
        return  # who may not mount
    servers = [([], [], 1, ["read-all", "root", "procfs", "workspace"]),
               (["namespaces"], [], 2, ["read-all", "root", "procfs"]),
               (["namespaces"], ["--allow-landlock-fs"], 2, ["read-all", "root", "procfs", "workspace"]),
               (["namespaces"], ["--allow-landlock-processes"], 2, ["read-all"])]
    for missing, options, rung, names in servers:
        with Yard(BAILEY, WITHOUT) as yard:
            ws = make_workspace(yard)
            yard.write("root/beside", "beside\n")
            os.mkdir(yard.path("root/proc"))
            os.symlink("proc", yard.path("root/link"))
            shown = {**policies(ws), "root": profile(MINIMAL, entry(yard.path("root"), "read")),
                     "procfs": profile(entry("/", "read"), entry(yard.path("root/proc"), "read"),
                                       entry(yard.path("root/proc/sys"), "write")),
                     "workspace": profile(entry("/", "read"), entry(yard.path("root"), "write"))}
            with (Server("--log-level", "debug", *options, binary=yard.program("bailey"),
                         under=beside_a_procfs(yard, missing)) as server, server.client() as client):
                for name in names:
                    title = f"{who} rung {rung} {' '.join(options)}, beside a second procfs, {name}"
                    for attempt, action in procfs_attempts(client, yard):
                        yield f"{title}: {attempt} is denied", denied(action, shown[name]), ""
                        yield f"{title}: {attempt} succeeds without a wall", gets(action, None), ""
                    yard.write(f"root/later-{name}", "later\n")
                    for path, text in ("root/beside", "beside\n"), (f"root/later-{name}", "later\n"):
                        yield f"{title}: {path} is read", client.read_file(yard.path(path), shown[name]) == text, ""
                if "workspace" in names:
                    yield (f"{who} rung {rung}, a second procfs in the workspace: it is written",
                           gets(client.write_file, yard.path("root/new"), "x", shown["workspace"]), "")
                if not options:
                    yield from explained_beside_a_procfs(who, yard, missing)
                if rung == 1 or "--allow-landlock-processes" in options:
                    ran = serve(server, client, "process", ws, shown["read-all"])
                    yield f"{who} rung {rung}, beside a second procfs: a program", fits(
                        ran, on_this_kernel("process", rung, user)), ran


# ---- the second rung: (attempt, policy or None for the twin) -> whether it got through

def denied(action, sandbox):
    try:
        action(sandbox)
    except RpcError as error:
        return error.code == -32600
    return False


def gets(action, *arguments):
    try:
        return action(*arguments) is not False
    except RpcError:
        return False


def file_attempts(client, yard):
    out, ws = yard.path("out"), yard.path("ws")
    p = policies(ws)
    return [
        ("reading outside", lambda s: client.read_file(out + "/secret", s), p["read-roots"]),
        ("listing outside", lambda s: client.call("fs/readDirectory", {"path": "file://" + out, "sandbox": s}),
         p["read-roots"]),
        ("metadata outside", lambda s: client.call("fs/getMetadata", {"path": "file://" + out, "sandbox": s}),
         p["read-roots"]),
        ("writing outside", lambda s: client.write_file(out + "/new", "x", s), p["workspace"]),
        ("writing where only reading is granted", lambda s: client.write_file(ws + "/file", "inside\n", s),
         p["read-all"]),
        ("writing .git", lambda s: client.write_file(ws + "/.git/config", "[core]\n", s), p["workspace"]),
        ("making .codex", lambda s: (client.call("fs/createDirectory", {
            "path": "file://" + ws + "/.codex", "recursive": False, "sandbox": s}), os.rmdir(ws + "/.codex")),
         p["workspace"]),
        ("reading what is denied", lambda s: client.read_file(ws + "/deny/secret", s), p["deny"]),
        ("reading what a pattern denies", lambda s: client.read_file(ws + "/a.env", s), p["glob"]),
        ("reading another process's environment",
         lambda s: client.read_file(f"/proc/{os.getpid()}/cmdline", s), p["read-all"]),
        ("removing outside", lambda s: client.call("fs/remove", {
            "path": "file://" + out + "/victim", "recursive": False, "force": False, "sandbox": s}), p["workspace"]),
        ("copying in from outside", lambda s: client.call("fs/copy", {
            "sourcePath": "file://" + out + "/secret", "destinationPath": "file://" + ws + "/copy",
            "recursive": False, "sandbox": s}),
         profile(MINIMAL, entry(ws, "write"))),
    ]


def file_controls(client, yard):
    ws = yard.path("ws")
    p = policies(ws)
    return [
        ("reading the workspace", lambda: client.read_file(ws + "/file", p["read-roots"]) == "inside\n"),
        ("listing the root", lambda: "usr" in [e["fileName"] for e in client.call(
            "fs/readDirectory", {"path": "file:///", "sandbox": p["read-all"]})["entries"]]),
        ("reading /etc", lambda: client.read_file("/etc/passwd", p["read-all"]) != ""),
        ("writing the workspace", lambda: client.write_file(ws + "/new", "x", p["workspace"])),
        ("an effect on the disk", lambda: os.path.exists(ws + "/new")),
    ]


def check_file_attempts(who, user):
    with Yard(BAILEY, WITHOUT) as yard:
        make_workspace(yard)
        yard.write("out/victim", "x")
        if user is not None:
            yard.give_to(user)
        with start(yard, ["namespaces"], "--allow-landlock-fs", user=user) as server, server.client() as client:
            for name, action in file_controls(client, yard):
                yield f"{who} rung 2, files: {name} works", gets(action), ""
            for name, action, sandbox in file_attempts(client, yard):
                yield f"{who} rung 2, files: {name} fails", not gets(action, sandbox), ""
                yield f"{who} rung 2, files: {name} succeeds without a wall", gets(action, None), ""


def program_attempts(yard, bystander, port):
    """Shell commands that exit with 0 when they got through."""
    out = yard.path("out")
    call = f"exec {PYTHON} -c 'import "
    return [
        ("writing a file", f"echo x > {out}/secret"),
        ("creating a file", f"echo x > {out}/planted && rm {out}/planted"),
        ("removing and restoring", f"rm {out}/victim && echo x > {out}/victim"),
        ("changing a mode", f"chmod 640 {out}/secret"),
        ("changing a time", f"touch -d 2020-01-01 {out}/secret"),
        ("an extended attribute", call + f"os; os.setxattr(\"{out}/secret\", \"user.x\", b\"1\")'"),
        ("cutting a file short", call + f"os; os.truncate(\"{out}/secret\", 1)'"),
        ("moving a directory", f"mv {out}/dir {out}/dir2 && mv {out}/dir2 {out}/dir"),
        ("signalling a process", f"kill -0 {bystander}"),
        ("reading a process's environment", f"cat /proc/{bystander}/environ > /dev/null"),
        ("a process's memory", f"head -c 0 /proc/{bystander}/mem"),
        ("a TCP connection", call + f"socket; socket.create_connection((\"127.0.0.1\", {port}))'"),
        ("a UNIX socket", call + f"socket; socket.socket(socket.AF_UNIX).connect(\"{out}/socket\")'"),
        ("System V shared memory", call + "ctypes; c = ctypes.CDLL(None); i = c.shmget(0, 4096, 0o1600); "
                                   "assert i >= 0; c.shmctl(i, 0, None)'"),
        ("limits of a process", call + f"resource; resource.prlimit({bystander}, resource.RLIMIT_CORE)'"),
        ("priority of a process", call + f"os; os.setpriority(os.PRIO_PROCESS, {bystander}, 19)'"),
    ]


PROGRAM_CONTROLS = [
    ("reading anything", "cat /etc/passwd /proc/cpuinfo > /dev/null"),
    ("pipes and children", "echo a | cat | grep -q a"),
    ("python", f"exec {PYTHON} -c 'import subprocess; subprocess.run([\"true\"], check=True)'"),
    ("killing a child of its own", "sleep 60 & kill $!"),
]


def check_daemon(who, client, sandbox):
    """What a program leaves behind ends with it, as it would with a pid namespace."""
    code, output = client.run(["/bin/sh", "-c", "setsid sleep 300 > /dev/null 2>&1 & echo $!"], "/", sandbox)
    alive = os.path.exists(f"/proc/{output.strip()}")
    yield f"{who} rung 2, programs: a daemon ends with its program", code == 0 and not alive, output


def check_terminate(who, client, sandbox):
    client.call("process/start", {"processId": "victim", "argv": ["/bin/sh", "-c",
                                  "setsid sleep 301 & echo $!; trap '' TERM INT HUP; wait; wait"],
                                  "cwd": "file:///", "env": {"PATH": "/usr/bin:/bin"}, "tty": False, "arg0": None,
                                  "pipeStdin": False, "sandbox": sandbox})
    read = client.call("process/read", {"processId": "victim", "afterSeq": 0, "waitMs": 20000})
    pid = int(base64.b64decode(read["chunks"][0]["chunk"]))
    client.call("process/terminate", {"processId": "victim"})
    seq = read["nextSeq"] - 1
    while not read["closed"]:
        read = client.call("process/read", {"processId": "victim", "afterSeq": seq, "waitMs": 20000})
        seq = read["nextSeq"] - 1
    yield (f"{who} rung 2, programs: terminating takes everything along",
           not os.path.exists(f"/proc/{pid}") and read["exitCode"] == 128 + 9, read)


def check_program_attempts(who, user):
    with Yard(BAILEY, WITHOUT) as yard, socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        ws = make_workspace(yard)
        yard.write("out/victim", "x")
        yard.write("out/dir/file", "x")
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind(yard.path("out/socket"))
        unix.listen()
        if user is not None:
            yard.give_to(user)
        bystander = subprocess.Popen(["/bin/sleep", "600"], **as_user(user))
        try:
            with (start(yard, ["namespaces"], "--allow-landlock-processes", user=user) as server,
                  server.client() as client):
                sandbox = policies(ws)["read-all"]
                for name, command in PROGRAM_CONTROLS:
                    result = client.run(["/bin/sh", "-c", command], "/", sandbox)
                    yield f"{who} rung 2, programs: {name} works", result[0] == 0, result
                for name, command in program_attempts(yard, bystander.pid, tcp.getsockname()[1]):
                    result = client.run(["/bin/sh", "-c", command], "/", sandbox)
                    yield f"{who} rung 2, programs: {name} fails", result[0] != 0, result
                    result = client.run(["/bin/sh", "-c", command], "/")
                    yield f"{who} rung 2, programs: {name} succeeds without a wall", result[0] == 0, result
                yield from check_daemon(who, client, sandbox)
                yield from check_terminate(who, client, sandbox)
        finally:
            bystander.kill()
            bystander.wait()


def what_is_missing(user):
    """A reason to skip, or None: these tests take things away from a machine that has them all."""
    with Yard(BAILEY, WITHOUT) as yard, start(yard, [], user=user) as server, server.client() as client:
        told = client.walls()
    if told["rung"] == 1 and told["landlock"] > 0 and "reason" not in told:
        return None
    return f"this machine offers {told}"


def skip(reason):
    raise Skip(reason)


def checks():
    for who, user in [("as caller", None)] + ([("as uid 65534", NOBODY)] if os.geteuid() == 0 else []):
        missing = what_is_missing(user)
        if missing:
            yield f"{who}, this machine", lambda missing=missing: skip(missing)
            continue
        for check in check_matrix, check_second_procfs, check_file_attempts, check_program_attempts:
            if check is check_program_attempts and landlock_abi() < 6:
                yield f"{who} rung 2, programs", lambda: skip("Landlock's ABI here is older than 6")
                continue
            yield from checked(check(who, user))


run(checks(), jobs=1, only=sys.argv[3:])
