#!/usr/bin/env python3
"""The command line as a black box: cli.py PATH-TO-BAILEY. Prints a line a case, and 'N passed, N failed' last."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import BAILEY, holds  # noqa: E402
from bailey import run as run_cases  # noqa: E402


class Yard:
    """A fresh directory with a workspace and a file outside of it; not below /tmp, which policies open."""

    def __enter__(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="bailey-cli-", dir="/var/tmp"))
        os.chmod(self.dir, 0o755)
        self.ws = os.path.join(self.dir, "ws")
        os.mkdir(self.ws)
        self.outside = os.path.join(self.dir, "outside")
        with open(self.outside, "w", encoding="utf-8") as f:
            f.write("keep\n")
        self.dispatcher = os.path.join(self.dir, "bailey-linux-sandbox")
        os.symlink(BAILEY, self.dispatcher)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def sandbox(self, policy, *command, stdin=""):
        return run(self.dispatcher, "--sandbox-policy-cwd", self.ws, "--command-cwd", self.ws,
                   "--sandbox-policy", json.dumps(policy), "--", *command, stdin=stdin)


def run(*argv, stdin=""):
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)


WRITE = {"type": "workspace-write", "exclude_slash_tmp": True, "exclude_tmpdir_env_var": True}
READ = {"type": "read-only"}


def helper_request(operation, **params):
    return json.dumps({"operation": operation, "params": {"sandbox": None, **params}})


def version():
    r = run(BAILEY, "--version")
    return r.returncode == 0 and r.stdout.startswith("bailey ")


def help_lists_commands():
    r = run(BAILEY, "--help")
    return r.returncode == 0 and "exec-server" in r.stdout and "fs-helper" in r.stdout


def help_lists_limits():
    r = run(BAILEY, "exec-server", "--help")
    return r.returncode == 0 and "--max-message-bytes" in r.stdout and "--listen" in r.stdout


def unknown_command():
    return run(BAILEY, "nonsense").returncode == 2


def unknown_option():
    return run(BAILEY, "exec-server", "--nonsense").returncode == 2


def limit_out_of_range():
    return run(BAILEY, "exec-server", "--max-message-bytes", "1").returncode == 2


def bad_listen_url():
    r = run(BAILEY, "exec-server", "--listen", "ws://127.0.0.1")
    return r.returncode == 1 and r.stdout == "" and (
        "Error: invalid websocket --listen URL `ws://127.0.0.1`; expected `ws://IP:PORT`" in r.stderr)


def unsupported_listen_url():
    r = run(BAILEY, "exec-server", "--listen", "http://127.0.0.1:1")
    return r.returncode == 1 and "Error: unsupported --listen URL `http://127.0.0.1:1`" in r.stderr


def helper_reads(flag):
    with Yard() as yard:
        r = run(BAILEY, flag, stdin=helper_request("fs/readFile", path=yard.outside))
        return r.returncode == 0 and json.loads(r.stdout) == {
            "status": "ok",
            "payload": {"operation": "fs/readFile", "response": {"dataBase64": "a2VlcAo="}}}


def helper_answers_errors():
    r = run(BAILEY, "fs-helper", stdin=helper_request("fs/readFile", path="file:///no/such"))
    return r.returncode == 0 and json.loads(r.stdout)["payload"]["code"] == -32004


def helper_refuses_unknown_operations():
    r = run(BAILEY, "fs-helper", stdin=helper_request("fs/nonsense"))
    return r.returncode == 1 and r.stdout == "" and r.stderr.startswith("fs sandbox helper failed: ")


def helper_inside_what_its_parent_made():
    """The founding document's chain: sandbox program, then the helper in it."""
    with Yard() as yard:
        request = helper_request("fs/writeFile", path=yard.outside, dataBase64="eA==")
        inside = yard.sandbox(READ, BAILEY, "--bailey-run-as-fs-helper", stdin=request)
        with open(yard.outside, encoding="utf-8") as f:
            kept = f.read() == "keep\n"
        twin = run(BAILEY, "--bailey-run-as-fs-helper", stdin=request)
        with open(yard.outside, encoding="utf-8") as f:
            written = f.read() == "x"
        return (kept and written and json.loads(inside.stdout)["status"] == "error" and
                json.loads(twin.stdout)["status"] == "ok")


def dispatch_runs_inside():
    with Yard() as yard:
        r = yard.sandbox(WRITE, "/bin/sh", "-c", "echo hello > f && cat f; exit 7")
        return r.returncode == 7 and r.stdout == "hello\n" and os.path.exists(yard.ws + "/f")


def dispatch_denies():
    """And the same command without a wall succeeds, else this would prove nothing."""
    with Yard() as yard:
        command = ["/bin/sh", "-c", f"echo x > {yard.outside}"]
        r = yard.sandbox(WRITE, *command)
        with open(yard.outside, encoding="utf-8") as f:
            kept = f.read() == "keep\n"
        twin = run(*command)
        with open(yard.outside, encoding="utf-8") as f:
            return r.returncode != 0 and kept and twin.returncode == 0 and f.read() == "x\n"


def dispatch_protects_missing_names():
    """With the same kind of twin."""
    with Yard() as yard:
        command = ["/bin/mkdir", yard.ws + "/.git"]
        r = yard.sandbox(WRITE, *command)
        kept = os.listdir(yard.ws) == []
        twin = run(*command)
        return r.returncode != 0 and kept and twin.returncode == 0 and os.listdir(yard.ws) == [".git"]


def dispatch_passes_signals_deaths_on():
    with Yard() as yard:
        return yard.sandbox(WRITE, "/bin/sh", "-c", "kill -TERM $$").returncode == 128 + 15


def dispatch_program_missing():
    with Yard() as yard:
        r = yard.sandbox(READ, "/no/such")
        return r.returncode == 127 and "No such file or directory" in r.stderr


def dispatch_program_not_executable():
    with Yard() as yard:
        return yard.sandbox(READ, yard.outside).returncode == 126


def dispatch_refuses_what_it_does_not_know():
    with Yard() as yard:
        r = run(yard.dispatcher, "--nonsense", "--", "/bin/touch", yard.ws + "/ran")
        return r.returncode == 125 and os.listdir(yard.ws) == []


def dispatch_refuses_a_broken_policy():
    with Yard() as yard:
        r = yard.sandbox({"type": "nonsense"}, "/bin/touch", yard.ws + "/ran")
        return r.returncode == 125 and os.listdir(yard.ws) == []


CASES = [
    ("--version says what it is", version),
    ("--help lists the commands", help_lists_commands),
    ("exec-server --help lists options and limits", help_lists_limits),
    ("an unknown command is a usage error", unknown_command),
    ("an unknown option is a usage error", unknown_option),
    ("a limit out of range is a usage error", limit_out_of_range),
    ("a bad --listen URL is a start error", bad_listen_url),
    ("an unsupported --listen URL is a start error", unsupported_listen_url),
    ("fs-helper answers a request", lambda: helper_reads("fs-helper")),
    ("--bailey-run-as-fs-helper answers a request", lambda: helper_reads("--bailey-run-as-fs-helper")),
    ("--codex-run-as-fs-helper answers a request", lambda: helper_reads("--codex-run-as-fs-helper")),
    ("fs-helper answers errors with status 0", helper_answers_errors),
    ("fs-helper refuses unknown operations with status 1", helper_refuses_unknown_operations),
    ("the helper works inside what its parent made", helper_inside_what_its_parent_made),
    ("bailey-linux-sandbox runs a command inside", dispatch_runs_inside),
    ("bailey-linux-sandbox denies writes outside", dispatch_denies),
    ("bailey-linux-sandbox protects missing names", dispatch_protects_missing_names),
    ("bailey-linux-sandbox reports a death by signal as 128 + n", dispatch_passes_signals_deaths_on),
    ("bailey-linux-sandbox: 127 for a missing program", dispatch_program_missing),
    ("bailey-linux-sandbox: 126 for one that cannot run", dispatch_program_not_executable),
    ("bailey-linux-sandbox: 125 for unknown options, nothing runs", dispatch_refuses_what_it_does_not_know),
    ("bailey-linux-sandbox: 125 for a broken policy, nothing runs", dispatch_refuses_a_broken_policy),
]


run_cases([(name, holds(case)) for name, case in CASES], jobs=1)
