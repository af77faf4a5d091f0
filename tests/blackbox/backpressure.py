#!/usr/bin/env python3
"""Clients that do not read: backpressure.py PATH-TO-BAILEY [CASE...]

The memory bounds are those of the limits in force, plus what the kernel and the allocator may keep.
"""

import base64
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import Closed, RpcError, Server, await_block, expect, marked, run, until  # noqa: E402

MIB = 1 << 20
QUEUE = 1 * MIB  # --max-output-queue-bytes
ROOM = 24 * MIB  # what allocators keep for a while
SMALL = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"}  # it would hide what we hold
UNIT = hashlib.sha256(b"unit").hexdigest().encode() + b"\n"  # 65 bytes: no power of two


def produce(client, server, total):
    """A process that writes `total` bytes as fast as it may; its pid. Bash and coreutils only."""
    client.start("p", ["/bin/sh", "-c", f"yes {UNIT[:-1].decode()} | head -c {total}"], env=server.env())
    return until(lambda: head_of(server), "the producer")


def head_of(server):
    for pid in marked(server.mark):
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                if f.read() == "head\n":
                    return pid
        except OSError:
            pass
    return None


def consume(client, total):
    """Reads until the process has closed; every number and every byte is checked."""
    got, last = 0, 0
    while True:
        message = client.take_message()
        client.notifications.clear()
        if message["method"] == "process/closed":
            break
        expect(message["params"]["seq"] == last + 1, "a number is missing")
        last += 1
        if message["method"] != "process/output":
            continue
        data = base64.b64decode(message["params"]["chunk"])
        at = got % len(UNIT)
        expect(data == (UNIT * (len(data) // len(UNIT) + 2))[at:at + len(data)], f"byte {got} or a later one is wrong")
        got += len(data)
    expect(got == total, f"{got} of {total} bytes")


def stalled_reader():
    """Its process blocks, nobody else does, and when it reads again it has every byte."""
    total = 256 * MIB
    with Server("--max-output-queue-bytes", QUEUE, env=SMALL) as server, server.client() as other:
        before = server.memory()
        client = server.client()
        pid = produce(client, server, total)
        written = await_block(pid)
        expect(written < 64 * MIB, f"{written} bytes were written before it was held up")
        grown = server.memory() - before
        expect(grown < QUEUE + ROOM, f"the server has grown by {grown} bytes")
        other.start("q", ["/bin/echo", "hello"])
        expect(other.notification("process/output", "q")["chunk"] == base64.b64encode(b"hello\n").decode(), "another")
        other.notification("process/closed", "q")
        other.call("fs/getMetadata", {"path": server.dir})
        consume(client, total)
        grown = server.memory() - before
        expect(grown < QUEUE + ROOM, f"the server has grown by {grown} bytes")
        client.close()


def stalled_reader_may_still_ask():
    """A client whose output waits can end the process that makes it."""
    with Server("--max-output-queue-bytes", QUEUE, env=SMALL) as server, server.client() as client:
        await_block(produce(client, server, 1 << 40))
        number = client.send("process/terminate", {"processId": "p"})
        until(lambda: not marked(server.mark), "the end of the process")
        expect(client.answer(number) == {"running": True}, "it was running")
        expect(client.notification("process/exited", "p")["exitCode"] == 137, "its exit")
        client.notification("process/closed", "p")


def stalled_reader_that_leaves():
    """While nobody is there the process runs freely; the memory that was queued is given back."""
    with Server("--max-output-queue-bytes", QUEUE, env=SMALL) as server:
        before = server.memory()
        client = server.client()
        pid = produce(client, server, 128 * MIB)
        await_block(pid)
        client.drop()
        until(lambda: not marked(server.mark), "the process to finish with nobody there")
        grown = server.memory() - before
        expect(grown < QUEUE + ROOM, f"the server has grown by {grown} bytes")
        with server.client(resume=client.session) as back:
            answer = back.read("p")
            expect(answer["closed"] and answer["exitCode"] == 0, str({**answer, "chunks": 0}))
            expect(answer["nextSeq"] - 1 > answer["chunks"][-1]["seq"], "its end comes after its output")


def many_answers_nobody_reads():
    """Requests whose answers pile up are neither begun nor read any more: memory stays bounded."""
    at_once = 8
    options = ["--max-output-queue-bytes", QUEUE, "--concurrent-requests", at_once]
    with Server(*options, env=SMALL) as server, server.client() as other:
        path = os.path.join(server.dir, "big")
        with open(path, "wb") as f:
            f.write(bytes(MIB // 2))
        before = server.memory()
        client = server.client()
        client.sock.settimeout(2)
        asked = []
        try:
            for _ in range(200000):
                asked.append(client.send("fs/readFile", {"path": path}))
        except TimeoutError:  # in the middle of a frame: what was sent whole is asked for
            asked_whole = len(asked)
        else:
            raise Closed(1006, "everything was read")
        other.call("fs/getMetadata", {"path": path})
        grown = server.memory() - before
        expect(grown < 2 * QUEUE + at_once * MIB + ROOM, f"the server has grown by {grown} bytes")
        client.sock.settimeout(60)
        for number in asked[:min(asked_whole, 50)]:
            expect(len(client.answer(number)["dataBase64"]) > MIB // 2, "an answer")
        client.close()


def flood(client, path):
    """Asks for more than it reads, until the server does not read it any more."""
    client.sock.settimeout(1)
    try:
        while True:
            client.send("fs/readFile", {"path": path})
    except TimeoutError:
        client.sock.settimeout(60)


def come_back(server, session):
    client = server.connect()
    try:
        return client.initialize(session)
    except RpcError as error:
        client.close()
        expect(error.code == -32010, str(error))
        return None


def flooded_client_comes_back(leaves):
    """The end of a client is noticed although nothing is read from it; one that hangs is replaced after the probe."""
    with Server("--max-output-queue-bytes", QUEUE, "--probe-ms", 300, env=SMALL) as server:
        path = os.path.join(server.dir, "big")
        with open(path, "wb") as f:
            f.write(bytes(MIB // 2))
        old = server.client()
        flood(old, path)
        if leaves:
            old.drop()
        new = until(lambda: come_back(server, old.session), "the session to be free")
        expect(new.call("environment/status") == {"status": "ready"}, "it works")
        new.close()
        old.close()


run([
    ("a stalled reader holds up its own process, loses nothing, and costs little", stalled_reader),
    ("a stalled reader can still end its process", stalled_reader_may_still_ask),
    ("a stalled reader that leaves sets its process free", stalled_reader_that_leaves),
    ("answers that nobody reads have a bound", many_answers_nobody_reads),
    ("a client that is not read from may leave, and come back", lambda: flooded_client_comes_back(True)),
    ("a client that is not read from and hangs is replaced", lambda: flooded_client_comes_back(False)),
], jobs=2)
