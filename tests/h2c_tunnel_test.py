#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""WebSockets through the gateway to an upstream of HTTP/2, from clients of HTTP/1.1 and HTTP/2, as TAP: what they
cost while silent, how each side slows the other, how they end. Usage: h2c_tunnel_test.py PORTICO [TEXT]."""
import contextlib
import json
import os
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
import h2_client  # noqa: E402 (beside this file)
from h2_client import CODES, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS  # noqa: E402
from h2_upstream import Upstream  # noqa: E402
from server import Server, run_cases, same  # noqa: E402

PORTICO = sys.argv[1]
INITIAL_WINDOW, CONNECT = 4, 8
EACH = 130  # tunnels of each kind of client
HEAD = (b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
GOING_AWAY = b"\x88\x02\x03\xe9"


# --- the sides ---

def quiet(c):
    """Agrees to each tunnel and keeps what comes; what is said the test says."""
    c.grants = c.upstream.grants
    while True:
        f = c.read()
        if f.kind == HEADERS and not c.streams[f.stream].ended:
            c.head(f.stream, 200)


def echo(c):
    while True:
        f = c.read()
        if f.kind == HEADERS and not c.streams[f.stream].ended:
            c.head(f.stream, 200)
            c.data(f.stream, b"ready")
        elif f.kind == DATA:
            c.data(f.stream, f.payload, bool(f.flags & END_STREAM))


def upstream(play=quiet, grants=True, settings=()):
    up = Upstream(play, settings=[(CONNECT, 1), *settings])
    up.grants = grants
    return up


class Far:
    """The upstream's side of a tunnel: the newest one."""

    def __init__(self, s, up, count):
        s.wait(lambda: len(up.requests) >= count)
        self.request, self.stream = up.requests[count - 1], up.requests[count - 1].stream
        self.conn = next(c for c in up.conns if c.streams.get(self.stream) is self.request)
        self.wait = s.wait

    def say(self, data, end=False):
        self.conn.data(self.stream, data, end)

    def heard(self, n):
        self.wait(lambda: len(self.request.body) >= n, 20)
        return self.request.body

    def end(self):
        """How the client's side ended."""
        self.wait(lambda: self.request.ended or self.request.reset is not None)
        return self.request.reset or "end"


class One:
    """A client's side over HTTP/1.1."""

    def __init__(self, s, room=None):
        self.sock, self.rest = socket.socket(), b""
        if room:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.settimeout(20)
        self.sock.connect(("127.0.0.1", s.port))
        self.sock.sendall(HEAD)
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.sock.recv(65536)
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def say(self, data, end=False):
        self.sock.sendall(data)
        if end:
            self.sock.shutdown(socket.SHUT_WR)

    def heard(self, n):
        while len(self.rest) < n:
            piece = self.sock.recv(65536)
            assert piece, self.rest
            self.rest += piece
        got, self.rest = self.rest[:n], self.rest[n:]
        return got

    def all(self):
        """What still comes before the end."""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.sock.recv(65536):
                self.rest += piece
        return self.rest

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()


class Two:
    """One over HTTP/2; several may share a connection."""

    def __init__(self, s, room=None, c=None):
        self.c = c or h2_client.Client(s.port, settings=[(INITIAL_WINDOW, room)] if room else [], grants=not room, timeout=20)
        self.stream = self.c.ask([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                                  (":path", "/chat"), (":authority", "a"), ("sec-websocket-version", "13")], end=False)
        self.answer = self.c.answers[self.stream]
        self.c.until(lambda: self.answer.status is not None)
        same(self.answer.status, 200)

    def say(self, data, end=False):
        self.c.data(self.stream, data, end)

    def heard(self, n):
        self.c.until(lambda: len(self.answer.body) >= n)
        got, self.answer.body = self.answer.body[:n], self.answer.body[n:]
        return got

    def all(self):
        self.c.answer(self.stream)
        return self.answer.body

    def reset(self):
        self.c.rst(self.stream)

    def close(self):
        self.c.close()


# --- a case ---

def document(up, **options):
    return [{"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": up.dial}],
                         **{"transport": {"protocol": "http", "versions": ["h2c"]}, **options}}]}]


def load(s, up, **options):
    s.document["apps"]["http"]["servers"]["srv0"]["routes"] = document(up, **options)
    same(s.api("POST", "/load", s.document, {"Cache-Control": "must-revalidate"})[0], 200)


@contextlib.contextmanager
def gateway(io, up, workers=1, members=None, **options):
    s = Server(PORTICO, io, workers=workers, awaited=False, routes=document(up, **options),
               members={"protocols": ["h1", "h2c"], **(members or {})})
    try:
        s.wait(lambda: socket.create_connection(("127.0.0.1", s.port), 5).close() is None)
        yield s
        s.wait(lambda: (lambda l: l["fibers"] == 0 and l["connections"] == 0)(s.live()))
        status = s.end()
    except BaseException:
        s.end()
        raise
    finally:
        up.close()
    same(status, 0)


def both(run, **how):
    """With clients of either kind, each with a server of its own. `run` gets the server, what opens a client's
    side, and the upstream."""
    def case(io):
        for kind in (One, Two):
            up = upstream(**how)
            with gateway(io, up) as s:
                run(s, kind, up)
    return case


def silent(io):
    """Hundreds of them take no fiber, neither before nor after something was said."""
    up = upstream(echo)
    with gateway(io, up) as s:
        c = h2_client.Client(s.port, grants=True, timeout=20)
        tunnels = [One(s) for _ in range(EACH)] + [Two(s, c=c) for _ in range(EACH // 2)]
        more = h2_client.Client(s.port, grants=True, timeout=20)
        tunnels += [Two(s, c=more) for _ in range(EACH // 2)]
        same({t.heard(5) for t in tunnels}, {b"ready"})
        s.wait(lambda: s.live()["fibers"] == 0)
        for _ in range(2):
            for i, t in enumerate(tunnels):
                t.say(b"say %3d" % i)
            same([t.heard(7) for t in tunnels], [b"say %3d" % i for i in range(len(tunnels))])
            s.wait(lambda: s.live()["fibers"] == 0)
        same(len(up.requests), 2 * EACH)
        assert 2 <= len(up.conns) <= 6, len(up.conns)
        for i, t in enumerate(tunnels):  # each ends in another way
            if i % 3 == 0:
                t.say(b"bye", True)
            elif i % 3 == 1:
                t.reset()
        same({t.all() for t in tunnels[::3]}, {b"bye"})
        for t in tunnels[2:EACH:3]:
            t.close()
        for n in (c, more):
            assert n.alive()
            n.close()
        for t in tunnels[:EACH:3]:
            t.close()
        s.wait(lambda: all(r.ended or r.reset is not None for r in up.requests))


def last_words(s, kind, up):
    """What the upstream says with its end, before its end, and before it resets the stream, all arrives."""
    t, far = kind(s), Far(s, up, 1)
    far.say(b"all that there is", True)
    same(t.all(), b"all that there is")
    t.say(b"yes", True)
    same((far.end(), far.request.body), ("end", b"yes"))
    t.close()
    for i, ends in enumerate((True, False)):
        t, far = kind(s), Far(s, up, i + 2)
        words = os.urandom(40000)
        out = b"".join(h2_client.frame(DATA, END_STREAM if ends and at == 30000 else 0, far.stream, words[at:at + 10000])
                       for at in range(0, 40000, 10000))
        far.conn.send(out + h2_client.frame(RST_STREAM, 0, far.stream, struct.pack("!I", 0 if ends else 8)))
        same(t.all(), words)
        if kind is Two:
            same((t.answer.ended, t.answer.reset), (True, None) if ends else (False, "CANCEL"))
        t.say(b"to nobody")
        t.close()
    t, far = kind(s), Far(s, up, 4)  # trailers are an end like any other
    far.say(b"words")
    far.conn.frame(HEADERS, END_HEADERS | END_STREAM, far.stream, h2_client.block([("x-sum", "1" * 300)]))
    same(t.all(), b"words")
    t.close()
    same(len(up.conns), 1)


def resets(s, kind, up):
    """A reset of either side reaches the other, whether anything was said before or not."""
    for i, words in enumerate((b"", b"hello")):
        t, far = kind(s), Far(s, up, 2 * i + 1)
        t.say(words)
        far.heard(len(words))
        far.conn.rst(far.stream)
        same(t.all(), b"")
        if kind is Two:
            same(t.answer.reset, "CANCEL")
        t.close()
        t, far = kind(s), Far(s, up, 2 * i + 2)
        far.say(words)
        same(t.heard(len(words)), words)
        t.reset()
        same(far.end(), "CANCEL")
        t.close()
    same(len(up.conns), 1)


def broken_while_stuck(s, kind, up):
    """The upstream resets a tunnel whose client takes nothing: it is cut all the same, some seconds later."""
    t, far = kind(s, room=1000), Far(s, up, 1)
    far.conn.send(b"".join(h2_client.frame(DATA, 0, far.stream, bytes(16384)) for _ in range(15)))
    far.conn.rst(far.stream)
    if kind is Two:
        t.c.until(lambda: t.answer.reset is not None)
        same(len(t.answer.body), 1000)
    s.wait(lambda: s.live()["fibers"] == 0, 20)
    t.close()


def slow_client(s, kind, up):
    """Its window is all that the upstream may send, but for the buffers on the way; then all of it arrives."""
    t, far = kind(s, room=1000), Far(s, up, 1)
    got, sent = os.urandom(16384), 0

    def window():
        return sum(int.from_bytes(f.payload, "big") for f in list(far.conn.frames)
                                   if f.kind == h2_client.WINDOW_UPDATE and f.stream == far.stream)
    room = far.conn.settings[INITIAL_WINDOW]
    most, still = 0, time.monotonic()
    while time.monotonic() - still < 0.5:
        if sent + 16384 <= room + window():
            far.say(got)
            sent += 16384
            still = time.monotonic()
        most = max(most, sent)
        assert sent < 32 << 20, sent
        time.sleep(0 if sent + 16384 <= room + window() else 0.01)
    assert room - 16384 < sent, (room, sent)
    if kind is Two:
        t.c.grants = True
        t.c.frame(SETTINGS, 0, 0, struct.pack("!HI", INITIAL_WINDOW, 1 << 24))
        t.c.window(0, 1 << 24)
    same(t.heard(sent), got * (sent // 16384))
    far.say(b"more", True)
    same(t.all(), b"more")
    t.say(b"", True)
    same(far.end(), "end")
    t.close()


def slow_upstream(s, kind, up):
    """The client is slowed by the upstream's window, and nobody else is; what it has said arrives as that opens."""
    t, far = kind(s), Far(s, up, 1)
    other, there = kind(s), Far(s, up, 2)
    data, n = os.urandom(60000), 0
    if kind is One:
        t.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while n < 64 << 20:
                n += t.sock.send((data + data)[n % 60000:][:60000])
        t.sock.settimeout(20)
        assert n < 64 << 20
    else:
        for at in range(0, 60000, 10000):
            t.say(data[at:at + 10000])
        n = 60000
    far.heard(1000)
    same(len(far.request.body), 1000)
    other.say(b"x" * 5)
    same(there.heard(5), b"x" * 5)
    far.conn.window(0, 1 << 30)
    far.conn.window(far.stream, 1 << 30)
    same(far.heard(n), (data * (n // 60000 + 1))[:n])
    there.say(b"fine")
    same(other.heard(4), b"fine")
    for x in (t, other):
        x.reset()
    same({far.end(), there.end()}, {"CANCEL"})
    for x in (t, other):
        x.close()


def stuck_and_reset(s, kind, up):
    """The upstream's reset ends a tunnel that waits for its window, and so does its client's."""
    for i in range(2):
        t, far = kind(s), Far(s, up, i + 1)
        t.say(b"x" * 5000)
        far.heard(1000)
        if i == 0:
            far.conn.rst(far.stream)
            same(t.all(), b"")
        elif kind is Two:  # the socket's reset is seen with what it says next, or the server's write
            t.reset()
            same(far.end(), "CANCEL")
        else:
            far.conn.window(far.stream, 4000)
            far.heard(5000)
            t.reset()
            same(far.end(), "CANCEL")
        t.close()


def goaway(s, kind, up):
    """Tunnels go on behind the upstream's GOAWAY; new ones get another connection, and the old one ends behind the
    last of its own."""
    for number, code in enumerate(("NO_ERROR", "ENHANCE_YOUR_CALM")):
        at = 3 * number
        olds = [kind(s) for _ in range(2)]
        fars = [Far(s, up, at + i + 1) for i in range(2)]
        first = fars[0].conn
        first.say_goaway(fars[0].stream, code)
        fars[0].say(b"still")
        same(olds[0].heard(5), b"still")
        new = kind(s)
        last = Far(s, up, at + 3)
        assert last.conn is not first
        for t, far in zip(olds, fars):
            far.say(b"here")
            same(t.heard(4), b"here")
            t.say(b"there")
            same(far.heard(5), b"there")
        olds[0].say(b"", True)
        fars[0].say(b"", True)
        olds[1].reset()
        s.wait(lambda: first.goaway is not None)
        new.say(b"on")
        same(last.heard(2), b"on")
        last.conn.say_goaway(last.stream)
        new.reset()
        for t in (*olds, new):
            t.close()


def killed(s, kind, up):
    """The upstream is gone: its tunnels end, those of another connection go on, and new ones come."""
    tunnels = [kind(s) for _ in range(20)]
    s.wait(lambda: len(up.requests) == 20)
    conn = up.conns[0]
    tunnels[0].say(b"x" * 3000)
    Far(s, up, 1).heard(1000)
    for i, words in enumerate((b"last", b"")):
        Far(s, up, i + 2).say(words)
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0) if kind is Two else bytes(8))
    conn.sock.shutdown(socket.SHUT_RDWR if kind is One else socket.SHUT_RD)  # wakes who reads it, and closes it
    for i, t in enumerate(tunnels):
        if kind is One:
            same(t.all(), b"last" if i == 1 else b"")
        else:
            assert t.all() in (b"", b"last")
            same((t.answer.ended, t.answer.reset), (False, "CANCEL"))
        t.close()
    s.wait(lambda: s.live()["fibers"] == 0)
    t = kind(s)
    far = Far(s, up, 21)
    far.say(b"again")
    same(t.heard(5), b"again")
    t.close()


def unmasked(heard):
    return bytes(b ^ heard[2 + i % 4] for i, b in enumerate(heard[6:8]))


def ends(s, kind, up):
    """stream_timeout; reloads end tunnels, at once or after stream_close_delay, with a close frame."""
    load(s, up, stream_timeout="300ms")
    began = time.monotonic()
    t, far = kind(s), Far(s, up, 1)
    same(t.all(), b"")
    assert 0.25 < time.monotonic() - began < 10
    same(far.end(), "CANCEL")
    load(s, up)
    t.close()
    t, far = kind(s), Far(s, up, 2)
    load(s, up, stream_timeout="1m")
    same((t.all(), far.end(), unmasked(far.request.body)), (GOING_AWAY, "CANCEL", GOING_AWAY[2:]))
    t.close()
    load(s, up, stream_close_delay="60s")
    stays, there = kind(s), Far(s, up, 3)
    load(s, up, stream_close_delay="500ms")
    t, far = kind(s), Far(s, up, 4)
    began = time.monotonic()
    load(s, up)
    same((t.all(), far.end(), unmasked(far.request.body)), (GOING_AWAY, "CANCEL", GOING_AWAY[2:]))
    assert time.monotonic() - began > 0.4
    stays.say(b"still")
    same(there.heard(5), b"still")
    there.say(b"there")
    same(stays.heard(5), b"there")
    t.close()
    stays.close()


def tells(io):
    """The access log tells of a tunnel when it has ended, with what went through it."""
    for kind in (One, Two):
        up = upstream()
        with gateway(io, up, members={"logs": {}}) as s:
            def lines(s=s):
                return [line for line in map(json.loads, filter(None, s.text().splitlines()))
                        if line.get("msg") == "handled request"]
            t, far = kind(s), Far(s, up, 1)
            t.say(b"x" * 10000)
            far.heard(10000)
            far.conn.send(b"".join(h2_client.frame(DATA, 0, far.stream, b"y" * 10000) for _ in range(3)))
            same(t.heard(30000), b"y" * 30000)
            same(lines(), [])
            t.say(b"", True)
            same(far.end(), "end")
            far.say(b"", True)
            s.wait(lambda: len(lines()) == 1)
            line, = lines()
            same((line["status"], line["bytes_read"], line["size"]), (101 if kind is One else 200, 10000, 30000))
            t.close()


def stops(io):
    """A stop tells the WebSockets, and does not wait for them."""
    for kind in (One, Two):
        up = upstream()
        s = Server(PORTICO, io, awaited=False, members={"protocols": ["h1", "h2c"]}, routes=document(up), grace_period="20s")
        try:
            s.wait(lambda: socket.create_connection(("127.0.0.1", s.port), 5).close() is None)
            tunnels = [kind(s) for _ in range(5)]
            s.wait(lambda: len(up.requests) == 5)
            s.process.terminate()
            for t in tunnels:
                same(t.all(), GOING_AWAY)
                t.close()
            same(s.end(None), 0)
        finally:
            if s.process.poll() is None:
                s.process.kill()
                s.process.wait()
            up.close()


def left_before_settings(io):
    """Whose client leaves before the upstream has said whether it takes tunnels is not asked for at all."""
    def late(c):
        begun.append(c)
        up.gate.wait(30)
        c.say_settings((CONNECT, 1))
        quiet(c)
    begun, up = [], Upstream(late, settings=None)
    up.grants = True
    patient = {"protocol": "http", "versions": ["h2c"], "dial_timeout": "60s"}
    with gateway(io, up, transport=patient) as s:
        c = h2_client.Client(s.port, timeout=20)
        streams = [c.stream(), c.stream()]
        head = h2_client.block([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                                (":path", "/left"), (":authority", "a"), ("sec-websocket-version", "13")])
        c.send(b"".join(h2_client.frame(HEADERS, END_HEADERS, n, head) for n in streams))
        s.wait(lambda: len(begun) == 1 and s.live()["exchanges"] == 2)
        for n in streams:
            c.rst(n)
        s.wait(lambda: s.live()["exchanges"] == 0)
        up.gate.set()
        t = Two(s, c=c)
        s.wait(lambda: all(n.acknowledged for n in up.conns))
        same([(r.field(":method"), r.field(":path")) for r in up.requests], [("CONNECT", "/chat")])
        t.reset()
        c.close()


same(CODES[0], "NO_ERROR")
NARROW = {"grants": False, "settings": [(INITIAL_WINDOW, 1000)]}
run_cases([
    ("hundreds of silent ones take no fiber", silent),
    ("what an upstream says last arrives", both(last_words)),
    ("a reset reaches the other side", both(resets)),
    ("an upstream's reset ends one whose client takes nothing", both(broken_while_stuck)),
    ("a client that takes nothing slows the upstream", both(slow_client)),
    ("an upstream that takes nothing slows the client, and nobody else", both(slow_upstream, **NARROW)),
    ("a reset ends one that waits for window", both(stuck_and_reset, **NARROW)),
    ("they go on behind the upstream's GOAWAY", both(goaway)),
    ("they end with the upstream", both(killed, **NARROW)),
    ("timeouts and reloads end them", both(ends)),
    ("the access log tells of them when they have ended", tells),
    ("a stop ends them", stops),
    ("who leaves before the upstream's SETTINGS is not asked for", left_before_settings),
], at_once=3)
