"""A real server and a client that blocks, for black-box tests; standard library only.

The client does exactly what it is told: it reads only inside of its methods, so one that is not called is a client
that has stalled. Everything a test starts carries the server's mark in its environment, by which what has been left
behind is found.
"""

import base64
import concurrent.futures
import hashlib
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

BAILEY = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None
PATIENCE_S = 60
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Failure(Exception):
    """The server did not do what the test wants."""


class Skip(Exception):
    """This machine cannot run the test."""


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(f"{error['code']} {error['message']}")
        self.code = error["code"]
        self.message = error["message"]


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


def expect(condition, what):
    if not condition:
        raise Failure(what)


def until(predicate, what, seconds=PATIENCE_S, every_s=0.01):
    """Waits for something that announces itself in no other way; returns what `predicate` gave."""
    end = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure("waited in vain for: " + what)
        time.sleep(every_s)


# ---- the client


def mask(data, key):
    n = len(data)
    stream = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(n, "little")


def frame(opcode, data, fin=True):
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(data) < 126:
        head += bytes([0x80 | len(data)])
    elif len(data) < 65536:
        head += struct.pack("!BH", 0x80 | 126, len(data))
    else:
        head += struct.pack("!BQ", 0x80 | 127, len(data))
    key = os.urandom(4)
    return head + key + mask(data, key)


class Client:
    def __init__(self, url, path="/", timeout=PATIENCE_S, rcvbuf=None):
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
        self.upgrade(host, path)

    def upgrade(self, host, path):
        key = base64.b64encode(os.urandom(16))
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n\r\n".encode())
        while b"\r\n\r\n" not in self.buffer:
            self.fill(len(self.buffer) + 1)
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        self.buffer = bytearray(rest)
        status = int(head.split(b" ")[1])
        if status != 101:
            self.sock.close()
            raise Refused(status, rest.decode("utf-8", "replace"))
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        expect(accept in head, "the upgrade was not answered for this key")

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

    def answer(self, number):
        """The result of a request; RpcError when it failed."""
        while number not in self.answers:
            self.take_message()
        message = self.answers.pop(number)
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
        self.session = self.call("initialize", params)["sessionId"]
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


class Server:
    """exec-server in a process and a directory of its own."""

    def __init__(self, *options, listen="ws://127.0.0.1:0", stdin=subprocess.DEVNULL, under=(), env=None):
        """`under`: words in front of the command; `env`: more variables."""
        self.mark = "mark-" + uuid.uuid4().hex
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="bailey-test-", dir="/var/tmp"))
        os.chmod(self.dir, 0o755)
        environment = {k: v for k, v in os.environ.items() if k != "TMPDIR"} | (env or {})
        self.log = open(os.path.join(self.dir, "log"), "w+b")
        self.process = subprocess.Popen([*under, BAILEY, "exec-server", "--listen", listen, *map(str, options)],
                                        cwd=self.dir, env=environment, stdin=stdin, stdout=subprocess.PIPE,
                                        stderr=self.log)
        self.pid = self.process.pid
        self.url = self.process.stdout.readline().decode().strip()
        expect(self.url.startswith("ws://"), "the server did not start: " + self.said())

    def said(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")[-4000:]

    def connect(self, **how):
        return Client(self.url, **how)

    def client(self, resume=None, **how):
        return Client(self.url, **how).initialize(resume)

    def env(self):
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "BAILEY_TEST_MARK": self.mark}

    def http(self, path):
        """The status of a GET."""
        host, port = self.url.removeprefix("ws://").rsplit(":", 1)
        with socket.create_connection((host, int(port)), PATIENCE_S) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            return int(sock.makefile("rb").readline().split()[1])

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
        """Ends it at once; its status."""
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

    def __exit__(self, *_):
        if not self.has_ended():
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


# ---- running cases


def outcome(case):
    """("ok" | "FAIL" | "skip", why)"""
    try:
        case()
    except Skip as skip:
        return "skip", str(skip)
    except (Failure, RpcError, Closed, Refused, OSError, ValueError, KeyError, IndexError) as error:
        return "FAIL", f"{type(error).__name__}: {error}"
    return "ok", ""


def run(cases, jobs=4):
    """Runs [(name, function)], several at a time, and exits: 1 when one failed, 77 when all were skipped."""
    names = sys.argv[2:]
    cases = [(name, case) for name, case in cases if not names or any(n in name for n in names)]
    count = {"ok": 0, "FAIL": 0, "skip": 0}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for (name, _), (word, why) in zip(cases, pool.map(lambda c: outcome(c[1]), cases)):
            count[word] += 1
            print(f"{word:4} {name}" + (f"\n     {why}" if why else ""), flush=True)
    print(f"{count['ok']} passed, {count['FAIL']} failed, {count['skip']} skipped")
    sys.exit(1 if count["FAIL"] else 77 if count["skip"] and not count["ok"] else 0)
