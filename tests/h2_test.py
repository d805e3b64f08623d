#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 against the whole program, over clear text (h2c) and TLS, on both I/O back ends, as TAP: with
Python's h2, curl, nghttp and h2load as clients, and frames by hand. Usage: h2_test.py PORTICO [CASE]."""
import os
import random
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack

from certificates import Authority
from server import Server, Skip, free_port, run_cases, same

PORTICO = sys.argv[1]
with open(PORTICO, "rb") as program:
    PROGRAM = program.read()
SANITIZED = b"__asan_init" in PROGRAM or b"__tsan_init" in PROGRAM
CLEAR = {"protocols": ["h1", "h2c"]}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
(DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE,
 CONTINUATION) = range(10)
BROKEN = (BrokenPipeError, ConnectionResetError, ssl.SSLError)
NO_ERROR, PROTOCOL_ERROR, FLOW, CLOSED, REFUSED, CANCEL, CALM = 0, 1, 3, 5, 7, 8, 11
FOLDER = tempfile.TemporaryDirectory(prefix="portico-h2-")
FILES = {"small": b"x" * 100, "10k": os.urandom(10240), "60k": os.urandom(60000), "100k": os.urandom(102400),
         "5m": os.urandom(5 << 20)}
for name, content in FILES.items():
    with open(f"{FOLDER.name}/{name}", "wb") as f:
        f.write(content)
ECHO = [{"match": [{"path": ["/echo"]}],
         "handle": [{"handler": "static_response", "body": "{http.request.body}"}]},
        {"match": [{"path": ["/early"]}],
         "handle": [{"handler": "static_response", "body": "early"}]},
        {"match": [{"path": ["/what"]}],
         "handle": [{"handler": "static_response",
                     "body": "{http.request.proto} {http.request.method} {http.request.host} "
                             "{http.request.uri} {http.request.header.Cookie}"}]},
        {"handle": [{"handler": "file_server", "root": FOLDER.name}]}]


CERTIFICATE, KEY = (AUTHORITY := Authority()).leaf("a.example", "DNS:a.example")


def dial(s, room=None):
    c = socket.socket()
    c.settimeout(20)
    if room:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    secure = getattr(s, "secure", None)
    c.connect(("127.0.0.1", secure or s.port))
    if not secure:
        return c
    context = ssl.create_default_context(cafile=AUTHORITY.root)
    context.set_alpn_protocols(["h2"])
    c = context.wrap_socket(c, server_hostname="a.example")
    same(c.selected_alpn_protocol(), "h2")
    return c


def secure_server(io, members=None, routes=None, body="one"):
    """With TLS on an address of its own; s.port is in clear text."""
    port, secure = free_port(), free_port()
    server = {"listen": [f"127.0.0.1:{port}", f"127.0.0.1:{secure}"],
              "automatic_https": {"disable": True}, "tls_connection_policies": [{}],
              "routes": routes or [{"handle": [{"handler": "static_response", "body": body}]}],
              **(members or {})}
    files = [{"certificate": CERTIFICATE, "key": KEY}]
    s = Server(PORTICO, io, awaited=False, top={"apps": {
        "http": {"http_port": port, "servers": {"srv0": server}},
        "tls": {"certificates": {"load_files": files}}}})
    s.port, s.secure = port, secure
    try:
        s.wait(lambda: s.get("/small") is not None)
    except AssertionError:
        s.end()
        raise
    return s


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Raw:
    """Frames by hand."""

    def __init__(self, s, settings=b"", hello=True, room=None):
        self.c = dial(s, room)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.rest = b""
        if hello:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        self.c.sendall(data)

    def block(self, path="/", method="GET", more=()):
        return self.encoder.encode([(":method", method), (":scheme", "http"), (":path", path),
                                    (":authority", "a"), *more])

    def get(self, stream, path="/", more=(), ends=True, method="GET"):
        self.send(frame(HEADERS, 4 | ends, stream, self.block(path, method, more)))

    def frames(self):
        """Each as (kind, flags, stream, payload), until the connection ends."""
        while True:
            while len(self.rest) >= 9:
                n = int.from_bytes(self.rest[:3], "big")
                if len(self.rest) < 9 + n:
                    break
                kind, flags, stream = struct.unpack(">BBI", self.rest[3:9])
                payload, self.rest = self.rest[9:9 + n], self.rest[9 + n:]
                if kind == HEADERS:
                    payload = dict(self.decoder.decode(payload))
                yield kind, flags, stream, payload
            try:
                part = self.c.recv(65536)
            except (ConnectionResetError, ssl.SSLError):
                return
            if not part:
                return
            self.rest += part

    def frames_now(self):
        """Those that come, until none does for long."""
        self.c.settimeout(15)
        try:
            yield from self.frames()
        except TimeoutError:
            pass

    def until(self, *kinds, stream=None):
        for f in self.frames():
            if f[0] in kinds and (stream is None or f[2] == stream):
                return f
        raise AssertionError(f"the connection ended before a frame of {kinds}")

    def answer(self, stream):
        """Status, fields and body of a stream."""
        fields, body = None, b""
        for kind, flags, number, payload in self.frames():
            if number != stream:
                continue
            if kind == HEADERS and fields is None:
                fields = payload
            elif kind == DATA:
                body += payload
            elif kind == RST_STREAM:
                raise AssertionError(f"reset: {payload!r}")
            if flags & 1 and kind in (HEADERS, DATA):
                return fields[":status"], fields, body
        raise AssertionError("the connection ended")

    def goaway(self):
        """The code of the GOAWAY that ends the connection."""
        code = None
        for kind, _, _, payload in self.frames():
            if kind == GOAWAY:
                code = struct.unpack(">II", payload[:8])[1]
        return code

    def reset_code(self, stream):
        _, _, _, payload = self.until(RST_STREAM, stream=stream)
        return struct.unpack(">I", payload)[0]


class Client:
    """Python's h2."""

    def __init__(self, s, window=None):
        self.c = dial(s)
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        if window:
            self.h2.update_settings({4: window})
        self.flush()
        self.status, self.bodies, self.trailers, self.ended, self.resets = {}, {}, {}, set(), {}
        self.informed, self.credit = {}, True
        self.gone = False

    def flush(self):
        self.c.sendall(self.h2.data_to_send())

    def ask(self, path="/", method="GET", body=None, more=(), authority="a", trailers=None):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(":method", method), (":scheme", "http"),
                                      (":authority", authority), (":path", path), *more],
                             end_stream=body is None)
        self.flush()
        if body is not None:
            self.put(stream, body, trailers)
        return stream

    def put(self, stream, body, trailers=None):
        while body:
            n = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size,
                    len(body))
            if n == 0:
                if not self.turn():
                    return
                if stream in self.resets or stream in self.ended:
                    return
                continue
            self.h2.send_data(stream, body[:n])
            body = body[n:]
            self.flush()
        if trailers:
            self.h2.send_headers(stream, trailers, end_stream=True)
        else:
            self.h2.end_stream(stream)
        self.flush()

    def turn(self):
        data = self.c.recv(1 << 17)
        if not data:
            self.gone = True
            return False
        for e in self.h2.receive_data(data):
            stream = getattr(e, "stream_id", None)
            if isinstance(e, h2.events.ResponseReceived):
                self.status[stream] = dict(e.headers)
            elif isinstance(e, h2.events.InformationalResponseReceived):
                self.informed[stream] = dict(e.headers)
            elif isinstance(e, h2.events.TrailersReceived):
                self.trailers[stream] = dict(e.headers)
            elif isinstance(e, h2.events.DataReceived):
                self.bodies[stream] = self.bodies.get(stream, b"") + e.data
                if self.credit and e.flow_controlled_length:
                    self.h2.acknowledge_received_data(e.flow_controlled_length, stream)
            elif isinstance(e, h2.events.StreamEnded):
                self.ended.add(stream)
            elif isinstance(e, h2.events.StreamReset):
                self.resets[stream] = e.error_code
            elif isinstance(e, h2.events.ConnectionTerminated):
                self.gone = e
        self.flush()
        return True

    def wait(self, *streams):
        while not all(s in self.ended or s in self.resets for s in streams):
            if not self.turn():
                raise AssertionError("the connection ended")
        return [self.bodies.get(s, b"") for s in streams]

    def get(self, path="/", **more):
        stream = self.ask(path, **more)
        body, = self.wait(stream)
        return self.status[stream][":status"], body


def served(run, secure=False, gateway=False, **settings):
    """A case with a server of its own, from which nothing may be left; idle links of a gateway are."""
    def case(io):
        others = {k: v for k, v in settings.items() if k != "members"}
        members = settings.get("members", {})
        if secure:
            s = secure_server(io, members=members, **others)
        else:
            s = Server(PORTICO, io, members={**CLEAR, **members}, **others)
        try:
            s.wait(lambda: s.live()["connections"] == 0)
            left = ("descriptors", "operations") if gateway else ("descriptors",)
            before = {k: v for k, v in s.live().items() if k not in left}
            run(s)
            try:
                s.wait(lambda: {k: v for k, v in s.live().items() if k not in left} == before, 20)
            except AssertionError:
                same({k: v for k, v in s.live().items() if k not in left}, before)
        finally:
            s.end()
    return case


def small(s):
    c = Client(s)
    same(c.get(), ("200", b"one"))
    same(c.status[1]["server"], "portico")
    same(c.status[1]["content-length"], "3")
    assert "date" in c.status[1] and "connection" not in c.status[1]
    for _ in range(100):
        same(c.get(), ("200", b"one"))
    c.c.close()


def words(s):
    c = Client(s)
    same(c.get("/what?a=b", authority="example.com:99",
               more=[("cookie", "a=1"), ("cookie", "b=2")]),
         ("200", b"HTTP/2.0 GET example.com /what?a=b a=1; b=2"))
    stream = c.ask("/10k", method="HEAD")
    c.wait(stream)
    same(c.status[stream]["content-length"], "10240")
    same(c.bodies.get(stream), None)
    same(c.get("/nothing")[0], "404")
    c.c.close()


def files(s):
    c = Client(s)
    for name in FILES:
        same(c.get("/" + name) == ("200", FILES[name]), True)
    many = [(name, c.ask("/" + name)) for name in list(FILES) * 8]
    c.wait(*[stream for _, stream in many])
    for name, stream in many:
        same(c.bodies[stream] == FILES[name], True)
    same(c.get("/10k", more=[("range", "bytes=100-199")]), ("206", FILES["10k"][100:200]))
    c.c.close()


def bodies(s):
    c = Client(s)
    for n in (0, 1, 1000, 65535, 65536, 200000, 1000000):
        data = os.urandom(n // 2).hex().encode()
        same(c.get("/echo", method="POST", body=data) == ("200", data), True)
        same(c.get("/echo", method="POST", body=data, more=[("content-length", str(len(data)))])
             == ("200", data), True)
    same(c.get("/early", method="POST", body=b"x" * 10)[1], b"early")
    c.c.close()


def early(s):
    """An answer that does not wait for the body: the rest of it is not wanted, the connection stays."""
    c = Client(s)
    for _ in range(20):
        stream = c.ask("/early", method="POST", body=b"x" * 1000000)
        c.wait(stream)
        same(c.bodies[stream], b"early")
    same(c.get("/small"), ("200", FILES["small"]))
    c.c.close()


def thousands(s):
    c = Client(s)
    asked = 0
    live = []
    for _ in range(30):
        live = [c.ask("/10k" if i % 3 == 0 else "/small") for i in range(100)]
        c.wait(*live)
        asked += len(live)
        for i, stream in enumerate(live):
            same(len(c.bodies[stream]), 10240 if i % 3 == 0 else 100)
            del c.bodies[stream]
    same(asked, 3000)
    c.c.close()


def tools(s):
    url = f"http://127.0.0.1:{s.port}"
    out = subprocess.run(["curl", "-s", "--http2-prior-knowledge", "--data-binary", "@-", url + "/echo"],
                         input=b"hello", capture_output=True, check=True, timeout=120).stdout
    same(out, b"hello")
    out = subprocess.run(["nghttp", url + "/100k", url + "/10k"], capture_output=True, check=True,
                         timeout=120).stdout
    same(out == FILES["100k"] + FILES["10k"] or out == FILES["10k"] + FILES["100k"] or
         len(out) == 112640, True)
    out = subprocess.run(["h2load", "-n", "5000", "-c", "10", "-m", "50", url + "/10k"],
                         capture_output=True, check=True, timeout=120).stdout.decode()
    assert "5000 succeeded, 0 failed" in out, out


def upgrade(s):
    """curl asks in HTTP/1.1; a request with a body, or one with other words, is answered there."""
    url = f"http://127.0.0.1:{s.port}"
    def curl(*words):
        return subprocess.run(["curl", "-s", "--http2", "-w", "|%{http_version}", *words],
                              capture_output=True, check=True, timeout=120).stdout
    same(curl(url + "/what?x"), b"HTTP/2.0 GET 127.0.0.1 /what?x |2")
    same(curl(url + "/10k", url + "/10k"), (FILES["10k"] + b"|2") * 2)
    assert curl("-d", "abc", url + "/echo") in (b"abc|1.1", b"abc|2")
    c = socket.create_connection(("127.0.0.1", s.port), 60)
    c.sendall(b"GET /small HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
              b"Upgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n")
    assert c.recv(1000).startswith(b"HTTP/1.1 200 OK")
    c.close()
    raw = Raw(s, hello=False)
    raw.send(b"GET /10k HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
             b"Upgrade: h2c\r\nHTTP2-Settings: AAQAAAAK\r\n\r\n" + PREFACE + frame(SETTINGS, 0, 0))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += raw.c.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    same(len(raw.until(DATA, stream=1)[3]), 10)
    raw.get(3, "/echo", method="POST", ends=False)
    raw.c.close()


def lent(s):
    """Bodies that are sent from where they lie, to a client that takes them in small and odd pieces and
    resets some: no byte is lost, doubled or another's."""
    c = Raw(s, room=8192, settings=struct.pack(">HI", 4, 1 << 20))
    c.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 29)))
    asked = {i: ("60k", "10k", "100k", "60k")[i // 2 % 4] for i in range(1, 81, 2)}
    for stream, name in asked.items():
        c.get(stream, "/" + name, more=[("priority", "i")] if stream % 3 else [])
    bodies, gone, ended, pieces = {}, set(), set(), random.Random(4)
    receive, sizes = c.c.recv, (1, 9, 100, 5000, 30000, 60000)
    c.c = type("", (), {"recv": lambda _, n: receive(pieces.choice(sizes)), "sendall": c.c.sendall,
                        "close": c.c.close})()
    for kind, flags, stream, payload in c.frames():
        if kind == DATA and stream in asked:
            bodies[stream] = bodies.get(stream, b"") + payload
            if stream % 5 == 0 and stream not in gone:
                c.send(frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))
                gone.add(stream)
            if flags & 1:
                ended.add(stream)
        if len(ended | gone) == len(asked):
            break
    for stream in ended:
        same(bodies[stream] == FILES[asked[stream]], True)
    for stream in gone:
        same(FILES[asked[stream]].startswith(bodies[stream]), True)
    c.c.close()


LARGE = "".join(f"{i:07d}\n" for i in range(250000))


def large(s):
    """What lies in memory and is far more than one connection sends in its turn, one behind the other
    and side by side."""
    c = Raw(s, settings=struct.pack(">HI", 4, 1 << 30))
    c.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
    for stream in (1, 3):
        c.get(stream, "/large")
        same(c.answer(stream)[2] == LARGE.encode(), True)
    bodies = {}
    for stream in (5, 7, 9):
        c.get(stream, "/large", more=[("priority", "i")])
    for kind, flags, stream, payload in c.frames():
        if kind == DATA:
            bodies.setdefault(stream, bytearray()).extend(payload)
        if kind == DATA and flags & 1 and len(bodies) == 3 and \
                all(len(b) >= len(LARGE) for b in bodies.values()):
            break
    for stream in (5, 7, 9):
        same(bodies[stream] == LARGE.encode(), True)
    c.c.close()


LARGE_ROUTES = [{"match": [{"path": ["/large"]}],
                 "handle": [{"handler": "static_response", "body": LARGE}]}]


def slow_stream(s):
    """One stream whose window is closed holds back none of the others."""
    c = Raw(s, settings=struct.pack(">HI", 4, 1000))
    c.get(1, "/5m")
    c.until(DATA, stream=1)
    for i in range(3, 103, 2):
        c.get(i, "/small")
        same(c.answer(i)[2], FILES["small"])
    c.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 500)))
    same(len(c.until(DATA, stream=1)[3]), 500)
    c.c.close()


def windows(s):
    """SETTINGS change the windows of streams that are there, below zero, too; bytes come one by one."""
    c = Raw(s, settings=struct.pack(">HI", 4, 100))
    c.get(1, "/10k")
    same(len(c.until(DATA)[3]), 100)
    c.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 50)))
    c.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 51)))
    same(len(c.until(DATA)[3]), 1)
    got = 101
    for _ in range(50):
        c.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)))
        same(len(c.until(DATA)[3]), 1)
        got += 1
    c.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20)))
    while got < 10240:
        _, flags, _, payload = c.until(DATA)
        got += len(payload)
    same(flags & 1, 1)
    c.c.close()


def resets(s):
    """A client that resets at every point."""
    c = Client(s)
    for path, body in (("/5m", None), ("/small", None), ("/echo", b"x" * 100000)):
        for _ in range(10):
            stream = c.h2.get_next_available_stream_id()
            c.h2.send_headers(stream, [(":method", "POST" if body else "GET"), (":scheme", "http"),
                                       (":authority", "a"), (":path", path)], end_stream=not body)
            if body:
                c.h2.send_data(stream, body[:16000])
            c.h2.reset_stream(stream, 8)
            c.flush()
            c.turn()
    for _ in range(10):
        stream = c.ask("/5m")
        while len(c.bodies.get(stream, b"")) < 100000:
            c.turn()
        c.h2.reset_stream(stream, 8)
        c.flush()
    same(c.get("/small"), ("200", FILES["small"]))
    c.c.close()


def leaves(s):
    """Clients that go in the middle of everything."""
    for path in ("/5m", "/echo", "/small"):
        for _ in range(5):
            c = Raw(s)
            c.get(1, path, ends=path != "/echo", method="POST" if path == "/echo" else "GET")
            c.get(3, path)
            c.c.close()
            c = Raw(s)
            c.get(1, path, ends=False)
            c.until(SETTINGS)
            c.c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.c.close()


def byte_by_byte(s):
    c = Raw(s, hello=False)
    data = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 4, 1, c.block("/echo", "POST"))
    data += frame(DATA, 8, 1, b"\3abc...") + frame(DATA, 0, 1, b"def") + frame(DATA, 1, 1, b"ghi")
    c.c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(len(data)):
        c.send(data[i:i + 1])
    same(c.answer(1)[2], b"abcdefghi")
    c.c.close()


def continuation(s):
    c = Raw(s)
    block = c.block("/what", more=[("x-long", "y" * 9000)])
    c.send(frame(HEADERS, 1, 1, block[:10]) + frame(CONTINUATION, 0, 1, block[10:5000])
           + frame(CONTINUATION, 4, 1, block[5000:]))
    same(c.answer(1)[0], "200")
    c.get(3, "/small", more=[("x-long", "y" * 17000)])
    c.send(frame(PING, 0, 0, b"12345678"))
    c.until(PING)
    c.c.close()


def too_large(s):
    c = Raw(s)
    block = c.block("/small", more=[("x-long", "<" * 17000)])
    c.send(frame(HEADERS, 1, 1, block[:10000]) + frame(CONTINUATION, 0, 1, block[10000:20000])
           + frame(CONTINUATION, 4, 1, block[20000:]))
    same(c.answer(1)[0], "431")
    c.get(3, "/small")
    same(c.answer(3)[0], "200")
    c.c.close()


def many_at_once(s):
    """Beyond MAX_CONCURRENT_STREAMS a stream is refused, and can be asked for again."""
    c = Raw(s, settings=struct.pack(">HI", 4, 0))
    for i in range(1, 2 * 250, 2):
        c.get(i, "/small")
    c.get(501, "/small")
    same(c.reset_code(501), REFUSED)
    c.send(frame(RST_STREAM, 0, 1, struct.pack(">I", 8)))
    c.send(frame(PING, 0, 0, b"12345678"))
    c.until(PING)
    for stream in range(503, 603, 2):  # as soon as what was reset has ended
        c.get(stream, "/small")
        if c.until(HEADERS, RST_STREAM, stream=stream)[0] == HEADERS:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("refused for ever")
    c.c.close()


def length_lies(s):
    c = Raw(s)
    c.get(1, "/echo", method="POST", more=[("content-length", "5")], ends=False)
    c.send(frame(DATA, 1, 1, b"abc"))
    same(c.reset_code(1), PROTOCOL_ERROR)
    c.get(3, "/echo", method="POST", more=[("content-length", "2")], ends=False)
    c.send(frame(DATA, 1, 3, b"abc"))
    same(c.reset_code(3), PROTOCOL_ERROR)
    c.get(5, "/small")
    same(c.answer(5)[0], "200")
    c.c.close()


def upload_windows(s):
    """A client may not send more than its windows, of the stream and of the connection."""
    c = Raw(s)
    c.get(1, "/echo", method="POST", ends=False)
    for _ in range(5):
        c.send(frame(DATA, 0, 1, b"x" * 16384))
    same(c.until(WINDOW_UPDATE, stream=1)[2], 1)
    c.c.close()


class Uploads(Raw):
    """Counts what the server lets it send of bodies, and sends all of it to streams that nobody reads."""

    def __init__(self, s):
        super().__init__(s, settings=struct.pack(">HI", 4, 0))
        self.told, self.sent, self.stream = 65535, 0, -1

    def look(self):
        """What has come: all that is there behind a PING."""
        self.send(frame(PING, 0, 0, b"12345678"))
        for kind, flags, stream, payload in self.frames():
            if kind == WINDOW_UPDATE and stream == 0:
                self.told += struct.unpack(">I", payload)[0]
            elif kind in (GOAWAY, RST_STREAM):
                raise AssertionError((kind, payload))
            elif kind == PING and flags & 1:
                break

    def fill(self):
        while self.sent < self.told:
            n = min(65535, self.told - self.sent)
            self.stream += 2
            self.get(self.stream, "/5m", ends=False)
            for at in range(0, n, 16384):
                self.send(frame(DATA, 0, self.stream, bytes(min(16384, n - at))))
            self.sent += n
            self.look()


def unread_bodies(io):
    """What all connections of a worker hold of bodies is bounded: no window is opened beyond that, but
    each connection has its first 64 KiB, and gets more when others have gone."""
    s = Server(PORTICO, io, members=CLEAR, routes=ECHO, workers=1)
    try:
        many = [Uploads(s) for _ in range(170)]
        for c in many:
            c.look()
        assert 60 < sum(c.told > 65535 for c in many) < 80  # the first ones have a megabyte
        before = s.resident_kib()
        for c in many:
            if c.told == 65535:
                c.fill()
        told = sum(c.told for c in many)
        most = 128 << 20
        assert most * 0.99 < told - 65535 * len(many) <= most, told
        assert min(c.told for c in many) == 65535, "none was left without more"
        if not SANITIZED:
            assert s.resident_kib() - before < 2 * (sum(c.sent for c in many) >> 10)
        late = Client(s)
        data = os.urandom(150000).hex().encode()
        same(late.get("/echo", method="POST", body=data) == ("200", data), True)
        for c in many:
            c.c.close()
        s.wait(lambda: s.live()["connections"] <= 1)
        again = Uploads(s)
        again.look()
        same(again.told, 1 << 20)
        again.c.close()
        late.c.close()
        s.wait(lambda: s.live()["connections"] == 0)
    finally:
        s.end()


def expect(s):
    c = Client(s)
    stream = c.h2.get_next_available_stream_id()
    c.h2.send_headers(stream, [(":method", "POST"), (":scheme", "http"), (":authority", "a"),
                               (":path", "/echo"), ("expect", "100-continue")])
    c.flush()
    while stream not in c.informed:
        c.turn()
    same(c.informed[stream][":status"], "100")
    c.put(stream, b"abc")
    same(c.wait(stream), [b"abc"])
    c.c.close()


def flood(data, settings=b""):
    """What is repeated until the server ends the connection: ENHANCE_YOUR_CALM, and a log line."""
    def run(s):
        c = Raw(s, settings)
        try:
            for _ in range(3000):
                c.send(data * 10)
        except BROKEN:
            pass
        assert c.goaway() in (CALM, None), "another code"
        s.wait(lambda: "HTTP/2 connection ended" in s.text())
        assert re.search(r'"level":"info".*too many', s.text()), s.text()[-2000:]
    return run


def rapid_reset(s):
    c = Raw(s)
    block = hpack.Encoder().encode([(":method", "GET"), (":scheme", "http"), (":path", "/5m"),
                                    (":authority", "a")])
    try:
        for i in range(1, 20001, 2):
            c.send(frame(HEADERS, 5, i, block) + frame(RST_STREAM, 0, i, struct.pack(">I", 8)))
    except BROKEN:
        pass
    assert c.goaway() in (CALM, None)
    s.wait(lambda: "too many streams were reset" in s.text())


def made_you_reset(s):
    """Streams that the server resets because of what the client does to them."""
    c = Raw(s, settings=struct.pack(">HI", 4, 0))
    block = hpack.Encoder().encode([(":method", "GET"), (":scheme", "http"), (":path", "/5m"),
                                    (":authority", "a")])
    try:
        for i in range(1, 20001, 2):
            c.send(frame(HEADERS, 5, i, block) + frame(WINDOW_UPDATE, 0, i, struct.pack(">I", 0)))
    except BROKEN:
        pass
    assert c.goaway() in (CALM, None)
    s.wait(lambda: "too many streams were reset" in s.text())


def continuation_flood(s):
    c = Raw(s)
    try:
        c.send(frame(HEADERS, 1, 1, b""))
        for _ in range(1000):
            c.send(frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b"))
    except BROKEN:
        pass
    assert c.goaway() in (CALM, None)
    s.wait(lambda: "CONTINUATION" in s.text())


def no_reader(s):
    """A client that asks for answers and acknowledgements and reads none of them: bounded, and cut."""
    before = s.resident_kib()
    c = Raw(s, room=4096, settings=struct.pack(">HI", 4, 0x7fffffff))
    c.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7fff0000)))
    c.get(1, "/5m")
    c.get(3, "/5m")
    c.c.settimeout(2)
    try:
        for _ in range(100):
            c.send(frame(PING, 0, 0, b"12345678") * 10)
    except (socket.timeout, *BROKEN):
        pass
    s.wait(lambda: "took nothing" in s.text() or "too many" in s.text(), 20)
    if not SANITIZED:
        assert s.resident_kib() - before < 4000
    c.c.close()


def stalled_stream(s):
    """A stream whose window stays closed ends in write_idle_timeout; the connection goes on."""
    c = Raw(s, settings=struct.pack(">HI", 4, 10))
    c.get(1, "/10k")
    same(c.reset_code(1), CANCEL)
    c.send(frame(PING, 0, 0, b"12345678"))
    c.until(PING)
    c.c.close()


def slow_body(s):
    """A body that pauses for too long."""
    c = Raw(s)
    c.get(1, "/echo", method="POST", ends=False)
    c.send(frame(DATA, 0, 1, b"abc"))
    status, _, _ = c.answer(1)
    assert status in ("200", "408"), status
    c.c.close()


def idle(s):
    start = time.monotonic()
    c = Raw(s)
    c.get(1, "/small")
    c.answer(1)
    same(c.goaway(), NO_ERROR)
    assert 0.9 < time.monotonic() - start < 18
    c.c.close()


def preface_late(s):
    c = socket.create_connection(("127.0.0.1", s.port), 60)
    c.sendall(PREFACE[:10])
    start = time.monotonic()
    c.recv(100)
    assert time.monotonic() - start < 18
    c.close()


def reload_goes_on(s):
    """A reload that keeps the address keeps the connection, and its next request meets the new one."""
    c = Client(s)
    same(c.get(), ("200", b"one"))
    s.document["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"][0]["body"] = "two"
    same(s.api("POST", "/load", s.document)[0], 200)
    same(c.get(), ("200", b"two"))
    c.c.close()


def reload_goaway(s):
    """One that takes the address away says GOAWAY twice; what runs is finished."""
    c = Raw(s, settings=struct.pack(">HI", 4, 10))
    c.get(1, "/10k")
    c.until(DATA, stream=1)
    other = free_port()
    s.document["apps"]["http"]["servers"]["srv0"]["listen"] = [f"127.0.0.1:{other}"]
    s.port, old = other, s.port
    same(s.api("POST", "/load", s.document)[0], 200)
    kind, _, _, payload = c.until(GOAWAY)
    same(struct.unpack(">II", payload), (0x7fffffff, 0))
    c.send(frame(PING, 1, 0, b"goodbye!"))
    kind, _, _, payload = c.until(GOAWAY)
    same(struct.unpack(">II", payload), (1, 0))
    c.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 20000)))
    got = 10
    for kind, flags, stream, payload in c.frames():
        got += len(payload) if kind == DATA else 0
    same(got, 10240)
    same(old != other, True)
    c.c.close()


def drain(io):
    """At a stop the same happens: no request that came in time is lost."""
    s = Server(PORTICO, io, members=CLEAR, routes=ECHO, awaited=False, grace_period="5s")
    try:
        s.wait(lambda: s.get("/small")[0] == 200)
        c = Raw(s)
        c.get(1, "/echo", method="POST", ends=False)
        c.send(frame(PING, 0, 0, b"12345678"))
        c.until(PING)
        s.process.send_signal(signal.SIGTERM)
        c.until(GOAWAY)
        c.get(3, "/small")
        c.send(frame(DATA, 1, 1, b"abc"))
        got = list(c.frames())
        same({f[2]: f[3] for f in got if f[0] == DATA}, {1: b"abc", 3: FILES["small"]})
        same(got[-1], (GOAWAY, 0, 0, struct.pack(">II", 3, NO_ERROR)))
        c.c.close()
    finally:
        same(s.end(None), 0)


def cut_short(io):
    """What does not end within the grace period is cut."""
    s = Server(PORTICO, io, members=CLEAR, routes=ECHO, awaited=False, grace_period="1s")
    try:
        s.wait(lambda: s.get("/small")[0] == 200)
        c = Raw(s, settings=struct.pack(">HI", 4, 10))
        c.get(1, "/10k")
        c.get(3, "/echo", method="POST", ends=False)
        c.until(DATA, stream=1)
        start = time.monotonic()
        s.process.send_signal(signal.SIGTERM)
        for _ in c.frames():
            pass
        assert 0.5 < time.monotonic() - start < 18
        c.c.close()
    finally:
        same(s.end(None), 0)


def closing(s):
    """A handler that closes: the answer, then a goodbye."""
    c = Raw(s)
    c.get(1, "/")
    same(c.answer(1)[2], b"bye")
    c.send(frame(PING, 1, 0, b"goodbye!"))
    same(c.goaway(), NO_ERROR)
    c.c.close()
    c = Raw(s)
    c.get(1, "/abort")
    c.until(RST_STREAM, stream=1)
    c.get(3, "/abort")
    c.until(RST_STREAM, stream=3)
    c.c.close()


def scarce(io):
    """Clients with slow bodies on all of their streams leave fibers for the others."""
    if SANITIZED:
        raise Skip("sanitizers make so many stacks too large")
    s = Server(PORTICO, io, members=CLEAR, routes=ECHO, workers=1, awaited=False)
    try:
        s.wait(lambda: s.get("/small")[0] == 200)
        many = []
        for _ in range(17):
            c = Raw(s)
            for i in range(1, 500, 2):
                c.get(i, "/echo", method="POST", ends=False)
            c.send(frame(PING, 0, 0, b"12345678"))
            c.until(PING)
            many.append(c)
        c = Raw(s)
        for i in range(1, 200, 2):
            c.get(i, "/echo", method="POST", ends=False)
        code = c.until(RST_STREAM)
        same((code[2], code[3]), (2 * 62 + 1, struct.pack(">I", REFUSED)))
        same(s.get("/small")[0], 200)
        for c in many:
            c.c.close()
        s.wait(lambda: s.live()["fibers"] < 100)
    finally:
        s.end()


def not_asked_for(io):
    """Without h2c in "protocols" the preface is no request."""
    s = Server(PORTICO, io)
    try:
        c = socket.create_connection(("127.0.0.1", s.port), 60)
        c.sendall(PREFACE + frame(SETTINGS, 0, 0))
        answer = c.recv(1000)
        assert answer.startswith(b"HTTP/1.1 505") or answer.startswith(b"HTTP/1.1 400"), answer
        c.close()
    finally:
        s.end()


def access_log(s):
    c = Client(s)
    c.get()
    s.wait(lambda: '"proto":"HTTP/2.0"' in s.text())
    c.c.close()


class Echo:
    """An upstream that switches protocols and sends back what comes. The first bytes may say more:
    "close" ends the connection, "half" ends what it says and goes on reading."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.heads, self.ended = self.listener.getsockname()[1], [], 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                c = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        head = b""
        while b"\r\n\r\n" not in head:
            head += c.recv(1)
        self.heads.append(head.decode())
        if head.startswith(b"GET /no "):
            c.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            c.close()
            return
        c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                  b"Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nready")
        try:
            while part := c.recv(65536):
                if part == b"close":
                    break
                c.sendall(part)
        except OSError:
            pass
        self.ended += 1
        c.close()


def tunnel_routes(echo):
    return [{"handle": [{"handler": "reverse_proxy",
                         "upstreams": [{"dial": f"127.0.0.1:{echo.port}"}]}]}]


def connect(c, stream, path="/chat"):
    c.send(frame(HEADERS, 4, stream, c.encoder.encode(
        [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path),
         (":authority", "a"), ("sec-websocket-version", "13"), ("origin", "http://a")])))


def in_all(c, stream, length):
    got = b""
    while len(got) < length:
        _, flags, _, payload = c.until(DATA, stream=stream)
        got += payload
        c.send(frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", len(payload)))
               + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload))) if payload else b"")
        if flags & 1:
            break
    return got


def tunnel(s, echo):
    """A WebSocket over HTTP/2 (RFC 8441) to an upstream of HTTP/1.1, beside ordinary requests."""
    s.wait(lambda: echo.ended == len(echo.heads))
    before = echo.ended
    c = Raw(s)
    settings = c.until(SETTINGS)[3]
    assert b"\0\x08\0\0\0\1" in settings
    connect(c, 1)
    fields = c.until(HEADERS, stream=1)[3]
    same(fields[":status"], "200")
    assert not {"upgrade", "connection", "sec-websocket-accept"} & set(fields), fields
    same(in_all(c, 1, 5), b"ready")
    head = echo.heads[-1].lower()
    assert head.startswith("get /chat http/1.1\r\n"), head
    for word in ("upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-key: ",
                 "sec-websocket-version: 13\r\n", "via: 2.0 "):
        assert word in head, (word, head)
    for n in (1, 100, 16000):
        data = os.urandom(n)
        c.send(frame(DATA, 0, 1, data))
        same(in_all(c, 1, n) == data, True)
    connect(c, 3)
    c.until(HEADERS, stream=3)
    same(in_all(c, 3, 5), b"ready")
    c.send(frame(DATA, 0, 3, b"close"))
    kind, flags, _, payload = c.until(DATA, stream=3)
    same((flags, payload), (1, b""))
    connect(c, 5, "/no")
    same(c.answer(5)[0], "403")
    c.send(frame(DATA, 0, 1, b"last"))  # the end of one direction, then of the other
    same(in_all(c, 1, 4), b"last")
    c.send(frame(DATA, 1, 1))
    same(c.until(DATA, stream=1)[1:4:2], (1, b""))
    s.wait(lambda: echo.ended == before + 2)
    connect(c, 7)
    c.until(HEADERS, stream=7)
    c.send(frame(RST_STREAM, 0, 7, struct.pack(">I", 8)))
    s.wait(lambda: echo.ended == before + 3)
    connect(c, 9)
    c.until(HEADERS, stream=9)
    c.c.close()
    s.wait(lambda: echo.ended == before + 4)


def tunnels(io):
    echo = Echo()
    served(lambda s: tunnel(s, echo), gateway=True, routes=tunnel_routes(echo))(io)
    secure = Echo()
    served(lambda s: tunnel(s, secure), secure=True, gateway=True, routes=tunnel_routes(secure))(io)


def gateway(io):
    """Requests with and without bodies to an upstream, many at a time; its trailers."""
    up = Server(PORTICO, io, routes=ECHO)
    try:
        routes = [{"handle": [{"handler": "reverse_proxy",
                               "upstreams": [{"dial": f"127.0.0.1:{up.port}"}]}]}]

        def run(s):
            c = Client(s)
            for _ in range(3):
                asked = [(name, c.ask("/" + name)) for name in list(FILES) * 4]
                data = os.urandom(100000).hex().encode()
                posted = [c.ask("/echo", method="POST", body=data) for _ in range(4)]
                c.wait(*[i for _, i in asked], *posted)
                for name, i in asked:
                    same(c.bodies.pop(i) == FILES[name], True)
                for i in posted:
                    same(c.bodies.pop(i) == data, True)
            c.c.close()
        served(run, gateway=True, routes=routes)(io)
        served(run, secure=True, gateway=True, routes=routes)(io)
    finally:
        up.end()


def trailers(io):
    """Trailers up and down, an early hint, a gateway to a server of HTTP/1.1."""
    up = socket.create_server(("127.0.0.1", 0))
    seen = []

    def answer():
        while True:
            try:
                c = up.accept()[0]
            except OSError:
                return
            request = b""
            while not request.endswith(b"\r\n\r\n") or (b"chunked" in request and
                                                        b"\r\n0\r\n" not in request):
                request += c.recv(1)
            seen.append(request)
            c.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                      b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                      b"3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n")
            c.close()
    threading.Thread(target=answer, daemon=True).start()
    routes = [{"handle": [{"handler": "reverse_proxy", "upstreams": [
        {"dial": f"127.0.0.1:{up.getsockname()[1]}"}]}]}]

    def run(s):
        c = Client(s)
        stream = c.ask("/x", method="POST", body=b"hello", more=[("te", "trailers")],
                       trailers=[("x-count", "5")])
        same(c.wait(stream), [b"abc"])
        same(c.informed[stream][":status"], "103")
        same(c.informed[stream]["link"], "</a>")
        same(c.trailers[stream]["x-sum"], "6")
        assert b"\r\n0\r\nx-count: 5\r\n" in seen[-1].lower(), seen[-1]
        c.c.close()
    served(run, gateway=True, routes=routes)(io)
    up.close()


def write_timeout(s):
    """The whole answer has its time, however it trickles; the connection stays."""
    c = Raw(s, settings=struct.pack(">HI", 4, 10))
    c.get(1, "/10k")
    start = time.monotonic()
    while time.monotonic() - start < 1.6:
        c.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)))
        time.sleep(0.02)
    same(c.reset_code(1), CANCEL)
    c.send(frame(PING, 0, 0, b"12345678"))
    c.until(PING)
    c.c.close()


def trickle(s):
    """A body that never pauses but is slower than the least rate."""
    c = Raw(s)
    c.get(1, "/echo", method="POST", ends=False)
    start = time.monotonic()
    try:
        while time.monotonic() - start < 3:
            c.send(frame(DATA, 0, 1, b"x"))
            time.sleep(0.02)
    except BROKEN:
        pass
    assert any(f[0] in (HEADERS, RST_STREAM) and f[2] == 1 for f in c.frames_now())
    c.c.close()


def priorities(s):
    """What is urgent goes first, what is not incremental one after the other (RFC 9218)."""
    c = Raw(s, settings=struct.pack(">HI", 4, 1 << 20))
    for stream, value in ((1, "u=5"), (3, "u=5"), (5, "u=1"), (7, "u=5, i"), (9, "u=0")):
        c.get(stream, "/100k", more=[("priority", value)])
    heads = set()
    while len(heads) < 5:
        heads.add(c.until(HEADERS)[2])
    order = []
    c.send(frame(16, 0, 0, struct.pack(">I", 3) + b"u=7"))
    c.send(frame(PING, 0, 0, b"12345678"))
    c.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 20)))
    ended = 0
    while ended < 5:
        _, flags, stream, _ = c.until(DATA)
        if flags & 1:
            order.append(stream)
            ended += 1
    assert order.index(9) < order.index(5) < order.index(1), order
    same(order[-1], 3)
    c.c.close()


def storm(s):
    """Frames of which some bytes are wrong: whatever they do to a connection, the next one is served."""
    random_ = random.Random(7)
    block = hpack.Encoder().encode([(":method", "POST"), (":scheme", "http"), (":path", "/echo"),
                                    (":authority", "a"), ("x-a", "b" * 40)])
    for _ in range(int(os.environ.get("STORM_ROUNDS", 60))):
        parts = [frame(SETTINGS, 0, 0, struct.pack(">HI", 4, random_.choice((0, 100, 1 << 20))))]
        for stream in range(1, 40, 2):
            parts.append(frame(HEADERS, random_.choice((4, 5, 0x0c, 0x2c)), stream, block))
            for _ in range(random_.randrange(4)):
                kind = random_.choice((DATA, DATA, WINDOW_UPDATE, RST_STREAM, PING, PRIORITY, GOAWAY,
                                       CONTINUATION, SETTINGS, 16, HEADERS))
                size = {WINDOW_UPDATE: 4, RST_STREAM: 4, PING: 8, PRIORITY: 5, GOAWAY: 8, SETTINGS: 6,
                        16: 8}.get(kind, random_.randrange(60))
                parts.append(frame(kind, random_.choice((0, 1, 4, 8)),
                                   0 if kind in (PING, GOAWAY, SETTINGS, 16) else
                                   random_.choice((stream, stream, 1, 2, 0)),
                                   bytes(random_.randrange(256) for _ in range(size))))
        data = bytearray(b"".join(parts))
        for _ in range(random_.choice((0, 0, 1, 3))):
            data[random_.randrange(len(data))] = random_.randrange(256)
        try:
            c = dial(s)
            c.settimeout(0.05)
            c.sendall(PREFACE + bytes(data))
            for _ in range(random_.randrange(3)):
                c.recv(65536)
        except OSError:
            pass
        c.close()
    same(s.get("/small"), (200, FILES["small"]))


def memory(io):
    """Idle connections own little."""
    s = Server(PORTICO, io, members=CLEAR, workers=1)
    try:
        some = [Raw(s) for _ in range(100)]
        for c in some:
            c.get(1)
            c.answer(1)
        time.sleep(0 if SANITIZED else 2.5)
        before = s.resident_kib()
        more = [Raw(s) for _ in range(200 if SANITIZED else 1000)]
        for c in more:
            c.get(1)
            c.answer(1)
        if not SANITIZED:
            time.sleep(2.5)
            each = (s.resident_kib() - before) * 1024 / 1000
            assert each < 2000, f"{each} bytes for an idle connection"
            print(f"# {each:.0f} bytes for an idle connection ({io})")
        for c in some + more:
            c.c.close()
    finally:
        s.end()


CASES = [
    ("small answers", served(small)),
    ("host, uri, cookies, HEAD", served(words, routes=ECHO)),
    ("files of all sizes", served(files, routes=ECHO)),
    ("bodies of all sizes", served(bodies, routes=ECHO)),
    ("an answer before the body", served(early, routes=ECHO)),
    ("thousands of streams", served(thousands, routes=ECHO)),
    ("curl, nghttp and h2load", served(tools, routes=ECHO)),
    ("an upgrade from HTTP/1.1", served(upgrade, routes=ECHO)),
    ("bodies in odd pieces", served(lent, routes=ECHO)),
    ("bodies larger than a turn", served(large, routes=LARGE_ROUTES)),
    ("a slow stream blocks no other", served(slow_stream, routes=ECHO)),
    ("windows that change", served(windows, routes=ECHO)),
    ("resets", served(resets, routes=ECHO)),
    ("clients that leave", served(leaves, routes=ECHO)),
    ("byte by byte", served(byte_by_byte, routes=ECHO)),
    ("CONTINUATION", served(continuation, routes=ECHO)),
    ("too large a head", served(too_large, routes=ECHO)),
    ("too many streams", served(many_at_once, routes=ECHO)),
    ("lengths that lie", served(length_lies, routes=ECHO)),
    ("windows of uploads", served(upload_windows, routes=ECHO)),
    ("bodies that nobody reads, on many connections", unread_bodies),
    ("100 Continue", served(expect, routes=ECHO)),
    ("a flood of PING", served(flood(frame(PING, 0, 0, b"12345678")))),
    ("a flood of SETTINGS", served(flood(frame(SETTINGS, 0, 0)))),
    ("a flood of PRIORITY", served(flood(frame(PRIORITY, 0, 1, b"\0\0\0\0\1")))),
    ("a flood of unknown frames", served(flood(frame(99, 0, 0)))),
    ("a flood of window updates", served(flood(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")))),
    ("rapid reset", served(rapid_reset, routes=ECHO)),
    ("made to reset", served(made_you_reset, routes=ECHO)),
    ("a flood of CONTINUATION", served(continuation_flood, routes=ECHO)),
    ("a client that does not read", served(no_reader, routes=ECHO,
                                           members={"write_idle_timeout": "3s"})),
    ("a stream that stands still", served(stalled_stream, routes=ECHO,
                                          members={"write_idle_timeout": "1s"})),
    ("a stream that trickles", served(write_timeout, routes=ECHO,
                                      members={"write_timeout": "1s"})),
    ("a body that trickles", served(trickle, routes=ECHO, members={
        "read_idle_timeout": "1s", "read_min_rate": 1000})),
    ("priorities", served(priorities, routes=ECHO)),
    ("a storm of wrong frames", served(storm, routes=ECHO)),
    ("trailers and hints", trailers),
    ("a slow body", served(slow_body, routes=ECHO, members={"read_idle_timeout": "1s"})),
    ("the idle timeout", served(idle, routes=ECHO, members={"idle_timeout": "1s"})),
    ("a preface that does not come", served(preface_late, members={"read_header_timeout": "1s"})),
    ("a reload that keeps the address", served(reload_goes_on)),
    ("a reload that takes it away", served(reload_goaway, routes=ECHO)),
    ("a drain", drain),
    ("a drain that is cut short", cut_short),
    ("handlers that close", served(closing, routes=[
        {"match": [{"path": ["/abort"]}], "handle": [{"handler": "static_response", "abort": True}]},
        {"handle": [{"handler": "static_response", "body": "bye", "close": True}]}])),
    ("scarce fibers", scarce),
    ("h2c that is not asked for", not_asked_for),
    ("a WebSocket", tunnels),
    ("the gateway", gateway),
    ("the access log", served(access_log, members={"logs": {}})),
    ("memory of idle connections", memory),
]

SECURE = [
    ("small answers", small, {}),
    ("files of all sizes", files, {"routes": ECHO}),
    ("bodies of all sizes", bodies, {"routes": ECHO}),
    ("an answer before the body", early, {"routes": ECHO}),
    ("thousands of streams", thousands, {"routes": ECHO}),
    ("bodies in odd pieces", lent, {"routes": ECHO}),
    ("bodies larger than a turn", large, {"routes": LARGE_ROUTES}),
    ("a slow stream blocks no other", slow_stream, {"routes": ECHO}),
    ("windows that change", windows, {"routes": ECHO}),
    ("resets", resets, {"routes": ECHO}),
    ("clients that leave", leaves, {"routes": ECHO}),
    ("byte by byte", byte_by_byte, {"routes": ECHO}),
    ("too large a head", too_large, {"routes": ECHO}),
    ("rapid reset", rapid_reset, {"routes": ECHO}),
    ("a storm of wrong frames", storm, {"routes": ECHO}),
    ("a client that does not read", no_reader,
     {"routes": ECHO, "members": {"write_idle_timeout": "3s"}}),
    ("a stream that stands still", stalled_stream,
     {"routes": ECHO, "members": {"write_idle_timeout": "1s"}}),
    ("the idle timeout", idle, {"routes": ECHO, "members": {"idle_timeout": "1s"}}),
]
CASES += [(f"{name}, over TLS", served(run, secure=True, **settings))
          for name, run, settings in SECURE]

if __name__ == "__main__":
    run_cases(CASES, at_once=4)
