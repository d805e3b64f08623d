#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Compressed responses through the whole program, on both I/O back ends, as TAP: all codings and ways
of sending, large files, slow readers, clients that leave. Usage: encode_test.py PORTICO."""
import hashlib
import http.client
import os
import socket
import sys
import threading
import time
import zlib

import brotli
import zstandard

import server
from server import Server, run_cases, same

TEXT = b"The quick brown fox jumps over the lazy dog. " * 400
ALL = {"gzip": {}, "zstd": {}, "br": {}}
# What AddressSanitizer keeps of freed memory would look like growth.
CALM = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"}


def decoder(coding):
    """An object with decompress() for pieces."""
    if coding == "gzip":
        return zlib.decompressobj(31)
    return zstandard.ZstdDecompressor().decompressobj() if coding == "zstd" \
        else type("B", (), {"decompress": brotli.Decompressor().process})()


def ask(s, path="/", method="GET", **fields):
    """Status, fields in lower case, body as it came."""
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
    try:
        c.request(method, path, headers={k.replace("_", "-"): v for k, v in fields.items()})
        answer = c.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        c.close()


def routes(*handlers, **options):
    return [{"handle": [{"handler": "encode", **{"encodings": ALL, **options}}, *handlers]}]


def answer(body, content_type="text/plain; charset=utf-8", **fields):
    return {"handler": "static_response", "body": body,
            "headers": {"Content-Type": [content_type],
                        **{k.replace("_", "-"): [v] for k, v in fields.items()}}}


def with_server(*handlers, **options):
    def wrap(case):
        return server.with_server(case, routes=routes(*handlers, **options), environment=CALM)
    return wrap


@with_server(answer(TEXT.decode(), Etag='"v1"', Accept_Ranges="bytes"))
def codings(s):
    for coding in ALL:
        status, fields, body = ask(s, Accept_Encoding=coding)
        same((status, fields["content-encoding"], fields["vary"], fields["etag"]),
             (200, coding, "Accept-Encoding", f'"v1-{coding}"'))
        same(decoder(coding).decompress(body), TEXT)
        same(int(fields["content-length"]), len(body))
        assert "accept-ranges" not in fields and len(body) < 400, fields
    same(ask(s, Accept_Encoding="gzip, br;q=0.9, zstd;q=0.5")[1]["content-encoding"], "gzip")
    same(ask(s, Accept_Encoding="gzip, deflate, br, zstd")[1]["content-encoding"], "zstd")
    for plain in ({}, {"Accept_Encoding": "identity"}, {"Accept_Encoding": "gzip;q=0"},
                  {"Accept_Encoding": "deflate, *"},
                  {"Accept_Encoding": "gzip", "Cache_Control": "no-transform"},
                  {"Accept_Encoding": "gzip", "Sec_WebSocket_Key": "x"}):
        status, fields, body = ask(s, **plain)
        same((status, body, fields["etag"]), (200, TEXT, '"v1"'))
        assert "content-encoding" not in fields, fields
    status, fields, body = ask(s, method="HEAD", Accept_Encoding="gzip")
    same((status, fields["content-encoding"], body, "content-length" in fields),
         (200, "gzip", b"", False))


def decides(io):
    cases = [
        (answer("x" * 512), {}, False), (answer("x" * 513), {}, True),
        (answer("x" * 100), {"minimum_length": 99}, True),
        (answer("x" * 9000), {"minimum_length": 10000}, False),
        (answer("x" * 600, "image/png"), {}, False), (answer("x" * 600, "image/svg+xml"), {}, True),
        (answer("x" * 600, "application/json"), {}, True),
        (answer("x" * 600, "application/octet-stream"), {}, False),
        (answer("x" * 600, Content_Encoding="aes128gcm"), {}, False),
        (answer("x" * 600, Cache_Control="public, no-transform"), {}, False),
        (answer("x" * 600, "image/png"), {"match": {"status_code": [2]}}, True),
        (answer("x" * 600), {"match": {"status_code": [404]}}, False),
        ({**answer("x" * 600), "status_code": 404}, {}, True),
        ({**answer("x" * 600), "status_code": 206}, {}, False),
        (answer("x", "text/event-stream"), {}, True),
        (answer("x" * 600, Vary="Origin, accept-encoding"), {}, True),
    ]
    s = Server(sys.argv[1], io)
    try:
        for handler, options, want in cases:
            s.document["apps"]["http"]["servers"]["srv0"]["routes"] = routes(handler, **options)
            same(s.api("POST", "/load", s.document)[0], 200)
            _, fields, body = ask(s, Accept_Encoding="gzip")
            got = fields.get("content-encoding") == "gzip"
            assert got == want, f"{handler} {options} gives {got}"
            if got:
                body = zlib.decompress(body, 31)
                same(fields["vary"].lower().count("accept-encoding"), 1)
            same(body.decode(), handler["body"])
    finally:
        same(s.end(), 0)


def site(s, size=3 << 20):
    """A folder with a page, a sidecar and a large text; the large one."""
    folder = f"{s.folder.name}/site"
    os.makedirs(folder, exist_ok=True)
    line = b"".join(hashlib.sha256(b"%d" % i).hexdigest().encode() + b"\n" for i in range(4000))
    large = (line * (size // len(line) + 1))[:size]
    for name, content in (("a.txt", TEXT), ("large.txt", large), ("b.txt", TEXT),
                          ("b.txt.gz", b"sidecar")):
        with open(f"{folder}/{name}", "wb") as f:
            f.write(content)
    s.document["apps"]["http"]["servers"]["srv0"]["routes"] = routes(
        {"handler": "vars", "root": folder},
        {"handler": "file_server", "precompressed": {"gzip": {}}})
    same(s.api("POST", "/load", s.document)[0], 200)
    return large


@with_server(answer("x"))
def files(s):
    large = site(s)
    for coding in ALL:
        for path, content in (("/a.txt", TEXT), ("/large.txt", large)):
            _, fields, body = ask(s, path, Accept_Encoding=coding)
            same(fields.get("content-encoding"), coding)
            same(decoder(coding).decompress(body), content)
    _, fields, body = ask(s, "/a.txt", Accept_Encoding="gzip")
    same(ask(s, "/a.txt", Accept_Encoding="gzip", If_None_Match=fields["etag"])[::2], (304, b""))
    status, same_fields, _ = ask(s, "/a.txt", Accept_Encoding="gzip", If_None_Match=fields["etag"])
    same(same_fields["vary"], "Accept-Encoding")
    same(ask(s, "/a.txt", Accept_Encoding="br", If_None_Match=fields["etag"])[0], 200)
    status, fields, body = ask(s, "/a.txt", Accept_Encoding="gzip", Range="bytes=4-8")
    same((status, body, "content-encoding" in fields), (206, b"quick", False))
    _, fields, body = ask(s, "/b.txt", Accept_Encoding="gzip")
    same((fields["content-encoding"], body), ("gzip", b"sidecar"))
    status, fields, _ = ask(s, "/large.txt", "HEAD", Accept_Encoding="gzip")
    same((status, fields["content-encoding"]), (200, "gzip"))


@with_server(answer("x"))
def levels(s):
    large = site(s, 300000)
    for options in ({"gzip": {"level": 1}}, {"gzip": {"level": 9}}, {"gzip": {"level": -2}},
                    {"gzip": {"level": -3}}, {"zstd": {"level": "fastest"}},
                    {"zstd": {"level": "better", "checksum": False}}, {"zstd": {"level": "best"}},
                    {"br": {"quality": 1}}, {"br": {"quality": 6}}, {"br": {"quality": 9, "lgwin": 20}}):
        coding = next(iter(options))
        handlers = s.document["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"]
        handlers[0]["encodings"] = options
        same(s.api("POST", "/load", s.document)[0], 200)
        for _ in range(2):
            _, fields, body = ask(s, "/large.txt", Accept_Encoding="gzip, zstd, br")
            same(fields["content-encoding"], coding)
            same(decoder(coding).decompress(body), large)
    for bad, text in (({"encodings": {"gzip": {"level": 10}}}, "quality too high; must be <= 9"),
                      ({"encodings": {"zstd": {"level": "extreme"}}}, "unexpected compression level"),
                      ({"encodings": {"lzma": {}}}, "unknown module: http.encoders.lzma"),
                      ({"encodings": {}, "prefer": ["gzip"]}, "encoding gzip not enabled"),
                      ({"prefer": ["gzip", "gzip"]}, "encoding gzip is duplicated in prefer"),
                      ({"match": {"status": [2]}}, "unknown member")):
        s.document["apps"]["http"]["servers"]["srv0"]["routes"] = routes(**bad)
        status, said = s.api("POST", "/load", s.document)
        same(status, 400)
        assert text in said, said


def read_large(s, coding, digest, pause=0.0):
    """Reads the large file piece by piece and compares what comes out."""
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
    c.request("GET", "/large.txt", headers={"Accept-Encoding": coding})
    response, out, total, d = c.getresponse(), hashlib.sha256(), 0, decoder(coding)
    while piece := response.read(65536):
        plain = d.decompress(piece)
        out.update(plain)
        total += len(plain)
        if pause:
            time.sleep(pause)
    c.close()
    same(out.hexdigest(), digest)
    return total


@with_server(answer("x"))
def hundred(s):
    """100 MB, while other requests are answered soon."""
    digest = hashlib.sha256(site(s, 100_000_000)).hexdigest()
    failed, over, worst = [], threading.Event(), [0.0]

    def others():
        while not over.is_set():
            begin = time.monotonic()
            try:
                same(ask(s, "/a.txt")[0], 200)
            except Exception as e:  # told by the case
                failed.append(repr(e))
            worst[0] = max(worst[0], time.monotonic() - begin)
            time.sleep(0.01)

    threads = [threading.Thread(target=others) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        for coding in ("zstd", "gzip"):
            same(read_large(s, coding, digest), 100_000_000)
    finally:
        over.set()
        for t in threads:
            t.join()
    same(failed, [])
    assert worst[0] < 8, worst


@with_server(answer("x"))
def slow(s):
    """Slow readers, and clients that leave in the middle: nothing is left, memory does not grow."""
    large = site(s, 8 << 20)
    digest = hashlib.sha256(large).hexdigest()
    before = s.live()

    def leave(coding):
        with socket.create_connection(("127.0.0.1", s.port), 30) as c:
            c.sendall(b"GET /large.txt HTTP/1.1\r\nHost: a\r\nAccept-Encoding: %s\r\n\r\n" % coding)
            c.recv(1000)

    read_large(s, "gzip", digest, 0.005)
    sizes = []
    for turn in range(6):
        for _ in range(15):
            for coding in (b"gzip", b"zstd", b"br"):
                leave(coding)
        s.wait(lambda: s.live()["exchanges"] == before["exchanges"])
        sizes.append(s.resident_kib())
    s.wait(lambda: s.live()["connections"] <= before["connections"])
    assert sizes[-1] < sizes[1] * 1.3 + 20000, sizes
    read_large(s, "br", digest)


@with_server(answer(TEXT.decode()))
def keeps(s):
    """A kept connection, HTTP/1.0 and pipelined requests get whole answers."""
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
    for coding in ["gzip", "br", "zstd", "identity"] * 25:
        c.request("GET", "/", headers={"Accept-Encoding": coding})
        body = c.getresponse().read()
        same(body if coding == "identity" else decoder(coding).decompress(body), TEXT)
    c.close()
    with socket.create_connection(("127.0.0.1", s.port), 30) as c:
        c.sendall(b"GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
        whole = b""
        while piece := c.recv(65536):
            whole += piece
    head, body = whole.split(b"\r\n\r\n", 1)
    assert b"chunked" not in head, head
    same(zlib.decompress(body, 31), TEXT)


run_cases([
    ("each coding, by the client's and the server's order, with its fields", codings),
    ("what is compressed, and what is not", decides),
    ("files: large ones, conditions, ranges, sidecars, HEAD", files),
    ("levels give what they should, bad options are told", levels),
    ("kept connections and old clients get whole answers", keeps),
    ("100 MB are compressed while others are served", hundred),
    ("slow readers and clients that leave take nothing with them", slow),
])
