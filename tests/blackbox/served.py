"""What the black-box tests share that talk to a running server over real sockets: the server, HTTP by hand, and a small
WebSocket client. Nothing here waits without a limit."""

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

PATIENCE = 30
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")


class Skip(Exception):
    """This machine, or this user, cannot run the case."""


class Directory:
    """Fresh, and gone afterwards."""

    def __enter__(self):
        self.path = os.path.realpath(tempfile.mkdtemp(prefix="bailey-test-", dir="/var/tmp"))
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def file(self, name, data, mode=0o600):
        path = os.path.join(self.path, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
            os.fchmod(f.fileno(), mode)
        return path


def run(binary, *options):
    """A server that is not expected to start."""
    return subprocess.run([binary, "exec-server", *options], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)


class Server:
    def __init__(self, binary, *options, stdin=subprocess.DEVNULL):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([binary, "exec-server", *options], stdin=stdin, stdout=subprocess.PIPE,
                                        stderr=self.log)

    def __enter__(self):
        self.url = self.process.stdout.readline().decode().strip()
        if not self.url:
            self.process.wait(PATIENCE)
            raise OSError("the server did not start: " + self.stderr())
        host, _, port = self.url.removeprefix("ws://").rpartition(":")
        self.address = (host.strip("[]").replace("0.0.0.0", "127.0.0.1"), int(port))
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE)
        self.process.stdout.close()
        self.log.close()

    def stderr(self):
        self.log.seek(0)
        return self.log.read().decode()

    def connect(self):
        return socket.create_connection(self.address, timeout=PATIENCE)

    def http(self, first_line, *headers):
        """(status, headers by lower-case name, body)."""
        with self.connect() as s:
            s.sendall("\r\n".join([first_line + " HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1"))
            return read_answer(s)

    def upgrade(self, *headers, path="/"):
        """The status, and the body unless that is 101."""
        status, _, body = self.http("GET " + path, *UPGRADE, *headers)
        return status, body

    def metrics(self, *headers):
        status, _, body = self.http("GET /metrics", *headers)
        assert status == 200, status
        return body


def read_answer(s):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = s.recv(65536)
        if not piece:
            raise OSError("the connection ended without an answer")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(first.split(" ")[1])
    while status != 101 and (piece := s.recv(65536)):
        body += piece
    return status, headers, body.decode() if status != 101 else ""


class Client:
    """JSON-RPC over WebSocket; answers are looked up by id, everything else is kept in `notes`."""

    def __init__(self, server, *headers):
        self.socket = server.connect()
        self.data = b""
        self.next_id = 0
        self.notes = []
        self.socket.sendall("\r\n".join(["GET / HTTP/1.1", *UPGRADE, *headers, "", ""]).encode())
        while b"\r\n\r\n" not in self.data:
            self.more()
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise OSError(head.decode("latin-1"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def more(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise OSError("the connection ended")
        self.data += piece

    def take(self, n):
        while len(self.data) < n:
            self.more()
        taken, self.data = self.data[:n], self.data[n:]
        return taken

    def send(self, message):
        data = json.dumps(message).encode()
        head = struct.pack("!BBH", 0x81, 0xfe, len(data)) if len(data) > 125 else bytes([0x81, 0x80 | len(data)])
        self.socket.sendall(head + b"\0\0\0\0" + data)

    def receive(self):
        """The next message; None when the server closes."""
        while True:
            first, size = self.take(2)
            if size == 126:
                size, = struct.unpack("!H", self.take(2))
            elif size == 127:
                size, = struct.unpack("!Q", self.take(8))
            data = self.take(size)
            if first & 15 == 1:
                return json.loads(data)
            if first & 15 == 8:
                return None

    def call(self, method, params=None):
        """The answer: {"result": ...} or {"error": ...}."""
        self.next_id += 1
        self.send({"id": self.next_id, "method": method, "params": params})
        while (message := self.receive()) is not None:
            if message.get("id") == self.next_id:
                return message
            self.notes.append(message)
        raise OSError("the server closed the connection")

    def wait_for(self, method):
        """The params of the next notification of that kind, or of one that has come already."""
        while True:
            for note in self.notes:
                if note["method"] == method:
                    self.notes.remove(note)
                    return note["params"]
            message = self.receive()
            if message is None:
                raise OSError("the server closed the connection")
            self.notes.append(message)

    def handshake(self, **more):
        answer = self.call("initialize", {"clientName": "test", **more})
        self.send({"method": "initialized"})
        return answer

    def start(self, process_id, *argv, **more):
        return self.call("process/start", {"processId": process_id, "argv": argv, "cwd": "/", "env": {}, "tty": False,
                                           **more})


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main(cases):
    """Runs (name, function) pairs: a line a case, and 'N passed, N failed' last."""
    passed = failed = skipped = 0
    for name, case in cases:
        try:
            good = case()
        except Skip as reason:
            print(f"skip {name}: {reason}", flush=True)
            skipped += 1
            continue
        except (AssertionError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as e:
            print(f"     {type(e).__name__}: {e}")
            good = False
        passed += bool(good)
        failed += not good
        print(("ok   " if good else "FAIL ") + name, flush=True)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed else 0)
