"""The protocol's OpenRPC document, and as much of JSON Schema as it uses; standard library only."""

import base64
import binascii
import re

KEYWORDS = {"type", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "format", "contentEncoding",
            "items", "minItems", "maxItems", "required", "properties", "additionalProperties", "oneOf", "anyOf", "$ref",
            "description", "default", "examples", "x-dialect"}
FORMATS = {
    "uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "uri": re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.*", re.DOTALL),
}


def is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


TYPES = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": is_integer,
    "string": lambda v: isinstance(v, str),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}


def types_of(schema):
    kinds = schema.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]


def is_base64(text):
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except (binascii.Error, ValueError):
        return False


class Document:
    def __init__(self, document):
        self.document = document
        self.methods = {m["name"]: m for m in document["methods"]}

    def resolve(self, value):
        """What a $ref leads to; KeyError when that is nowhere."""
        while "$ref" in value:
            target = self.document
            head, *names = value["$ref"].split("/")
            if head != "#":
                raise KeyError(value["$ref"])
            for name in names:
                target = target[name]
            value = target
        return value

    # ---- values

    def fault(self, schema, value, where="$"):
        """Why a value does not fit a schema, or None."""
        schema = self.resolve(schema)
        for test in (self.fault_of_type, self.fault_of_scalar, self.fault_of_array, self.fault_of_object,
                     self.fault_of_choice):
            why = test(schema, value, where)
            if why:
                return why
        return None

    @staticmethod
    def fault_of_type(schema, value, where):
        kinds = types_of(schema)
        if kinds and not any(TYPES[kind](value) for kind in kinds):
            return f"{where} is no {' or '.join(kinds)}: {str(value)[:60]}"
        if "enum" in schema and value not in schema["enum"]:
            return f"{where} is none of {schema['enum']}: {str(value)[:60]}"
        return None

    @staticmethod
    def fault_of_scalar(schema, value, where):
        if is_integer(value):
            if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
                return f"{where} is out of bounds: {value}"
        if not isinstance(value, str):
            return None
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            return f"{where} is too short or too long: {value[:60]}"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return f"{where} does not match {schema['pattern']}: {value[:60]}"
        if "format" in schema and not FORMATS[schema["format"]].fullmatch(value):
            return f"{where} is no {schema['format']}: {value[:60]}"
        if schema.get("contentEncoding") == "base64" and not is_base64(value):
            return f"{where} is not base64: {value[:60]}"
        return None

    def fault_of_array(self, schema, value, where):
        if not isinstance(value, list):
            return None
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return f"{where} has {len(value)} items"
        for i, item in enumerate(value):
            why = self.fault(schema.get("items", {}), item, f"{where}[{i}]")
            if why:
                return why
        return None

    def fault_of_object(self, schema, value, where):
        if not isinstance(value, dict):
            return None
        for name in schema.get("required", []):
            if name not in value:
                return f"{where} has no {name}"
        properties = schema.get("properties", {})
        for name, member in value.items():
            of = properties.get(name, schema.get("additionalProperties", {}))
            why = self.fault(of, member, f"{where}.{name}")
            if why:
                return why
        return None

    def fault_of_choice(self, schema, value, where):
        for keyword in ("oneOf", "anyOf"):
            if keyword not in schema:
                continue
            faults = [self.fault(choice, value, where) for choice in schema[keyword]]
            good = faults.count(None)
            if good == 0:
                return f"{where} fits nothing: " + "; ".join(faults)
            if good > 1 and keyword == "oneOf":
                return f"{where} fits {good} of {len(faults)}"
        return None

    # ---- messages

    def fault_of_params(self, name, params):
        method = self.methods[name]
        if not method["params"] and name not in ("environment/info", "environment/status"):
            return None
        if not isinstance(params, dict):
            return None if not method["params"] and params is None else "the params are no object"
        for param in method["params"]:
            if param["name"] not in params:
                if param.get("required"):
                    return f"params has no {param['name']}"
                continue
            why = self.fault(param["schema"], params[param["name"]], "params." + param["name"])
            if why:
                return why
        return None

    def fault_of_exchange(self, name, params, result):
        """What is wrong with a request that succeeded."""
        if name not in self.methods or "result" not in self.methods[name]:
            return f"{name} is not described"
        return (self.fault_of_params(name, params) or
                self.fault(self.methods[name]["result"]["schema"], result, "result"))

    def fault_of_notification(self, name, params):
        method = self.methods.get(name)
        if not method or "result" in method or method["x-direction"] != "serverToClient":
            return f"{name} is no notification to clients"
        return self.fault_of_params(name, params)

    # ---- examples

    def smallest(self, schema):
        """A small value that fits."""
        schema = self.resolve(schema)
        if "examples" in schema:
            return schema["examples"][0]
        if "enum" in schema:
            return schema["enum"][0]
        for keyword in ("oneOf", "anyOf"):
            if keyword in schema:
                return self.smallest(schema[keyword][0])
        kind = next(iter(types_of(schema)), "object")
        if kind == "object":
            return {name: self.smallest(schema["properties"][name]) for name in schema.get("required", [])}
        if kind == "array":
            return [self.smallest(schema["items"])] * schema.get("minItems", 0)
        return {"string": "x" * schema.get("minLength", 0), "integer": schema.get("minimum", 0), "boolean": False,
                "null": None}[kind]

    def smallest_params(self, name):
        return {p["name"]: self.smallest(p["schema"]) for p in self.methods[name]["params"] if p.get("required")}

    def allows_null(self, schema):
        return self.fault(schema, None) is None
