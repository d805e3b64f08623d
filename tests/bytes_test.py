#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""HTTP/1 as exact bytes over TCP against the whole program, on both I/O back ends, as TAP: what is
refused and how, framing, persistence, pipelining, limits. Usage: bytes_test.py PORTICO."""
import re
import socket
import time

from server import run_cases, same, with_server

OK = (b"HTTP/1.1 200 OK\r\nServer: portico\r\nContent-Type: text/plain; charset=utf-8\r\n"
      b"Date: x\r\nContent-Length: 5\r\n")
HELLO = OK + b"\r\nhello"
CLOSE = OK + b"Connection: close\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def refused(status, reason):
    body = b"%d %s" % (status, reason)
    return (b"HTTP/1.1 %s\r\nServer: portico\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (body, len(body), body))


BAD = refused(400, b"Bad Request")
VERSION = refused(505, b"HTTP Version Not Supported")
CODING = refused(501, b"Not Implemented")
FIELDS = refused(431, b"Request Header Fields Too Large")
TARGET = refused(414, b"Request URI Too Long")
EXPECT = refused(417, b"Expectation Failed")


def talk(s, data, piece=None, pause=0.002, half=True):
    """Writes `data`, reads to the end; the Date is blanked."""
    with socket.create_connection(("127.0.0.1", s.port), 60) as c:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if piece is None:
                c.sendall(data)
            else:
                for at in range(0, len(data), piece):
                    c.sendall(data[at:at + piece])
                    time.sleep(pause)
            if half:
                c.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has answered and closed already
        answer = b""
        while part := c.recv(65536):
            answer += part
    return re.sub(rb"\r\nDate: [^\r]*\r\n", b"\r\nDate: x\r\n", answer)


def head(fields, line=b"GET / HTTP/1.1"):
    return line + b"\r\nHost: a\r\n" + fields + b"\r\n"


REFUSED = [
    (b"GET / HTTP/1.1\nHost: a\n\n", BAD), (b"GET / HTTP/1.1\rHost: a\r\r", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", BAD), (head(b"X: a\rb\r\n"), BAD),
    (head(b"X: a\0b\r\n"), BAD), (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (head(b"X: a\r\n b\r\n"), BAD), (head(b"X : a\r\n"), BAD), (head(b" X: a\r\n"), BAD),
    (head(b"X\r\n"), BAD), (head(b": a\r\n"), BAD), (head(b"X\x80: a\r\n"), BAD),
    (head(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), BAD),
    (head(b"Content-Length: 5\r\nContent-Length: 5\r\n"), BAD),
    (head(b"Content-Length: 5, 5\r\n"), BAD), (head(b"Content-Length: +5\r\n"), BAD),
    (head(b"Content-Length: 5a\r\n"), BAD), (head(b"Content-Length: 18446744073709551616\r\n"), BAD),
    (head(b"Transfer-Encoding: chunked, gzip\r\n"), BAD),
    (head(b"Transfer-Encoding: gzip, chunked\r\n"), CODING),
    (head(b"Transfer-Encoding: gzip\r\n"), CODING),
    (head(b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.0"), BAD),
    (b"GET / HTTP/1.1\r\n\r\n", BAD), (head(b"Host: a\r\n"), BAD), (head(b"Host: b\r\n"), BAD),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD), (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BAD), (b"GET / HTTP/1.1\r\nHost: <a>\r\n\r\n", BAD),
    (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD), (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", BAD), (b"GET /\r\n\r\n", BAD), (b"GET /\r\n", BAD),
    (b"GET / HTTP/0.9\r\n\r\n", VERSION), (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", VERSION),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION), (b"\x16\x03\x01\x02\x00\x01\x00", BAD),
    (b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n", BAD), (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", BAD), (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"A" * 65 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", CODING),
    (head(b"Expect: something\r\n"), EXPECT), (head(b"A: b\r\n" * 130), FIELDS),
    (head(b"X: " + b"a" * 17000 + b"\r\n"), FIELDS), (head(b"X: " + b"a" * 90000 + b"\r\n"), FIELDS),
    (b"GET /" + b"a" * 17000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", TARGET),
    (b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", TARGET),
]


def refuses(s):
    for data, want in REFUSED:
        same((data[:80], talk(s, data)), (data[:80], want))
        same((data[:80], talk(s, GET + data)), (data[:80], HELLO + want))


def refuses_in_pieces(s):
    for data, want in REFUSED:
        if len(data) < 100:
            same((data, talk(s, data, 7)), (data, want))


def nothing_behind(s):
    """What follows a refusal is not served, whatever it is."""
    for data, want in REFUSED[:20]:
        same((data, talk(s, data + GET * 3)), (data, want))


def accepts(s):
    for data in (GET, b"\r\n" + GET, b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
                 b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", head(b"X: \x80\xff\r\n"), head(b"X:\r\n"),
                 b"GET / HTTP/1.1\r\nHost:\r\n\r\n", b"GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
                 b"GET http://A:80/ HTTP/1.1\r\nHost: a:80\r\n\r\n", head(b"A_B: 1\r\nC.D: 2\r\n"),
                 b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
                 head(b"A: b\r\n" * 126), head(b"X: " + b"a" * 16000 + b"\r\n"),
                 b"GET /" + b"a" * 16000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"):
        same((data[:80], talk(s, data)), (data[:80], HELLO))
    same(talk(s, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"), OK + b"\r\n")
    same(talk(s, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
         b"HTTP/1.1 200 OK\r\nServer: portico\r\nDate: x\r\nContent-Length: 0\r\n\r\n")
    same(talk(s, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n")[:12], b"HTTP/1.1 405")


def persists(s):
    keep = OK + b"Connection: keep-alive\r\n\r\nhello"
    for data, want in (
            (GET * 3, HELLO * 3), (head(b"Connection: close\r\n") + GET, CLOSE),
            (head(b"Connection: keep-alive, CLOSE\r\n") + GET, CLOSE),
            (head(b"Connection: x, y\r\n") + GET, HELLO * 2),
            (b"GET / HTTP/1.0\r\n\r\n" + GET, CLOSE),
            (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" + GET, keep + HELLO),
            (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n" + GET, CLOSE)):
        same((data, talk(s, data)), (data, want))


def bodies_between(s):
    """Requests with bodies that nobody reads, pipelined, in pieces of several sizes."""
    one = (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nGET / " +
           b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nGET\r\n0\r\n"
           b"X: y\r\n\r\n" + GET)
    for piece in (None, 1, 5, 64):
        same((piece, talk(s, one, piece, 0.0005)), (piece, HELLO * 3))
    large = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200000
    same(talk(s, large * 2 + GET), HELLO * 3)


def too_much_left(s):
    """A body that nobody reads is read away up to a limit; beyond it the answer still arrives."""
    for size in (300000, 5000000):
        data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
        got = talk(s, data + b"x" * min(size, 290000))
        assert got.startswith(CLOSE), got[:200]
        same(got.count(b"HTTP/1.1"), 1)


def continues(s):
    """100 Continue comes when the body is asked for, and only then."""
    post = b"POST /config/ HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/json\r\n" % s.admin
    with socket.create_connection(("127.0.0.1", s.admin), 60) as c:
        c.sendall(post + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        same(c.recv(65536), b"HTTP/1.1 100 Continue\r\n\r\n")
        c.sendall(b"{x")
        same(c.recv(65536)[:12], b"HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", s.port), 60) as c:
        c.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        answer = b""
        while part := c.recv(65536):  # nobody wants the body: the answer, and the end
            answer += part
        same(re.sub(rb"Date: [^\r]*", b"Date: x", answer), CLOSE)


CASES = [
    ("what is malformed or may smuggle is refused, alone and behind a good request", refuses),
    ("the same is refused when it comes in pieces", refuses_in_pieces),
    ("nothing behind a refusal is served", nothing_behind),
    ("unusual but correct requests are served", accepts),
    ("connections persist as their version and fields say", persists),
    ("bodies that nobody reads do not disturb what is pipelined behind them", bodies_between),
    ("a body beyond what is read away closes the connection behind its answer", too_much_left),
    ("100 Continue is said when the body is read", continues),
]


run_cases([(name, with_server(case, body="hello")) for name, case in CASES])
