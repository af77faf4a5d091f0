#!/usr/bin/env python3
"""Who may connect, over real sockets: auth.py PATH-TO-BAILEY. Every row of the tables in docs/PROTOCOL.md, the errors
at start, and what may be listened on."""

import base64
import hashlib
import hmac
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import UPGRADE, Server, Skip, holds, read_answer, run, start_fails  # noqa: E402
from yard import Yard  # noqa: E402

TOKEN = "correct-horse-battery-staple"
SECRET = "0123456789abcdef0123456789abcdef"
HOUR = 3600


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(claims, header=None, secret=SECRET, digest=hashlib.sha256):
    parts = [part if isinstance(part, str) else json.dumps(part)
             for part in (header or {"alg": "HS256", "typ": "JWT"}, claims)]
    text = ".".join(b64url(part.encode()) for part in parts)
    return text + "." + b64url(hmac.new(secret.encode(), text.encode(), digest).digest())


def valid(**more):
    return {"exp": int(time.time()) + HOUR, **more}


def bearer(token):
    return "Authorization: Bearer " + token


def refused(text):
    return 401, text


WELCOME = (101, "")
NO_TOKEN = refused("missing websocket bearer token")
BAD_HEADER = refused("invalid authorization header")
WRONG = refused("invalid websocket bearer token")
BAD_JWT = refused("invalid websocket jwt")
EXPIRED = refused("expired websocket jwt")
EARLY = refused("websocket jwt is not valid yet")
ISSUER = refused("websocket jwt issuer mismatch")
AUDIENCE = refused("websocket jwt audience mismatch")

TOKEN_ROWS = [
    ("the token", [bearer(TOKEN)], WELCOME),
    ("the scheme in any case, blanks around", [f"authorization:  bEARER    {TOKEN}   "], WELCOME),
    ("no header", [], NO_TOKEN),
    ("another scheme", ["Authorization: Basic " + TOKEN], BAD_HEADER),
    ("no scheme", ["Authorization: " + TOKEN], BAD_HEADER),
    ("an empty header", ["Authorization:"], BAD_HEADER),
    ("no token", ["Authorization: Bearer "], BAD_HEADER),
    ("a tab behind the scheme", ["Authorization: Bearer\t" + TOKEN], BAD_HEADER),
    ("bytes that are not ASCII", ["Authorization: Bearer \xe9"], BAD_HEADER),
    ("another token", [bearer("wrong")], WRONG),
    ("the beginning of the token", [bearer(TOKEN[:-1])], WRONG),
    ("more than the token", [bearer(TOKEN + "x")], WRONG),
    ("the token in another case", [bearer(TOKEN.upper())], WRONG),
    ("the token's digest", [bearer(hashlib.sha256(TOKEN.encode()).hexdigest())], WRONG),
    ("the first header counts, right", [bearer(TOKEN), bearer("wrong")], WELCOME),
    ("the first header counts, wrong", [bearer("wrong"), bearer(TOKEN)], WRONG),
    ("the second header's name", ["X-Bailey-Authorization: Bearer " + TOKEN], WELCOME),
    ("the second header's name, wrong", ["X-Bailey-Authorization: Bearer wrong"], WRONG),
    ("the second header's name, no scheme", ["X-Bailey-Authorization: " + TOKEN], BAD_HEADER),
    ("Authorization beats it, right", ["X-Bailey-Authorization: Bearer wrong", bearer(TOKEN)], WELCOME),
    ("Authorization beats it, wrong", ["X-Bailey-Authorization: Bearer " + TOKEN, bearer("wrong")], WRONG),
    ("Authorization beats it, empty", ["X-Bailey-Authorization: Bearer " + TOKEN, "Authorization:"], BAD_HEADER),
    ("a cookie is no token", ["Cookie: token=" + TOKEN], NO_TOKEN),
]

JWT_ROWS = [
    ("a JWT", lambda: jwt(valid()), WELCOME),
    ("iat is ignored", lambda: jwt(valid(iat=int(time.time()) + HOUR)), WELCOME),
    ("other claims are ignored", lambda: jwt(valid(sub="me", deep={"a": [1]})), WELCOME),
    ("nbf in the past", lambda: jwt(valid(nbf=int(time.time()) - HOUR)), WELCOME),
    ("null counts as absent", lambda: jwt(valid(nbf=None, iss=None, aud=None)), WELCOME),
    ("within the clock skew, late", lambda: jwt({"exp": int(time.time()) - 10}), WELCOME),
    ("within the clock skew, early", lambda: jwt(valid(nbf=int(time.time()) + 10)), WELCOME),
    ("the capability token of another mode", lambda: TOKEN, BAD_JWT),
    ("another secret", lambda: jwt(valid(), secret=SECRET[::-1]), BAD_JWT),
    ("alg none, signed", lambda: jwt(valid(), {"alg": "none"}), BAD_JWT),
    ("alg none, no signature", lambda: jwt(valid(), {"alg": "none"}).rpartition(".")[0] + ".", BAD_JWT),
    ("alg HS512", lambda: jwt(valid(), {"alg": "HS512"}, digest=hashlib.sha512), BAD_JWT),
    ("alg RS256", lambda: jwt(valid(), {"alg": "RS256"}), BAD_JWT),
    ("alg in another case", lambda: jwt(valid(), {"alg": "hs256"}), BAD_JWT),
    ("no alg", lambda: jwt(valid(), {"typ": "JWT"}), BAD_JWT),
    ("alg twice", lambda: jwt(valid(), '{"alg":"none","alg":"HS256"}'), BAD_JWT),
    ("critical extensions", lambda: jwt(valid(), {"alg": "HS256", "crit": ["b64"], "b64": False}), BAD_JWT),
    ("a header that is no object", lambda: jwt(valid(), '"HS256"'), BAD_JWT),
    ("two parts", lambda: jwt(valid()).rpartition(".")[0], BAD_JWT),
    ("four parts", lambda: jwt(valid()) + ".e30", BAD_JWT),
    ("padding", lambda: jwt(valid()) + "=", BAD_JWT),
    ("no claims", lambda: jwt(""), BAD_JWT),
    ("claims that are no object", lambda: jwt([]), BAD_JWT),
    ("no exp", lambda: jwt({}), BAD_JWT),
    ("exp null", lambda: jwt({"exp": None}), BAD_JWT),
    ("exp a string", lambda: jwt({"exp": str(int(time.time()) + HOUR)}), BAD_JWT),
    ("exp a fraction", lambda: jwt({"exp": time.time() + HOUR}), BAD_JWT),
    ("exp twice", lambda: jwt(f'{{"exp":1,"exp":{int(time.time()) + HOUR}}}'), BAD_JWT),
    ("exp beyond 64 bits", lambda: jwt({"exp": 1 << 63}), BAD_JWT),
    ("nbf a string", lambda: jwt(valid(nbf="0")), BAD_JWT),
    ("iss a number", lambda: jwt(valid(iss=1)), BAD_JWT),
    ("aud a number", lambda: jwt(valid(aud=1)), BAD_JWT),
    ("aud with a number in it", lambda: jwt(valid(aud=["a", 1])), BAD_JWT),
    ("expired", lambda: jwt({"exp": int(time.time()) - HOUR}), EXPIRED),
    ("expired long before", lambda: jwt({"exp": -(1 << 63)}), EXPIRED),
    ("not valid yet", lambda: jwt(valid(nbf=int(time.time()) + HOUR)), EARLY),
    ("expired comes before not valid yet", lambda: jwt({"exp": 0, "nbf": int(time.time()) + HOUR}), EXPIRED),
]

STRICT_ROWS = [
    ("issuer and audience", lambda: jwt(valid(iss="me", aud="you")), WELCOME),
    ("one audience of several", lambda: jwt(valid(iss="me", aud=["x", "you"])), WELCOME),
    ("no issuer", lambda: jwt(valid(aud="you")), ISSUER),
    ("another issuer", lambda: jwt(valid(iss="Me", aud="you")), ISSUER),
    ("no audience", lambda: jwt(valid(iss="me")), AUDIENCE),
    ("another audience", lambda: jwt(valid(iss="me", aud="your")), AUDIENCE),
    ("other audiences", lambda: jwt(valid(iss="me", aud=["x", "y"])), AUDIENCE),
    ("no audiences", lambda: jwt(valid(iss="me", aud=[])), AUDIENCE),
    ("issuer comes before audience", lambda: jwt(valid()), ISSUER),
    ("the skew of a second, late", lambda: jwt({"exp": int(time.time()) - 10, "iss": "me", "aud": "you"}), EXPIRED),
    ("the skew of a second, early", lambda: jwt(valid(nbf=int(time.time()) + 10, iss="me", aud="you")), EARLY),
]


def check(server, headers, expected):
    got = server.upgrade(*headers)
    if got != expected:
        print(f"     expected {expected}, got {got}")
    return got == expected


def rows_against(server, rows):
    for name, token, expected in rows:
        yield name, lambda token=token, expected=expected: check(server, [bearer(token())], expected)


# ---- the order of the checks ----

def order(server):
    up = list(UPGRADE)
    good, bad = bearer(TOKEN), bearer("wrong")
    rows = [
        ("Origin comes before a good token", ["GET /", *up, good, "Origin: http://a"], 403),
        ("Origin comes before a missing token", ["GET /", *up, "Origin: null"], 403),
        ("Origin counts on /metrics", ["GET /metrics", good, "Origin:"], 403),
        ("Origin counts on /livez", ["GET /livez", "Origin: http://a"], 403),
        ("the path comes before the token", ["GET /nope", *up, bad], 404),
        ("the method comes before the token", ["POST /", *up, bad], 405),
        ("the upgrade headers come before the token", ["GET /", bad], 400),
        ("the version comes before the token", ["GET /", *up[:2], "Sec-WebSocket-Version: 8", up[3], bad], 400),
        ("the token comes last", ["GET /", *up, bad], 401),
        ("/readyz needs no token", ["GET /readyz"], 200),
        ("/livez needs no token", ["HEAD /livez"], 200),
        ("/metrics needs the token", ["GET /metrics"], 401),
        ("/metrics takes the token", ["GET /metrics", good], 200),
        ("/metrics takes it from the second header", ["GET /metrics", "X-Bailey-Authorization: Bearer " + TOKEN], 200),
        ("/metrics does not take another one", ["GET /metrics", bad], 401),
        ("a query string is not a token", [f"GET /?access_token={TOKEN}", *up], 401),
    ]
    for name, request, status in rows:
        yield name, lambda request=request, status=status: server.exchange(*request)[0] == status


def a_401_is_text_and_names_the_scheme(server):
    status, headers, body = server.exchange("GET /", *UPGRADE)
    return (status == 401 and headers["content-type"].startswith("text/plain") and
            headers["www-authenticate"] == "Bearer" and body == NO_TOKEN[1])


def a_client_with_a_token_can_work(server):
    with server.client(headers=[bearer(TOKEN)]) as client:
        return client.call("environment/status") == {"status": "ready"}


def the_log_has_no_secrets(server):
    """At the level that says most, after everything above."""
    log = server.log_text()
    return "connection-refused" in log and TOKEN not in log and "wrong" not in log


def a_head_in_pieces(server):
    """The token is where it is in the whole head, not in the piece that came last."""
    head = "\r\n".join(["GET / HTTP/1.1", bearer(TOKEN), *UPGRADE, "", ""]).encode()
    for cut in (1, head.index(TOKEN.encode()) + 3, len(head) - 1):
        with server.socket() as s:
            s.sendall(head[:cut])
            server.exchange("GET /livez")  # by now the first piece has been read
            s.sendall(head[cut:])
            if read_answer(s)[0] != 101:
                return False
    return True


def family(server):
    """The server's process and all below it."""
    pids = [server.process.pid]
    for pid in pids:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            pids += map(int, f.read().split())
    return pids


def command_lines_have_no_secrets(server):
    texts = [open(f"/proc/{pid}/cmdline", "rb").read() for pid in family(server)]
    return len(texts) > 1 and not any(TOKEN.encode() in text for text in texts)


def memory_has(pid, secret):
    with open(f"/proc/{pid}/maps", encoding="latin-1") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, access, *_ = line.split()
            first, last = (int(end, 16) for end in span.split("-"))
            if not access.startswith("rw") or last - first > 1 << 30:
                continue  # the sanitizers' shadow is larger than any secret
            try:
                memory.seek(first)
                if secret in memory.read(last - first):
                    return True
            except (OSError, OverflowError, ValueError):
                continue
    return False


def memory_forgets(directory):
    """Of a secret that was read nothing is left in the memory of any process of the server; the
    file's name is found, or this would prove nothing."""
    if os.geteuid() != 0:
        raise Skip("only root can read the memory of a process that is not dumpable")
    for mode, option in (("capability-token", "--ws-token-file"), ("signed-bearer-token", "--ws-shared-secret-file")):
        secret = os.urandom(24).hex()
        path = directory.file("forgotten-" + mode, secret)
        with Server("--ws-auth", mode, option, path) as server:
            if any(memory_has(pid, secret.encode()) for pid in family(server)):
                return False
            if not memory_has(server.process.pid, path.encode()):
                return False
    return True


def digest_works():
    with Server("--ws-auth", "capability-token", "--ws-token-sha256",
                hashlib.sha256(TOKEN.encode()).hexdigest().upper()) as server:
        return server.upgrade(bearer(TOKEN)) == WELCOME and server.upgrade(bearer("wrong")) == WRONG


def the_file_is_read_once(directory):
    path = directory.file("once", TOKEN + "\r\n")
    with Server("--ws-auth", "capability-token", "--ws-token-file", path) as server:
        os.unlink(path)
        return server.upgrade(bearer(TOKEN)) == WELCOME


def a_file_for_everybody_is_warned_about(directory):
    seen = []
    for mode in (0o600, 0o640, 0o604):
        path = directory.file(f"mode-{mode:o}", TOKEN, mode)
        with Server("--ws-auth", "capability-token", "--ws-token-file", path) as server:
            seen.append("warn secret-readable-by-all" in server.log_text())
    return seen == [False, False, True]


def a_pipe_will_do():
    """What a service manager or a shell hands over never has to be a file."""
    read_end, write_end = os.pipe()
    os.write(write_end, TOKEN.encode() + b"\n")
    os.close(write_end)
    try:
        with Server("--ws-auth", "capability-token", "--ws-token-file", "/dev/stdin", stdin=read_end) as server:
            return server.upgrade(bearer(TOKEN)) == WELCOME and server.upgrade(bearer("x")) == WRONG
    finally:
        os.close(read_end)


# ---- errors at start ----

def starts_not(text, *options, status=1):
    r = start_fails(*options)
    good = r.returncode == status and r.stdout == "" and (f"Error: {text}\n" if status == 1 else text) in r.stderr
    if not good:
        print(f"     status {r.returncode}: {r.stderr}")
    return good


def start_errors(directory):
    good = directory.file("good", TOKEN)
    long_enough = directory.file("secret", SECRET)
    path = {
        "missing": os.path.join(directory.dir, "missing"),
        "empty": directory.file("empty", ""),
        "blank": directory.file("blank", " \r\n\t\n"),
        "short": directory.file("short", SECRET[:31] + "\n"),
        "large": directory.file("large", "x" * 4097),
        "binary": directory.file("binary", b"\xff\xfe" * 32),
        "two lines": directory.file("two", "a\nb\n"),
        "directory": directory.dir,
    }
    token, signed = ("--ws-auth", "capability-token"), ("--ws-auth", "signed-bearer-token")
    digest = hashlib.sha256(b"x").hexdigest()
    secret = "websocket auth secret "
    unreadable = "failed to read websocket auth secret "
    need_mode = "websocket auth flags require `--ws-auth capability-token` or `--ws-auth signed-bearer-token`"
    wrong_for_token = ("`--ws-shared-secret-file`, `--ws-issuer`, `--ws-audience`, and `--ws-max-clock-skew-seconds` "
                       "require `--ws-auth signed-bearer-token`")
    wrong_for_jwt = ("`--ws-token-file` and `--ws-token-sha256` require `--ws-auth capability-token`, not "
                     "`signed-bearer-token`")
    no_digest = "--ws-token-sha256 must be a 64-character hex SHA-256 digest"
    stdio = "WebSocket auth requires a WebSocket listener, not stdio"
    rows = [
        ("no token", "`--ws-token-file` or `--ws-token-sha256` is required when `--ws-auth capability-token` is set",
         token),
        ("no shared secret", "`--ws-shared-secret-file` is required when `--ws-auth signed-bearer-token` is set",
         signed),
        ("both kinds of token", "`--ws-token-file` and `--ws-token-sha256` cannot be used together",
         (*token, "--ws-token-file", good, "--ws-token-sha256", digest)),
        ("a file that is not there", unreadable + path["missing"] + ": No such file or directory (os error 2)",
         (*token, "--ws-token-file", path["missing"])),
        ("a secret that is not there", unreadable + path["missing"] + ": No such file or directory (os error 2)",
         (*signed, "--ws-shared-secret-file", path["missing"])),
        ("a directory", unreadable + path["directory"] + ": Is a directory (os error 21)",
         (*token, "--ws-token-file", path["directory"])),
        ("an empty file", secret + path["empty"] + " must not be empty", (*token, "--ws-token-file", path["empty"])),
        ("a blank file", secret + path["blank"] + " must not be empty",
         (*signed, "--ws-shared-secret-file", path["blank"])),
        ("a file that is too large", secret + path["large"] + " must not be larger than 4096 bytes",
         (*token, "--ws-token-file", path["large"])),
        ("bytes that are no text", unreadable + path["binary"] + ": stream did not contain valid UTF-8",
         (*signed, "--ws-shared-secret-file", path["binary"])),
        ("a token of two lines", secret + path["two lines"] + " must be one line of printable ASCII",
         (*token, "--ws-token-file", path["two lines"])),
        ("31 bytes of secret", f"signed websocket bearer secret {path['short']} must be at least 32 bytes",
         (*signed, "--ws-shared-secret-file", path["short"])),
        ("a digest that is too short", no_digest, (*token, "--ws-token-sha256", digest[1:])),
        ("a digest that is too long", no_digest, (*token, "--ws-token-sha256", digest + "0")),
        ("a digest that is not hex", no_digest, (*token, "--ws-token-sha256", "g" + digest[1:])),
        ("an empty digest", no_digest, (*token, "--ws-token-sha256", "")),
        ("stdio with a token", stdio, ("--listen", "stdio", *token, "--ws-token-file", good)),
        ("stdio:// with a JWT", stdio, ("--listen", "stdio://", *signed, "--ws-shared-secret-file", long_enough)),
        ("--ws-auth with its opposite", "`--insecure-no-auth` and `--ws-auth` cannot be used together",
         (*token, "--ws-token-file", good, "--insecure-no-auth")),
    ]
    rows += [(option + " without a mode", need_mode, (option, value)) for option, value in
             [("--ws-token-file", good), ("--ws-token-sha256", digest), ("--ws-shared-secret-file", long_enough),
              ("--ws-issuer", "a"), ("--ws-audience", "a"), ("--ws-max-clock-skew-seconds", "1")]]
    rows += [(option + " in the mode capability-token", wrong_for_token,
              (*token, "--ws-token-file", good, option, value)) for option, value in
             [("--ws-shared-secret-file", long_enough), ("--ws-issuer", "a"), ("--ws-audience", "a"),
              ("--ws-max-clock-skew-seconds", "1")]]
    rows += [(option + " in the mode signed-bearer-token", wrong_for_jwt,
              (*signed, "--ws-shared-secret-file", long_enough, option, value)) for option, value in
             [("--ws-token-file", good), ("--ws-token-sha256", digest)]]
    for name, text, options in rows:
        yield "at start: " + name, lambda text=text, options=options: starts_not(text, *options)
    for name, options in [("an unknown mode", ("--ws-auth", "password")), ("no mode", ("--ws-auth", "")),
                          ("a negative skew", (*signed, "--ws-max-clock-skew-seconds", "-1")),
                          ("an endless skew", (*signed, "--ws-max-clock-skew-seconds", "9" * 20)),
                          ("an empty issuer", (*signed, "--ws-issuer", "")),
                          ("an empty audience", (*signed, "--ws-audience", ""))]:
        yield ("at start, usage: " + name,
               lambda options=options: starts_not("not acceptable", *options, status=2))


# ---- what may be listened on ----

def has_ipv6():
    return os.path.exists("/proc/net/if_inet6")


def beyond(url):
    r = start_fails("--listen", url)
    return (r.returncode == 1 and r.stdout == "" and f"Error: `{url}` can be reached from other machines" in r.stderr
            and "--ws-auth" in r.stderr and "--insecure-no-auth" in r.stderr)


def listens(url, *options):
    with Server(*options, listen=url) as server:
        return server.exchange("GET /readyz")[0] == 200


def listeners(directory):
    token = ("--ws-auth", "capability-token", "--ws-token-file", directory.file("listener", TOKEN))
    yield "0.0.0.0 is refused", lambda: beyond("ws://0.0.0.0:0")
    yield "an address of a network is refused before it is tried", lambda: beyond("ws://192.0.2.1:0")
    yield "127.0.0.0/8 is local", lambda: listens("ws://127.1.2.3:0")
    yield "0.0.0.0 with a token", lambda: listens("ws://0.0.0.0:0", *token)
    yield "0.0.0.0 when said out loud", lambda: listens("ws://0.0.0.0:0", "--insecure-no-auth")
    yield ":: is refused", lambda: beyond("ws://[::]:0")
    yield "a mapped address of a network is refused", lambda: beyond("ws://[::ffff:192.0.2.1]:0")
    if has_ipv6():
        yield "::1 is local", lambda: listens("ws://[::1]:0")
        yield "::ffff:127.0.0.1 is local", lambda: listens("ws://[::ffff:127.0.0.1]:0")


def cases(directory):
    token_file = directory.file("token", TOKEN + "\n")
    secret_file = directory.file("shared", SECRET + "\n")
    signed = ("--ws-auth", "signed-bearer-token", "--ws-shared-secret-file", secret_file)
    with Server("--log-level", "debug", "--ws-auth", "capability-token", "--ws-token-file",
                token_file) as server:
        for name, headers, expected in TOKEN_ROWS:
            yield name, lambda headers=headers, expected=expected: check(server, headers, expected)
        yield from order(server)
        yield "a 401 is text and names the scheme", lambda: a_401_is_text_and_names_the_scheme(server)
        yield "a client with a token can work", lambda: a_client_with_a_token_can_work(server)
        yield "a head in pieces", lambda: a_head_in_pieces(server)
        yield "no command line has the secret", lambda: command_lines_have_no_secrets(server)
        yield "the log has no secrets", lambda: the_log_has_no_secrets(server)
    with Server(*signed) as server:
        yield from rows_against(server, JWT_ROWS)
    with Server(*signed, "--ws-issuer", "me", "--ws-audience", "you", "--ws-max-clock-skew-seconds",
                "1") as server:
        yield from rows_against(server, STRICT_ROWS)
    yield "a digest instead of a file", digest_works
    yield "the file is read once, its line break dropped", lambda: the_file_is_read_once(directory)
    yield "a file that everybody can read is warned about", lambda: a_file_for_everybody_is_warned_about(directory)
    yield "a pipe will do", a_pipe_will_do
    yield "no process remembers a secret from a file", lambda: memory_forgets(directory)
    yield from start_errors(directory)
    yield from listeners(directory)


with Yard() as place:
    run(((name, holds(case)) for name, case in cases(place)), jobs=1)
