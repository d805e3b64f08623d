# SPDX-License-Identifier: Apache-2.0
"""An upstream of HTTP/2 made by hand, for tests: it keeps what it gets as frames and requests, and sends
exactly what it is told. Requests' header blocks are decoded by a library (Debian's python3-hpack)."""
import contextlib
import socket
import ssl
import struct
import threading

from h2_client import (ACK, CODES, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED,
                       RST_STREAM, SETTINGS, Wire, block, frame, settings_of)


class Request:
    def __init__(self, stream, fields):
        self.stream, self.fields, self.body, self.trailers = stream, fields, b"", None
        self.ended, self.reset = False, None

    def field(self, name):
        return next((v for n, v in self.fields if n == name), None)

    def names(self):
        return [n for n, _ in self.fields]


class Conn(Wire):
    """One connection. Window updates are the play's business, unless `grants`."""

    def __init__(self, sock, upstream):
        super().__init__()
        self.sock, self.upstream = sock, upstream
        self.frames, self.requests, self.streams = [], [], {}
        self.settings, self.acknowledged, self.goaway = {}, 0, None
        self.grants, self.acks = True, True
        self.seen = 0  # of requests given out

    # --- in ---

    def more(self):
        piece = self.sock.recv(65536)
        if not piece:
            raise EOFError
        self.received += piece

    def read(self):
        while (f := self.next_frame()) is None:
            self.more()
        self.frames.append(f)
        self.note(f)
        return f

    def note(self, f):
        if f.kind == SETTINGS and not f.flags & ACK:
            self.settings.update(settings_of(f))
            if self.acks:
                self.frame(SETTINGS, ACK)
        elif f.kind == SETTINGS:
            self.acknowledged += 1
        elif f.kind == GOAWAY:
            self.goaway = f
        elif f.kind == RST_STREAM and f.stream in self.streams:
            self.streams[f.stream].reset = f.code
        elif f.kind == DATA:
            assert not f.flags & PADDED
            r = self.streams[f.stream]
            r.body += f.payload
            r.ended |= bool(f.flags & END_STREAM)
            if self.grants and f.payload:
                self.window(0, len(f.payload))
                self.window(f.stream, len(f.payload))
        elif f.kind in (HEADERS, CONTINUATION):
            self.gather(f)

    def gather(self, f):
        whole = self.gathered(f)
        if whole is None:
            return
        stream, ends, fields = whole
        if stream in self.streams:
            self.streams[stream].trailers = fields
        else:
            self.streams[stream] = Request(stream, fields)
            self.requests.append(self.streams[stream])
            self.upstream.requests.append(self.streams[stream])
        self.streams[stream].ended |= ends

    def until(self, condition):
        while not condition():
            self.read()

    def request(self, whole=True):
        """The next one; with its body, unless told otherwise."""
        self.until(lambda: len(self.requests) > self.seen)
        r = self.requests[self.seen]
        self.seen += 1
        if whole:
            self.until(lambda: r.ended or r.reset is not None)
        return r

    def ended(self):
        """Reads to the end of the connection."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.read()
        return True

    # --- out ---

    def send(self, data):
        self.sock.sendall(data)

    def say_settings(self, *pairs):
        self.send(self.settings_frame(pairs))

    def say_goaway(self, last, code="NO_ERROR"):
        self.frame(GOAWAY, 0, 0, struct.pack("!II", last, CODES.index(code)))

    def head(self, stream, status=200, fields=(), end=False):
        self.frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream,
                   block([(":status", str(status)), *fields]))

    def answer(self, stream, body=b"ok", status=200, fields=(), trailers=None):
        self.send(frame(HEADERS, END_HEADERS | (0 if body or trailers else END_STREAM), stream,
                        block([(":status", str(status)), *fields])) +
                  b"".join(frame(DATA, END_STREAM if at + 16384 >= len(body) and not trailers else 0, stream,
                                 body[at:at + 16384]) for at in range(0, len(body), 16384)) +
                  (frame(HEADERS, END_HEADERS | END_STREAM, stream, block(trailers)) if trailers else b""))


def always(body=b"ok", **more):
    """Answers every request so."""
    def play(c):
        while True:
            c.answer(c.request().stream, body, **more)
    return play


class Upstream:
    """Each connection is a thread that runs `play` behind the preface and the first SETTINGS (`settings`; None:
    not even those). `tls`: an SSLContext."""

    def __init__(self, play, settings=(), tls=None, place=None):
        if place:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(place)
            self.sock.listen(64)
            self.dial = f"unix/{place}"
        else:
            self.sock = socket.create_server(("127.0.0.1", 0), backlog=256)
            self.dial = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.play, self.settings, self.tls = play, settings, tls
        self.requests, self.conns, self.errors, self.agreed = [], [], [], []
        self.gate = threading.Event()  # for what is to wait
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                sock = self.sock.accept()[0]
                threading.Thread(target=self.run, args=(sock,), daemon=True).start()

    def run(self, sock):
        sock.settimeout(60)
        try:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
                self.agreed.append(sock.selected_alpn_protocol())
            c = Conn(sock, self)
            self.conns.append(c)
            c.preface()
            if self.settings is not None:
                c.say_settings(*self.settings)
            self.play(c)
        except (OSError, EOFError, ssl.SSLError):
            pass
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(e)
        sock.close()

    def close(self):
        self.gate.set()
        self.sock.close()
        if self.errors:
            raise self.errors[0]
