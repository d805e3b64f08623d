#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway between a client and upstreams that the tests play themselves, as TAP: exact bytes on
both sides, pools, retries, timeouts, upstreams that die, lie, hang or send garbage, streams, tunnels,
reloads. Usage: gateway_test.py PORTICO."""
import base64
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib

sys.dont_write_bytecode = True
import played  # noqa: E402 (beside this file)
from server import fenced, free_port, same  # noqa: E402

PORTICO = sys.argv[1]
WANTED = sys.argv[2] if len(sys.argv) > 2 else ""
count = failed = 0
SANITIZED = any(b"__%s_init" % s in open(PORTICO, "rb").read() for s in (b"asan", b"tsan"))


class Peer(played.Peer):
    def __init__(self, sock):
        super().__init__(sock, patience=30)

    def rest(self):
        """All until the end."""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.sock.recv(65536):
                self.seen += piece
        out, self.seen = self.seen, b""
        return out

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def close(self):
        self.sock.close()


class Upstream:
    """Listens; each connection is taken by hand, or served by `play(peer)` on a thread."""
    made = []

    def __init__(self, play=None, family=socket.AF_INET, address=("127.0.0.1", 0)):
        self.sock = socket.socket(family)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(address)
        self.sock.listen(64)
        self.sock.settimeout(30)
        self.port = self.sock.getsockname()[1] if family != socket.AF_UNIX else 0
        self.peers, self.play = [], play
        Upstream.made.append(self)
        if play:
            threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        self.sock.settimeout(None)
        while True:
            try:
                peer = Peer(self.sock.accept()[0])
            except OSError:
                return
            self.peers.append(peer)
            threading.Thread(target=self.run, args=(peer,), daemon=True).start()

    def run(self, peer):
        with contextlib.suppress(OSError, EOFError):
            self.play(peer)
        with contextlib.suppress(OSError):
            peer.close()

    def accept(self):
        peer = Peer(self.sock.accept()[0])
        self.peers.append(peer)
        return peer

    def idle(self, seconds=0.3):
        """True when nobody connects."""
        return not select.select([self.sock], [], [], seconds)[0]

    def close(self):
        for s in [self.sock] + [p.sock for p in self.peers]:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


class Server:
    """A portico with one server on one port, whose routes a test sets."""

    def __init__(self, io, workers):
        self.port, self.admin, self.io, self.workers = free_port(), free_port(), io, workers
        self.folder = tempfile.TemporaryDirectory(prefix="portico-gateway-")
        self.log = open(f"{self.folder.name}/log", "w+b")
        file = f"{self.folder.name}/config.json"
        with open(file, "w", encoding="utf-8") as f:
            json.dump(self.document([]), f)
        env = dict(os.environ, PORTICO_IO=io, PORTICO_WORKERS=str(workers))
        self.process = subprocess.Popen([PORTICO, "run", "--config", file], env=env,
                                        stdout=self.log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                # Its admin endpoint is what opens last.
                socket.create_connection(("127.0.0.1", self.admin), 1).close()
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("does not start: " + self.text())
            time.sleep(0.02)

    def document(self, routes, **server):
        return fenced({"admin": {"listen": f"localhost:{self.admin}"},
                       "logging": {"logs": {"default": {"level": "DEBUG"}}},
                       "apps": {"http": {"servers": {"s": {"listen": [f"127.0.0.1:{self.port}"],
                                                           "routes": routes, **server}}}}})

    def load(self, document):
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        c.request("POST", "/load", json.dumps(document),
                  {"Host": f"localhost:{self.admin}", "Content-Type": "application/json"})
        answer = c.getresponse()
        text = answer.read().decode()
        c.close()
        return answer.status, text

    def use(self, *upstreams, before=(), after=(), server=None, **gateway):
        dials = [{"dial": u if isinstance(u, str) else f"127.0.0.1:{u.port}"} for u in upstreams]
        handler = {"handler": "reverse_proxy", "upstreams": dials, **gateway}
        status, text = self.load(self.document([{"handle": [*before, handler, *after]}],
                                               **(server or {})))
        assert status == 200, text

    def refuses(self, **gateway):
        routes = [{"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": "localhost:1"}],
                               **gateway}]}]
        status, text = self.load(self.document(routes))
        same(status, 400)
        return text

    def client(self):
        return Peer(socket.create_connection(("127.0.0.1", self.port), 60))

    def get(self, path="/", method="GET", body=None, **fields):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            c.request(method, path, body, {k.replace("_", "-"): v for k, v in fields.items()})
            answer = c.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            c.close()

    def text(self):
        self.log.flush()
        with open(f"{self.folder.name}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def logged(self, text):
        end = time.monotonic() + 20
        while text not in self.text():
            assert time.monotonic() < end, f"{text!r} is not in the log:\n" + self.text()[-3000:]
            time.sleep(0.02)

    def metric(self, name):
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        c.request("GET", "/metrics", headers={"Host": f"localhost:{self.admin}"})
        text = c.getresponse().read().decode()
        c.close()
        return int(re.search(rf"^portico_{name} (\d+)$", text, re.M)[1])

    def await_metric(self, name, right):
        """Until what is counted is as it should be: sooner or later, by how busy the machine is."""
        end = time.monotonic() + 20
        while not right(value := self.metric(name)):
            assert time.monotonic() < end, f"{name}: {value}"
            time.sleep(0.02)

    def server_pids(self):
        kids = open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                    encoding="ascii").read().split()
        return [int(k) for k in kids]

    def memory(self):
        """Kilobytes of anonymous memory of the server process."""
        with open(f"/proc/{self.server_pids()[0]}/status", encoding="ascii") as f:
            return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("did not end: " + self.text()[-3000:])
        text = self.text()
        self.log.close()
        self.folder.cleanup()
        assert "Sanitizer" not in text and "runtime error" not in text, text[-6000:]
        assert "assertion" not in text.lower(), text[-3000:]
        assert status == 0, (status, text[-3000:])


def answer(body, extra=b""):
    return b"HTTP/1.1 200 OK\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def undated(head):
    return re.sub(rb"Date: [^\r]*\r\n", b"", head)


def echo(peer):
    """Answers every request with what it asked for, and its body."""
    while True:
        head = peer.head()
        m = re.search(rb"Content-Length: (\d+)", head)
        body = peer.take(int(m.group(1))) if m else b""
        peer.send(answer(head.split(b" ")[1] + b" " + body))


# ---- exact bytes -----------------------------------------------------------

def exact(s):
    up = Upstream()
    s.use(up)
    c = s.client()
    c.send(b"GET /a%20b?x=1 HTTP/1.1\r\nHost: site.example\r\nConnection: keep-alive, X-Secret\r\n"
           b"X-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers, deflate\r\nProxy-Authorization: x\r\n"
           b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nAccept: */*\r\n\r\n")
    u = up.accept()
    same(u.head(), b"GET /a%20b?x=1 HTTP/1.1\r\nHost: site.example\r\nX-Forwarded-For: 127.0.0.1\r\n"
         b"X-Forwarded-Proto: http\r\nAccept: */*\r\nTE: trailers\r\n"
         b"X-Forwarded-Host: site.example\r\nVia: 1.1 portico\r\n\r\n")
    u.send(b"HTTP/1.1 200 Fine\r\nServer: other\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
           b"Keep-Alive: 1\r\nX-A: 1\r\nX-A: 2\r\nDate: then\r\nContent-Length: 5\r\n\r\nhello")
    same(c.head() + c.take(5), b"HTTP/1.1 200 OK\r\nVia: 1.1 portico\r\nServer: other\r\nX-A: 1\r\n"
         b"X-A: 2\r\nDate: then\r\nContent-Length: 5\r\n\r\nhello")
    c.send(b"POST /p HTTP/1.1\r\nHost: h\r\nUser-Agent: t\r\nContent-Length: 3\r\n\r\nabc")
    same(u.until(b"abc"), b"POST /p HTTP/1.1\r\nHost: h\r\nUser-Agent: t\r\n"
         b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
         b"Via: 1.1 portico\r\nContent-Length: 3\r\n\r\nabc")
    u.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    same(undated(c.head()), b"HTTP/1.1 204 No Content\r\nVia: 1.1 portico\r\n\r\n")
    c.send(b"POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    assert u.head().endswith(b"Content-Length: 0\r\n\r\n")
    u.send(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n")
    same(undated(c.head()),
         b"HTTP/1.1 304 Not Modified\r\nVia: 1.1 portico\r\nETag: \"x\"\r\n\r\n")
    c.send(b"HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n")
    assert u.head().startswith(b"HEAD /h HTTP/1.1\r\n")
    u.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
    same(undated(c.head()), b"HTTP/1.1 200 OK\r\nVia: 1.1 portico\r\nContent-Length: 12345\r\n\r\n")
    c.send(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")  # asks about the server itself
    assert c.head().startswith(b"HTTP/1.1 200 OK\r\n")
    assert up.idle(0.1), "another connection"
    c.close()


def streams(s):
    """Chunked down with trailers, close-delimited, interim answers, HTTP/1.0 clients."""
    up = Upstream()
    s.use(up)
    c = s.client()
    c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    u = up.accept()
    u.head()
    u.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
           b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n")
    same(c.head(), b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    same(undated(c.head()), b"HTTP/1.1 200 OK\r\nVia: 1.1 portico\r\nTrailer: X-T\r\n"
         b"Transfer-Encoding: chunked\r\n\r\n")
    u.send(b"3\r\nabc\r\n")
    same(c.take(8), b"3\r\nabc\r\n")
    u.send(b"1\r\nd\r\n1;x=y\r\ne\r\n0\r\n")
    same(c.until(b"de\r\n"), b"2\r\nde\r\n")
    u.send(b"X-T: v\r\nContent-Length: 5\r\n\r\n")
    same(c.head(), b"0\r\nX-T: v\r\n\r\n")
    # a whole chunked answer in one read, on the same connections
    c.send(b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    u.head()
    u.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    c.head()
    same(c.until(b"0\r\n\r\n"), b"5\r\nabcde\r\n0\r\n\r\n")
    # the end of the connection ends the answer
    c.send(b"GET /3 HTTP/1.1\r\nHost: h\r\n\r\n")
    u.head()
    u.send(b"HTTP/1.1 200 OK\r\n\r\nfirst")
    c.head()
    same(c.until(b"first\r\n"), b"5\r\nfirst\r\n")
    u.send(b"second")
    u.close()
    same(c.until(b"0\r\n\r\n"), b"6\r\nsecond\r\n0\r\n\r\n")
    # HTTP/1.0 has no chunks
    old = s.client()
    old.send(b"GET /4 HTTP/1.0\r\n\r\n")
    u = up.accept()
    head = u.head()
    assert b"Host: 127.0.0.1:%d\r\n" % up.port in head and b"Via: 1.0 portico" in head, head
    u.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    same(undated(old.rest()),
         b"HTTP/1.1 200 OK\r\nVia: 1.1 portico\r\nConnection: close\r\n\r\nabc")


def uploads(s):
    """Bodies by length and in chunks, trailers up, 100 Continue, an early answer."""
    up = Upstream()
    s.use(up)
    c = s.client()
    c.send(b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n")
    u = up.accept()
    head = u.head()
    assert b"Transfer-Encoding: chunked\r\n" in head and b"Content-Length" not in head, head
    c.send(b"3\r\nabc\r\n")
    same(u.take(8), b"3\r\nabc\r\n")
    c.send(b"2\r\nde\r\n0\r\nX-T: v\r\n\r\n")
    same(u.until(b"\r\n\r\n"), b"2\r\nde\r\n0\r\nX-T: v\r\n\r\n")
    u.send(answer(b"ok"))
    same(c.head()[:15] + c.take(2), b"HTTP/1.1 200 OKok")
    c.send(b"PUT /b HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert b"Expect: 100-continue\r\n" in u.head()
    same(c.head(), b"HTTP/1.1 100 Continue\r\n\r\n")
    c.send(b"hello")
    same(u.take(5), b"hello")
    u.send(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"ok"))
    same(c.head()[:15] + c.take(2), b"HTTP/1.1 200 OKok")
    # the answer comes before the body does, and the body is not waited for
    c.send(b"PUT /c HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nabc")
    u.head()
    same(u.take(3), b"abc")
    u.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    assert c.head().startswith(b"HTTP/1.1 413 ")
    same(c.take(2), b"no")
    assert u.ended()
    c.close()


def continues(s):
    """With expect_continue_timeout the body waits for the upstream's word."""
    up = Upstream()
    s.use(up, transport={"protocol": "http", "expect_continue_timeout": "5s"})
    c = s.client()
    ask = b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    c.send(ask)
    u = up.accept()
    u.head()
    assert not select.select([c.sock], [], [], 0.2)[0]
    u.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    same(c.head(), b"HTTP/1.1 100 Continue\r\n\r\n")
    c.send(b"hello")
    same(u.take(5), b"hello")
    u.send(answer(b"ok"))
    c.head()
    c.take(2)
    c.send(ask)
    u.head()
    u.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
    assert c.head().startswith(b"HTTP/1.1 401 ")
    assert u.ended(), "a link whose body was never sent is not kept"


def pools(s):
    """Links are kept, closed by their upstream, limited, timed out."""
    up = Upstream()
    s.use(up, transport={"protocol": "http",
                         "keep_alive": {"max_idle_conns_per_host": 1, "idle_timeout": "400ms"}})
    c = [s.client() for _ in range(6)]
    u = []
    for x in c:
        x.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        u.append(up.accept())
        u[-1].head()
    for x, y in zip(c, u):
        y.send(answer(b"a"))
        x.head()
        x.take(1)
    assert all(y.ended() for y in u)  # one per worker stays for a while, none for longer than idle_timeout
    s.use(up)
    # one that the upstream closes is dropped at once, and a new one is opened
    c[0].send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    first = up.accept()
    first.head()
    first.send(answer(b"b"))
    c[0].head()
    first.sock.shutdown(socket.SHUT_WR)
    assert first.ended()  # a POST that meets the end on its way is not sent again
    c[0].send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
    second = up.accept()
    second.head()
    second.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nc")
    c[0].until(b"\r\n\r\nc")
    assert second.ended()
    # bytes that nobody asked for end it, too
    c[0].send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    third = up.accept()
    third.head()
    third.send(answer(b"d") + b"HTTP/1.1 200 OK\r\n")
    c[0].until(b"\r\n\r\nd")
    assert third.ended()
    s.use(up, transport={"protocol": "http", "keep_alive": {"enabled": False}})
    for _ in range(2):
        c[0].send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        u = up.accept()
        assert b"Connection: close\r\n" in u.head()
        u.send(answer(b"e"))
        c[0].until(b"\r\n\r\ne")
        assert u.ended()


def surplus(s):
    """What comes behind an answer is never taken for the next one, also where a read ended between them."""
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npoison!"
    for total in (100, 4096, 16384, 16384 + 32768, 32768, 32768 * 3):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        body = b"x" * (total - len(head % total))

        def play(peer):
            while peer.head():
                peer.send(head % len(body) + body + poison)

        s.use(Upstream(play))
        for _ in range(5):
            c = s.client()
            c.send(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            got = c.rest()
            same((got.count(b"x") >= 2 * len(body), b"poison!" in got), (True, False))
            c.close()


def unkept(s):
    """Without keep-alive a connection that another gateway has kept is not used either."""
    up = Upstream(echo)
    off = {"transport": {"protocol": "http", "keep_alive": {"enabled": False}}}
    for more in ({}, off):
        s.use(up, **more)
        for _ in range(4):
            same(s.get("/x")[0], 200)
        count_of = len(up.peers)
        if not more:
            assert count_of <= 2, count_of
    same(count_of >= 5, True)


def stale(s):
    """A kept link that closes under a request: again on a fresh one, where that is safe."""
    up = Upstream()
    s.use(up)
    c = s.client()

    def warm():
        c.send(b"GET /warm HTTP/1.1\r\nHost: h\r\n\r\n")
        u = up.accept()
        u.head()
        u.send(answer(b"w"))
        c.until(b"\r\n\r\nw")
        return u

    for method, body in ((b"GET", b""), (b"PUT", b"abc"), (b"DELETE", b"")):
        u = warm()
        c.send(method + b" /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        u.head()
        u.close()  # without a byte of an answer
        u = up.accept()
        assert u.head().startswith(method + b" /x ")
        same(u.take(len(body)), body)
        u.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx")
        c.until(b"\r\n\r\nx")
    u = warm()
    c.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
    u.head()
    u.close()
    assert c.head().startswith(b"HTTP/1.1 502 ")
    assert up.idle()
    u = warm()
    c.send(b"POST /x HTTP/1.1\r\nHost: h\r\nIdempotency-Key: 1\r\nContent-Length: 3\r\n\r\nabc")
    u.head()
    u.close()
    u = up.accept()
    u.until(b"abc")
    u.close()  # a fresh one that closes is the upstream's fault
    assert c.head().startswith(b"HTTP/1.1 502 ")


def errors(s):
    """502, 503, 504, with lines that say why; handle_errors sees them."""
    dead = free_port()
    s.use(f"127.0.0.1:{dead}")
    same(s.get()[0], 502)
    s.logged(f"dial tcp 127.0.0.1:{dead}: connect: connection refused")
    s.use()
    same(s.get()[0], 503)
    s.logged("no upstreams available")
    s.use("no-such-host.invalid:80")
    same(s.get()[0], 502)
    s.logged("lookup no-such-host.invalid")
    up = Upstream()
    s.use(up, transport={"protocol": "http", "response_header_timeout": "200ms"})
    start = time.monotonic()
    same(s.get()[0], 504)
    assert time.monotonic() - start < 15
    s.logged("timeout awaiting response headers")
    s.use("unix//nonexistent/socket")
    same(s.get()[0], 502)
    document = s.document([{"handle": [{"handler": "reverse_proxy",
                                        "upstreams": [{"dial": f"127.0.0.1:{dead}"}]}]}],
                          errors={"routes": [{"handle": [{
                              "handler": "static_response",
                              "body": "{http.error.status_code} {http.reverse_proxy.upstream.address}"}]}]})
    same(s.load(document)[0], 200)
    same(s.get()[2], b"502 127.0.0.1:%d" % dead)


GARBAGE = [b"", b"\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTP/1.1 200 OK\r\n\r\n", b"HTTP/2.0 200 OK\r\n\r\n",
           b"HTTP/1.1 99 Low\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"SSH-2.0-OpenSSH\r\n",
           b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
           b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab",
           b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
           b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na",
           b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
           b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
           b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
           b"HTTP/1.1 200 OK\r\nA: " + b"x" * 40000 + b"\r\n\r\n",
           b"HTTP/1.1 103 Early\r\n\r\n" * 40]


def garbage(s):
    lines = list(GARBAGE)

    def play(peer):
        peer.head()
        peer.send(lines[0])
        peer.close()

    up = Upstream(play)
    s.use(up, transport={"protocol": "http", "max_response_header_size": 32768})
    while lines:
        c = s.client()
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        got = c.head()
        while got.startswith(b"HTTP/1.1 103"):
            got = c.head()
        assert got.startswith(b"HTTP/1.1 502 "), (lines[0][:60], got)
        c.close()
        lines.pop(0)


def lies(s):
    """Lengths that are not kept, chunks that break: a cut, never a clean end."""
    play_now = [b""]

    def play(peer):
        peer.head()
        peer.send(play_now[0])
        peer.close()

    up = Upstream(play)
    s.use(up)
    for text, body in ((b"Content-Length: 10\r\n\r\nabc", b"abc"),
                       (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"3\r\nabc\r\n"),
                       (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", b"3\r\nabc\r\n"),
                       (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", b"3\r\nabc\r\n"),
                       (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nbad trailer\r\n\r\n", b"")):
        play_now[0] = b"HTTP/1.1 200 OK\r\n" + text
        c = s.client()
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
        got = c.rest()
        assert got.count(b"HTTP/1.1 200") <= 1 and not got.endswith(b"0\r\n\r\n"), (text, got)
        if got:
            same(got.split(b"\r\n\r\n", 1)[1], body)
        c.close()
    s.logged("aborting with incomplete response")
    # more than it said: the answer is right, the link is not used again
    play_now[0] = answer(b"abc") + b"defghi"
    same(s.get()[2], b"abc")
    same(s.get()[2], b"abc")


def dies(s):
    """An upstream that resets or closes at each byte of its answer."""
    whole = b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    cut, how = [0], ["close"]

    def play(peer):
        peer.head()
        peer.send(whole[:cut[0]])
        peer.reset() if how[0] == "reset" else peer.close()

    up = Upstream(play)
    s.use(up)
    for how[0] in ("close", "reset"):
        for cut[0] in range(0, len(whole) + 1, 1 if how[0] == "close" else 7):
            c = s.client()
            c.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            got = c.rest()
            if cut[0] == len(whole) and how[0] == "close":
                assert got.endswith(b"\r\n3\r\nabc\r\n0\r\n\r\n"), got
            elif cut[0] < len(whole) - 30:
                assert got.startswith(b"HTTP/1.1 502 ") or got.startswith(b"HTTP/1.1 200") or not got
            if cut[0] < len(whole):
                assert not got.endswith(b"0\r\n\r\n"), (cut[0], got)
            c.close()


def retries(s):
    """Dial errors are tried again always, others for GET; try_duration; retry_match."""
    dead, up = free_port(), Upstream(echo)
    policy = {"selection_policy": {"policy": "round_robin"}}
    for method in ("GET", "POST"):
        s.use(f"127.0.0.1:{dead}", up, load_balancing={**policy, "retries": 2})
        for _ in range(4):
            same(s.get("/x", method, b"body" if method == "POST" else None)[0], 200)

    def broken(peer):
        peer.head()
        peer.close()

    bad = Upstream(broken)
    s.use(bad, up, load_balancing={**policy, "retries": 2})
    same({s.get("/x")[0] for _ in range(4)}, {200})
    same({s.get("/x", "POST", b"b")[0] for _ in range(4)}, {200, 502})
    s.use(bad, up, load_balancing={**policy, "retries": 2, "retry_match": [{"method": ["POST"]}]})
    same([s.get("/x", "POST", b"body") for _ in range(4)][0][2], b"/x body")
    same({s.get("/x", "POST", b"b")[0] for _ in range(4)}, {200})
    same({s.get("/x")[0] for _ in range(4)}, {200, 502})
    late = free_port()
    s.use(f"127.0.0.1:{late}", load_balancing={"try_duration": "20s", "try_interval": "50ms"})
    result = []
    t = threading.Thread(target=lambda: result.append(s.get("/late")))
    t.start()
    time.sleep(0.4)
    Upstream(echo, address=("127.0.0.1", late))
    t.join()
    same(result[0][2], b"/late ")
    s.use(f"127.0.0.1:{dead}", load_balancing={"try_duration": "300ms", "try_interval": "100ms"})
    start = time.monotonic()
    same(s.get()[0], 502)
    assert 0.25 < time.monotonic() - start < 15
    tried, port = [], free_port()
    s.use(f"127.0.0.1:{port}", load_balancing={"try_duration": "60s", "try_interval": "100ms"})
    c = s.client()  # who has left is not tried for
    c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    s.await_metric("exchanges", lambda n: n == 1)
    c.close()
    s.await_metric("exchanges", lambda n: n == 0)
    Upstream(lambda peer: tried.append(peer.head()), address=("127.0.0.1", port))
    time.sleep(0.4)
    same(tried, [])


def answers_retried(s):
    """retry_match with an expression: what an upstream answered may send the request to another one."""
    seen = []

    def refuse(peer):
        while head := peer.head():
            m = re.search(rb"Content-Length: (\d+)", head)
            seen.append(head.split(b" ")[0] + b" " + (peer.take(int(m.group(1))) if m else b""))
            peer.send(b"HTTP/1.1 503 No\r\nX-Again: yes\r\nContent-Length: 3\r\n\r\nbad")

    bad, up = Upstream(refuse), Upstream(echo)

    def use(expression, *ups, retries=1, more=None, **gateway):
        s.use(*(ups or (bad, up)), load_balancing={
            "selection_policy": {"policy": "round_robin"}, "retries": retries,
            "retry_match": [{"expression": expression, **(more or {})}]}, **gateway)

    for expression in ("{http.reverse_proxy.status_code} in [502, 503]",
                       "{http.reverse_proxy.status_code} == 503",
                       "{http.reverse_proxy.header.X-Again} == 'yes'",
                       "{http.reverse_proxy.status_code} >= 500 && method('GET', 'POST')"):
        use(expression, health_checks={"passive": {"fail_duration": "10s"}})
        seen.clear()
        same([s.get("/x")[0::2] for _ in range(4)], [(200, b"/x ")] * 4)
        same([s.get("/x", "POST", b"b")[0::2] for _ in range(4)], [(200, b"/x b")] * 4)
        assert len(seen) > 4, seen  # an answer is no failure: it was asked each time that its turn came
    use("{http.reverse_proxy.status_code} == 503", more={"method": ["GET"]})
    same({s.get("/x", "POST", b"b")[0::2] for _ in range(4)}, {(200, b"/x b"), (503, b"bad")})
    use("{http.reverse_proxy.header.X-Again} == 'no'")
    same({s.get("/x")[0::2] for _ in range(4)}, {(200, b"/x "), (503, b"bad")})
    for tries in (0, 2):  # the last one's status is the error's
        use("{http.reverse_proxy.status_code} == 503", bad, retries=tries)
        seen.clear()
        status, _, body = s.get("/x", "POST", b"b")
        same((status, body, seen), (503, b"", [b"POST b"] * (tries + 1)))
        s.logged("upstream response matched retry_match (status 503)")
    use("{http.reverse_proxy.status_code} == 503", bad)
    same(s.get("/x", "POST", b"b" * 100000)[0::2], (503, b"bad"))  # a body that is gone
    broken = Upstream(lambda peer: peer.head() and None)
    use("{http.reverse_proxy.is_transport_error} == true", broken, up, retries=2)
    same({s.get("/x", "POST", b"b")[0] for _ in range(4)}, {200})
    use("{http.reverse_proxy.is_transport_error} || {http.reverse_proxy.header.X-Again} == 'yes'", broken, bad, up,
        retries=3)
    same({s.get("/x", "POST", b"b")[0] for _ in range(4)}, {200})
    use("{http.reverse_proxy.status_code} == 503", broken, up, retries=2)
    same({s.get("/x")[0] for _ in range(4)}, {200, 502})
    use("{http.reverse_proxy.status_code} / 0 == 1", bad)
    same(s.get("/x")[0::2], (503, b"bad"))
    s.logged("error matching request for retry")


def verbose(s):
    """At the level debug a line for each attempt has both heads, without what is secret; with
    verbose_logs each step has one."""
    def play(peer):
        while peer.head():
            peer.send(b"HTTP/1.1 200 OK\r\nSet-Cookie: c=secret1\r\nX-Up: a\r\nX-Up: b\r\n"
                      b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            time.sleep(0.05)
            peer.send(b"6\r\n world\r\n0\r\n\r\n")

    up, dead = Upstream(play), free_port()
    steps = ["retrying", "wrote header", "writing to downstream", "wrote to downstream",
             "waiting to read from upstream", "flushing", "response finalized"]

    def lines(path):
        """Those that are about it, by what they say."""
        end, out = time.monotonic() + 20, {}
        while sum("status" in e for e in out.get("upstream roundtrip", [])) < 2 or \
                (path == "/loud" and len(out.get("response finalized", [])) < 2):
            assert time.monotonic() < end, out
            time.sleep(0.05)
            out = {}
            for line in s.text().splitlines():
                if f'"uri":"{path}"' in line and '"http.handlers.reverse_proxy"' in line:
                    line = json.loads(line)
                    out.setdefault(line["msg"], []).append(line)
        return out

    def ask(path, **server):
        s.use(f"127.0.0.1:{dead}", up, verbose_logs=path != "/quiet", server=server,
              load_balancing={"retries": 1, "selection_policy": {"policy": "round_robin"}},
              headers={"request": {"set": {"X-Set": ["by me"]}}})
        for _ in range(2):
            same(s.get(path, Cookie="secret2", Authorization="secret3", X_Open="seen")[2], b"hello world")
        return lines(path)

    got = ask("/loud")
    for step in steps:
        assert step in got, (step, sorted(got))
        assert all(e["upstream"] and e["request"]["method"] == "GET" for e in got[step]), got[step]
    totals = [e["written_total"] for e in got["wrote to downstream"]]  # two threads' lines, in any order
    assert set(totals) <= {5, 11} and totals.count(11) == 2, totals  # on a busy machine both pieces come as one
    assert "error" in got["retrying"][0], got["retrying"]
    failed = [e for e in got["upstream roundtrip"] if "error" in e][0]
    assert "connection refused" in failed["error"], failed
    line = [e for e in got["upstream roundtrip"] if "status" in e][0]
    same((line["status"], line["headers"]["X-Up"], line["headers"]["Set-Cookie"]), (200, ["a", "b"], ["REDACTED"]))
    sent = line["request"]["headers"]
    same((sent["Cookie"], sent["Authorization"], sent["X-Open"], sent["X-Set"], sent["Via"]),
         (["REDACTED"], ["REDACTED"], ["seen"], ["by me"], ["1.1 portico"]))
    same((line["request"]["client_ip"], line["request"]["host"]), ("127.0.0.1", f"127.0.0.1:{s.port}"))
    got = ask("/quiet")
    assert "upstream roundtrip" in got and not set(steps) & set(got), sorted(got)
    assert not re.search("secret[0-9]", s.text())
    line = ask("/open", logs={"should_log_credentials": True})["upstream roundtrip"]
    line = [e for e in line if "status" in e][0]
    same((line["request"]["headers"]["Cookie"], line["headers"]["Set-Cookie"]), (["secret2"], ["c=secret1"]))


def health(s):
    """Failures mark an upstream for a while; statuses and latencies count; max_requests."""
    hits = {}

    def server(name, head):
        def play(peer):
            while peer.head():
                hits[name] = hits.get(name, 0) + 1
                peer.send(head)
        return Upstream(play)

    good = server("good", answer(b"good"))
    bad = server("bad", b"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nbad")
    s.use(bad, good, load_balancing={"selection_policy": {"policy": "first"}},
          health_checks={"passive": {"fail_duration": "60s", "max_fails": 2, "unhealthy_status": [5]}})
    same([s.get()[2] for _ in range(5)], [b"bad", b"bad", b"good", b"good", b"good"])
    bad = server("bad", b"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nbad")
    s.use(bad, good, load_balancing={"selection_policy": {"policy": "first"}},
          health_checks={"passive": {"fail_duration": "1s", "unhealthy_status": [5]}})
    for body in (b"bad", b"good", b"bad"):
        end = time.monotonic() + 20
        while s.get()[2] != body:
            assert time.monotonic() < end, body
    dead = free_port()
    s.use(f"127.0.0.1:{dead}", health_checks={"passive": {"fail_duration": "60s"}})
    same([s.get()[0] for _ in range(3)], [502, 503, 503])
    hold = Upstream()
    s.use(hold, health_checks={"passive": {"unhealthy_request_count": 1}})
    c = s.client()
    c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    u = hold.accept()
    u.head()
    same(s.get()[0], 503)
    u.send(answer(b"x"))
    c.until(b"\r\n\r\nx")


def policies(s):
    ups = [Upstream(echo) for _ in range(3)]
    names = [f"127.0.0.1:{u.port}".encode() for u in ups]
    seen = {"handler": "headers", "response": {"set": {"X-Up": ["{http.reverse_proxy.upstream.hostport}"]},
                                              "deferred": True}}

    def chosen(n, policy, path="/", **fields):
        s.use(*ups, before=[seen], load_balancing={"selection_policy": policy})
        return [s.get(path, **fields)[1]["x-up"].encode() for _ in range(n)]

    same(set(chosen(6, {"policy": "first"})), {names[0]})
    got = chosen(6, {"policy": "round_robin"})
    same(sorted(got), sorted(names * 2))
    assert len(set(chosen(40, {"policy": "random"}))) == 3
    assert len(set(chosen(40, {"policy": "random_choose", "choose": 2}))) == 3
    assert len(set(chosen(40, {"policy": "least_conn"}))) == 3
    got = chosen(12, {"policy": "weighted_round_robin", "weights": [3, 1, 0]})
    same([got.count(n) for n in names], [9, 3, 0])
    for policy in ("ip_hash", "client_ip_hash", "uri_hash"):
        same(len(set(chosen(5, {"policy": policy}))), 1)
    assert len({chosen(1, {"policy": "uri_hash"}, f"/{i}")[0] for i in range(12)}) > 1
    same(len(set(chosen(5, {"policy": "header", "field": "X-Id"}, X_Id="a"))), 1)
    assert len(set(chosen(30, {"policy": "header", "field": "X-Id"}))) > 1
    same(set(chosen(5, {"policy": "header", "field": "X-Id", "fallback": {"policy": "first"}})), {names[0]})
    same(len(set(chosen(5, {"policy": "query", "key": "q"}, "/?q=1"))), 1)
    rewritten = {"handler": "headers", "request": {"set": {"Host": ["{http.request.header.X-To}"]}}}
    s.use(*ups, before=[seen, rewritten], load_balancing={"selection_policy": {"policy": "header", "field": "Host"}})
    hosts = [{s.get("/", X_To=f"{n}.example")[1]["x-up"] for _ in range(3)} for n in range(12)]
    same({len(h) for h in hosts}, {1})
    assert len(set().union(*hosts)) > 1, hosts
    s.use(*ups, before=[seen], load_balancing={"selection_policy": {
        "policy": "cookie", "name": "lb", "secret": "s", "max_age": "1h"}})
    status, fields, _ = s.get()
    cookie = fields["set-cookie"]
    assert re.fullmatch(r"lb=[0-9a-f]{64}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax", cookie), cookie
    for _ in range(5):
        _, again, _ = s.get(Cookie="a=b; " + cookie.split(";")[0])
        same((again["x-up"], again.get("set-cookie")), (fields["x-up"], None))
    _, again, _ = s.get(Cookie="lb=" + "0" * 64)
    assert "set-cookie" in again


def forwarded(s):
    """Trusted proxies keep what they said; header changes up and down; rewrite; Host."""
    heads = []

    def play(peer):
        while True:
            heads.append(peer.head())
            peer.send(answer(b"ok", b"X-Up: 1\r\nX-Gone: 1\r\nSet-Cookie: a=b; Domain=in.ner\r\n"))

    up = Upstream(play)
    s.use(up, trusted_proxies=["127.0.0.0/8"])
    s.get(X_Forwarded_For="9.9.9.9", X_Forwarded_Proto="https", X_Forwarded_Host="out.er")
    for line in (b"X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n", b"X-Forwarded-Proto: https\r\n",
                 b"X-Forwarded-Host: out.er\r\n"):
        assert line in heads[-1], heads[-1]
    s.use(up, server={"trusted_proxies": {"source": "static", "ranges": ["127.0.0.1"]}})
    s.get(X_Forwarded_For="9.9.9.9")
    assert b"X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n" in heads[-1], heads[-1]
    s.use(up, headers={
        "request": {"set": {"Host": ["{http.reverse_proxy.upstream.hostport}"], "X-New": ["{http.request.uri}"]},
                    "delete": ["Accept-*"]},
        "response": {"delete": ["X-Gone"], "set": {"X-Status": ["{http.reverse_proxy.status_code}"]},
                     "replace": {"Set-Cookie": [{"search": "in.ner", "replace": "out.er"}]}}},
          rewrite={"method": "GET", "strip_path_prefix": "/api"},
          after=[])
    status, fields, body = s.get("/api/x?y", "POST", b"dropped")
    assert heads[-1].startswith(b"GET /x?y HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % up.port), heads[-1]
    assert b"X-New: /api/x?y\r\n" in heads[-1] and b"Accept-Encoding" not in heads[-1], heads[-1]
    assert b"Content-Length" not in heads[-1], heads[-1]
    same((fields["x-status"], fields.get("x-gone"), fields["set-cookie"]), ("200", None, "a=b; Domain=out.er"))
    # a value from the request cannot split what goes up
    s.use(up, headers={"request": {"set": {"X-Q": ["{http.request.uri.query.q}"]}}})
    s.get("/?q=a%0d%0aX-Evil:%201")
    assert b"\nX-Evil" not in heads[-1], heads[-1]
    # nor can a path that lost its slash become another server's address
    s.use(up, rewrite={"strip_path_prefix": "/api"})
    s.get("/apihttp://inner/x")
    assert heads[-1].startswith(b"GET /http:/inner/x HTTP/1.1\r\n"), heads[-1]
    s.get("/api?x")
    assert heads[-1].startswith(b"GET /?x HTTP/1.1\r\n"), heads[-1]
    # nor one that another handler has set before
    s.use(up, before=[{"handler": "headers", "request": {
        "set": {"X-P": ["{http.request.uri.path}"], "Host": ["{http.request.uri.query.h}"]}}}])
    s.get("/a%0d%0aX-Evil:%201?h=b%0d%0aX-Evil:2")
    assert b"\nX-Evil" not in heads[-1], heads[-1]


def handles(s):
    """handle_response: routes, status codes, copy_response, copy_response_headers; X-Accel."""
    def play(peer):
        while True:
            path = peer.head().split(b" ")[1]
            if path == b"/deny":
                peer.send(b"HTTP/1.1 403 No\r\nX-Why: because\r\nContent-Length: 4\r\n\r\nbody")
            elif path == b"/teapot":
                peer.send(b"HTTP/1.1 418 No\r\nContent-Length: 4\r\n\r\nbody")
            else:
                peer.send(answer(b"fine", b"X-Accel: 1\r\n" if path == b"/accel" else b""))

    up = Upstream(play)
    text = "{http.reverse_proxy.status_code} {http.reverse_proxy.status_text} {http.reverse_proxy.header.X-Why}"
    s.use(up, handle_response=[
        {"match": {"status_code": [403]}, "routes": [{"handle": [
            {"handler": "copy_response_headers", "include": ["X-Why"]},
            {"handler": "static_response", "status_code": 401, "body": text}]}]},
        {"match": {"status_code": [418]}, "status_code": "202"},
        {"match": {"headers": {"X-Accel": ["*"]}}, "routes": [{"handle": [
            {"handler": "headers", "response": {"set": {"X-Mine": ["1"]}}},
            {"handler": "copy_response", "status_code": 203}]}]}])
    status, fields, body = s.get("/deny")
    same((status, body, fields["x-why"]), (401, b"403 403 Forbidden because", "because"))
    same(s.get("/teapot")[::2], (202, b"body"))
    status, fields, body = s.get("/accel")
    same((status, body, fields["x-mine"], fields["x-accel"]), (203, b"fine", "1", "1"))
    same(s.get("/other")[::2], (200, b"fine"))
    s.use(up, handle_response=[{"match": {"status_code": [2]}, "routes": []}],
          after=[{"handler": "static_response", "body": "behind"}])
    same(s.get("/")[2], b"behind")
    same(s.get("/deny")[2], b"body")


def falls_back(s):
    """Another gateway behind one that failed or said no: a body in memory goes up again, one that is
    gone is told, and never announced to a server that will wait for it."""
    def no(peer):
        peer.head()
        peer.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        peer.rest()

    def second(peer):
        seen.append(peer.head())
        peer.send(answer(b"early"))
        peer.rest()

    seen = []
    fallback = {"handler": "reverse_proxy",
                "upstreams": [{"dial": f"127.0.0.1:{Upstream(echo).port}"}]}
    routes = [{"handle": [fallback]}]
    handle = [{"match": {"status_code": [5]}, "routes": routes}]
    s.use(Upstream(no), handle_response=handle)
    same(s.get("/a", "POST", b"small")[::2], (200, b"/a small"))
    s.use(Upstream(no), handle_response=handle, request_buffers=100000)
    same(s.get("/a", "POST", b"x" * 20000)[::2], (200, b"/a " + b"x" * 20000))
    s.use("127.0.0.1:1", server={"errors": {"routes": routes}})
    same(s.get("/a", "POST", b"small")[::2], (200, b"/a small"))
    fallback["upstreams"][0]["dial"] = f"127.0.0.1:{Upstream(second).port}"
    s.use(Upstream(no), handle_response=handle)
    for framing, begin in ((b"Content-Length: 900000", b"x" * 3000),
                           (b"Transfer-Encoding: chunked", b"bb8\r\n" + b"x" * 3000 + b"\r\n")):
        c = s.client()
        c.send(b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n\r\n" + begin)
        assert c.head().startswith(b"HTTP/1.1 502 "), "a rest was sent as a whole"
        c.close()
    same(seen, [])
    # the same before a byte of the body was read: it is the second one's
    s.use(Upstream(no), handle_response=handle)
    c = s.client()
    c.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n")
    assert c.head().startswith(b"HTTP/1.1 200 "), seen
    assert b"Content-Length: 900000\r\n" in seen[0], seen
    c.close()


def big(s):
    """Large bodies both ways: what a slow side has not taken is not held in memory."""
    size = 100 << 20
    piece = b"x" * 65536

    def play(peer):
        head = peer.head()
        if b"GET /down" in head:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // len(piece)):
                peer.send(piece)
        else:
            got = len(peer.seen)
            peer.seen = b""
            time.sleep(1)
            while got < size:
                got += len(peer.sock.recv(1 << 20))
            peer.send(answer(b"%d" % got))
        peer.rest()

    up = Upstream(play)
    s.use(up)
    before = s.memory()
    slow = s.client()
    slow.send(b"GET /down HTTP/1.1\r\nHost: h\r\n\r\n")
    slow.head()
    time.sleep(1)
    c = s.client()
    c.send(b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
    sender = threading.Thread(target=lambda: [c.send(piece) for _ in range(size // len(piece))])
    sender.start()
    time.sleep(0.7)
    grown = s.memory() - before
    sender.join()
    assert c.until(b"%d" % size)
    got = len(slow.seen)
    slow.seen = b""
    while got < size:
        n = len(slow.sock.recv(1 << 20))
        assert n, got
        got += n
    same(got, size)
    assert grown < 6 << 10, f"{grown} KiB more while two streams were stuck"
    # chunked up, too
    chunk = b"10000\r\n" + piece + b"\r\n"
    received = []

    def count_chunks(peer):
        peer.head()
        body = peer.until(b"\r\n0\r\n\r\n")
        received.append(body.count(b"x"))
        peer.send(answer(b"ok"))

    s.use(Upstream(count_chunks))
    c = s.client()
    c.send(b"POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(16):
        c.send(chunk)
    c.send(b"0\r\n\r\n")
    c.until(b"\r\n\r\nok")
    same(received, [16 * len(piece)])


def leaves(s):
    """A client that leaves ends what it asked the upstream for."""
    up = Upstream()
    s.use(up)
    c = s.client()
    c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    u = up.accept()
    u.head()
    time.sleep(0.1)
    c.close()
    assert u.ended()
    c = s.client()  # while the answer comes
    c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    u = up.accept()
    u.head()
    u.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    c.until(b"data: 1\n\n")
    time.sleep(0.1)
    c.close()
    assert u.ended()
    s.use(up, transport={"protocol": "http", "max_conns_per_host": 1})
    first, c = s.client(), s.client()  # while it waits for a connection
    first.send(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
    u = up.accept()
    u.head()
    c.send(b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    s.await_metric("exchanges", lambda n: n == 2)
    c.close()
    s.await_metric("exchanges", lambda n: n == 1)
    u.send(answer(b"1"))
    first.head()
    assert not select.select([u.sock], [], [], 0.3)[0], "what a client that has left asked for"
    first.close()
    u.close()
    s.use(up, request_buffers=32 << 20)
    c = s.client()  # while an upstream does not take its body
    c.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (30 << 20) + b"x" * (30 << 20))
    u = up.accept()
    time.sleep(0.3)
    c.close()
    s.await_metric("exchanges", lambda n: n == 0)
    assert len(u.rest()) < 30 << 20, "the rest was sent all the same"
    s.use(up)
    c = s.client()  # while its body goes up
    c.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc")
    u = up.accept()
    u.until(b"abc")
    c.close()
    assert u.ended()
    c = s.client()  # a bad chunk is the client's fault
    c.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    u = up.accept()
    u.until(b"abc\r\n")
    c.send(b"zz\r\n")
    assert c.rest().startswith(b"HTTP/1.1 400 ")
    assert u.ended()


def events(s):
    """Event streams, unknown lengths and flush_interval -1 are passed on at once."""
    up = Upstream()
    s.use(up, flush_interval=-1, before=[{"handler": "encode", "encodings": {"gzip": {}}}])
    for head in (b"Content-Type: text/event-stream\r\n", b"Content-Length: 20\r\nContent-Type: a/b\r\n"):
        c = s.client()
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        u = up.accept()
        u.head()
        u.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        c.head()  # before any byte of the body
        for _ in range(2):
            u.send(b"data: 12345678\n\n"[:10])
            c.until(b"data: 1234")
        u.close()
        c.close()


def encoded(s):
    """Through encode: what an interval flushes can be read although the answer goes on."""
    up = Upstream()
    for interval, length in (("50ms", b"Content-Length: 4000"), (-1, b"Content-Length: 4000"),
                             ("0s", b"Transfer-Encoding: chunked")):
        s.use(up, flush_interval=interval, before=[{"handler": "encode", "encodings": {"gzip": {}}}])
        c = s.client()
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n")
        u = up.accept()
        u.head()
        data = (b"%x\r\n" % 2000 if b"chunked" in length else b"") + b"0123456789" * 200
        u.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + length + b"\r\n\r\n" + data)
        head = c.head()
        assert b"Content-Encoding: gzip\r\n" in head and b"Transfer-Encoding: chunked" in head, head
        plain, unzip = b"", zlib.decompressobj(31)
        while len(plain) < 2000:
            n = int(c.until(b"\r\n"), 16)
            plain += unzip.decompress(c.take(n + 2)[:n])
        same(plain, b"0123456789" * 200)
        u.close()
        c.close()


def authorized(s):
    """forward_auth: a question on the side, then the request itself, with its body."""
    asked = []

    def judge(peer):
        while True:
            head = peer.head()
            asked.append(head)
            if b"X-Token: good" in head:
                peer.send(answer(b"yes", b"X-User: ann\r\n"))
            else:
                peer.send(b"HTTP/1.1 401 No\r\nX-Why: token\r\nContent-Length: 2\r\n\r\nno")

    def app(peer):
        while True:
            head = peer.head()
            user = re.search(rb"X-User: (\w+)", head)
            body = peer.take(int(re.search(rb"Content-Length: (\d+)", head).group(1)))
            peer.send(answer(head.split(b"\r\n")[0] + b" " + user.group(1) + b" " + body))

    auth = {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{Upstream(judge).port}"}],
            "rewrite": {"method": "GET", "uri": "/auth?x=1"},
            "headers": {"request": {"set": {"X-Forwarded-Method": ["{http.request.method}"],
                                            "X-Forwarded-Uri": ["{http.request.uri}"]}}},
            "handle_response": [{"match": {"status_code": [2]}, "routes": [{"handle": [
                {"handler": "headers",
                 "request": {"set": {"X-User": ["{http.reverse_proxy.header.X-User}"]}}}]}]}]}
    s.use(Upstream(app), before=[auth])
    for _ in range(3):
        status, _, body = s.get("/page?q", "POST", b"payload", X_Token="good", X_User="eve")
        same((status, body), (200, b"POST /page?q HTTP/1.1 ann payload"))
    assert asked[-1].startswith(b"GET /auth?x=1 HTTP/1.1\r\n") and b"Content-Length" not in asked[-1], asked[-1]
    assert b"X-Forwarded-Method: POST\r\n" in asked[-1] and b"X-Forwarded-Uri: /page?q\r\n" in asked[-1]
    status, fields, body = s.get("/page?q", "POST", b"payload")
    same((status, fields["x-why"], body), (401, "token", b"no"))


def addresses_in_paths(s):
    """A rewrite to an address, where a redirect was meant: the path of it is asked for, of the same host."""
    up = Upstream(lambda peer: peer.send(answer(peer.head())))
    for to, path, want in (("https://{http.request.host}{http.request.uri}", "/a/b?q=1", b"GET /a/b?q=1 "),
                           ("HTTP://other.example", "/a", b"GET / "),
                           ("http://other.example?x=1", "/a?q", b"GET /?x=1 "),
                           ("relative", "/a", b"GET /relative ")):
        s.use(up, before=[{"handler": "rewrite", "uri": to}])
        head = s.get(path)[2]
        assert head.startswith(want) and b"other.example" not in head, head
    s.use(up, before=[{"handler": "rewrite", "strip_path_prefix": "/x"}])
    head = s.get("/xhttp://other.example/c")[2]
    assert head.startswith(b"GET /http:/other.example/c "), head  # what a client wrote is a path


def pipelined(s):
    up = Upstream(echo)
    s.use(up)
    c = s.client()
    c.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % i for i in range(50)))
    for i in range(50):
        c.head()
        same(c.take(len(b"/%d " % i)), b"/%d " % i)
    c.close()


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def upgrade(s, up, path=b"/ws"):
    c = s.client()
    c.send(b"GET " + path + b" HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
           b"Sec-WebSocket-Key: abc\r\nSec-WebSocket-Version: 13\r\n\r\nearly")
    u = up.accept()
    head = u.head()
    assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in head and b"Sec-WebSocket-Key: abc" in head, head
    u.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Accept: " + accept_key(b"abc") + b"\r\n\r\nhello")
    head = c.head()
    assert head.startswith(b"HTTP/1.1 101 ") and b"Upgrade: websocket\r\n" in head, head
    assert b"Connection: Upgrade\r\n" in head and b"Content-Length" not in head, head
    assert head.count(b"Server: ") == 1 and b"Server: portico\r\n" in head, head
    same(c.take(5), b"hello")
    same(u.take(5), b"early")
    return c, u


def tunnels(s):
    """Bytes both ways, back-pressure, ends of either side, refusal of another protocol."""
    up = Upstream()
    s.use(up)
    c, u = upgrade(s, up)
    blob = os.urandom(1 << 20) * 4
    for a, b in ((c, u), (u, c)):
        sender = threading.Thread(target=a.send, args=(blob,))
        sender.start()
        assert b.take(len(blob)) == blob
        sender.join()
    u.send(b"last")
    u.close()
    same(c.rest(), b"last")
    c.close()
    c, u = upgrade(s, up)
    c.close()
    assert u.ended()
    c, u = upgrade(s, up)
    c.reset()
    assert u.ended()
    c, u = upgrade(s, up)
    c.sock.shutdown(socket.SHUT_WR)  # half closed: the other way goes on
    same(u.rest(), b"")
    u.send(b"answer")
    u.close()
    same(c.rest(), b"answer")
    c = s.client()
    c.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
    u = up.accept()
    u.head()
    u.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: bar\r\n\r\n")
    assert c.head().startswith(b"HTTP/1.1 502 ")
    c = s.client()  # refused by the upstream: an answer as any other
    c.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
    u = up.accept()
    u.head()
    u.send(answer(b"no"))
    c.until(b"\r\n\r\nno")


def tunnel_ends(s):
    """stream_timeout; reloads end tunnels, at once or after stream_close_delay, with a close frame."""
    up = Upstream()
    s.use(up, stream_timeout="300ms")
    c, u = upgrade(s, up)
    start = time.monotonic()
    c.rest()
    assert u.ended() and time.monotonic() - start < 15
    s.use(up)
    c, u = upgrade(s, up)
    s.use(up, stream_timeout="1m")
    same(c.rest(), b"\x88\x02\x03\xe9")
    frame = u.rest()
    same(frame[:2], b"\x88\x82")
    same(bytes((frame[6] ^ frame[2], frame[7] ^ frame[3])), b"\x03\xe9")
    s.use(up, stream_close_delay="60s")
    c, u = upgrade(s, up)
    s.use(up, stream_close_delay="500ms")
    time.sleep(0.1)
    c.send(b"still")
    same(u.take(5), b"still")
    other, _ = upgrade(s, up)
    start = time.monotonic()
    s.use(up)
    same(other.rest(), b"\x88\x02\x03\xe9")
    assert 0.4 < time.monotonic() - start < 15
    c.send(b"still")
    same(u.take(5), b"still")
    s.use(up)
    pairs = [upgrade(s, up) for _ in range(8)]
    over = threading.Event()

    def say(u):
        with contextlib.suppress(OSError):
            while not over.is_set():
                u.send(b"m" * 64)
    talkers = [threading.Thread(target=say, args=(u,)) for _, u in pairs]
    for talker in talkers:
        talker.start()
    for c, _ in pairs:
        same(c.take(64), b"m" * 64)
    s.use(up, stream_timeout="1m")  # in the middle of what is said, but not of a message
    for c, _ in pairs:
        said = c.rest()
        same((said[-4:], len(said) % 64, said[:-4].strip(b"m")), (b"\x88\x02\x03\xe9", 4, b""))
    over.set()
    for (c, u), talker in zip(pairs, talkers):
        c.close()
        talker.join()
        u.close()


def late_tunnels(s):
    """An upstream that switches behind a reload, or before it has the request's body."""
    up = Upstream()
    ask = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def say(c, length, body):
        with contextlib.suppress(OSError):
            c.send(ask[:-2] + b"Content-Length: %d\r\n\r\n" % length + body)
    for delay in (0, 0.3):
        s.use(up, stream_close_delay=f"{delay * 1000:.0f}ms")
        c = s.client()
        c.send(ask)
        u = up.accept()
        u.head()
        s.use(up, stream_timeout="1m")
        start = time.monotonic()
        u.send(agreed)
        assert c.head().startswith(b"HTTP/1.1 101 ")
        same(c.rest(), b"\x88\x02\x03\xe9")
        same(u.rest()[:2], b"\x88\x82")
        assert delay * 0.9 < time.monotonic() - start < delay + 15
    for length, body in ((5, b"abc"), (16 << 20, b"z" * (12 << 20))):
        c = s.client()
        sender = threading.Thread(target=say, args=(c, length, body))
        sender.start()
        u = up.accept()
        u.head()
        u.send(agreed)
        assert c.head().startswith(b"HTTP/1.1 502 ")
        c.reset()
        sender.join()
        u.close()


def stalled_tunnels(s):
    """Whoever sends into buffers that nobody reads takes no fiber, and loses nothing."""
    up = Upstream()
    s.use(up)
    pairs = [upgrade(s, up) for _ in range(30)]
    sent = []
    for number, pair in enumerate(pairs):
        one = pair[number % 2]
        one.sock.setblocking(False)
        n, last = 0, time.monotonic()
        while time.monotonic() - last < 0.05:  # until the gateway takes no more, either
            with contextlib.suppress(BlockingIOError):
                n += one.sock.send(bytes([number]) * 65536)
                last = time.monotonic()
        sent.append(n)
    s.await_metric("fibers", lambda n: n < 5)
    for number, pair in enumerate(pairs):
        other = pair[1 - number % 2]
        assert other.take(sent[number]) == bytes([number]) * sent[number]
        other.send(b"thanks")
        one = pair[number % 2]
        one.sock.setblocking(True)
        same(one.take(6), b"thanks")
        dice = (one.close, other.close, one.reset, other.reset)
        dice[number % 4]()
        (other if number % 2 == 0 else one).rest()


def answer_lines(s):
    """A line has the length that the upstream told, though the wire writes it, and none that it did not."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    for said, want in ((answer(b"hello"), ["5"]), (answer(b""), ["0"]), (chunked, None)):
        s.use(Upstream(lambda peer, said=said: (peer.head(), peer.send(said))), server={"logs": {}})
        before = len(s.text())
        same(s.get("/")[0], 200)
        end = time.monotonic() + 10
        while not (lines := [line for line in s.text()[before:].splitlines() if "handled request" in line]):
            assert time.monotonic() < end, "no line"
            time.sleep(0.01)
        same(json.loads(lines[0])["resp_headers"].get("Content-Length"), want)


def tunnel_lines(s):
    """The access log tells of a tunnel when it has ended, with what went through it."""
    up = Upstream()
    s.use(up, server={"logs": {}})
    before = len(s.text())

    def lines():
        return [line for line in map(json.loads, filter(None, s.text()[before:].splitlines()))
                if line.get("msg") == "handled request"]
    c, u = upgrade(s, up)
    c.send(b"x" * 100000)
    u.take(100000)
    u.send(b"y" * 300000)
    c.take(300000)
    time.sleep(0.2)
    same(lines(), [])
    c.close()
    assert u.ended()
    u.close()
    end = time.monotonic() + 10
    while not lines():
        assert time.monotonic() < end, "no line"
        time.sleep(0.01)
    line, = lines()
    same((line["status"], line["bytes_read"], line["size"], line["request"]["uri"]),
         (101, 100005, 300005, "/ws"))
    same(line["request"]["headers"]["Sec-Websocket-Key"], ["abc"])
    same(line["resp_headers"]["Upgrade"], ["websocket"])
    assert line["duration"] > 0.15, line


def tunnel_storm(s):
    """A hundred tunnels that say, stall, end, half end and break off at random, over reloads."""
    seed = int(os.environ.get("PORTICO_SEED", random.randrange(1 << 32)))
    dice = random.Random(seed)
    up = Upstream()
    s.use(up, stream_close_delay="60s")
    live = []

    def both(number):
        c, u = live[number]
        return (c, u) if dice.random() < 0.5 else (u, c)
    try:
        for step in range(1500):
            if len(live) < 20 or (len(live) < 100 and dice.random() < 0.2):
                live.append(upgrade(s, up))
                continue
            number = dice.randrange(len(live))
            one, other = both(number)
            what = dice.random()
            if what < 0.7:
                blob = dice.randbytes(dice.choice((1, 100, 20000, 70000)))
                one.send(blob)
                same(other.take(len(blob)), blob)
                continue
            del live[number]
            if what < 0.8:
                one.close()
                assert other.ended()
            elif what < 0.88:
                one.reset()
                other.rest()
            elif what < 0.96:
                one.sock.shutdown(socket.SHUT_WR)
                same(other.rest(), b"")
                other.send(b"answer")
                other.close()
                same(one.rest(), b"answer")
            else:  # into buffers that nobody reads
                one.sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        one.sock.send(b"z" * 65536)
                dice.choice((one, other)).reset()
            if step % 300 == 299:
                s.use(up, stream_close_delay=f"{60 + step}s")
    except (AssertionError, EOFError, OSError) as e:
        raise AssertionError(f"PORTICO_SEED={seed}: {e}") from e
    for c, u in live:
        c.reset()
        u.rest()


def many_tunnels(s):
    """More than a worker has fibers for; requests go on beside them, and one that says nothing costs little."""
    wanted = 9000
    need = 2 * wanted + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < need:
        return f"no more than {hard} descriptors"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    agreed = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    up, plain = Upstream(), Upstream(play=lambda peer: (peer.head(), peer.send(answer(b"fine"))))
    s.use(up)
    document = s.document([{"match": [{"path": ["/plain"]}],
                            "handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{plain.port}"}]}]},
                           {"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{up.port}"}]}]}])
    document["logging"]["logs"]["default"]["level"] = "INFO"
    same(s.load(document)[0], 200)
    pairs = []
    try:
        for number in range(wanted):
            if number == 1000:
                before = s.memory()
            c = s.client()
            c.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            u = up.accept()
            u.head()
            u.send(agreed)
            c.head()
            pairs.append((c, u))
        each = (s.memory() - before) * 1024 / (wanted - 1000)
        assert each < 700 or SANITIZED, f"{each:.0f} bytes for a tunnel"
        same(s.get("/plain")[2], b"fine")
        for c, u in pairs[::100]:
            c.send(b"ping")
            same(u.take(4), b"ping")
            u.send(b"pong")
            same(c.take(4), b"pong")
    finally:
        for c, u in pairs:
            c.reset()
            u.reset()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return None


def buffers(s):
    """request_buffers waits for the body; response_buffers frees the upstream from a slow client."""
    up = Upstream()
    s.use(up, request_buffers=100, response_buffers=1 << 20)
    c = s.client()
    c.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert up.idle(0.3)
    c.send(b"2\r\nde\r\n0\r\n\r\n")
    u = up.accept()
    assert b"Content-Length: 5\r\n" in u.head()
    same(u.take(5), b"abcde")
    u.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + b"y" * 499999)
    assert not select.select([c.sock], [], [], 0.3)[0]
    u.send(b"z")
    c.head()
    same(c.take(500000)[-2:], b"yz")
    c.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300\r\n\r\n" + b"a" * 150)
    u.head()
    same(u.take(150), b"a" * 150)
    c.send(b"b" * 150)
    same(u.take(150), b"b" * 150)
    u.send(answer(b"ok"))
    c.until(b"\r\n\r\nok")


def limits(s):
    """max_conns_per_host, timeouts within a body, request_body's limit, a body on GET."""
    busy, most = [0], [0]
    lock = threading.Lock()

    def play(peer):
        while True:
            peer.head()
            with lock:
                busy[0] += 1
                most[0] = max(most[0], busy[0])
            time.sleep(0.05)
            with lock:
                busy[0] -= 1
            peer.send(answer(b"ok"))

    s.use(Upstream(play), transport={"protocol": "http", "max_conns_per_host": 2})
    got = []
    threads = [threading.Thread(target=lambda: got.append(s.get()[2])) for _ in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    same(got, [b"ok"] * 24)
    assert most[0] <= 2, most
    up = Upstream()
    s.use(up, transport={"protocol": "http", "read_timeout": "1s"})
    c = s.client()
    c.send(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
    u = up.accept()
    u.until(b"\r\n\r\nhi")
    u.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    assert c.rest().endswith(b"\r\n\r\nabc")
    s.use(up, before=[{"handler": "request_body", "max_size": 5}])
    c = s.client()
    c.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    u = up.accept()
    u.until(b"abc\r\n")
    c.send(b"3\r\nabc\r\n")
    assert c.rest().startswith(b"HTTP/1.1 413 ")


def addresses(s):
    """Unix sockets, IPv6, names, placeholders, a local address."""
    path = f"{s.folder.name}/up.sock"
    Upstream(echo, socket.AF_UNIX, path)
    s.use(f"unix/{path}")
    same(s.get("/u")[2], b"/u ")
    up = Upstream(echo)
    s.use(f"localhost:{up.port}")
    same(s.get("/l")[2], b"/l ")
    s.use("127.0.0.1:{http.request.header.X-Port}")
    same(s.get("/p", X_Port=str(up.port))[2], b"/p ")
    same(s.get("/p", X_Port="nonsense")[0], 502)
    s.use(up, transport={"protocol": "http", "local_address": "localhost"})
    same(s.get("/x")[2], b"/x ")
    s.use(up, transport={"protocol": "http", "local_address": "127.0.0.77"})
    same(s.get("/a")[2], b"/a ")
    same(up.peers[-1].sock.getpeername()[0], "127.0.0.77")
    try:
        six = Upstream(echo, socket.AF_INET6, ("::1", 0))
    except OSError:
        return  # no IPv6 here
    s.use(f"[::1]:{six.port}")
    same(s.get("/6")[2], b"/6 ")


def undialable(s):
    """An address that is none is taken, as in Caddy, with a warning; its requests fail, and nobody else's."""
    up = Upstream(echo)
    for dial, why in (("localhost:80-90", "precisely one socket"), ("localhost", "missing port"),
                      ("udp/localhost:1", "cannot be dialed"), ("", "missing port")):
        s.use(dial)
        same(s.get("/x")[0], 502)
        s.logged("invalid dial address: requests to this upstream are answered by 502")
        s.logged(why)
    s.use(up)
    same(s.get("/x")[2], b"/x ")


def refused(s):
    """What is for later is refused by name; what is wrong, with a sentence."""
    for options, text in (({"transport": {"protocol": "http", "proxy_protocol": "v3"}}, "proxy protocol version"),
                          ({"transport": {"protocol": "http", "versions": ["3"]}}, "HTTP version"),
                          ({"transport": {"protocol": "http", "versions": ["9"]}}, "unsupported HTTP version"),
                          ({"transport": {"protocol": "fastcgi", "nonsense": 1}}, "nonsense"),
                          ({"transport": {"protocol": "fastcgi", "split_path": ["\u00e9"]}}, "non-ASCII"),
                          ({"transport": {"protocol": "fastcgi", "env": {"A": 1}}}, "must be a text"),
                          ({"transport": {"protocol": "fastcgi", "tls": {}}}, "tls"),
                          ({"transport": {"protocol": "http", "nonsense": 1}}, "nonsense"),
                          ({"health_checks": {"active": {"uri": "/", "nonsense": 1}}}, "nonsense"),
                          ({"health_checks": {"active": {"uri": "/", "expect_body": "(?=a)"}}}, "look-around"),
                          ({"health_checks": {"active": {"uri": "/", "headers": {"X": "a"}}}}, "arrays of strings"),
                          ({"dynamic_upstreams": {"source": "nope"}}, "nope"),
                          ({"circuit_breaker": {"type": "x"}},
                           "unknown module: http.reverse_proxy.circuit_breakers.x"),
                          ({"load_balancing": {"selection_policy": {"policy": "nope"}}}, "nope"),
                          ({"trusted_proxies": ["x"]}, "invalid IP address"),
                          ({"nonsense": 1}, "nonsense")):
        got = s.refuses(**options)
        assert text in got, (options, got)


def reloads(s):
    """Requests that run while the configuration changes are answered by what they began with."""
    up = Upstream(echo)
    s.use(up)
    wrong, over, asked = [], threading.Event(), [0]

    def client():
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
        while not over.is_set():
            try:
                c.request("POST", "/r", b"x" * 100)
                r = c.getresponse()
                body = r.read()
                asked[0] += 1
                if (r.status, body) != (200, b"/r " + b"x" * 100):
                    wrong.append((r.status, body[:50]))
                if r.getheader("Connection") == "close":
                    c.close()
            except (OSError, http.client.HTTPException) as e:
                wrong.append(repr(e))
                c.close()
        c.close()

    threads = [threading.Thread(target=client) for _ in range(4)]
    for t in threads:
        t.start()
    for i in range(10):
        s.use(up, flush_interval=-(i % 2))
    over.set()
    for t in threads:
        t.join()
    same(wrong[:3], [])
    assert asked[0] > 20, asked


def stops(s):
    """A stop waits for what is under way, ends tunnels, and cuts what takes longer than its grace."""
    own = Server(s.io, 2)
    up = Upstream()
    try:
        document = own.document([{"handle": [{"handler": "reverse_proxy",
                                              "upstreams": [{"dial": f"127.0.0.1:{up.port}"}]}]}])
        document["apps"]["http"]["grace_period"] = "3s"
        same(own.load(document)[0], 200)
        tunnel, far = upgrade(own, up)
        slow, stuck = own.client(), own.client()
        slow.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        u = up.accept()
        u.head()
        stuck.send(b"POST /stuck HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
        v = up.accept()
        v.until(b"abc")
        own.process.send_signal(signal.SIGTERM)  # a second one would end it at once
        same(tunnel.rest(), b"\x88\x02\x03\xe9")
        assert far.rest().startswith(b"\x88\x82")
        time.sleep(0.1)
        u.send(answer(b"late"))
        assert b"Connection: close\r\n" in slow.head()
        same(slow.take(4), b"late")
        assert v.ended() and u.ended()
        own.process.wait(30)
    finally:
        own.end()


CASES = [
    ("requests and answers, byte by byte, on one kept connection", exact),
    ("chunks, trailers, interim answers, answers that end with their connection", streams),
    ("bodies go up by length and in chunks; an answer may come before they end", uploads),
    ("with expect_continue_timeout the body waits for the upstream", continues),
    ("connections are kept, limited, timed out, and dropped when their upstream closes", pools),
    ("what comes behind an answer is nobody's", surplus),
    ("without keep-alive no kept connection is used", unkept),
    ("a kept connection that turns out to be closed is replaced where that is safe", stale),
    ("502, 503 and 504 say why, and meet the error routes", errors),
    ("what is not HTTP is 502", garbage),
    ("a length that is not kept is a cut connection, never a clean end", lies),
    ("an upstream may die at every byte", dies),
    ("what is safe is tried again", retries),
    ("an answer that retry_match names is tried for again", answers_retried),
    ("what is said of requests at the level debug", verbose),
    ("failures mark an upstream for a while", health),
    ("selection policies", policies),
    ("forwarded fields, header changes, rewrites", forwarded),
    ("handle_response, copy_response, copy_response_headers", handles),
    ("a second gateway behind one that failed", falls_back),
    ("100 MiB both ways, memory bounded by buffers", big),
    ("a client that leaves ends its request", leaves),
    ("event streams and flush_interval -1 leave at once", events),
    ("what is flushed through encode can be read at once", encoded),
    ("a question to another upstream decides, and the body still goes up", authorized),
    ("what was rewritten to an address is asked for by its path", addresses_in_paths),
    ("fifty pipelined requests", pipelined),
    ("tunnels", tunnels),
    ("an upstream that switches behind a reload, or before it has the body", late_tunnels),
    ("tunnels that stall take no fiber", stalled_tunnels),
    ("a line of the access log has the length that an upstream told", answer_lines),
    ("a tunnel's line in the access log comes at its end", tunnel_lines),
    ("tunnels of all kinds of ends, at random", tunnel_storm),
    ("nine thousand tunnels", many_tunnels),
    ("tunnels end by timeout and with their configuration", tunnel_ends),
    ("request_buffers and response_buffers", buffers),
    ("limits of connections, of time, of a body", limits),
    ("upstreams by address, name, socket and placeholder", addresses),
    ("an address that is none", undialable),
    ("what is for later is refused by name", refused),
    ("reloads while requests run", reloads),
    ("a stop waits for requests, ends tunnels, and has an end", stops),
]


def main():
    global count, failed
    for io in ("epoll", "uring"):
        server = Server(io, 2)
        for name, case in CASES:
            if WANTED not in name:
                continue
            count += 1
            made = list(Upstream.made)
            try:
                why_not = case(server)
                print(f"ok {count} - {name} ({io})" + (f" # SKIP {why_not}" if why_not else ""), flush=True)
            except Exception as e:  # every failure is a line, the others still run
                failed += 1
                print(f"not ok {count} - {name} ({io})\n# {type(e).__name__}: "
                      + str(e).replace("\n", "\n# "), flush=True)
                if server.process.poll() is not None:
                    print("# " + server.text()[-4000:].replace("\n", "\n# "), flush=True)
                    server = Server(io, 2)
            for up in Upstream.made:
                if up not in made:
                    up.close()
        count += 1
        try:
            server.end()
            print(f"ok {count} - it ends cleanly ({io})", flush=True)
        except Exception as e:
            failed += 1
            print(f"not ok {count} - it ends cleanly ({io})\n# "
                  + str(e).replace("\n", "\n# "), flush=True)
    print(f"1..{count}")
    sys.exit(1 if failed else 0)


main()
