"""What black-box tests in Python share: a yard to work in, servers, and a plain client for them."""

import base64
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from websocket import frame  # noqa: E402  (the frames of a client)

TIMEOUT = 60
NOBODY = 65534


class Yard:
    """A fresh directory, not below /tmp, which policies open; with copies of programs others may run."""

    def __init__(self, *programs):
        self.programs = programs

    def __enter__(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="bailey-yard-", dir="/var/tmp"))
        os.chmod(self.dir, 0o755)
        self.bin = self.path("bin")
        os.mkdir(self.bin)
        for program in self.programs:
            shutil.copy(program, self.bin)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def program(self, name):
        return os.path.join(self.bin, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def give_to(self, user):
        """All of it, so that only walls are in the way of that user."""
        for directory, _, files in os.walk(self.dir):
            os.chown(directory, user, user)
            for name in files:
                os.chown(os.path.join(directory, name), user, user)


def as_user(user):
    """Arguments of subprocess.Popen."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


class Refused(Exception):
    """An error answer."""

    def __init__(self, error):
        super().__init__(f"{error['code']} {error['message']}")
        self.code, self.message, self.data = error["code"], error["message"], error.get("data")


class Client:
    def __init__(self, url):
        host, port = re.fullmatch(r"ws://([0-9.]+):(\d+)", url).groups()
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT)
        self.file = self.socket.makefile("rb")
        self.next_id = 0
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
                             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                             f"Sec-WebSocket-Key: {key}\r\n\r\n").encode())
        while self.file.readline() not in (b"\r\n", b""):
            pass
        self.environment = self.call("initialize", {"clientName": "test"})["environmentInfo"]
        self.send({"method": "initialized", "params": {}})
        # The server serves before it has found out what it can enforce.
        while "sandbox" not in self.environment:
            self.environment = self.call("environment/info", {})

    def send(self, message):
        self.socket.sendall(frame(1, json.dumps(message).encode()))

    def receive(self):
        while True:
            first, second = self.file.read(2)
            size = second & 0x7F
            if size == 126:
                size = struct.unpack("!H", self.file.read(2))[0]
            elif size == 127:
                size = struct.unpack("!Q", self.file.read(8))[0]
            data = self.file.read(size)
            if first & 0x0F == 1:
                return json.loads(data)

    def call(self, method, params):
        self.next_id += 1
        self.send({"id": self.next_id, "method": method, "params": params})
        while True:
            message = self.receive()
            if message.get("id") != self.next_id:
                continue
            if "error" in message:
                raise Refused(message["error"])
            return message["result"]

    def run(self, argv, cwd="/", sandbox=None, env=None):
        """A program to its end: (exit code, all it wrote)."""
        process, seq, output = f"p{self.next_id}", 0, b""
        self.call("process/start", {"processId": process, "argv": argv, "cwd": "file://" + cwd,
                                    "env": env or {"PATH": "/usr/bin:/bin"}, "tty": False, "arg0": None,
                                    "pipeStdin": False, "sandbox": sandbox})
        while True:
            read = self.call("process/read", {"processId": process, "afterSeq": seq, "waitMs": 20000})
            output += b"".join(base64.b64decode(c["chunk"]) for c in read["chunks"])
            seq = read["nextSeq"] - 1
            if read["closed"]:
                return read["exitCode"], output.decode("utf-8", "replace")

    def read_file(self, path, sandbox=None):
        return base64.b64decode(self.call("fs/readFile", {"path": "file://" + path, "sandbox": sandbox})
                                ["dataBase64"]).decode()

    def write_file(self, path, text, sandbox=None):
        self.call("fs/writeFile", {"path": "file://" + path, "sandbox": sandbox,
                                   "dataBase64": base64.b64encode(text.encode()).decode()})

    def close(self):
        self.file.close()
        self.socket.close()


class Server:
    """A running server and a client of it. `before` is what executes it (tests/support/without)."""

    def __init__(self, bailey, *options, before=(), user=None, log=None):
        self.log_path = log
        with open(log, "wb") as stderr:
            self.process = subprocess.Popen(
                [*before, bailey, "exec-server", "--log-level", "debug", *options], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=stderr, cwd="/", **as_user(user))
        self.url = self.process.stdout.readline().decode().strip()

    def __enter__(self):
        self.client = Client(self.url)
        return self

    def __exit__(self, *_):
        self.client.close()
        self.end()

    def end(self):
        self.process.terminate()
        self.process.stdout.close()
        return self.process.wait(TIMEOUT)

    def log(self):
        with open(self.log_path, encoding="utf-8") as f:
            return f.read()


def entry(path, access):
    return {"path": {"type": "path", "path": "file://" + path}, "access": access}


MINIMAL = {"path": {"type": "special", "value": {"kind": "minimal"}}, "access": "read"}


def profile(*entries, network="restricted", cwd=None):
    """A sandbox member; without entries a file system that is not restricted."""
    fs = {"type": "restricted", "entries": list(entries)} if entries else {"type": "unrestricted"}
    context = {"windowsSandboxLevel": "disabled",
               "permissions": {"type": "managed", "network": network, "file_system": fs}}
    if cwd:
        context["cwd"] = "file://" + cwd
    return context
