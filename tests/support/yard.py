"""A yard to work in, and the policies around it, for tests that try walls out."""

import os
import shutil
import tempfile

NOBODY = 65534


class Yard:
    """A fresh directory, not below /tmp, which policies open; with copies of programs others may run."""

    def __init__(self, *programs):
        self.programs = programs

    def __enter__(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="bailey-yard-", dir="/var/tmp"))
        os.chmod(self.dir, 0o755)
        self.bin = self.path("bin")
        os.mkdir(self.bin)
        for program in self.programs:
            shutil.copy(program, self.bin)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def program(self, name):
        return os.path.join(self.bin, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def file(self, name, data, mode=0o600):
        """A new file's path."""
        path = self.path(name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
            os.fchmod(f.fileno(), mode)
        return path

    def give_to(self, user):
        """All of it, so that only walls are in the way of that user."""
        for directory, _, files in os.walk(self.dir):
            os.chown(directory, user, user)
            for name in files:
                os.chown(os.path.join(directory, name), user, user)


def entry(path, access):
    return {"path": {"type": "path", "path": "file://" + path}, "access": access}


MINIMAL = {"path": {"type": "special", "value": {"kind": "minimal"}}, "access": "read"}


def profile(*entries, network="restricted", cwd=None):
    """A sandbox member; without entries a file system that is not restricted."""
    fs = {"type": "restricted", "entries": list(entries)} if entries else {"type": "unrestricted"}
    context = {"windowsSandboxLevel": "disabled",
               "permissions": {"type": "managed", "network": network, "file_system": fs}}
    if cwd:
        context["cwd"] = "file://" + cwd
    return context
