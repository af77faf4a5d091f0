#!/usr/bin/env python3
"""fs/watchMissing, discovery and environmentConfig/read as a black box: tier2.py PATH-TO-BAILEY.

Prints a line a case, and 'N passed, N failed' last. That nothing is told is shown with another
watch: the kernel reports in order, so when that one has been told, the first one will not be.
"""

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile

sys.dont_write_bytecode = True
TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path[:0] = [os.path.join(TESTS, "support"), os.path.join(TESTS, "conformance")]

from cases import PATIENCE_S, run  # noqa: E402
from channel import SocketTarget  # noqa: E402
from websocket import WebSocket  # noqa: E402

BAILEY = os.path.abspath(sys.argv[1])
MIB = 1 << 20


class Client:
    """One connection after its handshake."""

    async def open(self, port, resume=None):
        self.waiting, self.told, self.last_id = {}, asyncio.Queue(), 0
        self.socket = WebSocket(self.on_message, lambda data: None, lambda code, reason: None)
        await self.socket.connect(SocketTarget(f"ws://127.0.0.1:{port}"), "/", {})
        self.session = await self.result("initialize", clientName="t", resumeSessionId=resume)
        self.capabilities = self.session["environmentInfo"]["capabilities"]
        self.socket.send(b'{"method":"initialized"}')
        return self

    def on_message(self, data, _is_binary):
        message = json.loads(data)
        if "id" in message:
            self.waiting.pop(message["id"]).set_result(message)
        else:
            self.told.put_nowait(message)

    def ask(self, method, **params):
        """Sends a request; the answer may be awaited, or not."""
        self.last_id += 1
        answer = self.waiting[self.last_id] = asyncio.get_running_loop().create_future()
        request = {"id": self.last_id, "method": method, "params": params}
        self.socket.send(json.dumps(request).encode())
        return answer

    async def answer(self, method, **params):
        return await asyncio.wait_for(self.ask(method, **params), PATIENCE_S)

    async def result(self, method, **params):
        answer = await self.answer(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    async def error(self, method, **params):
        answer = await self.answer(method, **params)
        assert "error" in answer, answer
        return answer["error"]["code"], answer["error"]["message"]

    async def watch(self, number, *missing, present=None):
        answer = await self.result("fs/watchMissing", watchId=number, missing=list(missing),
                                   present=present)
        return answer["watching"]

    async def next_told(self):
        return await asyncio.wait_for(self.told.get(), PATIENCE_S)


class Yard:
    """A fresh directory, a server, and a client of it; not below /tmp, which policies open."""

    def __init__(self, *options, **environment):
        self.options, self.environment = options, environment

    async def __aenter__(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="bailey-tier2-", dir="/var/tmp"))
        os.chmod(self.dir, 0o755)
        self.log = open(self.dir + "/.log", "wb")
        environment = {k: v for k, v in os.environ.items() if k not in ("TMPDIR", "CODEX_HOME")}
        self.server = await asyncio.create_subprocess_exec(
            BAILEY, "exec-server", "--listen", "ws://127.0.0.1:0", "--drain-timeout", "0",
            *self.options, cwd=self.dir,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=self.log,
            env={**environment, **self.environment})
        url = await asyncio.wait_for(self.server.stdout.readline(), PATIENCE_S)
        self.port = int(url.decode().rsplit(":", 1)[1])
        self.client = await self.connect()
        return self

    async def __aexit__(self, *_):
        self.server.terminate()
        code = await asyncio.wait_for(self.server.wait(), PATIENCE_S)
        self.log.close()
        if code != 0:
            with open(self.dir + "/.log", encoding="utf-8") as log:
                print(log.read(), file=sys.stderr)
        shutil.rmtree(self.dir)
        assert code == 0, f"the server ended with {code}"

    def connect(self, resume=None):
        return Client().open(self.port, resume)

    def path(self, name):
        return os.path.join(self.dir, name)

    def uri(self, name):
        return "file://" + self.path(name)

    def put(self, name, contents="x"):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(contents if isinstance(contents, bytes) else contents.encode())
        return path

    async def is_quiet(self, client):
        """Nothing is told to `client` about what has happened so far."""
        other = await self.connect()
        assert await other.watch(1, self.uri("sentinel"))
        self.put("sentinel")
        await other.next_told()
        os.unlink(self.path("sentinel"))
        other.socket.terminate()
        await client.result("environment/status")
        return client.told.empty()

    async def discover(self, *names, sandbox=None):
        roots = [{"id": name, "path": self.uri(name), "sandbox": sandbox} for name in names]
        return (await self.client.result("capabilityRoots/discoverV1", roots=roots))["roots"]


def changed(number):
    return {"method": "fs/missingChanged", "params": {"watchId": number}}


# ---- fs/watchMissing


async def watch_tells_once():
    async with Yard() as yard:
        assert yard.client.capabilities["fsWatchMissing"] is True
        assert await yard.client.watch(7, yard.uri("a"), yard.uri("b"))
        yard.put("a")
        assert await yard.client.next_told() == changed(7)
        yard.put("b")
        assert await yard.is_quiet(yard.client)


async def watch_takes_plain_paths():
    async with Yard() as yard:
        assert await yard.client.watch(1, yard.path("a"))
        os.symlink("/nonexistent", yard.path("a"))
        assert await yard.client.next_told() == changed(1)


async def watch_of_present():
    async with Yard() as yard:
        yard.put("f")
        assert await yard.client.watch(1, yard.uri("a"), present=yard.uri("f"))
        with open(yard.path("f"), "ab") as file:
            file.write(b"more")
        assert await yard.client.next_told() == changed(1)
        assert await yard.client.watch(2, yard.uri("a"), present=yard.uri("f"))
        os.unlink(yard.path("f"))
        assert await yard.client.next_told() == changed(2)
        assert not await yard.client.watch(3, yard.uri("a"), present=yard.uri("f"))


async def watch_sees_missing_parents():
    async with Yard() as yard:
        assert await yard.client.watch(1, yard.uri("p/q/r"))
        os.mkdir(yard.path("beside"))
        assert await yard.is_quiet(yard.client)
        os.rename(yard.path("beside"), yard.path("p"))
        assert await yard.client.next_told() == changed(1)


async def watch_is_replaced():
    async with Yard() as yard:
        assert await yard.client.watch(1, yard.uri("a"))
        assert await yard.client.watch(2, yard.uri("b"))
        yard.put("a")
        assert await yard.is_quiet(yard.client)
        yard.put("b")
        assert await yard.client.next_told() == changed(2)


async def watch_is_ended_by_a_refused_one():
    async with Yard() as yard:
        yard.put("there")
        assert await yard.client.watch(1, yard.uri("a"))
        assert not await yard.client.watch(2, yard.uri("there"))
        yard.put("a")
        assert await yard.is_quiet(yard.client)
        assert not await yard.client.watch(2, yard.uri("b"))  # the number is used up


async def watch_numbers_grow():
    async with Yard() as yard:
        assert not await yard.client.watch(0, yard.uri("a"))
        assert await yard.client.watch(5, yard.uri("a"))
        assert not await yard.client.watch(5, yard.uri("b"))
        assert not await yard.client.watch(4, yard.uri("b"))
        yard.put("a")  # the watch in place has stayed
        assert await yard.client.next_told() == changed(5)
        assert await yard.client.watch(2**64 - 1, yard.uri("b"))
        other = await yard.connect()
        assert await other.watch(1, yard.uri("b"))


async def watch_counts_paths():
    async with Yard() as yard:
        names = [yard.uri(f"n{i}") for i in range(65)]
        assert not await yard.client.watch(1)
        assert not await yard.client.watch(2, *names)
        assert await yard.client.watch(3, *names[:64])
        yard.put("n63")
        assert await yard.client.next_told() == changed(3)
        assert not await yard.client.watch(4, "file:///C:/x")
        assert not await yard.client.watch(5, yard.uri("a"), present="file://host/x")


async def watch_checks_parameters():
    async with Yard() as yard:
        good = {"watchId": 1, "missing": [yard.uri("a")]}
        for bad, text in (({"watchId": -1}, "watchId"), ({"missing": [5]}, "missing"),
                          ({"missing": ["a"]}, "relative"), ({"present": "a"}, "relative"),
                          ({"missing": ["http://x/"]}, "unsupported path URI scheme `http`")):
            code, message = await yard.client.error("fs/watchMissing", **{**good, **bad})
            assert code == -32602 and text in message, message
        assert await yard.client.watch(1, yard.uri("a"))  # none of them has counted


async def watch_goes_with_its_connection():
    """The session goes on with another one, where numbers begin anew."""
    async with Yard() as yard:
        assert await yard.client.watch(9, yard.uri("a"))
        session = yard.client.session["sessionId"]
        yard.client.socket.terminate()
        resumed = await repeat(lambda _: yard.connect(session))
        assert await resumed.watch(1, yard.uri("b"))
        yard.put("a")
        assert await yard.is_quiet(resumed)
        yard.put("b")
        assert await resumed.next_told() == changed(1)


async def watch_has_a_limit():
    """Eight: the ways to two files in the yard are longer together, the way to one is not."""
    async with Yard("--max-missing-watches", "8") as yard:
        other = await yard.connect()
        assert await other.watch(1, yard.uri("a"))
        assert not await yard.client.watch(1, yard.uri("b"))
        other.socket.terminate()

        async def watch(number):
            assert await yard.client.watch(number + 2, yard.uri("b"))
        await repeat(watch)
        yard.put("b")
        assert (await yard.client.next_told())["method"] == "fs/missingChanged"


async def repeat(attempt):
    """Until the server has noticed that a connection is gone."""
    for number in range(200):
        try:
            return await attempt(number)
        except AssertionError:
            await asyncio.sleep(0.05)
    return await attempt(200)


async def watch_can_be_switched_off():
    async with Yard("--max-missing-watches", "0") as yard:
        assert yard.client.capabilities["fsWatchMissing"] is False
        assert not await yard.client.watch(1, yard.uri("a"))


async def watch_requests_may_pile_up():
    async with Yard() as yard:
        answers = [yard.client.ask("fs/watchMissing", watchId=n, missing=[yard.uri("a")])
                   for n in range(1, 301)]
        answers = await asyncio.wait_for(asyncio.gather(*answers), PATIENCE_S)
        assert answers[-1]["result"]["watching"]
        yard.put("a")
        assert await yard.client.next_told() == changed(300)
        assert await yard.is_quiet(yard.client)


async def watch_outlives_nothing():
    """Connections that go away while their watch is being set up."""
    async with Yard() as yard:
        for _ in range(30):
            other = await yard.connect()
            for number in range(1, 4):
                other.ask("fs/watchMissing", watchId=number, missing=[yard.uri("a")])
            other.socket.terminate()
        assert await yard.client.watch(1, yard.uri("a"))


# ---- capabilityRoots/discoverV1


def managed(yard, *entries):
    return {"permissions": {"type": "managed", "network": "restricted", "file_system": {
        "type": "restricted", "entries": [
            {"path": {"type": "special", "value": {"kind": name[1:]}}, "access": access}
            if name.startswith(":") else
            {"path": {"type": "path", "path": yard.uri(name)}, "access": access}
            for name, access in entries]}},
            "cwd": yard.uri("."), "windowsSandboxLevel": "disabled"}


async def discovery_finds():
    async with Yard() as yard:
        manifest = '{"name":"x","mcpServers":"./m.json"}'
        yard.put("r/.claude-plugin/plugin.json", manifest)
        yard.put("r/m.json", "mcp")
        yard.put("r/.app.json", "apps")
        yard.put("r/s/SKILL.md", "# \u00fc\u0000\n")
        yard.put("r/s/agents/openai.yaml", "a: 1")
        [found] = await yard.discover("r")

        def file(name, contents):
            return {"path": yard.uri(name), "contents": contents}
        own = file("r/.claude-plugin/plugin.json", manifest)
        assert found == {
            "id": "r", "path": yard.uri("r"), "error": None, "warnings": [],
            "plugin": {"manifest": own, "mcpConfig": file("r/m.json", "mcp"),
                       "appsConfig": file("r/.app.json", "apps")},
            "skills": [{"instructions": file("r/s/SKILL.md", "# \u00fc\u0000\n"),
                        "metadata": file("r/s/agents/openai.yaml", "a: 1")}],
            "namespaceManifests": [own]}, found


async def discovery_of_what_is_no_directory():
    async with Yard() as yard:
        yard.put("f")
        os.mkfifo(yard.path("fifo"))
        os.symlink("nowhere", yard.path("dangling"))
        found = await yard.discover("f", "fifo", "dangling", "nope", "f/x")
        errors = [root["error"].replace(yard.uri(""), "") for root in found]
        missing = "No such file or directory (os error 2)"
        assert errors == ["capability root f is not a directory",
                          "capability root fifo is not a directory",
                          "failed to inspect capability root dangling: " + missing,
                          "failed to inspect capability root nope: " + missing,
                          "failed to inspect capability root f/x: Not a directory (os error 20)"]
        [root] = (await yard.client.result("capabilityRoots/discoverV1", roots=[
            {"id": "c", "path": "file:///C:/x"}]))["roots"]
        assert root["path"] == "file:///C:/x" and "is invalid on 'linux'" in root["error"]


async def discovery_never_waits_for_a_fifo():
    async with Yard() as yard:
        os.makedirs(yard.path("r/.codex-plugin"))
        os.mkfifo(yard.path("r/.codex-plugin/plugin.json"))
        os.mkfifo(yard.path("r/.mcp.json"))
        yard.put("r/.claude-plugin/plugin.json", "{}")
        [found] = await yard.discover("r")
        assert found["plugin"]["mcpConfig"] is None and found["warnings"] == []


async def discovery_follows_order():
    async with Yard() as yard:
        yard.client.ask("fs/createDirectory", path=yard.uri("r/s"), recursive=True)
        yard.client.ask("fs/writeFile", path=yard.uri("r/s/SKILL.md"), dataBase64="eA==")
        found = yard.client.ask("capabilityRoots/discoverV1",
                                roots=[{"id": "r", "path": yard.uri("r")}])
        yard.client.ask("fs/remove", path=yard.uri("r"))
        [root] = (await asyncio.wait_for(found, PATIENCE_S))["result"]["roots"]
        assert len(root["skills"]) == 1


async def discovery_counts_roots():
    async with Yard() as yard:
        os.mkdir(yard.path("r"))
        assert len(await yard.discover(*["r"] * 128)) == 128
        roots = [{"id": "r", "path": yard.uri("r")}] * 129
        assert await yard.client.error("capabilityRoots/discoverV1", roots=roots) == (
            -32600, "capability root discovery accepts at most 128 roots")
        assert await yard.discover() == []


async def discovery_walks_so_far():
    async with Yard() as yard:
        yard.put("deep/1/2/3/4/5/6/SKILL.md")
        yard.put("deep/1/2/3/4/5/6/7/SKILL.md")
        for n in range(2000):
            os.makedirs(yard.path(f"wide/{n:04}"))
        yard.put("wide/9999/SKILL.md")
        os.mkdir(yard.path("full"))
        for n in range(20001):
            os.close(os.open(yard.path(f"full/{n:05}"), os.O_CREAT | os.O_WRONLY))
        yard.put("full/SKILL.md")
        deep, wide, full = await yard.discover("deep", "wide", "full")
        assert [s["instructions"]["path"] for s in deep["skills"]] == [
            yard.uri("deep/1/2/3/4/5/6/SKILL.md")] and deep["warnings"] == []
        for name, found in (("wide", wide), ("full", full)):
            assert found["skills"] == [] and found["warnings"] == [
                f"capability scan reached its traversal limit (root: {yard.uri(name)})"], found


async def discovery_reads_so_much():
    async with Yard() as yard:
        yard.put("r/.codex-plugin/plugin.json", "{}" + " " * (MIB - 2))
        yard.put("r/.mcp.json", "m" * (MIB + 1))
        for n in range(17):
            yard.put(f"r/{n:02}/SKILL.md", "s" * MIB)
        yard.put("r/99/SKILL.md", b"\xff")
        [found] = await yard.discover("r")
        assert len(found["plugin"]["manifest"]["contents"]) == MIB
        assert found["plugin"]["mcpConfig"] is None
        assert len(found["skills"]) == 15
        too_long = f"capability file {yard.uri('r/.mcp.json')} exceeds the 1048576-byte limit"
        bundle = "capability root bundle exceeds the 16777216-byte limit"
        assert found["warnings"][:3] == [too_long, bundle, bundle], found["warnings"]


async def discovery_fits_into_a_message():
    async with Yard("--max-reply-bytes", "3000000") as yard:
        for n in range(2):
            yard.put(f"r/{n}/SKILL.md", "s" * MIB)
        assert len((await yard.discover("r"))[0]["skills"]) == 2
        roots = [{"id": "r", "path": yard.uri("r")}] * 128
        code, message = await yard.client.error("capabilityRoots/discoverV1", roots=roots)
        assert code == -32603 and "exceeds the limit of 3000000 bytes" in message, message


async def discovery_counts_values():
    async with Yard() as yard:
        for n in range(1900):
            yard.put(f"r/{n}/SKILL.md", "")
        roots = [{"id": "r", "path": yard.uri("r")}] * 60
        code, message = await yard.client.error("capabilityRoots/discoverV1", roots=roots)
        assert code == -32603 and message == "response exceeds the limit of 262144 JSON values"


async def discovery_stops_with_its_client():
    async with Yard() as yard:
        for n in range(500):
            yard.put(f"r/{n}/SKILL.md")
        for _ in range(5):
            other = await yard.connect()
            other.ask("capabilityRoots/discoverV1",
                      roots=[{"id": "r", "path": yard.uri("r")}] * 100)
            await other.result("environment/status")
            other.socket.terminate()
        assert len((await yard.discover("r"))[0]["skills"]) == 500


async def discovery_inside_a_wall():
    """What the policy hides is not found; the same without it is, else this would prove nothing."""
    async with Yard() as yard:
        yard.put("r/.codex-plugin/plugin.json", '{"mcpServers":"./lnk.json"}')
        yard.put("secret.json", "the secret")
        os.symlink(yard.path("secret.json"), yard.path("r/lnk.json"))
        yard.put("r/open/SKILL.md", "open")
        yard.put("r/closed/SKILL.md", "closed")
        yard.put("above/.codex-plugin/plugin.json", "above")
        yard.put("above/q/SKILL.md", "q")
        assert yard.client.capabilities["capabilityDiscoverySandbox"] is True

        free, free_q = await yard.discover("r", "above/q")
        assert free["plugin"]["mcpConfig"]["contents"] == "the secret"
        assert len(free["skills"]) == 2 and len(free_q["namespaceManifests"]) == 1

        wall = managed(yard, (":minimal", "read"), ("r", "read"), ("r/closed", "deny"),
                       ("above/q", "read"))
        walled, walled_q, hidden = await yard.discover("r", "above/q", "above", sandbox=wall)
        assert walled["plugin"]["mcpConfig"] is None
        assert [s["instructions"]["contents"] for s in walled["skills"]] == ["open"]
        assert walled["warnings"] == [
            f"failed to scan capability path {yard.uri('r/closed')}: "
            "Permission denied (os error 13)"], walled["warnings"]
        assert walled_q["namespaceManifests"] == [] and len(walled_q["skills"]) == 1
        assert "secret" not in json.dumps([walled["skills"], walled["warnings"], hidden])
        assert hidden["skills"] == [] and hidden["plugin"] is None


async def discovery_with_a_wall_for_each_root():
    async with Yard() as yard:
        yard.put("a/SKILL.md", "a")
        yard.put("b/SKILL.md", "b")
        only_a = managed(yard, (":minimal", "read"), ("a", "read"))
        roots = [{"id": str(n), "path": yard.uri(name), "sandbox": sandbox}
                 for n, (name, sandbox) in enumerate(
                     [("a", only_a), ("b", only_a), ("b", None), ("a", only_a)])]
        found = (await yard.client.result("capabilityRoots/discoverV1", roots=roots))["roots"]
        assert [len(root["skills"]) for root in found] == [1, 0, 1, 1], found
        assert "No such file or directory" in found[1]["error"]


async def discovery_of_an_impossible_wall():
    async with Yard() as yard:
        os.mkdir(yard.path("r"))
        for sandbox in ({}, 5, {"permissions": {"type": "nonsense"}}):
            code, _ = await yard.client.error("capabilityRoots/discoverV1", roots=[
                {"id": "r", "path": yard.uri("r"), "sandbox": sandbox}])
            assert code == -32602


# ---- what is installed, and configuration


async def installed_is_nothing():
    async with Yard() as yard:
        assert yard.client.capabilities["capabilityDiscoveryV2"] is False
        nothing = {"plugins": [], "skills": [], "warnings": []}
        for cwd in (yard.uri("."), yard.uri("nope"), yard.path("."), "file:///C:/x"):
            assert await yard.client.result("capabilities/discoverV2", cwd=cwd) == nothing
        assert (await yard.client.error("capabilities/discoverV2"))[1] == "missing field `cwd`"
        assert (await yard.client.error("capabilities/discoverV2", cwd="x"))[0] == -32602


async def read_config(yard, **changes):
    params = {"cwd": yard.uri("."), "configPaths": [["a"]], "requirementsPaths": [], **changes}
    return await yard.client.answer("environmentConfig/read", **params)


async def configuration_has_no_layers():
    empty = {"layers": [], "cloudInsertionIndex": 0}
    for home, codex_home, want in (("/h", "/c/x", "file:///c/x"), ("/h", None, "file:///h/.codex"),
                                   ("/h", "not/absolute", "file:///h/.codex")):
        environment = {"HOME": home, **({"CODEX_HOME": codex_home} if codex_home else {})}
        async with Yard(**environment) as yard:
            assert yard.client.capabilities["environmentConfigRead"] is False
            assert (await read_config(yard))["result"] == {
                "userHomeDir": "file://" + home, "codexHomeDir": want,
                "hostname": socket.gethostname(), "config": empty, "requirements": empty}


async def configuration_checks_parameters():
    async with Yard() as yard:
        none = "at least one config or requirements path is required"
        no_key = "TOML paths must contain at least one key segment"
        for changes, text in (({"configPaths": []}, none), ({"configPaths": [["a"], []]}, no_key),
                              ({"requirementsPaths": [[]]}, no_key), ({"cwd": "x"}, "relative"),
                              ({"cwd": "file:///C:/x"}, "is invalid on 'linux'"),
                              ({"configPaths": ["a"]}, "configPaths"),
                              ({"requirementsPaths": None}, "requirementsPaths")):
            answer = await read_config(yard, **changes)
            assert answer["error"]["code"] == -32602 and text in answer["error"]["message"], answer
        assert "result" in await read_config(yard, configPaths=[], requirementsPaths=[["a"]])


CASES = [
    watch_tells_once, watch_takes_plain_paths, watch_of_present, watch_sees_missing_parents,
    watch_is_replaced, watch_is_ended_by_a_refused_one, watch_numbers_grow, watch_counts_paths,
    watch_checks_parameters, watch_goes_with_its_connection, watch_has_a_limit,
    watch_can_be_switched_off, watch_requests_may_pile_up, watch_outlives_nothing,
    discovery_finds, discovery_of_what_is_no_directory, discovery_never_waits_for_a_fifo,
    discovery_follows_order, discovery_counts_roots, discovery_walks_so_far,
    discovery_reads_so_much, discovery_fits_into_a_message, discovery_counts_values,
    discovery_stops_with_its_client, discovery_inside_a_wall, discovery_with_a_wall_for_each_root,
    discovery_of_an_impossible_wall,
    installed_is_nothing, configuration_has_no_layers, configuration_checks_parameters,
]


run([(case.__name__, lambda case=case: asyncio.run(case())) for case in CASES], jobs=1)
