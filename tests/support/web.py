"""A web server on the loopback interface that does what its URLs ask for; threads, standard library only.

  /echo                  what was asked, as JSON
  /redirect?to=U&code=N  to somewhere else; /loop redirects to itself for ever
  /big?bytes=N           N bytes of body(), as fast as they are taken
  /drip?n=N              N events, one whenever release() is called
  /hang                  answers never
  /short                 promises more than it sends
  /head?bytes=N          a header of N bytes
  /gzip /repeat /status?code=N
"""

import base64
import gzip
import hashlib
import json
import socket
import ssl
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

UNIT = hashlib.sha256(b"unit").hexdigest().encode() + b"\n"  # 65 bytes: no power of two
BLOCK = UNIT * 1000


def body(n):
    return (UNIT * (n // len(UNIT) + 1))[:n]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a response is one segment, or Nagle makes it wait

    def log_message(self, *_):
        pass

    def do_any(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urllib.parse.urlsplit(self.path)
        query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        self.server.web.seen.append((self.command, self.path, self.headers.items(), data))
        name = url.path.strip("/").split("/")[0]
        method = getattr(self, "serve_" + name, self.serve_echo)
        try:
            method(query, data)
            self.wfile.flush()
        except OSError:
            self.server.web.broken.set()
            self.close_connection = True

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.do_any
        raise AttributeError(name)

    def head(self, status, headers, length=None):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def answer(self, status, headers=(), data=b""):
        self.head(status, headers, len(data))
        if self.command != "HEAD":
            self.wfile.write(data)

    def serve_echo(self, _, data):
        self.answer(200, [], json.dumps({"method": self.command, "path": self.path, "headers": self.headers.items(),
                                         "body": base64.b64encode(data).decode()}).encode())

    def serve_redirect(self, query, _):
        self.answer(int(query.get("code", 302)), [("Location", query["to"])], b"moved")

    def serve_loop(self, *_):
        self.answer(302, [("Location", "/loop")], b"again")

    def serve_big(self, query, _):
        left = int(query["bytes"])
        self.head(200, [], left)
        while left > 0:
            self.wfile.write(BLOCK[:left])
            self.server.web.written += min(left, len(BLOCK))
            left -= len(BLOCK)

    def serve_drip(self, query, _):
        self.head(200, [("Content-Type", "text/event-stream"), ("Connection", "close")])
        self.close_connection = True
        for i in range(int(query["n"])):
            self.wfile.write(b"data: %d\n\n" % i)
            self.wfile.flush()
            self.server.web.gate.acquire()
        while "broken" in query:  # until it is noticed that nobody reads
            self.wfile.write(b"more\n")
            self.wfile.flush()

    def serve_hang(self, *_):
        self.connection.settimeout(60)
        if self.connection.recv(1) == b"":
            self.server.web.broken.set()
        self.close_connection = True

    def serve_short(self, *_):
        self.head(200, [], 100)
        self.wfile.write(b"ten bytes.")
        self.close_connection = True

    def serve_head(self, query, _):
        self.answer(200, [("X-Long", "x" * 1000)] * (int(query["bytes"]) // 1000), b"ok")

    def serve_gzip(self, *_):
        self.answer(200, [("Content-Encoding", "gzip")], gzip.compress(b"hello", mtime=0))

    def serve_repeat(self, *_):
        self.answer(200, [("X-Many", "1"), ("x-MANY", "2"), ("Set-Cookie", "a=b"), ("X-Latin", "caf\xe9")], b"ok")

    def serve_status(self, query, _):
        self.answer(int(query["code"]), [], b"")


class Web:
    def __init__(self, certificate=None):
        self.seen = []
        self.written = 0
        self.broken = threading.Event()
        self.gate = threading.Semaphore(0)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.server.web = self
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path, host="127.0.0.1"):
        return f"{self.scheme}://{host}:{self.port}{path}"

    def release(self, n=1):
        self.gate.release(n)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.gate.release(1 << 20)
        self.server.shutdown()
        self.server.server_close()


def dead_port():
    """One that nobody listens on: taken, and not let go before the test ends."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken, taken.getsockname()[1]


def deaf_port():
    """One whose connections are never accepted nor refused: its queue is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    callers = [socket.socket() for _ in range(4)]
    for caller in callers:
        caller.setblocking(False)
        caller.connect_ex(listener.getsockname())
    return (listener, callers), listener.getsockname()[1]
