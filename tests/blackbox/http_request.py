#!/usr/bin/env python3
"""http/request against a web server of the test's own: http_request.py PATH-TO-BAILEY [CASE...]"""

import base64
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from bailey import BAILEY, RpcError, Server, Skip, expect, run, until  # noqa: E402
from web import Web, body, dead_port  # noqa: E402

MIB = 1 << 20
ROOM = 24 * MIB  # freed chunks and what sanitizers keep are not ours, for a while
SMALL_QUARANTINE = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=4"}


def allowed(*options, **how):
    env = {k: "" for k in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")}
    return Server("--allow-http-request", *options, **{**how, "env": env | how.get("env", {})})


def params(url, method="GET", request="1", **more):
    return {"requestId": request, "method": method, "url": url, **more}


def ask(client, url, **more):
    """(status, headers, body) of a request that is not streamed."""
    result = client.call("http/request", params(url, **more))
    return result["status"], result["headers"], base64.b64decode(result["bodyBase64"])


def echoed(client, url, **more):
    """What the web server says it was asked."""
    return json.loads(ask(client, url, **more)[2])


def sent_headers(client, url, **more):
    return [(name.lower(), value) for name, value in echoed(client, url, **more)["headers"]]


def refused(client, code, text, **more):
    got = client.fails("http/request", {**params("http://127.0.0.1:1/"), **more}, text)
    expect(got == code, f"code {got}, not {code}")


def deltas(client, request):
    """The notifications of a stream, whose numbers are checked, up to the last."""
    last = 0
    while True:
        while not client.notifications:
            client.take_message()
        message = client.notifications.pop(0)
        expect(message["method"] == "http/request/bodyDelta", message["method"])
        delta = message["params"]
        expect(set(delta) == {"requestId", "seq", "deltaBase64", "done", "error"}, str(delta.keys()))
        expect(delta["requestId"] == request and delta["seq"] == last + 1, f"{delta['requestId']} {delta['seq']}")
        last += 1
        data = base64.b64decode(delta["deltaBase64"])
        expect(len(data) <= MIB and (data == b"") == delta["done"], "the size of a delta")
        yield data, delta["error"]
        if delta["done"]:
            return


def streamed(client, url, request="s", **more):
    """(status, body, error) of a stream."""
    result = client.call("http/request", params(url, request=request, streamResponse=True, **more))
    expect(result["bodyBase64"] == "", "the answer has a body")
    parts = list(deltas(client, request))
    return result["status"], b"".join(data for data, _ in parts), parts[-1][1]


# ---- whether it is there


def off_by_default():
    with Server() as server, server.connect() as client:
        unknown = "exec-server stub does not implement `http/request` yet"
        expect(client.fails("http/request", {}, unknown) == -32601, "before initialize")
        info = client.call("initialize", {"clientName": "x"})["environmentInfo"]
        client.notify("initialized")
        expect(client.fails("http/request", params("http://127.0.0.1:1/"), unknown) == -32601, "after it")
        expect(info["capabilities"]["httpHeaderEnvVars"] is False, "the capability")


def usage(*options):
    return subprocess.run([BAILEY, "exec-server", *options], capture_output=True, text=True, timeout=60, check=False)


def options_need_the_switch():
    for options in (["--http-header-env", "A"], ["--http-ca-file", "/etc/passwd"]):
        expect(usage(*options).returncode == 2, str(options))
    expect(usage("--allow-http-request", "--http-header-env", "A=B").returncode == 2, "no name")
    expect(usage("--allow-http-request", *["--http-header-env", "A"] * 65).returncode == 2, "too many names")
    missing = usage("--allow-http-request", "--http-ca-file", "/nonexistent")
    expect(missing.returncode == 1 and "cannot read certificates from /nonexistent" in missing.stderr, missing.stderr)
    text = usage("--help").stdout
    expect("--allow-http-request" in text and "every web server" in text, "--help")


def order_of_checks():
    """What cannot be decoded comes before the handshake, what makes no sense after it, as upstream."""
    with allowed() as server, server.connect() as client:
        refused(client, -32602, "invalid base64", bodyBase64="*")
        refused(client, -32600, "client must call initialize before using http methods", method="G T")
        client.initialize()
        refused(client, -32602, "http/request method is invalid: invalid HTTP method", method="G T", url="ftp://x/")
        refused(client, -32602, "http/request only supports http and https URLs, got ftp", url="ftp://x/",
                headers=[{"name": "b d", "value": ""}])
        refused(client, -32602, "http/request header name is invalid: invalid HTTP header name",
                headers=[{"name": "b d", "value": ""}])


# ---- requests


def methods():
    with Web() as web, allowed() as server, server.client() as client:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get"):
            expect(echoed(client, web.url("/echo?a=b#f"), method=method)["method"] == method, method)
        expect(echoed(client, web.url("/echo?a=b#f"))["path"] == "/echo?a=b", "path and query")
        status, headers, data = ask(client, web.url("/echo"), method="HEAD")
        expect(status == 200 and data == b"" and dict((h["name"], h["value"]) for h in headers)["content-length"] != "0",
               "HEAD")
        expect(ask(client, web.url("/echo"), method="HEAD", bodyBase64="eA==")[2] == b"", "HEAD with a body")
        expect(web.seen[-1][3] == b"x", "which was sent")
        for code in (204, 304, 404, 500):
            expect(ask(client, web.url(f"/status?code={code}"))[0] == code, str(code))


def bodies():
    with Web() as web, allowed() as server, server.client() as client:
        for method in ("POST", "PUT", "GET", "DELETE"):
            for data in (b"hello", bytes(range(256)) * 1000, b""):
                got = echoed(client, web.url("/echo"), method=method, bodyBase64=base64.b64encode(data).decode())
                expect(base64.b64decode(got["body"]) == data, f"{method} {len(data)}")
        names = [name for name, _ in sent_headers(client, web.url("/echo"), method="POST", bodyBase64="eA==")]
        expect(sorted(names) == ["accept", "content-length", "host"], f"nothing is made up: {names}")


def a_large_request():
    with Web() as web, allowed() as server, server.client() as client:
        data = body(24 * MIB)
        client.call("http/request", params(web.url("/status?code=204"), method="PUT",
                                           bodyBase64=base64.b64encode(data).decode()))
        expect(web.seen[-1][3] == data, "the body")


def a_large_response():
    with Web() as web, allowed() as server, server.client() as client:
        expect(ask(client, web.url(f"/big?bytes={24 * MIB}"))[2] == body(24 * MIB), "the body")


def headers_out():
    with Web() as web, allowed() as server, server.client() as client:
        sent = [("X-A", "1"), ("x-a", "2"), ("X-Empty", ""), ("X-Blank", "  "), ("X-Tab", "a\tb"),
                ("User-Agent", "me"), ("Accept", "text/x"), ("Content-Type", "text/y")]
        got = sent_headers(client, web.url("/echo"), method="POST", bodyBase64="eA==",
                           headers=[{"name": n, "value": v} for n, v in sent])
        want = [(n.lower(), v.strip()) for n, v in sent]
        expect([h for h in got if h[0] not in ("host", "content-length")] == want, str(got))
        host = sent_headers(client, web.url("/echo"), headers=[{"name": "Host", "value": "other"}])
        expect([v for n, v in host if n == "host"] == ["other"], "Host")


def lengths_are_not_the_clients():
    """A second message inside of the first one's body, for whoever uses the connection next."""
    with Web() as web, allowed() as server, server.client() as client:
        hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
        for name, value in (("Content-Length", "0"), ("Transfer-Encoding", "chunked")):
            got = echoed(client, web.url("/echo"), method="POST", bodyBase64=base64.b64encode(hidden).decode(),
                         headers=[{"name": name, "value": value}])
            expect(base64.b64decode(got["body"]) == hidden, name)
        expect(ask(client, web.url("/status?code=204"))[0] == 204, "the next request")
        expect(all(path != "/hidden" for _, path, _, _ in web.seen), "nothing was smuggled")


def headers_back():
    with Web() as web, allowed() as server, server.client() as client:
        _, headers, data = ask(client, web.url("/repeat"))
        expect([(h["name"], h["value"]) for h in headers] == [
            ("x-many", "1"), ("x-many", "2"), ("set-cookie", "a=b"), ("content-length", "2")], str(headers))
        expect(data == b"ok", "body")
        expect("cookie" not in dict(sent_headers(client, web.url("/echo"))), "cookies are not kept")
        refused(client, -32603, "more than 131072 bytes of headers", url=web.url("/head?bytes=200000"))
        expect(len(ask(client, web.url("/head?bytes=100000"))[1]) == 101, "many headers")


def gzip_stays():
    with Web() as web, allowed() as server, server.client() as client:
        expect(gzip.decompress(ask(client, web.url("/gzip"))[2]) == b"hello", "as it came")


def user_in_the_url():
    with Web() as web, allowed() as server, server.client() as client:
        url = web.url("/echo", host="u:p@127.0.0.1")
        expect(("authorization", "Basic dTpw") in sent_headers(client, url), "basic authentication")
        taken, port = dead_port()
        refused(client, -32603, f"for url (http://127.0.0.1:{port}/x)", url=f"http://u:p@127.0.0.1:{port}/x")
        taken.close()


# ---- redirects


def redirects():
    with Web() as web, allowed() as server, server.client() as client:
        for code, method, becomes in ((301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"),
                                      (307, "POST", "POST"), (308, "POST", "POST"), (301, "PUT", "PUT"),
                                      (302, "PUT", "PUT"), (303, "PUT", "GET"), (307, "PUT", "PUT")):
            got = echoed(client, web.url(f"/redirect?code={code}&to=/echo"), method=method, bodyBase64="eA==",
                         headers=[{"name": "Content-Type", "value": "text/x"}])
            kept = becomes != "GET"
            names = [name.lower() for name, _ in got["headers"]]
            expect(got["method"] == becomes and (got["body"] == "eA==") == kept and
                   ("content-type" in names) == kept, f"{code} {method}: {got}")
        status, headers, data = ask(client, web.url("/redirect?to=/echo"), redirectPolicy="stop")
        expect(status == 302 and data == b"moved" and {"name": "location", "value": "/echo"} in headers, "stop")
        expect(streamed(client, web.url("/redirect?to=/big%3Fbytes%3D5")) == (200, body(5), None), "a stream")


def redirects_end():
    with Web() as web, allowed() as server, server.client() as client:
        refused(client, -32603, "http/request failed: too many redirects", url=web.url("/loop"))
        expect(len(web.seen) == 11, f"{len(web.seen)} requests")
        for target, scheme in (("ftp://127.0.0.1/", "ftp"), ("file:///etc/passwd", "file"), ("FILE:/x", "file")):
            refused(client, -32603, f"http/request failed: redirect target uses unsupported URL scheme: {scheme}",
                    url=web.url("/redirect?to=" + target))


def secrets_stay():
    secrets = [{"name": name, "value": "secret"} for name in ("Authorization", "Cookie", "Proxy-Authorization")]
    secrets += [{"name": "X-Key", "value": "a ", "valueEnvVar": "LENT"}, {"name": "X-Plain", "value": "p"}]
    names = {"authorization", "cookie", "proxy-authorization", "x-key", "x-plain"}
    with Web() as web, Web() as other, allowed("--http-header-env", "LENT", env={"LENT": "key"}) as server, \
            server.client() as client:
        def arrived(target):
            got = dict(sent_headers(client, web.url("/redirect?to=" + target), headers=secrets))
            return names & set(got)

        expect(arrived("/echo") == names, "the same server gets them")
        expect(arrived(other.url("/echo")) == {"x-plain"}, "another port")
        expect(arrived(web.url("/echo", host="localhost")) == {"x-plain"}, "another name")
        back = web.url("/redirect?to=" + web.url("/echo"), host="localhost")
        expect(arrived(back) == {"x-plain"}, "lost is lost")
        expect(dict(sent_headers(client, web.url("/echo"), headers=secrets))["x-key"] == "a key", "the next request")


# ---- variables


def variables_are_lent():
    env = {"LENT": "value", "NOT_LENT": "hidden", "BAD": "a\nb"}
    with Web() as web, allowed("--http-header-env", "LENT", "--http-header-env", "LENT", "--http-header-env", "UNSET",
                               "--http-header-env", "BAD", env=env) as server, server.connect() as client:
        info = client.call("initialize", {"clientName": "x"})["environmentInfo"]
        client.notify("initialized")
        expect(info["capabilities"]["httpHeaderEnvVars"] is True, "the capability")

        def header(variable):
            return [{"name": "X", "value": "Bearer ", "valueEnvVar": variable}]

        expect(("x", "Bearer value") in sent_headers(client, web.url("/echo"), headers=header("LENT")), "lent")
        for name in ("NOT_LENT", "UNSET", "", "LENT\0", "LENT=", "lent"):
            refused(client, -32602, f"http/request header X requires executor environment variable {name}"[:63],
                    headers=header(name))
        refused(client, -32602, "http/request header value is invalid for X", headers=header("BAD"))
        client.start("p", ["/usr/bin/env"], env={}, envPolicy={
            "inherit": "all", "ignoreDefaultExcludes": True, "exclude": [], "set": {}, "includeOnly": []})
        client.notification("process/closed", "p")
        out = b"".join(base64.b64decode(c["chunk"]) for c in client.read("p")["chunks"]).decode()
        expect("NOT_LENT=hidden\n" in out, "programs inherit the others")
        expect("value" not in out and "BAD=" not in out, "but not those")


def no_variable_by_default():
    with allowed(env={"SECRET": "s"}) as server, server.connect() as client:
        info = client.call("initialize", {"clientName": "x"})["environmentInfo"]
        client.notify("initialized")
        expect(info["capabilities"]["httpHeaderEnvVars"] is False, "the capability")
        for name in ("SECRET", "PATH", "HOME"):
            refused(client, -32602, f"requires executor environment variable {name}",
                    headers=[{"name": "X", "value": "", "valueEnvVar": name}])


def proxies():
    with Web() as web, Web() as proxy:
        at = f"http://127.0.0.1:{proxy.port}"
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            with Server("--allow-http-request", env={name: at}) as server, server.client() as client:
                expect(ask(client, "http://host.invalid/x")[0] == 200, name)
                expect(proxy.seen[-1][1] == "http://host.invalid/x", name)
        with Server("--allow-http-request", env={"HTTP_PROXY": at, "NO_PROXY": "127.0.0.1"}) as server, \
                server.client() as client:
            expect(echoed(client, web.url("/direct"))["path"] == "/direct", "NO_PROXY")


# ---- failures


def dead_ports():
    with allowed() as server, server.client() as client:
        taken, port = dead_port()
        for more in ({}, {"streamResponse": True}):
            refused(client, -32603, f"http/request failed: error sending request for url (http://127.0.0.1:{port}/): ",
                    url=f"http://127.0.0.1:{port}/", **more)
        taken.close()
        refused(client, -32603, "http/request failed: error sending request for url (http://host.invalid/)",
                url="http://host.invalid/")


def timeouts():
    with Web() as web, allowed() as server, server.client() as client:
        refused(client, -32603, "http/request failed: ", url=web.url("/hang"), timeoutMs=100)
        expect(web.broken.wait(60), "the connection was closed")
        refused(client, -32603, "http/request failed: request timed out", url=web.url("/echo"), timeoutMs=0)
        refused(client, -32603, "failed to read http/request response body", url=web.url("/drip?n=9"), timeoutMs=300)
        status, data, error = streamed(client, web.url("/drip?n=9"), timeoutMs=300)
        expect((status, data) == (200, b"data: 0\n\n") and error.startswith("error decoding response body"), str(error))
        expect(ask(client, web.url("/echo"), timeoutMs=2 ** 64 - 1)[0] == 200, "very long")


def a_body_cut_short():
    with Web() as web, allowed() as server, server.client() as client:
        refused(client, -32603, "failed to read http/request response body: ", url=web.url("/short"))
        status, data, error = streamed(client, web.url("/short"))
        expect((status, data) == (200, b"ten bytes.") and "error decoding response body" in error, str(error))


def certificates():
    if not shutil.which("openssl"):
        raise Skip("no openssl to make a certificate with")
    directory = tempfile.mkdtemp(prefix="bailey-test-", dir="/var/tmp")
    key, certificate = os.path.join(directory, "key"), os.path.join(directory, "certificate")
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key,
                        "-out", certificate], check=True, capture_output=True, timeout=60)
        with Web((certificate, key)) as web:
            with allowed() as server, server.client() as client:
                refused(client, -32603, "http/request failed: error sending request for url (https://",
                        url=web.url("/echo"))
                expect(web.seen == [], "nothing was sent to it")
            with allowed("--http-ca-file", certificate) as server, server.client() as client:
                expect(echoed(client, web.url("/echo"))["method"] == "GET", "a certificate that is trusted")
                refused(client, -32603, "http/request failed: ", url=web.url("/echo", host="localhost"))
    finally:
        shutil.rmtree(directory)


# ---- streams


def a_stream():
    with Web() as web, allowed() as server, server.client() as client:
        result = client.call("http/request", params(web.url("/drip?n=3"), request="s", streamResponse=True))
        expect(result["status"] == 200 and result["bodyBase64"] == "", "the answer comes first")
        events = deltas(client, "s")
        for i in range(3):
            expect(next(events) == (b"data: %d\n\n" % i, None), f"event {i} comes when it is sent")
            web.release()
        expect(next(events) == (b"", None), "the end")
        for method, path in (("GET", "/status?code=204"), ("HEAD", "/echo")):
            expect(streamed(client, web.url(path), method=method)[1:] == (b"", None), path)


def stream_ids():
    with Web() as web, allowed() as server, server.client() as client, server.client() as other:
        result = client.call("http/request", params(web.url("/drip?n=1"), request="d", streamResponse=True))
        expect(result["status"] == 200, "the first")
        expect(next(deltas(client, "d"))[0] != b"", "which has begun")
        refused(client, -32602, "http/request streamResponse requestId `d` is already active", requestId="d",
                streamResponse=True)
        expect(ask(client, web.url("/echo"), request="d")[0] == 200, "not a stream")
        expect(streamed(client, web.url("/echo"), request="")[0] == 200, "another id, though empty")
        expect(streamed(other, web.url("/echo"), request="d")[0] == 200, "another connection")
        web.release()
        client.take_message()
        expect(client.notifications.pop()["params"]["done"], "the end")
        expect(streamed(client, web.url("/echo"), request="d")[0] == 200, "the id is free")


def a_slow_reader():
    """The transfer waits for the client, nobody else does, and no byte is lost."""
    total = 64 * MIB
    with Web() as web, allowed("--max-output-queue-bytes", MIB, env=SMALL_QUARANTINE) as server:
        with server.client(rcvbuf=1 << 16) as client, server.client() as other:
            client.call("http/request", params(web.url("/status?code=204")))
            before = server.memory()
            client.call("http/request", params(web.url(f"/big?bytes={total}"), request="s", streamResponse=True))
            seen = []

            def is_held_up():
                seen.append(web.written)
                return len(seen) > 50 and seen[-1] > 0 and len(set(seen[-50:])) == 1

            until(is_held_up, "the transfer to be held up")
            expect(web.written < total / 2, f"{web.written} bytes went through")
            expect(server.memory() - before < ROOM, f"{(server.memory() - before) // MIB} MiB more")
            expect(ask(other, web.url("/echo"))[0] == 200, "others go on")
            got, want = 0, body(total)
            for data, error in deltas(client, "s"):
                expect(error is None and data == want[got:got + len(data)], f"byte {got} or a later one")
                got += len(data)
            expect(got == total, f"{got} bytes")
            expect(server.memory() - before < ROOM, f"{(server.memory() - before) // MIB} MiB more at the end")


def waiting_costs_nothing():
    with Web() as web, allowed() as server, server.client() as client:
        hanging = [client.send("http/request", params(web.url("/drip?n=1"), request=str(i))) for i in range(40)]
        until(lambda: len(web.seen) == 40, "all of them to arrive")
        expect(client.call("environment/status") == {"status": "ready"}, "another request")
        expect(ask(client, web.url("/echo"))[0] == 200, "one of the same kind")
        web.release(40)
        for number in hanging:
            expect(client.answer(number)["status"] == 200, "each is answered")


def clients_vanish():
    with allowed() as server:
        for path, more in (("/hang", {}), ("/hang", {"streamResponse": True}),
                           ("/drip?n=1&broken=1", {"streamResponse": True}), (f"/big?bytes={1 << 40}", {})):
            with Web() as web, server.client() as client:
                client.send("http/request", params(web.url(path), **more))
                until(lambda: web.seen, "the request to arrive")  # noqa: B023
                client.drop()
                web.release()
                expect(web.broken.wait(60), f"{path}: the connection was not closed")
        with Web() as web, server.client() as client:
            expect(ask(client, web.url("/echo"))[0] == 200, "the server goes on")


def the_server_ends():
    with Web() as web, allowed() as server, server.client() as client:
        client.send("http/request", params(web.url("/hang")))
        client.send("http/request", params(web.url("/drip?n=1"), request="s", streamResponse=True))
        until(lambda: len(web.seen) == 2, "the requests to arrive")
        expect(server.stop() in (0, 130), "in an orderly way")


# ---- limits; those with an option of their own are in limits.py


def too_long_for_a_message():
    with Web() as web, allowed("--max-reply-bytes", 5000) as server, server.client() as client:
        try:
            ask(client, web.url("/big?bytes=5000"))
            expect(False, "it was answered")
        except RpcError as error:
            expect(error.code == -32603 and "exceeds the limit of 5000 bytes" in error.message, error.message)


run([
    ("it is not there unless it is switched on", off_by_default),
    ("its options need the switch, and are checked", options_need_the_switch),
    ("the order of the checks", order_of_checks),
    ("methods and statuses", methods),
    ("bodies of requests", bodies),
    ("a request of 24 MiB", a_large_request),
    ("a response of 24 MiB", a_large_response),
    ("headers of requests", headers_out),
    ("a client does not say how long its message is", lengths_are_not_the_clients),
    ("headers of responses: lower case, repeated, no cookies, bounded", headers_back),
    ("compressed bodies stay compressed", gzip_stays),
    ("user and password in a URL are used and not repeated", user_in_the_url),
    ("redirects are followed as browsers do", redirects),
    ("redirects end, and stay with http", redirects_end),
    ("redirects take no secrets elsewhere", secrets_stay),
    ("variables: those that are lent, to headers only", variables_are_lent),
    ("variables: none by default", no_variable_by_default),
    ("proxies of the environment", proxies),
    ("dead ports and unknown hosts", dead_ports),
    ("timeouts", timeouts),
    ("a body cut short", a_body_cut_short),
    ("certificates are checked", certificates),
    ("a stream", a_stream),
    ("ids of streams", stream_ids),
    ("a stream of 64 MiB to a slow reader", a_slow_reader),
    ("waiting costs nothing", waiting_costs_nothing),
    ("clients vanish", clients_vanish),
    ("the server ends", the_server_ends),
    ("an answer too long for a message", too_long_for_a_message),
])
