#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A server of HTTP/2 behind the gateway that breaks every rule it can, as exact frames, on both I/O back ends and to
clients of HTTP/1 and HTTP/2, as TAP. A table says what it sends; what the client must see; what the server must hear
of it (a code, of the stream or of the connection); and that other streams of the connection live on where only one
was at fault. Floods: memory stays, and the next request is answered.
Usage: h2_hostile_test.py PORTICO [TEXT]."""
import concurrent.futures
import contextlib
import itertools
import os
import random
import re
import socket
import struct
import sys
import threading

sys.dont_write_bytecode = True
import h2_client as h2  # noqa: E402 (beside this file)
from h2_client import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY,  # noqa: E402
                       PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, block, frame)
from h2_server import STATUS, Conn, Ended  # noqa: E402
from origin import Talk  # noqa: E402
from server import BACK_ENDS, Server, same  # noqa: E402

PORTICO = sys.argv[1]
ONLY = sys.argv[2] if len(sys.argv) > 2 else ""
CUT = "cut"
PATIENCE = 40


class Behind:
    """Plays a row on the connection where it is asked for it; answers all else."""

    def __init__(self, row):
        self.row, self.settings, self.before = row, row.settings, row.before
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]
        self.played, self.holds = threading.Event(), threading.Event()
        self.code = self.goaway = self.error = None
        self.asked = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(Conn(sock, self, PATIENCE),), daemon=True).start()

    def serve(self, conn):
        try:
            if not self.before or self.asked:
                conn.begin(*self.settings)
            else:
                conn.preface()
            while True:
                while conn.requests:
                    self.one(conn, *conn.requests.pop(0))
                conn.read()
        except Ended:
            self.goaway = self.goaway or conn.goaway
        except OSError:
            pass
        except Exception as e:
            self.error = e
        finally:
            self.played.set()
            conn.sock.close()

    def one(self, conn, stream, fields):
        path = fields[":path"]
        if path == "/hold" and not self.asked:
            conn.held.append(stream)
            self.holds.set()
        elif path == "/row":
            self.asked += 1
            self.row.play(conn, stream)
            self.code = conn.heard(stream)
            self.goaway = conn.goaway
            for held in conn.held:
                conn.answer(held, b"/hold")
            conn.held = []
            self.played.set()
        else:
            conn.answer(stream, path.encode())

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Row:
    """`wanted`: a status, (status, body) or CUT. `code`: what the stream is reset with; `goaway`: with what the connection is
    ended, and with it its other streams. Both None: nothing is at fault. `before`: nothing is sent but what is played."""

    def __init__(self, name, play, wanted, code=None, goaway=None, method="GET", settings=(), before=False):
        self.name, self.play, self.wanted, self.code, self.goaway = name, play, wanted, code, goaway
        self.method, self.settings, self.before = method, settings, before


# --- the table ---

def fields(*more, end=True):
    """Plays an answer with such fields, and a body of five bytes."""
    def play(c, s):
        c.headers(s, *more, end=False)
        c.data(s, b"hello", end=end)
    return play


def bad_fields(name, *more):
    return Row("fields: " + name, fields(*more), 502, "PROTOCOL_ERROR")


def raw(*parts):
    """Plays bytes; a part may be a function of the stream."""
    return lambda c, s: c.send(*[p(s) if callable(p) else p for p in parts])


def broken(name, goaway, *parts, wanted=502, **more):
    return Row("connection: " + name, raw(*parts), wanted, goaway=goaway, **more)


def in_body(name, code, *parts, wanted=CUT, goaway=None):
    """Behind a head and the first bytes of a body."""
    return Row(name, raw(lambda s: frame(HEADERS, END_HEADERS, s, block([STATUS])), lambda s: frame(DATA, 0, s, b"hel"), *parts),
               wanted, code, goaway)


def number(n):
    return struct.pack("!I", n)


def on(kind, flags=0, payload=b""):
    return lambda s: frame(kind, flags, s, payload)


def setting(key, value):
    return h2.Client.settings_frame([(key, value)])


OKAY = lambda s: frame(HEADERS, END_HEADERS, s, block([STATUS])) + frame(DATA, END_STREAM, s, b"hello")  # noqa: E731
HEAD = lambda s: frame(HEADERS, END_HEADERS, s, block([STATUS]))  # noqa: E731
GOOD = (200, b"hello")


def refuses(c, s):
    """Always. A request that was not looked at may be asked again, but not without end."""
    assert c.behind.asked < 20, "it never ends"
    c.send(frame(RST_STREAM, 0, s, number(7)))


def goes(last, code=0, answered=False):
    def play(c, s):
        if c.behind.asked > 1:
            c.answer(s, b"hello")
            return
        c.send(frame(GOAWAY, 0, 0, number(s if last else 0) + number(code)))
        if answered:
            c.answer(s, b"hello")
    return play


def closes(how):
    def play(c, s):
        if how == "body":
            c.headers(s, STATUS)
            c.data(s, b"hel")
        if how == "reset":
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        c.sock.close()
        raise Ended
    return play


def overflows(c, s):
    """More than the window of the stream, however large it becomes, while the client is slow to read."""
    c.headers(s, STATUS)
    for _ in range(2000):
        c.data(s, b"x" * 16384)


def waits_for_window(c, s):
    """The answer comes when the body has; its windows are opened byte by byte at first."""
    c.send(frame(WINDOW_UPDATE, 0, 0, number(1 << 20)))
    for n in (1, 2, 3, 1000, 100000):
        c.send(frame(WINDOW_UPDATE, 0, s, number(n)))
    c.until(lambda: s in c.ended_streams)
    c.answer(s, b"%d" % len(c.bodies[s]))


def shrinks(c, s):
    """A window that becomes negative, and large again."""
    c.send(frame(WINDOW_UPDATE, 0, 0, number(1 << 20)))
    c.until(lambda: s in c.bodies)
    c.send(setting(h2.INITIAL_WINDOW_SIZE, 0), setting(h2.INITIAL_WINDOW_SIZE, 10), setting(h2.INITIAL_WINDOW_SIZE, 1 << 20))
    c.until(lambda: s in c.ended_streams)
    c.answer(s, b"%d" % len(c.bodies[s]))


def early(code):
    """The whole answer before the body, of which no more is wanted (RFC 9113 §8.1)."""
    def play(c, s):
        c.answer(s, b"hello")
        c.send(frame(RST_STREAM, 0, s, number(code)))
    return play


def flood(*parts, count=20000, head=True, then=OKAY):
    """So many of the same, then an answer."""
    def play(c, s):
        one = b"".join(p(s) if callable(p) else p for p in parts)
        if head:
            c.headers(s, STATUS)
        for _ in range(count // 100):
            c.send(one * 100)
        if then is OKAY and head:
            c.data(s, b"hello", end=True)
        elif then:
            c.send(then(s))
    return play


TRAILERS = END_HEADERS | END_STREAM
FIELD_BLOCK = block([STATUS])

ROWS = [
    Row("nothing is wrong", raw(OKAY), GOOD),
    Row("no body", lambda c, s: c.headers(s, STATUS, end=True), (200, b"")),
    Row("trailers", raw(HEAD, on(DATA, 0, b"hello"), on(HEADERS, TRAILERS, block([("x-t", "v")]))), GOOD),
    Row("padding and priority", raw(on(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, b"\5" + b"\0\0\0\0\x10" + FIELD_BLOCK + b"\0" * 5),
                                    on(DATA, END_STREAM | PADDED, b"\xc8hello" + b"\0" * 200)), GOOD),
    Row("a head in many pieces", raw(on(HEADERS, 0, FIELD_BLOCK[:2]), *[on(CONTINUATION, 0, FIELD_BLOCK[i:i + 1]) for i in range(2, len(FIELD_BLOCK))],
                                     on(CONTINUATION, END_HEADERS, b""), on(DATA, END_STREAM, b"hello")), GOOD),
    Row("frames that nobody knows", raw(frame(0xbe, 255, 0, b"x" * 100), on(0xbf, 255, b"y" * 100), frame(10, 0, 0, b"\0\0"), frame(12, 0, 0, b""), OKAY), GOOD),
    Row("settings that nobody knows", raw(setting(0xfff0, 7), setting(h2.HEADER_TABLE_SIZE, 0), setting(h2.HEADER_TABLE_SIZE, 1 << 30), OKAY), GOOD),
    Row("PRIORITY", raw(on(PRIORITY, 0, b"\0\0\0\0\x10"), frame(PRIORITY, 0, 77, b"\0\0\0\0\x10"), OKAY), GOOD),
    *[Row(f"the status {v}", fields((":status", v)), (int(v), b"hello")) for v in ("600", "700", "999")],
    Row("103 first", raw(on(HEADERS, END_HEADERS, block([(":status", "103"), ("link", "</a>")])), OKAY), GOOD),
    Row("sixteen interim heads", raw(*[on(HEADERS, END_HEADERS, block([(":status", "103")]))] * 16, OKAY), GOOD),
    Row("seventeen interim heads", raw(*[on(HEADERS, END_HEADERS, block([(":status", "103")]))] * 17, OKAY), 502, "any"),
    Row("five thousand interim heads", flood(on(HEADERS, END_HEADERS, block([(":status", "100")])), count=5000, head=False), 502, "any", goaway="maybe"),
    # heads
    bad_fields("no :status", ("x", "y")), bad_fields(":status twice", STATUS, STATUS), bad_fields("none at all"),
    *[bad_fields(f":status {v!r}", (":status", v)) for v in ("", "20", "2000", "abc", "099", "+20", " 200", "200 ", "2 0", "-20", "200 OK", "101", "1e2", "\xb2\xb2\xb2")],
    bad_fields("a pseudo-header field behind a field", ("x", "y"), STATUS), bad_fields("one of requests", STATUS, (":path", "/")),
    bad_fields("one that nobody knows", STATUS, (":x", "y")), bad_fields("a name that is a colon", STATUS, (":", "y")),
    *[bad_fields(f"name {n!r}", STATUS, (n, "y")) for n in ("X", "", "x y", "x:y", "x\r\ny", "x\0", "x\n", " x", "x\x80", "Content-Length")],
    *[bad_fields(f"value {v!r}", STATUS, ("x", v)) for v in ("y\r\nz: 1", "y\nz", "y\r", "y\0", " y", "y ", "\ty", "y\t", "y\x7f", "y\x1b", "\r\n\r\nHTTP/1.1 200 OK")],
    *[bad_fields(n, STATUS, (n, v)) for n, v in (("connection", "close"), ("connection", "x"), ("keep-alive", "5"), ("proxy-connection", "close"),
                                                 ("transfer-encoding", "chunked"), ("transfer-encoding", "identity"), ("upgrade", "h2c"))],
    *[bad_fields(f"lengths {v!r}", STATUS, *[("content-length", x) for x in v]) for v in (["5", "6"], ["5", "5"], ["x"], ["-5"], ["+5"], ["5, 5"], ["0x5"], [""], ["5 5"], ["18446744073709551621"])],
    Row("a length that is not reached", fields(STATUS, ("content-length", "50")), CUT, "PROTOCOL_ERROR"),
    Row("a length that is too small", fields(STATUS, ("content-length", "3")), CUT, "PROTOCOL_ERROR"),
    Row("a length of 0 and a body", fields(STATUS, ("content-length", "0")), None, "PROTOCOL_ERROR"),
    Row("a length and no body", lambda c, s: c.headers(s, STATUS, ("content-length", "5"), end=True), 502, "PROTOCOL_ERROR"),
    Row("a length that is right", fields(STATUS, ("content-length", "5")), GOOD),
    Row("204 with a body", fields((":status", "204")), None, "any"), Row("304 with a body", fields((":status", "304")), None, "any"),
    Row("HEAD with a body", fields(STATUS), None, "any", method="HEAD"),
    Row("HEAD with a length", lambda c, s: c.headers(s, STATUS, ("content-length", "5"), end=True), (200, b""), method="HEAD"),
    Row("304 with a length", lambda c, s: c.headers(s, (":status", "304"), ("content-length", "5"), end=True), (304, b"")),
    Row("an interim head that ends the stream", lambda c, s: c.headers(s, (":status", "103"), end=True), 502, "PROTOCOL_ERROR"),
    Row("a body before the head", raw(on(DATA, 0, b"hello"), OKAY), 502, "PROTOCOL_ERROR"),
    Row("a body behind an interim head", raw(on(HEADERS, END_HEADERS, block([(":status", "103")])), on(DATA, END_STREAM, b"hello")), 502, "PROTOCOL_ERROR"),
    Row("300 fields", fields(STATUS, *[("x", "y")] * 300), 502, "any"),
    Row("a field of 40,000 bytes", raw(on(HEADERS, 0, block([STATUS, ("x", "y" * 16000)])[:16384]), *[on(CONTINUATION, 0, block([("x", "y" * 16000)]))] * 2, on(CONTINUATION, END_HEADERS, b"")), 502, "any"),
    Row("a bomb of compressed fields", raw(on(HEADERS, 0, FIELD_BLOCK + b"\x40" + h2.text("x") + h2.text("y" * 4000) + b"\xbe" * 12000), on(CONTINUATION, END_HEADERS, b"\xbe" * 16000)), 502, "any"),
    # bodies and what comes behind
    in_body("trailers that do not end the stream", "PROTOCOL_ERROR", on(HEADERS, END_HEADERS, block([("x", "y")]))),
    in_body("a pseudo-header field among trailers", "PROTOCOL_ERROR", on(HEADERS, TRAILERS, block([(":status", "200")]))),
    in_body("a line's end in a trailer", "PROTOCOL_ERROR", on(HEADERS, TRAILERS, block([("x", "y\r\nz: 1")]))),
    in_body("a trailer of connections", "PROTOCOL_ERROR", on(HEADERS, TRAILERS, block([("transfer-encoding", "chunked")]))),
    in_body("a second head", "PROTOCOL_ERROR", on(HEADERS, END_HEADERS, FIELD_BLOCK), on(DATA, END_STREAM, b"poison")),
    in_body("RST_STREAM in a body", None, on(RST_STREAM, 0, number(8))),
    in_body("RST_STREAM without an error in a body", None, on(RST_STREAM, 0, number(0))),
    in_body("a window update of 0", "PROTOCOL_ERROR", on(WINDOW_UPDATE, 0, number(0))),
    in_body("a window that overflows", "FLOW_CONTROL_ERROR", on(WINDOW_UPDATE, 0, number(0x7fffffff))),
    in_body("PRIORITY of four bytes", "FRAME_SIZE_ERROR", on(PRIORITY, 0, b"\0\0\0\0"), wanted=None, goaway="maybe"),
    Row("more than the stream's window", overflows, None, "FLOW_CONTROL_ERROR", goaway="maybe"),
    *[Row(f"RST_STREAM with {c} before a head", raw(on(RST_STREAM, 0, number(c))), 502) for c in (0, 1, 2, 8, 11, 13, 99)],
    Row("REFUSED_STREAM again and again", refuses, 502),
    # uploads
    Row("windows that open bit by bit", waits_for_window, (200, b"100000"), method="POST", settings=[(h2.INITIAL_WINDOW_SIZE, 0)]),
    Row("a window that becomes negative", shrinks, (200, b"100000"), method="POST", settings=[(h2.INITIAL_WINDOW_SIZE, 1000)]),
    Row("an answer before the body, and RST_STREAM without an error", early(0), GOOD, "any", method="POST", settings=[(h2.INITIAL_WINDOW_SIZE, 100)]),
    Row("an answer before the body, and RST_STREAM", early(8), None, "any", method="POST", settings=[(h2.INITIAL_WINDOW_SIZE, 100)]),
    Row("an answer before the body, which is not read", lambda c, s: c.answer(s, b"hello"), GOOD, "any", method="POST", settings=[(h2.INITIAL_WINDOW_SIZE, 100)]),
    Row("WINDOW_UPDATE of 0 during a body", raw(on(WINDOW_UPDATE, 0, number(0))), 502, "PROTOCOL_ERROR", method="POST", settings=[(h2.INITIAL_WINDOW_SIZE, 100)]),
    # GOAWAY
    Row("GOAWAY before the request", goes(False), GOOD, goaway="maybe"),
    Row("GOAWAY before the request, POST", goes(False), None, goaway="maybe", method="POST"),
    Row("GOAWAY behind the request, which is answered", goes(True, answered=True), GOOD, goaway="maybe"),
    Row("GOAWAY with an error, behind the request, which is answered", goes(True, 2, True), None, goaway="maybe"),
    # all of the connection is at fault
    broken("the first frame is no SETTINGS", "PROTOCOL_ERROR", frame(PING, 0, 0, b"12345678"), OKAY, before=True),
    broken("the first frame is an answer", "PROTOCOL_ERROR", OKAY, before=True),
    broken("the first frame is an acknowledgement", "PROTOCOL_ERROR", frame(SETTINGS, ACK), OKAY, before=True),
    broken("HTTP/1.1 400", "any", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", before=True),
    broken("garbage", "any", b"\xff" * 100, before=True),
    broken("SETTINGS of five bytes", "FRAME_SIZE_ERROR", frame(SETTINGS, 0, 0, b"12345")),
    broken("SETTINGS that acknowledge and say", "FRAME_SIZE_ERROR", frame(SETTINGS, ACK, 0, b"123456")),
    broken("SETTINGS of a stream", "PROTOCOL_ERROR", on(SETTINGS)),
    broken("SETTINGS nobody waits for are acknowledged", "maybe", frame(SETTINGS, ACK) * 3, OKAY, wanted=None),
    broken("a window of 2^31", "FLOW_CONTROL_ERROR", setting(h2.INITIAL_WINDOW_SIZE, 1 << 31)),
    broken("frames of 100 bytes", "PROTOCOL_ERROR", setting(h2.MAX_FRAME_SIZE, 100)),
    broken("frames of 16 MiB", "PROTOCOL_ERROR", setting(h2.MAX_FRAME_SIZE, 1 << 24)),
    broken("push", "PROTOCOL_ERROR", setting(h2.ENABLE_PUSH, 1)),
    broken("ENABLE_PUSH of 2", "PROTOCOL_ERROR", setting(h2.ENABLE_PUSH, 2)),
    broken("ENABLE_CONNECT_PROTOCOL of 2", "PROTOCOL_ERROR", setting(h2.ENABLE_CONNECT_PROTOCOL, 2)),
    broken("NO_RFC7540_PRIORITIES of 2", "PROTOCOL_ERROR", setting(h2.NO_RFC7540_PRIORITIES, 2)),
    broken("PRIORITY_UPDATE", "PROTOCOL_ERROR", frame(h2.PRIORITY_UPDATE, 0, 0, number(1) + b"u=1")),
    broken("PRIORITY_UPDATE of a stream", "PROTOCOL_ERROR", on(h2.PRIORITY_UPDATE, 0, number(1) + b"u=1")),
    broken("PRIORITY_UPDATE of 3 bytes", "FRAME_SIZE_ERROR", frame(h2.PRIORITY_UPDATE, 0, 0, b"123")),
    broken("windows that overflow by SETTINGS", "FLOW_CONTROL_ERROR", on(WINDOW_UPDATE, 0, number(0x7fff0000)), setting(h2.INITIAL_WINDOW_SIZE, 0x7fffffff)),
    broken("PUSH_PROMISE", "PROTOCOL_ERROR", on(PUSH_PROMISE, END_HEADERS, number(2) + block(h2.request()))),
    broken("PUSH_PROMISE of nobody", "PROTOCOL_ERROR", frame(PUSH_PROMISE, END_HEADERS, 0, number(2) + block(h2.request()))),
    *[broken(f"{h2.TYPES[k]} of stream {n}", "PROTOCOL_ERROR", frame(k, f, n, p)) for n in (0, 2, 1001)
      for k, f, p in ((HEADERS, TRAILERS, FIELD_BLOCK), (DATA, END_STREAM, b"hello"), (RST_STREAM, 0, number(8)))],
    *[broken(f"WINDOW_UPDATE of stream {n}", "PROTOCOL_ERROR", frame(WINDOW_UPDATE, 0, n, number(1))) for n in (2, 1001)],
    broken("PING of a stream", "PROTOCOL_ERROR", on(PING, 0, b"12345678")), broken("PING of 7 bytes", "FRAME_SIZE_ERROR", frame(PING, 0, 0, b"1234567")),
    broken("GOAWAY of a stream", "PROTOCOL_ERROR", on(GOAWAY, 0, number(0) * 2)), broken("GOAWAY of 7 bytes", "FRAME_SIZE_ERROR", frame(GOAWAY, 0, 0, b"1234567")),
    broken("RST_STREAM of 3 bytes", "FRAME_SIZE_ERROR", on(RST_STREAM, 0, b"123")), broken("RST_STREAM of 5 bytes", "FRAME_SIZE_ERROR", on(RST_STREAM, 0, b"12345")),
    broken("WINDOW_UPDATE of 3 bytes", "FRAME_SIZE_ERROR", frame(WINDOW_UPDATE, 0, 0, b"123")),
    broken("WINDOW_UPDATE of 0", "PROTOCOL_ERROR", frame(WINDOW_UPDATE, 0, 0, number(0))),
    broken("its window overflows", "FLOW_CONTROL_ERROR", frame(WINDOW_UPDATE, 0, 0, number(0x7fffffff))),
    broken("DATA of 16,385 bytes", "FRAME_SIZE_ERROR", HEAD, on(DATA, 0, b"x" * 16385), wanted=None),
    broken("HEADERS of 16,385 bytes", "FRAME_SIZE_ERROR", on(HEADERS, END_HEADERS, b"x" * 16385)),
    broken("a frame of 16 MiB", "FRAME_SIZE_ERROR", b"\xff\xff\xff\xbe\0\0\0\0\0" + b"x" * 1000),
    broken("padding longer than the frame", "PROTOCOL_ERROR", HEAD, on(DATA, PADDED, b"\x10hello"), wanted=None),
    broken("padding of a head longer than the frame", "PROTOCOL_ERROR", on(HEADERS, END_HEADERS | PADDED, b"\xff" + FIELD_BLOCK)),
    broken("padded DATA without a length", "any", HEAD, on(DATA, PADDED, b""), wanted=None),
    broken("a head without its priority", "FRAME_SIZE_ERROR", on(HEADERS, END_HEADERS | WITH_PRIORITY, b"\0\0")),
    broken("CONTINUATION of nothing", "PROTOCOL_ERROR", on(CONTINUATION, END_HEADERS, FIELD_BLOCK)),
    broken("CONTINUATION of another stream", "PROTOCOL_ERROR", on(HEADERS, 0, FIELD_BLOCK), lambda s: frame(CONTINUATION, END_HEADERS, s + 2, b"")),
    broken("PING inside a head", "PROTOCOL_ERROR", on(HEADERS, 0, FIELD_BLOCK), frame(PING, 0, 0, b"12345678")),
    broken("DATA inside a head", "PROTOCOL_ERROR", on(HEADERS, 0, FIELD_BLOCK), on(DATA, 0, b"x")),
    broken("an unknown frame inside a head", "PROTOCOL_ERROR", on(HEADERS, 0, FIELD_BLOCK), frame(0xbe)),
    *[broken("HPACK " + n, "COMPRESSION_ERROR", on(HEADERS, END_HEADERS, b)) for n, b in (
        ("index 0", b"\x80"), ("an index that is not there", b"\xff\x80\x01"), ("an index without end", b"\xff" + b"\xff" * 20),
        ("a table too large", b"\x3f\xe2\x7f\xff\x7f"), ("a size behind a field", FIELD_BLOCK + b"\x20"), ("a name that is cut", b"\x00\x05ab"),
        ("a value without end", b"\x00\x01x\x7f\xff\xff\xff\xff\x7f"), ("bad Huffman", b"\x00\x81\xff\x01y"), ("the end of Huffman", b"\x00\x84\xff\xff\xff\xff\x01y"))],
    # what comes behind a stream's end
    broken("a head behind the end", "STREAM_CLOSED", OKAY, lambda s: frame(HEADERS, TRAILERS, s, FIELD_BLOCK), wanted=GOOD),
    broken("DATA behind the end", "STREAM_CLOSED", OKAY, on(DATA, 0, b"poison"), wanted=GOOD),
    Row("WINDOW_UPDATE, RST_STREAM and PRIORITY behind the end", raw(OKAY, on(WINDOW_UPDATE, 0, number(1)), on(PRIORITY, 0, b"\0\0\0\0\x10"), on(RST_STREAM, 0, number(0))), GOOD),
    # ends
    *[Row("the connection ends: " + h, closes(h), CUT if h == "body" else 502, goaway="maybe", method="POST") for h in ("before", "body", "reset")],
    # floods
    *[Row("flood: " + n, flood(*parts, **more), None, "any", goaway="maybe") for n, parts, more in (
        ("PING", [frame(PING, 0, 0, b"12345678")], {}), ("PING that acknowledges", [frame(PING, ACK, 0, b"12345678")], {}),
        ("SETTINGS", [frame(SETTINGS)], {}), ("SETTINGS that say much", [h2.Client.settings_frame([(h2.INITIAL_WINDOW_SIZE, 65535)] * 20)], {"count": 5000}),
        ("WINDOW_UPDATE", [frame(WINDOW_UPDATE, 0, 0, number(1))], {}), ("WINDOW_UPDATE of a stream", [on(WINDOW_UPDATE, 0, number(1))], {}),
        ("PRIORITY", [on(PRIORITY, 0, b"\0\0\0\0\x10")], {}), ("unknown frames", [frame(0xbe, 0, 0, b"x" * 20)], {}),
        ("DATA without a byte", [on(DATA)], {}), ("DATA of padding alone", [on(DATA, PADDED, b"\x07" + b"\0" * 7)], {"count": 50000}),
        ("RST_STREAM of the same", [on(RST_STREAM, 0, number(8))], {}), ("GOAWAY", [frame(GOAWAY, 0, 0, number(0x7fffffff) + number(0))], {}),
        ("103", [on(HEADERS, END_HEADERS, block([(":status", "103"), ("x", "y" * 500)]))], {"head": False}))],
    Row("flood: CONTINUATION without end", lambda c, s: (c.send(frame(HEADERS, 0, s, FIELD_BLOCK)), [c.send(frame(CONTINUATION, 0, s, block([("x", "y" * 100)])) * 100) for _ in range(100)]),
        502, "any", goaway="any"),
    Row("flood: CONTINUATION without a byte", lambda c, s: (c.send(frame(HEADERS, 0, s, FIELD_BLOCK)), [c.send(frame(CONTINUATION, 0, s) * 100) for _ in range(100)]), 502, "any", goaway="any"),
]


# --- the clients ---

def ask_h1(s, port, path, method="GET", results=None):
    """Status, body, and whether it broke off."""
    t, status, body, broke = Talk(s.port, PATIENCE), 0, b"", False
    try:
        t.ask(path, b"X-Port: %d" % port, *([b"Content-Length: 100000"] if method == "POST" else []), method=method.encode())
        if method == "POST":
            with contextlib.suppress(OSError):
                t.send(b"z" * 100000)
        a = t.head()
        status = a.status
        for part in t.pieces(a.fields, until_end=True, none=method == "HEAD" or status in (204, 304)):
            body += part if isinstance(part, bytes) else b""
        assert not a.trailers or a.trailers == [(b"x-t", b"v")], a.trailers
    except (EOFError, ConnectionResetError):
        broke = True
    t.close()
    return status, body, broke


def ask_h2(s, port, path, method="GET"):
    with h2.Client(s.port, grants=True, timeout=PATIENCE) as c:
        stream = c.ask(h2.request(method, path.decode(), ("x-port", str(port))), end=method != "POST")
        if method == "POST":
            c.until(lambda: h2.INITIAL_WINDOW_SIZE in c.settings or c.acknowledged)
            for _ in range(6):
                c.data(stream, b"z" * 10000)
            left = 40000
            while left and not c.answers[stream].ended and c.answers[stream].reset is None:
                # by what portico has granted: counted from the frames that came
                got = sum(int.from_bytes(f.payload, "big") for f in c.frames if f.kind == WINDOW_UPDATE and f.stream == stream)
                if 65535 + got - (100000 - left) >= 10000:
                    left -= 10000
                    c.data(stream, b"z" * 10000, end=left == 0)
                elif c.read() is None:
                    break
        a = c.answer(stream)
        return a.status or 0, a.body, not a.ended or a.reset not in (None, "NO_ERROR")


def judge(row, got):
    status, body, broke = got
    assert b"poison" not in body, body
    if row.wanted == CUT:
        assert broke or status == 502, f"{got} looks whole"
    elif isinstance(row.wanted, int):
        same((status, broke), (row.wanted, False))
    elif row.wanted:
        same(got, (*row.wanted, False))


class Dice:
    """An upstream that says anything, by a seed: frames of all kinds in any order, bytes of them changed, in pieces. What
    is said to a request depends on its path, not on which of them comes first."""

    def __init__(self, seed):
        self.seed, self.connections, self.played = seed, itertools.count(), []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(Conn(sock, None, 3),), daemon=True).start()

    def serve(self, conn):
        with contextlib.suppress(Exception):  # what it says itself makes no sense
            d = random.Random(f"{self.seed} connection {next(self.connections)}")
            conn.begin(*([(h2.MAX_CONCURRENT_STREAMS, d.choice((1, 2, 100)))] if d.random() < 0.5 else []))
            while True:
                while conn.requests:
                    stream, asked = conn.requests.pop(0)
                    self.play(conn, stream, random.Random(f"{self.seed} {asked[':path']}"))
                conn.read()
        conn.sock.close()

    @staticmethod
    def one(d, s):
        return d.choice((
            lambda: OKAY(s), lambda: HEAD(s), lambda: frame(DATA, 0, s, b"x" * 100), lambda: frame(DATA, END_STREAM, s, b"y"),
            lambda: frame(PING, 0, 0, b"12345678"), lambda: setting(d.randrange(1, 9), d.choice((0, 1, 100, 16384, 65535, 1 << 20, (1 << 31) - 1))),
            lambda: frame(WINDOW_UPDATE, 0, d.choice((0, s)), number(d.choice((0, 1, 1000, (1 << 31) - 1)))),
            lambda: frame(RST_STREAM, 0, d.choice((s, s + 2, 1)), number(d.randrange(14))),
            lambda: frame(GOAWAY, 0, 0, number(d.choice((0, s, 1 << 30))) + number(d.randrange(14))),
            lambda: frame(HEADERS, END_HEADERS, s, block([(":status", d.choice(("100", "103", "200", "204", "304"))), ("content-length", str(d.randrange(200)))])),
            lambda: frame(HEADERS, TRAILERS, s, block([("x-t", "v")])), lambda: frame(HEADERS, 0, s, FIELD_BLOCK),
            lambda: frame(CONTINUATION, END_HEADERS, s, block([("x", "y")])),
            lambda: frame(d.randrange(256), d.randrange(256), d.choice((0, s, 2)), d.randbytes(d.randrange(40)))))()

    def play(self, conn, s, d):
        said = bytearray(b"".join(self.one(d, s) for _ in range(d.randrange(1, 8))))
        for _ in range(d.choice((0, 0, 1, 3))):
            said[d.randrange(len(said))] = d.randrange(256)
        while said:
            n = d.choice((len(said), 1, 9, 20))
            conn.send(bytes(said[:n]))
            del said[:n]
        self.played.append(s)
        if d.random() < 0.3:
            raise Ended


def at_random(s, rounds):
    """Every question has an answer of some kind, and nothing is left."""
    seed = int(os.environ.get("PORTICO_SEED", random.randrange(1 << 32)))
    dice = Dice(seed)

    def client(n):
        for i in range(rounds // 8):
            path, method = b"/%d/%d" % (n, i), ("GET", "POST", "HEAD")[i % 3]
            try:
                ask_h1(s, dice.port, path, method)
            except (AssertionError, OSError, ValueError) as e:
                raise AssertionError(f"{method} {path.decode()}: {e!r}") from e
    print(f"# PORTICO_SEED={seed}", flush=True)  # also for what is found as the server ends
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(client, range(8)))
        s.wait(lambda: s.live()["fibers"] == 0)
        assert len(dice.played) > rounds // 4, f"only {len(dice.played)} of {rounds} were answered at all"
    except (AssertionError, OSError, ValueError) as e:
        raise AssertionError(f"PORTICO_SEED={seed}: {e!r}") from e
    finally:
        dice.listener.shutdown(socket.SHUT_RDWR)
        dice.listener.close()


def check(ask, s, row):
    behind = Behind(row)
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            other = None
            if not row.before:
                other = pool.submit(ask, s, behind.port, b"/hold")
                assert behind.holds.wait(PATIENCE), "the first request did not arrive"
            judge(row, ask(s, behind.port, b"/row", row.method))
            assert behind.played.wait(PATIENCE), "the row was not played to its end"
            if behind.error:
                raise behind.error
            if row.goaway is None:
                same((behind.goaway, "any" if row.code == "any" else behind.code), (None, row.code))
                same(other.result(), (200, b"/hold", False))
            elif row.goaway not in ("any", "maybe"):
                same(behind.goaway, row.goaway)
            if other:
                other.result()
        behind.before = False
        for i in range(2):
            same(ask(s, behind.port, b"/own/%d" % i), (200, b"/own/%d" % i, False))
    finally:
        behind.close()


def memory(s):
    with open(f"/proc/{s.server_pid()}/status", encoding="ascii") as f:
        return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))


def run(io, number, stack):
    # One worker, so that both requests go on one connection.
    s = Server(PORTICO, io, workers=1, members={"protocols": ["h1", "h2c"]}, routes=[{"handle": [{
        "handler": "reverse_proxy", "upstreams": [{"dial": "127.0.0.1:{http.request.header.X-Port}"}],
        "transport": {"protocol": "http", "versions": ["h2c", "2"], "max_response_header_size": 32768}}]}])
    stack.callback(s.end)
    # One that waits for less long: what is said at random may leave a question open.
    quick = Server(PORTICO, io, workers=1, routes=[{"handle": [{
        "handler": "reverse_proxy", "upstreams": [{"dial": "127.0.0.1:{http.request.header.X-Port}"}],
        "transport": {"protocol": "http", "versions": ["h2c", "2"], "response_header_timeout": "200ms", "read_timeout": "200ms",
                      "dial_timeout": "1s"}}]}])
    stack.callback(quick.end)
    jobs = [(f"to HTTP/{v}: {row.name}", ask, s, row) for v, ask in ((1, ask_h1), (2, ask_h2)) for row in ROWS]
    jobs = [j for j in jobs if ONLY in j[0]]
    failed, before = 0, memory(s)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = [pool.submit(check, *job[1:]) for job in jobs]
        for (name, *_), result in zip(jobs, results):
            number += 1
            why = result.exception()
            failed += why is not None
            name = name.replace("#", "")
            print(f"{'not ' if why else ''}ok {number} - {name} ({io})", flush=True)
            if why:
                print(f"# {type(why).__name__}: {str(why)[:700]!r}", flush=True)
    number += 1
    grown = memory(s) - before
    good = grown < 64 << 10
    failed += not good
    print(f"{'not ' * (not good)}ok {number} - all that took less than 64 MiB of memory ({io})\n# {grown} KiB", flush=True)
    number += 1
    try:
        at_random(quick, int(os.environ.get("ROUNDS", "800")))
        print(f"ok {number} - frames at random ({io})", flush=True)
    except AssertionError as e:
        failed += 1
        print(f"not ok {number} - frames at random ({io})\n# {str(e)[:1500]!r}", flush=True)
    return number, failed


def main():
    number = failed = 0
    for io in BACK_ENDS:
        with contextlib.ExitStack() as stack:  # of the servers, each of which ends, and well
            number, more = run(io, number, stack)
        failed += more
    print(f"1..{number}")
    sys.exit(1 if failed else 0)


main()
