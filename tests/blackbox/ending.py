#!/usr/bin/env python3
"""How a server ends, and that nothing survives it: ending.py PATH-TO-BAILEY [CASE...]"""

import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import RpcError, Server, Skip, alive, await_block, expect, marked, run, until, wall  # noqa: E402

SLEEP = ["/bin/sh", "-c", "exec sleep 1000"]
# What daemons do: fork, leave the session, fork again, let go of everything inherited.
DAEMON = ["/bin/sh", "-c", "(setsid sh -c 'trap \"\" TERM HUP INT; (sleep 1001 & sleep 1002) & sleep 1003' "
          "</dev/null >/dev/null 2>&1 &) ; exec sleep 1004"]
N_DAEMON = 4  # sleeps


def is_draining(server):
    return server.http("/readyz") == 503


def drain(server):
    server.signal(signal.SIGTERM)
    until(lambda: server.has_ended() or is_draining(server), "the drain to begin")


def ends_at_once_when_idle():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with Server("--drain-timeout", 86400000) as server:
            server.signal(number)
            expect(server.wait() == 0, f"status 0 after {number!r}")


def drain_waits_for_a_client():
    with Server("--drain-timeout", 86400000) as server, server.client() as client:
        drain(server)
        expect(client.call("environment/status") == {"status": "ready"}, "work goes on")
        client.start("p", ["/bin/echo", "late"], env=server.env())
        expect(client.notification("process/output", "p")["seq"] == 1, "output")
        client.notification("process/closed", "p")
        expect(not server.has_ended(), "it waits for the client")
        client.close()
        expect(server.wait() == 0, "status 0")


def drain_begins_no_session():
    with Server("--drain-timeout", 86400000) as server, server.client() as client:
        drain(server)
        with server.connect() as late:
            code = late.fails("initialize", {"clientName": "t"}, "server is draining")
            expect(code == -32603, f"code {code}")
        expect(client.call("environment/status") == {"status": "ready"}, "the old one works")
        expect(server.http("/readyz") == 503, "not ready")


def drain_lets_a_client_come_back():
    with Server("--drain-timeout", 86400000) as server:
        client = server.client()
        client.start("p", ["/bin/cat"], env=server.env(), pipeStdin=True)
        drain(server)
        client.drop()
        back = until(lambda: resumed(server, client.session), "the session to be free")
        expect(back.write("p", b"hello\n") == "accepted", "a process that works")
        expect(back.notification("process/output", "p")["chunk"] == "aGVsbG8K", "its output")
        back.call("process/terminate", {"processId": "p"})
        back.notification("process/closed", "p")
        expect(not server.has_ended(), "it waits for the client")
        back.close()
        expect(server.wait() == 0, "status 0")


def resumed(server, session):
    client = server.connect()
    try:
        return client.initialize(session)
    except RpcError as error:
        client.close()
        if error.code != -32010:
            raise
        return None


def drain_waits_for_a_process():
    with Server("--drain-timeout", 86400000) as server:
        fifo, done = os.path.join(server.dir, "fifo"), os.path.join(server.dir, "done")
        os.mkfifo(fifo)
        client = server.client()
        client.start("p", ["/bin/sh", "-c", f"read line < {fifo}; echo $line > {done}"], env=server.env())
        client.drop()
        drain(server)
        expect(not server.has_ended(), "it waits for the process")
        with open(fifo, "w", encoding="ascii") as f:
            f.write("worked\n")
        expect(server.wait() == 0, "status 0")
        with open(done, encoding="ascii") as f:
            expect(f.read() == "worked\n", "the process finished its work")


def drain_has_an_end():
    with Server("--drain-timeout", 300) as server, server.client() as client:
        client.start("p", SLEEP, env=server.env())
        server.signal(signal.SIGTERM)
        code = client.closed()
        expect(code == 1001, f"close code {code}")
        expect(server.wait() == 0, "status 0")
        until(lambda: not marked(server.mark), "nothing left")


def no_drain():
    with Server("--drain-timeout", 0) as server, server.client() as client:
        client.start("p", SLEEP, env=server.env())
        server.signal(signal.SIGTERM)
        expect(client.closed() == 1001, "close code 1001")
        expect(server.wait() == 0, "status 0")


def cut_short(number):
    with Server("--drain-timeout", 86400000) as server, server.client() as client:
        client.start("p", SLEEP, env=server.env())
        drain(server)
        expect(not server.has_ended(), "it drains")
        server.signal(number)
        expect(client.closed() == 1001, "close code 1001")
        expect(server.wait() == 0, "status 0")
        until(lambda: not marked(server.mark), "nothing left")


def stdin_close_drains():
    with Server("--drain-timeout", 86400000, "--exit-on-stdin-close", stdin=subprocess.PIPE) as server:
        with server.client() as client:
            server.process.stdin.close()
            until(lambda: is_draining(server), "the drain to begin")
            expect(client.call("environment/status") == {"status": "ready"}, "work goes on")
        expect(server.wait() == 0, "status 0")


# ---- nothing survives


def try_wall(client, server):
    try:
        client.start("probe", ["/bin/true"], env=server.env(), sandbox=wall(server.dir))
    except RpcError as error:
        if "sandbox unavailable" not in error.message:
            raise
        raise Skip(f"no sandbox here: {error}") from error


def fill(server, walled):
    """A session with everything that could stay behind; the client."""
    client = server.client()
    more = {"env": server.env()}
    if walled:
        try_wall(client, server)
        more["sandbox"] = wall(server.dir)
        client.call("fs/readFile", {"path": "/etc/passwd", "sandbox": wall(server.dir)})
    client.start("pipes", SLEEP, **more)
    client.start("stdin", ["/bin/sh", "-c", "sleep 1000; :"], pipeStdin=True, **more)
    client.start("terminal", SLEEP, tty=True, **more)
    client.start("daemon", DAEMON, **more)
    client.start("terminal daemon", DAEMON, tty=True, **more)
    client.start("exited", DAEMON[:2] + [DAEMON[2].replace("exec sleep 1004", ":")], **more)
    wanted = 3 + 2 * N_DAEMON + (0 if walled else N_DAEMON - 1)
    until(lambda: n_sleeps(server.mark) >= wanted, f"{wanted} sleeps")
    return client


def n_sleeps(mark):
    n = 0
    for pid in marked(mark):
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                n += f.read() == "sleep\n"
        except OSError:
            pass
    return n


def kill(server, _client):
    server.signal(signal.SIGKILL)


def interrupt(server, _client):
    server.signal(signal.SIGINT)


def term_twice(server, _client):
    server.signal(signal.SIGTERM)
    until(lambda: is_draining(server), "the drain to begin")
    server.signal(signal.SIGTERM)


def term_until_it_is_gone(server, _client):
    """Also the third one, which does not even wait for what is being killed."""
    while not server.has_ended():
        server.signal(signal.SIGTERM)


def drain_out(server, _client):
    server.signal(signal.SIGTERM)


def drain_detached(server, client):
    client.drop()
    server.signal(signal.SIGTERM)


def kill_launcher(server, _client):
    children = {pid for pid, _ in server.descendants()}
    with open(f"/proc/{server.pid}/task/{server.pid}/children", encoding="ascii") as f:
        launcher = int(f.read().split()[0])
    expect(launcher in children, "the launcher is a child of the server")
    os.kill(launcher, signal.SIGKILL)


def nothing_survives(how, walled):
    with Server("--drain-timeout", 1000) as server:
        client = fill(server, walled)
        family = server.descendants()
        expect(len(family) >= 3 + 3 * N_DAEMON, f"only {len(family)} descendants")
        how(server, client)
        server.wait()
        until(lambda: not marked(server.mark), f"the end of {marked(server.mark)}")
        until(lambda: not alive(family), "the end of launcher, spawners and helpers")


def settle(server):
    """Waits until the walls have been tried, which takes processes of its own; what is left then: the launcher."""
    with server.client() as client:
        client.call("fs/getMetadata", {"path": "/"})
        until(lambda: "sandbox" in client.call("environment/info"), "the walls have been tried")
    until(lambda: len(server.descendants()) == 1, "only the launcher")
    return server.descendants()


def a_session_leaves_nothing(walled):
    """When the detach time is over: processes, spawner, and helpers, while the server lives."""
    with Server("--detach-ms", 200) as server:
        family = settle(server)
        client = fill(server, walled)
        more = server.descendants() - family
        expect(len(more) >= 3 + 3 * N_DAEMON, "a session to end")
        client.drop()
        until(lambda: not marked(server.mark), "the end of the processes")
        until(lambda: server.descendants() == family, "the end of spawner and helpers")
        with server.connect() as late:
            params = {"clientName": "t", "resumeSessionId": client.session}
            code = late.fails("initialize", params, "unknown session id")
            expect(code == -32600, f"code {code}")
            late.initialize()


def a_session_leaves_no_descriptors(walled):
    with Server("--detach-ms", 200) as server:
        settle(server)
        n_fds = server.n_fds()
        client = fill(server, walled)
        client.call("fs/open", {"handleId": "h", "path": "/etc/passwd"})
        expect(server.n_fds() > n_fds + 10, "descriptors to close")
        client.drop()
        until(lambda: server.n_fds() == n_fds, f"{n_fds} descriptors")


def a_client_that_stalls_does_not_hold_up_the_end():
    """With bytes of its that cannot go out, and no answer to the closing handshake."""
    with Server("--drain-timeout", 100) as server:
        client = server.client(rcvbuf=4096)
        client.start("p", ["/bin/cat", "/dev/zero"], env=server.env())
        await_block(until(lambda: marked(server.mark), "the process")[0])
        server.signal(signal.SIGTERM)
        expect(server.wait() == 0, "status 0")
        until(lambda: not marked(server.mark), "nothing left")
        client.close()


ENDS = [("SIGKILL of the server", kill), ("SIGINT", interrupt), ("a second SIGTERM", term_twice),
        ("SIGTERM again and again", term_until_it_is_gone), ("SIGTERM and the drain time", drain_out),
        ("SIGTERM with nobody attached", drain_detached), ("the launcher's death", kill_launcher)]

CASES = [
    ("a server without clients ends at once, whatever the signal", ends_at_once_when_idle),
    ("SIGTERM waits for an attached client, whose work goes on", drain_waits_for_a_client),
    ("SIGTERM begins no new session, and /readyz says so", drain_begins_no_session),
    ("SIGTERM lets a client that lost its connection come back", drain_lets_a_client_come_back),
    ("SIGTERM waits for a process whose client has gone", drain_waits_for_a_process),
    ("--drain-timeout ends the waiting: 1001, status 0", drain_has_an_end),
    ("--drain-timeout 0 waits for nobody", no_drain),
    ("a second SIGTERM ends the drain", lambda: cut_short(signal.SIGTERM)),
    ("SIGINT ends the drain", lambda: cut_short(signal.SIGINT)),
    ("SIGHUP ends the drain", lambda: cut_short(signal.SIGHUP)),
    ("end of file on stdin drains as well", stdin_close_drains),
    ("a client that stalls does not hold up the end", a_client_that_stalls_does_not_hold_up_the_end),
    ("a session whose time is over leaves nothing", lambda: a_session_leaves_nothing(False)),
    ("a session whose time is over leaves nothing, behind walls", lambda: a_session_leaves_nothing(True)),
    ("nor descriptors", lambda: a_session_leaves_no_descriptors(False)),
    ("nor descriptors, behind walls", lambda: a_session_leaves_no_descriptors(True)),
]
for end, how in ENDS:
    CASES.append((f"nothing survives {end}", lambda how=how: nothing_survives(how, False)))
    CASES.append((f"nothing survives {end}, behind walls", lambda how=how: nothing_survives(how, True)))

run(CASES)
