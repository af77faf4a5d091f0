#!/usr/bin/env python3
"""What is said about refusals: denials.py BAILEY. `sandboxDenied` of programs, each with its twins (no wall, exit code 0),
and the lines of the log, which name what was refused and give nothing else away."""

import base64
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from bailey import RpcError, Server, Skip, expect, run, wall  # noqa: E402

SECRET = "the-words-nobody-may-log"


def refuses_walls(error):
    if "sandbox unavailable" in error.message:
        raise Skip(f"no sandbox here: {error}") from error
    raise error


def workspace(server):
    """Without .git, .codex, .agents and .aws, which cannot be created behind a wall then."""
    ws = server.dir + "/ws"
    for name in "ws", "ws/deny", "ws/repo/.git", "out":
        os.makedirs(os.path.join(server.dir, name), exist_ok=True)
    for name in "ws/deny/f", "out/f":
        with open(os.path.join(server.dir, name), "w", encoding="ascii") as file:
            file.write(SECRET)
    return ws


def lines(server, event):
    """The lines of an event, as they are."""
    with open(server.dir + "/log", encoding="utf-8") as log:
        return [line.rstrip("\n") for line in log if re.search(rf"\b{event} ", line)]


# ---- sandboxDenied

SILENT = "exec 2>/dev/null; mkdir -p .git/hooks && echo x > .git/hooks/pre-commit || exit 1"

# A script: its exit code and evidence behind a wall, and its exit code without one.
PROGRAMS = {
    "a silent refusal": (SILENT, 1, "supervised", 0),
    "a silent refusal, of a child of its own": ("(mkdir .codex) 2>/dev/null; exit 7", 7, "supervised", 7),
    "a silent refusal, and a shell's own exit code": ("mkdir .aws 2>/dev/null || exit 2; exit 2", 2, "supervised", 2),
    "a refusal that speaks": ("mkdir .agents", 1, "supervised", 0),
    "a refusal that did not matter": (f"{SILENT.replace('exit 1', 'exit 0')}", 0, "none", 0),
    "words": ("echo x: Permission Denied >&2; exit 1", 1, "words", 1),
    "words, and success": ("echo permission denied; exit 0", 0, "none", 0),
    "death by SIGSYS": ("kill -SYS $$", 159, "signal", 159),
    "a plain failure": ("echo no such thing >&2; exit 3", 3, "none", 3),
    "a silent refusal by a mount, which nobody can know": (
        "(echo x > ../out/new) 2>/dev/null || exit 1; rm ../out/new", 1, "none", 0),
    "a name that only looks protected": ("mkdir d && mkdir d/.git && rmdir d/.git d; exit 1", 1, "none", 1),
}


def end_of(client, process, script, ws, sandbox):
    """(exit code, sandboxDenied), which the notification and every answer agree about."""
    try:
        client.start(process, ["/bin/sh", "-c", script], cwd=ws, sandbox=sandbox)
    except RpcError as error:
        refuses_walls(error)
    client.notification("process/closed", process)
    exited = client.notification("process/exited", process)
    for _ in range(2):
        read = client.read(process, afterSeq=0)
        expect((read["exitCode"], read["sandboxDenied"]) == (exited["exitCode"], exited["sandboxDenied"]),
               f"{read} after {exited}")
    return exited["exitCode"], exited["sandboxDenied"]


def program(name):
    script, code, evidence, twin = PROGRAMS[name]
    with Server("--log-level", "info") as server, server.client() as client:
        ws = workspace(server)
        got = end_of(client, "walled", script, ws, wall(ws))
        expect(got == (code, evidence != "none"), f"behind a wall: {got}")
        leftovers = sorted(os.listdir(ws))
        expect(leftovers == ["deny", "repo"], f"left behind: {leftovers}")
        got = end_of(client, "free", script, ws, None)
        expect(got == (twin, False), f"without a wall: {got}")
        said = [re.search(r'process="?(\w+)"? code=(\d+) denied=(\d) evidence=(\w+)$', line).groups()
                for line in lines(server, "process-exited")]
        expect(said == [("walled", str(code), str(int(evidence != "none")), evidence), ("free", str(twin), "0", "none")],
               f"the log: {said}")


# ---- the log


def sandbox_of(ws):
    """Reads all but ws/deny and *.key, and writes ws."""
    sandbox = wall(ws)
    sandbox["permissions"]["file_system"]["entries"] += [
        {"path": {"type": "path", "path": f"file://{ws}/deny"}, "access": "deny"},
        {"path": {"type": "glob_pattern", "pattern": f"{ws}/**/*.key"}, "access": "deny"}]
    return sandbox


def hiding_sandbox_of(ws):
    """Shows ws and what programs need."""
    sandbox = wall(ws)
    sandbox["permissions"]["file_system"]["entries"][0]["path"]["value"]["kind"] = "minimal"
    return sandbox


def refused(client, method, params, sandbox):
    try:
        client.call(method, {**params, "sandbox": sandbox})
    except RpcError as error:
        return error if error.code != -32603 else refuses_walls(error)
    raise AssertionError(f"{method} {params} succeeded")


def write(path):
    return "fs/writeFile", {"path": path, "dataBase64": base64.b64encode(SECRET.encode()).decode()}


def audit_lines():
    with Server("--log-level", "info", env={"BAILEY_TEST_SECRET": SECRET}) as server, server.client() as client:
        ws = workspace(server)
        odd = f'{server.dir}/out/line\nbreak "quoted" \x1b[1m'
        rows = [
            (*write(f"{server.dir}/out/f"), "write", {"path": "/", "access": "read"}),
            (*write(f"{ws}/.codex"), "write", {"path": f"{ws}/.codex", "access": "read", "protected": True}),
            (*write(f"{ws}/deny/new"), "write", {"path": f"{ws}/deny", "access": "deny"}),
            (*write(odd), "write", {"path": "/", "access": "read"}),
            ("fs/readFile", {"path": f"{ws}/deny/f"}, "read", {"path": f"{ws}/deny", "access": "deny"}),
            ("fs/readFile", {"path": f"{ws}/x.key"}, "read", {"glob": f"{ws}/**/*.key", "access": "deny"}),
            ("fs/createDirectory", {"path": f"{ws}/.aws"}, "create",
             {"path": f"{ws}/.aws", "access": "read", "protected": True}),
            ("fs/remove", {"path": f"{server.dir}/out"}, "remove", {"path": "/", "access": "read"}),
        ]
        for number, (method, params, access, rule) in enumerate(rows, 1):
            refused(client, method, params, sandbox_of(ws))
            found = lines(server, "denied")
            expect(len(found) == number, f"{method} {params}: {len(found)} lines, not {number}")
            head, _, data = found[-1].partition(" data=")
            expect(head.endswith(f"denied session={client.session} method={method}"), head)
            said = json.loads(data)["denial"]
            expect(said.pop("rung") in (1, 2), "the rung")
            expect(said == {"path": params["path"], "access": access, "rule": rule}, f"{method} {params}: {said}")
        gives_nothing_away(server)


def gives_nothing_away(server):
    """Neither contents, nor an environment, nor arguments."""
    with open(server.dir + "/log", encoding="utf-8") as log:
        text = log.read()
    for word in SECRET, base64.b64encode(SECRET.encode()).decode(), server.mark:
        expect(word not in text, f"the log has {word}")


def silence_about_the_hidden():
    """What is hidden, or missing, or granted, is no denial; the log tells no more than the answer."""
    with Server("--log-level", "info", env={"BAILEY_TEST_SECRET": SECRET}) as server, server.client() as client:
        ws = workspace(server)
        sandbox = hiding_sandbox_of(ws)
        for method, path in (("fs/readFile", f"{server.dir}/out/f"), ("fs/readFile", f"{server.dir}/out/none"),
                             ("fs/getMetadata", f"{server.dir}/out"), ("fs/readFile", f"{ws}/none")):
            code = refused(client, method, {"path": path}, sandbox).code
            expect(code == -32004, f"{method} {path}: {code}")
        method, params = write(ws + "/new")
        client.call(method, {**params, "sandbox": sandbox})
        client.call("fs/readFile", {"path": f"{ws}/deny/f", "sandbox": sandbox})
        expect(lines(server, "denied") == [], "no line about any of them")
        refused(client, *write(f"{server.dir}/out/f"), sandbox)
        expect(len(lines(server, "denied")) == 1, "the twin is one")
        gives_nothing_away(server)


def quiet_by_default():
    with Server() as server, server.client() as client:
        ws = workspace(server)
        refused(client, *write(f"{server.dir}/out/f"), sandbox_of(ws))
        expect(lines(server, "denied") == [], "at level warn")


def refused_starts():
    """A start that fails is one line: which process, and why. A grant through a planted link is refused."""
    with Server("--log-level", "info") as server, server.client() as client:
        ws = workspace(server)
        env = {**server.env(), "SECRET": SECRET}
        command = ["/bin/sh", "-c", f"exit 0; {SECRET}"]
        try:
            client.start("first", command, cwd=ws, env=env, sandbox=wall(ws))
        except RpcError as error:
            refuses_walls(error)
        client.notification("process/closed", "first")
        expect(lines(server, "process-failed") == [], "what starts has not failed")
        os.symlink(server.dir + "/out", ws + "/planted")
        client.fails("process/start", {"processId": "second", "argv": command, "cwd": ws, "env": env, "tty": False,
                                       "sandbox": wall(ws + "/planted")}, "planted")
        client.fails("process/start", {"processId": "third", "argv": ["/nonexistent", SECRET], "cwd": ws, "env": env,
                                       "tty": False, "sandbox": wall(ws)}, "No such file or directory")
        found = lines(server, "process-failed")
        expect(len(found) == 2, f"two lines, not {found}")
        for line, process, why in zip(found, ("second", "third"), ("planted", "/nonexistent")):
            expect(re.search(rf'process-failed session={client.session} process="{process}" reason=".*{why}.*"$', line),
                   line)
        gives_nothing_away(server)


run([(f"sandboxDenied: {name}", lambda name=name: program(name)) for name in PROGRAMS] + [
    ("a refused request is one line of the log", audit_lines),
    ("a hidden file is none", silence_about_the_hidden),
    ("refusals are logged at level info", quiet_by_default),
    ("a refused start of a process is one line, with the reason", refused_starts),
])
