"""The runner of the test programs in Python: a line a case, and 'N passed, N failed, N skipped' last."""

import concurrent.futures
import os
import sys
import time

PATIENCE_S = 60


class Failure(Exception):
    """The program under test did not do what the test wants."""


class Skip(Exception):
    """This machine cannot run the test."""


def expect(condition, what):
    if not condition:
        raise Failure(what)


def until(predicate, what, seconds=PATIENCE_S, every_s=0.01):
    """Waits for something that announces itself in no other way; returns what `predicate` gave."""
    end = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure("waited in vain for: " + what)
        time.sleep(every_s)


def holds(case):
    """A case of a function that returns whether all was well."""
    return lambda: expect(case(), "it is not so")


def checked(checks):
    """Cases of (name, whether it was well, what was seen instead)."""
    for name, good, seen in checks:
        yield name, lambda good=good, seen=seen: expect(good, str(seen))


def outcome(case):
    """("ok" | "FAIL" | "skip", why)"""
    try:
        case()
    except Skip as skip:
        return "skip", str(skip)
    except Exception as error:  # pylint: disable=broad-except
        return "FAIL", f"{type(error).__name__}: {error}"
    return "ok", ""


def in_order(cases, jobs):
    """Yields (name, outcome). One job takes a case only when the one before is done: `cases` may end a server then."""
    if jobs == 1:
        for name, case in cases:
            yield name, outcome(case)
        return
    cases = list(cases)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        yield from zip((name for name, _ in cases), pool.map(lambda c: outcome(c[1]), cases))


def run(cases, jobs=4, only=None):
    """Runs (name, function) pairs, several at a time, and exits: 1 when one failed, 77 when all were skipped.
    `only`: parts of names, the arguments behind the program's path unless given."""
    only = sys.argv[2:] if only is None else only
    cases = ((name, case) for name, case in cases if not only or any(part in name for part in only))
    count = {"ok": 0, "FAIL": 0, "skip": 0}
    for name, (word, why) in in_order(cases, jobs):
        count[word] += 1
        print(f"{word:4} {name}" + (f"\n     {why}" if why else ""), flush=True)
    print(f"{count['ok']} passed, {count['FAIL']} failed, {count['skip']} skipped")
    skipped = count["skip"] and not count["ok"]
    sys.exit(1 if count["FAIL"] or skipped and os.environ.get("BLY_MUST_RUN") else 77 if skipped else 0)
