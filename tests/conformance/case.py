"""Runs one conformance case: prepares a directory, carries out the steps, compares."""

import asyncio
import base64
import json
import os
import re
import shutil
import stat
import tempfile
import time

import values
from channel import Pipes, StdioTarget
from matchers import mismatch
from values import UNDEFINED, show
from websocket import HandshakeError, WebSocket


class Failure(Exception):
    """The server did not do what the case wants."""


# ---- connections


class Connection:
    """A client: answers go to whoever asked, everything else is queued.

    With a `document` (schema.py) what is exchanged is held against it; `complaints` is what was found.
    """

    def __init__(self, name, target, log, document=None):
        self.name = name
        self.log = log
        self.document = document
        self.asked = {}  # JSON text of an id: method, params
        self.complaints = []
        self.pending = {}  # JSON text of an id: future
        self.queue = []
        self.pongs = []
        self.started = {}  # process ids, in order
        self.closed = None
        self.next_id = 1000
        self.waiters = set()
        kind = Pipes if isinstance(target, StdioTarget) else WebSocket
        self.target = target
        self.ws = kind(self.on_message, self.on_pong, self.on_close)

    async def open(self, path, headers):
        try:
            await asyncio.wait_for(self.ws.connect(self.target, path, headers), 10)
        except (OSError, HandshakeError, asyncio.TimeoutError) as error:
            raise Failure(f"connect: {error}") from error

    def on_message(self, data, is_binary):
        text = values.utf8(data)
        try:
            message = values.parse(text)
        except ValueError:
            message = {"$unparsable": text[:200]}
        self.log(f"    <- {self.name}{' (binary)' if is_binary else ''} {show(message)}")
        key = self.answer_key(message)
        if self.document:
            self.check_message(key, text)
        if key in self.pending:
            self.resolve(self.pending.pop(key), message)
        else:
            self.queue.append(message)
        self.wake()

    def check_message(self, key, text):
        try:
            message = json.loads(text)  # with integers as they are
        except ValueError:
            return
        fault = None
        if "method" in message:
            fault = self.document.fault_of_notification(message["method"], message.get("params"))
        elif key in self.asked and "result" in message:
            fault = self.document.fault_of_exchange(*self.asked[key], message["result"])
        if fault:
            what = message.get("method") or self.asked[key][0]
            self.complaints.append(f"{what} is not as the OpenRPC document says: {fault}")

    @staticmethod
    def answer_key(message):
        if isinstance(message, dict) and "id" in message and "method" not in message:
            return values.write(message["id"])
        return None

    @staticmethod
    def resolve(future, result):
        if not future.done():
            future.set_result(result)

    def on_pong(self, data):
        self.pongs.append(values.utf8(data))
        self.wake()

    def on_close(self, code, reason):
        self.closed = {"code": code, "reason": reason}
        for future in self.pending.values():
            self.resolve(future, None)
        self.pending.clear()
        self.wake()

    def wake(self):
        for future in self.waiters:
            self.resolve(future, None)
        self.waiters.clear()

    def send_text(self, text, binary=False):
        self.log(f"    -> {self.name} {text[:400]}")
        self.ws.send(values.to_utf8(text), binary)

    def call(self, request, timeout_ms):
        """Sends at once; returns what to await for the answer."""
        message = dict(request)
        if "id" not in message:
            message["id"] = self.next_id
            self.next_id += 1
        params = message.get("params")
        if message.get("method") == "process/start" and isinstance(params, dict):
            if isinstance(params.get("processId"), str):
                self.started[params["processId"]] = True
        key = values.write(message["id"])
        future = asyncio.get_running_loop().create_future()
        if not self.closed:
            self.pending[key] = future
            text = values.write(message)
            if self.document:
                self.asked[key] = message["method"], json.loads(text).get("params")
            self.send_text(text)
        return self.wait_for_answer(future, key, message.get("method"), timeout_ms)

    async def wait_for_answer(self, future, key, method, timeout_ms):
        if self.closed and not future.done():
            raise self.was_closed("before it was sent")
        try:
            answer = await asyncio.wait_for(future, timeout_ms / 1000)
        except asyncio.TimeoutError:
            if self.pending.get(key) is future:
                del self.pending[key]
            raise Failure(f"no response to {method} within {timeout_ms} ms") from None
        if answer is None:
            raise self.was_closed(f"while waiting for {method}")
        return answer

    def was_closed(self, when):
        return Failure(f"connection closed {when} ({show(self.closed)})")

    async def until(self, ask, timeout_ms, what):
        """Waits until ask() returns something other than UNDEFINED."""
        end = time.monotonic() + timeout_ms / 1000
        while (answer := ask()) is UNDEFINED:
            future = asyncio.get_running_loop().create_future()
            self.waiters.add(future)
            try:
                await asyncio.wait_for(future, max(0, end - time.monotonic()))
            except asyncio.TimeoutError:
                self.waiters.discard(future)
                raise Failure(f"timed out after {timeout_ms} ms waiting for {what()}") from None
        return answer

    def take(self, test):
        """Removes and returns the first queued message that passes, or UNDEFINED."""
        for i, message in enumerate(self.queue):
            if test(message):
                return self.queue.pop(i)
        return UNDEFINED


async def http_exchange(target, request, timeout_ms):
    """One request on a fresh connection; reads until the answer is complete or time is up."""
    try:
        reader, writer = await target.open_stream()
    except OSError as error:
        raise Failure(f"http: {error}") from error
    data = ""
    end = time.monotonic() + timeout_ms / 1000
    writer.write(values.to_utf8(request))
    try:
        while not is_complete(data):
            more = await asyncio.wait_for(reader.read(65536), max(0, end - time.monotonic()))
            if not more:
                break
            data += more.decode("latin-1")
    except asyncio.TimeoutError:
        pass
    except OSError as error:
        raise Failure(f"http: {error}") from error
    finally:
        writer.transport.abort()
    head, _, body = data.partition("\r\n\r\n")
    status = re.match(r"HTTP/1\.[01] (\d{3})", data)
    headers = {}
    for line in head.split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon and name:
            headers[name.lower()] = value.strip()
    return {"status": int(status[1]) if status else None, "headers": headers, "body": body}


def is_complete(data):
    head, separator, body = data.partition("\r\n\r\n")
    if not separator:
        return False
    size = re.search(r"content-length: *(\d+)", data, re.IGNORECASE)
    return bool(re.match(r"HTTP/1\.[01] 101", head) or (size and len(body) >= int(size[1])))


# ---- the disk


def make_parent(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)


def make_file(path, item):
    make_parent(path)
    with open(path, "wb") as file:
        if "sparse" in item:
            file.truncate(item["sparse"])
        elif "base64" in item:
            file.write(values.decode_base64(item["base64"]))
        else:
            file.write(values.to_utf8(item.get("text", "")))
    if item.get("mode"):
        os.chmod(path, int(item["mode"], 8))


def make_files(path, item):
    os.makedirs(path, exist_ok=True)
    for i in range(item["count"]):
        with open(os.path.join(path, f"{item.get('prefix') or 'f'}{i}"), "wb"):
            pass


def make_fifo(path, _item):
    make_parent(path)
    os.mkfifo(path)


def make_symlink(path, item):
    make_parent(path)
    os.symlink(item["target"], path)


def remove(path, _item=None):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


SETUP = {
    "dir": lambda path, item: os.makedirs(path, exist_ok=True),
    "file": make_file,
    "symlink": make_symlink,
    "fifo": make_fifo,
    "files": make_files,
    "remove": remove,
}


def apply_setup(items, tmp):
    for item in items or []:
        kind = next((k for k in (*SETUP, "hardlink") if k in item), None)
        if kind is None:
            raise ValueError(f"unknown setup item {show(item)}")
        path = os.path.join(tmp, item[kind])
        if kind == "hardlink":
            os.link(os.path.join(tmp, item["target"]), path)
        else:
            SETUP[kind](path, item)


def kind_of(mode):
    for kind, test in (("symlink", stat.S_ISLNK), ("dir", stat.S_ISDIR), ("file", stat.S_ISREG)):
        if test(mode):
            return kind
    return "other"


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return not re.match(r"\d+ \(.*\) [ZX]", file.read(), re.DOTALL)
    except OSError:
        return False


def make_removable(tmp):
    for directory, _names, _files in os.walk(tmp):
        os.chmod(directory, 0o700)
        for name in _names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)


# ---- substitution


def substitute(value, variables):
    if isinstance(value, str):
        return substitute_text(value, variables)
    if isinstance(value, list):
        return [substitute(v, variables) for v in value]
    if isinstance(value, dict):
        if list(value) == ["$var"]:
            return variables.get(value["$var"], UNDEFINED)
        return {substitute(k, variables): substitute(v, variables) for k, v in value.items()}
    return value


def substitute_text(text, variables):
    if text.startswith("${b64:") and text.endswith("}"):
        plain = substitute_text(text[6:-1], variables)
        return base64.b64encode(values.to_utf8(plain)).decode()
    repeat = re.fullmatch(r"\$\{repeat:(\d+):(.*)\}", text, re.DOTALL)
    if repeat:
        return repeat[2] * int(repeat[1])
    zeros = re.fullmatch(r"\$\{b64zeros:(\d+)\}", text)
    if zeros:
        return base64.b64encode(b"x" * int(zeros[1])).decode()
    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}",
                  lambda m: values.text_of(variables[m[1]]) if m[1] in variables else m[0], text)


# ---- a case


class Case:
    def __init__(self, case, target, log, document=None):
        self.case = case
        self.document = document
        self.target = target
        self.log = log
        self.tmp = tempfile.mkdtemp(prefix="conf-", dir=os.path.realpath(tempfile.gettempdir()))
        self.variables = {"TMP": self.tmp, "TMPURI": "file://" + self.tmp,
                          "UNPARSABLE": target.unparsable}
        self.connections = {}
        self.tasks = {}

    async def run(self):
        apply_setup(substitute(self.case.get("setup", []), self.variables), self.tmp)
        if not self.case.get("no_connect"):
            await self.connect("c1", handshake=self.case.get("handshake") is not False)
        for n, raw_step in enumerate(self.case["steps"], 1):
            step = substitute(raw_step, self.variables)
            times = step.get("repeat") or 1
            for i in range(times):
                try:
                    await self.run_step(substitute(step, {"I": i}) if times > 1 else step)
                except Failure as failure:
                    at = f"step {n}.{i}" if times > 1 else f"step {n}"
                    raise Failure(f"{at}: {failure}") from failure
        for connection in self.connections.values():
            if connection.complaints:
                raise Failure(connection.complaints[0])

    async def finish(self, keep):
        """Takes everything away. Returns what was wrong with the end of a connection, or None."""
        started = False
        for connection in self.connections.values():
            for process_id in connection.started if not connection.closed else ():
                started = True
                connection.ws.send(values.to_utf8(values.write(
                    {"id": f"cleanup-{process_id}"[:60], "method": "process/terminate",
                     "params": {"processId": process_id}})))
        await asyncio.sleep(0.03 if started else 0)
        complaints = []
        for connection in self.connections.values():
            connection.ws.terminate()
            complaints.append(await connection.ws.finish())
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        if not keep:
            make_removable(self.tmp)
            shutil.rmtree(self.tmp, ignore_errors=True)
        return next(filter(None, complaints), None)

    def connection(self, name):
        if name not in self.connections:
            raise Failure(f"no connection {name}")
        return self.connections[name]

    async def connect(self, name, path=None, headers=None, resume=None, handshake=True):
        connection = self.connections[name] = Connection(name, self.target, self.log, self.document)
        await connection.open(path or self.target.path, headers or {})
        if not handshake:
            return
        params = {"clientName": "conformance"}
        if resume:
            params["resumeSessionId"] = resume
        answer = await connection.call({"method": "initialize", "params": params}, 10000)
        if not isinstance(answer.get("result"), dict):
            raise Failure(f"initialize failed: {show(answer)}")
        variable = "SESSION" if name == "c1" else f"SESSION_{name}"
        self.variables[variable] = answer["result"].get("sessionId", UNDEFINED)
        connection.send_text('{"method":"initialized","params":{}}')

    def check(self, step, got):
        if "expect" in step:
            self.check_value(step["expect"], got)

    @staticmethod
    def check_value(want, got):
        why = mismatch(want, got)
        if why:
            raise Failure(f"{why}  [got {show(got)}]")

    def save(self, step, got):
        for name, path in (step.get("save") or {}).items():
            self.variables[name] = values.look_up(got, path)

    async def run_step(self, step):
        kind = next((k for k in STEPS if k in step), None)
        if kind is None:
            raise ValueError(f"unknown step {show(step)}")
        await STEPS[kind](self, step, self.connections.get(step.get("on", "c1")))

    # ---- steps: (step, connection it names)

    async def step_send(self, step, connection):
        connection = connection or self.connection(step.get("on", "c1"))
        answer = connection.call(step["send"], step.get("timeout_ms") or 10000)
        if step.get("async"):
            self.tasks[step["async"]] = asyncio.create_task(answer)
            return
        start = time.monotonic()
        got = await answer
        took = int((time.monotonic() - start) * 1000)
        if "within_ms" in step and took > step["within_ms"]:
            raise Failure(f"answered after {took} ms, wanted <= {step['within_ms']}")
        if "after_ms" in step and took < step["after_ms"]:
            raise Failure(f"answered after {took} ms, wanted >= {step['after_ms']}")
        self.check(step, got)
        self.save(step, got)

    async def step_await(self, step, _connection):
        got = await self.tasks[step["await"]]
        self.check(step, got)
        self.save(step, got)

    async def step_notify(self, step, connection):
        connection.send_text(values.write(step["notify"]))

    async def step_raw(self, step, connection):
        text = step["raw"]
        if step.get("pad_to"):
            size = len(values.to_utf8(text)) - len("${PAD}")
            text = text.replace("${PAD}", "a" * max(0, step["pad_to"] - size), 1)
        if step.get("nodes"):
            text = text.replace("${NODES}", ",".join("0" * step["nodes"]), 1)
        if step.get("nest"):
            text = text.replace("${NEST}", "[" * step["nest"] + "]" * step["nest"], 1)
        before = len(connection.queue)
        self.send_raw(step, connection, text)
        if "expect" not in step:
            return

        def next_message():
            if len(connection.queue) > before:
                return connection.queue.pop(before)
            return None if connection.closed else UNDEFINED

        got = await connection.until(next_message, step.get("timeout_ms") or 10000,
                                     lambda: "an answer")
        if got is None:
            raise connection.was_closed("instead of an answer")
        self.check(step, got)
        self.save(step, got)

    @staticmethod
    def send_raw(step, connection, text):
        binary = bool(step.get("binary"))
        if step.get("fragments"):
            data, size = values.to_utf8(text), step["fragments"]
            for start in range(0, len(data), size):
                connection.ws.send(data[start:start + size], binary, start + size >= len(data))
        elif step.get("raw_base64"):
            connection.ws.send(values.decode_base64(step["raw_base64"]), binary)
        else:
            connection.send_text(text, binary)

    async def step_expect_notification(self, step, connection):
        want = step["expect_notification"]

        def fits(message):
            return mismatch(want, message) is None

        if step.get("none"):
            await asyncio.sleep((step.get("within_ms") or 300) / 1000)
            hit = next((m for m in connection.queue if fits(m)), None)
            if hit is not None:
                raise Failure(f"unexpected message {show(hit)}")
            return

        def next_message():
            hit = connection.take(fits)
            return None if hit is UNDEFINED and connection.closed else hit

        got = await connection.until(
            next_message, step.get("timeout_ms") or 10000,
            lambda: f"a message like {show(want)}; unconsumed: {show(connection.queue)}")
        if got is None:
            raise connection.was_closed(f"while waiting for {show(want)}")
        self.save(step, got)

    async def step_expect_closed(self, step, connection):
        await connection.until(lambda: True if connection.closed else UNDEFINED,
                               step.get("timeout_ms") or 10000,
                               lambda: "the server to close the connection")
        if isinstance(step["expect_closed"], dict):
            self.check(step, connection.closed)

    async def step_expect_open(self, step, connection):
        await asyncio.sleep((step.get("within_ms") or 150) / 1000)
        if connection.closed:
            raise Failure(f"connection was closed ({show(connection.closed)})")

    async def step_connect(self, step, _connection):
        headers = dict(step.get("headers") or {})
        if step.get("deflate"):
            headers["Sec-WebSocket-Extensions"] = "permessage-deflate; client_max_window_bits"
        await self.connect(step["connect"], step.get("path"), headers, step.get("resume"),
                           step.get("handshake") is not False)

    async def step_terminate(self, step, _connection):
        self.connection(step["terminate"]).ws.terminate()
        await asyncio.sleep(step.get("settle_ms", 60) / 1000)

    async def step_close(self, step, _connection):
        connection = self.connection(step["close"])
        connection.ws.close(step.get("code") or 1000, values.to_utf8(step.get("reason") or ""))
        await connection.until(lambda: True if connection.closed else UNDEFINED, 10000,
                               lambda: "close")
        self.check(step, connection.closed)
        await asyncio.sleep(step.get("settle_ms", 60) / 1000)

    async def step_ping(self, step, connection):
        connection.ws.ping(values.to_utf8(step["ping"]))

        def take_pong():
            if step["ping"] not in connection.pongs:
                return UNDEFINED
            connection.pongs.remove(step["ping"])
            return True

        await connection.until(take_pong, 3000, lambda: "a pong with the same payload")

    async def step_sleep(self, step, _connection):
        await asyncio.sleep(step["sleep_ms"] / 1000)

    async def step_setup(self, step, _connection):
        apply_setup(step["setup"], self.tmp)

    async def step_collect_output(self, step, connection):
        got = await self.collect_output(step, connection)
        self.check(step, got)
        self.save(step, got)

    async def collect_output(self, step, connection):
        timeout_ms = step.get("timeout_ms") or 10000
        end = time.monotonic() + timeout_ms / 1000
        stop = step.get("until") or "closed"
        out = {"stdout": b"", "stderr": b"", "pty": b""}
        after = 0
        while True:
            answer = await connection.call(
                {"method": "process/read",
                 "params": {"processId": step["collect_output"], "afterSeq": after,
                            "maxBytes": None, "waitMs": 200}}, 10000)
            last = answer.get("result")
            if not last:
                raise Failure(f"process/read failed: {show(answer)}")
            for chunk in last["chunks"]:
                out[chunk["stream"]] += values.decode_base64(chunk["chunk"])
                after = max(after, chunk["seq"])
            everything = values.utf8(b"".join(out.values()))
            if self.is_collected(stop, last, after, everything):
                break
            if time.monotonic() > end:
                rest = {k: v for k, v in last.items() if k != "chunks"}
                raise Failure(f"process {step['collect_output']} not {show(stop)} within "
                              f"{timeout_ms} ms; so far {show(rest)} {everything[:200]}")
            if last.get("exited") or not last["chunks"]:
                await asyncio.sleep(0.015)
        texts = {stream: values.utf8(data) for stream, data in out.items()}
        members = ("exited", "exitCode", "closed", "sandboxDenied", "failure")
        return {**texts, "stdoutBytes": len(out["stdout"]),
                **{name: last.get(name, UNDEFINED) for name in members}}

    @staticmethod
    def is_collected(stop, last, after, everything):
        if isinstance(stop, dict):
            return stop["text"] in everything
        return bool(after > 0 if stop == "output" else last.get(stop))

    async def step_collect_events(self, step, connection):
        process_id = step["collect_events"]

        def is_mine(message):
            params, method = message.get("params"), message.get("method")
            return (isinstance(params, dict) and params.get("processId") == process_id
                    and isinstance(method, str) and method.startswith("process/"))

        def mine():
            return [m for m in connection.queue if isinstance(m, dict) and is_mine(m)]

        def numbers(events):
            return show([[m["method"], m["params"].get("seq")] for m in events])

        await connection.until(
            lambda: True if any(m["method"] == "process/closed" for m in mine()) else UNDEFINED,
            step.get("timeout_ms") or 10000,
            lambda: f"process/closed of {process_id}; have {numbers(mine())}")
        events = mine()
        connection.queue = [m for m in connection.queue if m not in events]
        in_order = sorted(events, key=lambda m: m["params"]["seq"])
        for i, event in enumerate(in_order, step.get("first_seq", 1)):
            if event["params"]["seq"] != i:
                raise Failure(f"sequence numbers are not contiguous: {numbers(events)}")
        if in_order[-1]["method"] != "process/closed":
            raise Failure("process/closed does not carry the highest seq")
        self.check(step, self.summary(in_order))

    @staticmethod
    def summary(events):
        chunks = [(m["params"]["stream"], values.decode_base64(m["params"]["chunk"]))
                  for m in events if m["method"] == "process/output"]
        exited = next((m["params"] for m in events if m["method"] == "process/exited"), None)
        texts = {stream: values.utf8(b"".join(d for s, d in chunks if s == stream))
                 for stream in ("stdout", "stderr", "pty")}
        return {**texts,
                "exitCode": exited.get("exitCode", UNDEFINED) if exited else None,
                "sandboxDenied": exited.get("sandboxDenied", UNDEFINED) if exited else UNDEFINED,
                "count": len(events),
                "methods": [m["method"] for m in events],
                "maxChunk": max((len(d) for _s, d in chunks), default=0),
                "totalBytes": sum(len(d) for _s, d in chunks)}

    async def step_fs_check(self, step, _connection):
        check = step["fs_check"]
        path = os.path.join(self.tmp, check["path"])
        try:
            status = os.lstat(path)
        except OSError:
            status = None
        if "exists" in check and (status is not None) != check["exists"]:
            raise Failure(f"{check['path']} {'exists' if status else 'does not exist'}")
        if status and check.get("kind") and kind_of(status.st_mode) != check["kind"]:
            raise Failure(f"{check['path']} is a {kind_of(status.st_mode)}, "
                          f"wanted {check['kind']}")
        if "text" in check:
            with open(path, "rb") as file:
                self.check_value(check["text"], values.utf8(file.read()))
        if "size" in check:
            self.check_value(check["size"], os.stat(path).st_size)
        if "mode" in check:
            self.check_value(check["mode"], f"{os.stat(path).st_mode & 0o777:o}")
        if "link" in check:
            self.check_value(check["link"], os.readlink(path))
        if "entries" in check:
            self.check_value({"$unordered": check["entries"]}, os.listdir(path))

    async def step_pid_alive(self, step, _connection):
        pid = int(values.text_of(step["pid_alive"]).strip())
        end = time.monotonic() + (step.get("timeout_ms") or 2000) / 1000
        while is_alive(pid) != step["expect"]:
            if time.monotonic() >= end:
                raise Failure(f"pid {pid} is {'alive' if is_alive(pid) else 'gone'}")
            await asyncio.sleep(0.03)

    async def step_http(self, step, _connection):
        self.check(step, await http_exchange(self.target, step["http"],
                                             step.get("timeout_ms") or 2000))

    async def step_upgrade(self, step, _connection):
        upgrade = step["upgrade"]
        headers = {"Host": self.target.host_header, "Upgrade": "websocket", "Connection": "Upgrade",
                   "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                   "Sec-WebSocket-Version": "13", **(upgrade.get("headers") or {})}
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items() if v is not None)
        request = (f"{upgrade.get('method') or 'GET'} {upgrade.get('path') or '/'} HTTP/1.1\r\n"
                   f"{lines}\r\n")
        self.check(step, await http_exchange(self.target, request,
                                             step.get("timeout_ms") or 2000))


STEPS = {
    "send": Case.step_send,
    "await": Case.step_await,
    "notify": Case.step_notify,
    "raw": Case.step_raw,
    "expect_notification": Case.step_expect_notification,
    "expect_closed": Case.step_expect_closed,
    "expect_open": Case.step_expect_open,
    "connect": Case.step_connect,
    "terminate": Case.step_terminate,
    "close": Case.step_close,
    "ping": Case.step_ping,
    "sleep_ms": Case.step_sleep,
    "setup": Case.step_setup,
    "collect_output": Case.step_collect_output,
    "collect_events": Case.step_collect_events,
    "fs_check": Case.step_fs_check,
    "pid_alive": Case.step_pid_alive,
    "http": Case.step_http,
    "upgrade": Case.step_upgrade,
}


async def run_case(case, target, log, keep, document=None):
    """Runs a case to its end. Returns None, or why it failed."""
    running = Case(case, target, log, document)
    try:
        await running.run()
        why = None
    except Failure as failure:
        why = str(failure)
    except Exception as error:  # a fault of the runner or the case must not end the other cases
        why = f"runner error: {type(error).__name__}: {error}"
    return await running.finish(keep) or why
