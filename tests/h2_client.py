# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 made by hand, for tests: a codec of frames, literal header blocks, and a client that sends
exactly what it is told and keeps what comes back. Only the answers' header blocks are decoded by a
library (Debian's python3-hpack)."""
import collections
import socket
import ssl
import struct
import time

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

(DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE,
 CONTINUATION) = range(10)
PRIORITY_UPDATE = 16
TYPES = ["DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY",
         "WINDOW_UPDATE", "CONTINUATION"]

END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8
WITH_PRIORITY = 32

CODES = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
         "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
         "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"]

(HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE,
 MAX_HEADER_LIST_SIZE) = range(1, 7)
ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES = 8, 9


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def integer(first, prefix, value):
    """RFC 7541 §5.1, with the bits `first` before it."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def text(value):
    value = value.encode("latin-1") if isinstance(value, str) else value
    return integer(0, 7, len(value)) + value


def literal(name, value, first=0, prefix=4):
    """Not indexed, unless `first` says so."""
    return integer(first, prefix, 0) + text(name) + text(value)


def block(fields):
    return b"".join(literal(n, v) for n, v in fields)


def request(method="GET", path="/", *more, authority="localhost", scheme="http"):
    """The fields of a request; `more`: (name, value) pairs."""
    return [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority), *more]


class Frame:
    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload

    @property
    def code(self):
        at = 4 if self.kind == GOAWAY else 0
        number = struct.unpack("!I", self.payload[at:at + 4])[0]
        return CODES[number] if number < len(CODES) else str(number)

    def __repr__(self):
        name = TYPES[self.kind] if self.kind < len(TYPES) else str(self.kind)
        more = f" {self.code}" if self.kind in (RST_STREAM, GOAWAY) else ""
        note = f" {self.payload[8:]!r}" if self.kind == GOAWAY and len(self.payload) > 8 else ""
        return f"{name}(stream {self.stream}, flags {self.flags}, {len(self.payload)} bytes{more}{note})"


class Wire:
    """One side of a connection, as frames. Who is it brings send(), and what adds to `received` (more(), where
    it is a server's)."""

    def __init__(self):
        self.received, self.gathering, self.decoder = b"", None, hpack.Decoder()

    # --- out ---

    def frame(self, kind, flags=0, stream=0, payload=b""):
        self.send(frame(kind, flags, stream, payload))

    @staticmethod
    def settings_frame(pairs, flags=0):
        return frame(SETTINGS, flags, 0, b"".join(struct.pack("!HI", k, v) for k, v in pairs))

    def data(self, stream, payload=b"", end=False):
        self.frame(DATA, END_STREAM if end else 0, stream, payload)

    def window(self, stream, more):
        self.frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", more))

    def rst(self, stream, code="CANCEL"):
        self.frame(RST_STREAM, 0, stream, struct.pack("!I", CODES.index(code) if isinstance(code, str) else code))

    def ping(self, payload=b"12345678", flags=0):
        self.frame(PING, flags, 0, payload)

    # --- in ---

    def preface(self):
        while len(self.received) < len(PREFACE):
            self.more()
        assert self.received.startswith(PREFACE), self.received[:40]
        self.received = self.received[len(PREFACE):]

    def next_frame(self):
        """Taken from what has come; None: it is not whole."""
        end = 9 + int.from_bytes(self.received[:3], "big")
        if len(self.received) < 9 or len(self.received) < end:
            return None
        f = Frame(self.received[3], self.received[4], int.from_bytes(self.received[5:9], "big") & 0x7fffffff,
                  self.received[9:end])
        self.received = self.received[end:]
        return f

    def gathered(self, f):
        """Of HEADERS and CONTINUATION: the stream, whether it ends, the fields; None: there is more to come."""
        if f.kind == HEADERS:
            assert not f.flags & (PADDED | WITH_PRIORITY)
            self.gathering = [f.stream, bool(f.flags & END_STREAM), b""]
        self.gathering[2] += f.payload
        if not f.flags & END_HEADERS:
            return None
        stream, ends, whole = self.gathering
        return stream, ends, [(n if isinstance(n, str) else n.decode(), v if isinstance(v, str) else v.decode("latin-1"))
                              for n, v in self.decoder.decode(whole, raw=True)]


def settings_of(f):
    return {key: value for key, value in struct.iter_unpack("!HI", f.payload)}


class Answer:
    """What has come of one stream."""

    def __init__(self):
        self.status, self.fields, self.body, self.trailers = None, [], b"", None
        self.informs, self.reset, self.ended = [], None, False

    def field(self, name):
        return next((v for n, v in self.fields if n == name), None)


class Client(Wire):
    """`port` on loopback. `tls`: an SSLContext. `settings`: pairs for the first SETTINGS. With
    `preface` False nothing is sent at first. Window updates are the test's business, unless `grants`."""

    def __init__(self, port, tls=None, settings=(), preface=True, grants=False, timeout=30, room=None):
        super().__init__()
        raw = socket.socket()
        if room:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        raw.settimeout(timeout)
        raw.connect(("127.0.0.1", port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = tls.wrap_socket(raw, server_hostname="localhost") if tls else raw
        self.tls, self.timeout, self.grants = tls, timeout, grants
        self.scheme = "https" if tls else "http"
        self.decoder.max_header_list_size = 1 << 20
        self.frames = []
        self.answers = collections.defaultdict(Answer)
        self.settings, self.acknowledged = {}, 0
        self.goaway, self.closed, self.reset = None, False, False
        self.next_stream = 1
        if preface:
            self.send(PREFACE + self.settings_frame(settings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    # --- out ---

    def send(self, data):
        """A peer that has closed already is found out by reading."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass

    def stream(self):
        self.next_stream += 2
        return self.next_stream - 2

    def ask(self, fields=None, end=True, stream=None):
        """Sends a request; its stream."""
        stream = stream or self.stream()
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.frame(HEADERS, flags, stream, block(request() if fields is None else fields))
        return stream

    # --- in ---

    def _more(self, end):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"nothing came; so far {self.frames}")
        self.socket.settimeout(left)
        try:
            part = self.socket.recv(65536)
        except (socket.timeout, ssl.SSLWantReadError):
            raise TimeoutError(f"nothing came; so far {self.frames}") from None
        except (ConnectionResetError, ssl.SSLError, BrokenPipeError):
            part, self.reset = b"", True
        finally:
            self.socket.settimeout(self.timeout)
        self.closed = self.closed or part == b""
        self.received += part

    def read(self, timeout=None):
        """The next frame, noted down; None at the connection's end."""
        end = time.monotonic() + (timeout or self.timeout)
        while (f := self.next_frame()) is None:
            if self.closed:
                return None
            self._more(end)
        self.frames.append(f)
        self._note(f)
        return f

    def _note(self, f):
        if f.kind == SETTINGS and not f.flags & ACK:
            self.settings.update(settings_of(f))
            self.send(frame(SETTINGS, ACK))
        elif f.kind == SETTINGS:
            self.acknowledged += 1
        elif f.kind == GOAWAY:
            self.goaway = f
        elif f.kind == RST_STREAM:
            self.answers[f.stream].reset = f.code
        elif f.kind == DATA:
            self.answers[f.stream].body += f.payload
            self.answers[f.stream].ended |= bool(f.flags & END_STREAM)
            if self.grants and f.payload:
                self.send(b"".join(frame(WINDOW_UPDATE, 0, s, struct.pack("!I", len(f.payload)))
                                   for s in ([0] if f.flags & END_STREAM else [0, f.stream])))
        elif f.kind in (HEADERS, CONTINUATION):
            self._gather(f)

    def _gather(self, f):
        block_of = self.gathered(f)
        if block_of is None:
            return
        stream, ends, fields = block_of
        answer = self.answers[stream]
        answer.ended |= ends
        if answer.status is not None:
            answer.trailers = fields
        elif fields[0][1][0] == "1":
            answer.informs.append(fields)
        else:
            assert fields[0][0] == ":status", fields
            answer.status, answer.fields = int(fields[0][1]), fields[1:]

    def until(self, condition, timeout=None):
        """Reads frames until condition() holds or the connection ends; whether it holds."""
        end = time.monotonic() + (timeout or self.timeout)
        while not condition():
            if self.read(max(end - time.monotonic(), 0.001)) is None:
                return condition()
        return True

    def answer(self, stream, timeout=None):
        """Of one stream, to its end, its reset or the connection's."""
        a = self.answers[stream]
        self.until(lambda: a.ended or a.reset is not None, timeout)
        return a

    def alive(self):
        """A PING comes back: all that was sent before has been dealt with."""
        mark = struct.pack("!Q", time.monotonic_ns())
        self.ping(mark)
        return self.until(lambda: any(f.kind == PING and f.flags & ACK and f.payload == mark
                                      for f in self.frames))
