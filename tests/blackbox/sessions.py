#!/usr/bin/env python3
"""Sessions that outlive their connections: sessions.py PATH-TO-BAILEY [CASE...]"""

import base64
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

SUPPORT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support")
sys.path.insert(0, SUPPORT)

from bailey import Failure, RpcError, Server, Skip, expect, run, until  # noqa: E402


def seqs(answer):
    return [chunk["seq"] for chunk in answer["chunks"]]


def text(answer):
    return b"".join(base64.b64decode(chunk["chunk"]) for chunk in answer["chunks"])


def resume(server, session):
    """Tries again while it is taken, as the clients do; the client and how often it was refused."""
    refused = 0
    end = time.monotonic() + 30
    while time.monotonic() < end:
        client = server.connect()
        try:
            return client.initialize(session), refused
        except RpcError as error:
            client.close()
            expect(error.code == -32010 and "is already attached to another connection" in error.message, str(error))
            refused += 1
            time.sleep(0.02)
    raise Failure("the session was never given away")


def replay():
    """Output from before, while, and after nobody was there: each chunk once, and no number is missing."""
    with Server() as server:
        fifo = os.path.join(server.dir, "fifo")
        os.mkfifo(fifo)
        client = server.client()
        client.start("p", ["/bin/sh", "-c", f"exec < {fifo}; while read x; do echo $x; : > {server.dir}/$x; done"])
        with open(fifo, "w", encoding="ascii") as f:
            f.write("before\n")
            f.flush()
            expect(client.notification("process/output", "p")["seq"] == 1, "the first chunk")
            client.drop()
            f.write("while\n")
            f.flush()
            until(lambda: os.path.exists(server.dir + "/while"), "output with nobody there")
            back, _ = resume(server, client.session)
            expect(back.session == client.session, "the same session")
            answer = back.read("p", afterSeq=1, waitMs=10000)
            expect(seqs(answer) == [2] and text(answer) == b"while\n", str(answer))
            f.write("after\n")
            f.flush()
            late = back.notification("process/output", "p")
            expect(late["seq"] == 3 and base64.b64decode(late["chunk"]) == b"after\n", str(late))
        back.notification("process/exited", "p")
        expect(back.notification("process/closed", "p")["seq"] == 5, "the end")
        answer = back.read("p", afterSeq=0)
        expect(seqs(answer) == [1, 2, 3] and answer["closed"] and answer["nextSeq"] == 6, str(answer))
        back.close()


class Follower:
    """Collects a process's output through all its connections."""

    def __init__(self):
        self.chunks = {}
        self.last = 0
        self.closed = False
        self.n_bytes = 0

    def take(self, seq, chunk):
        if seq not in self.chunks:
            self.n_bytes += len(base64.b64decode(chunk))
        expect(self.chunks.get(seq, chunk) == chunk, f"chunk {seq} changed")
        self.chunks[seq] = chunk
        self.last = max(self.last, seq)

    def hear(self, client):
        """One notification."""
        if not client.notifications:
            client.take_message()
        for message in client.notifications:
            if message["method"] == "process/output":
                self.take(message["params"]["seq"], message["params"]["chunk"])
        client.notifications.clear()

    def read(self, client, **how):
        answer = client.read("p", afterSeq=self.last, **how)
        for chunk in answer["chunks"]:
            self.take(chunk["seq"], chunk["chunk"])
        self.closed = answer["closed"]


def replay_under_load():
    """A connection that breaks again and again in the middle of a flood: every byte arrives all the same."""
    rounds, lines = 10, 20000
    script = f"while read n; do [ $n = end ] && exit; seq $n $((n + {lines - 1})); done"
    with Server("--max-retained-bytes", 16 << 20) as server:
        follower = Follower()
        client = server.client()
        client.start("p", ["/bin/sh", "-c", script], pipeStdin=True)
        for i in range(rounds):
            expect(client.write("p", b"%d\n" % (1 + i * lines)) == "accepted", "a write")
            while follower.n_bytes < i * 100000 + i * 9000:  # a round is more, and this is a part of it
                follower.hear(client)
            client.drop()
            client, _ = resume(server, client.session)
            follower.read(client)
        expect(client.write("p", b"end\n") == "accepted", "a write")
        while not follower.closed:
            follower.read(client, waitMs=10000)
        client.close()
        numbers = sorted(follower.chunks)
        expect(numbers == list(range(1, len(numbers) + 1)), f"a number is missing in {numbers}")
        output = b"".join(base64.b64decode(follower.chunks[n]) for n in numbers)
        expect(output == b"".join(b"%d\n" % i for i in range(1, rounds * lines + 1)), "the output is not whole")


def retention():
    """With nobody there a process runs freely, and its latest output is kept, up to the limit."""
    limit, size = 256 << 10, 4 << 20
    with Server("--max-retained-bytes", limit) as server:
        client = server.client()
        client.start("p", ["/bin/sh", "-c", f"read x; seq -w 1 1000000 | head -c {size}; echo; echo end; read y"],
                     pipeStdin=True)
        client.write("p", b"go\n")
        client.drop()
        back, _ = resume(server, client.session)
        after = 0
        while not text(answer := back.read("p", afterSeq=after, waitMs=10000)).endswith(b"end\n"):
            after = max([after, *seqs(answer)])
        back.close()  # all of it has been written, and read by the server
        third, _ = resume(server, client.session)
        answer = third.read("p")
        kept = text(answer)
        expect(0 < len(kept) <= limit and len(kept) > limit // 2, f"{len(kept)} bytes kept")
        expect(kept.endswith(b"\nend\n"), "the latest bytes are kept")
        expect(seqs(answer) == list(range(seqs(answer)[0], answer["nextSeq"])), "whole chunks without gaps")
        third.close()


def silent_client_is_replaced():
    """It is connected, but neither reads nor answers the ping: after the probe another one has the session."""
    with Server("--probe-ms", 300) as server:
        old = server.client()
        old.start("p", ["/bin/cat"], pipeStdin=True)
        new, refused = resume(server, old.session)
        expect(refused > 0, "-32010 until the probe is over")
        expect(new.write("p", b"x") == "accepted", "the new one owns the processes")
        expect(new.notification("process/output", "p")["chunk"] == "eA==", "and hears them")
        code = old.fails("environment/status", {}, "session has been resumed by another connection")
        expect(code == -32600, f"code {code}")
        code = old.fails("process/terminate", {"processId": "p"}, "session has been resumed by another connection")
        expect(new.write("p", b"y") == "accepted", "the loser can do nothing to it")
        new.close()
        old.close()


CHILD = """
import sys
from bailey import Client, RpcError
client = Client(sys.argv[1]).initialize()
print(client.session, flush=True)
sys.stdin.readline()   # stopped here
try:
    print(client.call("environment/status"), flush=True)
except RpcError as error:
    print(error, flush=True)
"""


def stopped_client_is_replaced():
    """A client that hangs as a process: its kernel still acknowledges what it is sent."""
    with Server("--probe-ms", 300) as server:
        child = subprocess.Popen([sys.executable, "-c", CHILD, server.url], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": SUPPORT})
        try:
            session = child.stdout.readline().strip()
            child.send_signal(signal.SIGSTOP)
            new, refused = resume(server, session)
            expect(refused > 0, "-32010 until the probe is over")
            child.send_signal(signal.SIGCONT)
            said, _ = child.communicate("\n", timeout=60)
            expect("-32600 session has been resumed by another connection" in said, said)
            new.close()
        finally:
            child.kill()
            child.wait()


def living_client_keeps_its_session():
    with Server() as server:
        old = server.client()
        reader = threading.Thread(target=old.closed)
        reader.start()
        end = time.monotonic() + 2.5  # a probe that fails takes one second
        while time.monotonic() < end:
            with server.connect() as new:
                code = new.fails("initialize", {"clientName": "t", "resumeSessionId": old.session}, "already attached")
                expect(code == -32010, f"code {code}")
            time.sleep(0.05)
        old.sock.shutdown(2)
        reader.join()
        new, _ = resume(server, old.session)
        new.close()


def idle_is_not_detached():
    """--detach-ms is about sessions without a connection."""
    with Server("--detach-ms", 50) as server, server.client() as client, server.client() as other:
        client.start("p", ["/bin/sleep", "1000"])
        other.start("q", ["/bin/sleep", "0.5"])
        other.notification("process/closed", "q")
        expect(client.call("process/terminate", {"processId": "p"}) == {"running": True}, "it is still there")


def handles_belong_to_the_connection():
    with Server() as server:
        path = os.path.join(server.dir, "f")
        with open(path, "w", encoding="ascii") as f:
            f.write("x")
        client = server.client()
        client.call("fs/open", {"handleId": "h", "path": path})
        client.drop()
        back, _ = resume(server, client.session)
        code = back.fails("fs/readBlock", {"handleId": "h", "offset": 0, "len": 1}, "unknown file handle")
        expect(code == -32004, f"code {code}")
        back.close()


def descriptors_of_handles_are_closed():
    with Server() as server, server.client() as client:
        n_fds = server.n_fds()
        client.call("fs/open", {"handleId": "h", "path": "/etc/passwd"})
        expect(server.n_fds() == n_fds + 1, "a descriptor")
        client.drop()
        until(lambda: server.n_fds() == n_fds - 1, "the end of both descriptors")


def session_of_another():
    """An id is all it takes, and it must be the whole one."""
    with Server() as server, server.client() as client, server.connect() as other:
        for wrong in ("", client.session[:-1], client.session + "0", client.session.upper() + " "):
            code = other.fails("initialize", {"clientName": "t", "resumeSessionId": wrong}, "unknown session id")
            expect(code == -32600, f"code {code}")
        other.initialize()
        other.start("p", ["/bin/true"])
        code = client.fails("process/read", {"processId": "p"}, "unknown process id p")
        expect(code == -32600, "process ids are private to a session")


def lost_answers():
    """A start and a write whose answers were lost have happened, once."""
    with Server() as server:
        client = server.client()
        write = {"processId": "p", "chunk": base64.b64encode(b"once\n").decode(), "writeId": "w"}
        start = {"processId": "p", "argv": ["/bin/cat"], "cwd": "/", "env": {}, "tty": False, "pipeStdin": True}
        client.send_together(("process/start", start), ("process/write", write))
        client.notification("process/output", "p")  # it came in; its answers are given up
        client.drop()
        back, _ = resume(server, client.session)
        code = back.fails("process/start", start, "process p already exists")
        expect(code == -32600, f"code {code}")
        expect(back.call("process/write", write) == {"status": "accepted"}, "the same write again")
        expect(back.write("p", b"end\n") == "accepted", "another one")
        while not text(answer := back.read("p", waitMs=10000)).endswith(b"end\n"):
            pass
        expect(text(answer) == b"once\nend\n", str(text(answer)))
        back.close()


def duplicate(pid, fd):
    """A descriptor of ours for what `fd` is in that process."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        ours = libc.syscall(438, pidfd, fd, 0)  # pidfd_getfd
    finally:
        os.close(pidfd)
    if ours < 0:
        raise Skip(f"the server's descriptors cannot be had: {os.strerror(ctypes.get_errno())}")
    return ours


def descriptors_of(pid, kind):
    names = f"/proc/{pid}/fd"
    try:
        return {int(fd) for fd in os.listdir(names) if os.readlink(f"{names}/{fd}").startswith(kind)}
    except PermissionError as error:
        raise Skip(f"the server's descriptors cannot be seen: {error}") from error


def numbers_are_used_again():
    """
    What the server has closed may live on, as a pipe does while its spawner still has it. Connections get the same
    numbers then, and nothing of what happens to the old owners.
    """
    with Server() as server, server.client() as client:
        before = descriptors_of(server.pid, "pipe:")
        client.start("p", ["/bin/sleep", "1000"])
        pipes = descriptors_of(server.pid, "pipe:") - before
        kept = [duplicate(server.pid, fd) for fd in pipes]
        client.call("process/terminate", {"processId": "p"})
        until(lambda: not pipes & descriptors_of(server.pid, "pipe:"), "the server to close the pipes")
        others = [server.client() for _ in range(8)]
        expect(pipes & descriptors_of(server.pid, "socket:"), "their numbers are used again")
        for _ in range(20):
            for other in others:
                other.call("environment/info", {})
        for other in others:
            other.sock.close()
        for fd in kept:
            os.close(fd)


run([
    ("a resumed session has all output, in order, once", replay),
    ("breaks in the middle of a flood lose nothing", replay_under_load),
    ("the latest output is kept while nobody is there", retention),
    ("a client that neither reads nor pongs is replaced", silent_client_is_replaced),
    ("a stopped client is replaced, and told so", stopped_client_is_replaced),
    ("a client that answers keeps its session", living_client_keeps_its_session),
    ("an idle client is not a detached one", idle_is_not_detached),
    ("file handles go with their connection", handles_belong_to_the_connection),
    ("and so do their descriptors", descriptors_of_handles_are_closed),
    ("a session is found by its whole id only", session_of_another),
    ("what lost its answer has happened, once", lost_answers),
    ("a number of a descriptor that is used again", numbers_are_used_again),
])
