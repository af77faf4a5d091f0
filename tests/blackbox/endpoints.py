#!/usr/bin/env python3
"""The HTTP endpoints and the limits on who may use the server, over real sockets: endpoints.py PATH-TO-BAILEY."""

import math
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import PATIENCE_S, UPGRADE, Server, holds, run  # noqa: E402
from yard import Yard  # noqa: E402

PROTOCOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/PROTOCOL.md")

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (NaN|[+-]Inf|[-+]?[0-9.]+(?:e[-+]?[0-9]+)?)")


# ---- a strict reader of the text format ----

def family_of(name, kinds):
    """The metric a sample belongs to: a histogram has three kinds of them."""
    for suffix in ("_bucket", "_sum", "_count"):
        if name.endswith(suffix) and kinds.get(name.removesuffix(suffix)) == "histogram":
            return name.removesuffix(suffix)
    return name


def parse(text):
    """{(name, labels): value}, and {name: kind}; fails on whatever Prometheus might trip over."""
    assert text.endswith("\n") and "\r" not in text and "\n\n" not in text
    samples, kinds, helps, family = {}, {}, {}, None
    for line in text[:-1].split("\n"):
        if line.startswith("# "):
            _, what, name, rest = line.split(" ", 3)
            assert re.fullmatch(NAME, name) and rest
            if what == "HELP":
                assert name not in helps, "metrics of one name stand together: " + name
                helps[name], family = rest, name
            else:
                assert what == "TYPE" and name == family and rest in ("counter", "gauge", "histogram"), line
                assert name not in kinds
                kinds[name] = rest
            continue
        match = SAMPLE.fullmatch(line)
        assert match, "not a sample: " + line
        name, labels, value = match.groups()
        key = (name, labels or "")
        assert key not in samples, "twice: " + line
        assert family_of(name, kinds) == family and family in kinds, "not below its head: " + line
        samples[key] = float(value)
    return samples, kinds


def check_names(samples, kinds):
    for (name, labels), value in samples.items():
        kind = kinds[family_of(name, kinds)]
        assert math.isfinite(value) and value >= 0, (name, value)
        assert (kind == "counter") == name.endswith("_total"), name
        assert kind == "histogram" or "le=" not in labels
    for name in kinds:
        assert name.startswith(("exec_server_", "bailey_", "process_")), name


def check_histograms(samples, kinds):
    """Buckets are cumulative and end with all there is."""
    for name in (n for n, kind in kinds.items() if kind == "histogram"):
        series = {}
        for (sample, labels), value in samples.items():
            if sample == name + "_bucket":
                head, _, bound = labels.rpartition('le="')
                series.setdefault(head.rstrip(","), []).append((float(bound[:-1]), value))
        assert series
        for labels, buckets in series.items():
            assert buckets == sorted(buckets) and buckets[-1][0] == math.inf
            assert [value for _, value in buckets] == sorted(value for _, value in buckets)
            assert samples[name + "_count", labels] == buckets[-1][1]
            assert samples[name + "_sum", labels] >= 0


def read(server):
    samples, kinds = parse(server.metrics())
    check_names(samples, kinds)
    check_histograms(samples, kinds)
    return samples


def eventually(server, name, labels, value):
    """What happens without an answer is seen soon; nothing else to wait for."""
    end = time.monotonic() + PATIENCE_S
    while read(server)[name, labels] != value:
        if time.monotonic() > end:
            raise OSError(f"{name}{{{labels}}} is {read(server)[name, labels]}, not {value}")
    return True


def start(client, process, *argv):
    """The answer, also when it is an error."""
    return client.ask("process/start", {"processId": process, "argv": argv, "cwd": "/", "env": {}, "tty": False})


class Moves:
    """Counters before and after: moves.by(name, labels)."""

    def __init__(self, server):
        self.server = server
        self.before = read(server)

    def by(self, name, labels=""):
        return read(self.server)[name, labels] - self.before[name, labels]


# ---- health ----

def the_endpoints_answer(server):
    rows = [
        ("GET /livez", 200, None), ("HEAD /livez", 200, None), ("GET /readyz", 200, None), ("HEAD /readyz", 200, None),
        ("GET /livez?verbose", 200, None), ("POST /livez", 405, "GET,HEAD"), ("DELETE /readyz", 405, "GET,HEAD"),
        ("PUT /metrics", 405, "GET,HEAD"), ("GET /healthz", 404, None), ("GET /metrics/", 404, None),
        ("GET /livez/x", 404, None),
    ]
    good = True
    for request, status, allow in rows:
        got, headers, body = server.exchange(request)
        right = got == status and headers.get("allow") == allow and body == "" and headers["connection"] == "close"
        if not right:
            print(f"     {request}: {got} {headers} {body!r}")
        good = good and right
    return good


def origin_is_refused_everywhere(server):
    paths = ["/", "/livez", "/readyz", "/metrics", "/nope"]
    return all(server.exchange(f"{method} {path}", *UPGRADE, origin)[0] == 403 for path in paths
               for method in ("GET", "HEAD", "POST") for origin in ("Origin: http://a.example", "Origin: null", "Origin:"))


def head_of_the_metrics(server):
    status, head, body = server.exchange("HEAD /metrics")
    _, get, text = server.exchange("GET /metrics")
    return (status == 200 and body == "" and head["content-type"] == get["content-type"] ==
            "text/plain; version=0.0.4; charset=utf-8" and abs(int(head["content-length"]) - len(text)) < 20)


def a_full_server_is_not_ready():
    with Server("--max-connections", "2") as server:
        with server.connect(), server.connect():
            moves = Moves(server)
            full = (server.exchange("GET /readyz")[0], server.exchange("GET /livez")[0], server.exchange("HEAD /readyz")[0],
                    server.upgrade()[0])
            counted = moves.by("bailey_connections_refused_total", 'reason="unavailable"')
            not_ready = read(server)["bailey_ready", ""]
        eventually(server, "exec_server_connections_active", 'transport="websocket"', 0)
        return full == (503, 200, 503, 503) and counted == 1 and not_ready == 0 and server.exchange("GET /readyz")[0] == 200


# ---- metrics ----

def every_metric_is_documented(server):
    with open(PROTOCOL, encoding="utf-8") as f:
        text = f.read()
    missing = [name for name in parse(server.metrics())[1] if f"`{name}`" not in text]
    print("".join(f"     docs/PROTOCOL.md says nothing about {name}\n" for name in missing), end="")
    return not missing


def facts_of_the_server(server):
    samples = read(server)
    builds = [labels for name, labels in samples if name == "bailey_build_info"]
    age = time.time() - samples["process_start_time_seconds", ""]
    return len(builds) == 1 and re.fullmatch(r'version="[0-9.]+"', builds[0]) and -2 < age < 600


def connections_and_sessions_count(server):
    active, sessions = "exec_server_connections_active", "bailey_sessions"
    websocket = 'transport="websocket"'
    moves = Moves(server)
    with server.client() as client:
        session = client.session
        here = (moves.by(active, websocket), moves.by("exec_server_connections_total", websocket),
                moves.by("bailey_sessions_total"), moves.by(sessions, 'state="attached"'))
    eventually(server, sessions, 'state="detached"', moves.before[sessions, 'state="detached"'] + 1)
    with server.client(session) as client:
        again = (moves.by("bailey_session_resumes_total"), moves.by(sessions, 'state="detached"'),
                 moves.by("bailey_sessions_total"))
    return here == (1, 1, 1, 1) and again == (1, 0, 1)


def requests_count(server):
    total, duration = "exec_server_requests_total", "exec_server_request_duration_seconds"
    moves = Moves(server)
    with server.client() as client:
        client.call("environment/status")
        client.call("environment/status")
        client.ask("environment/status", [])
        client.ask("fs/readFile", {"path": "/nonexistent/file"})
        for method in ("nonsense", "fs/readFile\"} 1\n", "x" * 1000):
            client.ask(method)
        lines = len(read(server))
        return (moves.by(total, 'method="environment/status",result="success"') == 2 and
                moves.by(total, 'method="environment/status",result="error"') == 1 and
                moves.by(total, 'method="fs/readFile",result="error"') == 1 and
                moves.by(total, 'method="unknown",result="error"') == 3 and
                moves.by(duration + "_count", 'method="environment/status"') == 3 and
                moves.by(duration + "_sum", 'method="environment/status"') > 0 and
                moves.by("bailey_messages_received_total") == 9 and moves.by("bailey_messages_sent_total") == 8 and
                moves.by("bailey_received_bytes_total") > 1000 and moves.by("bailey_sent_bytes_total") > 500 and
                lines == len(moves.before))  # no client can make them more


def a_request_without_a_listener_is_disconnected(server):
    """A long poll whose client goes away."""
    labels = 'method="process/read",result="disconnected"'
    moves = Moves(server)
    with server.client() as client:
        start(client, "p", "/bin/sleep", "60")
        client.send("process/read", {"processId": "p", "waitMs": 60000})
        client.call("environment/status")
        waits = moves.by("bailey_requests_in_flight")
    eventually(server, "exec_server_requests_total", labels, moves.before["exec_server_requests_total", labels] + 1)
    return waits == 1 and moves.by("bailey_requests_in_flight") == 0


def processes_count(server):
    active, finished = "exec_server_processes_active", "exec_server_processes_finished_total"
    moves = Moves(server)
    with server.client() as client:
        for name, *argv in (("good", "/bin/true"), ("bad", "/bin/false"), ("long", "/bin/sleep", "60")):
            assert "result" in start(client, name, *argv)
        assert "error" in start(client, "none", "/nonexistent/program")
        assert "error" in start(client, "good", "/bin/true")
        client.notification("process/closed")
        client.notification("process/closed")
        running = (moves.by(active), moves.by("bailey_processes_started_total"),
                   moves.by("bailey_process_start_failures_total"))
        client.call("process/terminate", {"processId": "long"})
        client.notification("process/closed")
    return (running == (1, 3, 2) and moves.by(active) == 0 and moves.by(finished, 'result="success"') == 1 and
            moves.by(finished, 'result="error"') == 1 and moves.by(finished, 'result="terminated"') == 1 and
            moves.by("exec_server_process_duration_seconds_count") == 3)


def the_end_of_a_session_ends_its_processes():
    with Server("--detach-ms", "0") as server:
        with server.client() as client:
            start(client, "p", "/bin/sleep", "60")
        return (eventually(server, "exec_server_processes_finished_total", 'result="terminated"', 1) and
                read(server)["exec_server_processes_active", ""] == 0)


def handles_count(server, directory):
    path = directory.file("handle", "x")
    moves = Moves(server)
    with server.client() as client:
        client.call("fs/open", {"handleId": "h", "path": path})
        opened = moves.by("bailey_file_handles")
        client.call("fs/close", {"handleId": "h"})
        return opened == 1 and moves.by("bailey_file_handles") == 0


def helpers_and_denials_count(server, directory):
    """Where walls cannot be built the request fails in another way, and nothing is counted."""
    inside = directory.file("inside", "x")
    sandbox = {"sandboxPolicy": {"type": "read-only"}, "windowsSandboxLevel": "disabled"}
    moves = Moves(server)
    with server.client() as client:
        answer = client.ask("fs/readFile", {"path": inside, "sandbox": sandbox})
        if "error" in answer:
            assert "sandbox unavailable" in answer["error"]["message"], answer
            assert os.environ.get("BLY_MUST_RUN") != "1", answer
            print("     no walls here: " + answer["error"]["message"])
            return moves.by("bailey_helper_starts_total") == 0
        client.call("fs/readFile", {"path": inside, "sandbox": sandbox})
        denied = client.ask("fs/writeFile", {"path": inside, "dataBase64": "", "sandbox": sandbox})
        return ("error" in denied and moves.by("bailey_helper_starts_total") == 1 and moves.by("bailey_helpers") == 1 and
                moves.by("bailey_sandbox_denials_total", 'kind="file"') == 1)


def unread_output_counts(server):
    with server.client() as client:
        start(client, "p", "/bin/sh", "-c", "head -c 40000000 /dev/zero; exec sleep 60")
        end = time.monotonic() + PATIENCE_S
        while read(server)["bailey_output_queue_bytes", ""] < 1 << 20:
            if time.monotonic() > end:
                return False
    return eventually(server, "bailey_output_queue_bytes", "", 0)


def refusals_count():
    refused = "bailey_connections_refused_total"
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    with Server("--handshake-ms", "200") as server:
        moves = Moves(server)
        server.exchange("GET /", *UPGRADE, "Origin: http://a")
        server.exchange("GET /nope")
        server.exchange("GET /")
        with server.socket() as silent:
            silent.sendall(b"GET / HTTP/1.1\r\nHost:")
            ended = silent.recv(1) == b""
        counted = [moves.by(refused, f'reason="{reason}"') for reason in ("origin", "request", "timeout", "authentication")]
    with Server("--ws-auth", "capability-token", "--ws-token-sha256", digest) as server:
        good = "Authorization: Bearer secret"
        server.upgrade()
        server.upgrade("Authorization: Bearer wrong")
        server.exchange("GET /metrics")
        labels = 'reason="authentication"'
        strangers = parse(server.metrics(good))[0][refused, labels]
    return ended and counted == [1, 2, 1, 0] and strangers == 3


# ---- limits on who may use it, and how much ----

def a_slow_handshake_is_ended():
    """A byte now and then does not buy time."""
    with Server("--handshake-ms", "300") as server, server.socket() as slow:
        slow.settimeout(0.05)
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE_S:
            try:
                slow.sendall(b"G")
                if slow.recv(1) == b"":
                    return True
            except TimeoutError:
                continue
            except ConnectionError:
                return True
        return False


def a_request_that_is_too_long_is_refused(server):
    with server.socket() as s:
        s.sendall(b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 8192)
        return s.recv(65536).startswith(b"HTTP/1.1 431 ")


def connections_are_limited():
    with Server("--max-connections", "1") as server:
        with server.connect() as client:
            refused = server.upgrade()[0] == 503
            fine = client.initialize().session is not None
        eventually(server, "exec_server_connections_active", 'transport="websocket"', 0)
        with server.connect() as client:
            return refused and fine and client.initialize().session is not None


def sessions_are_limited():
    with Server("--max-sessions", "1", "--detach-ms", "0") as server:
        with server.connect() as one, server.connect() as two:
            one.initialize()
            answer = two.ask("initialize", {"clientName": "test"})
            one.close()
            eventually(server, "bailey_sessions", 'state="attached"', 0)
            end = time.monotonic() + PATIENCE_S
            while "error" in two.ask("initialize", {"clientName": "test"}):
                if time.monotonic() > end:
                    return False
        return answer["error"]["code"] == -32603 and "at most 1 sessions" in answer["error"]["message"]


def processes_are_limited():
    with Server("--max-processes", "2", "--finished-ms", "100") as server, server.client() as client:
        answers = [start(client, str(i), "/bin/true") for i in range(3)]
        end = time.monotonic() + PATIENCE_S
        while "error" in start(client, "again", "/bin/true"):
            if time.monotonic() > end:
                return False
        return (["error" in answer for answer in answers] == [False, False, True] and
                "at most 2 processes" in answers[2]["error"]["message"])


def file_handles_are_limited(directory):
    path = directory.file("many", "x")
    with Server("--max-file-handles", "2") as server, server.client() as client:
        answers = [client.ask("fs/open", {"handleId": str(i), "path": path}) for i in range(3)]
        client.call("fs/close", {"handleId": "0"})
        again = client.ask("fs/open", {"handleId": "again", "path": path})
        return ["error" in answer for answer in answers] == [False, False, True] and "result" in again


def no_request_is_lost_at_the_limit(directory):
    """Past it they wait unread; that they do is for the unit tests of the server."""
    n = 64
    path = directory.file("read", "x")
    with Server("--max-requests-in-flight", "2") as server, server.client() as client:
        asked = [client.send("fs/readFile", {"path": path}) for i in range(n)]
        answers = [client.receive() for i in range(n)]
        return (all("result" in answer for answer in answers) and
                sorted(answer["id"] for answer in answers) == asked and
                read(server)["bailey_requests_in_flight", ""] == 0)


def fresh(case, *more):
    """With a server of its own: what it counts is this case's alone."""
    with Server() as server:
        return case(server, *more)


def cases(directory):
    for name, case in [
            ("the endpoints answer", the_endpoints_answer),
            ("Origin is refused everywhere", origin_is_refused_everywhere),
            ("HEAD /metrics has the type and the length", head_of_the_metrics),
            ("every metric is documented", every_metric_is_documented),
            ("start time and build", facts_of_the_server),
            ("connections and sessions count", connections_and_sessions_count),
            ("requests count, and unknown methods share one label", requests_count),
            ("a request without a listener is disconnected", a_request_without_a_listener_is_disconnected),
            ("processes count", processes_count),
            ("unread output counts", unread_output_counts),
            ("a request that is too long is refused", a_request_that_is_too_long_is_refused)]:
        yield name, lambda case=case: fresh(case)
    yield "file handles count", lambda: fresh(handles_count, directory)
    yield "helpers and denials count", lambda: fresh(helpers_and_denials_count, directory)
    yield "a full server is not ready, and lives", a_full_server_is_not_ready
    yield "the end of a session ends its processes", the_end_of_a_session_ends_its_processes
    yield "refusals count, by reason", refusals_count
    yield "a slow handshake is ended", a_slow_handshake_is_ended
    yield "connections are limited", connections_are_limited
    yield "sessions are limited", sessions_are_limited
    yield "processes are limited", processes_are_limited
    yield "file handles are limited", lambda: file_handles_are_limited(directory)
    yield "no request is lost at the limit of those in flight", lambda: no_request_is_lost_at_the_limit(directory)


with Yard() as place:
    run(((name, holds(case)) for name, case in cases(place)), jobs=1)
