#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""WebSockets over HTTP/2 through the gateway, as TAP: what they cost while silent, how each side slows the
other, how they end. Usage: h2_tunnel_test.py PORTICO [TEXT]."""
import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
from h2_test import (  # noqa: E402 (beside this file)
    CLEAR, DATA, HEADERS, PORTICO, RST_STREAM, SETTINGS, WINDOW_UPDATE, Echo, Raw, connect, frame, in_all, served)
from server import Server, run_cases, same  # noqa: E402

CONNECTIONS, EACH = 3, 100
SWITCHED = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: x\r\n\r\n")
GOING_AWAY = b"\x88\x02\x03\xe9"


class Upstream:
    """Switches protocols at once; what then happens each test does itself."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.settimeout(20)
        self.port = self.listener.getsockname()[1]

    def accept(self):
        peer = self.listener.accept()[0]
        peer.settimeout(20)
        head = b""
        while b"\r\n\r\n" not in head:
            head += peer.recv(1)
        peer.sendall(SWITCHED)
        return peer


def routes(up, **options):
    return [{"match": [{"path": ["/chat"]}], "terminal": True,
             "handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{up.port}"}], **options}]},
            {"handle": [{"handler": "static_response", "body": "one"}]}]


def take(peer, n):
    got = b""
    while len(got) < n:
        piece = peer.recv(min(65536, n - len(got)))
        assert piece, f"ended after {len(got)} of {n} bytes"
        got += piece
    return got


def ended(peer):
    with contextlib.suppress(ConnectionResetError):
        while peer.recv(65536):
            pass
    return True


def opened(c, up, stream=1):
    connect(c, stream)
    peer = up.accept()
    same(c.until(HEADERS, stream=stream)[3][":status"], "200")
    return peer


def settled(s, fibers):
    s.wait(lambda: s.live()["fibers"] == fibers)


def silent(s, echo):
    """Hundreds of them take no fiber, neither before nor after something was said."""
    before = s.live()["fibers"]
    clients = [Raw(s) for _ in range(CONNECTIONS)]
    streams = range(1, 2 * EACH, 2)
    for c in clients:
        for stream in streams:
            connect(c, stream)
        opened_now, ready = set(), {n: b"" for n in streams}
        while len(opened_now) < EACH or any(len(r) < 5 for r in ready.values()):
            kind, _, stream, payload = c.until(HEADERS, DATA)
            if kind == HEADERS:
                same(payload[":status"], "200")
                opened_now.add(stream)
            else:
                ready[stream] += payload
        same(set(ready.values()), {b"ready"})
    settled(s, before)
    for c in clients:
        for stream in streams:
            c.send(frame(DATA, 0, stream, b"say %3d" % stream))
        said = {n: b"" for n in streams}
        while any(len(w) < 7 for w in said.values()):
            _, _, stream, payload = c.until(DATA)
            said[stream] += payload
        same([said[n] for n in streams], [b"say %3d" % n for n in streams])
    settled(s, before)
    for stream in streams:  # each ends in another way
        clients[0].send(frame(DATA, 1, stream))
        clients[1].send(frame(RST_STREAM, 0, stream, struct.pack(">I", 8)))
    clients[2].c.close()
    s.wait(lambda: echo.ended == CONNECTIONS * EACH)
    over = set()
    while len(over) < EACH:
        _, flags, stream, payload = clients[0].until(DATA)
        same((flags, payload), (1, b""))
        over.add(stream)
    connect(clients[1], 2 * EACH + 1)  # the connections serve on
    same(in_all(clients[1], 2 * EACH + 1, 5), b"ready")
    for c in clients[:2]:
        c.c.close()


def many_silent(io):
    for secure in (False, True):
        echo = Echo()
        served(lambda s, e=echo: silent(s, e), secure=secure, gateway=True, routes=routes(echo))(io)


def slow_client(s, up):
    """Its window is all that the upstream gets rid of, but for the buffers on the way."""
    c = Raw(s, struct.pack(">HI", 4, 1000))
    peer = opened(c, up)
    data, sent = os.urandom(1 << 16), 0
    peer.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while sent < 64 << 20:
            sent += peer.send(data)
    assert 1000 < sent < 32 << 20, sent
    peer.settimeout(20)
    got = 0
    c.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 30)) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
    while got < sent:
        got += len(c.until(DATA, stream=1)[3])
    same(got, sent)
    peer.close()
    same(c.until(DATA, stream=1)[1:4:2], (1, b""))
    c.send(frame(DATA, 1, 1))
    c.c.close()


def last_words(s, up):
    """Bytes that come with the end of the stream arrive before it."""
    c = Raw(s)
    for stream, words in ((1, b"bye"), (3, os.urandom(60000))):
        peer = opened(c, up, stream)
        c.send(b"".join(frame(DATA, at + 10000 >= len(words), stream, words[at:at + 10000])
                        for at in range(0, len(words), 10000)))
        same(take(peer, len(words)), words)
        same(ended(peer), True)
        peer.sendall(b"yes")
        peer.close()
        same(in_all(c, stream, 4), b"yes")
    c.c.close()


class Counting(Raw):
    """Knows what it may send."""

    def __init__(self, s):
        super().__init__(s)
        self.windows = {}

    def frames(self):
        for f in super().frames():
            if f[0] == WINDOW_UPDATE:
                self.windows[f[2]] = self.window(f[2]) + struct.unpack(">I", f[3])[0]
            yield f

    def window(self, stream):
        return self.windows.get(stream, 65535)

    def say(self, stream, n, still=1):
        """As many as it may, until it has stood still for a second."""
        sent = 0
        self.c.settimeout(still)
        while sent < n:
            now = min(self.window(0), self.window(stream), 16384, n - sent)
            if now > 0:
                self.send(frame(DATA, 0, stream, b"x" * now))
                sent += now
                for i in (0, stream):
                    self.windows[i] = self.window(i) - now
                continue
            try:
                self.until(WINDOW_UPDATE)
            except TimeoutError:
                break
        self.c.settimeout(20)
        return sent


def slow_upstream(s, up):
    """The client gets window only as the upstream takes what came; then all of it arrives."""
    c = Counting(s)
    peer, other = opened(c, up), opened(c, up, 3)
    sent = c.say(1, 24 << 20)
    assert 65535 <= sent < 24 << 20, sent
    same((c.say(3, 5), take(other, 5)), (5, b"xxxxx"))  # it harms no other
    take(peer, sent)
    same((c.say(1, 100000, 20), len(take(peer, 100000))), (100000, 100000))
    c.send(frame(RST_STREAM, 0, 1, struct.pack(">I", 8)) + frame(RST_STREAM, 0, 3, struct.pack(">I", 8)))
    same((ended(peer), ended(other)), (True, True))
    c.c.close()


def stuck_and_reset(s, up):
    """A reset ends a tunnel whose upstream takes nothing and says nothing."""
    c = Raw(s)
    peer = opened(c, up)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    left = 65535
    while left > 0:
        n = min(left, 16384)
        c.send(frame(DATA, 0, 1, b"x" * n))
        left -= n
    c.send(frame(RST_STREAM, 0, 1, struct.pack(">I", 8)))
    same(ended(peer), True)
    c.c.close()


def last_words(s, up):
    """The end that comes with the last bytes, in one frame, goes over behind them."""
    c = Raw(s)
    for n, stream in enumerate(range(1, 20, 2)):
        peer = opened(c, up, stream)
        c.send(frame(DATA, 1, stream, b"bye %d" % n))
        same(take(peer, 5), b"bye %d" % n)
        same(peer.recv(1), b"")
        peer.sendall(b"so long")
        peer.close()
        same(in_all(c, stream, 7), b"so long")
    c.c.close()


def stuck_upload(s, up):
    """A reset of the client, or its end, reaches an upstream that takes no more of the upload."""
    for leave in (lambda c: c.send(frame(RST_STREAM, 0, 1, struct.pack(">I", 8))), lambda c: c.c.close()):
        c = Counting(s)
        c.get(1, "/chat", (("content-length", str(1 << 30)),), ends=False, method="POST")
        peer = up.listener.accept()[0]
        assert 65535 <= c.say(1, 24 << 20) < 24 << 20
        leave(c)
        poll = select.poll()
        poll.register(peer, select.POLLHUP | select.POLLERR)
        assert poll.poll(30000), "the upstream has not heard of it"
        peer.close()
        c.c.close()


def with_upstream(run, **options):
    def case(io):
        up = Upstream()
        served(lambda s: run(s, up), gateway=True, routes=routes(up, **options))(io)
    return case


def load(s, up, **options):
    s.document["apps"]["http"]["servers"]["srv0"]["routes"] = routes(up, **options)
    same(s.api("POST", "/load", s.document, {"Cache-Control": "must-revalidate"})[0], 200)


def cut_with(c, peer, stream, words):
    """Both sides hear the words, then the end."""
    said = b""
    while True:
        kind, _, _, payload = c.until(DATA, RST_STREAM, stream=stream)
        if kind == RST_STREAM:
            break
        said += payload
    same(said, words)
    same(struct.unpack(">I", payload)[0], 8)
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := peer.recv(100):
            heard += piece
    same(bytes(b ^ heard[2 + i % 4] for i, b in enumerate(heard[6:8])) if words else heard, words[2:4])


def ends(s, up):
    """stream_timeout; reloads end tunnels, at once or after stream_close_delay, with a close frame."""
    c = Raw(s)
    load(s, up, stream_timeout="300ms")
    began = time.monotonic()
    peer = opened(c, up, 1)
    same(c.until(RST_STREAM, stream=1)[0], RST_STREAM)
    assert 0.25 < time.monotonic() - began < 10
    same(ended(peer), True)
    load(s, up)
    peer = opened(c, up, 3)
    load(s, up, stream_timeout="1m")
    cut_with(c, peer, 3, GOING_AWAY)
    load(s, up, stream_close_delay="60s")
    stays = opened(c, up, 5)
    load(s, up, stream_close_delay="500ms")
    peer = opened(c, up, 7)
    began = time.monotonic()
    load(s, up)
    cut_with(c, peer, 7, GOING_AWAY)
    assert time.monotonic() - began > 0.4
    c.send(frame(DATA, 0, 5, b"still"))
    same(take(stays, 5), b"still")
    stays.sendall(b"there")
    same(in_all(c, 5, 5), b"there")
    c.c.close()
    same(ended(stays), True)


def tells(s, up):
    """The access log tells of a tunnel when it has ended, with what went through it."""
    def lines():
        return [line for line in map(json.loads, filter(None, s.text().splitlines()))
                if line.get("msg") == "handled request" and line["request"]["uri"] == "/chat"]
    c = Raw(s)
    peer = opened(c, up)
    c.send(frame(DATA, 0, 1, b"x" * 10000))
    take(peer, 10000)
    peer.sendall(b"y" * 30000)
    same(len(in_all(c, 1, 30000)), 30000)
    same(lines(), [])
    c.send(frame(DATA, 1, 1))
    same(ended(peer), True)
    peer.close()
    s.wait(lambda: len(lines()) == 1)
    line, = lines()
    same((line["status"], line["bytes_read"], line["size"], line["request"]["proto"]), (200, 10000, 30000, "HTTP/2.0"))
    c.c.close()


def stops(io):
    """A stop tells the WebSockets, and does not wait for them."""
    up = Upstream()
    s = Server(PORTICO, io, members=CLEAR, routes=routes(up), grace_period="20s")
    try:
        c = Raw(s)
        peers = [opened(c, up, n) for n in (1, 3, 5)]
        s.process.terminate()
        over = set()
        while len(over) < 3:
            over.add(c.until(RST_STREAM)[2])
        same([ended(p) for p in peers], [True] * 3)
        c.c.close()
        same(s.end(None), 0)
    finally:
        if s.process.poll() is None:
            s.process.kill()
            s.process.wait()


run_cases([
    ("hundreds of silent ones take no fiber", many_silent),
    ("what a client says with its end arrives", with_upstream(last_words)),
    ("a client that takes nothing slows the upstream", with_upstream(slow_client)),
    ("an upstream that takes nothing slows the client, and nobody else", with_upstream(slow_upstream)),
    ("an end that comes with the last bytes is passed on", with_upstream(last_words)),
    ("a reset ends one that stands still", with_upstream(stuck_and_reset)),
    ("a reset ends an upload that stands still, too", with_upstream(stuck_upload)),
    ("timeouts and reloads end them", with_upstream(ends)),
    ("the access log tells of them when they have ended", lambda io: (lambda up: served(
        lambda s: tells(s, up), gateway=True, routes=routes(up), members={"logs": {}})(io))(Upstream())),
    ("a stop ends them", stops),
], at_once=3)
