#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The transport "fastcgi" against a server that the tests play: the bytes of requests, answers that are
cut, padded, endless or malformed, bodies, timeouts, clients that leave; as TAP.
Usage: fastcgi_wire_test.py PORTICO [TEXT]."""
import contextlib
import http.client
import json
import os
import re
import socket
import struct
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from server import Server, has, run_cases, same  # noqa: E402 (beside this file)

PORTICO = sys.argv[1]
BEGIN, END, PARAMS, STDIN, STDOUT, STDERR = 1, 3, 4, 5, 6, 7
END_BODY = bytes(8)
HELLO = b"Status: 201 Made\r\nContent-Type: text/plain\r\nX-App: yes\r\n\r\nhello"


def record(kind, content=b"", padding=0, request=1):
    return struct.pack(">BBHHBB", 1, kind, request, len(content), padding, 0) + content + \
        bytes(padding)


def answer(text=HELLO, status=END_BODY):
    return record(STDOUT, text) + record(STDOUT) + record(END, status)


def pairs(data):
    out = {}
    while data:
        lengths = []
        for _ in range(2):
            if data[0] < 128:
                lengths.append(data[0])
                data = data[1:]
            else:
                lengths.append(struct.unpack(">I", data[:4])[0] & 0x7fffffff)
                data = data[4:]
        name, value = lengths
        key = data[:name].decode()
        assert key not in out, key
        out[key] = data[name:name + value].decode()
        data = data[name + value:]
    return out


class Request:
    """One connection to the server that is played."""

    def __init__(self, sock):
        self.sock, self.env, self.body, self.keep = sock, {}, b"", False
        sock.settimeout(30)

    def take(self, n):
        out = b""
        while len(out) < n:
            piece = self.sock.recv(n - len(out))
            if not piece:
                raise EOFError
            out += piece
        return out

    def record(self):
        version, kind, request, length, padding, _ = struct.unpack(">BBHHBB", self.take(8))
        same((version, request), (1, 1))
        content = self.take(length)
        self.take(padding)
        return kind, content

    def read_head(self):
        same(self.record(), (BEGIN, b"\0\1" + bytes([self.keep]) + b"\0\0\0\0\0"))
        while True:
            kind, content = self.record()
            same(kind, PARAMS)
            if not content:
                return
            self.env.update(pairs(content))

    def read(self):
        self.read_head()
        while True:
            kind, content = self.record()
            same(kind, STDIN)
            if not content:
                return self
            self.body += content


class Play:
    """A FastCGI server; `play(request)` deals with each connection on a thread of its own."""

    def __init__(self, play):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port, self.play, self.requests, self.ended = self.listener.getsockname()[1], play, [], 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.one, args=(sock,), daemon=True).start()

    def stop(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self.listener.close()

    def one(self, sock):
        request = Request(sock)
        self.requests.append(request)
        with contextlib.suppress(OSError, EOFError):
            self.play(request)
        self.ended += 1
        sock.close()


@contextlib.contextmanager
def served(io, play, transport=None, gateway=None, before=(), errors=None):
    upstream = Play(play)
    handler = {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{upstream.port}"}],
               "transport": {"protocol": "fastcgi", "root": "/srv/app", "split_path": [".php"],
                             **(transport or {})}, **(gateway or {})}
    ready = {"match": [{"path": ["/ready"]}], "handle": [{"handler": "static_response"}],
             "terminal": True}
    members = {"max_header_bytes": 1 << 20, "expected_underscore_headers": ["X_Real-Ip"],
               "expected_dot_headers": ["X.Real.Ip"], **({"errors": {"routes": errors}} if errors else {})}
    s = Server.__new__(Server)
    s.get = lambda path="/ready", **fields: Server.get(s, path, **fields)
    s.__init__(PORTICO, io, routes=[ready, {"handle": [*before, handler]}], members=members,
               top={"logging": {"logs": {"default": {"level": "DEBUG"}}}})
    try:
        yield s, upstream
    finally:
        upstream.stop()
        s.end()


def ask(s, method="GET", path="/index.php", body=None, fields=None, chunked=False):
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
    try:
        c.request(method, path, body, fields or {}, encode_chunked=chunked)
        a = c.getresponse()
        return a.status, a.read(), dict(a.getheaders())
    finally:
        c.close()


def hello(request):
    request.read()
    request.sock.sendall(answer())


def environment(io):
    env = {"APP": "{http.request.method}-x", "SERVER_NAME": "mine", "REQUEST_METHOD": "no"}
    with served(io, hello, {"env": env}) as (s, up):
        status, body, fields = ask(s, path="/a/b.PHP/in%20fo?q=1&r", fields={
            "Host": "site.example:8080", "X-Dash-Ed": "1", "Proxy": "evil", "A_b": "dropped",
            "Connection": "X-Hop", "X-Hop": "dropped", "Authorization": "Basic x"})
        same((status, body, fields["X-App"], fields["Status"]), (201, b"hello", "yes", "201 Made"))
        same(fields["Content-Length"], "5")
        e = up.requests[0].env
        want = {"SCRIPT_NAME": "/a/b.PHP", "SCRIPT_FILENAME": "/srv/app/a/b.PHP",
                "DOCUMENT_URI": "/a/b.PHP", "PATH_INFO": "/in fo", "APP": "GET-x",
                "PATH_TRANSLATED": "/srv/app/in fo", "DOCUMENT_ROOT": "/srv/app",
                "REQUEST_URI": "/a/b.PHP/in%20fo?q=1&r", "QUERY_STRING": "q=1&r",
                "REQUEST_METHOD": "GET", "SERVER_NAME": "mine", "SERVER_PORT": "8080",
                "HTTP_HOST": "site.example:8080", "HTTP_X_DASH_ED": "1", "CONTENT_LENGTH": "0",
                "HTTP_AUTHORIZATION": "Basic x", "REMOTE_ADDR": "127.0.0.1", "REMOTE_USER": "",
                "SERVER_PROTOCOL": "HTTP/1.1", "GATEWAY_INTERFACE": "CGI/1.1", "CONTENT_TYPE": "",
                "REQUEST_SCHEME": "http", "SERVER_ADDR": "127.0.0.1", "HTTP_USER_AGENT": "",
                "HTTP_X_FORWARDED_FOR": "127.0.0.1", "HTTP_VIA": "1.1 portico"}
        same({k: e.get(k) for k in want}, want)
        same([k for k in e if k in ("HTTP_PROXY", "HTTP_X_HOP", "HTTP_A_B", "HTTP_CONNECTION",
                                    "HTTPS", "SSL_PROTOCOL", "HTTP_CONTENT_LENGTH")], [])


def ambiguous_fields(io):
    """Of header fields that are one variable, in whatever order: what a proxy sets is what counts."""
    fields = [("X-Real-Ip", "proxy"), ("X_Real-Ip", "client"), ("X.Real.Ip", "client")]
    for env in ({}, {"HTTP_X_REAL_IP": "configured"}):
        with served(io, hello, {"env": env}) as (s, up):
            for sent in (fields, fields[::-1], fields[:1]):
                same(ask(s, fields=dict(sent))[0], 201)
                same(up.requests[-1].env["HTTP_X_REAL_IP"], "proxy")
            for sent in fields[1:]:
                same(ask(s, fields=dict([sent]))[0], 201)
                same(up.requests[-1].env["HTTP_X_REAL_IP"], "client")


def script_names(io):
    with served(io, hello) as (s, up):
        for path, script, info in (("/x.txt", "/x.txt", ""), ("/a.php", "/a.php", ""),
                                   ("/a.php.jpg/b.php", "/a.php", ".jpg/b.php"),
                                   ("/../../etc/x.php", "/../../etc/x.php", ""),
                                   ("/%EF%BD%90.ph%D0%BF", "/\uff50.ph\u043f", "")):
            same(ask(s, path=path)[0], 201)
            e = up.requests[-1].env
            same((e["SCRIPT_NAME"], e["PATH_INFO"]), (script, info))
            assert e["SCRIPT_FILENAME"].startswith("/srv/app/"), e["SCRIPT_FILENAME"]
            same("PATH_TRANSLATED" in e, info != "")
        same(ask(s, path="/a%00.php")[0], 400)


def bodies(io):
    def play(request):
        request.read()
        request.sock.sendall(answer(b"Content-Type: a/b\n\n" + str(len(request.body)).encode()))
    with served(io, play) as (s, up):
        for size in (0, 1, 1000, 16384, 16385, 70000, 3000000):
            data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            same(ask(s, "POST", body=data)[:2], (200, str(size).encode()))
            request = up.requests[-1]
            assert request.body == data
            same((request.env["CONTENT_LENGTH"], request.env["CONTENT_TYPE"]),
                 (str(size), "application/x-www-form-urlencoded"))
        same(ask(s, "POST", body=[b"abc", b"def"], chunked=True,
                 fields={"Transfer-Encoding": "chunked", "Content-Type": "x/y"})[:2], (200, b"6"))
        same([up.requests[-1].env[k] for k in ("CONTENT_LENGTH", "CONTENT_TYPE",
                                               "HTTP_CONTENT_LENGTH")], ["6", "x/y", "6"])
        before = len(up.requests)
        same(ask(s, "POST", body=[b"a" * 9000], chunked=True,
                 fields={"Transfer-Encoding": "chunked"})[0], 411)
        same(len(up.requests), before)
    with served(io, play, gateway={"request_buffers": 1 << 20}) as (s, up):
        same(ask(s, "POST", body=[b"a" * 9000] * 20, chunked=True,
                 fields={"Transfer-Encoding": "chunked"})[:2], (200, b"180000"))
        same(len(up.requests[-1].body), 180000)


def heads(io):
    def play(request):
        request.read()
        request.sock.sendall(answer(b"Content-Length: 5\r\n\r\nhello"))
    with served(io, play) as (s, up):
        status, body, fields = ask(s, "HEAD")
        same((status, body, fields["Content-Length"]), (200, b"", "5"))
        same(up.requests[-1].env["REQUEST_METHOD"], "HEAD")


def large_fields(io):
    with served(io, hello) as (s, up):
        value = "v" * 30000
        same(ask(s, fields={"X-A": value, "X-B": value, "X-C": value})[0], 201)
        same([up.requests[-1].env[f"HTTP_X_{c}"] for c in "ABC"], [value] * 3)
        same(ask(s, fields={"X-A": "v" * 65600})[0], 431)


BAD = (
    ("nothing", b""),
    ("a part of a head", record(STDOUT, b"Status: 2")),
    ("another protocol", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("a wrong request", record(STDOUT, HELLO, request=2) + record(END, END_BODY)),
    ("a wrong version", b"\2" + answer()[1:]),
    ("a record of a web server", record(STDIN, b"x") + answer()),
    ("an end that is too short", record(END, b"\0\0")),
    ("an end without a head", record(END, END_BODY)),
    ("an overloaded server", record(END, b"\0\0\0\0\2\0\0\0")),
    ("no field", answer(b"what is this\r\n\r\n")),
    ("a split answer", answer(b"X: a\rb\r\n\r\n")),
    ("a status that is none", answer(b"Status: 99\r\n\r\n")),
    ("two lengths", answer(b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab")),
    ("too many fields", answer(b"X: y\n" * 200 + b"\n")),
)


def malformed(io):
    errors = [{"handle": [{"handler": "static_response", "status_code":
                           "{http.error.status_code}", "body": "sorry"}]}]
    data = {"now": b""}

    def play(request):
        request.read()
        request.sock.sendall(data["now"])
    with served(io, play, errors=errors) as (s, _):
        for name, data["now"] in BAD:
            got = ask(s)[:2]
            assert got == (502, b"sorry"), (name, got)
        s.wait(lambda: "fcgi: the server is overloaded" in s.text())
        s.wait(lambda: "fcgi: a record of another request" in s.text())
        data["now"] = answer()
        same(ask(s)[0], 201)


def raw(s, head):
    """The answer's bytes to the connection's end, without its date."""
    with socket.create_connection(("127.0.0.1", s.port), 30) as c:
        c.sendall(head + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
        got = b""
        while piece := c.recv(65536):
            got += piece
    return re.sub(rb"(Date|Server|Via): [^\r]*\r\n", b"", got)


def own_chunks(io):
    """A script that sends chunks itself: they are taken apart, and the client gets its own. What is behind them is
    nobody's, and without their end the answer is not whole."""
    data = {}

    def play(request):
        request.read().sock.sendall(answer(data["now"]))
    head, chunks = b"Transfer-Encoding: chunked\r\nX-A: b\r\n\r\n", b"3\r\nabc\r\n2;x=y\r\nde\r\n"
    start = b" 200 OK\r\nX-A: b\r\nConnection: close\r\n"
    framed = b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with served(io, play) as (s, _):
        data["now"] = head + chunks + b"0\r\n\r\n"
        same(raw(s, b"GET /a.php HTTP/1.1"), framed + b"5\r\nabcde\r\n0\r\n\r\n")
        same(raw(s, b"GET /a.php HTTP/1.0"), b"HTTP/1.1" + start + b"\r\nabcde")
        same(raw(s, b"HEAD /a.php HTTP/1.1").count(b"abcde"), 0)
        data["now"] += b"HTTP/1.1 200 OK\r\n\r\nmore"
        same(raw(s, b"GET /a.php HTTP/1.1"), framed + b"5\r\nabcde\r\n0\r\n\r\n")
        for end in (b"", b"zz\r\n"):
            data["now"] = head + chunks + end
            got = raw(s, b"GET /a.php HTTP/1.1")
            assert not got.endswith(b"0\r\n\r\n") or got.startswith(b"HTTP/1.1 502 "), (end, got)


def statuses(io):
    """The first Status counts, as for Caddy and nginx; without one it is 200, also where there is a Location."""
    data = {}

    def play(request):
        request.read().sock.sendall(answer(data["now"]))
    with served(io, play) as (s, _):
        for text, status in ((b"Status: 404 A\r\nStatus: 200 B\r\n\r\nx", 404), (b"Location: /b\r\n\r\nx", 200),
                             (b"status:201\n\nx", 201), (b"Status:\r\nStatus: 404\r\n\r\nx", 200)):
            data["now"] = text
            same(ask(s)[:2], (status, b"x"))


def cut_off(io):
    whole = answer(b"A: b\r\n\r\n" + b"x" * 100)
    data = {"len": 0}

    def play(request):
        request.read()
        request.sock.sendall(whole[:data["len"]])
    with served(io, play) as (s, _):
        for data["len"] in (*range(0, 20), 60, 115, *range(116, len(whole))):
            try:
                status = ask(s)[0]
            except http.client.HTTPException:
                status = 0
            assert status == (502 if data["len"] < 16 else 0), (data["len"], status)
        data["len"] = len(whole)
        same(ask(s)[1], b"x" * 100)


def no_end(io):
    """An answer of which nothing is missing is whole also without the end of its request: the client's
    connection goes on."""
    for text in (b"Status: 204\r\n\r\n", b"Content-Length: 2\r\n\r\nab"):
        def play(request, text=text):
            request.read().sock.sendall(record(STDOUT, text))

        with served(io, play) as (s, _):
            c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
            for _ in range(3):
                c.request("GET", "/index.php")
                same(c.getresponse().read() in (b"", b"ab"), True)
                assert c.sock is not None
            c.close()


def streams(io):
    """Each piece is seen before the next is sent, however it is padded, and stderr beside it."""
    go = threading.Semaphore(0)

    def play(request):
        request.read()
        request.sock.sendall(record(STDERR, b"first ") + record(STDOUT, b"A: b\n\npiece0", 200))
        for i in range(1, 4):
            assert go.acquire(timeout=30)
            request.sock.sendall(record(STDOUT, b"piece%d" % i, i * 60) +
                                 record(STDERR, b"line%d\n" % i, 255))
        assert go.acquire(timeout=30)
        request.sock.sendall(record(END, END_BODY))
    with served(io, play, {"capture_stderr": True}) as (s, _):
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
        c.request("GET", "/x.php")
        a = c.getresponse()
        for i in range(4):
            same(a.read(6), b"piece%d" % i)
            go.release()
        same(a.read(), b"")
        c.close()
        s.wait(lambda: '"body":"first line1\\nline2\\nline3"' in s.text())
        has(s.text(), '"level":"warn"', "http.reverse_proxy.transport.fastcgi")


def endless(io):
    """Bytes that bring no answer any further: for the log, of the connection, none at all, dropped."""
    data = {}

    def play(request):
        request.read()
        request.sock.sendall(data["start"])
        while True:
            request.sock.sendall(data["more"])
    with served(io, play) as (s, up):
        for n, data["more"] in enumerate((record(STDERR, b"e" * 65000), record(STDOUT, b"", 255) * 250,
                                          record(11, b"u" * 65000, request=0)), 1):
            data["start"] = b""
            same(ask(s)[0], 502)
            s.wait(lambda want=n: up.ended == want)
        s.wait(lambda: s.text().count("too much on stderr") >= 3)
        data["more"] = record(STDOUT, b"x" * 65000)
        data["start"] = record(STDOUT, b"Content-Length: 5\n\nhello")
        same(ask(s)[:2], (200, b"hello"))
        s.wait(lambda: up.ended == 4)
        same(ask(s, "HEAD")[:2], (200, b""))
        s.wait(lambda: up.ended == 5)


def timeouts(io):
    def play(request):
        request.read()
        if "late" in request.env["SCRIPT_NAME"]:
            request.sock.sendall(record(STDOUT, b"A: b\n\n"))
        while True:  # life all the time, and no end
            time.sleep(0.05)
            request.sock.sendall(record(STDOUT, b"x") if "late" in request.env["SCRIPT_NAME"]
                                 else record(STDERR, b"x"))
    with served(io, play, {"read_timeout": "300ms"}) as (s, up):
        same(ask(s)[0], 504)

        def cut():
            try:
                status = ask(s, path="/late.php")[0]
            except http.client.IncompleteRead:
                return True
            same(status, 504)  # on a busy machine the head comes behind that, too
            return False
        s.wait(cut, 30)
        s.wait(lambda: up.ended == len(up.requests))


def leaving(io):
    gone = threading.Event()

    def play(request):
        request.read()
        if request.sock.recv(1) == b"":
            gone.set()
    with served(io, play) as (s, up):
        c = socket.create_connection(("127.0.0.1", s.port))
        c.sendall(b"GET /x.php HTTP/1.1\r\nHost: x\r\n\r\n")
        s.wait(lambda: up.requests and up.requests[0].env)
        c.close()
        assert gone.wait(30), "the request went on"


def early_answer(io):
    """A server that answers and ends before it has read the body."""
    def play(request):
        request.read_head()
        request.sock.sendall(answer(b"Status: 413\r\n\r\nno"))
        request.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while request.sock.recv(65536):
                pass
    with served(io, play) as (s, _):
        same(ask(s, "POST", body=b"x" * 100000)[:2], (413, b"no"))


def refused(io):
    with served(io, hello) as (s, up):
        up.stop()
        same(ask(s)[0], 502)
        s.wait(lambda: "connection refused" in s.text())


def checked(io):
    """Active health checks over FastCGI: a request for the script, without a client; what it finds
    counts, and is an event."""
    checks, state = [], {"status": 200, "body": b"pong", "to": ""}

    def play(request):
        request.read()
        if request.env["SCRIPT_NAME"] not in ("/ping", "/there"):
            request.sock.sendall(answer())
            return
        checks.append((request.env, request.body))
        status = 200 if request.env["SCRIPT_NAME"] == "/there" else state["status"]
        request.sock.sendall(answer(b"Status: %d X\r\nLocation: %s\r\n\r\n%s" % (
            status, state["to"].encode(), state["body"])))

    active = {"uri": "/ping?full=1", "interval": "30ms", "timeout": "10s", "expect_body": "^po",
              "follow_redirects": True, "method": "POST", "body": "hello",
              "headers": {"X-Check": ["{http.reverse_proxy.active.target_upstream}"], "Host": ["app.internal:81"]}}
    with served(io, play, {"env": {"MODE": "{env.HOME}", "WHO": "{http.request.host}"}},
                {"health_checks": {"active": active},
                 "headers": {"request": {"set": {"X-Up": ["1"]}}}}) as (s, up):
        s.wait(lambda: checks)
        env, body = checks[0]
        same(body, b"hello")
        for name, value in {"REQUEST_METHOD": "POST", "SCRIPT_FILENAME": "/srv/app/ping", "QUERY_STRING": "full=1",
                            "REQUEST_URI": "/ping?full=1", "DOCUMENT_ROOT": "/srv/app", "CONTENT_LENGTH": "5",
                            "SERVER_NAME": "app.internal", "SERVER_PORT": "81", "REMOTE_ADDR": "127.0.0.1",
                            "MODE": os.environ["HOME"], "WHO": "", "SERVER_PROTOCOL": "HTTP/1.1",
                            "HTTP_X_CHECK": f"127.0.0.1:{up.port}"}.items():
            same((name, env[name]), (name, value))
        assert "HTTP_X_UP" not in env, env
        same(ask(s)[0], 201)
        for wrong in ({"status": 500}, {"body": b"no"}):
            state.update(wrong)
            s.wait(lambda: ask(s)[0] == 503)
            state.update({"status": 200, "body": b"pong"})
            s.wait(lambda: ask(s)[0] == 201)
        same(ask(s)[0], 201)
        state.update({"status": 307, "to": "http://elsewhere.example/there"})
        seen = len(checks)
        s.wait(lambda: len(checks) > seen + 4)
        same(ask(s)[0], 201)
        assert "/there" in [c[0]["SCRIPT_NAME"] for c in checks]
        for name in ("unhealthy", "healthy"):
            found = []
            s.wait(lambda: found.extend(e for e in map(json.loads, s.text().splitlines())
                                        if e["msg"] == "event" and e["name"] == name) or found)
            event = found[0]
            same((event["logger"], event["level"], event["origin"], event["data"]),
                 ("events", "debug", "http.handlers.reverse_proxy", {"host": f"127.0.0.1:{up.port}"}))
            assert re.fullmatch("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", event["id"]), event
        s.wait(lambda: all(p in s.text() for p in (
            '"host is down"', '"host is up"', "response body failed expectations")))
        up.stop()
        s.wait(lambda: ask(s)[0] == 503)
        s.wait(lambda: '"HTTP request failed"' in s.text())  # lines come by a thread of their own


def kept(io):
    """keepalive: a connection serves one request after another, where nothing is amiss with it."""
    mode, alive = {}, []

    def play(request):
        request.keep = True
        alive.append(request)
        for n in range(1, 1000):
            request.env, request.body = {}, b""
            request.read()
            name = request.env["SCRIPT_NAME"]
            body = b"%d %s" % (n, request.body[:4])
            if name == "/close.php" or (mode.get("stale") and n > 1):
                if name == "/close.php":
                    request.sock.sendall(answer(b"\r\n" + body))
                return
            if name == "/more.php":
                request.sock.sendall(answer(b"\r\n" + body) + record(STDOUT, b"surplus"))
            elif name == "/padded.php":
                request.sock.sendall(record(STDOUT, b"\r\n" + body) + record(END, END_BODY, padding=5))
            elif name == "/long.php":
                request.sock.sendall(answer(b"Content-Length: %d\r\n\r\n" % len(body) + body + b"ignored"))
            elif name == "/busy.php":
                request.sock.sendall(answer(b"\r\n" + body, b"\0\0\0\0\2\0\0\0"))
            else:
                request.sock.sendall(answer(b"\r\n" + body))

    with served(io, play, {"keepalive": 3}) as (s, up):
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)  # one worker, so one set of connections

        def get(path="/index.php", method="GET", body=None):
            c.request(method, path, body)
            return c.getresponse().read()

        first = [get(), get(method="POST", body=b"some"), get(method="POST", body=b"x" * 100000), get(method="HEAD"),
                 get("/long.php"), get("/padded.php")]
        same(first, [b"1 ", b"2 some", b"3 xxxx", b"", b"5 ", b"6 "])
        for path in ("/more.php", "/busy.php", "/close.php"):
            begun = len(alive)
            assert get().endswith(b" ") and get(path).endswith(b" ")
            same(get(), b"1 ")  # another connection
            assert len(alive) > begun
        mode["stale"] = True
        same(get(), b"1 ")  # the kept one ends when it is used; what is safe goes out again
        same(get(), b"1 ")
        mode.clear()
        c.close()
    with served(io, hello) as (s, up):
        ask(s), ask(s)
        same(len(up.requests), 2 + 0)


def named(name, gate=None):
    """Says who it is, once the gate is open."""
    def play(request):
        request.read()
        if gate:
            gate.wait(10)
        request.sock.sendall(answer(b"Status: 200\r\n\r\n" + name + b" " + request.body))
    return play


def metric(s, name):
    found = re.search(rf"^portico_reverse_proxy_{re.escape(name)} (\S+)$", s.api("GET", "/metrics")[1], re.M)
    return float(found.group(1))


def hedged(io):
    """What is safe goes to another server when the first takes too long, whose connection is closed."""
    gate, other = threading.Event(), Play(named(b"other"))
    with served(io, named(b"first", gate)) as (s, up):
        handler = {"handler": "reverse_proxy", "hedge": {"after": "30ms", "max": 1}, "load_balancing": {
            "selection_policy": {"policy": "first"}}, "transport": {
                "protocol": "fastcgi", "root": "/srv", "env": {"UP": "{http.reverse_proxy.upstream.hostport}"}},
            "upstreams": [{"dial": f"127.0.0.1:{p.port}"} for p in (up, other)]}
        document = json.loads(json.dumps(s.document))
        document["apps"]["http"]["servers"]["srv0"]["routes"][1] = {"handle": [handler]}
        same(s.api("POST", "/load", document), (200, ""))
        s.wait(lambda: ask(s)[:2] == (200, b"other "))
        s.wait(lambda: up.ended == len(up.requests) > 0)
        same([r.requests[-1].env["UP"] for r in (up, other)], [f"127.0.0.1:{p.port}" for p in (up, other)])
        same(metric(s, "hedges_won_total"), 1)
        got = []
        t = threading.Thread(target=lambda: got.append(ask(s, "POST", body=b"x")[:2]))
        t.start()
        s.wait(lambda: len(up.requests) == 2)
        time.sleep(0.1)
        gate.set()
        t.join()
        same((got, len(other.requests)), ([(200, b"first x")], 1))
        same(ask(s)[:2], (200, b"first "))
        other.stop()


def queued(io):
    """A limit with a queue before it."""
    gate = threading.Event()
    with served(io, named(b"one", gate), None, {
            "overload": {"max_requests": 2, "queue": 3, "queue_timeout": "30s"}}) as (s, up):
        got = []
        threads = [threading.Thread(target=lambda: got.append(ask(s, "POST", body=b"x")[:2])) for _ in range(5)]
        for t in threads:
            t.start()
        s.wait(lambda: (metric(s, "queued"), len(up.requests)) == (3, 2))
        same((ask(s)[0], len(up.requests)), (503, 2))
        gate.set()
        for t in threads:
            t.join()
        same(got, [(200, b"one x")] * 5)


class Http(Play):
    """The first lines of requests of HTTP, each of which is answered."""

    def __init__(self):
        self.lines = []
        super().__init__(None)

    def one(self, sock):
        head = b""
        with contextlib.suppress(OSError), sock:
            while b"\r\n\r\n" not in head and (piece := sock.recv(4096)):
                head += piece
            length = re.search(rb"\r\nContent-Length: (\d+)", head)
            end = head.index(b"\r\n\r\n") + 4 + int(length.group(1) if length else 0)
            while len(head) < end and (piece := sock.recv(4096)):
                head += piece
            self.lines.append(head.split(b"\r\n")[0])
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def mirrored(io):
    """A copy to another FastCGI server, and to one of HTTP; from HTTP to FastCGI."""
    other = Play(named(b"other"))
    copy = {"dial": f"127.0.0.1:{other.port}", "headers": {"set": {"X-Copy": ["yes"]}}}
    with served(io, named(b"real"), None, {"mirror": copy}) as (s, up):
        same(ask(s, "POST", "/a.php/info?q=1", b"body", {"X-Own": "1"})[:2], (200, b"real body"))
        s.wait(lambda: len(other.requests) == 1 and other.ended == 1)
        first, second = up.requests[0], other.requests[0]
        same((second.body, second.env.pop("HTTP_X_COPY")), (b"body", "yes"))
        same(second.env, first.env)
        same(ask(s, "POST", "/b.php", b"y" * 40000)[:2], (200, b"real " + b"y" * 40000))
        same(ask(s, "HEAD", "/c.php")[0], 200)
        s.wait(lambda: len(other.requests) == 2 and other.ended == 2)
        same((other.requests[1].env["REQUEST_METHOD"], other.requests[1].body), ("HEAD", b""))
        same((metric(s, "mirrored_total"), metric(s, 'mirror_dropped_total{reason="body"}')), (2, 1))
        web, document = Http(), json.loads(json.dumps(s.document))
        routes = document["apps"]["http"]["servers"]["srv0"]["routes"]
        routes[1]["handle"] = [{"handler": "rewrite", "uri": "/index.php?{http.request.uri.query}"}, {
            **routes[1]["handle"][0], "mirror": {"dial": f"127.0.0.1:{web.port}", "transport": {
                "protocol": "http"}}}]
        same(s.api("POST", "/load", document), (200, ""))
        s.wait(lambda: ask(s, path="/x/y?z=1")[:2] == (200, b"real ") and
               up.requests[-1].env["SCRIPT_NAME"] == "/index.php")
        s.wait(lambda: web.lines[:1] == [b"GET /x/y?z=1 HTTP/1.1"])
        routes[1]["handle"] = [{"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{web.port}"}],
                                "rewrite": {"uri": "/up{http.request.uri}"}, "mirror": {**copy, "transport": {
                                    "protocol": "fastcgi", "root": "/srv", "split_path": [".php"]}}}]
        same(s.api("POST", "/load", document), (200, ""))
        s.wait(lambda: ask(s, "PUT", "/d.php", b"put")[0] == 200 and web.lines[-1] == b"PUT /up/d.php HTTP/1.1")
        s.wait(lambda: (other.requests[-1].env.get("REQUEST_METHOD"), other.requests[-1].body) == ("PUT", b"put"))
        same(other.requests[-1].env["SCRIPT_FILENAME"], "/srv/up/d.php")
        web.stop()
        other.stop()


def mirrored_by_links(io):
    """Where the root is a link each copy is told what it leads to as it sets out; one that leads nowhere is a failure."""
    other = Play(named(b"other"))
    with tempfile.TemporaryDirectory() as folder:
        for n in "12":
            os.mkdir(f"{folder}/{n}")
        link = f"{folder}/now"
        os.symlink(f"{folder}/1", link)
        with served(io, named(b"real"), {"root": link, "resolve_root_symlink": True, "env": {"PATH_TRANSLATED": link}},
                    {"mirror": {"dial": f"127.0.0.1:{other.port}"}}) as (s, up):
            same(ask(s, "POST", "/a.php/info", b"body")[:2], (200, b"real body"))
            s.wait(lambda: other.ended == 1)
            same(other.requests[0].env, up.requests[0].env)
            same([other.requests[0].env[n] for n in ("DOCUMENT_ROOT", "SCRIPT_FILENAME", "PATH_TRANSLATED")],
                 [f"{folder}/1", f"{folder}/1/a.php", link])
            os.remove(link)
            os.symlink(f"{folder}/2", link)
            same(ask(s)[0], 200)
            s.wait(lambda: other.ended == 2)
            same(other.requests[1].env["SCRIPT_FILENAME"], f"{folder}/2/index.php")
            document = json.loads(json.dumps(s.document))
            handler = document["apps"]["http"]["servers"]["srv0"]["routes"][1]["handle"][0]
            handler["mirror"]["transport"] = {**handler["transport"], "root": f"{folder}/none"}
            same(s.api("POST", "/load", document), (200, ""))
            s.wait(lambda: ask(s)[0] == 200 and metric(s, "mirror_failed_total") == 1)
            s.wait(lambda: "the root cannot be resolved" in s.text())
            handler["mirror"]["transport"]["root"] = "/"
            same(s.api("POST", "/load", document), (200, ""))
            s.wait(lambda: ask(s, path="/b.php/")[0] == 200 and other.requests[-1].env.get("DOCUMENT_ROOT") == "/")
            s.wait(lambda: other.requests[-1].env.get("SCRIPT_FILENAME") == "/b.php")
    other.stop()


def check_of_a_silent_one(io):
    """A check ends by its timeout, and with its configuration."""
    def play(request):
        request.read()
        request.sock.recv(1)

    with served(io, play, None, {"health_checks": {"active": {"uri": "/ping", "timeout": "100ms"}}}) as (s, up):
        s.wait(lambda: "timed out" in s.text())
        same(ask(s)[0], 503)
        s.wait(lambda: up.ended == len(up.requests))


CASES = [
    ("the environment is Caddy's", environment),
    ("header fields that are one variable do not stand in for one another", ambiguous_fields),
    ("a path is split without regard to case, and never leaves the root", script_names),
    ("bodies go up whole, also those whose length was not known", bodies),
    ("the answer to HEAD has no body", heads),
    ("large header fields are split over records, too large ones refused", large_fields),
    ("malformed answers are 502, with the reason in the log", malformed),
    ("chunks of a script's own are its client's", own_chunks),
    ("lines that say the status", statuses),
    ("an answer that is cut off is never a whole one", cut_off),
    ("an answer that is whole needs no end of its request", no_end),
    ("pieces are passed on as they come, and stderr is logged", streams),
    ("what never comes to an end, and is no answer, ends the request", endless),
    ("read_timeout is of the answer as a whole", timeouts),
    ("a client that leaves ends its request", leaving),
    ("an answer may come before the body was read", early_answer),
    ("a server that is not there is 502", refused),
    ("with keepalive a connection serves many requests", kept),
    ("a second server is asked when the first takes too long", hedged),
    ("beyond a limit requests wait", queued),
    ("copies go to another server, of FastCGI or of HTTP", mirrored),
    ("copies are told what a root's link leads to", mirrored_by_links),
    ("active health checks ask for the script", checked),
    ("a check of one that says nothing ends", check_of_a_silent_one),
]

if __name__ == "__main__":
    run_cases(CASES)
