"""The ways to a server: WebSocket over TCP or a Unix socket, or the pipes of one that is started."""

import asyncio
import os
import tempfile
from urllib.parse import urlsplit

LINE_MAX = 1 << 27
STOP_TIMEOUT_S = 15


def alarms(log, size=4000):
    """What a server has written that is more than information, and how that ends."""
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("info ", "debug ")))[-size:]


class SocketTarget:
    """A server that listens on `url`, ws:// or unix://."""

    unparsable = "failed to parse websocket JSON-RPC message from exec-server websocket "

    def __init__(self, url):
        parts = urlsplit(url)
        self.socket_path = parts.path if parts.scheme == "unix" else None
        self.host, self.port = parts.hostname, parts.port
        self.path = "/" if self.socket_path else parts.path or "/"
        name = "localhost" if self.socket_path else self.host
        self.host_header = f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port or 0}"

    async def open_stream(self):
        if self.socket_path:
            return await asyncio.open_unix_connection(self.socket_path, limit=1 << 20)
        return await asyncio.open_connection(self.host, self.port, limit=1 << 20)


class StdioTarget:
    """A command that speaks on its stdin and stdout; every connection is a process of its own."""

    path = "/"
    unparsable = "failed to parse JSON-RPC message from exec-server stdio: "

    def __init__(self, words, cwd, environment):
        self.words, self.cwd, self.environment = words, cwd, environment


class Pipes:
    """One line a message, in place of a WebSocket."""

    def __init__(self, on_message, on_pong, on_close):
        self.on_message = on_message
        self.on_close = on_close
        self.is_open = False

    async def connect(self, target, _path, _headers):
        pipe = asyncio.subprocess.PIPE
        self.stderr = tempfile.TemporaryFile()
        self.process = await asyncio.create_subprocess_exec(
            *target.words, cwd=target.cwd, env=target.environment, stdin=pipe, stdout=pipe,
            stderr=self.stderr, limit=LINE_MAX)
        self.is_open = True
        self.task = asyncio.create_task(self.receive())

    def send(self, data, binary=False, fin=True):
        if self.is_open:
            self.process.stdin.write(data + b"\n")

    def terminate(self):
        """Says no more, as a parent that has died."""
        if self.is_open:
            self.process.stdin.close()

    async def receive(self):
        while line := await self.process.stdout.readline():
            self.on_message(line.rstrip(b"\n"), False)
        self.is_open = False
        self.on_close(await self.process.wait(), alarms(self.stderr))

    async def finish(self):
        """Ends it. Returns what was wrong with the end, or None."""
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.task, STOP_TIMEOUT_S)
        except asyncio.TimeoutError:
            self.process.kill()
            return "the server did not end with its input"
        told = alarms(self.stderr)
        if self.process.returncode not in (0, 1) or "Sanitizer" in told:
            return f"the server ended with status {self.process.returncode}: {told}"
        return None


# What a case may do that only a WebSocket can, or a server that outlives its connection.
SOCKET_STEPS = {"http", "upgrade", "ping", "close", "connect", "terminate"}


def fits_stdio(case):
    """Whether a case makes sense there: one connection, made of lines."""
    if case.get("no_connect"):
        return False
    for step in case["steps"]:
        if SOCKET_STEPS & step.keys() or step.get("binary") or step.get("fragments"):
            return False
        if isinstance(step.get("expect_closed"), dict):
            return False
        if "raw" in step and (not step["raw"].strip() or "\n" in step["raw"]):
            return False  # not a line, or more than one
    return True


def server_words(command_words, transport, directory):
    """The command line of a server of ours on a transport."""
    value = {"ws": "ws://127.0.0.1:0", "unix": f"unix://{os.path.join(directory, 'socket')}",
             "stdio": "stdio"}[transport]
    return [*command_words, "exec-server", "--listen", value]
