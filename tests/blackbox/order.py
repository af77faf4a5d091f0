#!/usr/bin/env python3
"""What is done in which order, and what holds up what: order.py PATH-TO-BAILEY [CASE...]

Nothing here measures time. A slow request is one that waits for the test, or one sent in front of a quick one.
"""

import base64
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import RpcError, Server, Skip, expect, run, until, wall  # noqa: E402

WALK = {"maxDepth": 64, "maxDirectories": 10000, "maxEntries": 50000, "followDirectorySymlinks": False}


def b64(data):
    return base64.b64encode(data).decode()


def grow_tree(server):
    """Enough for a walk to take longer than anything else here."""
    top = os.path.join(server.dir, "tree")
    for i in range(200):
        os.makedirs(os.path.join(top, str(i)))
        for j in range(20):
            with open(os.path.join(top, str(i), str(j)), "w", encoding="ascii"):
                pass
    return top


def in_order_of_arrival(client, numbers):
    """The ids in the order in which their answers come."""
    order = []
    while len(order) < len(numbers):
        message = client.take_message()
        if message.get("id") in numbers:
            order.append(message["id"])
    return order


def effects_in_order(sandbox):
    """A long chain of changes and looks at them, sent at once; every look sees what came before it."""
    with Server() as server, server.client() as client:
        context = wall(server.dir) if sandbox else None
        path, copy = server.dir + "/f", server.dir + "/g"

        def fs(method, **params):
            return f"fs/{method}", {**params, "sandbox": context}

        requests, wanted = [], []
        for i in range(50):
            requests += [fs("writeFile", path=path, dataBase64=b64(b"%d" % i)), fs("readFile", path=path),
                         fs("copy", sourcePath=path, destinationPath=copy, recursive=False),
                         fs("readFile", path=copy), fs("remove", path=copy), fs("getMetadata", path=copy)]
            wanted += [None, b"%d" % i, None, b"%d" % i, None, -32004]
        for number, want in zip(client.send_together(*requests), wanted):
            try:
                result = client.answer(number)
                if want is not None:
                    expect(want != -32004 and result == {"dataBase64": b64(want)}, f"{number}: {result}, not {want}")
            except RpcError as error:
                if "sandbox unavailable" in error.message:
                    raise Skip(f"no sandbox here: {error}") from error
                expect(error.code == want, f"{number}: {error}")


def starts_are_in_order_too():
    """A process sees the files written before its start, and may have the id of one before it that failed."""
    with Server() as server, server.client() as client:
        start = {"cwd": server.dir, "env": {"PATH": os.environ["PATH"]}, "tty": False}
        write = {"path": server.dir + "/in", "dataBase64": b64(b"before\n")}
        numbers = client.send_together(
            ("fs/writeFile", write),
            ("process/start", {**start, "processId": "a", "argv": ["/bin/cat", "in"]}),
            ("fs/writeFile", {**write, "path": server.dir + "/late"}),
            ("process/start", {**start, "processId": "b", "argv": ["no-such-program"]}),
            ("process/start", {**start, "processId": "b", "argv": ["/bin/cat", "late"]}))
        for number in numbers[:3] + numbers[4:]:
            client.answer(number)
        for process in "ab":
            expect(client.notification("process/output", process)["chunk"] == b64(b"before\n"), process)
            expect(client.notification("process/exited", process)["exitCode"] == 0, process)


def answered_before_it_speaks():
    with Server() as server, server.client() as client:
        for i in range(50):
            client.send("process/start", {"processId": str(i), "argv": ["/bin/echo", "x"], "cwd": "/", "env": {},
                                          "tty": False})
        answered, closed = set(), 0
        while closed < 50:
            message = client.take_message()
            if "id" in message:
                expect("result" in message, str(message))
                answered.add(message["result"]["processId"])
            else:
                expect(message["params"]["processId"] in answered, "a process spoke before its start was answered")
                closed += message["method"] == "process/closed"


def writes_are_in_order():
    with Server("--max-stdin-bytes", 4096) as server, server.client() as client:
        client.start("p", ["/bin/cat"], pipeStdin=True)
        parts = [b"%d," % i * 100 for i in range(500)]  # most of them have to wait for room
        for part in parts:
            client.send("process/write", {"processId": "p", "chunk": b64(part)})
        whole, got = b"".join(parts), b""
        while len(got) < len(whole):
            got += base64.b64decode(client.notification("process/output", "p")["chunk"])
        expect(got == whole, "the input arrived in another order")


def nothing_waits_for(client, server, other):
    """All the kinds of requests that must be answered although something waits on this connection."""
    expect(client.call("environment/status") == {"status": "ready"}, "environment/status")
    client.call("environment/info")
    client.call("fs/getMetadata", {"path": server.dir})
    client.start("quick", ["/bin/true"])
    client.read("quick")
    expect(client.write("quick", b"") in ("stdinClosed", "accepted"), "process/write")
    client.call("process/signal", {"processId": "quick", "signal": "interrupt"})
    client.call("fs/close", {"handleId": "h"})
    expect(client.fails("no/method", {}, "does not implement") == -32601, "an unknown method")
    expect(other.call("environment/status") == {"status": "ready"}, "another connection")


def waiting_holds_up_nothing(*options):
    """A read that waits for output and a write that waits for room, while all else is answered."""
    with Server(*options, "--max-stdin-bytes", 4096) as server, server.client() as client, server.client() as other:
        client.start("quiet", ["/bin/sleep", "1000"], pipeStdin=True)
        reads = [client.send("process/read", {"processId": "quiet", "waitMs": 600000}) for _ in range(3)]
        writes = [client.send("process/write", {"processId": "quiet", "chunk": b64(bytes(200000))}) for _ in range(3)]
        nothing_waits_for(client, server, other)
        expect(not client.answers.keys() & {*reads, *writes[1:]}, "they wait")
        expect(client.call("process/terminate", {"processId": "quiet"}) == {"running": True}, "process/terminate")
        for number in reads:
            client.answer(number)
        statuses = {client.answer(number)["status"] for number in writes}
        expect("stdinClosed" in statuses, str(statuses))


def control_overtakes_files():
    """Sent behind a walk in one piece; the walk cannot be answered before all of these have been read."""
    with Server() as server, server.client() as client:
        top = grow_tree(server)
        client.start("p", ["/bin/sleep", "1000"])
        numbers = client.send_together(
            ("fs/walk", {"path": top, "options": WALK}), ("environment/status", {}), ("environment/info", {}),
            ("fs/close", {"handleId": "h"}), ("process/signal", {"processId": "none", "signal": "interrupt"}),
            ("process/read", {"processId": "p"}), ("process/terminate", {"processId": "p"}))
        order = in_order_of_arrival(client, numbers)
        expect(order[-1] == numbers[0], f"the walk was answered before {order[order.index(numbers[0]) + 1:]}")
        expect(len(client.answer(numbers[0])["entries"]) == 4200, "the walk is whole")


def behind_a_walk(client, top):
    """Sends a walk and quick looks behind it; whether the answers came in the order of the requests."""
    looks = [("fs/getMetadata", {"path": top})] * 20
    numbers = client.send_together(("fs/walk", {"path": top, "options": WALK}), *looks)
    order = in_order_of_arrival(client, numbers)
    for number in numbers:
        client.answer(number)
    return order == numbers


def one_at_a_time():
    """--concurrent-requests 1 keeps even reads in order; without it they overtake, else this shows nothing."""
    with Server() as server, server.client() as client:
        top = grow_tree(server)
        until(lambda: not behind_a_walk(client, top), "a look that overtakes a walk")
        with Server("--concurrent-requests", 1) as slow, slow.client() as patient:
            for _ in range(20):
                expect(behind_a_walk(patient, top), "an answer overtook another")


def limit_of_one_is_per_connection():
    with Server("--concurrent-requests", 1) as server, server.client() as client, server.client() as other:
        top = grow_tree(server)
        walks = [("fs/walk", {"path": top, "options": WALK})] * 50
        numbers = client.send_together(*walks)
        other.call("fs/getMetadata", {"path": top})
        other.start("p", ["/bin/true"])
        expect(in_order_of_arrival(client, numbers) == numbers, "one after the other")


def count_files(top):
    return sum(len(files) for _, _, files in os.walk(top))


def abandon_copy(server, top, sandbox):
    """Begins to copy a tree and leaves; how many files are there in the end."""
    to = os.path.join(server.dir, "copy")
    shutil.rmtree(to, ignore_errors=True)
    with server.client() as client:
        client.send("fs/copy", {"sourcePath": top, "destinationPath": to, "recursive": True,
                                "sandbox": wall(server.dir) if sandbox else None})
        until(lambda: count_files(to) > 0, "the copy has begun")
    with server.client() as client:  # in line behind nothing, but handled after the end of the other connection
        client.call("environment/status")
    counts = [-1]

    def has_stopped():
        counts.append(count_files(to))
        return counts[-1] == counts[-2]

    until(has_stopped, "the copy has stopped", every_s=0.3)
    return counts[-1]


def trees_are_left_alone(sandbox):
    """A request that may take very long ends when nobody waits for it any more."""
    with Server() as server:
        top = grow_tree(server)
        total = count_files(top)
        until(lambda: abandon_copy(server, top, sandbox) < total, "a copy that its client leaves in time")


run([
    ("every file request sees those before it", lambda: effects_in_order(False)),
    ("every file request sees those before it, behind a wall", lambda: effects_in_order(True)),
    ("a process sees the file requests before its start", starts_are_in_order_too),
    ("a start is answered before its process speaks", answered_before_it_speaks),
    ("input arrives in the order of the requests", writes_are_in_order),
    ("what waits for a process holds up nothing", waiting_holds_up_nothing),
    ("and does not count for --concurrent-requests 1", lambda: waiting_holds_up_nothing("--concurrent-requests", 1)),
    ("control requests do not wait for a slow file request", control_overtakes_files),
    ("--concurrent-requests 1: one after the other", one_at_a_time),
    ("--concurrent-requests is about one connection", limit_of_one_is_per_connection),
    ("the copy of a tree ends with its client", lambda: trees_are_left_alone(False)),
    ("the copy of a tree ends with its client, behind a wall", lambda: trees_are_left_alone(True)),
])
