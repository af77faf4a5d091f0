#!/usr/bin/env python3
"""Two servers behind HAProxy, with docs/DEPLOYMENT.md's configuration: haproxy.py PATH-TO-BAILEY [CASE...]"""

import contextlib
import csv
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import Client, Closed, Refused, RpcError, Server, expect, run, until  # noqa: E402

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
HAPROXY = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
INTER_S = 0.05  # between two checks, in place of the documentation's
KEYS = [f"key-{i}" for i in range(24)]


def configuration(directory, fd, servers):
    """The sample of the documentation, for this place and in a hurry."""
    with open(os.path.join(ROOT, "docs", "DEPLOYMENT.md"), encoding="utf-8") as f:
        sample = re.search(r"```\n(defaults\n.*?)```", f.read(), re.DOTALL).group(1)
    for pattern, text in ((r"bind \S+", f"bind fd@{fd}"), (r"\binter 1s fastinter 200ms", f"inter {INTER_S * 1000:.0f}ms"),
                          (r"server one \S+", f"server one {servers[0].url.removeprefix('ws://')}"),
                          (r"server two \S+", f"server two {servers[1].url.removeprefix('ws://')}")):
        sample, n = re.subn(pattern, text, sample)
        expect(n == 1, f"the sample has {n} times {pattern}")
    return f"global\n    stats socket {directory}/stats mode 600 level operator\n\n{sample}"


class Yard:
    """Two servers and the proxy; `connect` goes through it."""

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.servers = [stack.enter_context(Server("--drain-timeout", 86400000)) for _ in range(2)]
            self.dir = self.servers[0].dir
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
                path = os.path.join(self.dir, "haproxy.cfg")
                with open(path, "w", encoding="ascii") as f:
                    f.write(configuration(self.dir, listener.fileno(), self.servers))
                log = stack.enter_context(open(os.path.join(self.dir, "haproxy.log"), "wb"))
                self.proxy = subprocess.Popen([HAPROXY, "-db", "-f", path], pass_fds=[listener.fileno()],
                                              stdout=log, stderr=log)
            stack.callback(self.end_proxy)
            until(lambda: self.states() == ["UP", "UP"], "HAProxy to see both servers")
            self.stack = stack.pop_all()
        return self

    def end_proxy(self):
        self.proxy.kill()
        self.proxy.wait()

    def __exit__(self, *_):
        self.stack.close()

    def stats(self):
        """What HAProxy knows of each server, by the names of its columns."""
        expect(self.proxy.poll() is None, "HAProxy has ended")
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(os.path.join(self.dir, "stats"))
                sock.sendall(b"show stat\n")
                rows = csv.DictReader(sock.makefile(encoding="ascii"))
                return [row for row in rows if row["# pxname"] == "bailey" and row["svname"] in ("one", "two")]
        except OSError:
            return []

    def states(self):
        return [row["status"].split()[0] for row in self.stats()]

    def failed_checks(self, server):
        return int(self.stats()[server]["chkfail"])

    def connect(self, key, resume=None):
        return Client(self.url, path=f"/?session={key}").initialize(resume)

    def place(self, client):
        """The server a client has reached: 0 or 1."""
        cwd = client.call("environment/info")["cwd"].removeprefix("file://")
        return [server.dir for server in self.servers].index(cwd)

    def place_of(self, key):
        with self.connect(key) as client:
            return self.place(client)


def keys_find_their_server():
    with Yard() as yard:
        places = {key: yard.place_of(key) for key in KEYS}
        expect(set(places.values()) == {0, 1}, "both servers are used")
        for _ in range(3):
            expect({key: yard.place_of(key) for key in KEYS} == places, "a key changed its server")


def resume_works():
    with Yard() as yard:
        for key in KEYS[:8]:
            client = yard.connect(key)
            client.start("p", ["/bin/cat"], pipeStdin=True)
            expect(client.write("p", b"one\n") == "accepted", "a write")
            expect(client.notification("process/output", "p")["seq"] == 1, "output")
            client.drop()
            back = until(lambda: come_back(yard, key, client.session), "the session to be free")
            expect(len(back.read("p")["chunks"]) == 1, "what was there before")
            expect(back.write("p", b"two\n") == "accepted", "and it works")
            expect(back.notification("process/output", "p")["seq"] == 2, "output")
            back.close()


def come_back(yard, key, session):
    try:
        return yard.connect(key, session)
    except RpcError as error:
        if error.code == -32010:
            return None
        raise


def draining_moves_only_what_is_new():
    with Yard() as yard:
        clients = {key: yard.connect(key) for key in KEYS}
        places = {key: yard.place(client) for key, client in clients.items()}
        for client in clients.values():
            client.start("p", ["/bin/cat"], pipeStdin=True)
        yard.servers[0].signal(signal.SIGTERM)
        until(lambda: yard.states() == ["DOWN", "UP"], "HAProxy to notice the drain")

        for key, client in clients.items():
            expect(client.write("p", b"still here\n") == "accepted", f"{key} works on server {places[key]}")
            client.notification("process/output", "p")
        for i in range(24):
            expect(yard.place_of(f"new-{i}") == 1, "a new key goes to the other server")
        for server in (0, 1):  # one that loses its connection comes back to where its session is
            key = next(k for k in KEYS if places[k] == server)
            session = clients[key].session
            clients.pop(key).drop()
            back = until(lambda: come_back(yard, key, session), "the session to be free")
            expect(yard.place(back) == server and back.write("p", b"x") == "accepted", f"it is back on server {server}")
            clients[key] = back

        expect(not yard.servers[0].has_ended(), "the drain waits for its clients")
        for key in KEYS:
            if places[key] == 0:
                clients[key].call("process/terminate", {"processId": "p"})
                clients[key].notification("process/closed", "p")
                clients[key].close()
        expect(yard.servers[0].wait() == 0, "it ends when they have gone")
        for key in KEYS:
            if places[key] == 1:
                expect(clients[key].write("p", b"x") == "accepted", "the other one's clients noticed nothing")
                clients[key].close()
            expect(yard.place_of(key) == 1, "all keys go to the server that is left")


def a_dead_server_loses_its_keys():
    """A crash moves its keys; nobody is left without a server."""
    with Yard() as yard:
        places = {key: yard.place_of(key) for key in KEYS}
        yard.servers[0].signal(signal.SIGKILL)
        yard.servers[0].wait()
        for key in KEYS:
            try:
                expect(yard.place_of(key) == 1, f"{key}, once on server {places[key]}")
            except (Closed, Refused) as error:
                raise Closed(1006, f"{key} was not served: {error}") from error


def a_slow_server_stays():
    """One that is held up for a while, and longer than checks are apart, is not given up: it might be the last."""
    with Yard() as yard:
        yard.servers[0].signal(signal.SIGTERM)
        until(lambda: yard.states() == ["DOWN", "UP"], "HAProxy to notice the drain")
        yard.servers[1].signal(signal.SIGSTOP)
        try:
            held_up_since = time.monotonic()
            while time.monotonic() - held_up_since < 20 * INTER_S:
                expect(yard.states() == ["DOWN", "UP"], f"after {yard.failed_checks(1)} failed checks: {yard.states()}")
                time.sleep(INTER_S / 5)
        finally:
            yard.servers[1].signal(signal.SIGCONT)
        expect(yard.place_of("new") == 1, "it serves on")


if not HAPROXY:
    print("haproxy is not installed")
    sys.exit(77)
run([
    ("a key always reaches the same server", keys_find_their_server),
    ("sessions can be resumed through it", resume_works),
    ("draining one server moves only new sessions", draining_moves_only_what_is_new),
    ("a server that is held up for a moment is not given up", a_slow_server_stays),
    ("the keys of a dead server go to the other one", a_dead_server_loses_its_keys),
], jobs=2)
