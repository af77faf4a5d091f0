#!/usr/bin/env python3
"""Runs the conformance cases against an exec server.

usage: run.py URL [options]             one that listens on ws://HOST:PORT or unix:///PATH
       run.py --server CMD [options]    start the server, stop it at the end

CMD is a command line that prints the URL it listens on; when it is only a program,
`exec-server --listen` and what --transport says is added. Over stdio every connection is a server of
its own, and cases that need a second connection or something of WebSocket are left out. The server must run on this machine and as this
user: the cases prepare and inspect files. Exit status 0 when nothing failed.
"""

import argparse
import asyncio
import functools
import json
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "support"))

import schema  # noqa: E402
import values  # noqa: E402
from case import run_case  # noqa: E402
from channel import SocketTarget, StdioTarget, alarms, fits_stdio, server_words  # noqa: E402

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 15


def read_arguments():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "),
                                     description=__doc__.split("\n\n")[2])
    parser.add_argument("url", nargs="?")
    parser.add_argument("--server", metavar="CMD", help="start this server")
    parser.add_argument("--transport", choices=["ws", "unix", "stdio"], default="ws",
                        help="with --server PROGRAM: how to speak to it")
    parser.add_argument("--file", type=Path, default=Path(__file__).with_name("cases.json"))
    parser.add_argument("--dialect", choices=["A", "B", "all"], default="all")
    parser.add_argument("--area", help="only the cases of one area")
    parser.add_argument("--skip-area", action="append", default=[], metavar="AREA")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[],
                        metavar="ID[,ID...]", help="only these cases; prefixes are fine")
    parser.add_argument("--skip", type=lambda text: text.split(","), default=[],
                        metavar="ID[,ID...]", help="all but these cases; prefixes are fine")
    parser.add_argument("--peer", action="store_true",
                        help="skip cases that state what we want rather than what upstream does")
    parser.add_argument("--jobs", type=int, help="cases at a time (4 with --server, else 1)")
    parser.add_argument("--openrpc", type=Path, metavar="FILE",
                        help="hold everything that succeeds against this document")
    parser.add_argument("--verbose", "-v", action="store_true", help="show all messages")
    parser.add_argument("--keep", action="store_true", help="keep the directories of the cases")
    options = parser.parse_args()
    if bool(options.url) == bool(options.server):
        parser.error("either a URL or --server")
    if options.url and not options.url.startswith(("ws://", "unix:///")):
        parser.error(f"not a ws:// or unix:/// URL: {options.url}")
    return options


class Server:
    """The server under test, in a directory of its own."""

    def __init__(self, command, transport):
        self.directory = tempfile.mkdtemp(prefix="conf-server-")
        self.words = [command] if os.path.exists(command) else shlex.split(command)
        if len(self.words) == 1:
            self.words = server_words(self.words, transport, self.directory)
        if "/" in self.words[0]:
            self.words[0] = os.path.abspath(self.words[0])
        self.environment = {k: v for k, v in os.environ.items() if k != "TMPDIR"}
        self.cwd = os.path.join(self.directory, "cwd")
        os.mkdir(self.cwd)
        self.process = None

    def target(self, transport):
        if transport == "stdio":
            return StdioTarget(self.words, self.cwd, self.environment)
        self.log = open(os.path.join(self.directory, "stderr"), "w+b")
        self.process = subprocess.Popen(self.words, cwd=self.cwd, env=self.environment,
                                        stderr=self.log, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE)
        return SocketTarget(self.url())

    def url(self):
        """The first line of output that is a URL."""
        timer = threading.Timer(START_TIMEOUT_S, self.process.kill)
        timer.start()
        for line in self.process.stdout:
            text = line.decode("utf-8", "replace").strip()
            if text.startswith(("ws://", "unix://")):
                timer.cancel()
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return text
        timer.cancel()
        self.process.wait()
        sys.exit(f"the server did not start:\n{alarms(self.log)}")

    def stop(self, failed):
        """Ends it; returns what was wrong with the end, or with the cases, or None."""
        if not self.process:
            shutil.rmtree(self.directory, ignore_errors=True)
            return None
        early = self.process.poll()
        self.process.send_signal(signal.SIGINT)  # SIGTERM may wait for what still runs
        try:
            status = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        why = None
        if early is not None:
            why = f"the server ended with status {early} before the cases did"
        elif status not in (0, -signal.SIGINT, 128 + signal.SIGINT):
            why = f"the server ended with status {status}"
        elif failed:
            why = "the server's log"
        if why:
            why += f":\n{alarms(self.log)}"
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        return why


def is_selected(case, options):
    return ((options.dialect == "all" or case["dialect"] == options.dialect)
            and (not options.area or case["area"] == options.area)
            and case["area"] not in options.skip_area
            and not any(case["id"].startswith(s) for s in options.skip)
            and (not options.only or any(case["id"].startswith(o) for o in options.only)))


def is_skipped(case, options):
    if options.transport == "stdio" and not fits_stdio(case):
        return True
    return options.peer and bool(case.get("upstream_bug") or case.get("extension"))


@functools.lru_cache
def read_document(path):
    return schema.Document(json.loads(path.read_text(encoding="utf-8"))) if path else None


def run_one(job):
    """Runs a case in this process. Returns why it failed, milliseconds, and what was said."""
    case, target, verbose, keep, openrpc = job
    lines = []
    start = time.monotonic()
    why = asyncio.run(run_case(case, target, lines.append if verbose else lambda _: None, keep,
                               read_document(openrpc)))
    return why, int((time.monotonic() - start) * 1000), lines


def run_all(cases, target, options):
    """Yields (case, result) in the order of the cases."""
    jobs = [(case, target, options.verbose, options.keep, options.openrpc) for case in cases]
    workers = options.jobs or (4 if options.server else 1)
    if workers == 1:
        yield from zip(cases, map(run_one, jobs))
        return
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield from zip(cases, pool.imap(run_one, jobs))


def report(case, why, took_ms, lines):
    for line in lines:
        print(line)
    if why:
        print(f"FAIL {case['id']}  {case['title']}\n     {why}")
    else:
        print(f"ok   {case['id']}  {case['title']}  ({took_ms} ms)")
    sys.stdout.flush()


def main():
    options = read_arguments()
    cases = [c for c in values.parse(options.file.read_text(encoding="utf-8"))
             if is_selected(c, options)]
    skipped = [c for c in cases if is_skipped(c, options)]
    server = Server(options.server, options.transport) if options.server else None
    target = server.target(options.transport) if server else SocketTarget(options.url)
    failed = total = 0
    complaint = None
    try:
        for case in skipped:
            print(f"skip {case['id']}  {case['title']}")
        wanted = [c for c in cases if not is_skipped(c, options)]
        for case, (why, took_ms, lines) in run_all(wanted, target, options):
            report(case, why, took_ms, lines)
            total += 1
            failed += bool(why)
    finally:
        if server:
            complaint = server.stop(failed)
    if complaint:
        print(complaint)
    tail = f", {len(skipped)} skipped" if skipped else ""
    print(f"{total - failed} passed, {failed} failed{tail}")
    return 1 if failed or complaint else 0


if __name__ == "__main__":
    sys.exit(main())
