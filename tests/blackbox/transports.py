#!/usr/bin/env python3
"""Listeners and standard input and output as a black box: transports.py PATH-TO-BAILEY."""

import base64
import fcntl
import hashlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import BAILEY, holds  # noqa: E402
from bailey import run as run_cases  # noqa: E402
from frames import TEXT, frame  # noqa: E402
from plain_http import UPGRADE, head_of  # noqa: E402

PATIENCE_S = 20
LINE_MAX = 67108864

INITIALIZE = {"id": 1, "method": "initialize", "params": {"clientName": "test"}}
INITIALIZED = {"method": "initialized", "params": {}}


class Place:
    """A fresh directory, not below /tmp, which some policies open."""

    def __enter__(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="bailey-tr-", dir="/var/tmp"))
        return self

    def path(self, name):
        return os.path.join(self.dir, name)

    def __exit__(self, *_):
        shutil.rmtree(self.dir)


def start(*arguments, **options):
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
               **options}
    return subprocess.Popen([BAILEY, "exec-server", *arguments], **options)


def run(*arguments, data=b"", env=None):
    """Runs the server with `data` on its stdin, to its end."""
    return subprocess.run([BAILEY, "exec-server", *arguments], input=data, capture_output=True,
                          timeout=PATIENCE_S, check=False, env=env)


def end(server, sign=signal.SIGINT):
    if sign:
        server.send_signal(sign)
    status = server.wait(PATIENCE_S)
    for stream in (server.stdin, server.stdout, server.stderr):
        if stream:
            stream.close()
    return status


def lines(*messages):
    return b"".join(json.dumps(m).encode() + b"\n" for m in messages)


def parse(output):
    """Every line is one JSON object, and there is nothing else."""
    if output and not output.endswith(b"\n"):
        raise ValueError(f"not whole lines: {output[-100:]}")
    return [json.loads(line) for line in output.splitlines()]


def answer(messages, identity):
    return next(m for m in messages if m.get("id") == identity)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(test):
    until = time.monotonic() + PATIENCE_S
    while not test():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


class Stdio:
    """A client of a server on pipes."""

    def __init__(self, *arguments, **options):
        self.server = start("--listen", "stdio", *arguments, stdin=subprocess.PIPE, bufsize=0,
                            **options)
        self.left = b""
        self.others = []

    def send(self, *messages):
        self.write(lines(*messages))

    def write(self, data):
        while data:
            data = data[self.server.stdin.write(data):]

    def read(self):
        """The next message."""
        while b"\n" not in self.left:
            if not select.select([self.server.stdout], [], [], PATIENCE_S)[0]:
                raise ValueError("nothing comes")
            more = self.server.stdout.read(65536)
            if not more:
                raise ValueError(f"end of output after {self.left[:100]}")
            self.left += more
        line, _, self.left = self.left.partition(b"\n")
        return json.loads(line)

    def until(self, test):
        while True:
            message = self.read()
            if test(message):
                return message
            self.others.append(message)

    def call(self, identity, method, **params):
        self.send({"id": identity, "method": method, "params": params})
        return self.until(lambda m: m.get("id") == identity)

    def greet(self):
        self.send(INITIALIZE, INITIALIZED)
        return self.until(lambda m: m.get("id") == 1)

    def spawn(self, process_id, script):
        return self.call(f"start-{process_id}", "process/start", processId=process_id,
                         argv=["/bin/sh", "-c", script], cwd="/", env={"PATH": "/usr/bin:/bin"},
                         tty=False, arg0=None)

    def output_until(self, process_id, text):
        """What a process says, up to some text."""
        got = bytearray()
        while text not in got[-len(text) - 65536:]:
            message = self.until(lambda m: m.get("method") == "process/output"
                                 and m["params"]["processId"] == process_id)
            got += base64.b64decode(message["params"]["chunk"])
        return bytes(got)

    def rest(self):
        """Everything up to the end of output."""
        return parse(self.left + self.server.stdout.read())

    def close_input(self):
        self.server.stdin.close()

    def status(self):
        return end(self.server, None)


# ---- stdio


def stdio_answers_line_by_line(value):
    data = lines(INITIALIZE, INITIALIZED, {"id": "a\nb", "method": "environment/status"},
                 {"id": 3, "method": "fs/readFile", "params": {"path": "/proc/self/comm"}})
    r = run("--listen", value, data=data)
    got = parse(r.stdout)
    return (r.returncode == 0 and len(got) == 3 and answer(got, "a\nb")["result"]["status"] == "ready"
            and "dataBase64" in answer(got, 3)["result"])


def stdio_line_ends():
    a, b, c = (json.dumps(m).encode() for m in (
        INITIALIZE, INITIALIZED, {"id": 3, "method": "environment/status"}))
    r = run("--listen", "stdio", data=b"\n\r\n" + a + b"\r\n\n  \n" + b + b"\n" + c)
    return r.returncode == 0 and [m["id"] for m in parse(r.stdout)] == [1, 3]


def stdio_parse_error_text():
    r = run("--listen", "stdio", data=b"{\n" + lines({"id": 7, "method": "nope"}))
    first, second = parse(r.stdout)
    return (r.returncode == 0 and first["id"] == -1 and first["error"]["code"] == -32600
            and first["error"]["message"].startswith(
                "failed to parse JSON-RPC message from exec-server stdio: ")
            and second["id"] == 7)


def stdio_end_of_input_kills_the_tree():
    client = Stdio()
    client.greet()
    client.spawn("p", "setsid sleep 1000 & echo $$ $!; exec sleep 1000")
    pids = [int(p) for p in client.output_until("p", b"\n").split()]
    before = all(is_alive(p) for p in pids)
    client.close_input()
    status = client.status()
    return before and len(pids) == 2 and status == 0 and not any(is_alive(p) for p in pids)


def stdio_end_of_input_ends_a_server_that_waits():
    """A long poll and a write nobody takes: neither holds up the end."""
    client = Stdio()
    client.greet()
    client.spawn("p", "sleep 1000")
    client.send({"id": 5, "method": "process/read",
                 "params": {"processId": "p", "afterSeq": None, "maxBytes": None, "waitMs": 600000}})
    client.close_input()
    return client.status() == 0


def stdio_violation_exits_1(message):
    client = Stdio()
    client.greet()
    client.spawn("p", "echo $$; exec sleep 1000")
    pid = int(client.output_until("p", b"\n"))
    client.send(message)
    status = client.status()  # stdin stays open
    return status == 1 and not is_alive(pid)


def stdio_what_came_before_a_violation_is_answered():
    r = run("--listen", "stdio", data=lines(INITIALIZE, {"method": "nope"}, {"id": 2, "method": "x"}))
    return r.returncode == 1 and [m["id"] for m in parse(r.stdout)] == [1]


def stdio_line_limit():
    """As long as allowed is answered, a byte more ends it; the end of input is not waited for."""
    head = b'{"id":2,"method":"environment/status","trace":{"traceparent":"'
    tail = b'"}}'
    client = Stdio()
    client.greet()
    client.write(head + b"x" * (LINE_MAX - len(head) - len(tail)) + tail + b"\r\n")
    ready = client.until(lambda m: m.get("id") == 2)["result"]["status"] == "ready"
    try:
        client.write(head + b"x" * (LINE_MAX - len(head) - len(tail) + 1) + tail + b"\n")
    except BrokenPipeError:
        pass
    return ready and client.rest() == [] and client.status() == 0


def stdio_line_limit_is_an_option():
    data = lines(INITIALIZE) + b'"' + b"x" * 1022 + b'"\n' + b'"' + b"x" * 1023 + b'"\n'
    r = run("--listen", "stdio", "--max-line-bytes", "1024", data=data)
    return r.returncode == 0 and [m["id"] for m in parse(r.stdout)] == [1, -1]


def stdio_not_utf8_exits_0():
    client = Stdio()
    client.greet()
    client.write(b'{"id":2,"method":"\xff"}\n')
    return client.rest() == [] and client.status() == 0


def stdio_pings_nobody():
    """With an interval and a silence that a WebSocket would not survive."""
    client = Stdio("--ping-ms", "100", "--silence-ms", "100")
    client.greet()
    quiet = not select.select([client.server.stdout], [], [], 0.5)[0]
    alive = client.call(2, "environment/status")["result"]["status"] == "ready"
    client.close_input()
    return quiet and alive and client.status() == 0


def stdio_output_is_back_pressure():
    """A client that stops reading stops the program, and later gets all of it."""
    size = 32 << 20
    with Place() as place:
        progress = place.path("progress")
        client = Stdio("--max-output-queue-bytes", "1048576")
        client.greet()
        client.spawn("p", f"head -c {size} /dev/zero | tee {progress}; echo the end")
        sizes = []

        def stands_still():
            sizes.append(os.path.getsize(progress) if os.path.exists(progress) else 0)
            return len(sizes) > 50 and sizes[-1] > 0 and len(set(sizes[-50:])) == 1

        stopped = wait_until(stands_still) and sizes[-1] < size
        got = len(client.output_until("p", b"the end\n"))
        client.close_input()
        return stopped and got == size + 8 and client.status() == 0


def stdio_reader_gone_ends_it():
    client = Stdio()
    client.greet()
    client.spawn("p", "echo $$; while echo more; do sleep 0.01; done")
    pid = int(client.output_until("p", b"\n").split()[0])
    client.server.stdout.close()
    status = client.server.wait(PATIENCE_S)
    client.server.stdin.close()
    client.server.stderr.close()
    return status == 0 and not is_alive(pid)


def stdio_stuck_reader_does_not_keep_it():
    """Output that nobody takes is given up some time after the end of input."""
    client = Stdio()
    client.greet()
    client.send({"id": 2, "method": "process/start", "params": {
        "processId": "p", "argv": ["/usr/bin/head", "-c", "30000000", "/dev/zero"], "cwd": "/",
        "env": {}, "tty": False, "arg0": None}})
    select.select([client.server.stdout], [], [], PATIENCE_S)
    client.close_input()
    return client.server.wait(PATIENCE_S) == 0 and client.status() == 0


def stdio_on_files():
    with Place() as place:
        with open(place.path("in"), "wb") as f:
            f.write(lines(INITIALIZE, {"id": 2, "method": "nope"}))
        with open(place.path("in"), "rb") as source, open(place.path("out"), "wb") as out:
            server = start("--listen", "stdio", stdin=source, stdout=out)
        status = end(server, None)
        with open(place.path("out"), "rb") as f:
            return status == 0 and [m["id"] for m in parse(f.read())] == [1, 2]


def stdio_on_one_socket():
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            server = start("--listen", "stdio", stdin=theirs, stdout=theirs)
        ours.sendall(lines(INITIALIZE))
        ours.shutdown(socket.SHUT_WR)
        ours.settimeout(PATIENCE_S)
        got = b""
        while more := ours.recv(65536):
            got += more
        return [m["id"] for m in parse(got)] == [1] and end(server, None) == 0


def stdio_on_a_terminal():
    """And its flags are what they were."""
    master, slave = pty.openpty()
    try:
        subprocess.run(["stty", "-echo"], stdin=slave, check=True)
        server = start("--listen", "stdio", stdin=slave, stdout=slave)
        os.write(master, lines({"id": 2, "method": "nope"}))
        got = b""
        while not got.endswith(b"\n"):
            if not select.select([master], [], [], PATIENCE_S)[0]:
                return False
            got += os.read(master, 65536)
        blocking = not fcntl.fcntl(slave, fcntl.F_GETFL) & os.O_NONBLOCK
        os.write(master, b"\4")
        return json.loads(got)["id"] == 2 and blocking and end(server, None) == 0
    finally:
        os.close(master)
        os.close(slave)


def stdio_non_blocking_descriptors():
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    for fd in (in_read, out_write):
        os.set_blocking(fd, False)
    server = start("--listen", "stdio", stdin=in_read, stdout=out_write)
    os.close(in_read)
    os.close(out_write)
    with open(in_write, "wb", buffering=0) as sink, open(out_read, "rb") as source:
        sink.write(lines(INITIALIZE, INITIALIZED))
        first = json.loads(source.readline())
        sink.write(lines({"id": 2, "method": "fs/readFile", "params": {"path": BAILEY}}))
        size = len(base64.b64decode(json.loads(source.readline())["result"]["dataBase64"]))
        sink.close()
        return first["id"] == 1 and size == os.path.getsize(BAILEY) and end(server, None) == 0


def stdio_on_closed_descriptors():
    r = subprocess.run(["/bin/sh", "-c", f"exec {BAILEY} exec-server --listen stdio <&- >&-"],
                       timeout=PATIENCE_S, check=False)
    return r.returncode == 0


def stdio_sigterm_ends_it():
    client = Stdio("--drain-timeout", "0") if has_option("--drain-timeout") else Stdio()
    client.greet()
    client.spawn("p", "echo $$; exec sleep 1000")
    pid = int(client.output_until("p", b"\n"))
    return end(client.server, signal.SIGTERM) == 0 and not is_alive(pid)


def has_option(option):
    return option.encode() in run("--help").stdout


def stdio_with_others(*arguments):
    r = run(*arguments)
    return r.returncode == 2 and r.stdout == b"" and b"--listen stdio goes with no other" in r.stderr


# ---- sockets


def first_lines(server, n):
    return [server.stdout.readline().decode().rstrip("\n") for _ in range(n)]


def connect(url):
    if url.startswith("unix://"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(url.removeprefix("unix://"))
        return sock
    host, _, port = url.removeprefix("ws://").rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S)


def http(url, path="/readyz", *headers):
    """The status of one request; 0 when there was no answer."""
    with connect(url) as sock:
        sock.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode())
        words = sock.recv(65536).split()
    return int(words[1]) if len(words) > 1 else 0


def several_listeners():
    with Place() as place:
        wanted = ["ws://127.0.0.1:0", f"unix://{place.path('a')}", "ws://127.0.0.1:0",
                  f"unix://{place.path('b')}"]
        server = start(*(word for url in wanted for word in ("--listen", url)))
        urls = first_lines(server, 4)
        good = (urls[1] == wanted[1] and urls[3] == wanted[3] and urls[0] != urls[2]
                and all(u.startswith("ws://127.0.0.1:") for u in (urls[0], urls[2]))
                and all(http(url) == 200 for url in urls))
        status = end(server)
        return good and status == 0 and os.listdir(place.dir) == []


def one_that_fails_fails_all():
    with Place() as place:
        r = run("--listen", f"unix://{place.path('a')}", "--listen", "ws://192.0.2.1:1",
                "--insecure-no-auth")
        return (r.returncode == 1 and r.stdout == b"" and r.stderr.startswith(b"Error: ")
                and os.listdir(place.dir) == [])


def unix_socket_mode():
    with Place() as place:
        old = os.umask(0)
        server = start("--listen", f"unix://{place.path('s')}")
        os.umask(old)
        first_lines(server, 1)
        mode = os.lstat(place.path("s")).st_mode & 0o7777
        return end(server) == 0 and mode == 0o600


def unix_socket_after_kill():
    with Place() as place:
        url = f"unix://{place.path('s')}"
        server = start("--listen", url)
        first_lines(server, 1)
        end(server, signal.SIGKILL)
        left_behind = os.path.exists(place.path("s"))
        server = start("--listen", url)
        said = first_lines(server, 1)
        works = http(url) == 200
        return left_behind and said == [url] and works and end(server) == 0


def unix_socket_in_use():
    with Place() as place:
        url = f"unix://{place.path('s')}"
        server = start("--listen", url)
        first_lines(server, 1)
        r = run("--listen", url)
        works = http(url) == 200
        return (r.returncode == 1 and b"Error: Address in use (os error 98)" in r.stderr and works
                and end(server) == 0)


def unix_socket_over_a_file():
    with Place() as place:
        with open(place.path("s"), "w", encoding="utf-8") as f:
            f.write("keep")
        r = run("--listen", f"unix://{place.path('s')}")
        with open(place.path("s"), encoding="utf-8") as f:
            return (r.returncode == 1 and b"Error: Address in use (os error 98)" in r.stderr
                    and f.read() == "keep")


def unix_socket_of_somebody_else_stays():
    with Place() as place:
        url = f"unix://{place.path('s')}"
        server = start("--listen", url)
        first_lines(server, 1)
        os.rename(place.path("s"), place.path("moved"))
        with open(place.path("s"), "w", encoding="utf-8"):
            pass
        return end(server) == 0 and os.path.isfile(place.path("s"))


def unix_socket_bad_values():
    rows = [("unix://relative", b"invalid unix --listen URL `unix://relative`; expected `unix:///PATH`"),
            ("unix:///" + "x" * 96, b"its path may have 96 bytes"),
            ("unix:///no/such/dir/s", b"No such file or directory (os error 2)")]
    results = [(run("--listen", value), text) for value, text in rows]
    return all(r.returncode == 1 and text in r.stderr for r, text in results)


def any_path():
    server = start("--any-path")
    url, = first_lines(server, 1)
    good = (http(url, "/some/where?key=1", *UPGRADE) == 101 and http(url, "/", *UPGRADE) == 101
            and http(url, "/some/where") == 404 and http(url, "/readyz") == 200
            and http(url, "/some/where", "Origin: null", *UPGRADE) == 403)
    return good and end(server) == 0


def any_path_is_off():
    server = start()
    url, = first_lines(server, 1)
    good = http(url, "/some/where", *UPGRADE) == 404 and http(url, "/?key=1", *UPGRADE) == 101
    return good and end(server) == 0


# ---- the end of stdin


def exit_on_stdin_close(*arguments, **variables):
    server = start("--log-level", "error", *arguments, stdin=subprocess.PIPE,
                   env={**os.environ, **variables})
    first_lines(server, 1)
    server.stdin.write(b"ignored\n")
    server.stdin.flush()
    before = server.poll()
    server.stdin.close()
    return before is None and end(server, None) == 0


def stdin_close_alone_means_nothing(**variables):
    server = start(stdin=subprocess.PIPE, env={**os.environ, **variables})
    url, = first_lines(server, 1)
    server.stdin.close()
    return http(url) == 200 and end(server) == 0


def exit_variable_must_be_a_word():
    r = run(env={**os.environ, EXIT_VARIABLE: "1"})
    return r.returncode == 2 and r.stdout == b"" and EXIT_VARIABLE.encode() in r.stderr


EXIT_VARIABLE = "CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE"


# ---- systemd


def activate(sockets, *arguments, wrong_pid=False, **variables):
    """Starts the server as a service manager would: sockets from descriptor 3 on."""
    fds = [s.fileno() for s in sockets]
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
    script = "import os, sys\n"
    script += f"for i, fd in enumerate({moved}): os.dup2(fd, 3 + i)\n"
    script += f"os.environ['LISTEN_PID'] = str(os.getpid() + {int(wrong_pid)})\n"
    script += f"os.closerange({3 + len(moved)}, 300)\n"
    script += "os.execv(sys.argv[1], sys.argv[1:])\n"
    server = subprocess.Popen(
        [sys.executable, "-c", script, BAILEY, "exec-server", *arguments], pass_fds=moved,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "LISTEN_FDS": str(len(moved)), "LISTEN_FDNAMES": "x", **variables})
    for fd in moved:
        os.close(fd)
    return server


def listening(address=("127.0.0.1", 0)):
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.bind(address)
    sock.listen(8)
    return sock


def systemd_sockets(*arguments):
    """TCP and Unix, in order; the socket file is not the server's to remove."""
    with Place() as place, listening() as tcp, listening(place.path("s")) as unix:
        port = tcp.getsockname()[1]
        server = activate([tcp, unix], *arguments)
        urls = first_lines(server, 2)
        good = (urls == [f"ws://127.0.0.1:{port}", f"unix://{place.path('s')}"]
                and all(http(url) == 200 for url in urls))
        return good and end(server) == 0 and os.path.exists(place.path("s"))


def systemd_sockets_reach_no_program():
    """Neither descriptors nor variables, and descriptor 3 is the launcher's own."""
    with Place() as place, listening(place.path("s")) as unix:
        server = activate([unix], NOTIFY_SOCKET="/no/such")
        url, = first_lines(server, 1)
        sandboxed = {"permissions": {"type": "managed", "network": "restricted", "file_system": {
            "type": "restricted", "entries": [
                {"path": {"type": "special", "value": {"kind": "root"}}, "access": "read"}]}},
            "cwd": f"file://{place.dir}", "windowsSandboxLevel": "disabled"}
        script = "ls /proc/self/fd; env | grep -c '^LISTEN_\\|^NOTIFY_' "
        client = WebSocket(url)
        texts = []
        for n, sandbox in enumerate((None, sandboxed)):
            client.call(f"s{n}", "process/start", processId=f"p{n}", cwd="/", tty=False, arg0=None,
                        argv=["/bin/sh", "-c", script], env={"PATH": "/usr/bin:/bin"},
                        envPolicy={"inherit": "all", "ignoreDefaultExcludes": True, "exclude": [],
                                   "set": {}, "includeOnly": []}, sandbox=sandbox)
            texts.append(client.output(f"p{n}").split())
        client.close()
        # 0 to 2, and what ls has open itself; then the number of variables.
        return all(t == ["0", "1", "2", "3", "0"] for t in texts) and end(server) == 0


def systemd_with_another():
    with listening() as tcp:
        port = tcp.getsockname()[1]
        server = activate([tcp], "--listen", "ws://127.0.0.1:0", "--listen", "systemd")
        urls = first_lines(server, 2)
        return (urls[1] == f"ws://127.0.0.1:{port}" and all(http(u) == 200 for u in urls)
                and end(server) == 0)


def systemd_not_asked_for():
    """--listen says where, and it does not say there: the socket is closed."""
    tcp = listening()
    port = tcp.getsockname()[1]
    server = activate([tcp], "--listen", "ws://127.0.0.1:0")
    tcp.close()
    url, = first_lines(server, 1)
    try:
        http(f"ws://127.0.0.1:{port}")
        refused = False
    except ConnectionRefusedError:
        refused = True
    return refused and http(url) == 200 and end(server) == 0


def systemd_without_sockets(**options):
    with listening() as tcp:
        server = activate([tcp], "--listen", "systemd", **options)
        said = server.communicate(timeout=PATIENCE_S)
        return server.returncode == 1 and said[0] == b"" and b"no sockets were passed" in said[1]


def systemd_bad_socket():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        server = activate([udp])
        said = server.communicate(timeout=PATIENCE_S)
        return (server.returncode == 1 and said[0] == b""
                and b"descriptor 3, passed in LISTEN_FDS, is not a listening" in said[1])


def systemd_beyond_this_machine():
    """A socket is not harmless because somebody else made it."""
    with listening(("0.0.0.0", 0)) as tcp:
        server = activate([tcp])
        said = server.communicate(timeout=PATIENCE_S)
        refused = server.returncode == 1 and said[0] == b"" and said[1].startswith(b"Error: ")
        server = activate([tcp], "--insecure-no-auth")
        urls = first_lines(server, 1)
        return (refused and urls == [f"ws://0.0.0.0:{tcp.getsockname()[1]}"]
                and end(server) == 0)


def unix_socket_with_a_token():
    """--ws-auth asks everywhere."""
    with Place() as place:
        digest = hashlib.sha256(b"secret").hexdigest()
        server = start("--listen", f"unix://{place.path('s')}", "--ws-auth", "capability-token",
                       "--ws-token-sha256", digest)
        url, = first_lines(server, 1)
        good = (http(url, "/", *UPGRADE) == 401
                and http(url, "/", "Authorization: Bearer secret", *UPGRADE) == 101)
        return good and end(server) == 0


def systemd_twice():
    r = run("--listen", "systemd", "--listen", "systemd")
    return r.returncode == 2 and b"give it once" in r.stderr


def systemd_is_told():
    with Place() as place, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(PATIENCE_S)
        notify.bind(place.path("n"))
        server = start(env={**os.environ, "NOTIFY_SOCKET": place.path("n")})
        first_lines(server, 1)
        ready = notify.recv(100)
        status = end(server)
        return ready == b"READY=1" and notify.recv(100) == b"STOPPING=1" and status == 0


class WebSocket:
    """As little of one as it takes to ask for something."""

    def __init__(self, url):
        self.sock = connect(url)
        self.file = self.sock.makefile("rb")
        self.sock.sendall(head_of("GET /", *UPGRADE))
        while self.file.readline() != b"\r\n":
            pass
        self.send(INITIALIZE)
        self.send(INITIALIZED)

    def send(self, message):
        self.sock.sendall(frame(TEXT, json.dumps(message).encode()))

    def read(self):
        _, size = self.file.read(2)
        if size > 125:
            size = int.from_bytes(self.file.read(2 if size == 126 else 8), "big")
        return json.loads(self.file.read(size))

    def call(self, identity, method, **params):
        self.send({"id": identity, "method": method, "params": params})
        while (message := self.read()).get("id") != identity:
            pass
        if "error" in message:
            raise ValueError(message["error"]["message"])
        return message

    def output(self, process_id):
        got = b""
        while True:
            message = self.read()
            params = message.get("params", {})
            if params.get("processId") != process_id:
                continue
            if message["method"] == "process/output":
                got += base64.b64decode(params["chunk"])
            if message["method"] == "process/closed":
                return got.decode()

    def close(self):
        self.file.close()
        self.sock.close()


CASES = [
    ("stdio: answers are lines", lambda: stdio_answers_line_by_line("stdio")),
    ("stdio:// is the same", lambda: stdio_answers_line_by_line("stdio://")),
    ("stdio: LF, CR LF, blank lines, a last line without end", stdio_line_ends),
    ("stdio: what cannot be parsed is answered in the protocol's words", stdio_parse_error_text),
    ("stdio: the end of input kills everything that was started", stdio_end_of_input_kills_the_tree),
    ("stdio: the end of input does not wait for waiting requests",
     stdio_end_of_input_ends_a_server_that_waits),
    ("stdio: an unknown notification exits 1", lambda: stdio_violation_exits_1({"method": "nope"})),
    ("stdio: a response exits 1", lambda: stdio_violation_exits_1({"id": 1, "result": {}})),
    ("stdio: what came before a violation is answered",
     stdio_what_came_before_a_violation_is_answered),
    ("stdio: a line of 64 MiB is taken, one byte more exits 0", stdio_line_limit),
    ("stdio: --max-line-bytes", stdio_line_limit_is_an_option),
    ("stdio: what is not UTF-8 exits 0", stdio_not_utf8_exits_0),
    ("stdio: no pings, and no silence that is too long", stdio_pings_nobody),
    ("stdio: a client that does not read stops the program", stdio_output_is_back_pressure),
    ("stdio: a client that cannot be written to ends the server", stdio_reader_gone_ends_it),
    ("stdio: a client that takes nothing does not keep the server", stdio_stuck_reader_does_not_keep_it),
    ("stdio: files", stdio_on_files),
    ("stdio: one socket for both", stdio_on_one_socket),
    ("stdio: a terminal, whose flags stay", stdio_on_a_terminal),
    ("stdio: non-blocking descriptors", stdio_non_blocking_descriptors),
    ("stdio: closed descriptors", stdio_on_closed_descriptors),
    ("stdio: SIGTERM", stdio_sigterm_ends_it),
    ("stdio twice is a usage error",
     lambda: stdio_with_others("--listen", "stdio", "--listen", "stdio://")),
    ("stdio and another is a usage error",
     lambda: stdio_with_others("--listen", "ws://127.0.0.1:0", "--listen", "stdio")),
    ("several listeners, a URL each, in order", several_listeners),
    ("one listener that fails, and nothing is announced or left", one_that_fails_fails_all),
    ("unix: the socket has mode 0600 whatever the umask", unix_socket_mode),
    ("unix: what kill -9 left behind is replaced", unix_socket_after_kill),
    ("unix: a socket somebody answers on is in use", unix_socket_in_use),
    ("unix: another kind of file is in use", unix_socket_over_a_file),
    ("unix: what is not ours is not removed", unix_socket_of_somebody_else_stays),
    ("unix: bad values are start errors", unix_socket_bad_values),
    ("unix: a token where one is asked for", unix_socket_with_a_token),
    ("--any-path", any_path),
    ("without --any-path other paths are 404", any_path_is_off),
    ("--exit-on-stdin-close", lambda: exit_on_stdin_close("--exit-on-stdin-close")),
    ("its variable: true", lambda: exit_on_stdin_close(**{EXIT_VARIABLE: "true"})),
    ("its variable: false", lambda: stdin_close_alone_means_nothing(**{EXIT_VARIABLE: "false"})),
    ("its variable: anything else is a usage error", exit_variable_must_be_a_word),
    ("without it the end of stdin means nothing", stdin_close_alone_means_nothing),
    ("systemd: --listen systemd", lambda: systemd_sockets("--listen", "systemd")),
    ("systemd: sockets and no --listen mean the same", systemd_sockets),
    ("systemd: nothing of it reaches a program", systemd_sockets_reach_no_program),
    ("systemd: beside another listener", systemd_with_another),
    ("systemd: sockets that --listen leaves out are closed", systemd_not_asked_for),
    ("systemd: sockets for another process are not taken",
     lambda: systemd_without_sockets(wrong_pid=True)),
    ("systemd: none passed", lambda: systemd_without_sockets(LISTEN_FDS="0")),
    ("systemd: a socket of another kind is a start error", systemd_bad_socket),
    ("systemd: beyond this machine only when told so", systemd_beyond_this_machine),
    ("systemd: twice is a usage error", systemd_twice),
    ("systemd: READY=1 and STOPPING=1", systemd_is_told),
]


run_cases([(name, holds(case)) for name, case in CASES], jobs=1)
