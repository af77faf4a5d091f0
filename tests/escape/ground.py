"""What the Python programs of the escape suite share: a server with a workspace and an outside, and its doors."""

import atexit
import base64
import concurrent.futures.thread  # with what else is imported late: see become_user()
import encodings.ascii
import encodings.idna
import encodings.latin_1
import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import bailey  # noqa: E402
from bailey import PATIENCE_S, RpcError, Server, Skip, expect, run, until  # noqa: E402

NOBODY = 65534
SECRET = b"the-secret-of-the-keep"
INVALID_PARAMS, DENIED, NOT_FOUND, FAILED = -32602, -32600, -32004, -32603
AT_FDCWD, RENAME_EXCHANGE = -100, 2

libc = ctypes.CDLL(None, use_errno=True)


def become_user():
    """With BLY_AS_USER in the environment root becomes uid 65534 for good.

    The program is copied to where that may run it. Python's own library may be root's alone.
    """
    if "BLY_AS_USER" not in os.environ or os.geteuid() != 0:
        return
    directory = tempfile.mkdtemp(prefix="bailey-program-", dir="/var/tmp")
    os.chmod(directory, 0o755)
    bailey.BAILEY = shutil.copy(bailey.BAILEY, directory)
    os.chown(directory, NOBODY, NOBODY)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self stays ours


def begin():
    """Becomes who it shall be; skips where there are no walls."""
    become_user()
    missing = bailey.without_first_rung()

    def skip():
        raise Skip(missing)

    if missing:
        run([("walls", skip)], only=())


def b64(data):
    return base64.b64encode(data).decode()


def uri(path):
    return "file://" + path


def entry(path, access, **more):
    return {"path": {"type": "path", "path": uri(path)}, "access": access, **more}


def special(kind, access, **more):
    return {"path": {"type": "special", "value": {"kind": kind, **more}}, "access": access}


def glob(pattern, access="deny"):
    return {"path": {"type": "glob_pattern", "pattern": pattern}, "access": access}


def context(*entries, **more):
    """A sandbox context with these entries and no network."""
    return {"permissions": {"type": "managed", "network": "restricted",
                            "file_system": {"type": "restricted", "entries": list(entries)}},
            "windowsSandboxLevel": "disabled", **more}


class Ground:
    """A server, and beside it a workspace and an outside that no test's policy makes writable.

    In memory where many files are made: what a disk needs for them is most of the time on a busy machine.
    """

    def __init__(self, *options, in_memory=False):
        base = "/dev/shm" if in_memory and os.access("/dev/shm", os.W_OK) else "/var/tmp"
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="bailey-ground-", dir=base))
        os.chmod(self.dir, 0o755)
        self.ws, self.out = self.dir + "/ws", self.dir + "/out"
        os.mkdir(self.ws)
        os.mkdir(self.out)
        self.secret = self.write("out/secret", SECRET)
        self.server = Server(*options, env={"BLY_TEST_SECRET": SECRET.decode()})
        self.client = self.server.client()
        self.doors = {"direct": None,
                      "reading little": context(special("minimal", "read"), entry(self.ws, "write")),
                      "reading all": context(special("root", "read"), entry(self.ws, "write"))}

    def path(self, name):
        return f"{self.dir}/{name}"

    def write(self, name, data=b"x"):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def expect_unharmed(self):
        """The outside is as it was, and the old connection and a new one work."""
        expect(os.listdir(self.out) == ["secret"] and self.read("out/secret") == SECRET, "the outside has changed")
        self.client.call("environment/status")
        with self.server.client() as other:
            other.call("environment/status")
        expect(not self.server.has_ended(), "the server has ended")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.server.__exit__()
        subprocess.run(["rm", "-rf", self.dir], check=False)  # trees too deep for shutil


class Door:
    """File requests of a connection with one policy or none."""

    def __init__(self, client, name, sandbox):
        self.client, self.name, self.sandbox = client, name, sandbox

    def call(self, method, **params):
        if method not in ("fs/readBlock", "fs/writeBlock", "fs/close"):
            params["sandbox"] = self.sandbox
        return self.client.call("fs/" + method.removeprefix("fs/"), params)

    def code(self, method, **params):
        """0, or the code of the error; its text is kept in `said`."""
        try:
            self.result = self.call(method, **params)
            return 0
        except RpcError as error:
            self.said = error.message
            expect(len(error.message) > 0 and "ASSERT" not in error.message.upper(), f"answer {error.message!r}")
            return error.code

    def refused(self, method, codes, **params):
        code = self.code(method, **params)
        expect(code in codes, f"{self.name}: {method} {str(params)[:200]}: {code} instead of {codes}")

    def read(self, path):
        return base64.b64decode(self.call("fs/readFile", path=path)["dataBase64"])

    def block(self, handle, offset, length):
        result = self.client.call("fs/readBlock", {"handleId": handle, "offset": offset, "len": length})
        return base64.b64decode(result["chunk"]), result["eof"]

    def write_block(self, handle, offset, data):
        return self.client.call("fs/writeBlock", {"handleId": handle, "offset": offset, "chunk": b64(data)})

    def close(self, handle):
        self.client.call("fs/close", {"handleId": handle})


def through_doors(check):
    """A case that runs check(ground, door) for each door, on one ground."""
    def case():
        with Ground(in_memory=True) as ground:
            for name, sandbox in ground.doors.items():
                check(ground, Door(ground.client, name, sandbox))
            ground.expect_unharmed()
    return case


def run_program(client, argv, sandbox):
    """(exit code, output) of a program."""
    process = f"program-{client.next_id}"
    client.start(process, argv, sandbox=sandbox)
    output, seq = b"", 0
    while True:
        read = client.read(process, afterSeq=seq, waitMs=PATIENCE_S * 1000)
        output += b"".join(base64.b64decode(chunk["chunk"]) for chunk in read["chunks"])
        seq = read["nextSeq"] - 1
        if read["closed"]:
            return read["exitCode"], output


@contextlib.contextmanager
def meanwhile(action):
    """Repeats action() in a thread while the body runs; it has run once before."""
    done, faults = threading.Event(), []
    action()

    def repeat():
        try:
            while not done.is_set():
                action()
        except OSError as fault:
            faults.append(fault)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(PATIENCE_S)
    expect(not thread.is_alive() and not faults, f"the other side: {faults}")


def exchange(one, other):
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), f"cannot exchange {one} and {other}")


__all__ = [name for name in globals() if not name.startswith("_")]
