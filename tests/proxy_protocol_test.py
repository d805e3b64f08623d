#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The PROXY protocol on a listener, as exact bytes, as TAP. Usage: proxy_protocol_test.py PORTICO."""
import os
import socket
import struct
import sys
import time

from server import Server, run_cases, same

PORTICO = os.path.abspath(sys.argv[1])
BODY = "{http.request.remote.host} {http.request.remote.port} {http.request.local.port}"
V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 80\r\n"
V2 = (b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", 16) + socket.inet_aton("192.0.2.1")
      + socket.inet_aton("192.0.2.2") + struct.pack("!HH", 12345, 80) + b"\x04\0\1x")
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.0\r\n\r\n"


def start(io, **wrapper):
    wrappers = [{"wrapper": "proxy_protocol", **wrapper}, {"wrapper": "tls"}]
    return Server(PORTICO, io, body=BODY, members={"listener_wrappers": wrappers}, awaited=False)


def wait(s):
    s.wait(lambda: s.api("GET", "/config/")[0] == 200)


def talk(s, *pieces, pause=0.0):
    """What comes back until the end; b"" when the server only closes."""
    with socket.create_connection(("127.0.0.1", s.port), 30) as c:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        got = b""
        try:
            for piece in pieces:
                c.sendall(piece)
                time.sleep(pause)
            while piece := c.recv(65536):
                got += piece
        except ConnectionError:
            pass
        return got


def body(s, *pieces, **more):
    got = talk(s, *pieces, **more)
    return got.rsplit(b"\r\n\r\n", 1)[1] if b"\r\n\r\n" in got else got


def used(io):
    s = start(io, allow=["127.0.0.0/8"])
    wait(s)
    try:
        for header in (V1, V2):
            same(body(s, header + LAST), b"192.0.2.1 12345 80")
            same(body(s, header, LAST, pause=0.03), b"192.0.2.1 12345 80")
            same(body(s, *(header[i:i + 1] for i in range(len(header))), LAST, pause=0.003),
                 b"192.0.2.1 12345 80")
            same(talk(s, header + GET + GET + LAST).count(b"192.0.2.1 12345 80"), 3)
        for whole in (LOCAL + LAST, b"PROXY UNKNOWN\r\n" + LAST, LAST):
            host, _, port = body(s, whole).decode().split()
            same((host, port), ("127.0.0.1", str(s.port)))
        six = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"
        same(body(s, six + LAST), b"2001:db8::1 1 2")
        host, *_ = body(s, *(LAST[i:i + 1] for i in range(len(LAST))), pause=0.003).decode().split()
        same(host, "127.0.0.1")
        same(talk(s, b"PROXY TCP4 nonsense\r\n" + LAST), b"")
        same(talk(s, V2[:12] + b"\x11\x11\0\0" + LAST), b"")
        same(talk(s, V1 + V1 + LAST)[:12], b"HTTP/1.1 400")
    finally:
        same(s.end(), 0)


def policies(io):
    own = "127.0.0.1"
    for wrapper, with_header, without in (
            ({}, own, own), ({"fallback_policy": "use"}, "192.0.2.1", own),
            ({"fallback_policy": "REJECT"}, None, own),
            ({"fallback_policy": "REQUIRE"}, "192.0.2.1", None),
            ({"deny": ["127.0.0.1/32"], "allow": ["0.0.0.0/0"]}, None, own),
            ({"deny": ["10.0.0.0/8"], "fallback_policy": "USE"}, "192.0.2.1", own)):
        s = start(io, **wrapper)
        wait(s)
        try:
            for whole, want in ((V1 + LAST, with_header), (V2 + LAST, with_header), (LAST, without)):
                got = body(s, whole).decode().split()
                same((wrapper, got[:1]), (wrapper, [want] if want else []))
        finally:
            same(s.end(), 0)
    s = start(io, fallback_policy="SKIP")
    wait(s)
    try:
        same(talk(s, V1 + LAST)[:12], b"HTTP/1.1 400")
        same(body(s, LAST).decode().split()[0], own)
    finally:
        same(s.end(), 0)


def timeouts(io):
    s = start(io, allow=["127.0.0.0/8"], timeout="300ms")
    wait(s)
    try:
        begin = time.monotonic()
        same(talk(s, V1[:20]), b"")
        assert 0.25 < time.monotonic() - begin < 9
        # "PRO" may be PROXY or PROPFIND: when the time is over, it is a request.
        same(body(s, b"PRO", b"PFIND / HTTP/1.0\r\n\r\n", pause=0.5).split()[0], b"127.0.0.1")
        same(body(s, b"G", LAST[1:], pause=0.5).split()[0], b"127.0.0.1")
    finally:
        same(s.end(), 0)


def drains(io):
    """Connections that stand before their header do not hold the end for longer than its time."""
    for timeout in ("1s", "-1s"):  # below 0: they may wait as long as nobody wants to end
        s = start(io, allow=["127.0.0.0/8"], timeout=timeout)
        wait(s)
        with socket.create_connection(("127.0.0.1", s.port), 30) as begun, \
                socket.create_connection(("127.0.0.1", s.port), 30):
            begun.sendall(V1[:10])
            time.sleep(0.1)
            begin = time.monotonic()
            same(s.end(), 0)
            assert time.monotonic() - begin < 15


def ended_early(io):
    """Peers that leave in the middle leave nothing behind."""
    s = start(io, allow=["127.0.0.0/8"])
    wait(s)
    try:
        before = s.live()
        for i in range(len(V2)):
            with socket.create_connection(("127.0.0.1", s.port), 30) as c:
                c.sendall(V2[:i])
        s.wait(lambda: s.live() == before)
    finally:
        same(s.end(), 0)


def refused(io):
    for wrappers, want in (([{"wrapper": "http_redirect", "x": 1}], "listener_wrappers[0]"),
                           ([{"wrapper": "tls"}], "is unnecessary"),
                           ([{"wrapper": "proxy_protocol"}, {"wrapper": "tls"},
                             {"wrapper": "http_redirect"}], "no meaning behind tls"),
                           ([{"wrapper": "nonsense"}], "caddy.listeners.nonsense"),
                           ([{"wrapper": "proxy_protocol", "allow": ["x"]}], "range of addresses"),
                           ([{"wrapper": "proxy_protocol", "fallback_policy": "x"}], "IGNORE"),
                           ([{"wrapper": "proxy_protocol", "x": 1}], "listener_wrappers[0]"),
                           ([{"wrapper": "proxy_protocol"}] * 2, "twice"), ({}, "array")):
        s = Server(PORTICO, io, members={"listener_wrappers": wrappers}, awaited=False)
        s.process.wait(60)
        text = s.text()
        same(s.end(), 1)
        assert want in text, (want, text)


run_cases([
    ("headers of both versions are taken off and their addresses count", used),
    ("allow, deny and the fallback policy decide whose header counts", policies),
    ("a header that does not come in time is none, one that does not end closes", timeouts),
    ("connections before their header do not hold the end", drains),
    ("peers that leave in the middle of a header leave nothing behind", ended_early),
    ("wrappers that are not there or not written well are refused", refused, ("epoll",)),
], at_once=2)
