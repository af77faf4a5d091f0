#!/usr/bin/env python3
"""Odd files and handles, asked for through a real server: odd.py PATH-TO-BAILEY [CASE...]

Without a wall and behind two. Each answer must come, say what is true on the host and leave the server as it was. Unit
test fs-extremes does the same to the operations alone.
"""

import base64
import os
import socket
import stat
from urllib.parse import unquote_to_bytes

from ground import (DENIED, FAILED, NOT_FOUND, SECRET, Door, Ground, b64, begin, context, entry, exchange,
                    expect, meanwhile, special, through_doors, until, uri)
from bailey import run, state_of  # noqa: E402

MIB = 1 << 20
DEEP = 2000  # levels
ANY_ERROR = (DENIED, NOT_FOUND, FAILED)
WALK = {"maxDepth": 64, "maxDirectories": 10000, "maxEntries": 50000, "followDirectorySymlinks": True}


def fresh(ground, door):
    """A directory of its own in the workspace."""
    directory = f"ws/{door.name.replace(' ', '-')}"
    os.makedirs(ground.path(directory), exist_ok=True)
    return directory


# ---- files that are none


def ask_everything(door, path, beside, codes):
    """Each operation that opens `path` is refused."""
    door.refused("readFile", codes, path=path)
    door.refused("open", codes, path=path, handleId="h")
    door.refused("open", codes, path=path, handleId="h", mode="replace")
    door.refused("writeFile", codes, path=path, dataBase64=b64(b"x"))
    door.refused("copy", codes, sourcePath=path, destinationPath=beside + ".copy", recursive=True)
    door.refused("copy", codes, sourcePath=beside, destinationPath=path, recursive=False)
    door.refused("readBlock", (NOT_FOUND,), handleId="h", offset=0, len=1)
    expect(not os.path.lexists(beside + ".copy"), f"{door.name}: something of {path} was copied")


def fifos_and_sockets(ground, door):
    directory = fresh(ground, door)
    fifo, name = ground.path(directory + "/fifo"), ground.path(directory + "/socket")
    beside = ground.write(directory + "/file")
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        for path in fifo, name:
            ask_everything(door, path, beside, (DENIED,))
            told = door.call("getMetadata", path=path)
            expect(not told["isFile"] and not told["isDirectory"], f"{path} is said to be {told}")
    expect(stat.S_ISFIFO(os.lstat(fifo).st_mode) and stat.S_ISSOCK(os.lstat(name).st_mode), "they are what they were")
    tree = ground.path(directory)
    door.call("copy", sourcePath=tree, destinationPath=tree + ".tree", recursive=True)
    expect(os.listdir(tree + ".tree") == ["file"], "a copied tree leaves them out")
    door.call("remove", path=fifo)
    expect(not os.path.lexists(fifo), "a FIFO can be removed")


def fed_pipes(ground, door):
    """Somebody writes without an end, and somebody waits to read."""
    directory = fresh(ground, door)
    fifo, beside = ground.path(directory + "/fifo"), ground.write(directory + "/file")
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)

    def feed():
        try:
            os.write(fd, SECRET * 100)
        except BlockingIOError:
            os.read(fd, 1 << 16)

    with meanwhile(feed):
        for _ in range(5):
            ask_everything(door, fifo, beside, (DENIED,))
        # Of another process, through its descriptors.
        door.refused("readFile", ANY_ERROR, path=f"/proc/{os.getpid()}/fd/{fd}")
    os.close(fd)


def devices(ground, door):
    beside = ground.write(fresh(ground, door) + "/file")
    for name in "zero", "full", "null", "random", "urandom", "tty", "ptmx", "kmsg", "console", "fuse":
        ask_everything(door, "/dev/" + name, beside, ANY_ERROR)
    door.refused("readFile", (NOT_FOUND if door.name == "reading little" else DENIED,), path="/dev/zero")


def swapped_in(ground, door):
    """A regular file and a FIFO change places while both are used."""
    directory = fresh(ground, door)
    path, fifo = ground.write(directory + "/file", b"text"), ground.path(directory + "/fifo")
    os.mkfifo(fifo)
    copy, count = path + ".copy", {}
    with meanwhile(lambda: exchange(path, fifo)):
        for _ in range(100):
            for method, params in (("readFile", {"path": path}), ("open", {"path": path, "handleId": "h"}),
                                   ("writeFile", {"path": path, "dataBase64": b64(b"text")}),
                                   ("copy", {"sourcePath": path, "destinationPath": copy, "recursive": False})):
                code = door.code(method, **params)
                expect(code in (0, DENIED), f"{method}: {code}")
                count[method, code] = count.get((method, code), 0) + 1
                if method == "open" and code == 0:
                    expect(door.block("h", 0, 100)[0] in (b"text", b""), "the block")
                    door.close("h")
                if method == "readFile" and code == 0:
                    expect(self_text(door) in (b"text", b""), "the file")
    expect(all(count.get((method, code)) for method in ("readFile", "open") for code in (0, DENIED)), f"both: {count}")


def self_text(door):
    return base64.b64decode(door.result["dataBase64"])


# ---- /proc


def files_of_proc(ground, door):
    """Without a size, without an end, and such as must not be read by the server itself."""
    hidden = door.name == "reading little"
    for name in "version", "meminfo", "self/status", "self/mountinfo":
        path = "/proc/" + name
        codes = (NOT_FOUND, DENIED) if hidden else (0,) if door.sandbox is None else (0, *ANY_ERROR)
        code = door.code("readFile", path=path)
        expect(code in codes, f"{door.name}: {path}: {code}")
        expect(code != 0 or len(self_text(door)) > 20, f"{path} has been read to its end")
    names = ["self/mem", "kmsg", "kcore", "self/fd/0", "sys/kernel/core_pattern", f"{ground.server.pid}/mem",
             f"{ground.server.pid}/fd/0", f"{ground.server.pid}/pagemap"]
    # Without an end. Of a sanitized helper the kernel takes half a minute to say as much as it is asked for.
    names += ["self/pagemap"] if door.sandbox is None else []
    for name in names:
        code = door.code("open", path="/proc/" + name, handleId="h")
        if code == 0:
            door.code("readBlock", handleId="h", offset=0, len=4096)
            door.code("readBlock", handleId="h", offset=1 << 62, len=4096)
            door.close("h")
        if name != "kcore":
            door.code("readFile", path="/proc/" + name)
        if "mem" in name or name == "kmsg":
            door.code("copy", sourcePath="/proc/" + name, destinationPath=ground.path("ws/copy"), recursive=False)
    if os.path.exists(ground.path("ws/copy")):
        os.remove(ground.path("ws/copy"))


def the_server_in_proc(ground, door):
    """Its environment, by every name; the twin is the same request without a wall, which may see it."""
    names = [f"/proc/{who}/environ" for who in
             ("self", "thread-self", "1", str(ground.server.pid), f"{ground.server.pid}/task/{ground.server.pid}",
              *sorted({str(pid) for pid, _ in ground.server.descendants()}))]
    seen = [path for path in names if door.code("readFile", path=path) == 0 and SECRET in self_text(door)]
    if door.sandbox is None:
        expect(seen or os.geteuid() != 0, "without a wall root sees it")
    else:
        expect(not seen, f"{door.name}: the server's environment is in {seen}")


# ---- files that change while they are read


def growing_and_shrinking(ground, door):
    path = ground.write(fresh(ground, door) + "/file", b"")
    fd = os.open(path, os.O_WRONLY)
    size = 0

    def change():
        nonlocal size
        if size >= 8 * MIB:
            size = os.ftruncate(fd, 0) or 0
        else:
            size += os.pwrite(fd, b"x" * 65536, size)

    def only_x(data):
        expect(data.count(b"x") + data.count(b"\0") == len(data), "nothing but what was written, or what is a hole")

    door.call("open", path=path, handleId="h")
    with meanwhile(change):
        for turn in range(20):
            only_x(door.read(path))
            for offset in 0, 3 * MIB + 7, 1 << 40:
                data, eof = door.block("h", offset, MIB)
                only_x(data)
                expect(eof == (len(data) < MIB), "eof means a short block")
            if turn % 5 == 0:
                door.call("copy", sourcePath=path, destinationPath=path + ".copy", recursive=False)
    door.close("h")
    os.close(fd)


def sparse_files(ground, door):
    directory = fresh(ground, door)
    for size in 64 << 30, 1 << 40:
        path, copy = ground.write(directory + "/sparse", b"begin"), ground.path(directory + "/copy")
        with open(path, "r+b") as f:
            f.truncate(size)
            os.pwrite(f.fileno(), b"middle", size // 2)
            os.pwrite(f.fileno(), b"end", size - 3)
        expect(door.call("getMetadata", path=path)["size"] == size, "the size")
        expect(door.code("readFile", path=path) == DENIED and "too large" in door.said, "too large at once")
        door.call("copy", sourcePath=path, destinationPath=copy, recursive=False)
        told = os.stat(copy)
        expect(told.st_size == size and told.st_blocks * 512 < MIB, f"holes stay holes: {told}")
        door.call("open", path=copy, handleId="h")
        for offset, length, wanted in ((0, 5, b"begin"), (size // 2, 6, b"middle"), (size - 3, 3, b"end"),
                                       (size - 3, 4, b"end"), (size, 1, b""), (1 << 62, 1, b""),
                                       (size // 4, 1000, bytes(1000))):
            expect(door.block("h", offset, length) == (wanted, len(wanted) < length), f"block at {offset} of {size}")
        door.close("h")
        os.remove(path)
        os.remove(copy)
    path = ground.write(directory + "/large", b"")
    os.truncate(path, 100 * MIB)
    door.refused("readFile", (FAILED,), path=path)
    expect("exceeds the limit of 67108864 bytes" in door.said, door.said)


def far_writes(ground, door):
    path = ground.path(fresh(ground, door) + "/far")
    door.call("open", path=path, handleId="w", mode="replace")
    door.write_block("w", (1 << 40) - 4, b"far!")
    told = os.stat(path)
    expect(told.st_size == 1 << 40 and told.st_blocks * 512 < MIB, f"{told}")
    for offset in (1 << 63) - 5, (1 << 63) - 1, 1 << 63, (1 << 64) - 1:
        door.refused("writeBlock", (DENIED, FAILED), handleId="w", offset=offset, chunk=b64(b"12345678"))
    door.write_block("w", 0, b"near")
    door.close("w")
    with open(path, "rb") as f:
        expect(f.read(4) == b"near" and os.pread(f.fileno(), 4, (1 << 40) - 4) == b"far!", "both are there")


# ---- names and trees


def odd_names():
    every = bytes(c for c in range(1, 256) if c != ord("/"))
    return [every[i:i + 60] for i in range(0, len(every), 60)] + [
        b"line\nbreak", b"\n", b"\t", b" ", b"\\", b"%41", b"%2F", b"%2e%2e", b"...", b"-rf", b"file:", b"a?b#c",
        b'"q"', b"\x1b[31mred", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", "\u202egnp".encode(),
        "e\u0301".encode(), "\u00e9".encode(), b"n" * 255, b"\xff" * 255, b"\x01" * 255]


def hostile_names(ground, door):
    directory = ground.path(fresh(ground, door) + "/names")
    os.mkdir(directory)
    raw = os.fsencode(directory)
    for name in odd_names():
        with open(raw + b"/" + name, "wb") as f:
            f.write(name)
    listed = door.call("readDirectory", path=directory)["entries"]
    wanted = sorted(name.decode("utf-8", "replace") for name in odd_names())
    expect(len(listed) == len(wanted), f"{len(listed)} of {len(wanted)} names are listed")
    told = {e["fileName"] for e in listed}
    expect(told >= {n for n in wanted if "\ufffd" not in n}, "names that are UTF-8 are told as they are")
    walked = [e["path"] for e in door.call("walk", path=directory, options=WALK)["entries"]]
    decoded = {unquote_to_bytes(path.removeprefix("file://")) for path in walked}
    expect(decoded == {raw + b"/" + name for name in odd_names()}, "the walk")
    for path in walked:
        name = unquote_to_bytes(path).rpartition(b"/")[2]
        expect(door.read(path) == name and door.call("canonicalize", path=path)["path"] == path, f"{path} means itself")
        expect(door.call("getMetadata", path=path)["size"] == len(name), f"size of {path}")
    door.call("copy", sourcePath=directory, destinationPath=directory + ".copy", recursive=True)
    expect(set(os.listdir(raw + b".copy")) == set(odd_names()), "they are copied")
    for path in walked:
        door.call("remove", path=path)
    expect(os.listdir(raw) == [], "they are removed")


def make_deep(path, levels):
    os.mkdir(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def depth_of(path):
    levels, fd = 0, os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    while True:
        try:
            below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            return levels
        finally:
            os.close(fd)
        fd, levels = below, levels + 1


def deep_trees(ground, door):
    tree = ground.path(fresh(ground, door) + "/deep")
    make_deep(tree, DEEP)
    walked = door.call("walk", path=tree, options=WALK)
    n = len(walked["entries"])
    expect(n == 2 * 65 and not walked["truncated"], f"{n} entries down to the depth")
    door.call("copy", sourcePath=tree, destinationPath=tree + ".copy", recursive=True)
    expect(depth_of(tree + ".copy") == DEEP, "the copy is as deep")
    # The last one is longer than the kernel lets a path be.
    for levels, wanted in (DEEP - 1, (0,)), (DEEP + 1, (NOT_FOUND,)), (3000, ANY_ERROR):
        door.refused("getMetadata", wanted, path=tree + "/d" * levels)
    for path in tree, tree + ".copy":
        door.call("remove", path=path)
        expect(not os.path.lexists(path), "it is gone")


def wide_directories(ground, door):
    wide = ground.path(fresh(ground, door) + "/wide")
    os.mkdir(wide)
    for i in range(3000):
        os.mknod(f"{wide}/{i}")
    expect(len(door.call("readDirectory", path=wide)["entries"]) == 3000, "all are listed")
    expect(len(door.call("walk", path=wide, options=WALK)["entries"]) == 3000, "all are walked")
    door.call("copy", sourcePath=wide, destinationPath=wide + ".copy", recursive=True)
    expect(len(os.listdir(wide + ".copy")) == 3000, "all are copied")
    for path in wide, wide + ".copy":
        door.call("remove", path=path)
        expect(not os.path.lexists(path), "it is gone")


def link_loops(ground, door):
    directory = ground.path(fresh(ground, door) + "/loops")
    os.mkdir(directory)
    for name, target in (("self", "self"), ("a", "b"), ("b", "a"), ("dot", "."), ("up", "../loops"), ("c0", "."),
                         *((f"c{i}", f"c{i - 1}") for i in range(1, 60))):
        os.symlink(target, f"{directory}/{name}")
    for name in "self", "a", "self/x", "c59", "c59/dot":
        path = f"{directory}/{name}"
        for method in "readFile", "getMetadata", "canonicalize", "readDirectory":
            door.refused(method, ANY_ERROR, path=path)
        door.refused("open", ANY_ERROR, path=path, handleId="h")
        door.refused("writeFile", ANY_ERROR, path=path, dataBase64="")
        door.refused("createDirectory", ANY_ERROR, path=path + "/y", recursive=True)
    walked = door.call("walk", path=directory, options=WALK)
    expect(len(walked["entries"]) <= 63, "a directory is entered once")
    door.call("getMetadata", path=directory + "/dot" * 30 + "/up" * 9)
    door.refused("getMetadata", ANY_ERROR, path=directory + "/dot" * 100)
    door.call("copy", sourcePath=directory, destinationPath=directory + ".copy", recursive=True)
    expect(os.readlink(directory + ".copy/self") == "self", "links are copied as links")
    door.call("remove", path=directory)
    expect(not os.path.lexists(directory), "links are removed as links")


def copies_into_themselves(ground, door):
    directory = ground.path(fresh(ground, door) + "/self")
    os.makedirs(directory + "/tree/sub")
    path = directory + "/tree/file"
    with open(path, "wb") as f:
        f.write(SECRET)
    os.symlink("tree", directory + "/alias")
    os.symlink("tree/sub", directory + "/below")
    os.symlink("file", directory + "/tree/link")
    os.link(path, directory + "/hard")
    for target in ("tree", "tree/sub", "tree/sub/new/deep", "alias", "alias/new", "below", "below/new",
                   "tree/../alias/x"):
        door.refused("copy", (DENIED,), sourcePath=directory + "/tree", destinationPath=f"{directory}/{target}",
                     recursive=True)
    for target in "tree/file", "alias/file", "tree/link", "alias/link", "hard":
        door.refused("copy", (DENIED,), sourcePath=path, destinationPath=f"{directory}/{target}", recursive=False)
    expect(sorted(os.listdir(directory + "/tree")) == ["file", "link", "sub"], "nothing was made")
    expect(os.listdir(directory + "/tree/sub") == [], "nothing was made below")
    with open(path, "rb") as f:
        expect(f.read() == SECRET, "the file is whole")


def long_paths(ground, door):
    base = ground.path(fresh(ground, door))
    source = ground.write(fresh(ground, door) + "/file")
    for path in (base + "/" + "n" * 256, base + "/" + "n" * 5000, base + "/d" * 5000, base + "/" + "d/" * 100000,
                 uri(base) + "/" + "%ff" * 256, uri(base) + "/%64" * 20000):
        ask = [("readFile", {}), ("getMetadata", {}), ("writeFile", {"dataBase64": ""}), ("createDirectory", {}),
               ("open", {"handleId": "h"}), ("readDirectory", {}), ("canonicalize", {}), ("walk", {"options": WALK})]
        for method, params in ask:
            door.refused(method, (*ANY_ERROR, -32602), path=path, **params)
        door.refused("copy", (*ANY_ERROR, -32602), sourcePath=source, destinationPath=path, recursive=False)
    expect(os.listdir(base) == ["file"], "nothing was made")


# ---- handles


def handles_keep_their_file(ground, door):
    """Whatever happens to the name: replaced by a link to the outside, its directory too, removed."""
    directory = fresh(ground, door)
    old = ground.path(directory + "/dir")
    ground.write(directory + "/dir/file", b"inside")
    name = old + "/file"
    door.call("open", path=name, handleId="r")
    door.call("open", path=old + "/new", handleId="w", mode="replace")
    for link in name, old + "/new":
        os.rename(link, link + ".kept")
        os.symlink(ground.secret, link)
    expect(door.block("r", 0, 100) == (b"inside", True), "a link in its place")
    door.write_block("w", 0, b"first")
    os.rename(old, old + ".moved")
    os.symlink(ground.out, old)
    expect(door.block("r", 2, 100) == (b"side", True), "a link in the place of its directory")
    door.write_block("w", 5, b" second")
    with open(old + ".moved/new.kept", "rb") as f:
        expect(f.read() == b"first second", "what was written is in the file that was opened")
    os.remove(old + ".moved/new.kept")
    os.remove(old + ".moved/file.kept")
    expect(door.block("r", 0, 100) == (b"inside", True), "no name at all")
    door.write_block("w", 0, b"nowhere")
    for method, params in (("writeBlock", {"handleId": "r", "chunk": b64(b"x")}),
                           ("readBlock", {"handleId": "w", "len": 9})):
        door.refused(method, ANY_ERROR, offset=0, **params)
    door.close("r")
    door.close("w")


def handles_and_ids(ground, door):
    """An id is one file at a time, of one connection."""
    directory = fresh(ground, door)
    one, two = ground.write(directory + "/one", b"1"), ground.write(directory + "/two", b"2")
    door.call("open", path=one, handleId="h")
    for path in two, ground.secret:
        door.refused("open", (DENIED, NOT_FOUND), path=path, handleId="h")
        expect(door.block("h", 0, 9)[0] == b"1", "the handle is what it was")
    with ground.server.client() as other:
        code = other.fails("fs/readBlock", {"handleId": "h", "offset": 0, "len": 1}, "unknown file handle")
        expect(code == NOT_FOUND, f"another connection's handle: {code}")
        other.call("fs/close", {"handleId": "h"})
    door.close("h")
    door.close("h")
    door.refused("readBlock", (NOT_FOUND,), handleId="h", offset=0, len=1)
    for turn in range(50):
        wanted, other = (one, two) if turn % 2 else (two, one)
        open_one, open_two = ({"path": path, "handleId": "h", "sandbox": door.sandbox} for path in (other, wanted))
        block = {"handleId": "h", "offset": 0, "len": 9}
        closing = ("fs/close", {"handleId": "h"})
        numbers = door.client.send_together(("fs/open", open_one), closing, ("fs/open", open_two),
                                            ("fs/readBlock", block), closing)
        answers = [door.client.answer(number) for number in numbers]
        expect(base64.b64decode(answers[3]["chunk"]) == (b"1" if turn % 2 else b"2"), "all at once, in their order")
    door.refused("open", ANY_ERROR, path=ground.path(directory), handleId="h")
    door.refused("open", ANY_ERROR, path=ground.path(directory), handleId="h", mode="replace")
    door.refused("readBlock", (NOT_FOUND,), handleId="h", offset=0, len=1)


def handles_and_other_policies():
    """Only the opening is decided on: later policies neither take a handle away nor widen it."""
    with Ground() as ground:
        open_all, nothing = (ground.doors["reading all"],
                             context(special("root", "read"), entry(ground.ws, "deny")))
        path = ground.write("ws/file", b"inside")
        allowed, denied = Door(ground.client, "allowed", open_all), Door(ground.client, "denied", nothing)
        allowed.call("open", path=path, handleId="h")
        denied.refused("readFile", (DENIED,), path=path)
        denied.refused("open", (DENIED,), path=path, handleId="g")
        denied.refused("open", (DENIED,), path=path, handleId="g", mode="replace")
        expect(ground.read("ws/file") == b"inside", "what may not be opened is not truncated")
        expect(allowed.block("h", 0, 100)[0] == b"inside", "the handle lives on")
        denied.refused("readBlock", (NOT_FOUND,), handleId="g", offset=0, len=1)
        for target in ground.secret, ground.out + "/new":
            allowed.refused("open", (DENIED,), path=target, handleId="g", mode="replace")
        Door(ground.client, "twin", None).call("open", path=ground.secret, handleId="g")
        ground.expect_unharmed()


def handles_race_with_links():
    """A name that is now a file, now a link to the secret: what is opened by it is never the secret."""
    with Ground() as ground:
        door = Door(ground.client, "reading little", ground.doors["reading little"])
        path, link = ground.write("ws/file", b"inside"), ground.path("ws/link")
        os.symlink(ground.secret, link)
        counts = [0, 0]
        with meanwhile(lambda: exchange(path, link)):
            for turn in range(300):
                mode = "replace" if turn % 3 == 2 else "read"
                code = door.code("open", path=path, handleId="h", mode=mode)
                counts[code == 0] += 1
                if code == 0 and mode == "read":
                    expect(door.block("h", 0, 100)[0] in (b"inside", b""), "the block")
                elif code == 0:
                    door.write_block("h", 0, b"inside")
                door.close("h")
        expect(all(counts), f"both ways were seen: {counts}")
        ground.expect_unharmed()


# ---- what is left


def nothing_is_left():
    """Helpers that are stuck, and memory that grows: after clients have left in the middle of it all."""
    with Ground("--detach-ms", 100, in_memory=True) as ground:
        before = ground.server.descendants()
        fifo, sparse = ground.path("ws/fifo"), ground.write("ws/sparse")
        os.mkfifo(fifo)
        os.truncate(sparse, 1 << 40)
        make_deep(ground.path("ws/deep"), 1000)
        memory = ground.server.memory()
        for turn in range(10):
            client = ground.server.client()
            for name, sandbox in ground.doors.items():
                copy = ground.path(f"ws/copy-{turn}-{name}")
                client.send("fs/readFile", {"path": fifo, "sandbox": sandbox})
                client.send("fs/readFile", {"path": sparse, "sandbox": sandbox})
                client.send("fs/copy", {"sourcePath": ground.ws + "/deep", "destinationPath": copy, "recursive": True,
                                        "sandbox": sandbox})
                client.send("fs/copy", {"sourcePath": sparse, "destinationPath": copy + "-file", "recursive": False,
                                        "sandbox": sandbox})
            client.drop()
        until(lambda: ground.server.descendants() <= before, "the helpers of those who left to end")
        ground.expect_unharmed()
        until(lambda: state_of(ground.server.pid) == "S", "the server to rest")
        grown = ground.server.memory() - memory
        # A sanitizer keeps 256 MiB of freed memory before it uses it again.
        expect(grown < 320 * MIB, f"the server has grown by {grown >> 20} MiB")


begin()
run([(name, through_doors(check)) for name, check in (
    ("FIFOs and sockets are no files", fifos_and_sockets),
    ("nor are pipes that are fed without an end", fed_pipes),
    ("nor are devices", devices),
    ("a FIFO swapped in", swapped_in),
    ("files of /proc", files_of_proc),
    ("the server's own place in /proc", the_server_in_proc),
    ("files that grow and shrink while they are read", growing_and_shrinking),
    ("64 GiB and 1 TiB with holes", sparse_files),
    ("writing far away", far_writes),
    ("hostile names", hostile_names),
    ("deep trees", deep_trees),
    ("wide directories", wide_directories),
    ("loops of links", link_loops),
    ("copying into itself", copies_into_themselves),
    ("paths that are too long", long_paths),
    ("a handle keeps its file", handles_keep_their_file),
    ("ids of handles", handles_and_ids),
)] + [
    ("a handle and other policies", handles_and_other_policies),
    ("opening in a race with a link", handles_race_with_links),
    ("nothing is left of those who leave", nothing_is_left),
], jobs=2)
