"""A small WebSocket client (RFC 6455) that can also send what a polite one would not."""

import asyncio
import struct

from frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, accept_of, frame, new_key

MAX_MESSAGE = 1 << 30


class HandshakeError(Exception):
    pass


class ProtocolError(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


class WebSocket:
    """`on_message(data, is_binary)`, `on_pong(data)` and `on_close(code, reason)` are called."""

    def __init__(self, on_message, on_pong, on_close):
        self.on_message = on_message
        self.on_pong = on_pong
        self.on_close = on_close
        self.is_open = False
        self.close_sent = False
        self.close_code = 1006
        self.close_reason = b""
        self.in_fragments = False

    async def connect(self, target, path, headers):
        self.reader, self.writer = await target.open_stream()
        key = new_key()
        lines = {"Host": target.host_header, "Upgrade": "websocket", "Connection": "Upgrade",
                 "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key, **headers}
        request = f"GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        self.writer.write(request.encode() + b"\r\n")
        try:
            self.check_answer(await self.reader.readuntil(b"\r\n\r\n"), key)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise HandshakeError("socket hang up") from error
        self.is_open = True
        self.task = asyncio.create_task(self.receive())

    @staticmethod
    def check_answer(answer, key):
        status, *lines = answer.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (l.partition(":") for l in lines)}
        if status.split(" ")[1:2] != ["101"]:
            raise HandshakeError(f"Unexpected server response: {status.split(' ')[1]}")
        if headers.get("upgrade", "").lower() != "websocket":
            raise HandshakeError("Invalid Upgrade header")
        if headers.get("sec-websocket-accept") != accept_of(key):
            raise HandshakeError("Invalid Sec-WebSocket-Accept header")
        if "sec-websocket-extensions" in headers:
            raise HandshakeError("the server accepted an extension, which cannot be spoken here")

    # ---- sending

    def send(self, data, binary=False, fin=True):
        """One frame of a message; without `fin` the next send() goes on with it."""
        if not self.is_open or self.close_sent:
            return
        opcode = CONTINUATION if self.in_fragments else BINARY if binary else TEXT
        self.in_fragments = not fin
        self.writer.write(frame(opcode, data, fin))

    def ping(self, data):
        if self.is_open and not self.close_sent:
            self.writer.write(frame(PING, data))

    def close(self, code, reason=b""):
        if self.is_open and not self.close_sent:
            self.close_sent = True
            self.writer.write(frame(CLOSE, struct.pack("!H", code) + reason))

    def terminate(self):
        """Drops the TCP connection."""
        if self.is_open:
            self.writer.transport.abort()

    async def finish(self):
        """A server lives on; nothing is wrong with that."""

    # ---- receiving

    async def receive(self):
        try:
            while await self.receive_message():
                pass
        except ProtocolError as error:
            self.close(error.code, str(error).encode())
            self.close_code = 1006
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            pass
        self.is_open = False
        self.writer.close()
        self.on_close(self.close_code, self.close_reason.decode("utf-8", "replace"))

    async def receive_message(self):
        """Handles what comes next, up to a whole message; False when the server closed."""
        parts, size, kind = [], 0, None
        while True:
            fin, opcode, data = await self.receive_frame()
            if opcode >= CLOSE:
                if not self.control(opcode, data):
                    await self.reader.read(-1)  # the server ends the TCP connection
                    return False
                if kind is None:
                    return True
                continue
            if (opcode == CONTINUATION) == (kind is None):
                raise ProtocolError(1002, "fragments out of order")
            kind = kind or opcode
            parts.append(data)
            size += len(data)
            if size > MAX_MESSAGE:
                raise ProtocolError(1009, "message too big")
            if fin:
                break
        message = b"".join(parts)
        if kind == TEXT:
            try:
                message.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ProtocolError(1007, "invalid UTF-8 sequence") from error
        self.on_message(message, kind == BINARY)
        return True

    async def receive_frame(self):
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        opcode = first & 0x0F
        if first & 0x70 or second & 0x80 or opcode not in (0, 1, 2, 8, 9, 10):
            raise ProtocolError(1002, "invalid frame header")
        if opcode >= CLOSE and (size > 125 or not first & 0x80):
            raise ProtocolError(1002, "invalid control frame")
        if size == 126:
            size = struct.unpack("!H", await self.reader.readexactly(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", await self.reader.readexactly(8))[0]
        if size > MAX_MESSAGE:
            raise ProtocolError(1009, "frame too big")
        return first & 0x80, opcode, await self.reader.readexactly(size)

    def control(self, opcode, data):
        """A ping, pong or close; False for the last."""
        if opcode == PING and not self.close_sent:
            self.writer.write(frame(PONG, data))
        elif opcode == PONG:
            self.on_pong(data)
        elif opcode == CLOSE:
            self.close_code = struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1005
            self.close_reason = data[2:]
            if not self.close_sent:
                self.close_sent = True
                self.writer.write(frame(CLOSE, data[:2]))
            return False
        return True
