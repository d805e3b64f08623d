#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 to upstreams, frame by frame, as TAP: an upstream made by hand that answers, splits, stops, refuses,
says GOAWAY, or lies. Usage: h2_upstream_test.py PORTICO [TEXT]."""
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import struct
import sys
import threading
import time
import types

sys.dont_write_bytecode = True
import h2_client  # noqa: E402 (beside this file)
from h2_client import (CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE,  # noqa: E402
                       SETTINGS, WINDOW_UPDATE, block, frame, literal, text)
from certificates import Authority  # noqa: E402
from h2_upstream import Conn, Upstream, always  # noqa: E402
from patience import held  # noqa: E402
from played import Peer  # noqa: E402
from server import Server, free_port, has, run_cases, same  # noqa: E402

PORTICO = sys.argv[1]
CA = Authority()
CERTIFICATE = CA.leaf("upstream", "DNS:localhost", "IP:127.0.0.1")
MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, CONNECT = 3, 4, 5, 8


@contextlib.contextmanager
def gateway(io, *upstreams, workers=1, members=None, transport=None, paths=None, **more):
    """`paths`: what is asked for there goes to these upstreams of them, with more of a transport: [(path, upstreams, {…})]."""
    def route(to, extra):
        return {"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": u.dial} for u in to],
                            "transport": {"protocol": "http", "versions": ["h2c", "2"], **(transport or {}), **extra}, **more}]}
    routes = [{"match": [{"path": [path]}], **route(to, extra)} for path, to, extra in paths or []]
    s = Server(PORTICO, io, workers=workers, awaited=False, routes=[*routes, route(upstreams, {})],
               members={"protocols": ["h1", "h2", "h2c"], **(members or {})},
               top={"logging": {"logs": {"default": {"level": "DEBUG"}}}})
    try:
        s.wait(lambda: socket.create_connection(("127.0.0.1", s.port), 5).close() is None)
        yield s
        s.wait(lambda: s.live()["fibers"] == 0)
    except AssertionError as e:
        for u in upstreams:
            if u.errors:
                raise AssertionError(f"{e}; the upstream: {u.errors[0]!r}; {s.text()[-2000:]}") from e
        raise
    finally:
        for u in upstreams:
            u.gate.set()
        status = s.end()
    same(status, 0)
    for u in upstreams:
        u.close()


def played(port):
    """An upstream that is none of ours."""
    return types.SimpleNamespace(dial=f"127.0.0.1:{port}", errors=[], gate=threading.Event(), close=lambda: None)


def ask(s, method="GET", path="/", body=None, **fields):
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
    try:
        c.connect()
        c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # a small body comes with its head, and is kept then
        c.request(method, path, body, {k.replace("_", "-"): v for k, v in fields.items()})
        c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        a = c.getresponse()
        return a.status, a.read()
    finally:
        c.close()


def raw(s, request):
    """All that an HTTP/1.1 connection gives for these bytes, until it ends."""
    with socket.create_connection(("127.0.0.1", s.port), 60) as c:
        c.sendall(request)
        out = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := c.recv(65536):
                out += piece
        return out


def plain(io):
    """A request and its answer: what the fields become both ways, and one connection for all."""
    up = Upstream(always(b"hello", fields=[("x-request-id", "7"), ("content-type", "text/x"), ("set-cookie", "a=1"),
                                          ("set-cookie", "b=2")]))
    with gateway(io, up) as s:
        out = raw(s, b"GET /a?b=%20 HTTP/1.1\r\nHost: site.example\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
                  b"Cookie: k=1; l=2\r\nTE: trailers\r\nProxy-Connection: x\r\nX-Name: Value\r\n\r\n")
        r = up.requests[0]
        same(r.fields[:4], [(":method", "GET"), (":scheme", "http"), (":path", "/a?b=%20"),
                            (":authority", "site.example")])
        same(sorted(r.fields[4:]), [("cookie", "k=1; l=2"), ("te", "trailers"), ("via", "1.1 portico"),
                                    ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-host", "site.example"),
                                    ("x-forwarded-proto", "http"), ("x-name", "Value")])
        head, body = out.split(b"\r\n\r\n", 1)
        has(head, b"HTTP/1.1 200 OK", b"Via: 2.0 portico", b"X-Request-Id: 7", b"Content-Type: text/x",
            b"Set-Cookie: a=1\r\nSet-Cookie: b=2")
        assert b"hello" in body
        for _ in range(20):
            same(ask(s), (200, b"hello"))
        same(len(up.conns), 1)
        same([r.stream for r in up.requests], list(range(1, 42, 2)))
        c = up.conns[0]
        same((c.settings[2], c.settings[4]), (0, 65536))
        s.wait(lambda: c.acknowledged == 1)


def clients(io):
    """Clients of HTTP/2: many streams on one connection, HEAD, 204, 103, statuses."""
    def play(c):
        while True:
            r = c.request()
            path = r.field(":path")
            if path == "/hints":
                c.head(r.stream, 103, [("link", "</x>")])
                c.answer(r.stream)
            elif path == "/204":
                c.answer(r.stream, b"", 204)
            elif path == "/head":
                c.head(r.stream, 200, [("content-length", "77")], True)
            else:
                c.answer(r.stream, path.encode() * 50, 404)
    up = Upstream(play)
    with gateway(io, up) as s, h2_client.Client(s.port, grants=True) as c:
        streams = [c.ask(h2_client.request("GET", f"/{i}")) for i in range(90)]
        for i, stream in enumerate(streams):
            same((c.answer(stream).status, c.answer(stream).body), (404, f"/{i}".encode() * 50))
        a = c.answer(c.ask(h2_client.request("GET", "/hints")))
        same((a.informs, a.status, a.body), ([[(":status", "103"), ("link", "</x>")]], 200, b"ok"))
        a = c.answer(c.ask(h2_client.request("GET", "/204")))
        same((a.status, a.body, a.field("content-length")), (204, b"", None))
        a = c.answer(c.ask(h2_client.request("HEAD", "/head")))
        same((a.status, a.body, a.field("content-length"), a.field("via")), (200, b"", "77", "2.0 portico"))
        same(len(up.conns), 1)


def bodies(io):
    """Bodies of all sizes, both ways at once, with lengths and without, whole at once or late."""
    def echo(c):
        while True:
            r = c.request()
            c.grants = True
            c.answer(r.stream, r.body, fields=[("content-length", str(len(r.body)))] if r.body else [])
    up = Upstream(echo)
    with gateway(io, up) as s:
        for n in (0, 1, 100, 4096, 4097, 16384, 16385, 70000, 250000):
            body = bytes(i % 251 for i in range(n))
            same(ask(s, "POST", body=body), (200, body))
            same(up.requests[-1].field("content-length"), str(n))
            same(ask(s, "PUT", body=iter([body[:n // 2], body[n // 2:]])) if n else (200, body),
                 (200, body))
        same(up.requests[-1].field("content-length"), None)
    with gateway(io, Upstream(echo), request_buffers=1 << 20) as s:
        body = b"x" * 300000
        same(ask(s, "POST", body=body), (200, body))


def upload_windows(io):
    """Nothing is sent beyond the windows of stream and connection; both open again; END_STREAM is on the last
    frame of a body whose length was known."""
    def play(c):
        c.grants = False
        r = c.request(False)
        c.ping(b"11111111")  # which the client waits for before it sends the body
        c.until(lambda: len(r.body) == 1000)
        c.ping(b"33333333")
        c.until(lambda: sum(f.kind == PING for f in c.frames) == 2)
        same(len(r.body), 1000)
        c.window(r.stream, 70000)
        c.until(lambda: len(r.body) == 65535)  # what the connection lets through
        c.ping(b"22222222")
        c.until(lambda: sum(f.kind == PING for f in c.frames) == 3)
        same(len(r.body), 65535)
        c.window(0, 1 << 20)
        c.until(lambda: len(r.body) == 71000)
        c.say_settings((INITIAL_WINDOW, 3000))  # the windows that are there grow by the difference
        c.until(lambda: len(r.body) == 73000)
        c.window(r.stream, 200000)
        c.until(lambda: r.ended)
        c.until(lambda: len(r.body) == 100000)
        same([f.flags & 1 for f in c.frames if f.kind == DATA][-1], 1)
        assert all(len(f.payload) <= 16384 for f in c.frames)
        c.answer(r.stream, b"done")
        c.ended()
    up = Upstream(play, settings=[(INITIAL_WINDOW, 1000)])
    with gateway(io, up) as s:
        # the first window is 65535 until SETTINGS have come: the request comes behind them
        same(ask_late(s, up, b"y" * 100000), (200, b"done"))


def ask_late(s, up, body):
    """A request whose body comes when the upstream's SETTINGS have been heard."""
    with socket.create_connection(("127.0.0.1", s.port), 60) as c:
        c.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        s.wait(lambda: up.requests)
        s.wait(lambda: up.conns[0].acknowledged or poke(up))
        c.sendall(body)
        a = http.client.HTTPResponse(c)
        a.begin()
        return a.status, a.read()


def poke(up):
    return any(f.kind == SETTINGS and f.flags & 1 for f in up.conns[0].frames)


class Windows:
    """What an upstream may send, by its own count."""

    def __init__(self, conn):
        self.conn, self.seen, self.left = conn, 0, {0: 65535}

    def of(self, stream):
        for f in self.conn.frames[self.seen:]:
            if f.kind == WINDOW_UPDATE:
                self.add(f.stream, struct.unpack("!I", f.payload)[0])
        self.seen = len(self.conn.frames)
        self.add(stream, 0)
        return min(self.left[0], self.left[stream])

    def add(self, stream, n):
        self.left[stream] = self.left.get(stream, self.conn.settings[INITIAL_WINDOW]) + n

    def send(self, stream, data, end=False):
        assert len(data) <= self.of(stream)
        self.left[0] -= len(data)
        self.left[stream] -= len(data)
        self.conn.data(stream, data, end)


def slow_client(io):
    """A client that takes nothing holds its window and no more, and no other stream."""
    sent = {}

    def play(c):
        while True:
            r = c.request()
            if r.field(":path") != "/big":
                c.answer(r.stream, b"small")
                continue
            c.head(r.stream)
            n = 0
            while n < c.settings[INITIAL_WINDOW]:
                c.data(r.stream, b"z" * 16384)
                n += 16384
            sent[r.stream] = n
    up = Upstream(play)
    with gateway(io, up) as s, h2_client.Client(s.port) as c:
        big = [c.ask(h2_client.request("GET", "/big")) for _ in range(3)]
        for stream in big:
            c.until(lambda: c.answers[stream].status is not None)
        s.wait(lambda: len(sent) == 3)
        same(ask(s), (200, b"small"))
        windows = [f for f in up.conns[0].frames if f.kind == WINDOW_UPDATE and f.stream]
        assert sum(struct.unpack("!I", f.payload)[0] for f in windows) <= 3 * 131072, windows
        same(len(up.conns), 1)
        # what is taken is granted anew: a stream of megabytes
    most = []

    def much(c):
        c.grants = False
        w = Windows(c)
        while True:
            r = c.request()
            c.head(r.stream)
            left, told = 3 << 20, 0
            while left:
                n = min(left, w.of(r.stream), 16384)
                told = max(told, w.left[r.stream])
                if n == 0:
                    c.read()
                    continue
                left -= n
                w.send(r.stream, b"m" * n, left == 0)
            most.append(told)
    with gateway(io, Upstream(much)) as s:
        for _ in range(3):
            same(ask(s), (200, b"m" * (3 << 20)))
    assert 131072 < max(most) <= 1 << 20, most  # who is quick may have more under way


def trailers_go_up(c, up, size, late, length=True):
    """A request with a body and trailers; `late`: they come when the upstream has the body."""
    more = [("trailer", "x-sum")] + [("content-length", str(size))] * length
    before = len(up.requests) if up else 0
    stream = c.ask(h2_client.request("POST", "/", *more), end=False)
    for at in range(0, size, 16384):
        piece = b"b" * min(16384, size - at)
        c.until(lambda: 65535 + sum(struct.unpack("!I", f.payload)[0] for f in c.frames if f.kind == WINDOW_UPDATE
                                    and f.stream == stream) - at >= len(piece) or c.answers[stream].ended)
        c.data(stream, piece)
    if late:
        deadline = time.monotonic() + 20
        while len(up.requests) == before or len(up.requests[-1].body) < size:
            assert time.monotonic() < deadline, "the body does not go up before its trailers"
            time.sleep(0.002)
        assert not up.requests[-1].ended, "it ended before its trailers"
    c.frame(HEADERS, END_HEADERS | END_STREAM, stream, block([("x-sum", "9")]))
    a = c.answer(stream, 20)
    same((a.body, a.trailers), (b"body", [("grpc-status", "0"), ("x-seen", "[('x-sum', '9')]")]))


def trailers(io):
    """Of answers and of requests, both kinds of clients; an answer of two heads and nothing else."""
    def play(c):
        while True:
            r = c.request()
            if r.field(":path") == "/none":
                c.head(r.stream, 200, [("content-type", "application/grpc")])
                c.frame(HEADERS, END_HEADERS | END_STREAM, r.stream, block([("grpc-status", "5")]))
            elif r.field(":path") == "/only":
                c.answer(r.stream, b"", fields=[("content-type", "application/grpc"), ("grpc-status", "5")])
            elif r.field(":path") in ("/zero", "/empty", "/late"):
                c.head(r.stream, 200, [("content-length", "0")])
                if r.field(":path") == "/empty":
                    c.frame(DATA, 0, r.stream)
                if r.field(":path") == "/late":
                    time.sleep(0.05)
                c.frame(HEADERS, END_HEADERS | END_STREAM, r.stream, block([("x-sum", "7")]))
            else:
                c.answer(r.stream, b"body", trailers=[("grpc-status", "0"), ("x-seen", str(r.trailers))])
    up = Upstream(play)
    with gateway(io, up) as s, h2_client.Client(s.port) as c:
        stream = c.ask(h2_client.request("POST", "/", ("te", "trailers")), end=False)
        c.data(stream, b"abc")
        c.frame(HEADERS, END_HEADERS | END_STREAM, stream, block([("x-sum", "9")]))
        a = c.answer(stream)
        same((a.body, a.trailers), (b"body", [("grpc-status", "0"), ("x-seen", "[('x-sum', '9')]")]))
        same(up.requests[0].body, b"abc")
        for n, late in ((3, False), (3, True), (70000, False), (70000, True), (0, False), (0, True)):  # of known length as well
            trailers_go_up(c, up, n, late)
        a = c.answer(c.ask(h2_client.request("POST", "/none")))
        same((a.status, a.body, a.trailers), (200, b"", [("grpc-status", "5")]))
        a = c.answer(c.ask(h2_client.request("POST", "/only")))
        same((a.status, a.body, a.trailers, a.field("grpc-status")), (200, b"", None, "5"))
        for path in ("/zero", "/empty", "/late"):
            a = c.answer(c.ask(h2_client.request("GET", path)))
            same((a.status, a.field("content-length"), a.body, a.trailers), (200, "0", b"", [("x-sum", "7")]))
            has(raw(s, b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode()), b"\r\nContent-Length: 0\r\n")
        has(raw(s, b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), b"\r\n0\r\nGrpc-Status: 5\r\n\r\n")
        out = raw(s, b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n")
        has(out, b"4\r\nbody\r\n0\r\nGrpc-Status: 0\r\nX-Seen: None\r\n\r\n")
    with gateway(io, Upstream(play), request_buffers=1 << 20) as s, h2_client.Client(s.port) as c:
        for n in (0, 3, 70000):
            trailers_go_up(c, None, n, False)
            trailers_go_up(c, None, n, False, length=False)


def goaway(io):
    """What a GOAWAY leaves out is asked again elsewhere, whatever it is; the rest is answered; no new stream."""
    def play(c):
        first = len(c.upstream.conns) == 1
        r = c.request()
        if not first:
            c.answer(r.stream, b"second")
            while True:
                c.answer(c.request().stream, b"second")
        two = c.request()
        c.say_goaway(r.stream)
        c.upstream.gate.wait(20)
        c.answer(r.stream, b"first")
        assert two.reset is None
        c.ended()
    up = Upstream(play)
    with gateway(io, up) as s, h2_client.Client(s.port) as c:
        one = c.ask(h2_client.request("GET", "/1"))
        s.wait(lambda: len(up.requests) == 1)
        two = c.ask(h2_client.request("POST", "/2"))
        same(c.answer(two).body, b"second")
        same(c.answer(c.ask(h2_client.request("GET", "/3"))).body, b"second")
        up.gate.set()
        same(c.answer(one).body, b"first")
        same([r.field(":path") for r in up.requests], ["/1", "/2", "/2", "/3"])
        same(len(up.conns), 2)


def refused_stream(io):
    """REFUSED_STREAM: again, at once, whatever it is; three times."""
    def play(c):
        while True:
            r = c.request()
            if len(c.upstream.requests) <= c.upstream.refuse:
                c.rst(r.stream, "REFUSED_STREAM")
            else:
                c.answer(r.stream, b"done")
    up = Upstream(play)
    with gateway(io, up) as s:
        for method, body in (("GET", None), ("POST", b"abc")):
            up.refuse = len(up.requests) + 1
            same(ask(s, method, body=body), (200, b"done"))
        up.refuse = 100
        n = len(up.requests)
        same(ask(s, "POST", body=b"abc")[0], 502)
        same(len(up.requests), n + 4)
        s.wait(lambda: "REFUSED_STREAM" in s.text())


def dies(io):
    """An upstream that ends: before an answer what may be repeated goes on a fresh connection, once; within one the
    client is cut."""
    def play(c):
        while True:
            r = c.request()
            path = r.field(":path")
            if path == "/die" and len(c.upstream.conns) == c.upstream.mortal:
                return
            if path == "/cut":
                c.head(r.stream, 200, [("content-length", "10")])
                c.data(r.stream, b"abc")
                c.sock.shutdown(socket.SHUT_RDWR)
                return
            c.answer(r.stream, b"lives")
    up = Upstream(play)
    with gateway(io, up) as s:
        up.mortal = 1
        same(ask(s), (200, b"lives"))
        same(ask(s, path="/die"), (200, b"lives"))
        up.mortal = len(up.conns)
        same(ask(s, "POST", "/die", b"abc")[0], 502)
        same(ask(s), (200, b"lives"))
        out = raw(s, b"GET /cut HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert out.endswith(b"abc") and b"Content-Length: 10" in out, out
        same(ask(s), (200, b"lives"))


def client_leaves(io):
    """A client that leaves cancels its stream, and the connection goes on."""
    up = Upstream(lambda c: [c.request(), c.request(), c.upstream.gate.wait(20),
                             c.until(lambda: c.requests[0].reset is not None),
                             c.answer(c.requests[1].stream, b"stays"), c.ended()])
    with gateway(io, up) as s, h2_client.Client(s.port) as c:
        one = c.ask(h2_client.request("GET", "/1"))
        s.wait(lambda: len(up.requests) == 1)
        two = c.ask(h2_client.request("GET", "/2"))
        s.wait(lambda: len(up.requests) == 2)
        time.sleep(0.02)  # until the gateway looks
        c.rst(one)
        up.gate.set()
        same(c.answer(two).body, b"stays")
        same(up.conns[0].requests[0].reset, "CANCEL")


def early_answer(io):
    """An answer before the request's end: it counts, the rest of the body is not wanted (NO_ERROR)."""
    def play(c):
        c.grants = False
        r = c.request(False)
        c.answer(r.stream, b"enough", 413)
        c.rst(r.stream, "NO_ERROR")
        c.ended()
    up = Upstream(play)
    with gateway(io, up) as s, h2_client.Client(s.port) as c:
        stream = c.ask(h2_client.request("POST", "/"), end=False)
        c.data(stream, b"a" * 1000)
        a = c.answer(stream)
        same((a.status, a.body), (413, b"enough"))


def many_streams(io):
    """The upstream's limit of streams is kept; beyond it another connection is opened, up to the limit of those,
    then it is waited for."""
    def play(c):
        most, quiet = 0, False
        c.sock.settimeout(0.5)
        while True:
            try:
                quiet = c.request() is None
            except TimeoutError:  # the last ones are less than three, on either connection
                quiet = True
            open_ones = [r for r in c.requests if not hasattr(r, "answered")]
            most = max(most, len(open_ones))
            c.upstream.most = max(c.upstream.most, most)
            if len(open_ones) == 3 or quiet or c.upstream.gate.is_set():
                for r in open_ones:
                    r.answered = True
                    c.answer(r.stream, r.field(":path").encode())
    up = Upstream(play, settings=[(MAX_STREAMS, 3)])
    up.most = 0
    with gateway(io, up, transport={"max_conns_per_host": 2}) as s, h2_client.Client(s.port) as c:
        up.gate.set()
        same(ask(s), (200, b"/"))  # so that SETTINGS are known
        up.gate.clear()
        streams = [c.ask(h2_client.request("GET", f"/{i}")) for i in range(30)]
        for i, stream in enumerate(streams):
            same(c.answer(stream).body, f"/{i}".encode())
        same((up.most, len(up.conns)), (3, 2))


def no_streams(io):
    """An upstream that allows none: an answer in time, not a hang."""
    up = Upstream(lambda c: [c.request(), c.answer(1), c.ended()], settings=[(MAX_STREAMS, 0)])
    with gateway(io, up, transport={"max_conns_per_host": 1, "dial_timeout": "1s"}) as s:
        same(ask(s), (200, b"ok"))
        same(ask(s)[0], 504)


def keep_alive(io):
    """Idle connections end in time, with GOAWAY; without keep-alive each serves one request."""
    up = Upstream(always())
    with gateway(io, up, transport={"keep_alive": {"idle_timeout": "1s"}, "write_timeout": "1s"}) as s:
        same(ask(s), (200, b"ok"))
        s.wait(lambda: up.conns[0].goaway is not None)
        same(up.conns[0].goaway.code, "NO_ERROR")
        same(ask(s), (200, b"ok"))
        same(len(up.conns), 2)
    up = Upstream(always())
    with gateway(io, up, transport={"keep_alive": {"enabled": False}}) as s:
        same([ask(s) for _ in range(3)], [(200, b"ok")] * 3)
        same([[r.stream for r in c.requests] for c in up.conns], [[1]] * 3)


def heads(io):
    """Gateways with different limits of an answer's head do not get each other's, whichever was first."""
    for first in ("/", "/small"):
        up = Upstream(always(fields=[("x-long", "l" * 3000)]))
        with gateway(io, up, paths=[("/small", [up], {"max_response_header_size": 1000})]) as s:
            for path in (first, "/", "/small", "/"):
                same(ask(s, path=path)[0], 502 if path == "/small" else 200)
            same(len(up.conns), 2)
            same(sorted(c.settings[6] for c in up.conns), [1000, 10 << 20])


def idle_limits(io):
    """max_idle_conns counts what is idle of one transport, whatever others keep, and closes what has been for longest;
    max_idle_conns_per_host holds when nobody has wanted them for a second."""
    a, b, c, other, free = ups = [Upstream(always(name)) for name in (b"a", b"b", b"c", b"other", b"free")]
    to = types.SimpleNamespace(dial="{http.request.header.To}")
    paths = [("/to", [to], {}), ("/other", [other], {}), ("/free", [free], {"keep_alive": {}})]
    with gateway(io, *ups, transport={"keep_alive": {"max_idle_conns": 2}}, paths=paths) as s:
        for path in ("/free", "/other"):
            same(ask(s, path=path), (200, path[1:].encode()))
        for up, name in ((a, b"a"), (b, b"b"), (a, b"a"), (c, b"c")):
            same(ask(s, path="/to", To=up.dial), (200, name))
        s.wait(lambda: b.conns[0].goaway is not None)
        same(b.conns[0].goaway.code, "NO_ERROR")
        for path, to, name in (("/to", a, b"a"), ("/to", c, b"c"), ("/other", other, b"other"), ("/free", free, b"free")):
            same(ask(s, path=path, To=to.dial), (200, name))
        same([len(u.conns) for u in ups], [1] * 5)
        same([u.conns[0].goaway for u in (a, c, other, free)], [None] * 4)
        same(ask(s, path="/to", To=b.dial), (200, b"b"))  # a has been idle for longest now
        s.wait(lambda: a.conns[0].goaway is not None)
        same([u.conns[-1].goaway for u in (b, c, other, free)], [None] * 4)

    def both(c):
        r = c.request()
        c.upstream.gate.wait(20)
        c.answer(r.stream)
        c.ended()
    up = Upstream(both, settings=[(MAX_STREAMS, 1)])
    with gateway(io, up, transport={"keep_alive": {"max_idle_conns_per_host": 1}}) as s, h2_client.Client(s.port) as c:
        streams = [c.ask(), c.ask()]
        s.wait(lambda: len(up.requests) == 2)
        up.gate.set()
        same([c.answer(x).status for x in streams], [200, 200])
        s.wait(lambda: [x.goaway is None for x in up.conns].count(True) == 1, 20)


def stands_still(pid):
    """Each of its threads: a signal that stops them takes its time."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat", encoding="ascii") as f:
            if f.read().rsplit(") ", 1)[1][0] != "T":
                return False
    return True


def ended_unread(io):
    """An upstream that has ended while nothing was asked, which is not read yet as a request comes: if that cannot be
    sent again, it goes on a fresh connection."""
    up = Upstream(always())
    with gateway(io, up) as s, socket.create_connection(("127.0.0.1", s.port), 20) as c:
        for n in range(3):
            request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" if n == 0 else \
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            if n:
                time.sleep(0.005)  # what has just been heard from is taken for alive
                os.kill(s.server_pid(), signal.SIGSTOP)
                s.wait(lambda: stands_still(s.server_pid()))
            c.sendall(request)
            if n:
                up.conns[-1].sock.shutdown(socket.SHUT_RDWR)
                os.kill(s.server_pid(), signal.SIGCONT)
            a = http.client.HTTPResponse(c)
            a.begin()
            same((a.status, a.read()), (200, b"ok"))
            same(len(up.conns), n + 1)


def waits_for_one(io):
    """A burst at the start dials once; what that dial fails with is everybody's answer."""
    up = Upstream(always())
    with gateway(io, up) as s, h2_client.Client(s.port) as c:
        streams = [c.ask() for _ in range(60)]
        same([c.answer(x).status for x in streams], [200] * 60)
        same(len(up.conns), 1)
    dead = played(free_port())
    with gateway(io, dead) as s, h2_client.Client(s.port) as c:
        streams = [c.ask() for _ in range(30)]
        same([c.answer(x).status for x in streams], [502] * 30)
        s.wait(lambda: "connection refused" in s.text())


def wrong_protocol(io):
    """An upstream that speaks HTTP/1, or nothing."""
    def one(sock):
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        sock.recv(1000)
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: one(server.accept()[0]), daemon=True).start()
    with gateway(io, played(server.getsockname()[1])) as s:
        same(ask(s)[0], 502)
        s.wait(lambda: "the server speaks HTTP/1, not HTTP/2" in s.text())


def unix_sockets(io):
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        up = Upstream(always(), place=f"{folder}/up")
        with gateway(io, up) as s:
            same(ask(s), (200, b"ok"))
            same(up.requests[0].field(":authority"), f"127.0.0.1:{s.port}")


def health(io):
    """Active checks speak it as well."""
    def play(c):
        while True:
            r = c.request()
            c.answer(r.stream, b"well", 200 if c.upstream.well else 500)
    up = Upstream(play)
    up.well = True
    with gateway(io, up, health_checks={"active": {"uri": "/health", "interval": "50ms", "expect_body": "we"}}) as s:
        s.wait(lambda: len(up.requests) >= 2)
        same(ask(s), (200, b"well"))
        up.well = False
        s.wait(lambda: ask(s)[0] == 503)
        up.well = True
        s.wait(lambda: ask(s) == (200, b"well"))
        assert len(up.conns) <= 3, len(up.conns)
        same(up.requests[0].field(":path"), "/health")


def in_time(io):
    """An answer that does not come, a body that is not taken: 504, and CANCEL. A connection that was silent
    meanwhile gets no new request."""
    def play(c):
        c.grants = False
        if len(c.upstream.conns) > 1:
            always(b"other")(c)
        c.answer(c.request().stream, b"first")
        r = c.request()
        c.until(lambda: r.reset is not None)
        c.ended()
    up = Upstream(play)
    with gateway(io, up, transport={"response_header_timeout": "1s"}) as s:
        same(ask(s), (200, b"first"))
        same(ask(s)[0], 504)
        s.wait(lambda: up.requests[1].reset == "CANCEL")
        same(ask(s), (200, b"other"))
        same(len(up.conns), 2)

    def stuck(c):
        c.grants = False
        r = c.request(False)
        c.until(lambda: r.reset is not None)
        c.ended()
    up = Upstream(stuck)
    with gateway(io, up, transport={"write_timeout": "200ms"}) as s:
        same(ask(s, "POST", body=b"x" * 300000)[0], 502)
        s.wait(lambda: up.requests[0].reset == "CANCEL")
        s.wait(lambda: "write: i/o timeout" in s.text())


def server_context(*protocols):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(*CERTIFICATE)
    if protocols:
        ctx.set_alpn_protocols(list(protocols))
    return ctx


def one(sock_peer):
    """HTTP/1.1 for who was agreed to speak it."""
    while True:
        sock_peer.request()
        sock_peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")


class Both(Upstream):
    """Speaks what its handshake agreed on."""

    def run(self, sock):
        sock.settimeout(20)
        with contextlib.suppress(OSError, EOFError, ssl.SSLError):
            sock = self.tls.wrap_socket(sock, server_side=True)
            self.agreed.append(sock.selected_alpn_protocol())
            if self.agreed[-1] == "h2":
                c = Conn(sock, self)
                self.conns.append(c)
                c.preface()
                c.say_settings()
                self.play(c)
            else:
                one(Peer(sock))
        sock.close()


def agreed(io):
    """What a handshake agrees on is spoken; an upgrade goes on a connection of HTTP/1.1; sessions are resumed."""
    trust = {"tls": {"root_ca_pem_files": [CA.root], "server_name": "localhost"}}
    for versions, offered, want in ((None, ("h2", "http/1.1"), "h2"), (["2"], ("h2",), "h2"), (["h2c", "2"], ("h2",), "h2"),
                                    (["1.1"], ("h2", "http/1.1"), "http/1.1"), (None, ("http/1.1",), "http/1.1"),
                                    (["2"], (), None), (None, ("http/1.1",), "http/1.1")):
        up = Both(always(b"two", fields=[("content-length", "3")]), tls=server_context(*offered))
        transport = {"versions": versions, **trust}
        with gateway(io, up, transport=transport) as s, h2_client.Client(s.port) as c:
            same(ask(s), (200, b"two" if want == "h2" else b"one"))
            streams = [c.ask() for _ in range(20)]
            same({c.answer(x).body for x in streams}, {b"two" if want == "h2" else b"one"})
            same(set(up.agreed), {want})
            if want == "h2":
                same(len(up.agreed), 1)
                same(dict(up.requests[0].fields)[":scheme"], "https")
                same(up.requests[0].field(":authority"), up.dial)
                out = raw(s, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n")
                has(out, b"one")
    # a server that ends its connections: each fresh one resumes a session
    def once(c):
        c.answer(c.request().stream)
        c.say_goaway(1)
        c.upstream.resumed.append(c.sock.session_reused)
        c.ended()
    up = Upstream(once, tls=server_context("h2"))
    up.resumed = []
    with gateway(io, up, transport={"versions": None, **trust}) as s:
        for _ in range(4):
            same(ask(s), (200, b"ok"))
        s.wait(lambda: up.resumed == [False, True, True, True])


class OneFlight:
    """A socket over TLS 1.2 whose last bytes of the handshake come together with the first ones behind it."""

    def __init__(self, context, sock, first):
        self.sock, self.session_reused = sock, False
        self.coming, self.going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.coming, self.going, server_side=True)
        self.wait(self.tls.do_handshake)
        self.sendall(first)

    def wait(self, step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.sock.sendall(self.going.read())
                self.coming.write(self.sock.recv(65536)) or self.coming.write_eof()

    def sendall(self, data):
        self.tls.write(data)
        self.sock.sendall(self.going.read())

    def recv(self, n):
        return self.wait(lambda: self.tls.read(n))

    def selected_alpn_protocol(self):
        return self.tls.selected_alpn_protocol()

    def close(self):
        self.sock.close()


def nothing_at_first(io):
    """SETTINGS that allow no request, and lie right behind the handshake: it goes to another connection."""
    context = server_context("h2")
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def wrap(sock, server_side):
        assert server_side
        allowed = [(MAX_STREAMS, 0)] if not up.agreed else [(MAX_STREAMS, 5)]
        return OneFlight(context, sock, h2_client.Wire.settings_frame(allowed))

    def play(c):
        if len(c.upstream.conns) > 1:
            c.answer(c.request().stream, b"second")
        c.ended()
    up = Upstream(play, settings=None, tls=types.SimpleNamespace(wrap_socket=wrap))
    trust = {"tls": {"root_ca_pem_files": [CA.root], "server_name": "localhost"}}
    with gateway(io, up, transport={"versions": ["2"], **trust}) as s:
        same(ask(s, "POST", body=b"x"), (200, b"second"))
        same([asked_of(c) for c in up.conns], [[], ["/"]])


def turns(c):
    """Until all that was sent has been dealt with, and what that called forth has come."""
    for _ in range(3):
        seen = len(c.frames)
        c.ping()
        c.until(lambda: any(f.kind == PING for f in c.frames[seen:]))


def shrinks(io):
    """SETTINGS take the window away from a body that waits for the connection's."""
    heard = {}

    def play(c):
        c.grants = False
        r = c.request(False)
        c.window(r.stream, 30000)
        c.until(lambda: len(r.body) == 65535)  # what the connection lets through; 30000 of the stream's are left
        c.say_settings((INITIAL_WINDOW, 0))
        c.window(0, 1 << 20)
        turns(c)
        heard["at zero"] = len(r.body)
        c.say_settings((INITIAL_WINDOW, 35535))  # and so it has none, and then one byte
        c.window(r.stream, 1)
        turns(c)
        heard["at one"] = len(r.body)
        c.window(r.stream, 1 << 20)
        c.until(lambda: r.ended)
        c.answer(r.stream, b"done")
        c.ended()
    with gateway(io, Upstream(play)) as s:
        same(ask(s, "POST", body=b"y" * 100000), (200, b"done"))
        same(heard, {"at zero": 65535, "at one": 65536})


def many_slow(io):
    """Two hundred and forty clients of one connection take nothing, though as much was sent to each as could be. Others get
    theirs at once, on the same connection, be they asked before or after; and what is held is bounded by small windows."""
    slow, held = 240, []

    def play(c):
        w = Windows(c)
        requests = [c.request() for _ in range(slow + 1)]
        last = next(r for r in requests if r.field(":path") == "/last")
        requests.remove(last)
        for r in requests:
            c.head(r.stream)
        sent, before = 0, -1
        while sent != before:  # and no more is granted
            before = sent
            for r in requests:
                while n := min(16384, w.of(r.stream)):
                    w.send(r.stream, b"z" * n)
                    sent += n
            turns(c)
        held.append(sent)
        for path in ("/last", "/new"):
            r = last if path == "/last" else c.request()
            c.head(r.stream)
            w.send(r.stream, path.encode() * 1000, True)
        c.ended()
    up = Upstream(play)
    with gateway(io, up, transport={"max_conns_per_host": 1}) as s, \
            h2_client.Client(s.port, settings=[(INITIAL_WINDOW, 200)], timeout=20) as c:
        for _ in range(slow):
            c.ask(h2_client.request("GET", "/slow"))
        same(ask(s, path="/last"), (200, b"/last" * 1000))
        same(ask(s, path="/new"), (200, b"/new" * 1000))
        assert 8 << 20 < held[0] <= slow * 65536, held
        same(len(up.conns), 1)


def late_data(io):
    """What an upstream had sent of answers that nobody wants any more, in small frames: no reason to end the
    connection, which others use."""
    def play(c):
        while True:
            r = c.request()
            if r.field(":path") == "/":
                c.answer(r.stream)
                continue
            c.head(r.stream)
            c.until(lambda: r.reset is not None)
            c.send(frame(DATA, 0, r.stream, b"late") * 1000)
    up = Upstream(play)
    with gateway(io, up) as s:
        for i in range(10):
            with h2_client.Client(s.port) as c:
                stream = c.ask(h2_client.request("GET", "/big"))
                c.until(lambda: c.answers[stream].status is not None)
            s.wait(lambda: len(up.requests) == i + 1 and up.requests[i].reset is not None)
        same(ask(s), (200, b"ok"))
        same(len(up.conns), 1)


def stuck(io):
    """An upstream that takes nothing any more keeps no connection that is over."""
    def play(c):
        c.grants = False
        c.say_settings((INITIAL_WINDOW, 1 << 30))
        c.window(0, 1 << 30)
        c.request(False)
        c.upstream.gate.wait(30)
    up = Upstream(play)
    port = int(up.dial.split(":")[1])
    with gateway(io, up, transport={"keep_alive": {"idle_timeout": "1s"}, "write_timeout": "1s"}) as s:
        with socket.create_connection(("127.0.0.1", s.port), 60) as c:
            c.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
            s.wait(lambda: held(port) == 1)
            c.settimeout(0.5)
            with contextlib.suppress(OSError):
                while True:
                    c.send(b"u" * 65536)
        s.wait(lambda: held(port) == 0)


def frames_of(client, n):
    while len(client.seen) < n:
        client.more()
    out, client.seen = client.seen[:n], client.seen[n:]
    return out


def websockets(io):
    """An upgrade becomes an extended CONNECT, if the upstream's SETTINGS allow it; 502 if not."""
    def play(c):
        while True:
            r = c.request(False)
            if r.field(":path") == "/no":
                c.answer(r.stream, b"not here", 403)
                continue
            c.head(r.stream, 200, [("sec-websocket-protocol", "chat"), ("sec-websocket-accept", "nonsense")])
            if r.field(":path") == "/brief":
                c.until(lambda: r.body)
                c.data(r.stream, b"that is all", True)
                continue
            c.until(lambda: len(r.body) >= 5)
            c.data(r.stream, b"re: " + r.body)
            c.until(lambda: r.ended or r.reset is not None)
            if r.ended:
                c.data(r.stream, b"bye", True)
    up = Upstream(play, settings=[(CONNECT, 1)])
    head = (b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    with gateway(io, up) as s:
        c = Peer(socket.create_connection(("127.0.0.1", s.port)))
        c.send(head)
        while b"\r\n\r\n" not in c.seen:
            c.more()
        answer, c.seen = c.seen.split(b"\r\n\r\n", 1)
        has(answer, b"HTTP/1.1 101 ", b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", b"Upgrade: websocket",
            b"Sec-WebSocket-Protocol: chat")
        assert b"nonsense" not in answer
        c.send(b"hello")
        same(frames_of(c, 9), b"re: hello")
        r = up.requests[0]
        same(r.fields[:5], [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/ws"),
                            (":authority", "a")])
        assert "sec-websocket-key" not in r.names() and "upgrade" not in r.names() and "connection" not in r.names()
        c.sock.shutdown(socket.SHUT_WR)
        s.wait(lambda: r.ended or r.reset is not None)
        c.sock.close()
        same(raw(s, head.replace(b"/ws", b"/no").replace(b"Connection: ", b"Connection: close, ")).split(b" ")[1], b"403")
        with socket.create_connection(("127.0.0.1", s.port), 60) as b:  # all it says is in one frame, with its end
            b.sendall(head.replace(b"/ws", b"/brief"))
            brief = Peer(b)
            while b"\r\n\r\n" not in brief.seen:
                brief.more()
            brief.seen = brief.seen.split(b"\r\n\r\n", 1)[1]
            b.sendall(b"?")
            same(frames_of(brief, 11), b"that is all")
        # a client of HTTP/2, by the same way both times
        with h2_client.Client(s.port) as two:
            stream = two.ask([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/ws"),
                              (":authority", "a"), ("sec-websocket-version", "13")], end=False)
            two.until(lambda: two.answers[stream].status is not None)
            same((two.answers[stream].status, two.answers[stream].field("sec-websocket-accept")), (200, None))
            two.data(stream, b"again")
            two.until(lambda: two.answers[stream].body == b"re: again")
            two.data(stream, b"", True)
            same(two.answer(stream).body, b"re: againbye")
        same(len(up.conns), 1)
    up = Upstream(play)
    with gateway(io, up) as s:
        has(raw(s, head.replace(b"Connection: ", b"Connection: close, ")), b"502 Bad Gateway")
        s.wait(lambda: "takes no upgrades there (RFC 8441)" in s.text())
        same(up.requests, [])


def behind_proxy(io):
    """A tunnel through a proxy, which the upstream sees nothing of."""
    up = Upstream(always(b"hello"))
    proxy, heads = socket.create_server(("127.0.0.1", 0)), []

    def copy(a, b):
        with contextlib.suppress(OSError):
            while piece := a.recv(65536):
                b.sendall(piece)
        with contextlib.suppress(OSError):
            b.shutdown(socket.SHUT_WR)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                c, head = proxy.accept()[0], b""
                while b"\r\n\r\n" not in head:
                    head += c.recv(1)
                heads.append(head)
                far = socket.create_connection(("127.0.0.1", int(up.dial.rsplit(":")[-1])))
                c.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
                for pair in ((c, far), (far, c)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://us:er@127.0.0.1:{proxy.getsockname()[1]}"
    with gateway(io, up, transport={"network_proxy": {"from": "url", "url": url}}) as s:
        for _ in range(3):
            same(ask(s, Host="site.example"), (200, b"hello"))
    same(len(heads), 1)
    has(heads[0], b"CONNECT %s HTTP/1.1\r\n" % up.dial.encode(), b"Proxy-Authorization: Basic dXM6ZXI=\r\n")
    for r in up.requests:
        same((r.field(":authority"), r.field("proxy-authorization")), ("site.example", None))
    proxy.close()


def upgrade(s, path="/ws"):
    w = Peer(socket.create_connection(("127.0.0.1", s.port), 60))
    w.send(b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % path.encode())
    return w


def overtaken(io):
    """An upgrade that waits for SETTINGS while a request leaves on its connection: numbers go up all the same."""
    got = []

    def play(c):
        first = len(c.upstream.conns) == 1
        if first:
            c.say_settings((MAX_STREAMS, 2))
            held = [c.request(), c.request()]
            c.upstream.gate.wait(30)
            for r in held:
                c.answer(r.stream)
            c.ended()
            return
        c.acks = False  # SETTINGS come first
        r = c.request()
        got.append((r.stream, r.field(":path")))
        c.say_settings((MAX_STREAMS, 2), (CONNECT, 1))
        w = c.request(False)
        got.append((w.stream, w.field(":path")))
        c.head(w.stream)
        c.data(w.stream, b"hello", True)
        c.answer(r.stream, b"quick")
        c.ended()
    up = Upstream(play, settings=None)
    with gateway(io, up) as s:
        held = [threading.Thread(target=ask, args=(s,)) for _ in range(2)]
        for t in held:
            t.start()
        s.wait(lambda: len(up.requests) == 2)
        w = upgrade(s)
        s.wait(lambda: len(up.conns) == 2)
        same(ask(s, path="/quick"), (200, b"quick"))
        while b"hello" not in w.seen:
            w.more()
        same(got, [(3, "/quick"), (5, "/ws")])
        w.sock.close()
        up.gate.set()
        for t in held:
            t.join()


def asked_of(conn):
    return sorted(r.field(":path") for r in conn.requests)


@contextlib.contextmanager
def second_connection(io, second, others):
    """The first one has its two requests and keeps them, so that two may wait for the second's SETTINGS."""
    def play(c):
        n = len(c.upstream.conns)
        if n == 1:
            c.say_settings((MAX_STREAMS, 2))
            held = [c.request(), c.request()]
            c.upstream.gate.wait(30)
            for r in held:
                c.answer(r.stream)
            c.ended()
            return
        (second if n == 2 else others)(c)
    up = Upstream(play, settings=None)
    up.ready = threading.Event()
    with gateway(io, up) as s:
        held = [threading.Thread(target=ask, args=(s,)) for _ in range(2)]
        for t in held:
            t.start()
        s.wait(lambda: len(up.requests) == 2)
        yield s, up
        up.gate.set()
        for t in held:
            t.join()


def accept(c):
    w = c.request(False)
    c.head(w.stream)
    c.data(w.stream, b"hello", True)


def hello(*peers):
    for w in peers:
        while b"hello" not in w.seen:
            w.more()
        w.sock.close()


def fewer_than_wait(io):
    """Upgrades that wait for SETTINGS which allow fewer: the others go elsewhere."""
    def second(c):
        c.upstream.ready.wait(30)
        c.say_settings((MAX_STREAMS, 1), (CONNECT, 1))
        accept(c)
        c.ended()

    def others(c):
        c.say_settings((CONNECT, 1))
        accept(c)
        c.ended()
    with second_connection(io, second, others) as (s, up):
        peers = [upgrade(s, "/a"), upgrade(s, "/b")]
        s.wait(lambda: len(up.conns) == 2 and json.loads(
            s.api("GET", "/reverse_proxy/upstreams")[1])[0]["num_requests"] == 4)
        up.ready.set()
        hello(*peers)
        same(sorted(asked_of(up.conns[1]) + asked_of(up.conns[2])), ["/a", "/b"])


def leaves_first(io):
    """An upgrade that waits for SETTINGS behind which there is a GOAWAY: not another request there."""
    def second(c):
        c.acks = False  # SETTINGS come first
        r = c.request()
        c.send(c.settings_frame([(CONNECT, 1)]) + frame(GOAWAY, 0, 0, struct.pack("!II", r.stream, 0)))
        c.answer(r.stream, b"quick")
        c.ended()

    def others(c):
        c.say_settings((CONNECT, 1))
        accept(c)
        c.ended()
    with second_connection(io, second, others) as (s, up):
        w = upgrade(s)
        s.wait(lambda: len(up.conns) == 2)
        same(ask(s, path="/quick"), (200, b"quick"))
        hello(w)
        same([asked_of(c) for c in up.conns[1:]], [["/quick"], ["/ws"]])


def leaves_unasked(io):
    """Five connections that leave before they are asked do not count among the refusals."""
    def play(c):
        if len(c.upstream.conns) <= 5:
            c.send(c.settings_frame([(CONNECT, 1)]) + frame(GOAWAY, 0, 0, struct.pack("!II", 0, 0)))
        else:
            c.say_settings((CONNECT, 1))
            accept(c)
        c.ended()
    up = Upstream(play, settings=None)
    with gateway(io, up) as s:
        hello(upgrade(s))
        same((len(up.conns), len(up.requests)), (6, 1))


run_cases([
    ("a request and its answer, on one connection", plain),
    ("clients of HTTP/2: streams, HEAD, 204, 103", clients),
    ("bodies of all sizes, with lengths and without", bodies),
    ("requests' bodies keep to the windows", upload_windows),
    ("a slow client holds its window, a quick one gets more", slow_client),
    ("trailers both ways", trailers),
    ("GOAWAY: asked again elsewhere, or answered", goaway),
    ("REFUSED_STREAM: asked again, three times", refused_stream),
    ("an upstream that dies", dies),
    ("a client that leaves cancels its stream", client_leaves),
    ("an answer before the request's end", early_answer),
    ("limits of streams and of connections", many_streams),
    ("an upstream that allows no streams", no_streams),
    ("idle connections, and none kept", keep_alive),
    ("limits of idle connections", idle_limits),
    ("limits of heads are their gateway's", heads),
    ("an end that is not read yet", ended_unread),
    ("one dials and the others wait", waits_for_one),
    ("an upstream that speaks HTTP/1", wrong_protocol),
    ("over a Unix socket", unix_sockets),
    ("through a proxy", behind_proxy),
    ("active health checks", health),
    ("answers and bodies in time", in_time),
    ("over TLS: what handshakes agree on", agreed),
    ("SETTINGS behind the handshake that allow nothing", nothing_at_first),
    ("WebSockets by extended CONNECT", websockets),
    ("a request overtakes an upgrade that waits for SETTINGS", overtaken),
    ("SETTINGS allow fewer requests than wait for them", fewer_than_wait),
    ("an upgrade that waits for SETTINGS, and GOAWAY behind them", leaves_first),
    ("connections that leave before they are asked", leaves_unasked),
    ("SETTINGS that take a window away", shrinks),
    ("many slow clients on one connection", many_slow),
    ("DATA that comes too late, in small frames", late_data),
    ("a connection that is over, and cannot say so", stuck),
], at_once=2)
