#!/usr/bin/env python3
"""The protocol as a document, held against itself, the server's decoders and docs/PROTOCOL.md.

usage: openrpc.py PATH-TO-BAILEY [CASE...]
"""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import BAILEY, RpcError, Server, expect, run  # noqa: E402
from schema import KEYWORDS, TYPES, Document, types_of  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DIALECTS = ("A", "B", "both")


def output(*arguments):
    return subprocess.run([BAILEY, *arguments], capture_output=True, text=True, timeout=60, check=False)


def printed():
    ran = output("exec-server", "--print-openrpc")
    expect(ran.returncode == 0 and ran.stderr == "", f"status {ran.returncode}: {ran.stderr}")
    return Document(json.loads(ran.stdout, object_pairs_hook=without_repeats))


def without_repeats(pairs):
    names = [name for name, _ in pairs]
    expect(len(set(names)) == len(names), f"a repeated key in {names}")
    return dict(pairs)


def everything(value):
    """All objects in a JSON value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from everything(inner)


def schemas_of(document):
    """(where, schema) of every schema, the inner ones included."""
    todo = [("schemas/" + name, schema) for name, schema in document.document["components"]["schemas"].items()]
    for method in document.document["methods"]:
        todo += [(f"{method['name']} {p['name']}", p["schema"]) for p in method["params"]]
        if "result" in method:
            todo.append((method["name"] + " result", method["result"]["schema"]))
    while todo:
        where, schema = todo.pop()
        yield where, schema
        todo += [(f"{where}.{name}", inner) for name, inner in schema.get("properties", {}).items()]
        todo += [(where, inner) for key in ("oneOf", "anyOf") for inner in schema.get(key, [])]
        todo += [(where + "[]", schema[key]) for key in ("items", "additionalProperties") if key in schema]


# ---- the document by itself


def it_is_printed():
    """By a command that starts nothing: not even a listen address that makes no sense is looked at."""
    document = printed().document
    source = json.loads((ROOT / "src/proto/openrpc.json").read_text(encoding="utf-8"))
    version = output("--version").stdout.split()[1]
    source["info"]["version"] = version
    expect(document == source, "it is not what the source says")
    ran = output("exec-server", "--print-openrpc", "--listen", "nonsense")
    expect(ran.returncode == 0 and json.loads(ran.stdout) == document, "it starts something")


def its_rules():
    """Those of OpenRPC 1.3 that concern us."""
    document = printed()
    expect(re.fullmatch(r"1\.3\.\d+", document.document["openrpc"]), "the version of OpenRPC")
    info = document.document["info"]
    expect(info["title"] and info["version"] and info["license"]["name"], "info")
    names = [m["name"] for m in document.document["methods"]]
    expect(len(set(names)) == len(names), "names of methods are unique")
    for method in document.document["methods"]:
        where = method["name"]
        params = [p["name"] for p in method["params"]]
        expect(len(set(params)) == len(params), f"{where}: names of params are unique")
        expect(method["paramStructure"] == "by-name", where)
        expect(method["x-direction"] in ("clientToServer", "serverToClient"), where)
        expect(("errors" in method) == ("result" in method), f"{where}: what is answered can fail")
        expect(method["description"], where)
        for part in [*method["params"], *([method["result"]] if "result" in method else [])]:
            expect(part["name"] and "schema" in part, f"{where} {part}")
        for error in method.get("errors", []):
            error = document.resolve(error)
            expect(isinstance(error["code"], int) and error["message"], f"{where}: {error}")


def its_references():
    document = printed()
    used = set()
    for value in everything(document.document):
        if "$ref" in value:
            document.resolve(value)
            used.add(value["$ref"])
    for kind, parts in document.document["components"].items():
        for name in parts:
            expect(f"#/components/{kind}/{name}" in used, f"nobody uses {name}")


def its_schemas():
    """Nothing our validator would pass over in silence; defaults and examples fit."""
    document = printed()
    for where, schema in schemas_of(document):
        expect(set(schema) <= KEYWORDS, f"{where}: unknown {set(schema) - KEYWORDS}")
        expect(all(kind in TYPES for kind in types_of(schema)), where)
        expect(set(schema.get("required", [])) <= set(schema.get("properties", {})), f"{where}: required but unknown")
        for value in [*schema.get("examples", []), *([schema["default"]] if "default" in schema else [])]:
            expect(document.fault(schema, value) is None, f"{where}: {document.fault(schema, value)}")
        expect(document.fault(schema, document.smallest(schema)) is None, f"{where}: its smallest value")


def its_dialects():
    document = printed()
    for method in document.document["methods"]:
        parts = [method, *method["params"], *([method["result"]] if "result" in method else [])]
        for part in parts:
            expect(part["x-dialect"] in DIALECTS, f"{method['name']} {part['name']}: no dialect")
            expect(method["x-dialect"] == "both" or part["x-dialect"] == method["x-dialect"],
                   f"{method['name']} {part['name']}: a method of one dialect has fields of another")
    for where, schema in schemas_of(document):
        for name, inner in schema.get("properties", {}).items():
            expect(inner.get("x-dialect") in DIALECTS, f"{where}.{name}: no dialect")


# ---- the decoders


class Decoders:
    """A server before its handshake: it decodes parameters, and then refuses whatever it was."""

    def __init__(self):
        self.server = Server("--allow-http-request", "--http-header-env", "LENT")
        self.client = self.server.connect()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.server.__exit__()

    def fault(self, name, params):
        """Why they cannot be decoded, None when they can; Failure when there is no such method."""
        if name == "initialize":
            params = {**params, "resumeSessionId": params.get("resumeSessionId") or "none"}
        try:
            self.client.call(name, params)
        except RpcError as error:
            expect(error.code != -32601, f"{name} is not served")
            return error.message if error.code == -32602 else None
        return None


def requests(document):
    return [m for m in document.document["methods"] if "result" in m and m.get("x-served", True)]


def places(document, schema, value, path=()):
    """(path to an object in a value, its schema) for all that the smallest value has."""
    schema = document.resolve(schema)
    for keyword in ("oneOf", "anyOf"):
        for choice in schema.get(keyword, []):
            if document.fault(choice, value) is None:
                yield from places(document, choice, value, path)
    if isinstance(value, dict) and "properties" in schema:
        yield path, schema
        for name, inner in value.items():
            if name in schema["properties"]:
                yield from places(document, schema["properties"][name], inner, (*path, name))
    if isinstance(value, list):
        for i, inner in enumerate(value):
            yield from places(document, schema["items"], inner, (*path, i))


def params_schema(method):
    """The parameters as one object."""
    return {"type": "object", "required": [p["name"] for p in method["params"] if p.get("required")],
            "properties": {p["name"]: p["schema"] for p in method["params"]}}


def samples(document, schema, depth=6):
    """Small values that fit, one at least for each choice and one with all optional members."""
    schema = document.resolve(schema)
    choices = schema.get("oneOf") or schema.get("anyOf")
    if "examples" in schema or "enum" in schema or depth == 0:
        return [document.smallest(schema)]
    if choices:
        return [value for choice in choices for value in samples(document, choice, depth - 1)]
    kind = next((k for k in types_of(schema) if k != "null"), "null")
    if kind == "array":
        return [document.smallest(schema)] + [[item] for item in samples(document, schema["items"], depth - 1)]
    if kind != "object" or "properties" not in schema:
        return [document.smallest({**schema, "type": kind})]
    base = document.smallest(schema)
    return [base] + [{**base, name: value} for name, inner in schema["properties"].items()
                     for value in samples(document, inner, depth - 1)]


REFUSED = {  # what a schema cannot say: members that are decoded, and then refused for what they mean
    ("process/start", "networkProxy"),
}


def smallest_params_decode():
    document = printed()
    with Decoders() as decoders:
        for method in requests(document):
            params = document.smallest_params(method["name"])
            why = decoders.fault(method["name"], params)
            expect(why is None, f"{method['name']} {params}: {why}")


def what_the_schemas_allow_decodes():
    document = printed()
    tried = 0
    with Decoders() as decoders:
        for method in requests(document):
            for params in samples(document, params_schema(method)):
                if any((method["name"], name) in REFUSED for name in params):
                    continue
                why = decoders.fault(method["name"], params)
                meant = why and ("requires cwd" in why or "requires executor environment variable" in why)
                expect(why is None or meant, f"{method['name']} {json.dumps(params)}: {why}")
                tried += 1
    expect(tried > 500, f"only {tried} tried")


def changed(params, path, change):
    copied = copy.deepcopy(params)
    at = copied
    for step in path:
        at = at[step]
    change(at)
    return copied


def each_member(document, method):
    """(params, path of an object in them, its schema) with objects that are optional filled in as well."""
    schema = params_schema(method)
    seen = set()
    for params in samples(document, schema):
        for path, inner in places(document, schema, params):
            key = (path, json.dumps(inner, sort_keys=True))
            if key not in seen:
                seen.add(key)
                yield params, path, inner


class Changes:
    """Asks the decoders about each member of each request, changed in some way, and counts."""

    def __init__(self):
        self.document = printed()
        self.tried = 0

    def each(self, changes, check):
        """`changes` yields (member, change of the object it is in) for a method and a schema; `check` gets the name of
        the place, the member and what the decoder says."""
        with Decoders() as decoders:
            for method in requests(self.document):
                for params, path, schema in each_member(self.document, method):
                    for name, change in changes(method["name"], schema):
                        why = decoders.fault(method["name"], changed(params, path, change))
                        place = f"{method['name']} {'.'.join(map(str, (*path, name)))}"
                        check(place, name, schema, why)
                        self.tried += 1


def members_that_are_required():
    def without(_method, schema):
        return [(name, lambda at, name=name: at.pop(name)) for name in schema.get("required", [])]

    def is_missed(place, name, _schema, why):
        # Without it a sandbox is not of this form, and the error is about the other one.
        wanted = "permissions" if name == "sandboxPolicy" else name
        expect(why == f"missing field `{wanted}`", f"without {place}: {why}")

    changes = Changes()
    changes.each(without, is_missed)
    expect(changes.tried > 100, f"only {changes.tried} tried")


def members_that_may_be_null():
    """Or may not: the three kinds of members are told apart by this."""
    changes = Changes()

    def null(method, schema):
        return [(name, lambda at, name=name: at.update({name: None})) for name in schema["properties"]
                if (method, name) not in REFUSED]

    def is_as_described(place, name, schema, why):
        expect((why is None) == changes.document.allows_null(schema["properties"][name]), f"{place} null: {why}")

    changes.each(null, is_as_described)
    expect(changes.tried > 200, f"only {changes.tried} tried")


def words_that_are_unknown():
    changes = Changes()

    def words(schema, name):
        return changes.document.resolve(schema["properties"][name]).get("enum")

    def nonsense(_method, schema):
        return [(name, lambda at, name=name: at.update({name: "nonsense"})) for name in schema["properties"]
                if words(schema, name)]

    def is_told(place, name, schema, why):
        expect(why and why.startswith("unknown variant `nonsense`, expected "), f"{place}: {why}")
        for word in words(schema, name):
            expect(word is None or f"`{word}`" in why or word == "none", f"{why} does not name {word}")

    changes.each(nonsense, is_told)
    expect(changes.tried > 20, f"only {changes.tried} tried")


# ---- the page for people


def code_of(text):
    """What stands in code blocks and spans."""
    fence = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    spans = re.findall(r"``(.+?)``|`([^`\n]+(?:\n[^`\n]+)?)`", fence.sub("", text))
    return " ".join(fence.findall(text) + [long or short for long, short in spans])


def served_members(document):
    """(where, name) of every member of every message, through all schemas that messages use."""
    todo = []
    for method in document.document["methods"]:
        if not method.get("x-served", True):
            continue
        yield from ((method["name"], p["name"]) for p in method["params"])
        todo += [(method["name"], p["schema"]) for p in method["params"]]
        if "result" in method:
            todo.append((method["name"] + " result", method["result"]["schema"]))
    seen = set()
    while todo:
        where, schema = todo.pop()
        if schema.get("$ref") in seen:
            continue
        seen |= {schema["$ref"]} if "$ref" in schema else set()
        schema = document.resolve(schema)
        yield from ((where, name) for name in schema.get("properties", {}))
        todo += [(where, inner) for inner in [*schema.get("properties", {}).values(), *schema.get("oneOf", []),
                                              *schema.get("anyOf", [])]]
        todo += [(where, schema["items"])] if "items" in schema else []


def the_page_names_everything():
    document = printed()
    text = code_of((ROOT / "docs/PROTOCOL.md").read_text(encoding="utf-8"))
    words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_/-]*", text)) | set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text))
    missing = [name for name, m in document.methods.items() if name not in words and m.get("x-served", True)]
    missing += [f"{where} {name}" for where, name in served_members(document) if name not in words]
    expect(not missing, "docs/PROTOCOL.md says nothing about: " + ", ".join(sorted(set(missing))))


def dialects_of_messages(document, method):
    """{name: dialect} of the members of a method's params and result."""
    known = {p["name"]: p["x-dialect"] for p in method["params"]}
    result = document.resolve(method["result"]["schema"]) if "result" in method else {}
    return known | {name: inner["x-dialect"] for name, inner in result.get("properties", {}).items()}


def the_page_tells_dialects():
    """Where it has a column for them they are those of the document."""
    document = printed()
    text = (ROOT / "docs/PROTOCOL.md").read_text(encoding="utf-8")
    checked = 0
    for section in re.split(r"^##+ ", text, flags=re.MULTILINE):
        heading = section.partition("\n")[0]
        for name in re.findall(r"`([^`]+)`", heading):
            if name not in document.methods:
                continue
            known = dialects_of_messages(document, document.methods[name])
            for names, dialect in re.findall(r"^\| (`[^|]*) \| [^|]* \| (A B|A|B) \|", section, re.MULTILINE):
                for member in re.findall(r"`([^`]+)`", names):
                    if member in known:
                        want = known[member].replace("both", "A B")
                        expect(want == dialect, f"{name} {member}: {dialect} on the page, {want} in the document")
                        checked += 1
    expect(checked > 50, f"only {checked} found")


def methods_of_one_dialect():
    """The page says so in a heading, in the row of a table, or in the heading of a table."""
    text = (ROOT / "docs/PROTOCOL.md").read_text(encoding="utf-8")
    headings = re.findall(r"^##+ (.*\(B\))$", text, re.MULTILINE)
    under = "".join(section for section in re.split(r"^##+ ", text, flags=re.MULTILINE)
                    if section.partition("\n")[0] in headings)
    for name, method in printed().methods.items():
        if method["x-dialect"] == "both" or not method.get("x-served", True):
            continue
        said = f"| `{name}` | B |" in text or f"\n| `{name}` |" in under or any(f"`{name}`" in h for h in headings)
        expect(said, f"docs/PROTOCOL.md does not say that {name} is B")


run([
    ("it is printed, and nothing is started", it_is_printed),
    ("it keeps the rules of OpenRPC", its_rules),
    ("its references lead somewhere, and its components are used", its_references),
    ("its schemas are of the kind we check", its_schemas),
    ("every field has a dialect", its_dialects),
    ("decoders: the smallest parameters", smallest_params_decode),
    ("decoders: whatever the schemas allow", what_the_schemas_allow_decodes),
    ("decoders: members that are required", members_that_are_required),
    ("decoders: members that may be null", members_that_may_be_null),
    ("decoders: unknown words", words_that_are_unknown),
    ("docs/PROTOCOL.md names everything", the_page_names_everything),
    ("docs/PROTOCOL.md tells the dialects of members", the_page_tells_dialects),
    ("docs/PROTOCOL.md tells the dialects of methods", methods_of_one_dialect),
])
