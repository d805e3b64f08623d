#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A conformance suite for HTTP/2 servers, written from the sections of RFC 9113, RFC 7541, RFC 9218
and RFC 8441: what a peer can test of what they demand, as TAP, each row with its section, on both
I/O back ends, over plain TCP with prior knowledge and over TLS. Usage: h2_suite.py PORTICO [TEXT].
It runs against Debian's caddy as well."""
import base64
import concurrent.futures
import hashlib
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

import h2_client as frames
from h2_client import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING,
                       PRIORITY, PRIORITY_UPDATE, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
                       WITH_PRIORITY, block, frame, integer, literal, request, text)
from server import BACK_ENDS, Server, Skip, same

PORTICO = sys.argv[1]
ONLY = sys.argv[2] if len(sys.argv) > 2 else ""
CADDY = os.path.basename(PORTICO) == "caddy"
SANITIZED = b"__asan_init" in open(PORTICO, "rb").read() or b"__tsan_init" in open(PORTICO, "rb").read()
HELLO = "hello, world!"
BIG = 1 << 20
ROWS = []
ALONE = set()  # what measures the server's memory or time, of which the other rows take as well
SILENT = socket.create_server(("127.0.0.1", 0), backlog=100)  # an upstream that never says a word
ECHOING = socket.create_server(("127.0.0.1", 0), backlog=100)  # one that changes its protocol and echoes


def echo_for_ever():
    def one(c):
        with c:
            head = b""
            while b"\r\n\r\n" not in head:
                head += c.recv(65536)
            chunks = b"3\r\nabc\r\n3\r\ndef\r\n"
            if b" /trailers " in head or b" /broken " in head:
                c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + chunks)
                if b" /trailers " in head:
                    c.sendall(b"0\r\nX-Sum: 42\r\n\r\n")
                return
            key = re.search(rb"(?im)^sec-websocket-key: *(\S+)", head)
            accept = base64.b64encode(hashlib.sha1(
                (key.group(1) if key else b"") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + head.partition(b"\r\n\r\n")[2])
            while data := c.recv(65536):
                c.sendall(data)
    while True:
        threading.Thread(target=one, args=(ECHOING.accept()[0],), daemon=True).start()


def row(section, sentence, alone=False):
    def add(check):
        ROWS.append((section, sentence, check))
        if alone:
            ALONE.add(check)
        return check
    return add


# --- what is expected ---

def ends(c, *codes):
    """A connection error: GOAWAY with one of the codes, then the end."""
    c.until(lambda: c.closed)
    assert c.closed, f"the connection is still open: {c.frames}"
    assert c.goaway is not None, f"no GOAWAY: {c.frames}"
    assert c.goaway.code in codes, f"{c.goaway}, want {codes}"


def resets(c, stream, *codes):
    """A stream error; the connection lives on."""
    a = c.answer(stream)
    assert not c.closed and not c.goaway, f"the connection ended: {c.frames}"
    assert a.reset in codes, f"{a.reset} (status {a.status}), want {codes}: {c.frames}"
    assert c.alive(), f"the connection ended: {c.frames}"


def answers(c, stream, status=200, body=None):
    a = c.answer(stream)
    assert a.reset is None, f"reset with {a.reset}"
    assert not c.goaway, f"{c.goaway}"
    same(a.status, status)
    if body is not None:
        same(a.body.decode(), body)
    return a


def lives(c):
    assert c.alive(), f"the connection ended: {c.frames}"
    answers(c, c.ask(request("HEAD")))  # needs no window


def malformed(c, fields):
    """RFC 9113 §8.1.1: a stream error of type PROTOCOL_ERROR; a 400 may come before."""
    stream = c.ask(fields)
    a = c.answer(stream)
    assert not c.closed and not c.goaway, f"the connection ended: {c.frames}"
    assert a.reset == "PROTOCOL_ERROR" or a.status == 400, f"reset {a.reset}, status {a.status}"
    lives(c)


def frame_max(c):
    return c.settings.get(frames.MAX_FRAME_SIZE, 16384)


def raw_headers(c, payload, flags=END_HEADERS | END_STREAM, stream=None):
    stream = stream or c.stream()
    c.frame(HEADERS, flags, stream, payload)
    return stream


# --- RFC 9113 §3: starting ---

@row("9113 3.4", "the server's first frame is SETTINGS")
def first_settings(new):
    c = new()
    f = c.read()
    assert f.kind == SETTINGS and not f.flags & ACK, f
    same(f.stream, 0)


@row("9113 3.4", "a request right behind the preface, in one segment, is answered")
def all_at_once(new):
    c = new(preface=False)
    c.send(frames.PREFACE + c.settings_frame(()) + frame(HEADERS, 5, 1, block(request())))
    answers(c, 1, 200, HELLO)


@row("9113 3.4", "a preface cut into single bytes is put together")
def byte_by_byte(new):
    c = new(preface=False)
    for byte in frames.PREFACE + c.settings_frame(()):
        c.send(bytes([byte]))
    lives(c)


@row("9113 3.4", "a wrong preface closes the connection")
def wrong_preface(new):
    c = new(preface=False)
    c.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + c.settings_frame(()))
    try:
        while c.read():
            pass
    except AssertionError:
        pass
    assert c.closed or c.received


@row("9113 3.4", "a first frame other than SETTINGS is an error of type PROTOCOL_ERROR")
def first_is_ping(new):
    c = new(preface=False)
    c.send(frames.PREFACE + frame(PING, 0, 0, b"12345678"))
    ends(c, "PROTOCOL_ERROR")


@row("9113 3.4", "a first frame that acknowledges SETTINGS is an error of type PROTOCOL_ERROR")
def first_is_ack(new):
    c = new(preface=False)
    c.send(frames.PREFACE + frame(SETTINGS, ACK))
    ends(c, "PROTOCOL_ERROR")


# --- §4: frames ---

@row("9113 4.1", "a frame of an unknown type is ignored")
def unknown_type(new):
    c = new()
    c.frame(0xbe, 0xff, 0, b"x" * 100)
    c.frame(0xbe, 0xff, 5, b"")
    lives(c)


@row("9113 4.1", "flags that a frame does not know are ignored")
def unknown_flags(new):
    c = new()
    c.ping(flags=0xfe)
    assert c.until(lambda: any(f.kind == PING for f in c.frames))
    c.frame(HEADERS, END_STREAM | END_HEADERS | 0xd2 & ~PADDED & ~WITH_PRIORITY, 1, block(request()))
    answers(c, 1)


@row("9113 4.1", "the reserved bit of a stream's number is ignored")
def reserved_bit(new):
    c = new()
    c.frame(HEADERS, END_STREAM | END_HEADERS, 0x80000001, block(request()))
    answers(c, 1)


@row("9113 4.1", "frames cut at every byte are put together")
def cut_frames(new):
    c = new()
    for byte in frame(HEADERS, END_HEADERS, 1, block(request("POST", "/echo"))) + frame(DATA, 1, 1, b"abc"):
        c.send(bytes([byte]))
        time.sleep(0.001)
    answers(c, 1, 200, "abc")


@row("9113 4.2", "a DATA frame of 2^14 bytes is accepted")
def largest_data(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    c.data(stream, b"x" * 16384, True)
    same(len(answers(c, stream).body), 16384)


@row("9113 4.2", "a DATA frame beyond the maximum size is an error of type FRAME_SIZE_ERROR")
def oversize_data(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    assert c.alive()
    c.data(stream, b"x" * (frame_max(c) + 1), True)
    c.until(lambda: c.closed or c.answers[stream].reset)
    assert c.answers[stream].reset == "FRAME_SIZE_ERROR" or c.goaway.code == "FRAME_SIZE_ERROR"


@row("9113 4.2", "a HEADERS frame beyond the maximum size ends the connection with FRAME_SIZE_ERROR")
def oversize_headers(new):
    c = new()
    assert c.alive()
    raw_headers(c, block(request()) + literal("x", "y" * frame_max(c)))
    ends(c, "FRAME_SIZE_ERROR")


@row("9113 4.2", "a frame of the largest size that its length can tell is refused before it has come")
def huge_frame(new):
    c = new()
    c.send(b"\xff\xff\xff" + bytes([DATA, 0]) + struct.pack("!I", 1))
    ends(c, "FRAME_SIZE_ERROR", "PROTOCOL_ERROR")


@row("9113 4.3", "a header block that cannot be decoded ends the connection with COMPRESSION_ERROR")
def bad_block(new):
    c = new()
    raw_headers(c, b"\x40\x01")
    ends(c, "COMPRESSION_ERROR")


@row("9113 4.3", "so do trailers that cannot be decoded")
def bad_trailers(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    c.frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x80")
    ends(c, "COMPRESSION_ERROR")


@row("9113 4.3", "so does a block that comes behind our RST_STREAM")
def bad_block_behind_reset(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    c.rst(stream)
    c.ask()
    raw_headers(c, b"\x80")
    ends(c, "COMPRESSION_ERROR")


for name, other in [("PRIORITY", frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")), ("PING", frame(PING, 0, 0, b"12345678")),
                    ("DATA on another stream", frame(DATA, 0, 3, b"x")),
                    ("HEADERS", frame(HEADERS, 5, 3, block(request()))),
                    ("a frame of an unknown type", frame(0xbe, 0, 0, b"x")),
                    ("CONTINUATION of another stream", frame(CONTINUATION, END_HEADERS, 3, b""))]:
    @row("9113 4.3", f"{name} within a header block ends the connection with PROTOCOL_ERROR")
    def within_block(new, other=other):
        c = new()
        raw_headers(c, block(request()), END_STREAM)
        c.send(other)
        ends(c, "PROTOCOL_ERROR")


@row("9113 4.3", "the table's state is kept by the blocks of requests that are refused")
def table_of_refused(new):
    c = new()
    bad = c.ask([])
    c.frame(HEADERS, 5, bad + 2, literal("x-kept", "y", 0x40, 6) + block([("UPPER", "x")]))
    c.frame(HEADERS, 5, bad + 4, block(request("GET", "/kept")) + b"\xbe")
    answers(c, bad + 4, 200, "y")


# --- §5: streams ---

for name, what in [("DATA", frame(DATA, 1, 1, b"x")), ("RST_STREAM", frame(RST_STREAM, 0, 1, b"\0\0\0\x08")),
                   ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01")),
                   ("CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, block(request())))]:
    @row("9113 5.1", f"idle: {name} ends the connection with PROTOCOL_ERROR")
    def on_idle(new, what=what):
        c = new()
        c.send(what)
        ends(c, "PROTOCOL_ERROR")


@row("9113 5.1", "idle: PRIORITY is allowed")
def priority_on_idle(new):
    c = new()
    c.frame(PRIORITY, 0, 7, b"\0\0\0\0\x10")
    lives(c)


def half_closed(c):
    """A stream whose answer waits for window, so that it is half-closed (remote) for sure."""
    return c.ask(request("GET", "/big"))


@row("9113 5.1", "half-closed (remote): DATA is a stream error of type STREAM_CLOSED")
def data_half_closed(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.data(stream, b"x")
    c.until(lambda: c.closed or c.answers[stream].reset)
    assert c.answers[stream].reset == "STREAM_CLOSED" or c.goaway.code == "STREAM_CLOSED", c.frames


@row("9113 5.1", "half-closed (remote): HEADERS is a stream error of type STREAM_CLOSED")
def headers_half_closed(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.ask(request(), stream=stream)
    c.until(lambda: c.closed or c.answers[stream].reset)
    assert c.answers[stream].reset == "STREAM_CLOSED" or c.goaway.code == "STREAM_CLOSED", c.frames


@row("9113 5.1", "half-closed (remote): CONTINUATION ends the connection with PROTOCOL_ERROR")
def continuation_half_closed(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.frame(CONTINUATION, END_HEADERS, stream, block([("x", "y")]))
    ends(c, "PROTOCOL_ERROR")


@row("9113 5.1", "half-closed (remote): WINDOW_UPDATE, PRIORITY and RST_STREAM are allowed")
def others_half_closed(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.window(stream, 10)
    c.frame(PRIORITY, 0, stream, b"\0\0\0\0\x10")
    assert c.until(lambda: len(c.answers[stream].body) == 10), c.frames
    c.rst(stream)
    assert c.alive()


@row("9113 5.1", "closed by RST_STREAM: DATA and HEADERS are errors of type STREAM_CLOSED or ignored")
def behind_rst(new):
    for kind in (DATA, HEADERS):
        c = new()
        stream = c.ask(request("POST", "/echo"), end=False)
        c.rst(stream)
        if kind == DATA:
            c.data(stream, b"x")
        else:
            c.ask(request(), stream=stream)
        answer = c.alive()
        code = c.goaway.code if not answer else c.answers[stream].reset
        assert code in ("STREAM_CLOSED", None) or kind == HEADERS and code == "PROTOCOL_ERROR", code


@row("9113 5.1", "closed by END_STREAM: DATA is an error of type STREAM_CLOSED")
def data_closed(new):
    c = new()
    stream = c.ask()
    c.answer(stream)
    c.data(stream, b"x")
    c.until(lambda: c.closed or c.answers[stream].reset)
    assert c.answers[stream].reset == "STREAM_CLOSED" or c.goaway.code == "STREAM_CLOSED", c.frames


@row("9113 5.1", "closed by END_STREAM: HEADERS ends the connection with STREAM_CLOSED or PROTOCOL_ERROR")
def headers_closed(new):
    c = new()
    stream = c.ask()
    c.answer(stream)
    c.ask(request(), stream=stream)
    ends(c, "STREAM_CLOSED", "PROTOCOL_ERROR")


@row("9113 5.1", "closed: WINDOW_UPDATE, RST_STREAM and PRIORITY are allowed for a while")
def others_closed(new):
    c = new()
    stream = c.ask()
    c.answer(stream)
    c.window(stream, 10)
    c.rst(stream)
    c.frame(PRIORITY, 0, stream, b"\0\0\0\0\x10")
    lives(c)


@row("9113 5.1.1", "an even stream ends the connection with PROTOCOL_ERROR")
def even_stream(new):
    c = new()
    c.ask(stream=2)
    ends(c, "PROTOCOL_ERROR")


@row("9113 5.1.1", "a stream below one that was opened ends the connection with PROTOCOL_ERROR")
def lower_stream(new):
    c = new()
    answers(c, c.ask(stream=5))
    c.ask(stream=3)
    ends(c, "PROTOCOL_ERROR", "STREAM_CLOSED")


@row("9113 5.1.1", "streams may be skipped, and the last one that there is may be used")
def skipped_streams(new):
    c = new()
    answers(c, c.ask(stream=101))
    answers(c, c.ask(stream=0x7fffffff))


for name, what in [("DATA", frame(DATA, 1, 2, b"x")), ("RST_STREAM", frame(RST_STREAM, 0, 2, b"\0\0\0\x08")),
                   ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 2, b"\0\0\0\x01"))]:
    @row("9113 5.1.1", f"{name} on a stream that only the server could have opened ends the connection")
    def on_even(new, what=what):
        c = new()
        answers(c, c.ask(stream=5))
        c.send(what)
        ends(c, "PROTOCOL_ERROR")


@row("9113 5.1", "bodies that are still coming behind early answers do not end the connection")
def late_bodies(new):
    c = new()
    assert c.alive()
    streams = [c.ask(request("POST", "/never-read"), end=False) for _ in range(200)]
    for s in streams:
        answers(c, s, 200, HELLO)
    for _ in range(3):
        for s in streams:
            c.data(s, b"x" * 1000)
        assert c.alive(), c.frames[-3:]
    c.frame(HEADERS, END_HEADERS | END_STREAM, streams[-1], block([("x-sum", "1")]))
    for s in streams[:-1]:
        c.data(s, b"x", True)
    lives(c)


@row("9113 6.9", "padding counts against the stream's window and is given back")
def padding_and_windows(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    for _ in range(4):
        for _ in range(200):
            c.frame(DATA, PADDED, stream, b"\xff" + b"\0" * 255)
        c.data(stream, b"x")
        time.sleep(0.05)
        assert c.alive()
    c.data(stream, b"y", True)
    answers(c, stream, 200, "xxxxy")


@row("9113 5.1.2", "more streams at a time than MAX_CONCURRENT_STREAMS are refused one by one")
def too_many_streams(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    assert c.alive()
    most = c.settings.get(frames.MAX_CONCURRENT_STREAMS)
    assert most is not None and most >= 100, c.settings
    streams = [half_closed(c) for _ in range(most + 3)]
    assert c.alive(), c.frames[-3:]
    refused = [s for s in streams if c.answers[s].reset is not None]
    same(refused, streams[most:])
    assert all(c.answers[s].reset in ("REFUSED_STREAM", "PROTOCOL_ERROR") for s in refused)
    for s in streams[:most]:
        c.rst(s)
    lives(c)


@row("9113 5.2", "one stream without window holds up no other")
def slow_stream(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 100)])
    slow = c.ask(request("GET", "/big"))
    for _ in range(5):
        answers(c, c.ask(), 200, HELLO)
    same(len(c.answers[slow].body), 100)


@row("9113 5.3", "PRIORITY of a stream that depends on itself does no harm to others")
def self_dependency(new):
    c = new()
    c.frame(PRIORITY, 0, 1, b"\0\0\0\x01\x10")
    c.frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 3, b"\0\0\0\x03\x10" + block(request()))
    a = c.answer(3)
    assert a.status == 200 or a.reset == "PROTOCOL_ERROR"
    lives_at = c.ask(stream=5)
    answers(c, lives_at)


@row("9113 5.4.1", "GOAWAY names the last stream that was served")
def goaway_last(new):
    c = new()
    answers(c, c.ask())
    answers(c, c.ask())
    c.frame(PING, 0, 1, b"12345678")
    ends(c, "PROTOCOL_ERROR")
    same(struct.unpack("!I", c.goaway.payload[:4])[0], 3)


@row("9113 5.4.2", "RST_STREAM is not answered by RST_STREAM")
def no_echo_of_reset(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.rst(stream)
    assert c.alive() and c.alive()
    same(c.answers[stream].reset, None)


# --- §6.1: DATA ---

@row("9113 6.1", "DATA on stream 0 ends the connection with PROTOCOL_ERROR")
def data_on_zero(new):
    c = new()
    c.data(0, b"x")
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.1", "padding of DATA is dropped, also when it is all there is")
def padded_data(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    c.frame(DATA, PADDED, stream, b"\x03abc\0\0\0")
    c.frame(DATA, PADDED, stream, b"\0def")
    c.frame(DATA, PADDED, stream, b"\xff" + b"\0" * 255)
    c.frame(DATA, PADDED | END_STREAM, stream, b"\x01\0")
    answers(c, stream, 200, "abcdef")


for size, payload in [("as long as the frame", b"\x04abc"), ("longer than the frame", b"\xff"),
                      ("without its length", b"")]:
    @row("9113 6.1", f"padding of DATA {size} ends the connection")
    def bad_padding(new, payload=payload):
        c = new()
        stream = c.ask(request("POST", "/echo"), end=False)
        c.frame(DATA, PADDED | END_STREAM, stream, payload)
        ends(c, "PROTOCOL_ERROR", "FRAME_SIZE_ERROR")


@row("9113 6.1", "a request's body may come in empty and small DATA frames")
def small_data(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    for byte in b"hello":
        c.data(stream, bytes([byte]))
        c.data(stream, b"")
    c.data(stream, b"", True)
    answers(c, stream, 200, "hello")


# --- §6.2: HEADERS ---

@row("9113 6.2", "HEADERS on stream 0 ends the connection with PROTOCOL_ERROR")
def headers_on_zero(new):
    c = new()
    c.frame(HEADERS, 5, 0, block(request()))
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.2", "padding and priority of HEADERS are dropped")
def padded_headers(new):
    c = new()
    raw = block(request("GET", "/"))
    for flags, payload in [(PADDED, b"\x05" + raw + b"\0" * 5), (PADDED, b"\0" + raw),
                           (WITH_PRIORITY, b"\x80\0\0\0\x10" + raw),
                           (PADDED | WITH_PRIORITY, b"\x02\0\0\0\0\x10" + raw + b"\0\0")]:
        answers(c, raw_headers(c, payload, END_HEADERS | END_STREAM | flags), 200, HELLO)


for what, flags, payload in [("padding longer than the frame", PADDED, b"\xff" + block(request())),
                             ("padding without its length", PADDED, b""),
                             ("priority cut off", WITH_PRIORITY, b"\0\0\0"),
                             ("padding where priority should be", PADDED | WITH_PRIORITY, b"\x05\0\0\0\0\x10")]:
    @row("9113 6.2", f"HEADERS with {what} ends the connection")
    def bad_headers(new, flags=flags, payload=payload):
        c = new()
        raw_headers(c, payload, END_HEADERS | END_STREAM | flags)
        ends(c, "PROTOCOL_ERROR", "FRAME_SIZE_ERROR")


# --- §6.3, §6.4: PRIORITY, RST_STREAM ---

@row("9113 6.3", "PRIORITY on stream 0 ends the connection with PROTOCOL_ERROR")
def priority_on_zero(new):
    c = new()
    c.frame(PRIORITY, 0, 0, b"\0\0\0\x01\x10")
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.3", "PRIORITY of another length than 5 is an error of type FRAME_SIZE_ERROR")
def priority_length(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.frame(PRIORITY, 0, stream, b"\0\0\0\x01")
    c.until(lambda: c.closed or c.answers[stream].reset)
    assert c.answers[stream].reset == "FRAME_SIZE_ERROR" or c.goaway.code == "FRAME_SIZE_ERROR"


@row("9113 6.3", "… on an idle stream, which cannot be reset, it ends the connection")
def priority_length_idle(new):
    for stream in (2, 7):
        c = new()
        c.frame(PRIORITY, 0, stream, b"\0\0\0\x01")
        ends(c, "FRAME_SIZE_ERROR")


@row("9113 6.4", "RST_STREAM on stream 0 ends the connection with PROTOCOL_ERROR")
def rst_on_zero(new):
    c = new()
    c.rst(0)
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.4", "RST_STREAM of another length than 4 ends the connection with FRAME_SIZE_ERROR")
def rst_length(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.frame(RST_STREAM, 0, stream, b"\0\0\0\x08\0")
    ends(c, "FRAME_SIZE_ERROR")


# --- §6.5: SETTINGS ---

@row("9113 6.5", "SETTINGS that acknowledges and has a payload ends the connection with FRAME_SIZE_ERROR")
def ack_with_payload(new):
    c = new()
    c.frame(SETTINGS, ACK, 0, b"\0\x03\0\0\0\x64")
    ends(c, "FRAME_SIZE_ERROR")


@row("9113 6.5", "SETTINGS on a stream ends the connection with PROTOCOL_ERROR")
def settings_on_stream(new):
    c = new()
    c.frame(SETTINGS, 0, 1, b"")
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.5", "SETTINGS whose length is no multiple of 6 ends the connection with FRAME_SIZE_ERROR")
def settings_length(new):
    c = new()
    c.frame(SETTINGS, 0, 0, b"\0\x03\0\0\0")
    ends(c, "FRAME_SIZE_ERROR")


for key, value, code in [(frames.ENABLE_PUSH, 2, "PROTOCOL_ERROR"), (frames.INITIAL_WINDOW_SIZE, 1 << 31, "FLOW_CONTROL_ERROR"),
                         (frames.MAX_FRAME_SIZE, 16383, "PROTOCOL_ERROR"), (frames.MAX_FRAME_SIZE, 1 << 24, "PROTOCOL_ERROR")]:
    @row("9113 6.5.2", f"setting {key} of {value} ends the connection with {code}")
    def bad_setting(new, key=key, value=value, code=code):
        c = new()
        c.send(c.settings_frame([(key, value)]))
        ends(c, code)


@row("9113 6.5.2", "settings that are unknown are ignored")
def unknown_setting(new):
    c = new(settings=[(0x99, 7), (0xffff, 0)])
    lives(c)


@row("9113 6.5.3", "each SETTINGS is acknowledged, an empty one too")
def settings_acknowledged(new):
    c = new()
    c.send(c.settings_frame([]))
    c.send(c.settings_frame([(frames.MAX_FRAME_SIZE, 20000)]))
    assert c.until(lambda: c.acknowledged == 3), c.frames


@row("9113 6.5.3", "of a setting that comes twice the last value counts")
def settings_order(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 100), (frames.INITIAL_WINDOW_SIZE, 1)])
    stream = c.ask(request("GET", "/big"))
    assert c.alive() and c.alive()
    same(len(c.answers[stream].body), 1)


@row("9113 6.5.2", "frames are no larger than MAX_FRAME_SIZE, whatever it is")
def max_frame_size(new):
    for size in (16384, 20000, 1 << 20):
        c = new(settings=[(frames.MAX_FRAME_SIZE, size), (frames.INITIAL_WINDOW_SIZE, 1 << 21)], grants=True)
        c.window(0, 1 << 21)
        same(len(answers(c, c.ask(request("GET", "/big"))).body), BIG)
        assert all(len(f.payload) <= size for f in c.frames)


@row("9113 6.5.2", "a header block larger than a frame is continued")
def long_answer_head(new):
    c = new()
    a = answers(c, c.ask(request("GET", "/wide")))
    same(a.field("x-wide-9"), "w" * 3000)
    assert any(f.kind == CONTINUATION for f in c.frames)
    assert all(len(f.payload) <= 16384 for f in c.frames)
    lives(c)


# --- §6.6, §6.7, §6.8: PUSH_PROMISE, PING, GOAWAY ---

@row("9113 6.6", "PUSH_PROMISE from a client ends the connection with PROTOCOL_ERROR")
def push_promise(new):
    c = new()
    c.frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02" + block(request()))
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.6", "nothing is pushed")
def no_push(new):
    c = new()
    lives(c)
    assert all(f.kind != PUSH_PROMISE and f.stream % 2 == 1 or f.stream == 0 for f in c.frames)


@row("9113 6.7", "PING is answered with the same bytes, an answer is not")
def pings(new):
    c = new()
    c.ping(b"abcdefgh", ACK)
    c.ping(b"ABCDEFGH")
    lives(c)
    assert [f.payload for f in c.frames if f.kind == PING][0] == b"ABCDEFGH"


@row("9113 6.7", "PING is answered while a body waits for window")
def ping_between(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 1 << 21)])
    c.ask(request("GET", "/big"))
    assert c.until(lambda: sum(len(f.payload) for f in c.frames if f.kind == DATA) == 65535)
    assert c.alive()


@row("9113 6.7", "PING on a stream ends the connection with PROTOCOL_ERROR")
def ping_on_stream(new):
    c = new()
    c.frame(PING, 0, 1, b"12345678")
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.7", "PING of another length than 8 ends the connection with FRAME_SIZE_ERROR")
def ping_length(new):
    c = new()
    c.frame(PING, 0, 0, b"1234567")
    ends(c, "FRAME_SIZE_ERROR")


@row("9113 6.8", "GOAWAY on a stream ends the connection with PROTOCOL_ERROR")
def goaway_on_stream(new):
    c = new()
    c.frame(GOAWAY, 0, 1, b"\0" * 8)
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.8", "a GOAWAY cut off ends the connection with FRAME_SIZE_ERROR")
def goaway_length(new):
    c = new()
    c.frame(GOAWAY, 0, 0, b"\0" * 7)
    ends(c, "FRAME_SIZE_ERROR", "PROTOCOL_ERROR")


@row("9113 6.8", "behind the client's GOAWAY, streams that are open are answered")
def goaway_of_client(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    c.frame(GOAWAY, 0, 0, b"\0" * 8 + b"bye")
    c.data(stream, b"abc", True)
    a = c.answer(stream)
    same((a.status, a.body), (200, b"abc"))


# --- §6.9: WINDOW_UPDATE ---

@row("9113 6.9", "an increment of 0 on a stream is a stream error of type PROTOCOL_ERROR")
def zero_increment(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.window(stream, 0)
    resets(c, stream, "PROTOCOL_ERROR")


@row("9113 6.9", "an increment of 0 on the connection ends it with PROTOCOL_ERROR")
def zero_increment_all(new):
    c = new()
    c.window(0, 0)
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.9", "WINDOW_UPDATE of another length than 4 ends the connection with FRAME_SIZE_ERROR")
def window_length(new):
    c = new()
    c.frame(WINDOW_UPDATE, 0, 0, b"\0\0\x01")
    ends(c, "FRAME_SIZE_ERROR")


@row("9113 6.9", "the reserved bit of an increment is ignored")
def window_reserved(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.window(stream, 0x80000005)
    assert c.until(lambda: len(c.answers[stream].body) == 5)


@row("9113 6.9.1", "no more is sent than the stream's window lets")
def stream_window(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 1)])
    stream = c.ask(request("GET", "/"))
    assert c.until(lambda: len(c.answers[stream].body) == 1)
    assert c.alive() and c.alive()
    same(c.answers[stream].body, b"h")
    c.window(stream, 3)
    assert c.until(lambda: len(c.answers[stream].body) == 4)
    c.window(stream, 1000)
    answers(c, stream, 200, HELLO)


@row("9113 6.9.1", "no more is sent than the connection's window lets")
def connection_window(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 1 << 20)])
    streams = [c.ask(request("GET", "/big")) for _ in range(3)]
    sent = lambda: sum(len(c.answers[s].body) for s in streams)
    assert c.until(lambda: sent() == 65535)
    assert c.alive() and c.alive()
    same(sent(), 65535)
    c.window(0, 1000)
    assert c.until(lambda: sent() == 66535)
    assert c.alive()
    same(sent(), 66535)


@row("9113 6.9.1", "a window beyond 2^31-1 on a stream is a stream error of type FLOW_CONTROL_ERROR")
def stream_overflow(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.window(stream, 0x7fffffff)
    c.until(lambda: len(c.answers[stream].body) == 65535)  # the connection's window holds it up
    c.window(stream, 0x7fffffff)
    resets(c, stream, "FLOW_CONTROL_ERROR")


@row("9113 6.9.1", "a window beyond 2^31-1 on the connection ends it with FLOW_CONTROL_ERROR")
def connection_overflow(new):
    c = new()
    c.window(0, 0x7fffffff)
    ends(c, "FLOW_CONTROL_ERROR")


@row("9113 6.9.2", "INITIAL_WINDOW_SIZE changes the windows of open streams")
def window_changes(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 10)])
    stream = c.ask(request("GET", "/big"))
    assert c.until(lambda: len(c.answers[stream].body) == 10)
    c.send(c.settings_frame([(frames.INITIAL_WINDOW_SIZE, 30)]))
    assert c.until(lambda: len(c.answers[stream].body) == 30)
    assert c.alive()
    same(len(c.answers[stream].body), 30)


@row("9113 6.4", "nothing is sent on a stream behind RST_STREAM, though SETTINGS open its window")
def window_behind_reset(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = c.ask(request("GET", "/big"))
    assert c.until(lambda: c.answers[stream].status == 200)
    c.send(frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", 0)) +
           c.settings_frame([(frames.INITIAL_WINDOW_SIZE, 100)]))
    same(c.answer(stream).reset, "PROTOCOL_ERROR")
    assert c.alive() and c.alive()
    same(c.answers[stream].body, b"")


@row("9113 6.9.2", "a window may become negative, and is kept count of")
def negative_window(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 100)])
    stream = c.ask(request("GET", "/big"))
    assert c.until(lambda: len(c.answers[stream].body) == 100)
    c.send(c.settings_frame([(frames.INITIAL_WINDOW_SIZE, 40)]))  # now -60
    c.window(stream, 60)
    assert c.alive() and c.alive()
    same(len(c.answers[stream].body), 100)
    c.window(stream, 7)
    assert c.until(lambda: len(c.answers[stream].body) == 107)
    assert c.alive()
    same(len(c.answers[stream].body), 107)


@row("9113 6.9.2", "INITIAL_WINDOW_SIZE that takes a window beyond 2^31-1 ends the connection")
def settings_overflow(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    stream = half_closed(c)
    c.window(stream, 0x7fffffff)
    c.until(lambda: len(c.answers[stream].body) == 65535)  # the connection's window holds it up
    c.send(c.settings_frame([(frames.INITIAL_WINDOW_SIZE, 65536)]))
    ends(c, "FLOW_CONTROL_ERROR")


@row("9113 6.9", "a client that sends beyond the stream's window is told FLOW_CONTROL_ERROR")
def client_overruns(new):
    c = new()
    assert c.alive()
    window = c.settings.get(frames.INITIAL_WINDOW_SIZE, 65535)
    stream = c.ask(request("POST", "/never-read"), end=False)
    sent, overrun = 0, frame(DATA, 0, stream, b"x" * 16384)
    while sent <= max(window, 1 << 22) + 16384 and not c.goaway and not c.answers[stream].reset:
        c.send(overrun)
        sent += 16384
        while c.received or sent % (1 << 18) == 0:
            if not c.alive():
                break
            sent += 1
    c.until(lambda: c.closed or c.answers[stream].reset or c.answers[stream].ended)
    if not c.answers[stream].ended:
        assert c.answers[stream].reset == "FLOW_CONTROL_ERROR" or c.goaway.code == "FLOW_CONTROL_ERROR", c.frames[-3:]


@row("9113 6.9", "a long body is granted window while it is read")
def upload(new):
    c = new(grants=True)
    assert c.alive()
    stream = c.ask(request("POST", "/length"), end=False)
    windows = {0: 65535, stream: c.settings.get(frames.INITIAL_WINDOW_SIZE, 65535)}
    for f in c.frames:
        if f.kind == WINDOW_UPDATE:
            windows[f.stream] += struct.unpack("!I", f.payload)[0]
    left = 900000
    while left:
        n = min(left, 16384, *windows.values())
        if n == 0:
            f = c.read()
            assert f is not None and f.kind not in (GOAWAY, RST_STREAM), f
            if f.kind == WINDOW_UPDATE and f.stream in windows:
                windows[f.stream] += struct.unpack("!I", f.payload)[0]
            continue
        left -= n
        c.data(stream, b"x" * n, left == 0)
        windows = {k: v - n for k, v in windows.items()}
    same(len(answers(c, stream).body), 900000)


# --- §6.10: CONTINUATION ---

@row("9113 6.10", "a header block may come in many pieces, empty ones too")
def continued(new):
    c = new()
    raw = block(request("GET", "/kept", ("x-kept", "k" * 1000)))
    c.frame(HEADERS, END_STREAM, 1, b"")
    for at in range(0, len(raw), 200):
        c.frame(CONTINUATION, 0, 1, raw[at:at + 200])
    c.frame(CONTINUATION, END_HEADERS, 1, b"")
    answers(c, 1, 200, "k" * 1000)


@row("9113 6.10", "CONTINUATION on stream 0 ends the connection with PROTOCOL_ERROR")
def continuation_on_zero(new):
    c = new()
    raw_headers(c, block(request()), END_STREAM)
    c.frame(CONTINUATION, END_HEADERS, 0, b"")
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.10", "CONTINUATION behind END_HEADERS ends the connection with PROTOCOL_ERROR")
def continuation_late(new):
    c = new()
    c.ask(request("POST", "/echo"), end=False)
    c.frame(CONTINUATION, END_HEADERS, 1, block([("x", "y")]))
    ends(c, "PROTOCOL_ERROR")


@row("9113 6.10", "CONTINUATION behind DATA ends the connection with PROTOCOL_ERROR")
def continuation_behind_data(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    c.data(stream, b"x")
    c.frame(CONTINUATION, END_HEADERS, stream, block([("x", "y")]))
    ends(c, "PROTOCOL_ERROR")


# --- §8: messages ---

@row("9113 8.1", "an answer is HEADERS, then DATA, and the stream's end")
def answer_shape(new):
    c = new()
    stream = c.ask()
    answers(c, stream, 200, HELLO)
    kinds = [f.kind for f in c.frames if f.stream == stream]
    assert kinds[0] == HEADERS and set(kinds[1:]) <= {DATA}, kinds
    assert [f for f in c.frames if f.stream == stream][-1].flags & END_STREAM


@row("9113 8.1", "an answer to HEAD, 204 and 304 has no DATA")
def no_body(new):
    c = new()
    for fields, status in [(request("HEAD", "/"), 200), (request("GET", "/204"), 204), (request("GET", "/304"), 304)]:
        a = answers(c, c.ask(fields), status, "")
        assert status == 200 or a.field("content-length") is None
        if status == 200:
            same(a.field("content-length"), str(len(HELLO)))
    assert all(len(f.payload) == 0 for f in c.frames if f.kind == DATA)


@row("9113 8.1", "a request may have trailers")
def trailers(new):
    c = new()
    stream = c.ask(request("POST", "/echo", ("trailer", "x-sum")), end=False)
    c.data(stream, b"abc")
    c.frame(HEADERS, END_HEADERS | END_STREAM, stream, block([("x-sum", "1")]))
    answers(c, stream, 200, "abc")


@row("9113 8.1", "trailers of an upstream come behind the body, and end the stream")
def answer_trailers(new):
    c = new()
    a = answers(c, c.ask(request("GET", "/trailers", ("te", "trailers"))), 200, "abcdef")
    same(a.trailers, [("x-sum", "42")])
    assert a.field("trailer") in ("X-Sum", "x-sum"), a.fields


@row("9113 8.1", "an upstream that breaks off leaves a stream error, not an end")
def broken_upstream(new):
    c = new()
    a = c.answer(c.ask(request("GET", "/broken")))
    assert a.reset is not None and not a.ended, (a.status, a.body, a.ended)
    lives(c)


@row("9113 8.1", "trailers without END_STREAM are malformed")
def trailers_open(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    c.data(stream, b"abc")
    c.frame(HEADERS, END_HEADERS, stream, block([("x-sum", "1")]))
    resets(c, stream, "PROTOCOL_ERROR")


@row("9113 8.1", "trailers with a pseudo-header field are malformed")
def trailers_pseudo(new):
    c = new()
    stream = c.ask(request("POST", "/echo"), end=False)
    c.data(stream, b"abc")
    c.frame(HEADERS, END_HEADERS | END_STREAM, stream, block([(":method", "GET")]))
    resets(c, stream, "PROTOCOL_ERROR")


for length, body, more in [("5", b"abc", b""), ("2", b"abc", b""), ("5", b"", b""), ("3", b"abc", b"d")]:
    @row("9113 8.1.1", f"content-length {length} with {len(body)} and {len(more)} bytes of DATA is malformed")
    def wrong_length(new, length=length, body=body, more=more):
        c = new()
        stream = c.ask(request("POST", "/echo", ("content-length", length)), end=False)
        if more:
            c.data(stream, body)
        c.data(stream, more or body, True)
        a = c.answer(stream)
        assert a.reset == "PROTOCOL_ERROR" or a.status in (400, 500, 502), (a.reset, a.status)
        lives(c)


@row("9113 8.1.1", "content-length 0 with DATA is malformed, or the body is not looked at")
def more_than_nothing(new):
    c = new()
    stream = c.ask(request("POST", "/echo", ("content-length", "0")), end=False)
    c.data(stream, b"x", True)
    a = c.answer(stream)
    assert a.reset == "PROTOCOL_ERROR" or a.status == 400 or (a.status, a.body) == (200, b""), (a.reset, a.status)
    lives(c)


@row("9113 8.1.1", "content-length without a body is malformed")
def length_without_body(new):
    malformed(new(), request("POST", "/echo", ("content-length", "5")))


for what, name, value in [
        ("with a capital", "X-Foo", "y"), ("with capitals only", "HOST", "y"), ("that is empty", "", "y"),
        ("with a space", "x y", "y"), ("with a colon", "x:y", "y"), ("beyond ASCII", "x\xe9", "y"),
        ("with a NUL byte", "x\0", "y"), ("with CR LF", "x\r\ny", "y"), ("with DEL", "x\x7f", "y")]:
    @row("9113 8.2.1", f"a field's name {what} is malformed")
    def bad_name(new, name=name, value=value):
        malformed(new(), request("GET", "/", (name, value)))


for what, value in [("with CR LF", "a\r\nb: c"), ("with LF", "a\nb"), ("with CR", "a\rb"), ("with a NUL byte", "a\0b"),
                    ("with a space at its front", " a"), ("with a space at its end", "a "),
                    ("with a tab at its end", "a\t")]:
    @row("9113 8.2.1", f"a field's value {what} is malformed")
    def bad_value(new, value=value):
        malformed(new(), request("GET", "/", ("x", value)))


for name, value in [("connection", "close"), ("connection", "x-foo"), ("keep-alive", "5"), ("proxy-connection", "close"),
                    ("transfer-encoding", "chunked"), ("upgrade", "websocket"), ("te", "gzip"), ("te", "trailers, gzip")]:
    @row("9113 8.2.2", f"{name}: {value} in a request is malformed")
    def of_connection(new, name=name, value=value):
        malformed(new(), request("GET", "/", (name, value)))


@row("9113 8.2.2", "te: trailers is allowed")
def te_trailers(new):
    c = new()
    answers(c, c.ask(request("GET", "/", ("te", "trailers"))))


@row("9113 8.2.2", "an answer has no field of connections, and small letters only")
def answer_fields(new):
    c = new()
    a = c.answer(c.ask(request("GET", "/odd")))
    names = [n for n, _ in a.fields]
    assert all(n == n.lower() for n in names), names
    assert not {"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"} & set(names), names
    same(a.field("x-odd"), "Kept")


@row("9113 8.2.3", "crumbs of cookies are joined by a semicolon and a space")
def crumbs(new):
    c = new()
    stream = c.ask(request("GET", "/cookie", ("cookie", "a=b"), ("cookie", "c=d"), ("x", "y"), ("cookie", "e=f")))
    answers(c, stream, 200, "a=b; c=d; e=f")


PSEUDO = dict(request())
for what, fields in [
        ("without :method", [(k, v) for k, v in request() if k != ":method"]),
        ("without :scheme", [(k, v) for k, v in request() if k != ":scheme"]),
        ("without :path", [(k, v) for k, v in request() if k != ":path"]),
        ("without any field", []),
        ("with an empty :path", request("GET", "")),
        ("with a :path that does not begin with a slash", request("GET", "x")),
        ("with :path * and GET", request("GET", "*")),
        ("with an empty :method", request("")),
        ("with a space in :method", request("GE T")),
        ("with a space in :path", request("GET", "/a b")),
        ("with a control character in :path", request("GET", "/a\x01b")),
        ("with :authority that holds user information", request(authority="u@localhost")),
        ("with :authority that holds a slash", request(authority="localhost/")),
        ("with :status", request() + [(":status", "200")]),
        ("with a pseudo-header field that is unknown", request() + [(":test", "x")]),
        ("with :method twice", request() + [(":method", "GET")]),
        ("with :scheme twice", request() + [(":scheme", "http")]),
        ("with :path twice", request() + [(":path", "/")]),
        ("with :authority twice", request() + [(":authority", "localhost")]),
        ("with a pseudo-header field behind a field", request()[:3] + [("x", "y")] + request()[3:]),
        ("with host that differs from :authority", request() + [("host", "other.example")]),
        ("with host twice", request() + [("host", "localhost"), ("host", "localhost")]),
        ("with content-length twice", request() + [("content-length", "0"), ("content-length", "0")]),
        ("with content-length that is no number", request() + [("content-length", "0x0")]),
        ("with :protocol and GET", request() + [(":protocol", "websocket")])]:
    @row("9113 8.3.1", f"a request {what} is malformed")
    def bad_request(new, fields=fields):
        malformed(new(), fields)


@row("9113 8.3.1", "host stands in for :authority")
def host_only(new):
    c = new()
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/what"), ("host", "localhost:81")]
    answers(c, c.ask(fields), 200, "GET /what localhost:81 HTTP/2.0")


@row("9113 8.3.1", "path and query reach the handlers as they came")
def path_and_query(new):
    c = new()
    stream = c.ask(request("PUT", "/what?x=%20y&z", authority="LocalHost:8080"))
    answers(c, stream, 200, "PUT /what?x=%20y&z LocalHost:8080 HTTP/2.0")


@row("9113 8.3.1", "OPTIONS * is answered")
def options_star(new):
    c = new()
    a = c.answer(c.ask(request("OPTIONS", "*")))
    assert a.status in (200, 204), a.status
    lives(c)


@row("9113 8.3.2", "an answer has :status first and no other pseudo-header field")
def status_first(new):
    c = new()
    a = answers(c, c.ask())
    assert not any(n.startswith(":") for n, _ in a.fields), a.fields


@row("9113 8.5", "CONNECT is not served, and harms no other stream")
def connect(new):
    c = new()
    stream = c.ask([(":method", "CONNECT"), (":authority", "localhost:80")])
    a = c.answer(stream)
    assert a.reset or a.status in (405, 404, 400, 501, 403), a.status
    lives(c)


for what, fields in [("with :path", [(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")]),
                     ("with :scheme", [(":method", "CONNECT"), (":authority", "a:1"), (":scheme", "http")]),
                     ("without :authority", [(":method", "CONNECT")])]:
    @row("9113 8.5", f"CONNECT {what} is malformed")
    def bad_connect(new, fields=fields):
        malformed(new(), fields)


@row("9113 8.1", "an answer may come before the request's end, whole, and then RST_STREAM NO_ERROR")
def early_answer(new):
    c = new()
    stream = c.ask(request("POST", "/never-read"), end=False)
    c.data(stream, b"x" * 1000)
    a = c.answer(stream)
    same((a.status, a.body.decode()), (200, HELLO))
    c.alive()
    assert a.reset in (None, "NO_ERROR"), a.reset
    lives(c)


@row("9110 10.1.1", "expect: 100-continue is answered by 100, once the body is asked for")
def expect_continue(new):
    c = new()
    stream = c.ask(request("POST", "/echo", ("expect", "100-continue"), ("content-length", "3")), end=False)
    assert c.until(lambda: c.answers[stream].informs), c.frames
    same(c.answers[stream].informs[0][0], (":status", "100"))
    c.data(stream, b"abc", True)
    answers(c, stream, 200, "abc")


# --- RFC 7541 ---

for what, raw in [("index 0", b"\x80"), ("an index beyond the tables", b"\xff\x20"),
                  ("a number that does not end", b"\xff" + b"\xff" * 12),
                  ("a number beyond 32 bits", b"\xff\xff\xff\xff\xff\x7f"),
                  ("a string cut off", b"\x40\x05abc"),
                  ("a string of 4 GiB", b"\x40\x7f\xff\xff\xff\xff\x0f"),
                  ("Huffman code that holds EOS", b"\x00\x85\xf2\xb2\x4a\x84\xff\x01x" + b"\x00\x84\xff\xff\xff\xff\x00"),
                  ("Huffman code padded by zeros", b"\x00\x81\x18\x01x"),
                  ("Huffman code padded by a whole byte", b"\x00\x82\x1f\xff\x01x"),
                  ("a table size above the limit", b"\x3f\xff\xff\xff\x07"),
                  ("a table size behind a field", b"\x82\x20"),
                  ("a table size cut off", b"\x3f")]:
    @row("7541", f"{what} ends the connection with COMPRESSION_ERROR")
    def bad_hpack(new, raw=raw):
        c = new()
        front = b"" if raw[:1] == b"\x3f" else block(request())
        raw_headers(c, front + raw)
        ends(c, "COMPRESSION_ERROR")


@row("7541 4.1", "the dynamic table forgets its oldest entries, and knows the others")
def dynamic_table(new):
    c = new()
    for i in range(60):
        stream = raw_headers(c, block(request("GET", "/kept")) + literal("x-kept", f"{i:03}" + "v" * 200, 0x40, 6))
        answers(c, stream, 200, f"{i:03}" + "v" * 200)
    for index in (62, 62 + 15):  # 4096 bytes: 16 entries of 241
        answers(c, raw_headers(c, block(request("GET", "/kept")) + integer(0x80, 7, index)), 200,
                f"{59 - index + 62:03}" + "v" * 200)
    raw_headers(c, block(request("GET", "/kept")) + integer(0x80, 7, 62 + 16 + 1))
    ends(c, "COMPRESSION_ERROR")


@row("7541 4.2", "the table's size may be changed at a block's front, more than once")
def table_sizes(new):
    c = new()
    kept = block(request("GET", "/kept"))
    answers(c, raw_headers(c, kept + literal("x-kept", "one", 0x40, 6)), 200, "one")
    answers(c, raw_headers(c, b"\x20\x3f\xe1\x1f" + kept + literal("x-kept", "two", 0x40, 6)), 200, "two")
    answers(c, raw_headers(c, kept + b"\xbe"), 200, "two")
    raw_headers(c, kept + b"\xbf")
    ends(c, "COMPRESSION_ERROR")


@row("7541 4.2", "the client's HEADER_TABLE_SIZE is kept to")
def small_table(new):
    c = new(settings=[(frames.HEADER_TABLE_SIZE, 0)])
    c.decoder.max_allowed_table_size = 0
    for _ in range(4):
        answers(c, c.ask(), 200, HELLO)
    same(c.decoder.header_table_size, 0)
    c.send(c.settings_frame([(frames.HEADER_TABLE_SIZE, 200)]))
    c.decoder.max_allowed_table_size = 200
    for _ in range(4):
        answers(c, c.ask(), 200, HELLO)


@row("7541 6.2", "fields are understood in each representation, with and without Huffman code")
def representations(new):
    c = new()
    import hpack
    encoder = hpack.Encoder()
    for huffman in (True, False):
        for _ in range(2):
            raw = encoder.encode(request("GET", "/kept", ("x-kept", "representation")), huffman=huffman)
            answers(c, raw_headers(c, raw), 200, "representation")
    for first, prefix in ((0x40, 6), (0, 4), (0x10, 4)):
        raw = block(request("GET", "/kept")) + literal("x-kept", "r", first, prefix)
        answers(c, raw_headers(c, raw), 200, "r")
    raw = b"\x82\x86" + integer(0, 4, 4) + text("/kept") + integer(0x40, 6, 1) + text("localhost") + literal("x-kept", "s")
    answers(c, raw_headers(c, raw), 200, "s")


# --- RFC 9218, RFC 8441 ---

@row("9218 7.1", "PRIORITY_UPDATE on a stream ends the connection with PROTOCOL_ERROR")
def priority_update_on_stream(new):
    c = new()
    c.frame(PRIORITY_UPDATE, 0, 1, b"\0\0\0\x01u=1")
    ends(c, "PROTOCOL_ERROR")


@row("9218 7.1", "PRIORITY_UPDATE of stream 0 ends the connection with PROTOCOL_ERROR")
def priority_update_of_zero(new):
    c = new()
    c.frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\0u=1")
    ends(c, "PROTOCOL_ERROR")


@row("9218 7.1", "a PRIORITY_UPDATE cut off ends the connection")
def priority_update_short(new):
    c = new()
    c.frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0")
    ends(c, "FRAME_SIZE_ERROR", "PROTOCOL_ERROR")


@row("9218 7.1", "PRIORITY_UPDATE of idle, open and closed streams is allowed, whatever its value")
def priority_update(new):
    c = new()
    for stream in (1, 99):
        c.frame(PRIORITY_UPDATE, 0, 0, struct.pack("!I", stream) + b"u=0, i")
    answers(c, c.ask(request("GET", "/", ("priority", "u=9;;((("))))
    c.frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01\xff\xff(((")
    lives(c)


@row("9218 7.1", "PRIORITY_UPDATE before its stream counts when that opens, more than the request's field")
def priority_update_early(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, BIG)])
    c.window(0, 1)
    for stream, value in ((5, b"u=7"), (5, b"u=0"), (3, b"u=7"), (4, b"u=0")):  # 4 is never to be one
        c.frame(PRIORITY_UPDATE, 0, 0, struct.pack("!I", stream) + value)
    for _ in range(3):
        c.ask(request("GET", "/big", ("priority", "u=3")))
    assert c.until(lambda: sum(len(a.body) for a in c.answers.values()) == 65536)
    c.window(0, 3 * BIG)
    ended = []

    def all_ended():
        ended.extend(s for s, a in c.answers.items() if a.ended and s not in ended)
        return len(ended) == 3
    assert c.until(all_ended), c.frames
    same((ended[0], ended[-1]), (5, 3))


@row("9218 7.1", "of PRIORITY_UPDATE for streams that never come a bounded number is kept")
def priority_updates_kept(new):
    c = new()
    for stream in range(1001, 1601, 2):
        c.frame(PRIORITY_UPDATE, 0, 0, struct.pack("!I", stream) + b"u=1")
    lives(c)


@row("9218 10", "an urgent answer overtakes others that wait for the connection's window")
def urgent_first(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 1 << 20)])
    background = c.ask(request("GET", "/big", ("priority", "u=6")))
    assert c.until(lambda: len(c.answers[background].body) == 65535)
    urgent = c.ask(request("GET", "/big", ("priority", "u=0")))
    assert c.alive() and c.alive()
    c.window(0, 50000)
    assert c.until(lambda: len(c.answers[urgent].body) + len(c.answers[background].body) == 115535)
    assert len(c.answers[urgent].body) >= 45000, len(c.answers[urgent].body)


@row("9218 10", "answers of one urgency share when they are incremental, else come one after another")
def incremental(new):
    for value, shares in (("u=3", False), ("u=3, i", True)):
        c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 1 << 20)])
        first = c.ask(request("GET", "/big", ("priority", "u=1")))
        assert c.until(lambda: len(c.answers[first].body) == 65535)
        c.rst(first)
        two = [c.ask(request("GET", "/big", ("priority", value))) for _ in range(2)]
        assert c.alive() and c.alive()
        c.window(0, 200000)
        got = lambda: [len(c.answers[s].body) for s in two]
        assert c.until(lambda: sum(got()) == 200000)
        assert (min(got()) >= 50000) == shares, (value, got())


@row("8441 3", "ENABLE_CONNECT_PROTOCOL of 2 ends the connection or is ignored")
def connect_setting(new):
    c = new(settings=[(frames.ENABLE_CONNECT_PROTOCOL, 2)])
    if not c.alive():
        same(c.goaway.code, "PROTOCOL_ERROR")


@row("9218 2.1", "NO_RFC7540_PRIORITIES of 2 ends the connection or is ignored")
def priorities_setting(new):
    c = new(settings=[(frames.NO_RFC7540_PRIORITIES, 2)])
    if not c.alive():
        same(c.goaway.code, "PROTOCOL_ERROR")


def upgrade(new, *lines, body=b""):
    """A request of HTTP/1.1 that asks for h2c: the client and the head of the answer."""
    c = new(preface=False)
    if c.tls:
        raise Skip("clear text only")
    c.send("\r\n".join(["GET /cookie HTTP/1.1", "Host: localhost", "Cookie: a=b", *lines, "", ""]).encode() + body)
    while b"\r\n\r\n" not in c.received:
        assert not c.closed, c.received
        c._more(time.monotonic() + c.timeout)
    head, _, c.received = c.received.partition(b"\r\n\r\n")
    return c, head.decode()


@row("7540 3.2", "a request of HTTP/1.1 that asks for h2c is answered as stream 1")
def h2c_upgrade(new):
    c, head = upgrade(new, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    assert head.startswith("HTTP/1.1 101 "), head
    c.send(frames.PREFACE + c.settings_frame(()))
    c.next_stream = 3
    answers(c, 1, 200, "a=b")
    same(c.frames[0].kind, SETTINGS)
    c.data(1, b"x")
    c.until(lambda: c.closed or c.answers[1].reset)
    assert c.answers[1].reset == "STREAM_CLOSED" or c.goaway.code == "STREAM_CLOSED", c.frames
    if not c.closed:
        lives(c)


@row("7540 3.2.1", "the settings of HTTP2-Settings count from the first frame on")
def h2c_settings(new):
    c, head = upgrade(new, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAQAAAAB")
    assert head.startswith("HTTP/1.1 101 "), head
    c.send(frames.PREFACE + c.settings_frame(()))
    c.next_stream = 3
    assert c.alive() and c.alive()
    same(c.answers[1].body, b"a")


for what, lines, body in [
        ("without HTTP2-Settings", ["Connection: Upgrade", "Upgrade: h2c"], b""),
        ("with HTTP2-Settings twice", ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
                                       "HTTP2-Settings: AAQAAAAB", "HTTP2-Settings: AAQAAAAB"], b""),
        ("with HTTP2-Settings that is no base64url", ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
                                                      "HTTP2-Settings: !!!"], b""),
        ("with HTTP2-Settings of half a setting", ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
                                                   "HTTP2-Settings: AAQA"], b"")]:
    @row("7540 3.2.1", f"a request of HTTP/1.1 that asks for h2c {what} is answered in HTTP/1.1, or refused")
    def no_upgrade(new, lines=lines, body=body):
        _, head = upgrade(new, *lines, body=body)
        assert not head.startswith("HTTP/1.1 101 "), head


@row("7540 3.2", "h2 is for TLS: a request of HTTP/1.1 in clear text that asks for it stays HTTP/1.1")
def h2_upgrade(new):
    _, head = upgrade(new, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2", "HTTP2-Settings: AAQAAAAB")
    assert not head.startswith("HTTP/1.1 101 "), head


@row("8441 3", "ENABLE_CONNECT_PROTOCOL is 1, 0 or absent")
def connect_offered(new):
    c = new()
    assert c.alive()
    assert c.settings.get(frames.ENABLE_CONNECT_PROTOCOL, 0) in (0, 1)


@row("8441 5", "a WebSocket goes through to a server of HTTP/1.1 and back")
def websocket(new):
    c = new()
    assert c.alive()
    if CADDY and not c.settings.get(frames.ENABLE_CONNECT_PROTOCOL):
        raise Skip("extended CONNECT is not offered")
    same(c.settings.get(frames.ENABLE_CONNECT_PROTOCOL), 1)
    stream = c.ask([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", c.scheme), (":path", "/websocket"),
                    (":authority", "localhost"), ("sec-websocket-version", "13")], end=False)
    assert c.until(lambda: c.answers[stream].status is not None), c.frames
    same(c.answers[stream].status, 200)
    for part in (b"one", b"two" * 10000):
        before = len(c.answers[stream].body)
        c.data(stream, part[:16000])
        c.data(stream, part[16000:])
        assert c.until(lambda: len(c.answers[stream].body) == before + len(part)), c.frames[-3:]
    assert c.answers[stream].body.endswith(b"twotwo")
    c.data(stream, b"", True)
    c.answer(stream)
    lives(c)


@row("8441 4", "an extended CONNECT without :path is malformed")
def extended_connect(new):
    fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "localhost")]
    malformed(new(), fields)


# --- another client ---

@row("9113", "Python's h2, which is strict, finds nothing wrong in 300 answers, 30 at a time")
def python_h2(new):
    import h2.config
    import h2.connection
    import h2.events
    c = new(preface=False)
    conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    conn.initiate_connection()
    conn.increment_flow_control_window(1 << 20)
    asked, got = 0, {}
    paths = ["/", "/big", "/wide", "/204", "/304", "/cookie", "/trailers", "/404", "/echo", "/what"]
    while sum(done for _, done in got.values()) < 300:
        while asked < 300 and asked - sum(done for _, done in got.values()) < 30:
            stream = conn.get_next_available_stream_id()
            path = paths[asked % len(paths)]
            fields = [(":method", "POST" if path == "/echo" else "GET"), (":scheme", c.scheme), (":path", path),
                      (":authority", "localhost"), ("cookie", "a=b"), ("te", "trailers")]
            conn.send_headers(stream, fields, end_stream=path != "/echo")
            if path == "/echo":
                conn.send_data(stream, b"x" * 1000, end_stream=True)
            got[stream] = [0, False]
            asked += 1
        c.send(conn.data_to_send())
        if not c.received:
            c._more(time.monotonic() + c.timeout)
        assert not c.closed, "the connection ended"
        data, c.received = c.received, b""
        for event in conn.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                got[event.stream_id][0] += len(event.data)
                if event.flow_controlled_length:
                    conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                got[event.stream_id][1] = True
            assert not isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)), event
    big = [n for i, (n, _) in enumerate(got.values()) if paths[i % len(paths)] == "/big"]
    same(set(big), {BIG})


# --- §10.5: what a hostile peer may not have for nothing ---

def grown_kib(new, attack):
    """At most, also when it was given back by the end."""
    before = new.server.resident_kib()
    new.server.forget_peak()
    attack()
    return new.server.peak_kib() - before


@row("9113 10.5", "header blocks on a stream that was reset cost no memory", True)
def blocks_of_reset(new):
    c = new()
    stream = c.ask(request("GET", "/slow"))
    c.frame(HEADERS, 5, stream, literal("x-large", "v" * 4000, 0x40, 6))
    c.rst(stream)
    more = frame(HEADERS, 5, stream, b"\xbe" * 4)

    def attack():
        for _ in range(100):
            c.send(more * 50)
        try:
            c.alive()
        except TimeoutError:
            pass
    grown = grown_kib(new, attack)
    assert grown < 5000, f"{grown} KiB"


@row("9113 10.5.1", "a list of fields beyond the limit is answered by 431 and costs no memory, however small its block",
     True)
def hpack_bomb(new):
    c = new()
    assert c.alive()
    answers(c, raw_headers(c, block(request()) + literal("x-large", "v" * 3900, 0x40, 6)), 200)

    def attack():
        for _ in range(20):
            a = c.answer(raw_headers(c, block(request()) + b"\xbe" * 16000))
            assert a.status == 431 or a.reset, a.status
    grown = grown_kib(new, attack)
    assert grown < 5000, f"{grown} KiB"
    lives(c)


@row("9113 10.5.1", "a header block beyond the limit, in any number of frames, ends the connection")
def endless_block(new):
    c = new()
    raw_headers(c, block(request()), END_STREAM)
    piece = frame(CONTINUATION, 0, 1, literal("x-more", "y" * 16000))
    for _ in range(200):
        c.send(piece)
    c.until(lambda: c.closed)
    assert c.closed and (not c.goaway or c.goaway.code in ("ENHANCE_YOUR_CALM", "PROTOCOL_ERROR")), c.frames


# Known attacks: what is said once, what is repeated on one stream after another, and the limit that ends it
# (docs/http2.md), by its words in the log.
RESETS, CONTROL, WINDOWS, EMPTY = ("too many streams were reset", "too many control frames",
                                   "too many window updates", "too many empty frames")


def opens(stream, path="/slow", *more, flags=END_HEADERS | END_STREAM):
    return frame(HEADERS, flags, stream, block(request("GET", path, *more)))


def number(value):
    return struct.pack("!I", value)


ATTACKS = [
    ("CVE-2023-44487, rapid reset", RESETS, b"", lambda i: opens(i) + frame(RST_STREAM, 0, i, number(8))),
    ("CVE-2025-8671, made to reset by a window of 0", RESETS, b"",
     lambda i: opens(i) + frame(WINDOW_UPDATE, 0, i, number(0))),
    ("CVE-2025-8671, by a window too large", RESETS, b"",
     lambda i: opens(i) + frame(WINDOW_UPDATE, 0, i, number(0x7fffffff))),
    ("CVE-2025-8671, by HEADERS behind the end", RESETS, b"", lambda i: opens(i) * 2),
    ("CVE-2025-8671, by DATA behind the end", RESETS, b"", lambda i: opens(i) + frame(DATA, 0, i, b"x")),
    ("CVE-2025-8671, by PRIORITY of the wrong length", RESETS, b"",
     lambda i: opens(i) + frame(PRIORITY, 0, i, b"1234")),
    ("CVE-2025-8671, by a length that lies", RESETS, b"",
     lambda i: opens(i, "/slow", ("content-length", "1"), flags=END_HEADERS) + frame(DATA, 0, i, b"xy")),
    ("CVE-2019-9514, requests that must be reset", RESETS, b"", lambda i: opens(i, "/", ("X", "y"))),
    ("CVE-2019-9516, fields without names and values", RESETS, b"", lambda i: opens(i, "/", *[("", "")] * 100)),
    ("CVE-2024-27316, CONTINUATION without end", "too many CONTINUATION frames", opens(1, flags=0),
     lambda i: frame(CONTINUATION, 0, 1, literal("a", "b"))),
    ("CVE-2024-27316, empty CONTINUATION", "too many CONTINUATION frames", opens(1, flags=0),
     lambda i: frame(CONTINUATION, 0, 1)),
    ("CVE-2024-27316, CONTINUATION as large as may be", "a header block is too long", opens(1, flags=0),
     lambda i: frame(CONTINUATION, 0, 1, literal("a", "b" * 16000))),
    ("CVE-2019-9511, windows by the byte", WINDOWS, opens(1), lambda i: frame(WINDOW_UPDATE, 0, 1, number(1))),
    ("CVE-2019-9511, the connection's window by the byte", WINDOWS, b"",
     lambda i: frame(WINDOW_UPDATE, 0, 0, number(1))),
    ("CVE-2019-9512, PING", CONTROL, b"", lambda i: frame(PING, 0, 0, b"12345678")),
    ("CVE-2019-9513, PRIORITY that goes in circles", CONTROL, b"",
     lambda i: frame(PRIORITY, 0, i, number(i + 2) + b"x") + frame(PRIORITY, 0, i + 2, number(i) + b"x")),
    ("PRIORITY_UPDATE of streams that never come", CONTROL, b"",
     lambda i: frame(PRIORITY_UPDATE, 0, 0, number(i) + b"u=1")),
    ("CVE-2019-9515, SETTINGS", CONTROL, b"", lambda i: frame(SETTINGS)),
    ("acknowledgements of SETTINGS", CONTROL, b"", lambda i: frame(SETTINGS, ACK)),
    ("GOAWAY", CONTROL, b"", lambda i: frame(GOAWAY, 0, 0, bytes(8))),
    ("RST_STREAM of a stream that is over", CONTROL, opens(1) + frame(RST_STREAM, 0, 1, number(8)),
     lambda i: frame(RST_STREAM, 0, 1, number(8))),
    ("frames that are unknown", CONTROL, b"", lambda i: frame(0x42, 0xff, i, b"x")),
    ("CVE-2019-9518, empty DATA", EMPTY, opens(1, flags=END_HEADERS), lambda i: frame(DATA, 0, 1)),
    ("CVE-2019-9518, DATA that is only padding", EMPTY, opens(1, flags=END_HEADERS),
     lambda i: frame(DATA, PADDED, 1, bytes([0]))),
    ("streams beyond the most at a time", RESETS, b"", opens),
]


def attack_row(sentence, limit, first, piece):
    @row("9113 10.5", f"{sentence}: \"{limit}\" ends it")
    def attack(new):
        if not hasattr(new.server, "text"):
            raise Skip("not portico")
        c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 100)])
        assert c.alive()
        port = c.socket.getsockname()[1]
        try:
            c.socket.sendall(first)
            for at in range(0, 6000, 50):
                c.socket.sendall(b"".join(piece(3 + 2 * i) for i in range(at, at + 50)))
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError, socket.timeout):
            pass
        c.until(lambda: c.closed)
        assert c.goaway is None or c.goaway.code == "ENHANCE_YOUR_CALM", c.goaway
        told = re.compile(rf'"HTTP/2 connection ended","reason":"{limit}".*"remote_port":"{port}"')
        new.server.wait(lambda: told.search(new.server.text()))


for known in ATTACKS:
    attack_row(*known)


@row("9113 10.5", "a SETTINGS frame full of window sizes is no lever", True)
def settings_lever(new):
    c = new(settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    for _ in range(200):
        half_closed(c)
    assert c.alive()
    before = new.server.cpu_seconds()
    pairs = c.settings_frame([(frames.INITIAL_WINDOW_SIZE, i % 2) for i in range(2730)])
    for _ in range(50):
        c.send(pairs)
    try:
        c.alive()
    except TimeoutError:
        pass
    used = new.server.cpu_seconds() - before
    assert used < (8 if SANITIZED else 1), f"{used} s of processor time for 50 frames"


# --- the servers and the run ---

def answer(body, path=None, **more):
    route = {"handle": [{"handler": "static_response", "body": body, **more}], "terminal": True}
    if path:
        route["match"] = [{"path": [path]}]
    return route


def certificate(folder):
    """A self-signed one for localhost; (certificate, key) or None."""
    files = f"{folder}/cert.pem", f"{folder}/key.pem"
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                           "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                           "-days", "2", "-keyout", files[1], "-out", files[0]], capture_output=True, check=False)
    return files if made.returncode == 0 else None


def routes(folder):
    with open(f"{folder}/big", "wb") as f:
        f.write(b"0123456789abcdef" * (BIG // 16))
    odd = {"X-Odd": ["Kept"], "Connection": ["close"], "Keep-Alive": ["5"], "Proxy-Connection": ["x"]}
    return [answer("{http.request.body}", "/echo"), answer("{http.request.body}", "/length"),
            answer("{http.request.header.Cookie}", "/cookie"), answer("{http.request.header.X-Kept}", "/kept"),
            answer("{http.request.method} {http.request.uri} {http.request.hostport} {http.request.proto}", "/what"),
            answer("", "/204", status_code=204), answer("", "/304", status_code=304),
            answer("", "/odd", headers=odd),
            answer("wide", "/wide", headers={f"X-Wide-{i}": ["w" * 3000] for i in range(10)}),
            {"match": [{"path": ["/websocket"]}], "terminal": True, "handle": [
                {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{ECHOING.getsockname()[1]}"}]}]},
            {"match": [{"path": ["/trailers", "/broken"]}], "terminal": True, "handle": [
                {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{ECHOING.getsockname()[1]}"}]}]},
            {"match": [{"path": ["/slow"]}], "terminal": True, "handle": [
                {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{SILENT.getsockname()[1]}"}]}]},
            {"match": [{"path": ["/big"]}], "handle": [{"handler": "file_server", "root": folder}], "terminal": True},
            answer(HELLO)]


def plain(io, folder):
    members = {"protocols": ["h1", "h2c"], "automatic_https": {"disable": True}}
    s = Server(PORTICO, io, routes=routes(folder), members=members)
    return s, lambda **more: frames.Client(s.port, **more)


def encrypted(io, folder):
    files = certificate(folder)
    if files is None:
        return None, "no openssl"
    s = Server(PORTICO, io, routes=routes(folder))
    document = json.loads(json.dumps(s.document))
    document["apps"]["tls"] = {"certificates": {"load_files": [{"certificate": files[0], "key": files[1]}]}}
    document["apps"]["http"]["servers"]["srv0"].update(
        {"tls_connection_policies": [{}], "automatic_https": {"disable": True}, "protocols": ["h1", "h2"]})
    status, why = s.api("POST", "/load", document)
    context = ssl.create_default_context(cafile=files[0])
    context.set_alpn_protocols(["h2"])
    if status == 200:
        try:
            with frames.Client(s.port, tls=context) as c:
                why = "" if c.socket.selected_alpn_protocol() == "h2" else "h2 is not offered"
        except OSError as e:
            why = str(e)
    if why:
        s.end(9)
        raise AssertionError(why.strip()[:1000])
    return s, lambda **more: frames.Client(s.port, tls=context, **more)


def run_row(check, new, server):
    opened = []

    def client(**more):
        c = new(**more)
        opened.append(c)
        return c
    client.server = server
    try:
        check(client)
    except Skip as why:
        return why
    except Exception as e:  # every failure is a line, the others still run
        return f"{type(e).__name__}: {e}"
    finally:
        for c in opened:
            c.close()
    return None


def run_transport(name, start, io, number):
    """Prints the rows' lines; how many there were and how many failed."""
    chosen = [r for r in ROWS if ONLY in f"{r[0]} {r[1]} {name} {io}"]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="portico-h2-") as folder:
        os.chmod(folder, 0o755)
        try:
            s, new = start(io, folder) if chosen else (None, "nothing to run")
        except AssertionError as e:
            print(f"not ok {number + 1} - {name} ({io})\n# " + str(e).replace("\n", "\n# "), flush=True)
            return number + 1, 1
        if s is None:
            print(f"ok {number + 1} - {name} ({io}) # SKIP {new}", flush=True)
            return number + 1, 0
        first = {check: run_row(check, new, s) for _, _, check in chosen if check in ALONE}
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = {check: pool.submit(run_row, check, new, s) for _, _, check in chosen if check not in ALONE}
            for section, sentence, check in chosen:
                number += 1
                why = first[check] if check in first else results[check].result()
                skipped = f" # SKIP {why}" if isinstance(why, Skip) else ""
                wrong = why is not None and not skipped
                failed += wrong
                print(f"{'not ' * wrong}ok {number} - RFC {section}: {sentence} ({name}, {io}){skipped}", flush=True)
                if wrong:
                    print("# " + why[:1500].replace("\n", "\n# "), flush=True)
        number += 1
        try:
            s.end()
            print(f"ok {number} - the server ended well behind all of it ({name}, {io})", flush=True)
        except AssertionError as e:
            failed += 1
            print(f"not ok {number} - the server ended well behind all of it ({name}, {io})", flush=True)
            print("# " + str(e)[-3000:].replace("\n", "\n# "), flush=True)
    return number, failed


def main():
    number = failed = 0
    threading.Thread(target=echo_for_ever, daemon=True).start()
    back_ends = BACK_ENDS if not CADDY else ("epoll",)
    for io in back_ends:
        for name, start in (("h2c", plain), ("TLS", encrypted)):
            number, more = run_transport(name, start, io, number)
            failed += more
    print(f"1..{number}")
    sys.exit(1 if failed else 0)


main()
