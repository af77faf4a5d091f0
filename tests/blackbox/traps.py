#!/usr/bin/env python3
"""The traps of tests/conformance/TRAPS.md that no other test covers: traps.py PATH-TO-BAILEY [CASE...]"""

import base64
import json
import os
import re
import sys

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(TESTS, "support"))

from bailey import RpcError, Server, Skip, expect, run, stat_of, until, wall  # noqa: E402

MIB = 1 << 20


def read(*path):
    with open(os.path.join(TESTS, *path), encoding="utf-8") as f:
        return f.read()


def table_is_complete():
    rows = re.findall(r"^\| (\d+) \| .* \| (`.*`) \|$", read("conformance", "TRAPS.md"), re.MULTILINE)
    expect([int(number) for number, _ in rows] == list(range(1, 33)), "32 rows in order")
    ids = set(re.findall(r'"id": ?"([AB]-[a-z0-9]+-\d+)"', read("conformance", "cases.json")))
    for number, tests in rows:
        for test in re.findall(r"`([^`]+)`", tests):
            file, colon, name = test.partition(": ")
            found = name in read(file) if colon else test in ids
            expect(found, f"trap {number}: there is no test {test}")
            if file == "blackbox/traps.py":
                expect(f"def {name}(" in read(file), f"trap {number}: {name} is no test")


def count_values(value):
    if isinstance(value, dict):
        return 1 + sum(map(count_values, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(count_values, value))
    return 1


def big_read():
    """20 MiB of file are 27 MiB of answer; clients take 16 MiB a frame."""
    with Server() as server, server.client() as client:
        path = server.dir + "/f"
        data = os.urandom(20 * MIB)
        with open(path, "wb") as f:
            f.write(data)
        expect(base64.b64decode(client.call("fs/readFile", {"path": path})["dataBase64"]) == data, "the file")
        expect(client.largest_frame <= 8 * MIB, f"a frame of {client.largest_frame} bytes")


def answer_above_the_limit():
    with Server() as server, server.client() as client:
        path = server.dir + "/f"
        with open(path, "wb") as f:
            f.truncate(51 * MIB)
        code = client.fails("fs/readFile", {"path": path}, "exceeds the limit of 67108864 bytes")
        expect(code == -32603, f"code {code}")
        expect(client.call("environment/status") == {"status": "ready"}, "the connection stays")


def answer_of_many_values():
    """The most a directory, and the most a process may give, are still a message for the client."""
    with Server() as server, server.client() as client:
        directory = server.dir + "/many"
        os.mkdir(directory)
        for i in range(50000):
            os.close(os.open(f"{directory}/{i}", os.O_CREAT | os.O_WRONLY, 0o600))
        entries = client.call("fs/readDirectory", {"path": directory})["entries"]
        expect(len(entries) == 50000 and count_values(entries) + 3 <= 262144, f"{count_values(entries)} values")
        options = {"maxDepth": 1, "maxDirectories": 1, "maxEntries": 50000, "followDirectorySymlinks": False}
        walked = client.call("fs/walk", {"path": directory, "options": options})
        expect(len(walked["entries"]) > 1000 and count_values(walked) + 2 <= 262144, f"{count_values(walked)} values")


def unknown_process():
    with Server() as server, server.client() as client:
        expect(client.write("p", b"x") == "unknownProcess", "process/write")
        expect(client.call("process/terminate", {"processId": "p"}) == {"running": False}, "process/terminate")
        expect(client.call("process/signal", {"processId": "p", "signal": "interrupt"}) == {}, "process/signal")


def write_in_wall(client, ws, path):
    try:
        client.call("fs/writeFile", {"path": path, "dataBase64": "eA==", "sandbox": wall(ws)})
    except RpcError as error:
        if "sandbox unavailable" in error.message:
            raise Skip(f"no sandbox here: {error}") from error
        expect(error.code in (-32600, -32004), str(error))
        return False
    return True


def dot_dot_and_the_wall():
    """One spelling, two meanings; each time what is judged is what is written."""
    with Server() as server, server.client() as client:
        ws = server.dir + "/ws"
        os.makedirs(ws + "/sub")
        os.symlink("/", ws + "/link")
        rows = [("/ws/sub/../f1", "/ws/f1", True), ("/ws/../f2", "/f2", False), ("/ws/sub/../../f3", "/f3", False),
                ("/ws//../f4", "/f4", False), ("/ws/link/../f5", "/ws/f5", True)]
        for path, place, allowed in rows:
            expect(write_in_wall(client, ws, server.dir + path) == allowed, f"{path}: not {allowed}")
            expect(os.path.exists(server.dir + place) == allowed, f"{path}: {place}")
        # In a URI the empty segment is one, and `..` takes just that away.
        expect(write_in_wall(client, ws, f"file://{server.dir}/ws//../f6"), "an empty segment in a URI")
        expect(os.path.exists(ws + "/f6") and not os.path.exists(server.dir + "/f6"), "which file it was")
        expect(not write_in_wall(client, ws, f"file://{server.dir}/ws/%2e%2e/f7"), "an escaped dot-dot")
        expect(not os.path.exists(server.dir + "/f7"), "nothing outside")


def workspace_of_form_a():
    with Server() as server, server.client() as client:
        policy = {"type": "workspace-write", "exclude_slash_tmp": True, "exclude_tmpdir_env_var": True}
        sandbox = {"sandboxPolicy": policy, "windowsSandboxLevel": "disabled"}
        outside = "/var/tmp/" + server.mark
        write = {"dataBase64": "eA==", "sandbox": sandbox}
        try:
            client.call("fs/writeFile", {"path": server.dir + "/f", **write})
        except RpcError as error:
            if "sandbox unavailable" in error.message:
                raise Skip(f"no sandbox here: {error}") from error
            raise
        code = client.fails("fs/writeFile", {"path": outside, **write}, "is not permitted by filesystem sandbox")
        expect(code == -32600 and not os.path.exists(outside), "nothing beside it")
        expect(os.path.exists(server.dir + "/f"), "the working directory is the workspace")


def handles_and_errors():
    with Server() as server, server.client() as client:
        with open(server.dir + "/f", "wb") as f:
            f.write(b"text")
        block = {"handleId": "h", "offset": 0}

        client.call("fs/open", {"handleId": "h", "path": server.dir + "/f"})
        client.fails("fs/writeBlock", {**block, "chunk": "eA=="}, "Bad file descriptor")
        code = client.fails("fs/readBlock", {**block, "len": 0}, "file read block length must be between")
        expect(code == -32600, f"code {code}")
        got = client.call("fs/readBlock", {**block, "len": 9})
        expect(got == {"chunk": "dGV4dA==", "eof": True}, "it is still there")
        client.call("fs/close", {"handleId": "h"})

        client.call("fs/open", {"handleId": "h", "path": server.dir + "/g", "mode": "replace"})
        client.fails("fs/readBlock", {**block, "len": 9}, "Bad file descriptor")
        code = client.fails("fs/readBlock", {**block, "len": 9}, "unknown file handle `h`")
        expect(code == -32004, f"code {code}")


# (method, parameters that are fine, members for which null is fine, members for which it is not)
NULLS = [
    ("process/start", {"processId": "p", "argv": ["/bin/true"], "cwd": "/", "env": {}, "tty": False},
     ["arg0", "envPolicy", "sandbox"], ["pipeStdin", "enforceManagedNetwork", "tty"]),
    ("fs/walk", {"path": "/var/tmp", "options": {"maxDepth": 0, "maxDirectories": 1, "maxEntries": 1,
                                                 "followDirectorySymlinks": False}},
     ["sandbox"], ["options.pruneHiddenDirectories", "options.followDirectorySymlinks"]),
    ("fs/open", {"handleId": "h", "path": "/etc/passwd"}, ["sandbox"], ["mode", "path"]),
    ("fs/createDirectory", {"path": "/var/tmp"}, ["recursive", "sandbox"], []),
    ("fs/remove", {"path": "/var/tmp/no-such-file"}, ["recursive", "force", "sandbox"], []),
    ("process/read", {"processId": "p"}, ["afterSeq", "maxBytes", "waitMs"], []),
]


def with_null(params, member):
    copy = json.loads(json.dumps(params))
    *parents, last = member.split(".")
    inner = copy
    for parent in parents:
        inner = inner[parent]
    inner[last] = None
    return copy


def null_for_a_default():
    for method, params, optional, defaulted in NULLS:
        for member in optional + defaulted:
            with Server() as server, server.client() as client:
                if method == "process/read":
                    client.start("p", ["/bin/true"])
                try:
                    client.call(method, with_null(params, member))
                    expect(member in optional, f"{method}: null is accepted for {member}")
                except RpcError as error:
                    expect(member in defaulted and error.code == -32602, f"{method}, {member}: {error}")


def no_requests_to_clients():
    """The client of these tests fails on every message with an id and a method; here it sees all kinds of traffic."""
    with Server("--ping-ms", 100) as server, server.client() as client:
        client.start("p", ["/bin/cat"], pipeStdin=True)
        client.write("p", b"x")
        client.notification("process/output", "p")
        client.call("fs/watchMissing", {"watchId": 1, "missing": [server.dir + "/none"]})
        client.call("fs/getMetadata", {"path": server.dir})
        client.call("process/terminate", {"processId": "p"})
        client.notification("process/closed", "p")
        client.ping()


def no_null_in_environment():
    """Also where there is little to tell."""
    for env in ({}, {"HOME": "", "SHELL": "", "PATH": "", "USER": ""}):
        with Server(env=env) as server, server.client() as other, server.connect() as client:
            other.walls()  # before it has found out it says less
            first = client.call("initialize", {"clientName": "t"})["environmentInfo"]
            client.notify("initialized")
            info = client.call("environment/info")
            expect(first == info, "both say the same")
            expect("null" not in json.dumps(info), f"null in {info}")
            expect({"shell", "cwd", "capabilities"} <= info.keys(), str(info))


def ignored_signals():
    """A server from a background job, or of nohup, ignores signals; its processes must not."""
    with Server(under=["/bin/sh", "-c", 'trap "" INT QUIT HUP PIPE USR1; exec "$0" "$@"']) as server:
        with server.client() as client:
            for tty in (False, True):
                client.start(f"p{tty}", ["/bin/sh", "-c", "grep -E '^Sig(Ign|Blk)' /proc/self/status"], tty=tty)
                client.notification("process/closed", f"p{tty}")
                said = b"".join(base64.b64decode(c["chunk"]) for c in client.read(f"p{tty}")["chunks"])
                expect(len(re.findall(rb"Sig(?:Ign|Blk):\s+0+\s", said)) == 2, str(said))
            client.start("loop", ["/bin/sh", "-c", "sleep 1000 & wait"])
            client.call("process/signal", {"processId": "loop", "signal": "interrupt"})
            client.start("c", ["/bin/cat"], tty=True)
            client.write("c", b"\x03")
            expect(client.notification("process/exited", "c")["exitCode"] == 130, "^C in a terminal")


def n_threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def parents_have_one_thread():
    """Who forks programs has no thread that could end, however busy the server's pool has been."""
    with Server() as server, server.client() as client:
        until(lambda: "sandbox" in client.call("environment/info"), "the walls have been tried")
        client.start("p", ["/bin/sleep", "1000"])
        for number in client.send_together(*[("fs/getMetadata", {"path": "/"})] * 100):
            client.answer(number)
        expect(n_threads(server.pid) > 1, "the server has a pool")
        family = {pid: stat_of(pid)[0] for pid, _ in server.descendants()}
        program = next(pid for pid in family if pid not in family.values())
        expect(family[program] != server.pid, "programs are not children of the server")
        for pid in family:
            expect(n_threads(pid) == 1, f"process {pid} has {n_threads(pid)} threads")
        expect(client.call("process/terminate", {"processId": "p"}) == {"running": True}, "it still runs")


def everything_is_answered():
    """Whatever is asked, in whatever state; nothing here needs to make sense, but everything gets its answer."""
    methods = sorted(set(re.findall(r'"method":"([a-zA-Z]+/[a-zA-Z0-9]+)"', read("conformance", "cases.json"))))
    expect(len(methods) > 20, "the methods of the cases")
    junk = [None, {}, [], "x", 1, {"path": "/"}, {"path": "/nope/"}, {"processId": "p"}, {"handleId": "h"},
            {"path": "/", "sandbox": {}}, {"path": "/etc/", "sandbox": wall("/var/tmp/")},
            {"processId": "p", "waitMs": 0}, {"processId": "p", "chunk": "eA=="}]
    with Server() as server:
        for ready in (False, True):
            with server.client() if ready else server.connect() as client:
                numbers = []
                for method in methods:
                    for params in junk:
                        if (method, params) == ("fs/remove", {"path": "/"}):
                            continue
                        numbers.append(client.send(method, params))
                for number in numbers:
                    try:
                        client.answer(number)
                    except RpcError as error:
                        expect(error.message, "an error says something")


def environment_takes_nothing():
    with Server() as server, server.client() as client:
        for method in ("environment/info", "environment/status"):
            for params in ({"a": 1}, [], "x", 0, False):
                number = client.send(method, params)
                try:
                    client.answer(number)
                    raise ValueError(f"{method} accepted {params}")
                except RpcError as error:
                    expect(error.code == -32602, str(error))


run([
    ("every trap has a test", table_is_complete),
    ("4, 30: a big read comes in frames the client takes", big_read),
    ("30: an answer above the limit is an error", answer_above_the_limit),
    ("30: the largest lists have few enough values", answer_of_many_values),
    ("10: an unknown process is a result", unknown_process),
    ("13: dot-dot and the wall", dot_dot_and_the_wall),
    ("17: the workspace of form A", workspace_of_form_a),
    ("20: handles and errors", handles_and_errors),
    ("21: null for optional members and for defaults", null_for_a_default),
    ("22: the server sends no requests", no_requests_to_clients),
    ("23: no null in environmentInfo", no_null_in_environment),
    ("25: ignored signals stay with the server", ignored_signals),
    ("26: who forks has one thread", parents_have_one_thread),
    ("31: everything is answered", everything_is_answered),
    ("32: environment/info takes no members", environment_takes_nothing),
])
