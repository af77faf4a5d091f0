#!/usr/bin/env python3
"""What it costs when there is much of everything: load.py PATH-TO-BAILEY [SECTION...]

Starts its own servers, talks to them over the loopback interface only, and prints tables. Fails when something does not
work; how fast it is, is for people to judge. Sections: stalled, processes, connections, resume.
"""

import os
import platform
import resource
import signal
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import (BAILEY, PING, PONG, RpcError, Server, await_block, expect, frame,  # noqa: E402
                    marked, until)

MIB = 1 << 20
MANY = 1000


def proportional(pid):
    """Memory of a process in bytes, of what it shares its share."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return 1024 * next(int(line.split()[1]) for line in f if line.startswith("Pss:"))


def of_all(processes):
    total = 0
    for pid in processes:
        try:
            total += proportional(pid)
        except OSError:
            pass
    return total


def ours(server):
    """Launcher and spawners: the processes below the server that are its own binary."""
    found = []
    for pid, _ in server.descendants():
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                if f.read().startswith("bailey"):
                    found.append(pid)
        except OSError:
            pass
    return found


def table(title, rows):
    print(f"\n| {title} | |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |", flush=True)


def mib(n):
    return f"{n / MIB:.1f} MiB"


def ms(seconds):
    return f"{1000 * seconds:.2f} ms"


def latency(client, path, n=500):
    """Seconds of n metadata requests, one after the other, sorted."""
    times = []
    for _ in range(n):
        start = time.monotonic()
        client.call("fs/getMetadata", {"path": path})
        times.append(time.monotonic() - start)
    return sorted(times)


def spread(times):
    return f"{ms(statistics.median(times))} median, {ms(times[int(len(times) * 0.99)])} p99"


def producer(server):
    for pid in marked(server.mark):
        with open(f"/proc/{pid}/comm", encoding="ascii") as f:
            if f.read() == "head\n":
                return pid
    return None


class Counter:
    """Counts output in frames without making anything of them: a client that parses them is slower than the server."""

    def __init__(self, client):
        self.sock = client.sock
        self.have = len(client.buffer)
        self.memory = bytearray(4 * MIB)
        self.memory[:self.have] = client.buffer
        self.got = 0
        self.closed = False

    def frame(self, at):
        """(beginning and end of the payload) of the frame at `at`, None when it has not come yet."""
        if self.have < at + 10:  # every frame here is longer, but for pings, which can wait
            return None
        n, start = self.memory[at + 1] & 0x7F, at + 2
        if n >= 126:
            start = at + (4 if n == 126 else 10)
            n = int.from_bytes(self.memory[at + 2:start], "big")
        return (start, start + n) if self.have >= start + n else None

    def take(self, opcode, start, end):
        if opcode == PING:
            self.sock.sendall(frame(PONG, bytes(self.memory[start:end])))
            return
        at = self.memory.find(b'"chunk":"', start, min(end, start + 500))
        if at >= 0:
            text = end - len('"}}') - (at + len('"chunk":"'))
            self.got += text // 4 * 3 - self.memory.count(b"=", end - 5, end)
        elif self.memory.find(b"process/closed", start, end) >= 0:
            self.closed = True

    def read(self):
        at = 0
        while payload := self.frame(at):
            self.take(self.memory[at] & 15, *payload)
            at = payload[1]
        self.memory[:self.have - at] = self.memory[at:self.have]
        self.have -= at
        if not self.closed:
            n = self.sock.recv_into(memoryview(self.memory)[self.have:], 512 << 10)
            expect(n > 0, "more output")
            self.have += n


def drain_output(client, server):
    """Reads until the process has closed: bytes, seconds, and the most memory the server had."""
    counter, peak, start = Counter(client), 0, time.monotonic()
    while not counter.closed:
        counter.read()
        peak = max(peak, server.memory())
    return counter.got, time.monotonic() - start, peak


def stalled():
    total = 1 << 30
    with Server() as server, server.client() as other, server.client() as client:
        idle = latency(other, server.dir)
        before = server.memory()
        client.start("p", ["/bin/sh", "-c", f"head -c {total} /dev/zero"], env=server.env())
        pid = until(lambda: producer(server), "the producer")
        written = await_block(pid)
        held = server.memory()
        during = latency(other, server.dir)
        got, seconds, peak = drain_output(client, server)
        expect(got == total, f"{got} bytes of {total}")
        table("a client that does not read 1 GiB of output, and then does", [
            ("written by the process until it was held up", mib(written)),
            ("memory of the server before", mib(before)),
            ("... while the client does not read", mib(held)),
            ("... at most while it reads", mib(peak)),
            ("metadata request of another client, before", spread(idle)),
            ("... while the first one does not read", spread(during)),
            ("bytes read in the end", f"{got}, all of them"),
            ("rate, as fast as this client can", f"{got / seconds / 1e6:.0f} MB/s"),
        ])


def processes():
    with Server() as server, server.client() as client:
        client.start("first", ["/bin/cat"], pipeStdin=True)
        before, helpers = proportional(server.pid), of_all(ours(server))
        start = time.monotonic()
        params = {"argv": ["/bin/cat"], "cwd": "/", "env": server.env(), "tty": False, "pipeStdin": True}
        numbers = [client.send("process/start", {"processId": str(i), **params}) for i in range(MANY)]
        for number in numbers:
            client.answer(number)
        started = time.monotonic() - start
        after, helpers_after = proportional(server.pid), of_all(ours(server))
        times = latency(client, server.dir)
        start = time.monotonic()
        for i in range(MANY):
            client.send("process/write", {"processId": str(i), "chunk": "eA=="})
        for i in range(MANY):
            expect(client.notification("process/output", str(i))["chunk"] == "eA==", f"process {i}")
        echoed = time.monotonic() - start
        start = time.monotonic()
        server.signal(signal.SIGINT)
        client.closed()
        client.close()
        server.wait()
        ended = time.monotonic() - start
        until(lambda: not marked(server.mark), "the end of all processes")
        table(f"{MANY} idle processes of one session", [
            ("time to start them, requests sent without waiting", f"{ms(started)}, {ms(started / MANY)} each"),
            ("memory of the server, each", f"{(after - before) / MANY / 1024:.1f} KiB"),
            ("memory of launcher and spawner together, before and after", f"{mib(helpers)}, {mib(helpers_after)}"),
            ("metadata request meanwhile", spread(times)),
            ("a byte to and from every one of them", ms(echoed)),
            ("end of the server and all of them", ms(ended)),
        ])


def connections():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    expect(hard > MANY + 100, f"RLIMIT_NOFILE is {hard}")
    with Server() as server, server.client() as other:
        before = proportional(server.pid)
        alone = latency(other, server.dir)
        clients = []
        try:
            start = time.monotonic()
            for _ in range(MANY):
                clients.append(server.client())
            connected = time.monotonic() - start
            after = proportional(server.pid)
            times = latency(other, server.dir)
            start = time.monotonic()
            for client in clients:
                client.number = client.send("fs/getMetadata", {"path": server.dir})
            for client in clients:
                client.answer(client.number)
            all_at_once = time.monotonic() - start
            busy = proportional(server.pid)
        finally:
            for client in clients:
                client.close()
        until(lambda: server.n_fds() < 100, "the connections to be gone")
        table(f"{MANY} connections, each with a session", [
            ("time to connect and initialize, one after the other", f"{ms(connected)}, {ms(connected / MANY)} each"),
            ("memory of the server, each", f"{(after - before) / MANY / 1024:.1f} KiB"),
            ("... after each has asked for something", f"{(busy - before) / MANY / 1024:.1f} KiB"),
            ("metadata request with one connection", spread(alone)),
            (f"... with {MANY + 1}", spread(times)),
            (f"one metadata request of each of the {MANY}, at the same time", ms(all_at_once)),
        ])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def takeover(server):
    """Seconds from the first attempt to the resumed session, and how many attempts were refused."""
    old = server.client()
    old.start("p", ["/bin/sleep", "1000"])
    start, refused = time.monotonic(), 0
    while True:
        client = server.connect()
        try:
            client.initialize(old.session)
        except RpcError as error:
            expect(error.code == -32010, str(error))
            client.close()
            refused += 1
            time.sleep(0.1)  # as the clients do
            continue
        seconds = time.monotonic() - start
        expect(client.call("process/terminate", {"processId": "p"}) == {"running": True}, "its process")
        client.close()
        old.close()
        return seconds, refused


def resume():
    with Server() as server:
        results = [takeover(server) for _ in range(5)]
        times = [seconds for seconds, _ in results]
        broken = []
        for _ in range(100):
            client = server.client()
            client.drop()
            start = time.monotonic()
            back = until(lambda c=client: try_resume(server, c.session), "the session")
            broken.append(time.monotonic() - start)
            back.close()
        broken.sort()
        table("resume, attempts every 100 ms", [
            ("the old connection is half-open: until the takeover", f"{min(times):.2f} to {max(times):.2f} s, "
             f"after {min(r for _, r in results)} to {max(r for _, r in results)} refusals"),
            ("the old connection was reset", spread(broken)),
        ])


def try_resume(server, session):
    client = server.connect()
    try:
        return client.initialize(session)
    except RpcError:
        client.close()
        return None


SECTIONS = {"stalled": stalled, "processes": processes, "connections": connections, "resume": resume}


def main():
    print(f"{BAILEY}, {os.cpu_count()} processors, Linux {platform.release()}, Python {platform.python_version()}")
    for name in sys.argv[2:] or SECTIONS:
        SECTIONS[name]()


main()
