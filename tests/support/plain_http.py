"""HTTP by hand, for what no library would send or show."""

import socket

UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")


def head_of(first_line, *headers):
    return "\r\n".join([first_line + " HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1")


def read_answer(sock):
    """(status, headers by lower-case name, body, which is "" for 101)."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise OSError("the connection ended without an answer")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(first.split(" ")[1])
    while status != 101 and (piece := sock.recv(65536)):
        body += piece
    return status, headers, body.decode() if status != 101 else ""


def exchange(address, timeout, first_line, *headers):
    with socket.create_connection(address, timeout) as sock:
        sock.sendall(head_of(first_line, *headers))
        return read_answer(sock)
