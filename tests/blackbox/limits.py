#!/usr/bin/env python3
"""Reaches every limit: limits.py PATH-TO-BAILEY [OPTION...]

One row for each limit of `bailey exec-server --help`: a small value, and what happens when it is reached. A limit
without a row, and a row without a limit, are failures.
"""

import base64
import os
import re
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import (BAILEY, PING, Closed, Refused, RpcError, Server, Skip, await_block, expect,  # noqa: E402
                    marked, pids, run, stat_of, until, wall)
from web import Web, deaf_port  # noqa: E402


def b64(data):
    return base64.b64encode(data).decode()


def echo(client, lines):
    """A process that repeats its input; each line is a chunk of its own."""
    client.start("p", ["/bin/cat"], pipeStdin=True)
    for i in range(lines):
        client.write("p", b"%d\n" % i)
        client.notification("process/output", "p")


def message_bytes(server, client):
    client.call("fs/writeFile", {"path": server.dir + "/f", "dataBase64": b64(bytes(1000))})
    client.send("fs/writeFile", {"path": server.dir + "/f", "dataBase64": b64(bytes(4096))})
    expect(client.closed() == 1009, "close code 1009")


def line_bytes(_server, _client):
    """On stdin: a longer line ends session and server."""
    line = b'{"id":1,"method":"initialize","params":{"clientName":"t"}}\n'
    r = subprocess.run([BAILEY, "exec-server", "--listen", "stdio", "--max-line-bytes", "1024"],
                       input=line + b'{"id":2,"padding":"' + b"x" * 1024 + b'"}\n' + line, capture_output=True,
                       check=False, timeout=60)
    expect(r.returncode == 0, f"status {r.returncode}")
    expect(r.stdout.count(b"\n") == 1 and b"sessionId" in r.stdout, f"only what came before it is answered: {r.stdout}")


def plain_message_bytes(server, client):
    client.call("fs/writeFile", {"path": server.dir + "/f", "dataBase64": b64(bytes(4096))})
    client.send("fs/getMetadata", {"path": server.dir, "padding": "x" * 4096})
    expect(client.closed() == 1009, "close code 1009")


def reply_bytes(server, client):
    path = server.dir + "/f"
    client.call("fs/writeFile", {"path": path, "dataBase64": b64(bytes(4096))})
    code = client.fails("fs/readFile", {"path": path}, "exceeds the limit of 4096 bytes")
    expect(code == -32603, f"code {code}")


def connections(server, client):
    with server.connect():
        try:
            server.connect()
        except Refused as refused:
            expect(refused.status == 503, f"status {refused.status}")
        else:
            expect(False, "a third connection")
        expect(server.http("/readyz") == 503, "/readyz")
    until(lambda: server.http("/readyz") == 200, "room again")
    client.call("environment/status")


def sessions(server, _client):
    with server.connect() as second:
        code = second.fails("initialize", {"clientName": "t"}, "at most 1 sessions are kept")
        expect(code == -32603, f"code {code}")


def processes(_server, client):
    client.start("p", ["/bin/sleep", "1000"])
    start = {"processId": "q", "argv": ["/bin/true"], "cwd": "/", "env": {}, "tty": False}
    code = client.fails("process/start", start, "a session has at most 1 processes")
    expect(code == -32603, f"code {code}")


def requests_in_flight(server, client):
    """Two writes that wait; what is sent behind them is not read before they are answered."""
    fifo = server.dir + "/fifo"
    os.mkfifo(fifo)
    client.start("p", ["/bin/sh", "-c", f"read x < {fifo}"], pipeStdin=True)
    waiting = [client.send("process/write", {"processId": "p", "chunk": b64(bytes(1100000))}) for _ in range(3)]
    with server.client() as other:
        for _ in range(20):
            other.ping()  # by now it has read those, and stopped
        status = client.send("environment/status")
        for _ in range(20):
            other.ping()
        client.sock.settimeout(0.2)
        try:
            while True:
                expect(client.take_message()["id"] == waiting[0], "only the write that had room is answered")
        except TimeoutError:
            pass
    client.sock.settimeout(60)
    with open(fifo, "w", encoding="ascii") as f:
        f.write("\n")
    for number in waiting:
        client.answer(number)
    expect(status not in client.answers, "the last one was not even read")
    client.answer(status)


def concurrent_requests(server, client):
    for i in range(1000):
        with open(f"{server.dir}/{i}", "w", encoding="ascii"):
            pass
    options = {"maxDepth": 1, "maxDirectories": 1, "maxEntries": 50000, "followDirectorySymlinks": False}
    numbers = client.send_together(*[("fs/walk", {"path": server.dir, "options": options}),
                                     ("fs/getMetadata", {"path": server.dir})] * 20)
    order = [client.take_message()["id"] for _ in numbers]
    expect(order == numbers, "one after the other")


def output_queue_bytes(server, _client):
    """With the default it would be at least 6 MiB: so much output fits into the queue as base64."""
    with server.client(rcvbuf=4096) as stalled:
        stalled.start("p", ["/bin/cat", "/dev/zero"], env=server.env())
        pid = until(lambda: marked(server.mark), "the process")[0]
        expect(await_block(pid) < 6 << 20, "it was held up too late")


def retained_bytes(_server, client):
    client.start("p", ["/bin/sh", "-c", "seq 1 20000"])
    client.notification("process/closed", "p")
    kept = b"".join(base64.b64decode(c["chunk"]) for c in client.read("p")["chunks"])
    expect(0 < len(kept) <= 4096 and kept.endswith(b"\n20000\n"), f"{len(kept)} bytes are kept")


def retained_chunks(_server, client):
    echo(client, 40)
    seqs = [chunk["seq"] for chunk in client.read("p")["chunks"]]
    expect(seqs == list(range(25, 41)), f"kept: {seqs}")


def stdin_bytes(_server, client):
    """A chunk goes in whatever its size when there is room; the one behind it waits, and its answer with it."""
    client.start("p", ["/bin/sleep", "1000"], pipeStdin=True)
    client.write("p", bytes(100000))
    number = client.send("process/write", {"processId": "p", "chunk": b64(bytes(100000))})
    client.call("environment/status")
    expect(number not in client.answers, "it waits")
    client.call("process/terminate", {"processId": "p"})
    expect(client.answer(number)["status"] == "stdinClosed", "until there is nobody to wait for")


def file_handles(_server, client):
    client.call("fs/open", {"handleId": "a", "path": "/etc/passwd"})
    code = client.fails("fs/open", {"handleId": "b", "path": "/etc/passwd"}, "at most 1 file handles may be open")
    expect(code == -32600, f"code {code}")


def missing_watches(_server, client):
    """The root counts once for every path right below it."""
    missing = ["/bailey-missing-1", "/bailey-missing-2"]
    few = client.call("fs/watchMissing", {"watchId": 1, "missing": missing[:1]})
    many = client.call("fs/watchMissing", {"watchId": 2, "missing": missing})
    expect(few["watching"] and not many["watching"], f"{few}, {many}")


def children(pid):
    return [child for child in pids() if (stat := stat_of(child)) and stat[0] == pid]


def helpers_of(server):
    """Processes below a spawner, which is what the launcher has for children."""
    launcher = children(server.pid)
    spawners = [pid for parent in launcher for pid in children(parent)]
    return [pid for parent in spawners for pid in children(parent)]


def look(client, server, name):
    """A request behind a wall of its own."""
    directory = os.path.join(server.dir, name)
    os.makedirs(directory, exist_ok=True)
    try:
        client.call("fs/getMetadata", {"path": directory, "sandbox": wall(directory)})
    except RpcError as error:
        if "sandbox unavailable" in error.message:
            raise Skip(f"no sandbox here: {error}") from error
        raise


def watched_directories(server):
    """As the kernel lists them; only root may look."""
    folder = f"/proc/{server.pid}/fdinfo"
    try:
        names = os.listdir(folder)
    except PermissionError as error:
        raise Skip("the server lets nobody but root look at its descriptors") from error
    count = 0
    for name in names:
        with open(os.path.join(folder, name), encoding="ascii") as f:
            count += sum(line.startswith("inotify wd:") for line in f)
    return count


def watches(server, client):
    """A wall that depends on more directories is looked at before each request instead."""
    def use(server, client):
        for _ in range(3):
            client.call("fs/getMetadata", {"path": server.dir, "sandbox": wall(server.dir)})
        return watched_directories(server)

    with Server() as other, other.client() as other_client:
        until(lambda: use(other, other_client) > 2, "directories are watched without this limit")
    expect(use(server, client) <= 2, "more directories are watched than allowed")


def helpers_per_session(server, client):
    """Without the limit there would be one for each of the policies."""
    for name in "abcdabcd":
        look(client, server, name)
        n = len(helpers_of(server))
        expect(n <= 2, f"{n} helpers")
    with Server() as twin, twin.client() as other:
        for name in "abcdabcd":
            look(other, twin, name)
        expect(len(helpers_of(twin)) == 4, "4 helpers without the limit")


def helpers(server, client):
    """The same for two sessions together."""
    with server.client() as other:
        for name in "aba":
            look(client, server, name)
            look(other, server, name)
            n = len(helpers_of(server))
            expect(n <= 1, f"{n} helpers")


def helper_idle_ms(server, client):
    look(client, server, "a")
    until(lambda: not helpers_of(server), "the end of an idle helper")
    look(client, server, "a")


def helper_op_ms(server, client):
    """A helper that does not get on is ended; the next request has a new one."""
    look(client, server, "a")
    for pid in helpers_of(server):
        os.kill(pid, signal.SIGSTOP)
    try:
        look(client, server, "a")
    except RpcError as error:
        expect(error.code == -32603, str(error))
    else:
        expect(False, "a stopped helper answered")
    look(client, server, "a")


def walled(client, server, process, program):
    """A Python program behind a wall. Where its bound cannot be enforced there is nothing to reach."""
    try:
        client.start(process, ["/usr/bin/python3", "-c", program], env=server.env(), sandbox=wall(server.dir))
    except RpcError as error:
        if "sandbox unavailable" in error.message:
            raise Skip(f"as it should be: {error}") from error
        raise


def walled_tasks(server, client):
    """More in bounds.py."""
    walled(client, server, "p", "import os, signal\nfor _ in range(50):\n  os.fork() or signal.pause()")
    client.notification("process/closed", "p")
    said = b"".join(base64.b64decode(c["chunk"]) for c in client.read("p")["chunks"])
    expect(b"BlockingIOError" in said, f"EAGAIN: {said}")


def walled_memory_bytes(server, client):
    walled(client, server, "p", "print(len(bytearray(200 << 20)))")
    expect(client.notification("process/exited", "p")["exitCode"] == 137, "SIGKILL")


def drain_ms(server, client):
    server.signal(signal.SIGTERM)
    expect(client.closed() == 1001, "close code 1001")
    expect(server.wait() == 0, "status 0")


def detach_ms(server, client):
    client.drop()

    def is_forgotten():
        with server.connect() as late:
            try:
                late.initialize(client.session)
            except RpcError as error:
                return "unknown session id" in error.message  # else its old connection is not known to have ended
            return False

    until(is_forgotten, "the session to be forgotten")


def finished_ms(_server, client):
    client.start("p", ["/bin/true"])
    client.notification("process/closed", "p")

    def is_forgotten():
        try:
            client.read("p")
        except RpcError as error:
            return "unknown process id p" in error.message
        return False

    until(is_forgotten, "the process to be forgotten")
    client.start("p", ["/bin/true"])


def handshake_ms(server, _client):
    host, port = server.url.removeprefix("ws://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), 60) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        try:
            expect(sock.recv(1000) == b"", "the end of a connection that does not come to the point")
        except ConnectionResetError:
            pass


def ping_ms(_server, client):
    for _ in range(3):
        _, opcode, data = client.receive_frame()
        expect(opcode == PING and data == b"", "an empty ping")


def silence_ms(_server, client):
    try:
        while True:
            client.receive_frame()  # and never an answer
    except (Closed, ConnectionResetError):
        pass


def probe_ms(server, client):
    def has_it():
        with server.connect() as other:
            try:
                return other.initialize(client.session)
            except RpcError as error:
                expect(error.code == -32010, str(error))
                return None

    until(has_it, "the session of a silent client", 20)


def poll_ms(_server, client):
    client.start("p", ["/bin/sleep", "1000"])
    expect(client.read("p", waitMs=86400000)["chunks"] == [], "an answer without news")


# option: (value, what reaches it, further options)
def http(url, **more):
    return {"requestId": "1", "method": "GET", "url": url, **more}


def http_requests(_server, client):
    with Web() as web:
        number = client.send("http/request", http(web.url("/drip?n=1")))
        client.call("http/request", http(web.url("/drip?n=1"), requestId="s", streamResponse=True))
        code = client.fails("http/request", http(web.url("/echo")),
                            "at most 2 http requests may be under way per connection")
        expect(code == -32603, f"code {code}")
        web.release(2)
        expect(client.answer(number)["status"] == 200, "the first")
        while not client.notification("http/request/bodyDelta")["done"]:
            pass
        expect(client.call("http/request", http(web.url("/echo")))["status"] == 200, "there is room again")


def http_body_bytes(_server, client):
    with Web() as web:
        result = client.call("http/request", http(web.url("/big?bytes=2000")))
        expect(len(base64.b64decode(result["bodyBase64"])) == 2000, "as much as may be")
        code = client.fails("http/request", http(web.url("/big?bytes=2001")),
                            "failed to read http/request response body: error decoding response body: it has more "
                            "than 2000 bytes, the limit without streamResponse")
        expect(code == -32603, f"code {code}")
        client.call("http/request", http(web.url("/big?bytes=9000"), streamResponse=True))
        total, last = 0, {"done": False}
        while not last["done"]:
            last = client.notification("http/request/bodyDelta")
            total += len(base64.b64decode(last["deltaBase64"]))
        expect(total == 9000 and last["error"] is None, "a stream has no limit")


def http_connect_ms(_server, client):
    listening, port = deaf_port()
    for more in ({}, {"streamResponse": True}):
        client.fails("http/request", http(f"http://127.0.0.1:{port}/", **more),
                     "http/request failed: error sending request")
    listening[0].close()


def http_request_ms(_server, client):
    with Web() as web:
        client.call("http/request", http(web.url("/drip?n=1"), requestId="s", streamResponse=True))
        for more in ({}, {"timeoutMs": 10 ** 9}):
            client.fails("http/request", http(web.url("/hang"), **more), "http/request failed: ")
        web.release()
        last = {"done": False}
        while not last["done"]:
            last = client.notification("http/request/bodyDelta")
        expect(last["error"] is None, "a stream may take longer")


ROWS = {
    "max-http-requests": (2, http_requests),
    "max-http-body-bytes": (2000, http_body_bytes),
    "http-connect-ms": (200, http_connect_ms),
    "http-request-ms": (200, http_request_ms),
    "max-message-bytes": (4096, message_bytes),
    "max-line-bytes": (1024, line_bytes),
    "max-plain-message-bytes": (4096, plain_message_bytes),
    "max-reply-bytes": (4096, reply_bytes),
    "max-connections": (2, connections),
    "max-sessions": (1, sessions),
    "max-processes": (1, processes),
    "max-requests-in-flight": (2, requests_in_flight),
    "concurrent-requests": (1, concurrent_requests),
    "max-output-queue-bytes": (65536, output_queue_bytes),
    "max-retained-bytes": (4096, retained_bytes),
    "max-retained-chunks": (16, retained_chunks),
    "max-stdin-bytes": (4096, stdin_bytes),
    "max-file-handles": (1, file_handles),
    "max-watches": (2, watches),
    "max-missing-watches": (1, missing_watches),
    "max-helpers-per-session": (2, helpers_per_session),
    "max-helpers": (1, helpers),
    "helper-idle-ms": (100, helper_idle_ms),
    "helper-op-ms": (2000, helper_op_ms),
    "max-walled-tasks": (20, walled_tasks),
    "max-walled-memory-bytes": (64 << 20, walled_memory_bytes),
    "drain-timeout": (100, drain_ms),
    "detach-ms": (0, detach_ms),
    "finished-ms": (100, finished_ms),
    "handshake-ms": (1000, handshake_ms),
    "ping-ms": (100, ping_ms),
    "silence-ms": (1500, silence_ms),
    "probe-ms": (50, probe_ms),
    "max-poll-ms": (100, poll_ms),
}


def help_text():
    return subprocess.run([BAILEY, "exec-server", "--help"], capture_output=True, text=True, check=True).stdout


def table():
    """{option: (default, smallest, largest)} as --help has it."""
    rows = re.findall(r"^  --([a-z-]+) N\n.* \((\d+); (\d+) to (\d+)\)$", help_text(), re.MULTILINE)
    return {option: tuple(map(int, numbers)) for option, *numbers in rows}


def every_limit_has_a_row():
    options = set(table())
    expect(len(options) > 20, "--help lists the limits")
    expect(options == set(ROWS), f"without a row: {options - set(ROWS)}; without a limit: {set(ROWS) - options}")


def every_limit_has_bounds():
    """What is outside of them is a usage error that names them; the bounds themselves are fine."""
    for option, (default, smallest, largest) in table().items():
        expect(smallest <= default <= largest, f"{option}: default {default}")
        for value in (largest + 1, smallest - 1, "-1", "x", "", " 5", "1e3", 1 << 70):
            r = subprocess.run([BAILEY, "exec-server", f"--{option}", str(value)], capture_output=True, text=True,
                               check=False, timeout=60)
            expect(r.returncode == 2 and f"--{option} wants a number from {smallest} to {largest}" in r.stderr,
                   f"--{option} {value}: status {r.returncode}, {r.stderr}")


def reach(option):
    value, function = ROWS[option]
    switch = ["--allow-http-request"] if "http-" in option else []
    with Server(f"--{option}", value, *switch) as server, server.client() as client:
        function(server, client)
        if function is not drain_ms:
            status = server.stop()
            expect(status == 0, f"it ends with {status}")


CASES = [("every limit has a row here", every_limit_has_a_row),
         ("every limit has bounds", every_limit_has_bounds)]
for name in ROWS:
    CASES.append((f"--{name}", lambda name=name: reach(name)))

run(CASES)
