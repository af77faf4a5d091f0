"""JSON values with the meaning they have for the clients of the protocol, which are not Python.

Numbers are doubles without a difference between 5 and 5.0, true is not 1, text is measured in
UTF-16 units, and a member can be there without a value (UNDEFINED).
"""

import base64
import json
import re


class Undefined:
    def __repr__(self):
        return "undefined"


UNDEFINED = Undefined()
EXACT = 2**53


def number(text):
    value = float(text)
    if value.is_integer() and abs(value) <= EXACT and text[:2] not in ("-0",):
        return int(value)
    return value


def refuse_constant(name):
    raise ValueError(name)


def parse(text):
    """The value of a JSON text. ValueError when it is none."""
    try:
        return json.loads(text, parse_int=number, parse_float=number,
                          parse_constant=refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write_number(value):
    if isinstance(value, int):
        return str(value)
    if value == 0:
        return "0"
    text = repr(value)
    if value.is_integer() and abs(value) < 1e21:  # digits without exponent, as many as matter
        digits, _, exponent = text.partition("e")
        sign = "-" if digits.startswith("-") else ""
        whole, _, fraction = digits.lstrip("-").partition(".")
        shift = int(exponent or 0)
        return sign + whole + (fraction if fraction != "0" else "").ljust(shift, "0")[:shift or 0]
    return text


def write_string(text):
    out = json.dumps(text, ensure_ascii=False)
    return re.sub(r"[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", out)


def write(value):
    """JSON text of a value; members without a value are left out."""
    if value is None or value is UNDEFINED:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return write_number(value)
    if isinstance(value, str):
        return write_string(value)
    if isinstance(value, list):
        return "[" + ",".join(write(v) for v in value) + "]"
    return "{" + ",".join(f"{write_string(k)}:{write(v)}" for k, v in value.items()
                          if v is not UNDEFINED) + "}"


def show(value):
    if value is UNDEFINED:
        return "undefined"
    text = write(value)
    return text[:400] + "…" if len(text) > 400 else text


def type_of(value):
    if value is None:
        return "null"
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, list):
        return "array"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, str):
        return "string"
    return "integer" if isinstance(value, int) or value.is_integer() else "number"


def is_same(a, b):
    """Equality of two values that are no containers."""
    kinds = {"integer": "number"}
    if kinds.get(type_of(a), type_of(a)) != kinds.get(type_of(b), type_of(b)):
        return False
    if isinstance(a, (list, dict)):
        return a is b
    if isinstance(a, float) or isinstance(b, float):  # 0 and -0 differ
        return a == b and write_sign(a) == write_sign(b)
    return a == b


def write_sign(value):
    return str(float(value)).startswith("-")


def length(value):
    if isinstance(value, str):
        return len(value.encode("utf-16-le", "surrogatepass")) // 2
    if isinstance(value, list):
        return len(value)
    if value is None or value is UNDEFINED:
        return -1
    return value.get("length", UNDEFINED) if isinstance(value, dict) else UNDEFINED


def text_of(value):
    """How a saved value looks inside a text."""
    return value if isinstance(value, str) else show(value)


def utf8(data):
    return bytes(data).decode("utf-8", "replace")


def to_utf8(text):
    return re.sub(r"[\ud800-\udfff]", "\ufffd", text).encode("utf-8")


def decode_base64(text):
    """Decodes leniently: what is no symbol is skipped, and the end needs no padding."""
    text = text.split("=")[0].translate(str.maketrans("-_", "+/"))
    text = re.sub(r"[^A-Za-z0-9+/]", "", text)
    if len(text) % 4 == 1:
        text = text[:-1]
    return base64.b64decode(text + "=" * (-len(text) % 4))


def look_up(value, path):
    """The part of a value that a path like $.result.chunks[0].seq names."""
    for part in filter(None, re.sub(r"^\$\.?", "", path).split(".")):
        name, indices = re.fullmatch(r"([^\[]*)((?:\[\d+\])*)", part).groups()
        if name:
            value = value.get(name, UNDEFINED) if isinstance(value, dict) else (
                length(value) if name == "length" else UNDEFINED)
        for index in map(int, re.findall(r"\d+", indices)):
            fits = isinstance(value, (list, str)) and index < len(value)
            value = value[index] if fits else UNDEFINED
    return value
