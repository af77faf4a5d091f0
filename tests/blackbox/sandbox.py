#!/usr/bin/env python3
"""`bailey sandbox` as a black box: sandbox.py BAILEY WITHOUT. Every denial has a twin without a wall.
Prints a line a failure, and 'N passed, N failed' last."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import BAILEY, Skip, checked, landlock_abi, without_first_rung  # noqa: E402
from bailey import run as run_cases  # noqa: E402
from yard import Yard, entry, profile  # noqa: E402

WITHOUT = os.path.abspath(sys.argv[2])
TIMEOUT = 60


def run(yard, *arguments, stdin="", env=None, **more):
    return subprocess.run([BAILEY, "sandbox", *arguments], input=stdin, capture_output=True, text=True,
                          timeout=TIMEOUT, check=False, cwd=more.pop("cwd", yard.path("ws")),
                          env={"PATH": "/usr/bin:/bin", **(env or {})}, **more)


def prepare(yard):
    yard.write("ws/file", "inside\n")
    yard.write("ws/.git/config", "[core]\n")
    yard.write("ws/docs/page", "page\n")
    yard.write("out/secret", "secret\n")
    return yard


# ---- exit statuses: (name, arguments, expected status)

STATUSES = [
    ("the command's own", ["--", "sh", "-c", "exit 7"], 7),
    ("success", ["--", "true"], 0),
    ("a signal", ["--", "sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
    ("SIGKILL", ["--", "sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL),
    ("no such command", ["--", "no-such-command"], 127),
    ("no such path", ["--", "/no/such"], 127),
    ("not executable", ["--", "/etc/passwd"], 126),
    ("a directory", ["--", "/etc"], 126),
    ("no command", [], 125),
    ("an unknown option", ["--nonsense", "--", "true"], 125),
    ("two policies", ["--read-only", "--workspace-write", "--", "true"], 125),
    ("grants with a ready-made policy", ["--profile-json", "{}", "--write", "/tmp", "--", "true"], 125),
    ("--json without --explain", ["--json", "--", "true"], 125),
    ("a policy that is none", ["--profile-json", "{\"type\":\"nonsense\"}", "--", "true"], 125),
    ("a policy file that is not there", ["--policy", "/no/such", "--", "true"], 125),
    ("an empty path", ["--write", "", "--", "true"], 125),
    ("a working directory that is not there", ["--cwd", "/no/such", "--", "true"], 125),
    ("a working directory that is not shown", ["--read", "/etc", "--", "true"], 125),
    ("options of the command are its own", ["sh", "-c", "exit 9"], 9),
    ("--help", ["--help"], 0),
]


def statuses(yard):
    for name, arguments, expected in STATUSES:
        result = run(yard, *arguments)
        yield f"exit status: {name}", result.returncode == expected, result
        if expected in (125, 126, 127):
            yield f"exit status: {name} says why", result.stderr.startswith("bailey sandbox: ") or (
                "unrecognized option" in result.stderr), result


# ---- what is held back: (name, options, command that succeeds without a wall)

DENIALS = [
    ("writing outside", ["--workspace-write"], "echo x > ../out/secret"),
    ("writing where only reading is granted", [], "echo x > file"),
    ("writing .git", ["--workspace-write"], "echo x > .git/config"),
    ("making .codex", ["--workspace-write"], "mkdir .codex && rmdir .codex"),
    ("reading what is denied", ["--deny", "{out}"], "cat ../out/secret"),
    ("reading what is not granted", ["--read", "."], "cat ../out/secret"),
    ("reading beside what may be written", ["--read", "/etc", "--write", "."], "cat ../out/secret"),
    ("a relative path starts here", ["--deny", "../out"], "cat ../out/secret"),
    ("a policy of form A", ["--policy", "{yard}/a.json"], "echo x > ../out/secret"),
    ("a policy of form B", ["--policy", "{yard}/b.json"], "cat ../out/secret"),
    ("a profile", ["--profile-json", json.dumps(profile(entry("/", "read"))["permissions"])], "echo x > file"),
    ("the network", ["--workspace-write"],
     "/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_INET).close()'"),
    ("other processes", [], "kill -0 {pid}"),
]
CONTROLS = [
    ("writing the workspace", ["--workspace-write"], "echo y > new && cat new && rm new"),
    ("writing a grant", ["--write", "docs"], "echo page > docs/page"),
    ("reading all", [], "cat ../out/secret file"),
    ("reading a grant", ["--read", ".", "--read", "{out}"], "cat ../out/secret"),
    ("the network", ["--network"], "/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_INET).close()'"),
    ("a policy of form A", ["--policy", "{yard}/a.json"], "echo x > new && rm new"),
    ("a policy on stdin", ["--policy", "-"], "true"),
    ("no wall", ["--profile-json", "{\"type\":\"disabled\"}"], "echo secret > ../out/secret"),
    ("another directory", ["--cwd", "docs"], "cat page"),
]


def confinement(yard):
    form_a = {"sandboxPolicy": {"type": "workspace-write", "exclude_slash_tmp": True},
              "windowsSandboxLevel": "disabled"}
    yard.write("a.json", json.dumps(form_a))
    yard.write("b.json", json.dumps(profile(entry("/", "read"), entry(yard.path("out"), "deny"))))
    names = {"out": yard.path("out"), "yard": yard.dir, "pid": str(os.getpid())}

    def fill(text):
        return re.sub(r"\{(out|yard|pid)\}", lambda m: names[m.group(1)], text)

    for name, options, command in DENIALS:
        inside = run(yard, *map(fill, options), "--", "sh", "-c", fill(command))
        yield f"{name} fails", inside.returncode not in (0, 125, 126, 127), inside
        twin = subprocess.run(["sh", "-c", fill(command)], cwd=yard.path("ws"), capture_output=True, check=False)
        yield f"{name} succeeds without a wall", twin.returncode == 0, twin
    for name, options, command in CONTROLS:
        result = run(yard, *map(fill, options), "--", "sh", "-c", command, stdin=json.dumps(form_a))
        yield f"{name} works", result.returncode == 0, result
    yield "stdin and stdout are the command's", run(yard, "--", "cat", stdin="hello").stdout == "hello", ""
    yield "so is the environment", run(yard, "--", "sh", "-c", "echo $X", env={"X": "y"}).stdout == "y\n", ""


# ---- --explain

GOLDEN = """policy:
  ro /
  rw @/ws
  ro @/ws/.agents implied
  ro @/ws/.aws implied
  ro @/ws/.codex implied
  ro @/ws/.git implied
  ro @/ws/docs
  deny @/out
  cwd @/ws
plan:
  ro / | entry: read /
  rw @/ws | entry: write @/ws
  ro @/ws/.git | protected name: .git of a writable root
  ro @/ws/docs | entry: read @/ws/docs
  mask-dir @/out | entry: deny @/out
  absent @/ws/.agents | protected name: .agents of a writable root; it is missing and must not come into being
  absent @/ws/.aws | protected name: .aws of a writable root; it is missing and must not come into being
  absent @/ws/.codex | protected name: .codex of a writable root; it is missing and must not come into being
network: none, a namespace of its own
rung 1: namespaces, Landlock inside, a system call filter
"""


def files_only(text):
    """Without the steps that depend on the kernel and on the host's mounts, and with columns that do not depend on lengths."""
    kept = [line for line in text.splitlines() if not re.search(r" (/dev|/proc|/sys)\b|another procfs", line)]
    return "".join(re.sub(r"^  (\S+) +(\S+)  +", r"  \1 \2 | ", line) + "\n" for line in kept)


def sorted_lines(text):
    return sorted(text.splitlines())


def explain(yard):
    options = ["--profile-json", json.dumps(profile(
        entry("/", "read"), entry(yard.path("ws"), "write"), entry(yard.path("ws/docs"), "read"),
        entry(yard.path("out"), "deny"))["permissions"])]
    result = run(yard, "--explain", *options)
    shown = files_only(result.stdout).replace(yard.dir, "@")
    yield "explained for people", sorted_lines(shown) == sorted_lines(GOLDEN), "\n" + shown
    result = run(yard, "--explain", "--json", *options, "--", "touch", "ran")
    told = json.loads(result.stdout)
    steps = {(step["step"], step["path"]): step["why"] for step in told["plan"]}
    yield "explained as JSON: the rung", told["rung"] == 1 and "refusal" not in told, told
    yield "explained as JSON: steps", steps[("ro", yard.path("ws/.git"))].startswith("protected name"), steps
    yield "explained as JSON: the policy", {"path": yard.path("out"), "access": "deny", "implied": False} in (
        told["policy"]["rules"]), told["policy"]
    yield "explaining runs nothing", not os.path.exists(yard.path("ws/ran")), ""
    result = run(yard, "--explain", "--profile-json", "{\"type\":\"disabled\"}")
    yield "no wall is explained as none", "no wall: it runs as it is" in result.stdout, result
    deny = {"path": {"type": "glob_pattern", "pattern": "**/page"}, "access": "deny"}
    result = run(yard, "--explain", "--profile-json", json.dumps(profile(entry("/", "read"), deny)["permissions"]))
    yield "a pattern is named", f"pattern: deny {yard.path('ws')}/**/page" in result.stdout, result


# ---- without namespaces

def run_without(missing, yard, *arguments):
    return subprocess.run([WITHOUT, *missing, "--", BAILEY, "sandbox", *arguments], capture_output=True, text=True,
                          timeout=TIMEOUT, check=False, cwd=yard.path("ws"))


def rungs(yard):
    refused = run_without(["namespaces"], yard, "--", "touch", "ran")
    yield "without namespaces: 125 and a reason", refused.returncode == 125 and (
        "sandbox unavailable: the kernel refuses new namespaces" in refused.stderr and
        "--security-opt seccomp=unconfined" in refused.stderr), refused
    yield "and nothing ran", not os.path.exists(yard.path("ws/ran")), ""
    refused = run_without(["mounts"], yard, "--", "true")
    yield "without mounts: 125 and a reason", refused.returncode == 125 and (
        "sandbox unavailable: cannot make the mounts private" in refused.stderr), refused
    refused = run_without(["namespaces"], yard, "--allow-landlock-processes", "--workspace-write", "--", "true")
    yield "rung 2 is not enough for a workspace", refused.returncode == 125 and (
        "Landlock alone cannot hold back" in refused.stderr), refused
    told = run_without(["namespaces"], yard, "--explain", "--json", "--workspace-write")
    told = json.loads(told.stdout)
    yield "--explain tells the refusal", told["rung"] == 3 and "Landlock alone" in told["refusal"], told
    whole = run_without(["landlock"], yard, "--", "sh", "-c", "echo x > file")
    yield "without Landlock the first wall holds", whole.returncode not in (0, 125), whole


def programs_on_rung2(yard):
    second = run_without(["namespaces"], yard, "--allow-landlock-processes", "--", "cat", "file")
    yield "rung 2 when it is allowed", (second.returncode, second.stdout) == (0, "inside\n"), second
    second = run_without(["namespaces"], yard, "--allow-landlock-processes", "--", "sh", "-c", "echo x > file")
    yield "rung 2 holds", second.returncode not in (0, 125), second


# ---- life and death

def wait_for(condition):
    end = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def start(yard, *command, missing=(), **more):
    before = [WITHOUT, *missing, "--"] if missing else []
    options = ["--allow-landlock-processes"] if missing else ["--workspace-write"]
    return subprocess.Popen([*before, BAILEY, "sandbox", *options, "--", *command], cwd=yard.path("ws"),
                            stdout=subprocess.PIPE, text=True, **more)


def find_running(marker):
    """The process with this argument, as the fields of its stat from its state on; None: there is none."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if marker.encode() not in f.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/stat") as f:
                return f.read().rpartition(")")[2].split()
        except OSError:
            continue
    return None


def is_running(marker):
    return find_running(marker) is not None


def is_in_front(marker):
    """A shell prints the name of what it brings to the front before it hands the terminal over."""
    state, _, group, _, _, front, *_ = find_running(marker) or ["", "", "", "", "", None]
    return group == front and state != "T"


def life_and_death(yard, title, missing):
    process = start(yard, "sh", "-c", "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done",
                    missing=missing)
    process.stdout.readline()
    process.terminate()
    yield f"{title}: a signal is passed on", (process.stdout.read(), process.wait(TIMEOUT)) == ("got it\n", 3), ""
    process.stdout.close()

    marker = f"{600 + os.getpid() / 1e7:.7f}"
    process = start(yard, "sh", "-c", f"setsid sleep {marker} & echo ready; exec sleep {marker}", missing=missing)
    process.stdout.readline()
    alive = wait_for(lambda: is_running(marker))
    process.kill()
    process.wait(TIMEOUT)
    process.stdout.close()
    gone = wait_for(lambda: not is_running(marker))
    yield f"{title}: killed, it takes everything along", alive and gone, ""

    marker = f"{700 + os.getpid() / 1e7:.7f}"
    process = start(yard, "sh", "-c", f"setsid sleep {marker} > /dev/null 2>&1 & exit 0", missing=missing)
    process.wait(TIMEOUT)
    process.stdout.close()
    yield f"{title}: a daemon ends with its command", not is_running(marker), ""


def life(yard):
    yield from life_and_death(yard, "rung 1", [])


def life_on_rung2(yard):
    yield from life_and_death(yard, "rung 2", ["namespaces"])


# ---- a terminal

class Terminal:
    """The command in front of us, on a terminal of ours."""

    def __init__(self, yard, *arguments, before=()):
        command = [*before, BAILEY, "sandbox", *arguments]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(yard.path("ws"))
            os.environ.update({"PS1": "> ", "TERM": "dumb", "HISTFILE": "", "ENV": ""})
            os.execv(command[0], command)
        self.text = ""

    def expect(self, pattern):
        end = time.monotonic() + TIMEOUT
        while not re.search(pattern, self.text):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            if not ready:
                return False
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                return re.search(pattern, self.text) is not None
            if not data:
                return False
            self.text += data.decode("utf-8", "replace")
        self.text = self.text[re.search(pattern, self.text).end():]
        return True

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self):
        """Shows what comes until the end; a command that does not end is killed."""
        self.expect(r"(?!)")  # matches nothing: until the terminal is hung up
        if not wait_for(lambda: os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def terminal(yard):
    shell = Terminal(yard, "--workspace-write", "--", "/bin/bash", "--norc", "--noprofile", "-i")
    yield "a shell prompts", shell.expect(r"> "), shell.text
    shell.type("test -t 0 && test -t 1 && echo is-a-$((1+1))-tty\r")
    yield "its terminal is one", shell.expect("is-a-2-tty"), shell.text
    marker = f"{800 + os.getpid() / 1e7:.7f}"
    shell.type(f"sleep {marker}\r")
    yield "a program in the foreground", shell.expect(marker) and wait_for(lambda: is_in_front(marker)), shell.text
    shell.type("\x1a")
    yield "^Z stops it", shell.expect("Stopped"), shell.text
    shell.type("bg; jobs; echo back-$((1+1))\r")
    yield "it goes on in the background", shell.expect(r"Running[^\r]*sleep") and shell.expect("back-2"), shell.text
    shell.type("fg\r")
    yield "and comes back", shell.expect(f"sleep {marker}") and wait_for(lambda: is_in_front(marker)), shell.text
    shell.type("\x03")
    shell.type("echo status-$?\r")
    yield "^C ends it", shell.expect("status-130"), shell.text
    shell.type("echo x > ../out/secret || echo denied-$((1+1))\r")
    yield "the wall is there", shell.expect("denied-2"), shell.text
    shell.type("exit 5\r")
    yield "it exits as the shell did", shell.wait() == 5, shell.text

    program = Terminal(yard, "--", "sh", "-c", "stty size; tty; echo done")
    yield "the size comes along", program.expect(r"\d+ \d+\r\n") and program.expect(r"/dev/pts/0\r\n"), program.text
    closer = Terminal(yard, "--", "sh", "-c", "exec 0<&- 1>&- 2>&-; sleep 0.3; echo again > /dev/tty; exit 7")
    yield "a terminal may be closed and opened again", closer.expect("again") and closer.wait() == 7, closer.text
    yield "everything is shown before the end", program.expect("done\r\n") and program.wait() == 0, program.text


def terminal_on_rung2(yard):
    second = Terminal(yard, "--allow-landlock-processes", "--", "/bin/bash", "--norc", "--noprofile", "-i",
                      before=[WITHOUT, "namespaces", "--"])
    yield "a shell prompts on rung 2", second.expect(r"> "), second.text
    second.type("sleep 60 &\r")
    yield "with job control", second.expect(r"\[1\] \d+"), second.text
    second.type("kill %1; echo x > ../out/secret || exit 4\r")
    yield "and the wall", second.wait() == 4, second.text


def checks():
    missing = without_first_rung()
    for check in statuses, confinement, explain, rungs, life, terminal:
        if missing:
            yield check.__name__, lambda: skip(missing)
            continue
        with Yard() as yard:
            yield from checked(check(prepare(yard)))
    for check in programs_on_rung2, life_on_rung2, terminal_on_rung2:
        if landlock_abi() < 6:
            yield check.__name__, lambda: skip("programs on the second rung take Landlock's ABI 6")
            continue
        with Yard() as yard:
            yield from checked(check(prepare(yard)))


def skip(reason):
    raise Skip(reason)


run_cases(checks(), jobs=1, only=sys.argv[3:])
