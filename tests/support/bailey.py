"""A real server and a client that blocks, for black-box tests; standard library only.

The client does exactly what it is told: it reads only inside of its methods, so one that is not called is a client
that has stalled. Everything a test starts carries the server's mark in its environment, by which what has been left
behind is found.
"""

import base64
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid

sys.dont_write_bytecode = True

from cases import PATIENCE_S, Failure, Skip, checked, expect, holds, outcome, run, until  # noqa: E402,F401
from frames import CLOSE, PING, PONG, TEXT, accept_of, frame, new_key  # noqa: E402
from plain_http import UPGRADE, exchange, read_answer  # noqa: E402,F401

BAILEY = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(f"{error['code']} {error['message']}")
        self.code = error["code"]
        self.message = error["message"]
        self.data = error.get("data")


class Closed(Exception):
    """The connection has ended; code 1006 when without a close frame."""

    def __init__(self, code, reason=""):
        super().__init__(f"closed, code {code} {reason}")
        self.code = code
        self.reason = reason


class Refused(Exception):
    """The upgrade was answered with something else than 101."""

    def __init__(self, status, body):
        super().__init__(f"HTTP status {status} {body}")
        self.status = status
        self.body = body


# ---- the client


class Client:
    def __init__(self, url, path="/", timeout=PATIENCE_S, rcvbuf=None, headers=()):
        host, port = url.removeprefix("ws://").rstrip("/").rsplit(":", 1)
        self.sock = socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.timeout = timeout
        self.sock.settimeout(timeout)
        self.sock.connect((host.strip("[]"), int(port)))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.largest_frame = 0
        self.answers = {}
        self.notifications = []
        self.next_id = 1
        self.session = None
        self.environment = None
        self.upgrade(host, path, headers)

    def upgrade(self, host, path, headers):
        key = new_key()
        more = "".join(header + "\r\n" for header in headers)
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n".encode())
        while b"\r\n\r\n" not in self.buffer:
            self.fill(len(self.buffer) + 1)
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        self.buffer = bytearray(rest)
        status = int(head.split(b" ")[1])
        if status != 101:
            self.sock.close()
            raise Refused(status, rest.decode("utf-8", "replace"))
        expect(accept_of(key).encode() in head, "the upgrade was not answered for this key")

    # ---- bytes

    def fill(self, n):
        while len(self.buffer) < n:
            data = self.sock.recv(1 << 20)
            if not data:
                raise Closed(1006)
            self.buffer += data

    def take(self, n):
        self.fill(n)
        data = bytes(self.buffer[:n])
        del self.buffer[:n]
        return data

    def receive_frame(self):
        first, second = self.take(2)
        n = second & 0x7F
        if n == 126:
            n = struct.unpack("!H", self.take(2))[0]
        elif n == 127:
            n = struct.unpack("!Q", self.take(8))[0]
        self.largest_frame = max(self.largest_frame, n)
        return first & 0x80, first & 0x0F, self.take(n)

    def receive(self):
        """The next message, parsed."""
        parts = []
        end = time.monotonic() + self.timeout
        while True:
            fin, opcode, data = self.receive_frame()
            if time.monotonic() > end:
                raise TimeoutError("nothing came but pings")
            if opcode == PING:
                self.sock.sendall(frame(PONG, data))
            elif opcode == CLOSE:
                code = struct.unpack("!H", data[:2])[0] if data else 1005
                raise Closed(code, data[2:].decode())
            elif opcode != PONG:
                parts.append(data)
                if fin:
                    return json.loads(b"".join(parts))

    # ---- messages

    @staticmethod
    def text(message):
        return json.dumps(message, separators=(",", ":")).encode()

    def request(self, method, params):
        """(id, frame) of a request that is not sent yet; `params` may be anything."""
        number = self.next_id
        self.next_id += 1
        return number, frame(TEXT, self.text({"id": number, "method": method, "params": params}))

    def send(self, method, params=None):
        number, data = self.request(method, params)
        self.sock.sendall(data)
        return number

    def send_together(self, *requests):
        """Several (method, params) in one segment, as far as TCP goes; their ids."""
        made = [self.request(method, params) for method, params in requests]
        self.sock.sendall(b"".join(data for _, data in made))
        return [number for number, _ in made]

    def notify(self, method, params=None):
        self.sock.sendall(frame(TEXT, self.text({"method": method, "params": params or {}})))

    def take_message(self):
        message = self.receive()
        expect(not ("id" in message and "method" in message), "the server sent a request, which no client survives")
        if "id" in message:
            self.answers[message["id"]] = message
        else:
            self.notifications.append(message)
        return message

    def whole_answer(self, number):
        """{"result": ...} or {"error": ...}, with the id."""
        while number not in self.answers:
            self.take_message()
        return self.answers.pop(number)

    def ask(self, method, params=None):
        return self.whole_answer(self.send(method, params))

    def answer(self, number):
        """The result of a request; RpcError when it failed."""
        message = self.whole_answer(number)
        if "error" in message:
            raise RpcError(message["error"])
        return message["result"]

    def call(self, method, params=None):
        return self.answer(self.send(method, params))

    def fails(self, method, params, text):
        """The code of the error, whose message must contain `text`."""
        try:
            result = self.call(method, params)
        except RpcError as error:
            expect(text in error.message, f"{method}: '{error.message}' does not say '{text}'")
            return error.code
        raise Failure(f"{method} succeeded: {str(result)[:200]}")

    def ping(self):
        """Waits for the pong; what else comes is kept."""
        self.sock.sendall(frame(PING, b"test"))
        while True:
            fin, opcode, data = self.receive_frame()
            if opcode == PONG:
                return
            if opcode == PING:
                self.sock.sendall(frame(PONG, data))
                continue
            expect(opcode == TEXT and fin, "a whole message")
            message = json.loads(data)
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self.notifications.append(message)

    def notification(self, method, process=None):
        """The next such notification, taken out of those that came."""
        while True:
            for message in self.notifications:
                if message["method"] == method and process in (None, message["params"].get("processId")):
                    self.notifications.remove(message)
                    return message["params"]
            self.take_message()

    def closed(self):
        """Reads until the connection ends; the code."""
        try:
            while True:
                self.take_message()
        except Closed as end:
            return end.code
        except ConnectionResetError:
            return 1006

    # ---- what the protocol does

    def initialize(self, resume=None):
        params = {"clientName": "test"}
        if resume:
            params["resumeSessionId"] = resume
        welcome = self.call("initialize", params)
        self.session, self.environment = welcome["sessionId"], welcome.get("environmentInfo")
        self.notify("initialized")
        return self

    def start(self, process, argv, **more):
        params = {"processId": process, "argv": argv, "cwd": "/", "env": dict(os.environ), "tty": False, **more}
        return self.call("process/start", params)

    def read(self, process, **more):
        return self.call("process/read", {"processId": process, **more})

    def write(self, process, data, **more):
        chunk = base64.b64encode(data).decode()
        return self.call("process/write", {"processId": process, "chunk": chunk, **more})["status"]

    def run(self, argv, cwd="/", sandbox=None):
        """A program to its end: (exit code, all it wrote)."""
        process, seq, output = f"run-{self.next_id}", 0, b""
        self.start(process, argv, cwd="file://" + cwd, env={"PATH": "/usr/bin:/bin"}, sandbox=sandbox)
        while True:
            read = self.read(process, afterSeq=seq, waitMs=20000)
            output += b"".join(base64.b64decode(chunk["chunk"]) for chunk in read["chunks"])
            seq = read["nextSeq"] - 1
            if read["closed"]:
                return read["exitCode"], output.decode("utf-8", "replace")

    def read_file(self, path, sandbox=None):
        answer = self.call("fs/readFile", {"path": "file://" + path, "sandbox": sandbox})
        return base64.b64decode(answer["dataBase64"]).decode()

    def write_file(self, path, text, sandbox=None):
        self.call("fs/writeFile", {"path": "file://" + path, "sandbox": sandbox,
                                   "dataBase64": base64.b64encode(text.encode()).decode()})

    def walls(self):
        """What the server can enforce; it serves before it has found out."""
        while "sandbox" not in self.environment:
            self.environment = self.call("environment/info", {})
        return self.environment["sandbox"]

    def drop(self):
        """Ends the TCP connection at once, without a word."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def wall(directory, network="restricted"):
    """A sandbox in which everything can be read and `directory` be written."""
    uri = "file://" + directory

    def special(kind, access):
        return {"path": {"type": "special", "value": {"kind": kind}}, "access": access}

    return {"permissions": {"type": "managed", "network": network, "file_system": {
                "type": "restricted", "entries": [special("root", "read"), special("project_roots", "write")]}},
            "cwd": uri, "workspaceRoots": [uri], "windowsSandboxLevel": "disabled"}


# ---- the server


def stat_of(pid):
    """(parent, start time) of a process, None when it has gone or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[19]))


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def marked(mark):
    """Processes with the mark in their environment or arguments."""
    found = []
    for pid in pids():
        for name in ("environ", "cmdline"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as f:
                    if mark.encode() in f.read() and stat_of(pid):
                        found.append(pid)
                        break
            except OSError:
                pass
    return found


def descendants(root):
    """{(pid, start time)} of everything below a process."""
    known = {pid: stat for pid in pids() if (stat := stat_of(pid))}
    below, wave = set(), {root}
    while wave:
        wave = {pid for pid, (parent, _) in known.items() if parent in wave}
        below |= {(pid, known[pid][1]) for pid in wave}
    return below


def alive(processes):
    """Those of a set of descendants() that still run."""
    return {(pid, since) for pid, since in processes if (stat := stat_of(pid)) and stat[1] == since}


def written(pid):
    """Bytes a process has written so far; None when it has gone."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as f:
            return int(f.read().split("wchar: ")[1].split()[0])
    except OSError:
        return None


def state_of(pid):
    with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
        return f.read().rpartition(")")[2].split()[0]


def await_block(pid):
    """Until a process that does nothing but write sleeps in a write, for a while; what it has written by then."""
    seen = []

    def is_blocked():
        seen.append(written(pid))
        del seen[:-20]
        return len(seen) == 20 and seen[0] and len(set(seen)) == 1 and state_of(pid) == "S"

    until(is_blocked, "a process to be held up")
    return seen[0]


def as_user(user):
    """Arguments of subprocess.Popen."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def landlock_abi():
    """What the kernel has, 0 without Landlock. Programs on the second rung take 6."""
    said = subprocess.run([BAILEY, "doctor", "--json"], capture_output=True, text=True, check=False)
    return json.loads(said.stdout)["landlock"]


def without_first_rung(*under):
    """Why a program gets no wall of the first rung here, or None; `under`: words in front of the command."""
    said = subprocess.run([*under, BAILEY, "doctor", "--json"], capture_output=True, text=True, check=False)
    told = next(p for p in json.loads(said.stdout)["policies"] if p["id"] == "programs-write")
    return None if told["rung"] == 1 else told.get("refusal", f"rung {told['rung']}")


def start_fails(*options):
    """A server that is not expected to start, when it has ended."""
    return subprocess.run([BAILEY, "exec-server", *options], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE_S, check=False)


SANITIZER_STATUS = (-signal.SIGABRT, 23)  # an error with abort_on_error=1, leaks


class Server:
    """exec-server in a process and a directory of its own."""

    def __init__(self, *options, listen="ws://127.0.0.1:0", stdin=subprocess.DEVNULL, under=(), env=None,
                 binary=None, user=None):
        """`under`: words in front of the command; `env`: more variables; `user`: who it becomes."""
        binary = binary or BAILEY  # as it is now: ground.py puts a copy in its place
        self.mark = "mark-" + uuid.uuid4().hex
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="bailey-test-", dir="/var/tmp"))
        os.chmod(self.dir, 0o755)
        environment = {k: v for k, v in os.environ.items() if k != "TMPDIR"} | (env or {})
        self.log = open(os.path.join(self.dir, "log"), "w+b")
        self.process = subprocess.Popen([*under, binary, "exec-server", "--listen", listen, *map(str, options)],
                                        cwd=self.dir, env=environment, stdin=stdin, stdout=subprocess.PIPE,
                                        stderr=self.log, **as_user(user))
        self.pid = self.process.pid
        self.url = self.process.stdout.readline().decode().strip()
        expect(self.url.startswith("ws://"), "the server did not start: " + self.said())

    def said(self):
        return self.log_text()[-4000:]

    def log_text(self):
        """Read by its name: the server's own place in the file stays where it is."""
        with open(self.log.name, "rb") as log:
            return log.read().decode("utf-8", "replace")

    def connect(self, **how):
        return Client(self.url, **how)

    def client(self, resume=None, **how):
        return Client(self.url, **how).initialize(resume)

    def env(self):
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "BAILEY_TEST_MARK": self.mark}

    def address(self):
        host, port = self.url.removeprefix("ws://").rstrip("/").rsplit(":", 1)
        return host.strip("[]").replace("0.0.0.0", "127.0.0.1"), int(port)

    def socket(self):
        """A TCP connection on which nothing has been said."""
        return socket.create_connection(self.address(), PATIENCE_S)

    def exchange(self, first_line, *headers):
        """(status, headers by lower-case name, body) of an HTTP request."""
        return exchange(self.address(), PATIENCE_S, first_line, *headers)

    def http(self, path):
        """The status of a GET."""
        return self.exchange("GET " + path)[0]

    def upgrade(self, *headers, path="/"):
        """The status of a request for a WebSocket, and the body unless that is 101."""
        status, _, body = self.exchange("GET " + path, *UPGRADE, *headers)
        return status, body

    def metrics(self, *headers):
        status, _, body = self.exchange("GET /metrics", *headers)
        expect(status == 200, f"/metrics: {status}")
        return body

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise Failure("the server does not end") from error

    def has_ended(self):
        return self.process.poll() is not None

    def stop(self):
        """Ends it at once, where SIGTERM would wait for what still runs; its status."""
        self.signal(signal.SIGINT)
        return self.wait()

    def n_fds(self):
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except PermissionError as error:
            raise Skip("only root may look at the server's descriptors") from error

    def memory(self):
        """Resident bytes."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descendants(self):
        return descendants(self.pid)

    def __enter__(self):
        return self

    def __exit__(self, failed=None, *_):
        """Ends it in an orderly way, so that a sanitizer has its say about leaks; its status counts."""
        try:
            # One that a test has ended may have any status but those of a sanitizer.
            was_ended = self.has_ended()
            status = self.process.returncode if was_ended else self.stop()
            fine = status not in SANITIZER_STATUS if was_ended else status == 0
            expect(failed or fine, f"the server ended with status {status}: {self.said()}")
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.log.close()
            shutil.rmtree(self.dir, ignore_errors=True)
