#!/usr/bin/env python3
"""Policies as an attack, through a real server: policies.py PATH-TO-BAILEY [CASE...]

Broken, doubled, contradictory, huge and mixed ones. Whatever is sent, it is answered, the connection lives, and nothing
outside is read or written.
"""

import copy
import itertools
import json
import os
import threading

from ground import (DENIED, INVALID_PARAMS, NOT_FOUND, SECRET, Door, Ground, b64, begin, context, entry,
                    exchange, expect, glob, run_program, special, uri)
from bailey import TEXT, RpcError, frame, run  # noqa: E402

ODD_VALUES = [None, True, False, 0, -1, 1.5, 1 << 70, "", "x", "disabled", "DISABLED", [], [[]], {}, {"type": "x"}]
MISSING = object()


def legacy(ground, **more):
    return {"sandboxPolicy": {"type": "workspace-write", "writable_roots": [ground.ws], "network_access": False,
                              "exclude_slash_tmp": True, "exclude_tmpdir_env_var": True,
                              "read_only_access": {"type": "restricted", "include_platform_defaults": True,
                                                   "readable_roots": []}},
            "windowsSandboxLevel": "disabled", "useLegacyLandlock": False, **more}


def profile(ground):
    return context(special("minimal", "read"), entry(ground.ws, "write"), special("project_roots", "read", subpath="a"),
                   glob("**/*.key"), cwd=uri(ground.ws), workspaceRoots=[uri(ground.ws)],
                   policyContext={"cwd": uri(ground.ws), "workspaceRoots": [uri(ground.ws)]})


def places(value, path=()):
    """The way to every member and element of a JSON value."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield from places(inner, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    changed = copy.deepcopy(value)
    at = changed
    for key in path[:-1]:
        at = at[key]
    if new is MISSING:
        del at[path[-1]]
    else:
        at[path[-1]] = new
    return changed


def nothing_gets_out(ground, sandbox, what, reads=True):
    """The three kinds of requests that do harm: the codes of their answers."""
    door, target = Door(ground.client, what, sandbox), ground.out + "/planted"
    codes = [door.code("writeFile", path=target, dataBase64=b64(b"x"))]
    if reads:
        codes.append(door.code("readFile", path=ground.secret))
    try:
        ended = run_program(ground.client, ["/bin/sh", "-c", f"echo x > {target}; exec cat {ground.secret}"], sandbox)
        expect(not reads or SECRET not in ended[1], f"{what}: a program read it")
    except RpcError as error:
        codes.append(error.code)
    expect(0 not in codes, f"{what}: {codes}")
    expect(not os.path.lexists(target), f"{what}: written")
    return codes


def is_no_wall(path, value):
    """What a client that wants no wall writes."""
    return (not path and value in (None, MISSING)) or (path == ("permissions", "type") and value == "disabled")


def broken_sandboxes():
    """Each value of the wrong kind in each place; null in the place of the whole is the twin."""
    with Ground() as ground:
        wall_is_off(ground)
        for base in profile(ground), legacy(ground):
            ended = run_program(ground.client, ["/bin/sh", "-c", f"echo x > {ground.ws}/x; cat {ground.ws}/x"], base)
            expect(ended == (0, b"x\n"), f"what is allowed works: {ended}")
            nothing_gets_out(ground, base, "as it is")
            for path in places(base):
                for value in (*ODD_VALUES, MISSING):
                    if is_no_wall(path, value):
                        continue
                    # What may be left out in form A makes everything readable, as its contract says.
                    reads = path[:2] != ("sandboxPolicy", "read_only_access") and path != ("sandboxPolicy",)
                    what = f"{'/'.join(map(str, path))}: {'left out' if value is MISSING else value!r}"
                    nothing_gets_out(ground, replaced(base, path, value), what, reads)
        for text in "danger-full-access", "disabled", "null", "none":
            for value in (text, {"permissions": text}, {"sandboxPolicy": text, "windowsSandboxLevel": "disabled"},
                          [text], {"type": text}, {"Permissions": {"type": text}}, {"sandbox": None},
                          {"permissions": {"Type": text}, "windowsSandboxLevel": "disabled"},
                          {"permissions": {"type": text.upper()}, "windowsSandboxLevel": "disabled"},
                          {"permissions": {"type": [text]}, "windowsSandboxLevel": "disabled"}):
                codes = nothing_gets_out(ground, value, repr(value))
                expect(set(codes) == {INVALID_PARAMS}, f"{value}: {codes}")
        ground.expect_unharmed()


def wall_is_off(ground):
    door = Door(ground.client, "twin", None)
    for params in {"sandbox": None}, {}:
        ground.client.call("fs/writeFile", {"path": ground.out + "/planted", "dataBase64": "", **params})
        os.remove(ground.out + "/planted")
    expect(door.read(ground.secret) == SECRET, "null is no wall")
    ended = run_program(ground.client, ["/bin/cat", ground.secret], None)
    expect(ended == (0, SECRET), f"nor for a program: {ended}")


def both_languages():
    with Ground() as ground:
        off = {"permissions": {"type": "disabled"}, "windowsSandboxLevel": "disabled"}
        for both in {**profile(ground), **legacy(ground)}, {**legacy(ground), **off}, \
                {**off, "sandboxPolicy": {"type": "danger-full-access"}}, {**legacy(ground), "permissions": {}}:
            expect(set(nothing_gets_out(ground, both, "both")) == {INVALID_PARAMS}, "both languages")
        ground.expect_unharmed()


# ---- raw messages


def ask_raw(client, text, number):
    """The answer to a message that json.dumps would not write: its own, or the one without an id."""
    client.sock.sendall(frame(TEXT, text if isinstance(text, bytes) else text.encode()))
    while number not in client.answers and -1 not in client.answers and None not in client.answers:
        client.take_message()
    for key in number, -1, None:
        if key in client.answers:
            return client.answers.pop(key)
    return None


def raw_attempts(ground, texts):
    """Messages (with $ID, $OUT, $SECRET in them) that must be answered with an error, twice each."""
    for text in texts:
        for _ in range(2):
            number = ground.client.next_id
            ground.client.next_id += 1
            answer = ask_raw(ground.client, text.replace("$ID", str(number)).replace("$OUT", ground.out), number)
            expect("error" in answer and SECRET.decode() not in str(answer), f"{text[:300]}: {answer}")
            expect(not os.path.lexists(ground.out + "/planted"), f"{text[:300]}: written")
    ground.expect_unharmed()


def write_message(sandbox_members, more="", before=""):
    return ('{"id":$ID,"method":"fs/writeFile","params":{' + before + '"path":"$OUT/planted","dataBase64":"",'
            + sandbox_members + more + "}}")


def repeated_members():
    """In the policy, the request and the envelope: one of the two says there is no wall."""
    with Ground() as ground:
        wall = json.dumps(profile(ground), separators=(",", ":"))
        off = '{"permissions":{"type":"disabled"},"windowsSandboxLevel":"disabled"}'
        managed = json.dumps(profile(ground)["permissions"], separators=(",", ":"))
        texts = [write_message(f'"sandbox":{one},"sandbox":{two}')
                 for one, two in itertools.permutations((wall, off, "null"), 2)]
        texts += [write_message(f'"sandbox":{one},"s\\u0061ndbox":{two}')
                  for one, two in itertools.permutations((wall, off, "null"), 2)]
        texts += [write_message(f'"sandbox":{{"permissions":{one},"permissions":{two},'
                                '"windowsSandboxLevel":"disabled"}')
                  for one, two in itertools.permutations((managed, '{"type":"disabled"}'), 2)]
        texts += [write_message('"sandbox":' + wall.replace(old, new, 1)) for old, new in (
            ('"type":"managed"', '"type":"managed","type":"disabled"'),
            ('"type":"managed"', '"type":"disabled","type":"managed"'),
            ('"type":"managed"', '"type":"disabled","t\\u0079pe":"managed"'),
            ('"access":"write"', '"access":"write","access":"write"'),
            ('"windowsSandboxLevel"', '"permissions":{"type":"disabled"},"windowsSandboxLevel"'),
            ('"entries":[', '"entries":[],"entries":['))]
        texts += [write_message(f'"sandbox":{wall}', f',"path":"{ground.ws}/in"'),
                  write_message(f'"sandbox":{wall}', before=f'"path":"{ground.ws}/in",')]
        harmless = f'{{"path":"{ground.ws}/in","dataBase64":"","sandbox":{wall}}}'
        harmful = '{"path":"$OUT/planted","dataBase64":"","sandbox":null}'
        texts += [f'{{"id":$ID,"method":"fs/writeFile","params":{one},"params":{two}}}'
                  for one, two in ((harmless, harmful), (harmful, harmless))]
        texts += [f'{{"id":$ID,"method":"{one}","method":"{two}","params":{harmful}}}'
                  for one, two in itertools.permutations(("fs/writeFile", "fs/getMetadata"), 2)]
        texts += [f'{{"id":$ID,"id":$ID,"method":"fs/writeFile","params":{harmful}}}']
        raw_attempts(ground, texts)


def replayed_contexts():
    """A context that the connection has sent before, at places where it is not the sandbox: it must not count there."""
    with Ground() as ground:
        wide = json.dumps(context(special("root", "read"), entry(ground.dir, "write")), separators=(",", ":"))
        narrow = json.dumps(profile(ground), separators=(",", ":"))
        door = Door(ground.client, "wide", json.loads(wide))
        for _ in range(2):  # It is known from now on, by just these bytes.
            door.call("writeFile", path=ground.out + "/planted", dataBase64="")
            os.remove(ground.out + "/planted")
        inside = json.dumps(',"sandbox":' + wide)[1:-1]
        texts = [write_message(f'"sandbox":{narrow}', f',"x":{{"sandbox":{wide}}}'),
                 write_message(f'"sandbox":{narrow}', before=f'"x":{{"sandbox":{wide}}},'),
                 write_message(f'"sandbox":{narrow}', before=f'"x":[{{"a":1,"sandbox":{wide}}}],'),
                 write_message(f'"sandbox":{narrow}', before=f'"x":"{inside}",'),
                 write_message('"sandbox":' + narrow[:-1] + f',"policyContext":{{"sandbox":{wide}}}}}'.replace(
                     '"policyContext"', '"sandboxOverride"')),
                 write_message('"sandbox":{"x":{"a":1,"sandbox":' + wide + "}," + narrow[1:]),
                 write_message(f'"sandbox":{wide[:-1]},"permissions":{json.dumps(profile(ground)["permissions"])}}}'),
                 write_message(f'"sandbox":{wide}}}'), write_message(f'"sandbox":{wide}x'),
                 write_message(f'"sandbox":{wide},"sandbox":{narrow}'),
                 write_message(f'"sandbox":{narrow},"sandbox":{wide}'),
                 write_message(f'"sandbox":{wide},"sandb\\u006fx":{narrow}'),
                 write_message(f'"sandbox" :{narrow}', before=f'"sandbox":{wide},'),
                 write_message(f'"sandbox":"{inside}"'), write_message('"sandbox":""'),
                 write_message(f'"sandbox":"","x":{{"sandbox":{wide}}}'),
                 write_message(f'"x":"a,"sandbox":{wide}'), write_message(f'"x":"a\\",\\"sandbox":{wide}'),
                 write_message('"sandbox":' + wide.replace(ground.dir, ground.ws)),
                 write_message('"sandbox":' + wide.replace('"write"', '"read"')),
                 f'{{"sandbox":{wide},"id":$ID,"method":"fs/writeFile","params":'
                 f'{{"path":"$OUT/planted","dataBase64":"","sandbox":{narrow}}}}}']
        raw_attempts(ground, texts)
        with ground.server.client() as other:  # Known by one connection, not by all.
            code = other.fails("fs/writeFile", {"path": ground.out + "/planted", "dataBase64": "",
                                                "sandbox": json.loads(narrow)}, "not permitted")
            expect(code == DENIED, f"code {code}")
        expect_relative_places(ground)


def expect_relative_places(ground):
    """The same profile with another cwd and other roots, in turn: each time it means what stands beside it."""
    permissions = context(special("minimal", "read"), special("project_roots", "write"), glob("*.key"))["permissions"]
    for name in "one", "two":
        os.mkdir(ground.path("ws/" + name))
    for turn in range(6):
        mine, other = (("one", "two"), ("two", "one"))[turn % 2]
        root = uri(ground.path("ws/" + mine))
        door = Door(ground.client, mine, {"permissions": permissions, "cwd": root, "workspaceRoots": [root],
                                          "windowsSandboxLevel": "disabled"})
        door.call("writeFile", path=ground.path(f"ws/{mine}/f"), dataBase64="")
        door.refused("writeFile", (DENIED,), path=ground.path(f"ws/{mine}/x.key"), dataBase64="")
        door.refused("writeFile", (DENIED,), path=ground.path(f"ws/{other}/f"), dataBase64="")


# ---- paths


ODD_PATHS = ["$", "$/", "$//", "//$", "/.$", "$/.", "$/..", "$/../ws", "$/%2e%2e/out", "$/%2E./out", "$%2Fout",
             "$/%2F..%2Fout", "$/%00", "$/%00/x", "$/a%00b", "$/\\u0000", "$/%FF", "$/%ff%fe/x", "$/%zz", "$/%4", "$/%",
             "$/\\u00e9", "$/\\ud800", "$/\\ud83d\\ude00", "$/a\\nb", "$/a\\tb", "$/ ", " $", "$/?x", "$/#x", "$/;x",
             "$/*", "$/..%2f..%2fetc", "", "/", ".", "~", "relative", "$\\\\..\\\\out", "\\u0000", "%00", "$/" + "a/" * 3000,
             "$/" + "../" * 3000, "$/%252e%252e/out"]


def odd_paths():
    """In requests and in every place of a policy, raw and as URI."""
    with Ground() as ground:
        number = 0
        wall = json.dumps(profile(ground), separators=(",", ":"))
        spellings = [prefix + path.replace("$", ground.ws) for path in ODD_PATHS
                     for prefix in ("", "file://", "file:", "FILE:///", "file://localhost", "file://host", "http://")]
        for text in spellings:
            inner = f'{{"type":"path","path":"{text}"}}'
            attempts = [
                ("fs/writeFile", f'"path":"{text}/../../out/planted","dataBase64":"","sandbox":{wall}'),
                ("fs/readFile", f'"path":"{text}/../out/secret","sandbox":{wall}'),
                ("fs/readFile", f'"path":"{text}/out/secret","sandbox":{wall}'),
                ("fs/getMetadata", f'"path":"{text}","sandbox":{wall}'),
                ("fs/getMetadata", f'"path":"{ground.ws}","sandbox":'
                                   + wall.replace(f'"{uri(ground.ws)}"', f'"{text}"')),
                ("fs/getMetadata", f'"path":"{ground.ws}","sandbox":' + wall.replace("**/*.key", text + "/*")),
                ("fs/writeFile", f'"path":"{ground.ws}/f","dataBase64":"","sandbox":'
                                 + wall.replace('{"type":"special","value":{"kind":"minimal"}},"access":"read"',
                                                inner + ',"access":"deny"'))]
            for method, members in attempts:
                number += 1
                answer = ask_raw(ground.client, f'{{"id":"raw-{number}","method":"{method}","params":{{{members}}}}}',
                                 f"raw-{number}")
                expect(SECRET.decode() not in str(answer) and b64(SECRET) not in str(answer),
                       f"{method} {members[:300]}: {answer}")
                code = answer.get("error", {"code": 0})["code"]
                expect(code in (0, INVALID_PARAMS, DENIED, NOT_FOUND, -32603), f"{members[:300]}: {answer}")
                expect(not os.path.lexists(ground.out + "/planted"), f"{members[:300]}: written")
        ground.client.call("environment/status")
        for text in (b'{"id":1,"method":"fs/readFile","params":{"path":"/\xff","sandbox":null}}', b'{"id":1,\0}',
                     b"\xff", b"{", b"[]"):
            with ground.server.client() as other:
                other.sock.sendall(frame(TEXT, text))
                other.closed() if b"\xff" in text else other.take_message()
        ground.expect_unharmed()


# ---- what policies mean


def precedence():
    """Ties, and what is more specific, in every order."""
    with Ground() as ground:
        f = ground.write("ws/a/b/c/f", SECRET)
        inner = [ground.path(p) for p in ("ws", "ws/a", "ws/a/b", "ws/a/b/c")]
        tables = [  # entries, may read, may write
            ([entry(inner[0], "read"), entry(inner[0], "write")], True, True),
            ([entry(inner[0], "read"), entry(inner[0], "write"), entry(inner[0], "deny")], False, False),
            ([entry(inner[1], "deny"), entry(inner[0], "write"), special("root", "read")], False, False),
            ([entry(inner[0], "write"), entry(inner[1], "deny"), entry(inner[2], "write")], True, True),
            ([entry(inner[0], "write"), entry(inner[1], "deny"), entry(inner[2], "write"), entry(inner[3], "deny")],
             False, False),
            ([entry(inner[0], "write"), entry(inner[1], "deny"), entry(inner[3], "read")], False, False),
            ([entry(inner[0], "write"), entry(inner[1], "none"), entry(inner[1] + "/x/../../a", "write")],
             False, False),
            ([entry(inner[0] + "/x/../a/../../ws", "write"), entry(inner[3] + "/../c/.", "read")], True, False),
            ([special("root", "write"), entry(inner[2], "read")], True, False),
        ]
        for entries, may_read, may_write in tables:
            for order in itertools.permutations(entries):
                sandbox = context(*order)
                door = Door(ground.client, "order", sandbox)
                got = (door.code("readFile", path=f) == 0, door.code("writeFile", path=f, dataBase64=b64(SECRET)) == 0)
                expect(got == (may_read, may_write), f"{order}: {got}")
        ground.expect_unharmed()


def entries_that_grant_nothing():
    """Climbing and absolute subpaths, kinds nobody knows, globs that allow, roots that are not there."""
    with Ground() as ground:
        roots = {"cwd": uri(ground.ws), "workspaceRoots": [uri(ground.ws)]}
        bare = {"cwd": uri(ground.out), "workspaceRoots": []}
        unknown = [{"path": {"type": "special", "value": {"kind": kind, **more}}, "access": access}
                   for kind in ("unknown", "ROOT", "Root", "root ", "everything", "") for access in ("read", "write")
                   for more in ({"path": "/"}, {"path": ground.out}, {"subpath": "/"})]
        attempts = [(special("project_roots", access, subpath=path), roots)
                    for access in ("read", "write")
                    for path in ("../out", "a/../../out", "/", ground.out, "..", "./../out", "a/./../../out",
                                 "//" + ground.out)]
        attempts += [(special(kind, access), bare) for kind in ("project_roots", "current_working_directory")
                     for access in ("read", "write")]
        attempts += [(glob(pattern, access), roots) for access in ("read", "write")
                     for pattern in ("/**", ground.out + "/*", "**", "../out/*", "codex-project-roots://../out/*")]
        attempts += [(one, roots) for one in unknown]
        attempts += [(entry(ground.dir + "/nowhere/../missing", "write"), roots), (special("tmpdir", "write"), roots),
                     (special("minimal", "write"), roots)]
        for attempt, more in attempts:
            for others in ([], [entry(ground.ws, "write")]):
                nothing_gets_out_by_files(ground, context(*others, attempt, **more), f"{attempt}")
        for sandbox in (context(special("root", "read"), special("minimal", "write")),
                        context(special("minimal", "write"), entry(ground.ws, "write"))):
            door = Door(ground.client, "minimal", sandbox)
            door.refused("writeFile", (DENIED,), path="/usr/bailey-planted", dataBase64="")
        ground.expect_unharmed()


def nothing_gets_out_by_files(ground, sandbox, what):
    door, target = Door(ground.client, what, sandbox), ground.out + "/planted"
    codes = (door.code("writeFile", path=target, dataBase64=""), door.code("readFile", path=ground.secret))
    expect(0 not in codes and not os.path.lexists(target), f"{what}: {codes}")


def switches():
    """Members that ask for something weaker change nothing."""
    with Ground() as ground:
        off = {"permissions": {"type": "disabled"}, "windowsSandboxLevel": "disabled"}
        for base in profile(ground), legacy(ground):
            for more in ({"useLegacyLandlock": True}, {"sandboxOverride": off}, {"sandboxOverride": "disabled"},
                         {"disabled": True},
                         {"windowsSandboxLevel": "restricted-token"}, {"windowsSandboxLevel": "elevated"},
                         {"policyContext": off}, {"policyContext": {"cwd": "file:///", "workspaceRoots": ["file:///"]}},
                         {"userHomeDir": "file:///"}, {"temporaryDirectories": ["file:///", uri(ground.out)]},
                         {"type": "disabled"}, {"windowsSandboxPrivateDesktop": True}, {"network": "enabled"},
                         {"additionalPermissions": None}, {"sandbox": None}, {"enforce": False}):
                nothing_gets_out(ground, {**base, **more}, f"{more}")
        ground.expect_unharmed()


# ---- many and much


def thousands_of_entries():
    with Ground() as ground:
        many = [entry(ground.path(f"ws/{i}"), "read") for i in range(4095)]
        big = context(special("minimal", "read"), entry(ground.ws, "write"), *many)
        nothing_gets_out_by_files(ground, big, "4096 entries")
        Door(ground.client, "many", big).refused("writeFile", (DENIED,), path=ground.path("ws/4094/x"), dataBase64="")
        Door(ground.client, "many", big).call("writeFile", path=ground.path("ws/x"), dataBase64="")
        more = context(special("minimal", "read"), entry(ground.ws, "write"), *many, entry(ground.out, "deny"))
        Door(ground.client, "too many", more).refused("readFile", (INVALID_PARAMS,), path=ground.path("ws/x"))
        globs = [glob(ground.path(f"out/{i}*")) for i in range(255)] + [glob(ground.secret + "*")]
        door = Door(ground.client, "256 patterns", context(special("root", "read"), *globs))
        door.call("readFile", path=ground.path("ws/x"))
        door.refused("readFile", (DENIED,), path=ground.secret)
        globs = context(special("root", "read"), *globs, glob(ground.path("out/one more*")))
        Door(ground.client, "257 patterns", globs).refused("readFile", (INVALID_PARAMS,), path=ground.path("ws/x"))
        ground.expect_unharmed()


def hundreds_of_carve_outs():
    """Denied and read-only parts, each of them looked at, by requests and by a program."""
    with Ground() as ground:
        entries = [special("root", "read"), entry(ground.ws, "write")]
        for i in range(300):
            ground.write(f"ws/{i}/f", SECRET)
            entries.append(entry(ground.path(f"ws/{i}"), ("deny", "read")[i % 2]))
        sandbox = context(*entries)
        door = Door(ground.client, "carved", sandbox)
        for i in range(300):
            path = ground.path(f"ws/{i}/f")
            door.refused("writeFile", (DENIED,), path=path, dataBase64="")
            door.refused("readFile", ((DENIED,), (0,))[i % 2], path=path)
        script = f"cd {ground.ws}; for i in *; do echo x > $i/f; done 2> /dev/null; cat */f 2> /dev/null"
        code, output = run_program(ground.client, ["/bin/sh", "-c", script], sandbox)
        expect(output.count(SECRET) == 150, f"a program reads {output.count(SECRET)} of 150, exit {code}")
        expect(all(ground.read(f"ws/{i}/f") == SECRET for i in range(300)), "and writes none")
        ground.expect_unharmed()


def deep_json():
    """Nested in each of the places; a message is answered or ends its own connection, nobody else's."""
    with Ground() as ground:
        wall = json.dumps(profile(ground), separators=(",", ":"))
        for depth in 10, 100, 1000, 100000:
            for opening, closing in ("[" * depth, "]" * depth), ('{"a":' * depth + "1", "}" * depth):
                deep = opening + closing
                for members in (f'"sandbox":{deep}',
                                f'"sandbox":{{"permissions":{deep},"windowsSandboxLevel":"disabled"}}',
                                '"sandbox":' + wall.replace('"entries":[', f'"entries":[{deep},', 1),
                                f'"sandbox":{wall[:-1]},"x":{deep}}}', f'"sandbox":{wall},"x":{deep}'):
                    with ground.server.client() as other:
                        text = write_message(members).replace("$ID", "77").replace("$OUT", ground.out)
                        answer = ask_raw(other, text, 77)
                        expect("error" in answer, f"{members[:100]}: {answer}")
                        other.call("environment/status")
        ground.expect_unharmed()


def policies_at_the_same_time():
    """40 connections with 64 requests at once, each about two of 40 policies: none is served by another one's."""
    with Ground() as ground:
        n = 40
        for i in range(n):
            ground.write(f"ws/{i}/f", str(i).encode())
        sandboxes = [context(special("minimal", "read"), entry(ground.path(f"ws/{i}"), "write")) for i in range(n)]
        faults, start = [], threading.Barrier(n)

        def requests(me):
            for k in range(64):
                mine, asked = (me, (me + 1) % n)[k % 2], (me, (me + 1) % n)[k // 2 % 2]
                path = ground.path(f"ws/{asked}/f")
                data = {"dataBase64": b64(str(asked).encode())}
                method, more = (("fs/readFile", {}), ("fs/writeFile", data))[k // 4 % 2]
                yield mine == asked, method, {"path": path, "sandbox": sandboxes[mine], **more}

        def work(me):
            try:
                with ground.server.client() as client:
                    made = list(requests(me))
                    start.wait(60)
                    numbers = client.send_together(*((method, params) for _, method, params in made))
                    for (allowed, method, params), number in zip(made, numbers):
                        try:
                            client.answer(number)
                            expect(allowed, f"{me}: {method} {params['path']} was allowed")
                        except RpcError as error:
                            expect(not allowed and error.code in (DENIED, NOT_FOUND),
                                   f"{me}: {method} {params['path']}: {error}")
            except Exception as fault:  # pylint: disable=broad-except
                faults.append(fault)

        threads = [threading.Thread(target=work, args=(me,)) for me in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect(not faults, f"{len(faults)} connections: {faults[:3]}")
        expect(all(ground.read(f"ws/{i}/f") == str(i).encode() for i in range(n)), "the files")
        ground.expect_unharmed()


# How a name that matches can come into being after a pattern has been expanded: what happens, and the name.
LATER_MATCHES = [
    (lambda g: g.write("ws/d/new.key", SECRET), "ws/d/new.key"),
    (lambda g: os.rename(g.write("ws/d/plain", SECRET), g.path("ws/d/named.key")), "ws/d/named.key"),
    (lambda g: os.rename(g.write("aside/x", SECRET), g.path("ws/moved.key")), "ws/moved.key"),
    (lambda g: os.link(g.write("aside/y", SECRET), g.path("ws/linked.key")), "ws/linked.key"),
    (lambda g: g.write("ws/made/deep/x.key", SECRET), "ws/made/deep/x.key"),
    (lambda g: (g.write("aside/dir/sub/x.key", SECRET), os.rename(g.path("aside/dir"), g.path("ws/dir"))),
     "ws/dir/sub/x.key"),
    (lambda g: (g.write("aside/d2/sub/x.key", SECRET), os.rename(g.path("aside/d2"), g.path("ws/d2")),
                os.rename(g.path("ws/d2/sub"), g.path("ws/d2/other"))), "ws/d2/other/x.key"),
    (lambda g: (g.write("aside/d3/x.key", SECRET), os.mkdir(g.path("ws/d3")),
                exchange(g.path("aside/d3"), g.path("ws/d3"))), "ws/d3/x.key"),
    (lambda g: (os.rename(g.ws, g.path("old")), g.write("ws/d/again.key", SECRET)), "ws/d/again.key"),
    (lambda g: (os.rename(g.ws, g.path("older")), g.write("older/d/back.key", SECRET),
                os.rename(g.path("older"), g.ws)), "ws/d/back.key"),
]


def patterns_and_what_comes_later():
    """A name that begins to match is denied to file requests, though a program runs, and to the next program."""
    with Ground() as ground:
        plain = context(special("minimal", "read"), entry(ground.ws, "write"))
        walled = context(special("minimal", "read"), entry(ground.ws, "write"), glob(ground.ws + "/**/*.key"))
        door = Door(ground.client, "pattern", walled)
        ground.write("ws/d/first.key", SECRET)
        ground.client.start("waits", ["/bin/cat"], sandbox=walled, pipeStdin=True)
        for number, (happens, name) in enumerate(LATER_MATCHES):
            # Twice without a change: what was found is kept, and other names change nothing.
            for _ in range(2):
                expect(run_program(ground.client, ["/bin/true"], walled)[0] == 0, "a program runs")
                ground.write(f"ws/d/other{number}")
            happens(ground)
            path, cat = ground.path(name), ["/bin/cat", ground.path(name)]
            door.refused("readFile", (DENIED,), path=path)
            code, output = run_program(ground.client, cat, walled)
            expect(code != 0 and SECRET not in output, f"{name}: a program read it: {code} {output}")
            expect(run_program(ground.client, cat, plain) == (0, SECRET), f"{name}: the twin")
        ground.expect_unharmed()


begin()
run([
    ("a broken sandbox is never no sandbox", broken_sandboxes),
    ("both languages at once", both_languages),
    ("members twice", repeated_members),
    ("a known context in other places", replayed_contexts),
    ("odd paths in requests and policies", odd_paths),
    ("precedence in any order", precedence),
    ("entries that grant nothing", entries_that_grant_nothing),
    ("switches that ask for less", switches),
    ("patterns and what comes later", patterns_and_what_comes_later),
    ("thousands of entries", thousands_of_entries),
    ("hundreds of carve-outs", hundreds_of_carve_outs),
    ("deeply nested JSON", deep_json),
    ("policies at the same time", policies_at_the_same_time),
], jobs=2)
