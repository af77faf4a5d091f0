#!/usr/bin/env python3
"""Directories that make no difference between cases: casefold.py BAILEY WITHOUT [NAME...]

There `.GIT` is `.git`, and what ext4 ignores in a name (U+200D) or takes for the same letter (U+017F is an s) makes no
difference either. Every attempt is made without a wall first, where it must succeed, then behind one, as root and as an
ordinary user. Needs a file system that folds: the directory BLY_TEST_CASEFOLD_DIR, or an image that root mounts in a mount
namespace of its own, on a kernel with CONFIG_UNICODE; without one, only what must not be mistaken for it is tried."""

import base64
import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import bailey  # noqa: E402
from bailey import RpcError, Server, Skip, as_user, expect, run, wall  # noqa: E402
from yard import NOBODY, entry  # noqa: E402

WITHOUT = os.path.abspath(sys.argv[2])
IN_NAMESPACE = "BLY_TEST_CASEFOLD_OURS"  # set in the mount namespace that was made for us
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_CASEFOLD_FL = 0x80086601, 0x40086602, 0x40000000
SECRET = "a secret"

# In Python, for this test and for programs inside of walls.
FOLD = f"""
import fcntl, os, struct
def fold(path):
    fd = os.open(path, os.O_RDONLY)
    flags = struct.unpack("l", fcntl.ioctl(fd, {FS_IOC_GETFLAGS}, bytes(8)))[0]
    fcntl.ioctl(fd, {FS_IOC_SETFLAGS}, struct.pack("l", flags | {FS_CASEFOLD_FL}))
    os.close(fd)
"""
exec(FOLD)  # pylint: disable=exec-used


# ---- where


def into_namespace():
    """Executes this program again where its mounts are nobody else's, if that is needed and can be."""
    if "BLY_TEST_CASEFOLD_DIR" not in os.environ and IN_NAMESPACE not in os.environ and os.geteuid() == 0:
        os.environ[IN_NAMESPACE] = "tried"
        if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0:
            os.environ[IN_NAMESPACE] = "yes"
            os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv])


def mounted(directory):
    """A file system of our own in `directory`; why there is none."""
    if os.environ.get(IN_NAMESPACE) != "yes":
        return "only root can make a file system that folds case; BLY_TEST_CASEFOLD_DIR names one that is there"
    image = directory + ".image"
    with open(image, "wb") as f:
        f.truncate(64 << 20)
    for command in (["mkfs.ext4", "-q", "-F", "-O", "casefold", "-E", "encoding=utf8", image],
                    ["mount", "-o", "loop", image, directory]):
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True,
                                  env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        except FileNotFoundError as error:
            return str(error)
        if done.returncode != 0:
            return f"{command[0]}: {(done.stderr or done.stdout).strip().splitlines()[0]}"
    return None


def find_ground(directory):
    """(a directory on a file system that folds, None) or (None, why not)"""
    ground = os.environ.get("BLY_TEST_CASEFOLD_DIR")
    why = mounted(directory) if ground is None else None
    if why:
        return None, "no file system that folds case: " + why
    return ground or directory, None


class Ground:
    """Where workspaces are made."""

    def __init__(self, directory):
        self.dir, self.why = find_ground(directory)

    def close(self):
        if self.dir and "BLY_TEST_CASEFOLD_DIR" not in os.environ:
            subprocess.run(["umount", "-l", self.dir], check=True)

    @contextlib.contextmanager
    def workspace(self, user, folds=True):
        """A fresh one that folds, or can be made to while it is empty."""
        if self.dir is None:
            raise Skip(self.why)
        directory = tempfile.mkdtemp(prefix="bailey-fold-", dir=self.dir)
        ws = directory + "/ws"
        os.mkdir(ws)
        if folds:
            fold(ws)  # noqa: F821
        for path in (directory, ws):
            os.chmod(path, 0o755)
            os.chown(path, *([user, user] if user else [-1, -1]))
        try:
            yield ws
        finally:
            os.chmod(ws, 0o700)
            shutil.rmtree(directory)


def put(path, text, user):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    if user:
        for name in (os.path.dirname(path), path):
            os.chown(name, user, user)


def content(path):
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as f:
        return f.read()
    return None


# ---- attempts: (what they do to, or learn of, a workspace)


def by_program(script):
    def attempt(client, ws, sandbox):
        return client.run(["/bin/sh", "-c", script], cwd=ws, sandbox=sandbox)[1]
    return attempt


def by_python(script):
    def attempt(client, ws, sandbox):
        return client.run(["/usr/bin/python3", "-c", FOLD + script], cwd=ws, sandbox=sandbox)[1]
    return attempt


def by_request(method, name, **more):
    def attempt(client, ws, sandbox):
        params = {key: value.replace("WS", f"file://{ws}") if isinstance(value, str) else value
                  for key, value in more.items()}
        if name is not None:
            params["path"] = f"file://{ws}/{name}"
        answer = client.call(method, {**params, "sandbox": sandbox})
        return base64.b64decode(answer.get("dataBase64", "")).decode() + str(answer)
    return attempt


def write(name):
    return by_request("fs/writeFile", name, dataBase64=base64.b64encode(b"attack").decode())


def read(name):
    return by_request("fs/readFile", name)


def mkdir(name):
    return by_request("fs/createDirectory", name, recursive=False)


def copy(name):
    return by_request("fs/copy", None, sourcePath="WS/f", destinationPath=f"WS/{name}", recursive=False)


def remove(name):
    return by_request("fs/remove", name, recursive=True, force=True)


ODD = {"capitals": ".GIT", "one capital": ".giT", "a character that is ignored": ".g%E2%80%8Dit",
       "a soft hyphen at the end": ".git%C2%AD"}
LONG_S = {"a long s": ".aw%C5%BF"}


def plain(name):
    """A name as programs say it."""
    return (name.replace("%E2%80%8D", "\u200d").replace("%C2%AD", "\u00ad").replace("%C5%BF", "\u017f"))


# (name, what is there before, more entries, the attempt, what it may not change or learn: a path and its content)
def existing():
    for how, name in ODD.items():
        for what, attempt in {"written by a file request": write(name + "/config"),
                              "removed by a file request": remove(name),
                              "written by a program": by_program(f"echo attack >'{plain(name)}/config'"),
                              "removed by a program": by_program(f"rm -r '{plain(name)}'"),
                              "moved by a program": by_program(f"mv '{plain(name)}' away")}.items():
            yield f"an existing .git in {how}, {what}", {".git/config": "[core]"}, [], attempt, ".git/config"


def missing():
    for target, names in {".git": ODD, ".aws": LONG_S}.items():
        for how, name in names.items():
            for what, attempt in {"made by a file request": mkdir(name), "written by a file request": write(name),
                                  "copied by a file request": copy(name),
                                  "made by a program": by_program(f"mkdir '{plain(name)}'"),
                                  "written by a program": by_program(f"echo attack >'{plain(name)}'"),
                                  "renamed by a program": by_program(f"mkdir d; mv d '{plain(name)}'")}.items():
                yield f"a missing {target} in {how}, {what}", {"f": "attack"}, [], attempt, target


def hidden():
    for target, entries, odd in ((".git/config", [".git"], ".GIT/config"), ("secret/f", ["secret"], "SECRET/f"),
                                 ("stra\u00dfe/f", ["stra\u00dfe"], "STRASSE/f"), ("a.env", ["**/*.env"], "A.ENV"),
                                 ("A.ENV", ["**/*.env"], "A.ENV"), ("A.ENV", ["**/*.env"], "a.env")):
        for what, attempt in {"read by a file request": read(odd), "read by a program": by_program(f"cat {odd}")}.items():
            yield f"a denied {target} as {odd}, {what}", {target: SECRET}, entries, attempt, None


CASES = [*existing(), *missing(), *hidden()]


def denied(ws, name):
    if "*" in name:
        return {"path": {"type": "glob_pattern", "pattern": f"{ws}/{name}"}, "access": "deny"}
    return entry(f"{ws}/{name}", "deny")


def sandbox_of(ws, entries):
    sandbox = wall(ws)
    sandbox["permissions"]["file_system"]["entries"] += [denied(ws, name) for name in entries]
    return sandbox


def outcome_of(ws, attempt, guarded, client, sandbox):
    """Whether the attempt has changed what is guarded, or shown the secret; and what was said."""
    before = guarded and (content(f"{ws}/{guarded}"), os.path.lexists(f"{ws}/{guarded}"))
    try:
        said = attempt(client, ws, sandbox)
    except RpcError as error:
        if "sandbox unavailable" in error.message and "Landlock alone" not in error.message:
            raise Skip(f"no sandbox here: {error}") from error
        said = error.message
    after = guarded and (content(f"{ws}/{guarded}"), os.path.lexists(f"{ws}/{guarded}"))
    return before != after or SECRET in said, said


def try_out(ground, server, user, case):
    _, files, entries, attempt, guarded = case
    for walled in (False, True):
        with ground.workspace(user) as ws, server.client() as client:
            for name, text in files.items():
                put(f"{ws}/{name}", text, user)
            worked, said = outcome_of(ws, attempt, guarded, client, sandbox_of(ws, entries) if walled else None)
            expect(worked != walled, f"{'behind the wall' if walled else 'without a wall'}: {said}")


# ---- what is not in the table


def made_to_fold(ground, server, user):
    """An empty directory is made to fold by the program itself."""
    attempt = by_python("fold('.'); os.mkdir('.GIT')")
    for walled in (False, True):
        with ground.workspace(user, folds=False) as ws, server.client() as client:
            worked, said = outcome_of(ws, attempt, ".git", client, wall(ws) if walled else None)
            expect(worked != walled, f"{'behind the wall' if walled else 'without a wall'}: {said}")


def not_readable(ground, server, user):
    """One whose flags nobody can read."""
    for walled in (False, True):
        with ground.workspace(user) as ws, server.client() as client:
            os.chmod(ws, 0o300)
            worked, said = outcome_of(ws, by_program(f"mkdir {ws}/.GIT"), ".git", client, wall(ws) if walled else None)
            expect(worked != walled, f"{'behind the wall' if walled else 'without a wall'}: {said}")


def other_names(ground, server, user):
    """What is no protected name can be made, also where case is folded."""
    with ground.workspace(user) as ws, server.client() as client:
        for name in ("GIT", ".gitx", ".\u00e9git2", "stra\u00dfe", "\u65e5\u672c", ".github"):
            _, said = outcome_of(ws, by_program(f"mkdir '{name}' && echo x >'{name}/f'"), None, client, wall(ws))
            expect(content(f"{ws}/{name}/f") == "x\n", f"{name}: {said}")


def ordinary(server):
    """Where nothing folds, other letters are other names."""
    with server.client() as client:
        ws = tempfile.mkdtemp(dir=server.dir)
        os.chmod(ws, 0o777)
        for name, attempt in ((".GIT", by_program("mkdir .GIT")), (".Aws", mkdir(".Aws")), (".g\u200dit", mkdir(ODD[
                "a character that is ignored"]))):
            worked, said = outcome_of(ws, attempt, name, client, wall(ws))
            expect(worked, f"{name}: {said}")


def cases(ground, who, user):
    server = Server(user=user)
    rung2 = Server("--allow-landlock-fs", under=[WITHOUT, "namespaces", "--"], user=user)
    with server, rung2:
        yield f"{who}: {ordinary.__doc__}", lambda: ordinary(server)
        for case in CASES:
            yield f"{who}: {case[0]}", lambda case=case: try_out(ground, server, user, case)
        for case in CASES:
            if "file request" in case[0]:
                yield f"{who}, rung 2: {case[0]}", lambda case=case: try_out(ground, rung2, user, case)
        for case in (made_to_fold, not_readable, other_names):
            yield f"{who}: {case.__doc__}", lambda case=case: case(ground, server, user)


def all_cases(ground):
    yield from cases(ground, "as caller", None)
    if os.geteuid() == 0:
        yield from cases(ground, "as uid 65534", NOBODY)


def main():
    global WITHOUT
    into_namespace()
    with tempfile.TemporaryDirectory(prefix="bailey-casefold-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        bailey.BAILEY = shutil.copy(bailey.BAILEY, directory)  # where an ordinary user gets at them
        WITHOUT = shutil.copy(WITHOUT, directory)
        os.mkdir(directory + "/ground")
        ground = Ground(directory + "/ground")
        try:
            run(all_cases(ground), jobs=1, only=sys.argv[3:])
        finally:
            ground.close()


main()
