# SPDX-License-Identifier: Apache-2.0
"""A server of HTTP/2 made by hand, for tests: it sends what it is told, and keeps what comes. It stands behind the
gateway, whose requests are decoded by a library (Debian's python3-hpack)."""
import contextlib
import socket

import h2_client as h2
from h2_client import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
                       WINDOW_UPDATE, frame)

STATUS = (":status", "200")


class Ended(Exception):
    """portico has closed the connection."""


class Conn(h2.Wire):
    """One connection of portico's, as frames."""

    def __init__(self, sock, behind=None, patience=15):
        super().__init__()
        self.sock, self.behind = sock, behind
        sock.settimeout(patience)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.requests, self.held, self.bodies = [], [], {}
        self.whole = {}  # all fields of a stream's request, then those of its trailers
        self.resets, self.goaway, self.ended_streams = {}, None, set()
        self.windows, self.acknowledged, self.pongs, self.closed = {}, 0, [], False

    def more(self):
        try:
            part = self.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            part = b""
        if not part:
            self.closed = True
            raise Ended
        self.received += part

    def send(self, *parts):
        try:
            self.sock.sendall(b"".join(parts))
        except (ConnectionResetError, BrokenPipeError):
            pass  # reading will tell

    def begin(self, *settings):
        self.preface()
        self.send(self.settings_frame(settings))

    def read(self):
        while (f := self.next_frame()) is None:
            self.more()
        if f.kind == SETTINGS and not f.flags & ACK:
            self.send(frame(SETTINGS, ACK))
        elif f.kind == SETTINGS:
            self.acknowledged += 1
        elif f.kind == PING and not f.flags & ACK:
            self.send(frame(PING, ACK, 0, f.payload))
        elif f.kind == PING:
            self.pongs.append(f.payload)
        elif f.kind == RST_STREAM:
            self.resets[f.stream] = f.code
        elif f.kind == GOAWAY:
            self.goaway = f.code
        elif f.kind == WINDOW_UPDATE:
            self.windows[f.stream] = self.windows.get(f.stream, 0) + int.from_bytes(f.payload, "big")
        elif f.kind == DATA:
            self.bodies[f.stream] = self.bodies.get(f.stream, b"") + f.payload
            self.ended_streams |= {f.stream} if f.flags & END_STREAM else set()
        elif f.kind in (HEADERS, CONTINUATION):
            self.gather(f)
        return f

    def gather(self, f):
        whole = self.gathered(f)
        if whole:
            stream, ends, fields = whole
            self.ended_streams |= {stream} if ends else set()
            self.whole.setdefault(stream, []).append(fields)
            if len(self.whole[stream]) == 1:
                self.requests.append((stream, dict(fields)))

    def until(self, condition):
        while not condition():
            self.read()

    def heard(self, stream):
        """The code by which the stream or all of the connection was ended, or None: a PING came back first."""
        self.send(frame(PING, 0, 0, b"are you?"))
        with contextlib.suppress(Ended):
            self.until(lambda: b"are you?" in self.pongs or self.goaway)
        return self.resets.get(stream)

    # --- what is said ---

    def headers(self, stream, *fields, end=False, flags=END_HEADERS):
        self.send(frame(HEADERS, flags | (END_STREAM if end else 0), stream, h2.block(fields)))

    def answer(self, stream, body, *fields):
        self.headers(stream, STATUS, ("content-length", str(len(body))), *fields)
        self.data(stream, body, end=True)
