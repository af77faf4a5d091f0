"""Whether an answer is what a case wants. README.md lists the matchers."""

import re

from values import (UNDEFINED, decode_base64, is_same, length, parse, show, type_of, utf8)


def mismatch(want, actual, at="$"):
    """None when `actual` satisfies `want`, else a short reason."""
    if isinstance(want, dict):
        return mismatch_object(want, actual, at)
    if isinstance(want, list):
        if not isinstance(actual, list):
            return f"{at}: expected an array, got {show(actual)}"
        if len(want) != len(actual):
            return f"{at}: expected {len(want)} items, got {len(actual)}: {show(actual)}"
        return first(mismatch(w, a, f"{at}[{i}]") for i, (w, a) in enumerate(zip(want, actual)))
    if is_same(want, actual):
        return None
    return f"{at}: expected {show(want)}, got {show(actual)}"


def first(reasons):
    return next((why for why in reasons if why), None)


def mismatch_object(want, actual, at):
    operators = [k for k in want if k.startswith("$")]
    if operators:
        rest = {k: v for k, v in want.items() if k not in operators}
        why = first(apply(op, want[op], actual, at) for op in operators)
        return why or (mismatch(rest, actual, at) if rest else None)
    if not isinstance(actual, dict):
        return f"{at}: expected an object, got {show(actual)}"
    return first(mismatch_member(k, w, actual, at) for k, w in want.items())


def mismatch_member(name, want, actual, at):
    if isinstance(want, dict) and want.get("$absent"):
        if name in actual:
            return f"{at}.{name}: should be absent, got {show(actual[name])}"
        return None
    if name not in actual:
        if isinstance(want, dict) and "$optional" in want:
            return None
        return f"{at}.{name}: missing (have {','.join(actual)})"
    return mismatch(want, actual[name], f"{at}.{name}")


def take_subset(wants, actual, at):
    left = list(actual)
    for want in wants:
        hit = next((i for i, item in enumerate(left) if mismatch(want, item) is None), None)
        if hit is None:
            return f"{at}: no item matches {show(want)} in {show(actual)}"
        del left[hit]
    return None


def ends_at_end(pattern):
    """In the cases `$` stands for the end of the text only, not for a last line break."""
    return re.sub(r"\\.|\[(?:\\.|[^\]])*\]|\$", lambda m: r"\Z" if m[0] == "$" else m[0], pattern,
                  flags=re.DOTALL)


def is_text(actual, test):
    return isinstance(actual, str) and test(actual)


def is_number(actual, test):
    return isinstance(actual, (int, float)) and not isinstance(actual, bool) and test(actual)


def has_type(actual, names):
    have = type_of(actual)
    return any(n == have or (n == "number" and have == "integer") for n in str(names).split("|"))


def op_type(arg, actual, at):
    return None if has_type(actual, arg) else (
        f"{at}: expected type {arg}, got {type_of(actual)} {show(actual)}")


def op_any_of(arg, actual, at):
    reasons = [mismatch(w, actual, at) for w in arg]
    return None if None in reasons else f"{at}: no alternative matched; last: {reasons[-1]}"


def op_not(arg, actual, at):
    if mismatch(arg, actual, at) is None:
        return f"{at}: should not match {show(arg)}, got {show(actual)}"
    return None


def op_unordered(arg, actual, at):
    if isinstance(actual, list) and len(actual) != len(arg):
        return f"{at}: expected {len(arg)} items in any order, got {len(actual)}: {show(actual)}"
    return op_subset(arg, actual, at)


def op_subset(arg, actual, at):
    if not isinstance(actual, list):
        return f"{at}: expected an array, got {show(actual)}"
    return take_subset(arg, actual, at)


def op_none(arg, actual, at):
    if isinstance(actual, list) and all(mismatch(arg, item) for item in actual):
        return None
    return f"{at}: an item matches {show(arg)}: {show(actual)}"


def op_exact(arg, actual, at):
    why = mismatch(arg, actual, at)
    if why:
        return why
    extra = [k for k in actual if k not in arg]
    return f"{at}: unexpected keys {','.join(extra)}" if extra else None


def op_base64(arg, actual, at):
    if not isinstance(actual, str):
        return f"{at}: expected base64 text, got {show(actual)}"
    return mismatch(arg, utf8(decode_base64(actual)), f"{at}(decoded)")


def op_json(arg, actual, at):
    try:
        return mismatch(arg, parse(actual), f"{at}(json)")
    except (TypeError, ValueError):
        return f"{at}: not JSON: {show(actual)}"


def wanted(what, test):
    """A matcher that is one question."""
    return lambda arg, actual, at: None if test(arg, actual) else (
        f"{at}: expected {what} {show(arg)}, got {show(actual)}")


OPERATORS = {
    "$any": wanted("something, at least", lambda arg, a: a is not UNDEFINED),
    "$absent": wanted("nothing; absent", lambda arg, a: a is UNDEFINED),
    "$optional": lambda arg, a, at: None if a is UNDEFINED else mismatch(arg, a, at),
    "$type": op_type,
    "$contains": wanted("a string containing", lambda arg, a: is_text(a, lambda s: arg in s)),
    "$startsWith": wanted("a string starting with",
                          lambda arg, a: is_text(a, lambda s: s.startswith(arg))),
    "$regex": wanted("a string matching", lambda arg, a: is_text(
        a, lambda s: re.search(ends_at_end(arg), s, re.DOTALL | re.ASCII))),
    "$anyOf": op_any_of,
    "$allOf": lambda arg, a, at: first(mismatch(w, a, at) for w in arg),
    "$not": op_not,
    "$gte": wanted("at least", lambda arg, a: is_number(a, lambda n: n >= arg)),
    "$lte": wanted("at most", lambda arg, a: is_number(a, lambda n: n <= arg)),
    "$len": lambda arg, a, at: mismatch(arg, length(a), f"{at}.length"),
    "$unordered": op_unordered,
    "$subset": op_subset,
    "$none": op_none,
    "$exact": op_exact,
    "$base64": op_base64,
    "$json": op_json,
}


def apply(op, arg, actual, at):
    if op not in OPERATORS:
        return f"{at}: unknown matcher {op}"
    return OPERATORS[op](arg, actual, at)
