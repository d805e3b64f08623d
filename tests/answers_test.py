#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a server behind the gateway may answer to split, poison or confuse, as exact bytes, on both I/O back ends and to
clients of HTTP/1 and HTTP/2, as TAP: what the client sees, and that the next requests get answers of their own.
Usage: answers_test.py PORTICO [TEXT]."""
import concurrent.futures
import contextlib
import re
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
import h2_client as h2  # noqa: E402 (beside this file)
from origin import Talk, Wire  # noqa: E402
from server import BACK_ENDS, Server, same  # noqa: E402

PORTICO = sys.argv[1]
ONLY = sys.argv[2] if len(sys.argv) > 2 else ""
OK = b"HTTP/1.1 200 OK\r\n"
POISON = OK + b"X-Poison: 1\r\nContent-Length: 6\r\n\r\npoison"
LATE = b"<later>"  # what follows comes a moment later
HELLO = b"Content-Length: 5\r\n\r\nhello"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
CUT = "cut"


def both(name, head, wanted, method="GET"):
    """Behind an answer another one, at once and later."""
    return [(name + ", and another answer", method, head + POISON, wanted),
            (name + ", and another answer later", method, head + LATE + POISON, wanted),
            (name + ", and half a line later", method, head + LATE + b"HTTP/1.1 200", wanted)]


def refused(*heads):
    """Answers that are no answers: 502."""
    return [("refused " + repr(h), "GET", h, 502) for h in heads]


def framing(*fields):
    return [("framing " + repr(f), "GET", OK + f + b"\r\n5\r\nhello\r\n0\r\n\r\n", 502) for f in fields]


def chunks(*bodies):
    return [("chunks " + repr(b[:60]), "GET", OK + b"Transfer-Encoding: chunked\r\n\r\n" + b, CUT) for b in bodies]


# A name; the method of the question; what is answered; what the client must see: a status with its body, 502, or an
# answer that is cut (or a 502, where nothing had left yet).
ROWS = [
    *both("a length", OK + HELLO, (200, b"hello")), *both("chunks", OK + CHUNKS, (200, b"hello")),
    *both("no body", OK + b"Content-Length: 0\r\n\r\n", (200, b"")),
    *both("204", b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
    *both("204 with a length of 0", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", (204, b"")),
    *both("304", b"HTTP/1.1 304 Not Modified\r\n\r\n", (304, b"")),
    *both("304 with a length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (304, b"")),
    *both("HEAD", OK + b"Content-Length: 5\r\n\r\n", (200, b""), "HEAD"),
    *both("HEAD, chunks", OK + b"Transfer-Encoding: chunked\r\n\r\n", (200, b""), "HEAD"),
    *both("HEAD without either", OK + b"\r\n", (200, b""), "HEAD"),
    ("HEAD with its body", "HEAD", OK + HELLO, (200, b"")), ("HEAD with chunks", "HEAD", OK + CHUNKS, (200, b"")),
    ("HEAD with its body later", "HEAD", OK + b"Content-Length: 5\r\n\r\n" + LATE + b"hello", (200, b"")),
    ("204 with a body", "GET", b"HTTP/1.1 204 No Content\r\n" + HELLO, (204, b"")),
    ("204 with chunks", "GET", b"HTTP/1.1 204 No Content\r\n" + CHUNKS, (204, b"")),
    ("304 with a body", "GET", b"HTTP/1.1 304 Not Modified\r\n" + HELLO, (304, b"")),
    ("304 with chunks", "GET", b"HTTP/1.1 304 Not Modified\r\n" + CHUNKS, (304, b"")),
    ("304 with a body later", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n" + LATE + b"hello", (304, b"")),
    ("a status beyond 599", "GET", b"HTTP/1.1 600 Own\r\n" + HELLO, (600, b"hello")),
    ("the last status", "GET", b"HTTP/1.1 999 Own\r\n" + HELLO, (999, b"hello")),
    ("205 with a body", "GET", b"HTTP/1.1 205 Reset Content\r\n" + HELLO, None),
    ("an answer until the end", "GET", OK + b"\r\n" + POISON + LATE, (200, POISON)),
    ("the connection's end behind an answer", "GET", OK + HELLO + LATE, (200, b"hello")),
    # interim answers
    ("100 first", "GET", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + HELLO, (200, b"hello")),
    ("103 with a length and a body", "GET", b"HTTP/1.1 103 Early Hints\r\n" + HELLO + OK + HELLO, 502),
    ("103 with chunks", "GET", b"HTTP/1.1 103 Early Hints\r\n" + CHUNKS + OK + HELLO, 502),
    ("103 with a length of a body that is an answer", "GET", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n" + OK + HELLO,
     (200, b"hello")),
    ("sixteen interim answers", "GET", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 16 + OK + HELLO, (200, b"hello")),
    ("seventeen interim answers", "GET", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 17 + OK + HELLO, 502),
    ("a flood of 100", "GET", b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, 502),
    ("a flood of 199", "GET", b"HTTP/1.1 199 X\r\n\r\n" * 5000, 502),
    ("101 that nobody asked for", "GET", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + POISON, 502),
    ("101 to h2c", "GET h2c", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + POISON, 502),
    ("101 to another protocol", "GET upgrade", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n" + POISON, 502),
    ("101 without a protocol", "GET upgrade", b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + POISON, 502),
    ("an upgrade that is not granted", "GET upgrade", OK + HELLO + LATE + POISON, (200, b"hello")),
    # lengths and codings that disagree
    *framing(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 15\r\n",
             b"Content-Length: 5\r\nContent-Length: 5\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n",
             b"Content-Length: 5, 5\r\n", b"Content-Length: +5\r\n", b"Content-Length: -5\r\n", b"Content-Length: 0x5\r\n",
             b"Content-Length: 5 5\r\n", b"Content-Length:\r\n", b"Content-Length: 5;\r\n", b"Content-Length: 5\x0b\r\n",
             b"Content-Length: 9223372036854775808\r\n", b"Content-Length: 18446744073709551621\r\n", b"Content-Length : 5\r\n",
             b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked, chunked\r\n",
             b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: xchunked\r\n",
             b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding:\r\n", b"Transfer-Encoding : chunked\r\n",
             b"Transfer-Encoding\t: chunked\r\n", b" Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:\r\n chunked\r\n",
             b"Transfer-Encoding: \x0bchunked\r\n", b"Transfer-Encoding: chunked\x00\r\n", b"Transfer-Encoding: \"chunked\"\r\n",
             b"X: y\nTransfer-Encoding: chunked\r\n", b"X: y\rTransfer-Encoding: chunked\r\n", b"X: y\r\r\nTransfer-Encoding: chunked\r\n"),
    *refused(b"HTTP/1.0 200 OK\r\n" + CHUNKS, b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", b"HTTP/1.1 200 OK\r\nX: y\n\r\nhello",
             b"HTTP/1.1 200 OK\r\nX: y\0\r\n" + HELLO, b"HTTP/1.1 200 OK\r\nX y\r\n" + HELLO, b"HTTP/1.1 200 OK\r\n: y\r\n" + HELLO,
             b"HTTP/1.1 200 OK\r\n:status: 200\r\n" + HELLO, b"HTTP/1.1 200 OK\r\nX\x80: y\r\n" + HELLO, b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n" + HELLO,
             b"HTTP/1.1 200 OK\r\n X: y\r\n" + HELLO, b"HTTP/1.1 200 O\rK\r\n" + HELLO, b"HTTP/1.1 200 O\0K\r\n" + HELLO,
             b"HTTP/1.1  200 OK\r\n" + HELLO, b"HTTP/1.1\t200 OK\r\n" + HELLO, b"HTTP/1.1 2000 OK\r\n" + HELLO, b"HTTP/1.1 20 OK\r\n" + HELLO,
             b"HTTP/1.1 099 OK\r\n" + HELLO, b"HTTP/1.1 +20 OK\r\n" + HELLO, b"HTTP/2 200 OK\r\n" + HELLO, b"HTTP/1.10 200 OK\r\n" + HELLO,
             b"http/1.1 200 OK\r\n" + HELLO, b"ICY 200 OK\r\n" + HELLO, b" HTTP/1.1 200 OK\r\n" + HELLO, b"\nHTTP/1.1 200 OK\r\n" + HELLO,
             b"\r\nHTTP/1.1 200 OK\r\n" + HELLO, b"hello", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: y\r\n" + LATE, LATE,
             b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\0" * 18, h2.PREFACE),
    # chunks
    *chunks(b"5\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
            b"5;a\nhello\r\n0\r\n\r\n", b"5;a\r\rhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5g\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n", b";a\r\nhello\r\n0\r\n\r\n",
            b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\n\n", b"5\r\nhello\r\n0\r\n\n",
            b"5\r\nhello\r\n-0\r\n\r\n", b"5\r\nhello\r\n0\r\nX : y\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
            b"5\r\nhello\r\n0\r\nX: y\0\r\n\r\n", b"5\r\nhello\r\n0\r\n" + POISON, b"5;" + b"a" * 20000 + b"\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 40 + b"\r\n", b"5\r\nhello\r\n0\r\nX: " + b"y" * 40000 + b"\r\n\r\n",
            b"5\r\nhello\r\n" + LATE, b"5\r\nhel" + LATE, b"5\r\nhello\r\n0\r\n" + LATE),
    ("a length that is not reached", "GET", OK + b"Content-Length: 50\r\n\r\nhello" + LATE, CUT),
    ("extensions, zeros, letters", "GET", OK + b"Transfer-Encoding: Chunked\r\n\r\n003;a=b;c=\"d\"\r\nhel\r\n2;\r\nlo\r\n000;e\r\n\r\n", (200, b"hello")),
    # fields that belong to the server's connection
    ("Connection names the framing", "GET", OK + b"Connection: Content-Length, Transfer-Encoding, Connection, Date\r\n" + HELLO, (200, b"hello")),
    ("Connection names the framing of chunks", "GET", OK + b"Connection: Transfer-Encoding\r\n" + CHUNKS, (200, b"hello")),
    ("fields of the connection", "GET", OK + b"Connection: X-Hop, keep-alive\r\nConnection: X-Hip\r\nX-Hop: 1\r\nX-Hip: 1\r\nKeep-Alive: 5\r\n"
     b"Proxy-Connection: close\r\nUpgrade: h2c\r\nTE: x\r\nHTTP2-Settings: AAAA\r\n" + HELLO, (200, b"hello")),
    ("a client's length is the body's", "GET", OK + b"Content-Length: 0005\r\n\r\nhello", (200, b"hello")),
    ("trailers that are no trailers", "GET", OK + b"Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\r\nContent-Length: 50\r\n"
     b"Transfer-Encoding: chunked\r\nConnection: close\r\nSet-Cookie: a=1\r\nKeep-Alive: 5\r\nUpgrade: x\r\nTE: x\r\nTrailer: y\r\n"
     b"Proxy-Connection: z\r\n\r\n", (200, b"hello")),
    # answers to a body that is not there yet
    ("an answer before the body, and another", "POST", OK + HELLO + POISON, (200, b"hello")),
    ("an answer before the body, and another later", "POST", OK + HELLO + LATE + POISON, (200, b"hello")),
    ("100, an answer before the body, and another", "POST", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + CHUNKS + POISON, (200, b"hello")),
    ("a refusal before the body, and another answer", "POST", b"HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" + POISON, (413, b"")),
    ("garbage before the body", "POST", b"hello\r\n\r\n", 502),
]
# Over HTTP/2 alone: a WebSocket is an extended CONNECT, and only a 101 opens it.
H2_ROWS = [
    ("200 to a WebSocket", "CONNECT", OK + HELLO + POISON, 502),
    ("204 to a WebSocket", "CONNECT", b"HTTP/1.1 204 No\r\n\r\n" + POISON, 502),
    ("403 to a WebSocket", "CONNECT", b"HTTP/1.1 403 No\r\n" + HELLO + POISON, (403, b"hello")),
    ("101 without a protocol to a WebSocket", "CONNECT", b"HTTP/1.1 101 X\r\n\r\n" + POISON, 502),
    ("101 to h2c to a WebSocket", "CONNECT", b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + POISON, 502),
    ("h2c through a tunnel", "CONNECT h2c", OK + HELLO, 501),
]
HOP = {"connection", "keep-alive", "proxy-connection", "upgrade", "te", "http2-settings", "x-hop", "x-hip", "x-poison"}


class Behind:
    """Answers a row's bytes where it is asked for them, and all else with what was asked."""

    def __init__(self, row):
        _, _, self.bytes, self.wanted = row
        self.gone = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                w = Wire(self.listener.accept()[0])
            except OSError:
                return
            threading.Thread(target=self.serve, args=(w,), daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def serve(self, w):
        played = False
        with contextlib.suppress(OSError, EOFError, ValueError, IndexError):
            while True:
                target = w.line().split(b" ")[1]
                w.fields()
                if target != b"/row":
                    w.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(target), target))
                    continue
                played = True
                first, late, more = self.bytes.partition(LATE)
                w.send(first)
                if late:
                    time.sleep(0.06)
                    if not more:
                        break
                    w.send(more)
                elif self.wanted in (502, CUT):
                    break
        with contextlib.suppress(OSError):  # all that was sent arrives, also what nobody reads
            w.sock.shutdown(socket.SHUT_WR)
            w.sock.settimeout(1)
            while w.sock.recv(65536):
                pass
        w.close()
        if played:
            self.gone.set()


def own(s, behind):
    """The next requests, on both workers likely: each gets its own."""
    for i in range(3):
        target = b"/own/%d" % i
        t = Talk(s.port)
        t.ask(target, b"X-Port: %d" % behind.port)
        a = t.answer()
        same((a.status, a.body), (200, target))
        t.close()


def later(row, behind):
    """What comes later shall come first: a connection that nobody uses is closed for it."""
    if LATE in row[2]:
        assert behind.gone.wait(30), "the connection is kept"


def judge(wanted, status, body, broken, fields, trailers, hidden):
    names = {n.decode() if isinstance(n, bytes) else n for n, _ in fields}
    same(sorted(names & (HOP - hidden)), [])
    same([n for n, _ in trailers if n not in (b"x-t", "x-t")], [])
    if wanted == CUT:
        assert status == 502 or broken, f"{status} {body!r} looks whole"
        assert b"poison" not in body and b"hello".startswith(body[:5]) or status == 502, f"{body!r}"
    elif isinstance(wanted, int):
        same((status, broken), (wanted, False))
    elif wanted:
        same((status, body, broken), (*wanted, False))


def over_h1(s, behind, row):
    _, method, _, wanted = row
    verb, _, how = method.partition(" ")
    t = Talk(s.port)
    fields = {"h2c": [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"],
              "upgrade": [b"Connection: Upgrade", b"Upgrade: websocket"]}.get(how, [])
    if verb == "POST":
        fields = [b"Content-Length: 100000"]
    port = b"X-Port: %d" % behind.port
    t.ask(b"/row", port, *fields, method=verb.encode())
    if verb == "POST":
        t.send(b"abc")
    broken, a, body = False, None, b""
    try:
        a = t.head()
        for part in t.pieces(a.fields, until_end=True, none=verb == "HEAD" or a.status in (204, 304)):
            if isinstance(part, list):
                a.trailers = part
            else:
                body += part
        if wanted != CUT and verb != "POST" and (b"connection", b"close") not in a.fields:
            later(row, behind)
            t.ask(b"/own/same", port)  # nothing stands between
            b = t.answer()
            same((b.status, b.body), (200, b"/own/same"))
    except (EOFError, ConnectionResetError):
        broken = True
    judge(wanted, a.status if a else 0, body, broken, a.fields if a else [], a.trailers if a else [],
          {"connection"})  # which may be portico's own
    t.close()


def over_h2(s, behind, row):
    _, method, _, wanted = row
    verb, _, how = method.partition(" ")
    port = ("x-port", str(behind.port))
    with h2.Client(s.port) as c:
        fields = [(":method", verb), (":scheme", "http"), (":path", "/row"), (":authority", "a")]
        if verb == "CONNECT":
            fields += [(":protocol", how or "websocket"), ("sec-websocket-version", "13")]
        stream = c.ask([*fields, port], end=verb not in ("POST", "CONNECT"))
        if verb == "POST":
            c.data(stream, b"abc")
        a = c.answer(stream)
        reset = a.reset if a.reset != "NO_ERROR" else None
        judge(wanted, a.status or 0, a.body, reset is not None or not a.ended, a.fields, a.trailers or [], set())
        later(row, behind)
        other = c.ask(h2.request("GET", "/own/same", port))
        b = c.answer(other)
        same((b.status, b.body), (200, b"/own/same"))
        assert c.alive()


def check(front, s, row):
    behind = Behind(row)
    try:
        front(s, behind, row)
        later(row, behind)
        own(s, behind)
    finally:
        behind.close()


def run(io, number):
    s = Server(PORTICO, io, members={"protocols": ["h1", "h2c"]}, routes=[{"handle": [{
        "handler": "reverse_proxy", "upstreams": [{"dial": "127.0.0.1:{http.request.header.X-Port}"}]}]}])
    # A client that asks for h2c would be answered in it by portico itself: another listener has HTTP/1 alone.
    plain = Server(PORTICO, io, members={"protocols": ["h1"]}, routes=s.document["apps"]["http"]["servers"]["srv0"]["routes"])
    jobs = [(f"to HTTP/1: {r[0]}", over_h1, plain, r) for r in ROWS] + \
           [(f"to HTTP/2: {r[0]}", over_h2, s, r) for r in ROWS + H2_ROWS
            if r[1] not in ("GET h2c", "GET upgrade")]  # of which there are none
    jobs = [j for j in jobs if ONLY in j[0]]
    failed = 0
    try:
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            results = [pool.submit(check, *job[1:]) for job in jobs]
            for (name, *_), result in zip(jobs, results):
                number += 1
                why = result.exception()
                failed += why is not None
                name = re.sub(r"(.)\1{40,}", r"\1…", name).replace("#", "")
                print(f"{'not ' if why else ''}ok {number} - {name} ({io})", flush=True)
                if why:
                    print(f"# {type(why).__name__}: {str(why)[:1500]!r}", flush=True)
    finally:
        try:
            s.end()
        finally:
            plain.end()
    return number, failed


def main():
    number = failed = 0
    for io in BACK_ENDS:
        number, more = run(io, number)
        failed += more
    print(f"1..{number}")
    sys.exit(1 if failed else 0)


main()
